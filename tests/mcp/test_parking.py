"""A call that a server has interrupted with questions goes on in another process, of ours and of the server's."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, InputRequiredResult

from agentloop import Accept, Agent, Approve, Decline
from agentloop.events import ApprovalRequested, ElicitationRequested, Question
from agentloop.hooks import PreToolUse, ReplaceArguments, pre_tool_use
from agentloop.journal import OpenStore, Record
from agentloop.mcp import McpServer
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.outcome import Outcome
from agentloop.questions import Answer
from agentloop.stores import MemoryStore, SQLiteStore, answer_question, stored_session
from agentloop.testing import Response, ScriptedModel, calls
from tests.mcp.servers.rounds import KEY, ask, form, make_server
from tests.mcp.support import raw
from tests.support import first

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def memory(records: Sequence[Record] = ()) -> AsyncGenerator[OpenStore]:
    async with MemoryStore().open() as store:
        if records:
            await store.append("ann", records)
        yield store


class Rounds:
    """The server of several rounds: each stream starts it anew."""

    def __init__(self, folder: Path, key: str = KEY) -> None:
        self.log = folder / "log"
        self.key = key

    def in_process(self, **options: Any) -> McpServer:
        return McpServer.in_process(make_server(self.log, self.key), mode="2026-07-28", **options)

    def over_stdio(self, **options: Any) -> McpServer:
        command = ("-m", "tests.mcp.servers.rounds", str(self.log), self.key)
        return McpServer.stdio(sys.executable, *command, cwd=ROOT, name="rounds", mode="2026-07-28", **options)

    @property
    def asked_for(self) -> list[str]:
        """The rounds that it was asked for so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def rounds(tmp_path: Path) -> Rounds:
    return Rounds(tmp_path)


async def begin(store: OpenStore, server: McpServer, *script: Response | str) -> Outcome:
    """A run that is parked where it asks."""
    async with stored_session(store, "ann") as session:
        agent = Agent(ScriptedModel(*script), toolsets=[server])
        return await agent.run("go", session=session, on_question="park")


Replies = Callable[[Question], Answer | None]


def by_message(**answers: Answer) -> Replies:
    """Answers by the first word of the question, in small letters."""

    def reply(question: Question) -> Answer | None:
        if isinstance(question, ApprovalRequested):
            return answers["approval"]
        assert isinstance(question, ElicitationRequested)
        return answers.get(question.message.split()[0].strip("?").lower())

    return reply


async def resume(store: OpenStore, server: McpServer, replies: Replies, *script: Response | str) -> Outcome:
    """Go on, in what might be another process, with answers to some of what is asked."""
    async with stored_session(store, "ann") as session:
        given = {question.id: replies(question) for question in session.questions}
        answers = {id: answer for id, answer in given.items() if answer is not None}
        agent = Agent(ScriptedModel(*(script or ("done",))), toolsets=[server])
        return await agent.resume(session, answers, on_question="park")


def asked(outcome: Outcome) -> list[str]:
    """What it waits for."""
    return [question.message for question in outcome.questions if isinstance(question, ElicitationRequested)]


async def results(store: OpenStore) -> list[ToolResult]:
    async with stored_session(store, "ann") as session:
        return [message for message in session.messages if isinstance(message, ToolResult)]


BO, SEAT = Accept({"name": "Bo"}), Accept({"seat": "7"})
BOOK = calls("book", room="red")
BOOKED = "red: name=Bo seats=7"
ANSWERS = by_message(who=BO, which=SEAT)


async def test_it_goes_on_with_a_new_server_in_the_round_in_which_it_was(rounds: Rounds) -> None:
    async with memory() as store:
        assert asked(await begin(store, rounds.in_process(), BOOK)) == ["Who comes?"]
        assert asked(await resume(store, rounds.in_process(), ANSWERS)) == ["Which seat?"]
        assert (await resume(store, rounds.in_process(), ANSWERS)).output == "done"
        assert [result.text for result in await results(store)] == [BOOKED]
    assert rounds.asked_for == ["book begin", "book named", "book seated"]


