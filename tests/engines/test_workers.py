"""A worker drives the sessions that can be driven, and leaves none behind when it ends."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import Agent, Approve, ToolContext, tool
from agentloop.engines import WorkerOptions, _command, answer, enqueue, work
from agentloop.errors import StoreError, UsageError
from agentloop.journal import OpenStore
from agentloop.stores import MemoryStore, SQLiteStore, stored_session
from agentloop.stores.mailbox import mailboxes_of
from agentloop.testing import FunctionModel, calls
from tests.engines.program import ANSWER, CALLS, agent as program_agent

OPTIONS = WorkerOptions(at_once=4, lease_seconds=3, poll_seconds=0.5, drain_seconds=5)


async def wait_for(store: OpenStore, session: str, state: str) -> None:
    while True:
        info = await store.info(session)
        if info is not None and info.state == state and not info.holder:
            return
        await trio.sleep(0.1)


def greeter(name: str = "greeter") -> Agent:
    return Agent(FunctionModel(lambda request: f"Hello, {request.messages[-1].text}."), name=name)


@pytest.mark.seconds(60)
async def test_workers_share_the_sessions_and_each_prompt_is_run_once() -> None:
    async with MemoryStore().open() as store:
        for number in range(20):
            await enqueue(store, f"s{number}", "Ann", agent="greeter")
            await enqueue(store, f"s{number}", "Bob")
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: work(store, greeter(), options=OPTIONS, stop=stop))
            while await mailboxes_of(store).waiting_work():
                await trio.sleep(0.1)
            await trio.sleep(1)
            stop.set()
        for number in range(20):
            async with stored_session(store, f"s{number}") as session:
                assert [message.text for message in session.messages] == ["Ann", "Hello, Ann.", "Bob", "Hello, Bob."]


async def test_a_prompt_is_run_when_it_is_due() -> None:
    async with MemoryStore().open() as store, trio.open_nursery() as nursery:
        await enqueue(store, "s", "Ann", after=5)
        nursery.start_soon(lambda: work(store, greeter(), options=OPTIONS))
        began = trio.current_time()
        await wait_for(store, "s", "ready")
        assert 5 <= trio.current_time() - began < 7
        nursery.cancel_scope.cancel()


@pytest.mark.seconds(60)
async def test_a_worker_takes_over_after_the_lease_of_one_that_died() -> None:
    async with MemoryStore().open() as store, trio.open_nursery() as nursery:
        await enqueue(store, "s", "Ann")
        await store.acquire("s", "a process that died", seconds=30)
        nursery.start_soon(lambda: work(store, greeter(), options=OPTIONS))
        began = trio.current_time()
        await wait_for(store, "s", "ready")
        assert 30 <= trio.current_time() - began < 32
        nursery.cancel_scope.cancel()


@pytest.mark.seconds(60)
async def test_sessions_of_other_agents_are_left_to_other_workers() -> None:
    async with MemoryStore().open() as store, trio.open_nursery() as nursery:
        await enqueue(store, "s", "Ann", agent="another")
        nursery.start_soon(lambda: work(store, greeter(), options=OPTIONS))
        await trio.sleep(10)
        assert await store.info("s") is None
        nursery.start_soon(lambda: work(store, greeter("another"), options=OPTIONS))
        await wait_for(store, "s", "ready")
        nursery.cancel_scope.cancel()


def slow(seconds: float, keys: list[str]) -> Agent:
    @tool(idempotent=True)
    async def look(context: ToolContext) -> str:
        """Look."""
        keys.append(context.idempotency_key)
        await trio.sleep(seconds)
        return "seen"

    def respond(request: Any) -> Any:
        return "Done." if len(request.messages) > 1 else calls("look")

    return Agent(FunctionModel(respond), name="slow", tools=[look])


@pytest.mark.seconds(60)
async def test_a_worker_that_drains_begins_nothing_and_lets_its_segments_end() -> None:
    keys: list[str] = []
    stop = trio.Event()
    async with MemoryStore().open() as store, trio.open_nursery() as nursery:
        await enqueue(store, "s", "Look.")
        nursery.start_soon(lambda: work(store, slow(3, keys), options=OPTIONS, stop=stop))
        await trio.sleep(1)
        await enqueue(store, "later", "Look.")
        stop.set()
    async with MemoryStore().open():
        assert len(keys) == 1


@pytest.mark.seconds(120)
@pytest.mark.parametrize("leaves", ["drains", "is cancelled"])
async def test_runs_that_a_leaving_worker_cuts_off_are_resumed_at_once(leaves: str) -> None:
    keys: list[str] = []
    stop = trio.Event()
    async with MemoryStore().open() as store, trio.open_nursery() as nursery:
        await enqueue(store, "s", "Look.")
        async with trio.open_nursery() as first:
            first.start_soon(lambda: work(store, slow(40, keys), options=OPTIONS, stop=stop))
            await trio.sleep(1)
            if leaves == "drains":
                stop.set()
            else:
                first.cancel_scope.cancel()
        info = await store.info("s")
        assert info is not None
        assert (info.state, info.holder) == ("unfinished", "")
        nursery.start_soon(lambda: work(store, slow(0, keys), options=OPTIONS))
        await wait_for(store, "s", "ready")
        nursery.cancel_scope.cancel()
        assert len(keys) == 2
        assert len(set(keys)) == 1
        stops = await store.read("s", kinds=["stream_stopped"])
        assert [b"interrupted" in stops[0].data, b"completed" in stops[1].data] == [True, True]


@pytest.mark.seconds(300)
async def test_a_session_that_fails_waits_longer_each_time_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries: list[float] = []

    def deps(session: str) -> None:
        if session == "bad":
            tries.append(trio.current_time())
            if len(tries) == 1:
                raise ValueError("no deps")
            raise StoreError("no deps from the database")

    async with MemoryStore().open() as store, trio.open_nursery() as nursery:
        await enqueue(store, "bad", "Ann")
        await enqueue(store, "good", "Ann")
        nursery.start_soon(lambda: work(store, greeter(), options=OPTIONS, deps=deps))
        await wait_for(store, "good", "ready")
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert 4 <= len(tries) <= 9
    assert pauses[-1] > 2 * pauses[0]
    assert "no deps from the database" in caplog.text


@pytest.mark.seconds(60)
async def test_a_worker_outlives_a_database_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    async with MemoryStore().open() as opened, trio.open_nursery() as nursery:
        store = _Away(opened)
        await enqueue(store, "s", "Ann")
        store.is_away = True
        nursery.start_soon(lambda: work(store, greeter(), options=OPTIONS))
        await trio.sleep(10)
        store.is_away = False
        await wait_for(opened, "s", "ready")
        nursery.cancel_scope.cancel()
    assert caplog.text.count("the store cannot be read") == 1


class _Away:
    def __init__(self, store: OpenStore) -> None:
        self._store = store
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def waiting_work(self, *, limit: int = 100) -> Any:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise StoreError("no connection")
        return await mailboxes_of(self._store).waiting_work(limit=limit)


def test_options_of_a_worker_are_checked() -> None:
    for wrong in (
        {"at_once": 0},
        {"max_takeovers": 1.5},
        {"lease_seconds": 0},
        {"poll_seconds": float("nan")},
        {"drain_seconds": True},
    ):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            WorkerOptions(**wrong)


# ------------------------------------------------------------------------------------- the command

AGENTS = {"payer": program_agent("effects", seconds=0.01)}
SLOW_KEYS: list[str] = []
SLOW = slow(60, SLOW_KEYS)
NOT_AGENTS = 7


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("agents", "say where the agent is"),
        ("no_such_module:agents", "there is no module 'no_such_module'"),
        ("tests.engines.test_workers:missing", "has no 'missing'"),
        ("tests.engines.test_workers:NOT_AGENTS", "is no Agent"),
    ],
)
def test_the_command_says_what_is_wrong(place: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _command.main([place, "--database", "never.db"]) == 2
    assert problem in capsys.readouterr().err


def test_the_command_says_what_is_wrong_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    agents = "tests.engines.test_workers:AGENTS"
    assert _command.main([agents, "--database", "never.db", "--at-once", "0"]) == 2
    assert "at_once=0" in capsys.readouterr().err
    pytest.importorskip("psycopg")
    assert _command.main([agents, "--database", "postgresql://nobody@127.0.0.1:1/nowhere"]) == 2
    assert "no connection" in capsys.readouterr().err


@pytest.mark.real_clock
async def test_a_second_signal_cuts_the_runs_off_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.chdir(tmp_path)
    async with SQLiteStore("sessions.db").open() as store:
        await enqueue(store, "s", "Look.", agent="slow")

        async def watch() -> None:
            while not SLOW_KEYS:
                await trio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            await trio.sleep(0.1)
            os.kill(os.getpid(), signal.SIGTERM)

        options = _command._parser().parse_args(
            ["tests.engines.test_workers:SLOW", "--database", "sessions.db", "--poll", "0.05"]
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await _command._work(options)
        info = await store.info("s")
        assert info is not None
        assert (info.state, info.holder) == ("unfinished", "")


@pytest.mark.real_clock
async def test_the_command_drives_sessions_until_it_gets_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.chdir(tmp_path)
    effects = tmp_path / "effects"
    async with SQLiteStore("sessions.db").open() as store:
        await enqueue(store, "s", "Pay.", agent="payer")

        async def watch() -> None:
            await wait_for(store, "s", "waiting")
            (asked,) = await store.read("s", kinds=["approval_requested"])
            await answer(store, "s", asked.key, Approve())
            await wait_for(store, "s", "ready")
            os.kill(os.getpid(), signal.SIGTERM)

        options = _command._parser().parse_args(
            ["tests.engines.test_workers:AGENTS", "--database", "sessions.db", "--poll", "0.05"]
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await _command._work(options)
        async with stored_session(store, "s") as session:
            assert session.messages[-1].text == ANSWER
    assert [line.split()[1] for line in effects.read_text().splitlines()] == [*CALLS]
