"""The errors that agentloop raises, by whose rule was broken.

`AgentLoopError` has four children. Catch by remedy:

- `UsageError`: the caller broke a rule; change the call.
- `ModelError`: the model, or the connection to it, failed; retry, switch to another model, or inform the user.
- `ToolError`: a tool failed; the *model* reads it as that call's result, a reader sees it as an event.
- `RunError`: a run ended without a result; ``error.outcome`` has the reason and the transcript.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from agentloop._core.field_checks import FieldError, checked
from agentloop._core.portable_errors import PortableError

__all__ = [
    "AgentLoopError",
    "AnswerError",
    "ArgumentsError",
    "BlockedError",
    "CancelledRunError",
    "CassetteError",
    "ChildLimitError",
    "ClockError",
    "CompactionError",
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
    "ModelOutputLimitError",
    "ModelProtocolError",
    "ModelQuotaError",
    "ModelRateLimitError",
    "ModelRefusalError",
    "ModelResponseError",
    "ModelStatusError",
    "ModelTimeoutError",
    "NeedsInputError",
    "OutputError",
    "PromptTooLongError",
    "Retry",
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
    "UnknownCommandError",
    "UnknownQuestionError",
    "UsageError",
]


class AgentLoopError(PortableError):
    """The root of every error that agentloop raises on purpose.

    Errors survive ``pickle``, `copy.copy` and `copy.deepcopy` with their message, attributes, notes and cause.
    ``pickle`` leaves out a cause that cannot be pickled.
    """


# --------------------------------------------------------------------- the caller's rule


class UsageError(AgentLoopError):
    """The caller broke a rule. The message names the value and the way out."""


class ToolDefinitionError(UsageError):
    """A function, type or schema cannot be offered to a model. Raised when it is declared, not when it is called."""


class UnknownCommandError(UsageError):
    """A person typed ``/name``, and the agent has no command of that name. Type it again, or as the message says."""

    def __init__(self, *, name: str, nearest: Sequence[str], known: Sequence[str]) -> None:
        if nearest:
            way = f"did you mean {' or '.join(f'/{other}' for other in nearest)}?"
        else:
            listed = [f"/{other}" for other in known[:8]]
            way = f"there {'is' if len(known) == 1 else 'are'} {', '.join(listed)}{' ...' if known[8:] else ''}."
        super().__init__(f"there is no command /{name}: {way} A text that begins with a space is sent as it is")
        self.name = name
        """The name that was typed, without the slash."""
        self.nearest = tuple(nearest)
        """The names that are most like it; empty if none is."""
        self.known = tuple(known)
        """The names of all commands."""


class MissingExtraError(UsageError):
    """A feature needs an optional dependency that is not installed. Install the extra that the message names."""

    def __init__(self, *, feature: str, extra: str, package: str) -> None:
        super().__init__(
            f"{feature} needs the package {package!r}, which is not installed: pip install 'agentloop-trio[{extra}]'"
        )
        self.feature = feature
        """The feature, in words."""
        self.extra = extra
        """Name of the extra to install."""
        self.package = package
        """Name of the missing package."""


class ModelNotFoundError(UsageError):
    """A ``"provider:model"`` string names no known provider, or the provider lacks its key or URL.

    The message names the environment variable to set, or the known providers.
    """


class SessionBusyError(UsageError):
    """A session runs one stream at a time, and one is running. Leave that stream's block, or use another session."""

    def __init__(self, *, session: str, stream: str) -> None:
        super().__init__(
            f"session {session!r} is busy with stream {stream!r}: "
            "leave that stream's block first, or use another session"
        )
        self.session = session
        """Id of the session."""
        self.stream = stream
        """Id of the stream that runs on it."""


class StreamStateError(UsageError):
    """A stream cannot give this now, such as a result while it runs. Read it to its end, or await ``wait()``, first."""


class ChildLimitError(UsageError):
    """A child stream would be nested too deep (``Limits.depth``), or an agent would run inside itself."""

    def __init__(self, *, agent: str, path: Sequence[str], reason: str) -> None:
        super().__init__(f"agent {agent!r} cannot be opened inside {' > '.join(path)}: {reason}")
        self.agent = agent
        """Name of the agent."""
        self.path = tuple(path)
        """Names of the agents around it, from the root down."""


class AnswerError(UsageError):
    """An answer was refused. The question, if there is one, stays open."""


