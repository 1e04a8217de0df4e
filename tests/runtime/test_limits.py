"""Limits: how far a stream and all inside it may go, and what becomes of the question whether it may go further."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentloop import Accept, Agent, Approve, Deadlines, Deny, Limits, Tool, ToolContext, UsageError, hooks, tool
from agentloop.context import AgentBase
from agentloop.errors import ChildLimitError, InvalidAnswerError, LimitReachedError
from agentloop.events import (
    ChildStreamStarted,
    ChildStreamStopped,
    ContinueRequested,
    ElicitationRequested,
    Question,
    QuestionDeclined,
    StreamEvent,
    ToolCallFinished,
    ToolCallStarted,
    TurnStarted,
)
from agentloop.hooks import TurnStart
from agentloop.messages import Usage
from agentloop.models import ModelRequest
from agentloop.questions import Answer
from agentloop.testing import FunctionModel, Response, ScriptedModel, calls, hangs, says
from tests.runtime.builders import agent_with, answering, asked, results
from tests.support import first, nested, of, opened, stopped_at, watch


@tool
async def look(n: int = 0) -> int:
    return n


def looker(turns: int, name: str = "agent", *, at_once: int = 1, **options: Any) -> Agent:
    """An agent that looks ``turns`` times, ``at_once`` each time, before it says "Done."."""
    script: list[Response | str] = []
    for turn in range(turns):
        response = calls("look", n=turn)
        for _ in range(at_once - 1):
            response += calls("look", n=turn)
        script.append(response)
    return Agent(ScriptedModel(*script, "Done."), name=name, tools=[look], **options)


def continues(events: list[StreamEvent]) -> list[tuple[str, float, float]]:
    return [(event.limit, event.used, event.allowed) for event in of(events, ContinueRequested)]


# ------------------------------------------------------------------------------ one stream


@pytest.mark.parametrize(
    ("limits", "detail", "turns"),
    [
        (Limits(turns=2), "turns: 2 of 2 used", 2),
        (Limits(requests=2), "requests: 2 of 2 used", 2),
        (Limits(tokens=20), "tokens: 30 of 20 used", 2),
        (Limits(tool_calls=2), "tool_calls: 2 of 2 used, and the model asked for 1 more", 3),
    ],
    ids=["turns", "requests", "tokens", "tool_calls"],
)
async def test_without_an_answerer_a_run_ends_at_its_limit(limits: Limits, detail: str, turns: int) -> None:
    watched = await watch(looker(9, limits=limits), on_question="decline")

    assert (watched.outcome.reason, watched.outcome.detail) == ("limit", detail)
    assert len(of(watched.events, TurnStarted)) == turns
    assert len(of(watched.events, QuestionDeclined)) == 1


@pytest.mark.parametrize(
    "limits",
    [Limits(turns=3), Limits(requests=3), Limits(tokens=31), Limits(tool_calls=2)],
    ids=["turns", "requests", "tokens", "tool_calls"],
)
async def test_a_limit_that_is_just_enough_is_enough(limits: Limits) -> None:
    watched = await watch(looker(2, limits=limits))

    assert watched.outcome.reason == "completed"
    assert asked(watched.events) == []


async def test_a_run_that_reached_a_limit_raises_what_it_was() -> None:
    with pytest.raises(LimitReachedError, match="the run reached a limit: turns: 1 of 1 used") as caught:
        await looker(9, limits=Limits(turns=1)).run("go")

    assert len(caught.value.outcome.messages) == 3  # type: ignore[attr-defined]


async def test_there_is_a_limit_of_turns_by_default() -> None:
    watched = await watch(looker(60), on_question="decline")

    assert watched.outcome.detail == "turns: 50 of 50 used"


async def test_an_infinite_limit_is_none() -> None:
    watched = await watch(looker(60, limits=Limits(turns=math.inf)))

    assert watched.outcome.reason == "completed"


async def test_of_a_turn_with_too_many_calls_none_is_run() -> None:
    """Half a turn would be neither one thing nor the other."""
    ran: list[int] = []

    @tool
    async def count(n: int) -> None:
        ran.append(n)

    agent = agent_with(count, response=calls("count", n=1) + calls("count", n=2), limits=Limits(tool_calls=1))
    watched = await watch(agent, on_question="decline")

    assert (watched.outcome.reason, ran) == ("limit", [])
    assert of(watched.events, ToolCallStarted) == []
    assert [result.text for result in results(watched)] == ["Interrupted before it started. It did not run."] * 2


async def test_tokens_are_checked_before_each_request_so_the_last_one_may_go_over() -> None:
    big = Response(calls("look").parts, usage=Usage(input_tokens=900, output_tokens=100))
    agent = agent_with(look, model=ScriptedModel(big, big, "Done."), limits=Limits(tokens=1001))

    watched = await watch(agent, on_question="decline")

    assert (watched.outcome.reason, watched.outcome.detail) == ("limit", "tokens: 2000 of 1001 used")


# ---------------------------------------------------------------------------- going further


@pytest.mark.parametrize(
    ("limits", "questions"),
    [
        (Limits(turns=2), [("turns", 2, 2), ("turns", 4, 4)]),
        (Limits(requests=2), [("requests", 2, 2), ("requests", 4, 4)]),
        (Limits(tokens=30), [("tokens", 30, 30), ("tokens", 60, 60)]),
        (Limits(tool_calls=2), [("tool_calls", 2, 2), ("tool_calls", 4, 4)]),
    ],
    ids=["turns", "requests", "tokens", "tool_calls"],
)
async def test_a_person_may_raise_the_limit_by_the_same_amount_each_time(
    limits: Limits, questions: list[tuple[str, float, float]]
) -> None:
    watched = await watch(looker(5, limits=limits), on_event=answering(Approve()))

    assert continues(watched.events) == questions
    assert watched.outcome.reason == "completed"


async def test_a_person_may_refuse_to_raise_the_limit() -> None:
    watched = await watch(looker(9, limits=Limits(turns=2)), on_event=answering(Approve(), Deny("enough")))

    assert len(asked(watched.events)) == 2
    assert (watched.outcome.reason, watched.outcome.detail) == ("limit", "turns: 4 of 4 used")


async def test_a_handler_may_raise_the_limit() -> None:
    async def twice(question: Question) -> Answer:
        assert isinstance(question, ContinueRequested)
        return Approve() if question.used < 6 else Deny()

    outcome = (await watch(looker(9, limits=Limits(turns=2)), on_question=twice)).outcome

    assert outcome.detail == "turns: 6 of 6 used"


async def test_a_run_waits_for_the_answer_before_it_asks_the_model() -> None:
    agent = looker(9, limits=Limits(turns=1))
    assert isinstance(agent.model, ScriptedModel)

    async with opened(agent) as stream:
        await first(stream, ContinueRequested)
        await wait_all_tasks_blocked()
        assert len(agent.model.requests) == 1
        stream.stop()
        await stream.wait()

        assert stream.outcome.reason == "cancelled"


async def test_calls_wait_for_the_answer_before_they_are_started() -> None:
    async with opened(looker(9, limits=Limits(tool_calls=1), at_once=2)) as stream:
        question = await first(stream, ContinueRequested)
        await wait_all_tasks_blocked()
        stream.answer(question.id, Approve())
        started = await first(stream, ToolCallStarted)

        assert started.seq > question.seq


async def test_a_raised_limit_covers_the_turn_that_asked_for_it_however_many_calls_it_has() -> None:
    watched = await watch(looker(1, limits=Limits(tool_calls=1), at_once=9), on_event=answering(Approve()))

    assert len(asked(watched.events)) == 1
    assert len(results(watched)) == 9


@pytest.mark.parametrize("answer", [Accept(), None], ids=["accept", "none"])
async def test_an_answer_of_the_wrong_kind_is_refused_and_the_question_stays(answer: Any) -> None:
    async with opened(looker(9, limits=Limits(turns=1))) as stream:
        question = await first(stream, ContinueRequested)
        with pytest.raises(InvalidAnswerError, match="it wants Approve or Deny"):
            stream.answer(question.id, answer)

        assert stream.pending == (question,)


async def test_of_two_limits_that_are_reached_at_once_each_is_asked_about() -> None:
    """To let a run go past one is not to let it go past the other."""

    async def more_turns(question: Question) -> Answer:
        assert isinstance(question, ContinueRequested)
        return Approve() if question.limit == "turns" else Deny()

    watched = await watch(looker(9, limits=Limits(turns=2, requests=2)), on_question=more_turns)

    assert [limit for limit, _, _ in continues(watched.events)] == ["turns", "requests"]
    assert (watched.outcome.detail, watched.outcome.usage.requests) == ("requests: 2 of 2 used", 2)


async def test_a_limit_of_tool_calls_of_the_stream_above_is_asked_about_beside_the_own_one() -> None:
    async def inner_ones(question: Question) -> Answer:
        assert isinstance(question, ContinueRequested)
        return Approve() if question.allowed == 1 else Deny()

    agent = nested(looker(9, "inner", limits=Limits(tool_calls=1)), 1, limits=Limits(tool_calls=2))
    watched = await watch(agent, on_question=inner_ones)

    assert [allowed for _, _, allowed in continues(watched.events)] == [1, 2]
    assert len(of(watched.events, ToolCallFinished, depth=1)) == 1
    assert stopped_at(watched.events, 1).reason == "limit"


# ---------------------------------------------------------------------------- across the tree


@pytest.mark.parametrize(
    ("limits", "detail"),
    [
        (Limits(requests=4), "requests: 4 of 4 used"),
        (Limits(tokens=60), "tokens: 60 of 60 used"),
        (Limits(tool_calls=4), "tool_calls: 4 of 4 used, and the model asked for 1 more"),
    ],
    ids=["requests", "tokens", "tool_calls"],
)
async def test_what_a_child_uses_counts_towards_the_limits_above_it(limits: Limits, detail: str) -> None:
    watched = await watch(nested(looker(20, "inner"), 1, limits=limits), on_question="decline")

    assert (stopped_at(watched.events, 1).reason, stopped_at(watched.events, 1).detail) == ("limit", detail)
    assert "agent 'inner' gave no answer: the run reached a limit" in results(watched)[0].text


async def test_where_the_limit_above_is_reached_the_parent_ends_too() -> None:
    watched = await watch(nested(looker(20, "inner"), 2, limits=Limits(requests=5)), on_question="decline")

    assert [stopped_at(watched.events, depth).reason for depth in (0, 1, 2)] == ["limit"] * 3
    assert watched.outcome.usage.requests == 5


async def test_turns_are_those_of_one_stream_alone() -> None:
    watched = await watch(nested(looker(5, "inner"), 1, limits=Limits(turns=2)))

    assert watched.outcome.reason == "completed"


async def test_the_limit_of_a_child_does_not_end_its_parent() -> None:
    watched = await watch(nested(looker(9, "inner", limits=Limits(turns=1)), 1), on_question="decline")

    assert stopped_at(watched.events, 1).reason == "limit"
    assert watched.outcome.output == "Done."


async def test_a_child_asks_at_the_root_whether_it_may_go_past_a_limit_above_it() -> None:
    watched = await watch(nested(looker(5, "inner"), 2, limits=Limits(requests=6)), on_event=answering(Approve()))

    assert watched.outcome.reason == "completed"
    assert {question.depth for question in of(watched.events, ContinueRequested)} == {2}


async def test_the_nearest_limit_is_the_one_that_is_asked_about() -> None:
    agent = nested(looker(5, "inner", limits=Limits(requests=2)), 1, limits=Limits(requests=4))

    watched = await watch(agent, on_event=answering(Approve()))

    assert continues(watched.events)[0] == ("requests", 2, 2)


async def test_children_side_by_side_share_the_rest_of_the_limit() -> None:
    inner = [looker(9, f"inner{number}") for number in range(3)]
    together = calls("inner0", prompt="go") + calls("inner1", prompt="go") + calls("inner2", prompt="go")
    tools = [agent.as_tool() for agent in inner]
    agent = agent_with(*tools, name="outer", response=together, limits=Limits(requests=8))

    watched = await watch(agent, on_question="decline")

    assert watched.outcome.usage.requests == 8
    assert [event.reason for event in of(watched.events, ChildStreamStopped)] == ["limit"] * 3


async def test_a_turn_that_hooks_hold_up_does_not_let_more_requests_through() -> None:
    """Between asking whether there is one left and making it, the others must not slip in."""

    @hooks.turn_start
    async def slow(value: TurnStart) -> None:
        await trio.sleep(1)

    inner = [looker(9, f"inner{number}", hooks=[slow]) for number in range(3)]
    together = calls("inner0", prompt="go") + calls("inner1", prompt="go") + calls("inner2", prompt="go")
    tools = [agent.as_tool() for agent in inner]
    agent = agent_with(*tools, name="outer", response=together, limits=Limits(requests=5))

    watched = await watch(agent, on_question="decline")

    assert watched.outcome.usage.requests == 5


# ------------------------------------------------------------------------------------ seconds


async def test_a_run_ends_when_its_time_is_over() -> None:
    began = trio.current_time()

    watched = await watch(Agent(ScriptedModel(hangs()), limits=Limits(seconds=5)))

    assert (watched.outcome.reason, watched.outcome.detail) == ("limit", "seconds: the 5 s are over")
    assert trio.current_time() - began == pytest.approx(5)
    assert asked(watched.events) == []


async def test_a_tool_is_cut_off_when_the_time_of_its_stream_is_over() -> None:
    @tool
    async def sleep() -> None:
        await trio.sleep(100)

    watched = await watch(agent_with(sleep, limits=Limits(seconds=3)))

    assert results(watched)[0].status == "interrupted"
    assert watched.outcome.reason == "limit"


async def test_the_text_before_the_deadline_is_committed() -> None:
    watched = await watch(Agent(ScriptedModel(says("Well, ") + hangs()), limits=Limits(seconds=3)))

    assert getattr(watched.messages[-1], "text", None) == "Well, "


async def test_a_child_is_cancelled_when_the_time_of_its_parent_is_over() -> None:
    watched = await watch(nested(Agent(ScriptedModel(hangs()), name="inner"), 1, limits=Limits(seconds=3)))

    assert [stopped_at(watched.events, depth).reason for depth in (0, 1)] == ["limit", "cancelled"]


async def test_the_time_of_a_child_is_its_own_limit() -> None:
    watched = await watch(nested(Agent(ScriptedModel(hangs()), name="inner", limits=Limits(seconds=3)), 1))

    assert stopped_at(watched.events, 1).reason == "limit"
    assert watched.outcome.reason == "completed"


@tool
async def ask(context: ToolContext[Any]) -> str:
    await context.ask("Well?")
    return "asked"


async def accept_after_an_hour(question: Question) -> Answer:
    await trio.sleep(3600)
    return Accept() if isinstance(question, ElicitationRequested) else Approve()


@pytest.mark.seconds(10_000)
@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_the_time_a_person_thinks_does_not_count(depth: int) -> None:
    agent = agent_with(ask, name="inner", limits=Limits(seconds=5))

    watched = await watch(nested(agent, depth, limits=Limits(seconds=5)), on_question=accept_after_an_hour)

    assert watched.outcome.reason == "completed"


@pytest.mark.seconds(10_000)
async def test_the_time_a_person_thinks_about_a_limit_does_not_count() -> None:
    agent = looker(3, limits=Limits(seconds=5, turns=2))

    watched = await watch(agent, on_question=accept_after_an_hour)

    assert watched.outcome.reason == "completed"


@pytest.mark.seconds(10_000)
async def test_the_time_before_and_after_the_answer_does_count() -> None:
    @tool
    async def work(context: ToolContext[Any]) -> str:
        await trio.sleep(3)
        await context.ask("Well?")
        await trio.sleep(3)
        return "never"

    watched = await watch(agent_with(work, limits=Limits(seconds=5)), on_question=accept_after_an_hour)

    assert watched.outcome.reason == "limit"


async def test_a_run_that_is_stopped_before_its_time_is_over_is_cancelled() -> None:
    async with opened(Agent(ScriptedModel(hangs()), limits=Limits(seconds=5))) as stream:
        await trio.sleep(4)
        stream.stop()
        await stream.wait()

        assert stream.outcome.reason == "cancelled"


# ---------------------------------------------------------------------------- depth and circles


def delegating(agent: AgentBase, errors: list[ChildLimitError], **options: Any) -> Agent:
    @tool
    async def delegate(context: ToolContext[Any]) -> str:
        try:
            return str((await context.run(agent, "go")).output)
        except ChildLimitError as error:
            errors.append(error)
            raise

    return agent_with(delegate, **options)


async def test_children_nest_as_deep_as_the_limit_and_no_deeper() -> None:
    agent = Agent(ScriptedModel("Hi."), name="agent0")
    for level in range(1, 4):
        limits = Limits(depth=2) if level == 3 else Limits()
        below = agent.as_tool()
        response = calls(below.name, prompt="go")
        agent = agent_with(below, name=f"agent{level}", response=response, limits=limits)

    watched = await watch(agent)

    assert [event.agent for event in of(watched.events, ChildStreamStarted)] == ["agent2", "agent1"]
    [refused] = of(watched.events, ToolCallFinished, depth=2)
    assert refused.result.status == "error"
    assert "agent 'agent0' cannot be opened inside agent3 > agent2 > agent1" in refused.result.text
    assert "agent 'agent3' allows 2 levels below it (Limits.depth)" in refused.result.text


async def test_a_run_nests_eight_levels_by_default() -> None:
    watched = await watch(nested(Agent(ScriptedModel("Hi."), name="inner"), 9))

    assert len(of(watched.events, ChildStreamStarted)) == 8


async def test_an_agent_does_not_run_inside_itself() -> None:
    agents: list[Agent] = []
    errors: list[ChildLimitError] = []

    @tool
    async def again(context: ToolContext[Any]) -> str:
        try:
            return str((await context.run(agents[0], "go")).output)
        except ChildLimitError as error:
            errors.append(error)
            raise

    inner = agent_with(again, name="inner")
    agents.append(agent_with(inner.as_tool(), name="outer", response=calls("inner", prompt="go")))
    watched = await watch(agents[0])

    [error] = errors
    assert (error.agent, error.path) == ("outer", ("outer", "inner"))
    assert "it is running there already, and would go round in a circle" in str(error)
    assert watched.outcome.reason == "completed"


async def test_an_agent_may_run_twice_side_by_side() -> None:
    inner = Agent(ScriptedModel("Hi.", "Hi."), name="inner")
    response = calls("inner", prompt="go") + calls("inner", prompt="go")

    watched = await watch(agent_with(inner.as_tool(), name="outer", response=response))

    assert [result.text for result in results(watched)] == ["Hi."] * 2


# ------------------------------------------------------------------------------------ repeats


def repeating(response: Response, *tools: Tool, **options: Any) -> Agent:
    return Agent(ScriptedModel(response, repeat=True), tools=tools, **options)


async def test_the_same_calls_again_and_again_end_the_run() -> None:
    watched = await watch(repeating(calls("look", n=1), look))

    assert (watched.outcome.reason, watched.outcome.detail) == (
        "limit",
        "the model asked for the same calls 5 times in a row",
    )
    assert len(of(watched.events, ToolCallFinished)) == 4


async def test_how_often_is_a_limit_of_the_agent() -> None:
    watched = await watch(repeating(calls("look", n=1), look, limits=Limits(identical_turns=2)))

    assert len(of(watched.events, ToolCallFinished)) == 1


async def test_other_arguments_are_other_calls() -> None:
    watched = await watch(looker(9, limits=Limits(identical_turns=2)))

    assert watched.outcome.reason == "completed"


async def test_the_same_call_with_its_keys_in_another_order_is_the_same_call() -> None:
    texts = ['{"n": 1, "to": {"a": 1, "b": 2}}', '{"to":{"b":2.0,"a":1},"n":1}', '{"to": {"b": 2, "a": 1}, "n": 1.0}']

    @tool
    async def place(n: int, to: dict[str, int]) -> str:
        """Place something."""
        return "placed"

    model = ScriptedModel(*[calls("place", raw=text) for text in texts], "Done.")
    watched = await watch(Agent(model, tools=[place], limits=Limits(identical_turns=3)))

    assert watched.outcome.detail == "the model asked for the same calls 3 times in a row"
    assert len(of(watched.events, ToolCallFinished)) == 2


async def test_a_person_reads_what_was_used_of_a_limit_on_calls() -> None:
    five = calls("look", n=1) + calls("look", n=2) + calls("look", n=3) + calls("look", n=4) + calls("look", n=5)
    agent = agent_with(look, model=ScriptedModel(five, "Done."), limits=Limits(tool_calls=3))
    watched = await watch(agent, on_event=answering(Deny()))

    [question] = of(watched.events, ContinueRequested)
    assert (question.limit, question.used, question.allowed) == ("tool_calls", 0, 3)
    assert watched.outcome.detail == "tool_calls: 0 of 3 used, and the model asked for 5 more"


async def test_one_answer_lets_all_calls_of_a_response_go_past_their_limit() -> None:
    five = calls("look", n=1) + calls("look", n=2) + calls("look", n=3) + calls("look", n=4) + calls("look", n=5)
    agent = agent_with(look, model=ScriptedModel(five, "Done."), limits=Limits(tool_calls=1))
    watched = await watch(agent, on_event=answering(Approve()))

    assert len(of(watched.events, ContinueRequested)) == 1
    assert watched.outcome.reason == "completed"


async def test_a_call_in_between_begins_the_count_anew() -> None:
    script = [*[calls("look", n=1)] * 2, calls("look", n=2), *[calls("look", n=1)] * 2]
    agent = agent_with(look, model=ScriptedModel(*script, "Done."), limits=Limits(identical_turns=3))

    assert (await watch(agent)).outcome.reason == "completed"


async def test_a_tool_that_is_there_to_poll_may_be_called_again_and_again() -> None:
    @tool(polling=True)
    async def poll() -> str:
        return "not yet"

    agent = Agent(ScriptedModel(*[calls("poll")] * 20, "Done."), tools=[poll])

    assert (await watch(agent)).outcome.reason == "completed"


async def test_polling_beside_another_call_again_and_again_is_a_loop() -> None:
    @tool(polling=True)
    async def poll() -> str:
        return "not yet"

    watched = await watch(repeating(calls("poll") + calls("look", n=1), poll, look))

    assert watched.outcome.reason == "limit"


async def test_calls_of_tools_that_are_not_there_are_a_loop_too() -> None:
    watched = await watch(repeating(calls("nothing")))

    assert watched.outcome.reason == "limit"


# ------------------------------------------------------------------------------------ definition


@pytest.mark.parametrize("value", [0, -1, math.nan, "2", None])
@pytest.mark.parametrize("name", ["turns", "depth", "identical_turns", "output_attempts"])
def test_a_limit_that_is_none_is_refused_with_the_way_out(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"Limits\({name}=.*\): give a number above 0, or math.inf for no limit"):
        Limits(**{name: value})


@pytest.mark.parametrize("value", [0, -1, math.nan, "2"])
@pytest.mark.parametrize("name", ["requests", "tokens", "tool_calls", "seconds"])
def test_a_limit_that_may_be_left_out_says_so(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"Limits\({name}=.*\): give a number above 0, or None for no limit"):
        Limits(**{name: value})


@pytest.mark.parametrize("value", [0, -1, math.nan, "2", None])
@pytest.mark.parametrize("name", ["first_token", "idle", "tool", "toolset", "hook", "cleanup"])
def test_a_deadline_that_is_none_is_refused_with_the_way_out(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"Deadlines\({name}=.*\): give a number above 0, or math.inf for no limit"):
        Deadlines(**{name: value})


@pytest.mark.seconds(100_000)
async def test_without_deadlines_a_run_waits_for_ever() -> None:
    async def respond(request: ModelRequest) -> str:
        await trio.sleep(50_000)
        return "At last."

    assert (await Agent(FunctionModel(respond), deadlines=Deadlines.none()).run("go")).output == "At last."


async def test_what_one_stream_uses_is_not_taken_from_another_of_the_same_agent() -> None:
    """Limits belong to an agent, what is used of them to a stream."""
    model = FunctionModel(lambda request: calls("look") if len(request.messages) == 1 else "Done.")
    agent = Agent(model, tools=[look], limits=Limits(requests=2))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(agent.run, "go")
