"""A run may have a model and settings of its own: ``agent.run(..., model=, settings=)``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import trio

import agentloop.asyncio
from agentloop import Agent, Approve, ModelSettings, ToolContext, UsageError, run_sync, tool
from agentloop.events import StreamStarted
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls
from tests.support import of, watch

COLD = ModelSettings(temperature=0)


async def streamed(agent: Agent, **options: Any) -> object:
    async with agent.stream("go", **options) as stream:
        return (await stream.wait()).output


async def ran(agent: Agent, **options: Any) -> object:
    return (await agent.run("go", **options)).output


async def ran_in_asyncio(agent: Agent, **options: Any) -> object:
    return (await agentloop.asyncio.run(agent, "go", **options)).output


async def streamed_in_asyncio(agent: Agent, **options: Any) -> object:
    async with agentloop.asyncio.stream(agent, "go", **options) as stream:
        return (await stream.wait()).output


WAYS: list[Callable[..., object]] = [
    lambda agent, **options: trio.run(lambda: ran(agent, **options)),
    lambda agent, **options: trio.run(lambda: streamed(agent, **options)),
    lambda agent, **options: run_sync(agent, "go", **options).output,
    lambda agent, **options: asyncio.run(ran_in_asyncio(agent, **options)),
    lambda agent, **options: asyncio.run(streamed_in_asyncio(agent, **options)),
]


@pytest.mark.parametrize("way", WAYS, ids=["run", "stream", "run_sync", "asyncio run", "asyncio stream"])
def test_a_run_has_a_model_and_settings_of_its_own_and_the_agent_keeps_its(way: Callable[..., object]) -> None:
    model, other = ScriptedModel("own"), ScriptedModel("other", name="other")
    agent = Agent(model)

    assert way(agent, model=other, settings=COLD) == "other"
    assert way(agent) == "own"

    assert [request.settings for request in (*other.requests, *model.requests)] == [COLD, ModelSettings()]


async def test_the_first_event_and_the_messages_name_the_model_of_the_run() -> None:
    watched = await watch(Agent(ScriptedModel()), model=ScriptedModel("Hi.", name="other"))

    [started] = of(watched.events, StreamStarted)
    assert (started.model, watched.messages[-1].model) == ("other", "other")  # type: ignore[union-attr]


@pytest.mark.parametrize("is_read", [True, False], ids=["resume_stream", "resume"])
async def test_a_run_that_is_resumed_has_the_model_and_the_settings_that_resume_gets(is_read: bool) -> None:
    @tool(requires_approval=True)
    async def act() -> str:
        return "acted"

    first, second = ScriptedModel(calls("act"), name="first"), ScriptedModel("Done.", name="second")
    agent = Agent(ScriptedModel(), tools=[act])
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        parked = await agent.run("go", session=session, on_question="park", model=first)
        answers = {parked.questions[0].id: Approve()}
        if is_read:
            async with agent.resume_stream(session, answers, model=second, settings=COLD) as stream:
                outcome = await stream.wait()
        else:
            outcome = await agent.resume(session, answers, model=second, settings=COLD)

    assert outcome.output == "Done."
    assert [request.settings for request in second.requests] == [COLD]


def test_asyncio_resumes_with_a_model_as_well() -> None:
    @tool(requires_approval=True)
    async def act() -> str:
        return "acted"

    agent = Agent(ScriptedModel(calls("act")), tools=[act])

    async def main() -> None:
        async with (
            agentloop.asyncio.block(MemoryStore().open()) as store,
            agentloop.asyncio.block(stored_session(store, "s")) as session,
        ):
            for resumed in (agentloop.asyncio.resume, _resume_stream):
                parked = await agentloop.asyncio.run(
                    agent, "go", session=session, on_question="park", model=ScriptedModel(calls("act"))
                )
                answers = {parked.questions[0].id: Approve()}
                outcome = await resumed(agent, session, answers, model=ScriptedModel("Done."), settings=COLD)
                assert outcome.output == "Done."

    asyncio.run(main())


async def _resume_stream(agent: Agent, session: Any, answers: Any, **options: Any) -> Any:
    async with agentloop.asyncio.resume_stream(agent, session, answers, **options) as stream:
        return await stream.wait()


async def test_child_streams_keep_their_own_model_and_settings() -> None:
    inner_model = ScriptedModel("inner", "inner")
    inner = Agent(inner_model, name="inner")

    @tool
    async def ask(context: ToolContext[None]) -> str:
        return str((await context.run(inner, "go")).output)

    model = ScriptedModel(calls("ask") + calls("inner", prompt="go"), "Done.")
    agent = Agent(ScriptedModel(), tools=[ask, inner.as_tool()])

    await agent.run("go", model=model, settings=COLD)

    assert [request.settings for request in inner_model.requests] == [ModelSettings()] * 2
    assert [request.settings for request in model.requests] == [COLD] * 2


async def test_the_settings_that_are_set_replace_those_of_the_agent_and_extra_is_merged() -> None:
    model = ScriptedModel("Hi.")
    agent = Agent(model, settings=ModelSettings(temperature=1, max_tokens=9, stop=("x",), extra={"a": 1, "b": 1}))

    await agent.run("go", settings=ModelSettings(temperature=0, extra={"b": 2}))

    expected = ModelSettings(temperature=0, max_tokens=9, stop=("x",), extra={"a": 1, "b": 2})
    assert [request.settings for request in model.requests] == [expected]


async def test_the_fallbacks_stay_and_an_override_of_a_test_has_the_last_word() -> None:
    agent = Agent(ScriptedModel(), fallbacks=[ScriptedModel(name="fallback")])

    with agent.override(model=ScriptedModel("fake", "fake")):
        assert (await agent.run("go", model="openai:gpt-5")).output == "fake"
        assert (await agent.run("go")).output == "fake"


async def test_the_agent_is_the_same_with_another_model_and_may_not_run_inside_itself() -> None:
    @tool
    async def again(context: ToolContext[None]) -> str:
        return str((await context.run(agent, "go")).output)

    agent: Agent = Agent(ScriptedModel(), name="loop", tools=[again])

    outcome = await agent.run("go", model=ScriptedModel(calls("again"), "Done."))

    assert "agent 'loop' cannot be opened inside loop" in outcome.messages[2].text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"model": 7}, r"a model is a 'provider:model' name or an object with respond\(\), not 7"),
        ({"model": ScriptedModel}, "ScriptedModel is a class: give an instance of it"),
        ({"settings": {"temperature": 0}}, r"settings= takes ModelSettings\(\.\.\.\), not {'temperature': 0}"),
    ],
    ids=["number", "class", "dict"],
)
async def test_a_wrong_model_or_settings_of_a_run_are_refused(options: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        await Agent(ScriptedModel("Hi.")).run("go", **options)
