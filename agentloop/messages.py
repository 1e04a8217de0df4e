"""What the model reads and wrote.

These values, and the answers in `agentloop.questions`, are `msgspec.Struct` classes, while events are attrs
classes. The reason is the wire: msgspec reads and writes both natively, but a *union* (``Text | Image``,
``UserMessage | AssistantMessage``) only of Structs, tagged by their ``type``. Both kinds are frozen, compare by
value and work with ``match``. Make a changed copy of a Struct with `msgspec.structs.replace`. What is in them cannot
lead back to them, so the garbage collector need not look (``gc=False``): sessions have many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, cast

import msgspec

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
    "text_of",
    "user_message",
]

StopReason: TypeAlias = Literal["end", "tool_calls", "length", "refusal", "interrupted"]
"""Why a response ended: by itself, to have tools called, at the token limit, refused, or cut off by us."""

ResultStatus: TypeAlias = Literal["ok", "error", "denied", "timeout", "interrupted"]
"""How a tool call ended. Everything but ``ok`` is shown to the model as an error."""


class Text(msgspec.Struct, frozen=True, tag="text", gc=False):
    """Some text."""

    text: str


class Image(msgspec.Struct, frozen=True, tag="image", omit_defaults=True, gc=False):
    """A picture, by value or by reference: exactly one of ``data`` and ``url``."""

    data: bytes | None = None
    """The file's bytes; base64 on the wire."""
    url: str | None = None
    media_type: str = "image/png"
    """Such as ``image/png`` (RFC 6838). Ignored where ``url`` is given."""

    def __post_init__(self) -> None:
        _one_of_data_and_url(self.data, self.url, "Image")


class File(msgspec.Struct, frozen=True, tag="file", omit_defaults=True, gc=False):
    """A document, by value or by reference: exactly one of ``data`` and ``url``."""

    data: bytes | None = None
    """The file's bytes; base64 on the wire."""
    url: str | None = None
    media_type: str = "application/octet-stream"
    name: str = "file"

    def __post_init__(self) -> None:
        _one_of_data_and_url(self.data, self.url, "File")


def _one_of_data_and_url(data: bytes | None, url: str | None, kind: str) -> None:
    if (data is None) == (url is None):
        raise UsageError(f"{kind} needs exactly one of data= and url=")


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning", omit_defaults=True, gc=False):
    """What the model thought before it spoke. Sent back to the provider that made it, and to no other."""

    text: str
    signature: str | None = None
    """What the provider wants back with it, unread: a signature or encrypted content."""


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call", gc=False):
    """A call that the model asked for."""

    id: str
    """Unique within its session."""
    name: str
    arguments: str
    """JSON text, just as the model wrote it: it may be no JSON at all."""

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What was used, in tokens as the provider counted them. Add two with ``+``."""

    input_tokens: int = 0
    """All that the model read, the cached part included."""
    output_tokens: int = 0
    """All that the model wrote, the reasoning included."""
    cached_tokens: int = 0
    """The part of ``input_tokens`` that came from the provider's cache."""
    reasoning_tokens: int = 0
    """The part of ``output_tokens`` that was reasoning."""
    requests: int = 0
    """How many model responses this sums up."""
    cache_written_tokens: int = 0
    """The part of ``input_tokens`` that the provider put into its cache, where it says so."""
    cost: float = 0.0
    """In the currency of the agent's ``prices``; 0 for models that have none."""

    def __str__(self) -> str:
        cost = f", cost {self.cost:.4g}" if self.cost else ""
        return f"{self.input_tokens} in, {self.output_tokens} out{cost}"

    @property
    def total_tokens(self) -> int:
        """Tokens in and out."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.requests + other.requests,
            self.cache_written_tokens + other.cache_written_tokens,
            self.cost + other.cost,
        )


UserPart: TypeAlias = Text | Image | File
AssistantPart: TypeAlias = Text | Reasoning | ToolCall


class UserMessage(msgspec.Struct, frozen=True, tag="user", gc=False):
    """What a person, or the program in their place, said."""

    parts: tuple[UserPart, ...]

    def __str__(self) -> str:
        return _line(self.parts)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return text_of(self.parts)


class AssistantMessage(msgspec.Struct, frozen=True, tag="assistant", omit_defaults=True, gc=False):
    """One response of the model."""

    parts: tuple[AssistantPart, ...]
    """In the order in which the model wrote them; empty if it said nothing."""
    stop: StopReason = "end"
    model: str = ""
    usage: Usage = Usage()

    def __str__(self) -> str:
        return _line(self.parts)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if type(part) is Text)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in order."""
        return tuple(part for part in self.parts if type(part) is ToolCall)


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result", omit_defaults=True, gc=False):
    """What the model reads as the result of one call."""

    call_id: str
    name: str
    parts: tuple[UserPart, ...]
    status: ResultStatus = "ok"

    def __str__(self) -> str:
        return _line(self.parts) if self.status == "ok" else f"{self.status}: {_line(self.parts)}"

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return text_of(self.parts)


def _line(parts: Iterable[UserPart | AssistantPart]) -> str:
    """``parts`` on one line, for a person."""
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
Prompt: TypeAlias = str | UserPart | UserMessage | Sequence[str | UserPart]
"""What a run can be started with."""


def text_of(parts: Iterable[UserPart]) -> str:
    """The text parts, joined; the others are left out."""
    return "".join(part.text for part in parts if type(part) is Text)


def user_message(prompt: Prompt) -> UserMessage:
    """The message that ``prompt`` spells out.

    Raises:
      UsageError: the prompt is empty, or holds something that is no text, image or file.
    """
    parts: list[UserPart] = []
    for part in _parts_of(prompt):
        if isinstance(part, str):
            parts.append(Text(part))
        elif isinstance(part, (Text, Image, File)):
            parts.append(part)
        else:
            raise UsageError(f"a prompt is made of str, Text, Image and File, not {type(part).__name__}: {part!r}")
    if not any(not isinstance(part, Text) or part.text.strip() for part in parts):
        raise UsageError("a prompt needs some text, an image or a file; this one is empty")
    return UserMessage(tuple(parts))


def _parts_of(prompt: object) -> Iterable[object]:
    if isinstance(prompt, UserMessage):
        return prompt.parts
    if isinstance(prompt, (str, Text, Image, File)):
        return (prompt,)
    if not isinstance(prompt, Iterable):
        raise UsageError(f"a prompt is text, or a list of str, Text, Image and File, not {prompt!r}")
    return cast("Iterable[object]", prompt)
