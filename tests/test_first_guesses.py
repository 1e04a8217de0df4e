"""First guesses of newcomers work if they have one meaning, and are answered by a sentence that says what to write."""

from __future__ import annotations

import asyncio
import copy
import functools
import importlib
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

import agentloop.asyncio
from agentloop import Agent, Approve, Limits, ModelSettings, ToolContext, hooks, run_sync, tool
from agentloop._runtime.blocks import NamedBlock
from agentloop.errors import AgentLoopError, StreamStateError, UsageError
from agentloop.events import ApprovalRequested, ElicitationRequested, StreamStopped
from agentloop.mcp import McpServer
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.questions import Accept
from agentloop.stores import MemoryStore, SQLiteStore, export_session, follow_session, fork_session, stored_session
from agentloop.testing import ScriptedModel, calls, fails
from agentloop.toolkit import file_tools, shell
from tests.support import watch


# Most of these programs are type errors: the values are `Any` here, as in a program without a type checker.
def cases(*given: tuple[Any, str]) -> pytest.MarkDecorator:
    """A table of guesses and sentences; the ids are numbers, since most guesses are lambdas."""
    return pytest.mark.parametrize(
        ("guess", "sentence"), [pytest.param(*case, id=str(number)) for number, case in enumerate(given)]
    )


AGENT: Any = Agent(ScriptedModel("Hi.", repeat=True))


@tool(requires_approval=True)
async def act() -> str:
    """Act."""
    return "acted"


async def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


def with_(block: Any) -> None:
    with block:
        pass


async def async_with(block: Any) -> None:
    async with block:
        pass


async def awaited(value: Any) -> None:
    await value


async def read(stream: Any) -> None:
    async for _ in stream:
        pass


# ------------------------------------------------------------------------------------ blocks

STREAM = "agent.stream(...) opens a block: write `async with agent.stream(...) as stream:`"
SESSION = "stored_session(store, id) opens a block: write `async with stored_session(store, id) as session:`"
OPEN = "store.open() opens a block: write `async with store.open() as opened:`"


@cases(
    (lambda: read(AGENT.stream("x")), f"{STREAM}, and inside of it `async for event in stream:`"),
    (lambda: awaited(AGENT.stream("x")), f"{STREAM}; `await agent.run(...)` gives the outcome alone"),
    (lambda: with_(AGENT.stream("x")), STREAM),
    (lambda: iter(AGENT.stream("x")), STREAM),
    (lambda: AGENT.stream("x").result, "and inside of it `stream.result`"),
    (lambda: AGENT.stream("x").text(), "and inside of it `stream.text`"),
    (lambda: with_(stored_session(MemoryStore(), "s")), SESSION),  # type: ignore[arg-type]
    (lambda: awaited(stored_session(MemoryStore(), "s")), SESSION),  # type: ignore[arg-type]
    (lambda: awaited(MemoryStore().open()), OPEN),
    (lambda: with_(MemoryStore().open()), OPEN),
    (lambda: async_with(MemoryStore()), "a store is opened: write `async with MemoryStore(...).open() as store:`"),
    (lambda: with_(SQLiteStore("x")), "a store is opened: write `async with SQLiteStore(...).open() as store:`"),
    (lambda: async_with(AGENT.override(model="openai:x")), "this block is entered with `with`"),
)
async def test_a_block_that_is_used_in_another_way_says_how_it_is_entered(
    guess: Callable[[], object], sentence: str
) -> None:
    with pytest.raises((UsageError, AttributeError)) as raised:
        value = guess()
        if isinstance(value, Awaitable):
            await value

    assert sentence in str(raised.value)


async def test_a_block_is_entered_once() -> None:
    block = AGENT.stream("x")
    await async_with(block)

    with pytest.raises(UsageError, match=r"this block was entered before: call agent\.stream\(\.\.\.\) again"):
        await async_with(block)


def test_a_block_has_no_attributes_that_python_asks_for_itself() -> None:
    block = AGENT.stream("x")

    assert not hasattr(block, "__wrapped__")
    assert "async with agent.stream(...) as stream:" in repr(block)
    with pytest.raises(AttributeError):
        NamedBlock.__new__(NamedBlock).call  # noqa: B018 - as `copy` asks an object that is not made yet


