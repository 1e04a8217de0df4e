"""An event that a server sends, by the CPU time of its process: ours, and one that was written by hand for this.

Both run on hypercorn's trio worker with starlette, encode an event once for all of their clients, and send several at
once to a client that lags behind. The server by hand has no agent: it makes events in a loop, keeps them in a list, and
has no sessions, no store, no limits and no principals. Ours runs an agent, and saves the run in a `MemoryStore`. The
clients are in this process, and read as fast as they can.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx2
import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agentloop import Agent, serving
from agentloop.messages import Usage
from agentloop.models import ModelRequest, Reply, Stop
from tests.bench.figures import Measured
from tests.bench.measure import Samples, median, process, ratio

__all__ = ["reading"]

TEXT = "word and some more of it "
BURST = 50
"""Events between two checkpoints of a run: a connection's packet brings several."""
SESSION = "ew7y4grdspyrbdjxaknt-QgY4rypgyRNYoEs5dyWeNA"
SOURCE = {"session": SESSION, "stream": f"{SESSION}/1", "agents": ["assistant"]}
"""As long as ours."""
LAST = b"stream_stopped"


# -------------------------------------------------------------------------------- servers


class _Deltas:
    """A model that sends as many deltas as the prompt says."""

    name = "deltas"

    async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
        for number in range(int(request.messages[-1].text)):
            await reply.text(TEXT)
            if number % BURST == 0:
                await trio.lowlevel.checkpoint()
        return Stop(usage=Usage(1, 1))


async def _ours() -> None:
    async with trio.open_nursery() as nursery:
        app = serving.app(Agent(_Deltas(), name="assistant"), protocols=["events"])
        print(await nursery.start(partial(serving.run, app, port=0)), flush=True)


async def _bare() -> None:
    frames: list[bytes] = []
    news = trio.lowlevel.ParkingLot()

    def add(type: str, **fields: Any) -> None:
        event = {"type": type, "source": SOURCE, "seq": len(frames) + 1, **fields}
        frames.append(b"id: %d\ndata: %b\n\n" % (len(frames) + 1, msgspec.json.encode(event)))
        news.unpark_all()

    async def written() -> AsyncGenerator[bytes]:
        sent = 0
        yield b": ready\n\n"
        while not frames or LAST not in frames[sent - 1]:
            if sent == len(frames):
                await news.park()
            some, sent = frames[sent:], len(frames)
            yield b"".join(some)

    async def events(request: Request) -> Response:
        return StreamingResponse(written(), media_type="text/event-stream")

    async def run(request: Request) -> Response:
        for number in range(int((await request.json())["text"])):
            add("text_delta", text=TEXT)
            if number % BURST == 0:
                await trio.lowlevel.checkpoint()
        add("stream_stopped")
        return Response(status_code=202)

    app = Starlette(routes=[Route("/events", events), Route("/prompts", run, methods=["POST"])])
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(serve, cast("Any", app), config))
        print(address, flush=True)


# -------------------------------------------------------------------------------- clients


@contextmanager
def _server(name: str) -> Any:
    with process("-m", "tests.bench.served", name, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().decode().strip(), server.pid
        finally:
            server.kill()


def _cpu_seconds(pid: int) -> float:
    """CPU time of another process. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _read(address: str, path: str, ready: trio.Event) -> None:
    host, _, port = address.removeprefix("http://").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        tail = b""
        while LAST not in tail:
            data = await stream.receive_some(262_144)
            assert data, "the server has closed the connection"
            tail = tail[-len(LAST) :] + data
            ready.set()


async def _once(name: str, address: str, pid: int, clients: int, events: int) -> float:
    """CPU seconds of the server for an event that it sends to a client."""
    async with httpx2.AsyncClient(base_url=address if "//" in address else f"http://{address}", timeout=300) as http:
        path = ""
        if name == "ours":
            path = f"/sessions/{(await http.post('/sessions', json={})).json()['id']}"
        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                ready = trio.Event()
                nursery.start_soon(_read, address, f"{path}/events", ready)
                await ready.wait()
            began = _cpu_seconds(pid)
            begun = await http.post(f"{path}/prompts", json={"text": str(events)})
            assert begun.status_code == 202
        return (_cpu_seconds(pid) - began) / events / clients


def reading(clients: int) -> Callable[[bool], Measured]:
    """An event that a server sends, to so many clients of one run."""

    def measure(quick: bool) -> Measured:
        events = (20_000 if clients == 1 else 1_000) // (4 if quick else 1)
        samples: dict[str, Samples] = {"ours": [], "bare": []}
        for _ in range(2 if quick else 9):
            for name, found in samples.items():
                # A server of its own each: the one by hand has one run.
                with _server(name) as (address, pid):
                    found.append(trio.run(_once, name, address, pid, clients, events))
        ours, bare = median(samples["ours"]), median(samples["bare"])
        note = f"by hand: hypercorn and starlette; events a second: {1 / ours:,.0f}, by hand {1 / bare:,.0f}"
        return Measured(ours=ours * 1e6, bare=bare * 1e6, value=ratio(samples["ours"], samples["bare"]), note=note)

    return measure


if __name__ == "__main__":
    trio.run(_ours if sys.argv[1] == "ours" else _bare)
