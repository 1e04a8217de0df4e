"""A process and all that comes of it: how it is ended, whatever stands in the way. Its users have their own tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import _process_tree
from agentloop._process_tree import ProcessTree, open_process_tree, signal_name, start_process_tree
from tests.toolkit.builders import gone, open_descriptors, pids_in

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

STUBBORN = "trap '' TERM; echo $$; exec sleep 1000"
HERE = {"PATH": os.environ["PATH"]}


def tree(command: str | list[str], **options: Any) -> Any:
    return open_process_tree(command, **{"env": HERE, "grace": 0.2, **options})


async def line(tree: ProcessTree) -> int:
    """The number that the program writes first, as a line."""
    told = b""
    while not told.endswith(b"\n"):
        told += await tree.stdout.receive_some()
    return int(told)


def state(pid: int) -> str:
    stat = Path(f"/proc/{pid}/stat")
    return stat.read_text().rpartition(") ")[2][0] if stat.exists() else ""


# -------------------------------------------------------------------------------- the leader


async def test_what_has_exited_is_told_without_being_reaped_until_its_family_is_ended() -> None:
    """Its number is that of the group, which somebody else could get."""
    async with tree("exit 3") as process:
        await process.leader_exited()
        await process.leader_exited()
        assert (process.exit_code, state(process.pid)) == (3, "Z")
        assert await process.end() == 3
        assert state(process.pid) == ""
        await process.leader_exited()
        assert process.exit_code == 3


async def test_the_exit_code_of_what_was_killed_is_the_signal() -> None:
    async with tree("kill -TERM $$") as process:
        await process.leader_exited()
        assert process.exit_code == await process.end() == -signal.SIGTERM


async def test_several_tasks_may_wait_for_it_and_end_it() -> None:
    """Whoever comes second has the same promise: that nothing is left."""
    codes: list[int | None] = []

    async def wait(process: ProcessTree) -> None:
        await process.leader_exited()
        codes.append(process.exit_code)

    async def end(process: ProcessTree) -> None:
        codes.append(await process.end())
        assert gone(process.pid)

    async with tree(f"({STUBBORN}) & wait") as process, trio.open_nursery() as nursery:
        await line(process)
        for each in (wait, wait, end, end):
            nursery.start_soon(each, process)

    assert codes == [-signal.SIGTERM] * 4


# ----------------------------------------------------------------------------- the others


async def test_a_job_in_a_group_of_its_own_ends_with_the_session() -> None:
    program = "import subprocess; print(subprocess.Popen(['sleep', '1000'], process_group=0).pid)"
    async with tree([sys.executable, "-c", program]) as process:
        job = await line(process)
        assert os.getpgid(job) == job != process.pid
        await process.leader_exited()

    assert gone(job)
    assert process.leftovers == 1


@pytest.mark.parametrize("command", [f"({STUBBORN}) &", f"({STUBBORN}) & wait"], ids=["exited", "asked"])
async def test_what_outlives_the_leader_has_a_grace_of_its_own(command: str) -> None:
    began = trio.current_time()

    async with tree(command, grace=10, grace_after=0) as process:
        await line(process)

    assert trio.current_time() - began < 5
    assert gone(process.pid)


async def test_the_grace_may_be_another_when_it_ends() -> None:
    began = trio.current_time()

    async with tree(STUBBORN, grace=10) as process:
        await line(process)
        assert await process.end(grace=0.1) == -signal.SIGKILL

    assert 0.1 <= trio.current_time() - began < 5


# -------------------------------------------------------------------------- what is in the way


async def test_it_is_killed_also_if_it_cannot_be_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read the environment of a process that hangs in the kernel can take for ever."""
    monkeypatch.setattr(_process_tree, "KILL_SECONDS", 0.2)
    read = threading.Event()
    monkeypatch.setattr(ProcessTree, "_scan_proc", lambda tree, number: read.wait(20))
    try:
        with trio.fail_after(5):
            async with tree(STUBBORN) as process:
                await line(process)
                assert await process.end() == -signal.SIGKILL
    finally:
        read.set()


