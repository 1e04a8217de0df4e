"""Handoffs: an agent gives the conversation to another agent of its team, in the same session and the same stream."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from agentloop import (
    Agent,
    Approve,
    Deny,
    Handoff,
    Limits,
    Permissions,
    Rule,
    Session,
    Stream,
    Team,
    Tool,
    UsageError,
    hooks,
    run_sync,
    tool,
)
from agentloop.errors import LimitReachedError, ToolsetError
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    HandedOff,
    MessageCommitted,
    StreamStopped,
    ToolCallFinished,
    TurnStarted,
)
from agentloop.messages import AssistantMessage, Message, Text, ToolResult, UserMessage
from agentloop.permissions import Exact
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import Response, ScriptedModel, assert_well_formed, calls, hangs
from agentloop.wire import decode_messages, encode_messages
from tests.support import nested, of, watch


def to(name: str, *, id: str = "") -> Response:
    """A response that hands the conversation to ``name``."""
    return calls("handoff", agent=name, id=id)


def agent(name: str, *script: Any, handoffs: Sequence[Any] = (), **options: Any) -> Agent[Any, Any]:
    return Agent(ScriptedModel(*script, name=f"model of {name}"), name=name, handoffs=handoffs, **options)


def requests_of(agent: Agent[Any, Any]) -> list[Any]:
    assert isinstance(agent.model, ScriptedModel)
    return agent.model.requests


def results(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.status, message.text) for message in messages if isinstance(message, ToolResult)]


async def read(opening: AbstractAsyncContextManager[Stream[Any]]) -> list[Any]:
    """All events of a stream, which are well formed."""
    async with opening as stream:
        events = [event async for event in stream]
    assert_well_formed(events)
    return events


def answer_in(events: Sequence[Any]) -> str:
    """The last message of the root stream."""
    return str([event.message for event in of(events, MessageCommitted, depth=0)][-1].text)


def acting(events: Sequence[Any]) -> list[str]:
    """The agents in the order of their turns."""
    return [event.agent for event in of(events, TurnStarted)]


# -------------------------------------------------------------------------- one handoff


async def test_after_a_handoff_the_other_agent_continues_the_same_stream_with_its_own_configuration() -> None:
    def own(name: str) -> dict[str, Any]:
        @tool(name=f"tool_of_{name}")
        async def work() -> str:
            return "done"

        @hooks.turn_start
        async def tell(value: hooks.TurnStart) -> hooks.Context:
            return hooks.Context(f"Hook of {name}.")

        return {"instructions": f"You are {name}.", "tools": [work], "hooks": [tell], "description": f"Does {name}."}

    front = agent("front", to("billing"), handoffs=["billing"], **own("front"))
    billing = agent(
        "billing", calls("tool_of_billing"), '{"paid": true}', output_type=dict[str, bool], **own("billing")
    )
    seen = await watch(Team(front, billing))

    assert acting(seen.events) == ["front", "billing", "billing"]
    assert [(event.agent, event.to) for event in of(seen.events, HandedOff)] == [("front", "billing")]
    assert {event.stream for event in seen.events} == {seen.stream.id}
    assert seen.outcome.output == {"paid": True}
    assert seen.outcome.usage.requests == 3
    [first], [second, _] = requests_of(front), requests_of(billing)
    assert [spec.name for spec in first.tools] == ["tool_of_front", "handoff"]
    assert "- billing: Does billing." in first.tools[1].description
    assert first.tools[1].parameters["properties"]["agent"]["enum"] == ["billing"]
    assert second.instructions == "You are billing.\n\nHook of billing."
    assert [spec.name for spec in second.tools] == ["tool_of_billing"]
    assert second.messages == seen.messages[:3]
    assert "front has handed the conversation to billing" in second.messages[-1].text
    assert isinstance(seen.events[-1], StreamStopped)
    assert seen.events[-1].agent == "billing"


async def test_agents_hand_the_conversation_back_and_forth() -> None:
    front = agent("front", to("billing"), to("billing"), "Bye.", handoffs=["billing"])
    billing = agent("billing", to("front"), to("front"), handoffs=["front"])
    seen = await watch(Team(front, billing))
    assert acting(seen.events) == ["front", "billing", "front", "billing", "front"]
    assert seen.outcome.output == "Bye."


@pytest.mark.parametrize("depth", [1, 2])
async def test_a_team_that_is_a_tool_hands_off_inside_of_its_child_stream(depth: int) -> None:
    front = agent("front", to("billing"), handoffs=["billing"])
    seen = await watch(nested(Team(front, agent("billing", "Paid.")), depth))
    [handed_off] = of(seen.events, HandedOff)
    assert handed_off.depth == depth
    inner = [event for event in of(seen.events, TurnStarted) if event.depth == depth]
    assert [event.agent for event in inner] == ["front", "billing"]
    assert {event.path[:-1] for event in inner} == {handed_off.path[:-1]}
    assert seen.outcome.output == "Done."
    assert ("ok", "Paid.") in results(seen.messages if depth == 1 else requests_of_tool(seen.events))


def requests_of_tool(events: Sequence[Any]) -> list[ToolResult]:
    return [event.result for event in of(events, ToolCallFinished)]


async def test_a_child_of_an_agent_hands_off_to_the_members_of_the_team_around_it() -> None:
    front = agent("front", to("billing"), handoffs=["billing"])
    lead = agent("lead", calls("front", prompt="go"), "Done.", tools=[front.as_tool()])
    seen = await watch(Team(lead, front, agent("billing", "Paid.")))
    assert ("ok", "Paid.") in results(seen.messages)
    assert acting(seen.events) == ["lead", "front", "billing", "lead"]


async def test_a_child_is_opened_below_the_agent_that_got_the_conversation() -> None:
    helper = agent("helper", "Helped.")
    billing = agent("billing", calls("helper", prompt="go"), "Paid.", tools=[helper.as_tool()])
    seen = await watch(Team(agent("front", to("billing"), handoffs=["billing"]), billing))
    [started] = of(seen.events, ChildStreamStarted)
    assert started.path == ("billing", "helper")


async def test_the_transcript_says_which_agent_said_a_message() -> None:
    seen = await watch(Team(agent("front", to("billing"), handoffs=["billing"]), agent("billing", "Paid.")))
    said = [message for message in seen.stream.result.messages if isinstance(message, AssistantMessage)]
    assert [message.agent for message in said] == ["front", "billing"]
    again = decode_messages(encode_messages(tuple(said)))
    assert [message.agent for message in again if isinstance(message, AssistantMessage)] == ["front", "billing"]
    # What was said is compared, and not by whom.
    other = msgspec.structs.replace(said[1], agent="other")
    assert (other == said[1], other != said[1], hash(other) == hash(said[1])) == (True, False, True)
    assert msgspec.structs.replace(said[1], model="other") != said[1]


async def test_the_hooks_of_each_agent_see_the_beginning_and_the_end_of_its_part() -> None:
    told: list[str] = []

    def ears(name: str) -> list[Any]:
        @hooks.session_start
        async def begin(value: hooks.SessionStart) -> None:
            told.append(f"{name} begins")

        @hooks.session_end
        async def end(value: hooks.SessionEnd) -> None:
            told.append(f"{name} ends: {value.reason}")

        return [begin, end]

    front = agent("front", to("billing"), handoffs=["billing"], hooks=ears("front"))
    await watch(Team(front, agent("billing", "Paid.", hooks=ears("billing"))))
    assert told == ["front begins", "front ends: handed_off", "billing begins", "billing ends: completed"]


# ------------------------------------------------------------------- handoffs among calls


async def test_other_calls_of_the_batch_finish_before_the_handoff() -> None:
    done: list[str] = []

    @tool
    async def slow() -> str:
        await trio.sleep(5)
        done.append("slow")
        return "slow"

    helper = agent("helper", "Helped.")
    batch = to("billing") + calls("slow") + calls("helper", prompt="go")
    front = agent("front", batch, handoffs=["billing"], tools=[slow, helper.as_tool()])
    billing = agent("billing", "Paid.")
    seen = await watch(Team(front, billing))
    assert done == ["slow"]
    finished = [event.name for event in of(seen.events, ToolCallFinished)]
    assert finished[-1] == "handoff"
    assert [message.text for message in requests_of(billing)[0].messages[3:]] == ["slow", "Helped."]


async def test_of_two_handoffs_in_a_batch_the_first_in_call_order_counts() -> None:
    for _ in range(3):
        front = agent("front", to("refunds", id="a") + to("billing", id="b"), handoffs=["billing", "refunds"])
        seen = await watch(Team(front, agent("billing"), agent("refunds", "Refunded.")))
        assert [event.call_id for event in of(seen.events, HandedOff)] == ["a"]
        assert results(seen.messages)[1] == (
            "error",
            "No handoff: this turn has handed the conversation to refunds already.",
        )
        assert seen.outcome.output == "Refunded."


async def test_a_handoff_that_a_rule_denies_leaves_the_conversation_where_it_is() -> None:
    rule = Rule("handoff", where={"agent": Exact("billing")})
    front = agent("front", to("billing"), "Sorry.", handoffs=["billing"], permissions=Permissions(deny=[rule]))
    seen = await watch(Team(front, agent("billing")))
    assert of(seen.events, HandedOff) == []
    assert seen.outcome.output == "Sorry."


async def test_if_the_first_handoff_is_refused_the_second_counts() -> None:
    rule = Rule("handoff", where={"agent": Exact("billing")})
    batch = to("billing") + to("refunds")
    front = agent("front", batch, handoffs=["billing", "refunds"], permissions=Permissions(deny=[rule]))
    seen = await watch(Team(front, agent("billing"), agent("refunds", "Refunded.")))
    assert seen.outcome.output == "Refunded."


@pytest.mark.parametrize(("answer", "output"), [(Approve(), "Paid."), (Deny("Not now."), "Sorry.")])
async def test_a_person_approves_or_refuses_a_handoff_after_the_other_calls_have_asked(
    answer: Approve | Deny, output: str
) -> None:
    @tool(requires_approval=True)
    async def work() -> str:
        return "worked"

    asked: list[str] = []

    def answered(stream: Any, event: Any) -> None:
        if isinstance(event, ApprovalRequested):
            asked.append(event.name)
            stream.answer(event, answer if event.name == "handoff" else Approve())

    front = agent(
        "front",
        to("billing") + calls("work"),
        "Sorry.",
        handoffs=["billing"],
        tools=[work],
        permissions=Permissions(ask=[Rule("handoff")]),
    )
    seen = await watch(Team(front, agent("billing", "Paid.")), on_event=answered)
    assert asked == ["work", "handoff"]
    assert seen.outcome.output == output


async def test_a_handoff_to_an_unknown_agent_is_an_error_for_the_model() -> None:
    wrong = [to("biling"), calls("handoff"), calls("handoff", agent=3)]
    front = agent("front", *wrong, "Sorry.", handoffs=["billing"])
    seen = await watch(Team(front, agent("billing")))
    nameless = ("error", "No handoff: give the name of an agent, as in {'agent': 'billing'}")
    assert results(seen.messages) == [
        ("error", "There is no agent 'biling' to hand off to: did you mean 'billing'?"),
        nameless,
        nameless,
    ]


# ------------------------------------------------------------------------------ limits


async def test_the_limits_of_the_stream_hold_after_a_handoff() -> None:
    front = agent("front", *[to("billing")] * 5, handoffs=["billing"], limits=Limits(turns=3))
    billing = agent("billing", *[to("front")] * 5, handoffs=["front"], limits=Limits(turns=100))
    with pytest.raises(LimitReachedError, match="turns"):
        await Team(front, billing).run("go")
    assert len(requests_of(front)) + len(requests_of(billing)) == 3


async def test_the_time_limit_of_the_stream_holds_after_a_handoff() -> None:
    front = agent("front", to("billing"), handoffs=["billing"], limits=Limits(seconds=7))
    seen = await watch(Team(front, agent("billing", hangs())))
    assert (seen.outcome.reason, seen.outcome.detail) == ("limit", "seconds: the 7 s are over")


# ---------------------------------------------------------------------------- toolsets


class Toolset:
    """A toolset that notes when it starts and stops."""

    def __init__(self, name: str, told: list[str], *, fails: bool = False) -> None:
        self.name = name
        self._told = told
        self._fails = fails

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Toolset]:
        if self._fails:
            raise ValueError("no server")
        self._told.append(f"{self.name} starts")
        try:
            yield self
        finally:
            self._told.append(f"{self.name} stops")

    async def list_tools(self) -> Sequence[Tool]:
        @tool(name=f"of_{self.name}")
        async def work() -> str:
            return "done"

        return [work]


async def test_the_toolsets_of_the_next_agent_start_before_those_of_the_agent_before_stop() -> None:
    told: list[str] = []
    front = agent("front", to("billing"), "Bye.", handoffs=["billing"], toolsets=[Toolset("a", told)])
    billing = agent("billing", calls("of_b"), to("front"), handoffs=["front"], toolsets=[Toolset("b", told)])
    await watch(Team(front, billing))
    assert told == ["a starts", "b starts", "a stops", "a starts", "b stops", "a stops"]
    assert [spec.name for spec in requests_of(billing)[0].tools] == ["handoff", "of_b"]


async def test_a_run_fails_if_a_toolset_of_the_next_agent_does_not_start_and_the_next_prompt_is_still_that_agents() -> (
    None
):
    told: list[str] = []
    session = Session()
    front = agent("front", to("billing"), handoffs=["billing"], toolsets=[Toolset("a", told)])
    billing = agent("billing", toolsets=[Toolset("b", told, fails=True)])
    with pytest.raises(ToolsetError, match="no server"):
        await Team(front, billing).run("go", session=session)
    assert told == ["a starts", "a stops"]
    mended = Team(front, agent("billing", "Paid."))
    assert (await mended.run("again", session=session)).output == "Paid."


async def test_stopping_a_stream_right_after_a_handoff_ends_everything_and_keeps_the_handoff() -> None:
    told: list[str] = []
    session = Session()
    front = agent("front", to("billing"), handoffs=["billing"], toolsets=[Toolset("a", told)])
    team = Team(front, agent("billing", hangs(), toolsets=[Toolset("b", told)]))

    async with team.stream("go", session=session) as stream:
        async for event in stream:
            if isinstance(event, HandedOff):
                stream.stop()
    assert stream.outcome.reason == "cancelled"
    assert sorted(line for line in told if "starts" in line) == sorted(
        line.replace("stops", "starts") for line in told if "stops" in line
    )
    assert results(session.messages)[0][0] == "ok"
    later = await read(Team(front, agent("billing", "Paid.")).stream("again", session=session))
    assert acting(later) == ["billing"]


# ----------------------------------------------------------------- what the next agent reads


def roles(messages: Sequence[Message]) -> list[str]:
    return [message.text if isinstance(message, UserMessage) else type(message).__name__ for message in messages]


async def test_with_history_last_the_next_agent_reads_from_the_newest_prompt_on_and_all_again_after_all() -> None:
    front = agent("front", "Hello.", to("billing"), "Bye.", handoffs=[Handoff("billing", history="last")])
    billing = agent("billing", "Paid.", to("front"), handoffs=["front"])
    team, session = Team(front, billing), Session()
    for prompt in ("hello", "pay", "thanks"):
        await team.run(prompt, session=session)
    first, second = requests_of(billing)
    assert roles(first.messages) == ["pay", "AssistantMessage", "ToolResult"]
    assert roles(second.messages) == ["pay", "AssistantMessage", "ToolResult", "AssistantMessage", "thanks"]
    assert roles(requests_of(front)[-1].messages)[:2] == ["hello", "AssistantMessage"]
    assert len(session.messages) == len(requests_of(front)[-1].messages) + 1


async def test_a_function_chooses_what_the_next_agent_reads() -> None:
    got: list[tuple[Message, ...]] = []

    def summed_up(messages: tuple[Message, ...]) -> list[Message]:
        got.append(messages)
        return [UserMessage((Text("Summary."),))]

    front = agent("front", to("billing"), handoffs=[Handoff("billing", history=summed_up)])
    billing = agent("billing", "Paid.", "Paid again.")
    team, session = Team(front, billing), Session()
    await team.run("pay", session=session)
    await team.run("once more", session=session)
    assert [roles(messages) for messages in got] == [["pay", "AssistantMessage", "ToolResult"]]
    first, second = requests_of(billing)
    assert roles(first.messages) == ["Summary."]
    assert roles(second.messages) == ["Summary.", "AssistantMessage", "once more"]


async def test_a_prompt_that_a_function_has_left_out_stays_left_out_at_the_next_handoff() -> None:
    def summed_up(messages: tuple[Message, ...]) -> list[Message]:
        return [UserMessage((Text("Summary."),))]

    front = agent("front", to("billing"), handoffs=[Handoff("billing", history=summed_up)])
    billing = agent("billing", to("refunds"), handoffs=[Handoff("refunds", history="last")])
    refunds = agent("refunds", "Refunded.")
    await watch(Team(front, billing, refunds))
    assert roles(requests_of(refunds)[0].messages) == ["Summary.", "AssistantMessage", "ToolResult"]


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda messages: [], "that no model can continue after: there are none"),
        (lambda messages: messages[1:], "the first one is not of the user"),
        (lambda messages: [*messages[:1], AssistantMessage((Text("Hm."),))], "the last one is a response"),
        (lambda messages: [messages[0], messages[2]], "a result of call"),
        (lambda messages: "pay", "returned no messages"),
        (lambda messages: 1 / 0, "failed: ZeroDivisionError"),
    ],
    ids=["none", "no prompt", "a response last", "a torn pair", "no messages", "it raises"],
)
async def test_a_run_fails_with_a_sentence_if_a_history_function_gives_what_no_model_takes(
    function: Callable[[tuple[Message, ...]], Any], problem: str
) -> None:
    front = agent("front", to("billing"), handoffs=[Handoff("billing", history=function)])
    seen = await watch(Team(front, agent("billing")))
    assert isinstance(seen.error, UsageError)
    assert str(seen.error).startswith("the history function of the handoff from 'front' to 'billing'")
    assert problem in str(seen.error)


# -------------------------------------------------------------------- handoffs when done


async def test_an_agent_with_handoff_when_done_gives_the_conversation_away_when_it_has_answered() -> None:
    draft = agent("draft", "A draft.", handoff_when_done="review")
    review = agent("review", "Fine.")
    seen = await watch(Team(draft, review))
    assert seen.outcome.output == "Fine."
    assert [(event.agent, event.to, event.call_id) for event in of(seen.events, HandedOff)] == [("draft", "review", "")]
    assert [spec.name for spec in requests_of(draft)[0].tools] == []
    [request] = requests_of(review)
    assert roles(request.messages)[1:] == [
        "AssistantMessage",
        "[The agent draft has finished its part. Continue the conversation as the agent review.]",
    ]


async def test_with_history_last_an_agent_that_is_handed_an_answer_reads_the_prompt_that_it_answers() -> None:
    draft = agent("draft", "Hm.", "A draft.", handoffs=[Handoff("review", history="last")], handoff_when_done="review")
    review = agent("review", to("draft"), "Fine.", handoffs=["draft"])
    session = Session()
    await Team(draft, review).run("write", session=session)
    assert roles(requests_of(review)[0].messages) == [
        "write",
        "AssistantMessage",
        "[The agent draft has finished its part. Continue the conversation as the agent review.]",
    ]


async def test_steering_comes_before_a_handoff_when_done_and_a_follow_up_after_it() -> None:
    streams: list[Stream[Any]] = []

    @hooks.stop
    async def speak(value: hooks.StopRequested) -> None:
        # The reader has the stream by then.
        await trio.sleep(1)
        if value.message.text == "A draft.":
            streams[0].steer("Shorter.")
            streams[0].follow_up("And now?")

    draft = agent("draft", "A draft.", "Another draft.", handoff_when_done="review", hooks=[speak])
    review = agent("review", "Fine.", "Also fine.")
    seen = await watch(Team(draft, review), on_event=lambda stream, _: streams.append(stream))
    assert acting(seen.events) == ["draft", "draft", "review", "review"]
    assert seen.outcome.output == "Also fine."


# ------------------------------------------------------------------------ the next prompt


@asynccontextmanager
async def session_of(store: MemoryStore | None) -> AsyncGenerator[Session]:
    if store is None:
        yield Session("ann")
        return
    async with store.open() as opened, stored_session(opened, "ann") as session:
        yield session


@pytest.mark.parametrize("stored", [False, True])
async def test_the_next_prompt_of_the_session_goes_to_the_agent_that_has_the_conversation(stored: bool) -> None:
    front = agent("front", to("billing"), handoffs=["billing"])
    team = Team(front, agent("billing", "Paid.", "Again."))
    async with session_of(MemoryStore() if stored else None) as session:
        await team.run("pay", session=session)
        assert (await team.run("again", session=session)).output == "Again."
        seen = await read(agent("other", "I am another agent.").stream("hi", session=session))
        assert seen[0].agent == "other"


async def test_another_process_finds_the_agent_and_what_it_reads_in_the_journal() -> None:
    store = MemoryStore()
    front = agent("front", "Hello.", to("billing"), handoffs=[Handoff("billing", history="last")])
    async with store.open() as opened:
        async with stored_session(opened, "ann") as session:
            for prompt in ("hello", "pay"):
                await Team(front, agent("billing", "Paid.")).run(prompt, session=session)
        info = await opened.info("ann")
        assert info is not None
        assert info.agent == "billing"
        billing = agent("billing", "Again.")
        async with stored_session(opened, "ann") as session:
            await Team(front, billing).run("again", session=session)
    assert roles(requests_of(billing)[0].messages)[0] == "pay"


async def test_a_rewind_gives_the_conversation_back_to_the_agent_that_had_it() -> None:
    store = MemoryStore()
    front = agent("front", "Hello.", to("billing"), "Hello again.", handoffs=[Handoff("billing", history="last")])
    team = Team(front, agent("billing", "Paid."))
    async with store.open() as opened:
        async with stored_session(opened, "ann") as session:
            await team.run("hello", session=session)
            await team.run("pay", session=session)
            await session.rewind(2)
        async with stored_session(opened, "ann") as session:
            assert (await team.run("hello?", session=session)).output == "Hello again."
    assert roles(requests_of(front)[-1].messages) == ["hello", "AssistantMessage", "hello?"]


# ------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("depth", [0, 1])
async def test_a_run_that_was_parked_after_a_handoff_is_resumed_by_the_agent_that_got_it(depth: int) -> None:
    @tool(requires_approval=True)
    async def pay() -> str:
        return "paid"

    def team() -> Agent[Any, Any]:
        front = agent("front", to("billing"), handoffs=["billing"])
        done = any(spent)
        script = ["Done."] if done else [calls("pay"), "Done."]
        agents = Team(front, agent("billing", *script, tools=[pay]))
        if depth == 0:
            return agents
        outer = ["All done."] if done else [calls("front", prompt="go"), "All done."]
        return agent("outer", *outer, tools=[agents.as_tool()])

    spent: list[bool] = []
    async with session_of(MemoryStore()) as session:
        outcome = await team().run("go", session=session, on_question="park")
        assert outcome.reason == "needs_input"
        spent.append(True)
        [question] = outcome.questions
        events = await read(team().resume_stream(session, {question.id: Approve()}))
    assert of(events, HandedOff) == []
    assert [event.agent for event in of(events, TurnStarted) if event.depth == depth] == ["billing", "billing"]
    assert answer_in(events) == ("Done." if depth == 0 else "All done.")


async def test_a_handoff_that_waits_for_parked_calls_is_made_when_the_run_is_resumed() -> None:
    @tool(requires_approval=True)
    async def work() -> str:
        return "worked"

    front = agent("front", to("billing") + calls("work"), handoffs=["billing"], tools=[work])
    team = Team(front, agent("billing", "Paid."))
    async with session_of(MemoryStore()) as session:
        outcome = await team.run("go", session=session, on_question="park")
        assert outcome.reason == "needs_input"
        [question] = outcome.questions
        assert isinstance(question, ApprovalRequested)
        assert question.name == "work"
        events = await read(team.resume_stream(session, {question.id: Approve()}))
    assert acting(events) == ["front", "billing"]
    assert answer_in(events) == "Paid."


async def test_a_handoff_that_waits_for_a_persons_approval_is_parked_and_made_later() -> None:
    front = agent("front", to("billing"), handoffs=["billing"], permissions=Permissions(ask=[Rule("handoff")]))
    team = Team(front, agent("billing", "Paid."))
    async with session_of(MemoryStore()) as session:
        outcome = await team.run("go", session=session, on_question="park")
        [question] = outcome.questions
        assert (await team.resume(session, {question.id: Approve()})).output == "Paid."


# ------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Team(agent("a", handoffs=["bilings"]), agent("billing")), "hands off to 'bilings', .* mean 'billing'"),
        (lambda: Team(agent("a", handoff_when_done="x"), agent("b")), "hands off to 'x', .* there are 'a', 'b'"),
        (lambda: Team(agent("a"), agent("a")), "two agents of the team are called 'a'"),
        (Team, "a team has agents"),
        (lambda: Team("a"), "takes agents, one after the other, not 'a'"),  # type: ignore[arg-type]
        (lambda: Team([agent("a")]), "takes agents, one after the other"),  # type: ignore[arg-type]
        (lambda: Team(Team(agent("a"))), "takes agents, one after the other"),
        (lambda: agent("a", handoffs=["a"]), "agent 'a' would hand off to itself"),
        (lambda: agent("a", handoff_when_done="a"), "agent 'a' would hand off to itself"),
        (lambda: agent("a", handoff_when_done=3), "handoff_when_done= takes the name"),
        (lambda: agent("a", handoffs=["b", Handoff("b")]), "names 'b' twice"),
        (lambda: agent("a", handoffs="b"), "takes a list of names"),
        (lambda: agent("a", handoffs=[agent("b")]), "goes to the name of an agent.*: write 'b'"),
        (lambda: agent("a", description=3), "description= takes some text"),
        (lambda: Handoff("b", history="some"), "'all', 'last', or a function"),  # type: ignore[arg-type]
        (lambda: Handoff("b", description=3), "some text"),  # type: ignore[arg-type]
        (lambda: agent("a", handoffs=["b"], tools=[tool(name="handoff")(to)]), "and a tool 'handoff'"),
    ],
    ids=itertools.count(),
)
def test_a_mistake_in_a_team_is_refused_at_once_with_the_way_out(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        make()


async def test_an_agent_with_handoffs_that_runs_in_no_team_is_refused_before_anything_starts() -> None:
    with pytest.raises(UsageError, match=r"hands off to 'b', and runs in no team: write Team\(agent, other\)"):
        await agent("a", handoffs=["b"]).run("go")


async def test_a_run_that_was_handed_off_cannot_be_resumed_by_a_team_without_that_agent() -> None:
    front = agent("front", to("billing"), handoffs=["billing"], permissions=Permissions(ask=[Rule("handoff")]))
    async with session_of(MemoryStore()) as session:
        outcome = await Team(front, agent("billing")).run("go", session=session, on_question="park")
        [question] = outcome.questions
        with pytest.raises(UsageError, match="runs in no team"):
            await front.resume(session, {question.id: Approve()})


# ------------------------------------------------------------------------ a team as an agent


def test_a_team_has_the_ways_to_run_of_an_agent() -> None:
    front = agent("front", to("billing"), handoffs=["billing"], limits=Limits(turns=7))
    billing = agent("billing", "Paid.")
    team = Team(front, billing)
    assert run_sync(team, "pay").output == "Paid."
    assert (team.name, team.limits, team.agents) == ("front", Limits(turns=7), (front, billing))
    assert repr(team) == "Team('front', 'billing')"
    assert team.replace(limits=Limits(turns=8)).limits == Limits(turns=8)
    with team.override(model=ScriptedModel(to("billing"), "From a fake.")):
        assert run_sync(team, "pay").output == "From a fake."


async def test_the_model_of_a_run_stands_in_the_place_of_the_first_agents_model() -> None:
    front, billing = agent("front", handoffs=["billing"]), agent("billing", "Paid.")
    outcome = await Team(front, billing).run("pay", model=ScriptedModel(to("billing")))
    assert outcome.output == "Paid."
