"""Verdicts of hooks with wrong values: the hook has failed, by name, and the session can be opened again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from agentloop import Agent, Approve, Deny, hooks, tool
from agentloop.events import ToolCallFinished, WarningIssued
from agentloop.hooks import (
    Allow,
    Ask,
    Block,
    Context,
    Continue,
    HookWarning,
    Point,
    ReplaceArguments,
    ReplaceMessages,
    ReplaceRequest,
    ReplaceResult,
)
from agentloop.messages import Text, ToolResult, UserMessage
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls
from tests.support import of


@tool
async def act(what: str = "x") -> str:
    """Act."""
    return "acted"


anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(categories=None), max_size=4)
    | st.binary(max_size=3)
    | st.sampled_from([object(), str, {1, 2}, Text("a"), UserMessage((Text("a"),)), Allow(), Deny(), Ask("a")])
    | st.sampled_from([ToolResult("", "", (Text("a"),)), UserMessage("a"), ToolResult("c", "t", "x"), Text(None)]),  # type: ignore[arg-type]
    lambda inside: (
        st.lists(inside, max_size=2) | st.tuples(inside) | st.dictionaries(st.text(max_size=2) | st.none(), inside)
    ),
    max_leaves=3,
)

VERDICTS: list[tuple[Point[Any, Any], str, Callable[[Any], Any]]] = [
    (hooks.session_start, "Context.text", Context),
    (hooks.turn_start, "Context.text", Context),
    (hooks.user_prompt_submit, "Context.text", Context),
    (hooks.user_prompt_submit, "Block.reason", Block),
    (hooks.before_llm_call, "Block.reason", Block),
    (hooks.before_llm_call, "ReplaceMessages.messages", ReplaceMessages),
    (hooks.before_llm_call, "ReplaceMessages.messages", lambda value: ReplaceMessages([value])),
    (hooks.before_llm_call, "ReplaceRequest.messages", lambda value: ReplaceRequest(messages=value)),
    (hooks.before_llm_call, "ReplaceRequest.instructions", lambda value: ReplaceRequest(instructions=value)),
    (hooks.before_llm_call, "ReplaceRequest.tools", lambda value: ReplaceRequest(tools=value)),
    (hooks.before_llm_call, "ReplaceRequest.settings", lambda value: ReplaceRequest(settings=value)),
    (hooks.pre_tool_use, "Ask.reason", Ask),
    (hooks.pre_tool_use, "Deny.reason", Deny),
    (hooks.pre_tool_use, "ReplaceArguments.arguments", ReplaceArguments),
    (hooks.pre_tool_use, "ReplaceArguments.verdict", lambda value: ReplaceArguments({}, value)),
    (hooks.post_tool_use, "Block.reason", Block),
    (hooks.post_tool_use, "ReplaceResult.result", ReplaceResult),
    (hooks.post_tool_use, "ReplaceResult.result", lambda value: ReplaceResult(ToolResult("", "", value))),
    (hooks.stop, "Continue.text", Continue),
]


async def run_with(point: Point[Any, Any], verdict: Any) -> list[str]:
    """Run an agent with a hook that returns ``verdict`` once. Returns all that the run says of it.

    The session is opened again afterwards, and its transcript is the one that the run left.
    """
    used = False

    async def hook(value: object) -> Any:
        nonlocal used
        used, first = True, not used
        return verdict if first else None

    agent = Agent(ScriptedModel(calls("act"), "Done.", "More."), tools=[act], hooks=[point(name="odd")(hook)])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            async with agent.stream("go", session=session, on_question=_approve) as stream:
                events = [event async for event in stream]
            assert stream.outcome is not None
            assert "a bug in agentloop" not in stream.outcome.detail
            words = [event.message for event in of(events, WarningIssued)]
            words += [event.result.text for event in of(events, ToolCallFinished)]
            words.append(stream.outcome.detail)
            before = session.messages
        async with stored_session(store, "s") as session:
            assert session.messages == before
            await Agent(ScriptedModel("Again.")).run("once more", session=session)
    return words


async def _approve(question: object) -> Approve:
    return Approve()


@pytest.mark.parametrize(
    ("point", "field", "make"),
    VERDICTS,
    ids=[f"{point.name} {field}" + "." * n for n, (point, field, _) in enumerate(VERDICTS)],
)
@settings(max_examples=15)
@given(value=anything)
def test_a_wrong_value_in_a_verdict_fails_the_hook_by_name_and_spoils_no_session(
    point: Point[Any, Any], field: str, make: Callable[[Any], Any], value: Any
) -> None:
    verdict = make(value)
    words = trio.run(run_with, point, verdict, clock=MockClock(autojump_threshold=0))

    problems = [text for text in words if "with a wrong value" in text]
    if problems:
        assert all(f"the {point.name} hook 'odd' returned a {type(verdict).__name__}" in text for text in problems)
        assert all(field in text for text in problems)
    elif isinstance(verdict, (Context, Block, Continue, Ask, Deny)):
        right, *_ = msgspec.structs.astuple(verdict)
        assert isinstance(right, str)


@settings(max_examples=15)
@given(value=anything)
def test_a_hook_may_warn_with_any_value(value: Any) -> None:
    async def main() -> None:
        async def hook(call: object) -> None:
            raise HookWarning(value)

        outcome = await Agent(ScriptedModel(calls("act"), "Done."), tools=[act], hooks=[hooks.pre_tool_use(hook)]).run(
            "go"
        )
        assert outcome.output == "Done."

    trio.run(main, clock=MockClock(autojump_threshold=0))
