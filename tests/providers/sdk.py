"""Adapters over the clients of SDKs, for the tests that try all of them, and for those that are about them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
from attrs import frozen

from agentloop.models import Model
from agentloop.providers.anthropic import Anthropic
from agentloop.providers.anthropic_client import AnthropicClient
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.providers.openai_client import OpenAIClientChat, OpenAIClientResponses
from agentloop.providers.openai_responses import OpenAIResponses
from tests.providers.conformance import ChatWire, MessagesWire, ResponsesWire, Wire
from tests.providers.server import chunked

__all__ = ["CHAT", "MESSAGES", "NO_TLS", "OVER_SDK", "RESPONSES", "OverSdk", "anthropic_client", "openai_client"]


@frozen
class OverSdk:
    """A protocol, and a model behind a client that speaks it."""

    name: str
    wire: Wire
    path: str
    client: Callable[[str], Any]
    """Of the server's URL. It asks three times unless told otherwise."""
    model: Callable[[Any], Model]
    over_http: Callable[[str], Model]
    """The model that speaks the protocol without the SDK."""

    def __str__(self) -> str:
        return f"{self.name}-client"

    @asynccontextmanager
    async def at(self, url: str) -> AsyncGenerator[Model]:
        async with self.client(url) as client:
            yield self.model(client)

    def whole(self, *pieces: Any, **ending: Any) -> bytes:
        return chunked(*self.wire.whole(*pieces, **ending))


NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Instead of one for each client, whose certificates take longer to load than most tests run."""


def openai_client(url: str) -> openai.AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(verify=NO_TLS)
    return openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=2, http_client=http)


def anthropic_client(url: str) -> anthropic.AsyncAnthropic:
    http = anthropic.DefaultAsyncHttpxClient(verify=NO_TLS)
    return anthropic.AsyncAnthropic(base_url=url.removesuffix("/v1"), api_key="k", max_retries=2, http_client=http)


CHAT = OverSdk(
    "chat",
    ChatWire(),
    "/v1/chat/completions",
    openai_client,
    lambda client: OpenAIClientChat(client, "m"),
    lambda url: OpenAIChat("m", base_url=url),
)
RESPONSES = OverSdk(
    "responses",
    ResponsesWire(),
    "/v1/responses",
    openai_client,
    lambda client: OpenAIClientResponses(client, "m"),
    lambda url: OpenAIResponses("m", base_url=url),
)
MESSAGES = OverSdk(
    "messages",
    MessagesWire(),
    "/v1/messages",
    anthropic_client,
    lambda client: AnthropicClient(client, "m"),
    lambda url: Anthropic("m", base_url=url),
)

OVER_SDK = (CHAT, RESPONSES, MESSAGES)
