"""What each provider refuses in a request is not in the request: settings, schemas, and transcripts of other models."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from agentloop.errors import UsageError
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
from agentloop.providers import find_model
from agentloop.providers._wire_model import WireModel
from agentloop.providers.anthropic import Anthropic
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.providers.openai_responses import OpenAIResponses
from agentloop.testing.transcripts import transcripts
from tests.providers.chat import ask, called as called_event, whole
from tests.providers.server import answering, serving

pytestmark = pytest.mark.real_clock

PNG = b"\x89PNG\r\n\x1a\n1"
CITY = ToolSpec("City", "The final answer.", {"type": "object", "properties": {"city": {"type": "string"}}})
ADD = ToolSpec("add", "Add two numbers.", {"type": "object", "properties": {"a": {"type": "integer"}}})
FORCED = ModelSettings(tool_choice="required", reasoning_effort="medium")

CHAT = OpenAIChat("m", base_url="http://localhost/v1")
RESPONSES = OpenAIResponses("gpt-5")
MESSAGES = Anthropic("claude-opus-5-5")
WIRES = pytest.mark.parametrize("model", [CHAT, RESPONSES, MESSAGES], ids=["chat", "responses", "messages"])


def gemini(model: str = "gemini-3-pro-preview") -> OpenAIChat:
    return OpenAIChat(model, base_url="https://generativelanguage.googleapis.com/v1beta/openai")


def mistral() -> OpenAIChat:
    return OpenAIChat("mistral-large-latest", base_url="https://api.mistral.ai/v1")


def body(model: Any, *messages: Message, **fields: Any) -> Any:
    assert isinstance(model, WireModel)
    return msgspec.json.decode(model.body_of(ModelRequest(messages or (user("Hi"),), **fields)))


def user(*parts: UserPart | str) -> UserMessage:
    return UserMessage(tuple(Text(part) if isinstance(part, str) else part for part in parts))


def called(*ids: str, name: str = "add", arguments: str = "{}") -> tuple[Message, ...]:
    """A turn with calls, and their results."""
    calls = tuple(ToolCall(id, name, arguments) for id in ids)
    return (AssistantMessage(calls), *(ToolResult(id, name, (Text("3"),)) for id in ids))


# ------------------------------------------------------------------------- all the wires


@WIRES
def test_half_a_character_is_replaced_wherever_it_stands(model: Any) -> None:
    half = "caf\udce9"
    story = (
        user(half, File(b"x", media_type="text/plain", name=half)),
        AssistantMessage((Text(half), Reasoning(half), ToolCall(half, half, half))),
        ToolResult(half, half, (Text(half),), "error"),
    )
    tools = (ToolSpec("add", half, {"type": "object", "properties": {half: {"description": half}}}),)

    wire = body(model, *story, instructions=half, tools=tools)

    assert "caf\ufffd" in str(wire)


@WIRES
def test_a_pair_of_halves_is_one_character(model: Any) -> None:
    assert "\U0001f600" in str(body(model, user("\ud83d\ude00")))


@WIRES
@pytest.mark.parametrize("name", ["multi_tool_use.parallel", "functions.add", "", "a b", "\u00e9", "x" * 200, "$"])
def test_an_invented_name_is_sent_in_characters_that_the_wire_accepts(model: Any, name: str) -> None:
    wire = body(model, user("Go."), *called("c1", name=name))

    def names(value: Any) -> list[str]:
        if isinstance(value, list):
            return [name for inner in value for name in names(inner)]
        if not isinstance(value, dict):
            return []
        own = [value["name"]] if isinstance(value.get("name"), str) else []
        return own + [name for inner in value.values() for name in names(inner)]

    (sent,) = names(wire)
    assert 0 < len(sent) <= 128
    assert sent.isascii()
    assert sent.replace("_", "").replace("-", "").isalnum() or set(sent) == {"_"}


@WIRES
@pytest.mark.parametrize(
    "arguments",
    [
        "[1]",
        '{"a": 1' + "0" * 400 + "}",
        '{"a":',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a":"\\ud83d"}',
        '{"a":' + "[" * 40 + "]" * 40 + "}",
        "no",
    ],
)
def test_arguments_that_a_server_cannot_read_are_sent_as_text(model: Any, arguments: str) -> None:
    assert "invalid_json" in str(body(model, user("Go."), *called("c1", arguments=arguments)))


@WIRES
def test_an_empty_transcript_is_a_request_to_go_on(model: Any) -> None:
    assert "Go on." in str(msgspec.json.decode(model.body_of(ModelRequest(()))))


@WIRES
@pytest.mark.parametrize("reads", [True, False])
def test_pictures_go_only_to_models_that_see(model: Any, reads: bool) -> None:
    kind = type(model)
    message = user("Look:", Image(PNG), File(b"%PDF-1", media_type="application/pdf", name="a.pdf"))

    wire = str(body(kind("m", reads_media=reads), message))

    assert ("iVBOR" in wire, "which you cannot read" in wire) == (reads, not reads)


@pytest.mark.parametrize(
    ("model", "reads"),
    [
        ("gpt-5", True), ("gpt-4o", True), ("gpt-4.1", True), ("gpt-4-turbo", True), ("o3", True),
        ("pixtral-12b", True),
        ("claude-opus-5-5", True), ("gemini-2.5-pro", True), ("qwen2.5-vl-7b", True), ("qwen3-vl:8b", True),
        ("llama-4-scout", True), ("llama3.2-vision", True), ("gemma3:12b", True), ("mistral-small-latest", True),
        ("grok-4", True), ("kimi-k2.5", True), ("glm-4.5v", True), ("my-model", True),
        ("gpt-3.5-turbo", False), ("gpt-4", False), ("o3-mini", False), ("openai/gpt-oss-120b", False),
        ("deepseek-chat", False), ("deepseek-ai/DeepSeek-V3", False), ("codestral-latest", False), ("qwen3:8b", False),
        ("qwen2.5-coder:7b", False), ("Qwen/Qwen3-32B", False), ("llama3.1:8b", False), ("llama-3.3-70b", False),
        ("open-mistral-nemo", False), ("mixtral-8x7b", False), ("phi4", False), ("smollm2", False), ("kimi-k2", False),
    ],
)  # fmt: skip
def test_the_name_says_whether_a_model_sees(model: str, reads: bool) -> None:
    wire = str(body(OpenAIChat(model, base_url="http://localhost"), user("Look:", Image(PNG))))

    assert ("iVBOR" in wire) is reads


# ------------------------------------------------------------------ the order of messages


def roles(wire: Any) -> list[str]:
    return [message["role"] for message in wire["messages"]]


def test_user_and_model_alternate() -> None:
    """Servers that apply a model's own chat template refuse all other orders."""
    answer = AssistantMessage((Text("Yes."),))
    story = (answer, user("One."), user("Two."), answer, answer, AssistantMessage(()))

    wire = body(CHAT, *story)

    assert roles(wire) == ["user", "assistant", "user", "assistant", "user", "assistant", "user"]
    assert [message["content"] for message in wire["messages"]][2::2] == ["One.\n\nTwo.", "Go on.", "Go on."]


