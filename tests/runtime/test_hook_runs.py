"""Hooks that run agents: as children of their stream, within its limits and rules, and until the hook returns."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agentloop import Accept, Agent, Limits, Permissions, Rule, Stream, ToolContext, UsageError, hooks, tool
from agentloop.errors import ChildLimitError, StreamStateError
from agentloop.events import (
    ChildStreamStarted,
    ChildStreamStopped,
    ContinueRequested,
    ElicitationRequested,
    QuestionAnswered,
    StreamEvent,
    StreamStopped,
    ToolCallFinished,
    WarningIssued,
)
from agentloop.hooks import Continue, PreToolUse, StopRequested, TurnStart
from agentloop.messages import ToolResult
from agentloop.questions import Deny
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls, hangs
from tests.runtime.test_background import answering, ask, sleeper
from tests.support import of, watch


def critic(*script: Any, **options: Any) -> Agent[Any, Any]:
    return Agent(ScriptedModel(*script), name="critic", **options)


def reviewing(agent: Agent[Any, Any], **options: Any) -> Any:
    """A stop hook that has the first answer reviewed."""

    @hooks.stop(agents=[agent], **options)
    async def review(value: StopRequested) -> Continue | None:
        if value.continuations:
            return None
        verdict = await value.run(agent, f"Is this right? {value.message.text}")
        return Continue(str(verdict.output))

    return review


async def test_a_hook_runs_an_agent_inside_its_stream() -> None:
    model = ScriptedModel("2", "3")
    seen = await watch(Agent(model, name="lead", hooks=[reviewing(critic("No."))]))
    [started], [ended] = of(seen.events, ChildStreamStarted), of(seen.events, ChildStreamStopped)
    assert (started.hook, started.call_id, started.path) == ("stop", "", ("lead", "critic"))
    assert started.message.text == "Is this right? 2"
    assert ended.reason == "completed"
    assert model.requests[1].messages[-1].text == "No."
    assert seen.outcome.usage.requests == 3


async def test_a_run_of_a_hook_asks_the_reader_and_the_time_of_the_person_is_not_the_hooks() -> None:
    async def think(_question: object) -> Accept:
        await trio.sleep(5)
        return Accept({})

    agent = critic(calls("ask"), "No.", tools=[ask])
    lead = Agent(ScriptedModel("2", "3"), name="lead", hooks=[reviewing(agent, timeout=1)], limits=Limits(seconds=3))
    outcome = await lead.run("go", on_question=think)
    assert outcome.output == "3"
    agent = critic(calls("ask"), "No.", tools=[ask])
    lead = Agent(ScriptedModel("2", "3"), name="lead", hooks=[reviewing(agent)])
    seen = await watch(lead, on_event=answering(Accept({})))
    assert len(of(seen.events, QuestionAnswered)) == 1


async def test_a_run_of_a_hook_ends_with_the_hooks_deadline() -> None:
    lead = Agent(ScriptedModel("2"), name="lead", hooks=[reviewing(critic(hangs()), timeout=3)])
    seen = await watch(lead)
    assert seen.outcome.output == "2"
    assert [event.reason for event in of(seen.events, ChildStreamStopped)] == ["cancelled"]
    assert [event.code for event in of(seen.events, WarningIssued)] == ["hook_failed"]


async def test_a_run_of_a_hook_ends_with_its_stream() -> None:
    lead = Agent(ScriptedModel("2"), name="lead", hooks=[reviewing(critic(hangs()))])
    async with lead.stream("go") as stream:
        events = []
        async for event in stream:
            events.append(event)
            if isinstance(event, ChildStreamStarted):
                stream.stop()
    assert [event.reason for event in of(events, ChildStreamStopped)] == ["cancelled"]
    assert stream.outcome.reason == "cancelled"
    assert isinstance(events[-1], StreamStopped)


async def test_a_run_that_a_hook_leaves_open_in_another_task_ends_with_the_hook() -> None:
    agent, ended = critic(hangs()), trio.Event()

    async with trio.open_nursery() as nursery:

        @hooks.turn_start(agents=[agent])
        async def begin(value: TurnStart) -> None:
            async def look() -> None:
                with pytest.raises(StreamStateError, match="has returned"):
                    await value.run(agent, "look")
                with pytest.raises(StreamStateError, match="has returned"):
                    await value.run(agent, "look again")
                ended.set()

            nursery.start_soon(look)
            await trio.sleep(1)

        async with Agent(ScriptedModel("2"), name="lead", hooks=[begin]).stream("go") as stream:
            events = [event async for event in stream]
        await ended.wait()
    assert [event.reason for event in of(events, ChildStreamStopped)] == ["cancelled"]


async def test_the_rules_and_limits_of_the_stream_hold_for_a_run_of_its_hook() -> None:
    agent = critic(calls("work"), "No.", tools=[sleeper(1)])
    lead = Agent(
        ScriptedModel("2", "3"),
        name="lead",
        hooks=[reviewing(agent)],
        permissions=Permissions(deny=[Rule("work")]),
        limits=Limits(requests=3),
    )

    def deny(stream: Stream[Any], event: StreamEvent) -> None:
        if isinstance(event, ContinueRequested):
            stream.answer(event, Deny())

    seen = await watch(lead, on_event=deny)
    assert [event.result.status for event in of(seen.events, ToolCallFinished, depth=1)] == ["denied"]
    assert seen.outcome.reason == "limit"


async def test_a_hook_is_not_called_for_the_calls_of_the_run_that_it_has_opened() -> None:
    judged: list[str] = []
    agent = critic(calls("read"), "fine", calls("read"), "no", tools=[sleeper(0, "read")])

    @hooks.pre_tool_use(agents=[agent])
    async def judge(call: PreToolUse) -> Deny | None:
        judged.append(call.name)
        verdict = await call.run(agent, f"May it call {call.name}?")
        return None if verdict.output == "fine" else Deny("the critic says no")

    tools = [sleeper(0, "one"), sleeper(0, "two")]
    lead = Agent(ScriptedModel(calls("one"), calls("two"), "Done."), name="lead", tools=tools, hooks=[judge])
    seen = await watch(lead)
    assert judged == ["one", "two"]
    assert [message.status for message in seen.messages if isinstance(message, ToolResult)] == ["ok", "denied"]


async def test_hooks_that_run_agents_whose_hooks_run_agents_come_to_the_limit_of_depth() -> None:
    depths: list[int] = []

    def agent_at(depth: int) -> Agent[Any, Any]:
        inner = agent_at(depth + 1) if depth < 8 else critic("x")

        @hooks.turn_start(agents=[inner], name=f"deeper-{depth}")
        async def deeper(value: TurnStart) -> None:
            depths.append(depth)
            with pytest.raises(ChildLimitError) if depth == 2 else trio.CancelScope():
                await value.run(inner, "deeper")

        return Agent(ScriptedModel("x"), name=f"agent-{depth}", hooks=[deeper], limits=Limits(depth=2))

    assert (await agent_at(0).run("go")).output == "x"
    assert depths == [0, 1, 2]


async def test_a_stream_that_parks_declines_the_questions_of_a_run_of_a_hook() -> None:
    model = ScriptedModel(calls("why"), "No.")

    @tool
    async def why(context: ToolContext[Any]) -> str:
        return repr(await context.ask("Really?"))

    agent = Agent(model, name="critic", tools=[why])
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        lead = Agent(ScriptedModel("2", "3"), name="lead", hooks=[reviewing(agent)])
        outcome = await lead.run("go", session=session, on_question="park")
        assert outcome.output == "3"
    assert "cannot be parked" in model.requests[1].messages[-1].text


async def test_a_resumed_stream_calls_the_hook_anew() -> None:
    asked: list[str] = []

    @hooks.turn_start(agents=[])
    async def nothing(_value: TurnStart) -> None:
        await trio.lowlevel.checkpoint()

    agent = critic("ok", "ok", "ok")

    @hooks.turn_start(agents=[agent])
    async def look(value: TurnStart) -> None:
        asked.append(str((await value.run(agent, "look")).output))

    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        lead = Agent(ScriptedModel(calls("ask"), "Done."), name="lead", tools=[ask], hooks=[look, nothing])
        outcome = await lead.run("go", session=session, on_question="park")
        [question] = outcome.questions
        assert isinstance(question, ElicitationRequested)
        assert (await lead.resume(session, {question.id: Accept({})})).output == "Done."
    assert asked == ["ok", "ok"]


async def test_agents_that_a_hook_does_not_name_or_cannot_have_are_errors() -> None:
    errors: list[str] = []
    agent, other = critic("x"), critic("y")

    def failing(**options: Any) -> Any:
        @hooks.turn_start(name="look", **options)
        async def look(value: TurnStart) -> None:
            with pytest.raises(UsageError) as caught:
                await value.run(other, "look")
            errors.append(str(caught.value))

        return look

    await Agent(ScriptedModel("x"), name="lead", hooks=[failing(), failing(agents=[agent])]).run("go")
    assert "the hook names no agents: add 'critic'" in errors[0]
    assert "the turn_start hook 'look' does not name agent 'critic'" in errors[1]
    ending = (hooks.turn_end, hooks.on_error, hooks.subagent_stop, hooks.on_agent_switch, hooks.session_end)
    for point in ending:
        with pytest.raises(UsageError, match="called while a run ends"):
            point(agents=[agent])(print)
    with pytest.raises(UsageError, match="give a list of agents"):
        hooks.stop(agents=["critic"])(print)  # type: ignore[list-item]
