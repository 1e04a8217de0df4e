"""The format of Anthropic's Messages API: requests encoded, responses read.

The API refuses a transcript whose roles do not alternate, that does not begin and end with the user, or that contains
the thoughts of another conversation; `_Conversation` mends these. It also refuses blank texts, unsigned thoughts, a
thought at the end of a message, foreign characters in ids and names, and most types of files; the functions that make
blocks mend those.

Responses are read leniently where servers that imitate the API may differ: unknown events and blocks, fields that are
missing or ``null``, a whole message in place of events. They are read strictly where a lenient reading would spoil the
response: broken JSON, an error, an end that is missing.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import partial
from hashlib import blake2s
from typing import Any, ClassVar, Literal, TypeAlias, cast

import msgspec
from attrs import Factory, frozen

from agentloop._core.catalogue import nearest_effort
from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder
from agentloop.messages import (
    AssistantMessage,
    AssistantPart,
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UserPart,
)
from agentloop.models import ModelRequest, ModelSettings, Stop, ToolSpec
from agentloop.providers._dialects import fit_media, usual_effort
from agentloop.providers._endings import Ending, error_in
from agentloop.providers._events import ErrorData, WireEvents, is_end_marker
from agentloop.providers._fitting import CONTINUE, Echo, WireRules, echo_in, encode_body
from agentloop.providers._lenient import WireStruct, count, decode_event, fit
from agentloop.providers._media import IMAGES, MediaRules, decoded_text
from agentloop.providers._structured_output import anthropic_schema, request_in_words
from agentloop.providers._tool_schema import SchemaRules, fit_parameters
from agentloop.providers._tool_search import ToolSearch, tool_search_in
from agentloop.providers._wire_model import EncodedRequest
from agentloop.providers._writing import ResponseWriter, json_text

__all__ = ["CacheLifetime", "MessagesFormat"]

CacheLifetime: TypeAlias = Literal["5m", "1h"]
"""How long the server keeps a prompt in its cache."""

MAX_IMAGE_BYTES = 5 * 1024 * 1024 * 3 // 4
"""A picture may have 5 MiB, which the API counts in base64."""
_SCHEMAS = SchemaRules(property_name=re.compile(r"[a-zA-Z0-9_.-]{1,64}"))
_Block: TypeAlias = dict[str, Any]
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
"""The types of blocks that go back only to the model that wrote them."""
RULES = WireRules(
    call_id=re.compile(r"[a-zA-Z0-9_-]+"),
    max_tool_name=128,
    media=MediaRules(
        files=frozenset({"application/pdf"}), schemes=frozenset({"https"}), max_image_bytes=MAX_IMAGE_BYTES
    ),
)


class MessagesEcho(Echo, frozen=True):
    """A thinking block."""

    model: str = msgspec.field(name="anthropic")
    """The model that had the thought. A thought is bound to it."""
    signature: str | None = None
    """The signature of a thinking block."""
    redacted: str | None = None
    """The data of a block of redacted thinking."""
    prefix: str | None = None
    """A digest of all that the model had read before; ``None`` from a model that does not check it."""


_encoder = msgspec.json.Encoder()
_echo_decoder = JsonDecoder(MessagesEcho, max_depth=MAX_OWN_DEPTH)


@frozen(kw_only=True)
class MessagesFormat:
    """The format of the Messages API, with the options of one model."""

    PATH: ClassVar[str] = "/v1/messages"
    """The path of the endpoint, after the base URL."""

    model: str
    """The server's name for the model."""
    max_tokens: int
    """The `ModelSettings.max_tokens` of requests that do not set it: the API demands one."""
    cache: CacheLifetime | None = "5m"
    """How long the server keeps the prompt in its cache; ``None`` to turn caching off."""
    tool_search: bool = False
    """Whether the model loads deferred tools by references in the result of ``find_tools``."""
    reads_media: bool | None = None
    """Whether the model can see pictures and read documents; ``None`` lets its name decide."""
    rules: WireRules = Factory(lambda self: fit_media(RULES, self.model, self.reads_media), takes_self=True)
    """What the wire, and the model behind it, accept in a transcript."""

    def exchange(
        self, request: ModelRequest, encoded: EncodedRequest, *, name: str, writer: ResponseWriter
    ) -> tuple[bytes, _MessagesResponse]:
        """See `WireFormat.exchange`."""
        settings = request.settings
        max_tokens = self.max_tokens if settings.max_tokens is None else settings.max_tokens
        instructions, schema = request.instructions, None
        if request.output is not None:
            schema = anthropic_schema(request.output.parameters)
            if schema is None:
                instructions = "\n\n".join(filter(None, (instructions, request_in_words(request.output))))
        search = tool_search_in(request)
        tools = list(encoded.tools(request.tools, _tools))
        # The deferred tools, which come last, are not in front of the conversation for the model, nor for the cache.
        front = tools if search is None else tools[: -len(search.deferred)]
        system = [_raw(_text_block(instructions))] if instructions.strip() else []
        conversation = _Conversation(_digest(front, system) if _binds_thoughts(self.model) else None)
        for message in encoded.messages(request.messages, partial(self._message, search), search and search.deferred):
            conversation.add(message)
        turns = conversation.finish()
        if self.cache is not None:
            _mark_for_cache(front, system, turns, self.cache)
            tools[: len(front)] = front
        body: dict[str, Any] = {"model": self.model, "max_tokens": max_tokens, "stream": True}
        if tools:
            body["tools"] = tools
        if system:
            body["system"] = system
        body["messages"] = [{"role": role, "content": content} for role, content in turns]
        body.update(_settings(settings, with_tools=bool(tools)))
        body.update(_thinking(settings, self.model, max_tokens, turns))
        _mend_conflicts(body, _version(self.model))
        if schema is not None:
            output_format = {"type": "json_schema", "schema": schema}
            body["output_config"] = {**body.get("output_config", {}), "format": output_format}
        body.update(settings.extra)
        response = _MessagesResponse(name=name, model=self.model, prefix=conversation.prefix, writer=writer)
        return encode_body(body), response

    def _message(self, search: ToolSearch | None, message: Message) -> _Encoded:
        message = self.rules.fit(message)
        if isinstance(message, AssistantMessage):
            blocks = _assistant_blocks(message, self.model)
            bare = tuple(_raw(block) for block in blocks if block["type"] not in _THOUGHTS)
            if len(bare) == len(blocks):
                return _Encoded("assistant", bare)
            prefix = next(echo.prefix for part in message.parts if (echo := _thought_in(part, self.model)) is not None)
            return _Encoded("assistant", tuple(map(_raw, blocks)), bare=bare, prefix=prefix)
        if isinstance(message, ToolResult):
            loaded = [] if search is None else search.references(message)
            if loaded:
                return _Encoded("user", (_raw(_references(message, loaded)),), is_result=True)
            result, after = _result_blocks(message)
            return _Encoded("user", (_raw(result),), is_result=True, after=tuple(map(_raw, after)))
        return _Encoded("user", tuple(map(_raw, _user_blocks(message.parts))))


