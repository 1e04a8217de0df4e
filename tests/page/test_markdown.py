"""The small renderer of Markdown: what each form becomes, also while it is still being written."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.page.support import Server, Watched

pytestmark = pytest.mark.real_clock

RENDER = """
async ([text, piece]) => {
  const { MarkdownView } = await import("/page/markdown.js");
  const element = document.createElement("div");
  const view = new MarkdownView(element);
  for (let end = piece; end < text.length; end += piece) view.update(text.slice(0, end));
  view.update(text);
  const names = ["dir", "class", "title", "rel", "target", "tabindex", "role", "aria-label", "scope"];
  for (const one of element.querySelectorAll("*")) for (const name of names) one.removeAttribute(name);
  for (const button of element.querySelectorAll("button")) button.remove();
  return element.innerHTML;
}
"""

CODE = "<figure><figcaption><span>{}</span></figcaption><pre><code>{}</code></pre></figure>"
CASES = {
    "one\ntwo": "<p>one\ntwo</p>",
    "one\n\ntwo": "<p>one</p><p>two</p>",
    "one  \ntwo": "<p>one<br>two</p>",
    "# A\n## B ##\n####### C": "<h3>A</h3><h4>B</h4><p>####### C</p>",
    "a **b** __c__ *d* _e_ ~~f~~": "<p>a <strong>b</strong> <strong>c</strong> <em>d</em> <em>e</em> <del>f</del></p>",
    "***both*** snake_case_name 2 * 3 * 4": "<p><strong><em>both</em></strong> snake_case_name 2 * 3 * 4</p>",
    "**a *b* c** *a **b** c*": "<p><strong>a <em>b</em> c</strong> <em>a <strong>b</strong> c</em></p>",
    r"\*not\* \`this\`": "<p>*not* `this`</p>",
    "`a*b*` ``c`d``": "<p><code>a*b*</code> <code>c`d</code></p>",
    "**unclosed and `more": "<p>**unclosed and `more</p>",
    "- a\n- b\n  - c\n- d": "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>",
    "1. a\n2. b": "<ol><li>a</li><li>b</li></ol>",
    "3) a\n4) b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "- a\n\n- b": "<ul><li><p>a</p></li><li><p>b</p></li></ul>",
    "1. a\n\n   ```py\n   x\n   ```\n2. b": "<ol><li>a" + CODE.format("py", "x") + "</li><li>b</li></ol>",
    "1. a\n   - b\n   - c\n2. d": "<ol><li>a<ul><li>b</li><li>c</li></ul></li><li>d</li></ol>",
    "- [ ] a\n- [x] b": "<ul><li><span>\u2610 </span>a</li><li><span>\u2611 </span>b</li></ul>",
    "text\n- a\n\nmore": "<p>text</p><ul><li>a</li></ul><p>more</p>",
    "> a\n> b\n\nc": "<blockquote><p>a\nb</p></blockquote><p>c</p>",
    "> - a\n> - b": "<blockquote><ul><li>a</li><li>b</li></ul></blockquote>",
    "a\n\n---\n\nb": "<p>a</p><hr><p>b</p>",
    "```\na\n\n<b>\n```\nc": CODE.format("text", "a\n\n&lt;b&gt;") + "<p>c</p>",
    "~~~js\nx = `1`": CODE.format("js", "x = `1`"),
    "[a](https://x.example/b) <https://y.example>": (
        '<p><a href="https://x.example/b">a</a> <a href="https://y.example/">https://y.example</a></p>'
    ),
    "see https://x.example/a_(b). Or (https://x.example/c)": (
        '<p>see <a href="https://x.example/a_(b)">https://x.example/a_(b)</a>. '
        'Or (<a href="https://x.example/c">https://x.example/c</a>)</p>'
    ),
    '[a](https://x.example "t") [b](/relative) [c] [d](': (
        '<p><a href="https://x.example/">a</a> <span>b</span> [c] [d](</p>'
    ),
    "[a@b](mailto:a@b.example)": '<p><a href="mailto:a@b.example">a@b</a></p>',
    "| a | b |\n| :-- | --: |\n| 1 | `x\\|y` |\n| 2 |": (
        "<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td><code>x|y</code></td></tr>"
        "<tr><td>2</td><td></td></tr></tbody></table></div>"
    ),
    "a | b": "<p>a | b</p>",
    "<b>x</b> &amp; <!-- y -->": "<p>&lt;b&gt;x&lt;/b&gt; &amp;amp; &lt;!-- y --&gt;</p>",
}


@pytest.fixture(scope="module")
def rendering(browser: object, shared_server: Server) -> object:
    page: Page = browser.new_page()  # type: ignore[attr-defined]
    Watched(page).open(shared_server.address)
    return page


@pytest.mark.parametrize("piece", [10_000, 1])
def test_each_form_of_markdown_becomes_the_same_nodes_however_it_comes(rendering: Page, piece: int) -> None:
    made = {text: rendering.evaluate(RENDER, [text, piece]) for text in CASES}
    assert made == CASES


def test_no_text_takes_long(rendering: Page) -> None:
    for part in ("*a ", "**a ", "[", "[a](", "`", "> ", "- ", "![", "_", "<", "| a ", "* * ", "https://", "\\"):
        for text in (part * 20_000, f"{part}\n" * 5_000):
            before = rendering.evaluate("performance.now()")
            rendering.evaluate(RENDER, [text, 1_000_000])
            assert rendering.evaluate("performance.now()") - before < 3000, part
