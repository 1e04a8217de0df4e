"""The UI message stream of Vercel's AI SDK, version 1: ``POST /vercel`` is the ``api`` of ``useChat``.

The chat is a session of the server, so only the last message of a request counts. A tool call that needs an approval
ends the response; ``addToolApprovalResponse`` in the page resumes the run. An elicitation comes as a part
``data-elicitation``, and is answered by the field ``answers`` of the request's body.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import msgspec

from agentloop._core.json_text import decode_json
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    MessageCommitted,
    Question,
    QuestionParked,
    ReasoningDelta,
    ResponseDiscarded,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
    UsageReported,
)
from agentloop.messages import UserPart
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
from agentloop.serving._errors import Refusal
from agentloop.serving.protocols._base import (
    RunRequest,
    Verdict,
    answer_to,
    decoded,
    failure_of,
    media,
    prompt_of,
    sse,
)

__all__ = ["Vercel", "VercelEncoder"]


class _Message(msgspec.Struct):
    role: str
    parts: list[dict[str, Any]]
    id: str = ""


class _Chat(msgspec.Struct):
    id: str
    messages: list[_Message]
    answers: dict[str, Answer] | None = None
    model: Any = None
    reasoning_effort: Any = msgspec.field(default=None, name="reasoningEffort")


class _Approval(msgspec.Struct):
    id: str
    approved: bool = False
    reason: str | None = None


class Vercel:
    """The UI message stream of the AI SDK."""

    name: ClassVar[str] = "vercel"
    paths: ClassVar[Sequence[str]] = ("/vercel", "/vercel/{agent}")
    on_question: ClassVar[Literal["park", "decline"]] = "park"
    headers: ClassVar[Mapping[str, str]] = {"x-vercel-ai-ui-message-stream": "v1"}

    def read(self, path: str, body: bytes) -> RunRequest:
        """Read the request of ``DefaultChatTransport``."""
        sent = decoded(body, _Chat)
        answers: dict[str, Any] = dict(sent.answers or {})
        last = sent.messages[-1] if sent.messages else None
        if last is not None and last.role == "assistant":
            answers |= {approval.id: approval for approval in _approvals(last)}
        if answers:
            return RunRequest(session=sent.id, answers=answers, body=sent)
        if last is None or last.role != "user":
            raise Refusal(400, "the last of the messages is to be the user's, or to have an approval that is responded")
        prompt = prompt_of(list(_parts(last)))
        return RunRequest(session=sent.id, prompt=prompt, model=sent.model, effort=sent.reasoning_effort, body=sent)

    def answer(self, question: Question, given: Any) -> Answer:
        """The answer of an approval's response, or of the field ``answers``."""
        if isinstance(given, (Accept, Approve, Cancel, Decline, Deny)):
            return given
        approval = cast("_Approval", given)
        return answer_to(question, Verdict(approval.approved, note=approval.reason or ""))

    def encoder(self, path: str, request: RunRequest, *, session: str, seq: int, created: int) -> VercelEncoder:
        """An encoder for one response. One that resumes a run continues the last message of the client."""
        return VercelEncoder(f"{session}.{seq}", continues=request.prompt is None)


def _approvals(message: _Message) -> Iterator[_Approval]:
    for part in message.parts:
        if part.get("state") == "approval-responded":
            try:
                yield msgspec.convert(part.get("approval"), _Approval)
            except msgspec.ValidationError as error:
                raise Refusal(400, f"an approval of the last message is not as it should be: {error}") from error


def _parts(message: _Message) -> Iterator[str | UserPart]:
    for part in message.parts:
        match part:
            case {"type": "text", "text": str(text)}:
                yield text
            case {"type": "file", "url": str(url), "mediaType": str(kind)}:
                name = part.get("filename")
                yield media(url, kind, name if isinstance(name, str) else "")
            case {"type": str(kind)} if kind.startswith("data-"):
                # For the page itself.
                pass
            case _:
                raise Refusal(400, "a part of a message of the user is a text or a file")


