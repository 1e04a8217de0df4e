"""The chat completions format of OpenAI, which nearly every server speaks: requests encoded, responses read.

Responses are read leniently wherever servers were seen to differ: fields that are missing, ``null`` or of another type
than OpenAI's, tool calls without an index or an id, several choices, a whole message in place of deltas. They are read
strictly where a lenient reading would spoil the response: broken JSON, an error, an end that is missing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
from attrs import Factory, frozen

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder, decode_json
from agentloop.errors import ModelConnectionError, ModelProtocolError
from agentloop.messages import (
    AssistantMessage,
    File,
    Image,
    Message,
    Reasoning,
    StopReason,
    Text,
    ToolResult,
    Usage,
    UserMessage,
    UserPart,
)
from agentloop.models import ModelRequest, ModelSettings, Reply, Stop, ToolSpec
from agentloop.providers._dialects import Dialect, chat_dialect, openai_effort
from agentloop.providers._events import WireEvents, decode_event
from agentloop.providers._failures import failure_in_stream
from agentloop.providers._fitting import (
    CONTINUE,
    NO_OUTPUT,
    Echo,
    data_url,
    echo_in,
    encode_body,
    file_text,
    renamed_reply,
)
from agentloop.providers._structured_output import openai_output, request_in_words
from agentloop.providers._tool_schema import fit_parameters
from agentloop.providers._wire_model import EncodedMessages

__all__ = ["ChatFormat", "SendReasoning"]

SendReasoning: TypeAlias = Literal["reasoning_content", "reasoning", "reasoning_details"]
"""The field of a message that carries the model's earlier reasoning."""


class ChatEcho(Echo, frozen=True):
    """Reasoning in the forms in which servers of this format want it back."""

    details: list[dict[str, Any]] = []  # noqa: RUF012  # msgspec copies it
    """OpenRouter's ``reasoning_details``: signed or encrypted reasoning."""
    calls: dict[int, dict[str, Any]] = {}  # noqa: RUF012  # msgspec copies it
    """The ``extra_content`` of tool calls, by their number in the response: Gemini's thought signatures. Gemini refuses
    a tool result whose call comes back without its signature."""


_encoder = msgspec.json.Encoder()
_echo_decoder = JsonDecoder(ChatEcho, max_depth=MAX_OWN_DEPTH)


