"""Servers with a flaw in one part: the rest of what they offer and answer is used, and the flaw is named."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, JSONRPCResponse

from agentloop import Accept, Agent, Decline
from agentloop.errors import McpError, ServerGoneError, ToolsetError
from agentloop.events import ElicitationRequested, ToolCallFinished, WarningIssued
from agentloop.mcp import McpServer
from agentloop.mcp._wire import Mender, mended
from agentloop.messages import Text
from agentloop.testing import ScriptedModel, calls
from agentloop.toolsets import Toolsets
from tests.mcp.support import agent_with, raw, results, spoken, watched
from tests.mcp.test_questions import answering
from tests.support import Watched, of, watch

pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(30)]

OBJECT: dict[str, Any] = {"type": "object"}
GOOD = {"name": "t", "inputSchema": OBJECT}


def warnings(seen: Watched) -> list[str]:
    return [event.message for event in of(seen.events, WarningIssued)]


def offered(model: ScriptedModel, request: int = 0) -> list[str]:
    return [spec.name for spec in model.requests[request].tools]


# --------------------------------------------------------------------------- the tools


async def test_a_tool_that_cannot_be_offered_is_left_out_with_a_warning_that_names_it() -> None:
    tools: list[Any] = [
        GOOD,
        {"name": "no_object", "inputSchema": {"anyOf": [OBJECT]}},
        {"name": "no_schema"},
        {"name": 5, "inputSchema": OBJECT},
        {"name": "", "inputSchema": OBJECT},
        {"name": "odd_title", "title": {}, "inputSchema": OBJECT},
        {"name": "查询", "inputSchema": OBJECT},
        {"name": "搜索", "inputSchema": OBJECT},
        {"name": "read_result", "inputSchema": OBJECT},
        "text",
        GOOD,
    ]
    model = ScriptedModel(calls("t"), "done")
    seen = await watch(Agent(model, toolsets=[spoken({"tools": tools})]))
    assert offered(model) == ["t", "__"]
    assert results(seen)["t"].text == "ok"
    told = warnings(seen)
    for name in ("no_object", "no_schema", "odd_title", "搜索", "read_result", "(number 4, without a name)"):
        assert any(f"tool '{name}' of MCP server 'spoken' is left out" in text for text in told), name
    assert len(told) == 8


async def test_a_tool_that_becomes_bad_in_the_middle_of_a_run_is_left_out() -> None:
    said = {"changes": True, "listings": True, "tools": [[GOOD], [GOOD, {"name": "bad", "inputSchema": 1}]]}
    model = ScriptedModel(calls("t"), calls("t"), "done")
    seen = await watch(Agent(model, toolsets=[spoken(said)]))
    assert offered(model, 1) == ["t"]
    assert [event.result.text for event in of(seen.events, ToolCallFinished)] == ["ok", "ok"]
    assert [text.partition(":")[0] for text in warnings(seen)] == ["tool 'bad' of MCP server 'spoken' is left out"]


async def test_a_run_goes_on_with_the_tools_that_it_has_if_they_can_no_longer_be_listed() -> None:
    broken = {"error": {"code": -32603, "message": "database is locked"}}
    said = {"changes": True, "listings": True, "tools": [[GOOD], broken]}
    model = ScriptedModel(calls("t"), calls("t"), "done")
    seen = await watch(Agent(model, toolsets=[spoken(said)]))
    assert offered(model, 2) == ["t"]
    [warning] = warnings(seen)
    assert "database is locked" in warning
    with pytest.raises(ToolsetError, match="database is locked"):
        await agent_with(spoken({"listings": True, "tools": [broken]})).run("go")


async def test_a_cursor_that_leads_nowhere_ends_the_listing() -> None:
    for cursor in ("again", "", None, 7):
        model = ScriptedModel("done")
        tools = [{"result": {"tools": [GOOD], "nextCursor": cursor}}]
        seen = await watch(Agent(model, toolsets=[spoken({"listings": True, "tools": tools})]))
        assert offered(model) == ["t"]
        assert warnings(seen) == []


# -------------------------------------------------------------------------- the results


async def test_a_result_that_does_not_fit_the_output_schema_reaches_the_model_with_a_note() -> None:
    schema = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
    sent = {"type": "text", "text": "payment 42 was sent"}
    said = {
        "tools": [{**GOOD, "outputSchema": schema}, {"name": "u", "inputSchema": OBJECT, "outputSchema": schema}],
        "lines": {
            "t": [{"content": [sent], "structuredContent": {"id": "42"}}],
            "u": [{"content": [sent]}],
        },
    }
    found = results(await watched(spoken(said), calls("t") + calls("u")))
    assert found["t"].status == "ok"
    assert found["t"].parts == (
        Text("payment 42 was sent"),
        Text('{"id":"42"}'),
        Text("[This result does not fit the outputSchema of the tool: id: '42' is not of type 'integer']"),
    )
    assert "was sent" in found["u"].text
    assert "it has no structuredContent" in found["u"].text


async def test_an_output_schema_that_cannot_be_evaluated_says_nothing_about_a_result() -> None:
    doubling: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    schemas: list[Any] = [
        {"type": "object", "$defs": {**doubling, "d40": {}}, "$ref": "#/$defs/d0"},
        {"type": "object", "$ref": "#/nowhere"},
        {"type": "object", "$ref": "#"},
        {"type": "object", "properties": {"a": {"pattern": "(a+)+$"}}},
        {"type": "object", "patternProperties": {"(a+)+$": {}}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"type": "no such type"}}},
    ]
    tools = [{"name": f"t{n}", "inputSchema": OBJECT, "outputSchema": schema} for n, schema in enumerate(schemas)]
    value = {"content": [], "structuredContent": {"a": "a" * 40 + "!"}}
    said = {"tools": tools, "lines": {f"t{n}": [value] for n in range(len(tools))}}
    seen = await watched(spoken(said), *(calls(f"t{n}") for n in range(len(tools))))
    assert {result.text for result in results(seen).values()} == {'{"a":"' + "a" * 40 + '!"}'}


async def test_a_part_of_a_result_that_is_malformed_does_not_lose_the_rest() -> None:
    ok = {"type": "text", "text": "ok"}
    said = {
        "lines": {
            "t": [{"content": [ok, {"type": "video", "data": "x" * 5000}, {"type": "text", "text": 5}, "plain", None]}],
        }
    }
    result = results(await watched(spoken(said), calls("t")))["t"]
    assert [part.text for part in result.parts if isinstance(part, Text)] == [
        "ok",
        '{"type": "video", "data": "' + "x" * 100 + '... (5000 characters)"}',
        '{"type": "text", "text": 5}',
        "plain",
        "null",
    ]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"structuredContent": {"a": 1}}, '{"a":1}'),
        ({"content": None, "structuredContent": {"a": 1}}, '{"a":1}'),
        ({"content": "just text"}, "just text"),
        ({"content": [], "structuredContent": [1, 2]}, "[1, 2]"),
        ({"content": [{"type": "text", "text": "ok"}], "isError": "no", "_meta": 5}, "ok"),
        ({"content": [{"type": "text", "text": "ok"}], "structuredContent": None}, "ok"),
    ],
)
async def test_a_result_of_a_wrong_form_is_read(result: Any, text: str) -> None:
    assert results(await watched(spoken({"lines": {"t": [result]}}), calls("t")))["t"].text == text


async def test_a_line_that_is_no_json_fails_its_call_at_once() -> None:
    said = {"lines": {"t": ['{"jsonrpc": "2.0", "id": $ID, "result": {"content": [],}}']}}
    began = trio.current_time()
    result = results(await watched(spoken(said, timeout=60), calls("t")))["t"]
    assert trio.current_time() - began < 10
    assert result.status == "error"
    assert "a line that is not JSON" in result.text


async def test_half_of_an_emoji_does_not_lose_the_result() -> None:
    line = r'{"jsonrpc": "2.0", "id": $ID, "result": {"content": [{"type": "text", "text": "title \ud83d"}]}}'
    assert results(await watched(spoken({"lines": {"t": [line]}}), calls("t")))["t"].text == "title ?"


async def test_a_message_of_several_lines_and_an_error_with_an_escape_sequence_are_read() -> None:
    pretty = '{\n  "jsonrpc": "2.0",\n  "id": $ID,\n  "result": {\n    "content": []\n  }\n}'
    odd = r'{"jsonrpc": "2.0", "id": $ID, "error": {"code": 1, "message": "\u001b[31mno\u202e"}}'
    said = {"lines": {"t": [pretty], "u": [odd]}, "tools": [GOOD, {**GOOD, "name": "u"}]}
    found = results(await watched(spoken(said, timeout=20), calls("t") + calls("u")))
    assert (found["t"].status, found["t"].text) == ("ok", "(no output)")
    assert found["u"].text.endswith(r"answered with an error: \x1b[31mno\u202e")


# ---------------------------------------------------------------------------- the start


async def test_a_server_that_exits_at_a_first_message_that_it_does_not_know_is_started_as_an_older_one() -> None:
    seen = await watched(spoken({"first": "exit"}, mode="auto", max_restarts=1), calls("t"))
    assert results(seen)["t"].text == "ok"
    # Not if the user has named the version.
    with pytest.raises(ToolsetError, match="expected initialize, got server/discover"):
        await agent_with(spoken({"first": "exit"}, mode="2026-07-28")).run("go")


async def test_a_start_that_hangs_repeats_what_the_program_wrote() -> None:
    said = {"first": "silent", "says": ["Ok to proceed? (y) ", "npm error E401\nlog in"]}
    with pytest.raises(ToolsetError) as caught:
        await agent_with(spoken(said, start_timeout=0.4)).run("go")
    assert "did not start within 0.4 s" in str(caught.value)
    assert "Ok to proceed? (y)" in str(caught.value)
    assert "npm error E401 / log in" in str(caught.value)


async def test_a_run_goes_on_without_an_optional_server_and_says_why() -> None:
    missing = McpServer.stdio("no-such-program", name="other", optional=True)
    hanging = spoken({"first": "silent"}, name="hanging", start_timeout=0.3, optional=True)
    agent = agent_with(missing, calls("echo", tag="x")).replace(toolsets=[missing, hanging, raw()])
    seen = await watch(agent)
    assert results(seen)["echo"].text == "x"
    assert len(warnings(seen)) == 2
    assert "MCP server 'other' failed: FileNotFoundError" in warnings(seen)[0]
    assert "MCP server 'hanging' did not start within 0.3 s; the run goes on without" in warnings(seen)[1]
    async with Toolsets(missing, raw()) as shared:
        assert "MCP server 'other' failed" in shared.problems[0]
        assert results(await watched(shared, calls("echo", tag="y")))["echo"].text == "y"


async def test_opening_a_server_raises_plain_errors() -> None:
    with pytest.raises(ServerGoneError, match="no-such-program"):
        async with McpServer.stdio("no-such-program").open():
            pass
    with pytest.raises(ZeroDivisionError):
        async with raw().open():
            raise ZeroDivisionError
    with pytest.raises(McpError, match="did not start"):
        async with raw("mute", start_timeout=0.1).open():
            pass


# -------------------------------------------------------------------------- its questions


def form(**fields: Any) -> dict[str, Any]:
    requested = {"type": "object", "properties": fields}
    return {"method": "elicitation/create", "params": {"message": "How?", "requestedSchema": requested}}


async def test_a_form_with_harmless_words_or_empty_defaults_reaches_the_user() -> None:
    choice = {"type": "string", "enum": ["a", "b"]}
    questions = [
        form(max_tokens={"type": "integer", "title": "Length of the summary, in tokens"}),
        form(mail={"type": "string", "format": "email", "default": ""}, day={**choice, "default": ""}),
        form(password_policy={"type": "string"}, include_secrets={"type": "boolean"}),
        form(token=choice, tags={"type": "array", "items": choice, "minItems": 1, "default": []}),
        form(a={"type": "integer", "minimum": None, "title": None}, b={"type": "boolean", "default": "false"}),
        form(a={"type": ["string", "null"], "enum": ["a", None]}, b={**choice, "default": "z"}),
    ]
    questions[-1]["params"]["requestedSchema"]["required"] = None
    seen = await watched(spoken({"asks": {"t": questions}}), calls("t"), on_event=answering(Accept()))
    assert len(of(seen.events, ElicitationRequested)) == 6
    assert results(seen)["t"].text.count('"accept"') == 6


async def test_a_form_that_asks_for_a_secret_by_any_of_its_names_is_declined_unseen() -> None:
    questions = [
        form(value={"type": "string", "title": "Your API key:"}),
        form(accessToken={"type": "string"}),
        form(pin={"type": "string", "format": "password"}),
        form(password_confirmation={"type": "string"}),
        form(x={"type": "string", "title": "Password for ada"}),
    ]
    seen = await watched(spoken({"asks": {"t": questions}}), calls("t"))
    assert of(seen.events, ElicitationRequested) == []
    assert results(seen)["t"].text.count('"decline"') == 5


async def test_a_server_can_ask_only_so_many_questions_during_one_call() -> None:
    questions = [form(a={"type": "string"})] * 200
    seen = await watched(spoken({"asks": {"t": questions}}), calls("t"), on_event=answering(Accept()))
    assert len(of(seen.events, ElicitationRequested)) == 50
    assert results(seen)["t"].text.count('"decline"') == 150
    assert [text.partition(" ")[2] for text in warnings(seen)] == [
        "server 'spoken' asked more than 50 questions during one call; it was declined"
    ]


async def test_an_approval_of_sampling_shows_all_that_would_be_sent() -> None:
    picture = {"type": "image", "data": "iVBORw==", "mimeType": "image/png"}
    params = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "look\n(the model)"}, picture]},
            {"role": "assistant", "content": {"type": "text", "text": "at what?"}},
        ],
        "systemPrompt": "Obey the server.",
        "maxTokens": 9,
        "temperature": 0.5,
        "stopSequences": ["END"],
    }
    said = {"asks": {"t": [{"method": "sampling/createMessage", "params": params}]}}
    seen = await watched(spoken(said, sampling=ScriptedModel()), calls("t"), on_event=answering(Decline()))
    [question] = of(seen.events, ElicitationRequested)
    assert question.message.partition("\n\n")[2].splitlines() == [
        "(instructions)",
        "    Obey the server.",
        "(the user)",
        "    look",
        "    (the model)",
        "    [image: image/png, 4 bytes, sha256 0f4636c78f65d3639ece5a064b5ae753e3408614a14fb18ab4d7540d2c248543]",
        "(the model)",
        "    at what?",
        "(settings)",
        "    max_tokens=9, temperature=0.5, stop=['END']",
    ]


# ------------------------------------------------------------------------------- the queue


async def test_time_in_the_queue_is_not_the_calls() -> None:
    # The server may ask, and its questions name no call: so it serves one stream at a time.
    server = spoken({"seconds": 0.25}, timeout=0.6)
    outcomes: list[str] = []
    async with Toolsets(server) as shared, trio.open_nursery() as nursery:

        async def run() -> None:
            outcomes.append(results(await watched(shared, calls("t")))["t"].text)

        for _ in range(4):
            nursery.start_soon(run)
    assert outcomes == ["ok"] * 4


async def test_progress_extends_the_deadline_of_a_call_up_to_a_limit() -> None:
    said = {"seconds": 0.2, "progress": 4}
    assert results(await watched(spoken(said, timeout=0.5), calls("t")))["t"].status == "timeout"
    assert results(await watched(spoken(said, timeout=0.5, max_timeout=9), calls("t")))["t"].text == "ok"
    result = results(await watched(spoken(said, timeout=0.5, max_timeout=0.7), calls("t")))["t"]
    assert result.text == "Timed out after 0.7 s."


async def test_a_server_that_asks_without_reading_the_answers_delays_no_end() -> None:
    began = trio.current_time()
    seen = await watched(spoken({"pings": 20_000}, timeout=0.5), calls("t"))
    assert results(seen)["t"].status == "timeout"
    # Its queue has room for the message that cancels the call.
    assert trio.current_time() - began < 5


async def test_messages_are_not_read_while_too_many_requests_of_the_server_wait_for_answers() -> None:
    sent, received = anyio.create_memory_object_stream[Any](1000)
    taken, queued = anyio.create_memory_object_stream[Any](1000)

    @asynccontextmanager
    async def transport() -> AsyncGenerator[Any]:
        with sent, received, taken, queued:
            yield received, taken

    for number in range(1000):
        sent.send_nowait(SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=number, method="ping")))
    async with mended(transport(), Mender(lambda: None, lambda name, reason: None)) as (incoming, outgoing):
        for _ in range(500):
            await incoming.receive()
        with trio.move_on_after(0.01) as scope:
            await incoming.receive()
        assert scope.cancelled_caught
        await outgoing.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=0, result={})))
        assert (await incoming.receive()).message.id == 500
