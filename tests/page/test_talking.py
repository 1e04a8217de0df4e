"""Talking to agents on the page: answers, questions, steering, sessions."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.page.support import Server, Watched

pytestmark = pytest.mark.real_clock


def test_a_person_talks_to_an_agent_and_copies_its_answer(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("echo Some **bold** words\n")
    answer = tab.until_done()
    assert "Some bold words" in answer
    assert "120 tokens" in answer
    page = tab.page
    expect(page.locator(".text strong")).to_have_text("bold")
    expect(page.locator("#sessions a[aria-current]")).to_contain_text("echo Some")
    assert "#/s/" in page.url
    page.get_by_role("button", name="Copy the whole answer").click()
    assert page.evaluate("navigator.clipboard.readText()") == "Some **bold** words"
    tab.say("think")
    assert "I have thought." in tab.until_done()
    page.locator(".reasoning summary").click()
    expect(page.locator(".reasoning .plain-text")).to_have_text("Let me see.")


def test_each_word_is_shown_as_it_comes_and_a_reload_in_the_middle_loses_none(
    tab: Watched, shared_server: Server
) -> None:
    tab.open(shared_server.address).say("slow")
    page = tab.page
    expect(page.locator(".text")).to_contain_text("word5 ")
    assert "end." not in page.locator(".text").inner_text()
    page.reload()
    expect(page.locator(".text")).to_contain_text("word20 ")
    tab.until_done()
    words = page.locator(".text").inner_text().split()
    assert words == ["Slow", *(f"word{number}" for number in range(100)), "end."]


def test_a_handoff_is_shown_and_the_conversation_continues_with_the_next_agent(
    tab: Watched, shared_server: Server
) -> None:
    tab.open(shared_server.address)
    page = tab.page
    page.get_by_role("radio", name="front").check(force=True)
    tab.say("hand billing")
    assert "front has handed the conversation to billing" in tab.until_done()
    expect(page.locator(".run")).to_contain_text("front hands the conversation to billing.")
    tab.say("echo It is billing.")
    assert "It is billing." in tab.until_done()
    # The conversation is the team's, whatever was chosen elsewhere.
    address = page.url
    page.get_by_role("button", name="New conversation").click()
    page.get_by_role("radio", name="assistant").check(force=True)
    page.goto(address)
    expect(page.locator("#agent")).to_have_value("front")
    tab.say("hand front")
    assert "billing has handed the conversation to front" in tab.until_done()


def test_two_tabs_show_one_conversation_and_an_answer_in_one_closes_the_question_in_the_other(
    tab: Watched, context: BrowserContext, shared_server: Server
) -> None:
    tab.open(shared_server.address).say("pay")
    tab.page.wait_for_selector(".question.is-open")
    other = Watched(context.new_page()).open(tab.page.url)
    other.page.wait_for_selector(".question.is-open")
    other.page.get_by_role("button", name="Approve").click()
    for each in (tab, other):
        each.until_done()
        expect(each.page.locator(".question.is-open")).to_have_count(0)
        expect(each.page.locator(".closed")).to_contain_text("Approved")
    other.say("echo seen")
    expect(tab.page.locator(".run").nth(1)).to_contain_text("seen")
    assert other.problems == []


def test_an_approval_shows_exactly_what_will_run_to_the_last_digit(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("pay \u202eevil\u200b")
    box = tab.page.locator(".question.is-open .call-exact")
    expect(box.locator("code")).to_have_text("pay")
    # JSON in JavaScript would have made 12345678901234567000 of it, and nothing of a text and a number alike.
    assert box.locator("dd").all_inner_texts() == ["12345678901234567890", "bobU+202EevilU+200B", '"5"']
    tab.page.get_by_role("button", name="Approve").click()
    assert "paid 12345678901234567890" in tab.until_done()


def test_a_denied_call_does_not_run_and_the_agent_reads_the_reason(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("pay")
    tab.page.get_by_label("Reason, if you deny").fill("too much <b>money</b>")
    tab.page.get_by_role("button", name="Deny").click()
    answer = tab.until_done()
    assert "too much <b>money</b>" in answer
    assert "paid" not in answer
    expect(tab.page.locator(".closed")).to_contain_text("Denied: \u201ctoo much <b>money</b>\u201d")


def test_an_approval_may_hold_for_the_conversation(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("pay")
    tab.page.get_by_label("An approval is for").select_option("tool")
    tab.page.get_by_role("button", name="Approve").click()
    tab.until_done()
    tab.say("pay 2")
    expect(tab.page.locator(".run")).to_have_count(2)
    assert "paid 12345678901234567890 to bob2" in tab.until_done()


def test_a_form_of_all_kinds_of_fields_says_what_is_wrong_beside_each_and_sends_what_is_right(
    tab: Watched, shared_server: Server
) -> None:
    tab.open(shared_server.address).say("survey")
    page = tab.page
    form = page.locator(".question.is-open form")
    form.get_by_role("button", name="Send").click()
    expect(form.locator(".is-wrong")).to_have_count(3)
    expect(form.get_by_label("Name")).to_be_focused()
    form.get_by_label("Name").fill("x")
    form.get_by_label("Mail").fill("nobody")
    form.get_by_label("Site").fill("nowhere")
    form.get_by_label("Seats").fill("9")
    form.get_by_label("Height").fill("tall")
    for dish in ("soup", "fish", "cake"):
        form.get_by_label(dish).check()
    form.get_by_role("button", name="Send").click()
    problems = form.locator(".field-error:visible").all_inner_texts()
    assert problems == [
        "At least 2 characters, please.",
        "This is not an e-mail address.",
        "This is not an address such as https://example.com.",
        "This should be from 1 to 8.",
        "This is not a number.",
        "Choose at most 2.",
    ]
    form.get_by_label("Name").fill("Ann")
    form.get_by_label("Mail").fill("ann@example.com")
    form.get_by_label("Site").fill("https://example.com")
    form.get_by_label("Born").fill("2001-02-03")
    form.get_by_label("Meets").fill("2026-07-01T09:30")
    form.get_by_label("Seats").fill("8")
    form.get_by_label("Height").fill("1,75")
    form.get_by_label("No", exact=True).check()
    form.get_by_label("Town").select_option("Town 7")
    form.get_by_label("cake").uncheck()
    form.get_by_role("button", name="Send").click()
    answer = tab.until_done()
    assert (
        "{'name': 'Ann', 'mail': 'ann@example.com', 'site': 'https://example.com', 'born': '2001-02-03', "
        "'meets': '2026-07-01T09:30:00+02:00', 'seats': 8, 'height': 1.75, 'vegan': False, 'color': 'green', "
        "'town': 't7', 'dishes': ['soup', 'fish']}"
    ) in answer
    page.locator(".closed summary").click()
    expect(page.locator(".closed dl")).to_contain_text("Town 7")


@pytest.mark.parametrize(("button", "answer"), [("Decline", "Decline("), ("Dismiss", "Cancel(")])
def test_a_form_may_be_declined_or_dismissed(tab: Watched, shared_server: Server, button: str, answer: str) -> None:
    tab.open(shared_server.address).say("survey")
    tab.page.get_by_role("button", name=button).click()
    assert answer in tab.until_done()


def test_a_page_to_visit_is_a_link_only_if_it_is_one_of_the_web(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("visit https://login.example.com/start?x=1")
    link = tab.page.locator(".question.is-open .address a")
    assert link.get_attribute("href") == "https://login.example.com/start?x=1"
    assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert link.get_attribute("target") == "_blank"
    expect(link.locator("strong")).to_have_text("login.example.com")
    tab.page.get_by_role("button", name="I agree").click()
    assert "Accept(" in tab.until_done()


def test_a_run_is_steered_and_stopped(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("wait 1.5")
    page = tab.page
    expect(page.locator(".call-running .call-facts")).to_have_text("waiting")
    expect(page.locator(".call-live")).to_have_text("waits")
    expect(page.locator("progress")).to_have_attribute("value", "1")
    tab.say("echo and this")
    expect(page.locator(".pending")).to_contain_text("echo and this")
    assert "and this" in tab.until_done()
    expect(page.locator(".pending")).to_have_count(0)
    expect(page.locator(".prompt-between")).to_contain_text("echo and this")
    tab.say("wait")
    expect(page.locator(".call-running")).to_have_count(1)
    page.get_by_role("button", name="Stop", exact=True).click()
    assert "Stopped" in tab.until_done()
    tab.say("wait")
    expect(page.locator(".call-running")).to_have_count(1)
    page.press("#composer-text", "Escape")
    assert "Stopped" in tab.until_done()


def test_the_run_of_another_agent_is_shown_inside_of_its_call(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("nest pay")
    page = tab.page
    child = page.locator(".call .child")
    expect(child.locator(".question.is-open")).to_be_visible()
    expect(child.locator(".question-title")).to_have_text("assistant \u203a helper wants to run pay")
    child.get_by_role("button", name="Approve").click()
    tab.until_done()
    expect(child).not_to_have_attribute("open", "")
    child.locator("summary").first.click()
    expect(child.locator(".text")).to_contain_text("The result is paid")
    page.locator(".call-box > summary").first.click()
    expect(page.locator(".call-details").first).to_contain_text("prompt")


def test_the_output_of_a_tool_is_cut_until_all_is_asked_for(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("log")
    tab.until_done()
    page = tab.page
    page.locator(".call-box > summary").click()
    output = page.locator(".detail").nth(1)
    assert "line 0\n" not in output.inner_text()
    output.get_by_role("button", name=re.compile("Show all")).click()
    assert output.locator("pre").inner_text().startswith("line 0\n")


def test_conversations_are_searched_renamed_copied_edited_and_deleted(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address).say("echo zebra")
    tab.until_done()
    tab.say("echo second message")
    expect(tab.page.locator(".run")).to_have_count(2)
    tab.until_done()
    page = tab.page
    first = page.url
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("All about <zebras>")
    page.keyboard.press("Enter")
    expect(page.locator("h1#title")).to_have_text("All about <zebras>")
    page.get_by_label("Search conversations").fill("ZEBRAS")
    expect(page.locator("#sessions a")).to_have_count(1)
    page.get_by_label("Search conversations").fill("")
    page.locator(".run").nth(1).hover()
    page.locator(".run").nth(1).get_by_role("button", name="Edit this message").click()
    expect(page.locator("h1#title")).to_have_text("All about <zebras> (copy)")
    expect(page.locator(".run")).to_have_count(1)
    expect(page.locator("#composer-text")).to_have_value("echo second message")
    tab.runs = 1
    tab.until_done()
    tab.say("echo another way")
    expect(page.locator(".run")).to_have_count(2)
    assert "another way" in tab.until_done()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#welcome")).to_be_visible()
    page.goto(first)
    expect(page.locator(".run").nth(1)).to_contain_text("second message")
    page.get_by_role("button", name="Copy the conversation").click()
    expect(page.locator("h1#title")).to_have_text("All about <zebras> (copy)")
    expect(page.locator(".run")).to_have_count(2)


def test_each_of_several_agents_can_be_chosen(tab: Watched, shared_server: Server) -> None:
    tab.open(shared_server.address)
    page = tab.page
    page.get_by_role("radio", name="second").check(force=True)
    tab.say("echo hello")
    tab.until_done()
    expect(page.locator(".speaker")).to_have_text(re.compile("second"))
    # The agent that spoke last in a conversation goes on with it, whatever was chosen elsewhere.
    address = page.url
    page.get_by_role("button", name="New conversation").click()
    page.get_by_role("radio", name="assistant").check(force=True)
    page.goto(address)
    expect(page.locator("#agent")).to_have_value("second")
    page.locator("#agent").select_option("assistant")
    tab.say("echo again")
    expect(page.locator(".speaker").nth(1)).to_have_text(re.compile("assistant"))
    tab.until_done()


def test_a_server_with_tokens_asks_for_one_and_forgets_it_with_the_tab(
    tab: Watched, context: BrowserContext, own_server: Callable[..., Server]
) -> None:
    server = own_server("a-secret-token-of-ann")
    page = tab.page
    page.goto(server.address)
    page.get_by_label("Token").fill("a-wrong-token-of-ann")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("The server does not accept this token.")
    page.get_by_label("Token").fill("a-secret-token-of-ann")
    page.keyboard.press("Enter")
    page.wait_for_selector("#app:not([hidden])")
    tab.say("echo hello")
    assert "hello" in tab.until_done()
    page.reload()
    assert "hello" in tab.until_done()
    other = context.new_page()
    other.goto(page.url)
    expect(other.get_by_label("Token")).to_be_focused()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
