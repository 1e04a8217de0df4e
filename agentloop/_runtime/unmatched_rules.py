"""Warn of rules and hooks that name a tool, or an argument, which is not there, as soon as the tools are known.

Such a rule is most likely misspelt, and a guard that never speaks looks like one that has nothing to say. A name with
wildcards is a policy about whatever tools there may be, and no reason to warn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, cast

from agentloop._core.context_window import READ_RESULT
from agentloop._core.permissions import is_like
from agentloop._runtime.run import Run
from agentloop.config import AgentConfig
from agentloop.hooks import TOOL_POINTS
from agentloop.permissions import Permissions, Rule
from agentloop.tools import Tool

__all__ = ["warn_of_unmatched"]


def warn_of_unmatched(run: Run, listed: Mapping[str, Tool]) -> None:
    """Emit a warning for each rule, and each hook, of the run that names something which is not there.

    Args:
      listed: the tools of the run's agent, by name.
    """
    config, session = run.config, run.root.session.permissions if run.parent is None else None
    hooks = [hook for hook in config.hooks if hook.point in TOOL_POINTS and hook.tools != ("*",)]
    if not hooks and config.permissions is None and session is None:
        return
    tools = _Tools(config, listed)
    problems: dict[str, None] = {}
    for owner, permissions in ((f"agent {config.name!r}", config.permissions), ("the session", session)):
        for rule in () if permissions is None else _rules(permissions):
            # A session has rules for whatever agents may run on it: there, only a name that is nearly right is wrong.
            problem = tools.problem_of(rule.tool, only_misspelt=permissions is session) or tools.misfit(rule)
            if problem:
                problems[f"the rule {rule} of {owner} {problem}"] = None
    for hook in hooks:
        for glob in hook.tools:
            if problem := tools.problem_of(glob):
                problems[f"the {hook.point} hook {hook.name!r} of agent {config.name!r} {problem}"] = None
    for text in problems:
        run.warn("rule_matches_nothing", text)


def _rules(permissions: Permissions) -> Iterable[Rule]:
    return (*permissions.deny, *permissions.ask, *permissions.allow)


class _Tools:
    """The tools that rules and hooks of an agent may be about: its own, and those of the agents inside it."""

    def __init__(self, config: AgentConfig, listed: Mapping[str, Tool]) -> None:
        self._tools: dict[str, list[Tool]] = {}
        self._is_complete = True
        """Whether there are no other tools."""
        self._add(listed.values())
        agents: list[AgentConfig] = [config]
        for agent in agents:
            if agent is not config:
                self._add(agent.tools)
                self._is_complete = self._is_complete and not agent.toolsets
            for tool in agent.tools:
                if isinstance(tool.agent, AgentConfig):
                    if all(tool.agent is not other for other in agents):
                        agents.append(tool.agent)
                elif tool.context_name is not None and not _is_ours(tool):
                    # It may open a child stream of any agent.
                    self._is_complete = False

    def _add(self, tools: Iterable[Tool]) -> None:
        for tool in tools:
            self._tools.setdefault(tool.name, []).append(tool)

    def problem_of(self, glob: str, *, only_misspelt: bool = False) -> str:
        """What is wrong with the name of a tool in a rule or a hook; empty if nothing is."""
        if not self._is_complete or "*" in glob or "?" in glob or glob in self._tools or glob == READ_RESULT:
            return ""
        meant = _closest(glob, self._tools)
        if only_misspelt and not meant:
            return ""
        return f"is about a tool {glob!r} that is not there{meant or _among(self._tools)}"

    def misfit(self, rule: Rule) -> str:
        """The argument in ``rule`` that none of its tools has, in words; empty if there is none."""
        tools = [tool for name, those in self._tools.items() if is_like(rule.tool, name) for tool in those]
        if not rule.where or not tools:
            return ""
        arguments: dict[str, None] = {}
        for tool in tools:
            properties: object = tool.arguments.schema.get("properties")
            if not isinstance(properties, Mapping):
                return ""
            arguments.update(dict.fromkeys(cast("Mapping[str, Any]", properties)))
        for name in rule.where:
            if name not in arguments:
                meant = _closest(name, arguments) or _among(arguments)
                return f"has a condition on an argument {name!r} that is not there{meant}"
        return ""


def _is_ours(tool: Tool) -> bool:
    return str(getattr(tool.function, "__module__", "")).startswith("agentloop.")


def _closest(name: str, known: Iterable[str]) -> str:
    folded = {other.casefold(): other for other in known}
    near = get_close_matches(name.casefold(), folded, n=1, cutoff=0.7)
    return f": did you mean {folded[near[0]]!r}?" if near else ""


def _among(known: Iterable[str]) -> str:
    return f": there are {', '.join(map(repr, known))}"[:300] if known else ""
