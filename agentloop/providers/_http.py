"""HTTP for the adapters: one request, whose answer is a stream of events, and the connections it goes over.

Built on ``httpcore2``, the layer of httpx2 that speaks HTTP, and not on ``httpx2.AsyncClient``, for three reasons
that were each seen to matter (version 2.16):

- A response that is left early leaves generators of httpx2 to the garbage collector, for which trio warns. Those of
  httpcore2 close one another.
- A connection attempt that is cancelled during the TLS handshake leaves its socket open. The network backend can be
  exchanged in httpcore2 only; the one below closes what it opened.
- The client costs as much again as sending the request and reading the answer.

**Who owns the connections?** Whoever opened them, for the length of a block (`Http.open`), so that no socket can
outlive the block that asked for it. Inside it they are kept open between requests, which halves the processor time
of a request on loopback, and with TLS saves the two or three round trips of a handshake. A request outside of such a
block opens its own, for itself alone. There is no pool behind the scenes: it would have to outlive a stream to be of
use to the next one, and then nobody could say when its sockets are closed. The TLS context, which takes 30 ms to
make, holds no socket, and is shared by all.
"""

from __future__ import annotations

import copy
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import cast
from urllib.parse import urlsplit

import msgspec
import trio

from agentloop._core.json_text import decode_json
from agentloop._core.redaction import REDACTED
from agentloop._runtime.logs import HTTP, log
from agentloop.errors import ModelConnectionError, ModelError, ModelProtocolError, UsageError
from agentloop.providers._connections import Connections
from agentloop.providers._failures import failure
from agentloop.providers._httpcore import httpcore2
from agentloop.providers._network import check_network
from agentloop.providers._sse import MAX_EVENT_BYTES, EventParser

__all__ = ["Events", "Http"]

ERROR_BODY_SECONDS = 5.0
ERROR_BODY_BYTES = 4096
SHORTEST_KEY = 8
"""Characters. What is shorter occurs in ordinary words."""
_SECRET = (b"authorization", b"proxy-authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
"""Headers with keys in them."""


class Http:
    """Sends requests to one URL of a model's server.

    Args:
      model: what errors call the model.
      url: where requests go.
      headers: of each request, besides the usual ones.

    Raises:
      UsageError: the URL or a header cannot be sent.
    """

    __slots__ = ("_connections", "_headers", "_model", "_url")

    def __init__(self, *, model: str, url: str, headers: Mapping[str, str]) -> None:
        self._model = model
        self._url = _checked_url(url)
        self._headers = _checked_headers(
            {
                "Host": urlsplit(url).netloc.rpartition("@")[2],
                "User-Agent": "agentloop",
                "Accept": "text/event-stream, application/json",
                # Compressing a few words at a time saves nothing, and some servers then hold them back.
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
            },
            headers,
        )
        self._connections: Connections | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Http]:
        """The same, with connections that are kept until the block ends. Opens none yet."""
        if self._connections is not None:
            yield self
            return
        opened = copy.copy(self)
        opened._connections = Connections(self._url)
        try:
            yield opened
        finally:
            # Shielded, and without a deadline of its own: closing a socket waits for nobody.
            with trio.CancelScope(shield=True):
                await opened._connections.aclose()

    @asynccontextmanager
    async def post(self, body: bytes) -> AsyncGenerator[Events]:
        """Send ``body``, and give the events of the answer as they come.

        When the block ends, no more is read. A connection is kept only if the answer was read to its end.

        Raises:
          ModelStatusError: the answer is no success.
          ModelConnectionError: there was no answer.
          UsageError: the block of `open` has ended, or models behind a network are forbidden here.
        """
        check_network(model=self._model, url=_shown(self._url))
        if self._connections is None:
            async with self.open() as opened, opened.post(body) as events:
                yield events
            return
        began = time.perf_counter()
        log(HTTP, logging.DEBUG, "model %r: POST %s: %d bytes", self._model, _shown(self._url), len(body))
        length = (b"Content-Length", b"%d" % len(body))
        request = httpcore2.Request("POST", self._url, headers=[*self._headers, length], content=body)
        with _as_model_errors(f"model {self._model!r}: no answer from {_shown(self._url)}"):
            connection, response = await self._connections.send(request)
        took = time.perf_counter() - began
        log(HTTP, logging.DEBUG, "model %r: HTTP status %d, %.3f s", self._model, response.status, took)
        try:
            # Closed here, where it is used: a generator that is left to the garbage collector closes its connection
            # when it is collected, if at all.
            async with aclosing(
                cast("AsyncGenerator[bytes]", aiter(cast("AsyncIterable[bytes]", response.stream)))
            ) as chunks:
                headers = {name.lower(): value for name, value in response.headers}
                if not 200 <= response.status < 300:
                    raise await _status_error(self._model, response.status, headers, chunks, self._secrets())
                if headers.get(b"content-encoding", b"identity") != b"identity":
                    raise ModelProtocolError(f"model {self._model!r} sent a compressed answer, unasked")
                yield Events(self._model, chunks, headers.get(b"content-type", b"").decode("latin-1"))
        finally:
            with trio.CancelScope(shield=True):
                await response.aclose()
                await self._connections.give_back(connection)

    def _secrets(self) -> list[str]:
        """The keys among the headers, the longest first. A server may echo them in an error."""
        values = [value.decode("ascii") for name, value in self._headers if name.lower() in _SECRET]
        keys = {part for value in values for part in (value, value.rpartition(" ")[2])}
        return sorted((key for key in keys if len(key) >= SHORTEST_KEY), key=len, reverse=True)

    def __repr__(self) -> str:
        return f"<Http {_shown(self._url)}>"  # without the headers: there is a key among them


