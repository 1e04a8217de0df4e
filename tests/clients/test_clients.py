"""Clients that nobody here wrote talk to a server of ``python -m agentloop serve``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
import trio

pytestmark = pytest.mark.real_clock

SAID = ["TEXT_MESSAGE_START", *["TEXT_MESSAGE_CONTENT"] * 5, "TEXT_MESSAGE_END"]


def cancelled(server: str) -> int:
    """How many calls of the slow tool were cancelled on the server."""
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    messages: Any = [{"role": "user", "content": "cancelled"}]
    answer = client.chat.completions.create(model="assistant", messages=messages).choices[0].message.content
    client.close()
    assert answer is not None
    return int(answer.split()[3])


def test_the_client_of_ag_ui_talks_approves_and_aborts(run_script: Callable[[str], Any], server: str) -> None:
    before = cancelled(server)
    seen = run_script("ag_ui.mjs")
    assert seen["add"][2:7] == [
        "TOOL_CALL_START",
        "TOOL_CALL_ARGS",
        "TOOL_CALL_ARGS",
        "TOOL_CALL_END",
        "TOOL_CALL_RESULT",
    ]
    assert seen["add"][-9:-2] == SAID
    assert seen["outcome"]["interrupts"][0]["message"] == 'Run pay({"amount":5})?'
    assert seen["resumed"].count("TOOL_CALL_RESULT") == 1
    assert "TOOL_CALL_START" not in seen["resumed"]
    assert "REASONING_MESSAGE_CONTENT" in seen["thinking"]
    roles = ["user", "assistant", "tool", "assistant"] * 2 + ["user", "reasoning", "assistant"]
    assert [role for role, _ in seen["messages"]] == roles
    assert [text for _, text in seen["messages"]][7] == "The result is paid 5."
    assert cancelled(server) == before + 1


def test_the_client_of_openai_for_javascript_talks_and_aborts(run_script: Callable[[str], Any], server: str) -> None:
    before = cancelled(server)
    seen = run_script("openai.mjs")
    assert seen["models"] == ["assistant"]
    assert seen["streamed"] == "You said: hello"
    assert seen["counted"]["total_tokens"] == 15
    assert seen["final"] == seen["whole"] == seen["output"] == "".join(seen["deltas"]) == "The result is 5."
    assert (seen["finish"], seen["usage"], seen["total"]) == ("stop", 30, 30)
    assert seen["next"] == "You said: hello"
    assert [status for status, _ in seen["refused"]] == [404, 400]
    assert seen["aborted"]
    assert cancelled(server) == before + 1


def test_the_ai_sdk_talks_approves_refuses_and_reads_from_a_second_page(run_script: Callable[[str], Any]) -> None:
    seen = run_script("vercel.mjs")
    assert seen["errors"] == []
    assert seen["text"][1][1][-1]["text"] == "You said: hello"
    for role, parts in (seen["add"], seen["paid"], seen["denied"]):
        assert role == "assistant"
        assert [part["type"] for part in parts] == ["step-start", "dynamic-tool", "step-start", "text"]
    outputs = [seen[name][1][1].get("output") for name in ("add", "paid", "denied")]
    assert outputs == ["5", "paid 5", None]
    assert seen["denied"][1][1]["state"] == "output-denied"
    assert (seen["grew"], seen["status"]) == (0, "ready")
    assert seen["shared"][1][-1]["state"] == "input-available"


async def test_the_client_of_openai_for_python_reads_both_protocols(server: str) -> None:
    # In a thread: the client's own async half is for asyncio, as far as it is tested.
    def talk() -> tuple[Any, ...]:
        with openai.OpenAI(base_url=f"{server}/v1", api_key="none") as client:
            chunks = client.chat.completions.create(
                model="assistant", stream=True, messages=[{"role": "user", "content": "please add"}]
            )
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            with client.responses.stream(model="assistant", input="please add") as stream:
                types = [event.type for event in stream]
                final = stream.get_final_response()
            return streamed, types, final.output_text, final.usage

    streamed, types, output, usage = await trio.to_thread.run_sync(talk)
    assert streamed == output == "The result is 5."
    assert (types[0], types[-1]) == ("response.created", "response.completed")
    assert usage.total_tokens == 30
