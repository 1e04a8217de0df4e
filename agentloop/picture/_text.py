"""The picture as text for a terminal: a tree with bars and durations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from unicodedata import combining, east_asian_width

from agentloop.picture._spans import Span, Timeline
from agentloop.picture._words import critical_words, duration, headline, on_one_line, share_words

__all__ = ["Axis", "draw_text"]

_BLOCKS = {"busy": "█", "waits": "░", "person": "▒", "parked": "·", "short": "▏", "moment": "◆", "edge": "│"}
_ASCII = {"busy": "#", "waits": ".", "person": "?", "parked": "~", "short": "|", "moment": "*", "edge": "|"}

MIN_WIDTH = 50
GAP_SHARE = 0.06
"""The part of the active time that a gap takes in a drawing, if it is longer."""


class Axis:
    """Where moments lie in a drawing whose width is 1. Long times in which no run is running are shortened."""

    def __init__(self, timeline: Timeline) -> None:
        gaps = timeline.gaps
        active = max(timeline.end - timeline.begin - sum(end - begin for begin, end in gaps), 1e-9)
        self._begin = timeline.begin
        self._cuts = [(begin, end, min(end - begin, active * GAP_SHARE)) for begin, end in gaps]
        self._length = active + sum(drawn for _begin, _end, drawn in self._cuts)
        self.is_cut = any(drawn < end - begin for begin, end, drawn in self._cuts)
        """Whether a gap is drawn shorter than it was."""

    def place(self, time: float) -> float:
        """The place of ``time``, from 0 to 1."""
        place = time - self._begin
        for begin, end, drawn in self._cuts:
            if time >= end:
                place -= end - begin - drawn
            elif time > begin:
                place -= (time - begin) * (1 - drawn / (end - begin))
        return min(max(place / self._length, 0.0), 1.0)


def draw_text(timeline: Timeline, *, width: int = 100, encoding: str = "utf-8") -> str:
    """Draw ``timeline`` for a terminal.

    Args:
      width: columns of the terminal; at least 50 are used.
      encoding: that of the terminal. Without block characters in it, the drawing is plain ASCII.
    """
    has_blocks = _can_encode("".join(_BLOCKS.values()) + "├└│ ", encoding)
    marks = _BLOCKS if has_blocks else _ASCII
    width = max(width, MIN_WIDTH)
    lines = list(_head(timeline))
    lines += ["", *_tree(timeline, width, marks)]
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    return text.encode(encoding, "replace").decode(encoding)


def _head(timeline: Timeline) -> Iterable[str]:
    yield headline(timeline)
    if not timeline.spans:
        return
    yield "  " + ", ".join(share_words(timeline))
    slowest = [f"{_name(timeline.spans[id])} {duration(seconds)}" for id, seconds in timeline.summary.slowest]
    if slowest:
        yield "  slowest: " + ", ".join(slowest)
    critical = critical_words(timeline)
    if critical:
        yield "  critical path: " + " > ".join(critical)
    yield from (f"  note: {note}" for note in timeline.notes)


def _tree(timeline: Timeline, width: int, marks: Mapping[str, str]) -> Iterable[str]:
    label_width = min(max(width * 2 // 5, 20), 44)
    bar_width = max(width - label_width - 24, 8)
    axis = Axis(timeline)
    depths: dict[int | None, int] = {None: -1}
    for span in timeline.spans:
        depth = depths[span.id] = depths[span.parent] + 1
        label = _fitted("  " * min(depth, label_width // 4) + _name(span), label_width)
        bar = _bar(span, axis, bar_width, marks)
        status = "" if span.status == "ok" else span.status
        took = "" if span.kind in ("message", "warning") else duration(span.seconds)
        yield f"{label} {marks['edge']}{bar}{marks['edge']} {took:>7}  {status}"
        around = None if span.parent is None else timeline.spans[span.parent]
        is_said = (
            around is not None and span.cause_span is not None and span.cause_span in (around.id, around.cause_span)
        )
        if span.cause and span.status != "ok" and not is_said:
            indent = "  " * (min(depth, label_width // 4) + 1)
            yield _fitted(indent + on_one_line(f"because: {span.cause}"), width).rstrip()


def _bar(span: Span, axis: Axis, width: int, marks: Mapping[str, str]) -> str:
    begin, end = axis.place(span.begin) * width, axis.place(span.end) * width
    first = min(int(begin), width - 1)
    last = min(max(int(end + 0.5), first + 1), width)
    if span.kind in ("message", "warning"):
        return " " * first + marks["moment"] + " " * (width - first - 1)
    if end - begin < 0.5:
        return " " * first + marks["short"] + " " * (width - first - 1)
    mark = {"question": "person", "parked": "parked", "stopped": "parked", "retry": "waits"}.get(span.kind, "busy")
    # A request waits for its first token, and a call for its permission.
    turning = span.first if span.kind == "request" else span.ran if span.kind == "tool" else None
    waiting = ("running",) if span.kind == "request" else ("running", "parked") if span.kind == "tool" else ()
    turned = (end if span.status in waiting else begin) if turning is None else axis.place(turning) * width
    waits = 0 if turned - begin < 0.5 else min(max(int(turned + 0.5) - first, 0), last - first)
    return " " * first + marks["waits"] * waits + marks[mark] * (last - first - waits) + " " * (width - last)


def _name(span: Span) -> str:
    name = on_one_line(span.name)
    return (
        name
        if span.kind not in ("request", "question")
        else f"{'asks' if span.kind == 'question' else 'model'}: {name}"
    )


def _fitted(text: str, width: int) -> str:
    """``text`` in exactly ``width`` columns."""
    columns = 0
    for index, letter in enumerate(text):
        wide = 0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1
        if columns + wide > width - (index < len(text) - 1):
            return text[:index] + "~" + " " * (width - columns - 1)
        columns += wide
    return text + " " * (width - columns)


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeError, LookupError):
        return False
    return True