@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        (MemoryStore(), "this MemoryStore is not open: write `async with MemoryStore(...).open() as store:`"),
        (MemoryStore().open(), "this store is not open yet: write `async with store.open() as opened:`"),
        ("chats.db", "a session is kept in an open store, not in a str: write `async with SQLiteStore("),
    ],
    ids=["store", "block", "path"],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda store: async_with(stored_session(store, "s")),
        lambda store: read(follow_session(store, "s")),
        lambda store: fork_session(store, "s"),
        lambda store: export_session(store, "s", "file"),
    ],
    ids=["session", "follow", "fork", "export"],
)
async def test_a_store_that_is_not_open_says_how_it_is_opened(
    use: Callable[[Any], Awaitable[None]], store: object, sentence: str
) -> None:
    with pytest.raises(UsageError) as raised:
        await use(store)

    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("session", "sentence"),
    [
        ("me", "a stream runs on a Session, not on 'me': session=Session(...) keeps it in memory, and stored_session"),
        (MemoryStore(), "a stream runs on a session, not on a store: session=stored_session(store, id), opened with"),
        (stored_session(MemoryStore(), "s"), "this session is not open yet: write `async with stored_session("),  # type: ignore[arg-type]
    ],
    ids=["id", "store", "block"],
)
async def test_what_is_no_session_is_refused(session: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        await AGENT.run("x", session=session)

    assert sentence in str(raised.value)


# ------------------------------------------------------------------------------------- streams


@cases(
    (iter, "a stream is read with `async for event in stream:`, not with `for`"),
    (awaited, "a stream is not awaited: `await stream.wait()` gives its outcome"),
    (async_with, "this stream is open already: read it with"),
    (with_, "this stream is open already: read it with"),
    (lambda stream: stream.stream_text, "write `async for text in stream.text():`"),
    (lambda stream: stream.final_output, "then take stream.result.output"),
    (lambda stream: stream.aclose, "leave the block, or call stream.stop()"),
)
async def test_a_stream_that_is_used_in_another_way_says_how_it_is_read(
    guess: Callable[[Any], object], sentence: str
) -> None:
    async with AGENT.stream("x") as stream:
        with pytest.raises((UsageError, AttributeError)) as raised:
            value = guess(stream)
            if isinstance(value, Awaitable):
                await value

    assert sentence in str(raised.value)


async def test_a_question_is_answered_by_its_event_as_well_as_by_its_id() -> None:
    @tool
    async def ask(context: ToolContext[None]) -> str:
        return str(await context.ask("Well?"))

    agent = Agent(ScriptedModel(calls("act") + calls("ask"), "Done."), tools=[act, ask])

    def answer(stream: Any, event: object) -> None:
        if isinstance(event, ApprovalRequested):
            stream.answer(event, Approve())
        elif isinstance(event, ElicitationRequested):
            stream.answer(event, Accept({}))

    watched = await watch(agent, on_event=answer)

    assert [message.status for message in watched.messages if isinstance(message, ToolResult)] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (True, "it wants Approve or Deny, not bool: write Approve()"),
        (Approve, "it wants Approve or Deny, not the class Approve: write Approve(...)"),
    ],
    ids=["bool", "class"],
)
async def test_an_answer_of_another_class_says_what_to_write(answer: Any, sentence: str) -> None:
    problems: list[str] = []

    def on_event(stream: Any, event: object) -> None:
        if isinstance(event, ApprovalRequested):
            with pytest.raises(AgentLoopError) as raised:
                stream.answer(event, answer)
            problems.append(str(raised.value))
            stream.answer(event, Approve())

    await watch(Agent(ScriptedModel(calls("act"), "Done."), tools=[act]), on_event=on_event)

    assert [problem.split("': ")[1] for problem in problems] == [sentence]


class Slow:
    """A model that takes its time between two deltas."""

    name = "slow"

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        for _ in range(3):
            await trio.sleep(0.01)
            await reply.text("x")
        return Stop()


READ_TWICE = "is read by another task already, and each event goes to one reader"


async def test_the_second_reader_of_a_stream_is_refused_and_the_first_goes_on() -> None:
    events: list[object] = []
    problems: list[str] = []

    async def reader(stream: Any) -> None:
        try:
            events.extend([event async for event in stream])
        except StreamStateError as error:
            problems.append(str(error))

    async with Agent(Slow()).stream("x") as stream, trio.open_nursery() as nursery:
        nursery.start_soon(reader, stream)
        nursery.start_soon(reader, stream)

    [problem] = problems
    assert READ_TWICE in problem
    assert stream.result.output == "xxx"
    assert isinstance(events[-1], StreamStopped)


async def test_a_stream_may_be_read_by_one_task_after_another_and_after_a_reader_was_cancelled() -> None:
    async with Agent(Slow()).stream("x") as stream:
        with trio.move_on_after(0.005):
            await read(stream)
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112  # another task than the one that began
            nursery.start_soon(read, stream)

    assert stream.result.output == "xxx"


