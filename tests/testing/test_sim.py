"""The simulation: the same run twice, hangs that end, faults that land, and bugs that are found."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define
from trio._core import _run, _thread_cache

from agentloop.testing.simulation import (
    Cancel,
    Fault,
    HarnessError,
    Outcome,
    Schedule,
    SeamRaise,
    Sim,
    StepRaise,
    Violation,
    fifo,
    replay,
    replay_token,
    seeded,
    simulate,
    sweep_scenario,
    trio_private,
)
from tests.testing.programs import AnyEnd, Body, Program, forever, never, stuck, three_tasks

# ---------------------------------------------------------------------- determinism


@pytest.mark.parametrize("schedule", [fifo(), fifo("step"), seeded(1), seeded(2, "batch"), replay({3: 1})])
@pytest.mark.parametrize("fault", [None, Cancel(4, "reader"), SeamRaise(2)])
def test_the_same_scenario_fault_and_schedule_do_the_same(fault: Fault | None, schedule: Schedule) -> None:
    first, second = (simulate(AnyEnd(three_tasks), fault=fault, schedule=schedule) for _ in range(2))
    assert first.trace == second.trace
    assert first.trace_digest == second.trace_digest
    assert first.token == second.token


def test_another_schedule_does_something_else() -> None:
    digests = {simulate(Program(three_tasks), schedule=seeded(seed)).trace_digest for seed in range(10)}
    assert len(digests) > 5


def digests_of_three_tasks() -> list[str]:
    program = Program(three_tasks)
    return [simulate(program, schedule=schedule).trace_digest for schedule in (fifo(), fifo("step"), seeded(1))]


def test_a_run_is_the_same_in_another_process_with_other_hashes() -> None:
    code = "from tests.testing.test_sim import digests_of_three_tasks as digests; print(*digests())"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        output = subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
        )
        assert output.stdout.split() == digests_of_three_tasks()


def test_a_cancelled_nursery_wakes_its_tasks_in_the_same_order_each_time() -> None:
    """Trio aborts them in the order of a set of objects, which is that of their addresses."""

    async def body(sim: Sim) -> None:
        async def child() -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(child)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

    ballast: list[object] = []
    digests = set[str]()
    for size in range(5):
        ballast.append([object() for _ in range(100 * size)])
        digests.add(simulate(Program(body)).trace_digest)
    assert len(digests) == 1


def test_fifo_runs_the_task_that_has_waited_longest() -> None:
    async def body(sim: Sim) -> None:
        order: list[str] = []

        async def child(name: str) -> None:
            for _ in range(2):
                order.append(name)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(child, name)
        assert order == [*"abcabc"]

    simulate(Program(body), schedule=fifo("batch"))
    simulate(Program(body), schedule=fifo("step"))


@pytest.mark.parametrize("schedule", [seeded(3), seeded(3, "batch"), replay({2: 1}), replay({1: 2}, "batch")])
def test_any_schedule_prints_as_the_choices_it_made_and_these_replay_it(schedule: Schedule) -> None:
    run = simulate(Program(three_tasks), schedule=schedule)
    again = replay_token(lambda: Program(three_tasks), run.token)
    assert again.trace == run.trace
    assert again.token == run.token
    assert again.picks == run.picks != {}
    assert again.fired


def test_trio_still_has_the_private_parts_that_we_stand_in_for() -> None:
    """All that makes a run repeatable hangs on them; a trio without would quietly go back to random order."""
    asked = simulate(Program(three_tasks), schedule=replay({2: 1})).picks
    assert asked == {2: 1}

    scope = trio.CancelScope()
    assert not trio_private.scope_has_ended(scope)
    with pytest.raises(HarnessError, match=r"has no trio\.no_such_name any more"):
        trio_private._lookup(trio, "no_such_name")


def test_a_trio_that_does_not_ask_for_the_order_of_tasks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio_private._Order, "shuffle", lambda _self, _batch: None)
    with pytest.raises(HarnessError, match="no longer has its tasks ordered"):
        simulate(Program(three_tasks))


def test_trio_is_as_before_when_a_simulation_is_over() -> None:
    def what_we_stand_in_for() -> list[object]:
        names = ["_ALLOW_DETERMINISTIC_SCHEDULING", "_r", "TheIOManager"]
        return [
            *(getattr(_run, name) for name in names),
            _thread_cache.THREAD_CACHE,
            threading.Thread.start,
            socket.socketpair,
            socket.socket.__init__,
            subprocess.Popen.__init__,
        ]

    before = what_we_stand_in_for()
    simulate(Program(three_tasks))
    assert what_we_stand_in_for() == before
    assert trio.run(trio.to_thread.run_sync, lambda: 5) == 5


# ---------------------------------------------------------------------- time


def test_time_is_virtual_and_starts_at_zero() -> None:
    async def body(sim: Sim) -> None:
        assert trio.current_time() == sim.now == 0
        await trio.sleep(3600)
        assert trio.current_time() == sim.now == 3600
        with trio.move_on_after(5):
            await trio.sleep_forever()

    assert simulate(Program(body)).now == 3605


def test_waiting_for_all_tasks_to_block_takes_no_time_and_comes_before_any_deadline() -> None:
    async def body(sim: Sim) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0.001)
            await trio.testing.wait_all_tasks_blocked(cushion=3600)
            assert sim.now == 0

    simulate(Program(body))


# ---------------------------------------------------------------------- runs that would not end


def test_a_deadlock_is_found_and_says_where_each_task_waits() -> None:
    async def body(sim: Sim) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(never, name="the other one")
            await trio.sleep(1)

    report = stuck(body).stuck
    assert report is not None
    assert report.reason == "deadlock"
    assert report.now == 1
    main, other = report.tasks
    assert other.name == "the other one"
    assert [place.split()[1] for place in other.chain] == ["never", "Event.wait"]
    assert other.chain[0].startswith("tests/testing/programs.py:")
    assert main.chain[0].startswith("tests/testing/programs.py:")
    assert "NurseryManager.__aexit__" in " ".join(main.chain)
    assert " at 0x" not in str(report)


def test_a_deadlock_under_a_shield_is_ended_too() -> None:
    unwound: list[str] = []

    async def shielded() -> None:
        try:
            with trio.CancelScope(shield=True):
                await never()
        finally:
            unwound.append("child")

    async def body(sim: Sim) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(shielded)
                nursery.start_soon(never)

    report = stuck(body).stuck
    assert report is not None
    assert len(report.tasks) == 3
    assert unwound == ["child"]


def test_a_deadlock_that_a_cancellation_causes_names_the_cancellation() -> None:
    async def body(sim: Sim) -> None:
        with sim.scope("A"):
            try:
                await trio.sleep(1)
            finally:
                with trio.CancelScope(shield=True):
                    await never()

    with pytest.raises(HarnessError, match="fails without any fault"):
        sweep_scenario(lambda: Program(body))
    sim = stuck(body, fault=Cancel(1, "A"))
    assert sim.injection is not None
    assert "trio.sleep" not in sim.injection.task
    assert "sleep_forever" in sim.injection.chain[-1]


def test_a_busy_loop_uses_up_its_steps() -> None:
    async def body(sim: Sim) -> None:
        for _ in forever():
            await trio.lowlevel.checkpoint()

    report = stuck(body, max_steps=500).stuck
    assert report is not None
    assert report.reason == "step budget"
    assert report.steps == 500
    assert not report.tasks[0].waiting


def test_callbacks_that_queue_themselves_again_use_up_their_steps() -> None:
    async def body(sim: Sim) -> None:
        token = trio.lowlevel.current_trio_token()

        def again() -> None:
            token.run_sync_soon(again)

        again()
        await never()

    report = stuck(body, max_steps=500).stuck
    assert report is not None
    assert report.reason == "step budget"


def test_timers_without_end_use_up_virtual_time() -> None:
    async def body(sim: Sim) -> None:
        for _ in forever():
            await trio.sleep(60)

    report = stuck(body, max_virtual=3600).stuck
    assert report is not None
    assert report.reason == "virtual-time budget"
    assert report.now == 3600


@pytest.mark.parametrize("wait", [never, trio.lowlevel.checkpoint, partial(trio.sleep, 1)])
@pytest.mark.filterwarnings("error")
def test_a_task_that_ignores_all_that_is_raised_in_it_is_ended_all_the_same(
    wait: Callable[[], Awaitable[None]],
) -> None:
    async def body(sim: Sim) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            for _ in forever():
                with suppress(BaseException):
                    await wait()

    assert stuck(body, max_steps=500, max_virtual=50).stuck
    # What it leaves behind has been dealt with: nothing comes up later, in somebody else's test.
    gc.collect()
    assert simulate(Program(three_tasks)).steps > 10


def test_a_wait_that_cannot_be_aborted_is_ended_all_the_same() -> None:
    async def body(sim: Sim) -> None:
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    assert stuck(body).stuck


# ---------------------------------------------------------------------- what is refused


def ignoring_errors(use: Callable[[], object]) -> Body:
    """Use something forbidden, as code would that turns every exception into a result."""

    async def body(sim: Sim) -> None:
        with suppress(Exception):
            result = use()
            if isinstance(result, Awaitable):
                await result

    return body


@pytest.mark.parametrize(
    ("what", "use"),
    [
        pytest.param("a thread", lambda: threading.Thread(target=int).start(), id="Thread"),
        pytest.param("a socket", lambda: trio.socket.socket(type=socket.SOCK_DGRAM), id="udp"),
        pytest.param("a socket", lambda: trio.to_thread.run_sync(socket.socket), id="socket in a thread"),
        pytest.param("a socket", trio.socket.socketpair, id="socketpair"),
        pytest.param("a socket", partial(socket.create_connection, ("127.0.0.1", 9)), id="create_connection"),
        pytest.param("a process", partial(trio.run_process, [sys.executable, "-c", ""]), id="run_process"),
        pytest.param("a process", partial(subprocess.Popen, [sys.executable, "-c", ""]), id="Popen"),
        pytest.param("a file descriptor", partial(trio.lowlevel.wait_readable, 0), id="wait_readable"),
        pytest.param("a file descriptor", partial(trio.lowlevel.wait_writable, 1), id="wait_writable"),
    ],
)
def test_threads_and_real_io_are_refused_even_if_the_error_is_swallowed(what: str, use: Callable[[], object]) -> None:
    with pytest.raises(HarnessError, match=f"it used {what}"):
        simulate(Program(ignoring_errors(use)))


def test_other_threads_keep_using_trio_while_a_simulation_runs() -> None:
    go_on, done = threading.Event(), threading.Event()
    results: list[object] = []

    async def elsewhere() -> None:
        left, right = trio.socket.socketpair()
        with left, right:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.send, b"x")
                results.append(await right.recv(1))
        results.append(await trio.to_thread.run_sync(lambda: 5))

    def run_elsewhere() -> None:
        go_on.wait()
        trio.run(elsewhere)
        done.set()

    async def body(sim: Sim) -> None:
        go_on.set()
        assert done.wait(30)
        await three_tasks(sim)

    thread = threading.Thread(target=run_elsewhere)
    thread.start()
    sim = simulate(Program(body))
    thread.join()
    assert results == [b"x", 5]
    assert sim.steps == simulate(Program(three_tasks)).steps


def test_a_simulation_cannot_run_within_another_or_within_trio() -> None:
    async def body(sim: Sim) -> None:
        await trio.lowlevel.checkpoint()
        simulate(Program(three_tasks))

    with pytest.raises(HarnessError, match=r"a trio\.run of its own"):
        simulate(Program(body))


def test_a_name_that_would_not_fit_into_a_token_is_refused() -> None:
    async def body(sim: Sim) -> None:
        await trio.lowlevel.checkpoint()
        sim.on_cancel("two words", int)

    with pytest.raises(HarnessError, match="one word"):
        simulate(Program(body))
    with pytest.raises(HarnessError, match="one word"):
        simulate(Program(three_tasks, name="two words"))


def test_an_error_in_a_hook_is_not_lost() -> None:
    """Trio logs it, and goes on without the instrument: all would look fine, and nothing would be injected."""
    broken = StepRaise(2)
    object.__setattr__(broken, "exc", lambda _text: int("not an exception"))
    with pytest.raises(HarnessError, match="the harness itself failed: "):
        simulate(Program(three_tasks), fault=broken)


def test_a_schedule_that_raises_or_picks_nonsense_is_not_lost() -> None:
    @define
    class Bad:
        answer: int | None
        granularity: Any = "step"

        def choose(self, choice: int, options: int, /) -> int:
            if self.answer is None:
                raise KeyError(choice)
            return self.answer

    with pytest.raises(KeyError):
        simulate(Program(three_tasks), schedule=Bad(None))
    with pytest.raises(HarnessError, match="picked 7 of"):
        simulate(Program(three_tasks), schedule=Bad(7))


def test_control_c_gets_out() -> None:
    async def body(sim: Sim) -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    # It is ignored in a program that was started in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            simulate(Program(body))
    finally:
        signal.signal(signal.SIGINT, before)


# ---------------------------------------------------------------------- what a run may not leave behind


async def numbers() -> AsyncGenerator[int, None]:
    for number in range(3):
        await trio.lowlevel.checkpoint()
        yield number


numbers_later: Callable[[], object] = partial(trio.sleep, 1)


async def leave_a_loop_over_a_generator(sim: Sim) -> None:
    async for _ in numbers():
        break


async def keep_a_generator(sim: Sim) -> None:
    sim.kept = kept = numbers()  # type: ignore[attr-defined]
    await anext(kept)


async def leave_a_generator_in_a_cycle(sim: Sim) -> None:
    cycle: list[object] = [generator := numbers()]
    cycle.append(cycle)
    await anext(generator)


async def forget_to_await(sim: Sim) -> None:
    await trio.lowlevel.checkpoint()
    numbers_later()


async def forget_to_await_in_a_cycle(sim: Sim) -> None:
    await trio.lowlevel.checkpoint()
    cycle: list[object] = [numbers_later()]
    cycle.append(cycle)


async def fail_in_a_finalizer(sim: Sim) -> None:
    await trio.lowlevel.checkpoint()

    class Bad:
        def __del__(self) -> None:
            raise ValueError("cannot close")

    Bad()


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (leave_a_loop_over_a_generator, "Async generator 'tests.testing.test_sim.numbers' was garbage collected"),
        (keep_a_generator, "async generator numbers was begun, but not closed"),
        (leave_a_generator_in_a_cycle, "async generator numbers was begun, but not closed"),
        (forget_to_await, "coroutine 'sleep' was never awaited"),
        (forget_to_await_in_a_cycle, "coroutine 'sleep' was never awaited"),
        (fail_in_a_finalizer, "ValueError in .*__del__: cannot close"),
    ],
)
def test_what_python_would_only_complain_about_is_a_violation(body: Body, what: str) -> None:
    with pytest.raises(Violation, match=f"left behind:\n  .*{what}"):
        simulate(Program(body))


def test_an_async_generator_that_is_closed_or_used_up_is_fine() -> None:
    async def body(sim: Sim) -> None:
        sim.kept = used_up, closed, _unused = numbers(), numbers(), numbers()  # type: ignore[attr-defined]
        async for _ in used_up:
            pass
        await anext(closed)
        await closed.aclose()

    simulate(Program(body))


def test_other_warnings_reach_the_one_who_asked_for_the_simulation() -> None:
    async def body(sim: Sim) -> None:
        await trio.lowlevel.checkpoint()
        warnings.warn("old", FutureWarning, stacklevel=1)
        warnings.warn("odd", RuntimeWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        simulate(Program(body))
    assert [str(warning.message) for warning in log] == ["old", "odd"]


def test_a_system_task_that_crashes_trio_is_a_violation() -> None:
    async def crash() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("not what a system task may do")

    async def body(sim: Sim) -> None:
        trio.lowlevel.spawn_system_task(crash)
        await trio.sleep(1)

    with pytest.raises(Violation, match=r"trio\.run itself failed: .*not what a system task may do"):
        simulate(Program(body))


# ---------------------------------------------------------------------- checks


def test_an_assertion_in_the_scenario_counts_even_if_its_check_does_not_look() -> None:
    async def child() -> None:
        await trio.lowlevel.checkpoint()
        raise AssertionError("three is not four")

    async def body(sim: Sim) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep(1)

    with pytest.raises(Violation, match="the scenario itself failed: three is not four"):
        simulate(AnyEnd(body))


def test_invariants_are_checked_after_every_scenario() -> None:
    seen: list[tuple[int, bool]] = []

    def invariants(sim: Sim, outcome: Outcome) -> None:
        seen.append((sim.steps, outcome.returned))
        assert outcome.returned, "a run returns"

    simulate(Program(three_tasks), invariants=invariants)
    assert seen == [(simulate(Program(three_tasks)).steps, True)]

    with pytest.raises(Violation, match="a run returns"):
        simulate(AnyEnd(three_tasks), fault=SeamRaise(1), invariants=invariants)
    report = sweep_scenario(lambda: AnyEnd(three_tasks), kinds=["seam"], invariants=invariants)
    assert len(report.violations) == report.runs == 6


def test_a_check_that_is_itself_broken_is_not_taken_for_a_violation() -> None:
    def invariants(sim: Sim, outcome: Outcome) -> None:
        raise LookupError("the check has a bug")

    with pytest.raises(LookupError) as caught:
        simulate(Program(three_tasks), invariants=invariants)
    assert caught.value.__notes__ == ["while checking program"]
