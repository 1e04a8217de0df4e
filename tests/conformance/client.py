"""The client that the conformance suite looks at: ``python -m tests.conformance.client URL``.

An agent whose only toolset is the suite's server. Its model calls every tool there is, one after the other, with what
their schemas ask for, unless the suite says what to call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from agentloop import Accept, Agent, Limits
from agentloop.events import ElicitationRequested, Question
from agentloop.mcp import McpServer
from agentloop.messages import AssistantMessage
from agentloop.models import ModelRequest
from agentloop.questions import Answer
from agentloop.testing import FunctionModel, Response, ScriptedModel, calls, says

# What the suite tells, beside the URL.
SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
VERSION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "")
CONTEXT = msgspec.json.decode(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"), type=dict[str, Any])

SECONDS = 60.0
VALUES: dict[str, Any] = {"number": 2, "integer": 2, "boolean": True, "array": [], "object": {}}


def fill_in(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Something for each field that ``schema`` requires, and that has no default."""
    fields: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    required = {name: fields.get(name, {}) for name in schema.get("required", ())}
    return {name: VALUES.get(field.get("type", ""), "x") for name, field in required.items() if "default" not in field}


def planned(request: ModelRequest) -> list[Response]:
    """The calls to make, in order."""
    if "toolCalls" in CONTEXT:
        return [calls(call["name"], **call.get("arguments", {})) for call in CONTEXT["toolCalls"]]
    tools = [(tool.name, tool.parameters) for tool in request.tools]
    if SCENARIO == "json-schema-2020-12-preservation":
        # The second tool wants to be told what has arrived of the schema of the first.
        (first, schema), (echo, schema_of_echo) = tools
        arguments: dict[str, Any] = dict.fromkeys(schema_of_echo["properties"], schema)
        return [calls(first, **fill_in(schema)), calls(echo, **arguments)]
    return [calls(name, **fill_in(schema)) for name, schema in tools]


def respond(request: ModelRequest) -> Response:
    turn = sum(isinstance(message, AssistantMessage) for message in request.messages)
    responses = planned(request)
    return responses[turn] if turn < len(responses) else says("Done.")


async def accept(question: Question) -> Answer:
    assert isinstance(question, ElicitationRequested)
    return Accept(fill_in(question.form))


async def main(url: str) -> None:
    server = McpServer.http(
        url,
        mode=VERSION if VERSION >= "2026" else "legacy",
        # All that a client may say that it can do.
        roots=["/"],
        sampling=ScriptedModel("four", repeat=True),
        approve_sampling=False,
    )
    agent = Agent(FunctionModel(respond), toolsets=[server], limits=Limits(turns=100))
    with trio.fail_after(SECONDS):
        outcome = await agent.run("Call every tool.", on_question=accept)
    for message in outcome.messages:
        print(message)


if __name__ == "__main__":
    trio.run(main, sys.argv[-1])
