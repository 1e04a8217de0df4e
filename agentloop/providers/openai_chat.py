"""Models behind OpenAI's chat completions API, which nearly every server speaks."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from agentloop.providers._chat_format import ChatFormat, SendReasoning
from agentloop.providers._dialects import ChatDialect, chat_dialect, is_openai
from agentloop.providers._http import HttpTransport, bearer
from agentloop.providers._wire_model import WireModel

__all__ = ["OPENAI_URL", "OpenAIChat"]

OPENAI_URL = "https://api.openai.com/v1"


class OpenAIChat(WireModel):
    """A model behind an OpenAI-compatible chat completions endpoint.

    OpenAI itself, OpenRouter, Ollama, vLLM, LM Studio, llama.cpp, DeepSeek, Gemini's compatible endpoint and others.

    The model holds nothing that must be closed. Outside of an ``open`` block, each response has a connection of its
    own; ``async with model.open() as opened:`` gives the same model with connections that stay open from one response
    to the next, and are closed when the block ends. Open it around several runs to share connections between them::

        async with OpenAIChat("gpt-5", api_key=key).open() as model:
            agent = Agent(model, tools=[...])
            ...

    Args:
      model: the server's name for the model.
      base_url: the part of the URL before ``/chat/completions``. A query in it is sent with each request; a user and a
        password are sent as basic authentication, in place of the key.
      api_key: the key, sent as a bearer token; ``None`` for a server that needs none.
      headers: further headers of each request.
      name: the model's name in events and errors; ``model`` by default.
      send_reasoning: the field in which the model's earlier reasoning is sent back to it: ``"reasoning_content"`` for
        DeepSeek, which refuses tool results without it, ``"reasoning_details"`` for OpenRouter. ``None`` leaves the
        reasoning out, since some servers refuse it. (Gemini's thought signatures are always sent back.)
      max_tokens_field: the server's name for `ModelSettings.max_tokens`; by default ``max_completion_tokens`` at
        OpenAI and Azure, ``max_tokens`` elsewhere.
      stream_usage: whether to ask for the usage; a few old servers refuse the question.
      dialect: the server whose rules apply: ``"openai"``, ``"gemini"``, ``"mistral"``, ``"deepseek"``, ``"groq"``,
        ``"openrouter"``, or ``"compatible"`` for any other one. By default the host and the model's name decide.
      reads_media: whether the model can see pictures and read documents. Otherwise a note stands in their place. By
        default the model's name decides.

    Raises:
      UsageError: the URL or a header, such as the one with the key, cannot be sent, or there is no such dialect.
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
        send_reasoning: SendReasoning | None = None,
        max_tokens_field: str | None = None,
        stream_usage: bool = True,
        dialect: ChatDialect | None = None,
        reads_media: bool | None = None,
    ) -> None:
        base_url = base_url.rstrip("/")
        rules = chat_dialect(model, url=base_url, name=dialect, reads_media=reads_media)
        if max_tokens_field is not None:
            rules = evolve(rules, max_tokens_field=max_tokens_field)
        super().__init__(
            ChatFormat(
                model=model,
                dialect=rules,
                send_reasoning=send_reasoning,
                stream_usage=stream_usage,
                has_cache_key=is_openai(base_url),
            ),
            HttpTransport(url=base_url, path=ChatFormat.PATH, key=bearer(api_key), headers=headers or {}),
            name=name or model,
        )
