"""An agent with ``redact`` shows no secret to its model, its journal or its readers, and gives it to its tools."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest

from agentloop import Accept, Agent, Approve, Session, ToolContext, hooks, tool
from agentloop._core.secrets import labels_in
from agentloop._runtime import redaction as redaction_of_runs
from agentloop.errors import MissingExtraError, ModelError, UsageError
from agentloop.events import (
    ApprovalRequested,
    ElicitationRequested,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallOutput,
)
from agentloop.hooks import BeforeLLMCall, PreToolUse, ReplaceArguments, UserPromptSubmit
from agentloop.messages import Image, Text, ToolResult
from agentloop.models import Model, ModelRequest
from agentloop.observers import Observer
from agentloop.redaction import Redaction
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import FunctionModel, ScriptedModel, calls, fails, hangs, says

KEY = "AKIAIOSFODNN7EXAMPLE"
PLACEHOLDER = "[secret:1:aws-key]"


def text_of(value: object) -> str:
    """All texts in ``value``, as JSON."""
    return msgspec.json.encode(value).decode()


async def records_of(store: Any, session: str) -> str:
    return "\n".join(bytes(record.data).decode() for record in await store.read(session))


class Recorder(Observer):
    """Keeps the events that it sees."""

    def __init__(self) -> None:
        self.seen: list[StreamEvent] = []

    def observe(self, event: StreamEvent) -> None:
        self.seen.append(event)


def deploying(*responses: Any, got: list[Any], **options: Any) -> Agent[Any, Any]:
    @tool
    async def deploy(key: str, extra: dict[str, Any] | None = None) -> str:
        """Deploy with a key."""
        got.append((key, extra))
        return f"deployed with {key}"

    return Agent(ScriptedModel(*responses), tools=[deploy], redact=True, **options)


async def test_a_secret_of_the_prompt_reaches_the_tool_and_neither_model_nor_journal_nor_reader() -> None:
    got: list[Any] = []
    recorder = Recorder()
    agent = deploying(calls("deploy", key=PLACEHOLDER), "Done.", got=got, observers=[recorder])
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        async with agent.stream(f"Deploy with {KEY}", session=session) as stream:
            events = [event async for event in stream]
        assert session.secrets == {PLACEHOLDER: KEY}
        saved = await records_of(store, "s")
    assert got == [(KEY, None)]
    model: Any = agent.model
    for shown in (text_of(events), text_of(recorder.seen), text_of(model.requests), text_of(session.messages), saved):
        assert KEY not in shown
        assert PLACEHOLDER in shown


async def test_nested_arguments_are_put_back() -> None:
    got: list[Any] = []
    arguments: dict[str, Any] = {"key": "x", "extra": {"env": [{"AWS": f"id={PLACEHOLDER}"}]}}
    await deploying(calls("deploy", **arguments), "Done.", got=got).run(f"Use {KEY}")
    assert got == [("x", {"env": [{"AWS": f"id={KEY}"}]})]


async def test_a_secret_that_the_model_makes_up_is_a_placeholder_for_all_but_the_tool() -> None:
    got: list[Any] = []
    agent = deploying(calls("deploy", key="k", extra={"password": "hunter2"}), f"I chose {KEY} for you", got=got)
    async with agent.stream("Go") as stream:
        events = [event async for event in stream]
    assert got == [("k", {"password": "hunter2"})]
    assert "hunter2" not in text_of(events)
    assert KEY not in text_of(events)
    words = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert words == stream.result.output == "I chose [secret:2:aws-key] for you"
    deltas = "".join(event.arguments for event in events if isinstance(event, ToolCallDelta))
    assert labels_in(deltas) == ["1:password"]


async def test_a_secret_that_comes_in_several_deltas_is_in_none_of_them() -> None:
    async def respond(request: ModelRequest, reply: Any) -> Any:
        for piece in ("the key is AKIAIOSF", "ODNN7", "EXAMPLE", " indeed"):
            await reply.text(piece)
        return None

    class Slow:
        name = "slow"

        async def respond(self, request: ModelRequest, reply: Any) -> Any:
            from agentloop.models import Stop

            await respond(request, reply)
            return Stop()

    async with Agent(Slow(), redact=True).stream("Go") as stream:
        texts = [event.text async for event in stream if isinstance(event, TextDelta)]
    assert "".join(texts) == f"the key is {PLACEHOLDER} indeed"
    assert not any("ODNN" in text for text in texts)


async def test_secrets_in_results_output_and_errors_of_tools_are_replaced() -> None:
    @tool
    async def read() -> AsyncGenerator[str]:
        """Read."""
        yield "key: AKIAIOSF"
        yield "ODNN7EXAMPLE\nmore"

    @tool
    async def look() -> Any:
        """Look."""
        return [Text(f"it says {KEY}"), Image(data=b"picture")]

    @tool
    async def fail() -> str:
        """Fail."""
        raise ValueError(f"no access with {KEY}")

    model = ScriptedModel(calls("read"), calls("look"), calls("fail"), "Done.")
    async with Agent(model, tools=[read, look, fail], redact=True).stream("Go") as stream:
        events = [event async for event in stream]
    output = [event.text for event in events if isinstance(event, ToolCallOutput)]
    assert output == [f"key: {PLACEHOLDER}\n", "more"]
    results = [message for message in stream.result.messages if isinstance(message, ToolResult)]
    assert [labels_in(text_of(result)) for result in results] == [["1:aws-key"]] * 3
    assert results[1].parts[1] == Image(data=b"picture")
    assert KEY not in text_of(events)


async def test_the_detail_of_an_outcome_has_the_words_of_the_terminal_event() -> None:
    agent = Agent(ScriptedModel(fails(ModelError(f"no such key: {KEY}"))), redact=True)
    async with agent.stream("go") as stream:
        outcome = await stream.wait()
    assert outcome.detail == f"no such key: {PLACEHOLDER}"

    async with Agent(ScriptedModel(hangs()), redact=True).stream("go") as stream:
        stream.stop(f"the key was {KEY}")
        outcome = await stream.wait()
    assert outcome.detail == f"the key was {PLACEHOLDER}"


async def test_steering_follow_ups_instructions_and_texts_of_hooks_are_redacted() -> None:
    @hooks.user_prompt_submit
    async def add(value: UserPromptSubmit) -> hooks.Context:
        return hooks.Context("by the way: AKIAIOSFODNN7EXAMPL2")

    @hooks.before_llm_call
    async def change(value: BeforeLLMCall) -> hooks.ReplaceRequest:
        return hooks.ReplaceRequest(instructions=f"{value.request.instructions} AKIAIOSFODNN7EXAMPL3")

    model = ScriptedModel("One.", "Two.", "Three.")
    agent = Agent(model, instructions=f"The key is {KEY}", hooks=[add, change], redact=True)
    async with agent.stream("Go") as stream:
        stream.steer("steer AKIAIOSFODNN7EXAMPL4")
        stream.follow_up("follow AKIAIOSFODNN7EXAMPL5")
        events = [event async for event in stream]
    for shown in (text_of(model.requests), text_of(events)):
        assert "AKIA" not in shown
    assert len(set(labels_in(text_of(model.requests)))) == 5


async def test_hooks_rules_and_people_see_placeholders_and_may_replace_arguments() -> None:
    got: list[Any] = []
    seen: list[Any] = []

    @hooks.pre_tool_use
    async def note(value: PreToolUse) -> ReplaceArguments:
        seen.append(value.arguments)
        return ReplaceArguments({**value.arguments, "extra": {"second": "AKIAIOSFODNN7EXAMPL2"}}, hooks.Ask())

    def approve(question: Any) -> Approve:
        assert isinstance(question, ApprovalRequested)
        seen.append(question.arguments)
        return Approve({**question.arguments, "key": question.arguments["key"] + "!"})

    agent = deploying(calls("deploy", key=PLACEHOLDER), "Done.", got=got, hooks=[note])
    await agent.run(f"Use {KEY}", on_question=approve)
    assert seen[0] == {"key": PLACEHOLDER}
    assert seen[1] == {"key": PLACEHOLDER, "extra": {"second": "[secret:2:aws-key]"}}
    assert got == [(f"{KEY}!", {"second": "AKIAIOSFODNN7EXAMPL2"})]


async def test_a_childs_run_shares_the_table_of_the_run_around_it() -> None:
    got: list[Any] = []

    @tool
    async def deploy(key: str) -> str:
        """Deploy."""
        got.append(key)
        return key

    inner_model = ScriptedModel(calls("deploy", key=PLACEHOLDER), f"used {PLACEHOLDER}")
    inner = Agent(inner_model, name="inner", tools=[deploy])
    outer_model = ScriptedModel(calls("inner", prompt=f"Use {PLACEHOLDER}"), "Done.")
    outer = Agent(outer_model, tools=[inner.as_tool()], redact=True)
    async with outer.stream(f"Use {KEY}") as stream:
        events = [event async for event in stream]
    assert got == [KEY]
    assert KEY not in text_of([events, inner_model.requests, outer_model.requests])


async def test_only_the_named_tools_get_the_real_values() -> None:
    got: list[Any] = []
    agent = deploying(calls("deploy", key=PLACEHOLDER), "Done.", got=got)
    await agent.replace(redact=Redaction(put_back=["http_*"])).run(f"Use {KEY}")
    assert got == [(PLACEHOLDER, None)]


async def test_patterns_and_names_of_the_user_count() -> None:
    redaction = Redaction(patterns={"ticket": r"TCK-\d+"}, secrets={"deploy-key": "s3cr3t"})
    model = ScriptedModel("Done.")
    await Agent(model, redact=redaction).run("TCK-123 needs s3cr3t")
    assert text_of(model.requests[0].messages[0]).count("[secret:") == 2
    assert "[secret:1:ticket] needs [secret:deploy-key]" in text_of(model.requests)
    await Agent(ScriptedModel("Done."), redact=[r"x(\d+)x"]).run("a x12345x")


async def test_a_session_goes_on_with_its_placeholders() -> None:
    got: list[Any] = []
    session = Session()
    await deploying("Noted.", got=got).run(f"The key is {KEY}", session=session)
    await deploying(calls("deploy", key=PLACEHOLDER), "Done.", got=got).run("Deploy", session=session)
    assert got == [(KEY, None)]


@tool(requires_approval=True)
async def deploy_approved(key: str) -> str:
    """Deploy."""
    DEPLOYED.append(key)
    return "ok"


DEPLOYED: list[str] = []


def resumable() -> Model:
    def respond(request: ModelRequest) -> Any:
        asked = sum(not isinstance(message, ToolResult) for message in request.messages)
        return calls("deploy_approved", key=PLACEHOLDER) if asked == 1 else says("Done.")

    return FunctionModel(respond)


async def parked(store: Any) -> str:
    agent = Agent(resumable(), tools=[deploy_approved], redact=True)
    async with stored_session(store, "s") as session:
        outcome = await agent.run(f"Use {KEY}", session=session, on_question="park")
        assert outcome.reason == "needs_input"
    return outcome.questions[0].id


async def test_a_run_that_another_process_resumes_cannot_put_its_secrets_back_and_says_so() -> None:
    DEPLOYED.clear()
    async with MemoryStore().open() as store:
        question = await parked(store)
        agent = Agent(resumable(), tools=[deploy_approved], redact=True)
        # A session that is opened anew knows as much as one in another process.
        async with stored_session(store, "s") as session:
            outcome = await agent.resume(session, {question: Approve()})
            assert session.secrets == {}
    (result,) = [message for message in outcome.messages if isinstance(message, ToolResult)]
    assert result.status == "error"
    assert "The value of [secret:1:aws-key] is not known any more" in text_of(result)
    assert DEPLOYED == []


async def test_a_run_that_another_process_resumes_puts_back_the_secrets_that_it_is_given() -> None:
    DEPLOYED.clear()
    async with MemoryStore().open() as store:
        question = await parked(store)
        redaction = Redaction(secrets={PLACEHOLDER: KEY})
        agent = Agent(resumable(), tools=[deploy_approved], redact=redaction)
        async with stored_session(store, "s") as session:
            await agent.resume(session, {question: Approve()})
        assert KEY not in await records_of(store, "s")
    assert DEPLOYED == [KEY]


async def test_new_secrets_of_a_resumed_session_get_other_placeholders_than_the_old_ones() -> None:
    async with MemoryStore().open() as store:
        await parked(store)
        async with stored_session(store, "s") as session:
            await Agent(ScriptedModel("Ok."), redact=True).run("Another: AKIAIOSFODNN7EXAMPL2", session=session)
            assert session.secrets == {"[secret:2:aws-key]": "AKIAIOSFODNN7EXAMPL2"}


async def test_the_answer_of_a_person_reaches_the_tool_and_not_the_journal() -> None:
    got: list[Any] = []

    @tool(if_interrupted="retry")
    async def login(context: ToolContext[Any]) -> str:
        """Log in."""
        form: Mapping[str, Any] = {
            "type": "object",
            "properties": {"password": {"type": "string", "maxLength": 8}},
            "required": ["password"],
        }
        answer = await context.ask("The password?", form)
        assert isinstance(answer, Accept)
        got.append(answer.content)
        await context.remember("answer", answer.content)
        got.append(context.recall("answer", dict[str, str]))
        await context.save_session_value("answer", answer.content)
        got.append(context.session_value("answer", dict[str, str]))
        return "in"

    def respond(request: ModelRequest) -> Any:
        return calls("login") if len(request.messages) == 1 else says("Done.")

    answer = Accept({"password": "hunter22"})
    async with MemoryStore().open() as store:
        agent = Agent(FunctionModel(respond), tools=[login], redact=True)
        async with stored_session(store, "parked") as session:
            outcome = await agent.run("Go", session=session, on_question="park")
            await agent.resume(session, {outcome.questions[0].id: answer})
        async with stored_session(store, "live") as session:
            await agent.run("Go", session=session, on_question=lambda question: answer)
        for name in ("parked", "live"):
            saved = await records_of(store, name) + text_of(
                {id: bytes(data) for id, data in (await store.answers(name)).items()}
            )
            assert "hunter22" not in saved
    assert got == [{"password": "hunter22"}] * 6


async def test_a_question_shows_placeholders() -> None:
    asked: list[ElicitationRequested] = []

    @tool
    async def confirm(key: str, context: ToolContext[Any]) -> str:
        """Confirm."""
        await context.ask(f"Use {key}?")
        return "ok"

    def answer(question: Any) -> Accept:
        asked.append(question)
        return Accept()

    agent = Agent(ScriptedModel(calls("confirm", key=PLACEHOLDER), "Done."), tools=[confirm], redact=True)
    await agent.run(f"Use {KEY}", on_question=answer)
    assert [question.message for question in asked] == [f"Use {PLACEHOLDER}?"]


async def test_an_agent_without_redact_shows_what_it_gets() -> None:
    model = ScriptedModel("Done.")
    session = Session()
    await Agent(model).run(f"Use {KEY}", session=session)
    assert KEY in text_of(model.requests)
    assert session.secrets == {}


def wrong(value: object) -> Any:
    return value


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Agent("m:x", redact=wrong(b"secret")), "redact= takes True"),
        (lambda: Agent("m:x", redact=wrong(3)), r"Redaction\(\.\.\.\), not 3"),
        (lambda: Agent("m:x", redact=["("]), "which '\\('"),
        (lambda: Redaction(patterns=["x*"]), "matches where there is nothing"),
        (lambda: Redaction(patterns={"a b": "x"}), "a kind is letters"),
        (lambda: Redaction(secrets={"a": "abc"}), "the value of 'a' is not a text of 4"),
        (lambda: Redaction(secrets={"a b": "abcd"}), "a name is letters"),
        (lambda: Redaction(put_back="deploy"), "put_back= takes a list"),
    ],
)
def test_a_wrong_redaction_is_refused_with_the_way_out(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        make()


class FakeLibrary(ModuleType):
    """The part of Kingfisher's library that is used: it finds words that begin with ``rare-``."""

    class Scanner:
        def __init__(self, *, base64: bool) -> None:
            assert not base64

        def scan(self, text: str, *, timeout: float) -> list[Any]:
            if "slow" in text:
                raise TimeoutError
            return [
                SimpleNamespace(visible=True, rule_id="rules.Rare Key", secret=word)
                for word in text.split()
                if word.startswith("rare-")
            ]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction_of_runs, "_loaded", None)
    monkeypatch.setitem(sys.modules, "kingfisher_sdk", FakeLibrary("kingfisher_sdk"))


