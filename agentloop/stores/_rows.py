"""How records are laid out in the rows of a database: many to a row, in two texts. Pure functions.

A row holds neighbouring records of one stream that were written at the same time, as most records of a write were: a
transaction of one row takes half as long as one of ten. The texts of the records stand one after another, as in a JSON
text sequence (RFC 7464): those of `TRANSCRIPT_KINDS` in one column, which is all that opening a session reads, and all
others in another one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import msgspec

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder
from agentloop.journal import Record
from agentloop.stores._checks import RECORD_SEPARATOR

__all__ = ["RECORD_COLUMNS", "ROW_RECORDS", "TRANSCRIPT_KINDS", "Row", "RowReader", "rows_of"]

Row: TypeAlias = Sequence[Any]

RECORD_COLUMNS = ("session", "seq", "kinds", "keys", "stream", "at", "transcript", "data")
"""``seq`` is the number of the row's last record. ``kinds`` is a JSON array of all kinds, in order; those in brackets
have a key in the JSON array ``keys``, which is empty text if there are none."""

ROW_RECORDS = 128
"""Records in one row at most: a follower that has read half of a row reads the whole row again."""

TRANSCRIPT_KINDS = frozenset(
    {
        "message_committed",
        "stream_started",
        "state",
        "given_up",
        "rewound",
        "long_result",
        "handed_off",
    }
)
"""The kinds of records in the column ``transcript``. Part of the format: another set needs a migration, unless the new
kinds are in no journal yet."""

_STREAM_AND_TIME = attrgetter("stream", "at")
_encode = msgspec.json.Encoder().encode
_decode_kinds = JsonDecoder(list[str | list[str]], max_depth=MAX_OWN_DEPTH).decode
_decode_keys = JsonDecoder(list[str], max_depth=MAX_OWN_DEPTH).decode


def rows_of(session: str, records: Sequence[Record]) -> list[Row]:
    """Lay out ``records``, which `agentloop.stores._checks.check_records` has checked, in rows of `RECORD_COLUMNS`."""
    rows: list[Row] = []
    for _, group in groupby(records, _STREAM_AND_TIME):
        neighbours = list(group)
        for begin in range(0, len(neighbours), ROW_RECORDS):
            rows.append(_row(session, neighbours[begin : begin + ROW_RECORDS]))  # noqa: PERF401 - readable
    return rows


def _row(session: str, records: Sequence[Record]) -> Row:
    # One loop in the place of a comprehension for each column: half of the bytecodes, of which each turn has 800 here.
    kinds: list[str | list[str]] = []
    keys: list[str] = []
    transcript: list[bytes] = []
    data: list[bytes] = []
    for record in records:
        kind = record.kind
        if record.key:
            keys.append(record.key)
            kinds.append([kind])
        else:
            kinds.append(kind)
        (transcript if kind in TRANSCRIPT_KINDS else data).append(record.data)
    return (
        session,
        records[-1].seq,
        _encode(kinds).decode(),
        _encode(keys).decode() if keys else "",
        records[0].stream,
        records[0].at,
        RECORD_SEPARATOR.join(transcript).decode(),
        RECORD_SEPARATOR.join(data).decode(),
    )


class _Place(NamedTuple):
    """Where a record is in its row."""

    number: int
    """Counted from 0."""
    kind: str
    key: int | None
    """Its number among the keys, if it has one."""
    is_transcript: bool
    text: int
    """Its number among the texts of its column."""


class RowReader:
    """Reads records out of rows.

    Args:
      after: only records with a greater number.
      kinds: only records of these kinds.
      bytes_of: how the database spells the bytes of a column, if it has them faster than the text.
    """

    def __init__(self, after: int = 0, kinds: Collection[str] | None = None, *, bytes_of: str = "{}") -> None:
        self._after = after
        self._kinds = kinds
        self._layouts: dict[str, tuple[int, Sequence[_Place], bool]] = {}
        """The column ``kinds`` to the number of the row's records, where those to read are, and whether one has a key.
        Rows repeat themselves: of a thousand, a few are found out."""
        self._has_messages_alone: dict[str, bool] = {}
        """The column ``kinds`` to whether the column ``transcript`` has messages, and nothing else."""
        only_transcript = kinds is not None and TRANSCRIPT_KINDS.issuperset(kinds)
        transcript, data = bytes_of.format("transcript"), "''" if only_transcript else bytes_of.format("data")
        self.columns = f"seq, kinds, keys, stream, at, {transcript}, {data}"
        """The columns of a row that `records` takes."""

    def records(self, row: Row) -> list[Record]:
        """The records of one row of ``columns``."""
        last, kinds, keys, stream, at, transcript, data = row
        count, places, has_keys = self._layouts.get(kinds) or self._layout(kinds)
        if not places:
            return []
        before = last - count + 1
        names: list[str] = _decode_keys(keys) if has_keys else []
        # Opening a session reads one of the columns.
        in_transcript, in_data = _split(transcript), _split(data) if data else ()
        records = [
            Record(
                before + number,
                kind,
                in_transcript[text] if is_transcript else in_data[text],
                stream,
                "" if key is None else names[key],
                at,
            )
            for number, kind, key, is_transcript, text in places
        ]
        return records if before > self._after else [record for record in records if record.seq > self._after]

    def texts_of_messages(self, row: Row, stream: str) -> str | None:
        """The column ``transcript`` of a row, if all that it has are messages of ``stream``; otherwise ``None``."""
        kinds = row[1]
        if row[3] != stream:
            return None
        if kinds not in self._has_messages_alone:
            names = {name if isinstance(name, str) else name[0] for name in _decode_kinds(kinds)}
            self._has_messages_alone[kinds] = names & TRANSCRIPT_KINDS == {"message_committed"}
        return row[5] if self._has_messages_alone[kinds] else None

    def _layout(self, kinds: str) -> tuple[int, Sequence[_Place], bool]:
        places: list[_Place] = []
        keys, texts = 0, {True: 0, False: 0}
        names = _decode_kinds(kinds)
        for number, name in enumerate(names):
            kind = name if isinstance(name, str) else name[0]
            key = None if isinstance(name, str) else keys
            is_transcript = kind in TRANSCRIPT_KINDS
            if self._kinds is None or kind in self._kinds:
                places.append(_Place(number, kind, key, is_transcript, texts[is_transcript]))
            texts[is_transcript] += 1
            keys += key is not None
        self._layouts[kinds] = layout = (len(names), places, any(place.key is not None for place in places))
        return layout


def _split(texts: str | bytes) -> list[bytes]:
    return (texts.encode() if isinstance(texts, str) else texts).split(RECORD_SEPARATOR)
