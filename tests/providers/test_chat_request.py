"""What a chat completions server is asked."""

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
from tests.providers.chat import ask, called, finished, piece, said, whole
from tests.providers.server import DONE, answering, chunked, event, serving

pytestmark = pytest.mark.real_clock


async def asked(request: ModelRequest, *, model: str = "m", **options: Any) -> Any:
    """What the server is sent."""
    async with serving(answering(whole(said("Hi")))) as server:
        await ask(OpenAIChat(model, base_url=server.url, **options), request)
    return server.requests[0].json


async def messages(*messages: Message, **options: Any) -> Any:
    return (await asked(ModelRequest(messages), **options))["messages"]


def user(*parts: UserPart | str) -> UserMessage:
    return UserMessage(tuple(Text(part) if isinstance(part, str) else part for part in parts))


ADD = ToolSpec("add", "Add two numbers.", {"type": "object", "properties": {"a": {"type": "integer"}}})
CALL = ToolCall("c1", "add", '{"a":1}')


async def test_a_whole_request() -> None:
    request = ModelRequest(
        (
            user("What is 1 + 2?"),
            AssistantMessage((Reasoning("Let me see."), Text("I add. "), CALL, ToolCall("c2", "add", '{"a":2}'))),
            ToolResult("c1", "add", (Text("3"),)),
            ToolResult("c2", "add", (Text("no such number"),), "error"),
            AssistantMessage((Text("It is 3."),)),
            user("Thanks."),
        ),
        instructions="Be brief.",
        tools=(ADD,),
    )

    assert await asked(request) == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is 1 + 2?"},
            {
                "role": "assistant",
                "content": "I add. ",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
                    {"id": "c2", "type": "function", "function": {"name": "add", "arguments": '{"a":2}'}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "3"},
            {"role": "tool", "tool_call_id": "c2", "content": "Error: no such number"},
            {"role": "assistant", "content": "It is 3."},
            {"role": "user", "content": "Thanks."},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "add",
                    "description": "Add two numbers.",
                    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
                },
            }
        ],
    }


# ---------------------------------------------------------------------------------- parts


async def test_several_texts_are_one_string() -> None:
    """Many servers take nothing but a string."""
    assert await messages(user("One.", "Two.")) == [{"role": "user", "content": "One.\n\nTwo."}]


async def test_images_go_by_value_and_by_reference() -> None:
    data, url = b"\x89PNG", "https://example.org/x.png"

    (message,) = await messages(user("Look:", Image(data), Image(url=url)))

    assert message["content"] == [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(data).decode()}"}},
        {"type": "image_url", "image_url": {"url": url}},
    ]


async def test_files_go_by_what_they_are() -> None:
    pdf = File(b"%PDF", media_type="application/pdf", name="a.pdf")
    linked = File(url="https://example.org/b.pdf", media_type="application/pdf", name="b.pdf")
    sound = File(b"RIFF____WAVE", media_type="audio/wav", name="c.wav")
    text = File("Grüße".encode(), media_type="text/plain", name="d.txt")
    no_text = File(b"\xff", media_type="text/plain", name="e.txt")

    (message,) = await messages(user(pdf, linked, sound, text, no_text))

    assert message["content"] == [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
        {"type": "file", "file": {"filename": "b.pdf", "file_data": "https://example.org/b.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRl9fX19XQVZF", "format": "wav"}},
        {"type": "text", "text": "d.txt:\n\nGrüße"},
        {"type": "file", "file": {"filename": "e.txt", "file_data": "data:text/plain;base64,/w=="}},
    ]


async def test_pictures_of_results_follow_the_last_result() -> None:
    """The results of one response must stand together, and can hold text only."""
    wire = await messages(
        user("Draw."),
        AssistantMessage((CALL, ToolCall("c2", "add", "{}"))),
        ToolResult("c1", "add", (Text("Here:"), Image(url="https://example.org/1"))),
        ToolResult("c2", "add", (File(b"%PDF", media_type="application/pdf"),)),
        user("More."),
        AssistantMessage((ToolCall("c3", "add", "{}"),)),
        ToolResult("c3", "add", (Image(url="https://example.org/3"),)),
    )

    assert [message["role"] for message in wire] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert wire[2]["content"] == "Here:\n\n(image in the next message of the user)"
    assert wire[3]["content"] == "(file in the next message of the user)"
    assert wire[5]["content"] == [
        {"type": "text", "text": "The image that the tool add returned (call c1):"},
        {"type": "image_url", "image_url": {"url": "https://example.org/1"}},
        {"type": "text", "text": "The file that the tool add returned (call c2):"},
        {"type": "file", "file": {"filename": "file", "file_data": "data:application/pdf;base64,JVBERg=="}},
        {"type": "text", "text": "More."},
    ]
    assert wire[9]["content"][1]["image_url"]["url"] == "https://example.org/3"


