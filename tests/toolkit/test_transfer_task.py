"""A task is given to one of several agents, by its name."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop import Agent, Permissions, Rule, Team
from agentloop.errors import UsageError
from agentloop.events import ApprovalRequested, ToolCallFinished, WarningIssued
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest
from agentloop.questions import Approve
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import FunctionModel, ScriptedModel, calls, fails
from agentloop.toolkit import transfer_task
from agentloop.tools import tool


def echo(name: str, description: str = "") -> Agent:
    def answer(request: ModelRequest) -> str:
        return f"{name} did: {request.messages[0].text}"

    return Agent(FunctionModel(answer), name=name, description=description)


def task(agent: str, task: str, **more: str) -> Any:
    return calls("transfer_task", agent=agent, task=task, **more)


async def results(lead: Agent) -> list[str]:
    outcome = await lead.run("go")
    return [message.text for message in outcome.messages if isinstance(message, ToolResult)]


async def test_the_agents_of_a_batch_work_at_once_and_their_answers_come_back_in_order() -> None:
    batch = task("coder", "write it", expected_output="a diff") + task("tester", "try it")
    lead = Agent(ScriptedModel(batch, "Done."), tools=[transfer_task(echo("coder"), echo("tester"))])
    assert await results(lead) == ["coder did: write it\n\nExpected output:\na diff", "tester did: try it"]


async def test_the_model_reads_what_each_agent_is_for() -> None:
    seen: list[ModelRequest] = []

    def record(request: ModelRequest) -> str:
        seen.append(request)
        return "Done."

    await Agent(FunctionModel(record), tools=[transfer_task(echo("coder", "writes code"), echo("tester"))]).run("go")
    [spec] = seen[0].tools
    assert spec.description.endswith("Agents:\n- coder: writes code\n- tester")
    assert spec.parameters["properties"]["agent"]["enum"] == ["coder", "tester"]
    assert spec.parameters["required"] == ["agent", "task"]


async def test_a_name_that_no_agent_has_and_an_agent_without_an_answer_are_errors_for_the_model() -> None:
    broken = Agent(ScriptedModel(fails(RuntimeError("gone"))), name="broken")
    script = ScriptedModel(task("coda", "x"), task("broken", "x"), calls("transfer_task", agent="coder"), "Done.")
    unknown, failed, missing = await results(Agent(script, tools=[transfer_task(echo("coder"), broken)]))
    assert unknown == "invalid arguments: `agent`: invalid enum value 'coda'; it is one of 'broken', 'coder'"
    assert "agent 'broken' gave no answer: " in failed
    assert "task" in missing


async def test_a_task_that_waits_for_a_person_is_parked_and_goes_on_in_another_process() -> None:
    @tool(requires_approval=True)
    async def pay() -> str:
        return "paid"

    def lead() -> Agent:
        payer = Agent(ScriptedModel(calls("pay"), "All paid."), name="payer", tools=[pay])
        return Agent(ScriptedModel(task("payer", "pay"), "Done."), tools=[transfer_task(payer)])

    def rest() -> Agent:
        payer = Agent(ScriptedModel("All paid."), name="payer", tools=[pay])
        return Agent(ScriptedModel("Done."), tools=[transfer_task(payer)])

    async with MemoryStore().open() as store:
        async with stored_session(store, "ann") as session, lead().stream("go", session=session) as stream:
            async for event in stream:
                if isinstance(event, ApprovalRequested):
                    stream.park()
        async with stored_session(store, "ann") as session:
            [question] = session.questions
            outcome = await rest().resume(session, {question.id: Approve()})
    assert outcome.output == "Done."


async def test_rules_may_be_about_the_tools_of_each_agent() -> None:
    @tool
    async def pay() -> str:
        return "paid"

    @tool
    async def refund() -> str:
        return "refunded"

    payer = Agent(ScriptedModel(calls("pay"), "Not paid."), name="payer", tools=[pay])
    team = Team(echo("front"), Agent(ScriptedModel("Hi."), name="refunds", tools=[refund]))
    rules = Permissions(deny=[Rule("pay"), Rule("refund"), Rule("pays")])
    tools = [transfer_task(payer), team.as_tool()]
    lead = Agent(ScriptedModel(task("payer", "pay"), "Done."), tools=tools, permissions=rules)
    async with lead.stream("go") as stream:
        events = [event async for event in stream]
    [warning] = [event for event in events if isinstance(event, WarningIssued)]
    assert "'pays'" in warning.message
    [denied, _] = [event for event in events if isinstance(event, ToolCallFinished)]
    assert (denied.source.agents, denied.name) == (("agent", "payer"), "pay")
    assert denied.result.text.startswith("Denied")


@pytest.mark.parametrize(
    ("agents", "problem"),
    [
        ([], "has no agents"),
        ([echo("a"), echo("a")], "are called 'a'"),
        (["a"], "takes agents, one after the other, not 'a'"),
    ],
)
def test_what_is_no_set_of_agents_is_refused(agents: list[Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        transfer_task(*agents)