def test_the_second_reader_of_a_stream_in_asyncio_is_refused() -> None:
    async def main() -> None:
        async with agentloop.asyncio.stream(Agent(Slow()), "x") as stream:
            with pytest.raises(StreamStateError, match=READ_TWICE):
                await asyncio.gather(read(stream), read(stream))

    asyncio.run(main())


# --------------------------------------------------------------------------------------- tools


class Thing:
    """An object with methods that may be tools.

    Args:
      name: how the object is made, which is no parameter of a tool.
    """

    def __init__(self, name: str = "x") -> None:
        self.name = name

    async def method(self, a: int) -> int:
        """Add one."""
        return a + 1

    @staticmethod
    async def static(a: int) -> int:
        """Add two."""
        return a + 2

    @classmethod
    async def of_class(cls, a: int) -> int:
        """Add three."""
        return a + 3

    async def __call__(self, a: int) -> int:
        """Add four."""
        return a + 4


@pytest.mark.parametrize(
    ("made", "result"),
    [
        (Thing().method, "2"),
        (tool(Thing().method), "2"),
        (Thing.static, "3"),
        (tool(staticmethod(Thing.static)), "3"),
        (Thing.of_class, "4"),
        (Thing(), "5"),
        (functools.partial(add, 5), "6"),
        (functools.partial(add, a=5), "6"),
        ([tool(Thing().method)], "2"),
    ],
    ids=["bound", "@tool bound", "static", "@tool static", "class", "object", "partial", "partial by name", "a list"],
)
async def test_anything_with_a_signature_is_a_tool(made: Any, result: str) -> None:
    agent = Agent(ScriptedModel(), tools=[made])
    [made_tool] = agent.tools
    arguments: dict[str, Any] = dict.fromkeys(made_tool.spec.parameters.get("required", []), 1)

    outcome = await agent.run("x", model=ScriptedModel(calls(made_tool.name, **arguments), "Done."))

    assert outcome.messages[2].text == result


METHOD = "is a method without its object: make a tool of the bound one, tool(thing.method)"


