"""Background runs: they outlive their call, are told of before their run can stop, and end with it at the latest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
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
    Team,
    ToolContext,
    UsageError,
    hooks,
    tool,
)
from agentloop.errors import ChildLimitError, ModelConnectionError, StreamStateError
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    ElicitationRequested,
    MessageCommitted,
    StreamEvent,
    StreamStopped,
    ToolCallFinished,
    TurnStarted,
)
from agentloop.messages import Message, Text, ToolResult, UserMessage
from agentloop.outcome import BackgroundRun
from agentloop.stores import MemoryStore, export_session, import_session, stored_session
from agentloop.testing import Response, ScriptedModel, assert_well_formed, calls, fails, hangs, says
from agentloop.toolkit import background
from tests.support import of, watch


def run(agent: str = "helper", task: str = "look") -> Response:
    """A response that starts ``agent`` in the background."""
    return calls("run_background_agent", agent=agent, task=task)


def helper(*script: Any, name: str = "helper", **options: Any) -> Agent[Any, Any]:
    return Agent(ScriptedModel(*script, name=f"model of {name}"), name=name, **options)


def lead(*script: Any, helpers: Sequence[Agent[Any, Any]], **options: Any) -> Agent[Any, Any]:
    return Agent(ScriptedModel(*script), name="lead", toolsets=[background(*helpers)], **options)


def sleeper(seconds: float, name: str = "work") -> Any:
    @tool(name=name)
    async def work() -> str:
        await trio.sleep(seconds)
        return f"worked {seconds:g}"

    return work


@tool
async def ask(context: ToolContext[Any]) -> str:
    answer = await context.ask(f"Well, {context.source.agents[-1]}?")
    return type(answer).__name__


def reports(messages: Sequence[Message]) -> list[tuple[tuple[str, ...], str]]:
    """The reports of a transcript, with the ids of the runs that they are about."""
    return [
        (message.reports, message.text) for message in messages if isinstance(message, UserMessage) if message.reports
    ]


def results(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages if isinstance(message, ToolResult)]


def answering(answer: Any) -> Any:
    def on_event(stream: Stream[Any], event: StreamEvent) -> None:
        if isinstance(event, (ElicitationRequested, ApprovalRequested)):
            stream.answer(event, answer)

    return on_event


# --------------------------------------------------------------------------- it outlives its call


async def test_a_background_run_goes_on_when_its_call_has_ended_and_the_model_is_told_before_it_can_stop() -> None:
    agent = lead(run(), "I wait.", "It found gold.", helpers=[helper(calls("work"), "Gold.", tools=[sleeper(5)])])
    seen = await watch(agent)
    call = of(seen.events, ToolCallFinished, depth=0)[0]
    end = of(seen.events, ChildStreamStopped)[0]
    assert call.seq < end.seq < of(seen.events, StreamStopped)[0].seq
    assert results(seen.messages)[0] == "helper-1 is running. You get a message with its answer when it ends."
    assert reports(seen.messages) == [(("helper-1",), "[Background run helper-1 has completed. Its answer:]\nGold.")]
    assert seen.outcome.output == "It found gold."


async def test_the_model_is_told_with_the_next_request_where_it_is_still_at_work() -> None:
    agent = lead(run(), calls("work"), calls("work"), "Done.", helpers=[helper("Gold.")], tools=[sleeper(1)])
    seen = await watch(agent)
    [report] = [event for event in of(seen.events, MessageCommitted, depth=0) if reports([event.message])]
    assert [event.turn for event in of(seen.events, TurnStarted, depth=0) if event.seq > report.seq] == [3, 4]
    assert len(seen.outcome.messages) == len(seen.messages)


async def test_runs_that_end_at_once_are_told_of_in_one_message_in_the_order_of_their_starts() -> None:
    one, two = helper("1", name="one"), helper(calls("work"), "2", name="two", tools=[sleeper(0)])
    seen = await watch(lead(run("one"), run("two"), calls("work"), "Done.", helpers=[one, two], tools=[sleeper(9)]))
    assert [ids for ids, _ in reports(seen.messages)] == [("one-1",), ("two-1",)] or reports(seen.messages) == [
        (("one-1", "two-1"), reports(seen.messages)[0][1])
    ]


async def test_each_agent_counts_its_own_runs() -> None:
    one, two = helper("1", "1", name="one"), helper("2", name="two")
    seen = await watch(lead(run("one"), run("two"), run("one"), *["Done."] * 4, helpers=[one, two]))
    assert [event.background for event in of(seen.events, ChildStreamStarted)] == ["one-1", "two-1", "one-2"]


async def test_the_permissions_of_the_agent_that_started_a_run_hold_after_a_handoff() -> None:
    model = ScriptedModel(calls("short"), calls("work"), "No gold.")
    worker = Agent(model, name="helper", tools=[sleeper(1), sleeper(2, "short")])
    strict = Agent(
        ScriptedModel(run(), calls("handoff", agent="other")),
        name="strict",
        toolsets=[background(worker)],
        handoffs=["other"],
        permissions=Permissions(deny=[Rule("work")]),
    )
    other = Agent(ScriptedModel(calls("long"), "Done.", "Done."), name="other", tools=[sleeper(9, "long")])
    await Team(strict, other).run("go")
    assert results(model.requests[-1].messages) == ["worked 2", "Denied by the rule work."]


async def test_they_hold_in_the_process_that_resumes_the_run_too() -> None:
    def team(*script: Any, goes_on: str) -> tuple[ScriptedModel, Team]:
        model = ScriptedModel(*script)
        worker = Agent(model, name="helper", tools=[sleeper(1), ask])
        strict = Agent(
            ScriptedModel(run(), calls("handoff", agent="other")),
            name="strict",
            toolsets=[background(worker)],
            handoffs=["other"],
            permissions=Permissions(deny=[Rule("work")]),
        )
        return model, Team(strict, Agent(ScriptedModel(goes_on, "Done."), name="other", toolsets=[background(worker)]))

    async with MemoryStore().open() as store:
        model, before = team(calls("ask"), goes_on="I wait.")
        async with stored_session(store, "s") as session:
            parked = await before.run("go", session=session, on_question="park")
        # Twice: what the first resume has written is what the second one reads.
        for script in (calls("ask"),), (calls("work"), "No gold."):
            model, again = team(*script, goes_on="Done.")
            async with stored_session(store, "s") as session:
                answers = {question.id: Accept({}) for question in parked.questions}
                parked = await again.resume(session, answers, on_question="park")
    assert parked.reason == "completed"
    assert [result for result in results(model.requests[-1].messages) if "work" in result] == [
        "Denied by the rule work."
    ]


async def test_calls_of_one_turn_start_no_more_runs_than_may_run_at_once() -> None:
    agent = helper(calls("work"), "Gold.", tools=[sleeper(5)])
    lead = Agent(ScriptedModel(run() + run() + run(), "I wait.", "Gold!"), toolsets=[background(agent, at_once=1)])
    seen = await watch(lead)
    full = "1 run already (helper-1): wait for one, or stop one"
    assert sorted(results(seen.messages)) == sorted(
        [full, full, "helper-1 is running. You get a message with its answer when it ends."]
    )
    assert len(of(seen.events, ChildStreamStarted)) == 1


async def test_an_answer_that_is_long_is_told_in_part_and_can_be_read() -> None:
    agent = lead(
        run(), "I wait.", calls("read_result", call_id="helper-1", offset=8990), "Done.", helpers=[helper("x" * 9000)]
    )
    seen = await watch(agent)
    [(_, text)] = reports(seen.messages)
    assert len(text) < 4500
    assert results(seen.messages)[1] == "[characters 8990 to 9000 of 9000]\n" + "x" * 10


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ([fails(ModelConnectionError("gone"))], "[Background run helper-1 has ended without an answer (failed: "),
        ([calls("stopper"), "never"], "[Background run helper-1 has ended without an answer (blocked: enough).]"),
        ([says("I am half-way.") + calls("stopper")], "has ended without an answer (blocked: enough). It wrote last:]"),
    ],
)
async def test_a_run_that_fails_is_told_of_with_its_reason(script: list[Any], told: str) -> None:
    @hooks.post_tool_use
    def stop(_value: hooks.PostToolUse) -> hooks.Block:
        return hooks.Block("enough")

    @tool
    async def stopper() -> str:
        return "stopped"

    seen = await watch(lead(run(), "I wait.", "Done.", helpers=[helper(*script, tools=[stopper], hooks=[stop])]))
    [(_, text)] = reports(seen.messages)
    assert told in text
    assert seen.outcome.reason == "completed"


async def test_stop_hooks_and_follow_ups_wait_for_the_reports() -> None:
    stopping: list[str] = []

    @hooks.stop
    def note(value: hooks.StopRequested) -> None:
        stopping.append(value.message.text)

    agent = lead(run(), "I wait.", "Told.", "And this.", helpers=[helper("Gold.")], hooks=[note])
    async with agent.stream("go") as stream:
        stream.follow_up("And that?")
        assert (await stream.wait()).output == "And this."
    assert stopping == ["Told.", "And this."]


@pytest.mark.seconds(1000)
async def test_a_steering_message_wakes_a_run_that_waits_for_its_background_run() -> None:
    agent = lead(run(), "I wait.", "Steered.", "Done.", helpers=[helper(calls("work"), "Gold.", tools=[sleeper(100)])])
    async with agent.stream("go") as stream:
        events: list[StreamEvent] = []
        async for event in stream:
            events.append(event)
            if isinstance(event, ToolCallFinished) and event.depth == 0:
                await trio.sleep(10)
                stream.steer("How far is it?")
    said = [event.message.text for event in of(events, MessageCommitted, depth=0)]
    assert said[3:6] == ["I wait.", "How far is it?", "Steered."]
    assert stream.outcome.output == "Done."
    assert_well_formed(events)


async def test_an_output_that_was_given_too_early_is_asked_for_again() -> None:
    agent = lead(run(), '{"n": 1}', '{"n": 2}', helpers=[helper("Gold.")], output_type=dict[str, int])
    assert (await agent.run("go")).output == {"n": 2}


async def test_usage_and_limits_count_background_runs() -> None:
    outcome = await lead(run(), "I wait.", "Done.", helpers=[helper("Gold.")]).run("go")
    assert outcome.usage.requests == 4
    busy = helper(*[calls("work")] * 9, tools=[sleeper(1)])
    async with lead(run(), "I wait.", "Done.", helpers=[busy], limits=Limits(requests=4)).stream("go") as stream:
        limited = await stream.wait()
    assert limited.reason == "limit"
    assert limited.usage.requests == 4


async def test_an_agent_that_gets_the_conversation_reads_the_report() -> None:
    worker = helper(calls("work"), "Gold.", tools=[sleeper(5)])
    front = lead(run() + calls("handoff", agent="billing"), helpers=[worker], handoffs=["billing"])
    seen = await watch(Team(front, helper("I wait.", "Done.", name="billing")))
    assert [ids for ids, _ in reports(seen.messages)] == [("helper-1",)]
    assert seen.outcome.output == "Done."


async def test_a_background_run_may_have_background_runs() -> None:
    inner = helper(calls("work"), "Inner.", name="inner", tools=[sleeper(3)])
    outer = Agent(ScriptedModel(run("inner"), "I wait.", "Outer."), name="outer", toolsets=[background(inner)])
    seen = await watch(lead(run("outer"), "I wait.", "Done.", helpers=[outer]))
    assert [event.background for event in of(seen.events, ChildStreamStarted)] == ["outer-1", "inner-1"]
    assert "Outer." in reports(seen.messages)[0][1]


# ------------------------------------------------------------------------------ and ends with it


@pytest.mark.seconds(100)
async def test_leaving_the_block_ends_background_runs() -> None:
    ended: list[str] = []

    @tool
    async def endless() -> str:
        try:
            await trio.sleep(10_000)
        finally:
            ended.append("endless")
        return "never"

    agent = lead(run(), "I wait.", helpers=[helper(calls("endless"), tools=[endless])])
    async with agent.stream("go") as stream:
        await trio.sleep(10)
    assert ended == ["endless"]
    assert stream.outcome.reason == "cancelled"


async def test_stopping_a_run_stops_its_background_runs_before_its_last_event() -> None:
    agent = lead(run(), "I wait.", helpers=[helper(says("Well, ") + hangs())])
    async with agent.stream("go") as stream:
        events: list[StreamEvent] = []
        async for event in stream:
            events.append(event)
            if isinstance(event, ToolCallFinished):
                stream.stop("enough")
    assert_well_formed(events)
    assert [event.reason for event in of(events, ChildStreamStopped)] == ["cancelled"]
    assert stream.outcome.reason == "cancelled"
    assert stream.outcome.detail == "enough"


async def test_a_time_limit_ends_background_runs() -> None:
    agent = lead(run(), "I wait.", helpers=[helper(hangs())], limits=Limits(seconds=5))
    seen = await watch(agent)
    assert seen.outcome.reason == "limit"
    assert [event.reason for event in of(seen.events, ChildStreamStopped)] == ["cancelled"]


async def test_a_run_that_fails_ends_its_background_runs() -> None:
    agent = lead(run(), fails(ModelConnectionError("gone")), helpers=[helper(hangs())])
    seen = await watch(agent)
    assert seen.outcome.reason == "failed"
    assert [event.reason for event in of(seen.events, ChildStreamStopped)] == ["cancelled"]


# -------------------------------------------------------------------------- its questions


async def test_a_background_run_asks_the_reader_when_its_call_has_ended() -> None:
    tools = [sleeper(5), ask]
    agent = lead(run(), "I wait.", "Done.", helpers=[helper(calls("work"), calls("ask"), "Gold.", tools=tools)])
    seen = await watch(agent, on_event=answering(Accept({})))
    [question] = of(seen.events, ElicitationRequested)
    assert question.message == "Well, helper?"
    assert question.seq > of(seen.events, ToolCallFinished, depth=0)[0].seq
    assert of(seen.events, ToolCallFinished, depth=1)[1].result.text == "Accept"


async def test_permissions_of_the_run_around_it_bind_a_background_run() -> None:
    guarded = sleeper(0, "guarded")
    agent = lead(
        run(),
        "I wait.",
        "Done.",
        helpers=[helper(calls("guarded"), "No gold.", tools=[guarded])],
        permissions=Permissions(deny=[Rule("guarded")]),
    )
    seen = await watch(agent)
    assert [event.result.status for event in of(seen.events, ToolCallFinished, depth=1)] == ["denied"]


@pytest.mark.seconds(10000)
async def test_a_person_who_thinks_does_not_use_up_the_time_of_the_run_around_it() -> None:
    async def think(_question: object) -> Approve | Accept:
        await trio.sleep(1000)
        return Accept({})

    agent = lead(
        run(), "I wait.", "Done.", helpers=[helper(calls("ask"), "Gold.", tools=[ask])], limits=Limits(seconds=30)
    )
    assert (await agent.run("go", on_question=think)).output == "Done."


# ------------------------------------------------------------------ parked, and resumed elsewhere


def staff(script: Sequence[Any], child_script: Sequence[Any]) -> Agent[Any, Any]:
    """The same agents in every process, with what is left for their models to say."""
    child = Agent(ScriptedModel(*child_script), name="helper", tools=[ask])
    return Agent(ScriptedModel(*script), name="lead", toolsets=[background(child)])


async def test_a_run_is_parked_with_its_background_run_and_resumed() -> None:
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            outcome = await staff([run(), "I wait."], [calls("ask")]).run("go", session=session, on_question="park")
        assert outcome.reason == "needs_input"
        [question] = outcome.questions
        assert (await store.sessions())[0].state == "waiting"
        async with stored_session(store, "s") as session:
            assert [each.id for each in session.questions] == [question.id]
            outcome = await staff(["Done."], ["Gold."]).resume(session, {question.id: Accept({})})
            assert outcome.output == "Done."
            assert reports(session.messages) == [
                (("helper-1",), "[Background run helper-1 has completed. Its answer:]\nGold.")
            ]
            assert not session.is_resumable


# --------------------------------------------------------------------------- from any tool


async def test_any_tool_may_start_a_background_run_and_look_after_it() -> None:
    seen: list[object] = []
    worker = helper(calls("work"), "Gold.", tools=[sleeper(5)])

    @tool
    async def begin(context: ToolContext[Any]) -> str:
        started = await context.start(worker, "look")
        seen.extend([started.id, started.agent, started.status, started.text, started.call_id == context.call_id])
        with pytest.raises(StreamStateError):
            _ = started.outcome
        outcome = await started.wait()
        seen.extend([outcome.output, started.status, started.text, started.outcome.output])
        with pytest.raises(StreamStateError):
            started.steer("Too late.")
        started.stop()
        return started.id

    outcome = await Agent(ScriptedModel(calls("begin"), "Told.", "Done."), tools=[begin]).run("go")
    assert seen == ["helper-1", "helper", "running", "", True, "Gold.", "completed", "Gold.", "Gold."]
    assert outcome.output == "Told."
    assert [ids for ids, _ in reports(outcome.messages)] == [("helper-1",)]


async def test_a_context_lists_the_background_runs_whose_end_was_not_told() -> None:
    lists: list[list[tuple[str, str]]] = []

    @tool
    async def look(context: ToolContext[Any]) -> str:
        lists.append([(started.id, started.status) for started in context.background])
        return "looked"

    worker = helper(calls("work"), "Gold.", tools=[sleeper(5)])
    agent = lead(run(), calls("look"), "I wait.", calls("look"), "Done.", helpers=[worker], tools=[look])
    await agent.run("go")
    assert lists == [[("helper-1", "running")], []]


async def test_twenty_may_run_at_once_and_the_next_start_is_refused() -> None:
    refused: list[str] = []

    @tool
    async def begin(context: ToolContext[Any]) -> str:
        for _ in range(20):
            await context.start(worker, "look")
        with pytest.raises(ChildLimitError, match="20 background runs are running already") as caught:
            await context.start(worker, "look")
        refused.append(str(caught.value))
        for started in context.background:
            started.stop()
        return "begun"

    worker = helper(*[hangs()] * 20)
    outcome = await Agent(ScriptedModel(calls("begin"), *["Done."] * 21), tools=[begin]).run("go")
    assert outcome.reason == "completed"
    assert len(refused) == 1
    assert sum(len(ids) for ids, _ in reports(outcome.messages)) == 20


async def test_a_start_that_cannot_be_is_an_error_of_the_tool() -> None:
    problems: list[type[BaseException]] = []

    @tool
    async def begin(context: ToolContext[Any]) -> str:
        for wrong in ("helper", None, agent):
            try:
                await context.start(wrong, "look")  # type: ignore[arg-type]
            except (UsageError, ChildLimitError) as error:
                problems.append(type(error))
        with pytest.raises(UsageError):
            await context.start(helper(), "")
        return "begun"

    agent = Agent(ScriptedModel(calls("begin"), "Done."), tools=[begin])
    assert (await agent.run("go")).output == "Done."
    assert problems == [UsageError, UsageError, ChildLimitError]


@pytest.mark.real_clock
async def test_a_plain_tool_starts_a_background_run_from_its_thread() -> None:
    worker = helper("Gold.")

    @tool
    def begin(context: ToolContext[Any]) -> str:
        started: BackgroundRun[Any] = trio.from_thread.run(context.start, worker, "look")
        return started.id

    outcome = await Agent(ScriptedModel(calls("begin"), *["Done."] * 2), tools=[begin]).run("go")
    assert "Gold." in reports(outcome.messages)[0][1]


# ------------------------------------------------------------------------------- the toolset


@pytest.mark.seconds(100)
async def test_the_model_looks_after_its_background_runs() -> None:
    worker = helper(says("Half of it.") + calls("work"), says("More.") + calls("work"), hangs(), tools=[sleeper(5)])
    agent = lead(
        run(),
        calls("view_background_agent", run_id="helper-1"),
        calls("steer_background_agent", run_id="helper-1", message="Be quick."),
        calls("wait_for_background_agents", seconds=20),
        calls("list_background_agents"),
        calls("stop_background_agent", run_id="helper-1"),
        calls("list_background_agents"),
        "Done.",
        helpers=[worker],
        tools=[sleeper(1)],
    )
    seen = await watch(agent)
    assert results(seen.messages)[1:] == [
        "helper-1: running\nIt has not written anything yet.",
        "helper-1 reads the message before its next step.",
        "helper-1: running",
        "helper-1: running",
        "helper-1: cancelled; a message with its end follows",
        "There are none.",
    ]
    assert "Be quick." in [event.message.text for event in of(seen.events, MessageCommitted, depth=1)]
    assert reports(seen.messages)[0][1] == (
        "[Background run helper-1 has ended without an answer (cancelled: its parent stopped it). "
        "It wrote last:]\nMore."
    )


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (calls("view_background_agent", run_id="x"), "no background agent 'x' is running, or waits for its report"),
        (calls("stop_background_agent", run_id=""), "those that are: none"),
        (calls("steer_background_agent", run_id="x", message="m"), "no background agent 'x'"),
        (calls("wait_for_background_agents", run_ids=["x"]), "no background agent 'x'"),
        (calls("wait_for_background_agents", seconds=1e9), "give a number from 0 to 3600"),
        (calls("wait_for_background_agents"), "There are none."),
        (calls("run_background_agent", agent="x", task="t"), "helper"),
        (calls("run_background_agent", agent="helper", task=" "), "prompt"),
    ],
)
async def test_a_model_reads_what_was_wrong_with_its_call(call: Response, told: str) -> None:
    outcome = await lead(call, "Done.", helpers=[helper()]).run("go")
    assert told in results(outcome.messages)[0]


async def test_no_more_run_at_once_than_the_toolset_allows() -> None:
    agent = Agent(
        ScriptedModel(run(), run(), calls("stop_background_agent", run_id="helper-1"), *["Done."] * 2),
        toolsets=[background(helper(hangs()), at_once=1)],
    )
    outcome = await agent.run("go")
    assert results(outcome.messages)[1] == "1 run already (helper-1): wait for one, or stop one"


@pytest.mark.parametrize("arguments", [(), ("helper",), (helper(), helper())])
def test_the_toolset_takes_agents_whose_names_differ(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError):
        background(*arguments)


@pytest.mark.parametrize("at_once", [0, 21, -1])
def test_the_toolset_allows_one_to_twenty_runs(at_once: int) -> None:
    with pytest.raises(UsageError, match="from 1 to 20"):
        background(helper(), at_once=at_once)


def test_a_message_without_reports_is_written_as_before() -> None:
    import msgspec

    assert msgspec.json.encode(UserMessage((Text("go"),))) == b'{"type":"user","parts":[{"type":"text","text":"go"}]}'


async def test_a_rule_of_the_agent_may_be_about_a_tool_of_a_background_agent() -> None:
    agent = lead(
        run(),
        "I wait.",
        "Done.",
        helpers=[helper(calls("work"), "Gold.", tools=[sleeper(0)])],
        permissions=Permissions(ask=[Rule("work")]),
    )
    seen = await watch(agent, on_event=answering(Deny("not now")))
    assert [event.name for event in of(seen.events, ApprovalRequested)] == ["work"]


# --------------------------------------------------------------------------- from run to run of a session


async def test_ids_go_on_from_run_to_run_of_a_session() -> None:
    async with MemoryStore().open() as store:
        for number in (1, 2):
            async with stored_session(store, "s") as session:
                await lead(run(), "I wait.", "Done.", helpers=[helper("Gold.")]).run("go", session=session)
                assert reports(session.messages)[-1][0] == (f"helper-{number}",)


@pytest.mark.parametrize("way", ["stopped", "failed"])
async def test_the_next_run_is_told_of_the_runs_that_ended_with_the_last_one(way: str) -> None:
    session = Session()
    after = hangs() if way == "stopped" else fails(ModelConnectionError("gone"))
    async with lead(run(), after, helpers=[helper(hangs())]).stream("go", session=session) as stream:
        with suppress(ModelConnectionError):
            async for event in stream:
                if isinstance(event, TurnStarted) and event.turn == 2 and way == "stopped":
                    stream.stop()
    model = ScriptedModel("Oh.")
    await Agent(model, name="lead").run("And?", session=session)
    [prompt, report] = model.requests[0].messages[-2:]
    assert prompt.text == "And?"
    assert report.text == (
        "[Background run helper-1 has ended without an answer (interrupted: it ended with the run that had started "
        "it).]"
    )


async def test_a_prompt_in_the_place_of_an_unfinished_run_says_that_its_background_runs_were_given_up() -> None:
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            outcome = await staff([run(), "I wait."], [calls("ask")]).run("go", session=session, on_question="park")
        assert outcome.reason == "needs_input"
        async with stored_session(store, "s") as session:
            await staff(["Oh.", "Well."], []).run("Never mind.", session=session)
            lost = (
                "[Background run helper-1 has ended without an answer (interrupted: the run that had started it was "
                "given up).]"
            )
            assert reports(session.messages) == [(("helper-1",), lost)]
        async with stored_session(store, "s") as session:
            await staff(["Well."], []).run("And?", session=session)
            assert len(reports(session.messages)) == 1


async def test_no_tool_of_a_background_run_begins_after_the_time_limit_of_the_run_around_it() -> None:
    began: list[float] = []

    @tool
    async def tick() -> str:
        began.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return "tick"

    @tool
    async def cleans_up() -> str:
        try:
            await trio.sleep(10_000)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
        return "never"

    step = calls("work") + calls("tick")
    ticking = helper(step, step, step, tools=[sleeper(3), tick])
    agent = lead(run(), calls("cleans_up"), helpers=[ticking], tools=[cleans_up], limits=Limits(seconds=5))
    assert (await watch(agent)).outcome.reason == "limit"
    assert began
    assert max(began) - began[0] < 5


@pytest.mark.seconds(100)
async def test_a_time_limit_that_stands_still_stands_still_for_a_background_run() -> None:
    working = helper(calls("work"), "Gold.", tools=[sleeper(8)])

    async def think(_question: object) -> Accept:
        await trio.sleep(10)
        return Accept({})

    agent = lead(run() + calls("ask"), "Done.", helpers=[working], tools=[ask], limits=Limits(seconds=5))
    outcome = await agent.run("go", on_question=think)
    assert outcome.output == "Done."
    assert "Gold." in reports(outcome.messages)[0][1]


async def test_the_program_stops_a_background_run_and_the_model_reads_of_it() -> None:
    agent = lead(run(), "I wait.", "Done.", helpers=[helper(calls("work"), tools=[sleeper(1000)])])
    async with agent.stream("Go.") as stream:
        with pytest.raises(StreamStateError, match="no background run 'helper-1' that runs; running: none"):
            stream.stop_background("helper-1")
        async for event in stream:
            if isinstance(event, ToolCallFinished) and event.name == "run_background_agent":
                with pytest.raises(StreamStateError, match="running: helper-1"):
                    stream.stop_background("helper-2")
                stream.stop_background("helper-1", "not needed")
            if isinstance(event, ChildStreamStopped):
                assert (event.reason, event.detail) == ("cancelled", "not needed")
    assert stream.outcome.output == "Done."
    report = next(
        message for message in stream.outcome.messages if isinstance(message, UserMessage) and message.reports
    )
    assert "not needed" in report.text
    with pytest.raises(StreamStateError, match="running: none"):
        stream.stop_background("helper-1")


@pytest.mark.real_clock
@pytest.mark.parametrize("approvals", [False, True])
async def test_an_approval_in_a_background_run_is_asked_for_again_where_the_session_is_imported(
    tmp_path: Path, approvals: bool
) -> None:
    ran: list[str] = []

    @tool(requires_approval=True)
    async def delete(path: str, context: ToolContext[None]) -> str:
        """Delete a file."""
        ran.append(path)
        await context.ask("Really?")
        return "deleted"

    agent = lead(run(), "Wait.", "Done.", helpers=[helper(calls("delete", path="/"), "Done.", tools=[delete])])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            parked = await agent.run("go", session=session, on_question="park")
            [approval] = parked.questions
            parked = await agent.resume(session, {approval.id: Approve()})
            [question] = parked.questions
        await export_session(store, "s", tmp_path / "session.jsonl")
    assert ran == ["/"]
    async with MemoryStore().open() as store:
        await import_session(store, tmp_path / "session.jsonl", approvals=approvals)
        async with stored_session(store, "s") as session:
            await agent.resume(session, {question.id: Accept()})
    assert (ran == ["/", "/"]) is approvals
