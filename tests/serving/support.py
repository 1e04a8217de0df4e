"""An ASGI client in memory, which reads a response piece by piece and may go away at any byte; and agents to serve."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from agentloop import Agent, ToolContext, tool
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest
from agentloop.serving import ServedApp
from agentloop.testing import FunctionModel, Response, calls

LOOPBACK = ("127.0.0.1", 50_000)


class Reply:
    """A response, as far as it has come."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_whole = False
        self._changed = trio.lowlevel.ParkingLot()

    def take(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")
            self.is_whole = not message.get("more_body", False)
        self._changed.unpark_all()

    async def until(self, part: bytes) -> None:
        """Wait until the body has ``part``."""
        while part not in self.body:
            assert not self.is_whole, f"the response ended without {part!r}: {self.body!r}"
            await self._changed.park()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The sentence of a refusal."""
        sentence: str = self.json["error"]["message"]
        return sentence

    @property
    def data(self) -> list[Any]:
        """The data of its server-sent events."""
        return [json.loads(text) for text in sse_data(self.body)]


def sse_data(body: bytes) -> list[str]:
    lines = [line for frame in body.decode().split("\n\n")[:-1] for line in frame.split("\n")]
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ") and "[DONE]" not in line]


class Client:
    """Sends requests to an app, without sockets."""

    def __init__(
        self,
        app: ServedApp,
        *,
        token: str = "",
        address: tuple[str, int] | None = LOOPBACK,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._app = app
        self._address = address
        self._headers = {"host": "localhost:8000", **(headers or {})}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    async def request(
        self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request, and read the whole response."""
        async with self.open(method, target, body, headers) as reply:
            while not reply.is_whole:
                await reply._changed.park()
            return reply

    async def get(self, target: str, headers: Mapping[str, str] | None = None) -> Reply:
        return await self.request("GET", target, None, headers)

    async def post(self, target: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        return await self.request("POST", target, {} if body is None else body, headers)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        cut_after: int | None = None,
    ) -> AsyncGenerator[Reply]:
        """Send a request. The client goes away at the end of the block, or after ``cut_after`` bytes of the body."""
        path, _, query = target.partition("?")
        sent = {**self._headers, **(headers or {})}
        if body is not None:
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "client": self._address,
            "server": ("127.0.0.1", 8000),
        }
        reply, gone = Reply(), trio.Event()
        to_send = [{"type": "http.request", "body": body or b"", "more_body": False}]

        async def receive() -> Any:
            if to_send:
                return to_send.pop(0)
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            if gone.is_set():
                return
            if cut_after is not None and message["type"] == "http.response.body":
                room = cut_after - len(reply.body)
                if len(message["body"]) >= room:
                    gone.set()
                    message = {**message, "body": message["body"][:room], "more_body": False}
            reply.take(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._app, scope, receive, send)
            yield reply
            gone.set()


# --------------------------------------------------------------------------------- agents


@tool(requires_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@tool
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@tool
async def wait(seconds: float) -> str:
    """Wait."""
    await trio.sleep(seconds)
    return "waited"


@tool
async def survey(context: ToolContext[Any]) -> str:
    """Ask."""
    form = {"type": "object", "properties": {"color": {"type": "string"}}, "required": ["color"]}
    answer = await context.ask("Which color?", form)
    return f"answered: {answer}"


def scripted(request: ModelRequest) -> Response | str:
    """Decides by the last message, so that any number of runs may go on at once."""
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        return f"The result is {last.text}."
    text = last.text.split()[-1] if last.text else ""
    match text:
        case "add":
            return calls("add", a=2, b=3)
        case "pay":
            return calls("pay", amount=5)
        case "survey":
            return calls("survey")
        case "both":
            return calls("pay", amount=5) + calls("survey")
        case "wait":
            return calls("wait", seconds=5)
        case _:
            return f"You said: {last.text}"


def make_agent(name: str = "assistant") -> Agent:
    return Agent(FunctionModel(scripted), name=name, tools=[pay, add, wait, survey])


def of_type(events: Sequence[Any], type: str) -> list[Any]:
    return [event for event in events if event["type"] == type]
