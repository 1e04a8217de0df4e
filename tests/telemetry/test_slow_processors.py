"""A span processor or an exporter that hangs, raises or is slow does not hold up, change or fail a run."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from agentloop import Agent, tool
from agentloop.telemetry import Tracing, _ending
from agentloop.telemetry._ending import SpanEnder
from agentloop.testing import ScriptedModel, calls

pytestmark = pytest.mark.real_clock


@tool
async def works() -> str:
    """Work."""
    return "fine"


def agent(processor: SpanProcessor) -> Agent:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracing = Tracing(tracer_provider=provider, metrics=False)
    return Agent(ScriptedModel(*(calls("works"), "Done.") * 20), tools=[works], observers=[tracing])


class Holds(SpanProcessor):
    """Holds each span that ends until it is let go."""

    def __init__(self) -> None:
        self.held = threading.Event()
        self.gone = threading.Event()
        self.ended: list[str] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.held.set()
        self.gone.wait(30)
        self.ended.append(span.name)


@contextmanager
def holding() -> Generator[Holds]:
    processor = Holds()
    try:
        yield processor
    finally:
        processor.gone.set()


async def test_a_processor_that_hangs_costs_one_run_a_moment_and_the_others_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with holding() as processor, caplog.at_level(logging.WARNING, logger="agentloop.telemetry"):
        traced = agent(processor)
        [tracing] = traced.observers
        assert isinstance(tracing, Tracing)
        for _ in range(3):
            assert (await traced.run("go")).output == "Done."
        assert processor.held.is_set()
        assert processor.ended == []
        assert not tracing.flush(0.01)
        # The first run has waited, and the others have not.
        assert len(caplog.records) == 1
        processor.gone.set()
        assert tracing.flush(10)
        assert len(processor.ended) == 3 * 4


async def test_a_run_waits_for_a_slow_processor_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def flush(self: SpanEnder, seconds: float) -> bool:
        waits.append(seconds)
        return False

    monkeypatch.setattr(SpanEnder, "flush", flush)
    with holding() as processor:
        traced = agent(processor)
        for _ in range(3):
            await traced.run("go")
    assert waits == [_ending.DRAIN_SECONDS]


@pytest.mark.parametrize("place", ["on_start", "on_end"])
async def test_a_processor_that_raises_costs_its_spans_and_nothing_else(place: str) -> None:
    class Raises(SpanProcessor):
        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            if place == "on_start":
                raise ValueError("no disk")

        def on_end(self, span: ReadableSpan) -> None:
            if place == "on_end":
                raise ValueError("no disk")

    outcome = await agent(Raises()).run("go")
    assert (outcome.output, outcome.usage.requests) == ("Done.", 2)


async def test_a_run_does_not_wait_for_a_processor_that_is_quick() -> None:
    class Sleeps(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            time.sleep(0.0001)

    traced = agent(Sleeps())
    began = time.perf_counter()
    for _ in range(5):
        await traced.run("go")
    assert time.perf_counter() - began < 5


def test_a_flush_waits_for_no_pause_between_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ending, "PAUSE_SECONDS", 5)
    ended: list[int] = []
    ender = SpanEnder()
    for number in range(40):
        ender.end(partial(ended.append, number))
    assert ender.flush(3)
    assert ended == [*range(40)]


def test_spans_beyond_the_bound_of_the_queue_are_lost_and_said_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_ending, "MAX_WAITING", 3)
    hold = threading.Event()
    ended: list[int] = []

    def finish(number: int) -> None:
        hold.wait(30)
        ended.append(number)

    ender = SpanEnder()
    for number in range(20):
        ender.end(partial(finish, number))
    hold.set()
    assert ender.flush(10)
    assert ended[:3] == [0, 1, 2]
    assert len(ended) in (3, 4)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_the_thread_ends_when_there_is_nothing_to_end_and_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ending, "IDLE_SECONDS", 0.01)
    ended: list[int] = []
    ender = SpanEnder()
    for number in range(3):
        ender.end(partial(ended.append, number))
        assert ender.flush(10)
        assert ender._thread is not None
        ender._thread.join(10)
        assert not ender._thread.is_alive()
    assert ended == [0, 1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_ends_spans_too() -> None:
    ender, ended = SpanEnder(), threading.Event()
    ender.end(ended.set)
    assert ender.flush(10)
    child = os.fork()
    if child == 0:
        ended.clear()
        ender.end(ended.set)
        os._exit(0 if ended.wait(10) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
