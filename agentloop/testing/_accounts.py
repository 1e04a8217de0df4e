"""Accounts of a run that are kept twice: what is known of it in one place is compared with what another place says.

A run counts its requests, tool calls and usage in its meter, and its state counts them once more, for the run that
resumes it. Neither knows the other, so a fact that is left out of one of them shows. Further accounts are made of the
events alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from attrs import define, field

from agentloop._runtime.log import EventWriter
from agentloop._runtime.run import Run
from agentloop._runtime.stream import Stream
from agentloop.errors import StreamStateError, UnknownQuestionError
from agentloop.events import (
    CompactionFinished,
    CompactionStarted,
    MessageCommitted,
    Question,
    QuestionAnswered,
    QuestionDeclined,
    QuestionWithdrawn,
    StreamEvent,
    TurnFinished,
    UsageReported,
)
from agentloop.messages import AssistantMessage, Text
from agentloop.questions import Answer

__all__ = ["Accounts", "unsaved_ends"]


def unsaved_ends(run: Run, call_id: str) -> list[StreamEvent]:
    """The ends of questions of a call that the journal does not have yet, though the call goes on."""
    if not run.log.is_journaled:
        return []
    asked = {record.question.id for record in run.state.calls[call_id].all_questions}
    return [
        item
        for item, writer, _ in run.log.unsaved()
        if isinstance(item, (QuestionAnswered, QuestionDeclined, QuestionWithdrawn))
        and writer is run.writer
        and item.id in asked
    ]


_Place: TypeAlias = tuple[str, str]
"""The session of the root, and that of the run: the same in each process."""


@define
class Accounts:
    """The accounts of all runs.

    Args:
      note: is called with each broken promise.
    """

    _note: Callable[[str], None]
    _attempts: dict[EventWriter, int] = field(factory=dict[EventWriter, int])
    """How often the model of a run was asked again since its last answer, by the reasons of its turns."""
    _answered: set[EventWriter] = field(factory=set[EventWriter])
    """The runs whose model has given an answer in the turn at hand."""
    _made_room: dict[EventWriter, int] = field(factory=dict[EventWriter, int])
    """The runs that have made room, each with the number of that event, and whose model has not been counted since."""
    _last_turn: dict[EventWriter, int] = field(factory=dict[EventWriter, int])
    """The number of the last turn of a run that has ended. Where a store fails, its end is appended once more."""
    _torn: set[Run] = field(factory=set[Run])
    """The runs that had a turn which failed, or a run inside with one."""
    _blocked: dict[_Place, dict[str, str]] = field(factory=dict[_Place, dict[str, str]])
    """For each transcript, the calls after which a hook has ended its run, with the hook's reason."""

    def opened(self, run: Run, *, is_resumed: bool, ended: Callable[[str, str], bool]) -> None:
        """A run begins, perhaps with what an earlier opening of it has counted.

        Args:
          is_resumed: whether it continues an earlier run.
          ended: whether the result of a call of a session is saved.
        """
        self._attempts[run.writer] = run.state.output_retries
        session = run.transcript.id
        # A call whose result was lost may be made again, and the hook asked again.
        self._blocked[_place(run)] = (
            {id: why for id, why in self._blocked.get(_place(run), {}).items() if ended(session, id)}
            if is_resumed
            else {}
        )

    def blocked(self, run: Run, call_id: str, reason: str) -> None:
        """A hook has ended a run after one of its calls."""
        self._blocked.setdefault(_place(run), {})[call_id] = reason

    def check_blocked(self, run: Run) -> None:
        """A run that a hook has ended after a call takes no further turn, in whichever opening."""
        reasons, outcome = self._blocked.get(_place(run), {}), run.outcome
        if reasons and outcome is not None and outcome.reason in ("completed", "limit"):
            call_id, reason = next(iter(reasons.items()))
            self._note(f"{run.source.stream}: a hook ended it after {call_id} ({reason}), and it was {outcome.reason}")

    def appended(self, event: StreamEvent, run: Run) -> None:
        """An event of ``run`` was appended."""
        writer = run.writer
        match event:
            case MessageCommitted(message=AssistantMessage(stop="interrupted") as message):
                if strange := [part for part in message.parts if not isinstance(part, Text)]:
                    self._note(f"{run.source.stream}: a response that broke off is committed with {strange[0]}")
            case MessageCommitted(message=AssistantMessage(stop=stop)):
                if stop != "paused":
                    self._answered.add(writer)
            case CompactionStarted(reason=reason):
                # Where a store fails, or a process is killed, what is not saved is appended once more.
                if reason == "threshold" and event.seq > self._made_room.get(writer, event.seq):
                    self._note(f"{run.source.stream}: it makes room twice, and no model has answered in between")
            case CompactionFinished(problem=problem):
                if not problem:
                    self._made_room[writer] = event.seq
            case UsageReported(purpose="turn"):
                self._made_room.pop(writer, None)
            case TurnFinished():
                self._check_attempts(event, run)
                self._answered.discard(writer)
                if event.reason in ("failed", "cancelled") or (
                    event.reason == "needs_input" and any(state.is_paused for state in run.state.around)
                ):
                    # It may have ended between the count of its calls and the first of them: the next opening counts
                    # them once more.
                    self._torn.update(_lineage(run))
                for around in _lineage(run):
                    self._compare(around, is_own=around is run)
            case _:
                pass

    def _check_attempts(self, event: TurnFinished, run: Run) -> None:
        writer = run.writer
        if event.turn <= self._last_turn.get(writer, 0):
            return
        self._last_turn[writer] = event.turn
        if event.reason == "output_retry":
            self._attempts[writer] = self._attempts.get(writer, 0) + 1
        elif event.reason in ("continued", "final") and writer in self._answered:
            self._attempts[writer] = 0
        if (attempts := self._attempts.get(writer, 0)) != run.state.output_retries:
            counted = run.state.output_retries
            self._note(f"{run.source.stream}: its model was asked again {attempts} times, and resumed, {counted} count")

    def _compare(self, run: Run, *, is_own: bool) -> None:
        """Compare what a run has counted for its limits with what the run that resumes it will start from."""
        meter, state = run.meter, run.state
        pairs: list[tuple[str, object, object]] = [("raised limits", dict(meter.allowed), _allowed(run))]
        if is_own and _can_be_resumed(run):
            pairs += [
                ("requests", meter.requests, state.requests),
                ("tokens", meter.usage.total_tokens, state.usage.total_tokens),
                ("turns", meter.turns, state.turn),
            ]
            if run not in self._torn:
                pairs.append(("tool calls", meter.tool_calls, state.tool_calls))
        for what, counted, kept in pairs:
            if counted != kept:
                self._note(f"{run.source.stream}: it counts {counted} {what}, and resumed, it would count {kept}")


