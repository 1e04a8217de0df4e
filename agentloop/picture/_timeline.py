"""From the records of a journal to a timeline: plain functions, which look at no clock and at no store.

A record has the time of its event, and some spans begin or end with a record that no reader of events gets: a note says
when the function of a tool began to run, and when a request for a summary or for a tool was sent. The request of a turn
begins with its turn, hooks and permissions to send it included. Journals of older versions have the times of writing,
which are up to a quarter of a second later for deltas, and a hundredth for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from agentloop._core.state import RequestSent, SessionRewound, ToolStarted, TurnAbandoned
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    CompactionFinished,
    CompactionStarted,
    ContinueRequested,
    ElicitationRequested,
    Event,
    HandedOff,
    MessageCommitted,
    Paused,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    QuestionWithdrawn,
    ResponseDiscarded,
    Resumed,
    StreamStarted,
    StreamStopped,
    ToolCallFinished,
    ToolCallParked,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
    UsageReported,
    WarningIssued,
)
from agentloop.journal import Record, SessionInfo
from agentloop.messages import AssistantMessage, Usage, UserMessage
from agentloop.picture._spans import Kind, Span, Status, Timeline
from agentloop.picture._summary import children_of, summarize
from agentloop.questions import Answer, Cancel, Decline, Deny
from agentloop.stores._journal_writer import LOST_NUMBERS
from agentloop.stores._replay import DELTAS, UNREADABLE, decode_fact

__all__ = ["MAX_TEXT", "timeline"]

MAX_TEXT = 4000
"""Characters of a prompt, of arguments or of a result that a span shows."""

_STATUS_OF_REASON: Mapping[str, Status] = {
    "cancelled": "cancelled",
    "failed": "error",
    "blocked": "blocked",
    "limit": "limit",
    "needs_input": "parked",
    "interrupted": "interrupted",
}
"""The status of a run or a turn, by the reason of its end; ``ok`` for all others."""

_STATUS_OF_RESULT: Mapping[str, Status] = {"error": "error", "denied": "denied", "timeout": "timeout"}

_OUTER = ("cancelled", "interrupted")
"""The statuses of a span that was ended from outside."""

_ENDED_EARLY = (*_OUTER, "error", "limit", "blocked", "timeout", "discarded")
"""The statuses of a span whose end may have cancelled those inside it."""


def timeline(records: Iterable[Record], *, info: SessionInfo | None = None, now: float | None = None) -> Timeline:
    """Derive the timeline of a session's runs from its journal.

    Args:
      records: all records of the session, in order. Kinds that a newer version has added are passed over.
      info: the session, for its title and its parent.
      now: the time of the picture, in seconds since 1970, for runs that are still running; the time of the last record
        if not given.
    """
    builder = _Builder()
    for record in records:
        builder.read(record)
    return builder.finish(info, now)


class _Draft:
    """A span that may still be open."""

    def __init__(self, id: int, parent: int | None, kind: Kind, name: str, begin: float) -> None:
        self.id = id
        self.parent = parent
        self.kind: Kind = kind
        self.name = name
        self.begin = begin
        self.end: float | None = None
        self.status: Status = "running"
        self.first: float | None = None
        self.ran: float | None = None
        self.cause = ""
        self.details: list[tuple[str, str]] = []

    def add(self, label: str, text: str) -> None:
        """Add a fact, unless it is empty."""
        if text:
            rest = len(text) - MAX_TEXT
            self.details.append((label, text if rest <= 0 else f"{text[:MAX_TEXT]}\n... {rest} more characters"))


class _Stream:
    """The drafts of a run that are open."""

    def __init__(self, run: _Draft, model: str, *, lacks_prompt: bool) -> None:
        self.run = run
        self.model = model
        self.lacks_prompt = lacks_prompt
        """Whether the next message from a person is the prompt."""
        self.turn: _Draft | None = None
        self.request: _Draft | None = None
        """The request of the turn."""
        self.requests: list[_Draft] = []
        """The requests for summaries and tools, the oldest first: their beginning does not say which tool asks."""
        self.compaction: _Draft | None = None
        self.calls: dict[str, _Draft] = {}
        self.questions: dict[str, _Draft] = {}

    @property
    def around(self) -> _Draft:
        """The innermost draft that is open, for what the run does itself."""
        return self.turn or self.run


class _Builder:
    def __init__(self) -> None:
        self._drafts: list[_Draft] = []
        self._dropped: set[int] = set()
        self._streams: dict[str, _Stream] = {}
        self._calls: dict[tuple[str, str], _Draft] = {}
        """All calls, by stream and id: a background run may begin after its call has ended."""
        self._now = 0.0
        self._seen = 0.0
        """The time of the last record that was written while its run was alive."""
        self._seq = 0
        self._is_mending = False
        """Whether the records are the ends that another process wrote for a run whose process had died."""
        self._waiting: _Draft | None = None
        """The draft of the time in which a run is parked, or its process is gone."""
        self._unreadable = 0
        self._lacks_time = False
        self._went_back = False

    # ---------------------------------------------------------------------------- reading

    def read(self, record: Record) -> None:
        if not record.at:
            self._lacks_time = True
        elif record.at < self._now - 0.001:
            self._went_back = True
        # The order of the records counts; a clock may have been set back.
        self._now = max(self._now, record.at)
        if record.kind in DELTAS:
            self._see_delta(record)
            return
        try:
            fact = decode_fact(record)
        except UNREADABLE:
            self._unreadable += 1
            return
        if isinstance(fact, Event):
            self._is_mending = self._is_mending or (self._seq > 0 and fact.seq - self._seq > LOST_NUMBERS)
            self._seq = max(self._seq, fact.seq)
        if not self._is_mending:
            self._seen = self._now
        if fact is not None:
            self._take(record.stream, fact)
        if isinstance(fact, StreamStopped):
            self._is_mending = False

    def _see_delta(self, record: Record) -> None:
        self._seen = self._now
        stream = self._streams.get(record.stream)
        if stream is None or record.kind == "tool_call_output":
            return
        if stream.request is not None and stream.request.first is None:
            stream.request.first = self._now

    def _take(self, id: str, fact: object) -> None:
        stream = self._streams.get(id)
        match fact:
            case StreamStarted() | ChildStreamStarted():
                self._start(fact)
            case SessionRewound(messages=messages):
                self._moment(None, "message", "session rewound").add("messages kept", str(messages))
            case TurnAbandoned():
                self._end_waiting()
            case Event() | RequestSent() | ToolStarted() if stream is not None:
                self._step(stream, id, fact)
            case _:
                pass

    def _step(self, stream: _Stream, id: str, fact: object) -> None:
        # What a kind of fact begins or ends, each in a method of its own.
        match fact:
            case StreamStopped() | ChildStreamStopped():
                self._stop(stream, fact)
            case TurnStarted(turn=turn):
                stream.turn = self._open(stream.run, "turn", f"turn {turn}")
                stream.request = self._open(stream.turn, "request", stream.model)
            case TurnFinished(reason=reason):
                self._end_request(stream, _STATUS_OF_REASON.get(reason, "ok"))
                if stream.turn is not None:
                    stream.turn.add("reason", reason)
                    self._close(stream.turn, _STATUS_OF_REASON.get(reason, "ok"))
                stream.turn = None
            case UsageReported() | ResponseDiscarded() | RequestSent():
                self._see_request(stream, fact)
            case CompactionStarted(reason=reason, tokens=tokens):
                self._end_request(stream, "discarded" if reason == "overflow" else "ok")
                stream.compaction = self._open(stream.around, "compaction", f"compaction ({reason})")
                stream.compaction.add("tokens before", str(tokens))
            case CompactionFinished():
                self._end_compaction(stream, fact)
            case ToolCallStarted() | ToolCallFinished() | ToolCallParked() | ToolStarted():
                self._see_call(stream, id, fact)
            case MessageCommitted(message=message):
                self._see_message(stream, message)
            case HandedOff(to=to):
                self._moment(stream.run, "message", f"handed off to {to}").add("agent", to)
            case Paused() | Resumed():
                self._moment(stream.around, "message", "paused" if isinstance(fact, Paused) else "goes on")
            case WarningIssued(code=code, message=text):
                draft = self._moment(stream.around, "warning", code)
                draft.add("message", text)
            case _:
                self._see_question(stream, fact)

    # ------------------------------------------------------------------------------- runs

    def _start(self, event: StreamStarted | ChildStreamStarted) -> None:
        parent = None
        if isinstance(event, ChildStreamStarted):
            parent = self._calls.get((event.source.parent or "", event.call_id))
            around = self._streams.get(event.source.parent or "")
            parent = around.run if parent is None and around is not None else parent
        else:
            self._end_waiting()
        run = self._open(parent, "run", event.agent)
        run.add("agent", " > ".join(event.path))
        run.add("run", event.source.stream)
        run.add("model", event.model)
        run.add("resumes", event.resumes)
        run.add("prompt", str(event.message.text) or _media(event.message))
        self._streams[event.source.stream] = _Stream(
            run, event.model, lacks_prompt=bool(event.message.parts) and not event.resumes
        )

    def _stop(self, stream: _Stream, event: StreamStopped | ChildStreamStopped) -> None:
        status = _STATUS_OF_REASON.get(event.reason, "ok")
        inner: Status = status if status in ("parked", "interrupted") else "cancelled"
        self._end_request(stream, inner)
        for draft in (*stream.requests, *stream.questions.values(), *stream.calls.values()):
            self._close(draft, inner)
        for around in (stream.compaction, stream.turn):
            if around is not None:
                self._close(around, inner)
        run = stream.run
        run.add("reason", event.reason)
        run.add("detail", event.detail)
        if event.error is not None:
            run.add("error", f"{event.error.type}: {event.error.message}")
        run.add("usage", _usage(event.usage))
        if status != "ok":
            run.cause = event.detail or ("" if event.error is None else event.error.message)
            if status == "interrupted" and not run.cause:
                run.cause = "its process ended"
            if status == "cancelled" and not run.cause and run.parent is None:
                run.cause = "the program left the block of the run, or was cancelled itself"
        self._close(run, status)
        self._streams.pop(event.source.stream, None)
        if isinstance(event, StreamStopped) and status in ("parked", "interrupted"):
            kind: Kind = "parked" if status == "parked" else "stopped"
            name = "parked" if status == "parked" else "no process"
            self._waiting = self._new(None, kind, name, self._seen if self._is_mending else self._now)
            if status == "parked":
                self._waiting.add("waits for", "the answers of a person; the journal has no time of theirs")

    def _end_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.end, self._waiting.status = self._now, "ok"
        self._waiting = None

    # --------------------------------------------------------------------------- requests

    def _see_request(self, stream: _Stream, fact: UsageReported | ResponseDiscarded | RequestSent) -> None:
        match fact:
            case RequestSent(purpose=purpose):
                request = self._open(stream.compaction or stream.around, "request", f"{stream.model} for a {purpose}")
                request.add("purpose", purpose)
                stream.requests.append(request)
            case UsageReported(purpose="turn"):
                if stream.request is not None:
                    _describe(stream.request, fact)
                if fact.is_complete:
                    self._end_request(stream, "ok")
            case UsageReported():
                reported = self._request_of(stream, fact.call_id)
                if reported is not None:
                    _describe(reported, fact)
                    if fact.is_complete:
                        stream.requests.remove(reported)
                        self._close(reported, "ok")
            case ResponseDiscarded():
                self._discard(stream, fact)

    def _request_of(self, stream: _Stream, call_id: str) -> _Draft | None:
        """The oldest open request for a summary or a tool, which is the call ``call_id``'s from now on."""
        call = stream.calls.get(call_id)
        mine = [draft for draft in stream.requests if call is not None and draft.parent == call.id]
        request = next(iter(mine or stream.requests), None)
        if request is not None and call is not None:
            request.parent = call.id
        return request

    def _discard(self, stream: _Stream, event: ResponseDiscarded) -> None:
        is_turn = event.purpose == "turn"
        request = stream.request if is_turn else self._request_of(stream, event.call_id)
        if request is None:
            return
        request.name = event.model
        request.cause = f"{event.error.type}: {event.error.message}"
        request.add("next model", event.next_model)
        self._close(request, "discarded")
        parent = self._drafts[request.parent] if request.parent is not None else None
        begin = self._now + event.delay
        if event.delay > 0:
            pause = self._new(parent, "retry", "pause before a retry", self._now)
            pause.cause, pause.end, pause.status = request.cause, begin, "ok"
        again = self._new(parent, "request", event.next_model, begin)
        if is_turn:
            stream.model, stream.request = event.next_model, again
        else:
            stream.requests[stream.requests.index(request)] = again

    def _end_request(self, stream: _Stream, status: Status) -> None:
        request, stream.request = stream.request, None
        if request is None:
            return
        if request.begin > self._moment_of_end or (status in ("ok", "parked", "blocked") and not _was_sent(request)):
            # The turn was resumed with the response that it had, or a hook or a limit let no request out.
            self._dropped.add(request.id)
        self._close(request, status)

    def _end_compaction(self, stream: _Stream, event: CompactionFinished) -> None:
        draft, stream.compaction = stream.compaction, None
        if draft is None:
            return
        draft.add("tokens after", str(event.tokens))
        draft.add("summary", event.summary)
        draft.cause = event.problem
        self._close(draft, "error" if event.problem else "ok")
        for request in stream.requests:
            if request.parent == draft.id:
                self._close(request, "cancelled")
        stream.requests = [request for request in stream.requests if request.end is None]
        if stream.turn is not None and not stream.calls:
            stream.request = self._open(stream.turn, "request", stream.model)

    # -------------------------------------------------------------------- calls, questions

    def _see_call(
        self, stream: _Stream, id: str, fact: ToolCallStarted | ToolCallFinished | ToolCallParked | ToolStarted
    ) -> None:
        call = stream.calls.get(fact.call_id)
        match fact:
            case ToolCallStarted():
                self._end_request(stream, "ok")
                call = self._open(stream.around, "tool", fact.name)
                call.add("call", fact.call_id)
                call.add("arguments", fact.arguments)
                stream.calls[fact.call_id] = self._calls[id, fact.call_id] = call
            case ToolStarted() if call is not None and call.ran is None:
                call.ran = self._now
            case ToolCallFinished(result=result) if call is not None:
                del stream.calls[fact.call_id]
                call.add("result", result.text or _media(UserMessage(result.parts)))
                if fact.error is not None:
                    call.add("error", f"{fact.error.type}: {fact.error.message}")
                status: Status = "cancelled" if result.status == "interrupted" else "ok"
                self._close(call, _STATUS_OF_RESULT.get(result.status, status))
                if result.status in _STATUS_OF_RESULT:
                    call.cause = result.text[:MAX_TEXT]
                self._close_inside(call, stream)
            case ToolCallParked() if call is not None:
                del stream.calls[fact.call_id]
                self._close(call, "interrupted" if self._is_mending else "parked")
            case _:
                pass

    def _close_inside(self, call: _Draft, stream: _Stream) -> None:
        """Close the requests that the tool had sent and did not wait for."""
        for request in stream.requests:
            if request.parent == call.id:
                self._close(request, "cancelled")
        stream.requests = [request for request in stream.requests if request.end is None]

    def _see_question(self, stream: _Stream, fact: object) -> None:
        match fact:
            case ElicitationRequested() | ApprovalRequested() | ContinueRequested():
                self._ask(stream, fact)
            case QuestionAnswered(id=id, answer=answer, by=by):
                draft = stream.questions.pop(id, None)
                if draft is not None:
                    draft.add("answered by", by)
                    draft.add("answer", msgspec.json.encode(answer).decode())
                    self._close(draft, "denied" if _is_refusal(answer) else "ok")
            case QuestionDeclined(id=id, note=note) if id in stream.questions:
                stream.questions[id].cause = note
                self._close(stream.questions.pop(id), "denied")
            case QuestionWithdrawn(id=id) if id in stream.questions:
                self._close(stream.questions.pop(id), "cancelled")
            case QuestionParked(id=id) if id in stream.questions:
                self._close(stream.questions.pop(id), "interrupted" if self._is_mending else "parked")
            case _:
                pass

    def _ask(self, stream: _Stream, event: ElicitationRequested | ApprovalRequested | ContinueRequested) -> None:
        call = None if isinstance(event, ContinueRequested) else stream.calls.get(event.call_id)
        around = call or stream.around
        match event:
            case ElicitationRequested():
                draft = self._open(around, "question", event.message[:200])
                draft.add("message", event.message)
                draft.add("page", event.url or "")
                draft.add("form", "" if event.url else _json(event.form))
            case ApprovalRequested():
                draft = self._open(around, "question", f"approve {event.name}?")
                draft.add("arguments", _json(event.arguments))
                draft.add("asked because", event.reason)
            case _:
                draft = self._open(around, "question", f"go past the limit on {event.limit}?")
                draft.add("used", f"{event.used:g} of {event.allowed:g}")
        draft.add("question", event.id)
        stream.questions[event.id] = draft

    def _see_message(self, stream: _Stream, message: object) -> None:
        if isinstance(message, AssistantMessage):
            self._end_request(stream, "cancelled" if message.stop == "interrupted" else "ok")
        elif isinstance(message, UserMessage) and stream.lacks_prompt:
            stream.lacks_prompt = False
        elif isinstance(message, UserMessage):
            name = f"context: {', '.join(message.context)}" if message.context else "message to the run"
            name = f"{', '.join(message.reports)} has ended" if message.reports else name
            draft = self._moment(stream.around, "message", name)
            draft.add("text", message.text or _media(message))

    # ------------------------------------------------------------------------------ drafts

    @property
    def _moment_of_end(self) -> float:
        """The time at which something ends: before the death of its process, if another process wrote the end."""
        return self._seen if self._is_mending else self._now

    def _new(self, parent: _Draft | None, kind: Kind, name: str, begin: float) -> _Draft:
        draft = _Draft(len(self._drafts), None if parent is None else parent.id, kind, name, begin)
        self._drafts.append(draft)
        return draft

    def _open(self, parent: _Draft | None, kind: Kind, name: str) -> _Draft:
        return self._new(parent, kind, name, self._now)

    def _moment(self, parent: _Draft | None, kind: Kind, name: str) -> _Draft:
        draft = self._open(parent, kind, name)
        draft.end, draft.status = self._now, "ok"
        return draft

    def _close(self, draft: _Draft, status: Status) -> None:
        if draft.end is None:
            draft.end = max(self._moment_of_end, draft.begin)
            draft.status = status

    # ------------------------------------------------------------------------------ finish

    def finish(self, info: SessionInfo | None, now: float | None) -> Timeline:
        is_running = bool(self._streams)
        end = max(self._now, now or 0.0) if is_running or self._waiting is not None else self._now
        for draft in self._drafts:
            if draft.end is None:
                if draft.begin > end:
                    self._dropped.add(draft.id)
                draft.end = end
            if draft.kind == "retry" and draft.parent is not None:
                # The run may have ended before the pause did.
                around = self._drafts[draft.parent]
                draft.end = min(draft.end, end if around.end is None else around.end)
        spans = _frozen([draft for draft in self._drafts if draft.id not in self._dropped])
        return Timeline(
            session="" if info is None else info.id,
            title="" if info is None else info.title,
            fork_of="" if info is None else info.parent,
            spans=spans,
            begin=min((span.begin for span in spans), default=0.0),
            end=max((span.end for span in spans), default=0.0),
            last_seq=self._seq,
            is_running=is_running,
            notes=tuple(self._notes()),
            summary=summarize(spans),
        )

    def _notes(self) -> Iterable[str]:
        if self._unreadable:
            yield f"{self._unreadable} records cannot be read, and are missing in the picture."
        if self._lacks_time:
            yield "Some records have no time: what they say is drawn at the time of the record before them."
        if self._went_back:
            yield "The clock was set back during the session: the order of events is right, and some durations are not."


