"""Messages: the parts of a transcript, as the model reads and writes them.

These values, and the answers in `agentloop.questions`, are `msgspec.Struct` classes, while events are attrs
classes. The reason is the wire: msgspec reads and writes both natively, but a *union* (``Text | Image``,
``UserMessage | AssistantMessage``) only of Structs, tagged by their ``type``. Both kinds are frozen, compare by
value and work with ``match``. Make a changed copy of a Struct with `msgspec.structs.replace`. They cannot be part of a
reference cycle, so the garbage collector skips them (``gc=False``): a session has thousands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set as AbstractSet
from typing import Any, Literal, TypeAlias, cast

import msgspec

from agentloop._core.field_checks import FieldError, checked, plain_text, shown
from agentloop._core.first_guesses import name_the_way
from agentloop.errors import UsageError

__all__ = [
    "AssistantMessage",
    "AssistantPart",
    "File",
    "Image",
    "Message",
    "Prompt",
    "Reasoning",
    "ResultStatus",
    "StopReason",
    "Text",
    "ToolCall",
    "ToolResult",
    "Usage",
    "UserMessage",
    "UserPart",
    "checked_messages",
    "text_of",
    "user_message",
    "whole_part",
]

StopReason: TypeAlias = Literal["end", "tool_calls", "length", "refusal", "paused", "interrupted"]
"""Why a response ended.

- ``end``: the model finished.
- ``tool_calls``: the model finished and wants tools to be called.
- ``length``: the response reached the token limit.
- ``refusal``: the model refused to answer.
- ``paused``: the provider paused a long response; the next request continues it.
- ``interrupted``: the run was cancelled or failed in mid-response.
"""

ResultStatus: TypeAlias = Literal["ok", "error", "denied", "timeout", "interrupted"]
"""How a tool call ended.

- ``ok``: the tool returned.
- ``error``: the tool raised an error, or the call did not fit its schema.
- ``denied``: a rule, a hook or a person denied it.
- ``timeout``: the tool did not return before its deadline.
- ``interrupted``: the run ended first; the tool may have taken effect.

The model reads all but ``ok`` as errors.
"""


class Text(msgspec.Struct, frozen=True, tag="text", gc=False):
    """A part of text."""

    text: str
    """The text."""


class Image(msgspec.Struct, frozen=True, tag="image", omit_defaults=True, gc=False):
    """A picture, by value or by reference: exactly one of ``data`` and ``url``."""

    data: bytes | None = None
    """The file's bytes; base64 on the wire."""
    url: str | None = None
    """Address that the provider fetches the picture from."""
    media_type: str = "image/png"
    """Media type of ``data`` (RFC 6838), such as ``image/png``. Ignored if ``url`` is given."""

    def __post_init__(self) -> None:
        _check_media(self)


class File(msgspec.Struct, frozen=True, tag="file", omit_defaults=True, gc=False):
    """A document, by value or by reference: exactly one of ``data`` and ``url``."""

    data: bytes | None = None
    """The file's bytes; base64 on the wire."""
    url: str | None = None
    """Address that the provider fetches the document from."""
    media_type: str = "application/octet-stream"
    """Media type of ``data`` (RFC 6838), such as ``application/pdf``."""
    name: str = "file"
    """File name that the model reads."""

    def __post_init__(self) -> None:
        _check_media(self)


_MEDIA_FIELDS: Mapping[str, object] = {"data": bytes | None, "url": str | None, "media_type": str, "name": str}


