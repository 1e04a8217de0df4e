"""Guards: the calls of child streams that they are asked about, the hook that hears of each decision, plain hooks."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from agentloop import Approve, Deadlines, Deny, Permissions, Rule, Session, hooks, tool
from agentloop._runtime import user_code
from agentloop.command_hooks import command_hook, hooks_from_settings
from agentloop.errors import UsageError
from agentloop.events import ApprovalRequested, Source, ToolCallFinished
from agentloop.hooks import (
    Allow,
    Ask,
    Block,
    Hook,
    HookWarning,
    OnToolApprovalDecision,
    PreToolUse,
    ReplaceArguments,
    ReplaceResult,
)
from agentloop.messages import Text, ToolResult
from agentloop.outcome import QuestionHandler
from agentloop.permissions import Exact
from agentloop.questions import Answer
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import calls
from tests.runtime.builders import agent_with, answering, warnings_in
from tests.support import Watched, of, watch


class Deleter:
    """A tool, the agents around it, and the files that it has deleted."""

    def __init__(self, **options: Any) -> None:
        self.deleted: list[str] = []

        async def delete(path: str = "a") -> str:
            self.deleted.append(path)
            return f"deleted {path}"

        self.tool = tool(**options)(delete)

    async def run(self, *own: Hook, around: list[Hook], middle: list[Hook] | None = None, **options: Any) -> Watched:
        """A run whose sub-agent, or the one of its sub-agent, calls the tool."""
        child = agent_with(self.tool, name="inner", response=calls("delete", path="a"), hooks=own)
        if middle is not None:
            child = agent_with(child.as_tool(), name="middle", response=calls("inner", prompt="go"), hooks=middle)
        outer = agent_with(
            child.as_tool(), name="outer", response=calls(child.name, prompt="go"), hooks=around, **options
        )
        return await watch(outer, on_event=answering(Approve()))


def result_of(watched: Watched) -> ToolResult:
    """The result of the call of ``delete``."""
    [event] = [event for event in of(watched.events, ToolCallFinished) if event.name == "delete"]
    return event.result


def pre(function: Callable[[PreToolUse], Any], **options: Any) -> Hook:
    made: Hook = hooks.pre_tool_use(**{"tools": "delete", **options})(function)
    return made


# ---------------------------------------------------------------------------------- children


@pytest.mark.parametrize("middle", [None, []], ids=["directly", "two levels down"])
async def test_a_guard_of_an_agent_is_asked_about_the_calls_of_the_agents_inside_it(middle: list[Hook] | None) -> None:
    deleter = Deleter()

    watched = await deleter.run(around=[pre(lambda call: Deny("no"))], middle=middle)

    assert (result_of(watched).text, deleter.deleted) == ("Denied by a hook: no", [])


async def test_a_guard_of_an_agent_may_have_a_person_asked_about_the_call_of_a_child() -> None:
    watched = await Deleter().run(around=[pre(lambda call: Ask("sure?"))])

    [question] = of(watched.events, ApprovalRequested)
    assert (question.reason, question.agent) == ("sure?", "inner")


async def test_a_hook_of_an_agent_cannot_allow_the_call_of_a_child() -> None:
    allow = pre(lambda call: Allow())

    around = await Deleter(requires_approval=True).run(around=[allow])
    own = await Deleter(requires_approval=True).run(allow, around=[])
    both = await Deleter(requires_approval=True).run(allow, around=[allow])

    asked = [len(of(watched.events, ApprovalRequested)) for watched in (around, own, both)]
    assert asked == [1, 0, 0]


async def test_a_hook_of_an_agent_may_replace_the_arguments_and_the_result_of_a_childs_call() -> None:
    deleter = Deleter()
    redact = hooks.post_tool_use(tools="delete")(
        lambda call: ReplaceResult(ToolResult("", "", (Text(call.result.text.upper()),)))
    )

    watched = await deleter.run(around=[pre(lambda call: ReplaceArguments({"path": "b"})), redact])

    assert (deleter.deleted, result_of(watched).text) == (["b"], "DELETED B")


async def test_the_hooks_of_a_child_are_called_before_those_around_it_which_see_what_they_changed() -> None:
    seen: list[tuple[str, str]] = []

    def named(name: str) -> Hook:
        def add(call: PreToolUse) -> ReplaceArguments:
            seen.append((name, call.arguments["path"]))
            return ReplaceArguments({"path": call.arguments["path"] + name})

        return pre(add)

    deleter = Deleter()
    await deleter.run(named("i"), around=[named("o")], middle=[named("m")])

    assert seen == [("i", "a"), ("m", "ai"), ("o", "aim")]
    assert deleter.deleted == ["aimo"]


async def test_a_hook_that_agents_share_is_called_once_for_a_call() -> None:
    seen: list[str] = []
    shared = pre(lambda call: seen.append(call.name))

    await Deleter().run(shared, around=[shared], middle=[shared])

    assert seen == ["delete"]


async def test_a_hook_may_be_for_the_calls_of_its_own_agent_only() -> None:
    seen: list[str] = []
    own = hooks.pre_tool_use(children=False)(lambda call: seen.append(call.name))

    await Deleter().run(around=[own], middle=[own])

    assert seen == ["middle", "inner"]


@pytest.mark.parametrize("options", [{"children": False}, {"children": None}], ids=str)
def test_a_hook_away_from_tool_calls_is_for_its_own_agent_in_any_case(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="of a stop hook: True or False, for those around a tool call"):
        hooks.stop(**options)(print)


async def test_a_guard_around_that_fails_denies_the_call_of_the_child_and_the_time_limit_is_its_agents() -> None:
    @hooks.pre_tool_use(tools="delete")
    async def hang(call: PreToolUse) -> None:

        await trio.sleep_forever()

    watched = await Deleter().run(around=[hang], deadlines=Deadlines(hook=0.5))

    assert result_of(watched).text == "Denied, since the pre_tool_use hook 'hang' failed: took longer than 0.5 s."


async def test_a_hook_around_that_blocks_after_the_call_of_a_child_ends_the_childs_run() -> None:
    block = hooks.post_tool_use(tools="delete")(lambda call: Block("enough"))

    watched = await Deleter().run(around=[block])

    assert watched.outcome.reason == "completed"
    assert "enough" in watched.messages[2].text


async def test_a_guard_of_an_agent_is_asked_about_a_call_that_nothing_in_the_child_checks() -> None:
    deleter = Deleter()
    child = agent_with(deleter.tool, name="inner", response=calls("delete", path="a") + calls("delete", path="b"))
    guard = pre(lambda call: Deny() if call.arguments["path"] == "b" else None)
    seen: list[str] = []
    after = hooks.post_tool_use(tools="delete")(lambda call: seen.append(call.arguments["path"]))

    await watch(agent_with(child.as_tool(), response=calls("inner", prompt="go"), hooks=[guard, after]))

    assert (deleter.deleted, seen) == (["a"], ["a"])


@pytest.mark.real_clock
@pytest.mark.skipif(os.name != "posix", reason="the programs are for sh")
@pytest.mark.parametrize("children", [True, False])
async def test_programs_are_asked_about_the_calls_of_children_as_in_claude_code(tmp_path: Path, children: bool) -> None:
    deleter = Deleter()
    refuse = "cat > call; echo no >&2; exit 2"
    entry = {"matcher": "delete", "hooks": [{"type": "command", "command": refuse}]}
    given = (
        hooks_from_settings({"PreToolUse": [entry]}, cwd=tmp_path)
        if children
        else [command_hook(hooks.pre_tool_use, refuse, cwd=tmp_path, children=False, tools="delete")]
    )

    await deleter.run(around=[*given])

    assert deleter.deleted == ([] if children else ["a"])
    if children:
        assert json.loads((tmp_path / "call").read_text())["agent_name"] == "inner"


# ----------------------------------------------------------------------------------- the audit


class Audit:
    """A hook that hears of decisions."""

    def __init__(self, **options: Any) -> None:
        self.heard: list[OnToolApprovalDecision] = []
        self.hook = hooks.on_tool_approval_decision(**options)(self.heard.append)

    @property
    def decisions(self) -> list[tuple[str, str, str]]:
        return [(value.decision, value.by, value.detail) for value in self.heard]


ONE = {"path": "a"}
DELETE_A = Rule("delete", {"path": Exact("a")})


@pytest.mark.parametrize(
    ("options", "approval", "answer", "decision"),
    [
        ({}, False, None, ("allow", "tool", "")),
        ({}, True, Approve(), ("allow", "person", "")),
        ({}, True, Deny("no"), ("deny", "person", "no")),
        ({}, True, None, ("deny", "nobody", "")),
        ({"permissions": Permissions(allow=[DELETE_A])}, True, None, ("allow", "rule", f"the rule {DELETE_A}")),
        ({"permissions": Permissions(deny=["delete"])}, False, None, ("deny", "rule", "the rule delete")),
        (
            {"permissions": Permissions(ask=["delete"])},
            False,
            Approve(),
            ("allow", "person", "the rule delete asks"),
        ),
        ({"permissions": Permissions(mode="autonomous")}, True, None, ("allow", "mode", "the mode 'autonomous'")),
        (
            {"permissions": Permissions(mode="plan")},
            False,
            None,
            ("deny", "mode", "the mode 'plan', in which only tools that read run"),
        ),
        ({"hooks": [pre(lambda call: Allow(), name="h")]}, True, None, ("allow", "hook", "the hook 'h'")),
        ({"hooks": [pre(lambda call: Deny("no"), name="h")]}, True, None, ("deny", "hook", "the hook 'h': no")),
        ({"hooks": [pre(lambda call: Ask("sure?"), name="h")]}, False, Approve(), ("allow", "person", "sure?")),
        ({"hooks": [pre(lambda call: None, name="h")]}, False, None, ("allow", "tool", "")),
        (
            {"hooks": [pre(lambda call: 1 / 0, name="h")]},
            False,
            None,
            ("deny", "hook", "the pre_tool_use hook 'h' failed: ZeroDivisionError: division by zero"),
        ),
    ],
)
async def test_a_hook_hears_of_each_decision_about_a_call_with_its_source(
    options: dict[str, Any], approval: bool, answer: Answer | None, decision: tuple[str, str, str]
) -> None:
    audit, deleter = Audit(), Deleter(requires_approval=approval)
    given = [*options.pop("hooks", ()), audit.hook]
    agent = agent_with(deleter.tool, response=calls("delete", path="a"), hooks=given, **options)

    if answer is None:
        await agent.run("go", on_question="decline")
    else:
        await watch(agent, on_event=answering(answer))

    assert audit.decisions == [decision]
    assert (audit.heard[0].name, audit.heard[0].arguments) == ("delete", ONE)
    assert bool(deleter.deleted) is (decision[0] == "allow")


async def test_a_hook_hears_of_a_decision_before_the_tool_runs() -> None:
    deleter, before = Deleter(), list[list[str]]()
    hear = hooks.on_tool_approval_decision(lambda value: before.append([*deleter.deleted]))

    await watch(agent_with(deleter.tool, hooks=[hear]))

    assert (before, deleter.deleted) == ([[]], ["a"])


async def test_a_call_that_a_person_has_approved_for_good_is_decided_by_a_rule() -> None:
    audit, session = Audit(), Session()
    agent = agent_with(
        Deleter(requires_approval=True).tool,
        response=calls("delete", path="a") + calls("delete", path="a"),
        hooks=[audit.hook],
    )

    await watch(agent, session=session, on_event=answering(Approve(always=True)))

    assert sorted(audit.decisions) == [
        ("allow", "person", ""),
        ("allow", "rule", "a person has approved it for good"),
    ]


async def test_a_decision_is_about_the_arguments_that_a_person_has_put_in() -> None:
    audit = Audit()

    agent = agent_with(Deleter(requires_approval=True).tool, hooks=[audit.hook])
    await watch(agent, on_event=answering(Approve(arguments={"path": "b"})))

    assert [value.arguments for value in audit.heard] == [{"path": "b"}]


async def test_a_hook_around_hears_of_the_decisions_about_the_calls_of_children() -> None:
    audit = Audit(tools="delete")

    await Deleter().run(around=[audit.hook], middle=[pre(lambda call: Deny(), name="m")])

    assert audit.decisions == [("deny", "hook", "the hook 'm'")]
    assert audit.heard[0].source.agents == ("outer", "middle", "inner")


async def test_a_hook_that_hears_of_decisions_and_fails_is_a_warning_and_the_call_runs() -> None:
    deleter = Deleter()
    fail = hooks.on_tool_approval_decision(lambda value: 1 / 0)  # type: ignore[arg-type,return-value]

    watched = await watch(agent_with(deleter.tool, hooks=[fail]))

    assert (warnings_in(watched.events), deleter.deleted) == (["hook_failed"], ["a"])


async def test_the_decision_about_a_parked_call_is_heard_of_when_it_is_made() -> None:
    audit = Audit()

    async def no(question: Any) -> Answer:
        return Deny("not today")

    handler: QuestionHandler = no
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        agent = agent_with(Deleter(requires_approval=True).tool, hooks=[audit.hook])
        await agent.run("go", session=session, on_question="park")
        assert audit.decisions == []
        await agent.resume(session, on_question=handler)

    assert audit.decisions == [("deny", "person", "not today")]


# ------------------------------------------------------------------------------ plain functions


class Blocking:
    """Plain functions that block until the test ends."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.calls = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()

    def __call__(self, value: object) -> None:
        self.calls += 1
        self.released.wait(10)


