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
`Under`. Text instead of a `Rule` is a glob on the name alone. A rule that can match nothing is refused, and a run warns
(code ``rule_matches_nothing``) of one that names a tool or an argument which is not there. An argument that the model
leaves out counts as the default in the tool's schema; without one, it may be null, and no other condition on it holds.

In doubt, the stricter side wins: ``allow`` rules match only if they *certainly* do, ``deny`` and ``ask`` rules as soon
as they *may*. In a list, an allow rule must match every item. A deny or an ask rule matches any item of a list, any
name or value in an object, and the JSON text of both; numbers and booleans as they are, and as the text that stands for
them; and both Unicode spellings of a character with an accent.

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
- ``safe``: tools with ``read_only=True`` run, unless their ``requires_approval=`` asks; all other calls need approval;
- ``safer``: like ``safe``, and calls that the tool's ``assess=`` calls harmless run, though the tool requires approval.
  `agentloop.toolkit.shell` knows many commands that only read, and asks about all others;
- ``accept_edits``: like ``default``, but tools with ``read_only=True`` or ``destructive=False`` run without approval;
- ``autonomous``: no call needs approval.

**Several at once.** The stricter of the agent's and the session's permissions counts; if one of them leaves the
decision to the tool, the other decides. The session's permissions hold for everything that runs in it, child streams
included, and a stored session keeps them: a call that it denies is denied in the next process, too. A child stream
obeys the permissions of its own agent and of all agents around it. The outer ones only make it stricter: a call that
one of them denies is denied in the child, and a call that one of them asks about needs approval, whatever the child's
agent allows. An agent without permissions does not restrict its child streams.

**Hooks and answers.** A `pre_tool_use` hook that allows a call overrides the tool's ``requires_approval=``, not a rule
or a mode. Arguments that a hook replaces are checked again; the strictest verdict counts. A person's approval satisfies
every reason to ask, but no ``deny``: not even one that matches the arguments that the person supplied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec
from attrs import field, frozen

from agentloop._core.json_text import decode_own
from agentloop.errors import UsageError
from agentloop.safety import SafetyLevel

__all__ = ["Condition", "Exact", "Glob", "Grant", "Mode", "Permissions", "Rule", "Under", "check_tool_glob"]

Mode: TypeAlias = Literal["plan", "strict", "safe", "safer", "default", "accept_edits", "autonomous"]
"""How to decide about calls that no rule matches. The module explains each."""

_LONG = 80


class Exact(msgspec.Struct, frozen=True, tag="exact"):
    """The argument is this very value.

    In an ``ask`` or a ``deny`` rule also: text that stands for it (``"1"``, ``"true"``), or a list that has it.
    """

    value: Any
    """A JSON value. 1.0 equals 1; ``true`` does not."""

    def __post_init__(self) -> None:
        try:
            problem = _no_json(self.value)
            # As the session's store will give it back: a list for a tuple, plain text for a subclass.
            plain: object = None if problem else decode_own(msgspec.json.encode(self.value), Any)
        except (RecursionError, msgspec.DecodeError) as error:
            raise UsageError("Exact.value is nested too deeply: no argument can be equal to it") from error
        if problem:
            raise UsageError(f"Exact.value is a JSON value, and {problem} is none: no argument can be equal to it")
        msgspec.structs.force_setattr(self, "value", plain)

    def __str__(self) -> str:
        return f"= {_shown(self.value)}"


class Glob(msgspec.Struct, frozen=True, tag="glob", omit_defaults=True):
    """The argument is text like ``pattern``, from its first to its last character.

    In an ``ask`` or a ``deny`` rule, every value counts as the text that stands for it: ``4711`` is like ``47*``.

    ``*`` stands for any number of characters, ``?`` for one, every other character for itself. Case counts.
    """

    pattern: str
    """The pattern; must not be empty."""
    allow_shell_characters: bool = False
    """Let the wildcards of an ``allow`` rule stand for every character. Never use it for command lines."""

    def __post_init__(self) -> None:
        _check_text("Glob.pattern", self.pattern)
        _check_bool("Glob.allow_shell_characters", self.allow_shell_characters)

    def __str__(self) -> str:
        return f"like {_shown(self.pattern)}"


