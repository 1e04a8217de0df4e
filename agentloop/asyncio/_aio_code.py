"""From trio into asyncio: functions, blocks and objects written for asyncio, as trio code calls them.

The asyncio code runs in an asyncio task of its own, on the loop that hosts the trio run, with the context variables of
the caller. The trio task waits for its end in every case: a cancellation is passed on, and the asyncio task may clean
up before it ends.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from contextvars import copy_context
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack, cast, overload

import trio

from agentloop._core.typevars import Deps, Params, Result
from agentloop.asyncio._calls import Call
from agentloop.asyncio._guest import guest_here, settle
from agentloop.asyncio._tool_context import AsyncioContext
from agentloop.context import ToolContext
from agentloop.errors import UsageError
from agentloop.messages import Usage
from agentloop.models import Model, ModelRequest, OpenableModel, Reply, Stop
from agentloop.tools import OpenToolset, Tool, ToolDecorator, ToolOptions, Toolset, tool

__all__ = ["aio_as_trio", "asyncio_tool"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def aio_as_trio(wrapped: Model, /) -> Model: ...
@overload
def aio_as_trio(wrapped: Toolset, /) -> Toolset: ...
@overload
def aio_as_trio(wrapped: AbstractAsyncContextManager[T], /) -> AbstractAsyncContextManager[T]: ...
@overload
def aio_as_trio(wrapped: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
@overload
def aio_as_trio(wrapped: Callable[P, AsyncIterable[T]], /) -> Callable[P, AsyncGenerator[T]]: ...
@overload
def aio_as_trio(wrapped: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
def aio_as_trio(wrapped: Any, /) -> Any:
    """Adapt asyncio code for the places where agentloop calls code of trio.

    Hooks, handlers of questions, toolsets and models are called by trio. What is written for asyncio, with aiohttp,
    asyncpg or an SDK, can take their places through this::

        hooks.pre_tool_use(aio_as_trio(check))

    Args:
      wrapped: an async function, an async generator function, a context manager, a `Toolset` or a `Model`, whose
        ``async`` methods are asyncio code.

    Raises:
      UsageError: ``wrapped`` is none of these; or, when it is called, no asyncio loop hosts the run.
    """
    if isinstance(wrapped, AbstractAsyncContextManager):
        return _AsyncioBlock(cast("AbstractAsyncContextManager[Any]", wrapped))
    if callable(getattr(wrapped, "respond", None)):
        return _AsyncioModel(wrapped)
    if callable(getattr(wrapped, "open", None)) and hasattr(wrapped, "name"):
        return _AsyncioToolset(wrapped)
    if not callable(wrapped):
        raise UsageError(
            "aio_as_trio() takes an async function, an async generator function, a context manager, a toolset or a "
            f"model that is asyncio code, not {wrapped!r}"
        )
    called: Any = inspect.unwrap(wrapped)
    called = called if inspect.isroutine(called) else getattr(called, "__call__", called)  # noqa: B004
    function = cast("Callable[..., Any]", wrapped)
    return _generator(function) if inspect.isasyncgenfunction(called) else _function(function)


@overload
def asyncio_tool(
    function: Callable[Concatenate[ToolContext[Deps], Params], Result], /
) -> Tool[Callable[Concatenate[ToolContext[Deps], Params], Result], Callable[[ToolContext[Deps]], object]]: ...
@overload
def asyncio_tool(function: Callable[Params, Result], /) -> Tool[Callable[Params, Result]]: ...
@overload
def asyncio_tool(
    *, name: str | None = None, description: str | None = None, **options: Unpack[ToolOptions]
) -> ToolDecorator: ...
def asyncio_tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    **options: Unpack[ToolOptions],
) -> Tool | ToolDecorator:
    """Make a tool of a function whose body is asyncio code, which may await aiohttp, asyncpg or an SDK.

    It is `agentloop.tools.tool` otherwise. A call of the tool is cancelled, and awaited, with its run. The run must be
    hosted by an asyncio loop, as it is by `TrioHost` and by the functions of this module.

    Args:
      function: an async function, or an async generator function.
      name: as in `Tool.name`; the function's own by default.
      description: as in `Tool.description`; the first paragraph of the docstring by default.
      options: the other options of `agentloop.tools.tool`.

    Raises:
      ToolDefinitionError: as `agentloop.tools.tool` does.
    """

    def make(function: Callable[..., Any], /) -> Tool:
        return tool(name=name, description=description, **options)(aio_as_trio(function))

    return cast("ToolDecorator", make) if function is None else make(function)


# ----------------------------------------------------------------------- one asyncio task


class _AsyncioTask(Generic[T]):
    """A task of asyncio, started by a task of trio, which awaits its end."""

    def __init__(self, function: Callable[[], Coroutine[Any, Any, T]], named: object) -> None:
        self._name = getattr(named, "__qualname__", None) or repr(named)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(
                f"{self._name} is asyncio code, and no asyncio loop hosts this run: run the agent with "
                "agentloop.asyncio.run(), or in the block of a TrioHost"
            ) from None
        self._function = function
        self._task: asyncio.Task[T] | None = None
        self._error: Exception | None = None
        """Why the task could not be started."""
        self._is_cancelled = False
        self._ended = trio.Event()
        self.call_at_end: Callable[[], object] | None = None
        # Not here, in a step of trio: an eager task would begin where libraries find trio, and not asyncio.
        loop.call_soon(self._start, context=copy_context())

    @property
    def is_done(self) -> bool:
        return self._ended.is_set()

    def _start(self) -> None:
        coroutine = self._function()
        try:
            self._task = asyncio.get_running_loop().create_task(coroutine)
        except Exception as error:  # noqa: BLE001 - the loop's task factory is user code; `wait` raises its error
            coroutine.close()
            self._error = error
            self._end()
            return
        self._task.add_done_callback(self._end)
        if self._is_cancelled:
            self._task.cancel()

    def _end(self, task: asyncio.Task[T] | None = None) -> None:
        self._ended.set()
        if self.call_at_end is not None:
            self.call_at_end()

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """Cancel it, and wait for its end, in spite of any cancellation here. Its result and error are dropped."""
        self.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        if self._task is not None and not self._task.cancelled():
            self._task.exception()

    async def wait(self) -> T:
        """Its result, when it has ended; or raise its error. A cancellation of this trio task is passed on to it.

        An asyncio task that completes in spite of its cancellation has its result returned all the same.
        """
        try:
            await self._ended.wait()
        except trio.Cancelled:
            self.cancel()
            with trio.CancelScope(shield=True):
                await self._ended.wait()
            if self._task is None or self._task.cancelled():
                raise
        if self._error is not None:
            raise self._error
        assert self._task is not None
        if self._task.cancelled():
            raise RuntimeError(f"{self._name} was cancelled from within asyncio: asyncio.CancelledError")
        return self._task.result()


# ----------------------------------------------------------------- functions and generators


def _function(wrapped: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(wrapped)
    async def function(*args: Any, **kwargs: Any) -> Any:
        is_called_by_trio = trio.lowlevel.in_trio_task()
        if is_called_by_trio:
            args, kwargs = _for_asyncio(args, kwargs)

        async def body() -> Any:
            awaitable = wrapped(*args, **kwargs)
            if not inspect.isawaitable(awaitable):
                raise UsageError(
                    f"{getattr(wrapped, '__qualname__', wrapped)} is a plain function: write it with `async def`, or "
                    "leave asyncio_tool() or aio_as_trio() out"
                )
            return await awaitable

        # Asyncio code, such as a test, calls the function as it is.
        return await (_AsyncioTask(body, wrapped).wait() if is_called_by_trio else body())

    return function


def _for_asyncio(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, with a context that asyncio code can await in the place of the tool's."""
    return tuple(map(_seen, args)), {name: _seen(value) for name, value in kwargs.items()}


