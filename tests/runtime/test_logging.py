"""What an operator sees in `logging`: each step of a run, every warning, tracebacks; and never a word or a key."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import Accept, Agent, Approve, Deadlines, Limits, ToolContext, hooks, tool
from agentloop._runtime import logs
from agentloop.errors import ModelAuthenticationError, ToolError
from agentloop.events import (
    MessageCommitted,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    WarningIssued,
)
from agentloop.limits import Compaction
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls, fails, says
from agentloop.toolsets import Toolsets
from tests.providers.server import answer, answering, serving
from tests.runtime.ways import WAYS, FakeToolset, Way
from tests.support import of, watch

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "logging.md"
ARGUMENT = "the-account-of-Ada-Lovelace"
KEY = "plain-words-as-a-key"
ORDER: dict[str, Any] = {"account": ARGUMENT}


@pytest.fixture(autouse=True)
def _at_debug_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "agentloop")


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.DEBUG) -> list[str]:
    """The records of ``level`` of agentloop's loggers, as ``logger: message``."""
    return [
        f"{record.name.removeprefix('agentloop.')}: {record.getMessage()}"
        for record in ours(caplog)
        if record.levelno == level
    ]


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith("agentloop.")]


def written(caplog: pytest.LogCaptureFixture) -> str:
    """All that a handler would write, tracebacks included."""
    formatter = logging.Formatter("%(levelname)s %(name)s %(message)s")
    return "\n".join(formatter.format(record) for record in ours(caplog))


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, type[BaseException] | None]]:
    return [
        (record.name.removeprefix("agentloop."), record.levelname, record.exc_info[0])
        for record in ours(caplog)
        if record.exc_info
    ]


@tool
async def pay(account: str) -> str:
    """Pay a bill."""
    return f"paid {account}"


@tool
async def broken(account: str) -> str:
    """Raise an error."""
    raise OSError("the disk is full")


@tool
async def picky(account: str) -> str:
    """Report an error to the model."""
    raise ToolError("no such account")


@tool(requires_approval=True)
async def shred(account: str, context: ToolContext[None]) -> str:
    """Ask, and shred."""
    await context.ask("Sure?")
    context.warn("shredder_hot", f"while shredding {account}")
    return "gone"


@hooks.pre_tool_use
async def failing_guard(value: hooks.PreToolUse) -> None:
    raise ValueError("the guard has crashed")


@hooks.after_llm_call
async def failing_observer(value: hooks.AfterLLMCall) -> None:
    raise ValueError("the observer has crashed")


# ------------------------------------------------------------------------------ the steps


async def test_each_step_of_a_run_is_a_debug_record(caplog: pytest.LogCaptureFixture) -> None:
    @hooks.session_start
    async def greet(value: hooks.SessionStart) -> None:
        pass

    model = ScriptedModel(calls("pay", account=ARGUMENT), says("Done, and well done."))
    async with Agent(model, tools=[pay], hooks=[greet]).stream("Pay, please.") as stream:
        await stream.wait()

    steps = [line.replace(f"stream {stream.id!r}: ", "") for line in lines(caplog)]
    assert [line.partition(", 0.")[0] for line in steps] == [
        "run: run of ('agent',) opened: model 'scripted', resumes ''",
        "hooks: the session_start hook 'greet' returned NoneType",
        "run: message 0 committed: UserMessage",
        "run: turn 1 began",
        "model: asking model 'scripted': 1 messages, 1 tools",
        "model: response of model 'scripted' complete: tool_calls, 1 calls, 10 tokens in, 5 out",
        "tools: call 'call_1_1_0' of tool 'pay' began",
        "tools: call 'call_1_1_0' of tool 'pay' ended: ok",
        "run: message 1 committed: AssistantMessage",
        "run: message 2 committed: ToolResult",
        "run: turn 1 ended: tool_calls",
        "run: turn 2 began",
        "model: asking model 'scripted': 3 messages, 1 tools",
        "model: response of model 'scripted' complete: end, 0 calls, 10 tokens in, 5 out",
        "run: message 3 committed: AssistantMessage",
        "run: turn 2 ended: final",
        "run: run ended: completed, 2 requests, 20 tokens in, 10 out",
    ]


async def test_a_run_that_is_not_read_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(ScriptedModel("Hello."), name="inner")
    outer = Agent(ScriptedModel(calls("inner", prompt="go"), "Done."), name="outer", tools=[agent.as_tool()])
    await outer.run("Hello?")

    opened = [line for line in lines(caplog) if " opened" in line]
    assert ["child run" in line for line in opened] == [False, True]
    assert "by call 'call_1_1_0'" in opened[1]
    assert sum("run ended: completed" in line for line in lines(caplog)) == 2


async def test_a_delta_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def count(words: int) -> int:
        caplog.clear()
        watched = await watch(Agent(ScriptedModel(says("word " * words))))
        assert len(of(watched.events, TextDelta)) >= words
        return len(ours(caplog))

    assert await count(100) == await count(1)


