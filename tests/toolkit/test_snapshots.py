"""What turns did to a folder is listed, shown and undone, in a git repository and elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from agentloop import Agent, tool
from agentloop.__main__ import main
from agentloop.errors import ToolError, UsageError
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import FileChange, Snapshots, TurnChanges

pytestmark = [pytest.mark.real_clock, pytest.mark.skipif(sys.platform == "win32", reason="paths cannot be confined")]

GIT = (
    "git",
    "-c",
    "user.name=a",
    "-c",
    "user.email=a@b",
    "-c",
    "commit.gpgsign=false",
    "-c",
    "init.defaultBranch=main",
)


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run([*GIT, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(params=["git", "copies"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a few files, in a git repository or in none."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "kept.txt").write_text("kept\n")
    (folder / "old.txt").write_text("one\ntwo\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "gone.bin").write_bytes(b"\0\xff\r\n")
    if request.param == "git":
        if shutil.which("git") is None:
            pytest.skip("git is not installed")
        git(folder, "init", "--quiet")
        (folder / ".gitignore").write_text("ignored\n")
        git(folder, "add", "-A")
        git(folder, "commit", "--quiet", "-m", "first")
    return folder


def snapshots(folder: Path) -> Snapshots:
    return Snapshots(folder, store=folder.parent / "store")


async def run(files: Snapshots, *turns: Callable[[], object]) -> None:
    """Run an agent that does one thing in each turn."""
    todo = list(turns)

    @tool
    async def act() -> str:
        todo.pop(0)()
        return "done"

    agent = Agent(ScriptedModel(*[calls("act") for _ in turns], "Done."), tools=[act], hooks=files.hooks)
    await agent.run("go")


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The files of a folder, with their modes."""
    found: dict[str, tuple[int, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/", maxsplit=1)[0] == ".git":
            continue
        if path.is_symlink():
            found[name] = (0, os.fsencode(path.readlink()))
        elif path.is_file():
            found[name] = (path.stat().st_mode, path.read_bytes())
    return found


def paths(turn: TurnChanges) -> dict[str, str]:
    return {change.path: change.kind for change in turn.files}


async def test_a_turn_is_listed_shown_and_undone_to_the_last_byte(folder: Path) -> None:
    before = state(folder)
    files = snapshots(folder)

    def change() -> None:
        (folder / "old.txt").write_text("one\nthree\n")
        (folder / "sub" / "gone.bin").unlink()
        (folder / "sub").rmdir()
        (folder / "new").mkdir()
        (folder / "new" / "deep.txt").write_text("fresh")
        (folder / "link").symlink_to("/etc/passwd")
        (folder / "kept.txt").chmod(0o755)

    await run(files, change)
    [turn] = await files.turns()
    assert paths(turn) == {
        "kept.txt": "changed",
        "link": "added",
        "new/deep.txt": "added",
        "old.txt": "changed",
        "sub/gone.bin": "deleted",
    }
    assert (turn.id, turn.turn, turn.is_open, turn.is_undone) == (1, 1, False, False)
    diff = await files.diff()
    assert "--- a/old.txt\n+++ b/old.txt\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n" in diff
    assert "+fresh\n\\ No newline at end of file\n" in diff
    assert "sub/gone.bin: deleted, no text\n" in diff
    assert "kept.txt: changed, the mode from 100644 to 100755\n" in diff
    done = await files.undo()
    assert FileChange("sub/gone.bin", "added") in done
    assert FileChange("new/deep.txt", "deleted") in done
    assert state(folder) == before
    assert not (folder / "new").exists()
    [turn] = await files.turns()
    assert turn.is_undone
    with pytest.raises(UsageError, match="was undone already"):
        await files.undo(turn.id)
    with pytest.raises(UsageError, match="no turn that changed a file"):
        await files.undo()


async def test_turns_are_undone_one_by_one_and_what_was_changed_since_is_kept(folder: Path) -> None:
    files = snapshots(folder)
    old = folder / "old.txt"
    await run(
        files,
        lambda: old.write_text("first"),
        lambda: None,
        lambda: (folder / "b").write_text("second"),
        lambda: old.write_text("third"),
    )
    turns = await files.turns()
    assert [(turn.turn, [change.path for change in turn.files]) for turn in turns] == [
        (4, ["old.txt"]),
        (3, ["b"]),
        (1, ["old.txt"]),
    ]
    with pytest.raises(UsageError, match=r"files were changed again after it: old\.txt"):
        await files.undo(turns[2].id)
    assert old.read_text() == "third"
    await files.undo(turns[1].id)
    assert not (folder / "b").exists()
    await files.undo()
    assert old.read_text() == "first"
    (folder / "kept.txt").write_text("a person's")
    await files.undo()
    assert old.read_text() == "one\ntwo\n"
    assert (folder / "kept.txt").read_text() == "a person's"


async def test_by_force_a_turn_is_undone_over_later_changes(folder: Path) -> None:
    files = snapshots(folder)
    await run(files, lambda: (folder / "old.txt").write_text("first"))
    (folder / "old.txt").write_text("a person's")
    with pytest.raises(UsageError, match="changed again"):
        await files.undo()
    assert await files.undo(force=True) == [FileChange("old.txt", "changed")]
    assert (folder / "old.txt").read_text() == "one\ntwo\n"


async def test_a_file_becomes_a_folder_and_a_folder_a_link_and_both_come_back(folder: Path) -> None:
    before = state(folder)
    files = snapshots(folder)
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "gone.bin").write_text("not yours")

    def change() -> None:
        (folder / "old.txt").unlink()
        (folder / "old.txt").mkdir()
        (folder / "old.txt" / "inner").write_text("x")
        shutil.rmtree(folder / "sub")
        (folder / "sub").symlink_to(outside)

    await run(files, change)
    await files.undo()
    assert state(folder) == before
    assert state(outside) == {"gone.bin": ((outside / "gone.bin").stat().st_mode, b"not yours")}


async def test_nothing_outside_of_the_folder_is_touched_by_an_undo(folder: Path) -> None:
    files = snapshots(folder)
    await run(files, lambda: (folder / "sub" / "gone.bin").write_text("changed"))
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "gone.bin").write_text("not yours")
    # A person, or a rival, puts a link in the way afterwards.
    shutil.rmtree(folder / "sub")
    (folder / "sub").symlink_to(outside)
    with pytest.raises(ToolError, match=r"'sub' in .* is a link, or no folder: 'sub/gone.bin' stays"):
        await files.undo(force=True)
    assert (outside / "gone.bin").read_text() == "not yours"


