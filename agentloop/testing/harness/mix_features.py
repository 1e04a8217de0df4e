"""The newer features of mixes: secrets, tools that are found, background runs, contexts, judges, chosen models, safety.

The mixes from `CROWDED` on have them, several at once. The earlier ones stay as they were recorded.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import attrs
import msgspec
import trio

from agentloop import hooks
from agentloop._core.json_text import decode_json
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.context_sources import ContextSource
from agentloop.deferred import CALL_TOOL, FIND_TOOLS, Deferred
from agentloop.errors import AgentLoopError, ModelConnectionError, ToolError
from agentloop.hooks import Hook
from agentloop.judges import judge
from agentloop.limits import Compaction
from agentloop.messages import ToolCall
from agentloop.models import ModelChoice
from agentloop.permissions import Permissions
from agentloop.redaction import Redaction
from agentloop.run_info import RunInfo
from agentloop.safety import Assessment, BlastRadius
from agentloop.testing._lab import NO_ARGUMENTS, Lab, PlannedModel
from agentloop.testing.harness.draw import Draw
from agentloop.testing.scripted import Response, calls, fails, says
from agentloop.toolkit._background import background
from agentloop.tools import Tool, tool

__all__ = ["CROWDED", "KEY", "crowd"]

CROWDED = 320
"""The number of the first mix that has newer features."""

KEY = "AKIAIOSFODNN7EXAMPLE"
_FOUND = "[secret:1:aws-key]"
_NAMED = "[secret:deploy-key]"


def crowd(
    draw: Draw, lab: Lab, agent: Agent[Any, Any], inner: Sequence[Agent[Any, Any]], depth: int
) -> Agent[Any, Any]:
    """``agent`` with some of the newer features, and a model that uses them."""
    extra: list[Response] = []
    changes: dict[str, Any] = {}
    tools = [*agent.tools, *_more_tools(draw.on("more"), lab, inner, extra)]
    if draw.on("secrets").chance(0.35):
        changes["redact"] = _redaction(draw.on("redaction"))
        tools += _secret_tools(lab)
        extra += [calls("show"), calls("deploy", key=draw.on("which").one((_FOUND, _NAMED)))]
    if draw.on("safety").chance(0.3):
        tools.append(_assessed(draw.on("assessed"), lab))
        mode: Any = draw.on("mode").one(("plan", "strict", "safe", "safer", "accept_edits", "autonomous"))
        changes["permissions"] = attrs.evolve(agent.permissions or Permissions(), mode=mode)
        extra += [calls("run", command="look"), calls("run", command="rm")]
    if draw.on("models").chance(0.25):
        changes |= _models(draw.on("rule"), lab, agent)
        tools.append(lab.tool("heavy", model=draw.on("heavy").one(("fast", "slow"))))
        extra.append(calls("heavy"))
    if draw.on("context").chance(0.3):
        changes["context"] = _sources(draw.on("sources"), lab)
    if depth and draw.on("shortened").chance(0.35):
        # A child that has little room, and something to wait for afterwards.
        changes["compaction"] = Compaction(window=draw.on("window").one((450, 900)), keep_recent=0.05)
        asks = [each.name for each in tools if each.name in ("asks", "plain", "opens", "outside")]
        extra += [*map(calls, asks[:1]), says("word " * 150) + calls("one")]
    if draw.on("judges").chance(0.25):
        changes["hooks"] = [*agent.hooks, _judge(draw.on("judge"), lab, agent.name)]
    if inner and draw.on("background").chance(0.5):
        changes["toolsets"] = [*agent.toolsets, background(*inner, at_once=draw.on("at once").one((1, 20)))]
        extra += _background_calls(draw.on("background calls"), inner)
    model = cast("PlannedModel", agent.model)
    if draw.on("small").chance(0.25):
        model.window = draw.on("characters").one((3_000, 12_000))
    script = model._script
    for number, response in enumerate(extra):
        own = draw.on(f"extra {number}")
        if own.chance(0.75):
            script.insert(own.number(min(len(script), 4)), response)
    if draw.on("deferred").chance(0.3):
        changes["deferred"] = Deferred(over=0, always=draw.on("always").one(((), ("one",), ("inner*", "pay"))))
        model.has_tool_search = draw.on("search").chance(0.25)
        model._script[:] = _deferring(draw.on("deferring"), script, by_name=model.has_tool_search)
    return attrs.evolve(agent, tools=tools, **changes)


# --------------------------------------------------------------------------------- tools


def _more_tools(draw: Draw, lab: Lab, inner: Sequence[Agent[Any, Any]], extra: list[Response]) -> list[Tool]:
    """Tools that do what no older mix does."""
    made: list[Tool] = []

    async def starts(context: ToolContext[Any]) -> str:
        try:
            run = await context.start(inner[0], "go, in the background")
        except AgentLoopError as error:
            return f"not started: {error}"
        if draw.on("waits").chance(0.5):
            with trio.move_on_after(20):
                return f"{(await run.wait()).reason}"
        return f"{run.id} of {len(context.background)}"

    async def opens(context: ToolContext[Any]) -> str:
        message = f"open of {context.call_id} of {context.source.session}"
        lab.received[message] = await context.ask_url(message, "https://example.com/login")
        return repr(lab.received[message])

    async def waits(context: ToolContext[Any]) -> str:
        with context.paused_deadline(parks=draw.on("parks").chance(0.3)):
            await trio.sleep(draw.on("while").one((2, 40)))
        return "waited"

    async def counts(context: ToolContext[Any]) -> AsyncGenerator[object]:  # noqa: ASYNC900, ASYNC911 - a tool
        for number in range(3):
            await trio.sleep(1)
            yield number if draw.on("lines").chance(0.5) else f"{number}. of {context.call_id} "

    def add(name: str, body: Any, **options: Any) -> None:
        if draw.on(name).chance(0.35):
            options["requires_approval"] = draw.on(f"{name} asks").chance(0.25)
            made.append(lab.bare(name, body, **options))
            extra.append(calls(name) + calls("one") if draw.on(f"{name} beside").chance(0.4) else calls(name))

    if inner:
        add("starts", starts, agents=[inner[0]])
    add("opens", opens)
    add("waits", waits, if_interrupted="retry")
    if draw.on("counts").chance(0.25):
        made.append(
            Tool(
                name="counts",
                description="Count.",
                function=counts,
                arguments=NO_ARGUMENTS,
                kind="generator",
                context_name="context",
                timeout=draw.on("in time").one((None, 2.5)),
            )
        )
        extra.append(calls("counts"))
    return made


def _redaction(draw: Draw) -> Any:
    put_back = draw.one((("*",), ("deploy",), ("show",)))
    return draw.one((True, Redaction(secrets={"deploy-key": KEY}, put_back=put_back)))


def _secret_tools(lab: Lab) -> list[Tool]:
    async def show(context: ToolContext[Any]) -> str:
        await context.output(f"here it is: {KEY[:7]}")
        await context.output(f"{KEY[7:]}\n")
        if context.call_id.endswith("1"):
            raise ToolError(f"no access with {KEY}")
        await context.remember("key", KEY)
        await context.save_session_value("key", KEY)
        return f"the key is {context.recall('key', str)} and {context.session_value('key', str)}"

    @tool(requires_approval=True)
    async def deploy(key: str, context: ToolContext[Any]) -> str:
        """Deploy with a key."""
        lab.effect(context, "deploy")
        await lab.sim.seam("tool:deploy")
        if key != KEY and not key.startswith("[secret:"):
            lab.watch.note(f"deploy got {key!r} in the place of the secret")
        return f"deployed with {key}"

    return [lab.bare("show", show), deploy]


def _assessed(draw: Draw, lab: Lab) -> Tool:
    def assess(arguments: dict[str, Any]) -> Assessment:
        command = str(arguments.pop("command", ""))
        if command == "rm" and draw.on("broken").chance(0.2):
            raise ToolError("no assessment")
        radius = BlastRadius(commands=(command,), is_complete=True)
        return Assessment(is_harmless=command == "look", why="it looks", blast_radius=radius)

    return lab.tool("run", requires_approval=draw.chance(0.7), destructive=draw.on("d").chance(0.5), assess=assess)


# ------------------------------------------------------------------------ models and hooks


def _models(draw: Draw, lab: Lab, agent: Agent[Any, Any]) -> dict[str, Any]:
    script = cast("PlannedModel", agent.model)._script
    models = {name: lab.planned(*script, name=f"{agent.name}-{name}") for name in ("fast", "slow")}
    choices: tuple[Any, ...] = (None, "fast", "slow", ModelChoice(reasoning_effort="low"))

    async def rule(info: RunInfo[Any]) -> Any:
        await lab.sim.seam("rule")
        if draw.on("fails").chance(0.1):
            raise ValueError("a bug of the rule")
        return draw.on(info.turn).one(choices)

    return {"models": models, **({"choose_model": rule} if draw.on("ruled").chance(0.7) else {})}


def _sources(draw: Draw, lab: Lab) -> list[ContextSource]:
    def source(name: str) -> ContextSource:
        own = draw.on(name)
        way = own.on("way").one(("says", "says", "says", "hangs", "fails"))

        async def say(info: RunInfo[Any]) -> str:
            await lab.sim.seam(f"context:{name}")
            if way == "hangs" and info.turn == 2:
                await trio.sleep_forever()
            if way == "fails" and info.turn == 2:
                raise ValueError("a bug of the source")
            return own.on(info.turn).one(("rain", "sun", "", f"the key is {KEY}"))

        return ContextSource(name, say, each=own.on("each").one(("turn", "turn", "run")))

    return [source(name) for name in ("weather", "news")[: 1 + draw.number(2)]]


def _judge(draw: Draw, lab: Lab, name: str) -> Hook:
    verdicts = ('{"allow": true, "reason": "fine"}', '{"allow": false, "reason": "not here"}', "no verdict")
    script = [
        fails(ModelConnectionError("gone")) if draw.on(number).chance(0.05) else says(draw.on(number).one(verdicts))
        for number in range(30)
    ]
    point: Any = draw.on("point").one((hooks.pre_tool_use, hooks.pre_tool_use, hooks.post_tool_use, hooks.stop))
    options: dict[str, Any] = {}
    if point is hooks.pre_tool_use:
        options = {
            "on_deny": draw.on("deny").one(("deny", "ask")),
            "on_failure": draw.on("failure").one(("deny", "ask")),
            "approves": draw.on("approves").chance(0.4),
        }
    if point is not hooks.stop:
        options["children"] = draw.on("children").chance(0.6)
    return judge(
        lab.model(*script, name=f"{name}-judge"),
        "Rules.",
        at=point,
        conversation=draw.on("conversation").chance(0.5),
        **options,
    )


# ------------------------------------------------------------------------------- scripts


def _background_calls(draw: Draw, inner: Sequence[Agent[Any, Any]]) -> list[Response]:
    name = draw.one([agent.name for agent in inner])
    run = f"{name}-1"
    later = (
        calls("list_background_agents"),
        calls("view_background_agent", run_id=run),
        calls("wait_for_background_agents", seconds=draw.on("seconds").one((5, 200))),
        calls("wait_for_background_agents", run_ids=[run]),
        calls("stop_background_agent", run_id=run),
        calls("steer_background_agent", run_id=run, message="Be quick."),
    )
    start = calls("run_background_agent", agent=name, task=draw.on("task").one(("go", f"go with {_FOUND}")))
    if draw.on("two").chance(0.3):
        start += calls("run_background_agent", agent=draw.on("other").one(inner).name, task="go, too")
    # The extra responses are inserted one before the other.
    return [*draw.on("later").some(later, 0.35), start]


def _deferring(draw: Draw, script: Sequence[Response], *, by_name: bool) -> list[Response]:
    """The same calls, most of them through the tool that calls deferred ones, after some were looked for."""
    changed: list[Response] = []
    for number, response in enumerate(script):
        own = draw.on(number)
        if own.on("finds").chance(0.3):
            changed.append(calls(FIND_TOOLS, query=own.on("query").one(("one", "inner pay", "every tool", "*"))))
        parts = [
            _through(part) if isinstance(part, ToolCall) and not by_name and own.on(index).chance(0.8) else part
            for index, part in enumerate(response.parts)
        ]
        changed.append(msgspec.structs.replace(response, parts=tuple(parts)))
    return changed


def _through(call: ToolCall) -> ToolCall:
    if call.name == "handoff":
        return call
    try:
        arguments: Any = decode_json(call.arguments)
    except (msgspec.DecodeError, UnicodeError):
        arguments = call.arguments
    text = msgspec.json.encode({"name": call.name, "arguments": arguments}).decode()
    return msgspec.structs.replace(call, name=CALL_TOOL, arguments=text)
