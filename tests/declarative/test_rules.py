"""Permissions and safety of a file: what is allowed, asked and denied, and what has no exact counterpart."""

from __future__ import annotations

import pytest

from agentloop.declarative import load_team
from agentloop.events import WarningIssued
from agentloop.permissions import Glob, Rule
from agentloop.testing import ScriptedModel, calls
from tests.declarative.builders import problem, reasons, root_of, team_of
from tests.support import watch


def rules(kind: str, text: str) -> tuple[Rule, ...]:
    permissions = root_of("description: d", f"permissions: {{{kind}: ['{text}']}}").permissions
    assert permissions is not None
    found: tuple[Rule, ...] = getattr(permissions, kind)
    return found


@pytest.mark.parametrize("kind", ["allow", "ask", "deny"])
@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("read_*", Rule("read_*")),
        ("shell:cmd=ls*", Rule("shell", {"cmd": Glob("ls*")})),
        ("shell:cmd=ls*:cwd=.", Rule("shell", {"cmd": Glob("ls*"), "cwd": Glob(".")})),
        ("fetch:url=https://x:8080/*", Rule("fetch", {"url": Glob("https://x:8080/*")})),
        ("mcp:github:get_*", Rule("github_get_*")),
        ("*", Rule("*")),
    ],
)
def test_a_rule_names_a_tool_and_conditions_on_its_arguments(kind: str, text: str, rule: Rule) -> None:
    assert rules(kind, text) == (rule,)


def test_a_rule_without_an_exact_counterpart_becomes_a_stricter_one_and_is_named() -> None:
    assert rules("allow", "shell:cmd=[ab]*") == ()
    assert rules("deny", "shell:cmd=rm*:cmd=*-rf*") == (Rule("shell", {"cmd": Glob("rm*")}),)
    assert rules("ask", "tool_[ab]") == (Rule("tool_?"),)
    team = team_of("description: d", "permissions: {allow: ['shell:cmd=[ab]*'], deny: ['tool_[ab]']}")
    assert {*reasons(team)} == {"permissions.allow", "permissions.deny"}


@pytest.mark.parametrize("text", ["", "no tool", "shell(ls)"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    assert "permissions.allow: the rule" in problem(
        f"agents: {{root: {{model: openai/x}}}}\npermissions: {{allow: ['{text}']}}\n"
    )


@pytest.mark.parametrize(
    ("safety", "mode"),
    [("strict", "strict"), ("balanced", "default"), ("restricted", "plan"), ("autonomous", "autonomous")],
)
def test_a_safety_is_a_mode_of_the_agent_or_of_the_whole_file(safety: str, mode: str) -> None:
    own, whole = root_of(f"safety: {safety}"), root_of("description: d", f"runtime: {{safety: {safety}}}")
    assert own.permissions is not None
    assert whole.permissions is not None
    assert own.permissions.mode == whole.permissions.mode == mode
    other = root_of("safety: strict", f"runtime: {{safety: {safety}}}").permissions
    assert other is not None
    assert other.mode == "strict"


def test_what_a_file_trusts_to_a_sandbox_is_not_run_without_one() -> None:
    team = team_of("safety: autonomous", "runtime: {sandbox: true}")
    assert team.permissions is not None
    assert team.permissions.mode == "default"
    assert [*reasons(team)] == ["runtime.sandbox"]


async def test_a_rule_is_for_the_agents_that_have_the_tool_and_warns_only_if_none_has_it() -> None:
    text = """\
agents:
  root: {model: a/a, sub_agents: [b], toolsets: [{type: think}]}
  b: {model: a/b, toolsets: [{type: shell}, {type: todo}]}
permissions: {allow: ["shell:cmd=ls*", think], deny: [list_todos], ask: [shel]}
"""
    models = {"a/a": ScriptedModel(calls("transfer_task", agent="b", task="x"), "Done."), "a/b": ScriptedModel("Hi.")}
    team = load_team(text, models=models)
    watched = await watch(team)
    [warning] = [event.message for event in watched.events if isinstance(event, WarningIssued)]
    assert "the rule shel of agent 'b'" in warning
    root, child = team.all_agents["root"].permissions, team.all_agents["b"].permissions
    assert root is not None
    assert child is not None
    assert [rule.tool for rule in (*root.allow, *root.deny, *root.ask)] == ["think", "shel"]
    assert [rule.tool for rule in (*child.allow, *child.deny, *child.ask)] == ["shell", "list_todos", "shel"]


def test_a_file_without_rules_leaves_the_decision_to_the_tools() -> None:
    assert root_of("description: d").permissions is None
