"""The permissions of a file, as `Permissions`.

A rule is ``tool``, or ``tool:argument=glob``, with further conditions after colons. A rule without an exact
counterpart becomes a stricter one, and is named.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from agentloop.declarative._section import Section
from agentloop.errors import UsageError
from agentloop.permissions import Condition, Glob, Mode, Permissions, Rule

__all__ = ["permissions_of"]

_MODES: dict[str, Mode] = {
    "": "default",
    "balanced": "default",
    "strict": "strict",
    "autonomous": "autonomous",
    "restricted": "plan",
}
"""What docker-agent's modes are called here. ``plan`` runs what only reads, and nothing else, without a question."""

_CONDITION = re.compile(r":(?=[A-Za-z_][A-Za-z0-9_.-]*=)")
_SET = re.compile(r"\[[^\]]*\]")


def permissions_of(top: Section, agent: Section, elsewhere: Collection[str]) -> Permissions | None:
    """The permissions of an agent; ``None`` if the file says nothing about them.

    Args:
      elsewhere: names of tools that other agents of the file have, and this one has not. A rule of the file that names
        one of them is for those agents; here, a run would warn that it matches nothing.

    Raises:
      TeamFileError: a rule is malformed.
    """
    rules = top.section("permissions")
    runtime = top.section("runtime")
    safety = agent.text("safety") or (runtime.text("safety") if runtime is not None else "")
    if rules is None and not safety:
        return None
    if safety == "autonomous" and runtime is not None and runtime.flag("sandbox"):
        # What the file trusts to a sandbox is not run without one.
        safety = "balanced"
    allow = _rules(rules, "allow", elsewhere)
    if safety == "restricted":
        # The agents inside have rules of their own, and obey the outer ones too.
        allow += [Rule("transfer_task"), Rule("handoff")]
    ask, deny = _rules(rules, "ask", elsewhere), _rules(rules, "deny", elsewhere)
    return Permissions(allow=allow, ask=ask, deny=deny, mode=_MODES[safety])


def _rules(section: Section | None, kind: Literal["allow", "ask", "deny"], elsewhere: Collection[str]) -> list[Rule]:
    if section is None:
        return []
    made = [_rule(text, section, kind) for text in section.texts(kind)]
    return [rule for rule in made if rule is not None and rule.tool not in elsewhere]


def _rule(text: str, section: Section, kind: Literal["allow", "ask", "deny"]) -> Rule | None:
    name, *conditions = _CONDITION.split(text.strip())
    tool = _tool_name(name)
    where: dict[str, Condition] = {}
    is_wider = "[" in text
    for condition in conditions:
        argument, _, pattern = condition.partition("=")
        if argument in where:
            is_wider = True
            continue
        where[argument] = Glob(_SET.sub("?", pattern) or "*")
    if is_wider and kind == "allow":
        section.unsupported(
            kind, f"The rule {text!r} allows nothing: sets, and two conditions on one argument, are not read."
        )
        return None
    if is_wider:
        section.unsupported(
            kind,
            f"The rule {text!r} is about more calls: a set stands for any character, and of two conditions on one "
            "argument the first counts.",
        )
    try:
        return Rule(_SET.sub("?", tool), where)
    except UsageError as error:
        raise section.error(f"the rule {text!r}: {error}", kind) from error


def _tool_name(name: str) -> str:
    """The name of a tool of a server: ``mcp:github:get_*`` is ``github_get_*``."""
    return name.removeprefix("mcp:").replace(":", "_") if name.startswith("mcp:") else name
