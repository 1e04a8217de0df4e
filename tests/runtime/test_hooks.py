"""Hooks: each point, when and with what it is called, what its verdicts do, and what becomes of a hook that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentloop import Agent, Approve, Deadlines, Deny, Limits, Session, Team, Tool, hooks, tool
from agentloop._runtime.stream import Stream
from agentloop.errors import BlockedError, LimitReachedError, ModelError
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    ContinueRequested,
    Source,
    StreamEvent,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
    WarningIssued,
)
from agentloop.hooks import (
    AfterLLMCall,
    Allow,
    BeforeLLMCall,
    Block,
    Context,
    Continue,
    Hook,
    Notification,
    OnAgentSwitch,
    OnError,
    OnMaxIterations,
    OnSessionResume,
    Point,
    PostToolUse,
    PreToolUse,
    ReplaceMessages,
    ReplaceResult,
    SessionEnd,
    SessionStart,
    StopRequested,
    SubagentStop,
    TurnEnd,
    TurnStart,
    UserPromptSubmit,
)
from agentloop.messages import AssistantMessage, Text, ToolResult, UserMessage, user_message
from agentloop.models import ModelRequest
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import FunctionModel, Response, ScriptedModel, calls, fails, hangs, says
from tests.runtime.builders import agent_with, answering, results, warnings_in
from tests.support import Watched, first, nested, of, opened, stopped_at, watch

POINTS: dict[str, Point[Any, Any]] = {
    "session_start": hooks.session_start,
    "user_prompt_submit": hooks.user_prompt_submit,
    "turn_start": hooks.turn_start,
    "before_llm_call": hooks.before_llm_call,
    "after_llm_call": hooks.after_llm_call,
    "pre_tool_use": hooks.pre_tool_use,
    "on_tool_approval_decision": hooks.on_tool_approval_decision,
    "post_tool_use": hooks.post_tool_use,
    "notification": hooks.notification,
    "on_error": hooks.on_error,
    "stop": hooks.stop,
    "subagent_stop": hooks.subagent_stop,
    "turn_end": hooks.turn_end,
    "session_end": hooks.session_end,
}
"""Those that every run comes by; where a person steers it, test_steering.py has the two others."""
GUARDS = ["user_prompt_submit", "before_llm_call", "pre_tool_use", "post_tool_use"]
OBSERVERS = [name for name in POINTS if name not in GUARDS]


class Log:
    """Hooks at every point that keep what they are called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.hooks = [self._hook(name, point) for name, point in POINTS.items()]

    def _hook(self, name: str, point: Point[Any, Any]) -> Hook:
        return point(lambda value: self.calls.append((name, value)))

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def at(self, name: str) -> list[Any]:
        return [value for called, value in self.calls if called == name]


def hook(point: str, function: Callable[[Any], object], /, **options: Any) -> Hook:
    """A hook whose types nobody checks: some of these are wrong on purpose."""
    made = POINTS[point](**options)(function)
    assert isinstance(made, Hook)
    return made


def gives(point: str, verdict: object, /, **options: Any) -> Hook:
    return hook(point, lambda value: verdict, **options)


@tool
async def look(what: str = "sky") -> str:
    return f"the {what} is blue"


@tool(requires_approval=True)
async def act() -> str:
    return "acted"


def looking(*given: Hook, **options: Any) -> Agent:
    """An agent that looks at the sky, and then says "Done."."""
    return agent_with(look, hooks=given, **options)


def only(watched: Watched) -> ToolResult:
    [result] = results(watched)
    return result


# ------------------------------------------------------------------- which, when and how often


async def test_the_points_of_a_run_come_in_this_order() -> None:
    log = Log()

    await watch(looking(*log.hooks))

    assert log.names() == [
        "session_start",
        "user_prompt_submit",
        "turn_start",
        "before_llm_call",
        "after_llm_call",
        "pre_tool_use",
        "on_tool_approval_decision",
        "post_tool_use",
        "turn_end",
        "turn_start",
        "before_llm_call",
        "after_llm_call",
        "stop",
        "turn_end",
        "session_end",
    ]


async def everything(log: Log, depth: int, deps: object = None) -> Watched:
    """A run, ``depth`` levels down, that comes by every point; it fails in the end."""
    child = Agent(ScriptedModel("Hi."), name="child")
    model = ScriptedModel(
        calls("look") + calls("act") + calls("child", prompt="go"), calls("look"), fails(ValueError("gone"))
    )
    # Sent on once, by an agent around it that says "Done.": a run that fails has no answer to stop with.
    inner = Agent(model, name="inner", tools=[look, act, child.as_tool()], hooks=log.hooks)
    return await watch(nested(inner, depth), on_event=answering(Approve()), deps=deps)


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("session_start", 1),
        ("user_prompt_submit", 1),
        ("turn_start", 3),
        ("before_llm_call", 3),
        ("after_llm_call", 2),
        ("pre_tool_use", 4),
        ("on_tool_approval_decision", 4),
        ("post_tool_use", 4),
        ("notification", 1),
        ("on_error", 1),
        ("stop", 0),
        ("subagent_stop", 1),
        ("turn_end", 3),
        ("session_end", 1),
    ],
)
async def test_a_hook_is_called_once_for_each_thing_it_is_about_at_every_depth(
    name: str, times: int, depth: int
) -> None:
    log = Log()

    await everything(log, depth)

    assert len(log.at(name)) == times


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_hook_gets_the_source_of_its_run(depth: int) -> None:
    log = Log()

    watched = await everything(log, depth)

    [start] = [event for event in watched.events if event.agent == "inner" and event.depth == depth][:1]
    for _, value in log.calls:
        assert value.source == start.source
        assert value.source.agents[-1] == "inner"


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_hook_at_any_point_gets_the_deps_of_the_root_stream(depth: int) -> None:
    log, deps = Log(), object()

    await everything(log, depth, deps)

    assert {*log.names()} == {*POINTS} - {"stop"}
    assert all(value.deps is deps for _, value in log.calls)


