"""AG-UI 1.0: ``POST /ag-ui`` runs an agent on a thread, and streams its events.

The thread is a session of the server, so only the last message of a request counts: the ones before it are in the
session already. A run that needs an answer ends with the outcome ``interrupt``; the next request resumes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import msgspec

from agentloop._core.json_text import is_object
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    ContinueRequested,
    ElicitationRequested,
    MessageCommitted,
    Question,
    QuestionAnswered,
    QuestionDeclined,
    QuestionWithdrawn,
    ReasoningDelta,
    ResponseDiscarded,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    TurnFinished,
    TurnStarted,
    UsageReported,
)
from agentloop.messages import UserPart
from agentloop.questions import Answer
from agentloop.serving._errors import Refusal
from agentloop.serving.protocols._base import (
    RunRequest,
    Verdict,
    answer_to,
    decoded,
    failure_of,
    json_of,
    last_message,
    media,
    media_of,
    parts_of,
    prompt_of,
    sse,
)

__all__ = ["AgUi", "AgUiEncoder"]


class _Resume(msgspec.Struct, rename="camel"):
    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Any = None


class _Input(msgspec.Struct, rename="camel"):
    thread_id: str
    run_id: str
    messages: list[dict[str, Any]] = []
    resume: list[_Resume] | None = None
    forwarded_props: Any = None


class AgUi:
    """The protocol AG-UI, version 1.0."""

    name: ClassVar[str] = "ag-ui"
    paths: ClassVar[Sequence[str]] = ("/ag-ui", "/ag-ui/{agent}")
    on_question: ClassVar[Literal["park", "decline"]] = "park"
    headers: ClassVar[Mapping[str, str]] = {}

    def read(self, path: str, body: bytes) -> RunRequest:
        """Read a ``RunAgentInput``."""
        sent = decoded(body, _Input)
        if sent.resume:
            answers = {entry.interrupt_id: entry for entry in sent.resume}
            return RunRequest(session=sent.thread_id, answers=answers, body=sent)
        props = sent.forwarded_props if is_object(sent.forwarded_props) else {}
        _, content = last_message(sent.messages)
        prompt = prompt_of(parts_of(content, _part))
        model, effort = props.get("model"), props.get("reasoningEffort")
        return RunRequest(session=sent.thread_id, prompt=prompt, model=model, effort=effort, body=sent)

    def answer(self, question: Question, given: Any) -> Answer:
        """The answer that an entry of ``resume`` gives. An approval takes an explicit ``{"approved": true}``."""
        entry = cast("_Resume", given)
        payload: Any = entry.payload
        if entry.status == "cancelled":
            return answer_to(question, Verdict(None))
        content = cast("dict[str, Any]", payload) if isinstance(payload, dict) else {}
        if isinstance(question, ElicitationRequested):
            return answer_to(question, Verdict(agrees=payload is not False, content=content))
        reason = content.get("reason")
        agrees = payload is True or content.get("approved") is True
        return answer_to(question, Verdict(agrees, note=reason if isinstance(reason, str) else ""))

    def encoder(self, path: str, request: RunRequest, *, session: str, seq: int, created: int) -> AgUiEncoder:
        """An encoder for one response."""
        sent: _Input = request.body
        return AgUiEncoder(sent.thread_id, sent.run_id, sent.messages, f"{session}.{seq}")


def _part(part: Any) -> str | UserPart:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image" | "document", "source": {"type": "data", "value": str(data), "mimeType": str(kind)}}:
            return media_of(data, None, kind)
        case {"type": "image" | "document", "source": {"type": "url", "value": str(url)} as source}:
            kind = source.get("mimeType")
            return media(url, kind if isinstance(kind, str) else "")
        case _:
            raise Refusal(400, "a part of a message is a text, or an image or a document by data or by URL")


class AgUiEncoder:
    """Events to AG-UI events, for one run."""

    def __init__(self, thread: str, run: str, history: Sequence[Mapping[str, Any]], prefix: str) -> None:
        self._ids = {"threadId": thread, "runId": run}
        self._prefix = prefix
        """Beginning of the ids of this response's messages."""
        self._messages: list[Mapping[str, Any]] = list(history)
        """The messages that the client has whole: those that it has sent, and those that this response has added."""
        self._open: Literal["", "text", "reasoning"] = ""
        self._message = ""
        """Id of the message that is open."""
        self._text = ""
        self._calls: dict[str, dict[str, str]] = {}
        """The calls of the response that is read now, each with its name and its arguments so far."""
        self._questions: dict[str, Question] = {}

    def encode(self, event: StreamEvent) -> Iterable[bytes]:
        """The frames of ``event``."""
        return [sse(value) for value in self._values(event)]

    def whole(self) -> bytes:
        """AG-UI has responses that stream only."""
        return b""

    def broken(self, message: str) -> Iterable[bytes]:
        """The end of a response whose run cannot be read further."""
        return [sse({"type": "RUN_ERROR", "message": message, "code": "interrupted"})]

    def _values(self, event: StreamEvent) -> Iterator[dict[str, Any]]:
        match event:
            case ElicitationRequested() | ApprovalRequested() | ContinueRequested():
                self._questions[event.id] = event
            case QuestionAnswered() | QuestionDeclined() | QuestionWithdrawn():
                self._questions.pop(event.id, None)
            case ChildStreamStarted():
                started = {"type": "SUBAGENT_STARTED", "subagentRunId": event.stream, "name": event.agent}
                yield started | ({"parentToolCallId": event.call_id} if event.depth == 1 and event.call_id else {})
            case ChildStreamStopped():
                yield _child_end(event)
            case _ if event.depth:
                pass
            case StreamStarted():
                yield {"type": "RUN_STARTED", **self._ids}
            case TurnStarted():
                yield {"type": "STEP_STARTED", "stepName": f"turn {event.turn}"}
            case TextDelta() if event.text:
                yield from self._begin("text", event.seq)
                self._text += event.text
                yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": self._message, "delta": event.text}
            case ReasoningDelta() if event.text:
                yield from self._begin("reasoning", event.seq)
                yield {"type": "REASONING_MESSAGE_CONTENT", "messageId": self._message, "delta": event.text}
            case ToolCallDelta():
                yield from self._call(event)
            case ResponseDiscarded(purpose="turn"):
                yield from self._discard()
            case UsageReported(purpose="turn") | MessageCommitted():
                yield from self._complete()
            case ToolCallFinished():
                result = {"toolCallId": event.call_id, "content": event.result.text, "role": "tool"}
                id = self._id(event.seq)
                self._messages.append({"id": id, **result})
                yield {"type": "TOOL_CALL_RESULT", "messageId": id, **result}
            case TurnFinished():
                yield from self._complete()
                yield {"type": "STEP_FINISHED", "stepName": f"turn {event.turn}"}
            case StreamStopped():
                yield from self._complete()
                yield self._end(event)
            case _:
                pass

    def _id(self, seq: int) -> str:
        return f"{self._prefix}.{seq}"

    def _begin(self, kind: Literal["text", "reasoning"], seq: int) -> Iterator[dict[str, Any]]:
        if self._open == kind:
            return
        yield from self._close()
        self._open, self._message, self._text = kind, self._id(seq), ""
        if kind == "text":
            yield {"type": "TEXT_MESSAGE_START", "messageId": self._message, "role": "assistant"}
        else:
            yield {"type": "REASONING_START", "messageId": self._message}
            yield {"type": "REASONING_MESSAGE_START", "messageId": self._message, "role": "reasoning"}

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._open == "text":
            yield {"type": "TEXT_MESSAGE_END", "messageId": self._message}
        elif self._open == "reasoning":
            yield {"type": "REASONING_MESSAGE_END", "messageId": self._message}
            yield {"type": "REASONING_END", "messageId": self._message}
        self._open = ""

    def _call(self, event: ToolCallDelta) -> Iterator[dict[str, Any]]:
        if event.call_id not in self._calls:
            yield from self._close()
            self._calls[event.call_id] = {"name": event.name, "arguments": ""}
            started = {"type": "TOOL_CALL_START", "toolCallId": event.call_id, "toolCallName": event.name}
            # A message without text was never announced, so it cannot be named as the parent.
            yield started | ({"parentMessageId": self._message} if self._text else {})
        if event.arguments:
            self._calls[event.call_id]["arguments"] += event.arguments
            yield {"type": "TOOL_CALL_ARGS", "toolCallId": event.call_id, "delta": event.arguments}

    def _complete(self) -> Iterator[dict[str, Any]]:
        """The response is complete: its message and its calls end."""
        yield from self._close()
        for id in self._calls:
            yield {"type": "TOOL_CALL_END", "toolCallId": id}
        if self._text or self._calls:
            message: dict[str, Any] = {"id": self._message or f"{self._prefix}.{len(self._messages)}"}
            message["role"] = "assistant"
            if self._text:
                message["content"] = self._text
            if self._calls:
                calls = [{"id": id, "type": "function", "function": call} for id, call in self._calls.items()]
                message["toolCalls"] = calls
            self._messages.append(message)
        self._text, self._message, self._calls = "", "", {}

    def _discard(self) -> Iterator[dict[str, Any]]:
        """Take back what the client has read of a response that broke off."""
        if self._text or self._calls or self._open:
            yield from self._close()
            for id in self._calls:
                yield {"type": "TOOL_CALL_END", "toolCallId": id}
            yield {"type": "MESSAGES_SNAPSHOT", "messages": self._messages}
        self._text, self._message, self._calls = "", "", {}

    def _end(self, event: StreamStopped) -> dict[str, Any]:
        if event.reason == "needs_input" and self._questions:
            interrupts = [_interrupt(question) for question in self._questions.values()]
            outcome = {"type": "interrupt", "interrupts": interrupts}
        elif event.reason == "completed":
            outcome = {"type": "success"}
        elif event.reason == "cancelled":
            outcome = {"type": "cancelled"}
        else:
            return {"type": "RUN_ERROR", "message": failure_of(event), "code": event.reason}
        return {"type": "RUN_FINISHED", **self._ids, "outcome": outcome}


