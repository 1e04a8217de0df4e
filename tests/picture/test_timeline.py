"""The timeline that is derived from a journal: what took how long, inside of what, and why it ended."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from agentloop import Agent, Approve, Limits, Team, ToolContext, tool
from agentloop.errors import ModelError
from agentloop.events import ContinueRequested
from agentloop.journal import Record
from agentloop.messages import user_message
from agentloop.models import ModelRequest
from agentloop.picture import timeline
from agentloop.stores import MemoryStore, fork_session, stored_session
from agentloop.testing import ScriptedModel, calls, fails, hangs
from agentloop.toolkit import background
from tests.picture.support import (
    drawn,
    only,
    outline,
    run_answered,
    run_parked,
    run_stopped,
    search,
    shifted,
    slow,
    use_virtual_time,
)

pytestmark = pytest.mark.seconds(1000)


@pytest.fixture(autouse=True)
def _virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    use_virtual_time(monkeypatch)


async def test_a_parked_run_is_a_tree_of_spans_with_their_true_times() -> None:
    async with MemoryStore().open() as store:
        await run_parked(store)
        picture = await drawn(store, "trip")
    pause = only(picture, "retry").seconds
    first, _, second, weather, hotels, call = [span for span in picture.spans if span.parent == 1]
    assert [first.status, second.status, weather.status, call.status] == ["discarded", "ok", "ok", "ok"]
    assert "reset" in first.cause
    assert second.first is not None
    assert round(second.first - second.begin, 2) == 1.0
    assert round(hotels.begin - weather.begin, 2) == 0
    assert round(call.seconds, 2) == 6.0
    child = picture.spans[call.id + 1]
    assert (child.kind, child.name, child.parent) == ("run", "researcher", call.id)
    crawl = only(picture, "tool", "crawl")
    assert (crawl.status, round(crawl.seconds, 2)) == ("timeout", 4.0)
    assert "4 s" in crawl.cause
    assert picture.spans[child.id + 1].waits_for == crawl.id
    parked = only(picture, "parked")
    assert (parked.parent, round(parked.seconds, 2)) == (None, 60.0)
    # The resumed turn had its response already: no request is drawn in it.
    again = picture.spans[parked.id + 1]
    assert [kind for kind, *_ in outline(picture)[again.id :]] == ["run", "turn", "tool", "question", "turn", "request"]
    summary = picture.summary
    assert round(summary.total - pause, 2) == 73.5
    assert round(summary.parked, 2) == 60.0
    assert {share.name: round(share.seconds, 2) for share in summary.shares if share.name in ("models", "tools")} == {
        "models": 7.5,
        "tools": 7.0,
    }
    assert sum(segment.end - segment.begin for segment in summary.critical) == pytest.approx(summary.active)
    assert picture.gaps == ((parked.begin, parked.end),)


async def test_a_call_waits_for_the_person_before_its_function_runs() -> None:
    async with MemoryStore().open() as store:
        await run_answered(store)
        picture = await drawn(store, "trip")
    question, call = only(picture, "question"), only(picture, "tool", "book")
    assert (question.parent, round(question.seconds, 1), question.status) == (call.id, 7.0, "ok")
    assert call.ran == question.end
    assert picture.summary.slowest[0] == (question.id, question.seconds)
    assert ("answered by", "reader") in question.details
    assert question.id in {segment.span for segment in picture.summary.critical}


async def test_all_that_a_stop_cancels_names_the_run_that_was_stopped() -> None:
    async with MemoryStore().open() as store:
        await run_stopped(store)
        picture = await drawn(store, "stopped")
    run, call = only(picture, "run", "boss"), only(picture, "tool", "dig")
    assert (run.status, run.cause) == ("cancelled", "the user pressed stop")
    assert (call.status, call.cause_span) == ("cancelled", run.id)
    assert call.cause == "run boss was cancelled: the user pressed stop"


async def test_a_run_of_a_process_that_died_ends_with_its_last_record_and_waits_for_another() -> None:
    async with MemoryStore().open() as store:
        await run_answered(store)
        records = list(await store.read("trip"))
        cut = next(index for index, record in enumerate(records) if record.kind == "child_stream_started") + 4
        await store.append("dead", records[:cut])
        running = timeline(records[:cut], now=records[cut - 1].at + 5)
        assert running.is_running
        assert running.spans[0].seconds == pytest.approx(records[cut - 1].at + 5 - records[0].at)
        await trio.sleep(100)
        async with stored_session(store, "dead"):
            pass
        picture = await drawn(store, "dead")
    run = only(picture, "run", "clerk")
    assert (run.status, run.end, run.cause) == (
        "interrupted",
        records[cut - 1].at,
        "its process, or its store, was gone",
    )
    assert only(picture, "stopped").begin == run.end
    assert only(picture, "tool", "researcher").status == "interrupted"


async def test_summaries_requests_of_tools_limits_and_messages_have_spans() -> None:
    @tool
    async def think(context: ToolContext[None]) -> str:
        """Ask the model."""
        context.warn("odd", "this is odd")
        return (await context.ask_model(ModelRequest((user_message("What?"),)))).text

    agent = Agent(
        slow(calls("think"), "Thought.", "Done.", "More.", "A summary."),
        name="thinker",
        tools=[think],
        limits=Limits(requests=2),
    )
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            async with agent.stream("Go on. " * 900, session=session) as stream:
                stream.steer("And hurry")
                async for event in stream:
                    if isinstance(event, ContinueRequested):
                        await trio.sleep(3)
                        stream.answer(event.id, Approve())
            await session.compact(agent)
            await session.rewind(0)
        await fork_session(store, "s", "fork")
        picture = await drawn(store, "s")
        fork = await drawn(store, "fork")
    assert fork.fork_of == "s"
    asked = [span for span in picture.spans if ("purpose", "tool") in span.details]
    assert [picture.spans[span.parent or 0].name for span in asked] == ["think"]
    assert only(picture, "question").name == "go past the limit on requests?"
    assert only(picture, "warning").details == (("message", "this is odd"),)
    assert {span.name for span in picture.spans if span.kind == "message"} == {"message to the run", "session rewound"}
    compaction = only(picture, "compaction")
    assert [span.kind for span in picture.spans if span.parent == compaction.id] == ["request"]


async def test_a_handoff_is_a_moment_of_its_run() -> None:
    front = Agent(ScriptedModel(calls("handoff", agent="billing")), name="front", handoffs=["billing"])
    team = Team(front, Agent(ScriptedModel("Hello."), name="billing"))
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await team.run("go", session=session)
        picture = await drawn(store, "s")
    moment = only(picture, "message", "handed off to billing")
    assert (picture.spans[moment.parent or 0].name, moment.seconds) == ("front", 0)


async def test_a_background_run_is_drawn_to_its_end_and_its_report_is_a_moment() -> None:
    @tool
    async def work() -> str:
        await trio.sleep(5)
        return "worked"

    helper = Agent(ScriptedModel(calls("work"), "Gold."), name="helper", tools=[work])
    start = calls("run_background_agent", agent="helper", task="look")
    lead = Agent(ScriptedModel(start, "I wait.", "Done."), name="lead", toolsets=[background(helper)])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await lead.run("go", session=session)
        picture = await drawn(store, "s")
    run = only(picture, "run", "helper")
    assert (picture.spans[run.parent or 0].name, round(run.seconds), run.status) == ("run_background_agent", 5, "ok")
    moment = only(picture, "message", "helper-1 has ended")
    assert picture.spans[moment.parent or 0].name == "lead"


async def test_a_cancelled_request_is_drawn_until_its_cancellation() -> None:
    agent = Agent(ScriptedModel(hangs(), name="silent"), name="waiter")
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            with trio.move_on_after(4):
                await agent.run("Go", session=session)
        picture = await drawn(store, "s")
    request = only(picture, "request")
    assert (request.status, round(request.seconds, 2), request.first) == ("cancelled", 4.0, None)
    assert "the program left" in only(picture, "run").cause


async def test_an_old_journal_has_a_picture_that_says_what_is_not_known() -> None:
    agent = Agent(slow(calls("search", query="x", seconds=1.0), "Done"), tools=[search])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await agent.run("Go", session=session)
        records = list(await store.read("s"))
    untimed = timeline(shifted(records, 0.0))
    assert "no time" in untimed.notes[0]
    assert untimed.summary.total == 0
    torn = Record(2, "turn_started", b'{"type": "turn_started"', "s/1", "", records[0].at)
    newer = Record(3, "hologram_started", b"{}", "s/1", "", records[0].at - 10)
    noted = timeline([records[0], torn, newer, *records[1:]])
    assert "1 records cannot be read" in noted.notes[0]
    assert "set back" in noted.notes[1]
    assert timeline([]).spans == ()


def test_ends_without_a_beginning_are_passed_over() -> None:
    source = {"session": "s", "stream": "s/1", "agents": ["a"]}
    head = {"source": source, "seq": 1}
    kinds: list[dict[str, Any]] = [
        {"type": "stream_started", "message": {"type": "user", "parts": []}, "model": "m", **head},
        {"type": "turn_finished", "turn": 1, "reason": "final", **head},
        {"type": "question_declined", "id": "q", "note": "", **head},
        {"type": "compaction_finished", "tokens": 1, "first_kept": 0, "summary": "", **head},
        {"type": "tool_call_parked", "call_id": "c", "name": "x", **head},
        {
            "type": "response_discarded",
            "error": {"type": "E", "message": "m"},
            "model": "m",
            "next_model": "m",
            "delay": 0.0,
            **head,
        },
    ]
    records = [Record(i, kind["type"], json.dumps(kind).encode(), "s/1", "", 1.0) for i, kind in enumerate(kinds, 1)]
    assert [span.kind for span in timeline(records).spans] == ["run"]


async def test_failed_calls_declined_questions_and_failed_runs_say_why() -> None:
    @tool
    async def breaks() -> str:
        """Break."""
        raise OSError("the disk is full")

    @tool
    async def asks(context: ToolContext[None]) -> str:
        """Ask."""
        await context.ask("Which?", {"type": "object", "properties": {"tag": {"type": "string"}}})
        return "asked"

    agent = Agent(slow(calls("breaks") + calls("asks"), fails(ModelError("no more"))), tools=[breaks, asks])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            with pytest.raises(ModelError):
                await agent.run("Go", session=session, on_question="decline")
        picture = await drawn(store, "s")
    call, question, run = only(picture, "tool", "breaks"), only(picture, "question"), only(picture, "run")
    assert call.status == "error"
    assert ("error", "OSError: the disk is full") in call.details
    assert (question.name, question.status) == ("Which?", "denied")
    assert question.cause
    assert (run.status, run.cause) == ("error", "no more")
