"""The simulated world: threads, files, a network, random numbers; and what is left of it at the end."""

from __future__ import annotations

import random
import secrets
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio
import anyio.abc
import anyio.to_thread
import pytest
import trio

from agentloop.testing.simulation import (
    HarnessError,
    IoRaise,
    Sim,
    Violation,
    parse_fault,
    seeded,
    simulate,
    sweep,
)
from tests.testing.programs import Program


def run(body: Callable[[Sim], Awaitable[None]], **options: object) -> Sim:
    return simulate(Program(body), **options)  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------- threads


def test_a_function_in_a_thread_sleeps_in_virtual_time_beside_the_tasks() -> None:
    happened: list[tuple[str, float]] = []

    def work(name: str, seconds: float) -> None:
        time.sleep(seconds)
        happened.append((name, trio.from_thread.run_sync(trio.current_time)))

    async def body(sim: Sim) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, work, "long", 3600)
            nursery.start_soon(trio.to_thread.run_sync, work, "short", 1)
            await trio.sleep(60)
            happened.append(("task", trio.current_time()))

    began = time.monotonic()
    run(body)

    assert happened == [("short", 1), ("task", 60), ("long", 3600)]
    assert time.monotonic() - began < 5


def test_a_thread_calls_async_functions_of_trio_and_is_told_of_a_cancel() -> None:
    told: list[str] = []

    def work() -> None:
        trio.from_thread.run(trio.sleep, 1)
        told.append("slept")
        time.sleep(10)
        try:
            trio.from_thread.check_cancelled()
        except trio.Cancelled:
            told.append("cancelled")
            raise

    async def body(sim: Sim) -> None:
        with trio.move_on_after(5) as scope:
            await trio.to_thread.run_sync(work)
        assert scope.cancelled_caught
        assert sim.now == 11

    run(body)

    assert told == ["slept", "cancelled"]


def test_an_abandoned_thread_goes_on_after_its_caller() -> None:
    async def body(sim: Sim) -> None:
        ended: list[float] = []

        def work() -> None:
            time.sleep(5)
            ended.append(sim.now)

        with trio.move_on_after(1):
            await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        assert not ended
        await trio.sleep(10)
        assert ended == [5]

    run(body)


def test_threads_race_in_an_order_that_the_schedule_chooses() -> None:
    orders: set[str] = set()

    async def body(sim: Sim) -> None:
        order: list[str] = []
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(trio.to_thread.run_sync, order.append, name)
        orders.add("".join(order))

    digests = {seed: run(body, schedule=seeded(seed)).trace_digest for seed in range(1, 6)}

    assert len(orders) > 1
    assert digests == {seed: run(body, schedule=seeded(seed)).trace_digest for seed in range(1, 6)}


def test_a_thread_whose_call_to_trio_is_never_answered_is_a_deadlock() -> None:
    async def body(sim: Sim) -> None:
        await trio.to_thread.run_sync(partial(trio.from_thread.run, trio.sleep_forever))

    with pytest.raises(Violation, match="deadlock"):
        run(body)
    # The real thread is free for the next run.
    run(lambda sim: trio.to_thread.run_sync(time.sleep, 1))


def test_an_error_of_the_function_is_raised_where_it_is_waited_for() -> None:
    async def body(sim: Sim) -> None:
        with pytest.raises(ValueError, match="invalid literal"):
            await trio.to_thread.run_sync(int, "x")

    run(body)


# ---------------------------------------------------------------------------------------------------------- files


async def save() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with await trio.open_file(trio.Path(folder, "a"), "w") as file:
            await file.write("one")
        assert await anyio.Path(folder, "a").read_text() == "one"


def test_each_use_of_a_file_is_a_place_for_a_fault_and_closing_is_none() -> None:
    operations: list[object] = []

    async def body(sim: Sim) -> None:
        await save()
        operations.extend(event for event in sim.trace if isinstance(event, str) and "of a file" in event)

    run(body)

    assert operations == ["open of a file", "write of a file", "read_text of a file"]
    assert sweep(save, kinds=["io"]).fired == 3


def test_a_fault_of_a_file_is_the_error_of_a_full_disk() -> None:
    async def body(sim: Sim) -> None:
        with pytest.raises(OSError, match="injected: io:2"):
            await save()

    assert run(body, fault=IoRaise(2)).fired
    assert parse_fault("io:2") == IoRaise(2)


# -------------------------------------------------------------------------------------------------------- network


def test_a_connection_is_refused_where_no_listener_accepts_and_a_port_is_taken_once() -> None:
    async def body(sim: Sim) -> None:
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("nowhere.example", 80)
        (first,) = await trio.open_tcp_listeners(80, host="127.0.0.1")
        with pytest.raises(OSError, match=r"has 127\.0\.0\.1:80 already"):
            await trio.open_tcp_listeners(80, host="127.0.0.1")
        await first.aclose()
        (again,) = await trio.open_tcp_listeners(80, host="127.0.0.1")
        await again.aclose()

    run(body)


def test_bytes_cross_the_network_with_back_pressure_half_closes_and_ends() -> None:
    size = 200_000
    received = bytearray()

    async def serve(stream: trio.SocketStream) -> None:
        async for data in stream:
            received.extend(data)
        await stream.send_all(b"thanks")

    async def body(sim: Sim) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_tcp, serve, 8000)
            async with await trio.open_tcp_stream("a.example", 8000) as stream:
                await stream.send_all(b"x" * size)
                await stream.send_eof()
                assert await stream.receive_some() == b"thanks"
                assert await stream.receive_some() == b""
            nursery.cancel_scope.cancel()

    run(body)

    assert len(received) == size


