"""Keep a transcript within the model's context window: what to leave out of it, and the whole text of long results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from agentloop._core.media_types import text_of_media
from agentloop.errors import ToolError
from agentloop.limits import Compaction
from agentloop.messages import (
    AssistantMessage,
    File,
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    UserMessage,
    UserPart,
)

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "NO_SHORTER",
    "READ_RESULT",
    "LongResults",
    "Plan",
    "View",
    "estimate",
    "fitted",
    "flaw_of_summary",
    "is_shorter",
    "plan",
    "result_cap",
    "text_of_part",
]

CHARACTERS_PER_TOKEN = 4
"""Characters per token of English text, by the providers. Only messages since the provider's last count are estimated.
"""
TOKENS_OF_A_PICTURE = 1_500
TOKENS_OF_A_MESSAGE = 4
ELIDED = "[This old result was left out to make room.]"


def estimate(message: Message) -> int:
    """About how many tokens ``message`` takes."""
    characters = 0
    tokens = TOKENS_OF_A_MESSAGE
    for part in message.parts:
        match part:
            case Text(text=text) | Reasoning(text=text):
                characters += len(text)
            case ToolCall(name=name, arguments=arguments):
                characters += len(name) + len(arguments)
            case Image():
                tokens += TOKENS_OF_A_PICTURE
            case File(data=data):
                tokens += TOKENS_OF_A_PICTURE if data is None else len(data) // CHARACTERS_PER_TOKEN
    return tokens + characters // CHARACTERS_PER_TOKEN


# -------------------------------------------------------------------------- summaries


MOST_FAILURES = 2
"""Failed summaries in a row after which compaction rests: each costs a request over the whole conversation."""

NO_SHORTER = "the summary is no shorter than the messages that it would replace"
"""Why a summary is refused that makes no room."""
_FLAWS = {
    "length": "the summary was cut off at the limit of tokens",
    "refusal": "the model refused to write a summary",
    "paused": "the summary is not complete: the provider paused the response",
}


def flaw_of_summary(message: AssistantMessage) -> str:
    """Why ``message`` is no whole summary; empty if it is one. The model would lose what the summary does not say."""
    if message.calls:
        return "the model called tools and wrote no summary"
    if message.stop != "end":
        return _FLAWS.get(message.stop, f"the response that should be the summary ended with {message.stop!r}")
    return "" if message.text.strip() else "the model wrote no summary"


def is_shorter(summary: Message, replaced: Sequence[Message]) -> bool:
    """Whether ``summary`` takes fewer tokens than the messages that it replaces."""
    return estimate(summary) < sum(map(estimate, replaced))


LEFT_OUT = "[The messages before these were left out to make room.]"
CUT = "\n[A part was left out here to make room.]\n"
SHORTEST = 50
"""Tokens of a message that stay in any case."""


def fitted(messages: Sequence[Message], tokens: int) -> tuple[Message, ...]:
    """``messages`` in at most about ``tokens``, to be summed up: the oldest are left out, and long texts are cut.

    A summary in front of the messages stays. Calls stay with their results.
    """
    if sum(map(estimate, messages)) <= tokens:
        return tuple(messages)
    start = _tail(messages, 0, tokens)
    recent = list(messages[start:])
    if start:
        first = messages[0]
        summary = (_cut(first, tokens // 4),) if isinstance(first, UserMessage) else ()
        recent = [*summary, UserMessage((Text(LEFT_OUT),)), *recent]
    cap = _fair_cap([estimate(message) for message in recent], tokens)
    return tuple(_cut(message, cap) if estimate(message) > cap else message for message in recent)


def result_cap(messages: Sequence[Message], tokens: int) -> int:
    """The tokens that each result of ``messages`` may take, if all messages are to take ``tokens``."""
    results = [estimate(message) for message in messages if isinstance(message, ToolResult)]
    others = sum(map(estimate, messages)) - sum(results)
    return _fair_cap(results, tokens - others)


def _fair_cap(sizes: Sequence[int], total: int) -> int:
    """The cap for each of ``sizes`` under which their sum is at most ``total``, but at least `SHORTEST`."""
    left = total
    ascending = sorted(sizes)
    for index, size in enumerate(ascending):
        share = left // (len(ascending) - index)
        if size > share:
            return max(share, SHORTEST)
        left -= size
    return max(total, SHORTEST)


def _cut(message: Message, tokens: int) -> Message:
    """``message`` with its texts cut to about ``tokens``; the pictures and files of a long message are left out."""
    if isinstance(message, AssistantMessage) or estimate(message) <= tokens:
        return message
    text = "".join(part.text for part in message.parts if isinstance(part, Text))
    room = max(tokens - TOKENS_OF_A_MESSAGE, 0) * CHARACTERS_PER_TOKEN - len(CUT)
    if len(text) > room > 0:
        text = text[: room * 3 // 4] + CUT + text[len(text) - room // 4 :]
    return msgspec.structs.replace(message, parts=(Text(text or CUT),))


class View:
    """The model's view of a transcript. The transcript itself keeps all messages."""

    __slots__ = ("_elided", "failures", "first_kept", "in_part", "summary")

    def __init__(self) -> None:
        self.summary = ""
        """Summary of the messages before ``first_kept``."""
        self.first_kept = 0
        """The first message that is shown."""
        self.in_part: dict[int, ToolResult] = {}
        """The results that are shown in part, by their index in the transcript."""
        self.failures = 0
        """How many summaries have failed in a row."""
        self._elided: frozenset[int] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether everything is shown as it is."""
        return not self.first_kept and not self._elided and not self.in_part

    def shown(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages that the model reads in place of ``messages``."""
        shown = tuple(
            _elide(message) if index in self._elided else self.in_part.get(index, message)
            for index, message in enumerate(messages[self.first_kept :], start=self.first_kept)
        )
        return (UserMessage((Text(self.summary),)), *shown) if self.first_kept else shown

    @property
    def elided(self) -> frozenset[int]:
        """The results that are left out, by their index in the transcript."""
        return self._elided

    def elide(self, indexes: frozenset[int]) -> None:
        """Leave out the results at ``indexes`` of the transcript."""
        self._elided |= indexes

    def is_elided(self, index: int) -> bool:
        """Whether the result at ``index`` of the transcript is left out."""
        return index in self._elided

    def summarize(self, summary: str, first_kept: int) -> None:
        """Show ``summary`` in the place of everything before ``first_kept``."""
        self.summary = summary
        self.first_kept = first_kept
        self.failures = 0

    @property
    def is_resting(self) -> bool:
        """Whether so many summaries have failed that the next is taken only after a request is refused as too long."""
        return self.failures >= MOST_FAILURES


