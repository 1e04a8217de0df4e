"""Read an HTTP answer as events: bytes arrive as the network cuts them, the data of whole events leaves.

`WireEvents` is the iterator that the wire formats read. It accepts server-sent events, which `EventParser` parses, and
an answer that is a single JSON text. Both transports, HTTP and the SDK clients, feed it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import cast

import msgspec
import trio

from agentloop._core.json_text import JsonDecoder, decode_json
from agentloop.errors import ModelConnectionError, ModelProtocolError

__all__ = [
    "MAX_EVENT_BYTES",
    "ErrorData",
    "EventParser",
    "WireEvents",
    "connection_error",
    "is_end_marker",
    "root_cause",
]

MAX_EVENT_BYTES = 64 * 2**20
"""Upper bound of a single event, in bytes: a guard against a server that never ends one."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ErrorData(bytes):
    """The data of an event that is named ``error``. It may be JSON without a field that says so, or no JSON at all."""


class WireEvents:
    """The events of one answer: ``async for data in events`` yields the data of each, as ``bytes``.

    Empty data is a sign of life: bytes have arrived that complete no event, or an event that says nothing. An answer
    that is one JSON text counts as one event; an array, as one event for each of its values.

    Args:
      model: the model's name, for errors.
      chunks: the bytes of the answer, as they arrive.
      content_type: the answer's ``Content-Type``, for an error; empty if it has none.
      failures: the exceptions that ``chunks`` raises when the connection drops.
      is_ended: says whether ``chunks`` have ended, if that can be known before they are asked for more.

    Raises, while it is read:
      ModelConnectionError: the connection dropped.
      ModelProtocolError: the answer is neither JSON nor a stream of events.
    """

    __slots__ = (
        "_chunks",
        "_chunks_ended",
        "_content_type",
        "_deadline",
        "_ended",
        "_failures",
        "_head",
        "_linger",
        "_model",
        "_parser",
        "_ready",
        "_size",
        "_unparsed",
        "_whole",
    )

    def __init__(
        self,
        model: str,
        chunks: AsyncIterator[bytes],
        content_type: str,
        failures: tuple[type[Exception], ...],
        *,
        is_ended: Callable[[], bool] = bool,
    ) -> None:
        self._model = model
        self._chunks = chunks
        self._chunks_ended = is_ended
        self._failures = failures
        self._content_type = content_type
        self._parser = EventParser()
        self._ready: deque[bytes] = deque()
        self._head: bytes | None = b""
        """The bytes that arrived before the kind of the answer was known; ``None`` from then on."""
        self._whole: list[bytes] | None = None
        """The pieces of an answer that is one JSON text; ``None`` for server-sent events."""
        self._size = 0
        self._unparsed = b""
        """The first bytes of an answer that has not had an event yet, for an error."""
        self._ended = False
        self._linger: float | None = None
        self._deadline: float | None = None

    @property
    def is_json(self) -> bool:
        """Whether the answer is one JSON text. Such an answer has no end marker."""
        return self._whole is not None

    @property
    def has_arrived(self) -> bool:
        """Whether another event has arrived, so that the next one needs no wait."""
        return bool(self._ready)

    def settle(self, seconds: float) -> None:
        """Declare the response complete, and read the rest of the answer for at most ``seconds``.

        After this call, neither silence nor a dropped connection is an error: some servers never end their answer.
        Reading on matters all the same. The usage comes last, and a connection can be used again only after its
        answer was read to the end.
        """
        self._linger = seconds
        self._deadline = None

    def unsettle(self) -> None:
        """Take ``settle`` back: the response was not complete."""
        self._linger = self._deadline = None

    def __aiter__(self) -> WireEvents:
        return self

    async def __anext__(self) -> bytes:
        if not self._ready:
            if self._ended:
                raise StopAsyncIteration
            self._take(await self._read())
            if not self._ready:
                return b""
        data = self._ready.popleft()  # noqa: ASYNC910  # an event that has arrived needs no wait
        # Only a short event can say nothing. This runs for each delta.
        if len(data) < 20 and _says_nothing(data):
            return b""
        return data

    async def _read(self) -> bytes | None:
        """The next bytes, or ``None`` at the end."""
        if self._chunks_ended():
            # Without the deadline below, which costs more than the read.
            return None
        if self._linger is None:
            try:
                return await anext(self._chunks, None)
            except self._failures as error:
                raise connection_error(f"model {self._model!r}: the connection dropped", error) from error
        if self._deadline is None:
            # The deadline begins with the first read: time that the reader spends before it does not count.
            self._deadline = trio.current_time() + self._linger
        with suppress(*self._failures), trio.move_on_at(self._deadline):
            return await anext(self._chunks, None)
        return None  # noqa: ASYNC910  # anext() was a checkpoint

    def _take(self, chunk: bytes | None) -> None:
        if chunk is None:
            self._end()
        elif self._head is None:
            self._feed(chunk)
        else:
            # The first character decides, and not the Content-Type, which some servers get wrong.
            start = self._head = (self._head + chunk).lstrip()
            if start:
                self._unparsed, self._head = start[:200], None
                if start.startswith((b"{", b"[")):
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
            self._unparsed = b""

    def _end(self) -> None:
        self._ended = True
        rest = self._parser.finish() if self._whole is None else b"".join(self._whole)
        # An event that was cut off is dropped: the error to report is the cut, and not the broken JSON.
        if rest is not None and (self._whole is not None or isinstance(rest, ErrorData) or _is_whole(rest)):
            self._ready.extend([rest] if isinstance(rest, ErrorData) else _values(rest))
        elif self._unparsed and ("event-stream" not in self._content_type or not _is_field(self._unparsed)):
            kind = self._content_type or "something"
            raise ModelProtocolError(
                f"model {self._model!r} answered with {kind} where a stream of events is due; "
                f"is its URL right? It begins with {self._unparsed!r}"
            )


