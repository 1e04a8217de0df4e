"""A state machine: two programs on one place do what a plain dict says."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import trio
from attrs import define, field
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import structs

from agentloop.errors import LeaseLostError, SequenceError, SessionLeasedError, StoreError
from agentloop.journal import Lease, OpenStore, Record
from tests.stores.places import KINDS, Place, place_of, record

SESSIONS = st.sampled_from(["a", "b", "c"])
QUESTIONS = st.sampled_from(["q1", "q2"])
CLIENTS = st.integers(0, 1)
WORDS = st.sampled_from(["rain", "Rain and SUN", "sun", "Ä", "x"])
KINDS_OF_RECORDS = st.sampled_from(["said", "done"])


@define
class Session:
    """What the model knows of one."""

    title: str
    parent: str
    created: float
    updated: float
    records: list[Record]
    answers: dict[str, bytes] = field(factory=dict[str, bytes])


@define
class Holder:
    """Who has a session, or had it."""

    lease: Lease
    given_back: bool = False


class Loop:
    """Trio in a thread, since hypothesis's rules cannot wait."""

    def __init__(self, place: Place) -> None:
        self.clients: list[OpenStore] = []
        self._place = place
        self._ready: SimpleQueue[trio.lowlevel.TrioToken] = SimpleQueue()
        self._end: trio.Event
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._thread.start()
        self._token = self._ready.get(timeout=30)

    async def _main(self) -> None:
        self._end = trio.Event()
        async with self._place.store().open() as one, self._place.store().open() as other:
            self.clients += [one, other]
            self._ready.put(trio.lowlevel.current_trio_token())
            await self._end.wait()

    def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        return trio.from_thread.run(function, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(self._end.set, trio_token=self._token)
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


class StoreMachine(RuleBasedStateMachine):
    kind = ""
    new_url: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[str, Session] = {}
        self.holders: dict[str, Holder] = {}
        self.leases: list[Lease] = []
        self.folder = tempfile.TemporaryDirectory(prefix="agentloop-machine-")
        self.loop: Loop | None = None

    @initialize()
    def open(self) -> None:
        self.place = place_of(self.kind, Path(self.folder.name), type(self).new_url)
        self.loop = Loop(self.place)

    def teardown(self) -> None:
        if self.loop is not None:
            self.loop.close()
        self.folder.cleanup()

    # -------------------------------------------------------------------- what the model says

    def is_leased(self, session: str) -> bool:
        holder = self.holders.get(session)
        return holder is not None and not holder.given_back and holder.lease.expires > self.place.time.now

    def holder_of(self, session: str) -> str:
        return self.holders[session].lease.holder if self.is_leased(session) else ""

    def is_newest(self, lease: Lease, session: str) -> bool:
        holder = self.holders.get(session)
        return (
            lease.session == session
            and holder is not None
            and not holder.given_back
            and holder.lease.token == lease.token
        )

    def does(self, client: int, expected: object, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method, which must give ``expected``, or raise it if it is an error's class."""
        assert self.loop is not None
        method = getattr(self.loop.clients[client], name)

        async def call() -> Any:
            return await method(*args, **kwargs)

        if isinstance(expected, type) and issubclass(expected, Exception):
            with pytest.raises(expected) as caught:
                self.loop.run(call)
            assert type(caught.value) is expected
            return None
        given = self.loop.run(call)
        if expected is not Any:
            assert given == expected, (name, args, kwargs)
        return given

    def lease_of(self, data: st.DataObject) -> Lease | None:
        return data.draw(st.sampled_from([None, *self.leases[-4:]]), label="lease")

    # ------------------------------------------------------------------------------- rules

    @rule(client=CLIENTS, id=SESSIONS, shift=st.sampled_from([0, 0, 0, 0, 1, -1]), word=WORDS,
          kinds=st.lists(KINDS_OF_RECORDS, max_size=3), parent=st.sampled_from(["", "a"]), data=st.data())  # fmt: skip
    def append(
        self, client: int, id: str, shift: int, word: str, kinds: Sequence[str], parent: str, data: st.DataObject
    ) -> None:
        lease = self.lease_of(data)
        session = self.sessions.get(id)
        first = (len(session.records) if session else 0) + 1 + shift
        added = [structs.replace(record(first + place, word), kind=kind) for place, kind in enumerate(kinds)]
        expected: object = None
        if lease is not None and not self.is_newest(lease, id):
            expected = LeaseLostError
        elif lease is None and self.is_leased(id):
            expected = SessionLeasedError
        elif added and shift:
            expected = SequenceError
        self.does(client, expected, "append", id, added, lease=lease, parent=parent)
        if expected is None and added:
            now = self.place.time.now
            if session is None:
                self.sessions[id] = Session("", parent, now, now, added)
            else:
                session.records += added
                session.updated = max(session.updated, now)

    @rule(client=CLIENTS, id=SESSIONS, after=st.integers(0, 6), limit=st.none() | st.integers(0, 4),
          kinds=st.none() | st.frozensets(KINDS_OF_RECORDS))  # fmt: skip
    def read(self, client: int, id: str, after: int, limit: int | None, kinds: frozenset[str] | None) -> None:
        known = self.sessions[id].records if id in self.sessions else []
        expected = [each for each in known if each.seq > after and (kinds is None or each.kind in kinds)][:limit]
        self.does(client, expected, "read", id, after=after, limit=limit, kinds=kinds)

    @rule(client=CLIENTS, id=SESSIONS, question=QUESTIONS, yes=st.booleans())
    def answer(self, client: int, id: str, question: str, yes: bool) -> None:
        session = self.sessions.get(id)
        given = b"true" if yes else b"false"
        if session is None:
            self.does(client, StoreError, "answer", id, question, given)
            return
        self.does(client, question not in session.answers, "answer", id, question, given)
        session.answers.setdefault(question, given)

    @rule(client=CLIENTS, id=SESSIONS)
    def answers(self, client: int, id: str) -> None:
        self.does(client, self.sessions[id].answers if id in self.sessions else {}, "answers", id)

    @rule(client=CLIENTS, id=SESSIONS, holder=st.sampled_from(["me", "you"]), seconds=st.sampled_from([1, 30]))
    def acquire(self, client: int, id: str, holder: str, seconds: float) -> None:
        if self.is_leased(id):
            self.does(client, SessionLeasedError, "acquire", id, holder, seconds=seconds)
            return
        lease: Lease = self.does(client, Any, "acquire", id, holder, seconds=seconds)
        before = [old.token for old in self.leases if old.session == id]
        assert (lease.session, lease.holder, lease.expires) == (id, holder, self.place.time.now + seconds)
        assert lease.token > max(before, default=0)
        self.leases.append(lease)
        self.holders[id] = Holder(lease)

    @precondition(lambda self: self.leases)
    @rule(client=CLIENTS, seconds=st.sampled_from([1, 30]), data=st.data())
    def renew(self, client: int, seconds: float, data: st.DataObject) -> None:
        lease = self.lease_of(data) or self.leases[-1]
        if not self.is_newest(lease, lease.session):
            self.does(client, LeaseLostError, "renew", lease, seconds=seconds)
            return
        renewed = Lease(lease.session, lease.holder, lease.token, self.place.time.now + seconds)
        self.does(client, renewed, "renew", lease, seconds=seconds)
        self.holders[lease.session].lease = renewed

    @precondition(lambda self: self.leases)
    @rule(client=CLIENTS, data=st.data())
    def release(self, client: int, data: st.DataObject) -> None:
        lease = self.lease_of(data) or self.leases[-1]
        self.does(client, None, "release", lease)
        if self.is_newest(lease, lease.session):
            self.holders[lease.session].given_back = True

    @rule(client=CLIENTS, id=SESSIONS, new=SESSIONS, upto=st.none() | st.integers(0, 4))
    def fork(self, client: int, id: str, new: str, upto: int | None) -> None:
        session = self.sessions.get(id)
        expected = StoreError if session is None else SequenceError if new in self.sessions else None
        self.does(client, expected, "fork", id, new, upto=upto)
        if session is not None and expected is None:
            now = self.place.time.now
            self.sessions[new] = Session(session.title, id, now, now, session.records[:upto])

    @rule(client=CLIENTS, id=SESSIONS, title=WORDS)
    def rename(self, client: int, id: str, title: str) -> None:
        self.does(client, None if id in self.sessions else StoreError, "rename", id, title)
        if id in self.sessions:
            self.sessions[id].title = title

    @rule(client=CLIENTS, id=SESSIONS)
    def delete(self, client: int, id: str) -> None:
        if self.is_leased(id):
            self.does(client, SessionLeasedError, "delete", id)
            return
        self.does(client, None, "delete", id)
        self.sessions.pop(id, None)
        if id in self.holders:
            self.holders[id].given_back = True

    @rule(client=CLIENTS, search=st.just("") | WORDS, parent=st.none() | st.sampled_from(["", "a"]),
          limit=st.integers(1, 3), pages=st.integers(0, 2))  # fmt: skip
    def list(self, client: int, search: str, parent: str | None, limit: int, pages: int) -> None:
        def says(session: Session) -> bool:
            texts = [session.title, *(each.data.decode().split('"')[3] for each in session.records)]
            return not search or any(search.lower() in text.lower() for text in texts)

        known = sorted(self.sessions.items(), key=lambda item: (item[1].updated, item[0]), reverse=True)
        expected = [id for id, each in known if says(each) and parent in (None, each.parent)]
        last = None
        for page in range(pages + 1):
            given = self.does(client, Any, "sessions", search=search, parent=parent, limit=limit, before=last)
            ids = expected[page * limit : (page + 1) * limit]
            assert [(info.id, info.holder) for info in given] == [(id, self.holder_of(id)) for id in ids]
            if not given:
                break
            last = given[-1]

    @rule(client=CLIENTS, id=SESSIONS)
    def info(self, client: int, id: str) -> None:
        given = self.does(client, Any, "info", id)
        session = self.sessions.get(id)
        if session is None:
            assert given is None
            return
        assert (given.id, given.title, given.parent) == (id, session.title, session.parent)
        assert (given.created, given.updated) == (session.created, session.updated)
        assert (given.records, given.holder) == (len(session.records), self.holder_of(id))

    @rule(seconds=st.sampled_from([0.5, 1, 29, 30, 1000, -1, -1000]))
    def time_passes_or_is_set(self, seconds: float) -> None:
        self.place.time.now += seconds


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sqlite-full"])
def test_two_programs_on_one_place_do_what_a_dict_says(kind: str, request: pytest.FixtureRequest) -> None:
    new_url = request.getfixturevalue("postgres") if kind == "postgres" else str
    machine = type(f"Machine_{kind}", (StoreMachine,), {"kind": kind, "new_url": staticmethod(new_url)})
    examples = 40 if kind == "memory" else 20
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None))
