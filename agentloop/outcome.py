"""How a stream ended, and what one can ask of a stream while it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

from attrs import frozen

from agentloop.errors import BlockedError, CancelledRunError, LimitReachedError, NeedsInputError, RunError
from agentloop.events import Question, StreamEvent, StreamReason
from agentloop.messages import Message, Prompt, Usage, UserMessage
from agentloop.questions import Answer

__all__ = ["ChildStream", "Outcome", "QuestionHandler", "error_of"]

QuestionHandler: TypeAlias = Callable[[Question], Awaitable[Answer | None]]
"""Answers questions in a person's place, or passes one on outwards by returning ``None``."""


@frozen(kw_only=True)
class Outcome:
    """How a stream ended."""

    reason: StreamReason
    detail: str = ""
    """Which limit, which hook, what was said to ``stop()``."""
    output: Any = None
    """The answer: text, or a value of the agent's ``output_type``. ``None`` unless the reason is ``completed``."""
    error: BaseException | None = None
    """What made the run fail. ``None`` unless the reason is ``failed``."""
    questions: tuple[Question, ...] = ()
    """What it is parked with, where the reason is ``needs_input``: the answers are for `Agent.resume`."""
    usage: Usage = Usage()
    """Of the stream and of all its children."""
    undelivered: tuple[UserMessage, ...] = ()
    """What was said by `Stream.steer` and `Stream.follow_up` that the run did not get round to. It is not in the
    transcript: start another stream with it."""
    messages: tuple[Message, ...] = ()
    """What the stream added to its session's transcript, complete as far as it goes, whatever the reason."""


class ChildStream(Protocol):
    """A child stream, as the tool that opened it sees it. The same handle as `Stream`."""

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        ...

    @property
    def result(self) -> Outcome:
        """How it ended, if it has a result."""
        ...

    @property
    def pending(self) -> tuple[Question, ...]:
        """The questions that are open now."""
        ...

    def __aiter__(self) -> ChildStream: ...
    async def __anext__(self) -> StreamEvent: ...
    def answer(self, question_id: str, answer: Answer, /) -> None:
        """Answer an open question of this stream, or of a stream inside it."""
        ...

    def steer(self, message: Prompt, /) -> None:
        """Have the model read ``message`` with its next request."""
        ...

    def follow_up(self, message: Prompt, /) -> None:
        """Go on with ``message`` when the run would stop."""
        ...

    def stop(self, detail: str = "") -> None:
        """End the run, with reason ``cancelled``."""
        ...

    async def wait(self) -> Outcome:
        """Let it go on to its end without reading it."""
        ...


def error_of(outcome: Outcome) -> BaseException | None:
    """The error to raise to whoever wants the result of a run that has none; ``None`` if it has one."""
    match outcome.reason:
        case "completed":
            return None
        case "failed" if outcome.error is not None:
            return outcome.error
        case "cancelled":
            return CancelledRunError(_sentence("the run was stopped", outcome), outcome=outcome)
        case "blocked":
            return BlockedError(_sentence("a hook blocked the run", outcome), outcome=outcome)
        case "limit":
            return LimitReachedError(_sentence("the run reached a limit", outcome), outcome=outcome)
        case "needs_input":
            asked = ", ".join(question.id for question in outcome.questions) or "nothing"
            return NeedsInputError(f"the run is parked: resume it with answers to {asked}", outcome=outcome)
        case reason:
            return RunError(_sentence(f"the run ended without a result ({reason})", outcome), outcome=outcome)


def _sentence(what: str, outcome: Outcome) -> str:
    return f"{what}: {outcome.detail}" if outcome.detail else what
