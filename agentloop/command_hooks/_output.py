"""Read the output of a hook's program: its JSON, and the verdict that it stands for.

A guard that is not understood must not let pass. So JSON that is no object, that has no known field, or that spells a
verdict in another way than Claude Code does, is a failure of the program and no idle chatter.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, Literal, cast

import msgspec

from agentloop import hooks
from agentloop._core.json_text import decode_json
from agentloop.hooks import HookWarning, Point
from agentloop.messages import Text, ToolResult
from agentloop.questions import Deny

__all__ = ["Answer", "CommandFailedError", "closest", "denies", "read", "verdict"]


class CommandFailedError(Exception):
    """The hook's program failed, so its verdict is unknown."""


class _Specific(msgspec.Struct, rename="camel"):
    permission_decision: Literal["allow", "deny", "ask", "defer"] | None = None
    permission_decision_reason: str | None = None
    metadata: dict[str, Any] = {}
    """For the person who is asked; docker-agent's field."""
    updated_input: dict[str, Any] | None = None
    additional_context: str | None = None
    updated_tool_output: Any = None


class Answer(msgspec.Struct, rename="camel"):
    """The JSON that a program may write."""

    decision: Literal["approve", "allow", "block", "deny", "ask"] | None = None
    """``allow``, ``deny`` and ``ask`` are docker-agent's, ``approve`` and ``block`` Claude Code's."""
    reason: str | None = None
    going_on: bool = msgspec.field(name="continue", default=True)
    stop_reason: str | None = None
    hook_specific_output: _Specific = msgspec.field(default_factory=_Specific)

    @property
    def blocks(self) -> bool:
        """Whether it wants to block, in one of the ways there are."""
        return self.decision in ("block", "deny") or self.hook_specific_output.permission_decision == "deny"

    @property
    def asks(self) -> bool:
        """Whether it wants a person to decide."""
        return "ask" in (self.decision, self.hook_specific_output.permission_decision)

    @property
    def why(self) -> str:
        """The reason for the decision; empty if it gives none."""
        return self.hook_specific_output.permission_decision_reason or self.reason or ""


# ---------------------------------------------------------------------------- reading

SHOWN = 200
"""Characters of an output that an error quotes."""

