"""Permissions of agents and sessions: what runs, what is asked about, and what is denied, in words for the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentloop import Agent, Approve, Deny, Limits, Permissions, Rule, Session, Tool, hooks, tool
from agentloop.errors import InvalidAnswerError, ToolDefinitionError, UsageError
from agentloop.events import ApprovalRequested, ContinueRequested
from agentloop.hooks import Allow, Ask, Hook, PreToolUse, ReplaceArguments
from agentloop.messages import ToolResult
from agentloop.permissions import Exact, Glob, Mode, Under
from agentloop.testing import ScriptedModel, calls
from tests.runtime.builders import agent_with, answering, asked, results
from tests.support import Watched, first, nested, of, opened, watch


class Shell:
    """A tool that runs nothing, and what it was asked to run."""

    def __init__(self, **options: Any) -> None:
        self.ran: list[str] = []

        async def shell(command: str, cwd: str = ".") -> str:
            """Run a command."""
            self.ran.append(command)
            return "ok"

        self.tool: Tool = tool(**options)(shell)

    def agent(self, *commands: str, **options: Any) -> Agent:
        """An agent that runs each of ``commands``, a turn each."""
        script = [calls("shell", command=command) for command in commands or ("ls",)]
        return Agent(ScriptedModel(*script, "Done."), tools=[self.tool], **options)


GIT = Rule("shell", {"command": Glob("git *")})
RM = Rule("shell", {"command": Glob("rm *")})
DENY_RM, ASK_GIT = Permissions(deny=[RM]), Permissions(ask=[GIT])


def shown(watched: Watched) -> list[str]:
    """The commands that somebody was asked about."""
    return [question.arguments["command"] for question in of(watched.events, ApprovalRequested)]


def only(watched: Watched) -> ToolResult:
    [result] = results(watched)
    return result


# --------------------------------------------------------------------------------------- rules


async def test_an_allow_rule_spares_the_question_that_the_tool_wants_asked() -> None:
    shell = Shell(requires_approval=True)
    agent = shell.agent("git log", "git log; rm -rf /", "ls", permissions=Permissions(allow=[GIT]))

    watched = await watch(agent, on_event=answering(Deny()))

    assert shown(watched) == ["git log; rm -rf /", "ls"]
    assert shell.ran == ["git log"]


async def test_an_ask_rule_asks_and_names_itself() -> None:
    shell = Shell()
    agent = shell.agent("git log", "ls", permissions=Permissions(ask=[GIT]))

    watched = await watch(agent, on_event=answering(Approve()))

    [question] = of(watched.events, ApprovalRequested)
    assert question.reason == 'the rule shell(command like "git *") asks'
    assert shell.ran == ["git log", "ls"]


async def test_a_deny_rule_denies_without_a_question_and_names_itself_and_no_other() -> None:
    shell = Shell(requires_approval=True)
    agent = shell.agent("rm x", permissions=Permissions(deny=["other_*", RM], allow=["shell"]))

    watched = await watch(agent)

    assert (only(watched).text, only(watched).status) == ('Denied by the rule shell(command like "rm *").', "denied")
    assert (asked(watched.events), shell.ran) == ([], [])


async def test_no_hook_is_asked_about_what_a_rule_denies() -> None:
    called: list[str] = []
    look = hooks.pre_tool_use(lambda call: called.append(call.name))

    await watch(Shell().agent(permissions=Permissions(deny=["shell"]), hooks=[look]))

    assert called == []


async def test_without_an_answerer_the_result_names_the_rule_that_asks() -> None:
    agent = Shell().agent("git log", permissions=Permissions(ask=[GIT]))

    watched = await watch(agent, on_question="decline")

    because = 'it needs approval (the rule shell(command like "git *") asks)'
    assert only(watched).text == f"Denied: {because}. Nobody is there to be asked."
    assert only(watched).status == "denied"


async def test_the_reasons_of_rules_and_of_hooks_are_shown_together() -> None:
    careful = hooks.pre_tool_use(lambda call: Ask("it is late"))
    agent = Shell().agent(permissions=Permissions(ask=["shell"]), hooks=[careful])

    watched = await watch(agent, on_event=answering(Deny()))

    assert of(watched.events, ApprovalRequested)[0].reason == "the rule shell asks; it is late"


async def test_an_argument_that_is_left_out_is_judged_by_its_default() -> None:
    shell = Shell()
    agent = shell.agent("ls", permissions=Permissions(deny=[Rule("shell", {"cwd": Exact(".")})]))

    assert only(await watch(agent)).status == "denied"
    assert shell.ran == []


async def test_the_tools_of_toolsets_are_judged_by_a_schema_that_may_be_anything() -> None:
    class Odd:
        schema: dict[str, Any] = {"type": "object", "properties": {"a": True, "b": {"default": 7}}}  # noqa: RUF012

        def decode(self, raw: str | bytes, /) -> dict[str, Any]:
            return {}

        def convert(self, values: Mapping[str, Any], /) -> dict[str, Any]:
            return dict(values)

    async def act() -> str:
        return "acted"

    odd = Tool(name="act", description="", function=act, arguments=Odd())
    agent = agent_with(odd, permissions=Permissions(deny=[Rule("act", {"b": Exact(7)})]))

    assert only(await watch(agent)).status == "denied"


# --------------------------------------------------------------------------------------- modes


def always(arguments: Any) -> bool:
    return True


def spelled(argument: object) -> str:
    """The id of a test's argument: the same in each process, as pytest-xdist needs it."""
    if not isinstance(argument, dict):
        return str(argument)
    return " ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in argument.items())