def test_a_picture_joins_the_message_of_the_user_beside_it() -> None:
    wire = body(CHAT, user("One."), user("Two:", Image(url="https://example.org/2")))

    (message,) = wire["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "text", "image_url"]


@pytest.mark.parametrize("model", [mistral(), CHAT], ids=["mistral", "an unknown server"])
def test_a_word_of_the_model_stands_between_a_result_and_the_user(model: OpenAIChat) -> None:
    """As Mistral requires, and the templates of its models, whatever name a server gives them."""
    call, result = called("a" * 9)
    picture = ToolResult(result.call_id, "add", (Image(PNG),)) if isinstance(result, ToolResult) else result

    assert roles(body(model, user("Go."), call, result, user("Stop."))) == [
        "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip
    assert roles(body(model, user("Go."), call, picture)) == ["user", "assistant", "tool", "assistant", "user"]


def test_the_servers_that_accept_the_user_after_a_result_get_the_messages_as_they_are() -> None:
    call, result = called("a" * 9)
    openai = OpenAIChat("gpt-4o", base_url="https://api.openai.com/v1")

    assert roles(body(openai, user("Go."), call, result, user("Stop."))) == ["user", "assistant", "tool", "user"]


@settings(max_examples=30)
@given(transcripts())
def test_no_chat_template_finds_two_messages_of_one_role_in_a_row(messages: tuple[Message, ...]) -> None:
    """Templates check the roles in two ways: with the calls and their results, or without."""
    every = body(CHAT, *messages)["messages"]
    talk = [message for message in every if message["role"] != "tool" and "tool_calls" not in message]

    for sequence in (roles({"messages": talk}), roles({"messages": every})):
        assert all(role != following or role == "tool" for role, following in pairwise(sequence)), sequence
    assert talk[0]["role"] == "user"


# ------------------------------------------------------------------------ ids of calls


@pytest.mark.parametrize(
    "id", ["call_Zk3v0fQ1", "toolu_01A09q90qw90lq917835lq9", "x" * 46, "c1", "9charsid!", "\udce9"]
)
def test_an_id_of_another_provider_becomes_one_that_mistral_accepts(id: str) -> None:
    wire = body(mistral(), user("Go."), *called(id))

    (call,), sent = wire["messages"][1]["tool_calls"], wire["messages"][2]["tool_call_id"]
    assert call["id"] == sent
    assert len(sent) == 9
    assert sent.isalnum()


def test_an_id_of_its_own_stays() -> None:
    assert body(mistral(), user("Go."), *called("Ab3dEf6h9"))["messages"][1]["tool_calls"][0]["id"] == "Ab3dEf6h9"
    assert body(CHAT, user("Go."), *called("x" * 40))["messages"][1]["tool_calls"][0]["id"] == "x" * 40


def test_openai_gets_no_id_of_more_than_forty_characters() -> None:
    wire = body(OpenAIChat("gpt-5"), user("Go."), *called("x" * 41, "x" * 42))

    ids = [call["id"] for call in wire["messages"][1]["tool_calls"]]
    assert ids == [message["tool_call_id"] for message in wire["messages"][2:]]
    assert len(set(ids)) == 2
    assert max(map(len, ids)) <= 40


# ------------------------------------------------------------------------------ Gemini


def test_gemini_3_gets_a_signature_for_a_call_of_another_model() -> None:
    wire = body(gemini(), user("Go."), *called("c1", "c2"))

    first, second = wire["messages"][1]["tool_calls"]
    assert first["extra_content"] == {"google": {"thought_signature": "skip_thought_signature_validator"}}
    assert "extra_content" not in second


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-1.5-pro"])
def test_older_ones_get_none(model: str) -> None:
    assert "extra_content" not in str(body(gemini(model), user("Go."), *called("c1")))


def test_gemini_gets_names_that_begin_with_a_letter() -> None:
    wire = body(gemini(), user("Go."), *called("c1", name="3d"), tools=(ToolSpec("3d", "", ADD.parameters),))

    assert wire["tools"][0]["function"]["name"] == "_3d"
    assert wire["messages"][1]["tool_calls"][0]["function"]["name"] == "_3d"


async def test_a_call_comes_back_under_the_tools_own_name() -> None:
    request = ModelRequest((user("Go."),), tools=(ToolSpec("3d", "", ADD.parameters),))
    async with serving(answering(whole(called_event(0, "c1", "_3d", "{}"), finish="tool_calls"))) as server:
        message = await ask(OpenAIChat("m", base_url=server.url, dialect="gemini"), request)

    assert [call.name for call in message.calls] == ["3d"]


# ---------------------------------------------------------------------- structured output


@pytest.mark.parametrize(
    ("model", "alone", "with_tools"),
    [
        (OpenAIChat("gpt-5"), "json_schema", "json_schema"),
        (CHAT, "json_schema", "json_schema"),
        (gemini(), "json_schema", "json_schema"),
        (gemini("gemini-2.5-flash"), "json_schema", None),
        (mistral(), "json_schema", None),
        (find_model("deepseek:deepseek-chat", api_key="k", base_url="http://localhost"), "json_object", None),
        (OpenAIChat("deepseek-chat", base_url="http://localhost"), "json_object", None),
        (OpenAIChat("llama-3.3-70b", base_url="https://api.groq.com/openai/v1"), "json_object", None),
        (OpenAIChat("openai/gpt-oss-120b", base_url="https://api.groq.com/openai/v1"), "json_schema", None),
        (OpenAIChat("m", base_url="http://localhost", dialect="deepseek"), "json_object", None),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_an_output_is_asked_for_as_the_provider_can_be_asked(
    model: Any, alone: str | None, with_tools: str | None
) -> None:
    for tools, expected in (((), alone), ((ADD,), with_tools)):
        wire = body(model, output=CITY, tools=tools)

        assert wire.get("response_format", {}).get("type") == expected
        # DeepSeek refuses `json_object` where no message speaks of JSON.
        assert ("JSON Schema" in str(wire["messages"])) is (expected != "json_schema")


def test_an_output_that_gemini_cannot_express_is_asked_for_in_words() -> None:
    counts = ToolSpec("Counts", "The final answer.", {"type": "object", "additionalProperties": {"type": "integer"}})

    wire = body(gemini(), output=counts)

    assert "response_format" not in wire
    assert "JSON Schema" in wire["messages"][0]["content"]


@WIRES
def test_a_pattern_that_looks_around_is_in_no_request(model: Any) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^(?!root$)[a-z]+$"}}}
    spec = ToolSpec("user", "A user.", schema)

    assert "(?!" not in str(body(model, tools=(spec,)))
    if model is not MESSAGES:  # there the pattern is a part of the description
        assert "(?!" not in str(body(model, output=spec))


@pytest.mark.parametrize("model", [OpenAIChat("gpt-5"), RESPONSES], ids=["chat", "responses"])
def test_a_reference_in_strict_mode_has_nothing_beside_it(model: Any) -> None:
    place = {"type": "object", "properties": {"name": {"type": "string"}}}
    properties = {"start": {"$ref": "#/$defs/Place", "description": "Where it begins."}}
    trip = ToolSpec("Trip", "", {"type": "object", "properties": properties, "$defs": {"Place": place}})

    wire = body(model, output=trip)

    form = wire["text"]["format"] if "text" in wire else wire["response_format"]["json_schema"]
    assert form["strict"] is True
    start = form["schema"]["properties"]["start"]
    assert start == {"description": "Where it begins.", "anyOf": [{"$ref": "#/$defs/Place"}]}


# ------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("url", "model", "field"),
    [
        ("https://api.openai.com/v1", "gpt-5", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "gpt-5", "max_completion_tokens"),
        ("https://us.api.openai.com/v1/", "gpt-5", "max_completion_tokens"),
        ("https://x.openai.azure.com/openai/v1", "mine", "max_completion_tokens"),
        ("https://x.cognitiveservices.azure.com/openai/v1", "mine", "max_completion_tokens"),
        ("https://evilapi.openai.com.example.org/v1", "gpt-5", "max_tokens"),
        ("https://api.mistral.ai/v1", "mistral-small-latest", "max_tokens"),
        ("http://localhost:8000/v1", "gpt-5", "max_tokens"),
    ],
)
def test_the_host_decides_what_the_limit_of_tokens_is_called(url: str, model: str, field: str) -> None:
    wire = body(OpenAIChat(model, base_url=url), settings=ModelSettings(max_tokens=9))

    assert {"max_tokens", "max_completion_tokens"} & wire.keys() == {field}


def test_mistral_gets_only_fields_that_it_knows() -> None:
    settings = ModelSettings(seed=7, reasoning_effort="low", max_tokens=9, tool_choice="required")

    wire = body(mistral(), settings=settings, tools=(ADD,))

    assert wire.keys() == {"model", "messages", "stream", "tools", "tool_choice", "max_tokens", "random_seed"}


def test_gemini_gets_no_seed_and_no_least_effort() -> None:
    wire = body(gemini(), settings=ModelSettings(seed=7, reasoning_effort="minimal"))

    assert "seed" not in wire
    assert wire["reasoning_effort"] == "low"


@pytest.mark.parametrize(
    ("model", "asked", "sent"),
    [
        ("gpt-5", "minimal", "minimal"),
        ("gpt-5.1", "minimal", "low"),
        ("o3", "minimal", "low"),
        ("gpt-4o", "high", None),
    ],
)
def test_openai_is_asked_for_an_effort_that_the_model_knows(model: str, asked: Any, sent: str | None) -> None:
    settings = ModelSettings(reasoning_effort=asked)

    assert body(OpenAIChat(model), settings=settings).get("reasoning_effort") == sent
    assert body(OpenAIResponses(model), settings=settings).get("reasoning", {}).get("effort") == sent


def test_a_forced_call_leaves_out_the_reasoning_where_both_are_refused() -> None:
    for model in (Anthropic("claude-sonnet-4-5"), Anthropic("claude-opus-5-5")):
        wire = body(model, tools=(ADD,), settings=FORCED)
        assert (wire["tool_choice"], "thinking" in wire) == ({"type": "any"}, False)
        assert "thinking" in body(model, settings=FORCED)

    gateway = OpenAIChat("anthropic/claude-sonnet-4.5", base_url="https://openrouter.ai/api/v1")
    assert "reasoning_effort" not in body(gateway, tools=(ADD,), settings=FORCED)
    assert body(OpenAIChat("gpt-5"), tools=(ADD,), settings=FORCED)["reasoning_effort"] == "medium"
    assert "tool_choice" not in body(
        OpenAIChat("deepseek-reasoner", base_url="http://h"), tools=(ADD,), settings=FORCED
    )


def test_thinking_leaves_out_the_sampling_settings_that_it_excludes() -> None:
    settings = ModelSettings(temperature=0.2, top_p=0.5, reasoning_effort="low")

    assert not {"temperature", "top_p"} & body(Anthropic("claude-sonnet-4-5"), settings=settings).keys()
    plain = body(Anthropic("claude-sonnet-4-5"), settings=ModelSettings(temperature=1.5, top_p=0.5))
    assert (plain["temperature"], "top_p" in plain) == (1, False)


def test_a_blank_stop_and_too_small_a_limit_are_not_sent() -> None:
    settings = ModelSettings(stop=("\n", "END"), max_tokens=1)

    assert body(MESSAGES, settings=settings)["stop_sequences"] == ["END"]
    assert body(CHAT, settings=settings)["stop"] == ["\n", "END"]
    assert body(RESPONSES, settings=settings)["max_output_tokens"] == 16


def test_openais_first_reasoning_models_get_no_word_on_parallel_calls() -> None:
    settings = ModelSettings(parallel_tool_calls=False)

    assert "parallel_tool_calls" not in body(OpenAIChat("o3"), tools=(ADD,), settings=settings)
    assert body(OpenAIChat("gpt-5"), tools=(ADD,), settings=settings)["parallel_tool_calls"] is False


THOUGHT = Reasoning("Hm.", signature='{"anthropic":"claude-sonnet-4-5","signature":"sig"}')


@pytest.mark.parametrize(
    ("parts", "after", "thinks"),
    [
        ((ToolCall("c1", "add", "{}"),), (), False),
        ((Text("I add."), ToolCall("c1", "add", "{}")), (), False),
        ((THOUGHT, ToolCall("c1", "add", "{}")), (), True),
        ((THOUGHT, ToolCall("c1", "add", "{}")), called("c2"), True),
        ((ToolCall("c1", "add", "{}"),), (AssistantMessage((Text("3"),)), user("And?")), True),
    ],
)
def test_a_turn_that_began_without_a_thought_goes_on_without(
    parts: Any, after: tuple[Message, ...], thinks: bool
) -> None:
    """With a budget of thinking tokens, Claude refuses thoughts in it: another model has begun it."""
    story = (user("Go."), AssistantMessage(parts), ToolResult("c1", "add", (Text("3"),)), *after)
    settings = ModelSettings(reasoning_effort="low")

    assert ("thinking" in body(Anthropic("claude-sonnet-4-5"), *story, settings=settings)) is thinks
    assert "thinking" in body(Anthropic("claude-opus-5-5"), *story, settings=settings)


def test_a_gateway_gets_the_transcript_that_the_model_behind_it_wants() -> None:
    gateway = OpenAIChat("mistralai/mistral-large", base_url="https://openrouter.ai/api/v1")

    wire = body(gateway, user("Go."), *called("call_1"), user("Stop."))

    assert roles(wire) == ["user", "assistant", "tool", "assistant", "user"]
    assert len(wire["messages"][1]["tool_calls"][0]["id"]) == 9
    assert "stream_options" in wire


def test_there_is_no_other_dialect() -> None:
    wrong: Any = "klingon"
    with pytest.raises(UsageError, match="no dialect 'klingon'"):
        OpenAIChat("m", dialect=wrong)
