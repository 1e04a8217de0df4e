"""Where the time went: shares of the time, the critical path, and the slowest spans. Plain functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from agentloop.picture._spans import Segment, Share, Span, Summary

__all__ = ["children_of", "critical_path", "summarize"]

Interval = tuple[float, float]

SHARE_OF = {"request": "models", "tool": "tools", "question": "people", "retry": "retries"}
"""The kinds of spans that do something themselves, with the name of their share."""


def children_of(spans: Iterable[Span]) -> Mapping[int | None, Sequence[Span]]:
    """The spans by the id of their parent."""
    children: dict[int | None, list[Span]] = defaultdict(list)
    for span in spans:
        children[span.parent].append(span)
    return children


def summarize(spans: Sequence[Span]) -> Summary:
    """Sum up the spans of a timeline."""
    children = children_of(spans)
    runs = [span for span in children[None] if span.kind == "run"]
    parked = _union((span.begin, span.end) for span in children[None] if span.kind in ("parked", "stopped"))
    active = _union((span.begin, span.end) for span in runs)
    busy: dict[str, list[Interval]] = {name: [] for name in SHARE_OF.values()}
    own: dict[int, float] = {}
    for span in spans:
        if span.kind in SHARE_OF:
            intervals = _without((span.begin, span.end), _union((c.begin, c.end) for c in children.get(span.id, ())))
            busy[SHARE_OF[span.kind]].extend(intervals)
            own[span.id] = _length(intervals)
    everything = [interval for intervals in busy.values() for interval in intervals]
    covered = _union(everything)
    shares = [Share(name, _length(_union(intervals))) for name, intervals in busy.items()]
    rest = _length(active) - _length(covered)
    critical = [segment for run in runs for segment in critical_path(run, children)]
    slowest = sorted(own, key=lambda number: (-own[number], number))[:5]
    return Summary(
        total=_length(active) + _length(parked),
        active=_length(active),
        shares=(*shares, Share("rest", max(rest, 0.0))),
        parked=_length(parked),
        overlap=_overlap(everything),
        critical=tuple(critical),
        slowest=tuple((id, own[id]) for id in slowest if own[id] > 0),
    )


def critical_path(run: Span, children: Mapping[int | None, Sequence[Span]]) -> list[Segment]:
    """The spans that the end of ``run`` waited for, from its begin to its end.

    From the end backwards: a span waits for the span inside it that ended last, and before that one began, for the
    one that had ended last until then; where there is none, the time is the span's own.
    """
    segments: list[Segment] = []
    # Each entry: the span, and the time until which it is looked at. A stack instead of calls: runs may nest deeply.
    stack = [(run, run.end)]
    while stack:
        span, until = stack.pop()
        pieces: list[tuple[Span, float, float]] = []
        time = until
        for child in sorted(children.get(span.id, ()), key=_weight, reverse=True):
            if child.begin >= time or child.end <= child.begin:
                continue
            if child.end < time:
                segments.append(Segment(span.id, child.end, time))
            pieces.append((child, child.begin, min(child.end, time)))
            time = child.begin
        if span.begin < time:
            segments.append(Segment(span.id, span.begin, time))
        stack.extend((child, end) for child, _begin, end in pieces)
    return sorted(segments, key=lambda segment: segment.begin)


def _weight(span: Span) -> tuple[float, bool]:
    """The order in which a path looks at spans: by their end; of equals, first those that ended by themselves."""
    return span.end, span.status not in ("parked", "cancelled", "interrupted")


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    """The intervals in order, those that overlap as one."""
    joined: list[Interval] = []
    for begin, end in sorted(intervals):
        if end <= begin:
            continue
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def _without(interval: Interval, taken: Sequence[Interval]) -> list[Interval]:
    """What is left of ``interval`` outside of ``taken``, which is in order."""
    left: list[Interval] = []
    time, end = interval
    for begin, until in taken:
        if begin > time:
            left.append((time, min(begin, end)))
        time = max(time, until)
        if time >= end:
            break
    if time < end:
        left.append((time, end))
    return left


def _length(intervals: Iterable[Interval]) -> float:
    return sum(end - begin for begin, end in intervals)


def _overlap(intervals: Iterable[Interval]) -> float:
    """Seconds that are in two or more of the intervals."""
    edges: list[tuple[float, int]] = []
    for begin, end in intervals:
        edges.extend(((begin, 1), (end, -1)))
    depth, since, total = 0, 0.0, 0.0
    for time, step in sorted(edges):
        if depth >= 2:
            total += time - since
        depth, since = depth + step, time
    return total
