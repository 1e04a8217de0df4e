"""Workers that are killed at random while they drive sessions in PostgreSQL, and the report of what came of it."""

from __future__ import annotations

import os
import pwd
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import msgspec
import psycopg
import trio
from attrs import define, field, frozen

from agentloop import Approve
from agentloop._core.json_text import decode_own
from agentloop.engines import answer, enqueue
from agentloop.errors import StoreError
from agentloop.journal import READY, WAITING, OpenStore
from tests.engines.program import ANSWER, CALLS, open_store

__all__ = ["Hunt", "Proxy", "empty", "restart"]


class _Stopped(msgspec.Struct):
    reason: str


class _Committed(msgspec.Struct):
    message: dict[str, object]


def restart(url: str, programs: Path) -> None:
    """Restart the server of ``url``, which loses its connections, and no transaction that it has confirmed."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    owner = pwd.getpwuid(Path(row[0]).stat().st_uid).pw_name
    command = [
        str(programs.resolve() / "pg_ctl"),
        "-D",
        row[0],
        "-m",
        "immediate",
        "-w",
        "-l",
        f"{row[0]}/log",
        "restart",
    ]
    user = owner if os.geteuid() == 0 else None
    done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done


def empty(url: str) -> None:
    """Drop all that a test before has left in the database."""
    with psycopg.connect(url) as connection:
        for schema in ("public", "dbos"):
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        connection.execute("CREATE SCHEMA public")


@define
class Proxy:
    """A way to the server that can be cut: bytes stand still, and then the connections break."""

    server: int
    port: int = 0
    host: str = "127.0.0.1"
    """The address at which it listens."""
    _open: trio.Event = field(factory=trio.Event)
    _scope: trio.CancelScope = field(factory=trio.CancelScope)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._open.set()
        listeners = await trio.open_tcp_listeners(0, host=self.host)
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._connection, listeners)

    async def cut(self, seconds: float) -> None:
        self._open = trio.Event()
        await trio.sleep(seconds)
        scope, self._scope = self._scope, trio.CancelScope()
        scope.cancel()
        self._open.set()

    async def _connection(self, client: trio.SocketStream) -> None:
        try:
            with trio.CancelScope() as scope:
                server = await trio.open_tcp_stream("127.0.0.1", self.server)
                around = self._scope

                async def break_with(around: trio.CancelScope) -> None:
                    while not around.cancel_called:
                        await trio.sleep(0.1)
                    scope.cancel()

                async with server, client, trio.open_nursery() as nursery:
                    nursery.start_soon(break_with, around)
                    nursery.start_soon(self._forward, client, server, scope)
                    nursery.start_soon(self._forward, server, client, scope)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _forward(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        while data := await source.receive_some(65536):
            await self._open.wait()
            await sink.send_all(data)
        scope.cancel()


@frozen
class Sample:
    """What the workers did at one moment."""

    at: float
    up: int
    """Workers that look for sessions."""
    starting: int
    """Workers whose process is still starting."""
    free: int
    """Slots of the workers that are up, less the sessions that they hold."""
    queue: int
    """Unfinished sessions that no worker holds."""
    seconds: float
    """How long the database took to say so."""
    idle: float
    """The share of the processors' time since the last sample in which they had nothing to do."""


@frozen
class Late:
    """A take-over that took longer than the lease and `LATE_SECONDS`."""

    session: str
    seconds: float
    samples: tuple[Sample, ...]
    """Those from the end of the lease to the take-over."""
    words: tuple[str, ...]
    """What workers logged of the session meanwhile."""

    @property
    def reason(self) -> str:
        """Why it took so long, as far as the samples say."""
        if any(not sample.up for sample in self.samples):
            return "no worker was up"
        if any(sample.free <= 0 for sample in self.samples):
            return "no slot was free"
        if any(sample.idle < BUSY for sample in self.samples):
            return "the processors were busy"
        return "unknown"

    def __str__(self) -> str:
        count = max(len(self.samples), 1)
        return (
            f"{self.session}: {self.seconds:.1f} s; {self.reason}; of {len(self.samples)} samples, no worker was up in "
            f"{sum(not sample.up for sample in self.samples)}, and no slot was free in "
            f"{sum(bool(sample.up) and sample.free <= 0 for sample in self.samples)}; on average "
            f"{sum(sample.up for sample in self.samples) / count:.1f} workers up, "
            f"{sum(sample.queue for sample in self.samples) / count:.0f} sessions waiting, "
            f"{sum(sample.idle for sample in self.samples) / count:.0%} of the processors idle, "
            f"a look at the database {sum(sample.seconds for sample in self.samples) / count:.2f} s"
            f"{''.join(f'; {line}' for line in self.words[:4])}"
        )


