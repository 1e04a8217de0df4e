"""The format of OpenAI's Responses API: requests encoded, responses read.

Responses are read leniently wherever servers were seen to differ: fields that are missing or ``null``, items without
deltas or only at the end, ids that change from event to event, events of unknown types. They are read strictly where a
lenient reading would spoil the response: broken JSON, an error, an end that is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias, cast

import msgspec
from attrs import Factory, frozen

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder
from agentloop.deferred import FIND_TOOLS
from agentloop.errors import ModelConnectionError, ModelProtocolError
from agentloop.messages import (
    AssistantMessage,
    Image,
    Message,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
    UserPart,
)
from agentloop.models import ModelRequest, ModelSettings, Stop, ToolSpec
from agentloop.providers._dialects import fit_media, openai_effort, reasons
from agentloop.providers._endings import error_in, stop_reason
from agentloop.providers._events import ErrorData, WireEvents, is_end_marker
from agentloop.providers._failures import failure_in_stream
from agentloop.providers._fitting import (
    CONTINUE,
    NO_OUTPUT,
    Echo,
    WireRules,
    data_url,
    echo_in,
    encode_body,
    file_text,
)
from agentloop.providers._lenient import WireStruct, count, decode_event, fit
from agentloop.providers._media import DOCUMENTS, MediaRules
from agentloop.providers._structured_output import openai_output
from agentloop.providers._tool_schema import PLAIN, fit_parameters
from agentloop.providers._tool_search import ToolSearch, tool_search_in
from agentloop.providers._wire_model import EncodedRequest
from agentloop.providers._writing import ResponseWriter, json_text, missing_end

__all__ = ["ReasoningSummary", "ResponsesFormat"]

ReasoningSummary: TypeAlias = Literal["auto", "concise", "detailed"]
"""How long a summary of the reasoning may be."""

RULES = WireRules(call_id=re.compile(r"(?s:.{1,64})"), media=MediaRules(files=DOCUMENTS))


class ResponsesEcho(Echo, frozen=True):
    """Encrypted reasoning, or the phase of a message."""

    item: dict[str, Any] | None = None
    """A reasoning item."""
    phase: str | None = None
    """The ``phase`` of the message before it: ``commentary`` or ``final_answer``. Without it, models that know phases
    take their own commentary for their answer, and stop early."""


_LEAST_TOKENS = 16
_encoder = msgspec.json.Encoder()
_echo_decoder = JsonDecoder(ResponsesEcho, max_depth=MAX_OWN_DEPTH)


@frozen(kw_only=True)
class ResponsesFormat:
    """The format of the Responses API, with the options of one model. The server stores nothing."""

    PATH: ClassVar[str] = "/responses"
    """The path of the endpoint, after the base URL."""

    model: str
    """The server's name for the model."""
    encrypted_reasoning: bool | None = None
    """Whether to ask for the reasoning in a form that can be sent back, which a model that does not reason refuses.
    ``None`` lets the model's name decide."""
    reasoning_summary: ReasoningSummary | None = None
    """The summary of the reasoning to ask for; ``None`` for no summary."""
    tool_search: bool = False
    """Whether the model loads deferred tools by the items of a tool search that the client executes."""
    has_cache_key: bool = False
    """Whether the server takes a key by which it brings the requests of a session to the same cache."""
    cache_key: str = ""
    """The key; empty outside of a session."""
    reads_media: bool | None = None
    """Whether the model can see pictures and read documents; ``None`` lets its name decide."""
    rules: WireRules = Factory(lambda self: fit_media(RULES, self.model, self.reads_media), takes_self=True)
    """What the wire, and the model behind it, accept in a transcript."""

    def exchange(
        self, request: ModelRequest, encoded: EncodedRequest, *, name: str, writer: ResponseWriter
    ) -> tuple[bytes, _ResponsesResponse]:
        """See `WireFormat.exchange`."""
        search = tool_search_in(request)
        messages = encoded.messages(request.messages, partial(self._encoded, search), search and search.loaded)
        items = _joined(messages) or [_user([CONTINUE])]
        body: dict[str, Any] = {"model": self.model, "input": items, "stream": True, "store": False}
        if reasons(self.model) if self.encrypted_reasoning is None else self.encrypted_reasoning:
            body["include"] = ["reasoning.encrypted_content"]
        if request.instructions:
            body["instructions"] = request.instructions
        if request.tools:
            body["tools"] = encoded.tools(request.tools, _tools if search is None else _tools_to_search)
        if request.output is not None:
            output = openai_output(request.output, PLAIN) or {}
            body["text"] = {"format": {"type": "json_schema", **output}}
        if self.cache_key:
            body["prompt_cache_key"] = self.cache_key
        body.update(self._settings(request.settings, with_tools=bool(request.tools)))
        body.update(request.settings.extra)
        return encode_body(body), _ResponsesResponse(name=name, model=self.model, writer=writer)

    # ------------------------------------------------------------------------------ request

    def _settings(self, settings: ModelSettings, *, with_tools: bool) -> Iterator[tuple[str, Any]]:
        # The format has no fields for `seed` and `stop`.
        reasoning = {"effort": openai_effort(self.model, settings.reasoning_effort), "summary": self.reasoning_summary}
        for field, value in (
            ("temperature", settings.temperature),
            ("top_p", settings.top_p),
            # The server refuses less.
            ("max_output_tokens", None if settings.max_tokens is None else max(settings.max_tokens, _LEAST_TOKENS)),
            ("reasoning", {key: value for key, value in reasoning.items() if value is not None} or None),
            # The server refuses these two in a request without tools.
            ("tool_choice", settings.tool_choice if with_tools else None),
            ("parallel_tool_calls", settings.parallel_tool_calls if with_tools else None),
        ):
            if value is not None:
                yield field, value

    def _encoded(self, search: ToolSearch | None, message: Message) -> _Encoded:
        message = self.rules.fit(message)
        if isinstance(message, UserMessage):
            return _Encoded(content=_content(message.parts))
        items = self._assistant(message) if isinstance(message, AssistantMessage) else [_result(message)]
        if search is not None:
            items = [item for one in items for item in _searched(one, message, search)]
        return _Encoded(items=tuple(msgspec.Raw(encode_body(item)) for item in items))

    def _assistant(self, message: AssistantMessage) -> list[dict[str, Any]]:
        """The items of a response, in order. They have no ids: the server stores none by which to find them."""
        items: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, Text):
                if part.text.strip():
                    items.append({"type": "message", "role": "assistant", "content": part.text})
            elif isinstance(part, ToolCall):
                items.append(
                    {
                        "type": "function_call",
                        "call_id": part.id,
                        "name": part.name,
                        "arguments": part.arguments,
                    }
                )
            else:
                echo = echo_in(part, _echo_decoder, self.model)
                if echo is None:
                    continue
                if echo.item is not None:
                    items.append(echo.item)
                if echo.phase is not None:
                    # The last message, and not the last item: a call may begin before the message is done.
                    for item in [item for item in items if item["type"] == "message"][-1:]:
                        item["phase"] = echo.phase
        # The server refuses reasoning that no item follows, as in a response that was cut off.
        while items and items[-1]["type"] == "reasoning":
            items.pop()
        return items


