"""A stream from its first event to its last, with a person in front of it."""

from __future__ import annotations

import io
from typing import Annotated, Any

import attrs
import pytest
import trio
from msgspec import Meta

from agentloop import Accept, Agent, Approve, Deny, Team, ToolContext, tool
from agentloop.errors import CancelledRunError, ModelConnectionError
from agentloop.events import ElicitationRequested, Question
from agentloop.questions import Answer
from agentloop.stores import MemoryStore, stored_session
from agentloop.terminal._following import answer_question, follow, play, play_stream
from agentloop.terminal._person import Person
from agentloop.terminal._plain import Plain
from agentloop.terminal._stage import Stage
from agentloop.testing import ScriptedModel, calls, fails, says
from agentloop.toolkit import background
from tests.demo.builders import Answering


@attrs.frozen
class Seats:
    seats: Annotated[int, Meta(le=8)]


@tool
async def book(context: ToolContext[None]) -> str:
    answer = await context.ask_for("How many?", Seats)
    return f"booked: {answer}"


@tool(requires_approval=True)
async def delete(path: str) -> str:
    await trio.lowlevel.checkpoint()
    return f"deleted {path}"


@tool
async def count() -> str:
    await trio.sleep(1)
    return "counted"


def make_agent(*script: object) -> Agent:
    return Agent(ScriptedModel(*script), tools=[book, delete, count])  # type: ignore[arg-type]


async def played(
    agent: Agent[Any, Any], *answers: Answer, prompts: tuple[str, ...] = ("Go.",)
) -> tuple[str, Answering]:
    out, person = io.StringIO(), Answering(answers)
    await play(agent, prompts, Stage(Plain(out), person))
    return out.getvalue(), person


async def test_what_is_asked_is_answered() -> None:
    page, person = await played(
        make_agent(calls("book"), calls("delete", path="x"), "Done."), Accept({"seats": 2}), Deny("mine")
    )

    assert "agent <- book: booked: Seats(seats=2)\n" in page
    assert "agent !! delete: Denied by the user: mine\n" in page
    assert len(person.asked) == 2


async def test_an_answer_that_does_not_fit_is_asked_for_again() -> None:
    page, person = await played(
        make_agent(calls("book"), "Done."), Approve(), Accept({"seats": 9}), Accept({"seats": 8})
    )

    problems = [problem for _, problem in person.asked]
    assert problems[0] == ""
    assert "Accept, Decline or Cancel" in problems[1]
    assert "<= 8" in problems[2]
    assert "booked: Seats(seats=8)" in page


async def test_after_a_handoff_the_next_agent_speaks() -> None:
    front = Agent(ScriptedModel(calls("handoff", agent="billing")), name="front", handoffs=["billing"])
    page, _ = await played(Team(front, Agent(ScriptedModel("Hello."), name="billing")))

    assert "front hands the conversation to billing\n" in page
    assert "billing: Hello.\n" in page
    assert "billing ends: completed" in page


async def test_a_background_run_is_shown_under_its_id_and_its_answer_is_no_prompt() -> None:
    helper = Agent(ScriptedModel("Gold."), name="helper")
    start = calls("run_background_agent", agent="helper", task="look")
    page, _ = await played(Agent(ScriptedModel(start, "I wait.", "Done."), name="lead", toolsets=[background(helper)]))

    assert "helper begins in the background, as helper-1" in page
    assert "lead reads the answer of helper-1" in page
    assert "[Background run" not in page


async def test_several_prompts_are_one_conversation() -> None:
    model = ScriptedModel("One.", "Two.")
    await played(Agent(model), prompts=("first", "second"))

    assert [message.text for message in model.requests[1].messages] == ["first", "One.", "second"]


async def test_a_result_that_is_no_text_is_shown() -> None:
    page, _ = await played(Agent(ScriptedModel('{"seats": 3}'), output_type=Seats))

    assert page.endswith("The result: Seats(seats=3)\n")


async def test_a_run_that_fails_raises_what_made_it_fail() -> None:
    with pytest.raises(ModelConnectionError):
        await played(make_agent(says("I was ") + fails(ModelConnectionError("gone"))))


