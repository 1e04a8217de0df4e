"""The blocks of streams, sessions, stores and toolsets: where they may be opened, and until when they may run.

A block is opened in a task of trio, and in no async generator that may be abandoned. It checks both when it is entered,
and names the way out. It runs until its deadline, on trio's clock, and so does a tool call inside it; the time that a
person takes to think does not count.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import trio

from agentloop._core.first_guesses import refuse
from agentloop.errors import ClockError, UsageError

__all__ = [
    "CALL_IN_ASYNCIO",
    "OPEN_IN_ASYNCIO",
    "NamedBlock",
    "PausableDeadline",
    "after",
    "asyncio_runs_here",
    "check_open_store",
    "is_real",
    "now",
    "refuse_bare_generator",
    "require_trio",
    "since",
    "sleep",
]

T = TypeVar("T")

# ------------------------------------------------------------- where it may be opened


OPEN_IN_ASYNCIO = "`async with agentloop.asyncio.block(store.open()) as opened:`"
CALL_IN_ASYNCIO = "`await agentloop.asyncio.call(function, ...)` in the place of `await function(...)`"


def require_trio(what: str, *, in_asyncio: str) -> None:
    """Raise `UsageError` unless a task of trio runs.

    Args:
      what: what needs it, with a verb: "an agent runs".
      in_asyncio: what to write in asyncio instead.
    """
    if trio.lowlevel.in_trio_task():
        return
    if asyncio_runs_here():
        raise UsageError(f"{what} on trio, and this is asyncio: write {in_asyncio}")
    raise UsageError(f"{what} on trio, and this is no task of trio: start it with trio.run(), or with run_sync()")


def asyncio_runs_here() -> bool:
    """Whether this is a coroutine, or a callback, of a running asyncio loop."""
    # Not imported here: a program without asyncio has no such loop, and need not wait for the import.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


_DRIVERS = frozenset({"contextlib", "trio", "pytest_trio", "anyio", "async_generator", "agentloop"})
"""Packages that close each async generator that they drive: `contextlib.asynccontextmanager`, `trio.as_safe_channel`,
fixtures of pytest-trio and anyio, and tools that are async generators."""


_ENDS = frozenset({"agentloop._runtime.user_code", "agentloop._runtime.tool_calls"})
"""Modules that call tools and hooks: frames above theirs belong to a stream that was looked at when it was opened."""


def refuse_bare_generator(action: str) -> None:
    """Raise `UsageError` if an async generator that may be abandoned opens this block. Call it from the block itself.

    A caller that leaves a loop over an async generator early leaves the generator where it stands. Python finishes it
    later, in another task, where trio cannot close the nursery inside it: unrelated tasks are cancelled, and the
    program dies. A block with a nursery is therefore refused there, unless the code that drives the generator also
    closes it.

    Only the frames of this task are looked at, up to the tool call of a stream around it: 2 to 3 us.
    """
    # Not by way of the block's own frame: each frame that is looked at becomes an object of 260 bytes, which lives as
    # long as the frame does.
    frame = sys._getframe(2)
    while True:
        module = str(frame.f_globals.get("__name__", ""))
        driver = frame.f_back
        if module.startswith("trio.") or module in _ENDS or driver is None:
            return
        if frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
            package = str(driver.f_globals.get("__name__", "")).partition(".")[0]
            if package in _DRIVERS:
                frame = driver
                continue
            name = frame.f_code.co_name
            raise UsageError(
                f"{action} inside the async generator {name}(), which its caller may leave half-way: Python would "
                f"finish it in another task. Decorate {name}() with @trio.as_safe_channel, or with "
                "@contextlib.asynccontextmanager if it yields once; or read `async for text in stream.text()` where "
                "the text is used"
            )
        frame = driver


# ---------------------------------------------------------------- until when it may run


class PausableDeadline:
    """A deadline that can be paused.

    Deadlines form a chain: a tool call's lies inside its stream's, which lies inside that of the tool call which opened
    the stream. While a run down the chain waits for a person, the whole chain is paused.

    Args:
      seconds: ``None`` for no deadline of its own: then only those around it are paused.
      began: the time that the seconds count from, if it was just read; now if left out.
    """

    __slots__ = ("_deadline", "_left", "_pauses", "_scope", "_seconds", "_shared", "allowed", "parent")

    def __init__(self, seconds: float | None, parent: PausableDeadline | None, began: float | None = None) -> None:
        self._scope: trio.CancelScope | None = None
        if seconds is not None:
            self._scope = trio.CancelScope(deadline=(now() if began is None else began) + seconds)
        self.parent = parent
        self._seconds = self.allowed = math.inf if seconds is None else seconds
        """Seconds from the beginning to the deadline, pauses not counted. `restart` adds to ``allowed``."""
        self._pauses = 0
        """How many blocks pause it now."""
        self._left = 0.0
        """The remaining seconds when it was paused."""
        self._deadline = math.inf
        """The time of the deadline when it was paused."""
        self._shared: tuple[trio.CancelScope, ...] = ()
        """The scopes of the blocks in other tasks that have the same deadline."""

    @classmethod
    def of(cls, scope: trio.CancelScope, parent: PausableDeadline | None) -> PausableDeadline:
        """The deadline of a ``scope`` that was entered without one of these."""
        deadline = cls(None, parent)
        deadline._scope = scope
        return deadline

    @property
    def scope(self) -> trio.CancelScope:
        """The cancel scope that has the deadline."""
        assert self._scope is not None
        return self._scope

    @property
    def expired(self) -> bool:
        """Whether the time limit is what ended the block under ``scope``."""
        return self._scope is not None and self._scope.cancelled_caught

    @contextmanager
    def paused(self) -> Generator[None]:
        """Pause this deadline, and all around it, while the block runs.

        Raises:
          ClockError: on entering; then nothing is paused.
        """
        began = now()
        chain: list[PausableDeadline] = []
        deadline: PausableDeadline | None = self
        while deadline is not None:
            chain.append(deadline)
            deadline = deadline.parent
        for member in chain:
            member._pause(began)
        try:
            yield
        finally:
            for member in chain:
                member._resume()

    @contextmanager
    def shared(self) -> Generator[None]:
        """Cancel this block, too, at the deadline: one in another task, which the scope does not surround."""
        if self._scope is None:
            yield
            return
        scope = trio.CancelScope(deadline=self._scope.deadline)
        self._shared += (scope,)
        try:
            with scope:
                yield
        finally:
            self._shared = tuple([other for other in self._shared if other is not scope])

    def _move(self, deadline: float) -> None:
        assert self._scope is not None
        self._scope.deadline = deadline
        for scope in self._shared:
            scope.deadline = deadline

    def restart(self, at_most: float) -> None:
        """Allow all seconds anew from now on, but not more than ``at_most`` in total. Deadlines around it stay."""
        if self._scope is None or math.isinf(self._seconds):
            return
        time = now()
        left = self._left if self._pauses else self._scope.deadline - time
        # What was allowed and is not left has been used.
        more = min(self._seconds, at_most - (self.allowed - left)) - left
        if more <= 0:
            return
        self.allowed += more
        if self._pauses:
            self._left += more
        else:
            self._move(self._scope.deadline + more)

    def _pause(self, began: float) -> None:
        # Counted: the tools of one stream may wait for several people at once.
        if self._pauses == 0 and self._scope is not None:
            self._deadline = self._scope.deadline
            self._left = self._deadline - began
            self._move(math.inf)
        self._pauses += 1

    def _resume(self) -> None:
        self._pauses -= 1
        if self._pauses == 0 and self._scope is not None:
            self._move(after(self._left, otherwise=self._deadline))


# ------------------------------------------------------------------------- the clock


# A user can replace trio's clock, and it can fail like all user code. The start of something reads it with `now`, which
# raises: without the time it does not start. The end of something is emitted even if the clock fails, so ends use the
# functions that never raise.


def is_real(clock: trio.abc.Clock) -> bool:
    """Whether ``clock`` is trio's own, which runs in real time. A test's may run ahead of it."""
    return type(clock).__name__ == "SystemClock"


def now() -> float:
    """Seconds on trio's clock.

    Raises:
      ClockError: the clock failed.
    """
    try:
        return trio.current_time()
    except Exception as error:
        raise ClockError(f"trio's clock failed: {type(error).__name__}: {error}") from error


def since(began: float) -> float:
    """Seconds since ``began``; 0 if the clock fails. For ends, which are emitted in any case."""
    try:
        return now() - began
    except ClockError:
        return 0.0


def after(seconds: float, *, otherwise: float = -math.inf) -> float:
    """The time ``seconds`` from now; ``otherwise`` if the clock fails, so that nothing waits without a deadline."""
    try:
        return now() + seconds
    except ClockError:
        return otherwise


async def sleep(seconds: float) -> None:
    """Wait. Raises `ClockError` before it begins, if the clock fails."""
    await trio.sleep_until(now() + seconds)


# --------------------------------------------------------- blocks that say how they are entered


class NamedBlock(AbstractAsyncContextManager[T]):
    """A block that says how it is entered, if it is written in another way. Entered once.

    Args:
      block: the block itself.
      call: the call that gives it, as its user writes it.
      value: the name of what it opens.
      hint: another way to the same end, as a clause.
    """

    __slots__ = ("_block", "_is_entered", "call", "hint", "value")

    def __init__(self, block: AbstractAsyncContextManager[T], call: str, value: str, hint: str = "") -> None:
        self._block = block
        self._is_entered = False
        self.call = call
        self.value = value
        self.hint = hint

    async def __aenter__(self) -> T:
        if self._is_entered:
            raise UsageError(f"this block was entered before: call {self.call} again for another one")
        self._is_entered = True
        return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - as the block itself does

    def __repr__(self) -> str:
        return f"<the block of {self.call}: write `async with {self.call} as {self.value}:`>"


_WITH = "{self.call} opens a block: write `async with {self.call} as {self.value}:`{self.hint}"

refuse(
    NamedBlock,
    **{"await": _WITH},
    enter=_WITH,
    iter=_WITH,
    aiter="{self.call} opens a block: write `async with {self.call} as {self.value}:`, and inside of it "
    "`async for event in {self.value}:`",
)


def _attribute(self: NamedBlock[Any], name: str) -> NoReturn:
    if name.startswith("_") or name in NamedBlock.__slots__:
        # Python asks for these itself, also of an object that is not made yet.
        raise AttributeError(name)
    raise AttributeError(
        f"{self.call} opens a block, which has no attribute {name!r}: write `async with {self.call} as {self.value}:`, "
        f"and inside of it `{self.value}.{name}`",
        name=name,
        obj=self,
    )


NamedBlock.__getattr__ = _attribute  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def check_open_store(store: object) -> None:
    """Raise `UsageError` if ``store`` is not the open store that functions of `agentloop.stores` take."""
    if callable(getattr(store, "acquire", None)):
        return
    if callable(getattr(store, "open", None)):
        name = type(store).__name__
        raise UsageError(f"this {name} is not open: write `async with {name}(...).open() as store:`, and give store")
    if isinstance(store, NamedBlock):
        raise UsageError(f"this store is not open yet: write `async with {store.call} as {store.value}:`")
    raise UsageError(
        f"a session is kept in an open store, not in a {type(store).__name__}: write "
        '`async with SQLiteStore("chats.db").open() as store:`, and give store'
    )
