"""The hooks of a file: programs with docker-agent's input and output, and the hooks that it has built in.

A guard that cannot be run here must not let pass what it would refuse. In its place stands a hook that asks a person.
"""

from __future__ import annotations

import datetime as dt
import getpass
import os
import platform
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import msgspec
from attrs import frozen

from agentloop import hooks
from agentloop._core.json_text import decode_json, is_object
from agentloop.command_hooks._output import Answer
from agentloop.command_hooks._program import Program, checked
from agentloop.declarative._section import Context, Section
from agentloop.declarative._table import HOOK_POINTS, TOOL_POINTS
from agentloop.hooks import BeforeLLMCall, Block, Hook, Point
from agentloop.judges import judge
from agentloop.models import Model
from agentloop.toolkit import project_files
from agentloop.tools import Toolset

__all__ = ["date_hook", "environment_hook", "hooks_of", "redacts"]

GUARDS = ("pre_tool_use", "tool_guard")
"""The points whose failures refuse, in docker-agent too."""
MAX_ENTRIES = 100

_POINTS: dict[str, Point[Any, Any]] = {point.name: point for point in vars(hooks).values() if isinstance(point, Point)}
_CONTEXT = hooks.Context


FindModel: TypeAlias = Callable[[str, Section, str], Model | str]
"""Finds the model that a field of a section names."""


def hooks_of(agent: Section, find_model: FindModel) -> tuple[list[Hook], list[Toolset]]:
    """The hooks of an agent, and the toolsets that stand for some of the built-in ones.

    Raises:
      TeamFileError: a hook is malformed.
    """
    section = agent.section("hooks")
    made: list[Hook] = []
    toolsets: list[Toolset] = []
    for event in section.names if section is not None else ():
        assert section is not None
        name = HOOK_POINTS[event][0]
        if not name:
            continue
        for globs, hook in _each(section, event):
            one = _made(event, _POINTS[name], globs, hook, find_model)
            if isinstance(one, Hook):
                made.append(one)
            elif one is not None:
                toolsets.append(one)
    return made, toolsets


def _each(section: Section, event: str) -> list[tuple[tuple[str, ...], Section]]:
    if event not in TOOL_POINTS:
        return [(("*",), hook) for hook in section.sections(event)]
    return [(_globs(group), hook) for group in section.sections(event) for hook in group.sections("hooks")]


def _globs(group: Section) -> tuple[str, ...]:
    matcher = group.text("matcher", "*").strip()
    if matcher in ("", "*", ".*"):
        return ("*",)
    parts = re.sub(r"^\^|\$$", "", matcher).removeprefix("(").removesuffix(")").split("|")
    globs = tuple(part.removeprefix("^").removesuffix("$").replace(".*", "*") for part in parts)
    for part in globs:
        if not re.fullmatch(r"[A-Za-z0-9_*-]+", part):
            raise group.error("give names of tools, with `|` between them, and `.*` for any letters", "matcher")
    return globs


def _made(
    event: str, point: Point[Any, Any], globs: tuple[str, ...], hook: Section, find_model: FindModel
) -> Hook | Toolset | None:
    kind = hook.text("type")
    if kind in ("command", "builtin") and "command" not in hook:
        raise hook.error("`command` is missing")
    options: dict[str, Any] = {}
    if event in TOOL_POINTS:
        # As in docker-agent, an agent's hooks are about its own calls.
        options = {"tools": globs, "children": False}
    if "timeout" in hook:
        options["timeout"] = float(hook.number("timeout"))
    if kind == "model" and event in GUARDS and hook.text("schema") == _DECISION:
        return _judge(event, point, hook, options, find_model)
    for name in _OF_A_JUDGE:
        if name in hook:
            hook.unsupported(name, "Only a hook of type model that decides about a call has it.")
    if kind == "command":
        return _command(event, point, hook, options)
    if kind == "builtin" and event not in GUARDS:
        return _builtin(event, point, hook, options)
    reason = f"A hook of type {kind} is not run" if kind != "builtin" else f"{hook.text('command')!r} is not run"
    if event in GUARDS and hook.text("command") not in _HARMLESS:
        hook.unsupported("type", f"{reason}: each call that it is about asks a person instead.")
        return point(name=hook.text("name") or event, **options)(_ask)
    hook.unsupported("type", f"{reason} here.")
    return None


async def _ask(call: hooks.PreToolUse) -> hooks.Ask:  # noqa: ASYNC124 - a plain function would run in a thread
    return hooks.Ask("the file has a guard for this call that is not run here")


# ------------------------------------------------------------------------------------------ models

_OF_A_JUDGE = ("model", "prompt", "schema", "system_prompt")
_DECISION = "pre_tool_use_decision"
"""The schema of a model that allows, asks or denies."""
_TEMPLATE = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_READ_AS = {".ToolName": "`tool` of the next message", ".ToolInput": "`arguments` of the next message"}
"""What a judge reads in place of docker-agent's templates: it gets the call as data of its own, and not among its
rules, where the text of a call could pass for one."""