async def test_a_question_is_logged_from_the_asking_to_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(question: StreamEvent) -> object:
        return Approve() if type(question).__name__ == "ApprovalRequested" else Accept({})

    agent = Agent(ScriptedModel(calls("shred", **ORDER), "Done."), tools=[shred])
    await agent.run("Shred it.", on_question=handler)  # type: ignore[arg-type]

    asked = [line.partition(": ")[2].partition(": ")[2] for line in lines(caplog) if line.startswith("questions")]
    ids = [line.split("'")[1] for line in asked]
    assert asked == [
        f"question {ids[0]!r} asked: approval of call 'call_1_1_0' of tool 'shred'",
        f"question {ids[0]!r} answered by handler: Approve",
        f"question {ids[2]!r} asked by call 'call_1_1_0': elicitation",
        f"question {ids[2]!r} answered by handler: Accept",
    ]
    assert any("call 'call_1_1_0' of tool 'shred' allowed" in line for line in lines(caplog))


async def test_a_journal_logs_its_lease_its_writes_and_a_parked_question(caplog: pytest.LogCaptureFixture) -> None:
    async with MemoryStore().open() as store, stored_session(store, "bills") as session:
        agent = Agent(ScriptedModel(calls("shred", **ORDER)), tools=[shred])
        outcome = await agent.run("Shred it.", session=session, on_question="park")
        assert outcome.reason == "needs_input"

    text = "\n".join(lines(caplog))
    for step in ("lease acquired by", "journal read: 0 records", "\\d+ records written", "lease released"):
        assert re.search(f"journal: session 'bills': {step}", text)
    assert "call 'call_1_1_0' of tool 'shred' parked" in text
    assert "question 'bills/1?1' parked" in text
    assert "run ended: needs_input" in text


async def test_a_toolset_logs_its_start_its_listing_and_its_stop(caplog: pytest.LogCaptureFixture) -> None:
    async with Toolsets(FakeToolset(tools=[pay])) as shared:
        await Agent(ScriptedModel("Hello."), toolsets=[shared]).run("Hello?")

    steps = [line for line in lines(caplog) if line.startswith("toolsets") and "'fake'" in line]
    assert steps[0] == "toolsets: toolset 'fake' started"
    assert set(steps[1:-1]) == {"toolsets: toolset 'fake' listed 1 tools"}
    assert steps[-1] == "toolsets: toolset 'fake' stopped"


async def test_a_compaction_is_logged_with_its_sizes(caplog: pytest.LogCaptureFixture) -> None:
    compaction = Compaction(window=100, result_tokens=1)
    model = ScriptedModel(calls("pay", account=ARGUMENT * 20), "A summary.", "Done.")
    await Agent(model, tools=[pay], compaction=compaction).run("Pay, please. " * 40)

    steps = [line for line in lines(caplog) if "compaction" in line]
    assert any("compaction began (threshold): " in line for line in steps)
    assert any("compaction ended: " in line for line in steps)


async def test_a_discarded_response_is_logged_by_the_type_of_its_error(caplog: pytest.LogCaptureFixture) -> None:
    model = ScriptedModel(says("Half a sen") + fails(OSError("reset by peer")), "Whole.")
    await Agent(model).run("Hello?")

    [line] = [line for line in lines(caplog) if "discarded" in line]
    assert "response of model 'scripted' discarded (ModelConnectionError)" in line


# ------------------------------------------------------------------- warnings and tracebacks


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_every_warning_event_is_a_warning_record_and_no_record_has_words(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    watched = await watch(way.make(), on_event=way.on_event, **way.options)

    warned = [event.code for event in of(watched.events, WarningIssued)]
    records = [record for record in ours(caplog) if record.levelno == logging.WARNING]
    assert [code for code in warned if not any(f" {code}: " in record.getMessage() for record in records)] == []
    messages = "\n".join(record.getMessage() for record in ours(caplog))
    spoken = {event.arguments for event in of(watched.events, ToolCallStarted)}
    spoken |= {event.arguments for event in of(watched.events, ToolCallDelta)}
    spoken |= {event.message.text for event in of(watched.events, MessageCommitted)}
    spoken |= {event.result.text for event in of(watched.events, ToolCallFinished)}
    assert [text for text in spoken if len(text) > 5 and text in messages] == []


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (Agent(ScriptedModel(calls("broken", **ORDER), "Sorry."), tools=[broken]), ("tools", "ERROR", OSError)),
        (Agent(ScriptedModel(calls("picky", **ORDER), "Sorry."), tools=[picky]), ("tools", "DEBUG", ToolError)),
        (
            Agent(ScriptedModel(calls("pay", **ORDER), "Sorry."), tools=[pay], hooks=[failing_guard]),
            ("hooks", "ERROR", ValueError),
        ),
        (Agent(ScriptedModel("Hello."), hooks=[failing_observer]), ("hooks", "WARNING", ValueError)),
    ],
    ids=["tool", "tool-error", "guard", "observer"],
)
async def test_an_exception_of_a_tool_or_a_hook_is_logged_with_its_traceback(
    agent: Agent, expected: tuple[str, str, type[BaseException]], caplog: pytest.LogCaptureFixture
) -> None:
    await agent.run("Go.")

    assert tracebacks(caplog) == [expected]