class UnknownQuestionError(AnswerError):
    """An answer named a question that is not open: never asked, already answered, or its stream has ended.

    Compare ``given`` with ``open_ids``.
    """

    def __init__(self, *, given: str, open_ids: Sequence[str]) -> None:
        hint = f"open now: {', '.join(open_ids)}" if open_ids else "none is open"
        super().__init__(f"cannot answer question {given!r}: {hint}")
        self.given = given
        """The id in the answer."""
        self.open_ids = tuple(open_ids)
        """Ids of the questions that are open."""


class InvalidAnswerError(AnswerError):
    """An answer is of the wrong class for its question, or does not fit its form. Answer again."""

    def __init__(self, *, question: str, problem: str) -> None:
        super().__init__(f"this answer does not fit question {question!r}: {problem}")
        self.question = question
        """Id of the question."""
        self.problem = problem
        """The problem, in words."""


class ScriptError(UsageError):
    """A scripted model was asked for more responses than its script has, or for fewer. Correct one of them."""


class CassetteError(ScriptError):
    """A cassette cannot be read, or a request differs from the recorded one. If that is intended, record it again."""

    def __init__(self, problem: str, *, path: str, model: str = "", difference: str = "") -> None:
        super().__init__(f"cassette {path}: {problem}")
        self.path = path
        """The cassette's file."""
        self.model = model
        """Name of the model that was asked; empty if the cassette itself is wrong."""
        self.difference = difference
        """Lines with ``-`` are recorded, lines with ``+`` are requested now; empty if nothing recorded is similar."""


# ---------------------------------------------------------------------- the model's rule


class ModelError(AgentLoopError):
    """The model, or the connection to it, failed."""

    model: str = ""
    """Name of the model. The stream fills it in if the model did not."""


class ModelProtocolError(ModelError):
    """The model broke the protocol: a tool call without a name, a response cut short, malformed JSON. Retried."""


class ModelConnectionError(ModelError):
    """The model could not be reached, or the connection dropped. Retried."""


class ModelOutputLimitError(ModelError):
    """A response is longer than it may be: cut off at the token limit again and again, or without an end.

    Give more ``ModelSettings.max_tokens``, or ask for less at a time.
    """

    def __init__(self, *, model: str, problem: str) -> None:
        super().__init__(f"model {model!r} {problem}")
        self.model = model
        """Name of the model."""
        self.problem = problem
        """The limit that was reached, and the remedy, in words."""


class ModelTimeoutError(ModelError):
    """The model sent nothing for longer than ``Deadlines.first_token`` or ``Deadlines.idle``."""

    def __init__(self, *, model: str, waiting_for: str, seconds: float) -> None:
        super().__init__(f"model {model!r} sent nothing for {seconds:g} s while waiting for {waiting_for}")
        self.model = model
        """Name of the model."""
        self.waiting_for = waiting_for
        """``the first piece`` or ``the next piece`` of the response."""
        self.seconds = seconds
        """The deadline, in seconds."""


class ModelStatusError(ModelError):
    """The model's server answered with an HTTP status other than success, or reported such an error in mid-stream."""

    def __init__(
        self,
        *,
        model: str,
        status: int,
        body: str,
        code: str = "",
        retry_after: float | None = None,
        advice: str = "",
    ) -> None:
        # The runtime calculates with these, and saves the delay.
        try:
            checked(int, status, f"{type(self).__name__}(status=)")
            checked(float | None, retry_after, f"{type(self).__name__}(retry_after=)")
        except FieldError as error:
            raise TypeError(str(error)) from error
        wait = "" if retry_after is None else f" (it asks to wait for {retry_after:g} s)"
        way_out = f" ({advice})" if advice else ""
        super().__init__(f"model {model!r}: HTTP status {status}{wait}: {body}{way_out}")
        self.model = model
        """Name of the model."""
        self.status = status
        """HTTP status code."""
        self.body = body
        """The server's words, cut to a few kilobytes."""
        self.code = code
        """The provider's error code, such as ``rate_limit_exceeded``; empty if it gave none."""
        self.retry_after = retry_after
        """Seconds to wait before the next request, from the header ``Retry-After`` or the server's words; ``None`` if
        the server gave none."""
        self.advice = advice
        """The way out, if the server refused a parameter that has one; empty otherwise."""


class ModelAuthenticationError(ModelStatusError):
    """The key is missing, wrong, or not allowed to use this model: set the right one."""


class ModelQuotaError(ModelStatusError):
    """The account has no credit left. Waiting does not help."""


class ModelRateLimitError(ModelStatusError):
    """Too many requests or tokens for now. Retried after ``retry_after`` seconds, if the server gave them."""


class ModelContextOverflowError(ModelStatusError):
    """The request is longer than the model's context window. Use `Compaction`, or a model with a larger window."""


