"""The part of the corpus in which secrets are redacted, and in which models judge."""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from agentloop import hooks
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import ModelConnectionError
from agentloop.events import Question
from agentloop.judges import judge
from agentloop.questions import Accept, Answer
from agentloop.redaction import Redaction
from agentloop.testing._lab import Lab, echo
from agentloop.testing.harness.registry import ends, on_depths, scenario
from agentloop.testing.harness.session_scenarios import ID, Story, story
from agentloop.testing.scripted import calls, fails, hangs, says
from agentloop.tools import Tool, tool

__all__: list[str] = []

KEY = "AKIAIOSFODNN7EXAMPLE"
FOUND = "[secret:1:aws-key]"
NAMED = "[secret:deploy-key]"
ALLOW = '{"allow": true, "reason": "fine"}'
DENY = '{"allow": false, "reason": "not here"}'


def _check(lab: Lab, where: str, shown: object) -> None:
    """Note a secret in what somebody gets to see."""
    if KEY in msgspec.json.encode(shown).decode():
        lab.watch.note(f"{where} has the secret")


def _deploying(lab: Lab, name: str = "deploy", **options: Any) -> Tool:
    """A tool that needs the real key, and tells it."""

    @tool(name=name, **options)
    async def deploy(key: str, context: ToolContext[Any]) -> str:
        """Deploy with a key."""
        lab.effect(context, name)
        if key != KEY:
            lab.watch.note(f"{name} got {key!r} in the place of the secret")
        await lab.sim.seam(f"tool:{name}")
        await context.output(f"deploying with {key[:9]}")
        await context.output(f"{key[9:]}\nand more")
        return f"deployed with {key}"

    return deploy


# ------------------------------------------------------------------------- secrets, without a journal


@scenario(ends("completed"))
async def a_secret_of_the_prompt_put_back(lab: Lab) -> None:
    """In the arguments of two calls side by side, one of them of a child run."""
    inner = Agent(lab.model(calls("deploy", key=FOUND), name="inner"), name="inner", tools=[_deploying(lab)])
    asked = calls("deploy", key=FOUND) + calls("inner", prompt=f"deploy {FOUND}")
    agent = Agent(lab.model(asked, name="outer"), tools=[_deploying(lab), inner.as_tool()], redact=True)
    async with lab.stream(agent, f"Use {KEY}") as stream:
        async for event in stream:
            _check(lab, "an event", event)


def _password(_question: Question) -> Answer:
    return Accept({"password": KEY})


@on_depths("completed", answer=_password)
def a_secret_in_an_answer(lab: Lab) -> Agent[Any, Any]:
    """The tool gets the answer as the person gave it, and shows it."""
    form = {"type": "object", "properties": {"password": {"type": "string"}}, "required": ["password"]}

    async def body(context: ToolContext[Any]) -> str:
        message = f"login of {context.source.session}"
        answer = lab.received[message] = await context.ask(message, form)
        return f"got {answer}"

    return Agent(lab.model(calls("login")), tools=[lab.bare("login", body)], redact=True)


@on_depths("completed")
def a_tool_fails_with_a_secret(lab: Lab) -> Agent[Any, Any]:
    async def body(_context: ToolContext[Any]) -> str:  # noqa: ASYNC124 - a tool is async
        raise ValueError(f"no access with {KEY}")

    return Agent(lab.model(calls("fail")), tools=[lab.bare("fail", body)], redact=True)


@on_depths("completed")
def a_placeholder_that_nobody_knows(lab: Lab) -> Agent[Any, Any]:
    return Agent(lab.model(calls("deploy", key="[secret:9:aws-key]")), tools=[_deploying(lab)], redact=True)


# ---------------------------------------------------------------------------- secrets, with a journal


def _deploys(lab: Lab) -> Agent[Any, Any]:
    """A call with a named secret that a person approves, after one that shows it."""
    model = lab.planned(calls("show"), calls("deploy", key=NAMED), "Done.")

    async def show(_context: ToolContext[Any]) -> str:  # noqa: ASYNC124 - a tool is async
        return f"the key is {KEY}"

    tools = [lab.bare("show", show, read_only=True), _deploying(lab, requires_approval=True)]
    return Agent(model, tools=tools, redact=Redaction(secrets={"deploy-key": KEY}))


def _check_journal(story: Story) -> None:
    for event in story.journal.saved(ID).events.values():
        _check(story.lab, f"the saved event {event.seq}", event)


