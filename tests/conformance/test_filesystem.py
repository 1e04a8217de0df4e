"""The reference server of files: what an agent most often does with MCP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentloop import Approve, Deny, Stream
from agentloop.events import ApprovalRequested, StreamEvent
from agentloop.mcp import McpServer
from agentloop.messages import Image, Text
from agentloop.testing import calls
from agentloop.toolsets import Toolsets
from tests.conformance.conftest import FILESYSTEM, NODE
from tests.conformance.test_everything import in_order
from tests.mcp.support import results, watched
from tests.support import of

pytestmark = [pytest.mark.real_clock, pytest.mark.seconds(60)]


def files(*folders: Path, **options: Any) -> McpServer:
    return McpServer.stdio(NODE, FILESYSTEM, *map(str, folders), name="files", **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    (folder / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    return folder


async def test_files_are_written_edited_listed_and_read(folder: Path) -> None:
    path = str(folder / "b.txt")
    seen = await watched(
        files(folder),
        calls("write_file", path=path, content="é\nline 2\n"),
        calls("edit_file", path=path, edits=[{"oldText": "line 2", "newText": "line two"}]),
        calls("list_directory", path=str(folder)) + calls("read_text_file", path=path, head=1),
    )
    written, edited, listed, read = in_order(seen.events)
    assert written.text == f"Successfully wrote to {path}"
    assert "+line two" in edited.text
    assert listed.parts == (Text("[FILE] a.txt\n[FILE] b.txt"),)
    assert read.parts == (Text("é"),)
    assert (folder / "b.txt").read_text(encoding="utf-8") == "é\nline two\n"


async def test_what_is_read_is_told_once(folder: Path) -> None:
    """The server says it twice, the second time as an object around the content."""
    (folder / "a.png").write_bytes(b"\x89PNG" + bytes(1000))
    turn = calls("read_text_file", path=str(folder / "a.txt")) + calls("read_media_file", path=str(folder / "a.png"))
    text, image = in_order((await watched(files(folder), turn)).events)
    assert text.parts == (Text("one\ntwo\n"),)
    assert image.parts == (Image(data=b"\x89PNG" + bytes(1000), media_type="image/png"),)


async def test_what_is_outside_of_its_folder_is_an_error_for_the_model(folder: Path) -> None:
    outside = folder.parent / "outside.txt"
    outside.write_text("secret", encoding="utf-8")
    (folder / "link").symlink_to(outside)
    seen = await watched(
        files(folder),
        calls("read_text_file", path=str(outside))
        + calls("read_text_file", path=str(folder / "link"))
        + calls("write_file", path=str(folder / ".." / "new.txt"), content="x")
        + calls("read_text_file", path=str(folder / "nothing.txt"))
        + calls("read_text_file", path=str(folder / "a.txt")),
    )
    *refused, fine = in_order(seen.events)
    assert [result.status for result in refused] == ["error"] * 4
    assert all("Access denied" in result.text for result in refused[:3])
    assert "ENOENT" in refused[3].text
    assert fine.text == "one\ntwo\n"
    assert not (folder.parent / "new.txt").exists()
    assert seen.outcome.reason == "completed"


async def test_roots_say_where_it_may_work(folder: Path) -> None:
    async with Toolsets(files(roots=[folder])) as shared:
        # It asks for them once it is started, and works meanwhile.
        allowed = ""
        while str(folder) not in allowed:
            allowed = results(await watched(shared, calls("list_allowed_directories")))["list_allowed_directories"].text
        seen = await watched(shared, calls("read_text_file", path=str(folder / "a.txt")))
    assert results(seen)["read_text_file"].text == "one\ntwo\n"


async def test_an_agent_gets_the_tools_that_it_may_have(folder: Path) -> None:
    async with files(folder, allow=["read_*", "write_*"], deny=["*_media_*"], prefix="fs_").open() as opened:
        tools = {tool.name: tool for tool in await opened.list_tools()}
    assert set(tools) == {"fs_read_file", "fs_read_text_file", "fs_read_multiple_files", "fs_write_file"}
    assert (tools["fs_read_file"].read_only, tools["fs_read_file"].destructive) == (True, None)
    assert (tools["fs_write_file"].read_only, tools["fs_write_file"].destructive) == (False, True)


@pytest.mark.parametrize("agrees", [True, False])
async def test_a_person_may_be_asked_before_it_writes(folder: Path, *, agrees: bool) -> None:
    path = folder / "new.txt"

    def decide(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ApprovalRequested):
            assert event.arguments == {"path": str(path), "content": "x"}
            stream.answer(event.id, Approve() if agrees else Deny("not there"))

    server = files(folder, requires_approval=lambda arguments: "content" in arguments)
    turn = calls("write_file", path=str(path), content="x") + calls("list_directory", path=str(folder))
    seen = await watched(server, turn, on_event=decide)
    assert [event.name for event in of(seen.events, ApprovalRequested)] == ["write_file"]
    assert path.exists() is agrees
    assert results(seen)["write_file"].status == ("ok" if agrees else "denied")


async def test_ten_of_them_start_serve_and_stop_at_once(tmp_path: Path) -> None:
    folders = [tmp_path / str(n) for n in range(10)]
    for folder in folders:
        folder.mkdir()
    servers = [files(folder, prefix=f"f{n}_") for n, folder in enumerate(folders)]
    turn = calls("f0_write_file", path=str(folders[0] / "x"), content="0")
    for n in range(1, 10):
        turn += calls(f"f{n}_write_file", path=str(folders[n] / "x"), content=str(n))
    async with Toolsets(*servers) as shared:
        seen = await watched(shared, turn)
    assert {result.status for result in results(seen).values()} == {"ok"}
    assert [(folder / "x").read_text(encoding="utf-8") for folder in folders] == [str(n) for n in range(10)]
