"""The outcome of a stream, and the handle of a child stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias, cast

import msgspec

from agentloop._core.attrs_fields import AttrsFields
from agentloop._core.first_guesses import name_the_way, refuse
from agentloop._core.typevars import Output_co
from agentloop.errors import BlockedError, CancelledRunError, LimitReachedError, NeedsInputError, RunError
from agentloop.events import Question, StreamEvent, StreamReason, ToolsetStatus
from agentloop.messages import Message, Prompt, Usage, UserMessage
from agentloop.questions import Answer

__all__ = [
    "BackgroundRun",
    "ChildStream",
    "CompactionResult",
    "ContextUse",
    "Cost",
    "Outcome",
    "QuestionHandler",
    "error_of",
]

QuestionHandler: TypeAlias = Callable[[Question], Answer | Awaitable[Answer | None] | None]
"""A function that answers questions in a person's place. Returning ``None`` passes the question on, outwards.

It is async or plain. A plain one is called in the thread of the run, and everything else waits until it returns: that
suits ``input()`` in a script, where Ctrl-C then ends the program.
"""


# A Struct, as the classes of `agentloop.limits` are, and for the same reason.
class Outcome(msgspec.Struct, Generic[Output_co], frozen=True, kw_only=True):
    """How a stream ended, and with what result."""

    __attrs_attrs__: ClassVar[Any] = AttrsFields()
    """For `attrs.evolve`, `attrs.fields`, `attrs.asdict` and `attrs.has`."""

    reason: StreamReason
    """Why it ended."""
    detail: str = ""
    """More about the reason, for a person: the limit, the hook's words, the argument of ``stop()``; for an answer that
    is empty or was cut off, that it is."""
    output: Output_co = cast("Any", None)
    """The answer: text, or a value of the agent's ``output_type``. ``None`` unless the reason is ``completed``."""
    error: BaseException | None = None
    """The error that ended the run. ``None`` unless the reason is ``failed``."""
    questions: tuple[Question, ...] = ()
    """The questions that wait for answers, if the reason is ``needs_input``; give the answers to `Agent.resume`."""
    usage: Usage = Usage()
    """Usage of the stream and of all its children."""
    undelivered: tuple[UserMessage, ...] = ()
    """Messages from `Stream.steer` and `Stream.follow_up` that the run ended without reading. They are not in the
    transcript; send them with the next prompt."""
    messages: tuple[Message, ...] = ()
    """The messages that the stream added to its session's transcript, whatever the reason; valid for a provider."""

    @property
    def cost(self) -> Cost:
        """What the run has cost, with its children, and with the runs that it resumes."""
        return Cost.of(self.usage)


class Cost(msgspec.Struct, frozen=True):
    """What a run has cost."""

    amount: float
    """In ``currency``; 0 if nothing has cost anything, or nothing of it is known."""
    currency: str
    """Such as ``"USD"``; empty if nothing has cost anything."""
    price_lists: tuple[str, ...]
    """What it was computed by: see `Usage.price_lists`."""
    is_known: bool
    """Whether it counts every response. If it does not, it is less than what the provider bills."""

    @classmethod
    def of(cls, usage: Usage) -> Cost:
        """What ``usage`` has cost."""
        return cls(usage.cost, usage.currency, usage.price_lists, usage.is_cost_known)

    def __str__(self) -> str:
        if not self.amount:
            return "nothing" if self.is_known else "unknown"
        least = "" if self.is_known else "at least "
        return f"{least}{self.amount:.4g} {self.currency}".rstrip()


_SESSION = "give each run the same session=Session(), which keeps them"

name_the_way(
    Outcome,
    {
        "data": "it is called `output` here",
        "result": "it is called `output` here",
        "final_output": "it is called `output` here",
        "text": "it is called `output` here",
        "content": "it is called `output` here",
        "final_output_as": "it is called `output` here, and output_type= gives its type",
        "structured_response": "it is called `output` here",
        "response": "the last response is `messages[-1]`",
        "interruptions": "they are in `questions`",
        "to_state": "the store keeps a run on a session of agentloop.stores.stored_session: on_question='park'",
        "all_messages_json": "a session of agentloop.stores.stored_session is kept by its store",
        "new_messages": "they are in `messages`",
        "all_messages": f"those of the run are in `messages`; for a conversation, {_SESSION}",
        "to_input_list": f"those of the run are in `messages`; for a conversation, {_SESSION}",
    },
)


refuse(Outcome, getitem="the answer of an outcome is outcome.output, and outcome.messages has the messages")


class CompactionResult(msgspec.Struct, frozen=True):
    """What `Session.compact` has done."""

    summary: str
    """The summary, as the model reads it in place of the older messages; empty if only old results were left out."""
    tokens_before: int
    """Tokens that the next request would have taken, estimated from the provider's last count."""
    tokens_after: int
    """Tokens that it takes now, estimated."""
    usage: Usage
    """Usage of the request for the summary; nothing if a hook gave the summary."""


