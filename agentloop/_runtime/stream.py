"""A stream: one block that owns everything it started.

::

    open_stream()                      enters, in this order, and leaves in the opposite one:
      the session        claimed       one run at a time
      the questions      scope         pushed on the tree, popped whatever happens in between
      the channel        both ends     around the nursery: a task that is cancelled can still emit
      the nursery        one task      `_main`: the loop, then the ending
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    closing,
    contextmanager,
    nullcontext,
)
from typing import Any

import trio
from attrs import evolve

from agentloop._core.output import output_type
from agentloop._core.parking import Waits
from agentloop._core.state import StreamState
from agentloop._core.transcript import Transcript
from agentloop._runtime import questions
from agentloop._runtime.commit import flush, settle
from agentloop._runtime.groups import is_cancellation, raise_single, single, split_plain
from agentloop._runtime.log import EventLog, Journal
from agentloop._runtime.logs import RUN, log
from agentloop._runtime.loop import Ending, play
from agentloop._runtime.observing import observe
from agentloop._runtime.patience import Patience
from agentloop._runtime.run import PARK, Answerer, Root, Run
from agentloop.config import AgentConfig
from agentloop.context import AgentBase
from agentloop.errors import AgentLoopError, ChildLimitError, InternalError, RunError, StreamStateError, UsageError
from agentloop.events import (
    ChildStreamStarted,
    ChildStreamStopped,
    ErrorInfo,
    Question,
    Source,
    StreamEvent,
    StreamStarted,
    StreamStopped,
)
from agentloop.hooks import OnError, SessionEnd, SubagentStop
from agentloop.messages import AssistantMessage, Prompt, Usage, UserMessage, user_message
from agentloop.models import Model
from agentloop.outcome import ChildStream, Outcome, QuestionHandler, error_of
from agentloop.questions import Answer

__all__ = ["Stream", "open_stream"]


class Stream:
    """A running stream: read it, answer its questions, stop it. Valid inside the block that opened it.

    Reading it (``async for event in stream``) gives every event up to `StreamStopped`, which always comes, once.
    After that the loop ends, or raises the error that made the run fail. Leaving the block, in whatever way,
    stops the run and returns when everything that it started has ended.
    """

    __slots__ = ("_error_told", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._error_told = False

    @property
    def id(self) -> str:
        """The stream's id, unique."""
        return self._run.source.stream

    @property
    def source(self) -> Source:
        """The origin that its events carry."""
        return self._run.source

    @property
    def usage(self) -> Usage:
        """Usage of the stream and its children so far."""
        return self._run.meter.usage

    @property
    def pending(self) -> tuple[Question, ...]:
        """The questions that are open now, here and in child streams, oldest first."""
        return questions.pending(self._run)

    @property
    def outcome(self) -> Outcome:
        """How the run ended.

        Raises:
          StreamStateError: it has not.
        """
        if self._run.outcome is None:
            raise StreamStateError(f"stream {self.id!r} is still running: read it to its end, or await wait()")
        return self._run.outcome

    @property
    def result(self) -> Outcome:
        """The outcome of a run that has a result.

        Raises:
          StreamStateError: the run has not ended.
          AgentLoopError: it ended without a result: what made it fail, or `CancelledRunError`, `BlockedError`,
            `LimitReachedError`.
        """
        outcome = self.outcome
        error = error_of(outcome)
        if error is not None:
            raise error
        return outcome

    def answer(self, question_id: str, answer: Answer, /) -> None:
        """Answer an open question of this stream, or of a stream inside it, by its id, exactly once.

        Any task may answer, in any order. It does not wait.

        Raises:
          UnknownQuestionError: the question is not open.
          InvalidAnswerError: the answer is of the wrong class, or does not fit the form; the question stays open.
        """
        questions.answer(self._run, question_id, answer)

    def steer(self, message: Prompt, /) -> None:
        """Have the model read ``message`` with its next request: after the tool calls that run now, if any.

        A run that would stop continues with it. Any task may call this; it does not wait. Messages that the run ends
        without reading are in ``outcome.undelivered``.

        Raises:
          StreamStateError: the run has ended, or 20 such messages wait already.
          UsageError: the message is empty.
        """
        self._run.mailbox.steer(user_message(message))

    def follow_up(self, message: Prompt, /) -> None:
        """Continue with ``message`` when the run would stop. Each of several gets an answer of its own, in order.

        Raises as `steer` does.
        """
        self._run.mailbox.follow_up(user_message(message))

    def stop(self, detail: str = "") -> None:
        """End the run, with reason ``cancelled``. The reader still gets every event up to the last one.

        Args:
          detail: why; it becomes `StreamStopped.detail`.
        """
        if not self._run.stopped:
            self._run.stopped = True
            self._run.stop_detail = detail
        self._run.scope.cancel()

    def park(self) -> None:
        """Leave open and future questions to the process that resumes the run: see `Agent.resume`.

        Work that does not wait for an answer continues. When the run is idle, it ends, with reason ``needs_input``; it
        may also end for another reason before. Questions that go to a handler still do.

        Raises:
          UsageError: the session has no journal; or this is a child stream, which is parked with the one around it.
        """
        run = self._run
        if run.parent is not None or run.waits is None:
            why = "it is a child stream" if run.parent is not None else "its session has no journal"
            raise UsageError(f"stream {self.id!r} cannot be parked: {why}")
        _allow_parking(run, run.waits)
        run.root.questions.leave_to_resume()

    async def wait(self) -> Outcome:
        """Wait for the end of the run without reading: unread and future events are dropped.

        Without a reader, questions that would go to it are declined. Raises nothing for a run that failed; see
        `result`.
        """
        if self._run.events is not None:
            self._run.events.close()
        if self._run.parent is None:
            self._run.root.questions.lose_reader()
        await self._run.ended.wait()
        return self.outcome

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> StreamEvent:
        events = self._run.events
        if events is None or events.is_closed:
            raise self._not_read()
        # An event that is there already is returned without a switch between tasks.
        event = events.take()
        if event is not None:
            return event
        try:
            return await events.wait()
        except trio.EndOfChannel:
            pass
        except trio.ClosedResourceError:
            # Another task has called wait(), or left the block, while this one was waiting.
            raise self._not_read() from None
        # Outside of the handler: there, the end of a channel would become the context of the run's own error.
        raise self._end()

    def _end(self) -> BaseException:
        """The error that ends the reader's loop. A failed run raises its error once: it must not look finished."""
        error = self._run.outcome.error if self._run.outcome else None
        if error is None or self._error_told:
            return StopAsyncIteration()
        self._error_told = True
        return error

    def _not_read(self) -> StreamStateError:
        return StreamStateError(f"stream {self.id!r} is not read: its block was left, or wait() was called")

    def __repr__(self) -> str:
        state = "running" if self._run.outcome is None else self._run.outcome.reason
        return f"<Stream {self.id} of {' > '.join(self.source.agents)}: {state}>"


