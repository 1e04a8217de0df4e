"""Deferred tools, decided: which tools are deferred, what the model reads of them, what a search finds.

**The transcript has the inner call.** Where a provider has a tool search of its own, a model calls a deferred tool by
the tool's name. Elsewhere it calls ``call_tool`` with the name and the arguments. The runtime turns such a call into
the call of the tool itself while the response arrives (`InnerCall`), and turns it back when it sends the transcript
(`Lowering`). So permissions, hooks, events, limits, traces and journals know the tool by its own name, and a session
may go from one provider to another.

**The transcript has what was loaded.** A result of ``find_tools`` has one line of JSON for each tool (`result_text`),
and `found_names` reads it. There is no other record of what was loaded: a journal, a fork, a rewind and a resumed run
need none. If the model's view leaves out such a result, `with_loaded` shows the tools once more, behind the summary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import log
from typing import Any, cast

import msgspec

from agentloop._core.on_first_use import get_close_matches
from agentloop._core.permissions import is_like
from agentloop._core.tokens import tokens_of_text
from agentloop.deferred import CALL_TOOL, FIND_TOOLS, Deferred
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, UserMessage
from agentloop.models import ModelRequest, ToolSpec

__all__ = [
    "FINDER",
    "InnerCall",
    "Lowering",
    "deferred_names",
    "finder_description",
    "found_names",
    "found_specs",
    "misfit",
    "result_text",
    "search",
    "unknown_words",
    "with_loaded",
]

CATALOGUE_TOKENS = 6_000
"""The most that the list of names in the description of ``find_tools`` takes."""
LINE = 100
"""Characters of the line about a tool in the list."""
SHORT_LINE = 40
"""The same, if the list would be too long."""
MOST_FOUND = 20
"""Tools that one search finds at most."""
FOUND = 5
"""Tools that a search finds, unless the model asks for another number."""
MOST_CHARACTERS = 60_000
"""Characters of a search's result, after which it has no further tool."""
MOST_LOADED = 30
"""Loaded tools that are shown once more after the conversation was shortened: the latest ones."""

_encode = msgspec.json.Encoder(enc_hook=str).encode
_decode = msgspec.json.Decoder().decode
_decode_spec = msgspec.json.Decoder(ToolSpec).decode


def _json(value: object) -> str:
    """``value`` as JSON text. A schema of another program may have anything in it, half a character too."""
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        return _encode(_whole(msgspec.to_builtins(value, enc_hook=str))).decode()