def test_deps_are_no_part_of_the_equality_and_the_repr_of_an_input() -> None:
    source = Source("s", "s/1", ("a",))
    one = TurnStart(source, 1, deps="a secret")
    other = TurnStart(source, 1, deps="another")

    assert one == other
    assert hash(one) == hash(other)
    assert one != TurnStart(source, 2, deps="a secret")
    assert repr(one) == f"TurnStart(source={source!r}, turn=1)"


@pytest.mark.parametrize("name", [name for name in POINTS if name != "on_error" and name not in hooks.TOOL_POINTS])
async def test_the_hooks_of_an_agent_are_not_called_for_those_inside_it(name: str) -> None:
    """Except for tool calls, and that it hears of their end: a child's conversation is its own."""
    log = Log()
    inner = agent_with(act, name="inner")
    outer = agent_with(inner.as_tool(), name="outer", response=calls("inner", prompt="go"), hooks=log.hooks)

    await watch(outer, on_event=answering(Approve()))

    assert {value.source.agents for value in log.at(name)} <= {("outer",)}


async def test_the_hooks_at_a_point_are_called_in_the_order_of_the_list() -> None:
    called: list[int] = []
    ordered = [hook("turn_start", lambda value, number=number: called.append(number)) for number in range(5)]  # type: ignore[misc]

    await watch(Agent(ScriptedModel("Hi."), hooks=ordered))

    assert called == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", POINTS)
async def test_a_hook_may_be_async(name: str) -> None:
    came: list[float] = []

    async def slow(value: object) -> None:
        await trio.sleep(1)
        came.append(trio.current_time())

    child = Agent(ScriptedModel("Hi."), name="child")
    script: list[Response] = [calls("act") + calls("child", prompt="go")]
    script.append(fails(ValueError("gone")) if name == "on_error" else says("Done."))
    agent = Agent(ScriptedModel(*script), tools=[act, child.as_tool()], hooks=[hook(name, slow)])
    watched = await watch(agent, on_event=answering(Approve()))

    assert came
    assert warnings_in(watched.events) == []


async def test_a_hook_may_be_an_object_that_can_be_called() -> None:
    class Counter:
        times = 0

        def __call__(self, value: TurnStart) -> None:
            self.times += 1

    counter = Counter()
    made = hooks.turn_start(counter)
    await watch(Agent(ScriptedModel("Hi."), hooks=[made]))

    assert (counter.times, made.name) == (1, "Counter")


# ----------------------------------------------------------------------------- with what


async def test_session_start_and_user_prompt_submit_get_the_prompt() -> None:
    log = Log()

    await watch(Agent(ScriptedModel("Hi."), hooks=log.hooks), "Hello?")

    [start], [submit] = log.at("session_start"), log.at("user_prompt_submit")
    assert isinstance(start, SessionStart)
    assert isinstance(submit, UserPromptSubmit)
    assert start.prompt == submit.prompt == user_message("Hello?")


async def test_session_start_says_how_the_stream_begins() -> None:
    log = Log()
    agent = Agent(ScriptedModel(calls("look"), "Hi.", "Hi again."), hooks=log.hooks, tools=[_approved()])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            outcome = await agent.run("Hello?", session=session, on_question="park")
        async with stored_session(store, "s") as session:
            await agent.resume(session, {outcome.questions[0].id: Approve()})
            await agent.run("Still there?", session=session)
    front = Agent(ScriptedModel(calls("handoff", agent="back")), name="front", handoffs=["back"])
    await watch(Team(front, Agent(ScriptedModel("Hi."), name="back", hooks=log.hooks)))

    assert [start.begins for start in log.at("session_start") if isinstance(start, SessionStart)] == [
        "new",
        "resume",
        "continue",
        "handoff",
    ]


def _approved() -> Tool:
    @tool(requires_approval=True)
    async def look() -> str:
        """Look."""
        return "blue"

    return look


async def test_the_hooks_of_a_child_get_its_own_prompt() -> None:
    log = Log()
    inner = Agent(ScriptedModel("Hi."), name="inner", hooks=log.hooks)

    await watch(agent_with(inner.as_tool(), response=calls("inner", prompt="Hello in there?")))

    assert log.at("user_prompt_submit")[0].prompt == user_message("Hello in there?")


async def test_the_hooks_of_a_turn_get_its_number() -> None:
    log = Log()

    await watch(looking(*log.hooks))

    for name in ("turn_start", "before_llm_call", "after_llm_call", "turn_end"):
        assert [value.turn for value in log.at(name)] == [1, 2]


async def test_before_llm_call_gets_the_very_request_that_goes_out() -> None:
    log = Log()
    model = ScriptedModel("Hi.")

    await watch(Agent(model, instructions="Be brief.", tools=[look], hooks=log.hooks))

    [before] = log.at("before_llm_call")
    assert isinstance(before, BeforeLLMCall)
    assert before.request == model.requests[0]


