"""What a store's index of sessions says about a session's run, as it follows from the records that are appended.

Pure functions. A store updates its index in the transaction that appends the records, so both always agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from agentloop._core.json_text import decode_own
from agentloop._core.state import SessionRewound, TurnAbandoned
from agentloop.events import Source
from agentloop.journal import READY, UNFINISHED, WAITING, Record, SessionState

__all__ = ["IndexEntry", "index_entry"]

_STATES: Mapping[str, SessionState] = {
    "stream_started": UNFINISHED,
    "handed_off": UNFINISHED,
    "stream_stopped": READY,
    TurnAbandoned.kind: READY,
    SessionRewound.kind: READY,
}
"""The state that a record of this kind leads to; a record of another kind changes none."""

_BY_REASON: Mapping[str, SessionState] = {"needs_input": WAITING, "interrupted": UNFINISHED}
"""The state after a stream that stopped for this reason; `READY` for any other."""


class IndexEntry(NamedTuple):
    """The new state of a session."""

    state: SessionState
    agent: str
    """The name of the agent whose run began, or that got the conversation; empty if the name in the index stays."""


class _Started(msgspec.Struct):
    source: Source
    resumes: str = ""


class _HandedOff(msgspec.Struct):
    source: Source
    to: str


class _Stopped(msgspec.Struct):
    reason: str


def index_entry(records: Sequence[Record]) -> IndexEntry | None:
    """The state of the session after ``records``; ``None`` if they change none, as most do."""
    if _STATES.keys().isdisjoint([record.kind for record in records]):
        return None
    state: SessionState | None = None
    agent = ""
    for record in records:
        if record.kind not in _STATES:
            continue
        state = _STATES[record.kind]
        try:
            if record.kind == "stream_started":
                started = decode_own(record.data, _Started)
                # A turn that is resumed may have handed the conversation to an agent that acts after it.
                agent = agent if started.resumes else started.source.agents[0]
            elif record.kind == "handed_off":
                handed_off = decode_own(record.data, _HandedOff)
                # A child run hands off its own conversation, not that of the session.
                agent = handed_off.to if len(handed_off.source.agents) == 1 else agent
            elif record.kind == "stream_stopped":
                state = _BY_REASON.get(decode_own(record.data, _Stopped).reason, READY)
        except (msgspec.DecodeError, UnicodeError, IndexError):
            # A store saves any record. The loader of the session reports one that it cannot read.
            state = UNFINISHED
    return None if state is None else IndexEntry(state, agent)
