"""How tools are called: every kind of function, what they get, in which time, how many at once, and cancelled."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial, reduce
from typing import Any

import pytest
import trio
from attrs import frozen
from trio.testing import wait_all_tasks_blocked

from agentloop import Accept, Agent, Approve, Deadlines, Tool, ToolContext, hooks, tool
from agentloop._runtime.stream import Stream
from agentloop._runtime.user_code import tool_threads
from agentloop.errors import StreamStateError
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ElicitationRequested,
    ErrorInfo,
    QuestionWithdrawn,
    StreamEvent,
    StreamStopped,
    ToolCallFinished,
    ToolCallOutput,
    ToolCallProgress,
    ToolCallStarted,
    WarningIssued,
)
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest
from agentloop.testing import FunctionModel, Response, ScriptedModel, calls, hangs
from agentloop.tools import JsonArguments
from tests.runtime.builders import agent_with, only_result, results, warnings_in
from tests.support import first, nested, of, opened, watch

# ---------------------------------------------------------------------- kinds of functions


async def add(a: int, b: int = 10) -> str:
    """Add two numbers."""
    return str(a + b)


async def test_an_async_function_gets_the_arguments_by_name_and_what_it_returns_is_the_result() -> None:
    result = await only_result(agent_with(add, response=calls("add", a=2, b=3)))

    assert (result.text, result.status) == ("5", "ok")


async def test_an_argument_that_is_left_out_takes_its_default() -> None:
    assert (await only_result(agent_with(add, response=calls("add", a=2)))).text == "12"


async def test_arguments_are_converted_to_the_types_of_the_signature() -> None:
    @tool
    async def measure(point: Point, scale: float) -> str:
        return repr((point, scale))

    result = await only_result(agent_with(measure, response=calls("measure", point={"x": 1, "y": 2}, scale=2)))

    assert result.text == "(Point(x=1, y=2), 2.0)"


@frozen
class Point:
    x: int
    y: int


async def test_empty_arguments_are_none() -> None:
    """Some models send nothing at all where ``{}`` is meant."""

    @tool
    async def ping() -> str:
        return "pong"

    assert (await only_result(agent_with(ping, response=calls("ping", raw="")))).text == "pong"


@pytest.mark.real_clock
async def test_a_plain_function_runs_in_a_thread() -> None:
    @tool
    def where() -> str:
        return str(threading.get_ident())

    assert (await only_result(agent_with(where))).text != str(threading.get_ident())


@pytest.mark.real_clock
async def test_a_plain_function_does_not_hold_up_the_other_calls() -> None:
    released = threading.Event()

    @tool
    def blocks() -> bool:
        return released.wait(9)

    @tool
    async def releases() -> str:
        released.set()
        return "released"

    watched = await watch(agent_with(blocks, releases, response=calls("blocks") + calls("releases")))

    assert [result.text for result in results(watched)] == ["true", "released"]


@pytest.mark.real_clock
async def test_a_plain_function_that_returns_an_awaitable_is_awaited() -> None:
    """A decorator written for plain functions makes one of an async function."""

    def wrapper(a: int) -> Awaitable[str]:
        return add(a, 1)

    assert (await only_result(agent_with(wrapper, response=calls("wrapper", a=1)))).text == "2"


async def test_what_an_async_generator_yields_is_shown_as_it_comes_and_joined_it_is_the_result() -> None:
    @tool
    async def count() -> AsyncGenerator[str]:
        yield "one, "
        await trio.sleep(1)
        yield "two"

    times: list[float] = []

    def note(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ToolCallOutput):
            times.append(trio.current_time())

    watched = await watch(agent_with(count), on_event=note)

    assert [event.text for event in of(watched.events, ToolCallOutput)] == ["one, ", "two"]
    assert times[1] - times[0] == pytest.approx(1)
    assert results(watched)[0].text == "one, two"


async def test_what_an_async_generator_yields_that_is_no_text_is_shown_as_lines_of_json() -> None:
    @tool
    async def points() -> AsyncGenerator[object]:
        yield Point(1, 2)
        yield 3

    assert (await only_result(agent_with(points))).text == '{"x":1,"y":2}\n3\n'


async def test_an_async_generator_that_raises_has_shown_what_came_before() -> None:
    @tool
    async def count() -> AsyncGenerator[str]:
        yield "one"
        raise ValueError("lost count")

    watched = await watch(agent_with(count))

    assert [event.text for event in of(watched.events, ToolCallOutput)] == ["one"]
    assert (results(watched)[0].text, results(watched)[0].status) == ("ValueError: lost count", "error")


async def test_an_async_generator_is_closed_in_its_own_task_when_the_stream_is_left() -> None:
    """Left to the garbage collector, it would run its cleanup anywhere and any time."""
    closed_in: list[trio.lowlevel.Task] = []
    ran_in: list[trio.lowlevel.Task] = []

    @tool
    async def count() -> AsyncGenerator[str]:
        ran_in.append(trio.lowlevel.current_task())
        try:
            yield "one"
            await trio.sleep_forever()
        finally:
            closed_in.append(trio.lowlevel.current_task())

    async with opened(agent_with(count)) as stream:
        await first(stream, ToolCallOutput)

    assert closed_in == ran_in


async def test_an_object_with_an_async_call_is_a_tool() -> None:
    class Adder:
        """Adds to a number that it keeps."""

        def __init__(self, base: int) -> None:
            self.base = base

        async def __call__(self, a: int) -> str:
            return str(self.base + a)

    agent = agent_with(Adder(10), response=calls("Adder", a=1))

    assert (await only_result(agent)).text == "11"


@pytest.mark.real_clock
async def test_an_object_with_a_plain_call_runs_in_a_thread() -> None:
    class Where:
        def __call__(self) -> str:
            return str(threading.get_ident())

    assert (await only_result(agent_with(Where()))).text != str(threading.get_ident())


async def test_a_bound_method_is_a_tool_without_its_self() -> None:
    class Shop:
        def __init__(self) -> None:
            self.stock = {"tea": 3}

        async def in_stock(self, what: str) -> str:
            """Say how many there are."""
            return str(self.stock[what])

    made = tool(Shop().in_stock)

    assert [*made.spec.parameters["properties"]] == ["what"]
    assert (await only_result(agent_with(made, response=calls("in_stock", what="tea")))).text == "3"


async def test_a_partial_is_a_tool_without_what_it_binds() -> None:
    made = tool(partial(add, b=1))

    assert (made.name, made.description, made.kind) == ("add", "Add two numbers.", "async")
    assert [*made.spec.parameters["properties"]] == ["a"]
    assert (await only_result(agent_with(made, response=calls("add", a=1)))).text == "2"


async def test_a_partial_of_an_async_generator_streams() -> None:
    async def count(to: int) -> AsyncGenerator[str]:
        for number in range(to):
            yield str(number)

    watched = await watch(agent_with(tool(partial(count, to=3))))

    assert [event.text for event in of(watched.events, ToolCallOutput)] == ["0", "1", "2"]


async def test_a_tool_can_be_called_as_the_function_that_it_is() -> None:
    assert await tool(add)(1, b=2) == "3"


async def test_a_tool_may_bring_a_json_schema_from_elsewhere() -> None:
    async def echo(**arguments: Any) -> dict[str, Any]:
        return arguments

    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    made = Tool(name="echo", description="", function=echo, arguments=JsonArguments(schema))

    assert made.spec.parameters == schema
    assert (await only_result(agent_with(made, response=calls("echo", x=1)))).text == '{"x":1}'


async def test_a_tool_with_a_schema_from_elsewhere_still_wants_an_object() -> None:
    async def echo(**arguments: Any) -> dict[str, Any]:
        return arguments

    made = Tool(name="echo", description="", function=echo, arguments=JsonArguments({"type": "object"}))
    result = await only_result(agent_with(made, response=calls("echo", raw="[1]")))

    assert result.status == "error"
    assert "not a JSON object" in result.text


@pytest.mark.parametrize("depth", [200, 20_000])
async def test_arguments_that_nest_too_deeply_are_an_error_of_that_call_alone(depth: int) -> None:
    async def echo(**arguments: Any) -> dict[str, Any]:
        return arguments

    made = Tool(name="echo", description="", function=echo, arguments=JsonArguments({"type": "object"}))
    too_deep = '{"a":' * depth + "1" + "}" * depth
    model = ScriptedModel(calls("echo", raw=too_deep) + calls("add", a=1, b=2), "Done.")

    outcome = await Agent(model, tools=[made, add]).run("go")

    refused, added = (message for message in outcome.messages if isinstance(message, ToolResult))
    assert (refused.status, added.text) == ("error", "3")
    assert "nested too deeply: at most 128 levels" in refused.text


async def test_a_tool_is_described_to_the_model_by_the_docstring_of_its_function() -> None:
    model = ScriptedModel("Done.")

    await Agent(model, tools=[add]).run("go")

    [spec] = model.requests[0].tools
    assert (spec.name, spec.description, spec.parameters["required"]) == ("add", "Add two numbers.", ["a"])


# ----------------------------------------------------------------------------- the context


async def test_the_context_is_found_by_its_type_whatever_it_is_called_and_not_shown_to_the_model() -> None:
    @tool
    async def who(a: int, me: ToolContext[Any]) -> str:
        return f"{a} {type(me).__mro__[1].__name__}"

    assert [*who.spec.parameters["properties"]] == ["a"]
    assert (await only_result(agent_with(who, response=calls("who", a=1)))).text == "1 ToolContext"


async def test_the_model_cannot_send_a_context() -> None:
    @tool
    async def who(me: ToolContext[Any]) -> str:
        return "never"

    result = await only_result(agent_with(who, response=calls("who", me="I")))

    assert (result.text, result.status) == ("invalid arguments: unknown field `me`; there are no fields", "error")


async def test_the_context_says_who_calls_at_each_depth() -> None:
    sources: list[tuple[str, ...]] = []

    @tool
    async def who(context: ToolContext[Any]) -> str:
        sources.append(context.source.agents)
        return "you"

    await watch(agent_with(who, name="inner"))
    await watch(nested(agent_with(who, name="inner"), 2))

    assert sources == [("inner",), ("outer2", "outer1", "inner")]


async def test_the_context_knows_the_id_of_its_call() -> None:
    seen: list[str] = []

    @tool
    async def who(context: ToolContext[Any]) -> str:
        seen.append(context.call_id)
        return "you"

    watched = await watch(agent_with(who, response=calls("who", id="a") + calls("who", id="b")))

    assert sorted(seen) == [event.call_id for event in of(watched.events, ToolCallStarted)] == ["a", "b"]


async def test_no_two_calls_have_the_same_idempotency_key() -> None:
    """Also if the model uses the same call id again, in another stream."""
    seen: list[str] = []

    @tool
    async def pay(context: ToolContext[Any]) -> str:
        assert context.idempotency_key == context.idempotency_key
        seen.append(context.idempotency_key)
        return "paid"

    two = calls("pay", id="a") + calls("pay", id="b")
    await watch(agent_with(pay, response=two))
    await watch(agent_with(pay, response=two))
    await watch(nested(agent_with(pay, response=two, name="inner"), 1))

    assert len(set(seen)) == 6


async def test_deps_are_the_very_object_given_to_the_root_stream_at_each_depth() -> None:
    seen: list[object] = []

    @tool
    async def look(context: ToolContext[object]) -> str:
        seen.append(context.deps)
        return "seen"

    deps = object()
    await watch(nested(agent_with(look, name="inner"), 1), deps=deps)
    await watch(agent_with(look))

    assert seen == [deps, None]


async def test_output_and_progress_are_emitted_at_once_in_order_and_not_shown_to_the_model() -> None:
    @tool
    async def work(context: ToolContext[Any]) -> str:
        await context.progress(1, total=2, message="half")
        await context.output("secret")
        await context.progress(2)
        return "worked"

    watched = await watch(agent_with(work))
    told = [event for event in watched.events if isinstance(event, (ToolCallOutput, ToolCallProgress))]

    assert [type(event).__name__ for event in told] == ["ToolCallProgress", "ToolCallOutput", "ToolCallProgress"]
    half, secret, whole = told
    assert isinstance(half, ToolCallProgress)
    assert isinstance(secret, ToolCallOutput)
    assert isinstance(whole, ToolCallProgress)
    assert (half.progress, half.total, half.message, secret.text, whole.total) == (1, 2, "half", "secret", None)
    assert "secret" not in repr(watched.messages)


async def test_output_waits_for_a_reader_that_is_behind() -> None:
    """Or a chatty tool would fill the memory."""
    told = 0

    @tool
    async def chatter(context: ToolContext[Any]) -> str:
        nonlocal told
        for told in range(10_000):  # noqa: B007 - it is read outside
            await context.output("bla")
        return "done"

    async with opened(agent_with(chatter)) as stream:
        await first(stream, ToolCallStarted)
        await wait_all_tasks_blocked()

        assert 0 < told < 100


async def enter(context: ToolContext[Any]) -> None:
    async with context.stream(Agent(ScriptedModel("Hi.")), "go"):
        raise AssertionError("not to be reached")


USES: dict[str, Callable[[ToolContext[Any]], Awaitable[object]]] = {
    "output": lambda context: context.output("late"),
    "progress": lambda context: context.progress(1),
    "ask": lambda context: context.ask("Really?"),
    "ask_for": lambda context: context.ask_for("Where?", Point),
    "run": lambda context: context.run(Agent(ScriptedModel("Hi.")), "go"),
    "stream": enter,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_context_whose_call_has_ended_says_so(use: Callable[[ToolContext[Any]], Awaitable[object]]) -> None:
    kept: list[ToolContext[Any]] = []

    @tool
    async def keep(context: ToolContext[Any]) -> str:
        kept.append(context)
        return "kept"

    # Another agent's: the stream itself still runs.
    async with opened(agent_with(keep, model=ScriptedModel(calls("keep"), hangs()))) as stream:
        await first(stream, ToolCallFinished)
        with pytest.raises(StreamStateError, match=r"call 'call_1_1_0' has ended, and its context with it"):
            await use(kept[0])

        assert stream.pending == ()


@pytest.mark.parametrize("use", [USES["ask"], USES["output"]], ids=["ask", "output"])
async def test_what_waits_in_the_context_elsewhere_ends_with_the_call(
    use: Callable[[ToolContext[Any]], Awaitable[object]],
) -> None:
    """The context can be handed to a task that outlives the call."""
    errors: list[Exception] = []

    async def wait(context: ToolContext[Any]) -> None:
        try:
            while True:
                await use(context)
        except StreamStateError as error:
            errors.append(error)

    @tool
    async def hand_over(context: ToolContext[trio.Nursery]) -> str:
        context.deps.start_soon(wait, context)
        await wait_all_tasks_blocked()
        return "handed over"

    async with trio.open_nursery() as nursery, opened(agent_with(hand_over), deps=nursery) as stream:
        # Nobody reads while the tool runs, so that output waits, too.
        await wait_all_tasks_blocked()
        events = [event async for event in stream]

    assert len(errors) == 1
    assert len(of(events, QuestionWithdrawn)) == len(of(events, ElicitationRequested))


async def test_a_child_stream_opened_elsewhere_ends_with_the_call() -> None:
    errors: list[Exception] = []

    async def wait(context: ToolContext[Any]) -> None:
        try:
            await context.run(Agent(ScriptedModel(hangs()), name="inner"), "go")
        except StreamStateError as error:
            errors.append(error)

    @tool
    async def hand_over(context: ToolContext[trio.Nursery]) -> str:
        context.deps.start_soon(wait, context)
        await wait_all_tasks_blocked()
        return "handed over"

    async with trio.open_nursery() as nursery:
        watched = await watch(agent_with(hand_over), deps=nursery)

    assert watched.outcome.reason == "completed"
    assert len(errors) == 1


# ------------------------------------------------------------------- the context in a thread


@pytest.mark.real_clock
async def test_a_tool_in_a_thread_reaches_its_context_through_trio() -> None:
    @tool
    def work(context: ToolContext[Any]) -> str:
        trio.from_thread.run(context.output, "working")
        answer = trio.from_thread.run(context.ask, "Go on?")
        return type(answer).__name__

    def accept(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ElicitationRequested):
            stream.answer(event.id, Accept())

    watched = await watch(agent_with(work), on_event=accept)

    assert [event.text for event in of(watched.events, ToolCallOutput)] == ["working"]
    assert results(watched)[0].text == "Accept"


@pytest.mark.real_clock
async def test_a_question_that_an_abandoned_thread_asked_ends_with_the_block() -> None:
    """It runs in a task of its own, not in the tool's."""
    raised: list[BaseException] = []
    over = threading.Event()

    @tool
    def work(context: ToolContext[Any]) -> str:
        try:
            trio.from_thread.run(context.ask, "Go on?")
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            over.set()
        return "never"

    async with opened(agent_with(work)) as stream:
        await first(stream, ElicitationRequested)

    await trio.to_thread.run_sync(over.wait, 5)
    assert [type(error) for error in raised] == [StreamStateError]


