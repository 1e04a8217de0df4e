"""The picture as a trace for Perfetto and chrome://tracing, in Chrome's JSON format of trace events.

The tracks of one thread hold slices that nest. Spans that run side by side, such as the calls of a turn, therefore have
tracks of their own, and a flow leads from the call to the child run that it opened.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentloop.picture._spans import Span, Timeline

__all__ = ["draw_trace"]

PROCESS = 1


class _Track:
    """A track, with the slices that are open on it."""

    def __init__(self, id: int) -> None:
        self.id = id
        self._open: list[int] = []
        self._last = -1

    def takes(self, begin: int, end: int) -> bool:
        """Put a slice on the track, if it nests in those that are there. Slices come in order of their begin."""
        if begin < self._last:
            return False
        while self._open and self._open[-1] <= begin:
            self._open.pop()
        if self._open and self._open[-1] < end:
            return False
        self._open.append(end)
        self._last = begin
        return True


class _Tracks:
    """The tracks of one run: the first one is its own, the others are for what happens side by side."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tracks: list[_Track] = []


def draw_trace(timeline: Timeline) -> bytes:
    """Draw ``timeline`` as a JSON object with trace events."""
    events: list[dict[str, Any]] = [_metadata("process_name", 0, {"name": f"session {timeline.session}"})]
    runs: dict[int | None, _Tracks] = {None: _Tracks("session")}
    run_of: dict[int | None, int | None] = {None: None}
    track_of: dict[int, _Track] = {}
    count = 0
    for span in timeline.spans:
        run = run_of[span.id] = span.id if span.kind == "run" else run_of[span.parent]
        if span.kind == "run":
            runs[span.id] = _Tracks(span.name)
        tracks = runs[run]
        begin, end = _micros(span.begin, timeline), _micros(span.end, timeline)
        # A call begins on a track beside its run's; what is inside a call stays on the call's track, if it nests there.
        around = track_of.get(span.parent) if span.parent is not None and span.kind != "run" else None
        is_beside = span.kind == "tool"
        candidates = [*([around] if around is not None and not is_beside else []), *tracks.tracks[is_beside:]]
        track = next((track for track in candidates if track.takes(begin, end)), None)
        if track is None:
            count += 1
            track = _Track(count)
            track.takes(begin, end)
            lane = len(tracks.tracks)
            tracks.tracks.append(track)
            name = tracks.name if lane == 0 else f"{tracks.name}, beside ({lane})"
            events.append(_metadata("thread_name", track.id, {"name": name}))
            events.append(_metadata("thread_sort_index", track.id, {"sort_index": track.id}))
        track_of[span.id] = track
        events.extend(_slices(span, track.id, timeline))
        if span.kind == "run" and span.parent is not None:
            flow = {"name": "child run", "cat": "flow", "id": span.id, "pid": PROCESS, "ts": begin}
            events.append({**flow, "ph": "s", "tid": track_of[span.parent].id})
            events.append({**flow, "ph": "f", "bp": "e", "tid": track.id})
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})


def _slices(span: Span, track: int, timeline: Timeline) -> list[dict[str, Any]]:
    begin, end = _micros(span.begin, timeline), _micros(span.end, timeline)
    facts: dict[str, str] = {"status": span.status}
    facts.update((label, text) for label, text in (("cause", span.cause), *span.details) if text)
    if span.cause_span is not None:
        facts["cancelled by"] = timeline.spans[span.cause_span].name
    if span.waits_for is not None:
        facts["waited last for"] = timeline.spans[span.waits_for].name
    shared = {"name": span.name or span.kind, "cat": span.kind, "pid": PROCESS, "tid": track, "ts": begin}
    if span.kind in ("message", "warning"):
        return [{**shared, "ph": "i", "s": "t", "args": facts}]
    slices: list[dict[str, Any]] = [{**shared, "ph": "X", "dur": end - begin, "args": facts}]
    for name, moment in (("first token", span.first), ("the tool runs", span.ran)):
        if moment is not None:
            at = _micros(moment, timeline)
            mark = {"ph": "i", "s": "t", "name": name, "cat": span.kind, "pid": PROCESS, "tid": track, "ts": at}
            slices.append(mark)
    return slices


def _metadata(name: str, track: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": PROCESS, "tid": track, "args": args}


def _micros(time: float, timeline: Timeline) -> int:
    return round((time - timeline.begin) * 1_000_000)
