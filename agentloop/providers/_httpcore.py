"""The package that the adapters speak HTTP with: here, so that there is one sentence for where it is missing."""

from __future__ import annotations

from agentloop.errors import MissingExtraError

try:
    import httpcore2
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="A model behind HTTP", extra="http", package="httpx2") from error

__all__ = ["httpcore2"]
