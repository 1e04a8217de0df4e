"""A worker: it looks for sessions that can be driven, and drives each for a segment.

::

    work()            one worker without another engine: it looks, and drives
    driving()         the block in which segments run
    look()            the loop that every engine shares: which sessions can be driven, given to `submit`
    Driver            drives sessions of a store; a failed session waits before it is driven again
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import uniform

import trio
from attrs import define, field, frozen

from agentloop._core.field_checks import shown
from agentloop._runtime.blocks import now, require_trio
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.logs import ENGINES
from agentloop.agent import Agent
from agentloop.engines._segment import (
    LEASE_SECONDS,
    MAX_TAKEOVERS,
    POLL_SECONDS,
    DepsOf,
    Segment,
    SegmentStore,
    agents_by_name,
    drive_in,
)
from agentloop.errors import AgentLoopError, SessionLeasedError, StoreError, UsageError
from agentloop.journal import OpenStore
from agentloop.stores.mailbox import Mailboxes, WaitingWork, mailboxes_of

__all__ = ["Driver", "WorkerOptions", "driving", "look", "look_until", "work"]

MIN_PAUSE = 0.02
"""Seconds between two looks, however fast segments end."""

MAX_DELAY = 60.0
"""The most seconds that a session waits after it has failed again and again."""


@frozen(kw_only=True)
class WorkerOptions:
    """How a worker works."""

    at_once: int = 16
    """Sessions that it drives at once."""
    lease_seconds: float = LEASE_SECONDS
    """Seconds after which another worker takes a session over, should this one die."""
    poll_seconds: float = POLL_SECONDS
    """Seconds between two looks for sessions that can be driven, and for answers to live questions."""
    drain_seconds: float = 30.0
    """Seconds that its segments have to end, when it is to end. The rest is cut off, and other workers resume it."""
    max_takeovers: int = MAX_TAKEOVERS
    """How many times in a row a run may be cut off, before it is given up: its tool may be what ends the workers."""

    def __attrs_post_init__(self) -> None:
        for name in ("at_once", "max_takeovers"):
            number = getattr(self, name)
            if type(number) is not int or number < 1:
                raise UsageError(f"{name}={shown(number)}: give a number, 1 or more")
        for name in ("lease_seconds", "poll_seconds", "drain_seconds"):
            seconds = getattr(self, name)
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
                raise UsageError(f"{name}={shown(seconds)}: give seconds above 0")


@define
class Driver:
    """Drives sessions of one store with some agents."""

    store: Mailboxes
    agents: Mapping[str, Agent]
    options: WorkerOptions
    deps: DepsOf | None = None
    driving: dict[str, SegmentStore] = field(factory=dict[str, SegmentStore])
    """The sessions that are driven now."""
    _failures: dict[str, int] = field(factory=dict[str, int])
    _not_before: dict[str, float] = field(factory=dict[str, float])
    _ended: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    is_draining: bool = False

    def can_drive(self, work: WaitingWork) -> bool:
        """Whether this worker has the agent, and the session does not wait after a failure."""
        if work.session in self.driving or self._not_before.get(work.session, 0.0) > now():
            return False
        return not work.agent or work.agent in self.agents

    @property
    def slots(self) -> int:
        """How many more sessions it may drive."""
        return 0 if self.is_draining else self.options.at_once - len(self.driving)

    async def drive(self, session: str) -> Segment | None:
        """Drive a segment; ``None`` if another process has the session, or this one drives it already.

        Raises:
          AgentLoopError: it failed; the session waits before `can_drive` allows it again.
        """
        if session in self.driving:
            return None
        store = self.driving[session] = SegmentStore(self.store)
        options = self.options
        try:
            segment = await drive_in(
                store,
                session,
                self.agents,
                self.deps,
                options.lease_seconds,
                options.poll_seconds,
                options.max_takeovers,
            )
        except SessionLeasedError:
            return None
        except Exception:
            self._failed(session)
            raise
        finally:
            del self.driving[session]
            self._ended.unpark_all()
        self._failures.pop(session, None)
        self._not_before.pop(session, None)
        return segment

    def _failed(self, session: str) -> None:
        failures = self._failures[session] = self._failures.get(session, 0) + 1
        delay = min(self.options.poll_seconds * 2 ** min(failures, 30), MAX_DELAY)
        self._not_before[session] = now() + delay * uniform(0.5, 1.0)  # noqa: S311 - no secret

    async def ended(self) -> None:
        """Return when a segment ends."""
        await self._ended.park()

    async def drain(self) -> None:
        """Begin no segment any more; return when all have ended, or after `WorkerOptions.drain_seconds`.

        Raises nothing for those that have not ended: see `driving`.
        """
        self.is_draining = True
        self._ended.unpark_all()
        with trio.move_on_after(self.options.drain_seconds):
            while self.driving:
                await self._ended.park()

    def cut_off(self) -> None:
        """Have nothing more saved of the sessions that are driven, as if this process had been killed."""
        self.is_draining = True
        for session, store in self.driving.items():
            store.close()
            ENGINES.warning("session %r: its run is cut off, and another worker resumes it", session)


@asynccontextmanager
async def driving(driver: Driver) -> AsyncGenerator[trio.Nursery]:
    """Give a nursery for the segments of ``driver``. Those that run when the block is left are cut off.

    However the block is left: a worker that is cancelled is no reason for its runs to have ended.
    """
    # Shielded: a cancelled run would save that it was cancelled, before the store is closed for it.
    scope = trio.CancelScope(shield=True)

    async def hold(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:  # noqa: ASYNC114
        with scope:
            async with trio.open_nursery() as nursery:
                task_status.started(nursery)
                await trio.sleep_forever()

    try:
        async with trio.open_nursery() as outer:
            nursery: trio.Nursery = await outer.start(hold)
            try:
                yield nursery
            finally:
                driver.cut_off()
                scope.cancel()
    except BaseExceptionGroup as group:
        raise_single(group)


async def look(driver: Driver, submit: Callable[[WaitingWork], Awaitable[None]], *, at_once: Callable[[], int]) -> None:
    """Look for sessions that can be driven, and ``submit`` each. Ends by being cancelled.

    Args:
      at_once: how many sessions may be submitted now.
    """
    fails = False
    while True:
        limit = at_once()
        try:
            found = await driver.store.waiting_work(limit=limit * 2 + 10) if limit > 0 else ()
            for work in found:
                if at_once() <= 0:
                    break
                if driver.can_drive(work):
                    await submit(work)
            fails = False
        except StoreError as error:
            if not fails:
                ENGINES.warning("the store cannot be read, and is tried again: %s", error)
            fails = True
        pause = driver.options.poll_seconds
        with trio.move_on_after(pause * uniform(0.75, 1.25)):  # noqa: S311 - no secret
            await driver.ended()
            # Segments end in swarms: one look for all of them.
            await trio.sleep(min(MIN_PAUSE, pause))


async def work(
    store: OpenStore,
    agents: Agent | Mapping[str, Agent] | Sequence[Agent],
    *,
    options: WorkerOptions | None = None,
    deps: DepsOf | None = None,
    stop: trio.Event | None = None,
) -> None:
    """Drive the sessions of ``store`` that can be driven, until ``stop`` is set.

    Those are sessions with a prompt or an answer in their mailbox, and those whose run was cut off with its process,
    whichever it was. Run as many workers as you like, on one machine or on many.

    Args:
      store: an open store with mailboxes.
      agents: by the names that prompts and journals have for them. Sessions of other agents are left to other workers.
      options: how it works.
      deps: as for `Agent.stream`, by the session's id.
      stop: when it is set, the worker drains: see `WorkerOptions.drain_seconds`. If this call is cancelled, its runs
        are cut off at once.

    Raises:
      UsageError: an argument is wrong.
    """
    require_trio("a worker works", in_asyncio="`await agentloop.asyncio.call(work, store, agents)`")
    driver = Driver(mailboxes_of(store), agents_by_name(agents), options or WorkerOptions(), deps)

    async def drive(session: str) -> None:
        try:
            await driver.drive(session)
        except AgentLoopError as error:
            ENGINES.warning("session %r: the segment failed: %s", session, error)
        except Exception:  # noqa: BLE001 - of user code, such as `deps`: the other sessions go on
            ENGINES.exception("session %r: the segment failed", session)

    async with driving(driver) as nursery:

        async def submit(work: WaitingWork) -> None:
            nursery.start_soon(drive, work.session)
            # Until it has begun, and counts.
            await trio.lowlevel.checkpoint()

        await look_until(stop, partial(look, driver, submit, at_once=lambda: driver.slots))
        await driver.drain()


async def look_until(stop: trio.Event | None, looks: Callable[[], Awaitable[None]]) -> None:
    """Call ``looks``, and cancel it when ``stop`` is set."""
    ENGINES.info("the worker begins")
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(looks)
            await (trio.Event() if stop is None else stop).wait()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise_single(group)
    ENGINES.info("the worker ends, and begins no more segments")
