"""The standard streams of this process, for protocols whose messages are lines of JSON."""

from __future__ import annotations

import os
import sys

import trio

from agentloop.serving._errors import Refusal

__all__ = ["LINE_BYTES", "STOP_SECONDS", "Lines", "standard_streams"]

LINE_BYTES = 20_000_000
"""The longest message of a client. A picture is in one."""

STOP_SECONDS = 3.0
"""Seconds that runs have to stop and to be saved after the client has gone."""


def standard_streams() -> tuple[trio.abc.ReceiveStream, trio.abc.SendStream]:
    """The standard input and output of this process, for messages alone.

    What tools print goes to standard error from now on, and programs that they start read nothing.
    """
    sys.stdout.flush()
    reader, writer = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return _Pipe(reader), _Pipe(writer)


class _Pipe(trio.abc.ReceiveStream, trio.abc.SendStream):
    """One of the standard streams, which threads read and write.

    It may be a pipe, a file or a terminal, on any system, and other processes may share it, so it must stay blocking.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await trio.to_thread.run_sync(os.read, self._number, max_bytes or 65536, abandon_on_cancel=True)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.to_thread.run_sync(self._write, bytes(data), abandon_on_cancel=True)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._number, data) :]

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        # A thread may still read it; the process ends next.
        await trio.lowlevel.checkpoint()


class Lines:
    """Cuts the bytes of a stream into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def add(self, data: bytes | bytearray) -> list[bytes]:
        """The lines that ``data`` completes, without the empty ones. Raises `Refusal`, if one has no end."""
        self._rest += data
        lines: list[bytes] = []
        if b"\n" in data:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
        if len(self._rest) > LINE_BYTES:
            raise Refusal(413, f"a message has more than {LINE_BYTES:,} bytes")
        return [line for line in lines if line.strip()]