def test_a_sender_learns_that_the_other_end_is_gone() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.aclose()

    async def body(sim: Sim) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_tcp, serve, 8000)
            async with await trio.open_tcp_stream("localhost", 8000) as stream:
                await stream.send_all(b"hello")
                await trio.sleep(1)
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
                with pytest.raises(trio.BrokenResourceError):
                    await stream.send_all(b"hello")
            nursery.cancel_scope.cancel()

    run(body)


def test_anyio_connects_to_a_server_of_trio_within_the_simulation() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hi")

    async def body(sim: Sim) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_tcp, serve, 8000)
            async with await anyio.connect_tcp("b.example", 8000) as stream:
                assert await stream.receive() == b"hi"
                assert stream.extra(anyio.abc.SocketAttribute.remote_port) == 8000
            nursery.cancel_scope.cancel()

    run(body)


def test_a_server_and_a_client_of_anyio_meet_within_the_simulation() -> None:
    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await stream.send((await stream.receive()).upper())

    async def program() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            with suppress(OSError, anyio.BrokenResourceError):
                async with await anyio.connect_tcp("localhost", port) as stream:
                    await stream.send(b"hi")
                    assert await stream.receive() == b"HI"
            group.cancel_scope.cancel()

    assert sweep(program, limit=20).by_kind["io"].fired > 3


# -------------------------------------------------------------------------------------------------- random numbers


def test_random_numbers_are_the_same_in_each_run_and_as_before_after_it() -> None:
    drawn: list[tuple[object, ...]] = []

    async def body(sim: Sim) -> None:
        drawn.append((random.random(), uuid.uuid4(), secrets.token_hex()))

    random.seed(7)
    expected = [random.random(), random.random()]
    random.seed(7)
    first = random.random()
    run(body)
    run(body)

    assert drawn[0] == drawn[1]
    assert [first, random.random()] == expected
    assert uuid.uuid4() != drawn[0][1]


# --------------------------------------------------------------------------------------------------- what is left


def left_behind(body: Callable[[], Awaitable[None]]) -> str:
    with pytest.raises((Violation, HarnessError)) as caught:
        sweep(body)
    return str(caught.value)


def test_a_system_task_a_socket_and_an_async_generator_that_are_left_are_leaks() -> None:
    async def system_task() -> None:
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        await trio.sleep(1)

    async def socket() -> None:
        await trio.open_tcp_listeners(80, host="127.0.0.1")

    assert "system task trio.sleep_forever is still running" in left_behind(system_task)
    assert "the listener at 127.0.0.1:80, made at" in left_behind(socket)


def test_a_channel_that_only_a_fault_leaves_open_is_a_leak() -> None:
    async def closed_where_all_is_well() -> None:
        send, receive = trio.open_memory_channel[int](1)
        await trio.sleep(1)
        send.close()
        receive.close()

    async def never_closed() -> None:
        trio.open_memory_channel[int](1)
        await trio.sleep(1)

    assert "the sending end of a memory channel that was opened at test_sim_world.py" in left_behind(
        closed_where_all_is_well
    )
    assert sweep(never_closed).fired


# ------------------------------------------------------------------------------------------------------- programs


def test_a_timeout_strikes_at_every_step_and_its_error_may_get_out() -> None:
    caught: list[float] = []

    async def program() -> None:
        with trio.move_on_after(100) as scope:
            await trio.sleep(1)
            await trio.sleep(1)
        if scope.cancelled_caught:
            caught.append(trio.current_time())
        with anyio.fail_after(100):
            await anyio.sleep(1)

    sweep(program)

    assert {0, 1} <= set(caught)


def test_an_error_that_has_the_injected_one_as_its_cause_may_get_out_and_no_other() -> None:
    class LostError(Exception):
        pass

    async def program(*, chained: bool) -> None:
        try:
            await save()
        except OSError as error:
            raise LostError from error if chained else None

    assert sweep(partial(program, chained=True)).fired
    assert sweep(partial(program, chained=False), allowed=LostError).fired
    with pytest.raises(Violation, match=r"LostError got out(.|\n)*write `raise ... from error`"):
        sweep(partial(program, chained=False))


def test_a_program_that_takes_long_to_end_once_it_is_cancelled_is_reported() -> None:
    async def program() -> None:
        try:
            await trio.sleep(1)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(100)

    with pytest.raises(Violation, match="took 100 virtual seconds to end"):
        sweep(program)
    assert sweep(program, grace=100).fired


def test_the_report_names_the_line_of_the_program_and_the_call_that_repeats_the_run() -> None:
    async def program() -> None:
        await trio.sleep(1)
        try:
            await trio.sleep(2)  # here
        finally:
            assert trio.current_time() == 3

    with pytest.raises(Violation) as caught:
        sweep(program)

    report = str(caught.value)
    assert "test_sim_world.py" in report
    assert "(await trio.sleep(2)  # here)" in report
    assert f"sweep(program, only={caught.value.token!r})" in report
    assert caught.value.token in caught.value.__notes__[1]


def test_a_program_that_fails_by_itself_is_reported_with_its_error_and_line() -> None:
    async def program() -> None:
        await trio.sleep(1)
        raise KeyError("missing")

    with pytest.raises(HarnessError, match=r"KeyError got out of the program: 'missing'\n  raised at .*test_sim_world"):
        sweep(program)


def test_only_an_async_function_is_swept() -> None:
    with pytest.raises(HarnessError, match="give an async function"):
        sweep(Program)  # type: ignore[arg-type]