@pytest.mark.parametrize("status", ["error", "denied", "timeout", "interrupted"])
async def test_whatever_is_not_ok_is_an_error_to_the_model(status: Any) -> None:
    wire = await messages(user("Go."), AssistantMessage((CALL,)), ToolResult("c1", "add", (Text("No."),), status))

    assert wire[2]["content"] == "Error: No."


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('{"a": 1', '{"invalid_json":"{\\"a\\": 1"}'),
        ("[1]", '{"invalid_json":"[1]"}'),
        ("", "{}"),
        (" ", "{}"),
    ],
)
async def test_arguments_that_are_no_json_object_are_sent_as_one(arguments: str, sent: str) -> None:
    """Servers refuse a transcript with others, although it was their model that wrote them."""
    wire = await messages(user("Go."), AssistantMessage((ToolCall("c1", "add", arguments),)), _result())

    assert wire[1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": sent}}],
    }


def _result() -> ToolResult:
    return ToolResult("c1", "add", (Text("3"),))


async def test_a_response_of_nothing_is_left_out() -> None:
    """Mistral refuses an empty message of the model, and servers with a chat template two of the user in a row."""
    wire = await messages(user("Go."), AssistantMessage(()), user("Go on."))

    assert wire == [{"role": "user", "content": "Go.\n\nGo on."}]


# ------------------------------------------------------------------------------- settings


async def test_settings_are_sent_where_they_are_given() -> None:
    settings = ModelSettings(
        temperature=0.0,
        top_p=0.9,
        max_tokens=100,
        seed=7,
        tool_choice="required",
        parallel_tool_calls=False,
        reasoning_effort="low",
        stop=("END",),
    )

    wire = await asked(ModelRequest((user("Hi"),), tools=(ADD,), settings=settings))

    del wire["messages"], wire["tools"]
    assert wire == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "top_p": 0.9,
        "max_tokens": 100,
        "seed": 7,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "stop": ["END"],
    }


async def test_what_is_about_tools_is_not_sent_without_tools() -> None:
    settings = ModelSettings(tool_choice="auto", parallel_tool_calls=True)

    wire = await asked(ModelRequest((user("Hi"),), settings=settings))

    assert not {"tools", "tool_choice", "parallel_tool_calls"} & wire.keys()


async def test_extra_fields_win() -> None:
    settings = ModelSettings(temperature=1.0, extra={"temperature": 0.5, "provider": {"order": ["x"]}})

    wire = await asked(ModelRequest((user("Hi"),), settings=settings))

    assert (wire["temperature"], wire["provider"]) == (0.5, {"order": ["x"]})


async def test_servers_differ_in_a_few_names() -> None:
    request = ModelRequest((user("Hi"),), settings=ModelSettings(max_tokens=100))

    wire = await asked(request, max_tokens_field="max_completion_tokens", stream_usage=False)

    assert wire["max_completion_tokens"] == 100
    assert not {"max_tokens", "stream_options"} & wire.keys()


def test_openai_has_its_own_name_for_the_limit_of_tokens() -> None:
    model: Any = OpenAIChat("gpt-5")
    assert model._format.dialect.max_tokens_field == "max_completion_tokens"


async def test_an_output_is_asked_for_by_its_schema() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "default": "Porto"}}, "required": []}

    wire = await asked(ModelRequest((user("Hi"),), output=ToolSpec("City", "The final answer.", schema)))

    assert wire["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "City",
            "description": "The final answer.",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }


async def test_an_output_that_strict_mode_cannot_say_is_asked_for_as_it_is() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}

    wire = await asked(ModelRequest((user("Hi"),), output=ToolSpec("Counts", "The final answer.", schema)))

    assert wire["response_format"]["json_schema"]["schema"] == {**schema, "properties": {}}
    assert wire["response_format"]["json_schema"]["strict"] is False


# ------------------------------------------------------------- what servers want sent back


