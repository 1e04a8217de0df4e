"""The demo's screen on a capable terminal: colours, and a live view of the current activity at the bottom.

Complete lines are printed once and scroll away; only the few lines of the live view are drawn again, ten times a
second.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from agentloop._runtime.exception_groups import raise_single
from agentloop.events import StreamEvent
from agentloop.terminal._characters import printable
from agentloop.terminal._lines import Kind, Line, Narrator, RunningCall, Speech
from agentloop.terminal._screen import Screen

__all__ = ["Fancy", "open_fancy", "render", "render_tail"]

REFRESH = 0.1
"""Seconds between two drawings of the live view. Drawing blocks the loop for a few milliseconds."""

COLOURS = ("cyan", "magenta", "blue", "green", "yellow")
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"

MARKS: dict[Kind, tuple[str, str]] = {
    "prompt": ("", ""),
    "added": ("= ", "yellow"),
    "says": ("", ""),
    "thinks": ("", "dim italic"),
    "calls": ("→ ", ""),
    "shows": ("│ ", "dim"),
    "result": ("✓ ", "green"),
    "failed": ("✗ ", "red"),
    "asks": ("? ", "bold yellow"),
    "answer": ("= ", "yellow"),
    "child": ("· ", "dim"),
    "kept": ("‖ ", "dim"),
    "warning": ("! ", "yellow"),
    "stopped": ("■ ", "dim"),
}
"""The mark in front of a line's text, and its style."""


ASCII = str.maketrans(
    {"→": "->", "│": "|", "✓": "+", "✗": "x", "·": ".", "‖": "||", "■": "#", "━": "=", "╌": "-"}
    | {spin: "|/-\\"[index % 4] for index, spin in enumerate(SPINNER)}
)
"""The marks for a terminal whose encoding has no others."""


def render(line: Line, colour: str, *, is_ascii: bool = False) -> RenderableType:
    """``line``, with its agent in ``colour``."""
    mark, style = MARKS[line.kind]
    mark = mark.translate(ASCII) if is_ascii else mark
    who = "you" if line.kind == "prompt" and line.depth == 0 else line.who
    told = line.text.replace("\n", "\n    ")
    text = Text.assemble((who, f"bold {colour}"), "  ", (mark, style or "dim"), (told, style))
    return _indented(text, line.depth)


def render_tail(
    speaking: list[tuple[Speech, str]],
    running: list[tuple[RunningCall, str, float]],
    paused: list[tuple[str, str]] | None = None,
    *,
    frame: int,
    room: int,
    is_ascii: bool = False,
) -> RenderableType:
    """Draw the current activity.

    Args:
      speaking: the agents that are writing, with their colours.
      running: the running calls, the colours of their agents, and for how many seconds they have run.
      paused: the agents whose runs are paused, with their colours.
      frame: counts up with each drawing.
      room: how many characters of each text are shown: its end.
      is_ascii: whether the terminal has ASCII characters only.
    """
    parts: list[RenderableType] = []
    for speech, colour in speaking:
        head = Text.assemble((speech.who, f"bold {colour}"), "  ")
        said = speech.text.lstrip()
        shown = said if len(said) <= room else f"... {said[-room:]}"
        parts.append(_indented(head.append(shown, style=MARKS[speech.kind][1]), speech.depth))
    for call, colour, seconds in running:
        spinner, progress = SPINNER[frame % len(SPINNER)], _progress(call)
        if is_ascii:
            spinner, progress = spinner.translate(ASCII), progress.translate(ASCII)
        text = Text.assemble((call.who, f"bold {colour}"), f"  {spinner} {call.name} ", (f"{seconds:.1f} s", "dim"))
        parts.append(_indented(text.append(progress), call.depth))
    for who, colour in paused or ():
        mark, style = MARKS["kept"]
        mark = mark.translate(ASCII) if is_ascii else mark
        parts.append(Text.assemble((who, f"bold {colour}"), "  ", (f"{mark}paused", style)))
    return Group(*parts)


