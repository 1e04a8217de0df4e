"""A fallback takes over in the middle of a turn, from any provider to any other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from attrs import frozen

from agentloop import Agent, ModelSettings, Retries, tool
from agentloop.messages import Image, Text
from agentloop.providers.anthropic import Anthropic
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.providers.openai_responses import OpenAIResponses
from agentloop.testing import WireProvider, assert_accepted
from tests.providers.conformance import Argued, Called, ChatWire, MessagesWire, ResponsesWire, Said, Thought, Wire
from tests.providers.server import Peer, answer, chunked, serving

pytestmark = pytest.mark.real_clock

PNG = b"\x89PNG\r\n\x1a\n1"


@frozen
class Speaker:
    """A model of a provider, at a server of the test."""

    provider: WireProvider
    wire: Wire
    call_id: str
    make: Callable[..., Any]
    """Of a ``base_url``."""


CHAT, RESPONSES, MESSAGES = ChatWire(), ResponsesWire(), MessagesWire()
DEEPSEEK = partial(OpenAIChat, "deepseek-chat", send_reasoning="reasoning_content")
SPEAKERS = {
    "openai": Speaker("openai", CHAT, "call_" + "a" * 24, partial(OpenAIChat, "gpt-5", dialect="openai")),
    "vllm": Speaker("openai", CHAT, "chatcmpl-tool-" + "5f" * 16, partial(OpenAIChat, "qwen3-vl")),
    "responses": Speaker("openai-responses", RESPONSES, "call_" + "b" * 24, partial(OpenAIResponses, "gpt-5.1")),
    "claude": Speaker("anthropic", MESSAGES, "toolu_" + "c" * 24, partial(Anthropic, "claude-sonnet-4-5")),
    "claude 5": Speaker("anthropic", MESSAGES, "toolu_" + "d" * 24, partial(Anthropic, "claude-opus-5-5")),
    "gemini": Speaker("gemini", CHAT, "", partial(OpenAIChat, "gemini-3-pro-preview")),
    "mistral": Speaker("mistral", CHAT, "Ab3dEf6h9", partial(OpenAIChat, "mistral-large-latest")),
    "deepseek": Speaker("deepseek", CHAT, "call_00_e", DEEPSEEK),
}


@tool
def draw(what: str) -> list[Text | Image]:
    """Draw a picture."""
    return [Text(f"Here is {what}:"), Image(PNG)]


@pytest.mark.parametrize("first", SPEAKERS)
async def test_a_fallback_goes_on_with_the_turn_of_any_provider(first: str) -> None:
    speaker = SPEAKERS[first]
    for name, fallback in SPEAKERS.items():
        if name == first:
            continue
        called = speaker.wire.whole(
            Thought("Hm."), Said("I draw."),
            Called(0, speaker.call_id, "draw"), Argued(0, '{"what": "a cat"}'),
            Called(1, f"{speaker.call_id[:-1]}2", "draw.it"), Argued(1, "[1]"),
            stop="tool_calls",
        )  # fmt: skip
        busy = answer(b"{}", status="503 Busy")
        answers = [chunked(*called), busy, chunked(*fallback.wire.whole(Said("Done.")))]

        async def handler(peer: Peer, answers: list[bytes] = answers) -> None:
            while await peer.request() is not None:
                await peer.send(answers.pop(0))

        async with serving(handler) as server:
            agent = Agent(
                speaker.make(base_url=server.url),
                fallbacks=[fallback.make(base_url=server.url)],
                tools=[draw],
                # The next pair may have the same port, and be another server.
                retries=Retries(attempts=1, cooldown=0),
                settings=ModelSettings(reasoning_effort="low", temperature=1.0),
            )
            outcome = await agent.run("Draw a cat.")

        assert outcome.output == "Done."
        own, again, taken_over = (request.body for request in server.requests)
        assert_accepted(own, speaker.provider)
        assert_accepted(again, speaker.provider)
        assert_accepted(taken_over, fallback.provider)
        # The transcript keeps the original.
        assert any(call.name == "draw.it" for message in outcome.messages for call in getattr(message, "calls", ()))
        assert msgspec.json.decode(own)["model"] != msgspec.json.decode(taken_over)["model"]
