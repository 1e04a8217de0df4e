"""Child streams: a stream inside a tool call of another, the same thing one level down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from agentloop import Accept, Agent, Approve, Cancel, Decline, Deny, Limits, ToolContext, ToolError, hooks, tool
from agentloop._runtime.stream import Stream
from agentloop.errors import (
    ChildLimitError,
    LimitReachedError,
    ModelConnectionError,
    StreamStateError,
    UnknownQuestionError,
    UsageError,
)
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    ContinueRequested,
    ElicitationRequested,
    QuestionAnswered,
    QuestionDeclined,
    QuestionWithdrawn,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    WarningIssued,
)
from agentloop.messages import Usage
from agentloop.outcome import ChildStream, Outcome
from agentloop.questions import Answer
from agentloop.testing import FunctionModel, Response, ScriptedModel, calls, fails, hangs, says
from tests.runtime.builders import agent_with, only_result
from tests.runtime.ways import FakeToolset, add, ask_name, delete, wait_forever
from tests.support import first, nested, of, opened, stopped_at, watch


def delegating(child: Agent, use: Callable[[ToolContext[None], Agent], Any], **options: Any) -> Agent:
    """An agent whose one tool does something with ``child``."""

    @tool
    async def delegate(context: ToolContext[None]) -> str:
        """Delegate."""
        return str(await use(context, child))

    return Agent(ScriptedModel(calls("delegate"), "Done."), name="outer", tools=[delegate], **options)


async def read_all(context: ToolContext[None], child: Agent) -> list[StreamEvent]:
    async with context.stream(child, "go") as stream:
        return [event async for event in stream]


# ------------------------------------------------------------------------------- its handle


async def test_a_childs_events_are_in_its_parents_stream_and_its_own() -> None:
    own: list[StreamEvent] = []

    async def use(context: ToolContext[None], child: Agent) -> None:
        own.extend(await read_all(context, child))

    watched = await watch(delegating(Agent(ScriptedModel("Hi there."), name="child"), use))

    shared = [event for event in watched.events if event.agent == "child"]
    assert [type(event) for event in own[1:-1]] == [type(event) for event in shared[1:-1]]
    assert (type(own[0]), type(own[-1])) == (StreamStarted, StreamStopped)
    assert (type(shared[0]), type(shared[-1])) == (ChildStreamStarted, ChildStreamStopped)
    assert [event.seq for event in own] == list(range(1, len(own) + 1))
    assert {event.source for event in own} == {event.source for event in shared}


async def test_a_child_can_be_read_in_part_then_waited_for() -> None:
    async def use(context: ToolContext[None], child: Agent) -> object:
        async with context.stream(child, "go") as stream:
            await first(stream, TextDelta)
            await stream.wait()
            return stream.result.output

    watched = await watch(delegating(Agent(ScriptedModel("Hi there."), name="child"), use))
    [finished] = of(watched.events, ToolCallFinished)
    assert finished.result.text == "Hi there."


async def test_a_tool_that_leaves_its_child_early_cancels_it_and_continues() -> None:
    handles: list[ChildStream] = []

    async def use(context: ToolContext[None], child: Agent) -> str:
        async with context.stream(child, "go") as stream:
            handles.append(stream)
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
        return f"it was {stream.outcome.reason}"

    watched = await watch(delegating(Agent(ScriptedModel(says("So, ") + hangs()), name="child"), use))
    [finished] = of(watched.events, ToolCallFinished)
    assert finished.result.text == "it was cancelled"
    assert stopped_at(watched.events, 1).reason == "cancelled"
    assert watched.outcome.output == "Done."


async def test_a_tool_may_stop_its_child_and_read_on_to_its_last_event() -> None:
    async def use(context: ToolContext[None], child: Agent) -> str:
        async with context.stream(child, "go") as stream:
            seen = []
            async for event in stream:
                seen.append(event)
                if isinstance(event, TextDelta):
                    stream.stop("that will do")
            assert isinstance(seen[-1], StreamStopped)
            return seen[-1].detail

    watched = await watch(delegating(Agent(ScriptedModel(says("So, ") + hangs()), name="child"), use))
    [finished] = of(watched.events, ToolCallFinished)
    assert finished.result.text == "that will do"


async def test_a_childs_error_is_raised_where_the_tool_reads_it() -> None:
    met: list[Exception] = []

    async def use(context: ToolContext[None], child: Agent) -> str:
        try:
            await read_all(context, child)
        except ModelConnectionError as error:
            met.append(error)
        return "never mind"

    child = Agent(ScriptedModel(fails(ModelConnectionError("gone"))), name="child")
    watched = await watch(delegating(child, use))
    assert len(met) == 1
    assert watched.outcome.output == "Done."


async def test_a_childs_error_that_the_tool_does_not_catch_is_its_result() -> None:
    child = Agent(ScriptedModel(fails(ModelConnectionError("gone"))), name="child")
    watched = await watch(delegating(child, read_all))
    [finished] = of(watched.events, ToolCallFinished)
    assert (finished.result.status, finished.result.text) == ("error", "ModelConnectionError: gone")


async def test_running_a_child_gives_its_outcome_or_raises() -> None:
    outcomes: list[Outcome] = []

    async def use(context: ToolContext[None], child: Agent) -> str:
        outcomes.append(await context.run(child, "go"))
        with pytest.raises(LimitReachedError):
            await context.run(
                child.replace(model=ScriptedModel(calls("nope")), limits=Limits(turns=1), name="short"), "go"
            )
        return "both"

    watched = await watch(delegating(Agent(ScriptedModel("Hi."), name="child"), use), on_question="decline")
    assert outcomes[0].output == "Hi."
    assert of(watched.events, ToolCallFinished, depth=0)[0].result.text == "both"


async def test_a_child_is_opened_on_an_agent_only() -> None:
    async def use(context: ToolContext[None], child: Agent) -> str:
        with pytest.raises(UsageError, match="opened on an Agent"):
            await context.run("child", "go")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="empty"):
            await context.run(child, "")
        return "ok"

    watched = await watch(delegating(Agent(ScriptedModel("no"), name="child"), use))
    assert of(watched.events, ToolCallFinished)[0].result.text == "ok"
    assert of(watched.events, ChildStreamStarted) == []


async def test_a_context_that_was_kept_opens_nothing_once_its_call_has_ended() -> None:
    kept: list[ToolContext[None]] = []

    async def use(context: ToolContext[None], child: Agent) -> str:
        kept.append(context)
        return "ok"

    child = Agent(ScriptedModel("no"), name="child")
    async with opened(delegating(child, use)) as stream:
        await first(stream, ToolCallFinished)
        with pytest.raises(StreamStateError, match="has ended, and its context with it"):
            await kept[0].run(child, "go")
        with pytest.raises(StreamStateError):
            await kept[0].output("late")
        with pytest.raises(StreamStateError):
            await kept[0].ask("late?")


# ------------------------------------------------------------------------------ as a tool


async def test_an_agent_as_a_tool_is_called_and_described_after_itself() -> None:
    agent = Agent(ScriptedModel(), name="helper", instructions="Helps with sums.")
    assert (agent.as_tool().name, agent.as_tool().description) == ("helper", "Helps with sums.")
    other = agent.as_tool(name="sums", description="Ask for sums.", requires_approval=True)
    assert (other.name, other.description, other.requires_approval) == ("sums", "Ask for sums.", True)


async def test_an_agent_without_an_answer_is_an_error_that_the_outer_model_reads() -> None:
    child = Agent(ScriptedModel(fails(ModelConnectionError("gone"))), name="child")
    watched = await watch(nested(child, 1))
    [finished] = of(watched.events, ToolCallFinished)
    assert finished.result.status == "error"
    assert finished.result.text == "agent 'child' gave no answer: gone"


async def test_what_a_child_returns_in_its_output_type_reaches_the_outer_model_as_json() -> None:
    child = Agent(ScriptedModel("[1, 2, 3]"), name="child", output_type=list[int])
    watched = await watch(nested(child, 1))
    [finished] = of(watched.events, ToolCallFinished)
    assert finished.result.text == "[1,2,3]"


# ------------------------------------------------------------------------------- in parallel


async def test_children_at_once_do_not_see_each_others_agent() -> None:
    """A shared "current agent" would be whichever was set last."""
    seen: dict[str, tuple[str, ...]] = {}
    both = [trio.Event(), trio.Event()]

    def child(number: int) -> Agent:
        @tool
        async def whoami(context: ToolContext[None]) -> str:
            """Say who calls."""
            both[number].set()
            await both[1 - number].wait()
            seen[context.source.stream] = context.source.agents
            return context.source.agents[-1]

        return Agent(ScriptedModel(calls("whoami"), "Bye."), name=f"child{number}", tools=[whoami])

    children = [child(0), child(1)]
    script = calls("child0", prompt="go") + calls("child1", prompt="go")
    outer = Agent(ScriptedModel(script, "Done."), name="outer", tools=[one.as_tool() for one in children])
    watched = await watch(outer)

    assert sorted(seen.values()) == [("outer", "child0"), ("outer", "child1")]
    for event in of(watched.events, ToolCallFinished, depth=1):
        assert event.result.text == event.agent


async def test_the_same_agent_may_run_in_many_calls_at_once() -> None:
    child = Agent(FunctionModel(lambda request: request.messages[-1].text.upper()), name="child")
    script = calls("child", prompt="a") + calls("child", prompt="b") + calls("child", prompt="c")
    watched = await watch(Agent(ScriptedModel(script, "Done."), name="outer", tools=[child.as_tool()]))
    assert [event.result.text for event in of(watched.events, ToolCallFinished)] != []
    assert sorted(event.result.text for event in of(watched.events, ToolCallFinished)) == ["A", "B", "C"]
    assert len({event.stream for event in of(watched.events, ChildStreamStarted)}) == 3


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
async def test_siblings_that_ask_at_once_get_their_own_answers_in_any_order(order: tuple[int, ...]) -> None:
    children = [Agent(ScriptedModel(calls("ask_name"), "Bye."), name=f"c{i}", tools=[ask_name]) for i in range(3)]
    script = calls("c0", prompt="go") + calls("c1", prompt="go") + calls("c2", prompt="go")
    outer = Agent(ScriptedModel(script, "Done."), name="outer", tools=[one.as_tool() for one in children])
    async with opened(outer) as stream:
        asked: dict[str, ElicitationRequested] = {}
        while len(asked) < 3:
            question = await first(stream, ElicitationRequested)
            asked[question.agent] = question
        # One after another, so that the streams end in this order: not in that in which they began, nor its reverse.
        for number in order:
            stream.answer(asked[f"c{number}"].id, Accept({"name": f"for {number}"}))
            stopped = await first(stream, ChildStreamStopped)
            assert stopped.agent == f"c{number}"
            open_now = {question.agent for question in stream.pending}
            assert open_now == {f"c{i}" for i in order[order.index(number) + 1 :]}
        told = [event async for event in stream]
    assert of(told, StreamStopped)[0].reason == "completed"


async def test_a_sibling_that_fails_at_once_does_not_disturb_a_call_that_waits_for_an_answer() -> None:
    asking = Agent(ScriptedModel(calls("ask_name"), "Bye."), name="asking", tools=[ask_name])
    failing = Agent(ScriptedModel("no"), name="failing", toolsets=[FakeToolset(listings=0)])
    script = calls("asking", prompt="go") + calls("failing", prompt="go")
    outer = Agent(ScriptedModel(script, "Done."), name="outer", tools=[asking.as_tool(), failing.as_tool()])
    async with opened(outer) as stream:
        question: ElicitationRequested | None = None
        failed = False
        while question is None or not failed:
            event = await anext(stream)
            question = event if isinstance(event, ElicitationRequested) else question
            failed = failed or isinstance(event, ChildStreamStopped)
        assert stream.pending == (question,)
        stream.answer(question.id, Accept({"name": "Ada"}))
        told = [event async for event in stream]
    assert {event.result.text for event in of(told, ToolCallFinished, depth=1)} == {"Ada"}


EARLY_RETURNS = {
    "listing fails": lambda: Agent(ScriptedModel("no"), name="inner", toolsets=[FakeToolset(listings=0)]),
    "prompt refused": lambda: Agent(
        ScriptedModel("no"), name="inner", hooks=[hooks.user_prompt_submit(lambda value: hooks.Block("no"))]
    ),
}


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("early", EARLY_RETURNS)
async def test_after_an_early_return_inside_the_reader_ends_and_the_outer_asker_is_asked_again(
    early: str, depth: int
) -> None:
    """Both returns of docker-agent#3073 left a reader that hung, and questions that went to a dead stream."""
    inner = nested(EARLY_RETURNS[early](), depth - 1)

    @tool
    async def delegate_then_ask(context: ToolContext[None]) -> str:
        """Delegate, then ask."""
        told: list[StreamEvent] = []
        async with context.stream(inner, "go") as stream:
            try:
                async for event in stream:
                    told.append(event)  # noqa: PERF401 - kept also when the loop raises
            except ToolError:
                pass
        assert isinstance(told[-1], StreamStopped)
        answer = await context.ask("And now?")
        return type(answer).__name__

    outer = Agent(ScriptedModel(calls("delegate_then_ask"), "Done."), name="outer", tools=[delegate_then_ask])
    watched = await watch(
        outer,
        on_event=lambda stream, event: (
            stream.answer(event.id, Accept()) if isinstance(event, ElicitationRequested) else None
        ),
    )
    assert of(watched.events, ToolCallFinished, depth=0)[0].result.text == "Accept"
    assert watched.outcome.output == "Done."


