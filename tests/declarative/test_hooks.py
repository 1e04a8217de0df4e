"""The hooks of a file: docker-agent's programs, with its input and output, and those that are built in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agentloop.declarative import load_team
from agentloop.declarative._table import HOOK_POINTS
from agentloop.events import ApprovalRequested
from agentloop.messages import ToolResult
from agentloop.questions import Deny
from agentloop.testing import ScriptedModel, calls
from tests.declarative.builders import problem, reasons, root_of, team_of
from tests.support import Watched, watch

pytestmark = [pytest.mark.real_clock, pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")]

SHELL = "safety: autonomous, toolsets: [{type: shell}]"


def decline(stream: Any, event: object) -> None:
    if isinstance(event, ApprovalRequested):
        stream.answer(event.id, Deny("not today"))


async def run(tmp_path: Path, hooks: str, *script: Any, agent: str = SHELL) -> tuple[Watched, ScriptedModel]:
    model = ScriptedModel(*(script or (calls("shell", cmd="echo hi", cwd="."), "Done.")))
    team = team_of(f"{agent}, hooks: {hooks}", models=model, folder=tmp_path)
    return await watch(team, on_event=decline), model


def hook(command: str, more: str = "") -> str:
    return f"{{type: command, command: {json.dumps(command)}{more}}}"


def tool_hook(command: str, more: str = "", matcher: str = "shell") -> str:
    return f"[{{matcher: '{matcher}', hooks: [{hook(command, more)}]}}]"


def result_of(watched: Watched) -> ToolResult:
    return next(message for message in watched.messages if isinstance(message, ToolResult))


async def test_a_hook_reads_docker_agents_names(tmp_path: Path) -> None:
    await run(
        tmp_path, f"{{pre_tool_use: {tool_hook('cat > seen.json')}, post_tool_use: {tool_hook('cat > after.json')}}}"
    )
    seen = json.loads(tmp_path.joinpath("seen.json").read_text())
    assert (seen["hook_event_name"], seen["tool_name"], seen["agent_name"]) == ("pre_tool_use", "shell", "root")
    assert seen["tool_input"] == {"cmd": "echo hi", "cwd": "."}
    assert seen["cwd"] == str(tmp_path)
    after = json.loads(tmp_path.joinpath("after.json").read_text())
    assert "hi" in after["tool_response"]
    assert after["tool_error"] is False


@pytest.mark.parametrize("specific", ["hook_specific_output", "hookSpecificOutput"])
async def test_a_patch_of_the_arguments_leaves_the_others(tmp_path: Path, specific: str) -> None:
    name = "updated_input" if specific.islower() else "updatedInput"
    answer = json.dumps({specific: {name: {"cmd": "pwd; echo patched"}, "metadata": {"a": 1}}})
    tmp_path.joinpath("inner").mkdir()
    hooks = f"{{tool_input_transform: {tool_hook(f'echo {json.dumps(answer)}')}}}"
    watched, _ = await run(tmp_path, hooks, calls("shell", cmd="false", cwd="inner"), "Done.")
    assert "inner\npatched" in result_of(watched).text


@pytest.mark.parametrize(
    ("event", "command"),
    [
        ("pre_tool_use", "echo no >&2; exit 2"),
        ("pre_tool_use", 'echo \'{"hook_specific_output": {"permission_decision": "deny"}}\''),
        ("tool_guard", 'echo \'{"decision": "block", "reason": "no"}\''),
        ("pre_tool_use", "exit 1"),
        ("tool_guard", "exit 127"),
    ],
)
async def test_a_guard_refuses_also_by_failing(tmp_path: Path, event: str, command: str) -> None:
    watched, _ = await run(tmp_path, f"{{{event}: {tool_hook(command)}}}")
    assert result_of(watched).status == "denied"


async def test_a_matcher_names_the_tools(tmp_path: Path) -> None:
    for matcher, runs in (("*", True), (".*", True), ("shell|edit_file", True), ("edit_.*", False), ("^shell$", True)):
        watched, _ = await run(tmp_path, f"{{tool_guard: {tool_hook('exit 2', matcher=matcher)}}}")
        assert (result_of(watched).status == "denied") is runs
    assert "give names of tools" in problem(
        "agents: {root: {model: openai/x, hooks: {tool_guard: [{matcher: '[a-z]+', hooks: []}]}}}\n".replace(
            "hooks: []", "hooks: [{type: command, command: x}]"
        )
    )


async def test_a_result_is_transformed(tmp_path: Path) -> None:
    answer = json.dumps({"hook_specific_output": {"updated_tool_response": "[gone]"}})
    watched, _ = await run(tmp_path, f"{{tool_response_transform: {tool_hook(f'echo {json.dumps(answer)}')}}}")
    assert result_of(watched).text == "[gone]"


async def test_a_block_after_a_call_ends_the_run(tmp_path: Path) -> None:
    watched, _ = await run(tmp_path, f"{{post_tool_use: {tool_hook('echo enough >&2; exit 2')}}}")
    assert (watched.outcome.reason, watched.outcome.detail) == ("blocked", "enough")


async def test_a_stop_hook_decides_nothing(tmp_path: Path) -> None:
    watched, _ = await run(tmp_path, f"{{stop: [{hook('cat > stop.json; exit 2')}]}}", "Done.")
    assert watched.outcome.output == "Done."
    assert json.loads(tmp_path.joinpath("stop.json").read_text())["stop_response"] == "Done."


async def test_a_prompt_is_refused_and_context_added(tmp_path: Path) -> None:
    watched, _ = await run(tmp_path, f"{{user_prompt_submit: [{hook('exit 2')}]}}", "Done.")
    assert watched.outcome.reason == "blocked"
    answer = json.dumps({"hook_specific_output": {"additional_context": "Be brief."}})
    _, model = await run(tmp_path, f"{{session_start: [{hook(f'echo {json.dumps(answer)}')}]}}", "Done.")
    assert "Be brief." in model.requests[0].instructions


async def test_a_hook_has_its_variables_and_its_folder(tmp_path: Path) -> None:
    tmp_path.joinpath("inner").mkdir()
    more = ", env: {GREETING: 'Hello $USER'}, working_dir: inner, timeout: 5, name: greeting"
    _, model = await run(tmp_path, f"{{session_start: [{hook('echo $GREETING in $PWD', more)}]}}", "Done.")
    assert f"Hello $USER in {tmp_path}/inner" in model.requests[0].instructions
    [made] = root_of(f"hooks: {{session_start: [{hook('x', more)}]}}").hooks
    assert (made.name, made.timeout) == ("greeting", 5)


@pytest.mark.parametrize("event", [name for name, (point, _, _) in HOOK_POINTS.items() if point])
def test_every_point_that_is_here_gets_its_hooks(event: str) -> None:
    groups = event in ("pre_tool_use", "post_tool_use", "tool_response_transform", "tool_input_transform", "tool_guard")
    hooks = tool_hook("true") if groups else f"[{hook('true')}]"
    [made] = root_of(f"hooks: {{{event}: {hooks}}}").hooks
    assert made.point == HOOK_POINTS[event][0]


@pytest.mark.parametrize("event", [name for name, (point, _, _) in HOOK_POINTS.items() if not point])
def test_every_point_that_is_not_here_is_named(event: str) -> None:
    hooks = tool_hook("true") if event == "permission_request" else f"[{hook('true')}]"
    team = team_of(f"hooks: {{{event}: {hooks}}}")
    assert team.hooks == ()
    assert [*reasons(team)] == [f"agents.root.hooks.{event}"]


# ------------------------------------------------------------------------------------- built in


def builtin(name: str, *args: str) -> str:
    return f"[{{type: builtin, command: {name}, args: {json.dumps(args)}}}]"


async def test_built_in_hooks_add_what_they_are_for(tmp_path: Path) -> None:
    tmp_path.joinpath("NOTES.md").write_text("Read me.")
    hooks = (
        f"{{session_start: {builtin('add_directory_listing')}, "
        f"turn_start: {builtin('add_date')}, user_prompt_submit: {builtin('add_environment_info')}}}"
    )
    _, model = await run(tmp_path, hooks, "Done.")
    assert "NOTES.md" in model.requests[0].instructions
    assert "Today is 20" in model.requests[0].instructions
    assert "Working folder" in model.requests[0].messages[0].text
    for name, text in (("add_user_info", "User: "), ("add_environment_info", "System: ")):
        _, model = await run(tmp_path, f"{{session_start: {builtin(name)}}}", "Done.")
        assert text in model.requests[0].instructions
    _, model = await run(tmp_path, f"{{turn_start: {builtin('add_prompt_files', 'NOTES.md')}}}", "Done.")
    assert "Read me." in model.requests[0].instructions


async def test_git_hooks_add_nothing_outside_of_a_repository(tmp_path: Path) -> None:
    for name in ("add_git_status", "add_git_diff", "add_recent_commits"):
        watched, model = await run(tmp_path, f"{{turn_start: {builtin(name)}}}", "Done.")
        assert watched.outcome.output == "Done."
        assert model.requests[0].instructions == ""


async def test_max_iterations_ends_the_run(tmp_path: Path) -> None:
    script = [calls("shell", cmd=f"echo {n}") for n in range(5)]
    watched, _ = await run(tmp_path, f"{{before_llm_call: {builtin('max_iterations', '2')}}}", *script)
    assert (watched.outcome.reason, watched.outcome.detail) == ("blocked", "the file allows 2 turns")
    for arguments in ((), ("x",), ("0",)):
        hooks = f"{{before_llm_call: {builtin('max_iterations', *arguments)}}}"
        assert "a number as its only argument" in problem(f"agents: {{root: {{model: openai/x, hooks: {hooks}}}}}\n")


@pytest.mark.parametrize("name", ["snapshot", "http_post", "unload"])
def test_a_built_in_hook_that_is_not_here_is_named(name: str) -> None:
    team = team_of(f"hooks: {{turn_start: {builtin(name)}}}")
    assert list(reasons(team).values()) == [f"The hook {name!r} is not built in here."]


GUARDS = [
    "{type: model, model: openai/x, prompt: Is it safe}",
    "{type: evaluator, evaluator: risk, evaluator_policy: {decisions: {a: deny}, min_probability: 0.5, fallback: ask}}",
    "{type: builtin, command: my_guard}",
]


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("event", ["pre_tool_use", "tool_guard"])
async def test_in_the_place_of_a_guard_that_is_not_here_a_person_is_asked(
    tmp_path: Path, event: str, guard: str
) -> None:
    watched, _ = await run(tmp_path, f"{{{event}: [{{matcher: shell, hooks: [{guard}]}}]}}")
    assert any(isinstance(one, ApprovalRequested) for one in watched.events)
    assert result_of(watched).status == "denied"
    team = team_of(f"hooks: {{{event}: [{{matcher: shell, hooks: [{guard}]}}]}}")
    assert "asks a person instead" in str(team.unsupported)


def test_a_hook_without_a_command_is_a_mistake() -> None:
    assert "`command` is missing" in problem("agents: {root: {model: openai/x, hooks: {stop: [{type: command}]}}}\n")


JUDGE = "{type: model, model: judge, schema: pre_tool_use_decision, prompt: 'Tool: {{ .ToolName }}. Deny sudo.'}"


@pytest.mark.parametrize(
    ("verdict", "is_asked", "status"),
    [("allow", False, "ok"), ("ask", True, "denied"), ("deny", False, "denied"), ("perhaps", False, "denied")],
)
@pytest.mark.parametrize("event", ["pre_tool_use", "tool_guard"])
async def test_a_model_decides_about_a_call(
    tmp_path: Path, event: str, verdict: str, is_asked: bool, status: str
) -> None:
    judge = ScriptedModel(json.dumps({"decision": verdict, "reason": "so it is"}), name="judge")
    worker = ScriptedModel(calls("shell", cmd="echo hi"), "Done.")
    file = tmp_path / "team.yaml"
    file.write_text(
        "agents: {root: {model: worker, toolsets: [{type: shell}], "
        f"hooks: {{{event}: [{{matcher: shell, hooks: [{JUDGE}]}}]}}}}}}\n"
    )
    team = load_team(file, models={"worker": worker, "judge": judge})
    watched = await watch(team, on_event=decline)
    assert any(isinstance(one, ApprovalRequested) for one in watched.events) == is_asked
    assert result_of(watched).status == status
    [request] = judge.requests
    assert "Tool: `tool` of the next message. Deny sudo." in request.instructions


def test_a_judge_needs_a_model_and_rules() -> None:
    for missing, given in (("model", "prompt: x"), ("prompt", "model: openai/x")):
        hook = f"{{type: model, schema: pre_tool_use_decision, {given}}}"
        text = f"hooks: {{pre_tool_use: [{{matcher: '*', hooks: [{hook}]}}]}}"
        assert f"`{missing}` is missing" in problem(f"agents: {{root: {{model: openai/x, {text}}}}}\n")


async def test_the_hook_redact_secrets_redacts(tmp_path: Path) -> None:
    script = calls("shell", cmd="echo AKIAIOSFODNN7EXAMPLE"), "Done."
    watched, model = await run(tmp_path, f"{{before_llm_call: {builtin('redact_secrets')}}}", *script)
    assert watched.outcome.reason == "completed"
    assert "AKIA" not in repr(model.requests)
    assert "[secret:1:" in result_of(watched).text


async def test_the_person_who_is_asked_sees_the_metadata_of_a_program(tmp_path: Path) -> None:
    answer = {"hook_specific_output": {"permission_decision": "ask", "metadata": {"risk": "high"}}}
    program = tmp_path / "answer.json"
    program.write_text(json.dumps(answer))
    hook = f"{{type: command, command: 'cat {program}'}}"
    watched, _ = await run(tmp_path, f"{{pre_tool_use: [{{matcher: shell, hooks: [{hook}]}}]}}")
    [asked] = [one for one in watched.events if isinstance(one, ApprovalRequested)]
    assert asked.metadata["risk"] == "high"
