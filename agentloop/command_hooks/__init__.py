"""Hooks that are programs, by Claude Code's conventions: the event as JSON in, an exit code or JSON out.

::

    agent = Agent(model, hooks=[command_hook(hooks.pre_tool_use, "./check.sh", tools="shell*", timeout=5)])
    agent = Agent(model, hooks=hooks_from_settings(json.loads(Path("settings.json").read_text())))

**In.** One JSON object on standard input: ``session_id``, ``stream_id``, ``agent_name``, ``cwd``, ``hook_event_name``
(``PreToolUse`` for `pre_tool_use`, and so on), and the fields of the point: ``tool_name``, ``tool_input``,
``tool_use_id`` and ``tool_response`` around a tool call; ``prompt`` or ``steering_messages``; ``turn``; ``message``,
``messages`` or ``last_assistant_message``; ``stop_hook_active``; ``reason``; ``error``; ``question``. A program need
not read its input.

**Out.** The exit code is the verdict:

- 0: the program decided. Standard output may be a JSON object, see below; other text is added to the user's message
  (`user_prompt_submit`, `user_steering_messages_submit`, `user_followup_submit`) or to the instructions
  (`session_start`, `turn_start`), and ignored elsewhere.
- 2: blocked, for the reason on standard error: `pre_tool_use` denies the call, `post_tool_use` adds the reason to the
  result, ``stop`` continues the run, and every other point that may `Block` does. Elsewhere it is a warning.
- any other: a warning, and the run continues; with ``fail_closed=True`` it counts as a failure.

In the JSON object, ``"decision": "block"`` with a ``reason`` equals exit code 2. From ``hookSpecificOutput``,
``permissionDecision`` (``allow``, ``deny``, ``ask``), ``permissionDecisionReason`` and ``updatedInput`` count for
`pre_tool_use`, ``additionalContext`` for prompts, instructions and tool results, and ``updatedToolOutput`` for results.
``"continue": false`` with a ``stopReason`` ends the run where a hook can, and denies the call in `pre_tool_use`.

**Failures.** A program fails if it cannot be started, is killed, times out, writes too much (``MAX_BYTES``) or writes
JSON with other fields. A guard then refuses, and an observer emits a warning, as for any other hook.

**Ownership.** The program runs in a session of its own. When it exits, times out or the run is cancelled, all
processes that it started are killed, also those in the background; the program itself has ``GRACE`` seconds to end by
itself. On Linux that includes daemons, unless they have cleared their environment too: a hook runs around each tool
call, and the supervisor that `agentloop.toolkit.shell` has would cost as much as the start of a Python program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from agentloop.command_hooks._input import POINTS
from agentloop.command_hooks._program import GRACE, MAX_BYTES, CommandFailedError, Path, Program, checked
from agentloop.errors import UsageError
from agentloop.hooks import Hook, Point

__all__ = ["GRACE", "MAX_BYTES", "CommandFailedError", "command_hook", "hooks_from_settings"]


def command_hook(
    point: Point[Any, Any],
    command: str | Sequence[str],
    *,
    tools: str = "*",
    timeout: float | None = None,
    name: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    fail_closed: bool = False,
) -> Hook:
    """Make a hook of a program.

    Args:
      point: a point of `agentloop.hooks`, such as ``hooks.pre_tool_use``.
      command: a line for the shell, or a program and its arguments.
      tools: glob on the tool's name, for the points around a tool call.
      timeout: seconds; ``None`` for the agent's ``Deadlines.hook``.
      name: the hook's name in warnings and refusals; the command by default.
      cwd: the folder that it runs in, also in its variable ``CLAUDE_PROJECT_DIR``; this process's own by default.
      env: variables to add to the environment of this process.
      fail_closed: whether an exit code that is neither 0 nor 2 counts as a failure, so that a guard refuses.

    Raises:
      UsageError: an argument has the wrong type or value.
    """
    given = cast("object", point)
    if not isinstance(given, Point):
        raise UsageError(f"{given!r} is no point: give one of agentloop.hooks, such as hooks.pre_tool_use")
    program = Program(checked(command), cwd, dict(env or {}), fail_closed, None)
    return point(tools=tools, timeout=timeout, name=name or program.name)(program.at(point))


def hooks_from_settings(
    settings: Mapping[str, Any], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> tuple[Hook, ...]:
    """The hooks of a settings file in the style of Claude Code's.

    ::

        {"hooks": {"PreToolUse": [{"matcher": "shell|write_*", "hooks": [{"type": "command", "command": "./check"}]}]}}

    Args:
      settings: what ``json.loads`` made of the file, or its ``hooks`` alone. A ``matcher`` is one or more globs on the
        tool's name with ``|`` between them; nothing, ``*`` and ``.*`` match every tool.
      cwd, env: as for `command_hook`.

    Raises:
      UsageError: there is something in it that would not be obeyed: an event, a matcher or a type of hook.
    """
    try:
        events = msgspec.convert(settings.get("hooks", settings), dict[str, list[_Group]])
    except (AttributeError, msgspec.ValidationError) as error:
        raise UsageError(f"these are no hooks: {error}") from error
    made: list[Hook] = []
    for event, groups in events.items():
        point = POINTS.get(event)
        if point is None:
            raise UsageError(f"there is no hook event {event!r}: there are {', '.join(POINTS)}")
        for group in groups:
            globs = _globs(group.matcher)
            if globs != ("*",) and point.name not in ("pre_tool_use", "post_tool_use"):
                raise UsageError(f"matcher {group.matcher!r} of {event}: only those around a tool call have one")
            for one in group.hooks:
                program = Program(checked(one.command), cwd, dict(env or {}), False, globs)
                made.append(point(timeout=one.timeout, name=program.name)(program.at(point)))
    return tuple(made)


class _Handler(msgspec.Struct):
    type: Literal["command"]
    command: str
    timeout: float | None = None


class _Group(msgspec.Struct):
    hooks: list[_Handler]
    matcher: str = "*"


def _globs(matcher: str) -> tuple[str, ...]:
    if matcher in ("", "*", ".*"):
        return ("*",)
    globs = tuple(part.replace(".*", "*") for part in matcher.split("|"))
    for part in globs:
        if not part or not all(character.isalnum() or character in "_-*?" for character in part):
            raise UsageError(f"matcher {matcher!r}: give globs on tool names, with '|' between them")
    return globs