class PromptTooLongError(ModelContextOverflowError):
    """The prompt alone is longer than the model's context window. Send less, or use a model with a larger window.

    The session can be used: its transcript keeps the prompt, and the model does not read it with later prompts.
    """


class ModelResponseError(ModelStatusError):
    """The server refused what its own model wrote, such as a tool call that it cannot parse. Retried."""


class ModelRefusalError(ModelError):
    """The model refused to answer. ``text`` has its words, if it gave any."""

    def __init__(self, *, model: str, text: str) -> None:
        super().__init__(f"model {model!r} refused to answer" + (f": {text}" if text else ""))
        self.model = model
        """Name of the model."""
        self.text = text
        """The model's words."""


class OutputError(ModelError):
    """The model gave no valid structured output in ``Limits.output_attempts`` attempts."""

    def __init__(self, *, model: str, attempts: float, problem: str, text: str) -> None:
        super().__init__(f"model {model!r} gave no valid output in {attempts} attempts; the last problem: {problem}")
        self.model = model
        """Name of the model."""
        self.attempts = attempts
        """Number of attempts."""
        self.problem = problem
        """The problem, in words."""
        self.text = text
        """The last answer, exactly as the model wrote it."""


# ----------------------------------------------------------------------- a tool's rule


class ToolError(AgentLoopError):
    """A tool failed. Raise it in a tool to choose the words that the model reads as the result."""


class Retry(ToolError):  # noqa: N818 - it asks for something, and is an error to the model alone
    """Ask the model to try again. Raise it in a tool, or in an output validator; the model reads the message.

    A tool's call then has an error as its result, and the model may correct its arguments and call the tool again. An
    output that a validator refuses counts as an attempt: see ``Limits.output_attempts``.
    """


class ArgumentsError(ToolError):
    """The arguments of a tool call are not JSON, or do not fit the tool's schema. The model reads why."""


class ToolsetError(ToolError):
    """A toolset failed to start, or to list its tools."""

    def __init__(self, *, toolset: str, problem: str) -> None:
        super().__init__(f"toolset {toolset!r} {problem}")
        self.toolset = toolset
        """Name of the toolset."""


class McpError(ToolError):
    """An MCP server answered with an error, or with an invalid message. ``code`` is the JSON-RPC error code."""

    def __init__(self, *, server: str, problem: str, code: int | None = None) -> None:
        super().__init__(f"MCP server {server!r} {problem}")
        self.server = server
        """Name of the server."""
        self.code = code
        """``None`` if the server gave none."""


class ServerGoneError(McpError):
    """An MCP server died, was stopped, or failed to start again. Whether the call had an effect is unknown."""


class McpStateError(McpError):
    """An MCP server refused to continue a call: it no longer knows the state that it sent along with its questions."""


# ---------------------------------------------------------------- a run without a result


class RunError(AgentLoopError):
    """A run ended without a result. ``outcome`` has the reason, the usage and the transcript."""

    def __init__(self, message: str, *, outcome: object = None) -> None:
        super().__init__(message)
        self.outcome = outcome
        """The `Outcome` of the stream; ``None`` if the error was raised before the run had one."""


class CancelledRunError(RunError):
    """The run was stopped before it had a result."""


class BlockedError(RunError):
    """A hook refused to let the run go on."""


class LimitReachedError(RunError):
    """A limit was reached, and the run was not allowed to go past it."""


class CompactionError(RunError):
    """`Session.compact` could not shorten the conversation. The message says why; the model reads it as before."""


class NeedsInputError(RunError):
    """The run is parked: answer ``error.outcome.questions`` and continue it with `Agent.resume`."""


class StoreError(RunError):
    """The session's store failed. Every event delivered before this error is saved; none was delivered after it."""


class SequenceError(StoreError):
    """Another process added records to the session meanwhile. Open the session again."""


class LeaseLostError(StoreError):
    """Another process took over the session, because this one's lease had expired. Open the session again."""


class SessionLeasedError(StoreError):
    """Another process holds the session's lease. Wait, or fork the session: see ``if_busy`` of `stored_session`."""

    def __init__(self, *, session: str, holder: str, expires: float) -> None:
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expires))
        super().__init__(
            f"session {session!r} is held by {holder} until {until}, unless that is extended: wait, or fork the session"
        )
        self.session = session
        """Id of the session."""
        self.holder = holder
        """The holder of the lease, in words."""
        self.expires = expires
        """Seconds since 1970 (UTC)."""


class ClockError(RunError):
    """Trio's clock failed, so no deadline can be kept. ``__cause__`` is the clock's error."""


class InternalError(RunError):
    """A bug in agentloop. Please report it, with its ``__cause__``."""