# ----------------------------------------------------------------------------- opening


def open_stream(
    config: AgentConfig,
    prompt: UserMessage | None,
    *,
    transcript: Transcript,
    journal: Journal | None,
    deps: Any,
    answerer: Answerer | None,
    read: bool,
    resolve: Callable[[AgentConfig], tuple[Model, ...]],
) -> AbstractAsyncContextManager[Stream]:
    """A root stream. What is wrong with the arguments is raised here, before anything has started.

    Args:
      prompt: ``None`` to go on with what is unfinished in the session.
    """
    root = Root(deps=deps, session=transcript, journal=journal, open_child=_open_child, resolve=resolve)
    models = resolve(config)

    def make(stream_id: str) -> Run:
        message, unfinished = _taken_up(journal, transcript) if prompt is None else (prompt, None)
        run = Run(
            config=config,
            models=models,
            prompt=message,
            root=root,
            transcript=transcript,
            source=Source(transcript.id, stream_id, (config.name,)),
            read=read,
            unfinished=unfinished,
        )
        if answerer == PARK:
            assert run.waits is not None
            _allow_parking(run, run.waits)
        return run

    return _running(transcript, make, answerer, root, resumes=prompt is None)


def _taken_up(journal: Journal | None, transcript: Transcript) -> tuple[UserMessage, StreamState]:
    unfinished = None if journal is None else journal.take_up()
    if unfinished is None:
        raise UsageError(
            f"nothing is unfinished in session {transcript.id!r}: start a stream on it with a prompt, as stream() and "
            "run() do"
        )
    return unfinished.prompt, unfinished


