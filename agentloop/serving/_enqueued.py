"""Runs that workers run: the server puts prompts, answers and stops into mailboxes, and reads the journals.

::

    EnqueuedRuns.start()   enqueues a prompt, or answers, and waits until a worker has begun the run
    EnqueuedRun            its latest events, which a task reads from the journal; any server may read the same run
    EnqueuedRuns.find()    reads a run that another server has enqueued, or this one before it was restarted

A worker that dies ends nothing here: the reader waits until another worker resumes the run.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import msgspec
import trio

from agentloop._core.json_text import decode_own
from agentloop._core.questions import check_answer
from agentloop._core.structured_output import TEXT, OutputFormatError, OutputType, output_type
from agentloop._runtime.logs import SERVING
from agentloop.agent import Agent
from agentloop.errors import AgentLoopError, StoreError, UnknownQuestionError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    MessageCommitted,
    Question,
    QuestionAnswered,
    QuestionDeclined,
    QuestionWithdrawn,
    StreamEvent,
    StreamReason,
    StreamStarted,
    StreamStopped,
)
from agentloop.journal import READY, UNFINISHED, WAITING, OpenStore, SessionInfo
from agentloop.messages import AssistantMessage, UserMessage
from agentloop.models import Model, ModelChoice
from agentloop.outcome import Outcome
from agentloop.permissions import Mode
from agentloop.questions import Answer
from agentloop.serving._errors import Refusal
from agentloop.serving._runs import AnswersTo, Budget, LiveRun, OnDisconnect, RunLimits, Runs, SessionState
from agentloop.serving.protocols._base import Verdict, answer_to
from agentloop.stores import Follower, follow_session
from agentloop.stores._replay import UNREADABLE, load, number_of
from agentloop.stores.mailbox import answer, enqueue, mailboxes_of, stop
from agentloop.wire import EVENT_TYPES

__all__ = ["EnqueuedRun", "EnqueuedRuns"]

BEGIN_SECONDS = 30.0
"""Seconds that a prompt waits for a worker, before it is withdrawn and the request refused."""

LOOK_SECONDS = 0.25
"""Between two looks at whether a worker has begun a run."""

RETRY_SECONDS = 1.0
"""Between two tries to read a store that fails."""

WITHDRAW_SECONDS = 2.0

PAGE = 64
"""Records that are read at once, to find the last event."""

Begin = Callable[[], Awaitable[int]]
"""Has a run begin, and returns the number of the event before its first one."""


class _Started(msgspec.Struct):
    seq: int
    message: UserMessage
    resumes: str = ""


class _Beginning(NamedTuple):
    """The beginning of a run in the journal."""

    after: int
    """The number of the event before its first one."""
    prompt: UserMessage


class EnqueuedRun(LiveRun):
    """A run that a worker runs, as far as the journal has it."""

    has_takeovers = True

    def __init__(
        self,
        session: str,
        agent_name: str,
        prompt: UserMessage | None,
        on_disconnect: OnDisconnect,
        budget: Budget,
        runs: EnqueuedRuns,
        output: OutputType = TEXT,
    ) -> None:
        super().__init__(session, agent_name, prompt, on_disconnect, budget)
        self._runs = runs
        self._output = output
        self._stream = ""
        self._open: dict[str, Question] = {}
        self._answered = False
        """Whether an open question has an answer that the worker has not confirmed yet."""
        self._stopped: StreamStopped | None = None
        self._text = ""
        """The text of the last message of the agent."""

    @property
    def stream_id(self) -> str:
        """The id of its first stream: a worker that takes the run over resumes it in another one."""
        return self._stream

    @property
    def pending(self) -> tuple[Question, ...]:
        """The questions that are open, as far as the journal has been read."""
        return tuple(self._open.values())

    @property
    def awaits_worker(self) -> bool:
        """Whether the run, which waits for answers, has one: a worker will resume it."""
        return self._answered

    @property
    def outcome(self) -> Outcome[Any]:
        """The outcome, after the last event: the output is what the last message says."""
        stopped = self._stopped
        assert stopped is not None
        if stopped.reason != "completed":
            questions = self.pending if stopped.reason == "needs_input" else ()
            return Outcome(reason=stopped.reason, detail=stopped.detail, questions=questions, usage=stopped.usage)
        try:
            output = self._output.decode(self._text)
        except OutputFormatError:
            # A validator of the worker's agent has made another text of it, perhaps.
            output = self._text
        return Outcome(reason="completed", detail=stopped.detail, output=output, usage=stopped.usage)

    def append(self, event: StreamEvent) -> None:
        """Take the next event."""
        if not self.has_begun:
            self._stream = event.source.stream
        match event:
            case ElicitationRequested() | ApprovalRequested() | ContinueRequested():
                self._open[event.id] = event
            case QuestionAnswered() | QuestionDeclined() | QuestionWithdrawn():
                self._open.pop(event.id, None)
            case MessageCommitted(message=AssistantMessage() as message) if not event.depth:
                self._text = message.text
            case StreamStopped():
                self._stopped = event
            case StreamStarted():
                self._answered = False
            case _:
                pass
        super().append(event)

    async def answer(self, answers: Mapping[str, Answer]) -> None:
        """Put the answers into the mailbox.

        Raises:
          UnknownQuestionError: a question is not open.
          InvalidAnswerError: an answer does not fit its question.
          StoreError: the answers may be saved or not.
        """
        for id, given in _checked(self.pending, answers).items():
            await answer(self._runs.store_of_mail, self.session, id, given)
            self._answered = True

    def steer(self, text: str, when: Literal["next", "end"]) -> None:
        """Refuse: a mailbox has no messages for a run."""
        raise Refusal(409, "workers run the agents of this server: send the message as a prompt, after the run")

    def stop(self, detail: str) -> None:
        """Stop the run, unless it has ended, or only this server leaves."""
        if not self.is_closed and not self._runs.is_draining:
            self._runs.post_stop(self.session, detail)


def _checked(questions: Sequence[Question], answers: Mapping[str, Answer]) -> Mapping[str, Answer]:
    """The answers, which fit. Raises as `EnqueuedRun.answer` does."""
    asked = {question.id: question for question in questions}
    for id in answers:
        if id not in asked:
            raise UnknownQuestionError(given=id, open_ids=tuple(asked))
    return {id: check_answer(asked[id], given) for id, given in answers.items()}


class EnqueuedRuns(Runs):
    """The runs that a server reads while workers run them."""

    def __init__(self, store: OpenStore, nursery: trio.Nursery, limits: RunLimits) -> None:
        super().__init__(store, nursery, limits)
        self.store_of_mail = mailboxes_of(store)

    def follow(self, session: str, after: int) -> Follower:
        """The events of the session after number ``after``, through all take-overs."""
        return follow_session(self.store, session, after=after, if_cut_off="wait")

    def is_running(self, info: SessionInfo) -> bool:
        """Whether the session has a run that is live somewhere, or is about to be."""
        return super().is_running(info) or info.state == UNFINISHED

    # -------------------------------------------------------------------------------- runs

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
        """Enqueue a prompt, or answers to the questions of a parked run, and return when a worker has begun.

        Raises:
          Refusal: the session has a run, or no worker has begun it in time.
          AgentLoopError: an answer does not fit, or the store failed.
        """
        assert mode is None, "only an editor chooses a mode, and it has no workers"
        if choice is not None:
            raise Refusal(400, "workers run the agents of this server, each with its own model: leave model= out")
        output = output_type(agent.output_type)
        begin: Begin = partial(self._answer, session, answers)
        if prompt is not None:
            begin = partial(self._enqueue, session, agent, prompt)
        async with self._locked(session):
            self._check_free(session)
            run = self._run(session, agent.name, prompt, on_disconnect, output)
        started: LiveRun = await self._nursery.start(self._read, run, begin, on_question == "decline")
        return started

    def _run(
        self,
        session: str,
        agent_name: str,
        prompt: UserMessage | None,
        on_disconnect: OnDisconnect,
        output: OutputType = TEXT,
    ) -> EnqueuedRun:
        run = EnqueuedRun(session, agent_name, prompt, on_disconnect, self._budget, self, output)
        self._live[session] = run
        return run

    async def find(self, session: str) -> LiveRun | None:
        """The run that is live on the session, whichever server has enqueued it."""
        async with self._locked(session):
            if session in self._live:
                return self.live(session)
            info = await self.store.info(session)
            beginning = await self._beginning(session) if info is not None and info.state == UNFINISHED else None
            if info is None or beginning is None:
                return None
            self._check_free(session)
            run = self._run(session, info.agent, beginning.prompt, "continue")

        async def begin() -> int:
            await trio.lowlevel.checkpoint()
            return beginning.after

        started: LiveRun = await self._nursery.start(self._read, run, begin, False)
        return started

    async def _beginning(self, session: str) -> _Beginning | None:
        """The beginning of the session's last run."""
        for record in reversed(await self.store.read(session, kinds=("stream_started",))):
            try:
                started = decode_own(record.data, _Started)
            except UNREADABLE:
                continue
            if not started.resumes:
                return _Beginning(started.seq - 1, started.message)
        return None

    async def stop(self, session: str, detail: str) -> bool:
        """Stop the run of the session, and the prompt that waits for a worker. Returns whether there is one."""
        if (await self.look(session)).state != "running":
            return False
        await stop(self.store_of_mail, session, detail)
        return True

    async def stop_unfinished(self, session: str, detail: str) -> LiveRun | None:
        """Have a worker stop a run that is parked, and give what it says about it to read."""
        name = await self.last_agent(session)

        async def begin() -> int:
            after, records = await self._last(session)
            await stop(self.store_of_mail, session, detail)
            await self._resumed(session, records)
            return after

        async with self._locked(session):
            self._check_free(session)
            run = self._run(session, name, None, "continue")
        started: LiveRun = await self._nursery.start(self._read, run, begin, False)
        return started

    def post_stop(self, session: str, detail: str) -> None:
        """Stop the run of the session, as a task of the server."""
        self._nursery.start_soon(self._post_stop, session, detail)

    async def _post_stop(self, session: str, detail: str) -> None:
        try:
            await stop(self.store_of_mail, session, detail)
        except AgentLoopError as error:
            SERVING.error("session %r: the run cannot be stopped: %s", session, error)

    # ----------------------------------------------------------------------- the beginning

    async def _enqueue(self, session: str, agent: Agent, prompt: UserMessage) -> int:
        """Enqueue a prompt; the number of the event before the first one of its run, once a worker has begun it."""
        await self._make_way(session)
        store, id = self.store_of_mail, os.urandom(8).hex()
        record: int | None = None
        try:
            with trio.move_on_after(BEGIN_SECONDS):
                await enqueue(store, session, prompt, agent=agent.name, id=id)
                while (record := await store.delivered(session, id)) is None:  # noqa: ASYNC110 - of another process
                    await trio.sleep(LOOK_SECONDS)
        finally:
            # Nobody would read the run of a request that is refused, or whose client has gone.
            if record is None:
                with trio.move_on_after(WITHDRAW_SECONDS, shield=True):
                    await store.withdraw(session, id)
        if record is None:
            # A worker may have begun it at the last moment.
            record = await store.delivered(session, id)
        if not record:
            raise Refusal(503, "no worker has begun the run: try again later", headers={"retry-after": "5"})
        for first in await store.read(session, after=record - 1, limit=PAGE):
            if first.kind == "stream_started":
                return number_of(first) - 1
        raise StoreError(f"session {session!r}: the beginning of the run cannot be read")

    async def _make_way(self, session: str) -> None:
        """Refuse a second run of the session; stop one that waits for answers, in whose place the new one comes."""
        info = await self.store.info(session)
        waits = any(mail.kind == "prompt" for mail in await self.store_of_mail.mail(session))
        if waits or (info is not None and info.state == UNFINISHED):
            sentence = f"session {session} has a run already: read it, answer its questions, stop it, or wait"
            raise Refusal(409, sentence)
        if info is not None and info.state == WAITING:
            await stop(self.store_of_mail, session, "another prompt came in the place of the answers")

    async def _answer(self, session: str, answers: AnswersTo | None) -> int:
        """Answer questions of a parked run; the number of the event before the first one that follows."""
        info = await self.store.info(session)
        if info is None or info.state != WAITING:
            raise Refusal(409, f"session {session} has no run that waits for answers")
        questions = await self._questions(session)
        given = _checked(questions, {} if answers is None else answers(questions))
        if not given:
            raise Refusal(409, f"session {session} has a run that waits for answers to its questions: answer them")
        after, records = await self._last(session)
        await self._answer_all(session, given)
        with trio.move_on_after(BEGIN_SECONDS) as scope:
            await self._resumed(session, records)
        if scope.cancelled_caught:
            late = "the answers are saved, and no worker has resumed the run yet: read the events of the session"
            raise Refusal(503, late, headers={"retry-after": "5"})
        return after

    async def _answer_all(self, session: str, answers: Mapping[str, Answer]) -> None:
        for id, given in answers.items():
            await answer(self.store_of_mail, session, id, given)

    async def _questions(self, session: str) -> tuple[Question, ...]:
        """The open questions of the session's parked run."""
        run = (await load(self.store, session)).state.resumable
        if run is None:
            return ()
        answered = await self.store.answers(session)
        return tuple(question for question in run.open_questions if question.id not in answered)

    async def _last(self, session: str) -> tuple[int, int]:
        """The number of the session's last event, and that of its last record."""
        info = await self.store.info(session)
        records = end = 0 if info is None else info.records
        while end > 0:
            start = max(end - PAGE, 0)
            for record in reversed(await self.store.read(session, after=start, limit=end - start)):
                if record.kind in EVENT_TYPES and (number := number_of(record)):
                    return number, records
            end = start
        return 0, records

    async def _resumed(self, session: str, records: int) -> None:
        """Return when a worker has resumed the run after record ``records``, or has given it up."""
        while not await self.store.read(session, after=records, limit=1, kinds=("stream_started",)):
            info = await self.store.info(session)
            if info is None or info.state == READY:
                return
            await trio.sleep(LOOK_SECONDS)

    # ------------------------------------------------------------------------- the reading

    async def _read(  # noqa: ASYNC114
        self, run: EnqueuedRun, begin: Begin, declines: bool, *, task_status: trio.TaskStatus[LiveRun]
    ) -> None:
        """Read a run to its end, as a task of the server. Before its first event is there, errors are the caller's."""
        try:
            follower = self.follow(run.session, await begin())
            while (event := await self._next(run, follower)) is not None:
                is_first = not run.has_begun
                run.append(event)
                if is_first:
                    self._changed.unpark_all()
                    task_status.started(run)
                if isinstance(event, StreamStopped) and not await self._continues(run, event.reason, declines):
                    return
            if not run.has_begun:
                raise Refusal(409, f"session {run.session}: the run was given up")
        except Exception as error:
            if not run.has_begun:
                raise
            SERVING.error("session %r: its run is not read any more", run.session, exc_info=error)
        finally:
            del self._live[run.session]
            run.close()
            self._changed.unpark_all()

    async def _next(self, run: EnqueuedRun, follower: Follower) -> StreamEvent | None:
        """The next event of the run; ``None`` if it has none, and a later run or nothing at all follows."""
        fails = False
        while True:  # noqa: ASYNC913 - it waits for the follower
            try:
                event = await anext(follower)
            except StopAsyncIteration:
                return None
            except StoreError as error:
                if not run.has_begun:
                    raise
                if not fails:
                    SERVING.warning("session %r cannot be read, and is tried again: %s", run.session, error)
                fails = True
                await trio.sleep(RETRY_SECONDS)
                if await self._is_gone(run.session):
                    return None
                follower = self.follow(run.session, run.last)
                continue
            is_later = isinstance(event, StreamStarted) and not event.resumes and run.has_begun
            return None if is_later else event

    async def _is_gone(self, session: str) -> bool:
        try:
            return await self.store.info(session) is None
        except StoreError:
            return False

    async def _continues(self, run: EnqueuedRun, reason: StreamReason, declines: bool) -> bool:
        """Whether a worker resumes the run: it was cut off, or has answers, if only the server's refusals."""
        if reason != "needs_input":
            return reason == "interrupted"
        _, records = await self._last(run.session)
        if declines:
            refusals = {question.id: answer_to(question, Verdict(None)) for question in run.pending}
            await self._answer_all(run.session, refusals)
        elif not run.awaits_worker:
            return False
        await self._resumed(run.session, records)
        return True

    # ---------------------------------------------------------------------------- sessions

    async def look(self, session: str) -> SessionState:
        """The state of a session, without its lease: a run that was cut off is running, since a worker resumes it.

        Raises:
          StoreError: the store cannot be read.
        """
        run = self._live.get(session)
        if run is not None:
            return SessionState("running", run.pending, run.agent_name)
        info = await self.store.info(session)
        if info is not None and info.state == WAITING:
            return SessionState("parked", await self._questions(session), info.agent)
        if info is not None and info.state == UNFINISHED:
            return SessionState("running", (), info.agent)
        if info is not None and not info.state:
            # No run has begun or ended since an older version saved it: its records say how it is.
            return await super().look(session)
        for mail in await self.store_of_mail.mail(session):
            if mail.kind == "prompt":
                return SessionState("running", (), mail.agent)
        return SessionState("idle")

    async def drain(self, seconds: float) -> None:
        """Begin no more runs, and return when all that are read have ended, after ``seconds`` at the latest.

        The others go on: workers run them, and other servers can read them.
        """
        self._begin_drain()
        with trio.move_on_after(seconds):
            while self._live:
                await self._changed.park()
