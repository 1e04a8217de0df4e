"""``python -m agentloop.testing``, as a contributor types it."""

from __future__ import annotations

import pytest

from agentloop.testing.__main__ import main
from agentloop.testing.harness.mutants import MUTANTS
from agentloop.testing.harness.programs import Do, Program, Reader, Root, Streaming
from agentloop.testing.simulation import Sim, Violation


def test_the_corpus_is_swept_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", "only-text", "--limit", "5"]) == 0

    told = capsys.readouterr().out
    assert told.startswith("3 scenarios, ")
    assert "0 violations" in told
    assert "runs a second" in told


def test_a_violation_is_printed_with_its_token(capsys: pytest.CaptureFixture[str]) -> None:
    with MUTANTS["terminal-event-twice"]():
        assert main(["corpus", "only-text-0"]) == 1

    told = capsys.readouterr().out
    assert "comes after StreamStopped" in told
    assert "python -m agentloop.testing replay 'only-text-0 cancel:stop:A@" in told


def test_a_scenario_that_fails_by_itself_is_printed_whole_and_stops_no_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with MUTANTS["guard-fails-open"]():
        assert main(["corpus", "a-guard-that-fails-refuses", "--limit", "1"]) == 1

    printed = capsys.readouterr().out
    assert printed.startswith("\na-guard-that-fails-refuses-0: a-guard-that-fails-refuses-0\n")
    assert "\na-guard-that-fails-refuses-2: a-guard-that-fails-refuses-2\n" in printed
    assert "3 scenarios" in printed


def test_the_lines_that_no_scenario_runs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", "only-text-0", "--lines"]) == 0

    printed = capsys.readouterr().out
    assert "agentloop/_runtime/loop.py: " in printed
    assert "1 scenarios run " in printed


def test_the_trace_of_a_run_is_printed_with_and_without_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--trace", "only-text-0"]) == 0
    assert 'StreamStopped reason="completed"' in capsys.readouterr().out
    assert main(["replay", "--trace", "only-text-0", "cancel:stop:A@2"]) == 0
    assert 'StreamStopped reason="cancelled"' in capsys.readouterr().out
    assert main(["replay", "--trace", "mix-1"]) == 0
    assert "StreamStarted" in capsys.readouterr().out


def test_a_token_is_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "only-text-0", "cancel:stop:A@2"]) == 0
    with MUTANTS["terminal-event-twice"]():
        assert main(["replay", "only-text-0 cancel:stop:A@2"]) == 1

    assert "no promise was broken" in capsys.readouterr().out


def test_a_program_is_run_again_with_its_fault(capsys: pytest.CaptureFixture[str]) -> None:
    program = Program((Root(Streaming(((Do("ask"),),)), Reader("stop", 4)),))

    assert main(["replay", str(program)]) == 0
    assert main(["replay", f"{program} cancel:R0@3"]) == 0
    assert capsys.readouterr().out.count("no promise was broken") == 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["corpus", "no-such-thing"], "no scenario has 'no-such-thing' in its name"),
        (["replay", "no-such-thing cancel:A@1"], "no scenario is called 'no-such-thing'"),
        (["replay", "only-text-0 nonsense"], "cannot read the fault 'nonsense'"),
        (["mutants", "no-such-thing"], "no mutant is called 'no-such-thing'"),
    ],
)
def test_a_wrong_call_is_one_sentence(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2

    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_fuzz_says_what_it_reached(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "--programs", "20", "--faults", "1", "--jobs", jobs]) == 0

    assert "programs a second" in capsys.readouterr().out


def test_the_fuzz_prints_the_broken_promise(capsys: pytest.CaptureFixture[str]) -> None:
    with MUTANTS["results-in-order-of-completion"]():
        assert main(["fuzz", "--programs", "500", "--faults", "1"]) == 1

    printed = capsys.readouterr().out
    assert "to run it again: python -m agentloop.testing replay '{" in printed
    # Made smaller: two calls that end in another order than they began are all that it takes.
    assert printed.count('"type":"do"') <= 3


@pytest.mark.nightly
def test_a_mutant_is_searched_for_beside_a_control(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentloop.testing.__main__.PROGRAMS", 10)
    monkeypatch.setattr("agentloop.testing.__main__.FAULTS", 100)

    assert main(["mutants", "dangling-tool-calls"]) == 0

    control, found = capsys.readouterr().out.splitlines()
    assert control.split()[0] == "control"
    assert all(word == "-" or not word.isdigit() or word in "123" for word in control.split())
    assert found.split()[0] == "dangling-tool-calls"


def test_a_mutant_that_survives_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentloop.testing.__main__.PROGRAMS", 1)
    monkeypatch.setattr("agentloop.testing.__main__.FAULTS", 0)
    monkeypatch.setattr("agentloop.testing.__main__.search_corpus", lambda _limit: None)

    assert main(["mutants", "side-effect-after-a-cancel"]) == 1

    assert "not as it should be: side-effect-after-a-cancel" in capsys.readouterr().out


def test_recorded_runs_are_written_in_a_checkout_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentloop.testing.__main__.RECORDINGS.folder", None)

    assert main(["record"]) == 2


def test_a_scenario_that_fails_is_not_recorded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[str]:
        raise Violation("it fails", sim=Sim("only-text-0"))

    monkeypatch.setattr("agentloop.testing.__main__.record", fail)

    assert main(["record"]) == 1
    assert "it fails" in capsys.readouterr().out


def test_recording_says_how_many_scenarios_have_changed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentloop.testing.__main__.record", lambda: ["only-text-0"])
    monkeypatch.setattr("agentloop.testing.__main__.record_faults", list)
    monkeypatch.setattr("agentloop.testing.__main__.record_mixes", lambda: ([], []))

    assert main(["record"]) == 0
    assert "1 recorded anew" in capsys.readouterr().out
