"""The package that draws examples: imported here, so that one sentence says where it is missing."""

from __future__ import annotations

from agentloop.errors import MissingExtraError

try:
    import hypothesis
    from hypothesis import stateful, strategies
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="Testing with programs", extra="testing", package="hypothesis") from error

__all__ = ["hypothesis", "stateful", "strategies"]