LATE_SECONDS = 2.0
BUSY = 0.1
"""The processors are busy if less of their time is idle."""


def _processors() -> tuple[float, float]:
    """The time of all processors since the machine has started, and how much of it was idle."""
    times = [float(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(times), times[3] + times[4]


@define
class Hunt:
    """Three workers, of which one after another is killed, while sessions come in."""

    url: str
    folder: Path
    programs: Path
    engine: str = "none"
    workers: int = 3
    lease: float = 3.0
    at_once: int = 64
    open_sessions: int = 200
    pace: float = 2.0
    """Seconds between two disturbances, on average. A worker has to come up meanwhile."""
    kills: int = 0
    restarts: int = 0
    cuts: int = 0
    ended: int = 0
    """Workers that ended by themselves, since the server was away when they started."""
    takeovers: list[float] = field(factory=list[float])
    """Seconds from a kill until another worker had the session, where the server and the network were well."""
    troubled: list[float] = field(factory=list[float])
    """The same, around a restart of the server or a cut."""
    late: list[Late] = field(factory=list[Late])
    samples: list[Sample] = field(factory=list[Sample])
    _trouble: float = 0.0
    sessions: int = 0
    done: set[str] = field(factory=set[str])
    _processes: list[tuple[subprocess.Popen[bytes], Proxy]] = field(factory=list)
    _answered: set[str] = field(factory=set[str])
    random: random.Random = field(factory=random.Random)

    @property
    def effects(self) -> Path:
        return self.folder / "effects"

    def _start(self, proxy: Proxy) -> None:
        url = re.sub(r":\d+/", f":{proxy.port}/", self.url)
        command = [sys.executable, "-m", "tests.engines.program", url, str(self.effects), self.engine]
        command += [str(self.lease), str(self.at_once), "0.1"]
        with self._log.open("ab") as log:
            self._processes.append((subprocess.Popen(command, stdout=log, stderr=log), proxy))

    async def run(self, seconds: float) -> None:
        """Kill for so many seconds, then wait until every session has ended."""
        port = int(re.findall(r":(\d+)/", self.url)[0])
        proxies = [Proxy(port) for _ in range(self.workers)]
        async with open_store(self.url).open() as store, trio.open_nursery() as nursery:
            try:
                for proxy in proxies:
                    await nursery.start(proxy.serve)
                    self._start(proxy)
                ending = trio.Event()
                nursery.start_soon(self._disturb, ending, nursery, store)
                nursery.start_soon(self._sample)
                with trio.move_on_after(seconds):
                    await self._feed(store, ending)
                ending.set()
                with trio.fail_after(300):
                    while len(self.done) < self.sessions:
                        await self._care(store)
                        await trio.sleep(0.3)
            finally:
                for process, _ in self._processes:
                    process.kill()
                    process.wait()
            nursery.cancel_scope.cancel()

    async def _feed(self, store: OpenStore, ending: trio.Event) -> None:
        while True:
            while self.sessions - len(self.done) < self.open_sessions:
                id = f"s{self.sessions}"
                with trio.CancelScope(shield=True):
                    await _surely(enqueue, store, id, "Pay.", agent="payer", id="first")
                self.sessions += 1
            await self._care(store)
            await trio.sleep(0.2)

    async def _care(self, store: OpenStore) -> None:
        """Answer the questions, and see which sessions have ended."""
        try:
            infos = await store.sessions(limit=2 * self.open_sessions)
            for info in infos:
                if info.state == WAITING and info.id not in self._answered:
                    for record in await store.read(info.id, kinds=["approval_requested"]):
                        await answer(store, info.id, record.key, Approve())
                        self._answered.add(info.id)
                elif info.state == READY:
                    self.done.add(info.id)
        except StoreError:
            await trio.sleep(0.2)

    async def _disturb(self, ending: trio.Event, nursery: trio.Nursery, store: OpenStore) -> None:
        await trio.sleep(2 * self.lease)
        while not ending.is_set():
            choice = self.random.random()
            if choice < 0.07:
                self.restarts += 1
                self._trouble = time.monotonic()
                await trio.to_thread.run_sync(restart, self.url, self.programs)
                await trio.sleep(self.lease)
            elif choice < 0.2:
                self.cuts += 1
                self._trouble = time.monotonic()
                nursery.start_soon(self.random.choice(self._processes)[1].cut, self.lease * 2)
            else:
                while len(up := self._up()) < 2 and not ending.is_set():
                    # A worker takes seconds to start, on a busy machine ten of them. With kills that come faster, no
                    # worker is there to take over, and the take-overs measure how long Python takes to start.
                    await trio.sleep(0.5)
                if ending.is_set():
                    return
                pid = self.random.choice(up)
                (index,) = [place for place, (each, _) in enumerate(self._processes) if each.pid == pid]
                process, proxy = self._processes.pop(index)
                process.send_signal(signal.SIGKILL)
                process.wait()
                self.kills += 1
                self._start(proxy)
                nursery.start_soon(self._time_takeovers, process.pid)
            await trio.sleep(self.random.uniform(0.1, 2 * self.pace))

    async def _sample(self) -> None:
        """Note once a second what the workers do, to explain take-overs that are late."""
        select = (
            "SELECT split_part(l.holder, ' ', 2), count(*) FILTER (WHERE l.expires > extract(epoch FROM "
            "clock_timestamp())), count(*) FILTER (WHERE s.state = 'unfinished' AND (l.holder = '' OR l.expires <= "
            "extract(epoch FROM clock_timestamp()))) FROM agentloop_leases l JOIN agentloop_sessions s "
            "ON s.id = l.session WHERE s.state = 'unfinished' GROUP BY 1"
        )

        def ask() -> list[tuple[str, int, int]]:
            with psycopg.connect(self.url) as connection:
                return connection.execute(select.encode()).fetchall()

        spent, idle = _processors()
        while True:
            began = time.monotonic()
            try:
                rows = await trio.to_thread.run_sync(ask)
            except psycopg.Error:
                await trio.sleep(1)
                continue
            self._replace_ended()
            up = [str(pid) for pid in self._up()]
            held = sum(count for pid, count, _ in rows if pid in up)
            waiting = sum(count for _, _, count in rows)
            now = time.monotonic()
            free = len(up) * self.at_once - held
            before = spent, idle
            spent, idle = _processors()
            share = (idle - before[1]) / max(spent - before[0], 1)
            starting = len(self._processes) - len(up)
            self.samples.append(Sample(now, len(up), starting, free, waiting, now - began, share))
            await trio.sleep(max(1 - (now - began), 0.1))

    def _replace_ended(self) -> None:
        """Start a worker for each that has ended by itself, as a supervisor does: those that found no server."""
        for place in [place for place in self._processes if place[0].poll() is not None]:
            self._processes.remove(place)
            self._start(place[1])
            self.ended += 1

    def _up(self) -> list[int]:
        """The processes of the workers that have started."""
        ready = set(re.findall(r"^ready (\d+)$", self._log.read_text(errors="replace"), re.MULTILINE))
        return [process.pid for process, _ in self._processes if str(process.pid) in ready]

    def _explain(self, session: str, began: float) -> None:
        """Note what is known of a take-over that has just ended, if it was late."""
        now = time.monotonic()
        if now - began <= self.lease + LATE_SECONDS:
            return
        samples = tuple(sample for sample in self.samples if began + self.lease <= sample.at <= now)
        since = time.time() - (now - began)
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if f"'{session}'" in line]
        words = tuple(line for line in lines if float(line.partition(" ")[0]) >= since)
        self.late.append(Late(session, now - began, samples, words))

    @property
    def _log(self) -> Path:
        return self.folder / "workers.log"

    async def _time_takeovers(self, pid: int) -> None:
        """Measure how long the sessions of a worker that was killed were held by none."""
        began = time.monotonic()
        unfinished = (
            "SELECT session, token FROM agentloop_leases l JOIN agentloop_sessions s ON s.id = l.session "
            "WHERE s.state = 'unfinished' AND "
        )
        select = f"{unfinished} l.holder LIKE %s AND l.expires > extract(epoch FROM clock_timestamp())"
        while_held = f"{unfinished} session = ANY(%s)"

        def ask(statement: str, value: object) -> dict[str, int]:
            with psycopg.connect(self.url) as connection:
                return dict(connection.execute(statement.encode(), (value,)).fetchall())

        try:
            held = await trio.to_thread.run_sync(ask, select, f"process {pid} on %")
            while held and time.monotonic() - began < 60:
                await trio.sleep(0.2)
                now = await trio.to_thread.run_sync(ask, while_held, list(held))
                for session, token in list(held.items()):
                    if now.get(session, token + 1) > token:
                        # Another worker has it, or has finished it already.
                        # A cut lasts for two leases, and others may still wait for locks of that worker.
                        is_calm = self._trouble < began - 5 * self.lease
                        (self.takeovers if is_calm else self.troubled).append(time.monotonic() - began)
                        self._explain(session, began)
                        del held[session]
            self.takeovers += [60.0] * len(held)
        except psycopg.Error:
            # The server is restarting: no figure.
            return

    async def check(self) -> list[str]:
        """What is wrong with the sessions: nothing, if each has ended, and had its effects as their tools promise."""
        problems: list[str] = []
        effects: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for line in self.effects.read_text().splitlines():
            session, name, key, _ = line.split()
            effects[session][name].append(key)
        async with open_store(self.url).open() as store:
            for number in range(self.sessions):
                id = f"s{number}"
                stops = [
                    decode_own(record.data, _Stopped).reason
                    for record in await store.read(id, kinds=["stream_stopped"])
                ]
                starts = await store.read(id, kinds=["stream_started"])
                fresh = [record for record in starts if b'"resumes":""' in record.data]
                if not stops or stops[-1] != "completed" or stops.count("completed") != 1 or len(fresh) != 1:
                    problems.append(f"{id}: stops {stops}, {len(fresh)} runs from the prompt")
                messages = await store.read(id, kinds=["message_committed"])
                if ANSWER.encode() not in messages[-1].data:
                    problems.append(f"{id}: the last message is {messages[-1].data!r}")
                for name in CALLS:
                    keys = effects[id][name]
                    # Where the worker died before the call, and after it was saved that it begins, the model reads so.
                    is_reported = name == "charge" and not keys and not any(b'"charged"' in r.data for r in messages)
                    if not is_reported and (len(set(keys)) != 1 or (name == "charge" and len(keys) != 1)):
                        problems.append(f"{id}: {name} had its effect under the keys {keys}")
        return problems

    def report(self) -> str:
        lines = Counter(line.split()[1] for line in self.effects.read_text().splitlines())
        return (
            f"{self.engine}: {self.sessions} sessions, {self.kills} kills, {self.restarts} restarts of the server, "
            f"{self.cuts} cuts, {self.ended} workers that found no server; effects {dict(lines)}; "
            f"take-overs: {_spread(self.takeovers)}; those around a cut or a restart: {_spread(self.troubled)}; "
            f"{self._late()}"
        )

    def _late(self) -> str:
        """Why take-overs took longer than the lease and `LATE_SECONDS`."""
        if not self.samples:
            return "no samples"
        up = [sample.up for sample in self.samples]
        lines = [
            (
                f"workers up: {sum(up) / len(up):.1f} on average, none in {up.count(0)} of {len(up)} seconds; "
                f"take-overs later than the lease and {LATE_SECONDS:g} s: {len(self.late)}: "
                f"{dict(Counter(late.reason for late in self.late))}"
            )
        ]
        lines += map(str, sorted(self.late, key=lambda late: -late.seconds)[:12])
        return "\n  ".join(lines)


def _spread(times: list[float]) -> str:
    times = sorted(times)
    if not times:
        return "none"
    median, late = times[len(times) // 2], times[int(len(times) * 0.99)]
    return f"{len(times)}, median {median:.1f} s, 99% {late:.1f} s, longest {times[-1]:.1f} s"


async def _surely(function: object, *args: object, **kwargs: object) -> None:
    """Call until it succeeds: the server may be restarting."""
    while True:
        try:
            await function(*args, **kwargs)  # type: ignore[operator]
        except StoreError:
            await trio.sleep(0.2)
        else:
            return
