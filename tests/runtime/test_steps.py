"""Observers that surround the steps of a run set context variables for its user code, and change nothing in it."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import trio

from agentloop import Agent, Retries, ToolContext, hooks, tool
from agentloop.errors import ModelConnectionError
from agentloop.events import Source, StreamEvent, ToolCallStarted
from agentloop.messages import Text, Usage, UserMessage
from agentloop.models import ModelRequest
from agentloop.observers import ModelStep, RunStep, Step, ToolStep
from agentloop.questions import Approve
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls, fails
from tests.support import first, nested, opened, watch

PLACE: ContextVar[str] = ContextVar("PLACE", default="outside")


def name_of(step: Step) -> str:
    match step:
        case RunStep():
            return f"run {step.source.agents[-1]}"
        case ToolStep():
            return f"tool {step.name}"
        case ModelStep():
            return f"model {step.purpose}"


class Surrounds:
    """Notes its steps, and names each in a context variable while it lasts."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.open: list[Step] = []
        self.left: list[str] = []

    def observe(self, event: StreamEvent, /) -> None:
        """See nothing."""

    @contextmanager
    def _around(self, step: Step) -> Generator[None]:
        self.steps.append(step)
        self.open.append(step)
        token = PLACE.set(f"{PLACE.get()} > {name_of(step)}")
        try:
            yield
        finally:
            PLACE.reset(token)
            self.open.remove(step)

    def around(self, step: Step, /) -> AbstractContextManager[None]:
        return self._around(step)

    def leave(self, source: Source, /) -> None:
        self.left.append(source.stream)

    def of(self, kind: type[Any]) -> list[Any]:
        return [step for step in self.steps if isinstance(step, kind)]


@pytest.mark.real_clock
async def test_context_variables_of_a_step_hold_for_its_tools_threads_hooks_models_and_child_runs() -> None:
    places: dict[str, str] = {}

    @tool
    async def waits() -> None:
        """Wait."""
        places["tool"] = PLACE.get()

    @tool
    def blocks() -> None:
        """Block."""
        places["thread"] = PLACE.get()

    @hooks.pre_tool_use
    async def guard(call: Any) -> None:
        places[f"hook of {call.name}"] = PLACE.get()

    @hooks.turn_start
    async def begins(turn: Any) -> None:
        places["hook"] = PLACE.get()

    class Model(ScriptedModel):
        async def respond(self, request: Any, reply: Any, /) -> Any:
            places["model"] = PLACE.get()
            return await super().respond(request, reply)

    inner = Agent(Model(calls("waits") + calls("blocks"), "Done."), name="inner", tools=[waits, blocks])
    agent = nested(inner.replace(hooks=[guard, begins]), 1).replace(observers=[Surrounds()])
    await agent.run("go")
    run = "outside > run outer1 > tool inner > run inner"
    assert places == {
        "tool": f"{run} > tool waits",
        "thread": f"{run} > tool blocks",
        "hook of waits": f"{run} > tool waits",
        "hook of blocks": f"{run} > tool blocks",
        "hook": run,
        "model": f"{run} > model turn",
    }
    assert PLACE.get() == "outside"


async def test_a_stream_leaves_the_context_of_its_reader_as_it_was() -> None:
    async with opened(Agent(ScriptedModel("Hi."), observers=[Surrounds()])) as stream:
        async for _ in stream:
            assert PLACE.get() == "outside"


async def test_a_step_says_how_it_ended() -> None:
    @tool
    async def breaks() -> None:
        """Break."""
        raise ValueError("no")

    steps = Surrounds()
    model = ScriptedModel(fails(ModelConnectionError("gone")), calls("breaks"), "Done.")
    outcome = await Agent(model, tools=[breaks], observers=[steps], retries=Retries(delay=0.01)).run("go")
    failed, *complete = steps.of(ModelStep)
    assert isinstance(failed.error, ModelConnectionError)
    assert failed.message is None
    assert [step.message.text for step in complete] == ["", "Done."]
    assert all(step.seconds_to_first >= 0 for step in complete)
    assert sum((step.usage for step in steps.of(ModelStep) if step.usage), Usage()) == outcome.usage
    [call] = steps.of(ToolStep)
    assert (call.result.status, call.error.type) == ("error", "ValueError")
    [run] = steps.of(RunStep)
    assert run.outcome == outcome
    assert steps.left == [run.source.stream]


