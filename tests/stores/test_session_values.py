"""The values that tools save in a session outlive the run, the process and a crash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from agentloop import Agent, Session, ToolContext, tool
from agentloop.errors import StoreError, UsageError
from agentloop.journal import OpenStore, Record
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest
from agentloop.stores import MemoryStore, fork_session, stored_session
from agentloop.testing import FunctionModel, Response, ScriptedModel, calls


class Basket(msgspec.Struct):
    fruits: list[str]


class FullDisk:
    """A store whose disk can be full when a session's values are saved."""

    is_full = False

    def __init__(self, store: OpenStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
        if self.is_full and any(record.kind == "state" for record in records):
            raise StoreError("the disk is full")
        await self._store.append(session, records, **options)


@tool
async def put(context: ToolContext[Any], fruit: str, own: bool = False) -> str:
    """Put a fruit into the basket."""
    basket = context.session_value("basket", Basket, own=own) or Basket([])
    basket.fruits.append(fruit)
    await context.save_session_value("basket", basket, own=own)
    return ",".join(basket.fruits)


def putting(*fruits: str, **arguments: Any) -> ScriptedModel:
    turns = [calls("put", fruit=fruit, **arguments) for fruit in fruits]
    return ScriptedModel(*turns, "Done.")


async def last_result(agent: Agent, session: Session | None = None) -> str:
    outcome = await agent.run("go", session=session)
    return outcome.messages[-2].text


async def test_a_value_is_there_in_later_runs_in_other_processes_and_in_forks_and_after_a_rewind() -> None:
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            assert await last_result(Agent(putting("fig"), tools=[put]), session) == "fig"
            assert await last_result(Agent(putting("kiwi"), tools=[put]), session) == "fig,kiwi"
        await fork_session(store, "s", "t")
        async with stored_session(store, "s") as session:
            await session.rewind(0)
        async with stored_session(store, "s") as session:
            assert await last_result(Agent(putting("lime"), tools=[put]), session) == "fig,kiwi,lime"
        for name, fruits in {"s": "fig,kiwi,lime,pear", "t": "fig,kiwi,pear"}.items():
            async with stored_session(store, name) as session:
                assert await last_result(Agent(putting("pear"), tools=[put]), session) == fruits


async def test_without_a_journal_a_value_lives_as_long_as_its_session() -> None:
    session = Session()
    assert await last_result(Agent(putting("fig"), tools=[put]), session) == "fig"
    assert await last_result(Agent(putting("kiwi"), tools=[put]), session) == "fig,kiwi"
    assert await last_result(Agent(putting("kiwi"), tools=[put])) == "kiwi"


async def test_child_streams_share_the_values_of_the_session_and_have_own_ones() -> None:
    def respond(request: ModelRequest) -> Response | str:
        turns: list[Response | str] = [calls("put", fruit="fig"), calls("put", fruit="kiwi", own=True), "Done."]
        return turns[sum(isinstance(message, ToolResult) for message in request.messages)]

    worker = Agent(FunctionModel(respond), name="worker", tools=[put])
    seen: list[tuple[Basket | None, Basket | None]] = []

    @tool
    async def delegate(context: ToolContext[Any]) -> str:
        """Have the worker put fruits."""
        outcome = await context.run(worker, "go")
        seen.append((context.session_value("basket", Basket), context.session_value("basket", Basket, own=True)))
        return outcome.messages[-2].text

    lead = Agent(ScriptedModel(calls("delegate") + calls("delegate"), "Done."), tools=[delegate])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            outcome = await lead.run("go", session=session)
            # Two workers, of which each has an own basket with the one kiwi.
            assert [message.text for message in outcome.messages[2:4]] == ["kiwi", "kiwi"]
            shared = Basket(["fig", "fig"])
            assert seen[-1] == (shared, shared)
            assert len((await states(store, "s"))[-1]["values"]) == 3
        async with stored_session(store, "s") as session:
            await Agent(ScriptedModel("Hi.")).run("go", session=session)
            # The runs of the workers cannot be resumed any more.
            assert (await states(store, "s"))[-1]["values"] == {"": {"basket": {"fruits": ["fig", "fig"]}}}


async def test_a_call_that_is_cut_off_by_a_crash_knows_whether_it_has_saved_its_value() -> None:
    snapshot: list[Record] = []
    attempts: list[bool] = []

    @tool(idempotent=True)
    async def put_once(context: ToolContext[Any]) -> str:
        """Put a fig into the basket, once."""
        attempts.append(context.recall("basket", bool) is True)
        if not attempts[-1]:
            await context.save_session_value("basket", Basket(["fig"]))
            snapshot.extend(await store.read("s"))
        return str(context.session_value("basket", Basket))

    agent = Agent(ScriptedModel(calls("put_once"), "Done."), tools=[put_once])
    async with MemoryStore().open() as store, MemoryStore().open() as after_crash:
        async with stored_session(store, "s") as session:
            await agent.run("go", session=session)
        await after_crash.append("s", snapshot)
        async with stored_session(after_crash, "s") as session:
            outcome = await Agent(ScriptedModel("Done."), tools=[put_once]).resume(session)
    assert attempts == [False, True]
    assert outcome.messages[-2].text == str(Basket(["fig"]))


async def test_a_value_that_could_not_be_saved_does_not_count_in_the_next_run() -> None:
    async with MemoryStore().open() as opened:
        store: Any = FullDisk(opened)
        async with stored_session(store, "s") as session:
            assert await last_result(Agent(putting("fig"), tools=[put]), session) == "fig"
            store.is_full = True
            with pytest.raises(StoreError, match="the disk is full"):
                await Agent(putting("kiwi"), tools=[put]).run("go", session=session)
            store.is_full = False
            assert await last_result(Agent(putting("lime"), tools=[put]), session) == "fig,lime"


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800"])
async def test_a_value_without_a_json_form_is_refused(value: object) -> None:
    @tool
    async def save(context: ToolContext[Any]) -> str:
        """Save a value."""
        await context.save_session_value("basket", "full")
        try:
            await context.save_session_value("basket", value)
        except UsageError as error:
            return f"{error} {context.session_value('basket', str)}"
        return f"{context.session_value('basket', type(value))}"

    text = await last_result(Agent(ScriptedModel(calls("save"), "Done."), tools=[save]))
    if isinstance(value, float):
        # JSON has no NaN: msgspec writes null, which is no value.
        assert text == "None"
    else:
        assert text.startswith("the value to save as 'basket' has no JSON form: ")
        assert text.endswith(" full")


async def test_a_value_of_another_type_is_refused() -> None:
    @tool
    async def read(context: ToolContext[Any]) -> str:
        """Read a value."""
        await context.save_session_value("basket", 3)
        context.session_value("basket", Basket)
        return "read"

    text = await last_result(Agent(ScriptedModel(calls("read"), "Done."), tools=[read]))
    assert "the session's value 'basket' is no Basket" in text


async def states(store: OpenStore, session: str) -> list[Any]:
    return [msgspec.json.decode(record.data) for record in await store.read(session, kinds=["state"])]
