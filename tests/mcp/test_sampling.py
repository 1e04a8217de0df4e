"""A server asks the model: its requests are requests of the run, under the same limits, retries and hooks."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from agentloop import Deny, Limits, Retries, hooks
from agentloop.errors import ModelError, ModelStatusError
from agentloop.events import ResponseDiscarded, UsageReported, WarningIssued
from agentloop.hooks import Block
from agentloop.messages import Usage
from agentloop.models import Model
from agentloop.testing import Response, ScriptedModel, calls, fails, says
from agentloop.tools import Toolset
from tests.mcp.support import results, spoken, watched
from tests.runtime.builders import answering
from tests.support import Watched, of

pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(30)]

QUESTION = {"messages": [{"role": "user", "content": {"type": "text", "text": "2 + 2?"}}], "maxTokens": 1000}
USED = Usage(input_tokens=1000, output_tokens=1000)
FOUR = msgspec.structs.replace(says("four"), usage=USED)


def asking(model: Model, times: int = 1) -> Toolset:
    """A server whose tool asks ``model`` so many times at once, and gives the answers as its result."""
    request = {"method": "sampling/createMessage", "params": QUESTION}
    return spoken({"asks": {"t": [request] * times}}, sampling=model, approve_sampling=False)


def answers(seen: Watched) -> list[Any]:
    """The texts of the answers that the server got, or the errors."""
    return [answer.get("message") or answer["content"]["text"] for answer in json.loads(results(seen)["t"].text)]


async def test_a_server_that_asks_in_a_loop_is_stopped_at_the_limits_of_the_run() -> None:
    model = ScriptedModel(FOUR, repeat=True)

    seen = await watched(asking(model, 10), calls("t"), limits=Limits(requests=4), on_event=answering(Deny()))

    assert len(model.requests) == 3
    assert answers(seen).count("four") == 3
    assert answers(seen).count("the client has reached its limits") == 7
    assert (seen.outcome.reason, seen.outcome.detail) == ("limit", "requests: 4 of 4 used")
    assert [event.code for event in of(seen.events, WarningIssued)] == ["question_refused"]


async def test_the_usage_of_a_server_is_in_events_and_in_the_outcome() -> None:
    seen = await watched(asking(ScriptedModel(FOUR, name="sampled")), calls("t"))

    [asked] = [event for event in of(seen.events, UsageReported) if event.purpose == "tool"]
    assert (asked.model, asked.usage) == ("sampled", msgspec.structs.replace(USED, requests=1))
    assert asked.call_id
    assert seen.outcome.usage == Usage(input_tokens=1020, output_tokens=1010, requests=3)


async def test_a_failed_request_of_a_server_is_retried_and_its_readers_keep_the_text_of_the_turn() -> None:
    model = ScriptedModel(fails(ModelStatusError(model="m", status=503, body="busy")), FOUR)

    seen = await watched(asking(model), says("Let me ask. ") + calls("t"), retries=Retries(delay=0.01))

    assert answers(seen) == ["four"]
    [discarded] = of(seen.events, ResponseDiscarded)
    assert (discarded.purpose, discarded.error.type) == ("tool", "ModelStatusError")


async def test_a_hook_may_refuse_the_request_of_a_server() -> None:
    purposes: list[str] = []

    @hooks.before_llm_call
    def guard(call: hooks.BeforeLLMCall) -> Block | None:
        purposes.append(call.purpose)
        return Block("a secret reason") if call.purpose == "tool" else None

    model = ScriptedModel()
    seen = await watched(asking(model), calls("t"), hooks=[guard])

    assert purposes == ["turn", "tool", "turn"]
    assert (answers(seen), model.requests) == (["the client refused the request"], [])
    assert seen.outcome.reason == "completed"


@pytest.mark.parametrize(
    ("response", "flaw"),
    [
        (says("I cannot help with that.", stop="refusal"), "it refused"),
        (says(" \n"), "it said nothing"),
        (says("Well", stop="paused"), "it paused"),
        (fails(ModelError("broken")), "ModelError: broken"),
    ],
    ids=["refused", "blank", "paused", "failed"],
)
async def test_a_server_gets_an_error_where_the_model_gave_no_answer(response: Response, flaw: str) -> None:
    seen = await watched(asking(ScriptedModel(response)), calls("t"), retries=Retries(attempts=1))

    assert answers(seen) == [f"the model gave no answer: {flaw}"]
