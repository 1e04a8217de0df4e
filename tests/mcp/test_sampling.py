"""A server asks the model: its requests are requests of the run, under the same limits, retries and hooks."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from agentloop import Deny, Limits, Retries, hooks
from agentloop.errors import ModelError, ModelStatusError
from agentloop.events import ElicitationRequested, ResponseDiscarded, UsageReported, WarningIssued
from agentloop.hooks import Block
from agentloop.mcp import McpServer
from agentloop.mcp._server_requests import ServerRequests
from agentloop.messages import Text, ToolResult, Usage
from agentloop.models import Model
from agentloop.questions import Accept
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


# ------------------------------------------------------------------------------ with tools

TOOLS = [{"name": "files.read", "description": "Read.", "inputSchema": {"type": "object", "properties": {}}}]
ASKED = {"role": "user", "content": {"type": "text", "text": "What is in a.txt?"}}
USED_TOOL = {
    "role": "assistant",
    "content": [
        {"type": "tool_use", "id": "c1", "name": "files.read", "input": {"path": "a.txt"}},
        {"type": "tool_use", "id": "c2", "name": "files.read", "input": {"path": "b.txt"}},
    ],
}


def result(id: str, text: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "toolUseId": id, "content": [{"type": "text", "text": text}], **more}


def sampling(model: Model, *params: dict[str, Any], **options: Any) -> Toolset:
    """A server whose tool sends these requests at once, each with tools."""
    asks = [{"method": "sampling/createMessage", "params": {"maxTokens": 100, "tools": TOOLS, **one}} for one in params]
    options.setdefault("sampling_tools", True)
    options.setdefault("approve_sampling", False)
    return spoken({"asks": {"t": asks}}, sampling=model, **options)


def given(seen: Watched) -> list[Any]:
    answers: list[Any] = json.loads(results(seen)["t"].text)
    return answers


async def test_a_server_gets_the_calls_of_its_own_tools_under_its_names_for_them() -> None:
    model = ScriptedModel(says("Let me look. ") + calls("files_read", path="a.txt"), name="sampled")

    seen = await watched(sampling(model, {"messages": [ASKED], "toolChoice": {"mode": "required"}}), calls("t"))

    [answer] = given(seen)
    assert (answer["stopReason"], answer["model"]) == ("toolUse", "sampled")
    text, use = answer["content"]
    assert text == {"type": "text", "text": "Let me look. "}
    assert (use["type"], use["name"], use["input"]) == ("tool_use", "files.read", {"path": "a.txt"})
    [request] = model.requests
    assert [(spec.name, spec.description) for spec in request.tools] == [("files_read", "Read.")]
    assert request.settings.tool_choice == "required"


async def test_the_results_that_a_server_sends_reach_the_model_in_the_order_of_the_calls() -> None:
    model = ScriptedModel("It is empty.")
    results_ = {"role": "user", "content": [result("c2", "not there", isError=True), result("c1", "")]}

    seen = await watched(sampling(model, {"messages": [ASKED, USED_TOOL, results_]}), calls("t"))

    [answer] = given(seen)
    assert answer["content"] == [{"type": "text", "text": "It is empty."}]
    assert answer["stopReason"] == "endTurn"
    _, said, first, second = model.requests[0].messages
    assert [call.arguments for call in getattr(said, "calls", ())] == ['{"path": "a.txt"}', '{"path": "b.txt"}']
    assert first == ToolResult("c1", "files_read", (Text("(no output)"),))
    assert second == ToolResult("c2", "files_read", (Text("not there"),), "error")


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([ASKED, USED_TOOL], "call 'c1' has no result"),
        ([ASKED, USED_TOOL, ASKED], "call 'c1' has no result"),
        ([ASKED, {"role": "user", "content": [result("c9", "x")]}], "that no message before it asks for"),
        (
            [ASKED, USED_TOOL, {"role": "user", "content": [result("c1", "x"), ASKED["content"]]}],
            "with results of tools can have nothing else",
        ),
        ([{"role": "user", "content": USED_TOOL["content"]}], "a user's message can have no calls of tools"),
    ],
    ids=["unanswered", "passed-over", "unasked", "mixed", "users"],
)
async def test_a_conversation_that_no_provider_takes_is_an_error_of_the_server(messages: Any, problem: str) -> None:
    model = ScriptedModel()
    seen = await watched(sampling(model, {"messages": messages}), calls("t"))
    [answer] = given(seen)
    assert answer["code"] == -32602
    assert problem in answer["message"]
    assert model.requests == []


async def test_tools_are_refused_unless_the_server_may_have_them() -> None:
    model = ScriptedModel()
    plain = {"messages": [ASKED], "tools": None}
    seen = await watched(
        sampling(
            model,
            {"messages": [ASKED]},
            {**plain, "toolChoice": {"mode": "none"}},
            {**plain, "messages": [ASKED, USED_TOOL, {"role": "user", "content": [result("c1", "x")]}]},
            sampling_tools=False,
        ),
        calls("t"),
    )
    assert [answer["message"] for answer in given(seen)] == ["tools are not supported in sampling"] * 3
    assert model.requests == []


@pytest.mark.parametrize("allowed", [False, True])
async def test_the_capability_is_declared_only_where_tools_are_allowed(allowed: bool) -> None:
    requests = ServerRequests(McpServer.stdio("x", sampling=ScriptedModel(), sampling_tools=allowed))
    assert (requests.sampling_capability is not None) is allowed


async def test_a_call_of_a_tool_that_was_not_given_is_no_answer() -> None:
    model = ScriptedModel(calls("shell", command="ls"))
    seen = await watched(sampling(model, {"messages": [ASKED]}), calls("t"))
    assert [answer["message"] for answer in given(seen)] == [
        "the model gave no answer: it called a tool 'shell', which there is not"
    ]


async def test_the_user_who_approves_sees_the_tools_the_calls_and_their_results() -> None:
    results_ = {"role": "user", "content": [result("c1", "one"), result("c2", "two")]}
    server = sampling(ScriptedModel("ok"), {"messages": [ASKED, USED_TOOL, results_]}, approve_sampling=True)
    seen = await watched(server, calls("t"), on_event=answering(Accept()))
    [question] = of(seen.events, ElicitationRequested)
    for line in ("(tools)", "files_read: Read.", 'files_read({"path": "a.txt"})', "(the result of files_read)", "two"):
        assert line in question.message
