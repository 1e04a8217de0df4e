"""Each scenario of the corpus does what was recorded of it, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from agentloop._runtime.tool_context import RunningContext
from agentloop.testing._recorded import Recordings, compare_recorded
from agentloop.testing._shown import shown
from agentloop.testing.harness import corpus as corpus_module
from agentloop.testing.harness.corpus import RECORDINGS, corpus
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