@pytest.mark.real_clock
async def test_a_plain_guard_that_blocks_is_refused_when_its_time_is_up() -> None:
    deleter = Deleter()
    with Blocking() as block:
        watched = await watch(agent_with(deleter.tool, hooks=[pre(block, name="slow", timeout=0.05)]))

    assert result_of(watched).text == "Denied, since the pre_tool_use hook 'slow' failed: took longer than 0.05 s."
    assert (block.calls, deleter.deleted) == (1, [])


@pytest.mark.real_clock
async def test_a_plain_hook_that_blocks_stops_nothing_else() -> None:
    deleter = Deleter()
    with Blocking() as block:

        async def release() -> None:
            while not block.calls:
                await trio.lowlevel.checkpoint()
            block.released.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(release)
            await agent_with(deleter.tool, hooks=[pre(block)]).run("go")

    assert deleter.deleted == ["a"]


@pytest.mark.real_clock
async def test_a_plain_predicate_that_blocks_leaves_the_decision_to_a_person() -> None:
    with Blocking() as block:
        deleter = Deleter(requires_approval=block)
        agent = agent_with(deleter.tool, deadlines=Deadlines(hook=0.05))
        watched = await watch(agent, on_event=answering(Deny("no")))

    assert (block.calls, warnings_in(watched.events), deleter.deleted) == (1, ["predicate_failed"], [])