@pytest.mark.real_clock
async def test_a_child_stream_that_an_abandoned_thread_opened_ends_with_the_block() -> None:
    inner = Agent(ScriptedModel(hangs()), name="inner")
    over = threading.Event()

    @tool
    def work(context: ToolContext[Any]) -> str:
        try:
            return str(trio.from_thread.run(context.run, inner, "go").output)
        finally:
            over.set()

    async with opened(agent_with(work)) as stream:
        await first(stream, ChildStreamStarted)

    assert await trio.to_thread.run_sync(over.wait, 5)


# ------------------------------------------------------------------------------ concurrency


class Crowd:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0

    async def visit(self) -> str:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await trio.sleep(1)
        self.inside -= 1
        return "visited"


def visits(times: int) -> Response:
    response = calls("visit")
    for _ in range(times - 1):
        response += calls("visit")
    return response


async def test_all_calls_of_a_turn_run_at_once() -> None:
    crowd = Crowd()
    began = trio.current_time()

    await watch(agent_with(crowd.visit, response=visits(5)))

    assert crowd.most == 5
    assert trio.current_time() - began == pytest.approx(1)


async def test_of_a_tool_with_a_concurrency_no_more_calls_run_at_once() -> None:
    crowd = Crowd()

    watched = await watch(agent_with(tool(concurrency=2)(crowd.visit), response=visits(5)))

    assert crowd.most == 2
    assert [result.status for result in results(watched)] == ["ok"] * 5


