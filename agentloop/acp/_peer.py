"""JSON-RPC with an external agent: messages of one line each, in both directions, until it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import msgspec
import trio

from agentloop._core.json_text import decode_json, is_object
from agentloop._core.whole_json import json_of, without_lone_surrogates
from agentloop.acp._program import Pipes

__all__ = ["INTERNAL_ERROR", "INVALID_PARAMS", "NO_METHOD", "GoneError", "Peer", "RequestId", "RpcError"]

PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603

MAX_LINE = 64 * 1024 * 1024
"""Bytes of one message. Without a limit, an agent that never ends its line would fill the memory."""
MAX_UNSENT = 10_000
"""Messages to an agent that does not read. A larger number means that it never will."""

RequestId: TypeAlias = int | str


class RpcError(Exception):
    """The agent answered a request with an error."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class GoneError(Exception):
    """The agent has ended, or does not keep to JSON-RPC."""


Respond: TypeAlias = Callable[[Any], None]
"""Called with the result of a request, or with the `RpcError` or `GoneError` that took its place. Must not raise."""

Handle: TypeAlias = Callable[[RequestId | None, str, Mapping[str, Any]], None]
"""Called with each request and notification, in order; the id of a notification is ``None``. Must not raise."""


class Peer:
    """The other side of a pair of pipes.

    Args:
      pipes: the pipes.
      handle: called with each request and notification.
      has_room: waits until more messages may be read.
      on_end: called once, when nothing more can come.
    """

    def __init__(
        self, pipes: Pipes, handle: Handle, has_room: Callable[[], Awaitable[None]], on_end: Callable[[], None]
    ) -> None:
        self._pipes = pipes
        self._handle = handle
        self._has_room = has_room
        self._on_end = on_end
        self._last_id = 0
        self._waiting: dict[int, Respond] = {}
        """The requests to the agent that are not answered."""
        self._unsent = deque[bytes]()
        self._changed = trio.Event()
        """Set when there is something to send."""
        self._sent = trio.Event()
        """Set when nothing is left to send."""
        self.problem = ""
        """Why nothing more can come, in words; empty while the agent lives."""

    @property
    def last_words(self) -> str:
        """What the agent wrote besides messages, to be appended to an error."""
        return str(self._pipes.output)

    # ------------------------------------------------------------------------- to the agent

    def begin(self, method: str, params: Mapping[str, Any], respond: Respond) -> int:
        """Send a request, whose response goes to ``respond``. Returns its id."""
        self._last_id += 1
        if self.problem:
            respond(GoneError(self.problem))
            return self._last_id
        self._waiting[self._last_id] = respond
        self._post({"id": self._last_id, "method": method, "params": params})
        return self._last_id

    async def request(self, method: str, params: Mapping[str, Any]) -> Any:
        """Send a request, and wait for its result.

        Raises:
          RpcError: the agent answered with an error.
          GoneError: the agent ended first.
        """
        responded, box = trio.Event(), list[Any]()

        def respond(result: Any) -> None:
            box.append(result)
            responded.set()

        id = self.begin(method, params, respond)
        try:
            await responded.wait()
        finally:
            self._waiting.pop(id, None)
        if isinstance(box[0], Exception):
            raise box[0]
        return box[0]

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification."""
        self._post({"method": method, "params": params})

    def respond(self, id: RequestId, result: Any) -> None:
        """Answer a request of the agent."""
        self._post({"id": id, "result": result})

    def refuse(self, id: RequestId | None, code: int, message: str) -> None:
        """Answer a request of the agent with an error."""
        self._post({"id": id, "error": {"code": code, "message": message}})

    async def flush(self) -> None:
        """Wait until the agent has taken all messages."""
        while self._unsent and not self.problem:
            self._sent = trio.Event()
            await self._sent.wait()

    def _post(self, message: dict[str, Any]) -> None:
        if self.problem:
            return
        self._unsent.append(json_of({"jsonrpc": "2.0", **message}).encode() + b"\n")
        if len(self._unsent) > MAX_UNSENT:
            self.fail(f"does not read its input: {MAX_UNSENT} messages wait for it")
        self._changed.set()

    async def run(self) -> None:
        """Send and receive until the agent ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            nursery.start_soon(self._watch)
            await self._read()
            nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        try:
            while not self.problem:
                while self._unsent:
                    await self._pipes.send.send_all(self._unsent[0])
                    self._unsent.popleft()
                self._sent.set()
                self._changed = trio.Event()
                await self._changed.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # An agent that does not read its input will not answer. Its last messages may still be in the pipe.
            self.fail(await self._pipes.how_it_ended("closed its input"))

    # ----------------------------------------------------------------------- from the agent

    async def _read(self) -> None:
        otherwise = "closed its output"
        try:
            await self._read_lines()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except OverflowError:
            otherwise = f"wrote a line of more than {MAX_LINE} bytes"
            self.fail(otherwise)
        self.fail(await self._pipes.how_it_ended(otherwise))

    async def _watch(self) -> None:
        """End when the agent has exited, though something may hold its output open."""
        await self._pipes.exited.wait()
        self.fail(await self._pipes.how_it_ended("exited"))

    async def _read_lines(self) -> None:
        line = bytearray()
        while piece := await self._pipes.receive.receive_some(65536):
            first, *rest = bytes(piece).split(b"\n")
            line += first
            for start in rest:
                self._take(bytes(line))
                line[:] = start
                await self._has_room()
            self._pipes.output.open_line = bytes(line[:200])
            if len(line) > MAX_LINE:
                raise OverflowError

    def _take(self, line: bytes) -> None:
        if not line.strip() or self.problem:
            return
        try:
            message: Any = decode_json(without_lone_surrogates(line), Any)
        except (msgspec.DecodeError, UnicodeError):
            message = None
        if message is None and line.lstrip().startswith(b"{") and b'"jsonrpc"' in line:
            # It may have been the answer that the run waits for.
            self.fail(f"wrote a message that is not JSON: {line[:200].decode(errors='replace').strip()}")
            return
        if not is_object(message) or not (message.keys() & {"method", "result", "error"}):
            # A banner, or a print for debugging. The agent may work in spite of it.
            self._pipes.output.noise = self._pipes.output.noise or line[:200].decode(errors="replace").strip()
            return
        id, method = message.get("id"), message.get("method")
        if method is None:
            self._take_response(id, message)
            return
        params = message.get("params")
        if not isinstance(method, str) or not isinstance(id, (int, str, type(None))):
            self.refuse(id if isinstance(id, (int, str)) else None, INVALID_REQUEST, "this is no request of JSON-RPC")
            return
        self._handle(id, method, params if is_object(params) else {})

    def _take_response(self, id: object, message: Mapping[str, Any]) -> None:
        # Some programs answer with the id as text.
        known = int(id) if isinstance(id, str) and id.isdecimal() and len(id) < 20 else id
        respond = self._waiting.pop(known, None) if isinstance(known, int) else None
        if respond is None:
            return
        error = message.get("error")
        if error is None:
            respond(message.get("result"))
        elif is_object(error):
            code = error.get("code")
            text = str(error.get("message", ""))[:2000]
            respond(RpcError(code if isinstance(code, int) else INTERNAL_ERROR, text, error.get("data")))
        else:
            respond(RpcError(INTERNAL_ERROR, str(error)[:2000]))

    def fail(self, problem: str) -> None:
        """End, because of ``problem``: a clause without its subject."""
        if self.problem:
            return
        # Only the first problem counts: later ones follow from it.
        self.problem = problem
        self._changed.set()
        self._sent.set()
        waiting, self._waiting = self._waiting, {}
        for respond in waiting.values():
            respond(GoneError(problem))
        self._on_end()
