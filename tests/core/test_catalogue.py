"""What is known of models by their names: windows, prices, efforts; and what follows from it for a run."""

from __future__ import annotations

import re
import sys
from datetime import UTC, date, datetime
from types import SimpleNamespace

import msgspec
import pytest

from agentloop import Agent, Compaction, Limits, Price, PriceTier, Session, UsageError
from agentloop._core.catalogue import known_model, models_of, nearest_effort
from agentloop._core.prices import cost_by_catalogue
from agentloop.errors import ModelContextOverflowError
from agentloop.events import CompactionFinished, UsageReported
from agentloop.messages import Usage
from agentloop.models import ReasoningEffort
from agentloop.providers import catalogue_date, model_info
from agentloop.providers._failures import failure
from agentloop.testing import Response, ScriptedModel, fails, says
from tests.support import of, watch

A_YEAR = 366


def test_the_catalogue_knows_windows_prices_and_abilities() -> None:
    opus = model_info("anthropic:claude-opus-5-5")
    assert opus is not None
    assert (opus.window, opus.max_output, opus.price) == (1_000_000, 128_000, Price(4.0, 20.0, 0.2, 5.0))
    assert {"tools", "images", "reasoning"} <= opus.abilities
    assert opus.efforts == ("low", "medium", "high", "xhigh", "max")


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("anthropic:claude-opus-5-5-20261001", "anthropic:claude-opus-5-5"),
        ("openai:gpt-5.5-2026-03-01", "openai:gpt-5.5"),
        ("openai-responses:gpt-5.5", "openai:gpt-5.5"),
    ],
)
def test_a_dated_name_and_another_api_stand_for_the_same_model(name: str, like: str) -> None:
    found, plain = known_model(name), known_model(like)
    assert found is not None
    assert plain is not None
    assert (found.window, found.price) == (plain.window, plain.price)


def test_models_of_ones_own_machine_cost_nothing_and_unknown_ones_are_unknown() -> None:
    local = model_info("ollama:qwen3:8b")
    assert local is not None
    assert (local.price, local.window) == (Price(0, 0), None)
    assert [model_info(name) for name in ("openai:no-such-model", "nobody:gpt-5", "scripted")] == [None] * 3
    routed = model_info("openrouter:anthropic/claude-opus-5.5")
    assert routed is not None
    assert (routed.window, routed.price) == (1_000_000, None)


@pytest.mark.nightly
def test_the_prices_are_those_of_another_list() -> None:
    genai_prices = pytest.importorskip("genai_prices")
    tokens = genai_prices.Usage(input_tokens=100_000, output_tokens=100_000)
    differ: list[str] = []
    compared = 0
    for provider, theirs in (("openai", "openai"), ("anthropic", "anthropic"), ("gemini", "google")):
        for model in models_of(provider):
            known = known_model(f"{provider}:{model}")
            assert known is not None
            assert known.price is not None
            try:
                total = float(genai_prices.calc_price(tokens, model, provider_id=theirs).total_price)
            except LookupError:
                continue
            compared += 1
            if total != pytest.approx((known.price.input + known.price.output) / 10, rel=0.01):
                differ.append(model)
    # Runs in other tests would count by it.
    del sys.modules["genai_prices"]
    assert compared > 100
    # The two are made on different days.
    assert len(differ) <= compared * 0.05, differ


def test_a_list_that_the_program_has_imported_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        __version__ = "9.9"

        @staticmethod
        def Usage(**tokens: int) -> dict[str, int]:  # noqa: N802
            return tokens

        @staticmethod
        def calc_price(tokens: dict[str, int], model: str, *, provider_id: str) -> SimpleNamespace:
            if (model, provider_id) != ("gemini-9", "google"):
                raise LookupError
            return SimpleNamespace(total_price=tokens["input_tokens"] * 2)

    monkeypatch.setitem(sys.modules, "genai_prices", Library)
    usage = cost_by_catalogue(Usage(input_tokens=5), "gemini:gemini-9", "gemini-9-001")
    assert usage is not None
    assert (usage.cost, usage.price_lists) == (10.0, ("genai-prices 9.9",))
    assert cost_by_catalogue(Usage(input_tokens=5), "gemini:gemini-10") is None


def test_the_catalogue_is_not_older_than_a_year() -> None:
    # `python -m tests.catalogue.make` makes it anew.
    assert (datetime.now(UTC).date() - date.fromisoformat(catalogue_date())).days < A_YEAR