def _tools(specs: Iterable[ToolSpec]) -> msgspec.Raw:
    return msgspec.Raw(encode_body([_tool(spec) for spec in specs]))


def _tools_to_search(specs: Iterable[ToolSpec]) -> msgspec.Raw:
    """The tools of a request with deferred ones: these come with the results of the search."""
    return msgspec.Raw(
        encode_body([_search(spec) if spec.name == FIND_TOOLS else _tool(spec) for spec in specs if not spec.deferred])
    )


def _search(finder: ToolSpec) -> dict[str, Any]:
    parameters = fit_parameters(finder, PLAIN)
    return {"type": "tool_search", "execution": "client", "description": finder.description, "parameters": parameters}


NAMESPACE = "loaded"
"""The namespace of the tools that were loaded. The server refuses a call of one that comes back without it."""


def _searched(item: dict[str, Any], message: Message, search: ToolSearch) -> list[dict[str, Any]]:
    """``item`` of a message in a request with deferred tools."""
    if item["type"] == "function_call":
        if item["name"] == FIND_TOOLS:
            arguments = msgspec.Raw(item["arguments"].encode())
            fields = {"call_id": item["call_id"], "execution": "client", "status": "completed", "arguments": arguments}
            return [{"type": "tool_search_call", **fields}]
        return [{**item, "namespace": NAMESPACE}] if item["name"] in search.loaded else [item]
    if not isinstance(message, ToolResult) or message.name != FIND_TOOLS:
        return [item]
    found = search.definitions(message)
    tools = [{**_tool(spec), "defer_loading": True} for spec in found]
    namespace = {"type": "namespace", "name": NAMESPACE, "description": "Tools that were loaded.", "tools": tools}
    fields = {"call_id": message.call_id, "execution": "client", "status": "completed"}
    output = {"type": "tool_search_output", **fields, "tools": [namespace] if found else []}
    # The item has no place for words: why nothing was loaded comes after it.
    words = f"[{FIND_TOOLS}: {message.text}]"
    return [output] if found else [output, {"type": "message", "role": "user", "content": words}]


