"""A worker in a network of its own, whose cable is pulled: no packet comes or goes, and no connection is closed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from agentloop.engines import enqueue
from agentloop.errors import StoreError
from agentloop.journal import OpenStore
from tests.engines.program import open_store
from tests.stores.places import POSTGRES
from tests.stores.postgres import running_postgres

pytestmark = [pytest.mark.real_clock, pytest.mark.nightly, pytest.mark.seconds(280)]

SESSIONS = 40
LEASE = 3.0
CUT_SECONDS = 20.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


class Cable:
    """A network namespace with one cable to this machine."""

    def __init__(self, number: int) -> None:
        self.namespace = f"agentloop-{number}"
        self._end = f"al{number}"
        self.here, self.there = f"10.213.{number % 250}.1", f"10.213.{number % 250}.2"

    def plug(self) -> None:
        ip("netns", "add", self.namespace)
        ip("link", "add", self._end, "type", "veth", "peer", "name", "cable", "netns", self.namespace)
        ip("addr", "add", f"{self.here}/30", "dev", self._end)
        ip("link", "set", self._end, "up")
        inside = ("netns", "exec", self.namespace, "ip")
        ip(*inside, "addr", "add", f"{self.there}/30", "dev", "cable")
        ip(*inside, "link", "set", "cable", "up")
        ip(*inside, "link", "set", "lo", "up")

    def start(self, url: str, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a worker at the other end of the cable."""
        inside = ("ip", "netns", "exec", self.namespace)
        command = [*inside, sys.executable, "-m", "tests.engines.program", url, *arguments]
        with log.open("ab") as file:
            return subprocess.Popen(command, stdout=file, stderr=file)

    def pull(self) -> None:
        ip("link", "set", self._end, "down")

    def push(self) -> None:
        ip("link", "set", self._end, "up")

    def remove(self) -> None:
        with suppress(subprocess.CalledProcessError):
            ip("netns", "del", self.namespace)


@pytest.fixture
def cable() -> Iterator[Cable]:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root makes networks, and only with iproute2")
    cable = Cable(os.getpid() % 10_000)
    try:
        cable.plug()
    except subprocess.CalledProcessError as error:
        cable.remove()
        pytest.skip(f"this machine makes no networks: {error.stderr!r}")
    yield cable
    cable.remove()


@pytest.fixture
def server() -> Iterator[str]:
    if not POSTGRES:
        pytest.skip("AGENTLOOP_POSTGRES names no folder of PostgreSQL's programs: use `nox -s postgres`")
    pytest.importorskip("psycopg")
    with running_postgres(Path(POSTGRES)) as url:
        yield url


async def held_by(store: OpenStore, pid: int) -> set[str]:
    return {info.id for info in await store.sessions(limit=SESSIONS) if info.holder.startswith(f"process {pid} on ")}


async def test_sessions_of_a_worker_without_a_network_are_taken_over_and_it_saves_nothing_more(
    server: str, cable: Cable, tmp_path: Path
) -> None:
    from tests.engines.killing import Hunt, Proxy

    hunt = Hunt(server, tmp_path, Path(POSTGRES), lease=LEASE, at_once=SESSIONS)
    port = int(re.findall(r":(\d+)/", server)[0])
    # PostgreSQL listens on the loopback interface alone, and this way to it on the cable.
    way, direct = Proxy(port, host=cable.here), Proxy(port)
    async with open_store(server).open() as store, trio.open_nursery() as nursery:
        try:
            await nursery.start(way.serve)
            await nursery.start(direct.serve)
            url = re.sub(r"@[^/]+/", f"@{cable.here}:{way.port}/", server)
            away = cable.start(url, hunt._log, str(hunt.effects), "none", str(LEASE), str(SESSIONS), "0.8")
            hunt._processes.append((away, way))
            hunt._start(direct)
            while len(hunt._up()) < 2:
                await trio.sleep(0.1)
            for number in range(SESSIONS):
                await enqueue(store, f"s{number}", "Pay.", agent="payer")
            hunt.sessions = SESSIONS
            while not (held := await held_by(store, away.pid)):
                await trio.sleep(0.05)
            cable.pull()
            pulled = time.monotonic()
            open_sessions, times = set(held), [0.0]
            while open_sessions and time.monotonic() - pulled < CUT_SECONDS:
                await hunt._care(store)
                for id in open_sessions - await held_by(store, away.pid):
                    info = await store.info(id)
                    if info is not None and (info.holder or info.state != "unfinished"):
                        open_sessions.discard(id)
                        times.append(time.monotonic() - pulled)
                await trio.sleep(0.1)
            cable.push()
            with trio.fail_after(120):
                while len(hunt.done) < SESSIONS:
                    with suppress(StoreError):
                        await hunt._care(store)
                    await trio.sleep(0.2)
            print(f"{len(held)} sessions were taken over, the last one after {max(times):.1f} s")
            assert held
            assert not open_sessions
        finally:
            for process, _ in hunt._processes:
                process.kill()
                process.wait()
        nursery.cancel_scope.cancel()
    problems = await hunt.check()
    assert problems == [], "\n".join(problems[:20])


async def test_sessions_end_though_the_database_restarts_again_and_again(server: str, tmp_path: Path) -> None:
    from tests.engines.killing import Hunt, Proxy, restart

    hunt = Hunt(server, tmp_path, Path(POSTGRES), lease=LEASE, at_once=SESSIONS)
    direct = Proxy(int(re.findall(r":(\d+)/", server)[0]))
    async with open_store(server).open() as store, trio.open_nursery() as nursery:
        try:
            await nursery.start(direct.serve)
            for _ in range(2):
                hunt._start(direct)
            for number in range(SESSIONS):
                await enqueue(store, f"s{number}", "Pay.", agent="payer")
            hunt.sessions = SESSIONS
            while not hunt._up():
                await trio.sleep(0.1)
            for _ in range(3):
                await hunt._care(store)
                await trio.sleep(1.5)
                await trio.to_thread.run_sync(restart, server, Path(POSTGRES))
            with trio.fail_after(120):
                while len(hunt.done) < SESSIONS:
                    hunt._replace_ended()
                    await hunt._care(store)
                    await trio.sleep(0.2)
        finally:
            for process, _ in hunt._processes:
                process.kill()
                process.wait()
        nursery.cancel_scope.cancel()
    problems = await hunt.check()
    assert problems == [], "\n".join(problems[:20])