class VercelEncoder:
    """Events to the chunks of a UI message stream, for one run."""

    def __init__(self, message: str, *, continues: bool) -> None:
        self._message = message
        self._continues = continues
        self._open: Literal["", "text", "reasoning"] = ""
        self._part = ""
        """Id of the part that is open."""
        self._calls: set[str] = set()
        """The calls whose input the client has seen to begin."""
        self._in_step = False
        self._turn = 0
        """The turn that was begun last; 0 before the first."""
        self._questions: dict[str, Question] = {}

    def encode(self, event: StreamEvent) -> Iterable[bytes]:
        """The frames of ``event``."""
        return [sse(value) for value in self._values(event)] + (
            [b"data: [DONE]\n\n"] if isinstance(event, StreamStopped) else []
        )

    def whole(self) -> bytes:
        """The protocol has responses that stream only."""
        return b""

    def broken(self, message: str) -> Iterable[bytes]:
        """The end of a response whose run cannot be read further."""
        return [sse({"type": "error", "errorText": message}), b"data: [DONE]\n\n"]

    def _values(self, event: StreamEvent) -> Iterator[dict[str, Any]]:
        match event:
            case ElicitationRequested() | ContinueRequested() | ApprovalRequested():
                self._questions[event.id] = event
            case QuestionParked() if event.id in self._questions:
                # Not before: a question may have its answer already, in a run that is resumed.
                yield from self._ask(self._questions[event.id])
            case _ if event.depth:
                pass
            case StreamStarted():
                yield {"type": "start"} | ({} if self._continues else {"messageId": self._message})
            case TurnStarted():
                # The turn that a resumed run is in has begun in the response before, with its calls.
                self._in_step = not self._continues or event.turn > self._turn > 0
                self._turn = event.turn
                if self._in_step:
                    yield {"type": "start-step"}
            case TextDelta():
                yield from self._begin("text", event.seq)
                yield {"type": "text-delta", "id": self._part, "delta": event.text}
            case ReasoningDelta():
                yield from self._begin("reasoning", event.seq)
                yield {"type": "reasoning-delta", "id": self._part, "delta": event.text}
            case ToolCallDelta():
                yield from self._close()
                if event.call_id not in self._calls:
                    self._calls.add(event.call_id)
                    yield {**_dynamic("tool-input-start", event.call_id), "toolName": event.name}
                if event.arguments:
                    delta = {"toolCallId": event.call_id, "inputTextDelta": event.arguments}
                    yield {"type": "tool-input-delta", **delta}
            case ResponseDiscarded(purpose="turn"):
                yield from self._close()
                self._calls.clear()
                yield {"type": "reset-step"}
            case UsageReported(purpose="turn") | MessageCommitted():
                yield from self._close()
            case ToolCallStarted() if event.call_id in self._calls or self._in_step:
                head = {**_dynamic("tool-input-available", event.call_id), "toolName": event.name}
                yield {**head, "input": _input(event.arguments)}
            case ToolCallFinished():
                yield _output(event)
            case TurnFinished():
                yield from self._close()
                if self._in_step:
                    yield {"type": "finish-step"}
                self._in_step = False
            case StreamStopped():
                yield from self._end(event)
            case _:
                pass

    def _begin(self, kind: Literal["text", "reasoning"], seq: int) -> Iterator[dict[str, Any]]:
        if self._open == kind:
            return
        yield from self._close()
        self._open, self._part = kind, f"{self._message}.{seq}"
        yield {"type": f"{kind}-start", "id": self._part}

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._open:
            yield {"type": f"{self._open}-end", "id": self._part}
            self._open = ""

    def _ask(self, question: Question) -> Iterator[dict[str, Any]]:
        if isinstance(question, ApprovalRequested) and not question.depth:
            request = {"approvalId": question.id, "toolCallId": question.call_id}
            yield {"type": "tool-approval-request", **request} | (
                {"reason": question.reason} if question.reason else {}
            )
            return
        # A call of a child stream has no part that could carry the approval.
        data: dict[str, Any]
        match question:
            case ApprovalRequested():
                data = {"kind": "approval", "name": question.name, "arguments": question.arguments}
                if question.reason:
                    data["reason"] = question.reason
            case ContinueRequested():
                data = {"kind": "continue", "limit": question.limit, "allowed": question.allowed}
            case _:
                data = {"kind": "elicitation", "message": question.message, "form": question.form, "url": question.url}
        yield {"type": "data-elicitation", "id": question.id, "data": {"id": question.id, **data}}

    def _end(self, event: StreamStopped) -> Iterator[dict[str, Any]]:
        yield from self._close()
        if self._in_step:
            yield {"type": "finish-step"}
        match event.reason:
            case "completed":
                yield {"type": "finish", "finishReason": "stop"}
            case "needs_input":
                yield {"type": "finish", "finishReason": "tool-calls"}
            case "limit":
                yield {"type": "finish", "finishReason": "length"}
            case "cancelled":
                yield {"type": "abort"} | ({"reason": event.detail} if event.detail else {})
            case _:
                yield {"type": "error", "errorText": failure_of(event)}


def _dynamic(type: str, call: str) -> dict[str, Any]:
    # The page declares no types for the tools of the server.
    return {"type": type, "toolCallId": call, "dynamic": True}


def _input(arguments: str) -> Any:
    try:
        return decode_json(arguments or "{}")
    except (msgspec.DecodeError, UnicodeError):
        return {"arguments": arguments}


def _output(event: ToolCallFinished) -> dict[str, Any]:
    result = event.result
    if result.status == "ok":
        return {**_dynamic("tool-output-available", event.call_id), "output": result.text}
    if result.status == "denied":
        return {"type": "tool-output-denied", "toolCallId": event.call_id}
    return {**_dynamic("tool-output-error", event.call_id), "errorText": result.text}
