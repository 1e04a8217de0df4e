"""Questions: which are open, who can answer them, and which answer fits. Everything that decides about them is here.

**Scopes, not a slot.** Each run pushes one scope, whose parent is the scope of the run that it was opened in. A
question goes to the nearest scope, inside out, that has an answerer. Scopes know their parents instead of "the one
before", so siblings that run at once, and runs that end in the order in which they began, cannot disturb each other.
Each root run has a `Questions` of its own: two root runs share nothing.

**States.** A question is asked, is open, and leaves that state once::

    new ---> open ---> answered     an answer fitted; it goes to the task that asks, whatever happens to that task next
                  ---> declined     nobody can be asked
                  ---> withdrawn    the task that asked it was cancelled, or failed
                  ---> parked       the root run ends, and the run that resumes it asks again

`AskedQuestion.on_change` is called at the instant of each change, so that its event is emitted at that instant.

**Parking.** A question is *deferred* once no handler and no reader of this run will answer it, but a later run may.
When a question is deferred and nothing else in the tree of runs goes on by itself (`Questions.allow_parking` names the
judge of that), all deferred questions are parked and the root run is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from copy import deepcopy
from typing import Generic, Literal, TypeAlias, TypeVar, cast, get_args

import msgspec

from agentloop._core.field_checks import FieldError, checked
from agentloop._core.forms import fill
from agentloop._core.permissions import Call, covers
from agentloop.errors import InvalidAnswerError, UnknownQuestionError
from agentloop.events import ApprovalRequested, ContinueRequested, ElicitationRequested, Question, Source
from agentloop.permissions import Glob, Rule
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
from agentloop.safety import SafetyLevel

__all__ = [
    "AnsweredBy",
    "AskedQuestion",
    "QuestionState",
    "Questions",
    "check_always",
    "check_answer",
    "copy_of",
]

AnsweredBy: TypeAlias = Literal["reader", "handler", "rule"]

QuestionState: TypeAlias = Literal["new", "open", "answered", "declined", "withdrawn", "parked"]

A = TypeVar("A")
"""The type of answerers: any."""


def _nothing() -> None:
    pass


NOBODY = "Nobody is there to be asked."
"""The reason why a question is declined where it has no answerer."""

HANDLER_FAILED = "The handler that was to answer failed."
"""The reason where the last answerer was a handler that raised, or gave an answer that does not fit."""


class AskedQuestion:
    """A question, from the moment it is asked to the moment it is closed.

    A kind of question with rules of its own (an approval) overrides `check`, `accept` and `is_granted`.
    """

    __slots__ = ("answer", "by", "event", "on_change", "refusal", "state")

    def __init__(self, event: Question) -> None:
        self.event = event
        """The question as its reader gets it. Its ``id`` is set when it is opened, its ``seq`` when it is emitted."""
        self.state: QuestionState = "new"
        self.answer: Answer | None = None
        """The answer as it was accepted."""
        self.by: AnsweredBy = "reader"
        """The side that gave the answer."""
        self.refusal = NOBODY
        """Why there is no answer, if it is declined."""
        self.on_change: Callable[[], None] = _nothing
        """Called when the state has changed, or when the question may be about to be parked. Must not raise."""

    @property
    def id(self) -> str:
        """The id by which it is answered."""
        return self.event.id

    @property
    def scope(self) -> str:
        """The run that asks."""
        return self.event.stream

    @property
    def call_id(self) -> str:
        """The tool call that asks; empty if the run itself does."""
        return "" if isinstance(self.event, ContinueRequested) else self.event.call_id

    def is_open(self) -> bool:
        """Whether it can be answered."""
        return self.state == "open"

    def numbered(self, source: Source, seq: int) -> Question:
        """Its event, with the place in order that the event is emitted at."""
        self.event = msgspec.structs.replace(self.event, source=source, seq=seq)
        return copy_of(self.event)

    def check(self, answer: Answer) -> Answer:
        """The answer as it is accepted. Raises `InvalidAnswerError`."""
        return check_answer(self.event, answer)

    def accept(self) -> None:
        """Called once, at the instant at which ``answer`` was accepted. Must not raise."""

    def settle(self, answer: Answer) -> None:
        """Answer a question that need not be asked any more, before it is opened."""
        assert self.state == "new", self.state
        self.answer, self.by, self.state = answer, "rule", "answered"

    def is_granted(self) -> bool:
        """Whether a person has by now approved for good the thing that it asks for."""
        return False


_NO_IDS: frozenset[str] = frozenset()
"""Shared, since the sets of most runs stay empty, and each would take 216 bytes."""


class _Scope(Generic[A]):
    __slots__ = ("answerer", "granted", "parent", "questions")

    def __init__(self, parent: str | None, answerer: A | None) -> None:
        self.parent = parent
        self.answerer = answerer
        self.questions: dict[str, AskedQuestion] = {}
        """The open ones, by id."""
        self.granted = _NO_IDS
        """Ids of questions that a rule has answered, perhaps before a reader got them."""


class Questions(Generic[A]):
    """The scopes and the open questions of one root run and of all runs inside it."""

    __slots__ = (
        "_deferred",
        "_has_reader",
        "_held",
        "_is_idle",
        "_open",
        "_scopes",
        "_stop",
        "is_left_to_resume",
        "is_parked",
        "parked",
        "wake_held",
    )

    def __init__(self) -> None:
        self._scopes: dict[str, _Scope[A]] = {}
        self._open: dict[str, AskedQuestion] = {}
        """By id, oldest first."""
        self._deferred = _NO_IDS
        """Ids of the open questions that only a later run can be given answers to."""
        self._is_idle: Callable[[], bool] | None = None
        self._stop: Callable[[], None] = _nothing
        self._has_reader = True
        """Whether the root run has a reader, who may answer."""
        self.is_left_to_resume = False
        """Whether the reader leaves its questions to the run that resumes this one."""
        self.is_parked = False
        """Whether the root run is ending, to be resumed."""
        self.parked: tuple[Question, ...] = ()
        """The questions that it is parked with, oldest first."""
        self._held = 0
        """The tasks that hold since their run is paused."""
        self.wake_held: Callable[[], None] = _nothing
        """Wakes them. Must not raise."""

    # ------------------------------------------------------------------------------ scopes

    def push(self, scope: str, *, parent: str | None, answerer: A | None) -> None:
        """Open ``scope`` inside ``parent``. ``answerer`` answers the questions asked in it, if there is one."""
        assert scope not in self._scopes, scope
        assert parent is None or parent in self._scopes, parent
        self._scopes[scope] = _Scope(parent, answerer)

    def pop(self, scope: str) -> None:
        """Close ``scope``. Its open questions end with it."""
        for id, question in self._scopes.pop(scope).questions.items():
            del self._open[id]
            self._deferred -= {id}
            question.state = "withdrawn"

    def answerers(self, scope: str) -> list[A]:
        """The answerers of a question of ``scope``, nearest first."""
        answerers: list[A] = []
        name: str | None = scope
        while name is not None:
            here = self._scopes[name]
            if here.answerer is not None:
                answerers.append(here.answerer)
            name = here.parent
        return answerers

    def is_within(self, scope: str, ancestor: str) -> bool:
        """Whether ``scope`` is ``ancestor`` or lies inside it."""
        name: str | None = scope
        while name is not None:
            if name == ancestor:
                return True
            name = self._scopes[name].parent
        return False

    @property
    def scopes(self) -> dict[str, str | None]:
        """Each open scope with its parent, oldest first. For checks."""
        return {name: scope.parent for name, scope in self._scopes.items()}

    # -------------------------------------------------------------------------- the states

    def open(self, question: AskedQuestion) -> None:
        """Add a question to its scope: from now on it can be answered."""
        assert question.id not in self._open, question.id
        question.state = "open"
        self._open[question.id] = question
        self._scopes[question.scope].questions[question.id] = question

    def is_open(self, id: str, *, within: str) -> bool:
        """Whether question ``id`` is open, in scope ``within`` or in one inside it."""
        question = self._open.get(id)
        return question is not None and self.is_within(question.scope, within)

    @property
    def open_count(self) -> int:
        """How many questions are open."""
        return len(self._open)

    def pending(self, scope: str) -> tuple[Question, ...]:
        """The open questions of ``scope`` and of all scopes inside it, oldest first; none once it is closed."""
        return tuple(copy_of(asked.event) for asked in self._open.values() if self.is_within(asked.scope, scope))

    def answer(self, id: str, answer: Answer, *, by: AnsweredBy) -> None:
        """Answer question ``id``, once. On an error, the question stays as it was.

        Raises:
          UnknownQuestionError: it is not open.
          InvalidAnswerError: the answer does not fit it.
        """
        question = self._open.get(id)
        if question is None:
            raise UnknownQuestionError(given=id, open_ids=tuple(self._open))
        question.answer, question.by = question.check(answer), by
        self._close(question, "answered")
        # A deferred question may wait for the task whose question is answered here.
        self.notify()
        question.accept()

    def check(self, id: str, answer: Answer) -> Answer:
        """``answer`` as question ``id`` would accept it. Raises as `answer` does."""
        question = self._open.get(id)
        if question is None:
            raise UnknownQuestionError(given=id, open_ids=tuple(self._open))
        return question.check(answer)

    def answer_granted(self, answer: Answer) -> None:
        """Give ``answer`` to every open question that asks for a thing that a person has approved for good by now."""
        for question in [question for question in self._open.values() if question.is_granted()]:
            self._scopes[question.scope].granted |= {question.id}
            self.answer(question.id, answer, by="rule")

    def was_granted(self, id: str, scope: str) -> bool:
        """Whether a rule answered ``id``, a question of ``scope`` or of one inside it that has not been closed."""
        return any(id in self._scopes[name].granted and self.is_within(name, scope) for name in self._scopes)

    def withdraw(self, question: AskedQuestion) -> None:
        """Close ``question`` unanswered, since the task that asked it ends. A closed one stays as it is."""
        if question.is_open():
            self._close(question, "withdrawn")

    def decline(self, question: AskedQuestion) -> None:
        """Close ``question`` unanswered, because no answerer is left. A closed one stays as it is."""
        if question.is_open():
            self._close(question, "declined")

    def _close(self, question: AskedQuestion, state: QuestionState) -> None:
        del self._open[question.id]
        del self._scopes[question.scope].questions[question.id]
        self._deferred -= {question.id}
        question.state = state
        question.on_change()

    # -------------------------------------------------------------------------- the reader

    def lose_reader(self) -> None:
        """The root run has no reader any more: the questions that wait for one need not."""
        self._has_reader = False
        self._wake_all()

    def leave_to_resume(self) -> None:
        """From now on, the questions that would wait for the reader wait for the run that resumes this one."""
        self.is_left_to_resume = True
        self._wake_all()
        self.wake_held()

    def waits_for_reader(self) -> bool:
        """Whether the reader of the root run may still answer."""
        return self._has_reader and not self.is_left_to_resume

    def _wake_all(self) -> None:
        for question in list(self._open.values()):
            question.on_change()

    # ----------------------------------------------------------------------------- parking

    def allow_parking(self, is_idle: Callable[[], bool], stop: Callable[[], None]) -> None:
        """Let the root run be parked.

        Args:
          is_idle: whether the whole tree of runs is idle.
          stop: stops the root run.
        """
        self._is_idle, self._stop = is_idle, stop

    @contextmanager
    def deferred(self, question: AskedQuestion) -> Generator[None]:
        """While the block runs, only a later run can be given the answer to ``question``."""
        self._deferred |= {question.id}
        try:
            yield
        finally:
            self._deferred -= {question.id}

    @contextmanager
    def holding(self) -> Generator[None]:
        """While the block runs, a task holds, since its run is paused."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def notify(self) -> None:
        """Something has ended, begun to wait, or been answered: wake what a later run can continue.

        These are the tasks whose questions are deferred, and those that hold. Each then calls `park_if_idle`, once the
        tasks that waited for the change have had a chance to run.
        """
        for id in list(self._deferred):
            self._open[id].on_change()
        if self._held:
            self.wake_held()

    def park_if_idle(self) -> None:
        """Park, if the tree of runs is idle. One that is paused, and asks nothing, is parked if it is to be."""
        waits = self._deferred or (self._held and self.is_left_to_resume)
        if not waits or self.is_parked or self._is_idle is None or not self._is_idle():
            return
        self.is_parked = True
        questions = [question for id, question in self._open.items() if id in self._deferred]
        self.parked = tuple(copy_of(question.event) for question in questions)
        for question in questions:
            self._close(question, "parked")
        self._stop()


