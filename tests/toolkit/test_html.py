"""HTML as text for a model."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, strategies as st

from agentloop.toolkit._html import html_to_text

BASE = "https://example.org/dir/page"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>one <b>bold</b> word</p><p>two</p>", "one bold word\n\ntwo"),
        ("<h1>Title</h1>text<h3>Sub</h3>", "# Title\n\ntext\n\n### Sub"),
        ("<ul><li>a</li><li>b <i>c</i></li></ul>after", "- a\n- b c\n\nafter"),
        ("a<br>b<hr>c", "a\nb\n---\nc"),
        ("x &amp; y &lt;z&gt; &euro;&#8364;", "x & y <z> €€"),
        ("<script>no()</script><style>no</style><p>yes</p><noscript>no</noscript>", "yes"),
        ("<svg><title>no</title></svg><p>yes", "yes"),
        ("<html><head><title> The\n page </title><meta x></head><body>yes</body>", "The page\n\nyes"),
        ("<head><title>T</title><body>no head end", "T\n\nno head end"),
        ('<a href="/x">here</a> and <a href="y?z=1#a">there</a>',
         "[here](https://example.org/x) and [there](https://example.org/dir/y?z=1#a)"),
        ('<a href="javascript:x()">js</a> <a name=x>anchor</a> <a href="http://[">bad</a>', "js anchor bad"),
        ('go <a href="http://x/"> here </a> now', "go [here](http://x/) now"),
        ("<pre>  a\n    b</pre>c", "```\n  a\n    b\n```\n\nc"),
        ("<table><tr><th>a<th>b</tr><tr><td>1<td>2</tr></table>", "a | b\n1 | 2"),
        ('<img alt="a cat" src=x><img src=y>', "[image: a cat]"),
        ("a   lot\n of\t space", "a lot of space"),
        ("<div><div><div>deep</div></div></div>", "deep"),
        ("<p>never closed <b>either", "never closed either"),
        ("</p></a></ul>stray ends", "stray ends"),
        ("no markup at all", "no markup at all"),
        ("<!-- hidden --><p>shown", "shown"),
        ("1 < 2 <3 </ 4 a<b", "1 < 2 <3 </ 4 a"),
        (r"<>&lt;p&gt;&amp;lt;", "<><p>&lt;"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_page_becomes_text(html: str, text: str) -> None:
    assert html_to_text(html, BASE) == text


@given(st.text(alphabet="<>/ab!-&;\"'= \n", max_size=200) | st.text())
def test_any_string_becomes_a_text_without_two_empty_lines_in_a_row(html: str) -> None:
    assert "\n\n\n" not in html_to_text(html, BASE)


@pytest.mark.parametrize(
    "piece",
    ["<!--", "<", "<a ", "<a x='", "<a href=", "</", "&", "&#", "<![CDATA[", "<script>", "<title>", "<svg>", "</p>",
     "<a>x", "<b> </b>", "<pre> ", " ", "<p", "<a =", "x=", "<a " + "x" * 1000],
)  # fmt: skip
def test_a_hostile_page_takes_time_in_proportion_to_its_length(piece: str) -> None:
    """A converter that searches the rest of the page at each piece would take minutes."""
    began = time.perf_counter()

    html_to_text(piece * (200_000 // len(piece)), BASE)

    assert time.perf_counter() - began < 5


def test_content_at_any_depth_is_part_of_the_text() -> None:
    assert html_to_text("<div>" * 200_000 + "deep" + "</div>" * 200_000 + "<p>after", BASE) == "deep\n\nafter"
    assert html_to_text("<b>x" * 5000, BASE) == "x" * 5000


@pytest.mark.parametrize(
    "html",
    [
        "<" * 1_000_000,
        "<blockquote>" * 400 + "<p>x</p>" * 10_000,
        "<pre> " * 20_000,
        "<table>" + ("<tr>" + "<td>cell" * 5) * 2_000,
        "<table><tr>" + "<td colspan=1000000000 rowspan=1000000000>x" * 1000,
        "<ul><li>" * 10_000 + "x",
    ],
    ids=lambda html: html[:20],
)
def test_a_hostile_page_takes_memory_in_proportion_to_its_length(html: str) -> None:
    tracemalloc.start()
    try:
        text = html_to_text(html, BASE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) < 4 * len(html)
    assert peak < 50 * len(html)


def test_an_attribute_may_contain_the_end_of_a_tag() -> None:
    html = """<p title="a > b">one <a title='>' href=/x>two</a> <p don't>three <P CLASS=x>four <a href='/y">five"""

    assert html_to_text(html, BASE) == "one [two](https://example.org/x)\n\nthree\n\nfour"


def test_the_conversion_of_a_long_page_can_be_cancelled() -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        html_to_text("<p>x</p>" * 100_000, BASE, check=check)
