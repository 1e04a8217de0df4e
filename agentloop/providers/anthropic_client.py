"""Models behind a client of Anthropic's SDK that the user has made: for Bedrock, Vertex, Foundry, a gateway.

A program without such a client needs none: `agentloop.providers.anthropic` speaks the same API without the SDK, which
takes more than a second to import.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from agentloop.errors import MissingExtraError

# Before `_sdk`, so that the error names this package, and not one of its dependencies.
try:
    import anthropic
except ModuleNotFoundError as error:
    raise MissingExtraError(
        feature="A model behind an Anthropic client", extra="anthropic", package="anthropic"
    ) from error

from agentloop.providers._messages_format import CacheLifetime, MessagesFormat
from agentloop.providers._sdk import Sdk, SdkTransport, check_is_async
from agentloop.providers._tool_search import claude_has_tool_search
from agentloop.providers._trace_headers import trace_headers
from agentloop.providers._wire_model import WireModel

__all__ = ["AnthropicClient", "AsyncClient"]

_SDK = Sdk(anthropic.APIError, anthropic.APIStatusError, anthropic.APIConnectionError, anthropic.APITimeoutError)


class AsyncClient(Protocol):
    """An asynchronous client of Anthropic's SDK, whose clients for the different clouds have no class in common.

    `anthropic.AsyncAnthropic`, ``AsyncAnthropicBedrock``, ``AsyncAnthropicVertex`` and others fit this protocol.
    """

    @property
    def base_url(self) -> object:
        """The URL of its requests."""
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


class AnthropicClient(WireModel):
    """A Claude model behind an existing client.

    ::

        async with anthropic.AsyncAnthropicBedrock(aws_region="eu-central-1") as client:
            agent = Agent(AnthropicClient(client, "anthropic.claude-opus-5-5"), tools=[...])
            ...

    The client stays the user's, who closes it after the last run; until then it holds its connections. Its URL, keys,
    headers, HTTP client and timeouts apply; its own retries are turned off for these requests, since the stream
    retries by itself and emits an event for each retry. Its timeouts count beside the deadlines of the stream, and the
    shorter one ends the response. When a response ends, it holds nothing of the client; but a request that is cancelled
    during the TLS handshake leaves its socket to the garbage collector, as every request of httpx2 (2.16) does.

    The remarks of `agentloop.providers.anthropic.Anthropic` about thoughts and settings apply here too.

    Args:
      client: an `anthropic.AsyncAnthropic`, or one for another cloud.
      model: the server's name for the model.
      name: the model's name in events and errors; ``model`` by default.
      max_tokens: the upper bound of a response, in tokens, where `ModelSettings.max_tokens` is ``None``.
      cache: how long the server keeps a prompt in its cache. ``None`` turns caching off, for a server without one.
      reads_media: whether the model can see pictures and read documents. Otherwise a note stands in their place. By
        default the model's name decides.
      tool_search: whether the model loads deferred tools by its provider's own tool search (see
        `agentloop.deferred`). By default, the host and the model's name decide.

    Raises:
      UsageError: the client is synchronous.
    """

    __slots__ = ()

    def __init__(
        self,
        client: AsyncClient,
        model: str,
        *,
        name: str | None = None,
        max_tokens: int = 32_000,
        cache: CacheLifetime | None = "5m",
        reads_media: bool | None = None,
        tool_search: bool | None = None,
    ) -> None:
        check_is_async(client, "anthropic.AsyncAnthropic()")

        async def send(body: dict[str, Any]) -> anthropic.AsyncStream[object]:
            # `object`: the SDK makes no model classes of the events, which the format reads itself.
            return await client.post(
                MessagesFormat.PATH,
                cast_to=object,
                body=body,
                options={"max_retries": 0, "headers": trace_headers()},
                stream=True,
                stream_cls=anthropic.AsyncStream[object],
            )

        super().__init__(
            MessagesFormat(
                model=model,
                max_tokens=max_tokens,
                cache=cache,
                reads_media=reads_media,
                tool_search=claude_has_tool_search(model, str(client.base_url)) if tool_search is None else tool_search,
            ),
            SdkTransport(_SDK, client, send),
            name=name or model,
        )
