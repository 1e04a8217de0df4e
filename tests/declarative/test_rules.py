"""Permissions and safety of a file: what is allowed, asked and denied, and what has no exact counterpart."""

from __future__ import annotations

import pytest

from agentloop.permissions import Glob, Rule
from tests.declarative.builders import problem, reasons, root_of, team_of


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


def test_a_file_without_rules_leaves_the_decision_to_the_tools() -> None:
    assert root_of("description: d").permissions is None
