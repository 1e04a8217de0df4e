"""Observers see every event of a run, and change nothing in it."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from agentloop import Agent, add_observer, remove_observer, tool
from agentloop.errors import UsageError
from agentloop.events import ChildStreamStarted, MessageCommitted, StreamEvent, StreamStopped, ToolCallStarted
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls, says
from agentloop.wire import encode_event
from tests.support import first, nested, opened, watch


class Notes:
    """An observer that notes what it sees."""

    def __init__(self) -> None:
        self.seen: list[StreamEvent] = []

    def observe(self, event: StreamEvent) -> None:
        self.seen.append(event)


@contextmanager
def for_all(observer: Any) -> Generator[None]:
    add_observer(observer)
    try:
        yield
    finally:
        remove_observer(observer)


@tool
async def wait_forever() -> None:
    """Wait."""
    await trio.sleep_forever()


async def test_an_observer_sees_the_events_that_the_reader_gets_with_those_of_child_runs() -> None:
    notes = Notes()
    agent = nested(Agent(ScriptedModel("Hi."), name="inner"), 1).replace(observers=[notes])
    watched = await watch(agent)
    assert notes.seen == watched.events
    assert any(isinstance(event, ChildStreamStarted) for event in notes.seen)


async def test_an_observer_sees_a_run_that_has_no_reader() -> None:
    notes = Notes()
    await Agent(ScriptedModel("Hi."), observers=[notes]).run("go")
    assert [event.seq for event in notes.seen] == list(range(1, len(notes.seen) + 1))
    assert isinstance(notes.seen[-1], StreamStopped)


@pytest.mark.parametrize("way", ["break", "stop", "cancel"])
async def test_an_observer_sees_the_end_of_a_run_that_is_left_or_cancelled(way: str) -> None:
    notes = Notes()
    agent = Agent(ScriptedModel(calls("wait_forever")), tools=[wait_forever], observers=[notes])
    with trio.CancelScope() as scope:
        async with opened(agent) as stream:
            await first(stream, ToolCallStarted)
            if way == "stop":
                stream.stop()
            elif way == "cancel":
                scope.cancel()
                await trio.lowlevel.checkpoint()
    last = notes.seen[-1]
    assert isinstance(last, StreamStopped)
    assert last.reason == "cancelled"


async def test_the_observer_of_a_child_agent_sees_its_runs_and_no_others() -> None:
    notes = Notes()
    inner = Agent(ScriptedModel("Hi."), name="inner", observers=[notes])
    watched = await watch(nested(inner, 1))
    assert notes.seen == [event for event in watched.events if event.depth == 1]


async def test_an_observer_of_two_agents_and_of_the_process_sees_each_event_once() -> None:
    notes = Notes()
    inner = Agent(ScriptedModel("Hi."), name="inner", observers=[notes, notes])
    with for_all(notes), for_all(notes):
        watched = await watch(nested(inner, 1).replace(observers=[notes]))
    # `watch` runs another agent afterwards, to try the session.
    assert notes.seen[: len(watched.events)] == watched.events


async def test_an_observer_of_the_process_sees_every_agent_until_it_is_removed() -> None:
    notes = Notes()
    with for_all(notes):
        await Agent(ScriptedModel("Hi."), name="one").run("go")
        await Agent(ScriptedModel("Hi."), name="two").run("go")
    await Agent(ScriptedModel("Hi."), name="three").run("go")
    assert {event.agent for event in notes.seen} == {"one", "two"}


async def test_an_observer_that_fails_is_logged_and_dropped_while_the_run_and_the_others_continue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Notes):
        def observe(self, event: StreamEvent) -> None:
            super().observe(event)
            raise ValueError("no disk")

    broken, notes = Broken(), Notes()
    with caplog.at_level(logging.ERROR, logger="agentloop.run"):
        watched = await watch(Agent(ScriptedModel("Hi."), observers=[broken, notes]))
    assert watched.outcome.reason == "completed"
    assert notes.seen == watched.events
    assert broken.seen == watched.events[:1]
    [record] = caplog.records
    assert "Broken failed" in record.getMessage()
    assert record.exc_info is not None


async def test_observers_do_not_hold_up_a_run_however_much_it_says() -> None:
    notes = Notes()
    await Agent(ScriptedModel(says("word " * 500)), observers=[notes]).run("go")
    assert len(notes.seen) > 500


@pytest.mark.parametrize("stored", [False, True])
async def test_a_patient_observer_gets_all_events_in_order_and_those_that_it_waits_for_at_once(stored: bool) -> None:
    class Patient(Notes):
        wakes_for = frozenset({ToolCallStarted})

    patient = Patient()
    lags: list[int] = []

    @tool
    async def looks() -> None:
        """Look how far the observer is."""
        await trio.sleep(1)
        lags.append(sum(isinstance(event, ToolCallStarted) for event in patient.seen))

    model = ScriptedModel(says("word " * 100) + calls("looks"), says("word " * 100))
    agent = Agent(model, tools=[looks], observers=[patient])
    async with MemoryStore().open() as store, stored_session(store, "ann") as session:
        watched = await watch(agent, session=session if stored else None)
    assert patient.seen[: len(watched.events)] == watched.events
    assert lags[0] == 1


async def test_a_patient_observer_does_not_hold_up_a_run_that_nothing_else_reads() -> None:
    class Patient(Notes):
        wakes_for = frozenset({ToolCallStarted})

    patient = Patient()
    with trio.fail_after(1):
        await Agent(ScriptedModel(says("word " * 500)), observers=[patient]).run("go")
    assert len(patient.seen) > 500


async def test_an_observer_of_a_stored_session_sees_a_message_when_it_is_saved() -> None:
    place = MemoryStore()
    saved: list[bool] = []

    class Checks(Notes):
        def observe(self, event: StreamEvent) -> None:
            super().observe(event)
            if isinstance(event, MessageCommitted):
                records = place._sessions["ann"].records
                saved.append(encode_event(event) in [record.data for record in records])

    checks = Checks()
    async with place.open() as store, stored_session(store, "ann") as session:
        watched = await watch(Agent(ScriptedModel("Hi."), observers=[checks]), session=session)
    assert checks.seen == watched.events
    assert saved == [True, True]


@pytest.mark.parametrize("wrong", [object(), Notes, print, None])
def test_an_object_that_cannot_observe_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"method observe\(event\)"):
        Agent(ScriptedModel("Hi."), observers=[wrong])
    with pytest.raises(UsageError, match=r"method observe\(event\)"):
        add_observer(wrong)


def test_an_async_observer_is_refused() -> None:
    class Waits:
        async def observe(self, event: StreamEvent) -> None:
            """Wait."""

    with pytest.raises(UsageError, match="is async"):
        Agent(ScriptedModel("Hi."), observers=[Waits()])  # type: ignore[list-item]
