"""Places to keep sessions in, for tests: the same suite runs over each."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal

import msgspec
from attrs import define, field

from agentloop.journal import Record, Store
from agentloop.stores import MemoryStore, SQLiteStore

__all__ = ["KINDS", "POSTGRES", "Place", "Time", "place_of", "record", "records"]

POSTGRES = os.environ.get("AGENTLOOP_POSTGRES", "")
"""The folder of PostgreSQL's programs, where `nox -s postgres` has found it."""

KINDS = ("memory", "sqlite-normal", "sqlite-full", *(("postgres",) if POSTGRES else ()))


@define
class Time:
    """A clock that a test sets."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@define
class Place:
    """Where a store keeps things. Each store that it gives is another program's."""

    kind: str
    make: Callable[[Callable[[], float] | None], Store]
    time: Time = field(factory=Time)

    def store(self) -> Store:
        return self.make(self.time)

    def store_on_real_time(self) -> Store:
        return self.make(None)


def place_of(kind: str, folder: Path, postgres_url: Callable[[], str]) -> Place:
    """A new place of a kind of `KINDS`."""
    path = folder / "sessions.db"
    if kind == "memory":
        only = MemoryStore()

        def open_memory(clock: Callable[[], float] | None) -> Store:
            only._clock = clock
            return only

        return Place(kind, open_memory)
    if kind.startswith("sqlite"):
        synchronous: Literal["normal", "full"] = "full" if kind == "sqlite-full" else "normal"
        return Place(kind, lambda clock: SQLiteStore(path, synchronous=synchronous, clock=clock))
    url, module = postgres_url(), import_module("agentloop.stores.postgres")
    return Place(kind, lambda clock: module.PostgresStore(url, connections=3, clock=clock))


def record(seq: int, text: str = "", **fields: object) -> Record:
    """A record that says ``text``."""
    data = msgspec.json.encode({"text": text or f"record {seq}", **fields})
    return Record(seq, "said", data, stream="st1", key=f"k{seq}", at=float(seq))


def records(first: int, last: int) -> list[Record]:
    """Those numbers."""
    return [record(seq) for seq in range(first, last + 1)]
