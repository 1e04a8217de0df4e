"""The page across lost connections, and servers that are killed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.page.support import Server, Watched, Wire

pytestmark = pytest.mark.real_clock

WORDS = ["Slow", *(f"word{number}" for number in range(100)), "end."]


def test_an_answer_goes_on_after_the_wire_was_cut_and_no_word_is_shown_twice(tab: Watched, wire: Wire) -> None:
    tab.open(wire.address).say("slow")
    page = tab.page
    expect(page.locator(".text")).to_contain_text("word10 ")
    wire.cut()
    expect(page.locator("#connection")).to_contain_text("Reconnecting")
    page.wait_for_timeout(700)
    wire.mend()
    tab.until_done()
    expect(page.locator("#connection")).to_be_empty()
    assert page.locator(".text").inner_text().split() == WORDS


def test_a_message_that_cannot_be_sent_stays_in_its_field(tab: Watched, wire: Wire) -> None:
    tab.open(wire.address)
    wire.cut()
    tab.say("echo hello")
    expect(tab.page.get_by_role("alert")).to_have_text("The server cannot be reached.")
    expect(tab.page.locator("#composer-text")).to_have_value("echo hello")
    wire.mend()
    tab.say("echo hello")
    assert "hello" in tab.until_done()


def test_a_killed_server_that_is_started_again_has_everything_as_it_was(
    tab: Watched, own_server: Callable[..., Server]
) -> None:
    server = own_server()
    tab.open(server.address).say("echo the first answer")
    tab.until_done()
    tab.say("survey")
    page = tab.page
    form = page.locator(".question.is-open form")
    form.get_by_label("Name").fill("Ann")
    server.kill()
    expect(page.locator("#connection")).to_contain_text("Reconnecting")
    form.get_by_label("Seats").fill("3")
    server.start()
    expect(page.locator("#connection")).to_be_empty()
    # What was typed into the form meanwhile is there, and can be sent at once.
    form.get_by_label("soup").check()
    form.get_by_role("button", name="Send").click()
    answer = tab.until_done()
    assert "'name': 'Ann', 'seats': 3" in answer
    assert page.locator(".run").count() == 2
    page.reload()
    expect(page.locator(".run").nth(0)).to_contain_text("the first answer")
    expect(page.locator(".run").nth(1)).to_contain_text("'name': 'Ann', 'seats': 3")
    expect(page.locator("#sessions a")).to_have_text(re.compile("echo the first answer"))


def test_an_answer_that_was_cut_off_by_a_kill_is_given_once_by_the_next_server(
    tab: Watched, own_server: Callable[..., Server]
) -> None:
    server = own_server()
    tab.open(server.address).say("slow")
    expect(tab.page.locator(".text")).to_contain_text("word10 ")
    server.kill()
    server.start()
    tab.until_done()
    assert tab.page.locator(".text").inner_text().split() == WORDS
    expect(tab.page.locator(".run")).to_have_count(1)


def test_a_draft_survives_a_reload_and_another_conversation(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("echo one")
    tab.until_done()
    page = tab.page
    page.fill("#composer-text", "half a thought")
    page.reload()
    expect(page.locator("#composer-text")).to_have_value("half a thought")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#composer-text")).to_have_value("")
    page.go_back()
    expect(page.locator("#composer-text")).to_have_value("half a thought")


def test_a_hidden_tab_in_which_nothing_happens_gives_its_connection_back_and_misses_nothing(
    tab: Watched, context: BrowserContext, shared_server: Server
) -> None:
    page = tab.page
    page.clock.install()
    tab.open(shared_server.address).say("echo one")
    tab.until_done()
    page.evaluate(HIDE, True)
    page.clock.fast_forward(61_000)
    other = Watched(context.new_page()).open(page.url)
    other.page.wait_for_selector(".run .usage")
    other.say("echo two")
    other.until_done()
    expect(page.locator(".run")).to_have_count(1)
    page.evaluate(HIDE, False)
    expect(page.locator(".run")).to_have_count(2)
    expect(page.locator(".run").nth(1)).to_contain_text("two")


HIDE = """
(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}
"""
