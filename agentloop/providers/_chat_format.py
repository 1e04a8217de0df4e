"""The chat completions format of OpenAI, which nearly every server speaks: requests encoded, responses read.

Responses are read leniently wherever servers were seen to differ: fields that are missing, ``null`` or of another type
than OpenAI's, tool calls without an index or an id, several choices, a whole message in place of deltas. They are read
strictly where a lenient reading would spoil the response: broken JSON, an error, an end that is missing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
from attrs import Factory, frozen

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder
from agentloop.messages import (
    AssistantMessage,
    File,
    Image,
    Message,
    Reasoning,
    Text,
    ToolResult,
    Usage,
    UserMessage,
    UserPart,
)
from agentloop.models import ModelRequest, ModelSettings, Stop, ToolSpec
from agentloop.providers._dialects import Dialect, chat_dialect, openai_effort, usual_effort
from agentloop.providers._endings import Ending, error_in
from agentloop.providers._events import ErrorData, WireEvents, is_end_marker
from agentloop.providers._failures import failure_in_stream
from agentloop.providers._fitting import (
    CONTINUE,
    NO_OUTPUT,
    Echo,
    RenamedReply,
    data_url,
    echo_in,
    encode_body,
    file_text,
    renamed,
)
from agentloop.providers._lenient import WireStruct, count, decode_event
from agentloop.providers._structured_output import openai_output, request_in_words
from agentloop.providers._tool_schema import fit_parameters
from agentloop.providers._wire_model import EncodedRequest
from agentloop.providers._writing import ResponseWriter, is_json, json_text

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


_DEFAULTS = ModelSettings()
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
    has_cache_key: bool = False
    """Whether the server takes a key by which it brings the requests of a session to the same cache."""
    cache_key: str = ""
    """The key; empty outside of a session."""

    def exchange(
        self, request: ModelRequest, encoded: EncodedRequest, *, name: str, writer: ResponseWriter
    ) -> tuple[bytes, _ChatResponse]:
        """See `WireFormat.exchange`."""
        dialect = self.dialect
        instructions, output = request.instructions, request.output
        body: dict[str, Any] = {"model": self.model, "messages": [], "stream": True}
        if self.stream_usage and dialect.has_stream_options:
            body["stream_options"] = {"include_usage": True}
        names: Mapping[str, str] = {}
        if request.tools:
            body["tools"], names = encoded.tools(request.tools, self._tools)
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
        if self.cache_key:
            body["prompt_cache_key"] = self.cache_key
        if request.settings != _DEFAULTS:
            body.update(self._settings(request.settings, with_tools=bool(request.tools)))
        body.update(request.settings.extra)
        if names:
            writer.pass_through(lambda reply: RenamedReply(reply, names))
        return encode_body(body), _ChatResponse(name=name, model=self.model, writer=writer)

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
        elif dialect.name == "gemini":
            effort = usual_effort(effort)
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

    def _tools(self, specs: Iterable[ToolSpec]) -> tuple[msgspec.Raw, Mapping[str, str]]:
        """``specs`` on the wire, and the tools' own names by the names that the wire makes of them."""
        return msgspec.Raw(encode_body([self._tool(spec) for spec in specs])), renamed(specs, self.dialect.rules)

    def _tool(self, spec: ToolSpec) -> dict[str, Any]:
        name, parameters = self.dialect.rules.fit_tool_name(spec.name), fit_parameters(spec, self.dialect.schemas)
        fields = {"name": name, "description": spec.description, "parameters": parameters}
        return {"type": "function", "function": {key: value for key, value in fields.items() if value is not None}}

    def _messages(self, messages: Sequence[Message], instructions: str, encoded: EncodedRequest) -> list[Any]:
        conversation = _Conversation(may_user_follow_result=self.dialect.may_user_follow_result)
        conversation.add(encoded.messages(messages, self._message))
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

    def add(self, messages: Iterable[_Encoded]) -> None:
        """Add ``messages``."""
        # Few steps: this runs for each message of the transcript, in each turn.
        append, last = self._wire.append, self._last
        for encoded in messages:
            role = encoded.role
            if role == "tool":
                if encoded.content:
                    self._media += encoded.content
                append(encoded.message)
                last = "tool"
                continue
            # After the last result: no other message may stand between the results of one response.
            if self._media:
                self._user += self._media
                self._media = []
            if role == "user":
                self._user += encoded.content
            elif encoded.message is not None:
                if last != "tool" or self._user:
                    self._last = last
                    self._end_user_before_model()
                append(encoded.message)
                last = "assistant"
        self._last = last

    def _end_user_before_model(self) -> None:
        if self._last in ("", "assistant") and not self._user:
            self._user.append(CONTINUE)
        self._end_user()

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


class _Function(WireStruct):
    name: str | None = None
    arguments: Any = None


