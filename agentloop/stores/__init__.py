"""Stores, which save the journals of sessions: in memory, in a file of SQLite, or in PostgreSQL.

Open a store, and in it a session with `stored_session`. `Agent.resume` continues a run that was cut off or parked,
`answer_question` answers a question of a run that no process has open, `follow_session` reads the events of a session
while another process runs it, and `fork_session` copies a session up to a point.

`agentloop.stores.postgres.PostgresStore` is not imported here, because it needs the extra ``postgres``.
`agentloop.journal` states the promises that every store keeps.
"""

from __future__ import annotations

from agentloop.stores._branches import fork_session
from agentloop.stores._follow import Follower, follow_session
from agentloop.stores.jsonl import export_session, import_session
from agentloop.stores.memory import MemoryStore
from agentloop.stores.sqlite import SQLiteStore
from agentloop.stores.stored import StoredSession, answer_question, stored_session

__all__ = [
    "Follower",
    "MemoryStore",
    "SQLiteStore",
    "StoredSession",
    "answer_question",
    "export_session",
    "follow_session",
    "fork_session",
    "import_session",
    "stored_session",
]
