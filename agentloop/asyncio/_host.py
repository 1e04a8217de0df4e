"""The host: agents, and any code of trio, for a program that runs on asyncio."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar

from agentloop._runtime.stream import Stream
from agentloop.agent import Agent
from agentloop.asyncio._calls import Block, Call
from agentloop.asyncio._guest import Guest, settle, share_guest
from agentloop.errors import UsageError
from agentloop.events import StreamEvent
from agentloop.messages import Prompt
from agentloop.outcome import Outcome, QuestionHandler
from agentloop.questions import Answer
from agentloop.session import Session

__all__ = ["HostedStream", "TrioHost"]

P = ParamSpec("P")
T = TypeVar("T")


class TrioHost:
    """Runs agents inside of the asyncio loop that runs: one for the time of a server, or of a script.

    ::

        async with TrioHost() as host:
            outcome = await host.run(agent, "Hello!")

    trio runs as a guest of that loop, in the same thread, so agents, tools and asyncio code can share objects without
    locks. Leaving the block cancels what still runs in it, and returns when all of it has ended.

    A loop has one trio run at a time, which several hosts share.
    """

    def __init__(self) -> None:
        self._guest: Guest | None = None
        self._stack = AsyncExitStack()
        self._calls: set[Call[Any]] = set()
        self._is_left = False

    async def __aenter__(self) -> Self:
        if self._guest is not None:
            raise UsageError("a TrioHost is entered once: make another for each block")
        self._guest = await self._stack.enter_async_context(share_guest())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_left = True
        cancelled: asyncio.CancelledError | None = None
        while self._calls:
            for call in self._calls:
                call.leave()
            try:
                await asyncio.wait([call.done for call in self._calls])
            except asyncio.CancelledError as later:
                cancelled = later
        await self._stack.aclose()
        if cancelled is not None:
            raise cancelled

    async def run(
        self,
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
          UsageError: the host's block was left.
        """
        return await self.call(agent.run, prompt, session=session, on_question=on_question, deps=deps)

    def stream(
        self,
        agent: Agent,
        prompt: Prompt,
        *,
        session: Session | None = None,
        on_question: QuestionHandler | Literal["reader", "decline", "park"] = "reader",
        deps: Any = None,
    ) -> AbstractAsyncContextManager[Stream]:
        """`Agent.stream`, read by asyncio code: ``async with host.stream(...) as stream: async for event in stream``.

        The stream has the methods of any other. Leaving the block, in whatever way, stops the run and returns when
        everything that it started has ended.
        """
        return self._hosted(agent.stream(prompt, session=session, on_question=on_question, deps=deps))

    async def resume(
        self,
        agent: Agent,
        session: Session,
        answers: Mapping[str, Answer] | None = None,
        *,
        on_question: QuestionHandler | Literal["decline", "park"] = "park",
        deps: Any = None,
    ) -> Outcome:
        """`Agent.resume`, awaited by asyncio code."""
        return await self.call(agent.resume, session, answers, on_question=on_question, deps=deps)

    def resume_stream(
        self,
        agent: Agent,
        session: Session,
        answers: Mapping[str, Answer] | None = None,
        *,
        on_question: QuestionHandler | Literal["reader", "decline", "park"] = "reader",
        deps: Any = None,
    ) -> AbstractAsyncContextManager[Stream]:
        """`Agent.resume_stream`, read by asyncio code."""
        return self._hosted(agent.resume_stream(session, answers, on_question=on_question, deps=deps))

    async def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a function of trio, in a task of trio, with the context variables of the caller.

        Raises:
          UsageError: the host's block was left.
        """
        return await self._track(Call(self._running(), partial(function, *args, **kwargs))).wait()

    def block(self, manager: AbstractAsyncContextManager[T], /) -> AbstractAsyncContextManager[T]:
        """Enter a context manager of trio from asyncio code: ``async with host.block(SQLiteStore("chats.db").open())``.

        The code inside of the block is asyncio's. An exception that it raises is raised inside of the trio block too.
        """
        return Block(self._running(), manager, self._track)

    def iterate(self, iterable: AsyncIterable[T], /) -> AsyncIterator[T]:
        """Iterate what trio code iterates: ``async for event in host.iterate(follow_session(store, id))``.

        Each step runs in a task of trio of its own. There is nothing to close, so it may be left at any step.

        Raises:
          UsageError: it is an async generator, whose steps cannot run in several tasks: open it with `block`, by
            ``trio.as_safe_channel``.
        """
        self._running()
        if inspect.isasyncgen(iterable):
            raise UsageError(
                "an async generator of trio cannot be iterated step by step: decorate its function with "
                "@trio.as_safe_channel, and open it with host.block()"
            )
        return _HostedIterator(self, aiter(iterable))

    def _running(self) -> Guest:
        if self._guest is None or self._is_left:
            raise UsageError("a TrioHost runs agents inside of its block: async with TrioHost() as host: ...")
        running = asyncio.get_running_loop()
        if running is not self._guest.loop:
            raise UsageError("this TrioHost belongs to another asyncio loop: enter one in each loop")
        return self._guest

    def _track(self, call: Call[T]) -> Call[T]:
        self._calls.add(call)
        call.done.add_done_callback(lambda _: self._calls.discard(call))
        return call

    @asynccontextmanager
    async def _hosted(self, opening: AbstractAsyncContextManager[Stream]) -> AsyncGenerator[Stream]:
        async with self.block(opening) as stream:
            yield HostedStream(stream, self)


class _HostedIterator(AsyncIterator[T]):
    def __init__(self, host: TrioHost, iterator: AsyncIterator[T]) -> None:
        self._host = host
        self._iterator = iterator

    async def __anext__(self) -> T:
        try:
            return await self._host.call(self._next)
        except _IterationEndError:
            raise StopAsyncIteration from None

    async def _next(self) -> T:
        try:
            return await anext(self._iterator)
        except StopAsyncIteration:
            # A coroutine cannot raise it.
            raise _IterationEndError from None


class _IterationEndError(Exception):
    """`StopAsyncIteration`, on its way from trio to asyncio."""


class HostedStream(Stream):
    """A stream that asyncio code reads. All other methods are plain ones, and work in both."""

    __slots__ = ("_host",)

    def __init__(self, stream: Stream, host: TrioHost) -> None:
        super().__init__(stream._run)
        self._host = host

    async def wait(self) -> Outcome:
        return await self._host.call(super().wait)

    async def __anext__(self) -> StreamEvent:
        while (event := self._take()) is None:
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            assert self._run.events is not None
            self._run.events.call_when_ready(partial(settle, ready))
            await ready
        return event
