"""Sign-ins, as questions to the user of the run."""

from __future__ import annotations

from contextvars import ContextVar

from agentloop._runtime.toolset_start import ask_to_visit
from agentloop.errors import McpError
from agentloop.mcp._call import Call
from agentloop.questions import Accept, Cancel, Decline

__all__ = ["CALLER", "SERVER", "SignInError", "ask_to_sign_in"]

CALLER: ContextVar[Call | None] = ContextVar("agentloop.mcp.caller", default=None)
"""The call that the current task makes. The SDK's HTTP transport carries it on to questions in the response."""

SERVER: ContextVar[str] = ContextVar("agentloop.mcp.server", default="mcp")
"""The name of the server for which an ``httpx2.Auth`` runs."""


class SignInError(McpError):
    """The user did not sign in."""


async def ask_to_sign_in(url: str) -> None:
    """Ask the user to sign in at ``url``: a ``redirect_handler`` for the SDK's OAuth provider.

    The question is an `ElicitationRequested` with that ``url``, in the stream whose call needs the sign-in, or whose
    server starts. A server in `Toolsets` starts without a stream: there the user cannot be asked before the first call.
    The user's time is their own. The provider's ``callback_handler`` waits for the browser to come back.

    Raises:
      McpError: the user declined, or there is none.
    """
    call, server = CALLER.get(), SERVER.get()
    message = f"MCP server {server!r} wants you to sign in on this page."
    answer: Accept | Decline | Cancel
    if call is None:
        answer = await ask_to_visit(message, url)
    else:
        answer = await call.context.ask_url(message, url)
    if not isinstance(answer, Accept):
        note = f": {answer.note}" if isinstance(answer, Decline) and answer.note else ""
        raise SignInError(server=server, problem=f"wants the user to sign in, who did not{note}")
