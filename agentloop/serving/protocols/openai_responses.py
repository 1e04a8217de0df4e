"""OpenAI responses: ``POST /v1/responses`` runs the agent that is named as the model.

The id of a response names its session, so that a request with ``previous_response_id`` continues that session; one
without it begins a session. Tools run on the server, and only the text of the agent goes to the client. There are no
questions, so a tool that needs an approval is declined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from agentloop.events import (
    MessageCommitted,
    ResponseDiscarded,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
)
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
    media,
    parts_of,
    picture_at,
    prompt_of,
    quoted,
    sse,
    text_in,
)

__all__ = ["OpenAiResponses", "ResponsesEncoder"]

PREFIX = "resp_"


class _Request(msgspec.Struct):
    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    background: bool | None = None
    tools: list[Any] | None = None


class OpenAiResponses(TextProtocol):
    """OpenAI responses."""

    name: ClassVar[str] = "openai-responses"
    paths: ClassVar[Sequence[str]] = ("/v1/responses",)

    def read(self, path: str, body: bytes) -> RunRequest:
        """Read a request for a response. Settings of the model are the agent's own, and are not read."""
        sent = decoded(body, _Request)
        self.check_tools(sent.tools)
        if sent.background:
            raise Refusal(400, "a response in the background cannot be asked for here: leave background= out")
        history = [("instructions", sent.instructions)] if sent.instructions else []
        earlier, content = ((), sent.input) if isinstance(sent.input, str) else last_message(sent.input)
        history += [(str(item.get("role", item.get("type"))), text_in(item.get("content"))) for item in earlier]
        parts = parts_of(content, _input_part)
        words = quoted(history)
        return RunRequest(
            agent=sent.model,
            session=_session_of(sent.previous_response_id),
            must_exist=sent.previous_response_id is not None,
            prompt=prompt_of([words, *parts] if words else parts),
            # The response before this one may have been of another model: each request names its own.
            model="",
            streams=sent.stream is True,
            body=sent,
        )

    def encoder(self, path: str, request: RunRequest, *, session: str, seq: int, created: int) -> ResponsesEncoder:
        """An encoder for one response."""
        return ResponsesEncoder(f"{PREFIX}{session}.{seq}", request.body, created)


def _session_of(response: str | None) -> str:
    if response is None:
        return ""
    session, dot, _ = response.removeprefix(PREFIX).rpartition(".")
    if not (response.startswith(PREFIX) and dot and session):
        raise Refusal(404, "there is no response with the id that the request names as the previous one")
    return session


def _input_part(part: Any) -> str | UserPart:
    match part:
        case {"type": "input_text", "text": str(text)}:
            return text
        case {"type": "input_image", "image_url": str(url)}:
            return picture_at(url)
        case {"type": "input_file", "file_data": str(data)}:
            return file_of(data, part.get("filename"))
        case {"type": "input_file", "file_url": str(url)}:
            return media(url, "application/octet-stream", "file")
        case _:
            raise Refusal(400, "a part is an input_text, an input_image by URL, or an input_file by data or by URL")


class ResponsesEncoder:
    """Events to the events of a response, for one run. Each turn with text is an item of the output."""

    def __init__(self, id: str, request: _Request, created: int) -> None:
        self._id = id
        self._request = request
        self._created = created
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._text: str | None = None
        """The text of the item that is open."""
        self._stopped: StreamStopped | None = None

    def encode(self, event: StreamEvent) -> Iterable[bytes]:
        """The frames of ``event``."""
        if event.depth:
            return ()
        return [sse(value, event=str(value["type"])) for value in self._values(event)]

    def _values(self, event: StreamEvent) -> Iterator[dict[str, Any]]:
        match event:
            case StreamStarted():
                yield self._event("created", response=self._response("in_progress"))
                yield self._event("in_progress", response=self._response("in_progress"))
            case TextDelta():
                yield from self._begin()
                self._text = (self._text or "") + event.text
                yield self._event("output_text.delta", **self._place(), delta=event.text, logprobs=[])
            case ResponseDiscarded(purpose="turn"):
                # What has been sent cannot be taken back: the next attempt is an item of its own.
                yield from self._complete("incomplete")
            case MessageCommitted(message=AssistantMessage()):
                yield from self._complete("completed")
            case StreamStopped():
                self._stopped = event
                yield from self._complete("incomplete")
                status = _status(event)
                yield self._event(status, response=self._response(status))
            case _:
                pass

    def _event(self, name: str, **fields: Any) -> dict[str, Any]:
        number, self._number = self._number, self._number + 1
        return {"type": f"response.{name}", "sequence_number": number, **fields}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item_id(), "output_index": len(self._output), "content_index": 0}

    def _item_id(self) -> str:
        return f"msg_{self._id.removeprefix(PREFIX)}.{len(self._output)}"

    def _item(self, status: str, text: str | None) -> dict[str, Any]:
        content = [] if text is None else [_part(text)]
        return {"id": self._item_id(), "type": "message", "role": "assistant", "status": status, "content": content}

    def _begin(self) -> Iterator[dict[str, Any]]:
        if self._text is None:
            self._text = ""
            item = self._item("in_progress", None)
            yield self._event("output_item.added", output_index=len(self._output), item=item)
            yield self._event("content_part.added", **self._place(), part=_part(""))

    def _complete(self, status: Literal["completed", "incomplete"]) -> Iterator[dict[str, Any]]:
        if self._text is None:
            return
        text, self._text = self._text, None
        item = self._item(status, text)
        yield self._event("output_text.done", **self._place(), text=text, logprobs=[])
        yield self._event("content_part.done", **self._place(), part=_part(text))
        yield self._event("output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)

    def _response(self, status: str) -> dict[str, Any]:
        stopped = self._stopped
        failed = stopped is not None and status == "failed"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "model": self._request.model,
            "output": list(self._output),
            "error": {"code": "server_error", "message": failure_of(stopped)} if stopped and failed else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": self._request.instructions,
            "previous_response_id": self._request.previous_response_id,
            "metadata": {},
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": None if stopped is None else _usage(stopped.usage),
        }

    def whole(self) -> bytes:
        """The response."""
        if self._stopped is None:
            raise Refusal(500, "the run has not ended")
        return json_of(self._response(_status(self._stopped)))

    def broken(self, message: str) -> Iterable[bytes]:
        """The end of a response whose run cannot be read further."""
        error = {"type": "error", "sequence_number": self._number, "code": "server_error", "message": message}
        return [sse({**error, "param": None}, event="error")]


def _status(event: StreamStopped) -> str:
    return {"completed": "completed", "limit": "incomplete"}.get(event.reason, "failed")


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_written_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
