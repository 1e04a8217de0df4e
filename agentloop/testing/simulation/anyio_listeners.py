"""Listeners of anyio in the simulated network.

`anyio.create_tcp_listener` makes a socket of the standard library, and hands it to trio. Where anyio is imported, it
gets a socket of the simulation instead. anyio promises none of the names that are replaced here.
"""

from __future__ import annotations

import socket as stdlib
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import trio
from attrs import define, frozen

from agentloop.testing._patched import patched
from agentloop.testing.simulation.network import Network, _Socket

__all__ = ["simulated_listeners"]


@frozen
class _StandardSocket:
    """What anyio calls of a socket of the standard library, before it hands it to trio."""

    simulated: _Socket

    def setblocking(self, flag: bool) -> None:
        """Nothing blocks."""

    def setsockopt(self, *args: Any) -> None:
        self.simulated.setsockopt(*args)

    def bind(self, address: Any) -> None:
        self.simulated.bind_now(address)

    def listen(self, backlog: int) -> None:
        self.simulated.listen(backlog)

    def getsockname(self) -> Any:
        return self.simulated.getsockname()

    def close(self) -> None:
        self.simulated.close()


@define(eq=False)
class _SocketModule:
    """Stands in for the module ``socket`` in anyio."""

    network: Network
    thread: int

    def socket(self, family: int = -1, *args: Any) -> Any:
        if threading.get_ident() != self.thread:
            return stdlib.socket(family, *args)
        return _StandardSocket(self.network.socket(family, *args))

    def has_dualstack_ipv6(self) -> bool:
        return threading.get_ident() != self.thread and stdlib.has_dualstack_ipv6()

    def __getattr__(self, name: str) -> Any:
        return getattr(stdlib, name)


@contextmanager
def simulated_listeners(network: Network) -> Generator[None]:
    """Have anyio listen in ``network``, in this thread, until the block ends."""
    anyio = sys.modules.get("anyio._core._sockets")
    if anyio is None or getattr(anyio, "socket", None) is not stdlib:
        yield
        return
    from_stdlib_socket: Any = trio.socket.from_stdlib_socket

    def convert(sock: Any) -> Any:
        return sock.simulated if isinstance(sock, _StandardSocket) else from_stdlib_socket(sock)

    with (
        patched(anyio, "socket", _SocketModule(network, threading.get_ident())),
        patched(trio.socket, "from_stdlib_socket", convert),
    ):
        yield
