"""What Anthropic's Messages API is asked."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
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
from agentloop.providers.anthropic import Anthropic
from tests.providers.chat import ask
from tests.providers.messages import called, said, started, stopped, thought, whole
from tests.providers.server import answering, serving

pytestmark = pytest.mark.real_clock


async def asked(request: ModelRequest, *, model: str = "m", cache: Any = None, **options: Any) -> Any:
    """What the server is sent."""
    async with serving(answering(whole(said("Hi")))) as server:
        await ask(Anthropic(model, base_url=server.url, cache=cache, **options), request)
    return server.requests[0].json


async def messages(*messages: Message, **options: Any) -> Any:
    return (await asked(ModelRequest(messages), **options))["messages"]


async def with_settings(*, tools: tuple[ToolSpec, ...] = (), model: str = "m", **settings: Any) -> Any:
    request = ModelRequest((user("Hi"),), tools=tools, settings=ModelSettings(**settings))
    wire = await asked(request, model=model)
    for field in ("model", "stream", "messages", "tools"):
        wire.pop(field, None)
    return wire


def user(*parts: UserPart | str) -> UserMessage:
    return UserMessage(tuple(Text(part) if isinstance(part, str) else part for part in parts))


def text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


GO_ON = {"role": "user", "content": [text("Go on.")]}
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
            AssistantMessage((Text("It is 3."),)),
            user("Thanks."),
        ),
        instructions="Be brief.",
        tools=(ADD, ToolSpec("now", "", {"type": "object"})),
    )

    assert await asked(request) == {
        "model": "m",
        "max_tokens": 32_000,
        "stream": True,
        "system": [text("Be brief.")],
        "tools": [
            {
                "name": "add",
                "description": "Add two numbers.",
                "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
            },
            {"name": "now", "input_schema": {"type": "object", "properties": {}}},
        ],
        "messages": [
            {"role": "user", "content": [text("What is 1 + 2?")]},
            {
                "role": "assistant",
                "content": [
                    text("I add. "),
                    {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
                    {"type": "tool_use", "id": "c2", "name": "add", "input": {"a": 2}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": [text("3")]},
                    {
                        "type": "tool_result",
                        "tool_use_id": "c2",
                        "is_error": True,
                        "content": [text("no such number")],
                    },
                ],
            },
            {"role": "assistant", "content": [text("It is 3.")]},
            {"role": "user", "content": [text("Thanks.")]},
        ],
    }


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_the_key_the_version_and_further_headers_are_sent_to_the_right_place(path: str) -> None:
    async with serving(answering(whole(said("Hi")))) as server:
        url = server.url.removesuffix("/v1") + path
        await ask(Anthropic("m", base_url=url, api_key="k\n", headers={"anthropic-beta": "x-1"}))

    (request,) = server.requests
    assert request.line == "POST /v1/messages HTTP/1.1"
    assert request.headers["x-api-key"] == "k"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["anthropic-beta"] == "x-1"


async def test_no_key_is_sent_where_there_is_none() -> None:
    async with serving(answering(whole(said("Hi")))) as server:
        await ask(Anthropic("m", base_url=server.url))

    assert "x-api-key" not in server.requests[0].headers


def test_a_key_is_in_no_repr() -> None:
    assert repr(Anthropic("m", api_key="secret", name="anthropic:m")) == "<Anthropic anthropic:m>"


# ---------------------------------------------------------------------------------- parts


async def test_images_go_by_value_and_by_reference() -> None:
    data, photo, url = b"\x89PNG", b"\xff\xd8\xff", "https://example.org/x.png"

    (message,) = await messages(user("Look:", Image(data), Image(photo, media_type="image/jpg"), Image(url=url)))

    encoded, jpeg = (b64encode(picture).decode() for picture in (data, photo))
    assert message["content"] == [
        text("Look:"),
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": encoded}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": jpeg}},
        {"type": "image", "source": {"type": "url", "url": url}},
    ]


async def test_files_go_by_what_they_are() -> None:
    (message,) = await messages(
        user(
            File(b"%PDF", media_type="application/pdf", name="a.pdf"),
            File(url="https://example.org/b.pdf", media_type="application/pdf", name="b.pdf"),
            File("Grüße".encode(), media_type="text/markdown", name="c.md"),
            File(b"{}", media_type="application/json", name="d.json"),
            File(b"GIF89a", media_type="image/gif", name="e.gif"),
            File(url="https://example.org/f.png", media_type="image/png"),
        )
    )

    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
    assert message["content"] == [
        {"type": "document", "source": pdf, "title": "a.pdf"},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/b.pdf"}},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
            "title": "c.md",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "{}"}, "title": "d.json"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "R0lGODlh"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/f.png"}},
    ]


async def test_of_what_there_is_no_block_for_the_model_is_told() -> None:
    """A transcript with a file that is refused would be refused for good, and it may be a tool that made it."""
    (message,) = await messages(
        user(
            File(b"PK", media_type="application/zip", name="a.zip"),
            File(b"\xff", media_type="text/plain", name="b.txt"),
            File(b" \n", media_type="text/plain", name="c.txt"),
            Image(b"BM", media_type="image/bmp"),
        )
    )

    assert message["content"] == [
        text("(a.zip: application/zip, 2 bytes, which you cannot read)"),
        text("(b.txt: text/plain, 1 bytes, which you cannot read)"),
        text("(c.txt: empty)"),
        text("(image: image/bmp, 2 bytes, which you cannot read)"),
    ]


async def test_results_hold_pictures_and_files() -> None:
    result = ToolResult("c1", "add", (Text("Here:"), Image(url="https://example.org/1"), Text("")))

    wire = await messages(user("Draw."), AssistantMessage((CALL,)), result)

    (block,) = wire[2]["content"]
    assert block["content"] == [
        text("Here:"),
        {"type": "image", "source": {"type": "url", "url": "https://example.org/1"}},
    ]


async def test_a_result_of_nothing_has_no_content() -> None:
    wire = await messages(user("Go."), AssistantMessage((CALL,)), ToolResult("c1", "add", (Text(" "),)))

    assert wire[2]["content"] == [{"type": "tool_result", "tool_use_id": "c1"}]


@pytest.mark.parametrize("status", ["error", "denied", "timeout", "interrupted"])
async def test_whatever_is_not_ok_is_an_error_that_says_something(status: Any) -> None:
    wire = await messages(user("Go."), AssistantMessage((CALL,)), ToolResult("c1", "add", (), status))

    assert wire[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c1", "is_error": True, "content": [text(f"({status})")]}
    ]


async def test_pictures_of_errors_follow_the_last_result() -> None:
    """An error can hold text only, and results must stand first in their message."""
    picture = Image(url="https://example.org/1")
    turn: tuple[Message, ...] = (
        user("Draw."),
        AssistantMessage((CALL, ToolCall("c2", "add", "{}"))),
        ToolResult("c1", "add", (Text("No."), picture), "error"),
        ToolResult("c2", "add", (Text("Yes."),)),
    )

    wire = await messages(*turn)
    followed = await messages(*turn, user("And now?"))

    expected = [
        {"type": "tool_result", "tool_use_id": "c1", "is_error": True, "content": [text("No.")]},
        {"type": "tool_result", "tool_use_id": "c2", "content": [text("Yes.")]},
        text("What the tool add returned besides its error (call c1):"),
        {"type": "image", "source": {"type": "url", "url": "https://example.org/1"}},
    ]
    assert wire[2]["content"] == expected
    assert followed[2]["content"] == [*expected, text("And now?")]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ('{"a": 1}', {"a": 1}),
        ('{"a": 1', {"invalid_json": '{"a": 1'}),
        ("[1]", {"invalid_json": "[1]"}),
        ("", {}),
        (" ", {}),
    ],
)
async def test_arguments_that_are_no_json_object_are_sent_as_one(arguments: str, sent: Any) -> None:
    wire = await messages(user("Go."), AssistantMessage((ToolCall("c1", "add", arguments),)), RESULT)

    assert wire[1]["content"] == [{"type": "tool_use", "id": "c1", "name": "add", "input": sent}]


# --------------------------------------------------------------- what a transcript can hold


@pytest.mark.parametrize("id", ["functions.add:0", "a b", "ü", ""])
async def test_an_id_of_another_provider_is_sent_as_one_that_is_accepted(id: str) -> None:
    wire = await messages(
        user("Go."), AssistantMessage((ToolCall(id, "add", "{}"),)), ToolResult(id, "add", (Text("3"),))
    )

    (call,), (result,) = wire[1]["content"], wire[2]["content"]
    assert call["id"] == result["tool_use_id"] != id
    assert call["id"].replace("_", "").isalnum()
    assert call["id"].isascii()


async def test_ids_that_differ_in_a_character_that_is_refused_still_differ() -> None:
    calls = (ToolCall("add:0", "add", "{}"), ToolCall("add.0", "add", "{}"))

    wire = await messages(user("Go."), AssistantMessage(calls))

    assert len({block["id"] for block in wire[1]["content"]}) == 2


async def test_a_name_that_a_model_made_up_is_sent_as_one_that_is_accepted() -> None:
    wire = await messages(user("Go."), AssistantMessage((ToolCall("c1", "my tools.add" + "x" * 200, "{}"),)), RESULT)

    assert wire[1]["content"][0]["name"] == ("my_tools_add" + "x" * 200)[:128]


async def test_blank_texts_are_left_out() -> None:
    wire = await messages(user(" ", "Hi", ""), AssistantMessage((Text("\n\n"), Text("Yes"))), user("So?"))

    assert [message["content"] for message in wire] == [[text("Hi")], [text("Yes")], [text("So?")]]


async def test_messages_of_the_same_role_become_one() -> None:
    wire = await messages(user("One."), AssistantMessage(()), user("Two."), AssistantMessage((Text(" "),)), user("Go."))

    assert wire == [{"role": "user", "content": [text("One."), text("Two."), text("Go.")]}]


async def test_a_text_that_was_interrupted_is_sent_as_what_was_said() -> None:
    wire = await messages(user("Tell."), AssistantMessage((Text("Once "),), "interrupted"), user("Stop."))

    assert wire[1:] == [{"role": "assistant", "content": [text("Once ")]}, {"role": "user", "content": [text("Stop.")]}]


async def test_the_user_has_the_first_word_and_the_last() -> None:
    said = {"role": "assistant", "content": [text("Hm.")]}

    assert await messages(user("Hi"), AssistantMessage((Text("Hm."),))) == [
        {"role": "user", "content": [text("Hi")]},
        said,
        GO_ON,
    ]
    assert await messages(AssistantMessage((Text("Hm."),))) == [GO_ON, said, GO_ON]
    assert await messages(user(" ")) == [GO_ON]


async def test_nothing_follows_a_call_in_its_message() -> None:
    """Claude writes its calls last, but other models may not, and then the transcript would be refused."""
    wire = await messages(user("Go."), AssistantMessage((CALL, Text("I call."))), RESULT)

    assert [block["type"] for block in wire[1]["content"]] == ["text", "tool_use"]


# -------------------------------------------------------------------------------- thoughts


async def round_trip(*events: bytes, model: str = "m", other: str = "m") -> Any:
    """The content of the response to ``model`` as it is sent to ``other``."""
    async with serving(answering(whole(*events))) as server:
        message = await ask(Anthropic(model, base_url=server.url))
    results = [ToolResult(call.id, call.name, (Text("ok"),)) for call in message.calls]
    return (await messages(user("Go."), message, *results, model=other))[1]["content"]


CALLED = called(7, "c1", "add", "{}")


async def test_thoughts_are_sent_back_as_they_were() -> None:
    redacted = started(2, "redacted_thinking", data="xyz") + stopped(2)

    content = await round_trip(thought("Hm.", signature="s1"), thought(signature="s2", index=1), redacted, CALLED)

    assert content == [
        {"type": "thinking", "thinking": "Hm.", "signature": "s1"},
        {"type": "thinking", "thinking": "", "signature": "s2"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {}},
    ]


async def test_thoughts_go_to_no_other_model() -> None:
    assert [block["type"] for block in await round_trip(thought("Hm."), CALLED, other="n")] == ["tool_use"]


async def test_a_thought_without_a_signature_is_not_sent_back() -> None:
    assert [block["type"] for block in await round_trip(thought("Hm.", signature=None), CALLED)] == ["tool_use"]


@pytest.mark.parametrize("signature", ["EqQBCgIYAhIk", '{"model":"m","details":[{"type":"x"}]}', "\ud800"])
async def test_the_signature_of_another_provider_is_left_alone(signature: str) -> None:
    wire = await messages(user("Go."), AssistantMessage((Reasoning("Hm.", signature), CALL)), RESULT)

    assert [block["type"] for block in wire[1]["content"]] == ["tool_use"]


async def test_a_message_does_not_end_with_a_thought() -> None:
    """Such as one that was cut off at the limit of tokens: it would be refused."""
    assert [block["type"] for block in await round_trip(thought("Hm."), said("Yes", index=1), thought(index=2))] == [
        "thinking",
        "text",
    ]


def types(wire: Any) -> list[list[str]]:
    return [[block["type"] for block in message["content"]] for message in wire["messages"]]


async def two_requests(model: str, second: ModelRequest, first: ModelRequest) -> Any:
    """The second of two requests, the response to the first of which was a thought and a call."""
    async with serving(answering(whole(thought("Hm."), CALLED), whole(said("3")))) as server:
        anthropic = Anthropic(model, base_url=server.url)
        message = await ask(anthropic, first)
        story = (*second.messages, message, RESULT)
        await ask(anthropic, msgspec.structs.replace(second, messages=story))
    return server.requests[1].json


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-fable-5-1", "claude-haiku-5-5-20261001"])
async def test_a_thought_that_is_bound_to_its_conversation_is_sent_back_in_that_one_only(model: str) -> None:
    """The models that bind their thoughts refuse one for good whose instructions, tools or messages have changed."""
    first = ModelRequest((user("Go."),), instructions="Be brief.", tools=(ADD,))
    replace = msgspec.structs.replace

    assert types(await two_requests(model, first, first))[1] == ["thinking", "tool_use"]
    for changed in (
        replace(first, instructions="Be long."),
        replace(first, tools=()),
        replace(first, messages=(user("Stop."),)),
    ):
        assert types(await two_requests(model, changed, first))[1] == ["tool_use"]


@pytest.mark.parametrize("model", ["claude-opus-5", "claude-sonnet-4-6", "glm-5"])
async def test_a_thought_that_is_not_bound_is_sent_back_whatever_has_changed(model: str) -> None:
    first = ModelRequest((user("Go."),), instructions="It is 12:00.", tools=(ADD,))
    changed = msgspec.structs.replace(first, instructions="It is 12:01.")

    assert types(await two_requests(model, changed, first))[1] == ["thinking", "tool_use"]


# --------------------------------------------------------------------------------- caching


def marked(wire: Any) -> list[Any]:
    """The blocks at which the server is to cache."""
    blocks = [*wire.get("tools", ()), *wire.get("system", ())]
    blocks += [block for message in wire["messages"] for block in message["content"]]
    return [block for block in blocks if "cache_control" in block]


STORY = (user("Go."), AssistantMessage((CALL,)), RESULT, AssistantMessage((Text("It is 3."),)), user("And", "now?"))


async def test_what_the_next_request_repeats_is_cached() -> None:
    request = ModelRequest(STORY, instructions="Be brief.", tools=(ADD, ADD))

    wire = await asked(request, cache="5m")

    control = {"type": "ephemeral"}
    assert marked(wire) == [
        {"name": "add", "description": ADD.description, "input_schema": ADD.parameters, "cache_control": control},
        {**text("Be brief."), "cache_control": control},
        {"type": "tool_result", "tool_use_id": "c1", "content": [text("3")], "cache_control": control},
        {**text("now?"), "cache_control": control},
    ]


async def test_caching_is_on_unless_it_is_turned_off() -> None:
    async with serving(answering(whole(said("Hi")))) as server:
        await ask(Anthropic("m", base_url=server.url))

    assert len(marked(server.requests[0].json)) == 1
    assert marked(await asked(ModelRequest(STORY), cache=None)) == []


async def test_what_is_cached_may_be_kept_for_an_hour() -> None:
    (block,) = marked(await asked(ModelRequest((user("Hi"),)), cache="1h"))

    assert block["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


# ------------------------------------------------------------------------------- settings


async def test_settings_are_sent_where_they_are_given() -> None:
    assert await with_settings(temperature=0.0, top_p=0.9, max_tokens=100, seed=7, stop=("END",)) == {
        "max_tokens": 100,
        "temperature": 0.0,
        "top_p": 0.9,
        "stop_sequences": ["END"],
    }


async def test_a_model_has_a_limit_of_its_own_where_the_settings_give_none() -> None:
    assert (await asked(ModelRequest((user("Hi"),)), max_tokens=4096))["max_tokens"] == 4096


@pytest.mark.parametrize(
    ("settings", "choice"),
    [
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required", "parallel_tool_calls": False}, {"type": "any", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"parallel_tool_calls": True}, None),
    ],
)
async def test_how_tools_are_to_be_called_is_said_in_the_words_of_the_api(settings: Any, choice: Any) -> None:
    assert (await with_settings(tools=(ADD,), **settings)).get("tool_choice") == choice


async def test_what_is_about_tools_is_not_sent_without_tools() -> None:
    assert await with_settings(tool_choice="required", parallel_tool_calls=False) == {"max_tokens": 32_000}


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-sonnet-4-6", "claude-mythos-preview", "m"])
@pytest.mark.parametrize(
    ("effort", "sent"), [("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high")]
)
async def test_effort_is_sent_as_such_to_models_that_know_it(model: str, effort: str, sent: str) -> None:
    assert await with_settings(model=model, reasoning_effort=effort) == {
        "max_tokens": 32_000,
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": sent},
    }


@pytest.mark.parametrize(
    "model",
    [
        "claude-haiku-4-5",
        "claude-opus-4-5-20251101",
        "claude-sonnet-4-20250514",
        "claude-3-7-sonnet-20250219",
        "anthropic/claude-haiku-4.5",
    ],
)
@pytest.mark.parametrize(
    ("effort", "max_tokens", "budget"),
    [
        ("minimal", None, 1024),
        ("low", None, 2048),
        ("medium", None, 8192),
        ("high", None, 16_000),
        ("high", 60_000, 24_576),
        ("high", 4000, 2000),
        ("high", 1500, 1024),
        ("low", 1024, None),
    ],
)
async def test_effort_is_a_budget_for_older_models(
    model: str, effort: str, max_tokens: int | None, budget: int | None
) -> None:
    """At least 1024 tokens, and less than the response may have: anything else is refused."""
    wire = await with_settings(model=model, reasoning_effort=effort, max_tokens=max_tokens)

    assert wire.get("thinking") == (None if budget is None else {"type": "enabled", "budget_tokens": budget})
    assert "output_config" not in wire


async def test_extra_fields_win() -> None:
    wire = await with_settings(temperature=1.0, extra={"temperature": 0.5, "service_tier": "auto"})

    assert (wire["temperature"], wire["service_tier"]) == (0.5, "auto")


# --------------------------------------------------------------------------------- output


async def test_an_output_is_asked_for_by_its_schema() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}
    request = ModelRequest(
        (user("Hi"),),
        output=ToolSpec("Person", "The final answer.", schema),
        settings=ModelSettings(reasoning_effort="low"),
    )

    assert (await asked(request))["output_config"] == {
        "effort": "low",
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {"age": {"type": "integer", "description": "(minimum: 0)"}},
                "required": ["age"],
                "additionalProperties": False,
            },
        },
    }


async def test_an_output_that_the_api_has_no_words_for_is_asked_for_in_the_instructions() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    output = ToolSpec("Counts", "The final answer.", schema)
    words = 'fits this JSON Schema, with no other text around it:\n{"type":"object","additionalProperties"'

    wire = await asked(ModelRequest((user("Hi"),), instructions="Be brief.", output=output))
    alone = await asked(ModelRequest((user("Hi"),), output=output))

    assert "output_config" not in wire
    assert wire["system"][0]["text"].startswith("Be brief.\n\nGive the final answer as JSON")
    assert words in wire["system"][0]["text"]
    assert alone["system"][0]["text"].startswith("Give the final answer as JSON")


# ------------------------------------------------------------------------ written only once


async def test_an_open_model_sends_the_same_as_one_that_is_not() -> None:
    story: list[Message] = [user("Go.", Image(url="https://example.org/0"))]
    async with serving(answering(*[whole(said("Hi"))] * 8)) as server:
        model = Anthropic("claude-opus-5-5", base_url=server.url)
        async with model.open() as opened, opened.open() as again:
            for turn in range(4):
                for one in (again, model):
                    await ask(one, ModelRequest(tuple(story)))
                story += [
                    AssistantMessage((ToolCall(f"c{turn}", "add", "{}"),)),
                    ToolResult(f"c{turn}", "add", (Text("3"), Image(url="https://example.org/1"))),
                ]
    sent = [request.json for request in server.requests]

    assert sent[0::2] == sent[1::2]
    assert len(sent[-1]["messages"]) == 1 + 2 * 3
    assert all(len(marked(wire)) <= 4 for wire in sent)
