"""OpenAI chat completions: ``POST /v1/chat/completions`` runs the agent that is named as the model.

A client of this protocol has the conversation and sends all of it with each request, so each request begins a session
of its own. The last message is the prompt. Those before it come to the model as words of the user: see `quoted`. Tools
run on the server, and only the text of the agent goes to the client. There are no questions, so a tool that needs an
approval is declined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import msgspec

from agentloop.events import MessageCommitted, ResponseDiscarded, StreamEvent, StreamStopped, TextDelta
from agentloop.messages import AssistantMessage, Usage, UserPart
from agentloop.serving._errors import Refusal
from agentloop.serving.protocols._base import (
    RunRequest,
    TextProtocol,
    decoded,
    failure_of,
    file_of,
    json_of,
    last_message,
    parts_of,
    picture_at,
    prompt_of,
    quoted,
    sse,
    text_in,
)

__all__ = ["ChatEncoder", "OpenAiChat", "error_body"]

BREAK = "\n\n"
"""Between the texts of two turns, or of a response that broke off and the one in its place."""


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Chat(msgspec.Struct):
    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None
    tools: list[Any] | None = None


class OpenAiChat(TextProtocol):
    """OpenAI chat completions."""

    name: ClassVar[str] = "openai-chat"
    paths: ClassVar[Sequence[str]] = ("/v1/chat/completions",)

    def read(self, path: str, body: bytes) -> RunRequest:
        """Read a request for a chat completion. Settings of the model are the agent's own, and are not read."""
        sent = decoded(body, _Chat)
        self.check_tools(sent.tools)
        if sent.n not in (None, 1):
            raise Refusal(400, "there is one choice: leave n= out")
        earlier, content = last_message(sent.messages)
        history = quoted((str(message.get("role")), text_in(message.get("content"))) for message in earlier)
        parts = parts_of(content, _part)
        prompt = prompt_of([history, *parts] if history else parts)
        return RunRequest(agent=sent.model, prompt=prompt, streams=sent.stream is True, body=sent)

    def encoder(self, path: str, request: RunRequest, *, session: str, seq: int, created: int) -> ChatEncoder:
        """An encoder for one response."""
        sent: _Chat = request.body
        counts = sent.stream_options is not None and sent.stream_options.include_usage is True
        return ChatEncoder(f"chatcmpl-{session}", sent.model, created, counts=counts)


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error as the clients of OpenAI read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _part(part: Any) -> str | UserPart:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return picture_at(url)
        case {"type": "file", "file": {"file_data": str(data)} as file}:
            return file_of(data, file.get("filename"))
        case _:
            raise Refusal(400, "a part of a message is a text, an image_url, or a file with file_data")


class ChatEncoder:
    """Events to chunks of a chat completion, for one run."""

    def __init__(self, id: str, model: str, created: int, *, counts: bool) -> None:
        self._head = {"id": id, "created": created, "model": model}
        self._counts = counts
        self._has_begun = False
        self._has_text = False
        """Whether the response that is read now has text."""
        self._breaks = False
        """Whether something has been sent that the next text is to be set apart from."""
        self._answer = ""
        self._stopped: StreamStopped | None = None

    def encode(self, event: StreamEvent) -> Iterable[bytes]:
        """The frames of ``event``."""
        if event.depth:
            return ()
        frames: list[bytes] = []
        if not self._has_begun:
            self._has_begun = True
            frames.append(self._chunk({"role": "assistant", "content": ""}))
        match event:
            case TextDelta():
                text = BREAK + event.text if self._breaks and not self._has_text else event.text
                self._has_text = True
                frames.append(self._chunk({"content": text}))
            case ResponseDiscarded(purpose="turn"):
                self._breaks, self._has_text = self._breaks or self._has_text, False
            case MessageCommitted(message=AssistantMessage() as message):
                self._answer = message.text
                self._breaks, self._has_text = self._breaks or self._has_text, False
            case StreamStopped():
                self._stopped = event
                frames.extend(self._end(event))
            case _:
                pass
        return frames

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return sse(chunk | ({"usage": None} if self._counts else {}))

    def _end(self, event: StreamStopped) -> Iterator[bytes]:
        if event.reason not in ("completed", "limit"):
            yield sse(error_body(500, failure_of(event)))
            return
        yield self._chunk({}, _finish(event))
        if self._counts:
            yield sse({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage_of(event.usage)})
        yield b"data: [DONE]\n\n"

    def whole(self) -> bytes:
        """The chat completion."""
        if self._stopped is None or self._stopped.reason not in ("completed", "limit"):
            why = "the run has not ended" if self._stopped is None else failure_of(self._stopped)
            raise Refusal(500, why)
        message = {"role": "assistant", "content": self._answer, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": _finish(self._stopped), "logprobs": None}
        usage = usage_of(self._stopped.usage)
        return json_of({**self._head, "object": "chat.completion", "choices": [choice], "usage": usage})

    def broken(self, message: str) -> Iterable[bytes]:
        """The end of a response whose run cannot be read further."""
        return [sse(error_body(500, message))]


def _finish(event: StreamStopped) -> str:
    return "stop" if event.reason == "completed" else "length"


def usage_of(usage: Usage) -> dict[str, Any]:
    """Usage as chat completions count it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
