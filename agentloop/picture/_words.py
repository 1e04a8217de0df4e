"""The sentences of the picture, for all of its forms."""

from __future__ import annotations

from agentloop.picture._spans import Timeline

__all__ = ["critical_words", "duration", "headline", "on_one_line", "share_words"]


def duration(seconds: float) -> str:
    """A duration in few characters: ``840 ms``, ``12.3 s``, ``4 min 05 s``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def on_one_line(text: str) -> str:
    """``text`` without line breaks, and without characters that a terminal obeys or that turn the text around."""
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def headline(timeline: Timeline) -> str:
    """One line: the session, its runs, and how long they took."""
    runs = [span for span in timeline.spans if span.kind == "run" and span.parent is None]
    named = on_one_line(f"{timeline.session} ({timeline.title})" if timeline.title else timeline.session)
    if not runs:
        return f"session {named}: no runs"
    summary = timeline.summary
    text = f"session {named}: {len(runs)} run{'s' if len(runs) > 1 else ''}, {duration(summary.total)}"
    if summary.parked:
        text += f", of these {duration(summary.active)} running and {duration(summary.parked)} parked"
    if timeline.fork_of:
        text += f"; a fork of {on_one_line(timeline.fork_of)}"
    return text + ("; still running" if timeline.is_running else "")


def share_words(timeline: Timeline) -> list[str]:
    """The shares of the time, in words."""
    summary = timeline.summary
    active = summary.active or 1.0
    words = [
        f"{share.name} {duration(share.seconds)} ({share.seconds / active:.0%})"
        for share in summary.shares
        if share.seconds > 0
    ]
    return [*words, f"overlap {duration(summary.overlap)}"] if summary.overlap else words


def critical_words(timeline: Timeline) -> list[str]:
    """The spans of the critical path that took longest, in order of time."""
    spans, totals = timeline.spans, dict[int, float]()
    for segment in timeline.summary.critical:
        totals[segment.span] = totals.get(segment.span, 0.0) + segment.end - segment.begin
    longest = sorted(totals, key=totals.__getitem__, reverse=True)[:6]
    return [f"{on_one_line(spans[id].name)} {duration(totals[id])}" for id in totals if id in longest]
