"""Events as lines for a person."""

from __future__ import annotations

import pytest

from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    ContinueRequested,
    ErrorInfo,
    MessageCommitted,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    QuestionWithdrawn,
    ReasoningDelta,
    ResponseDiscarded,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallOutput,
    ToolCallParked,
    ToolCallProgress,
    TurnFinished,
    TurnStarted,
    WarningIssued,
)
from agentloop.messages import Text, Usage, UserMessage
from agentloop.permissions import Glob, Rule
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
from agentloop.safety import BlastRadius
from agentloop.terminal._characters import exact, exact_lines, printable
from agentloop.terminal._lines import Line, Narrator, answer_in_words, call_in_words, shorten
from tests.demo.builders import ANN, BOB, CAT, call_finished, call_started, elicitation, says, started


def told(*events: StreamEvent) -> list[Line]:
    narrator = Narrator()
    return [line for event in events for line in narrator.tell(event)]


def texts(*events: StreamEvent) -> list[tuple[str, str]]:
    return [(line.kind, line.text) for line in told(*events)]


def test_what_an_agent_says_is_a_line_when_it_is_complete() -> None:
    *words, usage = says("Hello to you.")

    assert told(*words) == []
    assert told(*words, usage) == [Line("says", "ann", "Hello to you.", 0, "s/1")]


def test_what_an_agent_says_is_a_line_when_it_is_cut_off() -> None:
    cut = TurnFinished(ANN, 2, turn=1, reason="cancelled")

    assert texts(TextDelta(ANN, 1, "Hel"), cut) == [("says", "Hel")]


def test_what_an_agent_says_of_a_response_that_failed_is_no_line() -> None:
    def discarded(next_model: str, delay: float) -> ResponseDiscarded:
        error = ErrorInfo("ModelConnectionError", "the connection dropped")
        return ResponseDiscarded(ANN, 2, error=error, model="one", next_model=next_model, delay=delay)

    told = texts(TextDelta(ANN, 1, "Hel"), discarded("one", 0.42), TextDelta(ANN, 3, "Hal"), discarded("two", 0))

    assert told == [
        ("warning", "the connection dropped; what was said does not count, asking again in 0.4 s"),
        ("warning", "the connection dropped; what was said does not count, asking two"),
    ]


def test_thoughts_and_words_are_lines_of_their_own() -> None:
    assert texts(ReasoningDelta(ANN, 1, "Hm."), *says("Yes.")) == [("thinks", "Hm."), ("says", "Yes.")]


def test_agents_that_speak_at_once_are_told_apart() -> None:
    bob, cat = says("I am Bob.", BOB), says("I am Cat.", CAT)

    lines = told(*(event for both in zip(bob, cat, strict=True) for event in both))

    assert [(line.who, line.text, line.depth) for line in lines] == [("bob", "I am Bob.", 1), ("cat", "I am Cat.", 1)]


def test_a_call_is_told_with_its_arguments_its_result_and_its_time() -> None:
    started_, finished = call_started("search", '{"query": "tea"}'), call_finished("search", "found", elapsed=1.23)

    assert texts(started_, finished) == [("calls", 'search({"query": "tea"})'), ("result", "search: found (1.2 s)")]


def test_a_time_that_is_no_time_is_not_told() -> None:
    assert texts(call_started("a"), call_finished("a", "b", elapsed=0.01))[-1] == ("result", "a: b")


def test_a_call_that_failed_is_told_so() -> None:
    assert texts(call_started("a"), call_finished("a", "no", status="error"))[-1] == ("failed", "a: no")


def test_what_a_tool_shows_is_told_line_by_line() -> None:
    shows = [ToolCallOutput(ANN, 1, call_id="c", text=text) for text in ("one\ntw", "o\nthr", "ee")]

    lines = texts(call_started("a"), *shows, call_finished("a", "done"))

    assert lines[1:-1] == [("shows", "one"), ("shows", "two"), ("shows", "three")]


def test_a_running_call_is_known_with_its_progress_until_it_ends() -> None:
    narrator = Narrator()
    narrator.tell(call_started("a"))
    narrator.tell(ToolCallProgress(ANN, 2, call_id="c", progress=3, total=4, message="soon"))

    [call] = narrator.running.values()
    assert (call.name, call.progress, call.total, call.message) == ("a", 3, 4, "soon")

    narrator.tell(call_finished("a", "done"))
    assert narrator.running == {}


def test_calls_of_two_agents_may_have_the_same_id() -> None:
    narrator = Narrator()
    for source in (BOB, CAT):
        narrator.tell(call_started("a", source=source))
    narrator.tell(call_finished("a", "done", source=BOB))

    assert [call.who for call in narrator.running.values()] == ["cat"]


