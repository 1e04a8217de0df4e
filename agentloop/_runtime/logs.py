"""The log records that agentloop writes to `logging`, for operators.

====================== ================================================================================================
logger                 records at ``DEBUG``, one per step
====================== ================================================================================================
``agentloop.run``      a run opened, a child run opened, a message was committed, a turn began or ended, a run handed
                       the conversation off, a run ended
``agentloop.model``    a model was asked, a response is complete or was discarded, a compaction began or ended
``agentloop.tools``    a tool call began, was allowed or denied, ended, or was parked
``agentloop.hooks``    a hook was called
``agentloop.questions`` an approval, an elicitation or a limit was asked about; answered, declined, withdrawn, parked
``agentloop.journal``  a journal was opened or written; a lease was acquired, renewed or released
``agentloop.toolsets`` a toolset started, listed its tools, or stopped
``agentloop.mcp``      an MCP server was connected or disconnected
``agentloop.serving``  (none; at ``INFO``, the address and the end of the server)
``agentloop.http``     a request was sent to a model's server, and answered
====================== ================================================================================================

- ``WARNING``: every `WarningIssued` event, a tool that timed out, a run that failed, a lost lease.
- ``ERROR``, with the traceback: an exception of a tool, of a hook that guards, of an agent's instructions, or of
  agentloop itself (a bug). A hook that observes, a handler and a ``requires_approval`` function are warnings, with
  the traceback too. A `ToolError` was raised for the model to read: ``DEBUG``, with the traceback.

A record holds ids, names, codes, counts and durations: no arguments, no results, no text of a message, of a hook or of
a server. A traceback holds the words of the exception. If those contain a key, or an Authorization header, the
traceback is logged as redacted text, without ``exc_info``. Deltas are not logged.

Durations are seconds of real time. ``docs/reference/logging.md`` has the same for users.
"""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Mapping
from typing import Any

from agentloop._core.redaction import redacted, secrets_of_fields, secrets_of_url, visible
from agentloop.events import (
    ApprovalRequested,
    ChildStreamStarted,
    ChildStreamStopped,
    CompactionFinished,
    CompactionStarted,
    ContinueRequested,
    ElicitationRequested,
    HandedOff,
    MessageCommitted,
    Paused,
    QuestionAnswered,
    QuestionDeclined,
    QuestionParked,
    QuestionWithdrawn,
    ResponseDiscarded,
    Resumed,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    ToolCallFinished,
    ToolCallParked,
    ToolCallStarted,
    ToolsChanged,
    ToolsetChanged,
    TurnFinished,
    TurnStarted,
)

__all__ = [
    "ENGINES",
    "HOOKS",
    "HTTP",
    "JOURNAL",
    "LOGGER_OF",
    "MCP",
    "MODEL",
    "QUESTIONS",
    "RUN",
    "SERVING",
    "TOOLS",
    "TOOLSETS",
    "log",
    "log_event",
    "log_warning",
]

RUN = logging.getLogger("agentloop.run")
MODEL = logging.getLogger("agentloop.model")
TOOLS = logging.getLogger("agentloop.tools")
HOOKS = logging.getLogger("agentloop.hooks")
QUESTIONS = logging.getLogger("agentloop.questions")
JOURNAL = logging.getLogger("agentloop.journal")
TOOLSETS = logging.getLogger("agentloop.toolsets")
MCP = logging.getLogger("agentloop.mcp")
SERVING = logging.getLogger("agentloop.serving")
ENGINES = logging.getLogger("agentloop.engines")
HTTP = logging.getLogger("agentloop.http")

# An application that does not configure logging sees nothing of it.
logging.getLogger("agentloop").addHandler(logging.NullHandler())

LOGGER_OF: Mapping[object, logging.Logger] = {
    StreamStarted: RUN,
    StreamStopped: RUN,
    ChildStreamStarted: RUN,
    ChildStreamStopped: RUN,
    TurnStarted: RUN,
    TurnFinished: RUN,
    Paused: RUN,
    Resumed: RUN,
    MessageCommitted: RUN,
    ResponseDiscarded: MODEL,
    CompactionStarted: MODEL,
    CompactionFinished: MODEL,
    ToolCallStarted: TOOLS,
    ToolCallFinished: TOOLS,
    ToolCallParked: TOOLS,
    HandedOff: RUN,
    ElicitationRequested: QUESTIONS,
    ApprovalRequested: QUESTIONS,
    ContinueRequested: QUESTIONS,
    QuestionAnswered: QUESTIONS,
    QuestionDeclined: QUESTIONS,
    QuestionWithdrawn: QUESTIONS,
    QuestionParked: QUESTIONS,
    ToolsetChanged: TOOLSETS,
    ToolsChanged: TOOLSETS,
}
"""The logger of each event that is logged: all but deltas, a running tool's output, usage and warnings."""

_LOGGER_OF_WARNING: Mapping[str, logging.Logger] = {
    "answer_refused": QUESTIONS,
    "background_run_lost": RUN,
    "cache_lost": MODEL,
    "compaction_failed": MODEL,
    "context_failed": RUN,
    "empty": MODEL,
    "error_while_stopping": RUN,
    "handler_failed": QUESTIONS,
    "hook_failed": HOOKS,
    "hook_warning": HOOKS,
    "messages_left_out": MODEL,
    "model_failed": MODEL,
    "rule_matches_nothing": TOOLS,
    "question_refused": QUESTIONS,
    "toolset_failed": TOOLSETS,
    "toolset_problem": TOOLSETS,
    "truncated": MODEL,
    "unmetered": MODEL,
    "unpriced": MODEL,
}


