"""Export a session to a file of JSON lines, and import it into another store.

The first line identifies the format, each further line is a record or an answer, and the last line has the number of
lines before it, so that a truncated file is noticed::

    {"agentloop":"session","version":1,"id":"s1","title":"","created":1.0,"parent":""}
    {"seq":1,"kind":"user","data":{"text":"hi"},"at":1.0}
    {"answer":"q1","data":{"yes":true}}
    {"end":2}
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import IO

import msgspec
import trio
from attrs import define, field

from agentloop._core.json_text import decode_own
from agentloop._core.permissions import without_allowing
from agentloop._core.redaction import visible
from agentloop._core.state import LimitRaised, SessionSettings, SessionState, StreamState
from agentloop._core.transcript import problems
from agentloop._runtime.blocks import check_open_store
from agentloop.errors import StoreError
from agentloop.events import QuestionAnswered, QuestionWithdrawn
from agentloop.journal import OpenStore, Record
from agentloop.questions import Answer, Approve
from agentloop.stores._checks import no_such_session
from agentloop.stores._replay import Replay, decode_fact, encode_note
from agentloop.wire import encode_event, event_type

__all__ = ["VERSION", "export_session", "import_session"]

VERSION = 1
"""The version of the format."""

PAGE = 1000
"""Records that one read of the store asks for."""


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
    """The number of lines between the first and this one."""


async def export_session(store: OpenStore, session: str, file: str | PathLike[str], /) -> int:
    """Write a session to ``file``, replacing it.

    The export is written beside the file and renamed at the end, so a cancelled or failed call leaves the old file.

    Args:
      store: the open store to read from.
      session: the session's id.
      file: the path of the file.

    Returns:
      The number of records in the file.

    Raises:
      StoreError: the session does not exist, a record of it is not JSON, or the file cannot be written.
    """
    check_open_store(store)
    path = Path(file)
    info = await store.info(session)
    if info is None:
        raise no_such_session(session)
    header = _Session("session", VERSION, info.id, info.title, info.created, info.parent)
    seq = 0
    async with _replaced(path) as output:
        await _write(output, path, [msgspec.json.encode(header)])
        # Up to the records of now, should the session grow meanwhile.
        while seq < info.records:
            records = await store.read(session, after=seq, limit=min(PAGE, info.records - seq))
            if not records:
                raise no_such_session(session)
            lines = [
                msgspec.json.encode(
                    _RecordLine(
                        record.seq,
                        record.kind,
                        _on_one_line(record.data, f"record {record.seq}", session),
                        record.stream,
                        record.key,
                        record.at,
                    )
                )
                for record in records
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
    store: OpenStore,
    file: str | PathLike[str],
    /,
    *,
    session: str | None = None,
    whole_only: bool = True,
    approvals: bool = False,
) -> str:
    """Import a session that `export_session` wrote to ``file``: all of it, or nothing.

    Args:
      store: the open store to write to.
      file: the path of the file.
      session: an id for the session, instead of the exported one.
      whole_only: ``False`` imports a truncated file up to its last complete turn.
      approvals: ``True`` also imports what people have approved: calls for good (``Approve.always``), single calls of a
        run that is parked, and raised limits; and the model that they have chosen. Only for a file whose author may
        approve calls here. Otherwise the person who resumes the session is asked anew.

    Returns:
      The id of the new session.

    Raises:
      StoreError: the file cannot be read, is not an export, is of a newer version, or is truncated; or a record in it
        cannot be decoded, or a provider would refuse its transcript.
      SequenceError: the id is in use: give another with ``session``.
    """
    check_open_store(store)
    path = Path(file)
    exported = await trio.to_thread.run_sync(_read, path, whole_only)
    if not exported.records:
        raise StoreError(f"{path}: the file has no records, so there is nothing to import")
    id = exported.header.id if session is None else session
    await trio.to_thread.run_sync(_check, path, exported, whole_only, approvals)
    await store.append(id, exported.records, parent=exported.header.parent)
    try:
        if exported.header.title:
            await store.rename(id, exported.header.title)
        for question, data in exported.answers.items():
            await store.answer(id, question, data)
    except BaseException:
        with trio.CancelScope(shield=True):
            await store.delete(id)
        raise
    return id


@define
class _Export:
    header: _Session
    records: list[Record] = field(factory=list[Record])
    answers: dict[str, bytes] = field(factory=dict[str, bytes])


def _check(path: Path, export: _Export, whole_only: bool, approvals: bool) -> None:
    """Make the records a session that providers accept, without approvals unless they are wanted.

    Raises:
      StoreError: they cannot be made one.
    """
    state = _replayed(path, export)
    refused = _problems(state)
    while refused and not whole_only:
        # The file breaks off inside a turn, whose messages are one record each.
        last = max((i for i, record in enumerate(export.records) if record.kind == "message_committed"), default=0)
        del export.records[last:]
        state = _replayed(path, export)
        refused = _problems(state)
    if refused:
        raise StoreError(f"{path}: a provider would refuse its transcript: {'; '.join(refused)}")
    if not approvals:
        approved = _approved_questions(state.resumable)
        export.records[:] = [_without_approvals(record, approved) for record in export.records]
        export.answers = {id: data for id, data in export.answers.items() if not _approves(data)}


def _replayed(path: Path, export: _Export) -> SessionState:
    replay = Replay(export.header.id)
    try:
        replay.read(export.records)
        replay.check()
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error
    return replay.state


def _problems(state: SessionState) -> list[str]:
    closing = () if state.resumable is None else state.resumable.closing
    return problems((*state.messages, *closing))


def _approved_questions(run: StreamState | None) -> frozenset[str]:
    """Ids of the questions of an unfinished run, and of its children, that were answered with an approval."""
    approved: set[str] = set()
    runs = [] if run is None else [run]
    while runs:
        run = runs.pop()
        calls = run.calls.values()
        records = [*run.questions.records, *(record for call in calls for record in call.all_questions)]
        approved.update(record.question.id for record in records if isinstance(record.answer, Approve))
        runs += [*(child for call in calls for child in call.children), *run.background.values()]
    return frozenset(approved)


def _without_approvals(record: Record, approved: Collection[str]) -> Record:
    """``record`` without grants, raised limits, allow rules, and the approval of a question among ``approved``."""
    if record.kind not in _MAY_APPROVE:
        return record
    fact = decode_fact(record)
    match fact:
        case SessionSettings(permissions=permissions):
            stricter = None if permissions is None else without_allowing(permissions)
            settings = msgspec.structs.replace(fact, grants=(), permissions=stricter, model="", reasoning_effort=None)
            return record if settings == fact else msgspec.structs.replace(record, data=encode_note(settings))
        case LimitRaised():
            return msgspec.structs.replace(record, data=encode_note(msgspec.structs.replace(fact, allowed=0.0)))
        case QuestionAnswered(source=source, seq=seq, id=id) if id in approved:
            # A question that is withdrawn is asked anew.
            withdrawn = QuestionWithdrawn(source, seq, id=id)
            return msgspec.structs.replace(record, kind=event_type(withdrawn), data=encode_event(withdrawn))
        case _:
            return record


_MAY_APPROVE = frozenset({SessionSettings.kind, LimitRaised.kind, "question_answered"})


def _approves(data: bytes) -> bool:
    try:
        return isinstance(decode_own(data, Answer), Approve)
    except msgspec.DecodeError:
        return False


def _read(path: Path, whole_only: bool) -> _Export:
    try:
        with path.open("rb") as lines:
            return _parsed(path, lines, whole_only)
    except (OSError, ValueError) as error:  # a name with a NUL, or that cannot be encoded
        raise StoreError(f"{visible(str(path))} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _parsed(path: Path, lines: Iterator[bytes], whole_only: bool) -> _Export:
    export = _Export(_header(path, next(lines, b"")))
    number, ended, problem = 1, False, ""
    for line in lines:
        number += 1
        if ended:
            raise StoreError(f"{path}, line {number}: more lines follow the last one: this is not an export")
        try:
            value = _line(line)
        except msgspec.DecodeError as error:
            if line.endswith(b"\n"):
                raise StoreError(
                    f"{path}, line {number}: {error}: the file is damaged; export the session again"
                ) from error
            problem = f"{path}, line {number}: an incomplete line ({error})"
            break
        if isinstance(value, _RecordLine):
            if value.seq != len(export.records) + 1:
                raise StoreError(
                    f"{path}, line {number}: record {value.seq} follows record {len(export.records)}: "
                    "the file is damaged; export the session again"
                )
            data = bytes(value.data)
            export.records.append(Record(value.seq, value.kind, data, value.stream, value.key, value.at))
        elif isinstance(value, _AnswerLine):
            export.answers[value.answer] = bytes(value.data)
        else:
            ended = True
            if value.end != number - 2:
                raise StoreError(
                    f"{path}, line {number}: {value.end} lines should precede it, and {number - 2} do: "
                    "the file is damaged; export the session again"
                )
    if not ended:
        problem = problem or f"{path}, line {number}: the file has no last line"
        if whole_only:
            raise StoreError(
                f"{problem}: the file is truncated after {len(export.records)} records. Export the session again, or "
                "import the records with whole_only=False"
            )
    return export


def _header(path: Path, line: bytes) -> _Session:
    try:
        header = decode_own(line, _Header)
        is_ours = header.agentloop == "session"
        if is_ours and header.version <= VERSION:
            return decode_own(line, _Session)
    except msgspec.DecodeError as error:
        raise StoreError(f"{path}, line 1: this is not an exported session ({error}): give another file") from error
    if not is_ours:
        raise StoreError(f"{path}, line 1: this is not an exported session but {header.agentloop!r}: give another file")
    raise StoreError(
        f"{path} was written by a newer agentloop: its format is version {header.version}, and this one knows "
        f"versions up to {VERSION}. Update agentloop (pip install -U agentloop-trio)"
    )


def _line(line: bytes) -> _RecordLine | _AnswerLine | _EndLine:
    if line.startswith(b'{"seq"'):
        return decode_own(line, _RecordLine)
    if line.startswith(b'{"answer"'):
        return decode_own(line, _AnswerLine)
    return decode_own(line, _EndLine)


def _on_one_line(data: bytes, subject: str, session: str) -> msgspec.Raw:
    try:
        decode_own(data)
    except msgspec.DecodeError as error:
        raise StoreError(f"{subject} of session {session!r} is not JSON, and cannot be exported: {error}") from error
    return msgspec.Raw(msgspec.json.format(data, indent=-1) if b"\n" in data or b"\r" in data else data)


@asynccontextmanager
async def _replaced(path: Path) -> AsyncGenerator[IO[bytes]]:
    """A file to write to, which replaces ``path`` if the block succeeds."""
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        # Private, as a store is: an export has what people say.
        output = await trio.to_thread.run_sync(lambda: open(part, "wb", opener=_private))  # noqa: SIM115
    except (OSError, ValueError) as error:  # a name with a NUL, or that cannot be encoded
        raise StoreError(
            f"{visible(str(path))} cannot be written: {getattr(error, 'strerror', None) or error}"
        ) from error
    try:
        yield output
        await trio.to_thread.run_sync(_finish, output, part, path)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_clean, output, part)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _finish(output: IO[bytes], part: Path, path: Path) -> None:
    try:
        output.flush()
        os.fsync(output.fileno())
        output.close()
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


def _clean(output: IO[bytes], part: Path) -> None:
    # A failed flush does not matter: the file is removed.
    with suppress(OSError):
        output.close()
    part.unlink(missing_ok=True)


async def _write(output: IO[bytes], path: Path, lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    try:
        await trio.to_thread.run_sync(output.write, data)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
