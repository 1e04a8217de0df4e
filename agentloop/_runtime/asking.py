"""Parking a task until its question is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import trio
from attrs import evolve

from agentloop._core.elicitation import AnsweredBy, OpenQuestion
from agentloop._core.state import QuestionRecord, asker
from agentloop._runtime.foreign import ForeignError, call_foreign
from agentloop._runtime.groups import is_cancellation
from agentloop._runtime.logs import QUESTIONS, log_event
from agentloop._runtime.patience import Patience
from agentloop._runtime.run import PARK, READER, Run
from agentloop.errors import AnswerError, UnknownQuestionError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    Question,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    QuestionWithdrawn,
    Source,
)
from agentloop.hooks import Notification
from agentloop.outcome import QuestionHandler
from agentloop.questions import Answer, Approve

__all__ = ["NOBODY", "answer", "ask", "pending"]

NOBODY = "Nobody is there to be asked."

Q = TypeVar("Q", ElicitationRequested, ApprovalRequested, ContinueRequested)


async def ask(
    run: Run,
    patience: Patience,
    build: Callable[[Source, int, str], Q],
    check: Callable[[Q, Answer], Answer],
    *,
    accepted: Callable[[Answer], None] = lambda answer: None,
    is_granted: Callable[[], bool] = lambda: False,
) -> Answer | None:
    """Ask a question, and wait for the answer for as long as it takes.

    Handlers and readers are asked from the inside out; one that passes makes room for the next.

    Args:
      patience: what stands still meanwhile.
      build: makes the question from its source, its number and its id.
      check: gives the answer as it is accepted, or raises `InvalidAnswerError`.
      accepted: is called with the answer at the instant at which it is accepted. Must not raise.
      is_granted: whether a person has allowed for good, by now, what is asked for.

    Returns:
      The answer; ``None`` if there was nobody to ask.
    """
    past = None if run.waits is None else _past(run, build)
    if past is None:
        run.questions += 1
        id = f"{run.source.stream}?{run.questions}"
    else:
        id = past.question.id
    question = build(run.source, 0, id)
    waiting = _Waiting()

    def wake(answer: Answer, by: AnsweredBy) -> None:
        # Told by whoever answers, at that instant: an answer that was accepted is never lost to a cancel.
        run.emit(QuestionAnswered, id=id, answer=answer, by=by)
        waiting.stop()
        run.root.parking.answered(id)
        accepted(answer)

    def tell(source: Source, seq: int) -> Q:
        # The last feed is the root's: `pending` lists the events that the root's reader has read.
        opened.question = told = build(source, seq, id)
        return told

    opened: OpenQuestion = OpenQuestion(
        question, run.source.stream, lambda answer: check(question, answer), wake, is_granted
    )
    tree = run.root.tree
    # Open before it is told: the answer may come before the next line runs.
    tree.ask(opened)
    run.emit(tell)
    if QUESTIONS.isEnabledFor(logging.DEBUG):
        log_event(question)
    if past is not None and past.answer is not None:
        if not _answer_as_before(run, id, past, past.answer):
            return await ask(run, patience, build, check, accepted=accepted, is_granted=is_granted)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return opened.answer
    try:
        with patience.held():
            await _wait_for_answer(run, opened, waiting)
    except BaseException as error:
        if opened.is_parked:
            raise
        # The answer goes to the asker even so; the next checkpoint is where the cancel is felt.
        if opened.answer is not None and is_cancellation(error):
            return opened.answer  # noqa: ASYNC104 - see above
        tree.withdraw(id)
        run.emit(QuestionWithdrawn, id=id)
        raise
    if opened.answer is None:
        tree.withdraw(id)
        run.emit(QuestionDeclined, id=id, note=NOBODY)
    return opened.answer


class _Waiting:
    """A task that waits for an answer, perhaps in a handler."""

    __slots__ = ("answered", "changed", "handler")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.changed = trio.Event()
        """Set when the tree of streams may be about to be parked, or need not be any more."""
        self.handler: trio.CancelScope | None = None
        """That of the handler that is thinking now, if any."""

    def look(self) -> None:
        self.changed.set()

    def stop(self) -> None:
        self.answered.set()
        self.changed.set()
        if self.handler is not None:
            self.handler.cancel()


async def _wait_for_answer(run: Run, opened: OpenQuestion, waiting: _Waiting) -> None:
    """Return when ``opened`` is answered, or when there is nobody left to ask."""
    await run.hooks.tell("notification", Notification(run.source, opened.question))
    for answerer in run.root.tree.answerers(run.source.stream):
        if waiting.answered.is_set():
            return
        if answerer == READER:
            await run.root.reader.wait_for_answer(waiting.answered)
            if run.root.reader.parks and not waiting.answered.is_set():
                await _wait_for_resumption(run, opened, waiting)
        elif answerer == PARK:
            await _wait_for_resumption(run, opened, waiting)
        else:
            await _ask_handler(run, answerer, opened, waiting)


async def _wait_for_resumption(run: Run, opened: OpenQuestion, waiting: _Waiting) -> None:
    """Return when ``opened`` is answered; most likely the stream ends before, and another one will have the answer."""

    def park() -> None:
        # From now on it is the next stream that can be given an answer.
        opened.is_parked = True
        run.root.tree.withdraw(opened.question.id)
        run.emit(QuestionParked, id=opened.question.id)

    assert run.waits is not None
    # Not before: as long as a handler thinks, something goes on.
    parking = run.root.parking
    waits = run.waits.waiting(getattr(opened.question, "call_id", ""))
    with waits, parking.waiting(opened.question, park, waiting.look):
        while not waiting.answered.is_set():
            waiting.changed = trio.Event()
            # Whoever waited for what has just happened, for its turn say, counts as waiting until its task runs.
            for _ in range(2):
                await trio.lowlevel.checkpoint()
                if waiting.answered.is_set():
                    return
            if not waiting.changed.is_set():
                parking.check()
            await waiting.changed.wait()


def _past(run: Run, build: Callable[[Source, int, str], Question]) -> QuestionRecord | None:
    """The question, if it was asked already at this point in the stream that this one goes on from."""
    assert run.waits is not None
    question = build(run.source, 0, "")
    by = asker(question)
    place = run.waits.asked.get(by, 0)
    run.waits.asked[by] = place + 1
    if run.unfinished is None:
        return None
    before = run.unfinished.questions_of(question).records
    if place >= len(before):
        return None
    past = before[place]
    if evolve(past.question, source=question.source, seq=0, id="") == question:
        return past
    # What was answered is another question. So the call has gone another way, and no later answer is for it either.
    del before[place:]
    return None


def _answer_as_before(run: Run, id: str, past: QuestionRecord, answer: Answer) -> bool:
    """Give an open question the answer that is on record. If that does not fit any more, the question is closed."""
    try:
        run.root.tree.answer(id, answer, by="reader")
    except AnswerError as error:
        # It fitted when it was given; the permissions, say, have changed since.
        run.root.tree.withdraw(id)
        run.emit(QuestionWithdrawn, id=id)
        run.warn("answer_refused", f"the answer to {id!r} counts for nothing: {error}", logged=f"question {id!r}")
        _forget(run, past)
        return False
    return True


def _forget(run: Run, past: QuestionRecord) -> None:
    """Ask anew what was asked as ``past``, and whatever came after it."""
    assert run.unfinished is not None
    assert run.waits is not None
    by = asker(past.question)
    before = run.unfinished.questions_of(past.question).records
    del before[before.index(past) :]
    run.waits.asked[by] -= 1


async def _ask_handler(run: Run, handler: QuestionHandler, opened: OpenQuestion, waiting: _Waiting) -> None:
    """Have ``handler`` answer, or pass the question on. Somebody who answers by id meanwhile is as good."""
    id = opened.question.id
    waiting.handler = trio.CancelScope()
    try:
        given = await call_foreign(waiting.handler, handler, opened.question)
        if given is not None and opened.answer is None:
            run.root.tree.answer(id, given, by="handler")
    except (ForeignError, AnswerError) as error:
        if opened.answer is None:
            short = f"the handler of question {id!r} failed"
            # An answer that does not fit is no exception of the handler, and its error says what was answered.
            cause = error.__cause__ if isinstance(error, ForeignError) else None
            logged = short if cause is not None else f"{short}: {type(error).__name__}"
            run.warn("handler_failed", f"{short}: {error}", logged=logged, error=cause)
    finally:
        waiting.handler = None


def answer(run: Run, id: str, given: Answer) -> None:
    """Answer an open question of ``run``, or of a stream inside it, for whoever reads it.

    To approve what a rule has just approved, perhaps before the question was read, changes nothing, and is no error.

    Raises:
      UnknownQuestionError, InvalidAnswerError: the question, if there is one, stays as it was.
    """
    here = [question.id for question in pending(run)]
    if id not in here:
        if isinstance(given, Approve) and given.arguments is None and run.root.tree.was_granted(id, run.source.stream):
            return
        raise UnknownQuestionError(given=id, open_ids=here)
    run.root.tree.answer(id, given, by="reader")


def pending(run: Run) -> tuple[Question, ...]:
    """The open questions of ``run`` and of all streams inside it, oldest first; none once it has ended."""
    return run.root.tree.pending(run.source.stream)