def _progress(call: RunningCall) -> str:
    told = ""
    if call.progress is not None and call.total:
        filled = min(10, int(10 * call.progress / call.total))
        told = f"  {'━' * filled}{'╌' * (10 - filled)} {call.progress:g} of {call.total:g}"
    elif call.progress is not None:
        told = f"  {call.progress:g}"
    rest = call.message or call.output
    return f"{told}  {rest}" if rest else told


def _indented(text: Text, depth: int) -> RenderableType:
    return Padding(text, (0, 0, 0, 4 * depth)) if depth else text


def _has_marks(encoding: str) -> bool:
    try:
        f"{''.join(mark for mark, _ in MARKS.values())}{SPINNER}━╌".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class Fancy:
    """A screen of lines that stay, above a few that move."""

    def __init__(self, console: Console, clock: Callable[[], float] = trio.current_time) -> None:
        self._console = console
        self._clock = clock
        self._is_ascii = not _has_marks(console.encoding)
        self._narrator = Narrator()
        self._live: Live | None = None
        self._paused = 0
        self._frame = 0
        self._colours: dict[str, str] = {}
        self._began: dict[str, float] = {}
        """When the calls that run were first seen, by stream and call."""

    def show(self, event: StreamEvent) -> None:
        """Tell ``event``."""
        lines = self._narrator.tell(event)
        if lines and self._live is not None:
            # Before the lines are printed: otherwise they would stand there twice until the next drawing.
            if self._is_busy():
                self._live.update(self._tail(), refresh=True)
            else:
                self._hide()
        for line in lines:
            self._console.print(render(line, self._colour(line.who), is_ascii=self._is_ascii))

    def note(self, text: str = "") -> None:
        """Tell something that is no event."""
        self._console.print(Text(printable(text)))

    @contextmanager
    def paused(self) -> Generator[None]:
        """Draw nothing while the person types."""
        self._hide()
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def draw(self) -> None:
        """Draw the current activity."""
        self._frame += 1
        if self._paused or not self._is_busy():
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self._tail(), refresh=True)

    def _tail(self) -> RenderableType:
        now = self._clock()
        running = self._narrator.running
        self._began = {key: self._began.get(key, now) for key in running}
        return render_tail(
            [(speech, self._colour(speech.who)) for speech in self._narrator.speaking.values()],
            [(call, self._colour(call.who), now - self._began[key]) for key, call in running.items()],
            [(who, self._colour(who)) for who in self._narrator.paused.values()],
            frame=self._frame,
            is_ascii=self._is_ascii,
            room=max(20, self._console.width * max(1, self._console.height // 3)),
        )

    def _is_busy(self) -> bool:
        return bool(self._narrator.speaking or self._narrator.running or self._narrator.paused)

    def _hide(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _colour(self, who: str) -> str:
        return self._colours.setdefault(who, COLOURS[len(self._colours) % len(COLOURS)])

    async def keep_drawing(self) -> None:
        """Draw until cancelled."""
        while True:
            await trio.sleep(REFRESH)
            self.draw()

    def typed(self, text: str) -> None:
        """The terminal has echoed it already."""
        self._narrator.typed = text

    def cut(self) -> None:
        """Restore the terminal, and print the last text, even if it is incomplete."""
        self._hide()
        cut, self._narrator.speaking = self._narrator.speaking, {}
        for speech in cut.values():
            line = Line(speech.kind, speech.who, speech.text.strip(), speech.depth)
            self._console.print(render(line, self._colour(speech.who), is_ascii=self._is_ascii))


@asynccontextmanager
async def open_fancy() -> AsyncGenerator[Screen]:
    """A screen on the standard output, which moves until the block ends."""
    screen = Fancy(Console(highlight=False))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.keep_drawing)
            try:
                yield screen
            finally:
                screen.cut()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise_single(group)
