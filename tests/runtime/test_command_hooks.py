"""Hooks that are programs: what they are told, what their answers mean, and that nothing of them is left."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import Agent, Approve, Deadlines, Deny, Session, hooks, tool
from agentloop.command_hooks import (
    CommandFailedError,
    _output,
    _program as module,
    command_hook,
    hooks_from_settings,
)
from agentloop.command_hooks._input import POINTS
from agentloop.errors import UsageError
from agentloop.events import ApprovalRequested, Source, ToolCallStarted, WarningIssued
from agentloop.hooks import Hook, HookWarning, Point
from agentloop.messages import ToolResult, user_message
from agentloop.testing import ScriptedModel, calls, fails
from tests.runtime.builders import agent_with, answering, asked, results, warnings_in
from tests.support import Watched, first, nested, of, opened, watch

pytestmark = [pytest.mark.real_clock, pytest.mark.skipif(os.name != "posix", reason="the programs are for sh")]


class Actor:
    """A tool, and what it was called with."""

    def __init__(self, **options: Any) -> None:
        self.acted: list[str] = []

        async def act(what: str = "x") -> str:
            self.acted.append(what)
            return "acted"

        self.tool = tool(**options)(act)

    def agent(self, *given: Hook, **options: Any) -> Agent:
        return agent_with(self.tool, response=calls("act", what="x"), hooks=given, name="clerk", **options)


def says(**output: Any) -> str:
    """A program that writes JSON."""
    return f"cat > /dev/null; echo '{json.dumps(output)}'"


def decides(decision: str, reason: str = "", **more: Any) -> str:
    """A program with a verdict on a tool call."""
    specific = {"hookEventName": "PreToolUse", "permissionDecision": decision, "permissionDecisionReason": reason}
    return says(hookSpecificOutput={**specific, **more})


def pre(command: str | list[str], **options: Any) -> Hook:
    return command_hook(hooks.pre_tool_use, command, **{"name": "check", **options})


def only(watched: Watched) -> ToolResult:
    [result] = results(watched)
    return result


def warned(watched: Watched) -> str:
    [warning] = of(watched.events, WarningIssued)
    return warning.message


# ---------------------------------------------------------------------------------- exit codes


async def test_a_program_that_exits_with_0_lets_pass() -> None:
    actor = Actor()

    watched = await watch(actor.agent(pre("exit 0")))

    assert (only(watched).status, warnings_in(watched.events), actor.acted) == ("ok", [], ["x"])


async def test_a_program_that_exits_with_2_blocks_for_what_it_writes_on_standard_error() -> None:
    actor = Actor()

    watched = await watch(actor.agent(pre("echo ignored; echo 'not today' >&2; exit 2")))

    assert (only(watched).text, actor.acted) == ("Denied by a hook: not today", [])


async def test_a_program_that_exits_otherwise_is_a_warning_and_the_run_continues() -> None:
    actor = Actor()

    watched = await watch(actor.agent(pre("echo oops >&2; exit 3")))

    assert warned(watched) == "the pre_tool_use hook 'check': it exited with code 3: oops"
    assert warnings_in(watched.events) == ["hook_warning"]
    assert actor.acted == ["x"]


@pytest.mark.parametrize(
    ("command", "options", "problem"),
    [
        ("exit 3", {"fail_closed": True}, "CommandFailedError: it exited with code 3"),
        ("kill -9 $$", {}, "CommandFailedError: it was ended by SIGKILL"),
        ("sh -c 'kill -9 $$'; exit $?", {}, "CommandFailedError: it exited with code 137, as if ended by SIGKILL"),
        (
            "true | sh -c 'kill -SEGV $$'; exit $?",
            {},
            "CommandFailedError: it exited with code 139, as if ended by SIGSEGV",
        ),
        (["sh", "-c", "exit 130"], {}, "CommandFailedError: it exited with code 130, as if ended by SIGINT"),
        (
            ["/usr/bin/env", "no-such-program"],
            {},
            "CommandFailedError: it exited with code 127, as if its program could not be started",
        ),
        (
            ["sh", "-c", "exit 126"],
            {},
            "CommandFailedError: it exited with code 126, as if its program could not be started",
        ),
        ("./no-such-program", {}, "CommandFailedError: it exited with code 127"),
        (["./no-such-program"], {}, "FileNotFoundError"),
        (["/etc/passwd"], {}, "PermissionError"),
        ("/etc/passwd", {}, "CommandFailedError: it exited with code 126"),
        ("exit 0", {"cwd": "/no/such/folder"}, "FileNotFoundError"),
        ('echo \'{"decision": "perhaps"}\'', {}, "CommandFailedError: it wrote what is no answer: Invalid enum value"),
        ("echo '{'", {}, "CommandFailedError: it wrote what is no answer"),
    ],
    ids=str,
)
async def test_a_guard_whose_program_fails_denies_the_call_and_says_why(
    command: Any, options: dict[str, Any], problem: str
) -> None:
    actor = Actor()

    watched = await watch(actor.agent(pre(command, **options)))

    assert only(watched).status == "denied"
    assert f"the pre_tool_use hook 'check' failed: {problem}" in only(watched).text
    assert actor.acted == []


NO = {"decision": "block", "reason": "no"}

NOT_UNDERSTOOD = [
    # JSON that is no object
    ([NO], "it wrote JSON that is no object"),
    ("deny", "it wrote JSON that is no object"),
    (None, "it wrote JSON that is no object"),
    (False, "it wrote JSON that is no object"),
    ([], "it wrote JSON that is no object"),
    # objects in which nothing is known
    ({"foo": 1}, "none of its fields is known: 'foo'"),
    ({"hookSpecificOutput": {"foo": 1}}, "none of its fields is known: 'foo'"),
    # the spellings of other hosts, and misspelt ones
    ({"hook_specific_output": {"permission_decision": "deny"}}, "did you mean 'hookSpecificOutput'?"),
    ({"hookSpecificOutput": {"permission_decision": "deny"}}, "did you mean 'permissionDecision'?"),
    ({"permissionDecision": "deny"}, "the field 'permissionDecision' counts in hookSpecificOutput only"),
    ({"systemMessage": "x", "permissionDecision": "deny"}, "'permissionDecision' counts in hookSpecificOutput only"),
    ({"updatedInput": {"what": "y"}}, "the field 'updatedInput' counts in hookSpecificOutput only"),
    ({"hookSpecificOutput": {"decision": "deny"}}, "the field 'decision' counts at the top only"),
    ({"permission": "deny", "suppressOutput": True}, "the field 'permission' is no verdict here"),
    ({"systemMessage": "x", "result": "denied"}, "the field 'result' is no verdict here"),
    ({"systemMessage": "x", "allowed": False}, "the field 'allowed' is no verdict here"),
    ({"Decision": "block"}, "there is no field 'Decision': did you mean 'decision'?"),
    ({"decison": "block"}, "there is no field 'decison': did you mean 'decision'?"),
    # wrong types
    ({"decision": {"behavior": "deny"}}, "Expected `str | null`, got `object`"),
    ({"continue": "false"}, "Expected `bool`, got `str`"),
    ({"hookSpecificOutput": None}, "Expected `object`, got `null`"),
    ({"hookSpecificOutput": {"permissionDecision": "denied"}}, "Invalid enum value 'denied'"),
    # what the point cannot do
    (
        {"hookSpecificOutput": {"updatedToolOutput": "x"}},
        "it replaces the result of a call, which no pre_tool_use hook",
    ),
]


@pytest.mark.parametrize(("output", "problem"), NOT_UNDERSTOOD, ids=repr)
async def test_a_guard_whose_program_is_not_understood_denies_the_call(output: object, problem: str) -> None:
    with pytest.raises(CommandFailedError) as caught:
        _output.verdict(hooks.pre_tool_use, None, _output.read(hooks.pre_tool_use, json.dumps(output)))
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        f"echo '[{json.dumps(NO)}]'",
        f"echo '[{json.dumps(NO)}'",
        "echo '{\"foo\": 1}'",
        f"printf '\\357\\273\\277%s' '{json.dumps([NO])}'",
        f"echo '{json.dumps(NO)}'; exit 1",
    ],
    ids=str,
)
async def test_a_call_whose_guard_was_not_understood_does_not_run_and_its_result_names_the_hook(command: str) -> None:
    actor = Actor()

    watched = await watch(actor.agent(pre(command)))

    assert (only(watched).status, actor.acted) == ("denied", [])
    assert "the pre_tool_use hook 'check' failed" in only(watched).text


async def test_a_denial_in_colours_is_a_denial(tmp_path: Path) -> None:
    coloured = json.dumps(NO).replace('"', '\x1b[1;34m"\x1b[0m')
    (tmp_path / "answer").write_text(coloured)

    watched = await watch(Actor().agent(pre("cat answer", cwd=tmp_path)))

    assert only(watched).text == "Denied by a hook: no"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
async def test_a_denial_behind_a_byte_order_mark_is_a_denial(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "answer").write_bytes(json.dumps(NO).encode(encoding))

    watched = await watch(Actor().agent(pre("cat answer", cwd=tmp_path)))

    assert only(watched).text == "Denied by a hook: no"


@pytest.mark.parametrize(
    ("point", "output", "problem"),
    [
        (hooks.user_prompt_submit, {"decision": "ask"}, "it wants a person to be asked"),
        (hooks.before_llm_call, {"hookSpecificOutput": {"updatedInput": {}}}, "it replaces the arguments of a call"),
        (hooks.pre_compact, {"hookSpecificOutput": {"permissionDecision": "ask"}}, "it wants a person to be asked"),
        (hooks.post_tool_use, {"hookSpecificOutput": {"updatedInput": {}}}, "it replaces the arguments of a call"),
        (hooks.user_prompt_submit, ["x"], "JSON that is no object"),
        (hooks.post_tool_use, {"foo": 1}, "none of its fields is known"),
    ],
    ids=repr,
)
def test_the_other_guards_refuse_what_they_cannot_do_or_understand(
    point: Point[Any, Any], output: object, problem: str
) -> None:
    with pytest.raises(CommandFailedError, match=problem):
        _output.verdict(point, None, _output.read(point, json.dumps(output)))


@pytest.mark.parametrize(
    "output",
    [
        "",
        "{}",
        "checked 3 files",
        "[INFO] fine",
        "3",
        '{"systemMessage": "deny nothing"}',
        '{"suppressOutput": true, "metadata": {"took": 3}}',
        '{"hookSpecificOutput": {"hookEventName": "PreToolUse"}}',
        "\ufeff{}",
        'looked at {"decision": "allow"}',
    ],
    ids=str,
)
def test_idle_chatter_lets_pass(output: str) -> None:
    assert _output.verdict(hooks.pre_tool_use, None, _output.read(hooks.pre_tool_use, output)) is None


def test_of_two_verdicts_in_one_answer_the_stricter_counts() -> None:
    allows = {"permissionDecision": "allow"}
    for decision, expected in (("ask", hooks.Ask("")), ("block", Deny("")), ("approve", hooks.Allow())):
        answer = _output.read(hooks.pre_tool_use, json.dumps({"decision": decision, "hookSpecificOutput": allows}))
        assert _output.verdict(hooks.pre_tool_use, None, answer) == expected


@pytest.mark.parametrize(
    "output",
    [
        f"loading\n{json.dumps(NO)}",
        f"loading {json.dumps(NO)}\ndone",
        f"```json\n{json.dumps(NO, indent=2)}\n```",
        'x {"hook_specific_output": {"permission_decision": "deny"}}',
        '{x} \n {"continue": false}'.replace("{x}", "x"),
        "DENY",
        "{ \n".replace("{", "x") * 1000 + json.dumps(NO),
    ],
)
async def test_a_denial_among_other_text_is_a_warning_and_with_fail_closed_a_denial(
    tmp_path: Path, output: str
) -> None:
    (tmp_path / "answer").write_text(output)

    watched = await watch(Actor().agent(pre("cat answer", cwd=tmp_path)))
    closed = await watch(Actor().agent(pre("cat answer", cwd=tmp_path, fail_closed=True)))

    assert (only(watched).status, warnings_in(watched.events)) == ("ok", ["hook_warning"])
    assert "it wrote a denial that is no JSON, or among other text" in warned(watched)
    assert only(closed).status == "denied"


async def test_an_observer_whose_program_fails_is_a_warning() -> None:
    watched = await watch(Actor().agent(command_hook(hooks.turn_end, ["./no-such-program"], name="log")))

    assert set(warnings_in(watched.events)) == {"hook_failed"}
    assert watched.outcome.reason == "completed"


async def test_what_a_program_writes_that_is_no_json_is_ignored_around_a_tool_call() -> None:
    watched = await watch(Actor().agent(pre("echo fine")))

    assert (only(watched).status, warnings_in(watched.events)) == ("ok", [])


# ------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("command", "outcome", "text"),
    [
        (decides("allow"), "ok", "acted"),
        (says(decision="approve"), "ok", "acted"),
        (decides("deny", "no"), "denied", "Denied by a hook: no"),
        (says(decision="block", reason="no"), "denied", "Denied by a hook: no"),
        (says(**{"continue": False, "stopReason": "no more"}), "denied", "Denied by a hook: no more"),
        (decides("ask", "sure?"), "asked", "sure?"),
        (decides("defer"), "asked", ""),
        (says(), "asked", ""),
        (says(systemMessage="hello", suppressOutput=True), "asked", ""),
    ],
    ids=str,
)
async def test_what_the_json_of_a_program_says_of_a_call(command: str, outcome: str, text: str) -> None:
    watched = await watch(Actor(requires_approval=True).agent(pre(command)), on_event=answering(Approve()))

    if outcome == "asked":
        [question] = of(watched.events, ApprovalRequested)
        assert question.reason == text
    else:
        assert (asked(watched.events), only(watched).status, only(watched).text) == ([], outcome, text)


@pytest.mark.parametrize(("decision", "questions"), [("allow", 0), ("ask", 1), ("defer", 1)])
async def test_a_program_may_replace_the_arguments_and_decide_about_those(decision: str, questions: int) -> None:
    actor = Actor(requires_approval=True)

    agent = actor.agent(pre(decides(decision, updatedInput={"what": "y"})))
    watched = await watch(agent, on_event=answering(Approve()))

    assert len(asked(watched.events)) == questions
    assert actor.acted == ["y"]


@pytest.mark.parametrize(
    ("command", "parts", "reason"),
    [
        ("exit 0", ["acted"], "completed"),
        ("echo 'lint is red' >&2; exit 2", ["acted", "lint is red"], "completed"),
        (says(decision="block", reason="lint is red"), ["acted", "lint is red"], "completed"),
        (says(hookSpecificOutput={"additionalContext": "by the way"}), ["acted", "by the way"], "completed"),
        (says(hookSpecificOutput={"updatedToolOutput": "redacted"}), ["redacted"], "completed"),
        (says(hookSpecificOutput={"updatedToolOutput": {"a": 1}}), ['{"a":1}'], "completed"),
        (says(**{"continue": False, "stopReason": "enough"}), ["acted"], "blocked"),
    ],
    ids=str,
)
async def test_what_a_program_says_of_a_result(command: str, parts: list[str], reason: str) -> None:
    watched = await watch(Actor().agent(command_hook(hooks.post_tool_use, command)))

    assert [part.text for part in only(watched).parts if hasattr(part, "text")] == parts
    assert (only(watched).call_id, only(watched).name) == (of(watched.events, ToolCallStarted)[0].call_id, "act")
    assert watched.outcome.reason == reason


SUNDAY = "It is Sunday."


@pytest.mark.parametrize("point", [hooks.user_prompt_submit, hooks.before_llm_call], ids=repr)
@pytest.mark.parametrize(
    "command",
    [
        "echo no >&2; exit 2",
        says(decision="block", reason="no"),
        says(**{"continue": False, "stopReason": "no", "reason": "other"}),
    ],
    ids=str,
)
async def test_a_program_may_end_the_run_before_the_model_is_asked(point: Point[Any, Any], command: str) -> None:
    model = ScriptedModel("Hi.")

    watched = await watch(Agent(model, hooks=[command_hook(point, command)]))

    assert (watched.outcome.reason, watched.outcome.detail, model.requests) == ("blocked", "no", [])


@pytest.mark.parametrize(
    "command", ["echo It is Sunday.", says(hookSpecificOutput={"additionalContext": "It is Sunday."})]
)
@pytest.mark.parametrize("point", [hooks.user_prompt_submit, hooks.session_start, hooks.turn_start], ids=repr)
async def test_a_program_may_add_to_the_prompt_and_to_the_instructions(point: Point[Any, Any], command: str) -> None:
    model = ScriptedModel("Hi.")

    await watch(Agent(model, hooks=[command_hook(point, command)]))

    [request] = model.requests
    told = request.messages[0].text if point is hooks.user_prompt_submit else request.instructions
    assert SUNDAY in told


async def test_a_program_may_send_the_agent_on_once() -> None:
    model = ScriptedModel("First.", "Second.")
    command = """case "$(cat)" in *'"stop_hook_active":false'*) echo 'One more thing.' >&2; exit 2;; esac"""

    watched = await watch(Agent(model, hooks=[command_hook(hooks.stop, command)]))

    assert watched.outcome.output == "Second."
    assert [message.text for message in watched.messages] == ["go", "First.", "One more thing.", "Second."]


@pytest.mark.parametrize("point", [hooks.session_start, hooks.after_llm_call, hooks.session_end], ids=repr)
async def test_to_block_where_nothing_can_be_blocked_is_a_warning(point: Point[Any, Any]) -> None:
    watched = await watch(Actor().agent(command_hook(point, "echo no >&2; exit 2", name="check")))

    assert set(warnings_in(watched.events)) == {"hook_warning"}
    assert "it wants to block what cannot be blocked here: no" in of(watched.events, WarningIssued)[0].message
    assert watched.outcome.reason == "completed"


async def test_a_hook_of_any_kind_may_let_pass_with_a_warning() -> None:
    @hooks.pre_tool_use(name="unsure")
    def unsure(call: hooks.PreToolUse) -> None:
        raise HookWarning("I could not tell")

    actor = Actor()
    watched = await watch(actor.agent(unsure))

    assert (warned(watched), actor.acted) == ("the pre_tool_use hook 'unsure': I could not tell", ["x"])


# --------------------------------------------------------------------------------- what it is told


def handler(**changes: Any) -> dict[str, Any]:
    return {"hooks": [{"type": "command", "command": "x", **changes}]}


def keeping(folder: Path, event: str) -> str:
    """A program that appends what it is told to a file."""
    return f"cat >> {folder}/{event}"


def told(folder: Path, event: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / event).read_text().splitlines()]


async def test_a_program_gets_the_input_of_each_hook_point(tmp_path: Path) -> None:
    settings = {event: [{"hooks": [{"type": "command", "command": keeping(tmp_path, event)}]}] for event in POINTS}
    made = hooks_from_settings({"hooks": settings}, cwd=tmp_path)
    child = Agent(ScriptedModel("Bye."), name="child")
    model = ScriptedModel(calls("act", what="x") + calls("child", prompt="go"), "Done.", fails(ValueError("gone")))
    agent = Agent(model, name="clerk", tools=[Actor(requires_approval=True).tool, child.as_tool()], hooks=made)

    session = Session("s1")
    await watch(agent, "Book it.", session=session, on_event=answering(Approve()))
    await watch(agent, "Again.", session=Session("s2"))

    elsewhere = {"UserSteeringMessagesSubmit", "UserFollowupSubmit", "PreCompact", "PostCompact"}
    elsewhere |= {"OnMaxIterations", "OnSessionResume"}
    events = {event: told(tmp_path, event) for event in POINTS if event not in elsewhere}
    common = {"session_id": "s1", "stream_id": "s1/1", "agent_name": "clerk", "cwd": str(tmp_path)}
    for event, values in events.items():
        assert values[0]["hook_event_name"] == event
        if event != "OnError":
            assert common.items() <= values[0].items(), event
    [call] = [value for value in events["PreToolUse"] if value["tool_name"] == "act"]
    assert (call["tool_input"], bool(call["tool_use_id"])) == ({"what": "x"}, True)
    [result] = [value for value in events["PostToolUse"] if value["tool_name"] == "act"]
    assert result["tool_response"] == {"status": "ok", "content": "acted"}
    assert events["UserPromptSubmit"][0]["prompt"] == events["SessionStart"][0]["prompt"] == "Book it."
    assert events["SessionStart"][0]["source"] == "startup"
    assert [value["turn"] for value in events["TurnStart"]][:2] == [1, 2]
    assert events["BeforeLLMCall"][0]["messages"][0]["type"] == "user"
    assert events["AfterLLMCall"][0]["message"]["type"] == "assistant"
    assert events["Notification"][0]["notification_type"] == "permission_prompt"
    assert events["Notification"][0]["question"]["arguments"] == {"what": "x"}
    assert events["Stop"][0]["stop_hook_active"] is False
    assert events["Stop"][0]["last_assistant_message"] == "Done."
    assert events["SubagentStop"][0]["agent_type"] == "child"
    assert events["SubagentStop"][0]["reason"] == "completed"
    [there, back] = events["OnAgentSwitch"]
    assert (there["from_agent"], there["to_agent"], there["kind"]) == ("clerk", "child", "transfer")
    assert (back["to_agent"], back["kind"]) == ("clerk", "return")
    assert events["TurnEnd"][0]["reason"] == "tool_calls"
    assert [value["reason"] for value in events["SessionEnd"]] == ["completed", "failed"]
    assert "gone" in events["OnError"][0]["error"]["message"]


SOURCE = Source("s1", "s1/1", ("clerk",))
LATER = user_message("Hurry."), user_message("Please.")


async def test_a_program_gets_the_numbers_of_a_limit(tmp_path: Path) -> None:
    for point, value, shown in (
        (hooks.on_max_iterations, hooks.OnMaxIterations(SOURCE, "turns", 3, 2), {"limit": "turns", "used": 3}),
        (hooks.on_session_resume, hooks.OnSessionResume(SOURCE, "turns", 2, 4), {"previous": 2, "allowed": 4}),
    ):
        hook = command_hook(point, keeping(tmp_path, point.name))
        assert await hook.function(value) is None
        [seen] = told(tmp_path, point.name)
        assert shown.items() <= seen.items()


@pytest.mark.parametrize(
    ("point", "value", "shown"),
    [
        (
            hooks.user_steering_messages_submit,
            hooks.UserSteeringMessagesSubmit(SOURCE, LATER),
            {"hook_event_name": "UserSteeringMessagesSubmit", "steering_messages": ["Hurry.", "Please."]},
        ),
        (
            hooks.user_followup_submit,
            hooks.UserFollowupSubmit(SOURCE, LATER[0]),
            {"hook_event_name": "UserFollowupSubmit", "prompt": "Hurry."},
        ),
    ],
    ids=repr,
)
async def test_a_program_gets_the_messages_that_steer_a_running_agent(
    tmp_path: Path, point: Point[Any, Any], value: object, shown: dict[str, Any]
) -> None:
    look = command_hook(point, keeping(tmp_path, "seen"))
    add, refuse = command_hook(point, "echo more"), command_hook(point, "echo no >&2; exit 2")

    verdicts = [await each.function(value) for each in (look, add, refuse)]

    assert verdicts == [None, hooks.Context("more"), hooks.Block("no")]
    [seen] = told(tmp_path, "seen")
    assert shown.items() <= seen.items()


async def test_a_program_gets_the_plain_data_of_other_hook_points(tmp_path: Path) -> None:
    value = hooks.PreCompact(SOURCE, "overflow", 5)
    look = command_hook(hooks.pre_compact, keeping(tmp_path, "seen"))
    refuse = command_hook(hooks.pre_compact, "echo no >&2; exit 2")

    assert [await each.function(value) for each in (look, refuse)] == [None, hooks.Block("no")]
    [seen] = told(tmp_path, "seen")
    assert {"hook_event_name": "PreCompact", "reason": "overflow", "tokens": 5}.items() <= seen.items()


async def test_a_program_finds_its_folder_and_its_environment(tmp_path: Path) -> None:
    command = 'echo "$PWD $CLAUDE_PROJECT_DIR $MINE" > seen'

    await watch(Actor().agent(pre(command, cwd=tmp_path, env={"MINE": "yes"})))

    assert (tmp_path / "seen").read_text() == f"{tmp_path} {tmp_path} yes\n"


async def test_a_program_with_its_arguments_goes_through_no_shell(tmp_path: Path) -> None:
    file = tmp_path / "a; b $(c)"

    await watch(Actor().agent(pre(["touch", str(file)])))

    assert file.exists()


async def test_a_program_that_reads_nothing_does_no_harm() -> None:
    """A pipe holds 64 KiB; the rest is never taken."""
    actor = Actor()
    agent = agent_with(actor.tool, response=calls("act", what="x" * 300_000), hooks=[pre("exec <&-; sleep 0.05")])

    assert only(await watch(agent)).status == "ok"


@pytest.mark.parametrize("size", [100_000, 3_000_000])
async def test_a_program_that_writes_much_is_read_to_its_end_and_truncated(size: int) -> None:
    command = f"head -c {size} /dev/zero | tr '\\0' x; head -c {size} /dev/zero | tr '\\0' y >&2; exit 2"

    text = only(await watch(Actor().agent(pre(command)))).text

    assert text == f"Denied by a hook: {'y' * module.MAX_REASON}"


async def test_an_answer_that_is_too_long_is_no_answer() -> None:
    watched = await watch(Actor().agent(pre("head -c 1000001 /dev/zero")))

    assert f"it wrote more than {module.MAX_BYTES} bytes" in only(watched).text


async def test_a_program_may_write_bytes_that_are_no_text() -> None:
    watched = await watch(Actor().agent(pre("printf 'a\\377b' >&2; exit 2")))

    assert only(watched).text == "Denied by a hook: a\ufffdb"


# ------------------------------------------------------------------------------ nothing is left


def forks(folder: Path) -> str:
    """A program with two more in its group, of which one ignores being asked to end."""
    return f"echo $$ > {folder}/pid; (trap '' TERM; sleep 30) & sleep 30 & echo up > {folder}/up; wait"


def group_lives(pid: int) -> bool:
    """Whether a process of the group lives. A zombie does not: who reaps orphans here is not ours to say."""
    found = Path("/proc")
    if not found.exists():
        try:
            os.killpg(pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True
    for stat in found.glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == pid and fields[0] != "Z":
            return True
    return False


async def is_gone(pid: int) -> None:
    """Return when the group has ended: the kernel takes a moment to carry out a kill."""
    with trio.fail_after(2):
        while group_lives(pid):  # noqa: ASYNC110 - nobody tells us
            await trio.sleep(0.01)


async def is_up(folder: Path) -> int:
    with trio.fail_after(5):
        while not (folder / "up").exists():  # noqa: ASYNC110 - nobody tells us
            await trio.sleep(0.01)
    return int((folder / "pid").read_text())


async def test_a_guard_that_takes_too_long_denies_and_its_process_group_is_gone(tmp_path: Path) -> None:
    actor = Actor()

    watched = await watch(actor.agent(pre(forks(tmp_path), timeout=0.3)))

    assert only(watched).text == "Denied, since the pre_tool_use hook 'check' failed: took longer than 0.3 s."
    await is_gone(await is_up(tmp_path))
    assert actor.acted == []


@pytest.mark.parametrize("depth", [0, 1])
async def test_when_the_block_is_left_the_process_group_of_a_hook_is_gone(tmp_path: Path, depth: int) -> None:
    async with opened(nested(Actor().agent(pre(forks(tmp_path))), depth)) as stream:
        await first(stream, ToolCallStarted)
        pid = await is_up(tmp_path)

    await is_gone(pid)


async def test_a_program_that_will_not_end_is_killed_after_a_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.2)
    command = f"trap '' TERM; echo $$ > {tmp_path}/pid; echo up > {tmp_path}/up; while :; do sleep 0.05; done"

    async with opened(Actor().agent(pre(command))) as stream:
        await first(stream, ToolCallStarted)
        pid = await is_up(tmp_path)
        began = trio.current_time()

    assert trio.current_time() - began >= 0.2
    await is_gone(pid)


async def test_a_program_that_is_asked_to_end_may_clean_up(tmp_path: Path) -> None:
    trap = f"trap 'echo bye > {tmp_path}/bye; exit 0' TERM"
    command = f"{trap}; echo $$ > {tmp_path}/pid; echo up > {tmp_path}/up; sleep 30 & wait"

    async with opened(Actor().agent(pre(command))) as stream:
        await first(stream, ToolCallStarted)
        pid = await is_up(tmp_path)

    await is_gone(pid)
    assert (tmp_path / "bye").read_text() == "bye\n"


async def test_what_a_program_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """It would hold the pipes open, and live on."""
    began = trio.current_time()

    watched = await watch(Actor().agent(pre(f"echo $$ > {tmp_path}/pid; sleep 30 & echo no >&2; exit 2")))

    assert only(watched).text == "Denied by a hook: no"
    assert trio.current_time() - began < 5
    await is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="setsid is a program there")
async def test_a_daemon_that_a_program_has_started_ends_with_it(tmp_path: Path) -> None:
    command = f"setsid sh -c 'echo $$ > {tmp_path}/pid; echo up > {tmp_path}/up; exec sleep 30' &"
    command += f" while [ ! -e {tmp_path}/up ]; do sleep 0.01; done; echo no >&2; exit 2"
    began = trio.current_time()

    watched = await watch(Actor().agent(pre(command)))

    assert only(watched).text == "Denied by a hook: no"
    assert trio.current_time() - began < 5
    await is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="setsid is a program there")
async def test_a_daemon_that_has_cleared_its_environment_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_WORDS", 0.1)
    command = f"setsid env -i sh -c 'echo $$ > {tmp_path}/pid; echo up > {tmp_path}/up; exec sleep 30' &"
    command += f" while [ ! -e {tmp_path}/up ]; do sleep 0.01; done; echo no >&2; exit 2"
    began = trio.current_time()

    watched = await watch(Actor().agent(pre(command)))

    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert only(watched).text == "Denied by a hook: no"
    assert trio.current_time() - began < 5


async def test_a_program_at_the_end_of_a_run_that_was_cancelled_runs_to_its_end(tmp_path: Path) -> None:
    async with opened(Actor().agent(command_hook(hooks.session_end, f"sleep 0.05; cat > {tmp_path}/end"))) as stream:
        await first(stream, ToolCallStarted)

    assert json.loads((tmp_path / "end").read_text())["reason"] == stream.outcome.reason


async def test_a_program_at_the_end_of_a_run_that_hangs_is_given_up(tmp_path: Path) -> None:
    slow = command_hook(hooks.session_end, forks(tmp_path), name="slow")

    watched = await watch(Actor().agent(slow, deadlines=Deadlines(cleanup=0.2)))

    assert warned(watched).startswith("the session_end hook 'slow' failed: took longer than 0.2 s")
    await is_gone(await is_up(tmp_path))


async def test_programs_of_calls_side_by_side_do_not_disturb_each_other() -> None:
    command = """case "$(cat)" in *'"what":"bad"'*) echo no >&2; exit 2;; esac"""
    actor = Actor()
    several = calls("act", what="a") + calls("act", what="bad") + calls("act", what="c")

    watched = await watch(agent_with(actor.tool, response=several, hooks=[pre(command)]))

    assert [result.status for result in results(watched)] == ["ok", "denied", "ok"]
    assert sorted(actor.acted) == ["a", "c"]


# ------------------------------------------------------------------------------------ settings


async def test_settings_name_the_tools_that_a_program_is_for() -> None:
    settings = {
        "PreToolUse": [
            {"matcher": "look|ac*", "hooks": [{"type": "command", "command": "echo no >&2; exit 2", "timeout": 5}]}
        ]
    }
    acted: list[str] = []

    async def look() -> str:
        acted.append("look")
        return "looked"

    async def other() -> str:
        acted.append("other")
        return "other"

    actor = Actor()
    response = calls("act") + calls("look") + calls("other")
    watched = await watch(agent_with(actor.tool, look, other, response=response, hooks=hooks_from_settings(settings)))

    assert [result.status for result in results(watched)] == ["denied", "denied", "ok"]
    assert (acted, actor.acted) == (["other"], [])


async def test_a_command_that_several_groups_name_runs_once_for_a_call(tmp_path: Path) -> None:
    entry = [{"type": "command", "command": f"echo once >> {tmp_path}/log"}]
    groups = [{"matcher": "act", "hooks": [*entry, *entry]}, {"matcher": "*", "hooks": entry}]
    made = hooks_from_settings({"PreToolUse": groups, "PostToolUse": groups[:1]})

    await watch(Actor().agent(*made))

    assert [hook.point for hook in made] == ["pre_tool_use", "post_tool_use"]
    assert (tmp_path / "log").read_text() == "once\nonce\n"


async def test_settings_give_their_programs_an_environment(tmp_path: Path) -> None:
    command = 'echo "$MINE $YOURS" > seen'
    settings = {"env": {"MINE": "file", "YOURS": "file"}, "hooks": {"PreToolUse": [handler(command=command)]}}

    await watch(Actor().agent(*hooks_from_settings(settings, cwd=tmp_path, env={"MINE": "call"})))

    assert (tmp_path / "seen").read_text() == "call file\n"


def test_a_field_of_settings_that_is_off_demands_nothing() -> None:
    off = handler(**{"async": False, "once": False, "statusMessage": "looking"})

    assert len(hooks_from_settings({"disableAllHooks": False, "hooks": {"Stop": [off]}})) == 1


def test_settings_keep_their_order_and_their_timeouts() -> None:
    handlers = [{"type": "command", "command": "one", "timeout": 5}, {"type": "command", "command": "two"}]
    made = hooks_from_settings({"hooks": {"PreToolUse": [{"hooks": handlers}], "Stop": [{"hooks": handlers[:1]}]}})

    assert [(hook.point, hook.name, hook.timeout) for hook in made] == [
        ("pre_tool_use", "one", 5),
        ("pre_tool_use", "two", None),
        ("stop", "one", 5),
    ]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (partial(hooks_from_settings, {"WorktreeCreate": [handler()]}), "there is no hook event 'WorktreeCreate'"),
        (partial(hooks_from_settings, {"PreToolUse": [handler(type="prompt")]}), "these are no hooks: Invalid enum"),
        (partial(hooks_from_settings, {"PreToolUse": handler()}), "these are no hooks: Expected `array`"),
        (partial(hooks_from_settings, ["PreToolUse"]), "these are no hooks"),  # type: ignore[arg-type]
        (partial(hooks_from_settings, {"PreToolUse": [{"matcher": "a.+", **handler()}]}), "matcher 'a.+': give globs"),
        (partial(hooks_from_settings, {"PreToolUse": [{"matcher": "a|", **handler()}]}), "matcher 'a|': give globs"),
        (partial(hooks_from_settings, {"Stop": [{"matcher": "a", **handler()}]}), "matcher 'a' of Stop"),
        (partial(hooks_from_settings, {"Stop": [handler(command=" ")]}), "a command is a line for the shell"),
        (
            partial(hooks_from_settings, {"PreToolUse": [handler(**{"if": "shell(ls)"})]}),
            "'if' in a hook of PreToolUse",
        ),
        (partial(hooks_from_settings, {"PreToolUse": [handler(**{"async": True})]}), "'async' in a hook of PreToolUse"),
        (partial(hooks_from_settings, {"Stop": [handler(timeot=3)]}), "did you mean 'timeout'?"),
        (partial(hooks_from_settings, {"Stop": [{"matchers": "a", **handler()}]}), "did you mean 'matcher'?"),
        (partial(hooks_from_settings, {"hooks": {}, "disableAllHooks": True}), "'disableAllHooks' in the settings"),
        (partial(hooks_from_settings, {"disableAllHooks": True}), "a file that turns its hooks off has none to give"),
        (partial(hooks_from_settings, {"hooks": {}, "permissions": {"deny": []}}), "'permissions' in the settings"),
        (partial(hooks_from_settings, {"hook": {}}), "there is no hook event 'hook'"),
        (partial(hooks_from_settings, {"PretoolUse": [handler()]}), "did you mean 'PreToolUse'?"),
        (partial(hooks_from_settings, {1: [handler()]}), "there is no hook event 1"),  # type: ignore[dict-item]
        (partial(hooks_from_settings, {"Stop": [{1: 2, **handler()}]}), "1 in a group of Stop would not be obeyed"),
        (partial(hooks_from_settings, {"Stop": [None]}), "a group of Stop is an object, not None"),
        (partial(hooks_from_settings, {"hooks": []}), "the hooks of settings are an object, by event"),
        (partial(hooks_from_settings, {"hooks": {}, "env": {"A": 1}}), "the 'env' of settings is an object of texts"),
        (partial(command_hook, hooks.stop, []), "a command is a line for the shell, or a list"),
        (partial(command_hook, hooks.stop, ["a", 7]), "a command is a line for the shell, or a list"),  # type: ignore[list-item]
        (partial(command_hook, hooks.stop, 7), "a command is a line for the shell, or a list"),  # type: ignore[arg-type]
        (partial(command_hook, "stop", "x"), "'stop' is no point"),  # type: ignore[arg-type]
        (partial(command_hook, hooks.stop, "x", tools="a*"), "only those around a tool call have it"),
        (partial(command_hook, hooks.stop, "x", timeout=0), "give seconds above 0"),
    ],
    ids=range(28),
)
def test_what_would_not_be_obeyed_is_refused(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert problem in str(caught.value)


def test_a_hook_is_called_after_its_command() -> None:
    assert command_hook(hooks.stop, "./check.sh --all").name == "./check.sh --all"
    assert command_hook(hooks.stop, [Path("check"), "--all"]).name == "check --all"  # type: ignore[list-item]


def test_events_are_called_as_in_claude_code() -> None:
    names = "SessionStart UserPromptSubmit PreToolUse PostToolUse PreCompact Notification Stop SubagentStop SessionEnd"
    assert {*names.split(), "BeforeLLMCall"} <= {*POINTS}
