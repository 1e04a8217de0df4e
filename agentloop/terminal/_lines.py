"""Turn events into lines for a person to read. This module decides on the words; the screens decide on their look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from attrs import define, frozen

from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    CompactionFinished,
    ContinueRequested,
    ElicitationRequested,
    Event,
    HandedOff,
    MessageCommitted,
    Paused,
    Question,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    QuestionWithdrawn,
    ReasoningDelta,
    ResponseDiscarded,
    Resumed,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallFinished,
    ToolCallOutput,
    ToolCallParked,
    ToolCallProgress,
    ToolCallStarted,
    ToolsetChanged,
    TurnFinished,
    UsageReported,
    WarningIssued,
)
from agentloop.messages import Usage, UserMessage
from agentloop.permissions import Rule
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
from agentloop.safety import SafetyLevel
from agentloop.terminal._characters import exact, exact_lines, printable

__all__ = ["Kind", "Line", "Narrator", "RunningCall", "Speech", "call_in_words", "shorten"]

Kind: TypeAlias = Literal[
    "prompt",
    "added",
    "says",
    "thinks",
    "calls",
    "shows",
    "result",
    "failed",
    "asks",
    "answer",
    "child",
    "kept",
    "warning",
    "stopped",
]

_LONG_PROMPT = 600
_LONG_RESULT = 160
_LONG_ARGUMENTS = 100
_WORTH_TELLING = 0.05
"""Seconds that a call takes."""


@frozen
class Line:
    """One remark. Its text may be several lines long."""

    kind: Kind
    who: str
    text: str
    depth: int = 0
    stream: str = ""
    """The id of the stream that it comes from."""


@define
class Speech:
    """The text that an agent has written so far in an incomplete response."""

    kind: Literal["says", "thinks"]
    who: str
    depth: int
    text: str = ""


@define
class RunningCall:
    """A tool call that has not ended yet."""

    who: str
    depth: int
    name: str
    output: str = ""
    """The text of its incomplete line so far."""
    progress: float | None = None
    total: float | None = None
    message: str = ""


class Narrator:
    """Makes lines of the events of one stream, and knows the current activity."""

    def __init__(self) -> None:
        self.speaking: dict[str, Speech] = {}
        """By stream."""
        self.running: dict[str, RunningCall] = {}
        """By stream and call."""
        self.paused: dict[str, str] = {}
        """The agents whose runs are paused, by stream."""
        self._prompts: dict[str, UserMessage] = {}
        """Prompts that were shown at the start and are not in the transcript yet, by stream."""
        self.typed: str | None = None
        """The next prompt, if it stands there already, since it was typed there."""

    def tell(self, event: StreamEvent) -> Sequence[Line]:
        """The lines that ``event`` completes; often none."""
        match event:
            case TextDelta():
                return self._speak(event, "says", event.text)
            case ReasoningDelta():
                return self._speak(event, "thinks", event.text)
            case UsageReported(purpose="turn", is_complete=True) | TurnFinished():
                # The response is complete, or cut off.
                return self._finish_speech(event)
            case StreamStarted(message=message, resumes=resumes, continues=continues):
                self._prompts[event.stream] = message
                typed, self.typed = self.typed, None
                if resumes or continues:
                    return [_line(event, "child", "goes on")]
                return [] if message.text == typed else [_prompt_line(event, "prompt", message)]
            case MessageCommitted(message=UserMessage(context=()) as message):
                return self._prompt(event, message)
            case StreamStopped(reason=reason, detail=detail, usage=usage):
                self.paused.clear()
                return [_line(event, "stopped", f"{_because(reason, detail)} ({_used(usage)})")]
            case ChildStreamStarted(message=message, resumes=resumes, background=background, hook=hook):
                self._prompts[event.stream] = message
                where = f" in the background, as {background}" if background else ""
                where = f" for a hook at {hook}" if hook else where
                return [_line(event, "child", f"{'goes on' if resumes else 'begins'}{where}")]
            case ChildStreamStopped(reason=reason, detail=detail):
                return [_line(event, "child", f"ends: {_because(reason, detail)}")]
            case ToolCallStarted() | ToolCallOutput() | ToolCallProgress() | ToolCallFinished() | ToolCallParked():
                return self._tool_call(event)
            case Paused():
                self.paused[event.stream] = printable(event.agent)
                return [_line(event, "kept", "paused: it holds before its next step")]
            case Resumed():
                self.paused.pop(event.stream, None)
                return [_line(event, "child", "goes on")]
            case HandedOff(to=to):
                return [_line(event, "child", f"hands the conversation to {to}")]
            case ElicitationRequested(message=message, url=url):
                # A host name of letters that look like others would be taken for theirs.
                address = f"\nIt would open {exact(url) if url.isascii() else exact(ascii(url)[1:-1])}" if url else ""
                return [_line(event, "asks", f"{_asker(event)}{message}{address}")]
            case ApprovalRequested(name=name, arguments=arguments, reason=reason):
                # In full and character by character: this is what an approval is bound to.
                shown = [f"{exact(key)}: " + "\n".join(exact_lines(value)) for key, value in arguments.items()]
                why = f" ({' '.join(reason.split())})" if reason else ""
                lines = [f"{_asker(event)}May I call {exact(name)}?{why}", *shown, *_risk(event)]
                return [_line(event, "asks", "\n".join(lines).rstrip())]
            case ContinueRequested(limit=limit, used=used, allowed=allowed):
                text = f"{_asker(event)}The limit of {limit} is reached ({used:g} of {allowed:g}). Go on?"
                return [_line(event, "asks", text)]
            case QuestionAnswered(answer=answer, by=by):
                why = ", by an answer given before" if by == "rule" else ""
                return [_line(event, "answer", f"{answer_in_words(answer)}{why}")]
            case QuestionDeclined(note=note):
                return [_line(event, "answer", f"declined: {note}")]
            case QuestionWithdrawn():
                return [_line(event, "answer", "the question is withdrawn")]
            case QuestionParked():
                return [_line(event, "kept", "the question waits for an answer")]
            case ResponseDiscarded():
                return self._discard(event)
            case CompactionFinished(problem="", tokens=tokens):
                return [_line(event, "warning", f"the conversation was cut short to {tokens:,} tokens")]
            case ToolsetChanged(toolset=toolset) if toolset.state != "ready":
                why = toolset.error or (f"waits for {toolset.detail}" if toolset.detail else "")
                return [_line(event, "child", f"toolset {toolset.name}: {toolset.state}{f' ({why})' if why else ''}")]
            case WarningIssued(message=message):
                return [_line(event, "warning", message)]
            case _:
                return []

    def _speak(self, event: Event, kind: Literal["says", "thinks"], text: str) -> Sequence[Line]:
        speech = self.speaking.get(event.stream)
        finished: Sequence[Line] = []
        if speech is None or speech.kind != kind:
            finished = self._finish_speech(event)
            speech = self.speaking[event.stream] = Speech(kind, event.agent, event.depth)
        speech.text += printable(text)
        return finished

    def _finish_speech(self, event: Event) -> Sequence[Line]:
        speech = self.speaking.pop(event.stream, None)
        return [] if speech is None or not speech.text.strip() else [_line(event, speech.kind, speech.text.strip())]

    def _discard(self, event: ResponseDiscarded) -> Sequence[Line]:
        same = event.next_model == event.model
        then = f"asking again in {event.delay:.1f} s" if same else f"asking {event.next_model}"
        if event.purpose != "turn":
            return [_line(event, "warning", f"{event.error.message}; {then}")]
        self.speaking.pop(event.stream, None)
        return [_line(event, "warning", f"{event.error.message}; what was said does not count, {then}")]

    def _prompt(self, event: Event, message: UserMessage) -> Sequence[Line]:
        """Show a user message: the prompt, which is shown at the start already, or a message that was added later."""
        # A resumed stream usually has its prompt in the transcript already.
        if self._prompts.pop(event.stream, None) == message:
            return []
        if message.reports:
            return [_line(event, "child", f"reads the answer of {', '.join(message.reports)}")]
        return [_prompt_line(event, "added", message)]

    def _tool_call(
        self, event: ToolCallStarted | ToolCallOutput | ToolCallProgress | ToolCallFinished | ToolCallParked
    ) -> Sequence[Line]:
        key = f"{event.stream} {event.call_id}"
        if isinstance(event, ToolCallStarted):
            self.running[key] = RunningCall(event.agent, event.depth, printable(event.name))
            return [_line(event, "calls", call_in_words(event.name, event.arguments))]
        call = self.running[key]
        match event:
            case ToolCallOutput(text=text):
                *complete, call.output = (call.output + printable(text)).split("\n")
                return [_line(event, "shows", text) for text in complete]
            case ToolCallProgress():
                call.progress, call.total, call.message = event.progress, event.total, printable(event.message)
                return []
            case ToolCallFinished(name=name, result=result, elapsed=elapsed):
                del self.running[key]
                rest = [_line(event, "shows", call.output)] if call.output else []
                took = f" ({elapsed:.1f} s)" if elapsed >= _WORTH_TELLING else ""
                told = f"{name}: {shorten(result.text, _LONG_RESULT)}{took}"
                return [*rest, _line(event, "result" if result.status == "ok" else "failed", told)]
            case ToolCallParked(name=name):
                del self.running[key]
                rest = [_line(event, "shows", call.output)] if call.output else []
                return [*rest, _line(event, "kept", f"{name} is put off until then")]


def _prompt_line(event: Event, kind: Literal["prompt", "added"], message: UserMessage) -> Line:
    return _line(event, kind, shorten(message.text, _LONG_PROMPT))


def _line(event: Event, kind: Kind, text: str) -> Line:
    return Line(kind, printable(event.agent), printable(text), event.depth, event.stream)


def shorten(text: str, length: int) -> str:
    """``text`` in at most ``length`` characters."""
    text = printable(text).strip()
    return text if len(text) <= length else f"{text[: length - 4].rstrip()} ..."


def call_in_words(name: str, arguments: str) -> str:
    """A call on one line: ``search({"query": "tea"})``."""
    return f"{name}({'' if arguments in ('', '{}') else shorten(' '.join(arguments.split()), _LONG_ARGUMENTS)})"


def answer_in_words(answer: Answer) -> str:
    """An answer in words, such as ``accepted: day=Sunday``."""
    match answer:
        case Accept(content=content):
            told = ", ".join(f"{name}={value}" for name, value in content.items())
            return f"accepted: {told}" if told else "accepted"
        case Decline(note=note) | Deny(reason=note):
            return f"refused: {note}" if note else "refused"
        case Cancel():
            return "dismissed"
        case Approve(arguments=arguments, always=always):
            changed = "" if arguments is None else ", with other arguments"
            return f"approved{changed}{_for_good(always)}"


def _asker(question: Question) -> str:
    """The background run of a block that asks, if one does: its events are in no stream that is shown."""
    return f"[{exact(question.background)}] " if question.background else ""


def _risk(question: ApprovalRequested) -> list[str]:
    """What the call may do, where its tool says so."""
    does = "It only reads." if question.read_only else "It may destroy something." if question.destructive else ""
    # Without an assessment, the radius is that of the arguments, which are shown.
    touches = f"It may touch: {exact(str(question.blast_radius))}" if question.assessment else ""
    return [line for line in (does, touches) if line]


def _for_good(always: bool | Rule | SafetyLevel) -> str:
    if isinstance(always, str):
        return f", and from now on all that the mode {always} runs"
    if isinstance(always, Rule):
        return f", and from now on {always}"
    return ", and the very same call from now on" if always else ""


def _because(reason: str, detail: str) -> str:
    if reason == "needs_input":
        return "parked until there is an answer"
    return f"{reason}: {detail}" if detail else reason


def _used(usage: Usage) -> str:
    plural = "" if usage.requests == 1 else "s"
    cost = f", {usage.cost:.4g} {usage.currency}".rstrip() if usage.cost else ""
    return f"{usage.requests} request{plural}, {usage.total_tokens:,} tokens{cost}"
