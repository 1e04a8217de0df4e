"""Going back in a session, and from there another way."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import msgspec

from agentloop._core.field_checks import shown
from agentloop._core.json_text import decode_own
from agentloop._core.state import SessionRewound, TurnAbandoned
from agentloop._core.transcript import problems
from agentloop._runtime.blocks import check_open_store
from agentloop.errors import UsageError
from agentloop.journal import OpenStore, Record
from agentloop.messages import Message
from agentloop.stores._replay import UNREADABLE, Replay

__all__ = ["check_cut", "fork_session"]


class _Stopped(msgspec.Struct):
    reason: str


async def fork_session(
    store: OpenStore, id: str, new: str | None = None, *, messages: int | None = None, number_title: bool = False
) -> str:
    """Make a new session that begins with the messages of session ``id``.

    The original does not change, and no process needs to hold it. A run that is live in it, or that died with its
    process, is not part of the fork, which then ends with the last message. A parked run is in both.

    Args:
      new: id of the new session; a random one if not given.
      messages: number of messages to copy; all of them if not given.
      number_title: give the new session the title of the original with a number, such as "Trip (fork 2)", and not the
        same title. A session without a title has none.

    Returns:
      The id of the new session.

    Raises:
      UsageError: a provider would refuse a transcript of that length, or there are not so many messages.
      SequenceError: there is a session with the new id.
      StoreError: there is no session ``id``, or the store failed.
    """
    check_open_store(store)
    name = os.urandom(8).hex() if new is None else new
    kinds = ("message_committed", "stream_started", "stream_stopped", TurnAbandoned.kind, SessionRewound.kind)
    replay = Replay(id)
    transcript = replay.state.messages
    upto: dict[int, int] = {0: 0}
    """By number of messages, the record with the last of them."""
    is_running = False
    for record in await store.read(id, kinds=kinds):
        match record.kind:
            case "stream_stopped":
                # The calls of a run whose process died may have run: the original decides whether to make them again.
                is_running = _stopped(record) == "interrupted"
            case "stream_started":
                is_running = True
                replay.read_transcript((record,))
            case _:
                before = len(transcript)
                replay.read_transcript((record,))
                if len(transcript) != before or record.kind != "message_committed":
                    upto[len(transcript)] = record.seq
    if messages is not None:
        check_cut(transcript, messages)
        await store.fork(id, name, upto=upto[messages])
    elif is_running:
        whole = next(
            count for count in range(len(transcript), -1, -1) if count in upto and not problems(transcript[:count])
        )
        await store.fork(id, name, upto=upto[whole])
    else:
        await store.fork(id, name)
    if number_title:
        await _number_title(store, id, name)
    return name


MOST_FORKS = 200
"""Forks of a session, the last used first, whose titles count for the next number."""
_NUMBERED = re.compile(r" \(fork ([1-9]\d{0,5})\)$")


async def _number_title(store: OpenStore, id: str, new: str) -> None:
    original = await store.info(id)
    if original is None or not original.title:
        return
    base = _NUMBERED.sub("", original.title)
    forks = [*await store.sessions(parent=id, limit=MOST_FORKS)]
    if original.parent:
        forks += await store.sessions(parent=original.parent, limit=MOST_FORKS)
    titles = [original.title, *[fork.title for fork in forks if fork.id != new]]
    found = [_NUMBERED.search(title) for title in titles if _NUMBERED.sub("", title) == base]
    number = max([int(match[1]) for match in found if match is not None], default=0) + 1
    await store.rename(new, f"{base} (fork {number})")


def _stopped(record: Record) -> str:
    try:
        return decode_own(record.data, _Stopped).reason
    except UNREADABLE:
        # In doubt, its calls may have run.
        return "interrupted"


def check_cut(story: Sequence[Message], messages: int) -> None:
    """Raise `UsageError` if the first ``messages`` of ``story`` are no transcript of their own."""
    if type(messages) is not int or not 0 <= messages <= len(story):
        raise UsageError(f"messages={shown(messages)}: the session has {len(story)}")
    broken = problems(story[:messages])
    if broken:
        fits = [str(count) for count in range(len(story) + 1) if not problems(story[:count])]
        raise UsageError(
            f"messages={messages} would tear calls from their results ({broken[0]}); these would do: {', '.join(fits)}"
        )
