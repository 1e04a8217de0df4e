"""The words of the chat completions protocol, as a server says them, and what a client makes of them."""

from __future__ import annotations

from typing import Any

import trio

from agentloop._core.response import Assembler
from agentloop.messages import AssistantMessage, Text, Usage, UserMessage
from agentloop.models import Model, ModelRequest, Stop
from tests.providers.server import DONE, chunked, event


def piece(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": [choice], **fields}


def said(text: str) -> bytes:
    return event(piece({"content": text}))


def called(index: int | None, id: str | None = None, name: str | None = None, arguments: Any = None) -> bytes:
    function = {"name": name, "arguments": arguments}
    call = {"index": index, "id": id, "type": "function", "function": function}
    call["function"] = {key: value for key, value in function.items() if value is not None}
    return event(piece({"tool_calls": [{key: value for key, value in call.items() if value is not None}]}))


def finished(reason: str = "stop") -> bytes:
    return event(piece({}, reason))


def counted(**usage: Any) -> bytes:
    return event({**piece(), "choices": [], "usage": usage})


def whole(*events: bytes, finish: str = "stop") -> bytes:
    """A whole answer: the events, a finish, and the end."""
    return chunked(*events, finished(finish), DONE)


class Heard:
    """A reply that remembers what it was told."""

    def __init__(self) -> None:
        self.assembler = Assembler(prefix="call")
        self.pieces: list[tuple[Any, ...]] = []
        self.signs_of_life = 0
        self.alive = trio.Event()
        """Set at the first sign of life."""
        self.reported = Usage()
        self.told = trio.Event()
        """Set at the first piece."""

    async def text(self, text: str, /) -> None:
        if not text:
            self.signs_of_life += 1
            self.alive.set()
            return
        self.pieces.append(("text", text))
        self.assembler.text(text)
        self.told.set()

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        self.pieces.append(("reasoning", text))
        self.assembler.reasoning(text, signature)
        self.told.set()

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        self.pieces.append(("tool_call", index, id, name, arguments))
        self.assembler.tool_call(index, id, name, arguments)
        self.told.set()

    def report_usage(self, usage: Usage, /) -> None:
        self.reported = usage

    def message(self, stop: Stop) -> AssistantMessage:
        return self.assembler.finish(stop.reason, stop.usage, stop.model)


ASK = ModelRequest((UserMessage((Text("Hello?"),)),))


async def ask(model: Model, request: ModelRequest = ASK) -> AssistantMessage:
    """What ``model`` responds."""
    heard = Heard()
    stop = await model.respond(request, heard)
    return heard.message(stop)
