"""The one way into the transcript: kept by the store, then part of the session, then told."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from agentloop._runtime.foreign import ForeignError, call_foreign
from agentloop._runtime.run import Run
from agentloop.errors import StoreError
from agentloop.events import MessageCommitted
from agentloop.messages import Message

__all__ = ["commit"]


async def commit(run: Run, messages: Sequence[Message]) -> None:
    """Make ``messages`` part of the session, all or none. Cancelled or not, it is done when this returns.

    Raises:
      StoreError: the store failed; then the session is as it was, and nothing is told.
    """
    if run.store is not None:
        seconds = run.config.deadlines.cleanup
        try:
            # Shielded: a turn that has happened is kept, also when the stream is cancelled at that moment.
            scope = trio.move_on_after(seconds, shield=True)
            await call_foreign(scope, run.store.append, run.transcript.id, messages)
        except ForeignError as error:
            problem = f"took longer than {seconds:g} s" if error.timed_out else str(error)
            raise StoreError(f"the store of session {run.transcript.id!r} failed: {problem}") from error.__cause__
    index = len(run.transcript)
    run.transcript.extend(messages)
    for message in messages:
        run.emitter.post(MessageCommitted, message=message, index=index)
        index += 1