class Under(msgspec.Struct, frozen=True, tag="under"):
    """The argument is the path of ``folder``, or of a file or folder inside it.

    Paths are compared as text. Rules read no files and follow no links; the tool itself must refuse links that lead
    out. So an ``allow`` rule matches no path with ``..``, backslashes or a leading ``~``, and it matches relative paths
    only if ``folder`` is relative, absolute ones only if ``folder`` is absolute.

    ``ask`` and ``deny`` rules match every path with ``..``, or with a leading ``~``, ``$`` or ``%``, which may lead
    anywhere. They match all that some file system may take for the same: other capitals, backslashes, the other Unicode
    spelling of an accent, spaces around the path, dots and spaces after a name, a drive letter, ``file://``. They match
    absolute paths with a relative ``folder`` anywhere in them, and relative paths that begin as an absolute ``folder``
    ends: ``secret/a`` may be in ``/srv/secret``. No rule knows the folder that other relative paths are relative to.
    """

    folder: str
    """The folder, with ``/`` as separator."""

    def __post_init__(self) -> None:
        _check_text("Under.folder", self.folder)
        if "*" in self.folder or "?" in self.folder:
            raise UsageError(
                f"Under({self.folder!r}): Under.folder is a folder, and covers all inside; for a pattern give a Glob"
            )
        if ".." in self.folder.split("/") or "\\" in self.folder or self.folder.startswith("~"):
            raise UsageError(f"Under({self.folder!r}): spell the folder out, with '/' and without '..' and '~'")

    def __str__(self) -> str:
        return f"under {_shown(self.folder)}"


Condition: TypeAlias = Exact | Glob | Under
"""A condition on one argument of a call."""


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tool calls that a rule is about: ``Rule("shell", {"command": Glob("ls *")})``.

    Raises:
      UsageError: no tool can have such a name, or a condition is not an `Exact`, a `Glob` or an `Under`.
    """

    tool: str
    """Glob on the tool's name: letters, digits, ``_`` and ``-``, as in names, and ``*`` and ``?``."""
    where: dict[str, Condition] = {}
    """Conditions by argument name; all must hold."""
    allow_other_arguments: bool = True
    """Whether the call may have arguments besides those in ``where``."""

    def __post_init__(self) -> None:
        check_tool_glob("Rule.tool", self.tool)
        where = cast("object", self.where)
        if not isinstance(where, dict):
            raise UsageError(f"Rule.where is a dict of conditions, by argument, not {_described(where)}")
        for name, condition in cast("dict[object, object]", where).items():
            _check_text("the argument of a condition in Rule.where", name)
            if not isinstance(condition, Condition):
                raise UsageError(
                    f"Rule.where: {name!r}: {_described(condition)} is no condition: give an Exact, a Glob or an Under"
                )
        _check_bool("Rule.allow_other_arguments", self.allow_other_arguments)

    @classmethod
    def exactly(cls, tool: str, arguments: Mapping[str, Any]) -> Rule:
        """The rule that matches calls of ``tool`` with these arguments and no others."""
        return cls(tool, {name: Exact(value) for name, value in arguments.items()}, allow_other_arguments=False)

    def __str__(self) -> str:
        conditions = [f"{name} {condition}" for name, condition in self.where.items()]
        if not self.allow_other_arguments:
            conditions.append("nothing else")
        return f"{self.tool}({', '.join(conditions)})" if conditions else self.tool


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person has allowed for good, in one session, for the agent that asked: a rule, or a level of safety."""

    agents: tuple[str, ...]
    """Names of the agents, from the root down to the one that may. The whole path, because names are seldom unique."""
    rule: Rule
    """The calls that are allowed; with a ``level``, the call that the person was asked about, which is not covered."""
    fingerprint: str = ""
    """Identifies the definition of that agent: its instructions, tools and toolsets. Another agent of the same name, or
    the same one after a change of those, asks again."""
    level: SafetyLevel | None = None
    """The calls that are allowed instead of those of ``rule``: those that the mode of this name runs."""

    def __post_init__(self) -> None:
        if not isinstance(cast("object", self.agents), tuple) or not self.agents:
            raise UsageError(f"Grant.agents is a tuple of names, not {_described(self.agents)}")
        for name in self.agents:
            _check_text("a name in Grant.agents", name)
        if not isinstance(cast("object", self.rule), Rule):
            raise UsageError(f"Grant.rule is a Rule, not {_described(self.rule)}")


def _rules(name: str, rules: Iterable[Rule | str]) -> tuple[Rule, ...]:
    field_name = f"Permissions.{name}"
    listed = cast("object", rules)
    if isinstance(listed, (str, bytes, Rule, Mapping)) or not isinstance(listed, Iterable):
        raise UsageError(f"{field_name} is a list of rules, not {_described(rules)}: put it in brackets")
    converted: list[Rule] = []
    for rule in cast("Iterable[object]", listed):
        if not isinstance(rule, (Rule, str)):
            raise UsageError(
                f"{field_name}: {_described(rule)} is no rule: give a glob on the tool's name, or a Rule(...)"
            )
        converted.append(rule if isinstance(rule, Rule) else Rule(rule))
    return tuple(converted)


def _check_mode(instance: object, attribute: object, mode: object) -> None:
    if not isinstance(mode, str) or mode not in get_args(Mode):
        modes = ", ".join(map(repr, get_args(Mode)))
        raise UsageError(f"Permissions.mode={_described(mode)}: there are {modes}")


def _allow(rules: Iterable[Rule | str]) -> tuple[Rule, ...]:
    return _rules("allow", rules)


def _ask(rules: Iterable[Rule | str]) -> tuple[Rule, ...]:
    return _rules("ask", rules)


def _deny(rules: Iterable[Rule | str]) -> tuple[Rule, ...]:
    return _rules("deny", rules)


@frozen
class Permissions:
    """Rules, and a mode for the calls that no rule matches. The module's documentation explains them.

    Raises:
      UsageError: an entry is no rule, or the mode is unknown.
    """

    allow: tuple[Rule, ...] = field(default=(), kw_only=True, converter=_allow)
    """Calls that run without approval. Text is a glob on the tool's name."""
    ask: tuple[Rule, ...] = field(default=(), kw_only=True, converter=_ask)
    """Calls that a person must approve."""
    deny: tuple[Rule, ...] = field(default=(), kw_only=True, converter=_deny)
    """Calls that never run."""
    mode: Mode = field(default="default", kw_only=True, validator=_check_mode)
    """The decision about calls that no rule matches."""


