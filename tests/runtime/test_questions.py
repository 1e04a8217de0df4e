"""Questions: who is asked, who may answer, exactly once, and what becomes of a question whose asker has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
import trio
from attrs import frozen
from trio.testing import wait_all_tasks_blocked

from agentloop import Accept, Agent, Approve, Cancel, Decline, Deny, ToolContext, tool
from agentloop._runtime.stream import Stream
from agentloop.errors import InvalidAnswerError, UnknownQuestionError
from agentloop.events import (
    ApprovalRequested,
    ElicitationRequested,
    Question,
    QuestionAnswered,
    QuestionDeclined,
    QuestionWithdrawn,
    StreamEvent,
    StreamStopped,
    ToolCallFinished,
)
from agentloop.outcome import QuestionHandler
from agentloop.questions import Answer
from agentloop.testing import ScriptedModel, calls
from tests.runtime.builders import agent_with, answering, asked, only_result, results_in, warnings_in
from tests.support import Watched, first, nested, of, opened, watch

NOBODY = "Nobody is there to be asked."

FORM = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 3}},
    "required": ["city"],
}


@tool
async def ask(context: ToolContext[Any], message: str = "Where?") -> str:
    return repr(await context.ask(message, FORM))


PORTO = Accept({"city": "Porto"})
PORTO_AS_ACCEPTED = repr(Accept({"city": "Porto", "days": 3}))


def asker(name: str = "agent", message: str = "Where?") -> Agent:
    """An agent with a tool that asks where to go, and says what was answered."""
    return agent_with(ask, name=name, response=calls("ask", message=message))


def delegating(inner: Agent, on_question: QuestionHandler | None = None, *, name: str = "outer") -> Agent:
    """An agent with a tool that runs ``inner``."""

    @tool
    async def delegate(context: ToolContext[Any]) -> str:
        return str((await context.run(inner, "go", on_question=on_question)).output)

    return agent_with(delegate, name=name)


def told(watched: Watched, *, depth: int = 0) -> str:
    """What the only call at ``depth`` came to."""
    [finished] = of(watched.events, ToolCallFinished, depth=depth)
    return finished.result.text


class Handler:
    """Gives every question the same answer, after a while, and keeps what it was asked."""

    def __init__(self, answer: Answer | None, *, seconds: float = 0) -> None:
        self.answer = answer
        self.seconds = seconds
        self.asked: list[Question] = []

    async def __call__(self, question: Question) -> Answer | None:
        self.asked.append(question)
        await trio.sleep(self.seconds)
        return self.answer


# ------------------------------------------------------------------------- what can be asked


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (PORTO, PORTO_AS_ACCEPTED),
        (Accept({"city": "Porto", "days": 1}), repr(Accept({"city": "Porto", "days": 1}))),
        (Decline("not telling"), repr(Decline("not telling"))),
        (Cancel(), repr(Cancel())),
    ],
    ids=["accept", "accept with everything", "decline", "cancel"],
)
async def test_the_tool_gets_the_answer_with_the_defaults_of_the_form(answer: Answer, got: str) -> None:
    watched = await watch(asker(), on_event=answering(answer))

    assert told(watched) == got


async def test_a_question_names_its_message_and_its_call() -> None:
    watched = await watch(asker(), on_event=answering(PORTO))

    [question] = of(watched.events, ElicitationRequested)
    assert (question.message, question.form, question.call_id) == ("Where?", FORM, "call_1_1_0")


async def test_a_question_without_a_form_is_answered_with_yes_or_no() -> None:
    @tool
    async def confirm(context: ToolContext[Any]) -> str:
        return repr(await context.ask("Sure?"))

    watched = await watch(agent_with(confirm), on_event=answering(Accept()))

    assert told(watched) == repr(Accept())


async def test_the_event_of_an_answer_names_who_answered() -> None:
    by_reader = await watch(asker(), on_event=answering(PORTO))
    by_handler = await watch(asker(), on_question=Handler(PORTO))

    for watched, who in ((by_reader, "reader"), (by_handler, "handler")):
        [question], [answered] = asked(watched.events), of(watched.events, QuestionAnswered)
        assert (answered.id, answered.by) == (question.id, who)
        assert answered.answer == Accept({"city": "Porto", "days": 3})


@frozen
class Trip:
    city: str
    days: int = 3
    means: Literal["train", "bus"] = "train"


@dataclass
class Nested:
    trip: Trip


async def test_a_form_spelled_as_a_class_gives_an_instance_of_it() -> None:
    trips: list[object] = []

    @tool
    async def plan(context: ToolContext[Any]) -> str:
        trips.append(await context.ask_for("Where?", Trip))
        return "planned"

    watched = await watch(agent_with(plan), on_event=answering(Accept({"city": "Porto", "means": "bus"})))

    assert trips == [Trip("Porto", 3, "bus")]
    [question] = of(watched.events, ElicitationRequested)
    assert [*question.form["properties"]] == ["city", "days", "means"]


@pytest.mark.parametrize("answer", [Decline("no"), Cancel()], ids=["decline", "cancel"])
async def test_a_form_spelled_as_a_class_may_be_declined(answer: Decline | Cancel) -> None:
    answers: list[object] = []

    @tool
    async def plan(context: ToolContext[Any]) -> str:
        answers.append(await context.ask_for("Where?", Trip))
        return "planned"

    await watch(agent_with(plan), on_event=answering(answer))

    assert answers == [answer]


async def test_an_invalid_form_is_an_error_of_the_tool_and_no_question_opens() -> None:
    @tool
    async def ask_badly(context: ToolContext[Any]) -> str:
        await context.ask("Where?", {"type": "object", "properties": {"trip": {"type": "object"}}})
        return "never"

    @tool
    async def ask_for_nested(context: ToolContext[Any]) -> str:
        await context.ask_for("Where?", Nested)
        return "never"

    watched = await watch(agent_with(ask_badly, ask_for_nested, response=calls("ask_badly") + calls("ask_for_nested")))

    assert asked(watched.events) == []
    for finished in of(watched.events, ToolCallFinished):
        assert finished.result.status == "error"
        assert "`trip`" in finished.result.text


async def test_a_tool_may_ask_several_times() -> None:
    @tool
    async def ask_twice(context: ToolContext[Any]) -> str:
        one = await context.ask("One?")
        two = await context.ask("Two?")
        return f"{type(one).__name__}, {type(two).__name__}"

    watched = await watch(agent_with(ask_twice), on_event=answering(Accept(), Decline()))

    assert told(watched) == "Accept, Decline"
    assert len({question.id for question in asked(watched.events)}) == 2


# ------------------------------------------------------------------------------- the order


@pytest.mark.parametrize("attempt", range(10))
async def test_calls_that_ask_at_once_ask_in_call_order(attempt: int) -> None:
    """Trio starts tasks in any order: of ten attempts, one would be out of order."""
    last = f"{3 + attempt}?"
    response = calls("ask", message="1?") + calls("ask", message="2?") + calls("ask", message=last)

    watched = await watch(agent_with(ask, response=response), on_event=answering(Decline()))

    assert [question.message for question in of(watched.events, ElicitationRequested)] == ["1?", "2?", last]


@pytest.mark.parametrize("attempt", range(10))
async def test_calls_that_are_woken_at_one_moment_ask_in_call_order(attempt: int) -> None:
    woken = trio.Event()

    @tool
    async def ask_late(context: ToolContext[Any], message: str) -> None:
        if message.startswith("last"):
            await trio.lowlevel.checkpoint()
            woken.set()
        await woken.wait()
        await context.ask(message)

    response = calls("ask_late", message="1?") + calls("ask_late", message="2?") + calls("ask_late", message="last?")

    watched = await watch(agent_with(ask_late, response=response), on_event=answering(Decline()))

    messages = [question.message for question in of(watched.events, ElicitationRequested)]
    assert messages == sorted(messages, key=["1?", "2?", "last?"].index)


@pytest.mark.parametrize("attempt", range(10))
async def test_children_that_ask_at_once_ask_in_the_order_of_the_calls_that_opened_them(attempt: int) -> None:
    names = [f"a{attempt}", f"b{attempt}", f"c{attempt}"]
    response = sum((calls(name, prompt="go") for name in names[1:]), calls(names[0], prompt="go"))
    outer = agent_with(*(asker(name).as_tool() for name in names), response=response)

    watched = await watch(outer, on_event=answering(PORTO))

    assert [question.source.agents[-1] for question in of(watched.events, ElicitationRequested, depth=1)] == names


async def test_a_call_that_never_asks_holds_up_no_later_one_while_it_runs() -> None:
    @tool
    async def wait_for_ever() -> None:
        await trio.sleep_forever()

    async with opened(agent_with(wait_for_ever, ask, response=calls("wait_for_ever") + calls("ask"))) as stream:
        question = await first(stream, ElicitationRequested)

    assert question.message == "Where?"


# ------------------------------------------------------------------------ exactly one answer


async def test_a_second_answer_is_refused_and_does_not_count() -> None:
    async with opened(asker()) as stream:
        question = await first(stream, ElicitationRequested)
        stream.answer(question.id, PORTO)
        with pytest.raises(UnknownQuestionError, match="none is open"):
            stream.answer(question.id, Decline())

        finished = await first(stream, ToolCallFinished)
        assert finished.result.text == PORTO_AS_ACCEPTED


async def test_an_answer_to_a_question_never_asked_is_refused_and_names_those_that_are_open() -> None:
    async with opened(asker()) as stream:
        question = await first(stream, ElicitationRequested)
        with pytest.raises(
            UnknownQuestionError, match=r"cannot answer question 'nonsense': open now: .*/1\?1"
        ) as caught:
            stream.answer("nonsense", PORTO)

        assert (caught.value.given, caught.value.open_ids) == ("nonsense", (question.id,))
        assert stream.pending == (question,)


async def test_an_answer_to_a_withdrawn_question_is_refused() -> None:
    @tool
    async def impatient(context: ToolContext[Any]) -> str:
        with trio.move_on_after(5):
            await context.ask("Quick!")
        return "too late"

    async with opened(agent_with(impatient)) as stream:
        question = await first(stream, ElicitationRequested)
        withdrawn = await first(stream, QuestionWithdrawn)
        with pytest.raises(UnknownQuestionError):
            stream.answer(question.id, Accept())

        assert withdrawn.id == question.id
        assert (await first(stream, ToolCallFinished)).result.text == "too late"


async def test_an_answer_after_the_end_is_refused() -> None:
    watched = await watch(asker(), on_event=answering(PORTO))

    with pytest.raises(UnknownQuestionError, match="none is open"):
        watched.stream.answer(asked(watched.events)[0].id, PORTO)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Approve(), "it wants Accept, Decline or Cancel, not Approve"),
        (Deny(), "it wants Accept, Decline or Cancel, not Deny"),
        (None, "not NoneType"),
        ("Porto", "not str"),
        (Accept(), "`city`: missing"),
        (Accept({"city": 7}), "`city`: expected a text, got 7"),
        (Accept({"city": "Porto", "days": "two"}), "`days`: expected an integer, got 'two'"),
        (Accept({"city": "Porto", "colour": "red"}), "`colour`: not a field of this form"),
        (Accept("Porto"), "`Accept.content` is 'Porto', where a dict is due"),  # type: ignore[arg-type]
        (Accept(None), "`Accept.content` is None, where a dict is due"),  # type: ignore[arg-type]
        (Accept({7: "Porto"}), "`Accept.content` is {7: 'Porto'}, where a dict with texts as keys is due"),  # type: ignore[dict-item]
    ],
    ids=repr,
)
async def test_an_ill_formed_answer_is_refused_and_the_question_stays(answer: Any, problem: str) -> None:
    async with opened(asker()) as stream:
        question = await first(stream, ElicitationRequested)
        with pytest.raises(InvalidAnswerError) as caught:
            stream.answer(question.id, answer)

        assert caught.value.question == question.id
        assert problem in str(caught.value)
        assert stream.pending == (question,)
        stream.answer(question.id, PORTO)
        assert (await first(stream, ToolCallFinished)).result.text == PORTO_AS_ACCEPTED


async def test_any_task_may_answer() -> None:
    async with trio.open_nursery() as nursery, opened(asker()) as stream:

        async def think_and_answer() -> None:
            await trio.sleep(3)
            stream.answer(stream.pending[0].id, PORTO)

        nursery.start_soon(think_and_answer)
        finished = await first(stream, ToolCallFinished)

    assert finished.result.text == PORTO_AS_ACCEPTED


async def test_a_question_can_be_answered_before_its_event_is_read() -> None:
    async with opened(asker()) as stream:
        await wait_all_tasks_blocked()
        stream.answer(stream.pending[0].id, PORTO)
        events = [event async for event in stream]

    assert [type(event) for event in events if isinstance(event, (ElicitationRequested, QuestionAnswered))] == [
        ElicitationRequested,
        QuestionAnswered,
    ]


async def test_questions_may_be_answered_in_any_order() -> None:
    together = calls("ask", id="a", message="a") + calls("ask", id="b", message="b") + calls("ask", id="c", message="c")
    async with opened(agent_with(ask, response=together)) as stream:
        await wait_all_tasks_blocked()
        for question in reversed(stream.pending):
            assert isinstance(question, ElicitationRequested)
            stream.answer(question.id, Accept({"city": question.message.upper()}))
        events = [event async for event in stream]

    got = {id: result.text for id, result in results_in(events).items()}
    assert got == {id: repr(Accept({"city": id.upper(), "days": 3})) for id in "abc"}


@pytest.mark.parametrize("order", ["answer first", "stop first"])
async def test_an_accepted_answer_reaches_its_asker_also_if_the_stream_is_stopped_at_that_instant(order: str) -> None:
    got: list[object] = []

    @tool
    async def keep(context: ToolContext[Any]) -> str:
        got.append(await context.ask("Where?", FORM))
        await trio.sleep(1)
        got.append("went on")
        return "never"

    async with opened(agent_with(keep)) as stream:
        question = await first(stream, ElicitationRequested)
        if order == "stop first":
            stream.stop()
        stream.answer(question.id, PORTO)
        stream.stop()
        events = [event async for event in stream]

    assert got == [Accept({"city": "Porto", "days": 3})]
    assert len(of(events, QuestionAnswered)) == 1
    assert of(events, QuestionWithdrawn) == []
    assert of(events, StreamStopped)[0].reason == "cancelled"


async def test_an_answer_after_the_asker_has_felt_the_cancel_is_refused() -> None:
    async with opened(asker()) as stream:
        question = await first(stream, ElicitationRequested)
        stream.stop()
        await wait_all_tasks_blocked()
        with pytest.raises(UnknownQuestionError):
            stream.answer(question.id, PORTO)


# ----------------------------------------------------------------------------------- handlers


async def test_a_handler_gets_the_question_as_a_reader_sees_it() -> None:
    handler = Handler(PORTO)

    watched = await watch(asker(), on_question=handler)

    assert handler.asked == asked(watched.events)
    assert told(watched) == PORTO_AS_ACCEPTED


async def test_a_run_without_a_reader_is_answered_by_its_handler() -> None:
    outcome = await asker().run("go", on_question=Handler(PORTO))

    assert outcome.messages[2].text == PORTO_AS_ACCEPTED


async def test_a_handler_that_passes_without_another_answerer_leaves_the_question_declined() -> None:
    watched = await watch(asker(), on_question=Handler(None))

    assert told(watched) == repr(Decline(NOBODY))
    assert warnings_in(watched.events) == []


async def test_a_handler_that_passes_makes_room_for_the_next_one_outwards() -> None:
    inner, outer = Handler(None), Handler(PORTO)

    watched = await watch(delegating(asker("inner"), inner), on_question=outer)

    assert told(watched, depth=1) == PORTO_AS_ACCEPTED
    assert inner.asked == outer.asked == asked(watched.events)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Approve(), "it wants Accept, Decline or Cancel, not Approve"),
        (Accept({"city": 7}), "`city`: expected a text, got 7"),
        ("Porto", "not str"),
    ],
    ids=repr,
)
async def test_an_ill_formed_answer_of_a_handler_is_a_warning_and_the_next_one_is_asked(
    answer: Any, problem: str
) -> None:
    watched = await watch(delegating(asker("inner"), Handler(answer)), on_question=Handler(PORTO))

    assert told(watched, depth=1) == PORTO_AS_ACCEPTED
    assert warnings_in(watched.events) == ["handler_failed"]
    assert any(problem in str(event) for event in watched.events)


async def test_a_handler_that_raises_is_a_warning_and_the_next_one_is_asked() -> None:
    async def broken(question: Question) -> Answer | None:
        raise ValueError("no tty")

    watched = await watch(delegating(asker("inner"), broken), on_question=Handler(PORTO))

    assert told(watched, depth=1) == PORTO_AS_ACCEPTED
    assert warnings_in(watched.events) == ["handler_failed"]
    assert any("ValueError: no tty" in str(event) for event in watched.events)


async def test_where_the_last_handler_raises_the_question_is_declined() -> None:
    async def broken(question: Question) -> Answer | None:
        raise ValueError("no tty")

    watched = await watch(asker(), on_question=broken)

    assert told(watched) == repr(Decline("The handler that was to answer failed."))


async def test_where_the_last_handler_gives_no_answer_that_fits_the_question_is_declined() -> None:
    watched = await watch(asker(), on_question=lambda question: "yes")

    assert told(watched) == repr(Decline("The handler that was to answer failed."))


async def test_a_reader_may_answer_by_id_while_a_handler_thinks() -> None:
    """Whoever is first. The handler is cancelled: there is nothing left to think about."""
    handler = Handler(Decline(), seconds=1000)

    watched = await watch(asker(), on_question=handler, on_event=answering(PORTO))

    assert told(watched) == PORTO_AS_ACCEPTED
    assert [event.by for event in of(watched.events, QuestionAnswered)] == ["reader"]
    assert warnings_in(watched.events) == []


async def test_a_root_reader_may_answer_by_id_while_a_childs_handler_thinks() -> None:
    handler = Handler(Decline(), seconds=1000)

    watched = await watch(delegating(asker("inner"), handler), on_event=answering(PORTO))

    assert told(watched, depth=1) == PORTO_AS_ACCEPTED


async def test_a_handler_may_answer_by_id_itself() -> None:
    streams: list[Stream] = []

    async def by_id(question: Question) -> Answer | None:
        streams[0].answer(question.id, PORTO)
        return None

    async with opened(asker(), on_question=by_id) as stream:
        streams.append(stream)
        finished = await first(stream, ToolCallFinished)

    assert finished.result.text == PORTO_AS_ACCEPTED


async def test_a_handler_that_waits_is_cancelled_with_its_stream() -> None:
    cancelled = trio.Event()

    async def wait(question: Question) -> Answer | None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with opened(asker(), on_question=wait) as stream:
        await first(stream, ElicitationRequested)
        await wait_all_tasks_blocked()

    assert cancelled.is_set()


@pytest.mark.seconds(1_000_000)
async def test_a_handler_has_all_the_time_in_the_world() -> None:
    """It stands for a person."""
    watched = await watch(asker(), on_question=Handler(PORTO, seconds=100_000))

    assert told(watched) == PORTO_AS_ACCEPTED


# ------------------------------------------------------------------------------ nobody to ask


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_without_an_answerer_a_question_is_declined_at_once_with_a_note(depth: int) -> None:
    began = trio.current_time()

    watched = await watch(nested(asker("inner"), depth), on_question="decline")

    assert told(watched, depth=depth) == repr(Decline(NOBODY))
    [question], [declined] = asked(watched.events), of(watched.events, QuestionDeclined)
    assert (declined.id, declined.note) == (question.id, NOBODY)
    assert trio.current_time() == began


async def test_a_run_without_a_handler_has_no_answerer() -> None:
    outcome = await asker().run("go")

    assert outcome.messages[2].text == repr(Decline(NOBODY))


# ------------------------------------------------------------------------------ child streams


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_a_question_of_a_child_is_answered_by_the_reader_of_the_root(depth: int) -> None:
    watched = await watch(nested(asker("inner"), depth), on_event=answering(PORTO))

    assert told(watched, depth=depth) == PORTO_AS_ACCEPTED
    assert [question.depth for question in asked(watched.events)] == [depth]


async def test_a_question_of_a_child_is_answered_by_the_handler_of_the_root() -> None:
    watched = await watch(nested(asker("inner"), 2), on_question=Handler(PORTO))

    assert told(watched, depth=2) == PORTO_AS_ACCEPTED


@pytest.mark.parametrize("level", [0, 1, 2])
async def test_a_question_is_answered_by_the_nearest_handler_whatever_its_level(level: int) -> None:
    handlers: list[QuestionHandler | None] = [None, None, None]
    handlers[level] = near = Handler(PORTO)
    far = Handler(Decline())
    agent = asker("agent0")
    for number, handler in enumerate(handlers):
        agent = delegating(agent, handler, name=f"agent{number + 1}")

    watched = await watch(agent, on_question=far)

    assert told(watched, depth=3) == PORTO_AS_ACCEPTED
    assert (len(near.asked), far.asked) == (1, [])


async def test_a_childs_handler_goes_before_the_roots_reader() -> None:
    handler = Handler(PORTO, seconds=1)
    pending: list[int] = []

    def look(stream: Stream, event: StreamEvent) -> None:
        pending.append(len(stream.pending))

    watched = await watch(delegating(asker("inner"), handler), on_event=look)

    assert told(watched, depth=1) == PORTO_AS_ACCEPTED
    assert max(pending) == 1


async def test_a_handler_of_a_child_is_not_asked_about_its_parent() -> None:
    handler = Handler(Decline())

    @tool
    async def delegate_then_ask(context: ToolContext[Any]) -> str:
        await context.run(Agent(ScriptedModel("Hi."), name="inner"), "go", on_question=handler)
        return repr(await context.ask("Where?", FORM))

    watched = await watch(agent_with(delegate_then_ask), on_event=answering(PORTO))

    assert told(watched) == PORTO_AS_ACCEPTED
    assert handler.asked == []


def crossing() -> Agent:
    """An agent that has two others ask at once."""
    left, right = asker("left", "left?"), asker("right", "right?")
    together = calls("left", prompt="go") + calls("right", prompt="go")
    return agent_with(left.as_tool(), right.as_tool(), name="outer", response=together)


@pytest.mark.parametrize("order", [1, -1])
async def test_parallel_children_that_ask_at_once_each_get_their_own_answer(order: int) -> None:
    async with opened(crossing()) as stream:
        await wait_all_tasks_blocked()
        for question in stream.pending[::order]:
            stream.answer(question.id, Accept({"city": question.agent}))
        events = [event async for event in stream]

    for finished in of(events, ToolCallFinished, depth=1):
        assert finished.result.text == repr(Accept({"city": finished.agent, "days": 3}))


async def test_a_question_of_a_child_that_began_first_and_ended_first_leaves_the_others_alone() -> None:
    """A slot that is saved and restored is only right when streams end last in, first out."""

    @tool
    async def ask_late(context: ToolContext[Any]) -> str:
        await trio.sleep(2)
        return repr(await context.ask("Where?", FORM))

    late = agent_with(ask_late, name="late")
    early = Agent(ScriptedModel("Hi."), name="early")
    together = calls("early", prompt="go") + calls("late", prompt="go")
    agent = agent_with(early.as_tool(), late.as_tool(), response=together)

    watched = await watch(agent, on_event=answering(PORTO))

    assert told(watched, depth=1) == PORTO_AS_ACCEPTED


async def test_overlapping_root_streams_each_get_their_own_answer() -> None:
    async with asker("one").stream("go") as one, asker("two").stream("go") as two:
        first_question = await first(one, ElicitationRequested)
        second_question = await first(two, ElicitationRequested)
        with pytest.raises(UnknownQuestionError):
            one.answer(second_question.id, Decline())
        two.answer(second_question.id, Accept({"city": "two"}))
        one.answer(first_question.id, Accept({"city": "one"}))
        answers = [(await first(stream, ToolCallFinished)).result.text for stream in (one, two)]

    assert answers == [repr(Accept({"city": city, "days": 3})) for city in ("one", "two")]


async def test_a_child_is_answered_through_its_own_handle() -> None:
    @tool
    async def read_child(context: ToolContext[Any]) -> str:
        async with context.stream(asker("inner"), "go") as child:
            async for event in child:
                if isinstance(event, ElicitationRequested):
                    child.answer(event.id, PORTO)
        return "read"

    watched = await watch(agent_with(read_child))

    assert told(watched, depth=1) == PORTO_AS_ACCEPTED


async def test_the_handle_of_a_child_answers_only_the_questions_inside_that_child() -> None:
    refused: list[UnknownQuestionError] = []

    @tool
    async def read_child(context: ToolContext[Any]) -> str:
        async with context.stream(asker("inner"), "go") as child:
            await wait_all_tasks_blocked()
            # The other call's question is open in the root stream, but not in here.
            for question in root[0].pending:
                if question.depth == 0:
                    try:
                        child.answer(question.id, PORTO)
                    except UnknownQuestionError as error:
                        refused.append(error)
            child.stop()
            await child.wait()
        return "read"

    root: list[Stream] = []
    async with opened(agent_with(read_child, ask, response=calls("read_child") + calls("ask"))) as stream:
        root.append(stream)
        finished = await first(stream, ToolCallFinished)
        while finished.depth != 0:
            finished = await first(stream, ToolCallFinished)

        [error] = refused
        assert len(error.open_ids) == 1
        assert len(stream.pending) == 1


# ------------------------------------------------------------------------------------ pending


async def test_the_open_questions_are_listed_oldest_first_until_they_are_answered() -> None:
    @tool
    async def ask_thrice(context: ToolContext[Any]) -> str:
        async with trio.open_nursery() as nursery:
            for message in ("one", "two", "three"):
                nursery.start_soon(context.ask, message)
                await trio.sleep(1)
        return "asked"

    def open_now(stream: Stream) -> list[str]:
        return [question.message for question in stream.pending if isinstance(question, ElicitationRequested)]

    async with opened(agent_with(ask_thrice)) as stream:
        assert open_now(stream) == []
        for _ in range(3):
            await first(stream, ElicitationRequested)
        assert open_now(stream) == ["one", "two", "three"]
        stream.answer(stream.pending[1].id, Accept())
        assert open_now(stream) == ["one", "three"]
        stream.answer(stream.pending[0].id, Accept())
        stream.answer(stream.pending[0].id, Accept())
        assert open_now(stream) == []
        await stream.wait()


async def test_the_pending_questions_are_those_that_the_reader_has_read() -> None:
    def compare(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ElicitationRequested):
            assert stream.pending == (event,)
            stream.answer(event.id, PORTO)

    await watch(nested(asker("inner"), 1), on_event=compare)


async def test_a_child_lists_its_own_questions_and_the_root_those_of_all() -> None:
    seen: list[int] = []

    @tool
    async def read_child(context: ToolContext[Any]) -> str:
        async with context.stream(asker("inner"), "go") as child:
            await wait_all_tasks_blocked()
            seen.append(len(child.pending))
            child.stop()
            await child.wait()
            seen.append(len(child.pending))
        return "read"

    async with opened(agent_with(read_child, ask, response=calls("read_child") + calls("ask"))) as stream:
        await first(stream, ElicitationRequested)
        await first(stream, ElicitationRequested)
        assert sorted(question.depth for question in stream.pending) == [0, 1]
        await first(stream, QuestionWithdrawn)
        assert [question.depth for question in stream.pending] == [0]

    assert seen == [1, 0]


async def test_an_approval_and_an_elicitation_are_open_side_by_side() -> None:
    @tool(requires_approval=True)
    async def act() -> str:
        return "acted"

    async with opened(agent_with(ask, act, response=calls("ask") + calls("act"))) as stream:
        await wait_all_tasks_blocked()

        wanted: set[object] = {ElicitationRequested, ApprovalRequested}
        assert {type(question) for question in stream.pending} == wanted


# ---------------------------------------------------------------------------------- withdrawn


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_question_whose_stream_is_stopped_is_withdrawn(depth: int) -> None:
    async with opened(nested(asker("inner"), depth)) as stream:
        question = await first(stream, ElicitationRequested)
        stream.stop()
        events = [event async for event in stream]

        assert stream.pending == ()
    assert [event.id for event in of(events, QuestionWithdrawn)] == [question.id]


async def test_a_question_of_a_child_that_is_stopped_is_withdrawn_and_the_others_stay() -> None:
    @tool
    async def stop_child(context: ToolContext[Any]) -> str:
        async with context.stream(asker("inner"), "go") as child:
            await first_question(child)
            child.stop()
            await child.wait()
        return "stopped"

    async def first_question(child: Any) -> None:
        async for event in child:
            if isinstance(event, ElicitationRequested):
                return

    agent = agent_with(stop_child, ask, response=calls("stop_child") + calls("ask"))
    async with opened(agent) as stream:
        withdrawn = await first(stream, QuestionWithdrawn)
        assert withdrawn.depth == 1
        [left] = stream.pending
        assert left.depth == 0
        stream.answer(left.id, PORTO)
        await stream.wait()

        assert stream.outcome.reason == "completed"


async def test_a_tool_that_gives_up_one_question_may_ask_another() -> None:
    @tool
    async def ask_again(context: ToolContext[Any]) -> str:
        with trio.move_on_after(1):
            await context.ask("Quick?")
        return repr(await context.ask("Slow?"))

    def answer(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ElicitationRequested) and event.message == "Slow?":
            stream.answer(event.id, Accept())

    watched = await watch(agent_with(ask_again), on_event=answer)

    assert told(watched) == repr(Accept())
    assert len(of(watched.events, QuestionWithdrawn)) == 1


async def test_a_question_is_declined_by_a_tool_of_the_usual_kind_in_words_the_model_can_read() -> None:
    @tool
    async def book(context: ToolContext[Any]) -> str:
        match await context.ask_for("Where?", Trip):
            case Trip(city=city):
                return f"booked for {city}"
            case Decline(note=note):
                return f"not booked: {note}"
            case _:
                return "not booked"

    assert (await only_result(agent_with(book), on_question="decline")).text == f"not booked: {NOBODY}"


async def test_nobody_is_asked_who_waits_instead_of_reading() -> None:
    answers: list[object] = []

    @tool
    async def ask(context: ToolContext[Any]) -> str:
        answers.append(await context.ask("Well?"))
        return "asked"

    agent = Agent(ScriptedModel(calls("ask"), "Done."), tools=[ask])
    async with agent.stream("go") as stream:
        await stream.wait()

    assert stream.result.output == "Done."
    assert answers == [Decline(NOBODY)]


async def test_a_question_that_is_open_when_the_reader_stops_reading_is_declined() -> None:
    answers: list[object] = []

    @tool
    async def ask(context: ToolContext[Any]) -> str:
        answers.append(await context.ask("Well?"))
        return "asked"

    agent = Agent(ScriptedModel(calls("ask"), "Done."), tools=[ask])
    async with agent.stream("go") as stream:
        await first(stream, ElicitationRequested)
        await stream.wait()

    assert stream.result.output == "Done."
    assert answers == [Decline(NOBODY)]
