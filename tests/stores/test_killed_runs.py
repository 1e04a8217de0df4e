"""kill -9 at any moment of a run with parallel tools, questions and a nested agent; then it is gone on with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
import trio

from agentloop._core.transcript import problems
from agentloop.events import (
    MessageCommitted,
    QuestionAnswered,
    ReasoningDelta,
    StreamEvent,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
)
from agentloop.journal import Record
from agentloop.messages import Message, ToolResult
from agentloop.stores import StoredSession, follow_session, stored_session
from agentloop.testing.wellformed import event_problems
from agentloop.wire import decode_event
from tests.stores import crashing
from tests.stores.crashing import POLICIES, SESSION, Place

pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(120)]

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "tests.stores.crashing"]

NAMES = {"c1": "once", "c2": "again", "c3": "maybe", "c6": "form", "c7": "again", "c8": "once"}
NAMES |= {"i1": "once", "i2": "form", "i3": "again"}
"""The calls that have an effect, and their tools."""


def left_by(what: str, folder: Path, *more: object) -> list[tuple[Place, int, bool]]:
    """Each place that the program has left, with the number of the next process, and whether the last was killed."""
    command = [*PROGRAM, what, str(folder), *map(str, more)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [(Place(Path(place)), life, killed) for place, life, killed in lines]


# ------------------------------------------------------------------------- what must hold


class Found:
    """What a dead process has left."""

    def __init__(self, place: Place, records: Sequence[Record]) -> None:
        self.effects = Counter(place.lines("effects"))
        self.asked = Counter(place.lines("asked"))
        events = list(events_in(records))
        self.finished = {key_of(each) for each in events if isinstance(each, ToolCallFinished)}
        self.begun = {key(record.stream, record.key) for record in records if record.kind == "call"}
        self.answered = {each.id for each in events if isinstance(each, QuestionAnswered)}


def events_in(records: Sequence[Record]) -> Iterator[StreamEvent]:
    for record in records:
        if "seq" in msgspec.json.decode(record.data):
            event = decode_event(record.data)
            assert isinstance(event, StreamEvent)
            yield event


def key(stream: str, call_id: str) -> str:
    """The call's idempotency key."""
    session = stream.rpartition("/")[0]
    return f"{session}#{call_id}" if session == "ann" else f"ann:{session}#{call_id}"


def key_of(event: ToolCallFinished) -> str:
    return key(event.stream, event.call_id)


def check_told(place: Place, records: Sequence[Record]) -> None:
    """What a reader was told is kept: as it was told, with the same number, in the same order, at every depth."""
    kept = [record.data.decode() for record in records]
    deltas = (TextDelta, ReasoningDelta, ToolCallDelta)
    told = [line for line in place.lines("told") if not isinstance(decode_event(line.encode()), deltas)]
    assert [line for line in kept if line in set(told)] == told


def check_journal(records: Sequence[Record]) -> None:
    """The journal as a whole: each part of a stream that ended well formed, each transcript one that can be sent."""
    events = list(events_in(records))
    numbers = [event.seq for event in events]
    assert numbers == sorted(set(numbers))
    parts: list[list[StreamEvent]] = [[]]
    for event in events:
        parts[-1].append(msgspec.structs.replace(event, seq=len(parts[-1]) + 1))
        if isinstance(event, StreamStopped):
            parts.append([])
    assert parts.pop() == []
    assert [event_problems(part) for part in parts] == [[] for _ in parts]
    transcripts: dict[str, list[Message]] = {}
    for event in events:
        if isinstance(event, MessageCommitted):
            transcript = transcripts.setdefault(event.session, [])
            assert event.index == len(transcript)
            transcript.append(event.message)
    assert [problems(each) for each in transcripts.values()] == [[] for _ in transcripts]


def check_effects(before: Found, place: Place, records: Sequence[Record], *, lives: int, approves: bool) -> None:
    """Each side effect is there as often as its tool has allowed."""
    after = Counter(place.lines("effects"))
    results = {key_of(event): event.result for event in events_in(records) if isinstance(event, ToolCallFinished)}
    # None of them twice, whatever happened in between.
    calls = Counter(key_of(event) for event in events_in(records) if isinstance(event, ToolCallFinished))
    assert set(calls.values()) == {1}
    # Called again with the same key, and in the same session.
    assert Counter(key.rpartition("#")[2] for key in results) == Counter([*NAMES, "i1", "i2", "i3", "c4", "c5"])
    assert set(after) <= set(results)
    for key, result in results.items():
        policy = POLICIES.get(NAMES.get(key.rpartition("#")[2], ""), "")
        if not policy:
            continue
        done = after[key]
        if key in before.finished:
            assert done == before.effects[key], f"{key} was done, and was called again"
        if result.status == "ok":
            assert done >= 1
        else:
            assert result.status == "interrupted"
            assert policy != "retry"
            assert "It may have run" in result.text
            assert key in before.begun
        if policy == "retry" or (policy == "ask" and approves):
            assert result.status == "ok"
            assert done <= lives
        else:
            assert done <= 1
        if policy != "retry" and key in before.begun - before.finished:
            # In doubt. Only who is asked may have it run once more.
            assert result.status == ("ok" if policy == "ask" and approves else "interrupted")


