"""Models behind Anthropic's Messages API."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from agentloop.models import ModelRequest, Reply, Stop
from agentloop.providers._http import Http
from agentloop.providers._messages_request import Dialect, Written, messages_request
from agentloop.providers._messages_response import MessagesResponse

__all__ = ["ANTHROPIC_URL", "Anthropic"]

ANTHROPIC_URL = "https://api.anthropic.com"
ANTHROPIC_VERSION = "2023-06-01"


class Anthropic:
    """A Claude model, or another one whose server speaks Anthropic's Messages API.

    It holds nothing that must be closed. Outside of an `open` block, each response has a connection of its own;
    ``async with model.open() as kept:`` gives the same model with connections that are kept from one response to the
    next, and closed when the block ends.

    What the model thinks is kept with its signature, and sent back to the same model only. Of the settings, ``seed``
    has no counterpart; ``reasoning_effort`` is an effort for Claude 4.6 and newer, a budget of tokens for older models;
    ``temperature`` and ``top_p`` are sent as given, although Claude 4.7 and newer refuse them.

    Args:
      model: what the server calls the model, such as ``claude-opus-5-5``.
      base_url: what comes before ``/v1/messages``.
      api_key: sent as ``x-api-key``; ``None`` for a server that needs none.
      headers: further headers of each request, such as ``anthropic-beta``.
      name: what events and errors call the model; ``model`` if not given.
      max_tokens: what a response may have at most where `ModelSettings.max_tokens` is not given.
      cache: for how long the server keeps what it has read, so that the next request pays a tenth for it; writing
        costs a quarter more for ``"5m"``, twice as much for ``"1h"``. ``None`` turns it off.

    Raises:
      UsageError: the URL or a header, such as the one with the key, cannot be sent.
    """

    __slots__ = ("_dialect", "_http", "_written", "name")

    def __init__(
        self,
        model: str,
        *,
        base_url: str = ANTHROPIC_URL,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
        max_tokens: int = 32_000,
        cache: Literal["5m", "1h"] | None = "5m",
    ) -> None:
        self.name = name or model
        """What events and errors call it."""
        # With or without the version: both are in use as ANTHROPIC_BASE_URL.
        base_url = base_url.rstrip("/").removesuffix("/v1")
        self._dialect = Dialect(model=model, max_tokens=max_tokens, cache=cache)
        # Stripped: a key that was read from a file often ends in a line break.
        authorization = {} if api_key is None else {"x-api-key": api_key.strip()}
        self._written: Written | None = None
        """What was written before, while the model is open."""
        self._http = Http(
            model=self.name,
            url=f"{base_url}/v1/messages",
            headers={"anthropic-version": ANTHROPIC_VERSION, **authorization, **(headers or {})},
        )

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Anthropic]:
        """The same model, with connections that are kept between responses until the block ends. Opens none yet."""
        async with self._http.open() as http:
            opened = copy.copy(self)
            opened._http = http
            opened._written = Written() if opened._written is None else opened._written
            yield opened

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Reply to ``request`` and say how it ended.

        A response that has come to its stop reason counts, also if the connection drops before its last event.

        Raises:
          ModelStatusError: the server refused the request, or told an error in mid-stream.
          ModelConnectionError: the server could not be reached, or the response was cut off before its end.
          ModelProtocolError: what came is no message.
        """
        asked = messages_request(request, self._dialect, self._written or Written())
        response = MessagesResponse(name=self.name, model=self._dialect.model, prefix=asked.prefix, reply=reply)
        async with self._http.post(asked.body) as events:
            return await response.read(events)

    def __repr__(self) -> str:
        return f"<Anthropic {self.name}>"