async def test_requests_for_tools_are_steps_inside_the_tool() -> None:
    @tool
    async def asks(context: ToolContext[Any]) -> str:
        """Ask."""
        request = ModelRequest((UserMessage((Text("?"),)),))
        return (await context.ask_model(request)).text

    steps = Surrounds()
    model = ScriptedModel(calls("asks"), "An answer.", "Done.")
    await Agent(model, tools=[asks], observers=[steps]).run("go")
    assert [(step.purpose, bool(step.call_id)) for step in steps.of(ModelStep)] == [
        ("turn", False),
        ("tool", True),
        ("turn", False),
    ]


@pytest.mark.parametrize("way", ["break", "stop", "cancel"])
async def test_no_step_stays_open_when_a_run_is_left(way: str) -> None:
    @tool
    async def waits() -> None:
        """Wait."""
        await trio.sleep_forever()

    steps = Surrounds()
    inner = Agent(ScriptedModel(calls("waits")), name="inner", tools=[waits])
    with trio.CancelScope() as scope:
        async with opened(nested(inner, 1).replace(observers=[steps])) as stream:
            await first(stream, ToolCallStarted)
            await first(stream, ToolCallStarted)
            if way == "stop":
                stream.stop()
            elif way == "cancel":
                scope.cancel()
                await trio.lowlevel.checkpoint()
    assert len(steps.steps) == 6
    assert steps.open == []
    assert [step.outcome.reason for step in steps.of(RunStep)] == ["cancelled", "cancelled"]


@pytest.mark.parametrize("place", ["around", "enter", "exit", "leave"])
async def test_an_observer_that_fails_around_a_step_is_logged_and_changes_nothing(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Breaks(Surrounds):
        def around(self, step: Step, /) -> AbstractContextManager[None]:
            if place == "around":
                raise ValueError("no")
            return super().around(step)

        @contextmanager
        def _around(self, step: Step) -> Generator[None]:
            if place == "enter":
                raise ValueError("no")
            yield
            if place == "exit":
                raise ValueError("no")

        def leave(self, source: Source, /) -> None:
            if place == "leave":
                raise ValueError("no")

    @tool
    async def works() -> str:
        """Work."""
        return "fine"

    with caplog.at_level(logging.ERROR, logger="agentloop.run"):
        agent = Agent(ScriptedModel(calls("works"), "Done."), tools=[works], observers=[Breaks()])
        watched = await watch(agent)
    assert watched.outcome.output == "Done."
    assert "Breaks failed" in caplog.records[0].getMessage()
    # The run, and in it two requests and a call.
    steps = 1 if place == "leave" else 4
    assert len([record for record in caplog.records if record.name == "agentloop.run"]) >= steps


async def test_the_run_that_resumes_another_finds_the_notes_of_its_observers() -> None:
    class Notes(Surrounds):
        def around(self, step: Step, /) -> AbstractContextManager[None]:
            if isinstance(step, RunStep):
                step.take_note("place", f"{step.source.stream}\ud800" + "x" * 2000)
            return super().around(step)

    @tool(requires_approval=True)
    async def pays() -> str:
        """Pay."""
        return "paid"

    steps = Notes()
    inner = Agent(ScriptedModel(calls("pays"), "Done."), name="inner", tools=[pays])
    agent = nested(inner, 1).replace(observers=[steps])
    place = MemoryStore()
    async with place.open() as store:
        async with stored_session(store, "ann") as session:
            outcome = await agent.run("go", session=session, on_question="park")
        async with stored_session(store, "ann") as session:
            await agent.resume(session, {outcome.questions[0].id: Approve()})
    outer, child, outer_again, child_again = steps.of(RunStep)
    assert outer.notes == child.notes == {}
    assert outer_again.resumes == outer.source.stream
    assert outer_again.notes["place"].startswith(f"{outer.source.stream}\N{REPLACEMENT CHARACTER}xx")
    assert child_again.notes["place"].startswith(child.source.stream)
    assert len(child_again.notes["place"]) == 1000
    assert steps.open == []
