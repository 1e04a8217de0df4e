"""Processes that die in the middle of it, and processes that are in each other's way."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop.stores import SQLiteStore
from tests.stores.places import KINDS

pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(60)]

PROGRAM = [sys.executable, "-m", "tests.stores.program"]
ROOT = Path(__file__).parents[2]


def run(what: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run([*PROGRAM, what, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, timeout=60, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def racing(place: str, name: str, target: int) -> subprocess.Popen[str]:
    """A program that adds to a session in a race, and has it open. It begins when it is told to go on."""
    command = [*PROGRAM, "race", place, name, str(target)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_a_process_may_be_killed_before_any_statement(tmp_path: Path) -> None:
    """All that it had told is there, and nothing of anything by halves."""
    found = run("sweep", tmp_path)
    assert found["problems"] == []
    # It came to the end of its work in the end, and died often enough on the way.
    assert found["told"] == 14
    assert found["points"] > 60


def test_a_log_that_breaks_off_anywhere_leaves_whole_additions(tmp_path: Path) -> None:
    found = run("torn", tmp_path)
    assert found["problems"] == []
    assert found["cuts"] > 50


async def test_a_killed_process_has_saved_every_event_that_it_delivered(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    dice = random.Random(7)
    told = 0
    for _ in range(3):
        process = racing(str(path), "me", 1_000_000)
        assert process.stdout is not None
        go(process)
        for _ in range(dice.randrange(1, 200)):
            told = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        # What it had told before it died, and nobody has read yet.
        told = max([told, *map(int, process.stdout.read().split("\n")[:-1])])
        process.communicate()
        async with SQLiteStore(path).open() as store:
            seqs = [record.seq for record in await store.read("s")]
            assert seqs == list(range(1, len(seqs) + 1))
            assert told <= len(seqs) <= told + 1


@pytest.mark.parametrize("kind", ["sqlite", *(kind for kind in KINDS if kind == "postgres")])
async def test_of_two_processes_one_adds_each_number(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue("postgres")() if kind == "postgres" else str(tmp_path / "sessions.db")
    target = 400
    processes = [racing(place, name, target) for name in ("one", "other")]
    for process in processes:
        go(process)
    outs = [await trio.to_thread.run_sync(process.communicate) for process in processes]
    wins = [[int(line) for line in out.split()] for out, _ in outs]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(wins[0] + wins[1]) == list(range(1, target + 1))
    kept = await read_names(place)
    assert [kept[seq - 1] for seq in wins[0]] == ["one"] * len(wins[0])
    assert [kept[seq - 1] for seq in wins[1]] == ["other"] * len(wins[1])


async def read_names(place: str) -> list[str]:
    if "://" in place:
        make: Callable[[str], Any] = pytest.importorskip("agentloop.stores.postgres").PostgresStore
    else:
        make = SQLiteStore
    async with make(place).open() as store:
        return [json.loads(record.data) for record in await store.read("s")]