_PINGS = frozenset({b"ping", b"heartbeat", b"keepalive", b"keep-alive", b"keep_alive"})
"""The names of events that say nothing, and words that some gateways send as data. They keep a long response alive."""


def _says_nothing(data: bytes) -> bool:
    text = data.strip()
    return type(data) is not ErrorData and (text in (b"", b"null") or text.strip(b' :"[]').lower() in _PINGS)


def is_end_marker(data: bytes) -> bool:
    """Whether ``data`` is ``[DONE]``, which some servers spell in another way."""
    return len(data) < 16 and data.strip(b' "').upper() == b"[DONE]"


def _values(data: bytes) -> list[bytes]:
    """The values of an array; ``data`` itself if it is none. Gemini puts its errors into an array."""
    if data.startswith(b"["):
        with suppress(msgspec.DecodeError):
            return [bytes(value) for value in _array_decoder.decode(data)]
    return [data]


_array_decoder = JsonDecoder(list[msgspec.Raw])


def _is_field(start: bytes) -> bool:
    """Whether ``start`` begins a stream of events, and not a page that a proxy sent under the same type."""
    fields = (b":", b"data:", b"event:", b"id:", b"retry:", _BYTE_ORDER_MARK)
    # The first field itself may be cut off.
    return any(start[: len(field)] == field[: len(start)] for field in fields)