class Events:
    """The events of an answer: ``async for data in events``. An answer that is one JSON text counts as one event.

    Raises, while it is read:
      ModelConnectionError: the connection dropped.
      ModelProtocolError: the answer is neither JSON nor a stream of events.
    """

    __slots__ = (
        "_chunks",
        "_content_type",
        "_deadline",
        "_ended",
        "_failures",
        "_head",
        "_linger",
        "_model",
        "_parser",
        "_ready",
        "_seen",
        "_size",
        "_whole",
    )

    def __init__(
        self,
        model: str,
        chunks: AsyncIterator[bytes],
        content_type: str,
        failures: tuple[type[Exception], ...] | None = None,
    ) -> None:
        self._model = model
        self._chunks = chunks
        self._failures = _FAILURES if failures is None else failures
        """What ``chunks`` raises when the connection drops."""
        self._content_type = content_type
        self._parser = EventParser()
        self._ready: deque[bytes] = deque()
        self._head: bytes | None = b""
        """What came before it is clear what kind of answer it is; ``None`` from then on."""
        self._whole: list[bytes] | None = None
        """The pieces of an answer that is one JSON text."""
        self._size = 0
        self._seen = b""
        """How the answer begins. For an error."""
        self._ended = False
        self._linger: float | None = None
        self._deadline: float | None = None

    @property
    def is_json(self) -> bool:
        """Whether the answer is one JSON text: it has no end other than its own."""
        return self._whole is not None

    def settle(self, seconds: float) -> None:
        """Say that the response is complete. What still comes is welcome, but only for so long.

        From here on, neither silence nor a connection that drops is an error: there are servers that never end
        their answer. Reading on matters all the same: the usage comes last, and only a connection whose answer was
        read to its end can be used again.
        """
        self._linger = seconds
        self._deadline = None

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> bytes:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            self._take(await self._read())
        return self._ready.popleft()  # noqa: ASYNC910  # what is here need not be waited for

    async def _read(self) -> bytes | None:
        """The next bytes, or ``None`` at the end."""
        if self._linger is None:
            with _as_model_errors(f"model {self._model!r}: the connection dropped", self._failures):
                return await anext(self._chunks, None)
        if self._deadline is None:
            # Counted from the first read: before it, it is the reader who takes their time.
            self._deadline = trio.current_time() + self._linger
        with suppress(*self._failures), trio.move_on_at(self._deadline):
            return await anext(self._chunks, None)
        return None  # noqa: ASYNC910  # there was one: anext()

    def _take(self, chunk: bytes | None) -> None:
        if chunk is None:
            self._end()
        elif self._head is None:
            self._feed(chunk)
        else:
            # Told by the first character, and not by the Content-Type, which some servers get wrong.
            self._head += chunk
            start = self._head.lstrip()
            if start:
                self._seen, self._head = start[:200], None
                if start.startswith(b"{"):
                    self._whole = []
                self._feed(start)

    def _feed(self, chunk: bytes) -> None:
        try:
            if self._whole is None:
                self._ready.extend(self._parser.feed(chunk))
            else:
                self._whole.append(chunk)
                self._size += len(chunk)
                if self._size > MAX_EVENT_BYTES:
                    raise ValueError(f"an answer of more than {MAX_EVENT_BYTES} bytes")
        except ValueError as error:
            raise ModelProtocolError(f"model {self._model!r} sent {error}") from error
        if self._ready:
            self._seen = b""

    def _end(self) -> None:
        self._ended = True
        rest = self._parser.finish() if self._whole is None else b"".join(self._whole)
        # Of an event that was cut off there is no use, and what is wrong with it is not its JSON.
        if rest is not None and (self._whole is not None or _is_whole(rest)):
            self._ready.append(rest)
        elif self._seen and "event-stream" not in self._content_type:
            kind = self._content_type or "something"
            raise ModelProtocolError(
                f"model {self._model!r} answered with {kind} where a stream of events is due; "
                f"is its URL right? It begins with {self._seen!r}"
            )