def _frozen(drafts: Sequence[_Draft]) -> tuple[Span, ...]:
    """The spans, in order of the tree, with new ids."""
    inside: dict[int | None, list[_Draft]] = {}
    for draft in drafts:
        inside.setdefault(draft.parent, []).append(draft)
    ordered: list[_Draft] = []
    stack = _last_first(inside.get(None, ()))
    while stack:
        draft = stack.pop()
        ordered.append(draft)
        stack.extend(_last_first(inside.get(draft.id, ())))
    new = {draft.id: index for index, draft in enumerate(ordered)}
    spans = [
        Span(
            id=new[draft.id],
            parent=None if draft.parent is None else new[draft.parent],
            kind=draft.kind,
            name=draft.name,
            begin=draft.begin,
            end=draft.begin if draft.end is None else draft.end,
            status=draft.status,
            first=draft.first,
            ran=draft.ran,
            cause=draft.cause,
            details=tuple(draft.details),
        )
        for draft in ordered
    ]
    children = children_of(spans)
    return tuple(_explained(span, spans, children) for span in spans)


def _last_first(drafts: Iterable[_Draft]) -> list[_Draft]:
    """The drafts in the order of a stack, from which the one that began first is taken first."""
    return sorted(drafts, key=lambda draft: (draft.begin, draft.id), reverse=True)


