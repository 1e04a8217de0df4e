"""The one way into the transcript, and into the store: kept by the store, then part of the session, then told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from agentloop._runtime.foreign import ForeignError, call_foreign
from agentloop._runtime.run import Run
from agentloop.errors import StoreError
from agentloop.events import MessageCommitted
from agentloop.messages import AssistantMessage, Message, ToolCall, ToolResult

__all__ = ["begin_call", "begin_turn", "commit", "end_call"]


async def commit(run: Run, messages: Sequence[Message]) -> None:
    """Make ``messages`` part of the session, all or none. Cancelled or not, it is done when this returns.

    Raises:
      StoreError: the store failed; then the session is as it was, and nothing is told.
    """
    if run.store is not None:
        await _keep(run, run.store.append, messages)
    index = len(run.transcript)
    run.transcript.extend(messages)
    for message in messages:
        run.emitter.post(MessageCommitted, message=message, index=index)
        index += 1


async def begin_turn(run: Run, message: AssistantMessage) -> None:
    """The calls of ``message`` are about to be dealt with. Raises `StoreError`; then none of them may run."""
    if run.turns is not None:
        await _keep(run, run.turns.begin_turn, message)


async def begin_call(run: Run, call: ToolCall) -> None:
    """The tool of ``call`` is about to run. Raises `StoreError`; then it may not."""
    if run.turns is not None:
        await _keep(run, run.turns.begin_call, call)


async def end_call(run: Run, result: ToolResult) -> None:
    """A call has its result, which is not told yet. Raises `StoreError`."""
    if run.turns is not None:
        await _keep(run, run.turns.end_call, result)


async def _keep(run: Run, method: Callable[[str, Any], Awaitable[None]], value: object) -> None:
    """Have the store keep ``value``, within ``Deadlines.cleanup``."""
    seconds = run.config.deadlines.cleanup
    try:
        # Shielded: what has happened is kept, also when the stream is cancelled at that moment.
        scope = trio.move_on_after(seconds, shield=True)
        await call_foreign(scope, method, run.transcript.id, value)
    except ForeignError as error:
        if isinstance(error.__cause__, StoreError):
            # It says what is wrong, and its type what can be done.
            raise error.__cause__ from error.__cause__.__cause__
        problem = f"took longer than {seconds:g} s" if error.timed_out else str(error)
        raise StoreError(f"the store of session {run.transcript.id!r} failed: {problem}") from error.__cause__
