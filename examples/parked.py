"""Parked: a run ends where it needs a person, and goes on in another program, on another day.

Prints::

    Monday: needs_input
      ann/1?1 asks to call transfer with {'to': 'the plumber', 'amount': 250}
    Tuesday: completed
      looked up once, paid once: The plumber has 250.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio

from agentloop import Agent, Approve, tool
from agentloop.events import ApprovalRequested
from agentloop.messages import ToolResult
from agentloop.models import Model, ModelRequest
from agentloop.stores import SQLiteStore, stored_session
from agentloop.testing import FunctionModel, Response, calls

PROMPT = "Pay the plumber's bill."

looked_up: list[str] = []
paid: list[str] = []


@tool(read_only=True)
async def look_up(name: str) -> str:
    """Look up what somebody is owed."""
    await trio.lowlevel.checkpoint()
    looked_up.append(name)
    return "250"


@tool(requires_approval=True)
async def transfer(to: str, amount: int) -> str:
    """Transfer money."""
    await trio.lowlevel.checkpoint()
    paid.append(to)
    return f"{to} has {amount}"


def offline(request: ModelRequest) -> Response | str:
    """What stands in for a model here: it looks up the bill, then pays it."""
    last = request.messages[-1]
    if not isinstance(last, ToolResult):
        return calls("look_up", name="the plumber")
    if last.name == "look_up":
        return calls("transfer", to="the plumber", amount=int(last.text))
    return f"{last.text.capitalize()}." if last.status == "ok" else f"As you wish. ({last.text})"


def make_agent(model: Model | str | None = None) -> Agent:
    return Agent(
        model or FunctionModel(offline),
        name="bookkeeper",
        instructions="Look up what is owed before you transfer anything.",
        tools=[look_up, transfer],
    )


async def monday(file: Path) -> None:
    async with SQLiteStore(file).open() as store, stored_session(store, "ann") as session:
        outcome = await make_agent().run(PROMPT, session=session, on_question="park")
    print(f"Monday: {outcome.reason}")
    for question in outcome.questions:
        # All of it is data: show it on a web page, send it by mail.
        assert isinstance(question, ApprovalRequested)
        print(f"  {question.id} asks to call {question.name} with {question.arguments}")


async def tuesday(file: Path) -> None:
    async with SQLiteStore(file).open() as store, stored_session(store, "ann") as session:
        answers = {question.id: Approve() for question in session.questions}
        outcome = await make_agent().resume(session, answers)
    print(f"Tuesday: {outcome.reason}")
    once = {1: "once"}
    print(f"  looked up {once[len(looked_up)]}, paid {once[len(paid)]}: {outcome.output}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sessions.db"
        # Of the first, nothing is left when the second begins, but the file: they could as well be two programs.
        await monday(file)
        await tuesday(file)


if __name__ == "__main__":
    trio.run(main)
