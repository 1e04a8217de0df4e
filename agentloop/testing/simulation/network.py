"""The simulated network: TCP in memory, through the hooks that trio has for another network.

`trio.open_tcp_stream`, `trio.serve_tcp`, `trio.socket.socket` and all that is built on them connect within the
simulation. A name is resolved to an address of its own; a connection to a port on which no listener accepts is refused.
Every connect, send and receive is a place where an ``io`` fault can strike.
"""

from __future__ import annotations

import errno
import socket as stdlib
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn, Self

import trio
from attrs import Factory, define, field

from agentloop.testing.simulation.errors import HarnessError
from agentloop.testing.simulation.stuck import call_chain, chain_to_user, user_position

__all__ = ["Network"]

CAPACITY = 65536
"""Bytes that a connection holds in each direction before its sender has to wait."""
FIRST_PORT = 49152
"""The first port for a socket that asks for any."""
ANY_HOST = ("0.0.0.0", "::", "")  # noqa: S104 - no listener of a simulation is open to the outside

_Address = tuple[str, int]


@define(eq=False)
class _Signal:
    """Wakes all tasks that wait for a change."""

    _event: trio.Event = Factory(trio.Event)

    def change(self) -> None:
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()


@define(eq=False)
class _Pipe:
    """The bytes on their way from one end of a connection to the other."""

    data: bytearray = Factory(bytearray)
    has_ended: bool = False
    """The sender has closed its end, or shut it down for sending."""
    is_lost: bool = False
    """The receiver has closed its end."""
    is_reset: bool = False
    """The connection broke."""
    cause: OSError | None = None
    """The injected error that broke it, if one did."""
    changed: _Signal = Factory(_Signal)


@define(eq=False)
class _Listening:
    address: _Address
    backlog: int
    waiting: deque[tuple[_Socket, _Address]] = Factory(deque["tuple[_Socket, _Address]"])
    changed: _Signal = Factory(_Signal)
    is_closed: bool = False


@define
class Network(trio.abc.SocketFactory, trio.abc.HostnameResolver):
    """The hosts and listeners of one run.

    Args:
      refuse: notes that the scenario needs something that the simulation has not got.
      fails: asked before each operation, by its name; the error with which it is to fail, if it is.
    """

    _refuse: Callable[[str], HarnessError]
    _fails: Callable[[str, type[OSError], int], OSError | None]
    _listening: dict[_Address, _Listening] = field(factory=dict[_Address, _Listening], init=False)
    _addresses: dict[str, str] = field(factory=dict[str, str], init=False)
    _next_port: int = field(default=FIRST_PORT, init=False)
    _open: dict[_Socket, str] = field(factory=dict["_Socket", str], init=False)

    def install(self) -> None:
        """Take the place of the real network, for the `trio.run` that calls this."""
        trio.socket.set_custom_socket_factory(self)
        trio.socket.set_custom_hostname_resolver(self)

    def left(self) -> list[str]:
        """The sockets that are still open, a sentence each."""
        return [f"{each.describe()}, made at {place}, is still open" for each, place in self._open.items()]

    # ------------------------------------------------------------------ trio's hooks

    def socket(self, family: int | None = None, type: int | None = None, proto: int | None = None) -> _Socket:
        """Make a socket. Only TCP is simulated."""
        family = stdlib.AF_INET if family in (None, -1) else family
        type = stdlib.SOCK_STREAM if type in (None, -1) else type
        if family not in (stdlib.AF_INET, stdlib.AF_INET6) or type != stdlib.SOCK_STREAM:
            raise self._refuse("a socket that is not of TCP")
        made = _Socket(self, stdlib.AddressFamily(family))
        self._open[made] = _place()
        return made

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Resolve a name: each has an address of its own, the same in each run. Only IPv4 is simulated."""
        await trio.lowlevel.checkpoint()
        name = "" if host is None else host.decode("ascii")
        if (error := self._fails(f"resolve {name}", stdlib.gaierror, stdlib.EAI_AGAIN)) is not None:
            raise error
        number = 0 if port is None else int(port)
        return [(stdlib.AF_INET, stdlib.SOCK_STREAM, stdlib.IPPROTO_TCP, "", (self._address(name), number))]

    async def getnameinfo(self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int) -> tuple[str, str]:
        """The name that an address was resolved from."""
        await trio.lowlevel.checkpoint()
        names = {address: name for name, address in self._addresses.items()}
        return names.get(sockaddr[0], sockaddr[0]), str(sockaddr[1])

    def _address(self, name: str) -> str:
        if name in ("", "localhost"):
            return "127.0.0.1"
        number = len(self._addresses) + 1
        return self._addresses.setdefault(name, f"10.0.{number // 256}.{number % 256}")

    # ------------------------------------------------------------------ what sockets call

    def fail(self, operation: str, kind: type[OSError], number: int) -> None:
        """Raise the error that is to be injected into this operation, if one is."""
        if (error := self._fails(operation, kind, number)) is not None:
            raise error

    def bind(self, address: _Address) -> _Address:
        """Choose the port, if any will do."""
        host, port = address
        if port == 0:
            port, self._next_port = self._next_port, self._next_port + 1
        if (host, port) in self._listening:
            raise OSError(errno.EADDRINUSE, f"a listener has {host}:{port} already")
        return host, port

    def listen(self, address: _Address, backlog: int) -> _Listening:
        """Accept connections at an address from now on."""
        if address in self._listening:
            raise OSError(errno.EADDRINUSE, f"a listener has {address[0]}:{address[1]} already")
        self._listening[address] = listening = _Listening(address, backlog)
        return listening

    def find(self, address: _Address) -> _Listening | None:
        """The listener that accepts connections to an address."""
        hosts = (address[0], *ANY_HOST)
        return next(
            (self._listening[host, address[1]] for host in hosts if (host, address[1]) in self._listening), None
        )

    def accepted(self, family: stdlib.AddressFamily) -> _Socket:
        """Make the server's end of a new connection."""
        made = _Socket(self, family)
        self._open[made] = "the listener that accepted it"
        return made

    def closed(self, gone: _Socket, listening: _Listening | None) -> None:
        """Forget a socket that was closed."""
        self._open.pop(gone, None)
        if listening is not None:
            self._listening.pop(listening.address, None)
            listening.is_closed = True
            listening.changed.change()
            for waiting, _ in listening.waiting:
                waiting.close()