@pytest.mark.parametrize("nobody", [False, True])
@pytest.mark.parametrize(
    ("mode", "options", "outcome"),
    [
        ("plan", {}, "denied"),
        ("plan", {"read_only": True}, "ran"),
        ("plan", {"read_only": True, "requires_approval": True}, "asked"),
        ("strict", {}, "asked"),
        ("strict", {"read_only": True}, "asked"),
        ("default", {}, "ran"),
        ("default", {"requires_approval": True}, "asked"),
        ("default", {"requires_approval": always}, "asked"),
        ("accept_edits", {"requires_approval": True}, "asked"),
        ("accept_edits", {"requires_approval": True, "destructive": True}, "asked"),
        ("accept_edits", {"requires_approval": True, "destructive": False}, "ran"),
        ("accept_edits", {"requires_approval": True, "read_only": True}, "ran"),
        ("autonomous", {"requires_approval": True, "destructive": True}, "ran"),
    ],
    ids=spelled,
)
async def test_each_mode(mode: Mode, options: dict[str, Any], outcome: str, nobody: bool) -> None:
    shell = Shell(**options)
    agent = shell.agent(permissions=Permissions(mode=mode))

    how: dict[str, Any] = {"on_question": "decline"} if nobody else {"on_event": answering(Approve())}
    watched = await watch(agent, **how)

    assert len(asked(watched.events)) == (outcome == "asked")
    assert bool(shell.ran) == (outcome == "ran" or (outcome == "asked" and not nobody))
    assert only(watched).status == ("ok" if shell.ran else "denied")


async def test_what_a_mode_denies_says_why() -> None:
    watched = await watch(Shell().agent(permissions=Permissions(mode="plan")))

    assert only(watched).text == "Denied by the mode 'plan', in which only tools that read run."


async def test_a_mode_that_asks_names_itself() -> None:
    watched = await watch(Shell().agent(permissions=Permissions(mode="strict")), on_event=answering(Deny()))

    assert of(watched.events, ApprovalRequested)[0].reason == "the mode 'strict' asks"


async def test_a_mode_that_asks_is_answered_for_good_too() -> None:
    shell = Shell()
    agent = shell.agent("ls", "ls", permissions=Permissions(mode="strict"))

    watched = await watch(agent, on_event=answering(Approve(always=True)))

    assert (shown(watched), shell.ran) == (["ls"], ["ls", "ls"])


async def test_permissions_that_deny_override_a_permanent_approval() -> None:
    shell, session = Shell(requires_approval=True), Session()
    await watch(shell.agent("ls"), session=session, on_event=answering(Approve(always=Rule("shell"))))
    session.permissions = Permissions(mode="plan")

    watched = await watch(shell.agent("ls"), session=session)

    assert (results(watched)[-1].status, shell.ran) == ("denied", ["ls"])


# ------------------------------------------------------------------------ sessions and agents