@pytest.mark.usefixtures("library")
async def test_the_rules_of_the_library_count_beside_the_others() -> None:
    model = ScriptedModel("One.", "Two.")
    agent = Agent(model, redact=Redaction(library=True))
    session = Session()
    await agent.run(f"rare-1234 and {KEY}", session=session)
    assert "[secret:1:rare-key] and [secret:2:aws-key]" in text_of(model.requests)
    await agent.run("a slow text with rare-5678", session=session)
    assert "the search for secrets in this text failed" in text_of(model.requests[1])
    assert "rare-5678" not in text_of(model.requests)


async def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction_of_runs, "_loaded", None)
    monkeypatch.setitem(sys.modules, "kingfisher_sdk", None)
    with pytest.raises(MissingExtraError, match=r"agentloop-trio\[redaction\]"):
        await Agent(ScriptedModel("Hi."), redact=Redaction(library=True)).run("Hi")


@pytest.mark.nightly
async def test_kingfishers_rules_find_a_token_that_no_shape_of_ours_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("kingfisher_sdk")
    monkeypatch.setattr(redaction_of_runs, "_loaded", None)
    # Where the compiled rules go.
    monkeypatch.setenv("KF_RULE_CACHE_DIR", str(tmp_path))
    token = "xoxb-123456789012-123456789012-AbCdEfGhIjKlMnOpQrStUvWx"
    model = ScriptedModel("Hi.")
    await Agent(model, redact=Redaction(library=True)).run(f"Use {token}")
    assert token not in text_of(model.requests)
    assert redaction_of_runs._loaded is not None
    assert [secret for _, secret in redaction_of_runs._loaded(f"Use {token}")] == [token]
