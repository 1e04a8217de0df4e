"""A run that is killed: ``python -m tests.stores.crashing sweep|twice|finish ...``.

The agents' models answer by what the transcript asks for, so that whoever resumes the run comes to its end.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import trio

from agentloop import Accept, Agent, Approve, Deny, ToolContext, tool
from agentloop.events import ElicitationRequested, Question
from agentloop.journal import OpenStore, Record
from agentloop.messages import AssistantMessage, UserMessage
from agentloop.models import ModelRequest
from agentloop.questions import Answer
from agentloop.stores import SQLiteStore, StoredSession, sqlite, stored_session
from agentloop.stores._journal_writer import LAG
from agentloop.stores.sqlite import connect
from agentloop.testing import FunctionModel, Response, calls
from agentloop.wire import encode_event

SESSION = "ann"

Moment: TypeAlias = Literal["before", "after", "returned", "told"]
"""When to die: right before the n-th transaction's COMMIT, right after it and before anybody knows, when the n-th
addition has returned, or when the reader was told the n-th event."""

ABREAST = 6
"""Processes at a time."""

POLICIES = {"once": "report", "form": "retry", "again": "retry", "maybe": "ask"}


class Place:
    """A folder with what the runs of one session leave: the database, and what was done, asked and told."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.database = folder / "sessions.db"

    def note(self, name: str, line: bytes, *, durably: bool = True) -> None:
        """Add a line to a file."""
        file = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, line + b"\n")
            if durably:
                os.fsync(file)
        finally:
            os.close(file)

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def store(self, life: int) -> SQLiteStore:
        """The store, in the n-th process; those before are dead for so long that their leases have run out."""
        return SQLiteStore(self.database, synchronous="full", clock=lambda: time.time() + 3600 * life)


# ----------------------------------------------------------------------------- the agents


def agent(place: Place) -> Agent:
    """One that acts in several ways at once, asks, and has another agent inside, which does so, too."""

    async def act(context: ToolContext[None]) -> str:
        # One after the other, so that not all of it is kept together.
        await trio.sleep(0.003 * int(context.call_id[1:]))
        place.note("effects", context.idempotency_key.encode())
        await trio.sleep(0.002)
        return f"did {context.call_id}"

    @tool
    async def once(context: ToolContext[None]) -> str:
        """Do what must not be done twice."""
        return await act(context)

    @tool(if_interrupted="retry")
    async def again(context: ToolContext[None]) -> str:
        """Do what may be done again with the same key."""
        return await act(context)

    @tool(if_interrupted="ask")
    async def maybe(context: ToolContext[None]) -> str:
        """Do what a person has to decide about."""
        return await act(context)

    @tool(if_interrupted="retry")
    async def form(context: ToolContext[None]) -> str:
        """Ask, and do it then."""
        answer = await context.ask("Which?", {"type": "object", "properties": {"tag": {"type": "string"}}})
        return f"{await act(context)} with {answer}"

    inner = Agent(
        _model([calls("once", id="i1") + calls("form", id="i2"), calls("again", id="i3")], "Inner."),
        name="inner",
        tools=[once, again, maybe, form],
    )
    script = [
        calls("once", id="c1")
        + calls("again", id="c2")
        + calls("maybe", id="c3")
        + calls("inner", id="c4", prompt="go")
        + calls("inner", id="c5", prompt="go, too"),
        calls("form", id="c6") + calls("again", id="c7"),
        calls("once", id="c8"),
    ]
    return Agent(_model(script, "Done."), tools=[once, again, maybe, form, inner.as_tool()])


def _model(script: Sequence[Response], last: str) -> FunctionModel:
    async def respond(request: ModelRequest) -> Response | str:
        # For so long that what was told before is kept by itself.
        await trio.sleep(2 * LAG)
        messages = request.messages
        assert isinstance(messages[0], UserMessage)
        turns = sum(isinstance(each, AssistantMessage) for each in messages)
        return script[turns] if turns < len(script) else last

    return FunctionModel(respond)


def handler(place: Place, *, approves: bool) -> Callable[[Question], Any]:
    async def answer(question: Question) -> Answer:
        place.note("asked", question.id.encode())
        if isinstance(question, ElicitationRequested):
            return Accept({"tag": "this"})
        return Approve() if approves else Deny()

    return answer


# ----------------------------------------------------------------------------- one process


