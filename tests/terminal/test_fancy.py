"""What stands on a terminal that can do more, drawn into a string instead."""

from __future__ import annotations

import io
import re

import pytest
import trio
from rich.console import Console

from agentloop.events import Paused, Resumed, StreamEvent, TextDelta, ToolCallOutput, ToolCallProgress
from agentloop.terminal._fancy import REFRESH, Fancy, open_fancy, render_tail
from agentloop.terminal._lines import RunningCall, Speech
from tests.demo.builders import ANN, BOB, call_finished, call_started, says, started


def screen(width: int = 60) -> tuple[Fancy, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=width, height=20, highlight=False)
    return Fancy(console, clock=lambda: 7.0), out


def tail(*events: StreamEvent, width: int = 60) -> list[str]:
    """What is drawn at the bottom after ``events``."""
    fancy, out = screen(width)
    for event in events:
        fancy.show(event)
    before = len(out.getvalue())
    fancy.draw()
    return readable(out.getvalue()[before:])


def readable(text: str) -> list[str]:
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    return [line.rstrip() for line in plain.splitlines() if line.strip()]


def test_what_is_complete_is_printed_once() -> None:
    fancy, out = screen()
    for event in [started("Hi."), *says("Hello.", BOB), call_started("search"), call_finished("search", "tea")]:
        fancy.show(event)

    assert readable(out.getvalue()) == ["you  Hi.", "    bob  Hello.", "ann  → search()", "ann  ✓ search: tea"]


def test_the_lines_of_a_text_are_indented_below_who_says_it() -> None:
    fancy, out = screen()
    for event in says("One\ntwo."):
        fancy.show(event)

    assert readable(out.getvalue()) == ["ann  One", "    two."]


def test_what_is_going_on_is_drawn_at_the_bottom() -> None:
    assert tail(
        TextDelta(BOB, 1, "I am sti"),
        call_started("search", id="a"),
        call_started("wait", id="b"),
        ToolCallProgress(ANN, 1, call_id="a", progress=3, total=10, message="pages"),
        ToolCallOutput(ANN, 1, call_id="b", text="tick"),
    ) == [
        "    bob  I am sti",
        "ann  ⠙ search 0.0 s  ━━━╌╌╌╌╌╌╌ 3 of 10  pages",
        "ann  ⠙ wait 0.0 s  tick",
    ]


def test_a_run_that_is_paused_is_drawn_as_paused_until_it_goes_on() -> None:
    assert tail(Paused(ANN, 1)) == ["ann  ‖ paused"]
    assert tail(Paused(ANN, 1), Resumed(ANN, 2)) == []


def test_progress_without_a_total_is_a_number() -> None:
    call = ToolCallProgress(ANN, 1, call_id="c", progress=42)

    assert tail(call_started("count"), call) == ["ann  ⠙ count 0.0 s  42"]


def test_nothing_is_drawn_where_nothing_is_going_on() -> None:
    assert tail(*says("Done.")) == []


def test_nothing_is_drawn_while_somebody_types() -> None:
    fancy, out = screen()
    fancy.show(call_started("search"))
    with fancy.paused():
        before = out.getvalue()
        fancy.draw()
        assert out.getvalue() == before
    fancy.draw()
    assert out.getvalue() != before


def test_of_a_long_speech_only_the_end_is_drawn() -> None:
    console = Console(file=io.StringIO(), width=200)
    speech = Speech("says", "ann", 0, "word " * 1000 + "end")

    with console.capture() as captured:
        console.print(render_tail([(speech, "cyan")], [], frame=0, room=20))

    assert captured.get().strip().startswith("ann  ... ")
    assert captured.get().strip().endswith(" end")
    assert len(captured.get()) < 40


def test_a_narrow_terminal_is_enough() -> None:
    call = RunningCall("ann", 1, "search", progress=1, total=2, message="far too long for this")
    console = Console(file=io.StringIO(), width=12)

    with console.capture() as captured:
        speech = Speech("says", "ann", 3, "Hello there")
        console.print(render_tail([(speech, "cyan")], [(call, "cyan", 1.0)], frame=0, room=9))

    assert max(map(len, captured.get().splitlines())) <= 12


def test_a_speech_that_was_cut_off_stays_on_the_screen() -> None:
    fancy, out = screen()
    fancy.show(TextDelta(ANN, 1, "I was about"))
    fancy.cut()

    assert readable(out.getvalue()) == ["ann  I was about"]


def test_a_completed_line_does_not_leave_its_draft_below() -> None:
    fancy, out = screen()
    fancy.show(call_started("wait"))
    *words, usage = says("Well.")
    for event in words:
        fancy.show(event)
    fancy.draw()
    before = len(out.getvalue())
    fancy.show(usage)

    drawn = readable(out.getvalue()[before:])
    assert drawn[-2:] == ["ann  Well.", "ann  ⠙ wait 0.0 s"]
    assert drawn.count("ann  Well.") == 1


def test_a_remark_is_printed_as_it_is() -> None:
    fancy, out = screen()
    fancy.note("[bold]no markup[/bold]")

    assert readable(out.getvalue()) == ["[bold]no markup[/bold]"]


async def test_the_screen_moves_by_itself(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    async with open_fancy() as fancy:
        fancy.show(call_started("wait"))
        await trio.sleep(2.5 * REFRESH)

    assert "ann  ⠹ wait 0.1 s" in readable(capsys.readouterr().out)


async def test_an_error_leaves_the_screen_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with open_fancy():
            raise KeyError


def test_a_terminal_with_ascii_only_has_marks_of_ascii() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    screen = Fancy(Console(file=out, force_terminal=True, width=60), lambda: 0.0)

    screen.show(call_started("search"))
    screen.draw()
    screen.show(call_finished("search", "found"))
    screen.cut()
    out.flush()

    page = out.buffer.getvalue()
    assert b"-> " in page
    assert b"+ " in page
    assert b"?" not in page.replace(b"\x1b[?25", b"")
