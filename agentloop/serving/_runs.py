"""Detached runs: a run belongs to the nursery of the server, and a connection is a reader of it.

::

    Runs.start()      begins a run in the nursery; it ends by itself, by `stop`, or when the server ends
    LiveRun           its handle, and its latest events
    SessionReader     reads the events of a session from any number on: from the live run, and what that has dropped,
                      or what came before it, from the store

A live run keeps its latest events for its readers, so that they read deltas at once and the store only once. A reader
that lags further behind reads the rest from the store. So the memory of a run is bounded however slow its readers are,
and no reader slows a run down. All runs share one budget of memory: the more there are, the less each keeps.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import trio
from attrs import evolve

from agentloop._choosing import model_name, named_model
from agentloop._core.catalogue import check_effort
from agentloop._core.json_text import decode_own
from agentloop._core.questions import check_answer
from agentloop._core.state import SessionSettings, StreamState
from agentloop._runtime.blocks import now
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.logs import SERVING
from agentloop._runtime.stream import Stream
from agentloop.agent import Agent
from agentloop.errors import AgentLoopError, SessionLeasedError, UsageError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    Paused,
    Question,
    Source,
    StreamEvent,
)
from agentloop.journal import OpenStore, SessionInfo
from agentloop.messages import UserMessage
from agentloop.models import Model, ModelChoice, ModelSettings, ReasoningEffort
from agentloop.outcome import Outcome
from agentloop.permissions import Mode, Permissions
from agentloop.questions import Answer
from agentloop.serving._errors import Refusal
from agentloop.serving.protocols.events import event_frame
from agentloop.stores import Follower, StoredSession, follow_session, stored_session
from agentloop.stores._fence import Fence
from agentloop.stores._journal_writer import store_deadline
from agentloop.stores._replay import UNREADABLE, load
from agentloop.wire import encode_event

__all__ = [
    "AnswersTo",
    "Budget",
    "Entry",
    "LiveRun",
    "OnDisconnect",
    "RunLimits",
    "Runs",
    "SessionReader",
    "SessionState",
]

OnDisconnect: TypeAlias = Literal["continue", "stop"]
"""What happens to a run whose last reader goes away: it continues, or it is stopped."""

AnswersTo: TypeAlias = Callable[[Sequence[Question]], Mapping[str, Answer]]
"""A function from the open questions of a parked run to the answers of the client."""

KEPT_EVENTS = 2048
KEPT_BYTES = 4_000_000
"""How much a live run keeps for its readers."""

ALL_KEPT_BYTES = 200_000_000
"""How much all live runs keep together."""

ENTRY_BYTES = 500
"""Memory of an event besides its frame."""

BATCH_BYTES = 16_000
"""Above so many, a reader takes no more events at once."""

POLL_SECONDS = 2.0
"""Between two looks at whether another process has added something to a session that is idle here."""

QUESTIONS = (ElicitationRequested, ApprovalRequested, ContinueRequested)

BEHIND_SECONDS = 0.1
"""Between two looks at a store that has not yet saved what a live run no longer keeps."""

STUCK_SECONDS = 2.0
"""After which the log names the runs that ignore their cancellation, when the server leaves."""

AWAY = "the client went away"
DRAINING = "the server is about to stop, and begins no more runs: try again later"


class Entry(NamedTuple):
    """An event, and its frame for clients of our own protocol: made once for all of them."""

    event: StreamEvent
    frame: bytes


def _entry(event: StreamEvent) -> Entry:
    return Entry(event, event_frame(event.seq, encode_event(event)))


class Budget:
    """The memory that runs share for the events that they keep."""

    def __init__(self) -> None:
        self._runs: dict[LiveRun, int] = {}
        """The bytes that each run keeps."""
        self._size = 0

    def set(self, run: LiveRun, size: int) -> None:
        """Count ``size`` bytes for ``run``, and let all runs drop their oldest events if the sum is too large.

        Half of the budget is free afterwards, so that this is done rarely, however many runs there are.
        """
        self._size += size - self._runs.get(run, 0)
        self._runs[run] = size
        if self._size > ALL_KEPT_BYTES:
            share = ALL_KEPT_BYTES // 2 // len(self._runs)
            for other in self._runs:
                other.drop(share)
                self._runs[other] = other.size
            self._size = sum(self._runs.values())

    def release(self, run: LiveRun) -> None:
        self._size -= self._runs.pop(run, 0)


class RunLimits(NamedTuple):
    """Limits of the server's runs."""

    runs: int
    """Runs at once."""
    park_after: float
    """Seconds that a question may be open, or a run be paused, before the run is parked."""
    lease_seconds: float
    """Seconds after which another process may continue a session, should this one die."""


