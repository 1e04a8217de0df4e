"""The answer to a chat completion request, piece by piece.

Lenient wherever servers were seen to differ: fields that are missing, ``null`` or of another type than OpenAI's,
tool calls without an index or an id, several choices, a message in one piece. Strict where a response would come
out wrong: JSON that is none, an error, an end that is missing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentloop.errors import ModelConnectionError, ModelProtocolError
from agentloop.messages import StopReason, Usage
from agentloop.models import Reply, Stop
from agentloop.providers._chat_request import ChatEcho
from agentloop.providers._events import WireEvents
from agentloop.providers._failures import failure_in_stream

__all__ = ["ChatResponse"]

AFTER_FINISH_SECONDS = 5.0
"""For what may come after a response's finish: its usage."""
AFTER_DONE_SECONDS = 0.5
"""For the end of the connection after ``[DONE]``. Nothing is missed but a connection to use again."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: dict[str, Any] | None = None


class _Part(msgspec.Struct):
    text: str | None = None
    thinking: str | list[_Part] | None = None


class _Delta(msgspec.Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    reasoning_details: list[dict[str, Any]] | None = None
    tool_calls: list[_Call] | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: int | None = None
    cached_tokens: int | None = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: dict[str, Any] | str | None = None
    object: str | None = None
    message: Any = None
    code: Any = None


_decode = JsonDecoder(_Chunk).decode
_encoder = msgspec.json.Encoder()

_REASONS: dict[str, StopReason] = {
    "stop": "end",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "refusal",
    "refusal": "refusal",
}


class ChatResponse:
    """A response in the making."""

    __slots__ = ("_calls", "_details", "_done", "_finish", "_model", "_name", "_refused", "_reply", "_usage")

    def __init__(self, *, name: str, model: str, reply: Reply) -> None:
        self._name = name
        self._reply = reply
        self._calls = _Calls()
        self._details: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._done = False
        self._refused = False
        self._model = model
        self._usage = Usage()

    async def read(self, events: WireEvents) -> Stop:
        """Tell ``events`` as they come, and say how the response ended.

        Raises:
          ModelError: see `agentloop.providers.openai_chat.OpenAIChat.respond`.
        """
        stop_model = ""
        async for data in events:
            if self._done:
                continue
            if data.strip() == b"[DONE]":
                self._done = True
                events.settle(AFTER_DONE_SECONDS)
                continue
            chunk = self._decoded(data)
            if chunk.error is not None or chunk.object == "error":
                error = chunk.error if chunk.error is not None else {"message": chunk.message, "code": chunk.code}
                raise failure_in_stream(self._name, error)
            stop_model = chunk.model or stop_model
            if chunk.usage is not None:
                self._usage = _usage(chunk.usage)
            for choice in chunk.choices or ():
                # Of several answers to choose from, the first: they would run into one another.
                if choice.index:
                    continue
                delta = choice.delta or choice.message
                if delta is not None:
                    await self._tell(delta)
                if choice.usage is not None:
                    self._usage = _usage(choice.usage)
                if choice.finish_reason and self._finish is None:
                    self._finish = choice.finish_reason.lower()
                    events.settle(AFTER_FINISH_SECONDS)
        if self._finish is None and not self._done and not events.is_json:
            raise ModelConnectionError(f"model {self._name!r}: the stream ended before the response did")
        if self._finish == "error":
            raise ModelProtocolError(f"model {self._name!r} ended its response with an error that it did not name")
        echo = ChatEcho(self._model, self._details, self._calls.extra)
        if echo.details or echo.calls:
            await self._reply.reasoning("", signature=_encoder.encode(echo).decode())
        reason: StopReason = "refusal" if self._refused else _REASONS.get(self._finish or "stop", "end")
        return Stop(reason, self._usage, stop_model or self._name)

    def _decoded(self, data: bytes) -> _Chunk:
        try:
            return _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ModelProtocolError(f"model {self._name!r} sent {data[:200]!r}: {error}") from error

    async def _tell(self, delta: _Delta) -> None:  # noqa: ASYNC910
        reply = self._reply
        thought = delta.reasoning_content or delta.reasoning
        if thought and isinstance(thought, str):
            await reply.reasoning(thought)
        if delta.content:
            if isinstance(delta.content, str):
                await reply.text(delta.content)
            else:
                for part in delta.content:
                    await self._tell_part(part)
        if delta.refusal:
            self._refused = True
            await reply.text(delta.refusal)
        for detail in delta.reasoning_details or ():
            _join_detail(self._details, detail)
        for piece in delta.tool_calls or ():
            function = piece.function or _Function()
            arguments = function.arguments or ""
            if not isinstance(arguments, str):
                arguments = _encoder.encode(arguments).decode()
            index = self._calls.place(piece, function.name or "", arguments)
            await reply.tool_call(index, id=piece.id or "", name=function.name or "", arguments=arguments)

    async def _tell_part(self, part: _Part) -> None:  # noqa: ASYNC910
        """Tell a part of a content that is a list, as Mistral's models send it when they reason."""
        if part.text:
            await self._reply.text(part.text)
        thoughts = [_Part(part.thinking)] if isinstance(part.thinking, str) else part.thinking
        for thought in thoughts or ():
            if thought.text:
                await self._reply.reasoning(thought.text)


