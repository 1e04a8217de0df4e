"""A model server for the figures over HTTP, in a process of its own: OpenAI's chat completions, streamed.

The path says which plan it goes by (``/talk/v1/chat/completions``), the number of messages which turn it is at. A
response is sent as fast as the client takes it, with a chunk for each delta.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any

import msgspec
import trio

from tests.bench.measure import process
from tests.bench.work import SHORT, TALK, Plan, turns

__all__ = ["running_server"]

PLANS = {"short": SHORT, "talk": TALK, "turns": turns(20)}
FLOOD = "flood-"
"""Before the number of letters that a response is to have, a delta each."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def running_server() -> Generator[str]:
    """Start the server, and give its URL; it ends with the block."""
    with process("-m", "tests.bench.server", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()


def _event(data: bytes) -> bytes:
    event = b"data: %s\n\n" % data
    return b"%x\r\n%s\r\n" % (len(event), event)


def _delta(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "bench", "choices": [choice]}
    return _event(msgspec.json.encode(chunk))


@cache
def _response(plan: Plan, messages: int) -> bytes:
    turn = plan.next(messages)
    events = [_delta({"role": "assistant", "content": ""})]
    events += [_delta({"content": text}) for text in turn.texts]
    for index, call in enumerate(turn.calls):
        function = {"name": call.name, "arguments": ""}
        events.append(
            _delta({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]})
        )
        events.append(_delta({"tool_calls": [{"index": index, "function": {"arguments": call.arguments}}]}))
    events.append(_delta({}, "tool_calls" if turn.calls else "stop"))
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    events.append(_event(msgspec.json.encode({"id": "chatcmpl-1", "choices": [], "usage": usage})))
    return b"".join([HEAD, *events, _event(b"[DONE]"), b"0\r\n\r\n"])


async def _send_flood(stream: trio.SocketStream, letters: int) -> None:
    """A response that is too long to be put together first."""
    some = 1000
    block = _delta({"content": "x"}) * some
    await stream.send_all(HEAD)
    for _ in range(letters // some):
        await stream.send_all(block)
    await stream.send_all(_delta({}, "stop") + _event(b"[DONE]") + b"0\r\n\r\n")


async def _serve(stream: trio.SocketStream) -> None:
    """Answer the requests of one connection until the client closes it."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            received = await stream.receive_some()
            if not received:
                return
            data += received
        head, data = data.split(b"\r\n\r\n", 1)
        line, *fields = head.split(b"\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(b":") for field in fields)}
        length = int(headers[b"content-length"])
        while len(data) < length:
            data += await stream.receive_some()
        body, data = msgspec.json.decode(data[:length]), data[length:]
        name = line.split(b"/")[1].decode()
        if name.startswith(FLOOD):
            await _send_flood(stream, int(name.removeprefix(FLOOD)))
        else:
            await stream.send_all(_response(PLANS[name], len(body["messages"])))


async def _main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, _serve, listeners)
        print(listeners[0].socket.getsockname()[1], flush=True)
        # The other end closes it, or is gone.
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_main)