class _Socket(trio.socket.SocketType):
    """A TCP socket in memory, as far as trio's streams, and most other code, use sockets."""

    def __init__(self, network: Network, family: stdlib.AddressFamily) -> None:
        super().__init__()
        self._network = network
        self._family = family
        self._is_closed = False
        self._has_shut_down = False
        self._closed = _Signal()
        self._name: _Address = ("0.0.0.0", 0)  # noqa: S104 - as an unbound socket has it
        self._peer: _Address | None = None
        self._listening: _Listening | None = None
        self._incoming = _Pipe()
        self._outgoing = _Pipe()

    def describe(self) -> str:
        """Name the socket, for a report."""
        if self._listening is not None:
            return f"the listener at {self._name[0]}:{self._name[1]}"
        if self._peer is not None:
            return f"the connection {self._name[0]}:{self._name[1]} to {self._peer[0]}:{self._peer[1]}"
        return "a socket"

    # ------------------------------------------------------------------ properties

    @property
    def family(self) -> stdlib.AddressFamily:
        return self._family

    @property
    def type(self) -> stdlib.SocketKind:
        return stdlib.SOCK_STREAM

    @property
    def proto(self) -> int:
        return stdlib.IPPROTO_TCP

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802 - trio's name
        return self._has_shut_down

    @property
    def _sock(self) -> _Socket:
        """Where anyio looks for addresses."""
        return self

    def __repr__(self) -> str:
        return f"<simulated socket: {self.describe()}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def fileno(self) -> int:
        # No number of a real file: what takes one would use that file.
        return -1 if self._is_closed else 2**31 - 1

    def getsockname(self) -> _Address:
        self._check_open()
        return self._name

    def getpeername(self) -> _Address:
        self._check_open()
        if self._peer is None:
            raise OSError(errno.ENOTCONN, "the socket is not connected")
        return self._peer

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> Any:
        self._check_open()
        if level == stdlib.SOL_SOCKET and optname == getattr(stdlib, "SO_ACCEPTCONN", -1):
            return int(self._listening is not None)
        return 0 if buflen is None else bytes(buflen)

    def setsockopt(self, level: int, optname: int, value: object, optlen: int | None = None) -> None:
        self._check_open()

    def get_inheritable(self) -> bool:
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        pass

    def dup(self) -> NoReturn:
        raise self._network._refuse("dup() of a socket")

    def detach(self) -> NoReturn:
        raise self._network._refuse("detach() of a socket")

    # ------------------------------------------------------------------ life

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._incoming.data:
            # As TCP does: the peer learns that its last bytes were never read.
            self._outgoing.is_reset = True
        self._incoming.is_lost = self._outgoing.has_ended = True
        self._network.closed(self, self._listening)
        self._incoming.changed.change()
        self._outgoing.changed.change()
        self._closed.change()

    def shutdown(self, flag: int) -> None:
        self._check_open()
        if self._peer is None:
            raise OSError(errno.ENOTCONN, "the socket is not connected")
        if flag in (stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            self._has_shut_down = self._outgoing.has_ended = True
            self._outgoing.changed.change()
        if flag in (stdlib.SHUT_RD, stdlib.SHUT_RDWR):
            self._incoming.has_ended = True
            self._incoming.changed.change()

    async def bind(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.bind_now(address)

    def bind_now(self, address: Any) -> None:
        """Choose the socket's own address."""
        self._check_open()
        host = "0.0.0.0" if address[0] == "" else address[0]  # noqa: S104 - as the system reads it
        self._name = self._network.bind((host, int(address[1])))

    def listen(self, backlog: int = 128) -> None:
        self._check_open()
        if self._listening is None:
            self._name = self._network.bind(self._name)
            self._listening = self._network.listen(self._name, backlog)

    async def accept(self) -> Any:
        await trio.lowlevel.checkpoint()
        self._check_open()
        listening = self._listening
        if listening is None:
            raise OSError(errno.EINVAL, "the socket does not listen")
        while not listening.waiting:
            await listening.changed.wait()
            if listening.is_closed:
                raise trio.ClosedResourceError("this socket was closed")
        accepted = listening.waiting.popleft()
        listening.changed.change()
        return accepted

    async def connect(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        host, port = str(address[0]), int(address[1])
        self._network.fail(f"connect to {host}:{port}", ConnectionRefusedError, errno.ECONNREFUSED)
        if host[:1].isalpha():
            host = self._network._address(host)
        listening = self._network.find((host, port))
        # A whole backlog looks like a lost packet: the connection is tried again until a place is free.
        while listening is not None and not listening.is_closed and len(listening.waiting) >= listening.backlog:
            await listening.changed.wait()
        self._check_open()
        if listening is None or listening.is_closed:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"no listener at {host}:{port}")
        if self._name[1] == 0:
            self._name = self._network.bind(("127.0.0.1", 0))
        self._peer = (host, port)
        server = self._network.accepted(self._family)
        server._name, server._peer = self._peer, self._name
        server._incoming, server._outgoing = self._outgoing, self._incoming
        listening.waiting.append((server, self._name))
        listening.changed.change()

    # ------------------------------------------------------------------ bytes

    def is_readable(self) -> bool:
        pipe = self._incoming
        return bool(pipe.data) or pipe.has_ended or pipe.is_reset

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while len(self._outgoing.data) >= CAPACITY and not self._outgoing.is_lost:
            self._check_open()
            await self._outgoing.changed.wait()
        self._check_open()

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        await self._begin("receive")
        pipe = self._incoming
        while not self.is_readable():
            await pipe.changed.wait()
            self._check_open()
        if pipe.is_reset and not pipe.data:
            raise ConnectionResetError(errno.ECONNRESET, "the connection was reset") from pipe.cause
        received = bytes(pipe.data[:buflen])
        if not flags & stdlib.MSG_PEEK:
            del pipe.data[: len(received)]
            pipe.changed.change()
        return received

    async def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        view = memoryview(buffer).cast("B")
        received = await self.recv(nbytes or len(view), flags)
        view[: len(received)] = received
        return len(received)

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> Any:
        return await self.recv(bufsize, flags), self._peer

    async def send(self, data: Any, flags: int = 0, /) -> int:
        await self._begin("send")
        pipe = self._outgoing
        while len(pipe.data) >= CAPACITY and not pipe.is_lost and not pipe.is_reset:
            await pipe.changed.wait()
            self._check_open()
        if self._has_shut_down or pipe.is_lost or pipe.is_reset:
            raise BrokenPipeError(errno.EPIPE, "the other end is closed") from pipe.cause
        part = memoryview(data).cast("B")[: CAPACITY - len(pipe.data)]
        pipe.data += part
        pipe.changed.change()
        return len(part)

    async def _begin(self, operation: str) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._peer is None:
            raise OSError(errno.ENOTCONN, "the socket is not connected")
        try:
            self._network.fail(f"{operation} by {self.describe()}", ConnectionResetError, errno.ECONNRESET)
        except OSError as error:
            # A connection breaks in both directions.
            for pipe in (self._incoming, self._outgoing):
                pipe.is_reset, pipe.cause = True, error
                pipe.data.clear()
                pipe.changed.change()
            raise

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this socket was closed")


def _place() -> str:
    """The line of the user's program that makes a socket."""
    return user_position(chain_to_user(trio.lowlevel.current_task(), call_chain())) or "an unknown place"
