"""A2A 1.0: events of a run to a task and its updates, and the tasks that a session has."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
from attrs import define

from agentloop._core.json_text import decode_own
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    MessageCommitted,
    Question,
    QuestionAnswered,
    QuestionDeclined,
    QuestionWithdrawn,
    ResponseDiscarded,
    Source,
    StreamEvent,
    StreamReason,
    StreamStarted,
    StreamStopped,
    TextDelta,
)
from agentloop.journal import Record
from agentloop.messages import AssistantMessage, Text, UserMessage, UserPart
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline
from agentloop.serving.protocols._base import failure_of, json_of
from agentloop.serving.protocols.a2a import TaskState, actions_for

__all__ = ["ENDED", "TASK_KINDS", "TaskEncoder", "TaskRecord", "tasks_of", "timestamp"]

T = TypeVar("T")

_STATES: Mapping[StreamReason, TaskState] = {
    "completed": "TASK_STATE_COMPLETED",
    "cancelled": "TASK_STATE_CANCELED",
    "failed": "TASK_STATE_FAILED",
    "blocked": "TASK_STATE_REJECTED",
    "limit": "TASK_STATE_FAILED",
    "needs_input": "TASK_STATE_INPUT_REQUIRED",
    # The server resumes it for the next client that asks.
    "interrupted": "TASK_STATE_WORKING",
}

ENDED = frozenset({"TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"})
"""States that a task does not leave."""

SUPERSEDED = "a later task of the context took the place of this one"


def timestamp(seconds: float) -> str:
    """The time ``seconds`` after 1970, as the protocol writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ------------------------------------------------------------------- the tasks of a session

TASK_KINDS = ("stream_started", "stream_stopped")
"""Kinds of the records that say which tasks a session has."""


class TaskRecord(NamedTuple):
    """A task of a session, as far as the beginnings and the ends of its streams say."""

    seq: int
    """The number of the run's first event."""
    agent: str
    """The name of its agent."""
    state: TaskState
    """The state of the task, unless its run is live."""
    at: float
    """The time of the last change of its state, in seconds since 1970."""
    last: int = 0
    """The number of the event that has put it into its state, unless it is at work."""

    @property
    def end(self) -> float:
        """The number of its last event, as far as the store says; infinite if it is at work."""
        return math.inf if self.state == "TASK_STATE_WORKING" else self.last


class _Prompt(msgspec.Struct):
    parts: list[msgspec.Raw] = []


class _Started(msgspec.Struct):
    source: Source
    seq: int
    message: _Prompt
    resumes: str = ""


class _Stopped(msgspec.Struct):
    seq: int
    reason: StreamReason


def tasks_of(records: Iterable[Record]) -> list[TaskRecord]:
    """The tasks that ``records``, which are of `TASK_KINDS`, are about, oldest first.

    A stream whose beginning cannot be read is left out, as if it had not been a task.
    """
    tasks: list[TaskRecord] = []
    is_open = False
    for record in records:
        if record.kind == "stream_stopped":
            stopped = _decoded(record, _Stopped)
            if is_open and stopped is not None:
                tasks[-1] = tasks[-1]._replace(state=_STATES[stopped.reason], at=record.at, last=stopped.seq)
            continue
        started = _decoded(record, _Started)
        if started is not None and started.resumes:
            if is_open:
                tasks[-1] = tasks[-1]._replace(state="TASK_STATE_WORKING", at=record.at)
            continue
        # A stream without a prompt only shortens the conversation.
        is_open = started is not None and bool(started.message.parts)
        if started is not None and tasks and tasks[-1].state not in ENDED:
            tasks[-1] = tasks[-1]._replace(state="TASK_STATE_CANCELED", at=record.at, last=started.seq)
        if started is not None and is_open:
            tasks.append(TaskRecord(started.seq, started.source.agents[0], "TASK_STATE_WORKING", record.at))
    return tasks


def _decoded(record: Record, type: type[T]) -> T | None:
    try:
        return decode_own(record.data, type)
    except (msgspec.DecodeError, UnicodeError):
        return None


# ------------------------------------------------------------------------ events to updates


