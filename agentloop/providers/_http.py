"""The HTTP transport: sends a request, and yields the events of the answer.

It is built on h11, which knows HTTP/1.1, and trio, which has the sockets and TLS; on the way to a proxy, on
``httpcore2``, the layer of httpx2 that speaks HTTP. It is not built on ``httpx2.AsyncClient``, for three reasons that
were each seen to matter (version 2.16):

- httpx2 leaves the generators of a response that is left early to the garbage collector, for which trio warns. Those
  of httpcore2 close one another.
- httpx2 leaves the socket open when a connection attempt is cancelled during the TLS handshake. The network backend
  can be replaced in httpcore2 only; the one in `agentloop.providers._connections` closes what it opened.
- The client costs as much processor time as sending the request and reading the answer; and httpcore2, in turn, several
  times as much as h11 alone.

**Connections belong to the block that opened them** (`HttpTransport.open`), so no socket outlives the block. Inside it
they stay open between requests, which halves the processor time of a request on loopback, and with TLS saves the two or
three round trips of a handshake. A request outside of such a block opens a connection for itself. There is no global
pool: it would have to outlive a stream to be of use to the next one, and its sockets would have no owner who closes
them. The TLS context, which takes 30 ms to make, holds no socket, and all share it.
"""

from __future__ import annotations

import copy
import logging
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from urllib.parse import urlsplit

import h11
import trio

from agentloop._core.redaction import REDACTED
from agentloop._runtime.logs import HTTP, log
from agentloop.errors import ModelError, ModelProtocolError, UsageError
from agentloop.providers._connections import Connections, httpcore2
from agentloop.providers._endpoint import endpoint, without_credentials
from agentloop.providers._events import WireEvents, connection_error
from agentloop.providers._failures import failure
from agentloop.providers._network import check_network

__all__ = ["HttpTransport", "bearer"]

