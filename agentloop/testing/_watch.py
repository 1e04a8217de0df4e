"""Sees every stream that is opened while it is on, children included, and compares them with a plain model.

The watch stands outside of the runtime: it replaces the two names through which every stream is opened. Nothing in the
runtime knows that it is watched, and a planted bug is seen like any other.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import msgspec
import trio

from agentloop._core.transcript import Mailbox, Transcript, problems
from agentloop._runtime import lifecycle
from agentloop._runtime.hooks import Hooks
from agentloop._runtime.log import CAPACITY, EventLog, EventWriter
from agentloop._runtime.model_call import ModelCall
from agentloop._runtime.run import Root, Run
from agentloop._runtime.stream import Stream
from agentloop.events import (
    ChildStreamStarted,
    ChildStreamStopped,
    CompactionFinished,
    CompactionStarted,
    MessageCommitted,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    ToolCallFinished,
    ToolCallParked,
    TurnFinished,
    TurnReason,
    TurnStarted,
)
from agentloop.hooks import Block, Hook, PostToolUse
from agentloop.messages import AssistantMessage, Message, Usage, UserMessage
from agentloop.models import ModelRequest
from agentloop.testing._accounts import Accounts
from agentloop.testing._patched import patched
from agentloop.testing._requests import Requests
from agentloop.testing.wellformed import event_problems

__all__ = ["Watch"]

FEW = 30
EACH_CALL = 6
"""Events that may wait beyond `CAPACITY`: one for each task that posts at once and, when the stream is stopped, the end
of everything that is open, all of which is emitted at once."""


class Watch:
    """The streams that were opened, those that are open, and the broken promises.

    Args:
      on_child: called with each child stream, when it is opened.
      loses: whether a store has failed by now, and messages may be lost.
      saved: the messages of a session that the journal of a root session has.
      ended: whether that journal has the result of a call of a session.

    Attributes:
      runs: every stream that was opened, in order.
      problems: what broke a promise, a sentence each.
      has_clock: whether the clock works, so that elapsed times can be compared.
      ended_at: the virtual time of the last event of each stream, by its id.
      requests: the account of what models are asked, and of what they use.
      accounts: what runs count twice.
      resumed: the runs that continue an earlier one.
      working: the calls whose fake tools run at this moment, by stream and call.
      secrets: texts that no event, request or record of a run that redacts may have.
    """

    def __init__(
        self,
        on_child: Callable[[Stream], object] = lambda _stream: None,
        loses: Callable[[], bool] = lambda: False,
        saved: Callable[[str, str], list[Message]] = lambda _root, _session: [],
        ended: Callable[[str, str, str], bool] = lambda _root, _session, _call: True,
    ) -> None:
        self._on_child = on_child
        self.runs: list[Run] = []
        self.problems: list[str] = []
        self.requests = Requests(self.note, loses)
        self.accounts = Accounts(self.note)
        self.resumed: set[Run] = set()
        self.ended_at: dict[str, float] = {}
        self.secrets: set[str] = set()
        self.working: list[tuple[str, str]] = []
        self.has_clock = True
        self._loses = loses
        self._saved = saved
        self._ended = ended
        self._read: dict[Run, list[StreamEvent]] = {}
        """The events that each reader has got."""
        self._steered: list[tuple[Mailbox, UserMessage, int]] = []
        """The messages that people sent to a run under way, and the number of events that its model had answered by."""
        self._answers: dict[EventWriter, int] = {}
        """How often the model of a run has answered."""
        self._turns: dict[EventWriter, TurnReason] = {}
        """Why the last turn of a run ended."""
        self._open: dict[Root, dict[str, str | None]] = {}
        """For each root, the streams whose blocks are open, with their parents: what the tree must look like."""

    def note(self, problem: str) -> None:
        """Note a broken promise."""
        if problem not in self.problems:
            self.problems.append(problem)

    @contextmanager
    def on(self) -> Generator[None]:
        """Watch the streams that are opened while the block runs."""
        real_block, real_ended_block, real_extend = lifecycle._block, lifecycle._ended_block, Transcript.extend

        def block(*args: Any, **options: Any) -> Any:
            is_resumed = args[4] is None or bool(getattr(options.get("state"), "stream", ""))
            return self._watched(real_block(*args, **options), is_resumed=is_resumed)

        def ended_block(*args: Any, **options: Any) -> Any:
            return self._watched_again(real_ended_block(*args, **options))

        def extend(transcript: Transcript, messages: Iterable[Message]) -> None:
            real_extend(transcript, messages)
            for problem in problems(transcript.messages):
                self.note(f"session {transcript.id}: a provider would refuse its transcript: {problem}")

        with (
            patched(lifecycle, "_block", block),
            patched(lifecycle, "_ended_block", ended_block),
            patched(Transcript, "extend", extend),
            self._watched_requests(),
            self._watched_readers(),
            self._watched_mailboxes(),
            self._watched_hooks(),
        ):
            yield

    @contextmanager
    def _watched_requests(self) -> Generator[None]:
        """See each request as it goes out to a model."""
        real, real_report = ModelCall.respond, ModelCall.report_usage

        def report_usage(call: ModelCall, usage: Usage, /) -> None:
            self.requests.reported(usage)
            real_report(call, usage)

        async def respond(call: ModelCall, request: ModelRequest) -> AssistantMessage:
            if self.secrets and _redacts(call._run):
                shown = (request.messages, request.instructions)
                self._check_secrets(f"a request of {call._run.source.stream}", shown)
            self.requests.asked(call._run, request, is_turn=not call.is_silent)
            return await real(call, request)

        with patched(ModelCall, "respond", respond), patched(ModelCall, "report_usage", report_usage):
            yield

    @contextmanager
    def _watched_readers(self) -> Generator[None]:
        """See each event as it is appended, and as a reader gets it."""
        real_append, real_next = EventLog.append, Stream.__anext__

        def append(log: EventLog, event: Any, writer: EventWriter) -> None:
            real_append(log, event, writer)
            self._check_memory(log)
            run = next((run for run in self.runs if run.writer is writer), None)
            if self.secrets and run is not None and _redacts(run):
                self._check_secrets(f"event {event.seq} of {event.source.stream}", event)
            if run is not None:
                self.accounts.appended(event, run)
            if self.has_clock and isinstance(event, ToolCallFinished) and event.result.status == "timeout":
                limit = re.match(r"Timed out after ([\d.]+) s", event.result.text)
                # The difference of two times is not exact.
                if limit is not None and event.elapsed < float(limit[1]) - 1e-6:
                    self.note(f"call {event.call_id} of {event.stream} timed out after {event.elapsed:g} s: {limit[0]}")
            if isinstance(event, (ToolCallFinished, ToolCallParked)) and (event.stream, event.call_id) in self.working:
                self.note(f"call {event.call_id} of {event.stream} has ended, and its tool still runs")
            if isinstance(event, TurnFinished):
                self._turns[writer] = event.reason
            if isinstance(event, MessageCommitted) and isinstance(event.message, AssistantMessage):
                self._answers[writer] = self._answers.get(writer, 0) + 1
            if isinstance(event, (StreamStopped, ChildStreamStopped)):
                self.ended_at[event.stream] = trio.current_time()
            if run is not None and isinstance(event, TurnStarted):
                self.requests.turn_began(run)
            if run is not None and isinstance(event, (CompactionStarted, CompactionFinished)):
                self.requests.forget(run)

        async def anext_(stream: Stream) -> StreamEvent:
            event = await real_next(stream)
            self._read.setdefault(stream._run, []).append(event)
            return event

        with patched(EventLog, "append", append), patched(Stream, "__anext__", anext_):
            yield

    @contextmanager
    def _watched_hooks(self) -> Generator[None]:
        """See each hook that ends a run after a tool call."""
        real = Hooks.ask

        async def ask(hooks: Hooks, hook: Hook, value: Any) -> Any:
            verdict = await real(hooks, hook, value)
            if isinstance(verdict, Block) and isinstance(value, PostToolUse):
                run = next((run for run in self.runs if run.hooks is hooks), None)
                if run is not None:
                    self.accounts.blocked(run, value.call_id, verdict.reason)
            return verdict

        with patched(Hooks, "ask", ask):
            yield

    @contextmanager
    def _watched_mailboxes(self) -> Generator[None]:
        """See each message that is sent to a run under way."""
        real_steer, real_follow_up = Mailbox.steer, Mailbox.follow_up

        def steer(mailbox: Mailbox, message: UserMessage) -> None:
            real_steer(mailbox, message)
            self._steered.append((mailbox, message, self._answers_of(mailbox)))

        def follow_up(mailbox: Mailbox, message: UserMessage) -> None:
            real_follow_up(mailbox, message)
            self._steered.append((mailbox, message, self._answers_of(mailbox)))

        with patched(Mailbox, "steer", steer), patched(Mailbox, "follow_up", follow_up):
            yield

    @asynccontextmanager
    async def _watched(self, block: AbstractAsyncContextManager[Stream], *, is_resumed: bool) -> AsyncGenerator[Stream]:
        opened: Run | None = None
        try:
            async with block as stream:
                opened = stream._run
                self.runs.append(opened)
                root = opened.root.session.id
                self.accounts.opened(opened, is_resumed=is_resumed, ended=partial(self._ended, root))
                if is_resumed:
                    self.resumed.add(opened)
                    self.requests.resumed[opened] = self._parked_before(opened)
                self._model(opened)[opened.source.stream] = opened.source.parent
                self._compare(opened, "was opened")
                if opened.parent is not None:
                    self._on_child(stream)
                yield stream
        finally:
            if opened is not None:
                self._model(opened).pop(opened.source.stream)
                self._compare(opened, "was left")
                self._check_ended(opened)
                # Now: when the session is free, the next stream may add to it. Without the messages that close a parked
                # turn.
                last = len(opened.transcript) - opened.transcript.provisional
                if opened.outcome and opened.outcome.messages != opened.transcript.messages[opened.first_index : last]:
                    self.note(f"{opened.source.stream}: its outcome does not have the messages that it added")

    @asynccontextmanager
    async def _watched_again(self, block: AbstractAsyncContextManager[Stream]) -> AsyncGenerator[Stream]:
        """A child that ended in an earlier opening of the run around it has the outcome that it had then."""
        async with block as stream:
            run = stream._run
            for other in self.runs:
                before, again = other.outcome, run.outcome
                is_same = other.transcript.id == run.transcript.id and other.config.name == run.config.name
                if not is_same or before is None or again is None or before.reason != again.reason or self._loses():
                    continue
                if before.messages and again.messages[-len(before.messages) :] != before.messages:
                    self.note(f"{run.source.stream} is not run again, and its messages are {again.messages}")
                for name in ("output", "usage", "detail"):
                    if getattr(before, name) != getattr(again, name):
                        problem = f"{getattr(again, name)!r}, where it was {getattr(before, name)!r}"
                        self.note(f"{run.source.stream} is not run again, and its {name} is {problem}")
            yield stream

    def _model(self, run: Run) -> dict[str, str | None]:
        return self._open.setdefault(run.root, {})

    def _compare(self, run: Run, when: str) -> None:
        """The elicitation tree is what the open blocks say, in every interleaving."""
        expected, scopes = self._model(run), run.root.questions.scopes
        if scopes != expected:
            self.note(
                f"when {run.source.stream} {when}, the elicitation tree was {scopes}, where it should be {expected}"
            )

    def _check_ended(self, run: Run) -> None:
        """Check a stream whose block was left, however it was left."""
        name = run.source.stream
        if run.outcome is None:
            self.note(f"{name}: its block was left, but it has no outcome")
        elif not run.ended.is_set():
            self.note(f"{name}: it has an outcome, but whoever waits for its end is not told")
        if not run.writer.is_closed or (run.events is not None and not run.events.is_closed):
            self.note(f"{name}: its channel is still open")
        if run.transcript.holder is not None:
            self.note(f"{name}: its session is still taken by {run.transcript.holder}")
        for other in self.runs:
            if other.parent is run and not other.ended.is_set():
                self.note(f"{name}: its block was left, but its child {other.source.stream} is still running")

    def check(self) -> list[str]:
        """The broken promises, after all blocks were left."""
        for run in self.runs:
            self._check_ended(run)
            if run.root.questions.scopes:
                self.note(f"{run.source.stream}: at the end question scopes are left: {run.root.questions.scopes}")
            for problem in problems(run.transcript.messages):
                self.note(f"session {run.transcript.id}: a provider would refuse its transcript: {problem}")
            stored = run.transcript.long_results
            if stored._size != sum(map(len, stored._texts.values())):
                self.note(f"{run.source.stream}: its long results take {stored._size} characters, by its own count")
            self._check_outcome(run)
            self._check_reports(run)
        for run, events in self._read.items():
            for problem in event_problems(events, complete=False):
                self.note(f"the reader of {run.source.stream}: {problem}")
            if events and not isinstance(events[0], (StreamStarted, ChildStreamStarted)):
                self.note(f"the reader of {run.source.stream} got {events[0]} first")
        self._check_steered()
        self.requests.check_usage(self.runs)
        return self.problems

    def _answers_of(self, mailbox: Mailbox) -> int:
        """How often the model of the run that ``mailbox`` belongs to has answered so far."""
        return next((self._answers.get(run.writer, 0) for run in self.runs if run.mailbox is mailbox), 0)

    def _parked_before(self, run: Run) -> Run | None:
        """The parked run that ``run`` continues; ``None`` if it was not parked, or not seen."""
        for other in reversed(self.runs[:-1]):
            if other.transcript.id == run.transcript.id and other.config.name == run.config.name:
                is_parked = other.outcome is not None and other.outcome.reason == "needs_input"
                return other if is_parked else None
        return None

    def _check_secrets(self, where: str, shown: object) -> None:
        """A run that redacts shows no secret."""
        text = msgspec.json.encode(shown).decode()
        if any(secret in text for secret in self.secrets):
            self.note(f"{where} has a secret: {shown}")

    def _check_memory(self, log: EventLog) -> None:
        """However slow a reader is, of whichever run, few events wait for it."""
        roots = [run for run in self.runs if run.log is log and run.parent is None]
        if roots and log.is_journaled and not (roots[-1].stopped or roots[-1].scope.cancel_called):
            waiting = len(log.hidden())
            if waiting > CAPACITY + FEW + EACH_CALL * roots[-1].meter.tool_calls:
                self.note(f"{roots[-1].source.stream}: {waiting} events wait for a store that is slow")
        for run in self.runs:
            events = run.events
            if run.log is log and events is not None and not events.is_closed:
                root = run
                while root.parent is not None:
                    root = root.parent
                # When a run is stopped, everything that is open ends at once.
                is_ending = root.stopped or root.scope.cancel_called
                if not is_ending and events.unread > CAPACITY + FEW + EACH_CALL * root.meter.tool_calls:
                    self.note(f"{run.source.stream}: events pile up while its reader is slow")

    def _check_steered(self) -> None:
        """Each message that a person sent to a run was read by its model, once, or is undelivered in its outcome."""
        for mailbox, message, answers in self._steered:
            for run in self.runs:
                if (
                    run.mailbox is not mailbox
                    or run.outcome is None
                    or run.outcome.reason == "blocked"
                    or self._loses()
                    or (_redacts(run) and any(secret in message.text for secret in self.secrets))
                ):
                    continue
                sent = sum(other == message for box, other, _ in self._steered if box is mailbox)
                is_unread = run.outcome.reason == "completed" and message in run.outcome.undelivered
                if is_unread and answers < self._answers.get(run.writer, 0):
                    self.note(f"{run.source.stream} answered, and completed, without reading {message}")
                later = run.transcript.messages[run.first_index :]
                texts = [each.parts[: len(message.parts)] for each in later if isinstance(each, UserMessage)]
                times = texts.count(message.parts) + list(run.outcome.undelivered).count(message)
                if times != sent:
                    self.note(f"{message} was sent to {run.source.stream} {sent} times, and counts {times} times")

    def _check_reports(self, run: Run) -> None:
        """The model of a run that completed has read of the end of each background run, once."""
        if run.outcome is None or run.outcome.reason != "completed" or self._loses():
            return
        told = [id for message in run.transcript.messages if isinstance(message, UserMessage) for id in message.reports]
        began = [other for other in self.runs if other.parent is run and other.background_id]
        for child in began:
            if told.count(child.background_id) != 1:
                times = told.count(child.background_id)
                self.note(f"{run.source.stream} completed, and read {times} times of the end of {child.background_id}")

    def _check_outcome(self, run: Run) -> None:
        """The reason is the true one, as far as it shows from outside."""
        outcome, name = run.outcome, run.source.stream
        if outcome is None:
            return
        self.accounts.check_blocked(run)
        expected = ("cancelled", "needs_input") if run.root.questions.is_parked else ("cancelled",)
        if run.scope.cancel_called and outcome.reason not in expected and run.scope.cancelled_caught:
            self.note(f"{name}: it was stopped, but its reason is {outcome.reason}")
        if (outcome.reason == "failed") != (outcome.error is not None):
            self.note(f"{name}: its reason is {outcome.reason}, and its error {outcome.error!r}")
        failure: object = outcome.error
        is_error = isinstance(failure, Exception)
        if isinstance(failure, BaseExceptionGroup):
            self.note(f"{name}: it failed with a bare group")
        if run.root.journal is not None:
            saved = self._saved(run.root.session.id, run.transcript.id)
            if unsaved := [message for message in outcome.messages if message not in saved]:
                self.note(f"{name}: its outcome has a message that is not saved: {unsaved[0]}")
        turn = self._turns.get(run.writer)
        # A toolset or a model that dies cancels the turn that uses it.
        holds = run.config.toolsets or any(hasattr(model, "open") for model in run.models)
        if outcome.reason == "failed" and is_error and turn == "cancelled" and not holds:
            self.note(f"{name}: it failed, and its last turn was cancelled")
        if outcome.reason in ("completed", "blocked") and turn in ("failed", "cancelled"):
            self.note(f"{name}: it ended as {outcome.reason}, and its last turn was {turn}")


def _redacts(run: Run) -> bool:
    """Whether a run shows no secrets, since its agent redacts, or the agent of a run around it."""
    around: Run | None = run
    while around is not None:
        if around.config.redact is not None or around.redactor is not None:
            return True
        around = around.parent
    return False
