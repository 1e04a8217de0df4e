"""A session as its journal has it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder, decode_own
from agentloop.errors import StoreError
from agentloop.journal import OpenStore, Record
from agentloop.messages import Message
from agentloop.permissions import Grant
from tests.stores.oracle import history
from tests.stores.oracle.history import History

__all__ = ["Loaded", "State", "load"]


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a session has besides its messages."""

    grants: tuple[Grant, ...] = ()
    summary: str = ""
    first_kept: int = 0
    elided: tuple[int, ...] = ()


class Loaded(msgspec.Struct):
    """What there is of a session."""

    messages: list[Message]
    rewound: list[Message]
    """Those that do not count any more."""
    history: History
    state: State
    length: int
    """Of the journal."""
    seq: int
    """The number of the event that was told last, as far as it is kept."""
    streams: int
    """A number greater than that of every stream before."""
    long_results: dict[str, str]


class _Committed(msgspec.Struct):
    message: Message


class _Started(msgspec.Struct):
    resumes: str = ""


class _Numbered(msgspec.Struct):
    seq: int = 0


_committed = JsonDecoder(_Committed, max_depth=MAX_OWN_DEPTH)


async def load(store: OpenStore, session: str) -> Loaded:
    """The session; nothing but its name, if there is none.

    Raises:
      StoreError: the store cannot be read, or what is in it is no session.
    """
    records = await store.read(
        session,
        kinds=(
            "message_committed",
            "stream_started",
            history.STATE,
            history.GIVEN_UP,
            history.REWOUND,
            history.LONG_RESULT,
        ),
    )
    messages: list[Message] = []
    rewound: list[Message] = []
    state = State()
    long_results: dict[str, str] = {}
    begins = 0
    """Where the stream begins that may be unfinished, in however many parts."""
    root = ""
    """The stream on the session itself; not always named after it, since it may have been run before a fork."""
    try:
        for record in records:
            if record.kind == "message_committed":
                # As nearly all are.
                if record.stream == root:
                    messages.append(_committed.decode(record.data).message)
                continue
            match record.kind:
                case "stream_started":
                    root = record.stream
                    if not decode_own(record.data, _Started).resumes:
                        begins = record.seq
                case history.STATE:
                    state = decode_own(record.data, State)
                case history.GIVEN_UP:
                    messages.extend(decode_own(record.data, history.GivenUp).messages)
                case history.REWOUND:
                    count = decode_own(record.data, history.Rewound).messages
                    rewound += messages[count:]
                    del messages[count:]
                    if state.first_kept > len(messages) or max(state.elided, default=-1) >= len(messages):
                        state = State(state.grants)
                case _ if record.stream != root:
                    # Of a stream inside, which has calls of the same ids.
                    pass
                case _:
                    long_results[record.key] = decode_own(record.data, str)
    except msgspec.DecodeError as error:
        raise StoreError(f"session {session!r}: what is kept of it cannot be read: {error}") from error
    info = await store.info(session)
    tail = await store.read(session, after=begins - 1) if begins else ()
    read = History()
    read.read(tail)
    length = 0 if info is None else info.records
    return Loaded(messages, rewound, read, state, length, _last_number(tail), length, long_results)


def _last_number(tail: Sequence[Record]) -> int:
    """That of the last event in it."""
    for record in reversed(tail):
        # What is no event has no number, and may be a text.
        seq = decode_own(record.data, _Numbered).seq if record.data.startswith(b"{") else 0
        if seq:
            return seq
    return 0
