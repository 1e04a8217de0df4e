"""The front door: what is wrong with a definition is said at once, by name, with the way out; and the ways to run."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from agentloop import (
    Accept,
    Agent,
    AgentLoopError,
    Approve,
    Deadlines,
    File,
    Image,
    Limits,
    ModelSettings,
    RunInfo,
    Session,
    Text,
    Tool,
    ToolContext,
    UsageError,
    hooks,
    run_sync,
    tool,
)
from agentloop.config import AgentConfig
from agentloop.errors import ModelError, SessionBusyError, ToolDefinitionError
from agentloop.events import ApprovalRequested, ElicitationRequested, Question, StreamStarted
from agentloop.messages import AssistantMessage, ToolCall, ToolResult, UserMessage, user_message
from agentloop.questions import Answer
from agentloop.testing import FunctionModel, ScriptedModel, calls, fails, says
from tests.runtime.builders import agent_with, answering, only_result, results
from tests.support import of, watch


async def look(what: str = "sky") -> str:
    """Look at something.

    Args:
      what: a noun.
    """
    return f"the {what} is blue"


def agent(**options: Any) -> Agent:
    return Agent(ScriptedModel("Hi."), **options)


LOOK = tool(look)

# ------------------------------------------------------------------- wrong from the beginning


@pytest.mark.parametrize(
    ("make", "says_what"),
    [
        (lambda: Agent(None), "a model is a 'provider:model' name or an object with respond(), not None"),  # type: ignore[arg-type]
        (lambda: Agent(7), "or an object with respond(), not 7"),  # type: ignore[arg-type]
        (lambda: Agent(ScriptedModel), "ScriptedModel is a class: give an instance of it, ScriptedModel(...)"),  # type: ignore[arg-type]
        (lambda: agent(name=""), "an agent's name is some text, not ''"),
        (lambda: agent(name=7), "an agent's name is some text, not 7"),
        (lambda: agent(instructions=7), "instructions are text, or a function that gives it, not 7"),
        (lambda: agent(tools=look), "tools= takes a list, not <function look"),
        (lambda: agent(tools=LOOK), "tools= takes a list, not Tool(name='look'"),
        (lambda: agent(tools="look"), "tools= takes a list, not 'look': put it in brackets"),
        (lambda: agent(tools=None), "tools= takes a list, not None"),
        (lambda: agent(tools=[7]), "a tool is made of a function, not of 7"),
        (lambda: agent(tools=["look"]), "tools= takes functions, not their names: give the function look itself"),
        (lambda: agent(tools=[agent()]), "is an agent, not a tool: give its as_tool()"),
        (lambda: agent(tools=[look, look]), "two tools are called 'look': give one of them another name"),
        (lambda: agent(toolsets=7), "toolsets= takes a list, not 7"),
        (lambda: agent(hooks=hooks.stop(print)), "hooks= takes a list, not Hook(point='stop'"),
        (lambda: agent(hooks=[look]), "is not a hook: decorate it with a point, such as @hooks.pre_tool_use"),
        (lambda: agent(hooks=[hooks.stop]), "<hook point stop> is not a hook: decorate it with a point"),
        (lambda: agent(limits=7), "limits= takes Limits(...), not 7"),
        (lambda: agent(deadlines=Limits()), "deadlines= takes Deadlines(...), not Limits("),
        (lambda: agent(settings={"seed": 1}), "settings= takes ModelSettings(...), not {'seed': 1}"),
        (lambda: agent(output_type=complex), "the output type cannot be read from JSON: `complex` has no JSON form"),
        (lambda: agent(output_type=7), "the output type is of a type that cannot be read from JSON"),
        (lambda: agent(name="My agent").as_tool(), "a tool's name is 1 to 64 letters, digits, '_' and '-'"),
    ],
)
def test_an_agent_that_cannot_work_is_refused_when_it_is_made(make: Callable[[], Agent], says_what: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()

    assert says_what in str(caught.value)


def positional_only(what: str, /) -> str:
    return what


def any_number(*what: str) -> str:
    return "".join(what)


def any_names(**what: str) -> str:
    return "".join(what)


def no_annotation(what) -> str:  # type: ignore[no-untyped-def]
    return str(what)


def strange(what: complex) -> str:
    return str(what)


def nowhere(what: NotDefinedAnywhere) -> str:  # type: ignore[name-defined]  # noqa: F821
    return str(what)


def two_contexts(one: ToolContext[Any], two: ToolContext[Any]) -> str:
    return "both"


def generator(to: int) -> Generator[int]:
    yield from range(to)


@pytest.mark.parametrize(
    ("make", "says_what"),
    [
        (lambda: tool(positional_only), "parameter `what` of `positional_only` is positional-only"),
        (lambda: tool(any_number), "parameter `what` of `any_number` may be any number of arguments: name them"),
        (lambda: tool(any_names), "parameter `what` of `any_names` may be any number of arguments: name them"),
        (lambda: tool(no_annotation), "parameter `what` of `no_annotation` has no annotation"),
        (lambda: tool(lambda context: 1), "to send; or `context: ToolContext`, for that of the call"),
        (lambda: tool(strange), "parameter `what` of `strange` cannot be read from JSON: `complex` has no JSON form"),
        (lambda: tool(nowhere), "`NotDefinedAnywhere`, in its annotation 'NotDefinedAnywhere', cannot be found"),
        (lambda: tool(two_contexts), "`two_contexts` takes more than one context: `one`, `two`"),
        (lambda: tool(generator), "'generator' is a plain generator: make it an async one, or return a list"),
        (lambda: tool(partial(generator, 3)), "'generator' is a plain generator"),
        (lambda: tool(LOOK), "'look' is a tool already"),
        (lambda: tool(7), "a tool is made of a function, not of 7"),  # type: ignore[call-overload]
        (lambda: tool(name="look around")(look), "'_' and '-' (providers' rule): 'look around'"),
        (lambda: tool(name="x" * 65)(look), "1 to 64 letters"),
        (lambda: tool(timeout=0)(look), "tool 'look': timeout=0: give seconds above 0, math.inf for no limit"),
        (lambda: tool(timeout=math.nan)(look), "tool 'look': timeout=nan: give seconds above 0"),
        (lambda: tool(timeout="1")(look), "tool 'look': timeout='1': give seconds above 0"),  # type: ignore[call-overload]
        (lambda: tool(concurrency=0)(look), "tool 'look': concurrency=0: give a whole number above 0, or None"),
        (lambda: tool(concurrency=1.5)(look), "tool 'look': concurrency=1.5: give a whole number"),  # type: ignore[call-overload]
        (
            lambda: tool(requires_approval="yes")(look),  # type: ignore[call-overload]
            "tool 'look': requires_approval='yes': give True, False, or a function of the arguments",
        ),
    ],
)
def test_a_tool_that_cannot_work_is_refused_when_it_is_made(make: Callable[[], Tool], says_what: str) -> None:
    with pytest.raises(ToolDefinitionError) as caught:
        make()

    assert says_what in str(caught.value)


def test_a_misspelt_option_of_a_tool_is_refused() -> None:
    with pytest.raises(TypeError, match="timout"):
        tool(timout=3)(look)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("make", "says_what"),
    [
        (lambda: hooks.pre_tool_use("look*"), "a pre_tool_use hook is a function, not 'look*': options go by name"),  # type: ignore[call-overload]
        (lambda: hooks.stop()(7), "a stop hook is a function, not 7"),  # type: ignore[arg-type]
        (lambda: hooks.stop(timeout=0)(print), "timeout=0 of a stop hook: give seconds above 0, or None"),
        (lambda: hooks.stop(tools="look")(print), "tools='look' of a stop hook: only those around a tool call have it"),
    ],
)
def test_a_hook_that_cannot_work_is_refused_when_it_is_made(make: Callable[[], object], says_what: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()

    assert says_what in str(caught.value)


def orphan() -> ToolResult:
    return ToolResult("a", "look", (Text("blue"),))


@pytest.mark.parametrize(
    ("make", "says_what"),
    [
        (lambda: Session(7), "a session's id is some text, not 7"),  # type: ignore[arg-type]
        (lambda: Session(""), "a session's id is some text, not ''"),
        (lambda: Session([user_message("hi")]), "a transcript goes in as messages="),  # type: ignore[arg-type]
        (lambda: Session(messages=[orphan()]), "a result of call 'a' that no message before it asks for"),
        (
            lambda: Session(messages=[AssistantMessage((ToolCall("a", "look", "{}"),))]),
            "these messages are no valid transcript: the last message: call 'a' has no result",
        ),
    ],
)
def test_a_session_that_no_provider_would_take_is_refused(make: Callable[[], Session], says_what: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()

    assert says_what in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says_what"),
    [
        ({"on_question": "nobody"}, "on_question is 'reader', 'decline', 'park' or a function, not 'nobody'"),
        ({"on_question": None}, "not None"),
        ({"session": "s1"}, "a stream runs on a Session, not on 's1': session=Session(...)"),
    ],
)
async def test_a_stream_that_cannot_work_is_refused_before_anything_starts(
    options: dict[str, Any], says_what: str
) -> None:
    model = ScriptedModel("Hi.")

    with pytest.raises(UsageError) as caught:
        async with Agent(model).stream("go", **options):
            pass

    assert says_what in str(caught.value)
    assert model.requests == []


async def test_a_run_cannot_have_its_questions_answered_by_a_reader() -> None:
    """It would wait for ever."""
    with pytest.raises(UsageError, match=r"run\(\) has no reader who could answer"):
        await agent().run("go", on_question="reader")  # type: ignore[arg-type]


async def test_a_second_stream_on_a_session_is_refused_while_the_first_runs() -> None:
    session = Session("s1")
    async with agent().stream("go", session=session) as stream:
        with pytest.raises(SessionBusyError, match="session 's1' is busy with stream 's1/1'") as caught:
            await agent().run("go", session=session)

        assert (caught.value.session, caught.value.stream) == ("s1", stream.id)
    assert (await agent().run("go", session=session)).output == "Hi."


# ------------------------------------------------------------------------------------ prompts


PIXEL, PAGE = Image(b"\x89PNG"), File(url="https://example.org/page.pdf", name="page.pdf")


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("Hello?", (Text("Hello?"),)),
        (Text("Hello?"), (Text("Hello?"),)),
        (PIXEL, (PIXEL,)),
        (["What is this?", PIXEL, PAGE], (Text("What is this?"), PIXEL, PAGE)),
        (("One.", "Two."), (Text("One."), Text("Two."))),
        (UserMessage((Text("Hello?"), PIXEL)), (Text("Hello?"), PIXEL)),
        (["", PIXEL], (Text(""), PIXEL)),
    ],
    ids=["str", "text", "image", "list", "tuple", "message", "image with an empty text"],
)
async def test_a_prompt_is_text_or_parts(prompt: Any, parts: tuple[object, ...]) -> None:
    model = ScriptedModel("Hi.")

    watched = await watch(Agent(model), prompt)

    assert model.requests[0].messages[0] == watched.messages[0] == UserMessage(parts)  # type: ignore[arg-type]
    assert of(watched.events, StreamStarted)[0].message == UserMessage(parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("prompt", ["", " \n", [], [""], (), Text(""), UserMessage(())], ids=repr)
async def test_an_empty_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(UsageError, match="a prompt needs some text, an image or a file; this one is empty"):
        await agent().run(prompt)


@pytest.mark.parametrize(
    ("prompt", "says_what"),
    [
        (None, "but there are none: give a prompt"),
        (7, "not 7"),
        (b"Hello?", "a prompt is text, or a list of str, Text, Image and File, not b'Hello?'"),
        (["Hello?", 7], "a prompt is made of str, Text, Image and File, not int: 7"),
        ([ToolCall("a", "look", "{}")], "not ToolCall"),
        (UserMessage(("Hello?", 7)), "not int: 7"),  # type: ignore[arg-type]
    ],
    ids=repr,
)
async def test_a_prompt_of_anything_else_is_refused(prompt: Any, says_what: str) -> None:
    with pytest.raises(UsageError) as caught:
        await agent().run(prompt)

    assert says_what in str(caught.value)


@pytest.mark.parametrize("kind", [Image, File])
@pytest.mark.parametrize("given", [{}, {"data": b"x", "url": "https://example.org/x.png"}], ids=["neither", "both"])
def test_a_picture_or_file_is_given_by_value_or_by_reference(kind: Any, given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{kind.__name__} needs exactly one of data= and url="):
        kind(**given)


# ------------------------------------------------------------------------------ what an agent is


def test_an_agent_cannot_be_changed() -> None:
    made = agent()

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.name = "other"  # type: ignore[misc]


def test_replace_gives_a_changed_copy() -> None:
    model = ScriptedModel("Ho.")
    made = agent(name="one", instructions="Be brief.", tools=[look], limits=Limits(turns=3))

    changed = made.replace(model=model, name="two")

    assert (made.name, changed.name, changed.model) == ("one", "two", model)
    assert (changed.instructions, changed.limits) == ("Be brief.", Limits(turns=3))
    assert changed.tools == made.tools


def test_replace_checks_like_making_one_anew() -> None:
    with pytest.raises(UsageError, match="a tool is made of a function, not of 7"):
        agent().replace(tools=[7])


def test_replace_with_a_misspelt_name_is_refused() -> None:
    with pytest.raises(TypeError, match="nam"):
        agent().replace(nam="x")


def test_two_agents_are_the_same_only_if_they_are_one() -> None:
    model = ScriptedModel()

    assert Agent(model) != Agent(model)
    assert len({Agent(model), Agent(model)}) == 2


def test_an_agent_copies_the_lists_it_is_made_with() -> None:
    tools: list[Any] = [look]
    made = agent(tools=tools)
    tools.clear()

    assert len(made.tools) == 1


def test_the_repr_of_an_agent_is_short_and_tells_no_instructions() -> None:
    assert "secret" not in repr(agent(instructions="secret"))


def test_an_agent_is_a_config_that_can_run() -> None:
    assert isinstance(agent(), AgentConfig)


async def test_one_agent_runs_any_number_of_times_at_once() -> None:
    made = Agent(FunctionModel(lambda request: "Hi."))
    outputs: list[object] = []

    async def run() -> None:
        outputs.append((await made.run("go")).output)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(run)

    assert outputs == ["Hi."] * 20


async def test_the_model_gets_the_settings_as_they_are() -> None:
    model = ScriptedModel("Hi.")
    settings = ModelSettings(temperature=0.5, seed=7, stop=("STOP",))

    await Agent(model, settings=settings).run("go")

    assert model.requests[0].settings == settings


# ------------------------------------------------------------------------------- instructions


async def test_instructions_reach_the_model() -> None:
    model = ScriptedModel("Hi.")

    await Agent(model, instructions="Be brief.").run("go")

    assert model.requests[0].instructions == "Be brief."


async def test_instructions_that_fail_are_the_callers_fault_and_not_ours() -> None:
    def broken(info: RunInfo[None]) -> str:
        raise KeyError("city")

    watched = await watch(agent(name="guide", instructions=broken))

    assert isinstance(watched.error, UsageError)
    assert str(watched.error) == "the instructions of agent 'guide' failed: KeyError: 'city'"
    assert isinstance(watched.error.__cause__, KeyError)


async def test_instructions_that_are_no_text_are_refused() -> None:
    watched = await watch(agent(instructions=lambda info: 7))

    assert str(watched.error) == "the instructions of agent 'agent' are to be text, not 7"


async def test_instructions_have_a_time_limit() -> None:
    async def slow(info: RunInfo[None]) -> str:
        await trio.sleep_forever()

    watched = await watch(agent(instructions=slow, deadlines=Deadlines(hook=3)))

    assert isinstance(watched.error, UsageError)
    assert "took too long" in str(watched.error)


# ---------------------------------------------------------------------------------- as a tool


def test_an_agent_as_a_tool_takes_a_prompt_and_is_called_like_the_agent() -> None:
    made = agent(name="guide", instructions="You know Porto.").as_tool()

    assert (made.name, made.description, made.timeout) == ("guide", "You know Porto.", math.inf)
    assert made.spec.parameters["required"] == ["prompt"]
    assert [*made.spec.parameters["properties"]] == ["prompt"]


def test_an_agent_as_a_tool_can_be_described_otherwise() -> None:
    made = agent(name="My guide").as_tool(name="ask_guide", description="Ask about Porto.", timeout=9)

    assert (made.name, made.description, made.timeout) == ("ask_guide", "Ask about Porto.", 9)


@pytest.mark.parametrize("instructions", ["", lambda info: "You know Porto."], ids=["none", "a function"])
def test_an_agent_without_a_text_for_instructions_is_described_by_its_name(instructions: Any) -> None:
    assert agent(name="guide", instructions=instructions).as_tool().description == "Ask the agent guide."


async def test_an_agent_as_a_tool_gives_its_answer() -> None:
    guide = Agent(FunctionModel(lambda request: f"You said: {request.messages[0].text}"), name="guide")

    result = await only_result(agent_with(guide.as_tool(), response=calls("guide", prompt="Hello?")))

    assert (result.text, result.status) == ("You said: Hello?", "ok")


async def test_an_agent_as_a_tool_begins_anew_each_time() -> None:
    guide = ScriptedModel("One.", "Two.")
    made = agent_with(
        Agent(guide, name="guide").as_tool(), model=ScriptedModel(*[calls("guide", prompt="go")] * 2, "Done.")
    )

    await watch(made)

    assert [len(request.messages) for request in guide.requests] == [1, 1]


async def test_an_agent_as_a_tool_that_fails_is_an_error_that_the_outer_model_reads() -> None:
    guide = Agent(ScriptedModel(fails(ValueError("gone"))), name="guide")

    result = await only_result(agent_with(guide.as_tool(), response=calls("guide", prompt="Hello?")))

    assert result.text == "agent 'guide' gave no answer: model 'scripted' failed: ValueError: gone"


async def test_an_agent_as_a_tool_is_not_run_without_a_prompt() -> None:
    guide = ScriptedModel("never")

    result = await only_result(agent_with(Agent(guide, name="guide").as_tool(), response=calls("guide", prompt=" ")))

    assert "a prompt needs some text" in result.text
    assert guide.requests == []


async def test_an_agent_as_a_tool_takes_the_options_of_tools() -> None:
    guide = Agent(FunctionModel(lambda request: "Hi."), name="guide").as_tool(requires_approval=True, concurrency=1)
    response = calls("guide", prompt="a") + calls("guide", prompt="b")

    watched = await watch(agent_with(guide, response=response), on_event=answering(Approve()))

    assert len(of(watched.events, ApprovalRequested)) == 2
    assert [result.text for result in results(watched)] == ["Hi."] * 2


# ----------------------------------------------------------------------------------- run_sync


def test_run_sync_runs_an_agent_where_there_is_no_loop() -> None:
    outcome = run_sync(agent_with(look), "go")

    assert (outcome.output, outcome.messages[2].text) == ("Done.", "the sky is blue")


def test_run_sync_goes_on_with_a_session() -> None:
    session = Session()
    run_sync(agent(), "go", session=session)
    run_sync(agent(), "go on", session=session)

    assert [message.text for message in session.messages] == ["go", "Hi.", "go on", "Hi."]


def test_run_sync_takes_a_handler_and_deps() -> None:
    @tool
    async def ask(context: ToolContext[str]) -> str:
        answer = await context.ask(f"{context.deps}?")
        return type(answer).__name__

    async def accept(question: Question) -> Answer:
        assert isinstance(question, ElicitationRequested)
        assert question.message == "Sure?"
        return Accept()

    outcome = run_sync(agent_with(ask), "go", on_question=accept, deps="Sure")

    assert outcome.messages[2].text == "Accept"


def test_run_sync_raises_what_the_run_raises() -> None:
    with pytest.raises(ModelError, match="gone"):
        run_sync(Agent(ScriptedModel(fails(ValueError("gone")))), "go")


def test_run_sync_raises_an_interrupt_bare() -> None:
    def respond(request: object) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sync(Agent(FunctionModel(respond)), "go")


async def test_run_sync_inside_a_loop_says_what_to_do_instead() -> None:
    model = ScriptedModel("Hi.")

    with pytest.raises(UsageError, match=r"run_sync\(\) starts trio, which is running here already: `await agent.run"):
        run_sync(Agent(model), "go")
    assert model.requests == []


@pytest.mark.real_clock
async def test_run_sync_works_in_a_thread_beside_a_loop() -> None:
    outcome = await trio.to_thread.run_sync(run_sync, agent(), "go")

    assert outcome.output == "Hi."
    assert threading.current_thread() is threading.main_thread()


async def test_run_gives_the_same_as_reading_the_stream_to_its_end() -> None:
    def made() -> Agent:
        return agent_with(look, response=says("Let me see. ") + calls("look"))

    outcome = await made().run("go")
    watched = await watch(made())

    assert (outcome.output, outcome.usage, outcome.messages) == (
        watched.outcome.output,
        watched.outcome.usage,
        watched.outcome.messages,
    )


async def test_every_error_of_a_definition_can_be_caught_as_one_of_ours() -> None:
    with pytest.raises(AgentLoopError):
        agent(tools=[7])


def test_a_run_in_asyncio_is_refused_with_the_way_out() -> None:
    agent = Agent(ScriptedModel("Hello.", "Hello."))

    async def stream() -> None:
        async with agent.stream("Hi"):
            pass

    for attempt in (lambda: agent.run("Hi"), stream):
        with pytest.raises(UsageError, match=r"this is asyncio: write .* give it a thread"):
            asyncio.run(attempt())

    async def way_out() -> str:
        outcome = await asyncio.to_thread(run_sync, agent, "Hi")
        return str(outcome.output)

    assert asyncio.run(way_out()) == "Hello."
