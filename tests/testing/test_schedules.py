"""The promises hold in every order of tasks: hypothesis draws it, choice by choice, and shrinks what breaks them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from agentloop.testing.harness.corpus import corpus, find_scenario
from agentloop.testing.harness.mutants import MUTANTS
from agentloop.testing.simulation import Schedule, Violation, replay_token, simulate
from agentloop.testing.simulation.strategies import schedules

SETTINGS = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@SETTINGS
@given(name=st.sampled_from(sorted(corpus())), schedule=schedules())
def test_every_scenario_ends_as_it_should_in_every_order(name: str, schedule: Schedule) -> None:
    simulate(corpus()[name](), schedule=schedule)


def test_an_order_that_breaks_a_promise_is_printed_and_run_again() -> None:
    name = "parallel-children-are-answered-crosswise"

    # Without shrinking, which takes as long as a hundred examples.
    @settings(SETTINGS, max_examples=50, phases=[Phase.generate])
    @given(schedule=schedules())
    def hunt(schedule: Schedule) -> None:
        simulate(corpus()[name](), schedule=schedule)

    with MUTANTS["answer-goes-to-the-oldest"]():
        with pytest.raises(Violation) as caught:
            hunt()
        with pytest.raises(Violation):
            replay_token(find_scenario(caught.value.token), caught.value.token)