class SessionState(NamedTuple):
    """The state of a session, as `Runs.look` finds it."""

    state: Literal["idle", "running", "parked", "interrupted", "elsewhere"]
    """``parked``: its run waits for answers, or was paused. ``interrupted``: its run was cut off, and can be resumed.
    ``elsewhere``: another process has the session."""
    questions: tuple[Question, ...] = ()
    """The open questions."""
    agent: str = ""
    """The name of the agent of the run, if there is one."""
    is_paused: bool = False
    """Whether the run is paused, if it runs."""


class LiveRun:
    """A run that this server runs now."""

    has_takeovers = False
    """Whether one process after another may run it: then its events have the seams that `Seams` takes out."""

    def __init__(
        self, session: str, agent_name: str, prompt: UserMessage | None, on_disconnect: OnDisconnect, budget: Budget
    ) -> None:
        self.session = session
        self.agent_name = agent_name
        self.prompt = prompt
        """Its prompt; ``None`` if it resumes another run."""
        self.stream: Stream | None = None
        self.opened: StoredSession | None = None
        """The session, while it runs on it."""
        self.begin = 0
        """The number of the event before its first one."""
        self.dropped = 0
        """The number of the last event that it no longer keeps."""
        self.is_closed = False
        self.asked_at = math.inf
        """When the last question was asked; infinite if none was."""
        self.paused_at = math.inf
        """When it was last paused; infinite if it was not."""
        self._entries: list[Entry] = []
        self.size = 0
        """Bytes that its events take."""
        self._budget = budget
        self._news = trio.lowlevel.ParkingLot()
        self._on_disconnect = on_disconnect
        self._readers = 0

    @property
    def has_begun(self) -> bool:
        return bool(self._entries)

    @property
    def stream_id(self) -> str:
        """The id of its stream, in its events."""
        return self._open_stream.id

    @property
    def pending(self) -> tuple[Question, ...]:
        """The questions that are open."""
        return () if self.stream is None else self.stream.pending

    @property
    def is_paused(self) -> bool:
        """Whether it is paused."""
        return self.stream is not None and self.stream.is_paused

    @property
    def outcome(self) -> Outcome[Any]:
        """The outcome, after the last event."""
        return self._open_stream.outcome

    @property
    def _open_stream(self) -> Stream:
        assert self.stream is not None
        return self.stream

    @property
    def last(self) -> int:
        """The number of its latest event."""
        return self._entries[-1].event.seq

    def append(self, event: StreamEvent) -> None:
        entry = _entry(event)
        if not self._entries:
            self.begin = self.dropped = event.seq - 1
        self._entries.append(entry)
        self.size += len(entry.frame) + ENTRY_BYTES
        # Half of them at once, since moving a list takes time in proportion to its length.
        if len(self._entries) > 2 * KEPT_EVENTS or self.size > 2 * KEPT_BYTES:
            self.drop(KEPT_BYTES)
        self._budget.set(self, self.size)
        if isinstance(event, QUESTIONS):
            self.asked_at = now()
        elif isinstance(event, Paused):
            self.paused_at = now()
        self._news.unpark_all()

    def drop(self, size: int) -> None:
        """Keep the latest events, ``size`` bytes of them, and the last one at least."""
        count, kept = 0, self.size
        while count < len(self._entries) - 1 and (kept > size or len(self._entries) - count > KEPT_EVENTS):
            kept -= len(self._entries[count].frame) + ENTRY_BYTES
            count += 1
        if count:
            self.dropped = self._entries[count - 1].event.seq
            del self._entries[:count]
            self.size = kept

    def close(self) -> None:
        self.is_closed = True
        if not self._readers:
            self._budget.release(self)
        self._news.unpark_all()

    def after(self, seq: int) -> Sequence[Entry]:
        """Events that come after number ``seq``: at least one if there is one, and not more than fit a write."""
        place = end = bisect_right(self._entries, seq, key=lambda entry: entry.event.seq)
        size = 0
        while end < len(self._entries) and size < BATCH_BYTES:
            size += len(self._entries[end].frame)
            end += 1
        return self._entries[place:end]

    async def news(self) -> None:
        """Return when there are more events, or the run has ended."""
        if self.is_closed:
            await trio.lowlevel.checkpoint()
        else:
            await self._news.park()

    @contextmanager
    def reading(self) -> Generator[None]:
        """Count a reader while the block runs. If the last one leaves before the end, the run may be stopped."""
        self._readers += 1
        # A run that has ended is in memory as long as it has readers.
        self._budget.set(self, self.size)
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers and self.is_closed:
                self._budget.release(self)
            if not self._readers and self._on_disconnect == "stop":
                self.stop(AWAY)

    def set_mode(self, mode: Mode) -> None:
        """Have the calls that come next judged in ``mode``."""
        if self.opened is not None:
            _set_mode(self.opened, mode)

    def stop(self, detail: str) -> None:
        if self.stream is not None and not self.is_closed:
            self.stream.stop(detail)

    async def answer(self, answers: Mapping[str, Answer]) -> None:
        """Answer several questions, or none: a client that is refused may send its answers again.

        Raises:
          UnknownQuestionError: a question is not open.
          InvalidAnswerError: an answer does not fit its question.
        """
        await trio.lowlevel.checkpoint()
        pending = {question.id: question for question in self.pending}
        for id in answers.keys() & pending.keys():
            check_answer(pending[id], answers[id])
        # First the ids of no open question: they are errors, or were approved by a rule meanwhile.
        for id in sorted(answers, key=pending.__contains__):
            self._open_stream.answer(id, answers[id])

    def steer(self, text: str, when: Literal["next", "end"]) -> None:
        """Have the model read ``text``: with its next request, or when the run would end."""
        if when == "next":
            self._open_stream.steer(text)
        else:
            self._open_stream.follow_up(text)


