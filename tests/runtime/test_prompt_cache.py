"""A provider's cache that is lost in the middle of a session is a warning, with what the requests tell of why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio

from agentloop import Agent, Compaction, Deferred, Handoff, Session, Team, Tool, each_turn, hooks, tool
from agentloop._core.prompt_cache import _changed_tools
from agentloop.events import WarningIssued
from agentloop.messages import AssistantMessage, Message, Text, Usage, UserMessage
from agentloop.models import ModelSettings
from agentloop.testing import Response, ScriptedModel, calls, says
from tests.runtime.test_deferred import Changing
from tests.support import of, watch

PAUSE = 400.0


@tool
async def look() -> str:
    """Look."""
    return "seen"


@tool(timeout=1_000)
async def rest() -> str:
    """Rest for a while."""
    await trio.sleep(PAUSE)
    return "rested"


def read(response: Response | str, *, cached: int, read: int = 5_000, written: int = 0) -> Response:
    """``response`` of a provider whose cache had ``cached`` of the tokens that it read."""
    usage = Usage(input_tokens=read, output_tokens=5, cached_tokens=cached, cache_written_tokens=written)
    return msgspec.structs.replace(says(response) if isinstance(response, str) else response, usage=usage)


async def warnings_of(*script: Response, **options: Any) -> list[str]:
    options = {"tools": [look], **options}
    watched = await watch(Agent(ScriptedModel(*script), **options))
    assert watched.outcome.reason == "completed"
    return [event.message for event in of(watched.events, WarningIssued) if event.code == "cache_lost"]


async def test_a_cache_that_has_nothing_any_more_is_a_warning_once() -> None:
    script = [calls("look")] * 4
    found = await warnings_of(
        read(script[0], cached=0, written=4_900),
        read(script[1], cached=4_900),
        read(script[2], cached=0),
        read(script[3], cached=0),
        read("Done.", cached=5_000),
    )

    assert found == [
        "model 'scripted' read 5000 tokens anew, none of them from its cache: nothing in the request says why"
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # It never cached.
        (read(calls("look"), cached=0), read("Done.", cached=0)),
        # Less than providers cache.
        (read(calls("look"), cached=900, read=1_000), read("Done.", cached=0)),
        (read(calls("look"), cached=4_000), read("Done.", cached=0, read=800)),
        # A part of it is there.
        (read(calls("look"), cached=4_000), read("Done.", cached=1_024)),
    ],
)
async def test_a_cache_that_was_not_there_is_not_lost(first: Response, second: Response) -> None:
    assert await warnings_of(first, second) == []


@each_turn
def numbered(info: Any) -> str:
    return f"Turn {info.turn}."


@hooks.before_llm_call
async def rewrite(value: hooks.BeforeLLMCall) -> hooks.ReplaceMessages:
    return hooks.ReplaceMessages([UserMessage((Text(f"go {value.turn}"),)), *value.request.messages[1:]])


@hooks.before_llm_call
async def think(value: hooks.BeforeLLMCall) -> hooks.ReplaceRequest | None:
    return hooks.ReplaceRequest(settings=ModelSettings(temperature=1)) if value.turn > 1 else None


@pytest.mark.parametrize(
    ("why", "options"),
    [
        ("the tools changed (new: rest)", {"toolsets": [Changing([], [], [rest])]}),
        ("the tools changed (gone: rest)", {"toolsets": [Changing([rest], [rest], [])]}),
        ("the instructions changed, from character 5 on", {"instructions": numbered}),
        ("the messages were rewritten, from number 0 of 1 on", {"hooks": [rewrite]}),
        ("the settings or the output type changed", {"hooks": [think]}),
    ],
)
async def test_the_warning_says_what_changed(why: str, options: dict[str, Any]) -> None:
    [message] = await warnings_of(read(calls("look"), cached=4_000), read("Done.", cached=0), **options)

    assert message.endswith(f": {why}")


@pytest.mark.seconds(1_000)
async def test_the_warning_says_how_long_the_pause_was() -> None:
    [message] = await warnings_of(read(calls("rest"), cached=4_000), read("Done.", cached=0), tools=[rest])

    assert message.endswith("400 s had passed, and providers keep a prompt for some minutes")


async def test_the_session_s_next_run_is_compared_with_the_last_one() -> None:
    session = Session()
    await Agent(ScriptedModel(read("One.", cached=4_000)), instructions="A").run("go", session=session)
    watched = await watch(Agent(ScriptedModel(read("Two.", cached=0)), instructions="B"), session=session)

    [warning] = of(watched.events, WarningIssued)
    assert warning.message.endswith("the instructions changed, from character 0 on")


async def test_what_the_run_does_itself_is_no_warning() -> None:
    # Another agent, and a conversation that was shortened.
    front = Agent(
        ScriptedModel(read(calls("handoff", agent="back"), cached=4_000)), name="front", handoffs=[Handoff("back")]
    )
    back = Agent(ScriptedModel(read("Done.", cached=0)), name="back")
    watched = await watch(Team(front, back))
    assert of(watched.events, WarningIssued) == []

    long = [UserMessage((Text("bla " * 3_000),)), *[UserMessage((Text("bla " * 300),))] * 3]
    session = Session(messages=_answered(long))
    model = ScriptedModel(read(calls("look"), cached=4_000), "A summary.", read("Done.", cached=0))
    agent = Agent(model, tools=[look], compaction=Compaction(window=6_000, threshold=0.8, keep_recent=0.1))
    watched = await watch(agent, session=session)
    assert watched.outcome.output == "Done."
    assert len(model.requests) == 3
    assert of(watched.events, WarningIssued) == []


def _answered(prompts: Sequence[UserMessage]) -> list[Message]:
    return [message for prompt in prompts for message in (prompt, AssistantMessage((Text("Well."),)))]


async def test_deferred_tools_that_come_and_go_do_not_count() -> None:
    toolset = Changing([look, rest], [look, rest], [look])
    script = read(calls("call_tool", name="look", arguments={}), cached=4_000), read("Done.", cached=0)
    [message] = await warnings_of(*script, tools=[], toolsets=[toolset], deferred=Deferred(over=0))

    assert message.endswith("nothing in the request says why")


def test_many_changed_tools_are_named_in_part() -> None:
    made = [Tool(name=f"t{n}", description="", function=look.function, arguments=look.arguments) for n in range(9)]
    specs = [each.spec for each in made]
    assert _changed_tools([], specs) == "the tools changed (new: t0, t1, t2, t3, t4 and 4 more)"
    other = msgspec.structs.replace(specs[0], description="other")
    assert _changed_tools(specs, [other, *specs[1:]]) == "the tools changed (changed: t0)"
    assert _changed_tools(specs, specs[::-1]) == "the tools changed (another order)"
