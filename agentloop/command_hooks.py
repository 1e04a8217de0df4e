"""Hooks that are programs, by the conventions of Claude Code's: what happens as JSON in, an exit code or JSON out.

::

    agent = Agent(model, hooks=[command_hook(hooks.pre_tool_use, "./check.sh", tools="shell*", timeout=5)])
    agent = Agent(model, hooks=hooks_from_settings(json.loads(Path("settings.json").read_text())))

**In.** One JSON object on standard input: ``session_id``, ``stream_id``, ``agent_name``, ``cwd``, ``hook_event_name``
(``PreToolUse`` for `pre_tool_use`, and so on), and what the point is about: ``tool_name``, ``tool_input``,
``tool_use_id`` and ``tool_response`` around a tool call; ``prompt`` or ``steering_messages``; ``turn``; ``message``,
``messages`` or ``last_assistant_message``; ``stop_hook_active``; ``reason``; ``error``; ``question``. A program need
not read it.

**Out.** The exit code says what became of it:

- 0: all is well. Standard output may be a JSON object, see below; other text is added to what the user says
  (`user_prompt_submit`, `user_steering_messages_submit`, `user_followup_submit`) or to the instructions
  (`session_start`, `turn_start`), and ignored elsewhere.
- 2: blocked, for the reason on standard error: `pre_tool_use` denies the call, `post_tool_use` tells the model, `stop`
  sends it on, and every other point that may return a `Block` returns one. Elsewhere it is a warning.
- any other: a warning, and the run goes on; with ``fail_closed=True`` it counts as a failure.

In the JSON object, ``"decision": "block"`` with a ``reason`` does what exit code 2 does. Of ``hookSpecificOutput``,
``permissionDecision`` (``allow``, ``deny``, ``ask``), ``permissionDecisionReason`` and ``updatedInput`` count for
`pre_tool_use`, ``additionalContext`` for prompts, instructions and tool results, and ``updatedToolOutput`` for results.
``"continue": false`` with a ``stopReason`` ends the run where a hook can, and denies the call in `pre_tool_use`.

**Failures.** A program that cannot be started, is killed, takes too long, says too much (`MAX_BYTES`) or writes JSON
that is none of the above has failed: a guard then refuses, and an observer is a warning, as for any other hook.

**What is owned.** The program runs in a process group of its own. When it exits, is given up or the run is cancelled,
whatever is left of the group is killed, the program itself after `GRACE` seconds to end by itself; then it is waited
for. A process that leaves the group, as a daemon does, escapes.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias, cast

import msgspec
import trio
from attrs import frozen

from agentloop import hooks
from agentloop.errors import UsageError
from agentloop.events import ApprovalRequested, ContinueRequested, Question
from agentloop.hooks import Hook, HookWarning, Point
from agentloop.messages import Text, ToolResult
from agentloop.questions import Deny
from agentloop.wire import encode_event, encode_messages

__all__ = ["GRACE", "MAX_BYTES", "CommandFailedError", "command_hook", "hooks_from_settings"]

GRACE = 2.0
"""Seconds that a program gets to end by itself, once it is not wanted any more, before it is killed."""
MAX_BYTES = 1_000_000
"""How much of each of its outputs is read; the rest is thrown away."""
KILL_SECONDS = 5.0
"""How long to wait for a program that was killed. One that sits in the kernel, on a dead network disk, may not end."""
LAST_WORDS = 1.0
"""Seconds to read what a program has written, once it has exited. A daemon of its may hold the pipe open for ever."""
MAX_REASON = 10_000
"""Characters of its standard error that are told."""

Path: TypeAlias = str | os.PathLike[str]


class CommandFailedError(Exception):
    """The program of a hook could not say what it had to say."""


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
    """A hook at ``point`` that is a program.

    Args:
      point: of `agentloop.hooks`, such as ``hooks.pre_tool_use``.
      command: a line for the shell, or a program and its arguments.
      tools: glob on the tool's name, for the points around a tool call.
      timeout: seconds; ``None`` for the agent's ``Deadlines.hook``.
      name: what warnings and refusals call it; the command by default.
      cwd: the folder it starts in; that of this process by default. It finds it as ``CLAUDE_PROJECT_DIR``, too.
      env: added to the environment of this process.
      fail_closed: whether an exit code that is neither 0 nor 2 counts as a failure, so that a guard refuses.

    Raises:
      UsageError: one of them is not what it should be.
    """
    given = cast("object", point)
    if not isinstance(given, Point):
        raise UsageError(f"{given!r} is no point: give one of agentloop.hooks, such as hooks.pre_tool_use")
    program = _Program(_checked(command), cwd, dict(env or {}), fail_closed, None)
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
        point = _POINTS.get(event)
        if point is None:
            raise UsageError(f"there is no hook event {event!r}: there are {', '.join(_POINTS)}")
        for group in groups:
            globs = _globs(group.matcher)
            if globs != ("*",) and point.name not in ("pre_tool_use", "post_tool_use"):
                raise UsageError(f"matcher {group.matcher!r} of {event}: only those around a tool call have one")
            for one in group.hooks:
                program = _Program(_checked(one.command), cwd, dict(env or {}), False, globs)
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


def _checked(command: object) -> str | tuple[str, ...]:
    if isinstance(command, str) and command.strip():
        return command
    if isinstance(command, Sequence) and not isinstance(command, (str, bytes)):
        several = tuple(cast("Sequence[object]", command))
        if several and all(isinstance(part, (str, os.PathLike)) for part in several):
            return tuple(os.fspath(cast("Path", part)) for part in several)
    raise UsageError(f"a command is a line for the shell, or a list of a program and its arguments, not {command!r}")


# ----------------------------------------------------------------------------------------- in


def _event(name: str) -> str:
    """What Claude Code calls a point: ``PreToolUse`` for ``pre_tool_use``."""
    return "".join("LLM" if word == "llm" else word.capitalize() for word in name.split("_"))


_POINTS: dict[str, Point[Any, Any]] = {
    _event(point.name): point for point in vars(hooks).values() if isinstance(point, Point)
}


def _told(value: Any) -> dict[str, Any]:
    """What is particular to the point."""
    match value:
        case hooks.SessionStart():
            return {"source": "startup", "prompt": value.prompt.text}
        case hooks.UserPromptSubmit() | hooks.UserFollowupSubmit():
            return {"prompt": value.prompt.text}
        case hooks.UserSteeringMessagesSubmit(messages=messages):
            return {"steering_messages": [message.text for message in messages]}
        case hooks.BeforeLLMCall():
            return {"turn": value.turn, "messages": msgspec.Raw(encode_messages(list(value.request.messages)))}
        case hooks.AfterLLMCall():
            return {"turn": value.turn, "message": value.message}
        case hooks.PreToolUse():
            return _call(value)
        case hooks.PostToolUse(result=result):
            return {**_call(value), "tool_response": {"status": result.status, "content": result.text}}
        case hooks.Notification(question=question):
            return {**_in_words(question), "question": msgspec.Raw(encode_event(question))}
        case hooks.OnError(error=error):
            return {"error": {"type": type(error).__name__, "message": str(error)}}
        case hooks.Stopping():
            return {"stop_hook_active": value.sent_on > 0, "last_assistant_message": value.message.text}
        case hooks.SubagentStop(child=child):
            return {"agent_id": child.stream, "agent_type": child.agents[-1], "reason": value.reason}
        case _:
            # Such as ``turn`` and ``reason``: all that is plain data as it is.
            return {name: getattr(value, name) for name in value.__struct_fields__ if name != "source"}


def _call(value: hooks.PreToolUse | hooks.PostToolUse) -> dict[str, Any]:
    return {"tool_name": value.name, "tool_input": value.arguments, "tool_use_id": value.call_id}


def _in_words(question: Question) -> dict[str, str]:
    match question:
        case ApprovalRequested(name=name):
            return {"notification_type": "permission_prompt", "message": f"May {name} be called?"}
        case ContinueRequested(limit=limit):
            return {"notification_type": "limit_reached", "message": f"The limit of {limit} is reached."}
        case _:
            return {"notification_type": "elicitation_dialog", "message": question.message}


# ---------------------------------------------------------------------------------------- out


class _Specific(msgspec.Struct, rename="camel"):
    permission_decision: Literal["allow", "deny", "ask", "defer"] | None = None
    permission_decision_reason: str | None = None
    updated_input: dict[str, Any] | None = None
    additional_context: str | None = None
    updated_tool_output: Any = None


class _Output(msgspec.Struct, rename="camel"):
    decision: Literal["approve", "allow", "block", "deny", "ask"] | None = None
    """``allow``, ``deny`` and ``ask`` are docker-agent's, ``approve`` and ``block`` Claude Code's."""
    reason: str | None = None
    going_on: bool = msgspec.field(name="continue", default=True)
    stop_reason: str | None = None
    hook_specific_output: _Specific = msgspec.field(default_factory=_Specific)

    @property
    def blocks(self) -> bool:
        return self.decision in ("block", "deny") or self.hook_specific_output.permission_decision == "deny"

    @property
    def why(self) -> str:
        return self.hook_specific_output.permission_decision_reason or self.reason or ""


def _read(point: Point[Any, Any], stdout: str) -> _Output:
    """What a program that exited with 0 has said.

    Raises:
      CommandFailedError: it is meant to be JSON, and cannot be obeyed.
    """
    stdout = stdout.strip()
    if not stdout.startswith("{"):
        return _Output(
            hook_specific_output=_Specific(additional_context=stdout if hooks.Context in point.verdicts else None)
        )
    try:
        return msgspec.json.decode(stdout, type=_Output)
    except msgspec.DecodeError as error:
        raise CommandFailedError(f"it wrote what is no answer: {error}: {stdout[:200]}") from error


def _verdict(point: Point[Any, Any], value: Any, output: _Output) -> Any:
    """The verdict that ``output`` stands for.

    Raises:
      HookWarning: there is nothing to block at this point.
    """
    more = output.hook_specific_output
    stops, blocks = not output.going_on, output.blocks
    why = (output.stop_reason or output.why) if stops else output.why
    match point.name:
        case "pre_tool_use":
            return Deny(why) if stops or blocks else _permission(output, more)
        case "post_tool_use":
            return hooks.Block(why) if stops else _result(value.result, more, why if blocks else "")
        case "stop" if blocks and not stops:
            return hooks.SendOn(why or "Go on.")
        case _ if not (stops or blocks):
            adds = hooks.Context in point.verdicts and more.additional_context
            return hooks.Context(more.additional_context or "") if adds else None
        case _ if hooks.Block in point.verdicts:
            return hooks.Block(why)
        case _:
            raise HookWarning(f"it wants to block what cannot be blocked here: {why}")


def _permission(output: _Output, more: _Specific) -> Any:
    verdict: hooks.Allow | hooks.Ask | None = None
    match more.permission_decision or output.decision:
        case "allow" | "approve":
            verdict = hooks.Allow()
        case "ask":
            verdict = hooks.Ask(output.why)
        case _:
            pass
    return verdict if more.updated_input is None else hooks.ReplaceArguments(more.updated_input, verdict)


def _result(result: ToolResult, more: _Specific, why: str) -> hooks.ReplaceResult | None:
    parts = result.parts
    if more.updated_tool_output is not None:
        new = more.updated_tool_output
        parts = (Text(new if isinstance(new, str) else msgspec.json.encode(new).decode()),)
    parts = (*parts, *(Text(text) for text in (why, more.additional_context) if text))
    return None if parts == result.parts else hooks.ReplaceResult(ToolResult("", "", parts, result.status))


# ------------------------------------------------------------------------------- the program


class _Spoken:
    """One output of a program, as far as it is kept."""

    __slots__ = ("data", "too_long")

    def __init__(self) -> None:
        self.data = bytearray()
        self.too_long = False

    async def listen(self, pipe: trio.abc.ReceiveStream) -> None:
        # On to the end, also of what is not kept: else the program would wait for us.
        while piece := await pipe.receive_some():
            room = MAX_BYTES - len(self.data)
            self.data += piece[:room]
            self.too_long = self.too_long or len(piece) > room

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")


@frozen
class _Program:
    command: str | tuple[str, ...]
    cwd: Path | None
    env: dict[str, str]
    fail_closed: bool
    globs: tuple[str, ...] | None
    """On the tool's name, beside the hook's own."""

    @property
    def name(self) -> str:
        return self.command if isinstance(self.command, str) else " ".join(self.command)

    def at(self, point: Point[Any, Any]) -> Callable[[Any], Any]:
        """The function of a hook at ``point``."""

        async def hook(value: Any) -> Any:
            if self._concerns(value):
                return await self._ask(point, value)
            await trio.lowlevel.checkpoint()
            return None

        return hook

    def _concerns(self, value: Any) -> bool:
        if self.globs is None or not isinstance(value, (hooks.PreToolUse, hooks.PostToolUse)):
            return True
        return any(fnmatchcase(value.name, glob) for glob in self.globs)

    async def _ask(self, point: Point[Any, Any], value: Any) -> Any:
        code, out, said = await self._run(self._input(point, value))
        told = said.text.strip()[:MAX_REASON]
        if code == 2:
            return _verdict(point, value, _Output("block", told))
        if code != 0:
            problem = _exit(code) + (f": {told}" if told else "")
            # 126 and 127 are the shell's: the program was not started. A guard that is not there must not let pass.
            if self.fail_closed or code < 0 or (isinstance(self.command, str) and code in (126, 127)):
                raise CommandFailedError(problem)
            raise HookWarning(problem)
        if out.too_long:
            raise CommandFailedError(f"it wrote more than {MAX_BYTES} bytes")
        return _verdict(point, value, _read(point, out.text))

    def _input(self, point: Point[Any, Any], value: Any) -> bytes:
        told = {
            "session_id": value.source.session,
            "stream_id": value.source.stream,
            "agent_name": value.source.agents[-1],
            "cwd": self._folder(),
            "hook_event_name": _event(point.name),
            **_told(value),
        }
        return msgspec.json.encode(told) + b"\n"

    def _folder(self) -> str:
        return os.path.abspath(self.cwd or os.curdir)  # noqa: PTH100  # no file is looked at

    async def _run(self, data: bytes) -> tuple[int, _Spoken, _Spoken]:
        """Run the program to its end, whatever happens, and that of its process group.

        Returns:
          Its exit code, negative for a signal, and what it has written on its two outputs.

        Raises:
          OSError: it cannot be started.
        """
        process = await trio.lowlevel.open_process(
            self.command,
            shell=isinstance(self.command, str),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.cwd,
            env={**os.environ, "CLAUDE_PROJECT_DIR": self._folder(), **self.env},
            start_new_session=True,
        )
        # No checkpoint from here to the `try`: a cancel would leave the program running.
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        out, said = _Spoken(), _Spoken()
        code, ended = -signal.SIGKILL, False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_feed, process.stdin, data)
                nursery.start_soon(out.listen, process.stdout)
                nursery.start_soon(said.listen, process.stderr)
                await _exited(process)
                # What it has started, and left behind, would hold the pipes open.
                _signal_group(process, signal.SIGKILL)
                ended = True
                nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS
        finally:
            with trio.CancelScope(shield=True):
                if not ended:
                    await _end(process)
                with trio.move_on_after(KILL_SECONDS):
                    code = await process.wait()
                for pipe in (process.stdin, process.stdout, process.stderr):
                    await pipe.aclose()
        return code, out, said


async def _feed(pipe: trio.abc.SendStream, data: bytes) -> None:
    # A program that does not read to the end does not want to.
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await pipe.send_all(data)
    await pipe.aclose()


async def _exited(process: trio.Process) -> None:
    """Wait until ``process`` has exited. It is not reaped yet, where that can be helped.

    Until it is, nobody else can get its number, which is that of its group: a signal to the group would hit them.
    """
    if not hasattr(os, "pidfd_open"):
        await process.wait()
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def _end(process: trio.Process) -> None:
    """End ``process`` and its group. Call it shielded."""
    with trio.move_on_after(GRACE):
        _signal_group(process, signal.SIGTERM)
        await _exited(process)
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: trio.Process, number: int) -> None:
    if not hasattr(os, "killpg"):
        process.send_signal(number)
        return
    # macOS refuses where there are only zombies.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _exit(code: int) -> str:
    if code >= 0:
        return f"it exited with code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"
