"""The tools with which the model starts background runs, and looks after them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal

import attrs
import trio

from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import ChildLimitError, StreamStateError, ToolError, UsageError
from agentloop.outcome import BackgroundRun
from agentloop.toolkit._named_agents import agents_by_name, prompt_of, with_list
from agentloop.toolkit._shared_state import NotesToolset, OpenNotes
from agentloop.tools import OpenToolset, Tool, Toolset, tool

__all__ = ["background"]

MOST = 20
"""Background runs of one stream at once, which `ToolContext.start` bounds."""

MAX_WAIT = 3600.0
"""Seconds that one call waits at most, as in docker-agent."""

INSTRUCTIONS = """\
run_background_agent starts an agent that works in the background: go on with other work meanwhile. When it ends, you \
get a message with its answer, before you can finish, so there is no need to ask again and again how far it is."""


def background(*agents: Agent[Any, Any], at_once: int = MOST) -> Toolset:
    """A toolset with which the model starts agents in the background, and looks after them.

    ::

        lead = Agent(model, toolsets=[background(researcher, coder)])

    Its tools are ``run_background_agent``, ``list_background_agents``, ``view_background_agent``,
    ``wait_for_background_agents``, ``stop_background_agent`` and ``steer_background_agent``. An agent that was started
    so runs as a child of the stream whose model has started it, beside the turns of that stream: see
    `ToolContext.start`. It reads the task alone, and not the conversation. The model reads its answer as a message with
    the request after its end, 4,096 characters of it at once. All of them end with the stream at the latest.

    Args:
      agents: the agents. Their descriptions tell the model what each is for.
      at_once: how many may run at once, from 1 to 20.

    Raises:
      UsageError: there are no agents, two have one name, or ``at_once`` is out of its range.
    """
    known = agents_by_name("background", agents)
    if not 1 <= at_once <= MOST:
        raise UsageError(f"background(at_once={at_once!r}): give a number from 1 to {MOST}")
    tools = (_run_tool(known, at_once), *_TOOLS)

    @asynccontextmanager
    async def opened() -> AsyncGenerator[OpenToolset]:
        yield OpenNotes(tools, INSTRUCTIONS)

    return _Background("background", f"background agents {', '.join(known)}", opened, agents=agents)


class _Background(NotesToolset):
    """The toolset, with the agents that its tools start."""

    def __init__(self, *args: Any, agents: tuple[Agent[Any, Any], ...]) -> None:
        super().__init__(*args)
        self.agents = agents


def _run_tool(known: Any, at_once: int) -> Tool:
    async def run_background_agent(context: ToolContext[Any], agent: str, task: str, expected_output: str = "") -> str:
        """Start an agent in the background.

        Args:
          agent: name of the agent.
          task: the task, with all that the agent has to know: it does not see this conversation.
          expected_output: what the answer should be like.
        """
        running = [run.id for run in context.background if run.status == "running"]
        # A call that is made again finds the run that it has started, which is one of them.
        is_again = any(run.call_id == context.call_id for run in context.background)
        if len(running) >= at_once and not is_again:
            raise ToolError(f"{len(running)} run already ({', '.join(running)}): wait for one, or stop one")
        try:
            run = await context.start(known[agent], prompt_of(task, expected_output))
        except ChildLimitError as error:
            raise ToolError(str(error)) from error
        return f"{run.id} is running. You get a message with its answer when it ends."

    run_background_agent.__annotations__["agent"] = Literal[tuple(known)]
    description = with_list("Start an agent in the background, and go on meanwhile.", known)
    # A retry finds the run that the first attempt has started.
    made = tool(description=description, timeout=float("inf"), if_interrupted="retry")(run_background_agent)
    return attrs.evolve(made, agents=tuple(known.values()))


def _find(context: ToolContext[Any], run_id: str) -> BackgroundRun[Any]:
    """The background run of that id. Raises `ToolError`, for the model, if there is none."""
    for run in context.background:
        if run.id == run_id:
            return run
    known = ", ".join(run.id for run in context.background) or "none"
    raise ToolError(f"no background agent {run_id!r} is running, or waits for its report; those that are: {known}")


def _line(run: BackgroundRun[Any]) -> str:
    return f"{run.id}: {run.status}" + ("" if run.status == "running" else "; a message with its end follows")


async def _list(context: ToolContext[Any]) -> str:  # noqa: ASYNC124 - as tools have it
    """List the background agents that run, or whose end you have not read yet."""
    return "\n".join([_line(run) for run in context.background]) or "There are none."


async def _view(context: ToolContext[Any], run_id: str) -> str:  # noqa: ASYNC124 - as tools have it
    """Read what a background agent has written last.

    Args:
      run_id: the id of the background agent, such as researcher-1.
    """
    run = _find(context, run_id)
    return f"{_line(run)}\n{run.text}" if run.text else f"{_line(run)}\nIt has not written anything yet."


async def _wait(context: ToolContext[Any], run_ids: list[str] | None = None, seconds: float = 300) -> str:
    """Wait until background agents have ended. There is no need to: you get a message when one ends.

    Args:
      run_ids: the ids of the background agents to wait for; all that run, if none are given.
      seconds: how long to wait at most, up to 3600.
    """
    runs = [_find(context, run_id) for run_id in run_ids] if run_ids else list(context.background)
    if not 0 <= seconds <= MAX_WAIT:
        raise ToolError(f"seconds={seconds:g}: give a number from 0 to {MAX_WAIT:g}")
    with trio.move_on_after(seconds):
        for run in runs:
            await run.wait()
    return "\n".join([_line(run) for run in runs]) or "There are none."


async def _stop(context: ToolContext[Any], run_id: str) -> str:
    """Stop a background agent, and wait for its end.

    Args:
      run_id: the id of the background agent.
    """
    run = _find(context, run_id)
    run.stop("its parent stopped it")
    await run.wait()
    return _line(run)


async def _steer(context: ToolContext[Any], run_id: str, message: str) -> str:  # noqa: ASYNC124 - as tools have it
    """Send a message to a background agent. It reads the message before it goes on.

    Args:
      run_id: the id of the background agent.
      message: what it should know, or do.
    """
    try:
        _find(context, run_id).steer(message)
    except (StreamStateError, UsageError) as error:
        raise ToolError(str(error)) from error
    return f"{run_id} reads the message before its next step."


_TOOLS = (
    tool(name="list_background_agents", read_only=True, idempotent=True, polling=True)(_list),
    tool(name="view_background_agent", read_only=True, idempotent=True, polling=True)(_view),
    tool(name="wait_for_background_agents", read_only=True, idempotent=True, polling=True, timeout=float("inf"))(_wait),
    tool(name="stop_background_agent", timeout=float("inf"), if_interrupted="retry")(_stop),
    # A message that was not read is lost with the process, so that sending it again is better than asking.
    tool(name="steer_background_agent", if_interrupted="retry")(_steer),
)
