"""Replaying a journal, compared with the loader that was there before: same journal, same state, wherever it is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from agentloop.journal import Record
from agentloop.stores import _replay, _rows
from agentloop.testing._lab import AgentScenario
from agentloop.testing.harness import background_scenarios, block_scenarios, handoff_scenarios, hook_run_scenarios
from agentloop.testing.harness.session_scenarios import STORIES
from agentloop.testing.simulation import Kind, sweep_scenario
from tests.stores.oracle import FixedJournal, assert_same_state, load

# The loader that was there before knows no handoffs, no background runs and no runs of hooks.
_LATER = (background_scenarios, block_scenarios, handoff_scenarios, hook_run_scenarios)
LATER = {name for module in _LATER for name in vars(module)}
KNOWN_BEFORE = [name for name in STORIES if name.replace("-", "_") not in LATER]


def journals_of(story: str, kind: Kind, *, limit: int) -> list[list[Record]]:
    """The journals that ``story`` leaves behind, with a fault in ``limit`` places, each once."""
    scenarios: list[AgentScenario] = []
    found: dict[tuple[bytes, ...], list[Record]] = {}

    def make() -> AgentScenario:
        scenarios.append(STORIES[story]())
        return scenarios[-1]

    def collect(*_run: object) -> None:
        lab = scenarios[-1].lab
        assert lab is not None
        assert lab.journal is not None
        for session in lab.journal._memory._sessions.values():
            found[tuple(record.data for record in session.records)] = list(session.records)
        scenarios.clear()

    sweep_scenario(make, kinds=[kind], limit=limit, on_run=collect)
    return list(found.values())


def check_every_cut(records: Sequence[Record]) -> None:
    async def check() -> None:
        for count in range(len(records) + 1):
            store: Any = FixedJournal(records[:count])
            new, old = await _replay.load(store, "ann"), await load.load(store, "ann")
            assert_same_state(new, old)

    trio.run(check)


@pytest.mark.parametrize("story", KNOWN_BEFORE)
def test_a_story_leads_to_the_same_state_wherever_its_journal_is_cut(
    story: str, caplog: pytest.LogCaptureFixture
) -> None:
    journals = journals_of(story, "cancel", limit=12)
    assert journals
    for records in journals:
        check_every_cut(records)
    assert "is out of order" not in caplog.text


def test_opening_a_session_reads_one_column_of_texts() -> None:
    assert set(_replay.TRANSCRIPT_KINDS) == _rows.TRANSCRIPT_KINDS
