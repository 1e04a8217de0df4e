"""A worker as a program: ``python -m tests.engines.program URL EFFECTS ENGINE LEASE AT_ONCE``.

Each effect of a tool is one line of the file EFFECTS, which all workers share.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from functools import partial

import trio

from agentloop import Agent, ToolContext, tool
from agentloop.engines import WorkerOptions, work
from agentloop.journal import Store
from agentloop.messages import AssistantMessage, UserMessage
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.stores import SQLiteStore
from agentloop.testing import ScriptedModel, calls

__all__ = ["ANSWER", "CALLS", "agent", "open_store"]

ANSWER = "All done."
CALLS = ("look", "charge", "pay")
"""The tools that a run calls, in order: ``pay`` after an approval."""


def agent(effects: str, *, seconds: float = 0.05) -> Agent:
    """An agent that calls each tool once and then answers."""

    def note(name: str, context: ToolContext) -> None:
        line = f"{context.source.session} {name} {context.idempotency_key} {os.getpid()}\n"
        file = os.open(effects, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    @tool(idempotent=True)
    async def look(context: ToolContext) -> str:
        """Look."""
        note("look", context)
        await trio.sleep(seconds)
        return "seen"

    @tool(if_interrupted="report")
    async def charge(context: ToolContext) -> str:
        """Charge."""
        note("charge", context)
        await trio.sleep(seconds)
        return "charged"

    @tool(requires_approval=True, if_interrupted="retry")
    async def pay(context: ToolContext) -> str:
        """Pay."""
        note("pay", context)
        await trio.sleep(seconds)
        return "paid"

    class Script:
        name = "script"

        async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
            messages = request.messages
            last = max(index for index, message in enumerate(messages) if isinstance(message, UserMessage))
            turn = sum(isinstance(message, AssistantMessage) for message in messages[last:])
            response = calls(CALLS[turn]) if turn < len(CALLS) else ANSWER
            await trio.sleep(seconds)
            return await ScriptedModel(response).respond(request, reply)

    return Agent(Script(), name="payer", tools=[look, charge, pay])


def open_store(url: str) -> Store:
    if not url.startswith("postgresql"):
        return SQLiteStore(url)
    from agentloop.stores.postgres import PostgresStore

    return PostgresStore(url, connections=4, seconds=10)


async def _main(url: str, effects: str, engine: str, lease: float, at_once: int, seconds: float) -> None:
    options = WorkerOptions(at_once=at_once, lease_seconds=lease, poll_seconds=0.25, drain_seconds=5)
    stop = trio.Event()
    run = work
    if engine == "dbos":
        from agentloop.engines import dbos

        run = partial(dbos.work, database=url if url.startswith("postgresql") else f"sqlite:///{url}.dbos")
    if engine.startswith("restate "):
        from agentloop.engines import restate

        _, ingress, admin, bind = engine.split(" ")
        run = partial(restate.work, ingress=ingress, admin=admin, bind=bind)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_store(url).open() as store, trio.open_nursery() as nursery:

            async def wait_for_signal() -> None:
                async for _ in signals:
                    stop.set()

            nursery.start_soon(wait_for_signal)
            print(f"ready {os.getpid()}", flush=True)
            await run(store, agent(effects, seconds=seconds), options=options, stop=stop)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(created).1f %(process)d %(name)s %(message)s")
    trio.run(_main, sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
