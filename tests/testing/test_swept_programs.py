"""The sweep of twenty programs that know nothing of it: silent for the right form, and not for the wrong one."""

from __future__ import annotations

from functools import partial

import pytest

from agentloop.testing.simulation import Violation, sweep
from tests.testing.swept.programs import PROGRAMS

LIMIT = 40
"""Places of each kind, of a few dozen to a few hundred. All of them were swept when the programs were written."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_right_program_passes(name: str) -> None:
    assert sweep(partial(PROGRAMS[name], broken=False), limit=LIMIT).fired > 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_fault_in_the_cleanup_is_found_and_its_token_shows_it_again(name: str) -> None:
    program = partial(PROGRAMS[name], broken=True)

    with pytest.raises(Violation) as caught:
        sweep(program, limit=LIMIT)

    assert caught.value.sim.fault is not None or caught.value.sim.picks
    with pytest.raises(Violation):
        sweep(program, only=caught.value.token)