@frozen(kw_only=True)
class ChatFormat:
    """The chat completions format, and the points in which the servers that speak it differ."""

    PATH: ClassVar[str] = "/chat/completions"
    """The path of the endpoint, after the base URL."""

    model: str
    """The server's name for the model."""
    dialect: Dialect = Factory(partial(chat_dialect, "", url=""))
    """The rules of the server."""
    send_reasoning: SendReasoning | None = None
    """The field in which earlier reasoning is sent back; ``None`` to leave it out, since some servers refuse it."""
    stream_usage: bool = True
    """Whether to ask for the usage. A few old servers refuse the question."""

    def exchange(
        self, request: ModelRequest, encoded: EncodedMessages, *, name: str, reply: Reply
    ) -> tuple[bytes, _ChatResponse]:
        """See `WireFormat.exchange`."""
        dialect = self.dialect
        instructions, output = request.instructions, request.output
        body: dict[str, Any] = {"model": self.model, "messages": [], "stream": True}
        if self.stream_usage and dialect.has_stream_options:
            body["stream_options"] = {"include_usage": True}
        if request.tools:
            body["tools"] = [self._tool(spec) for spec in request.tools]
        if output is not None:
            by = dialect.output_with_tools if request.tools else dialect.output
            schema = openai_output(output, dialect.schemas) if by == "schema" else None
            if schema is not None:
                body["response_format"] = {"type": "json_schema", "json_schema": schema}
            else:
                instructions = "\n\n".join(filter(None, (instructions, request_in_words(output))))
            if by == "json":
                body["response_format"] = {"type": "json_object"}
        body["messages"] = self._messages(request.messages, instructions, encoded)
        body.update(self._settings(request.settings, with_tools=bool(request.tools)))
        body.update(request.settings.extra)
        reply = renamed_reply(reply, request.tools, dialect.rules)
        return encode_body(body), _ChatResponse(name=name, model=self.model, reply=reply)

    # ------------------------------------------------------------------------------ request

    def _settings(self, settings: ModelSettings, *, with_tools: bool) -> Iterator[tuple[str, Any]]:
        dialect = self.dialect
        choice = settings.tool_choice if with_tools else None
        if choice == "required" and not dialect.has_forced_choice:
            choice = None
        # The call was asked for, and the effort is a wish: the wish yields.
        excluded = choice == "required" and dialect.forced_choice_excludes_reasoning
        effort = None if excluded or not dialect.has_reasoning_effort else settings.reasoning_effort
        if dialect.name == "openai":
            effort = openai_effort(self.model, effort)
        elif effort == "minimal" and dialect.name == "gemini":
            effort = "low"
        for key, value in (
            ("temperature", settings.temperature),
            ("top_p", settings.top_p),
            (dialect.max_tokens_field, settings.max_tokens),
            (dialect.seed_field or "", settings.seed if dialect.seed_field else None),
            ("reasoning_effort", effort),
            ("stop", [text for text in settings.stop if text] or None),
            # Servers refuse these two in a request without tools.
            ("tool_choice", choice),
            (
                "parallel_tool_calls",
                settings.parallel_tool_calls if with_tools and dialect.has_parallel_calls else None,
            ),
        ):
            if value is not None:
                yield key, value

    def _tool(self, spec: ToolSpec) -> dict[str, Any]:
        name, parameters = self.dialect.rules.fit_tool_name(spec.name), fit_parameters(spec, self.dialect.schemas)
        fields = {"name": name, "description": spec.description, "parameters": parameters}
        return {"type": "function", "function": {key: value for key, value in fields.items() if value is not None}}

    def _messages(self, messages: Iterable[Message], instructions: str, encoded: EncodedMessages) -> list[Any]:
        conversation = _Conversation(may_user_follow_result=self.dialect.may_user_follow_result)
        for message in encoded.encode(messages, self._message):
            conversation.add(message)
        system = [{"role": "system", "content": instructions}] if instructions.strip() else []
        return [*system, *conversation.finish()]

    def _message(self, message: Message) -> _Encoded:
        message = self.dialect.rules.fit(message)
        if isinstance(message, UserMessage):
            return _Encoded("user", content=_content(message.parts))
        if isinstance(message, AssistantMessage):
            wire = self._assistant(message)
            is_empty = not message.text.strip() and "tool_calls" not in wire
            return _Encoded("assistant", None if is_empty else msgspec.Raw(encode_body(wire)))
        wire, media = _result(message)
        return _Encoded("tool", msgspec.Raw(encode_body(wire)), content=_content(media))

    def _assistant(self, message: AssistantMessage) -> dict[str, Any]:
        text, calls = message.text, message.calls
        wire: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
        echo = ChatEcho(self.model)
        thoughts: list[str] = []
        for part in message.parts:
            if isinstance(part, Reasoning):
                thoughts.append(part.text)
                echo = echo_in(part, _echo_decoder, self.model) or echo
        if calls:
            extra = self._extra_of_calls(echo)
            wire["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                    **({"extra_content": extra[index]} if index in extra else {}),
                }
                for index, call in enumerate(calls)
            ]
        if self.send_reasoning == "reasoning_details":
            if echo.details:
                wire["reasoning_details"] = echo.details
        # A message with calls gets the field even if it is empty: DeepSeek refuses a call without it.
        elif self.send_reasoning is not None and (calls or any(thoughts)):
            wire[self.send_reasoning] = "".join(thoughts)
        return wire

    def _extra_of_calls(self, echo: ChatEcho) -> dict[int, dict[str, Any]]:
        """The ``extra_content`` of the calls of a response, by their number in it."""
        signature = self.dialect.placeholder_signature
        if signature is None or any(
            "thought_signature" in (extra.get("google") or ()) for extra in echo.calls.values()
        ):
            return echo.calls
        # Another model has made the calls. Gemini checks the first call of each response.
        return {**echo.calls, 0: {"google": {"thought_signature": signature}}}


_Content: TypeAlias = tuple[str | msgspec.Raw, ...]
"""The parts of a message of the user: a ``str`` for each text, and encoded pictures and files."""


@frozen
class _Encoded:
    """A message of the transcript."""

    role: Literal["user", "assistant", "tool"]
    message: msgspec.Raw | None = None
    """The message on the wire; ``None`` for one of the user, and for one that is empty."""
    content: _Content = ()
    """The content of a message of the user, or the pictures and files that must follow a result."""


