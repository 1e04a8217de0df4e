"""Handoffs: the tool by which a model makes one, and the change of a run from one agent to the next.

A handoff is an event, `HandedOff`, before anything acts on it, so a run that is resumed finds the same agent as the run
that went on. The turn ends, and returns the handoff to the loop. Then the run becomes the other agent's, in this order:
the agent before is told that its part ends (``session_end`` hooks), the toolsets of the next one start, those of the
agent before stop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from agentloop._core.field_checks import FieldError
from agentloop._core.handoffs import HandoffRecord, continue_message, nearest
from agentloop._core.results import error_result
from agentloop._core.state import ViewChanged
from agentloop._core.transcript import flaw_of_history
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.model_call import open_models
from agentloop._runtime.run import Run, commit, flush
from agentloop._runtime.toolset_start import working_for
from agentloop._runtime.toolsets import ToolList, open_toolsets
from agentloop._runtime.user_code import UserCodeError, call_user_code, in_thread_if_plain
from agentloop.config import AgentConfig
from agentloop.context import ToolContext
from agentloop.errors import ToolError, UsageError
from agentloop.events import HandedOff, Source
from agentloop.handoffs import HANDOFF, History
from agentloop.hooks import OnAgentSwitch, SessionEnd, SwitchKind
from agentloop.messages import Message, Text, ToolCall, ToolResult, UserMessage, checked_messages
from agentloop.tools import JsonArguments, Tool

__all__ = [
    "HandoffOrder",
    "Stages",
    "become",
    "check_team",
    "hand_off_when_done",
    "handoff_tool",
    "open_stages",
    "refused_handoff",
    "show_history",
    "tell_switch",
]


def check_team(config: AgentConfig, team: Mapping[str, AgentConfig]) -> None:
    """Raise `UsageError` if ``config`` may hand off to an agent that is not in ``team``."""
    names = [handoff.agent for handoff in config.handoffs]
    if config.handoff_when_done is not None:
        names.append(config.handoff_when_done)
    for name in names:
        if name not in team:
            problem = f"agent {config.name!r} hands off to {name!r}"
            if not team:
                raise UsageError(f"{problem}, and runs in no team: write Team(agent, other).run(...)")
            raise UsageError(f"{problem}, which is no agent of its team: {nearest(name, team)}")


# ---------------------------------------------------------------------------- the tool


def handoff_tool(run: Run) -> Tool:
    """The tool by which the model of ``run`` hands the conversation off."""
    names: list[str] = []
    lines: list[str] = []
    for handoff in run.config.handoffs:
        names.append(handoff.agent)
        text = handoff.description or run.team[handoff.agent].description
        lines.append(f"- {handoff.agent}: {text}" if text else f"- {handoff.agent}")
    agents = "\n".join(lines)

    async def hand_off(context: ToolContext[Any], **given: Any) -> str:
        # The schema is ours, and what a model sends need not fit it.
        agent = given.get("agent")
        if not isinstance(agent, str):
            raise ToolError(f"No handoff: give the name of an agent, as in {{'agent': {names[0]!r}}}")
        return await _accept(run, context.call_id, agent)

    return Tool(
        name=HANDOFF,
        description=f"Hand the conversation off to another agent, which continues it in your place. Agents:\n{agents}",
        function=hand_off,
        arguments=JsonArguments(
            {
                "type": "object",
                "properties": {
                    "agent": {"type": "string", "enum": names, "description": "Name of the agent to hand off to."}
                },
                "required": ["agent"],
            }
        ),
        context_name="context",
        deferred=False,
        # The call only adds a fact to the log. If that is there, the call finds it.
        if_interrupted="retry",
    )


async def _accept(run: Run, call_id: str, agent: str) -> str:
    """Make the handoff that a call asks for. It is saved when this returns."""
    if run.state.pending_handoff is None:
        if run.config.handoff_to(agent) is None:
            known = [handoff.agent for handoff in run.config.handoffs]
            raise ToolError(f"There is no agent {agent!r} to hand off to: {nearest(agent, known)}")
        _emit(run, agent, call_id)
    # No checkpoint after it: the handoff stands, whatever becomes of the call.
    await flush(run)
    return (
        f"{run.config.name} has handed the conversation to {agent}, who continues it from here. The tools of "
        f"{run.config.name} may differ from those of {agent}."
    )


def refused_handoff(run: Run, call: ToolCall) -> ToolResult | None:
    """The result of a handoff that comes second in its turn; ``None`` for the first one."""
    pending = run.state.pending_handoff
    if pending is None or pending.call_id == call.id:
        return None
    return error_result(call, f"No handoff: this turn has handed the conversation to {pending.to} already.")


def _emit(run: Run, to: str, call_id: str = "") -> None:
    transcript = run.transcript
    transcript.handoffs += (HandoffRecord(len(transcript), run.config.name, to, call_id),)
    transcript.agent = to
    run.emit(HandedOff, to=to, call_id=call_id)


def hand_off_when_done(run: Run, to: str) -> HandoffRecord:
    """Give the conversation of an agent that has answered to the agent ``to``."""
    _emit(run, to)
    record = run.state.handoffs[-1]
    commit(run, (UserMessage((Text(continue_message(record.agent, to)),)),))
    return record


class HandoffOrder:
    """The order of calls in a turn with a handoff: all other calls first, then the handoffs, in call order.

    Of several handoffs, the first that is allowed counts. The results of the others say so.
    """

    __slots__ = ("_changed", "_order", "_run")

    def __init__(self, run: Run, calls: Sequence[ToolCall]) -> None:
        self._run = run
        handoffs = [call.id for call in calls if call.name == HANDOFF]
        self._order = [*[call.id for call in calls if call.name != HANDOFF], *handoffs]
        """Ids of the calls that have not ended, in the order in which handoffs wait for them."""
        self._changed = trio.lowlevel.ParkingLot()

    async def wait(self, call_id: str) -> None:
        """Wait until the calls before the handoff ``call_id`` have ended."""
        # The handoff does not keep the run from being parked: the calls that it waits for may.
        with self._run.state.waiting(call_id):
            self._run.root.questions.notify()
            while self._order[0] != call_id:
                await self._changed.park()

    def end(self, call_id: str) -> None:
        """The call has ended."""
        self._order.remove(call_id)
        self._changed.unpark_all()


# -------------------------------------------------------------------------- the change


class _Stage:
    """Holds the models and toolsets of one agent open, in a task of its own, while the agent has the conversation."""

    def __init__(self) -> None:
        self.tools: ToolList | None = None
        self.ready = trio.Event()
        self.stop = trio.Event()
        self.ended = trio.Event()

    async def hold(self, run: Run) -> None:
        try:
            own = (*run.config.tools, handoff_tool(run)) if run.config.handoffs else None
            async with open_models(run), open_toolsets(run, own) as self.tools:
                self.ready.set()
                await self.stop.wait()
        finally:
            self.ended.set()


class Stages:
    """The models and toolsets of the agents of a run, one agent after the other."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._stage: _Stage | None = None

    async def open(self, run: Run) -> ToolList:
        """Start those of the agent that acts now, and then stop those of the agent before.

        Raises:
          trio.Cancelled: one did not start. The nursery of `open_stages` has the error.
        """
        stage = _Stage()
        self._nursery.start_soon(stage.hold, run)
        await stage.ready.wait()
        await self.stop()
        self._stage = stage
        assert stage.tools is not None
        return stage.tools

    async def stop(self) -> None:
        """Stop those that are open."""
        if self._stage is not None:
            self._stage.stop.set()
            await self._stage.ended.wait()


