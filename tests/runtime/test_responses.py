"""Responses that are no answer: cut off, empty, paused, without bounds; and numbers that no response can have."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from agentloop import Agent, Limits, Price, Retries, Session, tool
from agentloop._core.response import MAX_CALLS
from agentloop.errors import LimitReachedError, ModelOutputLimitError, ModelProtocolError
from agentloop.events import ResponseDiscarded, ToolCallStarted, TurnFinished
from agentloop.messages import StopReason, Text, ToolCall, Usage
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import Response, ScriptedModel, calls, says, thinks
from tests.runtime.builders import results, warnings_in
from tests.support import of, watch


def cut_off(response: Response) -> Response:
    return msgspec.structs.replace(response, stop="length")


class Cleaner:
    """A tool whose default does the most damage, and the paths that it was called with."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def tool(self) -> Any:
        @tool
        async def clean(path: str = "/") -> str:
            """Delete everything below a path."""
            self.paths.append(path)
            return "done"

        return clean


# ----------------------------------------------------------------------------- cut off


@pytest.mark.parametrize("raw", ["", "{", '{"path": "/tm', "{}", '{"path": "/tmp"}'])
async def test_no_call_of_a_response_that_was_cut_off_runs_and_each_says_why(raw: str) -> None:
    cleaner = Cleaner()
    response = says("I clean. ") + calls("clean", raw='{"path": "/a"}') + calls("clean", raw=raw)
    model = ScriptedModel(cut_off(response), calls("clean", path="/tmp"), "Done.")

    watched = await watch(Agent(model, tools=[cleaner.tool()]))

    assert cleaner.paths == ["/tmp"]
    assert watched.outcome.output == "Done."
    assert warnings_in(watched.events) == ["truncated"]
    first, second, third = results(watched)
    assert [result.status for result in (first, second, third)] == ["error", "error", "ok"]
    assert "cut off" in first.text
    assert "less at a time" in second.text
    assert len(of(watched.events, ToolCallStarted)) == 1


async def test_responses_that_are_cut_off_again_and_again_end_the_run_with_a_typed_error() -> None:
    cleaner = Cleaner()
    model = ScriptedModel(*[cut_off(calls("clean"))] * 3, "never asked for")

    watched = await watch(Agent(model, tools=[cleaner.tool()]))

    assert isinstance(watched.error, ModelOutputLimitError)
    assert len(model.requests) == 3
    assert cleaner.paths == []
    # The transcript stays usable: each call has its result.
    assert [type(message).__name__ for message in watched.messages[-2:]] == ["AssistantMessage", "ToolResult"]


async def test_a_later_prompt_begins_to_count_cut_off_responses_anew() -> None:
    session, cut = Session(), cut_off(calls("clean"))
    model = ScriptedModel(cut, cut, "Done.", cut, cut, "Done.")
    agent = Agent(model, tools=[Cleaner().tool()])

    assert [(await agent.run("Go.", session=session)).output for _ in range(2)] == ["Done.", "Done."]


async def test_an_answer_that_was_cut_off_says_so_in_the_outcome() -> None:
    watched = await watch(Agent(ScriptedModel(says("And so", stop="length"))))

    assert (watched.outcome.output, watched.outcome.reason) == ("And so", "completed")
    assert "cut off" in watched.outcome.detail
    assert warnings_in(watched.events) == ["truncated"]


@pytest.mark.parametrize(("text", "output"), [("12", int), ("[1]", list[int])])
async def test_the_beginning_of_an_output_is_not_the_output(text: str, output: Any) -> None:
    model = ScriptedModel(says(text, stop="length"), says("1234" if output is int else "[1, 2]"))

    assert (await Agent(model, output_type=output).run("Go.")).output in (1234, [1, 2])


