"""What the model gets to read: results of every kind, and every failure of one call as the result of that call."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import msgspec
import pytest
import trio
from attrs import frozen
from trio.testing import wait_all_tasks_blocked

from agentloop import Agent, Image, Session, Text, Tool, ToolError, tool
from agentloop.errors import ArgumentsError
from agentloop.events import MessageCommitted, ToolCallDelta, ToolCallFinished, ToolCallStarted
from agentloop.messages import AssistantMessage, File, ToolResult
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.testing import Response, ScriptedModel, calls, says
from tests.runtime.builders import agent_with, only_result, results, results_in
from tests.support import first, of, opened, watch

# ------------------------------------------------------------------------- what tools return


@frozen
class Point:
    x: int
    y: int


@dataclass
class Place:
    name: str
    at: Point


class Colour(enum.Enum):
    RED = "red"


def returns(value: object) -> Agent:
    @tool
    async def give() -> object:
        return value

    return agent_with(give)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        (7, "7"),
        (True, "true"),
        ([1, "a"], '[1,"a"]'),
        ({"a": None}, '{"a":null}'),
        (Point(1, 2), '{"x":1,"y":2}'),
        (Place("here", Point(1, 2)), '{"name":"here","at":{"x":1,"y":2}}'),
        (date(2026, 1, 31), '"2026-01-31"'),
        (Colour.RED, '"red"'),
    ],
    ids=repr,
)
async def test_text_stays_as_it_is_and_everything_else_becomes_json(value: object, text: str) -> None:
    assert (await only_result(returns(value))).parts == (Text(text),)


@pytest.mark.parametrize("value", [None, ""], ids=repr)
async def test_nothing_is_said_to_be_nothing(value: object) -> None:
    """Several providers refuse an empty text."""
    assert (await only_result(returns(value))).parts == (Text("(no output)"),)


PIXEL = Image(b"\x89PNG")
PAGE = File(b"%PDF", media_type="application/pdf", name="page.pdf")


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (PIXEL, (PIXEL,)),
        ([Text("Look: "), PIXEL, PAGE], (Text("Look: "), PIXEL, PAGE)),
        ((PAGE,), (PAGE,)),
    ],
    ids=["one", "list", "tuple"],
)
async def test_texts_pictures_and_files_reach_the_model_as_such(value: object, parts: tuple[object, ...]) -> None:
    assert (await only_result(returns(value))).parts == parts


async def test_an_empty_list_is_json_and_no_list_of_parts() -> None:
    assert (await only_result(returns([]))).parts == (Text("[]"),)


async def test_a_whole_result_counts_as_it_is_under_the_id_of_its_call() -> None:
    """It may have been made elsewhere, for another call."""
    result = await only_result(returns(ToolResult("other", "other", (Text("no such city"),), "error")))

    assert result == ToolResult("call_1_1_0", "give", (Text("no such city"),), "error")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"bytes", "a tool returned `bytes`, which is not text: decode it first"),
        (object(), "a tool returned `object` without a JSON form"),
        ({"deep": {"down": object()}}, "a tool returned `dict` without a JSON form"),
    ],
    ids=["bytes", "object", "nested"],
)
async def test_a_value_that_cannot_be_sent_is_an_error_that_names_its_type(value: object, problem: str) -> None:
    result = await only_result(returns(value))

    assert result.status == "error"
    assert problem in result.text


# ------------------------------------------------------------------------- what is asked for


@tool
async def add(a: int, b: int = 10) -> int:
    """Add two numbers."""
    return a + b


@tool
async def subtract(a: int, b: int) -> int:
    return a - b


async def test_the_result_of_a_call_of_an_unknown_tool_lists_the_tools() -> None:
    result = await only_result(agent_with(subtract, add, response=calls("multiply", a=1)))

    assert result.text == "There is no tool called 'multiply'. The tools are: add, subtract."
    assert (result.name, result.status) == ("multiply", "error")


async def test_the_result_of_a_call_says_that_there_are_no_tools() -> None:
    result = await only_result(Agent(ScriptedModel(calls("multiply"), "Done.")))

    assert result.text == "There is no tool called 'multiply'. There are no tools."


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ('{"a": 1', "the arguments are not JSON: "),
        ("add two and three", "the arguments are not JSON: "),
        ("[1, 2]", "invalid arguments: expected `object`, got `array`"),
        ('{"a": "one"}', "invalid arguments: `a`: expected `int`, got `str`"),
        ('{"b": 1}', "invalid arguments: missing required field `a`"),
        ('{"a": 1, "c": 2}', "invalid arguments: unknown field `c`; the fields are `a`, `b`"),
        ("", "invalid arguments: missing required field `a`"),
    ],
)
async def test_arguments_that_do_not_fit_are_an_error_that_says_what_is_wrong(raw: str, problem: str) -> None:
    result = await only_result(agent_with(add, response=calls("add", raw=raw)))

    assert result.status == "error"
    assert result.text.startswith(problem)


async def test_a_tool_is_not_called_with_arguments_that_do_not_fit() -> None:
    called: list[int] = []

    @tool
    async def keep(a: int) -> str:
        called.append(a)
        return "kept"

    await watch(agent_with(keep, response=calls("keep", a="one") + calls("keep", a=2)))

    assert called == [2]


# ------------------------------------------------------------------------------ what is raised


def raising(error: BaseException) -> Agent:
    @tool
    async def fail() -> str:
        raise error

    return agent_with(fail)


class BankError(ToolError):
    pass


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such city"), "ValueError: no such city"),
        (ValueError(), "ValueError"),
        (KeyError("city"), "KeyError: 'city'"),
        (ToolError("The bank is closed on Sundays."), "The bank is closed on Sundays."),
        (BankError("No money."), "No money."),
        (ExceptionGroup("", [ValueError("first")]), "ValueError: first"),
        (ExceptionGroup("", [ExceptionGroup("", [ToolError("My words.")])]), "My words."),
    ],
    ids=repr,
)
async def test_the_exception_of_a_tool_is_the_result_of_its_call_and_the_run_continues(
    error: Exception, text: str
) -> None:
    """A `ToolError` is in the tool's own words; anything else is told with its type."""
    result = await only_result(raising(error))

    assert (result.text, result.status) == (text, "error")


