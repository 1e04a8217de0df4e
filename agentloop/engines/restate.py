"""Workers whose queue and retries are those of Restate (https://docs.restate.dev). Needs the extra ``restate``.

Each segment is an invocation of the handler ``drive`` of the service `agentloop`, whose idempotency key is made of the
session and the fencing token of the session's newest lease: so many workers that find the same session enqueue one
invocation. Restate calls the workers at one address, over HTTP. If a worker dies, Restate repeats its invocations in
another one, which finds the session held until its lease ends, and then resumes the run.

The agent's turns are no steps of Restate: a journal that is replayed by the order of its steps would break with each
change of the agent. The session's journal has them.

Restate's SDK is written for asyncio, and has a loop in a thread of its own here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import trio
from attrs import define, field

from agentloop._runtime.blocks import require_trio
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.logs import ENGINES
from agentloop.agent import Agent
from agentloop.engines._queued import Drained, Enqueued, Segments
from agentloop.engines._segment import DepsOf, agents_by_name
from agentloop.engines._worker import Driver, WorkerOptions, driving, look, look_until
from agentloop.errors import MissingExtraError, StoreError, UsageError
from agentloop.journal import OpenStore
from agentloop.stores.mailbox import WaitingWork, mailboxes_of

try:
    from hypercorn.config import Config
    from restate import Context, InvocationRetryPolicy, Service, TerminalError, app as app_of

    # Its annotations say less than pyright wants to know.
    serve: Any = import_module("hypercorn.asyncio").serve
except ImportError as error:
    raise MissingExtraError(feature="agentloop.engines.restate", extra="restate", package="restate-sdk") from error

__all__ = ["work"]

SERVICE = "agentloop"

BACKLOG = 2
"""Invocations that are enqueued for each slot of a worker, so that no slot is empty between two looks."""

CALL_SECONDS = 10.0
"""Seconds that Restate has to answer a request."""

LONGEST = timedelta(days=30)
"""How long a segment may be silent: Restate would end its connection after a minute, and repeat it."""


async def work(
    store: OpenStore,
    agents: Agent | Mapping[str, Agent] | Sequence[Agent],
    *,
    ingress: str = "http://127.0.0.1:8080",
    admin: str = "http://127.0.0.1:9070",
    bind: str = "127.0.0.1:9080",
    address: str = "",
    options: WorkerOptions | None = None,
    deps: DepsOf | None = None,
    stop: trio.Event | None = None,
) -> None:
    """`agentloop.engines.work`, with the queue of Restate.

    Args:
      store: an open store with mailboxes.
      agents: as for `agentloop.engines.work`; all workers of one Restate have the same.
      ingress: the address at which Restate takes invocations.
      admin: the address at which Restate takes deployments.
      bind: the host and the port at which the worker listens. Workers of one machine may share them, where the system
        divides connections between processes (Linux).
      address: the address at which Restate reaches the workers: that of the balancer before them, if they are on
        several machines; ``http://`` and ``bind``, if not given.
      options: how it works.
      deps: as for `Agent.stream`, by the session's id.
      stop: when it is set, the worker drains.

    Raises:
      UsageError: an argument is wrong, or Restate cannot be reached at ``admin``, or cannot reach ``address``.
    """
    require_trio("a worker works", in_asyncio="`await agentloop.asyncio.call(work, store, agents)`")
    driver = Driver(mailboxes_of(store), agents_by_name(agents), options or WorkerOptions(), deps)
    listener = _listen(bind)
    async with _serving(driver, listener, ingress) as engine:
        await trio.to_thread.run_sync(_register, admin, address or f"http://{bind}")
        await look_until(stop, partial(look, driver, engine.submit, at_once=lambda: driver.options.at_once * BACKLOG))
        await driver.drain()


@asynccontextmanager
async def _serving(driver: Driver, listener: socket.socket, ingress: str) -> AsyncGenerator[_Engine]:
    """Answer Restate's calls while the block runs."""
    with listener:
        async with driving(driver) as nursery:
            engine = _Engine(Segments(driver, nursery), Enqueued(driver.options.lease_seconds), ingress.rstrip("/"))
            try:
                async with trio.open_nursery() as threads:
                    # Its socket listens already.
                    threads.start_soon(partial(_in_thread, partial(engine.serve, listener)))  # noqa: ASYNC113
                    try:
                        yield engine
                    finally:
                        # Restate repeats the invocations that the thread cuts off.
                        engine.leave()
            except BaseExceptionGroup as group:
                raise_single(group)


