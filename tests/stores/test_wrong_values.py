"""A wrong value of any field of any class of user code is an error that names it, and its session opens again.

Each class is driven through its doors: prompts, transcripts, results of tools, verdicts of hooks, answers, models, and
the methods of the tool context. The judge is msgspec: a value is right if it is read back from JSON as it was written.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings, strategies as st

from agentloop import Agent, ToolContext, hooks, tool
from agentloop._runtime.stream import Stream
from agentloop.errors import (
    AgentLoopError,
    InternalError,
    ModelAuthenticationError,
    ModelError,
    ModelRateLimitError,
    ModelStatusError,
    StoreError,
    ToolError,
    UsageError,
)
from agentloop.events import (
    ApprovalRequested,
    ElicitationRequested,
    StreamEvent,
    StreamStopped,
    ToolCallFinished,
    WarningIssued,
)
from agentloop.messages import (
    AssistantMessage,
    File,
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
)
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.permissions import Exact, Glob, Rule, Under
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
from agentloop.session import Session
from agentloop.stores import MemoryStore, answer_question, follow_session, stored_session
from agentloop.testing import ScriptedModel, calls
from tests.conftest import run_in_trio


class Odd:
    """An object of a user's, which refuses to be shown or compared."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise ValueError("no repr")

    def __eq__(self, other: object) -> bool:
        raise ValueError("no comparison")


MANY = int(os.environ.get("AGENTLOOP_WRONG_VALUES", "12"))
"""Examples of each test; more of them to hunt."""


SANE = st.one_of(
    st.sampled_from(
        [
            None, True, 5, -1, 1.5, math.nan, math.inf, 10**400, b"bytes", "text", "c3RvcA==", "half \ud83d", "nul \0",
            "",
            [], {}, (), ["text"], {"a": 1}, {1: 2}, {"a": math.nan}, {"a": object()}, (None,), (Text("a"), "b"),
            [[[[[]]]]] * 2, object(), object, ValueError("x"), Text("a"), Usage(1), bytearray(b"x"), {"a"},
        ]
    ),
    st.text(max_size=5),
    st.integers(),
    st.recursive(st.none(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner)),
)  # fmt: skip
WRONG = st.just(Odd()) | SANE


UNREAD: Mapping[type, Sequence[str]] = {ToolResult: ("call_id", "name"), Stop: ("usage", "reason", "model")}
"""Fields whose values do not count, or whose errors have words of their own."""


def is_right(value: msgspec.Struct) -> bool:
    """Whether ``value`` is read back from JSON as it was written."""
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value)
    except Exception:  # noqa: BLE001 - that is what is asked
        return False


def is_mended(value: object) -> bool:
    """Whether a value that cannot be written has a plain form that can: half characters, lists, copies of bytes."""
    return isinstance(value, (str, list, tuple, bytearray, dict, msgspec.Struct))


# ------------------------------------------------------------------------- what is seen


async def words_of(stream: Stream, on_event: Callable[[Stream, StreamEvent], object] | None = None) -> str:
    """Every word of an error in the events of ``stream``."""
    words: list[str] = []
    async for event in stream:
        if on_event is not None:
            try:
                on_event(stream, event)
            except UsageError as error:
                words.append(str(error))
                stream.stop("enough")
        if isinstance(event, ToolCallFinished):
            words += [event.result.text, event.error.message if event.error else ""]
        elif isinstance(event, WarningIssued):
            words.append(event.message)
        elif isinstance(event, StreamStopped):
            words += [event.detail, event.error.message if event.error else ""]
    return "\n".join(words)


Door = Callable[[Session, Any], Awaitable[str]]


