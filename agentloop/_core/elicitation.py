"""The elicitation stack: who is asked, by whom, and what is still open. A tree of scopes, not a slot.

Each stream pushes one scope, whose parent is the scope of the stream that it was opened in. A question goes to the
nearest scope, inside out, that has somebody to answer. As scopes know their parents instead of "the one before",
siblings that run at once, and streams that end in the order in which they began, cannot disturb each other.
One tree belongs to one root stream: two runs share nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, TypeAlias, TypeVar

from agentloop.errors import UnknownQuestionError
from agentloop.events import Question
from agentloop.questions import Answer

__all__ = ["AnsweredBy", "ElicitationTree", "OpenQuestion"]

AnsweredBy: TypeAlias = Literal["reader", "handler", "rule"]

A = TypeVar("A")
"""Whoever can answer: to the tree, any value."""


class _Scope(Generic[A]):
    __slots__ = ("answerer", "parent", "questions")

    def __init__(self, parent: str | None, answerer: A | None) -> None:
        self.parent = parent
        self.answerer = answerer
        self.questions: dict[str, OpenQuestion] = {}


class OpenQuestion:
    """A question from the moment it is asked to the moment it is answered or withdrawn."""

    __slots__ = ("answer", "check", "is_granted", "is_parked", "question", "scope", "wake")

    def __init__(
        self,
        question: Question,
        scope: str,
        check: Callable[[Answer], Answer],
        wake: Callable[[Answer, AnsweredBy], None],
        is_granted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.question = question
        self.scope = scope
        self.check = check
        """Gives the answer as it is accepted, or raises `InvalidAnswerError`."""
        self.wake = wake
        """Called once, with the answer as it was accepted, when the question is answered. Must not raise."""
        self.is_granted = is_granted
        """Whether a person has allowed for good, by now, what it asks for."""
        self.answer: Answer | None = None
        self.is_parked = False
        """Whether the next stream will have the answer."""


class ElicitationTree(Generic[A]):
    """The scopes and open questions of one root stream and all streams inside it."""

    __slots__ = ("_granted", "_questions", "_scopes")

    def __init__(self) -> None:
        self._granted: dict[str, str] = {}
        """By id, the scopes of questions that were answered by a rule, perhaps before anybody had read them."""
        self._scopes: dict[str, _Scope[A]] = {}
        self._questions: dict[str, OpenQuestion] = {}

    def push(self, scope: str, *, parent: str | None, answerer: A | None) -> None:
        """Open ``scope`` inside ``parent``. ``answerer`` is whoever can answer there, if anybody."""
        assert scope not in self._scopes, scope
        assert parent is None or parent in self._scopes, parent
        self._scopes[scope] = _Scope(parent, answerer)

    def pop(self, scope: str) -> None:
        """Close ``scope``. Its open questions end with it."""
        for id in self._scopes.pop(scope).questions:
            del self._questions[id]
        for id in [id for id, where in self._granted.items() if where == scope]:
            del self._granted[id]

    def answerers(self, scope: str) -> list[A]:
        """Those who can answer a question of ``scope``, nearest first."""
        found: list[A] = []
        at: str | None = scope
        while at is not None:
            here = self._scopes[at]
            if here.answerer is not None:
                found.append(here.answerer)
            at = here.parent
        return found

    def ask(self, open_question: OpenQuestion) -> None:
        """Add a question to its scope: from now on it can be answered."""
        id = open_question.question.id
        assert id not in self._questions, id
        self._questions[id] = open_question
        self._scopes[open_question.scope].questions[id] = open_question

    def answer(self, id: str, answer: Answer, *, by: AnsweredBy) -> None:
        """Answer question ``id``, once. On an error, the question stays as it was.

        Raises:
          UnknownQuestionError: it is not open.
          InvalidAnswerError: the answer does not fit it.
        """
        found = self._questions.get(id)
        if found is None:
            raise UnknownQuestionError(given=id, open_ids=tuple(self._questions))
        found.answer = found.check(answer)
        self._remove(found)
        found.wake(found.answer, by)

    def answer_granted(self, answer: Answer) -> None:
        """Give ``answer`` to every question that asks for what a person has allowed for good, meanwhile."""
        for found in [each for each in self._questions.values() if each.is_granted()]:
            self._granted[found.question.id] = found.scope
            self.answer(found.question.id, answer, by="rule")

    def was_granted(self, id: str, scope: str) -> bool:
        """Whether ``id``, of ``scope`` or of one inside it, was answered by a rule; while its scope is open."""
        return id in self._granted and self.is_within(self._granted[id], scope)

    def withdraw(self, id: str) -> None:
        """Close question ``id`` unanswered. One that is not open any more stays as it is."""
        found = self._questions.get(id)
        if found is not None:
            self._remove(found)

    def _remove(self, question: OpenQuestion) -> None:
        id = question.question.id
        del self._questions[id]
        del self._scopes[question.scope].questions[id]

    def is_within(self, scope: str, ancestor: str) -> bool:
        """Whether ``scope`` is ``ancestor`` or lies inside it."""
        at: str | None = scope
        while at is not None:
            if at == ancestor:
                return True
            at = self._scopes[at].parent
        return False

    def pending(self, scope: str) -> tuple[Question, ...]:
        """The open questions of ``scope`` and of all scopes inside it, oldest first; none once it is closed."""
        return tuple(found.question for found in self._questions.values() if self.is_within(found.scope, scope))

    @property
    def scopes(self) -> dict[str, str | None]:
        """Each open scope with its parent, oldest first. For checks."""
        return {name: scope.parent for name, scope in self._scopes.items()}
