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
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import cast
from urllib.parse import urlsplit

import msgspec
import trio

from agentloop._core.json_text import decode_json
from agentloop._core.redaction import REDACTED
from agentloop._runtime.logs import HTTP, log
from agentloop.errors import ModelError, ModelProtocolError, UsageError
from agentloop.providers._connections import Connections
from agentloop.providers._events import WireEvents, as_connection_error
from agentloop.providers._failures import codes_of, failure
from agentloop.providers._httpcore import httpcore2
from agentloop.providers._network import check_network

__all__ = ["Http"]

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
    async def post(self, body: bytes) -> AsyncGenerator[WireEvents]:
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
        with as_connection_error(f"model {self._model!r}: no answer from {_shown(self._url)}", _FAILURES):
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
                content_type = headers.get(b"content-type", b"").decode("latin-1")
                yield WireEvents(self._model, chunks, content_type, _FAILURES)
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


# -------------------------------------------------------------------------------- errors


_FAILURES = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
    trio.ClosedResourceError,
)
"""What a connection can fail with."""


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
    """The error codes in ``body``, whose field ``error`` has them at all providers."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
    return codes_of(cast("dict[str, object]", decoded).get("error")) if isinstance(decoded, dict) else ()


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
