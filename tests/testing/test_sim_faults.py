"""Faults and schedules as values, and where in a run they strike."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from agentloop.testing.simulation import (
    Cancel,
    ClockRaise,
    Fault,
    HarnessError,
    InjectedFault,
    SeamRaise,
    Sim,
    StepRaise,
    Token,
    Violation,
    parse_fault,
    parse_schedule,
    parse_token,
    replay,
    simulate,
    sweep_scenario,
)
from tests.testing.programs import AnyEnd, Program

# ---------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("cancel:A@17", Cancel(17, "A")),
        ("cancel:a@b@1", Cancel(1, "a@b")),
        ("seam:12", SeamRaise(12)),
        ("seam:12+", SeamRaise(12, after=True)),
        ("seam:12+!builtins:OSError", SeamRaise(12, OSError, after=True)),
        ("clock:7", ClockRaise(7)),
        ("clock:7!builtins:OSError", ClockRaise(7, OSError)),
        ("step:40", StepRaise(40)),
        ("step:40!trio:BrokenResourceError", StepRaise(40, trio.BrokenResourceError)),
    ],
)
def test_a_fault_prints_and_parses(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault
    assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cancel:A",
        "cancel:@3",
        "seam:0",
        "seam:x",
        "step:1+",
        "clock:0",
        "clock:1+",
        "seam:1!no:Such",
        "seam:1!sys:path",
    ],
)
def test_what_is_not_a_fault_is_refused(text: str) -> None:
    with pytest.raises(HarnessError, match="cannot"):
        parse_fault(text)


@given(st.dictionaries(st.integers(1, 999), st.integers(0, 9)), st.sampled_from(["step", "batch"]))
def test_a_schedule_prints_and_parses(picks: Mapping[int, int], granularity: Any) -> None:
    schedule = replay(picks, granularity)
    assert parse_schedule(str(schedule)) == schedule


def test_a_token_prints_and_parses() -> None:
    token = Token("two-streams", Cancel(17, "A"), replay({5: 1, 9: 2}))
    assert str(token) == "two-streams cancel:A@17 sched:{5:1,9:2}"
    assert parse_token(str(token)) == token
    assert parse_token("two-streams") == Token("two-streams")
    for text in ["", "x sched:{1:}", "x seam:1 seam:2", "x batch:{} sched:{}", "x cancel"]:
        with pytest.raises(HarnessError, match="cannot read"):
            parse_token(text)


def test_an_exception_that_has_no_importable_name_cannot_be_injected() -> None:
    class LocalError(Exception):
        pass

    with pytest.raises(HarnessError, match="define it at the top of a module"):
        SeamRaise(1, LocalError)


def test_the_clock_fails_where_the_code_that_is_named_asks_for_the_time() -> None:
    def ask_at(number: int) -> None:
        with suppress(InjectedFault):
            asked.append(number)
            trio.current_time()
            told.append(number)

    async def body(sim: Sim) -> None:
        ask_at(0)
        sim.watch_clock(lambda module: module == __name__)
        ask_at(1)
        # A scope without a limit is trio's own affair; one with a limit asks for the time, once.
        with trio.CancelScope() as scope:
            assert not scope.cancel_called
            await trio.lowlevel.checkpoint()
        with suppress(InjectedFault), trio.move_on_after(5):
            told.append(2)
            await trio.lowlevel.checkpoint()
        await trio.sleep(3)
        ask_at(3)
        sim.watch_clock(lambda module: module == "somebody.else")
        ask_at(4)

    asked: list[int] = []
    told: list[int] = []
    sim = simulate(Program(body))
    assert sim.clock_reads == 4
    assert told == [0, 1, 2, 3, 4]
    for read, missing in ((1, 1), (2, 2), (4, 3)):
        told = []
        sim = simulate(Program(body), fault=ClockRaise(read))
        assert sim.fired
        assert set(range(5)) - set(told) == {missing}
        assert sim.injection is not None
        assert "test_sim_faults.py" in sim.injection.chain[-1]
    assert not simulate(Program(body), fault=ClockRaise(5)).fired


def test_a_cancellation_lands_in_the_checkpoint_at_which_the_step_ended() -> None:
    async def body(sim: Sim) -> None:
        reached: list[int] = []
        with sim.scope("A") as scope:
            for number in range(10):
                reached.append(number)
                await trio.lowlevel.checkpoint()
        # The third step ended in the third checkpoint: one later, and it would have begun a fourth round.
        assert reached == [0, 1, 2]
        assert scope.cancelled_caught

    sim = simulate(Program(body), fault=Cancel(3, "A"))
    assert sim.fired


def test_a_cancellation_does_not_fire_when_it_is_too_late() -> None:
    async def body(sim: Sim) -> None:
        with sim.scope("A"):
            await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    assert simulate(Program(body), fault=Cancel(1, "A")).fired
    assert not simulate(Program(body), fault=Cancel(2, "A")).fired
    assert not simulate(Program(body), fault=Cancel(1, "B")).fired


def test_a_scope_that_other_code_opens_can_be_cancelled() -> None:
    async def body(sim: Sim) -> None:
        async with trio.open_nursery() as nursery:
            sim.register_scope("theirs", nursery.cancel_scope)
            await trio.sleep(1)
        assert nursery.cancel_scope.cancel_called == sim.fired
        sim.register_scope("theirs", trio.CancelScope())
        await trio.lowlevel.checkpoint()

    report = sweep_scenario(lambda: Program(body), kinds=["cancel"])
    assert not report.violations
    assert report.fired == report.runs > 2


def test_open_scopes_may_share_a_name_and_are_cancelled_one_by_one() -> None:
    cancelled: list[tuple[bool, bool]] = []

    async def body(sim: Sim) -> None:
        with sim.scope("A") as outer, sim.scope("A") as inner:
            await trio.lowlevel.checkpoint()
        cancelled.append((outer.cancel_called, inner.cancel_called))

    sweep_scenario(lambda: Program(body), kinds=["cancel"])

    assert {target.name for target in simulate(Program(body)).targets} == {"A", "A#2"}
    assert {(True, False), (False, True)} <= set(cancelled)


def test_a_cancel_action_is_swept_like_a_scope() -> None:
    async def body(sim: Sim) -> None:
        stop = trio.Event()
        sim.on_cancel("stop", stop.set)
        with trio.move_on_after(2):
            await stop.wait()
        assert (sim.now == 0) == sim.fired

    report = sweep_scenario(lambda: Program(body), kinds=["cancel"], scopes=["stop"])
    assert report.fired == report.runs > 0
    assert not report.violations


def test_a_cancel_action_that_raises_is_a_violation() -> None:
    def stop() -> None:
        raise ValueError("already stopped")

    async def body(sim: Sim) -> None:
        sim.on_cancel("stop", stop)
        await trio.lowlevel.checkpoint()

    with pytest.raises(Violation, match="the cancel action raised ValueError") as caught:
        simulate(Program(body), fault=Cancel(1, "stop"))
    assert caught.value.sim.fired


@pytest.mark.parametrize("after", [False, True])
def test_a_seam_raises_before_or_after_its_checkpoint(after: bool) -> None:
    async def body(sim: Sim) -> None:
        await sim.seam("first")
        before = sim.steps
        with pytest.raises(ConnectionError, match="second"):
            await sim.seam("second")
        assert sim.steps - before == after

    sim = simulate(Program(body), fault=SeamRaise(2, ConnectionError, after=after))
    assert sim.fired
    assert sim.injection is not None
    assert "body" in sim.injection.chain[-1]
    assert not simulate(AnyEnd(body), fault=SeamRaise(3, after=after)).fired


def test_a_step_can_be_resumed_with_an_exception() -> None:
    async def body(sim: Sim) -> None:
        event = trio.Event()
        event.set()
        await trio.lowlevel.checkpoint()
        with pytest.raises(InjectedFault, match="step:3"):
            await event.wait()

    assert simulate(Program(body), fault=StepRaise(3)).fired


def test_a_step_fault_spares_tasks_that_have_not_begun_and_nurseries_that_are_being_left() -> None:
    async def body(sim: Sim) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            assert nursery.child_tasks

    fired = [simulate(AnyEnd(body), fault=StepRaise(step)).fired for step in range(1, 6)]
    # main begins, the child begins, the child goes on, main leaves the nursery, the run is over
    assert fired == [False, False, True, False, False]
