"""Serve agents over HTTP: to front ends of AG-UI and the AI SDK, to clients of OpenAI, A2A and MCP, and by events.

::

    await serving.run(serving.app(agent, store=SQLiteStore("chats.db")), port=8000)

or ``python -m agentloop serve module:agent --port 8000``. A run belongs to the server, and a connection is a reader of
the run: clients come and go, and a server that is restarted continues. ``docs/do/serve.md`` has each protocol with a
client.

Needs the extra ``serve``: hypercorn, whose trio worker serves, and starlette.
"""

from __future__ import annotations

from agentloop.errors import MissingExtraError

try:
    from agentloop.serving._app import ALL_PROTOCOLS, ServedApp, app
    from agentloop.serving._security import Authenticator, BearerTokens, ClientRequest
    from agentloop.serving._server import run
except ModuleNotFoundError as error:  # pragma: no cover - the tests have the extra
    if (error.name or "").partition(".")[0] not in ("hypercorn", "starlette"):
        raise
    raise MissingExtraError(feature="agentloop.serving", extra="serve", package=error.name or "") from error

__all__ = ["ALL_PROTOCOLS", "Authenticator", "BearerTokens", "ClientRequest", "ServedApp", "app", "run"]
