"""Deferred tools, decided: which tools are deferred, and what the model reads of them.

**The transcript has the inner call.** Where a provider has a tool search of its own, a model calls a deferred tool by
the tool's name. Elsewhere it calls ``call_tool`` with the name and the arguments. The runtime turns such a call into
the call of the tool itself while the response arrives, and turns it back when it sends the transcript: see
`agentloop._core.call_tool`. So permissions, hooks, events, limits, traces and journals know the tool by its own name,
and a session may go from one provider to another.

**The transcript has what was loaded.** A result of ``find_tools`` has one line of JSON for each tool (`result_text`),
and `found_names` reads it. There is no other record of what was loaded: a journal, a fork, a rewind and a resumed run
need none. If the model's view leaves out such a result, `with_loaded` shows the tools once more, behind the summary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import msgspec

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder
from agentloop._core.on_first_use import get_close_matches
from agentloop._core.permissions import is_like
from agentloop._core.tokens import tokens_of_text
from agentloop._core.tool_index import FOUND, MOST_FOUND
from agentloop._core.whole_json import json_of
from agentloop.deferred import CALL_TOOL, FIND_TOOLS, Deferred
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, UserMessage
from agentloop.models import ToolSpec

__all__ = [
    "FINDER",
    "deferred_names",
    "finder_description",
    "found_names",
    "found_specs",
    "misfit",
    "result_text",
    "unknown_words",
    "with_loaded",
]

CATALOGUE_TOKENS = 6_000
"""The most that the list of names in the description of ``find_tools`` takes."""
LINE = 100
"""Characters of the line about a tool in the list."""
SHORT_LINE = 40
"""The same, if the list would be too long."""
MOST_CHARACTERS = 60_000
"""Characters of a search's result, after which it has no further tool."""
MOST_LOADED = 30
"""Loaded tools that are shown once more after the conversation was shortened: the latest ones."""

_decode_spec = JsonDecoder(ToolSpec, max_depth=MAX_OWN_DEPTH).decode


# ------------------------------------------------------------------- which tools are deferred


def deferred_names(
    specs: Mapping[str, ToolSpec], wishes: Mapping[str, bool | None], deferred: Deferred | None, *, is_over: bool
) -> tuple[frozenset[str], bool]:
    """The names of the deferred tools, and whether the tools are above the budget.

    Args:
      specs: the tools, by name.
      wishes: ``Tool.deferred`` of each.
      deferred: the agent's.
      is_over: whether they were above the budget before: then they count as above it, so that a tool which comes and
        goes does not change the requests twice.
    """
    marked = frozenset(name for name, wish in wishes.items() if wish)
    if deferred is None:
        return marked, False
    is_over = is_over or sum([tokens_of_text(json_of(spec)) for spec in specs.values()]) > deferred.over
    if not is_over:
        return marked, False
    kept = {name for name in specs if any(is_like(glob, name) for glob in deferred.always)}
    return marked | {name for name, wish in wishes.items() if wish is None and name not in kept}, True


# --------------------------------------------------------------------- what the model reads

_INTRODUCTION = (
    "Load the descriptions and parameters of tools that you do not see yet. Before you use one of the tools below for "
    "the first time, load it. query: words about what you want to do, or names of tools, separated by commas. The "
    "tools that can be loaded:"
)

FINDER: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "What you want to do, or names of tools, separated by commas."},
        "limit": {
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_FOUND,
            "default": FOUND,
            "description": "How many tools to load at most.",
        },
    },
    "required": ["query"],
}
"""The schema of the arguments of ``find_tools``."""


def finder_description(specs: Iterable[ToolSpec]) -> str:
    """The description of ``find_tools``, with a line for each of the deferred tools ``specs``.

    The order does not depend on that of ``specs``, so that it is the same in each process. If the list would be too
    long, the lines are shorter, then it has names alone, and then not all of them.
    """
    ordered = sorted(specs, key=lambda spec: spec.name)
    for length in (LINE, SHORT_LINE, 0):
        text = "\n".join([_INTRODUCTION, *[_line(spec, length) for spec in ordered]])
        if tokens_of_text(text) <= CATALOGUE_TOKENS:
            return text
    names = [f"- {spec.name}" for spec in ordered]
    shown = max(int(len(names) * CATALOGUE_TOKENS / tokens_of_text("\n".join(names))), 1)
    rest = f"- and {len(names) - shown} more, which you find by words about what you want to do"
    return "\n".join([_INTRODUCTION, *names[:shown], rest])


def _line(spec: ToolSpec, length: int) -> str:
    about = " ".join(spec.description.split())
    if not length or not about:
        return f"- {spec.name}"
    end = about.find(". ")
    about = about if end < 0 else about[: end + 1]
    return f"- {spec.name}: {about if len(about) <= length else about[: length - 1].rstrip() + '…'}"