@pytest.mark.parametrize(
    ("agents", "sessions", "outcome"),
    [
        (Permissions(allow=["shell"]), Permissions(), "ran"),
        (Permissions(), Permissions(allow=["shell"]), "ran"),
        (None, Permissions(allow=["shell"]), "ran"),
        (None, Permissions(), "asked"),
        (Permissions(allow=["shell"]), Permissions(mode="strict"), "asked"),
        (Permissions(allow=["shell"]), Permissions(ask=["shell"]), "asked"),
        (Permissions(mode="strict"), Permissions(mode="autonomous"), "asked"),
        (Permissions(mode="autonomous"), Permissions(mode="plan"), "denied"),
        (Permissions(allow=["shell"]), Permissions(deny=["shell"]), "denied"),
        (Permissions(deny=["shell"]), Permissions(allow=["shell"]), "denied"),
        (Permissions(deny=["shell"]), Permissions(ask=["shell"]), "denied"),
    ],
    ids=str,
)
async def test_the_stricter_of_agent_and_session_counts(
    agents: Permissions | None, sessions: Permissions, outcome: str
) -> None:
    shell = Shell(requires_approval=True)
    agent = shell.agent(permissions=agents)

    watched = await watch(agent, session=Session(permissions=sessions), on_event=answering(Approve()))

    assert len(asked(watched.events)) == (outcome == "asked")
    assert bool(shell.ran) == (outcome != "denied")


async def test_permissions_of_one_session_do_not_hold_for_another() -> None:
    shell = Shell()

    await watch(shell.agent(), session=Session(permissions=Permissions(deny=["shell"])))
    await watch(shell.agent(), session=Session())

    assert shell.ran == ["ls"]


async def test_permissions_of_a_session_can_be_changed_while_a_stream_runs() -> None:
    shell = Shell(requires_approval=True)
    session = Session()

    async with opened(shell.agent("a", "b", "c"), session=session) as stream:
        question = await first(stream, ApprovalRequested)
        session.permissions = Permissions(mode="autonomous")
        stream.answer(question.id, Approve())
        rest = [event async for event in stream]

    assert (asked(rest), shell.ran) == ([], ["a", "b", "c"])


async def test_an_answer_cannot_approve_a_call_that_was_denied_meanwhile() -> None:
    shell, session = Shell(requires_approval=True), Session()
    both = calls("shell", command="a") + calls("shell", command="rm b")

    async with opened(agent_with(shell.tool, response=both), session=session) as stream:
        await wait_all_tasks_blocked()
        open_now = [question for question in stream.pending if isinstance(question, ApprovalRequested)]
        one, two = sorted(open_now, key=lambda question: str(question.arguments["command"]))
        session.permissions = DENY_RM
        stream.answer(one.id, Approve(always=Rule("shell")))
        assert stream.pending == (two,)
        with pytest.raises(InvalidAnswerError, match="denies these arguments"):
            stream.answer(two.id, Approve())
        stream.answer(two.id, Deny())
        await stream.wait()

    assert shell.ran == ["a"]


async def test_a_limit_is_not_extended_by_a_rule() -> None:
    async with opened(Shell().agent("a", "b", limits=Limits(turns=1))) as stream:
        question = await first(stream, ContinueRequested)
        with pytest.raises(InvalidAnswerError, match="a limit is no tool call, which a rule could match"):
            stream.answer(question.id, Approve(always=Rule("shell")))


# ------------------------------------------------------------------------------ child streams


