"""The story of docker-agent#3073: both early returns, in a stream inside a stream.

There, every run put its events channel into a slot that all runs shared, and cleaned up at its end. But two returns
came before the clean-up was registered: the tools could not be listed, or a hook refused the prompt. Then the reader's
loop never ended, and the slot went on pointing at the dead run: the next question of the outer agent reached nobody.

Here a stream is a block. However it is left, its reader's loop ends, and the outer agent asks as if nothing had been.

Prints::

    a stream of outer > unlisted begins
    its reader saw StreamStarted, StreamStopped; the loop ended with ToolsetError: toolset 'files' could not list ...
    outer asks: unlisted ended: failed. Shall I try the next helper?
    and gets the answer: Accept
    a stream of outer > refused begins
    its reader saw StreamStarted, StreamStopped; the loop ended
    outer asks: refused ended: blocked. Shall I try the next helper?
    and gets the answer: Accept
    outer: Neither helper could help.
    left over: 0 tasks, 0 open questions
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from agentloop import Accept, Agent, ToolContext, hooks, tool
from agentloop.errors import ToolsetError
from agentloop.events import ChildStreamStarted, ElicitationRequested, QuestionAnswered, ToolCallOutput
from agentloop.models import Model
from agentloop.testing import ScriptedModel, calls
from agentloop.tools import Tool

PROMPT = "Get me some help."


class Files:
    """A toolset that starts, and then cannot say which tools it has."""

    name = "files"

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Files]:
        yield self

    async def list_tools(self) -> list[Tool]:
        raise ConnectionResetError("the server hung up")


@hooks.user_prompt_submit
def refuse(submitted: hooks.UserPromptSubmit) -> hooks.Block:
    return hooks.Block("not on a Sunday")


def make_agent(model: Model | str | None = None) -> Agent:
    # Neither helper's model is ever asked: both streams end before that.
    unlisted = Agent(model or ScriptedModel(), name="unlisted", toolsets=[Files()])
    refused = Agent(model or ScriptedModel(), name="refused", hooks=[refuse])

    @tool
    async def get_help(context: ToolContext[None]) -> str:
        """Get help, if there is any."""
        for helper in (unlisted, refused):
            seen: list[str] = []
            ended = "the loop ended"
            async with context.stream(helper, "Help me, please.") as child:
                try:
                    async for event in child:
                        seen.append(type(event).__name__)  # noqa: PERF401 - also if the loop ends with an error
                except ToolsetError as error:
                    # A run that failed must not look finished: the loop ends with what made it fail.
                    ended += f" with {type(error).__name__}: {error}"
            await context.output(f"its reader saw {', '.join(seen)}; {ended}\n")
            answer = await context.ask(f"{helper.name} ended: {child.outcome.reason}. Shall I try the next helper?")
            if not isinstance(answer, Accept):
                return "There was one more helper, who was not asked."
        return "Neither helper could help."

    return Agent(
        model or ScriptedModel(calls("get_help"), "Neither helper could help."),
        name="outer",
        instructions="Get help with your tool, and say how that went.",
        tools=[get_help],
    )


async def main() -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    # On the way out that hung for ever, this would end the wait, with an error.
    with trio.fail_after(5):
        async with make_agent().stream(PROMPT) as stream:
            async for event in stream:
                match event:
                    case ChildStreamStarted():
                        print(f"a stream of {' > '.join(event.path)} begins")
                    case ToolCallOutput(text=text):
                        print(text, end="")
                    case ElicitationRequested():
                        print(f"{event.agent} asks: {event.message}")
                        stream.answer(event.id, Accept())
                    case QuestionAnswered(answer=answer):
                        print("and gets the answer:", type(answer).__name__)
                    case _:
                        pass
    tasks = trio.lowlevel.current_statistics().tasks_living - tasks
    print(f"{event.agent}: {stream.result.output}")
    print(f"left over: {tasks} tasks, {len(stream.pending)} open questions")


if __name__ == "__main__":
    trio.run(main)