async def test_reasoning_is_sent_back_only_where_it_is_wanted() -> None:
    story = (user("Go."), AssistantMessage((Reasoning("I must add."), CALL)), _result())

    assert "reasoning_content" not in (await messages(*story))[1]
    assert (await messages(*story, send_reasoning="reasoning_content"))[1]["reasoning_content"] == "I must add."
    assert (await messages(*story, send_reasoning="reasoning"))[1]["reasoning"] == "I must add."


async def test_with_a_call_reasoning_is_sent_back_also_where_there_was_none() -> None:
    """DeepSeek refuses the transcript otherwise."""
    wire = await messages(
        user("Go."), AssistantMessage((CALL,)), _result(), AssistantMessage((Text("3"),)), user("?"),
        send_reasoning="reasoning_content",
    )  # fmt: skip

    assert wire[1]["reasoning_content"] == ""
    assert "reasoning_content" not in wire[3]


async def round_trip(*events: bytes, model: str = "m", other: str = "m", **options: Any) -> Any:
    """The response to ``model`` as it is sent to ``other``."""
    async with serving(answering(chunked(*events, finished("tool_calls"), DONE))) as server:
        message = await ask(OpenAIChat(model, base_url=server.url))
    results = [ToolResult(call.id, call.name, (Text("ok"),)) for call in message.calls]
    return (await messages(user("Go."), message, *results, model=other, **options))[1]


def signed(index: int, signature: str) -> bytes:
    call = {
        "index": index,
        "id": f"c{index}",
        "function": {"name": "add", "arguments": "{}"},
        "extra_content": {"google": {"thought_signature": signature}},
    }
    return event(piece({"tool_calls": [call]}))


async def test_the_signature_of_a_call_is_sent_back_with_it() -> None:
    """Gemini refuses the call's result without it."""
    wire = await round_trip(called(0, "a", "add", "{}"), signed(1, "sig"))

    first, second = wire["tool_calls"]
    assert "extra_content" not in first
    assert second["extra_content"] == {"google": {"thought_signature": "sig"}}


async def test_the_details_of_reasoning_are_sent_back_joined() -> None:
    """OpenRouter sends them in pieces, and wants each block whole."""

    def detail(**fields: Any) -> bytes:
        return event(piece({"reasoning": fields.get("text"), "reasoning_details": [fields]}))

    events = [
        detail(type="reasoning.text", index=0, text="Let ", signature=None),
        detail(type="reasoning.text", index=0, text="me."),
        detail(type="reasoning.text", index=0, signature="sig"),
        detail(type="reasoning.encrypted", index=1, data="xyz"),
        called(0, "a", "add", "{}"),
    ]

    wire = await round_trip(*events, send_reasoning="reasoning_details")

    assert wire["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "Let me.", "signature": "sig"},
        {"type": "reasoning.encrypted", "index": 1, "data": "xyz"},
    ]
    assert "reasoning_details" not in await round_trip(*events)


async def test_what_one_model_wants_back_no_other_gets() -> None:
    assert "extra_content" not in (await round_trip(signed(0, "sig"), other="n"))["tool_calls"][0]


async def test_the_signature_of_another_provider_is_left_alone() -> None:
    message = AssistantMessage((Reasoning("Hm.", signature="EqQBCgIYAhIk"), CALL))

    wire = (await messages(user("Go."), message, _result()))[1]

    assert set(wire) == {"role", "content", "tool_calls"}


# ------------------------------------------------------------------------ written only once


async def test_an_open_model_sends_the_same_as_one_that_is_not() -> None:
    story: list[Message] = [user("Go.", Image(url="https://example.org/0"))]
    sent: list[Any] = []
    async with serving(answering(*[whole(said("Hi"))] * 8)) as server:
        model = OpenAIChat("m", base_url=server.url)
        async with model.open() as opened:
            for turn in range(4):
                for one in (opened, model):
                    await ask(one, ModelRequest(tuple(story)))
                story += [
                    AssistantMessage((ToolCall(f"c{turn}", "add", "{}"),)),
                    ToolResult(f"c{turn}", "add", (Text("3"), Image(url="https://example.org/1"))),
                ]
        sent = [request.json for request in server.requests]

    assert sent[0::2] == sent[1::2]
    # Each turn has a call, its result, a word of the model, and the picture in a message of the user.
    assert len(sent[-1]["messages"]) == 1 + 3 * 4
