"""Exceptions of user code that are unlike others: each is the failure of its call, its hook or its model, by name."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from typing import Any, NoReturn

import attrs
import pytest
import trio

from agentloop import (
    Accept,
    Agent,
    Approve,
    Deadlines,
    Limits,
    Permissions,
    Price,
    Retries,
    Session,
    Tool,
    ToolContext,
    hooks,
    tool,
)
from agentloop._core.foreign_errors import describe, error_text
from agentloop.errors import BlockedError, ModelError, ToolDefinitionError, ToolError, UsageError
from agentloop.events import ApprovalRequested, ElicitationRequested, Question, ToolCallFinished, WarningIssued
from agentloop.messages import AssistantMessage, Message, ToolResult, UserMessage
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.observers import Observer
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls
from tests.support import of, watch


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise AttributeError("response")


class UnprintableToolError(ToolError):
    def __str__(self) -> str:
        raise RecursionError


class OddTextError(Exception):
    def __str__(self) -> str:
        return "no file \udcff"


class ExitingError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ValueError("no name")


class NamelessError(Exception, metaclass=Nameless):
    """An exception whose class has a name that cannot be read."""


@attrs.frozen
class FrozenError(Exception):
    code: int = 5


NO_TEXT = "(its text cannot be shown: __str__ raised AttributeError)"


@tool
async def fine() -> str:
    """Succeed, a little later."""
    await trio.sleep(0.1)
    return "fine"


def raising(error: Callable[[], BaseException], *, plain: bool = False) -> Tool:
    if plain:

        @tool(name="broken")
        def broken_in_thread() -> NoReturn:
            raise error()

        return broken_in_thread

    @tool(name="broken")
    async def broken() -> NoReturn:
        raise error()

    return broken


async def results_of(broken: Tool) -> dict[str, ToolResult]:
    """The results of a call of ``broken`` and of one beside it."""
    agent = Agent(ScriptedModel(calls("broken") + calls("fine"), "done"), tools=[broken, fine])
    watched = await watch(agent)
    assert watched.outcome.reason == "completed"
    return {event.name: event.result for event in of(watched.events, ToolCallFinished)}


@pytest.mark.real_clock
@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UnprintableError, f"UnprintableError: {NO_TEXT}"),
        (UnprintableToolError, "(its text cannot be shown: __str__ raised RecursionError)"),
        (OddTextError, "OddTextError: no file \N{REPLACEMENT CHARACTER}"),
        (ExitingError, "ExitingError: (its text cannot be shown: __str__ raised SystemExit)"),
        (NamelessError, "NamelessError"),
        (asyncio.CancelledError, "CancelledError"),
        (FrozenError, "FrozenError"),
        (ToolError, "The call failed, and no reason was given."),
        (StopIteration, "StopIteration"),
        (lambda: BaseExceptionGroup("", [asyncio.CancelledError(), ValueError("b")]), "CancelledError"),
        (lambda: ExceptionGroup("", [FrozenError(), UnprintableError()]), "FrozenError"),
    ],
    ids=[
        "unprintable",
        "tool-error",
        "half",
        "exiting",
        "nameless",
        "asyncio",
        "frozen",
        "silent",
        "stop",
        "group-asyncio",
        "group-frozen",
    ],
)
async def test_the_exception_of_a_tool_is_the_result_of_its_call_alone(
    error: Callable[[], BaseException], text: str, plain: bool
) -> None:
    results = await results_of(raising(error, plain=plain))
    assert results["broken"].status == "error"
    assert text in results["broken"].text
    assert results["fine"].text == "fine"


@pytest.mark.real_clock
@pytest.mark.parametrize("error", [SystemExit, GeneratorExit])
async def test_sys_exit_in_the_thread_of_a_plain_tool_fails_its_call(error: type[BaseException]) -> None:
    results = await results_of(raising(error, plain=True))
    assert results["broken"].status == "error"
    assert results["broken"].text == error.__name__
    assert results["fine"].text == "fine"


async def test_sys_exit_of_an_async_tool_ends_the_program() -> None:
    with pytest.raises(SystemExit):
        await Agent(ScriptedModel(calls("broken")), tools=[raising(lambda: SystemExit(3))]).run("go")


async def test_a_cancellation_of_asyncio_beside_one_of_trio_does_not_leave_the_run() -> None:
    @tool
    async def broken() -> None:
        """Wait in two tasks, one of which answers a cancellation of trio's with one of asyncio's."""

        async def wait() -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                raise asyncio.CancelledError from None  # noqa: ASYNC104

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep_forever()

    session = Session()
    with trio.move_on_after(1) as scope:
        await Agent(ScriptedModel(calls("broken")), tools=[broken]).run("go", session=session)
    assert scope.cancelled_caught
    results = [message for message in session.messages if isinstance(message, ToolResult)]
    assert [result.status for result in results] == ["interrupted"]


async def test_a_tool_that_answers_its_deadline_with_a_cancellation_of_asyncio_fails_alone() -> None:
    @tool(timeout=1)
    async def broken() -> str:
        """Answer the cancellation of the deadline with one of asyncio's."""
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise asyncio.CancelledError from None  # noqa: ASYNC104

    results = await results_of(broken)
    assert results["broken"].status == "error"
    assert results["fine"].text == "fine"