async def through(door: Door, value: object) -> str:
    """Take ``value`` through ``door`` into a stored session, and make sure that the session can be used after that.

    Returns:
      All words about errors.
    """
    words = ""
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await Agent(ScriptedModel("Hello.")).run("Hello?", session=session)
            try:
                words = await door(session, value)
            except AgentLoopError as error:
                assert not isinstance(error, (InternalError, StoreError)), error  # noqa: PT017
                words = str(error)
        assert "a bug in agentloop" not in words
        async with stored_session(store, "s") as session:
            outcome = await Agent(ScriptedModel("Still here.")).run("And now?", session=session)
            assert outcome.output == "Still here."
        events = [event async for event in follow_session(store, "s")]
        assert [event.seq for event in events if event.seq < 5] == [1, 2, 3, 4]
    return words


# -------------------------------------------------------------------------------- doors


async def as_prompt(session: Session, value: Any) -> str:
    async with Agent(ScriptedModel("Fine.")).stream(value, session=session) as stream:
        return await words_of(stream)


async def as_part_of_prompt(session: Session, value: Any) -> str:
    return await as_prompt(session, ["Look:", value])


async def as_steering(session: Session, value: Any) -> str:
    async with Agent(ScriptedModel("Fine.", repeat=True)).stream("go", session=session) as stream:
        stream.steer(["Look:", value])
        stream.follow_up(["Look:", value])
        return await words_of(stream)


async def as_return_value(session: Session, value: Any) -> str:
    @tool
    async def look() -> object:
        """Look."""
        return value

    async with Agent(ScriptedModel(calls("look"), "Fine."), tools=[look]).stream("go", session=session) as stream:
        return await words_of(stream)


async def as_returned_part(session: Session, value: Any) -> str:
    return await as_return_value(session, ToolResult("", "", (value,)))


async def as_prompt_of_child(session: Session, value: Any) -> str:
    child = Agent(ScriptedModel("Fine."), name="child")

    @tool
    async def ask(context: ToolContext[None]) -> object:
        """Ask a child."""
        return (await context.run(child, ["Look:", value])).output

    async with Agent(ScriptedModel(calls("ask"), "Fine."), tools=[ask]).stream("go", session=session) as stream:
        return await words_of(stream)


@tool
async def fine(what: Any = None) -> str:
    """Succeed."""
    return "fine"


def as_verdict(point: Any) -> Door:
    async def door(session: Session, value: Any) -> str:
        hook = point(lambda given: None if getattr(given, "continuations", 0) else value)
        agent = Agent(ScriptedModel(calls("fine"), "Fine.", "Fine."), tools=[fine], hooks=[hook])
        async with agent.stream("go", session=session, on_question="decline") as stream:
            return await words_of(stream)

    return door


async def as_replaced_result(session: Session, value: Any) -> str:
    return await as_verdict(hooks.post_tool_use)(session, hooks.ReplaceResult(value))


async def as_replaced_message(session: Session, value: Any) -> str:
    return await as_verdict(hooks.before_llm_call)(session, hooks.ReplaceMessages((value, UserMessage((Text("a"),)))))


async def as_message_of_transcript(session: Session, value: Any) -> str:
    """Not a door to a stored session: but the transcript goes to providers."""
    messages: list[Message] = [value]
    if isinstance(value, AssistantMessage) and isinstance(value.parts, tuple):
        messages += [ToolResult(p.id, "a", (Text("b"),)) for p in value.parts if isinstance(p, ToolCall)]
    own = Session(messages=messages)
    async with Agent(ScriptedModel("Fine.")).stream("go", session=own) as stream:
        return await words_of(stream)


form: Mapping[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}


@tool
async def ask_city(context: ToolContext[None]) -> str:
    """Ask for a city."""
    return str(await context.ask("Which city?", form))


@tool(requires_approval=True)
async def buy(what: Any = None) -> str:
    """Buy."""
    return "bought"


def asking(value: object) -> Agent:
    name = "buy" if isinstance(value, (Approve, Deny)) else "ask_city"
    return Agent(ScriptedModel(calls(name), "Fine."), tools=[buy, ask_city])


