"""Permissions: which tool calls run by themselves, which a person is asked about, and which never run.

Prints::

    ran: git status
    asked about git status; rm -rf /: no
    asked about git push: yes, and from now on
    ran: git push
    ran: git push
    denied: Denied by the rule shell(command like "git push --force*").
    keeper: Pushed, twice. Nothing was removed.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from agentloop import Agent, Approve, Deny, Permissions, Rule, tool
from agentloop.events import ApprovalRequested, Question, ToolCallFinished
from agentloop.messages import ToolResult
from agentloop.models import Model, ModelRequest
from agentloop.permissions import Exact, Glob
from agentloop.questions import Answer
from agentloop.testing import FunctionModel, Response, calls

PROMPT = "Publish my work."
COMMANDS: Sequence[str] = (
    "git status",
    "git status; rm -rf /",
    "git push",
    "git push",
    "git push --force",
)


def exactly(line: str) -> Rule:
    """Calls of the shell with this very command."""
    return Rule("shell", {"command": Exact(line)})


def command(pattern: str) -> Rule:
    """Calls of the shell with a command like ``pattern``."""
    return Rule("shell", {"command": Glob(pattern)})


# Allow rules name whole commands: `git log*` would cover `git log --output=FILE` too, which writes any file.
# An approval for good is for the very same call, unless the answer says more.
RULES = Permissions(
    allow=[exactly("git status"), exactly("git log")],
    deny=[command("git push --force*")],
    mode="strict",
)


@tool
def shell(command: str) -> str:
    """Run a command; this one only says so."""
    return f"ran: {command}"


async def person(question: Question) -> Answer:
    """Stands in for somebody at a keyboard."""
    await trio.lowlevel.checkpoint()
    assert isinstance(question, ApprovalRequested)
    asked = question.arguments["command"]
    if "rm" in asked:
        print(f"asked about {asked}: no")
        return Deny("nothing is to be removed")
    print(f"asked about {asked}: yes, and from now on")
    return Approve(always=True)


def offline(request: ModelRequest) -> Response | str:
    """What stands in for a model here: it runs one command after another."""
    done = sum(isinstance(message, ToolResult) for message in request.messages)
    if done < len(COMMANDS):
        return calls("shell", command=COMMANDS[done])
    return "Pushed, twice. Nothing was removed."


def make_agent(model: Model | str | None = None) -> Agent:
    return Agent(model or FunctionModel(offline), name="keeper", tools=[shell], permissions=RULES)


async def main() -> None:
    async with make_agent().stream(PROMPT, on_question=person) as stream:
        async for event in stream:
            if isinstance(event, ToolCallFinished) and event.result.status == "ok":
                print(event.result.text)
            elif isinstance(event, ToolCallFinished) and "rule" in event.result.text:
                print(f"denied: {event.result.text}")
    print(f"keeper: {stream.result.output}")


if __name__ == "__main__":
    trio.run(main)
