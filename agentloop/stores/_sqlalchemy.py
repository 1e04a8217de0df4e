"""The package behind `agentloop.stores.sql`: here, so that there is one sentence for where it is missing."""

from __future__ import annotations

from agentloop.errors import MissingExtraError

try:
    import sqlalchemy as sa
    from sqlalchemy import event, exc, pool
    from sqlalchemy.engine import url
except ModuleNotFoundError as error:
    raise MissingExtraError(feature="A store in an SQL database", extra="sql", package="sqlalchemy") from error

__all__ = ["event", "exc", "pool", "sa", "url"]
