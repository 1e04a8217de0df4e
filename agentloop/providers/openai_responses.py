"""Models behind OpenAI's Responses API."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from agentloop.models import ModelRequest, Reply, Stop
from agentloop.providers._http import Http
from agentloop.providers._responses_request import Dialect, Written, reasons, responses_request
from agentloop.providers._responses_response import ResponsesResponse
from agentloop.providers.openai_chat import OPENAI_URL

__all__ = ["OpenAIResponses"]


class OpenAIResponses:
    """A model behind OpenAI's Responses API, or a server that speaks it.

    The server stores nothing: each request carries the whole transcript, and the model's earlier reasoning in the
    encrypted form in which it came. Only the model that wrote it gets it back.

    It holds nothing that must be closed. Outside of an `open` block, each response has a connection of its own;
    ``async with model.open() as kept:`` gives the same model with connections that are kept from one response to the
    next, and closed when the block ends.

    The protocol has no word for `ModelSettings.seed` and `ModelSettings.stop`: they are left out.

    Args:
      model: what the server calls the model.
      base_url: what comes before ``/responses``.
      api_key: sent as a bearer token; ``None`` for a server that needs none.
      headers: further headers of each request.
      name: what events and errors call the model; ``model`` if not given.
      reasoning_summary: the summary of the reasoning to ask for. None by default: OpenAI gives summaries to verified
        organizations only, and refuses the request of others.
      encrypted_reasoning: whether to ask for the reasoning in a form that can be sent back. A model that does not
        reason refuses the question; by default its name decides.

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
        reasoning_summary: Literal["auto", "concise", "detailed"] | None = None,
        encrypted_reasoning: bool | None = None,
    ) -> None:
        self.name = name or model
        """What events and errors call it."""
        self._dialect = Dialect(
            model=model,
            encrypted_reasoning=reasons(model) if encrypted_reasoning is None else encrypted_reasoning,
            reasoning_summary=reasoning_summary,
        )
        # Stripped: a key that was read from a file often ends in a line break.
        authorization = {} if api_key is None else {"Authorization": f"Bearer {api_key.strip()}"}
        self._written: Written | None = None
        """What was written before, while the model is open."""
        self._http = Http(
            model=self.name, url=f"{base_url.rstrip('/')}/responses", headers={**authorization, **(headers or {})}
        )

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenAIResponses]:
        """The same model, with connections that are kept between responses until the block ends. Opens none yet."""
        async with self._http.open() as http:
            opened = copy.copy(self)
            opened._http = http
            opened._written = Written() if opened._written is None else opened._written
            yield opened

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Reply to ``request`` and say how it ended.

        Raises:
          ModelStatusError: the server refused the request, or told an error in mid-stream.
          ModelConnectionError: the server could not be reached, or the response was cut off before its end.
          ModelProtocolError: what came is no response.
        """
        response = ResponsesResponse(name=self.name, model=self._dialect.model, reply=reply)
        body = responses_request(request, self._dialect, self._written or Written())
        async with self._http.post(body) as events:
            return await response.read(events)

    def __repr__(self) -> str:
        return f"<OpenAIResponses {self.name}>"
