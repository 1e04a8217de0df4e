"""A `before_llm_call` hook may change the tools, the settings, the instructions and the model of a request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from agentloop import Agent, Limits, ModelSettings, Price, ToolContext, hooks, tool
from agentloop.errors import BlockedError, ModelAuthenticationError, ModelNotFoundError
from agentloop.events import ResponseDiscarded, UsageReported
from agentloop.hooks import BeforeLLMCall, Hook, ReplaceRequest
from agentloop.messages import user_message
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.testing import ScriptedModel, calls, fails
from tests.runtime.builders import results
from tests.support import of, watch


@tool
async def look() -> str:
    """Look."""
    return "blue"


@tool
async def act() -> str:
    """Act."""
    return "acted"


def replacing(function: Callable[[BeforeLLMCall], ReplaceRequest | None]) -> Hook:
    return hooks.before_llm_call(function)


def names(request: ModelRequest) -> list[str]:
    return [spec.name for spec in request.tools]


async def test_a_hook_leaves_out_tools_and_reorders_them_for_one_request() -> None:
    model = ScriptedModel(calls("look"), calls("act"), "Done.")

    def of_turn(call: BeforeLLMCall) -> ReplaceRequest | None:
        if call.turn == 1:
            return ReplaceRequest(tools=["act", "look"])
        return ReplaceRequest(tools=[spec for spec in call.request.tools if spec.name == "look"])

    watched = await watch(Agent(model, tools=[look, act], hooks=[replacing(of_turn)]))

    assert [names(request) for request in model.requests] == [["act", "look"], ["look"], ["look"]]
    [looked, acted] = results(watched)
    assert looked.text == "blue"
    assert (acted.status, "act" in acted.text, "look" in acted.text) == ("error", True, True)


async def test_the_tools_of_a_turn_are_whole_again_when_no_hook_leaves_any_out() -> None:
    model = ScriptedModel("Hm.", calls("act"), "Done.")

    @hooks.stop
    def go_on(value: hooks.StopRequested) -> hooks.Continue | None:
        return hooks.Continue("Go on.") if value.continuations == 0 else None

    narrow = replacing(lambda call: ReplaceRequest(tools=[]) if call.turn == 1 else None)

    watched = await watch(Agent(model, tools=[act], hooks=[narrow, go_on]))

    assert [result.text for result in results(watched)] == ["acted"]


async def test_the_next_hook_sees_the_request_as_the_one_before_it_replaced_it() -> None:
    seen: list[BeforeLLMCall] = []
    model, other = ScriptedModel(), ScriptedModel("Hi.", name="other")
    settings = ModelSettings(temperature=0)
    first = replacing(
        lambda call: ReplaceRequest(instructions="Be kind.", settings=settings, tools=["act"], model=other)
    )

    def second(call: BeforeLLMCall) -> None:
        seen.append(call)

    await watch(Agent(model, tools=[look, act], hooks=[first, hooks.before_llm_call(second)]))

    [call] = seen
    assert (call.request.instructions, call.request.settings, names(call.request)) == ("Be kind.", settings, ["act"])
    assert call.model == "other"
    assert other.requests == [call.request]


async def test_settings_are_replaced_for_one_request() -> None:
    model = ScriptedModel(calls("look"), "Done.")

    def think(call: BeforeLLMCall) -> ReplaceRequest | None:
        if call.turn == 1:
            return None
        return ReplaceRequest(settings=msgspec.structs.replace(call.request.settings, max_tokens=7))

    settings = ModelSettings(temperature=0.5)
    await watch(Agent(model, tools=[look], hooks=[replacing(think)], settings=settings))

    assert [request.settings for request in model.requests] == [settings, ModelSettings(temperature=0.5, max_tokens=7)]


async def test_another_model_is_asked_for_one_request_with_its_price_its_limits_and_its_name() -> None:
    model = ScriptedModel("Done.", name="large")
    small = ScriptedModel(calls("look"), name="small")

    def cheap_at_first(call: BeforeLLMCall) -> ReplaceRequest | None:
        return ReplaceRequest(model=small) if call.turn == 1 else None

    prices = {"small": Price(1, 1), "large": Price(1_000_000, 1_000_000)}
    agent = Agent(model, tools=[look], hooks=[replacing(cheap_at_first)], prices=prices)

    watched = await watch(agent)

    assert (len(small.requests), len(model.requests)) == (1, 1)
    [cheap, dear] = of(watched.events, UsageReported)
    assert (cheap.model, dear.model) == ("small", "large")
    assert 0 < cheap.usage.cost < 1 < dear.usage.cost
    assert [message.model for message in watched.messages if hasattr(message, "model")] == ["small", "large"]


async def test_the_cost_of_a_model_that_a_hook_chose_counts_for_the_limit() -> None:
    dear = ScriptedModel("Hm.", name="dear")

    @hooks.stop
    def go_on(value: hooks.StopRequested) -> hooks.Continue:
        return hooks.Continue("Go on.")

    agent = Agent(
        ScriptedModel(),
        hooks=[replacing(lambda call: ReplaceRequest(model=dear)), go_on],
        prices={"dear": Price(10_000_000, 10_000_000)},
        limits=Limits(cost=5),
    )

    watched = await watch(agent, on_question="decline")

    assert (watched.outcome.reason, len(dear.requests)) == ("limit", 1)
    assert watched.outcome.usage.cost > 5


class Opened:
    """A model that counts how often it is opened."""

    def __init__(self, name: str, *answers: Any) -> None:
        self.name = name
        self.log: list[str] = []
        self.inner = ScriptedModel(*answers)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Opened]:
        self.log.append("open")
        try:
            yield self
        finally:
            self.log.append("close")

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        self.log.append("respond")
        return await self.inner.respond(request, reply)


async def test_a_chosen_model_is_open_while_it_responds() -> None:
    chosen = Opened("chosen", "Hi.")

    await watch(Agent(ScriptedModel(), hooks=[replacing(lambda call: ReplaceRequest(model=chosen))]))

    assert chosen.log == ["open", "respond", "close"]


async def test_one_of_the_models_of_the_run_is_chosen_by_its_name() -> None:
    fallback = Opened("fallback", "Hi.")
    agent = Agent(
        ScriptedModel(name="first"),
        fallbacks=[fallback],
        hooks=[replacing(lambda call: ReplaceRequest(model="fallback"))],
    )

    watched = await watch(agent)

    assert watched.outcome.output == "Hi."


async def test_the_fallbacks_are_asked_if_the_chosen_model_fails() -> None:
    chosen = ScriptedModel(fails(ModelAuthenticationError(model="chosen", status=401, body="no")), name="chosen")
    fallback = ScriptedModel("Hi.", name="fallback")
    agent = Agent(
        ScriptedModel(name="first"), fallbacks=[fallback], hooks=[replacing(lambda call: ReplaceRequest(model=chosen))]
    )

    watched = await watch(agent)

    assert watched.outcome.output == "Hi."
    [discarded] = of(watched.events, ResponseDiscarded)
    assert (discarded.model, discarded.next_model) == ("chosen", "fallback")


async def test_an_override_of_a_test_holds_for_the_model_that_a_hook_chooses() -> None:
    fake = ScriptedModel("Hi.", name="fake")
    agent = Agent(ScriptedModel(), hooks=[replacing(lambda call: ReplaceRequest(model="openai:gpt-5"))])

    with agent.override(model=fake):
        watched = await watch(agent)

    assert watched.outcome.output == "Hi."


async def test_a_name_of_no_model_ends_the_run_with_its_error() -> None:
    agent = Agent(ScriptedModel("Hi."), hooks=[replacing(lambda call: ReplaceRequest(model="nosuch:model"))])

    watched = await watch(agent)

    assert isinstance(watched.error, ModelNotFoundError)


async def test_the_model_is_chosen_for_a_request_of_a_tool_as_well() -> None:
    chosen = ScriptedModel("A joke.", name="chosen")

    @tool(name="joke")
    async def tells(context: ToolContext[None]) -> str:
        return (await context.ask_model(ModelRequest([user_message("A joke, please.")]))).text

    hook = replacing(lambda call: ReplaceRequest(model=chosen) if call.purpose == "tool" else None)

    watched = await watch(Agent(ScriptedModel(calls("joke"), "Done."), tools=[tells], hooks=[hook]))

    assert [result.text for result in results(watched)] == ["A joke."]


@pytest.mark.parametrize(
    ("verdict", "problem"),
    [
        (ReplaceRequest(tools=["shell"]), "`ReplaceRequest.tools` cannot add 'shell': the request has look, act"),
        (
            ReplaceRequest(tools=[msgspec.structs.replace(look.spec, description="Other.")]),
            "`ReplaceRequest.tools` cannot change 'look'",
        ),
        (ReplaceRequest(model=7), "`ReplaceRequest.model` is 7, where a model or its name is due"),  # type: ignore[arg-type]
        (ReplaceRequest(model=ScriptedModel), "where a model or its name is due"),  # type: ignore[arg-type]
        (ReplaceRequest(tools="look"), "`ReplaceRequest.tools` is 'look', where a tuple or None is due"),
    ],
    ids=["adds", "changes", "no model", "a class", "a text"],
)
async def test_a_request_that_cannot_be_replaced_so_is_refused_as_by_a_guard_that_failed(
    verdict: ReplaceRequest, problem: str
) -> None:
    agent = Agent(ScriptedModel("Hi."), tools=[look, act], hooks=[hooks.before_llm_call(lambda call: verdict)])

    with pytest.raises(BlockedError) as refused:
        await agent.run("go")

    assert problem in str(refused.value)
