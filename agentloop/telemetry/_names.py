"""The names of the GenAI conventions of OpenTelemetry, as of October 2026, and how values of agentloop map to them.

The conventions are still marked as being in development, and the package of OpenTelemetry that lists them moves with
them. So the names stand here, each of them once.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentloop.messages import StopReason

__all__ = ["FINISH_REASONS", "PROVIDERS", "provider_of"]

FINISH_REASONS: Mapping[StopReason, str] = {
    "end": "stop",
    "tool_calls": "tool_call",
    "length": "length",
    "refusal": "content_filter",
    "paused": "pause",
    "interrupted": "error",
}
"""The finish reasons of the conventions, by those of agentloop."""

PROVIDERS: Mapping[str, str] = {"openai-responses": "openai", "gemini": "gcp.gemini", "local": "llama.cpp"}
"""Names of providers in the conventions, where those of agentloop differ."""

UNKNOWN_PROVIDER = "custom"


def provider_of(model: str) -> tuple[str, str]:
    """The provider of a model, and the provider's name for the model, by its name in agentloop."""
    provider, colon, name = model.partition(":")
    if not colon:
        return UNKNOWN_PROVIDER, model
    return PROVIDERS.get(provider, provider), name
