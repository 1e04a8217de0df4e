"""HTML as text that a model reads well: headings, lists, links and preformatted text as in Markdown.

Made by hand, of one regular expression. The parser of the standard library takes minutes for a page of a megabyte
that is made to be slow (``<!--`` again and again), in a thread that cannot be stopped; each step here takes as long as
what it looks at, and looks at nothing twice. The libraries that do this better bring a tree of dependencies, or a
licence that does not go with ours, and a model reads well enough what this gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from urllib.parse import urljoin

__all__ = ["html_to_text"]

# What is never closed goes on to the end, as in browsers: else each beginning would look through all that follows.
TOKEN = re.compile(
    r"""
    <!--(?:.*?-->|.*+)
    | <[!?][^>]*+>?
    | <(?P<end>/?)(?P<tag>[a-zA-Z][^\s/>]*+)(?P<attributes>(?:[^>=]++|=\s*+(?:"[^"]*+"?|'[^']*+'?)?)*+)>?
    | (?P<text>[^<]++|<)
    """,
    re.VERBOSE | re.DOTALL,
)
ATTRIBUTE = re.compile(r"""([^\s=/]++)(?:\s*+=\s*+(?:"([^"]*+)"?|'([^']*+)'?|([^\s]*+)))?""")
RAW = {tag: re.compile(f"</{tag}", re.IGNORECASE) for tag in ("script", "style", "title", "textarea", "iframe")}
"""Elements in which nothing is a tag but their own end."""
SKIPPED = {"head", "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "select", "canvas"}
BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "li", "main", "nav", "ol",
    "p", "pre", "section", "summary", "table", "tr", "ul",
}  # fmt: skip
HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
CHECK_EVERY = 1000


def html_to_text(html: str, base: str, *, check: Callable[[], None] = lambda: None) -> str:
    """The text of a page.

    Args:
      html: the page.
      base: its URL, for links that are relative to it.
      check: called again and again; what it raises ends the work.
    """
    text = _Text(base)
    at = count = 0
    while at < len(html):
        count += 1
        if count % CHECK_EVERY == 0:
            check()
        found = TOKEN.match(html, at)
        assert found is not None, "every character begins a token"
        at = found.end()
        tag = (found["tag"] or "").lower()
        if found["text"]:
            text.data(found["text"])
        elif found["end"]:
            text.end(tag)
        elif tag:
            text.begin(tag, found["attributes"])
            if tag in RAW:
                end = RAW[tag].search(html, at)
                text.raw(tag, html[at : len(html) if end is None else end.start()])
                at = len(html) if end is None else end.start()
    return text.text()


def _attributes(text: str) -> dict[str, str]:
    found = ATTRIBUTE.finditer(text)
    return {one[1].lower(): unescape(one[2] or one[3] or one[4] or "") for one in found}


class _Text:
    """What the tokens of a page make."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._out: list[str] = []
        """Pieces of text, none of them empty."""
        self._skipping = ""
        """The element that is passed over, if one is."""
        self._depth = 0
        """How many of its kind are open in each other."""
        self._pre = 0
        self._link: tuple[str, int] | None = None
        """Where the open link leads, and where its text begins."""

    def text(self) -> str:
        """What was parsed so far."""
        lines = "".join(self._out).split("\n")
        return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip()

    def begin(self, tag: str, attributes: str) -> None:
        """A tag that begins an element."""
        if tag == "body" and self._skipping == "head":
            self._skipping = ""  # a page may leave out the end of its head
        if self._skipping:
            self._depth += tag == self._skipping
            return
        if tag in SKIPPED:
            self._skipping, self._depth = tag, 1
            return
        if tag in BLOCKS:
            self._break(2 if tag in HEADINGS or tag in {"p", "pre", "table"} else 1)
        if tag in HEADINGS:
            self._out.append(f"{HEADINGS[tag]} ")
        elif tag == "li":
            self._out.append("- ")
        elif tag == "br":
            self._out.append("\n")
        elif tag == "hr":
            self._out.append("---\n")
        elif tag in {"td", "th"}:
            self._space(" | ")
        elif tag == "pre":
            self._pre += 1
            self._out.append("```\n")
        elif tag == "img":
            alternative = _attributes(attributes).get("alt")
            if alternative:
                self._out.append(f"[image: {alternative}]")
        elif tag == "a":
            self._end_link()
            self._link = (_attributes(attributes).get("href", ""), len(self._out))

    def raw(self, tag: str, data: str) -> None:
        """What is in an element that holds nothing but text."""
        if tag == "title" and self._skipping in ("", "head"):
            title = " ".join(unescape(data).split())
            self._out += [f"{title}\n\n"] if title else []
        elif tag == "textarea":
            self.data(data)

    def end(self, tag: str) -> None:
        """A tag that ends an element."""
        if self._skipping:
            self._depth -= tag == self._skipping
            if self._depth == 0:
                self._skipping = ""
            return
        if tag == "a":
            self._end_link()
        if tag == "pre" and self._pre:
            self._pre -= 1
            self._break(1)
            self._out.append("```\n")
        if tag in BLOCKS:
            self._break(2 if tag in HEADINGS or tag in {"p", "pre", "table", "ul", "ol"} else 1)

    def _end_link(self) -> None:
        if self._link is None:
            return
        (href, begin), self._link = self._link, None
        whole = "".join(self._out[begin:])
        text = whole.strip()
        try:
            target = urljoin(self._base, href.strip())
        except ValueError:
            return
        if href and text and "\n" not in text and target.startswith(("http://", "https://")) and target != text:
            lead, _, tail = whole.partition(text)
            self._out[begin:] = [f"{lead}[{text}]({target}){tail}"]

    def data(self, data: str) -> None:
        """Text between tags."""
        if self._skipping:
            return
        data = unescape(data)
        if self._pre:
            self._out.append(data)
            return
        text = " ".join(data.split())
        if data[:1].isspace():
            self._space(" ")
        if text:
            self._out.append(f"{text} " if data[-1].isspace() else text)

    def _space(self, space: str) -> None:
        if self._out and not self._out[-1][-1].isspace():
            self._out.append(space)

    def _break(self, lines: int) -> None:
        """End the line; with 2, leave one empty."""
        if self._out:
            end = "".join(self._out[-2:])[-2:]
            missing = lines - (len(end) - len(end.rstrip("\n")))
            if missing > 0:
                self._out.append("\n" * missing)