# -------------------------------------------------------------------------------- questions


async def _accept(question: object) -> Answer:
    return Accept({"name": "from the handler"})


async def _pass(question: object) -> None:
    return None


async def _fail(question: object) -> Answer:
    raise ValueError("no idea")


async def _nonsense(question: object) -> Answer:
    return Approve()


def _asking_child(on_question: Any) -> Agent:
    async def use(context: ToolContext[None], child: Agent) -> object:
        return (await context.run(child, "go", on_question=on_question)).output

    child = Agent(ScriptedModel(calls("ask_name"), "Bye."), name="child", tools=[ask_name])
    return delegating(child, use)


def _answer(stream: Stream, event: StreamEvent) -> None:
    if isinstance(event, ElicitationRequested):
        stream.answer(event.id, Accept({"name": "from the reader"}))


async def test_a_handler_inside_answers_before_the_reader_outside() -> None:
    watched = await watch(_asking_child(_accept))
    [answered] = of(watched.events, QuestionAnswered)
    assert answered.by == "handler"
    assert of(watched.events, ToolCallFinished, depth=1)[0].result.text == "from the handler"


@pytest.mark.parametrize(("handler", "warnings"), [(_pass, 0), (_fail, 1), (_nonsense, 1)])
async def test_a_handler_that_passes_or_fails_makes_room_for_the_next_one_outside(handler: Any, warnings: int) -> None:
    async def late(stream: Stream) -> None:
        await trio.testing.wait_all_tasks_blocked()
        [question] = stream.pending
        stream.answer(question.id, Accept({"name": "from the reader"}))

    async with opened(_asking_child(handler)) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(late, stream)
        told = [event async for event in stream]
    assert len(of(told, WarningIssued)) == warnings
    assert of(told, ToolCallFinished, depth=1)[0].result.text == "from the reader"


