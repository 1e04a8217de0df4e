"""Three workers on PostgreSQL, killed at random: every session ends, and no effect is lost or doubled."""

from __future__ import annotations

import faulthandler
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stores.places import POSTGRES
from tests.stores.postgres import running_postgres

pytestmark = [pytest.mark.real_clock, pytest.mark.nightly]

SECONDS = float(os.environ.get("AGENTLOOP_KILL_SECONDS", "600"))
"""How long workers are killed for each engine."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if not POSTGRES:
        pytest.skip("AGENTLOOP_POSTGRES names no folder of PostgreSQL's programs: use `nox -s postgres`")
    pytest.importorskip("psycopg")
    with running_postgres(Path(POSTGRES)) as url:
        yield url


@pytest.mark.seconds(SECONDS + 500)
@pytest.mark.parametrize(("engine", "pace"), [("none", 3.0), ("dbos", 8.0)])
async def test_sessions_end_though_their_workers_are_killed_at_random(
    server: str, tmp_path: Path, engine: str, pace: float
) -> None:
    from tests.engines.killing import Hunt, empty

    # The bound of all tests, after which pytest ends the process, is shorter than this test.
    assert sys.__stderr__ is not None
    faulthandler.dump_traceback_later(SECONDS + 600, exit=True, file=sys.__stderr__)
    empty(server)
    seed = random.randrange(1_000_000)
    hunt = Hunt(server, tmp_path, Path(POSTGRES), engine, pace=pace, random=random.Random(seed))
    await hunt.run(SECONDS)
    print(f"seed {seed}; {hunt.report()}")
    problems = await hunt.check()
    assert problems == [], "\n".join(problems[:20])
    assert hunt.kills