async def test_after_llm_call_gets_a_message_that_is_not_in_the_transcript_yet() -> None:
    session = Session()
    seen: list[tuple[AssistantMessage, int]] = []

    @hooks.after_llm_call
    def after(value: AfterLLMCall) -> None:
        seen.append((value.message, len(session.messages)))

    await watch(looking(after), session=session)

    assert [length for _, length in seen] == [1, 3]
    assert [message.text for message, _ in seen] == ["", "Done."]


async def test_the_hooks_around_a_tool_call_get_its_name_its_arguments_and_its_result() -> None:
    log = Log()

    watched = await watch(looking(*log.hooks, response=calls("look", what="sea")))

    [pre], [post], [started] = log.at("pre_tool_use"), log.at("post_tool_use"), of(watched.events, ToolCallStarted)
    assert isinstance(pre, PreToolUse)
    assert isinstance(post, PostToolUse)
    assert (pre.name, pre.arguments, pre.call_id) == ("look", {"what": "sea"}, started.call_id)
    assert (post.name, post.arguments, post.call_id) == ("look", {"what": "sea"}, started.call_id)
    assert post.result == only(watched)


async def test_post_tool_use_gets_the_arguments_that_the_tool_was_called_with() -> None:
    log = Log()
    replace = gives("pre_tool_use", hooks.ReplaceArguments({"what": "sea"}))

    await watch(looking(replace, *log.hooks))

    assert log.at("post_tool_use")[0].arguments == {"what": "sea"}


async def test_post_tool_use_is_called_for_a_tool_that_failed() -> None:
    log = Log()

    @tool
    async def fail() -> str:
        raise ValueError("no")

    await watch(agent_with(fail, hooks=log.hooks))

    assert log.at("post_tool_use")[0].result.text == "ValueError: no"


@pytest.mark.parametrize(
    "response", [calls("missing"), calls("look", raw="{"), calls("look", what=7)], ids=["unknown", "no JSON", "misfit"]
)
async def test_the_hooks_around_a_tool_call_are_not_called_where_no_tool_can_be(response: Response) -> None:
    log = Log()

    await watch(looking(*log.hooks, response=response))

    assert (log.at("pre_tool_use"), log.at("post_tool_use")) == ([], [])


async def test_post_tool_use_is_not_called_for_a_call_that_was_denied() -> None:
    log = Log()

    await watch(agent_with(act, hooks=log.hooks), on_event=answering(Deny()))

    assert (len(log.at("pre_tool_use")), log.at("post_tool_use")) == (1, [])


async def test_notification_gets_the_question_that_a_person_is_asked() -> None:
    log = Log()

    watched = await watch(agent_with(act, hooks=log.hooks), on_event=answering(Approve()))

    [value] = log.at("notification")
    assert isinstance(value, Notification)
    assert [value.question] == of(watched.events, ApprovalRequested)


async def test_notification_is_called_for_a_limit_too() -> None:
    log = Log()

    await watch(looking(*log.hooks, limits=Limits(turns=1)), on_event=answering(Deny()))

    assert [value.question.limit for value in log.at("notification")] == ["turns"]


async def test_on_error_gets_the_error_that_the_reader_gets() -> None:
    log = Log()

    watched = await watch(Agent(ScriptedModel(fails(ValueError("gone"))), hooks=log.hooks))

    [value] = log.at("on_error")
    assert isinstance(value, OnError)
    assert value.error is watched.error
    assert isinstance(value.error, ModelError)


async def test_on_error_is_not_called_for_what_does_not_end_the_run() -> None:
    @tool
    async def fail() -> str:
        raise ValueError("no")

    log = Log()

    await watch(agent_with(fail, hooks=log.hooks))

    assert log.at("on_error") == []


async def test_stop_gets_the_final_answer_when_it_is_in_the_transcript() -> None:
    session = Session()
    seen: list[tuple[str, int]] = []

    @hooks.stop
    def stopping(value: StopRequested) -> None:
        seen.append((value.message.text, len(session.messages)))

    await watch(looking(stopping), session=session)

    assert seen == [("Done.", 4)]


async def test_subagent_stop_gets_the_child_and_how_it_ended_before_its_last_event() -> None:
    log = Log()
    bad = Agent(ScriptedModel(fails(ValueError("gone"))), name="bad")
    good = Agent(ScriptedModel("Hi."), name="good")
    model = ScriptedModel(calls("bad", prompt="go"), calls("good", prompt="go"), "Done.")
    agent = Agent(model, name="outer", tools=[bad.as_tool(), good.as_tool()], hooks=log.hooks)

    watched = await watch(agent)

    ended = log.at("subagent_stop")
    assert all(isinstance(value, SubagentStop) for value in ended)
    assert [(value.child.agents, value.reason) for value in ended] == [
        (("outer", "bad"), "failed"),
        (("outer", "good"), "completed"),
    ]
    assert [value.child for value in ended] == [event.source for event in of(watched.events, ChildStreamStopped)]


async def test_subagent_stop_is_called_for_the_agent_directly_above_only() -> None:
    logs = [Log(), Log()]
    agent = Agent(ScriptedModel("Hi."), name="agent0")
    for level, log in enumerate(logs, 1):
        below = agent.as_tool()
        response = calls(below.name, prompt="go")
        agent = agent_with(below, name=f"agent{level}", response=response, hooks=log.hooks)

    await watch(agent)

    assert [[value.child.agents[-1] for value in log.at("subagent_stop")] for log in logs] == [["agent0"], ["agent1"]]