async def _in_thread(serve: Callable[[], None]) -> None:
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(serve)


@define(eq=False)
class _Engine:
    segments: Segments
    enqueued: Enqueued
    ingress: str
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.new_event_loop)
    _left: asyncio.Event = field(factory=asyncio.Event)

    # ------------------------------------------------------------------- in the thread of asyncio

    def serve(self, listener: socket.socket) -> None:
        """Serve on ``listener`` until `leave`."""
        service = Service(
            SERVICE,
            inactivity_timeout=LONGEST,
            abort_timeout=LONGEST,
            invocation_retry_policy=InvocationRetryPolicy(
                initial_interval=timedelta(seconds=0.2), exponentiation_factor=2.0, max_interval=timedelta(seconds=5)
            ),
        )
        # A closure, since Restate reads the handler's signature.
        handler = service.handler()

        @handler
        async def drive(context: Context, session: str) -> str:
            return await self.drive(session)

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(serve(app_of([service]), _config(listener), shutdown_trigger=self._left.wait))

    async def drive(self, session: str) -> str:
        """Drive a segment in the worker's trio, and return the session's state; empty if another worker has it."""
        try:
            segment = await asyncio.wrap_future(self.segments.begin(session))
        except (Drained, StoreError):
            # Restate repeats it, in another worker perhaps.
            raise
        except Exception as error:
            # The next look finds the session again, after the pause of `Driver`.
            raise TerminalError(f"the segment failed: {type(error).__name__}") from error
        return "" if segment is None else segment.state

    # ---------------------------------------------------------------------------------- in trio

    def leave(self) -> None:
        """End `serve`."""
        self._loop.call_soon_threadsafe(self._left.set)

    async def submit(self, work: WaitingWork) -> None:
        """Enqueue a segment, unless that was done less than a lease ago."""
        count = self.enqueued.count(work)
        if count is None:
            return
        # A key that was used for a failed segment would give the result of that one.
        key = f"{work.session}@{work.token}" + (f"+{count}" if count else "")
        url = f"{self.ingress}/{SERVICE}/drive/send"
        try:
            await trio.to_thread.run_sync(_post, url, work.session, {"idempotency-key": key})
        except OSError as error:
            ENGINES.warning("session %r: Restate cannot enqueue it, and is asked again: %s", work.session, error)
            self.enqueued.forget(work)


def _config(listener: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("agentloop.engines.hypercorn")
    return config


def _listen(bind: str) -> socket.socket:
    host, _, port = bind.rpartition(":")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host.strip("[]"), int(port)))
    except (OSError, ValueError) as error:
        listener.close()
        raise UsageError(f"bind={bind!r}: the worker cannot listen there: {error}") from error
    listener.listen(128)
    return listener


def _register(admin: str, address: str) -> None:
    """Have Restate call the workers at ``address``. Raises `UsageError`."""
    try:
        _post(f"{admin.rstrip('/')}/deployments", {"uri": address, "force": True}, {})
    except HTTPError as error:
        reason = error.read(500).decode("utf-8", "replace")
        raise UsageError(f"Restate does not register the workers at {address}: {reason}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"Restate cannot be reached at {admin}: {error}") from error


def _post(url: str, body: object, headers: Mapping[str, str]) -> None:
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url!r} is no address of Restate: give one that begins with http:// or https://")
    sent = Request(url, json.dumps(body).encode(), {"content-type": "application/json", **headers}, method="POST")  # noqa: S310
    with urlopen(sent, timeout=CALL_SECONDS) as response:  # noqa: S310 - the scheme is checked above
        response.read()
