"""Another model for an agent that is there already."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from agentloop import Agent, ToolContext, UsageError, run_sync
from agentloop._runtime import lifecycle
from agentloop.errors import ModelConnectionError
from agentloop.events import ChildStreamStarted, StreamStarted, ToolCallStarted
from agentloop.limits import Retries
from agentloop.testing import FunctionModel, ScriptedModel, calls, fails, override_agents, says
from tests.support import first, of, watch

AGENT = Agent("openai:gpt-5", name="held")
"""What a module of somebody's holds: there is no key for its model, and no network."""


def saying(text: str) -> FunctionModel:
    return FunctionModel(lambda request: text, name=f"saying {text}")


def own(text: str = "own", name: str = "agent") -> Agent:
    return Agent(saying(text), name=name)


async def answer(agent: Agent) -> str:
    return str((await agent.run("Hi")).output)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


async def test_within_the_block_the_agent_runs_with_the_other_model() -> None:
    with AGENT.override(model=saying("other")):
        assert await answer(AGENT) == "other"


async def test_after_the_block_the_agent_has_its_own_model_again() -> None:
    agent = own()
    with pytest.raises(KeyError), agent.override(model=saying("other")):
        raise KeyError

    assert await answer(agent) == "own"


async def test_a_stream_tells_the_model_that_it_runs_with() -> None:
    with AGENT.override(model=saying("other")):
        watched = await watch(AGENT)

    assert [event.model for event in of(watched.events, StreamStarted)] == ["saying other"]
    assert AGENT.model == "openai:gpt-5"


def test_run_sync_runs_with_the_other_model() -> None:
    with AGENT.override(model=saying("other")):
        assert run_sync(AGENT, "Hi").output == "other"


async def test_another_agent_is_not_meant_and_neither_is_a_copy() -> None:
    agent = own("own")
    with agent.override(model=saying("other")):
        assert await answer(own("second")) == "second"
        assert await answer(agent.replace(instructions="Be brief.")) == "own"


async def test_the_innermost_override_counts() -> None:
    with AGENT.override(model=saying("outer")):
        with AGENT.override(model=saying("inner")):
            assert await answer(AGENT) == "inner"
        assert await answer(AGENT) == "outer"


@pytest.mark.parametrize("first_out", [0, 1])
async def test_overrides_end_in_any_order(first_out: int) -> None:
    agent = own()
    both = [agent.override(model=saying(text)) for text in ("outer", "inner")]
    for override in both:
        override.__enter__()

    both[first_out].__exit__(None, None, None)
    left = await answer(agent)
    both[1 - first_out].__exit__(None, None, None)

    assert left == ["inner", "outer"][first_out]
    assert await answer(agent) == "own"


async def test_tasks_with_different_overrides_do_not_disturb_each_other() -> None:
    heard: dict[str, str] = {}
    both = {"one": trio.Event(), "two": trio.Event()}

    async def task(name: str, other: str) -> None:
        with AGENT.override(model=saying(name)):
            both[name].set()
            await both[other].wait()
            heard[name] = await answer(AGENT)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task, "one", "two")
        nursery.start_soon(task, "two", "one")

    assert heard == {"one": "one", "two": "two"}


async def test_an_override_reaches_the_tasks_that_are_started_inside_and_no_others() -> None:
    heard: list[str] = []
    agent = own()
    go = trio.Event()

    async def task() -> None:
        await go.wait()
        heard.append(await answer(agent))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        await trio.testing.wait_all_tasks_blocked()
        with agent.override(model=saying("other")):
            nursery.start_soon(task)
            go.set()
            await trio.testing.wait_all_tasks_blocked()

    assert sorted(heard) == ["other", "own"]


async def test_a_child_that_is_a_tool_runs_with_its_override() -> None:
    boss = Agent(ScriptedModel(calls("held", prompt="go"), "Done."), tools=[AGENT.as_tool()])
    with AGENT.override(model=saying("other")):
        watched = await watch(boss)

    assert [event.model for event in of(watched.events, ChildStreamStarted)] == ["saying other"]


async def test_a_child_that_a_tool_opens_runs_with_the_override_of_the_tool() -> None:
    async def delegate(context: ToolContext[None]) -> str:
        with AGENT.override(model=saying("from inside")):
            return str((await context.run(AGENT, "go")).output)

    boss = Agent(ScriptedModel(calls("delegate"), "Done."), tools=[delegate])

    with AGENT.override(model=saying("from outside")):
        watched = await watch(boss)

    assert [event.model for event in of(watched.events, ChildStreamStarted)] == ["saying from inside"]