@define
class _Artifact:
    """The text of one turn."""

    id: str
    pieces: list[str]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class TaskEncoder:
    """Applies the events of one task, from its first one on: to the task, and to updates for those who read it.

    Each turn with text is an artifact.

    Args:
      task: the id of the task.
      context: the client's name for the context.
    """

    def __init__(self, task: str, context: str) -> None:
        self.state: TaskState = "TASK_STATE_WORKING"
        self.at = ""
        """The time of the status, as `timestamp` writes it; empty if it is not known."""
        self.is_past = False
        """Whether the events are those of a later task by now: they no longer count."""
        self._ids = {"taskId": task, "contextId": context}
        self._message: dict[str, Any] | None = None
        """The message of the status."""
        self._artifacts: list[_Artifact] = []
        self._open: _Artifact | None = None
        """The artifact of the response that is read now."""
        self._history: list[dict[str, Any]] = []
        self._questions: dict[str, Question] = {}
        self._has_begun = False

    def task(self, history_length: int | None = None, *, has_artifacts: bool = True) -> dict[str, Any]:
        """The task as it is now, with the last ``history_length`` messages of its history, or with all."""
        task: dict[str, Any] = {"id": self._ids["taskId"], "contextId": self._ids["contextId"]}
        task["status"] = self._status()
        written = [artifact for artifact in self._artifacts if any(artifact.pieces)]
        if has_artifacts and written:
            task["artifacts"] = [_artifact(artifact.id, artifact.text) for artifact in written]
        start = 0 if history_length is None else max(len(self._history) - history_length, 0)
        if self._history[start:]:
            task["history"] = self._history[start:]
        return task

    def apply(self, event: StreamEvent) -> list[dict[str, Any]]:
        """The updates that ``event`` makes, which follows those before."""
        return [] if self.is_past else list(self._updates(event))

    def _updates(self, event: StreamEvent) -> Iterator[dict[str, Any]]:
        match event:
            case ElicitationRequested() | ApprovalRequested() | ContinueRequested():
                self._questions[event.id] = event
            case QuestionAnswered():
                self._questions.pop(event.id, None)
                self._history.append(self._said("ROLE_USER", event.seq, [_data(_answer_data(event.id, event.answer))]))
            case QuestionDeclined() | QuestionWithdrawn():
                self._questions.pop(event.id, None)
            case _ if event.depth:
                pass
            case StreamStarted():
                yield from self._start(event)
            case TextDelta() if event.text:
                yield self._write(event.text)
            case ResponseDiscarded(purpose="turn"):
                # The client takes back what it has read of a response that broke off.
                if self._open is not None and self._open.pieces:
                    self._open.pieces = []
                    yield self._update(self._open, "", append=False)
            case MessageCommitted(message=AssistantMessage() as message):
                yield from self._complete(message.text)
            case StreamStopped():
                self._open = None
                yield self._stop(event)
            case _:
                pass

    def _start(self, event: StreamStarted) -> Iterator[dict[str, Any]]:
        if self._has_begun and not event.resumes:
            self.is_past = True
            if self.state not in ENDED:
                yield self._enter("TASK_STATE_CANCELED", event.seq, [{"text": SUPERSEDED}])
            return
        if not self._has_begun:
            self._history.append(self._said("ROLE_USER", event.seq, _prompt_parts(event.message)))
        elif self._message is not None:
            self._history.append(self._message)
        self._has_begun = True
        self._questions.clear()
        yield self._enter("TASK_STATE_WORKING", event.seq)

    def _stop(self, event: StreamStopped) -> dict[str, Any]:
        state = _STATES[event.reason]
        if state == "TASK_STATE_INPUT_REQUIRED":
            parts = [part for question in self._questions.values() for part in _question_parts(question)]
        elif event.reason == "completed":
            parts = [{"text": event.detail}] if event.detail else []
        else:
            parts = [{"text": failure_of(event)}]
        return self._enter(state, event.seq, parts)

    def _enter(self, state: TaskState, seq: int, parts: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        self.state = state
        self._message = self._said("ROLE_AGENT", seq, parts) if parts else None
        return {"statusUpdate": {**self._ids, "status": self._status()}}

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = {"state": self.state}
        if self._message is not None:
            status["message"] = self._message
        if self.at:
            status["timestamp"] = self.at
        return status

    def _said(self, role: str, seq: int, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"messageId": f"{self._ids['taskId']}.{seq}", **self._ids, "role": role, "parts": list(parts)}

    def _begin(self) -> _Artifact:
        artifact = _Artifact(str(len(self._artifacts) + 1), [])
        self._artifacts.append(artifact)
        return artifact

    def _write(self, text: str) -> dict[str, Any]:
        is_first = self._open is None
        artifact = self._open = self._open or self._begin()
        artifact.pieces.append(text)
        return self._update(artifact, text, append=not is_first)

    def _complete(self, text: str) -> Iterator[dict[str, Any]]:
        """The response is complete: its text is that of the message, whatever its deltas were."""
        artifact, self._open = self._open, None
        if artifact is None and text:
            artifact = self._begin()
        if artifact is not None and artifact.text != text:
            yield self._update(artifact, text, append=False)
        if artifact is not None:
            artifact.pieces = [text]

    def _update(self, artifact: _Artifact, text: str, *, append: bool) -> dict[str, Any]:
        return {"artifactUpdate": {**self._ids, "artifact": _artifact(artifact.id, text), "append": append}}


def _artifact(id: str, text: str) -> dict[str, Any]:
    return {"artifactId": id, "parts": [{"text": text}]}


def _data(data: Any) -> dict[str, Any]:
    return {"data": data, "mediaType": "application/json"}


def _prompt_parts(message: UserMessage) -> list[dict[str, Any]]:
    return [_prompt_part(part) for part in message.parts]


def _prompt_part(part: UserPart) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    where = {"url": part.url} if part.data is None else {"raw": base64.b64encode(part.data).decode()}
    return {**where, "mediaType": part.media_type}


def _question_parts(question: Question) -> Iterator[dict[str, Any]]:
    """The question in words, and as data."""
    asked: dict[str, Any] = {"question": question.id}
    match question:
        case ApprovalRequested():
            words = f"Run {question.name}({json_of(question.arguments).decode()})?"
            asked |= {"type": "approval", "tool": question.name, "arguments": question.arguments}
            if question.reason:
                asked["reason"] = question.reason
        case ElicitationRequested():
            words = question.message
            asked |= {"type": "form", "schema": question.form}
            if question.url is not None:
                asked["url"] = question.url
        case _:
            words = f"The run has reached its limit of {question.limit} ({question.allowed:g}). Go on?"
            asked |= {"type": "limit", "limit": question.limit, "allowed": question.allowed}
    yield {"text": words}
    yield _data({**asked, "actions": list(actions_for(question))})


def _answer_data(question: str, answer: Answer) -> dict[str, Any]:
    """An answer, as a client would send it."""
    match answer:
        case Approve():
            return {"question": question, "action": "approve"}
        case Accept(content=content):
            return {"question": question, "action": "accept", "content": content}
        case Decline(note=reason):
            return {"question": question, "action": "decline", "reason": reason}
        case Cancel():
            return {"question": question, "action": "cancel"}
        case _:
            return {"question": question, "action": "deny", "reason": answer.reason}
