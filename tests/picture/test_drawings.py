"""The drawings of a timeline: text, a trace for Perfetto, and a page that obeys no text of a run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import defaultdict
from html.parser import HTMLParser
from typing import Any

import pytest

from agentloop import Agent
from agentloop.picture import Timeline, draw_html, draw_text, draw_trace, timeline
from agentloop.picture._text import Axis
from agentloop.picture._words import duration
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import calls
from tests.picture.support import drawn, run_parked, run_stopped, search, slow, use_virtual_time

pytestmark = pytest.mark.seconds(1000)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[2J\u202eevil]]>&quot;"


@pytest.fixture(autouse=True)
def _virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    use_virtual_time(monkeypatch)


async def hostile() -> Timeline:
    agent = Agent(slow(calls(HOSTILE, q=HOSTILE), HOSTILE, name=HOSTILE), name="a", tools=[search])
    async with MemoryStore().open() as store:
        async with stored_session(store, "h") as session:
            await agent.run(HOSTILE, session=session)
        await store.rename("h", HOSTILE)
        return await drawn(store, "h")


class Page(HTMLParser):
    """The elements of a page, and the text of each script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open, data))


async def test_no_text_of_a_run_becomes_markup_and_only_the_pages_own_script_may_run() -> None:
    picture = await hostile()
    html = draw_html(picture)
    page = Page(html)
    tags = "html head meta meta meta meta title style body script script noscript script"
    assert " ".join(tag for tag, _ in page.elements) == tags
    scripts = [text for tag, text in page.texts if tag == "script" and text.strip()]
    assert json.loads(scripts[0])["spans"][2]["n"] == HOSTILE
    policy = next(attrs["content"] or "" for _, attrs in page.elements if "http-equiv" in attrs)
    style = next(text for tag, text in page.texts if tag == "style")
    for kind, text in (("script-src", scripts[-1]), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    assert "; connect-src &#x27;self&#x27;;" in draw_html(picture, is_live=True)
    # The script has no way to make markup of a text, and asks for nothing from anywhere else.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|https?://", scripts[-1])


async def test_no_text_of_a_run_commands_the_terminal() -> None:
    picture = await hostile()
    for encoding in ("utf-8", "ascii"):
        text = draw_text(picture, encoding=encoding)
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)
        assert text.encode(encoding)


async def test_text_fits_the_terminal_and_has_blocks_only_where_it_can_show_them() -> None:
    async with MemoryStore().open() as store:
        await run_parked(store)
        await run_stopped(store)
        picture, stopped = await drawn(store, "trip"), await drawn(store, "stopped")
    for width in (60, 100):
        tree = draw_text(picture, width=width).split("\n\n")[1]
        assert max(map(len, tree.splitlines())) <= width
    plain = draw_text(picture, encoding="latin-1")
    assert "░" not in plain
    assert "researcher " in plain
    assert "#" in plain
    # Parked for a minute, drawn as a part of the 14 seconds in which it ran.
    line = next(line for line in draw_text(picture).splitlines() if line.startswith("parked"))
    assert 0 < line.count("·") <= 4
    assert "60.0 s" in line
    axis = Axis(picture)
    assert axis.is_cut
    assert [axis.place(picture.begin), axis.place(picture.end)] == [0.0, pytest.approx(1.0)]
    assert axis.place(picture.gaps[0][0]) < axis.place(sum(picture.gaps[0]) / 2) < axis.place(picture.gaps[0][1])
    assert draw_text(stopped).count("because: the user pressed stop") == 1
    assert draw_text(timeline([])) == "session : no runs\n\n"


async def test_wide_letters_take_two_columns() -> None:
    agent = Agent(slow("Hi", name="模型" * 40), name="代理" * 40)
    async with MemoryStore().open() as store:
        async with stored_session(store, "w") as session:
            await agent.run("Go", session=session)
        lines = draw_text(await drawn(store, "w"), width=60).split("\n\n")[1].splitlines()
    assert {line.index("│") + sum(ord(letter) > 0x2FFF for letter in line.split("│")[0]) for line in lines} == {25}


async def test_the_trace_has_slices_that_nest_and_a_flow_to_each_child_run() -> None:
    async with MemoryStore().open() as store:
        await run_parked(store)
        events: list[dict[str, Any]] = json.loads(draw_trace(await drawn(store, "trip")))["traceEvents"]
    tracks: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        assert {"ph", "pid", "tid", "name"} <= event.keys()
        assert event["ph"] == "M" or isinstance(event["ts"], int)
        if event["ph"] == "X":
            tracks[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for slices in tracks.values():
        for begin, end in slices:
            for other_begin, other_end in slices:
                # Either one is inside the other, or they do not overlap.
                assert not begin < other_begin < end < other_end
    starts, ends = ([event for event in events if event["ph"] == phase] for phase in "sf")
    assert [event["id"] for event in starts] == [event["id"] for event in ends]
    assert len(starts) == 1
    assert starts[0]["tid"] != ends[0]["tid"]
    named = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"clerk", "researcher", "clerk, beside (1)"} <= named
    assert "first token" in {event["name"] for event in events}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 ms"),
        (0.9996, "1.0 s"),
        (12.34, "12.3 s"),
        (245, "4 min 05 s"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_a_duration_takes_few_characters(seconds: float, words: str) -> None:
    assert duration(seconds) == words
