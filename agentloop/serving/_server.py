"""The server: hypercorn's trio worker, with the end that a server of agents needs.

On SIGTERM, or on Ctrl-C, the server begins no more runs, parks those that wait for people, and lets the others finish
for some seconds. Then it leaves. Runs that have not ended are cut off, as if the process had been killed, and the next
server on the same store resumes them. A second signal ends the wait.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from typing import Any, cast

import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]

from agentloop._runtime.exception_groups import raise_single
from agentloop.errors import UsageError
from agentloop.serving._app import ServedApp
from agentloop.serving._errors import SERVING
from agentloop.serving._security import is_loopback

__all__ = ["run"]

HEADER_BYTES = 16_384
HEADER_SECONDS = 10.0
"""Seconds that a client may take to send the head of a request, and that a connection may be idle."""

UNREAD_SECONDS = 60
"""Seconds after which the kernel closes a connection whose client reads nothing any more, where it can."""


async def run(  # noqa: ASYNC114
    app: ServedApp,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    drain_seconds: float = 30.0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until the process gets SIGTERM or SIGINT, or the task is cancelled.

    Args:
      app: the app that `agentloop.serving.app` made.
      host: the address to listen at.
      port: the port; 0 for any that is free.
      drain_seconds: seconds that runs have to finish when the process is to end.
      task_status: for ``await nursery.start(run, app)``, which returns the server's address, such as
        ``http://127.0.0.1:8000``.

    Raises:
      UsageError: ``host`` can be reached from other machines, and the app has no authenticator; or the address is not
        free.
    """
    if not isinstance(cast("object", app), ServedApp):
        raise UsageError(f"run() serves what serving.app(agent) makes, and not {app!r}")
    if not is_loopback(host) and not app.has_authenticator:
        raise UsageError(
            f"{host} can be reached from other machines, and the app would answer all of them: give it an "
            "authenticator, as in serving.app(agent, authenticate=BearerTokens({token: 'ann'}))"
        )
    config = _Config(host, port)
    ended = trio.Event()

    async def wait_for_end() -> None:
        await ended.wait()

    try:
        async with app.running(), trio.open_nursery() as nursery:
            # Closed by hypercorn, or here if hypercorn does not get to it.
            with config.listener:
                nursery.start_soon(_drain_on_signal, app, drain_seconds, ended)
                # The socket listens already: who connects before hypercorn accepts waits for it.
                SERVING.info("serving at %s", config.address)
                task_status.started(config.address)
                await serve(cast("Any", app), config, shutdown_trigger=wait_for_end, mode="asgi")
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise_single(group)


async def _drain_on_signal(app: ServedApp, seconds: float, ended: trio.Event) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await anext(signals)
            SERVING.info("the server begins no more runs, and leaves within %g s", seconds)
            nursery.start_soon(_drain, app, seconds, ended, nursery.cancel_scope)
            await anext(signals)
            nursery.cancel_scope.cancel()
    ended.set()


async def _drain(app: ServedApp, seconds: float, ended: trio.Event, scope: trio.CancelScope) -> None:
    await app.drain(seconds)
    ended.set()
    scope.cancel()


class _Config(Config):
    """Hypercorn's settings, with a socket of our own: it listens at once, so that its port is known."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.listener = _listen(host, port)
        name, number = self.listener.getsockname()[:2]
        self.address = f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"
        self.accesslog = None
        self.errorlog = logging.getLogger("agentloop.serving.hypercorn")
        self.include_server_header = False
        self.h11_max_incomplete_size = HEADER_BYTES
        self.keep_alive_timeout = HEADER_SECONDS
        self.graceful_timeout = 3.0

    def create_sockets(self) -> Sockets:
        """The socket that listens, which hypercorn closes."""
        return Sockets([], [self.listener], [])


def _listen(host: str, port: int) -> socket.socket:
    try:
        [(family, kind, number, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # A connection inherits it. Hypercorn shields its writes, so that a client that stops reading would
                # keep the server from leaving.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
            listener.bind(address)
            listener.listen(1024)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise UsageError(f"the server cannot listen at {host}, port {port}: {error.strerror or error}") from error
    return listener