async def as_answer_of_reader(session: Session, value: Answer) -> str:
    def answer(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, (ApprovalRequested, ElicitationRequested)):
            stream.answer(event.id, value)

    async with asking(value).stream("go", session=session) as stream:
        return await words_of(stream, answer)


async def as_answer_of_handler(session: Session, value: Answer) -> str:
    async def handler(_: object) -> Answer:
        return value

    async with asking(value).stream("go", session=session, on_question=handler) as stream:
        return await words_of(stream)


async def as_answer_to_parked(session: Session, value: Answer) -> str:
    agent = asking(value)
    outcome = await agent.run("go", session=session, on_question="park")
    [question] = outcome.questions
    async with agent.resume_stream(session, {question.id: value}, on_question="decline") as stream:
        return await words_of(stream)


class OneResponse:
    """A model whose response is a function."""

    name = "one"

    def __init__(self, respond: Callable[[Reply], Awaitable[Stop]]) -> None:
        self.write = respond

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        return await self.write(reply)


async def as_stop(session: Session, value: Stop) -> str:
    async def respond(reply: Reply) -> Stop:
        await reply.text("Hello.")
        return value

    async with Agent(OneResponse(respond)).stream("go", session=session) as stream:
        return await words_of(stream)


# ------------------------------------------------------------------------------ classes

RIGHT: list[tuple[msgspec.Struct, list[Door]]] = [
    (Text("a"), [as_prompt, as_part_of_prompt, as_steering, as_return_value, as_returned_part, as_prompt_of_child]),
    (Image(data=b"a"), [as_prompt, as_part_of_prompt, as_return_value, as_returned_part, as_prompt_of_child]),
    (File(data=b"a", name="a"), [as_prompt, as_part_of_prompt, as_steering, as_return_value, as_returned_part]),
    (UserMessage((Text("a"),)), [as_prompt, as_message_of_transcript, as_replaced_message]),
    (ToolResult("", "", (Text("a"),)), [as_return_value, as_replaced_result]),
    (AssistantMessage((Text("a"),)), [as_message_of_transcript, as_replaced_message]),
    (hooks.Context("a"), [as_verdict(hooks.user_prompt_submit), as_verdict(hooks.session_start)]),
    (hooks.Block("a"), [as_verdict(hooks.user_prompt_submit), as_verdict(hooks.post_tool_use)]),
    (hooks.Continue("a"), [as_verdict(hooks.stop)]),
    (hooks.Ask("a"), [as_verdict(hooks.pre_tool_use)]),
    (hooks.ReplaceArguments({"what": 1}), [as_verdict(hooks.pre_tool_use)]),
    (hooks.ReplaceMessages((UserMessage((Text("a"),)),)), [as_verdict(hooks.before_llm_call)]),
    (hooks.ReplaceResult(ToolResult("", "", (Text("a"),))), [as_verdict(hooks.post_tool_use)]),
    (Deny("a"), [as_verdict(hooks.pre_tool_use), as_answer_of_reader, as_answer_of_handler, as_answer_to_parked]),
    (Approve({"what": 1}), [as_answer_of_reader, as_answer_of_handler, as_answer_to_parked]),
    (Accept({"city": "Porto"}), [as_answer_of_reader, as_answer_of_handler, as_answer_to_parked]),
    (Decline("a"), [as_answer_of_reader, as_answer_of_handler, as_answer_to_parked]),
    (Cancel(), [as_answer_of_reader, as_answer_of_handler, as_answer_to_parked]),
    (Stop("end", Usage(1, 2), "m"), [as_stop]),
]


@pytest.mark.parametrize(("right", "doors"), RIGHT, ids=[type(right).__name__ for right, _ in RIGHT])
def test_a_right_value_goes_through_every_door(right: msgspec.Struct, doors: list[Door]) -> None:
    async def check() -> None:
        for door in doors:
            words = await through(door, right)
            assert "is due" not in words

    run_in_trio(check)


