"""The spans have the attributes that viewers of agents' traces read.

Looked up in October 2026: in the packages ``logfire`` 5.4 and ``arize-phoenix`` 20.26, which converts the GenAI
conventions to its own, and in the table of properties of Langfuse. Each was also tried, but for Langfuse.
"""

from __future__ import annotations

import json

import pytest

from agentloop import Agent, Price, tool
from agentloop.testing import ScriptedModel, calls
from tests.telemetry.support import Recorder, attributes

CHAT = {"gen_ai.operation.name", "gen_ai.request.model", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"}
RUN = {"gen_ai.operation.name", "gen_ai.agent.name"}
CALL = {"gen_ai.operation.name", "gen_ai.tool.name", "gen_ai.tool.call.id"}
WORDS = {"gen_ai.input.messages", "gen_ai.output.messages"}
ARGUMENTS = {"gen_ai.tool.call.arguments", "gen_ai.tool.call.result"}


@tool
async def looks(at: int) -> str:
    """Look."""
    return f"saw {at}"


@pytest.mark.parametrize(
    ("run", "chat", "call"),
    [
        pytest.param(
            RUN | WORDS,
            CHAT | WORDS | {"operation.cost", "gen_ai.provider.name", "gen_ai.response.model"},
            CALL | ARGUMENTS,
            id="logfire",
        ),
        pytest.param(
            RUN | WORDS | {"session.id"},
            CHAT | WORDS | {"gen_ai.usage.cost", "gen_ai.response.model"},
            CALL | ARGUMENTS,
            id="langfuse",
        ),
        pytest.param(
            RUN | WORDS | {"gen_ai.conversation.id", "gen_ai.provider.name"},
            CHAT | WORDS | {"gen_ai.conversation.id", "gen_ai.provider.name", "gen_ai.response.finish_reasons"},
            CALL | ARGUMENTS | {"gen_ai.tool.description"},
            id="phoenix",
        ),
    ],
)
async def test_a_viewer_finds_what_it_reads(run: set[str], chat: set[str], call: set[str]) -> None:
    recorder = Recorder(content=True)
    model = ScriptedModel(calls("looks", at=1), "Done.", name="openai:gpt-5")
    await Agent(model, tools=[looks], prices={"openai:gpt-5": Price(1, 2)}, observers=[recorder.tracing]).run("go")
    for name, needed in (("invoke_agent", run), ("chat", chat), ("execute_tool", call)):
        for span in recorder.named(name):
            found = attributes(span)
            assert needed <= found.keys()
            assert found["gen_ai.operation.name"] == name
            # Viewers parse these texts.
            assert all(json.loads(found[key]) for key in found.keys() & {*WORDS, "gen_ai.tool.call.arguments"})


async def test_no_viewer_counts_a_response_twice() -> None:
    recorder = Recorder()
    await Agent(ScriptedModel("Done."), observers=[recorder.tracing]).run("go")
    counted = [span.name for span in recorder.spans if any("gen_ai.usage." in name for name in attributes(span))]
    assert counted == ["chat scripted"]
