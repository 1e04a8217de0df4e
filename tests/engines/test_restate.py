"""Workers that Restate's own server calls: `nox -s restate`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import trio

pytest.importorskip("restate")

from agentloop import Approve
from agentloop.engines import WorkerOptions, answer, enqueue, restate as engine
from agentloop.errors import UsageError
from agentloop.journal import OpenStore
from agentloop.stores import MemoryStore, SQLiteStore
from tests.engines.program import CALLS, agent
from tests.engines.test_workers import greeter, wait_for
from tests.stores.postgres import _free_port

# hypercorn and the SDK leave sockets to the garbage collector when they are cut off.
pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(180), pytest.mark.filterwarnings("ignore::ResourceWarning")]

PROGRAM = os.environ.get("AGENTLOOP_RESTATE", "")
OPTIONS = WorkerOptions(at_once=4, lease_seconds=2, poll_seconds=0.1, drain_seconds=1)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Restate's addresses for invocations and for deployments."""
    if not PROGRAM:
        pytest.skip("AGENTLOOP_RESTATE names no program of Restate's server: use `nox -s restate`")
    folder = tmp_path_factory.mktemp("restate")
    ingress, admin, node = (f"127.0.0.1:{_free_port()}" for _ in range(3))
    env = {
        **os.environ,
        "RESTATE_INGRESS__BIND_ADDRESS": ingress,
        "RESTATE_ADMIN__BIND_ADDRESS": admin,
        "RESTATE_BIND_ADDRESS": node,
        "RESTATE_ADVERTISED_ADDRESS": f"http://{node}",
        "DO_NOT_TRACK": "1",
    }
    with (folder / "log").open("wb") as log:
        command = [PROGRAM, "--base-dir", str(folder / "data"), "--node-name", "tests"]
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        _wait_until_ready(f"http://{admin}/health", f"http://{ingress}/restate/health")
        yield f"http://{ingress}", f"http://{admin}"
    finally:
        server.kill()
        server.wait()


def _wait_until_ready(*urls: str) -> None:
    deadline = time.monotonic() + 60
    for url in urls:
        while True:
            try:
                with urlopen(url, timeout=2):
                    break
            except (URLError, OSError):
                assert time.monotonic() < deadline, f"Restate does not answer at {url}"
                time.sleep(0.2)


async def pay_all(store: OpenStore, count: int) -> None:
    """Enqueue prompts, answer what the runs ask, and wait for their ends."""
    for number in range(count):
        await enqueue(store, f"s{number}", "Pay.", agent="payer")
    for number in range(count):
        await wait_for(store, f"s{number}", "waiting")
        (asked,) = await store.read(f"s{number}", kinds=["approval_requested"])
        await answer(store, f"s{number}", asked.key, Approve())
    for number in range(count):
        await wait_for(store, f"s{number}", "ready")


def effects_of(path: Path, session: str, name: str) -> list[str]:
    lines = [line.split() for line in path.read_text().splitlines()]
    return [key for owner, called, key, _ in lines if (owner, called) == (session, name)]


async def test_restate_has_the_segments_of_sessions_driven(addresses: tuple[str, str], tmp_path: Path) -> None:
    ingress, admin = addresses
    effects, stop = tmp_path / "effects", trio.Event()
    async with MemoryStore().open() as store, trio.open_nursery() as nursery:
        bind = f"127.0.0.1:{_free_port()}"
        options = {"ingress": ingress, "admin": admin, "bind": bind, "options": OPTIONS, "stop": stop}
        nursery.start_soon(partial(engine.work, store, agent(str(effects)), **options))  # type: ignore[arg-type]
        await pay_all(store, 6)
        stop.set()
    for number in range(6):
        assert [len(effects_of(effects, f"s{number}", name)) for name in CALLS] == [1, 1, 1]


@pytest.mark.nightly
async def test_restate_repeats_the_segments_of_a_worker_that_was_killed_in_another_one(
    addresses: tuple[str, str], tmp_path: Path
) -> None:
    database, effects = str(tmp_path / "sessions.db"), tmp_path / "effects"
    bind = f"127.0.0.1:{_free_port()}"
    restate = " ".join(("restate", *addresses, bind))
    command = [sys.executable, "-m", "tests.engines.program", database, str(effects), restate, "2", "8", "0.5"]
    workers: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with (tmp_path / "log").open("ab") as log:
            workers.append(subprocess.Popen(command, stdout=log, stderr=log))

    try:
        async with SQLiteStore(database).open() as store, trio.open_nursery() as nursery:
            for _ in range(2):
                start()
            nursery.start_soon(pay_all, store, 10)
            killed = 0
            while killed < 3:
                await trio.sleep(1.5)
                held = [int(info.holder.split()[1]) for info in await store.sessions() if info.holder]
                if held:
                    os.kill(held[0], signal.SIGKILL)
                    killed += 1
                    start()
                elif all(info.state == "ready" for info in await store.sessions()) and killed:
                    break
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    for number in range(10):
        for name in CALLS:
            keys = effects_of(effects, f"s{number}", name)
            assert len(set(keys)) <= 1
            assert name != "charge" or len(keys) <= 1
    assert killed


async def test_a_restate_that_cannot_be_reached_is_an_error_that_says_where() -> None:
    async with MemoryStore().open() as store:
        bind, admin = f"127.0.0.1:{_free_port()}", f"http://127.0.0.1:{_free_port()}"
        with pytest.raises(UsageError, match=f"cannot be reached at {admin}"):
            await engine.work(store, greeter(), bind=bind, admin=admin)
        with pytest.raises(UsageError, match="is no address of Restate"):
            await engine.work(store, greeter(), bind=bind, admin="file:///etc/passwd")
        with pytest.raises(UsageError, match="the worker cannot listen there"):
            await engine.work(store, greeter(), bind="127.0.0.1:http")


@pytest.mark.skipif(not PROGRAM, reason="AGENTLOOP_RESTATE names no program of Restate's server: use `nox -s restate`")
async def test_restate_that_cannot_reach_a_worker_is_an_error(addresses: tuple[str, str]) -> None:
    ingress, admin = addresses
    nowhere = f"http://127.0.0.1:{_free_port()}"
    async with MemoryStore().open() as store:
        with pytest.raises(UsageError, match=f"does not register the workers at {nowhere}"):
            bind = f"127.0.0.1:{_free_port()}"
            await engine.work(store, greeter(), ingress=ingress, admin=admin, bind=bind, address=nowhere)
