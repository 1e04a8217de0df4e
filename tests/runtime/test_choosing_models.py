"""The model of a turn, and how much it thinks: chosen for a run, a session, by a tool or by a rule."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop import Agent, Limits, Session, UsageError, hooks, tool
from agentloop.errors import ModelNotFoundError, ToolDefinitionError
from agentloop.events import UsageReported
from agentloop.hooks import BeforeLLMCall, ReplaceRequest
from agentloop.models import ModelChoice, ModelSettings
from agentloop.run_info import RunInfo, in_turn
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls, fails
from tests.support import of, watch


def scripted(name: str, *script: Any) -> ScriptedModel:
    model = ScriptedModel(*script)
    model.name = name
    return model


async def asked(agent: Agent[Any, Any], **options: Any) -> list[str]:
    """The names of the models that were asked, in order."""
    async with agent.stream("go", **options) as stream:
        events = [event async for event in stream]
    assert stream.outcome.reason == "completed", stream.outcome
    return [event.model for event in of(events, UsageReported)]


@tool(model="fast")
async def search(query: str = "") -> str:
    return "found"


@tool
async def look() -> str:
    return "seen"


async def test_the_turn_that_reads_the_result_of_a_tool_is_made_with_the_model_of_the_tool() -> None:
    fast = scripted("quick", calls("look"), calls("look"))
    slow = scripted("slow", calls("search"), "Done.")
    agent = Agent(slow, tools=[search, look], models={"fast": fast})

    assert await asked(agent) == ["slow", "quick", "slow"]


async def test_of_several_tools_the_last_one_that_names_a_model_counts() -> None:
    one, two = scripted("one", "Done."), scripted("two", "Done.")
    named = [tool(name=name, model=model)(look.function) for name, model in (("a", one), ("b", two))]
    agent = Agent(scripted("main", calls("a") + calls("b") + calls("look")), tools=[*named, look])

    assert await asked(agent) == ["main", "two"]


async def test_a_tool_may_name_how_much_the_model_thinks() -> None:
    thinks = tool(name="thinks", model=ModelChoice(reasoning_effort="high"))(look.function)
    model = scripted("main", calls("thinks"), "Done.")

    assert await asked(Agent(model, tools=[thinks])) == ["main", "main"]
    assert [request.settings.reasoning_effort for request in model.requests] == [None, "high"]


async def test_a_rule_chooses_the_model_of_each_turn() -> None:
    seen: list[tuple[int, str, int]] = []
    cheap, dear = scripted("cheap", "Done."), scripted("dear", calls("look"))

    def rule(info: RunInfo[Any]) -> ScriptedModel | None:
        seen.append((info.turn, info.model, len(info.messages)))
        return cheap if info.turn > 1 else None

    assert await asked(Agent(dear, tools=[look], choose_model=rule)) == ["dear", "cheap"]
    assert seen == [(1, "dear", 1), (2, "dear", 3)]


async def test_a_rule_that_fails_or_gives_no_model_fails_the_run() -> None:
    async def raises(info: RunInfo[Any]) -> str:
        raise ValueError("no")

    async def gives(info: RunInfo[Any]) -> Any:
        return 7

    for rule, words in ((raises, "choose_model of agent 'agent' failed"), (gives, "a model is a")):
        outcome = (await watch(Agent(ScriptedModel("Done."), choose_model=rule))).outcome
        assert isinstance(outcome.error, UsageError)
        assert words in str(outcome.error)


async def test_several_models_take_turns_over_the_runs_of_a_session() -> None:
    one, two = scripted("one", "A.", "C."), scripted("two", "B.")
    agent = Agent(scripted("main"), choose_model=in_turn(one, two))
    session = Session()

    names = [name for _ in range(3) for name in await asked(agent, session=session)]

    assert names == ["one", "two", "one"]
    with pytest.raises(UsageError, match="takes the models"):
        in_turn()


async def test_a_chosen_model_has_the_fallbacks_of_the_agent() -> None:
    broken, spare = scripted("broken", fails(OSError("gone"))), scripted("spare", "Done.")
    agent = Agent(scripted("main"), fallbacks=[spare], choose_model=in_turn(broken))

    watched = await watch(agent)

    assert watched.outcome.output == "Done."
    assert len(broken.requests) >= 1
    assert len(spare.requests) == 1


async def test_a_model_that_was_chosen_for_the_run_or_the_session_comes_before_tools_and_rules() -> None:
    other = scripted("other", "never")

    def script() -> ScriptedModel:
        return scripted("mine", calls("search"), "Done.")

    agent = Agent(scripted("main"), tools=[search], models={"fast": other}, choose_model=in_turn(other))
    session = Session()
    session.choice = ModelChoice(model=script())

    assert await asked(agent, session=session) == ["mine", "mine"]
    assert await asked(agent, model=script()) == ["mine", "mine"]
    assert other.requests == []


async def test_a_hook_has_the_last_word() -> None:
    last = scripted("last", "Done.")

    @hooks.before_llm_call
    def hook(call: BeforeLLMCall) -> ReplaceRequest:
        assert call.model == "ruled"
        return ReplaceRequest(model=last)

    agent = Agent(scripted("main"), choose_model=in_turn(scripted("ruled")), hooks=[hook])

    assert await asked(agent) == ["last"]


async def test_a_session_has_a_model_and_the_settings_of_a_run_come_before_it() -> None:
    mine = scripted("mine", "A.", "B.", "C.")
    session = Session()
    session.choice = ModelChoice(model="mine", reasoning_effort="low")
    agent = Agent(scripted("main", "D."), models={"mine": mine})

    await agent.run("go", session=session)
    await agent.run("go", session=session, settings=ModelSettings(reasoning_effort="max"))
    session.choice = None
    await agent.run("go", session=session)

    assert [request.settings.reasoning_effort for request in mine.requests] == ["low", "max"]


@pytest.mark.parametrize(
    ("model", "effort", "words"),
    [
        ("openai:gpt-4o", "high", "does not think before it answers"),
        ("openai:gpt-5", "max", "choose one of"),
    ],
)
async def test_a_level_that_a_model_does_not_have_is_refused_in_a_sentence(model: str, effort: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Session().choice = ModelChoice(model=model, reasoning_effort=effort)


async def test_the_level_of_a_session_is_held_against_the_agents_model() -> None:
    session = Session()
    session.choice = ModelChoice(reasoning_effort="high")
    with pytest.raises(UsageError, match="does not think"):
        await Agent(scripted("openai:gpt-4o", "Done.")).run("go", session=session)


async def test_a_tool_with_a_model_that_its_agent_does_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match="tool 'search' has the model 'fast'"):
        Agent(ScriptedModel(), tools=[search])
    with pytest.raises(ToolDefinitionError, match="give a model"):
        tool(model=7)(look.function)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(UsageError, match="models="):
        Agent(ScriptedModel(), models={"a:b": "openai:gpt-5"})


@pytest.mark.parametrize(("name", "hint"), [("fsat", "did you mean 'fast'?"), ("opus", "there are 'fast', 'deep'")])
async def test_a_model_that_is_no_name_of_the_agents_is_refused_with_the_names_that_there_are(
    name: str, hint: str
) -> None:
    agent = Agent(ScriptedModel(), models={"fast": ScriptedModel(), "deep": ScriptedModel()})
    session = Session()
    session.choice = ModelChoice(model=name)
    sentence = f"'{name}' is neither a name in Agent(models=...) nor 'provider:model': {hint}"
    with pytest.raises(ModelNotFoundError) as raised:
        await agent.run("go", model=name)
    assert str(raised.value) == sentence
    with pytest.raises(ModelNotFoundError) as raised:
        await agent.run("go", session=session)
    assert str(raised.value) == sentence


async def test_a_stored_session_keeps_its_model() -> None:
    async with MemoryStore().open() as store:
        mine = scripted("mine", "A.", "B.")
        agent = Agent(scripted("main", "never"), models={"mine": mine})
        async with stored_session(store, "s") as session:
            session.choice = ModelChoice(model="mine", reasoning_effort="low")
            await agent.run("go", session=session)
        async with stored_session(store, "s") as session:
            assert session.choice == ModelChoice(model="mine", reasoning_effort="low")
            await agent.run("go", session=session)
            await session.rewind(2)
        async with stored_session(store, "s") as session:
            assert session.choice == ModelChoice(model="mine", reasoning_effort="low")
            session.choice = None
        async with stored_session(store, "s") as session:
            assert session.choice is None
    assert len(mine.requests) == 2


async def test_a_model_without_a_price_is_not_asked_under_a_limit_on_cost() -> None:
    unpriced = scripted("nobody-knows", "Done.")
    agent = Agent(scripted("ollama:main"), choose_model=in_turn(unpriced), limits=Limits(cost=1))

    watched = await watch(agent, on_question="decline")

    assert watched.outcome.reason == "limit"
    assert unpriced.requests == []
