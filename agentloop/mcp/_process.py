"""The transport to a server that is a program, whose process tree lives exactly as long as a block.

The SDK has a transport for this too. This one also ends processes that the program leaves behind when it exits by
itself, reports its death at once with the last lines of its stderr, and limits the length of a line.
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import mcp_types as types
import trio
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from agentloop._program_output import ProgramOutput
from agentloop._supervised import Tree, open_supervised_tree
from agentloop.mcp._config import Stdio
from agentloop.mcp._lines import JoinedLines, read_line

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
async def run_program(
    target: Stdio, output: ProgramOutput, on_failure: Callable[[str], None]
) -> AsyncGenerator[tuple[Any, Any]]:
    """Start the program, and yield the streams that the SDK reads and writes.

    Args:
      target: the program.
      output: collects what the program writes besides messages.
      on_failure: called with a description once the program has ended, or closed its input or output. Not called when
        the end of the block stops the program.

    Raises:
      OSError: the program cannot be started.
    """
    opening = open_supervised_tree(
        [target.command, *target.args],
        env={**get_default_environment(), **(target.env or {})},
        grace=GRACE_SECONDS,
        cwd=target.cwd,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        confinement=target.confinement,
    )
    async with opening as tree:
        program = _Program(tree, output, on_failure)
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
    def __init__(self, tree: Tree, output: ProgramOutput, on_failure: Callable[[str], None]) -> None:
        self._tree = tree
        self._output = output
        self._on_failure = on_failure
        self._stopping = False
        self._joined = JoinedLines(MAX_LINE)
        self._written = trio.Event()
        self._stderr_ended = trio.Event()
        """Set when all of stderr has been read."""
        self._pending: dict[str | int, None] = {}
        """The ids of the requests that the program has not answered, oldest first."""
        self._has_read = trio.Event()
        """Set when the program has read a message."""
        self._is_behind: Callable[[], bool] = lambda: False
        """Whether many messages wait for the program to read them."""

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
                self._output.open_line = bytes(line[:200])
                if len(line) > MAX_LINE:
                    self._report(f"wrote a line of more than {MAX_LINE} bytes")
                    incoming.close()
                    line.clear()
        await self._wait_for_exit()
        self._report_exit("closed its output")
        incoming.close()

    async def _pass_on(self, line: bytes, incoming: Any) -> None:
        joined = self._joined.add(line)
        if joined is None or not joined.strip() or self._stopping:
            return
        line = joined
        messages = read_line(line, self._pending)
        if not messages:
            # A banner, or a print for debugging. The server may work in spite of it.
            self._output.noise = self._output.noise or line[:200].decode(errors="replace")
        for message in messages:
            while isinstance(message, types.JSONRPCRequest) and self._is_behind() and not self._stopping:
                # The answers to a server that does not read them would leave no room for other messages.
                await self._has_read.wait()
            if isinstance(message, (types.JSONRPCResponse, types.JSONRPCError)) and message.id is not None:
                self._pending.pop(message.id, None)
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await incoming.send(SessionMessage(message))

    async def write(self, queued: Any) -> None:
        """Write the messages of the queue."""
        self._is_behind = lambda: queued.statistics().current_buffer_used > SEND_QUEUE // 2
        try:
            async for message in queued:
                sent = message.message
                if isinstance(sent, types.JSONRPCRequest):
                    self._pending[sent.id] = None
                elif isinstance(sent, types.JSONRPCNotification) and sent.method == "notifications/cancelled":
                    self._pending.pop((sent.params or {}).get("requestId", ""), None)
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await self._tree.stdin.send_all(text.encode() + b"\n")
                self._has_read.set()
                self._has_read = trio.Event()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # A server that does not read its input will not answer.
            await self._wait_for_exit()
            self._report_exit("closed its input")
        finally:
            self._written.set()
            self._is_behind = lambda: False
            self._has_read.set()

    async def read_stderr(self) -> None:
        """Remember the last lines of stderr, for the error if the program dies."""
        rest = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := await self._tree.stderr.receive_some(65536):
                *lines, rest = (rest + piece)[-65536:].split(b"\n")
                self._output.add_to_stderr(lines)
                self._output.open_stderr_line = rest
        self._stderr_ended.set()

    async def _wait_for_exit(self) -> None:
        """Wait briefly for the exit code and the end of stderr, which make a better error."""
        with trio.move_on_after(STDERR_SECONDS):
            await self._tree.leader_exited()
            await self._stderr_ended.wait()

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
        self._on_failure(f"{problem}{self._output}")

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
