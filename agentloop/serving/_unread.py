"""The rest of a request's body, which an endpoint did not read.

A server may use a connection for the next request only after the body of the last one. Many clients send head and body
apart, so a response can be complete before the body comes; hypercorn then closes the connection without a word, and the
client's next request gets no response.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio
from starlette.types import Message, Receive, Scope

__all__ = ["UnreadBody"]

DISCARDED_BYTES = 1_000_000
DISCARD_SECONDS = 1.0
"""Seconds that a client has to send a body that nothing reads."""

CLOSE = (b"connection", b"close")


class UnreadBody:
    """The part of a request's body that was not read yet.

    Args:
      scope: the request.
      receive: the function of the server that gives the body.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._has_connections = scope.get("http_version", "1.1").startswith("1")  # later versions know no such header
        self._is_read = False
        self._readers = 0

    async def receive(self) -> Message:
        """Give the next message of the server."""
        self._readers += 1
        try:
            message = await self._receive()
        finally:
            self._readers -= 1
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._is_read = True
        return message

    async def discard(self, headers: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
        """Read the rest, before the head of the response is sent.

        Returns:
          The headers of the response: with one that ends the connection, if the body is too long or comes too slowly.
        """
        if any(name.lower() == CLOSE[0] for name, _ in headers):
            return headers  # noqa: ASYNC910 - the head is sent next
        size = 0
        with trio.move_on_after(DISCARD_SECONDS):
            # Where the endpoint waits for the client's end, it reads the rest itself.
            while not self._is_read and not self._readers and size <= DISCARDED_BYTES:
                size += len((await self.receive()).get("body", b""))
        return headers if self._is_read or self._readers or not self._has_connections else [*headers, CLOSE]
