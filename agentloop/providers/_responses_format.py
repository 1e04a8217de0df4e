"""The format of OpenAI's Responses API: requests encoded, responses read.

Responses are read leniently wherever servers were seen to differ: fields that are missing or ``null``, items without
deltas or only at the end, ids that change from event to event, events of unknown types. They are read strictly where a
lenient reading would spoil the response: broken JSON, an error, an end that is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
from attrs import Factory, frozen

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder
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
from agentloop.models import ModelRequest, ModelSettings, Reply, Stop, ToolSpec
from agentloop.providers._dialects import fit_media, openai_effort, reasons
from agentloop.providers._events import WireEvents, decode_event
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
from agentloop.providers._media import DOCUMENTS, MediaRules
from agentloop.providers._structured_output import openai_output
from agentloop.providers._tool_schema import PLAIN, fit_parameters
from agentloop.providers._wire_model import EncodedMessages

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
    reads_media: bool | None = None
    """Whether the model can see pictures and read documents; ``None`` lets its name decide."""
    rules: WireRules = Factory(lambda self: fit_media(RULES, self.model, self.reads_media), takes_self=True)
    """What the wire, and the model behind it, accept in a transcript."""

    def exchange(
        self, request: ModelRequest, encoded: EncodedMessages, *, name: str, reply: Reply
    ) -> tuple[bytes, _ResponsesResponse]:
        """See `WireFormat.exchange`."""
        items: list[Any] = [item for message in encoded.encode(request.messages, self._items) for item in message]
        if not items:
            items = [_user((Text(CONTINUE),))]
        body: dict[str, Any] = {"model": self.model, "input": items, "stream": True, "store": False}
        if reasons(self.model) if self.encrypted_reasoning is None else self.encrypted_reasoning:
            body["include"] = ["reasoning.encrypted_content"]
        if request.instructions:
            body["instructions"] = request.instructions
        if request.tools:
            body["tools"] = [_tool(spec) for spec in request.tools]
        if request.output is not None:
            output = openai_output(request.output, PLAIN) or {}
            body["text"] = {"format": {"type": "json_schema", **output}}
        body.update(self._settings(request.settings, with_tools=bool(request.tools)))
        body.update(request.settings.extra)
        return encode_body(body), _ResponsesResponse(name=name, model=self.model, reply=reply)

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

    def _items(self, message: Message) -> tuple[msgspec.Raw, ...]:
        message = self.rules.fit(message)
        if isinstance(message, UserMessage):
            items = [_user(message.parts)] if message.parts else []
        elif isinstance(message, AssistantMessage):
            items = self._assistant(message)
        else:
            items = [_result(message)]
        return tuple(msgspec.Raw(encode_body(item)) for item in items)

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


def _tool(spec: ToolSpec) -> dict[str, Any]:
    # Explicitly not strict: by default the server rewrites the schema so that all properties are required.
    return {
        "type": "function",
        "name": spec.name,
        "description": spec.description,
        "parameters": fit_parameters(spec, PLAIN),
        "strict": False,
    }


def _user(parts: Iterable[UserPart]) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": _content(parts)}


def _content(parts: Iterable[UserPart]) -> str | list[dict[str, Any]]:
    content = [_part(part) for part in parts]
    if all(part["type"] == "input_text" for part in content):
        return "\n\n".join(part["text"] for part in content)
    return content


def _part(part: UserPart) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": data_url(part), "detail": "auto"}
    text = file_text(part)
    if text is not None:
        return {"type": "input_text", "text": text}
    if part.data is None:
        return {"type": "input_file", "file_url": data_url(part)}
    return {"type": "input_file", "filename": part.name, "file_data": data_url(part)}


def _result(result: ToolResult) -> dict[str, Any]:
    parts = result.parts or (Text(NO_OUTPUT),)
    if result.status != "ok":
        # The format has no other way to mark a call as failed.
        first = parts[0]
        parts = (Text(f"Error: {first.text}"), *parts[1:]) if isinstance(first, Text) else (Text("Error:"), *parts)
    return {"type": "function_call_output", "call_id": result.call_id, "output": _content(parts)}


# --------------------------------------------------------------------------------- response


AFTER_END_SECONDS = 0.5
"""Seconds to wait for the end of the answer after the response has ended. Only an answer that has ended frees its
connection for the next request."""
PARAGRAPH = "\n\n"
"""Separates two messages of a response, and two parts of a summary, whose texts would run into one another."""


class _Event(msgspec.Struct):
    """Any event. Fields that only some types have accept any value: an unknown type may use them otherwise."""

    type: str = ""
    output_index: int | None = None
    delta: Any = None
    arguments: Any = None
    item: msgspec.Raw = msgspec.Raw(b"null")
    response: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None
    message: Any = None
    code: Any = None


class _Part(msgspec.Struct):
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct):
    type: str = ""
    call_id: str | None = None
    id: str | None = None
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    content: list[_Part] | None = None
    summary: list[_Part] | None = None
    encrypted_content: str | None = None
    phase: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    status: str | None = None
    model: str | None = None
    error: Any = None
    incomplete_details: _Incomplete | None = None
    usage: _Usage | None = None
    output: list[msgspec.Raw] | None = None


_event_decoder = JsonDecoder(_Event)
_item_decoder = JsonDecoder(_Item | None)
_response_decoder = JsonDecoder(_Response | None)
_object_decoder = JsonDecoder(dict[str, Any])

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})


class _OpenItem:
    """An item of the response, of which events may still arrive."""

    __slots__ = ("call", "source")

    def __init__(self) -> None:
        self.call: int | None = None
        """The number of the tool call that it is, in the response; ``None`` if it is none."""
        self.source = ""
        """The type of the events that its content came from; empty before the first. One item may come in two forms,
        such as reasoning and its summary, or deltas and the whole; only the first form counts."""


class _ResponsesResponse:
    """Reads one response."""

    __slots__ = ("_calls", "_items", "_last_index", "_last_message", "_model", "_name", "_refused", "_reply")

    def __init__(self, *, name: str, model: str, reply: Reply) -> None:
        self._name = name
        self._model = model
        self._reply = reply
        self._items: dict[int, _OpenItem] = {}
        self._last_index = -1
        """The index of the last event's item."""
        self._calls = 0
        self._last_message: _OpenItem | None = None
        """The message that the last text belongs to."""
        self._refused = False

    async def read(self, events: WireEvents, /) -> Stop:
        """See `ResponseReader.read`."""
        stop: Stop | None = None
        async for data in events:
            if stop is not None or data.strip() == b"[DONE]":
                continue
            event = decode_event(_event_decoder, data, model=self._name)
            if events.is_json and not event.type:
                stop = await self._end(data, "")
            elif event.type in _ENDS:
                stop = await self._end(event.response, event.type.removeprefix("response."))
                events.settle(AFTER_END_SECONDS)
            elif event.type == "error" or (not event.type and event.error is not None):
                error = event.error or {"message": event.message, "code": event.code}
                raise failure_in_stream(self._name, error, show_code=True)
            else:
                await self._read_event(event)
        if stop is None:
            raise ModelConnectionError(f"model {self._name!r}: the stream ended before the response did")
        return stop

    async def _read_event(self, event: _Event) -> None:  # noqa: ASYNC910
        """Pass on the deltas in ``event``. Events of unknown types are dropped."""
        match event.type:
            case "response.output_text.delta":
                await self._read_text(event, self._item(event))
            case "response.refusal.delta":
                self._refused = True
                await self._read_text(event, self._item(event))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                await self._read_reasoning(event, self._item(event))
            case "response.reasoning_summary_part.added":
                if self._item(event).source == "response.reasoning_summary_text.delta":
                    await self._reply.reasoning(PARAGRAPH)
            case "response.function_call_arguments.delta":
                await self._add_call(self._item(event), arguments=_text(event.delta))
            case "response.function_call_arguments.done":
                item = self._item(event)
                if not item.source:
                    await self._add_call(item, arguments=_text(event.arguments))
            case "response.output_item.added":
                content = decode_event(_item_decoder, event.item, model=self._name)
                if content is not None:
                    if event.output_index is None:
                        self._last_index += 1
                    item = self._item(event)
                    if content.type == "function_call":
                        await self._add_call(item, content)
            case "response.output_item.done":
                await self._finish_item(event.item, self._item(event))
            case _:
                pass

    # ------------------------------------------------------------------------- items

    def _item(self, event: _Event) -> _OpenItem:
        """The item of ``event``, by its index: some servers change an item's id with each event."""
        if event.output_index is not None:
            self._last_index = event.output_index
        return self._items.setdefault(self._last_index, _OpenItem())

    async def _read_text(self, event: _Event, item: _OpenItem) -> None:  # noqa: ASYNC910
        text = _text(event.delta)
        if text:
            await self._add_text(text, item)
            item.source = event.type

    async def _add_text(self, text: str, item: _OpenItem) -> None:  # noqa: ASYNC910
        if self._last_message is not None and self._last_message is not item:
            await self._reply.text(PARAGRAPH)
        self._last_message = item
        await self._reply.text(text)

    async def _read_reasoning(self, event: _Event, item: _OpenItem) -> None:  # noqa: ASYNC910
        text = _text(event.delta)
        # Some servers send both the reasoning and its summary, which would mix.
        if text and item.source in ("", event.type):
            await self._reply.reasoning(text)
            item.source = event.type

    async def _add_call(self, item: _OpenItem, content: _Item | None = None, arguments: str = "") -> None:
        if item.call is None:
            item.call = self._calls
            self._calls += 1
        if arguments:
            item.source = "arguments"
        content = content or _Item()
        # The `call_id`, and not the item's own id: the result must name the call by it.
        await self._reply.tool_call(
            item.call, id=content.call_id or content.id or "", name=content.name or "", arguments=arguments
        )

    async def _finish_item(self, raw: msgspec.Raw, item: _OpenItem) -> None:  # noqa: ASYNC910
        """Pass on the content of a whole item that no delta has brought."""
        content = decode_event(_item_decoder, raw, model=self._name)
        if content is None:
            return  # noqa: ASYNC910
        if content.type == "function_call":
            arguments = content.arguments or ""
            if not isinstance(arguments, str):
                arguments = _encoder.encode(arguments).decode()
            await self._add_call(item, content, "" if item.source else arguments)
        elif content.type == "message":
            texts = [part.text or part.refusal or "" for part in content.content or ()]
            self._refused = self._refused or any(part.refusal for part in content.content or ())
            if not item.source and any(texts):
                await self._add_text("".join(texts), item)
                item.source = "done"
            if content.phase and item.source:
                await self._add_echo(ResponsesEcho(self._model, phase=content.phase))
        elif content.type == "reasoning":
            if not item.source:
                texts = [part.text for part in content.summary or content.content or () if part.text]
                if texts:
                    await self._reply.reasoning(PARAGRAPH.join(texts))
            # An item with only an id is useless: the server stores none that it could find by it.
            if content.encrypted_content or content.content:
                await self._add_echo(ResponsesEcho(self._model, item=_resendable(_object_decoder.decode(raw))))

    async def _add_echo(self, echo: ResponsesEcho) -> None:
        await self._reply.reasoning("", signature=_encoder.encode(echo).decode())

    # --------------------------------------------------------------------------- end

    async def _end(self, raw: bytes | msgspec.Raw, event: str) -> Stop:  # noqa: ASYNC910
        """The stop of the response in ``raw``, which the event ``response.{event}`` has brought."""
        response = decode_event(_response_decoder, raw, model=self._name) or _Response()
        status = response.status or event
        if response.error is not None or status == "failed":
            raise failure_in_stream(self._name, response.error or {"message": "the response failed"}, show_code=True)
        if status not in ("completed", "incomplete"):
            raise ModelProtocolError(
                f"model {self._name!r} ended its response as {status!r}"
                if status
                else f"model {self._name!r} sent JSON that is no response: {bytes(raw)[:200]!r}"
            )
        if not self._items:
            # Some servers send no events of items, and an answer that is one JSON text has none.
            for index, item in enumerate(response.output or ()):
                await self._finish_item(item, self._items.setdefault(index, _OpenItem()))
        reason: StopReason = "refusal" if self._refused else "end"
        if status == "incomplete":
            details = response.incomplete_details
            reason = "refusal" if details is not None and details.reason == "content_filter" else "length"
        return Stop(reason, _usage(response.usage or _Usage()), response.model or self._name)  # noqa: ASYNC910


def _resendable(item: dict[str, Any]) -> dict[str, Any]:
    """A reasoning item without the fields that servers send and refuse to receive: ``null`` and a status."""
    fields = {key: value for key, value in item.items() if value is not None and value != [] and key != "status"}
    return {**fields, "summary": fields.get("summary", [])}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _usage(usage: _Usage) -> Usage:
    read, written = usage.input_tokens_details, usage.output_tokens_details
    return Usage(
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        cached_tokens=(read and read.cached_tokens) or 0,
        reasoning_tokens=(written and written.reasoning_tokens) or 0,
    )
