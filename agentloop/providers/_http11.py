"""HTTP/1.1 over one connection: a request goes out, and its answer comes in.

h11 parses the head of an answer, and a body of a given length, or up to the end of the connection. The body of a
streamed answer is decoded here (`ChunkedBody`), since each chunk of it is a delta or two: h11 takes 14 us for a chunk,
and `ChunkedBody` 1 us. All chunks that one read brings leave as one piece. The usual head of a streamed answer is
parsed here, too (`plain_head`): h11 takes 238,000 instructions for it, this 36,000.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Protocol

import h11
import trio

from agentloop.providers._events import root_cause

__all__ = ["Answer", "ChunkedBody", "HungUpError", "exchange", "plain_head"]

READ_BYTES = 64 * 1024
MAX_HEAD_BYTES = 100 * 1024
"""Upper bound of the head of an answer, of the line before a chunk, and of the fields after the last one."""

_ANY_REQUEST = h11.Request(method="POST", target="/", headers=[("Host", "localhost")])
"""A request for h11, which parses no answer before it has sent one. Only its method matters."""
_WITHOUT_BODY = (204, 304)
"""The statuses of answers that have no body, whatever their headers say."""


class HungUpError(h11.RemoteProtocolError):
    """The server closed the connection before it answered anything."""


class _Body(Protocol):
    """The body of one answer."""

    @property
    def is_ended(self) -> bool:
        """Whether all of the body has been taken."""
        ...

    @property
    def is_last(self) -> bool:
        """Whether the connection can carry no further answer after this one."""
        ...

    def add(self, data: bytes, /) -> None:
        """Add bytes that have arrived; none at the end of the connection."""
        ...

    def take(self) -> bytes:
        """The bytes of the body that have arrived since the last call.

        Raises:
          h11.RemoteProtocolError: the body breaks the protocol, or ends too early.
        """
        ...


class Answer:
    """The answer to a request. Iterating over it gives the bytes of its body, as they arrive."""

    __slots__ = ("_body", "headers", "status", "stream")

    def __init__(self, status: int, headers: dict[bytes, bytes], body: _Body, stream: trio.abc.Stream) -> None:
        self.status = status
        """The HTTP status."""
        self.headers = headers
        """The headers, by name in lower case."""
        self.stream = stream
        """The connection."""
        self._body = body

    @property
    def is_reusable(self) -> bool:
        """Whether the answer was read to its end, and its connection can carry another request."""
        return self._body.is_ended and not self._body.is_last

    def is_ended(self) -> bool:
        """Whether all of the body has been read."""
        return self._body.is_ended

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes of the body.

        Raises:
          h11.RemoteProtocolError: the body breaks the protocol, or ends too early.
          trio.BrokenResourceError: the connection dropped.
        """
        body = self._body
        while not (data := body.take()):
            if body.is_ended:
                raise StopAsyncIteration
            body.add(bytes(await self.stream.receive_some(READ_BYTES)))
        return data  # noqa: ASYNC910  # bytes that have arrived need no wait


async def exchange(stream: trio.abc.Stream, request: bytes) -> Answer:
    """Send ``request`` over ``stream``, and return the answer to it once its head has arrived.

    Raises:
      HungUpError: the server closed the connection before it answered anything.
      h11.RemoteProtocolError: the answer breaks the protocol, or the connection dropped inside its head.
    """
    # A server may refuse a request before it has read all of it; then its answer counts.
    with suppress(trio.BrokenResourceError):
        await stream.send_all(request)
    data = await _part_of_head(stream, HungUpError)
    plain = plain_head(data)
    if plain is not None:
        headers, begin = plain
        return Answer(200, headers, ChunkedBody(data[begin:]), stream)
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    parser.send(_ANY_REQUEST)
    parser.receive_data(data)
    while not isinstance(head := parser.next_event(), h11.Response):
        # An interim answer, such as 100, says nothing.
        if head is h11.NEED_DATA:
            parser.receive_data(await _part_of_head(stream, h11.RemoteProtocolError))
    headers = dict(head.headers)
    if b"transfer-encoding" not in headers or head.status_code in _WITHOUT_BODY:
        return Answer(head.status_code, headers, _PlainBody(parser), stream)
    # h11 has refused all encodings but this one.
    tokens = [token for name, value in head.headers if name == b"connection" for token in value.lower().split(b",")]
    is_last = head.http_version < b"1.1" or any(token.strip() == b"close" for token in tokens)
    body = ChunkedBody(parser.trailing_data[0], is_last=is_last)
    return Answer(head.status_code, headers, body, stream)


async def _part_of_head(stream: trio.abc.Stream, failure: type[h11.RemoteProtocolError]) -> bytes:
    """The next bytes of the head. Raises ``failure`` at the end of the connection."""
    try:
        data = bytes(await stream.receive_some(READ_BYTES))
    except trio.BrokenResourceError as error:
        raise failure(root_cause(error)) from error
    if not data:
        raise failure("Server disconnected without sending a response.")
    return data


_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = rb"[!-~]++(?: [!-~]++)*+"
_PLAIN_HEAD = re.compile(rb"HTTP/1\.1 200 [ -~]*+\r\n(?:" + _NAME + rb": ?" + _VALUE + rb"\r\n)*+\r\n")
_find_fields = re.compile(rb"(" + _NAME + rb"): ?(" + _VALUE + rb")\r\n").findall


