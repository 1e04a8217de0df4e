"""Models without a network: they do what their script says, as a real model would, and say when it did not fit."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentloop import Agent, tool
from agentloop.errors import ModelError, ModelStatusError, ScriptError
from agentloop.events import ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta, UsageReported
from agentloop.messages import AssistantMessage, Reasoning, StopReason, Text, ToolCall, Usage, user_message
from agentloop.models import ModelRequest, Stop
from agentloop.testing import FunctionModel, Response, ScriptedModel, calls, fails, hangs, says, thinks
from tests.support import of, opened, watch


@tool
async def add(a: int = 1, b: int = 2) -> int:
    return a + b


class Pieces:
    """A reply that keeps what it gets."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thoughts: list[tuple[str, str | None]] = []
        self.calls: list[tuple[int, str, str, str]] = []

    async def text(self, text: str, /) -> None:
        self.texts.append(text)

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        self.thoughts.append((text, signature))

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        self.calls.append((index, id, name, arguments))

    def report_usage(self, usage: Usage, /) -> None:
        pass


REQUEST = ModelRequest((user_message("go"),))


async def given(response: Response | str) -> tuple[Pieces, Stop]:
    pieces = Pieces()
    return pieces, await ScriptedModel(response).respond(REQUEST, pieces)


def last(messages: tuple[Any, ...]) -> AssistantMessage:
    assert isinstance(messages[-1], AssistantMessage)
    return messages[-1]


# ---------------------------------------------------------------------------------- responses


async def test_text_is_streamed_word_by_word() -> None:
    pieces, stop = await given(says("It is 5."))

    assert pieces.texts == ["It ", "is ", "5."]
    assert stop.reason == "end"


@pytest.mark.parametrize(("piece", "texts"), [(1, ["a", " ", "b"]), (2, ["a ", "b"]), (99, ["a b"])])
async def test_text_is_streamed_in_pieces_of_the_given_size(piece: int, texts: list[str]) -> None:
    pieces, _ = await given(says("a b", piece=piece))

    assert pieces.texts == texts


@pytest.mark.parametrize("text", ["", " ", "a  b ", "\n one\n two"])
async def test_the_words_make_up_the_text_again(text: str) -> None:
    pieces, _ = await given(says(text))

    assert "".join(pieces.texts) == text


async def test_a_string_is_a_response_of_text() -> None:
    pieces, _ = await given("It is 5.")

    assert pieces.texts == ["It ", "is ", "5."]


@pytest.mark.parametrize("reason", ["end", "length", "refusal"])
async def test_a_response_ends_as_the_script_says(reason: StopReason) -> None:
    _, stop = await given(says("Hm.", stop=reason))

    assert stop.reason == reason


async def test_a_call_is_streamed_as_its_name_and_then_its_arguments() -> None:
    pieces, stop = await given(calls("add", id="x", a=2, b=3))

    assert pieces.calls == [(0, "x", "add", ""), (0, "", "", '{"a":2,"b":3}')]
    assert stop.reason == "tool_calls"


async def test_the_arguments_of_a_call_may_be_no_json() -> None:
    pieces, _ = await given(calls("add", raw='{"a": '))

    assert pieces.calls[-1] == (0, "", "", '{"a": ')


async def test_a_call_without_arguments_sends_an_empty_object() -> None:
    pieces, _ = await given(calls("add"))

    assert pieces.calls[-1] == (0, "", "", "{}")


async def test_reasoning_is_streamed_word_by_word() -> None:
    pieces, _ = await given(thinks("Let me see."))

    assert pieces.thoughts == [("Let ", None), ("me ", None), ("see.", None)]


async def test_a_signature_comes_after_the_reasoning_that_it_signs() -> None:
    pieces, _ = await given(Response((Reasoning("Hm.", "signed"),)))

    assert pieces.thoughts == [("Hm.", None), ("", "signed")]


async def test_responses_are_joined_with_plus() -> None:
    pieces, stop = await given(thinks("Hm. ") + says("Let me look. ") + calls("add", a=1) + calls("add", a=2))

    assert (len(pieces.thoughts), "".join(pieces.texts)) == (2, "Let me look. ")
    assert [(index, name) for index, _, name, _ in pieces.calls if name] == [(0, "add"), (1, "add")]
    assert stop.reason == "tool_calls"


def test_joining_keeps_how_each_part_ends() -> None:
    error = ValueError("gone")

    assert (says("a") + fails(error)).error is error
    assert (says("a") + hangs()).hangs
    assert (says("a") + says("b", stop="length")).stop == "length"
    assert (says("a", piece=3) + says("b")).piece == 3


async def test_a_response_uses_some_tokens_or_what_it_says() -> None:
    _, stop = await given("Hi.")
    _, other = await given(Response((Text("Hi."),), usage=Usage(input_tokens=7)))

    assert (stop.usage, other.usage) == (Usage(input_tokens=10, output_tokens=5), Usage(input_tokens=7))


async def test_a_response_fails_after_what_it_has_said() -> None:
    pieces = Pieces()
    with pytest.raises(ValueError, match="gone"):
        await ScriptedModel(says("a b") + fails(ValueError("gone"))).respond(REQUEST, pieces)

    assert pieces.texts == ["a ", "b"]


async def test_a_response_that_hangs_hangs_after_what_it_has_said() -> None:
    pieces = Pieces()
    with trio.move_on_after(5) as scope:
        await ScriptedModel(says("a b") + hangs()).respond(REQUEST, pieces)

    assert (pieces.texts, scope.cancelled_caught) == (["a ", "b"], True)