async def test_names_that_are_no_text_come_back(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n-x")
    (folder / name).write_text("odd")
    before = state(folder)
    files = snapshots(folder)
    await run(files, (folder / name).unlink)
    [turn] = await files.turns()
    assert paths(turn) == {"caf\\xe9\\x0a-x": "deleted"}
    await files.undo()
    assert state(folder) == before


async def test_what_a_child_changes_belongs_to_the_turn_that_called_it(folder: Path) -> None:
    files = snapshots(folder)

    @tool
    async def write() -> str:
        (folder / "by-child").write_text("x")
        return "written"

    child = Agent(ScriptedModel(calls("write"), "Done."), name="child", tools=[write])
    lead = Agent(
        ScriptedModel(calls("child", prompt="go"), "Done."), name="lead", tools=[child.as_tool()], hooks=files.hooks
    )
    await lead.run("go")
    [turn] = await files.turns()
    assert (turn.source.agents, paths(turn)) == (("lead",), {"by-child": "added"})


async def test_a_turn_that_goes_on_is_in_the_list_and_is_not_undone(folder: Path) -> None:
    files = snapshots(folder)
    other = snapshots(folder)
    began, go_on = trio.Event(), trio.Event()

    @tool
    async def act() -> str:
        (folder / "old.txt").write_text("in the middle")
        began.set()
        await go_on.wait()
        return "done"

    agent = Agent(ScriptedModel(calls("act"), "Done."), tools=[act], hooks=files.hooks)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.run, "go")
        await began.wait()
        [turn] = await other.turns()
        assert (turn.is_open, paths(turn)) == (True, {"old.txt": "changed"})
        for call in (other.undo, other.clear):
            with pytest.raises(UsageError, match="goes on"):
                await call()
        go_on.set()
    [turn] = await other.turns()
    assert not turn.is_open
    await other.clear()
    assert await files.turns() == []
    await run(files, lambda: (folder / "old.txt").write_text("after"))
    assert len(await files.turns()) == 1


KILLED = """
import os, signal, sys
import trio
from agentloop import Agent, tool
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import Snapshots

@tool
async def act() -> str:
    open("old.txt", "w").write("cut off")
    os.kill(os.getpid(), signal.SIGKILL)

files = Snapshots(".", store="../store")
trio.run(Agent(ScriptedModel(calls("act")), tools=[act], hooks=files.hooks).run, "go")
"""


