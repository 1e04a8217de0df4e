"""The transport to a server that is a program, whose process tree lives exactly as long as a block.

The SDK has a transport for this too. This one also ends processes that the program leaves behind when it exits by
itself, reports its death at once with the last lines of its stderr, and limits the length of a line.
"""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import mcp_types as types
import trio
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from agentloop._process_tree import ProcessTree, open_process_tree
from agentloop.mcp._config import Stdio

__all__ = ["run_program"]

MAX_LINE = 64 * 1024 * 1024
"""Bytes of one message. Without a limit, a server that never ends its line would fill the memory."""

SEND_QUEUE = 256
"""Messages to the server before senders wait. A cancelled call sends a notification, and must not wait for a server
that does not read."""

GRACE_SECONDS = 1.0
"""Seconds for the program to exit after its input is closed, and again after SIGTERM."""

STDERR_SECONDS = 0.5
"""Seconds to wait for the exit code and the rest of stderr after the output ends. A child of the program may hold its
stderr open for longer."""


@asynccontextmanager
async def run_program(target: Stdio, on_failure: Callable[[str], None]) -> AsyncGenerator[tuple[Any, Any]]:
    """Start the program, and yield the streams that the SDK reads and writes.

    Args:
      target: the program.
      on_failure: called with a description once the program has ended, or closed its input or output. Not called when
        the end of the block stops the program.

    Raises:
      OSError: the program cannot be started.
    """
    opening = open_process_tree(
        [target.command, *target.args],
        env={**get_default_environment(), **(target.env or {})},
        grace=GRACE_SECONDS,
        cwd=target.cwd,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with opening as tree:
        program = _Program(tree, on_failure)
        incoming, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, queued = anyio.create_memory_object_stream[SessionMessage](SEND_QUEUE)
        with incoming, received, outgoing, queued:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(program.read, incoming)
                nursery.start_soon(program.write, queued)
                nursery.start_soon(program.read_stderr)
                nursery.start_soon(program.watch, incoming)
                is_orderly = False
                try:
                    yield received, outgoing
                    is_orderly = True
                finally:
                    # Close both ends: `write` finishes the queue, and `read` fails instead of waiting for the SDK.
                    outgoing.close()
                    received.close()
                    await program.stop(GRACE_SECONDS if is_orderly else GRACE_SECONDS / 4)  # noqa: ASYNC102 - shields itself
                    nursery.cancel_scope.cancel()


class _Program:
    def __init__(self, tree: ProcessTree, on_failure: Callable[[str], None]) -> None:
        self._tree = tree
        self._on_failure = on_failure
        self._stopping = False
        self._written = trio.Event()
        self._stderr_ended = trio.Event()
        """Set when all of stderr has been read."""
        self._stderr_lines: deque[str] = deque(maxlen=5)
        """The last lines of stderr."""
        self._noise = ""
        """The first line of the output that was not a message."""

    # ------------------------------------------------------------------------- messages

    async def read(self, incoming: Any) -> None:
        """Parse the output line by line and pass the messages to the SDK, up to the last one before the exit."""
        line = bytearray()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := await self._tree.stdout.receive_some(65536):
                first, *rest = piece.split(b"\n")
                line += first
                for start in rest:
                    await self._pass_on(bytes(line), incoming)
                    line[:] = start
                if len(line) > MAX_LINE:
                    self._report(f"wrote a line of more than {MAX_LINE} bytes")
                    incoming.close()
                    line.clear()
        await self._wait_for_exit()
        self._report_exit("closed its output")
        incoming.close()

    async def _pass_on(self, line: bytes, incoming: Any) -> None:
        if not line.strip() or self._stopping:
            return
        try:
            message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            # A banner, or a print for debugging. The server may work in spite of it.
            self._noise = self._noise or line[:200].decode(errors="replace")
            return
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await incoming.send(SessionMessage(message))

    async def write(self, queued: Any) -> None:
        try:
            async for message in queued:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await self._tree.stdin.send_all(text.encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # A server that does not read its input will not answer.
            await self._wait_for_exit()
            self._report_exit("closed its input")
        finally:
            self._written.set()

    async def read_stderr(self) -> None:
        """Remember the last lines of stderr, for the error if the program dies."""
        rest = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := await self._tree.stderr.receive_some(65536):
                *lines, rest = (rest + piece)[-65536:].split(b"\n")
                self._remember(lines)
        self._remember([rest])
        self._stderr_ended.set()

    async def _wait_for_exit(self) -> None:
        """Wait briefly for the exit code and the end of stderr, which make a better error."""
        with trio.move_on_after(STDERR_SECONDS):
            await self._tree.leader_exited()
            await self._stderr_ended.wait()

    def _remember(self, lines: Iterable[bytes]) -> None:
        self._stderr_lines.extend(text[:500] for line in lines if (text := line.decode(errors="replace").strip()))

    async def watch(self, incoming: Any) -> None:
        """Report the program's exit even if a child of it keeps the output open."""
        await self._tree.leader_exited()
        # Its last messages may still be in the pipe.
        await trio.sleep(0.2)
        self._report_exit("exited")
        incoming.close()

    def _report_exit(self, otherwise: str) -> None:
        code = self._tree.exit_code
        if code is None:
            self._report(otherwise)
        elif code < 0:
            self._report(f"was killed by signal {-code}")
        else:
            self._report(f"exited with code {code}")

    def _report(self, problem: str) -> None:
        if self._stopping:
            return
        # Only the first problem is reported: later ones follow from it.
        self._stopping = True
        if self._noise:
            problem += f"; its output began with {self._noise!r}, which is not a message"
        if self._stderr_lines:
            problem += f"; its stderr ended with: {' / '.join(self._stderr_lines)}"
        self._on_failure(problem)

    # ------------------------------------------------------------------------- the end

    async def stop(self, grace: float) -> None:
        """End the process tree. Takes at most three times ``grace`` seconds, if the system can kill it."""
        self._stopping = True
        with trio.CancelScope(shield=True):
            with trio.move_on_after(grace / 2):
                await self._written.wait()
            # The protocol: a client ends a server over stdio by closing its input.
            await self._tree.stdin.aclose()
            with trio.move_on_after(grace):
                await self._tree.leader_exited()
            await self._tree.end(grace=grace)
