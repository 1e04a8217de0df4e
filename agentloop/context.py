"""The tool context: a tool's access to the stream that it runs in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Generic, TypeVar

from agentloop._core.typevars import Deps_co, Deps_contra, Output, Output_co, Padded, TypeForm
from agentloop.events import Source
from agentloop.messages import AssistantMessage, Prompt
from agentloop.models import Model, ModelRequest
from agentloop.outcome import BackgroundRun, ChildStream, Outcome, QuestionHandler
from agentloop.questions import Accept, Cancel, Decline

__all__ = ["NO_DEPS", "AgentBase", "ToolContext"]

T = TypeVar("T")

NO_DEPS: Any = None
"""The default of ``deps=``, for any type of deps."""


class AgentBase(Padded, Generic[Deps_contra, Output_co]):
    """The base of `Agent`: the type of agent that `ToolContext` can name without importing the layers above it."""

    __slots__ = ()


class ToolContext(ABC, Generic[Deps_co]):
    """A tool's access to the stream that it runs in.

    A tool receives it through a parameter of this type, which the model does not see. The context is valid while the
    call runs. Later uses raise `StreamStateError`; uses that wait at that moment, in a task of the tool's own, raise it
    too, and child streams end. A plain (not async) tool runs in a thread and calls
    ``trio.from_thread.run(context.output, "...")``.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def source(self) -> Source:
        """The calling stream: its session, its id, and the names of the agents from the root down."""

    @property
    @abstractmethod
    def call_id(self) -> str:
        """Id of this call, unique within its session."""

    @property
    @abstractmethod
    def idempotency_key(self) -> str:
        """A key that is equal for every attempt at this call, in any process, and different for every other call.

        Sessions without a journal that have the same id may repeat keys.
        """

    @property
    @abstractmethod
    def deps(self) -> Deps_co:
        """The ``deps=`` argument of the root stream."""

    @abstractmethod
    async def output(self, text: str, /) -> None:
        """Emit ``text`` as a `ToolCallOutput` event, at once. The model does not read it."""

    @abstractmethod
    async def progress(self, progress: float, /, *, total: float | None = None, message: str = "") -> None:
        """Emit the tool's progress as a `ToolCallProgress` event.

        Raises:
          UsageError: ``progress`` or ``total`` is not a finite number.
        """

    @abstractmethod
    async def ask(self, message: str, form: Mapping[str, Any] | None = None, /) -> Accept | Decline | Cancel:
        """Ask the user, and wait for the answer without a deadline.

        The question goes to the nearest stream, inside out, that can get an answer: by its reader or by its handler. If
        there is none, the question is declined at once, and `Decline.note` says so. No deadline counts the waiting.

        Args:
          message: the question, for the user to read.
          form: JSON Schema of the fields to fill in, a flat object as in MCP; without one, yes or no.

        Raises:
          ToolDefinitionError: the form is not a flat object of primitive properties.
        """

    @abstractmethod
    async def ask_for(self, message: str, form: type[T], /) -> T | Decline | Cancel:
        """Like `ask`, with a class as the form: an attrs class, a dataclass, a TypedDict, a Struct or a pydantic model.

        Validators of the class check the answer: one that they refuse raises `InvalidAnswerError` where it is given,
        and the question stays open.

        Returns:
          An instance of ``form`` if the user accepted.
        """

    @abstractmethod
    async def ask_url(self, message: str, url: str, /) -> Accept | Decline | Cancel:
        """Like `ask`, but ask the user to visit a page, for input that agentloop and the model must not see.

        `Accept` means that the user agreed, not that they finished. agentloop opens nothing: the user interface opens
        the page, after it has shown the whole address.

        Raises:
          UsageError: ``url`` is not an ``http`` or ``https`` one.
        """

    @abstractmethod
    def paused_deadline(self, *, parks: bool = True) -> AbstractContextManager[None]:
        """Pause all deadlines of this call while the block runs, because it waits for a person.

        `ask` pauses them by itself. Use this for a call that waits for another call's question.

        Args:
          parks: whether the run may be parked meanwhile, which cancels the call. When the run is resumed, the call's
            outcome is unknown, if its start was recorded: see `Tool.if_interrupted` and `Tool.records_start`.
        """

    @abstractmethod
    async def record_start(self) -> None:
        """Record in the journal that the call is about to have an effect. Only for a tool with `Tool.records_start`.

        Calling it again does nothing. The start of other tools is recorded before their function is called.

        Raises:
          StoreError: the store failed, or another process has taken the session over; the tool must not go on.
        """

    @abstractmethod
    def restart_deadline(self, *, at_most: float = math.inf) -> None:
        """Start the deadline of this call anew, because the call makes progress.

        The deadlines around it, such as ``Limits.seconds`` of the run, stay as they are.

        Args:
          at_most: seconds that the call may take in all, however often it makes progress.
        """

    @abstractmethod
    def recall(self, name: str, type: TypeForm[T], /) -> T | None:
        """The value that an earlier attempt at this call saved as ``name``, or ``None`` if there is none.

        Resuming a run calls a tool again, from its beginning, if the run was parked while the call waited for an
        answer, or if the process died while the call ran (see `Tool.if_interrupted`). In the new attempt, `ask` returns
        the recorded answers, in order, and child streams resume. A tool remembers everything else that must not happen
        twice::

            receipt = context.recall("receipt", str)
            if receipt is None:
                receipt = await charge(card, idempotency_key=context.idempotency_key)
                await context.remember("receipt", receipt)

        Raises:
          UsageError: the value does not fit ``type`` (`msgspec.convert`).
        """

    @abstractmethod
    async def remember(self, name: str, value: object, /) -> None:
        """Save ``value`` for a later attempt at this call to `recall`. It is saved when this returns.

        Without a journal, nothing is saved: then there is no later attempt.

        Raises:
          UsageError: ``value`` has no JSON form.
          StoreError: the store failed; ``value`` is not saved.
        """

    @abstractmethod
    def session_value(self, name: str, type: TypeForm[T], /, *, own: bool = False) -> T | None:
        """The value that a tool has saved in the session as ``name``, or ``None`` if there is none.

        A value to `recall` belongs to one call. This one belongs to the session of the root stream: all calls of all
        its agents have it, in later runs and in other processes as well, if the session has a journal.

        Args:
          name: the name of the value.
          type: the type of the value.
          own: the value is of the calling stream alone. That of a child stream is lost when the root's next run starts.

        Raises:
          UsageError: the value does not fit ``type`` (`msgspec.convert`).
        """

    @abstractmethod
    async def save_session_value(self, name: str, value: object, /, *, own: bool = False) -> None:
        """Save ``value`` in the session as ``name``, instead of the previous value.

        Other calls have the new value at once. A tool that does not wait between `session_value` and this changes the
        value atomically. With a journal, the value is saved when this returns, together with the fact that this call
        has saved it: in a later attempt at the call, ``recall(name, bool)`` is true.

        The journal has the value again for each change, so it should be small. A rewind of the session leaves it.

        Raises:
          UsageError: ``value`` has no JSON form.
          StoreError: the store failed; ``value`` may not be saved.
        """

    @abstractmethod
    async def ask_model(self, request: ModelRequest, /, *, model: Model | None = None) -> AssistantMessage:
        """Ask a model for a response, as the stream itself does: to judge, to classify, to put into other words.

        The request counts for the limits of the stream and of those above it. The agent's retries, deadlines, prices
        and ``before_llm_call`` hooks apply; `UsageReported` has the usage. The response has no deltas, and is not part
        of the transcript. It may not be whole: see `AssistantMessage.stop`. To run an agent, use `run`.

        Args:
          request: the request. Nothing is added to it.
          model: the model to ask; ``None`` for those of the agent, fallbacks included.

        Raises:
          LimitReachedError: a limit leaves no request.
          BlockedError: a hook refused the request.
          ModelError: the model failed for good.
        """

    @abstractmethod
    def warn(self, code: str, message: str, /) -> None:
        """Emit a `WarningIssued` event: a failure that does not end the call."""

    @abstractmethod
    def stream(
        self, agent: AgentBase[Deps_co, Output], prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> AbstractAsyncContextManager[ChildStream[Output]]:
        """Open a child stream: ``async with context.stream(helper, "...") as child``.

        Its events also appear in this stream. Its questions go outwards, unless ``on_question`` answers them. It draws
        on this stream's limits. It ends with the block. Read it, or ``await child.wait()``.

        Raises:
          ChildLimitError: the child would be nested too deep, or the agent would run inside itself.
        """

    @abstractmethod
    async def run(
        self, agent: AgentBase[Deps_co, Output], prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> Outcome[Output]:
        """Run a child stream to its end.

        Raises:
          AgentLoopError: the child ended without a result.
        """

    @abstractmethod
    async def start(
        self, agent: AgentBase[Deps_co, Output], prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> BackgroundRun[Output]:
        """Start a background run: a child run that outlives this call, and ends with this stream at the latest.

        Its events also appear in this stream. Its questions go outwards, unless ``on_question`` answers them, also when
        this call has ended. It draws on this stream's limits. The model reads its answer with the request after its
        end, and a run that would stop waits for that. `agentloop.toolkit.background` makes tools of it.

        A stream that is resumed resumes its background runs, if a tool names the agent: ``@tool(agents=[...])``. Their
        questions then go outwards, since ``on_question`` ends with its process.

        Raises:
          ChildLimitError: 20 of them are running, or the child would be nested too deep, or the agent would run inside
            itself.
        """

    @property
    @abstractmethod
    def background(self) -> tuple[BackgroundRun, ...]:
        """The background runs of this stream whose end the model has not read yet, in the order of their starts."""