def _tool(spec: ToolSpec) -> dict[str, Any]:
    # Explicitly not strict: by default the server rewrites the schema so that all properties are required.
    return {
        "type": "function",
        "name": spec.name,
        "description": spec.description,
        "parameters": fit_parameters(spec, PLAIN),
        "strict": False,
    }


@frozen
class _Encoded:
    """A message of the transcript: its items, or the content of a message of the user."""

    items: tuple[msgspec.Raw, ...] = ()
    content: tuple[str | msgspec.Raw, ...] = ()
    """A ``str`` for each text, and encoded pictures and files."""


def _joined(messages: Iterable[_Encoded]) -> list[Any]:
    """The items of ``messages``. Messages of the user in a row are one.

    OpenAI accepts several, but a server that applies a model's own chat template may refuse them.
    """
    items: list[Any] = []
    content: list[str | msgspec.Raw] = []
    for message in messages:
        content += message.content
        if message.items and content:
            items.append(_user(content))
            content = []
        items += message.items
    return [*items, _user(content)] if content else items


def _user(content: Sequence[str | msgspec.Raw]) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": _text_or_parts(content)}


def _text_or_parts(content: Sequence[str | msgspec.Raw]) -> str | list[Any]:
    texts = [part for part in content if isinstance(part, str)]
    if len(texts) == len(content):
        return "\n\n".join(texts)
    return [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in content]


def _content(parts: Iterable[UserPart]) -> tuple[str | msgspec.Raw, ...]:
    return tuple(_part(part) for part in parts)


def _part(part: UserPart) -> str | msgspec.Raw:
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Image):
        wire = {"type": "input_image", "image_url": data_url(part), "detail": "auto"}
    elif (text := file_text(part)) is not None:
        return text
    elif part.data is None:
        wire = {"type": "input_file", "file_url": data_url(part)}
    else:
        wire = {"type": "input_file", "filename": part.name, "file_data": data_url(part)}
    return msgspec.Raw(encode_body(wire))


def _result(result: ToolResult) -> dict[str, Any]:
    parts = result.parts or (Text(NO_OUTPUT),)
    if result.status != "ok":
        # The format has no other way to mark a call as failed.
        first = parts[0]
        parts = (Text(f"Error: {first.text}"), *parts[1:]) if isinstance(first, Text) else (Text("Error:"), *parts)
    return {"type": "function_call_output", "call_id": result.call_id, "output": _text_or_parts(_content(parts))}


# --------------------------------------------------------------------------------- response


AFTER_END_SECONDS = 0.5
"""Seconds to wait for the end of the answer after the response has ended. Only an answer that has ended frees its
connection for the next request."""
PARAGRAPH = "\n\n"
"""Separates two messages of a response, and two parts of a summary, whose texts would run into one another."""


class _Event(WireStruct):
    """Any event. Fields that only some types have accept any value: an unknown type may use them otherwise."""

    type: str = ""
    output_index: int | None = None
    content_index: Any = None
    item_id: Any = None
    delta: Any = None
    text: Any = None
    refusal: Any = None
    part: Any = None
    name: Any = None
    arguments: Any = None
    item: msgspec.Raw = msgspec.Raw(b"null")
    response: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None