async def test_handlers_are_asked_from_the_inside_out() -> None:
    asked: list[str] = []

    def handler(name: str) -> Any:
        async def handle(question: object) -> None:
            asked.append(name)

        return handle

    watched = await watch(_asking_child(handler("inside")), on_question=handler("outside"))
    assert asked == ["inside", "outside"]
    [declined] = of(watched.events, QuestionDeclined)
    assert declined.note == "Nobody is there to be asked."
    assert of(watched.events, ToolCallFinished, depth=1)[0].result.text == "declined: Nobody is there to be asked."


async def test_without_an_answerer_a_child_question_is_declined_at_once_with_a_note() -> None:
    watched = await watch(_asking_child(None), on_question="decline")
    assert len(of(watched.events, QuestionDeclined)) == 1
    assert trio.current_time() == 0


async def test_a_reader_who_answers_while_a_handler_thinks_is_as_good() -> None:
    async def thinks(question: object) -> Answer | None:
        await trio.sleep_forever()

    watched = await watch(_asking_child(thinks), on_event=_answer)
    [answered] = of(watched.events, QuestionAnswered)
    assert answered.by == "reader"
    assert of(watched.events, ToolCallFinished, depth=1)[0].result.text == "from the reader"


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_the_reader_of_the_root_answers_every_kind_of_question_at_every_depth(depth: int) -> None:
    script = calls("ask_name") + calls("delete", path="x")
    inner = Agent(ScriptedModel(script, "Bye."), name="inner", tools=[ask_name, delete], limits=Limits(turns=1))

    def on_event(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ElicitationRequested):
            stream.answer(event.id, Cancel())
        elif isinstance(event, (ApprovalRequested, ContinueRequested)):
            stream.answer(event.id, Approve())

    watched = await watch(nested(inner, depth), on_event=on_event)
    texts = [event.result.text for event in of(watched.events, ToolCallFinished, depth=depth)]
    assert sorted(texts) == ["Cancel", "x is gone"]
    assert {event.by for event in of(watched.events, QuestionAnswered)} == {"reader"}
    assert len(of(watched.events, QuestionAnswered)) == 3


