"""Programs under the supervisor: how they start, or do not."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from agentloop._supervised import SupervisedTree, open_supervised_tree

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(sys.platform != "linux", reason="there is no supervisor elsewhere"),
]


async def output_of(command: list[str], env: dict[str, str], cwd: Path) -> str:
    async with open_supervised_tree(command, env=env, grace=0, cwd=cwd) as tree:
        assert isinstance(tree, SupervisedTree)
        with trio.fail_after(20):
            return b"".join([bytes(piece) async for piece in tree.stdout]).decode()


async def test_a_program_is_found_on_the_path_of_its_own_environment(tmp_path: Path) -> None:
    program = tmp_path / "greet"
    program.write_text("#!/bin/sh\necho hello $1\n")
    program.chmod(0o755)

    assert await output_of(["greet", "you"], {"PATH": f"/nowhere:{tmp_path}"}, tmp_path) == "hello you\n"
    assert await output_of(["./greet", "us"], {}, tmp_path) == "hello us\n"


@pytest.mark.parametrize(
    ("command", "number"),
    [
        (["missing"], errno.ENOENT),
        (["./missing"], errno.ENOENT),
        (["locked"], errno.EACCES),
        (["./text"], errno.ENOEXEC),
        (["sh", "a\0b"], errno.EINVAL),
        (["sh", "\ud800"], errno.EINVAL),
    ],
    ids=["name", "path", "permission", "format", "nul", "surrogate"],
)
async def test_a_program_that_cannot_be_started_is_an_error(tmp_path: Path, command: list[str], number: int) -> None:
    (tmp_path / "locked").write_text("#!/bin/sh\n")
    (tmp_path / "text").write_bytes(b"\x00nothing that runs")
    (tmp_path / "text").chmod(0o755)

    with pytest.raises(OSError) as caught:
        await output_of(command, {"PATH": str(tmp_path)}, tmp_path)

    assert caught.value.errno == number


@pytest.mark.parametrize("name", ["", "A=B"])
async def test_a_variable_that_no_environment_can_have_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="not a possible environment"):
        await output_of(["/bin/true"], {name: "1"}, tmp_path)


async def test_a_program_has_its_input_its_output_and_its_error_output_apart(tmp_path: Path) -> None:
    opening = open_supervised_tree(
        ["/bin/sh", "-c", "read line; echo out $line; echo err $line >&2; exit 7"],
        env={},
        grace=0,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with opening as tree:
        with trio.fail_after(20):
            await tree.stdin.send_all(b"hello\n")
            assert b"".join([bytes(piece) async for piece in tree.stdout]) == b"out hello\n"
            assert b"".join([bytes(piece) async for piece in tree.stderr]) == b"err hello\n"
            await tree.leader_exited()
            assert tree.exit_code == 7


async def test_the_supervisor_sleeps_while_its_program_runs(tmp_path: Path) -> None:
    async with open_supervised_tree(["/bin/sleep", "1000"], env={}, grace=0, cwd=tmp_path) as tree:
        assert isinstance(tree, SupervisedTree)
        status = Path(f"/proc/{tree._supervisor.pid}/status")

        def switches() -> int:
            line = next(line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt_switches"))
            return int(line.split()[1])

        with trio.fail_after(20):
            before = -1
            while before != switches():
                before = switches()
                await trio.sleep(0.05)
        await trio.sleep(0.3)
        assert switches() == before