@pytest.mark.real_clock
async def test_a_plain_instructions_function_that_blocks_fails_the_run_when_its_time_is_up() -> None:
    with Blocking() as block:

        def instructions(source: Source) -> str:
            block(source)
            return ""

        agent = agent_with(Deleter().tool, instructions=instructions, deadlines=Deadlines(hook=0.05))
        with pytest.raises(UsageError, match="the instructions of agent 'agent' failed: it took too long"):
            await agent.run("go")


@pytest.mark.real_clock
async def test_a_plain_observer_that_blocks_is_given_up_also_at_the_end_of_a_run() -> None:
    with Blocking() as block:
        given = [hooks.turn_start(timeout=0.05)(block), hooks.session_end(block)]
        watched = await watch(agent_with(Deleter().tool, hooks=given, deadlines=Deadlines(cleanup=0.05)))

    assert (watched.outcome.reason, warnings_in(watched.events)) == ("completed", ["hook_failed"] * 3)


@pytest.mark.real_clock
async def test_a_plain_hook_that_waits_for_a_thread_does_not_begin_once_its_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(user_code, "MAX_HOOK_THREADS", 1)
    with Blocking() as block:
        twice = calls("delete", path="a") + calls("delete", path="b")
        watched = await watch(agent_with(Deleter().tool, response=twice, hooks=[pre(block, timeout=0.05)]))

    assert block.calls == 1
    assert [event.result.status for event in of(watched.events, ToolCallFinished)] == ["denied", "denied"]


