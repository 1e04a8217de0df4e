"""A model that holds something between its responses: opened with the stream, closed with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from agentloop import Agent
from agentloop.errors import ModelConnectionError, ModelNotFoundError, ModelStatusError
from agentloop.events import TextDelta, WarningIssued
from agentloop.models import Model
from agentloop.testing import ScriptedModel, hangs, says
from tests.support import first, of, opened, watch


class Held(ScriptedModel):
    """A scripted model that notes when it is opened and closed, or fails to be."""

    def __init__(self, *script: object, opening: Exception | None = None, closing: Exception | None = None) -> None:
        super().__init__(*script)  # type: ignore[arg-type]
        self.opening = opening
        self.closing = closing
        self.log: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Model]:
        if self.opening is not None:
            raise self.opening
        self.log.append("opened")
        try:
            yield self
        finally:
            self.log.append("closed")
        if self.closing is not None:
            raise self.closing


async def test_it_is_opened_once_and_closed_at_the_end() -> None:
    model = Held("Hello.")

    assert (await Agent(model).run("Hi")).output == "Hello."
    assert model.log == ["opened", "closed"]


async def test_it_is_closed_when_the_reader_leaves() -> None:
    model = Held(says("Hello there. ") + hangs())

    async with opened(Agent(model)) as stream:
        await first(stream, TextDelta)
    assert model.log == ["opened", "closed"]


async def test_that_it_cannot_be_opened_is_a_failure_of_the_model() -> None:
    error = OSError("no route")

    with pytest.raises(ModelConnectionError, match="opening model 'scripted' failed: OSError: no route") as raised:
        await Agent(Held("never", opening=error)).run("Hi")
    assert raised.value.__cause__ is error


async def test_an_agentloop_error_raised_on_opening_a_model_is_raised_as_it_is() -> None:
    error = ModelStatusError(model="m", status=503, body="later")

    with pytest.raises(ModelStatusError) as raised:
        await Agent(Held("never", opening=error)).run("Hi")
    assert raised.value is error


async def test_that_it_cannot_be_closed_is_a_warning_since_the_answer_is_there() -> None:
    watched = await watch(Agent(Held("Hello.", closing=OSError("stuck"))))

    assert watched.outcome.output == "Hello."
    [warning] = of(watched.events, WarningIssued)
    assert warning.code == "model_failed"
    assert "OSError: stuck" in warning.message


async def test_an_error_of_the_run_is_not_taken_for_one_of_closing() -> None:
    watched = await watch(Agent(Held("never"), output_type=int))

    assert watched.outcome.reason == "failed"
    assert of(watched.events, WarningIssued) == []


@pytest.mark.parametrize("seconds", [0, 1])
async def test_a_stop_while_it_is_open_closes_it(seconds: float) -> None:
    model = Held(says("Hello there. ") + hangs())

    async with opened(Agent(model)) as stream:
        await trio.sleep(seconds)
        stream.stop()
        async for _ in stream:
            pass
    assert model.log in ([], ["opened", "closed"])


async def test_a_model_that_is_named_wrongly_is_not_opened() -> None:
    with pytest.raises(ModelNotFoundError):
        await Agent("nobody:nothing").run("Hi")
