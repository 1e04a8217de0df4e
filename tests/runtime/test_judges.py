"""A judge is a model that allows or denies at a hook point, counts as a request of the run, and fails closed."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from agentloop import Agent, Approve, Limits, hooks, tool
from agentloop.errors import ModelConnectionError, UsageError
from agentloop.events import ApprovalRequested, UsageReported, WarningIssued
from agentloop.hooks import PreToolUse
from agentloop.judges import MOST_CHARACTERS, judge
from agentloop.messages import Text, ToolResult
from agentloop.redaction import Redaction
from agentloop.testing import FunctionModel, ScriptedModel, calls, fails, hangs, says

ALLOW = '{"allow": true, "reason": "fine"}'
DENY = '{"allow": false, "reason": "not on a Sunday"}'
TOOL = hooks.pre_tool_use


def paying(*judges: Any, paid: list[int], script: tuple[Any, ...] = (), **options: Any) -> Agent[Any, Any]:
    @tool
    async def pay(amount: int) -> str:
        """Pay."""
        paid.append(amount)
        return "paid"

    responses = script or (calls("pay", amount=5), "Done.")
    return Agent(ScriptedModel(*responses), tools=[pay], hooks=judges, **options)


def results(outcome: Any) -> list[ToolResult]:
    return [message for message in outcome.messages if isinstance(message, ToolResult)]


async def test_a_call_that_the_judge_allows_runs_and_its_requests_count_in_the_run() -> None:
    paid: list[int] = []
    model = ScriptedModel(ALLOW)
    agent = paying(judge(model, "Allow up to 10.", at=TOOL), paid=paid)
    async with agent.stream("Pay") as stream:
        reported = [event async for event in stream if isinstance(event, UsageReported)]
    assert paid == [5]
    assert [event.purpose for event in reported] == ["turn", "judge", "turn"]
    assert stream.result.usage.requests == 3
    (request,) = model.requests
    assert "Allow up to 10." in request.instructions
    assert request.output is not None
    (case,) = request.messages
    assert json.loads(str(cast("Text", case.parts[0]).text)) == {
        "tool": "pay",
        "arguments": {"amount": 5},
        "agents": ["agent"],
    }


async def test_a_call_that_the_judge_denies_does_not_run_and_the_model_reads_the_reason() -> None:
    paid: list[int] = []
    outcome = await paying(judge(ScriptedModel(DENY), "No.", at=TOOL), paid=paid).run("Pay")
    assert paid == []
    (result,) = results(outcome)
    assert result.status == "denied"
    assert "not on a Sunday" in str(result)


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (fails(ModelConnectionError("no route")), "no route"),
        (hangs(), "it took longer than 7 s"),
        (says("Sure!"), "not JSON"),
        (says('{"allow": "yes", "reason": ""}'), "does not fit"),
        (says('{"allow": true}'), "does not fit"),
        (says('{"allow": true, "reason": "", "more": 1}'), "does not fit"),
        (says(f"{DENY} {ALLOW}"), "2 JSON values"),
        (says(ALLOW, stop="length"), "ended with 'length'"),
        (calls("pay", amount=1), "ended with 'tool_calls'"),
    ],
    ids=["error", "timeout", "prose", "wrong type", "no reason", "more fields", "two answers", "cut off", "call"],
)
@pytest.mark.parametrize("how", ["deny", "ask"])
async def test_a_judge_that_fails_denies_or_asks_a_person(response: Any, problem: str, how: Any) -> None:
    paid: list[int] = []
    asked: list[ApprovalRequested] = []

    def approve(question: Any) -> Approve:
        asked.append(question)
        return Approve()

    model = ScriptedModel(*[response] * 6)
    agent = paying(judge(model, "No.", at=TOOL, timeout=7, on_failure=how), paid=paid)
    async with agent.stream("Pay", on_question=approve) as stream:
        warnings = [event async for event in stream if isinstance(event, WarningIssued)]
    assert [warning.code for warning in warnings if problem in warning.message] == ["judge_failed"]
    assert paid == ([5] if how == "ask" else [])
    assert [problem in question.reason for question in asked] == ([True] if how == "ask" else [])


async def test_a_judge_without_a_request_left_in_the_limits_denies() -> None:
    paid: list[int] = []
    agent = paying(judge(ScriptedModel(ALLOW), "Yes.", at=TOOL), paid=paid, limits=Limits(requests=1))
    async with agent.stream("Pay") as stream:
        await stream.wait()
    assert paid == []
    assert stream.outcome is not None
    assert stream.outcome.reason == "limit"


async def test_a_denial_may_ask_a_person_and_an_approval_may_stand_for_one() -> None:
    paid: list[int] = []

    @tool(requires_approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        paid.append(amount)
        return "paid"

    judges = [judge(ScriptedModel(ALLOW, DENY), "Small ones.", at=TOOL, approves=True, on_deny="ask")]
    model = ScriptedModel(calls("pay", amount=1), calls("pay", amount=100), "Done.")
    reasons: list[str] = []

    def deny(question: Any) -> None:
        reasons.append(question.reason)

    await Agent(model, tools=[pay], hooks=judges).run("Pay", on_question=deny)
    assert paid == [1]
    assert reasons == ["not on a Sunday"]


@pytest.mark.parametrize(
    "point", [hooks.user_prompt_submit, hooks.before_llm_call], ids=["user_prompt_submit", "before_llm_call"]
)
async def test_a_judge_before_the_model_blocks_the_run(point: Any) -> None:
    model, guard = ScriptedModel("Hello."), ScriptedModel(DENY)
    async with Agent(model, hooks=[judge(guard, "No.", at=point)]).stream("Hi") as stream:
        outcome = await stream.wait()
    assert (outcome.reason, outcome.detail) == ("blocked", "not on a Sunday")
    assert model.requests == []
    assert len(guard.requests) == 1
    assert outcome.usage.requests == 1


async def test_a_judge_of_prompts_reads_steering_and_follow_ups_where_it_stands() -> None:
    guard = ScriptedModel(ALLOW, DENY)
    points = (hooks.user_steering_messages_submit, hooks.user_followup_submit)
    agent = Agent(ScriptedModel("One.", "Two."), hooks=[judge(guard, "No.", at=point) for point in points])
    async with agent.stream("Hi") as stream:
        stream.steer("faster")
        stream.follow_up("and now this")
        outcome = await stream.wait()
    assert outcome.reason == "blocked"
    assert ["faster" in str(guard.requests[0].messages), "and now this" in str(guard.requests[1].messages)] == [
        True
    ] * 2


async def test_a_result_that_the_judge_denies_is_withheld() -> None:
    paid: list[int] = []
    outcome = await paying(judge(ScriptedModel(DENY), "No.", at=hooks.post_tool_use), paid=paid).run("Pay")
    assert paid == [5]
    (result,) = results(outcome)
    assert (result.status, result.text) == ("denied", "The result is withheld: not on a Sunday")


async def test_a_judge_at_the_stop_sends_the_agent_on_and_blocks_in_the_end() -> None:
    model = ScriptedModel("First.", "Second.", "Third.")
    agent = Agent(model, hooks=[judge(ScriptedModel(DENY, DENY, DENY), "Be polite.", at=hooks.stop)])
    async with agent.stream("Hi") as stream:
        outcome = await stream.wait()
    assert len(model.requests) == 3
    assert "not on a Sunday" in str(model.requests[1].messages[-1])
    assert (outcome.reason, outcome.detail) == ("blocked", "not on a Sunday")

    agent = Agent(ScriptedModel("First.", "Second."), hooks=[judge(ScriptedModel(DENY, ALLOW), "x", at=hooks.stop)])
    assert (await agent.run("Hi")).output == "Second."


async def test_a_judge_at_the_stop_that_fails_blocks_the_answer() -> None:
    agent = Agent(ScriptedModel("Hello."), hooks=[judge(ScriptedModel("?"), "x", at=hooks.stop, retries=0)])
    async with agent.stream("Hi") as stream:
        outcome = await stream.wait()
    assert outcome.reason == "blocked"
    assert "judge 'judge' failed" in outcome.detail


async def test_judges_and_other_hooks_stand_in_their_order() -> None:
    paid: list[int] = []
    seen: list[Any] = []

    @hooks.pre_tool_use
    async def halve(value: PreToolUse) -> hooks.ReplaceArguments:
        seen.append(value.arguments)
        return hooks.ReplaceArguments({"amount": 2})

    guard = FunctionModel(lambda request: ALLOW if '"amount":2' in str(request.messages[0]) else DENY)
    await paying(halve, judge(guard, "2 only.", at=TOOL), paid=paid).run("Pay")
    await paying(judge(guard, "2 only.", at=TOOL), halve, paid=paid).run("Pay")
    assert paid == [2]
    assert seen == [{"amount": 5}]


async def test_a_judge_decides_about_the_calls_of_child_runs_as_well() -> None:
    paid: list[int] = []
    inner = paying(paid=paid).replace(name="inner")
    outer = Agent(
        ScriptedModel(calls("inner", prompt="Pay"), "Done."),
        tools=[inner.as_tool()],
        hooks=[judge(ScriptedModel(DENY), "No.", at=TOOL, tools="pay")],
    )
    outcome = await outer.run("Go")
    assert paid == []
    assert outcome.usage.requests == 5


async def test_a_judge_reads_the_conversation_if_it_is_to() -> None:
    guard = ScriptedModel(ALLOW)
    await paying(judge(guard, "x", at=TOOL, conversation=True), paid=[]).run("Pay five")
    assert "user: Pay five" in str(guard.requests[0].messages)


async def test_something_too_long_to_judge_is_denied() -> None:
    @tool
    async def write(text: str) -> str:
        """Write."""
        raise AssertionError

    model = ScriptedModel(calls("write", text="x" * MOST_CHARACTERS), "Done.")
    outcome = await Agent(model, tools=[write], hooks=[judge(ScriptedModel(), "x", at=TOOL)]).run("Go")
    assert "characters at most" in str(results(outcome)[0])


async def test_a_judge_reads_no_secret_of_an_agent_that_redacts() -> None:
    guard = ScriptedModel(ALLOW)
    agent = Agent(
        ScriptedModel("Hello."),
        hooks=[judge(guard, "x", at=hooks.user_prompt_submit)],
        redact=Redaction(secrets={"code": "s3cr3t"}),
    )
    await agent.run("the code is s3cr3t")
    assert "[secret:code]" in str(guard.requests)
    assert "s3cr3t" not in str(guard.requests)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"at": hooks.turn_start}, "where something can be denied"),
        ({"at": "pre_tool_use"}, "where something can be denied"),
        ({"at": TOOL, "instructions": " "}, "the rules that it goes by"),
        ({"at": TOOL, "timeout": 0}, "give seconds above 0"),
        ({"at": TOOL, "on_deny": "warn"}, "on_deny= is 'deny' or 'ask'"),
        ({"at": hooks.stop, "on_failure": "ask"}, "only a tool call can wait"),
        ({"at": hooks.stop, "approves": True}, "only a tool call needs"),
        ({"at": hooks.stop, "retries": -1}, "give a number of 0 or more"),
        ({"at": hooks.stop, "tools": "x"}, "only those around a tool call"),
        ({"at": TOOL, "model": 3}, "a model is"),
    ],
)
def test_a_wrong_judge_is_refused_with_the_way_out(options: dict[str, Any], problem: str) -> None:
    arguments: dict[str, Any] = {"model": "m:x", "instructions": "x", **options}
    with pytest.raises(UsageError, match=problem):
        judge(arguments.pop("model"), arguments.pop("instructions"), **arguments)


ASK = '{"decision": "ask", "reason": "who knows"}'


@pytest.mark.parametrize(
    ("response", "asked_for", "is_paid"),
    [
        ('{"decision": "allow", "reason": ""}', [], True),
        (ASK, ["who knows"], True),
        ('{"decision": "ask", "reason": ""}', ["judge 'judge' leaves it to a person"], True),
        ('{"decision": "deny", "reason": "no"}', [], False),
        (ALLOW, [], False),
    ],
)
async def test_a_judge_that_may_ask_has_three_verdicts(response: str, asked_for: list[str], is_paid: bool) -> None:
    paid: list[int] = []
    asked: list[ApprovalRequested] = []

    def approve(question: Any) -> Approve:
        asked.append(question)
        return Approve()

    model = ScriptedModel(*[response] * 3)
    await paying(judge(model, "Rules.", at=TOOL, may_ask=True), paid=paid).run("Pay", on_question=approve)
    assert paid == [5] * is_paid
    assert [reason in question.reason for question, reason in zip(asked, asked_for, strict=True)] == [True] * len(asked)
    assert '"decision": "allow", "ask" or "deny"' in model.requests[0].instructions


async def test_a_judge_that_may_not_ask_has_two_verdicts() -> None:
    paid: list[int] = []
    await paying(judge(ScriptedModel(ASK, ASK, ASK), "Rules.", at=TOOL), paid=paid).run("Pay")
    assert paid == []
    with pytest.raises(UsageError, match="only a tool call can wait for a person"):
        judge("m:x", "Rules.", at=hooks.user_prompt_submit, may_ask=True)
