"""Lines on anything that takes text: a pipe, a file, an old terminal."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

from agentloop.demo.lines import Kind, Line, Narrator, printable
from agentloop.events import ResponseDiscarded, StreamEvent, TextDelta

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
    """Makes text of events, piece by piece; what it gave so far is what stands on the page.

    One agent at a time has the pen: what it says is written as it comes. What others say at the same time is written
    when it is complete.
    """

    def __init__(self) -> None:
        self._narrator = Narrator()
        self._pen: str | None = None
        """The stream whose speech is being written."""
        self._in_line = False

    def text_for(self, event: StreamEvent) -> str:
        """What to write for ``event``."""
        lines = self._narrator.tell(event)
        if isinstance(event, ResponseDiscarded) and self._pen == event.stream:
            self._pen = None
        text = "".join(self._line(line) for line in lines)
        return text + self._speech(event) if isinstance(event, TextDelta) else text

    def typed(self, text: str) -> None:
        """Somebody has typed ``text`` on the page."""
        self._narrator.typed = text

    def note(self, text: str) -> str:
        """What to write for a remark from outside the stream, on lines of its own."""
        return f"{self._new_line()}{text}\n"

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
        # Where something else was told in the middle of a sentence, the sentence goes on in a line of its own.
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
        """It stands there already, with its new line."""
        self._typesetter.typed(text)

    def cut(self) -> None:
        """It stands there already."""

    @contextmanager
    def paused(self) -> Generator[None]:
        """Write nothing while somebody types."""
        yield

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
