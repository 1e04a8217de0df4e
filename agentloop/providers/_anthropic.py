"""Anthropic's SDK: here, so that there is one sentence for where it is missing."""

from __future__ import annotations

from agentloop.errors import MissingExtraError

try:
    import anthropic
except ModuleNotFoundError as error:
    raise MissingExtraError(
        feature="A model behind an Anthropic client", extra="anthropic", package="anthropic"
    ) from error

__all__ = ["anthropic"]
