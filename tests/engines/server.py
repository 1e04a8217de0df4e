"""A server that enqueues, as a program: ``python -m tests.engines.server URL``. It prints its address."""

from __future__ import annotations

import sys

import trio

from agentloop.serving import app, run
from tests.engines.program import agent, open_store


async def _main(url: str) -> None:
    served = app(agent("/dev/null"), store=open_store(url), enqueue=True)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(lambda task_status: run(served, port=0, task_status=task_status))
        print(address, flush=True)


if __name__ == "__main__":
    trio.run(_main, sys.argv[1])
