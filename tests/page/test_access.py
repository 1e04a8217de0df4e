"""The page by keyboard and screen reader, in both themes, at three widths."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.support import Server, Watched

pytestmark = pytest.mark.real_clock

AXE = Path(os.environ.get("PAGE_PACKAGES", "node_modules")) / "axe-core" / "axe.min.js"


def problems(page: Page) -> list[str]:
    """What axe finds on the page as it is now."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = page.evaluate("axe.run({ resultTypes: ['violations'] }).then(r => r.violations)")
    return [f"{rule['id']}: {json.dumps([node['html'][:150] for node in rule['nodes'][:3]])}" for rule in found]


@pytest.mark.skipif(not AXE.exists(), reason="needs axe-core from npm: nox -s page")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing(browser: Browser, shared_server: Server, scheme: Any, width: int) -> None:
    # axe comes into the page by a way that the policy of the page forbids.
    context = browser.new_context(
        bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
    )
    tab = Watched(context.new_page()).open(shared_server.address)
    page = tab.page
    found = {"welcome": problems(page)}
    tab.say("hostile")
    tab.until_done()
    found["answer"] = problems(page)
    tab.say("survey")
    page.wait_for_selector(".question.is-open")
    page.locator(".question").get_by_role("button", name="Send").click()
    found["form"] = problems(page)
    page.locator(".question").get_by_role("button", name="Decline").click()
    tab.until_done()
    tab.say("nest pay")
    page.wait_for_selector(".question.is-open")
    page.locator(".call-box > summary").last.click()
    found["approval"] = problems(page)
    page.get_by_role("button", name="Deny").click()
    tab.until_done()
    page.fill("#composer-text", "/e")
    page.press("#composer-text", "ArrowDown")
    found["commands"] = problems(page)
    tab.say("background")
    page.wait_for_selector("#background li")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector(".is-paused")
    found["background"] = problems(page)
    page.get_by_role("button", name="Stop", exact=True).click()
    tab.until_done()
    if width == 360:
        page.get_by_role("button", name="Conversations").click()
        page.wait_for_timeout(300)
        found["drawer"] = problems(page)
    else:
        page.get_by_role("button", name="Delete").click()
        found["dialog"] = problems(page)
    context.close()
    assert {where: what for where, what in found.items() if what} == {}


def test_a_conversation_is_had_by_keyboard_alone(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address)
    page = tab.page
    expect(page.locator("#composer-text")).to_be_focused()
    page.keyboard.type("pay")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("x")
    expect(page.locator("#composer-text")).to_have_value("pay\nx")
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    page.wait_for_selector(".question.is-open")
    # The focus stays where the person types; the question is reached backwards.
    expect(page.locator("#composer-text")).to_be_focused()
    for _ in range(10):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.textContent") == "Approve":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".run:not(.is-running) .usage")
    expect(page.locator("#composer-text")).to_be_focused()


def test_a_screen_reader_hears_of_answers_and_questions_once_and_not_of_each_word(
    tab: Watched, shared_server: Server
) -> None:
    tab.open(shared_server.address)
    page = tab.page
    page.evaluate(
        "window.heard = []; new MutationObserver(() => window.heard.push(document.getElementById('announcer')"
        ".textContent)).observe(document.getElementById('announcer'), { childList: true })"
    )
    tab.say("slow")
    tab.until_done()
    tab.say("pay")
    page.wait_for_selector(".question.is-open")
    page.wait_for_timeout(200)
    heard = page.evaluate("window.heard")
    assert len(heard) == 2
    assert heard[0].startswith("assistant has answered: Slow word0")
    assert heard[1] == "assistant waits for your answer"
    assert page.locator("[aria-live=polite], [role=status]").count() >= 1
    for landmark in ("navigation", "main", "search"):
        expect(page.get_by_role(landmark).first).to_be_visible()


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_nothing_is_wider_than_the_window(tab: Watched, shared_server: Server, width: int) -> None:
    page = tab.page
    page.set_viewport_size({"width": width, "height": 700})
    tab.open(shared_server.address).say("hostile")
    tab.until_done()
    tab.say("pay")
    page.wait_for_selector(".question.is-open")
    for place in ("document.documentElement", "document.getElementById('scroll')"):
        assert page.evaluate(f"{place}.scrollWidth <= {place}.clientWidth"), place
    outside = page.evaluate(
        "[...document.querySelectorAll('.composer *, .top *')].filter((e) => e.getClientRects().length && "
        "!e.closest('.hidden') && e.getBoundingClientRect().right > innerWidth).length"
    )
    assert outside == 0


def test_the_drawer_of_a_narrow_screen_opens_closes_and_gives_the_focus_back(
    tab: Watched, shared_server: Server
) -> None:
    page = tab.page
    page.set_viewport_size({"width": 360, "height": 700})
    tab.open(shared_server.address).say("echo hello")
    tab.until_done()
    page.get_by_role("button", name="Conversations").click()
    expect(page.get_by_role("navigation")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("navigation")).to_be_hidden()
    expect(page.locator("#open-drawer")).to_be_focused()
