"""The package that runs tests: imported here, so that one sentence says where it is missing."""

from __future__ import annotations

from agentloop.errors import MissingExtraError

try:
    import pytest
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="The pytest plugin", extra="testing", package="pytest") from error

__all__ = ["pytest"]
