"""The picture as one HTML file, which needs neither network nor server, and which obeys no text of a run.

The data is JSON in a script element that no browser runs, with ``<`` escaped, so that no text in it can end the
element. The page's own script puts texts into the document as text. A content security policy allows this script and
this style by their hashes, and nothing else: no other script, no request to anywhere, no form. A page that a server
gives may send requests to that server alone.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from typing import Any

import msgspec

from agentloop.picture._spans import Span, Timeline
from agentloop.picture._words import critical_words, headline, share_words

__all__ = ["SCRIPT_HASH", "STYLE_HASH", "draw_data", "draw_html", "policy"]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_FOLDER = files("agentloop.picture")
_SCRIPT = _FOLDER.joinpath("page.js").read_text("utf-8")
_STYLE = _FOLDER.joinpath("page.css").read_text("utf-8")

SCRIPT_HASH = _hash(_SCRIPT)
"""The source of the page's script, for a content security policy: ``'sha256-...'``."""

STYLE_HASH = _hash(_STYLE)
"""The source of the page's style, for a content security policy."""


def policy(*, is_live: bool) -> str:
    """The content security policy of the page. A live page may ask the server that it came from."""
    connect = "; connect-src 'self'" if is_live else ""
    return (
        f"default-src 'none'; script-src {SCRIPT_HASH}; style-src {STYLE_HASH}{connect}; base-uri 'none'; "
        "form-action 'none'"
    )


def draw_data(timeline: Timeline) -> bytes:
    """The data of the page, as JSON."""
    critical: dict[int, list[tuple[float, float]]] = {}
    for segment in timeline.summary.critical:
        piece = (_seconds(segment.begin, timeline), _seconds(segment.end, timeline))
        critical.setdefault(segment.span, []).append(piece)
    summary = timeline.summary
    return msgspec.json.encode(
        {
            "session": timeline.session,
            "headline": headline(timeline),
            "shares": share_words(timeline),
            "figures": {
                "total": summary.total,
                "active": summary.active,
                "parked": summary.parked,
                "overlap": summary.overlap,
                "shares": [[share.name, share.seconds] for share in summary.shares],
            },
            "critical": critical_words(timeline),
            "slowest": summary.slowest,
            "notes": timeline.notes,
            "origin": timeline.begin,
            "length": _seconds(timeline.end, timeline),
            "gaps": [[_seconds(begin, timeline), _seconds(end, timeline)] for begin, end in timeline.gaps],
            "last": timeline.last_seq,
            "running": timeline.is_running,
            "spans": [_row(span, timeline, critical.get(span.id)) for span in timeline.spans],
        }
    )


def draw_html(timeline: Timeline, *, is_live: bool = False) -> str:
    """Draw ``timeline`` as an HTML document.

    Args:
      is_live: whether a server gives the page, at ``/sessions/{id}/picture``: the page then follows the session, with
        requests to that server. A page that is saved to a file follows nothing.
    """
    title = escape(f"{timeline.title or timeline.session}: picture of a run")
    data = draw_data(timeline).decode().replace("<", "\\u003c")
    settings = msgspec.json.encode({"live": is_live}).decode()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy(is_live=is_live))}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<script type="application/json" id="data">{data}</script>\n'
        f'<script type="application/json" id="settings">{settings}</script>\n'
        "<noscript>The picture is drawn by a script, which this browser does not run.</noscript>\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _row(span: Span, timeline: Timeline, critical: list[tuple[float, float]] | None) -> dict[str, Any]:
    """``span`` with short names and without what it has not: a session may have thousands."""
    row: dict[str, Any] = {
        "p": -1 if span.parent is None else span.parent,
        "k": span.kind,
        "n": span.name,
        "b": _seconds(span.begin, timeline),
        "e": _seconds(span.end, timeline),
        "s": span.status,
    }
    if span.first is not None:
        row["f"] = _seconds(span.first, timeline)
    if span.ran is not None:
        row["r"] = _seconds(span.ran, timeline)
    if span.cause_span is not None:
        row["x"] = span.cause_span
    if span.waits_for is not None:
        row["w"] = span.waits_for
    row.update((name, value) for name, value in (("c", span.cause), ("d", span.details), ("z", critical)) if value)
    return row


def _seconds(time: float, timeline: Timeline) -> float:
    return round(time - timeline.begin, 6)
