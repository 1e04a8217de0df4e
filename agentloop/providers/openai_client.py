"""Models behind a client of OpenAI's SDK that the user has made: for Azure, Bedrock, a gateway, a proxy.

Who has no such client needs none: `agentloop.providers.openai_chat` and `agentloop.providers.openai_responses` speak
the same protocols without the SDK, which takes half a second to import.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Literal

# First, so that it is this package that is missed where it is missing, and not one of those that come with it.
from agentloop.providers._openai import openai

# isort: split
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.providers._chat_request import Dialect as ChatDialect, Written as ChatWritten, chat_request
from agentloop.providers._chat_response import ChatResponse
from agentloop.providers._events import WireEvents
from agentloop.providers._responses_request import Dialect, Written, reasons, responses_request
from agentloop.providers._responses_response import ResponsesResponse
from agentloop.providers._sdk import Sdk, async_client, posting

__all__ = ["OpenAIClientChat", "OpenAIClientResponses"]

_SDK = Sdk(openai.APIError, openai.APIStatusError, openai.APIConnectionError, openai.APITimeoutError)
_EXAMPLE = "openai.AsyncOpenAI()"


class OpenAIClientChat:
    """A model behind the chat completions endpoint of a client that is there already.

    ::

        async with openai.AsyncAzureOpenAI(azure_endpoint=url, api_version=version) as client:
            agent = Agent(OpenAIClientChat(client, "my-deployment"), tools=[...])
            ...

    The client stays the user's, who closes it after the last run: until then it keeps connections, as it always does.
    Its URL, keys, headers, HTTP client and timeouts hold; its own retries are turned off for our requests, since the
    stream that asks retries by itself, and says so. Its timeouts count beside the deadlines of the stream, and what
    is sooner ends the response. When a response ends, it holds nothing of the client; but a request that is cancelled
    during the TLS handshake leaves its socket to the garbage collector, as every request of httpx2 (2.16) does.

    Args:
      client: an `openai.AsyncOpenAI`, or one derived from it, such as `openai.AsyncAzureOpenAI`.
      model: what the server calls the model; at Azure, the deployment.
      name: what events and errors call the model; ``model`` if not given.
      send_reasoning: the field in which the model's earlier reasoning is sent back to it. See `OpenAIChat`.
      max_tokens_field: how the server calls `ModelSettings.max_tokens`. ``max_completion_tokens`` at OpenAI and Azure,
        ``max_tokens`` elsewhere.
      stream_usage: whether to ask for the usage; a few old servers refuse the question.

    Raises:
      UsageError: the client is not an asynchronous one.
    """

    __slots__ = ("_client", "_dialect", "name")

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        model: str,
        *,
        name: str | None = None,
        send_reasoning: Literal["reasoning_content", "reasoning", "reasoning_details"] | None = None,
        max_tokens_field: str | None = None,
        stream_usage: bool = True,
    ) -> None:
        async_client(client, _EXAMPLE)
        self.name = name or model
        """What events and errors call it."""
        self._client = client
        if max_tokens_field is None:
            official = isinstance(client, openai.AsyncAzureOpenAI) or client.base_url.host == "api.openai.com"
            max_tokens_field = "max_completion_tokens" if official else "max_tokens"
        self._dialect = ChatDialect(
            model=model,
            max_tokens_field=max_tokens_field,
            send_reasoning=send_reasoning,
            stream_usage=stream_usage,
        )

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Reply to ``request`` and say how it ended.

        A response that has come to its finish counts, also if the connection drops before its usage came.

        Raises:
          ModelStatusError: the server refused the request, or told an error in mid-stream.
          ModelConnectionError: the server could not be reached, or the response was cut off before its finish.
          ModelProtocolError: what came is no chat completion.
        """
        response = ChatResponse(name=self.name, model=self._dialect.model, reply=reply)
        body = chat_request(request, self._dialect, ChatWritten())
        async with _events(self.name, self._client, "/chat/completions", body) as events:
            return await response.read(events)

    def __repr__(self) -> str:
        return f"<OpenAIClientChat {self.name}>"


class OpenAIClientResponses:
    """A model behind the Responses endpoint of a client that is there already.

    What `OpenAIClientChat` says of the client, and `OpenAIResponses` of the protocol, holds here too.

    Args:
      client: an `openai.AsyncOpenAI`, or one derived from it, such as `openai.AsyncAzureOpenAI`.
      model: what the server calls the model; at Azure, the deployment.
      name: what events and errors call the model; ``model`` if not given.
      reasoning_summary: the summary of the reasoning to ask for. None by default: OpenAI gives summaries to verified
        organizations only, and refuses the request of others.
      encrypted_reasoning: whether to ask for the reasoning in a form that can be sent back. A model that does not
        reason refuses the question; by default its name decides, which a deployment need not have.

    Raises:
      UsageError: the client is not an asynchronous one.
    """

    __slots__ = ("_client", "_dialect", "name")

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        model: str,
        *,
        name: str | None = None,
        reasoning_summary: Literal["auto", "concise", "detailed"] | None = None,
        encrypted_reasoning: bool | None = None,
    ) -> None:
        async_client(client, _EXAMPLE)
        self.name = name or model
        """What events and errors call it."""
        self._client = client
        self._dialect = Dialect(
            model=model,
            encrypted_reasoning=reasons(model) if encrypted_reasoning is None else encrypted_reasoning,
            reasoning_summary=reasoning_summary,
        )

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Reply to ``request`` and say how it ended.

        Raises:
          ModelStatusError: the server refused the request, or told an error in mid-stream.
          ModelConnectionError: the server could not be reached, or the response was cut off before its end.
          ModelProtocolError: what came is no response.
        """
        response = ResponsesResponse(name=self.name, model=self._dialect.model, reply=reply)
        body = responses_request(request, self._dialect, Written())
        async with _events(self.name, self._client, "/responses", body) as events:
            return await response.read(events)

    def __repr__(self) -> str:
        return f"<OpenAIClientResponses {self.name}>"


def _events(model: str, client: openai.AsyncOpenAI, path: str, body: bytes) -> AbstractAsyncContextManager[WireEvents]:
    async def post() -> openai.AsyncStream[object]:
        # `object`: no model classes are made of the events, which we read ourselves.
        return await client.post(
            path,
            cast_to=object,
            body=posting(body),
            options={"max_retries": 0},
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )

    return _SDK.events(model, str(client.base_url), post)
