"""What every adapter must make of a response: the response as such, and each provider's way of writing it.

A `Wire` writes the same pieces as one provider sends them, its errors included. An `Adapter` gives a model that reads
a wire; to have one more tried by the tests, add it to those of `test_conformance`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Protocol, TypeAlias

import msgspec
from attrs import frozen

from agentloop.errors import ModelConnectionError, ModelError
from agentloop.messages import AssistantMessage, Reasoning, StopReason, Text, ToolCall, Usage
from agentloop.models import Model, OpenableModel
from agentloop.providers.anthropic import Anthropic
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.providers.openai_responses import OpenAIResponses
from tests.providers import chat, messages, responses
from tests.providers.chat import ask
from tests.providers.server import DONE, Handler, Peer, chunked, event, until_close

# ------------------------------------------------------------------------------ pieces


@frozen
class Said:
    text: str


@frozen
class Thought:
    text: str


@frozen
class Refused:
    text: str


@frozen
class Called:
    """A tool call begins. Its arguments follow, and other calls may come in between."""

    index: int
    id: str
    name: str


@frozen
class Argued:
    """A piece of a call's arguments."""

    index: int
    arguments: str


@frozen
class Quiet:
    """What a provider sends when there is nothing to tell."""


Piece: TypeAlias = Said | Thought | Refused | Called | Argued | Quiet


def parts_of(pieces: Sequence[Piece]) -> list[Reasoning | Text | ToolCall]:
    """The parts of the message that ``pieces`` spell out."""
    parts: list[Reasoning | Text | ToolCall] = []
    calls: dict[int, int] = {}
    for piece in pieces:
        last = parts[-1] if parts else None
        match piece:
            case Said(text) | Refused(text):
                if isinstance(last, Text):
                    parts[-1] = Text(last.text + text)
                else:
                    parts.append(Text(text))
            case Thought(text):
                if isinstance(last, Reasoning):
                    parts[-1] = Reasoning(last.text + text)
                else:
                    parts.append(Reasoning(text))
            case Called(index, id, name):
                calls[index] = len(parts)
                parts.append(ToolCall(id, name, ""))
            case Argued(index, arguments):
                call = parts[calls[index]]
                assert isinstance(call, ToolCall)
                parts[calls[index]] = ToolCall(call.id, call.name, call.arguments + arguments)
            case Quiet():
                pass
    return parts


def shown(message: AssistantMessage) -> list[Reasoning | Text | ToolCall]:
    """The parts of ``message``, without what is kept for the provider alone."""
    return [Reasoning(part.text) if isinstance(part, Reasoning) else part for part in message.parts]


# ------------------------------------------------------------------------------- wires


class Wire(Protocol):
    """How a provider writes a response, event by event, and its errors."""

    errors: Mapping[int, tuple[str, str]]
    """For each HTTP status that it answers with, the body, and the word in it that is most exact."""
    overflow: str
    """The body with which it refuses, with status 400, a prompt that is too long."""

    def begun(self, *pieces: Piece) -> list[bytes]:
        """The beginning of a response."""
        ...

    def whole(self, *pieces: Piece, stop: StopReason = "end", usage: Usage | None = None) -> list[bytes]:
        """A response with its end."""
        ...

    def failed(self, code: str, text: str) -> bytes:
        """An error in mid-stream. ``code`` is ``rate_limit`` or ``server``."""
        ...

    def ended_with(self, reason: str, *pieces: Piece) -> list[bytes]:
        """A response that ends with a reason in the server's own words."""
        ...

    def marked(self, *pieces: Piece) -> list[bytes]:
        """A response with the end marker, and without a reason or the end of its last block."""
        ...

    def counted(self, usage: Any, *pieces: Piece) -> list[bytes]:
        """A whole response with ``usage``: a value for each count, or what there is in the place of the object."""
        ...

    def closed(self, *pieces: Piece, text: str = "", calls: Sequence[ToolCall] = ()) -> list[bytes]:
        """A response whose closing events have all of its text and calls, of which ``pieces`` have come before."""
        ...


def _openai_error(message: str, type: str, code: str | None = None) -> str:
    return msgspec.json.encode({"error": {"message": message, "type": type, "param": None, "code": code}}).decode()


_OPENAI_ERRORS: Mapping[int, tuple[str, str]] = {
    401: (_openai_error("Incorrect API key", "invalid_request_error", "invalid_api_key"), "invalid_api_key"),
    402: (_openai_error("Insufficient Balance", "unknown_error"), "unknown_error"),
    403: (_openai_error("Not here", "request_forbidden", "unsupported_country"), "unsupported_country"),
    404: (_openai_error("No such model", "invalid_request_error", "model_not_found"), "model_not_found"),
    413: ("Request Entity Too Large", ""),
    429: (_openai_error("Slow down", "requests", "rate_limit_exceeded"), "rate_limit_exceeded"),
    500: (_openai_error("Sorry", "server_error"), "server_error"),
    503: ("<html>upstream connect error</html>", ""),
    529: ("", ""),
}