def _open_child(
    parent: Run,
    call_id: str,
    patience: Patience,
    agent: AgentBase,
    prompt: Prompt,
    on_question: QuestionHandler | None,
    read: bool,
) -> AbstractAsyncContextManager[ChildStream]:
    """A stream inside a tool call of ``parent``, in a session of its own."""
    if not isinstance(agent, AgentConfig):
        raise UsageError(f"a child stream is opened on an Agent, not on {agent!r}")
    _check_lineage(parent, agent)
    root = parent.root
    message, models = user_message(prompt), root.resolve(agent)
    past = _opened_before(parent, call_id, agent, message)
    if past is None:
        parent.children += 1
        transcript = Transcript(f"{parent.source.stream}.{parent.children}")
    else:
        transcript = Transcript(past.session, past.messages)
        transcript.streams = past.openings
        for id, text in past.long_results.items():
            transcript.kept.keep(id, text)

    def make(stream_id: str) -> Run:
        source = Source(transcript.id, stream_id, (*parent.source.agents, agent.name), parent.source.stream)
        return Run(
            config=agent,
            models=models,
            prompt=message,
            root=root,
            transcript=transcript,
            source=source,
            read=read,
            parent=parent,
            call_id=call_id,
            patience=patience,
            unfinished=past,
        )

    if past is not None and past.is_over:
        return _ended(make(past.stream), past)
    return _running(transcript, make, on_question)


def _opened_before(parent: Run, call_id: str, agent: AgentConfig, message: UserMessage) -> StreamState | None:
    """The child stream that the call had opened at this place, in the run that ``parent`` resumes."""
    if parent.waits is None:
        return None
    place = parent.waits.opened.get(call_id, 0)
    parent.waits.opened[call_id] = place + 1
    call = None if parent.unfinished is None else parent.unfinished.calls.get(call_id)
    if call is None or place >= len(call.children):
        return None
    past = call.children[place]
    if past.agent == agent.name and past.prompt == message:
        return past
    # The call has gone another way from here on.
    del call.children[place:]
    return None


@asynccontextmanager
async def _ended(run: Run, past: StreamState) -> AsyncGenerator[Stream]:
    """A child stream that ended in the previous run: it is neither run again nor emitted again."""
    assert past.reason is not None
    output: Any = None
    error: RunError | None = None
    if past.reason == "completed":
        last = past.messages[-1]
        assert isinstance(last, AssistantMessage)
        output = output_type(run.config.output_type).decode(last.text)
    elif past.reason == "failed":
        error = RunError(past.detail)
    messages = tuple(past.messages)
    run.outcome = Outcome(
        reason=past.reason, detail=past.detail, output=output, error=error, usage=past.usage, messages=messages
    )
    run.mailbox.close()
    run.ended.set()
    with closing(run):
        run.writer.close()
        yield Stream(run)
    await trio.lowlevel.checkpoint()


def _check_lineage(parent: Run, agent: AgentConfig) -> None:
    """Raise `ChildLimitError` if ``agent`` may not run inside ``parent``."""
    at: Run | None = parent
    depth = 1
    while at is not None:
        problem = ""
        if at.config is agent:
            problem = "it is running there already, and would go round in a circle"
        elif depth > at.config.limits.depth:
            problem = f"agent {at.config.name!r} allows {at.config.limits.depth} levels below it (Limits.depth)"
        if problem:
            raise ChildLimitError(agent=agent.name, path=parent.source.agents, reason=problem)
        at = at.parent
        depth += 1


