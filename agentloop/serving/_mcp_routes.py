"""MCP over Streamable HTTP: the SDK's transport, behind the app's checks of hosts, origins, principals and bodies.

``/mcp`` has all agents as tools, and ``/mcp/NAME`` has one. A client of revision 2025-11-25 begins a protocol session
with the server, which belongs to its principal; a request of revision 2026-07-28 stands alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from agentloop._runtime.exception_groups import raise_single
from agentloop.agent import Agent
from agentloop.serving._errors import Refusal
from agentloop.serving._mcp_server import CALLS, AgentTools, Calls
from agentloop.serving._runs import Runs
from agentloop.serving._service import PRINCIPAL, Service

__all__ = ["McpEndpoint"]

METHODS = ("GET", "POST", "DELETE")

MAX_SESSIONS = 1000
"""Protocol sessions at once. One without a request for half an hour ends."""

CANCEL_SECONDS = 1.0
"""Seconds that calls have to end when the server leaves."""


class McpEndpoint:
    """The endpoint, an ASGI app.

    Args:
      service: the agents, and their runs.
      is_answered_elsewhere: see `AgentTools`.
    """

    def __init__(self, service: Service, *, is_answered_elsewhere: bool) -> None:
        self._service = service
        agents: list[Mapping[str, Agent]] = [service.agents]
        if len(service.agents) > 1:
            agents += [{name: agent} for name, agent in service.agents.items()]
        listed = [AgentTools(service, some, is_answered_elsewhere=is_answered_elsewhere) for some in agents]
        self.tools = listed[0]
        """The tools at ``/mcp``."""
        self._by_name = dict(zip(service.agents, listed[1:] or listed, strict=True))
        self._calls = Calls()
        self._managers: dict[AgentTools, StreamableHTTPSessionManager] = {}

    def routes(self) -> Sequence[Route]:
        """The paths."""
        return [Route(path, self, methods=list(METHODS)) for path in ("/mcp", "/mcp/{agent}")]

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Keep protocol sessions while the block runs, and end them with it."""
        try:
            async with AsyncExitStack() as stack:
                stack.callback(self._managers.clear)
                for tools in {self.tools, *self._by_name.values()}:
                    # The app has checked the host, the origin and the length of the body.
                    manager = self._managers[tools] = StreamableHTTPSessionManager(
                        tools.server, max_sessions=MAX_SESSIONS, max_request_body_size=2**62
                    )
                    await stack.enter_async_context(manager.run())
                try:
                    yield
                finally:
                    # First, while the SDK still takes the messages that withdraw their questions.
                    self._calls.cancel()
                    with trio.move_on_after(CANCEL_SECONDS, shield=True):
                        await self._calls.ended()
        except BaseExceptionGroup as group:
            raise_single(group)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        name: str | None = scope["path_params"].get("agent")
        if name is not None and name not in self._by_name:
            raise Refusal(404, f"there is no agent {name[:100]!r} here; there are: {', '.join(self._by_name)}")
        runs = self._service.runs
        manager = self._managers[self.tools if name is None else self._by_name[name]]
        if scope["method"] == "POST":
            receive = _body_then(await self._service.body(Request(scope, receive)), receive)
        calls = Calls(self._calls)
        token = AccessToken(token="", client_id=scope[PRINCIPAL], scopes=[])
        scope = {**scope, CALLS: calls, "user": AuthenticatedUser(token)}
        try:
            async with trio.open_nursery() as nursery:
                if scope["method"] == "GET":
                    # It has no request of its own, so a server that leaves need not wait for it.
                    nursery.start_soon(_until_draining, runs, nursery.cancel_scope)
                await manager.handle_request(scope, receive, send)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise_single(group)
        finally:
            calls.cancel()


async def _until_draining(runs: Runs, scope: trio.CancelScope) -> None:
    while not runs.is_draining:
        await runs.changed()
    scope.cancel()


def _body_then(body: bytes, receive: Receive) -> Receive:
    """A function that gives the body that has been read already, and then what ``receive`` does."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
