"""Keep a transcript within the model's context window: what to leave out of it, and the whole text of long results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from agentloop._core.media_types import text_of_media
from agentloop._core.tokens import (
    TOKENS_OF_A_MESSAGE,
    Tokens,
    estimate,
    tokens_in_front,
    tokens_of,
    tokens_of_text,
)
from agentloop.errors import ToolError
from agentloop.limits import Compaction
from agentloop.messages import (
    AssistantMessage,
    AssistantPart,
    File,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    UserMessage,
    UserPart,
)
from agentloop.models import ToolSpec
from agentloop.outcome import ContextUse

__all__ = [
    "FLAWS",
    "READ_RESULT",
    "Cut",
    "LongResults",
    "Measure",
    "Plan",
    "View",
    "as_text",
    "context_use",
    "estimate",
    "fair_cap",
    "fitted",
    "flaw_of_length",
    "flaw_of_summary",
    "measure",
    "newest_prompt",
    "plan",
    "text_of_part",
    "without_summary",
]

ELIDED = "[This old result was left out to make room.]"
AN_ELIDED_RESULT = Tokens(TOKENS_OF_A_MESSAGE + 12)
NOTHING = Tokens(0)
NO_PICTURE = "[A picture or document was left out here to make room.]"


# -------------------------------------------------------------------------- summaries


MOST_FAILURES = 2
"""Failed summaries in a row after which compaction rests: each costs a request over the whole conversation."""

NO_SHORTER = "the summary is no shorter than the messages that it would replace"
"""Why a summary is refused that makes no room."""
TOO_LONG = "the summary would take more than half of the window"
CALLED = "the model called tools and wrote no summary"
EMPTY = "the model wrote no summary"
_FLAWS = {
    "length": "the summary was cut off at the limit of tokens",
    "refusal": "the model refused to write a summary",
    "paused": "the summary is not complete: the provider paused the response",
}
FLAWS = frozenset({*_FLAWS.values(), NO_SHORTER, TOO_LONG, CALLED, EMPTY})
"""The problems of summaries that the next summary of the same messages would have, too."""


def flaw_of_summary(message: AssistantMessage) -> str:
    """Why ``message`` is no whole summary; empty if it is one. The model would lose what the summary does not say."""
    if message.calls:
        return CALLED
    if message.stop != "end":
        return _FLAWS.get(message.stop, f"the response that should be the summary ended with {message.stop!r}")
    return "" if message.text.strip() else EMPTY


def without_summary(summary: str, tokens: int) -> str:
    """The text in the place of messages that are left out without a summary.

    Args:
      summary: the last summary, which stays as far as it takes at most ``tokens``; empty if there is none.
    """
    kept = _cut_text(summary, tokens).removesuffix(LEFT_OUT).rstrip()
    return f"{kept}\n\n{LEFT_OUT}" if kept else LEFT_OUT


def flaw_of_length(summary: Message, replaced: Sequence[Message], room: int) -> str:
    """Why ``summary`` makes no room; empty if it does.

    Args:
      replaced: the messages that it replaces.
      room: the tokens that a request may take.
    """
    tokens = estimate(summary)
    if tokens >= sum(map(estimate, replaced)):
        return NO_SHORTER
    return TOO_LONG if tokens > room // 2 else ""


# ---------------------------------------------------------- messages in fewer tokens


LEFT_OUT = "[The messages before these were left out to make room.]"
CUT = "\n[A part was left out here to make room.]\n"
LEFT_OUT_ARGUMENTS = '{"left_out":"to make room"}'
SHORTEST = 50
"""Tokens of a message that stay in any case."""


def fitted(messages: Sequence[Message], tokens: int) -> tuple[Message, ...]:
    """``messages`` in at most about ``tokens``, to be summed up: the oldest are left out, and long texts are cut.

    A summary in front of the messages stays. Calls stay with their results. Where that takes too many tokens still, all
    of it becomes one text.
    """
    sizes = [estimate(message) for message in messages]
    if sum(sizes) <= tokens:
        return tuple(messages)
    start = _tail(messages, sizes, 0, tokens)
    recent, recent_sizes = list(messages[start:]), sizes[start:]
    if start:
        first = messages[0]
        summary = [_cut(first, max(tokens // 4, SHORTEST))] if isinstance(first, UserMessage) else []
        front = [*summary, UserMessage((Text(LEFT_OUT),))]
        recent, recent_sizes = [*front, *recent], [*map(estimate, front), *recent_sizes]
    cap = fair_cap(recent_sizes, tokens)
    found = [_cut(message, cap) if size > cap else message for message, size in zip(recent, recent_sizes, strict=True)]
    if sum(map(estimate, found)) <= tokens:
        return tuple(found)
    return (_cut_to(as_text(found), tokens),)


def as_text(messages: Sequence[Message]) -> UserMessage:
    """``messages`` as one text, for a request without tools: some servers refuse calls there."""
    lines: list[str] = []
    for message in messages:
        match message:
            case UserMessage(parts=parts):
                lines.append(f"User: {_text_of(parts)}")
            case ToolResult(name=name, parts=parts, status=status):
                lines.append(f"Result of {name}{'' if status == 'ok' else f' ({status})'}: {_text_of(parts)}")
            case AssistantMessage(calls=calls):
                if message.text:
                    lines.append(f"Assistant: {message.text}")
                lines.extend([f"Assistant calls {call}" for call in calls])
    return UserMessage((Text("The conversation:\n\n" + "\n\n".join(lines)),))


def _text_of(parts: Iterable[UserPart]) -> str:
    return " ".join([part.text if isinstance(part, Text) else NO_PICTURE for part in parts])


def fair_cap(sizes: Sequence[int], total: int) -> int:
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
    """``message`` in about ``tokens``: its texts cut, without the pictures and files that have no room."""
    if estimate(message) <= tokens:
        return message
    if isinstance(message, AssistantMessage):
        return _cut_response(message, tokens)
    parts = list(message.parts)
    text = "".join(part.text for part in parts if isinstance(part, Text))
    others = _fitting_media(parts, tokens - TOKENS_OF_A_MESSAGE - min(tokens_of_text(text), tokens // 4))
    left = tokens - sum([tokens_of(UserMessage((part,))).all for part in others])
    return msgspec.structs.replace(message, parts=(Text(_cut_text(text, left - TOKENS_OF_A_MESSAGE) or CUT), *others))


def _fitting_media(parts: Sequence[UserPart], tokens: int) -> list[UserPart]:
    """The pictures and files of ``parts``, those without room as a note."""
    found: list[UserPart] = []
    for part in parts:
        if isinstance(part, Text):
            continue
        size = estimate(UserMessage((part,)))
        if size <= tokens:
            tokens -= size
            found.append(part)
        elif Text(NO_PICTURE) not in found:
            found.append(Text(NO_PICTURE))
    return found


def _cut_response(message: AssistantMessage, tokens: int) -> AssistantMessage:
    """``message`` in about ``tokens``: without reasoning, its text cut, and the longest arguments left out."""
    calls = message.calls
    cap = fair_cap([tokens_of_text(message.text), *(tokens_of_text(call.arguments) for call in calls)], tokens)
    parts: list[AssistantPart] = []
    for part in message.parts:
        match part:
            case Reasoning():
                continue
            case ToolCall(id=id, name=name, arguments=arguments):
                too_long = tokens_of_text(arguments) > cap
                parts.append(ToolCall(id, name, LEFT_OUT_ARGUMENTS if too_long else arguments))
            case Text(text=text):
                parts.append(Text(_cut_text(text, cap)))
    return msgspec.structs.replace(message, parts=tuple(parts) or (Text(CUT),))


def _cut_to(message: UserMessage, tokens: int) -> UserMessage:
    """``message``, which is one text, in at most ``tokens`` tokens: its end counts most."""
    text = message.text
    size = estimate(message)
    while size > tokens and len(text) > 1:
        text = text[-max(len(text) * max(tokens, 1) * 9 // (size * 10), 1) :]
        size = estimate(UserMessage((Text(CUT + text),)))
        if len(text) < 4 * SHORTEST:
            break
    return UserMessage((Text(CUT + text),)) if text != message.text else message


def _cut_text(text: str, tokens: int) -> str:
    """``text`` in about ``tokens``: its beginning and its end, three parts to one."""
    size = tokens_of_text(text)
    if size <= tokens:
        return text
    room = len(text) * max(tokens - tokens_of_text(CUT), 0) // size
    return text[: room * 3 // 4] + CUT + text[len(text) - room // 4 :]


# ---------------------------------------------------------------------------- the view


class Cut(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an agent reads in place of the messages that a handoff has left out, and what the agents before it read."""

    at: int
    """How many messages the transcript had when the handoff was made."""
    summary: str = ""
    """`View.summary` for an agent that reads all."""
    first_kept: int = 0
    """`View.first_kept` for an agent that reads all."""
    messages: tuple[Message, ...] = ()
    """The messages that it reads in place of those before ``View.first_kept``."""


