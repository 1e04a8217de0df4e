"""A run that ends where it waits for people, and goes on when they have answered: elsewhere, on another day."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from attrs import frozen

from agentloop import (
    Accept,
    Agent,
    Approve,
    Cancel,
    Compaction,
    Decline,
    Deny,
    Limits,
    Permissions,
    Rule,
    Session,
    Stream,
    ToolContext,
    hooks,
    tool,
)
from agentloop._core import context_window
from agentloop._core.transcript import problems
from agentloop.errors import (
    AnswerError,
    LimitReachedError,
    ModelConnectionError,
    NeedsInputError,
    OutputError,
    SessionBusyError,
    SessionLeasedError,
    ToolsetError,
    UnknownQuestionError,
    UsageError,
)
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ContinueRequested,
    ElicitationRequested,
    Question,
    QuestionParked,
    QuestionWithdrawn,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    ToolCallFinished,
    ToolCallParked,
    ToolCallStarted,
    TurnFinished,
)
from agentloop.journal import OpenStore
from agentloop.messages import AssistantMessage, ToolResult, Usage
from agentloop.outcome import Outcome
from agentloop.permissions import Exact
from agentloop.questions import Answer
from agentloop.stores import MemoryStore, SQLiteStore, answer_question, follow_session, stored_session
from agentloop.testing import FunctionModel, Response, ScriptedModel, assert_well_formed, calls, fails, says
from agentloop.tools import Tool
from tests.support import nested, of, tasks_alive

ROOT = Path(__file__).parents[2]

FORM: Mapping[str, Any] = {"type": "object", "properties": {"tag": {"type": "string"}}, "required": ["tag"]}


@frozen
class Read:
    """What there was to see of a stream that was read to its end."""

    stream: Stream
    events: list[StreamEvent]
    error: BaseException | None

    @property
    def outcome(self) -> Outcome:
        return self.stream.outcome

    @property
    def ids(self) -> list[str]:
        """Of the questions that it is parked with."""
        return [question.id for question in self.outcome.questions]

    @property
    def started(self) -> list[str]:
        """Ids of the calls that were dealt with, at any depth."""
        return [event.call_id for event in of(self.events, ToolCallStarted)]


OnEvent = Callable[[Stream, StreamEvent], object]


async def read(opening: AbstractAsyncContextManager[Stream], session: Session, on_event: OnEvent | None = None) -> Read:
    """Read a stream to its end, and check what must hold of any, parked or not."""
    events: list[StreamEvent] = []
    error: BaseException | None = None
    before = tasks_alive()
    async with opening as stream:
        try:
            async for event in stream:
                events.append(event)
                assert problems(session.messages) == []
                if on_event is not None:
                    on_event(stream, event)
        except Exception as raised:  # noqa: BLE001 - it is what the test wants to look at
            error = raised
    assert_well_formed(events)
    # Nothing is held in memory.
    assert tasks_alive() == before
    run = stream._run
    assert stream.pending == ()
    assert run.root.questions.scopes == {}
    assert run.writer.is_closed
    assert not session.is_busy
    assert problems(session.messages) == []
    assert error is stream.outcome.error
    is_parked = stream.outcome.reason == "needs_input"
    assert bool(stream.outcome.questions) == is_parked
    assert {event.id for event in of(events, QuestionParked)} >= {one.id for one in stream.outcome.questions}
    return Read(stream, events, error)


async def park(
    store: OpenStore, agent: Agent[Any, Any], prompt: str = "go", *, on_event: OnEvent | None = None
) -> Read:
    """A run that is expected to park."""
    async with stored_session(store, "ann") as session:
        parked = await read(agent.stream(prompt, session=session, on_question="park"), session, on_event)
        assert parked.outcome.reason == "needs_input"
        assert session.is_resumable
        assert {one.id for one in session.questions} == set(parked.ids)
        return parked


async def resume(
    store: OpenStore, agent: Agent[Any, Any], answers: Mapping[str, Answer] | None = None, **options: Any
) -> Read:
    """Go on with it, on another day."""
    async with stored_session(store, "ann") as session:
        options.setdefault("on_question", "park")
        return await read(agent.resume_stream(session, answers, **options), session)


@asynccontextmanager
async def memory() -> AsyncGenerator[OpenStore]:
    async with MemoryStore().open() as store:
        yield store


def results(outcome: Outcome) -> dict[str, str]:
    """The words of the results, by call."""
    return {one.call_id: one.text for one in outcome.messages if isinstance(one, ToolResult)}


def paying(ran: list[Any], **options: Any) -> Tool:
    @tool(requires_approval=True, **options)
    async def pay(amount: int) -> str:
        """Pay."""
        ran.append(("pay", amount))
        return f"paid {amount}"

    return pay


def asking(ran: list[Any], **options: Any) -> Tool:
    @tool(**options)
    async def ask(context: ToolContext[None], what: str = "Which?") -> str:
        """Ask."""
        ran.append(("asks", what))
        answer = await context.ask(what, FORM)
        ran.append(("acts", what))
        return answer.content["tag"] if isinstance(answer, Accept) else type(answer).__name__

    return ask


def free(ran: list[Any]) -> Tool:
    @tool
    async def act(what: str) -> str:
        """Act."""
        ran.append(("act", what))
        return what

    return act


# --------------------------------------------------------------------- every kind of question


@tool
async def visit(context: ToolContext[None]) -> str:
    """Visit."""
    return repr(await context.ask_url("Log in", "https://example.org/login"))


KINDS: dict[str, tuple[Callable[[], Agent], type[Any], Answer, str]] = {
    "approval": (
        lambda: Agent(ScriptedModel(calls("pay", id="c", amount=3), "Done."), tools=[paying([])]),
        ApprovalRequested,
        Approve(),
        "paid 3",
    ),
    "form": (
        lambda: Agent(ScriptedModel(calls("ask", id="c"), "Done."), tools=[asking([])]),
        ElicitationRequested,
        Accept({"tag": "x"}),
        "x",
    ),
    "form, declined": (
        lambda: Agent(ScriptedModel(calls("ask", id="c"), "Done."), tools=[asking([])]),
        ElicitationRequested,
        Decline(),
        "Decline",
    ),
    "form, closed": (
        lambda: Agent(ScriptedModel(calls("ask", id="c"), "Done."), tools=[asking([])]),
        ElicitationRequested,
        Cancel(),
        "Cancel",
    ),
    "page": (
        lambda: Agent(ScriptedModel(calls("visit", id="c"), "Done."), tools=[visit]),
        ElicitationRequested,
        Accept(),
        "Accept(content={})",
    ),
    "limit of turns": (
        lambda: Agent(ScriptedModel(calls("act", id="c", what="a"), "Done."), tools=[free([])], limits=Limits(turns=1)),
        ContinueRequested,
        Approve(),
        "a",
    ),
    "limit of calls": (
        lambda: Agent(
            ScriptedModel(calls("act", id="c", what="a") + calls("act", id="d", what="b"), "Done."),
            tools=[free([])],
            limits=Limits(tool_calls=1),
        ),
        ContinueRequested,
        Approve(),
        "a",
    ),
}


async def parked_and_resumed(store: OpenStore, kind: str) -> None:
    make, asked, answer, result = KINDS[kind]
    agent = make()
    parked = await park(store, agent)
    [question] = parked.outcome.questions
    assert isinstance(question, asked)
    resumed = await resume(store, agent, {question.id: answer})
    assert resumed.outcome.output == "Done."
    assert of(resumed.events, StreamStarted)[0].resumes == parked.stream.id
    async with stored_session(store, "ann") as session:
        assert not session.is_resumable
        assert session.questions == ()
        [found] = [one for one in session.messages if isinstance(one, ToolResult) and one.call_id == "c"]
        assert (found.text, found.status) == (result, "ok")
        model = agent.model
        assert isinstance(model, ScriptedModel)
        # Nothing that was said is asked for again.
        assert len(model.requests) == 2
        assert model.requests[1].messages == session.messages[:-1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_question_is_parked_and_its_answer_goes_on_from_there(kind: str) -> None:
    async with memory() as store:
        await parked_and_resumed(store, kind)


@pytest.mark.real_clock
async def test_questions_of_every_kind_are_parked_in_a_file(tmp_path: Path) -> None:
    for number, kind in enumerate(KINDS):
        async with SQLiteStore(tmp_path / f"{number}.db").open() as store:
            await parked_and_resumed(store, kind)


@pytest.mark.real_clock
@pytest.mark.seconds(30)
async def test_another_process_resumes_the_run(tmp_path: Path) -> None:
    database, effects = tmp_path / "chats.db", tmp_path / "effects"
    effects.write_text("")  # noqa: ASYNC240

    def program(*arguments: str) -> list[str]:
        command = [sys.executable, "-m", "tests.stores.parking", str(database), str(effects), *arguments]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: ASYNC221
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.splitlines()

    reason, *ids = program("start")
    assert reason == "needs_input"
    assert len(ids) == 3
    assert sorted(effects.read_text().split()) == ["free", "inside"]  # noqa: ASYNC240
    answers = {"ApprovalRequested": "approve", "ElicitationRequested": "accept"}
    given = [f"{id.split()[0]}={answers[id.split()[1]]}" for id in ids]
    reason, *left = program("resume", *given[:2])
    assert reason == "needs_input"
    # Under the id that it had.
    assert left == ids[2:]
    assert program("resume", given[2]) == ["completed", "Done."]
    assert Counter(effects.read_text().split()) == Counter(["inside", "free", "paid", "inner-asked", "asked"])  # noqa: ASYNC240
    async with SQLiteStore(database).open() as store:
        events = [event async for event in follow_session(store, "ann")]
        async with stored_session(store, "ann") as session:
            assert problems(session.messages) == []
    for stream in per_stream(events):
        assert_well_formed(stream)


def per_stream(events: list[StreamEvent]) -> list[list[StreamEvent]]:
    """The events of a session, a list for each of its root streams. Numbered anew: pieces were joined."""
    found: list[list[StreamEvent]] = []
    for event in events:
        if isinstance(event, StreamStarted):
            found.append([])
        found[-1].append(msgspec.structs.replace(event, seq=len(found[-1]) + 1))
    return found


# ------------------------------------------------------------------------------ what waits


async def test_nothing_runs_before_it_is_approved_and_it_runs_once() -> None:
    ran: list[Any] = []
    agent = Agent(ScriptedModel(calls("pay", amount=3), "Done."), tools=[paying(ran)])
    async with memory() as store:
        parked = await park(store, agent)
        assert ran == []
        assert [type(event) for event in parked.events[-4:]] == [
            QuestionParked,
            ToolCallParked,
            TurnFinished,
            StreamStopped,
        ]
        await resume(store, agent, {parked.ids[0]: Approve()})
    assert ran == [("pay", 3)]


@pytest.mark.parametrize("depth", [1, 2])
async def test_agents_in_agents_go_on_where_they_were(depth: int) -> None:
    ran: list[Any] = []
    inner = ScriptedModel(calls("act", what="a"), calls("ask"), calls("act", what="b"), "Found.")
    agent = nested(Agent(inner, name="inner", tools=[asking(ran), free(ran)]), depth)
    async with memory() as store:
        parked = await park(store, agent)
        assert ran == [("act", "a"), ("asks", "Which?")]
        [question] = parked.outcome.questions
        assert question.depth == depth
        resumed = await resume(store, agent, {question.id: Accept({"tag": "x"})})
    assert resumed.outcome.output == "Done."
    assert ran == [("act", "a"), ("asks", "Which?"), ("asks", "Which?"), ("acts", "Which?"), ("act", "b")]
    children = of(resumed.events, ChildStreamStarted)
    assert [child.resumes for child in children] == [one.stream for one in of(parked.events, ChildStreamStarted)]
    assert [child.session for child in children] == [one.session for one in of(parked.events, ChildStreamStarted)]
    # Two turns of each agent around, and four of the one inside.
    assert resumed.outcome.usage.requests == 4 + 2 * depth


async def test_of_several_children_in_one_call_those_that_ended_are_not_run_again() -> None:
    ran: list[Any] = []
    done = Agent(ScriptedModel(calls("act", what="a"), "First."), name="first", tools=[free(ran)])
    waits = Agent(ScriptedModel(calls("ask"), "Second."), name="second", tools=[asking(ran)])
    fails = Agent(ScriptedModel(calls("act", what="f")), name="third", tools=[free(ran)], limits=Limits(turns=1))

    @tool(timeout=1000)
    async def delegate(context: ToolContext[None]) -> str:
        """Delegate."""
        said = [(await context.run(done, "one")).output]
        async with context.stream(fails, "two", on_question=refuse) as child:
            said.append((await child.wait()).reason)
        said.append((await context.run(waits, "three")).output)
        said.append((await context.run(done.replace(model=ScriptedModel("Last.")), "four")).output)
        return " ".join(said)

    async def refuse(question: Question) -> Answer:
        return Deny()

    agent = Agent(ScriptedModel(calls("delegate", id="c"), "Done."), tools=[delegate])
    async with memory() as store:
        parked = await park(store, agent)
        assert len(of(parked.events, ChildStreamStarted)) == 3
        resumed = await resume(store, agent, {parked.ids[0]: Accept({"tag": "x"})})
    assert results(resumed.outcome) == {"c": "First. limit Second. Last."}
    assert ran == [("act", "a"), ("act", "f"), ("asks", "Which?"), ("asks", "Which?"), ("acts", "Which?")]
    # Of what ended before, nothing is told again.
    assert [one.agent for one in of(resumed.events, ChildStreamStarted)] == ["second", "first"]
    assert resumed.outcome.usage.requests == 2 + 2 + 1 + 2 + 1


async def test_a_child_that_ended_without_a_result_has_none_the_next_time_either() -> None:
    ran: list[Any] = []
    child = Agent(ScriptedModel(calls("act", what="f")), name="child", tools=[free(ran)], limits=Limits(turns=1))

    @tool
    async def delegate(context: ToolContext[None]) -> str:
        """Delegate."""
        try:
            await context.run(child, "one", on_question=refuse)
        except LimitReachedError as error:
            await context.ask("Go on?", FORM)
            return str(error)
        return "never"

    async def refuse(question: Question) -> Answer:
        return Deny()

    agent = Agent(ScriptedModel(calls("delegate", id="c"), "Done."), tools=[delegate])
    async with memory() as store:
        parked = await park(store, agent)
        resumed = await resume(store, agent, {parked.ids[0]: Accept({"tag": "x"})})
    assert results(resumed.outcome) == {"c": "the run reached a limit: turns: 1 of 1 used"}
    assert ran == [("act", "f")]


@pytest.mark.parametrize("inside", [False, True])
async def test_it_parks_only_when_nothing_goes_on_by_itself(inside: bool) -> None:
    ran: list[Any] = []

    @tool
    async def work() -> str:
        """Work for long."""
        for step in range(3):
            await trio.sleep(1)
            ran.append(step)
        return "worked"

    busy = Agent(ScriptedModel(calls("work"), calls("work"), "Worked."), name="busy", tools=[work])
    script = calls("pay", id="c1", amount=1) + calls("ask", id="c2")
    script += calls("busy", id="c3", prompt="go") if inside else calls("work", id="c3")
    agent = Agent(ScriptedModel(script, "Done."), tools=[paying(ran), asking([]), work, busy.as_tool()])
    async with memory() as store:
        parked = await park(store, agent)
        assert ran == [0, 1, 2] * (2 if inside else 1)
        assert [event.call_id for event in of(parked.events, ToolCallFinished, depth=0)] == ["c3"]
        assert sorted(event.call_id for event in of(parked.events, ToolCallParked)) == ["c1", "c2"]
        by_call = {getattr(one, "call_id", ""): one.id for one in parked.outcome.questions}
        resumed = await resume(store, agent, {by_call["c1"]: Approve(), by_call["c2"]: Accept({"tag": "x"})})
    assert results(resumed.outcome) == {"c1": "paid 1", "c2": "x", "c3": "Worked." if inside else "worked"}
    # In call order, and what has a result is not dealt with again.
    assert list(results(resumed.outcome)) == ["c1", "c2", "c3"]
    assert resumed.started == ["c1", "c2"]
    assert ran == [0, 1, 2] * (2 if inside else 1) + [("pay", 1)]


async def test_a_call_that_waits_for_another_ones_turn_is_parked_with_it() -> None:
    ran: list[Any] = []
    agent = Agent(
        ScriptedModel(calls("ask", id="c1", what="A?") + calls("ask", id="c2", what="B?"), "Done."),
        tools=[asking(ran, concurrency=1)],
    )
    async with memory() as store:
        parked = await park(store, agent)
        assert len(parked.ids) == 1
        assert sorted(event.call_id for event in of(parked.events, ToolCallParked)) == ["c1", "c2"]
        second = await resume(store, agent, {parked.ids[0]: Accept({"tag": "one"})})
        assert second.outcome.reason == "needs_input"
        last = await resume(store, agent, {second.ids[0]: Accept({"tag": "two"})})
    assert sorted(results(last.outcome).values()) == ["one", "two"]
    assert Counter(what for what, _ in ran if what == "acts") == {"acts": 2}


@pytest.mark.parametrize("attempt", range(8))
async def test_a_call_that_need_not_wait_for_its_turn_runs_before_it_is_parked(attempt: int) -> None:
    ran: list[Any] = []

    @tool(concurrency=1)
    async def work(what: int) -> None:
        """Work."""
        ran.append(what)

    script = calls("pay", amount=1) + calls("work", what=1) + calls("work", what=2) + calls("work", what=3)
    agent = Agent(ScriptedModel(script, "Done."), tools=[paying([]), work])
    async with memory() as store:
        parked = await park(store, agent)
        assert sorted(ran) == [1, 2, 3]
        assert len(of(parked.events, ToolCallParked)) == 1
        assert (await resume(store, agent, {parked.ids[0]: Deny("no")})).outcome.output == "Done."
    assert sorted(ran) == [1, 2, 3]


@pytest.mark.parametrize("attempt", range(8))
async def test_a_call_that_waits_for_another_call_continues_before_it_is_parked(attempt: int) -> None:
    ran: list[Any] = []
    ready = trio.Event()

    @tool
    async def lead() -> None:
        """Lead."""
        await trio.sleep(1)
        ready.set()

    @tool
    async def follow(context: ToolContext[None]) -> None:
        """Follow."""
        with context.paused_deadline():
            await ready.wait()
        ran.append("followed")

    agent = Agent(
        ScriptedModel(calls("pay", amount=1) + calls("lead") + calls("follow"), "Done."),
        tools=[paying([]), lead, follow],
    )
    async with memory() as store:
        parked = await park(store, agent)
        assert ran == ["followed"]
        assert len(of(parked.events, ToolCallParked)) == 1


@pytest.mark.parametrize("if_interrupted", [None, "retry"])
async def test_a_call_that_waits_for_the_question_of_another_call_is_parked(
    if_interrupted: Any,
) -> None:
    ran: list[Any] = []
    asked: dict[str, trio.Event] = {}

    @tool(if_interrupted=if_interrupted)
    async def log_in(context: ToolContext[None], name: str) -> str:
        """Log in, as whoever came first."""
        if "" in asked:
            with context.paused_deadline():
                await asked[""].wait()
            ran.append(name)
            return "as well"
        asked[""] = trio.Event()
        try:
            await context.ask_url("Log in", "https://example.org")
        except BaseException:
            asked.clear()
            raise
        asked[""].set()
        ran.append(name)
        return "in"

    agent = Agent(ScriptedModel(calls("log_in", name="a") + calls("log_in", name="b"), "Done."), tools=[log_in])
    async with memory() as store:
        parked = await park(store, agent)
        assert len(parked.ids) == 1
        assert len(of(parked.events, ToolCallParked)) == 2
        resumed = await resume(store, agent, {parked.ids[0]: Accept()})
        if resumed.outcome.reason == "needs_input":
            # The other one came first this time.
            resumed = await resume(store, agent, {resumed.ids[0]: Accept()})
    assert resumed.outcome.output == "Done."
    if if_interrupted == "retry":
        assert sorted(ran) == ["a", "b"]
    else:
        assert len(ran) == 1
        assert sum("It may have run" in one for one in results(resumed.outcome).values()) == 1


@pytest.mark.parametrize("attempt", range(6))
async def test_an_answer_that_comes_before_it_is_parked_counts(attempt: int) -> None:
    ran: list[Any] = []

    @tool
    async def work() -> None:
        """Work."""
        await trio.sleep(1)

    def answer(stream: Stream, event: StreamEvent) -> None:
        # While it works, or at the very moment at which the work ends.
        if isinstance(event, ApprovalRequested) and event.arguments == {"amount": 1} and attempt % 2:
            stream.answer(event.id, Approve())
        if isinstance(event, ToolCallFinished) and event.name == "work" and not attempt % 2:
            for question in stream.pending:
                if isinstance(question, ApprovalRequested) and question.arguments == {"amount": 1}:
                    stream.answer(question.id, Approve())

    script = calls("pay", id="c1", amount=1) + calls("pay", id="c2", amount=2) + calls("work", id="c3")
    agent = Agent(ScriptedModel(script, "Done."), tools=[paying(ran), work])
    async with memory() as store:
        async with stored_session(store, "ann") as session:
            parked = await read(agent.stream("go", session=session, on_question="park"), session, answer)
            assert {one.id for one in session.questions} == set(parked.ids)
        if attempt % 2:
            assert ran == [("pay", 1)]
            assert len(parked.ids) == 1
        resumed = await resume(store, agent, {id: Approve() for id in parked.ids})
    assert resumed.outcome.output == "Done."
    assert sorted(ran) == [("pay", 1), ("pay", 2)]


@pytest.mark.parametrize("steps", range(12))
async def test_an_answer_that_comes_while_it_is_about_to_be_parked_counts(steps: int) -> None:
    ran: list[Any] = []
    ended = trio.Event()

    @tool
    async def work() -> None:
        """Work."""
        await trio.sleep(1)
        ended.set()

    async def answer_one(stream: Stream) -> None:
        await ended.wait()
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        for question in stream.pending[:1]:
            stream.answer(question.id, Approve())

    script = calls("pay", amount=1) + calls("pay", amount=2) + calls("pay", amount=3) + calls("work")
    agent = Agent(ScriptedModel(script, "Done."), tools=[paying(ran), work])
    async with memory() as store:
        async with stored_session(store, "ann") as session:
            async with (
                agent.stream("go", session=session, on_question="park") as stream,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(answer_one, stream)
                events = [event async for event in stream]
            assert_well_formed(events)
            assert len(stream.outcome.questions) == 3 - len(ran)
            assert {one.id for one in session.questions} == {one.id for one in stream.outcome.questions}
        resumed = await resume(store, agent, {one.id: Approve() for one in stream.outcome.questions})
    assert resumed.outcome.output == "Done."
    assert sorted(ran) == [("pay", 1), ("pay", 2), ("pay", 3)]


# --------------------------------------------------------------------------------- answers


async def test_an_unanswered_question_is_asked_again_under_the_same_id() -> None:
    ran: list[Any] = []
    script = calls("pay", id="c1", amount=1) + calls("ask", id="c2") + calls("pay", id="c3", amount=3)
    agent = Agent(ScriptedModel(script, "Done."), tools=[paying(ran), asking([])])
    async with memory() as store:
        parked = await park(store, agent)
        by_call = {getattr(one, "call_id", ""): one.id for one in parked.outcome.questions}
        second = await resume(store, agent, {by_call["c3"]: Approve()})
        assert set(second.ids) == {by_call["c1"], by_call["c2"]}
        third = await resume(store, agent)
        assert set(third.ids) == {by_call["c1"], by_call["c2"]}
        assert ran == [("pay", 3)]
        last = await resume(store, agent, {by_call["c1"]: Deny("no"), by_call["c2"]: Accept({"tag": "x"})})
    assert results(last.outcome) == {"c1": "Denied by the user: no", "c2": "x", "c3": "paid 3"}
    assert ran == [("pay", 3)]


async def test_a_tool_that_asks_twice_gets_its_answers_in_order() -> None:
    ran: list[str] = []

    @tool
    async def order(context: ToolContext[None]) -> str:
        """Order."""
        said: list[str] = []
        for what in ("First?", "Second?", "Second?"):
            answer = await context.ask(what, FORM)
            assert isinstance(answer, Accept)
            said.append(answer.content["tag"])
        ran.append("ordered")
        return " ".join(said)

    agent = Agent(ScriptedModel(calls("order", id="c"), "Done."), tools=[order])
    async with memory() as store:
        at = await park(store, agent)
        asked = [*at.ids]
        for answer in ("a", "b"):
            at = await resume(store, agent, {asked[-1]: Accept({"tag": answer})})
            asked += at.ids
        assert ran == []
        at = await resume(store, agent, {asked[-1]: Accept({"tag": "c"})})
    assert len(set(asked)) == 3
    assert results(at.outcome) == {"c": "a b c"}
    assert ran == ["ordered"]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"nope": Approve()}, r"cannot answer question 'nope': open now: ann/1\?"),
        ({"pay": Accept()}, "does not fit question"),
        ({"ask": Approve()}, "does not fit question"),
        ({"ask": Accept({"tag": 3})}, "does not fit question"),
        ({"ask": Accept({})}, "does not fit question"),
    ],
)
@pytest.mark.parametrize("way", ["resume", "answer"])
async def test_an_answer_that_is_refused_takes_nothing(bad: dict[str, Answer], problem: str, way: str) -> None:
    ran: list[Any] = []
    agent = Agent(
        ScriptedModel(calls("pay", id="c1", amount=1) + calls("ask", id="c2"), "Done."),
        tools=[paying(ran), asking([])],
    )
    async with memory() as store:
        parked = await park(store, agent)
        ids = {"pay" if isinstance(one, ApprovalRequested) else "ask": one.id for one in parked.outcome.questions}
        given = {ids.get(key, key): answer for key, answer in bad.items()}
        good: dict[str, Answer] = {"pay": Approve(), "ask": Accept({"tag": "x"})}
        length = len(await store.read("ann"))
        if way == "resume":
            others = {ids[key]: answer for key, answer in good.items() if key not in bad}
            async with stored_session(store, "ann") as session:
                before = session.messages
                with pytest.raises(AnswerError, match=problem):
                    await agent.resume(session, {**others, **given})
                assert session.messages == before
                assert {one.id for one in session.questions} == set(ids.values())
                assert not session.is_busy
        else:
            for id, answer in given.items():
                with pytest.raises(AnswerError, match=problem):
                    await answer_question(store, "ann", id, answer)
        assert len(await store.read("ann")) == length
        assert await store.answers("ann") == {}
        assert ran == []
        resumed = await resume(store, agent, {ids[key]: answer for key, answer in good.items()})
    assert resumed.outcome.output == "Done."
    assert ran == [("pay", 1)]


async def test_a_question_that_was_answered_ahead_is_not_asked_again() -> None:
    ran: list[Any] = []
    agent = Agent(ScriptedModel(calls("pay", amount=1) + calls("ask"), "Done."), tools=[paying(ran), asking([])])
    async with memory() as store:
        parked = await park(store, agent)
        ids = {type(one): one.id for one in parked.outcome.questions}
        await answer_question(store, "ann", ids[ApprovalRequested], Approve())
        assert ran == []
        async with stored_session(store, "ann") as session:
            assert [one.id for one in session.questions] == [ids[ElicitationRequested]]
        for again in (Approve(), Deny()):
            with pytest.raises(UnknownQuestionError):
                await answer_question(store, "ann", ids[ApprovalRequested], again)
        with pytest.raises(UnknownQuestionError):
            await resume(store, agent, {ids[ApprovalRequested]: Deny()})
        await answer_question(store, "ann", ids[ElicitationRequested], Accept({"tag": "x"}))
        resumed = await resume(store, agent)
        assert resumed.outcome.output == "Done."
        assert ran == [("pay", 1)]
        with pytest.raises(UnknownQuestionError, match="none is open"):
            await answer_question(store, "ann", ids[ApprovalRequested], Approve())


@pytest.mark.real_clock
@pytest.mark.parametrize("way", ["answer", "resume"])
async def test_of_two_at_the_same_moment_one_answer_is_accepted(way: str, tmp_path: Path) -> None:
    ran: list[Any] = []
    agent = Agent(ScriptedModel(calls("pay", amount=1), "Done."), tools=[paying(ran)])
    said: list[str] = []
    async with SQLiteStore(tmp_path / "a.db").open() as one, SQLiteStore(tmp_path / "a.db").open() as other:
        parked = await park(one, agent)
        [id] = parked.ids

        async def give(store: OpenStore, answer: Answer) -> None:
            try:
                if way == "answer":
                    await answer_question(store, "ann", id, answer)
                else:
                    async with stored_session(store, "ann") as session:
                        await agent.resume(session, {id: answer})
            except (SessionLeasedError, UnknownQuestionError) as error:
                said.append(type(error).__name__)
            else:
                said.append("accepted")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give, one, Approve())
            nursery.start_soon(give, other, Approve())
        assert said.count("accepted") == 1
        if way == "answer":
            await resume(one, agent)
    assert ran == [("pay", 1)]


async def test_an_answer_is_accepted_once_also_if_the_session_was_lost_in_between() -> None:
    class Racing:
        """A store in which another process, which has taken the session over, is the first to answer."""

        def __init__(self, store: OpenStore) -> None:
            self.store = store
            self.races = ""

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def answers(self, session: str, /) -> dict[str, bytes]:
            found = await self.store.answers(session)
            if self.races:
                assert await self.store.answer(session, self.races, msgspec.json.encode(Deny()))
            return found

    ran: list[Any] = []
    agent = Agent(ScriptedModel(calls("pay", amount=1), "Done."), tools=[paying(ran)])
    async with memory() as store:
        parked = await park(store, agent)
        racing: Any = Racing(store)
        async with stored_session(racing, "ann") as session:
            racing.races = parked.ids[0]
            with pytest.raises(UnknownQuestionError):
                await agent.resume(session, {parked.ids[0]: Approve()})
    assert ran == []


@pytest.mark.parametrize(
    ("answer", "result", "paid"),
    [
        (Approve(arguments={"amount": 2}), "paid 2", [2]),
        (Approve(always=True), "paid 1", [1, 1]),
        (Approve(always=Rule("pay")), "paid 1", [1, 1]),
        (Deny("too much"), "Denied by the user: too much", []),
    ],
)
async def test_an_approval_says_all_that_it_says_to_a_stream_that_waits(
    answer: Answer, result: str, paid: list[int]
) -> None:
    ran: list[Any] = []
    agent = Agent(
        ScriptedModel(calls("pay", id="c1", amount=1), calls("pay", id="c2", amount=1), "Done."), tools=[paying(ran)]
    )
    async with memory() as store:
        parked = await park(store, agent)
        resumed = await resume(store, agent, {parked.ids[0]: answer})
        assert [amount for _, amount in ran] == paid
        if len(paid) < 2:
            assert resumed.outcome.reason == "needs_input"
            resumed = await resume(store, agent, {resumed.ids[0]: Deny()})
        assert resumed.outcome.output == "Done."
        async with stored_session(store, "ann") as session:
            texts = {one.call_id: one.text for one in session.messages if isinstance(one, ToolResult)}
            assert texts["c1"] == result
            assert len(session.grants) == (1 if isinstance(answer, Approve) and answer.always else 0)


async def test_what_one_answer_allows_for_good_the_others_need_not_be_asked() -> None:
    ran: list[Any] = []
    script = calls("pay", amount=1) + calls("pay", amount=2) + calls("ask")
    agent = Agent(ScriptedModel(script, "Done."), tools=[paying(ran), asking([])])
    async with memory() as store:
        parked = await park(store, agent)
        first = next(one for one in parked.outcome.questions if isinstance(one, ApprovalRequested))
        second = await resume(store, agent, {first.id: Approve(always=Rule("pay"))})
        assert [type(one) for one in second.outcome.questions] == [ElicitationRequested]
        assert sorted(ran) == [("pay", 1), ("pay", 2)]
        last = await resume(store, agent, {second.ids[0]: Accept({"tag": "x"})})
    assert last.outcome.output == "Done."
    assert sorted(ran) == [("pay", 1), ("pay", 2)]


async def test_an_answer_that_is_not_permitted_any_more_is_asked_for_anew() -> None:
    ran: list[Any] = []
    agent = Agent(ScriptedModel(calls("pay", id="c", amount=1), "Done."), tools=[paying(ran)])
    async with memory() as store:
        parked = await park(store, agent)
        strict = agent.replace(permissions=Permissions(deny=[Rule("pay", {"amount": Exact(9)})]))
        second = await resume(store, strict, {parked.ids[0]: Approve(arguments={"amount": 9})})
        assert second.outcome.reason == "needs_input"
        assert [event.id for event in of(second.events, QuestionWithdrawn)] == parked.ids
        assert second.ids != parked.ids
        assert ran == []
        async with stored_session(store, "ann") as session:
            assert [one.id for one in session.questions] == second.ids
        third = await resume(store, strict)
        assert third.ids == second.ids
        last = await resume(store, strict, {second.ids[0]: Approve()})
    assert results(last.outcome) == {"c": "paid 1"}
    assert ran == [("pay", 1)]


async def test_an_answer_is_not_replayed_to_another_question() -> None:
    def made(what: str) -> Agent:
        @tool
        async def ask(context: ToolContext[None]) -> str:
            """Ask."""
            answer = await context.ask(what, FORM)
            ran.append(what)
            return answer.content["tag"] if isinstance(answer, Accept) else "no"

        return Agent(model, tools=[ask])

    ran: list[Any] = []
    model = ScriptedModel(calls("ask", id="c"), "Done.")
    async with memory() as store:
        parked = await park(store, made("Delete the draft?"))
        second = await resume(store, made("Delete everything?"), {parked.ids[0]: Accept({"tag": "yes"})})
        assert second.outcome.reason == "needs_input"
        [question] = second.outcome.questions
        assert isinstance(question, ElicitationRequested)
        assert question.message == "Delete everything?"
        assert question.id not in parked.ids
        assert ran == []
        with pytest.raises(UnknownQuestionError):
            await resume(store, made("Delete everything?"), {parked.ids[0]: Accept({"tag": "yes"})})
        last = await resume(store, made("Delete everything?"), {question.id: Accept({"tag": "no"})})
    assert results(last.outcome) == {"c": "no"}


def polling(model: ScriptedModel, *names: str, ran: list[str]) -> Agent:
    """An agent with a tool that asks each of ``names``, all at once."""

    @tool
    async def poll(context: ToolContext[None]) -> str:
        """Ask several people."""
        answers: dict[str, str] = {}

        async def ask(name: str) -> None:
            answer = await context.ask(f"{name}?", FORM)
            assert isinstance(answer, Accept)
            answers[name] = answer.content["tag"]

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(ask, name)
        ran.append("polled")
        return " ".join(f"{name}:{answers[name]}" for name in sorted(answers))

    return Agent(model, tools=[poll])


def messages_of(outcome: Outcome) -> dict[str, str]:
    """Question ids by what is asked."""
    return {one.message: one.id for one in outcome.questions if isinstance(one, ElicitationRequested)}


@pytest.mark.parametrize("attempt", range(10))
@pytest.mark.parametrize("at_once", [True, False], ids=["both answered at once", "one after the other"])
async def test_a_call_that_asks_two_people_at_once_gets_each_answer_once(attempt: int, at_once: bool) -> None:
    """The tasks that ask start in any order, each time; each answer goes to the question in the same words."""
    ran: list[str] = []
    agent = polling(ScriptedModel(calls("poll", id="c"), f"Done {attempt}."), "Ann", "Bob", ran=ran)
    async with memory() as store:
        parked = await park(store, agent)
        ids = messages_of(parked.outcome)
        given: dict[str, Answer] = {ids["Bob?"]: Accept({"tag": "b"})}
        if not at_once:
            second = await resume(store, agent, given)
            assert second.ids == [ids["Ann?"]]
            given = {}
        last = await resume(store, agent, {**given, ids["Ann?"]: Accept({"tag": "a"})})
    assert results(last.outcome) == {"c": "Ann:a Bob:b"}
    assert ran == ["polled"]


def agent_that_pays(name: str, paid: list[str]) -> Agent:
    """An agent that pays, and then asks."""

    @tool
    async def pay() -> str:
        """Pay."""
        paid.append(name)
        return "paid"

    @tool
    async def confirm(context: ToolContext[None]) -> str:
        """Ask."""
        return type(await context.ask(f"{name}?", FORM)).__name__

    return Agent(ScriptedModel(calls("pay"), calls("confirm"), f"{name} done."), name=name, tools=[pay, confirm])


@pytest.mark.parametrize("attempt", range(10))
async def test_a_call_that_runs_two_agents_at_once_resumes_each_of_them(attempt: int) -> None:
    """The tasks that open child runs start in any order, each time; each run is found by its agent and its prompt."""
    paid: list[str] = []
    children = [agent_that_pays(name, paid) for name in ("left", "right")]
    outputs: dict[str, str] = {}

    @tool
    async def both(context: ToolContext[None]) -> str:
        """Run both."""

        async def run(child: Agent) -> None:
            outputs[child.name] = (await context.run(child, "go")).output

        async with trio.open_nursery() as nursery:
            for child in children:
                nursery.start_soon(run, child)
        return "both"

    agent = Agent(ScriptedModel(calls("both"), f"Done {attempt}."), tools=[both])
    async with memory() as store:
        ids = messages_of((await park(store, agent)).outcome)
        second = await resume(store, agent, {ids["left?"]: Accept({"tag": "l"})})
        assert second.ids == [ids["right?"]]
        last = await resume(store, agent, {ids["right?"]: Accept({"tag": "r"})})
    assert last.outcome.reason == "completed"
    assert sorted(paid) == ["left", "right"]
    assert outputs == {"left": "left done.", "right": "right done."}


async def test_a_call_that_takes_another_way_runs_the_rest_of_its_agents_again() -> None:
    """A child run that ended after another one says nothing where a new one comes before it."""
    prompts: list[str] = []
    checker = Agent(FunctionModel(lambda request: f"checked {len(prompts)}"), name="checker")
    first = ["first"]

    @tool
    async def work(context: ToolContext[None]) -> str:
        """Check, ask, check again."""
        found: list[str] = []
        for prompt in (*first, "check"):
            prompts.append(prompt)
            found.append((await context.run(checker, prompt)).output)
        await context.ask("Go?", FORM)
        return ", ".join(found)

    agent = Agent(ScriptedModel(calls("work", id="c"), "Done."), tools=[work])
    async with memory() as store:
        await park(store, agent)
        first[:] = ["another"]
        again = await resume(store, agent, {})
        assert again.outcome.reason == "needs_input"
        last = await resume(store, agent, {id: Accept({"tag": "go"}) for id in again.ids})
    assert results(last.outcome) == {"c": "checked 3, checked 4"}


@pytest.mark.parametrize("attempt", range(5))
async def test_an_answer_is_kept_when_the_call_asks_one_more_person_beside(attempt: int) -> None:
    ran: list[str] = []
    model = ScriptedModel(calls("poll", id="c"), f"Done {attempt}.")
    async with memory() as store:
        parked = await park(store, polling(model, "Ann", ran=ran))
        both = polling(model, "Ann", "Bob", ran=ran)
        at = await resume(store, both, {parked.ids[0]: Accept({"tag": "a"})})
        # For all that the journal says, Bob may have been asked because of Ann's answer: so he may be asked twice.
        for _ in range(2):
            if at.outcome.reason == "needs_input":
                assert [*messages_of(at.outcome)] == ["Bob?"]
                at = await resume(store, both, {at.ids[0]: Accept({"tag": "b"})})
    assert results(at.outcome) == {"c": "Ann:a Bob:b"}


def asking_in_turn(model: ScriptedModel, *messages: str) -> Agent:
    """An agent with a tool that asks ``messages``, each after the answer to the one before."""

    @tool
    async def ask(context: ToolContext[None]) -> str:
        """Ask."""
        answers = [await context.ask(message, FORM) for message in messages]
        return " ".join(answer.content["tag"] for answer in answers if isinstance(answer, Accept))

    return Agent(model, tools=[ask])


@pytest.mark.parametrize(
    "messages",
    [("Which folder?", "Delete it?", "Sure?"), ("Delete it?", "Sure?")],
    ids=["another question came before", "the question before is not asked"],
)
async def test_an_answer_counts_only_where_the_questions_before_it_are_the_same(messages: tuple[str, ...]) -> None:
    """``Delete it?`` was answered by a person who had been asked, and had answered, which file."""
    model = ScriptedModel(calls("ask", id="c"), "Done.")
    before = asking_in_turn(model, "Which file?", "Delete it?", "Sure?")
    async with memory() as store:
        at = await park(store, before)
        for _ in range(2):
            at = await resume(store, before, {at.ids[0]: Accept({"tag": "old"})})
        # All but the last are answered.
        asked = {**messages_of(at.outcome)}
        assert [*asked] == ["Sure?"]
        after = asking_in_turn(model, *messages)
        seen: list[str] = []
        answers: dict[str, Answer] = {}
        for _ in range(len(messages) + 1):
            at = await resume(store, after, answers)
            if at.outcome.reason != "needs_input":
                break
            async with stored_session(store, "ann") as session:
                assert [one.id for one in session.questions] == at.ids
            [message] = messages_of(at.outcome)
            seen.append(message)
            answers = {at.ids[0]: Accept({"tag": f"new{len(seen)}"})}
    assert seen == [*messages]
    assert results(at.outcome) == {"c": " ".join(f"new{place}" for place, _ in enumerate(messages, start=1))}


async def test_an_answer_counts_where_an_approval_before_it_need_not_be_asked_for_any_more() -> None:
    @tool(requires_approval=True)
    async def pay(context: ToolContext[None], amount: int) -> str:
        """Pay."""
        answer = await context.ask("From which account?", FORM)
        second = await context.ask("Sure?", FORM)
        assert isinstance(answer, Accept)
        assert isinstance(second, Accept)
        return f"{answer.content['tag']}{second.content['tag']}"

    agent = Agent(ScriptedModel(calls("pay", id="c", amount=1), "Done."), tools=[pay])
    async with memory() as store:
        parked = await park(store, agent)
        second = await resume(store, agent, {parked.ids[0]: Approve(always=True)})
        third = await resume(store, agent, {second.ids[0]: Accept({"tag": "x"})})
        assert [*messages_of(third.outcome)] == ["Sure?"]
        last = await resume(store, agent, {third.ids[0]: Accept({"tag": "y"})})
    assert results(last.outcome) == {"c": "xy"}


# ---------------------------------------------------------------------- who else may answer


async def test_a_handler_that_is_nearer_answers_first() -> None:
    ran: list[Any] = []
    child = Agent(ScriptedModel(calls("ask", what="A?"), calls("ask", what="B?"), "Child."), tools=[asking(ran)])

    @tool
    async def delegate(context: ToolContext[None]) -> str:
        """Delegate."""
        return str((await context.run(child, "go", on_question=handler)).output)

    asked: list[str] = []

    async def handler(question: Question) -> Answer | None:
        assert isinstance(question, ElicitationRequested)
        asked.append(question.message)
        return Accept({"tag": "mine"}) if question.message == "A?" else None

    agent = Agent(ScriptedModel(calls("delegate", id="c"), "Done."), tools=[delegate])
    async with memory() as store:
        parked = await park(store, agent)
        assert asked == ["A?", "B?"]
        assert [getattr(one, "message", "") for one in parked.outcome.questions] == ["B?"]
        last = await resume(store, agent, {parked.ids[0]: Accept({"tag": "yours"})})
    assert results(last.outcome) == {"c": "Child."}
    # An answer that there is needs no handler.
    assert asked == ["A?", "B?"]


async def test_a_handler_that_thinks_is_waited_for() -> None:
    ran: list[Any] = []
    child = Agent(ScriptedModel(calls("ask", what="A?"), "Child."), name="child", tools=[asking(ran)])

    @tool
    async def delegate(context: ToolContext[None]) -> str:
        """Delegate."""
        return str((await context.run(child, "go", on_question=handler)).output)

    async def handler(question: Question) -> Answer | None:
        await trio.sleep(5)
        return Accept({"tag": "mine"})

    agent = Agent(
        ScriptedModel(calls("delegate", id="c") + calls("pay", amount=1), "Done."), tools=[delegate, paying(ran)]
    )
    async with memory() as store:
        parked = await park(store, agent)
        assert [type(one) for one in parked.outcome.questions] == [ApprovalRequested]
        assert [event.call_id for event in of(parked.events, ToolCallFinished, depth=0)] == ["c"]
        assert ran == [("asks", "A?"), ("acts", "A?")]


@pytest.mark.parametrize("way", ["handler", "decline", "reader"])
async def test_the_caller_that_resumes_a_run_chooses_its_answerer(way: str) -> None:
    ran: list[Any] = []
    agent = Agent(ScriptedModel(calls("pay", id="c", amount=1), "Done."), tools=[paying(ran)])

    async def approve(question: Question) -> Answer:
        return Approve()

    def answer(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ApprovalRequested):
            stream.answer(event.id, Approve())

    async with memory() as store:
        await park(store, agent)
        async with stored_session(store, "ann") as session:
            if way == "reader":
                resumed = await read(agent.resume_stream(session), session, answer)
                outcome = resumed.outcome
            else:
                given: Any = approve if way == "handler" else "decline"
                outcome = await agent.resume(session, on_question=given)
    assert outcome.output == "Done."
    assert ran == ([] if way == "decline" else [("pay", 1)])


# --------------------------------------------------------------------------- how it is used


async def test_without_a_journal_nothing_can_be_parked_or_resumed() -> None:
    agent = Agent(ScriptedModel("never"))
    for session in (None, Session("ann")):
        with pytest.raises(UsageError, match=r"no journal, so no run on it can be parked: .*stored_session"):
            await agent.run("go", session=session, on_question="park")
        with pytest.raises(UsageError, match=r"no journal, so no run on it can be parked: .*MemoryStore\(\)"):
            async with agent.stream("go", session=session, on_question="park"):
                pass
    with pytest.raises(UsageError, match=r"session 'ann' has no journal, so no run on it can be resumed"):
        await agent.resume(Session("ann"))


async def test_run_returns_the_outcome_of_a_parked_run_and_a_stream_has_no_result() -> None:
    agent = Agent(ScriptedModel(calls("pay", amount=1), "Done.", repeat=True), tools=[paying([])])
    async with memory() as store, stored_session(store, "ann") as session:
        outcome = await agent.run("go", session=session, on_question="park")
        assert outcome.reason == "needs_input"
        assert [one.id for one in outcome.questions] == [one.id for one in session.questions]
        # Also in the process that it was parked in.
        again = await agent.resume(session)
        assert [one.id for one in again.questions] == [one.id for one in outcome.questions]
        last = await agent.resume(session, {outcome.questions[0].id: Approve()})
        assert last.output == "Done."
        async with agent.stream("more", session=session, on_question="park") as stream:
            await stream.wait()
            with pytest.raises(NeedsInputError, match=rf"resume it with answers to {session.id}/\d+\?1") as raised:
                stream.result  # noqa: B018
        assert raised.value.outcome is stream.outcome
        assert isinstance(stream.outcome.questions[0], ApprovalRequested)


async def test_a_session_without_an_unfinished_run_cannot_be_resumed() -> None:
    agent = Agent(ScriptedModel("Hi.", "Hi again."))
    async with memory() as store, stored_session(store, "ann") as session:
        for _ in range(2):
            with pytest.raises(UsageError, match="nothing is unfinished in session 'ann': start a stream"):
                await agent.resume(session)
            with pytest.raises(UnknownQuestionError, match="none is open"):
                await agent.resume(session, {"ann/1?1": Approve()})
            await agent.run("go", session=session)


async def test_one_stream_at_a_time_also_where_one_is_resumed() -> None:
    agent = Agent(ScriptedModel(calls("pay", amount=1), "Done."), tools=[paying([])])
    async with memory() as store:
        await park(store, agent)
        async with stored_session(store, "ann") as session, agent.resume_stream(session) as stream:
            async for event in stream:
                if isinstance(event, ApprovalRequested):
                    with pytest.raises(SessionBusyError):
                        await agent.resume(session)
                    with pytest.raises(SessionBusyError):
                        await agent.resume(session, {event.id: Approve()})
                    stream.answer(event.id, Approve())
            assert stream.outcome.output == "Done."


async def test_a_new_prompt_abandons_the_parked_run() -> None:
    ran: list[Any] = []
    model = ScriptedModel(
        calls("pay", id="c1", amount=1) + calls("ask", id="c2") + calls("act", id="c3", what="a"), "Ok."
    )
    agent = Agent(model, tools=[paying(ran), asking(ran), free(ran)])
    async with memory() as store:
        parked = await park(store, agent)
        async with stored_session(store, "ann") as session:
            before = session.messages
            assert (await agent.run("Never mind.", session=session)).output == "Ok."
            assert session.messages[: len(before)] == before
            assert not session.is_resumable
            with pytest.raises(UsageError, match="nothing is unfinished"):
                await agent.resume(session)
        with pytest.raises(UnknownQuestionError):
            await answer_question(store, "ann", parked.ids[0], Approve())
        async with stored_session(store, "ann") as session:
            assert problems(session.messages) == []
            assert session.messages[: len(before)] == before
    found = {one.call_id: (one.status, one.text) for one in before if isinstance(one, ToolResult)}
    assert found["c3"] == ("ok", "a")
    assert found["c1"][0] == found["c2"][0] == "interrupted"
    # One was not even approved; the other one has begun.
    assert "It did not run" in found["c1"][1]
    assert "It may have run" in found["c2"][1]
    assert model.requests[1].messages[:-1] == before
    assert sorted(ran) == [("act", "a"), ("asks", "Which?")]


async def test_a_parked_run_is_followed_to_its_end() -> None:
    child = Agent(ScriptedModel(calls("ask"), "Child."), name="child", tools=[asking([])])
    agent = nested(child, 1)
    async with memory() as store:
        parked = await park(store, agent)
        assert [event async for event in follow_session(store, "ann")][-1] == parked.events[-1]
        resumed = await resume(store, agent, {parked.ids[0]: Accept({"tag": "x"})})
        followed = per_stream([event async for event in follow_session(store, "ann")])
    for stream, told in zip(followed, (parked, resumed), strict=True):
        assert_well_formed(stream)
        assert [type(event) for event in stream if "Delta" not in type(event).__name__] == [
            type(event) for event in told.events if "Delta" not in type(event).__name__
        ]


async def test_a_tool_that_reads_its_child_reads_a_whole_stream_each_time() -> None:
    child = Agent(ScriptedModel(calls("ask"), "Child."), name="child", tools=[asking([])])
    seen: list[list[StreamEvent]] = []

    @tool
    async def delegate(context: ToolContext[None]) -> str:
        """Delegate."""
        seen.append([])
        async with context.stream(child, "go") as stream:
            try:
                async for event in stream:
                    seen[-1].append(event)
            except trio.Cancelled:
                # What it had no time to read.
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    async for event in stream:
                        seen[-1].append(event)
                raise
            return str(stream.result.output)

    agent = Agent(ScriptedModel(calls("delegate", id="c"), "Done."), tools=[delegate])
    async with memory() as store:
        parked = await park(store, agent)
        resumed = await resume(store, agent, {parked.ids[0]: Accept({"tag": "x"})})
    assert results(resumed.outcome) == {"c": "Child."}
    assert len(seen) == 2
    assert_well_formed(seen[0], complete=False)
    assert_well_formed(seen[1])


# ------------------------------------------------------------------------- what it goes on with


async def test_the_usage_of_a_resumed_run_includes_the_earlier_usage() -> None:
    agent = Agent(ScriptedModel(calls("ask"), "Done."), tools=[asking([])])
    async with memory() as store:
        parked = await park(store, agent)
        resumed = await resume(store, agent, {parked.ids[0]: Accept({"tag": "x"})})
    assert parked.outcome.usage == Usage(10, 5, requests=1)
    assert resumed.outcome.usage == Usage(20, 10, requests=2)


async def test_the_limits_of_a_resumed_run_count_the_earlier_usage() -> None:
    script: list[Response | str] = [calls("ask"), calls("act", what="b"), calls("act", what="c"), "never"]
    agent = Agent(ScriptedModel(*script), tools=[asking([]), free([])], limits=Limits(tool_calls=2))
    async with memory() as store:
        parked = await park(store, agent)
        second = await resume(store, agent, {parked.ids[0]: Accept({"tag": "x"})})
        [question] = second.outcome.questions
        assert isinstance(question, ContinueRequested)
        assert (question.limit, question.used, question.allowed) == ("tool_calls", 2, 2)
        last = await resume(store, agent, {question.id: Deny()})
    assert last.outcome.reason == "limit"
    assert last.outcome.detail == "tool_calls: 2 of 2 used, and the model asked for 1 more"


async def test_a_limit_is_asked_about_as_often_as_in_a_stream_that_waits() -> None:
    def agent() -> Agent:
        script: list[Response | str] = [*(calls("act", what=str(turn)) for turn in range(5)), "Done."]
        return Agent(ScriptedModel(*script), tools=[free([])], limits=Limits(turns=2))

    asked: list[tuple[float, float]] = []

    async def approve(question: Question) -> Answer:
        assert isinstance(question, ContinueRequested)
        asked.append((question.used, question.allowed))
        return Approve()

    await agent().run("go", on_question=approve)
    assert asked == [(2, 2), (4, 4)]
    parked: list[tuple[float, float]] = []
    one = agent()
    async with memory() as store:
        at = await park(store, one)
        while at.outcome.reason == "needs_input":
            assert len(parked) < 10
            [question] = at.outcome.questions
            assert isinstance(question, ContinueRequested)
            parked.append((question.used, question.allowed))
            at = await resume(store, one, {question.id: Approve()})
    assert at.outcome.output == "Done."
    assert parked == asked


async def test_a_limit_that_was_raised_stays_so() -> None:
    script: list[Response | str] = [
        calls("act", what="1"),
        calls("act", what="2"),
        calls("ask"),
        calls("act", what="4"),
        "never",
    ]
    agent = Agent(ScriptedModel(*script), tools=[free([]), asking([])], limits=Limits(turns=2))
    async with memory() as store:
        parked = await park(store, agent)
        second = await resume(store, agent, {parked.ids[0]: Approve()})
        # Two more turns, of which one was used up when it was parked with another question.
        assert isinstance(second.outcome.questions[0], ElicitationRequested)
        third = await resume(store, agent, {second.ids[0]: Accept({"tag": "x"})})
        [question] = third.outcome.questions
        assert isinstance(question, ContinueRequested)
        assert (question.used, question.allowed) == (4, 4)


async def test_one_limit_after_the_other_is_asked_about_once_each() -> None:
    script: list[Response | str] = [calls("act", what="1") + calls("act", what="2"), "Done."]
    limits = Limits(turns=1, requests=1, tool_calls=1)
    agent = Agent(ScriptedModel(*script), tools=[free([])], limits=limits)
    asked: list[str] = []
    async with memory() as store:
        at = await park(store, agent)
        while at.outcome.reason == "needs_input":
            assert len(asked) < 10
            [question] = at.outcome.questions
            assert isinstance(question, ContinueRequested)
            asked.append(question.limit)
            at = await resume(store, agent, {question.id: Approve()})
    assert at.outcome.output == "Done."
    assert asked == ["tool_calls", "turns", "requests"]


async def test_a_limit_of_an_agent_above_that_was_raised_stays_so() -> None:
    inner = Agent(
        ScriptedModel(calls("act", what="1"), calls("act", what="2"), calls("ask"), "Inner."),
        name="inner",
        tools=[free([]), asking([])],
    )
    agent = nested(inner, 1, limits=Limits(requests=3))
    asked: list[tuple[str, float]] = []
    async with memory() as store:
        at = await park(store, agent)
        while at.outcome.reason == "needs_input":
            assert len(asked) < 10
            [question] = at.outcome.questions
            asked.append((type(question).__name__, getattr(question, "used", 0)))
            answer: Answer = Approve() if isinstance(question, ContinueRequested) else Accept({"tag": "x"})
            at = await resume(store, agent, {question.id: answer})
    assert at.outcome.output == "Done."
    # The third request is allowed, and so are three more.
    assert asked == [("ContinueRequested", 3), ("ElicitationRequested", 0)]


class Verdict(msgspec.Struct):
    good: bool


async def test_the_answer_has_the_type_that_was_asked_for() -> None:
    ran: list[Any] = []
    agent = Agent(ScriptedModel(calls("ask"), '{"good": true}'), tools=[asking(ran)], output_type=Verdict)
    judge = Agent(ScriptedModel('{"good": false}'), name="judge", output_type=Verdict)

    @tool
    async def delegate(context: ToolContext[None]) -> str:
        """Delegate."""
        verdict = (await context.run(judge, "well?")).output
        assert isinstance(verdict, Verdict)
        ran.append(verdict)
        await context.ask("Really?", FORM)
        return str(verdict.good)

    async with memory() as store:
        parked = await park(store, agent)
        resumed = await resume(store, agent, {parked.ids[0]: Accept({"tag": "x"})})
        assert resumed.outcome.output == Verdict(True)
        # Nor is it lost where a child has given it.
        around = Agent(ScriptedModel(calls("delegate", id="d"), "Done."), tools=[delegate])
        parked = await park(store, around, "again")
        resumed = await resume(store, around, {parked.ids[0]: Accept({"tag": "x"})})
    assert results(resumed.outcome) == {"d": "False"}
    assert ran[-2:] == [Verdict(False), Verdict(False)]


async def test_the_unread_messages_of_a_parked_stream_are_returned() -> None:
    def steer(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ElicitationRequested):
            stream.steer("Be quick.")
            stream.follow_up("And then?")

    ran: list[Any] = []
    model = ScriptedModel(calls("ask"), "Done.")
    agent = Agent(model, tools=[asking(ran), free(ran)])

    @tool
    async def work() -> None:
        """Work."""
        await trio.sleep(1)

    model = ScriptedModel(calls("ask") + calls("work"), "Done.")
    agent = Agent(model, tools=[asking(ran), work])
    async with memory() as store:
        parked = await park(store, agent, on_event=steer)
        assert [message.text for message in parked.outcome.undelivered] == ["Be quick.", "And then?"]
        async with stored_session(store, "ann") as session, agent.resume_stream(session) as stream:
            async for event in stream:
                if isinstance(event, ElicitationRequested):
                    for message in parked.outcome.undelivered[:1]:
                        stream.steer(message)
                    stream.answer(event.id, Accept({"tag": "x"}))
            assert stream.outcome.output == "Done."
            assert "Be quick." in [message.text for message in session.messages]
            assert problems(session.messages) == []


async def test_hooks_are_called_again_for_calls_that_run_again() -> None:
    heard: list[str] = []

    @hooks.session_start
    async def start(value: hooks.SessionStart) -> hooks.Context:
        heard.append(f"start {value.prompt.text}")
        return hooks.Context("Be kind.")

    @hooks.user_prompt_submit
    async def submit(value: hooks.UserPromptSubmit) -> None:
        heard.append("prompt")

    @hooks.pre_tool_use
    async def before(value: hooks.PreToolUse) -> None:
        heard.append("before")

    @hooks.post_tool_use
    async def after(value: hooks.PostToolUse) -> None:
        heard.append(f"after {value.result.text}")

    @hooks.turn_end
    async def turn(value: hooks.TurnEnd) -> None:
        heard.append(f"turn {value.turn} {value.reason}")

    @hooks.stop
    async def stop(value: hooks.StopRequested) -> None:
        heard.append("stop")

    @hooks.session_end
    async def end(value: hooks.SessionEnd) -> None:
        heard.append(f"end {value.reason}")

    model = ScriptedModel(calls("ask"), "Done.")
    agent = Agent(model, tools=[asking([])], hooks=[start, submit, before, after, turn, stop, end])
    async with memory() as store:
        parked = await park(store, agent, "hello")
        assert heard == ["start hello", "prompt", "before", "turn 1 needs_input", "end needs_input"]
        heard.clear()
        await resume(store, agent, {parked.ids[0]: Accept({"tag": "x"})})
    assert heard == ["start hello", "before", "after x", "turn 1 tool_calls", "stop", "turn 2 final", "end completed"]
    assert "Be kind." in model.requests[1].instructions


async def test_a_run_that_a_hook_blocks_after_a_tool_stays_blocked_where_it_was_parked_meanwhile() -> None:
    @hooks.post_tool_use(tools="pay")
    async def enough(value: hooks.PostToolUse) -> hooks.Block:
        return hooks.Block("enough was paid")

    @tool
    async def pay() -> str:
        """Pay."""
        return "paid"

    model = ScriptedModel(calls("pay") + calls("ask"), "Paid again.")
    agent = Agent(model, tools=[pay, asking([])], hooks=[enough])
    async with memory() as store:
        parked = await park(store, agent, "go")
        resumed = await resume(store, agent, {parked.ids[0]: Accept({"tag": "x"})})
    assert (resumed.outcome.reason, resumed.outcome.detail) == ("blocked", "enough was paid")
    assert len(model.requests) == 1


async def test_a_resumed_run_starts_from_the_summary() -> None:
    talk = "bla " * 300
    model = ScriptedModel(talk, "They said bla.", calls("ask"), "Done.")
    agent = Agent(model, tools=[asking([])], compaction=Compaction(window=500, keep_recent=0.05))
    async with memory() as store:
        async with stored_session(store, "ann") as session:
            await agent.run(talk, session=session)
        parked = await park(store, agent, "Well?")
        resumed = await resume(store, agent, {parked.ids[0]: Accept({"tag": "x"})})
        assert resumed.outcome.output == "Done."
        async with stored_session(store, "ann") as session:
            assert [one.text for one in session.messages][:3] == [talk, talk, "Well?"]
    assert len(model.requests) == 4
    assert "They said bla." in model.requests[3].messages[0].text
    assert len(model.requests[3].messages) < len(session.messages)


async def test_what_a_tool_has_remembered_it_recalls_when_it_is_called_again() -> None:
    ran: list[Any] = []

    @tool
    async def book(context: ToolContext[None]) -> str:
        """Book."""
        receipt = context.recall("receipt", int)
        if receipt is None:
            ran.append(("charged", context.idempotency_key))
            receipt = 7
            await context.remember("receipt", receipt)
        await context.ask("Confirm?", FORM)
        ran.append(("booked", context.idempotency_key))
        return str(receipt)

    agent = Agent(ScriptedModel(calls("book", id="c"), "Done."), tools=[book])
    async with memory() as store:
        parked = await park(store, agent)
        await resume(store, agent)
        resumed = await resume(store, agent, {parked.ids[0]: Accept({"tag": "x"})})
    assert results(resumed.outcome) == {"c": "7"}
    assert [what for what, _ in ran] == ["charged", "booked"]
    assert len({key for _, key in ran}) == 1


async def test_a_session_that_is_parked_is_valid_wherever_it_is_read() -> None:
    agent = Agent(ScriptedModel(calls("pay", id="c", amount=1), "Done."), tools=[paying([])])
    async with memory() as store:
        parked = await park(store, agent)
        async with stored_session(store, "ann") as session:
            assert problems(session.messages) == []
            assert isinstance(session.messages[-1], ToolResult)
            seen: list[int] = []

            def look(stream: Stream, event: StreamEvent) -> None:
                seen.append(len(session.messages))

            resumed = await read(
                agent.resume_stream(session, {parked.ids[0]: Approve()}, on_question="park"), session, look
            )
            # What was the end of the turn for as long as nobody went on with it is not there twice.
            assert [one for one in session.messages if isinstance(one, AssistantMessage)] == [
                one for one in session.messages[1:] if not isinstance(one, ToolResult)
            ]
            assert len(session.messages) == 4
            assert resumed.outcome.messages == session.messages[1:]


# ----------------------------------------------------- it ends before it comes to its turn


async def test_a_resumed_run_that_ends_before_its_open_turn_leaves_the_turn_resumable() -> None:
    @tool(requires_approval=True)
    async def pay() -> str:
        """Pay."""
        return "paid"

    class Broken:
        name = "broken"

        def open(self) -> AbstractAsyncContextManager[Any]:
            raise ToolsetError(toolset="broken", problem="it does not start")

    @hooks.session_start
    async def too_early(value: object) -> None:
        left.stop("not now")

    agent = Agent(ScriptedModel(calls("pay"), "Done."), tools=[pay])
    async with MemoryStore().open() as store:
        async with stored_session(store, "ann") as session:
            parked = await agent.run("go", session=session, on_question="park")
        (question,) = parked.questions
        async with stored_session(store, "ann") as session:
            shown = session.messages
            for broken in (agent.replace(toolsets=[Broken()]), agent.replace(hooks=[too_early])):
                opening = broken.resume_stream(session, {} if session.questions == () else {question.id: Approve()})
                async with opening as left:
                    with suppress(ToolsetError):
                        [event async for event in left]
                assert left.outcome.reason in ("failed", "cancelled")
                assert session.is_resumable
                assert session.messages == shown
        async with stored_session(store, "ann") as session:
            # The answer was taken the first time.
            assert session.questions == ()
            outcome = await agent.resume(session)
            assert [message.text for message in outcome.messages] == ["", "paid", "Done."]


# ------------------------------------------------------------------------- long results


async def test_a_long_result_can_be_read_in_later_streams() -> None:
    @tool
    async def long(word: str) -> str:
        """Say much."""
        return f"{word} " * 1_000

    ran: list[Any] = []
    reading = calls("read_result", call_id="c1", offset=600, limit=12)
    first: list[Response | str] = [calls("long", id="c1", word="inner"), calls("ask", id="c2")]
    inner = Agent(ScriptedModel(*first, reading, "Inner."), name="inner", tools=[long, asking(ran)], max_result=300)
    asked = [calls("long", id="c1", word="outer"), calls("inner", id="c2", prompt="go"), reading]
    script: list[Response | str] = [*asked, "Done."]
    agent = Agent(ScriptedModel(*script), tools=[long, inner.as_tool()], max_result=300)
    async with memory() as store:
        parked = await park(store, agent)
        async with stored_session(store, "ann") as session:
            resuming = agent.resume_stream(session, {id: Accept({"tag": "x"}) for id in parked.ids})
            resumed = await read(resuming, session)
    assert resumed.outcome.output == "Done."
    said = [event.result.text for event in of(resumed.events, ToolCallFinished) if event.name == "read_result"]
    assert [text.splitlines()[1].split()[0] for text in said] == ["inner", "outer"]


async def test_a_long_result_takes_room_once_however_often_its_session_is_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @tool
    async def long(word: str) -> str:
        return word * 3_000

    monkeypatch.setattr(context_window, "MOST_CHARACTERS", 10_000)
    ran: list[Any] = []
    script: list[Response | str] = [
        calls("long", id="c1", word="a"),
        calls("long", id="c2", word="b"),
        calls("ask"),
        "Done.",
    ]
    script += [calls("ask"), "Done.", calls("ask"), "Done."]
    reading = calls("read_result", call_id="c1", limit=1) + calls("read_result", call_id="c2", limit=1)
    agent = Agent(ScriptedModel(*script, reading, "Done."), tools=[long, asking(ran)], max_result=300)
    async with memory() as store, stored_session(store, "ann") as session:
        for _ in range(3):
            outcome = await agent.run("go", session=session, on_question="park")
            await agent.resume(session, {question.id: Accept({"tag": "x"}) for question in outcome.questions})
        outcome = await agent.run("read", session=session)
    read_back = [message.text.splitlines()[-1] for message in outcome.messages if isinstance(message, ToolResult)]
    assert read_back == ["a", "b"]


async def test_requests_that_failed_before_a_run_was_parked_count_for_its_limit() -> None:
    asked: list[int] = []

    def respond(request: Any) -> Response | str:
        asked.append(len(asked))
        if len(asked) <= 2:
            return fails(ModelConnectionError("dropped"))
        return calls("ask") if len(asked) == 3 else "Done."

    agent = Agent(FunctionModel(respond), tools=[asking([])], limits=Limits(requests=3))
    async with memory() as store:
        at = await park(store, agent)
        [question] = at.outcome.questions
        at = await resume(store, agent, {question.id: Accept({"tag": "x"})}, on_question="decline")

    assert (at.outcome.reason, len(asked)) == ("limit", 3)


async def test_a_paused_response_gives_no_attempts_at_an_output_back() -> None:
    bad, paused = "no verdict", says("Let me see.", stop="paused")
    agent = Agent(
        ScriptedModel(bad, paused, calls("pay", amount=1), bad, bad, '{"good": true}'),
        tools=[paying([])],
        output_type=Verdict,
        limits=Limits(output_attempts=3),
    )
    async with MemoryStore().open() as store, stored_session(store) as session:
        parked = await agent.run("go", session=session, on_question="park")
        with pytest.raises(OutputError):
            await agent.resume(session, {parked.questions[0].id: Approve()})
