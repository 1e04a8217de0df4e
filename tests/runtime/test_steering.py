"""What a person says to a run that is under way."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentloop import Agent, Limits, Session, ToolContext, UsageError, hooks, tool
from agentloop.errors import StreamStateError
from agentloop.events import (
    ChildStreamStarted,
    MessageCommitted,
    StreamEvent,
    TextDelta,
    ToolCallStarted,
    TurnFinished,
)
from agentloop.hooks import Block, Context, UserFollowupSubmit, UserSteeringMessagesSubmit
from agentloop.messages import Message, ToolResult, UserMessage, user_message
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.testing import ScriptedModel, calls, fails, hangs, says
from tests.support import first, nested, of, opened, stopped_at, watch


@tool
async def look() -> str:
    await trio.sleep(1)
    return "nothing there"


class Slow(ScriptedModel):
    """Takes a second to end its responses, in which a reader can say something."""

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        try:
            return await super().respond(request, reply)
        finally:
            await trio.sleep(1)  # noqa: ASYNC102 - it may be cut off


def said(messages: tuple[Message, ...] | list[Message]) -> list[str]:
    """What the person said, in order."""
    return [message.text for message in messages if isinstance(message, UserMessage)]


def read_by(model: ScriptedModel) -> list[list[str]]:
    """For each request, what the person had said by then."""
    return [said(list(request.messages)) for request in model.requests]


class At:
    """Says something at the first event of a kind."""

    def __init__(self, kind: type[StreamEvent], *messages: str, how: str = "steer") -> None:
        self.kind = kind
        self.messages = messages
        self.how = how

    def __call__(self, stream: Any, event: StreamEvent) -> None:
        if isinstance(event, self.kind):
            for message in self.messages:
                getattr(stream, self.how)(message)
            self.messages = ()


async def test_the_next_request_has_it_after_the_results_of_the_tools_that_ran() -> None:
    model = ScriptedModel(calls("look"), "Found.")

    watched = await watch(Agent(model, tools=[look]), on_event=At(ToolCallStarted, "Look harder.", "And be quick."))

    assert read_by(model) == [["go"], ["go", "Look harder.", "And be quick."]]
    kinds = [type(message) for message in model.requests[1].messages]
    assert kinds[-3:] == [ToolResult, UserMessage, UserMessage]
    assert watched.outcome.output == "Found."


async def test_a_message_that_steers_before_the_first_request_is_in_it() -> None:
    model = ScriptedModel("Yes.")

    async with opened(Agent(model)) as stream:
        stream.steer("In French.")
        await stream.wait()

    assert read_by(model) == [["go", "In French."]]


async def test_a_run_that_would_stop_continues_with_the_follow_up() -> None:
    model = Slow("The first answer.", "The second answer.")

    watched = await watch(Agent(model), on_event=At(TextDelta, "But in French."))

    assert read_by(model) == [["go"], ["go", "But in French."]]
    assert watched.outcome.output == "The second answer."
    assert [event.reason for event in of(watched.events, TurnFinished)] == ["continued", "final"]


async def test_follow_ups_wait_for_the_answer_and_each_gets_its_own() -> None:
    model = ScriptedModel(calls("look"), "One.", "Two.", "Three.")

    watched = await watch(
        Agent(model, tools=[look]), on_event=At(ToolCallStarted, "Then?", "And then?", how="follow_up")
    )

    assert read_by(model) == [["go"], ["go"], ["go", "Then?"], ["go", "Then?", "And then?"]]
    assert watched.outcome.output == "Three."


async def test_steering_goes_before_follow_ups() -> None:
    model = Slow("One.", "Two.", "Three.")

    async with opened(Agent(model)) as stream:
        await first(stream, TextDelta)
        stream.follow_up("Later.")
        stream.steer("Now.")
        outcome = await stream.wait()

    assert read_by(model)[1:] == [["go", "Now."], ["go", "Now.", "Later."]]
    assert outcome.output == "Three."


@pytest.mark.parametrize("how", ["steer", "follow_up"])
@pytest.mark.parametrize("end", ["fails", "stops"])
async def test_what_a_run_did_not_get_round_to_is_not_lost(how: str, end: str) -> None:
    model = Slow(says("Well, ") + (fails(ValueError("gone")) if end == "fails" else hangs()))
    session = Session()

    async with opened(Agent(model), session=session) as stream:
        await first(stream, TextDelta)
        getattr(stream, how)("One more thing.")
        if end == "stops":
            stream.stop()
        outcome = await stream.wait()
        messages = session.messages

    assert outcome.undelivered == (user_message("One more thing."),)
    assert "One more thing." not in said(messages)


async def test_a_run_that_has_ended_refuses_messages() -> None:
    async with opened(Agent(ScriptedModel("Hi."))) as stream:
        await stream.wait()
        for say in (stream.steer, stream.follow_up):
            with pytest.raises(StreamStateError, match="has come to its end: start another one with this message"):
                say("Too late.")
    assert stream.outcome.undelivered == ()


async def test_what_waits_is_bounded() -> None:
    async with opened(Agent(ScriptedModel(hangs()))) as stream:
        for say, what in ((stream.steer, "steering messages"), (stream.follow_up, "follow-ups")):
            for number in range(20):
                say(str(number))
            with pytest.raises(StreamStateError, match=f"has 20 {what} waiting"):
                say("one too many")
    assert len(stream.outcome.undelivered) == 40


async def test_an_empty_message_is_refused() -> None:
    async with opened(Agent(ScriptedModel(hangs()))) as stream:
        with pytest.raises(UsageError):
            stream.steer("")


# ------------------------------------------------------------------------------ children


async def test_a_child_does_not_take_the_messages_of_its_parent() -> None:
    inner_model = ScriptedModel(calls("look"), "Inner.", name="inner")
    inner = Agent(inner_model, name="inner", tools=[look])
    model = ScriptedModel(calls("inner", prompt="x"), "Outer.")

    await watch(Agent(model, tools=[inner.as_tool()]), on_event=At(ChildStreamStarted, "For the boss."))

    assert read_by(inner_model) == [["x"], ["x"]]
    assert read_by(model) == [["go"], ["go", "For the boss."]]


async def test_a_tool_can_steer_the_child_that_it_reads() -> None:
    inner_model = ScriptedModel(calls("look"), "Inner.", name="inner")
    inner = Agent(inner_model, name="inner", tools=[look])

    @tool
    async def manage(context: ToolContext[None]) -> str:
        async with context.stream(inner, "x") as child:
            async for event in child:
                if isinstance(event, ToolCallStarted):
                    child.steer("Look twice.")
        return str(child.result.output)

    model = ScriptedModel(calls("manage"), "Outer.")
    await watch(Agent(model, tools=[manage]))

    assert read_by(inner_model) == [["x"], ["x", "Look twice."]]
    assert read_by(model) == [["go"], ["go"]]


# --------------------------------------------------------------------------------- hooks


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    ("how", "point"),
    [("steer", hooks.user_steering_messages_submit), ("follow_up", hooks.user_followup_submit)],
    ids=["steer", "follow_up"],
)
async def test_a_hook_may_refuse_and_the_run_ends(how: str, point: Any, depth: int) -> None:
    @point  # type: ignore[untyped-decorator]
    def refuse(submit: object) -> Block:
        return Block("not in here")

    @tool
    async def speak(context: ToolContext[None]) -> str:
        getattr(context._run.mailbox, how)(user_message("Psst."))  # type: ignore[attr-defined]
        return "said"

    model = ScriptedModel(calls("speak"), "Answer.", "never")
    agent = Agent(model, name="inner", tools=[speak], hooks=[refuse])

    watched = await watch(nested(agent, depth))

    stopped = stopped_at(watched.events, depth)
    assert (stopped.reason, stopped.detail) == ("blocked", "not in here")
    assert "Psst." not in [text for texts in read_by(model) for text in texts]


async def test_a_hook_that_fails_refuses() -> None:
    @hooks.user_steering_messages_submit
    def broken(submit: UserSteeringMessagesSubmit) -> None:
        raise ValueError("broken")

    async with opened(Agent(ScriptedModel("Hi."), hooks=[broken])) as stream:
        stream.steer("x")
        outcome = await stream.wait()

    assert outcome.reason == "blocked"
    assert "broken" in outcome.detail


async def test_a_hook_gets_all_that_waits_and_may_add_to_it() -> None:
    seen: list[list[str]] = []

    @hooks.user_steering_messages_submit
    def note(submit: UserSteeringMessagesSubmit) -> Context:
        seen.append(said(submit.messages))
        return Context(" (at noon)")

    @hooks.user_followup_submit
    def note_too(submit: UserFollowupSubmit) -> Context:
        seen.append([submit.prompt.text])
        return Context(" (at night)")

    model = ScriptedModel("One.", "Two.")
    async with opened(Agent(model, hooks=[note, note_too])) as stream:
        stream.steer("Now.")
        stream.steer("At once.")
        stream.follow_up("Later.")
        await stream.wait()

    assert seen == [["Now.", "At once."], ["Later."]]
    assert read_by(model)[-1] == ["go", "Now.", "At once. (at noon)", "Later. (at night)"]


async def test_a_message_taken_while_the_run_is_stopped_is_not_lost() -> None:
    @hooks.user_steering_messages_submit
    async def slow(submit: UserSteeringMessagesSubmit) -> None:
        await trio.sleep_forever()

    async with opened(Agent(ScriptedModel("never"), hooks=[slow])) as stream:
        stream.steer("Now.")
        await first(stream, MessageCommitted)
        await wait_all_tasks_blocked()
        stream.stop()
        outcome = await stream.wait()

    assert outcome.undelivered == (user_message("Now."),)


async def test_a_steering_message_that_is_cut_off_waits_before_those_after_it() -> None:
    @hooks.user_steering_messages_submit
    async def slow(submit: UserSteeringMessagesSubmit) -> None:
        await trio.sleep_forever()

    async with opened(Agent(ScriptedModel("never"), hooks=[slow])) as stream:
        stream.steer("First.")
        await first(stream, MessageCommitted)
        await wait_all_tasks_blocked()
        stream.steer("Second.")
        stream.stop()
        outcome = await stream.wait()

    assert said(outcome.undelivered) == ["First.", "Second."]


async def test_a_follow_up_that_is_cut_off_waits_before_those_after_it() -> None:
    @hooks.user_followup_submit
    async def slow(submit: UserFollowupSubmit) -> None:
        await trio.sleep_forever()

    async with opened(Agent(ScriptedModel("Done."), hooks=[slow])) as stream:
        stream.follow_up("First.")
        stream.follow_up("Second.")
        await wait_all_tasks_blocked()
        stream.steer("Now.")
        stream.stop()
        outcome = await stream.wait()

    assert said(outcome.undelivered) == ["Now.", "First.", "Second."]


async def test_a_stop_hook_comes_first() -> None:
    @hooks.stop
    def once(stopping: hooks.StopRequested) -> hooks.Continue | None:
        return hooks.Continue("By the hook.") if stopping.continuations == 0 else None

    model = ScriptedModel("One.", "Two.", "Three.")
    async with opened(Agent(model, hooks=[once])) as stream:
        stream.follow_up("By the person.")
        await stream.wait()

    assert read_by(model) == [["go"], ["go", "By the hook."], ["go", "By the hook.", "By the person."]]


async def test_limits_hold() -> None:
    model = ScriptedModel("One.", "never")
    async with opened(Agent(model, limits=Limits(turns=1)), on_question="decline") as stream:
        stream.follow_up("More.")
        outcome = await stream.wait()

    assert outcome.reason == "limit"
    assert len(model.requests) == 1
