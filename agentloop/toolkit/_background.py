"""The tools with which the model starts background runs, and looks after them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, Protocol

import attrs
import trio

from agentloop._runtime.background_blocks import BackgroundBlock, open_block
from agentloop._runtime.tool_context import runs_of_block, start_in_block
from agentloop._runtime.toolset_start import is_shared, run_in_charge
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import ChildLimitError, StreamStateError, ToolError, UsageError
from agentloop.outcome import BackgroundRun, QuestionHandler
from agentloop.toolkit._named_agents import agents_by_name, prompt_of, with_list
from agentloop.toolkit._shared_state import NotesToolset, OpenNotes
from agentloop.tools import OpenToolset, Tool, Toolset, tool

__all__ = ["background"]

MOST = 20
"""Background runs of one stream, or of one block, at once; `ToolContext.start` bounds them as well."""

MAX_WAIT = 3600.0
"""Seconds that one call waits at most, as in docker-agent."""

INSTRUCTIONS = """\
run_background_agent starts an agent that works in the background: go on with other work meanwhile. When it ends, you \
get a message with its answer, before you can finish, so there is no need to ask again and again how far it is."""

INSTRUCTIONS_OF_BLOCK = """\
run_background_agent starts an agent that works in the background, also after you have answered: go on with other \
work, and answer when you have done yours. When it ends, you get a message with its answer, perhaps after a later \
message of the user, so there is no need to ask again and again how far it is."""


def background(*agents: Agent[Any, Any], at_once: int = MOST, on_question: QuestionHandler | None = None) -> Toolset:
    """A toolset with which the model starts agents in the background, and looks after them.

    ::

        lead = Agent(model, toolsets=[background(researcher, coder)])

        async with Toolsets(background(researcher, coder)) as staff:    # for a chat: the runs end with this block
            lead = Agent(model, toolsets=[staff])

    Its tools are ``run_background_agent``, ``list_background_agents``, ``view_background_agent``,
    ``wait_for_background_agents``, ``stop_background_agent`` and ``steer_background_agent``. An agent that was started
    so runs as a child of the stream whose model has started it, beside the turns of that stream: see
    `ToolContext.start`. It reads the task alone, and not the conversation. The model reads its answer as a message with
    the request after its end, 4,096 characters of it at once. All of them end with the stream at the latest.

    Inside of `Toolsets`, a run belongs to that block: the stream that has started it may end, and a later one lists,
    steers and stops it. Its end is reported with the next request of a stream that is open, or with the first request
    of the next one of the same session. One block may serve many sessions, which do not see the runs of each other.

    Args:
      agents: the agents. Their descriptions tell the model what each is for.
      at_once: how many may run at once, from 1 to 20.
      on_question: answers the questions of these agents, or returns ``None`` to pass one on to the reader.

    Raises:
      UsageError: there are no agents, two have one name, or ``at_once`` is out of its range.
    """
    known = agents_by_name("background", agents)
    if not 1 <= at_once <= MOST:
        raise UsageError(f"background(at_once={at_once!r}): give a number from 1 to {MOST}")
    of_stream = _tools(known, at_once, _OfStream(on_question))

    @asynccontextmanager
    async def opened() -> AsyncGenerator[OpenToolset]:
        if not is_shared():
            yield OpenNotes(of_stream, INSTRUCTIONS)
            return
        async with open_block() as block:
            yield _OpenBlock(block, _tools(known, at_once, _OfBlock(block, on_question)))

    return _Background("background", f"background agents {', '.join(known)}", opened, agents=agents)


class _Background(NotesToolset):
    """The toolset, with the agents that its tools start."""

    stops_first = True
    """The agents may use the other toolsets of a block, which stop when their runs have ended."""

    def __init__(self, *args: Any, agents: tuple[Agent[Any, Any], ...]) -> None:
        super().__init__(*args)
        self.agents = agents


class _OpenBlock:
    """The open toolset of a block."""

    instructions = INSTRUCTIONS_OF_BLOCK

    def __init__(self, block: BackgroundBlock, tools: tuple[Tool, ...]) -> None:
        self._block = block
        self._tools = tools

    async def list_tools(self) -> Sequence[Tool]:  # noqa: ASYNC124 - as toolsets have it
        run = run_in_charge()
        if run is not None:
            self._block.join(run)
        return self._tools


# -------------------------------------------------------------------------- whose runs they are


class _Runs(Protocol):
    """The background runs that the tools look after."""

    def of(self, context: ToolContext[Any]) -> Sequence[BackgroundRun[Any]]:
        """Those whose end the model has not read."""
        ...

    async def start(self, context: ToolContext[Any], agent: Agent[Any, Any], prompt: str) -> BackgroundRun[Any]:
        """Start one."""
        ...


class _OfStream:
    """Those of the stream that makes the call."""

    def __init__(self, on_question: QuestionHandler | None) -> None:
        self._on_question = on_question

    def of(self, context: ToolContext[Any]) -> Sequence[BackgroundRun[Any]]:
        return context.background

    async def start(self, context: ToolContext[Any], agent: Agent[Any, Any], prompt: str) -> BackgroundRun[Any]:
        return await context.start(agent, prompt, on_question=self._on_question)


class _OfBlock:
    """Those of a block, whichever stream has started them."""

    def __init__(self, block: BackgroundBlock, on_question: QuestionHandler | None) -> None:
        self._block = block
        self._on_question = on_question

    def of(self, context: ToolContext[Any]) -> Sequence[BackgroundRun[Any]]:
        return runs_of_block(context, self._block)

    async def start(self, context: ToolContext[Any], agent: Agent[Any, Any], prompt: str) -> BackgroundRun[Any]:
        return await start_in_block(context, self._block, agent, prompt, on_question=self._on_question)


# ---------------------------------------------------------------------------------- the tools


def _tools(known: Mapping[str, Agent[Any, Any]], at_once: int, runs: _Runs) -> tuple[Tool, ...]:
    """The tools for the agents ``known``, by name, which look after ``runs``."""
    return (_run_tool(known, at_once, runs), *_care(runs))


def _run_tool(known: Mapping[str, Agent[Any, Any]], at_once: int, runs: _Runs) -> Tool:
    async def run_background_agent(context: ToolContext[Any], agent: str, task: str, expected_output: str = "") -> str:
        """Start an agent in the background.

        Args:
          agent: name of the agent.
          task: the task, with all that the agent has to know: it does not see this conversation.
          expected_output: what the answer should be like.
        """
        running = [run.id for run in runs.of(context) if run.status == "running"]
        # A call that is made again finds the run that it has started, which is one of them.
        is_again = any(run.call_id == context.call_id for run in runs.of(context))
        if len(running) >= at_once and not is_again:
            raise ToolError(f"{len(running)} run already ({', '.join(running)}): wait for one, or stop one")
        try:
            run = await runs.start(context, known[agent], prompt_of(task, expected_output))
        except (ChildLimitError, StreamStateError) as error:
            raise ToolError(str(error)) from error
        return f"{run.id} is running. You get a message with its answer when it ends."

    run_background_agent.__annotations__["agent"] = Literal[tuple(known)]
    description = with_list("Start an agent in the background, and go on meanwhile.", known)
    # A retry finds the run that the first attempt has started. One call at a time: each counts the runs that are open,
    # and one that another call is opening is not among them yet.
    options: dict[str, Any] = {"timeout": float("inf"), "if_interrupted": "retry", "concurrency": 1}
    made = tool(description=description, **options)(run_background_agent)
    return attrs.evolve(made, agents=tuple(known.values()))


def _line(run: BackgroundRun[Any]) -> str:
    return f"{run.id}: {run.status}" + ("" if run.status == "running" else "; a message with its end follows")


def _care(runs: _Runs) -> tuple[Tool, ...]:
    """The tools that look after runs that were started."""

    def find(context: ToolContext[Any], run_id: str) -> BackgroundRun[Any]:
        """The background run of that id. Raises `ToolError`, for the model, if there is none."""
        for run in runs.of(context):
            if run.id == run_id:
                return run
        known = ", ".join(run.id for run in runs.of(context)) or "none"
        raise ToolError(f"no background agent {run_id!r} is running, or waits for its report; those that are: {known}")

    async def listed(context: ToolContext[Any]) -> str:  # noqa: ASYNC124 - as tools have it
        """List the background agents that run, or whose end you have not read yet."""
        return "\n".join([_line(run) for run in runs.of(context)]) or "There are none."

    async def view(context: ToolContext[Any], run_id: str) -> str:  # noqa: ASYNC124 - as tools have it
        """Read what a background agent has written last.

        Args:
          run_id: the id of the background agent, such as researcher-1.
        """
        run = find(context, run_id)
        return f"{_line(run)}\n{run.text}" if run.text else f"{_line(run)}\nIt has not written anything yet."

    async def wait(context: ToolContext[Any], run_ids: list[str] | None = None, seconds: float = 300) -> str:
        """Wait until background agents have ended. There is no need to: you get a message when one ends.

        Args:
          run_ids: the ids of the background agents to wait for; all that run, if none are given.
          seconds: how long to wait at most, up to 3600.
        """
        waited = [find(context, run_id) for run_id in run_ids] if run_ids else list(runs.of(context))
        if not 0 <= seconds <= MAX_WAIT:
            raise ToolError(f"seconds={seconds:g}: give a number from 0 to {MAX_WAIT:g}")
        with trio.move_on_after(seconds):
            for run in waited:
                # A run that has the tools of its own block does not wait for its own end.
                with suppress(StreamStateError):
                    await run.wait()
        return "\n".join([_line(run) for run in waited]) or "There are none."

    async def stop(context: ToolContext[Any], run_id: str) -> str:
        """Stop a background agent, and wait for its end.

        Args:
          run_id: the id of the background agent.
        """
        run = find(context, run_id)
        run.stop("its parent stopped it")
        await run.wait()
        return _line(run)

    async def steer(context: ToolContext[Any], run_id: str, message: str) -> str:  # noqa: ASYNC124 - as tools have it
        """Send a message to a background agent. It reads the message before it goes on.

        Args:
          run_id: the id of the background agent.
          message: what it should know, or do.
        """
        try:
            find(context, run_id).steer(message)
        except (StreamStateError, UsageError) as error:
            raise ToolError(str(error)) from error
        return f"{run_id} reads the message before its next step."

    infinite = float("inf")
    return (
        tool(name="list_background_agents", read_only=True, idempotent=True, polling=True)(listed),
        tool(name="view_background_agent", read_only=True, idempotent=True, polling=True)(view),
        tool(name="wait_for_background_agents", read_only=True, idempotent=True, polling=True, timeout=infinite)(wait),
        tool(name="stop_background_agent", timeout=infinite, if_interrupted="retry")(stop),
        # A message that was not read is lost with the process, so that sending it again is better than asking.
        tool(name="steer_background_agent", if_interrupted="retry")(steer),
    )