def _seen(value: Any) -> Any:
    return AsyncioContext(cast("Any", value)) if isinstance(value, ToolContext) else value


def _generator(wrapped: Callable[..., AsyncGenerator[Any]]) -> Callable[..., AsyncGenerator[Any]]:
    @functools.wraps(wrapped)
    async def generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        if not trio.lowlevel.in_trio_task():
            # Asyncio code, such as a test, iterates the generator as it is.
            async with aclosing(wrapped(*args, **kwargs)) as values:
                async for value in values:
                    yield value
            return
        args, kwargs = _for_asyncio(args, kwargs)
        # One asyncio task runs the whole generator: a timeout in it may span several values.
        handover = _Handover()

        async def body() -> None:
            # Closed in here: a generator that is left half-way would clean up in a task that is awaited nowhere.
            async with aclosing(wrapped(*args, **kwargs)) as values:
                async for value in values:
                    await handover.put(value)

        task = _AsyncioTask(body, wrapped)
        task.call_at_end = handover.close
        try:
            while await handover.has_value():
                yield handover.take()
        except BaseException:
            await task.end()
            raise
        await task.wait()

    return generator


class _Handover:
    """One value at a time from an asyncio task to a trio task. The asyncio task goes on when the next one is wanted."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._changed = trio.Event()
        self._is_closed = False
        self._taken: asyncio.Future[None] | None = None

    async def put(self, value: Any) -> None:
        self._values.append(value)
        self._taken = asyncio.get_running_loop().create_future()
        self._changed.set()
        await self._taken

    def close(self) -> None:
        self._is_closed = True
        self._changed.set()

    async def has_value(self) -> bool:
        """Wait for the next value. False if there is none any more."""
        if self._taken is not None:
            settle(self._taken)
            self._taken = None
        await self._changed.wait()
        if not self._is_closed:
            self._changed = trio.Event()
        return bool(self._values)

    def take(self) -> Any:
        return self._values.pop()


# ------------------------------------------------------------------------------- blocks


class _AsyncioBlock(AbstractAsyncContextManager[T]):
    """A block of asyncio around code of trio. One asyncio task enters and leaves it.

    An exception of the trio code is raised inside of the asyncio block. If the asyncio block ends by itself, the trio
    code inside of it is cancelled, and the error raised when the block is left.
    """

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager
        self._value: list[T] = []
        self._entered = trio.Event()
        self._leave: asyncio.Future[None] | None = None

    async def __aenter__(self) -> T:
        self._task = task = _AsyncioTask(self._hold, type(self._manager))
        task.call_at_end = self._entered.set
        try:
            await self._entered.wait()
        except BaseException:
            await task.end()
            raise
        if not self._value:
            await task.wait()
            raise AssertionError("an asyncio block that was not entered ends with an error")
        self._scope = trio.CancelScope()
        self._scope.__enter__()
        task.call_at_end = self._scope.cancel
        if task.is_done:
            self._scope.cancel()
        return self._value.pop()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._task.call_at_end = None
        is_torn = self._scope.__exit__(kind, error, traceback)
        if is_torn:
            kind = error = traceback = None
        assert self._leave is not None
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            if not self._leave.done():
                self._leave.set_exception(error)
        elif error is not None:
            await self._task.end()
            return False
        else:
            settle(self._leave)
        try:
            await self._task.wait()
            # The asyncio block has handled the error, or has ended by itself, as one with a timeout may.
            return is_torn or error is not None
        except Exception as raised:
            if raised is error:
                return False
            raise
        finally:
            del error, traceback

    async def _hold(self) -> None:
        async with self._manager as value:
            self._leave = asyncio.get_running_loop().create_future()
            self._value.append(value)
            self._entered.set()
            await self._leave


# ----------------------------------------------------------------- models and toolsets


class _AsyncioModel:
    """A model whose `respond` is asyncio code."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._respond = aio_as_trio(model.respond)
        self.name = model.name
        if hasattr(model, "open"):
            self.open = self._open

    async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
        return await self._respond(request, _TrioReply(reply))

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Model]:
        async with aio_as_trio(cast("OpenableModel", self._model).open()) as model:
            yield _AsyncioModel(model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _TrioReply:
    """The reply of a response, for a model that is asyncio code."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def text(self, text: str, /) -> None:
        await Call(guest_here(), functools.partial(self._reply.text, text)).wait()

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        await Call(guest_here(), functools.partial(self._reply.reasoning, text, signature=signature)).wait()

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        delta = functools.partial(self._reply.tool_call, index, id=id, name=name, arguments=arguments)
        await Call(guest_here(), delta).wait()

    def report_usage(self, usage: Usage, /) -> None:
        # It waits for nothing, and both loops run in this thread.
        self._reply.report_usage(usage)


class _AsyncioToolset:
    """A toolset that asyncio code opens and lists. Its tools stay as they are: see `asyncio_tool`."""

    def __init__(self, toolset: Toolset) -> None:
        self._toolset = toolset
        self.name = toolset.name
        self.optional = getattr(toolset, "optional", False) is True

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenToolset]:
        async with aio_as_trio(self._toolset.open()) as opened:
            yield _AsyncioOpenToolset(opened)


class _AsyncioOpenToolset:
    def __init__(self, opened: OpenToolset) -> None:
        self._opened = opened
        self._list_tools = aio_as_trio(opened.list_tools)

    async def list_tools(self) -> Sequence[Tool]:
        return await self._list_tools()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)
