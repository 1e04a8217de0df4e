"""Background runs that belong to a block, and not to the stream that has started them.

::

    async with Toolsets(background(researcher)) as staff:      owns a nursery: `open_block`
        a stream of an agent with `staff`                      joins the block when it lists its tools first
          run_background_agent(...)                            starts a run in the nursery of the block
        the stream ends                                        it leaves the block; the run works on
        another stream joins                                   it can look after the run, and reports its end
    the block ends                                             its runs are cancelled, and have ended

Such a run is a root run, with a log of its own: its events go to the observers of its agent, of the agents that have
started it and of the process, whether or not a stream is open. A stream that has joined gets the call that starts it,
its questions, and its end. It is bound to the run that has started it by `agentloop._runtime.run.Apart`: the rules and
the hooks of that run hold for good, its limits hold until it leaves the block.

One stream reports the end of a run, and asks its questions: the one that has started it while that is open, else one of
the same session, and of those the one that has joined first. Streams without a `Session` count as one session. So a
block may serve many people, and nobody reads the runs of another session.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import trio

from agentloop._core.background import LOST, MOST_BACKGROUND, Ended, id_of, work_of
from agentloop._core.questions import AskedQuestion
from agentloop._core.transcript import Transcript
from agentloop._runtime.background import StartedRun, live_apart
from agentloop._runtime.blocks import PausableDeadline
from agentloop._runtime.questions import ask
from agentloop._runtime.run import PARK, Apart, Run
from agentloop._runtime.user_code import call_user_code
from agentloop.config import AgentConfig
from agentloop.context import AgentBase
from agentloop.errors import ChildLimitError, InvalidAnswerError, StreamStateError, UsageError
from agentloop.events import Question
from agentloop.messages import Prompt, UserMessage, user_message
from agentloop.outcome import ChildStream, QuestionHandler
from agentloop.questions import Answer

__all__ = ["BackgroundBlock", "open_block"]

_CLOSED = "the block of the background runs has ended: it starts none any more"


@asynccontextmanager
async def open_block() -> AsyncGenerator[BackgroundBlock]:
    """A block that owns background runs. When it is left, all of them have ended."""
    block: BackgroundBlock | None = None
    try:
        async with trio.open_nursery() as nursery:
            block = BackgroundBlock(nursery)
            try:
                yield block
            finally:
                block.is_closed = True
                nursery.cancel_scope.cancel()
    finally:
        if block is not None:
            block.forget()


class BackgroundBlock:
    """The background runs of one block, and the streams that have joined it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.is_closed = False
        """Whether it starts no more runs."""
        self._nursery = nursery
        self._runs: dict[str, RunOfBlock] = {}
        """Those whose end was not reported, by id, in the order in which they began."""
        self._running: dict[RunOfBlock, None] = {}
        self._counts: dict[str, int] = {}
        """How many it has begun, by the name of the agent."""
        self._members: dict[Run, _Membership] = {}
        """The runs that have joined and have not left, in order."""
        self._changed = trio.Event()
        """Set when one has joined."""

    def runs_for(self, run: Run) -> tuple[RunOfBlock, ...]:
        """The runs of the session of ``run`` whose end was not reported, in the order in which they began."""
        return tuple([started for started in self._runs.values() if _are_of_one_session(started.starter, run)])

    # ------------------------------------------------------------------------- the streams

    def join(self, run: Run) -> None:
        """``run`` reports ends from now on, and passes questions on to its reader. Idempotent."""
        if run not in self._members:
            joined = run.joined
            if joined is None:
                joined = run.joined = _Joined(run)
            assert isinstance(joined, _Joined)
            self._members[run] = joined.add(self)
            for started in self._running:
                if started.run is not None and started.run.apart is not None:
                    started.run.apart.renew(run.root.session)
            self._changed.set()
            self._changed = trio.Event()

    def has_joined(self, run: Run) -> bool:
        """Whether ``run`` has joined, and has not ended."""
        return run in self._members

    def leave(self, run: Run) -> None:
        """``run`` has ended."""
        del self._members[run]
        for started in self._running:
            if started.starter is run and started.run is not None:
                # What it uses from now on counts in its own limits alone.
                started.run.meter.parent = None

    def teller_of(self, started: RunOfBlock) -> Run | None:
        """The stream that reports the end of ``started``: see above."""
        return next(iter(self._tellers_of(started)), None)

    def _tellers_of(self, started: RunOfBlock) -> list[Run]:
        """The streams that may tell of ``started``, the first one first."""
        starter = started.starter
        tellers = [
            run
            for run in self._members
            # A background run does other work than to read what another one has found.
            if not run.writer.is_closed and (run is starter or not _is_apart(run)) and _are_of_one_session(starter, run)
        ]
        return sorted(tellers, key=lambda run: run is not starter)

    async def wait_for_asker(self, started: RunOfBlock) -> _Membership:
        """The stream that passes the questions of ``started`` on, once one can."""
        while True:
            for run in self._tellers_of(started):
                if _can_ask(run):
                    return self._members[run]
            await self._changed.wait()

    # ---------------------------------------------------------------------------- the runs

    async def start(
        self, run: Run, call_id: str, agent: AgentBase[Any, Any], prompt: Prompt, on_question: QuestionHandler | None
    ) -> RunOfBlock:
        """Start a run for the call ``call_id`` of ``run``; or find the one that an earlier attempt at it has started.

        Raises:
          UsageError: ``agent`` is no agent, or the prompt is empty.
          ChildLimitError: so many run already, it would be nested too deep, or the agent would run inside itself.
          StreamStateError: the block has ended.
        """
        if not isinstance(agent, AgentConfig):
            raise UsageError(f"a background run is started on an Agent, not on {agent!r}")
        message = user_message(prompt)
        if run.redactor is not None:
            message = run.redactor.value(message)
        for started in self._runs.values():
            if started.is_of(run, call_id, agent, message):
                await trio.lowlevel.checkpoint()
                return started
        if len(self._running) >= MOST_BACKGROUND:
            reason = f"{MOST_BACKGROUND} background runs are running already"
            raise ChildLimitError(agent=agent.name, path=run.source.agents, reason=reason)
        self.join(run)
        if self.is_closed:
            raise StreamStateError(_CLOSED)
        started = RunOfBlock(self, run, call_id, agent, message, on_question)
        self._running[started] = None
        self._nursery.start_soon(started.play, name=f"background run of {agent.name}")
        await started.wait_until_open(_CLOSED)
        return started

    def id_for(self, started: RunOfBlock) -> str:
        """A new id: one that no run of the block has, and none of the session."""
        name, transcript = started.agent_name, started.starter.root.session
        count = max(self._counts.get(name, 0), transcript.background_counts.get(name, 0))
        self._counts[name] = count + 1
        transcript.count_background(name, count + 1)
        return id_of(name, count)

    def add(self, started: RunOfBlock) -> None:
        """``started`` is open."""
        self._runs[started.id] = started
        session = started.starter.root.session
        session.leave_unreported((started.id,), LOST)
        live_apart[session.id, started.id] = started

    def notice_end(self, started: RunOfBlock) -> None:
        """``started`` has ended, or could not be opened."""
        self._running.pop(started, None)
        if started.run is not None:
            # It is no part of a stream, and of the session all the same.
            session = started.starter.root.session
            session.used = session.used + started.run.meter.usage

    def forget(self) -> None:
        """The block has ended: the next run of a session reports the runs of that session as lost."""
        for id, started in self._runs.items():
            live_apart.pop((started.starter.root.session.id, id), None)
        self._runs.clear()

    def take_ended(self, run: Run) -> list[Ended]:
        """The ends that ``run`` is to report. They count as reported."""
        taken: list[Ended] = []
        for id, started in list(self._runs.items()):
            outcome = started.outcome
            if outcome is not None and self.teller_of(started) is run:
                del self._runs[id]
                live_apart.pop((started.starter.root.session.id, id), None)
                started.starter.root.session.forget_unreported((id,))
                detail = started.carried_over(outcome.detail, run)
                taken.append(Ended(id, outcome.reason, detail, started.text_for(run), work_of(outcome.messages)))
        return taken


