"""Background runs of a `Toolsets` block: they outlive the stream that starts them, and end with the block."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from agentloop import (
    Accept,
    Agent,
    Approve,
    Deny,
    Limits,
    Permissions,
    Rule,
    Session,
    Stream,
    Toolsets,
    tool,
)
from agentloop.errors import InvalidAnswerError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    QuestionWithdrawn,
    StreamEvent,
    ToolCallFinished,
)
from agentloop.messages import UserMessage
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, assert_well_formed, calls, hangs, says
from agentloop.toolkit import background
from agentloop.tools import OpenToolset
from tests.runtime.test_background import answering, ask, helper, reports, results, run, sleeper


def lead(*script: Any, staff: Toolsets | None, **options: Any) -> Agent[Any, Any]:
    toolsets = [] if staff is None else [staff]
    return Agent(ScriptedModel(*script), name="lead", toolsets=toolsets, **options)


async def read(
    agent: Agent[Any, Any],
    prompt: str = "go",
    *,
    session: Session | None = None,
    on_event: Callable[[Stream[Any], StreamEvent], None] | None = None,
) -> list[StreamEvent]:
    """The events of a stream, read to its end."""
    events: list[StreamEvent] = []
    async with agent.stream(prompt, session=session) as stream:
        async for event in stream:
            events.append(event)
            if on_event is not None:
                on_event(stream, event)
    assert_well_formed(events)
    return events


def told(session: Session) -> list[str]:
    """The reports in a session."""
    return [text for _, text in reports(session.messages)]


pytestmark = pytest.mark.seconds(20_000)

DONE = "[Background run helper-1 has completed (2 turns, calls: work 1). Its answer:]\nGold."


# ----------------------------------------------------------------------- it outlives its stream


async def test_a_run_works_through_three_prompts_and_is_reported_to_the_first_request_after_its_end() -> None:
    session = Session()
    async with Toolsets(background(helper(calls("work"), "Gold.", tools=[sleeper(60)]))) as staff:
        began = trio.current_time()
        assert (await lead(run(), "It runs.", staff=staff).run("one", session=session)).output == "It runs."
        assert (await lead(calls("list_background_agents"), "Yes.", staff=staff).run("two", session=session)).output
        # Neither stream has waited for the run.
        assert trio.current_time() == began
        assert results(session.messages)[-1] == "helper-1: running"
        await trio.sleep(100)
        model = ScriptedModel("Gold!", "Bye.")
        agent = Agent(model, name="lead", toolsets=[staff])
        await agent.run("three", session=session)
        [prompt, report] = model.requests[0].messages[-2:]
        assert (prompt.text, report.text) == ("three", DONE)
        assert isinstance(report, UserMessage)
        assert report.reports == ("helper-1",)
        await agent.run("four", session=session)
    assert told(session) == [DONE]


async def test_an_end_is_reported_to_the_next_request_of_the_stream_that_is_open() -> None:
    session = Session()
    async with Toolsets(background(helper(calls("work"), "Gold.", tools=[sleeper(60)]))) as staff:
        await lead(run(), "It runs.", staff=staff).run("one", session=session)
        agent = lead(calls("long"), "Gold!", staff=staff, tools=[sleeper(100, "long")])
        await agent.run("two", session=session)
    assert [message.text for message in session.messages[-3:]] == ["worked 100", DONE, "Gold!"]


async def test_runs_of_agents_without_a_session_are_looked_after_by_the_next_one() -> None:
    async with Toolsets(background(helper(calls("work"), "Gold.", tools=[sleeper(60)]))) as staff:
        await lead(run(), "It runs.", staff=staff).run("one")
        outcome = await lead(calls("wait_for_background_agents"), "Gold!", staff=staff).run("two")
    assert results(outcome.messages) == ["helper-1: completed; a message with its end follows"]
    assert reports(outcome.messages) == [(("helper-1",), DONE)]


async def test_a_later_stream_steers_views_and_stops_a_run() -> None:
    model = ScriptedModel(says("At work. ") + calls("work"), says("Steered. ") + calls("work"), hangs())
    worker = Agent(model, name="helper", tools=[sleeper(10)])
    session = Session()
    async with Toolsets(background(worker)) as staff:
        await lead(run(), "It runs.", staff=staff).run("one", session=session)
        steer = calls("steer_background_agent", run_id="helper-1", message="Be quick.")
        await lead(steer, "Told it.", staff=staff).run("two", session=session)
        await trio.sleep(25)
        view = calls("view_background_agent", run_id="helper-1")
        stop = calls("stop_background_agent", run_id="helper-1")
        await lead(view, stop, "Stopped.", staff=staff).run("three", session=session)
    assert model.requests[1].messages[-1].text == "Be quick."
    assert results(session.messages)[-2:] == [
        "helper-1: running\nSteered. ",
        "helper-1: cancelled; a message with its end follows",
    ]
    [report] = told(session)
    assert "has ended without an answer (cancelled: its parent stopped it) (2 turns, calls: work 2)" in report


async def test_two_streams_at_once_share_a_block_and_each_end_is_reported_once_to_the_one_that_started_it() -> None:
    first, second = Session(), Session()
    one = helper(calls("work"), "One.", name="one", tools=[sleeper(10)])
    two = helper(calls("work"), "Two.", name="two", tools=[sleeper(10)])

    async def chat(staff: Toolsets, session: Session, name: str) -> None:
        agent = lead(run(name), calls("long"), "Done.", "More.", staff=staff, tools=[sleeper(100, "long")])
        await agent.run("go", session=session)

    async with Toolsets(background(one, two)) as staff, trio.open_nursery() as nursery:
        nursery.start_soon(chat, staff, first, "one")
        nursery.start_soon(chat, staff, second, "two")
    assert [ids for ids, _ in reports(first.messages)] == [("one-1",)]
    assert [ids for ids, _ in reports(second.messages)] == [("two-1",)]


async def test_of_streams_without_a_session_the_one_that_started_a_run_is_told_of_its_end() -> None:
    worker = helper(calls("work"), "Gold.", tools=[sleeper(20)])
    told_to: list[str] = []

    async def chat(staff: Toolsets, name: str, script: Sequence[Any], after: float) -> None:
        await trio.sleep(after)
        tools = [sleeper(100, "long"), sleeper(20, "short")]
        limits = Limits(identical_turns=20)
        outcome = await lead(*script, staff=staff, tools=tools, limits=limits).run("go")
        told_to.extend([name for _ in reports(outcome.messages)])

    async with Toolsets(background(worker)) as staff, trio.open_nursery() as nursery:
        # The first one joins before the other has started the run, and takes turns while that runs.
        looks = [calls("short")] * 8
        nursery.start_soon(chat, staff, "first", [*looks, "Done.", "More."], 0)
        nursery.start_soon(chat, staff, "starter", [run(), calls("long"), "Done.", "More."], 5)
    assert told_to == ["starter"]


async def test_a_session_neither_sees_nor_reads_the_runs_of_another_one() -> None:
    first, second = Session(), Session()
    async with Toolsets(background(helper(calls("work"), "Gold.", tools=[sleeper(10)]))) as staff:
        await lead(run(), "It runs.", staff=staff).run("one", session=first)
        for _ in range(2):
            await lead(calls("list_background_agents"), "Well.", staff=staff).run("two", session=second)
            await lead(calls("list_background_agents"), "Well.", staff=staff).run("three")
            assert results(second.messages)[-1] == "There are none."
            await trio.sleep(20)
        assert told(second) == []
        await lead("Gold!", staff=staff).run("four", session=first)
        assert told(first) == [DONE]


async def test_a_placeholder_in_a_report_stands_for_the_same_secret_in_the_stream_that_reads_it() -> None:
    first, second = "AKIAIOSFODNN7EXAMPL1", "AKIAIOSFODNN7EXAMPL2"
    used: list[str] = []

    @tool
    async def deploy(key: str) -> str:
        used.append(key)
        return "deployed"

    worker = helper(calls("work"), "Use [secret:1:aws-key].", tools=[sleeper(5)])
    async with Toolsets(background(worker)) as staff:
        await lead(run(task=f"Look at {first}"), "It runs.", staff=staff, redact=True).run(f"Look at {first}")
        await trio.sleep(10)
        script = [calls("deploy", key="[secret:2:aws-key]"), "Done."]
        outcome = await lead(*script, staff=staff, redact=True, tools=[deploy]).run(f"Not {second}")
    assert [message.text for message in outcome.messages[:2]] == [
        "Not [secret:1:aws-key]",
        "[Background run helper-1 has completed (2 turns, calls: work 1). Its answer:]\nUse [secret:2:aws-key].",
    ]
    assert used == [first]


async def test_a_run_that_uses_its_own_block_does_not_wait_for_its_own_end() -> None:
    blocks: list[Toolsets] = []

    def own_block(_info: object) -> Toolsets:
        return blocks[0]

    model = ScriptedModel(calls("wait_for_background_agents"), "Gold.")
    worker = Agent(model, name="helper", toolsets=[own_block])
    async with Toolsets(background(worker)) as staff:
        blocks.append(staff)
        began = trio.current_time()
        await lead(run(), calls("wait_for_background_agents"), "Done.", staff=staff).run("go")
        assert trio.current_time() == began
    assert results(model.requests[1].messages) == ["helper-1: running"]


async def test_a_stored_session_that_is_opened_anew_for_each_stream_looks_after_its_runs() -> None:
    worker = ScriptedModel(calls("pause"), calls("ask"), calls("work"), calls("work"), "Gold.")
    async with MemoryStore().open() as store:
        toolset = background(Agent(worker, name="helper", tools=[ask, sleeper(3, "pause"), sleeper(20)]))
        async with Toolsets(toolset) as staff:
            async with stored_session(store, "s") as session:
                await lead(run(), "It runs.", staff=staff).run("one", session=session)
            async with stored_session(store, "s") as session:
                script = [calls("list_background_agents"), calls("short"), "Well."]
                agent = lead(*script, staff=staff, tools=[sleeper(5, "short")])
                await read(agent, session=session, on_event=answering(Accept({})))
                assert results(session.messages)[1] == "helper-1: running"
            # The permissions of the session hold as they are in its present opening.
            async with stored_session(store, "s", permissions=Permissions(deny=[Rule("work")])) as session:
                await lead("Well.", staff=staff).run("three", session=session)
            await trio.sleep(100)
            async with stored_session(store, "s") as session:
                await lead("Gold!", "Bye.", staff=staff).run("four", session=session)
                assert len(told(session)) == 1
    assert results(worker.requests[-1].messages) == [
        "worked 3",
        "Accept",
        "worked 20",
        "Denied by the rule work.",
    ]


async def test_a_rule_that_a_person_approves_for_a_run_is_kept_with_the_session_that_is_open() -> None:
    @tool(requires_approval=True)
    async def pay() -> str:
        return "paid"

    worker = ScriptedModel(calls("pause"), calls("pay"), "Paid.", calls("pay"), "Paid.")
    async with MemoryStore().open() as store:
        toolset = background(Agent(worker, name="helper", tools=[pay, sleeper(3, "pause")]))
        async with Toolsets(toolset) as staff:
            async with stored_session(store, "s") as session:
                await lead(run(), "It runs.", staff=staff).run("one", session=session)
            async with stored_session(store, "s") as session:
                agent = lead(calls("short"), "Well.", staff=staff, tools=[sleeper(5, "short")])
                await read(agent, session=session, on_event=answering(Approve(always=True)))
            async with stored_session(store, "s") as session:
                agent = lead(run(), calls("short"), "Well.", staff=staff, tools=[sleeper(5, "short")])
                await agent.run("three", session=session)
    assert results(worker.requests[-1].messages) == ["paid"]


# ------------------------------------------------------------------------- and ends with the block


def endless(ended: list[str]) -> Any:
    @tool
    async def endless() -> str:
        try:
            await trio.sleep(10_000)
        finally:
            ended.append("run")
        return "never"

    return endless


@pytest.mark.parametrize("way", ["left", "raised", "cancelled", "left while a stream is open"])
async def test_no_run_outlives_the_block(way: str) -> None:
    ended: list[str] = []
    with trio.move_on_after(5 if way == "cancelled" else 1000):
        try:
            async with Toolsets(background(helper(calls("endless"), tools=[endless(ended)]))) as staff:
                if way.endswith("open"):
                    async with lead(run(), hangs(), staff=staff).stream("go") as stream:
                        async for event in stream:
                            if isinstance(event, ToolCallFinished):
                                break
                else:
                    await lead(run(), "It runs.", staff=staff).run("go")
                assert ended == []
                if way == "raised":
                    raise ValueError("mine")
                if way == "cancelled":
                    await trio.sleep_forever()
        except ValueError as error:
            assert str(error) == "mine"  # noqa: PT017 - only one of the ways raises
    assert ended == ["run"]


async def test_the_other_toolsets_of_a_block_stop_when_the_runs_have_ended() -> None:
    happened: list[str] = []

    class Files:
        name = "files"

        @asynccontextmanager
        async def open(self) -> AsyncGenerator[OpenToolset]:
            yield Opened()
            happened.append("files")

    class Opened:
        async def list_tools(self) -> Sequence[Any]:
            return ()

    async with Toolsets(Files(), background(helper(calls("endless"), tools=[endless(happened)]))) as staff:
        await lead(run(), "It runs.", staff=staff).run("go")
    assert happened == ["run", "files"]


async def test_a_call_after_the_end_of_the_block_starts_nothing() -> None:
    staff = Toolsets(background(helper("Gold.")))
    is_open = trio.Event()

    async def hold() -> None:
        async with staff:
            is_open.set()
            await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await is_open.wait()
        agent = lead(calls("long"), run(), "Done.", staff=staff, tools=[sleeper(10, "long")])
        async with agent.stream("go") as stream:
            outcome = await stream.wait()
    assert outcome.reason == "failed"
    assert "has died" in outcome.detail


# ------------------------------------------------------------------------------------ its questions


async def test_a_question_waits_until_a_stream_is_open_and_reaches_its_reader() -> None:
    session = Session()
    worker = helper(calls("work"), calls("ask"), "Gold.", tools=[ask, sleeper(5)])
    async with Toolsets(background(worker)) as staff:
        await lead(run(), "It runs.", staff=staff).run("one", session=session)
        await trio.sleep(100)
        agent = lead(calls("long"), "Gold!", staff=staff, tools=[sleeper(100, "long")])
        events = await read(agent, session=session, on_event=answering(Accept({})))
    [question] = [event for event in events if isinstance(event, ElicitationRequested)]
    assert (question.message, question.background, question.agent) == ("Well, helper?", "helper-1", "lead")
    assert told(session) == [
        "[Background run helper-1 has completed (3 turns, calls: work 1, ask 1). Its answer:]\nGold.",
    ]


async def test_a_question_that_nobody_has_answered_is_asked_again_in_the_next_stream() -> None:
    session = Session()
    async with Toolsets(background(helper(calls("ask"), "Gold.", tools=[ask]))) as staff:
        # The stream ends although the question is open.
        agent = lead(run(), calls("short"), "It runs.", staff=staff, tools=[sleeper(5, "short")])
        events = await read(agent, session=session)
        assert [type(event) for event in events if isinstance(event, (ElicitationRequested, QuestionWithdrawn))] == [
            ElicitationRequested,
            QuestionWithdrawn,
        ]
        agent = lead(calls("short"), "Gold!", staff=staff, tools=[sleeper(5, "short")])
        await read(agent, session=session, on_event=answering(Accept({})))
    assert len(told(session)) == 1


async def test_a_handler_answers_while_no_stream_is_open() -> None:
    async def always(_question: object) -> Accept:
        await trio.sleep(1)
        return Accept({})

    session = Session()
    toolset = background(helper(calls("ask"), "Gold.", tools=[ask]), on_question=always)
    async with Toolsets(toolset) as staff:
        await lead(run(), "It runs.", staff=staff).run("one", session=session)
        await trio.sleep(10)
        await lead("Gold!", staff=staff).run("two", session=session)
    assert len(told(session)) == 1


async def test_a_stream_without_a_reader_declines_a_question_as_one_of_its_own() -> None:
    model = ScriptedModel(calls("ask"), "No gold.")
    session = Session()
    async with Toolsets(background(Agent(model, name="helper", tools=[ask]))) as staff:
        agent = lead(run(), calls("short"), "Done.", staff=staff, tools=[sleeper(5, "short")])
        await agent.run("one", session=session)
    assert results(model.requests[1].messages) == ["Decline"]
    assert len(told(session)) == 1


async def test_an_answer_that_does_not_fit_is_refused_at_the_reader_who_answers_again() -> None:
    @tool(requires_approval=True)
    async def pay(amount: int) -> str:
        return f"paid {amount}"

    refused: list[InvalidAnswerError] = []

    def on_event(stream: Stream[Any], event: StreamEvent) -> None:
        if isinstance(event, ApprovalRequested):
            with pytest.raises(InvalidAnswerError) as caught:
                stream.answer(event, Approve(arguments={"amount": "much"}))
            refused.append(caught.value)
            assert caught.value.question == event.id
            stream.answer(event, Approve(arguments={"amount": 3}))

    model = ScriptedModel(calls("pay", amount=5), "Paid.")
    async with Toolsets(background(Agent(model, name="helper", tools=[pay]))) as staff:
        await read(lead(run(), calls("short"), "Done.", staff=staff, tools=[sleeper(5, "short")]), on_event=on_event)
    assert len(refused) == 1
    assert results(model.requests[1].messages) == ["paid 3"]


# ------------------------------------------------------------------- what it may do, and what it costs


@pytest.mark.parametrize("whose", ["agent", "session"])
async def test_the_permissions_of_the_stream_that_started_it_bind_a_run_for_good(whose: str) -> None:
    permissions = Permissions(deny=[Rule("work")])
    model = ScriptedModel(calls("short"), calls("work"), "No gold.")
    worker = Agent(model, name="helper", tools=[sleeper(1), sleeper(10, "short")])
    session = Session()
    if whose == "session":
        session.permissions = permissions
    async with Toolsets(background(worker)) as staff:
        agent = lead(run(), "It runs.", staff=staff, permissions=permissions if whose == "agent" else None)
        await agent.run("one", session=session)
        await trio.sleep(30)
    assert "Denied" in results(model.requests[2].messages)[-1]


async def test_usage_counts_in_the_session_and_not_in_the_stream_that_started_it() -> None:
    worker = helper(calls("work"), calls("work"), "Gold.", tools=[sleeper(10)])
    session = Session()
    async with Toolsets(background(worker)) as staff:
        agent = lead(run(), calls("short"), "Done.", staff=staff, tools=[sleeper(15, "short")])
        outcome = await agent.run("one", session=session)
        assert outcome.usage.requests == 3
        await trio.sleep(30)
    assert (await session.usage()).requests == 6


async def test_the_limits_of_the_stream_that_started_it_hold_until_that_ends() -> None:
    # The first run is stopped by the limit before it has its answer.
    model = ScriptedModel(calls("work"), calls("work"), "Gold.")
    worker = Agent(model, name="helper", tools=[sleeper(10)])
    session = Session()
    async with Toolsets(background(worker)) as staff:
        limits = Limits(requests=3)
        agent = lead(run(), calls("short"), "Done.", staff=staff, tools=[sleeper(15, "short")], limits=limits)
        seen: list[str] = []

        def deny(stream: Stream[Any], event: StreamEvent) -> None:
            if isinstance(event, ContinueRequested):
                seen.append(event.background)
                stream.answer(event, Deny())

        await read(agent, session=session, on_event=deny)
        assert seen == ["helper-1", ""]
        # The same again, and the stream ends before the run asks for more.
        agent = lead(run(), "It runs.", staff=staff, limits=limits)
        await agent.run("two", session=session)
        await trio.sleep(30)
        await lead("Done.", staff=staff).run("three", session=session)
    assert "limit: requests" in told(session)[0]
    assert "helper-2 has completed" in told(session)[1]


async def test_the_tool_calls_of_a_run_count_against_the_limit_of_the_stream_that_started_it() -> None:
    worker = Agent(ScriptedModel(calls("work"), calls("work"), "Gold."), name="helper", tools=[sleeper(10)])
    seen: list[tuple[str, str]] = []

    def deny(stream: Stream[Any], event: StreamEvent) -> None:
        if isinstance(event, ContinueRequested):
            seen.append((event.background, event.limit))
            stream.answer(event, Deny())

    async with Toolsets(background(worker)) as staff:
        tools, limits = [sleeper(100, "long")], Limits(tool_calls=3)
        agent = lead(run(), calls("long"), "Done.", "Oh.", staff=staff, tools=tools, limits=limits)
        await read(agent, on_event=deny)
    assert seen == [("helper-1", "tool_calls")]


async def test_a_pause_of_a_stream_does_not_hold_a_run() -> None:
    model = ScriptedModel(calls("work"), "Gold.")
    toolset = background(Agent(model, name="helper", tools=[sleeper(1)]))
    async with Toolsets(toolset) as staff, lead(run(), "Done.", staff=staff).stream("go") as stream:
        async for event in stream:
            if isinstance(event, ToolCallFinished):
                stream.pause()
                await trio.sleep(10)
                assert len(model.requests) == 2
                stream.resume()


# -------------------------------------------------------------------------- sessions with a journal


async def test_a_parked_stream_neither_stops_a_run_nor_passes_its_question_on() -> None:
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        worker = helper(calls("ask"), "Gold.", tools=[ask])
        async with Toolsets(background(worker)) as staff:
            script = [run() + calls("ask"), calls("long"), "Gold!"]
            agent = lead(*script, staff=staff, tools=[ask, sleeper(10, "long")])
            outcome = await agent.run("go", session=session, on_question="park")
            [question] = outcome.questions
            assert isinstance(question, ElicitationRequested)
            assert question.message == "Well, lead?"
            events: list[StreamEvent] = []
            async with agent.resume_stream(session, {question.id: Accept({})}) as stream:
                async for event in stream:
                    events.append(event)
                    # The question of the resumed call has its answer.
                    if isinstance(event, ElicitationRequested) and event.background:
                        stream.answer(event, Accept({}))
            asked = [event.message for event in events if isinstance(event, ElicitationRequested) if event.background]
            assert asked == ["Well, helper?"]
        assert len(told(session)) == 1


@pytest.mark.parametrize("way", ["the block has ended", "the run that started it is resumed elsewhere"])
async def test_the_model_is_told_that_a_run_is_lost(way: str) -> None:
    answers: dict[str, Accept] = {}
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session, Toolsets(background(helper(hangs()))) as staff:
            if way.startswith("the block"):
                await lead(run(), "It runs.", staff=staff).run("one", session=session)
            else:
                agent = lead(run(), calls("ask"), staff=staff, tools=[ask])
                outcome = await agent.run("one", session=session, on_question="park")
                answers[outcome.questions[0].id] = Accept({})
        async with stored_session(store, "s") as session, Toolsets(background(helper("Gold."))) as staff:
            if way.startswith("the block"):
                await lead("Oh.", staff=None).run("two", session=session)
            else:
                await lead("Oh.", staff=staff, tools=[ask]).resume(session, answers)
            lost = (
                "[Background run helper-1 has ended without an answer (interrupted: the block that it belonged to has "
                "ended, or its process has).]"
            )
            assert told(session) == [lost]
            # And no run gets its id.
            await lead(run(), "It runs.", staff=staff).run("three", session=session)
            assert results(session.messages)[-1].startswith("helper-2 is running")
        async with stored_session(store, "s") as session:
            await lead("Oh.", staff=None).run("four", session=session)
            assert len(told(session)) == 2
