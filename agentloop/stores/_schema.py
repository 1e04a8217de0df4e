"""The tables, and how those of an older version become those of the newest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from agentloop.errors import StoreError

__all__ = ["STEPS", "Dialect", "Step", "statements_from"]

Step: TypeAlias = "Callable[[Dialect], Sequence[str]]"
"""The statements that lead from one version to the next."""


class Dialect:
    """Words that differ between databases."""

    text: str
    """Text that is compared byte by byte, whatever the database's language."""
    without_rowid: str
    """At the end of a table that is kept in the order of its key."""

    def __init__(self, text: str = "TEXT", without_rowid: str = "") -> None:
        self.text = text
        self.without_rowid = without_rowid


def _first(dialect: Dialect) -> Sequence[str]:
    text, end = f"{dialect.text} NOT NULL", dialect.without_rowid
    # No index on `updated`: every addition would have to change it, and a list of sessions is asked for seldom.
    number, real = "BIGINT NOT NULL", "DOUBLE PRECISION NOT NULL"
    return (
        f"""CREATE TABLE agentloop_sessions (
            id {text} PRIMARY KEY, title {text}, created {real}, updated {real}, last {number}, parent {text}
        ){end}""",
        f"""CREATE TABLE agentloop_records (
            session {text}, seq {number}, kind {text}, data {text}, stream {text}, key {text}, at {real},
            PRIMARY KEY (session, seq)
        ){end}""",
        f"""CREATE TABLE agentloop_answers (
            session {text}, question {text}, data {text}, PRIMARY KEY (session, question)
        ){end}""",
        f"""CREATE TABLE agentloop_leases (
            session {text} PRIMARY KEY, token {number}, holder {text}, expires {real}, era {text}, until {real}
        ){end}""",
    )


STEPS: tuple[Step, ...] = (_first,)
"""Step ``n`` leads from version ``n`` to the next. Steps are added; none is ever changed, since files have taken it."""


def statements_from(version: int, dialect: Dialect, place: str) -> list[str]:
    """What leads from ``version`` to the newest.

    Raises:
      StoreError: ``version`` is newer than that.
    """
    if version > len(STEPS):
        raise StoreError(
            f"{place} was written by a newer agentloop: its format is version {version}, and this one knows those "
            f"up to {len(STEPS)}. Update agentloop (pip install -U agentloop-trio), or give another place"
        )
    return [statement for step in STEPS[version:] for statement in step(dialect)]