def _check_media(media: Image | File) -> None:
    """Check the fields of ``media`` where it is made: base64 in the place of the bytes is a common mistake."""
    kind = type(media).__name__
    if (media.data is None) == (media.url is None):
        raise UsageError(f"{kind} needs exactly one of data= and url=")
    for field in media.__struct_fields__:
        value: object = getattr(media, field)
        try:
            plain = checked(_MEDIA_FIELDS[field], value, f"{kind}.{field}")
        except FieldError as error:
            raise UsageError(str(error)) from error
        if plain is not value:
            msgspec.structs.force_setattr(media, field, plain)


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning", omit_defaults=True, gc=False):
    """The model's reasoning before its answer. Sent back only to the provider that it came from."""

    text: str
    """The reasoning, or the provider's summary of it."""
    signature: str | None = None
    """Opaque data that the provider requires back with it: a signature or encrypted content."""


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call", gc=False):
    """A tool call that the model asked for."""

    id: str
    """Unique within its session."""
    name: str
    """Name of the tool, as the model wrote it; there may be no such tool."""
    arguments: str
    """JSON text, exactly as the model wrote it; it may not be valid JSON."""

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Usage of one or more model responses, in tokens as the provider counted them. Add two with ``+``.

    A response counts if it is complete, and if it broke off after the provider had reported some usage.
    """

    input_tokens: int = 0
    """Tokens that the model read, cached ones included."""
    output_tokens: int = 0
    """Tokens that the model wrote, reasoning included."""
    cached_tokens: int = 0
    """The part of ``input_tokens`` that came from the provider's cache."""
    reasoning_tokens: int = 0
    """The part of ``output_tokens`` that was reasoning."""
    requests: int = 0
    """Number of model responses in this sum."""
    cache_written_tokens: int = 0
    """The part of ``input_tokens`` that the provider wrote to its cache, if it reports that."""
    cost: float = 0.0
    """Cost in ``currency``. Responses whose price is not known count 0: see `is_cost_known`."""
    priced_requests: int = 0
    """Number of the responses whose cost is known: their model has a price, which may be 0."""
    estimated_requests: int = 0
    """Number of the responses whose tokens were estimated: a limit on tokens or cost needed them, and the provider
    reported none."""
    currency: str = ""
    """The currency of ``cost``, such as ``"USD"``; empty if nothing has cost anything."""
    price_lists: tuple[str, ...] = ()
    """What ``cost`` was computed by: ``"prices"``, the agent's own table; ``"provider"``, which has reported it;
    ``"genai-prices"`` or ``"catalogue"``, with its version or its date; ``"cache"``, of answers that a ``CachedModel``
    gave, and which cost nothing."""

    def __str__(self) -> str:
        cost = f", cost {self.cost:.4g}{' ' + self.currency if self.currency else ''}" if self.cost else ""
        return f"{self.input_tokens} in, {self.output_tokens} out{cost}"

    @property
    def total_tokens(self) -> int:
        """``input_tokens`` plus ``output_tokens``."""
        return self.input_tokens + self.output_tokens

    @property
    def is_cost_known(self) -> bool:
        """Whether ``cost`` counts every response. If it does not, ``cost`` is less than what the provider bills."""
        return self.priced_requests == self.requests

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.requests + other.requests,
            self.cache_written_tokens + other.cache_written_tokens,
            self.cost + other.cost,
            self.priced_requests + other.priced_requests,
            self.estimated_requests + other.estimated_requests,
            self.currency or other.currency,
            self.price_lists
            if self.price_lists == other.price_lists or not other.price_lists
            else tuple(sorted({*self.price_lists, *other.price_lists})),
        )


UserPart: TypeAlias = Text | Image | File
"""A part of a user message or of a tool result."""
AssistantPart: TypeAlias = Text | Reasoning | ToolCall
"""A part of a model's response."""


class UserMessage(msgspec.Struct, frozen=True, tag="user", omit_defaults=True, repr_omit_defaults=True, gc=False):
    """A message from a person, or from the program in their place."""

    parts: tuple[UserPart, ...]
    """Its text, pictures and files, in order."""
    reports: tuple[str, ...] = ()
    """The ids of the background runs whose ends it reports; empty for a message of a person."""
    context: tuple[str, ...] = ()
    """Names of the context sources of which it has the present texts, in order, after a first part of its own; empty
    for all other messages. See `agentloop.context_sources`."""

    @property
    def is_prompt(self) -> bool:
        """Whether it is of a person, or of the program in their place: it reports no ends, and tells no context."""
        return not (self.reports or self.context)

    def __str__(self) -> str:
        return _line(self.parts)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return text_of(self.parts)


