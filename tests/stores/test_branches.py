"""Going another way in a session: forks, rewinding, who waits for whom; and finding sessions again."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
import trio

from agentloop import Accept, Agent, Approve, Compaction, ToolContext, tool
from agentloop._core.transcript import problems
from agentloop.errors import SequenceError, SessionBusyError, SessionLeasedError, StoreError, UsageError
from agentloop.events import ApprovalRequested, StreamStopped
from agentloop.journal import OpenStore
from agentloop.messages import Message
from agentloop.stores import MemoryStore, StoredSession, follow_session, fork_session, stored_session
from agentloop.testing import ScriptedModel, calls, hangs, says

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@tool
async def act(what: str) -> str:
    """Act."""
    ran.append(what)
    return what


@tool
async def ask(context: ToolContext[None]) -> str:
    """Ask."""
    answer = await context.ask("Which?", {"type": "object", "properties": {"tag": {"type": "string"}}})
    ran.append(context.idempotency_key)
    return repr(answer)


@tool
async def last_for_ever() -> None:
    """Take long."""
    ran.append("for ever")
    await trio.sleep_forever()


@pytest.fixture
async def store() -> AsyncGenerator[OpenStore]:
    async with MemoryStore().open() as store:
        yield store


async def talk(session: StoredSession, *prompts: str) -> None:
    """Add four messages for each prompt: itself, a call, its result, an answer."""
    for prompt in prompts:
        await Agent(ScriptedModel(calls("act", what=prompt), f"About {prompt}."), tools=[act]).run(
            prompt, session=session
        )


async def messages_of(store: OpenStore, id: str) -> tuple[Message, ...]:
    async with stored_session(store, id) as session:
        return session.messages


def texts(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages]


async def is_sound(store: OpenStore, id: str) -> bool:
    """Whether one can go on with the session, and what was told of it is well formed."""
    async with stored_session(store, id) as session:
        before = session.messages
        model = ScriptedModel("Still here.")
        await Agent(model).run("And now?", session=session)
        assert model.requests[0].messages[:-1] == before
        after = session.messages
    parts: list[list[Any]] = [[]]
    async for event in follow_session(store, id):
        parts[-1].append(event)
        if isinstance(event, StreamStopped):
            parts.append([])
    numbers = [event.seq for event in itertools.chain(*parts)]
    assert numbers == sorted(set(numbers))
    return await messages_of(store, id) == after and problems(after) == [] and parts[-1] == []


# ---------------------------------------------------------------------------------- forks


async def test_a_fork_has_all_messages_and_each_goes_its_own_way(store: OpenStore) -> None:
    async with stored_session(store, "ann") as session:
        await talk(session, "one", "two")
    assert await fork_session(store, "ann", "bob") == "bob"
    common = await messages_of(store, "ann")
    assert await messages_of(store, "bob") == common
    for id, prompt in (("ann", "three"), ("bob", "four")):
        async with stored_session(store, id) as session:
            await talk(session, prompt)
    assert texts((await messages_of(store, "ann"))[8:]) == ["three", "", "three", "About three."]
    assert texts((await messages_of(store, "bob"))[8:]) == ["four", "", "four", "About four."]
    assert ran == ["one", "two", "three", "four"]
    for id in ("ann", "bob"):
        assert await is_sound(store, id)


async def test_a_fork_gets_a_name_if_it_is_not_given_one(store: OpenStore) -> None:
    async with stored_session(store, "ann") as session:
        await talk(session, "one")
    names = {await fork_session(store, "ann") for _ in range(3)}
    assert len(names) == 3
    info = await store.info(names.pop())
    assert info is not None
    assert info.parent == "ann"
    with pytest.raises(SequenceError):
        await fork_session(store, "ann", names.pop())


async def test_there_must_be_something_to_fork(store: OpenStore) -> None:
    with pytest.raises(StoreError, match="ann"):
        await fork_session(store, "ann", "bob")


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 7, 8])
async def test_a_fork_may_end_with_any_message_that_ends_a_turn(store: OpenStore, count: int) -> None:
    async with stored_session(store, "ann") as session:
        await talk(session, "one", "two")
    await fork_session(store, "ann", "bob", messages=count)
    assert await messages_of(store, "bob") == (await messages_of(store, "ann"))[:count]
    assert await is_sound(store, "bob")


@pytest.mark.parametrize("count", [2, 6])
async def test_neither_a_fork_nor_rewinding_tears_a_call_from_its_result(store: OpenStore, count: int) -> None:
    match = rf"messages={count} would tear calls from their results \(.*\); these would do: 0, 1, 3, 4, 5, 7, 8$"
    async with stored_session(store, "ann") as session:
        await talk(session, "one", "two")
        with pytest.raises(UsageError, match=match):
            await fork_session(store, "ann", "bob", messages=count)
        with pytest.raises(UsageError, match=match):
            await session.rewind(count)
        assert len(session.messages) == 8
        assert await store.info("bob") is None


@pytest.mark.parametrize("count", [-1, 9])
async def test_neither_goes_where_nothing_is(store: OpenStore, count: int) -> None:
    async with stored_session(store, "ann") as session:
        await talk(session, "one", "two")
        with pytest.raises(UsageError, match=f"messages={count}: the session has 8"):
            await fork_session(store, "ann", messages=count)
        with pytest.raises(UsageError, match=f"messages={count}: the session has 8"):
            await session.rewind(count)


async def test_a_fork_of_a_session_that_is_being_run_ends_with_the_last_message(store: OpenStore) -> None:
    async with stored_session(store, "ann") as session:
        await talk(session, "one")
        agent = Agent(
            ScriptedModel(calls("act", what="two"), calls("act", what="three") + calls("last_for_ever")),
            tools=[act, last_for_ever],
        )
        async with agent.stream("go on", session=session):
            await trio.sleep(1)
            assert sorted(ran) == ["for ever", "one", "three", "two"]
            await fork_session(store, "ann", "bob")
            async with stored_session(store, "bob") as fork:
                assert texts(fork.messages) == ["one", "", "one", "About one.", "go on", "", "two"]
                assert fork.messages == session.messages
                # What is in hand over there is no business of the fork.
                outcome = await Agent(ScriptedModel("Done."), tools=[act, last_for_ever]).resume(fork)
                assert outcome.output == "Done."
            assert sorted(ran) == ["for ever", "one", "three", "two"]
            assert await is_sound(store, "bob")
        assert texts(session.messages[7:]) == [
            "",
            "three",
            "Interrupted before it finished. It may have run, in part or in full.",
        ]


async def test_a_fork_of_a_parked_session_is_parked_too_and_each_is_answered_by_itself(store: OpenStore) -> None:
    inner = Agent(
        ScriptedModel(calls("act", what="inside") + calls("ask"), "Inner.", "Inner."), name="inner", tools=[act, ask]
    )
    model = ScriptedModel(calls("act", what="outside") + calls("ask") + calls("inner", prompt="x"), "Done.", "Done.")
    agent = Agent(model, tools=[act, ask, inner.as_tool()])
    async with stored_session(store, "ann") as session:
        outcome = await agent.run("go", session=session, on_question="park")
        assert len(outcome.questions) == 2
    await fork_session(store, "ann", "bob")
    for id in ("bob", "ann"):
        async with stored_session(store, id) as session:
            [one, other] = [question.id for question in session.questions]
            outcome = await agent.resume(session, {one: Accept({"tag": id})})
            assert outcome.reason == "needs_input"
        # As the journal has it, and not only as this process remembers it.
        async with stored_session(store, id) as session:
            assert [question.id for question in session.questions] == [other]
            outcome = await agent.resume(session, {other: Accept({"tag": id})})
            assert outcome.output == "Done."
            assert f"'tag': '{id}'" in session.messages[3].text
        assert await is_sound(store, id)
    assert sorted(ran[:2]) == ["inside", "outside"]
    assert len(ran) == 6
    # Each has done it for itself, so that no receiver may take one for the other.
    assert {key.partition("#")[0] for key in ran if "#" in key} >= {"ann", "bob"}


async def test_a_fork_of_a_fork_and_of_what_was_rewound_has_what_it_had(store: OpenStore) -> None:
    async with stored_session(store, "ann") as session:
        await talk(session, "one", "two")
        await session.rewind(4)
        await talk(session, "three")
        due = session.messages
    await fork_session(store, "ann", "bob")
    await fork_session(store, "bob", "cid", messages=5)
    assert await messages_of(store, "bob") == due
    assert await messages_of(store, "cid") == due[:5]
    async with stored_session(store, "cid") as session:
        await talk(session, "four")
        await session.rewind(1)
    assert await messages_of(store, "cid") == due[:1]
    for count in (0, 1, 3, 4, 5, 8):
        assert await messages_of(store, await fork_session(store, "bob", messages=count)) == due[:count]


# ------------------------------------------------------------------------------- rewinding


async def test_a_rewound_session_continues_from_there_and_is_the_same_when_it_is_opened_again(store: OpenStore) -> None:
    async with stored_session(store, "ann") as session:
        await talk(session, "one", "two")
        before = session.messages
        await session.rewind(5)
        assert session.messages == before[:5]
    async with stored_session(store, "ann") as session:
        assert session.messages == before[:5]
        model = ScriptedModel("Another way.")
        await Agent(model).run("Well?", session=session)
        assert model.requests[0].messages[:-1] == before[:5]
        after = session.messages
        assert texts(after[5:]) == ["Well?", "Another way."]
    assert await messages_of(store, "ann") == after
    assert await is_sound(store, "ann")
    assert ran == ["one", "two"]


async def test_rewound_messages_stay_in_the_journal(store: OpenStore) -> None:
    async with stored_session(store, "ann") as session:
        await talk(session, "one")
        before = await store.read("ann")
        await session.rewind(0)
        assert session.messages == ()
        assert (await store.read("ann"))[: len(before)] == before


async def test_a_session_is_not_rewound_while_a_stream_runs_on_it(store: OpenStore) -> None:
    async with stored_session(store, "ann") as session:
        await talk(session, "one")
        async with Agent(ScriptedModel(hangs())).stream("go", session=session):
            with pytest.raises(SessionBusyError):
                await session.rewind(0)
        await session.rewind(0)


async def test_rewinding_abandons_the_parked_run(store: OpenStore) -> None:
    agent = Agent(ScriptedModel(calls("ask"), "never"), tools=[ask])
    async with stored_session(store, "ann") as session:
        await talk(session, "one")
        await agent.run("go", session=session, on_question="park")
        await session.rewind(4)
        assert not session.is_resumable
        assert session.questions == ()
    async with stored_session(store, "ann") as session:
        assert not session.is_resumable
        assert texts(session.messages) == ["one", "", "one", "About one."]
        with pytest.raises(UsageError, match="nothing is unfinished"):
            await agent.resume(session)
    assert await is_sound(store, "ann")
    assert ran == ["one"]


@pytest.mark.parametrize("fork", [False, True])
async def test_a_summary_of_messages_that_count_no_more_is_not_shown(store: OpenStore, fork: bool) -> None:
    long = "bla " * 300
    async with stored_session(store, "ann") as session:
        agent = Agent(
            ScriptedModel(long, "They said bla.", "Yes."), compaction=Compaction(window=500, keep_recent=0.05)
        )
        await agent.run(long, session=session)
        await agent.run("Well?", session=session)
        assert "They said bla." in session._transcript.view[0].text
        assert session._transcript.shown.first_kept > 1
        if not fork:
            await session.rewind(1)
            assert session._transcript.view == session.messages
    id = "ann"
    if fork:
        id = await fork_session(store, "ann", messages=1)
    async with stored_session(store, id) as session:
        assert texts(session.messages) == [long]
        assert session._transcript.view == session.messages
    assert await is_sound(store, id)


async def test_a_summary_of_messages_that_still_count_is_shown(store: OpenStore) -> None:
    long = "bla " * 300
    async with stored_session(store, "ann") as session:
        agent = Agent(
            ScriptedModel(long, "They said bla.", "Yes.", "No."),
            compaction=Compaction(window=500, keep_recent=0.05),
        )
        for prompt in (long, "Well?"):
            await agent.run(prompt, session=session)
        await session.rewind(3)
        view = session._transcript.view
        assert "They said bla." in view[0].text
    async with stored_session(store, "ann") as session:
        assert session._transcript.view == view
    async with stored_session(store, await fork_session(store, "ann")) as session:
        assert session._transcript.view == view


@pytest.mark.parametrize("fork", [False, True])
async def test_what_was_approved_for_good_stays_so(fork: bool) -> None:
    @tool(requires_approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    agent = Agent(ScriptedModel(calls("pay", amount=1), "Done.", repeat=True), tools=[pay])
    asked = 0
    async with MemoryStore().open() as store:
        async with stored_session(store, "ann") as session, agent.stream("go", session=session) as stream:
            async for event in stream:
                if isinstance(event, ApprovalRequested):
                    asked += 1
                    stream.answer(event.id, Approve(always=True))
        async with stored_session(store, "ann") as session:
            if not fork:
                await session.rewind(0)
        async with stored_session(store, await fork_session(store, "ann") if fork else "ann") as session:
            assert len(session.grants) == 1
            outcome = await agent.run("go", session=session)
            assert "paid 1" in texts(outcome.messages)
    assert asked == 1


async def test_rewinding_that_cannot_be_kept_changes_nothing() -> None:
    class Full:
        def __init__(self, store: OpenStore) -> None:
            self.store = store
            self.is_full = False

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def append(self, *args: Any, **options: Any) -> None:
            if self.is_full:
                raise StoreError("the disk is full")
            await self.store.append(*args, **options)

    async with MemoryStore().open() as store:
        full: Any = Full(store)
        async with stored_session(full, "ann") as session:
            await talk(session, "one", "two")
            before = session.messages
            full.is_full = True
            with pytest.raises(StoreError, match="the disk is full"):
                await session.rewind(4)
            assert session.messages == before
            full.is_full = False
            await session.rewind(4)
            assert session.messages == before[:4]
        assert await messages_of(store, "ann") == before[:4]


# ----------------------------------------------------------------- somebody else has it


async def test_a_session_that_is_busy_can_be_waited_for(store: OpenStore) -> None:
    got: list[float] = []

    async def wait() -> None:
        async with stored_session(store, "ann", if_busy="wait") as session:
            got.append(trio.current_time())
            assert texts(session.messages) == ["one", "", "one", "About one."]

    async with trio.open_nursery() as nursery, stored_session(store, "ann") as session:
        nursery.start_soon(wait)
        await trio.sleep(5)
        await talk(session, "one")
        left = trio.current_time()
    assert 0 <= got[0] - left <= 0.3


@pytest.mark.seconds(100)
async def test_who_is_to_wait_waits_until_the_lease_of_a_dead_process_has_run_out(store: OpenStore) -> None:
    await store.acquire("ann", "a process that dies", seconds=30)
    began = trio.current_time()
    async with stored_session(store, "ann", if_busy="wait"):
        assert 30 <= trio.current_time() - began <= 30.5


async def test_waiting_may_be_cancelled_and_leaves_nothing(store: OpenStore) -> None:
    async with stored_session(store, "ann"):
        with trio.move_on_after(3) as scope:
            async with stored_session(store, "ann", if_busy="wait"):
                raise AssertionError
        assert scope.cancelled_caught
    async with stored_session(store, "ann"):
        pass


async def test_the_error_of_a_busy_session_names_its_holder(store: OpenStore) -> None:
    await store.acquire("ann", "the other one", seconds=30)
    with pytest.raises(SessionLeasedError, match="the other one"):
        async with stored_session(store, "ann", if_busy="refuse"):
            pass


async def test_a_busy_session_can_be_forked_and_used(store: OpenStore) -> None:
    async with stored_session(store, "ann") as session:
        await talk(session, "one")
        async with stored_session(store, "ann", if_busy="fork") as fork:
            assert fork.id != "ann"
            assert fork.messages == session.messages
            await talk(fork, "two")
            await talk(session, "three")
        assert texts(await messages_of(store, fork.id))[4::4] == ["two"]
        assert texts(session.messages)[4::4] == ["three"]
        info = await store.info(fork.id)
        assert info is not None
        assert info.parent == "ann"


async def test_a_fork_of_a_session_in_which_nothing_was_said_is_an_empty_one(store: OpenStore) -> None:
    async with stored_session(store, "ann"):
        async with stored_session(store, "ann", if_busy="fork") as fork:
            assert fork.id != "ann"
            assert fork.messages == ()
            await talk(fork, "one")
        assert len(await messages_of(store, fork.id)) == 4


async def test_a_free_session_is_not_waited_for(store: OpenStore) -> None:
    began = trio.current_time()
    for if_busy in ("wait", "fork", "refuse"):
        async with stored_session(store, "ann", if_busy=if_busy) as session:
            assert session.id == "ann"
    assert trio.current_time() == began


async def test_another_word_for_it_is_refused(store: OpenStore) -> None:
    with pytest.raises(UsageError, match="if_busy='steal': say 'refuse', 'wait' or 'fork'"):
        async with stored_session(store, "ann", if_busy="steal"):  # type: ignore[arg-type]
            pass


# ---------------------------------------------------------------------- finding them again


async def test_sessions_are_listed_found_by_what_was_said_renamed_and_deleted(store: OpenStore) -> None:
    for id, prompt in (("ann", "tea"), ("bob", "Coffee"), ("cid", "water")):
        async with stored_session(store, id) as session:
            await talk(session, prompt)
        await trio.sleep(1)
    fork = await fork_session(store, "bob")
    assert [info.id for info in await store.sessions(parent="")] == ["cid", "bob", "ann"]
    assert {info.id for info in await store.sessions(search="about coffee")} == {"bob", fork}
    assert [info.id for info in await store.sessions(parent="bob")] == [fork]
    await store.rename("ann", "Hot drinks")
    assert [info.title for info in await store.sessions(search="hot DRINKS")] == ["Hot drinks"]
    async with stored_session(store, "ann"):
        [info] = await store.sessions(search="tea")
        assert info.holder
        with pytest.raises(SessionLeasedError):
            await store.delete("ann")
    await store.delete("ann")
    assert await store.sessions(search="tea") == []
    assert await messages_of(store, "ann") == ()


async def test_a_word_that_came_in_pieces_is_found(store: OpenStore) -> None:
    async with stored_session(store, "ann") as session:
        await Agent(ScriptedModel(says("Elderflower.", piece=2))).run("go", session=session)
    assert [info.id for info in await store.sessions(search="elderflower")] == ["ann"]


async def test_a_call_has_no_key_that_a_call_had_which_was_rewound() -> None:
    """Servers number their calls from the beginning in each response; what is done once must not look like a repeat."""
    ran: list[str] = []

    @tool
    async def note(context: ToolContext[None]) -> None:
        """Note."""
        ran.append(context.idempotency_key)

    async with MemoryStore().open() as store:
        for _ in range(3):
            async with stored_session(store, "ann") as session:
                await session.rewind(0)
                await Agent(ScriptedModel(calls("note", id="call_0"), "Done."), tools=[note]).run("go", session=session)
    assert len(set(ran)) == 3