def copy_of(question: Question) -> Question:
    """``question`` for user code: what that writes into the form or the arguments changes neither run nor journal."""
    if isinstance(question, ElicitationRequested):
        return msgspec.structs.replace(question, form=deepcopy(question.form))
    if isinstance(question, ApprovalRequested):
        return msgspec.structs.replace(
            question, arguments=deepcopy(question.arguments), metadata=deepcopy(question.metadata)
        )
    return question


# ------------------------------------------------------------------- which answer fits


def check_answer(question: Question, answer: Answer) -> Answer:
    """The answer as it is accepted, as far as that can be said from the question alone.

    Returns:
      The answer as it is; that to an elicitation with the form's defaults filled in.

    Raises:
      InvalidAnswerError: it is of the wrong kind, or its content does not fit the form.
    """
    if isinstance(cast("object", answer), Answer):
        try:
            answer = checked(type(answer), answer)
        except FieldError as error:
            raise InvalidAnswerError(question=question.id, problem=str(error)) from error
    match question:
        case ElicitationRequested():
            if isinstance(answer, (Decline, Cancel)):
                return answer
            if not isinstance(answer, Accept):
                raise _wrong_kind(question, answer, "Accept, Decline or Cancel")
            try:
                return Accept(fill(question.form, answer.content))
            except ValueError as error:
                raise InvalidAnswerError(question=question.id, problem=str(error)) from error
        case ApprovalRequested():
            if not isinstance(answer, (Approve, Deny)):
                raise _wrong_kind(question, answer, "Approve or Deny")
        case ContinueRequested():
            if not isinstance(answer, (Approve, Deny)):
                raise _wrong_kind(question, answer, "Approve or Deny")
            if isinstance(answer, Approve) and not isinstance(answer.always, bool):
                problem = "a limit is no tool call, which a rule could match"
                raise InvalidAnswerError(question=question.id, problem=problem)
    return answer


