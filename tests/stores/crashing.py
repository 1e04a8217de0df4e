"""``python -m tests.stores.crashing DATABASE EFFECTS WRITE``: a run that is killed right after its n-th write."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from agentloop import Accept, Agent, Deny, ToolContext, tool
from agentloop.events import ElicitationRequested, MessageCommitted, Question, ToolCallFinished
from agentloop.journal import OpenStore, Record
from agentloop.questions import Answer
from agentloop.stores import SQLiteStore, stored_session
from agentloop.testing import Response, ScriptedModel, calls


class Deadly:
    """A store that lets the process die after so many additions."""

    def __init__(self, store: OpenStore, writes: int) -> None:
        self.store = store
        self.left = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def append(self, session: str, records: Sequence[Record], /, **options: Any) -> None:
        await self.store.append(session, records, **options)
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def note(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def agent(effects: Path) -> Agent:
    @tool
    async def act(what: str, context: ToolContext[None]) -> str:
        """Do something that can be counted."""
        note(effects, context.idempotency_key)
        return what

    @tool
    async def ask(context: ToolContext[None]) -> str:
        """Ask."""
        answer = await context.ask("Which?", {"type": "object", "properties": {"tag": {"type": "string"}}})
        note(effects, context.idempotency_key)
        return repr(answer)

    inner = Agent(ScriptedModel(calls("act", what="inside"), "Inner."), name="inner", tools=[act])
    script: list[Response | str] = [
        calls("act", what="one") + calls("act", what="two") + calls("inner", prompt="go"),
        calls("ask"),
        calls("act", what="three"),
        "Done.",
    ]
    return Agent(ScriptedModel(*script), tools=[act, ask, inner.as_tool()])


async def handler(question: Question) -> Answer:
    return Accept({"tag": "this"}) if isinstance(question, ElicitationRequested) else Deny()


async def main(database: str, effects: Path, writes: int) -> None:
    async with SQLiteStore(database).open() as store:
        deadly: Any = Deadly(store, writes)
        async with (
            stored_session(deadly, "ann", lease_seconds=0.001) as session,
            agent(effects).stream("go", session=session, on_question=handler) as stream,
        ):
            async for event in stream:
                # What a reader was told, for the parent to compare with.
                if isinstance(event, ToolCallFinished) and event.depth == 0:
                    print("result", event.call_id, flush=True)
                if isinstance(event, MessageCommitted) and event.depth == 0:
                    print("message", event.index, flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
