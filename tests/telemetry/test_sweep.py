"""Whatever ends a run: no span stays open, the tree of spans is the tree of runs, and tokens and costs add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from agentloop import add_observer, remove_observer
from agentloop._runtime.run import Run
from agentloop.telemetry import _tracing
from agentloop.testing._lab import AgentScenario
from agentloop.testing.harness.corpus import corpus
from agentloop.testing.simulation import Outcome, Sim, simulate, sweep_scenario
from tests.telemetry.support import Recorder, attributes, id_of, parent_id

# Every twentieth scenario, for each of which some places are tried, and all of them once without a fault.
SOME = sorted(corpus())[::20]
PLACES = 2


class Traced:
    """A scenario, traced."""

    def __init__(self, scenario: AgentScenario) -> None:
        self._scenario = scenario
        # A traced run has records of its traces, which the recorded one has not.
        scenario.recorded = None
        scenario.recorded_faults = {}
        self.name = scenario.name
        self._recorder = Recorder(at_once=True)

    async def run(self, sim: Sim, /) -> None:
        add_observer(self._recorder.tracing)
        try:
            await self._scenario.run(sim)
        finally:
            remove_observer(self._recorder.tracing)

    def check(self, sim: Sim, outcome: Outcome, /) -> None:
        self._scenario.check(sim, outcome)
        assert self._scenario.lab is not None
        check_spans(self._recorder.spans, self._scenario.lab.watch.runs)
        assert self._recorder.tracing._runs == {}
        assert _tracing._traced == set()


def traced(name: str) -> Callable[[], Traced]:
    return lambda: Traced(corpus()[name]())


def check_spans(spans: Sequence[ReadableSpan], runs: Sequence[Run]) -> None:
    by_id = {id_of(span): span for span in spans}
    of_runs = [span for span in spans if span.name.startswith("invoke_agent")]
    assert Counter(attributes(span)["agentloop.stream"] for span in of_runs) == Counter(
        run.source.stream for run in runs
    )
    names = Counter(run.source.stream for run in runs)
    for run in runs:
        if names[run.source.stream] > 1:
            # Two stores that have a session of the same name.
            continue
        [span] = [span for span in of_runs if attributes(span)["agentloop.stream"] == run.source.stream]
        assert run.outcome is not None
        assert attributes(span)["agentloop.outcome"] == run.outcome.reason
        if run.parent is not None and (run.background_id or run.hook is not None):
            # Its call may have ended, or there is none.
            around = by_id[parent_id(span) or 0]
            assert attributes(around)["agentloop.stream"] == run.parent.source.stream
        elif run.parent is not None:
            call = by_id[parent_id(span) or 0]
            assert attributes(call)["gen_ai.tool.call.id"] == run.call_id
            above = by_id[parent_id(call) or 0]
            assert attributes(above)["agentloop.stream"] == run.parent.source.stream
        elif "agentloop.resumes" not in attributes(span):
            check_usage(run, span, spans)
        if run.apart is not None:
            assert span.parent is None
            assert [*(link.attributes or {} for link in span.links)] == [{"agentloop.background": run.background_id}]


def check_usage(run: Run, root: ReadableSpan, spans: Sequence[ReadableSpan]) -> None:
    assert run.outcome is not None
    trace = root.get_span_context()
    assert trace is not None
    inside = [
        attributes(span)
        for span in spans
        if (context := span.get_span_context()) is not None
        and context.trace_id == trace.trace_id
        and "gen_ai.usage.input_tokens" in attributes(span)
    ]
    usage = run.outcome.usage
    assert sum(span["gen_ai.usage.input_tokens"] for span in inside) == usage.input_tokens
    assert sum(span["gen_ai.usage.output_tokens"] for span in inside) == usage.output_tokens
    assert sum(span.get("gen_ai.usage.cost", 0.0) for span in inside) == pytest.approx(usage.cost)
    assert len(inside) == usage.requests
    assert attributes(root)["gen_ai.aggregated_usage.input_tokens"] == usage.input_tokens


def test_every_way_out_closes_every_span() -> None:
    # Every third of several hundred scenarios; all of them, and with faults, at night.
    for name in [*corpus()][::3]:
        simulate(traced(name)())


@pytest.mark.parametrize("name", SOME)
def test_a_fault_in_any_place_leaves_no_span_open(name: str) -> None:
    sweep_scenario(traced(name), limit=PLACES, kinds=("cancel",)).raise_if_violated()


@pytest.mark.nightly
@pytest.mark.parametrize("name", corpus())
def test_any_fault_in_any_place_leaves_no_span_open(name: str) -> None:
    sweep_scenario(traced(name), limit=40).raise_if_violated()