def _judge(event: str, point: Point[Any, Any], hook: Section, options: dict[str, Any], find_model: FindModel) -> Hook:
    for name in ("model", "prompt"):
        if not hook.text(name).strip():
            raise hook.error(f"`{name}` is missing: a hook of type model asks one")

    def read_as(template: re.Match[str]) -> str:
        value = template.group(1).partition("|")[0].strip()
        if value not in _READ_AS:
            hook.unsupported("prompt", f"{template.group()!r} is read as it stands: no template is filled in.")
        return _READ_AS.get(value, template.group())

    rules = _TEMPLATE.sub(read_as, hook.text("prompt"))
    if "system_prompt" in hook:
        rules = f"{hook.text('system_prompt')}\n\n{rules}"
    return judge(
        find_model(hook.text("model"), hook, "model"),
        rules,
        at=point,
        approves=True,
        may_ask=True,
        name=hook.text("name") or event,
        tools=options["tools"],
        children=options["children"],
        timeout=options.get("timeout", 60.0),
    )


# ---------------------------------------------------------------------------------------- programs


def _command(event: str, point: Point[Any, Any], hook: Section, options: dict[str, Any]) -> Hook:
    context = hook.context
    folder = hook.file("working_dir", base=context.folder) if "working_dir" in hook else context.folder
    fails_closed = event in GUARDS or hook.text("on_error") == "block"
    program = _Program(checked(hook.text("command")), folder, hook.fields("env", bare=False), fails_closed, None, event)
    return point(name=hook.text("name") or event, **options)(program.at(point))


_CAMEL = {
    "hook_specific_output": "hookSpecificOutput",
    "stop_reason": "stopReason",
    "system_message": "systemMessage",
    "suppress_output": "suppressOutput",
}
_CAMEL_INSIDE = {
    "hook_event_name": "hookEventName",
    "permission_decision": "permissionDecision",
    "permission_decision_reason": "permissionDecisionReason",
    "updated_input": "updatedInput",
    "additional_context": "additionalContext",
    "updated_tool_response": "updatedToolOutput",
    "updatedToolResponse": "updatedToolOutput",
}


@frozen
class _Program(Program):
    """A program that reads and writes what docker-agent's hooks do."""

    event: str = ""
    """docker-agent's name of the point."""

    def message(self, point: Point[Any, Any], value: Any) -> dict[str, Any]:
        message = {**super().message(point, value), "hook_event_name": self.event}
        match value:
            case hooks.PostToolUse(result=result):
                message |= {"tool_response": result.text, "tool_error": result.status != "ok"}
            case hooks.AfterLLMCall(message=answer) | hooks.StopRequested(message=answer):
                message |= {"stop_response": answer.text}
            case hooks.OnToolApprovalDecision(decision=decision, by=by):
                message |= {"approval_decision": decision, "approval_source": by}
            case _:
                pass
        return message

    def answer(self, point: Point[Any, Any], value: Any, text: str) -> Answer:
        answer = super().answer(point, value, _in_camel_case(text, value))
        if answer.blocks and self.event == "stop":
            # Nothing is to be stopped any more; here, it would send the model on.
            return Answer()
        if answer.decision in ("block", "deny") and self.event == "post_tool_use":
            return self.refusal(point, answer.why)
        return answer

    def refusal(self, point: Point[Any, Any], reason: str) -> Answer:
        if self.event == "post_tool_use":
            return Answer(going_on=False, stop_reason=reason)
        return Answer() if self.event == "stop" else super().refusal(point, reason)


def _in_camel_case(text: str, value: Any) -> str:
    """The JSON that a program wrote, with the names of fields that are read here."""
    try:
        fields = decode_json(text.strip(), dict[str, Any])
    except (msgspec.DecodeError, UnicodeError):
        return text
    renamed = {_CAMEL.get(name, name): inner for name, inner in fields.items()}
    specific = renamed.get("hookSpecificOutput")
    if is_object(specific):
        inside = {_CAMEL_INSIDE.get(name, name): inner for name, inner in specific.items()}
        if is_object(inside.get("updatedInput")) and isinstance(value, hooks.PreToolUse):
            # A patch: the other arguments stay.
            inside["updatedInput"] = {**value.arguments, **inside["updatedInput"]}
        renamed["hookSpecificOutput"] = inside
    return msgspec.json.encode(renamed).decode()


# ----------------------------------------------------------------------------------- built-in hooks

_REDACT = "redact_secrets"
_HARMLESS = ("limit_large_tool_results", "safer_shell", _REDACT)
"""Built-in hooks that do here what is done in any case, or for the agent as a whole: see `redacts`."""


def redacts(agent: Section) -> bool:
    """Whether secrets are redacted: by the agent's flag, or by the hook that docker-agent has for it."""
    section = agent.section("hooks")
    return bool(agent.flag("redact_secrets")) or any(
        hook.text("type") == "builtin" and hook.text("command").strip() == _REDACT
        for event in (section.names if section is not None else ())
        for _, hook in _each(cast("Section", section), event)
    )