@contextmanager
def _session(transcript: Transcript) -> Generator[str]:
    stream_id = transcript.claim()
    try:
        yield stream_id
    finally:
        transcript.release()


def _inside(run: Run) -> AbstractContextManager[None]:
    """For as long as ``run`` has not ended, the call that opened it is about as far as it is."""
    if run.parent is None or run.parent.waits is None or run.waits is None:
        return nullcontext()
    return run.parent.waits.inside(run.call_id, run.waits)


def _allow_parking(run: Run, waits: Waits) -> None:
    run.root.questions.allow_parking(lambda: waits.is_waiting, run.scope.cancel)


@contextmanager
def _question_scope(run: Run, answerer: Answerer | None) -> Generator[None]:
    parent = run.parent.source.stream if run.parent else None
    run.root.questions.push(run.source.stream, parent=parent, answerer=answerer)
    try:
        yield
    finally:
        run.root.questions.pop(run.source.stream)


async def _open_log(root: Root, *, resumes: bool) -> EventLog:
    """The log of a root run, which continues the numbers of its session."""
    if root.journal is None:
        return EventLog(seq=root.session.seq)
    return await root.journal.open_log(resumes=resumes)


def _close_log(root: Root) -> None:
    root.log.close()
    # The journal may be further already: it has been read again, and has ended what had no end there.
    root.session.seq = max(root.session.seq, root.log.seq)


@asynccontextmanager
async def _running(
    transcript: Transcript,
    make: Callable[[str], Run],
    answerer: Answerer | None,
    root: Root | None = None,
    *,
    resumes: bool = False,
) -> AsyncGenerator[Stream]:
    try:
        with _session(transcript) as stream_id:
            if root is not None:
                root.log = await _open_log(root, resumes=resumes)
            try:
                run = make(stream_id)
                with _question_scope(run, answerer), closing(run):
                    async with trio.open_nursery() as nursery:
                        if run.own_observers:
                            events = run.writer.open_reader()
                            nursery.start_soon(observe, events, run.own_observers, run.source.stream)
                        nursery.start_soon(_main, run)
                        yield Stream(run)
                        nursery.cancel_scope.cancel()
            finally:
                if root is not None:
                    _close_log(root)
    except BaseExceptionGroup as group:
        raise_single(group)


# ------------------------------------------------------------------------ the one task


async def _main(run: Run) -> None:
    """Run the loop, then end the stream: on every way out of it, and the same way on each."""
    try:
        with _inside(run):
            await _live(run)
    finally:
        # Also when an interrupt has torn the ending apart: observers wait for it.
        run.writer.close()


async def _live(run: Run) -> None:
    _tell_start(run)
    ending: Ending | None = None
    error: BaseException | None = None
    try:
        # Entering a scope costs as much as emitting four events, so the time limit has one only if there is a limit.
        with run.scope, nullcontext() if run.config.limits.seconds is None else run.patience.scope:
            ending = await play(run)
            await flush(run)
    # Not swallowed: what is no plain failure is raised again below, when the stream has ended.
    except BaseException as raised:  # noqa: ASYNC103, BLE001
        error = raised
    undelivered = run.mailbox.close()
    try:
        outcome = _conclude(run, ending, error)
    except Exception as bug:  # noqa: BLE001 - ours, and no reason to leave a reader without an end
        outcome = Outcome(reason="failed", detail=str(bug), error=_as_bug(bug))
    if undelivered:
        outcome = evolve(outcome, undelivered=undelivered)
    if isinstance(outcome.error, Exception):
        await run.hooks.tell_at_the_end("on_error", OnError(run.source, outcome.error))
    await run.hooks.tell_at_the_end("session_end", SessionEnd(run.source, outcome.reason))
    if run.parent is not None:
        ended = SubagentStop(run.parent.source, run.source, outcome.reason)
        await run.parent.hooks.tell_at_the_end("subagent_stop", ended)
    plain, rest = (None, None) if error is None else split_plain(error)
    if plain is not None and outcome.error is None:
        told = single(plain)
        problem = f"while the run was stopped: {type(told).__name__}: {told}"
        run.warn("error_while_stopping", problem, logged="an error while the run was stopped", error=told)
    _tell_outcome(run, outcome)
    await settle(run)
    if run.root.journal is not None:
        # Messages that could not be saved are not part of the session.
        last = len(run.transcript) - run.transcript.provisional
        run.outcome = evolve(outcome, messages=run.transcript.messages[run.first_index : last])
    _end(run)
    if rest is not None:
        try:
            raise rest
        finally:
            del error, plain, rest, outcome


