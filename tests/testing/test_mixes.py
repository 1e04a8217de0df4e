"""Each mix does what was recorded of it, and each scenario comes out as recorded with some faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentloop.testing.harness.corpus import FAULTS, RECORDINGS, corpus, recorded_faults
from agentloop.testing.harness.mix_plays import mixes
from agentloop.testing.simulation import simulate

GROUPS = sorted(path.stem for path in (RECORDINGS.folder or Path()).glob("*.txt"))


def test_the_runs_with_a_fault_that_are_recorded_are_of_all_scenarios() -> None:
    assert {name for group in GROUPS for name in FAULTS.names_of(group)} == set(corpus())


@pytest.mark.parametrize("part", range(20))
def test_each_scenario_comes_out_as_recorded_with_some_faults(part: int) -> None:
    scenarios = corpus()
    for name in list(scenarios)[part::20]:
        faults = recorded_faults(name)
        assert faults
        for fault in faults:
            assert simulate(scenarios[name](), fault=fault).fired


@pytest.mark.parametrize("part", range(8))
def test_each_mix_does_what_was_recorded(part: int) -> None:
    names = list(mixes())[part::8]
    assert len(names) > 50
    for name in names:
        simulate(mixes()[name]())