async def test_the_concurrency_of_a_tool_holds_across_child_streams() -> None:
    crowd = Crowd()
    visit = tool(concurrency=2)(crowd.visit)
    inner = [agent_with(visit, response=visits(2), name=f"inner{number}") for number in range(3)]
    together = calls("inner0", prompt="go") + calls("inner1", prompt="go") + calls("inner2", prompt="go")

    watched = await watch(agent_with(*[agent.as_tool() for agent in inner], response=together))

    assert watched.outcome.reason == "completed"
    assert crowd.most == 2


async def test_two_root_streams_do_not_wait_for_one_another() -> None:
    """The tool is shared; what counts its calls is not."""
    crowd = Crowd()
    visit = tool(concurrency=1)(crowd.visit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent_with(visit).run, "go")
        nursery.start_soon(agent_with(visit).run, "go")

    assert crowd.most == 2


async def test_waiting_for_ones_turn_does_not_count_towards_the_timeout() -> None:
    crowd = Crowd()

    watched = await watch(agent_with(tool(concurrency=1, timeout=1.5)(crowd.visit), response=visits(4)))

    assert [result.status for result in results(watched)] == ["ok"] * 4


async def test_a_call_that_fails_makes_room_for_the_next() -> None:
    @tool(concurrency=1)
    async def fail() -> str:
        raise ValueError("no")

    watched = await watch(agent_with(fail, response=calls("fail") + calls("fail")))

    assert [result.text for result in results(watched)] == ["ValueError: no"] * 2


