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
from typing import Any, Literal, ParamSpec, TypeVar

from agentloop._runtime.stream import Stream
from agentloop.agent import Agent
from agentloop.asyncio._aio_code import aio_as_trio, asyncio_tool
from agentloop.asyncio._host import TrioHost
from agentloop.messages import Prompt
from agentloop.outcome import Outcome, QuestionHandler
from agentloop.questions import Answer
from agentloop.session import Session

__all__ = ["TrioHost", "aio_as_trio", "asyncio_tool", "block", "call", "resume", "resume_stream", "run", "stream"]

P = ParamSpec("P")
T = TypeVar("T")


async def run(
    agent: Agent,
    prompt: Prompt,
    *,
    session: Session | None = None,
    on_question: QuestionHandler | Literal["decline", "park"] = "decline",
    deps: Any = None,
) -> Outcome:
    """`Agent.run`, awaited by asyncio code. If the asyncio task is cancelled, so is the run.

    Raises:
      AgentLoopError: as `Agent.run` does.
    """
    async with TrioHost() as host:
        return await host.run(agent, prompt, session=session, on_question=on_question, deps=deps)


@asynccontextmanager
async def stream(
    agent: Agent,
    prompt: Prompt,
    *,
    session: Session | None = None,
    on_question: QuestionHandler | Literal["reader", "decline", "park"] = "reader",
    deps: Any = None,
) -> AsyncGenerator[Stream]:
    """`Agent.stream`, read by asyncio code. The stream has the methods of any other."""
    async with (
        TrioHost() as host,
        host.stream(agent, prompt, session=session, on_question=on_question, deps=deps) as opened,
    ):
        yield opened


async def resume(
    agent: Agent,
    session: Session,
    answers: Mapping[str, Answer] | None = None,
    *,
    on_question: QuestionHandler | Literal["decline", "park"] = "park",
    deps: Any = None,
) -> Outcome:
    """`Agent.resume`, awaited by asyncio code."""
    async with TrioHost() as host:
        return await host.resume(agent, session, answers, on_question=on_question, deps=deps)


@asynccontextmanager
async def resume_stream(
    agent: Agent,
    session: Session,
    answers: Mapping[str, Answer] | None = None,
    *,
    on_question: QuestionHandler | Literal["reader", "decline", "park"] = "reader",
    deps: Any = None,
) -> AsyncGenerator[Stream]:
    """`Agent.resume_stream`, read by asyncio code."""
    async with (
        TrioHost() as host,
        host.resume_stream(agent, session, answers, on_question=on_question, deps=deps) as opened,
    ):
        yield opened


async def call(function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Await a function of trio, such as `agentloop.stores.stored_session`, from asyncio code."""
    async with TrioHost() as host:
        return await host.call(function, *args, **kwargs)


@asynccontextmanager
async def block(manager: AbstractAsyncContextManager[T], /) -> AsyncGenerator[T]:
    """Enter a context manager of trio from asyncio code.

    ::

        async with agentloop.asyncio.block(SQLiteStore("chats.db").open()) as store:
            ...

    An exception of the asyncio code is raised inside of the trio block too.
    """
    async with TrioHost() as host, host.block(manager) as value:
        yield value