# ---------------------------------------------------------------------------- the checks

LONGEST_NAME = 64
"""Characters of a tool's name."""

_TOOL_GLOB = re.compile(r"[a-zA-Z0-9_*?-]+")


def check_tool_glob(name: str, glob: object) -> None:
    """Check a glob on tools' names, called ``name`` in the error: some tool must be able to have such a name."""
    _check_text(name, glob)
    assert isinstance(glob, str)
    if not _TOOL_GLOB.fullmatch(glob):
        raise UsageError(
            f"{name}={glob!r} matches no tool: names are letters, digits, '_' and '-', and globs have '*' and '?' too"
            f"{_advice(glob)}"
        )
    if len(glob.replace("*", "")) > LONGEST_NAME:
        raise UsageError(f"{name}={glob!r} matches no tool: names have {LONGEST_NAME} characters at most")


def _advice(glob: str) -> str:
    condition = re.fullmatch(r"\s*([\w*?-]+)\s*(?:\((.*)\)|:(?:(\w+)=)?(.*))\s*", glob, re.DOTALL)
    if condition is not None:
        tool, inside, argument, pattern = condition.groups()
        return (
            f"; for a condition give Rule({tool!r}, {{{argument or 'argument'!r}: Glob({inside or pattern or '*'!r})}})"
        )
    parts = [part.strip() for part in re.split(r"[|,]", glob)]
    if len(parts) > 1 and all(map(_TOOL_GLOB.fullmatch, parts)):
        return f"; give one for each: {', '.join(map(repr, parts))}"
    plain = re.sub(r"\.\*", "*", glob.strip().strip("^$"))
    return f"; did you mean {plain!r}?" if _TOOL_GLOB.fullmatch(plain) else ""


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name} is some text, not {_described(value)}")
    if _is_torn(value):
        raise UsageError(f"{name} is {value!r}, which has half a character: no argument of a call can have that")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{name} is True or False, not {_described(value)}")


def _no_json(value: object) -> str:
    """The part of ``value`` that is no JSON, in words; empty if there is none."""
    if isinstance(value, str):
        return repr(value) if _is_torn(value) else ""
    if value is None or isinstance(value, (bool, int)):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else repr(value)
    if isinstance(value, (list, tuple)):
        return _first(map(_no_json, cast("Sequence[object]", value)))
    if isinstance(value, dict):
        members = cast("dict[object, object]", value)
        names = (_described(name) for name in members if not isinstance(name, str))
        return _first((*names, *map(_no_json, members), *map(_no_json, members.values())))
    return _described(value)


def _first(problems: Iterable[str]) -> str:
    return next((problem for problem in problems if problem), "")


def _is_torn(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _described(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - it may be anything
        return f"a {type(value).__name__}"


def _shown(value: object) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 4]} ..."