async def test_an_exception_of_a_handler_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(question: object) -> None:
        raise KeyError("nobody")

    agent = Agent(ScriptedModel(calls("shred", **ORDER), "Done."), tools=[shred])
    await agent.run("Shred it.", on_question=handler)

    assert tracebacks(caplog) == [("questions", "WARNING", KeyError)]


async def test_a_tool_that_times_out_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    @tool
    async def sleep() -> None:
        """Sleep."""
        await trio.sleep_forever()

    await Agent(ScriptedModel(calls("sleep"), "Sorry."), tools=[sleep], deadlines=Deadlines(tool=3)).run("Go.")

    [line] = lines(caplog, logging.WARNING)
    assert line.endswith("call 'call_1_1_0' of tool 'sleep' timed out after 3 s")


async def test_a_run_that_failed_is_a_warning_with_the_type_of_its_error(caplog: pytest.LogCaptureFixture) -> None:
    watched = await watch(Agent(ScriptedModel(fails(ModelAuthenticationError(model="m", status=401, body=ARGUMENT)))))

    assert watched.outcome.reason == "failed"
    assert [line.rpartition(": ")[2] for line in lines(caplog, logging.WARNING)] == ["ModelAuthenticationError"]


async def test_a_handler_of_logging_that_raises_changes_nothing_in_a_run() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no log today")

    handler = Broken()
    logging.getLogger("agentloop").addHandler(handler)
    try:
        outcome = await Agent(ScriptedModel(calls("broken", **ORDER), "Sorry."), tools=[broken]).run("Go.")
    finally:
        logging.getLogger("agentloop").removeHandler(handler)

    assert outcome.reason == "completed"


# ---------------------------------------------------------------------------- never a secret


@asynccontextmanager
async def a_server_that_echoes_the_key() -> AsyncGenerator[OpenAIChat]:
    body = b'{"error": {"message": "wrong key: %s in Authorization: Bearer %s"}}' % (KEY.encode(), KEY.encode())
    async with serving(answering(*[answer(body, status="401 Unauthorized")] * 10)) as server:
        yield OpenAIChat("m", base_url=server.url, api_key=KEY)


@pytest.mark.real_clock
async def test_neither_a_key_nor_an_argument_is_in_any_record_of_runs_that_fail_in_many_ways(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(question: object) -> None:
        raise KeyError("nobody")

    def script(name: str) -> ScriptedModel:
        return ScriptedModel(calls(name, **ORDER), "Done.")

    async with a_server_that_echoes_the_key() as model:
        child = Agent(model, name="child")

        @tool
        async def delegate(account: str, context: ToolContext[None]) -> str:
            """Have a child do it."""
            return str((await context.run(child, account)).output)

        agents = [
            Agent(script(used.name), tools=[used], hooks=[*hooked], limits=Limits(turns=5))
            for used in (pay, broken, picky, shred, delegate)
            for hooked in ([], [failing_guard], [failing_observer])
        ]
        async with MemoryStore().open() as store:
            for number, agent in enumerate([*agents, child]):
                async with (
                    stored_session(store, f"session-{number}") as session,
                    agent.stream(f"Pay {ARGUMENT}.", session=session, on_question=handler) as stream,
                ):
                    await stream.wait()

    text = written(caplog)
    assert "ModelAuthenticationError" in text
    assert "POST http://localhost" in text
    assert "Traceback" in text
    assert ARGUMENT not in text
    assert KEY not in text


@pytest.mark.parametrize(
    "secret",
    [
        "sk-abcdefghijklmnopqrstuvwx",
        "Authorization: Bearer open-sesame",
        "{'Authorization': 'Basic b3Blbjpz'}",
        "headers=[(b'x-api-key', b'open-sesame')]",
        "https://ada:open-sesame@example.org/",
        "the key of the environment: of-the-environment",
    ],
)
async def test_a_traceback_with_a_key_is_logged_as_redacted_text(
    secret: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_API_KEY", "of-the-environment")

    @tool
    async def leak() -> None:
        """Raise an error with a key in it."""
        raise OSError(secret)

    await Agent(ScriptedModel(calls("leak"), "Sorry."), tools=[leak]).run("Go.")

    [record] = [record for record in ours(caplog) if record.levelno == logging.ERROR]
    text = written(caplog)
    assert record.exc_info is None
    assert "Traceback" in text
    assert "<redacted>" in text
    for word in ("sk-abc", "open-sesame", "b3Blbjpz", "of-the-environment"):
        assert word not in text


# -------------------------------------------------------------------------------- the page


def test_the_page_has_every_logger() -> None:
    loggers = {value.name for value in vars(logs).values() if isinstance(value, logging.Logger)}
    rows = {line.split("`")[1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")}
    assert rows == loggers


def test_an_application_without_logging_sees_nothing() -> None:
    handlers = logging.getLogger("agentloop").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