def _raw(block: _Block) -> msgspec.Raw:
    return msgspec.Raw(encode_body(block))


# -------------------------------------------------------------------------- request: settings


def _settings(settings: ModelSettings, *, with_tools: bool) -> Iterator[tuple[str, Any]]:
    # The format has no field for `seed`.
    for field, value in (
        ("temperature", settings.temperature),
        ("top_p", settings.top_p),
        # The API refuses blank ones.
        ("stop_sequences", [text for text in settings.stop if text.strip()] or None),
        ("tool_choice", _tool_choice(settings) if with_tools else None),
    ):
        if value is not None:
            yield field, value


def _tool_choice(settings: ModelSettings) -> dict[str, Any] | None:
    one_at_most = settings.parallel_tool_calls is False
    if settings.tool_choice is None and not one_at_most:
        return None
    choice: dict[str, Any] = {"type": "any" if settings.tool_choice == "required" else settings.tool_choice or "auto"}
    if one_at_most and settings.tool_choice != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")
_FIRST_THINKING = (3, 7)
"""The first version that thinks."""
_FIRST_ADAPTIVE = (4, 6)
"""The first version that takes an effort in place of a budget of thinking tokens."""
_FIRST_BINDING = (5, 1)
"""The first version that refuses thoughts of another conversation."""
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24_576, "xhigh": 32_768, "max": 65_536}
"""Thinking tokens for each effort, for older models."""
_LEAST_BUDGET = 1024


