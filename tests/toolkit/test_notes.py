"""Todos and plans: each stream has its own or shares them, no change is lost, and they outlive the process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from agentloop import Accept, Agent, Permissions, Session, ToolContext, Toolsets, tool
from agentloop.errors import UsageError
from agentloop.journal import OpenStore, Record
from agentloop.messages import ToolResult
from agentloop.models import Model, ModelRequest
from agentloop.outcome import Outcome
from agentloop.stores import MemoryStore, _journal_writer, stored_session
from agentloop.testing import FunctionModel, Lab, Response, ScriptedModel, calls, sweep
from agentloop.toolkit import plan, think, todo
from agentloop.tools import Toolset
from tests.toolkit.builders import call

READ = "Revision 1, 1 of 1 open:\n1 [pending] Read the code"


def results(outcome: Outcome[Any]) -> list[str]:
    return [message.text for message in outcome.messages if isinstance(message, ToolResult)]


async def run(*turns: Response, toolset: Toolset, **options: Any) -> list[str]:
    """The results of the calls."""
    return results(await Agent(ScriptedModel(*turns, "Done."), toolsets=[toolset]).run("go", **options))


def creating(description: str) -> Model:
    """A model that creates a todo, with the revision that a refusal has named."""

    def respond(request: ModelRequest) -> Response | str:
        last = request.messages[-1]
        if isinstance(last, ToolResult) and last.status == "ok":
            return "Done."
        refused = re.search(r"present one is (\d+)", last.text)
        return calls("create_todos", descriptions=[description], revision=int(refused[1]) if refused else 0)

    return FunctionModel(respond)


def inside(agent: Agent, depth: int) -> Agent:
    """An agent in which ``agent`` runs ``depth`` levels down, and which says what it said. It can be resumed."""
    for _ in range(depth):
        outer = FunctionModel(partial(_hand_on, agent.name))
        agent = Agent(outer, name=f"around_{agent.name}", tools=[agent.as_tool()])
    return agent


def _hand_on(name: str, request: ModelRequest) -> Response | str:
    last = request.messages[-1]
    return last.text if isinstance(last, ToolResult) else calls(name, prompt="go")


def team(shared: Toolset, *descriptions: str, depth: int = 1) -> Agent:
    """An agent whose workers create a todo each, at the same time. It can be resumed."""
    workers = [
        inside(Agent(creating(description), name=f"worker_{number}", toolsets=[shared]), depth - 1).as_tool()
        for number, description in enumerate(descriptions)
    ]

    def respond(request: ModelRequest) -> Response | str:
        done = sum(isinstance(message, ToolResult) for message in request.messages)
        if not done:
            return sum((calls(worker.name, prompt="go") for worker in workers), start=Response())
        return calls("list_todos") if done == len(workers) else request.messages[-1].text

    return Agent(FunctionModel(respond), tools=workers, toolsets=[shared])


class Appends:
    """A store that notes how many records it had after each append: where a crash can cut the journal off."""

    def __init__(self, store: OpenStore) -> None:
        self._store = store
        self.lengths: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
        await self._store.append(session, records, **options)
        self.lengths.append(records[-1].seq)


async def test_the_list_of_a_session_is_there_for_the_next_prompt_and_for_no_other_session() -> None:
    todos, session = todo(), Session()
    created = calls("create_todos", descriptions=["Read\n the code", "Fix it"])
    updated = calls("update_todos", updates=[{"id": 1, "status": "completed"}], revision=1)
    first = await run(created, updated, toolset=todos, session=session)
    assert first[0] == "Revision 1, 2 of 2 open:\n1 [pending] Read the code\n2 [pending] Fix it"
    assert await run(calls("list_todos"), toolset=todos, session=session) == [
        "Revision 2, 1 of 2 open:\n1 [completed] Read the code\n2 [pending] Fix it"
    ]
    assert await run(calls("list_todos"), toolset=todos) == ["The list is empty (revision 0)."]


async def test_a_change_of_an_old_revision_is_refused_with_the_present_list() -> None:
    created = calls("create_todos", descriptions=["Read the code"])
    _, refused = await run(created, created, toolset=todo())
    assert refused.startswith("Nothing was changed: the call names revision 0, and the present one is 1. ")
    assert refused.endswith(f"\n{READ}")


@pytest.mark.parametrize("depth", [1, 2])
async def test_agents_that_write_to_a_shared_list_at_once_lose_nothing(depth: int) -> None:
    outcome = await team(todo(shared=True), "Read", "Test", "Write", depth=depth).run("go")
    listed = results(outcome)[-1]
    assert listed.startswith("Revision 3, 3 of 3 open:")
    assert sorted(re.findall(r"\] (\w+)", listed)) == ["Read", "Test", "Write"]


async def test_without_sharing_each_stream_has_a_list_of_its_own() -> None:
    outcome = await team(todo(), "Read", "Test").run("go")
    assert results(outcome)[-1] == "The list is empty (revision 0)."


async def test_a_list_in_shared_toolsets_belongs_to_all_runs_of_the_block() -> None:
    created = calls("create_todos", descriptions=["Read the code"])

    @tool
    async def delegate(context: ToolContext[Any]) -> str:
        """Share a list among two agents inside this call."""
        async with Toolsets(todo()) as inner:
            workers = [Agent(ScriptedModel(turn, "Done."), toolsets=[inner]) for turn in (created, calls("list_todos"))]
            return [results(await context.run(worker, "go")) for worker in workers][-1][0]

    for _ in range(2):
        async with Toolsets(todo()) as shared:
            assert await run(created, toolset=shared) == [READ]
            assert await run(calls("list_todos"), toolset=shared) == [READ]
    lead = Agent(ScriptedModel(calls("delegate"), "Done."), tools=[delegate], toolsets=[plan()])
    outcome = await lead.run("go")
    assert results(outcome) == [READ]


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("shared", [False, True])
async def test_lists_survive_parking_and_the_death_of_the_process(depth: int, shared: bool) -> None:
    @tool
    async def confirm(context: ToolContext[Any]) -> str:
        """Ask for a confirmation."""
        return type(await context.ask("Go on?")).__name__

    def respond(request: ModelRequest) -> Response | str:
        done = sum(isinstance(message, ToolResult) for message in request.messages)
        turns = [calls("create_todos", descriptions=["Read the code"]), calls("confirm"), calls("list_todos")]
        return turns[done] if done < len(turns) else request.messages[-1].text

    def build() -> Agent:
        return inside(Agent(FunctionModel(respond), tools=[confirm], toolsets=[todo(shared=shared)]), depth)

    async def resumed(store: OpenStore) -> str:
        async with stored_session(store, "s") as session:
            [question] = session.questions
            return (await build().resume(session, {question.id: Accept({})})).output

    async with MemoryStore().open() as store, MemoryStore().open() as after_crash:
        async with stored_session(store, "s") as session:
            parked = await build().run("go", session=session, on_question="park")
            assert parked.reason == "needs_input"
        # The process is killed while the question waits, before the run is parked.
        records = await store.read("s")
        parked_at = next(record.seq for record in records if record.kind == "question_parked")
        await after_crash.append("s", records[: parked_at - 1])
        for each in (store, after_crash):
            assert await resumed(each) == READ


@pytest.mark.parametrize(
    ("toolset", "change", "text"),
    [
        (todo(), calls("create_todos", descriptions=["Read the code"]), READ),
        (plan(), calls("write_plan", content="Read."), "The plan is saved. The present revision is 1."),
    ],
    ids=["todo", "plan"],
)
async def test_a_call_that_a_crash_cut_off_changes_the_state_once(
    toolset: Toolset, change: Response, text: str
) -> None:
    async with MemoryStore().open() as store, MemoryStore().open() as after_crash:
        async with stored_session(store, "s") as session:
            await Agent(ScriptedModel(change, "Done."), toolsets=[toolset]).run("go", session=session)
        # The process is killed when the state is saved, and before the call has ended.
        records = await store.read("s")
        [end] = [record.seq for record in records if record.kind == "tool_call_finished"]
        assert records[end - 2].kind == "state"
        await after_crash.append("s", records[: end - 1])
        async with stored_session(after_crash, "s") as session:
            outcome = await Agent(ScriptedModel("Done."), toolsets=[toolset]).resume(session)
    assert results(outcome) == [text]


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_wherever_a_crash_cuts_the_run_off_each_todo_is_created_once(
    depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build() -> Agent:
        shared = todo(shared=True)
        if not depth:
            return Agent(creating("Read"), toolsets=[shared])
        return team(shared, "Read", "Test", depth=depth)

    # Without collecting entries into one write, there are more places for a crash.
    monkeypatch.setattr(_journal_writer, "LAG", 0.0)
    async with MemoryStore().open() as opened:
        store: Any = Appends(opened)
        async with stored_session(store, "s") as session:
            await build().run("go", session=session)
        records = await opened.read("s")
    assert len(store.lengths) >= 4
    for length in store.lengths:
        async with MemoryStore().open() as after_crash:
            await after_crash.append("s", records[:length])
            async with stored_session(after_crash, "s") as session:
                if session.is_resumable:
                    await build().resume(session)
                [listed] = await run(calls("list_todos"), toolset=todo(shared=True), session=session)
                assert sorted(re.findall(r"\] (\w+)", listed)) == (["Read", "Test"] if depth else ["Read"]), length


async def test_changes_that_make_no_sense_are_refused() -> None:
    toolset = todo(max_todos=2)
    created = calls("create_todos", descriptions=["Read", "Fix"])
    texts = await run(
        calls("create_todos", descriptions=[]),
        calls("create_todos", descriptions=["Read", " "]),
        calls("create_todos", descriptions=["x" * 501]),
        created,
        calls("create_todos", descriptions=["Test"], revision=1),
        calls("update_todos", updates=[], revision=1),
        calls("update_todos", updates=[{"id": 7, "status": "completed"}, {"id": 1, "status": "completed"}], revision=1),
        calls("update_todos", updates=[{"id": 1, "status": "done"}], revision=1),
        # What is done makes room.
        calls("update_todos", updates=[{"id": 1, "status": "cancelled"}], revision=1),
        calls("create_todos", descriptions=["Test"], revision=2),
        toolset=toolset,
    )
    assert [text.split("\n")[0][:60] for text in texts[:3]] == [
        "Nothing was changed: give each todo a description",
        "Nothing was changed: give each todo a description",
        "Nothing was changed: a description has at most 500 character",
    ]
    assert "at most 2 fit" in texts[4]
    assert "there are no updates" in texts[5]
    assert "there is no todo 7\nRevision 1, 2 of 2 open:" in texts[6]
    assert "'done'" in texts[7]
    assert texts[9] == "Revision 3, 2 of 2 open:\n2 [pending] Fix\n3 [pending] Test"
    with pytest.raises(UsageError, match="give a number above 0"):
        todo(max_todos=0)
    with pytest.raises(UsageError, match="give a number above 0"):
        plan(max_chars=0)


async def test_the_agents_of_a_session_write_and_read_one_plan() -> None:
    shared = plan(max_chars=40)
    worker = Agent(ScriptedModel(calls("write_plan", content="Worse."), "Done."), name="worker", toolsets=[shared])
    model = ScriptedModel(
        calls("read_plan"),
        calls("write_plan", content="1. Read\n2. Fix"),
        calls("worker", prompt="go"),
        calls("write_plan", content="x" * 41, revision=1),
        calls("write_plan", content="1. Fix", revision=1),
        calls("read_plan"),
        "Done.",
    )
    session = Session()
    lead = Agent(model, tools=[worker.as_tool()], toolsets=[shared])
    texts = results(await lead.run("go", session=session))
    assert texts[0] == "There is no plan yet (revision 0)."
    assert texts[1] == "The plan is saved as revision 1."
    assert "41 characters, and at most 40 fit" in texts[3]
    assert texts[5] == "The plan, revision 2:\n1. Fix"
    assert await run(calls("read_plan"), toolset=plan(), session=session) == [texts[5]]
    assert "There is one plan" in model.requests[0].instructions


async def test_a_stale_plan_is_refused_with_the_present_one() -> None:
    texts = await run(
        calls("write_plan", content="First."), calls("write_plan", content="Second."), toolset=plan(shared=False)
    )
    assert texts[1].endswith("with revision 1.\nThe plan, revision 1:\nFirst.")


async def test_an_agent_that_may_change_nothing_can_plan() -> None:
    agent = Agent(
        ScriptedModel(calls("create_todos", descriptions=["Read the code"]), calls("write_plan", content="x"), "Done."),
        toolsets=[todo(), plan()],
        permissions=Permissions(mode="plan"),
    )
    assert results(await agent.run("go")) == [READ, "The plan is saved as revision 1."]


async def test_a_thought_is_recorded_and_nothing_happens() -> None:
    result = await call(think(name="ponder"), thought="Which of the two is it?")
    assert (result.status, result.text) == ("ok", "The thought is recorded.")
    assert think().read_only
    assert repr(todo(name="tasks")) == "<tasks own>"


def test_no_fault_makes_a_shared_list_lose_a_change() -> None:
    async def work(lab: Lab) -> None:
        shared = todo(shared=True)
        worker = Agent(creating("Read"), name="worker", toolsets=[shared])
        model = lab.model(calls("worker", prompt="go") + calls("create_todos", descriptions=["Fix"]), "Done.")
        agent = Agent(model, tools=[worker.as_tool()], toolsets=[shared])
        session = Session()
        try:
            async with lab.stream(agent, session=session) as stream:
                await stream.drain()
        finally:
            listed: list[str] = []
            values = session._transcript.values.get("", {}).get("todo")
            if values is not None:
                listed = [entry["description"] for entry in values["todos"]]
                assert len(listed) == values["revision"] == values["created"] == len(set(listed))

    report = sweep(work, limit=10)
    assert report.violations == []