class ChatWire:
    """OpenAI's chat completions."""

    errors = _OPENAI_ERRORS
    overflow = _openai_error(
        "This model's maximum context length is 9 tokens.", "invalid_request_error", "context_length_exceeded"
    )
    _FINISH: ClassVar = {"end": "stop", "tool_calls": "tool_calls", "length": "length", "refusal": "stop"}

    def begun(self, *pieces: Piece) -> list[bytes]:
        return [event(chat.piece({"role": "assistant", "content": ""})), *map(self._piece, pieces)]

    def whole(self, *pieces: Piece, stop: StopReason = "end", usage: Usage | None = None) -> list[bytes]:
        counted = []
        if usage is not None:
            wire = {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.total_tokens,
                "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0},
            }
            counted = [chat.counted(**wire)]
        return [*self.begun(*pieces), chat.finished(self._FINISH[stop]), *counted, DONE]

    def failed(self, code: str, text: str) -> bytes:
        named = {"rate_limit": "rate_limit_exceeded", "server": "server_error"}[code]
        return event({"error": {"message": text, "type": named, "code": named}})

    def ended_with(self, reason: str, *pieces: Piece) -> list[bytes]:
        return [*self.begun(*pieces), chat.finished(reason), DONE]

    def marked(self, *pieces: Piece) -> list[bytes]:
        return [*self.begun(*pieces), DONE]

    def counted(self, usage: Any, *pieces: Piece) -> list[bytes]:
        fields = ("prompt_tokens", "completion_tokens", "total_tokens")
        values = usage if isinstance(usage, list) else dict.fromkeys(fields, usage)
        return [
            *self.begun(*pieces),
            chat.finished(),
            event({**chat.piece(), "choices": [], "usage": values}),
            DONE,
        ]

    def closed(self, *pieces: Piece, text: str = "", calls: Sequence[ToolCall] = ()) -> list[bytes]:
        wire_calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
        message = {"role": "assistant", "content": text or None, "tool_calls": wire_calls or None}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return [*self.begun(*pieces), event({**chat.piece(), "choices": [choice]}), DONE]

    def _piece(self, piece: Piece) -> bytes:
        match piece:
            case Said(text):
                return chat.said(text)
            case Thought(text):
                return event(chat.piece({"reasoning_content": text}))
            case Refused(text):
                return event(chat.piece({"refusal": text}))
            case Called(index, id, name):
                return chat.called(index, id, name, "")
            case Argued(index, arguments):
                return chat.called(index, arguments=arguments)
            case Quiet():
                nothing = {"role": "assistant", "content": None, "tool_calls": None}
                return b": keep-alive\n\n" + event(chat.piece({})) + event(chat.piece(nothing))


class _Blocks:
    """A response that is made of blocks which begin and end: text and thoughts one by one, calls also at once."""

    def __init__(self) -> None:
        self.count = 0
        self.open: tuple[str, int, str] | None = None
        """The kind of the text block that is open, its place, and what was said in it."""
        self.calls: dict[int, tuple[int, str, str, str]] = {}
        """For each call, its place, id, name and arguments so far."""

    def place(self) -> int:
        self.count += 1
        return self.count - 1