@pytest.mark.parametrize(
    ("agent", "reasons"),
    [
        (lambda log: looking(*log), ["tool_calls", "final"]),
        (lambda log: looking(*log, limits=Limits(tool_calls=1), response=calls("look") + calls("look")), ["limit"]),
        (lambda log: looking(gives("before_llm_call", Block("no")), *log), ["blocked"]),
        (lambda log: looking(gives("post_tool_use", Block("no")), *log), ["blocked"]),
        (lambda log: Agent(ScriptedModel(fails(ValueError())), hooks=log), ["failed"]),
        (lambda log: Agent(ScriptedModel("no", "7"), hooks=log, output_type=int), ["output_retry", "final"]),
        (lambda log: Agent(ScriptedModel("a", "b"), hooks=[send_on_once(), *log]), ["continued", "final"]),
    ],
    ids=["ok", "limit", "blocked before", "blocked after", "failed", "output_retry", "continued"],
)
async def test_turn_end_gets_the_reason_of_the_event(agent: Callable[[list[Hook]], Agent], reasons: list[str]) -> None:
    log = Log()

    watched = await watch(agent(log.hooks), on_question="decline")

    assert [value.reason for value in log.at("turn_end")] == reasons
    assert [event.reason for event in of(watched.events, TurnFinished)] == reasons


def send_on_once() -> Hook:
    @hooks.stop
    def send_on(value: StopRequested) -> Continue | None:
        return None if value.continuations else Continue("And then?")

    return send_on


# ---------------------------------------------------------------------------------- verdicts


async def test_context_of_session_start_is_in_the_instructions_of_every_turn() -> None:
    agent = looking(gives("session_start", Context("It is Monday.")), instructions="Be brief.")

    await watch(agent)

    assert isinstance(agent.model, ScriptedModel)
    assert [request.instructions for request in agent.model.requests] == ["Be brief.\n\nIt is Monday."] * 2


async def test_context_of_turn_start_is_in_the_instructions_of_that_turn() -> None:
    agent = looking(hook("turn_start", lambda value: Context("Now.") if value.turn == 1 else None))

    await watch(agent)

    assert isinstance(agent.model, ScriptedModel)
    assert [request.instructions for request in agent.model.requests] == ["Now.", ""]


async def test_context_of_user_prompt_submit_becomes_part_of_the_prompt() -> None:
    given = [gives("user_prompt_submit", Context(text)) for text in ("One.", "Two.")]

    watched = await watch(Agent(ScriptedModel("Hi."), hooks=given), "Hello?")

    assert watched.messages[0] == UserMessage((Text("Hello?"), Text("One."), Text("Two.")))


async def test_the_next_hook_sees_the_prompt_with_what_the_one_before_it_added() -> None:
    log = Log()

    await watch(Agent(ScriptedModel("Hi."), hooks=[gives("user_prompt_submit", Context("One.")), *log.hooks]))

    assert log.at("user_prompt_submit")[0].prompt.text == "goOne."


async def test_a_blocked_prompt_never_reaches_the_model_or_the_transcript() -> None:
    model = ScriptedModel("Hi.")
    session = Session()

    watched = await watch(Agent(model, hooks=[gives("user_prompt_submit", Block("rude"))]), session=session)

    assert (watched.outcome.reason, watched.outcome.detail) == ("blocked", "rude")
    assert (model.requests, watched.messages, of(watched.events, TurnStarted)) == ([], (), [])


async def test_a_run_that_is_blocked_raises_what_the_hook_said() -> None:
    with pytest.raises(BlockedError, match="a hook blocked the run: rude") as caught:
        await Agent(ScriptedModel("Hi."), hooks=[gives("user_prompt_submit", Block("rude"))]).run("go")

    assert getattr(caught.value.outcome, "reason", None) == "blocked"


async def test_messages_are_replaced_for_this_request_only() -> None:
    other = (user_message("Something else."),)
    once = hook("before_llm_call", lambda value: ReplaceMessages(other) if value.turn == 1 else None)
    agent = looking(once)

    watched = await watch(agent)

    assert isinstance(agent.model, ScriptedModel)
    first_request, second_request = agent.model.requests
    assert first_request.messages == other
    assert second_request.messages == watched.messages[:3]
    assert watched.messages[0] == user_message("go")


async def test_the_next_hook_sees_the_messages_that_the_one_before_it_replaced() -> None:
    log = Log()
    other = (user_message("Something else."),)

    await watch(Agent(ScriptedModel("Hi."), hooks=[gives("before_llm_call", ReplaceMessages(other)), *log.hooks]))

    assert log.at("before_llm_call")[0].request.messages == other


async def test_a_request_that_is_blocked_never_goes_out_and_the_run_ends() -> None:
    agent = looking(hook("before_llm_call", lambda value: Block("enough") if value.turn == 2 else None))

    watched = await watch(agent)

    assert isinstance(agent.model, ScriptedModel)
    assert (watched.outcome.reason, watched.outcome.detail) == ("blocked", "enough")
    assert len(agent.model.requests) == watched.outcome.usage.requests == 1
    assert len(watched.messages) == 3


async def test_a_result_is_replaced_under_the_id_of_its_call() -> None:
    replaced = ReplaceResult(ToolResult("other", "other", (Text("redacted"),), "error"))

    watched = await watch(looking(gives("post_tool_use", replaced)))

    assert only(watched) == ToolResult("call_1_1_0", "look", (Text("redacted"),), "error")
    assert of(watched.events, ToolCallFinished)[0].result == only(watched)


async def test_the_next_hook_sees_the_result_that_the_one_before_it_replaced() -> None:
    log = Log()
    replaced = ReplaceResult(ToolResult("", "", (Text("redacted"),)))

    await watch(looking(gives("post_tool_use", replaced), *log.hooks))

    assert log.at("post_tool_use")[0].result.text == "redacted"