class View:
    """The model's view of a transcript. The transcript itself keeps all messages.

    Args:
      long_results: keeps the whole text of results that are shown in part.
    """

    __slots__ = (
        "_elided",
        "_long_results",
        "_parts",
        "_sizes",
        "changed_at",
        "cut",
        "failures",
        "first_kept",
        "in_part",
        "scale",
        "summary",
    )

    def __init__(self, long_results: LongResults | None = None) -> None:
        self._long_results = LongResults() if long_results is None else long_results
        self.summary = ""
        """Summary of the messages before ``first_kept``."""
        self.first_kept = 0
        """The first message that is shown."""
        self.in_part: dict[int, int] = {}
        """The messages that are shown in part, by their index in the transcript, with the tokens that they may take."""
        self.changed_at = 0
        """The messages that there were when the view changed last: what a provider has counted before has changed."""
        self.failures = 0
        """How many summaries have failed in a row."""
        self.cut: Cut | None = None
        """What the agent reads in place of messages that a handoff has left out; ``None`` if none has."""
        self.scale = 1.0
        """The tokens of the provider for each token of the estimate, where the provider counts more."""
        self._elided: frozenset[int] = frozenset()
        self._parts: dict[int, Message] = {}
        """The messages of ``in_part``, as they are shown."""
        self._sizes: list[tuple[Message, Tokens | None]] = []
        """The estimates of the messages of the transcript, each with its message, as far as they were needed."""

    @property
    def is_plain(self) -> bool:
        """Whether everything is shown as it is."""
        return not self.first_kept and not self._elided and not self.in_part and self.cut is None

    @property
    def front(self) -> tuple[Message, ...]:
        """The messages in place of those before ``first_kept``."""
        if self.cut is not None and self.cut.messages:
            return self.cut.messages
        return (UserMessage((Text(self.summary),)),) if self.first_kept and self.summary else ()

    def shown(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages that the model reads in place of ``messages``."""
        shown: list[Message] = list(self.front)
        for index in range(self.first_kept, len(messages)):
            message = messages[index]
            if index not in self._elided:
                shown.append(self._part(index, message) if index in self.in_part else message)
            elif isinstance(message, ToolResult):
                shown.append(msgspec.structs.replace(message, parts=(Text(ELIDED),)))
        return tuple(shown)

    def sizes(self, messages: Sequence[Message]) -> list[Tokens]:
        """The tokens that each of ``messages`` takes in the view: none for those before ``first_kept``."""
        sizes, found = self._sizes, [NOTHING] * min(self.first_kept, len(messages))
        del sizes[len(messages) :]
        sizes.extend([(message, None) for message in messages[len(sizes) :]])
        for index in range(self.first_kept, len(messages)):
            message = messages[index]
            measured, tokens = sizes[index]
            if tokens is None or measured is not message:
                # The messages are compared by identity: after a rewind, others stand in their places.
                tokens = tokens_of(message)
                sizes[index] = message, tokens
            if index in self._elided:
                tokens = AN_ELIDED_RESULT if isinstance(message, ToolResult) else NOTHING
            elif index in self.in_part:
                tokens = tokens_of(self._part(index, message))
            found.append(tokens)
        return found

    def _part(self, index: int, message: Message) -> Message:
        part = self._parts.get(index)
        if part is None:
            part = self._parts[index] = part_of(message, self.in_part[index], self._long_results)
        return part

    @property
    def elided(self) -> frozenset[int]:
        """The results and prompts that are left out, by their index in the transcript."""
        return self._elided

    def elide(self, indexes: frozenset[int]) -> None:
        """Leave out the results at ``indexes`` of the transcript, and the prompts, which were refused as too long."""
        self._elided |= indexes

    def is_elided(self, index: int) -> bool:
        """Whether the message at ``index`` of the transcript is left out."""
        return index in self._elided

    def change(self, messages: Sequence[Message], index: int) -> None:
        """Note that the message at ``index`` is about to be shown in another way: counts that include it are void."""
        if any(isinstance(message, AssistantMessage) for message in messages[index:]):
            self.changed_at = len(messages)

    def show_part(self, index: int, tokens: int) -> None:
        """Show about ``tokens`` of the message at ``index`` of the transcript."""
        self.in_part[index] = tokens
        self._parts.pop(index, None)

    def summarize(self, summary: str, first_kept: int) -> None:
        """Show ``summary`` in the place of everything before ``first_kept``."""
        self.summary = summary
        self.first_kept = first_kept
        self.failures = 0
        if self.cut is not None:
            self.cut = msgspec.structs.replace(self.cut, messages=())

    def cut_to_newest_prompt(self, messages: Sequence[Message], before: int) -> None:
        """Have the next agent read the newest message of the user in ``messages[:before]``, and what follows it."""
        for index in range(before - 1, self.first_kept - 1, -1):
            message = messages[index]
            if isinstance(message, UserMessage) and message.is_prompt:
                self._cut(messages, index, ())
                return
        # It is in the summary, or a function has left it out.
        self._cut(messages, None, self.cut.messages if self.cut is not None else ())

    def cut_to(self, lead: Sequence[Message], messages: Sequence[Message]) -> None:
        """Have the next agent read ``lead`` in place of ``messages``."""
        self._cut(messages, len(messages), tuple(lead))

    def _cut(self, messages: Sequence[Message], first_kept: int | None, lead: tuple[Message, ...]) -> None:
        before = Cut(0, self.summary, self.first_kept) if self.cut is None else self.cut
        self.change(messages, self.first_kept)
        self.cut = msgspec.structs.replace(before, at=len(messages), messages=lead)
        if first_kept is not None:
            self.summary, self.first_kept = "", first_kept

    def uncut(self, messages: Sequence[Message]) -> None:
        """Have the next agent read what those before the cut read."""
        if self.cut is not None:
            self.change(messages, 0)
            self.summary, self.first_kept, self.cut = self.cut.summary, self.cut.first_kept, None

    def cut_summary(self, tokens: int) -> bool:
        """Cut the summary to ``tokens``: it is of a model with a larger window. Gives whether it was longer."""
        summary = _cut_text(self.summary, tokens)
        is_cut = summary != self.summary
        self.summary = summary
        return is_cut

    def restore(
        self,
        *,
        summary: str,
        first_kept: int,
        elided: Iterable[int],
        in_part: Iterable[tuple[int, int]],
        changed_at: int,
        failures: int,
        cut: Cut | None = None,
    ) -> None:
        """Show exactly what a journal has: in another process, or after a failure of the store."""
        self.cut = cut
        self.summary, self.first_kept, self.changed_at, self.failures = summary, first_kept, changed_at, failures
        self._elided = frozenset(elided)
        self.in_part = dict(in_part)
        self._parts.clear()

    def rewind(self, messages: int) -> None:
        """Only the first so many ``messages`` count from here on."""
        if self.cut is not None and self.cut.at > messages:
            self.summary, self.first_kept, self.cut = self.cut.summary, self.cut.first_kept, None
        if self.first_kept > messages:
            self.summary, self.first_kept = "", 0
        self._elided = frozenset([index for index in self._elided if index < messages])
        self.in_part = {index: tokens for index, tokens in self.in_part.items() if index < messages}
        self._parts = {index: part for index, part in self._parts.items() if index < messages}
        self.changed_at = min(self.changed_at, messages)

    @property
    def is_resting(self) -> bool:
        """Whether so many summaries have failed that the next is taken only after a request is refused as too long."""
        return self.failures >= MOST_FAILURES


WORD_ON_THE_REST = 60
"""Tokens of the note on how to read the rest of a result."""
MOST_SHOWN_AT_LEAST = 40
"""Characters of a result that are shown however little room there is."""


def part_of(message: Message, tokens: int, long_results: LongResults) -> Message:
    """``message`` in about ``tokens``. The whole text of a result is stored in ``long_results``."""
    if not isinstance(message, ToolResult):
        return _cut(message, tokens)
    # A result that was too long before is cut from its whole text, which its offsets count in.
    text = long_results.get(message.call_id)
    if text is None:
        text = "".join(part.text for part in message.parts if isinstance(part, Text))
    text_tokens = tokens_of_text(text)
    others = _fitting_media(message.parts, tokens - TOKENS_OF_A_MESSAGE - min(text_tokens, tokens // 4))
    left = tokens - sum([estimate(UserMessage((part,))) for part in others]) - WORD_ON_THE_REST - TOKENS_OF_A_MESSAGE
    most = max(len(text) * left // max(text_tokens, 1), MOST_SHOWN_AT_LEAST)
    texts = (Text(text),) if text else ()
    return long_results.shorten(ToolResult(message.call_id, message.name, (*texts, *others), message.status), most)


# ----------------------------------------------------------------- what a request takes


IMPLAUSIBLE = 2
"""A count that is smaller than the estimate of the texts by this factor is not taken: some servers report only the
tokens that were not in their cache."""
MOST_SCALE = 2.0
LEAST_TO_SCALE = 2_000
"""Tokens from which on the scale of the provider's count is meaningful: smaller requests are mostly what the server
adds."""


class Measure(msgspec.Struct, frozen=True):
    """The tokens of the next request, as far as they are known."""

    tokens: int
    """All of them."""
    counted: int
    """Those that the provider has counted, with its last response; 0 if no count is left that holds."""
    estimated: int
    """What the estimate says of the whole request."""


def measure(messages: Sequence[Message], view: View, front: int) -> Measure:
    """Measure the request that comes next: by the provider's last count, and what has been added since.

    The count is in the usage of the last response, so it is known in every process that has the transcript.

    Args:
      front: the estimate of the instructions and tools.
    """
    sizes = view.sizes(messages)
    summary = sum(map(estimate, view.front))
    known = front + summary
    everything = known + sum([size.all for size in sizes[view.first_kept :]])
    index = len(messages)
    first = max(view.first_kept, view.changed_at)
    added = 0
    while index > first:
        index -= 1
        message = messages[index]
        counted = _counted(message) if isinstance(message, AssistantMessage) else 0
        if counted:
            before = everything - added
            texts = before - sum([size.media for size in sizes[view.first_kept : index + 1]])
            if counted * IMPLAUSIBLE < texts:
                break
            if texts > LEAST_TO_SCALE:
                view.scale = min(max(counted / before, 1.0), MOST_SCALE)
            return Measure(counted + int(added * view.scale), counted, everything)
        added += sizes[index].all
    return Measure(int(everything * view.scale), 0, everything)


def _counted(message: AssistantMessage) -> int:
    """The provider's count of a request and its response, as far as the response is sent again."""
    usage = message.usage
    if not usage.input_tokens or usage.estimated_requests:
        return 0
    sends_reasoning = any(isinstance(part, Reasoning) for part in message.parts)
    return usage.total_tokens - (0 if sends_reasoning else usage.reasoning_tokens)


def newest_prompt(messages: Sequence[Message], view: View) -> list[int]:
    """The indexes of the prompts at the end that are shown: those that no response has followed yet, newest first."""
    found: list[int] = []
    for index in range(len(messages) - 1, view.first_kept - 1, -1):
        message = messages[index]
        if not isinstance(message, UserMessage):
            break
        if not view.is_elided(index) and message.is_prompt:
            found.append(index)
    return found


def context_use(messages: Sequence[Message], view: View, instructions: str, tools: Sequence[ToolSpec]) -> ContextUse:
    """Where the tokens of the next request are."""
    of_tools = {spec.name: tokens_in_front("", (spec,)) for spec in tools}
    of_instructions = tokens_in_front(instructions, ())
    measured = measure(messages, view, of_instructions + sum(of_tools.values()))
    sizes = view.sizes(messages)
    prompts = responses = media = 0
    results: dict[str, int] = {}
    shown: dict[int, int] = {}
    for index in range(view.first_kept, len(messages)):
        message, size = messages[index], sizes[index]
        if size.all:
            shown[index] = size.all
        media += size.media
        match message:
            case UserMessage():
                prompts += size.text
            case AssistantMessage():
                responses += size.text
            case ToolResult(name=name):
                results[name] = results.get(name, 0) + size.text
    return ContextUse(
        tokens=measured.tokens,
        counted=measured.counted,
        instructions=of_instructions,
        tools=of_tools,
        summary=sum(map(estimate, view.front)),
        prompts=prompts,
        responses=responses,
        results=results,
        media=media,
        messages=shown,
    )


# ----------------------------------------------------------------------------- the plan


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
    room = int(compaction.size * compaction.threshold)
    if used < room and not overflow:
        return None
    sizes = [int(size.all * view.scale) for size in view.sizes(messages)]
    recent_tokens = compaction.keep_recent_tokens
    if overflow:
        # A refusal does not say how large the window is, only that it is smaller than this request.
        recent_tokens = min(recent_tokens, used // 3, sum(sizes) // 3)
    tail = _tail(messages, sizes, view.first_kept, recent_tokens)
    long = {
        index: sizes[index]
        for index, message in enumerate(messages[view.first_kept : tail], start=view.first_kept)
        if isinstance(message, ToolResult) and not view.is_elided(index) and sizes[index] > compaction.result_tokens
    }
    # Half of the room is to be free afterwards: else the next turn would have to make room again.
    if long and not overflow and used - sum(long.values()) < room // 2:
        return Plan(frozenset(long), None)
    if tail > view.first_kept:
        return Plan(frozenset(), tail)
    return Plan(frozenset(long), None) if long else None


def _tail(messages: Sequence[Message], sizes: Sequence[int], first: int, tokens: int) -> int:
    """Index of the first recent message: about ``tokens`` of them stay, and calls stay with their results."""
    index = len(messages)
    left = tokens
    first_recent = index
    while index > first:
        index -= 1
        left -= sizes[index]
        message = messages[index]
        if isinstance(message, ToolResult) or (isinstance(message, UserMessage) and not message.is_prompt):
            # A context and a report stay with the message before them, which may be the prompt.
            continue
        # The last prompt, or response with its results, stays however long it is.
        if left < 0 and first_recent < len(messages):
            break
        first_recent = index
        if isinstance(message, AssistantMessage) and left < 0:
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

    @staticmethod
    def fits(result: ToolResult, most: float) -> bool:
        """Whether ``result`` is one text of at most ``most`` characters, as nearly all are: it stays as it is."""
        parts = result.parts
        return len(parts) == 1 and type(parts[0]) is Text and len(parts[0].text) <= most

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
