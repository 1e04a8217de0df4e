"""The host: agents, and any code of trio, for a program that runs on asyncio."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar, cast

from agentloop._core.first_guesses import RUN_OPTIONS, explain_options, is_refused, refuse
from agentloop._core.typevars import Deps, Output
from agentloop._runtime.stream import Stream, StreamedText
from agentloop.agent import Agent
from agentloop.asyncio._blocks import AsyncWith, Block
from agentloop.asyncio._calls import Call
from agentloop.asyncio._guest import Guest, running_loop, share_guest
from agentloop.context import NO_DEPS
from agentloop.errors import UsageError
from agentloop.messages import Prompt
from agentloop.models import Model, ModelSettings
from agentloop.outcome import Outcome, QuestionHandler
from agentloop.questions import Answer
from agentloop.session import Session

__all__ = ["TrioHost"]

P = ParamSpec("P")
T = TypeVar("T")


def _checked(agent: Agent[Deps, Output]) -> Agent[Deps, Output]:
    if not isinstance(cast("object", agent), Agent):
        raise UsageError(f"the first argument is an Agent, and the second its prompt, or its session: not {agent!r}")
    return agent


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

    @explain_options("host.run", RUN_OPTIONS)
    async def run(
        self,
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
          UsageError: the host's block was left.
        """
        return await self.call(
            _checked(agent).run,
            prompt,
            session=session,
            on_question=on_question,
            deps=deps,
            model=model,
            settings=settings,
        )

    @explain_options("host.stream", RUN_OPTIONS)
    def stream(
        self,
        agent: Agent[Deps, Output],
        prompt: Prompt | None,
        *,
        session: Session | None = None,
        on_question: QuestionHandler | Literal["reader", "decline", "park"] = "reader",
        deps: Deps = NO_DEPS,
        model: Model | str | None = None,
        settings: ModelSettings | None = None,
    ) -> AbstractAsyncContextManager[Stream[Output]]:
        """`Agent.stream`, read by asyncio code: ``async with host.stream(...) as stream: async for event in stream``.

        The stream has the methods of any other. Leaving the block, in whatever way, stops the run and returns when
        everything that it started has ended.
        """
        return self.block(
            _checked(agent).stream(
                prompt, session=session, on_question=on_question, deps=deps, model=model, settings=settings
            )
        )

    @explain_options("host.stream_text", RUN_OPTIONS)
    def stream_text(
        self,
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
        return self.block(
            _checked(agent).stream_text(
                prompt, session=session, on_question=on_question, deps=deps, model=model, settings=settings
            )
        )

    @explain_options("host.resume", RUN_OPTIONS)
    async def resume(
        self,
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
        return await self.call(
            _checked(agent).resume, session, answers, on_question=on_question, deps=deps, model=model, settings=settings
        )

    @explain_options("host.resume_stream", RUN_OPTIONS)
    def resume_stream(
        self,
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
        return self.block(
            _checked(agent).resume_stream(
                session, answers, on_question=on_question, deps=deps, model=model, settings=settings
            )
        )

    async def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a function of trio, in a task of trio, with the context variables of the caller.

        Raises:
          UsageError: the host's block was left.
        """
        guest = self._running()
        if inspect.iscoroutine(cast("object", function)):
            cast("Any", function).close()
        if not callable(function):
            raise UsageError(
                "call() takes an async function of trio and its arguments, `call(function, argument)`, "
                f"not {function!r}"
            )

        async def called() -> T:
            awaitable = function(*args, **kwargs)
            if not inspect.isawaitable(awaitable):
                raise UsageError(
                    f"call() awaits an async function of trio, and {function!r} is a plain one: call it as it is"
                )
            return await awaitable

        return await self._track(Call(guest, called)).wait()

    def block(self, manager: AbstractAsyncContextManager[T], /) -> AbstractAsyncContextManager[T]:
        """Enter a context manager of trio from asyncio code: ``async with host.block(SQLiteStore("chats.db").open())``.

        The code inside of the block is asyncio's. An exception that it raises is raised inside of the trio block too.
        """
        guest = self._running()
        is_block = isinstance(cast("object", manager), AbstractAsyncContextManager) and not is_refused(
            manager, "aenter"
        )
        if not is_block:
            is_closed_store = callable(getattr(manager, "open", None))
            instead = "`block(store.open())`" if is_closed_store else "what stands after `async with` in trio"
            raise UsageError(f"block() takes {instead}, not {manager!r}")
        if isinstance(manager, AsyncWith):
            return manager
        return Block(guest, manager, self._track)

    def iterate(self, iterable: AsyncIterable[T], /) -> AsyncIterator[T]:
        """Iterate what trio code iterates: ``async for event in host.iterate(follow_session(store, id))``.

        Each step runs in a task of trio of its own. There is nothing to close, so it may be left at any step.

        Raises:
          UsageError: it is an async generator, whose steps cannot run in several tasks: open it with `block`, by
            ``trio.as_safe_channel``.
        """
        self._running()
        if not isinstance(cast("object", iterable), AsyncIterable) or is_refused(iterable, "aiter"):
            raise UsageError(f"iterate() takes what stands after `async for` in trio, not {iterable!r}")
        if inspect.isasyncgen(iterable):
            raise UsageError(
                "an async generator of trio cannot be iterated step by step: decorate its function with "
                "@trio.as_safe_channel, and open it with host.block()"
            )
        return _HostedIterator(self, aiter(iterable))

    def _running(self) -> Guest:
        if self._guest is None or self._is_left:
            raise UsageError("a TrioHost runs agents inside of its block: async with TrioHost() as host: ...")
        if running_loop() is not self._guest.loop:
            raise UsageError("this TrioHost belongs to another asyncio loop: enter one in each loop")
        return self._guest

    def _track(self, call: Call[T]) -> Call[T]:
        self._calls.add(call)
        call.done.add_done_callback(lambda _: self._calls.discard(call))
        return call


_OPENED = "a host is opened: write `async with TrioHost() as host:`"
refuse(TrioHost, enter=_OPENED, **{"await": _OPENED})


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