async def test_an_exception_in_a_tools_own_nursery_is_reported_without_its_group() -> None:
    @tool
    async def fail() -> str:
        async def part() -> None:
            raise ValueError("no such city")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(part)
            await trio.sleep_forever()

    assert (await only_result(agent_with(fail))).text == "ValueError: no such city"


async def test_the_first_of_several_errors_in_a_tools_own_nursery_is_reported() -> None:
    both = ExceptionGroup("", [ValueError("one"), KeyError("two")])

    assert (await only_result(raising(both))).text == "ValueError: one"
    assert both.exceptions[0].__notes__ == ["At the same time: KeyError: 'two'"]


async def test_a_tool_that_fails_is_no_failure_of_the_run() -> None:
    watched = await watch(raising(ValueError("no")))

    assert (watched.outcome.reason, watched.outcome.output, watched.error) == ("completed", "Done.", None)


async def test_the_error_of_arguments_raised_inside_a_tool_is_the_tools() -> None:
    assert (await only_result(raising(ArgumentsError("a is too big")))).text == "a is too big"


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class MuteToolError(MuteError, ToolError):
    pass


@pytest.mark.parametrize("error", [MuteError(), MuteToolError()], ids=["error", "tool-error"])
async def test_an_exception_whose_message_cannot_be_made_is_the_result_of_its_call(error: Exception) -> None:
    watched = await watch(raising(error))

    [result] = results(watched)
    assert (result.status, watched.outcome.reason) == ("error", "completed")
    assert "its text cannot be shown" in result.text