async def test_a_tool_can_answer_the_questions_of_its_child_by_id() -> None:
    async def use(context: ToolContext[None], child: Agent) -> object:
        async with context.stream(child, "go") as stream:
            async for event in stream:
                if isinstance(event, ElicitationRequested):
                    assert [question.id for question in stream.pending] == [event.id]
                    stream.answer(event.id, Accept({"name": "from the tool"}))
            return stream.result.output

    child = Agent(ScriptedModel(calls("ask_name"), "Bye."), name="child", tools=[ask_name])
    watched = await watch(delegating(child, use))
    assert of(watched.events, ToolCallFinished, depth=1)[0].result.text == "from the tool"


async def test_a_child_does_not_answer_for_the_streams_around_it() -> None:
    errors: list[UnknownQuestionError] = []

    async def use(context: ToolContext[None], child: Agent) -> str:
        async with context.stream(child, "go") as stream, trio.open_nursery() as nursery:
            nursery.start_soon(context.ask, "Mine?")
            inside = await first(stream, ElicitationRequested)
            await trio.testing.wait_all_tasks_blocked()
            assert [question.id for question in stream.pending] == [inside.id]
            for id in everything_open():
                if id != inside.id:
                    with pytest.raises(UnknownQuestionError) as raised:
                        stream.answer(id, Accept())
                    errors.append(raised.value)
            stream.stop()
            nursery.cancel_scope.cancel()
        return "ok"

    def everything_open() -> list[str]:
        return [question.id for question in root.pending]

    child = Agent(ScriptedModel(calls("ask_name"), "Bye."), name="child", tools=[ask_name])
    async with opened(delegating(child, use)) as root:
        assert isinstance([event async for event in root][-1], StreamStopped)
    assert [error.given for error in errors] == [f"{root.id}?1"]
    assert errors[0].given not in errors[0].open_ids


