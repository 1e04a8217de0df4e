"""Checks of all stores before they write, and the errors for a session that exists or does not. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import msgspec

from agentloop._core.field_checks import shown
from agentloop._core.json_text import decode_own
from agentloop.errors import SequenceError, StoreError, UsageError
from agentloop.journal import Record

__all__ = [
    "RECORD_SEPARATOR",
    "check_kinds",
    "check_name",
    "check_next_seq",
    "check_records",
    "check_text",
    "decode_json_text",
    "has_text",
    "no_such_session",
    "session_exists",
]

RECORD_SEPARATOR = b"\x1e"
"""Separates the JSON texts of records (RFC 7464). No JSON text has it: inside strings it is escaped."""


def check_name(label: str, name: str) -> None:
    """Check that a store can save ``name`` as an id.

    Args:
      label: names the id in the error: ``"session's id"``.

    Raises:
      UsageError: ``name`` is no text, is empty, or has characters that some databases refuse (see `check_text`).
    """
    if not isinstance(cast("object", name), str):
        raise UsageError(f"the {label} is some text, not {shown(name)}")
    if not name:
        raise UsageError(f"the {label} is empty")
    if not _is_plain(name):
        check_text(f"the {label} {name!r}", name)


def check_kinds(kinds: Collection[str] | None) -> frozenset[str] | None:
    """Check the ``kinds`` filter of `OpenStore.read`; ``None`` selects all kinds.

    Raises:
      UsageError: ``kinds`` is a single string, which would select kinds of one letter each.
    """
    if isinstance(kinds, str):
        raise UsageError(f"kinds={kinds!r} is one string: give a collection of them, such as ({kinds!r},)")
    if kinds is None:
        return None
    for kind in kinds:
        check_text(f"the kind {kind!r}", kind)
    return frozenset(kinds)


def check_records(session: str, records: Sequence[Record]) -> None:
    """Check the parts of ``records`` that need no look at the saved session.

    Raises:
      UsageError: a number is missing between two records, or a record has text that some databases refuse.
    """
    check_name("session's id", session)
    if not records:
        return
    # All texts at once, in the thread that all runs share. The records are looked at one by one only for an error.
    first = records[0].seq
    if [record.seq for record in records] != list(range(first, first + len(records))):
        _check_each(session, records)
    if not _is_plain("".join([record.kind + record.stream + record.key for record in records])):
        _check_each(session, records)
    data = RECORD_SEPARATOR.join([record.data for record in records])
    if b"\0" in data or data.count(RECORD_SEPARATOR) != len(records) - 1 or not _is_utf8(data):
        _check_each(session, records)


def _check_each(session: str, records: Sequence[Record]) -> None:
    """`check_records`, which names the record that is wrong."""
    for index, record in enumerate(records):
        if record.seq != records[0].seq + index:
            raise UsageError(
                f"records for session {session!r}: number {record.seq} follows {records[index - 1].seq}: "
                "numbers must have no gaps"
            )
        label = f"record {record.seq} for session {session!r}"
        check_text(label, record.kind + record.stream + record.key)
        decode_json_text(label, record.data)
        if RECORD_SEPARATOR in record.data:
            raise UsageError(f"{label} is not JSON: it has the control character U+001E")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_plain(text: str) -> bool:
    """Whether ``text`` is ASCII without NUL, which every database saves."""
    return text.isascii() and "\0" not in text


def decode_json_text(label: str, data: bytes) -> str:
    """Decode ``data``, which the caller says is JSON (RFC 8259: UTF-8).

    Args:
      label: names the data in the error.

    Raises:
      UsageError: ``data`` is not UTF-8, or has a NUL character.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{label} is not JSON: {error}") from error
    check_text(label, text)
    return text


def check_text(label: str, text: str) -> None:
    """Check that every database can save ``text``.

    Args:
      label: names the text in the error.

    Raises:
      UsageError: ``text`` has a NUL character (which PostgreSQL refuses), or a lone surrogate.
    """
    if "\0" in text:
        raise UsageError(f"{label} has a NUL character, which databases refuse")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{label} is not valid Unicode: {error}") from error


def check_next_seq(session: str, last: int | None, records: Sequence[Record]) -> None:
    """Check that ``records`` begin where the saved session ends.

    Args:
      last: the number of the session's last record, or ``None`` if the session does not exist.

    Raises:
      SequenceError: another writer has appended to the session, or deleted it.
    """
    if records and records[0].seq != (last or 0) + 1:
        end = "the session does not exist" if last is None else f"its last record is number {last}"
        raise SequenceError(
            f"session {session!r} cannot take record {records[0].seq}, as {end}: another writer has changed it; "
            "load it again"
        )


def session_exists(session: str) -> SequenceError:
    """The error for a new session whose id is in use."""
    return SequenceError(f"session {session!r} exists already: use another id, or load it")


def no_such_session(session: str) -> StoreError:
    """The error for an operation that needs a session which the store does not have."""
    return StoreError(f"there is no session {session!r}: it was deleted, or never written")


def has_text(data: bytes | str, search: str) -> bool:
    """Whether a string anywhere in ``data``, a JSON document, contains ``search``; keys of objects do not count.

    Args:
      search: in lower case; the comparison ignores case.
    """
    try:
        return _value_has_text(decode_own(data), search)
    except msgspec.DecodeError:
        return False


def _value_has_text(value: Any, search: str) -> bool:
    # Without recursion, which would end at Python's limit and not at that of `decode_own`.
    waiting: list[Any] = [value]
    while waiting:
        match waiting.pop():
            case str(text):
                if search in text.lower():
                    return True
            case {**members}:
                waiting += members.values()
            case [*items]:
                waiting += items
            case _:
                pass
    return False
