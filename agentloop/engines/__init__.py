"""Runs that any of several workers drives: on one machine, or on many that share a database.

A *segment* of a session lasts until its run ends or waits for people. `drive_segment` drives one; any process may call
it, any number of times, since the session's lease admits one at a time and its fencing token stops the others.
`agentloop.stores.mailbox.enqueue` gives a session its prompts, `answer` the answers to its questions, and `stop` ends
its run.

`work` is a worker: it drives the sessions of a store that can be driven. `agentloop.engines.dbos.work` does the same
with the queue of DBOS, and needs the extra ``dbos``; `agentloop.engines.restate.work` with that of Restate, and needs
the extra ``restate``. In another engine, call `drive_segment` in a step of it.
"""

from __future__ import annotations

from agentloop.engines._segment import Segment, drive_segment
from agentloop.engines._worker import WorkerOptions, work
from agentloop.stores.mailbox import answer, enqueue, stop

__all__ = ["Segment", "WorkerOptions", "answer", "drive_segment", "enqueue", "stop", "work"]