@pytest.mark.real_clock
async def test_a_child_that_a_sync_tool_opens_runs_with_the_override() -> None:
    def delegate(context: ToolContext[None]) -> str:
        return str(trio.from_thread.run(context.run, AGENT, "go").output)

    boss = Agent(ScriptedModel(calls("delegate"), "Done."), tools=[delegate])

    with AGENT.override(model=saying("other")):
        watched = await watch(boss)

    assert [event.model for event in of(watched.events, ChildStreamStarted)] == ["saying other"]


async def test_an_override_that_is_entered_while_a_stream_is_read_does_not_reach_into_it() -> None:
    child = own("own", name="child")
    go = trio.Event()

    async def delegate(context: ToolContext[None]) -> str:
        await go.wait()
        return str((await context.run(child, "go")).output)

    boss = Agent(ScriptedModel(calls("delegate"), "Done."), tools=[delegate])
    async with boss.stream("go") as stream:
        await first(stream, ToolCallStarted)
        with child.override(model=saying("other")), boss.override(model=saying("other")):
            go.set()
            started = await first(stream, ChildStreamStarted)
        await stream.wait()

    assert started.model == "saying own"
    assert stream.result.output == "Done."


async def test_a_stream_keeps_the_override_that_it_was_opened_with() -> None:
    agent = own()
    with agent.override(model=saying("other")):
        opening = agent.stream("Hi")
    async with opening as stream:
        outcome = await stream.wait()

    assert outcome.output == "other"


async def test_a_model_that_is_named_is_looked_up_when_the_agent_is_opened() -> None:
    with own().override(model="nobody:nothing"):
        pass
    agent = own()
    with agent.override(model="nobody:nothing"), pytest.raises(UsageError, match="there is no provider 'nobody'"):
        await agent.run("Hi")


def test_what_is_no_model_is_refused_where_it_is_given() -> None:
    with pytest.raises(UsageError, match="a model is a 'provider:model' name or an object"):
        AGENT.override(model=object())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a model is a 'provider:model' name or an object"):
        override_agents({"held": object()})  # type: ignore[dict-item]


async def test_an_override_is_no_decorator_which_would_do_nothing_for_an_async_function() -> None:
    with pytest.raises(TypeError):
        AGENT.override(model=saying("other"))(answer)  # type: ignore[operator]


async def test_all_agents_can_be_overridden_at_once() -> None:
    boss = Agent("openai:gpt-5", name="boss", tools=[AGENT.as_tool()])
    model = ScriptedModel(calls("held", prompt="go"), "From the child.", "From the boss.")
    with override_agents(model):
        assert await answer(boss.replace(instructions="Be brief.")) == "From the boss."

    model.assert_complete()


async def test_agents_can_be_overridden_by_their_names() -> None:
    boss = Agent("openai:gpt-5", name="boss", tools=[AGENT.as_tool()])
    with override_agents({"boss": ScriptedModel(calls("held", prompt="go"), "Done."), "held": saying("other")}):
        watched = await watch(boss)
        assert await answer(own("own")) == "own"

    assert [event.model for event in of(watched.events, ChildStreamStarted)] == ["saying other"]


async def test_an_override_can_hold_everywhere() -> None:
    """Also for a task that was started before, as that of a test runner may be."""
    heard: list[str] = []
    agent = own()
    go = trio.Event()

    async def task() -> None:
        await go.wait()
        heard.append(await answer(agent))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        await trio.testing.wait_all_tasks_blocked()
        with override_agents(ScriptedModel(says("other")), everywhere=True):
            go.set()
            await trio.testing.wait_all_tasks_blocked()

    assert heard == ["other"]
    assert lifecycle._everywhere == []


async def test_an_override_takes_the_place_of_the_fallbacks_too() -> None:
    failing = ScriptedModel(fails(ModelConnectionError("down")), name="failing")
    fallback = saying("fallback")
    agent = Agent("openai:gpt-5", fallbacks=[fallback], retries=Retries(attempts=1))

    with agent.override(model=failing), pytest.raises(ModelConnectionError, match="down"):
        await agent.run("Hi")


async def test_an_override_of_the_task_goes_before_one_that_holds_everywhere() -> None:
    """A fixture overrides everywhere, and a test what it is about."""
    with override_agents(saying("everywhere"), everywhere=True), AGENT.override(model=saying("here")):
        assert await answer(AGENT) == "here"
        assert await answer(own()) == "everywhere"
