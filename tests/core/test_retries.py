"""What is done when a model has failed: the table, the delays, and who is asked next."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from agentloop._core.retries import Chain, Cooldowns, Next, remedy
from agentloop._core.usage import priced
from agentloop.errors import (
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextOverflowError,
    ModelError,
    ModelProtocolError,
    ModelQuotaError,
    ModelRateLimitError,
    ModelRefusalError,
    ModelResponseError,
    ModelStatusError,
    ModelTimeoutError,
    OutputError,
    ScriptError,
    UsageError,
)
from agentloop.limits import Price, Retries
from agentloop.messages import Usage
from agentloop.testing import ScriptedModel


def status(kind: type[ModelStatusError], number: int, **facts: Any) -> ModelStatusError:
    return kind(model="m", status=number, body="", **facts)


DROPPED = ModelConnectionError("dropped")


@pytest.mark.parametrize(
    ("error", "same", "other"),
    [
        (DROPPED, True, True),
        (ModelTimeoutError(model="m", waiting_for="its first token", seconds=1), True, True),
        (ModelProtocolError("no JSON"), True, True),
        (status(ModelStatusError, 500), True, True),
        (status(ModelStatusError, 503), True, True),
        (status(ModelStatusError, 529), True, True),
        (status(ModelStatusError, 408), True, True),
        (status(ModelRateLimitError, 429), True, True),
        (status(ModelStatusError, 424), True, True),
        (status(ModelStatusError, 499), True, True),
        (status(ModelStatusError, 525), True, True),
        (status(ModelStatusError, 501), False, True),
        (status(ModelResponseError, 400), True, True),
        (status(ModelStatusError, 400), False, True),
        (status(ModelStatusError, 404), False, True),
        (status(ModelAuthenticationError, 401), False, True),
        (status(ModelQuotaError, 429), False, True),
        # It has a status that passes, but for another reason.
        (status(ModelContextOverflowError, 500), False, True),
        (ModelError("a bug in the adapter"), False, True),
        (ModelRefusalError(model="m", text=""), False, False),
        (OutputError(model="m", attempts=3, problem="", text=""), False, False),
        (ScriptError("the script is at its end"), False, False),
        (ValueError("not ours"), False, False),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'status', '')}" if isinstance(value, Exception) else "",
)
def test_each_kind_of_failure_has_its_remedy(error: Exception, same: bool, other: bool) -> None:
    found = remedy(error)
    assert (found.same, found.other) == (same, other)


class ServedModel(ScriptedModel):
    """A model behind a server: another object with the same name is the same model."""

    identity = "a server"


def chain(*names: str, cooldowns: Cooldowns | None = None, seed: str = "a stream", **retries: Any) -> Chain:
    models = [ServedModel(name=name) for name in names]
    return Chain(models, Retries(**retries), cooldowns=Cooldowns() if cooldowns is None else cooldowns, seed=seed)


def test_a_model_is_asked_as_often_as_is_allowed() -> None:
    failed: dict[int, int] = {}
    one = chain("one", attempts=3)
    assert one.first(0) == 0
    found = [one.after_failure(0, DROPPED, 0, failed) for _ in range(3)]
    assert [each is not None for each in found] == [True, True, False]
    assert one.first(0) == 0
    assert one.after_failure(0, DROPPED, 0, {}) is not None


def test_delays_double_up_to_a_bound_and_differ_from_stream_to_stream() -> None:
    failed: dict[int, int] = {}
    delays: list[list[float]] = []
    for seed in ("a", "b"):
        models = chain("one", attempts=10, delay=1, max_delay=8, seed=seed)
        models.first(0)
        failed.clear()
        found = [models.after_failure(0, DROPPED, 0, failed) for _ in range(6)]
        delays.append([each.delay for each in found if each is not None])
    for each in delays:
        for delay, most in zip(each, [1, 2, 4, 8, 8, 8], strict=True):
            assert most * 0.75 <= delay <= most
    assert delays[0] != delays[1]


def test_retry_after_is_kept_to() -> None:
    failed: dict[int, int] = {}
    models = chain("one", attempts=9)
    models.first(0)
    found = models.after_failure(0, status(ModelRateLimitError, 429, retry_after=17.0), 0, failed)
    assert found == Next(0, 17.0)


def test_a_server_that_wants_to_be_left_alone_for_too_long_is_given_up() -> None:
    failed: dict[int, int] = {}
    models = chain("one", max_wait=60)
    models.first(0)
    assert models.after_failure(0, status(ModelRateLimitError, 429, retry_after=61.0), 0, failed) is None


def test_another_model_is_asked_after_the_last_attempt() -> None:
    failed: dict[int, int] = {}
    models = chain("one", "two", attempts=2)
    models.first(0)
    found = [models.after_failure(0, DROPPED, 0, failed) for _ in range(2)]
    assert [each and each.model for each in found] == [0, 1]
    assert found[1] == Next(1, 0.0)


def test_where_there_is_another_model_it_is_asked_before_a_limit_of_rate_is_waited_for() -> None:
    failed: dict[int, int] = {}
    models = chain("one", "two")
    models.first(0)
    assert models.after_failure(0, status(ModelRateLimitError, 429), 0, failed) == Next(1, 0.0)
    found = models.after_failure(1, status(ModelRateLimitError, 429), 0, failed)
    assert found is not None
    assert found.model == 1
    assert found.delay > 0


def test_what_is_final_is_not_passed_on() -> None:
    failed: dict[int, int] = {}
    models = chain("one", "two")
    models.first(0)
    assert models.after_failure(0, ModelRefusalError(model="one", text=""), 0, failed) is None


def test_a_model_that_was_replaced_is_left_alone_for_a_while() -> None:
    failed: dict[int, int] = {}
    cooldowns = Cooldowns()
    models = chain("one", "two", attempts=1, cooldown=60, cooldowns=cooldowns)
    models.first(0)
    models.after_failure(0, DROPPED, 10, failed)
    assert [models.first(now) for now in (11, 69, 70)] == [1, 1, 0]
    # By other runs, too.
    assert chain("one", "three", cooldowns=cooldowns).first(11) == 1


@pytest.mark.parametrize(
    "error", [status(ModelStatusError, 400), status(ModelContextOverflowError, 400), ModelError("a bug")]
)
def test_a_model_that_a_request_does_not_suit_is_left_alone_by_that_run_only(error: Exception) -> None:
    failed: dict[int, int] = {}
    cooldowns = Cooldowns()
    models = chain("one", "two", cooldown=60, cooldowns=cooldowns)
    models.first(0)
    models.after_failure(0, error, 10, failed)

    assert [models.first(now) for now in (11, 69, 70)] == [1, 1, 0]
    assert chain("one", "two", cooldowns=cooldowns).first(11) == 0


@pytest.mark.parametrize("error", [status(ModelAuthenticationError, 401), status(ModelQuotaError, 402)])
def test_a_key_or_an_account_that_is_refused_is_left_alone_by_other_runs_too(error: Exception) -> None:
    failed: dict[int, int] = {}
    cooldowns = Cooldowns()
    models = chain("one", "two", cooldowns=cooldowns)
    models.first(0)
    models.after_failure(0, error, 10, failed)

    assert chain("one", "two", cooldowns=cooldowns).first(11) == 1


def test_a_server_that_says_for_how_long_is_left_alone_for_as_long() -> None:
    failed: dict[int, int] = {}
    models = chain("one", "two", cooldown=60)
    models.first(0)
    models.after_failure(0, status(ModelRateLimitError, 429, retry_after=300.0), 0, failed)
    assert [models.first(now) for now in (299, 300)] == [1, 0]


def test_where_all_are_left_alone_the_first_is_asked() -> None:
    cooldowns = Cooldowns()
    cooldowns.begin(ServedModel(name="one"), 100, 0)
    cooldowns.begin(ServedModel(name="two"), 50, 0)
    assert chain("one", "two", cooldowns=cooldowns).first(10) == 0


def test_a_model_without_an_identity_is_left_alone_as_the_object_that_it_is() -> None:
    cooldowns = Cooldowns()
    model = ScriptedModel(name="one")
    cooldowns.begin(model, 100, 0)
    assert cooldowns.end(model) == 100
    assert cooldowns.end(ScriptedModel(name="one")) == -math.inf


def test_a_shorter_cooldown_does_not_shorten_a_longer_one_and_one_that_is_over_is_forgotten() -> None:
    cooldowns = Cooldowns()
    one, two = ScriptedModel(name="one"), ScriptedModel(name="two")
    cooldowns.begin(one, 100, 0)
    cooldowns.begin(one, 50, 10)
    assert cooldowns.end(one) == 100
    cooldowns.begin(two, 200, 100)
    assert cooldowns.end(one) == -math.inf


@given(st.lists(st.sampled_from([DROPPED, status(ModelRateLimitError, 429), ModelError("x")]), max_size=40))
def test_it_ends_and_no_model_is_asked_too_often(errors: list[Exception]) -> None:
    failed: dict[int, int] = {}
    models = chain("one", "two", "three", attempts=3)
    at = models.first(0)
    asked = [at]
    for error in errors:
        following = models.after_failure(at, error, 0, failed)
        if following is None:
            break
        assert following.delay >= 0
        at = following.model
        asked.append(at)
    assert len(asked) <= 9
    assert all(asked.count(model) <= 3 for model in range(3))
    # Never back to a model that was given up.
    assert asked == sorted(asked)


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"delay": -1}, {"max_wait": float("nan")}, {"cooldown": "60"}])
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"Retries\({next(iter(wrong))}="):
        Retries(**wrong)


# -------------------------------------------------------------------------------- prices


BY_TABLE = {"currency": "USD", "price_list": "prices"}


def test_each_kind_of_token_has_its_price() -> None:
    usage = Usage(input_tokens=1000, output_tokens=200, cached_tokens=600, cache_written_tokens=100)
    price = Price(3.0, 15.0, cached=0.3, cache_written=3.75)
    assert priced(usage, price, **BY_TABLE).cost == pytest.approx(
        (300 * 3.0 + 600 * 0.3 + 100 * 3.75 + 200 * 15.0) / 1e6
    )


def test_tokens_without_a_price_of_their_own_cost_what_all_input_costs() -> None:
    usage = Usage(input_tokens=1000, cached_tokens=600, cache_written_tokens=100)
    assert priced(usage, Price(3.0, 15.0), **BY_TABLE).cost == pytest.approx(1000 * 3.0 / 1e6)


def test_costs_add_up() -> None:
    one = priced(Usage(input_tokens=10), Price(1.0, 2.0), **BY_TABLE)
    assert (one + one).cost == pytest.approx(2 * one.cost)
    assert str(one) == "10 in, 0 out, cost 1e-05 USD"


def test_a_price_is_not_negative() -> None:
    with pytest.raises(UsageError, match=r"Price\(output=-1\)"):
        Price(1, -1)
