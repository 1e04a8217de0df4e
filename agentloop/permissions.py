"""Permissions: which tool calls run, which need a person's approval, and which never run.

::

    Permissions(
        allow=["read_*", Rule("shell", {"command": Exact("git status")})],
        ask=[Rule("write_file", {"path": Under(".github")})],
        deny=["delete_*"],
    )

Give them to an agent (``Agent(permissions=...)``), to a session (``Session(permissions=...)``), or to both. The first
of these that applies decides about a call:

1. a ``deny`` rule that may match: the call does not run, and no person is asked;
2. an ``ask`` rule that may match: a person must approve the call;
3. an ``allow`` rule that certainly matches: the call runs;
4. the mode.

**What a rule matches.** The tool's name, by a glob, and each argument that it has a condition on: `Exact`, `Glob` or
`Under`. Text instead of a `Rule` is a glob on the name alone. In doubt, the stricter side wins: ``deny`` and ``ask``
rules match as soon as they *may*, ``allow`` rules only if they *certainly* do. In a list, an allow rule must match
every item, the others any. An argument that the model leaves out counts as the default in the tool's schema; without
one, no condition on it holds.

**Command lines.** In an ``allow`` rule the wildcards of a `Glob` stand for letters, digits, spaces and ``_-./,:=@+``,
and for no other character: no character that a shell interprets or expands. So ``ls *`` covers ``ls -l``, but
not ``ls ; rm -rf /``, nor any line with quotes, pipes, redirections, ``$``, backticks or line breaks; those need
approval. No pattern knows what a command does with its arguments: ``git *`` would allow every subcommand and option of
git, and some of them run other programs. A ``deny`` on part of a command line is a courtesy, not a wall, since a shell
has many spellings of the same thing.

**The mode** decides about calls that no rule matches. From strict to autonomous, in the words of Claude Code and
docker-agent:

- ``plan``: tools with ``read_only=True`` run, no others;
- ``strict``: every call needs approval;
- ``default``: the tool's ``requires_approval=`` decides;
- ``accept_edits``: like ``default``, but tools with ``read_only=True`` or ``destructive=False`` run without approval;
- ``autonomous``: no call needs approval.

**Several at once.** The stricter of the agent's and the session's permissions counts; if one of them leaves the
decision to the tool, the other decides. The session's permissions hold for everything that runs in it, child streams
included. A child stream obeys the permissions of its own agent and of all agents around it. The outer ones only make it
stricter: a call that one of them denies is denied in the child, and a call that one of them asks about needs approval,
whatever the child's agent allows. An agent without permissions does not restrict its child streams.

**Hooks and answers.** A `pre_tool_use` hook that allows a call overrides the tool's ``requires_approval=``, not a rule
or a mode. Arguments that a hook replaces are checked again; the strictest verdict counts. A person's approval satisfies
every reason to ask, but no ``deny``: not even one that matches the arguments that the person supplied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec
from attrs import field, frozen

from agentloop.errors import UsageError

__all__ = ["Condition", "Exact", "Glob", "Grant", "Mode", "Permissions", "Rule", "Under"]

Mode: TypeAlias = Literal["plan", "strict", "default", "accept_edits", "autonomous"]
"""How to decide about calls that no rule matches. The module explains each."""

_LONG = 80


class Exact(msgspec.Struct, frozen=True, tag="exact"):
    """The argument is this very value."""

    value: Any
    """A JSON value. 1.0 equals 1; ``true`` does not."""

    def __str__(self) -> str:
        return f"= {_shown(self.value)}"


class Glob(msgspec.Struct, frozen=True, tag="glob", omit_defaults=True):
    """The argument is text like ``pattern``, from its first to its last character.

    ``*`` stands for any number of characters, ``?`` for one, every other character for itself. Case counts.
    """

    pattern: str
    """The pattern; must not be empty."""
    allow_shell_characters: bool = False
    """Let the wildcards of an ``allow`` rule stand for every character. Never use it for command lines."""

    def __post_init__(self) -> None:
        _check_text("a glob", self.pattern)

    def __str__(self) -> str:
        return f"like {_shown(self.pattern)}"


class Under(msgspec.Struct, frozen=True, tag="under"):
    """The argument is the path of ``folder``, or of a file or folder inside it.

    Paths are compared as text. Rules read no files and follow no links; the tool itself must refuse links that lead
    out. So an ``allow`` rule matches no path with ``..``, backslashes or a leading ``~``, and it matches relative paths
    only if ``folder`` is relative, absolute ones only if ``folder`` is absolute. ``ask`` and ``deny`` rules match every
    path with ``..`` or a leading ``~``, whatever its case, and absolute paths with a relative ``folder`` anywhere in
    them. No rule knows what a relative path is relative to.
    """

    folder: str
    """The folder, with ``/`` as separator."""

    def __post_init__(self) -> None:
        _check_text("a folder", self.folder)
        if ".." in self.folder.split("/") or "\\" in self.folder or self.folder.startswith("~"):
            raise UsageError(f"Under({self.folder!r}): spell the folder out, with '/' and without '..' and '~'")

    def __str__(self) -> str:
        return f"under {_shown(self.folder)}"


Condition: TypeAlias = Exact | Glob | Under
"""A condition on one argument of a call."""


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tool calls that a rule is about: ``Rule("shell", {"command": Glob("ls *")})``.

    Raises:
      UsageError: the name is empty, or a condition is not an `Exact`, a `Glob` or an `Under`.
    """

    tool: str
    """Glob on the tool's name, with ``*`` and ``?``."""
    where: dict[str, Condition] = {}
    """Conditions by argument name; all must hold."""
    allow_other_arguments: bool = True
    """Whether the call may have arguments besides those in ``where``."""

    def __post_init__(self) -> None:
        _check_text("the tool of a rule", self.tool)
        where = cast("object", self.where)
        if not isinstance(where, dict):
            raise UsageError(f"a rule has a dict of conditions, by argument, not {where!r}")
        for name, condition in cast("dict[object, object]", where).items():
            if not isinstance(name, str) or not isinstance(condition, Condition):
                raise UsageError(f"{name!r}: {condition!r} is no condition: give an Exact, a Glob or an Under")

    @classmethod
    def exactly(cls, tool: str, arguments: Mapping[str, Any]) -> Rule:
        """The rule that matches calls of ``tool`` with these arguments and no others."""
        return cls(tool, {name: Exact(value) for name, value in arguments.items()}, allow_other_arguments=False)

    def __str__(self) -> str:
        conditions = [f"{name} {condition}" for name, condition in self.where.items()]
        if not self.allow_other_arguments:
            conditions.append("nothing else")
        return f"{self.tool}({', '.join(conditions)})" if conditions else self.tool


