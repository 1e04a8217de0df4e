"""The tour: an agent at work; then the same one stopped half-way; then the traces that are left.

The tour saves no sessions: it is the same each time, and its stopped runs are not meant to be resumed.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from agentloop.demo.cast import AT_LENGTH, REPORT, STILL_THERE, TEXT, Cast, make_cast
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ElicitationRequested,
    HandedOff,
    MessageCommitted,
    StreamEvent,
    ToolCallStarted,
)
from agentloop.messages import AssistantMessage, Message, ToolResult, UserMessage
from agentloop.models import Model
from agentloop.session import Session
from agentloop.terminal._following import follow
from agentloop.terminal._stage import Stage

__all__ = ["tour"]

WATCHED = 4.0
UNWATCHED = 0.5
"""Seconds that the three long steps may take, with and without a person who watches."""

OFFLINE = """\
(No network, no key: functions stand in for the models, and say what a model might.
All the rest is real. With --model provider:model, a real model speaks.)
"""
WORK = "--- 1. An agent at work\n"
STOP = "\n--- 2. Three things that would take a minute, stopped half-way\n"
REST = "\n--- 3. What is left of it\n"
DONE = """
That is the promise: when the block ends, everything it started has ended.
Ctrl-C does the same, at any moment. See also: python -m agentloop.demo --list
"""

CAPTIONS: dict[type[StreamEvent], str] = {
    ToolCallStarted: "# Tools are typed functions. The calls of one turn run at the same time.",
    ChildStreamStarted: "# An agent in the background: the guide goes on. The events of all come in one stream.",
    ElicitationRequested: "# It asks you something, while the others work. (Enter takes what is in brackets.)",
    MessageCommitted: "# Its end is reported to the guide, which could not stop before.",
    ApprovalRequested: "# This tool may run only if you say so.",
    HandedOff: "# The conversation goes to another agent of the team, in the same stream.",
}
"""The remark for the first event of each kind."""


async def tour(stage: Stage, model: Model | str | None = None, text: str | None = None) -> None:
    """Show what agentloop does, on ``text`` if there is any.

    Raises:
      AgentLoopError: a run ended without a result, other than the one that is stopped.
    """
    cast, session, screen = make_cast(model, text or TEXT), Session(), stage.screen
    screen.note("An agent's run is a block. When the block ends, everything it started has ended.")
    screen.note(OFFLINE if model is None else "")

    captions = dict(CAPTIONS)

    def explain(event: StreamEvent) -> None:
        if isinstance(event, MessageCommitted) and not (
            isinstance(event.message, UserMessage) and event.message.reports
        ):
            return
        caption = captions.pop(type(event), None)
        if caption is not None:
            screen.note(caption)

    screen.note(WORK)
    async with cast.team.stream(f"{REPORT}\n\n{text or TEXT}", session=session) as stream:
        await follow(stream, stage, before=explain)
    _ = stream.result

    screen.note(STOP)
    tasks = await stop_half_way(cast, session, stage)

    screen.note(REST)
    for line in what_is_left(cast, session.messages, tasks):
        screen.note(line)
    screen.note()
    async with cast.team.stream(STILL_THERE, session=session) as stream:
        await follow(stream, stage, before=explain)
    screen.note(DONE)


async def stop_half_way(cast: Cast, session: Session, stage: Stage) -> tuple[int, int]:
    """Run three things that take a minute, and stop them.

    Returns:
      How many tasks the run had, and how many of them are left.
    """
    before = trio.lowlevel.current_statistics().tasks_living
    most = 0
    async with trio.open_nursery() as nursery, cast.team.stream(AT_LENGTH, session=session) as stream:
        begun = trio.Event()

        async def stop_later() -> None:
            await begun.wait()
            await trio.sleep(WATCHED if stage.pace else UNWATCHED)
            stream.stop("the tour has seen enough")

        def look(event: StreamEvent) -> None:
            nonlocal most
            if isinstance(event, ToolCallStarted):
                begun.set()
            # `stop_later` is one of them.
            most = max(most, trio.lowlevel.current_statistics().tasks_living - before - 1)

        nursery.start_soon(stop_later)
        await follow(stream, stage, before=look)
        nursery.cancel_scope.cancel()
    return most, trio.lowlevel.current_statistics().tasks_living - before


def what_is_left(cast: Cast, messages: Sequence[Message], tasks: tuple[int, int]) -> list[str]:
    """The count of everything that could have been forgotten, counted, not promised."""
    most, left = tasks
    asked = [call.id for message in messages if isinstance(message, AssistantMessage) for call in message.calls]
    answered = {message.call_id for message in messages if isinstance(message, ToolResult)}
    unanswered = sum(call_id not in answered for call_id in asked)
    running = [process for process in cast.processes if process.poll() is None]
    ended = "; ".join(f"{process.pid} ended with {process.returncode}" for process in cast.processes)
    return [
        f"  tasks still running        {left}   (there were {most})",
        f"  programs still running     {len(running)}   ({ended or 'none was started'})",
        f"  calls without a result     {unanswered}   (of {len(asked)} in the transcript: the session can go on)",
    ]