async def test_an_interrupt_raised_in_a_tool_goes_up_through_the_block_bare() -> None:
    """It is for the whole program. The turn is kept all the same."""

    @tool
    async def interrupt() -> str:
        raise KeyboardInterrupt

    session = Session()
    with pytest.raises(KeyboardInterrupt):
        await agent_with(interrupt).run("go", session=session)

    last = session.messages[-1]
    assert isinstance(last, ToolResult)
    assert last.status == "interrupted"


# ------------------------------------------------------------------------------- side by side


def after(seconds: float, name: str, what: Callable[[], str]) -> Tool:
    @tool(name=name)
    async def wait() -> str:
        await trio.sleep(seconds)
        return what()

    return wait


def fail() -> str:
    raise ValueError("no")


async def test_a_failing_call_leaves_its_siblings_alone() -> None:
    tools = [after(1, "bad", fail), after(2, "slow", lambda: "slow"), after(0, "quick", lambda: "quick")]

    watched = await watch(agent_with(*tools, response=calls("bad") + calls("slow") + calls("quick")))

    assert [(result.text, result.status) for result in results(watched)] == [
        ("ValueError: no", "error"),
        ("slow", "ok"),
        ("quick", "ok"),
    ]


async def test_results_are_committed_in_call_order_and_emitted_as_they_finish() -> None:
    tools = [after(3 - number, name, lambda: "ok") for number, name in enumerate("abc")]

    watched = await watch(agent_with(*tools, response=calls("a") + calls("b") + calls("c")))

    assert [event.name for event in of(watched.events, ToolCallFinished)] == ["c", "b", "a"]
    assert [result.name for result in results(watched)] == ["a", "b", "c"]


async def test_calls_start_in_call_order_before_any_has_finished() -> None:
    """Trio starts tasks in any order."""
    together = calls("add", id="0", a=0)
    for number in range(1, 20):
        together += calls("add", id=str(number), a=number)

    watched = await watch(agent_with(add, response=together))

    told = [event for event in watched.events if isinstance(event, (ToolCallStarted, ToolCallFinished))]
    assert [event.call_id for event in told[:20]] == [str(number) for number in range(20)]
    assert all(isinstance(event, ToolCallStarted) for event in told[:20])


async def test_the_time_a_turn_takes_is_that_of_its_slowest_call() -> None:
    began = trio.current_time()

    await watch(agent_with(*[after(2, name, lambda: "ok") for name in "ab"], response=calls("a") + calls("b")))

    assert trio.current_time() - began == pytest.approx(2)


async def test_the_model_reads_a_turn_only_when_all_its_results_are_there() -> None:
    model = ScriptedModel(says("Let me see. ") + calls("a") + calls("b"), "Done.")

    await Agent(model, tools=[after(1, "a", lambda: "1"), after(9, "b", fail)]).run("go")

    _, asked, *answers = model.requests[1].messages
    assert isinstance(asked, AssistantMessage)
    assert [answer.text for answer in answers] == ["1", "ValueError: no"]


async def test_results_are_committed_when_the_last_of_them_is_there_and_not_before() -> None:
    watched = await watch(agent_with(after(1, "a", str), after(2, "b", str), response=calls("a") + calls("b")))

    kinds = [event for event in watched.events if isinstance(event, (ToolCallFinished, MessageCommitted))]
    assert [type(event).__name__ for event in kinds] == [
        "MessageCommitted",  # the prompt
        "ToolCallFinished",
        "ToolCallFinished",
        "MessageCommitted",  # the response
        "MessageCommitted",
        "MessageCommitted",
        "MessageCommitted",  # the answer
    ]


