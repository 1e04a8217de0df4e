"""What a model is: something that is asked once and replies piece by piece.

A model is *called*, not iterated::

    class Echo:
        name = "echo"

        async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
            await reply.text("You said: ")
            await reply.text(text_of(request.messages[-1].parts))
            return Stop()

So a response is a block like everything else here: when ``respond`` returns, raises or is cancelled, it holds
no connection, no task and no unfinished generator. Nothing can come after `Stop`, since a function returns once.
Awaiting ``reply`` is the back-pressure: a slow reader slows the model down. ``reply`` raises nothing but
`trio.Cancelled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from agentloop.messages import Message, StopReason, Usage

__all__ = ["Model", "ModelRequest", "ModelSettings", "OpenableModel", "Reply", "Stop", "ToolSpec"]


class ToolSpec(msgspec.Struct, frozen=True):
    """What a model is told of a tool."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON Schema, an object at the top."""


class ModelSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to sample. ``None`` leaves the choice to the provider."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    """Tokens that one response may have at most."""
    seed: int | None = None
    tool_choice: Literal["auto", "required", "none"] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    stop: tuple[str, ...] = ()
    """The model stops before it writes one of these."""
    extra: dict[str, Any] = {}
    """Further fields for the provider's request, as they are; they win over the others."""


class ModelRequest(msgspec.Struct, frozen=True):
    """All that a model needs to give its next response."""

    messages: Sequence[Message]
    """The transcript so far. Every tool call in it has its result. Never changes while the model uses it."""
    instructions: str = ""
    tools: tuple[ToolSpec, ...] = ()
    output: ToolSpec | None = None
    """The shape that the final answer must have, as JSON; ``None`` for free text."""
    settings: ModelSettings = ModelSettings()


class Stop(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a response ended."""

    reason: StopReason = "end"
    usage: Usage = Usage()
    model: str = ""
    """The model that answered, if it says so itself; else the name it was called by."""


class Reply(Protocol):
    """Where a model puts its response, piece by piece, in the order in which they come."""

    async def text(self, text: str, /) -> None:
        """A piece of the answer. Pieces join; an empty one is ignored."""

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        """A piece of the reasoning. A ``signature`` closes the block that it signs."""

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        """A piece of the response's ``index``-th tool call.

        ``id`` and ``name`` count where first given; ``arguments`` join. Calls may interleave.
        """


class Model(Protocol):
    """Anything that can respond to a request."""

    @property
    def name(self) -> str:
        """What to call it in events and errors, such as ``openai:gpt-5``."""
        ...

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Reply to ``request`` and say how it ended.

        Called in the stream's own task, under its deadlines. It may be called many times, also at once.

        Raises:
          ModelError: the response cannot be given. Any other exception is taken for a failure of the model too.
        """
        ...


@runtime_checkable
class OpenableModel(Model, Protocol):
    """A model that can hold something between responses: connections, a process.

    Each stream opens its model, and closes it at its end: so nothing that a model holds outlives the stream.
    Entering must be quick, and may raise a `ModelError`; what takes time belongs into the first response, which has
    a deadline.
    """

    def open(self) -> AbstractAsyncContextManager[Model]:
        """The same model, holding what it needs until the block ends.

        Of a model that is open already it must hold what is open: so a user can open one around several streams.
        """
        ...
