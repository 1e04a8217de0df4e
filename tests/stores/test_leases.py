"""By which clock leases run out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from agentloop.errors import SessionLeasedError
from agentloop.stores import MemoryStore, SQLiteStore, _leases
from agentloop.stores._leases import Moment, machine_clock

HOUR = 3600.0


class Machine:
    """Clocks that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.wall, self.steady = 1_000_000.0, 50.0
        self._boot_id = folder / "boot_id"
        self._namespace = folder / "time"
        self.start("boot1")
        self.enter("time:[1]")
        monkeypatch.setattr(_leases, "_TIME_NAMESPACE", self._namespace)
        monkeypatch.setattr(_leases, "_BOOT_ID", self._boot_id)
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr(time, "monotonic", lambda: self.steady)

    def start(self, boot: str) -> None:
        self._boot_id.write_text(f"{boot}\n")

    def enter(self, namespace: str) -> None:
        """Have processes that start from now on count in another time namespace."""
        self._namespace.unlink(missing_ok=True)
        self._namespace.symlink_to(namespace)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def test_on_linux_leases_run_by_the_clock_that_cannot_be_set(machine: Machine) -> None:
    clock = machine_clock()
    assert clock() == Moment(1_000_000.0, "boot1 time:[1]", 50.0)


def test_a_process_in_another_time_namespace_goes_by_the_time_of_day(machine: Machine) -> None:
    """Its steady clock counts from another time: a lease that runs would look expired to it, or never expire."""
    held = _leases.acquired(None, "me", 30.0, machine_clock()())
    machine.enter("time:[2]")
    machine.steady = 1_000_000.0
    elsewhere = machine_clock()

    assert held.is_running(elsewhere())
    machine.wall += 31
    assert not held.is_running(elsewhere())


def test_where_a_machine_does_not_tell_its_starts_apart_the_time_of_day_must_do(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_leases, "_BOOT_ID", tmp_path / "nothing")
    assert machine_clock()() == Moment(1_000_000.0, "", 1_000_000.0)


@pytest.mark.real_clock
async def test_setting_the_time_of_day_neither_ends_a_lease_nor_prolongs_it(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    async with SQLiteStore(path).open() as one, SQLiteStore(path).open() as other:
        await one.acquire("s", "me", seconds=30)
        machine.wall += HOUR
        with pytest.raises(SessionLeasedError):
            await other.acquire("s", "you", seconds=30)
        machine.wall -= 2 * HOUR
        machine.steady += 30
        await other.acquire("s", "you", seconds=30)


@pytest.mark.real_clock
async def test_after_a_restart_of_the_machine_a_lease_runs_out_by_the_time_of_day(
    machine: Machine, tmp_path: Path
) -> None:
    path = tmp_path / "sessions.db"
    async with SQLiteStore(path).open() as store:
        await store.acquire("s", "me", seconds=30)
    machine.start("boot2")
    machine.steady = 1.0
    async with SQLiteStore(path).open() as store:
        with pytest.raises(SessionLeasedError):
            await store.acquire("s", "you", seconds=30)
        machine.wall += 30
        await store.acquire("s", "you", seconds=30)


async def test_in_memory_leases_run_out_by_trios_clock() -> None:
    store = MemoryStore()
    async with store.open() as one, store.open() as other:
        lease = await one.acquire("s", "me", seconds=5)
        assert abs(lease.expires - 5 - time.time()) < 1
        await trio.sleep(4.9)
        with pytest.raises(SessionLeasedError):
            await other.acquire("s", "you", seconds=5)
        await trio.sleep(0.2)
        await other.acquire("s", "you", seconds=5)
