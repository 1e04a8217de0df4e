"""The checkers find what the providers were seen to refuse."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from agentloop.testing import WireProvider, assert_accepted, request_problems

PNG = "data:image/png;base64,iVBORw0KGgo="
ID = "Ab3dEf6h9"


def chat(**fields: Any) -> dict[str, Any]:
    """A request that all servers of chat completions accept."""
    extra = {"extra_content": {"google": {"thought_signature": "sig"}}}
    call = {"id": ID, "type": "function", "function": {"name": "add", "arguments": "{}"}, **extra}
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}}
    return {
        "model": "gpt-5",
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": ""},
            {"role": "tool", "tool_call_id": ID, "content": "3"},
        ],
        "tools": [{"type": "function", "function": {"name": "add", "parameters": parameters}}],
        **fields,
    }


def mistral() -> dict[str, Any]:
    request = chat(model="mistral-large-latest")
    del request["messages"][1]["reasoning_content"]
    return request


def anthropic(**fields: Any) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 4000,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                    {"type": "tool_use", "id": "t1", "name": "add", "input": {}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"}]},
        ],
        "tools": [{"name": "add", "input_schema": {"type": "object", "properties": {}}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        **fields,
    }


def responses() -> dict[str, Any]:
    return {
        "model": "gpt-5",
        "input": [
            {"type": "message", "role": "user", "content": "Hi"},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "3"},
        ],
    }


GOOD: dict[WireProvider, dict[str, Any]] = {
    "openai": chat(),
    "openai-responses": responses(),
    "anthropic": anthropic(),
    "gemini": chat(model="gemini-3-pro-preview"),
    "mistral": mistral(),
    "deepseek": chat(model="deepseek-chat"),
}


@pytest.mark.parametrize("provider", GOOD)
def test_a_good_request_is_accepted(provider: WireProvider) -> None:
    assert_accepted(json.dumps(GOOD[provider]).encode(), provider)


def call_of(request: dict[str, Any]) -> Any:
    return request["messages"][1]["tool_calls"][0]


def schema_of(request: dict[str, Any]) -> Any:
    return request["tools"][0]["function"]["parameters"]


Spoil = Callable[[dict[str, Any]], object]

SPOILED: list[tuple[WireProvider, str, Spoil]] = [
    ("openai", "id", lambda r: call_of(r).update(id="x" * 41)),
    ("openai", "not due", lambda r: r["messages"][2].update(tool_call_id="other")),
    ("openai", "no results", lambda r: r["messages"].pop()),
    ("openai", "name", lambda r: call_of(r)["function"].update(name="functions.add")),
    ("openai", "not JSON", lambda r: call_of(r)["function"].update(arguments='{"a":')),
    ("openai", "not an object", lambda r: call_of(r)["function"].update(arguments="[]")),
    ("openai", "content: half of a surrogate", lambda r: r["messages"][0].update(content="\udce9")),
    ("openai", "$.a: half of a surrogate", lambda r: call_of(r)["function"].update(arguments='{"a": "\\ud83d"}')),
    ("openai", "blank", lambda r: r["messages"][0].update(content=" ")),
    ("openai", "no image/jpeg", lambda r: r["messages"][0].update(content=[image(PNG.replace("png", "jpeg"))])),
    ("openai", "no image/svg", lambda r: r["messages"][0].update(content=[image("data:image/svg+xml;base64,PA==")])),
    ("openai", "cannot fetch", lambda r: r["messages"][0].update(content=[image("file:///a.png")])),
    ("openai", "without properties", lambda r: schema_of(r).pop("properties")),
    ("openai", "without items", lambda r: schema_of(r)["properties"].update(a={"type": "array"})),
    ("openai", "pattern", lambda r: schema_of(r)["properties"].update(a={"pattern": "(?=x)"})),
    ("openai", "reference", lambda r: schema_of(r)["properties"].update(a={"$ref": "#/$defs/A"})),
    ("openai", "top", lambda r: schema_of(r).update(anyOf=[{}])),
    ("openai", "max_tokens", lambda r: r.update(max_tokens=9)),
    ("openai", "without tools", lambda r: (r.pop("tools"), r.update(tool_choice="auto"))),
    ("openai", "nests", lambda r: r.update(metadata=json.loads("[" * 120 + "]" * 120))),
    ("openai", "beside a reference", lambda r: r.update(response_format=strict({"$ref": "#", "description": "x"}))),
    ("openai", "no message", lambda r: r.update(messages=[])),
    ("gemini", "signature", lambda r: call_of(r).pop("extra_content")),
    ("gemini", "name", lambda r: r["tools"][0]["function"].update(name="3d")),
    ("gemini", "unknown fields", lambda r: schema_of(r).update(additionalProperties=False)),
    ("gemini", "the type", lambda r: schema_of(r)["properties"].update(a={})),
    ("gemini", "seed", lambda r: r.update(seed=7)),
    ("gemini", "JSON response", lambda r: r.update(model="gemini-2.5-pro", response_format=strict({"type": "string"}))),
    ("mistral", "id", lambda r: call_of(r).update(id="call_1")),
    ("mistral", "role 'user' after role 'tool'", lambda r: r["messages"].append(r["messages"][0])),
    ("mistral", "role 'user' after role 'user'", lambda r: r["messages"].insert(0, r["messages"][0])),
    ("mistral", "permitted: ['stream_options']", lambda r: r.update(stream_options={})),
    ("mistral", "permitted: ['reasoning_content']", lambda r: r["messages"][1].update(reasoning_content="")),
    ("deepseek", "response format", lambda r: r.update(response_format={"type": "json_schema"})),
    ("deepseek", "speaks of JSON", lambda r: r.update(response_format={"type": "json_object"})),
    ("deepseek", "only text", lambda r: r["messages"][0].update(content=[image(PNG)])),
    ("deepseek", "reasoning_content", lambda r: r["messages"][1].pop("reasoning_content")),
    ("openai-responses", "call id", lambda r: r["input"][2].update(call_id="x" * 65)),
    ("openai-responses", "there is not", lambda r: r["input"].pop(2)),
    ("openai-responses", "without outputs", lambda r: r["input"].pop()),
    ("openai-responses", "must follow", lambda r: r["input"].insert(2, r["input"].pop(3))),
    ("openai-responses", "name", lambda r: r["input"][2].update(name="a.b")),
    ("anthropic", "alternate", lambda r: r["messages"].insert(0, r["messages"][0])),
    ("anthropic", "must be the user's", lambda r: r["messages"].pop(0)),
    ("anthropic", "are due", lambda r: r["messages"][2]["content"][0].update(tool_use_id="t2")),
    ("anthropic", "before the results", lambda r: r["messages"][2]["content"].insert(0, {"type": "text", "text": "a"})),
    ("anthropic", "blank", lambda r: r["messages"][0]["content"][0].update(text=" ")),
    ("anthropic", "last block", lambda r: r["messages"][1]["content"].reverse()),
    ("anthropic", "the turn begins", lambda r: r["messages"][1]["content"].pop(0)),
    ("anthropic", "forced call", lambda r: r.update(tool_choice={"type": "any"})),
    ("anthropic", "sampling", lambda r: r.update(temperature=0.2)),
    ("anthropic", "budget", lambda r: r.update(max_tokens=1024)),
    ("anthropic", "signature", lambda r: r["messages"][1]["content"][0].update(signature="")),
    ("anthropic", "https", lambda r: r["messages"][0]["content"].append(block("http://example.org/a.png"))),
    ("anthropic", "the property", lambda r: r["tools"][0]["input_schema"]["properties"].update({"$filter": {}})),
    ("anthropic", "of an error", lambda r: r["messages"][2]["content"][0].update(is_error=True)),
]  # fmt: skip


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def block(url: str) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "url", "url": url}}


def strict(inner: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"a": inner}, "required": ["a"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "A", "schema": schema, "strict": True}}


@pytest.mark.parametrize(("provider", "problem", "spoil"), SPOILED)
def test_a_request_that_the_provider_refuses_is_found(provider: WireProvider, problem: str, spoil: Spoil) -> None:
    request = copy.deepcopy(GOOD[provider])
    spoil(request)
    body = json.dumps(request).encode()

    assert any(problem in found for found in request_problems(body, provider)), request_problems(body, provider)
    with pytest.raises(AssertionError, match="would refuse the request"):
        assert_accepted(body, provider)


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": NaN}', b'"\xff"', b"[" * 100_000])
def test_a_body_that_is_not_json_is_found(body: bytes) -> None:
    (problem,) = request_problems(body, "openai")

    assert problem.startswith("the body is not JSON")
