"""Going back in a session, and from there another way."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from agentloop._core.transcript import problems
from agentloop.errors import StoreError, UsageError
from agentloop.journal import OpenStore
from agentloop.messages import Message
from agentloop.stores import _history as history

__all__ = ["check_cut", "fork_session"]


class _Committed(msgspec.Struct):
    message: Message


class _Stopped(msgspec.Struct):
    reason: str


async def fork_session(store: OpenStore, id: str, new: str | None = None, *, messages: int | None = None) -> str:
    """Make a session that begins as session ``id``, and goes its own way from there.

    Nothing happens to the session itself, and nobody needs to have it. What a process has in hand there at this moment,
    or had when it died, is not part of the fork, which then ends with the last message; what is parked is in both.

    Args:
      new: the id of the new session; made up at random if not given.
      messages: so many of them; all of them if not given.

    Returns:
      The id of the new session.

    Raises:
      UsageError: a transcript of so many messages would be none that a provider takes, or there are not so many.
      SequenceError: there is a session of the new name.
      StoreError: there is no session ``id``, or the store cannot do it.
    """
    name = os.urandom(8).hex() if new is None else new
    kinds = ("message_committed", "stream_started", "stream_stopped", history.GIVEN_UP, history.REWOUND)
    story: list[Message] = []
    upto: dict[int, int] = {0: 0}
    """By number of messages, the record with the last of them."""
    runs, root = False, ""
    for record in await store.read(id, kinds=kinds):
        try:
            match record.kind:
                case "stream_started":
                    runs, root = True, record.stream
                    continue
                case "stream_stopped":
                    # Of one whose process died, calls may have run: they are the original's to make again.
                    reason = msgspec.json.decode(record.data, type=_Stopped).reason
                    runs = reason == "interrupted"
                    continue
                case "message_committed" if record.stream == root:
                    story.append(msgspec.json.decode(record.data, type=_Committed).message)
                case history.GIVEN_UP:
                    story.extend(msgspec.json.decode(record.data, type=history.GivenUp).messages)
                case history.REWOUND:
                    del story[msgspec.json.decode(record.data, type=history.Rewound).messages :]
                case _:
                    continue
        except msgspec.DecodeError as error:
            raise StoreError(f"session {id!r}, record {record.seq}: {error}") from error
        upto[len(story)] = record.seq
    if messages is not None:
        check_cut(story, messages)
        await store.fork(id, name, upto=upto[messages])
    elif runs:
        whole = next(count for count in range(len(story), -1, -1) if count in upto and not problems(story[:count]))
        await store.fork(id, name, upto=upto[whole])
    else:
        await store.fork(id, name)
    return name


def check_cut(story: Sequence[Message], messages: int) -> None:
    """Raise `UsageError` if the first ``messages`` of ``story`` are no transcript of their own."""
    if not 0 <= messages <= len(story):
        raise UsageError(f"messages={messages}: the session has {len(story)}")
    found = problems(story[:messages])
    if found:
        fits = [str(count) for count in range(len(story) + 1) if not problems(story[:count])]
        raise UsageError(
            f"messages={messages} would tear calls from their results ({found[0]}); these would do: {', '.join(fits)}"
        )
