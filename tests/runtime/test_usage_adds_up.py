"""Whatever becomes of the requests of a run, the usage in its events adds up to that of its outcome."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings, strategies as st

from agentloop import Agent, Approve, Compaction, Deadlines, Limits, Price, Retries, ToolContext, tool
from agentloop.errors import AgentLoopError, ModelConnectionError, ModelContextOverflowError, ModelError
from agentloop.events import ChildStreamStopped, StreamEvent, StreamStopped, UsageReported
from agentloop.journal import OpenStore, Record
from agentloop.messages import Usage, user_message
from agentloop.models import ModelRequest
from agentloop.outcome import Outcome
from agentloop.stores import MemoryStore, StoredSession, stored_session
from agentloop.stores._replay import load
from agentloop.testing import FunctionModel, Response, calls, fails, hangs, says
from agentloop.wire import EVENT_TYPES, decode_event

EARLY = Usage(input_tokens=100, output_tokens=1)


def _early(response: Response) -> Response:
    return msgspec.structs.replace(response, reported=EARLY)


def _using(response: Response, usage: Usage) -> Response:
    return msgspec.structs.replace(response, usage=usage)


RESPONSES: dict[str, Callable[[], Response]] = {
    "answers": lambda: says("Done."),
    "answers with an early report": lambda: _early(says("Done.")),
    "says nothing": lambda: says(" "),
    "is cut off": lambda: says("Do", stop="length"),
    "refuses": lambda: says("No.", stop="refusal"),
    "has a tool ask a model": lambda: calls("judge"),
    "has two tools ask a model": lambda: calls("judge") + calls("judge"),
    "fills the window": lambda: _using(calls("judge"), Usage(input_tokens=3000, output_tokens=1)),
    "reports no usage": lambda: _using(calls("judge"), Usage()),
    "delegates": lambda: calls("inner", prompt="go"),
    "asks for an approval": lambda: calls("pay") + calls("judge"),
    "breaks off": lambda: _early(says("Well")) + fails(ModelConnectionError("dropped")),
    "breaks off without a report": lambda: says("Well") + fails(ModelConnectionError("dropped")),
    "fails": lambda: fails(ModelConnectionError("dropped")),
    "fails for good": lambda: _early(says("Well")) + fails(ModelError("broken")),
    "hangs": lambda: _early(says("Well")) + hangs(),
    "is refused as too long": lambda: fails(ModelContextOverflowError(model="m", status=400, body="too long")),
}
"""Made anew for each request, since the notes of an error stay with it."""
LIMITS = {
    "none": Limits(),
    "requests": Limits(requests=4),
    "tokens": Limits(tokens=150),
    "cost": Limits(cost=0.0002),
}
MOST_RESUMES = 30
ENDS = ("is read", "is stopped", "is left", "dies")


class World:
    """The models, which give the responses of a script to whichever request comes next, and the agents."""

    def __init__(self, script: Sequence[str], limits: Limits, *, has_prices: bool) -> None:
        self.script = list(script)
        self.asked = 0
        self.reported = Usage()
        """What the models have reported, if no response was cancelled."""

        @tool(if_interrupted="retry")
        async def judge(context: ToolContext[Any]) -> str:
            try:
                request = ModelRequest((user_message("Is it?"),))
                return (await context.ask_model(request, model=FunctionModel(self.respond, name="judge"))).text
            except AgentLoopError as error:
                return str(error)

        @tool(requires_approval=True)
        async def pay() -> str:
            return "paid"

        options: dict[str, Any] = {
            "retries": Retries(attempts=2, delay=0.1),
            "deadlines": Deadlines(idle=3),
            "compaction": Compaction(window=2000, keep_recent=0.05),
            "prices": {"outer": Price(1, 1), "judge": Price(2, 2)} if has_prices else {},
        }
        inner = Agent(FunctionModel(self.respond, name="inner"), name="inner", tools=[judge, pay], **options)
        self.agent = Agent(
            FunctionModel(self.respond, name="outer"), tools=[judge, pay, inner.as_tool()], limits=limits, **options
        )

    def respond(self, _request: ModelRequest) -> Response:
        self.asked += 1
        response = RESPONSES[self.script.pop(0) if self.script else "answers"]()
        breaks_off = response.error is not None or response.hangs
        used = response.reported if breaks_off else response.usage
        if not breaks_off or used != Usage():
            self.reported += msgspec.structs.replace(used, requests=1)
        return response


async def play(world: World, store: OpenStore, end: str, after: int) -> tuple[Outcome | None, list[Record]]:
    """Run, or resume, until the stream ends, or until ``end`` comes after so many events.

    Returns:
      The outcome, ``None`` if the process died, and the records of the journal.
    """
    async with stored_session(store, "ann") as session:
        async with _open(world, session) as stream:
            count = 0
            # A run that fails raises its error at the end.
            with suppress(AgentLoopError):
                async for _ in stream:
                    count += 1
                    if count != after or end == "is read":
                        continue
                    if end == "dies":
                        # For long enough that the journal has saved what happened.
                        await trio.sleep(1)
                        return None, list(await store.read("ann"))
                    if end == "is left":
                        break
                    stream.stop()
        outcome: Outcome = stream.outcome
    return outcome, list(await store.read("ann"))


def _open(world: World, session: StoredSession) -> Any:
    if session.is_resumable:
        answers: Any = {question.id: Approve() for question in session.questions}
        return world.agent.resume_stream(session, answers, on_question="park")
    return world.agent.stream("bla " * 1000, session=session, on_question="park")


def events_in(records: Sequence[Record]) -> list[StreamEvent]:
    events: list[Any] = [decode_event(record.data) for record in records if record.kind in EVENT_TYPES]
    return events


def check(events: Sequence[StreamEvent]) -> Usage:
    """Check each total against the sum of what was reported before it, and return the sum at the root."""
    sums: dict[str, Usage] = {}
    sessions: dict[str, tuple[str, str | None]] = {}
    for event in events:
        sessions[event.stream] = (event.session, event.parent)
        if isinstance(event, UsageReported):
            stream: str | None = event.stream
            while stream is not None:
                session, stream = sessions[stream]
                sums[session] = sums.get(session, Usage()) + event.usage
            assert_same(event.total, sums[event.session])
        elif isinstance(event, (StreamStopped, ChildStreamStopped)):
            assert_same(event.usage, sums.get(event.session, Usage()))
    return sums.get("ann", Usage())


def assert_same(usage: Usage, other: Usage) -> None:
    assert math.isclose(usage.cost, other.cost)
    assert msgspec.structs.replace(usage, cost=0.0) == msgspec.structs.replace(other, cost=0.0)


SCRIPTS = st.lists(st.sampled_from(sorted(RESPONSES)), max_size=14)


@pytest.mark.seconds(1000)
@settings(max_examples=60)
@given(
    script=SCRIPTS,
    limits=st.sampled_from(sorted(LIMITS)),
    has_prices=st.booleans(),
    ends=st.lists(st.tuples(st.sampled_from(ENDS), st.integers(1, 30)), max_size=3),
)
async def test_the_usage_in_the_events_of_a_run_adds_up_to_that_of_its_outcome(
    script: list[str], limits: str, has_prices: bool, ends: list[tuple[str, int]]
) -> None:
    world = World(script, LIMITS[limits], has_prices=has_prices)

    requests, usage = await play_to_the_end(world, ends)

    # A request counts before it goes out, and a response that was cut off may have reported nothing.
    assert usage.requests <= world.asked <= requests + len(ends)


@pytest.mark.seconds(1000)
@settings(max_examples=60)
@given(script=SCRIPTS, limits=st.sampled_from(["none", "requests"]))
async def test_a_run_that_is_read_to_its_end_has_counted_whatever_its_models_reported(
    script: list[str], limits: str
) -> None:
    world = World(script, LIMITS[limits], has_prices=False)

    requests, usage = await play_to_the_end(world, [])

    assert requests == world.asked
    assert usage == world.reported


async def play_to_the_end(world: World, ends: Sequence[tuple[str, int]]) -> tuple[int, Usage]:
    """Run, and resume, until there is nothing to resume; check each time that the usage adds up.

    Returns:
      How many requests the run has counted, and the sum of its usage.
    """
    records: list[Record] = []
    for end, after in [*ends, *[("is read", 0)] * MOST_RESUMES]:
        async with MemoryStore().open() as store:
            await store.append("ann", records)
            outcome, records = await play(world, store, end, after)
        async with MemoryStore().open() as store:
            await store.append("ann", records)
            state = (await load(store, "ann")).state
        usage = check(events_in(records))
        assert state.run is not None
        assert_same(state.run.usage, usage)
        if outcome is not None:
            assert_same(outcome.usage, usage)
        if state.resumable is None:
            return state.run.requests, usage
    raise AssertionError("the run does not end")
