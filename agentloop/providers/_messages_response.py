"""The answer of Anthropic's Messages API, piece by piece.

Lenient where servers that speak its protocol may differ: events and blocks that are unknown, fields that are missing
or ``null``, a message in one piece. Strict where a response would come out wrong: JSON that is none, an error, an end
that is missing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentloop.errors import ModelConnectionError, ModelProtocolError
from agentloop.messages import StopReason, Usage
from agentloop.models import Reply, Stop
from agentloop.providers._events import WireEvents
from agentloop.providers._failures import failure_in_stream
from agentloop.providers._messages_blocks import MessagesEcho

__all__ = ["MessagesResponse"]

AFTER_FINISH_SECONDS = 5.0
"""For what may come after a response's stop reason: ``message_stop``."""
AFTER_STOP_SECONDS = 0.5
"""For the end of the connection after it. Nothing is missed but a connection to use again."""


class _Block(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw()


class _StopDetails(msgspec.Struct):
    explanation: str | None = None


class _Delta(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Message(msgspec.Struct):
    model: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: _Usage | None = None


class _Event(_Message):
    """An event, or a message in one piece."""

    type: str | None = None
    index: int | None = None
    message: Any = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    error: dict[str, Any] | str | None = None


_decode = JsonDecoder(_Event).decode
_encoder = msgspec.json.Encoder()

_REASONS: dict[str, StopReason] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    # The server's own tools took too many turns: what there is was cut off, as by a limit.
    "pause_turn": "length",
    "refusal": "refusal",
}


class _Open:
    """A content block that has begun."""

    __slots__ = ("arguments", "call", "given", "kind", "signature")

    def __init__(self, block: _Block, call: int | None) -> None:
        self.kind = block.type
        self.call = call
        """Which of the response's tool calls it is; ``None`` if it is none."""
        self.given = bytes(block.input)
        """The arguments that the block began with: ``{}`` as a rule, and pieces of the real ones follow."""
        self.arguments = False
        """Whether a piece of its arguments came."""
        self.signature = block.signature


class MessagesResponse:
    """A response in the making."""

    __slots__ = (
        "_calls",
        "_done",
        "_finish",
        "_model",
        "_name",
        "_open",
        "_prefix",
        "_refusal",
        "_reply",
        "_said",
        "_usage",
    )

    def __init__(self, *, name: str, model: str, prefix: str | None, reply: Reply) -> None:
        self._name = name
        self._model = model
        self._prefix = prefix
        self._reply = reply
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._finish: str | None = None
        self._refusal = ""
        """What the server says of why the model refused."""
        self._done = False
        self._said = False
        self._usage = _Usage()

    async def read(self, events: WireEvents) -> Stop:
        """Tell ``events`` as they come, and say how the response ended.

        Raises:
          ModelError: see `agentloop.providers.anthropic.Anthropic.respond`.
        """
        stop_model = ""
        async for data in events:
            if self._done:
                continue
            event = self._decoded(data)
            if event.error is not None or event.type == "error":
                error = event.error if isinstance(event.error, dict) else {"message": event.error or event.message}
                raise failure_in_stream(self._name, error)
            message = event if event.type == "message" else _message_in(event)
            if message is not None:
                stop_model = message.model or stop_model
                self._count(message.usage)
                for index, block in enumerate(message.content or ()):
                    await self._begin(index, block)
                    await self._end(index)
                await self._finish_with(message, events)
            else:
                await self._take(event, events)
        if self._finish is None and not self._done and not events.is_json:
            raise ModelConnectionError(f"model {self._name!r}: the stream ended before the response did")
        reason: StopReason = _REASONS.get(self._finish or "end_turn", "end")
        if reason == "refusal" and self._refusal and not self._said:
            await self._reply.text(self._refusal)
        return Stop(reason, _total(self._usage), stop_model or self._name)

    def _decoded(self, data: bytes) -> _Event:
        try:
            return _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ModelProtocolError(f"model {self._name!r} sent {data[:200]!r}: {error}") from error

    async def _take(self, event: _Event, events: WireEvents) -> None:  # noqa: ASYNC910
        index = event.index or 0
        match event.type:
            case "content_block_start":
                await self._begin(index, event.content_block or _Block())
            case "content_block_delta":
                await self._tell(index, event.delta or _Delta())
            case "content_block_stop":
                await self._end(index)
            case "message_delta":
                self._count(event.usage)
                await self._finish_with(event.delta or _Delta(), events)
            case "message_stop":
                await self._end_all()
                self._done = True
                events.settle(AFTER_STOP_SECONDS)
            case "ping":
                await self._live()
            case _:
                pass  # there may be new events

    async def _begin(self, index: int, block: _Block) -> None:  # noqa: ASYNC910
        call: int | None = None
        if block.type == "tool_use":
            call = self._calls
            self._calls += 1
            await self._reply.tool_call(call, id=block.id or "", name=block.name or "")
        elif block.type == "redacted_thinking":
            await self._keep(MessagesEcho(self._model, redacted=block.data or "", prefix=self._prefix))
        self._open[index] = _Open(block, call)
        await self._tell_text(block)

    async def _tell(self, index: int, delta: _Delta) -> None:  # noqa: ASYNC910
        block = self._open.get(index)
        await self._tell_text(delta)
        if block is None:
            return
        if delta.signature:
            block.signature = delta.signature
        # Also of tools that the server runs itself: those are none of ours.
        if block.call is not None and delta.partial_json:
            block.arguments = True
            await self._reply.tool_call(block.call, arguments=delta.partial_json)

    async def _tell_text(self, piece: _Block | _Delta) -> None:  # noqa: ASYNC910
        if piece.thinking:
            await self._reply.reasoning(piece.thinking)
        if piece.text:
            self._said = True
            await self._reply.text(piece.text)

    async def _end(self, index: int) -> None:  # noqa: ASYNC910
        block = self._open.pop(index, None)
        if block is None:
            return
        if block.kind == "thinking" and block.signature:
            await self._keep(MessagesEcho(self._model, signature=block.signature, prefix=self._prefix))
        if block.call is not None and not block.arguments:
            given = "" if block.given == b"null" else block.given.decode()
            await self._reply.tool_call(block.call, arguments=given or "{}")

    async def _keep(self, echo: MessagesEcho) -> None:
        await self._reply.reasoning("", signature=_encoder.encode(echo).decode())

    async def _end_all(self) -> None:  # noqa: ASYNC910
        for index in list(self._open):
            await self._end(index)

    async def _live(self) -> None:  # noqa: ASYNC910
        """Tell that the model is at work, where there is nothing else to tell.

        Of thoughts that it keeps to itself, and of arguments that the server holds back until they are whole, there
        is no sign but pings.
        """
        for block in self._open.values():
            if block.kind == "thinking":
                await self._reply.reasoning("")
            elif block.call is not None:
                await self._reply.tool_call(block.call)

    async def _finish_with(self, ending: _Message | _Delta, events: WireEvents) -> None:  # noqa: ASYNC910
        if ending.stop_reason is None or self._finish is not None:
            return
        self._finish = ending.stop_reason
        if ending.stop_details is not None:
            self._refusal = ending.stop_details.explanation or ""
        await self._end_all()
        events.settle(AFTER_FINISH_SECONDS)

    def _count(self, usage: _Usage | None) -> None:
        """Counts are totals so far, so the last one given counts."""
        for field in _Usage.__struct_fields__ if usage is not None else ():
            value = getattr(usage, field)
            if value is not None:
                setattr(self._usage, field, value)


def _message_in(event: _Event) -> _Message | None:
    """The message that a stream begins with: without content, as a rule."""
    if event.type != "message_start":
        return None
    try:
        return msgspec.convert(event.message, _Message)
    except msgspec.ValidationError:
        return None


def _total(usage: _Usage) -> Usage:
    # The API counts what it read from the cache, and what it wrote there, apart from the rest.
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details
    return Usage(
        input_tokens=(usage.input_tokens or 0) + cached + written,
        output_tokens=usage.output_tokens or 0,
        cached_tokens=cached,
        reasoning_tokens=(details and details.thinking_tokens) or 0,
        cache_written_tokens=written,
    )