def _is_whole(data: bytes) -> bool:
    """Whether ``data`` is a whole event, and not only the beginning of one."""
    try:
        decode_json(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return is_end_marker(data)
    return True


def connection_error(message: str, error: BaseException) -> ModelConnectionError:
    """A `ModelConnectionError` with ``message`` and the reason of ``error``."""
    # trio says only that a connection broke; the cause says why.
    reason = root_cause(error) if isinstance(error, trio.BrokenResourceError) else str(error) or type(error).__name__
    return ModelConnectionError(f"{message}: {reason}")


def root_cause(error: BaseException) -> str:
    """The innermost cause of ``error`` as text, such as ``ConnectionRefusedError: ...``."""
    if isinstance(error, BaseExceptionGroup):
        return root_cause(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    if error.__cause__ is not None:
        return root_cause(error.__cause__)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


# ------------------------------------------------------------------------- server-sent events


_ERRORS = frozenset({b"error", b"exception"})


class EventParser:
    """Parses a stream of server-sent events (HTML Living Standard, section 9.2.6).

    The parser works on bytes and decodes nothing, so the network may cut inside a character. It returns the ``data``
    of each event and drops the other fields: the providers repeat an event's type inside its data. Only a name that
    says more than the data counts: the data of an error is `ErrorData`, and a ping has none.
    """

    __slots__ = ("_after_cr", "_begun", "_data", "_held", "_line", "_name")

    def __init__(self) -> None:
        self._line: list[bytes] = []
        """The pieces of the line that has no end yet. A list, since joining at each piece takes quadratic time."""
        self._data: list[bytes] = []
        """The ``data`` lines of the event that has no end yet."""
        self._name = b""
        """The name of the event that has no end yet."""
        self._held = 0
        """Bytes held in ``_line`` and ``_data``."""
        self._begun = False
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that ``chunk`` completes, in order.

        Raises:
          ValueError: an event is longer than `MAX_EVENT_BYTES`.
        """
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_plain_line_ends(chunk)
        if not self._held and not self._name and (plain := _plain_events(chunk)) is not None:
            self._begun = True
            return plain
        self._held += len(chunk)
        if b"\n" not in chunk:
            if chunk:
                self._line.append(chunk)
            self._check_size()
            return []
        if self._line:
            chunk = b"".join((*self._line, chunk))
            self._line.clear()
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if rest:
            self._line.append(rest)
        if not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        events: list[bytes] = []
        data = self._data
        for line in lines:
            if line.startswith(b"data:"):
                # One space after the colon does not belong to the value.
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                # A gateway that wraps the events of another may name the field twice.
                data.append(value if value[:5] != b"data:" else value[5:].removeprefix(b" "))
            elif not line:
                if data or self._name:
                    self._end_event(events)
            elif line == b"data":
                data.append(b"")
            elif line.startswith(b"event:"):
                self._name = line[6:].strip().lower()
            elif line.startswith(b"{"):
                # An error, without the name of its field: some servers notice it only after they began with comments.
                data.append(line)
            # All other lines are dropped: comments, by which a server keeps the connection alive, and other fields.
        if events or not data:
            self._held = len(rest) + sum(map(len, data))
        self._check_size()
        return events

    def _end_event(self, events: list[bytes]) -> None:
        """Add the event that has ended to ``events``, unless it says nothing."""
        data, name = self._data, self._name
        if name in _ERRORS:
            events.append(ErrorData(b"\n".join(data)))
        elif data:
            events.append(b"" if name in _PINGS else data[0] if len(data) == 1 else b"\n".join(data))
        data.clear()
        self._name = b""

    def finish(self) -> bytes | None:
        """The data of the event that was still open when the stream ended; ``None`` if there is none.

        The standard drops such an event. Some servers leave out the last empty line, so here it counts; the caller
        must expect data that was cut off.
        """
        events = self.feed(b"\n\n")
        return events[0] if events else None

    def _with_plain_line_ends(self, chunk: bytes) -> bytes:
        """``chunk`` with a line feed for each line end. A CR LF may lie across two chunks."""
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if chunk.endswith(b"\r"):
            self._after_cr = True
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _check_size(self) -> None:
        if self._held > MAX_EVENT_BYTES:
            raise ValueError(f"an event of more than {MAX_EVENT_BYTES} bytes")


def _plain_events(chunk: bytes) -> list[bytes] | None:
    """The data of the events in ``chunk``, if they are whole and have a line ``data: ...`` each, as nearly all have.

    ``None`` if there is anything else in it. This takes a quarter of the steps that a look at each line does.
    """
    if not chunk.endswith(b"\n\n"):
        return None
    events: list[bytes] = []
    for event in chunk[:-2].split(b"\n\n"):
        if not event.startswith(b"data: ") or b"\n" in event or event.startswith(b"data:", 6):
            return None
        events.append(event[6:])
    return events
