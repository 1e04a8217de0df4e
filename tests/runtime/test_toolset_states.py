"""Toolsets that come and go: their states, restarts, those that a run can do without, and tools that change."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from agentloop import Agent, Deadlines, tool
from agentloop._runtime.stream import Stream
from agentloop._runtime.toolset_start import ask_to_visit
from agentloop.errors import ToolsetError, UsageError
from agentloop.events import (
    ApprovalRequested,
    ElicitationRequested,
    StreamEvent,
    ToolCallFinished,
    ToolCallStarted,
    ToolsChanged,
    ToolsetChanged,
    ToolsetStatus,
    TurnStarted,
    WarningIssued,
)
from agentloop.messages import Usage
from agentloop.questions import Accept, Approve, Decline
from agentloop.testing import ScriptedModel, calls, hangs, says
from agentloop.toolsets import Toolsets, optional, say_what_it_waits_for
from tests.runtime.ways import FakeToolset, add, wait_forever
from tests.support import first, of, opened, tasks_alive, watch


@tool
async def subtract(a: int, b: int) -> int:
    """Subtract."""
    return a - b


def states(events: list[StreamEvent]) -> list[str]:
    return [f"{event.toolset.name} {event.toolset.state}" for event in of(events, ToolsetChanged)]


class Failing:
    """A start that fails the first few times, or as long as ``times`` is above 0."""

    def __init__(self, times: int, seconds: float = 0.0) -> None:
        self.times = times
        self.tries = 0
        self.seconds = seconds

    async def __call__(self) -> None:
        self.tries += 1
        await trio.sleep(self.seconds)
        self.times -= 1
        if self.times >= 0:
            raise OSError("no such program")


# ------------------------------------------------------------------------------ states


async def test_a_toolset_that_starts_at_once_has_a_state_and_no_event() -> None:
    seen: list[tuple[ToolsetStatus, ...]] = []

    def look(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ToolCallFinished):
            seen.append(stream.toolsets)

    model = ScriptedModel(calls("add", a=1, b=1), "2")
    watched = await watch(Agent(model, toolsets=[FakeToolset()]), on_event=look)
    assert seen == [(ToolsetStatus("fake", "ready", tools=1),)]
    assert of(watched.events, ToolsetChanged) == []
    assert watched.stream.toolsets == (ToolsetStatus("fake", "stopped", tools=1),)


async def test_a_slow_start_says_after_two_seconds_what_it_waits_for() -> None:
    async def start() -> None:
        say_what_it_waits_for("a download\x1b of 3 MB")
        await trio.sleep(5)

    async with opened(Agent(ScriptedModel("ok"), toolsets=[FakeToolset(start=start)])) as stream:
        event = await first(stream, ToolsetChanged)
        assert trio.current_time() == 2
        assert (event.toolset.state, event.toolset.detail) == ("starting", "a download\\x1b of 3 MB")
        assert (await first(stream, ToolsetChanged)).toolset == ToolsetStatus("fake", "ready")
        assert (await first(stream, ToolsetChanged)).toolset == ToolsetStatus("fake", "ready", tools=1)
        await stream.wait()


async def test_the_state_of_a_required_toolset_that_does_not_start_says_why() -> None:
    watched = await watch(Agent(ScriptedModel(), toolsets=[FakeToolset(start=Failing(1))]))
    assert watched.stream.toolsets == (
        ToolsetStatus("fake", "failed", error="failed to start: OSError: no such program"),
    )


async def test_a_toolset_that_dies_is_failed_and_says_why() -> None:
    dies = trio.Event()

    @tool
    async def crash() -> str:
        """Crash."""
        dies.set()
        await trio.testing.wait_all_tasks_blocked()
        return "crashed"

    watched = await watch(Agent(ScriptedModel(calls("crash")), toolsets=[FakeToolset(dies=dies, tools=(crash,))]))
    [event] = of(watched.events, ToolsetChanged)
    assert event.toolset == ToolsetStatus("fake", "failed", error="OSError: the server has crashed", tools=1)


# ---------------------------------------------------------------------------- restarts


async def test_a_restart_closes_the_old_one_and_the_next_turn_has_the_tools_of_the_new_one() -> None:
    toolset = FakeToolset()

    @tool
    async def mend() -> str:
        """Mend."""
        toolset.tools = (subtract,)
        await stream.restart_toolset("fake")
        return "mended"

    model = ScriptedModel(calls("mend"), calls("subtract", a=3, b=1), "2")
    async with Agent(model, tools=[mend], toolsets=[toolset]).stream("go") as stream:
        events = [event async for event in stream]
    assert toolset.opened == 2
    assert [[spec.name for spec in request.tools] for request in model.requests[:2]] == [
        ["mend", "add"],
        ["mend", "subtract"],
    ]
    assert of(events, ToolCallFinished)[1].result.text == "2"
    assert states(events) == ["fake starting", "fake ready"]
    [change] = of(events, ToolsChanged)
    assert (change.added, change.removed, change.changed) == (("subtract",), ("add",), ())


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("seconds", [60.0, float("inf")])
async def test_calls_that_run_in_a_toolset_end_with_its_restart(seconds: float, is_shared: bool) -> None:
    toolset = FakeToolset(tools=(wait_forever, add))
    model = ScriptedModel(calls("wait_forever"), "ok")
    events: list[StreamEvent] = []
    async with Toolsets(toolset) as shared:
        agent = Agent(model, toolsets=[shared if is_shared else toolset], deadlines=Deadlines(tool=seconds))
        async with agent.stream("go") as stream:
            async for event in stream:
                events.append(event)
                if isinstance(event, ToolCallStarted):
                    await trio.testing.wait_all_tasks_blocked()
                    await (shared.restart("fake") if is_shared else stream.restart_toolset("fake"))
                    assert toolset.is_open
        assert stream.outcome.reason == "completed"
    [finished] = of(events, ToolCallFinished)
    assert finished.result.status == "error"
    assert "was started again while this call ran, which was cut off: its outcome is unknown" in finished.result.text
    assert trio.current_time() == 0


async def test_a_call_that_waited_for_approval_during_a_restart_does_not_reach_the_old_one() -> None:
    ran: list[str] = []

    @tool(requires_approval=True)
    async def write() -> str:
        """Write."""
        ran.append("write")
        return "written"

    events: list[StreamEvent] = []
    agent = Agent(ScriptedModel(calls("write"), "ok"), toolsets=[FakeToolset(tools=(write,))])
    async with agent.stream("go") as stream:
        async for event in stream:
            events.append(event)
            if isinstance(event, ApprovalRequested):
                await stream.restart_toolset("fake")
                stream.answer(event, Approve())
    assert ran == []
    assert "was started again before this call ran. Call the tool again" in of(events, ToolCallFinished)[0].result.text


async def test_a_cancelled_caller_does_not_stop_the_restart_and_nothing_is_left() -> None:
    async def slow() -> None:
        await trio.sleep(1)

    toolset = FakeToolset(start=slow, stop=slow, tools=(wait_forever,))
    before = tasks_alive()
    async with Agent(ScriptedModel(calls("wait_forever"), "ok"), toolsets=[toolset]).stream("go") as stream:
        await first(stream, ToolCallStarted)
        with trio.move_on_after(0.5):
            await stream.restart_toolset("fake")
        assert stream.toolsets[0].state == "starting"
        await stream.restart_toolset("fake")
        assert toolset.opened == 2
        assert trio.current_time() == 3
    assert not toolset.is_open
    assert tasks_alive() == before


async def test_leaving_the_stream_in_the_middle_of_a_restart_leaves_nothing() -> None:
    async def start() -> None:
        await trio.sleep(0 if toolset.opened == 0 else 1000)

    toolset = FakeToolset(start=start, tools=(wait_forever,))
    has_raised = trio.Event()

    async def restart() -> None:
        with pytest.raises(ToolsetError, match="is stopped: its stream"):
            await stream.restart_toolset("fake")
        has_raised.set()

    agent = Agent(ScriptedModel(hangs()), toolsets=[toolset])
    async with trio.open_nursery() as nursery, agent.stream("go") as stream:
        await first(stream, TurnStarted)
        nursery.start_soon(restart)
        await trio.testing.wait_all_tasks_blocked()
    assert has_raised.is_set()
    assert trio.current_time() == 0
    with pytest.raises(ToolsetError, match="is stopped"):
        await stream.restart_toolset("fake")


async def test_a_restart_that_fails_raises_and_the_next_turn_tries_once_more() -> None:
    start = Failing(0)
    toolset = FakeToolset(start=start)

    @tool
    async def mend() -> str:
        """Mend."""
        start.times = 1
        with pytest.raises(ToolsetError, match=r"toolset 'fake' failed to start: OSError: no such program"):
            await stream.restart_toolset("fake")
        assert stream.toolsets[0].error == "failed to start: OSError: no such program"
        return "failed"

    model = ScriptedModel(calls("mend"), calls("add", a=1, b=1), "2")
    async with Agent(model, tools=[mend], toolsets=[toolset]).stream("go") as stream:
        await stream.wait()
    assert stream.outcome.reason == "completed"
    assert start.tries == 3


async def test_a_restart_that_fails_for_good_ends_the_run() -> None:
    start = Failing(0)

    @tool
    async def mend() -> str:
        """Mend."""
        start.times = 10
        with pytest.raises(ToolsetError):
            await stream.restart_toolset("fake")
        return "failed"

    async with Agent(ScriptedModel(calls("mend")), tools=[mend], toolsets=[FakeToolset(start=start)]).stream(
        "go"
    ) as stream:
        await stream.wait()
    assert "failed to start: OSError: no such program" in stream.outcome.detail


async def test_a_start_that_hangs_can_be_given_up_for_a_new_one() -> None:
    async def start() -> None:
        tries.append(1)
        await trio.sleep(0 if len(tries) > 1 else 25)

    tries: list[int] = []
    async with opened(Agent(ScriptedModel("ok"), toolsets=[FakeToolset(start=start)])) as stream:
        await first(stream, ToolsetChanged)
        await stream.restart_toolset("fake")
        await stream.wait()
        assert (len(tries), trio.current_time()) == (2, 2)


async def test_a_toolset_of_another_name_is_refused_with_the_names_that_there_are() -> None:
    toolsets = [FakeToolset(name="a"), FakeToolset(name="b", tools=(wait_forever,))]
    async with opened(Agent(ScriptedModel(hangs()), toolsets=toolsets)) as stream:
        await first(stream, TurnStarted)
        with pytest.raises(UsageError, match=r"no toolset is called 'c', of those that are open: 'a', 'b'"):
            await stream.restart_toolset("c")
    async with opened(Agent(ScriptedModel(hangs()))) as stream:
        with pytest.raises(UsageError, match="no toolset is called 'a': agent 'agent' has none open"):
            await stream.restart_toolset("a")


async def test_a_restart_of_a_shared_toolset_is_seen_by_all_its_streams() -> None:
    async with Toolsets(FakeToolset(name="a"), name="all") as shared:
        agent = Agent(ScriptedModel(hangs(), hangs()), toolsets=[shared])
        async with agent.stream("go") as one, agent.stream("go") as two:
            for stream in (one, two):
                await first(stream, TurnStarted)
            await one.restart_toolset("a")
            for stream in (one, two):
                assert (await first(stream, ToolsetChanged)).toolset.state == "starting"
                assert (await first(stream, ToolsetChanged)).toolset.state == "ready"
        assert [status.state for status in shared.statuses] == ["ready"]
    assert len(shared.statuses) == 0
    with pytest.raises(ToolsetError, match="is not open"):
        await shared.restart("a")


# ---------------------------------------------------- toolsets that a run can do without


def three_turns() -> ScriptedModel:
    return ScriptedModel(calls("subtract", a=2, b=1), calls("subtract", a=3, b=1), calls("subtract", a=4, b=1), "ok")


def offered(model: ScriptedModel) -> list[list[str]]:
    return [[spec.name for spec in request.tools] for request in model.requests]


async def test_a_run_goes_on_without_an_optional_toolset_warns_once_and_tries_again_at_the_next_turn() -> None:
    start, model = Failing(1), three_turns()
    watched = await watch(Agent(model, tools=[subtract], toolsets=[optional(FakeToolset(start=start))]))
    assert offered(model)[:2] == [["subtract"], ["subtract", "add"]]
    [warning] = of(watched.events, WarningIssued)
    assert (warning.code, warning.message) == (
        "toolset_problem",
        "toolset 'fake' failed to start: OSError: no such program; the run goes on without it, which is optional",
    )
    assert states(watched.events) == ["fake failed", "fake starting", "fake ready", "fake ready"]
    assert of(watched.events, ToolsChanged)[0].added == ("add",)


async def test_an_optional_toolset_that_stays_away_is_tried_at_growing_intervals() -> None:
    start = Failing(1000)
    model = ScriptedModel(*[calls("wait", x=index) for index in range(9)], "ok")

    @tool(name="wait")
    async def wait_for(x: int) -> str:
        """Wait."""
        await trio.sleep(1)
        return "waited"

    watched = await watch(Agent(model, tools=[wait_for], toolsets=[optional(FakeToolset(start=start))]))
    assert watched.outcome.reason == "completed"
    # At 0 s, at once in the second turn, and then 1, 2 and 4 seconds later.
    assert start.tries == 5
    assert len(of(watched.events, WarningIssued)) == 1


async def test_an_optional_toolset_that_hangs_holds_a_later_turn_up_for_a_second() -> None:
    start, model = Failing(1000, seconds=100), three_turns()
    agent = Agent(model, tools=[subtract], toolsets=[optional(FakeToolset(start=start))])
    watched = await watch(agent.replace(deadlines=Deadlines(toolset=5)))
    assert watched.outcome.reason == "completed"
    # The first start has its deadline, and the second goes on beside the turns.
    assert (trio.current_time(), start.tries) == (6, 2)


async def test_an_optional_toolset_that_dies_is_started_again() -> None:
    dies = trio.Event()

    @tool
    async def crash() -> str:
        """Crash."""
        dies.set()
        await trio.testing.wait_all_tasks_blocked()
        toolset._dies = None
        return "crashed"

    toolset = FakeToolset(dies=dies, tools=(crash, add))
    model = ScriptedModel(calls("crash"), calls("add", a=1, b=1), "2")
    watched = await watch(Agent(model, toolsets=[optional(toolset)]))
    assert watched.outcome.reason == "completed"
    assert states(watched.events) == ["fake failed", "fake starting", "fake ready"]
    assert of(watched.events, ToolsChanged) == []


async def test_shared_toolsets_open_without_an_optional_one_which_the_next_prompt_tries() -> None:
    start = Failing(2)
    async with Toolsets(optional(FakeToolset(start=start))) as shared:
        assert shared.statuses[0].state == "failed"
        assert "no such program; the run goes on without it" in shared.problems[0]
        for tools in ([], ["add"]):
            await trio.sleep(1)
            model = ScriptedModel("ok")
            watched = await watch(Agent(model, toolsets=[shared]))
            assert offered(model) == [tools]
            assert len(of(watched.events, WarningIssued)) == (0 if tools else 1)
    assert start.tries == 3


def test_only_a_toolset_is_optional() -> None:
    with pytest.raises(UsageError, match="takes a toolset, not"):
        optional(add)  # type: ignore[arg-type]


# ---------------------------------------------------- sign-ins of shared toolsets


class SigningIn(FakeToolset):
    """A toolset that needs a person who signs in before it starts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(start=self._sign_in, **options)
        self.is_signed_in = False

    async def _sign_in(self) -> None:
        if not self.is_signed_in:
            answer = await ask_to_visit("Sign in, please.", "https://h.example/sign-in")
            if not isinstance(answer, Accept):
                raise PermissionError("the user did not sign in")
            self.is_signed_in = True