# --------------------------------------------------------------------------------- timeouts


def sleeps(seconds: float, **options: Any) -> Tool:
    @tool(**options)
    async def sleep() -> str:
        await trio.sleep(seconds)
        return "slept"

    return sleep


async def test_a_tool_that_times_out_is_cancelled_and_the_run_continues() -> None:
    watched = await watch(agent_with(sleeps(9, timeout=2)))

    assert (results(watched)[0].text, results(watched)[0].status) == ("Timed out after 2 s.", "timeout")
    assert watched.outcome.output == "Done."
    assert of(watched.events, ToolCallFinished)[0].elapsed == pytest.approx(2)


async def test_a_tool_without_a_timeout_has_that_of_its_agent() -> None:
    assert (await only_result(agent_with(sleeps(5), deadlines=Deadlines(tool=3)))).status == "timeout"


async def test_the_timeout_of_a_tool_goes_before_that_of_its_agent() -> None:
    assert (await only_result(agent_with(sleeps(5, timeout=6), deadlines=Deadlines(tool=3)))).status == "ok"


@pytest.mark.seconds(100_000)
async def test_an_infinite_timeout_is_none() -> None:
    assert (await only_result(agent_with(sleeps(50_000, timeout=math.inf)))).status == "ok"


@pytest.mark.seconds(1000)
async def test_a_tool_has_a_timeout_by_default() -> None:
    result = await only_result(agent_with(sleeps(math.inf)))

    assert (result.text, result.status) == ("Timed out after 120 s.", "timeout")