@pytest.mark.parametrize(
    ("right", "doors"),
    [(right, doors) for right, doors in RIGHT if right.__struct_fields__],
    ids=[type(right).__name__ for right, _ in RIGHT if right.__struct_fields__],
)
def test_a_wrong_value_of_a_field_is_an_error_that_names_it_and_costs_no_session(
    right: msgspec.Struct, doors: list[Door]
) -> None:
    kind = type(right)

    @settings(max_examples=MANY)
    @given(st.sampled_from(kind.__struct_fields__), WRONG, st.sampled_from(doors))
    def check(field: str, wrong: object, door: Door) -> None:
        fields = {name: getattr(right, name) for name in kind.__struct_fields__} | {field: wrong}
        if kind in (Image, File) and field in ("data", "url"):
            fields |= {"data": None, "url": None, field: wrong}
        try:
            value = kind(**fields)
        except UsageError as error:
            assert field in str(error) or "exactly one of data= and url=" in str(error)  # noqa: PT017
            return

        async def run() -> None:
            words = await through(door, value)
            may_be_none = field in ("verdict", "arguments", "url") and wrong is None
            if is_right(value) or may_be_none or is_mended(wrong) or field in UNREAD.get(kind, ()):
                return
            if door is as_prompt and field in ("reports", "context"):
                # A prompt is new: it reports nothing, and tells no context.
                return
            assert f".{field}" in words or (kind is UserMessage and "a prompt is text" in words), words

        run_in_trio(run)

    check()


# --------------------------------------------------------------- parts inside of messages


@settings(max_examples=MANY)
@given(
    st.sampled_from([Text("a"), Reasoning("a", "b"), ToolCall("id", "name", "{}"), Usage(1)]),
    st.data(),
    WRONG,
    st.sampled_from([as_message_of_transcript, as_replaced_message]),
)
def test_a_wrong_value_inside_of_a_message_is_refused(
    right: Text | Reasoning | ToolCall | Usage, data: st.DataObject, wrong: object, door: Door
) -> None:
    field = data.draw(st.sampled_from(right.__struct_fields__))
    part: Any = type(right)(**{name: getattr(right, name) for name in right.__struct_fields__} | {field: wrong})
    message = AssistantMessage((), usage=part) if isinstance(right, Usage) else AssistantMessage((part,))

    async def run() -> None:
        words = await through(door, message)
        if not is_right(part) and not is_mended(wrong) and field != "cost":
            assert f".{field}" in words

    run_in_trio(run)


@settings(max_examples=MANY)
@given(
    st.sampled_from(["tool", "where", "allow_other_arguments", "value", "pattern", "allow_shell_characters", "folder"]),
    SANE,
    st.sampled_from([as_answer_of_reader, as_answer_of_handler, as_answer_to_parked]),
)
def test_a_wrong_value_inside_of_a_rule_that_approves_for_good_is_refused(field: str, wrong: Any, door: Door) -> None:
    try:
        match field:
            case "value":
                rule = Rule("buy", {"what": Exact(wrong)})
            case "pattern" | "allow_shell_characters":
                rule = Rule("buy", {"what": Glob(**{"pattern": "a*", field: wrong})})
            case "folder":
                rule = Rule("buy", {"what": Under(wrong)})
            case _:
                rule = Rule(**{"tool": "buy", field: wrong})
    except (UsageError, TypeError):
        return
    run_in_trio(lambda: through(door, Approve({"what": "a"}, always=rule)))


# --------------------------------------------------------------------------- the context

