"""Each scenario of the corpus does what was recorded of it, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from agentloop._runtime.tool_context import RunningContext
from agentloop.testing._recorded import Checksums, Recordings, checksums_of, compare_recorded, compare_under_fault
from agentloop.testing._shown import shown
from agentloop.testing.harness import corpus as corpus_module
from agentloop.testing.harness.corpus import RECORDINGS, corpus, recorded_faults
from agentloop.testing.harness.draw import Draw
from agentloop.testing.harness.mix_plays import MIX_RECORDINGS, mix, mixes
from agentloop.testing.simulation import Violation, simulate

GROUPS = sorted(path.stem for path in (RECORDINGS.folder or Path()).glob("*.txt"))
FEW = ("only-text-1", "kept", "prompt-hook-refuses-0")


def test_each_scenario_has_a_recording_and_no_other_has() -> None:
    assert {name for group in GROUPS for name in RECORDINGS.names_of(group)} == set(corpus())


@pytest.mark.parametrize("group", GROUPS)
def test_each_scenario_does_what_was_recorded(group: str) -> None:
    scenarios = corpus()
    for name in RECORDINGS.names_of(group):
        simulate(scenarios[name]())


def test_a_change_under_a_fault_is_a_difference_from_the_recording() -> None:
    make, changed = corpus()["parallel-tools-0"], property(lambda context: f"{context.call_id}!")

    with patch.object(RunningContext, "idempotency_key", changed), pytest.raises(Violation, match="not come out as"):
        for fault in recorded_faults("parallel-tools-0"):
            simulate(make(), fault=fault)


def test_a_change_of_a_mix_shows_the_lines_around_it() -> None:
    name = next(name for name in mixes() if "tool one" in "".join(_trace_of(name)))
    changed = property(lambda context: f"{context.call_id}!")

    with patch.object(RunningContext, "idempotency_key", changed), pytest.raises(Violation) as raised:
        simulate(mixes()[name]())

    assert f"{name} is not what was recorded from line" in raised.value.problem
    assert "\n+ tool " in raised.value.problem


def _trace_of(name: str) -> list[str]:
    scenario = mixes()[name]()
    simulate(scenario)
    assert scenario.lab is not None
    assert scenario.lab.trace is not None
    return scenario.lab.trace.lines


def test_a_mix_is_the_same_for_its_number_and_another_for_another() -> None:
    assert _trace_of("mix-1") == _trace_of("mix-1")
    assert _trace_of("mix-1") != _trace_of("mix-2")
    assert [Draw("a").number(1000), Draw("a").on("b").number(1000)] == [
        Draw("a").number(1000),
        Draw("a/b").number(1000),
    ]


def test_without_recordings_there_are_no_mixes_and_one_can_be_played() -> None:
    with patch.object(MIX_RECORDINGS, "folder", None):
        assert mixes() == {}
        simulate(mix(1))


def test_checksums_say_where_a_run_differs() -> None:
    recorded = Checksums(checksums_of([f"line {number}" for number in range(100)]))
    lines = [f"line {number}" for number in range(100)]
    compare_recorded("some", recorded, lines)
    with pytest.raises(AssertionError, match=r"(?s)from line 71 on, of 100 lines.*  line 69\n\+ other\n\+ line 71"):
        compare_recorded("some", recorded, [*lines[:70], "other", *lines[71:]])
    with pytest.raises(AssertionError, match="from line 99 on, of 100 lines"):
        compare_recorded("some", recorded, lines[:98])


def test_a_difference_under_a_fault_has_both_lines() -> None:
    compare_under_fault("some", "seam:1", "ends well", "ends well")
    with pytest.raises(AssertionError, match=r"(?s)replay --trace 'some seam:1'.*-ends well\n\+ends badly"):
        compare_under_fault("some", "seam:1", "ends well", "ends badly")


def test_a_run_in_another_process_with_other_hashes_is_what_was_recorded() -> None:
    program = (
        "from agentloop.testing.harness.corpus import corpus\n"
        "from agentloop.testing.simulation import simulate\n"
        f"for name in {FEW!r}: simulate(corpus()[name]())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "11", "PYTHONPATH": str(Path(__file__).parents[2])}

    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)


def test_a_change_that_no_check_knows_of_is_a_difference_from_the_recording() -> None:
    changed = property(lambda context: f"{context.call_id}!")

    with patch.object(RunningContext, "idempotency_key", changed), pytest.raises(Violation, match="what was recorded"):
        simulate(corpus()["parallel-tools-0"]())


def test_a_difference_is_shown_and_the_command_that_records_anew() -> None:
    with pytest.raises(AssertionError, match=r"(?s)agentloop.testing record.*-old.*\+new"):
        compare_recorded("some", ["same", "old"], ["same", "new"])
    with pytest.raises(AssertionError, match="has not been recorded"):
        compare_recorded("some", [], ["new"])


def test_recordings_are_read_as_they_were_written(tmp_path: Path) -> None:
    Recordings(tmp_path).write({"group": {"one": ["a", "b"], "none": [], "two": ["c"]}})
    recordings = Recordings(tmp_path)

    assert recordings.names_of("group") == ["one", "none", "two"]
    assert [recordings.lines_of("group", name) for name in ("one", "none", "two")] == [["a", "b"], [], ["c"]]


def test_without_recordings_a_scenario_runs_and_nothing_is_compared() -> None:
    with patch.object(corpus_module, "RECORDINGS", Recordings()) as recordings:
        recordings.folder = None
        scenario = corpus()["only-text-0"]()
        simulate(scenario)

    assert scenario.lab is not None
    assert scenario.lab.trace is None


def test_recording_anew_changes_nothing_where_nothing_has_changed(tmp_path: Path) -> None:
    assert RECORDINGS.folder is not None
    fresh = Recordings(tmp_path)
    few = {name: make for name, make in corpus().items() if name in FEW}
    for path in RECORDINGS.folder.glob("*.txt"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with patch.object(corpus_module, "corpus", lambda: few), patch.object(corpus_module, "RECORDINGS", fresh):
        assert corpus_module.record() == []


def test_values_are_shown_on_one_line_the_same_on_each_python() -> None:
    assert shown({"b": 0.1 + 0.2, "a": b"x"}) == '{"b": 0.3, "a": 1 bytes 8cdc1683}'
    assert shown({"two", "one"}) == '{"one", "two"}'
    assert shown("a\nb") == r'"a\nb"'
    assert len(shown("x" * 10_000)) < 200
    assert shown(ExceptionGroup("both", [ValueError("b"), KeyError("a")])).startswith("ExceptionGroup(")