def test_a_prompt_is_told_once_and_what_is_added_later_too() -> None:
    def committed(text: str) -> MessageCommitted:
        return MessageCommitted(ANN, 2, message=UserMessage((Text(text),)), index=0)

    assert texts(started("Go"), committed("Go"), committed("Go on")) == [("prompt", "Go"), ("added", "Go on")]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (elicitation(message="Which?"), ("asks", "Which?")),
        (
            ApprovalRequested(ANN, 1, id="q", call_id="c", name="rm", arguments={"a": 1, "b": "x\ny"}, reason="new"),
            ("asks", "May I call rm? (new)\na: 1\nb: \n| x\n| y"),
        ),
        (
            ApprovalRequested(
                ANN,
                1,
                id="q",
                call_id="c",
                name="sh",
                arguments={"a": 1},
                destructive=True,
                assessment="it removes",
                blast_radius=BlastRadius(paths=("x",), commands=("rm x\u202e",)),
            ),
            ("asks", 'May I call sh?\na: 1\nIt may destroy something.\nIt may touch: "rm x\\u202e, x, ..."'),
        ),
        (
            ApprovalRequested(ANN, 1, id="q", call_id="c", name="ls", arguments={}, read_only=True),
            ("asks", "May I call ls?\nIt only reads."),
        ),
        (
            ContinueRequested(ANN, 1, id="q", limit="turns", used=5, allowed=5),
            ("asks", "The limit of turns is reached (5 of 5). Go on?"),
        ),
        (QuestionAnswered(ANN, 1, id="q", answer=Accept(), by="reader"), ("answer", "accepted")),
        (
            QuestionAnswered(ANN, 1, id="q", answer=Approve(), by="rule"),
            ("answer", "approved, by an answer given before"),
        ),
        (QuestionDeclined(ANN, 1, id="q", note="Nobody."), ("answer", "declined: Nobody.")),
        (QuestionWithdrawn(ANN, 1, id="q"), ("answer", "the question is withdrawn")),
        (WarningIssued(ANN, 1, code="x", message="Oh."), ("warning", "Oh.")),
        (
            ChildStreamStarted(BOB, 1, call_id="c", message=UserMessage((Text("x"),)), model="m"),
            ("child", "begins"),
        ),
        (ChildStreamStopped(BOB, 1, call_id="c", reason="blocked", detail="no"), ("child", "ends: blocked: no")),
        (
            StreamStopped(ANN, 1, reason="completed", usage=Usage(1000, 200, requests=1)),
            ("stopped", "completed (1 request, 1,200 tokens)"),
        ),
        (
            StreamStopped(ANN, 1, reason="cancelled", detail="enough", usage=Usage(requests=2)),
            ("stopped", "cancelled: enough (2 requests, 0 tokens)"),
        ),
    ],
)
def test_an_event_is_told_in_words(event: StreamEvent, line: tuple[str, str]) -> None:
    assert texts(event) == [line]


def test_what_is_of_no_interest_is_not_told() -> None:
    assert told(TurnStarted(ANN, 1, turn=1)) == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Accept({"day": "Sunday", "seats": 2}), "accepted: day=Sunday, seats=2"),
        (Decline("no time"), "refused: no time"),
        (Deny(), "refused"),
        (Cancel(), "dismissed"),
        (Approve(), "approved"),
        (Approve(always="safer"), "approved, and from now on all that the mode safer runs"),
        (Approve({"a": 1}, always=True), "approved, with other arguments, and the very same call from now on"),
        (
            Approve(always=Rule("shell", {"command": Glob("git *")})),
            'approved, and from now on shell(command like "git *")',
        ),
    ],
)
def test_an_answer_is_told_in_words(answer: Answer, words: str) -> None:
    assert answer_in_words(answer) == words


def test_nothing_that_is_told_can_steer_the_terminal() -> None:
    """A web page that a tool reads may hold any bytes."""
    evil = "\x1b]0;owned\x07\x1b[2Jnice\rtry\x9b"

    lines = told(
        started(evil),
        *says(evil),
        call_started(evil, evil),
        ToolCallOutput(ANN, 1, call_id="c", text=evil + "\n"),
        call_finished("a", evil, status="error"),
        elicitation(message=evil),
        ApprovalRequested(ANN, 1, id="q", call_id="c", name="rm", arguments={"a": evil}, reason=evil),
        QuestionAnswered(ANN, 1, id="q", answer=Accept({"a": evil}), by="reader"),
        WarningIssued(ANN, 1, code="x", message=evil),
        StreamStopped(ANN, 1, reason="cancelled", detail=evil),
    )

    assert len(lines) == 10
    assert not any(control in line.text for line in lines for control in "\x1b\x07\r\x9b")


def test_line_breaks_and_tabs_are_printable() -> None:
    assert printable("a\r\n\tb") == "a\n\tb"


def test_a_long_text_is_shortened_and_a_short_one_is_not() -> None:
    assert shorten("one two three", 9) == "one t ..."
    assert shorten("one two", 9) == "one two"


def test_a_call_without_arguments_has_none() -> None:
    assert (call_in_words("now", "{}"), call_in_words("now", "")) == ("now()", "now()")


