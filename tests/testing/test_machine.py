"""Programs that nobody has written: streams opened, nested, left, stopped and answered in every order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from agentloop.testing.harness.machine import StreamMachine, programs
from agentloop.testing.harness.mutants import MUTANTS
from agentloop.testing.harness.programs import Child, Do, Program, Reader, Root, Streaming, predict, run_program
from agentloop.testing.harness.search import shrink
from agentloop.testing.simulation import Violation

SETTINGS = settings(
    max_examples=150,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def run_machine() -> None:
    # A seed of its own: without one, hypothesis draws by the names in the machine, and each renaming draws others.
    run_state_machine_as_test(seed(1)(StreamMachine), settings=settings(SETTINGS, derandomize=False))


def test_no_program_breaks_a_promise() -> None:
    before = StreamMachine.reached.programs
    run_machine()
    assert StreamMachine.reached.programs - before >= SETTINGS.max_examples


def test_programs_reach_what_they_are_about() -> None:
    """A machine that reaches nothing proves nothing."""
    reached = StreamMachine.reached
    if not reached.programs:
        run_machine()
    assert reached.deepest >= 2
    assert reached.asked >= reached.programs / 4
    assert reached.early_returns >= reached.programs / 2
    assert reached.overlaps >= reached.programs / 4
    assert reached.journaled >= reached.programs / 4
    assert reached.resumed >= reached.programs / 8


@settings(SETTINGS, max_examples=60)
@given(program=programs())
def test_no_program_drawn_at_once_breaks_a_promise(program: Program) -> None:
    run_program(program)


def test_a_program_reads_back_what_it_printed() -> None:
    child = Child(Streaming((), "listing_fails"), leave_after=3, handler="passes")
    program = Program((Root(Streaming(((Do("ask"), child),)), Reader("stop", 4, answers="late"), 2),), 7, "step")

    assert Program.parse(str(program)) == program


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("answer", "completed"),
        ("model_fails", "failed"),
        ("listing_fails", "failed"),
        ("prompt_blocked", "blocked"),
        ("hook_blocks", "blocked"),
        ("turn_limit", "limit"),
    ],
)
def test_the_prediction_knows_every_end(end: str, reason: str) -> None:
    stream = Streaming(((Do("work"),),), end)  # type: ignore[arg-type]

    assert predict(stream) == reason
    run_program(Program((Root(stream),)))


@pytest.mark.parametrize("journal", ["", "kept", "parked", "killed"])
def test_a_program_with_everything_in_it_ends_as_predicted(journal: Any) -> None:
    turns = (
        (Do("ask_two"), Do("remember"), Do("allowed"), Do("denied"), Do("asked")),
        (Child(Streaming(((Do("ask"),),)), twins=2), Child(Streaming(words=40), pause=1), Do("in_toolset")),
        (Child(Streaming(((Do("ask"), Do("slow")),)), background=True, twins=2), Do("ask")),
    )

    run_program(Program((Root(Streaming(turns, long=True), Reader("drain", 20), 0, journal, 3),)))


def test_a_program_that_fails_is_made_smaller() -> None:
    stream = Streaming(((Do("slow"), Do("work"), Do("ask")), (Do("raise"),)), words=5)
    program = Program((Root(stream, Reader("drain", 3)), Root(Streaming())), 7, "step")
    with MUTANTS["results-in-order-of-completion"]():
        with pytest.raises(Violation) as caught:
            run_program(program)
        smaller, violation = shrink(program, None, caught.value)

    (root,) = smaller.roots
    (turn,) = root.stream.turns
    assert len(turn) == 2
    assert (root.reader, smaller.seed, smaller.granularity) == (Reader(), 0, "batch")
    assert "a result of" in violation.problem or "before" in violation.problem


def test_a_hook_after_tools_blocks_no_run_whose_tools_were_all_denied() -> None:
    stream = Streaming(((Do("guarded"), Do("guarded")),), "hook_blocks")

    run_program(Program((Root(stream, Reader("drain", answers="nobody")),)))
