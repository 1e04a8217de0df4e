"""Lines on anything that takes text: a pipe, a file, an old terminal."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

from agentloop.events import ResponseDiscarded, StreamEvent, TextDelta
from agentloop.terminal._characters import printable
from agentloop.terminal._lines import Kind, Line, Narrator

__all__ = ["Plain", "Typesetter"]

INDENT = "    "
MARKS: dict[Kind, str] = {
    "prompt": ": ",
    "added": " is told: ",
    "says": ": ",
    "thinks": " thinks: ",
    "calls": " -> ",
    "shows": " .. ",
    "result": " <- ",
    "failed": " !! ",
    "asks": " ?? ",
    "answer": " is told: ",
    "child": " ",
    "kept": " || ",
    "warning": " warns: ",
    "stopped": " ends: ",
}


class Typesetter:
    """Makes text of events, piece by piece, for a page that only grows.

    One agent at a time writes its text as it comes. Text that other agents write at the same time follows when it is
    complete.
    """

    def __init__(self) -> None:
        self._narrator = Narrator()
        self._pen: str | None = None
        """The stream whose speech is being written."""
        self._in_line = False

    def text_for(self, event: StreamEvent) -> str:
        """The text to write for ``event``."""
        lines = self._narrator.tell(event)
        if isinstance(event, ResponseDiscarded) and event.purpose == "turn" and self._pen == event.stream:
            self._pen = None
        text = "".join(self._line(line) for line in lines)
        return text + self._speech(event) if isinstance(event, TextDelta) else text

    def typed(self, text: str) -> None:
        """Note that the person has typed ``text`` on the page."""
        self._narrator.typed = text

    def note(self, text: str) -> str:
        """The text to write for a remark from outside the stream, on lines of its own."""
        return f"{self._new_line()}{printable(text)}\n"

    def _line(self, line: Line) -> str:
        if line.kind == "says" and self._pen == line.stream:
            self._pen = None
            return self._new_line()
        return f"{self._new_line()}{_head(line)}{_hanging(line.text, line.depth)}\n"

    def _speech(self, event: TextDelta) -> str:
        text = printable(event.text)
        if self._pen is None:
            text = text.lstrip()
            if not text:
                return ""
            self._pen = event.stream
        if self._pen != event.stream:
            return ""
        # After another remark in mid-sentence, the sentence continues on a line of its own.
        head = "" if self._in_line else _head(Line("says", event.agent, "", event.depth))
        self._in_line = True
        return head + _hanging(text, event.depth)

    def _new_line(self) -> str:
        ended, self._in_line = self._in_line, False
        return "\n" if ended else ""


def _head(line: Line) -> str:
    who = "you" if line.kind == "prompt" and line.depth == 0 else line.who
    return f"{INDENT * line.depth}{who}{MARKS[line.kind]}"


def _hanging(text: str, depth: int) -> str:
    return text.replace("\n", "\n" + INDENT * (depth + 1))


class Plain:
    """A screen that only ever writes on."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._typesetter = Typesetter()

    def show(self, event: StreamEvent) -> None:
        """Tell ``event``."""
        self._write(self._typesetter.text_for(event))

    def note(self, text: str = "") -> None:
        """Tell something that is no event."""
        self._write(self._typesetter.note(text))

    def typed(self, text: str) -> None:
        """The page has it already, with its line break."""
        self._typesetter.typed(text)

    def cut(self) -> None:
        """The page has it already."""

    @contextmanager
    def paused(self) -> Generator[None]:
        """Write nothing while the person types."""
        yield

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