class _Conversation:
    """The messages of a request, in an order of roles that all servers accept.

    User and model alternate, and the first message and the last one are not the model's. OpenAI accepts other orders,
    but servers that apply a model's own chat template refuse them, as do Gemini and Mistral.
    """

    __slots__ = ("_last", "_may_user_follow_result", "_media", "_user", "_wire")

    def __init__(self, *, may_user_follow_result: bool) -> None:
        self._may_user_follow_result = may_user_follow_result
        self._wire: list[Any] = []
        self._user: list[str | msgspec.Raw] = []
        """The message of the user that further parts may join."""
        self._media: list[str | msgspec.Raw] = []
        """The pictures and files of the last results."""
        self._last = ""
        """The role of the last message in ``_wire``."""

    def add(self, encoded: _Encoded) -> None:
        """Add a message."""
        if encoded.role == "tool":
            self._media += encoded.content
            self._append("tool", encoded.message)
            return
        # After the last result: no other message may stand between the results of one response.
        self._user += self._media
        self._media = []
        if encoded.role == "user":
            self._user += encoded.content
        elif encoded.message is not None:
            if self._last in ("", "assistant") and not self._user:
                self._user.append(CONTINUE)
            self._end_user()
            self._append("assistant", encoded.message)

    def finish(self) -> list[Any]:
        """All messages."""
        self._user += self._media
        if self._last in ("", "assistant") and not self._user:
            self._user.append(CONTINUE)
        self._end_user()
        return self._wire

    def _end_user(self) -> None:
        if not self._user:
            return
        if self._last == "tool" and not self._may_user_follow_result:
            self._append("assistant", {"role": "assistant", "content": "OK."})
        self._append("user", {"role": "user", "content": _joined(self._user)})
        self._user = []

    def _append(self, role: str, message: Any) -> None:
        self._wire.append(message)
        self._last = role


def _joined(content: list[str | msgspec.Raw]) -> str | list[Any]:
    # A string if possible: many servers accept nothing else.
    texts = [part for part in content if isinstance(part, str)]
    if len(texts) == len(content):
        return "\n\n".join(texts)
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]


def _content(parts: Iterable[UserPart]) -> _Content:
    return tuple(_part(part) for part in parts)


def _part(part: UserPart) -> str | msgspec.Raw:
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Image):
        wire: dict[str, Any] = {"type": "image_url", "image_url": {"url": data_url(part)}}
    elif (text := file_text(part)) is not None:
        return text
    elif part.data is not None and part.media_type in _AUDIO:
        audio = {"data": b64encode(part.data).decode("ascii"), "format": _AUDIO[part.media_type]}
        wire = {"type": "input_audio", "input_audio": audio}
    else:
        wire = {"type": "file", "file": {"filename": part.name, "file_data": data_url(part)}}
    return msgspec.Raw(encode_body(wire))


_AUDIO = {"audio/mpeg": "mp3", "audio/wav": "wav"}


def _result(result: ToolResult) -> tuple[dict[str, Any], tuple[UserPart, ...]]:
    """The message for ``result``, which can hold text only, and its images and files, for a message after it."""
    text: list[str] = []
    media: list[UserPart] = []
    for part in result.parts:
        inline = part.text if isinstance(part, Text) else file_text(part) if isinstance(part, File) else None
        if inline is not None:
            text.append(inline)
        else:
            kind = "image" if isinstance(part, Image) else "file"
            text.append(f"({kind} in the next message of the user)")
            media += [Text(f"The {kind} that the tool {result.name} returned (call {result.call_id}):"), part]
    content = "\n\n".join(text) or NO_OUTPUT
    # The format has no other way to mark a call as failed.
    content = content if result.status == "ok" else f"Error: {content}"
    return {"role": "tool", "tool_call_id": result.call_id, "content": content}, tuple(media)


# --------------------------------------------------------------------------------- response


AFTER_FINISH_SECONDS = 5.0
"""Seconds to wait for the usage after the finish reason of a response."""
AFTER_DONE_SECONDS = 0.5
"""Seconds to wait for the end of the answer after ``[DONE]``. Only an answer that has ended frees its connection for
the next request."""


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


_chunk_decoder = JsonDecoder(_Chunk)

_REASONS: dict[str, StopReason] = {
    "stop": "end",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "refusal",
    "refusal": "refusal",
}


