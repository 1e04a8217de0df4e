"""A run that resumes another, in whichever process, links to the span of the other one."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan

from agentloop import Agent, tool
from agentloop.events import Source, StreamEvent
from agentloop.observers import RunStep, Step
from agentloop.questions import Approve
from agentloop.stores import MemoryStore, SQLiteStore, stored_session
from agentloop.testing import ScriptedModel, calls
from tests.telemetry.support import Recorder, attributes, id_of, tree


@tool(requires_approval=True)
async def pays() -> str:
    """Pay."""
    return "paid"


@tool(if_interrupted="retry")
async def kills() -> str:
    """Kill the process, the first time."""
    return "alive"


def linked(span: ReadableSpan) -> list[str]:
    return [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links]


def name_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}-{context.span_id:016x}"


async def test_a_parked_run_ends_its_spans_and_the_resumed_one_links_to_them() -> None:
    before, after = Recorder(), Recorder()
    model = ScriptedModel(calls("inner", prompt="go"), "Done.")
    child = Agent(ScriptedModel(calls("pays"), "Done."), name="inner", tools=[pays])
    agent = Agent(model, name="outer", tools=[child.as_tool()])
    async with MemoryStore().open() as store:
        async with stored_session(store, "ann") as session:
            outcome = await agent.replace(observers=[before.tracing]).run("go", session=session, on_question="park")
        assert tree(before.spans) == [
            "invoke_agent outer",
            "  chat scripted",
            "  execute_tool inner",
            "    invoke_agent inner",
            "      chat scripted",
            "      execute_tool pays",
        ]
        async with stored_session(store, "ann") as session:
            await agent.replace(observers=[after.tracing]).resume(session, {outcome.questions[0].id: Approve()})
    assert tree(after.spans) == [
        "invoke_agent outer",
        "  execute_tool inner",
        "    invoke_agent inner",
        "      execute_tool pays",
        "      chat scripted",
        "  chat scripted",
    ]
    for parked, resumed in zip(before.named("invoke_agent"), after.named("invoke_agent"), strict=True):
        assert linked(resumed) == [name_of(parked)]
        assert attributes(resumed)["agentloop.resumes"] == attributes(parked)["agentloop.stream"]
        assert attributes(parked)["agentloop.outcome"] == "needs_input"
    outcomes = [attributes(span)["agentloop.outcome"] for span in before.named("execute_tool")]
    assert outcomes == ["parked", "parked"]
    [asked] = [event for span in before.spans for event in span.events if event.name == "agentloop.question"]
    assert dict(asked.attributes or {})["agentloop.question.kind"] == "approval"


async def test_a_run_that_no_tracer_saw_is_resumed_without_a_link() -> None:
    recorder = Recorder()
    agent = Agent(ScriptedModel(calls("pays"), "Done."), tools=[pays])
    async with MemoryStore().open() as store, stored_session(store, "ann") as session:
        outcome = await agent.run("go", session=session, on_question="park")
        await agent.replace(observers=[recorder.tracing]).resume(session, {outcome.questions[0].id: Approve()})
    [run] = recorder.named("invoke_agent")
    assert linked(run) == []


async def test_a_note_that_is_no_trace_context_is_no_link() -> None:
    class Another:
        def observe(self, event: StreamEvent, /) -> None:
            """See nothing."""

        def around(self, step: Step, /) -> AbstractContextManager[None]:
            if isinstance(step, RunStep):
                step.take_note("traceparent", "nonsense")
            return nullcontext()

        def leave(self, source: Source, /) -> None:
            """See nothing."""

    recorder = Recorder()
    agent = Agent(ScriptedModel(calls("pays"), "Done."), tools=[pays])
    async with MemoryStore().open() as store, stored_session(store, "ann") as session:
        traced = agent.replace(observers=[Another()])
        outcome = await traced.run("go", session=session, on_question="park")
        await agent.replace(observers=[recorder.tracing]).resume(session, {outcome.questions[0].id: Approve()})
    [run] = recorder.named("invoke_agent")
    assert linked(run) == []


KILLED = """
import os, signal, sys, trio
from agentloop import Agent, tool
from agentloop.stores import SQLiteStore, stored_session
from agentloop.testing import ScriptedModel, calls
from tests.support import nested
from tests.telemetry.support import Recorder

@tool
async def kills() -> str:
    "Kill the process."
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    recorder = Recorder()

    inner = Agent(ScriptedModel(calls("kills")), name="inner", tools=[kills])
    async with SQLiteStore(sys.argv[1]).open() as store, stored_session(store, "ann", lease_seconds=0.2) as session:
        await nested(inner, 1).replace(observers=[recorder.tracing]).run("go", session=session)

trio.run(main)
"""


@pytest.mark.real_clock
async def test_a_run_that_takes_over_after_a_kill_links_to_the_killed_one(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILLED, str(path)]
    done = await trio.run_process(command, check=False, cwd=root, capture_stderr=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    recorder = Recorder()
    inner = Agent(ScriptedModel("Done."), name="inner", tools=[kills])
    agent = Agent(ScriptedModel("Done."), name="outer1", tools=[inner.as_tool()], observers=[recorder.tracing])
    async with SQLiteStore(path).open() as store:
        notes = {
            record.stream: json.loads(record.data)["text"]
            for record in await store.read("ann", kinds=["observer_note"])
        }
        with trio.fail_after(60):
            async with stored_session(store, "ann", if_busy="wait") as session:
                await agent.resume(session)
    runs = recorder.named("invoke_agent")
    assert len(notes) == len(runs) == 2
    for run in runs:
        note = notes[attributes(run)["agentloop.resumes"]]
        assert linked(run) == [note[3:-3]]
        assert id_of(run) != int(note[36:52], 16)