class _Deadly:
    """A store that tells when an addition has returned."""

    def __init__(self, store: OpenStore, returned: Callable[[], None]) -> None:
        self._store = store
        self._returned = returned

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
        await self._store.append(session, records, **options)
        self._returned()


class _Commits:
    """A connection that tells of each COMMIT."""

    def __init__(self, db: sqlite3.Connection, tell: Callable[[Moment], None]) -> None:
        self._db = db
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement != "COMMIT":
            return self._db.execute(statement, *values)
        self._tell("before")
        done = self._db.execute(statement)
        self._tell("after")
        return done


async def live(place: Place, life: int, tell: Callable[[Moment], None], *, approves: bool = True) -> None:
    """Run the agent, or go on with it; each event that is told is noted."""
    async with place.store(life).open() as opened:
        store: Any = _Deadly(opened, lambda: tell("returned"))
        async with stored_session(store, SESSION) as session, opening(place, session, approves=approves) as stream:
            async for event in stream:
                place.note("told", encode_event(event), durably=False)
                tell("told")


def opening(place: Place, session: StoredSession, *, approves: bool) -> Any:
    """A stream that comes to the end of what the session is about."""
    asked = handler(place, approves=approves)
    if session.is_resumable:
        return agent(place).resume_stream(session, on_question=asked)
    return agent(place).stream("go", session=session, on_question=asked)


def _die_at(place: Place, life: int, moment: Moment, number: int) -> None:
    """Be a process that dies. Where there are not so many such moments, it comes to its end."""
    counts: dict[Moment, int] = {"before": 0, "after": 0, "returned": 0, "told": 0}

    def tell(now: Moment) -> None:
        counts[now] += 1
        if now == moment and counts[now] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect_and_count(*args: Any, **kwargs: Any) -> Any:
        return _Commits(connect(*args, **kwargs), tell)

    sqlite.connect = connect_and_count
    trio.run(partial(live, place, life, tell))
    place.note("counts", json.dumps(counts).encode())


def _begin(place: Place, life: int, moment: Moment, number: int) -> int:
    """Begin a process, and give its id."""
    pid = os.fork()
    if pid == 0:
        try:
            _die_at(place, life, moment, number)
        except Exception as error:  # noqa: BLE001 - this process has nobody else to tell it to
            place.note("errors", repr(error).encode())
        os._exit(0)
    return pid


def _was_killed(pid: int) -> bool:
    """Wait for the end of a process."""
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


# ------------------------------------------------------------------------------ the sweeps


def sweep(folder: Path, moment: Moment, step: int) -> None:
    """Kill a run at each such moment, or at every n-th of them. Print each place that was left."""
    whole = Place(folder / f"{moment}-whole")
    _was_killed(_begin(whole, 0, moment, 0))
    [line] = whole.lines("counts")
    places = [Place(folder / f"{moment}-{number}") for number in range(1, json.loads(line)[moment] + 1, step)]
    _sweep(places, 0, [(moment, 1 + number * step) for number in range(len(places))])


def twice(folder: Path, step: int) -> None:
    """Kill a run, and then the one that goes on with it."""
    first: list[tuple[Moment, int]] = [("after", number) for number in range(1, 16, step) for _ in range(3)]
    then: list[tuple[Moment, int]] = [("before", 2 + index % 12) for index in range(len(first))]
    places = [Place(folder / f"twice-{index}") for index in range(len(first))]
    _sweep(places, 0, first)
    _sweep(places, 1, then)


def _sweep(places: Sequence[Place], life: int, deaths: Sequence[tuple[Moment, int]]) -> None:
    """Let a process die in each place, several at a time: they mostly wait."""
    for start in range(0, len(places), ABREAST):
        here = list(zip(places, deaths, strict=True))[start : start + ABREAST]
        pids = [_begin(place, life, moment, number) for place, (moment, number) in here]
        for (place, _), pid in zip(here, pids, strict=True):
            print(json.dumps([str(place.folder), life + 1, _was_killed(pid)]), flush=True)


def finish(folder: Path) -> None:
    """Go on to the end, in the process that this is."""
    trio.run(partial(live, Place(folder), 1, lambda moment: None))


if __name__ == "__main__":
    what, where, *more = sys.argv[1:]
    if what == "sweep":
        found: Any = more[0]
        sweep(Path(where), found, int(more[1]))
    elif what == "twice":
        twice(Path(where), int(more[0]))
    else:
        finish(Path(where))
