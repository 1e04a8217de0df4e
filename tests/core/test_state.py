"""The state of a run: what may follow what, and what a resumed run continues from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given, settings, strategies as st

from agentloop._core import state as states
from agentloop._core.state import (
    CALL_TABLE,
    MAY_HAVE_RUN,
    NOTES,
    QUESTION_TABLE,
    STREAM_TABLE,
    Fact,
    LimitRaised,
    RunBlocked,
    SessionState,
    StreamPhase,
    StreamState,
    ToolStarted,
    TurnOpened,
    ValueRemembered,
)
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    ContinueRequested,
    ElicitationRequested,
    MessageCommitted,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    QuestionWithdrawn,
    Source,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallFinished,
    ToolCallParked,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
    UsageReported,
)
from agentloop.messages import AssistantMessage, Text, ToolCall, ToolResult, Usage, UserMessage
from agentloop.questions import Accept, Approve, Decline

ROOT = Source("s", "s/1", ("agent",))
AGAIN = Source("s", "s/2", ("agent",))
CHILD = Source("s/1.1", "s/1.1/1", ("agent", "inner"), "s/1")
GO = UserMessage((Text("go"),))
ASKS = AssistantMessage((ToolCall("c1", "work", "{}"), ToolCall("c2", "work", "{}")))


class Log:
    """Applies facts to a state, and numbers the events."""

    def __init__(self, source: Source = ROOT) -> None:
        self.state = StreamState()
        self.source = source
        self.seq = 0

    def event(self, kind: Callable[..., StreamEvent], **fields: Any) -> Log:
        self.seq += 1
        self.state.apply(kind(self.source, self.seq, **fields))
        return self

    def note(self, note: states.Note) -> Log:
        self.state.apply(note)
        return self

    def started(self, resumes: str = "") -> Log:
        return self.event(StreamStarted, message=GO, model="m", resumes=resumes)

    def in_turn(self) -> Log:
        """Started, prompted, and with two calls that run."""
        self.started().event(MessageCommitted, message=GO, index=0).event(TurnStarted, turn=1)
        self.note(TurnOpened(ASKS))
        return self.calls()

    def calls(self) -> Log:
        for id in ("c1", "c2"):
            self.event(ToolCallStarted, call_id=id, name="work", arguments="{}")
        return self

    def asked(self, id: str, call_id: str = "c1", message: str = "?") -> Log:
        return self.event(ElicitationRequested, id=id, call_id=call_id, message=message, form={})

    def parked(self, *questions: str) -> Log:
        for id in questions:
            self.event(QuestionParked, id=id)
        for id in ("c1", "c2"):
            self.event(ToolCallParked, call_id=id, name="work")
        self.event(TurnFinished, turn=1, reason="needs_input")
        return self.event(StreamStopped, reason="needs_input")

    def resumed(self) -> Log:
        before, self.source = self.source.stream, AGAIN
        return self.started(before).event(TurnStarted, turn=1).calls()


def result(id: str) -> ToolResult:
    return ToolResult(id, "work", (Text("done"),))


# ------------------------------------------------------------------------------ tables


def test_every_event_and_every_note_has_a_place_in_the_tables() -> None:
    facts = {fact for row in STREAM_TABLE.values() for fact in row}
    of_sessions = {states.TurnAbandoned, states.SessionRewound, states.SessionSettings}
    assert facts == ({*get_args(StreamEvent), *NOTES.values()} - of_sessions)


@pytest.mark.parametrize("table", [CALL_TABLE, QUESTION_TABLE])
def test_the_tables_of_calls_and_questions_know_the_same_facts_as_that_of_streams(table: Any) -> None:
    assert {fact for row in table.values() for fact in row} <= {fact for row in STREAM_TABLE.values() for fact in row}


def test_a_run_that_follows_the_tables_has_no_complaints() -> None:
    log = Log().in_turn().event(TextDelta, text="x")
    for id in ("c1", "c2"):
        log.event(ToolCallFinished, call_id=id, name="work", result=result(id), elapsed=0.0)
    for index, message in enumerate((ASKS, result("c1"), result("c2")), start=1):
        log.event(MessageCommitted, message=message, index=index)
    log.event(TurnFinished, turn=1, reason="tool_calls").event(StreamStopped, reason="limit")

    assert log.state.complaints == []
    assert log.state.phase is StreamPhase.STOPPED
    assert log.state.is_over


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (lambda log: log.event(TurnStarted, turn=2), "cannot follow while its stream is in a turn"),
        (lambda log: log.event(ToolCallStarted, call_id="c1", name="work", arguments=""), "was started before"),
        (lambda log: log.note(ToolStarted("c3")), "call 'c3' is not open"),
        (lambda log: log.asked("q1", "c3"), "call 'c3' is not open"),
        (lambda log: log.asked("q1").asked("q1"), "question 'q1' was asked before"),
        (lambda log: log.event(QuestionAnswered, id="q1", answer=Accept(), by="reader"), "question 'q1' is not open"),
        (lambda log: log.event(TurnFinished, turn=1, reason="final"), "leaves open: call 'c1', call 'c2'"),
        (lambda log: log.event(StreamStopped, reason="completed"), "leaves open: a turn, call 'c1', call 'c2'"),
        (lambda log: log.event(MessageCommitted, message=ASKS, index=1), "leaves open: call 'c1', call 'c2'"),
        (lambda log: log.event(MessageCommitted, message=GO, index=2), "has index 2, where 1 is due"),
    ],
    ids=[
        "a turn in a turn",
        "a call twice",
        "the tool of an unknown call",
        "a question of an unknown call",
        "a question twice",
        "an answer to no question",
        "a turn that ends before its calls",
        "a stream that ends before its turn",
        "a turn that is committed before its calls end",
        "a message at the wrong index",
    ],
)
def test_a_fact_that_the_tables_do_not_allow_is_a_complaint_and_never_an_error(
    break_it: Callable[[Log], Log], problem: str
) -> None:
    log = break_it(Log().in_turn())

    assert any(problem in complaint for complaint in log.state.complaints), log.state.complaints


def test_a_loop_of_complaints_does_not_fill_the_memory() -> None:
    log = Log()
    for _ in range(1000):
        log.event(TextDelta, text="x")

    assert len(log.state.complaints) == states.MOST_COMPLAINTS


def any_fact() -> st.SearchStrategy[Fact]:
    ids, calls = st.sampled_from(["q1", "q2"]), st.sampled_from(["c1", "c2"])
    sources = st.sampled_from([ROOT, AGAIN, CHILD])

    def event(kind: Any, **fields: Any) -> st.SearchStrategy[Fact]:
        return st.builds(kind, sources, st.just(1), **fields)

    return st.one_of(
        event(StreamStarted, message=st.just(GO), model=st.just("m"), resumes=st.sampled_from(["", "s/1"])),
        event(ChildStreamStarted, call_id=calls, message=st.just(GO), model=st.just("m")),
        event(StreamStopped, reason=st.sampled_from(["completed", "needs_input", "interrupted"])),
        event(ChildStreamStopped, call_id=calls, reason=st.sampled_from(["completed", "interrupted"])),
        event(TurnStarted, turn=st.integers(1, 2)),
        event(TurnFinished, turn=st.integers(1, 2), reason=st.just("final")),
        event(MessageCommitted, message=st.sampled_from([GO, ASKS, result("c1")]), index=st.integers(0, 2)),
        event(UsageReported, usage=st.just(Usage()), total=st.just(Usage())),
        event(ToolCallStarted, call_id=calls, name=st.just("work"), arguments=st.just("")),
        event(ToolCallFinished, call_id=calls, name=st.just("work"), result=calls.map(result), elapsed=st.just(0.0)),
        event(ToolCallParked, call_id=calls, name=st.just("work")),
        event(ElicitationRequested, id=ids, call_id=calls, message=st.just("?"), form=st.just({})),
        event(
            ApprovalRequested,
            id=ids,
            call_id=calls,
            name=st.just("work"),
            arguments=st.just({}),
            reason=st.sampled_from(["", MAY_HAVE_RUN]),
        ),
        event(ContinueRequested, id=ids, limit=st.just("turns"), used=st.just(1.0), allowed=st.just(1.0)),
        event(QuestionAnswered, id=ids, answer=st.just(Approve()), by=st.just("reader")),
        event(QuestionDeclined, id=ids, note=st.just("no")),
        event(QuestionWithdrawn, id=ids),
        event(QuestionParked, id=ids),
        st.just(TurnOpened(ASKS)),
        calls.map(ToolStarted),
        calls.map(lambda call_id: ValueRemembered(call_id, "n", b"1")),
        st.just(LimitRaised("s/1", "turns", 5.0)),
        calls.map(lambda call_id: RunBlocked(call_id, "enough")),
    )


@settings(max_examples=300)
@given(st.lists(any_fact(), max_size=40))
def test_facts_in_any_order_are_applied_without_an_error(facts: list[Fact]) -> None:
    session = SessionState()
    for fact in facts:
        session.apply(fact, "s/1")
        if session.run is not None:
            assert session.run.is_idle in (True, False)
            assert all(session.run.find_question(question.id) for question in session.run.open_questions)
    for kind, source, fields in list(session.ends()):
        session.apply(kind(source, 1, **fields))
    assert session.running == {}


# ------------------------------------------------------------------------------ resuming


def test_a_call_that_is_made_again_finds_its_questions_in_order() -> None:
    log = Log().in_turn().asked("q1", message="first")
    log.event(QuestionAnswered, id="q1", answer=Accept({"a": 1}), by="reader").asked("q2", message="second")
    log.parked("q2").resumed()

    asked = log.state.calls["c1"].questions
    first = asked.previous(ElicitationRequested(AGAIN, 0, id="", call_id="c1", message="first", form={}))
    assert first is not None
    assert first.answer == Accept({"a": 1})
    log.asked("q1", message="first")
    assert asked.previous(ElicitationRequested(AGAIN, 0, id="", call_id="c1", message="other", form={})) is None
    assert log.state.complaints == []


def test_questions_that_were_open_at_once_are_found_in_any_order_and_each_once() -> None:
    log = Log().in_turn().asked("q1", message="first").asked("q2", message="second")
    log.parked("q1", "q2").resumed()

    asked = log.state.calls["c1"].questions
    second = ElicitationRequested(AGAIN, 0, id="", call_id="c1", message="second", form={})
    found = asked.previous(second)
    assert found is not None
    assert found.question.id == "q2"
    log.asked("q2", message="second")
    assert asked.previous(second) is None
    assert asked.previous(ElicitationRequested(AGAIN, 0, id="", call_id="c1", message="first", form={})) is not None


def test_a_call_that_takes_another_way_loses_the_answers_that_were_for_the_old_one() -> None:
    log = Log().in_turn().asked("q1", message="first")
    log.event(QuestionAnswered, id="q1", answer=Accept(), by="reader").asked("q2").parked("q2").resumed()

    log.asked("q3", message="another")
    assert log.state.open_questions == [log.state.calls["c1"].questions.records[-1].question]
    log.event(QuestionAnswered, id="q3", answer=Accept(), by="reader")

    assert [record.question.id for record in log.state.calls["c1"].questions.records] == ["q3"]


def test_an_answer_that_was_given_and_is_refused_later_counts_for_nothing() -> None:
    """The permissions have changed: the call is asked about anew, and the new answer is its own."""
    log = Log().in_turn()
    approval = {"call_id": "c1", "name": "work", "arguments": {}}
    log.event(ApprovalRequested, id="q1", **approval)
    log.event(QuestionAnswered, id="q1", answer=Approve(), by="reader").asked("q2").parked("q2").resumed()

    log.event(ApprovalRequested, id="q1", **approval).event(QuestionWithdrawn, id="q1")
    log.event(ApprovalRequested, id="q9", **approval)

    assert [question.id for question in log.state.open_questions] == ["q9"]
    log.event(QuestionAnswered, id="q9", answer=Approve(), by="reader")
    assert [record.question.id for record in log.state.calls["c1"].questions.records] == ["q9"]


def test_a_tool_that_was_declined_is_declined_again() -> None:
    log = Log().in_turn().asked("q1").event(QuestionDeclined, id="q1", note="nobody").asked("q2").parked("q2")

    [first, second] = log.state.calls["c1"].questions.records
    assert first.answer == Decline("nobody")
    assert second.is_open


def test_a_raised_limit_is_not_asked_about_once_more() -> None:
    log = Log().started()
    log.event(ContinueRequested, id="q1", limit="turns", used=1.0, allowed=1.0)
    log.event(QuestionAnswered, id="q1", answer=Approve(), by="reader").note(LimitRaised("s/1", "turns", 2.0))

    assert log.state.allowed == {"turns": 2.0}
    assert log.state.questions.records == []


def test_a_new_turn_forgets_the_questions_of_the_run_itself() -> None:
    log = Log().started()
    log.event(ContinueRequested, id="q1", limit="turns", used=1.0, allowed=1.0)
    log.event(QuestionDeclined, id="q1", note="").event(TurnStarted, turn=1)

    assert log.state.questions.records == []


@pytest.mark.parametrize(("started", "unknown"), [(False, False), (True, True)])
def test_the_outcome_of_a_call_is_unknown_if_its_process_died_after_the_tool_began(
    started: bool, unknown: bool
) -> None:
    log = Log().in_turn()
    if started:
        log.note(ToolStarted("c1"))
    for id in ("c1", "c2"):
        log.event(ToolCallParked, call_id=id, name="work")
    log.event(TurnFinished, turn=1, reason="interrupted").event(StreamStopped, reason="interrupted")

    assert log.state.calls["c1"].outcome_unknown is unknown
    assert [message.status for message in log.state.closing if isinstance(message, ToolResult)] == ["interrupted"] * 2


# ---------------------------------------------------------------------------------- idle


def is_idle(state: StreamState) -> bool:
    return state.is_idle


def test_a_run_is_idle_when_each_of_its_calls_waits_for_a_person() -> None:
    state = Log().in_turn().state
    with state.waiting("c1"):
        assert not is_idle(state)
        with state.waiting("c2"):
            assert is_idle(state)
        assert not is_idle(state)


def test_a_call_with_a_child_is_idle_when_the_child_is() -> None:
    log = Log().in_turn()
    child = StreamState(log.state, "c1")
    child.apply(ChildStreamStarted(CHILD, 9, call_id="c1", message=GO, model="m"))
    with log.state.waiting("c2"), log.state.waiting("c1"):
        assert not is_idle(log.state)
        with child.waiting(""):
            assert is_idle(log.state)
        child.apply(ChildStreamStopped(CHILD, 10, call_id="c1", reason="completed"))
        assert is_idle(log.state)
    assert log.state.complaints == []


def test_what_a_child_uses_counts_for_the_runs_around_it() -> None:
    log = Log().in_turn()
    child = StreamState(log.state, "c1")
    child.apply(ChildStreamStarted(CHILD, 9, call_id="c1", message=GO, model="m"))
    child.apply(TurnStarted(CHILD, 10, turn=1))
    child.apply(UsageReported(CHILD, 11, usage=Usage(5, 2), total=Usage(5, 2)))

    assert log.state.usage == Usage(5, 2)


# ------------------------------------------------------------------------------ child runs


def test_a_child_run_is_found_by_its_agent_and_its_prompt() -> None:
    log = Log().in_turn()
    call = log.state.calls["c1"]
    for number, prompt in enumerate(("one", "two")):
        source = Source(f"s/1.{number}", f"s/1.{number}/1", ("agent", "child"), "s/1")
        child = StreamState(log.state, "c1")
        child.apply(ChildStreamStarted(source, 9, call_id="c1", message=UserMessage((Text(prompt),)), model="m"))
    assert call.previous_child("child", UserMessage((Text("one"),))) is None, "both are open already"

    call.begin()

    for prompt in ("two", "one"):
        found = call.previous_child("child", UserMessage((Text(prompt),)))
        assert found is not None
        assert found.prompt == UserMessage((Text(prompt),))
        call.open_child(found)
    assert call.previous_child("other", UserMessage((Text("one"),))) is None
