"""Commit messages, and save what a run must not begin, or end, without."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import trio

from agentloop._core.budget import Exceeded
from agentloop._core.state import LimitRaised, LongResultStored, ToolStarted, TurnOpened
from agentloop._runtime.clock import after
from agentloop._runtime.foreign import ForeignError, call_foreign
from agentloop._runtime.run import Run
from agentloop.errors import StoreError
from agentloop.events import MessageCommitted
from agentloop.messages import AssistantMessage, Message, ToolCall
from agentloop.tools import Tool

__all__ = ["begin_call", "begin_turn", "commit", "end_call", "flush", "raised", "settle"]


def commit(run: Run, messages: Sequence[Message]) -> None:
    """Add ``messages`` to the session, all or none.

    With a journal, their events become visible as soon as they are saved, and the run continues meanwhile: its next
    events follow them in the journal.

    Raises:
      StoreError: the journal failed. Then the messages are not added.
    """
    run.log.check()
    index = len(run.transcript)
    run.transcript.extend(messages)
    for message in messages:
        run.emit(MessageCommitted, message=message, index=index)
        index += 1


def begin_turn(run: Run, message: AssistantMessage) -> None:
    """Note that the calls of ``message`` are about to begin."""
    run.note(TurnOpened(message))


def raised(run: Run, reached: Exceeded) -> None:
    """Note that a person raised a limit of the run, or of a run around it: it stays raised when the run is resumed."""
    owner = run
    while owner.meter is not reached.meter:
        assert owner.parent is not None
        owner = owner.parent
    limit, allowed = reached.limit, reached.meter.allowed[reached.limit]
    run.note(LimitRaised(owner.source.stream, limit, allowed))


async def begin_call(run: Run, tool: Tool, call: ToolCall) -> None:
    """Note that the tool of ``call`` is about to run. Raises `StoreError`; then it must not."""
    run.note(ToolStarted(call.id))
    if not (tool.read_only and tool.may_run_again):
        # Flushed also for a tool that may run again: if the response that asked for the call were lost, the next
        # response would be another one, with another idempotency key. A call that changes nothing leaves no trace.
        await flush(run)


def end_call(run: Run, call: ToolCall) -> None:
    """Note the rest of a long result, before the event that has the result."""
    text = run.transcript.kept.text_of(call.id)
    if text is not None:
        run.note(LongResultStored(call.id, text))


async def flush(run: Run) -> None:
    """Wait until everything appended so far is saved, within ``Deadlines.cleanup``. Does not wait without a journal.

    Raises:
      StoreError: the journal failed, or the time is up, which counts as a failure of the journal.
    """
    if run.log.saved == run.log.end:
        run.log.check()
        return
    seconds = run.config.deadlines.cleanup
    # Shielded: events that have happened are saved, even if the run is cancelled at that moment. The deadline holds all
    # the same: an end that waits for ever would be worse than one that is not saved.
    with trio.CancelScope(deadline=after(seconds), shield=True):
        await run.log.flush()
        return
    error = StoreError(f"the store of session {run.root.session.id!r} failed: it took longer than {seconds:g} s")
    run.log.fail(error)
    raise error


async def settle(run: Run) -> None:
    """Wait until everything that a run which ends has emitted is saved, and so visible.

    If it cannot be saved, it becomes visible without that, and messages that are lost leave the session.
    """
    with suppress(StoreError):
        await flush(run)
    lost = run.log.lost.get(run.transcript.id)
    if lost is not None:
        run.transcript.truncate(min(len(run.transcript), lost))
    if run.parent is not None:
        return
    run.transcript.seq = run.log.seq
    journal = run.root.journal
    # After a failure the session is read again in any case, when it is used next.
    leaves_turn_open = run.state.message is not None and run.log.failure is None
    if journal is not None and (run.root.questions.is_parked or leaves_turn_open):
        # The journal has an open turn, to be resumed, which is not part of the transcript.
        seconds = run.config.deadlines.cleanup
        # If the store, or the clock, fails here, it is read again when the session is used next.
        journal.invalidate()
        with suppress(ForeignError):
            # Not `move_on_after`, which raises what a clock raises that fails.
            await call_foreign(trio.CancelScope(deadline=after(seconds), shield=True), journal.reload)
