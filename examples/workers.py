"""Workers: prompts wait in a database, and any worker continues what another one has left.

The same workers, as processes of their own::

    python -m agentloop worker examples.workers:agents --database sessions.db

Prints::

    The prompt waits: bill
    The first worker is gone in the middle of a tool.
    The second worker called the tool again, under the same key: True
      waiting for an answer: transfer {'to': 'the plumber', 'amount': 250}
    The answer waits.
      ready: The plumber has 250.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio

from agentloop import Agent, Approve, ToolContext, tool
from agentloop.engines import WorkerOptions, answer, enqueue, work
from agentloop.events import ApprovalRequested
from agentloop.journal import OpenStore, SessionInfo
from agentloop.messages import ToolResult
from agentloop.models import Model, ModelRequest
from agentloop.stores import SQLiteStore, stored_session
from agentloop.testing import FunctionModel, Response, calls

PROMPT = "Pay the plumber's bill."

keys: list[str] = []
is_looking_up = trio.Event()


@tool(idempotent=True)
async def look_up(name: str, context: ToolContext) -> str:
    """Look up what somebody is owed."""
    keys.append(context.idempotency_key)
    is_looking_up.set()
    await trio.sleep(1 if len(keys) == 1 else 0)
    return "250"


@tool(requires_approval=True)
async def transfer(to: str, amount: int) -> str:
    """Transfer money."""
    await trio.lowlevel.checkpoint()
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
    return Agent(model or FunctionModel(offline), name="bookkeeper", tools=[look_up, transfer])


agents = {"bookkeeper": make_agent()}


async def wait_until(store: OpenStore, state: str) -> SessionInfo:
    while True:
        info = await store.info("bill")
        if info is not None and info.state == state:
            return info
        await trio.sleep(0.05)


async def main() -> None:
    options = WorkerOptions(poll_seconds=0.05)
    with tempfile.TemporaryDirectory() as folder:
        async with SQLiteStore(Path(folder) / "sessions.db").open() as store:
            await enqueue(store, "bill", PROMPT, agent="bookkeeper")
            print("The prompt waits: bill")
            async with trio.open_nursery() as first:
                first.start_soon(lambda: work(store, agents, options=options))
                await is_looking_up.wait()
                # As if it had died. After `kill -9`, the others wait for the end of its lease.
                first.cancel_scope.cancel()
            print("The first worker is gone in the middle of a tool.")
            async with trio.open_nursery() as second:
                second.start_soon(lambda: work(store, agents, options=options))
                await wait_until(store, "waiting")
                print(
                    "The second worker called the tool again, under the same key:", len(keys) == 2 and len({*keys}) == 1
                )
                second.cancel_scope.cancel()
            # Nothing runs now, and nothing is lost.
            async with stored_session(store, "bill") as session:
                (question,) = session.questions
            assert isinstance(question, ApprovalRequested)
            print(f"  waiting for an answer: {question.name} {question.arguments}")
            await answer(store, "bill", question.id, Approve())
            print("The answer waits.")
            stop = trio.Event()
            async with trio.open_nursery() as third:
                third.start_soon(lambda: work(store, agents, options=options, stop=stop))
                await wait_until(store, "ready")
                stop.set()
            async with stored_session(store, "bill") as session:
                print(f"  ready: {session.messages[-1].text}")


if __name__ == "__main__":
    trio.run(main)
