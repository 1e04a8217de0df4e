"""agentloop for programs that run on asyncio: FastAPI, notebooks, bots, and every SDK.

::

    import agentloop.asyncio

    outcome = await agentloop.asyncio.run(agent, "Hello!")

    async with agentloop.asyncio.stream(agent, "Hello!") as stream:
        async for event in stream:
            ...

trio runs as a guest of the asyncio loop, in the same thread. The classes of events, errors and outcomes are those of
`agentloop`, and so are the guarantees: when the ``await`` returns, or the block ends, everything that the run started
has ended. A task that is cancelled gets ``asyncio.CancelledError``, after that.

The functions here start trio with the first run and stop it with the last. A server holds a `TrioHost` open instead.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Literal, ParamSpec, TypeVar

from agentloop._core.first_guesses import RUN_OPTIONS, explain_options
from agentloop._core.typevars import Deps, Output
from agentloop._runtime.stream import Stream, StreamedText
from agentloop.agent import Agent
from agentloop.asyncio._aio_code import aio_as_trio, asyncio_tool
from agentloop.asyncio._blocks import AsyncWith
from agentloop.asyncio._host import TrioHost
from agentloop.context import NO_DEPS
from agentloop.errors import UsageError
from agentloop.messages import Prompt
from agentloop.models import Model, ModelSettings
from agentloop.outcome import Outcome, QuestionHandler
from agentloop.questions import Answer
from agentloop.session import Session

__all__ = [
    "TrioHost",
    "aio_as_trio",
    "asyncio_tool",
    "block",
    "call",
    "resume",
    "resume_stream",
    "run",
    "stream",
    "stream_text",
]

P = ParamSpec("P")
T = TypeVar("T")


@explain_options("agentloop.asyncio.run", RUN_OPTIONS)
async def run(
    agent: Agent[Deps, Output],
    prompt: Prompt | None,
    *,
    session: Session | None = None,
    on_question: QuestionHandler | Literal["decline", "park"] = "decline",
    deps: Deps = NO_DEPS,
    model: Model | str | None = None,
    settings: ModelSettings | None = None,
) -> Outcome[Output]:
    """`Agent.run`, awaited by asyncio code. If the asyncio task is cancelled, so is the run.

    Raises:
      AgentLoopError: as `Agent.run` does.
    """
    async with TrioHost() as host:
        return await host.run(
            agent, prompt, session=session, on_question=on_question, deps=deps, model=model, settings=settings
        )


@explain_options("agentloop.asyncio.stream", RUN_OPTIONS)
def stream(
    agent: Agent[Deps, Output],
    prompt: Prompt | None,
    *,
    session: Session | None = None,
    on_question: QuestionHandler | Literal["reader", "decline", "park"] = "reader",
    deps: Deps = NO_DEPS,
    model: Model | str | None = None,
    settings: ModelSettings | None = None,
) -> AbstractAsyncContextManager[Stream[Output]]:
    """`Agent.stream`, read by asyncio code. The stream has the methods of any other."""
    return _Hosted(
        lambda host: host.stream(
            agent, prompt, session=session, on_question=on_question, deps=deps, model=model, settings=settings
        )
    )


@explain_options("agentloop.asyncio.stream_text", RUN_OPTIONS)
def stream_text(
    agent: Agent[Deps, Output],
    prompt: Prompt | None,
    *,
    session: Session | None = None,
    on_question: QuestionHandler | Literal["decline", "park"] = "decline",
    deps: Deps = NO_DEPS,
    model: Model | str | None = None,
    settings: ModelSettings | None = None,
) -> AbstractAsyncContextManager[StreamedText[Output]]:
    """`Agent.stream_text`, read by asyncio code."""
    return _Hosted(
        lambda host: host.stream_text(
            agent, prompt, session=session, on_question=on_question, deps=deps, model=model, settings=settings
        )
    )


@explain_options("agentloop.asyncio.resume", RUN_OPTIONS)
async def resume(
    agent: Agent[Deps, Output],
    session: Session,
    answers: Mapping[str, Answer] | None = None,
    *,
    on_question: QuestionHandler | Literal["decline", "park"] = "park",
    deps: Deps = NO_DEPS,
    model: Model | str | None = None,
    settings: ModelSettings | None = None,
) -> Outcome[Output]:
    """`Agent.resume`, awaited by asyncio code."""
    async with TrioHost() as host:
        return await host.resume(
            agent, session, answers, on_question=on_question, deps=deps, model=model, settings=settings
        )


@explain_options("agentloop.asyncio.resume_stream", RUN_OPTIONS)
def resume_stream(
    agent: Agent[Deps, Output],
    session: Session,
    answers: Mapping[str, Answer] | None = None,
    *,
    on_question: QuestionHandler | Literal["reader", "decline", "park"] = "reader",
    deps: Deps = NO_DEPS,
    model: Model | str | None = None,
    settings: ModelSettings | None = None,
) -> AbstractAsyncContextManager[Stream[Output]]:
    """`Agent.resume_stream`, read by asyncio code."""
    return _Hosted(
        lambda host: host.resume_stream(
            agent, session, answers, on_question=on_question, deps=deps, model=model, settings=settings
        )
    )


async def call(function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Await a function of trio, such as `agentloop.stores.stored_session`, from asyncio code."""
    async with TrioHost() as host:
        return await host.call(function, *args, **kwargs)


def block(manager: AbstractAsyncContextManager[T], /) -> AbstractAsyncContextManager[T]:
    """Enter a context manager of trio from asyncio code.

    ::

        async with agentloop.asyncio.block(SQLiteStore("chats.db").open()) as store:
            ...

    An exception of the asyncio code is raised inside of the trio block too.
    """
    return _Hosted(lambda host: host.block(manager))


class _Hosted(AsyncWith[T]):
    """A block in the block of a host of its own."""

    def __init__(self, opening: Callable[[TrioHost], AbstractAsyncContextManager[T]]) -> None:
        self._opening = opening
        self._block: AbstractAsyncContextManager[T] | None = None

    async def __aenter__(self) -> T:
        if self._block is not None:
            raise UsageError("this block is entered once: make another for each `async with`")
        self._block = self._hosted()
        return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        return await self._block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _hosted(self) -> AsyncGenerator[T]:
        async with TrioHost() as host, self._opening(host) as opened:
            yield opened
