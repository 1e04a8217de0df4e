"""A request that fails is made again, or goes to another model; what it said counts for nothing, and that is told."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from agentloop import Agent, Deadlines, Limits, Price, Retries, UsageError, run_sync, tool
from agentloop.errors import (
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelProtocolError,
    ModelRateLimitError,
    ModelStatusError,
    ModelTimeoutError,
)
from agentloop.events import (
    ContinueRequested,
    ErrorInfo,
    MessageCommitted,
    Question,
    ResponseDiscarded,
    TextDelta,
    ToolCallStarted,
    TurnStarted,
    UsageReported,
    WarningIssued,
)
from agentloop.messages import AssistantMessage, Text
from agentloop.models import Model, ModelRequest, Reply, Stop
from agentloop.questions import Approve, Deny
from agentloop.testing import Response, ScriptedModel, calls, fails, hangs, says
from tests.runtime.builders import answering
from tests.support import first, nested, of, opened, watch

DROPPED = ModelConnectionError("the connection dropped")
OVERLOADED = ModelStatusError(model="scripted", status=529, body="overloaded")
NO_KEY = ModelAuthenticationError(model="first", status=401, body="no such key")


def limited(retry_after: float | None = None) -> ModelRateLimitError:
    return ModelRateLimitError(model="first", status=429, body="slower", retry_after=retry_after)


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_request_that_fails_is_made_again(depth: int) -> None:
    model = ScriptedModel(says("The ans") + fails(DROPPED), says("The answer"))

    watched = await watch(nested(Agent(model, name="inner"), depth))

    assert watched.outcome.reason == "completed"
    assert len(model.requests) == 2
    assert model.requests[0] == model.requests[1]
    [discarded] = of(watched.events, ResponseDiscarded, depth=depth)
    assert discarded.error == ErrorInfo("ModelConnectionError", "the connection dropped")
    assert (discarded.model, discarded.next_model) == ("scripted", "scripted")
    assert 0.375 <= discarded.delay <= 0.5
    assert trio.current_time() == pytest.approx(discarded.delay)


async def test_a_response_is_never_put_together_from_two() -> None:
    model = ScriptedModel(
        says("Forget ") + calls("work", n=1) + fails(DROPPED), says("Remember ") + calls("work", n=2), "Done."
    )
    worked: list[int] = []

    @tool
    async def work(n: int) -> str:
        worked.append(n)
        return "ok"

    watched = await watch(Agent(model, tools=[work]))

    assert worked == [2]
    assert [event.arguments for event in of(watched.events, ToolCallStarted)] == ['{"n":2}']
    said = [message.text for message in watched.messages if isinstance(message, AssistantMessage)]
    assert said == ["Remember ", "Done."]
    # All that was told before it, and nothing that is told after it, is what is discarded.
    kinds = [type(event) for event in watched.events]
    at = kinds.index(ResponseDiscarded)
    assert [event.text for event in of(watched.events[:at], TextDelta)] == ["Forget "]
    assert next(event.text for event in of(watched.events[at:], TextDelta)) == "Remember "


async def test_a_tool_is_not_run_again_when_the_next_request_fails() -> None:
    runs: list[str] = []

    @tool
    async def charge() -> str:
        runs.append("charged")
        return "ok"

    model = ScriptedModel(calls("charge"), fails(DROPPED), fails(OVERLOADED), "Done.")

    assert (await watch(Agent(model, tools=[charge]))).outcome.output == "Done."
    assert runs == ["charged"]


async def test_after_so_many_attempts_the_last_failure_is_the_runs() -> None:
    model = ScriptedModel(fails(OVERLOADED), fails(DROPPED), says("I was abou") + fails(ModelProtocolError("no JSON")))

    watched = await watch(Agent(model, retries=Retries(attempts=3)))

    assert isinstance(watched.error, ModelProtocolError)
    assert watched.error.__notes__ == [
        "Before that: ModelStatusError: model 'scripted': HTTP status 529: overloaded",
        "Before that: ModelConnectionError: the connection dropped",
    ]
    # What the last one said is kept as far as it was seen.
    assert watched.messages[-1] == AssistantMessage((Text("I was abou"),), "interrupted", "scripted")
    assert len(of(watched.events, ResponseDiscarded)) == 2


@pytest.mark.parametrize(
    "response",
    [fails(ModelConnectionError("gone")), fails(ModelProtocolError("no JSON")), fails(ValueError("a bug")), calls("")],
    ids=["connection", "protocol", "bug", "assembly"],
)
async def test_every_failure_says_which_model_it_was(response: Response) -> None:
    watched = await watch(Agent(ScriptedModel(response, name="m"), retries=Retries(attempts=1)))

    assert isinstance(watched.error, ModelError)
    assert watched.error.model == "m"


async def test_one_attempt_is_one_request() -> None:
    model = ScriptedModel(fails(DROPPED), "never")

    watched = await watch(Agent(model, retries=Retries(attempts=1)))

    assert watched.error is DROPPED
    assert of(watched.events, ResponseDiscarded) == []


async def test_what_would_fail_again_is_not_asked_again() -> None:
    model = ScriptedModel(fails(NO_KEY), "never")

    assert (await watch(Agent(model))).error is NO_KEY
    assert len(model.requests) == 1


async def test_the_time_that_the_server_asks_for_is_waited() -> None:
    await watch(Agent(ScriptedModel(fails(limited(7)), "Done.")))

    assert trio.current_time() == 7


async def test_a_silent_model_is_asked_again() -> None:
    model = ScriptedModel(says("Well, ") + hangs(), "Done.")

    watched = await watch(Agent(model, deadlines=Deadlines(idle=1)))

    assert watched.outcome.output == "Done."
    [discarded] = of(watched.events, ResponseDiscarded)
    assert discarded.error.type == ModelTimeoutError.__name__


async def test_a_stream_that_is_stopped_while_it_waits_for_another_try_makes_none() -> None:
    model = ScriptedModel(says("The ans") + fails(DROPPED), "never")

    async with opened(Agent(model)) as stream:
        await first(stream, ResponseDiscarded)
        stream.stop()
        outcome = await stream.wait()

    assert outcome.reason == "cancelled"
    assert len(model.requests) == 1
    # What was discarded is not brought back as if it had been interrupted.
    assert [type(message).__name__ for message in outcome.messages] == ["UserMessage"]


async def test_a_model_that_turns_a_cancellation_into_a_failure_is_not_asked_again() -> None:
    class Sulking:
        name = "sulking"
        asked = 0

        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            self.asked += 1
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                raise OSError("so there") from None  # noqa: ASYNC104 - as bad code does

    model = Sulking()
    async with opened(Agent(model)) as stream:
        await first(stream, TurnStarted)
        stream.stop()
        told = [event async for event in stream]

    assert model.asked == 1
    assert of(told, ResponseDiscarded) == []


async def test_each_request_has_all_of_its_deadline() -> None:
    class Slow(ScriptedModel):
        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            await trio.sleep(4)
            return await super().respond(request, reply)

    watched = await watch(Agent(Slow(fails(DROPPED), "Done."), deadlines=Deadlines(first_token=5)))

    assert watched.outcome.output == "Done."


# ----------------------------------------------------------------------------- fallbacks


def named(name: str, *script: Any) -> ScriptedModel:
    return ScriptedModel(*script, name=name)


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_where_a_model_fails_for_good_the_next_one_is_asked(depth: int) -> None:
    one, two = named("one", says("I am") + fails(NO_KEY)), named("two", "I am two.")

    watched = await watch(nested(Agent(one, fallbacks=[two], name="inner"), depth))

    assert watched.outcome.reason == "completed"
    [discarded] = of(watched.events, ResponseDiscarded, depth=depth)
    assert (discarded.model, discarded.next_model, discarded.delay) == ("one", "two", 0.0)
    [committed] = [
        event.message
        for event in of(watched.events, MessageCommitted, depth=depth)
        if isinstance(event.message, AssistantMessage) and not event.message.calls
    ][-1:]
    assert committed.text == "I am two."
    assert committed.model == "two" or depth


async def test_a_transient_failure_is_tried_again_before_the_next_model() -> None:
    one, two = named("one", fails(DROPPED), "One."), named("two", "never")

    assert (await watch(Agent(one, fallbacks=[two]))).outcome.output == "One."


@pytest.mark.seconds(100)
async def test_a_model_that_had_to_be_replaced_is_left_alone_for_a_while() -> None:
    one, two = named("one", fails(limited()), "never"), named("two", calls("wait"), "Two.")

    @tool
    async def wait() -> None:
        await trio.sleep(50)

    watched = await watch(Agent(one, fallbacks=[two], tools=[wait]))

    assert watched.outcome.output == "Two."
    assert (len(one.requests), len(two.requests)) == (1, 2)


@pytest.mark.seconds(100)
async def test_it_is_asked_again_when_it_has_cooled_down() -> None:
    one, two = named("one", fails(limited()), "One."), named("two", calls("wait"))

    @tool
    async def wait() -> None:
        await trio.sleep(70)

    watched = await watch(Agent(one, fallbacks=[two], tools=[wait]))

    assert watched.outcome.output == "One."


async def test_children_leave_it_alone_too() -> None:
    one = named("one", fails(limited()), "never")
    inner = Agent(one, name="inner", fallbacks=[named("three", "Three.")])
    outer = Agent(one, fallbacks=[named("two", calls("inner", prompt="go"), "Two.")], tools=[inner.as_tool()])

    assert (await watch(outer)).outcome.output == "Two."
    assert len(one.requests) == 1


async def test_a_cooldown_lasts_from_one_prompt_to_the_next_and_for_other_agents_with_the_model() -> None:
    one, two = named("one", fails(limited()), "One."), ScriptedModel("Two.", name="two", repeat=True)
    agent = Agent(one, fallbacks=[two])
    other = Agent(one, fallbacks=[named("three", "Three.")])

    assert [(await agent.run("go")).output for _ in range(2)] == ["Two.", "Two."]
    assert (await other.run("go")).output == "Three."
    # An agent without another model asks it all the same.
    assert (await Agent(one).run("go")).output == "One."


@pytest.mark.seconds(100)
async def test_another_model_of_the_same_name_is_not_left_alone() -> None:
    busy, healthy = named("one", fails(limited()), "never"), named("one", calls("inner", prompt="go"), "Two.")
    inner_model = named("one", "Inner.")
    inner = Agent(inner_model, name="inner", fallbacks=[named("three", "never")])

    watched = await watch(Agent(busy, fallbacks=[healthy], tools=[inner.as_tool()]))

    assert watched.outcome.output == "Two."
    assert [len(model.requests) for model in (busy, healthy, inner_model)] == [1, 2, 1]


class AtAPlace(ScriptedModel):
    """A model with an identity, as those behind a network have."""

    def __init__(self, *script: Any, place: Any) -> None:
        super().__init__(*script, name="one")
        self.identity = place


@pytest.mark.parametrize(("place", "output"), [("here", "Two."), ("there", "One."), (["no", "hash"], "One.")])
async def test_two_objects_with_one_name_and_place_share_their_cooldown(place: Any, output: str) -> None:
    first = Agent(AtAPlace(fails(limited()), place="here"), fallbacks=[named("two", "Two.")])
    second = Agent(AtAPlace("One.", place=place), fallbacks=[named("two", "Two.")])

    assert (await first.run("go")).output == "Two."
    assert (await second.run("go")).output == output


async def test_an_opened_model_and_its_original_share_their_cooldown() -> None:
    class Opened(ScriptedModel):
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[Model]:
            yield named("one", fails(limited()))

    one, two = Opened(name="one"), ScriptedModel("Two.", name="two", repeat=True)
    agent = Agent(one, fallbacks=[two])

    assert [(await agent.run("go")).output for _ in range(2)] == ["Two.", "Two."]


@pytest.mark.real_clock
def test_a_cooldown_lasts_from_one_trio_run_to_the_next() -> None:
    one, two = named("one", fails(limited()), "never"), ScriptedModel("Two.", name="two", repeat=True)
    agent = Agent(one, fallbacks=[two])

    assert [run_sync(agent, "go").output for _ in range(2)] == ["Two.", "Two."]
    assert len(one.requests) == 1


async def test_a_fallback_that_cannot_be_opened_is_a_warning_as_long_as_another_can() -> None:
    class Broken(ScriptedModel):
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[Model]:
            if self.name:
                raise OSError("no room")
            yield self

    for models in ([Broken(name="broken"), named("two", "Hello.")], [named("two", "Hello."), Broken(name="broken")]):
        watched = await watch(Agent(models[0], fallbacks=models[1:]))
        assert watched.outcome.output == "Hello."
        [warning] = of(watched.events, WarningIssued)
        assert warning.message == "opening model 'broken' failed: OSError: no room"

    watched = await watch(Agent(Broken(name="one"), fallbacks=[Broken(name="two")]))
    assert str(watched.error) == "opening model 'two' failed: OSError: no room"


def test_a_fallback_that_is_no_model_is_refused() -> None:
    with pytest.raises(UsageError, match="a model is a 'provider:model' name or an object"):
        Agent(ScriptedModel(), fallbacks=[7])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="fallbacks= takes a list, not 'openai:gpt-5'"):
        Agent(ScriptedModel(), fallbacks="openai:gpt-5")


# -------------------------------------------------------------------------------- limits


async def test_each_try_counts_as_a_request_and_not_as_a_turn() -> None:
    model = ScriptedModel(calls("ping"), fails(DROPPED), "Done.")

    @tool
    async def ping() -> None: ...

    watched = await watch(Agent(model, tools=[ping], limits=Limits(turns=2)))

    assert watched.outcome.reason == "completed"
    assert watched.stream._run.meter.requests == 3


async def test_a_limit_of_requests_is_not_passed_by_trying_again() -> None:
    model = ScriptedModel(fails(DROPPED), "never")

    watched = await watch(Agent(model, limits=Limits(requests=1)))

    assert watched.error is DROPPED
    assert len(model.requests) == 1


# --------------------------------------------------------------------------------- costs

PRICES = {"scripted": Price(1_000_000, 2_000_000)}
"""A response of 10 tokens in and 5 out costs 20."""


async def test_each_turn_says_what_it_cost() -> None:
    @tool
    async def ping() -> None: ...

    watched = await watch(Agent(ScriptedModel(calls("ping"), "Done."), tools=[ping], prices=PRICES))

    assert [(event.usage.cost, event.total.cost) for event in of(watched.events, UsageReported)] == [(20, 20), (20, 40)]
    assert watched.outcome.usage.cost == 40


async def test_a_child_costs_its_parent_by_the_parents_prices_unless_it_has_its_own() -> None:
    cheap = Agent(named("cheap", "Hi."), name="inner", prices={"cheap": Price(0, 0)})
    for inner, cost in ((cheap, 40), (Agent(ScriptedModel("Hi."), name="inner"), 60)):
        outer = Agent(ScriptedModel(calls("inner", prompt="x"), "Done."), tools=[inner.as_tool()], prices=PRICES)
        assert (await watch(outer)).outcome.usage.cost == cost


async def test_the_name_that_a_model_gives_itself_finds_its_price_too() -> None:
    class Dated(ScriptedModel):
        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            stop = await super().respond(request, reply)
            return Stop(stop.reason, stop.usage, "gpt-5-2026-01-01")

    watched = await watch(Agent(Dated("Hi."), prices={"gpt-5-2026-01-01": Price(1_000_000, 0)}))

    assert watched.outcome.usage.cost == 10


@pytest.mark.parametrize(("answer", "reason"), [(Approve(), "completed"), (Deny(), "limit")])
async def test_a_limit_on_cost_is_a_question(answer: Any, reason: str) -> None:
    @tool
    async def ping() -> None: ...

    agent = Agent(ScriptedModel(calls("ping"), "Done."), tools=[ping], prices=PRICES, limits=Limits(cost=20))

    watched = await watch(agent, on_event=answering(answer))

    assert watched.outcome.reason == reason
    [asked] = of(watched.events, ContinueRequested)
    assert (asked.limit, asked.used, asked.allowed) == ("cost", 20, 20)


async def test_without_an_answerer_a_limit_on_cost_ends_the_run() -> None:
    @tool
    async def ping() -> None: ...

    inner = Agent(ScriptedModel(calls("ping"), "never"), name="inner", tools=[ping])
    outer = Agent(
        ScriptedModel(calls("inner", prompt="x"), "never"),
        tools=[inner.as_tool()],
        prices=PRICES,
        limits=Limits(cost=30),
    )

    watched = await watch(outer, on_question="decline")

    assert (watched.outcome.reason, watched.outcome.detail) == ("limit", "cost: 40 of 30 used")


async def test_a_limit_on_cost_lets_no_model_be_asked_whose_price_is_not_known() -> None:
    model = ScriptedModel("Done.")
    watched = await watch(Agent(model, limits=Limits(cost=1)), on_question="decline")

    assert watched.outcome.reason == "limit"
    assert "the price of model 'scripted' is not known: give it in prices=" in watched.outcome.detail
    assert model.requests == []


async def test_a_person_may_let_a_model_be_asked_whose_price_is_not_known() -> None:
    @tool
    async def ping() -> None: ...

    agent = Agent(ScriptedModel(calls("ping"), "Done."), tools=[ping], limits=Limits(cost=1))
    asked: list[ContinueRequested] = []

    def let(question: Question) -> Approve:
        assert isinstance(question, ContinueRequested)
        asked.append(question)
        return Approve()

    watched = await watch(agent, on_question=let)

    assert watched.outcome.output == "Done."
    assert [(question.limit, question.unpriced) for question in asked] == [("cost", "scripted")]
    assert [warning.code for warning in of(watched.events, WarningIssued)] == ["unpriced"]


async def test_a_response_by_a_name_that_no_table_has_ends_a_run_with_a_limit_on_cost() -> None:
    @tool
    async def ping() -> None: ...

    # The table may have the name that the provider reports, so the first request goes out.
    model = ScriptedModel(calls("ping"), "Done.")
    agent = Agent(model, tools=[ping], limits=Limits(cost=1), prices={"other": Price(1, 1)})

    watched = await watch(agent, on_question="decline")

    assert (watched.outcome.reason, len(model.requests)) == ("limit", 1)


def test_a_table_of_prices_maps_names_to_prices() -> None:
    with pytest.raises(UsageError, match="prices= maps names of models to Price"):
        Agent(ScriptedModel(), prices={"gpt-5": 1.25})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="prices= takes a table"):
        Agent(ScriptedModel(), prices=[Price(1, 2)])  # type: ignore[arg-type]
