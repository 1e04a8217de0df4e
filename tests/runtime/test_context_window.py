"""No session is ever dead: a request fits the model's window, or one prompt alone does not."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from agentloop import Agent, Approve, Compaction, File, Limits, Permissions, Retries, Rule, Session, Text, tool
from agentloop._core.context_window import View, estimate, fitted, measure
from agentloop._core.transcript import problems
from agentloop.errors import ModelConnectionError, ModelContextOverflowError, PromptTooLongError
from agentloop.events import CompactionFinished, CompactionStarted, WarningIssued
from agentloop.limits import SUMMARIZE
from agentloop.messages import AssistantMessage, Message, ToolCall, ToolResult, Usage, UserMessage, user_message
from agentloop.models import ModelRequest
from agentloop.stores import MemoryStore, fork_session, stored_session
from agentloop.testing import FunctionModel, Response, ScriptedModel, calls, fails, says
from tests.support import of, watch

OVERFLOW = ModelContextOverflowError(model="small", status=400, body="the prompt is too long")


def tokens_of(request: ModelRequest) -> int:
    """The tokens of a request, as a provider with a simple tokenizer counts them."""
    front = len(request.instructions) + len(msgspec.json.encode(request.tools))
    return (front + len(msgspec.json.encode(list(request.messages)))) // 4


def asks_for_summary(request: ModelRequest) -> bool:
    last = request.messages[-1]
    return isinstance(last, UserMessage) and last.text.startswith(SUMMARIZE)


class Small(FunctionModel):
    """A model that refuses requests longer than its window.

    Args:
      window: the tokens that it reads at once.
      answer: gives its response to a request that fits.
      summarize: gives its response to a request for a summary that fits.
    """

    def __init__(
        self,
        window: int,
        answer: Callable[[ModelRequest], Response] = lambda request: says("fine"),
        summarize: Callable[[ModelRequest], Response] = lambda request: says("They talked."),
    ) -> None:
        self.window = window
        self.requests: list[ModelRequest] = []
        """The requests that fit."""
        self.refused = 0
        self._answer, self._summarize = answer, summarize
        super().__init__(self._respond, name="small")

    def _respond(self, request: ModelRequest) -> Response:
        tokens = tokens_of(request)
        if tokens > self.window:
            self.refused += 1
            raise OVERFLOW
        self.requests.append(request)
        assert problems(request.messages) == []
        response = self._summarize(request) if asks_for_summary(request) else self._answer(request)
        return msgspec.structs.replace(response, usage=Usage(tokens, 10))


def talk(turns: int, words: int = 100) -> list[Message]:
    messages: list[Message] = []
    for turn in range(turns):
        messages.append(user_message(f"question {turn} " + "bla " * words))
        messages.append(AssistantMessage((Text(f"answer {turn} " + "bla " * words),)))
    return messages


@tool
async def read(page: int) -> str:
    """Read a page."""
    return f"page {page} " + "word " * 1_500


def reads_once(request: ModelRequest) -> Response:
    """Four calls for a prompt, and an answer for their results."""
    if isinstance(request.messages[-1], ToolResult):
        return says("fine")
    return calls("read", page=1) + calls("read", page=2) + calls("read", page=3) + calls("read", page=4)


# ------------------------------------------------------------------ a prompt that is too long alone


@pytest.mark.parametrize("compaction", [None, Compaction(window=2_000)], ids=["no compaction", "compaction"])
@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_a_prompt_that_alone_is_too_long_is_refused_and_the_session_can_be_used(
    compaction: Compaction | None, turns: int
) -> None:
    session = Session(messages=talk(turns))
    agent = Agent(Small(2_000), compaction=compaction)

    with pytest.raises(PromptTooLongError) as caught:
        await agent.run("word " * 12_000, session=session)

    assert caught.value.__cause__ is OVERFLOW
    assert (await agent.run("Never mind.", session=session)).output == "fine"
    # What was said is in the session.
    assert session.messages[2 * turns] == user_message("word " * 12_000)


async def test_without_compaction_a_prompt_that_outgrows_the_window_is_left_out_and_a_shorter_one_is_answered() -> None:
    session = Session(messages=talk(5))
    agent = Agent(Small(2_000))

    with pytest.raises(ModelContextOverflowError):
        await agent.run("word " * 900, session=session)

    assert (await agent.run("Never mind.", session=session)).output == "fine"


async def test_a_prompt_that_was_too_long_is_left_out_in_a_session_that_was_reopened_and_in_a_fork() -> None:
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            with pytest.raises(PromptTooLongError):
                await Agent(Small(2_000)).run("word " * 12_000, session=session)
        fork = await fork_session(store, "s")
        for id in ("s", fork):
            async with stored_session(store, id) as session:
                assert (await Agent(Small(2_000)).run("Never mind.", session=session)).output == "fine"
                assert len(session.messages) == 3


async def test_without_compaction_a_prompt_too_long_of_an_earlier_run_does_not_keep_a_short_one_from_its_answer() -> (
    None
):
    session = Session(messages=[*talk(2), user_message("word " * 12_000)])

    outcome = await Agent(Small(2_000)).run("Never mind.", session=session)

    assert outcome.output == "fine"


async def test_steering_that_is_too_long_is_refused_and_the_session_can_be_used() -> None:
    session = Session()
    agent = Agent(Small(2_000, reads_once), tools=[read], max_result=1000)

    async with agent.stream("go", session=session) as stream:
        stream.steer("word " * 12_000)
        outcome = await stream.wait()

    assert isinstance(outcome.error, PromptTooLongError)
    assert (await agent.run("Never mind.", session=session)).output == "fine"


# -------------------------------------------------------------------------- results that are too long


@pytest.mark.parametrize("compaction", [None, Compaction(window=2_000)], ids=["no compaction", "compaction"])
async def test_results_that_are_too_long_together_are_shown_in_part(compaction: Compaction | None) -> None:
    model = Small(2_000, reads_once)

    watched = await watch(Agent(model, tools=[read], compaction=compaction), "Read all.")

    assert watched.outcome.output == "fine"
    shown = [message.text for message in model.requests[-1].messages if isinstance(message, ToolResult)]
    assert [text[:6] for text in shown] == ["page 1", "page 2", "page 3", "page 4"]
    assert "read_result" in [spec.name for spec in model.requests[-1].tools]


async def test_a_result_in_part_stays_so_and_can_be_read_after_the_session_was_reopened() -> None:
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await Agent(Small(2_000, reads_once), tools=[read]).run("Read all.", session=session)
            long = session.messages[2]
            assert isinstance(long, ToolResult)
        async with stored_session(store, "s") as session:
            model = Small(2_400, lambda request: _read_on(request, long.call_id))
            outcome = await Agent(model, tools=[read]).run("Read on.", session=session)

    assert model.refused == 0
    assert outcome.messages[2].text == f"[characters 4000 to 4010 of {len(long.text)}]\n{long.text[4000:4010]}"


async def test_a_result_in_part_can_be_read_by_a_call_that_waited_for_approval_in_another_process() -> None:
    def asks(request: ModelRequest) -> Response:
        if request.messages[-1] == user_message("Read on."):
            first = next(message for message in request.messages if isinstance(message, ToolResult))
            return calls("read_result", call_id=first.call_id, offset=4_000, limit=10)
        return reads_once(request)

    model = Small(2_400, asks)
    agent = Agent(model, tools=[read], permissions=Permissions(ask=[Rule("read_result")]))
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await agent.run("Read all.", session=session)
        async with stored_session(store, "s") as session:
            await agent.run("Read on.", session=session, on_question="park")
        async with stored_session(store, "s") as session:
            [question] = session.questions
            outcome = await agent.resume(session, {question.id: Approve()})

    [result] = [message for message in outcome.messages if isinstance(message, ToolResult)]
    assert result.text.startswith("[characters 4000 to 4010 of ")


def _read_on(request: ModelRequest, call_id: str) -> Response:
    if request.messages[-1] == user_message("Read on."):
        return calls("read_result", call_id=call_id, offset=4_000, limit=10)
    return says("fine")


async def test_pictures_in_results_that_are_too_long_together_make_room() -> None:
    @tool
    async def look(page: int) -> list[Text | File]:
        """Look at a page."""
        return [Text(f"page {page}"), File(b"%PDF-1.7\n" + b"\0x" * 2_500, media_type="application/pdf")]

    def looks(request: ModelRequest) -> Response:
        if isinstance(request.messages[-1], ToolResult):
            return says("fine")
        return calls("look", page=1) + calls("look", page=2)

    model = Small(3_000, looks)

    watched = await watch(Agent(model, tools=[look], compaction=Compaction(window=3_000)))

    assert watched.outcome.output == "fine"


# ------------------------------------------------------------------- a session longer than the window


@pytest.mark.parametrize("said", [2_000, 8_000, 100_000])
async def test_a_session_that_is_far_longer_than_the_window_goes_on_whatever_window_was_said(said: int) -> None:
    model = Small(2_000)

    watched = await watch(Agent(model, compaction=Compaction(window=said)), session=Session(messages=talk(100)))

    assert watched.outcome.output == "fine"


@pytest.mark.parametrize(
    "summary",
    [
        Response((Text("I cannot help with that."),), "refusal"),
        Response((Text("The user"),), "length"),
        says(""),
        says("bla " * 3_000),
        calls("read", page=1),
    ],
    ids=["refuses", "is cut off", "is silent", "rambles", "calls"],
)
async def test_where_no_summary_can_be_had_the_oldest_part_is_left_out_before_the_run_fails(summary: Response) -> None:
    model = Small(2_000, summarize=lambda request: summary)
    session = Session(messages=talk(12))

    watched = await watch(Agent(model, tools=[read], compaction=Compaction(window=2_000)), session=session)

    assert watched.outcome.output == "fine"
    assert "messages_left_out" in [event.code for event in of(watched.events, WarningIssued)]
    assert watched.messages[:24] == tuple(talk(12))


async def test_a_summary_that_fails_for_a_moment_leaves_nothing_out() -> None:
    session = Session(messages=talk(7))
    gone = fails(ModelConnectionError("gone"))
    agent = Agent(
        ScriptedModel(fails(OVERFLOW), gone), compaction=Compaction(window=100_000), retries=Retries(attempts=1)
    )

    watched = await watch(agent, session=session)

    assert isinstance(watched.error, ModelContextOverflowError)
    assert session._transcript.shown.is_plain


async def test_where_summaries_fail_in_every_process_the_second_leaves_the_oldest_part_out() -> None:
    model = Small(2_000, summarize=lambda request: fails(ModelConnectionError("gone")))
    agent = Agent(model, compaction=Compaction(window=20_000), retries=Retries(attempts=1))
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            for _ in range(12):
                await Agent(ScriptedModel("bla " * 100)).run("bla " * 100, session=session)
            with pytest.raises(ModelContextOverflowError):
                await agent.run("go", session=session)
        async with stored_session(store, "s") as session:
            assert (await agent.run("go", session=session)).output == "fine"


async def test_a_summary_that_would_fill_the_window_replaces_nothing() -> None:
    long = says("bla " * 600)

    watched = await watch(
        Agent(ScriptedModel(long, "Hello."), compaction=Compaction(window=1_000)), session=Session(messages=talk(5))
    )

    [finished] = of(watched.events, CompactionFinished)
    assert "more than half of the window" in finished.problem


@pytest.mark.parametrize("compaction", [None, Compaction(window=2_000)], ids=["no compaction", "compaction"])
async def test_a_summary_by_a_model_with_a_larger_window_makes_room_for_a_smaller_one(
    compaction: Compaction | None,
) -> None:
    session = Session(messages=[*talk(60), *_a_call("c1", "short")])
    await session.compact(
        Agent(ScriptedModel(says("bla " * 3_000)), compaction=Compaction(window=8_000, keep_recent=0.01))
    )

    outcome = await Agent(Small(2_000), tools=[read], compaction=compaction).run("go", session=session)

    assert outcome.output == "fine"


async def test_a_response_with_arguments_longer_than_the_window_of_the_next_model_makes_room() -> None:
    arguments = json.dumps({"text": "word " * 4_000})
    session = Session(
        messages=[
            user_message("Write."),
            AssistantMessage((ToolCall("c1", "write", arguments),), "tool_calls"),
            ToolResult("c1", "write", (Text("written"),)),
            AssistantMessage((Text("word " * 4_000),)),
        ]
    )

    watched = await watch(Agent(Small(2_000), compaction=Compaction(window=2_000)), session=session)

    assert watched.outcome.output == "fine"


async def test_a_model_that_calls_tools_in_place_of_a_summary_gets_the_conversation_as_text() -> None:
    def summarize(request: ModelRequest) -> Response:
        return calls("read", page=9) if request.tools else says("They read.")

    model = Small(2_000, summarize=summarize)
    session = Session(messages=[*talk(6), *_a_call("c1", "word " * 100), *talk(2)])

    watched = await watch(Agent(model, tools=[read], compaction=Compaction(window=2_000)), session=session)

    with_tools, as_text, _ = model.requests
    assert (bool(with_tools.tools), bool(as_text.tools)) == (True, False)
    assert [type(message) for message in as_text.messages] == [UserMessage, UserMessage]
    assert 'Assistant calls read({"page":1})\n\nResult of read: word' in as_text.messages[0].text
    [finished] = of(watched.events, CompactionFinished)
    assert finished.summary.endswith("They read.")


def _a_call(id: str, text: str) -> list[Message]:
    return [
        user_message("Read."),
        AssistantMessage((ToolCall(id, "read", '{"page":1}'),), "tool_calls"),
        ToolResult(id, "read", (Text(text),)),
        AssistantMessage((Text("read"),)),
    ]


async def test_tools_that_fill_the_window_are_left_out_of_the_request_for_a_summary() -> None:
    tools = [tool(_page(number)) for number in range(40)]
    model = Small(4_000)

    watched = await watch(
        Agent(model, tools=tools, compaction=Compaction(window=4_000)), session=Session(messages=talk(12))
    )

    assert watched.outcome.output == "fine"
    [summary] = [request for request in model.requests if asks_for_summary(request)]
    assert summary.tools == ()


def _page(number: int):  # type: ignore[no-untyped-def]
    async def page(line: int) -> str:
        """Read a line of a page, and say what stands there, in the language of the reader, with all its notes."""
        return ""

    page.__name__ = f"page_{number}"
    return page


A_MESSAGE = st.one_of(
    st.builds(lambda size: [user_message("x y" * size + "?")], st.integers(0, 1000)),
    st.builds(lambda size: [AssistantMessage((Text("语言 " * size + "."),))], st.integers(0, 3000)),
    st.builds(
        lambda results, arguments: [
            AssistantMessage(
                tuple(ToolCall(f"c{n}", "read", '{"a":"' + "b " * arguments + '"}') for n in range(len(results)))
            ),
            *(ToolResult(f"c{n}", "read", (Text("y1 " * size),)) for n, size in enumerate(results)),
        ],
        st.lists(st.integers(0, 3000), min_size=1, max_size=5),
        st.integers(0, 3000),
    ),
)


@settings(max_examples=40)
@given(st.lists(A_MESSAGE, max_size=8), st.integers(150, 6000))
def test_messages_to_be_summed_up_are_cut_to_fit_whatever_they_are(turns: list[list[Message]], tokens: int) -> None:
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        for message in turn:
            if isinstance(message, ToolResult):
                messages.append(ToolResult(f"{number}{message.call_id}", message.name, message.parts))
            elif isinstance(message, AssistantMessage) and message.calls:
                renamed = tuple(ToolCall(f"{number}{call.id}", call.name, call.arguments) for call in message.calls)
                messages.append(AssistantMessage(renamed))
            else:
                messages.append(message)

    sent = fitted(messages, tokens)

    assert sum(map(estimate, sent)) <= tokens
    assert problems(sent) == []


# ------------------------------------------------------------------------------- a child that was parked


async def test_a_child_that_was_parked_goes_on_with_its_summary_and_its_results_in_part() -> None:
    @tool(requires_approval=True)
    async def pay() -> str:
        """Pay."""
        return "paid"

    def works(request: ModelRequest) -> Response:
        texts = [message.text for message in request.messages]
        if "paid" in texts:
            return says("done")
        if any("They talked." in text for text in texts):
            return calls("pay")
        return calls("read", page=len(texts))

    model = Small(4_000, works)
    child = Agent(
        model,
        name="child",
        tools=[read, pay],
        compaction=Compaction(window=4_000, result_tokens=3_000),
        limits=Limits(turns=20),
    )
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            parent = Agent(ScriptedModel(calls("child", prompt="go")), tools=[child.as_tool()])
            await parent.run("go", session=session, on_question="park")
        model.requests.clear()
        async with stored_session(store, "s") as session:
            answers = {question.id: Approve() for question in session.questions}
            await Agent(ScriptedModel("done"), tools=[child.as_tool()]).resume(session, answers)

    assert [asks_for_summary(request) for request in model.requests] == [False]
    assert "They talked." in model.requests[0].messages[0].text


# --------------------------------------------------------------------------------- what the provider has counted


def counted(tokens: int, text: str = "fine") -> Response:
    return Response((Text(text),), usage=Usage(tokens, 10))


async def test_the_count_of_the_provider_holds_over_streams_reopening_and_forks() -> None:
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await Agent(ScriptedModel(counted(880))).run("One. " * 30, session=session)
            assert session.context().counted == 890
        for id in ("s", await fork_session(store, "s")):
            async with stored_session(store, id) as session:
                assert session.context().counted == session.context().tokens == 890
            agent = Agent(ScriptedModel("Sum.", "Hello."), compaction=Compaction(window=1_000, keep_recent=0.01))
            async with stored_session(store, id) as session:
                [started] = of((await watch(agent, session=session)).events, CompactionStarted)
                assert 890 < started.tokens < 900
                # The count was of more than the model reads now.
                assert session.context().counted == 0


async def test_a_count_from_before_a_compaction_does_not_hold_for_the_shorter_view() -> None:
    story = talk(5)
    last = msgspec.structs.replace(story[-1], usage=Usage(5_000, 10))
    session = Session(messages=[*story[:-1], last])
    assert session.context().tokens == 5_010

    await session.compact(Agent(ScriptedModel("Sum.")))

    context = session.context()
    assert 9 in context.messages
    assert (context.counted, context.tokens < 500) == (0, True)


def test_a_count_that_is_smaller_than_the_texts_can_be_is_not_taken() -> None:
    messages: list[Message] = [user_message("word " * 2_000), AssistantMessage((Text("fine"),), usage=Usage(40, 10))]

    assert measure(messages, View(), 0).tokens > 1_900


def test_a_document_takes_the_tokens_that_the_provider_has_counted() -> None:
    document = File(b"%PDF-1.7\n" + b"\0x" * 500_000, media_type="application/pdf")
    messages: list[Message] = [
        UserMessage((Text("Read."), document)),
        AssistantMessage((Text("fine"),), usage=Usage(3_000, 10)),
    ]

    assert measure([messages[0]], View(), 0).tokens > 10_000
    assert measure(messages, View(), 0).tokens == 3_010


def test_reasoning_that_is_not_sent_again_does_not_count() -> None:
    messages: list[Message] = [
        user_message("go"),
        AssistantMessage((Text("x"),), usage=Usage(100, 5_000, reasoning_tokens=4_900)),
    ]

    assert measure(messages, View(), 0).tokens == 200


async def test_instructions_and_tools_count_before_the_first_count_of_the_provider() -> None:
    model = Small(2_000)
    agent = Agent(model, instructions="word " * 1_000, compaction=Compaction(window=2_000))

    watched = await watch(agent, session=Session(messages=talk(5)))

    assert watched.outcome.output == "fine"
    assert model.refused == 0
    assert of(watched.events, CompactionStarted)[0].reason == "threshold"


def test_a_provider_that_counts_more_than_the_estimate_makes_all_messages_count_more() -> None:
    view = View()
    messages: list[Message] = [user_message("word " * 4_000), AssistantMessage((Text("ok"),), usage=Usage(6_000, 10))]

    measured = measure([*messages, user_message("word " * 1_000)], view, 0)

    assert view.scale == pytest.approx(1.5, rel=0.05)
    assert measured.tokens == pytest.approx(7_510, rel=0.05)