def _is_whole(data: bytes) -> bool:
    """Whether ``data`` is not just the beginning of an event."""
    try:
        decode_json(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return data == b"[DONE]"
    return True


# -------------------------------------------------------------------------------- errors


_FAILURES = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
    trio.ClosedResourceError,
)
"""What a connection can fail with."""


@contextmanager
def _as_model_errors(what: str, failures: tuple[type[Exception], ...] = _FAILURES) -> Generator[None]:
    try:
        yield
    except failures as error:
        raise ModelConnectionError(f"{what}: {str(error) or type(error).__name__}") from error


async def _status_error(
    model: str, status: int, headers: Mapping[bytes, bytes], chunks: AsyncIterator[bytes], secrets: Sequence[str]
) -> ModelError:
    """The error for an answer that is no success, with what the server says of it."""
    body = b""
    with suppress(*_FAILURES), trio.move_on_after(ERROR_BODY_SECONDS):
        while len(body) < ERROR_BODY_BYTES and (chunk := await anext(chunks, None)) is not None:
            body += chunk
    text = body[:ERROR_BODY_BYTES].decode("utf-8", "replace").strip()
    location = headers.get(b"location")
    if location is not None:
        text = f"it redirects to {location.decode('latin-1')}; {text}".removesuffix("; ")
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    told = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
    codes = _codes(body)
    return failure(model=model, status=status, body=text, codes=codes, headers=told)  # noqa: ASYNC910  # there was one: anext()


def _codes(body: bytes) -> tuple[object, ...]:
    """The server's own words for the error: ``error.code`` and ``error.type``, as all providers have it."""
    try:
        told = decode_json(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
    error = cast("dict[str, object]", told).get("error") if isinstance(told, dict) else None
    if not isinstance(error, dict):
        return ()
    named = cast("dict[str, object]", error)
    return (named.get("code"), named.get("type"))


def _checked_url(url: str) -> httpcore2.URL:
    try:
        parsed = httpcore2.URL(url)
    except (ValueError, UnicodeError, TypeError):
        parsed = httpcore2.URL()
    if parsed.scheme not in (b"http", b"https") or not parsed.host:
        raise UsageError(f"{url!r} is no URL of a model's server: give one such as http://localhost:8080/v1")
    return parsed


def _checked_headers(*layers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The headers of all layers; the later ones win."""
    headers: dict[str, tuple[bytes, bytes]] = {}
    for name, value in ((name, value) for layer in layers for name, value in layer.items()):
        # Checked here, since the error of a header that cannot be sent would show it: it may be a key.
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"{name!r} is no name of a header")
        if not value.isascii() or not (value.isprintable() or not value):
            raise UsageError(f"the header {name!r} has a value with characters that cannot be sent")
        headers[name.lower()] = (name.encode("ascii"), value.encode("ascii"))
    return list(headers.values())


def _shown(url: httpcore2.URL) -> str:
    return f"{url.scheme.decode('ascii')}://{url.host.decode('ascii')}" + (f":{url.port}" if url.port else "")