class MessagesWire:
    """Anthropic's Messages API."""

    _TYPES: ClassVar = {
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        500: "api_error",
        503: "api_error",
        529: "overloaded_error",
    }
    errors: Mapping[int, tuple[str, str]] = {
        status: (f'{{"type":"error","error":{{"type":"{type}","message":"No"}},"request_id":"req_1"}}', type)
        for status, type in _TYPES.items()
    }
    overflow = (
        '{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}'
    )
    _STOPS: ClassVar = {"end": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "refusal": "refusal"}

    def begun(self, *pieces: Piece) -> list[bytes]:
        return list(self._written(_Blocks(), pieces))

    def whole(self, *pieces: Piece, stop: StopReason = "end", usage: Usage | None = None) -> list[bytes]:
        counts: dict[str, Any] = {}
        if usage is not None:
            counts = {
                # What was read from the cache is counted apart.
                "input_tokens": usage.input_tokens - usage.cached_tokens,
                "cache_read_input_tokens": usage.cached_tokens,
                "output_tokens": usage.output_tokens,
                "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
            }
        blocks = _Blocks()
        events = [*self._written(blocks, pieces), *self._closed(blocks)]
        events += [messages.stopped(place) for place, *_ in blocks.calls.values()]
        return [*events, messages.finished(self._STOPS[stop], **counts), messages.END]

    def failed(self, code: str, text: str) -> bytes:
        return messages.failed({"rate_limit": "rate_limit_error", "server": "api_error"}[code], text)

    def ended_with(self, reason: str, *pieces: Piece) -> list[bytes]:
        blocks = _Blocks()
        events = [*self._written(blocks, pieces), *self._closed(blocks)]
        return [*events, messages.finished(reason), messages.END]

    def marked(self, *pieces: Piece) -> list[bytes]:
        return [*self.begun(*pieces), messages.END]

    def counted(self, usage: Any, *pieces: Piece) -> list[bytes]:
        values = usage if isinstance(usage, list) else dict.fromkeys(("input_tokens", "output_tokens"), usage)
        ending = messages.sent("message_delta", delta={"stop_reason": "end_turn"}, usage=values)
        began = messages.sent("message_start", message={"model": "m-1", "content": [], "usage": values})
        return [began, *self.begun(*pieces)[1:], ending, messages.END]

    def closed(self, *pieces: Piece, text: str = "", calls: Sequence[ToolCall] = ()) -> list[bytes]:
        content: list[Any] = [{"type": "text", "text": text}] if text else []
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": msgspec.Raw(call.arguments.encode())}
            for call in calls
        ]
        return [*self.begun(*pieces), messages.sent("message", model="m-1", content=content, stop_reason="end_turn")]

    def _written(self, blocks: _Blocks, pieces: Sequence[Piece]) -> Iterator[bytes]:
        yield messages.began()
        for piece in pieces:
            match piece:
                case Said(text) | Refused(text):
                    yield from self._opened(blocks, "text", {"text": ""})
                    yield messages.delta(blocks.count - 1, "text_delta", text=text)
                case Thought(text):
                    yield from self._opened(blocks, "thinking", {"thinking": "", "signature": ""})
                    yield messages.delta(blocks.count - 1, "thinking_delta", thinking=text)
                case Called(index, id, name):
                    yield from self._closed(blocks)
                    blocks.calls[index] = (blocks.place(), id, name, "")
                    yield messages.started(blocks.count - 1, "tool_use", id=id, name=name, input={})
                case Argued(index, arguments):
                    yield messages.delta(blocks.calls[index][0], "input_json_delta", partial_json=arguments)
                case Quiet():
                    yield messages.PING

    def _opened(self, blocks: _Blocks, type: str, fields: dict[str, str]) -> Iterator[bytes]:
        if blocks.open is None or blocks.open[0] != type:
            yield from self._closed(blocks)
            blocks.open = (type, blocks.place(), "")
            yield messages.started(blocks.count - 1, type, **fields)

    def _closed(self, blocks: _Blocks) -> Iterator[bytes]:
        if blocks.open is not None:
            type, place, _ = blocks.open
            blocks.open = None
            if type == "thinking":
                yield messages.delta(place, "signature_delta", signature="sig")
            yield messages.stopped(place)