async def test_a_sign_in_of_a_shared_toolset_is_a_question_in_the_first_run_that_needs_it() -> None:
    async with Toolsets(SigningIn()) as shared:
        assert shared.statuses == (ToolsetStatus("fake", "waiting", detail="a person who signs in"),)
        agent = Agent(ScriptedModel("ok", "ok"), toolsets=[shared], deadlines=Deadlines(toolset=0.5))
        async with agent.stream("go") as stream:
            question = await first(stream, ElicitationRequested)
            assert (question.url, question.call_id) == ("https://h.example/sign-in", "")
            # A person's time counts in no deadline.
            await trio.sleep(5)
            stream.answer(question, Accept())
            await stream.wait()
        assert stream.outcome.reason == "completed"
        watched = await watch(agent)
        assert of(watched.events, ElicitationRequested) == []


async def test_each_run_asks_its_own_user_until_one_signs_in() -> None:
    model = ScriptedModel("ok", "ok")
    async with Toolsets(SigningIn()) as shared:
        agent = Agent(model, toolsets=[shared])
        declined = await watch(
            agent,
            on_event=lambda stream, event: (
                stream.answer(event, Decline("not now")) if isinstance(event, ElicitationRequested) else None
            ),
        )
        assert "failed to start: PermissionError: the user did not sign in" in declined.outcome.detail
        assert shared.statuses[0].state == "waiting"
        async with agent.stream("go") as one:
            await first(one, ElicitationRequested)
            async with agent.stream("go") as two:
                # The second run waits for the user of the first one, who leaves.
                await trio.testing.wait_all_tasks_blocked()
                assert two.pending == ()
                one.stop()
                question = await first(two, ElicitationRequested)
                two.answer(question, Accept())
                assert (await two.wait()).reason == "completed"
            assert (await one.wait()).reason == "cancelled"