async def test_thoughts_that_use_up_all_tokens_are_an_error() -> None:
    model = ScriptedModel(cut_off(thinks("Hm. ")), cut_off(thinks("Hm. ")), "never asked for")

    with pytest.raises(ModelOutputLimitError, match="max_tokens"):
        await Agent(model).run("Go.")


# ------------------------------------------------------------------------------- empty


@pytest.mark.parametrize(
    "empty", [Response(), says("\n\n   ", piece=2), thinks("Let me see."), thinks("Hm.") + says("\n")]
)
async def test_an_empty_answer_is_requested_once_more(empty: Response) -> None:
    model = ScriptedModel(empty, "Hi.")

    watched = await watch(Agent(model))

    assert (watched.outcome.output, watched.outcome.detail) == ("Hi.", "")
    assert warnings_in(watched.events) == ["empty"]
    # The empty response leaves no trace, by which a provider could refuse the transcript.
    assert [len(request.messages) for request in model.requests] == [1, 1]
    assert [event.reason for event in of(watched.events, TurnFinished)] == ["output_retry", "final"]


@pytest.mark.parametrize("empty", [Response(), says(" \n"), thinks("Hm.")])
async def test_an_answer_that_is_empty_twice_says_so_in_the_outcome(empty: Response) -> None:
    watched = await watch(Agent(ScriptedModel(empty, empty)))

    assert watched.outcome.detail == "The model said nothing."
    assert warnings_in(watched.events) == ["empty", "empty"]


@pytest.mark.parametrize("empty", [Response(), says(" \n"), thinks("Hm.")])
async def test_a_model_may_end_without_a_word_after_its_tools(empty: Response) -> None:
    watched = await watch(Agent(ScriptedModel(calls("clean"), empty), tools=[Cleaner().tool()]))

    assert (watched.outcome.reason, watched.outcome.detail) == ("completed", "")
    assert warnings_in(watched.events) == []


# ------------------------------------------------------------------------------ paused


async def test_a_paused_response_is_continued() -> None:
    model = ScriptedModel(says("Let me search. ", stop="paused"), says(" ", stop="paused"), "It rains.")

    watched = await watch(Agent(model))

    assert watched.outcome.output == "It rains."
    assert str(watched.messages[1]) == "'Let me search. '"
    assert warnings_in(watched.events) == []
    assert [event.reason for event in of(watched.events, TurnFinished)] == ["continued", "continued", "final"]


async def test_a_response_that_is_paused_for_ever_meets_the_limit_of_turns() -> None:
    model = ScriptedModel(says("Hm. ", stop="paused"), repeat=True)

    with pytest.raises(LimitReachedError, match="turns"):
        await Agent(model, limits=Limits(turns=4)).run("Go.")


# --------------------------------------------------------------------- reasons and numbers


class Own:
    """A model of a user's own."""

    name = "own"

    def __init__(self, *stops: Any, say: Callable[[Reply], Awaitable[None]] | None = None) -> None:
        self.stops = list(stops)
        self.say = say

    async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
        if self.say is None:
            await reply.text("Hi.")
        else:
            await self.say(reply)
        stop: Stop = self.stops.pop(0)
        return stop


async def test_a_stop_reason_that_does_not_exist_is_an_error_that_is_retried() -> None:
    unknown: Any = "weird"

    watched = await watch(Agent(Own(Stop(unknown), Stop()), retries=Retries(delay=0)))

    assert watched.outcome.output == "Hi."
    [discarded] = of(watched.events, ResponseDiscarded)
    assert discarded.error.type == "ModelProtocolError"
    assert "'weird'" in discarded.error.message


async def test_a_response_that_stopped_for_calls_and_has_none_is_retried() -> None:
    model = ScriptedModel(says("Let me see.", stop="tool_calls"), "Done.")

    assert (await Agent(model, retries=Retries(delay=0)).run("Go.")).output == "Done."
    with pytest.raises(ModelProtocolError, match="asked for none"):
        await Agent(ScriptedModel(says("No.", stop="tool_calls")), retries=Retries(attempts=1)).run("Go.")


