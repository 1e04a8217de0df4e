"""Each test that takes a ``place`` runs over every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from agentloop.stores import _journal_writer
from tests.stores.oracle import load_both
from tests.stores.places import KINDS, POSTGRES, Place, place_of
from tests.stores.postgres import running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Gives URLs of places on a PostgreSQL server, each of which is empty."""
    if not POSTGRES:
        pytest.skip("AGENTLOOP_POSTGRES names no folder of PostgreSQL's programs: use `nox -s postgres`")
    psycopg = pytest.importorskip("psycopg")
    numbers = count(1)
    with running_postgres(Path(POSTGRES)) as url:

        def empty() -> str:
            schema = f"place{next(numbers)}"
            with psycopg.connect(url) as connection:
                connection.execute(f"CREATE SCHEMA {schema}")
            return f"{url}?options=-csearch_path%3D{schema}"

        yield empty


def _new_url(request: pytest.FixtureRequest) -> str:
    # Asked for late: only these places need a server.
    url: str = request.getfixturevalue("postgres")()
    return url


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    kind: str = request.param
    return place_of(kind, tmp_path, partial(_new_url, request))


@pytest.fixture(autouse=True)
def compare_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a test opens a session, the loader that was there before must make the same of its journal."""
    monkeypatch.setattr(_journal_writer, "load", load_both)