class Grant(msgspec.Struct, frozen=True):
    """A rule that a person has allowed for good, in one session, for the agent that asked."""

    agents: tuple[str, ...]
    """Names of the agents, from the root down to the one that may. The whole path, because names are seldom unique."""
    rule: Rule
    """The calls that are allowed."""
    fingerprint: str = ""
    """Identifies the definition of that agent: its instructions, tools and toolsets. Another agent of the same name, or
    the same one after a change of those, asks again."""


def _rules(rules: Iterable[Rule | str]) -> tuple[Rule, ...]:
    if isinstance(rules, (str, Rule)) or not isinstance(cast("object", rules), Iterable):
        raise UsageError(f"rules come in a list, not as {rules!r}: put it in brackets")
    converted: list[Rule] = []
    for rule in cast("Iterable[object]", rules):
        if not isinstance(rule, (Rule, str)):
            raise UsageError(f"{rule!r} is no rule: give a glob on the tool's name, or a Rule(...)")
        converted.append(rule if isinstance(rule, Rule) else Rule(rule))
    return tuple(converted)


def _check_mode(instance: object, attribute: object, mode: object) -> None:
    if mode not in get_args(Mode):
        raise UsageError(f"mode={mode!r}: there are {', '.join(map(repr, get_args(Mode)))}")


@frozen
class Permissions:
    """Rules, and a mode for the calls that no rule matches. The module's documentation explains them.

    Raises:
      UsageError: an entry is no rule, or the mode is unknown.
    """

    allow: tuple[Rule, ...] = field(default=(), kw_only=True, converter=_rules)
    """Calls that run without approval. Text is a glob on the tool's name."""
    ask: tuple[Rule, ...] = field(default=(), kw_only=True, converter=_rules)
    """Calls that a person must approve."""
    deny: tuple[Rule, ...] = field(default=(), kw_only=True, converter=_rules)
    """Calls that never run."""
    mode: Mode = field(default="default", kw_only=True, validator=_check_mode)
    """The decision about calls that no rule matches."""


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name} is some text, not {value!r}")


def _shown(value: object) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 4]} ..."
