"""Toolsets: started with a stream, asked before each turn, stopped with the stream."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from agentloop import Agent, Deadlines, Session, Tool, tool
from agentloop._runtime.toolset_start import persons_time, time_left
from agentloop.errors import ToolsetError
from agentloop.events import StreamStarted, ToolCallFinished, ToolCallStarted, WarningIssued
from agentloop.testing import ScriptedModel, calls, hangs, says
from agentloop.toolsets import Toolsets
from tests.runtime.ways import FakeToolset, add, wait_forever
from tests.support import first, nested, of, opened, watch


@tool
async def subtract(a: int, b: int) -> int:
    """Subtract."""
    return a - b


def sleeping(seconds: float) -> Any:
    async def sleep() -> None:
        await trio.sleep(seconds)

    return sleep


async def raising() -> None:
    raise OSError("no such program")


async def test_a_toolsets_tools_are_offered_and_called_like_an_agents_own() -> None:
    model = ScriptedModel(calls("add", a=1, b=1) + calls("subtract", a=3, b=1), "2")
    watched = await watch(Agent(model, tools=[subtract], toolsets=[FakeToolset()]))
    assert [spec.name for spec in model.requests[0].tools] == ["subtract", "add"]
    assert [event.result.text for event in of(watched.events, ToolCallFinished)] == ["2", "2"]


async def test_what_a_toolset_offers_may_change_from_turn_to_turn() -> None:
    toolset = FakeToolset(tools=())

    @tool
    async def unlock() -> str:
        """Unlock more."""
        toolset.tools = (add,)
        return "unlocked"

    model = ScriptedModel(calls("unlock"), calls("add", a=1, b=1), "2")
    watched = await watch(Agent(model, tools=[unlock], toolsets=[toolset]))
    assert [[spec.name for spec in request.tools] for request in model.requests] == [
        ["unlock"],
        ["unlock", "add"],
        ["unlock", "add"],
    ]
    assert of(watched.events, ToolCallFinished)[1].result.text == "2"


async def test_a_toolset_is_started_for_each_stream_and_open_while_it_runs() -> None:
    toolset = FakeToolset()
    agent = Agent(ScriptedModel(hangs(), hangs()), toolsets=[toolset])
    session = Session()
    for time in (1, 2):
        async with agent.stream("go", session=session) as stream:
            await first(stream, StreamStarted)
            await trio.testing.wait_all_tasks_blocked()
            assert (toolset.is_open, toolset.opened) == (True, time)
        assert not toolset.is_open


async def test_the_deadline_of_its_start_is_none_for_how_long_a_toolset_is_open() -> None:
    @tool
    async def sleep() -> str:
        """Sleep."""
        await trio.sleep(5)
        return "slept"

    toolset = FakeToolset(tools=(sleep,))
    agent = Agent(ScriptedModel(calls("sleep"), "ok"), toolsets=[toolset], deadlines=Deadlines(toolset=1))
    watched = await watch(agent)
    assert watched.outcome.reason == "completed"
    assert of(watched.events, WarningIssued) == []


async def test_toolsets_start_and_stop_at_once() -> None:
    toolsets = [FakeToolset(name=name, start=sleeping(3), stop=sleeping(2), tools=()) for name in ("a", "b", "c")]
    watched = await watch(Agent(ScriptedModel("ok"), toolsets=toolsets))
    assert watched.outcome.reason == "completed"
    assert trio.current_time() == 5


async def test_a_toolset_is_open_until_the_tools_that_were_cut_off_have_ended() -> None:
    toolset = FakeToolset(tools=())
    open_at_the_end: list[bool] = []

    @tool
    async def wait() -> None:
        """Wait."""
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            open_at_the_end.append(toolset.is_open)

    toolset.tools = (wait,)
    async with opened(Agent(ScriptedModel(calls("wait")), toolsets=[toolset])) as stream:
        await first(stream, ToolCallStarted)
        await trio.testing.wait_all_tasks_blocked()
    assert open_at_the_end == [True]
    assert not toolset.is_open


async def test_a_toolset_is_stopped_in_order_also_when_the_stream_is_cancelled() -> None:
    stopped: list[str] = []

    async def stop() -> None:
        await trio.sleep(1)
        stopped.append("stopped")

    async with opened(Agent(ScriptedModel(hangs()), toolsets=[FakeToolset(stop=stop)])) as stream:
        await first(stream, StreamStarted)
        await trio.testing.wait_all_tasks_blocked()
    assert stopped == ["stopped"]


# ----------------------------------------------------------------------------- it fails


async def test_when_one_toolset_does_not_start_the_others_are_stopped() -> None:
    good = FakeToolset(name="good")
    slow = FakeToolset(name="slow", start=trio.sleep_forever)

    async def fail() -> None:
        await trio.testing.wait_all_tasks_blocked()
        raise OSError("no such program")

    watched = await watch(Agent(ScriptedModel("no"), toolsets=[good, slow, FakeToolset(name="bad", start=fail)]))
    assert isinstance(watched.error, ToolsetError)
    assert str(watched.error) == "toolset 'bad' failed to start: OSError: no such program"
    assert isinstance(watched.error.__cause__, OSError)
    assert (good.opened, good.is_open, slow.opened) == (1, False, 0)
    assert watched.messages == ()


@pytest.mark.parametrize("way", ["stop", "leave"])
async def test_a_start_is_cut_off_when_the_stream_is(way: str) -> None:
    good = FakeToolset(name="good")
    toolsets = [good, FakeToolset(name="slow", start=trio.sleep_forever)]
    async with opened(Agent(ScriptedModel("no"), toolsets=toolsets)) as stream:
        await trio.testing.wait_all_tasks_blocked()
        assert good.opened == 1
        if way == "stop":
            stream.stop()
            await stream.wait()
    assert not good.is_open
    assert stream.outcome.reason == "cancelled"
    assert trio.current_time() == 0


async def test_a_start_that_fails_because_it_was_cut_off_does_not_reach_who_leaves() -> None:
    async def sulk() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise OSError("so there") from None  # noqa: ASYNC104 - as bad code does

    toolsets = [FakeToolset(name="a", start=sulk), FakeToolset(name="b", start=trio.sleep_forever)]
    async with opened(Agent(ScriptedModel("no"), toolsets=toolsets)) as stream:
        await trio.testing.wait_all_tasks_blocked()
    assert stream.outcome.reason == "cancelled"


class NotOpenable:
    name = "odd"

    def __init__(self, what: Any) -> None:
        self.what = what

    def open(self) -> AbstractAsyncContextManager[Any]:
        if isinstance(self.what, Exception):
            raise self.what
        opened: AbstractAsyncContextManager[Any] = self.what
        return opened


@pytest.mark.parametrize("what", [None, 5, OSError("no such program")])
async def test_a_toolset_that_cannot_be_opened_fails_to_start(what: Any) -> None:
    watched = await watch(Agent(ScriptedModel("no"), toolsets=[NotOpenable(what)]))
    assert isinstance(watched.error, ToolsetError)
    assert "failed to start" in str(watched.error)


@pytest.mark.parametrize("listed", [None, 5, ["add"], [add.function]])
async def test_a_toolset_that_lists_anything_but_tools_fails(listed: Any) -> None:
    toolset = FakeToolset(name="odd", tools=listed)
    watched = await watch(Agent(ScriptedModel("no"), toolsets=[toolset]))
    assert isinstance(watched.error, ToolsetError)
    assert "toolset 'odd'" in str(watched.error)


@pytest.mark.parametrize("own", [True, False])
async def test_a_name_that_is_taken_is_an_error_that_says_by_which_toolset(own: bool) -> None:
    toolsets = [FakeToolset(name="one"), FakeToolset(name="two")][own:]
    watched = await watch(Agent(ScriptedModel("no"), tools=[add] if own else [], toolsets=toolsets))
    assert isinstance(watched.error, ToolsetError)
    assert watched.error.toolset == "two"
    assert "there is one of that name already" in str(watched.error)


async def test_a_toolset_that_dies_is_a_warning_at_once_and_ends_the_run_before_the_next_turn() -> None:
    dies = trio.Event()

    @tool
    async def crash() -> str:
        """Crash."""
        dies.set()
        await trio.testing.wait_all_tasks_blocked()
        return "crashed"

    model = ScriptedModel(calls("crash"), "never asked")
    watched = await watch(Agent(model, toolsets=[FakeToolset(dies=dies, tools=(crash,))]))
    [warning] = of(watched.events, WarningIssued)
    assert warning.message == "toolset 'fake' failed: OSError: the server has crashed"
    [finished] = of(watched.events, ToolCallFinished)
    assert warning.seq < finished.seq
    assert str(watched.error) == "toolset 'fake' has died, so it cannot list its tools"
    assert len(model.requests) == 1


async def test_toolsets_that_hang_at_their_stop_do_not_add_up() -> None:
    toolsets = [FakeToolset(name=name, stop=trio.sleep_forever, tools=()) for name in ("a", "b", "c")]
    watched = await watch(Agent(ScriptedModel("ok"), toolsets=toolsets, deadlines=Deadlines(cleanup=2)))
    assert watched.outcome.reason == "completed"
    assert sorted(warning.message for warning in of(watched.events, WarningIssued)) == [
        f"toolset {name!r} did not stop within 2 s" for name in ("a", "b", "c")
    ]
    assert trio.current_time() == 2


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_toolset_of_an_agent_inside_is_stopped_when_the_root_is_left(depth: int) -> None:
    toolset = FakeToolset(tools=(wait_forever,))
    async with opened(
        nested(Agent(ScriptedModel(calls("wait_forever")), name="inner", toolsets=[toolset]), depth)
    ) as stream:
        while (await first(stream, ToolCallStarted)).depth != depth:
            pass
        await trio.testing.wait_all_tasks_blocked()
        assert toolset.is_open
    assert not toolset.is_open


async def test_two_streams_at_once_have_a_toolset_each_to_themselves() -> None:
    open_now: list[int] = []
    counts: list[int] = []

    class Counted:
        name = "counted"

        @asynccontextmanager
        async def open(self) -> AsyncGenerator[Counted]:
            open_now.append(1)
            counts.append(len(open_now))
            yield self
            open_now.pop()

        async def list_tools(self) -> Sequence[Tool]:
            return ()

    agent = Agent(ScriptedModel(says("Well, ") + hangs(), says("Well, ") + hangs()), toolsets=[Counted()])
    async with opened(agent), agent.stream("go"):
        await trio.testing.wait_all_tasks_blocked()
        assert counts == [1, 2]
    assert open_now == []


class Flawed(FakeToolset):
    """A toolset that works around problems."""

    problems: Sequence[str] = ()


async def test_the_problems_that_a_toolset_works_around_are_warnings_each_once() -> None:
    toolset = Flawed()
    toolset.problems = ["tool 'a' is left out"]

    @tool
    async def spoil() -> str:
        """Spoil."""
        toolset.problems = ["tool 'a' is left out", "tool 'b' is left out"]
        return "ok"

    agent = Agent(ScriptedModel(calls("spoil"), calls("add", a=1, b=1), "done"), tools=[spoil], toolsets=[toolset])
    watched = await watch(agent)
    warnings = [(event.code, event.message) for event in of(watched.events, WarningIssued)]
    assert warnings == [("toolset_problem", problem) for problem in toolset.problems]
    async with Toolsets(toolset) as shared:
        watched = await watch(agent.replace(model=ScriptedModel("done"), toolsets=[shared]))
        assert [event.message for event in of(watched.events, WarningIssued)] == toolset.problems
        assert list(shared.problems) == toolset.problems


@pytest.mark.parametrize("is_shared", [False, True])
async def test_a_tool_whose_name_is_taken_is_left_out_if_it_appears_in_the_middle_of_a_run(is_shared: bool) -> None:
    other = FakeToolset(name="other", tools=())

    @tool
    async def grow() -> str:
        """Grow."""
        other.tools = (add, subtract)
        return "ok"

    model = ScriptedModel(calls("grow"), calls("subtract", a=3, b=1), "done")
    first_one = FakeToolset()
    async with Toolsets(first_one, other) as shared:
        toolsets: list[Any] = [shared] if is_shared else [first_one, other]
        watched = await watch(Agent(model, tools=[grow], toolsets=toolsets))
    assert [spec.name for spec in model.requests[1].tools] == ["grow", "add", "subtract"]
    [warning] = of(watched.events, WarningIssued)
    assert warning.message.startswith("toolset 'other' has a tool 'add'")


@pytest.mark.seconds(60)
async def test_the_time_of_a_person_counts_neither_for_a_start_nor_for_a_listing() -> None:
    class SignIn(FakeToolset):
        async def list_tools(self) -> Sequence[Tool]:
            with persons_time():
                await trio.sleep(3)
            assert time_left() == 1
            return self.tools

    async def sign_in() -> None:
        with persons_time():
            await trio.sleep(3)
        assert time_left() == 1
        await trio.sleep(0.5)

    toolset = SignIn(start=sign_in)
    deadlines = Deadlines(toolset=1)
    watched = await watch(Agent(ScriptedModel("done"), toolsets=[toolset], deadlines=deadlines))
    assert watched.outcome.reason == "completed"
    async with Toolsets(toolset, deadlines=deadlines) as shared:
        await Agent(ScriptedModel("done"), toolsets=[shared], deadlines=deadlines).run("go")
    assert time_left() == math.inf
