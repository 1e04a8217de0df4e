"""`Agent.stream_text`: a run of which only the words are read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import trio

from agentloop import Accept, Agent, Limits, ToolContext, UsageError, tool
from agentloop.errors import LimitReachedError, ModelConnectionError
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls, fails, hangs, says


@tool
async def ask(context: ToolContext) -> str:
    """Ask."""
    return type(await context.ask("Sure?")).__name__


async def test_stream_text_gives_the_words_of_the_answer_and_nothing_else() -> None:
    child = Agent(ScriptedModel("inner words"), name="child")
    agent = Agent(ScriptedModel(calls("child", prompt="go"), "outer words"), tools=[child.as_tool()])

    async with agent.stream_text("Hi") as text:
        pieces = [piece async for piece in text]

    assert pieces == ["outer ", "words"]
    assert text.stream.result.output == "outer words"


async def test_breaking_off_the_words_ends_the_run_with_the_block() -> None:
    agent = Agent(ScriptedModel(says("one two ") + hangs()))

    async with agent.stream_text("Hi") as text:
        async for piece in text:
            assert piece == "one "
            break

    assert text.stream.outcome.reason == "cancelled"


async def test_an_exception_and_a_cancellation_end_the_run_with_the_block() -> None:
    agent = Agent(ScriptedModel(says("one ") + hangs(), repeat=True))

    with pytest.raises(KeyError):
        async with agent.stream_text("Hi") as text:
            async for _ in text:
                raise KeyError
    assert text.stream.outcome.reason == "cancelled"

    with trio.move_on_after(1) as scope:
        async with agent.stream_text("Hi") as text:
            async for _ in text:
                pass
    assert scope.cancelled_caught
    assert text.stream.outcome.reason == "cancelled"


async def test_words_that_are_not_the_whole_answer_end_with_the_error_of_the_run() -> None:
    agent = Agent(ScriptedModel(calls("ask"), "never"), tools=[ask], limits=Limits(turns=1))
    failing = Agent(ScriptedModel(fails(ModelConnectionError("gone"))))

    async with agent.stream_text("Hi", on_question=lambda _: _accept()) as text:
        with pytest.raises(LimitReachedError):
            [piece async for piece in text]
    async with failing.stream_text("Hi") as text:
        with pytest.raises(ModelConnectionError, match="gone"):
            [piece async for piece in text]


async def _accept() -> Accept:
    return Accept()


async def test_questions_are_declined_or_go_to_a_handler() -> None:
    agent = Agent(ScriptedModel(calls("ask"), "Done.", calls("ask"), "Done."), tools=[ask])

    for handler, expected in ((None, "Decline"), (lambda _: _accept(), "Accept")):
        options: dict[str, Any] = {} if handler is None else {"on_question": handler}
        async with agent.stream_text("Hi", **options) as text:
            assert "".join([piece async for piece in text]) == "Done."
        assert expected in str(text.stream.outcome.messages)


async def test_a_reader_of_words_answers_no_questions() -> None:
    with pytest.raises(UsageError, match="on_question= a function"):
        Agent(ScriptedModel("never")).stream_text("Hi", on_question="reader")  # type: ignore[arg-type]


async def test_the_words_of_a_run_that_is_parked_end_without_an_error() -> None:
    agent = Agent(ScriptedModel(calls("ask"), "never"), tools=[ask])

    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        async with agent.stream_text("Hi", session=session, on_question="park") as text:
            assert [piece async for piece in text] == []
        assert text.stream.outcome.reason == "needs_input"


async def test_the_first_guesses_are_answered_by_what_to_write() -> None:
    block: Any = Agent(ScriptedModel("never")).stream_text("Hi")

    with pytest.raises(UsageError, match=r"`async with agent.stream_text\(prompt\) as text:`.*`async for piece in te"):
        async for _ in block:
            pass
    with pytest.raises(UsageError, match="`async with"):
        await block
    with pytest.raises(UsageError, match="`async with"), block:
        pass


async def test_words_in_a_bare_async_generator_are_refused() -> None:
    async def words() -> AsyncGenerator[str]:
        async with Agent(ScriptedModel("never")).stream_text("Hi") as text:
            async for piece in text:
                yield piece  # noqa: ASYNC119

    with pytest.raises(UsageError, match="inside the async generator words"):
        [word async for word in words()]
