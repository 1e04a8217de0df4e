"""A store that is slow or hangs, and events that it cannot take: the run goes on, or ends, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from agentloop import Agent, Deadlines, ToolContext, tool
from agentloop._runtime.log import UNSAVED_CHARACTERS, UNSAVED_EVENTS
from agentloop.errors import StoreError
from agentloop.events import MessageCommitted, StreamStopped, TextDelta, ToolCallOutput
from agentloop.journal import OpenStore, Record
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.stores import MemoryStore, _journal_writer, stored_session
from agentloop.testing import ScriptedModel, calls
from agentloop.wire import encode_event


class SlowStore:
    """A store whose every write takes some seconds."""

    def __init__(self, store: OpenStore, seconds: float) -> None:
        self._store = store
        self.seconds = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
        await trio.sleep(self.seconds)
        await self._store.append(session, records, **options)


class Talker:
    """A model that says pieces of some size, faster than any store writes."""

    name = "talker"

    def __init__(self, pieces: int, size: int) -> None:
        self.pieces, self.size = pieces, size
        self.said = 0

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        for _ in range(self.pieces):
            await reply.text("x" * self.size)
            self.said += 1
            await trio.lowlevel.checkpoint()
        return Stop()


# ------------------------------------------------------------------- what cannot be encoded


def break_encoding(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Have no event with the word "half" be encoded: the values of user code are checked before they get there."""
    encode = encode_event

    def broken(event: Any) -> bytes:
        encoded = encode(event)
        if b"half" in encoded:
            raise error
        return encoded

    monkeypatch.setattr(_journal_writer, "encode_event", broken)


@pytest.mark.seconds(60)
@pytest.mark.parametrize("error", [UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), ZeroDivisionError("odd")])
async def test_an_event_that_cannot_be_encoded_ends_the_run_of_a_stored_session_with_a_store_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    break_encoding(monkeypatch, error)

    @tool
    async def work() -> str:
        """Work."""
        return "ok"

    model = ScriptedModel(calls("work"), "half")
    agent = Agent(model, tools=[work])
    async with MemoryStore().open() as store:
        async with stored_session(store, "ann") as session:
            with trio.fail_after(5):
                async with agent.stream("go", session=session) as stream:
                    events: list[Any] = []
                    with pytest.raises(StoreError, match=f"cannot be saved: {type(error).__name__}"):
                        async for event in stream:
                            events.append(event)  # noqa: PERF401 - it raises at the end
            assert isinstance(events[-1], StreamStopped)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert stream.outcome.reason == "failed"
            # The next run begins with what is in the store.
            await Agent(ScriptedModel("Hi.")).run("Once more?", session=session)
            after = session.messages
        async with stored_session(store, "ann") as session:
            assert session.messages == after


# ------------------------------------------------------------------------- bounded memory


@pytest.mark.seconds(600)
@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize("read", [True, False])
async def test_a_model_that_is_faster_than_the_store_waits_for_it(size: int, read: bool) -> None:
    model = Talker(pieces=3 * UNSAVED_EVENTS if size == 1 else 300, size=size)
    most = 0
    async with MemoryStore().open() as plain:
        slow: Any = SlowStore(plain, 2)
        async with stored_session(slow, "ann") as session, Agent(model).stream("go", session=session) as stream:
            log = stream._run.log
            if not read:
                await stream.wait()
            else:
                async for event in stream:
                    if isinstance(event, TextDelta):
                        unsaved = log.unsaved()
                        most = max(most, len(unsaved))
                        assert log._size <= UNSAVED_CHARACTERS + size
                assert 0 < most <= UNSAVED_EVENTS + 1
            assert stream.outcome.reason == "completed"
            assert model.said == model.pieces


@pytest.mark.seconds(600)
async def test_a_tool_that_prints_faster_than_the_store_writes_waits_for_it() -> None:
    ahead: list[int] = []

    @tool(timeout=float("inf"))
    async def shout(context: ToolContext[None]) -> str:
        """Shout."""
        for _ in range(40):
            await context.output("x" * 100_000)
            ahead.append(log._size)
        return "ok"

    async with MemoryStore().open() as plain:
        slow: Any = SlowStore(plain, 2)
        agent = Agent(ScriptedModel(calls("shout"), "Done."), tools=[shout])
        async with stored_session(slow, "ann") as session, agent.stream("go", session=session) as stream:
            log = stream._run.log
            printed = sum([len(event.text) async for event in stream if isinstance(event, ToolCallOutput)])
        assert printed == 4_000_000
        assert max(ahead) <= UNSAVED_CHARACTERS + 100_000


# ------------------------------------------------------------------- a store that hangs


@pytest.mark.seconds(600)
async def test_a_store_that_hangs_while_the_model_talks_ends_the_run_with_a_store_error() -> None:
    model = Talker(pieces=3 * UNSAVED_EVENTS, size=1)
    async with MemoryStore().open() as plain:
        slow: Any = SlowStore(plain, 0)
        agent = Agent(model, deadlines=Deadlines(cleanup=5))
        async with stored_session(slow, "ann") as session, agent.stream("go", session=session) as stream:
            events: list[Any] = []
            with pytest.raises(StoreError):
                async for event in stream:
                    events.append(event)
                    if isinstance(event, MessageCommitted):
                        slow.seconds = float("inf")
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert isinstance(events[-1], StreamStopped)


async def test_half_of_a_character_is_replaced_and_the_session_goes_on() -> None:
    async with MemoryStore().open() as store, stored_session(store, "ann") as session:
        outcome = await Agent(ScriptedModel("\ud800")).run("go", session=session)
        assert outcome.output == "\ufffd"
        await Agent(ScriptedModel("Hi.")).run("Once more?", session=session)
