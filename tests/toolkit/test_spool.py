"""A folder that is there as long as the stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentloop import Agent, Tool
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import SpoolDirectory, file_tools, shell
from tests.support import opened
from tests.toolkit.builders import names_in

pytestmark = pytest.mark.real_clock


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


async def test_what_a_result_left_out_can_be_read_until_the_stream_ends(temporary: Path) -> None:
    def tools(folder: Path) -> list[Tool]:
        kept = shell(keep_in=folder, max_chars=100, requires_approval=False)
        return [kept, *file_tools(temporary, also_read=[folder])]

    agent = Agent(
        ScriptedModel(calls("shell", command="seq 1000"), calls("search_files", pattern="^567$"), "Done."),
        toolsets=[SpoolDirectory(tools)],
    )
    async with opened(agent) as stream:
        async for _ in stream:
            pass
        shown = stream.result.messages

    assert "the whole is in" in shown[2].text
    assert shown[4].text.startswith("agentloop-")
    assert shown[4].text.endswith(".txt:567:567")
    assert names_in(temporary) == []


async def test_each_stream_has_its_own_and_leaves_nothing_when_it_is_left(temporary: Path) -> None:
    folders: list[Path] = []

    def tools(folder: Path) -> list[Tool]:
        folders.append(folder)
        (folder / "file").touch()
        return []

    agent = Agent(ScriptedModel("One.", "Two."), toolsets=[SpoolDirectory(tools, name="mine")])
    async with agent.stream("go") as one, agent.stream("go") as two:
        async for _ in one:
            pass
        async for _ in two:
            break

    assert len(set(folders)) == 2
    assert names_in(temporary) == []


async def test_tools_that_cannot_be_made_leave_no_folder(temporary: Path) -> None:
    def broken(folder: Path) -> list[Tool]:
        raise ValueError("broken")

    agent = Agent(ScriptedModel("One."), toolsets=[SpoolDirectory(broken)])

    with pytest.raises(Exception, match="'scratch' failed to start: ValueError: broken"):
        await agent.run("go")

    assert names_in(temporary) == []