CONTEXT: dict[str, Callable[[ToolContext[None], Any], Awaitable[object] | object]] = {
    "output": lambda context, value: context.output(value),
    "progress": lambda context, value: context.progress(value),
    "progress total": lambda context, value: context.progress(1, total=value),
    "progress message": lambda context, value: context.progress(1, message=value),
    "ask": lambda context, value: context.ask(value),
    "ask form": lambda context, value: context.ask("Go on?", value),
    "ask title": lambda context, value: context.ask(
        "Go on?", {"type": "object", "title": value, "properties": {"a": {"type": "string", "title": value}}}
    ),
    "ask_for": lambda context, value: context.ask_for("Go on?", value),
    "ask_url": lambda context, value: context.ask_url("Look.", value),
    "ask_url message": lambda context, value: context.ask_url(value, "https://example.com"),
    "remember": lambda context, value: context.remember("key", value),
    "remember name": lambda context, value: context.remember(value, 1),
    "recall": lambda context, value: context.recall(value, int),
    "warn": lambda context, value: context.warn("odd", value),
    "warn code": lambda context, value: context.warn(value, "odd"),
    "restart_deadline": lambda context, value: context.restart_deadline(at_most=value),
    "stream": lambda context, value: context.run(Agent(ScriptedModel("Fine."), name="child"), value),
    "agent": lambda context, value: context.run(value, "go"),
}


@settings(max_examples=MANY)
@given(st.sampled_from([*CONTEXT]), WRONG)
@example("progress", math.nan)
@example("remember", math.nan)
@example("warn", None)
@example("recall", None)
@example("ask title", {"a": object()})
def test_a_wrong_value_in_the_tool_context_fails_the_call_at_most(method: str, wrong: object) -> None:
    @tool
    async def use(context: ToolContext[None]) -> str:
        """Use the context."""
        done = CONTEXT[method](context, wrong)
        if isinstance(done, Awaitable):
            await done
        return "fine"

    async def door(session: Session, _: object) -> str:
        agent = Agent(ScriptedModel(calls("use") + calls("fine"), "Fine."), tools=[use, fine])
        async with agent.stream("go", session=session, on_question="decline") as stream:
            words = await words_of(stream)
        assert stream.outcome.reason == "completed"
        return words

    run_in_trio(lambda: through(door, None))


# ---------------------------------------------------------------------------- models

REPLY: dict[str, Callable[[Reply, Any], Awaitable[None]]] = {
    "text": lambda reply, value: reply.text(value),
    "reasoning": lambda reply, value: reply.reasoning(value),
    "signature": lambda reply, value: reply.reasoning("a", signature=value),
    "index": lambda reply, value: reply.tool_call(value, id="a", name="fine", arguments="{}"),
    "id": lambda reply, value: reply.tool_call(0, id=value, name="fine", arguments="{}"),
    "name": lambda reply, value: reply.tool_call(0, id="a", name=value, arguments="{}"),
    "arguments": lambda reply, value: reply.tool_call(0, id="a", name="fine", arguments=value),
}


@settings(max_examples=MANY)
@given(st.sampled_from([*REPLY]), WRONG)
@example("id", "nul \0")
@example("name", 5)
@example("signature", 5)
def test_a_wrong_value_in_a_response_fails_the_model_by_name_at_most(method: str, wrong: object) -> None:
    asked = 0

    async def respond(reply: Reply) -> Stop:
        nonlocal asked
        asked += 1
        await reply.text("Hello.")
        if asked == 1:
            await REPLY[method](reply, wrong)
        return Stop()

    async def door(session: Session, _: object) -> str:
        async with Agent(OneResponse(respond), tools=[fine]).stream("go", session=session) as stream:
            try:
                words = await words_of(stream)
            except ModelError as error:
                assert "one" in str(error)  # noqa: PT017
                raise
        assert stream.outcome.reason == "completed"
        return words

    run_in_trio(lambda: through(door, None))


@settings(max_examples=MANY)
@given(st.sampled_from(["requests", *Usage.__struct_fields__]), SANE)
def test_a_wrong_number_in_the_usage_of_a_response_counts_as_not_reported(field: str, wrong: Any) -> None:
    run_in_trio(lambda: through(as_stop, Stop("end", Usage(**{field: wrong}))))


