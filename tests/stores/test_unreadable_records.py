"""A record that cannot be read costs that record, and not its session, unless the transcript needs it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec
import pytest
import trio

from agentloop import Agent, Permissions, Rule, ToolContext, hooks, tool
from agentloop.errors import StoreError, UsageError
from agentloop.events import StreamEvent, StreamStopped
from agentloop.journal import OpenStore, Record
from agentloop.messages import AssistantMessage, ToolResult, UserMessage
from agentloop.questions import Accept, Approve
from agentloop.stores import (
    MemoryStore,
    _journal_writer,
    _replay,
    answer_question,
    follow_session,
    fork_session,
    stored_session,
)
from agentloop.testing import ScriptedModel, calls


@pytest.fixture(autouse=True)
def _no_comparison_of_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old loader, with which tests of stores compare the new one, reads no damaged session."""
    monkeypatch.setattr(_journal_writer, "load", _replay.load)


@tool(max_result=300)
async def look(context: ToolContext[None]) -> str:
    """Look."""
    await context.output("looking")
    await context.progress(1, total=2)
    await context.remember("key", {"a": 1})
    context.warn("odd", "odd")
    return "tea " * 100


@tool(requires_approval=True)
async def buy() -> str:
    """Buy."""
    return "bought"


helper = Agent(ScriptedModel(calls("look"), "Found it.", repeat=True), name="helper", tools=[look])
TOOLS = [look, buy, helper.as_tool()]


def spoilt(record: Record) -> bytes:
    """The data of ``record`` with a wrong value in the place of each of its own."""
    data = msgspec.json.decode(record.data)
    if not isinstance(data, dict):
        return b"7"
    return msgspec.json.encode({name: 7.5 if name not in ("type", "seq") else value for name, value in data.items()})


def with_wrong_detail(record: Record) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(record.data), "detail": None})


async def damaged(
    records: Sequence[Record], target: OpenStore, bad: Collection[Record], damage: Callable[[Record], bytes]
) -> None:
    """Write ``records`` as session ``s``, with those that are ``bad`` damaged."""
    copies = [Record(r.seq, r.kind, damage(r) if r in bad else r.data, r.stream, r.key, r.at) for r in records]
    lease = await target.acquire("s", "a test", seconds=60)
    await target.append("s", copies, lease=lease)
    await target.release(lease)


async def damage_kind(source: OpenStore, target: OpenStore, kind: str, damage: Callable[[Record], bytes]) -> None:
    records = await source.read("s")
    await damaged(records, target, [record for record in records if record.kind == kind], damage)


async def session_with_everything(store: OpenStore) -> None:
    """Two runs, the second of which is parked with a question."""
    model = ScriptedModel(
        calls("look") + calls("helper", prompt="go"), calls("buy"), "Done.", calls("look"), calls("buy") + calls("look")
    )
    agent = Agent(model, tools=TOOLS)
    async with stored_session(store, "s") as session:

        async def approve(_: object) -> Approve:
            return Approve()

        await agent.run("first", session=session, on_question=approve)
        await agent.run("second", session=session, on_question="park")


async def follow(store: OpenStore) -> list[StreamEvent]:
    return [event async for event in follow_session(store, "s")]


async def test_each_record_that_the_transcript_does_not_need_may_be_unreadable() -> None:
    async with MemoryStore().open() as original:
        await session_with_everything(original)
        records = await original.read("s")
        async with stored_session(original, "s") as session:
            messages = session.messages
    starts = [record for record in records if record.kind == "stream_started"]
    roots = {record.stream for record in starts}
    turns = [record for record in records if record.kind == "turn"]
    opened: set[str] = set()
    for record in records:
        kind, is_roots = record.kind, record.stream in roots
        async with MemoryStore().open() as copy:
            await damaged(records, copy, [record], spoilt)
            if record is starts[-1] or (kind == "message_committed" and is_roots):
                with pytest.raises(StoreError, match=f"record {record.seq}, '{kind}', cannot be read"):
                    async with stored_session(copy, "s"):
                        pass
                continue
            fork = await fork_session(copy, "s")
            async with stored_session(copy, "s") as session:
                # The open turn is not part of the transcript yet: if it cannot be read, it is lost.
                committed = len(messages) - 3
                assert session.messages[:committed] == messages[:committed]
                assert len(session.messages) == (committed if record is turns[-1] else len(messages))
                outcome = await Agent(ScriptedModel("Still here.")).run("And now?", session=session)
                assert outcome.output == "Still here."
            assert isinstance((await follow(copy))[-1], StreamStopped)
            async with stored_session(copy, fork) as session:
                assert session.messages[:5] == messages[:5]
        opened.add(kind)
    assert opened >= {"tool_call_finished", "question_answered", "tool_call_progress", "long_result", "turn", "memory"}