class _Call(WireStruct):
    index: int | None = None
    id: str | int | None = None
    function: _Function | None = None
    name: str | None = None
    arguments: Any = None
    extra_content: dict[str, Any] | None = None

    @classmethod
    def vital(cls, fields: dict[str, Any]) -> Container[str]:
        return ("function",)


class _Part(WireStruct):
    text: str | None = None
    thinking: str | list[_Part] | None = None

    @classmethod
    def vital(cls, fields: dict[str, Any]) -> Container[str]:
        return ("text",)


class _Delta(WireStruct):
    content: str | _Part | list[_Part | str] | None = None
    refusal: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    reasoning_details: list[dict[str, Any]] | None = None
    tool_calls: list[_Call] | None = None
    error: Any = None

    @classmethod
    def vital(cls, fields: dict[str, Any]) -> Container[str]:
        return ("content", "tool_calls")


class _Details(WireStruct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(WireStruct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: int | None = None
    cached_tokens: int | None = None


class _Choice(WireStruct):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None
    error: Any = None

    @classmethod
    def vital(cls, fields: dict[str, Any]) -> Container[str]:
        return ("delta", "message")


class _Chunk(WireStruct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    type: str | None = None
    error: Any = None
    object: str | None = None


_chunk_decoder = JsonDecoder(_Chunk)


class _ChatResponse:
    """Reads one response."""

    __slots__ = ("_calls", "_details", "_has_deltas", "_model", "_name", "_refused", "_usage", "_writer")

    def __init__(self, *, name: str, model: str, writer: ResponseWriter) -> None:
        self._name = name
        self._model = model
        self._writer = writer
        self._calls = _Calls()
        self._details: list[dict[str, Any]] = []
        self._has_deltas = False
        """Whether the response comes in deltas. Then a message is the whole once more."""
        self._refused = False
        self._usage = Usage()

    async def read(self, events: WireEvents, /) -> Stop:
        """See `ResponseReader.read`."""
        writer = self._writer
        ending = Ending(events, writer, model=self._name, linger=AFTER_FINISH_SECONDS)
        stop_model = ""
        async for data in events:
            if ending.is_marked:
                continue
            written = writer.written
            if type(data) is ErrorData:
                raise error_in(data, model=self._name)
            if len(data) < 16 and is_end_marker(data):
                ending.mark(AFTER_DONE_SECONDS)
            elif data:
                chunk = decode_event(_chunk_decoder, _Chunk, data, model=self._name)
                if chunk.error or "error" in (chunk.object, chunk.type):
                    raise error_in(ErrorData(data), model=self._name)
                stop_model = chunk.model or stop_model
                await self._read_chunk(chunk, data, ending)
            if writer.written == written and not events.has_arrived:
                await writer.show_life()
        reason = ending.stop_reason()
        echo = ChatEcho(self._model, self._details, self._calls.extra)
        if echo.details or echo.calls:
            await writer.reasoning("", signature=json_text(echo))
        return Stop("refusal" if self._refused else reason, self._usage, stop_model or self._name)

    async def _read_chunk(self, chunk: _Chunk, data: bytes, ending: Ending) -> None:  # noqa: ASYNC910
        if chunk.usage is not None:
            self._count(chunk.usage)
        elif chunk.choices is None:
            ending.foreign = data
        for choice in chunk.choices or ():
            # Only the first of several choices: their texts would mix.
            if choice.index:
                continue
            error = choice.error or (choice.delta is not None and choice.delta.error)
            if error:
                raise failure_in_stream(self._name, error)
            if choice.delta is not None:
                written = self._writer.written
                await self._read_delta(choice.delta)
                if self._writer.written != written:
                    self._has_deltas = True
            if choice.message is not None:
                await (self._complete if self._has_deltas else self._read_delta)(choice.message)
            if ending.words is not None:
                ending.check()
            if choice.usage is not None:
                self._count(choice.usage)
            if choice.finish_reason is not None:
                ending.give_reason(choice.finish_reason)

    def _count(self, usage: _Usage) -> None:
        counted = _usage(usage)
        # Some servers send an empty one after the real one.
        if counted != Usage():
            self._usage = counted
            self._writer.report_usage(counted)

    async def _read_delta(self, delta: _Delta) -> None:  # noqa: ASYNC910
        writer = self._writer
        thought = delta.reasoning_content or delta.reasoning
        if thought and isinstance(thought, str):
            await writer.reasoning(thought)
        if delta.content:
            if isinstance(delta.content, str):
                await writer.text(delta.content)
            else:
                for part in _parts(delta.content):
                    await self._read_part(part)
        if delta.refusal:
            self._refused = True
            await writer.text(delta.refusal)
        for detail in delta.reasoning_details or ():
            _join_detail(self._details, detail)
        for call in delta.tool_calls or ():
            function = call.function or _Function(call.name, call.arguments)
            arguments = _arguments(function.arguments)
            name, id = function.name or "", _id(call)
            index = self._calls.index_of(call, id, name, arguments)
            if index is not None:
                await writer.tool_call(index, id=id, name=name, arguments=arguments)

    async def _complete(self, message: _Delta) -> None:  # noqa: ASYNC910
        """Read the whole message, after deltas of it: it may have what they left out."""
        content = message.content or ""
        if not isinstance(content, str):
            content = "".join(part.text or "" for part in _parts(content))
        await self._writer.complete_text(content)
        for index, call in enumerate(message.tool_calls or ()):
            function = call.function or _Function(call.name, call.arguments)
            arguments = _arguments(function.arguments)
            await self._writer.complete_call(index, id=_id(call), name=function.name or "", arguments=arguments)

    async def _read_part(self, part: _Part) -> None:  # noqa: ASYNC910
        """Read a part of a content that is a list, as Mistral's reasoning models send it."""
        if part.text:
            await self._writer.text(part.text)
        thoughts = [_Part(part.thinking)] if isinstance(part.thinking, str) else part.thinking
        for thought in thoughts or ():
            if thought.text:
                await self._writer.reasoning(thought.text)


def _parts(content: _Part | list[_Part | str]) -> list[_Part]:
    parts = [content] if isinstance(content, _Part) else content
    return [_Part(part) if isinstance(part, str) else part for part in parts]


def _id(call: _Call) -> str:
    # Some servers number their calls.
    return "" if call.id is None else str(call.id)


def _arguments(value: Any) -> str:
    """The arguments as JSON text. Some servers send them as an object; PHP writes an empty object as an empty list."""
    if value is None or isinstance(value, str):
        return value or ""
    return json_text(value or {})


class _OpenCall:
    """A tool call of which deltas may still arrive."""

    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int, id: str, name: str) -> None:
        self.index = index
        self.id = id
        self.name = name
        self.arguments: list[str] = []


class _Calls:
    """Decides which tool call a delta belongs to.

    In OpenAI's rules its ``index`` decides. But some servers send no index, or 0 for every call, or no ids, or the same
    id for all, or a new id with each delta. So a delta without a name belongs to the call with its id, or else to the
    last call under its index; and a delta with a name begins a call, unless it repeats the name of such a call whose
    arguments are not complete. A call never goes on under another name.
    """

    __slots__ = ("_by_id", "_by_index", "_count", "_last", "extra")

    def __init__(self) -> None:
        self._by_index: dict[int, _OpenCall] = {}
        """The last call under each of the server's indexes."""
        self._by_id: dict[str, _OpenCall] = {}
        """The last call under each id."""
        self._last: _OpenCall | None = None
        self._count = 0
        self.extra: dict[int, dict[str, Any]] = {}
        """The ``extra_content`` of calls, by index."""

    def index_of(self, delta: _Call, id: str, name: str, arguments: str) -> int | None:
        """The index, counted from 0 without gaps, of the call that ``delta`` belongs to.

        ``None`` if the delta repeats a whole call.
        """
        call = self._candidate(delta.index, id, name)
        if call is not None and name and _begins_another(call, id, name, arguments):
            if call.name == name and call.id == id and "".join(call.arguments) == arguments:
                return None
            call = None
        if call is None:
            call = _OpenCall(self._count, id, name)
            self._count += 1
        call.id = call.id or id
        call.name = call.name or name
        call.arguments.append(arguments)
        if delta.index is not None:
            self._by_index[delta.index] = call
        if id:
            self._by_id[id] = call
        self._last = call
        if delta.extra_content:
            self.extra[call.index] = delta.extra_content
        return call.index

    def _candidate(self, index: int | None, id: str, name: str) -> _OpenCall | None:
        """The call that a delta belongs to if it begins none."""
        under_index = self._last if index is None else self._by_index.get(index)
        if under_index is None and name:
            return None
        if under_index is not None and under_index.id == id:
            return under_index
        return self._by_id.get(id) or under_index


def _begins_another(call: _OpenCall, id: str, name: str, arguments: str) -> bool:
    """Whether a delta with a name begins another call than ``call``, or repeats it."""
    if call.name and call.name != name:
        return True
    before = "".join(call.arguments)
    if id and id == call.id:
        # Arguments of a call may begin with an empty object that stands for those to come.
        return arguments != "" and before != "{}" and is_json(before)
    return bool(id and call.id) or is_json(before)


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
    read, written = count(usage.prompt_tokens), count(usage.completion_tokens)
    details = usage.prompt_tokens_details
    cached = count((details and details.cached_tokens) or usage.prompt_cache_hit_tokens or usage.cached_tokens)
    details = usage.completion_tokens_details
    reasoning = count(details and details.reasoning_tokens)
    if reasoning and usage.total_tokens == read + written + reasoning:
        written += reasoning  # some providers count reasoning apart from the completion
    return Usage(input_tokens=read, output_tokens=written, cached_tokens=cached, reasoning_tokens=reasoning)