@settings(max_examples=MANY)
@given(WRONG)
def test_a_model_without_a_name_is_refused(wrong: Any) -> None:
    async def respond(reply: Reply) -> Stop:
        return Stop()

    model = OneResponse(respond)
    model.name = wrong
    try:
        agent = Agent(model)
    except UsageError as error:
        assert "a model has a name" in str(error)  # noqa: PT017
        return

    async def door(session: Session, _: object) -> str:
        async with agent.stream("go", session=session) as stream:
            return await words_of(stream)

    run_in_trio(lambda: through(door, None))


# ------------------------------------------------------------------------------ errors


def model_error(kind: type[ModelStatusError], field: str, wrong: Any) -> Exception:
    fields: dict[str, Any] = {"model": "m", "status": 400, "body": "b", "code": "c", "retry_after": 0.1, "advice": "a"}
    return kind(**{**fields, field: wrong})


@settings(max_examples=MANY)
@given(
    st.sampled_from([ModelStatusError, ModelRateLimitError, ModelAuthenticationError]),
    st.sampled_from(["model", "status", "body", "code", "retry_after", "advice"]),
    WRONG,
    st.booleans(),
)
def test_wrong_facts_of_a_models_error_are_a_failure_of_the_model(
    kind: type[ModelStatusError], field: str, wrong: object, with_fallback: bool
) -> None:
    async def respond(reply: Reply) -> Stop:
        raise model_error(kind, field, wrong)

    fallbacks = [ScriptedModel("Fine.")] if with_fallback else []

    async def door(session: Session, _: object) -> str:
        async with Agent(OneResponse(respond), fallbacks=fallbacks).stream("go", session=session) as stream:
            return await words_of(stream)

    run_in_trio(lambda: through(door, None))


@settings(max_examples=MANY)
@given(st.sampled_from([ToolError, ValueError, hooks.HookWarning, ModelError, SystemError]), WRONG)
def test_an_error_with_a_wrong_text_is_the_failure_of_its_call_and_its_hook(kind: type[Exception], wrong: Any) -> None:
    def fail(*_: object) -> Any:
        raise kind(wrong)

    async def break_down() -> None:
        fail()

    broken = tool(name="broken")(break_down)

    async def door(session: Session, _: object) -> str:
        agent = Agent(ScriptedModel(calls("broken"), "Fine."), tools=[broken], hooks=[hooks.turn_end(fail)])
        async with agent.stream("go", session=session) as stream:
            return await words_of(stream)

    run_in_trio(lambda: through(door, None))


@settings(max_examples=MANY)
@given(WRONG)
def test_a_wrong_detail_of_stop_is_refused(wrong: Any) -> None:
    async def door(session: Session, _: object) -> str:
        async with Agent(ScriptedModel("Fine.")).stream("go", session=session) as stream:
            try:
                stream.stop(wrong)
            except UsageError as error:
                assert "stop(detail)" in str(error)  # noqa: PT017
            return await words_of(stream)

    run_in_trio(lambda: through(door, None))


@settings(max_examples=MANY)
@given(st.sampled_from(["content", "id"]), WRONG)
def test_an_answer_from_another_process_of_wrong_values_is_refused(what: str, wrong: Any) -> None:
    async def check() -> None:
        async with MemoryStore().open() as store:
            agent = Agent(ScriptedModel(calls("ask_city"), "Fine."), tools=[ask_city])
            async with stored_session(store, "s") as session:
                outcome = await agent.run("go", session=session, on_question="park")
            [question] = outcome.questions
            try:
                if what == "id":
                    await answer_question(store, "s", wrong, Cancel())
                else:
                    await answer_question(store, "s", question.id, Accept(wrong))
            except AgentLoopError as error:
                assert not isinstance(error, StoreError)  # noqa: PT017
            async with stored_session(store, "s") as session:
                outcome = await agent.resume(session, on_question="decline")
                assert outcome.output == "Fine."

    run_in_trio(check)