async def test_a_session_is_not_opened_without_what_it_forbids() -> None:
    agent = Agent(ScriptedModel("Hi.", repeat=True))
    async with MemoryStore().open() as original, MemoryStore().open() as copy, MemoryStore().open() as other:
        for rule in (Rule("buy"), Rule("look")):
            async with stored_session(original, "s", permissions=Permissions(deny=[rule])) as session:
                await agent.run("Hi", session=session)
        records = await original.read("s")
        first, last = [record for record in records if record.kind == "state"]
        await damaged(records, copy, [last], spoilt)
        with pytest.raises(StoreError, match=f"record {last.seq}, 'state', cannot be read"):
            async with stored_session(copy, "s"):
                pass
        # The older one is void.
        await damaged(records, other, [first], spoilt)
        async with stored_session(other, "s") as session:
            assert session.permissions == Permissions(deny=[Rule("look")])


async def test_the_end_of_a_run_whose_detail_cannot_be_read_is_an_end() -> None:
    """``Block(None)`` made such a record."""

    @hooks.user_prompt_submit
    def block(_: object) -> hooks.Block:
        return hooks.Block("no")

    async with MemoryStore().open() as original, MemoryStore().open() as copy:
        async with stored_session(original, "s") as session:
            await Agent(ScriptedModel("Hello.")).run("go", session=session)
            async with Agent(ScriptedModel("x"), hooks=[block]).stream("go", session=session) as stream:
                await stream.wait()
        await damage_kind(original, copy, "stream_stopped", with_wrong_detail)
        async with stored_session(copy, "s") as session:
            assert not session.is_resumable
            assert [type(message) for message in session.messages] == [UserMessage, AssistantMessage]
            assert (await copy.read("s"))[-1].seq == (await original.read("s"))[-1].seq, "nothing is written"


@pytest.mark.parametrize("kind", ["memory", "turn", "tool_call_started"])
async def test_a_run_is_not_resumed_if_a_step_of_it_cannot_be_read(kind: str) -> None:
    """It might do for a second time what it has done before."""
    ran: list[str] = []

    @tool
    async def charge(context: ToolContext[None]) -> str:
        """Charge the card once."""
        if context.recall("receipt", str) is None:
            ran.append("charged")
            await context.remember("receipt", "4711")
        return str(await context.ask("Go on?"))

    agent = Agent(ScriptedModel(calls("charge"), "Done."), tools=[charge])
    async with MemoryStore().open() as original, MemoryStore().open() as copy:
        async with stored_session(original, "s") as session:
            await agent.run("go", session=session, on_question="park")
        await damage_kind(original, copy, kind, lambda record: b"[]")
        async with stored_session(copy, "s") as session:
            assert not session.is_resumable
            with pytest.raises(UsageError):
                await agent.resume(session, {})
            outcome = await Agent(ScriptedModel("Fine.")).run("And now?", session=session)
            assert outcome.output == "Fine."
            results = [message for message in session.messages if isinstance(message, ToolResult)]
            assert [result.status for result in results] == ([] if kind == "turn" else ["interrupted"])
        async with stored_session(copy, "s") as session:
            assert not session.is_resumable
    assert ran == ["charged"]


async def test_an_answer_that_cannot_be_read_is_asked_for_again() -> None:
    @tool
    async def ask(context: ToolContext[None]) -> str:
        """Ask."""
        return type(await context.ask("Go on?")).__name__

    agent = Agent(ScriptedModel(calls("ask"), "Done."), tools=[ask])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            outcome = await agent.run("go", session=session, on_question="park")
        [question] = outcome.questions
        assert await store.answer("s", question.id, b'{"type":"accept","content":7}')

        async with stored_session(store, "s") as session:
            assert session.is_resumable

            async def accept(_: object) -> Accept:
                return Accept()

            await agent.resume(session, on_question=accept)
            results = [message for message in session.messages if isinstance(message, ToolResult)]
            assert [result.text for result in results] == ["Accept"]


async def test_a_session_is_not_answered_while_its_question_cannot_be_read() -> None:
    async with MemoryStore().open() as original, MemoryStore().open() as copy:
        async with stored_session(original, "s") as session:
            agent = Agent(ScriptedModel(calls("buy"), "Done."), tools=[buy])
            outcome = await agent.run("go", session=session, on_question="park")
        [question] = outcome.questions
        await damage_kind(original, copy, "approval_requested", lambda record: b"[]")
        with pytest.raises(UsageError):
            await answer_question(copy, "s", question.id, Approve())
        async with stored_session(copy, "s") as session:
            assert session.is_resumable

            async def approve(_: object) -> Approve:
                return Approve()

            outcome = await agent.resume(session, on_question=approve)
            assert outcome.output == "Done."


async def test_following_goes_on_behind_a_record_that_cannot_be_read() -> None:
    async with MemoryStore().open() as original, MemoryStore().open() as copy:
        async with stored_session(original, "s") as session:
            await Agent(ScriptedModel("Hello."), hooks=[]).run("go", session=session)
        whole = await follow(original)
        await damage_kind(original, copy, "turn_finished", spoilt)
        with trio.fail_after(5):
            events = await follow(copy)
        assert [type(event) for event in events] == [
            type(event) for event in whole if type(event).__name__ != "TurnFinished"
        ]
