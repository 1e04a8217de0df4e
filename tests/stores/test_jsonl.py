"""Sessions as files of JSON lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest
import trio

from agentloop import Agent, Approve, Permissions, tool
from agentloop._core.transcript import problems
from agentloop.errors import SequenceError, StoreError
from agentloop.events import (
    ApprovalRequested,
    MessageCommitted,
    Question,
    QuestionAnswered,
    Source,
    StreamEvent,
    StreamStarted,
    ToolCallStarted,
    TurnStarted,
)
from agentloop.journal import OpenStore, Record
from agentloop.messages import AssistantMessage, Text, ToolCall, UserMessage
from agentloop.stores import MemoryStore, answer_question, export_session, import_session, stored_session
from agentloop.testing import ScriptedModel, calls
from agentloop.wire import encode_event, event_type
from tests.stores.places import Place, record, records

pytestmark = pytest.mark.real_clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "session.jsonl"


async def fill(store: OpenStore) -> None:
    """A session with something of everything."""
    await store.append("s", [record(1, 'line\nbreak "é"'), Record(2, "spread", b'{\n  "a": 1\r\n}')], parent="above")
    await store.append("s", records(3, 5))
    await store.rename("s", "a title")
    await store.answer("s", "q1", b'{"yes":true}')


async def exported(file: Path) -> list[str]:
    """The lines of a small export."""
    async with MemoryStore().open() as store:
        await fill(store)
        assert await export_session(store, "s", file) == 5
    return file.read_text("utf-8").splitlines(keepends=True)


async def test_an_imported_session_equals_the_exported_one(place: Place, file: Path, tmp_path: Path) -> None:
    async with place.store().open() as store:
        await fill(store)
        await export_session(store, "s", file)
        before = await store.read("s")
        assert await import_session(store, file, session="t") == "t"
        after = await store.read("t")
        assert [msgspec.structs.replace(each, data=b"") for each in after] == [
            msgspec.structs.replace(each, data=b"") for each in before
        ]
        assert [msgspec.json.decode(each.data) for each in after] == [msgspec.json.decode(each.data) for each in before]
        assert await store.answers("t") == {"q1": b'{"yes":true}'}
        info = await store.info("t")
        assert info is not None
        assert (info.title, info.parent, info.records) == ("a title", "above", 5)


async def test_a_session_goes_from_one_store_to_another_under_its_own_id(place: Place, file: Path) -> None:
    await exported(file)
    async with place.store().open() as store:
        assert await import_session(store, file) == "s"
        assert len(await store.read("s")) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
async def test_an_export_is_private(file: Path) -> None:
    umask = os.umask(0o022)
    try:
        async with MemoryStore().open() as store:
            await fill(store)
            await export_session(store, "s", file)
    finally:
        os.umask(umask)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"], ids=["nul", "surrogate"])
async def test_a_name_that_no_file_can_have_is_an_error(name: str, tmp_path: Path) -> None:
    async with MemoryStore().open() as store:
        await fill(store)
        with pytest.raises(StoreError, match="cannot be written"):
            await export_session(store, "s", tmp_path / name)
        with pytest.raises(StoreError, match="cannot be read"):
            await import_session(store, tmp_path / name)


async def test_an_export_is_a_line_for_each_record(file: Path) -> None:
    lines = [msgspec.json.decode(line) for line in await exported(file)]
    assert lines[0]["agentloop"] == "session"
    assert lines[0]["version"] == 1
    assert [line["seq"] for line in lines[1:6]] == [1, 2, 3, 4, 5]
    assert lines[2]["data"] == {"a": 1}
    assert lines[6:] == [{"answer": "q1", "data": {"yes": True}}, {"end": 6}]


async def test_long_sessions_are_exported_whole(file: Path) -> None:
    async with MemoryStore().open() as store:
        await store.append("s", records(1, 2500))
        assert await export_session(store, "s", file) == 2500
        await import_session(store, file, session="t")
        assert await store.read("t") == records(1, 2500)


async def test_half_a_line_at_the_end_is_an_error_and_the_rest_can_be_imported(file: Path) -> None:
    lines = await exported(file)
    file.write_text("".join(lines[:4]) + lines[4][:10], "utf-8")
    async with MemoryStore().open() as store:
        with pytest.raises(
            StoreError, match=r"line 5: an incomplete line .* after 3 records.*whole_only=False"
        ) as caught:
            await import_session(store, file)
        assert str(file) in str(caught.value)
        assert await store.sessions() == []
        await import_session(store, file, whole_only=False)
        assert [each.seq for each in await store.read("s")] == [1, 2, 3]


@pytest.mark.parametrize("kept", range(2, 8))
async def test_missing_lines_at_the_end_are_an_error(file: Path, kept: int) -> None:
    lines = await exported(file)
    file.write_text("".join(lines[:kept]), "utf-8")
    async with MemoryStore().open() as store:
        with pytest.raises(StoreError, match=rf"line {kept}: the file has no last line"):
            await import_session(store, file)
        await import_session(store, file, whole_only=False)
        assert len(await store.read("s")) == min(kept - 1, 5)


async def test_an_export_that_breaks_off_anywhere_is_never_taken_for_whole(file: Path) -> None:
    whole = "".join(await exported(file)).encode()
    async with MemoryStore().open() as store:
        # Without its last line break, an export is still whole.
        for size in range(0, len(whole) - 1, 3):
            file.write_bytes(whole[:size])
            with pytest.raises(StoreError):
                await import_session(store, file)
        assert await store.sessions() == []


@pytest.mark.parametrize("whole_only", [True, False])
@pytest.mark.parametrize(
    ("place", "line", "problem"),
    [
        (3, "{]\n", "line 4: JSON is malformed"),
        (3, '{"seq":3,"kind":"k","data":' + "[" * 20_000 + "]" * 20_000 + "}\n", "line 4: it is nested too deeply"),
        (3, '{"seq":9,"kind":"k","data":{}}\n', "line 4: record 9 follows record 2"),
        (3, '{"what":1}\n', "line 4: Object contains unknown field `what`"),
        (7, '{"end":2}\n', "line 8: 2 lines should precede it, and 6 do"),
        (8, '{"end":6}\n', "line 9: more lines follow the last one"),
        (0, '{"seq":1}\n', "line 1: this is not an exported session"),
        (0, "\n", "line 1: this is not an exported session"),
        (0, '{"agentloop":"cassette","version":1}\n', "line 1: this is not an exported session but 'cassette'"),
        (0, '{"agentloop":"session","version":99}\n', r"newer agentloop: its format is version 99.*pip install -U"),
    ],
)
async def test_the_error_of_an_invalid_file_names_the_line(
    file: Path, place: int, line: str, problem: str, whole_only: bool
) -> None:
    lines = await exported(file)
    lines[place : place + 1] = [line]
    file.write_text("".join(lines), "utf-8")
    async with MemoryStore().open() as store:
        with pytest.raises(StoreError, match=problem) as caught:
            await import_session(store, file, whole_only=whole_only)
        assert str(file) in str(caught.value)
        assert await store.sessions() == []


async def test_a_session_without_records_is_nothing_to_import(file: Path) -> None:
    async with MemoryStore().open() as store:
        await fill(store)
        await store.fork("s", "empty", upto=0)
        await export_session(store, "empty", file)
        with pytest.raises(StoreError, match="the file has no records"):
            await import_session(store, file, session="t")


async def test_an_import_replaces_no_session(file: Path) -> None:
    await exported(file)
    async with MemoryStore().open() as store:
        await store.append("s", records(1, 1))
        with pytest.raises(SequenceError):
            await import_session(store, file)
        assert await store.read("s") == records(1, 1)


async def test_an_import_that_fails_half_way_leaves_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await exported(file)
    async with MemoryStore().open() as store:

        async def fail(*_: object) -> bool:
            raise StoreError("no more")

        monkeypatch.setattr(store, "answer", fail)
        with pytest.raises(StoreError, match="no more"):
            await import_session(store, file)
        assert await store.sessions() == []


async def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    async with MemoryStore().open() as store:
        with pytest.raises(StoreError, match=r"nowhere.jsonl cannot be read: No such file"):
            await import_session(store, tmp_path / "nowhere.jsonl")


async def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    async with MemoryStore().open() as store:
        await fill(store)
        with pytest.raises(StoreError, match=r"x.jsonl cannot be written: No such file"):
            await export_session(store, "s", tmp_path / "nowhere" / "x.jsonl")
        with pytest.raises(StoreError, match=r"cannot be written: Is a directory"):
            (tmp_path / "folder").mkdir()
            await export_session(store, "s", tmp_path / "folder")
        assert [each.name for each in tmp_path.iterdir()] == ["folder"]


async def test_an_export_that_fails_leaves_the_existing_file(file: Path) -> None:
    file.write_text("before")
    async with MemoryStore().open() as store:
        with pytest.raises(StoreError, match="there is no session 's'"):
            await export_session(store, "s", file)
        await store.append("s", [record(1), Record(2, "k", b"{]")])
        with pytest.raises(StoreError, match="record 2 of session 's' is not JSON"):
            await export_session(store, "s", file)
        with trio.CancelScope() as scope:
            scope.cancel()
            await export_session(store, "s", file)
    assert file.read_text() == "before"
    assert [each.name for each in file.parent.iterdir()] == [file.name]


# ----------------------------------------------------------------------------- approvals


def agent_that_deletes(ran: list[str]) -> Agent:
    @tool(requires_approval=True)
    async def delete(path: str) -> str:
        """Delete a file."""
        ran.append(path)
        return "deleted"

    return Agent(ScriptedModel(calls("delete", path="/"), "Done."), tools=[delete])


async def for_good(question: Question) -> Approve:
    return Approve(always=True)


@pytest.mark.parametrize("approvals", [False, True])
async def test_a_call_that_was_approved_for_good_is_asked_about_again_where_the_session_is_imported(
    file: Path, approvals: bool
) -> None:
    ran: list[str] = []
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await agent_that_deletes(ran).run("go", session=session, on_question=for_good)
        await export_session(store, "s", file)
    ran.clear()
    async with MemoryStore().open() as store:
        await import_session(store, file, approvals=approvals)
        async with stored_session(store, "s") as session:
            assert bool(session.grants) is approvals
            await agent_that_deletes(ran).run("again", session=session, on_question="decline")
    assert bool(ran) is approvals


@pytest.mark.parametrize("approvals", [False, True])
async def test_what_a_session_forbids_is_imported_and_what_it_allows_only_with_approvals(
    file: Path, approvals: bool
) -> None:
    permissions = Permissions(allow=["a"], ask=["b"], deny=["c"], mode="autonomous")
    async with MemoryStore().open() as store:
        async with stored_session(store, "s", permissions=permissions) as session:
            await Agent(ScriptedModel("Hello.")).run("go", session=session)
        await export_session(store, "s", file)
    async with MemoryStore().open() as store:
        await import_session(store, file, approvals=approvals)
        async with stored_session(store, "s") as session:
            assert session.permissions == (permissions if approvals else Permissions(ask=["b"], deny=["c"]))


@pytest.mark.parametrize("approvals", [False, True])
@pytest.mark.parametrize("how", ["answered ahead", "answered in the run that was cut off"])
async def test_an_approval_of_a_parked_call_is_asked_for_again_where_the_session_is_imported(
    file: Path, approvals: bool, how: str
) -> None:
    ran: list[str] = []
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            agent = agent_that_deletes(ran)
            parked = await agent.run("go", session=session, on_question="park")
        [question] = parked.questions
        assert isinstance(question, ApprovalRequested)
        if how == "answered ahead":
            await answer_question(store, "s", question.id, Approve())
        else:
            info = await store.info("s")
            assert info is not None
            # As a run leaves it that was resumed with the answer, and died before the tool began.
            started = StreamStarted(
                Source("s", "s/9", ("agent",)),
                90,
                message=UserMessage((Text("go"),)),
                model="scripted",
                resumes=question.stream,
            )
            source = started.source
            call = ToolCallStarted(source, 92, call_id=question.call_id, name="delete", arguments='{"path":"/"}')
            events: list[StreamEvent] = [
                started,
                TurnStarted(source, 91, turn=1),
                call,
                msgspec.structs.replace(question, source=source, seq=93),
                QuestionAnswered(source, 94, id=question.id, answer=Approve(), by="reader"),
            ]
            await store.append(
                "s",
                [
                    Record(info.records + n, event_type(event), encode_event(event), "s/9", getattr(event, "id", ""))
                    for n, event in enumerate(events, 1)
                ],
            )
        await export_session(store, "s", file)
    async with MemoryStore().open() as store:
        await import_session(store, file, approvals=approvals)
        async with stored_session(store, "s") as session:
            outcome = await agent.resume(session, on_question="park")
            assert (outcome.reason == "needs_input") is not approvals or ran == ["/"]
    assert bool(ran) is approvals


async def test_a_transcript_that_a_provider_would_refuse_is_not_imported(file: Path) -> None:
    source = Source("s", "s/1", ("agent",))
    call = AssistantMessage((ToolCall("c", "delete", "{}"),), "tool_calls", "m")
    started = StreamStarted(source, 1, message=UserMessage((Text("go"),)), model="m")
    events: list[StreamEvent] = [
        started,
        MessageCommitted(source, 2, message=started.message, index=0),
        MessageCommitted(source, 3, message=call, index=1),
    ]
    async with MemoryStore().open() as store:
        await store.append("s", [Record(n, event_type(e), encode_event(e), "s/1") for n, e in enumerate(events, 1)])
        await export_session(store, "s", file)
    async with MemoryStore().open() as store:
        with pytest.raises(StoreError, match=r"a provider would refuse its transcript: .* call 'c' has no"):
            await import_session(store, file)
        await import_session(store, file, whole_only=False)
        async with stored_session(store, "s") as session:
            assert session.messages == (started.message,)


async def test_wherever_a_session_of_calls_side_by_side_breaks_off_what_is_left_of_it_goes_on(file: Path) -> None:
    """The file is cut after each of its lines: no part of a turn may be imported."""

    @tool
    async def look() -> str:
        """Look."""
        return "blue"

    two = calls("look") + calls("look") + calls("look")
    agent = Agent(ScriptedModel(two, "Blue.", two, "Still blue."), tools=[look])
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session:
            await agent.run("go", session=session)
            await agent.run("again", session=session)
        await export_session(store, "s", file)
    lines = file.read_text("utf-8").splitlines(keepends=True)
    for kept in range(2, len(lines)):
        file.write_text("".join(lines[:kept]), "utf-8")
        async with MemoryStore().open() as store:
            await import_session(store, file, whole_only=False)
            async with stored_session(store, "s") as session:
                assert problems(session.messages) == []
                model = ScriptedModel("Well.")
                assert (await Agent(model, tools=[look]).run("Well?", session=session)).output == "Well."