class _Part(WireStruct):
    text: str | None = None
    refusal: str | None = None


class _Item(WireStruct):
    type: str = ""
    call_id: str | int | None = None
    id: str | int | None = None
    name: str | None = None
    arguments: Any = None
    content: str | list[_Part] | None = None
    summary: list[_Part] | None = None
    encrypted_content: str | None = None
    phase: str | None = None
    status: str | None = None
    execution: Any = None

    @classmethod
    def vital(cls, fields: dict[str, Any]) -> Container[str]:
        return {"message": ("content",), "function_call": ("name",)}.get(str(fields.get("type")), ())


class _Details(WireStruct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(WireStruct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Incomplete(WireStruct):
    reason: str | None = None


class _Response(WireStruct):
    status: str | None = None
    model: str | None = None
    error: Any = None
    incomplete_details: _Incomplete | None = None
    usage: _Usage | None = None
    output: list[msgspec.Raw] | None = None
    output_text: Any = None


_event_decoder = JsonDecoder(_Event)
_item_decoder = JsonDecoder(_Item)
_response_decoder = JsonDecoder(_Response)
_object_decoder = JsonDecoder(dict[str, Any])

_ENDS = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done"}
)


class _OpenItem:
    """An item of the response, of which events may still arrive."""

    __slots__ = ("call", "first", "is_done", "kind", "parts", "source", "text")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.call: int | None = None
        """The number of the tool call that it is, in the response; ``None`` if it is none."""
        self.first: _Item | None = None
        """The call as it began, perhaps with all of its arguments."""
        self.source = ""
        """The type of the events that its content came from; empty before the first. One item may come in two forms,
        such as reasoning and its summary; only the first form counts."""
        self.text: list[str] = []
        """The deltas of its text."""
        self.parts: set[object] = set()
        """The indexes of the parts that its text came from."""
        self.is_done = False
        """Whether the whole item has come."""


class _ResponsesResponse:
    """Reads one response."""

    __slots__ = (
        "_by_id",
        "_by_kind",
        "_calls",
        "_is_cut_off",
        "_items",
        "_last_index",
        "_last_message",
        "_model",
        "_name",
        "_refused",
        "_writer",
    )

    def __init__(self, *, name: str, model: str, writer: ResponseWriter) -> None:
        self._name = name
        self._model = model
        self._writer = writer
        self._items: dict[int, _OpenItem] = {}
        self._by_id: dict[object, int] = {}
        """The index of each item, by its id."""
        self._by_kind: dict[str, list[_OpenItem]] = {}
        """The items of each kind, in order."""
        self._last_index = -1
        """The index of the last event's item."""
        self._calls = 0
        self._last_message: _OpenItem | None = None
        """The message that the last text belongs to."""
        self._is_cut_off = False
        """Whether an item says that it was cut off."""
        self._refused = False

    async def read(self, events: WireEvents, /) -> Stop:
        """See `ResponseReader.read`."""
        writer, stop, foreign = self._writer, None, b""
        async for data in events:
            if stop is not None:
                continue
            written = writer.written
            if isinstance(data, ErrorData):
                raise error_in(data, model=self._name, show_code=True)
            if data and not is_end_marker(data):
                event = decode_event(_event_decoder, _Event, data, model=self._name)
                if event.type == "error" or (not event.type and event.error):
                    raise error_in(ErrorData(data), model=self._name, show_code=True)
                if events.is_json and not event.type:
                    stop = await self._end(data, "")
                elif event.type in _ENDS:
                    stop = await self._end(event.response, event.type.removeprefix("response."))
                    events.settle(AFTER_END_SECONDS)
                elif event.type:
                    await self._read_event(event)
                else:
                    foreign = data
            if writer.written == written and not events.has_arrived:
                await writer.show_life()
        if stop is None:
            if foreign:
                raise error_in(foreign, model=self._name, show_code=True)
            raise ModelConnectionError(f"model {self._name!r}: the stream ended before the response did")
        return stop

    async def _read_event(self, event: _Event) -> None:  # noqa: ASYNC910
        """Pass on the deltas in ``event``. Events of unknown types are dropped."""
        match event.type:
            case "response.output_text.delta" | "response.refusal.delta":
                self._refused = self._refused or event.type == "response.refusal.delta"
                await self._read_text(event, self._delta(event))
            case "response.output_text.done":
                await self._complete_part(event, _text(event.text))
            case "response.refusal.done":
                self._refused = True
                await self._complete_part(event, _text(event.refusal))
            case "response.content_part.done":
                value: object = event.part
                part = fit(cast("dict[str, Any]", value), _Part) if isinstance(value, dict) else _Part()
                if self._item(event, "message").source in ("", "response.output_text.delta", "response.refusal.delta"):
                    self._refused = self._refused or bool(part.refusal)
                    await self._complete_part(event, part.text or part.refusal or "")
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                await self._read_reasoning(event, self._item(event, "reasoning"))
            case "response.reasoning_summary_part.added":
                if self._item(event, "reasoning").source == "response.reasoning_summary_text.delta":
                    await self._writer.reasoning(PARAGRAPH)
            case "response.function_call_arguments.delta":
                await self._add_call(self._item(event, "function_call"), arguments=_text(event.delta))
            case "response.function_call_arguments.done":
                call = _Item(name=_text(event.name) or None, arguments=event.arguments)
                await self._complete_call(self._item(event, "function_call"), call)
            case "response.output_item.added":
                await self._begin_item(event)
            case "response.output_item.done":
                content = self._decoded(event.item)
                if content is not None:
                    await self._finish_item(content, event.item, self._item_to_finish(event, content))
            case "response.created" | "response.queued" | "response.in_progress":
                self._report_usage(event.response)
            case _:
                pass

    def _report_usage(self, raw: msgspec.Raw) -> None:
        """Report the usage of the response in ``raw`` so far. Most servers have none before the end."""
        if bytes(raw) == b"null":
            return
        # Nothing else of such a response matters, so a flaw of it does not either.
        with suppress(ModelProtocolError):
            usage = decode_event(_response_decoder, _Response, raw, model=self._name).usage
            if usage is not None:
                self._writer.report_usage(_usage(usage))

    def _delta(self, event: _Event) -> str:
        if event.delta is None or isinstance(event.delta, str):
            return event.delta or ""
        raise ModelProtocolError(f"model {self._name!r} sent {event.delta!r} as a delta of text")

    # ------------------------------------------------------------------------- items

    def _item(self, event: _Event, kind: str, id: object = None) -> _OpenItem:
        """The item of ``event``: by its index, since some servers change an item's id with each event, or by its id."""
        id = event.item_id if id is None else id
        if event.output_index is not None:
            self._last_index = event.output_index
        elif isinstance(id, (str, int)) and id in self._by_id:
            self._last_index = self._by_id[id]
        return self._item_at(self._last_index, kind)

    def _item_at(self, index: int, kind: str) -> _OpenItem:
        item = self._items.get(index)
        if item is None:
            item = self._items[index] = _OpenItem(kind)
            self._by_kind.setdefault(kind, []).append(item)
        return item

    def _item_to_finish(self, event: _Event, content: _Item) -> _OpenItem:
        """The item of which ``content`` is the whole. Without an index, one that is neither open nor known is new."""
        last = self._items.get(self._last_index)
        is_known = event.output_index is not None or content.id in self._by_id
        if not is_known and (last is None or last.is_done or last.kind != content.type):
            event.output_index = max(self._items, default=-1) + 1
        return self._item(event, content.type, content.id)

    def _decoded(self, raw: msgspec.Raw) -> _Item | None:
        if bytes(raw) == b"null":
            return None
        item = decode_event(_item_decoder, _Item, raw, model=self._name)
        if item.type == "tool_search_call" and item.execution != "server":
            item.type, item.name = "function_call", FIND_TOOLS
        return item

    async def _begin_item(self, event: _Event) -> None:  # noqa: ASYNC910
        content = self._decoded(event.item)
        if content is None:
            return
        if event.output_index is None:
            event.output_index = max(self._items, default=-1) + 1
        if content.id:
            self._by_id[content.id] = event.output_index
        item = self._item(event, content.type)
        if content.type == "function_call":
            item.first = content
            await self._add_call(item, content)

    async def _read_text(self, event: _Event, text: str) -> None:  # noqa: ASYNC910
        item = self._item(event, "message")
        if text:
            item.parts.add(_part_index(event))
            await self._add_text(text, item)
            item.source = event.type

    async def _complete_part(self, event: _Event, whole: str) -> None:  # noqa: ASYNC910
        """Add what the deltas of a part have left out. If the item has several parts, only a part without deltas."""
        item, index = self._item(event, "message"), _part_index(event)
        before = "".join(item.text) if item.parts <= {index} else whole if index in item.parts else ""
        missing = missing_end(before, whole)
        if missing:
            item.parts.add(index)
            await self._add_text(missing, item)
            item.source = item.source or "response.output_text.delta"

    async def _add_text(self, text: str, item: _OpenItem) -> None:  # noqa: ASYNC910
        if self._last_message is not None and self._last_message is not item:
            await self._writer.text(PARAGRAPH)
        self._last_message = item
        item.text.append(text)
        await self._writer.text(text)

    async def _read_reasoning(self, event: _Event, item: _OpenItem) -> None:  # noqa: ASYNC910
        text = self._delta(event)
        # Some servers send both the reasoning and its summary, which would mix.
        if text and item.source in ("", event.type):
            await self._writer.reasoning(text)
            item.source = event.type

    def _call_of(self, item: _OpenItem) -> int:
        """The number of the tool call that ``item`` is."""
        if item.call is None:
            item.call = self._calls
            self._calls += 1
        return item.call

    async def _add_call(self, item: _OpenItem, content: _Item | None = None, arguments: str = "") -> None:
        content = content or _Item()
        item.source = item.source or ("arguments" if arguments else "")
        await self._writer.tool_call(
            self._call_of(item), id=_call_id(content), name=content.name or "", arguments=arguments
        )

    async def _complete_call(self, item: _OpenItem, content: _Item) -> None:
        """Add what the deltas of a call have left out."""
        call, arguments = self._call_of(item), _arguments(content.arguments)
        item.source = item.source or ("arguments" if arguments else "")
        await self._writer.complete_call(call, id=_call_id(content), name=content.name or "", arguments=arguments)

    async def _finish_item(self, content: _Item, raw: msgspec.Raw, item: _OpenItem) -> None:  # noqa: ASYNC910
        """Pass on the content of a whole item that no delta has brought."""
        is_new, item.is_done = not item.is_done, True
        self._is_cut_off = self._is_cut_off or content.status == "incomplete"
        if content.type == "function_call":
            item.first = item.first or content
            await self._complete_call(item, content)
        elif content.type == "message":
            parts = [_Part(content.content)] if isinstance(content.content, str) else content.content or []
            self._refused = self._refused or any(part.refusal for part in parts)
            missing = missing_end("".join(item.text), "".join(part.text or part.refusal or "" for part in parts))
            if missing:
                await self._add_text(missing, item)
                item.source = item.source or "done"
            if content.phase and item.source and is_new:
                await self._add_echo(ResponsesEcho(self._model, phase=content.phase))
        elif content.type == "reasoning" and is_new:
            thoughts = [] if isinstance(content.content, str) else content.content or []
            if not item.source:
                texts = [part.text for part in content.summary or thoughts if part.text]
                if texts:
                    await self._writer.reasoning(PARAGRAPH.join(texts))
            # An item with only an id is useless: the server stores none that it could find by it.
            if content.encrypted_content or content.content:
                await self._add_echo(ResponsesEcho(self._model, item=_resendable(_object_in(raw))))

    async def _add_echo(self, echo: ResponsesEcho) -> None:
        await self._writer.reasoning("", signature=json_text(echo))

    # --------------------------------------------------------------------------- end

    async def _end(self, raw: bytes | msgspec.Raw, event: str) -> Stop:  # noqa: ASYNC910
        """The stop of the response in ``raw``, which the event ``response.{event}`` has brought."""
        response = _Response()
        if bytes(raw) != b"null":
            response = decode_event(_response_decoder, _Response, raw, model=self._name)
        if response.usage is not None:
            # A response that failed has used something, too.
            self._writer.report_usage(_usage(response.usage))
        status = response.status or event
        if response.error or status == "failed":
            raise failure_in_stream(self._name, response.error or {"message": "the response failed"}, show_code=True)
        if not status:
            raise error_in(bytes(raw), model=self._name, show_code=True)
        if status == "cancelled" or (not event and status not in ("completed", "incomplete")):
            raise ModelProtocolError(f"model {self._name!r} ended its response as {status!r}")
        await self._complete(response)
        reason: StopReason = "length" if self._is_cut_off else "end"
        if status == "incomplete":
            details = response.incomplete_details
            words = (details and details.reason) or "max_output_tokens"
            reason = stop_reason(words, self._writer, model=self._name)
        reason = "refusal" if self._refused and reason == "end" else "length" if reason == "paused" else reason
        return Stop(reason, _usage(response.usage or _Usage()), response.model or self._name)  # noqa: ASYNC910

    async def _complete(self, response: _Response) -> None:  # noqa: ASYNC910
        """Pass on the items of the whole response that no event has brought.

        Indexes and ids may differ from those of the events, so an item is found by its place among those of its kind.
        """
        places: dict[tuple[str, str | None], int] = {}
        for raw in response.output or ():
            content = self._decoded(raw)
            if content is None:
                continue
            place = places.get((content.type, content.name), 0)
            places[content.type, content.name] = place + 1
            item = self._known_item(content, place)
            if item is None:
                item = self._item_at(max(self._items, default=-1) + 1, content.type)
            if not item.is_done:
                await self._finish_item(content, raw, item)
        for item in self._by_kind.get("function_call", ()):
            if item.first is not None and not item.source and not item.is_done:
                await self._complete_call(item, item.first)
        if not self._writer.has_text and not self._writer.call_count:
            await self._writer.text(_text(response.output_text))

    def _known_item(self, content: _Item, place: int) -> _OpenItem | None:
        """The item of earlier events that ``content`` is; ``None`` if it is new.

        Args:
          content: the item, as the whole response has it.
          place: its place among the items of its kind and name: a call must not get the arguments of another.
        """
        known = self._by_kind.get(content.type, [])
        if content.type == "function_call":
            id = _call_id(content)
            for item in known:
                if id and item.first is not None and _call_id(item.first) == id:
                    return item
            known = [item for item in known if item.first is None or item.first.name in (None, content.name)]
        return known[place] if place < len(known) else None


def _resendable(item: dict[str, Any]) -> dict[str, Any]:
    """A reasoning item without the fields that servers send and refuse to receive: ``null`` and a status."""
    fields = {key: value for key, value in item.items() if value is not None and value != [] and key != "status"}
    return {**fields, "summary": fields.get("summary", [])}


def _object_in(raw: msgspec.Raw) -> dict[str, Any]:
    try:
        return _object_decoder.decode(raw)
    except (UnicodeError, msgspec.DecodeError):
        return cast("dict[str, Any]", json.loads(bytes(raw)))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _part_index(event: _Event) -> object:
    return event.content_index if isinstance(event.content_index, int) else 0


def _call_id(content: _Item) -> str:
    # The `call_id`, and not the item's own id: the result must name the call by it.
    id = content.id if content.call_id in (None, "") else content.call_id
    return "" if id is None else str(id)


def _arguments(value: Any) -> str:
    """The arguments as JSON text. Some servers send them as an object."""
    if value is None or isinstance(value, str):
        return value or ""
    return json_text(value or {})


def _usage(usage: _Usage) -> Usage:
    read, written = usage.input_tokens_details, usage.output_tokens_details
    return Usage(
        input_tokens=count(usage.input_tokens),
        output_tokens=count(usage.output_tokens),
        cached_tokens=count(read and read.cached_tokens),
        reasoning_tokens=count(written and written.reasoning_tokens),
    )
