"""Models behind OpenAI's chat completions protocol, which nearly every server speaks."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from agentloop.models import ModelRequest, Reply, Stop
from agentloop.providers._chat_request import Dialect, Written, chat_request
from agentloop.providers._chat_response import ChatResponse
from agentloop.providers._http import Http

__all__ = ["OPENAI_URL", "OpenAIChat"]

OPENAI_URL = "https://api.openai.com/v1"


class OpenAIChat:
    """A model behind an OpenAI-compatible chat completions endpoint.

    OpenAI itself, OpenRouter, Ollama, vLLM, LM Studio, llama.cpp, DeepSeek, Gemini's compatible endpoint and others.

    It holds nothing that must be closed. Outside of an `open` block, each response has a connection of its own;
    ``async with model.open() as kept:`` gives the same model with connections that are kept from one response to the
    next, and closed when the block ends. Open it around several runs to share connections between them::

        async with OpenAIChat("gpt-5", api_key=key).open() as model:
            agent = Agent(model, tools=[...])
            ...

    Args:
      model: what the server calls the model.
      base_url: what comes before ``/chat/completions``.
      api_key: sent as a bearer token; ``None`` for a server that needs none.
      headers: further headers of each request.
      name: what events and errors call the model; ``model`` if not given.
      send_reasoning: the field in which the model's earlier reasoning is sent back to it: ``"reasoning_content"`` for
        DeepSeek, which refuses tool results without, ``"reasoning_details"`` for OpenRouter. It is left out by
        default, since some servers refuse it. (Gemini's thought signatures are always sent back.)
      max_tokens_field: how the server calls `ModelSettings.max_tokens`. ``max_completion_tokens`` at OpenAI,
        ``max_tokens`` elsewhere.
      stream_usage: whether to ask for the usage; a few old servers refuse the question.

    Raises:
      UsageError: the URL or a header, such as the one with the key, cannot be sent.
    """

    __slots__ = ("_dialect", "_http", "_written", "name")

    def __init__(
        self,
        model: str,
        *,
        base_url: str = OPENAI_URL,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
        send_reasoning: Literal["reasoning_content", "reasoning", "reasoning_details"] | None = None,
        max_tokens_field: str | None = None,
        stream_usage: bool = True,
    ) -> None:
        self.name = name or model
        """What events and errors call it."""
        base_url = base_url.rstrip("/")
        if max_tokens_field is None:
            max_tokens_field = "max_completion_tokens" if base_url == OPENAI_URL else "max_tokens"
        self._dialect = Dialect(
            model=model,
            max_tokens_field=max_tokens_field,
            send_reasoning=send_reasoning,
            stream_usage=stream_usage,
        )
        # Stripped: a key that was read from a file often ends in a line break.
        authorization = {} if api_key is None else {"Authorization": f"Bearer {api_key.strip()}"}
        self._written: Written | None = None
        """What was written before, while the model is open."""
        self._http = Http(
            model=self.name, url=f"{base_url}/chat/completions", headers={**authorization, **(headers or {})}
        )

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenAIChat]:
        """The same model, with connections that are kept between responses until the block ends. Opens none yet."""
        async with self._http.open() as http:
            opened = copy.copy(self)
            opened._http = http
            opened._written = Written() if opened._written is None else opened._written
            yield opened

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Reply to ``request`` and say how it ended.

        A response that has come to its finish counts, also if the connection drops before its usage came.

        Raises:
          ModelStatusError: the server refused the request, or told an error in mid-stream.
          ModelConnectionError: the server could not be reached, or the response was cut off before its finish.
          ModelProtocolError: what came is no chat completion.
        """
        response = ChatResponse(name=self.name, model=self._dialect.model, reply=reply)
        body = chat_request(request, self._dialect, self._written or Written())
        async with self._http.post(body) as events:
            return await response.read(events)

    def __repr__(self) -> str:
        return f"<OpenAIChat {self.name}>"
