"""``python -m tests.stores.parking DATABASE EFFECTS start|resume [ID=approve|accept]...``: a run that parks."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from agentloop import Accept, Agent, Approve, ToolContext, tool
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest
from agentloop.stores import SQLiteStore, stored_session
from agentloop.testing import FunctionModel, Response, calls


def note(path: Path, text: str) -> None:
    """Add a line to what is counted."""
    with path.open("a") as file:
        file.write(text + "\n")


def agent(effects: Path) -> Agent:
    @tool
    async def act(what: str) -> str:
        """Do something that can be counted."""
        note(effects, what)
        return what

    @tool(requires_approval=True)
    async def pay() -> str:
        """Pay."""
        note(effects, "paid")
        return "paid"

    @tool
    async def ask(context: ToolContext[None], tag: str) -> str:
        """Ask."""
        answer = await context.ask("Which?", {"type": "object", "properties": {"tag": {"type": "string"}}})
        note(effects, tag)
        return repr(answer)

    def inside(request: ModelRequest) -> Response | str:
        done = sum(isinstance(message, ToolResult) for message in request.messages)
        turns: list[Response | str] = [calls("act", what="inside"), calls("ask", tag="inner-asked"), "Inner."]
        return turns[done]

    def outside(request: ModelRequest) -> Response | str:
        if any(isinstance(message, ToolResult) for message in request.messages):
            return "Done."
        return calls("pay") + calls("ask", tag="asked") + calls("inner", prompt="go") + calls("act", what="free")

    inner = Agent(FunctionModel(inside), name="inner", tools=[act, ask])
    return Agent(FunctionModel(outside), tools=[act, pay, ask, inner.as_tool()])


async def main(database: str, effects: Path, what: str, given: list[str]) -> None:
    answers = {
        id: Approve() if answer == "approve" else Accept({"tag": "x"})
        for id, answer in (one.split("=") for one in given)
    }
    async with SQLiteStore(database).open() as store, stored_session(store, "ann") as session:
        if what == "start":
            outcome = await agent(effects).run("go", session=session, on_question="park")
        else:
            outcome = await agent(effects).resume(session, answers)
        print(outcome.reason)
        for question in session.questions:
            print(question.id, type(question).__name__)
        if outcome.output:
            print(outcome.output)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