async def at_once(call: PreToolUse) -> Deny:
    return Deny("no")


def wrapped(call: PreToolUse) -> Awaitable[Deny]:
    return at_once(call)


variable: ContextVar[str] = ContextVar("variable")


def leave(call: PreToolUse) -> None:
    sys.exit(3)


def warn(call: PreToolUse) -> None:
    raise HookWarning("careful")


@pytest.mark.real_clock
@pytest.mark.parametrize(
    ("function", "text", "warnings"),
    [
        (lambda call: Deny("no"), "Denied by a hook: no", []),
        (wrapped, "Denied by a hook: no", []),
        (lambda call: Deny(variable.get()), "Denied by a hook: of the task", []),
        (partial(lambda reason, call: Deny(reason), "no"), "Denied by a hook: no", []),
        (warn, "deleted a", ["hook_warning"]),
        (leave, "SystemExit: 3", []),
        (lambda call: 1 / 0, "ZeroDivisionError: division by zero", []),
    ],
)
async def test_the_verdict_and_the_exception_of_a_plain_hook_come_out_of_its_thread(
    function: Any, text: str, warnings: list[str]
) -> None:
    variable.set("of the task")

    watched = await watch(agent_with(Deleter().tool, hooks=[pre(function)]))

    assert text in result_of(watched).text
    assert warnings_in(watched.events) == warnings


class AsyncCall:
    async def __call__(self, call: PreToolUse) -> None:
        threads.append(threading.get_ident())


threads: list[int] = []


@pytest.mark.parametrize("is_real", [True, False], ids=["real clock", "virtual clock"])
@pytest.mark.parametrize("kind", ["async", "async object", "partial", "plain"])
def test_only_a_plain_hook_runs_in_a_thread_and_none_on_a_virtual_clock(is_real: bool, kind: str) -> None:
    async def here(call: PreToolUse) -> None:
        threads.append(threading.get_ident())

    def plain(call: PreToolUse) -> None:
        threads.append(threading.get_ident())

    function: Any = {"async": here, "async object": AsyncCall(), "partial": partial(here), "plain": plain}[kind]
    threads.clear()

    async def main() -> None:
        await agent_with(Deleter().tool, hooks=[pre(function)]).run("go")

    trio.run(main, clock=None if is_real else MockClock(autojump_threshold=0))

    assert (threads == [threading.get_ident()]) is (not is_real or kind != "plain")