async def test_an_optional_toolset_whose_user_declines_is_left_out_with_one_warning() -> None:
    model = ScriptedModel("ok")
    async with Toolsets(optional(SigningIn())) as shared:
        watched = await watch(
            Agent(model, toolsets=[shared]),
            on_event=lambda stream, event: (
                stream.answer(event, Decline("not now")) if isinstance(event, ElicitationRequested) else None
            ),
        )
    assert watched.outcome.reason == "completed"
    assert offered(model) == [[]]
    assert len(of(watched.events, WarningIssued)) == 1


# ------------------------------------------------------------------- tools that change


async def test_tools_that_come_go_and_change_are_named_in_an_event_before_the_request() -> None:
    @tool(name="add")
    async def other_add(a: int, b: int) -> int:
        """Add, in another way."""
        return a + b

    @tool
    async def unlock() -> str:
        """Unlock more."""
        toolset.tools = (other_add, subtract)
        return "unlocked"

    toolset = FakeToolset(tools=(add, unlock))
    model = ScriptedModel(calls("unlock"), "ok")
    watched = await watch(Agent(model, toolsets=[toolset]))
    [change] = of(watched.events, ToolsChanged)
    assert (change.added, change.removed, change.changed) == (("subtract",), ("unlock",), ("add",))
    second = of(watched.events, TurnStarted)[1]
    assert change.seq == second.seq + 1


