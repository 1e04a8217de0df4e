"""What all protocols share: the request to run an agent, the encoder of its events, and parsers of small things.

A protocol is a pair of pure functions: from the body of a request to a `RunRequest`, and from events to the frames of
the response. Neither waits, looks at a clock or knows of a connection.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast

import msgspec
from attrs import field, frozen

from agentloop._core.json_text import decode_json, is_array, is_object
from agentloop._core.results import to_text
from agentloop.agent import Agent
from agentloop.errors import UsageError
from agentloop.events import ElicitationRequested, Question, StreamEvent, StreamStopped
from agentloop.messages import File, Image, Prompt, UserMessage, UserPart, user_message
from agentloop.models import ModelChoice
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
from agentloop.serving._errors import Refusal

__all__ = [
    "Encoder",
    "RunRequest",
    "TextProtocol",
    "Verdict",
    "WireProtocol",
    "answer_to",
    "choice_of",
    "commands_of",
    "decoded",
    "failure_of",
    "file_of",
    "json_of",
    "last_message",
    "media",
    "media_of",
    "parts_of",
    "picture_at",
    "prompt_of",
    "quoted",
    "sse",
    "text_in",
    "typed_prompt",
]

T = TypeVar("T")


@frozen(kw_only=True)
class RunRequest:
    """A client's request to run an agent, or to resume a run with answers."""

    agent: str = ""
    """Name of the agent; empty for the first one."""
    session: str = ""
    """The client's name for the session; empty for a new session."""
    must_exist: bool = False
    """Whether the request continues a session, and is refused if there is none."""
    prompt: UserMessage | None = None
    """The prompt; ``None`` to resume the parked run of the session."""
    answers: Mapping[str, Any] = field(factory=dict[str, Any])
    """Answers by the id of their question, as the protocol writes them."""
    model: Any = None
    """The name of the model that the client chooses; empty for the agent's own, ``None`` to leave it as it is. Like
    ``effort``, it counts only where the server offers models: clients of other servers send more there."""
    effort: Any = None
    """The level of thinking that the client chooses; ``None`` for none."""
    streams: bool = True
    """Whether the client reads the events as they come, or one response at the end."""
    body: Any = None
    """The request as the protocol has it, for its encoder."""


class Encoder(Protocol):
    """Turns the events of one run into the frames of a response. Made for one response."""

    def encode(self, event: StreamEvent) -> Iterable[bytes]:
        """The frames of ``event``, which follows those before."""
        ...

    def whole(self) -> bytes:
        """The response of a client that does not read events, after the last one."""
        ...

    def broken(self, message: str) -> Iterable[bytes]:
        """The last frames of a response whose run cannot be read to its end."""
        ...


class WireProtocol(Protocol):
    """A protocol of other people's clients: a path where they run an agent, and its pair of functions."""

    name: ClassVar[str]
    """The name in ``protocols=``."""
    paths: ClassVar[Sequence[str]]
    """Paths of ``POST`` requests that run an agent."""
    on_question: ClassVar[Literal["park", "decline"]]
    """Where a run leaves a question: a response ends with it, or the protocol has none."""
    headers: ClassVar[Mapping[str, str]]
    """Headers of a response that streams."""

    def read(self, path: str, body: bytes) -> RunRequest:
        """Read the body of a request to one of ``paths``. Raises `Refusal`."""
        ...

    def answer(self, question: Question, given: Any) -> Answer:
        """The answer to ``question`` that `RunRequest.answers` has for it."""
        ...

    def encoder(self, path: str, request: RunRequest, *, session: str, seq: int, created: int) -> Encoder:
        """An encoder for the run that answers ``request``.

        Args:
          path: the path of the request.
          request: what `read` has read.
          session: the id of the session.
          seq: the number of the run's first event. With ``session`` it makes ids that are unique.
          created: seconds since 1970.
        """
        ...


class TextProtocol:
    """The part that the protocols of OpenAI share: tools run on the server, and no question goes to the client."""

    on_question: ClassVar[Literal["park", "decline"]] = "decline"
    headers: ClassVar[Mapping[str, str]] = {}

    @staticmethod
    def check_tools(tools: Sequence[Any] | None) -> None:
        """Raise `Refusal` if the client has tools of its own."""
        if tools:
            raise Refusal(400, "the agent has tools of its own, which run on the server: leave tools= out")

    def answer(self, question: Question, given: Any) -> Answer:
        """The protocol has no questions."""
        return answer_to(question, Verdict(None))


# -------------------------------------------------------------------------------- parsers


def choice_of(model: Any, effort: Any) -> ModelChoice | None:
    """The choice of a client that sends a model and a level of thinking, or one of them; ``None`` for neither.

    Raises:
      Refusal: there is no such level, or something is no text.
    """
    if model is None and effort is None:
        return None
    if not isinstance(model, (str, type(None))):
        raise Refusal(400, "the model is the name of one that the server offers, or empty for the agent's own")
    try:
        return ModelChoice(model=model or "", reasoning_effort=effort)
    except UsageError as error:
        raise Refusal(400, str(error)) from error


def decoded(body: bytes, type: type[T]) -> T:
    """The JSON of ``body`` as a ``type``. Raises `Refusal`."""
    try:
        return decode_json(body, type)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Refusal(400, f"the body of the request is not as it should be: {error}") from error


def last_message(messages: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], Any]:
    """The earlier messages, and the content of the last one, which is the user's. Raises `Refusal` if it is not."""
    if not messages or messages[-1].get("role") != "user":
        raise Refusal(400, "the last of the messages is to be the user's: it is the prompt of the run")
    return messages[:-1], messages[-1].get("content")