@pytest.mark.parametrize("error", [UnprintableError, asyncio.CancelledError, OddTextError, FrozenError])
async def test_a_guard_whose_exception_is_odd_refuses_by_name(error: type[BaseException]) -> None:
    def guard(_: object) -> NoReturn:
        raise error

    agent = Agent(ScriptedModel(calls("fine"), "done"), tools=[fine], hooks=[hooks.pre_tool_use(guard)])
    watched = await watch(agent)
    [finished] = of(watched.events, ToolCallFinished)
    assert finished.result.status == "denied"
    assert f"the pre_tool_use hook 'guard' failed: {error.__name__}" in finished.result.text


@pytest.mark.parametrize("error", [UnprintableError, asyncio.CancelledError, OddTextError, FrozenError])
async def test_an_observing_hook_whose_exception_is_odd_is_a_warning(error: type[BaseException]) -> None:
    def watching(_: object) -> NoReturn:
        raise error

    points: list[Any] = [hooks.turn_start, hooks.session_start, hooks.after_llm_call, hooks.turn_end, hooks.session_end]
    watched = await watch(Agent(ScriptedModel("done"), hooks=[point(watching) for point in points]))
    assert watched.outcome.reason == "completed"
    warnings = [event.message for event in of(watched.events, WarningIssued) if event.code == "hook_failed"]
    assert len(warnings) == len(points)
    assert all(f"hook 'watching' failed: {error.__name__}" in warning for warning in warnings)


async def test_a_warning_of_a_hook_whose_text_cannot_be_shown_lets_pass() -> None:
    class OddWarning(hooks.HookWarning):
        __str__ = UnprintableError.__str__

    def hook(_: object) -> NoReturn:
        raise OddWarning

    watched = await watch(Agent(ScriptedModel("done"), hooks=[hooks.user_prompt_submit(hook)]))
    assert watched.outcome.reason == "completed"
    assert [event.message for event in of(watched.events, WarningIssued)] == [
        f"the user_prompt_submit hook 'hook': {NO_TEXT}"
    ]


class BrokenModel:
    name = "broken"

    def __init__(self, error: Callable[[], BaseException]) -> None:
        self.error = error

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        raise self.error()


class UnprintableModelError(ModelError):
    __str__ = UnprintableError.__str__


@pytest.mark.parametrize(
    "error", [UnprintableError, asyncio.CancelledError, OddTextError, FrozenError, UnprintableModelError]
)
async def test_a_model_whose_exception_is_odd_has_failed_and_its_fallback_answers(error: type[BaseException]) -> None:
    agent = Agent(BrokenModel(error), fallbacks=[ScriptedModel("hello")])
    watched = await watch(agent)
    assert watched.outcome.output == "hello"
    with pytest.raises(ModelError):
        await Agent(BrokenModel(error)).run("go")


async def test_instructions_whose_exception_is_odd_fail_the_run_by_name() -> None:
    def instructions(_: object) -> str:
        raise UnprintableError

    with pytest.raises(UsageError, match="the instructions of agent 'agent' failed: UnprintableError"):
        await Agent(ScriptedModel("x"), instructions=instructions).run("go")


