"""What the index of a store says about a session, as it follows from the records."""

from __future__ import annotations

import msgspec

from agentloop.journal import Record
from agentloop.stores._session_index import index_entry


def record(kind: str, agent: str, **fields: object) -> Record:
    source = {"session": "s", "stream": "s/1", "agents": agent.split()}
    return Record(1, kind, msgspec.json.encode({"source": source, **fields}))


def test_after_a_handoff_the_agent_is_the_one_that_got_the_conversation() -> None:
    entry = index_entry([record("stream_started", "front"), record("handed_off", "front", to="billing")])
    assert entry is not None
    assert (entry.state, entry.agent) == ("unfinished", "billing")


def test_a_resumed_run_and_a_handoff_inside_of_a_call_leave_the_agent_as_it_is() -> None:
    for left in (record("stream_started", "front", resumes="s/1"), record("handed_off", "lead front", to="billing")):
        entry = index_entry([left])
        assert entry is not None
        # An empty name: the one that the index has stays.
        assert entry.agent == ""
