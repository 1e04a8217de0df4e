"""Hooks that are programs, by Claude Code's conventions: the event as JSON in, an exit code or JSON out.

::

    agent = Agent(model, hooks=[command_hook(hooks.pre_tool_use, "./check.sh", tools="shell*", timeout=5)])
    agent = Agent(model, hooks=hooks_from_settings(json.loads(Path("settings.json").read_text())["hooks"]))

**In.** One JSON object on standard input: ``session_id``, ``stream_id``, ``agent_name``, ``cwd``, ``hook_event_name``
(``PreToolUse`` for `pre_tool_use`, and so on), and the fields of the point: ``tool_name``, ``tool_input``,
``tool_use_id`` and ``tool_response`` around a tool call, with ``decision``, ``decided_by`` and ``reason`` of an
approval; ``prompt`` or ``steering_messages``; ``turn``; ``message``, ``messages`` or ``last_assistant_message``;
``stop_hook_active``; ``reason``; ``error``; ``question``. A program need not read its input.

**Out.** The exit code is the verdict:

- 0: the program decided. Standard output may be a JSON object, see below; other text is added to the user's message
  (`user_prompt_submit`, `user_steering_messages_submit`, `user_followup_submit`) or to the instructions
  (`session_start`, `turn_start`), and ignored elsewhere.
- 2: blocked, for the reason on standard error: `pre_tool_use` denies the call, `post_tool_use` adds the reason to the
  result, ``stop`` continues the run, and every other point that may `Block` does. Elsewhere it is a warning.
- 126, 127, and 129 to 192: the program could not be started, or was killed, as shells and ``env`` report it: a failure.
- any other: a warning, and the run continues; with ``fail_closed=True``, or with a denial in the output, a failure.

In the JSON object, ``"decision": "block"`` with a ``reason`` equals exit code 2. From ``hookSpecificOutput``,
``permissionDecision`` (``allow``, ``deny``, ``ask``), ``permissionDecisionReason`` and ``updatedInput`` count for
`pre_tool_use`, ``additionalContext`` for prompts, instructions and tool results, and ``updatedToolOutput`` for results.
``"continue": false`` with a ``stopReason`` ends the run where a hook can, and denies the call in `pre_tool_use`.
``{}``, ``systemMessage`` and ``suppressOutput`` let pass. Fields beside a known one are ignored, unless they resemble a
known one or spell a verdict in another host's way.

**Failures.** A program fails if it cannot be started, is killed, times out, writes too much (``MAX_BYTES``), or writes
JSON that is no object, has no known field, has one of a wrong type or in a wrong place, or asks for something that the
point cannot do. A guard then refuses, and an observer emits a warning, as for any other hook. A denial among other text
is a warning; with ``fail_closed=True`` it is a failure.

**Ownership.** The program runs in a session of its own. When it exits, times out or the run is cancelled, all
processes that it started are killed, also those in the background; the program itself has ``GRACE`` seconds to end by
itself. On Linux that includes daemons, unless they have cleared their environment too: a hook runs around each tool
call, and the supervisor that `agentloop.toolkit.shell` has would cost as much as the start of a Python program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from agentloop._sandbox import Sandbox, confine
from agentloop.command_hooks._input import POINTS
from agentloop.command_hooks._output import closest
from agentloop.command_hooks._program import GRACE, MAX_BYTES, CommandFailedError, Path, Program, checked
from agentloop.errors import UsageError
from agentloop.hooks import TOOL_POINTS, Hook, Point

__all__ = ["GRACE", "MAX_BYTES", "CommandFailedError", "command_hook", "hooks_from_settings"]


def command_hook(
    point: Point[Any, Any],
    command: str | Sequence[str],
    *,
    tools: str | Sequence[str] = "*",
    timeout: float | None = None,
    name: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    fail_closed: bool = False,
    children: bool = True,
    sandbox: Sandbox | None = None,
) -> Hook:
    """Make a hook of a program.

    Args:
      point: a point of `agentloop.hooks`, such as ``hooks.pre_tool_use``.
      command: a line for the shell, or a program and its arguments.
      tools: a glob on the tool's name, or several, for the points around a tool call.
      timeout: seconds; ``None`` for the agent's ``Deadlines.hook``.
      name: the hook's name in warnings and refusals; the command by default.
      cwd: the folder that it runs in, also in its variable ``CLAUDE_PROJECT_DIR``; this process's own by default.
      env: variables to add to the environment of this process.
      fail_closed: whether an exit code that is neither 0 nor 2, and a denial among other text, count as a failure, so
        that a guard refuses.
      children: whether it is called for the calls of child streams, too; for the points around a tool call.
      sandbox: what the program may reach, see `agentloop.toolkit.Sandbox`; ``None`` for all that the user may. It still
        has the whole environment. A sandbox that fails later counts as a failure of the program.

    Raises:
      UsageError: an argument has the wrong type or value, or the sandbox cannot be made here.
    """
    given = cast("object", point)
    if not isinstance(given, Point):
        raise UsageError(f"{given!r} is no point: give one of agentloop.hooks, such as hooks.pre_tool_use")
    confinement = None if sandbox is None else confine(sandbox, cwd)
    program = Program(checked(command), cwd, dict(env or {}), fail_closed, confinement)
    options: dict[str, Any] = {"tools": tools, "timeout": timeout, "name": name or program.name, "children": children}
    return point(**options)(program.at(point))


def hooks_from_settings(
    settings: Mapping[str, Any],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    sandbox: Sandbox | None = None,
) -> tuple[Hook, ...]:
    """The hooks of a settings file in the style of Claude Code's.

    ::

        {"hooks": {"PreToolUse": [{"matcher": "shell|write_*", "hooks": [{"type": "command", "command": "./check"}]}]}}

    A command that several groups of an event name runs once for a call that they match, with the timeout of the first.
    As in Claude Code, the hooks around a tool call are called for the calls of sub-agents, too.

    Args:
      settings: the ``hooks`` of the file, or all that ``json.loads`` made of it if it has no other settings than
        ``hooks`` and ``env``, the environment of the programs. A ``matcher`` is one or more globs on the tool's name
        with ``|`` between them; nothing, ``*`` and ``.*`` match every tool.
      cwd, env, sandbox: as for `command_hook`.

    Raises:
      UsageError: there is something in it that would not be obeyed: an event, a matcher, a type of hook, or any field
        that is not known here.
    """
    if not isinstance(cast("object", settings), Mapping):
        raise UsageError(f"these are no hooks: settings are an object, not {settings!r}")
    events: object = settings
    if any(name in _FILE for name in settings):
        _check_fields(
            settings, _FILE, "the settings", "; to take nothing but the hooks of a file, give ['hooks'] of it"
        )
        events, env = settings.get("hooks", {}), {**_environment(settings.get("env", {})), **(env or {})}
    if not isinstance(events, Mapping):
        raise UsageError(f"these are no hooks: the hooks of settings are an object, by event, not {events!r}")
    confinement = None if sandbox is None else confine(sandbox, cwd)
    made: list[Hook] = []
    for event, groups in cast("Mapping[str, object]", events).items():
        point = POINTS.get(event)
        if point is None:
            meant = closest(event, tuple(POINTS))
            raise UsageError(
                f"there is no hook event {event!r}: "
                + (f"did you mean {meant!r}?" if meant else f"there are {', '.join(POINTS)}")
            )
        for handler, globs in _programs(event, groups):
            if globs != ("*",) and point.name not in TOOL_POINTS:
                raise UsageError(f"matcher {'|'.join(globs)!r} of {event}: only those around a tool call have one")
            program = Program(checked(handler.command), cwd, dict(env or {}), False, confinement)
            made.append(point(tools=globs, timeout=handler.timeout, name=program.name)(program.at(point)))
    return tuple(made)


class _Handler(msgspec.Struct):
    type: Literal["command"]
    command: str
    timeout: float | None = None


class _Group(msgspec.Struct):
    hooks: list[_Handler]
    matcher: str = "*"


_FILE = ("hooks", "env", "$schema", "disableAllHooks")
"""Fields of a settings file."""
_HARMLESS = ("statusMessage",)
"""Fields of a handler that only change how a terminal looks meanwhile."""


def _programs(event: str, groups: object) -> list[tuple[_Handler, tuple[str, ...]]]:
    """The handlers of ``event``, each command once, with the globs of all groups that have it."""
    where = f"a group of {event}"
    for group in cast("list[object]", groups) if isinstance(groups, list) else ():
        fields = _check_fields(group, ("matcher", "hooks"), where)
        handlers = fields.get("hooks")
        for handler in cast("list[object]", handlers) if isinstance(handlers, list) else ():
            _check_fields(handler, ("type", "command", "timeout", *_HARMLESS), f"a hook of {event}")
    try:
        converted = msgspec.convert(groups, list[_Group])
    except msgspec.ValidationError as error:
        raise UsageError(f"these are no hooks: {error}, in {event}") from error
    programs: dict[str, tuple[_Handler, tuple[str, ...]]] = {}
    for group in converted:
        globs = _globs(group.matcher)
        for handler in group.hooks:
            first, others = programs.get(handler.command, (handler, ()))
            both = tuple(dict.fromkeys((*others, *globs)))
            programs[handler.command] = first, ("*",) if "*" in both else both
    return list(programs.values())


def _check_fields(fields: object, known: tuple[str, ...], where: str, more: str = "") -> Mapping[str, Any]:
    """``fields``, if they are all ``known``. A field that is off, such as ``"async": false``, demands nothing."""
    if not isinstance(fields, Mapping):
        raise UsageError(f"these are no hooks: {where} is an object, not {fields!r}")
    named = cast("Mapping[str, Any]", fields)
    for name, value in named.items():
        if value is False or (name in known and name != "disableAllHooks"):
            continue
        meant = "" if name in known else closest(name, known)
        instead = f"did you mean {meant!r}?" if meant else f"{where} may have {', '.join(map(repr, known))}"
        if name == "disableAllHooks":
            instead = "a file that turns its hooks off has none to give"
        raise UsageError(f"{name!r} in {where} would not be obeyed: {instead}{more}")
    return named


def _environment(env: object) -> dict[str, str]:
    try:
        return msgspec.convert(env, dict[str, str])
    except msgspec.ValidationError as error:
        raise UsageError(f"the 'env' of settings is an object of texts: {error}") from error


def _globs(matcher: str) -> tuple[str, ...]:
    if matcher in ("", "*", ".*"):
        return ("*",)
    globs = tuple(part.replace(".*", "*") for part in matcher.split("|"))
    for part in globs:
        if not part or not all(character.isalnum() or character in "_-*?" for character in part):
            raise UsageError(f"matcher {matcher!r}: give globs on tool names, with '|' between them")
    return globs
