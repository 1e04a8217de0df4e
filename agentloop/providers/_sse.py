"""Server-sent events, taken apart: bytes go in as they come, the ``data`` of each event comes out."""

from __future__ import annotations

__all__ = ["MAX_EVENT_BYTES", "EventParser"]

MAX_EVENT_BYTES = 64 * 2**20
"""What a single event may have at most: a guard against a server that never ends one."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventParser:
    """Takes a stream of server-sent events apart (HTML Living Standard, section 9.2.6).

    Works on bytes: an event is only decoded when it is whole, so it does not matter where the network cuts a
    character. Of an event only its ``data`` is given; the providers say in the data what kind of event it is.
    """

    __slots__ = ("_after_cr", "_begun", "_data", "_held", "_line")

    def __init__(self) -> None:
        self._line: list[bytes] = []
        """The pieces of a line that has no end yet. A list, since joining at each piece would take quadratic time."""
        self._data: list[bytes] = []
        """The ``data`` lines of an event that has no end yet."""
        self._held = 0
        self._begun = False
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that ``chunk`` completes, in order.

        Raises:
          ValueError: an event is longer than `MAX_EVENT_BYTES`.
        """
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_plain_line_ends(chunk)
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
                # One space after the colon is no part of the value.
                data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif not line:
                if data:
                    events.append(data[0] if len(data) == 1 else b"\n".join(data))
                    data.clear()
            elif line == b"data":
                data.append(b"")
            # Anything else is a comment, by which a server keeps the connection alive, or a field of no use here.
        if events or not data:
            self._held = len(rest) + sum(map(len, data))
        self._check_size()
        return events

    def finish(self) -> bytes | None:
        """The data of an event whose end has not come when the stream ends; ``None`` if there is none.

        The standard would drop it, but some servers leave out the last empty line. It may also be a part of an
        event that was cut off.
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