def _version(model: str) -> tuple[int, int] | None:
    """The version in a model's name: ``(4, 6)`` of ``claude-sonnet-4-6``; ``None`` if the name contains none."""
    match = _VERSION.search(model)
    return None if match is None else (int(match[1]), int(match[2] or 0))


def _mend_conflicts(body: dict[str, Any], version: tuple[int, int] | None) -> None:
    """Remove from ``body`` the fields that the API refuses beside others in it.

    A forced call excludes thinking: the call was asked for, and the effort is a wish. Thinking excludes sampling
    settings, and for newer models one sampling setting excludes the other.
    """
    if body.get("tool_choice", {}).get("type") == "any":
        body.pop("thinking", None)
    if "thinking" in body:
        body.pop("temperature", None)
        if body.get("top_p", 1) < _LEAST_TOP_P:
            del body["top_p"]
    if version is not None and "temperature" in body:
        # `ModelSettings` is for all providers; others accept up to 2.
        body["temperature"] = min(body["temperature"], 1)
        if version >= _FIRST_ONE_SAMPLING:
            body.pop("top_p", None)


_FIRST_ONE_SAMPLING = (4, 1)
"""The first version that refuses ``temperature`` and ``top_p`` in one request."""
_LEAST_TOP_P = 0.95
"""The least ``top_p`` that the API accepts beside thinking."""