async def test_a_run_that_is_blocked_after_a_tool_ends_when_all_calls_of_the_turn_have_ended() -> None:
    @tool
    async def slow() -> str:
        await trio.sleep(5)
        return "slow"

    block = gives("post_tool_use", Block("that will do"), tools="look")
    agent = agent_with(look, slow, response=calls("look") + calls("slow"), hooks=[block])

    watched = await watch(agent)

    assert (watched.outcome.reason, watched.outcome.detail) == ("blocked", "that will do")
    assert [(result.name, result.status) for result in results(watched)] == [("look", "ok"), ("slow", "ok")]


async def test_a_stop_hook_sends_the_agent_on_with_a_message() -> None:
    model = ScriptedModel("First.", "Second.")

    watched = await watch(Agent(model, hooks=[send_on_once()]))

    assert [message for message in watched.messages if isinstance(message, UserMessage)] == [
        user_message("go"),
        user_message("And then?"),
    ]
    assert watched.outcome.output == "Second."


async def test_a_stop_hook_gets_the_number_of_times_the_run_was_continued() -> None:
    seen: list[int] = []

    @hooks.stop
    def thrice(value: StopRequested) -> Continue | None:
        seen.append(value.continuations)
        return Continue("More!") if value.continuations < 3 else None

    await watch(Agent(ScriptedModel("a", "b", "c", "d"), hooks=[thrice]))

    assert seen == [0, 1, 2, 3]


async def test_after_a_stop_hook_has_sent_the_agent_on_the_others_are_not_called() -> None:
    log = Log()

    await watch(Agent(ScriptedModel("a", "b"), hooks=[send_on_once(), *log.hooks]))

    assert len(log.at("stop")) == 1


async def test_an_agent_that_is_sent_on_for_ever_stops_at_its_limit_of_turns() -> None:
    agent = Agent(ScriptedModel("a", repeat=True), hooks=[gives("stop", Continue("More!"))], limits=Limits(turns=4))

    watched = await watch(agent, on_question="decline")

    assert (watched.outcome.reason, watched.outcome.detail) == ("limit", "turns: 4 of 4 used")


async def test_a_child_can_be_sent_on_too() -> None:
    inner = Agent(ScriptedModel("First.", "Second."), name="inner", hooks=[send_on_once()])

    watched = await watch(agent_with(inner.as_tool(), response=calls("inner", prompt="go")))

    assert only(watched).text == "Second."


# -------------------------------------------------------------------------------------- globs


@pytest.mark.parametrize(
    ("glob", "called"),
    [
        ("*", {"look", "act"}),
        ("look", {"look"}),
        ("l*", {"look"}),
        ("?ct", {"act"}),
        (["look", "a*"], {"look", "act"}),
        ("LOOK", set()),
        ("x", set()),
    ],
)
@pytest.mark.parametrize("name", ["pre_tool_use", "post_tool_use"])
async def test_a_hook_around_tool_calls_can_be_for_some_tools_only(
    name: str, glob: str | list[str], called: set[str]
) -> None:
    seen: set[str] = set()
    agent = agent_with(
        look,
        act,
        response=calls("look") + calls("act"),
        hooks=[hook(name, lambda value: seen.add(value.name), tools=glob)],
    )

    await watch(agent, on_event=answering(Approve()))

    assert seen == called


async def test_a_hook_decorates_a_function_with_options_by_name() -> None:
    @hooks.pre_tool_use(tools="look", name="guard of the sky", timeout=7)
    def guard(call: PreToolUse) -> Allow:
        return Allow()

    assert (guard.point, guard.tools, guard.name, guard.timeout) == ("pre_tool_use", ("look",), "guard of the sky", 7)


# ----------------------------------------------------------------------- guards fail closed


def raises(value: object) -> None:
    raise ValueError("broken")


async def hang(value: object) -> None:
    await trio.sleep_forever()


def nonsense(value: object) -> object:
    return True


FAILURES: dict[str, tuple[Callable[[Any], object], str]] = {
    "raises": (raises, "failed: ValueError: broken"),
    "hangs": (hang, "failed: took longer than 2 s"),
    "wrong verdict": (nonsense, "returned True, where it may return "),
}
each_failure = pytest.mark.parametrize("failure", FAILURES)


def failing(name: str, failure: str) -> Hook:
    return hook(name, FAILURES[failure][0], timeout=2, name="broken")


@each_failure
async def test_a_prompt_guard_that_fails_blocks_the_run_before_the_model_sees_it(failure: str) -> None:
    model = ScriptedModel("Hi.")

    watched = await watch(Agent(model, hooks=[failing("user_prompt_submit", failure)]))

    assert watched.outcome.reason == "blocked"
    assert watched.outcome.detail.startswith(f"the user_prompt_submit hook 'broken' {FAILURES[failure][1]}")
    assert (model.requests, watched.messages) == ([], ())


@each_failure
async def test_a_request_guard_that_fails_blocks_the_run(failure: str) -> None:
    model = ScriptedModel("Hi.")

    watched = await watch(Agent(model, hooks=[failing("before_llm_call", failure)]))

    assert watched.outcome.reason == "blocked"
    assert watched.outcome.detail.startswith(f"the before_llm_call hook 'broken' {FAILURES[failure][1]}")
    assert model.requests == []