class AssistantMessage(msgspec.Struct, frozen=True, eq=False, tag="assistant", omit_defaults=True, gc=False):
    """One response of the model."""

    parts: tuple[AssistantPart, ...]
    """In the order in which the model wrote them; empty if it wrote nothing."""
    stop: StopReason = "end"
    """Why the response ended."""
    model: str = ""
    """Name of the model that answered, as the provider reports it."""
    usage: Usage = Usage()
    """Usage of this response: one request, with its cost if the model has a price."""
    agent: str = ""
    """Name of the agent that said it; empty if no run has made it. Outside of equality: what was said is compared, and
    a transcript compares equal whichever agents have had the conversation."""

    def __eq__(self, other: object) -> bool:
        return type(other) is AssistantMessage and self._said() == other._said()

    def __ne__(self, other: object) -> bool:
        # msgspec has one of its own, which compares by identity here.
        return not self == other

    def __hash__(self) -> int:
        return hash(self._said())

    def _said(self) -> tuple[object, ...]:
        return self.parts, self.stop, self.model, self.usage

    def __str__(self) -> str:
        return _line(self.parts)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return text_of(self.parts)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in order."""
        return tuple([part for part in self.parts if type(part) is ToolCall])


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result", omit_defaults=True, gc=False):
    """The result of one tool call, as the model reads it."""

    call_id: str
    """Id of the call."""
    name: str
    """Name of the tool."""
    parts: tuple[UserPart, ...]
    """Text, pictures and files, in order."""
    status: ResultStatus = "ok"
    """How the call ended."""

    def __str__(self) -> str:
        return _line(self.parts) if self.status == "ok" else f"{self.status}: {_line(self.parts)}"

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return text_of(self.parts)


_ROLE = "the class of a message says whose it is: UserMessage, AssistantMessage or ToolResult"
_CONTENT = "its text is `text`, and its parts are in `parts`"
_CALLS = "those of an AssistantMessage are in `calls`"
for _kind_of_message in (UserMessage, AssistantMessage, ToolResult):
    name_the_way(_kind_of_message, {"role": _ROLE, "content": _CONTENT, "tool_calls": _CALLS})


def _line(parts: Iterable[UserPart | AssistantPart]) -> str:
    """``parts`` on one line, for a person to read."""
    return " ".join(
        repr(part.text)
        if isinstance(part, (Text, Reasoning))
        else str(part)
        if isinstance(part, ToolCall)
        else _kind(part)
        for part in parts
    )


def _kind(part: Image | File) -> str:
    return f"<{type(part).__name__.lower()} {part.url or part.media_type}>"


Message: TypeAlias = UserMessage | AssistantMessage | ToolResult
"""One entry of a transcript."""
Prompt: TypeAlias = str | UserPart | UserMessage | Sequence[str | UserPart]
"""Everything that can be a prompt: text, one part, a message, or a list of texts and parts."""


def text_of(parts: Iterable[UserPart | AssistantPart]) -> str:
    """The text parts, joined, without all others."""
    return "".join([part.text for part in parts if type(part) is Text])


def whole_part(part: UserPart) -> UserPart:
    """``part`` in a form that a journal and a provider can take: see `agentloop._core.field_checks.checked`.

    Raises:
      ValueError: a field of it is of another type than the class declares.
    """
    return cast("UserPart", checked(UserPart, part))


def user_message(prompt: Prompt) -> UserMessage:
    """Make a message of ``prompt``.

    Raises:
      UsageError: the prompt is empty, or contains something other than text, images and files.
    """
    if isinstance(prompt, str) and prompt.strip():
        return UserMessage((Text(prompt if type(prompt) is str and prompt.isascii() else plain_text(prompt)),))
    parts: list[UserPart] = []
    for part in _parts_of(prompt):
        if isinstance(part, str):
            parts.append(Text(plain_text(part)))
        elif isinstance(part, (Text, Image, File)):
            parts.append(_part_of_prompt(part))
        else:
            raise UsageError(
                f"a prompt is made of str, Text, Image and File, not {type(part).__name__}: {shown(part)}"
                f"{_earlier(part)}"
            )
    if not any(not isinstance(part, Text) or part.text.strip() for part in parts):
        raise UsageError("a prompt needs some text, an image or a file; this one is empty")
    return UserMessage(tuple(parts))


def _part_of_prompt(part: UserPart) -> UserPart:
    try:
        return whole_part(part)
    except FieldError as error:
        raise UsageError(f"this part of the prompt cannot be sent: {error}") from error


def _earlier(value: object) -> str:
    """More about a prompt that is a list of messages, as providers take it."""
    is_conversation = isinstance(value, Mapping) and ("role" in value or "messages" in value)
    is_message = isinstance(value, (UserMessage, AssistantMessage, ToolResult))
    if not is_conversation and not is_message:
        return ""
    return "; a prompt is one new message, and session=Session() has those before it"


def _parts_of(prompt: Any) -> Iterable[object]:
    if isinstance(prompt, UserMessage):
        prompt = cast("Any", prompt.parts)
    if isinstance(prompt, (str, Text, Image, File)):
        return (prompt,)
    # A dict or bytes would be taken for its keys or numbers; a set has no order.
    is_misread = isinstance(prompt, (bytes, bytearray, memoryview, Mapping, AbstractSet))
    if is_misread or not isinstance(prompt, Iterable):
        raise UsageError(
            f"a prompt is text, or a list of str, Text, Image and File, not {shown(cast('object', prompt))}"
            f"{_earlier(cast('object', prompt))}"
        )
    return cast("Iterable[object]", prompt)


def checked_messages(messages: object, name: str) -> tuple[Message, ...]:
    """``messages`` in a form that a journal and a provider can take: see `agentloop._core.field_checks.checked`.

    Args:
      name: name of the messages in the error.

    Raises:
      ValueError: one is no message, or a field of one is of another type than its class declares.
    """
    return cast("tuple[Message, ...]", checked(tuple[Message, ...], _listed(messages), name))


def _listed(values: object) -> object:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        return cast("Any", values)
    return list(cast("Iterable[object]", values))