async def test_a_predicate_and_a_handler_whose_exceptions_are_odd_let_nothing_run() -> None:
    def predicate(_: object) -> bool:
        raise asyncio.CancelledError

    async def handler(_: object) -> NoReturn:
        raise UnprintableError

    guarded = tool(name="guarded", requires_approval=predicate)(fine.function)
    agent = Agent(ScriptedModel(calls("guarded"), "done"), tools=[guarded])
    watched = await watch(agent, on_question=handler)
    [finished] = of(watched.events, ToolCallFinished)
    assert finished.result.status == "denied"
    assert [event.code for event in of(watched.events, WarningIssued)] == ["predicate_failed", "handler_failed"]


async def test_an_observer_whose_exception_is_odd_sees_no_more_of_the_run() -> None:
    seen: list[object] = []

    class Odd(Observer):
        def observe(self, event: object) -> None:
            seen.append(event)
            raise asyncio.CancelledError

    watched = await watch(Agent(ScriptedModel("done"), observers=[Odd()]))
    assert watched.outcome.reason == "completed"
    assert len(seen) == 1


# --------------------------------------------------------------------- replaced messages

KEPT: list[tuple[str, Callable[[tuple[Message, ...]], list[Message]]]] = [
    ("only the last", lambda messages: [messages[-1]]),
    ("all but the last", lambda messages: [*messages[:-1]]),
    ("no calls", lambda messages: [message for message in messages if not isinstance(message, AssistantMessage)]),
    ("a result twice", lambda messages: [*messages, messages[-1]]),
    ("backwards", lambda messages: [*messages[::-1]]),
]


@pytest.mark.parametrize(("what", "keep"), KEPT, ids=[name for name, _ in KEPT])
async def test_messages_replaced_by_a_hook_that_tear_a_call_from_its_result_are_refused_by_the_hooks_name(
    what: str, keep: Callable[[Any], list[Message]]
) -> None:
    @hooks.before_llm_call
    def trim(value: hooks.BeforeLLMCall) -> hooks.ReplaceMessages | None:
        return hooks.ReplaceMessages(keep(value.request.messages)) if value.turn > 1 else None

    model = ScriptedModel(calls("fine"), "done")
    with pytest.raises(BlockedError, match="the before_llm_call hook 'trim' returned messages that no provider takes"):
        await Agent(model, tools=[fine], hooks=[trim]).run("go")
    assert len(model.requests) == 1


async def test_messages_replaced_by_a_hook_with_calls_and_results_are_sent() -> None:
    @hooks.before_llm_call
    def add(value: hooks.BeforeLLMCall) -> hooks.ReplaceMessages:
        return hooks.ReplaceMessages([*value.request.messages, *value.request.messages[:1]])

    model = ScriptedModel(calls("fine"), "done")
    await Agent(model, tools=[fine], hooks=[add], permissions=Permissions()).run("go")
    assert [type(message) for message in model.requests[1].messages] == [
        UserMessage,
        AssistantMessage,
        ToolResult,
        UserMessage,
    ]


# ----------------------------------------------------------------------------- the words


def test_an_exception_is_described_whatever_its_str_does() -> None:
    class OddKeyError(Exception):
        def __str__(self) -> str:
            raise KeyError("x")

    class NoTextError(Exception):
        def __str__(self) -> str:
            return 5  # type: ignore[return-value]  # noqa: PLE0307

    assert error_text(OddKeyError()) == "(its text cannot be shown: __str__ raised KeyError)"
    assert describe(NoTextError()) == "NoTextError: (its text cannot be shown: __str__ raised TypeError)"
    assert describe(ValueError()) == "ValueError"
    assert describe(ValueError("\ud83d\ude00")) == "ValueError: \N{GRINNING FACE}"


async def _generate() -> AsyncGenerator[str]:
    yield "a"
    raise UnprintableError


async def test_a_generator_tool_whose_exception_is_odd_fails_its_call() -> None:
    async def broken() -> AsyncGenerator[str]:
        """Yield, then fail."""
        async for piece in _generate():
            yield piece

    results = await results_of(tool(name="broken")(broken))
    assert results["broken"].text == f"UnprintableError: {NO_TEXT}"


# ------------------------------------------------- values of user code that are read by the runtime


@tool(requires_approval=True)
async def buy(goods: list[int]) -> str:
    """Buy something."""
    return f"bought {goods}"


@tool
async def ask_city(context: ToolContext[None]) -> str:
    """Ask for a city."""
    form = {"type": "object", "properties": {"city": {"type": "string"}}}
    return str(await context.ask("Which city?", form))


