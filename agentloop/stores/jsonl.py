"""A session as a file of JSON lines: to keep, to look into, and to take to another store.

The first line says what the file is, then there is a line for each record and each answer, and the last line says that
this was the last::

    {"agentloop":"session","version":1,"id":"s1","title":"","created":1.0,"parent":""}
    {"seq":1,"kind":"user","data":{"text":"hi"},"at":1.0}
    {"answer":"q1","data":{"yes":true}}
    {"end":2}
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import IO

import msgspec
import trio
from attrs import define, field

from agentloop._core.json_text import decode_own
from agentloop.errors import StoreError
from agentloop.journal import OpenStore, Record
from agentloop.stores._checks import no_such_session

__all__ = ["VERSION", "export_session", "import_session"]

VERSION = 1
"""Of the format."""

PAGE = 1000


class _Header(msgspec.Struct):
    agentloop: str
    version: int


class _Session(_Header):
    id: str
    title: str = ""
    created: float = 0.0
    parent: str = ""


class _RecordLine(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    seq: int
    kind: str
    data: msgspec.Raw
    stream: str = ""
    key: str = ""
    at: float = 0.0


class _AnswerLine(msgspec.Struct, forbid_unknown_fields=True):
    answer: str
    data: msgspec.Raw


class _EndLine(msgspec.Struct, forbid_unknown_fields=True):
    end: int
    """How many lines there are between the first and this one."""


async def export_session(store: OpenStore, session: str, file: str | PathLike[str], /) -> int:
    """Write a session to ``file``, in place of what was there. Gives how many records there are in it.

    The file is there when all of it is: whoever is cancelled leaves what was there before.

    Raises:
      StoreError: there is no such session, a record of it is no JSON, or the file cannot be written.
    """
    path = Path(file)
    info = await store.info(session)
    if info is None:
        raise no_such_session(session)
    header = _Session("session", VERSION, info.id, info.title, info.created, info.parent)
    seq = 0
    async with _replaced(path) as output:
        await _write(output, path, [msgspec.json.encode(header)])
        # Up to here, and no farther, if the session goes on meanwhile.
        while seq < info.records:
            records = await store.read(session, after=seq, limit=min(PAGE, info.records - seq))
            if not records:
                raise no_such_session(session)
            lines = [
                msgspec.json.encode(
                    _RecordLine(
                        each.seq,
                        each.kind,
                        _on_one_line(each.data, f"record {each.seq}", session),
                        each.stream,
                        each.key,
                        each.at,
                    )
                )
                for each in records
            ]
            await _write(output, path, lines)
            seq = records[-1].seq
        answers = [
            msgspec.json.encode(_AnswerLine(question, _on_one_line(data, f"the answer to {question!r}", session)))
            for question, data in (await store.answers(session)).items()
        ]
        await _write(output, path, [*answers, msgspec.json.encode(_EndLine(seq + len(answers)))])
    return seq


async def import_session(
    store: OpenStore, file: str | PathLike[str], /, *, session: str | None = None, whole_only: bool = True
) -> str:
    """Add the session that `export_session` wrote to ``file``. Gives its id.

    All of it is added, or nothing is.

    Args:
      session: an id for it, instead of the one that it had.
      whole_only: ``False`` takes what there is of a file that breaks off, up to the last line that is whole.

    Raises:
      StoreError: the file cannot be read, is no export, is of a newer version, or breaks off.
      SequenceError: there is a session of that id: give another.
    """
    path = Path(file)
    found = await trio.to_thread.run_sync(_read, path, whole_only)
    if not found.records:
        raise StoreError(f"{path}: there is no record in it, so there is nothing to import")
    id = found.header.id if session is None else session
    await store.append(id, found.records, parent=found.header.parent)
    try:
        if found.header.title:
            await store.rename(id, found.header.title)
        for question, data in found.answers.items():
            await store.answer(id, question, data)
    except BaseException:
        with trio.CancelScope(shield=True):
            await store.delete(id)
        raise
    return id


@define
class _Found:
    header: _Session
    records: list[Record] = field(factory=list[Record])
    answers: dict[str, bytes] = field(factory=dict[str, bytes])


def _read(path: Path, whole_only: bool) -> _Found:
    try:
        with path.open("rb") as lines:
            return _parsed(path, lines, whole_only)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error


def _parsed(path: Path, lines: Iterator[bytes], whole_only: bool) -> _Found:
    found = _Found(_header(path, next(lines, b"")))
    number, ended, problem = 1, False, ""
    for line in lines:
        number += 1
        if ended:
            raise StoreError(f"{path}, line {number}: there is more after the last line: this is no export")
        try:
            value = _line(line)
        except msgspec.DecodeError as error:
            if line.endswith(b"\n"):
                raise StoreError(
                    f"{path}, line {number}: {error}: the file is damaged; export the session again"
                ) from error
            problem = f"{path}, line {number}: half a line ({error})"
            break
        if isinstance(value, _RecordLine):
            if value.seq != len(found.records) + 1:
                raise StoreError(
                    f"{path}, line {number}: record {value.seq} stands where {len(found.records) + 1} should: "
                    "the file is damaged; export the session again"
                )
            data = bytes(value.data)
            found.records.append(Record(value.seq, value.kind, data, value.stream, value.key, value.at))
        elif isinstance(value, _AnswerLine):
            found.answers[value.answer] = bytes(value.data)
        else:
            ended = True
            if value.end != number - 2:
                raise StoreError(
                    f"{path}, line {number}: it says that {value.end} lines stand before it, but {number - 2} do: "
                    "the file is damaged; export the session again"
                )
    if not ended:
        problem = problem or f"{path}, line {number}: this is the last line, but not the end"
        if whole_only:
            raise StoreError(
                f"{problem}: the file breaks off after {len(found.records)} records. Export the session again, or take "
                "those with whole_only=False"
            )
    return found


def _header(path: Path, line: bytes) -> _Session:
    try:
        header = decode_own(line, _Header)
        is_ours = header.agentloop == "session"
        if is_ours and header.version <= VERSION:
            return decode_own(line, _Session)
    except msgspec.DecodeError as error:
        raise StoreError(f"{path}, line 1: this is no exported session ({error}): give another file") from error
    if not is_ours:
        raise StoreError(f"{path}, line 1: this is no exported session but {header.agentloop!r}: give another file")
    raise StoreError(
        f"{path} was written by a newer agentloop: its format is version {header.version}, and this one knows "
        f"those up to {VERSION}. Update agentloop (pip install -U agentloop-trio)"
    )


def _line(line: bytes) -> _RecordLine | _AnswerLine | _EndLine:
    if line.startswith(b'{"seq"'):
        return decode_own(line, _RecordLine)
    if line.startswith(b'{"answer"'):
        return decode_own(line, _AnswerLine)
    return decode_own(line, _EndLine)


def _on_one_line(data: bytes, what: str, session: str) -> msgspec.Raw:
    try:
        decode_own(data)
    except msgspec.DecodeError as error:
        raise StoreError(f"{what} of session {session!r} is no JSON, and cannot be exported: {error}") from error
    return msgspec.Raw(msgspec.json.format(data, indent=-1) if b"\n" in data or b"\r" in data else data)


@asynccontextmanager
async def _replaced(path: Path) -> AsyncGenerator[IO[bytes]]:
    """A file to write to, which is put in the place of ``path`` when the block has ended well."""
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        output = await trio.to_thread.run_sync(lambda: part.open("wb"))
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        yield output
        await trio.to_thread.run_sync(_finish, output, part, path)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_clean, output, part)


def _finish(output: IO[bytes], part: Path, path: Path) -> None:
    try:
        output.flush()
        os.fsync(output.fileno())
        output.close()
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


def _clean(output: IO[bytes], part: Path) -> None:
    # What it could not write is thrown away anyway.
    with suppress(OSError):
        output.close()
    part.unlink(missing_ok=True)


async def _write(output: IO[bytes], path: Path, lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    try:
        await trio.to_thread.run_sync(output.write, data)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
