"""When a transcript has grown too long for the model's context window, and what to leave out of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

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
)

__all__ = ["Plan", "View", "estimate", "plan"]

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


class View:
    """The model's view of a transcript. The transcript itself keeps all messages."""

    __slots__ = ("_elided", "first_kept", "summary")

    def __init__(self) -> None:
        self.summary = ""
        """Summary of the messages before ``first_kept``."""
        self.first_kept = 0
        """The first message that is shown."""
        self._elided: frozenset[int] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether everything is shown as it is."""
        return not self.first_kept and not self._elided

    def shown(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages that the model reads in place of ``messages``."""
        kept = tuple(
            _elide(message) if index in self._elided else message
            for index, message in enumerate(messages[self.first_kept :], start=self.first_kept)
        )
        return (UserMessage((Text(self.summary),)), *kept) if self.first_kept else kept

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


def _elide(message: Message) -> Message:
    return msgspec.structs.replace(message, parts=(Text(ELIDED),)) if isinstance(message, ToolResult) else message


class Plan(msgspec.Struct, frozen=True):
    """The messages and results to leave out."""

    elided: frozenset[int]
    """Indexes of results that are long, and old."""
    first_kept: int | None
    """The first message to keep, where leaving those out is not enough; everything before it is to be summed up."""


def plan(messages: Sequence[Message], view: View, used: int, compaction: Compaction, *, overflow: bool) -> Plan | None:
    """What to leave out of ``messages``; ``None`` if nothing has to be, or nothing can be.

    Args:
      used: tokens that the next request takes, as far as that is known.
      overflow: whether the model has refused the request as too long, whatever ``used`` says.
    """
    room = int(compaction.window * compaction.threshold)
    if used < room and not overflow:
        return None
    # A refusal does not say how large the window is, only that it is smaller than this request.
    kept = min(compaction.keep_recent_tokens, used // 3) if overflow else compaction.keep_recent_tokens
    tail = _tail(messages, view.first_kept, kept)
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
    at = len(messages)
    left = tokens
    found = at
    while at > first:
        at -= 1
        left -= estimate(messages[at])
        if isinstance(messages[at], ToolResult):
            continue
        # The last prompt, or response with its results, stays however long it is.
        if left < 0 and found < len(messages):
            break
        found = at
        if isinstance(messages[at], AssistantMessage) and left < 0:
            break
    return found
