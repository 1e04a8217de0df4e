"""What a person picks and presses on the page: models, thinking, commands, pauses, runs in the background."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.page.support import Server, Watched

pytestmark = pytest.mark.real_clock

MARKUP = "<img src=x onerror=window.pwned=1>"
"""The name of a model, and the description of a command, of the server."""


def test_a_model_and_its_thinking_are_picked_and_a_reload_shows_them(tab: Watched, shared_server: Server) -> None:
    page = tab.open(shared_server.address).page
    options = page.locator("#model option")
    assert options.count() == 4
    expect(options.nth(2)).to_have_text("deep \u00b7 272,000 tokens \u00b7 1.25 / 10 USD")
    # A model that does not think has no levels to pick.
    page.select_option("#model", "fast")
    expect(page.locator("#thinking")).to_be_hidden()
    page.select_option("#model", "deep")
    page.select_option("#thinking", "high")
    tab.say("who")
    assert "I am openai:gpt-5, thinking high." in tab.until_done()
    expect(page.locator("#facts")).to_contain_text("under 1 % of the window")
    page.reload()
    expect(page.locator("#model")).to_have_value("deep")
    expect(page.locator("#thinking")).to_have_value("high")
    tab.say("who")
    assert "I am openai:gpt-5, thinking high." in tab.until_done()
    page.select_option("#model", "")
    expect(page.locator("#thinking")).to_be_hidden()
    tab.say("who")
    assert "I am scripted, thinking None." in tab.until_done()
    # Another conversation begins with the agent's own.
    page.select_option("#model", "fast")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#model")).to_have_value("")


def test_names_of_models_and_commands_are_text(tab: Watched, shared_server: Server) -> None:
    page = tab.open(shared_server.address).page
    page.select_option("#model", MARKUP)
    assert page.locator("#model option:checked").inner_text() == MARKUP
    page.fill("#composer-text", "/pay")
    expect(page.locator("#commands")).to_contain_text(MARKUP)
    tab.say("who")
    assert "I am markup" in tab.until_done()
    assert page.locator("#app :is(#commands, #model, #background) img").count() == 0
    assert page.evaluate("window.pwned") is None


def test_commands_are_completed_by_keys_and_by_mouse(tab: Watched, shared_server: Server) -> None:
    page = tab.open(shared_server.address).page
    page.get_by_role("radio", name="assistant").check(force=True)
    field, options = page.locator("#composer-text"), page.locator("#commands [role=option]")
    field.focus()
    page.keyboard.type("/")
    expect(options).to_have_count(3)
    page.keyboard.type("e")
    expect(options).to_have_count(2)
    for key, chosen in (("ArrowDown", "/echo"), ("ArrowDown", "/edit"), ("ArrowDown", "/echo"), ("ArrowUp", "/edit")):
        page.keyboard.press(key)
        active = page.evaluate(
            "document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).textContent"
        )
        assert str(active).startswith(chosen)
        expect(page.locator("[aria-selected=true]")).to_contain_text(chosen)
    page.keyboard.press("Enter")
    expect(field).to_have_value("/edit ")
    expect(page.locator("#commands")).to_be_hidden()
    field.fill("/ec")
    page.keyboard.press("Escape")
    expect(page.locator("#commands")).to_be_hidden()
    field.fill("/e")
    page.keyboard.press("Tab")
    expect(field).to_have_value("/echo ")
    expect(field).to_be_focused()
    field.fill("/e")
    options.nth(0).click()
    page.keyboard.type("two words")
    page.keyboard.press("Enter")
    assert "two words" in tab.until_done()
    # What is misspelt is refused with the nearest names, and stays to be mended.
    field.fill("/ehco x")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("did you mean /echo?")
    expect(field).to_have_value("/ehco x")


def test_a_run_is_paused_and_goes_on_and_a_reload_knows(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("wait 0.5")
    page = tab.page
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".working-words")).to_have_text("Paused")
    go_on = page.get_by_role("button", name="Go on")
    expect(go_on).to_be_focused()
    expect(page.locator("#announcer")).to_have_text("The run is paused")
    # The tool has ended meanwhile, and the next request holds.
    expect(page.locator(".call-ok")).to_have_count(1)
    page.reload()
    expect(page.locator(".working-words")).to_have_text("Paused")
    go_on.click()
    assert "The result is waited." in tab.until_done()
    expect(go_on).to_be_hidden()
    expect(page.locator("#composer-text")).to_be_focused()


def test_a_paused_run_can_be_stopped(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("wait 30")
    tab.page.get_by_role("button", name="Pause").click()
    tab.page.wait_for_selector(".is-paused")
    tab.page.get_by_role("button", name="Stop").click()
    assert "Stopped" in tab.until_done()


def test_what_runs_in_the_background_is_listed_and_stopped(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("background")
    page = tab.page
    expect(page.get_by_role("list", name="Runs in the background")).to_contain_text("helper-1works in the background")
    page.get_by_role("button", name="Stop helper-1").click()
    assert "helper-1 has ended" in tab.until_done()
    expect(page.locator("#background")).to_be_hidden()
    expect(page.locator("#composer-text")).to_be_focused()


def test_an_approval_may_hold_for_all_that_is_harmless(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("pay")
    tab.page.wait_for_selector(".question.is-open")
    choices = tab.page.get_by_label("An approval is for").locator("option")
    assert {"safe", "safer"} <= {str(choice.get_attribute("value")) for choice in choices.all()}
    tab.page.get_by_label("An approval is for").select_option("safer")
    tab.page.get_by_role("button", name="Approve").click()
    tab.until_done()
    # Paying is not harmless, so that it is asked about again.
    tab.say("pay")
    tab.page.wait_for_selector(".question.is-open")
    tab.page.get_by_role("button", name="Deny").click()
    tab.until_done()


def test_at_320_pixels_everything_is_in_reach_and_nothing_moves_while_an_answer_is_written(
    browser: Browser, shared_server: Server
) -> None:
    context = browser.new_context(viewport={"width": 320, "height": 640}, reduced_motion="reduce")
    context.set_default_timeout(25_000)
    tab = Watched(context.new_page()).open(shared_server.address)
    page = tab.page
    page.select_option("#model", "deep")
    tab.say("background")
    page.wait_for_selector("#background li")
    buttons = ["#pause", "#stop", "#send", "#model", "#thinking", "#when", "#background button"]
    boxes = [page.locator(selector).bounding_box() for selector in buttons]
    assert all(box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 320 for box in boxes), boxes
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.get_by_role("button", name="Stop", exact=True).click()
    tab.until_done()
    tab.say("slow")
    expect(page.locator(".run:last-child .text")).to_contain_text("word5 ")
    before = page.locator("#composer").bounding_box()
    expect(page.locator(".run:last-child .text")).to_contain_text("word60 ")
    assert page.locator("#composer").bounding_box() == before
    tab.until_done()
    context.close()
    assert tab.problems == []
