"""A run whose process dies after whichever write, or right before the next one, and whoever goes on with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import msgspec
import pytest
import trio
from attrs import field, frozen

from agentloop import Accept, Agent, Approve, Deny, Limits, ToolContext, tool
from agentloop._core.state import NOTES
from agentloop._core.transcript import problems
from agentloop.errors import UsageError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    MessageCommitted,
    Question,
    QuestionAnswered,
    StreamEvent,
    StreamStarted,
    ToolCallFinished,
)
from agentloop.journal import OpenStore, Record
from agentloop.messages import AssistantMessage, ToolResult
from agentloop.models import ModelRequest
from agentloop.questions import Answer
from agentloop.stores import MemoryStore, follow_session, stored_session
from agentloop.testing import FunctionModel, Response, assert_well_formed, calls
from agentloop.tools import Tool
from agentloop.wire import decode_event
from tests.conftest import run_in_trio

# -------------------------------------------------------------------------------- a scenario

Effect = tuple[str, str]
"""What was done, and for which call: its idempotency key."""

AGAIN: dict[str, dict[str, Any]] = {
    "again": {"if_interrupted": "retry"},
    "same": {"idempotent": True},
    "look": {"read_only": True},
}
"""Tools that may run again, and what they say of that."""

ONCE: dict[str, dict[str, Any]] = {
    "report": {"if_interrupted": "report"},
    "plain": {},
    "careful": {"if_interrupted": "report", "idempotent": True},
}
"""Tools that may not."""


def working(name: str, seconds: float, effects: list[Effect], **options: Any) -> Tool:
    async def work(context: ToolContext[None]) -> str:
        """Work."""
        await trio.sleep(seconds)
        effects.append((name, context.idempotency_key))
        await trio.sleep(seconds)
        return f"{name} done"

    return tool(name=name, **options)(work)


def scenario(effects: list[Effect]) -> Agent:
    """An agent that notes in ``effects`` what it does; its models answer by what they are asked."""

    @tool
    async def form(context: ToolContext[None]) -> str:
        """Ask, then act."""
        answer = await context.ask("Which?", {"type": "object", "properties": {"tag": {"type": "string"}}})
        effects.append(("form", context.idempotency_key))
        await trio.sleep(0.5)
        return answer.content["tag"] if isinstance(answer, Accept) else "no answer"

    @tool
    async def hasty(context: ToolContext[None]) -> str:
        """Ask, and act when nobody has answered soon."""
        with trio.move_on_after(0.2):
            await context.ask("Quick?")
        effects.append(("hasty", context.idempotency_key))
        await trio.sleep(0.5)
        return "hasty"

    @tool(requires_approval=True)
    async def approved(context: ToolContext[None]) -> str:
        """Act when approved."""
        effects.append(("approved", context.idempotency_key))
        return "approved"

    @tool(if_interrupted="retry")
    async def book(context: ToolContext[None]) -> str:
        """Charge once, however often it is called."""
        receipt = context.recall("receipt", str)
        if receipt is None:
            effects.append(("charge", context.idempotency_key))
            await trio.sleep(0.3)
            receipt = "r1"
            await context.remember("receipt", receipt)
            effects.append(("remembered", context.idempotency_key))
        await trio.sleep(0.3)
        return receipt

    tools = [
        *(working(name, 0.1 * number, effects, **options) for number, (name, options) in enumerate(AGAIN.items())),
        *(working(name, 0.25 * number, effects, **options) for number, (name, options) in enumerate(ONCE.items())),
        working("maybe", 0.4, effects, if_interrupted="ask"),
        form,
        hasty,
        approved,
        book,
    ]

    def script(turns: Sequence[Response | str]) -> FunctionModel:
        def respond(request: ModelRequest) -> Response | str:
            return turns[sum(isinstance(message, AssistantMessage) for message in request.messages)]

        return FunctionModel(respond)

    inner = Agent(
        script([calls("report") + calls("again"), calls("form"), "Inner."]), name="inner", tools=tools, instructions="."
    )
    everything = [*AGAIN, *ONCE, "maybe", "form", "hasty", "approved", "book"]
    first = calls("inner", prompt="go")
    for name in everything:
        first += calls(name)
    return Agent(
        script([first, calls("report") + calls("same"), "Done."]),
        tools=[*tools, inner.as_tool()],
        limits=Limits(tool_calls=20, turns=2),
    )


async def answered(question: Question) -> Answer:
    """By a person, after a while."""
    await trio.sleep(1 if getattr(question, "message", "") == "Quick?" else 0.2)
    return answer_to(question, Approve())


def answer_to(question: Question, doubt: Answer) -> Answer:
    match question:
        case ElicitationRequested(message="Quick?"):
            return Accept()
        case ElicitationRequested():
            return Accept({"tag": "x"})
        case ApprovalRequested(name="maybe"):
            return doubt
        case ApprovalRequested() | ContinueRequested():
            return Approve()


# ----------------------------------------------------------------------------------- its cuts


@frozen
class Cut:
    """What there is when the process dies."""

    records: tuple[Record, ...] = ()
    effects: tuple[Effect, ...] = ()
    told: tuple[StreamEvent, ...] = ()
    """To readers, in all processes so far."""
    answers: dict[str, bytes] = field(factory=dict[str, bytes])
    """That were given, and are not part of the journal yet."""

    def happened(self) -> list[StreamEvent]:
        """What the journal says."""
        found: list[StreamEvent] = []
        for record in self.records:
            if record.kind not in NOTES:
                event: Any = decode_event(record.data)
                found.append(event)
        return found


class Recorder:
    """A store that keeps what there was before and after each addition."""

    def __init__(self, store: OpenStore, before: Cut, effects: list[Effect]) -> None:
        self.store = store
        self.effects = effects
        self.told = list(before.told)
        self.records = list(before.records)
        self.given = dict(before.answers)
        self.cuts: list[Cut] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
        self.cuts.append(self.now())
        await self.store.append(session, records, **options)
        self.records += records
        self.cuts.append(self.now())

    async def answer(self, session: str, question: str, data: bytes, /) -> bool:
        is_first = await self.store.answer(session, question, data)
        self.given[question] = data
        self.cuts.append(self.now())
        return is_first

    def now(self) -> Cut:
        return Cut(tuple(self.records), tuple(self.effects), tuple(self.told), dict(self.given))


@asynccontextmanager
async def another_process(cut: Cut) -> AsyncGenerator[tuple[Recorder, Agent]]:
    """A process that finds what there was at ``cut``, and an agent in it."""
    effects = list(cut.effects)
    async with MemoryStore().open() as store:
        if cut.records:
            await store.append("ann", cut.records)
        for question, data in cut.answers.items():
            await store.answer("ann", question, data)
        yield Recorder(store, cut, effects), scenario(effects)


async def first_run() -> list[Cut]:
    """All cuts of a run that nothing disturbs."""
    async with another_process(Cut()) as (recorder, agent):
        store: Any = recorder
        async with (
            stored_session(store, "ann") as session,
            agent.stream("go", session=session, on_question=answered) as stream,
        ):
            async for event in stream:
                recorder.told.append(event)
        assert stream.outcome.output == "Done."
        return [*recorder.cuts, recorder.now()]


async def go_on(cut: Cut, doubt: Answer) -> tuple[Cut, list[Cut]]:
    """Go on from ``cut`` to the end, parked with every question; what there is then, and all cuts on the way."""
    async with another_process(cut) as (recorder, agent):
        store: Any = recorder
        answers: dict[str, Answer] = {}
        for _ in range(12):
            async with stored_session(store, "ann") as session:
                assert problems(session.messages) == []
                if not session.is_resumable:
                    if session.messages:
                        break
                    # It died before there was anything to go on with.
                    with pytest.raises(UsageError, match="nothing is unfinished"):
                        await agent.resume(session)
                    opening = agent.stream("go", session=session, on_question="park")
                else:
                    answers = {one.id: answer_to(one, doubt) for one in session.questions}
                    opening = agent.resume_stream(session, answers, on_question="park")
                async with opening as stream:
                    async for event in stream:
                        recorder.told.append(event)
                        assert problems(session.messages) == []
                assert stream.outcome.reason in ("needs_input", "completed"), stream.outcome
        else:
            raise AssertionError("it comes to no end")
        return recorder.now(), recorder.cuts


@cache
def cuts_of_the_first_run() -> list[Cut]:
    found: list[Cut] = []

    async def run() -> None:
        found.extend(await first_run())

    run_in_trio(run)
    return found


# ------------------------------------------------------------------------------ what must hold


async def check(cut: Cut, end: Cut, doubt: Answer) -> None:
    """What must hold of a run that was cut off at ``cut``, and went on to its ``end``."""
    async with another_process(end) as (recorder, _):
        store: Any = recorder
        async with stored_session(store, "ann") as session:
            messages = session.messages
            assert not session.is_resumable
            assert session.questions == ()
        events = [event async for event in follow_session(store, "ann")]
    assert problems(messages) == []
    assert messages[-1].text == "Done."
    assert [type(one).__name__ for one in messages if not isinstance(one, ToolResult)] == [
        "UserMessage",
        *["AssistantMessage"] * 3,
    ]
    # What the journal tells is well formed, each stream of it.
    for stream in per_stream(events):
        assert_well_formed(stream)
    check_told(cut, end, messages, events)
    check_effects(cut, end, messages, doubt)


def check_told(cut: Cut, end: Cut, messages: Sequence[Any], events: Sequence[StreamEvent]) -> None:
    """Nothing is missing that a reader was told: at the cut, nor on the way to the end."""
    results = {one.call_id: one for one in messages if isinstance(one, ToolResult)}
    finished = {(one.session, one.call_id): one.result for one in events if isinstance(one, ToolCallFinished)}
    committed = {(one.session, one.index): one.message for one in events if isinstance(one, MessageCommitted)}
    for event in end.told:
        if isinstance(event, MessageCommitted):
            assert committed[event.session, event.index] == event.message
            if event.depth == 0:
                assert messages[event.index] == event.message
        elif isinstance(event, ToolCallFinished):
            assert finished[event.session, event.call_id] == event.result
            if event.depth == 0:
                assert results[event.call_id] == event.result
    # An answer that was given is not asked for once more.
    known = {one.id for one in cut.happened() if isinstance(one, QuestionAnswered)}
    later = end.told[len(cut.told) :]
    given = [one.id for one in later if isinstance(one, QuestionAnswered)]
    for event in later:
        if isinstance(event, (ElicitationRequested, ApprovalRequested, ContinueRequested)) and event.id in known:
            assert event.id in given


def check_effects(cut: Cut, end: Cut, messages: Sequence[Any], doubt: Answer) -> None:
    """Each side effect as often as its tool allows, and under one key."""
    count = Counter(end.effects)
    later = Counter(end.effects[len(cut.effects) :])
    completed = {
        f"{one.session}#{one.call_id}"
        for one in cut.happened()
        if isinstance(one, ToolCallFinished) and one.result.status == "ok"
    }
    for (name, key), times in count.items():
        if name in (*ONCE, "form", "hasty", "approved"):
            assert times == 1, f"{name} ran {times} times"
        if name == "maybe" and isinstance(doubt, Deny):
            assert times == 1
        # What has a result is not done again.
        if key in completed:
            assert later[name, key] == 0, f"{name} ran again, though it had ended"
    # What was remembered is not done again.
    for name, key in cut.effects:
        if name == "remembered":
            assert later["charge", key] == 0
    # The calls are the same ones, however often they were made: twice each in two agents, or once.
    keys: dict[str, set[str]] = {}
    for name, key in count:
        keys.setdefault(name, set()).add(key)
    most = {"report": 3, "again": 2, "same": 2, "form": 2}
    for name, found in keys.items():
        assert len(found) <= most.get(name, 1), f"{name}: {found}"
    for one in messages:
        if not isinstance(one, ToolResult):
            continue
        times = sum(times for (_, key), times in count.items() if key == f"ann#{one.call_id}")
        if one.name in (*AGAIN, "book", "inner"):
            assert one.status == "ok"
        elif one.status == "ok":
            assert times >= 1
        else:
            # Of those that may not run again: it says so.
            assert one.status == "interrupted"
            assert "It may have run" in one.text
            assert times <= 1


def per_stream(events: Sequence[StreamEvent]) -> list[list[StreamEvent]]:
    """The events of a session, a list for each of its root streams. Numbered anew: pieces were joined."""
    found: list[list[StreamEvent]] = []
    for event in events:
        if isinstance(event, StreamStarted):
            found.append([])
        found[-1].append(msgspec.structs.replace(event, seq=len(found[-1]) + 1))
    return found


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> None:
    run_in_trio(test, seconds=10_000)


def test_the_scenario_has_all_that_it_is_for() -> None:
    cuts = cuts_of_the_first_run()
    last = cuts[-1]
    assert Counter(name for name, _ in last.effects) == Counter(
        {"again": 2, "same": 2, "look": 1, "report": 3, "plain": 1, "careful": 1, "maybe": 1, "form": 2, "hasty": 1}
        | {"approved": 1, "charge": 1, "remembered": 1}
    )
    assert len(cuts) > 30
    asked = [one for one in last.told if isinstance(one, (ElicitationRequested, ApprovalRequested, ContinueRequested))]
    assert Counter(type(one).__name__ for one in asked) == {
        "ElicitationRequested": 3,
        "ApprovalRequested": 1,
        "ContinueRequested": 1,
    }


@pytest.mark.parametrize("doubt", [Approve(), Deny()])
def test_a_run_can_be_resumed_after_any_write(doubt: Answer) -> None:
    seen: Counter[str] = Counter()

    first = cuts_of_the_first_run()

    async def test() -> None:
        for cut in first:
            end, _ = await go_on(cut, doubt)
            await check(cut, end, doubt)
            again = Counter(end.effects)
            seen.update(name for (name, _), times in again.items() if times > 1)
            seen.update(
                f"{one.name} {one.result.status}" for one in end.happened() if isinstance(one, ToolCallFinished)
            )

    in_virtual_time(test)
    # Else nothing was tried: each tool that may run again did, and each other one had to be reported.
    assert {"again", "same", "charge"} <= set(seen)
    assert {f"{name} interrupted" for name in (*ONCE, "form", "hasty")} <= set(seen)
    assert ("maybe" in seen) == isinstance(doubt, Approve)
    assert ("maybe interrupted" in seen) == isinstance(doubt, Deny)


def test_the_process_that_resumes_may_die_as_well() -> None:
    first = cuts_of_the_first_run()

    async def test() -> None:
        for number in range(5, len(first), 9):
            _, cuts = await go_on(first[number], Approve())
            for cut in cuts[number % 4 :: 6]:
                end, _ = await go_on(cut, Approve())
                await check(cut, end, Approve())

    in_virtual_time(test)


def test_a_new_prompt_abandons_a_run_that_was_cut_off_anywhere() -> None:
    first = cuts_of_the_first_run()

    async def test() -> None:
        for cut in first:
            async with another_process(cut) as (recorder, _):
                store: Any = recorder
                other = Agent(FunctionModel(lambda request: "Fine."))
                async with stored_session(store, "ann") as session:
                    before = session.messages
                    assert problems(before) == []
                    assert (await other.run("And now?", session=session)).output == "Fine."
                    assert session.messages[: len(before)] == before
                async with stored_session(store, "ann") as session:
                    assert session.messages[: len(before)] == before
                    assert not session.is_resumable
                for event in cut.told:
                    if isinstance(event, MessageCommitted) and event.depth == 0:
                        assert before[event.index] == event.message
                    if isinstance(event, ToolCallFinished) and event.depth == 0:
                        assert event.result in before
                # What is said not to have run has not.
                done = {key for name, key in cut.effects if name != "look"}
                for message in before:
                    if isinstance(message, ToolResult) and "It did not run" in message.text:
                        assert f"ann#{message.call_id}" not in done
                for stream in per_stream([event async for event in follow_session(store, "ann")]):
                    assert_well_formed(stream)

    in_virtual_time(test)