async def test_the_finished_results_of_a_turn_that_is_cut_off_are_committed() -> None:
    tools = [after(1, "quick", lambda: "quick"), after(9, "slow", lambda: "slow")]
    async with opened(agent_with(*tools, response=calls("slow") + calls("quick"))) as stream:
        await first(stream, ToolCallFinished)
        await wait_all_tasks_blocked()
        stream.stop()
        await stream.wait()

        kept = [message for message in stream.outcome.messages if isinstance(message, ToolResult)]
        assert [(result.name, result.status) for result in kept] == [("slow", "interrupted"), ("quick", "ok")]


# ---------------------------------------------------------------------------------- call ids


@pytest.mark.parametrize(
    "response",
    [
        calls("add", id="same", a=1) + calls("add", id="same", a=2) + calls("add", id="same", a=3),
        calls("add", a=1) + calls("add", a=2) + calls("add", a=3),
        calls("add", id="call_1_1_1", a=1) + calls("add", a=2) + calls("add", id="call_1_1_1", a=3),
    ],
    ids=["duplicate", "missing", "like ours"],
)
async def test_each_call_has_an_id_of_its_own_whatever_the_model_sends(response: Response) -> None:
    watched = await watch(agent_with(add, response=response))

    started = [event.call_id for event in of(watched.events, ToolCallStarted)]
    assert len(set(started)) == 3
    assert [(result.call_id, result.text) for result in results(watched)] == [
        (started[0], "11"),
        (started[1], "12"),
        (started[2], "13"),
    ]


async def test_an_id_that_an_earlier_turn_has_used_is_not_used_again() -> None:
    """Some servers number their calls anew in each response."""
    session = Session()
    agent = Agent(ScriptedModel(calls("add", id="c", a=1), calls("add", id="c", a=2), "Done."), tools=[add])
    await agent.run("go", session=session)
    await agent_with(add, response=calls("add", id="c", a=3)).run("go on", session=session)

    found = [message for message in session.messages if isinstance(message, ToolResult)]
    assert len({result.call_id for result in found}) == 3
    assert [result.text for result in found] == ["11", "12", "13"]


async def test_the_ids_of_a_good_model_are_kept() -> None:
    watched = await watch(agent_with(add, response=calls("add", id="toolu_01", a=1) + calls("add", id="toolu_02", a=1)))

    assert [result.call_id for result in results(watched)] == ["toolu_01", "toolu_02"]


async def test_a_call_has_the_same_id_in_all_of_its_events() -> None:
    watched = await watch(agent_with(add, response=calls("add", a=1)))

    deltas = {event.call_id for event in of(watched.events, ToolCallDelta)}
    started = {event.call_id for event in of(watched.events, ToolCallStarted)}
    assert deltas == started == {*results_in(watched.events)} == {result.call_id for result in results(watched)}


async def test_calls_that_interleave_in_the_response_are_assembled_separately() -> None:
    class Interleaving:
        name = "interleaving"
        turns = 0

        async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
            self.turns += 1
            if self.turns == 2:
                await reply.text("Done.")
                return Stop()
            await reply.tool_call(0, id="x", name="add")
            await reply.tool_call(1, id="y", name="subtract", arguments='{"a":')
            await reply.tool_call(0, arguments='{"a": 1}')
            await reply.tool_call(1, arguments='5, "b": 3}')
            return Stop()

    watched = await watch(agent_with(add, subtract, model=Interleaving()))

    assert [(result.call_id, result.text) for result in results(watched)] == [("x", "11"), ("y", "2")]


async def test_the_last_event_of_a_call_carries_its_elapsed_time() -> None:
    watched = await watch(agent_with(after(2, "a", lambda: "ok")))

    assert of(watched.events, ToolCallFinished)[0].elapsed == pytest.approx(2)


async def test_a_structured_result_reaches_the_model_as_the_tool_made_it() -> None:
    class Weather(msgspec.Struct):
        city: str
        sunny: bool

    @tool
    async def weather() -> Weather:
        return Weather("Porto", sunny=True)

    assert msgspec.json.decode((await only_result(agent_with(weather))).text) == {"city": "Porto", "sunny": True}