async def test_new_tools_that_cost_the_cache_are_the_reason_of_the_warning() -> None:
    @tool
    async def unlock() -> str:
        """Unlock more."""
        toolset.tools = (unlock, subtract)
        return "unlocked"

    toolset = FakeToolset(tools=(unlock,))
    cached = Usage(input_tokens=5_000, cached_tokens=4_000)
    lost = Usage(input_tokens=5_000)
    model = ScriptedModel(
        msgspec.structs.replace(calls("unlock"), usage=cached), msgspec.structs.replace(says("ok"), usage=lost)
    )
    watched = await watch(Agent(model, toolsets=[toolset]))
    assert [event.added for event in of(watched.events, ToolsChanged)] == [("subtract",)]
    [warning] = of(watched.events, WarningIssued)
    assert warning.code == "cache_lost"
    assert "the tools changed (new: subtract)" in warning.message


class NoBlock(FakeToolset):
    async def open(self) -> Any:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return self


class NoDecorator(FakeToolset):
    async def open(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield self


class YieldsNothing(FakeToolset):
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Any]:
        yield None


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (NoBlock, "open() gives no block: write @asynccontextmanager above `async def open`, and `yield` in it"),
        (NoDecorator, "open() gives no block: write @asynccontextmanager above `async def open`, and `yield` in it"),
        (YieldsNothing, "open() yielded None, which has no list_tools()"),
    ],
)
async def test_a_toolset_whose_open_is_no_block_of_a_toolset_fails_with_the_way_to_one(kind: Any, problem: str) -> None:
    with pytest.raises(ToolsetError) as raised:
        await Agent(ScriptedModel("Never."), toolsets=[kind()]).run("go")
    assert str(raised.value) == f"toolset 'fake' failed to start: TypeError: {problem}"
