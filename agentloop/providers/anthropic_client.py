"""Models behind a client of Anthropic's SDK that the user has made: for Bedrock, Vertex, Foundry, a gateway.

Who has no such client needs none: `agentloop.providers.anthropic` speaks the same protocol without the SDK, which
takes more than a second to import.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

# First, so that it is this package that is missed where it is missing, and not one of those that come with it.
from agentloop.providers._anthropic import anthropic

# isort: split
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.providers._events import WireEvents
from agentloop.providers._messages_request import Dialect, Written, messages_request
from agentloop.providers._messages_response import MessagesResponse
from agentloop.providers._sdk import Sdk, async_client, posting

__all__ = ["AnthropicClient", "AsyncClient"]

_SDK = Sdk(anthropic.APIError, anthropic.APIStatusError, anthropic.APIConnectionError, anthropic.APITimeoutError)


class AsyncClient(Protocol):
    """An asynchronous client of Anthropic's SDK: its clients for other clouds have no class in common with the first.

    `anthropic.AsyncAnthropic`, ``AsyncAnthropicBedrock``, ``AsyncAnthropicVertex`` and others are all of this kind.
    """

    @property
    def base_url(self) -> object:
        """Where its requests go."""
        ...

    async def post(
        self,
        path: str,
        *,
        cast_to: type[object],
        body: object | None = None,
        options: anthropic.RequestOptions = ...,
        stream: Literal[True],
        stream_cls: type[anthropic.AsyncStream[object]],
    ) -> anthropic.AsyncStream[object]:
        """Send a request to a path of the API."""
        ...


class AnthropicClient:
    """A Claude model behind a client that is there already.

    ::

        async with anthropic.AsyncAnthropicBedrock(aws_region="eu-central-1") as client:
            agent = Agent(AnthropicClient(client, "anthropic.claude-opus-5-5"), tools=[...])
            ...

    The client stays the user's, who closes it after the last run: until then it keeps connections, as it always does.
    Its URL, keys, headers, HTTP client and timeouts hold; its own retries are turned off for our requests, since the
    stream that asks retries by itself, and says so. Its timeouts count beside the deadlines of the stream, and what
    is sooner ends the response. When a response ends, it holds nothing of the client; but a request that is cancelled
    during the TLS handshake leaves its socket to the garbage collector, as every request of httpx2 (2.16) does.

    What `agentloop.providers.anthropic.Anthropic` says of thoughts and settings holds here too.

    Args:
      client: an `anthropic.AsyncAnthropic`, or one for another cloud.
      model: what the server calls the model.
      name: what events and errors call the model; ``model`` if not given.
      max_tokens: what a response may have at most where `ModelSettings.max_tokens` is not given.
      cache: for how long the server keeps what it has read. ``None`` turns it off, for a server that cannot.

    Raises:
      UsageError: the client is not an asynchronous one.
    """

    __slots__ = ("_client", "_dialect", "name")

    def __init__(
        self,
        client: AsyncClient,
        model: str,
        *,
        name: str | None = None,
        max_tokens: int = 32_000,
        cache: Literal["5m", "1h"] | None = "5m",
    ) -> None:
        async_client(client, "anthropic.AsyncAnthropic()")
        self.name = name or model
        """What events and errors call it."""
        self._client = client
        self._dialect = Dialect(model=model, max_tokens=max_tokens, cache=cache)

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Reply to ``request`` and say how it ended.

        A response that has come to its stop reason counts, also if the connection drops before its last event.

        Raises:
          ModelStatusError: the server refused the request, or told an error in mid-stream.
          ModelConnectionError: the server could not be reached, or the response was cut off before its end.
          ModelProtocolError: what came is no message.
        """
        asked = messages_request(request, self._dialect, Written())
        response = MessagesResponse(name=self.name, model=self._dialect.model, prefix=asked.prefix, reply=reply)
        async with _events(self.name, self._client, asked.body) as events:
            return await response.read(events)

    def __repr__(self) -> str:
        return f"<AnthropicClient {self.name}>"


def _events(model: str, client: AsyncClient, body: bytes) -> AbstractAsyncContextManager[WireEvents]:
    async def post() -> anthropic.AsyncStream[object]:
        # `object`: no model classes are made of the events, which we read ourselves.
        return await client.post(
            "/v1/messages",
            cast_to=object,
            body=posting(body),
            options={"max_retries": 0},
            stream=True,
            stream_cls=anthropic.AsyncStream[object],
        )

    return _SDK.events(model, str(client.base_url), post)
