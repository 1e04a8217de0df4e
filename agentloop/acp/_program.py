"""The pipes to an external agent: a program whose process tree ends with a block, or a stream that a caller opens."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager, suppress

import trio
from attrs import field, frozen

from agentloop._core.redaction import redacted_arguments, secrets_of_arguments, secrets_of_fields
from agentloop._initial_environment import inherited_environment
from agentloop._program_output import ProgramOutput
from agentloop._sandbox import Confinement
from agentloop._supervised import Tree, open_supervised_tree

__all__ = ["Command", "Pipes", "StreamPipes", "open_program"]

GRACE_SECONDS = 1.0
"""Seconds for the program to exit after its input is closed, and again after SIGTERM."""
LAST_WORDS_SECONDS = 0.5
"""Seconds to wait for the exit code and the rest of stderr after the output ends."""


@frozen(kw_only=True)
class Command:
    """A program, and how it is started."""

    line: tuple[str, ...] = field(repr=lambda line: repr(redacted_arguments(line)))
    """The program and its arguments. ``repr`` and errors show none of the secrets among them."""
    folder: str
    """The folder that it starts in."""
    env: Mapping[str, str] = field(repr=False)
    """Environment variables to set. They may be keys."""
    inherit_env: Collection[str]
    """Names of variables, or patterns, that it inherits."""
    confinement: Confinement | None
    """The sandbox for it; ``None`` for none."""

    def __str__(self) -> str:
        return f"`{shlex.join(redacted_arguments(self.line))}`"

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets in its arguments and variables."""
        return frozenset(secrets_of_arguments(self.line) | secrets_of_fields(self.env))

    def environment(self) -> dict[str, str]:
        """The complete environment."""
        return {**inherited_environment(self.inherit_env), **self.env}


class Pipes:
    """The streams to and from an external agent."""

    def __init__(self, receive: trio.abc.ReceiveStream, send: trio.abc.SendStream) -> None:
        self.receive = receive
        """The agent's messages."""
        self.send = send
        """Messages to the agent."""
        self.output = ProgramOutput()
        """What the agent writes besides messages."""
        self.exited = trio.Event()
        """Set when the agent has exited, though something may hold its output open."""

    async def how_it_ended(self, otherwise: str) -> str:
        """How the agent ended, in words, or ``otherwise`` if it is not known."""
        await trio.lowlevel.checkpoint()
        return otherwise


class StreamPipes(Pipes):
    """The two directions of a stream that the caller has opened."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream, stream)


class _ProgramPipes(Pipes):
    def __init__(self, tree: Tree) -> None:
        super().__init__(tree.stdout, tree.stdin)
        self._tree = tree
        self._stderr_ended = trio.Event()

    async def read_stderr(self) -> None:
        """Remember the last lines of stderr, for errors."""
        rest = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := await self._tree.stderr.receive_some(65536):
                *lines, rest = (rest + piece)[-65536:].split(b"\n")
                self.output.add_to_stderr(lines)
                self.output.open_stderr_line = rest
        self._stderr_ended.set()

    async def watch(self) -> None:
        """Notice the exit, even if a child of the program keeps the output open."""
        await self._tree.leader_exited()
        # Its last messages may still be in the pipe.
        await trio.sleep(0.2)
        self.exited.set()

    async def how_it_ended(self, otherwise: str) -> str:
        with trio.move_on_after(LAST_WORDS_SECONDS):
            await self._tree.leader_exited()
            await self._stderr_ended.wait()
        code = self._tree.exit_code
        if code is None:
            return otherwise
        return f"exited with code {code}" if code >= 0 else f"was killed by signal {-code}"


@asynccontextmanager
async def open_program(command: Command) -> AsyncGenerator[Pipes]:
    """Start ``command``, and end it and all its descendants when the block ends.

    Raises:
      OSError: the program cannot be started.
    """
    opening = open_supervised_tree(
        command.line,
        env=command.environment(),
        grace=GRACE_SECONDS,
        cwd=command.folder,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        confinement=command.confinement,
    )
    async with opening as tree, trio.open_nursery() as nursery:
        pipes = _ProgramPipes(tree)
        nursery.start_soon(pipes.read_stderr)
        nursery.start_soon(pipes.watch)
        try:
            yield pipes
        finally:
            with trio.CancelScope(shield=True):
                # A program that reads its input ends when that ends.
                await tree.stdin.aclose()
                with trio.move_on_after(GRACE_SECONDS):
                    await tree.leader_exited()
                await tree.end()
            nursery.cancel_scope.cancel()