class Runs:
    """The runs of one server, on the sessions of one store."""

    def __init__(self, store: OpenStore, nursery: trio.Nursery, limits: RunLimits) -> None:
        self._store = Fence(store)
        self._nursery = nursery
        self._limits = limits
        self._live: dict[str, LiveRun] = {}
        self._budget = Budget()
        self._locks: dict[str, _SessionLock] = {}
        self._changed = trio.lowlevel.ParkingLot()
        """Parks those who wait for a run to begin or to end."""
        self.is_draining = False

    @classmethod
    @asynccontextmanager
    async def open(cls, store: OpenStore, limits: RunLimits) -> AsyncGenerator[Runs]:
        """Run runs while the block runs. Those that have not ended by its end are cut off, and can be resumed."""
        try:
            async with trio.open_nursery() as nursery:
                runs = cls(store, nursery, limits)
                nursery.start_soon(runs._park_unanswered)
                try:
                    yield runs
                finally:
                    runs._begin_drain()
                    runs._store.close()
                    nursery.start_soon(runs._report_stuck)
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise_single(group)

    @property
    def store(self) -> OpenStore:
        return self._store

    # ------------------------------------------------------------------------------- runs

    def live(self, session: str) -> LiveRun | None:
        """The run that this server runs on the session, if its first event is there."""
        run = self._live.get(session)
        return run if run is not None and run.has_begun else None

    def is_running(self, info: SessionInfo) -> bool:
        """Whether the session has a run that is live."""
        return self.live(info.id) is not None

    async def find(self, session: str) -> LiveRun | None:
        """The run that is live on the session, wherever it can be read and answered from here."""
        await trio.lowlevel.checkpoint()
        return self.live(session)

    async def stop(self, session: str, detail: str) -> bool:
        """Stop the run that is live on the session. Returns whether there is one."""
        run = await self.find(session)
        if run is not None:
            run.stop(detail)
        return run is not None

    async def stop_unfinished(self, session: str, detail: str) -> LiveRun | None:
        """Stop a run that is not live, and give it to read; ``None`` if it is to be resumed for that."""
        await trio.lowlevel.checkpoint()
        return None

    def follow(self, session: str, after: int) -> Follower:
        """The events of the session in the store that come after number ``after``."""
        return follow_session(self._store, session, after=after)

    async def start(
        self,
        session: str,
        agent: Agent,
        prompt: UserMessage | None,
        *,
        answers: AnswersTo | None = None,
        on_question: Literal["reader", "park", "decline"],
        on_disconnect: OnDisconnect,
        deps: Any = None,
        choice: ModelChoice | None = None,
        models: Mapping[str, Model | str] | None = None,
        mode: Mode | None = None,
    ) -> LiveRun:
        """Begin a run, or resume one if there is no ``prompt``. It is saved that it began when this returns.

        Args:
          choice: the model for the session from now on; an empty name for the agent's own.
          models: the models that may be chosen, by their names. A session that has another has the agent's own.
          mode: the mode of the session's permissions from now on; ``None`` to leave it as it is.

        Raises:
          Refusal: the session has a run, or the server begins no more.
          AgentLoopError: the run could not be opened.
        """
        async with self._locked(session):
            self._check_free(session)
            run = self._live[session] = LiveRun(session, agent.name, prompt, on_disconnect, self._budget)
        opening = partial(self._opening, agent, prompt, answers, on_question, deps, choice, models or {}, mode)
        run_started: LiveRun = await self._nursery.start(self._drive, run, opening)
        return run_started

    def _check_free(self, session: str) -> None:
        if self.is_draining:
            raise Refusal(503, DRAINING, headers={"retry-after": "5"})
        if session in self._live:
            sentence = f"session {session} has a run already: read it, answer its questions, stop it, or wait"
            raise Refusal(409, sentence)
        if len(self._live) >= self._limits.runs:
            raise Refusal(503, "the server has as many runs as it may have at once: try again later")

    @staticmethod
    def _opening(
        agent: Agent,
        prompt: UserMessage | None,
        answers: AnswersTo | None,
        on_question: Literal["reader", "park", "decline"],
        deps: Any,
        choice: ModelChoice | None,
        models: Mapping[str, Model | str],
        mode: Mode | None,
        session: StoredSession,
    ) -> AbstractAsyncContextManager[Stream]:
        if mode is not None:
            _set_mode(session, mode)
        model, settings = _chosen(session, agent, choice, models)
        options: dict[str, Any] = {"on_question": on_question, "deps": deps, "model": model, "settings": settings}
        if prompt is not None:
            return agent.stream(prompt, session=session, **options)
        given: Mapping[str, Answer] = {} if answers is None else answers(session.questions)
        return agent.resume_stream(session, given, **options)

    async def _drive(  # noqa: ASYNC114
        self,
        run: LiveRun,
        opening: Callable[[StoredSession], AbstractAsyncContextManager[Stream]],
        *,
        task_status: trio.TaskStatus[LiveRun],
    ) -> None:
        """Run a run to its end, as a task of the server. Before its first event is there, errors are the caller's."""
        try:
            async with (
                stored_session(self._store, run.session, lease_seconds=self._limits.lease_seconds) as session,
                opening(session) as stream,
            ):
                run.stream, run.opened = stream, session
                async for event in stream:
                    is_first = not run.has_begun
                    if is_first:
                        _check_saved(session)
                    run.append(event)
                    if is_first:
                        self._changed.unpark_all()
                        task_status.started(run)
        except Exception as error:
            if not run.has_begun:
                raise
            # The reason is in the last event, for those who read the run.
            if not isinstance(error, AgentLoopError):
                SERVING.error("a run on session %r failed", run.session, exc_info=error)
        finally:
            del self._live[run.session]
            run.opened = None
            run.close()
            self._changed.unpark_all()

    async def _park_unanswered(self) -> None:
        """Park the runs whose questions are not answered in time, so that nothing is held for people who are away.

        The same holds for runs that are paused for as long.
        """
        pause = max(min(self._limits.park_after / 4, 15.0), 0.05)
        while True:
            await trio.sleep(pause)
            for run in self._live.values():
                stream, latest = run.stream, now() - self._limits.park_after
                if stream is None:
                    continue
                if run.asked_at <= latest and stream.pending:
                    run.asked_at = math.inf
                    stream.park()
                if run.paused_at <= latest and stream.is_paused:
                    run.paused_at = math.inf
                    stream.park()

    # ---------------------------------------------------------------------------- sessions

    @asynccontextmanager
    async def _locked(self, session: str) -> AsyncGenerator[None]:
        """Keep the other requests of this process from opening the session: they would find it in use elsewhere."""
        lock = self._locks.setdefault(session, _SessionLock())
        lock.users += 1
        try:
            async with lock.lock:
                yield
        finally:
            lock.users -= 1
            if not lock.users:
                del self._locks[session]

    async def look(self, session: str) -> SessionState:
        """The state of a session.

        Raises:
          StoreError: the store cannot be read.
        """
        async with self._locked(session):
            run = self._live.get(session)
            if run is not None:
                return SessionState("running", run.pending, run.agent_name, run.is_paused)
            info = await self._store.info(session)
            if info is None:
                return SessionState("idle")
            if info.holder:
                return SessionState("elsewhere")
            try:
                unfinished = await self._unfinished(session)
            except SessionLeasedError:
                return SessionState("elsewhere")
        if unfinished is None:
            return SessionState("idle")
        agent = await self.last_agent(session)
        questions = tuple(unfinished.open_questions)
        # A run that a person has paused is not continued before a person says so.
        is_parked = questions or unfinished.has_pause
        return SessionState("parked" if is_parked else "interrupted", questions, agent)

    async def _unfinished(self, session: str) -> StreamState | None:
        """The unfinished run of a session; ``None`` if it has none.

        Acquires the lease only to write: another process could begin no run meanwhile.
        """
        with store_deadline(session):
            stored = await load(self._store, session)
            run = stored.state.resumable
            answered = {} if run is None else await self._store.answers(session)
        questions = () if run is None else tuple(run.open_questions)
        is_settled = not stored.state.running and not stored.replay.lacks_step
        if is_settled and not any(question.id in answered for question in questions):
            return run
        # A run that was cut off gets its end in the journal, for the readers of the session.
        async with stored_session(self._store, session, lease_seconds=self._limits.lease_seconds) as opened:
            return opened._writer.unfinished

    async def last_agent(self, session: str) -> str:
        """The name of the agent that ran last on the session; empty if none did."""
        for record in reversed(await self._store.read(session, kinds=("stream_started", "handed_off"))):
            begun = decode_own(record.data, _Begun)
            if len(begun.source.agents) == 1:
                return begun.to or begun.source.agents[0]
        return ""

    async def settings(self, session: str) -> SessionSettings:
        """The settings of a session, as they are saved.

        Raises:
          StoreError: the store cannot be read.
        """
        records = await self._store.read(session, kinds=(SessionSettings.kind,))
        try:
            return decode_own(records[-1].data, SessionSettings) if records else SessionSettings()
        except UNREADABLE:
            # The run that opens the session fails, and says why.
            return SessionSettings()

    async def choice(self, session: str) -> ModelChoice:
        """The model that was chosen for the session, and how much it thinks; no name for the agent's own.

        Raises:
          StoreError: the store cannot be read.
        """
        run = self._live.get(session)
        if run is not None and run.opened is not None:
            chosen = run.opened.choice or ModelChoice()
            name = chosen.model if isinstance(chosen.model, str) else None
            await trio.lowlevel.checkpoint()
            return ModelChoice(model=name, reasoning_effort=chosen.reasoning_effort)
        settings = await self.settings(session)
        return ModelChoice(model=settings.model or None, reasoning_effort=settings.reasoning_effort)

    async def delete(self, session: str) -> None:
        """Delete a session that has no run here.

        Raises:
          Refusal: it has one.
          StoreError: another process has the session, or the store failed.
        """
        if session in self._live:
            raise Refusal(409, f"session {session} has a run: stop it before the session is deleted")
        await self._store.delete(session)

    async def list(
        self, prefix: str, *, search: str = "", limit: int, before: SessionInfo | None = None
    ) -> Sequence[SessionInfo]:
        """The sessions whose ids begin with ``prefix``, those that were used last first."""
        return await self._store.sessions(search=search, prefix=prefix, limit=limit, before=before)

    # ---------------------------------------------------------------------------- the end

    def _begin_drain(self) -> None:
        self.is_draining = True
        self._changed.unpark_all()

    async def drain(self, seconds: float) -> None:
        """Begin no more runs, and return when all have ended or are parked, after ``seconds`` at the latest.

        What has not ended by then is cut off when the block of the runs is left: nothing more of it is saved, and the
        process that opens its session next resumes it.
        """
        self._begin_drain()
        with trio.move_on_after(seconds):
            for run in list(self._live.values()):
                if run.stream is not None:
                    run.stream.park()
            while self._live:
                await self._changed.park()
        for session in self._live:
            SERVING.warning("session %r: its run is cut off, and can be resumed", session)

    async def _report_stuck(self) -> None:
        """Log the runs that ignore their cancellation: the process cannot leave before they end, and says why."""
        with trio.CancelScope(shield=True):
            with trio.move_on_after(STUCK_SECONDS):
                while self._live:
                    await self._changed.park()
            for session in self._live:
                SERVING.warning("session %r: its run ignores its cancellation, and the server waits for it", session)

    async def changed(self) -> None:
        """Return when a run begins or ends, or the server begins to drain."""
        await self._changed.park()