def within(inner: Agent, depth: int, permissions: Permissions | None) -> Agent:
    """``inner``, called by an agent with ``permissions``, at ``depth`` levels."""
    outer = nested(inner, 1).replace(permissions=permissions, name="outer")
    return nested(outer, depth - 1)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    ("around", "own", "outcome"),
    [
        (Permissions(deny=["shell"]), None, "denied"),
        (Permissions(deny=["shell"]), Permissions(allow=["shell"]), "denied"),
        (Permissions(deny=["shell"]), Permissions(mode="autonomous"), "denied"),
        (Permissions(ask=["shell"]), Permissions(mode="autonomous"), "asked"),
        (Permissions(mode="strict", allow=["inner"]), Permissions(allow=["shell"]), "asked"),
        (Permissions(mode="plan", allow=["inner"]), Permissions(allow=["shell"]), "denied"),
        # The tool wants to be asked about, and what stands around does not say otherwise.
        (Permissions(), Permissions(mode="autonomous"), "asked"),
        (Permissions(mode="autonomous"), None, "asked"),
        (Permissions(allow=["shell"]), Permissions(), "asked"),
        (Permissions(mode="autonomous"), Permissions(mode="autonomous"), "ran"),
        (Permissions(mode="autonomous"), Permissions(deny=["shell"]), "denied"),
        (None, Permissions(allow=["shell"]), "ran"),
    ],
    ids=str,
)
async def test_a_child_is_never_permitted_more_than_the_streams_around_it(
    around: Permissions | None, own: Permissions | None, outcome: str, depth: int
) -> None:
    shell = Shell(requires_approval=True)
    agent = within(shell.agent(permissions=own, name="inner"), depth, around)

    watched = await watch(agent, on_event=answering(Approve()))

    assert len(asked(watched.events)) == (outcome == "asked")
    assert bool(shell.ran) == (outcome != "denied")


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_permissions_of_the_session_hold_for_everything_that_runs_in_it(depth: int) -> None:
    shell = Shell(requires_approval=True)
    agent = nested(shell.agent("git log", "rm x", "ls", name="inner"), depth)
    session = Session(permissions=Permissions(allow=[GIT], deny=[RM]))

    watched = await watch(agent, session=session, on_event=answering(Deny()))

    assert (shown(watched), shell.ran) == (["ls"], ["git log"])


@pytest.mark.parametrize("around", [Permissions(), Permissions(ask=["shell"])], ids=str)
async def test_a_hook_of_a_child_that_allows_a_call_does_not_speak_for_the_agents_around_it(
    around: Permissions,
) -> None:
    shell = Shell(requires_approval=True)
    inner = shell.agent(name="inner", hooks=[hooks.pre_tool_use(lambda call: Allow())])

    watched = await watch(within(inner, 1, around), on_event=answering(Deny()))

    assert (len(asked(watched.events)), shell.ran) == (1, [])


async def test_siblings_have_permissions_of_their_own() -> None:
    shell = Shell()
    tight = shell.agent("tight", name="tight", permissions=Permissions(deny=["shell"]))
    loose = shell.agent("loose", name="loose")
    model = ScriptedModel(calls("tight", prompt="go") + calls("loose", prompt="go"), "Done.")

    await watch(Agent(model, tools=[tight.as_tool(), loose.as_tool()]))

    assert shell.ran == ["loose"]


# --------------------------------------------------------------------------------- rewriting


def replacing(command: str, verdict: Allow | Ask | None = None) -> Hook:
    return hooks.pre_tool_use(lambda call: ReplaceArguments({"command": command}, verdict))


@pytest.mark.parametrize(
    ("command", "rewritten", "verdict", "permissions", "outcome"),
    [
        ("ls", "rm x", None, DENY_RM, "denied"),
        ("ls", "rm x", Allow(), DENY_RM, "denied"),
        ("rm x", "ls", None, DENY_RM, "denied"),
        ("ls", "git x", None, ASK_GIT, "asked"),
        ("ls", "git x", Allow(), ASK_GIT, "asked"),
        ("git x", "ls", None, ASK_GIT, "asked"),
        ("git x", "ls", Allow(), ASK_GIT, "asked"),
        ("ls", "cat", Ask("hm"), ASK_GIT, "asked"),
        ("ls", "cat", None, ASK_GIT, "ran"),
    ],
    ids=str,
)
async def test_a_call_that_a_hook_rewrites_is_judged_again_and_only_becomes_stricter(
    command: str, rewritten: str, verdict: Allow | Ask | None, permissions: Permissions, outcome: str
) -> None:
    shell = Shell()

    agent = shell.agent(command, permissions=permissions, hooks=[replacing(rewritten, verdict)])
    watched = await watch(agent, on_event=answering(Deny()))

    assert len(asked(watched.events)) == (outcome == "asked")
    assert only(watched).status == ("ok" if outcome == "ran" else "denied")


@pytest.mark.parametrize("rewritten", ["git x", "ls"])
async def test_a_call_that_the_tool_wants_asked_about_is_not_rewritten_into_one_that_runs(rewritten: str) -> None:
    shell = Shell(requires_approval=lambda arguments: arguments["command"] == "dd")
    agent = shell.agent("dd", permissions=Permissions(allow=[GIT]), hooks=[replacing(rewritten)])

    watched = await watch(agent, on_event=answering(Approve()))

    assert (shown(watched), shell.ran) == ([rewritten], [rewritten])


