"""Reading what is typed, on a real terminal of the operating system and on prompt_toolkit's stand-in."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest
import trio
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from agentloop.terminal import _single_keys
from agentloop.terminal._editing import EditedLines
from agentloop.terminal._keyboard import PlainLines, is_gone
from agentloop.terminal._single_keys import watched_key

if sys.platform != "win32":
    import termios

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals"),
]


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    """A keyboard for prompt_toolkit."""
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, int]]:
    """A file to read from, and what is to be written to be read there."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as source:
        yield source, writing


async def test_a_plain_line_is_read_without_its_end(pipe: tuple[TextIO, int]) -> None:
    source, keyboard = pipe
    out = io.StringIO()
    read_line = PlainLines(source, out)
    os.write(keyboard, "grün\nand more\n".encode())

    assert [await read_line("colour: "), await read_line("and? ")] == ["grün", "and more"]
    assert out.getvalue() == "colour: and? "
    os.close(keyboard)


async def test_a_plain_prompt_can_be_cancelled_and_loses_nothing_that_is_typed_later(pipe: tuple[TextIO, int]) -> None:
    source, keyboard = pipe
    read_line = PlainLines(source, io.StringIO())
    with trio.move_on_after(0.01) as scope:
        await read_line("? ")
    assert scope.cancelled_caught

    os.write(keyboard, b"later\n")
    assert await read_line("? ") == "later"
    os.close(keyboard)


async def test_the_end_of_a_plain_input_is_none(pipe: tuple[TextIO, int]) -> None:
    source, keyboard = pipe
    os.write(keyboard, b"half a line")
    os.close(keyboard)
    out = io.StringIO()

    assert await PlainLines(source, out)("? ") is None
    assert out.getvalue() == "? \n"


async def test_an_edited_line_is_read(keys: PipeInput) -> None:
    keys.send_text("blue\n")

    assert await EditedLines()("colour? ") == "blue"


async def test_the_loop_goes_on_while_a_line_is_edited(keys: PipeInput) -> None:
    read_line = EditedLines()
    ticks = 0
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def tick() -> None:
            nonlocal ticks
            while ticks < 3:
                await trio.lowlevel.checkpoint()
                ticks += 1
            keys.send_text("done\n")

        assert await read_line("? ") == "done"
    assert ticks == 3


async def test_an_edited_prompt_can_be_cancelled_and_the_next_one_works(keys: PipeInput) -> None:
    read_line = EditedLines()
    for seconds in (0.0, 0.001, 0.1):
        with trio.move_on_after(seconds) as scope:
            await read_line("never answered? ")
        assert scope.cancelled_caught

    keys.send_text("green\n")
    assert await read_line("again? ") == "green"


async def test_the_end_of_an_edited_input_is_none(keys: PipeInput) -> None:
    keys.send_text("\x04")

    assert await EditedLines()("? ") is None


async def test_ctrl_c_in_an_edited_line_is_a_signal_like_everywhere_else(keys: PipeInput) -> None:
    with trio.open_signal_receiver(signal.SIGINT) as interrupts:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def watch() -> None:
                async for _ in interrupts:
                    nursery.cancel_scope.cancel()

            keys.send_text("\x03")
            await EditedLines()("? ")
    assert nursery.cancel_scope.cancelled_caught


def test_a_terminal_whose_window_was_closed_is_gone() -> None:
    keyboard, screen = os.openpty()
    with os.fdopen(screen, encoding="utf-8") as terminal:
        assert not is_gone(terminal)
        os.close(keyboard)
        assert is_gone(terminal)


# ------------------------------------------------------------------------------ single keys


@pytest.fixture
def own_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """A keyboard, and the terminal that it types at, as if this program had been started there."""
    outside, inside = os.openpty()
    monkeypatch.setattr(_single_keys, "_is_ours", lambda descriptor: True)
    yield outside, inside
    os.close(outside)
    os.close(inside)


@pytest.fixture
def source(own_terminal: tuple[int, int]) -> Iterator[TextIO]:
    """The input of that terminal."""
    with os.fdopen(os.dup(own_terminal[1]), encoding="utf-8") as source:
        yield source


def gives_lines(descriptor: int) -> bool:
    return bool(termios.tcgetattr(descriptor)[3] & termios.ICANON)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - there is nothing to wait for
            await trio.sleep(0.01)


async def test_the_pause_key_is_read_at_once_and_what_is_typed_besides_is_the_next_line(
    own_terminal: tuple[int, int], source: TextIO
) -> None:
    typed_at, descriptor = own_terminal
    pressed: list[int] = []
    before = termios.tcgetattr(descriptor)
    lines = PlainLines(source, out := io.StringIO())
    async with watched_key(descriptor, lambda: pressed.append(1)) as has_key:
        assert has_key
        assert not gives_lines(descriptor)
        os.write(typed_at, "hä\x1b[Ax\x7fll".encode() + b"\x10")
        await until(lambda: len(pressed) == 1)
        # While a line is typed, the terminal gives lines, and the key is one of them.
        with trio.move_on_after(0.05):
            await lines("> ")
        assert not gives_lines(descriptor)
        os.write(typed_at, b"o\x10")
        await until(lambda: len(pressed) == 2)
    assert termios.tcgetattr(descriptor) == before
    os.write(typed_at, b"!\n")
    with trio.fail_after(10):
        assert await lines("> ") == "hällo!"
    assert out.getvalue() == "> häll> o"


async def test_what_was_typed_before_a_question_does_not_answer_it(
    own_terminal: tuple[int, int], source: TextIO
) -> None:
    typed_at, descriptor = own_terminal
    pressed: list[int] = []
    lines = PlainLines(source, io.StringIO())
    async with watched_key(descriptor, lambda: pressed.append(1)):
        os.write(typed_at, b"yes\n\x10")
        await until(lambda: bool(pressed))
        lines.forget()
        with trio.move_on_after(0.05) as scope:
            await lines("> ")
    assert scope.cancelled_caught


async def test_the_terminal_of_another_program_keeps_its_lines() -> None:
    outside, inside = os.openpty()
    try:
        # No terminal of this program's: it was not started there.
        async with watched_key(inside, lambda: None) as has_key:
            assert not has_key
            assert gives_lines(inside)
        async with watched_key(None, lambda: None) as has_key:
            assert not has_key
    finally:
        os.close(outside)
        os.close(inside)


async def test_a_program_in_the_background_reads_no_keys_until_it_is_in_the_foreground_again(
    own_terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed_at, descriptor = own_terminal
    pressed: list[int] = []
    is_ours = True
    monkeypatch.setattr(_single_keys, "_is_ours", lambda descriptor: is_ours)
    monkeypatch.setattr(_single_keys, "_is_open", lambda descriptor: True)
    monkeypatch.setattr(_single_keys, "GLANCE", 0.01)
    async with watched_key(descriptor, lambda: pressed.append(1)):
        is_ours = False
        os.write(typed_at, b"\x10")
        await trio.sleep(0.05)
        assert pressed == []
        is_ours = True
        await until(lambda: bool(pressed))


async def test_an_answer_that_is_typed_the_moment_the_prompt_is_shown_is_read(
    own_terminal: tuple[int, int], source: TextIO
) -> None:
    typed_at, descriptor = own_terminal

    class Answered(io.StringIO):
        def write(self, text: str) -> int:
            os.write(typed_at, b"y\n")
            return super().write(text)

    async with watched_key(descriptor, lambda: None):
        await trio.sleep(0.05)
        with trio.fail_after(10):
            assert await PlainLines(source, Answered())("> ") == "y"