class ContextUse(msgspec.Struct, frozen=True):
    """The tokens of a session's next request, by part. See `Session.context`."""

    tokens: int
    """All of them, by the provider's last count where it holds, and by the estimate for what has been added since."""
    counted: int
    """The part of ``tokens`` that the provider has counted; 0 if no count holds."""
    instructions: int
    """The instructions of the agent. This field and those below are estimates, which do not add up to ``tokens``."""
    tools: Mapping[str, int]
    """The name, description and schema of each tool, by name."""
    summary: int
    """The summary in the place of older messages."""
    prompts: int
    """The texts of user messages."""
    responses: int
    """The texts, reasoning and calls of the model's responses."""
    results: Mapping[str, int]
    """The texts of tool results, by the name of the tool."""
    media: int
    """Pictures and documents, in prompts and results."""
    messages: Mapping[int, int]
    """Each message that the model reads, by its index in ``session.messages``."""
    window: int | None = None
    """Tokens that the request may have; ``None`` if no agent was given, or the window of one of its models is not
    known."""

    @property
    def left(self) -> int | None:
        """Tokens of the window that are left; ``None`` if it is not known."""
        return None if self.window is None else max(self.window - self.tokens, 0)


class ChildStream(Protocol[Output_co]):
    """The handle of a child stream, for the tool that opened it. It has the methods of `Stream`."""

    @property
    def outcome(self) -> Outcome[Output_co]:
        """The outcome. Raises `StreamStateError` while it runs."""
        ...

    @property
    def result(self) -> Outcome[Output_co]:
        """The outcome of a run that has a result; raises the run's error otherwise."""
        ...

    @property
    def pending(self) -> tuple[Question, ...]:
        """The questions that are open now."""
        ...

    @property
    def partial(self) -> Any:
        """The structured output so far, as plain JSON data; ``None`` before it begins. See `Stream.partial`."""
        ...

    def text(self) -> AsyncIterator[str]:
        """Its text, piece by piece."""
        ...

    def __aiter__(self) -> ChildStream[Output_co]: ...
    async def __anext__(self) -> StreamEvent: ...
    def answer(self, question: str | Question, answer: Answer, /) -> None:
        """Answer an open question of this stream, or of a stream inside it, by its event or its id."""
        ...

    def steer(self, message: Prompt, /) -> None:
        """Have the model read ``message`` with its next request."""
        ...

    def follow_up(self, message: Prompt, /) -> None:
        """Continue with ``message`` when the run would stop."""
        ...

    @property
    def is_paused(self) -> bool:
        """Whether this stream, or one around it, is paused."""
        ...

    def pause(self) -> None:
        """Have the run hold at its next boundary, until `resume`. See `Stream.pause`."""
        ...

    def resume(self) -> None:
        """End the pause."""
        ...

    @property
    def toolsets(self) -> tuple[ToolsetStatus, ...]:
        """The toolsets of the agent that acts, as they are now. See `Stream.toolsets`."""
        ...

    async def restart_toolset(self, name: str) -> None:
        """Stop a toolset of the agent that acts, and start it again. See `Stream.restart_toolset`."""
        ...

    def stop(self, detail: str = "") -> None:
        """End the run, with reason ``cancelled``."""
        ...

    async def wait(self) -> Outcome[Output_co]:
        """Wait for its end without reading its events."""
        ...


class BackgroundRun(Protocol[Output_co]):
    """A child run that outlives the call that started it: see `ToolContext.start`."""

    @property
    def id(self) -> str:
        """Its id within the stream that it belongs to, such as ``researcher-1``."""
        ...

    @property
    def agent(self) -> str:
        """The name of its agent."""
        ...

    @property
    def call_id(self) -> str:
        """Id of the call that started it."""
        ...

    @property
    def status(self) -> Literal["running"] | StreamReason:
        """``running``, or why it ended."""
        ...

    @property
    def text(self) -> str:
        """What its model wrote last; empty before its first response."""
        ...

    @property
    def outcome(self) -> Outcome[Output_co]:
        """The outcome. Raises `StreamStateError` while it runs."""
        ...

    def steer(self, message: Prompt, /) -> None:
        """Have its model read ``message`` with its next request. Raises `StreamStateError` if it has ended."""
        ...

    def stop(self, detail: str = "") -> None:
        """End it, with reason ``cancelled``. Its end is reported like any other."""
        ...

    async def wait(self) -> Outcome[Output_co]:
        """Wait for its end. The deadline of the call goes on meanwhile.

        Raises:
          StreamStateError: the call has ended, or is inside this run, which would wait for itself.
        """
        ...


def error_of(outcome: Outcome) -> BaseException | None:
    """The error that says why a run has no result; ``None`` if it has one."""
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


def _sentence(text: str, outcome: Outcome) -> str:
    return f"{text}: {outcome.detail}" if outcome.detail else text