class Stopper:
    """A person who does not answer, and has the stream stopped instead."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.left = False

    async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
        self.asked.set()
        try:
            await trio.sleep_forever()
        finally:
            self.left = True
        raise AssertionError


async def test_a_question_that_is_withdrawn_is_not_asked_any_longer() -> None:
    """The stream ends while somebody thinks: there is nothing to answer any more."""
    person = Stopper()
    async with trio.open_nursery() as nursery, make_agent(calls("book")).stream("go") as stream:

        @nursery.start_soon
        async def stop_when_asked() -> None:
            await person.asked.wait()
            stream.stop("too late")

        await follow(stream, Stage(Plain(io.StringIO()), person))

    assert person.left
    with pytest.raises(CancelledRunError, match="too late"):
        _ = stream.result


async def test_a_question_that_somebody_else_has_answered_is_left_alone() -> None:
    answering = Answering([])
    async with make_agent(calls("book"), "Done.").stream("go") as stream:
        async for event in stream:
            if isinstance(event, ElicitationRequested):
                stream.answer(event.id, Accept({"seats": 1}))
                await answer_question(stream, event, answering)

    assert answering.asked == []


async def test_an_answer_that_comes_too_late_is_dropped() -> None:
    class Late:
        """Somebody else is faster."""

        async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
            await trio.lowlevel.checkpoint()
            stream.answer(question.id, Accept({"seats": 1}))
            return Accept({"seats": 2})

    late: Person = Late()
    async with make_agent(calls("book"), "Done.").stream("go") as stream:
        out = io.StringIO()
        await follow(stream, Stage(Plain(out), late))

    assert "booked: Seats(seats=1)" in out.getvalue()


async def test_what_is_left_for_another_day_ends_the_run_and_nothing_else_is_asked() -> None:
    """Two questions are open, and something else runs. Whoever puts off the first does not want the second now."""
    out, person = io.StringIO(), Answering([None])
    stage = Stage(Plain(out), person)
    agent = make_agent(calls("delete", path="x") + calls("delete", path="y") + calls("count"), "Done.")
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        assert not await play(agent, ("Go.", "And more."), stage, session)

        assert len(session.questions) == 2
        assert len(person.asked) == 1
        assert out.getvalue().count("the question waits for an answer") == 2
        assert "And more." not in out.getvalue()

        person.answers, person.asked = [Approve(), Deny()], []
        assert await play_stream(agent.resume_stream(session), stage, may_wait=True)
    assert "deleted" in out.getvalue()
    assert "Denied" in out.getvalue()


async def test_what_is_not_kept_cannot_be_left_for_another_day() -> None:
    class Asked:
        may_wait: bool | None = None

        async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
            self.may_wait = may_wait
            await trio.lowlevel.checkpoint()
            return Deny()

    person = Asked()
    await play(make_agent(calls("delete", path="x"), "Done."), ("Go.",), Stage(Plain(io.StringIO()), person))

    assert person.may_wait is False


async def test_whoever_leaves_by_the_door_keeps_the_question() -> None:
    stage = Stage(Plain(io.StringIO()), Stopper())
    agent = make_agent(calls("delete", path="x"))
    async with MemoryStore().open() as store, stored_session(store, "s") as session, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def leave() -> None:
            await trio.sleep(1)
            assert stage.door.park is not None
            stage.door.park()

        assert not await play(agent, ("Go.",), stage, session)
        assert [question.id for question in session.questions] == ["s/1?1"]
        assert stage.door.park is None


async def test_a_question_is_kept_when_the_terminal_is_gone() -> None:
    class Gone:
        async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
            await trio.lowlevel.checkpoint()
            raise OSError("the terminal is gone")

    agent = make_agent(calls("delete", path="x"))
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        with pytest.raises(OSError, match="the terminal is gone"):
            await play(agent, ("Go.",), Stage(Plain(io.StringIO()), Gone()), session)

        assert [question.id for question in session.questions] == ["s/1?1"]


async def test_a_paced_stage_shows_one_word_after_another() -> None:
    began = trio.current_time()
    await play(Agent(ScriptedModel("One two three.")), ["go"], Stage(Plain(io.StringIO()), Stopper(), pace=1.0))

    assert trio.current_time() - began == 3.0


def test_an_interrupt_at_a_question_is_an_interrupt_and_no_group() -> None:
    class Interrupting:
        async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
            raise KeyboardInterrupt

    async def main() -> None:
        async with make_agent(calls("book"), "Done.").stream("Go.") as stream:
            await follow(stream, Stage(Plain(io.StringIO()), Interrupting()))

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