async def test_a_response_is_a_checkpoint() -> None:
    """Or tests would hold of a model that cannot be cancelled."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await ScriptedModel(Response()).respond(REQUEST, Pieces())

    assert scope.cancelled_caught


# ------------------------------------------------------------------------------ ScriptedModel


async def test_a_script_is_played_in_order() -> None:
    model = ScriptedModel("One.", "Two.")
    agent = Agent(model)

    assert [(await agent.run("go")).output for _ in range(2)] == ["One.", "Two."]


async def test_a_model_keeps_what_it_was_asked() -> None:
    model = ScriptedModel(calls("add"), "Done.")

    await Agent(model, tools=[add], instructions="Be brief.").run("go")

    assert [len(request.messages) for request in model.requests] == [1, 3]
    assert [request.instructions for request in model.requests] == ["Be brief."] * 2


async def test_a_script_that_is_too_short_says_what_it_was_asked_beyond_it() -> None:
    model = ScriptedModel(calls("add"), name="short")

    with pytest.raises(ScriptError, match="the script of model 'short' has 1 responses, but it was asked once"):
        await Agent(model, tools=[add]).run("go")


async def test_an_empty_script_has_nothing_to_say() -> None:
    with pytest.raises(ScriptError, match="has 0 responses"):
        await ScriptedModel(repeat=True).respond(REQUEST, Pieces())


async def test_a_script_may_begin_anew() -> None:
    agent = Agent(ScriptedModel("One.", "Two.", repeat=True))

    assert [(await agent.run("go")).output for _ in range(5)] == ["One.", "Two.", "One.", "Two.", "One."]


async def test_a_script_is_complete_when_every_response_was_asked_for() -> None:
    model = ScriptedModel("One.", "Two.")
    agent = Agent(model)
    await agent.run("go")

    with pytest.raises(ScriptError, match="1 of 2 responses of model 'scripted' were never asked for"):
        model.assert_complete()

    await agent.run("go")
    model.assert_complete()


async def test_a_response_that_was_cut_off_was_asked_for() -> None:
    model = ScriptedModel(hangs())

    async with opened(Agent(model)):
        await wait_all_tasks_blocked()

    model.assert_complete()


def test_a_model_has_a_name() -> None:
    assert (ScriptedModel().name, ScriptedModel(name="openai:gpt").name) == ("scripted", "openai:gpt")


async def test_a_script_plays_like_a_real_model_through_an_agent() -> None:
    script = thinks("Add. ") + says("Let me add. ") + calls("add", a=2, b=3)

    watched = await watch(Agent(ScriptedModel(script, "It is 5."), tools=[add]))

    def told(kind: type[StreamEvent]) -> str:
        return "".join(getattr(event, "text", getattr(event, "arguments", "")) for event in of(watched.events, kind))

    assert (told(ReasoningDelta), told(TextDelta)) == ("Add. ", "Let me add. It is 5.")
    assert told(ToolCallDelta) == '{"a":2,"b":3}'
    assert len(of(watched.events, UsageReported)) == 2
    assert last(watched.messages[:2]).parts == (
        Reasoning("Add. "),
        Text("Let me add. "),
        ToolCall("call_1_1_0", "add", '{"a":2,"b":3}'),
    )


async def test_the_message_is_the_same_however_it_is_cut_into_pieces() -> None:
    messages = []
    for piece in (0, 1, 2, 99):
        response = says("Let me add. ", piece=piece) + calls("add", a=2, b=3)
        watched = await watch(Agent(ScriptedModel(response, "It is 5."), tools=[add]))
        messages.append(watched.messages)

    assert messages.count(messages[0]) == 4


async def test_a_model_error_of_the_script_is_raised_as_it_is() -> None:
    error = ModelStatusError(model="m", status=500, body="")

    with pytest.raises(ModelStatusError) as caught:
        await Agent(ScriptedModel(fails(error))).run("go")

    assert caught.value is error


# ------------------------------------------------------------------------------ FunctionModel


async def test_a_function_makes_a_response_of_the_request() -> None:
    model = FunctionModel(lambda request: f"You said: {request.messages[-1].text}")

    assert (await Agent(model).run("Hello?")).output == "You said: Hello?"


async def test_a_function_may_give_any_response() -> None:
    def respond(request: ModelRequest) -> Response:
        return calls("add") if len(request.messages) == 1 else says("Done.")

    watched = await watch(Agent(FunctionModel(respond), tools=[add]))

    assert [getattr(message, "text", "") for message in watched.messages] == ["go", "", "3", "Done."]


async def test_a_function_may_be_async() -> None:
    async def respond(request: ModelRequest) -> str:
        await trio.sleep(5)
        return "Hi."

    assert (await Agent(FunctionModel(respond)).run("go")).output == "Hi."


async def test_a_function_that_waits_can_be_cancelled() -> None:
    async def respond(request: ModelRequest) -> str:
        await trio.sleep_forever()

    async with opened(Agent(FunctionModel(respond))) as stream:
        await wait_all_tasks_blocked()

    assert stream.outcome.reason == "cancelled"


async def test_a_function_that_raises_is_a_model_that_fails() -> None:
    def respond(request: ModelRequest) -> str:
        raise ValueError("gone")

    with pytest.raises(ModelError, match="model 'function' failed: ValueError: gone") as caught:
        await Agent(FunctionModel(respond)).run("go")

    assert isinstance(caught.value.__cause__, ValueError)


async def test_one_model_may_be_asked_many_times_at_once() -> None:
    outputs: list[object] = []

    async def run() -> None:
        outputs.append((await Agent(model).run("go")).output)

    async def respond(request: ModelRequest) -> str:
        await trio.sleep(1)
        return "Hi."

    model = FunctionModel(respond, name="shared")
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(run)

    assert outputs == ["Hi."] * 10
    assert trio.current_time() - began == pytest.approx(1)