def check_always(question: str, always: object, call: Call) -> None:
    """Check that ``Approve.always`` covers no more than a person who approves ``call`` can mean.

    Raises:
      InvalidAnswerError: not a bool, nor a level of safety, nor a rule for this tool that certainly matches ``call``;
        or its wildcards match characters that a shell obeys.
    """
    if isinstance(always, bool) or always in get_args(SafetyLevel):
        return
    problem = ""
    if not isinstance(always, Rule):
        problem = f"always={always!r}: give True, False, 'safe', 'safer', or a Rule"
    elif always.tool != call.tool:
        problem = f"always={always}: it is for other tools than {call.tool!r}"
    elif any(isinstance(condition, Glob) and condition.allow_shell_characters for condition in always.where.values()):
        problem = f"always={always}: allow_shell_characters=True is for rules that are written beforehand"
    elif not covers(always, call, certainly=True):
        problem = f"always={always}: it does not match the call that it is to approve"
    if problem:
        raise InvalidAnswerError(question=question, problem=problem)


def _wrong_kind(question: Question, answer: object, wanted: str) -> InvalidAnswerError:
    if isinstance(answer, type):
        problem = f"it wants {wanted}, not the class {answer.__name__}: write {answer.__name__}(...)"
    else:
        problem = (
            f"it wants {wanted}, not {type(answer).__name__}: write {wanted.partition(',')[0].partition(' ')[0]}()"
        )
    return InvalidAnswerError(question=question.id, problem=problem)
