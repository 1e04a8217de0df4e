"""Models behind Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Mapping

from agentloop.providers._http import HttpTransport
from agentloop.providers._messages_format import CacheLifetime, MessagesFormat
from agentloop.providers._tool_search import claude_has_tool_search
from agentloop.providers._wire_model import WireModel

__all__ = ["ANTHROPIC_URL", "Anthropic"]

ANTHROPIC_URL = "https://api.anthropic.com"
ANTHROPIC_VERSION = "2023-06-01"


class Anthropic(WireModel):
    """A Claude model, or another one whose server speaks Anthropic's Messages API.

    The model holds nothing that must be closed; ``open`` shares connections between responses, as for `OpenAIChat`.

    Thoughts stay in the transcript with their signatures, and are sent back to the same model only. The API has no
    field for `ModelSettings.seed`; ``reasoning_effort`` is an effort for Claude 4.6 and newer, a budget of tokens for
    older models; ``temperature`` and ``top_p`` are sent, although Claude 4.7 and newer refuse them. The API refuses one
    setting beside another: a forced call turns thinking off, thinking leaves out ``temperature``, and, from Claude 4.1
    on, ``temperature`` leaves out ``top_p``.

    Args:
      model: the server's name for the model, such as ``claude-opus-5-5``.
      base_url: the part of the URL before ``/v1/messages``, with or without the version. A query in it is sent with
        each request; a user and a password are sent as basic authentication, beside the key.
      api_key: the key, sent as ``x-api-key``; ``None`` for a server that needs none.
      headers: further headers of each request, such as ``anthropic-beta``.
      name: the model's name in events and errors; ``model`` by default.
      max_tokens: the upper bound of a response, in tokens, where `ModelSettings.max_tokens` is ``None``.
      cache: how long the server keeps a prompt in its cache, so that the next request pays a tenth for it; writing
        costs a quarter more for ``"5m"``, twice as much for ``"1h"``. ``None`` turns caching off.
      reads_media: whether the model can see pictures and read documents. Otherwise a note stands in their place. By
        default the model's name decides.
      tool_search: whether the model loads deferred tools by its provider's own tool search (see
        `agentloop.deferred`). By default, the host and the model's name decide.

    Raises:
      UsageError: the URL or a header, such as the one with the key, cannot be sent.
    """

    __slots__ = ()

    def __init__(
        self,
        model: str,
        *,
        base_url: str = ANTHROPIC_URL,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
        max_tokens: int = 32_000,
        cache: CacheLifetime | None = "5m",
        reads_media: bool | None = None,
        tool_search: bool | None = None,
    ) -> None:
        # Stripped: a key that was read from a file often ends in a line break.
        key = {} if api_key is None else {"x-api-key": api_key.strip()}
        super().__init__(
            MessagesFormat(
                model=model,
                max_tokens=max_tokens,
                cache=cache,
                reads_media=reads_media,
                tool_search=claude_has_tool_search(model, base_url) if tool_search is None else tool_search,
            ),
            HttpTransport(
                url=base_url,
                path=MessagesFormat.PATH,
                headers={"anthropic-version": ANTHROPIC_VERSION, **key, **(headers or {})},
            ),
            name=name or model,
        )
