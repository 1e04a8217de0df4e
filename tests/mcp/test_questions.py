"""What a server asks reaches the stream whose call made it ask, and nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from mcp.server.mcpserver import MCPServer
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult

from agentloop import Accept, Agent, Cancel, Decline, Stream
from agentloop.context import ToolContext
from agentloop.errors import InvalidAnswerError
from agentloop.events import (
    ElicitationRequested,
    QuestionWithdrawn,
    StreamEvent,
    ToolCallFinished,
    WarningIssued,
)
from agentloop.mcp import McpServer, OpenServer, PendingInput
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.questions import Answer
from agentloop.testing import ScriptedModel, calls
from agentloop.tools import tool
from agentloop.toolsets import Toolsets
from tests.mcp.support import ERAS, agent_with, playground, raw, results, watched
from tests.support import first, of

both_eras = pytest.mark.parametrize("mode", ERAS)


def answering(answer: Answer) -> Callable[[Stream, StreamEvent], object]:
    def on_event(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ElicitationRequested):
            stream.answer(event.id, answer)

    return on_event


# ------------------------------------------------------------------------------- the user


@both_eras
async def test_a_servers_form_is_shown_and_its_defaults_are_filled_in(mode: str) -> None:
    seen = await watched(playground(mode), calls("invite"), on_event=answering(Accept({"name": "Bo"})))
    [question] = of(seen.events, ElicitationRequested)
    assert question.message == "Whom do you invite?"
    assert question.url is None
    assert question.form["required"] == ["name"]
    assert question.form["properties"]["name"]["title"] == "Who comes"
    assert results(seen)["invite"].text == "Bo, Saturday, 2"


@both_eras
@pytest.mark.parametrize(
    ("content", "problem"),
    [({}, "`name`: missing"), ({"name": "Bo", "day": "Monday"}, "`day`"), ({"name": "Bo", "seats": 9}, "`seats`")],
)
async def test_an_answer_that_does_not_fit_never_reaches_the_server(
    mode: str, content: dict[str, Any], problem: str
) -> None:
    refused: list[str] = []

    def on_event(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ElicitationRequested):
            with pytest.raises(InvalidAnswerError) as caught:
                stream.answer(event.id, Accept(content))
            refused.append(str(caught.value))
            stream.answer(event.id, Accept({"name": "Bo", "seats": 8}))

    seen = await watched(playground(mode), calls("invite"), on_event=on_event)
    assert problem in refused[0]
    assert results(seen)["invite"].text == "Bo, Saturday, 8"


@both_eras
@pytest.mark.parametrize(
    ("answer", "told"), [(Decline("no"), "DeclinedElicitation"), (Cancel(), "CancelledElicitation")]
)
async def test_declining_and_cancelling_are_told_apart(mode: str, answer: Answer, told: str) -> None:
    seen = await watched(playground(mode), calls("invite"), on_event=answering(answer))
    assert results(seen)["invite"].text == told


@both_eras
async def test_where_nobody_can_be_asked_the_server_is_declined(mode: str) -> None:
    outcome = await agent_with(playground(mode), calls("invite")).run("go")
    assert "DeclinedElicitation" in str(outcome.messages[2])


@both_eras
async def test_thinking_takes_as_long_as_it_takes(mode: str) -> None:
    async def think(question: object) -> Answer:
        await trio.sleep(5)
        return Accept({"name": "Bo"})

    outcome = await agent_with(playground(mode, timeout=1), calls("invite")).run("go", on_question=think)
    assert "Bo, Saturday" in str(outcome.messages[2])


@both_eras
async def test_a_form_that_asks_for_a_secret_is_declined_unseen(mode: str) -> None:
    seen = await watched(playground(mode), calls("login"))
    assert of(seen.events, ElicitationRequested) == []
    assert results(seen)["login"].text == "DeclinedElicitation"
    [warning] = of(seen.events, WarningIssued)
    assert "asks for a secret in a form (password)" in warning.message


@both_eras
async def test_a_form_that_asks_for_a_secret_can_be_let_through(mode: str) -> None:
    login = Accept({"user": "bo", "password": "x"})
    seen = await watched(playground(mode, ask_secrets=True), calls("login"), on_event=answering(login))
    assert results(seen)["login"].text == "user='bo' password='x'"


async def test_a_form_beyond_what_the_protocol_allows_is_an_error_for_the_server() -> None:
    seen = await watched(playground("legacy"), calls("ask_nonsense"))
    assert of(seen.events, ElicitationRequested) == []
    assert results(seen)["ask_nonsense"].status == "error"
    assert "not a form as MCP allows it" in results(seen)["ask_nonsense"].text


async def test_a_page_to_visit_is_a_question_with_its_address() -> None:
    page = "https://example.org/login?user=1"
    seen = await watched(playground("legacy"), calls("ask_to_visit", url=page), on_event=answering(Accept()))
    [question] = of(seen.events, ElicitationRequested)
    assert (question.url, question.message) == (page, "Please log in there.")
    assert results(seen)["ask_to_visit"].text == "accept"


@pytest.mark.parametrize(("answer", "told"), [(Accept(), "no mail"), (Decline(), "answered with an error")])
async def test_a_call_that_needs_a_page_visited_first_is_made_again_once_the_user_agrees(
    answer: Answer, told: str
) -> None:
    seen = await watched(playground("legacy"), calls("read_mail"), on_event=answering(answer))
    [question] = of(seen.events, ElicitationRequested)
    assert question.url == "https://example.org/in"
    assert told in results(seen)["read_mail"].text


@pytest.mark.parametrize("url", ["file:///etc/passwd", "javascript:alert(1)"])
async def test_an_address_that_is_no_web_page_is_declined_unseen(url: str) -> None:
    seen = await watched(playground("legacy"), calls("ask_to_visit", url=url))
    assert of(seen.events, ElicitationRequested) == []
    assert results(seen)["ask_to_visit"].text == "decline"


@both_eras
async def test_a_server_that_may_not_ask_is_told_so(mode: str) -> None:
    seen = await watched(playground(mode, elicitation=False), calls("invite"))
    assert of(seen.events, ElicitationRequested) == []
    assert results(seen)["invite"].status == "error"


@both_eras
async def test_stopping_a_run_ends_the_servers_wait_for_an_answer(mode: str) -> None:
    async with Toolsets(playground(mode)) as shared:
        async with agent_with(shared, calls("invite")).stream("go") as stream:
            await first(stream, ElicitationRequested)
            stream.stop()
            events = [event async for event in stream if isinstance(event, (QuestionWithdrawn, ToolCallFinished))]
        assert [type(event) for event in events] == [QuestionWithdrawn, ToolCallFinished]
        # The server, which is in this process, has an end to come to, too.
        await trio.testing.wait_all_tasks_blocked()
        # And the server is as good as before.
        seen = await watched(shared, calls("invite"), on_event=answering(Accept({"name": "Bo"})))
        assert results(seen)["invite"].text == "Bo, Saturday, 2"


# ------------------------------------------------------------------------------- the model


@both_eras
async def test_the_model_answers_a_server_if_the_user_agrees(mode: str) -> None:
    model = ScriptedModel("four")
    server = playground(mode, sampling=model)
    seen = await watched(server, calls("think"), on_event=answering(Accept()))
    [question] = of(seen.events, ElicitationRequested)
    assert question.message == (
        "MCP server 'playground' wants the model to answer this:\n\n"
        "(the user)\n    2 + 2?\n(settings)\n    max_tokens=10"
    )
    assert results(seen)["think"].text == "scripted says four"
    assert model.requests[0].settings.max_tokens == 10


@both_eras
async def test_the_model_does_not_answer_a_server_if_the_user_declines(mode: str) -> None:
    model = ScriptedModel()
    seen = await watched(playground(mode, sampling=model), calls("think"), on_event=answering(Decline()))
    assert results(seen)["think"].status == "error"
    assert model.requests == []


@both_eras
async def test_a_user_need_not_be_asked_for_the_model(mode: str) -> None:
    server = playground(mode, sampling=ScriptedModel("four"), approve_sampling=False)
    assert results(await watched(server, calls("think")))["think"].text == "scripted says four"


@both_eras
async def test_stopping_a_run_stops_the_model_that_answers_a_server(mode: str) -> None:
    class Thinking:
        name = "thinking"
        asked = trio.Event()
        stopped = False

        async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
            self.asked.set()
            try:
                await trio.sleep_forever()
            finally:
                self.stopped = True

    model = Thinking()
    model.asked = trio.Event()
    async with Toolsets(playground(mode, sampling=model, approve_sampling=False)) as shared:
        async with agent_with(shared, calls("think")).stream("go"):
            await model.asked.wait()
        assert model.stopped


@both_eras
async def test_without_a_model_a_server_cannot_ask_for_one(mode: str) -> None:
    assert results(await watched(playground(mode), calls("think")))["think"].status == "error"


@both_eras
async def test_a_server_is_told_the_folders_that_it_may_work_in(mode: str) -> None:
    server = playground(mode, roots=["/tmp/a b", "file:///srv"])
    assert results(await watched(server, calls("folders")))["folders"].text == "file:///tmp/a%20b file:///srv"


# ----------------------------------------------------------- several streams, one server


def asker(toolset: Any, tag: str, name: str = "ask") -> Agent:
    return agent_with(toolset, calls(name, tag=tag))


async def ask_at_once(shared: Any, tags: str, name: str) -> dict[str, str]:
    """Streams that all call at once; each answers, with its own name, what it is asked. Gives what they were told."""
    told: dict[str, str] = {}

    async def one(tag: str) -> None:
        async with asker(shared, tag, name).stream("go") as stream:
            async for event in stream:
                if isinstance(event, ElicitationRequested):
                    assert f"Who is {tag}" in event.message, "the question is somebody else's"
                    # Let all of them be asked that can be asked at once.
                    await trio.sleep(0.05)
                    stream.answer(event.id, Accept({"name": f"{tag}'s friend"}))
                if isinstance(event, ToolCallFinished):
                    told[tag] = event.result.text

    async with trio.open_nursery() as nursery:
        for tag in tags:
            nursery.start_soon(one, tag)
    return told


@pytest.mark.real_clock
@pytest.mark.parametrize("sessions", [1, 3])
async def test_streams_that_share_an_old_server_over_stdio_are_each_asked_their_own_question(sessions: int) -> None:
    async with Toolsets(raw(max_processes=sessions)) as shared:
        told = await ask_at_once(shared, "abcd", "ask")
    assert told == {tag: f"{tag}: accept {tag}'s friend" for tag in "abcd"}


async def test_streams_that_share_an_old_server_in_process_are_each_asked_their_own_question() -> None:
    async with Toolsets(playground("legacy")) as shared:
        told = await ask_at_once(shared, "abcd", "ask")
    assert told == {tag: f"{tag}: {tag}'s friend, Saturday, 2" for tag in "abcd"}


@pytest.mark.real_clock
async def test_two_calls_of_one_stream_may_ask_an_old_server_at_once() -> None:
    def answer(stream: Stream[Any], event: object) -> None:
        # Such a server does not say which call asks. The one that was taken for it may have its result by now: then its
        # question is withdrawn, and asked again through the other.
        if isinstance(event, ElicitationRequested) and event in stream.pending:
            stream.answer(event, Accept({"name": "Bo"}))

    seen = await watched(raw(), calls("ask", tag="x") + calls("ask", tag="y"), on_event=answer)
    assert {event.result.text for event in of(seen.events, ToolCallFinished)} == {"x: accept Bo", "y: accept Bo"}


@pytest.mark.real_clock
async def test_a_call_that_waits_because_another_one_asks_does_not_run_out_of_time() -> None:
    async def think(question: object) -> Answer:
        await trio.sleep(0.6)
        return Accept({"name": "Bo"})

    agent = agent_with(raw(timeout=0.4), calls("ask", tag="x") + calls("ask", tag="y"))
    outcome = await agent.run("go", on_question=think)
    assert "x: accept Bo" in str(outcome.messages[2])
    assert "y: accept Bo" in str(outcome.messages[3])


@pytest.mark.real_clock
async def test_a_question_that_comes_after_its_call_was_cancelled_reaches_nobody() -> None:
    async with Toolsets(raw()) as shared:
        async with asker(shared, "ghost", "ask_when_cancelled").stream("go") as stream:
            async for event in stream:
                if type(event).__name__ == "ToolCallStarted":
                    await trio.sleep(0.1)
                    stream.stop()
        # While the next stream waits, two questions come, and nobody can tell which of them is the ghost's.
        seen = await watched(shared, calls("ask", tag="b"), on_event=answering(Accept({"name": "Bo"})))
        assert of(seen.events, ElicitationRequested) == []
        assert results(seen)["ask"].text == "b: cancel None"
        assert {warning.code for warning in of(seen.events, WarningIssued)} == {"question_refused"}
        # From now on the server is known to ask: after a cancelled call, another process serves other streams.
        seen = await watched(shared, calls("ask", tag="c"), on_event=answering(Accept({"name": "Bo"})))
        assert [question.message for question in of(seen.events, ElicitationRequested)] == ["Who is c?"]
        assert results(seen)["ask"].text == "c: accept Bo"


@pytest.mark.real_clock
async def test_a_child_streams_call_asks_through_the_child_stream() -> None:
    async with Toolsets(raw()) as shared:
        child = asker(shared, "child").replace(name="child")
        parent = Agent(ScriptedModel(calls("child", prompt="go"), "done"), tools=[child.as_tool()])
        async with parent.stream("go") as stream:
            question = await first(stream, ElicitationRequested)
            stream.answer(question.id, Accept({"name": "Bo"}))
            await stream.wait()
    assert question.depth == 1


# ------------------------------------------------------------------ questions as values


async def test_a_question_can_be_parked_and_go_on_with_another_connection() -> None:
    """Since 2026-07-28 a question is the result of a call, and the server keeps nothing."""
    parked: list[bytes] = []
    serving: list[OpenServer] = []

    @tool
    async def park(context: ToolContext[Any]) -> str:
        """Make the call, and keep its question."""
        pending = await serving[0].begin("invite", {}, context)
        assert isinstance(pending, PendingInput)
        parked.append(msgspec.json.encode(pending))
        return "parked"

    @tool
    async def resume(context: ToolContext[Any]) -> str:
        """Go on with it."""
        pending = msgspec.json.decode(parked[0], type=PendingInput)
        result = await serving[0].go_on(pending, await serving[0].answer(pending, context), context)
        assert not isinstance(result, PendingInput)
        return result.text

    async def run(name: str) -> str:
        async with server.open() as opened:
            serving[:] = [opened]
            agent = Agent(ScriptedModel(calls(name), "done"), tools=[park, resume])

            async def answer(question: object) -> Answer:
                return Accept({"name": "Bo"})

            return str((await agent.run("go", on_question=answer)).messages[2])

    server: McpServer = playground()
    assert "parked" in await run("park")
    assert b"Whom do you invite?" in parked[0]
    assert "Bo, Saturday, 2" in await run("resume")


async def test_a_server_that_never_stops_asking_is_given_up() -> None:
    server = MCPServer("insatiable")

    @server.tool()
    async def more() -> str | InputRequiredResult:
        """Ask for more."""
        params = ElicitRequestFormParams(message="More?", requested_schema={"type": "object", "properties": {}})
        return InputRequiredResult(input_requests={"more": ElicitRequest(params=params)}, request_state="s")

    seen = await watched(McpServer.in_process(server), calls("more"), on_event=answering(Accept()))
    assert "answered a call with questions 16 times" in results(seen)["more"].text
