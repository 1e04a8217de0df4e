"""The reference server that does everything, over stdio and over streamable HTTP."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio

from agentloop import Accept, Agent, Cancel, Deadlines, Decline, Stream, tool
from agentloop.context import ToolContext
from agentloop.errors import ServerGoneError
from agentloop.events import (
    ElicitationRequested,
    QuestionWithdrawn,
    StreamEvent,
    StreamStopped,
    ToolCallFinished,
    ToolCallProgress,
    ToolCallStarted,
)
from agentloop.mcp import McpServer
from agentloop.mcp._connection_pool import ConnectionPool, open_server
from agentloop.messages import File, Image, Text, ToolResult
from agentloop.questions import Answer
from agentloop.testing import ScriptedModel, calls
from agentloop.toolsets import Toolsets
from tests.conformance.conftest import EVERYTHING, NODE, everything_at, running
from tests.mcp.support import agent_with, results, until_gone, watched
from tests.support import first, of

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.seconds(60),
    # The SDK leaves the generators of each response to the garbage collector, after having closed what they read.
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),
]

Server: TypeAlias = Callable[..., McpServer]

LONG = "trigger-long-running-operation"
ASK = "trigger-elicitation-request"
VISIT = "trigger-url-elicitation"


def over_stdio(**options: Any) -> McpServer:
    return McpServer.stdio(NODE, EVERYTHING, "stdio", name="everything", **options)


@pytest.fixture(params=["stdio", "http"])
def everything(request: pytest.FixtureRequest) -> Server:
    if request.param == "stdio":
        return over_stdio
    return partial(McpServer.http, request.getfixturevalue("everything_url"), name="everything")


def answering(answer: Answer) -> Callable[[Stream, StreamEvent], object]:
    def on_event(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ElicitationRequested):
            stream.answer(event.id, answer)

    return on_event


def in_order(events: Iterable[StreamEvent]) -> list[ToolResult]:
    """The results in the order of the calls."""
    started = [event.call_id for event in of(events, ToolCallStarted)]
    finished = {event.call_id: event.result for event in of(events, ToolCallFinished)}
    return [finished[call_id] for call_id in started]


def raw(result: ToolResult) -> Any:
    """What the server was answered, as it shows it."""
    text = "".join(part.text for part in result.parts if isinstance(part, Text))
    return json.loads(text.partition("Raw result: ")[2])


# ------------------------------------------------------------------------------ what there is


async def test_its_tools_are_offered_with_their_hints_and_its_instructions(everything: Server) -> None:
    server = everything(roots=["/"], sampling=ScriptedModel(), prefix="e_")
    model = ScriptedModel("done")
    await Agent(model, toolsets=[server]).run("go")
    [request] = model.requests
    # All that it has, but one that can only be called as a task.
    assert {spec.name.removeprefix("e_") for spec in request.tools} == {
        *("echo", "get-annotated-message", "get-env", "get-resource-links", "get-resource-reference"),
        *("get-roots-list", "get-structured-content", "get-sum", "get-tiny-image", "gzip-file-as-resource"),
        *("toggle-simulated-logging", "toggle-subscriber-updates", LONG, ASK, VISIT, "trigger-sampling-request"),
    }
    assert "Audience: These instructions are written for an LLM" in request.instructions
    [echo] = [spec for spec in request.tools if spec.name == "e_echo"]
    assert echo.description == "Echoes back the input string"
    assert echo.parameters["required"] == ["message"]

    async with everything().open() as opened:
        hints = {each.name: (each.read_only, each.destructive, each.idempotent) for each in await opened.list_tools()}
    assert hints["echo"] == (True, None, True)
    assert hints[VISIT] == (False, False, False)


async def test_what_the_client_cannot_do_is_not_offered(everything: Server) -> None:
    """This server goes by the capabilities that we declare."""
    model = ScriptedModel("done")
    await Agent(model, toolsets=[everything(elicitation=False)]).run("go")
    offered = {spec.name for spec in model.requests[0].tools}
    assert "echo" in offered
    assert not offered & {"get-roots-list", ASK, VISIT, "trigger-sampling-request"}


# -------------------------------------------------------------------------------- its results


async def test_everything_that_a_result_may_hold_arrives(everything: Server) -> None:
    turn = (
        calls("echo", message="Olá")
        + calls("get-sum", a=2, b=3)
        + calls("get-structured-content", location="Chicago")
        + calls("get-tiny-image")
        + calls("get-annotated-message", messageType="error", includeImage=True)
        + calls("get-resource-links", count=2)
        + calls("get-resource-reference", resourceType="Text", resourceId=2)
        + calls("get-resource-reference", resourceType="Blob", resourceId=1)
        + calls("get-sum", a="two", b=3)
    )
    seen = await watched(everything(), turn)
    echo, total, weather, image, annotated, links, text, blob, wrong = in_order(seen.events)
    assert echo.text == "Echo: Olá"
    assert total.text == "The sum of 2 and 3 is 5."
    # Once, though it comes both as text and as structured content.
    assert len(weather.parts) == 1
    assert json.loads(weather.text) == {"temperature": 36, "conditions": "Light rain / drizzle", "humidity": 82}
    for result in (image, annotated):
        [picture] = [part for part in result.parts if isinstance(part, Image)]
        assert picture.media_type == "image/png"
        assert picture.data is not None
        assert picture.data.startswith(b"\x89PNG")
    assert annotated.text.startswith("Error: Operation failed")
    [_, *told] = [part.text for part in links.parts if isinstance(part, Text)]
    assert len(told) == 2
    assert told[1].startswith("[a resource, not fetched: demo://resource/dynamic/text/2 (Text Resource 2)")
    assert "[demo://resource/dynamic/text/2]\nResource 2: This is a plaintext resource" in text.text
    [file] = [part for part in blob.parts if isinstance(part, File)]
    assert file.data is not None
    assert file.data.startswith(b"Resource 1: This is a base64 blob")
    assert [result.status for result in (echo, total, weather, image, annotated, links, text, blob)] == ["ok"] * 8
    assert wrong.status == "error"
    assert "expected number" in wrong.text


async def test_progress_is_told_in_order_and_before_the_result(everything: Server) -> None:
    seen = await watched(everything(), calls(LONG, duration=0.3, steps=10))
    told = [event for event in seen.events if isinstance(event, (ToolCallProgress, ToolCallFinished))]
    assert [(event.progress, event.total) for event in told[:-1] if isinstance(event, ToolCallProgress)] == [
        (step, 10) for step in range(1, 11)
    ]
    assert results(seen)[LONG].text == "Long running operation completed. Duration: 0.3 seconds, Steps: 10."


async def test_twenty_calls_at_once_each_get_their_own_result(everything: Server) -> None:
    [turn, *others] = [calls("echo", message=f"no. {n}") for n in range(20)]
    for other in others:
        turn += other
    seen = await watched(everything(), turn)
    assert [result.text for result in in_order(seen.events)] == [f"Echo: no. {n}" for n in range(20)]


async def test_two_megabytes_go_there_and_back_while_other_calls_go_on(everything: Server) -> None:
    turn = calls("echo", message="x" * 2_000_000) + calls("get-sum", a=1, b=1)
    seen = await watched(everything(), turn)
    long, total = in_order(seen.events)
    assert long.status == "ok"
    assert long.text.startswith("Echo: xxx")
    assert total.text == "The sum of 1 and 1 is 2."


async def test_what_it_tells_unasked_disturbs_nothing(everything: Server) -> None:
    toggle = calls("toggle-simulated-logging") + calls("toggle-subscriber-updates")
    seen = await watched(everything(), toggle, calls(LONG, duration=0.2, steps=2), toggle)
    started, updated, worked, stopped, ended = in_order(seen.events)
    assert [started.text[:7], updated.text[:7], stopped.text[:7], ended.text[:7]] == ["Started"] * 2 + ["Stopped"] * 2
    assert worked.status == "ok"


async def test_a_program_gets_none_of_our_variables_but_those_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "secret")
    seen = await watched(over_stdio(env={"GIVEN": "x"}), calls("get-env"))
    told = json.loads(results(seen)["get-env"].text)
    assert told["GIVEN"] == "x"
    assert "MY_API_KEY" not in told


# ------------------------------------------------------------------------------- its questions


async def test_the_reader_answers_its_form(everything: Server) -> None:
    """Every kind of field that the protocol knows."""
    given = {
        "name": "Ada Lovelace",
        "check": True,
        "email": "ada@example.org",
        "homepage": "https://example.org/ada",
        "birthdate": "1815-12-10",
        "integer": 7,
        "untitledMultipleSelectEnum": ["Piano", "Violin"],
        "titledSingleSelectEnum": "hero-2",
    }
    seen = await watched(everything(), calls(ASK), on_event=answering(Accept(given)))
    [question] = of(seen.events, ElicitationRequested)
    assert question.message == "Please provide inputs for the following fields:"
    result = results(seen)[ASK]
    assert "User provided the requested information" in result.text
    assert raw(result) == {
        "action": "accept",
        "content": {
            **given,
            # What was not filled in, and has a default.
            "firstLine": "It was a dark and stormy night.",
            "number": 3.14,
            "untitledSingleSelectEnum": "Monica",
            "titledMultipleSelectEnum": ["fish-1"],
            "legacyTitledEnum": "pet-1",
        },
    }


@pytest.mark.parametrize(("answer", "told"), [(Decline(), "User declined"), (Cancel(), "User cancelled")])
async def test_declining_and_cancelling_its_form_are_told_apart(everything: Server, answer: Answer, told: str) -> None:
    seen = await watched(everything(), calls(ASK), on_event=answering(answer))
    assert told in results(seen)[ASK].text


@pytest.mark.parametrize("error_path", [False, True])
async def test_the_reader_visits_its_page(everything: Server, *, error_path: bool) -> None:
    """On the error path it refuses the call until another page has been visited."""
    page = f"https://example.org/{error_path}"
    seen = await watched(
        everything(), calls(VISIT, url=page, message="Visit it.", errorPath=error_path), on_event=answering(Accept())
    )
    visited = [question.url for question in of(seen.events, ElicitationRequested)]
    assert visited == [*(["https://modelcontextprotocol.io"] if error_path else []), page]
    assert raw(results(seen)[VISIT]) == {"action": "accept"}


async def test_two_streams_that_share_it_each_answer_their_own_form(everything: Server) -> None:
    told: dict[str, str] = {}

    async def run(shared: Toolsets, name: str) -> None:
        async with agent_with(shared, calls(ASK)).stream("go") as stream:
            async for event in stream:
                if isinstance(event, ElicitationRequested):
                    await trio.sleep(0.1)
                    stream.answer(event.id, Accept({"name": name}))
                if isinstance(event, ToolCallFinished):
                    told[name] = raw(event.result)["content"]["name"]

    async with Toolsets(everything()) as shared, trio.open_nursery() as nursery:
        for name in ("Ada", "Grace", "Mary"):
            nursery.start_soon(run, shared, name)
    assert told == {"Ada": "Ada", "Grace": "Grace", "Mary": "Mary"}


async def test_it_may_ask_our_model_if_the_reader_agrees(everything: Server) -> None:
    model = ScriptedModel("Forty-two.", name="oracle")
    ask = calls("trigger-sampling-request", prompt="What is the answer?", maxTokens=7)
    seen = await watched(everything(sampling=model), ask, on_event=answering(Accept()))
    [question] = of(seen.events, ElicitationRequested)
    assert "What is the answer?" in question.message
    [request] = model.requests
    assert (request.instructions, request.settings.max_tokens) == ("You are a helpful test server.", 7)
    assert '"text": "Forty-two."' in results(seen)["trigger-sampling-request"].text
    assert '"model": "oracle"' in results(seen)["trigger-sampling-request"].text


async def test_it_may_not_ask_our_model_if_the_reader_does_not_agree(everything: Server) -> None:
    model = ScriptedModel("Forty-two.")
    ask = calls("trigger-sampling-request", prompt="What is the answer?")
    seen = await watched(everything(sampling=model), ask, on_event=answering(Decline()))
    assert model.requests == []
    assert "the user rejected the request" in results(seen)["trigger-sampling-request"].text


async def test_it_is_told_the_roots(everything: Server, tmp_path: Path) -> None:
    seen = await watched(everything(roots=[tmp_path]), calls("get-roots-list"))
    assert tmp_path.as_uri() in results(seen)["get-roots-list"].text


# ----------------------------------------------------------------------- stopping it half-way


async def test_leaving_a_stream_in_mid_call_waits_for_nothing(everything: Server) -> None:
    async with agent_with(everything(), calls(LONG, duration=600, steps=6000)).stream("go") as stream:
        await first(stream, ToolCallProgress)
        began = trio.current_time()
    assert trio.current_time() - began < 5
    assert stream.outcome.reason == "cancelled"


async def test_a_call_that_runs_out_of_time_leaves_the_server_to_the_next_one(everything: Server) -> None:
    slow = calls(LONG, duration=600, steps=6000)
    seen = await watched(everything(timeout=0.5), slow + calls("echo", message="a"), calls("echo", message="b"))
    timed_out, beside, after = in_order(seen.events)
    assert timed_out.status == "timeout"
    assert [beside.text, after.text] == ["Echo: a", "Echo: b"]


async def test_a_stream_that_is_left_does_not_disturb_another_on_the_same_server(everything: Server) -> None:
    async with Toolsets(everything(elicitation=False)) as shared, trio.open_nursery() as nursery:
        done: list[str] = []

        async def stay() -> None:
            seen = await watched(shared, calls(LONG, duration=1, steps=10))
            done.append(results(seen)[LONG].status)

        nursery.start_soon(stay)
        async with agent_with(shared, calls(LONG, duration=600, steps=6000)).stream("go") as stream:
            await first(stream, ToolCallProgress)
    assert done == ["ok"]


async def test_a_question_of_a_stream_that_is_left_is_withdrawn(everything: Server) -> None:
    async with Toolsets(everything()) as shared:
        async with agent_with(shared, calls(ASK)).stream("go") as stream:
            await first(stream, ElicitationRequested)
        assert stream.pending == ()
        seen = await watched(shared, calls(ASK), on_event=answering(Accept({"name": "Bo"})))
        assert raw(results(seen)[ASK])["content"]["name"] == "Bo"


# --------------------------------------------------------------------------------- it is killed


def through(serving: ConnectionPool, told: list[ServerGoneError]) -> Any:
    """A tool that calls a server, and sees the error itself, of which a model reads only the text."""

    @tool
    async def call_it(name: str, arguments: dict[str, Any], context: ToolContext[Any]) -> ToolResult:
        """Call it."""
        try:
            return await serving.call(name, arguments, context)
        except ServerGoneError as error:
            told.append(error)
            raise

    return call_it


async def test_a_killed_program_is_a_typed_error_at_once_and_is_started_again_by_the_next_call() -> None:
    told: list[ServerGoneError] = []
    slow = calls("call_it", name=LONG, arguments={"duration": 600, "steps": 6000})
    again = calls("call_it", name="echo", arguments={"message": "again"})
    known = running(EVERYTHING)
    async with open_server(over_stdio()) as serving:
        [pid] = running(EVERYTHING) - known
        model = ScriptedModel(slow + slow, again, "done")
        async with Agent(model, tools=[through(serving, told)]).stream("go") as stream:
            await first(stream, ToolCallProgress)
            os.kill(pid, signal.SIGKILL)
            began = trio.current_time()
            ended = [await first(stream, ToolCallFinished) for _ in range(2)]
            assert trio.current_time() - began < 2
            restarted = await first(stream, ToolCallFinished)
            await first(stream, StreamStopped)
        [other] = running(EVERYTHING) - known
    assert [event.result.status for event in ended] == ["error", "error"]
    assert len(told) == 2
    assert all(
        str(error).startswith("MCP server 'everything' was killed by signal 9; its stderr ended with: ")
        for error in told
    )
    assert restarted.result.text == "Echo: again"
    assert other != pid


async def test_a_program_that_is_killed_while_it_asks_has_its_question_withdrawn() -> None:
    known = running(EVERYTHING)
    async with agent_with(over_stdio(), calls(ASK), calls("echo", message="on")).stream("go") as stream:
        question = await first(stream, ElicitationRequested)
        for pid in running(EVERYTHING) - known:
            os.kill(pid, signal.SIGKILL)
        assert (await first(stream, QuestionWithdrawn)).id == question.id
        assert (await first(stream, ToolCallFinished)).result.status == "error"
        assert (await first(stream, ToolCallFinished)).result.text == "Echo: on"


async def test_a_killed_http_server_is_a_typed_error_and_is_connected_to_again_once_it_is_back(free_port: int) -> None:
    told: list[ServerGoneError] = []
    slow = calls("call_it", name=LONG, arguments={"duration": 600, "steps": 6000})
    echo = calls("call_it", name="echo", arguments={"message": "again"})
    server = McpServer.http(f"http://127.0.0.1:{free_port}/mcp", name="web", max_restarts=10)
    with everything_at(free_port) as process:
        async with open_server(server) as serving:
            agent = Agent(ScriptedModel(slow, "done"), tools=[through(serving, told)])
            async with agent.stream("go") as stream:
                await first(stream, ToolCallProgress)
                process.kill()
                process.wait()
                ended = await first(stream, ToolCallFinished)
            assert ended.result.status == "error"
            assert [error.server for error in told] == ["web"]
            outcome = await Agent(ScriptedModel(echo, "done"), tools=[through(serving, told)]).run("go")
            assert "MCP server 'web' failed: ConnectError" in str(outcome.messages[2])
            with everything_at(free_port):
                outcome = await Agent(ScriptedModel(echo, "done"), tools=[through(serving, told)]).run("go")
    assert "Echo: again" in str(outcome.messages[2])


async def test_cancelling_a_start_leaves_no_program() -> None:
    known = running(EVERYTHING)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                while not running(EVERYTHING) - known:  # noqa: ASYNC110 - nothing tells us
                    await trio.sleep(0.005)
                scope.cancel()

            nursery.start_soon(cancel)
            await agent_with(over_stdio(), deadlines=Deadlines(toolset=60)).run("go")
    assert scope.cancelled_caught
    for pid in running(EVERYTHING) - known:
        with trio.fail_after(2):
            await until_gone(pid)