def parts_of(content: Any, part: Callable[[Any], str | UserPart]) -> Sequence[str | UserPart]:
    """The content of a message: text, or a list whose items ``part`` reads. Raises `Refusal`."""
    if isinstance(content, str):
        return [content]
    if not is_array(content):
        raise Refusal(400, "the content of the last message is text, or a list of parts")
    return [part(item) for item in content]


def text_in(content: Any) -> str:
    """The text of an earlier message. What is not text is left out."""
    if isinstance(content, str):
        return content
    parts = content if is_array(content) else []
    return " ".join([part["text"] for part in parts if is_object(part) and isinstance(part.get("text"), str)])


def prompt_of(parts: Prompt) -> UserMessage:
    """The message of ``parts``. Raises `Refusal`, if they are empty."""
    try:
        return user_message(parts)
    except UsageError as error:
        raise Refusal(400, str(error)) from error


def typed_prompt(agent: Agent[Any, Any], message: UserMessage) -> UserMessage:
    """``message``, or the prompt of the slash command that a person typed in it. Raises `Refusal`."""
    try:
        return agent.expand(message)
    except UsageError as error:
        raise Refusal(400, str(error)) from error


def commands_of(agent: Agent[Any, Any]) -> Sequence[dict[str, str]]:
    """The slash commands of ``agent``, for a client to show."""
    return [
        {"name": name, "description": to_text(command.description), "hint": to_text(command.hint)}
        for name, command in agent.commands.items()
    ]


_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*?)(;base64)?,")


def media(url: str, media_type: str = "", name: str = "") -> UserPart:
    """The picture or document at ``url``, which may hold the bytes itself (RFC 2397). Raises `Refusal`.

    The server does not fetch it. The provider of the model does, so it is ``http``, and nothing else.
    """
    data: bytes | None = None
    if match := _DATA_URL.match(url):
        media_type = media_type or match[1]
        data = _base64(url[match.end() :]) if match[3] else url[match.end() :].encode("utf-8", "replace")
    elif not url.startswith(("https://", "http://")):
        raise Refusal(400, f"a picture or a file comes as a data: URL, or from https://, and not as {url[:40]!r}")
    return media_of(data, url if data is None else None, media_type, name)


def picture_at(url: str) -> UserPart:
    """The picture at ``url``, whose type is known only to its host, or in the URL. Raises `Refusal`."""
    return media(url, "" if url.startswith("data:") else "image/*")


def file_of(data: str, name: object) -> UserPart:
    """The document in ``data``, a ``data:`` URL or base64, as a client calls it. Raises `Refusal`."""
    name = name if isinstance(name, str) else ""
    return media(data, "", name) if data.startswith("data:") else media_of(data, None, "", name)


def media_of(data: bytes | str | None, url: str | None, media_type: str, name: str = "") -> UserPart:
    """A picture or a document, by value (bytes, or base64) or by reference. Raises `Refusal`."""
    content = _base64(data) if isinstance(data, str) else data
    try:
        if media_type.startswith("image/") or (not media_type and url is not None and not name):
            return Image(data=content, url=url, media_type=media_type or "image/png")
        return File(data=content, url=url, media_type=media_type or "application/octet-stream", name=name or "file")
    except UsageError as error:
        raise Refusal(400, str(error)) from error


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"a picture or a file is not base64: {error}") from error


def quoted(history: Iterable[tuple[str, str]]) -> str:
    """Earlier messages that a client sends along, as text for the model to read: ``(role, text)`` each.

    A client may write into them what it likes, so they come to the model as words of the user. They never become
    messages of the assistant, results of tools or instructions.
    """
    lines = [f"{role}: {text}" for role, text in history if text.strip()]
    if not lines:
        return ""
    head = "The conversation so far, as the client of the user has saved it:"
    return "\n\n".join([head, *lines, "The user's message now:"])


# -------------------------------------------------------------------------------- answers


@frozen
class Verdict:
    """A person's answer, before it is known what was asked."""

    agrees: bool | None
    """Whether the person agreed; ``None`` if the question was left without an answer."""
    content: Mapping[str, Any] = field(factory=dict[str, Any])
    """The filled in form, if there was one."""
    note: str = ""
    """The person's reason, for the model to read."""


def answer_to(question: Question, verdict: Verdict) -> Answer:
    """The answer to ``question`` that says what ``verdict`` does. Only an explicit yes approves something."""
    if isinstance(question, ElicitationRequested):
        if verdict.agrees is None:
            return Cancel()
        return Accept(dict(verdict.content)) if verdict.agrees else Decline(verdict.note)
    return Approve() if verdict.agrees is True else Deny(verdict.note)


# --------------------------------------------------------------------------------- frames


def json_of(value: object) -> bytes:
    """``value`` as JSON, in one line. Text that no encoding has is replaced."""
    try:
        return msgspec.json.encode(value)
    except UnicodeError:
        return msgspec.json.encode(_encodable(value))


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(item) for item in cast("Sequence[object]", value)]
    return value


def sse(value: object, *, event: str = "") -> bytes:
    """A server-sent event with the JSON of ``value`` as its data."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + json_of(value) + b"\n\n"


def failure_of(event: StreamStopped) -> str:
    """A sentence about why a run has no result."""
    if event.error is not None:
        return event.error.message or event.error.type
    return event.detail or f"the run ended without a result: {event.reason}"
