"""Models that need no network and no luck."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, cast

import msgspec
import trio

from agentloop._core.field_checks import shown
from agentloop.errors import ScriptError
from agentloop.messages import Reasoning, StopReason, Text, ToolCall, Usage
from agentloop.models import ModelRequest, Reply, Stop

__all__ = ["FunctionModel", "Response", "ScriptedModel", "calls", "fails", "hangs", "says", "thinks"]


class Response(msgspec.Struct, frozen=True):
    """A scripted response. Join two with ``+``: ``says("Let me look. ") + calls("search", query="tea")``."""

    parts: tuple[Text | Reasoning | ToolCall, ...] = ()
    stop: StopReason = "end"
    usage: Usage = Usage(input_tokens=10, output_tokens=5)
    error: Exception | None = None
    """Raised after the parts."""
    hangs: bool = False
    """Whether the response never ends after its parts."""
    piece: int = 0
    """Characters per delta; 0 for a delta per word of text and whole arguments."""
    reported: Usage = Usage()
    """Usage to report before the parts, as some providers do. It counts if the response fails or is cancelled."""

    def __add__(self, other: Response) -> Response:
        return Response(
            (*self.parts, *other.parts),
            other.stop,
            self.usage,
            self.error or other.error,
            self.hangs or other.hangs,
            self.piece or other.piece,
            self.reported if self.reported != Usage() else other.reported,
        )


def says(text: str, *, stop: StopReason = "end", piece: int = 0) -> Response:
    """A response of text, word by word, or in deltas of ``piece`` characters."""
    return Response((Text(text),), stop, piece=piece)


def thinks(text: str) -> Response:
    """A response of reasoning; add the text after it."""
    return Response((Reasoning(text),))


def calls(name: str, /, *, id: str = "", raw: str | None = None, **arguments: Any) -> Response:
    """A response that calls tool ``name``; add further calls with ``+``.

    Args:
      id: made up if not given.
      raw: the arguments as text, if they are to be no valid JSON.
      arguments: the arguments.
    """
    text = msgspec.json.encode(arguments).decode() if raw is None else raw
    return Response((ToolCall(id, name, text),))


def fails(error: Exception) -> Response:
    """A response that fails; put ``says("...") +`` before it to fail half-way."""
    if not isinstance(cast("object", error), (BaseException, type)):
        raise ScriptError(f"fails() takes an exception, such as fails(ModelError('gone')), not {shown(error)}")
    return Response((), error=error)


def hangs() -> Response:
    """A response that never ends; put ``says("...") +`` before it to hang half-way."""
    return Response((), hangs=True)


Script: TypeAlias = Response | str


class ScriptedModel:
    """Gives one scripted response after another, and keeps the requests it got.

    A last response that fails or hangs does so for each further request: so a script that ends in one fails for good,
    however often the runtime asks again.

    Args:
      script: the responses, in order; a string is ``says(string)``.
      name: what events call it.
      repeat: whether to begin anew after the last response, instead of raising `ScriptError`.
    """

    def __init__(self, *script: Script, name: str = "scripted", repeat: bool = False) -> None:
        for response in script:
            if not isinstance(cast("object", response), (str, Response)):
                raise ScriptError(f"a script is of texts and responses, ScriptedModel('a', 'b'), not {shown(response)}")
        self._script = [says(response) if isinstance(response, str) else response for response in script]
        self._next = 0
        self._repeat = repeat
        self.name = name
        self.requests: list[ModelRequest] = []
        """The requests that the model got, in order."""

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Give the next response of the script."""
        self.requests.append(request)
        if self._next == len(self._script):
            if self._script and (self._script[-1].error is not None or self._script[-1].hangs):
                return await play_response(self._script[-1], reply)
            if not self._repeat or not self._script:
                raise ScriptError(
                    f"the script of model {self.name!r} has {len(self._script)} responses, but it was asked once more; "
                    f"the last message was {request.messages[-1]!r}"
                )
            self._next = 0
        response = self._script[self._next]
        self._next += 1
        return await play_response(response, reply)

    def assert_complete(self) -> None:
        """Raise `ScriptError` unless every response was asked for."""
        left = len(self._script) - self._next
        if left:
            raise ScriptError(f"{left} of {len(self._script)} responses of model {self.name!r} were never asked for")


async def play_response(response: Response, reply: Reply) -> Stop:
    """Give ``response`` piece by piece, as a real model would."""
    await trio.lowlevel.checkpoint()
    if response.reported != Usage():
        reply.report_usage(response.reported)
    index = 0
    for part in response.parts:
        if isinstance(part, Text):
            for piece in _pieces(part.text, response.piece):
                await reply.text(piece)
        elif isinstance(part, Reasoning):
            for piece in _pieces(part.text, response.piece):
                await reply.reasoning(piece)
            if part.signature is not None:
                await reply.reasoning("", signature=part.signature)
        else:
            await reply.tool_call(index, id=part.id, name=part.name)
            for piece in _pieces(part.arguments, response.piece or len(part.arguments)):
                await reply.tool_call(index, arguments=piece)
            index += 1
    if response.error is not None:
        raise response.error
    if response.hangs:
        await trio.sleep_forever()
    return Stop("tool_calls" if index and response.stop == "end" else response.stop, response.usage)


def _pieces(text: str, size: int) -> Iterable[str]:
    if size:
        return [text[start : start + size] for start in range(0, len(text), size)]
    words = text.split(" ")
    return [*(word + " " for word in words[:-1]), words[-1]]


class FunctionModel:
    """Responds with what a function makes of the request.

    Args:
      function: gets the request, and returns, or awaits, a `Response` or a string.
      name: what events call it.
    """

    def __init__(
        self, function: Callable[[ModelRequest], Script | Awaitable[Script]], *, name: str = "function"
    ) -> None:
        self._function = function
        self.name = name

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Give the response that the function makes."""
        made = self._function(request)
        response = await made if inspect.isawaitable(made) else made
        return await play_response(says(response) if isinstance(response, str) else response, reply)
