"""What can go wrong, by whose rule was broken.

`AgentLoopError` has four children. Catch by remedy:

- `UsageError`: the caller broke a rule; change the call.
- `ModelError`: the model, or the way to it, failed; retry, switch model, or tell the user.
- `ToolError`: a tool failed; the *model* reads it as that call's result, the consumer sees it as an event.
- `RunError`: a run ended without a result; ``error.outcome`` says how and keeps the transcript.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

__all__ = [
    "AgentLoopError",
    "AnswerError",
    "ArgumentsError",
    "BlockedError",
    "CancelledRunError",
    "CassetteError",
    "ChildLimitError",
    "ClockError",
    "InternalError",
    "InvalidAnswerError",
    "LeaseLostError",
    "LimitReachedError",
    "McpError",
    "McpStateError",
    "MissingExtraError",
    "ModelAuthenticationError",
    "ModelConnectionError",
    "ModelContextOverflowError",
    "ModelError",
    "ModelNotFoundError",
    "ModelProtocolError",
    "ModelQuotaError",
    "ModelRateLimitError",
    "ModelRefusalError",
    "ModelStatusError",
    "ModelTimeoutError",
    "NeedsInputError",
    "OutputError",
    "RunError",
    "ScriptError",
    "SequenceError",
    "ServerGoneError",
    "SessionBusyError",
    "SessionLeasedError",
    "StoreError",
    "StreamStateError",
    "ToolDefinitionError",
    "ToolError",
    "ToolsetError",
    "UnknownQuestionError",
    "UsageError",
]


class AgentLoopError(Exception):
    """The root of every error that agentloop raises on purpose."""


# --------------------------------------------------------------------- the caller's rule


class UsageError(AgentLoopError):
    """The caller broke a rule. The message names the value and the way out."""


class ToolDefinitionError(UsageError):
    """A function, type or schema cannot be offered to a model. Raised when it is declared, not when it is called."""


class MissingExtraError(UsageError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, *, feature: str, extra: str, package: str) -> None:
        super().__init__(
            f"{feature} needs the package {package!r}, which is not installed: pip install 'agentloop[{extra}]'"
        )
        self.feature = feature
        self.extra = extra
        self.package = package


class ModelNotFoundError(UsageError):
    """A ``"provider:model"`` string names no known provider, or lacks what the provider needs (a key, a URL)."""


class SessionBusyError(UsageError):
    """A session runs one stream at a time, and one is running."""

    def __init__(self, *, session: str, stream: str) -> None:
        super().__init__(
            f"session {session!r} is busy with stream {stream!r}: "
            "leave that stream's block first, or use another session"
        )
        self.session = session
        self.stream = stream


class StreamStateError(UsageError):
    """A stream was asked for something that it cannot give now, such as a result while it runs."""


class ChildLimitError(UsageError):
    """A child stream would be nested too deep, or an agent would run inside itself."""

    def __init__(self, *, agent: str, path: Sequence[str], reason: str) -> None:
        super().__init__(f"agent {agent!r} cannot be opened inside {' > '.join(path)}: {reason}")
        self.agent = agent
        self.path = tuple(path)


class AnswerError(UsageError):
    """An answer was not accepted. The question, if there is one, stays as it was."""


class UnknownQuestionError(AnswerError):
    """An answer named a question that is not open: never asked, already answered, or its stream has ended."""

    def __init__(self, *, given: str, open_ids: Sequence[str]) -> None:
        hint = f"open now: {', '.join(open_ids)}" if open_ids else "none is open"
        super().__init__(f"cannot answer question {given!r}: {hint}")
        self.given = given
        self.open_ids = tuple(open_ids)


class InvalidAnswerError(AnswerError):
    """An answer is of the wrong kind for its question, or does not fit the question's schema."""

    def __init__(self, *, question: str, problem: str) -> None:
        super().__init__(f"this answer does not fit question {question!r}: {problem}")
        self.question = question
        self.problem = problem


class ScriptError(UsageError):
    """A scripted model was asked for more responses than its script has, or for fewer."""


class CassetteError(ScriptError):
    """A cassette cannot be read, or what is asked of it is not what was recorded."""

    def __init__(self, problem: str, *, path: str, model: str = "", difference: str = "") -> None:
        super().__init__(f"cassette {path}: {problem}")
        self.path = path
        """The cassette's file."""
        self.model = model
        """The model that was asked; empty if the cassette itself is what is wrong."""
        self.difference = difference
        """Lines that begin with ``-`` were recorded, those with ``+`` are asked now; empty if nothing is alike."""


# ---------------------------------------------------------------------- the model's rule


class ModelError(AgentLoopError):
    """The model, or the way to it, failed."""

    model: str = ""
    """What the model is called. Filled in by the stream where whoever raised it did not."""


class ModelProtocolError(ModelError):
    """The model broke the protocol: a tool call without a name, a stream cut short, JSON that is none."""


class ModelConnectionError(ModelError):
    """The model could not be reached, or the connection dropped."""


