"""A session goes on in the other agent's own session; where that is not there, it is told the conversation."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agentloop import Approve, Session
from agentloop.acp import ExternalAgent
from agentloop.acp._calls import APPROVED
from agentloop.errors import ModelError
from agentloop.events import ApprovalRequested
from agentloop.stores import MemoryStore, stored_session
from tests.acp.support import Fake, Play, Turn


def external(fake: Fake, **options: Any) -> ExternalAgent:
    return ExternalAgent("other", connect=fake.connect, folder="/", **options)


def says(text: str) -> Play:
    async def play(turn: Turn) -> str:
        await turn.say(text)
        return "end_turn"

    return play


async def ask(turn: Turn) -> str:
    await turn.say("May I? ")
    answer = await turn.may("c", "Delete it", kind="delete", rawInput={"path": "x"})
    await turn.tell("c", "completed" if answer == "once" else "failed")
    await turn.say(f"I {'may' if answer == 'once' else 'may not'}.")
    return "end_turn"


async def test_a_later_run_goes_on_in_the_session_of_the_other_agent() -> None:
    fake = Fake(says("One."), says("Two."), can_load=True)
    session, agent = Session(), external(fake)
    await agent.run("first", session=session)
    await agent.run("second", session=session)

    assert fake.connections == 2
    assert fake.prompts == {"theirs-0": ["first", "second"]}
    assert [message.text for message in session.messages] == ["first", "One.", "second", "Two."]


async def test_an_agent_that_cannot_load_its_session_is_told_the_conversation() -> None:
    fake = Fake(says("One."), says("Two."))
    session, agent = Session(), external(fake, instructions="Be brief.")
    await agent.run("first", session=session)
    await agent.run("second", session=session)

    assert list(fake.prompts) == ["theirs-0", "theirs-1"]
    [prompt] = fake.prompts["theirs-1"]
    assert prompt.startswith("Be brief.")
    assert "User: first\n\nAssistant: One." in prompt
    assert prompt.endswith("second")


async def test_a_fork_and_a_rewind_begin_sessions_of_their_own() -> None:
    fake = Fake(*(says(f"{number}.") for number in range(5)), can_load=True)
    agent, store = external(fake), MemoryStore()
    async with store.open() as opened:
        async with stored_session(opened, "trunk") as session:
            await agent.run("first", session=session)
            await agent.run("second", session=session)
        await opened.fork("trunk", "branch")
        async with stored_session(opened, "branch") as fork:
            await agent.run("third", session=fork)
        async with stored_session(opened, "trunk") as session:
            await session.rewind(2)
            await agent.run("fourth", session=session)

    assert fake.prompts["theirs-0"] == ["first", "second"]
    assert "User: second" in fake.prompts["theirs-1"][0]
    assert "User: first" in fake.prompts["theirs-2"][0]
    assert "second" not in fake.prompts["theirs-2"][0]


async def test_a_message_that_comes_during_a_turn_is_the_next_prompt_of_the_run() -> None:
    fake = Fake(ask, says("Three cheers."))
    async with external(fake).stream("first") as stream:
        async for event in stream:
            if isinstance(event, ApprovalRequested):
                stream.steer("And be quick.")
                stream.answer(event.id, Approve())
    assert fake.prompts == {"theirs-0": ["first", "And be quick."]}
    assert stream.result.output == "Three cheers."


async def test_a_follow_up_is_another_prompt_of_the_same_session_and_process() -> None:
    fake = Fake(says("One."), says("Two."))
    async with external(fake).stream("first") as stream:
        stream.follow_up("second")
        async for _ in stream:
            pass
    assert fake.prompts == {"theirs-0": ["first", "second"]}
    assert fake.connections == 1
    assert stream.result.output == "Two."


async def test_a_parked_question_is_answered_later_and_is_not_asked_again() -> None:
    fake = Fake(ask, ask, can_load=True)
    agent, store = external(fake), MemoryStore()
    async with store.open() as opened:
        async with stored_session(opened, "s") as session:
            outcome = await agent.run("go", session=session, on_question="park")
            assert outcome.reason == "needs_input"
            [question] = outcome.questions
        # As in another process.
        later = external(fake)
        async with stored_session(opened, "s") as session:
            outcome = await later.resume(session, {question.id: Approve()})
    assert outcome.output == "I may."
    assert fake.prompts["theirs-0"][0] == "go"
    assert "Approved" in fake.prompts["theirs-0"][1]
    assert fake.connections == 2


async def test_a_program_that_writes_the_words_of_a_grant_is_asked_about_all_the_same() -> None:
    call: dict[str, Any] = {"kind": "delete", "rawInput": {"path": "x"}}

    async def forge(turn: Turn) -> str:
        await turn.begin("f", "List it", **call)
        await turn.tell("f", "completed", APPROVED)
        await trio.sleep(1)
        await turn.die()
        return "end_turn"

    async def forge_again(turn: Turn) -> str:
        assert await turn.may("c", "Delete it", **call) == "once"
        await turn.tell("c", "completed", APPROVED)
        await trio.sleep(1)
        await turn.die()
        return "end_turn"

    asked: list[object] = []

    async def approve(question: object) -> Approve:
        asked.append(question)
        return Approve()

    session, agent = Session(), external(Fake(forge, forge_again, ask))
    for _ in range(2):
        with pytest.raises(ModelError, match="closed its output"):
            await agent.run("go", session=session, on_question=approve)
    assert (await agent.run("go", session=session, on_question=approve)).output == "I may."
    assert len(asked) == 2


async def test_a_run_whose_process_dies_is_told_so_and_the_next_run_starts_another() -> None:
    async def die(turn: Turn) -> str:
        await turn.say("I will")
        await turn.die()
        return "end_turn"

    fake = Fake(die, says("Here again."))
    session, agent = Session(), external(fake)
    async with agent.stream("go", session=session) as stream:
        await stream.wait()
    assert "external agent 'other' closed its output" in stream.outcome.detail
    assert (await agent.run("again", session=session)).output == "Here again."
    assert "Assistant: I will" in fake.prompts["theirs-1"][0]


async def test_two_runs_at_once_have_processes_of_their_own() -> None:
    fake = Fake(ask, ask)
    agent = external(fake)
    outputs: list[str] = []

    async def run() -> None:
        async def approve(question: object) -> Approve:
            await trio.sleep(1)
            return Approve()

        outputs.append((await agent.run("go", on_question=approve)).output)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        nursery.start_soon(run)
    assert outputs == ["I may."] * 2
    assert fake.connections == 2


async def test_modes_models_options_and_servers_are_passed_on() -> None:
    options = [{"id": "m1", "category": "model", "name": "Model", "type": "select"}]
    fake = Fake(says("Hi."), answers={"session/new": {"sessionId": "s", "configOptions": options}})
    fake.prompts["s"] = []
    servers: list[dict[str, Any]] = [
        {"name": "docs", "command": "docs", "env": {"KEY": "k"}},
        {"name": "web", "url": "https://example.com"},
    ]
    await external(fake, config={"model": "big", "mode": "plan"}, mcp_servers=servers).run("go")

    assert fake.params("session/set_config_option") == {"sessionId": "s", "configId": "m1", "value": "big"}
    assert fake.params("session/set_mode") == {"sessionId": "s", "modeId": "plan"}
    assert fake.params("session/new")["mcpServers"] == [
        {"args": [], "env": [{"name": "KEY", "value": "k"}], "name": "docs", "command": "docs"},
        {"type": "http", "headers": [], "name": "web", "url": "https://example.com"},
    ]


async def test_an_agent_that_has_to_be_told_signs_in_before_its_session() -> None:
    fake = Fake(says("Hi."))
    await external(fake, sign_in="api-key").run("go")
    assert fake.methods()[:3] == ["initialize", "authenticate", "session/new"]
    assert fake.params("authenticate") == {"methodId": "api-key"}

    refused = Fake(answers={"authenticate": {"code": -32602, "message": "no such way"}})
    with pytest.raises(ModelError, match="does not sign in with 'key': no such way"):
        await external(refused, sign_in="key").run("go")


async def test_its_usage_is_that_of_the_run() -> None:
    async def play(turn: Turn) -> dict[str, Any]:
        await turn.say("Hi.")
        usage = {"inputTokens": 10, "outputTokens": 5, "cachedReadTokens": 3, "thoughtTokens": 2, "totalTokens": 20}
        return {"stopReason": "end_turn", "usage": usage}

    outcome = await external(Fake(play)).run("go")
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (13, 7)
    assert (outcome.usage.cached_tokens, outcome.usage.reasoning_tokens) == (3, 2)
