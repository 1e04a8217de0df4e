"""The journal saves no more of a call's output than the model reads of its result; readers in the process get all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import trio

from agentloop import Agent, ToolContext, tool
from agentloop._runtime.log import UNSAVED_CHARACTERS
from agentloop.events import StreamEvent, ToolCallOutput
from agentloop.journal import OpenStore
from agentloop.stores import MemoryStore, follow_session, stored_session
from agentloop.stores._saved_output import OMITTED
from agentloop.testing import ScriptedModel, calls
from agentloop.wire import decode_event
from tests.support import of


async def saved_events(store: OpenStore, session: str) -> list[ToolCallOutput]:
    records = await store.read(session, kinds=("tool_call_output",))
    events = [decode_event(record.data) for record in records]
    return [event for event in events if isinstance(event, ToolCallOutput)]


def text_of(events: Sequence[object], call_id: str) -> str:
    return "".join(event.text for event in events if isinstance(event, ToolCallOutput) and event.call_id == call_id)


def printing(pieces: Sequence[str], max_result: float | None = None) -> Agent:
    """An agent with a tool that prints ``pieces``, and is called twice at once."""

    @tool(timeout=math.inf, max_result=max_result)
    async def shout(context: ToolContext[None]) -> str:
        """Shout."""
        for piece in pieces:
            await context.output(piece)
        return "ok"

    model = ScriptedModel(calls("shout") + calls("shout"), "Done.")
    return Agent(model, tools=[shout], max_result=1000)


async def run(agent: Agent, store: OpenStore) -> list[StreamEvent]:
    async with stored_session(store, "ann") as session, agent.stream("go", session=session) as stream:
        return [event async for event in stream]


@pytest.mark.parametrize("size", [1, 7, 300, 1000, 5000])
async def test_the_output_of_each_call_is_saved_up_to_max_result_and_its_readers_get_all(size: int) -> None:
    pieces = ["x" * size] * (5000 // size)
    async with MemoryStore().open() as store:
        live = await run(printing(pieces), store)
        saved = await saved_events(store, "ann")
        followed = [event async for event in follow_session(store, "ann")]
    call_ids = {event.call_id for event in of(live, ToolCallOutput)}
    assert len(call_ids) == 2
    for call_id in call_ids:
        assert text_of(live, call_id) == "".join(pieces)
        assert text_of(saved, call_id) == text_of(followed, call_id) == "x" * 1000 + OMITTED


@pytest.mark.parametrize(
    ("max_result", "saved"), [(2000, "x" * 2000 + OMITTED), (3000, "x" * 3000), (math.inf, "x" * 3000)]
)
async def test_a_tool_with_a_max_result_of_its_own_has_as_much_saved(max_result: float, saved: str) -> None:
    async with MemoryStore().open() as store:
        live = await run(printing(["x" * 500] * 6, max_result), store)
        outputs = await saved_events(store, "ann")
    for call_id in {event.call_id for event in of(live, ToolCallOutput)}:
        assert text_of(outputs, call_id) == saved


async def test_endless_output_leaves_little_in_the_journal_however_long_it_is() -> None:
    async with MemoryStore().open() as store:
        await run(printing(["x" * 100_000] * (4 * UNSAVED_CHARACTERS // 100_000)), store)
        assert sum([len(record.data) for record in await store.read("ann")]) < 50_000


@pytest.mark.seconds(60)
async def test_the_numbers_of_omitted_output_are_saved_so_that_none_is_used_twice() -> None:
    saved = list[int]()

    @tool
    async def shout(context: ToolContext[None]) -> str:
        """Shout, and wait until it is saved."""
        for _ in range(30):
            await context.output("x" * 100)
            await trio.sleep(1)
            saved.append((await saved_events(store, "ann"))[-1].seq)
        return "ok"

    agent = Agent(ScriptedModel(calls("shout"), "Done."), tools=[shout], max_result=1000)
    async with MemoryStore().open() as store:
        live = await run(agent, store)
    assert saved == [event.seq for event in of(live, ToolCallOutput)]


async def test_a_follower_that_begins_in_the_middle_of_an_output_gets_each_saved_character_once() -> None:
    whole = ("abcdefg" * 300)[:1000] + OMITTED
    async with MemoryStore().open() as store:
        live = await run(printing(["abcdefg"] * 300), store)
        outputs = of(live, ToolCallOutput)
        own = [event for event in outputs if event.call_id == outputs[0].call_id]
        for number in (0, 20, 100, 141):
            rest = [event async for event in follow_session(store, "ann", after=own[number].seq)]
            assert text_of(rest, own[0].call_id) == whole[7 * (number + 1) :]
        rest = [event async for event in follow_session(store, "ann", after=own[-1].seq)]
        assert text_of(rest, own[0].call_id) == ""


async def test_output_that_is_omitted_between_that_of_another_call_repeats_nothing_for_a_follower() -> None:
    @tool(max_result=1000)
    async def long(context: ToolContext[None]) -> str:
        """Print more than is saved."""
        for _ in range(40):
            await context.output("x" * 100)
        return "ok"

    @tool(max_result=10_000)
    async def short(context: ToolContext[None]) -> str:
        """Print less than that."""
        for number in range(40):
            await context.output(f"{number} ")
        return "ok"

    agent = Agent(ScriptedModel(calls("long", id="a") + calls("short", id="b"), "Done."), tools=[long, short])
    async with MemoryStore().open() as store:
        live = await run(agent, store)
        for event in of(live, ToolCallOutput):
            rest = [each async for each in follow_session(store, "ann", after=event.seq)]
            assert text_of(rest, "b") == text_of([each for each in live if each.seq > event.seq], "b")
