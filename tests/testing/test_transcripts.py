"""Whichever models have written a session, no provider refuses the next request on it."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings

from agentloop._core.transcript import problems
from agentloop.messages import Message
from agentloop.models import ModelRequest
from agentloop.providers import find_model
from agentloop.providers.anthropic import Anthropic
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.providers.openai_responses import OpenAIResponses
from agentloop.testing import WireProvider, assert_accepted
from agentloop.testing.transcripts import model_requests, transcripts

MODELS: tuple[tuple[WireProvider, Any], ...] = (
    ("openai", OpenAIChat("gpt-5")),
    ("openai", OpenAIChat("gpt-4o")),
    ("openai", OpenAIChat("o3", base_url="https://eu.api.openai.com/v1")),
    ("openai-responses", OpenAIResponses("gpt-5")),
    ("openai-responses", OpenAIResponses("gpt-4o")),
    ("anthropic", Anthropic("claude-sonnet-4-5")),
    ("anthropic", Anthropic("claude-opus-5-5")),
    ("gemini", find_model("gemini:gemini-3-pro-preview", api_key="k")),
    ("gemini", find_model("gemini:gemini-2.5-flash", api_key="k")),
    ("mistral", OpenAIChat("mistral-large-latest", base_url="https://api.mistral.ai/v1")),
    ("deepseek", find_model("deepseek:deepseek-chat", api_key="k")),
    ("deepseek", find_model("deepseek:deepseek-reasoner", api_key="k")),
)

FEW = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(transcripts())
def test_the_transcripts_follow_agentloops_own_rules(messages: tuple[Message, ...]) -> None:
    assert problems(messages) == []


@FEW
@given(model_requests())
def test_no_provider_refuses_a_session_that_several_have_written(request: ModelRequest) -> None:
    for provider, model in MODELS:
        assert_accepted(model.body_of(request), provider)