async def test_a_hook_that_rewrites_a_call_may_allow_it_where_only_the_tool_wants_to_be_asked_about() -> None:
    shell = Shell(requires_approval=True)

    watched = await watch(shell.agent("dd", hooks=[replacing("ls", Allow())]))

    assert (asked(watched.events), shell.ran) == ([], ["ls"])


async def test_a_person_cannot_change_the_arguments_into_what_a_rule_denies() -> None:
    shell = Shell(requires_approval=True)
    async with opened(shell.agent("ls", permissions=DENY_RM)) as stream:
        question = await first(stream, ApprovalRequested)
        with pytest.raises(InvalidAnswerError, match=r'the rule shell\(command like "rm \*"\) denies these arguments'):
            stream.answer(question.id, Approve({"command": "rm x"}))
        assert stream.pending == (question,)
        stream.answer(question.id, Approve({"command": "cat"}))
        await stream.wait()

    assert shell.ran == ["cat"]


async def test_a_person_may_change_the_arguments_into_what_a_rule_asks_about() -> None:
    shell = Shell(requires_approval=True)

    watched = await watch(shell.agent("ls", permissions=ASK_GIT), on_event=answering(Approve({"command": "git x"})))

    assert (shown(watched), shell.ran) == (["ls"], ["git x"])


async def test_a_person_cannot_change_the_arguments_into_what_a_hook_denies() -> None:
    shell = Shell(requires_approval=True)

    @hooks.pre_tool_use
    def no_rm(call: PreToolUse) -> Deny | None:
        return Deny("no rm here") if call.arguments["command"].startswith("rm") else None

    watched = await watch(shell.agent("ls", hooks=[no_rm]), on_event=answering(Approve({"command": "rm x"})))

    assert (only(watched).text, shell.ran) == ("Denied by a hook: no rm here", [])


async def test_a_guard_that_fails_on_what_a_person_has_changed_denies_the_call() -> None:
    shell = Shell(requires_approval=True)

    @hooks.pre_tool_use(name="guard")
    def guard(call: PreToolUse) -> None:
        if call.arguments["command"] != "ls":
            raise ValueError("broken")

    watched = await watch(shell.agent("ls", hooks=[guard]), on_event=answering(Approve({"command": "cat"})))

    assert only(watched).text == "Denied, since the pre_tool_use hook 'guard' failed: ValueError: broken."
    assert shell.ran == []


async def test_hooks_are_not_asked_again_where_a_person_changes_nothing() -> None:
    seen: list[object] = []
    look = hooks.pre_tool_use(lambda call: seen.append(call.arguments))

    await watch(Shell(requires_approval=True).agent(hooks=[look]), on_event=answering(Approve()))

    assert seen == [{"command": "ls"}]


# ------------------------------------------------------------------------------------- others


async def test_paths_are_judged_by_their_folder() -> None:
    written: list[str] = []

    @tool(requires_approval=True)
    async def write(path: str) -> str:
        written.append(path)
        return "written"

    paths = ["src/a.py", "src/../etc/b", "/etc/c", "docs/d"]
    model = ScriptedModel(*[calls("write", path=path) for path in paths], "Done.")
    rules = Permissions(allow=[Rule("write", {"path": Under("src")})], deny=[Rule("write", {"path": Under("/etc")})])

    watched = await watch(Agent(model, tools=[write], permissions=rules), on_event=answering(Approve()))

    # Whether it leads to /etc no rule can tell.
    assert [one.status for one in results(watched)] == ["ok", "denied", "denied", "ok"]
    assert written == ["src/a.py", "docs/d"]
    assert len(asked(watched.events)) == 1


async def test_permissions_of_a_stream_that_waits_for_a_person_leave_nothing_behind() -> None:
    session = Session(permissions=Permissions(mode="strict"))
    async with opened(Shell().agent(), session=session) as stream:
        await first(stream, ApprovalRequested)
        with trio.move_on_after(1):
            await trio.sleep_forever()

    assert session.grants == ()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Agent(ScriptedModel(), permissions="plan"), UsageError),  # type: ignore[arg-type]
        (lambda: Session(permissions=["shell"]), UsageError),  # type: ignore[arg-type]
        (lambda: tool(read_only=True, destructive=True)(watch), ToolDefinitionError),
    ],
    ids=["agent", "session", "tool"],
)
def test_a_value_that_is_not_permissions_is_refused(make: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