def _allowed(run: Run) -> dict[str, float]:
    """The limits that a person has raised, as the run that resumes ``run`` would have them.

    An agent that is deployed with a higher limit meanwhile has that, and none where its limit is gone.
    """
    limits = {limit: getattr(run.meter.limits, limit, 0) for limit in run.state.allowed}
    return {limit: max(most, limits[limit]) for limit, most in run.state.allowed.items() if limits[limit] is not None}


def _place(run: Run) -> _Place:
    return run.root.session.id, run.transcript.id


def _can_be_resumed(run: Run) -> bool:
    """Whether the account for another opening of the run is of any use: a run that only makes room has none."""
    return run.task is None


def _lineage(run: Run) -> Iterable[Run]:
    around: Run | None = run
    while around is not None:
        yield around
        around = around.parent


def wrong_doors(runs: Iterable[Run], question: Question, answer: Answer) -> list[str]:
    """The streams that take an answer to a question which is neither theirs nor of a stream inside them."""
    wrong: list[str] = []
    runs = list(runs)
    asker = next((run for run in runs if run.source.stream == question.stream), None)
    own = set[str]() if asker is None else {run.source.stream for run in _lineage(asker)}
    for run in runs:
        if asker is None or run.outcome is not None or run.root is not asker.root or run.source.stream in own:
            continue
        try:
            Stream(run).answer(question.id, answer)
        except (UnknownQuestionError, StreamStateError):
            continue
        wrong.append(run.source.stream)
    return wrong
