"""A segment is driven to the end of the run, or to its questions, by any process, any number of times."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agentloop import Agent, Approve, Decline, Deny, Team, ToolContext, tool
from agentloop._core.json_text import decode_json
from agentloop.engines import drive_segment
from agentloop.engines._segment import agents_by_name
from agentloop.errors import SessionLeasedError, StoreError, UsageError
from agentloop.journal import OpenStore
from agentloop.messages import UserMessage
from agentloop.stores import MemoryStore, stored_session
from agentloop.stores.mailbox import Mail, answer, enqueue, mailboxes_of, stop
from agentloop.testing import FunctionModel, ScriptedModel, calls


@tool(requires_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def payer(*script: Any, **options: Any) -> Agent:
    return Agent(ScriptedModel(*script), **{"name": "payer", "tools": [pay], **options})


async def state_of(store: OpenStore, session: str = "s") -> str:
    info = await store.info(session)
    assert info is not None
    return info.state


async def test_a_prompt_waits_for_the_answers_to_the_run_before_it() -> None:
    agent = payer(calls("pay", amount=1), "Paid.", "Hello.")
    async with MemoryStore().open() as store:
        await enqueue(store, "s", "Pay.", agent="payer")
        segment = await drive_segment(store, "s", agent)
        assert (segment.state, segment.reason) == ("waiting", "needs_input")
        (question,) = segment.questions
        await enqueue(store, "s", "Are you there?")
        again = await drive_segment(store, "s", agent)
        assert (again.state, again.reason, again.questions) == ("waiting", None, (question,))
        await answer(store, "s", question.id, Approve())
        segment = await drive_segment(store, "s", {"p": agent})
        assert (segment.state, segment.reason, segment.output) == ("ready", "completed", "Paid.")
        segment = await drive_segment(store, "s", [agent])
        assert (segment.state, segment.output) == ("ready", "Hello.")
        segment = await drive_segment(store, "s", agent)
        assert (segment.state, segment.reason) == ("ready", None)
        assert await mailboxes_of(store).mail("s") == []


async def test_an_answer_that_does_not_fit_has_no_effect_and_the_next_one_counts() -> None:
    agent = payer(calls("pay", amount=1), "Not paid.")
    async with MemoryStore().open() as store:
        await enqueue(store, "s", "Pay.")
        (question,) = (await drive_segment(store, "s", agent)).questions
        await answer(store, "s", question.id, Decline())
        await answer(store, "s", "another question", Approve())
        assert (await drive_segment(store, "s", agent)).state == "waiting"
        await mailboxes_of(store).post("s", Mail("broken", "answer", b'{"type":"no"}', question=question.id))
        assert (await drive_segment(store, "s", agent)).state == "waiting"
        assert await mailboxes_of(store).mail("s") == []
        await answer(store, "s", question.id, Deny("No."))
        await answer(store, "s", question.id, Approve())
        segment = await drive_segment(store, "s", agent)
        assert segment.output == "Not paid."


async def test_a_prompt_that_cannot_be_read_does_not_hold_up_the_next_one() -> None:
    async with MemoryStore().open() as store:
        await mailboxes_of(store).post("s", Mail("broken", "prompt", b"[]"))
        await enqueue(store, "s", "Hello.")
        assert (await drive_segment(store, "s", payer("Hi."))).output == "Hi."


@pytest.mark.seconds(300)
async def test_a_live_run_takes_up_the_answer_of_another_process() -> None:
    is_working = trio.Event()

    @tool
    async def work() -> str:
        """Work for long."""
        is_working.set()
        await trio.sleep(60)
        return "worked"

    agent = payer(_both(), "Done.", tools=[pay, work])
    async with MemoryStore().open() as store, trio.open_nursery() as nursery:
        await enqueue(store, "s", "Pay.")
        segments = []

        async def drive() -> None:
            segments.append(await drive_segment(store, "s", agent, poll_seconds=1))

        nursery.start_soon(drive)
        await is_working.wait()
        await trio.sleep(0.5)
        (asked,) = await store.read("s", kinds=["approval_requested"])
        await answer(store, "s", asked.key, Decline())
        await answer(store, "s", "another question", Approve())
        await trio.sleep(2)
        await answer(store, "s", asked.key, Approve())
        await trio.sleep(10)
        results = await store.read("s", kinds=["tool_call_finished"])
        assert b"paid 1" in results[0].data
        nursery_deadline = trio.current_time() + 100
        while not segments and trio.current_time() < nursery_deadline:
            await trio.sleep(1)
        assert segments[0].output == "Done."
        assert (await drive_segment(store, "s", agent)).reason is None
        assert await mailboxes_of(store).mail("s") == []


def _both() -> Any:
    from agentloop.testing import Response

    return Response(parts=(*calls("pay", amount=1).parts, *calls("work").parts))


async def test_a_run_that_was_cut_off_is_resumed_by_its_agent_with_the_same_idempotency_key() -> None:
    keys: list[str] = []

    @tool(idempotent=True)
    async def look(context: ToolContext) -> str:
        """Look."""
        keys.append(context.idempotency_key)
        if len(keys) == 1:
            store.is_dead = True
            await trio.sleep_forever()
        return "seen"

    agent = payer(calls("look"), "Done.", tools=[look])
    async with MemoryStore().open() as opened:
        store = _Dying(opened)
        await enqueue(store, "s", "Look.", agent="payer")
        with trio.move_on_after(1), pytest.raises(StoreError):
            await drive_segment(store, "s", agent, lease_seconds=3)
        store.is_dead = False
        assert await state_of(store) == "unfinished"
        await trio.sleep(4)
        (work,) = await mailboxes_of(store).waiting_work()
        assert (work.session, work.agent) == ("s", "payer")
        with pytest.raises(UsageError, match="of agent 'payer', which this worker does not have: other"):
            await drive_segment(store, "s", payer("Never.", name="other"))
        segment = await drive_segment(store, "s", [payer("Never.", name="other"), agent])
        assert segment.output == "Done."
        assert len(keys) == 2
        assert len(set(keys)) == 1


@pytest.mark.seconds(300)
async def test_a_run_whose_tool_ends_each_process_is_given_up() -> None:
    starts: list[str] = []

    @tool(idempotent=True)
    async def explode() -> str:
        """Explode."""
        starts.append("explode")
        store.is_dead = True
        return await trio.sleep_forever()

    agent = payer(calls("explode"), "Hello.", tools=[explode])
    async with MemoryStore().open() as opened:
        store = _Dying(opened)
        await enqueue(store, "s", "Explode.")
        for _ in range(3):
            with trio.move_on_after(1), pytest.raises(StoreError):
                await drive_segment(store, "s", agent, lease_seconds=3, max_takeovers=2)
            store.is_dead = False
            await trio.sleep(4)
        segment = await drive_segment(opened, "s", agent, max_takeovers=2)
        assert (segment.state, segment.reason) == ("ready", "interrupted")
        assert "more than 2 times" in segment.detail
        assert len(starts) == 3
        assert await state_of(opened) == "ready"
        await enqueue(opened, "s", "Hello.")
        assert (await drive_segment(opened, "s", agent)).output == "Hello."


class _Dying:
    """A store whose process dies: nothing that it writes is saved any more."""

    def __init__(self, store: OpenStore) -> None:
        self._store = store
        self.is_dead = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not self.is_dead:
            return method

        async def fails(*args: Any, **kwargs: Any) -> Any:
            await trio.lowlevel.checkpoint()
            raise StoreError("this process is dead")

        return fails


async def reasons_of(store: OpenStore) -> list[str]:
    return [decode_json(record.data)["reason"] for record in await store.read("s", kinds=["stream_stopped"])]


@pytest.mark.seconds(60)
async def test_a_stop_of_another_process_stops_the_live_run_and_the_prompts_that_waited() -> None:
    @tool
    async def work() -> str:
        """Work for long."""
        await trio.sleep(10_000)
        return "worked"

    agent = payer(calls("work"), "Hello.", tools=[work])
    async with MemoryStore().open() as store, trio.open_nursery() as nursery:
        await enqueue(store, "s", "Work.")
        segments: list[Any] = []

        async def drive() -> None:
            segments.append(await drive_segment(store, "s", agent))

        nursery.start_soon(drive)
        await trio.sleep(1)
        await enqueue(store, "s", "This waits.")
        await stop(store, "s", "Ann has changed her mind.")
        await enqueue(store, "s", "Are you there?")
        began = trio.current_time()
        while not segments:
            await trio.sleep(0.1)
        assert trio.current_time() - began < 2
        (segment,) = segments
        assert (segment.state, segment.reason) == ("ready", "cancelled")
        assert segment.detail == "Ann has changed her mind."
        assert (await drive_segment(store, "s", agent)).output == "Hello."
        async with stored_session(store, "s") as session:
            prompts = [message.text for message in session.messages if isinstance(message, UserMessage)]
        assert prompts == ["Work.", "Are you there?"]
        assert await mailboxes_of(store).mail("s") == []


async def test_a_parked_run_that_is_stopped_ends_without_its_tool_and_is_not_asked_about_again() -> None:
    agent = payer(calls("pay", amount=1), "Hello.")
    async with MemoryStore().open() as store:
        await enqueue(store, "s", "Pay.")
        (question,) = (await drive_segment(store, "s", agent)).questions
        await stop(store, "s", "Not now. \ud83d")
        await enqueue(store, "s", "Are you there?")
        (work,) = await mailboxes_of(store).waiting_work()
        assert work.session == "s"
        segment = await drive_segment(store, "s", agent)
        assert (segment.state, segment.reason, segment.detail) == ("ready", "cancelled", "Not now. ?")
        assert await reasons_of(store) == ["needs_input", "cancelled"]
        assert await state_of(store) == "ready"
        await answer(store, "s", question.id, Approve())
        assert (await drive_segment(store, "s", agent)).output == "Hello."
        assert not [record for record in await store.read("s") if b"paid 1" in record.data]


async def test_a_run_that_was_cut_off_and_is_stopped_calls_no_model_again() -> None:
    async with MemoryStore().open() as store:
        await _cut_off(store)
        await stop(store, "s")
        model = ScriptedModel()
        segment = await drive_segment(store, "s", Agent(model, name="payer"))
        assert (segment.state, segment.reason) == ("ready", "cancelled")
        assert await reasons_of(store) == ["interrupted", "cancelled"]
        assert not model.requests
        assert (await drive_segment(store, "s", payer())).reason is None


async def _cut_off(opened: OpenStore) -> None:
    """Leave session s of ``opened`` as a process leaves it that dies while it waits for the model."""
    store = _Dying(opened)

    async def die(request: Any) -> str:
        # By then, it is saved that the run has begun.
        await trio.sleep(0.5)
        store.is_dead = True
        await trio.sleep(10_000)
        return ""

    await enqueue(opened, "s", "Look.", agent="payer")
    with trio.move_on_after(1), pytest.raises(StoreError):
        await drive_segment(store, "s", Agent(FunctionModel(die), name="payer"), lease_seconds=1)
    await trio.sleep(2)


async def test_a_stop_that_comes_too_late_does_not_stop_the_next_run() -> None:
    async with MemoryStore().open() as store:
        await enqueue(store, "s", "Hello.")
        assert (await drive_segment(store, "s", payer("Hi."))).output == "Hi."
        await stop(store, "s")
        await enqueue(store, "s", "Hello again.")
        assert (await drive_segment(store, "s", payer("Hi again."))).output == "Hi again."
        wrong: Any = 7
        with pytest.raises(UsageError, match="detail=7"):
            await stop(store, "s", wrong)


async def test_a_stop_that_cannot_be_read_stops_all_the_same() -> None:
    agent = payer(calls("pay", amount=1))
    async with MemoryStore().open() as store:
        await enqueue(store, "s", "Pay.")
        assert (await drive_segment(store, "s", agent)).state == "waiting"
        await mailboxes_of(store).post("s", Mail("broken", "stop", b"[]"))
        segment = await drive_segment(store, "s", agent)
        assert (segment.reason, segment.detail) == ("cancelled", "")


async def test_a_session_that_another_process_has_is_refused() -> None:
    async with MemoryStore().open() as store, stored_session(store, "s"):
        with pytest.raises(SessionLeasedError):
            await drive_segment(store, "s", payer("Hello."))


async def test_a_failed_run_has_ended_and_a_store_that_fails_raises() -> None:
    async with MemoryStore().open() as opened:
        await enqueue(opened, "s", "Hello.")
        segment = await drive_segment(opened, "s", payer())
        assert (segment.state, segment.reason) == ("ready", "failed")
        assert segment.detail
        store = _Failing(opened)
        await enqueue(store, "s", "Hello.")
        with pytest.raises(StoreError, match="the disk is full"):
            await drive_segment(store, "s", payer("Hello."))
        # The prompt was not taken.
        assert (await drive_segment(opened, "s", payer("Hi."))).output == "Hi."


class _Failing:
    def __init__(self, store: OpenStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append_and_take(self, *args: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("the disk is full")


async def test_deps_are_made_for_each_session() -> None:
    seen: list[str] = []

    @tool
    async def whose(context: ToolContext[str]) -> str:
        """Say whose."""
        seen.append(context.deps)
        return "ok"

    async with MemoryStore().open() as store:
        await enqueue(store, "ann", "Hello.")
        await drive_segment(
            store, "ann", payer(calls("whose"), "Hi.", tools=[whose]), deps=lambda session: f"of {session}"
        )
    assert seen == ["of ann"]


async def test_after_a_handoff_any_process_drives_the_session_with_the_team() -> None:
    def team(*billing: Any) -> Team[Any, Any]:
        front = Agent(ScriptedModel(calls("handoff", agent="billing")), name="front", handoffs=["billing"])
        return Team(front, payer(*billing, name="billing"))

    async with MemoryStore().open() as store:
        await enqueue(store, "s", "I was charged twice.", agent="front")
        (question,) = (await drive_segment(store, "s", team(calls("pay", amount=1)))).questions
        info = await store.info("s")
        assert info is not None
        assert info.agent == "billing"
        await answer(store, "s", question.id, Approve())
        segment = await drive_segment(store, "s", [payer(), team("Paid.")])
        assert (segment.reason, segment.output) == ("completed", "Paid.")
        await enqueue(store, "s", "Thank you.")
        segment = await drive_segment(store, "s", {"desk": team("You are welcome.")})
        assert segment.output == "You are welcome."


def test_agents_have_names() -> None:
    one, two = payer(name="one"), payer(name="two")
    assert list(agents_by_name([one, two])) == ["one", "two"]
    assert agents_by_name({"lead": one}) == {"lead": one, "one": one}
    with pytest.raises(UsageError, match="same name"):
        agents_by_name([one, payer(name="one")])
    wrong_agents: list[Any] = [[], {}, ["payer"]]
    for wrong in wrong_agents:
        with pytest.raises(UsageError, match="a worker has an Agent"):
            agents_by_name(wrong)
