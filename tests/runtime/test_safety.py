"""Levels of safety: what the modes safe and safer run, what a person reads of the rest, and approving a level."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agentloop import Agent, Approve, Deadlines, Deny, Permissions, Rule, Session, Tool, hooks, tool
from agentloop.errors import ToolDefinitionError
from agentloop.events import ApprovalRequested, QuestionAnswered, StreamEvent
from agentloop.hooks import Ask, OnToolApprovalDecision, PreToolUse, ReplaceArguments
from agentloop.permissions import Exact
from agentloop.questions import Answer
from agentloop.safety import Assessment, BlastRadius
from agentloop.testing import ScriptedModel, calls
from tests.runtime.builders import answering, results, warnings_in
from tests.support import Watched, of, opened, watch


def assess(arguments: dict[str, Any]) -> Assessment:
    command = arguments["command"]
    if command.startswith("ls"):
        return Assessment(is_harmless=True, why="ls only reads")
    radius = BlastRadius(paths=(command.split()[-1],), commands=(command,))
    return Assessment(why="rm is not known to be harmless", destructive=True, blast_radius=radius, metadata={"a": 1})


class Tools:
    """Two tools that do nothing, and what they were asked to do."""

    def __init__(self, **options: Any) -> None:
        self.ran: list[str] = []
        merged: dict[str, Any] = {"requires_approval": True, "assess": assess, **options}

        @tool(**merged)
        async def shell(command: str) -> str:
            """Run a command."""
            self.ran.append(command)
            return "ok"

        @tool(read_only=True)
        async def read(path: str) -> str:
            """Read a file."""
            self.ran.append(path)
            return "text"

        @tool(read_only=True, requires_approval=True)
        async def fetch(url: str) -> str:
            """Read a page."""
            self.ran.append(url)
            return "page"

        self.tools: list[Tool] = [shell, read, fetch]

    def agent(self, *commands: str, **options: Any) -> Agent[Any, Any]:
        """An agent that runs each of ``commands``, a turn each, if it is a command; it reads the others."""
        script = [_call(command) for command in commands]
        return Agent(ScriptedModel(*script, "Done."), tools=self.tools, **options)


def _call(command: str) -> Any:
    if command.startswith("https:"):
        return calls("fetch", url=command)
    return calls("shell", command=command) if " " in command or command == "ls" else calls("read", path=command)


SAFE, SAFER, STRICT = Permissions(mode="safe"), Permissions(mode="safer"), Permissions(mode="strict")


def questions(events: list[StreamEvent]) -> list[ApprovalRequested]:
    return of(events, ApprovalRequested)


async def answered(agent: Agent[Any, Any], *answers: Answer, **options: Any) -> Watched:
    return await watch(agent, on_event=answering(*answers), **options)


# ----------------------------------------------------------------------------- the two modes


async def test_the_mode_safe_runs_what_only_reads_and_asks_about_the_rest() -> None:
    tools = Tools()

    watched = await answered(tools.agent("notes.md", "ls", "rm x", permissions=SAFE), Deny())

    assert tools.ran == ["notes.md"]
    assert [question.arguments["command"] for question in questions(watched.events)] == ["ls", "rm x"]
    assert questions(watched.events)[0].reason == "the mode 'safe' asks: shell may do more than read"


async def test_the_mode_safer_also_runs_what_its_tool_calls_harmless() -> None:
    tools = Tools()

    watched = await answered(tools.agent("notes.md", "ls", "rm x", permissions=SAFER), Deny())

    assert tools.ran == ["notes.md", "ls"]
    [question] = questions(watched.events)
    assert question.reason == "the mode 'safer' asks: rm is not known to be harmless"


@pytest.mark.parametrize("permissions", [SAFE, SAFER], ids=str)
async def test_a_tool_that_only_reads_still_asks_where_it_requires_approval(permissions: Permissions) -> None:
    tools = Tools()

    watched = await answered(tools.agent("https://example.org", permissions=permissions), Deny())

    assert (len(questions(watched.events)), tools.ran) == (1, [])


async def test_what_needs_approval_is_denied_where_nobody_is_there_and_the_model_reads_why() -> None:
    tools = Tools()

    watched = await watch(tools.agent("ls", "rm x", permissions=SAFER), on_question="decline")

    assert tools.ran == ["ls"]
    because = "it needs approval (the mode 'safer' asks: rm is not known to be harmless)"
    assert [result.text for result in results(watched)] == ["ok", f"Denied: {because}. Nobody is there to be asked."]


async def test_rules_come_before_the_mode_safer() -> None:
    tools = Tools()
    permissions = Permissions(mode="safer", ask=["shell"], deny=["read"])

    watched = await answered(tools.agent("ls", "notes.md", permissions=permissions), Deny())

    assert tools.ran == []
    assert [question.reason for question in questions(watched.events)] == ["the rule shell asks"]


async def test_a_hook_that_asks_is_heard_though_the_call_is_harmless() -> None:
    tools = Tools()
    careful = hooks.pre_tool_use(lambda call: Ask("it is late", {"hour": 23}))

    watched = await answered(tools.agent("ls", permissions=SAFER, hooks=[careful]), Deny())

    [question] = questions(watched.events)
    assert (question.reason, question.metadata, tools.ran) == ("it is late", {"hour": 23}, [])


async def test_arguments_that_a_hook_replaces_are_assessed_anew() -> None:
    tools = Tools()

    @hooks.pre_tool_use(tools="shell")
    async def worse(call: PreToolUse) -> ReplaceArguments:
        return ReplaceArguments({"command": "rm x"})

    watched = await answered(tools.agent("ls", permissions=SAFER, hooks=[worse]), Deny())

    [question] = questions(watched.events)
    assert (question.arguments, tools.ran) == ({"command": "rm x"}, [])
    assert question.assessment == "rm is not known to be harmless"


async def test_harmless_arguments_that_a_hook_replaces_by_harmless_ones_run_unasked() -> None:
    tools = Tools()

    @hooks.pre_tool_use(tools="shell")
    async def other(call: PreToolUse) -> ReplaceArguments:
        return ReplaceArguments({"command": "ls -l"})

    watched = await answered(tools.agent("ls", permissions=SAFER, hooks=[other]), Deny())

    assert (questions(watched.events), tools.ran) == ([], ["ls -l"])


async def test_a_child_is_no_freer_than_the_mode_safe_around_it() -> None:
    tools = Tools()
    child = tools.agent("ls", "rm x", name="child", permissions=Permissions(mode="autonomous"))
    parent = Agent(ScriptedModel(calls("child", prompt="go"), "Done."), tools=[child.as_tool()])

    await answered(parent.replace(permissions=SAFER), Approve(), Deny())

    # The question about the child itself was the first.
    assert tools.ran == ["ls"]


async def test_a_hook_hears_that_the_mode_safer_decided() -> None:
    tools, heard = Tools(), list[OnToolApprovalDecision]()
    listen = hooks.on_tool_approval_decision(heard.append)

    await watch(tools.agent("ls", permissions=SAFER, hooks=[listen]))

    assert [(one.decision, one.by, one.detail) for one in heard] == [("allow", "mode", "the mode 'safer'")]


async def test_without_the_mode_safer_a_tool_assesses_only_what_a_person_is_asked_about() -> None:
    assessed: list[str] = []

    def count(arguments: dict[str, Any]) -> Assessment:
        assessed.append(arguments["command"])
        return Assessment()

    await watch(Tools(requires_approval=False, assess=count).agent("ls", "rm x"))
    assert assessed == []
    await answered(Tools(assess=count).agent("ls"), Deny())
    assert assessed == ["ls"]


# ------------------------------------------------------------------- what a person is shown


async def test_a_question_says_what_the_call_may_do_and_what_it_may_touch() -> None:
    tools = Tools(metadata={"team": "ops", "a": 0}, destructive=True)
    careful = hooks.pre_tool_use(lambda call: Ask(metadata={"ticket": 7}))

    watched = await answered(tools.agent("rm build", permissions=SAFER, hooks=[careful]), Deny())

    [question] = questions(watched.events)
    assert (question.read_only, question.destructive) == (False, True)
    assert question.assessment == "rm is not known to be harmless"
    assert question.blast_radius == BlastRadius(paths=("build",), commands=("rm build",))
    assert question.metadata == {"team": "ops", "a": 1, "ticket": 7}


async def test_a_harmless_call_of_a_destructive_tool_is_shown_as_one_that_reads() -> None:
    watched = await answered(Tools(destructive=True).agent("ls"), Deny())

    [question] = questions(watched.events)
    assert (question.read_only, question.destructive, question.assessment) == (True, False, "ls only reads")


async def test_of_a_tool_without_an_assessment_the_names_of_arguments_say_what_it_touches() -> None:
    @tool(requires_approval=True)
    async def copy(source: list[str], url: str, body: str) -> str:
        """Copy files."""
        return "ok"

    script = calls("copy", source=["a", "b"], url="https://ann:secret@example.org:8080/x", body="text")
    agent = Agent(ScriptedModel(script, "Done."), tools=[copy])

    [question] = questions((await answered(agent, Deny())).events)

    assert question.blast_radius == BlastRadius(paths=("a", "b"), hosts=("example.org:8080",))
    assert str(question.blast_radius) == "a, b, example.org:8080, ..."
    assert (question.read_only, question.destructive, question.metadata) == (False, None, {})


async def test_whatever_a_reader_writes_into_a_question_stays_with_it() -> None:
    tools = Tools(metadata={"list": [1]})
    async with opened(tools.agent("rm x", "rm y")) as stream:
        async for event in stream:
            if isinstance(event, ApprovalRequested):
                assert event.metadata["list"] == [1]
                event.metadata["list"].append(2)
                stream.answer(event.id, Deny())


@pytest.mark.parametrize(
    "value",
    [{"at": object()}, {"at": float("nan")}, {1: "x"}, ["x"], "x"],
    ids=["an object", "a nan", "a key", "a list", "a text"],
)
def test_metadata_that_are_no_json_are_refused_where_they_are_written(value: Any) -> None:
    with pytest.raises(ToolDefinitionError, match="metadata"):
        Tools(metadata=value)


def test_an_assessment_that_is_no_function_is_refused_where_it_is_written() -> None:
    with pytest.raises(ToolDefinitionError, match="assess='ls': give a function of the arguments"):
        Tools(assess="ls")


# -------------------------------------------------------------- assessments that go wrong


def fails(arguments: dict[str, Any]) -> Assessment:
    raise ValueError("broken")


@pytest.mark.parametrize(
    "broken", [fails, lambda arguments: True, lambda arguments: None], ids=["raises", "a bool", "nothing"]
)
async def test_a_call_whose_assessment_fails_needs_approval_and_the_run_warns(broken: Any) -> None:
    tools = Tools(assess=broken)

    watched = await answered(tools.agent("ls", permissions=SAFER), Deny())

    [question] = questions(watched.events)
    assert "its assess= failed" in question.reason
    assert (tools.ran, warnings_in(watched.events)) == ([], ["predicate_failed"])


async def test_an_assessment_that_takes_too_long_is_given_up() -> None:
    async def forever(arguments: dict[str, Any]) -> Assessment:
        await trio.sleep_forever()
        raise AssertionError

    tools = Tools(assess=forever)

    agent = tools.agent("ls", permissions=SAFER, deadlines=Deadlines(hook=5))
    watched = await answered(agent, Deny())

    assert (tools.ran, warnings_in(watched.events)) == ([], ["predicate_failed"])


async def test_an_assessment_cannot_change_the_arguments_unseen() -> None:
    def sly(arguments: dict[str, Any]) -> Assessment:
        arguments["command"] = "rm -rf /"
        return Assessment(is_harmless=True)

    tools = Tools(assess=sly)

    await watch(tools.agent("ls", permissions=SAFER))

    assert tools.ran == ["ls"]


# ------------------------------------------------------- approve, and from now on what is safe


async def test_approving_what_is_safe_from_now_on_approves_this_call_once_and_those_that_read() -> None:
    tools = Tools()
    agent = tools.agent("rm x", "notes.md", "ls", "rm x", permissions=STRICT)

    watched = await answered(agent, Approve(always="safe"), Deny())

    assert tools.ran == ["rm x", "notes.md"]
    assert [question.arguments for question in questions(watched.events)] == [
        {"command": "rm x"}, {"command": "ls"}, {"command": "rm x"},
    ]  # fmt: skip


async def test_approving_what_is_safer_from_now_on_covers_harmless_calls_too() -> None:
    tools, session = Tools(), Session()

    await answered(tools.agent("rm x", "ls", "notes.md", "rm y"), Approve(always="safer"), Deny(), session=session)

    assert tools.ran == ["rm x", "ls", "notes.md"]
    assert [grant.level for grant in session.grants] == ["safer"]


async def test_a_level_that_was_approved_overrides_neither_a_rule_nor_a_hook_nor_a_tool_that_asks() -> None:
    tools = Tools()
    careful = hooks.pre_tool_use(lambda call: Ask() if call.arguments.get("command") == "ls late" else None)
    permissions = Permissions(mode="strict", ask=["read"])
    agent = tools.agent(
        "rm x", "notes.md", "ls late", "https://example.org", "ls", permissions=permissions, hooks=[careful]
    )

    await answered(agent, Approve(always="safer"), Deny())

    assert tools.ran == ["rm x", "ls"]


async def test_a_level_does_not_cover_a_call_whose_arguments_a_rule_asked_about_before_a_hook_replaced_them() -> None:
    tools = Tools()

    @hooks.pre_tool_use(tools="shell")
    async def replace(call: PreToolUse) -> ReplaceArguments | None:
        return ReplaceArguments({"command": "ls"}) if call.arguments["command"] == "rm y" else None

    permissions = Permissions(mode="strict", ask=[Rule("shell", {"command": Exact("rm y")})])
    agent = tools.agent("rm x", "rm y", permissions=permissions, hooks=[replace])

    watched = await answered(agent, Approve(always="safer"), Deny())

    assert (len(questions(watched.events)), tools.ran) == (2, ["rm x"])


async def test_a_rule_that_the_session_got_since_the_question_keeps_a_level_from_answering_it() -> None:
    tools, session = Tools(), Session()
    script = calls("shell", command="rm x") + calls("shell", command="ls")
    agent = Agent(ScriptedModel(script, "Done."), tools=tools.tools)
    async with opened(agent, session=session) as stream:
        async for event in stream:
            if isinstance(event, ApprovalRequested) and event.arguments["command"] == "ls":
                session.permissions = Permissions(ask=["shell"])
                stream.answer(stream.pending[0].id, Approve(always="safer"))
                stream.answer(event.id, Deny())

    assert tools.ran == ["rm x"]


async def test_a_level_belongs_to_the_agent_that_asked() -> None:
    tools, session = Tools(), Session()
    await answered(tools.agent("rm x", name="ann"), Approve(always="safer"), session=session)

    watched = await answered(tools.agent("ls", name="bob"), Deny(), session=session)

    assert (tools.ran, len(questions(watched.events))) == (["rm x"], 1)


async def test_open_questions_about_safe_calls_are_answered_with_the_one_that_approves_the_level() -> None:
    tools = Tools()
    script = calls("shell", command="rm x") + calls("shell", command="ls") + calls("shell", command="rm y")
    agent = Agent(ScriptedModel(script, "Done."), tools=tools.tools)
    seen: list[tuple[str, str]] = []
    async with opened(agent) as stream:
        async for event in stream:
            if isinstance(event, ApprovalRequested) and event.arguments["command"] == "rm y":
                first, _, last = stream.pending
                stream.answer(last.id, Deny())
                stream.answer(first.id, Approve(always="safer"))
            if isinstance(event, QuestionAnswered):
                seen.append((type(event.answer).__name__, event.by))

    assert sorted(seen) == [("Approve", "reader"), ("Approve", "rule"), ("Deny", "reader")]
    assert sorted(tools.ran) == ["ls", "rm x"]