@each_failure
async def test_a_tool_guard_that_fails_denies_the_call_and_the_run_continues(failure: str) -> None:
    called: list[int] = []

    @tool
    async def act() -> str:
        called.append(1)
        return "acted"

    watched = await watch(agent_with(act, hooks=[failing("pre_tool_use", failure)]))

    assert only(watched).status == "denied"
    assert f"the pre_tool_use hook 'broken' {FAILURES[failure][1]}" in only(watched).text
    assert (called, watched.outcome.reason) == ([], "completed")


@each_failure
async def test_a_result_guard_that_fails_withholds_the_result_and_blocks_the_run(failure: str) -> None:
    """It may have been there to take a secret out."""
    watched = await watch(looking(failing("post_tool_use", failure)))

    assert only(watched).status == "denied"
    assert "blue" not in repr(watched.messages)
    assert f"the post_tool_use hook 'broken' {FAILURES[failure][1]}" in only(watched).text
    assert watched.outcome.reason == "blocked"


async def test_a_guard_that_fails_in_a_child_does_not_block_its_parent() -> None:
    inner = Agent(ScriptedModel("Hi."), name="inner", hooks=[failing("before_llm_call", "raises")])

    watched = await watch(agent_with(inner.as_tool(), response=calls("inner", prompt="go")))

    assert stopped_at(watched.events, 1).reason == "blocked"
    assert only(watched).status == "error"
    assert watched.outcome.reason == "completed"


@pytest.mark.seconds(100)
async def test_a_guard_has_a_time_limit_by_default() -> None:
    watched = await watch(Agent(ScriptedModel("Hi."), hooks=[hook("before_llm_call", hang, name="slow")]))

    assert watched.outcome.detail == "the before_llm_call hook 'slow' failed: took longer than 60 s"


async def test_the_time_limit_of_hooks_is_the_agents() -> None:
    agent = Agent(ScriptedModel("Hi."), hooks=[hook("before_llm_call", hang, name="slow")], deadlines=Deadlines(hook=3))

    watched = await watch(agent)

    assert watched.outcome.detail.endswith("took longer than 3 s")


