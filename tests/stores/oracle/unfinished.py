"""A stream that is to be gone on with: what there is of it, and of its open turn, without a task or a socket."""

from __future__ import annotations

import msgspec

from agentloop.events import ApprovalRequested, Question, StreamReason
from agentloop.messages import AssistantMessage, Message, ToolResult, Usage, UserMessage
from agentloop.questions import Answer, Approve

__all__ = ["MAY_HAVE_RUN", "Asked", "Unfinished", "UnfinishedCall", "asker"]

MAY_HAVE_RUN = "it was interrupted, and may have run already: run it again?"


def asker(question: Question) -> tuple[str, bool]:
    """The call that asks, if it is not the stream itself; and whether it is about running it again."""
    call_id: str = getattr(question, "call_id", "")
    return call_id, isinstance(question, ApprovalRequested) and question.reason == MAY_HAVE_RUN


class Asked(msgspec.Struct):
    """A question that was asked."""

    question: Question
    answer: Answer | None = None
    is_over: bool = False
    """Whether it was withdrawn, or nobody was there to be asked: the call may have gone on since."""
    is_bypassed: bool = False
    """Whether the call, when it was called again, came to wait for other questions, and not for this one."""
    after: tuple[str, ...] = ()
    """Ids of the questions of the same asker that had been closed when it was first asked, without those that these
    came after in turn, and without approvals of the call as it was, which change nothing about it."""

    @property
    def is_open(self) -> bool:
        """Whether it waits for an answer."""
        return self.lacks_answer and not self.is_bypassed

    @property
    def lacks_answer(self) -> bool:
        """Whether an answer to it would count, if the call asks it again."""
        return self.answer is None and not self.is_over

    @property
    def approves_as_it_is(self) -> bool:
        """Whether it is an approval of the call with the arguments that it had."""
        answer = self.answer
        is_approval = isinstance(self.question, ApprovalRequested)
        return is_approval and isinstance(answer, Approve) and answer.arguments is None


class UnfinishedCall(msgspec.Struct):
    """A tool call that has no result."""

    started: bool = False
    """Whether its tool began to run."""
    parked: bool = False
    """Whether it was ended on purpose, where it waited for a person: then its tool is called again."""
    asked: list[Asked] = msgspec.field(default_factory=list[Asked])
    """By its tool, and for approval of it, in that order."""
    doubts: list[Asked] = msgspec.field(default_factory=list[Asked])
    """Whether to run it again."""
    children: list[Unfinished] = msgspec.field(default_factory=list["Unfinished"])
    """The streams that it has opened, in that order, also those that have ended."""
    remembered: dict[str, bytes] = msgspec.field(default_factory=dict[str, bytes])
    """What it wanted to know when it is called again."""

    @property
    def is_in_doubt(self) -> bool:
        """Whether nobody knows what came of it."""
        return self.started and not self.parked


class Unfinished(msgspec.Struct):
    """A stream as the journal has it."""

    session: str
    stream: str
    """Its id; after it was resumed, the one that it had last."""
    agent: str
    prompt: UserMessage
    is_prompted: bool = False
    """Whether the prompt is part of the transcript."""
    messages: list[Message] = msgspec.field(default_factory=list[Message])
    turn: int = 0
    message: AssistantMessage | None = None
    """The response that the open turn began with, if one is open."""
    results: dict[str, ToolResult] = msgspec.field(default_factory=dict[str, ToolResult])
    """Of its calls that have ended, by id."""
    calls: dict[str, UnfinishedCall] = msgspec.field(default_factory=dict[str, UnfinishedCall])
    """Those that have not, by id."""
    asked: list[Asked] = msgspec.field(default_factory=list[Asked])
    """By the stream itself, and not by a call, since its last turn began."""
    long_results: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """Of a child stream: by call, results that were too long for the model to read at once."""
    usage: Usage = Usage()
    """With that of its children."""
    tool_calls: int = 0
    """With those of its children."""
    allowed: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    """Limits that a person has raised, to what."""
    streams: int = 0
    """How often it was opened."""
    reason: StreamReason | None = None
    """Why it stopped; ``None`` if that was never told."""
    detail: str = ""

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to go on with."""
        # One that came to its end before it had come to the turn that it was to go on with has left it as it was.
        return self.reason not in (None, "needs_input", "interrupted") and self.message is None

    @property
    def open_questions(self) -> list[Question]:
        """Those that have no answer, here and in the streams inside, oldest first."""
        found = [asked.question for asked in self.asked if asked.is_open]
        for call in self.calls.values():
            found += [asked.question for asked in (*call.doubts, *call.asked) if asked.is_open]
            for child in call.children:
                if not child.is_over:
                    found += child.open_questions
        return found

    def asked_by(self, call_id: str, in_doubt: bool) -> list[Asked]:
        """What that call, or the stream itself, has asked."""
        if not call_id:
            return self.asked
        call = self.calls.get(call_id)
        if call is None:
            return []
        return call.doubts if in_doubt else call.asked

    def find(self, question: str) -> Asked | None:
        """The question of that id, here or in a stream inside."""
        for asked in self.asked:
            if asked.question.id == question:
                return asked
        for call in self.calls.values():
            for asked in (*call.doubts, *call.asked):
                if asked.question.id == question:
                    return asked
            for child in call.children:
                found = child.find(question)
                if found is not None:
                    return found
        return None
