"""Fixtures for tests of agents. pytest finds them by itself where agentloop is installed.

- ``scripted_model``: makes `ScriptedModel`s, and after the test checks that each script was played to its end.
- ``record_stream``: opens a stream of an agent that keeps its events, which are checked to be well formed.
- ``no_network_models``: a model that is named by a string is refused: no test talks to a provider by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from agentloop import agent as front_door
from agentloop.agent import Agent
from agentloop.errors import UsageError
from agentloop.messages import Prompt
from agentloop.models import Model
from agentloop.testing.recording import RecordedStream, record
from agentloop.testing.scripted import Script, ScriptedModel
from agentloop.testing.wellformed import assert_well_formed

__all__ = ["no_network_models", "record_stream", "scripted_model"]


@pytest.fixture
def scripted_model() -> Generator[Callable[..., ScriptedModel]]:
    """Scripted models for one test, by ``scripted_model(calls("add", a=2, b=3), says("It is 5."))``."""
    made: list[ScriptedModel] = []

    def make(*script: Script, **options: Any) -> ScriptedModel:
        made.append(ScriptedModel(*script, **options))
        return made[-1]

    yield make
    for model in made:
        model.assert_complete()


@pytest.fixture
def record_stream() -> Generator[Callable[..., AbstractAsyncContextManager[RecordedStream]]]:
    """Record streams; what they told is checked after the test."""
    made: list[RecordedStream] = []

    def make(agent: Agent, prompt: Prompt = "go", **options: Any) -> AbstractAsyncContextManager[RecordedStream]:
        return record(agent, prompt, into=made, **options)

    yield make
    for stream in made:
        assert_well_formed(stream.events, complete=stream.complete)


@pytest.fixture
def no_network_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse models that are named by a string."""

    def resolve(model: Model | str) -> Model:
        if isinstance(model, str):
            raise UsageError(f"this test may not use the model {model!r}: give the agent a ScriptedModel")
        return model

    monkeypatch.setattr(front_door, "_resolve", resolve)
