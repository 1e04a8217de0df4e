"""Everything that waits for what lies outside has a deadline; a person's thinking time is free."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from agentloop import Accept, Agent, Approve, Deadlines, Limits, Retries, ToolContext, UsageError, hooks, tool
from agentloop._runtime.stream import Stream
from agentloop.errors import ModelTimeoutError, ToolsetError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    StreamEvent,
    ToolCallFinished,
    WarningIssued,
)
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.testing import ScriptedModel, calls, hangs, says
from agentloop.tools import Tool
from tests.runtime.ways import FakeToolset, add, delete, wait_forever
from tests.support import nested, of, watch

# ------------------------------------------------------------------------------ by default


def test_there_is_a_finite_deadline_for_everything_by_default() -> None:
    assert all(0 < seconds < math.inf for seconds in attrs.astuple(Deadlines()))


async def _hang(*args: object) -> None:
    await trio.sleep_forever()


class HangingList(FakeToolset):
    async def list_tools(self) -> Any:
        await trio.sleep_forever()


D = Deadlines()
ONCE = Retries(attempts=1)
HANGS: dict[str, tuple[Callable[[], Agent], float, type[Exception] | None]] = {
    "the model's first token": (lambda: Agent(ScriptedModel(hangs()), retries=ONCE), D.first_token, ModelTimeoutError),
    "a tool": (lambda: Agent(ScriptedModel(calls("wait_forever"), "ok"), tools=[wait_forever]), D.tool, None),
    "a toolset's start": (
        lambda: Agent(ScriptedModel("no"), toolsets=[FakeToolset(start=trio.sleep_forever)]),
        D.toolset,
        ToolsetError,
    ),
    "a toolset's stop": (
        lambda: Agent(ScriptedModel("ok"), toolsets=[FakeToolset(stop=trio.sleep_forever)]),
        D.cleanup,
        None,
    ),
    "a toolset's list": (lambda: Agent(ScriptedModel("no"), toolsets=[HangingList()]), D.toolset, ToolsetError),
    "a guard": (lambda: Agent(ScriptedModel("no"), hooks=[hooks.user_prompt_submit(_hang)]), D.hook, None),
    "an observer": (lambda: Agent(ScriptedModel("ok"), hooks=[hooks.turn_start(_hang)]), D.hook, None),
    "the end of a turn": (lambda: Agent(ScriptedModel("ok"), hooks=[hooks.turn_end(_hang)]), D.cleanup, None),
    "the end of a session": (lambda: Agent(ScriptedModel("ok"), hooks=[hooks.session_end(_hang)]), D.cleanup, None),
}


@pytest.mark.seconds(10_000)
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("what", HANGS)
async def test_whatever_hangs_the_run_continues_or_ends_at_its_deadline(what: str, depth: int) -> None:
    make, seconds, error = HANGS[what]
    watched = await watch(nested(make().replace(name="inner"), depth))
    assert trio.current_time() == seconds
    if depth == 0:
        assert type(watched.error) is (error or type(None))


@pytest.mark.seconds(10_000)
async def test_a_silent_model_is_noticed_soon_after_its_deadline() -> None:
    watched = await watch(Agent(ScriptedModel(says("Well, ") + hangs()), retries=ONCE))
    assert isinstance(watched.error, ModelTimeoutError)
    assert (watched.error.waiting_for, watched.error.seconds) == ("the next piece", D.idle)
    # It is not moved for each piece, which would cost more than telling it.
    assert D.idle <= trio.current_time() <= D.idle * 1.1


@pytest.mark.parametrize("value", [0, -1, math.nan, "5", None])
def test_a_deadline_is_a_number_above_zero(value: Any) -> None:
    with pytest.raises(UsageError, match=r"Deadlines\(tool=.*math.inf for no limit"):
        Deadlines(tool=value)


@pytest.mark.parametrize("value", [0, -1, math.nan, "5"])
def test_a_limit_is_a_number_above_zero(value: Any) -> None:
    with pytest.raises(UsageError, match=r"Limits\(tokens=.*None for no limit"):
        Limits(tokens=value)


def test_deadlines_can_be_turned_off() -> None:
    assert set(attrs.astuple(Deadlines.none())) == {math.inf}


# ------------------------------------------------------------------------------- the model


class Alive:
    """Shows signs of life every second: for ``before`` seconds, then says a word, then for ``after`` seconds."""

    name = "alive"

    def __init__(self, before: float, after: float = 0) -> None:
        self.before = before
        self.after = after

    async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
        for seconds in (self.before, self.after):
            with trio.move_on_after(seconds):
                while True:
                    await trio.sleep(1)
                    await reply.text("")
            await reply.text("Hi")
        return Stop()


LIFE = Deadlines(first_token=2, idle=3)


@pytest.mark.seconds(100)
@pytest.mark.parametrize(("before", "after"), [(19, 0), (0.5, 29), (19, 29)])
async def test_signs_of_life_restart_the_deadline_of_a_model(before: float, after: float) -> None:
    watched = await watch(Agent(Alive(before, after), deadlines=LIFE, retries=ONCE))
    assert watched.outcome.output == "HiHi"
    assert "".join(str(event) for event in watched.events).count("TextDelta") == 2


@pytest.mark.seconds(100)
@pytest.mark.parametrize(
    ("model", "seconds", "waiting_for"),
    [(Alive(math.inf), 20, "its first token"), (Alive(0.5, math.inf), 30, "the next piece")],
    ids=["first token", "idle"],
)
async def test_a_model_that_shows_nothing_but_signs_of_life_is_given_up(
    model: Alive, seconds: float, waiting_for: str
) -> None:
    watched = await watch(Agent(model, deadlines=LIFE, retries=ONCE))
    assert isinstance(watched.error, ModelTimeoutError)
    assert (watched.error.seconds, watched.error.waiting_for) == (seconds, waiting_for)
    assert seconds <= trio.current_time() <= seconds + 1


class Paced:
    """Says a piece every ``pause`` seconds."""

    name = "paced"

    def __init__(self, *pauses: float) -> None:
        self.pauses = pauses

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        for pause in self.pauses:
            await trio.sleep(pause)
            await reply.text("bla ")
        return Stop()


@pytest.mark.seconds(1000)
async def test_a_model_that_says_something_now_and_then_may_take_as_long_as_it_likes() -> None:
    agent = Agent(Paced(4, *[0.99] * 100), deadlines=Deadlines(first_token=5, idle=1))
    assert (await watch(agent)).outcome.reason == "completed"


@pytest.mark.parametrize(("pauses", "what"), [((6,), "its first token"), ((1, 0.5, 2), "the next piece")])
async def test_each_silence_has_its_deadline(pauses: tuple[float, ...], what: str) -> None:
    watched = await watch(Agent(Paced(*pauses), deadlines=Deadlines(first_token=5, idle=1), retries=ONCE))
    assert isinstance(watched.error, ModelTimeoutError)
    assert watched.error.waiting_for == what


async def test_each_request_has_deadlines_of_its_own() -> None:
    class Slow(ScriptedModel):
        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            await trio.sleep(2)
            return await super().respond(request, reply)

    agent = Agent(Slow(calls("add", a=1, b=1), "2"), tools=[add], deadlines=Deadlines(first_token=3))
    assert (await watch(agent)).outcome.reason == "completed"


# --------------------------------------------------------------------------------- the tools


async def test_a_tools_own_timeout_counts_in_place_of_the_agents() -> None:
    @tool(timeout=3)
    async def slow() -> None:
        """Take long."""
        await trio.sleep_forever()

    watched = await watch(Agent(ScriptedModel(calls("slow"), "ok"), tools=[slow], deadlines=Deadlines(tool=1)))
    [finished] = of(watched.events, ToolCallFinished)
    assert (finished.result.status, finished.result.text) == ("timeout", "Timed out after 3 s.")
    assert finished.elapsed == 3


class Forever:
    """Waits where it is entered, and where it is iterated over."""

    async def __aenter__(self) -> None:
        await trio.sleep_forever()

    async def __aexit__(self, *exc_info: object) -> None: ...

    def __aiter__(self) -> Forever:
        return self

    async def __anext__(self) -> int:
        await trio.sleep_forever()
        raise StopAsyncIteration


async def _awaits() -> None:
    await trio.sleep_forever()


async def _enters() -> None:
    async with Forever():
        pass


async def _iterates() -> None:
    async for _ in Forever():
        pass


async def _collects() -> list[int]:
    return [number async for number in Forever()]


async def _with_argument(number: int) -> None:
    await trio.sleep_forever()


class WaitingObject:
    async def __call__(self) -> None:
        await trio.sleep_forever()


WAYS_TO_WAIT: dict[str, Callable[..., Any]] = {
    "await": _awaits,
    "async with": _enters,
    "async for": _iterates,
    "an async comprehension": _collects,
    "a partial": partial(_with_argument, number=1),
    "an object": WaitingObject(),
}


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
async def test_a_tool_times_out_in_whichever_way_it_waits(way: str) -> None:
    """Calls of functions without an ``await`` have no cancel scope, since nothing could end them."""
    make: Any = tool(name="slow", description="Take long.")
    slow: Tool[Any, Any] = make(WAYS_TO_WAIT[way])
    watched = await watch(Agent(ScriptedModel(calls("slow"), "ok"), tools=[slow], deadlines=Deadlines(tool=1)))
    assert slow.can_wait
    assert of(watched.events, ToolCallFinished)[0].result.status == "timeout"


def test_an_async_function_without_an_await_cannot_wait() -> None:
    async def double(number: int) -> int:
        """Double a number."""
        return number * 2

    assert not tool(double).can_wait


async def test_a_tool_may_have_all_the_time_in_the_world() -> None:
    @tool(timeout=math.inf)
    async def slow() -> str:
        """Take long."""
        await trio.sleep(9)
        return "at last"

    watched = await watch(Agent(ScriptedModel(calls("slow"), "ok"), tools=[slow], deadlines=Deadlines(tool=1)))
    assert of(watched.events, ToolCallFinished)[0].result.text == "at last"


async def test_a_hooks_own_timeout_counts_in_place_of_the_agents() -> None:
    hook = hooks.turn_start(timeout=2)(_hang)
    watched = await watch(Agent(ScriptedModel("ok"), hooks=[hook], deadlines=Deadlines(hook=5)))
    assert "took longer than 2 s" in of(watched.events, WarningIssued)[0].message
    assert trio.current_time() == 2


async def test_the_time_of_a_stream_counts_from_its_start_to_its_end() -> None:
    @tool
    async def sleep(seconds: int) -> None:
        """Sleep."""
        await trio.sleep(seconds)

    script = [calls("sleep", seconds=number) for number in (1, 2, 3)]
    watched = await watch(Agent(ScriptedModel(*script, "no"), tools=[sleep], limits=Limits(seconds=5)))
    assert (watched.outcome.reason, watched.outcome.detail) == ("limit", "seconds: the 5 s are over")
    assert trio.current_time() == 5


# ----------------------------------------------------------------- a person's thinking time


async def thinks_long(question: object) -> Any:
    await trio.sleep(100)
    return Accept() if isinstance(question, ElicitationRequested) else Approve()


@tool(timeout=1)
async def ask(context: ToolContext[None]) -> str:
    """Ask, with some work before and after."""
    await trio.sleep(0.4)
    await context.ask("Sure?")
    await trio.sleep(0.4)
    await context.ask("Really?")
    return "sure"


@pytest.mark.seconds(10_000)
@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_person_may_think_longer_than_any_deadline_around_the_question(depth: int) -> None:
    inner = Agent(
        ScriptedModel(calls("ask") + calls("delete", path="x"), calls("ask"), "ok"),
        name="inner",
        tools=[ask, delete],
        limits=Limits(seconds=2, turns=1),
        deadlines=Deadlines(first_token=1, idle=1, tool=1, hook=1),
    )
    for level in range(depth):
        outside = Agent(
            ScriptedModel(calls(inner.name, prompt="go"), "Done."),
            name=f"outer{level}",
            tools=[inner.as_tool(timeout=3)],
            limits=Limits(seconds=4),
        )
        inner = outside
    watched = await watch(inner, on_question=thinks_long)
    assert watched.outcome.reason == "completed"
    assert {event.result.status for event in of(watched.events, ToolCallFinished)} == {"ok"}
    assert trio.current_time() > 300


@pytest.mark.seconds(1000)
async def test_the_paused_deadline_resumes_after_the_answer() -> None:
    @tool(timeout=1)
    async def dawdle(context: ToolContext[None]) -> None:
        """Be slow before and after the question."""
        await trio.sleep(0.6)
        await context.ask("Sure?")
        await trio.sleep(0.6)

    watched = await watch(Agent(ScriptedModel(calls("dawdle"), "ok"), tools=[dawdle]), on_question=thinks_long)
    [finished] = of(watched.events, ToolCallFinished)
    assert finished.result.status == "timeout"
    assert finished.elapsed == pytest.approx(101)


@pytest.mark.seconds(1000)
async def test_a_call_that_waits_for_a_person_does_not_pause_the_deadline_of_its_sibling() -> None:
    agent = Agent(
        ScriptedModel(calls("ask") + calls("wait_forever"), "ok"),
        tools=[ask, wait_forever],
        deadlines=Deadlines(tool=2),
    )
    watched = await watch(agent, on_question=thinks_long)
    finished = of(watched.events, ToolCallFinished)
    assert [(event.name, event.result.status) for event in finished] == [("wait_forever", "timeout"), ("ask", "ok")]
    assert finished[0].elapsed == 2


@pytest.mark.seconds(1000)
async def test_questions_that_overlap_hold_the_time_of_their_stream_until_the_last_is_answered() -> None:
    @tool(timeout=math.inf)
    async def ask_after(seconds: int, context: ToolContext[None]) -> None:
        """Ask a bit later."""
        await trio.sleep(seconds)
        await context.ask("Sure?")

    script = calls("ask_after", seconds=0) + calls("ask_after", seconds=50)
    agent = Agent(ScriptedModel(script, "ok"), tools=[ask_after], limits=Limits(seconds=1))
    watched = await watch(agent, on_question=thinks_long)
    assert watched.outcome.reason == "completed"
    assert trio.current_time() == 150


@pytest.mark.seconds(1000)
async def test_the_deadline_of_a_stream_resumes_after_overlapping_questions() -> None:
    @tool(timeout=math.inf)
    async def ask_then_hang(context: ToolContext[None]) -> None:
        """Ask, then hang."""
        await context.ask("Sure?")
        await trio.sleep_forever()

    script = calls("ask_then_hang") + calls("ask_then_hang")
    agent = Agent(ScriptedModel(script), tools=[ask_then_hang], limits=Limits(seconds=1))
    watched = await watch(agent, on_question=thinks_long)
    assert watched.outcome.reason == "limit"
    assert trio.current_time() == 101


@pytest.mark.seconds(1000)
async def test_the_time_of_a_stream_does_not_run_while_a_limit_is_asked_about() -> None:
    agent = Agent(ScriptedModel(calls("add", a=1, b=1), "2"), tools=[add], limits=Limits(seconds=1, turns=1))
    watched = await watch(agent, on_question=thinks_long)
    assert len(of(watched.events, ContinueRequested)) == 1
    assert watched.outcome.reason == "completed"


async def test_a_question_that_is_cut_off_gives_back_the_time_that_was_held() -> None:
    @tool(timeout=3)
    async def impatient(context: ToolContext[None]) -> None:
        """Ask, then give up, then hang."""
        with trio.move_on_after(2):
            await context.ask("Sure?")
        await trio.sleep_forever()

    watched = await watch(Agent(ScriptedModel(calls("impatient"), "ok"), tools=[impatient]))
    assert of(watched.events, ToolCallFinished)[0].elapsed == pytest.approx(5)


@pytest.mark.seconds(1000)
async def test_a_predicate_that_hangs_leaves_the_decision_to_a_person() -> None:
    @tool(requires_approval=_hang_forever)  # type: ignore[arg-type]
    async def risky() -> str:
        """Do something."""
        return "done"

    def on_event(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ApprovalRequested):
            stream.answer(event.id, Approve())

    agent = Agent(ScriptedModel(calls("risky"), "ok"), tools=[risky], deadlines=Deadlines(hook=1))
    watched = await watch(agent, on_event=on_event)
    assert of(watched.events, WarningIssued)[0].code == "predicate_failed"
    assert of(watched.events, ToolCallFinished)[0].result.text == "done"


async def _hang_forever(arguments: dict[str, Any]) -> bool:
    await trio.sleep_forever()


async def test_a_tool_that_makes_progress_starts_its_deadline_anew_up_to_a_limit() -> None:
    @tool(timeout=2)
    async def work(steps: int, context: ToolContext[None]) -> str:
        """Work."""
        for _ in range(steps):
            await trio.sleep(1.5)
            context.restart_deadline(at_most=5)
        return "done"

    watched = await watch(Agent(ScriptedModel(calls("work", steps=3) + calls("work", steps=9), "ok"), tools=[work]))
    ends = {event.result.text: event.elapsed for event in of(watched.events, ToolCallFinished)}
    assert ends == {"done": 4.5, "Timed out after 5 s.": 5}


async def test_a_deadline_that_starts_anew_does_not_count_the_time_of_a_person() -> None:
    @tool(timeout=2)
    async def work(context: ToolContext[None]) -> str:
        """Work."""
        await trio.sleep(1)
        with context.paused_deadline():
            await trio.sleep(1)
            context.restart_deadline(at_most=4)
        await trio.sleep(9)
        return "done"

    watched = await watch(Agent(ScriptedModel(calls("work"), "ok"), tools=[work]))
    [end] = of(watched.events, ToolCallFinished)
    assert (end.result.text, end.elapsed) == ("Timed out after 3 s.", 4)


async def test_a_deadline_that_starts_anew_leaves_that_of_the_run() -> None:
    @tool(timeout=2)
    async def work(context: ToolContext[None]) -> str:
        """Work."""
        while True:
            await trio.sleep(1)
            context.restart_deadline()

    watched = await watch(Agent(ScriptedModel(calls("work")), tools=[work], limits=Limits(seconds=5)))
    assert watched.outcome.reason == "limit"
