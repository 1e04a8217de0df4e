"""Which tool calls run by themselves, which ones a person is asked about, and which ones never run.

::

    Permissions(
        allow=["read_*", Rule("shell", {"command": Glob("git status*")})],
        ask=[Rule("write_file", {"path": Under(".github")})],
        deny=["delete_*"],
    )

Give them to an agent (``Agent(permissions=...)``), to a session (``Session(permissions=...)``), or to both. A call is
judged by the first of these that says something:

1. a ``deny`` rule that may match: the call does not run, and nobody is asked;
2. an ``ask`` rule that may match: a person is asked;
3. an ``allow`` rule that certainly matches: the call runs;
4. the mode.

**What a rule matches.** The tool's name, by a glob, and each argument that it has a condition on: `Exact`, `Glob` or
`Under`. Text instead of a `Rule` is a glob on the name alone. In doubt, the stricter side wins: ``deny`` and ``ask``
rules match as soon as they *may*, ``allow`` rules only if they *certainly* do. In a list, an allow rule must match
every item, the others any. An argument that the model leaves out counts as the default in the tool's schema; without
one, no condition on it holds.

**Command lines.** In an ``allow`` rule the wildcards of a `Glob` stand for letters, digits, spaces and ``_-./,:=@+``,
and for nothing else: nothing that a shell obeys or expands. So ``git *`` covers ``git log -3``, but not
``git log; rm -rf /``, nor anything with quotes, pipes, redirections, ``$``, backticks or line breaks, which are asked
about. What the command itself does with its arguments no pattern knows: ``git *`` allows every subcommand and option of
git. A ``deny`` on part of a command line is a courtesy, not a wall, since a shell has many spellings of the same thing.

**The mode** speaks where no rule does. From strict to autonomous, in the words of Claude Code and docker-agent:

- ``plan``: tools that say ``read_only=True`` run, nothing else does;
- ``strict``: everything is asked about;
- ``default``: what the tool says, ``requires_approval=``;
- ``accept_edits``: like ``default``, but tools that say ``read_only=True`` or ``destructive=False`` just run;
- ``autonomous``: nothing is asked about.

**Several at once.** The stricter of the agent's and the session's counts; where one of them leaves it to the tool, the
other decides. The session's hold for everything that runs in it, child streams too. A child stream is judged by the
permissions of its own agent and of all agents around it, and those around it can only make it stricter: what one of
them denies is denied in the child, and what one of them would ask about is asked about, whatever the child's agent
allows. An agent without permissions has no say in its child streams.

**Hooks and answers.** A `pre_tool_use` hook that allows a call speaks for its agent's tool, not against a rule or a
mode. Arguments that a hook replaces are judged again; the strictest judgement counts. A person's approval answers every
reason to ask, but no ``deny``: not even of arguments that the person has put there instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec
from attrs import field, frozen

from agentloop.errors import UsageError

__all__ = ["Condition", "Exact", "Glob", "Grant", "Mode", "Permissions", "Rule", "Under"]

Mode: TypeAlias = Literal["plan", "strict", "default", "accept_edits", "autonomous"]

_LONG = 80


class Exact(msgspec.Struct, frozen=True, tag="exact"):
    """The argument is this very value."""

    value: Any
    """A JSON value. ``true`` is not 1; 1.0 is."""

    def __str__(self) -> str:
        return f"= {_shown(self.value)}"


class Glob(msgspec.Struct, frozen=True, tag="glob", omit_defaults=True):
    """The argument is text like ``pattern``, from its first to its last character.

    ``*`` stands for any number of characters, ``?`` for one; everything else for itself, capitals too.
    """

    pattern: str
    allow_shell_characters: bool = False
    """In an ``allow`` rule, let the wildcards stand for every character. Never for what a shell gets to read."""

    def __post_init__(self) -> None:
        _check_text("a glob", self.pattern)

    def __str__(self) -> str:
        return f"like {_shown(self.pattern)}"


class Under(msgspec.Struct, frozen=True, tag="under"):
    """The argument is the path of ``folder``, or of something in it.

    Paths are compared as they are written: no file is looked at, and no link followed, which is for the tool to
    refuse. So an ``allow`` rule matches no path with ``..``, backslashes or a leading ``~``, and only paths that are
    relative, or absolute, as ``folder`` is. The others match every path with ``..`` or a leading ``~``, in capitals or
    not, and absolute ones with a relative ``folder`` anywhere in them. What a relative path is relative to, no rule
    knows.
    """

    folder: str

    def __post_init__(self) -> None:
        _check_text("a folder", self.folder)
        if ".." in self.folder.split("/") or "\\" in self.folder or self.folder.startswith("~"):
            raise UsageError(f"Under({self.folder!r}): spell the folder out, with '/' and without '..' and '~'")

    def __str__(self) -> str:
        return f"under {_shown(self.folder)}"


Condition: TypeAlias = Exact | Glob | Under


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which calls are meant: ``Rule("shell", {"command": Glob("git *")})``.

    Raises:
      UsageError: the name is empty, or a condition is none.
    """

    tool: str
    """Glob on the tool's name, with ``*`` and ``?``."""
    where: dict[str, Condition] = {}
    """By argument; all must hold."""
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
        told = [f"{name} {condition}" for name, condition in self.where.items()]
        if not self.allow_other_arguments:
            told.append("nothing else")
        return f"{self.tool}({', '.join(told)})" if told else self.tool


class Grant(msgspec.Struct, frozen=True):
    """What a person has allowed for good, in one session: a rule, for one agent."""

    agents: tuple[str, ...]
    """The names of the agents from the root down to the one that may. With those above it: names are seldom unique."""
    rule: Rule


def _rules(given: Iterable[Rule | str]) -> tuple[Rule, ...]:
    if isinstance(given, (str, Rule)) or not isinstance(cast("object", given), Iterable):
        raise UsageError(f"rules come in a list, not as {given!r}: put it in brackets")
    made: list[Rule] = []
    for one in cast("Iterable[object]", given):
        if not isinstance(one, (Rule, str)):
            raise UsageError(f"{one!r} is no rule: give a glob on the tool's name, or a Rule(...)")
        made.append(one if isinstance(one, Rule) else Rule(one))
    return tuple(made)


def _check_mode(instance: object, attribute: object, mode: object) -> None:
    if mode not in get_args(Mode):
        raise UsageError(f"mode={mode!r}: there are {', '.join(map(repr, get_args(Mode)))}")


@frozen
class Permissions:
    """Rules, and a mode for what they leave open. See the module.

    Raises:
      UsageError: something in it is no rule, or the mode is unknown.
    """

    allow: tuple[Rule, ...] = field(default=(), kw_only=True, converter=_rules)
    """Calls that run by themselves. Text is a glob on the tool's name."""
    ask: tuple[Rule, ...] = field(default=(), kw_only=True, converter=_rules)
    """Calls that a person must approve."""
    deny: tuple[Rule, ...] = field(default=(), kw_only=True, converter=_rules)
    """Calls that do not run."""
    mode: Mode = field(default="default", kw_only=True, validator=_check_mode)


def _check_text(what: str, given: object) -> None:
    if not isinstance(given, str) or not given:
        raise UsageError(f"{what} is some text, not {given!r}")


def _shown(value: object) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 4]} ..."