async def test_a_tool_that_timed_out_has_cleaned_up_when_its_result_is_emitted() -> None:
    cleaned = trio.Event()

    @tool(timeout=1)
    async def sleep() -> str:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            cleaned.set()

    def check(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ToolCallFinished):
            assert cleaned.is_set()

    await watch(agent_with(sleep), on_event=check)

    assert cleaned.is_set()


async def test_plain_calls_with_one_time_limit_time_out_each_for_itself() -> None:
    """They share a cancel scope, and yet a call that is done in time keeps its result, and the run goes on."""

    @tool(timeout=2)
    async def nap(seconds: float) -> str:
        """Sleep."""
        await trio.sleep(seconds)
        return "slept"

    @tool(timeout=2)
    async def deaf() -> str:
        """Swallow the cancellation, and return."""
        with suppress(trio.Cancelled):
            await trio.sleep(9)
        return "heard nothing"

    naps = calls("nap", seconds=1, id="a") + calls("nap", seconds=9, id="b") + calls("deaf", id="c")
    watched = await watch(Agent(ScriptedModel(naps, "Done."), tools=[nap, deaf]))

    assert {result.call_id: result.status for result in results(watched)} == {"a": "ok", "b": "timeout", "c": "ok"}
    assert of(watched.events, StreamStopped)[0].reason == "completed"