def _chosen(
    session: StoredSession, agent: Agent, choice: ModelChoice | None, models: Mapping[str, Model | str]
) -> tuple[Model | str | None, ModelSettings | None]:
    """The model of a run of ``agent`` on ``session``, and its settings, after ``choice`` was made for the session."""
    if choice is not None:
        model = choice.model or None
        is_plain = model is None and choice.reasoning_effort is None
        session.choice = None if is_plain else ModelChoice(model=model, reasoning_effort=choice.reasoning_effort)
    chosen = session.choice
    if chosen is None:
        return None, None
    if chosen.model is not None and (not isinstance(chosen.model, str) or chosen.model not in models):
        # The server does not offer it any more.
        session.choice = None
        return None, None
    offered = None if chosen.model is None else models[chosen.model]
    level = chosen.reasoning_effort
    if not _has_level(agent, offered, level):
        # Another agent has the conversation now, or another model has the name.
        level = None
        session.choice = None if chosen.model is None else ModelChoice(model=chosen.model)
    return (None, None) if offered is None else (offered, ModelSettings(reasoning_effort=level))


def _has_level(agent: Agent, model: Model | str | None, level: ReasoningEffort | None) -> bool:
    """Whether ``model``, or the agent's own, thinks so much."""
    try:
        check_effort(model_name(named_model(agent, ModelChoice(model=model))), level)
    except UsageError:
        return False
    return True


