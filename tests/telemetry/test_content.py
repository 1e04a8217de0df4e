"""Prompts, answers and results are recorded only where that is switched on: without secrets, bounded, and encodable."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentloop import Agent, Image, tool
from agentloop.messages import AssistantMessage, File, Message, Reasoning, Text, ToolCall, ToolResult, UserMessage
from agentloop.telemetry._content import Content
from agentloop.testing import ScriptedModel, calls
from tests.telemetry.support import Recorder, attributes

KEY = "sk-abcdefghijklmnop1234567890"

CONTENT = (
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
)


@tool
async def echo(text: str) -> str:
    """Say it again."""
    return f"{text} with {KEY}"


def agent(recorder: Recorder, **options: Any) -> Agent:
    model = ScriptedModel(calls("echo", text="Ada's words"), "The answer.")
    return Agent(model, instructions="Be kind.", tools=[echo], observers=[recorder.tracing], **options)


async def test_content_is_not_recorded_unless_it_is_switched_on() -> None:
    recorder = Recorder()
    await agent(recorder).run("Hello from Ada")
    assert "Ada" not in str([span.to_json() for span in recorder.spans])
    assert not {*CONTENT} & {name for span in recorder.spans for name in attributes(span)}


async def test_content_has_the_forms_of_the_conventions_and_no_secrets() -> None:
    recorder = Recorder(content=True)
    await agent(recorder).run(f"Hello from Ada, password=hunter22 and {KEY}")
    run, first, call, second = recorder.spans
    prompt = {
        "role": "user",
        "parts": [{"type": "text", "content": "Hello from Ada, password=<redacted> and <redacted>"}],
    }
    assert json.loads(attributes(run)["gen_ai.input.messages"]) == [prompt]
    [answer] = json.loads(attributes(run)["gen_ai.output.messages"])
    assert answer == {
        "role": "assistant",
        "parts": [{"type": "text", "content": "The answer."}],
        "finish_reason": "stop",
    }
    instructions = json.loads(attributes(first)["gen_ai.system_instructions"])
    assert instructions == [{"type": "text", "content": "Be kind."}]
    assert json.loads(attributes(call)["gen_ai.tool.call.arguments"]) == {"text": "Ada's words"}
    assert attributes(call)["gen_ai.tool.call.result"] == "Ada's words with <redacted>"
    roles = [message["role"] for message in json.loads(attributes(second)["gen_ai.input.messages"])]
    assert roles == ["user", "assistant", "tool"]
    assert KEY not in str([span.to_json() for span in recorder.spans])
    assert "hunter22" not in str([span.to_json() for span in recorder.spans])


async def test_what_is_recorded_can_be_encoded_whatever_a_model_writes() -> None:
    recorder = Recorder(content=True)
    name = "odd\ud800" + "x" * 1000
    model = ScriptedModel(calls(name, raw='{"a": "\ud800"}'), "Half: \ud800")
    await Agent(model, observers=[recorder.tracing]).run("Half: \ud800")
    values = [value for span in recorder.spans for value in [span.name, *attributes(span).values()]]
    texts = [value for value in values if isinstance(value, str)]
    assert [len(text) for text in texts if text.encode() and len(text) > 2000] == []


def test_a_long_conversation_is_cut_from_its_beginning_and_a_long_text_at_its_end() -> None:
    content = Content(100)
    messages = [UserMessage((Text(f"{number} " + "word " * 10),)) for number in range(50)]
    kept = json.loads(content.messages(messages))
    assert len(kept) == 2
    assert kept[-1]["parts"][0]["content"].startswith("49 ")
    assert len(content.text("x" * 1_000_000)) == 103
    assert content.text("x" * 100) == "x" * 100


@pytest.mark.parametrize("before", range(60, 100, 7))
def test_a_secret_across_the_limit_is_not_cut_in_two(before: int) -> None:
    text = "-" * before + " " + KEY + " and more " * 1000
    assert "sk-" not in Content(100).text(text)


def test_pictures_and_documents_are_recorded_without_their_bytes_and_keys() -> None:
    parts = (
        Image(data=b"\x89PNG", media_type="image/png"),
        Image(url="https://ada:password@example.com/a.png?key=abcdef"),
        File(data=b"%PDF", media_type="application/pdf", name="ada.pdf"),
    )
    [message] = json.loads(Content(1000).messages([UserMessage(parts)]))
    picture, link, document = message["parts"]
    assert picture == {"type": "blob", "modality": "image", "mime_type": "image/png", "content": ""}
    assert document["modality"] == "document"
    assert "password" not in link["uri"]
    assert "abcdef" not in link["uri"]


def test_each_kind_of_message_has_its_parts() -> None:
    messages: list[Message] = [
        AssistantMessage((Reasoning("Hm."), Text("I look."), ToolCall("c1", "look", '{"at": 1}')), "tool_calls"),
        ToolResult("c1", "look", (Text("a"), Text("b"))),
    ]
    response, result = json.loads(Content(1000).messages(messages))
    assert [part["type"] for part in response["parts"]] == ["reasoning", "text", "tool_call"]
    assert response["parts"][2] == {"type": "tool_call", "id": "c1", "name": "look", "arguments": '{"at": 1}'}
    assert result["parts"] == [{"type": "tool_call_response", "id": "c1", "response": "a\nb"}]