@asynccontextmanager
async def open_stages(run: Run) -> AsyncGenerator[Stages]:
    """Hold the models and toolsets of the acting agent open, and stop them when the block ends.

    Raises:
      AgentLoopError: a model or a toolset of an agent did not start.
    """
    try:
        # An agent cannot open its own inside of the block of the agent before, whose block ends first.
        async with trio.open_nursery() as nursery:
            stages = Stages(nursery)
            with working_for(run):
                yield stages
            await stages.stop()
    except BaseExceptionGroup as group:
        raise_single(group)


async def become(run: Run, record: HandoffRecord) -> None:
    """Have the run continue as the agent that got the conversation.

    Raises:
      AgentLoopError: the team has no such agent, its models cannot be used, or its history function failed.
    """
    config = run.team.get(record.to)
    if config is None:
        raise UsageError(
            f"agent {run.config.name!r} has handed off to {record.to!r}, which is no agent of the team: "
            f"{nearest(record.to, run.team)}"
        )
    await tell_switch(run, record.to, "handoff")
    if run.hooks.at("session_end"):
        await run.hooks.notify_shielded("session_end", SessionEnd(run.source, "handed_off"))
    run.config, run.settings = config, config.settings
    run.models = run.originals = run.root.resolve(config)
    # The state has the new source, since it replays a handoff as well.
    run.source = run.writer.source = run.state.source
    run.hooks = run.open_hooks()
    run.chain = run.reader = run.deferred = run.offered = run.response = run.partial = None
    await show_history(run)


async def tell_switch(run: Run, to: str, kind: SwitchKind, child: Source | None = None) -> None:
    """Tell the hooks of ``run`` that the agent ``to`` acts from here on."""
    if run.hooks.at("on_agent_switch"):
        await run.hooks.notify("on_agent_switch", OnAgentSwitch(run.source, to, kind, child))


async def show_history(run: Run) -> None:
    """Have the agent of ``run`` read of the messages before its last handoff what that says. Idempotent.

    Raises:
      UsageError: the history function failed, or returned messages that no model can continue after.
    """
    transcript = run.transcript
    record = transcript.handoffs[-1]
    giver = run.team.get(record.agent)
    handoff = None if giver is None else giver.handoff_to(record.to)
    history: History = "all" if handoff is None else handoff.history
    view, messages = transcript.shown, transcript.messages
    if record.to != run.config.name or (view.cut is not None and view.cut.at > record.index):
        return
    if history == "all":
        if view.cut is None:
            return
        view.uncut(messages)
    elif history == "last":
        # An agent that has answered leaves a message that asks the next one to continue: that is no prompt.
        view.cut_to_newest_prompt(messages, len(messages) if record.call_id else record.index)
    else:
        view.cut_to(await _history_of(run, record, history), messages)
    if run.parent is not None:
        run.note(ViewChanged.of(view))


async def _history_of(run: Run, record: HandoffRecord, function: Any) -> Sequence[Message]:
    name = f"the history function of the handoff from {record.agent!r} to {record.to!r}"
    scope = trio.move_on_after(run.config.deadlines.hook)
    try:
        chosen = await call_user_code(scope, in_thread_if_plain(function), run.transcript.view)
    except UserCodeError as error:
        raise UsageError(f"{name} failed: {error}") from error.__cause__
    try:
        messages = checked_messages(chosen, "messages")
    except FieldError as error:
        raise UsageError(f"{name} returned no messages: {error}") from error
    flaw = flaw_of_history(messages)
    if flaw:
        raise UsageError(f"{name} returned messages that no model can continue after: {flaw}")
    return messages
