"""A network in memory: no sockets, no threads, no time, the same each time. For the simulation, and for speed.

It stands in for the one function by which the HTTP adapters open connections, and has the same servers as
`tests.providers.server`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from attrs import Factory, define

from agentloop.providers import _connections
from agentloop.testing._patched import patched
from agentloop.testing.simulation import InjectedFault
from tests.providers.server import Handler, Peer, Server

URL = "http://localhost:1/v1"
"""Of any server there. A host of this name is looked for by no proxy."""

Seam = Callable[[str], Awaitable[None]]
"""A place where the network may fail: it raises `InjectedFault`."""


async def no_seam(name: str) -> None:
    """Never fail, but be a checkpoint, as each use of a network is."""
    await trio.lowlevel.checkpoint()


@define(eq=False)
class _Pipe:
    """Bytes on their way from one end to the other."""

    capacity: float
    """Bytes that may be on their way before the sender has to wait."""
    data: bytearray = Factory(bytearray)
    ended: bool = False
    """The sender has closed its end."""
    lost: bool = False
    """The receiver has closed its end."""
    _changed: trio.Event = Factory(trio.Event)

    def change(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait(self) -> None:
        await self._changed.wait()


@define(eq=False)
class End(trio.abc.Stream):
    """One end of a connection."""

    _incoming: _Pipe
    _outgoing: _Pipe
    _seam: Seam = no_seam
    closed: bool = False

    @property
    def socket(self) -> End:
        """The part of a socket that is needed."""
        return self

    def is_readable(self) -> bool:
        """Whether there is something to receive: bytes, or the end."""
        return bool(self._incoming.data) or self._incoming.ended

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._pass("receive")
        pipe = self._incoming
        while not pipe.data and not pipe.ended:
            self._check_open()
            await pipe.wait()
        self._check_open()
        received = bytes(pipe.data[: max_bytes or len(pipe.data)])
        del pipe.data[: len(received)]
        pipe.change()
        return received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._pass("send")
        pipe, left = self._outgoing, bytes(data)
        while left:
            self._check_open()
            if pipe.lost:
                raise trio.BrokenResourceError("the other end is closed")
            room = int(min(len(left), pipe.capacity - len(pipe.data)))
            if room <= 0:
                await pipe.wait()
                continue
            pipe.data += left[:room]
            left = left[room:]
            pipe.change()
        # All of it is on its way, and yet it may fail.
        await self._pass("sent")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = self._outgoing.ended = self._incoming.lost = True
            self._outgoing.change()
            self._incoming.change()
        await trio.lowlevel.checkpoint()

    async def _pass(self, name: str) -> None:
        try:
            await self._seam(name)
        except InjectedFault as error:
            # A connection does not fail in one direction only. What has come already can still be read.
            self._incoming.ended = self._incoming.lost = self._outgoing.ended = self._outgoing.lost = True
            self._incoming.change()
            self._outgoing.change()
            raise trio.BrokenResourceError from error

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError


@define
class Network:
    """What became of a network.

    Attributes:
      server: what it heard.
      opened: the client's ends of all connections, in order.
      seen_closed: how many connections the server has seen closed, or has closed itself.
    """

    server: Server
    opened: list[End] = Factory(list)
    seen_closed: int = 0


@asynccontextmanager
async def network(handler: Handler, *, seam: Seam = no_seam, capacity: float = float("inf")) -> AsyncGenerator[Network]:
    """A network with one server, which calls ``handler`` for each connection, as long as the block runs.

    Args:
      seam: passed before a connection is made, before something is received, and before and after it is sent, by
        the client.
      capacity: bytes that a connection holds before who sends them has to wait.

    Raises:
      AssertionError: at the end a connection is still open, or was not seen to be closed.
    """
    net = Network(Server(URL))

    async def open_tcp_stream(host: str, port: int) -> End:
        try:
            await seam("connect")
        except InjectedFault as error:
            raise OSError(f"no way to {host}:{port}") from error
        there, back = _Pipe(capacity), _Pipe(capacity)
        client = End(back, there, seam)
        net.opened.append(client)
        nursery.start_soon(serve, End(there, back))
        return client

    async def serve(stream: End) -> None:
        net.server.connections += 1
        try:
            async with stream:
                await handler(Peer(stream, net.server))
        except trio.BrokenResourceError:
            net.server.closed_by_client.set()
        net.seen_closed += 1

    async with trio.open_nursery() as nursery:
        with patched(_connections, "open_tcp_stream", open_tcp_stream):
            yield net
        left = sum(not end.closed for end in net.opened)
        # Else the servers, which wait for the connections to close, would make it look like a hang.
        if left:
            nursery.cancel_scope.cancel()
    assert not left, f"{left} of {len(net.opened)} connections are still open"
    assert net.seen_closed == len(net.opened), "a server did not see its connection close"
