"""A session is the transcript that outlives its streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from agentloop import Agent, Deadlines, Session, hooks
from agentloop._core.transcript import problems
from agentloop.errors import SessionBusyError, StoreError, UsageError
from agentloop.events import MessageCommitted, TextDelta, ToolCallStarted, TurnStarted, WarningIssued
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, UserMessage
from agentloop.testing import ScriptedModel, calls, hangs, says
from tests.runtime.ways import add, wait_forever
from tests.support import first, nested, of, opened, stopped_at, watch


class Memory:
    """A store that keeps everything, and may fail or hang at the append of some number."""

    def __init__(self, *, fails_at: int = -1, hangs_at: int = -1) -> None:
        self.kept: list[tuple[str, Message]] = []
        self.appends = 0
        self._fails_at = fails_at
        self._hangs_at = hangs_at

    async def append(self, session: str, messages: Sequence[Message], /) -> None:
        number, self.appends = self.appends, self.appends + 1
        await trio.lowlevel.checkpoint()
        if number == self._hangs_at:
            await trio.sleep_forever()
        if number == self._fails_at:
            raise OSError("the disk is full")
        self.kept.extend((session, message) for message in messages)

    def of(self, session: str) -> tuple[Message, ...]:
        return tuple(message for name, message in self.kept if name == session)


# --------------------------------------------------------------------- the transcript grows


async def test_a_stream_goes_on_from_what_was_said_before() -> None:
    session = Session()
    model = ScriptedModel(calls("add", a=1, b=1), "It is 2.", "You are welcome.")
    agent = Agent(model, tools=[add])
    await agent.run("1 + 1?", session=session)
    await agent.run("Thanks.", session=session)

    assert [type(message) for message in model.requests[2].messages] == [
        UserMessage,
        AssistantMessage,
        ToolResult,
        AssistantMessage,
        UserMessage,
    ]
    assert session.messages[:-1] == model.requests[2].messages


async def test_a_session_can_be_begun_with_a_transcript() -> None:
    given = (UserMessage((Text("Hi"),)), AssistantMessage((Text("Hello"),)))
    session = Session("s", messages=given)
    model = ScriptedModel("Bye.")
    await Agent(model).run("Bye", session=session)
    assert tuple(model.requests[0].messages[:2]) == given
    assert repr(session) == "<Session s: 4 messages>"


async def test_a_transcript_that_no_provider_takes_is_refused() -> None:
    broken = (AssistantMessage((ToolCall("c1", "add", "{}"),)), UserMessage((Text("Hi"),)))
    with pytest.raises(UsageError, match="call 'c1' has no result"):
        Session(messages=broken)


@pytest.mark.parametrize("id", ["", 5])
async def test_a_sessions_id_is_some_text(id: Any) -> None:
    with pytest.raises(UsageError, match="id is some text"):
        Session(id)


async def test_sessions_without_an_id_have_different_ones() -> None:
    assert Session().id != Session().id


async def test_call_ids_that_a_server_numbers_anew_are_unique_in_the_session() -> None:
    session = Session()
    script = [calls("add", id="call_0", a=1, b=1), calls("add", id="call_0", a=2, b=2)]
    for _ in range(2):
        await Agent(ScriptedModel(*script, "Done."), tools=[add]).run("go", session=session)
    assert problems(session.messages) == []
    ids = [call.id for message in session.messages if isinstance(message, AssistantMessage) for call in message.calls]
    assert len(ids) == len(set(ids)) == 4


async def test_a_request_does_not_change_while_the_model_has_it() -> None:
    model = ScriptedModel(calls("add", a=1, b=1), "2")
    await Agent(model, tools=[add]).run("go")
    assert [len(request.messages) for request in model.requests] == [1, 3]


# ------------------------------------------------------------------------ one run at a time


async def test_a_session_is_busy_until_everything_has_ended() -> None:
    session = Session()
    busy: list[bool] = []

    async def slow_end(value: object) -> None:
        await trio.sleep(1)
        busy.append(session.is_busy)

    agent = Agent(ScriptedModel(hangs()), hooks=[hooks.session_end(slow_end)])
    async with agent.stream("go", session=session) as stream:
        await first(stream, TurnStarted)
        assert repr(session).endswith("busy>")
    assert busy == [True]
    assert not session.is_busy


async def test_a_tool_cannot_run_on_the_session_of_its_own_stream() -> None:
    session = Session()
    met: list[SessionBusyError] = []

    async def again() -> str:
        """Run once more."""
        try:
            await Agent(ScriptedModel("no")).run("go", session=session)
        except SessionBusyError as error:
            met.append(error)
        return "ok"

    await watch(Agent(ScriptedModel(calls("again"), "Done."), tools=[again]), session=session)
    assert met[0].stream == f"{session.id}/1"


# -------------------------------------------------------------------------------- its store


async def test_the_store_has_what_the_session_has() -> None:
    store = Memory()
    session = Session("s", store=store)
    watched = await watch(Agent(ScriptedModel(calls("add", a=1, b=1), "2"), tools=[add]), session=session)
    assert store.of("s") == watched.messages
    # The prompt, the turn with its result, the answer: each whole.
    assert store.appends == 3


async def test_what_was_told_is_in_the_store() -> None:
    store = Memory()
    session = Session("s", store=store)
    async with opened(Agent(ScriptedModel(calls("add", a=1, b=1), "2"), tools=[add]), session=session) as stream:
        async for event in stream:
            if isinstance(event, MessageCommitted):
                assert store.of("s")[event.index] == event.message


async def test_children_are_kept_in_sessions_of_their_own() -> None:
    store = Memory()
    session = Session("s", store=store)
    await watch(nested(Agent(ScriptedModel("Hi."), name="inner"), 1), session=session)
    assert [type(message) for message in store.of("s/1.1")] == [UserMessage, AssistantMessage]


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_store_that_fails_ends_the_run_and_nothing_is_told_that_it_does_not_have(at: int, depth: int) -> None:
    # Outside, the prompt is kept before the agent inside begins.
    store = Memory(fails_at=at + depth)
    session = Session("s", store=store)
    inner = Agent(ScriptedModel(calls("add", a=1, b=1), "2"), name="inner", tools=[add])
    watched = await watch(nested(inner, depth), session=session)

    assert stopped_at(watched.events, depth).reason == "failed"
    told = [(event.session, event.message) for event in of(watched.events, MessageCommitted)]
    assert told == store.kept
    if depth == 0:
        assert isinstance(watched.error, StoreError)
        assert isinstance(watched.error.__cause__, OSError)
        assert "the disk is full" in str(watched.error)
        assert watched.messages == store.of("s")


async def test_a_store_that_hangs_ends_the_run_in_time() -> None:
    session = Session("s", store=Memory(hangs_at=0))
    watched = await watch(Agent(ScriptedModel("no"), deadlines=Deadlines(cleanup=2)), session=session)
    assert isinstance(watched.error, StoreError)
    assert "took longer than 2 s" in str(watched.error)
    assert trio.current_time() == 2


async def test_a_turn_that_was_interrupted_is_kept_too() -> None:
    store = Memory()
    session = Session("s", store=store)
    async with opened(Agent(ScriptedModel(calls("wait_forever")), tools=[wait_forever]), session=session) as stream:
        await first(stream, ToolCallStarted)
    assert problems(store.of("s")) == []
    assert store.of("s") == stream.outcome.messages
    assert isinstance(store.of("s")[-1], ToolResult)


async def test_half_an_answer_is_kept_when_its_reader_leaves() -> None:
    store = Memory()
    async with opened(Agent(ScriptedModel(says("Once upon ") + hangs())), session=Session("s", store=store)) as stream:
        await first(stream, TextDelta)
    assert store.of("s") == stream.outcome.messages
    last = store.of("s")[-1]
    assert isinstance(last, AssistantMessage)
    assert last.stop == "interrupted"


async def test_a_store_that_fails_while_the_run_is_stopped_is_not_kept_from_the_reader() -> None:
    session = Session("s", store=Memory(fails_at=1))
    async with opened(Agent(ScriptedModel(says("Once upon ") + hangs())), session=session) as stream:
        await first(stream, TextDelta)
        stream.stop()
        told = [event async for event in stream]
    assert stream.outcome.reason == "cancelled"
    assert "the disk is full" in of(told, WarningIssued)[0].message


async def test_a_store_may_be_a_plain_function() -> None:
    class Plain:
        def __init__(self) -> None:
            self.kept: list[Message] = []

        def append(self, session: str, messages: Sequence[Message], /) -> None:
            self.kept.extend(messages)

    store = Plain()
    await Agent(ScriptedModel("Hi.")).run("go", session=Session(store=store))  # type: ignore[arg-type]
    assert len(store.kept) == 2