@story(_deploys, reasons=("completed",), effects={"deploy": 1})
async def redacted(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", on_event=lambda _stream, event: _check(story.lab, "A", event))
    _check_journal(story)


@story(_deploys, reasons=("needs_input", "completed"), effects={"deploy": 1})
async def redacted_and_parked(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
    _check_journal(story)


def _finds(lab: Lab) -> Agent[Any, Any]:
    """A call with a secret that only the process which found it knows."""
    model = lab.planned(calls("show"), calls("deploy", key=FOUND), "Done.")

    async def show(_context: ToolContext[Any]) -> str:  # noqa: ASYNC124 - a tool is async
        return f"the key is {KEY}"

    tools = [lab.bare("show", show, read_only=True), _deploying(lab, requires_approval=True)]
    return Agent(model, tools=tools, redact=True)


@story(_finds, reasons=("needs_input", "completed"), effects={})
async def a_found_secret_that_another_process_does_not_know(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
    _check_journal(story)


def _works(lab: Lab) -> Agent[Any, Any]:
    model = lab.planned(calls("work", key=NAMED), "Done.")

    @tool(if_interrupted="retry")
    async def work(key: str, context: ToolContext[Any]) -> str:
        """Work for long, and remember the key."""
        lab.effect(context, "work")
        if context.recall("key", str) not in (None, KEY):
            lab.watch.note("the tool remembers another key")
        await context.remember("key", key)
        await trio.sleep(20)
        return key

    return Agent(model, tools=[work], redact=Redaction(secrets={"deploy-key": KEY}))


@story(_works, reasons=("cancelled", "completed"), effects={"work": 2})
async def killed_with_a_secret(story: Story) -> None:
    async with story.process("P") as client, trio.open_nursery() as nursery, story.session(client) as session:

        async def kill() -> None:
            await trio.sleep(10)
            client.kill()

        nursery.start_soon(kill)
        await story.go_on(client, session, name="A")
        nursery.cancel_scope.cancel()
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
    _check_journal(story)


# ---------------------------------------------------------------------------------- judges


def _judged(lab: Lab, *script: Any, **options: Any) -> Agent[Any, Any]:
    """A call that a judge with ``script`` decides about."""
    guard = judge(lab.model(*script, name="judge"), "Rules.", at=hooks.pre_tool_use, **options)
    return Agent(lab.model(calls("one")), tools=[lab.tool("one")], hooks=[lab.hook(hooks.pre_tool_use), guard])


@on_depths("completed")
def a_judge_allows(lab: Lab) -> Agent[Any, Any]:
    return _judged(lab, ALLOW)


@on_depths("completed")
def a_judge_denies(lab: Lab) -> Agent[Any, Any]:
    return _judged(lab, DENY)


@on_depths("completed")
def a_judge_fails(lab: Lab) -> Agent[Any, Any]:
    return _judged(lab, fails(ModelConnectionError("gone")), fails(ModelConnectionError("gone")), "?", timeout=300)


@on_depths("completed")
def a_judge_fails_and_a_person_is_asked(lab: Lab) -> Agent[Any, Any]:
    return _judged(lab, "?", on_failure="ask")


@on_depths("completed")
def a_judge_leaves_it_to_a_person(lab: Lab) -> Agent[Any, Any]:
    return _judged(lab, '{"decision": "ask", "reason": "who knows"}', may_ask=True)


@on_depths("completed")
def a_judge_times_out(lab: Lab) -> Agent[Any, Any]:
    return _judged(lab, hangs(), timeout=5)


@on_depths("blocked")
def a_judge_blocks_the_prompt(lab: Lab) -> Agent[Any, Any]:
    guard = judge(lab.model(DENY, name="judge"), "Rules.", at=hooks.user_prompt_submit)
    return Agent(lab.model("Hello."), hooks=[guard])


@on_depths("blocked")
def a_judge_blocks_the_answer(lab: Lab) -> Agent[Any, Any]:
    guard = judge(lab.model(DENY, DENY, name="judge"), "Rules.", at=hooks.stop, retries=1)
    return Agent(lab.model("One.", "Two."), hooks=[guard])


@scenario(ends("cancelled"))
async def stopped_while_a_judge_thinks(lab: Lab) -> None:
    agent = _judged(lab, says("Well") + hangs(), timeout=100)

    async with lab.stream(agent) as stream:
        with trio.move_on_after(3):
            await stream.drain(answer=echo)
        stream.stop()
        await stream.drain(answer=echo)


def _judged_session(lab: Lab) -> Agent[Any, Any]:
    """A judge that has a person asked: it is asked again when the run is resumed."""
    guard = judge(lab.model(*[DENY] * 8, name="judge"), "Rules.", at=hooks.pre_tool_use, on_deny="ask")
    return Agent(lab.planned(calls("one"), "Done."), tools=[lab.tool("one")], hooks=[guard])


@story(_judged_session, reasons=("needs_input", "completed"), effects={"one": 1})
async def judged_and_parked(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