@pytest.mark.real_clock
@pytest.mark.seconds(60)
async def test_it_goes_on_with_a_new_process_of_a_server_and_a_reopened_file(rounds: Rounds, tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    async with SQLiteStore(path).open() as store:
        outcome = await begin(store, rounds.over_stdio(), BOOK)
    assert (outcome.reason, asked(outcome)) == ("needs_input", ["Who comes?"])
    async with SQLiteStore(path).open() as store:
        await resume(store, rounds.over_stdio(), ANSWERS)
    async with SQLiteStore(path).open() as store:
        [question] = outcome.questions
        assert asked(await resume(store, rounds.over_stdio(), ANSWERS)) == []
        assert [result.text for result in await results(store)] == [BOOKED]
        assert question.id == "ann/1?1"
    assert rounds.asked_for == ["book begin", "book named", "book seated"]


async def test_a_second_round_that_comes_while_it_is_read_is_parked_as_well(rounds: Rounds) -> None:
    """The answer to the first is on record, by its place: the second one must not be taken for it."""

    async def answer(question: Question) -> Answer | None:
        return ANSWERS(question) if "Who" in str(question) else None

    async with memory() as store:
        async with stored_session(store, "ann") as session:
            agent = Agent(ScriptedModel(calls("same")), toolsets=[rounds.in_process()])
            async with agent.stream("go", session=session) as stream:
                question = await first(stream, ElicitationRequested)
                stream.answer(question.id, Accept({"a": "one"}))
                await first(stream, ElicitationRequested)
                stream.park()
                await stream.wait()
        for _ in range(2):
            # Nobody answers, at first.
            outcome = await resume(store, rounds.in_process(), lambda question: None)
            assert asked(outcome) == ["Well?"]
        await resume(store, rounds.in_process(), lambda question: Accept({"a": "two"}))
        assert [result.text for result in await results(store)] == ["q=one q=two"]
    assert rounds.asked_for == ["same begin", "same once", "same twice"]


async def test_of_several_questions_of_a_round_each_is_answered_when_it_is_answered(rounds: Rounds) -> None:
    server = {"roots": ["/srv"]}
    async with memory() as store:
        assert asked(await begin(store, rounds.in_process(**server), calls("survey"))) == ["First?"]
        outcome = await resume(store, rounds.in_process(**server), by_message(first=Accept({"a": "1"})))
        [question] = outcome.questions
        assert isinstance(question, ElicitationRequested)
        assert question.url == "https://example.org/terms"
        # Answered by a process that does not go on with it.
        await answer_question(store, "ann", question.id, Accept())
        assert asked(await resume(store, rounds.in_process(**server), by_message())) == ["Last?"]
        await resume(store, rounds.in_process(**server), by_message(last=Accept({"z": "3"})))
        assert [result.text for result in await results(store)] == ["first=1 page=yes folders=1 roots last=3"]
    assert rounds.asked_for == ["survey begin", "survey asked"]


async def test_two_calls_that_are_parked_at_once_go_on_each_by_itself(rounds: Rounds) -> None:
    async with memory() as store:
        both = calls("book", room="red") + calls("book", room="blue")
        assert asked(await begin(store, rounds.in_process(), both)) == ["Who comes?"] * 2
        names = iter(["Ann", "Bo"])
        await resume(store, rounds.in_process(), lambda question: Accept({"name": next(names)}))
        seats = iter(["1", "2"])
        await resume(store, rounds.in_process(), lambda question: Accept({"seat": next(seats)}))
        assert [result.text for result in await results(store)] == [
            "red: name=Ann seats=1",
            "blue: name=Bo seats=2",
        ]
    assert sorted(rounds.asked_for) == sorted(["book begin", "book named", "book seated"] * 2)


async def test_declining_later_is_declining(rounds: Rounds) -> None:
    async with memory() as store:
        await begin(store, rounds.in_process(), BOOK)
        await resume(store, rounds.in_process(), by_message(who=Decline("no")))
        await resume(store, rounds.in_process(), by_message(which=SEAT))
        assert [result.text for result in await results(store)] == ["red: name=decline seats=7"]
    assert rounds.asked_for == ["book begin", "book named", "book seated"]


class Counting:
    """A model that says how often it was asked."""

    name = "counting"

    def __init__(self) -> None:
        self.count = 0

    async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
        self.count += 1
        await reply.text(f"idea {self.count}")
        return Stop("end")


@pytest.mark.parametrize("approved", [True, False])
async def test_what_the_model_has_answered_is_not_had_answered_again(rounds: Rounds, approved: bool) -> None:
    model = Counting()
    options: dict[str, Any] = {"sampling": model, "approve_sampling": approved}
    answers = by_message(
        may=Accept({"a": "ok"}), mcp=Accept(), sure=Accept({"z": "yes"}), **{"and": Accept({"b": "!"})}
    )
    waited: list[str] = []
    async with memory() as store:
        outcome = await begin(store, rounds.in_process(**options), calls("consult"))
        while outcome.reason == "needs_input":
            [question] = asked(outcome)
            waited.append(question.partition("\n")[0])
            outcome = await resume(store, rounds.in_process(**options), answers)
        assert [result.text for result in await results(store)] == ["may=ok idea=idea 1 sure=yes then=!"]
    wants = ["MCP server 'rounds' wants the model to answer this:"] if approved else []
    assert waited == ["May I?", *wants, "Sure?", "And then?"]
    assert model.count == 1
    assert rounds.asked_for == ["consult begin", "consult consulted", "consult done"]


async def test_a_call_that_is_approved_with_other_arguments_is_another_call(rounds: Rounds) -> None:
    """What is remembered belongs to the arguments that it began with, and those were approved."""

    def agent(room: str, *script: Response | str) -> Agent:
        @pre_tool_use
        async def revise(call: PreToolUse) -> ReplaceArguments:
            return ReplaceArguments({"room": room})

        return Agent(ScriptedModel(*script), toolsets=[rounds.in_process()], hooks=[revise])

    async with memory() as store:
        async with stored_session(store, "ann") as session:
            await agent("red", calls("stateless", room="any")).run("go", session=session, on_question="park")
        async with stored_session(store, "ann") as session:
            await agent("blue", "done").resume(session, {question.id: BO for question in session.questions})
        assert [result.text for result in await results(store)] == ["blue: name=Bo"]
    assert rounds.asked_for == ["stateless red", "stateless blue", "stateless blue answered"]


# ------------------------------------------------------------- a state that is not known


@pytest.mark.parametrize(
    ("call", "given", "questions", "result"),
    [
        (BOOK, [BO, SEAT], ["Who comes?", "Which seat?"], BOOKED),
        (calls("same"), [Accept({"a": "1"}), Accept({"a": "2"})], ["Well?", "Well?"], "q=1 q=2"),
    ],
)
async def test_where_the_server_does_not_know_its_state_any_more_no_answer_is_lost(
    tmp_path: Path, call: Response, given: list[Answer], questions: list[str], result: str
) -> None:
    """As it is by default with the Python SDK's servers: each process has a key of its own."""
    rounds = Rounds(tmp_path, key="")
    replies = iter(given)
    asked_for: list[str] = []
    async with memory() as store:
        outcome = await begin(store, rounds.in_process(), call)
        while outcome.reason == "needs_input":
            asked_for += asked(outcome)
            outcome = await resume(store, rounds.in_process(), lambda question: next(replies))
        assert [each.text for each in await results(store)] == [result]
    assert asked_for == questions


async def test_wherever_the_process_dies_after_the_server_was_called_from_the_beginning_nothing_is_asked_again(
    tmp_path: Path,
) -> None:
    rounds = Rounds(tmp_path, key="")
    look = calls("look", room="red")
    async with memory() as store:
        recorder: Any = Recorder(store)
        await begin(recorder, rounds.in_process(), look)
        before = len(recorder.states)
        await resume(recorder, rounds.in_process(), ANSWERS)
    assert rounds.asked_for == ["look begin", "look begin", "look named"]

    for records in recorder.states[before:]:
        if not any(record.kind == "question_answered" for record in records):
            continue
        async with memory(records) as store:
            outcome = await resume(store, rounds.in_process(), ANSWERS)
            while outcome.reason == "needs_input":
                assert asked(outcome) == ["Which seat?"]
                outcome = await resume(store, rounds.in_process(), ANSWERS)
            assert [result.text for result in await results(store)] == [BOOKED]


async def test_a_server_that_never_knows_its_state_is_given_up() -> None:
    server = MCPServer("forgetful", log_level="CRITICAL")
    began: list[int] = []

    @server.tool()
    async def forget(ctx: Context) -> str | InputRequiredResult:
        """Forget."""
        if ctx.request_state is None:
            began.append(1)
            return ask("state", q=form("Well?", "a"))
        raise MCPError(code=INVALID_PARAMS, message="Expired", data={"reason": "invalid_request_state"})

    async def answer(question: Question) -> Answer:
        return Accept({"a": "1"})

    agent = Agent(ScriptedModel(calls("forget"), "done"), toolsets=[McpServer.in_process(server, mode="2026-07-28")])
    outcome = await agent.run("go", on_question=answer)
    assert "Expired" in str(outcome.messages[2])
    assert len(began) == 2


# ------------------------------------------------------------------- the process dies


class Recorder:
    """A store that keeps a copy of what was there after each addition: what a crash just then would leave."""

    def __init__(self, store: OpenStore) -> None:
        self.store = store
        self.states: list[list[Record]] = [[]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
        await self.store.append(session, records, **options)
        if session == "ann":
            self.states.append([*self.states[-1], *records])


@pytest.mark.parametrize("name", ["book", "look"])
async def test_wherever_the_process_dies_no_round_is_repeated_that_is_known_to_have_ended(
    rounds: Rounds, name: str
) -> None:
    async def answer(question: Question) -> Answer | None:
        # For long enough that what was told by then is kept.
        await trio.sleep(1)
        return ANSWERS(question)

    done: list[list[str]] = []
    """The rounds that had been asked for, by the number of the write."""

    class Counted(Recorder):
        async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
            await super().append(session, records, **options)
            if session == "ann":
                done.append(rounds.asked_for)

    async with memory() as store:
        recorder: Any = Counted(store)
        async with stored_session(recorder, "ann") as session:
            agent = Agent(ScriptedModel(calls(name, room="red"), "done"), toolsets=[rounds.in_process()])
            await agent.run("go", session=session, on_question=answer)
    whole = rounds.asked_for
    assert len(whole) == 3

    ends: list[tuple[int, str]] = []
    for records, before in zip(recorder.states[1:], done, strict=True):
        rounds.log.unlink(missing_ok=True)
        async with memory(records) as store:
            async with stored_session(store, "ann") as session:
                if not session.is_resumable:
                    continue
                given = {question.id: ANSWERS(question) for question in session.questions}
                assert all(given.values())
                script = [] if session.messages[1:] else [calls(name, room="red")]
                agent = Agent(ScriptedModel(*script, "done"), toolsets=[rounds.in_process()])
                await agent.resume(session, {id: each for id, each in given.items() if each}, on_question=answer)
            found = await results(store)
            texts = [result.text for result in found]
            again = rounds.asked_for
            kept = {record.data for record in records if record.kind == "memory"}
            # A round that came to its end is not asked for again, in either life.
            assert not set(again) & set(whole[: len(kept)])
            if texts == [BOOKED]:
                assert again == whole[len(kept) :] or (again == [] and len(before) == 3)
            else:
                assert name == "book", "that may be called again"
                assert [result.status for result in found] == ["interrupted"]
                assert again == []
            ends.append((len(kept), found[0].status))
    # In each round there was a moment at which the question was open, and the call went on from there.
    assert {(1, "ok"), (2, "ok")} <= set(ends)


async def test_what_nobody_was_there_to_be_asked_is_declined_for_good(rounds: Rounds) -> None:
    """The server has been told so, and has gone on: nobody must be asked for what is settled."""
    async with memory() as store:
        recorder: Any = Recorder(store)
        async with stored_session(recorder, "ann") as session:
            agent = Agent(ScriptedModel(calls("look", room="red"), "done"), toolsets=[rounds.in_process()])
            await agent.run("go", session=session)
    cut = next(state for state in recorder.states if sum(record.kind == "memory" for record in state) == 2)
    async with memory(cut) as store:
        rounds.log.unlink()
        assert asked(await resume(store, rounds.in_process(), lambda question: None)) == ["Which seat?"]
        await resume(store, rounds.in_process(), ANSWERS)
        assert [result.text for result in await results(store)] == ["red: name=decline seats=7"]
    assert rounds.asked_for == ["look seated"]


@pytest.mark.parametrize("policy", ["retry", "ask", "report"])
async def test_what_to_do_about_a_call_that_was_cut_off_can_be_said_of_a_server(rounds: Rounds, policy: Any) -> None:
    async with memory() as store:
        recorder: Any = Recorder(store)
        await begin(recorder, rounds.in_process(), BOOK)
    records = recorder.states[-1]
    [began] = [at for at, record in enumerate(records) if record.kind == "call"]
    async with memory(records[: began + 1]) as store:
        rounds.log.unlink()
        server = rounds.in_process(if_interrupted=policy)
        outcome = await resume(store, server, ANSWERS)
        if policy == "ask":
            [question] = outcome.questions
            assert isinstance(question, ApprovalRequested)
            outcome = await resume(store, server, by_message(approval=Approve()))
        if policy == "report":
            assert [result.status for result in await results(store)] == ["interrupted"]
            assert rounds.asked_for == []
        else:
            assert asked(outcome) == ["Who comes?"]
            assert rounds.asked_for == ["book begin"]


async def test_a_call_that_was_queued_when_the_process_died_is_made_after_a_resume() -> None:
    """The journal has the start of the call that was sent, and none of the call behind it."""
    log: list[str] = []
    server = McpServer.in_process(old_server(log), concurrency=1, mode="legacy")
    two = calls("work", seconds=1) + calls("work", seconds=1)
    async with memory() as store:
        recorder: Any = Recorder(store)
        async with stored_session(recorder, "ann") as session:
            await Agent(ScriptedModel(two, "done"), toolsets=[server]).run("go", session=session)
    cut = next(state for state in recorder.states if any(record.kind == "call" for record in state))
    async with memory(cut) as store:
        log.clear()
        assert (await resume(store, server, lambda question: None)).output == "done"
        found = await results(store)
    assert sorted(result.status for result in found) == ["interrupted", "ok"]
    assert log == ["work"]


# ---------------------------------------------------------------------- the older era


def old_server(log: list[str]) -> MCPServer:
    server = MCPServer("old", log_level="CRITICAL")

    @server.tool()
    async def ask(tag: str, ctx: Context) -> str:
        """Ask in the midst of a call."""
        log.append(f"ask {tag}")
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        answer = await ctx.session.elicit_form(f"Who is {tag}?", schema)
        return f"{tag}: {answer.action} {answer.content}"

    @server.tool()
    async def work(seconds: float) -> str:
        """Work."""
        log.append("work")
        await trio.sleep(seconds)
        return "worked"

    return server


async def test_a_call_to_an_older_server_is_made_again_and_its_question_answered_as_it_was() -> None:
    log: list[str] = []
    async with memory() as store:
        old = McpServer.in_process(old_server(log), mode="legacy")
        assert asked(await begin(store, old, calls("ask", tag="x"))) == ["Who is x?"]
        await resume(store, McpServer.in_process(old_server(log), mode="legacy"), lambda question: BO)
        assert [result.text for result in await results(store)] == ["x: accept {'name': 'Bo'}"]
    assert log == ["ask x", "ask x"]


@pytest.mark.real_clock
async def test_two_calls_that_ask_an_older_server_at_once_are_parked_each_with_a_question() -> None:
    async with memory() as store:
        both = calls("ask", tag="x") + calls("ask", tag="y")
        assert sorted(asked(await begin(store, raw(), both))) == ["Who is x?", "Who is y?"]
        outcome = await resume(store, raw(), lambda question: BO)
        for _ in range(3):
            # They may be asked in another order than before: then what was answered is not for the other question.
            if outcome.reason == "needs_input":
                outcome = await resume(store, raw(), lambda question: BO)
        assert sorted(result.text for result in await results(store)) == ["x: accept Bo", "y: accept Bo"]


async def test_while_an_older_server_asks_a_call_that_it_is_busy_with_may_come_to_its_end() -> None:
    log: list[str] = []
    async with memory() as store:
        old = McpServer.in_process(old_server(log), mode="legacy")
        await begin(store, old, calls("ask", tag="x") + calls("work", seconds=3))
        await resume(store, McpServer.in_process(old_server(log), mode="legacy"), lambda question: BO)
        assert [result.status for result in await results(store)] == ["ok", "ok"]
    assert sorted(log) == ["ask x", "ask x", "work"]


@pytest.mark.real_clock
async def test_a_call_that_an_older_server_was_busy_with_for_too_long_while_it_asked_is_in_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody can tell which of the two asks, or whether the other one would go on without an answer: it may have."""
    monkeypatch.setattr("agentloop.mcp._connection.BUSY_SECONDS", 0.2)

    @pre_tool_use(tools="hang")
    async def later(call: PreToolUse) -> None:
        # So that it is the other one that is taken to ask.
        await trio.sleep(0.1)

    async with memory() as store:
        async with stored_session(store, "ann") as session:
            agent = Agent(ScriptedModel(calls("ask", tag="x") + calls("hang")), toolsets=[raw()], hooks=[later])
            assert asked(await agent.run("go", session=session, on_question="park")) == ["Who is x?"]
        assert (await resume(store, raw(), lambda question: BO)).output == "done"
        found = await results(store)
    assert [(result.name, result.status) for result in found] == [("ask", "ok"), ("hang", "interrupted")]