class _Slot:
    __slots__ = ("arguments", "id", "index")

    def __init__(self, index: int, id: str) -> None:
        self.index = index
        self.id = id
        self.arguments: list[str] = []


class _Calls:
    """Tells which call a piece belongs to.

    By OpenAI's rules that is its ``index``. But there are servers that send none, that send 0 for every call, that
    send no ids, or a new id with each piece: so a call begins where there is a name, and either a new id, or no id
    and nothing left to say of the call before.
    """

    __slots__ = ("_count", "_last", "_slots", "extra")

    def __init__(self) -> None:
        self._slots: dict[int, _Slot] = {}
        self._last: _Slot | None = None
        self._count = 0
        self.extra: dict[int, dict[str, Any]] = {}
        """The ``extra_content`` of calls, by index."""

    def place(self, piece: _Call, name: str, arguments: str) -> int:
        """The index, counted from 0 without gaps, of the call that ``piece`` belongs to."""
        slot = self._last if piece.index is None else self._slots.get(piece.index)
        if slot is None or (name and self._begins(slot, piece.id)):
            slot = _Slot(self._count, piece.id or "")
            self._count += 1
            if piece.index is not None:
                self._slots[piece.index] = slot
        self._last = slot
        slot.arguments.append(arguments)
        if piece.extra_content:
            self.extra[slot.index] = piece.extra_content
        return slot.index

    def _begins(self, slot: _Slot, id: str | None) -> bool:
        """Whether a piece with a name, and this id, begins another call than that of ``slot``."""
        if id and slot.id:
            return id != slot.id
        return _is_json("".join(slot.arguments))


def _is_json(text: str) -> bool:
    try:
        decode_json(text)
    except msgspec.DecodeError:
        return False
    return True


def _join_detail(details: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    """Add a piece of OpenRouter's reasoning details: texts of one block join, other fields count where given."""
    last = details[-1] if details else None
    if last is None or last.get("type") != piece.get("type") or last.get("index") != piece.get("index"):
        details.append(dict(piece))
        return
    for field, value in piece.items():
        if field in ("text", "summary", "data") and isinstance(value, str) and isinstance(last.get(field), str):
            last[field] += value
        elif value is not None:
            last[field] = value


def _usage(usage: _Usage) -> Usage:
    read, written = usage.prompt_tokens or 0, usage.completion_tokens or 0
    details = usage.prompt_tokens_details
    cached = (details and details.cached_tokens) or usage.prompt_cache_hit_tokens or usage.cached_tokens or 0
    details = usage.completion_tokens_details
    reasoning = (details and details.reasoning_tokens) or 0
    if reasoning and usage.total_tokens == read + written + reasoning:
        written += reasoning  # some providers count it apart
    return Usage(input_tokens=read, output_tokens=written, cached_tokens=cached, reasoning_tokens=reasoning)
