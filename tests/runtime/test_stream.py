"""A stream as a whole: what its handle promises, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from agentloop import Accept, Agent, Approve, Deadlines, Deny, Limits, Session, ToolContext, hooks, run_sync, tool
from agentloop._core import state
from agentloop._core.response import Assembler
from agentloop._core.transcript import Transcript, problems
from agentloop._core.usage import Meter, RepeatDetector
from agentloop._runtime import loop, tool_calls
from agentloop._runtime.stream import Stream
from agentloop.errors import (
    BlockedError,
    CancelledRunError,
    InternalError,
    InvalidAnswerError,
    LimitReachedError,
    ModelConnectionError,
    ModelError,
    RunError,
    SessionBusyError,
    StreamStateError,
    UnknownQuestionError,
    UsageError,
)
from agentloop.events import (
    ChildStreamStopped,
    ElicitationRequested,
    MessageCommitted,
    QuestionAnswered,
    QuestionWithdrawn,
    ReasoningDelta,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallFinished,
    ToolCallOutput,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
    WarningIssued,
)
from agentloop.messages import AssistantMessage, Reasoning, Text, ToolResult, Usage, UserMessage
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.testing import FunctionModel, ScriptedModel, calls, fails, hangs, says, thinks
from agentloop.wire import decode_event, decode_messages, encode_event, encode_messages
from tests.runtime.ways import QUICK, add, ask_name, wait_forever
from tests.support import first, nested, of, opened, stopped_at, watch

# ----------------------------------------------------------------------------- the handle


async def test_a_reader_that_is_interrupted_while_it_waits_shows_nothing_of_how_it_waited() -> None:
    """A traceback of Ctrl-C began with `trio.WouldBlock`."""
    contexts: list[BaseException | None] = []
    async with opened(Agent(ScriptedModel(calls("wait_forever")), tools=[wait_forever])) as stream:
        await first(stream, ToolCallStarted)
        with trio.move_on_after(1):
            try:
                await first(stream, ToolCallFinished)
            except trio.Cancelled as interrupt:
                contexts.append(interrupt.__context__)
                raise
    assert contexts == [None]


async def test_a_stream_gives_its_events_in_order_and_ends_after_the_last() -> None:
    watched = await watch(Agent(ScriptedModel(calls("add", a=2, b=3), "It is 5."), tools=[add]), "2 + 3?")

    assert [type(event).__name__ for event in watched.events if "Delta" not in type(event).__name__] == [
        "StreamStarted",
        "MessageCommitted",
        "TurnStarted",
        "UsageReported",
        "ToolCallStarted",
        "ToolCallFinished",
        "MessageCommitted",
        "MessageCommitted",
        "TurnFinished",
        "TurnStarted",
        "UsageReported",
        "MessageCommitted",
        "TurnFinished",
        "StreamStopped",
    ]
    assert watched.outcome.output == "It is 5."


async def test_a_stream_has_no_outcome_while_it_runs() -> None:
    async with opened(Agent(ScriptedModel(says("Well, ") + hangs()))) as stream:
        await first(stream, TextDelta)
        with pytest.raises(StreamStateError, match="still running"):
            _ = stream.outcome
        with pytest.raises(StreamStateError, match="still running"):
            _ = stream.result
        assert repr(stream) == f"<Stream {stream.id} of agent: running>"
    assert repr(stream) == f"<Stream {stream.id} of agent: cancelled>"


def _model_fails() -> Agent:
    return Agent(ScriptedModel(fails(ModelConnectionError("gone"))))


def _hook_blocks() -> Agent:
    return Agent(ScriptedModel("no"), hooks=[hooks.user_prompt_submit(lambda value: hooks.Block("not here"))])


def _limit_reached() -> Agent:
    return Agent(ScriptedModel(calls("add", a=1, b=1)), tools=[add], limits=Limits(turns=1))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (_model_fails, ModelConnectionError, "gone"),
        (_hook_blocks, BlockedError, "a hook blocked the run: not here"),
        (_limit_reached, LimitReachedError, "the run reached a limit: turns: 1 of 1 used"),
    ],
)
async def test_a_run_without_a_result_raises_the_reason(
    make: Callable[[], Agent], error: type[Exception], match: str
) -> None:
    async with opened(make(), on_question="decline") as stream:
        outcome = await stream.wait()
    with pytest.raises(error, match=match) as raised:
        _ = stream.result
    if isinstance(raised.value, RunError):
        assert raised.value.outcome is outcome
    with pytest.raises(error, match=match):
        await make().run("go")


async def test_a_stopped_run_has_no_result_but_an_outcome_with_all_that_was_done() -> None:
    session = Session()
    async with opened(Agent(ScriptedModel(calls("add", a=1, b=1), says("So ") + hangs()), tools=[add])) as stream:
        await first(stream, TextDelta)
        stream.stop("enough")
        outcome = await stream.wait()
    assert (outcome.reason, outcome.detail, outcome.output) == ("cancelled", "enough", None)
    assert [type(message) for message in outcome.messages] == [
        UserMessage,
        AssistantMessage,
        ToolResult,
        AssistantMessage,
    ]
    assert outcome.usage == Usage(input_tokens=10, output_tokens=5, requests=1)
    with pytest.raises(CancelledRunError, match="the run was stopped: enough") as raised:
        _ = stream.result
    assert raised.value.outcome is outcome
    assert not session.messages


async def test_the_outcome_holds_what_this_stream_has_added_and_no_more() -> None:
    session = Session()
    await Agent(ScriptedModel("Hi.")).run("Hello", session=session)
    watched = await watch(Agent(ScriptedModel("Bye.")), "Good-bye", session=session)

    assert [message.parts for message in watched.outcome.messages] == [(Text("Good-bye"),), (Text("Bye."),)]


async def test_stopping_twice_or_after_the_end_changes_nothing() -> None:
    async with opened(Agent(ScriptedModel(hangs()))) as stream:
        await first(stream, StreamStarted)
        stream.stop("first")
        stream.stop("second")
        outcome = await stream.wait()
        stream.stop("third")
        assert await stream.wait() is outcome
    stream.stop("fourth")
    assert stream.outcome is outcome
    assert outcome.detail == "first"


async def test_a_stream_that_is_stopped_before_it_has_begun_has_no_effect() -> None:
    model = ScriptedModel("no")
    session = Session()
    submitted: list[object] = []
    agent = Agent(model, hooks=[hooks.user_prompt_submit(submitted.append)])
    async with agent.stream("go", session=session) as stream:
        stream.stop()
        told = [event async for event in stream]
    assert [type(event) for event in told] == [StreamStarted, StreamStopped]
    assert (model.requests, session.messages, submitted) == ([], (), [])


async def test_waiting_drops_unread_events_and_the_run_continues() -> None:
    async with opened(Agent(ScriptedModel(calls("add", a=1, b=1), says("bla " * 200)), tools=[add])) as stream:
        await first(stream, ToolCallStarted)
        outcome = await stream.wait()
        with pytest.raises(StreamStateError, match=r"wait\(\) was called"):
            await anext(stream)
    assert outcome.reason == "completed"


async def test_waiting_while_another_task_reads_ends_its_loop_with_an_error_that_says_why() -> None:
    met: list[BaseException] = []

    async def read(stream: Stream) -> None:
        try:
            async for _ in stream:
                pass
        except StreamStateError as error:
            met.append(error)

    async with opened(Agent(ScriptedModel(hangs()))) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(read, stream)
        await trio.testing.wait_all_tasks_blocked()
        stream.stop()
        await stream.wait()
    assert "wait() was called" in str(met[0])


async def test_a_stream_whose_block_was_left_is_not_read_any_more() -> None:
    async with opened(Agent(ScriptedModel("Hi."))) as stream:
        await first(stream, StreamStarted)
    with pytest.raises(StreamStateError, match="its block was left"):
        await anext(stream)


async def test_a_stream_says_what_it_has_used_so_far() -> None:
    async with opened(Agent(ScriptedModel(calls("wait_forever")), tools=[wait_forever])) as stream:
        assert stream.usage == Usage()
        await first(stream, ToolCallStarted)
        assert stream.usage == Usage(input_tokens=10, output_tokens=5, requests=1)


# --------------------------------------------------------------------------- opening one


@pytest.mark.parametrize(
    ("prompt", "match"),
    [("", "empty"), ("  \n", "empty"), ([], "empty"), ([1], "made of str"), (5, "text")],
)
async def test_a_bad_prompt_is_refused_before_anything_has_started(prompt: Any, match: str) -> None:
    session = Session()
    with pytest.raises(UsageError, match=match):
        async with Agent(ScriptedModel("no")).stream(prompt, session=session):
            pytest.fail("it was opened")
    assert not session.is_busy


async def test_a_nonsensical_answerer_is_refused() -> None:
    with pytest.raises(UsageError, match="on_question is"):
        Agent(ScriptedModel("no")).stream("go", on_question="nobody")  # type: ignore[arg-type]


async def test_a_session_that_is_busy_is_refused_and_stays_with_its_stream() -> None:
    session = Session("s")
    async with opened(Agent(ScriptedModel(hangs())), session=session) as stream:
        with pytest.raises(SessionBusyError, match="session 's' is busy with stream 's/1'"):
            async with Agent(ScriptedModel("no")).stream("go", session=session):
                pytest.fail("it was opened")
        assert session.is_busy
        await first(stream, StreamStarted)


async def test_running_an_agent_is_the_same_loop_without_a_reader() -> None:
    def agent() -> Agent:
        return Agent(ScriptedModel(calls("add", a=2, b=3), "It is 5."), tools=[add])

    watched = await watch(agent())
    outcome = await agent().run("go")
    assert (outcome.output, outcome.usage, outcome.messages) == (
        watched.outcome.output,
        watched.outcome.usage,
        watched.outcome.messages,
    )


def test_a_script_runs_an_agent_without_an_event_loop() -> None:
    assert run_sync(Agent(ScriptedModel("Hi.")), "Hello").output == "Hi."


async def test_run_sync_inside_an_event_loop_is_refused() -> None:
    with pytest.raises(UsageError, match=r"await agent\.run"):
        run_sync(Agent(ScriptedModel("Hi.")), "Hello")


# ------------------------------------------------------------------------ the true reason


async def test_cancelled_wins_over_an_answer_that_comes_all_the_same() -> None:
    class Deaf:
        name = "deaf"

        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            await reply.text("I have ")
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            await reply.text("the answer.")
            return Stop()

    async with opened(Agent(Deaf())) as stream:
        await first(stream, TextDelta)
        stream.stop()
        outcome = await stream.wait()
    assert (outcome.reason, outcome.output) == ("cancelled", None)


async def test_cancelled_wins_over_what_fails_on_the_way_out() -> None:
    class Sulking:
        name = "sulking"

        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                raise OSError("so there") from None  # noqa: ASYNC104 - as bad code does

    async with opened(Agent(Sulking())) as stream:
        await first(stream, TurnStarted)
        stream.stop()
        told = [event async for event in stream]
    assert stream.outcome.reason == "cancelled"
    assert stream.outcome.error is None
    # But it is not kept from whoever reads.
    assert "so there" in of(told, WarningIssued)[-1].message


async def test_a_deadline_of_the_caller_is_a_cancellation() -> None:
    with trio.move_on_after(3) as scope:
        async with opened(Agent(ScriptedModel(hangs()), deadlines=QUICK.none())) as stream:
            async for _ in stream:
                pass
    assert scope.cancelled_caught
    assert stream.outcome.reason == "cancelled"
    assert trio.current_time() == 3


async def test_nothing_of_an_earlier_turn_is_carried_over_into_the_reason() -> None:
    """A call that was denied, one that timed out, one past a limit: and then a good answer."""

    @tool(timeout=1)
    async def slow() -> None:
        """Take long."""
        await trio.sleep(5)

    deny = hooks.pre_tool_use(tools="add")(lambda value: Deny("no sums"))
    agent = Agent(
        ScriptedModel(calls("add", a=1, b=1), calls("slow"), "Fine."),
        tools=[add, slow],
        hooks=[deny],
        limits=Limits(turns=1),
    )

    async def go_on(question: object) -> Approve:
        return Approve()

    watched = await watch(agent, on_question=go_on)
    assert (watched.outcome.reason, watched.outcome.detail, watched.outcome.output) == ("completed", "", "Fine.")


# ------------------------------------------------------------------------- cancel is total


async def test_nothing_begins_after_a_stop() -> None:
    begun: list[str] = []
    model = ScriptedModel(calls("first") + calls("second"), "no")

    def stop(value: hooks.PreToolUse) -> None:
        begun.append(f"hook {value.name}")
        stream.stop()

    @tool
    async def first_tool() -> None:
        """Run."""
        begun.append("first")

    agent = Agent(
        model,
        tools=[tool(name="first")(first_tool.function), tool(name="second")(first_tool.function)],
        hooks=[hooks.pre_tool_use(stop)],
    )
    async with opened(agent) as stream:
        told = [event async for event in stream]
    assert "first" not in begun
    assert len(model.requests) == 1
    assert {event.result.text for event in of(told, ToolCallFinished)} == {
        "Interrupted before it started. It did not run."
    }


async def test_an_interrupted_call_says_that_it_may_have_run() -> None:
    async with opened(Agent(ScriptedModel(calls("wait_forever")), tools=[wait_forever])) as stream:
        await first(stream, ToolCallStarted)
        await trio.testing.wait_all_tasks_blocked()
        stream.stop()
        told = [event async for event in stream]
    [finished] = of(told, ToolCallFinished)
    assert finished.result.status == "interrupted"
    assert "may have run" in finished.result.text
    assert stream.outcome.messages[-1] == finished.result


async def test_a_stuck_step_of_the_cleanup_cannot_stop_the_next() -> None:
    ended: list[str] = []

    async def stuck(value: object) -> None:
        await trio.sleep_forever()

    def fine(value: hooks.SessionEnd) -> None:
        ended.append(value.reason)

    agent = Agent(
        ScriptedModel(hangs()),
        hooks=[hooks.session_end(stuck), hooks.turn_end(stuck), hooks.session_end(stuck), hooks.session_end(fine)],
        deadlines=Deadlines(cleanup=2),
    )
    async with opened(agent) as stream:
        await first(stream, TurnStarted)
        stream.stop()
        told = [event async for event in stream]
    assert ended == ["cancelled"]
    assert trio.current_time() == 6
    assert [warning.code for warning in of(told, WarningIssued)] == ["hook_failed"] * 3


async def test_an_end_hook_whose_own_nursery_breaks_at_its_deadline_does_not_take_the_last_event_along() -> None:
    async def breaking(value: object) -> None:
        async def child() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("no")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep_forever()

    agent = Agent(ScriptedModel("Hi."), hooks=[hooks.session_end(breaking)], deadlines=Deadlines(cleanup=1))
    watched = await watch(agent)
    assert watched.outcome.reason == "completed"
    assert [warning.code for warning in of(watched.events, WarningIssued)] == ["hook_failed"]


async def test_the_error_of_a_tools_own_nursery_during_a_cancel_does_not_leave_the_block() -> None:
    @tool
    async def untidy() -> None:
        """Raise on the way out."""

        async def child() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("untidy")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep_forever()

    agent = Agent(ScriptedModel(calls("untidy") + calls("untidy")), tools=[untidy])
    async with opened(agent) as stream:
        await first(stream, ToolCallStarted)
        await trio.testing.wait_all_tasks_blocked()
    assert stream.outcome.reason == "cancelled"


# --------------------------------------------------------------------------- errors are plain


async def test_a_group_of_the_callers_own_nursery_is_left_as_it_is() -> None:
    group = ExceptionGroup("mine", [ValueError("one"), KeyError("two")])
    with pytest.raises(ExceptionGroup) as raised:  # noqa: ASYNC401 - the very group is meant
        async with opened(Agent(ScriptedModel(hangs()))) as stream:
            await first(stream, TurnStarted)
            raise group
    # trio takes the cancellations out of groups, which makes new ones of them.
    assert (raised.value.message, raised.value.exceptions) == (group.message, group.exceptions)


@pytest.mark.parametrize("siblings", [0, 1])
@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_an_interrupt_goes_through_to_the_top_as_itself(depth: int, siblings: int) -> None:
    @tool
    async def interrupt() -> None:
        """Press Ctrl-C."""
        await trio.testing.wait_all_tasks_blocked()
        raise KeyboardInterrupt

    script = calls("interrupt")
    for _ in range(siblings):
        script += calls("wait_forever")
    agent = nested(Agent(ScriptedModel(script), name="inner", tools=[interrupt, wait_forever]), depth)
    with pytest.raises(KeyboardInterrupt):
        async with opened(agent) as stream:
            async for _ in stream:
                pass
    assert stream.outcome.reason != "completed"


async def test_interrupts_of_two_tools_at_once_are_one() -> None:
    async def interrupt() -> None:
        await trio.testing.wait_all_tasks_blocked(0.1)
        raise KeyboardInterrupt

    tools = [tool(name=name)(interrupt) for name in ("a", "b")]
    with pytest.raises(KeyboardInterrupt):
        await Agent(ScriptedModel(calls("a") + calls("b")), tools=tools).run("go")


@pytest.mark.parametrize("depth", [0, 1])
async def test_a_run_has_its_end_also_where_one_of_its_last_hooks_is_interrupted(depth: int) -> None:
    @hooks.session_end
    async def interrupted(ending: hooks.SessionEnd) -> None:
        raise KeyboardInterrupt

    agent = nested(Agent(ScriptedModel("Done."), name="inner", hooks=[interrupted]), depth)
    events: list[StreamEvent] = []
    with pytest.raises(KeyboardInterrupt):
        async with agent.stream("go") as stream:
            async for event in stream:
                events.append(event)  # noqa: PERF401 - what came before the interrupt counts
    [end] = [event for event in events if isinstance(event, StreamStopped if depth == 0 else ChildStreamStopped)]
    assert end.reason == "completed"
    assert stream.outcome is not None
    assert (stream.outcome.reason == "completed") == (depth == 0)


# --------------------------------------------------------------------- the whole transcript


async def test_the_transcript_is_valid_at_every_event() -> None:
    session = Session()

    def check(stream: Stream, event: StreamEvent) -> None:
        assert problems(session.messages) == []
        if isinstance(event, MessageCommitted):
            assert session.messages[event.index] is event.message

    script = [calls("add", a=1, b=1) + calls("add", a=2, b=2) + calls("nope"), calls("add", a=3, b=3)]
    await watch(Agent(ScriptedModel(*script, "Done."), tools=[add]), session=session, on_event=check)


async def test_results_stand_in_call_order_whatever_order_the_tools_end_in() -> None:
    @tool
    async def sleep(seconds: int) -> int:
        """Sleep."""
        await trio.sleep(seconds)
        return seconds

    script = calls("sleep", seconds=3) + calls("sleep", seconds=1) + calls("sleep", seconds=2)
    watched = await watch(Agent(ScriptedModel(script, "Done."), tools=[sleep]))

    assert [event.result.text for event in of(watched.events, ToolCallFinished)] == ["1", "2", "3"]
    assert [message.text for message in watched.messages if isinstance(message, ToolResult)] == ["3", "1", "2"]
    assert trio.current_time() == 3


async def test_the_visible_part_of_a_response_that_was_cut_off_is_committed() -> None:
    async with opened(Agent(ScriptedModel(says("Once upon a time ") + hangs()))) as stream:
        for _ in range(3):
            await first(stream, TextDelta)
        await trio.testing.wait_all_tasks_blocked()
        stream.stop()
        await stream.wait()
    assert stream.outcome.messages[-1] == AssistantMessage((Text("Once upon a time "),), "interrupted", "scripted")


# ---------------------------------------------------------------------------- the right asker


async def test_answers_in_any_order_reach_the_question_that_they_name() -> None:
    script = calls("ask_name", id="a") + calls("ask_name", id="b") + calls("ask_name", id="c")
    async with opened(Agent(ScriptedModel(script, "Hi all."), tools=[ask_name])) as stream:
        asked: dict[str, ElicitationRequested] = {}
        while len(asked) < 3:
            question = await first(stream, ElicitationRequested)
            asked[question.call_id] = question
        assert sorted(question.id for question in stream.pending) == sorted(one.id for one in asked.values())
        for call_id in ("c", "a", "b"):
            stream.answer(asked[call_id].id, Accept({"name": f"name of {call_id}"}))
        assert stream.pending == ()
        told = [event async for event in stream]
    assert {event.call_id: event.result.text for event in of(told, ToolCallFinished)} == {
        "a": "name of a",
        "b": "name of b",
        "c": "name of c",
    }


async def test_an_answer_that_does_not_fit_is_an_error_and_the_question_stays() -> None:
    async with opened(Agent(ScriptedModel(calls("ask_name"), "Hi."), tools=[ask_name])) as stream:
        question = await first(stream, ElicitationRequested)
        for wrong in (Accept({"name": 5}), Accept({}), Accept({"name": "x", "age": 5}), Approve()):
            with pytest.raises(InvalidAnswerError, match="does not fit"):
                stream.answer(question.id, wrong)
            assert stream.pending == (question,)
        stream.answer(question.id, Accept({"name": "Ada"}))
        finished = await first(stream, ToolCallFinished)
    assert finished.result.text == "Ada"


async def test_a_second_a_late_and_an_unknown_answer_are_errors() -> None:
    async with opened(Agent(ScriptedModel(calls("ask_name"), "Hi."), tools=[ask_name])) as stream:
        question = await first(stream, ElicitationRequested)
        with pytest.raises(UnknownQuestionError, match=f"open now: {question.id}"):
            stream.answer("nonsense", Accept())
        stream.answer(question.id, Accept({"name": "Ada"}))
        with pytest.raises(UnknownQuestionError, match="none is open"):
            stream.answer(question.id, Accept({"name": "Bob"}))
        finished = await first(stream, ToolCallFinished)
    assert finished.result.text == "Ada"
    with pytest.raises(UnknownQuestionError):
        stream.answer(question.id, Accept({"name": "Eve"}))


@pytest.mark.parametrize("order", ["answer first", "stop first"])
async def test_an_answer_that_was_accepted_is_not_lost_to_a_stop_at_the_same_moment(order: str) -> None:
    got: list[object] = []

    @tool
    async def ask(context: ToolContext[None]) -> None:
        """Ask."""
        got.append(await context.ask("Sure?"))
        await trio.lowlevel.checkpoint()
        got.append("went on")

    async with opened(Agent(ScriptedModel(calls("ask")), tools=[ask])) as stream:
        question = await first(stream, ElicitationRequested)
        if order == "stop first":
            stream.stop()
        stream.answer(question.id, Accept())
        stream.stop()
        told = [event async for event in stream]
    assert got == [Accept()]
    assert len(of(told, QuestionAnswered)) == 1
    assert of(told, QuestionWithdrawn) == []


async def test_a_question_is_withdrawn_when_what_asked_it_ends() -> None:
    @tool
    async def impatient(context: ToolContext[None]) -> str:
        """Ask, but not for long."""
        with trio.move_on_after(1):
            await context.ask("Sure?")
        return "never mind"

    async with opened(Agent(ScriptedModel(calls("impatient"), "Well."), tools=[impatient])) as stream:
        question = await first(stream, ElicitationRequested)
        withdrawn = await first(stream, QuestionWithdrawn)
        assert withdrawn.id == question.id
        with pytest.raises(UnknownQuestionError):
            stream.answer(question.id, Accept())
        finished = await first(stream, ToolCallFinished)
    assert finished.result.text == "never mind"


# ---------------------------------------------------------------------------------- identity


async def test_every_event_says_its_session_stream_and_agents() -> None:
    session = Session("s")
    watched = await watch(nested(Agent(ScriptedModel("Hi."), name="inner"), 2), session=session)

    places = {(event.session, event.stream, event.parent, event.path) for event in watched.events}
    assert places == {
        ("s", "s/1", None, ("outer2",)),
        ("s/1.1", "s/1.1/1", "s/1", ("outer2", "outer1")),
        ("s/1.1/1.1", "s/1.1/1.1/1", "s/1.1/1", ("outer2", "outer1", "inner")),
    }


async def test_events_are_numbered_without_gaps_over_the_life_of_the_session() -> None:
    session = Session()
    numbers: list[int] = []
    for _ in range(3):
        async with Agent(ScriptedModel(says("bla " * 50) + hangs())).stream("go", session=session) as stream:
            async for event in stream:
                numbers.append(event.seq)
                if isinstance(event, TextDelta):
                    stream.stop()
    assert numbers == list(range(1, len(numbers) + 1))


async def test_events_that_were_not_read_have_their_numbers_all_the_same() -> None:
    session = Session()
    async with Agent(ScriptedModel("Hi.")).stream("go", session=session) as stream:
        await first(stream, StreamStarted)
        await trio.testing.wait_all_tasks_blocked()
    told = (await watch(Agent(ScriptedModel("Hi."), name="next"), session=session)).events
    # Eight of the first stream, of which one was read.
    assert told[0].seq == 9


async def test_two_runs_of_one_agent_at_once_share_nothing() -> None:
    agent = Agent(FunctionModel(lambda request: request.messages[-1].text.upper()))

    outputs: dict[str, object] = {}

    async def run(prompt: str) -> None:
        outputs[prompt] = (await agent.run(prompt)).output

    async with trio.open_nursery() as nursery:
        for prompt in ("a", "b", "c"):
            nursery.start_soon(run, prompt)
    assert outputs == {"a": "A", "b": "B", "c": "C"}


# ---------------------------------------------------------------------------- a bug of ours


class BugError(Exception):
    """A bug in the runtime."""


BUGS: list[tuple[Any, str, int]] = [
    (Meter, "before_request", 0),
    (Meter, "count_usage", 0),
    (Meter, "before_tool_calls", 0),
    (Transcript, "extend", 1),
    (Transcript, "extend", 2),
    (Assembler, "finish", 0),
    (Assembler, "tool_call", 0),
    (RepeatDetector, "is_stuck", 0),
    (loop, "after_response", 0),
    (loop, "flaw_of", 0),
    (state, "close_turn", 0),
    (tool_calls, "result_of", 0),
    (tool_calls, "unknown_tool", 0),
    (tool_calls, "PausableDeadline", 0),
]


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(("owner", "name", "passes"), BUGS, ids=lambda value: getattr(value, "__name__", value))
async def test_a_bug_in_the_runtime_is_one_plain_error_and_the_stream_ends_as_ever(
    owner: Any, name: str, passes: int, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ScriptedModel(calls("nope") + calls("add", a=1, b=1), "2")
    agent = nested(Agent(model, name="inner", tools=[add], instructions=lambda info: arm()), depth)
    bug = BugError("oh")
    original = getattr(owner, name)
    left = [passes]

    def broken(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            raise bug
        return original(*args, **kwargs)

    def arm() -> str:
        # Now, so that the agents outside are spared.
        monkeypatch.setattr(owner, name, broken)
        return ""

    watched = await watch(agent)

    stopped = stopped_at(watched.events, depth)
    assert stopped.reason == "failed"
    assert stopped.error is not None
    if depth:
        assert watched.outcome.output == "Done."
        return
    if (owner, name) == (Assembler, "tool_call"):
        # The model's own call of us: it cannot tell whose bug that was.
        assert isinstance(watched.error, ModelError)
    else:
        assert isinstance(watched.error, InternalError)
    assert watched.error.__cause__ is bug


async def test_the_last_turn_finishes_as_failed_if_the_runtime_has_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    bugs = [BugError()]
    original = getattr(loop, "after_response")  # noqa: B009 - not exported by that module

    def broken(*args: Any, **kwargs: Any) -> Any:
        if bugs:
            raise bugs.pop()
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "after_response", broken)
    watched = await watch(Agent(ScriptedModel("Hi.")))
    assert of(watched.events, TurnFinished)[-1].reason == "failed"


# ------------------------------------------------------------------------------ the model


async def test_the_reasoning_of_the_model_is_emitted_and_stored_apart_from_its_text() -> None:
    watched = await watch(Agent(ScriptedModel(thinks("Hm, let me see. ") + says("Well."))))
    assert "".join(event.text for event in of(watched.events, ReasoningDelta)) == "Hm, let me see. "
    assert "".join(event.text for event in of(watched.events, TextDelta)) == "Well."
    assert watched.outcome.messages[-1] == AssistantMessage(
        (Reasoning("Hm, let me see. "), Text("Well.")), "end", "scripted", Usage(10, 5, requests=1)
    )


async def test_an_error_of_the_model_inside_a_group_is_reported_without_the_group() -> None:
    class Grouping:
        name = "grouping"

        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            async with trio.open_nursery():
                raise ModelConnectionError("gone")

    watched = await watch(Agent(Grouping()))
    assert isinstance(watched.error, ModelConnectionError)
    assert str(watched.error) == "gone"


async def test_empty_pieces_of_text_are_no_events() -> None:
    class Stuttering:
        name = "stuttering"

        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            for piece in ("", "Hi", "", "."):
                await reply.text(piece)
            await reply.reasoning("", signature="sig")
            return Stop()

    watched = await watch(Agent(Stuttering()))
    assert [event.text for event in of(watched.events, TextDelta)] == ["Hi", "."]
    assert of(watched.events, ReasoningDelta) == []


# ---------------------------------------------------------------------------- odd values


async def test_whatever_a_tool_says_every_event_can_be_sent() -> None:
    """A file's name may hold what no JSON can."""

    @tool
    async def odd(context: ToolContext[None]) -> str:
        """Say odd things."""
        await context.output("a\udcff")
        await context.progress(1, total=2)
        raise OSError("no such file: a\udcff")

    watched = await watch(Agent(ScriptedModel(calls("odd"), "Well."), tools=[odd]))
    assert [decode_event(encode_event(event)) for event in watched.events] == watched.events
    assert of(watched.events, ToolCallOutput)[0].text == "a?"
    assert decode_messages(encode_messages(watched.messages)) == watched.messages