MAX_SEARCHED = 100_000
"""Characters of a text, the last ones, that are searched for a denial."""
MAX_OBJECTS = 100
"""Lines of them, the last ones, whose first brace may begin it."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

_TOP = ("continue", "stopReason", "suppressOutput", "systemMessage", "decision", "reason", "hookSpecificOutput")
_SPECIFIC = (
    "hookEventName",
    "permissionDecision",
    "permissionDecisionReason",
    "updatedInput",
    "additionalContext",
    "updatedToolOutput",
)
_ASIDE = ("metadata",)
"""Fields of it that are no verdict, and may have any meaning elsewhere."""
_VERDICTS = frozenset({"decision", "permissiondecision", "permission", "behavior", "verdict", "action"})
"""Fields that carry a verdict with some host, without case and separators."""
_FLAGS = frozenset({"allow", "allowed", "approve", "approved", "block", "blocked", "deny", "denied"})
"""Fields that are a verdict themselves with some host."""
_DENIALS = frozenset({"block", "blocked", "deny", "denied", "refuse", "refused", "reject", "rejected"})


def read(point: Point[Any, Any], stdout: str) -> Answer:
    """Read the output of a program that exited with 0.

    Raises:
      CommandFailedError: the output looks like JSON and is malformed, a field has the wrong type, or nothing in it is
        known.
      HookWarning: the output is text with a denial somewhere inside.
    """
    # Colours, as `jq -C` gives them, and a byte order mark are no part of the answer.
    text = _COLOURS.sub("", stdout).strip().removeprefix("\ufeff").strip()
    if text.startswith("{"):
        return _answer(text)
    if _is_other_json(text):
        raise CommandFailedError(f"it wrote JSON that is no object: {text[:SHOWN]}")
    if denies(text) or _is_denial(text):
        raise HookWarning(
            "it wrote a denial that is no JSON, or among other text, which counts for nothing: write the JSON alone"
        )
    adds = hooks.Context in point.verdicts
    return Answer(hook_specific_output=_Specific(additional_context=text if adds else None))


def _answer(text: str) -> Answer:
    try:
        fields, answer = decode_json(text, dict[str, Any]), decode_json(text, Answer)
    except msgspec.DecodeError as error:
        raise CommandFailedError(f"it wrote what is no answer: {error}: {text[:SHOWN]}") from error
    problem = _unread(fields, _TOP, _SPECIFIC, "in hookSpecificOutput")
    if not problem and "hookSpecificOutput" in fields:
        problem = _unread(fields["hookSpecificOutput"], _SPECIFIC + _ASIDE, ("decision", "continue"), "at the top")
    if problem:
        raise CommandFailedError(f"it wrote what is no answer: {problem}: {text[:SHOWN]}")
    return answer


def _unread(fields: Mapping[str, Any], known: tuple[str, ...], elsewhere: tuple[str, ...], place: str) -> str:
    """The field that would not be obeyed, in words; empty if there is none.

    Args:
      known: the fields that are read here.
      elsewhere: the fields that are read in ``place`` only.
    """
    unknown = [name for name in fields if name not in known]
    for name in unknown:
        if name in elsewhere:
            return f"the field {name!r} counts {place} only"
        meant = closest(name, known)
        if meant:
            return f"there is no field {name!r}: did you mean {meant!r}?"
        if _plain(name) in _VERDICTS | _FLAGS or _is_denial(fields[name]):
            return f"the field {name!r} is no verdict here"
    if unknown and len(unknown) == len(fields):
        return f"none of its fields is known: {', '.join(map(repr, unknown))[:SHOWN]}"
    return ""


def closest(name: object, known: tuple[str, ...]) -> str:
    """The one of ``known`` that ``name`` was most likely meant to be; empty if it resembles none."""
    plain = {_plain(one): one for one in known}
    near = get_close_matches(_plain(str(name)), plain, n=1, cutoff=0.8)
    return plain[near[0]] if near else ""


def _is_other_json(text: str) -> bool:
    """Whether ``text`` is JSON, or the beginning of it, and no object. A number is as good as any other text."""
    if re.match(r'\[\s*[{"]', text):
        return True
    try:
        value = decode_json(text, Any)
    except msgspec.DecodeError:
        return False
    return isinstance(value, (list, str, bool)) or value is None


def denies(text: str) -> bool:
    """Whether ``text`` has a JSON object in it, anywhere, that refuses something."""
    return any(_denies(value) for value in _objects(text))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    text = text[-MAX_SEARCHED:]
    decoder, lines = json.JSONDecoder(), deque(re.finditer(r"^[^{\n]*", text, re.MULTILINE), MAX_OBJECTS)
    for line in lines:
        # A text that nests too deeply is no denial that a program has written.
        with suppress(ValueError, RecursionError):
            yield decoder.raw_decode(text, line.end())[0]


def _denies(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    for name, inner in cast("dict[str, object]", value).items():
        plain = _plain(name)
        if plain in _VERDICTS and (_is_denial(inner) or _denies(inner)):
            return True
        if (plain == "continue" and inner is False) or (plain == "hookspecificoutput" and _denies(inner)):
            return True
    return False


def _is_denial(value: object) -> bool:
    return isinstance(value, str) and _plain(value) in _DENIALS


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").strip().casefold()


# ---------------------------------------------------------------------------- verdicts


def verdict(point: Point[Any, Any], value: Any, answer: Answer) -> Any:
    """The verdict that ``answer`` stands for.

    Raises:
      HookWarning: there is nothing to block at this point.
      CommandFailedError: it wants something that this point cannot do.
    """
    more = answer.hook_specific_output
    stops, blocks = not answer.going_on, answer.blocks
    why = (answer.stop_reason or answer.why) if stops else answer.why
    if not (stops or blocks):
        _check_possible(point, answer)
    match point.name:
        case "pre_tool_use":
            return Deny(why) if stops or blocks else _permission(answer, more)
        case "post_tool_use":
            return hooks.Block(why) if stops else _result(value.result, more, why if blocks else "")
        case "stop" if blocks and not stops:
            return hooks.Continue(why or "Go on.")
        case _ if not (stops or blocks):
            adds = hooks.Context in point.verdicts and more.additional_context
            return hooks.Context(more.additional_context or "") if adds else None
        case _ if hooks.Block in point.verdicts:
            return hooks.Block(why)
        case _:
            raise HookWarning(f"it wants to block what cannot be blocked here: {why}")


def _check_possible(point: Point[Any, Any], answer: Answer) -> None:
    problem, more = "", answer.hook_specific_output
    if point.name != "pre_tool_use" and answer.asks:
        problem = "it wants a person to be asked"
    elif point.name != "pre_tool_use" and more.updated_input is not None:
        problem = "it replaces the arguments of a call"
    elif point.name != "post_tool_use" and more.updated_tool_output is not None:
        problem = "it replaces the result of a call"
    if problem:
        raise CommandFailedError(f"{problem}, which no {point.name} hook can do")


def _permission(answer: Answer, more: _Specific) -> Any:
    decided: hooks.Allow | hooks.Ask | None = None
    if answer.asks:
        decided = hooks.Ask(answer.why, more.metadata)
    elif (more.permission_decision or answer.decision) in ("allow", "approve"):
        decided = hooks.Allow()
    return decided if more.updated_input is None else hooks.ReplaceArguments(more.updated_input, decided)


def _result(result: ToolResult, more: _Specific, why: str) -> hooks.ReplaceResult | None:
    parts = result.parts
    if more.updated_tool_output is not None:
        new = more.updated_tool_output
        parts = (Text(new if isinstance(new, str) else msgspec.json.encode(new).decode()),)
    parts = (*parts, *(Text(text) for text in (why, more.additional_context) if text))
    return None if parts == result.parts else hooks.ReplaceResult(ToolResult("", "", parts, result.status))