def log(logger: logging.Logger, level: int, text: str, *values: object, error: BaseException | None = None) -> None:
    """Log ``text % values``, with the traceback of ``error`` if there is one. Never raises.

    Args:
      values: ids, names, counts and durations; what a model or a user wrote does not belong here.
    """
    if not logger.isEnabledFor(level):
        return
    values = tuple([visible(value) if isinstance(value, str) else value for value in values])
    # A filter or a handler of the application may raise. Events are posted from here, which must not fail.
    try:
        if error is None:
            logger.log(level, text, *values, stacklevel=2)
            return
        whole = "".join(traceback.format_exception(error)).rstrip()
        clean = visible(redacted(whole, _keys()))
        if clean == whole:
            logger.log(level, text, *values, exc_info=error, stacklevel=2)
        else:
            # Not as `exc_info`: a handler would format the exception again, with the key or the escape sequence in it.
            logger.log(level, text + "\n%s", *values, clean, stacklevel=2)  # noqa: G003 - both are formats
    except Exception:  # noqa: BLE001, S110 - see above
        pass


def log_warning(code: str, stream: str, text: str, error: BaseException | None = None) -> None:
    """Log a `WarningIssued` event of ``stream``."""
    # A tool chooses codes of its own.
    logger = _LOGGER_OF_WARNING.get(code, TOOLS)
    log(logger, logging.WARNING, "stream %r: %s: %s", stream, code, text, error=error)


def log_event(event: StreamEvent) -> None:
    """Log the step that ``event`` reports, without its words. Callers check the logger's level before."""
    text, *values = _step(event)
    if text:
        log(LOGGER_OF[type(event)], logging.DEBUG, f"stream %r: {text}", event.stream, *values)


def _step(event: StreamEvent) -> tuple[Any, ...]:
    match event:
        case StreamStarted():
            return "run of %r opened: model %r, resumes %r", event.path, event.model, event.resumes
        case ChildStreamStarted():
            text = "child run of %r opened in stream %r by call %r: model %r, resumes %r"
            return text, event.path, event.parent, event.call_id, event.model, event.resumes
        case StreamStopped() | ChildStreamStopped():
            usage = event.usage
            why = event.reason if event.error is None else f"{event.reason} ({event.error.type})"
            text = "run ended: %s, %d requests, %d tokens in, %d out"
            return text, why, usage.requests, usage.input_tokens, usage.output_tokens
        case TurnStarted():
            return "turn %d began", event.turn
        case TurnFinished():
            return "turn %d ended: %s", event.turn, event.reason
        case Paused():
            return ("paused",)
        case Resumed():
            return ("resumed",)
        case MessageCommitted():
            return "message %d committed: %s", event.index, type(event.message).__name__
        case ResponseDiscarded():
            text = "response of model %r discarded (%s): model %r is asked in %.3g s"
            return text, event.model, event.error.type, event.next_model, event.delay
        case CompactionStarted():
            return "compaction began (%s): %d tokens", event.reason, event.tokens
        case CompactionFinished():
            how = "failed" if event.problem else "ended"
            return "compaction %s: %d tokens, first message kept as it is: %d", how, event.tokens, event.first_kept
        case ToolCallStarted():
            return "call %r of tool %r began", event.call_id, event.name
        case ToolCallFinished():
            text = "call %r of tool %r ended: %s, %.3f s"
            return text, event.call_id, event.name, event.result.status, event.elapsed
        case ToolCallParked():
            return "call %r of tool %r parked", event.call_id, event.name
        case HandedOff():
            return "call %r hands the conversation of %r to %r", event.call_id, event.path, event.to
        case ElicitationRequested():
            return "question %r asked by call %r: elicitation", event.id, event.call_id
        case ApprovalRequested():
            return "question %r asked: approval of call %r of tool %r", event.id, event.call_id, event.name
        case ContinueRequested():
            text = "question %r asked: go past limit %s, %.10g of %.10g used"
            return text, event.id, event.limit, event.used, event.allowed
        case QuestionAnswered():
            return "question %r answered by %s: %s", event.id, event.by, type(event.answer).__name__
        case QuestionDeclined():
            return "question %r declined: nobody could be asked", event.id
        case QuestionWithdrawn():
            return "question %r withdrawn", event.id
        case QuestionParked():
            return "question %r parked", event.id
        case ToolsetChanged(toolset=toolset):
            return "toolset %r: %s", toolset.name, toolset.state
        case ToolsChanged():
            counts = len(event.added), len(event.removed), len(event.changed)
            return "tools changed: %d added, %d removed, %d changed", *counts
        case _:
            return ("",)


def _keys() -> set[str]:
    """The secrets in the environment. A short one, such as ``none``, occurs in ordinary words."""
    # A path is none: `PWD` is the current folder.
    variables = {name: value for name, value in os.environ.items() if not value.startswith("/")}
    secrets = secrets_of_fields(variables).union(*map(secrets_of_url, filter(_URL.match, variables.values())))
    return {secret for secret in secrets if len(secret) >= 8}


_URL = re.compile(r"\w+://\S+@")
