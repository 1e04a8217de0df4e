"""The tool with which the model gives a task to one of several agents, by its name."""

from __future__ import annotations

import os
from typing import Any, Literal

import attrs
import trio

from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.toolkit._attached import MAX_BYTES, read_attached
from agentloop.toolkit._named_agents import agents_by_name, prompt_of, with_list
from agentloop.toolkit._root import Root
from agentloop.tools import Tool, tool

__all__ = ["transfer_task"]

NO_FILES: list[str] = []
"""The files of a task without any. Nothing changes it."""


def transfer_task(
    *agents: Agent[Any, Any], name: str = "transfer_task", files: str | os.PathLike[str] | None = None
) -> Tool:
    """A tool with which the model gives a task to one of several agents, by its name, and gets the answer.

    ::

        lead = Agent(model, tools=[transfer_task(researcher, coder)])

    The agent runs as a child stream, as with `Agent.as_tool`: its events appear in the outer stream, its questions go
    outwards, and it draws on the outer limits. It reads the task alone, and not the conversation; several tasks of one
    turn run at once. One tool for all agents takes fewer tokens than a tool for each, and says what answer is expected.
    For a conversation that goes on with the other agent, see `agentloop.handoffs`.

    Args:
      agents: the agents. Their descriptions tell the model what each is for.
      name: the tool's name for the model.
      files: a folder whose files the model may attach to a task, by their paths, as `attached` does; ``None`` for none.
        Whoever may give a task may then read the files of the folder.

    Raises:
      UsageError: there are no agents, or two have one name; or ``files`` is no folder.
    """
    known = agents_by_name("transfer_task", agents)

    async def transfer(context: ToolContext[Any], agent: str, task: str, expected_output: str = "") -> Any:
        """Give a task to another agent, and get its answer.

        Args:
          agent: name of the agent.
          task: the task, with all that the agent has to know: it does not see this conversation.
          expected_output: what the answer should be like.
        """
        return await known[agent].as_tool().function(prompt_of(task, expected_output), context)

    async def transfer_with_files(
        context: ToolContext[Any], agent: str, task: str, expected_output: str = "", files: list[str] = NO_FILES
    ) -> Any:
        """Give a task to another agent, and get its answer.

        Args:
          agent: name of the agent.
          task: the task, with all that the agent has to know: it does not see this conversation.
          expected_output: what the answer should be like.
          files: paths of files that the agent gets with the task.
        """
        assert root is not None
        prompt = prompt_of(task, expected_output)
        if not files:
            return await known[agent].as_tool().function(prompt, context)
        parts = await trio.to_thread.run_sync(read_attached, root, files, MAX_BYTES)
        # The tool of an agent takes whatever a prompt may be, though its schema says text.
        delegate: Any = known[agent].as_tool().function
        return await delegate([prompt, *parts], context)

    root = None if files is None else Root(files)
    function = transfer if root is None else transfer_with_files
    # The names are known only here.
    function.__annotations__["agent"] = Literal[tuple(known)]
    description = with_list("Give a task to another agent, and get its answer.", known)
    # A retry resumes the child; each call inside it decides about itself.
    made = tool(name=name, description=description, timeout=float("inf"), if_interrupted="retry")(function)
    return attrs.evolve(made, agents=tuple(known.values()))
