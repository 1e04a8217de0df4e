"""Toolsets that are started once, for any number of agents and streams."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from agentloop import Agent, Deadlines
from agentloop.errors import ToolsetError, UsageError
from agentloop.events import StreamStarted
from agentloop.testing import ScriptedModel, calls, hangs
from agentloop.toolsets import Toolsets
from tests.runtime.ways import FakeToolset, add, wait_forever
from tests.support import first, tasks_alive, watch


async def hang() -> None:
    await trio.sleep_forever()


async def fail() -> None:
    await trio.lowlevel.checkpoint()
    raise OSError("no such program")


async def test_they_are_started_once_for_all_streams_and_stopped_with_the_block() -> None:
    toolset = FakeToolset()
    async with Toolsets(toolset) as shared:
        for _ in range(2):
            await watch(Agent(ScriptedModel(calls("add", a=1, b=1), "2"), toolsets=[shared]))
            assert (toolset.is_open, toolset.opened) == (True, 1)
    assert not toolset.is_open


@pytest.mark.parametrize("given", [[FakeToolset()], FakeToolset, add, "files"], ids=range(4))
def test_what_is_no_toolset_is_refused_where_it_is_given(given: Any) -> None:
    with pytest.raises(UsageError, match=r"Toolsets\(\.\.\.\) takes toolsets, one after the other, not "):
        Toolsets(given)


async def test_streams_at_once_share_them_and_none_stops_them() -> None:
    toolset = FakeToolset(tools=(wait_forever,))
    async with Toolsets(toolset) as shared:
        agent = Agent(ScriptedModel(calls("wait_forever"), hangs()), toolsets=[shared])
        async with agent.stream("go") as one:
            await first(one, StreamStarted)
            async with agent.stream("go") as two:
                await first(two, StreamStarted)
            assert toolset.is_open
            await trio.testing.wait_all_tasks_blocked()
            assert one._run.outcome is None


async def test_the_tools_of_all_of_them_are_offered() -> None:
    model = ScriptedModel("ok")
    async with Toolsets(FakeToolset(name="a"), FakeToolset(name="b", tools=(wait_forever,))) as shared:
        await watch(Agent(model, toolsets=[shared]))
    assert [spec.name for spec in model.requests[0].tools] == ["add", "wait_forever"]


async def test_two_of_them_with_the_same_tool_are_refused() -> None:
    async with Toolsets(FakeToolset(name="a"), FakeToolset(name="b")) as shared:
        with pytest.raises(ToolsetError, match=r"toolset 'b' has a tool 'add'"):
            await Agent(ScriptedModel(), toolsets=[shared]).run("go")
        with pytest.raises(ToolsetError, match="'add'"):
            await Agent(ScriptedModel(), tools=[add], toolsets=[shared]).run("go")


async def test_if_one_does_not_start_the_others_are_stopped_and_one_plain_error_comes_out() -> None:
    good = FakeToolset()
    before = tasks_alive()
    with pytest.raises(ToolsetError, match=r"toolset 'bad' failed to start: OSError: no such program"):
        async with Toolsets(good, FakeToolset(name="bad", start=fail)):
            raise AssertionError("not reached")
    assert not good.is_open
    assert tasks_alive() == before


async def test_a_start_that_hangs_has_a_deadline() -> None:
    with pytest.raises(ToolsetError, match="did not start within 1 s"):
        async with Toolsets(FakeToolset(start=hang), deadlines=Deadlines(toolset=1)):
            raise AssertionError("not reached")


async def test_a_start_that_hangs_can_be_cancelled() -> None:
    with trio.move_on_after(1) as scope:
        async with Toolsets(FakeToolset(start=hang)):
            raise AssertionError("not reached")
    assert scope.cancelled_caught


async def test_a_stop_that_hangs_has_a_deadline_and_is_told() -> None:
    shared = Toolsets(FakeToolset(stop=hang), deadlines=Deadlines(cleanup=1))
    with trio.fail_after(2):
        async with shared:
            pass
    assert shared.problems == ("toolset_failed: toolset 'fake' did not stop within 1 s",)


async def test_they_are_stopped_in_order_also_when_the_block_is_cancelled() -> None:
    stopped = trio.Event()

    async def stop() -> None:
        await trio.sleep(1)
        stopped.set()

    with trio.move_on_after(1):
        async with Toolsets(FakeToolset(stop=stop)):
            await trio.sleep_forever()
    assert stopped.is_set()


async def test_one_that_dies_fails_what_uses_it_and_not_the_block() -> None:
    dies = trio.Event()
    async with Toolsets(FakeToolset(dies=dies), name="ours") as shared:
        await watch(Agent(ScriptedModel("ok"), toolsets=[shared]))
        dies.set()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ToolsetError, match=r"toolset 'fake' has died"):
            await Agent(ScriptedModel(), toolsets=[shared]).run("go")
        await watch(Agent(ScriptedModel("ok")))
    assert "the server has crashed" in shared.problems[0]


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Toolsets(FakeToolset()):
            raise KeyError("mine")


async def test_they_can_be_opened_again_but_not_twice_at_once() -> None:
    toolset = FakeToolset()
    shared = Toolsets(toolset)
    async with shared:
        with pytest.raises(UsageError, match="are open already"):
            await shared.__aenter__()
    async with shared:
        assert toolset.opened == 2


async def test_outside_of_the_block_there_are_none() -> None:
    with pytest.raises(ToolsetError, match=r"toolset 'shared' failed to start.*is not open: use it inside"):
        await Agent(ScriptedModel(), toolsets=[Toolsets(FakeToolset())]).run("go")