async def test_after_a_kill_another_process_lists_and_undoes_the_turn(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await trio.run_process([sys.executable, "-c", KILLED], cwd=folder, check=False)
    assert process.returncode == -9
    # What a person changes afterwards is not the turn's: the next turn has closed it.
    files = snapshots(folder)
    await run(files, lambda: (folder / "later").write_text("x"))
    later, cut_off = await files.turns()
    assert (paths(later), paths(cut_off)) == ({"later": "added"}, {"old.txt": "changed"})
    assert not cut_off.is_open

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(
            sys, "argv", ["agentloop", "snapshots", str(folder), *arguments, f"--store={folder.parent}/store"]
        )
        code = main()
        out, err = capsys.readouterr()
        return code, out, err

    code, listed, _ = await trio.to_thread.run_sync(command)
    assert code == 0
    assert [line.split("  ")[2] for line in listed.splitlines()] == ["agent: added later", "agent: changed old.txt"]
    assert "-one\n-two\n+cut off\n" in (await trio.to_thread.run_sync(command, "diff", "1"))[1]
    assert await trio.to_thread.run_sync(command, "undo", "1") == (0, "changed old.txt\n", "")
    assert (folder / "old.txt").read_text() == "one\ntwo\n"
    code, _, problem = await trio.to_thread.run_sync(command, "undo", "9")
    assert (code, problem.startswith("agentloop: there is no turn 9 in ")) == (2, True)


async def test_large_and_ignored_files_are_left_out(folder: Path) -> None:
    files = Snapshots(folder, store=folder.parent / "store", ignore=["ignored"], max_bytes=100)
    await run(
        files,
        lambda: ((folder / "ignored").write_text("x"), (folder / "large").write_bytes(bytes(101))),
    )
    assert await files.turns() == []


async def test_the_store_may_be_in_the_folder_where_it_is_ignored(folder: Path) -> None:
    files = Snapshots(folder, store=folder / "ignored", ignore=["ignored"])
    await run(files, lambda: (folder / "a").write_text("x"))
    [turn] = await files.turns()
    assert paths(turn) == {"a": "added"}


async def test_a_snapshot_that_cannot_be_taken_refuses_the_call(folder: Path) -> None:
    files = snapshots(folder)
    (folder.parent / "store").write_text("in the way")
    done: list[str] = []
    agent_says = ScriptedModel(calls("act"), "Done.")

    @tool
    async def act() -> str:
        done.append("acted")
        return "done"

    outcome = await Agent(agent_says, tools=[act], hooks=files.hooks).run("go")
    assert not done
    assert any("snapshots of" in message.text for message in outcome.messages if hasattr(message, "call_id"))


async def test_the_repository_of_the_folder_stays_as_it_is(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git(tmp_path, "init", "--quiet", "top")
    top = tmp_path / "top"
    (top / ".gitattributes").write_text("*.txt text eol=crlf filter=shout\n")
    (top / ".gitignore").write_text("ignored\n")
    (top / "a.txt").write_bytes(b"one\r\n")
    (top / "part").mkdir()
    (top / "part" / "b.txt").write_bytes(b"two\n")
    git(top, "add", "-A")
    git(top, "commit", "--quiet", "-m", "first")
    # Content filters of the user's configuration must not run.
    git(top, "config", "filter.shout.clean", "tr a-z A-Z")
    (top / "part" / "staged").write_text("staged")
    git(top, "add", "part/staged")
    before = (git(top, "status", "--porcelain"), (top / ".git" / "index").read_bytes(), git(top, "stash", "list"))
    folder = top / "part"
    files = Snapshots(folder, store=tmp_path / "store")

    def change() -> None:
        (folder / "b.txt").write_bytes(b"mixed\r\nends\n")
        (folder / "ignored").write_text("x")
        (top / "a.txt").write_text("not in this folder")

    await run(files, change)
    [turn] = await files.turns()
    assert paths(turn) == {"b.txt": "changed"}
    await files.undo()
    assert (folder / "b.txt").read_bytes() == b"two\n"
    assert (top / "a.txt").read_text() == "not in this folder"
    (top / "a.txt").write_bytes(b"one\r\n")
    assert (
        git(top, "status", "--porcelain"),
        (top / ".git" / "index").read_bytes(),
        git(top, "stash", "list"),
    ) == before