def _explained(span: Span, spans: Sequence[Span], children: Mapping[int | None, Sequence[Span]]) -> Span:
    """``span`` with what cancelled it, and with what it waited for."""
    changes: dict[str, Any] = {}
    if span.status in _OUTER and not (span.parent is None and span.cause):
        source = _canceller(span, spans)
        if source is not None:
            changes["cause_span"] = source.id
            if not span.cause:
                changes["cause"] = _cause_text(source)
    inner = [child for child in children.get(span.id, ()) if span.begin < child.end <= span.end and child.seconds > 0]
    if inner:
        changes["waits_for"] = max(inner, key=lambda child: child.end).id
    return msgspec.structs.replace(span, **changes) if changes else span


def _canceller(span: Span, spans: Sequence[Span]) -> Span | None:
    """The span whose own end cancelled ``span``: the nearest one around it that ended for a reason of its own."""
    parent = span.parent
    outermost: Span | None = None
    while parent is not None:
        around = spans[parent]
        if around.kind in ("run", "tool") and around.status in _ENDED_EARLY and around.end <= span.end + 0.5:
            outermost = around
            if around.status not in _OUTER:
                break
        parent = around.parent
    return outermost


def _cause_text(source: Span) -> str:
    what = f"run {source.name}" if source.kind == "run" else f"call {source.name}"
    if source.status == "timeout":
        return f"{what} timed out"
    ended = {"error": "failed", "limit": "reached a limit", "interrupted": "lost its process"}.get(
        source.status, f"was {source.status}"
    )
    return f"{what} {ended}" + (f": {source.cause}" if source.cause else "")


def _was_sent(request: _Draft) -> bool:
    """Whether there is a sign of the request."""
    return request.first is not None or bool(request.details)


def _describe(request: _Draft, event: UsageReported) -> None:
    request.name = event.model or request.name
    request.add("usage", _usage(event.usage))
    if not event.is_complete:
        request.add("response", "broke off")


def _usage(usage: Usage) -> str:
    parts = [f"{usage.input_tokens:,} tokens read, {usage.output_tokens:,} written"]
    if usage.cached_tokens:
        parts.append(f"{usage.cached_tokens:,} from the cache")
    if usage.reasoning_tokens:
        parts.append(f"{usage.reasoning_tokens:,} of reasoning")
    if usage.requests > 1:
        parts.append(f"{usage.requests} requests")
    if usage.is_cost_known and usage.cost:
        parts.append(f"cost {usage.cost:.4g}")
    return ", ".join(parts) if usage.requests or usage.input_tokens else ""


def _is_refusal(answer: Answer) -> bool:
    return isinstance(answer, (Cancel, Decline, Deny))


def _media(message: UserMessage) -> str:
    return ", ".join(type(part).__name__.lower() for part in message.parts)


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
