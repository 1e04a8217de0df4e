"""Programs that nobody has written: streams opened, nested, left, stopped and answered in every order."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from agentloop.testing.harness.machine import StreamMachine, programs
from agentloop.testing.harness.programs import Child, Do, Program, Reader, Root, Streaming, predict, run_program

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


def test_a_hook_after_tools_blocks_no_run_whose_tools_were_all_denied() -> None:
    stream = Streaming(((Do("guarded"), Do("guarded")),), "hook_blocks")

    run_program(Program((Root(stream, Reader("drain", answers="nobody")),)))