class ModelTimeoutError(ModelError):
    """The model sent nothing for too long."""

    def __init__(self, *, model: str, waiting_for: str, seconds: float) -> None:
        super().__init__(f"model {model!r} sent nothing for {seconds:g} s while waiting for {waiting_for}")
        self.model = model
        self.waiting_for = waiting_for
        self.seconds = seconds


class ModelStatusError(ModelError):
    """The model's server answered with an HTTP status that is not a success, or told such an error in mid-stream."""

    def __init__(self, *, model: str, status: int, body: str, code: str = "", retry_after: float | None = None) -> None:
        wait = "" if retry_after is None else f" (it asks to wait for {retry_after:g} s)"
        super().__init__(f"model {model!r}: HTTP status {status}{wait}: {body}")
        self.model = model
        self.status = status
        """HTTP status code."""
        self.body = body
        """What the server said, at most a few kilobytes of it."""
        self.code = code
        """The provider's own word for it, such as ``rate_limit_exceeded``; empty if it gave none."""
        self.retry_after = retry_after
        """Seconds that the server asks to be left alone; ``None`` if it does not say."""


class ModelAuthenticationError(ModelStatusError):
    """The key is missing, wrong, or not allowed to use this model: set the right one."""


class ModelQuotaError(ModelStatusError):
    """The account has no credit left. Waiting does not help."""


class ModelRateLimitError(ModelStatusError):
    """Too many requests or tokens for now. ``retry_after`` says when to come back, if the server does."""


class ModelContextOverflowError(ModelStatusError):
    """The request is longer than the model's context window."""


class ModelRefusalError(ModelError):
    """The model refused to answer. ``text`` is what it said instead, if anything."""

    def __init__(self, *, model: str, text: str) -> None:
        super().__init__(f"model {model!r} refused to answer" + (f": {text}" if text else ""))
        self.model = model
        self.text = text


class OutputError(ModelError):
    """The structured output never came, although the model was reminded of it."""

    def __init__(self, *, model: str, attempts: float, problem: str, text: str) -> None:
        super().__init__(f"model {model!r} gave no valid output in {attempts} attempts; the last problem: {problem}")
        self.model = model
        self.attempts = attempts
        self.problem = problem
        self.text = text
        """The last answer, as the model wrote it."""


# ----------------------------------------------------------------------- a tool's rule


class ToolError(AgentLoopError):
    """A tool failed. Raise it in a tool to choose the words that the model reads."""


class ArgumentsError(ToolError):
    """The arguments of a tool call are not JSON or do not fit the tool's schema."""


class ToolsetError(ToolError):
    """A toolset could not be started, or could not list its tools."""

    def __init__(self, *, toolset: str, problem: str) -> None:
        super().__init__(f"toolset {toolset!r} {problem}")
        self.toolset = toolset


class McpError(ToolError):
    """An MCP server answered with an error, or with what cannot be used. ``code`` is that of JSON-RPC."""

    def __init__(self, *, server: str, problem: str, code: int | None = None) -> None:
        super().__init__(f"MCP server {server!r} {problem}")
        self.server = server
        self.code = code
        """``None`` if the server gave none."""


class ServerGoneError(McpError):
    """An MCP server died, was stopped, or could not be started again. Whether the call had an effect is unknown."""


class McpStateError(McpError):
    """An MCP server does not go on with a call: it does not know the state any more that it gave with its questions."""


# ---------------------------------------------------------------- a run without a result


class RunError(AgentLoopError):
    """A run ended without a result. ``outcome`` keeps the reason, the usage and the transcript."""

    def __init__(self, message: str, *, outcome: object = None) -> None:
        super().__init__(message)
        self.outcome = outcome
        """The `Outcome` of the stream, or ``None`` while it is not known."""


class CancelledRunError(RunError):
    """The run was stopped before it had a result."""


class BlockedError(RunError):
    """A hook refused to let the run go on."""


class LimitReachedError(RunError):
    """A limit was reached and nobody allowed the run to go past it."""


class NeedsInputError(RunError):
    """The run is parked until somebody has answered. ``error.outcome.questions`` are what it asks."""


class StoreError(RunError):
    """The session's store failed. What was told before it is in the store; nothing after it was told."""


class SequenceError(StoreError):
    """Somebody else has added to the session meanwhile: load it anew."""


class LeaseLostError(StoreError):
    """Somebody else has taken over the session, since the lease on it had run out."""


class SessionLeasedError(StoreError):
    """A session runs one stream at a time, in whatever process, and another one has it."""

    def __init__(self, *, session: str, holder: str, expires: float) -> None:
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expires))
        super().__init__(
            f"session {session!r} is held by {holder} until {until}, unless that is extended: wait, or fork the session"
        )
        self.session = session
        self.holder = holder
        self.expires = expires
        """Seconds since 1970 (UTC)."""


class ClockError(RunError):
    """Trio's clock failed, so no deadline can be kept. ``__cause__`` is what it raised."""


class InternalError(RunError):
    """A bug in the runtime. ``__cause__`` is what went wrong: please report it."""
