"""The state of a conversation, made of events that a server seldom sends: no server and no clock are waited for."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.page.support import Server, Watched

pytestmark = pytest.mark.real_clock

APPLY = """
async (events) => {
  const { Conversation } = await import("/page/conversation.js");
  const conversation = new Conversation(() => {});
  for (const event of events) conversation.apply(event, JSON.stringify(event));
  const shown = (run) => ({
    agent: run.agent,
    status: run.status,
    blocks: run.blocks.map((block) => {
      if (block.kind === "call") return [block.name, block.status, block.children.map(shown)];
      if (block.kind === "question") return [block.event.id, block.state];
      if (block.kind === "child") return shown(block);
      return block.kind === "message" ? [block.message.parts[0].text] : block.text;
    }),
  });
  return { runs: conversation.runs.map(shown), usage: conversation.usage, open: conversation.openQuestions.length };
}
"""


class Story:
    """Writes the events of a session."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def add(self, type: str, stream: str = "s/1", **fields: Any) -> None:
        agents = ["boss"] if stream.startswith("s/1") and "." not in stream else ["boss", "helper"]
        source = {"session": stream.rpartition("/")[0], "stream": stream, "agents": agents}
        if len(agents) > 1:
            source["parent"] = "s/1"
        self.events.append({"type": type, "source": source, "seq": len(self.events) + 1, **fields})

    def begin(self, stream: str = "s/1", resumes: str = "") -> None:
        kind = "child_stream_started" if "." in stream else "stream_started"
        message = {"type": "user", "parts": [{"type": "text", "text": "hello"}]}
        self.add(kind, stream, message=message, model="m", resumes=resumes, call_id="c1")

    def end(self, stream: str = "s/1", reason: str = "completed") -> None:
        kind = "child_stream_stopped" if "." in stream else "stream_stopped"
        self.add(kind, stream, reason=reason, detail="", error=None, usage={}, call_id="c1")

    def turn(self, number: int = 1, stream: str = "s/1") -> None:
        self.add("turn_started", stream, turn=number)

    def text(self, text: str, stream: str = "s/1") -> None:
        self.add("text_delta", stream, text=text)

    def commit(self, text: str, stream: str = "s/1", kind: str = "assistant", index: int = 1) -> None:
        message = {"type": kind, "parts": [{"type": "text", "text": text}]}
        self.add("message_committed", stream, message=message, index=index)

    def call(self, id: str = "c1", name: str = "look") -> None:
        self.add("tool_call_started", call_id=id, name=name, arguments="{}")

    def result(self, id: str = "c1", name: str = "look") -> None:
        self.add("tool_call_finished", call_id=id, name=name, result={"parts": []}, elapsed=1.0, error=None)


@pytest.fixture(scope="module")
def module(browser: Browser, shared_server: Server) -> Page:
    page = browser.new_page()
    Watched(page).open(shared_server.address)
    return page


def shown(module: Page, story: Story) -> Any:
    return module.evaluate(APPLY, story.events)


def test_a_discarded_response_leaves_a_note_and_no_text(module: Page) -> None:
    story = Story()
    story.begin()
    story.turn()
    story.text("wrong ")
    story.add("tool_call_delta", call_id="c1", name="look", arguments="{")
    error = {"type": "E", "message": "busy"}
    story.add("response_discarded", error=error, model="m", next_model="n", delay=2.0, purpose="turn", call_id="")
    story.text("right")
    story.commit("right")
    story.end()
    assert shown(module, story)["runs"][0]["blocks"] == ["m failed: busy. n is asked instead, in 2 s.", "right"]


def test_a_turn_that_was_cut_off_is_shown_once_after_the_run_resumes(module: Page) -> None:
    story = Story()
    story.begin()
    story.turn()
    story.text("half a sen")
    story.end(reason="interrupted")
    story.begin("s/2", resumes="s/1")
    story.turn(2, "s/2")
    story.text("half a sentence, and all of it", "s/2")
    story.commit("half a sentence, and all of it", "s/2")
    story.end("s/2")
    [run] = shown(module, story)["runs"]
    assert run["blocks"] == ["half a sentence, and all of it"]
    assert run["status"] == "completed"


def test_a_turn_whose_calls_were_cut_off_keeps_its_text_and_its_calls(module: Page) -> None:
    story = Story()
    story.begin()
    story.turn()
    story.text("I look.")
    story.call()
    story.end(reason="interrupted")
    story.begin("s/2", resumes="s/1")
    story.turn(1, "s/2")
    story.call()
    story.result()
    story.commit("I look.", "s/2")
    story.end("s/2")
    assert shown(module, story)["runs"][0]["blocks"] == ["I look.", ["look", "ok", []]]