def _set_mode(session: StoredSession, mode: Mode) -> None:
    """Give the permissions of ``session`` another mode. Their rules stay."""
    if session.permissions is not None or mode != "default":
        session.permissions = evolve(session.permissions or Permissions(), mode=mode)


def _check_saved(session: StoredSession) -> None:
    """Raise the error of a store that could not save the first event: then it is delivered, and the run has failed."""
    log = session._writer._log
    if log is not None and log.failure is not None:
        raise log.failure


class _SessionLock:
    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.users = 0


class _Begun(msgspec.Struct):
    """As much of a run's start, and of a handoff, as says which agent acts after it."""

    source: Source
    to: str = ""


class SessionReader:
    """Reads the events of a session that come after number ``after``, those that are still to come too.

    There is nothing to close. A call of `next` may be cancelled, and nothing is lost.
    """

    def __init__(self, runs: Runs, session: str, after: int) -> None:
        self._runs = runs
        self._session = session
        self.after = after
        """The number of the last event that was read."""
        self._follower: Follower | None = None
        self._records = 0
        """The records of the session when it was last seen to be idle."""

    async def next(self, run: LiveRun | None = None) -> Sequence[Entry]:
        """The next events; nothing if all have been read, and no run is open on the session.

        Args:
          run: the run to read, for a reader that is interested in one.

        Raises:
          StoreError: the store cannot be read; or the process that ran the session has died: see `Runs.look`.
        """
        while True:
            live = run or self._runs.live(self._session)
            if live is not None and live.dropped <= self.after:
                self._follower = None
                if entries := live.after(self.after):
                    self.after = entries[-1].event.seq
                    await trio.lowlevel.checkpoint()
                    return entries
                if not live.is_closed:
                    await live.news()
                    continue
            if run is not None and run.is_closed and self.after >= run.last:
                # What comes next in the session is of another run.
                return ()
            if entries := await self._stored(run):
                self.after = entries[-1].event.seq
                return entries
            live = run or self._runs.live(self._session)
            if live is None or live.is_closed:
                return ()
            # All that came before the run has been read.
            self.after = max(self.after, live.begin)
            if live.dropped > self.after:
                # The store is behind.
                await trio.sleep(BEHIND_SECONDS)

    async def _stored(self, run: LiveRun | None) -> Sequence[Entry]:
        """The next events from the store, not more than fit a write; nothing if all of them have been read.

        Events that come after the end of ``run`` are left out.
        """
        if self._follower is None:
            info = await self._runs.store.info(self._session)
            if info is None or info.records == self._records:
                return ()
            self._records = 0
            self._follower = self._runs.follow(self._session, self.after)
            self._seen = info.records
        try:
            entries = [_entry(await anext(self._follower))]
        except StopAsyncIteration:
            self._follower = None
            self._records = self._seen
            return ()
        # The follower reads a page at once. No checkpoint from here on: a cancelled call would lose these events.
        page, size = self._follower._found, len(entries[0].frame)
        last = run.last if run is not None and run.is_closed else math.inf
        while page and page[0].seq <= last and size < BATCH_BYTES:
            entries.append(_entry(page.popleft()))
            size += len(entries[-1].frame)
        return entries

    async def wait(self) -> None:
        """Return when there may be more to read: a run begins here, or some time has passed."""
        if self._runs.live(self._session) is None and not self._runs.is_draining:
            with trio.move_on_after(POLL_SECONDS):
                await self._runs.changed()
        else:
            await trio.lowlevel.checkpoint()
