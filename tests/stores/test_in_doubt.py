"""A call is known to have waited only if it had an open question: all else that was cut off may have gone on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from agentloop import Accept, Agent, Decline, ToolContext, tool
from agentloop.journal import OpenStore, Record
from agentloop.messages import ToolResult
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls
from agentloop.tools import Tool

FORM = {"type": "object", "properties": {"name": {"type": "string"}}}


@asynccontextmanager
async def memory(records: Sequence[Record] = ()) -> AsyncGenerator[OpenStore]:
    async with MemoryStore().open() as store:
        if records:
            await store.append("ann", records)
        yield store


async def killed_while_it_works(tool: Tool, works: trio.Event, **options: Any) -> list[Record]:
    """What is kept of a run whose process dies once ``works`` is set."""
    async with memory() as store, stored_session(store, "ann") as session, trio.open_nursery() as nursery:
        agent = Agent(ScriptedModel(calls(tool.name)), tools=[tool])
        nursery.start_soon(lambda: agent.run("go", session=session, **options))
        await works.wait()
        # For long enough that what was told by then is kept.
        await trio.sleep(1)
        found = list(await store.read("ann"))
        nursery.cancel_scope.cancel()
    return found


@pytest.mark.parametrize("way", ["nobody is there", "it does not wait for long"])
async def test_a_tool_that_continued_without_an_answer_is_not_called_again(way: str) -> None:
    began: list[str] = []
    works = trio.Event()

    @tool
    async def work(context: ToolContext[Any]) -> str:
        """Ask, and go on whatever the answer is."""
        began.append("work")
        with trio.move_on_after(1):
            await context.ask("Who?", FORM)
        works.set()
        await trio.sleep(1000)
        return ""

    async def think(question: object) -> None:
        await trio.sleep(1000)

    options = {} if way == "nobody is there" else {"on_question": think}
    records = await killed_while_it_works(work, works, **options)
    async with memory(records) as store, stored_session(store, "ann") as session:
        assert session.is_resumable
        assert session.questions == ()
        await Agent(ScriptedModel("Done."), tools=[work]).resume(session)
        [result] = [message for message in session.messages if isinstance(message, ToolResult)]
    assert result.status == "interrupted"
    assert began == ["work"]


async def test_a_question_that_was_declined_is_declined_again_when_its_tool_is_called_again() -> None:
    given: list[object] = []
    works = trio.Event()

    @tool(idempotent=True)
    async def work(context: ToolContext[Any]) -> str:
        """Ask, and go on whatever the answer is."""
        given.append(await context.ask("Who?", FORM))
        if not works.is_set():
            works.set()
            await trio.sleep_forever()
        given.append(await context.ask("And who else?", FORM))
        return "ok"

    async def answer(question: object) -> Accept:
        return Accept({"name": "Bo"})

    records = await killed_while_it_works(work, works)
    async with memory(records) as store, stored_session(store, "ann") as session:
        await Agent(ScriptedModel("Done."), tools=[work]).resume(session, on_question=answer)
    assert given[0] == given[1]
    assert isinstance(given[0], Decline)
    assert given[2] == Accept({"name": "Bo"})
