"""The answer of OpenAI's Responses API, event by event.

Lenient wherever servers were seen to differ: fields that are missing or ``null``, items that come without their
pieces or only at the end, ids that change from event to event, events of unknown types. Strict where a response
would come out wrong: JSON that is none, an error, an end that is missing.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from agentloop.errors import ModelConnectionError, ModelProtocolError
from agentloop.messages import StopReason, Usage
from agentloop.models import Reply, Stop
from agentloop.providers._events import WireEvents
from agentloop.providers._failures import failure_in_stream
from agentloop.providers._responses_request import ResponsesEcho

__all__ = ["ResponsesResponse"]

AFTER_END_SECONDS = 0.5
"""For the end of the connection after that of the response. Nothing is missed but a connection to use again."""
PARAGRAPH = "\n\n"
"""Between two messages of a response, and two parts of a summary: they would run into one another."""


class _Event(msgspec.Struct):
    """Any event. What only some have may be anything: an event of an unknown type is no error."""

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


_T = TypeVar("_T")

_event = JsonDecoder(_Event)
_item = JsonDecoder(_Item | None)
_response = JsonDecoder(_Response | None)
_object = JsonDecoder(dict[str, Any])
_encoder = msgspec.json.Encoder()

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})


class _Slot:
    """An item of the response, as far as it has come."""

    __slots__ = ("call", "shown")

    def __init__(self) -> None:
        self.call: int | None = None
        """Which tool call of the response it is."""
        self.shown = ""
        """The type of the events that told what is in it; empty if none did yet."""


class ResponsesResponse:
    """A response in the making."""

    __slots__ = ("_calls", "_last", "_model", "_name", "_refused", "_reply", "_said", "_slots")

    def __init__(self, *, name: str, model: str, reply: Reply) -> None:
        self._name = name
        self._model = model
        self._reply = reply
        self._slots: dict[int, _Slot] = {}
        self._last = -1
        """The index of the item that the last event was about."""
        self._calls = 0
        self._said: _Slot | None = None
        """The message that spoke last."""
        self._refused = False

    async def read(self, events: WireEvents) -> Stop:
        """Tell ``events`` as they come, and say how the response ended.

        Raises:
          ModelError: see `agentloop.providers.openai_responses.OpenAIResponses.respond`.
        """
        stop: Stop | None = None
        async for data in events:
            if stop is not None or data.strip() == b"[DONE]":
                continue
            event = self._decoded(_event, data)
            if events.is_json and not event.type:
                stop = await self._end(data, "")
            elif event.type in _ENDS:
                stop = await self._end(event.response, event.type.removeprefix("response."))
                events.settle(AFTER_END_SECONDS)
            elif event.type == "error" or (not event.type and event.error is not None):
                error = event.error or {"message": event.message, "code": event.code}
                raise failure_in_stream(self._name, error, show_code=True)
            else:
                await self._take(event)
        if stop is None:
            raise ModelConnectionError(f"model {self._name!r}: the stream ended before the response did")
        return stop

    async def _take(self, event: _Event) -> None:  # noqa: ASYNC910
        """Tell what ``event`` says. What is not known here is of no use here."""
        match event.type:
            case "response.output_text.delta":
                await self._say(event, self._slot(event))
            case "response.refusal.delta":
                self._refused = True
                await self._say(event, self._slot(event))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                await self._think(event, self._slot(event))
            case "response.reasoning_summary_part.added":
                if self._slot(event).shown == "response.reasoning_summary_text.delta":
                    await self._reply.reasoning(PARAGRAPH)
            case "response.function_call_arguments.delta":
                await self._call(self._slot(event), arguments=_text(event.delta))
            case "response.function_call_arguments.done":
                slot = self._slot(event)
                if not slot.shown:
                    await self._call(slot, arguments=_text(event.arguments))
            case "response.output_item.added":
                item = self._decoded(_item, event.item)
                if item is not None:
                    slot = self._begin(event)
                    if item.type == "function_call":
                        await self._call(slot, item)
            case "response.output_item.done":
                await self._finish(event.item, self._slot(event))
            case _:
                pass

    # ------------------------------------------------------------------------- items

    def _slot(self, event: _Event) -> _Slot:
        """The item that ``event`` is about. By its place: there are servers whose ids change with each event."""
        if event.output_index is not None:
            self._last = event.output_index
        return self._slots.setdefault(self._last, _Slot())

    def _begin(self, event: _Event) -> _Slot:
        if event.output_index is None:
            self._last += 1
        return self._slot(event)

    async def _say(self, event: _Event, slot: _Slot) -> None:  # noqa: ASYNC910
        text = _text(event.delta)
        if text:
            await self._tell_text(text, slot)
            slot.shown = event.type

    async def _tell_text(self, text: str, slot: _Slot) -> None:  # noqa: ASYNC910
        if self._said is not None and self._said is not slot:
            await self._reply.text(PARAGRAPH)
        self._said = slot
        await self._reply.text(text)

    async def _think(self, event: _Event, slot: _Slot) -> None:  # noqa: ASYNC910
        text = _text(event.delta)
        # Some servers send the reasoning and its summary: one of them is enough, and they would mix.
        if text and slot.shown in ("", event.type):
            await self._reply.reasoning(text)
            slot.shown = event.type

    async def _call(self, slot: _Slot, item: _Item | None = None, arguments: str = "") -> None:
        if slot.call is None:
            slot.call = self._calls
            self._calls += 1
        if arguments:
            slot.shown = "arguments"
        item = item or _Item()
        # Its `call_id`, and not the item's own: it is the one by which the result is known.
        await self._reply.tool_call(
            slot.call, id=item.call_id or item.id or "", name=item.name or "", arguments=arguments
        )

    async def _finish(self, raw: msgspec.Raw, slot: _Slot) -> None:  # noqa: ASYNC910
        """Tell what is still to be told of an item that is whole."""
        item = self._decoded(_item, raw)
        if item is None:
            return  # noqa: ASYNC910
        if item.type == "function_call":
            arguments = item.arguments or ""
            if not isinstance(arguments, str):
                arguments = _encoder.encode(arguments).decode()
            await self._call(slot, item, "" if slot.shown else arguments)
        elif item.type == "message":
            told = [part.text or part.refusal or "" for part in item.content or ()]
            self._refused = self._refused or any(part.refusal for part in item.content or ())
            if not slot.shown and any(told):
                await self._tell_text("".join(told), slot)
                slot.shown = "done"
            if item.phase and slot.shown:
                await self._keep(ResponsesEcho(self._model, phase=item.phase))
        elif item.type == "reasoning":
            if not slot.shown:
                told = [part.text for part in item.summary or item.content or () if part.text]
                if told:
                    await self._reply.reasoning(PARAGRAPH.join(told))
            # By an id alone the server would not find it: it stores nothing.
            if item.encrypted_content or item.content:
                await self._keep(ResponsesEcho(self._model, item=_to_send_back(_object.decode(raw))))

    async def _keep(self, echo: ResponsesEcho) -> None:
        await self._reply.reasoning("", signature=_encoder.encode(echo).decode())

    # --------------------------------------------------------------------------- end

    async def _end(self, raw: bytes | msgspec.Raw, ended: str) -> Stop:  # noqa: ASYNC910
        response = self._decoded(_response, raw) or _Response()
        status = response.status or ended
        if response.error is not None or status == "failed":
            error = response.error or {"message": "the response failed"}
            raise failure_in_stream(self._name, error, show_code=True)
        if status not in ("completed", "incomplete"):
            raise ModelProtocolError(
                f"model {self._name!r} ended its response as {status!r}"
                if status
                else f"model {self._name!r} sent JSON that is no response: {bytes(raw)[:200]!r}"
            )
        if not self._slots:
            # There are servers that send no events of items, and an answer that is no stream has none.
            for index, item in enumerate(response.output or ()):
                await self._finish(item, self._slots.setdefault(index, _Slot()))
        reason: StopReason = "refusal" if self._refused else "end"
        if status == "incomplete":
            details = response.incomplete_details
            reason = "refusal" if details is not None and details.reason == "content_filter" else "length"
        return Stop(reason, _usage(response.usage or _Usage()), response.model or self._name)  # noqa: ASYNC910

    def _decoded(self, decoder: msgspec.json.Decoder[_T], data: bytes | msgspec.Raw) -> _T:
        try:
            return decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ModelProtocolError(f"model {self._name!r} sent {bytes(data)[:200]!r}: {error}") from error


def _to_send_back(item: dict[str, Any]) -> dict[str, Any]:
    """A reasoning item as it came, but without what servers say and refuse to hear: ``null`` and a status."""
    kept = {key: value for key, value in item.items() if value is not None and value != [] and key != "status"}
    return {**kept, "summary": kept.get("summary", [])}


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