class ResponsesWire:
    """OpenAI's Responses API."""

    errors = _OPENAI_ERRORS
    overflow = _openai_error(
        "Your input exceeds the context window of this model.", "invalid_request_error", "context_length_exceeded"
    )

    def begun(self, *pieces: Piece) -> list[bytes]:
        return [responses.BEGUN, *self._written(_Blocks(), pieces)]

    def whole(self, *pieces: Piece, stop: StopReason = "end", usage: Usage | None = None) -> list[bytes]:
        fields: dict[str, Any] = {}
        if usage is not None:
            fields["usage"] = {
                "input_tokens": usage.input_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens},
                "output_tokens": usage.output_tokens,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                "total_tokens": usage.total_tokens,
            }
        if stop == "length":
            fields["incomplete_details"] = {"reason": "max_output_tokens"}
        blocks = _Blocks()
        events = [responses.BEGUN, *self._written(blocks, pieces), *self._closed(blocks)]
        events += [responses.call_ended(*call) for call in blocks.calls.values()]
        return [*events, responses.ended("incomplete" if stop == "length" else "completed", **fields)]

    def failed(self, code: str, text: str) -> bytes:
        named = {"rate_limit": "rate_limit_exceeded", "server": "server_error"}[code]
        return responses.told("error", code=named, message=text, param=None)

    def ended_with(self, reason: str, *pieces: Piece) -> list[bytes]:
        return [*self.begun(*pieces), responses.ended("incomplete", incomplete_details={"reason": reason})]

    def marked(self, *pieces: Piece) -> list[bytes]:
        return [*self.begun(*pieces), DONE]

    def counted(self, usage: Any, *pieces: Piece) -> list[bytes]:
        values = usage if isinstance(usage, list) else dict.fromkeys(("input_tokens", "output_tokens"), usage)
        return [*self.begun(*pieces), responses.ended(usage=values)]

    def closed(self, *pieces: Piece, text: str = "", calls: Sequence[ToolCall] = ()) -> list[bytes]:
        output = [responses.message(text)] if text else []
        output += [responses.call(call.id, call.name, call.arguments) for call in calls]
        return [*self.begun(*pieces), responses.ended(output=output)]

    def _written(self, blocks: _Blocks, pieces: Sequence[Piece]) -> Iterator[bytes]:
        for piece in pieces:
            match piece:
                case Said(text):
                    yield from self._told(blocks, "message", "response.output_text.delta", text)
                case Refused(text):
                    yield from self._told(blocks, "message", "response.refusal.delta", text)
                case Thought(text):
                    yield from self._told(blocks, "reasoning", "response.reasoning_summary_text.delta", text)
                case Called(index, id, name):
                    yield from self._closed(blocks)
                    blocks.calls[index] = (blocks.place(), id, name, "")
                    yield responses.call_begun(blocks.count - 1, id, name)
                case Argued(index, arguments):
                    place, id, name, before = blocks.calls[index]
                    blocks.calls[index] = (place, id, name, before + arguments)
                    yield responses.call_piece(place, arguments)
                case Quiet():
                    yield b": keep-alive\n\n" + responses.told("keepalive", sequence_number=7)

    def _told(self, blocks: _Blocks, kind: str, type: str, text: str) -> Iterator[bytes]:
        if blocks.open is None or blocks.open[0] != kind:
            yield from self._closed(blocks)
            item = responses.message(status="in_progress") if kind == "message" else responses.thought()
            blocks.open = (kind, blocks.place(), "")
            yield responses.told("response.output_item.added", output_index=blocks.open[1], item=item)
        _, place, before = blocks.open
        blocks.open = (kind, place, before + text)
        yield responses.told(type, item_id="it_1", output_index=place, content_index=0, summary_index=0, delta=text)

    def _closed(self, blocks: _Blocks) -> Iterator[bytes]:
        if blocks.open is not None:
            kind, place, text = blocks.open
            blocks.open = None
            item = responses.message(text) if kind == "message" else responses.thought(text)
            yield responses.told("response.output_item.done", output_index=place, item=item)


# ------------------------------------------------------------------------ cut responses


def cut_off(wire: Wire, framing: str) -> tuple[bytes, list[Piece]]:
    """A response to be cut off, and what is in it: some of each that matters, but short."""
    pieces: list[Piece] = [Said("ü"), Called(0, "a", "add"), Argued(0, '{"x":1}')]
    events = wire.whole(*pieces, stop="tool_calls")
    return (chunked(*events) if framing == "chunked" else until_close(b"".join(events))), pieces


def cutting(answer: bytes, places: Sequence[int]) -> Handler:
    """Sends the beginning of ``answer``, each time up to the next of ``places``, and hangs up."""
    left = list(places)

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer[: left.pop(0)])

    return handler


async def check_cuts(model: Model, count: int, pieces: Sequence[Piece]) -> int:
    """Ask ``model`` so many times, of `cutting`, and say which response was the first whole one."""
    outcomes = [await _outcome_of(model) for _ in range(count)]

    # Once enough has come, more of it makes it no worse.
    first = next(index for index, outcome in enumerate(outcomes) if isinstance(outcome, AssistantMessage))
    assert set(outcomes[:first]) == {ModelConnectionError}
    assert all(outcome == outcomes[-1] for outcome in outcomes[first:])
    assert isinstance(outcomes[-1], AssistantMessage)
    assert shown(outcomes[-1]) == parts_of(pieces)
    return first


async def _outcome_of(model: Model) -> AssistantMessage | type[ModelError]:
    try:
        return await ask(model)
    except ModelError as error:
        return type(error)


# ---------------------------------------------------------------------------- adapters


class Adapter(Protocol):
    """A way to speak to a model."""

    @property
    def name(self) -> str: ...

    @property
    def wire(self) -> Wire: ...

    def at(self, url: str) -> AbstractAsyncContextManager[Model]:
        """A model, called ``m``, at a base URL, and open: what it holds is closed at the end of the block."""
        ...


@frozen
class OverHttp:
    """An adapter of our own, which can speak over `tests.providers.memory.network`, too."""

    name: str
    wire: Wire
    make: Callable[[str], OpenableModel]
    """Of a base URL."""

    def __str__(self) -> str:
        return self.name

    def at(self, url: str) -> AbstractAsyncContextManager[Model]:
        return self.make(url).open()


OVER_HTTP = (
    OverHttp("chat", ChatWire(), lambda url: OpenAIChat("m", base_url=url)),
    OverHttp("responses", ResponsesWire(), lambda url: OpenAIResponses("m", base_url=url)),
    OverHttp("messages", MessagesWire(), lambda url: Anthropic("m", base_url=url)),
)