@pytest.mark.parametrize(
    ("tools", "sentence"),
    [
        ([Thing.method], f"`method` {METHOD}"),
        ([Thing], "Thing is a class, not a tool: give a function, or an instance that can be called"),
        ([shell], "shell() makes a tool, and was not called: give shell(...)"),
        ([file_tools], "file_tools() makes tools, and was not called: give *file_tools(...)"),
        ([McpServer.stdio("x")], "a McpServer is a toolset, not a tool: give it to toolsets="),
        ([McpServer.stdio], "McpServer.stdio() makes a toolset, and was not called: toolsets=[McpServer.stdio(...)]"),
        ([hooks.stop(print)], "'print' is a hook, not a tool: give it to hooks="),
        ([AGENT], "'agent' is an agent, not a tool: give its as_tool()"),
        (["add"], "tools= takes functions, not their names: give the function add itself, without quotes"),
        ([{"name": "add"}], "tools= takes functions, not schemas: Tool(..., arguments=JsonArguments(schema))"),
        ([tool(name="add")], "tool(...) with options is a decorator: write it over the function"),
        (act, "tools= takes a list, not Tool(name='act'"),
        ({"act": act}, "tools= takes a list, not a dict: give [*its.values()]"),
        (None, "tools= takes a list, not None: leave it out for none"),
    ],
    ids=range(14),
)
def test_what_is_no_tool_is_refused_with_the_way_to_one(tools: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        Agent(ScriptedModel(), tools=tools)

    assert sentence in str(raised.value)


def test_a_tool_that_was_called_is_refused_and_its_coroutine_closed() -> None:
    with pytest.raises(UsageError, match=r"tools= takes functions, and add\(\) was called here: give add itself"):
        Agent(ScriptedModel(), tools=[add(1)])  # type: ignore[list-item]


def test_tools_in_the_place_of_toolsets_are_refused() -> None:
    with pytest.raises(UsageError, match=r"tools go to tools=, as tools=\[\*these\]"):
        Agent(ScriptedModel(), toolsets=[file_tools(".")])  # type: ignore[list-item]


def test_a_class_method_is_no_tool_where_it_is_decorated() -> None:
    with pytest.raises(UsageError, match=r"make a tool of the bound one, tool\(X\.method\)"):
        tool(classmethod(lambda cls: None))  # type: ignore[call-overload]


def test_a_docstring_that_describes_another_parameter_is_refused() -> None:
    async def find(city: str, context: ToolContext[None]) -> str:
        """Find.

        Args:
          town: the town.
          context: not seen by the model.
          Note: this is no parameter.
        """
        return city

    with pytest.raises(UsageError) as raised:
        tool(find)

    sentence = "the docstring of `find` describes `town`, which is no parameter: it has city, context"
    assert str(raised.value) == sentence


# ------------------------------------------------------------------------- models and settings


class NoName:
    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        return Stop()


class Generator:
    name = "generator"

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Any:
        yield "Hi."


@cases(
    (lambda: fails("boom"), "fails() takes an exception, such as fails(ModelError('gone')), not 'boom'"),  # type: ignore[arg-type]
    (lambda: ScriptedModel(["a"]), "a script is of texts and responses, ScriptedModel('a', 'b'), not ['a']"),  # type: ignore[arg-type]
    (lambda: Agent(NoName()), "a model has a name, some text, not None: NoName.name"),  # type: ignore[arg-type]
    (lambda: Agent(Generator()), "write each delta with `await reply.text(...)`, and return a Stop"),
    (lambda: Agent(Slow), "Slow is a class: give an instance of it, Slow(...)"),  # type: ignore[arg-type]
    (lambda: Limits(turns=1.5), "Limits(turns=1.5): turns are counted, so give a whole number"),
    (lambda: Limits(tool_calls=2.5), "Limits(tool_calls=2.5): tool_calls are counted"),  # type: ignore[arg-type]
    (lambda: ModelSettings(temperature="hot"), "ModelSettings(temperature='hot'): give a number from 0 to 2"),  # type: ignore[arg-type]
    (lambda: Agent(Slow(), output_type=None), "output_type=None: leave it out for text, or give the type"),
    (lambda: Agent(Slow(), output_type=[int, str]), "for one of several types, write int | str"),  # type: ignore[arg-type]
    (lambda: Agent(Slow(), output_type="int"), "output_type='int': give the type itself, not its name"),
    (lambda: run_sync(AGENT, [{"role": "user", "content": "x"}]), "session=Session() has those before it"),  # type: ignore[list-item]
    (lambda: run_sync(AGENT, {"messages": []}), "session=Session() has those before it"),  # type: ignore[arg-type]
    (lambda: run_sync(AGENT, run_sync(AGENT, "x").messages), "session=Session() has those before it"),  # type: ignore[arg-type]
    (lambda: run_sync("x", AGENT), "run_sync() takes an agent, and then its prompt, not 'x'"),  # type: ignore[arg-type]
)
def test_a_wrong_value_is_refused_where_it_is_given(guess: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        guess()

    assert sentence in str(raised.value)


def test_limits_that_measure_need_no_whole_numbers() -> None:
    assert (Limits(seconds=1.5).seconds, Limits(cost=0.5).cost, Limits(turns=2.0).turns) == (1.5, 0.5, 2.0)


async def test_a_list_of_choices_is_no_form() -> None:
    @tool
    async def ask(context: ToolContext[None]) -> str:
        return str(await context.ask("Which?", ["a", "b"]))  # type: ignore[arg-type]

    outcome = await Agent(ScriptedModel(calls("ask"), "Done."), tools=[ask]).run("x")

    assert "for a choice give ask_for() a class with a field of type Literal[...]" in outcome.messages[2].text


# ------------------------------------------------------------------- users of other libraries


@cases(
    (lambda: AGENT.run_sync("x"), "'Agent' object has no attribute 'run_sync': write run_sync(agent, prompt)"),
    (lambda: AGENT.run_stream("x"), "write `async with agent.stream(prompt) as stream:`"),
    (lambda: AGENT.ainvoke("x"), "write `await agent.run(prompt)`"),
    (lambda: AGENT.tool(add), "write @tool over the function, and give it to Agent(tools=[...])"),
    (lambda: run_sync(AGENT, "x").final_output, "it is called `output` here"),  # type: ignore[attr-defined]
    (lambda: run_sync(AGENT, "x").all_messages(), "give each run the same session=Session()"),  # type: ignore[attr-defined]
    (lambda: AGENT.output_validator(add), "give it to Agent(output_validators=[...])"),
    (lambda: run_sync(AGENT, "x").final_output_as(str), "it is called `output` here"),  # type: ignore[attr-defined]
    (lambda: run_sync(AGENT, "x").interruptions, "they are in `questions`"),  # type: ignore[attr-defined]
    (lambda: [m.role for m in run_sync(AGENT, "x").messages], "UserMessage, AssistantMessage or ToolResult"),  # type: ignore[union-attr]
    (lambda: [m.content for m in run_sync(AGENT, "x").messages], "its text is `text`"),  # type: ignore[union-attr]
    (lambda: AGENT.nonsense, "'Agent' object has no attribute 'nonsense'"),
)
def test_a_name_from_another_library_is_answered_with_the_one_here(guess: Callable[[], object], sentence: str) -> None:
    with pytest.raises(AttributeError) as raised:
        guess()

    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"system_prompt": "x"}, "Agent(system_prompt=...): it is called instructions= here"),
        ({"context_type": str}, "it is called deps_type= here"),
        ({"mcp_servers": []}, "it is called toolsets= here"),
        ({"sub_agents": []}, "give tools=[other.as_tool()]"),
        ({"max_turns": 3}, "give limits=Limits(turns=...)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_an_option_from_another_library_is_answered_with_the_one_here(options: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        Agent(ScriptedModel(), **options)

    assert sentence in str(raised.value)


@cases(
    (lambda: run_sync(AGENT, "x", message_history=[]), "run_sync(message_history=...): a conversation is session="),  # type: ignore[call-arg]
    (lambda: AGENT.stream("x", context=1), "agent.stream(context=...): it is called deps= here"),
    (lambda: trio.run(functools.partial(AGENT.run, "x", max_turns=3)), "agent.replace(limits=Limits(turns=...))"),
    (lambda: tool(needs_approval=True), "tool(needs_approval=...): it is called requires_approval= here"),  # type: ignore[call-overload]
    (lambda: run_sync(AGENT, "x")["messages"], "outcome.messages has the messages"),  # type: ignore[index]
    (lambda: asyncio.run(agentloop.asyncio.run(AGENT, "x", context=1)), "it is called deps= here"),  # type: ignore[call-arg]
    (lambda: agentloop.asyncio.stream(AGENT, "x", thread_id="x"), "agentloop.stores.stored_session"),  # type: ignore[call-arg]
)
def test_an_option_of_a_run_or_a_tool_elsewhere_is_answered_as_well(guess: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        guess()

    assert sentence in str(raised.value)


@pytest.mark.parametrize("function", [Agent.run, Agent.stream, run_sync, tool, agentloop.asyncio.resume])
def test_an_option_that_no_library_has_is_the_error_of_python(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="nonsense"):
        asyncio.run(function(AGENT, "x", nonsense=1))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("RunContext", "write ToolContext for a tool, and RunInfo for instructions"),
        ("ModelRetry", "it is called Retry here"),
        ("ScriptedModel", "write `from agentloop.testing import ScriptedModel`"),
        ("TextDelta", "write `from agentloop.events import TextDelta`"),
        ("Nonsense", "cannot import name 'Nonsense' from 'agentloop'"),
    ],
)
def test_an_import_of_a_name_that_is_elsewhere_says_where(name: str, sentence: str) -> None:
    with pytest.raises(ImportError) as raised:
        exec(f"from agentloop import {name}")

    assert sentence in str(raised.value)


