"""Text from models, tools and people is text on the page, whatever it is made of."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.page.support import Server, Watched

pytestmark = pytest.mark.real_clock

FOREIGN = """
document.querySelectorAll("#transcript :is(script, iframe, object, embed, style, img, base, form, a a)").length
"""
ATTRIBUTES = """
[...document.querySelectorAll('*')].flatMap((element) => [...element.attributes])
  .filter(({ name, value }) => name.startsWith('on') || /^\\s*(javascript|vbscript|data:text|file):/i.test(value))
  .length
"""


def test_a_hostile_answer_becomes_no_markup_runs_nothing_and_loads_nothing(tab: Watched, shared_server: Server) -> None:
    page = tab.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    tab.open(shared_server.address).say("hostile")
    answer = tab.until_done()
    assert page.evaluate("window.pwned") is None
    assert page.evaluate(FOREIGN) == 0
    assert page.evaluate(ATTRIBUTES) == 0
    assert [url for url in asked if not url.startswith(shared_server.address)] == []
    # All of it can be read.
    for text in ("<script>window.pwned = 1</script>", '<img src=x onerror="window.pwned = 2">', "<iframe src="):
        assert text in answer
    links = page.locator(".text a").evaluate_all("links => links.map((link) => [link.href, link.rel, link.target])")
    assert [href for href, _, _ in links] == [
        "https://tracker.example/pixel.png",
        "https://evil.example/login",
        "https://evil.example/",
        "https://example.com/a?b=c",
        "https://evil.example/",
    ]
    assert {(rel, target) for _, rel, target in links} == {("noopener noreferrer nofollow", "_blank")}
    # Words that name another site than the address does.
    assert "https://bank.example (evil.example)" in answer


def test_a_page_with_a_hole_would_still_run_nothing(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address)
    page = tab.page
    refused = page.evaluate("try { document.body.innerHTML = '<b>x</b>'; false } catch (error) { error.name }")
    assert refused == "TypeError"
    page.evaluate("const script = document.createElement('script'); try { script.text = 'window.pwned = 1' } catch {}")
    assert page.evaluate("window.pwned") is None
    tab.problems.clear()


def test_a_prompt_a_title_and_a_denial_are_text(tab: Watched, shared_server: Server) -> None:
    markup = "echo <img src=x onerror=window.pwned=1> **not bold**"
    tab.open(shared_server.address).say(markup)
    tab.until_done()
    page = tab.page
    expect(page.locator(".bubble")).to_contain_text(markup)
    expect(page.locator("h1#title")).to_have_text(markup)
    expect(page.locator("#sessions a[aria-current]")).to_contain_text("<img src=x")
    assert page.evaluate("window.pwned") is None


def test_a_huge_answer_is_shown_in_part_and_the_page_stays_usable(
    tab: Watched, context: BrowserContext, shared_server: Server
) -> None:
    tab.open(shared_server.address).say("huge")
    tab.until_done()
    page = tab.page
    before = page.evaluate("performance.now()")
    page.get_by_role("button", name="Show all 1,130,").click()
    expect(page.locator(".text")).to_contain_text("end")
    assert page.evaluate("performance.now()") - before < 8000


def test_text_in_another_direction_does_not_turn_around_what_is_beside_it(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("pay \u202e\u2066txt.exe")
    summary = tab.page.locator(".call-summary")
    expect(summary).to_contain_text("U+202E")
    expect(tab.page.locator(".call-exact")).to_contain_text("U+2066")
    tab.page.get_by_role("button", name="Deny").click()
    tab.until_done()