def _builtin(event: str, point: Point[Any, Any], hook: Section, options: dict[str, Any]) -> Hook | Toolset | None:
    name, arguments = hook.text("command").strip(), hook.texts("args")
    if name in _HARMLESS:
        return None
    if name == "add_prompt_files":
        names = [argument for argument in arguments if not argument.startswith("--")]
        return project_files(*names, folder=hook.context.folder) if names else None
    if name == "max_iterations":
        return _at_most(arguments, hook, event)
    make = _CONTEXTS.get(name)
    if make is None or hooks.Context not in point.verdicts:
        why = "is not built in here" if make is None else f"adds nothing at {event}"
        hook.unsupported("command", f"The hook {name!r} {why}.")
        return None
    return point(name=name, **options)(make(hook.context, arguments, point))


def _at_most(arguments: list[str], hook: Section, event: str) -> Hook:
    if len(arguments) != 1 or not re.fullmatch(r"[1-9][0-9]{0,8}", arguments[0]) or event != "before_llm_call":
        raise hook.error("max_iterations is a hook of `before_llm_call`, with a number as its only argument", "args")
    most = int(arguments[0])

    async def stop(call: BeforeLLMCall) -> Block | None:  # noqa: ASYNC124 - a plain function would run in a thread
        return Block(f"the file allows {most} turns") if call.purpose == "turn" and call.turn > most else None

    return hooks.before_llm_call(name="max_iterations")(stop)


def date_hook() -> Hook:
    """The hook of ``add_date``."""
    return hooks.session_start(name="add_date")(_date)


def environment_hook(context: Context) -> Hook:
    """The hook of ``add_environment_info``."""
    return hooks.session_start(name="add_environment_info")(_environment(context, [], hooks.session_start))


async def _date(value: Any) -> hooks.Context:  # noqa: ASYNC124 - a plain function would run in a thread
    return _CONTEXT(f"Today is {dt.datetime.now().astimezone().date().isoformat()}.")


_Make = Callable[[Context, Sequence[str], Point[Any, Any]], Callable[[Any], Any]]


def _environment(context: Context, arguments: Sequence[str], point: Point[Any, Any]) -> Callable[[Any], Any]:
    def add(value: Any) -> hooks.Context:
        folder = context.folder
        is_repository = any(
            os.path.exists(os.path.join(place, ".git"))  # noqa: PTH110, PTH118 - the folder may be gone
            for place in _upwards(folder)
        )
        return _CONTEXT(
            f"Working folder: {folder}\nGit repository: {'yes' if is_repository else 'no'}\n"
            f"System: {platform.system()} {platform.machine()}"
        )

    return add


def _upwards(folder: str) -> list[str]:
    places = [folder]
    while os.path.dirname(places[-1]) != places[-1]:  # noqa: PTH120
        places.append(os.path.dirname(places[-1]))  # noqa: PTH120
    return places


def _listing(context: Context, arguments: Sequence[str], point: Point[Any, Any]) -> Callable[[Any], Any]:
    def add(value: Any) -> hooks.Context | None:
        try:
            names = sorted(name for name in os.listdir(context.folder) if not name.startswith("."))  # noqa: PTH208
        except OSError:
            return None
        more = [f"... and {len(names) - MAX_ENTRIES} more"] if len(names) > MAX_ENTRIES else []
        shown = [name.encode("utf-8", "backslashreplace").decode() for name in names[:MAX_ENTRIES]]
        return _CONTEXT("\n".join([f"In {context.folder}:", *shown, *more]))

    return add


def _user(context: Context, arguments: Sequence[str], point: Point[Any, Any]) -> Callable[[Any], Any]:
    def add(value: Any) -> hooks.Context | None:
        try:
            return _CONTEXT(f"User: {getpass.getuser()} at {socket.gethostname()}")
        except (OSError, KeyError):
            return None

    return add


def _git(line: Callable[[Sequence[str]], str]) -> _Make:
    def make(context: Context, arguments: Sequence[str], point: Point[Any, Any]) -> Callable[[Any], Any]:
        # Outside of a repository, and without git, it adds nothing.
        command = f"{line(arguments)} 2>/dev/null | head -c 4096"
        return Program(command, context.folder, {"GIT_OPTIONAL_LOCKS": "0"}, False).at(point)

    return make


def _count(arguments: Sequence[str]) -> str:
    return next((one for one in arguments if re.fullmatch(r"[1-9][0-9]{0,4}", one)), "10")


_CONTEXTS: dict[str, _Make] = {
    "add_date": lambda context, arguments, point: _date,
    "add_environment_info": _environment,
    "add_directory_listing": _listing,
    "add_user_info": _user,
    "add_git_status": _git(lambda arguments: "git status --short --branch"),
    "add_git_diff": _git(lambda arguments: "git diff" if "full" in arguments else "git diff --stat"),
    "add_recent_commits": _git(lambda arguments: f"git log --oneline -n {_count(arguments)}"),
}
"""The built-in hooks that add a text for the model."""
