"""What the harness has found in the runtime, each by the token that showed it."""

from __future__ import annotations

import pytest

from agentloop.testing.harness.corpus import find_scenario
from agentloop.testing.harness.programs import Program, run_program
from agentloop.testing.simulation import replay_token

TOKENS = {
    "a call whose question could not be closed in the store does not go on": (
        "a-call-works-after-it-has-given-up-its-question seam:11"
    ),
    "a tool that raises while its stream is cancelled does not raise in the reader": "tool-raises-0 cancel:A@12",
    "a call that has ended is told although the clock fails": "only-text-1 clock:11",
    "an answer that was accepted reaches its asker although the clock fails": "every-hook-0 clock:15",
    "without the time nothing is kept for ever, and the run says why": "kept clock:22",
    "an end is told although the clock fails": "kept clock:60",
    "a call that may have run is not said not to have, where the turn fails as it is gone on with": (
        "killed-and-resumed clock:194"
    ),
    "a question that was answered before a crash is not open afterwards": (
        "parked-and-resumed seam:51!agentloop.testing._journal:StoreRefuses"
    ),
    "a follower ends where nobody can add the end of what it follows": (
        "followed seam:22!agentloop.testing._journal:StoreRefuses"
    ),
    "the end of a run that Ctrl-C tears apart is known to those that wait for it": (
        "run-and-parked seam:28!agentloop.testing.simulation.errors:InjectedInterrupt"
    ),
    "a toolset that hangs is not waited for without a deadline when the clock fails": "toolset-hangs-at-stop-0 clock:7",
}

PROGRAMS = {
    "a run that a hook blocks after a tool stays blocked where its process dies before it has ended": (
        '{"roots":[{"stream":{"turns":[[{"type":"do","what":"work"},{"type":"do","what":"slow"}]],"end":"hook_blocks"},'
        '"reader":{"does":"drain","after":12},"journal":"killed"}]}'
    ),
    "a process waits for as many late answers as its run asks for": (
        '{"roots":[{"stream":{"turns":[[{"type":"do","what":"ask"}],[{"type":"do","what":"ask"}],[{"type":"do","what":'
        '"ask"}],[{"type":"do","what":"ask"}],[{"type":"do","what":"ask"}],[{"type":"do","what":"ask"}],[{"type":"do",'
        '"what":"ask"}],[{"type":"do","what":"ask"}]]},"reader":{"answers":"youngest_first"},"journal":"kept"}]}'
    ),
    "no question is lost whose run is parked at the moment at which it is asked": (
        '{"roots":[{"stream":{"turns":[[{"type":"do","what":"work"}],[{"type":"do","what":"time_out"},{"type":"do",'
        '"what":"remember"},{"type":"do","what":"ask"},{"type":"do","what":"remember"},{"type":"do","what":"ask"}]]},'
        '"journal":"parked"}],"seed":27731,"granularity":"step"}'
    ),
    "a stream that is left while its toolset starts does not wait for it for ever": (
        '{"roots":[{"stream":{"turns":[[{"type":"child","stream":{"turns":[],"end":"listing_fails","words":1},'
        '"leave_after":1,"handler":""}]],"end":"answer","words":1},"reader":{"does":"drain","after":0,"pause":0,'
        '"answers":"now"},"begins":0}],"seed":0,"granularity":"batch"}'
    ),
    "many calls that are stopped at once may all tell their ends, though the reader is slow": (
        '{"roots":[{"stream":{"turns":[[{"type":"do","what":"guarded"},{"type":"do","what":"raise"},{"type":"'
        'do","what":"time_out"},{"type":"do","what":"time_out"},{"type":"do","what":"ask"},{"type":"do","what'
        '":"ask"},{"type":"do","what":"slow"},{"type":"do","what":"time_out"},{"type":"do","what":"stream"},{'
        '"type":"do","what":"guarded"},{"type":"do","what":"time_out"},{"type":"do","what":"raise"},{"type":"'
        'do","what":"time_out"},{"type":"do","what":"ask"},{"type":"do","what":"ask"},{"type":"do","what":"ti'
        'me_out"},{"type":"do","what":"ask"},{"type":"do","what":"raise"},{"type":"do","what":"give_up"},{"ty'
        'pe":"do","what":"ask"},{"type":"do","what":"ask"},{"type":"do","what":"ask"}],[{"type":"do","what":"'
        'guarded"}],[{"type":"do","what":"give_up"},{"type":"do","what":"work"},{"type":"do","what":"ask"}]],'
        '"end":"answer","words":1},"reader":{"does":"stop","after":19,"pause":1,"answers":"now"},"begins":0}]'
        ',"seed":65535,"granularity":"step"}'
    ),
}


@pytest.mark.parametrize("promise", TOKENS)
def test_token(promise: str) -> None:
    token = TOKENS[promise]
    assert replay_token(find_scenario(token), token).fired


@pytest.mark.parametrize("promise", PROGRAMS)
def test_program(promise: str) -> None:
    run_program(Program.parse(PROGRAMS[promise]))
