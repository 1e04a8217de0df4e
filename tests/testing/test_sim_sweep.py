"""Sweeps and hypothesis find planted bugs, and say how to see them again."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from agentloop.testing.simulation import (
    HarnessError,
    InjectedFault,
    Outcome,
    Schedule,
    Sim,
    StepRaise,
    Violation,
    parse_token,
    replay_token,
    simplify_token,
    simulate,
    sweep_scenario,
)
from agentloop.testing.simulation.strategies import schedules
from tests.testing.programs import Program, three_tasks

# ---------------------------------------------------------------------- planted bugs, and sweeps that find them


@define
class EarlyReturn:
    """Two tasks and a channel, which is closed on every path but one."""

    name: str = "early-return"
    fixed: bool = False

    async def run(self, sim: Sim, /) -> None:
        send, receive = trio.open_memory_channel[int](0)

        async def list_tools() -> bool:
            try:
                await sim.seam("list tools")
            except InjectedFault:
                return False
            return True

        async def produce() -> None:
            with sim.scope("producer"):
                if not self.fixed and not await list_tools():
                    return
                with send:
                    if self.fixed and not await list_tools():
                        return
                    for number in range(3):
                        await send.send(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            with receive:
                async for _ in receive:
                    pass

    def check(self, sim: Sim, outcome: Outcome, /) -> None:
        if not isinstance(sim.fault, StepRaise):
            assert outcome.returned


@define
class LateRegister:
    """A question is announced before there is anything to answer it with."""

    name: str = "late-register"
    fixed: bool = False
    bystanders: int = 1
    waiters: dict[str, trio.Event] = field(factory=dict)

    async def run(self, sim: Sim, /) -> None:
        announced = trio.Event()

        async def ask() -> None:
            if self.fixed:
                self.waiters["q"] = trio.Event()
            announced.set()
            await trio.lowlevel.checkpoint()
            await self.waiters.setdefault("q", trio.Event()).wait()

        async def answer() -> None:
            await announced.wait()
            if "q" in self.waiters:
                self.waiters["q"].set()

        async def stand_by() -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(answer)
            for _ in range(self.bystanders):
                nursery.start_soon(stand_by)

    def check(self, sim: Sim, outcome: Outcome, /) -> None:
        assert outcome.returned


class LateClose:
    """A channel whose close is registered after something that can fail: the clock."""

    name = "late-close"

    def __init__(self, *, fixed: bool = False) -> None:
        self.fixed = fixed

    async def run(self, sim: Sim, /) -> None:
        sim.watch_clock(lambda module: module == __name__)
        send, receive = trio.open_memory_channel[None](0)

        async def produce() -> None:
            with suppress(InjectedFault), send if self.fixed else nullcontext():
                trio.current_time()
                send.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            async for _ in receive:
                pass

    def check(self, sim: Sim, outcome: Outcome, /) -> None:
        assert outcome.returned


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("cancel", EarlyReturn),
        ("seam", EarlyReturn),
        ("clock", LateClose),
        ("step", EarlyReturn),
        ("schedule", LateRegister),
        ("batch", LateRegister),
    ],
)
def test_each_kind_of_sweep_finds_its_planted_bug_and_the_token_replays_it(kind: Any, make: Any) -> None:
    clean = sweep_scenario(lambda: make(fixed=True), kinds=[kind])
    assert not clean.violations, str(clean)
    assert 0 < clean.fired <= clean.runs

    report = sweep_scenario(make, kinds=[kind])
    assert 0 < len(report.violations) <= report.runs
    for token, violation in report.violations:
        assert violation.token == token
        assert violation.sim.stuck
        assert violation.sim.fired
        with pytest.raises(Violation) as again:
            replay_token(make, token)
        assert again.value.sim.trace == violation.sim.trace
        assert str(again.value) == str(violation)


def test_a_violation_says_what_was_injected_who_hangs_where_and_how_to_replay_it() -> None:
    with pytest.raises(Violation) as caught:
        sweep_scenario(EarlyReturn, kinds=["seam"]).raise_if_violated()
    text = str(caught.value)
    assert "deadlock" in text
    assert "EarlyReturn.run" in text
    assert "MemoryReceiveChannel.receive" in text
    assert "injected: InjectedFault raised by seam 1 (list tools) before its checkpoint" in text
    assert "replay_token(make_scenario, 'early-return seam:1')" in text
    assert "of 2 runs" in caught.value.__notes__[0]


def test_a_sweep_tries_each_named_scope_after_each_step_in_which_it_is_open() -> None:
    tokens: list[str] = []
    report = sweep_scenario(
        lambda: EarlyReturn(fixed=True), kinds=["cancel"], on_run=lambda sim, _: tokens.append(sim.token)
    )
    steps = [int(token.rpartition("@")[2]) for token in tokens]
    assert steps == list(range(steps[0], steps[-1] + 1))
    assert report.fired == report.runs == len(steps)


def test_a_sweep_can_be_limited() -> None:
    full = sweep_scenario(lambda: EarlyReturn(fixed=True))
    assert [kind for kind, tally in full.by_kind.items() if tally.runs > 0] == ["cancel", "seam", "schedule"]
    few = sweep_scenario(lambda: EarlyReturn(fixed=True), limit=2)
    assert few.runs == 6 < full.runs


def test_a_sweep_in_two_processes_finds_the_same() -> None:
    crowd = partial(LateRegister, bystanders=6)
    alone, together = (sweep_scenario(crowd, kinds=["schedule"], jobs=jobs) for jobs in (1, 2))
    assert alone.runs > 50
    assert alone.violations
    assert [token for token, _ in together.violations] == [token for token, _ in alone.violations]
    assert together.by_kind == alone.by_kind


def test_a_sweep_that_fires_nothing_is_an_error() -> None:
    async def body(sim: Sim) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(HarnessError, match="fired nothing"):
        sweep_scenario(lambda: Program(body))
    for kind in ("cancel", "seam", "clock", "schedule", "batch"):
        with pytest.raises(HarnessError, match=f"the {kind} sweep of program fired nothing"):
            sweep_scenario(lambda: Program(body), kinds=[kind])
    with pytest.raises(HarnessError, match="has no scope 'nobody'"):
        sweep_scenario(lambda: Program(three_tasks), scopes=["nobody"])
    with pytest.raises(HarnessError, match="no kind was named"):
        sweep_scenario(lambda: Program(three_tasks), kinds=[])


def test_a_scenario_that_fails_without_a_fault_is_an_error() -> None:
    with pytest.raises(HarnessError, match="fails without any fault") as caught:
        sweep_scenario(lambda: Program(three_tasks, ends_with=OSError))
    assert isinstance(caught.value.__cause__, Violation)


def test_a_scenario_that_is_not_the_same_twice_is_an_error() -> None:
    rounds = iter(range(100))

    async def body(sim: Sim) -> None:
        for _ in range(next(rounds)):
            await sim.seam("again")

    with pytest.raises(HarnessError, match="not the same twice: event"):
        sweep_scenario(lambda: Program(body))


def test_a_token_of_another_scenario_is_an_error() -> None:
    with pytest.raises(HarnessError, match="of the scenario other"):
        replay_token(EarlyReturn, "other cancel:A@1")


# ---------------------------------------------------------------------- hypothesis


@pytest.mark.parametrize("granularity", ["step", "batch"])
def test_hypothesis_finds_a_bad_order_and_shrinks_it(granularity: Any) -> None:
    make = partial(LateRegister, bystanders=3)
    found: list[Sim] = []

    @settings(max_examples=200, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])
    @given(schedules(granularity))
    def answers_arrive(schedule: Schedule) -> None:
        try:
            simulate(make(), schedule=schedule)
        except Violation as violation:
            found.append(violation.sim)
            raise

    with pytest.raises(Violation) as caught:
        answers_arrive()
    shrunk = caught.value.sim
    assert (shrunk.choices, len(shrunk.picks)) < (found[0].choices, len(found[0].picks))
    with pytest.raises(Violation):
        replay_token(make, shrunk.token)

    simple = parse_token(simplify_token(make, shrunk.token)).schedule
    assert simple is not None
    assert len(simple.picks) == 1


def test_a_token_that_does_not_fail_cannot_be_simplified() -> None:
    with pytest.raises(HarnessError, match="does not fail"):
        simplify_token(LateRegister, "late-register")


@settings(max_examples=50, database=None)
@given(schedules())
def test_a_correct_program_is_correct_in_every_order(schedule: Schedule) -> None:
    simulate(LateRegister(fixed=True), schedule=schedule)


def test_an_example_that_has_drawn_too_much_does_not_break_the_run() -> None:
    """Hypothesis says so by raising from a draw: within trio's loop, that would leave everything unfinished."""
    ended: list[str] = []
    raised: list[str] = []

    async def body(sim: Sim) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(trio.lowlevel.checkpoint)
        ended.append("as it should")

    @settings(max_examples=10, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), schedules())
    def draws_much(data: st.DataObject, schedule: Schedule) -> None:
        if data.draw(st.booleans()):
            data.draw(st.binary(min_size=8170, max_size=8170))
        try:
            simulate(Program(body), schedule=schedule)
        except BaseException as error:
            raised.append(type(error).__name__)
            raise

    draws_much()
    assert set(raised) == {"StopTest"}
    assert len(ended) >= len(raised) > 0
