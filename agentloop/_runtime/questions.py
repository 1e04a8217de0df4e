"""Asking a question, and waiting for its answer for as long as it takes."""

from __future__ import annotations

from functools import partial

import msgspec
import trio

from agentloop._core.questions import HANDLER_FAILED, AskedQuestion, copy_of
from agentloop._runtime.blocks import PausableDeadline
from agentloop._runtime.call_order import Arrivals
from agentloop._runtime.exception_groups import is_cancellation
from agentloop._runtime.run import PARK, READER, Run
from agentloop._runtime.user_code import UserCodeError, call_user_code
from agentloop.errors import AnswerError, ArgumentsError, UnknownQuestionError
from agentloop.events import Question, QuestionAnswered, QuestionDeclined, QuestionParked, QuestionWithdrawn
from agentloop.hooks import Notification
from agentloop.outcome import QuestionHandler
from agentloop.questions import Accept, Answer, Approve

__all__ = ["answer", "ask", "pending"]


async def ask(run: Run, question: AskedQuestion, deadline: PausableDeadline | None = None) -> Answer | None:
    """Ask ``question``, and wait for the answer.

    Handlers and readers are asked from the inside out; one that passes makes room for the next. If the run resumes one
    that got an answer to this question, the answer is the same, at once.

    Args:
      question: a new one; its event has no id and no number yet.
      deadline: stands still meanwhile; that of the run if left out.

    Returns:
      The answer; ``None`` if there was none: ``question.refusal`` says why.
    """
    if run.redactor is not None:
        question.event = run.redactor.value(question.event)
    waiter = _Waiter(run, question)
    question.on_change = waiter.on_change
    try:
        with (run.deadline if deadline is None else deadline).paused():
            await _open_in_call_order(run, question)
            # A question whose answer is on record is closed already.
            if question.is_open():
                await _wait_for_answer(waiter)
            if question.state == "parked":
                # Parked while this task was about to run: the run is being stopped, and the cancel is felt here. If the
                # tool continued, it would take it that nobody can be asked, and its question would be lost.
                await trio.lowlevel.checkpoint()
    except BaseException as error:
        # An answer that was accepted goes to the asker even so; the next checkpoint is where the cancel is felt.
        if question.state == "answered" and is_cancellation(error):
            return question.answer  # noqa: ASYNC104 - see above
        run.root.questions.withdraw(question)
        raise
    run.root.questions.decline(question)
    return question.answer


class _Waiter:
    """A task that waits for the answer to its question."""

    __slots__ = ("changed", "handler", "question", "run")

    def __init__(self, run: Run, question: AskedQuestion) -> None:
        self.run = run
        self.question = question
        self.changed = trio.Event()
        """Set when the question is closed, its reader has left, or the tree of runs may be about to be parked."""
        self.handler: trio.CancelScope | None = None
        """The cancel scope of the handler that is running, if any."""

    def on_change(self) -> None:
        # Emitted by the task that closes the question, at that instant: the asker may be cancelled before it runs.
        question, run = self.question, self.run
        match question.state:
            case "answered":
                assert question.answer is not None
                run.emit(QuestionAnswered, id=question.id, answer=question.answer, by=question.by)
            case "declined":
                run.emit(QuestionDeclined, id=question.id, note=question.refusal)
            case "withdrawn":
                run.emit(QuestionWithdrawn, id=question.id)
            case "parked":
                run.emit(QuestionParked, id=question.id)
                # Not woken: the root run is being stopped, and the asker with it. If the asker continued, it would get
                # no answer.
                return
            case _:
                pass
        self.changed.set()
        if not question.is_open() and self.handler is not None:
            self.handler.cancel()


async def _wait_for_answer(waiter: _Waiter) -> None:
    """Return when the question is closed, or when no answerer is left."""
    run, question = waiter.run, waiter.question
    questions = run.root.questions
    await run.hooks.notify("notification", Notification(run.source, copy_of(question.event)))
    for answerer in questions.answerers(run.source.stream):
        if not question.is_open():
            return
        if answerer == READER:
            while question.is_open() and questions.waits_for_reader():
                waiter.changed = trio.Event()
                await waiter.changed.wait()
            if question.is_open() and questions.is_left_to_resume:
                if not _can_resume(run, question):
                    return
                await _wait_for_resumption(waiter)
        elif answerer == PARK:
            if not _can_resume(run, question):
                return
            await _wait_for_resumption(waiter)
        else:
            await _ask_handler(waiter, answerer)


def _can_resume(run: Run, question: AskedQuestion) -> bool:
    """Whether the run that resumes this tree comes to the question again. It does not run a hook of this one again."""
    if question.event.background:
        return False
    if run.is_of_hook:
        question.refusal = LEFT_BY_HOOK
        return False
    return True


LEFT_BY_HOOK = "Nobody can be asked: a run that a hook has started cannot be parked until somebody answers."
"""The reason why a question in the run of a hook is declined where people answer only after the run is parked."""


