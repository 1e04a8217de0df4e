"""The picture of a run: a timeline of its turns, requests, tools, questions and child runs, as the journal has them.

``python -m agentloop picture SESSION --store chats.db`` writes it. `timeline` derives it from the records of a session;
`draw_html`, `draw_trace` and `draw_text` draw it.
"""

from __future__ import annotations

from agentloop.picture._html import SCRIPT_HASH, STYLE_HASH, draw_data, draw_html
from agentloop.picture._perfetto import draw_trace
from agentloop.picture._spans import Segment, Share, Span, Summary, Timeline
from agentloop.picture._text import draw_text
from agentloop.picture._timeline import timeline

__all__ = [
    "SCRIPT_HASH",
    "STYLE_HASH",
    "Segment",
    "Share",
    "Span",
    "Summary",
    "Timeline",
    "draw_data",
    "draw_html",
    "draw_text",
    "draw_trace",
    "timeline",
]
