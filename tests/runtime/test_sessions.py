"""A session is the transcript that outlives its streams."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agentloop import Agent, Session, hooks
from agentloop._core.transcript import problems
from agentloop.errors import SessionBusyError, UsageError
from agentloop.events import TurnStarted
from agentloop.messages import AssistantMessage, Text, ToolCall, ToolResult, UserMessage
from agentloop.testing import ScriptedModel, calls, hangs
from tests.runtime.ways import add
from tests.support import first, watch

# --------------------------------------------------------------------- the transcript grows


async def test_a_stream_starts_from_the_transcript_of_its_session() -> None:
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
