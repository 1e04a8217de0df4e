"""The end of a response, as a model reports it: reasons and numbers come from outside."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agentloop._core.response import MAX_TOKENS, checked_stop, checked_usage
from agentloop.errors import ModelProtocolError
from agentloop.messages import Usage
from agentloop.models import Stop

COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "cache_written_tokens")


def test_numbers_that_a_response_can_have_stay_as_they_are() -> None:
    usage = Usage(1, 2, 3, 4, 1, 5, 0.25)
    assert checked_stop(Stop("length", usage, "m-1"), model="m") == Stop("length", usage, "m-1")
    assert checked_usage(Usage(MAX_TOKENS)) == Usage(MAX_TOKENS)


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("value", [-1, -(10**9), MAX_TOKENS + 1, 10**30, math.nan, math.inf, 1.5, "12", None, []])
def test_a_count_that_no_response_can_have_counts_as_not_reported(field: str, value: Any) -> None:
    assert checked_usage(Usage(**{field: value})) == Usage()


@pytest.mark.parametrize("value", [-1, -0.5, math.nan, math.inf, -math.inf, 10**12, "1", None])
def test_a_cost_that_no_response_can_have_counts_as_not_reported(value: Any) -> None:
    assert checked_usage(Usage(1, 2, cost=value)) == Usage(1, 2)


WRONG: Any = [None, {}, "weird"]


@pytest.mark.parametrize(
    "stop",
    [
        *WRONG,
        Stop("interrupted"),
        *(Stop(wrong) for wrong in WRONG[::2]),
        *(Stop("end", wrong) for wrong in WRONG),
        *(Stop("end", Usage(), wrong) for wrong in WRONG[:2]),
    ],
    ids=repr,
)
def test_an_end_of_another_kind_breaks_the_protocol(stop: object) -> None:
    with pytest.raises(ModelProtocolError, match="model 'm' returned"):
        checked_stop(stop, model="m")


def test_the_name_of_the_model_can_be_sent() -> None:
    assert checked_stop(Stop(model="m\ud83d"), model="m").model == "m\N{REPLACEMENT CHARACTER}"
