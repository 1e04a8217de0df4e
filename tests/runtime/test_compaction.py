"""A conversation that gets too long is summed up for the model; the session keeps all of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from agentloop import Agent, Approve, Compaction, Image, Limits, Price, Retries, Session, Text, UsageError, hooks, tool
from agentloop._core.context_window import ELIDED, View, estimate, plan
from agentloop._core.transcript import problems
from agentloop.errors import ModelConnectionError, ModelContextOverflowError, ModelStatusError, PromptTooLongError
from agentloop.events import CompactionFinished, CompactionStarted, ResponseDiscarded, TextDelta, WarningIssued
from agentloop.hooks import Block, PostCompact, PreCompact, ReplaceMessages
from agentloop.messages import AssistantMessage, Message, ToolCall, ToolResult, Usage, UserMessage, user_message
from agentloop.models import ModelRequest, ModelSettings
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import FunctionModel, Response, ScriptedModel, calls, fails, hangs, says
from tests.support import first, nested, of, opened, watch

OVERFLOW = ModelContextOverflowError(model="scripted", status=400, body="the prompt is too long")
SMALL = Compaction(window=1000, keep_recent=0.2, threshold=0.8, result_tokens=50)


def talk(turns: int, words: int = 100) -> list[Message]:
    """A conversation of ``turns`` questions and answers of so many tokens each."""
    messages: list[Message] = []
    for turn in range(turns):
        messages.append(user_message(f"question {turn} " + "bla " * words))
        messages.append(AssistantMessage((Text(f"answer {turn} " + "bla " * words),)))
    return messages


def texts(request: ModelRequest) -> list[str]:
    return [message.text[:40] for message in request.messages]


def uncounted(response: Response) -> Response:
    """``response`` of a provider that does not say what was used."""
    return msgspec.structs.replace(response, usage=Usage())


def is_summary_request(request: ModelRequest) -> bool:
    return request.messages[-1].text == SMALL.instructions


async def test_before_it_gets_too_long_the_older_part_is_summed_up() -> None:
    model = ScriptedModel("They said bla.", "Hello.")
    session = Session(messages=talk(5))

    watched = await watch(Agent(model, compaction=SMALL), "go", session=session)

    asked, answered = model.requests
    assert is_summary_request(asked)
    assert (asked.tools, asked.output) == ((), None)
    assert answered.messages[0].text.endswith("summed up by yourself:\n\nThey said bla.")
    assert texts(answered)[1:] == [talk(5)[-1].text[:40], "go"]
    assert watched.outcome.output == "Hello."
    # The session has everything, and nothing else.
    assert watched.messages == (*talk(5), *watched.outcome.messages)
    [started] = of(watched.events, CompactionStarted)
    [finished] = of(watched.events, CompactionFinished)
    assert (started.reason, finished.problem, finished.first_kept) == ("threshold", "", 9)
    assert finished.tokens < 400 < started.tokens
    # What the model says to sum up is told to nobody.
    assert "".join(event.text for event in of(watched.events, TextDelta)) == "Hello."


async def test_a_short_conversation_is_left_alone() -> None:
    model = ScriptedModel("Hello.")

    watched = await watch(Agent(model, compaction=SMALL), session=Session(messages=talk(2)))

    assert of(watched.events, CompactionStarted) == []


async def test_the_next_stream_starts_from_the_summary() -> None:
    session = Session(messages=talk(5))
    await Agent(ScriptedModel("Sum.", "Hello."), compaction=SMALL).run("go", session=session)
    model = ScriptedModel("Again.")

    await Agent(model, compaction=SMALL).run("and?", session=session)

    assert [text[:8] for text in texts(model.requests[0])] == ["This con", "answer 4", "go", "Hello.", "and?"]


async def test_a_summary_is_summed_up_with_what_came_after_it() -> None:
    session = Session(messages=talk(5))
    await Agent(ScriptedModel("First sum.", "Hello."), compaction=SMALL).run("go", session=session)
    model = ScriptedModel("Second sum.", "Hello.")

    await Agent(model, compaction=SMALL).run("x " * 2000, session=session)

    assert "First sum." in model.requests[0].messages[0].text
    assert "Second sum." in model.requests[1].messages[0].text
    assert "First sum." not in model.requests[1].messages[0].text


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_it_is_done_in_the_middle_of_a_run_and_in_children(depth: int) -> None:
    @tool
    async def read() -> str:
        return "bla " * 150

    asked: list[ModelRequest] = []

    def respond(request: ModelRequest) -> Response:
        asked.append(request)
        if is_summary_request(request):
            return uncounted(says("Sum."))
        return uncounted(says("Done.") if len(asked) > 9 else calls("read"))

    agent = Agent(
        FunctionModel(respond), tools=[read], name="inner", compaction=SMALL, limits=Limits(identical_turns=100)
    )
    watched = await watch(nested(agent, depth))

    assert watched.outcome.reason == "completed"
    assert of(watched.events, CompactionFinished, depth=depth)
    assert all(problems(request.messages) == [] for request in asked)
    assert max(sum(map(estimate, request.messages)) for request in asked) < 1000


async def test_old_long_results_go_first() -> None:
    @tool
    async def read() -> str:
        return "bla " * 300

    model = ScriptedModel(*[uncounted(calls("read")) for _ in range(3)], "Done.")
    agent = Agent(model, tools=[read], compaction=Compaction(window=1000, threshold=0.8, result_tokens=50))

    watched = await watch(agent)

    [finished] = of(watched.events, CompactionFinished)
    assert (finished.summary, finished.first_kept) == ("", 0)
    shown = [message.text for message in model.requests[-1].messages if isinstance(message, ToolResult)]
    assert shown == [ELIDED, ELIDED, "bla " * 300]
    assert [len(message.text) for message in watched.messages if isinstance(message, ToolResult)] == [1200] * 3


async def test_what_the_provider_counts_is_what_counts() -> None:
    counted = Usage(input_tokens=900, output_tokens=50)

    @tool
    async def look() -> str:
        return "short"

    first_response = Response((ToolCall("", "look", "{}"),), "tool_calls", counted)
    model = ScriptedModel(first_response, "Sum.", "Done.")

    watched = await watch(Agent(model, tools=[look], compaction=Compaction(window=1000, keep_recent=0.001)))

    [started] = of(watched.events, CompactionStarted)
    assert 950 < started.tokens < 1000


# ------------------------------------------------------------------------------ overflow


async def test_a_request_that_was_refused_as_too_long_is_made_again_with_less() -> None:
    model = ScriptedModel(fails(OVERFLOW), "Sum.", "Hello.")
    session = Session(messages=talk(3))

    watched = await watch(Agent(model, compaction=Compaction(window=100_000)), session=session)

    assert watched.outcome.output == "Hello."
    assert len(of(watched.events, ResponseDiscarded)) == 1
    [started] = of(watched.events, CompactionStarted)
    assert started.reason == "overflow"
    assert len(model.requests[2].messages) < len(model.requests[0].messages)


async def test_a_model_that_had_too_much_to_read_is_not_replaced_where_there_can_be_less() -> None:
    @tool
    async def look() -> str:
        return "x"

    one = ScriptedModel(fails(OVERFLOW), "Sum.", calls("look"), "One.", name="one")
    two = ScriptedModel("never", name="two")
    agent = Agent(one, fallbacks=[two], tools=[look], compaction=Compaction(window=100_000))

    watched = await watch(agent, session=Session(messages=talk(3)))

    assert watched.outcome.output == "One."
    assert two.requests == []


async def test_where_nothing_can_be_left_out_another_model_is_asked() -> None:
    one, two = ScriptedModel(fails(OVERFLOW), name="one"), ScriptedModel("Two.", name="two")

    watched = await watch(Agent(one, fallbacks=[two], compaction=SMALL))

    assert watched.outcome.output == "Two."


async def test_a_limit_of_requests_counts_the_one_for_a_summary() -> None:
    model = ScriptedModel("Hello.")

    watched = await watch(Agent(model, compaction=SMALL, limits=Limits(requests=1)), session=Session(messages=talk(5)))

    assert watched.outcome.output == "Hello."
    assert len(model.requests) == 1
    [finished] = of(watched.events, CompactionFinished)
    assert finished.problem == "a limit leaves no request for it (requests: 1 of 1 used)"


async def test_no_other_model_is_asked_where_the_tries_for_a_summary_have_used_up_the_limit_of_requests() -> None:
    model, fallback = ScriptedModel(*[fails(OVERFLOW)] * 9), ScriptedModel("never")
    agent = Agent(model, fallbacks=[fallback], compaction=Compaction(window=100_000), limits=Limits(requests=2))

    watched = await watch(agent, session=Session(messages=talk(3)))

    assert watched.error is OVERFLOW
    assert len(model.requests) + len(fallback.requests) == 2


async def test_a_model_that_refuses_every_request_as_too_long_is_given_up_soon() -> None:
    model = ScriptedModel(fails(OVERFLOW), "Sum.", fails(OVERFLOW))

    watched = await watch(Agent(model, compaction=Compaction(window=100_000)), session=Session(messages=talk(3)))

    assert watched.error is OVERFLOW
    assert len(model.requests) <= 8


async def test_after_an_answer_another_overflow_is_recovered_from() -> None:
    @tool
    async def look() -> str:
        return "bla " * 1000

    model = ScriptedModel(
        fails(OVERFLOW), "Sum.", calls("look") + says("x " * 1000), fails(OVERFLOW), "Sum again.", "Done."
    )

    watched = await watch(
        Agent(model, tools=[look], compaction=Compaction(window=2000, keep_recent=0.1)),
        session=Session(messages=talk(3)),
    )

    assert watched.outcome.output == "Done."
    assert len(of(watched.events, CompactionFinished)) == 2


async def test_without_compaction_an_overflow_is_the_end() -> None:
    model = ScriptedModel(fails(OVERFLOW), "never")

    assert (await watch(Agent(model), session=Session(messages=talk(3)))).error is OVERFLOW


async def test_where_nothing_can_be_left_out_an_overflow_is_the_end() -> None:
    model = ScriptedModel(fails(OVERFLOW), "never")

    error = (await watch(Agent(model, compaction=SMALL))).error

    assert isinstance(error, PromptTooLongError)
    assert error.__cause__ is OVERFLOW


# ------------------------------------------------------- more than the window


def of_a_window(tokens: int, asked: list[ModelRequest]) -> FunctionModel:
    """A model that refuses requests longer than ``tokens``, and calls `read` four times for a prompt "Read all."."""

    def respond(request: ModelRequest) -> Response:
        if sum(len(message.text) // 4 for message in request.messages) > tokens:
            raise OVERFLOW
        asked.append(request)
        if request.messages[-1].text != "Read all.":
            return uncounted(says("fine"))
        return uncounted(calls("read", page=1) + calls("read", page=2) + calls("read", page=3) + calls("read", page=4))

    return FunctionModel(respond)


@pytest.mark.parametrize("window", [2000, 4000], ids=["known window", "smaller window than said"])
async def test_a_session_longer_than_the_window_is_summed_up_without_its_oldest_part(window: int) -> None:
    asked: list[ModelRequest] = []
    agent = Agent(of_a_window(2000, asked), compaction=Compaction(window=window))

    watched = await watch(agent, session=Session(messages=talk(40)))

    assert watched.outcome.output == "fine"
    assert all(problems(request.messages) == [] for request in asked)


async def test_a_prompt_that_alone_is_too_long_is_refused_and_the_next_prompt_is_answered() -> None:
    session = Session(messages=talk(1))
    agent = Agent(of_a_window(2000, []), compaction=Compaction(window=2000))

    with pytest.raises(ModelContextOverflowError):
        await agent.run("x" * 12_000, session=session)

    assert (await agent.run("Never mind.", session=session)).output == "fine"


async def test_results_longer_than_the_window_together_are_shown_in_part_and_can_be_read() -> None:
    @tool
    async def read(page: int) -> str:
        return f"page {page} " + "x" * 4000

    asked: list[ModelRequest] = []
    agent = Agent(of_a_window(2000, asked), tools=[read], compaction=Compaction(window=2000))

    watched = await watch(agent, "Read all.")

    assert watched.outcome.output == "fine"
    shown = [message.text for message in asked[-1].messages if isinstance(message, ToolResult)]
    assert [text[:6] for text in shown] == ["page 1", "page 2", "page 3", "page 4"]
    assert all("read_result(call_id=" in text for text in shown)
    assert "read_result" in [spec.name for spec in asked[-1].tools]
    assert [len(message.text) for message in watched.messages if isinstance(message, ToolResult)] == [4007] * 4


# ------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    "broken", [fails(ModelConnectionError("gone")), says(""), says("  ")], ids=["fails", "says nothing", "says blanks"]
)
async def test_a_summary_that_fails_loses_nothing(broken: Response) -> None:
    model = ScriptedModel(broken, "Hello.")
    session = Session(messages=talk(5))

    agent = Agent(model, compaction=SMALL, retries=Retries(attempts=1))
    watched = await watch(agent, session=session)

    assert watched.outcome.output == "Hello."
    assert model.requests[1].messages == (*talk(5), user_message("go"))
    [finished] = of(watched.events, CompactionFinished)
    assert finished.problem
    assert [event.code for event in of(watched.events, WarningIssued)] == ["compaction_failed"]


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (Response((Text("The user wants"),), "length"), "cut off at the limit of tokens"),
        (Response((Text("I cannot help with that."),), "refusal"), "refused"),
        (Response((Text("The user"),), "paused"), "paused"),
        (says("Summary: ") + calls("look"), "called tools"),  # by an agent without tools
        (says("S" * 40_000), "no shorter"),
    ],
    ids=["cut off", "a refusal", "paused", "with calls", "longer than the messages"],
)
async def test_a_summary_that_is_not_whole_or_not_shorter_replaces_nothing(response: Response, problem: str) -> None:
    model = ScriptedModel(response, "Hello.")

    watched = await watch(Agent(model, compaction=SMALL), session=Session(messages=talk(5)))

    assert watched.outcome.output == "Hello."
    assert model.requests[1].messages == (*talk(5), user_message("go"))
    [finished] = of(watched.events, CompactionFinished)
    assert problem in finished.problem


async def test_after_two_failed_summaries_compaction_rests_until_a_request_is_refused_as_too_long() -> None:
    session = Session(messages=talk(5))
    model = ScriptedModel("", "One.", "", "Two.", "Three.", fails(OVERFLOW), "Sum.", "Four.", "Sum again.", "Five.")
    agent = Agent(model, compaction=SMALL)

    outputs = [(await agent.run("go", session=session)).output for _ in range(4)]
    await agent.run("x " * 2000, session=session)

    # The summary that succeeded has ended the rest.
    assert outputs == ["One.", "Two.", "Three.", "Four."]
    assert [is_summary_request(request) for request in model.requests] == [
        *(True, False, True, False),
        False,
        *(False, True, False),
        *(True, False),
    ]


async def test_a_stream_that_is_stopped_in_the_middle_of_it_changes_nothing() -> None:
    session = Session(messages=talk(5))

    async with opened(Agent(ScriptedModel(says("They") + hangs()), compaction=SMALL), session=session) as stream:
        await first(stream, CompactionStarted)
        stream.stop()
        told = [event async for event in stream]
        assert session._transcript.shown.is_plain

    [finished] = of(told, CompactionFinished)
    assert finished.problem == "it was cut off"


async def test_what_it_uses_counts() -> None:
    model = ScriptedModel("Sum.", "Hello.")
    prices = {"scripted": Price(1_000_000, 0)}

    watched = await watch(Agent(model, compaction=SMALL, prices=prices), session=Session(messages=talk(5)))

    assert watched.outcome.usage.requests == 2
    assert watched.outcome.usage.cost == 20
    assert watched.stream._run.meter.requests == 2


async def test_a_summary_is_requested_with_the_retries_and_fallbacks_of_a_turn() -> None:
    refused = fails(ModelStatusError(model="one", status=400, body="no"))
    one = ScriptedModel(fails(ModelConnectionError("gone")), refused, name="one")
    two = ScriptedModel("Sum.", "Hello.", name="two")
    agent = Agent(one, fallbacks=[two], compaction=SMALL, retries=Retries(delay=0, attempts=2))

    watched = await watch(agent, session=Session(messages=talk(5)))

    assert (len(one.requests), len(two.requests)) == (2, 2)
    assert watched.outcome.output == "Hello."
    assert [event.next_model for event in of(watched.events, ResponseDiscarded)] == ["one", "two"]
    [finished] = of(watched.events, CompactionFinished)
    assert finished.summary.endswith("Sum.")


async def test_the_request_for_a_summary_offers_the_tools_and_drops_settings_that_shape_the_answer() -> None:
    @tool
    async def look() -> str:
        return "x"

    settings = ModelSettings(max_tokens=7, stop=("x",), tool_choice="auto", temperature=0.5)
    model = ScriptedModel("Sum.", '{"a": 1}')
    agent = Agent(
        model, instructions="Be brief.", tools=[look], compaction=SMALL, settings=settings, output_type=dict[str, int]
    )

    await watch(agent, session=Session(messages=talk(5)))

    summary, answer = model.requests
    assert summary.settings == ModelSettings(tool_choice="none", temperature=0.5)
    assert (summary.instructions, summary.tools, summary.output) == (answer.instructions, answer.tools, None)
    assert answer.settings == settings
    assert answer.output is not None


async def test_the_usage_of_a_summary_is_reported_and_outlives_parking() -> None:
    @tool(requires_approval=True)
    async def pay() -> str:
        return "paid"

    model = ScriptedModel(Response((Text("Sum."),), usage=Usage(5000, 100)), calls("pay"))
    agent = Agent(model, tools=[pay], compaction=SMALL)
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            for turn in range(4):
                await Agent(ScriptedModel("bla " * 100)).run(f"{turn}" + "bla " * 100, session=session)
            parked = await agent.run("go", session=session, on_question="park")
        async with stored_session(store, "s") as session:
            answers = {question.id: Approve() for question in session.questions}
            again = Agent(ScriptedModel("done"), tools=[pay], compaction=Compaction(window=100_000))
            resumed = await again.resume(session, answers)

    assert parked.usage.requests == 2
    assert resumed.usage.requests == 3
    assert resumed.usage.input_tokens >= parked.usage.input_tokens >= 5000


async def test_the_usage_of_a_message_has_its_cost_and_its_request() -> None:
    seen: list[Usage] = []
    ledger = hooks.after_llm_call(lambda value: seen.append(value.message.usage))
    agent = Agent(ScriptedModel("Hello."), prices={"scripted": Price(1_000_000, 0)}, hooks=[ledger])

    watched = await watch(agent)

    [message] = [message for message in watched.messages if isinstance(message, AssistantMessage)]
    assert message.usage == seen[0] == watched.outcome.usage
    assert (message.usage.cost, message.usage.requests) == (10, 1)


# --------------------------------------------------------------------------------- hooks


async def test_hooks_may_refuse_a_compaction_and_are_notified_after_it() -> None:
    seen: list[Any] = []
    before = hooks.pre_compact(lambda value: seen.append(value))  # noqa: PLW0108 - it is to return None
    after = hooks.post_compact(lambda value: seen.append(value))  # noqa: PLW0108

    await watch(
        Agent(ScriptedModel("Sum.", "Hello."), compaction=SMALL, hooks=[before, after]),
        session=Session(messages=talk(5)),
    )

    assert [type(value) for value in seen] == [PreCompact, PostCompact]
    assert seen[0].reason == "threshold"
    assert "Sum." in seen[1].summary


async def test_a_hook_may_refuse_a_compaction_and_the_run_continues() -> None:
    @hooks.pre_compact
    def refuse(value: PreCompact) -> Block:
        return Block("not now")

    model = ScriptedModel("Hello.")
    watched = await watch(Agent(model, compaction=SMALL, hooks=[refuse]), session=Session(messages=talk(5)))

    assert watched.outcome.output == "Hello."
    assert of(watched.events, CompactionStarted) == []
    assert [event.message for event in of(watched.events, WarningIssued)] == ["no room is made: not now"]


async def test_what_hooks_take_out_of_requests_is_not_in_that_for_a_summary_either() -> None:
    @hooks.before_llm_call
    def redact(call: hooks.BeforeLLMCall) -> ReplaceMessages:
        def clean(message: Message) -> Message:
            if not isinstance(message, UserMessage):
                return message
            return user_message(message.text.replace("question", "QUESTION"))

        return ReplaceMessages([clean(message) for message in call.request.messages])

    model = ScriptedModel(fails(OVERFLOW), "Sum.", "Hello.")
    await watch(Agent(model, compaction=Compaction(window=100_000), hooks=[redact]), session=Session(messages=talk(3)))

    assert len(model.requests) == 3
    for request in model.requests:
        assert not any("question" in text for text in texts(request))


async def test_the_hooks_around_a_model_call_see_the_request_for_a_summary_and_its_response() -> None:
    asked: list[str] = []
    responses: list[tuple[str, str]] = []

    @hooks.before_llm_call
    def before(call: hooks.BeforeLLMCall) -> None:
        asked.append(call.purpose)

    @hooks.after_llm_call
    def after(call: hooks.AfterLLMCall) -> None:
        responses.append((call.purpose, call.message.text))

    agent = Agent(ScriptedModel("They said bla.", "Hello."), compaction=SMALL, hooks=[before, after])
    await watch(agent, session=Session(messages=talk(5)))

    assert asked == ["summary", "turn"]
    assert responses == [("summary", "They said bla."), ("turn", "Hello.")]


async def test_a_hook_that_refuses_the_request_for_a_summary_does_not_end_the_run() -> None:
    @hooks.before_llm_call
    def refuse(call: hooks.BeforeLLMCall) -> Block | None:
        return Block("not now") if call.purpose == "summary" else None

    model = ScriptedModel("Hello.")
    watched = await watch(Agent(model, compaction=SMALL, hooks=[refuse]), session=Session(messages=talk(5)))

    assert watched.outcome.output == "Hello."
    assert [event.problem for event in of(watched.events, CompactionFinished)] == ["not now"]


async def test_a_request_that_was_shortened_goes_out_only_if_the_limit_leaves_one() -> None:
    model = ScriptedModel(fails(OVERFLOW), "Sum.", "Hello.")
    agent = Agent(model, compaction=Compaction(window=100_000), limits=Limits(requests=2))

    watched = await watch(agent, session=Session(messages=talk(3)))

    assert len(model.requests) == 2
    assert isinstance(watched.error, ModelContextOverflowError)
    assert any("requests: 2 of 2 used" in note for note in watched.error.__notes__)


# ----------------------------------------------------------------------------- decisions

A_TURN = st.builds(
    lambda prompt, results, answer: [
        user_message("x" * prompt + "?"),
        *([AssistantMessage(tuple(ToolCall(f"c{n}", "read", "{}") for n in range(len(results))))] if results else []),
        *(ToolResult(f"c{n}", "read", (Text("y" * size + "."),)) for n, size in enumerate(results)),
        AssistantMessage((Text("z" * answer + "."),)),
    ],
    st.integers(0, 3000),
    st.lists(st.integers(0, 5000), max_size=3),
    st.integers(0, 3000),
)


@given(st.lists(A_TURN, max_size=8), st.integers(0, 2), st.booleans())
def test_a_compacted_view_is_a_transcript_that_a_provider_accepts(
    turns: list[list[Message]], rounds: int, overflow: bool
) -> None:
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        for message in turn:
            # Call ids are unique within a session.
            if isinstance(message, ToolResult):
                message = ToolResult(f"{number}{message.call_id}", message.name, message.parts)  # noqa: PLW2901
            elif isinstance(message, AssistantMessage) and message.calls:
                message = AssistantMessage(  # noqa: PLW2901
                    tuple(ToolCall(f"{number}{call.id}", call.name, call.arguments) for call in message.calls)
                )
            messages.append(message)
    view = View()
    for _ in range(rounds + 1):
        used = sum(map(estimate, view.shown(messages)))
        found = plan(messages, view, used, SMALL, overflow=overflow)
        if found is None:
            break
        if found.first_kept is None:
            assert found.elided
            view.elide(found.elided)
        else:
            assert view.first_kept < found.first_kept < len(messages)
            view.summarize("Sum.", found.first_kept)
        shown = view.shown(messages)
        assert problems(shown) == []
        assert sum(map(estimate, shown)) < used or found.first_kept is not None
        # The last word stands.
        assert shown[-1] == messages[-1]


def test_pictures_count() -> None:
    assert estimate(UserMessage((Image(b"x"),))) > 1000


@pytest.mark.parametrize(
    "wrong",
    [{"window": 0}, {"window": "big"}, {"window": 1000, "keep_recent": 0.9}, {"window": 1000, "result_tokens": 0}],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"Compaction\("):
        Compaction(**wrong)
    with pytest.raises(UsageError, match="compaction= takes True, False or Compaction"):
        Agent(ScriptedModel(), compaction=1000)  # type: ignore[arg-type]


async def test_a_prompt_is_not_summed_up_because_a_report_follows_it() -> None:
    """As in the first turn of a run that is told what became of the background runs of the one before."""
    report = UserMessage((Text("researcher-1 has ended."),), reports=("researcher-1",))
    before: list[Message] = [user_message("word " * 3000), AssistantMessage((Text("word " * 3000),))]
    session = Session(messages=[*before, user_message("Is it well?"), report])
    model = ScriptedModel("They said word.", "Well.")
    agent = Agent(model, compaction=Compaction(window=6_000, keep_recent=0.001))

    await agent.run(None, session=session)

    assert model.requests[-1].messages[-2:] == (user_message("Is it well?"), report)
