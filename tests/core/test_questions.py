"""The questions of a run, compared with something obviously right: a dict of parents and a list of questions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from agentloop._core.questions import AnsweredBy, AskedQuestion, Questions
from agentloop.errors import InvalidAnswerError, UnknownQuestionError
from agentloop.events import ContinueRequested, Source
from agentloop.questions import Answer, Approve, Deny

WOKEN = list[tuple[str, Answer | None, AnsweredBy]]


class Asked(AskedQuestion):
    """A question that takes `Approve`, as another one, and refuses all other answers."""

    def __init__(self, id: str, scope: str, woken: WOKEN) -> None:
        super().__init__(ContinueRequested(Source("s", scope, ("a",)), 0, id=id, limit="turns", used=1, allowed=1))
        self.woken = woken
        self.on_change = self.wake

    def check(self, answer: Answer) -> Answer:
        if not isinstance(answer, Approve):
            raise InvalidAnswerError(question=self.id, problem="no")
        return Approve(always=True)

    def wake(self) -> None:
        if self.state == "answered":
            self.woken.append((self.id, self.answer, self.by))


class Tree(RuleBasedStateMachine):
    """Scopes are opened inside any other and closed once nothing is inside them: in every order that blocks allow."""

    scopes: Bundle[str] = Bundle("scopes")
    questions: Bundle[str] = Bundle("questions")

    def __init__(self) -> None:
        super().__init__()
        self.tree: Questions[str] = Questions()
        self.parents: dict[str, str | None] = {}
        self.answerers: dict[str, str | None] = {}
        self.open: list[tuple[str, str]] = []
        """Question id and scope, oldest first."""
        self.asked: dict[str, Asked] = {}
        self.woken: WOKEN = []
        self.expected: WOKEN = []
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return str(self.count)

    def above(self, scope: str | None) -> list[str]:
        """``scope`` and all around it, inside out."""
        found = []
        while scope is not None:
            found.append(scope)
            scope = self.parents[scope]
        return found

    @initialize(target=scopes, answerer=st.sampled_from([None, "someone"]))
    def open_root(self, answerer: str | None) -> str:
        self.tree.push("root", parent=None, answerer=answerer)
        self.parents["root"], self.answerers["root"] = None, answerer
        return "root"

    @rule(target=scopes, parent=scopes, answers=st.booleans())
    def open_scope(self, parent: str, answers: bool) -> str | MultipleResults[str]:
        if parent not in self.parents:
            return multiple()
        scope = self.name()
        answerer = f"of {scope}" if answers else None
        self.tree.push(scope, parent=parent, answerer=answerer)
        self.parents[scope], self.answerers[scope] = parent, answerer
        return scope

    @rule(scope=scopes)
    def close_scope(self, scope: str) -> None:
        if scope in self.parents and scope not in self.parents.values():
            self.tree.pop(scope)
            del self.parents[scope], self.answerers[scope]
            self.open = [one for one in self.open if one[1] != scope]

    @rule(target=questions, scope=scopes)
    def ask(self, scope: str) -> str | MultipleResults[str]:
        if scope not in self.parents:
            return multiple()
        id = self.name()
        self.asked[id] = Asked(id, scope, self.woken)
        self.tree.open(self.asked[id])
        self.open.append((id, scope))
        return id

    def is_open(self, id: str) -> bool:
        return any(one[0] == id for one in self.open)

    @rule(id=questions, by=st.sampled_from(["reader", "handler"]))
    def answer(self, id: str, by: AnsweredBy) -> None:
        if self.is_open(id):
            self.tree.answer(id, Approve(), by=by)
            self.open = [one for one in self.open if one[0] != id]
            self.expected.append((id, Approve(always=True), by))
        else:
            with pytest.raises(UnknownQuestionError) as raised:
                self.tree.answer(id, Approve(), by=by)
            assert raised.value.open_ids == tuple(one[0] for one in self.open)

    @rule(id=questions)
    def answer_wrongly(self, id: str) -> None:
        error = InvalidAnswerError if self.is_open(id) else UnknownQuestionError
        with pytest.raises(error):
            self.tree.answer(id, Deny(), by="reader")

    @rule(id=consumes(questions))
    def withdraw(self, id: str) -> None:
        self.tree.withdraw(self.asked[id])
        self.open = [one for one in self.open if one[0] != id]

    @precondition(lambda self: self.parents)
    @invariant()
    def the_scopes_are_those_that_are_open(self) -> None:
        assert self.tree.scopes == self.parents

    @invariant()
    def each_scope_finds_those_who_can_answer_inside_out(self) -> None:
        for scope in self.parents:
            answerers = (self.answerers[one] for one in self.above(scope))
            assert self.tree.answerers(scope) == [one for one in answerers if one is not None]

    @invariant()
    def each_scope_lists_what_is_open_in_it_and_inside_it_oldest_first(self) -> None:
        for scope in self.parents:
            inside = [id for id, asker in self.open if scope in self.above(asker)]
            assert [question.id for question in self.tree.pending(scope)] == inside

    @invariant()
    def each_question_is_open_in_its_scope_and_in_those_around_it_and_in_no_other(self) -> None:
        open = dict(self.open)
        for id, question in self.asked.items():
            assert question.is_open() == (id in open)
            around = self.above(open[id]) if id in open else []
            for scope in self.parents:
                assert self.tree.is_open(id, within=scope) == (scope in around)

    @invariant()
    def each_answer_has_reached_its_asker_once(self) -> None:
        assert self.woken == self.expected


TestTree = Tree.TestCase
TestTree.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# ----------------------------------------------------------- what can be said in one example


def make_tree(parents: dict[str, str | None]) -> Questions[str]:
    tree: Questions[str] = Questions()
    for scope, parent in parents.items():
        tree.push(scope, parent=parent, answerer=None)
    return tree


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_siblings_end_in_any_order_and_the_tree_is_what_it_was(order: str) -> None:
    """A slot that saves "the one before" is right only for the last to come and the first to go."""
    tree = make_tree({"root": None, "a": "root", "b": "root"})
    for scope in order:
        tree.pop(scope)
    assert tree.scopes == {"root": None}


def test_an_answer_that_does_not_fit_leaves_its_question_open() -> None:
    tree, woken = make_tree({"root": None}), WOKEN()
    question = Asked("q", "root", woken)
    tree.open(question)
    with pytest.raises(InvalidAnswerError):
        tree.answer("q", Deny(), by="reader")
    assert (woken, question.answer, len(tree.pending("root"))) == ([], None, 1)
    tree.answer("q", Approve(), by="reader")
    assert question.answer == Approve(always=True)


def test_a_question_is_closed_before_its_asker_wakes() -> None:
    """Whoever it wakes may look at what is open, or ask again."""
    tree, open_then = make_tree({"root": None}), list[int]()
    question = Asked("q", "root", [])
    question.on_change = lambda: open_then.append(len(tree.pending("root")))
    tree.open(question)
    tree.answer("q", Approve(), by="handler")
    assert open_then == [0]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tree: tree.push("root", parent=None, answerer=None),
        lambda tree: tree.push("new", parent="closed", answerer=None),
        lambda tree: [tree.open(Asked("q", "root", [])) for _ in range(2)],
    ],
    ids=["the same scope twice", "inside a scope that is closed", "the same question twice"],
)
def test_a_tree_does_not_take_what_would_corrupt_it(wrong: Callable[[Questions[str]], object]) -> None:
    tree = make_tree({"root": None})
    with pytest.raises(AssertionError):
        wrong(tree)
