"""The facts of a journal about background runs: counts, ends that nothing has reported, and reports of them."""

from __future__ import annotations

from agentloop._core.state import NOTES, ReportTaken, SessionSettings, SessionState, StreamState
from agentloop.events import (
    ElicitationRequested,
    MessageCommitted,
    QuestionAnswered,
    QuestionWithdrawn,
    Source,
    StreamStarted,
    StreamStopped,
    TurnFinished,
    TurnStarted,
)
from agentloop.messages import Text, UserMessage
from agentloop.questions import Accept

SOURCE = Source("s", "s/1", ("lead",))
REPORT = UserMessage((Text("It has ended."),), reports=("helper-1",))


def started() -> StreamState:
    state = StreamState()
    state.apply(StreamStarted(SOURCE, 1, message=UserMessage((Text("go"),)), model="m"))
    state.apply(MessageCommitted(SOURCE, 2, message=UserMessage((Text("go"),)), index=0))
    return state


def test_a_report_of_a_run_that_the_stream_has_not_started_is_announced() -> None:
    state = started()
    state.apply(MessageCommitted(SOURCE, 3, message=REPORT, index=1))
    assert "reports the end of 'helper-1', which is no background run" in state.complaints[0]

    state = started()
    state.apply(ReportTaken(("helper-1",)))
    state.apply(MessageCommitted(SOURCE, 3, message=REPORT, index=1))
    assert state.complaints == []
    state.apply(MessageCommitted(SOURCE, 4, message=REPORT, index=2))
    assert len(state.complaints) == 1


def test_a_question_of_a_run_of_a_block_is_no_part_of_a_turn_and_is_not_left_to_a_later_run() -> None:
    state = started()
    question = ElicitationRequested(SOURCE, 4, id="q", call_id="c", message="?", form={}, background="helper-1")
    state.apply(TurnStarted(SOURCE, 3, turn=1))
    state.apply(question)
    state.apply(TurnFinished(SOURCE, 5, turn=1, reason="final"))
    assert state.complaints == []
    assert state.open_questions == []
    assert not state.is_idle
    state.apply(StreamStopped(SOURCE, 6, reason="completed"))
    assert "leaves open: question 'q'" in state.complaints[0]

    state = started()
    state.apply(question)
    state.apply(QuestionAnswered(SOURCE, 5, id="q", answer=Accept({}), by="reader"))
    state.apply(StreamStopped(SOURCE, 6, reason="completed"))
    assert state.complaints == []


def test_a_question_of_a_run_of_a_block_is_withdrawn_where_the_process_died() -> None:
    session = SessionState()
    session.apply(StreamStarted(SOURCE, 1, message=UserMessage((Text("go"),)), model="m"))
    session.apply(ElicitationRequested(SOURCE, 2, id="q", call_id="c", message="?", form={}, background="helper-1"))
    assert [kind for kind, _, _ in session.ends()] == [QuestionWithdrawn, StreamStopped]


def test_the_counts_and_the_unreported_ends_survive_a_rewind() -> None:
    session = SessionState()
    session.apply(SessionSettings(background_counts={"helper": 2}, unreported={"helper-2": "it is lost"}))
    session._rewind(0)
    assert session.settings.background_counts == {"helper": 2}
    assert session.settings.unreported == {"helper-2": "it is lost"}
    assert NOTES["report_taken"] is ReportTaken
