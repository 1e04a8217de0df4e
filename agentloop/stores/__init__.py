"""Where sessions are kept: in memory, in a file of SQLite; in an SQL database with the extra ``sql``.

Open a store, and in it `stored_session`; `Agent.resume` goes on with what is unfinished there, `answer_question`
answers for it, `follow_session` reads along, and `fork_session` goes another way.

`agentloop.stores.sql.SQLStore` is not imported here: it needs SQLAlchemy. `agentloop.journal` says what all promise.
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
