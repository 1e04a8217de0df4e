"""What turns did to a folder is listed, shown and undone, in a git repository and elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import Agent, Team, tool
from agentloop.__main__ import main
from agentloop.errors import ToolError, UsageError
from agentloop.events import ApprovalRequested
from agentloop.questions import Approve
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import FileChange, Snapshots, TurnChanges, _trees

if sys.platform != "win32":
    import fcntl

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

    child = Agent(ScriptedModel(calls("write"), "Done."), name="child", tools=[write], hooks=files.hooks)
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


@pytest.mark.parametrize("inside", ["", "snapshots"])
def test_a_store_in_the_folder_itself_is_refused(tmp_path: Path, inside: str) -> None:
    with pytest.raises(UsageError, match="keep them outside of the folder"):
        Snapshots(tmp_path, store=tmp_path / inside)


async def test_a_turn_that_another_process_resumes_has_an_entry_for_each_process(folder: Path) -> None:
    @tool
    async def first() -> None:
        (folder / "first").write_text("x")

    @tool(requires_approval=True)
    async def second() -> None:
        (folder / "second").write_text("x")

    def agent(*script: Any) -> tuple[Agent, Snapshots]:
        files = snapshots(folder)
        inner = Agent(ScriptedModel(*script[:-1]), name="inner", tools=[first, second])
        lead = ScriptedModel(*script[-1])
        return Agent(lead, tools=[inner.as_tool()], hooks=files.hooks), files

    async with MemoryStore().open() as store:
        asking, _ = agent(calls("first") + calls("second"), [calls("inner", prompt="go")])
        async with stored_session(store, "ann") as session, asking.stream("go", session=session) as stream:
            async for event in stream:
                if isinstance(event, ApprovalRequested):
                    stream.park()
        resuming, files = agent("Inner.", ["Done."])
        async with stored_session(store, "ann") as session:
            [question] = session.questions
            await resuming.resume(session, {question.id: Approve()})
    second_part, first_part = await files.turns()
    assert (first_part.turn, paths(first_part)) == (1, {"first": "added"})
    assert (second_part.turn, paths(second_part), second_part.is_open) == (0, {"second": "added"}, False)
    assert second_part.source.agents == first_part.source.agents == ("agent",)


async def test_runs_at_once_have_entries_of_their_own(folder: Path) -> None:
    files = snapshots(folder)
    began, go_on = trio.Event(), trio.Event()

    @tool
    async def act() -> None:
        (folder / "long").write_text("x")
        began.set()
        await go_on.wait()

    long = Agent(ScriptedModel(calls("act"), "Done."), name="long", tools=[act], hooks=files.hooks)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(long.run, "go")
        await began.wait()
        await run(files, lambda: (folder / "short").write_text("x"))
        go_on.set()
    short_turn, long_turn = await files.turns()
    assert (short_turn.source.agents, paths(short_turn)) == (("agent",), {"short": "added"})
    # What others change meanwhile counts as the turn's own.
    assert (long_turn.source.agents, paths(long_turn)) == (("long",), {"long": "added", "short": "added"})


async def test_after_a_handoff_the_turns_of_both_agents_have_entries(folder: Path) -> None:
    files = snapshots(folder)

    def member(name: str, other: str, *script: Any) -> Agent:
        @tool
        async def act() -> None:
            (folder / name).write_text("x")

        return Agent(ScriptedModel(*script), name=name, tools=[act], handoffs=[other], hooks=files.hooks)

    front = member("front", "billing", calls("act"), calls("handoff", agent="billing"))
    billing = member("billing", "front", calls("act"), "Done.")
    await Team(front, billing).run("go")
    assert [(turn.source.agents, paths(turn)) for turn in await files.turns()] == [
        (("billing",), {"billing": "added"}),
        (("front",), {"front": "added"}),
    ]


async def test_a_folder_that_becomes_a_repository_keeps_its_older_snapshots(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "a").write_text("one")
    await run(snapshots(folder), lambda: (folder / "a").write_text("two"))
    git(folder, "init", "--quiet")
    files = snapshots(folder)
    await run(files, lambda: (folder / "b").write_text("x"))
    newer, older = await files.turns()
    assert (paths(newer), paths(older)) == ({"b": "added"}, {"a": "changed"})
    await files.undo(older.id)
    assert (folder / "a").read_text() == "one"
    shutil.rmtree(folder / ".git")
    with pytest.raises(ToolError, match=r"turn 2 was in a git repository that .* is no part of any more"):
        await snapshots(folder).undo(newer.id)


async def test_an_older_content_never_stands_in_for_a_file_that_is_too_large(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    large = tmp_path / "project" / "large"
    large.parent.mkdir()
    large.write_text("committed")
    git(large.parent, "init", "--quiet")
    git(large.parent, "add", "-A")
    git(large.parent, "commit", "--quiet", "-m", "first")
    large.write_text("grown " * 100)
    files = Snapshots(large.parent, store=tmp_path / "store", max_bytes=100)

    def change() -> None:
        large.unlink()
        (large.parent / "a").write_text("x")

    await run(files, change)
    [turn] = await files.turns()
    assert paths(turn) == {"a": "added"}
    await files.undo()
    assert not large.exists()


async def test_a_run_that_waits_for_another_process_can_be_cancelled(folder: Path) -> None:
    files = snapshots(folder)
    await run(files, lambda: (folder / "a").write_text("x"))
    [home] = (folder.parent / "store").iterdir()
    with (home / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with trio.move_on_after(0.1) as scope:
            await run(files, lambda: pytest.fail("the tool was called"))
        assert scope.cancelled_caught
    assert len(await files.turns()) == 1
    await files.clear()


@pytest.mark.parametrize("end", ["cancel", "too slow"])
async def test_a_git_that_hangs_is_killed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    if end == "too slow":
        monkeypatch.setattr(_trees, "GIT_SECONDS", 0.2)
        # Without a git that answers, the files are copied.
        await run(snapshots(folder), lambda: (folder / "a").write_text("x"))
    else:
        with trio.move_on_after(0.3) as scope:
            await run(snapshots(folder), lambda: pytest.fail("the tool was called"))
        assert scope.cancelled_caught
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


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
    assert any("the snapshots in" in message.text for message in outcome.messages if hasattr(message, "call_id"))


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
