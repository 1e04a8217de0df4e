"""What stands on the page in the end."""

from __future__ import annotations

import io

from agentloop.events import StreamEvent, StreamStopped, TextDelta, UsageReported
from agentloop.messages import Usage
from agentloop.terminal._plain import Plain, Typesetter
from tests.demo.builders import ANN, BOB, CAT, call_finished, call_started, says, started


def page(*events: StreamEvent) -> list[str]:
    typesetter = Typesetter()
    return "".join(typesetter.text_for(event) for event in events).splitlines()


def test_a_run_reads_like_a_play() -> None:
    run = [
        started("Tea, please."),
        *says("I will look for some."),
        call_started("search", '{"what":"tea"}'),
        call_finished("search", "green tea"),
        *says("There is green tea."),
        StreamStopped(ANN, 9, reason="completed", usage=Usage(20, 10, requests=2)),
    ]

    assert page(*run) == [
        "you: Tea, please.",
        "ann: I will look for some.",
        'ann -> search({"what":"tea"})',
        "ann <- search: green tea",
        "ann: There is green tea.",
        "ann ends: completed (2 requests, 30 tokens)",
    ]


def test_words_are_written_as_they_come() -> None:
    typesetter = Typesetter()

    assert [typesetter.text_for(event) for event in says("One two three.")] == ["ann: One ", "two ", "three.", "\n"]


def test_one_speaks_at_a_time_and_the_others_are_written_when_they_are_done() -> None:
    bob, cat = says("I am Bob, and I talk a lot.", BOB), says("I am Cat.", CAT)
    mixed: list[StreamEvent] = [bob[0]]
    for index in range(1, len(bob)):
        mixed += [*cat[index - 1 : index], bob[index]]

    assert page(*mixed) == ["    bob: I am Bob, and ", "    cat: I am Cat.", "    bob: I talk a lot."]


def test_a_sentence_that_is_interrupted_goes_on_in_a_line_of_its_own() -> None:
    speech = says("It is late.", BOB)

    assert page(speech[0], call_started("search"), *speech[1:]) == [
        "    bob: It ",
        "ann -> search()",
        "    bob: is late.",
    ]


def test_the_pen_is_free_when_its_owner_is_done() -> None:
    assert page(*says("One.", BOB), *says("Two.", CAT)) == ["    bob: One.", "    cat: Two."]


def test_lines_of_a_text_are_indented_below_who_says_it() -> None:
    assert page(*says("One\ntwo.", BOB)) == ["    bob: One", "        two."]


def test_an_answer_of_nothing_but_blanks_is_nothing() -> None:
    usage = UsageReported(ANN, 1, usage=Usage(), total=Usage())

    assert page(TextDelta(ANN, 1, "\n "), usage) == []


def test_a_remark_stands_on_a_line_of_its_own() -> None:
    out = io.StringIO()
    screen = Plain(out)
    screen.show(says("Well, ")[0])
    screen.note("Hear, hear!")
    with screen.paused():
        screen.note()

    assert out.getvalue() == "ann: Well, \nHear, hear!\n\n"