@pytest.mark.parametrize("door", ["handler", "hook", "reader", "pending"])
async def test_what_user_code_writes_into_a_question_changes_neither_run_nor_journal(door: str) -> None:
    def spoil(question: Any) -> None:
        if isinstance(question, ApprovalRequested):
            question.arguments["goods"] = object()
        elif isinstance(question, ElicitationRequested):
            question.form["properties"]["city"]["type"] = object()

    async def handler(question: Question) -> Approve | Accept:
        if door == "handler":
            spoil(question)
        await trio.lowlevel.checkpoint()
        return Approve() if isinstance(question, ApprovalRequested) else Accept({"city": "Porto"})

    @hooks.notification
    def watching(value: hooks.Notification) -> None:
        if door == "hook":
            spoil(value.question)

    model = ScriptedModel(calls("buy", goods=[1]) + calls("ask_city"), "done")
    agent = Agent(model, tools=[buy, ask_city], hooks=[watching])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            if door in ("handler", "hook"):
                outcome = await agent.run("go", session=session, on_question=handler)
            else:
                async with agent.stream("go", session=session) as stream:
                    async for event in stream:
                        if isinstance(event, (ApprovalRequested, ElicitationRequested)):
                            spoil(event if door == "reader" else stream.pending[0])
                            stream.answer(event.id, await handler(event))
                outcome = stream.outcome
            assert outcome.reason == "completed"
        async with stored_session(store, "s") as session:
            results = [message.text for message in session.messages if isinstance(message, ToolResult)]
    assert results == ["bought [1]", "Accept(content={'city': 'Porto'})"]


async def test_arguments_of_a_users_own_class_that_fail_are_the_failure_of_the_call_or_of_the_tool() -> None:
    class Own:
        schema: Any = {"type": "object"}  # noqa: RUF012

        def decode(self, raw: str | bytes, /) -> Any:
            raise UnprintableError

        def convert(self, values: Any, /) -> Any:
            return values

    class Broken(Own):
        @property
        def schema(self) -> Any:
            raise UnprintableError

    own = Tool(name="broken", description="", function=fine.function, arguments=Own())
    results = await results_of(own)
    assert results["broken"].text == f"The arguments cannot be read: UnprintableError: {NO_TEXT}"
    broken = Tool(name="broken", description="", function=fine.function, arguments=Broken())
    with pytest.raises(ToolDefinitionError, match="tool 'broken': the schema of its arguments cannot be read"):
        await Agent(ScriptedModel("x"), tools=[broken]).run("go")


class Share(float):
    """A number of another package's, such as ``numpy.float64``."""


@pytest.mark.parametrize("limit", [True, math.nan, 10**400, "5", 0])
def test_a_limit_that_cannot_be_counted_up_to_or_saved_is_refused(limit: Any) -> None:
    for kind, field in ((Limits, "turns"), (Limits, "cost"), (Deadlines, "tool")):
        with pytest.raises(UsageError, match=f"{kind.__name__}\\({field}="):
            kind(**{field: limit})
    if limit != 0:
        for make in (lambda: Retries(delay=limit), lambda: Price(limit, 1)):
            with pytest.raises(UsageError, match="give a number of 0 or more"):
                make()


async def test_numbers_of_another_package_become_plain_ones() -> None:
    assert type(Limits(cost=Share(2)).cost) is float
    assert type(Retries(delay=Share(2)).delay) is float
    assert type(Price(Share(2), 1).input) is float
    with pytest.raises(UsageError, match="at most 1e"):
        Price(math.inf, 1)


async def test_ids_and_numbers_of_sessions_of_a_wrong_type_are_refused() -> None:
    wrong: list[Any] = [5, b"s", ["s"], None, "half \ud83d", ""]
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await Agent(ScriptedModel("Hello.")).run("Hello?", session=session)
            numbers: list[Any] = ["1", 1.0, True, None, []]
            for number in numbers:
                with pytest.raises(UsageError):
                    await session.rewind(number)
                with pytest.raises(UsageError):
                    session.follow(after=number)
            with pytest.raises(UsageError, match="answers= maps ids of questions to answers"):
                await Agent(ScriptedModel("x")).resume(session, [1])  # type: ignore[arg-type]
        for id in wrong:
            if id is not None:
                with pytest.raises(UsageError, match="session's id"):
                    async with stored_session(store, id):
                        pass
            with pytest.raises(UsageError):
                Session("") if id is None else Session(id)
