"""A model behind a wire: a wire format says what the bytes mean, a transport carries them.

There are three formats (`ChatFormat`, `ResponsesFormat`, `MessagesFormat`) and two transports (`HttpTransport`,
`SdkTransport`), each in a file of its own; an adapter is a `WireModel` with one of each. A new provider that speaks a
known format is one file, or a line in the table of `agentloop.providers`; a new format is one file as well::

    class Acme(WireModel):
        def __init__(self, model: str, *, api_key: str) -> None:
            super().__init__(
                ChatFormat(model=model),
                HttpTransport(url=f"https://api.acme.example{ChatFormat.PATH}", headers=bearer(api_key)),
                name=model,
            )
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import blake2s
from typing import Any, Protocol, Self, TypeVar, cast

from attrs import evolve

from agentloop.errors import AgentLoopError, UsageError
from agentloop.messages import Message, Usage
from agentloop.models import ModelRequest, Reply, Stop, ToolSpec
from agentloop.providers._events import WireEvents
from agentloop.providers._text_calls import calls_from_text
from agentloop.providers._writing import ResponseWriter

__all__ = ["EncodedRequest", "ResponseReader", "Transport", "WireFormat", "WireModel"]

_T = TypeVar("_T")


class WireFormat(Protocol):
    """Encodes a request, and reads the response to it. Holds no state of a response, and never waits."""

    def exchange(
        self, request: ModelRequest, encoded: EncodedRequest, *, name: str, writer: ResponseWriter
    ) -> tuple[bytes, ResponseReader]:
        """Encode ``request``.

        Args:
          request: the request.
          encoded: the messages and tools that an earlier request has encoded already.
          name: the model's name, for errors.
          writer: receives the deltas of the response.

        Returns:
          The body of the HTTP request, and a reader for the one response to it.
        """
        ...


class ResponseReader(Protocol):
    """Reads one response."""

    async def read(self, events: WireEvents, /) -> Stop:
        """Pass the deltas in ``events`` to the writer as they arrive, and return how the response ended.

        Raises:
          ModelStatusError: the server sent an error in the middle of the response.
          ModelConnectionError: the answer ended before the response did.
          ModelProtocolError: the answer does not follow the format.
        """
        ...


class Transport(Protocol):
    """Sends a request to a model's server.

    It may have an attribute ``identity``, which two transports share if they go to the same place with the same
    credentials; see `Model`.
    """

    def open(self) -> AbstractAsyncContextManager[Transport]:
        """The same transport, with connections that stay open between requests until the block ends."""
        ...

    def post(self, body: bytes, *, model: str) -> AbstractAsyncContextManager[WireEvents]:
        """Send ``body``, and yield the events of the answer. When the block ends, it holds no connection.

        Raises:
          NetworkForbiddenError: models behind a network are forbidden here.
          ModelStatusError: the server refused the request.
          ModelConnectionError: the server did not answer.
        """
        ...


class WireModel:
    """A model behind a server: base class of all adapters that send requests.

    It holds nothing that must be closed. Outside of an ``open`` block, each response has a connection of its own;
    ``async with model.open() as opened:`` gives the same model with connections that stay open from one response to
    the next, and are closed when the block ends. Each stream opens its model. Open it around several streams to share
    connections between them::

        async with OpenAIChat("gpt-5", api_key=key).open() as model:
            agent = Agent(model, tools=[...])
            ...

    Args:
      format: the wire format of the requests and responses.
      transport: the way to the server.
      name: the model's name in events and errors.
    """

    __slots__ = ("_encoded", "_format", "_transport", "name")

    def __init__(self, format: WireFormat, transport: Transport, *, name: str) -> None:
        self.name = name
        """The model's name in events and errors."""
        self._format = format
        self._transport = transport
        self._encoded: EncodedRequest | None = None
        """The last request, while the model is open."""

    @property
    def identity(self) -> object:
        """A value that two models share if a server that is busy for one is busy for the other; see `Model`."""
        return getattr(self._transport, "identity", None)

    @property
    def has_tool_search(self) -> bool:
        """Whether it loads deferred tools as its provider does; for others, the runtime puts ``call_tool`` there."""
        return getattr(self._format, "tool_search", False) is True

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Self]:
        """The same model, with connections that stay open until the block ends. Entering opens none yet."""
        async with self._transport.open() as transport:
            opened = copy.copy(self)
            opened._transport = transport
            opened._encoded = EncodedRequest() if self._encoded is None else self._encoded
            yield opened

    def for_session(self, id: str) -> Self:
        """The same model for one session: a provider that takes a key for its cache gets one, the same in each process.

        Args:
          id: the session's, which the provider does not learn.
        """
        if not getattr(self._format, "has_cache_key", False):
            return self
        model = copy.copy(self)
        key = blake2s(id.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        model._format = evolve(cast("Any", self._format), cache_key=key)
        return model

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Reply to ``request`` and return how the response ended.

        A response that has reached its stop reason counts, even if the connection drops before its last event.

        Raises:
          ModelStatusError: the server refused the request, or sent an error in the middle of the response.
          ModelConnectionError: the server could not be reached, or the response was cut off before its end.
          ModelProtocolError: the answer does not follow the wire format.
          NetworkForbiddenError: models behind a network are forbidden here.
          UsageError: the block that opened the model has ended, or the request cannot be encoded.
        """
        encoded = EncodedRequest() if self._encoded is None else self._encoded
        calls = calls_from_text(reply, request)
        writer = ResponseWriter(calls or reply, model=self.name)
        try:
            body, response = self._format.exchange(request, encoded, name=self.name, writer=writer)
        except AgentLoopError:
            raise
        except Exception as error:
            # Nothing was sent, so neither another try nor another model would help.
            raise UsageError(f"model {self.name!r}: the request cannot be encoded: {error}") from error
        async with self._transport.post(body, model=self.name) as events:
            stop = await response.read(events)
        if calls is not None:
            await calls.finish(stop.reason)
        return stop

    def body_of(self, request: ModelRequest) -> bytes:
        """The body of the HTTP request for ``request``, as `respond` sends it."""
        return self._format.exchange(
            request, EncodedRequest(), name=self.name, writer=ResponseWriter(_NoReply(), model=self.name)
        )[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class _NoReply:
    """A `Reply` for a response that does not come."""

    async def text(self, text: str, /) -> None:
        """Drop it."""

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        """Drop it."""

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        """Drop it."""

    def report_usage(self, usage: Usage, /) -> None:
        """Drop it."""


class EncodedRequest:
    """The messages and tools of the last request in their encoded form.

    A request repeats the one before, and adds a few messages. Holds one transcript; a message that the last request did
    not have is forgotten.
    """

    __slots__ = ("_encoded", "_messages", "_tools", "_variant")

    def __init__(self) -> None:
        self._variant: object = None
        self._messages: tuple[Message, ...] = ()
        self._encoded: list[Any] = []
        """The encoded form of each of the messages."""
        self._tools: tuple[tuple[ToolSpec, ...], Any] | None = None

    def __len__(self) -> int:
        return len(self._messages)

    def messages(
        self, messages: Sequence[Message], encode: Callable[[Message], _T], variant: object = None
    ) -> list[_T]:
        """``encode(message)`` for each of ``messages``, called only for those that the last request did not have.

        Args:
          messages: the messages.
          encode: encodes one.
          variant: all else that the form of a message depends on. If it was another, each is encoded again.
        """
        if variant != self._variant:
            self._variant, self._messages, self._encoded = variant, (), []
        whole, before = tuple(messages), self._messages
        # Nearly always: one comparison of pointers for each message, and no other step.
        if whole[: len(before)] == before:
            encoded = self._encoded + [encode(message) for message in whole[len(before) :]]
        else:
            # By identity: comparing a long message by value costs more than encoding it.
            known = dict(zip(map(id, before), self._encoded, strict=True))
            encoded = [known[id(message)] if id(message) in known else encode(message) for message in whole]
        self._messages, self._encoded = whole, encoded
        return encoded

    def tools(self, tools: tuple[ToolSpec, ...], encode: Callable[[tuple[ToolSpec, ...]], _T]) -> _T:
        """``encode(tools)``, called only if the last request had other tools."""
        if self._tools is None or self._tools[0] != tools:
            self._tools = (tools, encode(tools))
        return cast("_T", self._tools[1])