async def test_plain_calls_with_one_time_limit_are_interrupted_when_the_stream_is_stopped() -> None:
    agent = Agent(ScriptedModel(calls("sleep", id="a") + calls("sleep", id="b")), tools=[sleeps(9, timeout=5)])
    async with agent.stream("Hi") as stream:
        finished: list[str] = []
        async for event in stream:
            if isinstance(event, ToolCallStarted) and event.call_id == "b":
                stream.stop()
            if isinstance(event, ToolCallFinished):
                finished.append(event.result.status)
    assert finished == ["interrupted", "interrupted"]
    assert stream.outcome.reason == "cancelled"


async def test_a_timeout_of_one_call_leaves_the_others_alone() -> None:
    slow = sleeps(5, timeout=1, name="slow")
    watched = await watch(agent_with(slow, sleeps(3), response=calls("slow") + calls("sleep")))

    assert [result.status for result in results(watched)] == ["timeout", "ok"]


async def test_a_tool_that_sets_itself_a_time_limit_fails_by_it_and_does_not_time_out() -> None:
    @tool(timeout=5)
    async def hurry() -> str:
        with trio.fail_after(1):
            await trio.sleep_forever()

    assert (await only_result(agent_with(hurry))).status == "error"


@tool(timeout=5)
async def think_and_ask(context: ToolContext[Any], before: float = 1, after: float = 1) -> str:
    await trio.sleep(before)
    await context.ask("Well?")
    await trio.sleep(after)
    return "asked"


async def accept_after_an_hour(question: object) -> Approve | Accept:
    await trio.sleep(3600)
    return Accept() if isinstance(question, ElicitationRequested) else Approve()


@pytest.mark.seconds(10_000)
async def test_the_time_a_person_thinks_does_not_count_towards_the_timeout() -> None:
    watched = await watch(agent_with(think_and_ask), on_question=accept_after_an_hour)

    assert results(watched)[0].text == "asked"
    assert of(watched.events, ToolCallFinished)[0].elapsed == pytest.approx(3602)


@pytest.mark.seconds(10_000)
async def test_the_time_before_and_after_the_answer_does_count() -> None:
    agent = agent_with(think_and_ask, response=calls("think_and_ask", before=3, after=3))

    assert (await only_result(agent, on_question=accept_after_an_hour)).status == "timeout"


@pytest.mark.seconds(10_000)
@pytest.mark.parametrize("depth", [1, 2])
async def test_the_time_a_person_thinks_in_a_child_stream_does_not_count_towards_any_timeout_above(depth: int) -> None:
    agent = agent_with(think_and_ask, name="agent0")
    for level in range(depth):
        delegate = agent.as_tool(timeout=3)
        agent = agent_with(delegate, name=f"agent{level + 1}", response=calls(delegate.name, prompt="go"))

    assert (await only_result(agent, on_question=accept_after_an_hour)).text == "Done."


@pytest.mark.seconds(10_000)
async def test_the_time_that_the_approval_of_a_childs_call_takes_does_not_count_towards_a_timeout_above() -> None:
    inner = agent_with(sleeps(1, requires_approval=True), name="inner")
    agent = agent_with(inner.as_tool(timeout=2), response=calls("inner", prompt="go"))

    assert (await only_result(agent, on_question=accept_after_an_hour)).status == "ok"


@pytest.mark.seconds(10_000)
async def test_a_timeout_stands_still_until_the_last_of_several_questions_is_answered() -> None:
    @tool(timeout=2)
    async def ask_two(context: ToolContext[Any]) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(context.ask, "short")
            nursery.start_soon(context.ask, "long")
        await trio.sleep(1)
        return "asked"

    async def answer(question: object) -> Accept:
        assert isinstance(question, ElicitationRequested)
        await trio.sleep(10 if question.message == "short" else 1000)
        return Accept()

    assert (await only_result(agent_with(ask_two), on_question=answer)).text == "asked"


@pytest.mark.seconds(10_000)
async def test_while_one_call_waits_for_a_person_the_timeouts_of_others_run() -> None:
    agent = agent_with(think_and_ask, sleeps(9, timeout=2), response=calls("think_and_ask") + calls("sleep"))

    watched = await watch(agent, on_question=accept_after_an_hour)

    assert [result.status for result in results(watched)] == ["ok", "timeout"]


@pytest.mark.seconds(1000)
async def test_the_timeout_of_a_delegation_cancels_the_child_stream() -> None:
    inner = Agent(ScriptedModel(hangs()), name="inner")
    agent = agent_with(inner.as_tool(timeout=3), response=calls("inner", prompt="go"))

    assert (await only_result(agent)).text == "Timed out after 3 s."