def _are_of_one_session(run: Run, other: Run) -> bool:
    mine, others = _session_of(run), _session_of(other)
    # By the id: a stored session may be opened anew for each stream, as a server does.
    return mine.id == others.id or not (mine.is_kept or others.is_kept)


def _session_of(run: Run) -> Transcript:
    """The session that ``run`` works for: for a background run, that of the run that has started it."""
    while run.parent is not None:
        run = run.parent
    return run.root.session if run.apart is None else _session_of(run.apart.starter)


def _is_apart(run: Run) -> bool:
    while run.parent is not None:
        run = run.parent
    return run.apart is not None


def _can_ask(run: Run) -> bool:
    """Whether a question that is passed on to ``run`` can be answered in this opening of it."""
    questions = run.root.questions
    is_parking = questions.is_left_to_resume or PARK in questions.answerers(run.source.stream)
    return not is_parking and not run.writer.is_closed


class RunOfBlock(StartedRun):
    """A background run of a block."""

    __slots__ = ("_block", "_handler", "run", "starter")

    def __init__(
        self,
        block: BackgroundBlock,
        starter: Run,
        call_id: str,
        agent: AgentConfig,
        message: UserMessage,
        on_question: QuestionHandler | None,
    ) -> None:
        super().__init__(starter, call_id, agent, message)
        self._block = block
        self._handler = on_question
        self.starter = starter
        """The run whose call has started it. It may have ended."""
        self.run: Run | None = None
        """Known when it is open."""

    def is_of(self, run: Run, call_id: str, agent: AgentConfig, message: UserMessage) -> bool:
        """Whether an earlier attempt at the call has started it, of that agent with that prompt."""
        is_same = self.call_id == call_id and self.agent_name == agent.name and self.message == message
        return is_same and self.starter.transcript.id == run.transcript.id and self.starter is not run

    def text_for(self, reader: Run) -> str:
        return self.carried_over(super().text_for(reader), reader)

    def carried_over(self, text: str, reader: Run) -> str:
        """``text`` of the run, in which each placeholder stands for the same secret at ``reader``.

        Streams without a `Session` count as one session, and each numbers its secrets from 1.
        """
        run = self.run
        if run is None or run.redactor is None or reader.redactor is None:
            return text
        return run.redactor.carry_over(text, reader.redactor)

    async def play(self) -> None:
        """Open it, and wait for its end. The one task of the block's nursery that it has."""
        try:
            with self.scope:
                await trio.lowlevel.checkpoint_if_cancelled()
                async with self._open_apart() as stream:
                    self.stream = stream
                    self._block.add(self)
                    self.opened.set()
                    await stream.wait()
        except Exception as error:
            if self.opened.is_set():
                raise
            self.error = error
        finally:
            self.opened.set()
            self.ended.set()
            self._block.notice_end(self)

    @asynccontextmanager
    async def _open_apart(self) -> AsyncGenerator[ChildStream]:
        assert self._agent is not None
        self.id = self._block.id_for(self)
        apart = Apart(self.starter, self.id)
        opening: AbstractAsyncContextManager[ChildStream] = self.starter.root.open_apart(
            apart, self.call_id, self._agent, self.message, self._answer
        )
        async with opening as stream:
            run = self.run = apart.run
            assert run is not None
            self.state = run.state
            if not self._block.has_joined(self.starter):
                run.meter.parent = None
            yield stream

    async def _answer(self, question: Question) -> Answer | None:
        """Answer a question of the run: by its own handler, or by the reader of a stream of the block."""
        if self._handler is not None:
            reply: Answer | None = await call_user_code(None, self._handler, question)
            if reply is not None:
                return reply
        assert self.run is not None
        while True:
            membership = await self._block.wait_for_asker(self)
            passed_on = PassedOn(question, self.run, self.id, membership.run)
            reply = await membership.pass_on(passed_on)
            if reply is not None:
                return reply
            if passed_on.state == "declined" and _can_ask(membership.run):
                # The stream has nobody to be asked, as for a question of its own.
                return None


