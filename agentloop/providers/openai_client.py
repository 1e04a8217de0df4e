"""Models behind a client of OpenAI's SDK that the user has made: for Azure, Bedrock, a gateway, a proxy.

A program without such a client needs none: `agentloop.providers.openai_chat` and `agentloop.providers.openai_responses`
speak the same APIs without the SDK, which takes half a second to import.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve

from agentloop.errors import MissingExtraError

# Before `_sdk`, so that the error names this package, and not one of its dependencies.
try:
    import openai
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="A model behind an OpenAI client", extra="openai", package="openai") from error

from agentloop.providers._chat_format import ChatFormat, SendReasoning
from agentloop.providers._dialects import ChatDialect, chat_dialect, is_openai
from agentloop.providers._responses_format import ReasoningSummary, ResponsesFormat
from agentloop.providers._sdk import Sdk, SdkTransport, check_is_async
from agentloop.providers._tool_search import gpt_has_tool_search
from agentloop.providers._trace_headers import trace_headers
from agentloop.providers._wire_model import WireModel

__all__ = ["OpenAIClientChat", "OpenAIClientResponses"]

_SDK = Sdk(openai.APIError, openai.APIStatusError, openai.APIConnectionError, openai.APITimeoutError)


class OpenAIClientChat(WireModel):
    """A model behind the chat completions endpoint of an existing client.

    ::

        async with openai.AsyncAzureOpenAI(azure_endpoint=url, api_version=version) as client:
            agent = Agent(OpenAIClientChat(client, "my-deployment"), tools=[...])
            ...

    The client stays the user's, who closes it after the last run; until then it holds its connections. Its URL, keys,
    headers, HTTP client and timeouts apply; its own retries are turned off for these requests, since the stream
    retries by itself and emits an event for each retry. Its timeouts count beside the deadlines of the stream, and the
    shorter one ends the response. When a response ends, it holds nothing of the client; but a request that is cancelled
    during the TLS handshake leaves its socket to the garbage collector, as every request of httpx2 (2.16) does.

    Args:
      client: an `openai.AsyncOpenAI`, or one derived from it, such as `openai.AsyncAzureOpenAI`.
      model: the server's name for the model; at Azure, the deployment.
      name: the model's name in events and errors; ``model`` by default.
      send_reasoning: the field in which the model's earlier reasoning is sent back to it. See `OpenAIChat`.
      max_tokens_field: the server's name for `ModelSettings.max_tokens`; by default ``max_completion_tokens`` at OpenAI
        and Azure, ``max_tokens`` elsewhere.
      stream_usage: whether to ask for the usage; a few old servers refuse the question.
      dialect: the server whose rules apply: ``"openai"``, ``"gemini"``, ``"mistral"``, ``"deepseek"``, ``"groq"``,
        ``"openrouter"``, or ``"compatible"`` for any other one. By default the host and the model's name decide.
      reads_media: whether the model can see pictures and read documents. Otherwise a note stands in their place. By
        default the model's name decides, which a deployment need not contain.

    Raises:
      UsageError: the client is synchronous, or there is no such dialect.
    """

    __slots__ = ()

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        model: str,
        *,
        name: str | None = None,
        send_reasoning: SendReasoning | None = None,
        max_tokens_field: str | None = None,
        stream_usage: bool = True,
        dialect: ChatDialect | None = None,
        reads_media: bool | None = None,
    ) -> None:
        transport = _transport(client, ChatFormat.PATH)
        if dialect is None and isinstance(client, openai.AsyncAzureOpenAI):
            dialect = "openai"
        rules = chat_dialect(model, url=str(client.base_url), name=dialect, reads_media=reads_media)
        if max_tokens_field is not None:
            rules = evolve(rules, max_tokens_field=max_tokens_field)
        super().__init__(
            ChatFormat(
                model=model,
                dialect=rules,
                send_reasoning=send_reasoning,
                stream_usage=stream_usage,
                has_cache_key=is_openai(str(client.base_url)),
            ),
            transport,
            name=name or model,
        )


class OpenAIClientResponses(WireModel):
    """A model behind the Responses endpoint of an existing client.

    The remarks of `OpenAIClientChat` about the client, and of `OpenAIResponses` about the API, apply here too.

    Args:
      client: an `openai.AsyncOpenAI`, or one derived from it, such as `openai.AsyncAzureOpenAI`.
      model: the server's name for the model; at Azure, the deployment.
      name: the model's name in events and errors; ``model`` by default.
      reasoning_summary: the summary of the reasoning to ask for. None by default: OpenAI gives summaries to verified
        organizations only, and refuses the request of others.
      encrypted_reasoning: whether to ask for the reasoning in a form that can be sent back, which a model that does
        not reason refuses. By default the model's name decides, which a deployment need not contain.
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
        client: openai.AsyncOpenAI,
        model: str,
        *,
        name: str | None = None,
        reasoning_summary: ReasoningSummary | None = None,
        encrypted_reasoning: bool | None = None,
        reads_media: bool | None = None,
        tool_search: bool | None = None,
    ) -> None:
        super().__init__(
            ResponsesFormat(
                model=model,
                encrypted_reasoning=encrypted_reasoning,
                reasoning_summary=reasoning_summary,
                reads_media=reads_media,
                tool_search=gpt_has_tool_search(model, str(client.base_url)) if tool_search is None else tool_search,
                has_cache_key=is_openai(str(client.base_url)),
            ),
            _transport(client, ResponsesFormat.PATH),
            name=name or model,
        )


def _transport(client: openai.AsyncOpenAI, path: str) -> SdkTransport:
    check_is_async(client, "openai.AsyncOpenAI()")

    async def send(body: dict[str, Any]) -> openai.AsyncStream[object]:
        # `object`: the SDK makes no model classes of the events, which the format reads itself.
        return await client.post(
            path,
            cast_to=object,
            body=body,
            options={"max_retries": 0, "headers": trace_headers()},
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )

    return SdkTransport(_SDK, client, send)