ERROR_BODY_SECONDS = 5.0
"""Seconds to wait for the body of an error."""
ERROR_BODY_BYTES = 64 * 1024
"""Bytes of an error's body that are read: half an error would be no JSON. The error carries less of it."""
SHORTEST_KEY = 8
"""Characters. A shorter value may occur in ordinary words, and is not redacted."""
_SECRET = (b"authorization", b"proxy-authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
"""Headers that contain keys, in lower case."""


def bearer(api_key: str | None) -> dict[str, str]:
    """The header that carries ``api_key`` as a bearer token; no header for ``None``."""
    # Stripped: a key that was read from a file often ends in a line break.
    return {} if api_key is None else {"Authorization": f"Bearer {api_key.strip()}"}


class HttpTransport:
    """Sends requests to one URL of a model's server.

    Args:
      url: the URL of the endpoint. A user and a password in it are sent as basic authentication.
      path: the path of the endpoint, if ``url`` is only the part before it.
      key: the headers with the key. Credentials in ``url`` replace them.
      headers: the headers of each request, besides the usual ones, which they replace.

    Raises:
      UsageError: the URL or a header cannot be sent.
    """

    __slots__ = ("_connections", "_headers", "_password", "_server", "_url")

    def __init__(
        self, *, url: str, path: str = "", key: Mapping[str, str] | None = None, headers: Mapping[str, str]
    ) -> None:
        place = endpoint(url, path)
        self._url = _checked_url(place.url)
        self._server = _without_secrets(self._url)
        """Scheme, host and port."""
        self._password = place.secrets
        self._headers = _checked_headers(
            {
                "Host": urlsplit(place.url).netloc,
                "User-Agent": "agentloop",
                "Accept": "text/event-stream, application/json",
                # Compression saves nothing on a few words at a time, and makes some servers hold them back.
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
            },
            key or {},
            place.headers,
            headers,
        )
        self._connections: Connections | None = None

    @property
    def identity(self) -> Hashable:
        """A value that two transports share if they go to the same place with the same credentials."""
        # A digest, since the headers contain the key.
        headers = sorted((name.lower(), value) for name, value in self._headers)
        return sha256(repr((bytes(self._url), headers)).encode()).digest()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[HttpTransport]:
        """The same transport, with connections that stay open until the block ends. Entering opens none yet."""
        if self._connections is not None:
            yield self
            return
        opened = copy.copy(self)
        opened._connections = Connections(self._url, self._headers)
        try:
            yield opened
        finally:
            await opened._connections.aclose()

    @asynccontextmanager
    async def post(self, body: bytes, *, model: str) -> AsyncGenerator[WireEvents]:
        """Send ``body``, and yield the events of the answer as they arrive.

        When the block ends, reading stops. The connection stays open only if the answer was read to its end.

        Raises:
          ModelStatusError: the status of the answer is no success.
          ModelConnectionError: the server did not answer.
          ModelProtocolError: the answer is compressed.
          NetworkForbiddenError: models behind a network are forbidden here.
          UsageError: the block of ``open`` has ended.
        """
        check_network(model=model, url=self._server)
        if self._connections is None:
            async with self.open() as opened, opened.post(body, model=model) as events:
                yield events
            return
        start = time.perf_counter()
        log(HTTP, logging.DEBUG, "model %r: POST %s: %d bytes", model, self._server, len(body))
        try:
            answer = await self._connections.post(body)
        except _FAILURES as error:
            raise connection_error(f"model {model!r}: no answer from {self._server}", error) from error
        seconds = time.perf_counter() - start
        log(HTTP, logging.DEBUG, "model %r: HTTP status %d, %.3f s", model, answer.status, seconds)
        try:
            headers = answer.headers
            if not 200 <= answer.status < 300:
                raise await _status_error(model, answer.status, headers, answer, self._secrets())
            if _encodings(headers) & _COMPRESSED:
                raise ModelProtocolError(f"model {model!r} sent a compressed answer, unasked")
            content_type = headers.get(b"content-type", b"").decode("latin-1")
            yield WireEvents(model, answer, content_type, _FAILURES, is_ended=answer.is_ended)
        finally:
            await self._connections.release(answer)  # noqa: ASYNC102 - shielded, and it never waits

    def _secrets(self) -> list[str]:
        """The keys among the headers, the longest first. A server may echo them in an error."""
        values = [value.decode("ascii") for name, value in self._headers if name.lower() in _SECRET]
        keys = {part for value in values for part in (value, value.rpartition(" ")[2])}
        found = {*self._password, *(key for key in keys if len(key) >= SHORTEST_KEY)}
        return sorted(found, key=len, reverse=True)

    def __repr__(self) -> str:
        return f"<HttpTransport {self._server}>"  # without the headers, which contain the key


_FAILURES = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
    h11.RemoteProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
"""The exceptions of a connection that drops."""


async def _status_error(
    model: str, status: int, headers: Mapping[bytes, bytes], chunks: AsyncIterator[bytes], secrets: Sequence[str]
) -> ModelError:
    """The error for an answer whose status is no success, with the server's explanation."""
    body = b""
    with suppress(*_FAILURES), trio.move_on_after(ERROR_BODY_SECONDS):
        while len(body) < ERROR_BODY_BYTES and (chunk := await anext(chunks, None)) is not None:
            body += chunk
    text = _plain(body[:ERROR_BODY_BYTES], _encodings(headers)).strip()
    location = headers.get(b"location")
    if location is not None:
        text = f"it redirects to {location.decode('latin-1')}; {text}".removesuffix("; ")
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
    return failure(model=model, status=status, body=text, headers=texts)  # noqa: ASYNC910  # anext() was a checkpoint


_COMPRESSED = frozenset({"br", "compress", "dcb", "dcz", "deflate", "gzip", "x-compress", "x-gzip", "zstd"})


def _encodings(headers: Mapping[bytes, bytes]) -> set[str]:
    """The values of the header ``Content-Encoding``. Some servers write ``none`` or ``utf-8`` there."""
    value = headers.get(b"content-encoding", b"").decode("latin-1").lower()
    return {encoding.strip() for encoding in value.split(",")}


def _plain(body: bytes, encodings: set[str]) -> str:
    """The text of an error's body, which some gateways compress unasked. The beginning of a body is enough."""
    if body.startswith(b"\x1f\x8b") or "deflate" in encodings:
        # 47: a header of gzip or of zlib; -15: none, as some servers understand `deflate`.
        for bits in (47, -15):
            with suppress(zlib.error):
                return zlib.decompressobj(bits).decompress(body, ERROR_BODY_BYTES).decode("utf-8", "replace")
    unreadable = encodings & (_COMPRESSED - {"deflate", "gzip", "x-gzip"})
    if unreadable:
        return f"({len(body)} bytes, compressed with {', '.join(sorted(unreadable))})"
    return body.decode("utf-8", "replace")


def _checked_url(url: str) -> httpcore2.URL:
    try:
        parsed = httpcore2.URL(url)
    except (ValueError, UnicodeError, TypeError):
        parsed = httpcore2.URL()
    if parsed.scheme not in (b"http", b"https") or not parsed.host:
        shown = without_credentials(url)
        raise UsageError(f"{shown!r} is no URL of a model's server: give one such as http://localhost:8080/v1")
    return parsed


def _checked_headers(*layers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The headers of all layers; a later layer replaces headers of an earlier one."""
    headers: dict[str, tuple[bytes, bytes]] = {}
    for name, value in ((name, value) for layer in layers for name, value in layer.items()):
        # Checked here, since the HTTP library's error for a header would show its value, which may be a key.
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"{name!r} is no name of a header")
        if name.lower() in ("content-length", "transfer-encoding"):
            # With a second one, servers may disagree on where the request ends.
            raise UsageError(f"the header {name!r} cannot be set: it follows from the body of each request")
        if not value.isascii() or not (value.isprintable() or not value):
            raise UsageError(f"the header {name!r} has a value with characters that cannot be sent")
        headers[name.lower()] = (name.encode("ascii"), value.encode("ascii"))
    return list(headers.values())


def _without_secrets(url: httpcore2.URL) -> str:
    """Scheme, host and port of ``url``."""
    return f"{url.scheme.decode('ascii')}://{url.host.decode('ascii')}" + (f":{url.port}" if url.port else "")
