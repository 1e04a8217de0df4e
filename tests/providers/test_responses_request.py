"""What OpenAI's Responses API is asked."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from agentloop.messages import (
    AssistantMessage,
    File,
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    UserMessage,
    UserPart,
)
from agentloop.models import ModelRequest, ModelSettings, ToolSpec
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.providers.openai_responses import OpenAIResponses
from tests.providers import chat
from tests.providers.chat import ask
from tests.providers.responses import (
    BEGUN,
    call_begun,
    call_ended,
    ended,
    message,
    said,
    told,
    whole,
    whole_call,
    whole_message,
    whole_thought,
)
from tests.providers.server import answering, chunked, serving

pytestmark = pytest.mark.real_clock


async def asked(request: ModelRequest, *, model: str = "m", **options: Any) -> Any:
    """What the server is sent."""
    async with serving(answering(whole(said("Hi")))) as server:
        await ask(OpenAIResponses(model, base_url=server.url, **options), request)
    return server.requests[0].json


async def items(*messages: Message, **options: Any) -> Any:
    return (await asked(ModelRequest(messages), **options))["input"]


def user(*parts: UserPart | str) -> UserMessage:
    return UserMessage(tuple(Text(part) if isinstance(part, str) else part for part in parts))


ADD = ToolSpec("add", "Add two numbers.", {"type": "object", "properties": {"a": {"type": "integer"}}})
CALL = ToolCall("c1", "add", '{"a":1}')
RESULT = ToolResult("c1", "add", (Text("3"),))


async def test_a_whole_request() -> None:
    request = ModelRequest(
        (
            user("What is 1 + 2?"),
            AssistantMessage((Reasoning("Let me see."), Text("I add. "), CALL, ToolCall("c2", "add", '{"a":2}'))),
            RESULT,
            ToolResult("c2", "add", (Text("no such number"),), "error"),
            AssistantMessage((Text("It is"),), "interrupted"),
            user("Go on."),
            user("Please."),
        ),
        instructions="Be brief.",
        tools=(ADD,),
    )

    assert await asked(request) == {
        "model": "m",
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "instructions": "Be brief.",
        "input": [
            {"type": "message", "role": "user", "content": "What is 1 + 2?"},
            {"type": "message", "role": "assistant", "content": "I add. "},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'},
            {"type": "function_call", "call_id": "c2", "name": "add", "arguments": '{"a":2}'},
            {"type": "function_call_output", "call_id": "c1", "output": "3"},
            {"type": "function_call_output", "call_id": "c2", "output": "Error: no such number"},
            {"type": "message", "role": "assistant", "content": "It is"},
            {"type": "message", "role": "user", "content": "Go on.\n\nPlease."},
        ],
        "tools": [
            {
                "type": "function",
                "name": "add",
                "description": "Add two numbers.",
                "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
                "strict": False,
            }
        ],
    }


async def test_the_key_and_further_headers_are_sent() -> None:
    async with serving(answering(whole(said("Hi")))) as server:
        await ask(OpenAIResponses("m", base_url=server.url + "/", api_key="k\n", headers={"OpenAI-Project": "p"}))

    (request,) = server.requests
    assert request.line == "POST /v1/responses HTTP/1.1"
    assert (request.headers["authorization"], request.headers["openai-project"]) == ("Bearer k", "p")


# ---------------------------------------------------------------------------------- parts


async def test_images_go_by_value_and_by_reference() -> None:
    data, url = b"\x89PNG", "https://example.org/x.png"

    (item,) = await items(user("Look:", Image(data), Image(url=url)))

    assert item["content"] == [
        {"type": "input_text", "text": "Look:"},
        {
            "type": "input_image",
            "image_url": f"data:image/png;base64,{b64encode(data).decode()}",
            "detail": "auto",
        },
        {"type": "input_image", "image_url": url, "detail": "auto"},
    ]


async def test_files_go_by_what_they_are() -> None:
    pdf = File(b"%PDF", media_type="application/pdf", name="a.pdf")
    linked = File(url="https://example.org/b.pdf", media_type="application/pdf", name="b.pdf")
    text = File("Grüße".encode(), media_type="text/plain", name="d.txt")
    no_text = File(b"\xff", media_type="text/plain", name="e.txt")

    (item,) = await items(user(pdf, linked, text, no_text))

    assert item["content"] == [
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
        {"type": "input_file", "file_url": "https://example.org/b.pdf"},
        {"type": "input_text", "text": "d.txt:\n\nGrüße"},
        {"type": "input_text", "text": "(e.txt: text/plain, 1 bytes, which you cannot read)"},
    ]


async def test_results_hold_pictures() -> None:
    picture = {"type": "input_image", "image_url": "https://example.org/1", "detail": "auto"}
    parts = (Text("Here:"), Image(url="https://example.org/1"))

    ok, failed, wordless, empty = [
        (await items(user("Draw."), AssistantMessage((CALL,)), result))[2]["output"]
        for result in (
            ToolResult("c1", "draw", parts),
            ToolResult("c1", "draw", parts, "error"),
            ToolResult("c1", "draw", parts[1:], "timeout"),
            ToolResult("c1", "draw", (), "error"),
        )
    ]

    assert ok == [{"type": "input_text", "text": "Here:"}, picture]
    assert failed == [{"type": "input_text", "text": "Error: Here:"}, picture]
    assert wordless == [{"type": "input_text", "text": "Error:"}, picture]
    assert empty == "Error: (no output)"


@pytest.mark.parametrize("status", ["error", "denied", "timeout", "interrupted"])
async def test_whatever_is_not_ok_is_an_error_to_the_model(status: Any) -> None:
    wire = await items(user("Go."), AssistantMessage((CALL,)), ToolResult("c1", "add", (Text("No."),), status))

    assert wire[2]["output"] == "Error: No."


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('{"a": 1', '{"invalid_json":"{\\"a\\": 1"}'),
        ("[1]", '{"invalid_json":"[1]"}'),
        (" ", "{}"),
    ],
)
async def test_arguments_that_are_no_json_object_are_sent_as_one(arguments: str, sent: str) -> None:
    wire = await items(user("Go."), AssistantMessage((ToolCall("c1", "add", arguments),)), RESULT)

    assert wire[1]["arguments"] == sent


async def test_an_id_that_is_too_long_is_shortened_in_the_call_and_in_its_result() -> None:
    """Those of other providers may be, and a session may go on with another model."""
    ids = ["x" * 64, "x" * 65, "x" * 65 + "y"]
    calls = AssistantMessage(tuple(ToolCall(id, "add", "{}") for id in ids))

    wire = await items(user("Go."), calls, *(ToolResult(id, "add", (Text("3"),)) for id in ids))

    called, answered = ([item["call_id"] for item in wire[at : at + 3]] for at in (1, 4))
    assert called == answered
    assert called[0] == ids[0]
    assert len(set(called)) == 3
    assert max(map(len, called)) == 64


async def test_a_response_of_nothing_is_left_out() -> None:
    assert await items(user("Go."), AssistantMessage(()), user("Go on.")) == [
        {"type": "message", "role": "user", "content": "Go.\n\nGo on."}
    ]


async def test_messages_of_the_user_in_a_row_are_one_with_their_pictures_in_order() -> None:
    picture = Image(url="https://example.org/1")

    [item] = await items(user("Look:"), UserMessage((picture, Text("Nice?"))), user("Well?"))

    assert [part["type"] for part in item["content"]] == ["input_text", "input_image", "input_text", "input_text"]


# ------------------------------------------------------------------------------- settings


async def test_settings_are_sent_where_they_are_given() -> None:
    settings = ModelSettings(
        temperature=0.0,
        top_p=0.9,
        max_tokens=100,
        tool_choice="required",
        parallel_tool_calls=False,
        reasoning_effort="low",
    )

    wire = await asked(ModelRequest((user("Hi"),), tools=(ADD,), settings=settings), reasoning_summary="auto")

    del wire["input"], wire["tools"]
    assert wire == {
        "model": "m",
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "temperature": 0.0,
        "top_p": 0.9,
        "max_output_tokens": 100,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "auto"},
    }


async def test_what_the_protocol_has_no_word_for_is_left_out() -> None:
    wire = await asked(ModelRequest((user("Hi"),), settings=ModelSettings(seed=7, stop=("END",))))

    assert wire.keys() == {"model", "input", "stream", "store", "include"}


async def test_what_is_about_tools_is_not_sent_without_tools() -> None:
    settings = ModelSettings(tool_choice="auto", parallel_tool_calls=True)

    wire = await asked(ModelRequest((user("Hi"),), settings=settings))

    assert not {"tools", "tool_choice", "parallel_tool_calls"} & wire.keys()


async def test_extra_fields_win() -> None:
    settings = ModelSettings(temperature=1.0, extra={"temperature": 0.5, "service_tier": "flex"})

    wire = await asked(ModelRequest((user("Hi"),), settings=settings))

    assert (wire["temperature"], wire["service_tier"]) == (0.5, "flex")


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("gpt-5", True),
        ("o4-mini", True),
        ("gpt-oss-20b", True),
        ("gpt-4o", False),
        ("gpt-4.1-mini", False),
        ("gpt-5-chat-latest", False),
        ("chatgpt-4o-latest", False),
        ("ft:gpt-4o-mini:acme", False),
        ("openai/gpt-4o", False),
    ],
)
async def test_a_model_that_does_not_reason_is_not_asked_for_its_reasoning(model: str, reasons: bool) -> None:
    """It would refuse the request."""
    assert ("include" in await asked(ModelRequest((user("Hi"),)), model=model)) is reasons


async def test_whether_a_model_reasons_can_be_said() -> None:
    assert "include" not in await asked(ModelRequest((user("Hi"),)), encrypted_reasoning=False)
    assert "include" in await asked(ModelRequest((user("Hi"),)), model="gpt-4o", encrypted_reasoning=True)


async def test_an_output_is_asked_for_by_its_schema() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "default": "Porto"}}, "required": []}

    wire = await asked(ModelRequest((user("Hi"),), output=ToolSpec("City", "The final answer.", schema)))

    assert wire["text"] == {
        "format": {
            "type": "json_schema",
            "name": "City",
            "description": "The final answer.",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        }
    }


async def test_an_output_that_strict_mode_cannot_say_is_asked_for_as_it_is() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}

    wire = await asked(ModelRequest((user("Hi"),), output=ToolSpec("Counts", "The final answer.", schema)))

    assert (wire["text"]["format"]["schema"], wire["text"]["format"]["strict"]) == ({**schema, "properties": {}}, False)


# ---------------------------------------------------------- what the server wants sent back


async def round_trip(*events: bytes, other: str = "m", status: str = "completed") -> Any:
    """The response to one model, as it is sent to ``other``."""
    async with serving(answering(chunked(BEGUN, *events, ended(status)))) as server:
        answered = await ask(OpenAIResponses("m", base_url=server.url))
    results = [ToolResult(call.id, call.name, (Text("ok"),)) for call in answered.calls]
    return (await items(user("Go."), answered, *results, user("On."), model=other))[1:-1]


async def test_reasoning_is_sent_back_as_it_came_before_what_it_led_to() -> None:
    wire = await round_trip(
        whole_thought("Let me add.", "Now.", status="completed", content=None, future="kept"),
        whole_call(1, "c1", "add", "{}"),
    )

    assert wire == [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [
                {"type": "summary_text", "text": "Let me add."},
                {"type": "summary_text", "text": "Now."},
            ],
            "encrypted_content": "gAAA",
            "future": "kept",
        },
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "ok"},
    ]


async def test_several_thoughts_are_sent_back_each_in_its_place() -> None:
    wire = await round_trip(
        whole_thought(id="rs_1", encrypted="A"),
        whole_message("I add.", index=1),
        whole_thought("Hm.", index=2, id="rs_2", encrypted="B"),
        whole_call(3, "c1", "add", "{}"),
    )

    assert [item.get("encrypted_content") or item["type"] for item in wire] == [
        "A",
        "message",
        "B",
        "function_call",
        "function_call_output",
    ]
    assert wire[0]["summary"] == []


async def test_reasoning_in_plain_text_is_sent_back_too() -> None:
    content = [{"type": "reasoning_text", "text": "Hm."}]
    item = {"type": "reasoning", "id": "rs_1", "content": content}
    done = told("response.output_item.done", output_index=0, item=item)

    wire = await round_trip(done, whole_message("Yes", index=1))

    assert wire[0] == {**item, "summary": []}


async def test_reasoning_that_only_has_an_id_is_not_sent_back() -> None:
    """The server has stored nothing that it could find by it."""
    wire = await round_trip(whole_thought("Hm.", encrypted=None), whole_message("Yes", index=1))

    assert [item["type"] for item in wire] == ["message"]


async def test_reasoning_that_led_to_nothing_is_not_sent_back() -> None:
    """The server refuses it: the response was cut off while the model thought."""
    assert await round_trip(whole_thought("Hm."), status="incomplete") == []
    wire = await round_trip(whole_message("So:"), whole_thought("Hm.", index=1), status="incomplete")
    assert [item["type"] for item in wire] == ["message"]


async def test_messages_keep_their_phase() -> None:
    """Without it, models take what they said in passing for their answer."""
    wire = await round_trip(
        whole_message("Let me look.", phase="commentary"),
        whole_message("It is 3.", index=1, phase="final_answer"),
        told("response.output_item.done", output_index=2, item=message(phase="commentary")),
    )

    assert [(item["content"].strip(), item["phase"]) for item in wire] == [
        ("Let me look.", "commentary"),
        ("It is 3.", "final_answer"),
    ]


async def test_a_message_keeps_its_phase_where_a_call_begins_before_it_is_done() -> None:
    wire = await round_trip(
        said("Let me look."),
        call_begun(1, "c1", "add"),
        told("response.output_item.done", output_index=0, item=message("Let me look.", phase="commentary")),
        call_ended(1, "c1", "add", "{}"),
    )

    assert [(item["type"], item.get("phase")) for item in wire[:2]] == [
        ("message", "commentary"),
        ("function_call", None),
    ]


async def test_a_phase_whose_message_was_taken_out_is_left_out() -> None:
    """A program may shorten its transcript."""
    async with serving(answering(whole(whole_message("Yes", phase="final_answer")))) as server:
        answered = await ask(OpenAIResponses("m", base_url=server.url))
    kept = AssistantMessage(tuple(part for part in answered.parts if isinstance(part, Reasoning)))

    assert [item["role"] for item in await items(user("Go."), kept, user("On."))] == ["user"]


async def test_what_one_model_wants_back_no_other_gets() -> None:
    wire = await round_trip(whole_thought("Hm."), whole_message("Yes", index=1, phase="final_answer"), other="another")

    assert wire == [{"type": "message", "role": "assistant", "content": "Yes"}]


@pytest.mark.parametrize("signature", ["EqQBCgIYAhIk", '{"model":"m","details":[{"type":"x"}]}', None])
async def test_the_signature_of_another_provider_is_left_alone(signature: str | None) -> None:
    answered = AssistantMessage((Reasoning("Hm.", signature=signature), CALL))

    wire = await items(user("Go."), answered, RESULT)

    assert [item["type"] for item in wire] == ["message", "function_call", "function_call_output"]


async def test_another_protocol_leaves_what_is_kept_here_alone() -> None:
    async with serving(answering(whole(whole_thought("Hm."), whole_call(1, "c1", "add", "{}")))) as server:
        answered = await ask(OpenAIResponses("m", base_url=server.url))
    request = ModelRequest((user("Go."), answered, RESULT))

    async with serving(answering(chat.whole(chat.said("Hi")))) as server:
        await ask(OpenAIChat("m", base_url=server.url, send_reasoning="reasoning_details"), request)

    assert set(server.requests[0].json["messages"][1]) == {"role", "content", "tool_calls"}


# ------------------------------------------------------------------------ written only once


async def test_an_open_model_sends_the_same_as_one_that_is_not() -> None:
    story: list[Message] = [user("Go.", Image(url="https://example.org/0"))]
    async with serving(answering(*[whole(said("Hi"))] * 8)) as server:
        model = OpenAIResponses("m", base_url=server.url)
        async with model.open() as opened, opened.open() as again:
            for turn in range(4):
                for one in (again, model):
                    await ask(one, ModelRequest(tuple(story)))
                story += [
                    AssistantMessage((Text("Hm."), ToolCall(f"c{turn}", "add", "{}"))),
                    ToolResult(f"c{turn}", "add", (Text("3"), Image(url="https://example.org/1"))),
                ]
        sent = [request.json for request in server.requests]

    assert sent[0::2] == sent[1::2]
    assert len(sent[-1]["input"]) == 1 + 3 * 3


def test_a_model_shows_no_key() -> None:
    assert repr(OpenAIResponses("m", api_key="k", name="openai-responses:m")) == "<OpenAIResponses openai-responses:m>"
