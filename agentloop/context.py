"""What a tool may ask of the stream that it runs in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Generic, TypeVar

from agentloop.events import Source
from agentloop.messages import Prompt
from agentloop.outcome import ChildStream, Outcome, QuestionHandler
from agentloop.questions import Accept, Cancel, Decline

__all__ = ["AgentBase", "ToolContext"]

T = TypeVar("T")
Deps = TypeVar("Deps")


class AgentBase:
    """What a stream can be opened on. Its one subclass for use is `Agent`."""

    __slots__ = ()


class ToolContext(ABC, Generic[Deps]):
    """What a tool may ask of the stream that it runs in.

    A tool gets one by having a parameter of this type; the model does not see that parameter. The context is
    valid while the call runs. Used later, it raises `StreamStateError`; so does what waits in it at that moment, say
    in a task that it was handed to, and child streams end. In a sync tool, which runs in a thread, go through
    ``trio.from_thread.run(context.output, "...")``.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def source(self) -> Source:
        """Who calls: session, stream, and the names of the agents from the root down."""

    @property
    @abstractmethod
    def call_id(self) -> str:
        """The id of this call, unique within its session."""

    @property
    @abstractmethod
    def idempotency_key(self) -> str:
        """The same for every attempt at this call, in whichever process; different for every other call anywhere.

        Where sessions that have no journal are given the same id, so may be the keys of their calls.
        """

    @property
    @abstractmethod
    def deps(self) -> Deps:
        """What was given to the root stream as ``deps=``."""

    @abstractmethod
    async def output(self, text: str, /) -> None:
        """Show ``text`` to whoever reads the stream, at once. The model does not see it."""

    @abstractmethod
    async def progress(self, progress: float, /, *, total: float | None = None, message: str = "") -> None:
        """Say how far the tool is.

        Raises:
          UsageError: one of the numbers is not finite.
        """

    @abstractmethod
    async def ask(self, message: str, form: Mapping[str, Any] | None = None, /) -> Accept | Decline | Cancel:
        """Ask the user, and wait for the answer for as long as it takes.

        The question goes to the nearest stream, inside out, that has somebody to answer; where there is nobody, it
        is declined at once, and `Decline.note` says so. The time it takes does not count towards any deadline.

        Args:
          message: what the person reads.
          form: JSON Schema of the fields to fill in, a flat object as in MCP; without one, yes or no.

        Raises:
          ToolDefinitionError: the form is not a flat object of primitive properties.
        """

    @abstractmethod
    async def ask_for(self, message: str, form: type[T], /) -> T | Decline | Cancel:
        """Like `ask`, with the form spelled as a class: an attrs class, a dataclass, a TypedDict or a Struct.

        Returns:
          An instance of ``form`` if the user accepted.
        """

    @abstractmethod
    async def ask_url(self, message: str, url: str, /) -> Accept | Decline | Cancel:
        """Like `ask`, but what the person is asked for is to visit a page, where nobody here sees what they enter.

        Accepting means that they agreed, and not that they have done what the page wants. Nothing is opened for
        them: that is up to whoever reads the question, after having shown the whole address.

        Raises:
          UsageError: ``url`` is not an ``http`` or ``https`` one.
        """

    @abstractmethod
    def paused_deadline(self, *, parks: bool = True) -> AbstractContextManager[None]:
        """While the block runs, no deadline of this call counts the time: somebody waits for a person.

        `ask` does so by itself. This is for a call that waits because another one asks.

        Args:
          parks: whether the run may be parked meanwhile, which cuts the call off. When the run is resumed, nobody knows
            how far it had come: see `Tool.if_interrupted`.
        """

    @abstractmethod
    def recall(self, name: str, type: type[T], /) -> T | None:
        """What an earlier attempt at this very call has remembered as ``name``; ``None`` if there is nothing.

        A call is made again, from its beginning, when a stream is resumed that was parked while the call asked, or
        whose process ended while it ran (see `Tool.if_interrupted`). Then `ask` gives the answers that were given
        before, in order, and child streams go on from where they were. What else has happened by then, and is not to
        happen again, is to be remembered::

            receipt = context.recall("receipt", str)
            if receipt is None:
                receipt = await charge(card, idempotency_key=context.idempotency_key)
                await context.remember("receipt", receipt)

        Raises:
          UsageError: it is not of that ``type``, in the sense of msgspec.
        """

    @abstractmethod
    async def remember(self, name: str, value: object, /) -> None:
        """Have the next attempt at this call, if there is one, `recall` ``value``. It is kept when this returns.

        Nothing is kept where the session has no journal: there is no other attempt, then.

        Raises:
          UsageError: ``value`` has no JSON form.
          StoreError: it cannot be kept.
        """

    @abstractmethod
    def warn(self, code: str, message: str, /) -> None:
        """Tell whoever reads the stream that something went wrong which did not end the call."""

    @abstractmethod
    def stream(
        self, agent: AgentBase, prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> AbstractAsyncContextManager[ChildStream]:
        """Open a child stream: ``async with context.stream(helper, "...") as child``.

        Its events go into this stream too, and its questions outwards, unless ``on_question`` answers them; it
        draws on this stream's limits; it ends with the block. Read it, or ``await child.wait()``.

        Raises:
          ChildLimitError: too deep, or the agent would run inside itself.
        """

    @abstractmethod
    async def run(self, agent: AgentBase, prompt: Prompt, /, *, on_question: QuestionHandler | None = None) -> Outcome:
        """Run a child stream to its end.

        Raises:
          AgentLoopError: it ended without a result.
        """
