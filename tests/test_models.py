"""Settings of a request: values that no provider takes are refused where they are written."""

from __future__ import annotations

import math
import pickle
from typing import Any

import msgspec
import pytest

from agentloop import ModelSettings, UsageError

_LOOP: dict[str, Any] = {}
_LOOP["loop"] = _LOOP


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": "hot"},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": -0.1},
        {"temperature": 2.1},
        {"temperature": True},
        {"temperature": [1]},
        {"top_p": 7},
        {"top_p": 0},
        {"top_p": math.nan},
        {"top_p": "0.5"},
        {"max_tokens": 0},
        {"max_tokens": -5},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_tokens": math.inf},
        {"max_tokens": 10**30},
        {"seed": "x"},
        {"seed": 1.0},
        {"seed": 2**63},
        {"seed": False},
        {"tool_choice": "sometimes"},
        {"tool_choice": ""},
        {"tool_choice": True},
        {"tool_choice": ["auto"]},
        {"tool_choice": {"name": "add"}},
        {"parallel_tool_calls": "no"},
        {"parallel_tool_calls": 1},
        {"reasoning_effort": "banana"},
        {"reasoning_effort": 3},
        {"reasoning_effort": "HIGH"},
        {"stop": "END"},
        {"stop": (1, 2)},
        {"stop": ("",)},
        {"stop": ("\ud800",)},
        {"stop": {"END"}},
        {"extra": [1]},
        {"extra": {1: 2}},
        {"extra": {"a": object()}},
        {"extra": {"a": [math.nan]}},
        {"extra": {"a": math.inf}},
        {"extra": {"a": "\udc00"}},
        {"extra": {"\udc00": "a"}},
        {"extra": _LOOP},
    ],
)
def test_a_setting_that_no_provider_takes_is_refused_with_the_values_that_can_be_given(
    settings: dict[str, Any],
) -> None:
    (name,) = settings
    with pytest.raises(UsageError, match=rf"^ModelSettings\({name}=.*\): give \w+"):
        ModelSettings(**settings)
    with pytest.raises(UsageError):
        msgspec.structs.replace(ModelSettings(), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0, "top_p": 1},
        {"temperature": 2.0, "top_p": 0.001},
        {"max_tokens": 1, "seed": -1},
        {"tool_choice": "required", "parallel_tool_calls": False, "reasoning_effort": "minimal"},
        {"stop": ("a", "b")},
        {"extra": {"top_k": 5, "thinking": {"type": "enabled", "budget": [1, 2.5, None, True]}}},
    ],
)
def test_possible_settings_are_taken_as_they_are(settings: dict[str, Any]) -> None:
    made = ModelSettings(**settings)

    assert {name: getattr(made, name) for name in settings} == settings
    assert pickle.loads(pickle.dumps(made)) == made
    assert msgspec.json.decode(msgspec.json.encode(made), type=ModelSettings) == made


def test_a_list_of_stop_texts_is_taken_as_a_tuple() -> None:
    texts: Any = ["a", "b"]
    assert ModelSettings(stop=texts).stop == ("a", "b")
