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
from functools import partial
from typing import Any, cast

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.logs import SERVING
from agentloop.errors import UsageError
from agentloop.serving._app import ServedApp
from agentloop.serving._security import is_loopback

try:
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
except ModuleNotFoundError:  # pragma: no cover - Windows has no such limit

    def _max_files() -> int:
        return 10_000
else:

    def _max_files() -> int:
        files, _ = getrlimit(RLIMIT_NOFILE)
        return 100_000 if files == RLIM_INFINITY else files


__all__ = ["run"]

HEADER_BYTES = 16_384
HEADER_SECONDS = 10.0
"""Seconds that a client may take to send the head of a request, and that a connection may be idle."""

CLOSE_SECONDS = 3.0
"""Seconds that responses have to end when the server leaves, after the runs have ended."""

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
    listener, address = _listen(host, port)
    ended = trio.Event()
    try:
        async with app.running(), trio.open_nursery() as nursery:
            nursery.start_soon(_drain_on_signal, app, drain_seconds, ended)
            # The socket listens already: who connects before the first accept waits for it.
            SERVING.info("serving at %s", address)
            task_status.started(address)
            await _Connections(app).serve(listener, ended)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise_single(group)
    finally:
        listener.close()


class _Http1(H11Protocol):
    """HTTP/1.1, and nothing else on the same connection.

    Hypercorn would change to HTTP/2 or to a websocket if the client asks for it. The app has no websockets, browsers
    speak HTTP/2 only over TLS, which a proxy ends, and a connection that has changed has no idle timeout.
    """

    async def _check_protocol(self, event: h11.Request) -> None:
        """Ignore that the client would like another protocol, as HTTP/1.1 allows."""

    async def _create_stream(self, request: h11.Request) -> None:
        kept = [(name, value) for name, value in request.headers if name != b"upgrade"]
        await super()._create_stream(
            h11.Request(method=request.method, target=request.target, headers=kept, http_version=request.http_version)
        )


class _Connection(TCPServer):
    """A connection that speaks `_Http1`."""

    async def _read_data(self) -> None:
        """Read what the client sends, until it closes the connection or the connection is idle for too long."""
        wrapper = self.protocol
        wrapper.protocol = _Http1(
            wrapper.app,
            wrapper.config,
            wrapper.context,
            wrapper.task_group,
            wrapper.state,
            wrapper.ssl,
            wrapper.client,
            wrapper.server,
            wrapper.send,
        )
        await super()._read_data()
        # The client has closed the connection, which would otherwise be held until its idle timeout.
        await self.idle_task.stop()


class _Connections:
    """The connections of a server, each in a task. Hypercorn speaks HTTP on them.

    Hypercorn has a server around the same class. That one cannot leave before each client has read what was sent to it,
    since its writes are shielded from cancellation, and an error in one connection ends all of them.
    """

    def __init__(self, app: ServedApp) -> None:
        self._app = ASGIWrapper(cast("Any", app))
        self._config = _config()
        self._context = WorkerContext(None)
        self._streams: set[trio.SocketStream] = set()
        self._limit = _max_connections()
        self._is_full = False
        self._changed = trio.lowlevel.ParkingLot()

    async def serve(self, listener: trio.socket.SocketType, ended: trio.Event) -> None:
        """Serve until ``ended`` is set, and then give the connections some time to end."""
        async with trio.open_nursery() as handlers:
            accept = partial(
                trio.serve_listeners, self._handle, [trio.SocketListener(listener)], handler_nursery=handlers
            )
            try:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(accept)
                    await ended.wait()
                    accepting.cancel_scope.cancel()
                # Ends the connections without a request, at once.
                await self._context.terminated.set()
                with trio.move_on_after(CLOSE_SECONDS):
                    while self._streams:
                        await self._changed.park()
            finally:
                for stream in self._streams:
                    # Ends a write that the client does not read, whether it is shielded or not.
                    stream.socket.close()
                handlers.cancel_scope.cancel()

    async def _handle(self, stream: trio.SocketStream) -> None:
        if len(self._streams) >= self._limit:
            if not self._is_full:
                SERVING.warning("the server has %d connections, and closes new ones at once", self._limit)
            self._is_full = True
            await stream.aclose()
            return
        self._is_full = False
        self._streams.add(stream)
        try:
            await _Connection(
                self._app, self._config, self._context, cast("Any", ConnectionState({})), cast("Any", stream)
            ).run()
        except Exception as error:  # noqa: BLE001 - what a client sends must not end the connections of others
            SERVING.error("a connection failed", exc_info=error)
        finally:
            self._streams.discard(stream)
            stream.socket.close()
            self._changed.unpark_all()


def _max_connections() -> int:
    """Connections at once: as many as leave the process file descriptors for models, tools and the store."""
    files = _max_files()
    return max(files - max(files // 8, 64), 1)


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("agentloop.serving.hypercorn")
    config.include_server_header = False
    config.h11_max_incomplete_size = HEADER_BYTES
    config.keep_alive_timeout = HEADER_SECONDS
    return config


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


def _listen(host: str, port: int) -> tuple[trio.socket.SocketType, str]:
    """A socket that listens, and its address."""
    try:
        [(family, kind, number, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # A connection inherits it.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
            listener.bind(address)
            listener.listen(1024)
            name, number = listener.getsockname()[:2]
            shown = f"[{name}]" if ":" in name else name
            return trio.socket.from_stdlib_socket(listener), f"http://{shown}:{number}"
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise UsageError(f"the server cannot listen at {host}, port {port}: {error.strerror or error}") from error