async def test_a_question_inside_ends_with_the_child_that_was_left() -> None:
    async def use(context: ToolContext[None], child: Agent) -> str:
        async with context.stream(child, "go") as stream:
            async for event in stream:
                if isinstance(event, ElicitationRequested):
                    break
        return "left"

    child = Agent(ScriptedModel(calls("ask_name"), "Bye."), name="child", tools=[ask_name])
    watched = await watch(delegating(child, use))
    assert len(of(watched.events, QuestionWithdrawn)) == 1
    assert watched.outcome.output == "Done."


async def test_a_permanent_approval_in_a_child_is_not_requested_again_in_the_session() -> None:
    def inner() -> Agent:
        return Agent(ScriptedModel(calls("delete", path="x"), "Bye."), name="inner", tools=[delete])

    def on_event(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ApprovalRequested):
            stream.answer(event.id, Approve(always=True))

    watched = await watch(nested(inner(), 1), on_event=on_event)
    assert len(of(watched.events, ApprovalRequested)) == 1
    again = await watch(nested(inner(), 1), session=watched.session)
    assert of(again.events, ApprovalRequested) == []
    assert of(again.events, ToolCallFinished, depth=1)[0].result.text == "x is gone"


# ----------------------------------------------------------------------------------- limits


async def test_what_a_child_uses_counts_for_every_stream_around_it() -> None:
    watched = await watch(nested(Agent(ScriptedModel("Hi."), name="inner"), 2))
    one = Usage(input_tokens=10, output_tokens=5, requests=1)
    assert stopped_at(watched.events, 2).usage == one
    assert stopped_at(watched.events, 1).usage == one + one + one
    assert stopped_at(watched.events, 0).usage == one + one + one + one + one


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("limits", [Limits(requests=3), Limits(tokens=45), Limits(tool_calls=2)], ids=repr)
async def test_a_child_draws_on_the_limits_of_every_stream_around_it(depth: int, limits: Limits) -> None:
    script = [calls("add", a=number, b=1) for number in range(9)]
    inner = nested(Agent(ScriptedModel(*script, "no"), name="inner", tools=[add]), depth - 1)
    model = ScriptedModel(calls(inner.name, prompt="go"), "Done.")
    outer = Agent(model, name="outer", tools=[inner.as_tool()], limits=limits)
    watched = await watch(outer, on_question="decline")
    assert stopped_at(watched.events, depth).reason == "limit"


