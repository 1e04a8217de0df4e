"""An external agent in this process: it answers over streams in memory, as a test says."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import trio
import trio.testing

__all__ = ["Fake", "Turn", "allow_options"]

Play: TypeAlias = Callable[["Turn"], Awaitable[str | dict[str, Any]]]


def allow_options() -> list[dict[str, str]]:
    """The options of most agents."""
    return [
        {"optionId": "always", "name": "Always", "kind": "allow_always"},
        {"optionId": "once", "name": "Once", "kind": "allow_once"},
        {"optionId": "no", "name": "No", "kind": "reject_once"},
    ]


class Fake:
    """The agent. Its ``connect`` is for `ExternalAgent(connect=...)`; each connection is a process of its own.

    Args:
      plays: the turns, in order, over all connections. Each returns a stop reason, or the whole result.
      can_load: whether it keeps its sessions.
      initialized: the result of ``initialize``, if it is another.
      answers: results of other methods, or errors, as dicts with a ``code``.
    """

    def __init__(
        self,
        *plays: Play,
        can_load: bool = False,
        initialized: dict[str, Any] | None = None,
        answers: dict[str, Any] | None = None,
    ) -> None:
        self._plays = list(plays)
        self._initialized = initialized or {"protocolVersion": 1, "agentCapabilities": {"loadSession": can_load}}
        self._answers = answers or {}
        self.received: list[dict[str, Any]] = []
        """All messages of the client, in order."""
        self.prompts: dict[str, list[str]] = {}
        """The prompts of each session, as text."""
        self.connections = 0

    def methods(self) -> list[str]:
        """The methods that the client called, in order."""
        return [message["method"] for message in self.received if "method" in message]

    def params(self, method: str) -> dict[str, Any]:
        """The parameters of the last call of ``method``."""
        return next(message["params"] for message in reversed(self.received) if message.get("method") == method)

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[trio.abc.Stream]:
        ours, theirs = trio.testing.memory_stream_pair()
        self.connections += 1
        async with trio.open_nursery() as nursery:
            # It reads what is there already when it begins.
            nursery.start_soon(_Connection(self, theirs, nursery).serve)  # noqa: ASYNC113
            try:
                yield ours
            finally:
                nursery.cancel_scope.cancel()

    def next_play(self) -> Play:
        return self._plays.pop(0)

    async def answer(self, connection: _Connection, method: str, params: dict[str, Any]) -> Any:
        if method in self._answers:
            return self._answers[method]
        if method == "initialize":
            return self._initialized
        if method == "session/new":
            session = f"theirs-{len(self.prompts)}"
            self.prompts[session] = []
            return {"sessionId": session}
        if method == "session/load":
            if params["sessionId"] not in self.prompts:
                return {"code": -32002, "message": "no such session"}
            for text in self.prompts[params["sessionId"]]:
                for piece in (text[:3], text[3:]):
                    block = {"type": "text", "text": piece}
                    await connection.update(params["sessionId"], sessionUpdate="user_message_chunk", content=block)
                block = {"type": "text", "text": "(an old answer)"}
                await connection.update(params["sessionId"], sessionUpdate="agent_message_chunk", content=block)
            return {}
        if method == "session/prompt":
            turn = connection.turn = Turn(connection, params["sessionId"])
            self.prompts[params["sessionId"]].append("".join(block.get("text", "") for block in params["prompt"]))
            stopped = await self.next_play()(turn)
            return {"stopReason": stopped} if isinstance(stopped, str) else stopped
        return {}


class _Connection:
    def __init__(self, fake: Fake, stream: trio.abc.Stream, nursery: trio.Nursery) -> None:
        self._fake = fake
        self.stream = stream
        self._nursery = nursery
        self._sending = trio.Lock()
        self._last_id = 0
        self._responses: dict[int, dict[str, Any]] = {}
        self._changed = trio.lowlevel.ParkingLot()
        self.turn: Turn | None = None

    async def serve(self) -> None:
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            await self._serve()

    async def _serve(self) -> None:
        rest = b""
        async for data in self.stream:
            *lines, rest = (rest + bytes(data)).split(b"\n")
            for line in lines:
                message = json.loads(line)
                self._fake.received.append(message)
                if message.get("method") == "session/cancel" and self.turn is not None:
                    self.turn.cancelled.set()
                elif "method" in message:
                    self._nursery.start_soon(self._answer, message)
                else:
                    self._responses[message["id"]] = message
                    self._changed.unpark_all()

    async def _answer(self, message: dict[str, Any]) -> None:
        result = await self._fake.answer(self, message["method"], message.get("params", {}))
        field = "error" if isinstance(result, dict) and "code" in result else "result"
        await self.send({"id": message["id"], field: result})

    async def send(self, *messages: dict[str, Any]) -> None:
        """Send messages, which arrive at once."""
        lines = [json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n" for message in messages]
        async with self._sending:
            await self.stream.send_all(b"".join(lines))

    async def update(self, session: str, **update: Any) -> None:
        await self.send({"method": "session/update", "params": {"sessionId": session, "update": update}})

    async def request(self, method: str, *several: dict[str, Any]) -> list[dict[str, Any]]:
        """The responses to requests that are sent at once, with these parameters."""
        ids = [self._last_id + 1 + number for number in range(len(several))]
        self._last_id = ids[-1]
        requests = zip(ids, several, strict=True)
        await self.send(*({"id": id, "method": method, "params": params} for id, params in requests))
        while not self._responses.keys() >= {*ids}:
            await self._changed.park()
        return [self._responses.pop(id) for id in ids]


class Turn:
    """A turn of the agent, for a play to write."""

    def __init__(self, connection: _Connection, session: str) -> None:
        self._connection = connection
        self.session = session
        self.cancelled = trio.Event()
        """Set when the client has cancelled the turn."""

    async def say(self, text: str, *, kind: str = "agent_message_chunk") -> None:
        await self.update(sessionUpdate=kind, content={"type": "text", "text": text})

    async def think(self, text: str) -> None:
        await self.say(text, kind="agent_thought_chunk")

    async def update(self, **update: Any) -> None:
        await self._connection.update(self.session, **update)

    async def begin(self, id: str, title: str, status: str = "in_progress", **fields: Any) -> None:
        await self.update(sessionUpdate="tool_call", toolCallId=id, title=title, status=status, **fields)

    async def tell(self, id: str, status: str | None = None, text: str | None = None) -> None:
        content = None if text is None else [{"type": "content", "content": {"type": "text", "text": text}}]
        fields = {"status": status, "content": content}
        given = {name: value for name, value in fields.items() if value is not None}
        await self.update(sessionUpdate="tool_call_update", toolCallId=id, **given)

    async def request(self, method: str, **params: Any) -> dict[str, Any]:
        """The response to a request of the client."""
        [response] = await self._connection.request(method, {"sessionId": self.session, **params})
        return response

    async def may(self, id: str, title: str, **fields: Any) -> str:
        """Ask for permission. Returns the option, or the outcome if there is none."""
        [answer] = await self.may_all({"toolCallId": id, "title": title, **fields})
        return answer

    async def may_all(self, *tools: dict[str, Any]) -> list[str]:
        """Ask for permission of several calls at once."""
        shared = {"sessionId": self.session, "options": allow_options()}
        asked = [{**shared, "toolCall": call} for call in tools]
        responses = await self._connection.request("session/request_permission", *asked)
        outcomes: list[dict[str, str]] = [response["result"]["outcome"] for response in responses]
        return [outcome.get("optionId", outcome["outcome"]) for outcome in outcomes]

    async def die(self) -> None:
        """End the process."""
        await self._connection.stream.aclose()
        await trio.sleep_forever()
