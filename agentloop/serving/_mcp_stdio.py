"""Serves agents to one MCP client over a pair of byte streams: JSON-RPC messages, one a line.

The client has started this process and is on the other side of its pipes, so there is one principal, and no
authenticator. When the client's stream ends, its calls are cancelled, and their runs stop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import anyio
import mcp_types as types
import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.logs import SERVING
from agentloop.agent import Agent
from agentloop.journal import Store
from agentloop.serving._connections import BodyLimits
from agentloop.serving._errors import Refusal
from agentloop.serving._mcp_server import AgentTools
from agentloop.serving._runs import RunLimits, Runs
from agentloop.serving._service import Service
from agentloop.serving._stdio import LINE_BYTES, STOP_SECONDS, Lines, standard_streams
from agentloop.serving.protocols._base import json_of

__all__ = ["serve_client", "serve_stdio"]

ToServer: TypeAlias = MemoryObjectSendStream[SessionMessage | Exception]
ToClient: TypeAlias = MemoryObjectSendStream[SessionMessage]

REQUESTS = 1000
"""Requests of a client that may be open at once."""


async def serve_stdio(agents: Mapping[str, Agent], store: Store) -> None:
    """Serve ``agents`` over the standard streams of this process until standard input ends."""
    await serve_client(agents, store, *standard_streams())


async def serve_client(
    agents: Mapping[str, Agent], store: Store, receive: trio.abc.ReceiveStream, send: trio.abc.SendStream
) -> None:
    """Serve ``agents`` to the client on the other side of two streams until ``receive`` ends."""
    service = Service(agents, BodyLimits(LINE_BYTES, math.inf), None, None)
    tools = AgentTools(service, agents, is_answered_elsewhere=False)
    limits = RunLimits(runs=REQUESTS, park_after=math.inf, lease_seconds=30.0)
    async with store.open() as opened, Runs.open(opened, limits) as runs:
        service.open_runs = runs
        try:
            await _Client(receive, send).serve(tools)
        except BaseExceptionGroup as group:
            raise_single(group)
        finally:
            with trio.CancelScope(shield=True):
                await runs.drain(STOP_SECONDS)


class _Client:
    """The connection of a client: lines from and to the streams that the SDK reads and writes."""

    def __init__(self, receive: trio.abc.ReceiveStream, send: trio.abc.SendStream) -> None:
        self._receive = receive
        self._send = send
        self._open: set[types.RequestId] = set()
        """The ids of the client's requests that have no response yet."""

    async def serve(self, tools: AgentTools) -> None:
        """Serve until the client closes its stream."""
        to_server, from_client = anyio.create_memory_object_stream[SessionMessage | Exception]()
        to_client, from_server = anyio.create_memory_object_stream[SessionMessage]()
        with to_server, from_client, to_client, from_server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, to_server, to_client.clone())
                nursery.start_soon(self._write, from_server, nursery.cancel_scope)
                await tools.server.run(from_client, to_client, tools.server.create_initialization_options())
                # The last responses may not be written yet.
                nursery.cancel_scope.deadline = trio.current_time() + STOP_SECONDS

    async def _read(self, to_server: ToServer, replies: ToClient) -> None:
        lines = Lines()
        with to_server, replies:
            try:
                while data := await self._receive.receive_some():
                    for line in lines.add(data):
                        await self._message(line, to_server, replies)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                SERVING.debug("the client's stream broke off")
            except Refusal as refusal:
                await replies.send(_error(None, types.INVALID_REQUEST, refusal.message))

    async def _message(self, line: bytes, to_server: ToServer, replies: ToClient) -> None:
        try:
            message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except (ValidationError, ValueError, RecursionError):
            await replies.send(_error(None, types.PARSE_ERROR, "the line is no message of JSON-RPC"))
            return
        if isinstance(message, types.JSONRPCRequest):
            if len(self._open) >= REQUESTS:
                sentence = "too many requests are open: wait for their responses"
                await replies.send(_error(message.id, types.INVALID_REQUEST, sentence))
                return
            self._open.add(message.id)
        elif isinstance(message, types.JSONRPCNotification) and message.method == "notifications/cancelled":
            # It gets no response.
            self._open.discard((message.params or {}).get("requestId", ""))
        await to_server.send(SessionMessage(message))

    async def _write(self, messages: MemoryObjectReceiveStream[SessionMessage], scope: trio.CancelScope) -> None:
        with messages:
            async for item in messages:
                message = item.message
                if isinstance(message, types.JSONRPCResponse | types.JSONRPCError) and message.id is not None:
                    self._open.discard(message.id)
                line = json_of(message.model_dump(mode="json", by_alias=True, exclude_unset=True)) + b"\n"
                try:
                    await self._send.send_all(line)
                except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                    SERVING.debug("the client reads no more")
                    scope.cancel()
                    return


def _error(id: types.RequestId | None, code: int, message: str) -> SessionMessage:
    return SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=id, error=types.ErrorData(code=code, message=message)))
