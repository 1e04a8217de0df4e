"""Models behind OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Mapping

from agentloop.providers._dialects import is_openai
from agentloop.providers._http import HttpTransport, bearer
from agentloop.providers._responses_format import ReasoningSummary, ResponsesFormat
from agentloop.providers._tool_search import gpt_has_tool_search
from agentloop.providers._wire_model import WireModel
from agentloop.providers.openai_chat import OPENAI_URL

__all__ = ["OpenAIResponses"]


class OpenAIResponses(WireModel):
    """A model behind OpenAI's Responses API, or behind a server that imitates it.

    The server stores nothing: each request carries the whole transcript, and the model's earlier reasoning in the
    encrypted form in which it arrived. Only the model that wrote it gets it back.

    The model holds nothing that must be closed; ``open`` shares connections between responses, as for `OpenAIChat`.

    The API has no fields for `ModelSettings.seed` and `ModelSettings.stop`: they are left out.

    Args:
      model: the server's name for the model.
      base_url: the part of the URL before ``/responses``. A query in it is sent with each request; a user and a
        password are sent as basic authentication, in place of the key.
      api_key: the key, sent as a bearer token; ``None`` for a server that needs none.
      headers: further headers of each request.
      name: the model's name in events and errors; ``model`` by default.
      reasoning_summary: the summary of the reasoning to ask for. None by default: OpenAI gives summaries to verified
        organizations only, and refuses the request of others.
      encrypted_reasoning: whether to ask for the reasoning in a form that can be sent back, which a model that does
        not reason refuses. By default the model's name decides.
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
        base_url: str = OPENAI_URL,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
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
                tool_search=gpt_has_tool_search(model, base_url) if tool_search is None else tool_search,
                has_cache_key=is_openai(base_url),
            ),
            HttpTransport(url=base_url, path=ResponsesFormat.PATH, key=bearer(api_key), headers=headers or {}),
            name=name or model,
        )