def _whole(value: Any) -> Any:
    """``value`` with whole characters only."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_whole(key): _whole(inner) for key, inner in cast("dict[str, Any]", value).items()}
    return [_whole(inner) for inner in cast("list[Any]", value)] if isinstance(value, list) else value


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
    is_over = is_over or sum([tokens_of_text(_json(spec)) for spec in specs.values()]) > deferred.over
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

_CALLER = ToolSpec(
    CALL_TOOL,
    f"Call a tool that {FIND_TOOLS} has loaded, or will load. It is named in the list of {FIND_TOOLS}.",
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Name of the tool."},
            "arguments": {"type": "object", "description": "Its arguments, as its parameters say."},
        },
        "required": ["name", "arguments"],
    },
)


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
        line = _json({"name": spec.name, "description": spec.description, "parameters": spec.parameters})
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


# ----------------------------------------------------------------------------------- search

_WORD = re.compile(r"[a-z]+|[0-9]+|[^\W\d_a-z]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NAME, _ABOUT, _PARAMETERS = 4.0, 1.0, 0.5
"""What a word counts for in the name of a tool, in its description, and in its parameters."""
_PART = 0.5
"""What a word counts for that only begins like the one in the query."""


def search(query: str, specs: Sequence[ToolSpec], limit: int = FOUND) -> list[ToolSpec]:
    """The tools that ``query`` is about, the best first.

    The tools that it names come first. The others are those that have its words, in their names most of all; a word
    that few tools have counts more.
    """
    by_name = {spec.name.casefold(): spec for spec in specs}
    named = [by_name[name] for part in re.split(r"[,\s]+", query) if (name := part.casefold()) in by_name]
    found = list({spec.name: spec for spec in named}.values())
    if [part for part in query.split(",") if part.strip().casefold() not in by_name]:
        words = set(_words(query))
        indexes = [_index(spec) for spec in specs]
        weights = {word: _weight(word, indexes) for word in words}
        scores = [sum(weights[word] * _score(word, index) for word in words) for index in indexes]
        ranked = sorted(zip(scores, range(len(specs)), strict=True), key=lambda scored: (-scored[0], scored[1]))
        found += [specs[index] for score, index in ranked if score > 0 and specs[index] not in found]
    return found[: min(max(limit, 1), MOST_FOUND)]


def _words(text: str) -> list[str]:
    words = _WORD.findall(_CAMEL.sub(" ", text).casefold())
    # A plural is found by its singular, and the other way round.
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words]


def _index(spec: ToolSpec) -> dict[str, float]:
    """What each word of a tool counts for."""
    parameters: object = spec.parameters.get("properties")
    texts: list[str] = []
    if isinstance(parameters, Mapping):
        for name, schema in cast("Mapping[str, Any]", parameters).items():
            about: object = cast("Mapping[str, Any]", schema).get("description") if isinstance(schema, Mapping) else ""
            texts.append(f"{name} {about if isinstance(about, str) else ''}")
    index: dict[str, float] = {}
    for text, counts in ((" ".join(texts), _PARAMETERS), (spec.description, _ABOUT), (spec.name, _NAME)):
        for word in _words(text):
            index[word] = counts
    return index


def _score(word: str, index: Mapping[str, float]) -> float:
    if word in index:
        return index[word]
    if len(word) < 4:
        return 0.0
    return max((_PART * counts for other, counts in index.items() if other.startswith(word[:5])), default=0.0)


def _weight(word: str, indexes: Sequence[Mapping[str, float]]) -> float:
    return log(1 + len(indexes) / (1 + sum(word in index for index in indexes)))


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
    query = _encode({"query": ",".join(spec.name for spec in loaded)}).decode()
    call = ToolCall(f"loaded_{changed_at}", FIND_TOOLS, query)
    again = (AssistantMessage((call,)), ToolResult(call.id, FIND_TOOLS, (Text(result_text(loaded)),)))
    at = 1 if view and isinstance(view[0], UserMessage) else 0
    return (*view[:at], *again, *view[at:])


# --------------------------------------------- requests to models without a tool search of their own


class Lowering:
    """Turns the calls of deferred tools into calls of ``call_tool``, in request after request of one run.

    A message that the last request had is not turned again: adapters know messages by their identity.
    """

    __slots__ = ("_direct", "_lowered", "_messages", "_specs", "_tools")

    def __init__(self) -> None:
        self._specs: tuple[ToolSpec, ...] = ()
        self._tools: tuple[ToolSpec, ...] = ()
        self._direct = frozenset[str]()
        self._messages: tuple[Message, ...] = ()
        self._lowered: tuple[Message, ...] = ()

    def lowered(self, request: ModelRequest) -> ModelRequest:
        """``request`` without deferred tools, and with ``call_tool``."""
        if request.tools is not self._specs:
            self._specs = request.tools
            self._tools = (*[spec for spec in request.tools if not spec.deferred], _CALLER)
            direct = frozenset([*[spec.name for spec in self._tools], FIND_TOOLS])
            if direct != self._direct:
                self._direct, self._messages, self._lowered = direct, (), ()
        messages, before = tuple(request.messages), self._messages
        if messages[: len(before)] == before:
            lowered = (*self._lowered, *map(self._message, messages[len(before) :]))
        else:
            known = dict(zip(map(id, before), self._lowered, strict=True))
            lowered = tuple([known.get(id(message)) or self._message(message) for message in messages])
        self._messages, self._lowered = messages, lowered
        return msgspec.structs.replace(request, messages=lowered, tools=self._tools)

    def _message(self, message: Message) -> Message:
        if isinstance(message, ToolResult):
            return message if message.name in self._direct else msgspec.structs.replace(message, name=CALL_TOOL)
        if isinstance(message, AssistantMessage) and any(call.name not in self._direct for call in message.calls):
            parts = [self._call(part) if isinstance(part, ToolCall) else part for part in message.parts]
            return msgspec.structs.replace(message, parts=tuple(parts))
        return message

    def _call(self, call: ToolCall) -> ToolCall:
        return call if call.name in self._direct else ToolCall(call.id, CALL_TOOL, wrapped(call.name, call.arguments))


def wrapped(name: str, arguments: str) -> str:
    """The arguments of ``call_tool`` for a call of the tool ``name``, as JSON text."""
    name_text = _json(name)
    try:
        is_object = isinstance(_decode(arguments or "{}"), dict)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        is_object = False
    # The object as the model wrote it; other text as text.
    value = (arguments.strip() or "{}") if is_object else _json(arguments)
    return f'{{"name":{name_text},"arguments":{value}}}'


_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*(?=\{)')
_MARK = re.compile(r'["\\{}]')
_LONGEST_HEAD = 400
"""Characters after which the arguments are not read piece by piece any more, if the head has not ended."""


class InnerCall:
    """The call of a deferred tool in the pieces of the arguments of a ``call_tool``.

    The pieces of the inner arguments are given at once if the model writes the name first, as nearly all do. Otherwise
    `finish` gives them all.
    """

    __slots__ = ("_buffer", "_depth", "_is_escaped", "_is_in_text", "is_done", "name")

    def __init__(self) -> None:
        self._buffer = ""
        self.name = ""
        """The inner tool's name, once it is known."""
        self._depth = 0
        self._is_in_text = False
        self._is_escaped = False
        self.is_done = False
        """Whether the inner arguments have come to their end, or the call was finished."""

    def add(self, text: str) -> str:
        """Take the next piece of the outer arguments, and give the piece of the inner ones that it has."""
        if self.is_done:
            return ""
        if self.name:
            return self._inner(text)
        self._buffer += text
        head = _HEAD.match(self._buffer) if len(self._buffer) < _LONGEST_HEAD + len(text) else None
        if head is None or not head[1]:
            return ""
        self.name = head[1]
        rest, self._buffer = self._buffer[head.end() :], ""
        return self._inner(rest)

    def _inner(self, text: str) -> str:
        """The part of ``text`` up to the brace that closes the inner arguments."""
        position = 0
        if self._is_escaped and text:
            self._is_escaped, position = False, 1
        while (mark := _MARK.search(text, position)) is not None:
            character, position = mark[0], mark.end()
            if self._is_in_text:
                if character == "\\":
                    if position == len(text):
                        self._is_escaped = True
                    position += 1
                elif character == '"':
                    self._is_in_text = False
            elif character == '"':
                self._is_in_text = True
            elif character == "{":
                self._depth += 1
            elif character == "}":
                self._depth -= 1
                if not self._depth:
                    self.is_done = True
                    return text[:position]
        return text

    @property
    def is_complete(self) -> bool:
        """Whether `finish` would give a call: the buffered arguments are whole."""
        return not self.name and not self.is_done and _inner_of(self._buffer) is not None

    def finish(self) -> tuple[str, str]:
        """The name of the called tool, and the rest of its arguments, when no further piece comes.

        Without a name in them, it is a call of ``call_tool`` itself, which there is not, so that the model reads why.
        """
        if self.name or self.is_done:
            self.is_done = True
            return self.name, ""
        self.is_done = True
        self.name, arguments = _inner_of(self._buffer) or (CALL_TOOL, self._buffer)
        return self.name, arguments


def _inner_of(outer: str) -> tuple[str, str] | None:
    """The tool that the whole arguments ``outer`` of a ``call_tool`` name, and its arguments; ``None`` without one."""
    try:
        values: Any = _decode(outer)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    given = dict(cast("dict[str, Any]", values))
    name = given.pop("name", None)
    if not isinstance(name, str) or not name or name == CALL_TOOL:
        return None
    # Some models leave out the object, and some write it as text.
    inner = given.pop("arguments", given)
    return name, inner if isinstance(inner, str) else _encode({} if inner is None else inner).decode()


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
