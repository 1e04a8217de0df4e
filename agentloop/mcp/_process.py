"""A server that is a program: its process group is owned from the start to the end of a block.

The SDK has a transport for this too. Ours also ends what the program leaves behind when it exits by itself, tells at
once that it has died and what it last said, and has a limit for a line.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import trio
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from agentloop.mcp._sdk import types
from agentloop.mcp.server import Stdio

__all__ = ["run_program"]

LONGEST_LINE = 64 * 1024 * 1024
"""Bytes of one message. A server that never ends its line would else fill the memory."""

OUTBOX = 256
"""Messages to the server before their senders wait. A cancelled call tells the server so even if that does not read:
it must not wait for it."""

PATIENCE = 1.0
"""Seconds that a program gets to exit after its input was closed, and again after it was asked to terminate."""

CHECK_AGAIN = 0.01
"""Seconds between two looks at a process group, which nothing tells us about."""


@asynccontextmanager
async def run_program(target: Stdio, gone: Callable[[str], None]) -> AsyncGenerator[tuple[Any, Any]]:
    """Start the program; give the streams that the SDK reads and writes.

    Args:
      gone: is told, in words, that the program has ended, or does not speak or listen any more. Not if it was we who
        ended it.

    Raises:
      OSError: it cannot be started.
    """
    process = await trio.lowlevel.open_process(
        [target.command, *target.args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=target.cwd,
        env={**get_default_environment(), **(target.env or {})},
        start_new_session=True,
    )
    # No checkpoint from here to the `try`: a cancel would leave the program running.
    program = _Program(process, gone)
    incoming, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, to_send = anyio.create_memory_object_stream[SessionMessage](OUTBOX)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program.read, incoming)
            nursery.start_soon(program.write, to_send)
            nursery.start_soon(program.listen_to_errors)
            nursery.start_soon(program.watch, incoming)
            in_order = False
            try:
                yield received, outgoing
                in_order = True
            finally:
                # From both ends: the writer has nothing more to write, and the reader nobody to tell.
                outgoing.close()
                received.close()
                await program.stop(PATIENCE if in_order else PATIENCE / 4)  # noqa: ASYNC102 - it shields itself
                nursery.cancel_scope.cancel()
    finally:
        for stream in (incoming, received, outgoing, to_send):
            stream.close()


class _Program:
    def __init__(self, process: trio.Process, gone: Callable[[str], None]) -> None:
        self._process = process
        self._gone = gone
        self._stopping = False
        self._written = trio.Event()
        self._said: deque[str] = deque(maxlen=5)
        """The last lines of its stderr."""
        self._noise = ""
        """The first line of its output that was no message."""

    # ------------------------------------------------------------------------- speaking

    async def read(self, incoming: Any) -> None:
        """Pass on what it says, line by line; nothing of it is lost while it exits."""
        assert self._process.stdout is not None
        line = bytearray()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := await self._process.stdout.receive_some(65536):
                first, *others = piece.split(b"\n")
                line += first
                for other in others:
                    await self._pass_on(bytes(line), incoming)
                    line[:] = other
                if len(line) > LONGEST_LINE:
                    self._tell(f"wrote a line of more than {LONGEST_LINE} bytes")
                    incoming.close()
                    line.clear()
        # The exit comes right behind; with it there is more to tell.
        with trio.move_on_after(0.2):
            await self._process.wait()
        self._tell_exit("closed its output")
        incoming.close()

    async def _pass_on(self, line: bytes, incoming: Any) -> None:
        if not line.strip() or self._stopping:
            return
        try:
            message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            # A banner, a print for debugging: the server works all the same, or it will not answer.
            self._noise = self._noise or line[:200].decode(errors="replace")
            return
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await incoming.send(SessionMessage(message))

    async def write(self, to_send: Any) -> None:
        assert self._process.stdin is not None
        try:
            async for message in to_send:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await self._process.stdin.send_all(text.encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # What it does not read any more, it will not answer. If it is dying, `read` knows more.
            with trio.move_on_after(0.2):
                await self._process.wait()
            self._tell_exit("closed its input")
        finally:
            self._written.set()

    async def listen_to_errors(self) -> None:
        """Keep the end of what it writes to stderr, for the case that it dies."""
        assert self._process.stderr is not None
        rest = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := await self._process.stderr.receive_some(65536):
                *lines, rest = (rest + piece)[-65536:].split(b"\n")
                self._hear(lines)
        self._hear([rest])

    def _hear(self, lines: Iterable[bytes]) -> None:
        self._said.extend(text[:500] for line in lines if (text := line.decode(errors="replace").strip()))

    async def watch(self, incoming: Any) -> None:
        """Notice its end also where a child of it holds on to the output."""
        await self._process.wait()
        # What it wrote last may still be in the pipe.
        await trio.sleep(0.2)
        self._tell_exit("exited")
        incoming.close()

    def _tell_exit(self, otherwise: str) -> None:
        code = self._process.returncode
        if code is None:
            self._tell(otherwise)
        elif code < 0:
            self._tell(f"was killed by signal {-code}")
        else:
            self._tell(f"exited with code {code}")

    def _tell(self, what: str) -> None:
        if self._stopping:
            return
        # The first reason is the true one.
        self._stopping = True
        if self._noise:
            what += f"; its output began with {self._noise!r}, which is no message"
        if self._said:
            what += f"; its last words: {' / '.join(self._said)}"
        self._gone(what)

    # ------------------------------------------------------------------------- the end

    async def stop(self, patience: float) -> None:
        """End the program, and what is left of its process group. Takes about three times ``patience`` at most."""
        self._stopping = True
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with trio.CancelScope(shield=True):
            with trio.move_on_after(patience / 2):
                await self._written.wait()
            await process.stdin.aclose()
            with trio.move_on_after(patience):
                await process.wait()
            if not self._is_gone():
                self._signal(signal.SIGTERM)
                await self._wait_until_gone(patience if process.poll() is None else patience / 2)
            if not self._is_gone():
                self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
                # Of its children, which nobody may be waiting for, something can be left in the table of processes.
                await self._wait_until_gone(patience if process.poll() is None else patience / 5)
            await process.stdout.aclose()
            await process.stderr.aclose()

    async def _wait_until_gone(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._process.wait()
            while not self._is_gone():  # noqa: ASYNC110 - nothing tells us
                await trio.sleep(CHECK_AGAIN)

    def _is_gone(self) -> bool:
        """Whether nothing of the process group is left."""
        if self._process.poll() is None:
            return False
        if not hasattr(os, "killpg"):
            return True
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            # Of the group's members none is ours to end: what is left has changed its user.
            return True
        return False

    def _signal(self, number: int) -> None:
        # A process that has ended, but that nobody has waited for, still stands for its group.
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