def _elide(message: Message) -> Message:
    return msgspec.structs.replace(message, parts=(Text(ELIDED),)) if isinstance(message, ToolResult) else message


class Plan(msgspec.Struct, frozen=True):
    """The messages and results to leave out."""

    elided: frozenset[int]
    """Indexes of results that are long, and old."""
    first_kept: int | None
    """The first message to keep, where leaving those out is not enough; everything before it is to be summed up."""


def plan(messages: Sequence[Message], view: View, used: int, compaction: Compaction, *, overflow: bool) -> Plan | None:
    """Plan the messages and results to leave out of ``messages``; ``None`` if none have to be, or none can be.

    Args:
      used: tokens that the next request takes, as far as that is known.
      overflow: whether the model has refused the request as too long, whatever ``used`` says.
    """
    room = int(compaction.window * compaction.threshold)
    if used < room and not overflow:
        return None
    # A refusal does not say how large the window is, only that it is smaller than this request.
    recent_tokens = min(compaction.keep_recent_tokens, used // 3) if overflow else compaction.keep_recent_tokens
    tail = _tail(messages, view.first_kept, recent_tokens)
    long = {
        index: estimate(message)
        for index, message in enumerate(messages[view.first_kept : tail], start=view.first_kept)
        if isinstance(message, ToolResult)
        and not view.is_elided(index)
        and estimate(message) > compaction.result_tokens
    }
    # Half of the room is to be free afterwards: else the next turn would have to make room again.
    if long and not overflow and used - sum(long.values()) < room // 2:
        return Plan(frozenset(long), None)
    if tail > view.first_kept:
        return Plan(frozenset(), tail)
    return Plan(frozenset(long), None) if long else None


def _tail(messages: Sequence[Message], first: int, tokens: int) -> int:
    """Index of the first recent message: about ``tokens`` of them stay, and calls stay with their results."""
    index = len(messages)
    left = tokens
    first_recent = index
    while index > first:
        index -= 1
        left -= estimate(messages[index])
        if isinstance(messages[index], ToolResult):
            continue
        # The last prompt, or response with its results, stays however long it is.
        if left < 0 and first_recent < len(messages):
            break
        first_recent = index
        if isinstance(messages[index], AssistantMessage) and left < 0:
            break
    return first_recent


# ---------------------------------------------------------------------- long results


READ_RESULT = "read_result"
"""The name of the tool by which a model reads on."""

MOST_CHARACTERS = 20_000_000
"""Characters that a session stores: the oldest results make room."""


_NONE: Mapping[str, str] = {}


def text_of_part(part: UserPart) -> str | None:
    """What the model reads of ``part`` as text, a text file under its name; ``None`` for a picture or a document."""
    if isinstance(part, Text):
        return part.text
    text = text_of_media(part)
    if text is None:
        return None
    return f"\n[{part.name if isinstance(part, File) else 'file'}]\n{text}\n"


def _length_of_files(parts: Sequence[UserPart]) -> int:
    return sum(len(text_of_media(part) or "") for part in parts if not isinstance(part, Text))


class LongResults:
    """The results of a session that were too long to be shown whole, by call id."""

    __slots__ = ("_size", "_texts")

    def __init__(self) -> None:
        self._texts: Mapping[str, str] = _NONE
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._texts)

    def shorten(self, result: ToolResult, most: float) -> ToolResult:
        """``result`` with at most about ``most`` characters of text, and a word on how to read the rest.

        Its beginning and its end are shown, three parts to one: an error comes last as a rule. Text files count, and
        become a part of the text where they do not fit. Images and other files are left as they are.
        """
        length = 0
        texts = True
        for part in result.parts:
            if type(part) is Text:
                length += len(part.text)
            else:
                texts = False
        if length <= most and (texts or length + _length_of_files(result.parts) <= most):
            return result
        pieces = [(part, text_of_part(part)) for part in result.parts]
        text = "".join(words for _, words in pieces if words is not None)
        length = len(text)
        self.store(result.call_id, text)
        head, tail = int(most * 3 / 4), int(most / 4)
        note = (
            f"\n\n[{length - head - tail:,} of {length:,} characters are left out here. "
            f'To read them: {READ_RESULT}(call_id="{result.call_id}", offset={head})]\n\n'
        )
        shown = Text(text[:head] + note + text[length - tail :])
        others = (part for part, words in pieces if words is None)
        return ToolResult(result.call_id, result.name, (shown, *others), result.status)

    def read(self, call_id: str, offset: int, limit: int, find: str) -> str:
        """A piece of a result that was kept.

        Args:
          offset: the first character, from 0.
          limit: how many characters.
          find: begin where this stands next, at or after ``offset``; empty to begin at ``offset``.

        Raises:
          ToolError: it is not kept, or there is nothing at that place. The message is for the model.
        """
        text = self._texts.get(call_id)
        if text is None:
            stored_ids = ", ".join(self._texts) or "none"
            raise ToolError(
                f"there is no long result of call {call_id!r} (any more); those that are kept: {stored_ids}"
            )
        if find:
            start = text.find(find, offset)
            if start < 0:
                raise ToolError(f"{find!r} does not stand at or after offset {offset}")
            offset = start
        if offset >= len(text):
            raise ToolError(f"the result has {len(text)} characters, so there is nothing at offset {offset}")
        end = min(offset + limit, len(text))
        return f"[characters {offset} to {end} of {len(text)}]\n{text[offset:end]}"

    def get(self, call_id: str) -> str | None:
        """The whole text of a long result, if it is stored."""
        return self._texts.get(call_id)

    def store(self, call_id: str, text: str) -> None:
        """Keep the whole ``text`` of a result, to be read. Storing a result once more takes no more room."""
        texts = {**self._texts}
        # A session that is opened again from its journal stores results that are here already.
        self._size += len(text) - len(texts.pop(call_id, ""))
        texts[call_id] = text
        while self._size > MOST_CHARACTERS and len(texts) > 1:
            oldest = next(iter(texts))
            self._size -= len(texts.pop(oldest))
        self._texts = texts
