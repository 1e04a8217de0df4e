"""A program shortens a conversation when it wants to, with words of its own, and sees where the tokens are."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agentloop import Agent, Approve, Compaction, File, Price, Session, Text, UsageError, hooks, tool
from agentloop.errors import CompactionError, ModelConnectionError, SessionBusyError
from agentloop.events import CompactionFinished, CompactionStarted, StreamStarted, UsageReported
from agentloop.hooks import BeforeLLMCall, Block, PostCompact, PreCompact, Summary
from agentloop.messages import AssistantMessage, Message, ToolCall, ToolResult, Usage, UserMessage, user_message
from agentloop.stores import MemoryStore, follow_session, stored_session
from agentloop.testing import Response, ScriptedModel, assert_well_formed, calls, fails, hangs, says
from tests.support import of, opened, watch


def talk(turns: int) -> list[Message]:
    messages: list[Message] = []
    for turn in range(turns):
        messages.append(user_message(f"question {turn} " + "bla " * 100))
        messages.append(AssistantMessage((Text(f"answer {turn} " + "bla " * 100),)))
    return messages


def summary_of(text: str, usage: Usage = Usage(700, 20)) -> Response:
    return Response((Text(text),), usage=usage)


# ------------------------------------------------------------------------------ session.compact


async def test_a_conversation_is_shortened_when_the_program_wants_it() -> None:
    session = Session(messages=talk(5))
    model = ScriptedModel(summary_of("They said bla."), "Hello.")
    agent = Agent(model, instructions="Be brief.", prices={"scripted": Price(1_000_000, 0)})

    result = await session.compact(agent)

    assert result.summary.endswith("They said bla.")
    assert result.tokens_after < 400
    assert result.tokens_before > 1_000
    assert (result.usage.requests, result.usage.cost) == (1, 700)
    assert session.messages == tuple(talk(5))
    assert (await agent.run("go", session=session)).output == "Hello."
    asked, answered = model.requests
    assert asked.instructions == answered.instructions == "Be brief."
    assert answered.messages[0].text == result.summary
    assert answered.messages[-1] == user_message("go")


async def test_an_instruction_and_a_model_of_its_own_are_for_this_summary() -> None:
    session = Session(messages=talk(5))
    own, other = ScriptedModel("Hello."), ScriptedModel(summary_of("They said bla."), name="other")
    agent = Agent(own, compaction=Compaction(window=100_000, instructions="Sum up."))

    await session.compact(agent, instructions="Keep the names.", model=other)

    assert own.requests == []
    assert other.requests[0].messages[-1] == user_message("Sum up.\n\nAbove all: Keep the names.")


async def test_the_journal_has_the_compaction_and_what_it_used() -> None:
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            for _ in range(3):
                await Agent(ScriptedModel("bla " * 100)).run("bla " * 100, session=session)
            await session.compact(Agent(ScriptedModel(summary_of("They said bla."))))
        async with stored_session(store, "s") as session:
            model = ScriptedModel("Hello.")
            assert not session.is_resumable
            await Agent(model).run("go", session=session)
        events = [event async for event in follow_session(store, "s")]

    assert model.requests[0].messages[0].text.endswith("They said bla.")
    assert [event.reason for event in of(events, CompactionStarted)] == ["request"]
    assert Usage(700, 20, requests=1) in [event.usage for event in of(events, UsageReported)]
    [started] = [event for event in of(events, StreamStarted) if not event.message.parts]
    assert_well_formed([event for event in events if event.stream == started.stream])


async def test_a_compaction_that_died_with_its_process_is_not_resumed() -> None:
    async with MemoryStore().open() as store, MemoryStore().open() as copy:
        async with stored_session(store, "s") as session, trio.open_nursery() as nursery:
            for _ in range(3):
                await Agent(ScriptedModel("bla " * 100)).run("bla " * 100, session=session)
            nursery.start_soon(session.compact, Agent(ScriptedModel(hangs())))
            # Of the virtual clock: until the journal has it.
            await trio.sleep(1)
            # What another process finds if this one dies now.
            await copy.append("s", await store.read("s"))
            nursery.cancel_scope.cancel()
        async with stored_session(copy, "s") as session:
            assert not session.is_resumable
            assert (await Agent(ScriptedModel("Hello.")).run("go", session=session)).output == "Hello."
        kinds = [record.kind for record in await copy.read("s")]

    assert "compaction_finished" in kinds


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (says(""), "wrote no summary"),
        (Response((Text("No."),), "refusal"), "refused"),
        (says("S" * 40_000), "no shorter"),
    ],
    ids=["nothing", "a refusal", "too long"],
)
async def test_a_summary_that_is_not_whole_is_an_error_and_changes_nothing(response: Response, problem: str) -> None:
    session = Session(messages=talk(5))
    model = ScriptedModel(response, "Hello.")

    with pytest.raises(CompactionError, match=problem):
        await session.compact(Agent(model))

    await Agent(model).run("go", session=session)
    assert model.requests[-1].messages == (*talk(5), user_message("go"))


async def test_there_is_nothing_to_sum_up_in_an_empty_session() -> None:
    with pytest.raises(CompactionError, match="nothing to sum up"):
        await Session().compact(Agent(ScriptedModel("x")))


async def test_a_session_that_is_busy_or_has_an_unfinished_run_is_not_compacted() -> None:
    @tool(requires_approval=True)
    async def pay() -> str:
        return "paid"

    session = Session(messages=talk(5))
    async with opened(Agent(ScriptedModel(hangs())), session=session):
        with pytest.raises(SessionBusyError):
            await session.compact(Agent(ScriptedModel("x")))
    async with MemoryStore().open() as store, stored_session(store, "s") as parked:
        await Agent(ScriptedModel(calls("pay"), "done"), tools=[pay]).run("go", session=parked, on_question="park")
        with pytest.raises(UsageError, match="unfinished run"):
            await parked.compact(Agent(ScriptedModel("x")))
        [question] = parked.questions
        resumed = await Agent(ScriptedModel("done"), tools=[pay]).resume(parked, {question.id: Approve()})
        assert resumed.output == "done"


async def test_only_an_agent_can_write_the_summary() -> None:
    with pytest.raises(UsageError, match="takes the agent"):
        await Session().compact("scripted")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ hooks


async def test_a_hook_gives_the_summary_and_no_model_is_asked() -> None:
    seen: list[Any] = []

    @hooks.pre_compact
    def give(value: PreCompact) -> Summary:
        seen.append(value)
        return Summary("From my notes.")

    after = hooks.post_compact(lambda value: seen.append(value))  # noqa: PLW0108 - it is to return None
    session = Session(messages=talk(5))
    model = ScriptedModel("Hello.")
    agent = Agent(model, hooks=[give, after], compaction=Compaction(window=1_000))

    watched = await watch(agent, "go", session=session)

    assert len(model.requests) == 1
    assert model.requests[0].messages[0].text.endswith("From my notes.")
    before, finished = seen
    assert isinstance(before, PreCompact)
    assert before.messages == tuple(talk(5))[: len(before.messages)]
    assert len(before.messages) >= 7
    assert isinstance(finished, PostCompact)
    assert finished.tokens_before == before.tokens > 1_000
    assert 0 < finished.tokens_after < 400
    [event] = of(watched.events, CompactionFinished)
    assert event.tokens == finished.tokens_after


async def test_a_summary_of_a_hook_that_is_no_shorter_replaces_nothing() -> None:
    give = hooks.pre_compact(lambda value: Summary("S" * 40_000))

    with pytest.raises(CompactionError, match="no shorter"):
        await Session(messages=talk(5)).compact(Agent(ScriptedModel("x"), hooks=[give]))


async def test_a_hook_refuses_a_compaction_on_request() -> None:
    refuse = hooks.pre_compact(lambda value: Block(f"not for a {value.reason}"))

    with pytest.raises(CompactionError, match="not for a request"):
        await Session(messages=talk(5)).compact(Agent(ScriptedModel("x"), hooks=[refuse]))


async def test_a_request_for_a_summary_that_fails_for_good_is_the_reason_of_the_error() -> None:
    agent = Agent(ScriptedModel(fails(ModelConnectionError("gone"))))

    with pytest.raises(CompactionError, match="gone"):
        await Session(messages=talk(5)).compact(agent)


async def test_hooks_see_the_request_of_a_compaction_with_its_purpose() -> None:
    seen: list[str] = []

    @hooks.before_llm_call
    def look(call: BeforeLLMCall) -> None:
        seen.append(call.purpose)

    await Session(messages=talk(5)).compact(Agent(ScriptedModel(summary_of("Sum.")), hooks=[look]))

    assert seen == ["summary"]


# ---------------------------------------------------------------------------- session.context


async def test_a_session_says_where_its_tokens_are() -> None:
    @tool
    async def read() -> str:
        """Read the page that the user means, and nothing else."""
        return "page"

    document = File(b"%PDF-1.7\n" + b"\0x" * 50_000, media_type="application/pdf")
    messages: list[Message] = [
        UserMessage((Text("word " * 100), document)),
        AssistantMessage((Text("well " * 50), ToolCall("c1", "read", "{}")), "tool_calls"),
        ToolResult("c1", "read", (Text("page " * 300),)),
        AssistantMessage((Text("fine " * 20),), usage=Usage(4_000, 30)),
    ]
    session = Session(messages=messages)

    context = session.context(Agent(ScriptedModel(), instructions="Be brief. " * 20, tools=[read]))

    assert context.counted == context.tokens == 4_030
    assert context.instructions == pytest.approx(60, abs=15)
    assert list(context.tools) == ["read"]
    assert 20 < context.tools["read"] < 80
    assert context.prompts == pytest.approx(104, abs=10)
    assert context.responses == pytest.approx(80, abs=15)
    assert context.results == {"read": pytest.approx(304, abs=15)}
    assert context.media == 6_000
    assert context.summary == 0
    assert set(context.messages) == {0, 1, 2, 3}
    assert context.messages[0] == context.prompts + context.media


async def test_after_a_compaction_the_context_is_the_summary_and_the_latest_messages() -> None:
    session = Session(messages=talk(5))
    agent = Agent(ScriptedModel(summary_of("They said bla. " * 10), "Hello."), instructions="Be brief.")
    result = await session.compact(agent)

    context = session.context()

    assert context.summary > 40
    assert context.tokens == pytest.approx(result.tokens_after, abs=10)
    assert min(context.messages) > 4
    await agent.run("go", session=session)
    # Of the last request, the instructions are known.
    assert session.context().instructions > 0
