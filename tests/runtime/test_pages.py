"""What a tool may do besides asking with a form: ask for a visit to a page, wait while another asks, warn."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agentloop import Accept, Agent, Decline, Stream, ToolContext, tool
from agentloop.errors import InvalidAnswerError
from agentloop.events import ElicitationRequested, StreamEvent, ToolCallFinished, WarningIssued
from agentloop.questions import Answer
from agentloop.testing import ScriptedModel, calls
from agentloop.wire import decode_event, encode_event
from tests.runtime.ways import FakeToolset
from tests.support import of, watch

PAGE = "https://example.org/login?user=1"


@tool
async def log_in(context: ToolContext[Any], page: str = PAGE) -> str:
    """Have the user log in."""
    return type(await context.ask_url("Please log in.", page)).__name__


@pytest.mark.parametrize(("answer", "told"), [(Accept(), "Accept"), (Decline(), "Decline")])
async def test_a_tool_may_ask_for_a_visit_to_a_page(answer: Answer, told: str) -> None:
    def on_event(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ElicitationRequested):
            with pytest.raises(InvalidAnswerError, match="not a field of this form"):
                stream.answer(event.id, Accept({"password": "x"}))
            stream.answer(event.id, answer)

    seen = await watch(Agent(ScriptedModel(calls("log_in"), "ok"), tools=[log_in]), on_event=on_event)
    [question] = of(seen.events, ElicitationRequested)
    assert (question.message, question.url) == ("Please log in.", PAGE)
    assert decode_event(encode_event(question)) == question
    assert of(seen.events, ToolCallFinished)[0].result.text == told


@pytest.mark.parametrize("page", ["file:///etc/passwd", "javascript:alert(1)", "example.org"])
async def test_what_is_no_web_page_is_not_asked_for(page: str) -> None:
    seen = await watch(Agent(ScriptedModel(calls("log_in", page=page), "ok"), tools=[log_in]))
    assert of(seen.events, ElicitationRequested) == []
    assert "takes the address of a web page" in of(seen.events, ToolCallFinished)[0].result.text


async def test_a_call_that_waits_because_another_one_asks_does_not_run_out_of_time() -> None:
    @tool(timeout=1)
    async def wait(context: ToolContext[Any]) -> str:
        """Wait for somebody else's answer, then go on for too long."""
        with context.paused_deadline():
            await trio.sleep(5)
        began = trio.current_time()
        try:
            await trio.sleep(5)
        finally:
            lasted.append(trio.current_time() - began)
        return ""

    lasted: list[float] = []
    seen = await watch(Agent(ScriptedModel(calls("wait"), "ok"), tools=[wait]))
    assert of(seen.events, ToolCallFinished)[0].result.status == "timeout"
    assert lasted == [pytest.approx(1)]


async def test_a_tool_may_emit_a_warning_to_the_readers() -> None:
    @tool
    async def look(context: ToolContext[Any]) -> str:
        """Look."""
        context.warn("odd", "This looks odd.")
        return "seen"

    seen = await watch(Agent(ScriptedModel(calls("look"), "ok"), tools=[look]))
    [warning] = of(seen.events, WarningIssued)
    assert (warning.code, warning.message) == ("odd", "This looks odd.")


async def test_a_toolset_may_add_instructions_for_the_model() -> None:
    class Told(FakeToolset):
        instructions = "Add only small numbers."

    model = ScriptedModel(calls("add", a=1, b=1), "2")
    await watch(Agent(model, instructions="Be brief.", toolsets=[Told(), FakeToolset(name="silent", tools=())]))
    assert [request.instructions for request in model.requests] == ["Be brief.\n\nAdd only small numbers."] * 2