async def test_a_daemon_in_the_middle_of_execve_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment is empty for a moment."""
    seen: set[str] = set()
    read = _process_tree._read

    def read_in_execve(path: str) -> bytes:
        data = read(path)
        if path.endswith("/environ") and _process_tree.MARK.encode() in data and path not in seen:
            seen.add(path)
            return b""
        return data

    monkeypatch.setattr(_process_tree, "_read", read_in_execve)
    async with tree("setsid sh -c 'echo $$; exec sleep 1000' &") as process:
        daemon = await line(process)

    assert gone(daemon)
    assert f"/proc/{daemon}/environ" in {path.replace("//", "/") for path in seen}


async def test_nobody_is_looking_any_more_when_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that was left to itself in mid-look has files open for a moment, and may reap what is not its own."""
    looking: list[int] = []
    look = ProcessTree._scan_proc

    def slowly(tree: ProcessTree, number: int) -> int:
        looking.append(number)
        time.sleep(0.05)
        found = look(tree, number)
        looking.remove(number)
        return found

    monkeypatch.setattr(ProcessTree, "_scan_proc", slowly)
    async with tree(STUBBORN, grace=0.01) as process:
        await line(process)

    assert looking == []
    assert process.exit_code == -signal.SIGKILL


async def test_it_is_ended_also_if_all_threads_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_process_tree, "KILL_SECONDS", 0.5)
    threads = trio.to_thread.current_default_thread_limiter()
    async with tree("setsid sh -c 'echo $$; exec sleep 1000' & exec sleep 1000") as process:
        daemon = await line(process)
        busy = [object() for _ in range(int(threads.available_tokens))]
        for each in busy:
            threads.acquire_on_behalf_of_nowait(each)
        try:
            assert await process.end() == -signal.SIGTERM
        finally:
            for each in busy:
                threads.release_on_behalf_of(each)

    assert gone(daemon, process.pid)


async def test_a_cancelled_task_ends_it_in_order() -> None:
    with trio.CancelScope() as scope:
        async with tree("trap 'echo bye; exit 7' TERM; echo 1; while :; do sleep 0.01; done", grace=5) as process:
            await line(process)
            scope.cancel()

    assert process.exit_code == 7
    assert gone(process.pid)


@pytest.mark.parametrize("after", range(6))
async def test_nothing_is_left_at_whatever_checkpoint_it_is_cancelled(tmp_path: Path, after: int) -> None:
    before = open_descriptors()
    pids = tmp_path / "pids"

    with trio.CancelScope() as scope:
        if after == 0:
            scope.cancel()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel() -> None:
                for _ in range(after):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            async with tree(f"echo $$ >> {pids}; exec sleep 1000", stdin=subprocess.PIPE, stderr=subprocess.PIPE):
                await trio.sleep_forever()

    assert scope.cancelled_caught
    assert not pids_in(pids) or gone(*pids_in(pids))
    assert open_descriptors() == before


# ------------------------------------------------------------------------------- the start


@pytest.mark.parametrize(
    ("start", "problem"),
    [
        (partial(start_process_tree, ["/nowhere/program"]), "/nowhere/program"),
        (partial(start_process_tree, ["/etc/passwd"]), "Permission denied"),
        (partial(start_process_tree, ["true"], cwd="/nowhere"), "/nowhere"),
        (partial(start_process_tree, ["echo", "\0"]), "not a possible command line: embedded null byte"),
        (partial(start_process_tree, ["echo", "\ud800"]), "not a possible command line: .*surrogates"),
    ],
    ids=["program", "permission", "folder", "nul", "surrogate"],
)
async def test_what_cannot_be_started_is_one_kind_of_error_and_leaves_nothing(
    start: Callable[..., Any], problem: str
) -> None:
    before = open_descriptors()

    with pytest.raises(OSError, match=problem):
        await start(env=HERE, grace=0, stdin=subprocess.PIPE)

    assert open_descriptors() == before


# ---------------------------------------------------------------------------- other systems


async def test_without_proc_the_group_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_process_tree, "has_proc", lambda: False)

    with trio.fail_after(4):  # less than `KILL_SECONDS`: a zombie is not waited for
        async with tree(STUBBORN) as process:
            await line(process)

    assert process.exit_code == -signal.SIGKILL
    assert gone(process.pid)


async def test_without_groups_the_process_itself_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_process_tree, "has_proc", lambda: False)
    monkeypatch.delattr(os, "killpg")

    async with tree(STUBBORN) as process:
        await line(process)

    assert process.exit_code == -signal.SIGKILL


def test_a_signal_has_a_name_or_a_number() -> None:
    assert [signal_name(9), signal_name(99)] == ["SIGKILL", "signal 99"]