def _conclude(run: Run, ending: Ending | None, error: BaseException | None) -> Outcome:
    """The outcome, from how the scopes ended. Cancelled wins; nothing is carried over from earlier turns."""
    usage, messages = run.meter.usage, run.transcript.messages[run.first_index :]
    if run.root.questions.is_parked:
        # Parking was decided when the run was idle; an error or a cancel that comes now is too late, as an answer would
        # be.
        parked = run.root.questions.parked if run.parent is None else ()
        return Outcome(reason="needs_input", questions=parked, usage=usage, messages=messages)
    cancelled = run.stopped or trio.current_effective_deadline() == -float("inf")
    if cancelled or (error is not None and is_cancellation(error)):
        return Outcome(reason="cancelled", detail=run.stop_detail, usage=usage, messages=messages)
    if run.patience.ran_out:
        detail = f"seconds: the {run.config.limits.seconds:g} s are over"
        return Outcome(reason="limit", detail=detail, usage=usage, messages=messages)
    if error is not None:
        told = single(error)
        if isinstance(told, Exception) and not isinstance(told, AgentLoopError):
            told = _as_bug(told)
        return Outcome(reason="failed", detail=str(told), error=told, usage=usage, messages=messages)
    assert ending is not None
    return Outcome(reason=ending.reason, detail=ending.detail, output=ending.output, usage=usage, messages=messages)


def _as_bug(error: Exception) -> InternalError:
    bug = InternalError(f"a bug in agentloop, please report it: {type(error).__name__}: {error}")
    bug.__cause__ = error
    return bug


def _tell_start(run: Run) -> None:
    message, model = run.prompt, run.models[0].name
    resumes = "" if run.unfinished is None else run.unfinished.stream
    if run.parent is None:
        run.emit(StreamStarted, message=message, model=model, resumes=resumes)
    else:
        run.emit(ChildStreamStarted, call_id=run.call_id, message=message, model=model, resumes=resumes)


def _tell_outcome(run: Run, outcome: Outcome) -> None:
    """Set the outcome, and emit the last event. Waits for nothing, so nothing can get in between."""
    run.outcome = outcome
    error = None if outcome.error is None else ErrorInfo(type(outcome.error).__name__, str(outcome.error))
    reason, detail, usage = outcome.reason, outcome.detail, outcome.usage
    if isinstance(outcome.error, InternalError):
        log(RUN, logging.ERROR, "stream %r: a bug in agentloop", run.source.stream, error=outcome.error)
    elif outcome.error is not None:
        log(RUN, logging.WARNING, "stream %r: the run failed: %s", run.source.stream, type(outcome.error).__name__)
    if run.parent is None:
        run.emit(StreamStopped, reason=reason, detail=detail, error=error, usage=usage)
    else:
        run.emit(ChildStreamStopped, call_id=run.call_id, reason=reason, detail=detail, error=error, usage=usage)


def _end(run: Run) -> None:
    """End the reader's loop."""
    run.writer.close()
    run.ended.set()
