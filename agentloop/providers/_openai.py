"""OpenAI's SDK: here, so that there is one sentence for where it is missing."""

from __future__ import annotations

from agentloop.errors import MissingExtraError

try:
    import openai
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="A model behind an OpenAI client", extra="openai", package="openai") from error

__all__ = ["openai"]