def result_text(specs: Sequence[ToolSpec], query: str = "") -> str:
    """The text of a result of ``find_tools``: a line of JSON for each tool."""
    if not specs:
        return f"No tool was found for {query[:200]!r}. Try other words, or names of the list of {FIND_TOOLS}."
    lines: list[str] = []
    room = MOST_CHARACTERS
    for spec in specs:
        line = json_of({"name": spec.name, "description": spec.description, "parameters": spec.parameters})
        room -= len(line)
        if lines and room < 0:
            break
        lines.append(line)
    return "\n".join(lines)


def found_specs(result: ToolResult) -> list[ToolSpec]:
    """The tools in a result of ``find_tools``; none if it failed, or is not shown whole."""
    if result.name != FIND_TOOLS or result.status != "ok":
        return []
    found: dict[str, ToolSpec] = {}
    # Not by `splitlines`, which also divides at characters that JSON leaves as they are.
    for line in result.text.split("\n"):
        if line.startswith('{"name":'):
            # A line that is not whole was cut off.
            with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
                spec = _decode_spec(line)
                found[spec.name] = spec
    return list(found.values())


def found_names(result: ToolResult) -> list[str]:
    """The names of the tools in a result of ``find_tools``."""
    return [spec.name for spec in found_specs(result)]


# -------------------------------------------------------------------- what was loaded before


def with_loaded(
    view: Sequence[Message], messages: Sequence[Message], specs: Mapping[str, ToolSpec], *, first: int, changed_at: int
) -> tuple[Message, ...]:
    """``view`` with the tools once more that were loaded by results which it leaves out.

    Args:
      view: what the model reads of ``messages``.
      messages: the transcript.
      specs: the deferred tools that there are, by name.
      first: the first message that counts: the agent before a handoff loaded its own tools.
      changed_at: the messages that there were when the view changed. The call has its id of this number, and stays the
        same until the view changes again.
    """
    shown = {message.call_id for message in view if isinstance(message, ToolResult) and found_names(message)}
    names: dict[str, None] = {}
    for message in messages[first:]:
        if isinstance(message, ToolResult) and message.name == FIND_TOOLS and message.call_id not in shown:
            for name in found_names(message):
                # The latest last.
                names.pop(name, None)
                names[name] = None
    loaded = [specs[name] for name in names if name in specs][-MOST_LOADED:]
    if not loaded:
        return tuple(view)
    query = json_of({"query": ",".join(spec.name for spec in loaded)})
    call = ToolCall(f"loaded_{changed_at}", FIND_TOOLS, query)
    again = (AssistantMessage((call,)), ToolResult(call.id, FIND_TOOLS, (Text(result_text(loaded)),)))
    at = 1 if view and isinstance(view[0], UserMessage) else 0
    return (*view[:at], *again, *view[at:])


# ------------------------------------------------------------------- calls that cannot be made


def misfit(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Why ``arguments`` do not fit the top level of a JSON Schema from another program; empty if they do.

    The other program checks the rest. This is for a model that calls a tool without having read its parameters.
    """
    required, properties = _list_in(schema, "required"), _object_in(schema, "properties")
    is_closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    missing = [repr(name) for name in required if name not in arguments]
    problems = [f"it needs {', '.join(missing)}"] if missing else []
    for name, value in arguments.items():
        if name not in properties:
            if is_closed:
                problems.append(f"it has no {name!r}")
            continue
        kinds = _kinds_of(properties[name])
        # Some schemas allow null in words of their own.
        if kinds and value is not None and not any(_is_of(value, kind) for kind in kinds):
            problems.append(f"{name!r} is to be {' or '.join(map(str, kinds))}")
    return "; ".join(problems)


def _list_in(schema: Mapping[str, Any], key: str) -> list[object]:
    value: object = schema.get(key)
    return cast("list[object]", value) if isinstance(value, list) else []


def _object_in(schema: Mapping[str, Any], key: str) -> Mapping[str, object]:
    value: object = schema.get(key)
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _kinds_of(schema: object) -> list[object]:
    """The types that a schema names; none if it says nothing about them."""
    if not isinstance(schema, Mapping):
        return []
    kind: object = cast("Mapping[str, object]", schema).get("type")
    return [kind] if isinstance(kind, str) else _list_in(cast("Mapping[str, Any]", schema), "type")


def _is_of(value: object, kind: object) -> bool:
    types = _TYPES.get(str(kind))
    if types is None:
        # A type that JSON Schema does not know is the other program's to judge.
        return True
    return isinstance(value, types) and not (isinstance(value, bool) and bool not in types)


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def unknown_words(name: str, direct: Iterable[str], deferred: Iterable[str]) -> str:
    """Words for a model that calls a tool which there is not."""
    if name == CALL_TOOL:
        return f'{CALL_TOOL} takes {{"name": "...", "arguments": {{...}}}}, with the name of a tool of {FIND_TOOLS}.'
    folded = {other.casefold(): other for other in (*direct, *deferred)}
    near = get_close_matches(name.casefold(), folded, 3, 0.6)
    meant = f" Did you mean {' or '.join(folded[other] for other in near)}?" if near else ""
    return f"There is no tool called {name!r}.{meant} {FIND_TOOLS} finds the tools that there are."