@pytest.mark.parametrize(("progress", "total"), [(math.nan, None), (math.inf, 1), (1, math.inf)])
async def test_progress_is_emitted_in_finite_numbers(progress: float, total: float | None) -> None:
    @tool
    async def odd(context: ToolContext[None]) -> None:
        """Say odd things."""
        await context.progress(progress, total=total)

    watched = await watch(Agent(ScriptedModel(calls("odd"), "Well."), tools=[odd]))
    assert "a finite number" in of(watched.events, ToolCallFinished)[0].result.text


async def test_a_block_that_is_entered_when_all_is_cancelled_already_has_no_effect() -> None:
    model, session = ScriptedModel("no"), Session()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with opened(Agent(model), session=session) as stream:
            await first(stream, StreamStopped)
    assert stream.outcome.reason == "cancelled"
    assert model.requests == []


async def test_a_bug_in_computing_the_outcome_is_reported_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BugError("oh")

    def broken(*args: Any) -> Any:
        raise bug

    monkeypatch.setattr("agentloop._runtime.lifecycle._conclude", broken)
    events: list[StreamEvent] = []
    with pytest.raises(InternalError) as raised:
        async with Agent(ScriptedModel("Hello.")).stream("Hi") as stream:
            async for event in stream:
                events.append(event)  # noqa: PERF401 - those before the error count

    assert isinstance(events[-1], StreamStopped)
    assert events[-1].reason == "failed"
    assert raised.value.__cause__ is bug


async def test_a_run_whose_events_are_out_of_order_fails_as_a_bug() -> None:
    hooked: list[Any] = []

    @tool
    async def misbehave() -> str:
        """Emit an event that may not come here."""
        hooked[0]._run.emit(TurnStarted, turn=7)
        return "done"

    agent = Agent(ScriptedModel(calls("misbehave"), "Done."), tools=[misbehave])
    with pytest.raises(InternalError, match="cannot follow while its stream is in a turn"):
        async with agent.stream("Hi") as stream:
            hooked.append(stream)
            async for _ in stream:
                pass
    assert stream.outcome.reason == "failed"