async def check_and_finish(place: Place, life: int, *, approves: bool) -> Found:
    """Reopen what was left; look at it, go on with it to the end, and look again."""
    assert place.lines("errors") == []
    async with place.store(life).open() as store:
        records = await store.read(SESSION)
        before = Found(place, records)
        check_told(place, records)
        async with stored_session(store, SESSION) as session:
            assert problems(session.messages) == []
            check_messages(session, records)
            messages = await finish(place, session, approves=approves)
        async with stored_session(store, SESSION) as session:
            assert not session.is_resumable
            assert session.messages == messages
        records = await store.read(SESSION)
        check_journal(records)
        check_effects(before, place, records, lives=life + 1, approves=approves)
        asked = Counter(place.lines("asked"))
        assert {id: asked[id] for id in before.answered} == {id: before.asked[id] for id in before.answered}
        followed = [event async for event in follow_session(store, SESSION)]
        assert followed == list(events_in(records))
    return before


def check_messages(session: StoredSession, records: Sequence[Record]) -> None:
    """What was kept of the session itself is in it."""
    results = {each.call_id: each for each in session.messages if isinstance(each, ToolResult)}
    for event in events_in(records):
        if isinstance(event, MessageCommitted) and event.session == SESSION:
            assert session.messages[event.index] == event.message
        if isinstance(event, ToolCallFinished) and event.session == SESSION:
            assert results[event.call_id] == event.result


async def finish(place: Place, session: StoredSession, *, approves: bool) -> tuple[Message, ...]:
    if not session.messages or session.is_resumable:
        async with crashing.opening(place, session, approves=approves) as stream:
            events = [event async for event in stream]
        assert event_problems(events) == []
        assert stream.outcome.output == "Done."
    assert problems(session.messages) == []
    assert session.messages[-1].text == "Done."
    return session.messages


# --------------------------------------------------------------------------------- sweeps


async def check_all(left: Sequence[tuple[Place, int, bool]], *, denies: bool = False) -> list[Found]:
    """Finish what was left in each place, several at a time: they mostly wait.

    Args:
      denies: whether to deny in every other place what is asked.
    """
    limiter = trio.CapacityLimiter(crashing.ABREAST)
    found: list[Found] = []

    async def check(number: int, place: Place, life: int) -> None:
        async with limiter:
            try:
                found.append(await check_and_finish(place, life, approves=not (denies and number % 2)))
            except Exception as error:
                error.add_note(f"in {place.folder}")
                raise

    async with trio.open_nursery() as nursery:
        for number, (place, life, _) in enumerate(left):
            nursery.start_soon(check, number, place, life)
    return found


@pytest.mark.parametrize(("moment", "step"), [("before", 1), ("after", 1), ("returned", 1), ("told", 7)])
async def test_killed_at_any_moment_it_is_whole_and_is_finished(moment: str, step: int, tmp_path: Path) -> None:
    left = await trio.to_thread.run_sync(left_by, "sweep", tmp_path, moment, step)
    found = await check_all(left, denies=True)
    # It was killed often enough, also where nobody knows what came of a call.
    assert sum(killed for _, _, killed in left) >= 8
    assert sum(len(each.begun - each.finished) for each in found) >= 5


async def test_the_process_that_resumes_may_be_killed_too(tmp_path: Path) -> None:
    left = await trio.to_thread.run_sync(left_by, "twice", tmp_path, 3)
    await check_all([each for each in left if each[1] == 2])
    assert sum(killed for _, life, killed in left if life == 2) >= 8


async def test_another_process_resumes_the_run(tmp_path: Path) -> None:
    left = await trio.to_thread.run_sync(left_by, "sweep", tmp_path, "after", 9)
    place, _, killed = left[1]
    assert killed
    await trio.to_thread.run_sync(left_by, "finish", place.folder)
    async with place.store(2).open() as store, stored_session(store, SESSION) as session:
        assert not session.is_resumable
        assert session.messages[-1].text == "Done."
        check_told(place, await store.read(SESSION))
        check_journal(await store.read(SESSION))