async def _wait_for_resumption(waiter: _Waiter) -> None:
    """Return when the question is closed: most likely parked, so that another run will have the answer."""
    run, question = waiter.run, waiter.question
    questions = run.root.questions
    # Deferred only now: while a handler runs, the run is not idle.
    with run.state.waiting(question.call_id), questions.deferred(question):
        while question.is_open():
            waiter.changed = trio.Event()
            # A task that waited for the change, for its turn say, counts as waiting until it runs.
            for _ in range(2):
                await trio.lowlevel.checkpoint()
                if not question.is_open():
                    return
            if not waiter.changed.is_set():
                questions.park_if_idle()
            await waiter.changed.wait()


async def _ask_handler(waiter: _Waiter, handler: QuestionHandler) -> None:
    """Have ``handler`` answer, or pass the question on. An answer by id meanwhile is as good."""
    run, question = waiter.run, waiter.question
    waiter.handler = trio.CancelScope()
    try:
        reply = await call_user_code(waiter.handler, handler, copy_of(question.event))
        if reply is not None and question.is_open():
            run.root.questions.answer(question.id, reply, by="handler")
    except (UserCodeError, AnswerError) as error:
        if question.is_open():
            question.refusal = HANDLER_FAILED
            short = f"the handler of question {question.id!r} failed"
            # An answer that does not fit is not the handler's exception, and its error names the answer.
            cause = error.__cause__ if isinstance(error, UserCodeError) else None
            logged = short if cause is not None else f"{short}: {type(error).__name__}"
            run.warn("handler_failed", f"{short}: {error}", logged=logged, error=cause)
    finally:
        waiter.handler = None


# --------------------------------------------------------------------------- opening


async def _open_in_call_order(run: Run, question: AskedQuestion) -> None:
    """Open ``question``, after those of earlier calls of the same turn, and of earlier calls of the turns around it."""
    position: list[int] = []
    asking_run: Run | None = run
    # The call of a question that is passed on is of another run.
    is_passed_on = bool(question.event.background)
    call_id = "" if is_passed_on else question.call_id
    while asking_run is not None:
        position.append(-1 if asking_run.call_order is None else asking_run.call_order.position_of(call_id))
        call_id, asking_run = asking_run.call_id, asking_run.parent
    if run.root.arrivals is None:
        run.root.arrivals = Arrivals()
    order = None if is_passed_on else run.call_order
    await run.root.arrivals.open(partial(_open, run, question), tuple(reversed(position)), order, question.call_id)


def _open(run: Run, question: AskedQuestion) -> None:
    """Open ``question``, and emit it; answer it, if its answer is on record."""
    if question.is_granted():
        # While it waited for its turn, the answer to another one has approved the call for good.
        question.settle(Approve())
        return
    while True:
        state = run.state
        recorded = state.questions_of(question.event).previous(question.event)
        id = f"{state.stream}?{state.question_count + 1}" if recorded is None else recorded.question.id
        answer = None if recorded is None else recorded.answer
        question.event = msgspec.structs.replace(question.event, id=id)
        # Open before it is emitted: the answer may come before the next line runs.
        run.root.questions.open(question)
        run.emit(question.numbered)
        if run.call_order is not None and not question.event.background:
            run.call_order.settle(question.call_id)
        if answer is None or _answer_as_before(run, question, answer):
            return


def _answer_as_before(run: Run, question: AskedQuestion, answer: Answer) -> bool:
    """Give an open question the answer that is on record. If that does not fit any more, the question is closed."""
    try:
        if run.redactor is not None and isinstance(answer, Accept):
            # An answer that was saved has placeholders. If this process does not know the secret, the person is asked.
            answer = Accept(run.redactor.put_back(answer.content))
        run.root.questions.answer(question.id, answer, by="reader")
    except (AnswerError, ArgumentsError) as error:
        # The answer fitted when it was recorded; the permissions, say, have changed since.
        run.root.questions.withdraw(question)
        run.warn(
            "answer_refused",
            f"the answer to {question.id!r} counts for nothing: {error}",
            logged=f"question {question.id!r}",
        )
        return False
    return True


# -------------------------------------------------------------------- from the outside


def answer(run: Run, id: str, reply: Answer) -> None:
    """Answer an open question of ``run``, or of a run inside it, for its reader.

    To approve what a rule has just approved, perhaps before the question was read, changes nothing, and is no error.

    Raises:
      UnknownQuestionError, InvalidAnswerError: the question, if there is one, stays as it was.
    """
    questions, scope = run.root.questions, run.source.stream
    if questions.is_open(id, within=scope):
        questions.answer(id, reply, by="reader")
    elif not (isinstance(reply, Approve) and reply.arguments is None and questions.was_granted(id, scope)):
        raise UnknownQuestionError(given=id, open_ids=[question.id for question in pending(run)])


def pending(run: Run) -> tuple[Question, ...]:
    """The open questions of ``run`` and of all runs inside it, oldest first; none once it has ended."""
    return run.root.questions.pending(run.source.stream)
