"""Answers from a folder: the same request is answered again, and any other one is not."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agentloop import Agent, Limits, ModelSettings, Price, Session, UsageError, tool
from agentloop.errors import AgentLoopError, ModelConnectionError
from agentloop.events import TextDelta, WarningIssued
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.providers.cached import CachedModel
from agentloop.testing import ScriptedModel, calls, fails, says, thinks
from tests.support import of, watch

pytestmark = pytest.mark.real_clock


@tool
async def look() -> str:
    """Look."""
    return "blue"


def files_in(folder: Path) -> list[Path]:
    return [*folder.iterdir()]


def cached(folder: Path, *script: Any, **options: Any) -> tuple[ScriptedModel, CachedModel]:
    model = ScriptedModel(*script)
    return model, CachedModel(model, folder, **options)


async def test_the_same_conversation_is_answered_from_the_folder_and_costs_nothing(tmp_path: Path) -> None:
    script = (calls("look"), thinks("Hm.") + says("It is blue."))
    first, model = cached(tmp_path / "answers", *script)
    second, again = cached(tmp_path / "answers")
    options: dict[str, Any] = {"tools": [look], "prices": {"scripted": Price(1000, 1000)}, "limits": Limits(cost=1)}

    asked = await watch(Agent(model, **options), session=Session("a"))
    answered = await watch(Agent(again, **options), session=Session("b"))

    assert (len(first.requests), len(second.requests)) == (2, 0)
    one, two = asked.stream.result, answered.stream.result
    assert [message.parts for message in one.messages] == [message.parts for message in two.messages]
    assert one.usage.cost > 0
    assert (two.usage.cost, two.usage.is_cost_known, two.usage.price_lists) == (0, True, ("cache",))
    assert two.usage.input_tokens == one.usage.input_tokens
    assert "".join(event.text for event in of(answered.events, TextDelta)) == "It is blue."
    assert not of(answered.events, WarningIssued)


@pytest.mark.parametrize(
    ("prompt", "change"),
    [
        ("go on", {}),
        ("go", {"instructions": "Be brief."}),
        ("go", {"tools": [look]}),
        ("go", {"settings": ModelSettings(temperature=0.5)}),
        ("go", {"output_type": int}),
    ],
)
async def test_any_other_request_is_asked_of_the_model(tmp_path: Path, prompt: str, change: dict[str, Any]) -> None:
    model, wrapped = cached(tmp_path, "1", "2")
    agent = Agent(wrapped)
    await agent.run("go")

    await agent.replace(**change).run(prompt)

    assert len(model.requests) == 2


@pytest.mark.parametrize("answer", [says("half", stop="length"), says(""), fails(ModelConnectionError("gone"))])
async def test_an_answer_that_is_no_whole_one_is_not_kept(tmp_path: Path, answer: Any) -> None:
    model, wrapped = cached(tmp_path, answer)
    with suppress(AgentLoopError):
        await Agent(wrapped, limits=Limits(requests=1)).run("go")

    assert model.requests
    assert not files_in(tmp_path)


async def test_a_file_that_is_broken_or_cannot_be_written_is_a_warning_and_the_model_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, wrapped = cached(tmp_path, "1", "2")
    await Agent(wrapped).run("go")
    [file] = files_in(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("{")
    with caplog.at_level(logging.WARNING, "agentloop.providers"):
        assert (await Agent(wrapped).run("go")).output == "2"
        assert (await Agent(wrapped).run("go")).output == "2"
        blocked = tmp_path / "file"
        blocked.touch()
        assert (await Agent(CachedModel(ScriptedModel("3"), blocked / "answers")).run("go")).output == "3"

    assert ["read" in message for message in caplog.messages] == [True, True, False]
    assert sorted(path.suffix for path in files_in(tmp_path)) == ["", ".json"]


async def test_an_answer_that_is_too_old_is_asked_again(tmp_path: Path) -> None:
    _, wrapped = cached(tmp_path, "1", "2", max_age=60)
    await Agent(wrapped).run("go")
    [file] = files_in(tmp_path)
    assert (await Agent(wrapped).run("go")).output == "1"
    os.utime(file, (1, 1))

    assert (await Agent(wrapped).run("go")).output == "2"


async def test_a_model_that_is_opened_for_a_stream_is_opened_inside(tmp_path: Path) -> None:
    opened: list[str] = []

    class Opened:
        name = "opened"

        @asynccontextmanager
        async def open(self) -> AsyncGenerator[Opened]:
            opened.append("opened")
            yield self
            opened.append("closed")

        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            await reply.text("Hi.")
            return Stop()

    agent = Agent(CachedModel(Opened(), tmp_path))

    assert [(await agent.run("go")).output for _ in range(2)] == ["Hi.", "Hi."]
    assert opened == ["opened", "closed"] * 2


def test_wrong_arguments_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        CachedModel(ScriptedModel(), tmp_path, max_age=0)
    with pytest.raises(UsageError):
        CachedModel(7, tmp_path)  # type: ignore[arg-type]