async def test_an_exception_group_of_a_hook_is_reported_as_its_error() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    async def with_a_nursery(value: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()

    watched = await watch(Agent(ScriptedModel("Hi."), hooks=[hook("before_llm_call", with_a_nursery)]))

    assert watched.outcome.detail.endswith("failed: ValueError: broken")


# --------------------------------------------------------------------- observers fail open


@each_failure
@pytest.mark.parametrize("name", OBSERVERS)
async def test_an_observer_that_fails_is_a_warning_and_the_run_continues_without_it(name: str, failure: str) -> None:
    def agent(*given: Hook) -> Agent:
        child = Agent(ScriptedModel("Hi."), name="child")
        script: list[Response] = [calls("act") + calls("child", prompt="go")]
        script.append(fails(ValueError("gone")) if name == "on_error" else says("Done."))
        return Agent(ScriptedModel(*script), name="outer", tools=[act, child.as_tool()], hooks=given)

    plain = await watch(agent(), on_event=answering(Approve()))
    watched = await watch(agent(failing(name, failure)), on_event=answering(Approve()))

    warnings = of(watched.events, WarningIssued)
    assert {warning.code for warning in warnings} == {"hook_failed"}
    assert all(w.message.startswith(f"the {name} hook 'broken' {FAILURES[failure][1]}") for w in warnings)
    assert (watched.outcome.reason, watched.outcome.output) == (plain.outcome.reason, plain.outcome.output)
    assert watched.messages == plain.messages


async def test_an_observer_cannot_block() -> None:
    watched = await watch(Agent(ScriptedModel("Hi."), hooks=[gives("turn_start", Block("no"))]))

    [warning] = of(watched.events, WarningIssued)
    assert "returned Block(reason='no'), where it may return Context or None" in warning.message
    assert watched.outcome.reason == "completed"


async def test_after_an_observer_that_failed_the_next_one_is_called() -> None:
    log = Log()

    await watch(Agent(ScriptedModel("Hi."), hooks=[failing("after_llm_call", "raises"), *log.hooks]))

    assert len(log.at("after_llm_call")) == 1


# ------------------------------------------------------------------------------ on every exit


def stop_at(kind: type) -> Callable[[Stream, StreamEvent], object]:
    def stop(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, kind) and event.agent == "inner":
            stream.stop()

    return stop


async def sleeping() -> str:
    await trio.sleep_forever()


EXITS: dict[str, tuple[Callable[[list[Hook]], Agent[Any, Any]], str, int, dict[str, Any]]] = {
    "completed": (lambda log: looking(*log), "completed", 2, {}),
    "stopped in the model": (
        lambda log: Agent(ScriptedModel(says("Well") + hangs()), name="agent", hooks=log),
        "cancelled",
        1,
        {"on_event": stop_at(TextDelta)},
    ),
    "stopped in a tool": (
        lambda log: agent_with(sleeping, name="agent", hooks=log),
        "cancelled",
        1,
        {"on_event": stop_at(ToolCallStarted)},
    ),
    "stopped while asking": (
        lambda log: agent_with(act, name="agent", hooks=log),
        "cancelled",
        1,
        {"on_event": stop_at(ApprovalRequested)},
    ),
    "the model fails": (lambda log: Agent(ScriptedModel(fails(ValueError())), hooks=log), "failed", 1, {}),
    "the instructions fail": (
        lambda log: Agent(ScriptedModel("Hi."), hooks=log, instructions=lambda info: str(1 // 0)),
        "failed",
        0,
        {},
    ),
    "the prompt is blocked": (
        lambda log: looking(gives("user_prompt_submit", Block("no")), *log),
        "blocked",
        0,
        {},
    ),
    "a request is blocked": (lambda log: looking(gives("before_llm_call", Block("no")), *log), "blocked", 1, {}),
    "a result is blocked": (lambda log: looking(gives("post_tool_use", Block("no")), *log), "blocked", 1, {}),
    "a limit of turns": (
        lambda log: looking(*log, limits=Limits(turns=1)),
        "limit",
        1,
        {"on_question": "decline"},
    ),
    "a limit of time": (lambda log: agent_with(sleeping, limits=Limits(seconds=3), hooks=log), "limit", 1, {}),
    "no output": (
        lambda log: Agent(ScriptedModel("a", "b"), hooks=log, output_type=int, limits=Limits(output_attempts=2)),
        "failed",
        2,
        {},
    ),
}


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("exit", EXITS)
async def test_turn_end_and_session_end_are_called_on_every_way_out(exit: str, depth: int) -> None:
    make, reason, turns, options = EXITS[exit]
    log = Log()
    agent = make(log.hooks).replace(name="inner")

    watched = await watch(nested(agent, depth), **options)

    ends = log.at("session_end")
    assert all(isinstance(value, SessionEnd) for value in ends)
    assert [value.reason for value in ends] == [reason] == [stopped_at(watched.events, depth).reason]
    assert log.names()[-1] == "session_end"
    finished = of(watched.events, TurnFinished, depth=depth)
    assert [value.turn for value in log.at("turn_end")] == [event.turn for event in finished]
    assert len(finished) == turns


async def test_session_end_is_called_where_there_was_no_turn() -> None:
    log = Log()

    async with opened(looking(hook("session_start", hang), *log.hooks)) as stream:
        await wait_all_tasks_blocked()
        stream.stop()
        await stream.wait()

    assert log.names() == ["session_end"]


@pytest.mark.parametrize("leave_after", [0, 1, 3, 5])
async def test_turn_end_and_session_end_are_called_when_the_block_is_left(leave_after: int) -> None:
    log = Log()

    async with opened(looking(*log.hooks)) as stream:
        for _ in range(leave_after):
            await anext(stream)

    assert [value.reason for value in log.at("session_end")] == [stream.outcome.reason]
    assert len(log.at("turn_end")) == len(log.at("turn_start"))


async def test_turn_end_and_session_end_are_called_when_the_caller_is_cancelled() -> None:
    log = Log()

    with trio.move_on_after(2):
        async with opened(agent_with(sleeping, hooks=log.hooks)) as stream:
            async for _ in stream:
                pass

    assert [value.reason for value in log.at("turn_end")] == ["cancelled"]
    assert [value.reason for value in log.at("session_end")] == ["cancelled"]


@pytest.mark.parametrize("name", ["turn_end", "session_end", "subagent_stop", "on_error"])
async def test_a_hook_at_the_end_can_wait_although_the_run_was_cancelled(name: str) -> None:
    done: list[str] = []

    async def save(value: object) -> None:
        await trio.sleep(1)
        done.append(name)

    child = Agent(ScriptedModel(hangs()), name="child")
    model = ScriptedModel(fails(ValueError("gone")) if name == "on_error" else calls("child", prompt="go"))
    agent = Agent(model, tools=[child.as_tool()], hooks=[hook(name, save)])
    async with opened(agent) as stream:
        await first(stream, ChildStreamStarted if name != "on_error" else TurnStarted)
        await wait_all_tasks_blocked()

    assert done == [name]


@pytest.mark.parametrize("name", ["turn_end", "session_end", "on_error"])
async def test_a_hook_at_the_end_that_hangs_is_given_up_and_the_next_one_runs(name: str) -> None:
    log = Log()
    model = ScriptedModel(fails(ValueError("gone")))
    agent = Agent(model, hooks=[hook(name, hang, name="stuck"), *log.hooks], deadlines=Deadlines(cleanup=3))
    began = trio.current_time()

    watched = await watch(agent)

    [warning] = of(watched.events, WarningIssued)
    assert warning.message == f"the {name} hook 'stuck' failed: took longer than 3 s at the end of the run"
    assert trio.current_time() - began == pytest.approx(3)
    assert len(log.at(name)) == 1


async def test_each_hook_at_the_end_has_its_own_time() -> None:
    stuck = [hook("session_end", hang, name=str(number)) for number in range(3)]
    began = trio.current_time()

    watched = await watch(Agent(ScriptedModel("Hi."), hooks=stuck, deadlines=Deadlines(cleanup=2)))

    assert trio.current_time() - began == pytest.approx(6)
    assert warnings_in(watched.events) == ["hook_failed"] * 3
    assert watched.outcome.reason == "completed"


async def test_a_hook_at_the_end_with_a_shorter_time_limit_has_that() -> None:
    began = trio.current_time()

    await watch(Agent(ScriptedModel("Hi."), hooks=[hook("session_end", hang, timeout=1)]))

    assert trio.current_time() - began == pytest.approx(1)


@pytest.mark.parametrize("name", ["turn_end", "session_end"])
async def test_a_hook_at_the_end_that_raises_does_not_stop_the_next(name: str) -> None:
    log = Log()

    watched = await watch(Agent(ScriptedModel("Hi."), hooks=[failing(name, "raises"), *log.hooks]))

    assert warnings_in(watched.events) == ["hook_failed"]
    assert len(log.at(name)) == 1


async def test_session_end_comes_after_everything_but_the_last_event() -> None:
    told: list[type] = []
    at_the_end: list[int] = []
    log = hook("session_end", lambda value: at_the_end.append(1))

    async with opened(looking(log)) as stream:
        while not at_the_end:
            told.append(type(await anext(stream)))
        told += [type(event) async for event in stream]

    assert told[-1] is StreamStopped
    assert told.count(StreamStopped) == 1


async def test_a_turn_that_began_has_an_end_also_where_the_run_is_blocked_in_it() -> None:
    log = Log()

    await watch(looking(gives("turn_start", None), gives("before_llm_call", Block("no")), *log.hooks))

    ends = log.at("turn_end")
    assert all(isinstance(value, TurnEnd) for value in ends)
    assert [(value.turn, value.reason) for value in ends] == [(1, "blocked")]


# ------------------------------------------------------------------------------------- others


async def test_hooks_do_not_see_one_another_in_streams_side_by_side() -> None:
    logs = [Log(), Log()]
    async with trio.open_nursery() as nursery:
        for number, log in enumerate(logs):
            nursery.start_soon(looking(*log.hooks, name=f"agent{number}").run, "go")

    assert [{value.source.agents for _, value in log.calls} for log in logs] == [{("agent0",)}, {("agent1",)}]
    assert logs[0].names() == logs[1].names()


async def test_one_hook_can_serve_several_agents() -> None:
    seen: list[str] = []
    shared = hook("session_start", lambda value: seen.append(value.source.agents[-1]))
    inner = Agent(ScriptedModel("Hi."), name="inner", hooks=[shared])

    await watch(agent_with(inner.as_tool(), name="outer", response=calls("inner", prompt="go"), hooks=[shared]))

    assert seen == ["outer", "inner"]


async def test_the_time_that_a_hook_takes_does_not_count_towards_the_deadline_of_the_model() -> None:
    async def slow(value: object) -> None:
        await trio.sleep(4)

    agent = Agent(ScriptedModel("Hi."), hooks=[hook("before_llm_call", slow)], deadlines=Deadlines(first_token=1))

    assert (await agent.run("go")).output == "Hi."


async def test_no_model_is_asked_by_a_turn_whose_hook_was_cancelled() -> None:
    asked: list[ModelRequest] = []

    def respond(request: ModelRequest) -> str:
        asked.append(request)
        return "Hi."

    async with opened(Agent(FunctionModel(respond), hooks=[hook("turn_start", hang)])) as stream:
        await first(stream, TurnStarted)
        await wait_all_tasks_blocked()

    assert asked == []


async def test_the_deltas_of_a_call_come_before_the_hooks_around_it() -> None:
    """A reader sees what the model writes while it writes it, not when a hook lets it pass."""
    async with opened(looking(hook("pre_tool_use", hang))) as stream:
        await first(stream, ToolCallDelta)
        await first(stream, ToolCallStarted)
        await wait_all_tasks_blocked()


# ------------------------------------------------------------------------ limits, and other agents


async def test_a_reached_limit_and_its_raise_are_told() -> None:
    seen: list[Any] = []
    told = [hooks.on_max_iterations()(seen.append), hooks.on_session_resume()(seen.append)]
    agent = looking(*told, limits=Limits(turns=1))

    def approve(stream: Any, event: object) -> None:
        if isinstance(event, ContinueRequested):
            stream.answer(event.id, Approve())

    watched = await watch(agent, on_event=approve)
    assert watched.outcome.reason == "completed"
    source = watched.events[0].source
    assert seen == [OnMaxIterations(source, "turns", 1, 1), OnSessionResume(source, "turns", 1, 2)]


async def test_a_limit_that_nobody_raises_is_told_once_and_not_as_raised() -> None:
    seen: list[Any] = []
    told = [hooks.on_max_iterations()(seen.append), hooks.on_session_resume()(seen.append)]
    with pytest.raises(LimitReachedError):
        await looking(*told, limits=Limits(turns=1)).run("go")
    assert [(type(value), value.limit) for value in seen] == [(OnMaxIterations, "turns")]


async def test_a_task_for_a_child_and_its_return_are_switches() -> None:
    log: list[OnAgentSwitch] = []
    inner = Agent(ScriptedModel("Done."), name="inner")
    agent = nested(inner, 1).replace(hooks=[hooks.on_agent_switch()(log.append)])
    watched = await watch(agent)
    [started] = of(watched.events, ChildStreamStarted)
    child = started.source
    source = watched.events[0].source
    assert log == [
        OnAgentSwitch(source, "inner", "transfer", child),
        OnAgentSwitch(source, "outer1", "return", child),
    ]


async def test_a_handoff_is_a_switch_of_the_agent_that_hands_off() -> None:
    log: list[OnAgentSwitch] = []
    told = hooks.on_agent_switch()(log.append)
    billing = Agent(ScriptedModel("Paid."), name="billing", hooks=[told])
    front = Agent(ScriptedModel(calls("handoff", agent="billing")), name="front", handoffs=["billing"], hooks=[told])
    watched = await watch(Team(front, billing))
    assert log == [OnAgentSwitch(watched.events[0].source, "billing", "handoff")]


async def test_a_switch_hook_that_fails_is_a_warning_of_the_agent_above() -> None:
    def fail(switch: OnAgentSwitch) -> None:
        raise ValueError(switch.kind)

    agent = nested(Agent(ScriptedModel("Done."), name="inner"), 1).replace(
        hooks=[hooks.on_agent_switch(name="watch")(fail)]
    )
    watched = await watch(agent)
    assert watched.outcome.reason == "completed"
    warned = of(watched.events, WarningIssued)
    assert [warning.source.agents for warning in warned] == [("outer1",)] * 2
    assert ["transfer" in warning.message for warning in warned] == [True, False]
