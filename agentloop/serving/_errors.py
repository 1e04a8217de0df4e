"""The refusals of the server: an HTTP status, and a sentence that a client may read."""

from __future__ import annotations

from collections.abc import Mapping

from agentloop.errors import (
    AnswerError,
    InvalidAnswerError,
    SessionBusyError,
    SessionLeasedError,
    StoreError,
    StreamStateError,
)

__all__ = ["Refusal", "refusal_of"]

FAILED = "the server failed to do this; its log says why"
"""The sentence of a response whose cause is the server's own business: a path, a key or a bug."""


class Refusal(Exception):  # noqa: N818 - the server answers with it; it is no failure of the server
    """The server refuses a request."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status of the response."""
        self.message = message
        """A sentence for the client: the reason, and the way out."""
        self.headers = dict(headers or {})
        """Headers of the response."""


def refusal_of(error: Exception) -> Refusal:
    """The refusal that answers a request which ``error`` has ended. Facts about the server stay in its log."""
    match error:
        case Refusal():
            return error
        case SessionBusyError():
            return Refusal(409, f"session {error.session} has a run already: read it, stop it, or wait for its end")
        case SessionLeasedError():
            return Refusal(409, f"session {error.session} is in use by another process of the server: try again later")
        case InvalidAnswerError():
            return Refusal(422, str(error))
        case AnswerError() | StreamStateError():
            return Refusal(409, str(error))
        case StoreError():
            SERVING.error("a store failed: %s", error)
            return Refusal(503, "the server cannot read or save the session now: try again later")
        case _:
            SERVING.error("a request failed", exc_info=error)
            return Refusal(500, FAILED)