def test_a_child_run_may_outlive_its_call_and_be_resumed(module: Page) -> None:
    story = Story()
    story.begin()
    story.turn()
    story.call(name="helper")
    story.begin("s.1/1")
    story.turn(1, "s.1/1")
    story.result(name="helper")
    story.text("still at it", "s.1/1")
    story.end(reason="needs_input")
    story.begin("s.1/2", resumes="s.1/1")
    story.turn(2, "s.1/2")
    story.text("done", "s.1/2")
    story.commit("done", "s.1/2")
    story.end("s.1/2")
    [run] = shown(module, story)["runs"]
    child = {"agent": "helper", "status": "completed", "blocks": ["done"]}
    assert run["blocks"] == [["helper", "ok", [child]]]


def test_a_question_that_a_resumed_run_asks_again_is_one_question(module: Page) -> None:
    story = Story()
    story.begin()
    story.turn()
    story.add("continue_requested", id="q1", limit="turns", used=3, allowed=3)
    story.add("question_parked", id="q1")
    story.end(reason="needs_input")
    assert shown(module, story)["open"] == 1
    story.begin("s/2", resumes="s/1")
    story.add("continue_requested", "s/2", id="q1", limit="turns", used=3, allowed=3)
    assert shown(module, story)["runs"][0]["blocks"] == [["q1", "open"]]
    story.add("question_answered", "s/2", id="q1", answer={"type": "approve"}, by="reader")
    assert shown(module, story)["open"] == 0


def test_a_new_prompt_closes_the_questions_of_a_run_that_was_parked(module: Page) -> None:
    story = Story()
    story.begin()
    story.turn()
    story.call()
    story.add("approval_requested", id="q1", call_id="c1", name="look", arguments={})
    story.add("question_parked", id="q1")
    story.add("tool_call_parked", call_id="c1", name="look")
    story.end(reason="needs_input")
    story.begin("s/2")
    story.end("s/2")
    found = shown(module, story)
    assert found["open"] == 0
    assert found["runs"][0]["blocks"] == [["look", "interrupted", []], ["q1", "withdrawn"]]
    assert len(found["runs"]) == 2


def test_events_that_the_page_does_not_know_are_passed_over(module: Page) -> None:
    story = Story()
    story.add("text_delta", "unknown/1", text="lost")
    story.add("tool_call_output", call_id="unknown", text="lost")
    story.begin()
    story.add("something_new", call_id="c1", text="?")
    story.add("question_answered", id="unknown", answer={"type": "approve"}, by="reader")
    story.add("tool_call_progress", call_id="unknown", progress=1, total=None, message="")
    story.turn()
    story.text("known")
    assert [run["blocks"] for run in shown(module, story)["runs"]] == [["known"]]


def test_a_message_that_the_run_reads_stands_between_its_turns(module: Page) -> None:
    story = Story()
    story.begin()
    story.commit("hello", kind="user", index=0)
    story.turn()
    story.text("one")
    story.commit("one")
    story.commit("and two?", kind="user", index=2)
    story.turn(2)
    story.text("two")
    story.commit("two", index=3)
    story.end()
    assert shown(module, story)["runs"][0]["blocks"] == ["one", ["and two?"], "two"]


def test_an_answer_of_which_deltas_are_missing_is_the_one_of_the_transcript(module: Page) -> None:
    story = Story()
    story.begin()
    story.turn()
    story.text("ell")
    story.commit("hello")
    assert shown(module, story)["runs"][0]["blocks"] == ["hello"]


WORDS = """
async ([usage]) => { const { usageWords } = await import("/page/text.js"); return usageWords(usage); }
"""


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        ({}, ""),
        ({"requests": 1, "input_tokens": 1200, "output_tokens": 34}, "1,234 tokens"),
        (
            {"requests": 2, "priced_requests": 2, "input_tokens": 1, "output_tokens": 1, "cost": 0.01230},
            "2 tokens \u00b7 cost 0.0123",
        ),
        (
            {"requests": 2, "priced_requests": 1, "input_tokens": 1, "output_tokens": 1, "cost": 100.0},
            "2 tokens \u00b7 cost at least 100.00",
        ),
    ],
)
def test_a_cost_is_shown_where_it_is_known_and_as_the_least_where_it_is_known_in_part(
    module: Page, usage: dict[str, float], words: str
) -> None:
    assert module.evaluate(WORDS, [usage]) == words