@pytest.mark.parametrize("module", ["asyncio", "events", "mcp", "stores", "testing", "toolkit"])
def test_an_import_that_a_sentence_names_works(module: str) -> None:
    names = importlib.import_module(f"agentloop.{module}").__all__
    ways = []
    for name in names:
        try:
            exec(f"from agentloop import {name}")
        except ImportError as error:
            if "write `from" in str(error):
                ways.append(str(error).split("`")[1])
    assert ways
    for way in ways:
        exec(way)


def test_agents_and_outcomes_can_be_copied_in_spite_of_their_sentences() -> None:
    outcome = run_sync(AGENT, "x")

    assert copy.copy(outcome) == copy.deepcopy(outcome) == pickle.loads(pickle.dumps(outcome)) == outcome
    assert copy.copy(AGENT).name == "agent"
    assert not hasattr(AGENT, "__len__")


# ------------------------------------------------------------------------------------- asyncio


@cases(
    (lambda: read(agentloop.asyncio.stream(AGENT, "x")), "and in the block `async for event in stream:`"),
    (lambda: awaited(agentloop.asyncio.stream(AGENT, "x")), "this is a block and not awaited"),
    (lambda: read(AGENT.stream("x")), STREAM),
    (lambda: awaited(agentloop.asyncio.TrioHost()), "write `async with TrioHost() as host:`"),
    (lambda: async_with(agentloop.asyncio.block(MemoryStore())), "block() takes `block(store.open())`"),  # type: ignore[arg-type]
)
def test_a_first_guess_in_asyncio_is_answered_as_well(guess: Callable[[], Awaitable[None]], sentence: str) -> None:
    async def main() -> None:
        with pytest.raises(UsageError) as raised:
            await guess()
        assert sentence in str(raised.value)

    asyncio.run(main())
