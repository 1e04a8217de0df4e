"""A server that is a program: it, and all that comes of it, is owned from the start to the end of a block.

The SDK has a transport for this too. Ours also ends what the program leaves behind when it exits by itself, tells at
once that it has died and what it last said, and has a limit for a line.
"""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import trio
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from agentloop._processes import Family, open_family
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


LAST_WORDS = 0.5
"""Seconds that a program which says nothing more gets to say why. A child of it may hold on to its stderr."""


@asynccontextmanager
async def run_program(target: Stdio, gone: Callable[[str], None]) -> AsyncGenerator[tuple[Any, Any]]:
    """Start the program; give the streams that the SDK reads and writes.

    Args:
      gone: is told, in words, that the program has ended, or does not speak or listen any more. Not if it was we who
        ended it.

    Raises:
      OSError: it cannot be started.
    """
    opening = open_family(
        [target.command, *target.args],
        env={**get_default_environment(), **(target.env or {})},
        grace=PATIENCE,
        cwd=target.cwd,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with opening as family:
        program = _Program(family, gone)
        incoming, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, to_send = anyio.create_memory_object_stream[SessionMessage](OUTBOX)
        with incoming, received, outgoing, to_send:
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


class _Program:
    def __init__(self, family: Family, gone: Callable[[str], None]) -> None:
        self._family = family
        self._gone = gone
        self._stopping = False
        self._written = trio.Event()
        self._heard = trio.Event()
        """Set when all of its stderr was read."""
        self._said: deque[str] = deque(maxlen=5)
        """The last lines of its stderr."""
        self._noise = ""
        """The first line of its output that was no message."""

    # ------------------------------------------------------------------------- speaking

    async def read(self, incoming: Any) -> None:
        """Pass on what it says, line by line; nothing of it is lost while it exits."""
        line = bytearray()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := await self._family.stdout.receive_some(65536):
                first, *others = piece.split(b"\n")
                line += first
                for other in others:
                    await self._pass_on(bytes(line), incoming)
                    line[:] = other
                if len(line) > LONGEST_LINE:
                    self._tell(f"wrote a line of more than {LONGEST_LINE} bytes")
                    incoming.close()
                    line.clear()
        await self._hear_it_out()
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
        try:
            async for message in to_send:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await self._family.stdin.send_all(text.encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # What it does not read any more, it will not answer.
            await self._hear_it_out()
            self._tell_exit("closed its input")
        finally:
            self._written.set()

    async def listen_to_errors(self) -> None:
        """Keep the end of what it writes to stderr, for the case that it dies."""
        rest = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := await self._family.stderr.receive_some(65536):
                *lines, rest = (rest + piece)[-65536:].split(b"\n")
                self._hear(lines)
        self._hear([rest])
        self._heard.set()

    async def _hear_it_out(self) -> None:
        """Wait for its exit and its last words, which come right behind, if they come: there is more to tell then."""
        with trio.move_on_after(LAST_WORDS):
            await self._family.leader_exited()
            await self._heard.wait()

    def _hear(self, lines: Iterable[bytes]) -> None:
        self._said.extend(text[:500] for line in lines if (text := line.decode(errors="replace").strip()))

    async def watch(self, incoming: Any) -> None:
        """Notice its end also where a child of it holds on to the output."""
        await self._family.leader_exited()
        # What it wrote last may still be in the pipe.
        await trio.sleep(0.2)
        self._tell_exit("exited")
        incoming.close()

    def _tell_exit(self, otherwise: str) -> None:
        code = self._family.exit_code
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
        """End the program, and what is left of it. If it can be killed, that takes three times ``patience`` at most."""
        self._stopping = True
        with trio.CancelScope(shield=True):
            with trio.move_on_after(patience / 2):
                await self._written.wait()
            # The end of its input is how a server is told to go.
            await self._family.stdin.aclose()
            with trio.move_on_after(patience):
                await self._family.leader_exited()
            await self._family.end(grace=patience)