@pytest.mark.parametrize("odd", [-(10**9), 10**30, math.nan])
async def test_odd_usage_neither_lifts_a_limit_nor_reaches_it(odd: Any) -> None:
    usages = [Usage(odd, odd), Usage(10, 5), Usage(10, 5), Usage(10, 5)]
    script = [msgspec.structs.replace(calls("clean", path=f"/{n}"), usage=usage) for n, usage in enumerate(usages)]
    model = ScriptedModel(*script, "Done.")

    watched = await watch(Agent(model, tools=[Cleaner().tool()], limits=Limits(tokens=40)), on_question="decline")

    assert watched.outcome.reason == "limit"
    assert watched.outcome.usage.estimated_requests == 1
    assert 40 <= watched.outcome.usage.total_tokens < 100
    assert warnings_in(watched.events) == ["unmetered"]


@pytest.mark.parametrize("usage", [Usage(1, 1, cost=math.nan), Usage(-1, 10**30), Usage(cost=-math.inf)], ids=str)
@pytest.mark.parametrize("reason", ["end", "length"])
async def test_a_session_opens_again_whatever_numbers_a_model_has_reported(usage: Usage, reason: StopReason) -> None:
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await Agent(Own(Stop(reason, usage))).run("Go.", session=session)
        async with stored_session(store, "s") as session:
            assert len(session.messages) == 2


@pytest.mark.parametrize(
    ("limits", "prices"),
    [(Limits(tokens=1000), {}), (Limits(cost=0.01), {"scripted": Price(10, 10)})],
    ids=["tokens", "cost"],
)
async def test_a_model_that_reports_no_usage_is_warned_of_once_and_reaches_a_limit_by_an_estimate(
    limits: Limits, prices: dict[str, Price]
) -> None:
    silent = [msgspec.structs.replace(calls("clean", path=f"/{n}"), usage=Usage()) for n in range(30)]
    model = ScriptedModel(*silent, "Done.")
    agent = Agent(model, tools=[Cleaner().tool()], limits=limits, prices=prices)

    watched = await watch(agent, "word " * 400, on_question="decline")

    assert warnings_in(watched.events) == ["unmetered"]
    assert watched.outcome.reason == "limit"
    usage = watched.outcome.usage
    assert usage.estimated_requests == usage.requests == len(model.requests)
    assert 1000 <= usage.total_tokens < 2000


async def test_a_model_without_usage_is_no_warning_if_no_limit_counts_it() -> None:
    assert warnings_in((await watch(Agent(Own(Stop())))).events) == []


# ------------------------------------------------------------------------------ bounds


async def test_a_response_without_an_end_is_an_error_that_is_not_retried() -> None:
    async def say(reply: Reply) -> None:
        while True:
            await reply.text("x" * 2**20)

    model = Own(say=say)

    with pytest.raises(ModelOutputLimitError, match="characters") as raised:
        await Agent(model).run("Go.")
    assert raised.value.model == "own"


async def test_a_response_with_too_many_calls_is_an_error_and_none_of_them_runs() -> None:
    cleaner = Cleaner()
    many = Response(tuple(ToolCall("", "clean", "{}") for _ in range(MAX_CALLS + 1)))

    with pytest.raises(ModelOutputLimitError, match=f"more than {MAX_CALLS} tool calls"):
        await Agent(ScriptedModel(many), tools=[cleaner.tool()]).run("Go.")
    assert cleaner.paths == []


async def test_a_fallback_takes_over_from_a_model_without_bounds() -> None:
    many = Response(tuple(ToolCall("", "clean", "{}") for _ in range(MAX_CALLS + 1)))

    outcome = await Agent(ScriptedModel(many), fallbacks=[ScriptedModel("Done.", name="other")]).run("Go.")

    assert outcome.output == "Done."
    assert Text("Done.") in outcome.messages[-1].parts
