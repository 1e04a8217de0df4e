"""The one way into the transcript, and into the store: kept by the store, then part of the session, then told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import trio

from agentloop._core.budget import Exceeded
from agentloop._core.state import LimitRaised, LongResultStored, ToolStarted, TurnOpened
from agentloop._runtime.clock import after
from agentloop._runtime.foreign import ForeignError, call_foreign
from agentloop._runtime.ledger import Ledger
from agentloop._runtime.run import Run
from agentloop.errors import StoreError
from agentloop.events import MessageCommitted
from agentloop.messages import AssistantMessage, Message, ToolCall
from agentloop.tools import Tool

__all__ = ["begin_call", "begin_turn", "commit", "end_call", "keep", "raised", "settle"]


def commit(run: Run, messages: Sequence[Message]) -> None:
    """Make ``messages`` part of the session, all or none.

    Where there is a journal, they are told as soon as they are kept, and the run goes on meanwhile: what it does next
    comes after them there.

    Raises:
      StoreError: the store failed; then the session is as it was, and nothing is told.
    """
    if run.root.ledger is not None:
        run.root.ledger.commit(run.transcript)
    index = len(run.transcript)
    run.transcript.extend(messages)
    for message in messages:
        run.emit(MessageCommitted, message=message, index=index)
        index += 1


def begin_turn(run: Run, message: AssistantMessage) -> None:
    """The calls of ``message`` are about to be dealt with."""
    if run.root.ledger is not None:
        run.root.ledger.note(TurnOpened(message), run.source.stream)


def raised(run: Run, reached: Exceeded) -> None:
    """A person has let the run go past a limit, its own or that of a stream around it: it stays raised."""
    if run.root.ledger is None:
        return
    whose = run
    while whose.meter is not reached.meter:
        assert whose.parent is not None
        whose = whose.parent
    limit, allowed = reached.limit, reached.meter.allowed[reached.limit]
    run.root.ledger.note(LimitRaised(whose.source.stream, limit, allowed), run.source.stream)


async def begin_call(run: Run, ledger: Ledger, tool: Tool, call: ToolCall) -> None:
    """The tool of ``call`` is about to run. Raises `StoreError`; then it may not."""
    ledger.note(ToolStarted(call.id), run.source.stream)
    if not (tool.read_only and tool.may_run_again):
        # One that is made again needs it, too: were the response lost that asks for it, there would be another one,
        # with another idempotency key. But nobody needs to know of a call that has changed nothing.
        await keep(run, ledger)


def end_call(run: Run, ledger: Ledger, call: ToolCall) -> None:
    """A call has its result, which is about to be told."""
    text = run.transcript.kept.text_of(call.id)
    if text is not None:
        ledger.note(LongResultStored(call.id, text), run.source.stream)


async def keep(run: Run, ledger: Ledger) -> None:
    """Return when all that was told and noted is kept, within ``Deadlines.cleanup``. Raises `StoreError`."""
    seconds = run.config.deadlines.cleanup
    # Shielded: what has happened is kept, also when the stream is cancelled at that moment.
    # Without the time nothing is waited for: an end that waits for ever, or is not told, would be worse.
    with trio.CancelScope(deadline=after(seconds), shield=True):
        await ledger.keep()
        return
    raise StoreError(f"the store of session {run.transcript.id!r} failed: it took longer than {seconds:g} s")


async def settle(run: Run) -> None:
    """All that was told of a stream that ends is kept, and so told, when this returns.

    Where it cannot be kept, it is told all the same: it is not there for the next stream, which sees that.
    """
    ledger = run.root.ledger
    if ledger is None:
        return
    with suppress(StoreError):
        await keep(run, ledger)
    past = run.unfinished
    if run.parent is None and (run.root.questions.is_parked or (past is not None and past.message is not None)):
        # There is a turn to go on with, which is not part of the transcript.
        ledger.reload()
        with suppress(StoreError):
            await _keep(run, partial(ledger.ready, resumes=True))


async def _keep(run: Run, method: Callable[..., Awaitable[None]], *values: Any) -> None:
    """Have the store keep ``values``, within ``Deadlines.cleanup``."""
    seconds = run.config.deadlines.cleanup
    try:
        # Shielded: what has happened is kept, also when the stream is cancelled at that moment.
        scope = trio.move_on_after(seconds, shield=True)
        await call_foreign(scope, method, *values)
    except ForeignError as error:
        if isinstance(error.__cause__, StoreError):
            # It says what is wrong, and its type what can be done.
            raise error.__cause__ from error.__cause__.__cause__
        problem = f"took longer than {seconds:g} s" if error.timed_out else str(error)
        raise StoreError(f"the store of session {run.transcript.id!r} failed: {problem}") from error.__cause__