def _child_end(event: ChildStreamStopped) -> dict[str, Any]:
    if event.reason in ("completed", "needs_input", "interrupted"):
        outcome = "success" if event.reason == "completed" else "suspended"
        return {"type": "SUBAGENT_FINISHED", "subagentRunId": event.stream, "outcome": {"type": outcome}}
    message = event.detail or (event.error.message if event.error else "") or event.reason
    return {"type": "SUBAGENT_ERROR", "subagentRunId": event.stream, "message": message, "code": event.reason}


APPROVAL = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["approved"],
}


def _interrupt(question: Question) -> dict[str, Any]:
    interrupt: dict[str, Any]
    match question:
        case ApprovalRequested():
            reason = f" {question.reason}" if question.reason else ""
            message = f"Run {question.name}({json_of(question.arguments).decode()})?{reason}"
            interrupt = {"reason": "tool_call", "message": message, "responseSchema": APPROVAL}
            interrupt["metadata"] = {"name": question.name, "arguments": question.arguments}
        case ElicitationRequested():
            interrupt = {"reason": "input_required", "message": question.message, "responseSchema": question.form}
            if question.url is not None:
                interrupt["metadata"] = {"url": question.url}
        case _:
            message = f"The run has reached its limit of {question.limit} ({question.allowed:g}). Go on?"
            interrupt = {"reason": "limit", "message": message, "responseSchema": APPROVAL}
    if not question.depth and not isinstance(question, ContinueRequested) and question.call_id:
        # The client has not seen the calls of child streams.
        interrupt["toolCallId"] = question.call_id
    return {"id": question.id, **interrupt}