def plain_head(data: bytes) -> tuple[dict[bytes, bytes], int] | None:
    """Parse the head of a chunked answer of status 200 whose connection stays open, if it is all of that, and whole.

    Every other head is for h11: so is each that is written in an unusual way, so that no rule is spelled out here.

    Returns:
      The headers, by name in lower case, and where the body begins.
    """
    head = _PLAIN_HEAD.match(data)
    if head is None:
        return None
    fields = _find_fields(head[0], head[0].index(b"\n") + 1)
    headers = {name.lower(): value for name, value in fields}
    is_plain = (
        len(headers) == len(fields)
        and headers.get(b"transfer-encoding") == b"chunked"
        and b"content-length" not in headers
        and headers.get(b"connection", b"keep-alive") == b"keep-alive"
    )
    return (headers, head.end()) if is_plain else None


class _PlainBody:
    """A body of a given length, or one that ends with the connection."""

    __slots__ = ("_parser", "is_ended")

    def __init__(self, parser: h11.Connection) -> None:
        self._parser = parser
        self.is_ended = False

    @property
    def is_last(self) -> bool:
        return self._parser.their_state is not h11.DONE or bool(self._parser.trailing_data[0])

    def add(self, data: bytes, /) -> None:
        self._parser.receive_data(data)

    def take(self) -> bytes:
        pieces: list[bytes] = []
        while not self.is_ended:
            event = self._parser.next_event()
            if isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
            elif event is h11.NEED_DATA:
                break
            else:
                self.is_ended = True
        return b"".join(pieces)


class ChunkedBody:
    """A body in chunks (RFC 9112, section 7.1). The extensions of chunks, and the fields after the last, are dropped.

    Args:
      data: the first bytes of it.
      is_last: whether the connection closes after it.
    """

    __slots__ = ("_data", "_has_closed", "_in_trailers", "_is_last", "_left", "_trailer_bytes", "is_ended")

    def __init__(self, data: bytes = b"", *, is_last: bool = False) -> None:
        self._data = data
        """The bytes that are not decoded yet."""
        self._left = 0
        """The bytes that the open chunk still lacks, with the line end after it."""
        self._in_trailers = False
        """Whether the last chunk has come."""
        self._trailer_bytes = 0
        self._has_closed = False
        self._is_last = is_last
        self.is_ended = False
        """Whether all of the body has been taken."""

    @property
    def is_last(self) -> bool:
        """Whether the connection can carry no further answer: it closes, or has brought more than this one."""
        return self._is_last or bool(self._data)

    def add(self, data: bytes, /) -> None:
        """Add bytes that have arrived; none at the end of the connection."""
        self._data += data
        self._has_closed = not data

    def take(self) -> bytes:
        """The bytes of the body that have arrived since the last call: those of all chunks, and of a part of one.

        Raises:
          h11.RemoteProtocolError: the body breaks the protocol, or ends too early.
        """
        data, position, pieces = self._data, 0, list[bytes]()
        while not self.is_ended:
            if self._left:
                position = self._take_chunk(data, position, pieces)
                if self._left:
                    break
            # Nearly always a whole chunk has arrived: this runs for each delta.
            while not self._in_trailers and (match := _CHUNK_START.match(data, position)) is not None:
                start = match.end()
                end = start + int(match[1], 16)
                if end == start or data[end : end + 2] != b"\r\n":
                    break
                pieces.append(data[start:end])
                position = end + 2
            end = data.find(b"\r\n", position)
            if end < 0:
                if len(data) - position > MAX_HEAD_BYTES:
                    raise h11.RemoteProtocolError("a line between two chunks is too long")
                break
            line, position = data[position:end], end + 2
            if self._in_trailers:
                self._trailer_bytes += len(line)
                if self._trailer_bytes > MAX_HEAD_BYTES:
                    raise h11.RemoteProtocolError("the fields after the last chunk are too long")
                self.is_ended = not line
            else:
                size = _size(line)
                self._in_trailers = size == 0
                self._left = size + 2 if size else 0
        self._data = data[position:]
        if self._has_closed and not self.is_ended and not pieces:
            # h11's words for it.
            raise h11.RemoteProtocolError(
                "peer closed connection without sending complete message body (incomplete chunked read)"
            )
        return b"".join(pieces)

    def _take_chunk(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Take the open chunk, as far as it has arrived, and return the position after it."""
        end = position + self._left - 2
        if self._left > 2:
            piece = data[position:end]
            if piece:
                pieces.append(piece)
            self._left -= len(piece)
            position += len(piece)
        if self._left == 2 and len(data) >= position + 2:
            if data[position : position + 2] != b"\r\n":
                raise h11.RemoteProtocolError("a chunk is longer than its size says")
            self._left = 0
            position += 2
        return position


_CHUNK_START = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?")


def _size(line: bytes) -> int:
    """The size of the chunk that begins after ``line``."""
    match = _SIZE.fullmatch(line)
    if match is None:
        raise h11.RemoteProtocolError(f"{line[:40]!r} is no size of a chunk")
    return int(match[1], 16)
