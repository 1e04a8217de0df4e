"""Run the program of a hook: input as JSON, then its exit code and outputs as the verdict."""

from __future__ import annotations

import codecs
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, cast

import msgspec
import trio
from attrs import frozen

from agentloop._process_tree import SIGKILL, open_process_tree, signal_name
from agentloop._sandbox import Confinement, confined
from agentloop.command_hooks._input import event_name, told
from agentloop.command_hooks._output import Answer, CommandFailedError, denies, read, verdict
from agentloop.errors import UsageError
from agentloop.hooks import HookWarning, Point

__all__ = ["GRACE", "MAX_BYTES", "CommandFailedError", "Path", "Program", "checked"]

GRACE = 2.0
"""Seconds that a program gets to end by itself, once it is not wanted any more, before it is killed."""
MAX_BYTES = 1_000_000
"""How much of each of its outputs is read; the rest is thrown away."""
LAST_WORDS = 1.0
"""Seconds to read the rest of the output once a program has exited. A process that escaped may hold the pipe open."""
MAX_REASON = 10_000
"""Characters of standard error that errors and warnings quote."""

Path: TypeAlias = str | os.PathLike[str]


def checked(command: object) -> str | tuple[str, ...]:
    """``command``, if it is one.

    Raises:
      UsageError: it is none.
    """
    if isinstance(command, str) and command.strip():
        return command
    if isinstance(command, Sequence) and not isinstance(command, (str, bytes)):
        several = tuple(cast("Sequence[object]", command))
        if several and all(isinstance(part, (str, os.PathLike)) for part in several):
            return tuple(os.fspath(cast("Path", part)) for part in several)
    raise UsageError(f"a command is a line for the shell, or a list of a program and its arguments, not {command!r}")


class _Spoken:
    """The beginning of one output of a program, up to a bound."""

    __slots__ = ("data", "too_long")

    def __init__(self) -> None:
        self.data = bytearray()
        self.too_long = False

    async def listen(self, pipe: trio.abc.ReceiveStream) -> None:
        # Read to the end, also beyond the bound: otherwise the program would block on a full pipe.
        while piece := await pipe.receive_some():
            room = MAX_BYTES - len(self.data)
            self.data += piece[:room]
            self.too_long = self.too_long or len(piece) > room

    @property
    def text(self) -> str:
        # PowerShell writes UTF-16 with a byte order mark.
        is_utf_16 = self.data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return self.data.decode("utf-16" if is_utf_16 else "utf-8-sig", "replace")


@frozen
class Program:
    """A program, with its working directory and environment."""

    command: str | tuple[str, ...]
    cwd: Path | None
    env: dict[str, str]
    fail_closed: bool
    confinement: Confinement | None = None
    """The sandbox that it runs in."""

    @property
    def name(self) -> str:
        """The default name of a hook that runs this program."""
        return self.command if isinstance(self.command, str) else " ".join(self.command)

    def at(self, point: Point[Any, Any]) -> Callable[[Any], Any]:
        """The function of a hook at ``point``."""

        async def hook(value: Any) -> Any:
            return await self._ask(point, value)

        return hook

    async def _ask(self, point: Point[Any, Any], value: Any) -> Any:
        code, out, said = await self._run(msgspec.json.encode(self.message(point, value)) + b"\n")
        reason = said.text.strip()[:MAX_REASON]
        if code == 2:
            return verdict(point, value, self.refusal(point, reason))
        if code != 0:
            problem = _exit(code) + (f": {reason}" if reason else "")
            if self.fail_closed or _has_not_run(code) or denies(out.text) or self._is_sandbox_broken(reason):
                raise CommandFailedError(problem)
            raise HookWarning(problem)
        if out.too_long:
            raise CommandFailedError(f"it wrote more than {MAX_BYTES} bytes")
        try:
            return verdict(point, value, self.answer(point, value, out.text))
        except HookWarning as warning:
            if self.fail_closed:
                raise CommandFailedError(str(warning)) from warning
            raise

    def _is_sandbox_broken(self, reason: str) -> bool:
        """Whether it was bubblewrap that failed, so that the program has not run."""
        return self.confinement is not None and reason.startswith("bwrap: ")

    # What another host's programs read and write differently is in these three.

    def message(self, point: Point[Any, Any], value: Any) -> dict[str, Any]:
        """The input of the program, for JSON."""
        return {
            "session_id": value.source.session,
            "stream_id": value.source.stream,
            "agent_name": value.source.agents[-1],
            "cwd": self._folder(),
            "hook_event_name": event_name(point.name),
            **told(value),
        }

    def answer(self, point: Point[Any, Any], value: Any, text: str) -> Answer:
        """The answer that the program wrote, before it exited with 0. Raises as `read`."""
        return read(point, text)

    def refusal(self, point: Point[Any, Any], reason: str) -> Answer:
        """The answer of a program that exited with 2."""
        return Answer("block", reason)

    def _folder(self) -> str:
        return os.path.abspath(self.cwd or os.curdir)  # noqa: PTH100  # no file is looked at

    async def _run(self, data: bytes) -> tuple[int, _Spoken, _Spoken]:
        """Run the program to its end, and end all processes that it started.

        Returns:
          The exit code, negative for a signal, and the two outputs, up to `MAX_BYTES` each.

        Raises:
          OSError: the program cannot be started.
        """
        env = {**os.environ, "CLAUDE_PROJECT_DIR": self._folder(), **self.env}
        out, said = _Spoken(), _Spoken()
        with confined(self.confinement, self.command, env) as (command, descriptors):
            opening = open_process_tree(
                command,
                env=env,
                grace=GRACE,
                # A process that the program left behind would hold the pipes open.
                grace_after=0.0,
                cwd=self.cwd,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=descriptors,
            )
            async with opening as tree, trio.open_nursery() as nursery:
                nursery.start_soon(_feed, tree.stdin, data)
                nursery.start_soon(out.listen, tree.stdout)
                nursery.start_soon(said.listen, tree.stderr)
                await tree.leader_exited()
                code = await tree.end()
                nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS
        return -SIGKILL if code is None else code, out, said


async def _feed(pipe: trio.abc.SendStream, data: bytes) -> None:
    # A program that does not read to the end does not want to.
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await pipe.send_all(data)
    await pipe.aclose()


NOT_STARTED = frozenset({126, 127} if os.name == "posix" else {126, 127, 9009})
"""Exit codes of shells, of ``env`` and of others that start a program: it is not there, or cannot be executed."""
KILLED = range(129, 193)
"""Exit codes of shells: 128, and the number of the signal that ended the program."""
CRASHED = 0x8000_0000
"""Exit codes from here on are Windows': an exception, such as an access violation, ended the program."""


def _has_not_run(code: int) -> bool:
    """Whether the program was not there, or did not come to its end. Such a guard must not let pass."""
    return code < 0 or code in NOT_STARTED or code in KILLED or code >= CRASHED


def _exit(code: int) -> str:
    if code < 0:
        return f"it was ended by {signal_name(-code)}"
    if code in NOT_STARTED:
        return f"it exited with code {code}, as if its program could not be started"
    if code in KILLED:
        return f"it exited with code {code}, as if ended by {signal_name(code - 128)}"
    return f"it exited with code {code}"
