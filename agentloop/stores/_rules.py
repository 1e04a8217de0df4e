"""Who may do what: the decisions that all stores share. Nothing here waits, and nothing here writes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isfinite
from typing import Any

import msgspec
from attrs import frozen

from agentloop.errors import LeaseLostError, SequenceError, SessionLeasedError, StoreError, UsageError
from agentloop.journal import Lease, Record
from agentloop.stores._clock import Moment

__all__ = [
    "Held",
    "check_addition",
    "check_free",
    "check_kinds",
    "check_mine",
    "check_name",
    "check_records",
    "check_text",
    "is_mentioned",
    "no_such_session",
    "prolonged",
    "taken",
    "taken_meanwhile",
    "text_of",
]

MAX_LEASE_SECONDS = 366 * 24 * 3600.0


@frozen
class Held:
    """What a store knows of the lease on a session."""

    token: int
    """That of the newest holder, also when nobody holds it any more."""
    holder: str
    """Empty if it was given back."""
    expires: float
    """By the time of day."""
    era: str
    until: float
    """By the clock of ``era``, which counts where it is still the same."""

    def is_running(self, moment: Moment) -> bool:
        """Whether somebody has it, and it has not run out."""
        if not self.holder:
            return False
        return self.until > moment.steady if self.era == moment.era else self.expires > moment.wall

    def lease(self, session: str) -> Lease:
        """What its holder gets."""
        return Lease(session=session, holder=self.holder, token=self.token, expires=self.expires)


def check_name(what: str, name: str) -> None:
    """Check that ``name`` can be kept.

    Raises:
      UsageError: it is empty, or has characters that not every database takes.
    """
    if not name:
        raise UsageError(f"the {what} is empty")
    if not _is_plain(name):
        check_text(f"the {what} {name!r}", name)


def check_kinds(kinds: Collection[str] | None) -> frozenset[str] | None:
    """Check that ``kinds`` is some names, or ``None`` for all.

    Raises:
      UsageError: it is one text, whose letters nobody means.
    """
    if isinstance(kinds, str):
        raise UsageError(f"kinds={kinds!r} is one text: give a collection of them, such as ({kinds!r},)")
    if kinds is None:
        return None
    for kind in kinds:
        check_text(f"the kind {kind!r}", kind)
    return frozenset(kinds)


def check_records(session: str, records: Sequence[Record]) -> list[str]:
    """Check what can be told of ``records`` without looking at the session. Gives the data of each, as text.

    Raises:
      UsageError: their numbers have gaps, or there is something in them that cannot be kept.
    """
    check_name("session's id", session)
    texts: list[str] = []
    # This runs for whatever is kept, in the one thread that all runs share: what is said of an error is made up late.
    for place, record in enumerate(records):
        if record.seq != records[0].seq + place:
            raise UsageError(
                f"records for session {session!r}: number {record.seq} stands after {records[place - 1].seq}: "
                "they must be without gaps"
            )
        names = record.kind + record.stream + record.key
        if not _is_plain(names):
            check_text(_name_of(session, record), names)
        try:
            text = record.data.decode()
        except UnicodeDecodeError:
            text = text_of(_name_of(session, record), record.data)
        if "\0" in text:
            check_text(_name_of(session, record), text)
        texts.append(text)
    return texts


def _name_of(session: str, record: Record) -> str:
    return f"record {record.seq} for session {session!r}"


def _is_plain(text: str) -> bool:
    """Whether every database takes it, without a closer look."""
    return text.isascii() and "\0" not in text


def text_of(what: str, data: bytes) -> str:
    """``data``, which is JSON, as text.

    Raises:
      UsageError: no JSON is like that.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is no JSON: {error}") from error
    check_text(what, text)
    return text


def check_text(what: str, text: str) -> None:
    """Check that ``text`` can be kept.

    Raises:
      UsageError: it has characters that not every database takes.
    """
    if "\0" in text:
        raise UsageError(f"{what} has a NUL character in it, which databases do not take")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{what} is no valid text: {error}") from error


def check_addition(session: str, last: int | None, records: Sequence[Record]) -> None:
    """Check that ``records`` begin where the session ends, at ``last``; ``None`` if there is no session.

    Raises:
      SequenceError: they do not.
    """
    if records and records[0].seq != (last or 0) + 1:
        end = "there is no such session" if last is None else f"it ends with number {last}"
        raise SequenceError(
            f"session {session!r} cannot take record {records[0].seq}, as {end}: somebody else has changed it; "
            "load it anew"
        )


def taken_meanwhile(session: str) -> SequenceError:
    """What is raised where a session must not be there and is."""
    return SequenceError(f"there is a session {session!r} already: use another id, or load it")


def no_such_session(session: str) -> StoreError:
    """What is raised where a session must be there and is not."""
    return StoreError(f"there is no session {session!r}: it was deleted, or never written")


def check_free(session: str, held: Held | None, moment: Moment) -> None:
    """Check that nobody has the session.

    Raises:
      SessionLeasedError: somebody does.
    """
    if held is not None and held.is_running(moment):
        raise SessionLeasedError(session=session, holder=held.holder, expires=held.expires)


def check_mine(session: str, held: Held | None, lease: Lease) -> Held:
    """Check that ``lease`` is the newest on ``session``: that counts, and not whether it has run out.

    Raises:
      LeaseLostError: it is not.
    """
    if lease.session != session:
        raise LeaseLostError(f"the lease is on session {lease.session!r}, and not on {session!r}")
    if held is None or held.token != lease.token or not held.holder:
        now = f"{held.holder} has it now" if held is not None and held.holder else "nobody has it now"
        raise LeaseLostError(
            f"session {session!r} is no longer held by {lease.holder}, whose lease had run out or was given "
            f"back; {now}: load the session anew"
        )
    return held


def taken(held: Held | None, holder: str, seconds: float, moment: Moment) -> Held:
    """The lease for a new holder, for whom the session must be free.

    Raises:
      UsageError: nobody can hold a session under that name, or for so long.
    """
    check_name("lease's holder", holder)
    _check_seconds(seconds)
    token = 1 if held is None else held.token + 1
    return Held(token, holder, moment.wall + seconds, moment.era, moment.steady + seconds)


def prolonged(held: Held, seconds: float, moment: Moment) -> Held:
    """The same lease for longer, or for less."""
    _check_seconds(seconds)
    return Held(held.token, held.holder, moment.wall + seconds, moment.era, moment.steady + seconds)


def _check_seconds(seconds: float) -> None:
    if not (isfinite(seconds) and 0 < seconds <= MAX_LEASE_SECONDS):
        raise UsageError(f"a lease cannot last {seconds} seconds: give more than 0, and at most a year")


def is_mentioned(search: str, data: bytes | str) -> bool:
    """Whether ``search``, in lower case, is in a string in ``data``, which is JSON."""
    try:
        return _is_in(search, msgspec.json.decode(data))
    except (msgspec.DecodeError, RecursionError):
        return False


def _is_in(search: str, value: Any) -> bool:
    if isinstance(value, str):
        return search in value.lower()
    if isinstance(value, dict):
        return any(_is_in(search, inner) for inner in value.values())  # pyright: ignore[reportUnknownVariableType]
    return isinstance(value, list) and any(_is_in(search, inner) for inner in value)  # pyright: ignore[reportUnknownVariableType]