class _ChatResponse:
    """Reads one response."""

    __slots__ = ("_calls", "_details", "_done", "_finish", "_model", "_name", "_refused", "_reply", "_usage")

    def __init__(self, *, name: str, model: str, reply: Reply) -> None:
        self._name = name
        self._model = model
        self._reply = reply
        self._calls = _Calls()
        self._details: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._done = False
        self._refused = False
        self._usage = Usage()

    async def read(self, events: WireEvents, /) -> Stop:
        """See `ResponseReader.read`."""
        stop_model = ""
        async for data in events:
            if self._done:
                continue
            if data.strip() == b"[DONE]":
                self._done = True
                events.settle(AFTER_DONE_SECONDS)
                continue
            chunk = decode_event(_chunk_decoder, data, model=self._name)
            if chunk.error is not None or chunk.object == "error":
                error = chunk.error if chunk.error is not None else {"message": chunk.message, "code": chunk.code}
                raise failure_in_stream(self._name, error)
            stop_model = chunk.model or stop_model
            if chunk.usage is not None:
                self._usage = _usage(chunk.usage)
            for choice in chunk.choices or ():
                # Only the first of several choices: their texts would mix.
                if choice.index:
                    continue
                delta = choice.delta or choice.message
                if delta is not None:
                    await self._read_delta(delta)
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

    async def _read_delta(self, delta: _Delta) -> None:  # noqa: ASYNC910
        reply = self._reply
        thought = delta.reasoning_content or delta.reasoning
        if thought and isinstance(thought, str):
            await reply.reasoning(thought)
        if delta.content:
            if isinstance(delta.content, str):
                await reply.text(delta.content)
            else:
                for part in delta.content:
                    await self._read_part(part)
        if delta.refusal:
            self._refused = True
            await reply.text(delta.refusal)
        for detail in delta.reasoning_details or ():
            _join_detail(self._details, detail)
        for call in delta.tool_calls or ():
            function = call.function or _Function()
            arguments = function.arguments or ""
            if not isinstance(arguments, str):
                arguments = _encoder.encode(arguments).decode()
            index = self._calls.index_of(call, function.name or "", arguments)
            await reply.tool_call(index, id=call.id or "", name=function.name or "", arguments=arguments)

    async def _read_part(self, part: _Part) -> None:  # noqa: ASYNC910
        """Read a part of a content that is a list, as Mistral's reasoning models send it."""
        if part.text:
            await self._reply.text(part.text)
        thoughts = [_Part(part.thinking)] if isinstance(part.thinking, str) else part.thinking
        for thought in thoughts or ():
            if thought.text:
                await self._reply.reasoning(thought.text)


class _OpenCall:
    """A tool call of which deltas may still arrive."""

    __slots__ = ("arguments", "id", "index")

    def __init__(self, index: int, id: str) -> None:
        self.index = index
        self.id = id
        self.arguments: list[str] = []


class _Calls:
    """Decides which tool call a delta belongs to.

    In OpenAI's rules its ``index`` decides. But some servers send no index, or 0 for every call, or no ids, or a new
    id with each delta. So a call begins with a delta that has a name, and either a new id, or no id while the arguments
    of the call before it are complete.
    """

    __slots__ = ("_by_index", "_count", "_last", "extra")

    def __init__(self) -> None:
        self._by_index: dict[int, _OpenCall] = {}
        """The call that began last under each of the server's indexes."""
        self._last: _OpenCall | None = None
        self._count = 0
        self.extra: dict[int, dict[str, Any]] = {}
        """The ``extra_content`` of calls, by index."""

    def index_of(self, delta: _Call, name: str, arguments: str) -> int:
        """The index, counted from 0 without gaps, of the call that ``delta`` belongs to."""
        call = self._last if delta.index is None else self._by_index.get(delta.index)
        if call is None or (name and self._begins_another(call, delta.id)):
            call = _OpenCall(self._count, delta.id or "")
            self._count += 1
            if delta.index is not None:
                self._by_index[delta.index] = call
        self._last = call
        call.arguments.append(arguments)
        if delta.extra_content:
            self.extra[call.index] = delta.extra_content
        return call.index

    def _begins_another(self, call: _OpenCall, id: str | None) -> bool:
        """Whether a delta with a name, and this id, begins another call than ``call``."""
        if id and call.id:
            return id != call.id
        return _is_json("".join(call.arguments))


def _is_json(text: str) -> bool:
    try:
        decode_json(text)
    except msgspec.DecodeError:
        return False
    return True


def _join_detail(details: list[dict[str, Any]], delta: dict[str, Any]) -> None:
    """Add a delta of OpenRouter's reasoning details: texts of one block join, other fields replace earlier ones."""
    last = details[-1] if details else None
    if last is None or last.get("type") != delta.get("type") or last.get("index") != delta.get("index"):
        details.append(dict(delta))
        return
    for field, value in delta.items():
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
        written += reasoning  # some providers count reasoning apart from the completion
    return Usage(input_tokens=read, output_tokens=written, cached_tokens=cached, reasoning_tokens=reasoning)
