"""Every way out of the loop, with a fault in every place: cancelled, stopped, failed by the outside, reordered."""

from __future__ import annotations

import pytest

from agentloop.testing.harness.corpus import EVERY, corpus, find_scenario
from agentloop.testing.harness.lines import lines_run
from agentloop.testing.harness.search import sweep_scenario
from agentloop.testing.simulation import HarnessError, replay_token

PLACES = 1
"""Of each kind, in each scenario, for each change. Nightly, and by ``corpus --every``, 200 are."""


@pytest.mark.parametrize("name", corpus())
def test_every_promise_holds_whatever_fails(name: str) -> None:
    report = sweep_scenario(corpus()[name], limit=PLACES)
    report.raise_if_violated()
    assert report.fired


@pytest.mark.nightly
@pytest.mark.parametrize("name", corpus())
def test_every_promise_holds_whatever_fails_wherever(name: str) -> None:
    sweep_scenario(corpus()[name], limit=EVERY).raise_if_violated()


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    "way_out",
    [
        "only-text",
        "structured-output",
        "sent-on-by-a-stop-hook",
        "listing-fails-at-first",
        "listing-fails-later",
        "toolset-fails-to-start",
        "toolset-hangs-at-start",
        "toolset-hangs-at-stop",
        "prompt-hook-refuses",
        "a-guard-that-fails-refuses",
        "hook-refuses-the-model-call",
        "hook-stops-after-a-tool",
        "hook-denies-a-tool",
        "model-fails-at-once",
        "model-fails-half-way",
        "model-hangs",
        "model-breaks-the-protocol",
        "same-calls-again-and-again",
        "output-never-comes",
        "tool-times-out",
        "tool-raises",
        "time-is-over",
        "turn-limit-continued",
        "turn-limit-refused",
    ],
)
def test_the_corpus_has_every_way_out_at_every_depth(way_out: str, depth: int) -> None:
    assert f"{way_out}-{depth}" in corpus()


def test_the_corpus_says_which_lines_of_the_runtime_it_runs() -> None:
    reports = {report.file: report for report in lines_run(["only-text-0"])}

    loop = reports["agentloop/_runtime/loop.py"]
    assert loop.run
    assert loop.run < loop.known
    assert loop.ranges.split(", ")[0].split("-")[0] == str(loop.missing[0])


@pytest.mark.parametrize("kind", ["seam", "main task"])
def test_ctrl_c_in_any_place_gets_out(kind: str) -> None:
    interrupt = "seam:1!agentloop.testing.simulation.errors:InjectedInterrupt" if kind == "seam" else "interrupt:4"

    assert replay_token(corpus()["parallel-tools-0"], f"parallel-tools-0 {interrupt}").fired


def test_a_token_finds_its_scenario_again() -> None:
    token = "tool-raises-0 cancel:A@12"

    assert replay_token(find_scenario(token), token).fired


def test_a_token_of_another_scenario_is_refused() -> None:
    with pytest.raises(HarnessError, match="is of the scenario only-text-1"):
        replay_token(corpus()["only-text-0"], "only-text-1 cancel:A@1")