# ------------------------------------------------------------------------ abandoned threads


class Stuck:
    """A plain function that hangs until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.released = threading.Event()

    def hang(self) -> str:
        self.began.set()
        self.released.wait(9)
        return "released"


@pytest.mark.real_clock
async def test_a_thread_that_timed_out_is_reported_as_abandoned() -> None:
    stuck = Stuck()

    watched = await watch(agent_with(tool(timeout=0.05)(stuck.hang)))
    stuck.released.set()

    [warning] = of(watched.events, WarningIssued)
    assert (warning.code, "may still take effect" in warning.message) == ("thread_abandoned", True)
    assert results(watched)[0].status == "timeout"
    assert "may still take effect" in results(watched)[0].text


@pytest.mark.real_clock
async def test_a_thread_is_reported_as_abandoned_when_the_stream_is_stopped() -> None:
    stuck = Stuck()
    agent = agent_with(stuck.hang)
    async with opened(agent) as stream:
        await first(stream, ToolCallStarted)
        assert await trio.to_thread.run_sync(stuck.began.wait, 5)
        stream.stop()
        events = [event async for event in stream]
    stuck.released.set()

    assert warnings_in(events) == ["thread_abandoned"]
    assert "It may have run" in of(events, ToolCallFinished)[0].result.text


@pytest.mark.real_clock
async def test_plain_tools_that_hang_leave_the_threads_of_trio_to_everything_else() -> None:
    stuck = Stuck()
    count = int(trio.to_thread.current_default_thread_limiter().total_tokens) + 5
    response = reduce(operator.add, [calls("hang", n=number) for number in range(count)])

    @tool(timeout=0.3)
    def hang(n: int) -> str:
        return stuck.hang()

    await watch(agent_with(hang, response=response))
    with trio.fail_after(5):
        found = await trio.to_thread.run_sync(threading.current_thread)
    stuck.released.set()

    assert found is not threading.current_thread()


@pytest.mark.real_clock
async def test_a_thread_that_has_ended_is_not_reported() -> None:
    @tool
    def quick() -> str:
        return "done"

    async with opened(agent_with(quick, model=ScriptedModel(calls("quick"), hangs()))) as stream:
        await first(stream, ToolCallFinished)
        stream.stop()
        events = [event async for event in stream]

    assert warnings_in(events) == []


@pytest.mark.real_clock
async def test_a_call_that_waits_for_a_thread_when_the_stream_is_stopped_never_runs() -> None:
    ran: list[int] = []

    @tool
    def work() -> str:
        ran.append(1)
        return "worked"

    limiter = tool_threads()
    limiter.total_tokens = 1
    await limiter.acquire_on_behalf_of("the test")
    async with opened(agent_with(work)) as stream:
        await first(stream, ToolCallStarted)
        await wait_all_tasks_blocked()
        stream.stop()
        events = [event async for event in stream]
    limiter.release_on_behalf_of("the test")
    await trio.to_thread.run_sync(lambda: None)

    assert ran == []
    assert warnings_in(events) == []
    assert of(events, ToolCallFinished)[0].result.text == "Interrupted before it started. It did not run."


@pytest.mark.real_clock
async def test_a_call_that_got_no_thread_in_time_says_that_it_did_not_begin() -> None:
    limiter = tool_threads()
    limiter.total_tokens = 1
    await limiter.acquire_on_behalf_of("the test")

    watched = await watch(agent_with(tool(timeout=0.01)(Stuck().hang)))

    assert results(watched)[0].text == "Timed out after 0.01 s before it began."
    assert warnings_in(watched.events) == []


# --------------------------------------------------------------------------------- cancelled


async def test_a_call_that_was_cut_off_says_that_it_may_have_run() -> None:
    async with opened(agent_with(sleeps(math.inf))) as stream:
        await first(stream, ToolCallStarted)
        await wait_all_tasks_blocked()
        stream.stop()
        events = [event async for event in stream]

    [finished] = of(events, ToolCallFinished)
    assert (finished.result.text, finished.result.status) == (
        "Interrupted before it finished. It may have run, in part or in full.",
        "interrupted",
    )


async def test_a_call_that_had_not_begun_says_that_it_did_not_run() -> None:
    async with opened(agent_with(sleeps(math.inf, concurrency=1), response=calls("sleep") + calls("sleep"))) as stream:
        await first(stream, ToolCallStarted)
        await wait_all_tasks_blocked()
        stream.stop()
        events = [event async for event in stream]

    texts = sorted(event.result.text for event in of(events, ToolCallFinished))
    assert texts == [
        "Interrupted before it finished. It may have run, in part or in full.",
        "Interrupted before it started. It did not run.",
    ]


async def test_no_tool_begins_once_the_stream_is_stopped_not_even_one_that_never_waits() -> None:
    ran: list[int] = []

    @tool
    async def act() -> str:
        ran.append(1)
        return "acted"

    streams: list[Stream] = []

    @hooks.pre_tool_use
    def stop(call: hooks.PreToolUse) -> None:
        streams[0].stop()

    async with opened(agent_with(act, hooks=[stop])) as stream:
        streams.append(stream)
        await stream.wait()

    assert ran == []


@pytest.mark.parametrize("how", ["raises", "returns", "raises_in_a_nursery"])
async def test_nothing_new_begins_after_a_tool_that_swallows_its_cancellation(how: str) -> None:
    asked: list[ModelRequest] = []

    def respond(request: ModelRequest) -> Response:
        asked.append(request)
        return calls("stubborn")

    async def sleep() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("instead")

    @tool
    async def stubborn() -> str:
        if how == "raises_in_a_nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sleep)
                await trio.sleep_forever()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:  # noqa: ASYNC103 - it is a bad tool
            if how == "raises":
                raise ValueError("instead") from None  # noqa: ASYNC104
            return "anyway"  # noqa: ASYNC104

    async with opened(agent_with(stubborn, model=FunctionModel(respond))) as stream:
        await first(stream, ToolCallStarted)
        await wait_all_tasks_blocked()
        stream.stop()
        events = [event async for event in stream]

        assert stream.outcome.reason == "cancelled"
    assert len(asked) == 1
    assert len(of(events, ToolCallFinished)) == 1


@pytest.mark.parametrize("how", ["raises", "raises_in_a_nursery"])
async def test_a_tool_that_raises_as_the_stream_is_left_does_not_raise_in_the_callers_face(how: str) -> None:
    async def sleep() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("no way to clean up")

    @tool
    async def clumsy() -> str:
        if how == "raises":
            await sleep()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep)
            await trio.sleep_forever()

    async with opened(agent_with(clumsy)) as stream:
        await first(stream, ToolCallStarted)
        await wait_all_tasks_blocked()

    assert stream.outcome.reason == "cancelled"


async def test_a_call_that_waits_for_approval_has_not_begun() -> None:
    async with opened(agent_with(sleeps(1, requires_approval=True))) as stream:
        await first(stream, ApprovalRequested)
        stream.stop()
        events = [event async for event in stream]

    assert of(events, ToolCallFinished)[0].result.text == "Interrupted before it started. It did not run."


async def test_a_tool_that_may_run_once_is_refused_inside_itself() -> None:
    """It would wait for the call around it, which waits for it."""

    @tool(concurrency=1, timeout=float("inf"))
    async def dig(context: ToolContext[Any]) -> str:
        inner = Agent(ScriptedModel(calls("dig"), "Deeper."), name="inner", tools=[dig])
        return str((await context.run(inner, "go")).output)

    agent = Agent(ScriptedModel(calls("dig"), "Done."), tools=[dig])
    outcome = await agent.run("go")

    assert outcome.output == "Done."
    assert outcome.messages[2].text == "Deeper."


@pytest.mark.seconds(10_000)
async def test_a_slow_reader_does_not_count_towards_a_tools_timeout() -> None:
    @tool(timeout=5)
    async def talk(context: ToolContext[Any]) -> str:
        for number in range(100):
            await context.output(str(number))
        return "said it all"

    agent = Agent(ScriptedModel(calls("talk"), "Done."), tools=[talk])
    async with agent.stream("go") as stream:
        async for event in stream:
            if isinstance(event, ToolCallOutput):
                await trio.sleep(20)

    assert stream.result.messages[2].text == "said it all"


async def test_the_exception_of_a_tool_is_on_its_last_event_for_a_person() -> None:
    @tool
    async def read() -> str:
        """Read."""
        raise FileNotFoundError(2, "No such file", "caf\udcff.txt")

    @tool
    async def fine() -> str:
        """Do nothing."""
        return "done"

    agent = Agent(ScriptedModel(calls("read", id="r") + calls("fine", id="f"), "Done."), tools=[read, fine])
    async with agent.stream("Hi") as stream:
        errors = {event.call_id: event.error async for event in stream if isinstance(event, ToolCallFinished)}
    assert errors == {"f": None, "r": ErrorInfo("FileNotFoundError", "[Errno 2] No such file: 'caf\\udcff.txt'")}