def _thinking(settings: ModelSettings, model: str, max_tokens: int, turns: list[_Turn]) -> dict[str, Any]:
    """The fields for `ModelSettings.reasoning_effort`.

    Claude 4.6 and newer decide by themselves how much to think, led by an effort, and refuse a budget from 4.7 on.
    Older models know only a budget, which must be smaller than ``max_tokens``, since it is a part of them.
    """
    wanted = settings.reasoning_effort
    if wanted is None or wanted == "none":
        return {}
    version = _version(model)
    if version is None or version >= _FIRST_ADAPTIVE:
        effort = nearest_effort(f"anthropic:{model}", wanted) or usual_effort(wanted)
        # Newer models send no thoughts by default: a minute of silence, which looks like a stalled server.
        return {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": effort}}
    if version < _FIRST_THINKING or _is_open_without_thought(turns):
        return {}
    budget = max(_LEAST_BUDGET, min(_BUDGETS[wanted], max_tokens // 2))
    return {"thinking": {"type": "enabled", "budget_tokens": budget}} if budget < max_tokens else {}


def _is_open_without_thought(turns: list[_Turn]) -> bool:
    """Whether the model is to continue a turn that did not begin with a thought.

    With a budget of thinking tokens, the API refuses such a turn: another model has begun it, or this one without
    thinking.
    """
    first: msgspec.Raw | None = None
    for role, content in reversed(turns):
        if role == "assistant":
            first = content[0]
        elif not any(bytes(block).startswith(b'{"type":"tool_result"') for block in content):
            break
    return first is not None and not bytes(first).startswith((b'{"type":"thinking"', b'{"type":"redacted_thinking"'))


def _tools(specs: Iterable[ToolSpec]) -> tuple[msgspec.Raw, ...]:
    return tuple(_raw(_tool(spec)) for spec in specs)


def _tool(spec: ToolSpec) -> _Block:
    description = {"description": spec.description} if spec.description else {}
    deferred = {"defer_loading": True} if spec.deferred else {}
    return {"name": spec.name, **description, "input_schema": fit_parameters(spec, _SCHEMAS), **deferred}


# --------------------------------------------------------------------------- request: caching


def _mark_for_cache(
    tools: list[msgspec.Raw], system: list[msgspec.Raw], turns: list[_Turn], lifetime: CacheLifetime
) -> None:
    """Mark the blocks after which the server writes its cache: four, the most that the API accepts.

    The marks are on the tools and the system prompt, which other sessions share; on the end, where the next request
    continues; and on the end of the request before, since the server searches only twenty blocks back for an entry,
    and a turn may have more.
    """
    control = _encoder.encode({"type": "ephemeral"} if lifetime == "5m" else {"type": "ephemeral", "ttl": lifetime})
    users = [content for role, content in turns if role == "user"]
    for blocks in (tools, system, *users[-2:]):
        if blocks:
            # Spliced into the JSON, so that an image is not encoded again.
            blocks[-1] = msgspec.Raw(bytes(blocks[-1])[:-1] + b',"cache_control":' + control + b"}")


# -------------------------------------------------------------------------- request: messages


_Turn: TypeAlias = tuple[str, list[msgspec.Raw]]
"""A role, and the blocks of its message."""


@frozen
class _Encoded:
    """A message of the transcript, as blocks."""

    role: str
    blocks: tuple[msgspec.Raw, ...]
    """Empty if nothing in the message may be sent."""
    is_result: bool = False
    after: tuple[msgspec.Raw, ...] = ()
    """The blocks that must follow the last result of the same turn."""
    bare: tuple[msgspec.Raw, ...] | None = None
    """The blocks without the thoughts; ``None`` if there are no thoughts."""
    prefix: str | None = None
    """The digest of the conversation that the thoughts belong to."""


class _Conversation:
    """The messages of a request: roles alternate, and the first message and the last one are the user's.

    Args:
      digest: a digest of the tools and instructions, if the model binds its thoughts to the conversation.
    """

    __slots__ = ("_after", "_digest", "_turns")

    def __init__(self, digest: blake2s | None) -> None:
        self._turns: list[_Turn] = []
        self._after: tuple[msgspec.Raw, ...] = ()
        self._digest = digest

    @property
    def prefix(self) -> str | None:
        """A digest of the conversation so far; ``None`` for a model that does not bind its thoughts."""
        return None if self._digest is None else self._digest.hexdigest()

    def add(self, message: _Encoded) -> None:
        """Add a message."""
        if not message.is_result:
            self._end_results()
        if not self._turns and message.role != "user":
            self._add("user", (_CONTINUE,))
        has_own_thoughts = message.bare is None or message.prefix == self.prefix
        self._add(message.role, message.blocks if has_own_thoughts else message.bare or ())
        self._after += message.after

    def finish(self) -> list[_Turn]:
        """All messages."""
        self._end_results()
        # Newer models refuse to continue a message of their own.
        if not self._turns or self._turns[-1][0] != "user":
            self._add("user", (_CONTINUE,))
        return self._turns

    def _end_results(self) -> None:
        # After the last result, since the results must be the first blocks of their message.
        self._add("user", self._after)
        self._after = ()

    def _add(self, role: str, blocks: tuple[msgspec.Raw, ...]) -> None:
        if not blocks:
            return
        if self._turns and self._turns[-1][0] == role:
            self._turns[-1][1].extend(blocks)
        else:
            self._turns.append((role, list(blocks)))
        if self._digest is not None:
            for block in blocks:
                self._digest.update(role.encode())
                self._digest.update(block)


def _binds_thoughts(model: str) -> bool:
    """Whether the model refuses a thought of another conversation.

    Other instructions or other tools make another conversation: after a handoff to another agent, or where the
    instructions contain the time of day.
    """
    version = _version(model)
    return version is not None and version >= _FIRST_BINDING


def _digest(tools: Iterable[msgspec.Raw], system: Iterable[msgspec.Raw]) -> blake2s:
    digest = blake2s(digest_size=12)
    for block in (*tools, *system):
        digest.update(block)
    return digest


# ---------------------------------------------------------------------------- request: blocks


def _text_block(text: str) -> _Block:
    """The block for ``text``, which must not be blank."""
    return {"type": "text", "text": text}


_CONTINUE = _raw(_text_block(CONTINUE))


def _user_blocks(parts: Iterable[UserPart]) -> list[_Block]:
    """The blocks for ``parts``. Blank texts are left out, as the API refuses them."""
    return [block for part in parts for block in _part_blocks(part)]


def _part_blocks(part: UserPart) -> list[_Block]:
    if isinstance(part, Text):
        return [_text_block(part.text)] if part.text.strip() else []
    if part.url is not None:
        kind = "image" if isinstance(part, Image) or part.media_type in IMAGES else "document"
        return [{"type": kind, "source": {"type": "url", "url": part.url}}]
    data = part.data or b""
    if isinstance(part, Image):
        return [{"type": "image", "source": _base64(part.media_type, data)}]
    text = decoded_text(part.media_type, data)
    if text is None:
        return [{"type": "document", "source": _base64(part.media_type, data), "title": part.name}]
    source = {"type": "text", "media_type": "text/plain", "data": text}
    return [{"type": "document", "source": source, "title": part.name}]


def _base64(media_type: str, data: bytes) -> dict[str, str]:
    return {"type": "base64", "media_type": media_type, "data": b64encode(data).decode("ascii")}


def _assistant_blocks(message: AssistantMessage, model: str) -> list[_Block]:
    """The blocks for ``message``, with those of its thoughts that ``model`` gets back."""
    blocks: list[_Block] = []
    calls: list[_Block] = []
    for part in message.parts:
        if isinstance(part, Text):
            blocks += _part_blocks(part)
        elif isinstance(part, Reasoning):
            blocks += _thought_blocks(part, model)
        else:
            calls.append(_call_block(part))
    # Calls last: only its result may follow a call. Claude writes them in this order, other models may not.
    blocks += calls
    while blocks and blocks[-1]["type"] in _THOUGHTS:
        blocks.pop()
    return blocks


def _thought_blocks(part: Reasoning, model: str) -> list[_Block]:
    echo = _thought_in(part, model)
    if echo is None:
        return []
    if echo.redacted is not None:
        return [{"type": "redacted_thinking", "data": echo.redacted}]
    return [{"type": "thinking", "thinking": part.text, "signature": echo.signature or ""}]


def _thought_in(part: AssistantPart, model: str) -> MessagesEcho | None:
    """The signed thought in ``part``, if ``model`` had it."""
    return echo_in(part, _echo_decoder, model)


def _call_block(call: ToolCall) -> _Block:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": msgspec.Raw(call.arguments.encode())}


def _references(result: ToolResult, loaded: list[str]) -> _Block:
    """The block for a result of ``find_tools``. The server puts the definitions of the tools in its place."""
    content = [{"type": "tool_reference", "tool_name": name} for name in loaded]
    return {"type": "tool_result", "tool_use_id": result.call_id, "content": content}


def _result_blocks(result: ToolResult) -> tuple[_Block, list[_Block]]:
    """The block for ``result``, and the blocks that must follow the last result of its turn."""
    wire: _Block = {"type": "tool_result", "tool_use_id": result.call_id}
    content, after = _user_blocks(result.parts), list[_Block]()
    if result.status != "ok":
        wire["is_error"] = True
        # The content of an error must not be empty, and can be text only.
        after = [block for block in content if block["type"] != "text"]
        content = [block for block in content if block["type"] == "text"] or [_text_block(f"({result.status})")]
        if after:
            label = f"What the tool {result.name} returned besides its error (call {result.call_id}):"
            after.insert(0, _text_block(label))
    if content:
        wire["content"] = content
    return wire, after


# ----------------------------------------------------------------------------------- response


AFTER_FINISH_SECONDS = 5.0
"""Seconds to wait for ``message_stop`` after the stop reason of a response."""
AFTER_STOP_SECONDS = 0.5
"""Seconds to wait for the end of the answer after ``message_stop``. Only an answer that has ended frees its connection
for the next request."""


_TEXTS_BY_BLOCK: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "thinking": ("thinking",),
    "tool_use": ("name", "input"),
}


class _ContentBlock(WireStruct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | int | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw()

    @classmethod
    def vital(cls, fields: dict[str, Any]) -> Container[str]:
        return _TEXTS_BY_BLOCK.get(str(fields.get("type")), ())


class _StopDetails(WireStruct):
    explanation: str | None = None


class _Delta(WireStruct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | dict[str, Any] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None

    @classmethod
    def vital(cls, fields: dict[str, Any]) -> Container[str]:
        return ("text", "partial_json") if fields.get("type") in _DELTAS else ()


_DELTAS = ("text_delta", "thinking_delta", "signature_delta", "input_json_delta")


class _OutputDetails(WireStruct):
    thinking_tokens: int | None = None


class _Usage(WireStruct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Message(WireStruct):
    model: str | None = None
    content: list[_ContentBlock] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: _Usage | None = None


class _Event(_Message):
    """An event, or a whole message."""

    type: str | None = None
    index: int | None = None
    message: Any = None
    content_block: _ContentBlock | None = None
    delta: _Delta | None = None
    error: Any = None

    @classmethod
    def known(cls, fields: dict[str, Any]) -> dict[str, Any]:
        kind = fields.get("type")
        if not isinstance(kind, str) or kind in _VITAL_BY_EVENT:
            return fields
        return {name: fields[name] for name in ("type", "error") if name in fields}

    @classmethod
    def vital(cls, fields: dict[str, Any]) -> Container[str]:
        return _VITAL_BY_EVENT.get(str(fields.get("type")), ())


_VITAL_BY_EVENT: Mapping[str, tuple[str, ...]] = {
    "message_start": (),
    "message_delta": (),
    "message_stop": (),
    "content_block_stop": (),
    "message": ("content",),
    "content_block_start": ("content_block",),
    "content_block_delta": ("delta",),
}

_event_decoder = JsonDecoder(_Event)


class _OpenBlock:
    """A content block of which deltas may still arrive."""

    __slots__ = ("call", "has_arguments", "initial_arguments", "kind", "signature")

    def __init__(self, block: _ContentBlock, call: int | None) -> None:
        self.kind = block.type
        self.call = call
        """The number of the tool call that it is, in the response; ``None`` if it is none."""
        self.initial_arguments = _arguments(block.input)
        """The arguments that the block began with: usually ``{}``, with the real ones in deltas."""
        self.has_arguments = False
        self.signature = block.signature


class _MessagesResponse:
    """Reads one response."""

    __slots__ = (
        "_blocks",
        "_calls",
        "_last_index",
        "_model",
        "_name",
        "_prefix",
        "_refusal",
        "_usage",
        "_writer",
    )

    def __init__(self, *, name: str, model: str, prefix: str | None, writer: ResponseWriter) -> None:
        self._name = name
        self._model = model
        self._prefix = prefix
        self._writer = writer
        self._blocks: dict[int, _OpenBlock] = {}
        """The open blocks, by index."""
        self._last_index = -1
        """The index of the last event's block, for servers that leave it out."""
        self._calls = 0
        self._refusal = ""
        """The server's explanation of a refusal."""
        self._usage = _Usage()

    async def read(self, events: WireEvents, /) -> Stop:
        """See `ResponseReader.read`."""
        writer = self._writer
        ending = Ending(events, writer, model=self._name, linger=AFTER_FINISH_SECONDS)
        stop_model = ""
        async for data in events:
            if ending.is_marked:
                continue
            written = writer.written
            if isinstance(data, ErrorData):
                raise error_in(data, model=self._name)
            if is_end_marker(data):
                await self._end_all_blocks(is_cut_off=ending.words is None)
                ending.mark(AFTER_STOP_SECONDS)
            elif data:
                event = decode_event(_event_decoder, _Event, data, model=self._name)
                if event.error or event.type == "error":
                    raise error_in(ErrorData(data), model=self._name)
                message = event if _is_message(event, events) else _message_in(event)
                if message is not None:
                    stop_model = message.model or stop_model
                    await self._read_message(message, ending)
                else:
                    await self._read_event(event, data, ending)
            if writer.written == written and not events.has_arrived:
                await writer.show_life()
        reason = ending.stop_reason()
        if reason == "refusal" and self._refusal and not writer.has_text:
            await writer.text(self._refusal)
        return Stop(reason, _total(self._usage), stop_model or self._name)

    async def _read_message(self, message: _Message, ending: Ending) -> None:  # noqa: ASYNC910
        """Read a message with its content. After deltas, it may have what they left out."""
        self._count(message.usage)
        if self._writer.written:
            await self._complete(message)
        else:
            for index, block in enumerate(message.content or ()):
                await self._begin_block(index, block)
                await self._end_block(index)
        await self._finish_with(message, ending)

    async def _complete(self, message: _Message) -> None:  # noqa: ASYNC910
        content = message.content or ()
        await self._writer.complete_text("".join(block.text or "" for block in content if block.type == "text"))
        calls = [block for block in content if block.type == "tool_use"]
        for open_block in self._blocks.values():
            open_block.has_arguments = True
        for call, block in enumerate(calls):
            arguments = _arguments(block.input)
            self._calls = max(self._calls, call + 1)
            await self._writer.complete_call(call, id=_id(block), name=block.name or "", arguments=arguments)

    async def _read_event(self, event: _Event, data: bytes, ending: Ending) -> None:  # noqa: ASYNC910
        if event.type in ("content_block_start", "content_block_delta", "content_block_stop"):
            await self._read_block_event(event)
            ending.check()
        elif event.type == "message_delta":
            self._count(event.usage)
            await self._finish_with(event.delta or _Delta(), ending)
        elif event.type == "message_stop":
            message: object = event.message
            if isinstance(message, dict):
                await self._complete(fit(cast("dict[str, Any]", message), _Message))
            await self._end_all_blocks(is_cut_off=ending.words is None)
            ending.mark(AFTER_STOP_SECONDS)
        elif event.type is None:
            # Events of unknown types are those of a newer version of the API.
            ending.foreign = data

    async def _read_block_event(self, event: _Event) -> None:  # noqa: ASYNC910
        begins = event.type == "content_block_start"
        if event.index is not None:
            self._last_index = event.index
        elif begins:
            self._last_index += 1
        index = self._last_index
        if begins:
            await self._begin_block(index, event.content_block or _ContentBlock())
        elif event.type == "content_block_delta":
            await self._read_delta(index, event.delta or _Delta())
        else:
            open_block = self._blocks.get(index)
            if open_block is not None and event.content_block is not None:
                open_block.initial_arguments = _arguments(event.content_block.input)
            await self._end_block(index)

    async def _begin_block(self, index: int, block: _ContentBlock) -> None:  # noqa: ASYNC910
        await self._end_block(index)
        call: int | None = None
        if block.type == "tool_use":
            call = self._calls
            self._calls += 1
            await self._writer.tool_call(call, id=_id(block), name=block.name or "")
        elif block.type == "redacted_thinking":
            await self._add_echo(MessagesEcho(self._model, redacted=block.data or "", prefix=self._prefix))
        if block.type in ("tool_use", "thinking"):
            self._blocks[index] = _OpenBlock(block, call)
        if block.type in ("text", "thinking", None):
            await self._read_text(block)

    async def _read_delta(self, index: int, delta: _Delta) -> None:  # noqa: ASYNC910
        block = self._blocks.get(index)
        if delta.type in ("text_delta", "thinking_delta", None):
            await self._read_text(delta)
        if block is None:
            return
        if delta.signature:
            block.signature = delta.signature
        # Blocks without a call have arguments too: those of tools that the server runs itself.
        if block.call is not None and delta.partial_json:
            block.has_arguments = True
            piece = delta.partial_json if isinstance(delta.partial_json, str) else json_text(delta.partial_json)
            await self._writer.tool_call(block.call, arguments=piece)

    async def _read_text(self, content: _ContentBlock | _Delta) -> None:  # noqa: ASYNC910
        if content.thinking:
            await self._writer.reasoning(content.thinking)
        if content.text:
            await self._writer.text(content.text)

    async def _end_block(self, index: int, *, is_cut_off: bool = False) -> None:  # noqa: ASYNC910
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.kind == "thinking" and block.signature:
            await self._add_echo(MessagesEcho(self._model, signature=block.signature, prefix=self._prefix))
        # A call of a response that ends without a reason has no arguments but those that have arrived.
        if block.call is not None and not block.has_arguments and not is_cut_off:
            await self._writer.tool_call(block.call, arguments=block.initial_arguments)

    async def _add_echo(self, echo: MessagesEcho) -> None:
        await self._writer.reasoning("", signature=json_text(echo))

    async def _end_all_blocks(self, *, is_cut_off: bool) -> None:  # noqa: ASYNC910
        for index in list(self._blocks):
            await self._end_block(index, is_cut_off=is_cut_off)

    async def _finish_with(self, message: _Message | _Delta, ending: Ending) -> None:  # noqa: ASYNC910
        if message.stop_reason is None:
            return
        if message.stop_details is not None:
            self._refusal = message.stop_details.explanation or ""
        await self._end_all_blocks(is_cut_off=False)
        ending.give_reason(message.stop_reason)

    def _count(self, usage: _Usage | None) -> None:
        """Replace the counts by those of ``usage``: each is a total of the response so far."""
        for field in _Usage.__struct_fields__ if usage is not None else ():
            value = getattr(usage, field)
            if value is not None:
                setattr(self._usage, field, value)
        if usage is not None:
            self._writer.report_usage(_total(self._usage))


def _is_message(event: _Event, events: WireEvents) -> bool:
    return event.type == "message" or (events.is_json and event.type is None and event.content is not None)


def _message_in(event: _Event) -> _Message | None:
    """The message that a stream begins with, usually without content."""
    message: object = event.message
    if event.type != "message_start" or not isinstance(message, dict):
        return None
    return fit(cast("dict[str, Any]", message), _Message)


def _id(block: _ContentBlock) -> str:
    return "" if block.id is None else str(block.id)


def _arguments(input: msgspec.Raw) -> str:
    text = bytes(input).decode()
    if text.startswith('"'):
        # Some servers give the arguments as a text that is JSON.
        text = str(json.loads(text))
    return "{}" if text in ("", "null", "[]") else text


def _total(usage: _Usage) -> Usage:
    # The API counts input that it read from the cache, and input that it wrote there, apart from the rest.
    cached, written = count(usage.cache_read_input_tokens), count(usage.cache_creation_input_tokens)
    details = usage.output_tokens_details
    return Usage(
        input_tokens=count(usage.input_tokens) + cached + written,
        output_tokens=count(usage.output_tokens),
        cached_tokens=cached,
        reasoning_tokens=count(details and details.thinking_tokens),
        cache_written_tokens=written,
    )