async def test_a_person_lets_a_child_go_past_a_limit_of_its_parent() -> None:
    inner = Agent(ScriptedModel(calls("add", a=1, b=1), "Bye."), name="inner", tools=[add])
    asked: list[tuple[str, str]] = []

    def on_event(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ContinueRequested):
            asked.append((event.agent, event.limit))
            stream.answer(event.id, Approve())

    watched = await watch(nested(inner, 1, limits=Limits(requests=2)), on_event=on_event)
    assert watched.outcome.reason == "completed"
    assert asked == [("inner", "requests")]


async def test_the_time_of_a_stream_is_over_for_all_that_runs_inside_it() -> None:
    inner = Agent(ScriptedModel(calls("wait_forever")), name="inner", tools=[wait_forever])
    watched = await watch(nested(inner, 2, limits=Limits(seconds=3)))
    # Both streams around it have three seconds: the outermost was first.
    assert [stopped_at(watched.events, depth).reason for depth in (0, 1, 2)] == ["limit", "cancelled", "cancelled"]
    assert trio.current_time() == 3


async def test_children_nest_only_so_deep() -> None:
    inner = nested(Agent(ScriptedModel("Hi."), name="inner"), 2)
    model = ScriptedModel(calls(inner.name, prompt="go"), "Done.")
    outer = Agent(model, name="outer", tools=[inner.as_tool()], limits=Limits(depth=2))
    watched = await watch(outer)
    results = [event.result.text for event in of(watched.events, ToolCallFinished)]
    assert "agent 'outer' allows 2 levels below it (Limits.depth)" in results[0]
    assert {event.depth for event in watched.events} == {0, 1, 2}


