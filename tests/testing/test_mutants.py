"""The harness notices planted bugs, and complains about nothing else.

Here each mutant meets the search that is quickest to find it, six of them for each change and all of them in
``nox -s nightly``; ``nox -s mutants`` runs all searches for each.
"""

from __future__ import annotations

import pytest

from agentloop.testing.harness.mutants import MUTANTS, control
from agentloop.testing.harness.search import BrokenPromise, search_corpus, search_programs, search_sweeps

SEEDS = (1, 2, 3)
WITHIN = 400
"""Programs, for each seed. They differ between versions of hypothesis, so one seed of three has to find it."""

FOR_EACH_CHANGE = {
    "dangling-tool-calls",
    "doubtful-call-made-again",
    "early-return-when-listing-fails",
    "numbers-given-twice",
    "one-elicitation-slot",
    "terminal-event-dropped-when-full",
}
"""Mutants that are found within a second: of the channel, the elicitation stack, the transcript and the journal."""


def search() -> BrokenPromise | None:
    """What the corpus finds without any fault, or else programs, or else the sweeps."""
    found = search_corpus(1000)
    for seed in SEEDS:
        found = found or search_programs(WITHIN, seed=seed)
    return found or search_sweeps(5000)


@pytest.mark.parametrize(
    "name", [name if name in FOR_EACH_CHANGE else pytest.param(name, marks=pytest.mark.nightly) for name in MUTANTS]
)
def test_a_planted_bug_is_noticed(name: str) -> None:
    with MUTANTS[name]():
        found = search()

    assert found is not None, f"no search noticed {name}"


def test_the_mutants_for_each_change_exist() -> None:
    assert set(MUTANTS) >= FOR_EACH_CHANGE


def test_a_healthy_runtime_is_left_in_peace() -> None:
    with control():
        assert search_corpus(1000) is None
        assert search_programs(60, seed=1) is None


def test_a_mutant_is_gone_when_its_block_ends() -> None:
    for plant in MUTANTS.values():
        with plant():
            pass

    assert search_corpus(1000) is None