class PassedOn(AskedQuestion):
    """A question of a background run, as a stream of its block asks it."""

    __slots__ = ("_asked_by", "_original")

    def __init__(self, question: Question, asked_by: Run, id: str, run: Run) -> None:
        super().__init__(msgspec.structs.replace(question, source=run.source, id="", background=id))
        self._asked_by = asked_by
        self._original = question.id

    def check(self, answer: Answer) -> Answer:
        try:
            return self._asked_by.root.questions.check(self._original, answer)
        except InvalidAnswerError as error:
            # The reader knows it by the id that it has here.
            raise InvalidAnswerError(question=self.id, problem=error.problem) from error


class _Membership:
    """A run that has joined a block, with the questions that it passes on."""

    __slots__ = ("_asking", "_has_left", "_idle", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self._asking: set[trio.CancelScope] = set()
        self._has_left = False
        self._idle: trio.Event | None = None

    async def pass_on(self, question: PassedOn) -> Answer | None:
        """The answer of the run's reader; ``None`` if there is none, or if the run has left."""
        if self._has_left:
            await trio.lowlevel.checkpoint()
            return None
        scope = trio.CancelScope()
        self._asking.add(scope)
        try:
            with scope:
                # The time limit of this run goes on: it does not wait for the answer.
                return await ask(self.run, question, PausableDeadline(None, None))
        finally:
            self._asking.discard(scope)
            if self._idle is not None and not self._asking:
                self._idle.set()
        return None

    async def leave(self) -> None:
        """Withdraw the questions, and wait until that is done: nothing is emitted in the run any more."""
        self._has_left = True
        for scope in self._asking:
            scope.cancel()
        if self._asking:
            self._idle = trio.Event()
            with trio.CancelScope(shield=True):
                await self._idle.wait()


class _Joined:
    """The blocks that one run has joined: `agentloop._runtime.run.JoinedBlocks`."""

    __slots__ = ("_blocks", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._blocks: dict[BackgroundBlock, _Membership] = {}

    def add(self, block: BackgroundBlock) -> _Membership:
        membership = self._blocks[block] = _Membership(self._run)
        return membership

    def take_ended(self) -> Sequence[Ended]:
        return [ended for block in self._blocks for ended in block.take_ended(self._run)]

    async def leave(self) -> None:
        for block in self._blocks:
            block.leave(self._run)
        for membership in self._blocks.values():
            await membership.leave()