def committed(text: str, index: int = 0) -> MessageCommitted:
    return MessageCommitted(ANN, 2, message=UserMessage((Text(text),)), index=index)


def gone_on(prompt: str) -> StreamStarted:
    return StreamStarted(ANN, 1, message=UserMessage((Text(prompt),)), model="scripted", resumes="s/0")


def test_a_stream_that_goes_on_does_not_tell_its_prompt_once_more() -> None:
    assert texts(gone_on("Hello."), committed("Hello.")) == [("child", "goes on")]


def test_what_was_added_to_a_stream_that_goes_on_is_told() -> None:
    """Its prompt was in the transcript before."""
    assert texts(gone_on("Hello."), committed("And now?", 4)) == [("child", "goes on"), ("added", "And now?")]


def test_a_child_stream_that_goes_on_says_so() -> None:
    message = UserMessage((Text("Hello."),))

    def began(resumes: str) -> ChildStreamStarted:
        return ChildStreamStarted(BOB, 1, call_id="c", message=message, model="scripted", resumes=resumes)

    assert texts(began(""), began("s/1.1/0")) == [("child", "begins"), ("child", "goes on")]


def test_what_waits_for_an_answer_is_told_once_each() -> None:
    narrator = Narrator()
    narrator.tell(call_started("delete"))
    output = narrator.tell(ToolCallOutput(ANN, 1, call_id="c", text="half a line"))
    parked: list[StreamEvent] = [QuestionParked(ANN, 2, id="q"), ToolCallParked(ANN, 3, call_id="c", name="delete")]

    assert [*output, *(line for event in parked for line in narrator.tell(event))] == [
        Line("kept", "ann", "the question waits for an answer", 0, "s/1"),
        Line("shows", "ann", "half a line", 0, "s/1"),
        Line("kept", "ann", "delete is put off until then", 0, "s/1"),
    ]
    assert narrator.running == {}


def test_why_a_stream_is_to_be_gone_on_with() -> None:
    parked = StreamStopped(ANN, 1, reason="needs_input")
    cut = StreamStopped(ANN, 1, reason="interrupted", detail="its process was gone")
    used = "(0 requests, 0 tokens)"

    assert texts(parked) == [("stopped", f"parked until there is an answer {used}")]
    assert texts(cut) == [("stopped", f"interrupted: its process was gone {used}")]


# ----------------------------------------------------------------------------- characters

HOSTILE = "\x1b]0;title\x07\x9b2J\u202eevil\u202c\u2066\u200b\u200d\ufeff\u00ad\U000e0041\u2800\u3164\ufe0f\ud800"
"""Escape sequences, overrides of the direction, invisible characters, a lone surrogate."""


def test_a_printable_text_has_no_character_that_a_terminal_obeys_or_hides() -> None:
    assert printable(f"a{HOSTILE}b") == "a]0;title2Jevilb"
    assert printable("caf\u00e9 \u67e5\u8be2\tx\r\ny\u00a0z\u2028") == "caf\u00e9 \u67e5\u8be2\tx\ny z\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("ls -l", "ls -l"),
        ("echo '\u202e'", "\"echo '\\u202e'\""),
        ("rm\u00a0-rf", '"rm\\u00a0-rf"'),
        ("echo \x1b[2K", '"echo \\u001b[2K"'),
        ("tag\U000e0041", '"tag\\udb40\\udc41"'),
        (" ls", '" ls"'),
        ("", '""'),
        ("5", '"5"'),
        (5, "5"),
        (True, "true"),
        ("true", '"true"'),
        ({"a": "\u202e"}, '{"a": "\\u202e"}'),
        ("caf\u00e9", "caf\u00e9"),
        ("cafe\u0301", '"cafe\\u0301"'),
        ("\u212b", '"\\u212b"'),
        ({"a": "e\u0301"}, '{"a": "e\\u0301"}'),
    ],
)
def test_an_exact_value_shows_every_character_and_its_type(value: object, shown: str) -> None:
    assert exact(value) == shown


def test_an_exact_text_of_several_lines_cannot_pass_for_another_argument() -> None:
    assert exact_lines("a\n\nb\r") == ["", "| a", "| ", '| "b\\r"']


def test_an_approval_shows_what_would_run_and_a_web_page_its_address() -> None:
    arguments = {"command": "echo hi #\u202e ~ fr- mr\u202c\u200b\ntimeout: 1"}
    asks = ApprovalRequested(ANN, 1, id="q", call_id="c", name="shell", arguments=arguments, reason="")
    page = elicitation(message="Sign in.", url="https://p\u0430y.example/?a=\u202e")

    assert texts(asks, page) == [
        ("asks", 'May I call shell?\ncommand: \n| "echo hi #\\u202e ~ fr- mr\\u202c\\u200b"\n| timeout: 1'),
        ("asks", "Sign in.\nIt would open https://p\\u0430y.example/?a=\\u202e"),
    ]