async def test_an_agent_does_not_run_inside_itself() -> None:
    agents: list[Agent] = []
    errors: list[ChildLimitError] = []

    @tool
    async def again(context: ToolContext[None]) -> str:
        """Once more."""
        try:
            await context.run(agents[0], "go")
        except ChildLimitError as error:
            errors.append(error)
        return "no"

    agents.append(Agent(ScriptedModel(calls("again"), "Well."), name="loop", tools=[again]))
    watched = await watch(nested(agents[0], 1))
    assert errors[0].path == ("outer1", "loop")
    assert "go round in a circle" in str(errors[0])
    assert of(watched.events, ChildStreamStarted, depth=2) == []


# ------------------------------------------------------------------------------------ hooks


async def test_the_hooks_of_a_stream_hear_how_each_child_in_it_ended() -> None:
    heard: list[tuple[tuple[str, ...], tuple[str, ...], str]] = []

    def hear(value: hooks.SubagentStop) -> None:
        heard.append((value.source.agents, value.child.agents, value.reason))

    inner = Agent(ScriptedModel(fails(ModelConnectionError("gone"))), name="inner", hooks=[hooks.subagent_stop(hear)])
    agent = nested(inner, 1).replace(hooks=[hooks.subagent_stop(hear)])
    await watch(agent)
    assert heard == [(("outer1",), ("outer1", "inner"), "failed")]


async def test_a_denial_inside_stays_inside() -> None:
    inner = Agent(ScriptedModel(calls("delete", path="x"), "I may not."), name="inner", tools=[delete])

    def on_event(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ApprovalRequested):
            stream.answer(event.id, Deny("not today"))

    watched = await watch(nested(inner, 1), on_event=on_event)
    [inside] = of(watched.events, ToolCallFinished, depth=1)
    [outside] = of(watched.events, ToolCallFinished, depth=0)
    assert (inside.result.status, inside.result.text) == ("denied", "Denied by the user: not today")
    assert (outside.result.status, outside.result.text) == ("ok", "I may not.")


@pytest.mark.parametrize("depth", [1, 2])
async def test_a_stop_reaches_the_innermost_tool(depth: int) -> None:
    inner = Agent(ScriptedModel(calls("wait_forever")), name="inner", tools=[wait_forever])
    async with opened(nested(inner, depth)) as stream:
        while (await first(stream, ToolCallStarted)).depth != depth:
            pass
        await trio.testing.wait_all_tasks_blocked()
        stream.stop("enough")
        told = [event async for event in stream]
    assert [type(event).__name__ for event in told if isinstance(event, (ChildStreamStopped, StreamStopped))] == [
        *["ChildStreamStopped"] * depth,
        "StreamStopped",
    ]
    assert {event.result.status for event in of(told, ToolCallFinished)} == {"interrupted"}


async def test_declined_means_declined_for_a_tool_that_asks_with_a_class() -> None:
    import attrs

    @attrs.frozen
    class Name:
        name: str = "Ada"

    got: list[object] = []

    @tool
    async def ask(context: ToolContext[None]) -> str:
        """Ask."""
        got.append(await context.ask_for("Name?", Name))
        got.append(await context.ask_for("Name?", Name))
        return "ok"

    answers: list[Answer] = [Accept({}), Decline("no")]

    async def handler(question: object) -> Answer:
        return answers.pop(0)

    await watch(Agent(ScriptedModel(calls("ask"), "Hi."), tools=[ask]), on_question=handler)
    assert got == [Name("Ada"), Decline("no")]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (says("The answer is", stop="length"), "The answer is\n\n[The response was cut off at the limit of tokens.]"),
        (says(" "), "[The model said nothing.]"),
    ],
    ids=["cut off", "empty"],
)
async def test_an_outer_model_reads_that_an_answer_is_empty_or_was_cut_off(answer: Response, result: str) -> None:
    inner = Agent(ScriptedModel(answer, answer), name="inner")

    assert (await only_result(agent_with(inner.as_tool(), response=calls("inner", prompt="go")))).text == result