@pytest.mark.parametrize(
    ("name", "wanted", "taken"),
    [
        ("openai:gpt-5.5", "max", "xhigh"),
        ("openai:gpt-5.5", "minimal", "low"),
        ("openai:gpt-5.5", "none", "none"),
        ("openai:gpt-5", "none", "minimal"),
        ("anthropic:claude-opus-5-5", "minimal", "low"),
        ("openai:unheard-of", "max", None),
    ],
)
def test_a_model_gets_the_nearest_effort_that_it_takes(
    name: str, wanted: ReasoningEffort, taken: ReasoningEffort | None
) -> None:
    assert nearest_effort(name, wanted) == taken


def test_a_long_request_has_the_price_of_its_tier() -> None:
    price = Price(1.0, 2.0, tiers=(PriceTier(100, 3.0, 4.0), PriceTier(200, 5.0, 6.0)))
    assert [price.of(tokens).input for tokens in (100, 101, 200, 201)] == [1.0, 3.0, 3.0, 5.0]
    for tiers in ((PriceTier(2, 1, 1), PriceTier(1, 1, 1)), ("cheap",)):
        with pytest.raises(UsageError, match="the lowest limit first"):
            Price(1.0, 2.0, tiers=tiers)  # type: ignore[arg-type]


def test_a_misspelt_model_that_its_server_does_not_have_is_answered_with_the_nearest() -> None:
    error = failure(model="anthropic:claude-opus-55", status=404, body="not found")
    assert re.search(r"did you mean 'anthropic:claude-opus-5-5'", str(error))


def answers(*responses: Response | str, name: str = "openai:gpt-5.5", usage: Usage | None = None) -> ScriptedModel:
    """A model whose name is in the catalogue, and which reports ``usage`` with each response."""
    made = [says(response) if isinstance(response, str) else response for response in responses]
    return ScriptedModel(*[msgspec.structs.replace(response, usage=usage or Usage()) for response in made], name=name)


async def test_a_run_of_a_known_model_costs_what_the_catalogue_says() -> None:
    usage = Usage(input_tokens=1000, output_tokens=100, cached_tokens=200)
    watched = await watch(Agent(answers("Hi.", usage=usage), limits=Limits(cost=1)))

    cost = watched.outcome.cost
    assert cost.amount == pytest.approx((800 * 5 + 200 * 0.5 + 100 * 30) / 1e6)
    assert (cost.currency, cost.price_lists, cost.is_known) == ("USD", (f"catalogue {catalogue_date()}",), True)
    assert str(cost) == "0.0071 USD"
    [report] = of(watched.events, UsageReported)
    assert report.usage == watched.outcome.usage


async def test_a_table_of_the_agent_comes_before_the_catalogue_and_another_currency_in_its_place() -> None:
    usage = Usage(input_tokens=1_000_000)
    euro = Agent(answers("Hi.", usage=usage), prices={"openai:gpt-5.5": Price(7, 7)}, currency="EUR")
    assert str((await euro.run("go")).cost) == "7 EUR"
    unknown = await Agent(answers("Hi.", usage=usage), currency="EUR").run("go")
    assert (unknown.usage.is_cost_known, str(unknown.cost)) == (False, "unknown")
    with pytest.raises(UsageError, match="three letters"):
        Agent(answers(), currency="euro")


async def test_a_long_session_of_a_known_model_is_compacted_without_a_number_from_the_user() -> None:
    known = known_model("openai:gpt-4")
    assert known is not None
    assert known.window == 8192
    model = ScriptedModel("One. " * 5000, "A short summary.", "Two.", name="openai:gpt-4")
    session, agent = Session(), Agent(model)
    await agent.run("first", session=session)

    watched = await watch(agent, "second", session=session)

    [finished] = of(watched.events, CompactionFinished)
    assert (finished.problem, watched.outcome.output) == ("", "Two.")


async def test_compaction_is_off_where_the_window_is_unknown_and_true_makes_room_after_a_refusal() -> None:
    refused = ModelContextOverflowError(model="scripted", status=400, body="too long")

    def model() -> ScriptedModel:
        return ScriptedModel("One. " * 300, "Two. " * 300, fails(refused), "A summary.", "Three.", name="scripted")

    async def reasons(compaction: Compaction | bool | None) -> list[str]:
        session, agent = Session(), Agent(model(), compaction=compaction)
        await agent.run("first", session=session)
        await agent.run("second", session=session)
        watched = await watch(agent, "third", session=session)
        return [watched.outcome.reason, *[event.problem for event in of(watched.events, CompactionFinished)]]

    assert await reasons(None) == ["failed"]
    assert await reasons(False) == ["failed"]
    assert await reasons(True) == ["completed", ""]
