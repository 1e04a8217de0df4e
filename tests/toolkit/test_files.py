"""Reading, writing, editing and searching the files of a folder, and nothing else."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import Agent, Tool, UsageError
from agentloop.events import ToolCallStarted
from agentloop.questions import Deny
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import _files, _root, _walk, file_tools
from tests.runtime.builders import answering, asked
from tests.support import first, opened
from tests.toolkit.builders import call, named, names_in, open_descriptors, watch_call

pytestmark = pytest.mark.real_clock

SECRET = "outside, and nobody's business"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder, with a secret beside it."""
    (tmp_path / "secret.txt").write_text(SECRET)
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def tool_of(root: Path, name: str, **options: Any) -> Tool:
    return named(file_tools(root, **{"write": True, "requires_approval": False, **options}), name)


async def told(root: Path, name: str, /, **arguments: Any) -> str:
    """What the model reads of a call, all of which went well."""
    result = await call(tool_of(root, name), **arguments)
    assert result.status == "ok", result.text
    return result.text


async def refused(root: Path, name: str, /, **arguments: Any) -> str:
    """What the model reads of a call that went wrong. It says nothing of what is outside."""
    result = await call(tool_of(root, name), **arguments)
    assert result.status == "error", result.text
    assert "Error" not in result.text, "not in words of ours"
    assert SECRET not in result.text
    return result.text


async def rewritten(root: Path, path: str, content: str) -> str:
    """The text of a call of write_file by a model that has read the file."""
    tools = file_tools(root, write=True, requires_approval=False)
    await call(named(tools, "read_file"), path=path)
    return (await call(named(tools, "write_file"), path=path, content=content)).text


# --------------------------------------------------------------------------------- offer


def test_there_is_nothing_to_write_with_unless_one_asks_for_it(root: Path) -> None:
    reading = file_tools(root)
    writing = file_tools(root, write=True)[3:]

    assert [tool.name for tool in reading] == ["read_file", "list_files", "search_files"]
    assert all(tool.read_only and not tool.requires_approval for tool in reading)
    assert [tool.name for tool in writing] == ["write_file", "edit_file"]
    assert all(tool.requires_approval and tool.destructive and not tool.read_only for tool in writing)


async def test_a_person_is_asked_before_anything_is_written(root: Path) -> None:
    tool = tool_of(root, "write_file", requires_approval=True)

    watched = await watch_call(tool, {"path": "x", "content": "x"}, on_event=answering(Deny()))

    assert len(asked(watched.events)) == 1
    assert names_in(root) == []


@pytest.mark.parametrize("path", ["missing", "secret.txt"])
def test_a_root_must_be_a_folder(tmp_path: Path, root: Path, path: str) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        file_tools(tmp_path / path)


def test_limits_must_make_sense(root: Path) -> None:
    with pytest.raises(UsageError, match="above 0"):
        file_tools(root, max_chars=0)


def test_where_paths_cannot_be_confined_there_are_no_tools(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_root, "CONFINES", False)

    with pytest.raises(UsageError, match="cannot be confined"):
        file_tools(root)


# ---------------------------------------------------------------------------------- read


async def test_lines_are_told_with_their_numbers(root: Path) -> None:
    (root / "a.txt").write_text("one\n\tzwei €\r\n\nlast")

    assert await told(root, "read_file", path="a.txt") == "1\tone\n2\t\tzwei €\n3\t\n4\tlast"


async def test_a_part_is_read_by_its_first_line_and_its_length(root: Path) -> None:
    (root / "a.txt").write_text("".join(f"line {number}\n" for number in range(1, 101)))

    text = await told(root, "read_file", path="a.txt", offset=50, limit=2)

    assert text == "50\tline 50\n51\tline 51\n[the file has 100 lines: read on with offset=52]"
    assert (await told(root, "read_file", path="a.txt", offset=100)) == "100\tline 100"
    assert "has 100 lines: there is no line 101" in await refused(root, "read_file", path="a.txt", offset=101)


async def test_a_long_file_is_told_as_far_as_there_is_room_and_where_to_go_on(root: Path) -> None:
    (root / "a.txt").write_text("123456789\n" * 1000)

    result = await call(tool_of(root, "read_file", max_chars=120), path="a.txt")

    lines = result.text.splitlines()
    assert lines[-1] == f"[the file has 1000 lines: read on with offset={len(lines)}]"
    assert len("\n".join(lines[:-1])) <= 120


async def test_a_long_line_is_cut(root: Path) -> None:
    (root / "a.txt").write_text("x" * 5000)

    assert (await told(root, "read_file", path="a.txt")).endswith(
        "x [... 3000 characters left out: read on with column=2001]"
    )


async def test_an_empty_file_says_so(root: Path) -> None:
    (root / "a.txt").touch()

    assert await told(root, "read_file", path="a.txt") == "[the file is empty]"


async def test_what_is_not_utf8_is_read_with_a_word_about_it(root: Path) -> None:
    (root / "a.txt").write_bytes(b"caf\xe9\n")

    assert await told(root, "read_file", path="a.txt") == (
        "1\tcaf\ufffd\n[it is not UTF-8: what could not be read is shown as \ufffd]"
    )


async def test_a_binary_file_is_refused(root: Path) -> None:
    (root / "a.png").write_bytes(b"\x89PNG\0\0")

    assert await refused(root, "read_file", path="a.png") == (
        "'a.png' is no text file (6 bytes): this tool reads only text, in UTF-8"
    )


async def test_a_huge_file_is_refused_without_reading_it(root: Path) -> None:
    with (root / "huge").open("wb") as file:
        file.truncate(10**12)

    assert "'huge' is too large: 1000000000000 bytes, and at most 10000000" in await refused(
        root, "read_file", path="huge"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_a_file_that_hides_its_size_is_not_read_without_end() -> None:
    result = await call(tool_of(Path("/proc/self"), "read_file", max_bytes=10), path="status")

    assert "too large" in result.text


async def test_an_absolute_path_may_be_given_if_it_is_inside(root: Path) -> None:
    (root / "a.txt").write_text("here")

    assert await told(root, "read_file", path=str(root / "a.txt")) == "1\there"


async def test_further_folders_can_be_read_and_only_read(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept.txt").write_text("kept")
    tools = {tool.name: tool for tool in file_tools(root, write=True, also_read=[other], requires_approval=False)}

    assert (await call(tools["read_file"], path=str(other / "kept.txt"))).text == "1\tkept"
    assert (await call(tools["search_files"], pattern="k", path=str(other))).text == "kept.txt:1:kept"
    assert "outside" in (await call(tools["write_file"], path=str(other / "kept.txt"), content="x")).text
    assert "outside" in (await call(tools["read_file"], path=f"{other}/../secret.txt")).text


# --------------------------------------------------------------------------- what is no file


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root makes devices")


@pytest.mark.parametrize("name", ["read_file", "write_file", "edit_file"])
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (Path.mkdir, "a folder"),
        (_fifo, "a pipe (FIFO)"),
        (_socket, "a socket"),
        (_device, "a device"),
    ],
    ids=["folder", "fifo", "socket", "device"],
)
async def test_what_is_no_ordinary_file_is_refused_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], None], what: str
) -> None:
    monkeypatch.chdir(root)
    make(Path("it"))
    arguments = {"read_file": {}, "write_file": {"content": "x"}, "edit_file": {"old_text": "a", "new_text": "b"}}

    assert await refused(root, name, path="it", **arguments[name]) == f"'it' is {what}, not a file"
    assert names_in(root) == ["it"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing", "'missing' does not exist"),
        ("missing/a", "'missing/a' does not exist"),
        ("a.txt/b", "goes through something that is not a folder"),
        ("a.txt/", "is not a folder"),
        ("x" * 300, "has a name that is too long"),
        ("a\0b", "is no path"),
        ("", "is a folder"),
        ("loop", "too many links"),
    ],
)
async def test_a_path_that_leads_nowhere_is_named(root: Path, path: str, words: str) -> None:
    (root / "a.txt").touch()
    (root / "loop").symlink_to("loop")

    if words == "is not a folder":
        words = "goes through something that is not a folder"
    assert words in await refused(root, "read_file", path=path)


async def test_a_file_that_may_not_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.txt").touch()
    real = os.open

    def denied(path: Any, *args: Any, **options: Any) -> int:
        if path == "a.txt":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", denied)

    assert await refused(root, "read_file", path="a.txt") == "'a.txt' may not be accessed by this user"


# ---------------------------------------------------------------------------------- write


async def test_a_file_is_written_with_the_folders_on_its_way(root: Path) -> None:
    text = await told(root, "write_file", path="a/b/c.txt", content="one\nzwei €\n")

    assert text == "Wrote a/b/c.txt: 2 lines, 13 bytes."
    assert (root / "a/b/c.txt").read_text() == "one\nzwei €\n"
    assert names_in(root / "a/b") == ["c.txt"]


async def test_a_file_that_is_there_is_replaced_and_keeps_its_mode(root: Path) -> None:
    (root / "run.sh").write_text("old")
    (root / "run.sh").chmod(0o751)

    assert (await rewritten(root, "run.sh", "new")).startswith("Replaced run.sh")
    assert (root / "run.sh").read_text() == "new"
    assert (root / "run.sh").stat().st_mode & 0o777 == 0o751


async def test_a_file_behind_a_link_is_replaced_and_the_link_stays(root: Path) -> None:
    (root / "real.txt").write_text("old")
    (root / "link.txt").symlink_to("real.txt")

    await rewritten(root, "link.txt", "new")

    assert (root / "link.txt").is_symlink()
    assert (root / "real.txt").read_text() == "new"


async def test_a_file_that_is_read_only_stays(root: Path) -> None:
    (root / "a.txt").write_text("old")
    (root / "a.txt").chmod(0o444)

    assert await rewritten(root, "a.txt", "new") == "'a.txt' is read-only"
    assert (root / "a.txt").read_text() == "old"


@pytest.mark.parametrize("step", ["fsync", "rename", "chmod"])
async def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (root / "a.txt").write_text("old")

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)

    assert "No space left on device" in await rewritten(root, "a.txt", "new")
    assert names_in(root) == ["a.txt"]
    assert (root / "a.txt").read_text() == "old"


async def test_more_than_a_file_may_have_is_not_written(root: Path) -> None:
    result = await call(tool_of(root, "write_file", max_bytes=10), path="a.txt", content="x" * 11)

    assert result.text == "'a.txt' would have 11 bytes, and at most 10 are written"
    assert names_in(root) == []


async def test_a_stream_that_is_cancelled_leaves_all_of_a_write_or_nothing(root: Path) -> None:
    (root / "a.txt").write_text("old")
    agent = Agent(
        ScriptedModel(calls("write_file", path="a.txt", content="new" * 1000000), "Done."),
        tools=[tool_of(root, "write_file")],
    )

    async with opened(agent) as stream:
        await first(stream, ToolCallStarted)

    assert (root / "a.txt").read_text() in ("old", "new" * 1000000)
    assert names_in(root) == ["a.txt"]


# ----------------------------------------------------------------------------------- edit


async def test_an_edit_replaces_the_text_and_shows_what_is_there_now(root: Path) -> None:
    (root / "a.txt").write_text("".join(f"line {number}\n" for number in range(1, 11)))

    text = await told(root, "edit_file", path="a.txt", old_text="line 5\n", new_text="five\nfive and a half\n")

    assert text == (
        "Changed a.txt at line 5. It reads now:\n"
        "2\tline 2\n3\tline 3\n4\tline 4\n5\tfive\n6\tfive and a half\n7\tline 6\n8\tline 7\n9\tline 8\n10\tline 9"
    )
    assert (root / "a.txt").read_text().startswith("line 1\nline 2\nline 3\nline 4\nfive\nfive and a half\nline 6\n")


async def test_a_text_that_is_there_several_times_is_not_replaced_by_chance(root: Path) -> None:
    (root / "a.txt").write_text("x\ny\nx\n")

    words = await refused(root, "edit_file", path="a.txt", old_text="x", new_text="z")

    assert words.startswith("old_text is in 'a.txt' 2 times, at lines 1, 3: give more of what is around")
    assert (root / "a.txt").read_text() == "x\ny\nx\n"


async def test_all_of_them_are_replaced_if_one_says_so(root: Path) -> None:
    (root / "a.txt").write_text("x\ny\nx\n")

    text = await told(root, "edit_file", path="a.txt", old_text="x", new_text="z", replace_all=True)

    assert text.startswith("Changed a.txt 2 times, at lines 1, 3.")
    assert (root / "a.txt").read_text() == "z\ny\nz\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("absent", "x", "old_text is not in 'a.txt'"),
        ("", "x", "old_text is empty"),
        ("here", "here", "are the same"),
    ],
)
async def test_an_edit_that_cannot_be_made_says_why(root: Path, old: str, new: str, words: str) -> None:
    (root / "a.txt").write_text("here\n")

    assert words in await refused(root, "edit_file", path="a.txt", old_text=old, new_text=new)


async def test_lines_that_end_as_on_windows_are_edited_as_they_are_shown(root: Path) -> None:
    (root / "a.txt").write_bytes(b"one\r\ntwo\r\nthree\r\n")

    await told(root, "edit_file", path="a.txt", old_text="one\ntwo", new_text="1\n2")

    assert (root / "a.txt").read_bytes() == b"1\r\n2\r\nthree\r\n"


@pytest.mark.parametrize("data", [b"caf\xe9 x\n", b"x\0"])
async def test_what_an_edit_would_damage_is_left_alone(root: Path, data: bytes) -> None:
    (root / "a.txt").write_bytes(data)

    await refused(root, "edit_file", path="a.txt", old_text="x", new_text="y")

    assert (root / "a.txt").read_bytes() == data


async def test_a_long_change_is_shown_in_part(root: Path) -> None:
    (root / "a.txt").write_text("x")

    text = await told(root, "edit_file", path="a.txt", old_text="x", new_text="line\n" * 1000)

    assert "\n...\n" in text
    assert len(text) < 1000


async def test_edits_of_one_turn_are_all_made(root: Path) -> None:
    (root / "a.txt").write_text("".join(f"<{number}>\n" for number in range(20)))
    edits = [calls("edit_file", path="a.txt", old_text=f"<{number}>", new_text=f"[{number}]") for number in range(20)]
    agent = Agent(ScriptedModel(sum(edits[1:], edits[0]), "Done."), tools=[tool_of(root, "edit_file")])

    await agent.run("go")

    assert (root / "a.txt").read_text() == "".join(f"[{number}]\n" for number in range(20))


async def test_a_file_that_somebody_else_changes_meanwhile_is_not_overwritten(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a.txt").write_text("x")
    real = os.fsync

    def meanwhile(descriptor: int) -> None:
        real(descriptor)
        (root / "a.txt").write_text("x and their change")

    monkeypatch.setattr(os, "fsync", meanwhile)

    assert "was changed by somebody else" in await refused(root, "edit_file", path="a.txt", old_text="x", new_text="y")
    assert (root / "a.txt").read_text() == "x and their change"
    assert names_in(root) == ["a.txt"]


# ------------------------------------------------------------------------- list and search


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    for path in ("a.py", "src/b.py", "src/deep/c.py", "src/deep/d.txt", ".git/config", "node_modules/x.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"def {Path(path).stem}(): pass\n# the end\n")
    (root / "out").symlink_to(tmp_path)
    return root


@pytest.mark.parametrize(
    ("glob", "path", "found"),
    [
        ("*.py", ".", "a.py src/b.py src/deep/c.py"),
        ("src/*.py", ".", "src/b.py"),
        ("src/**/*.py", ".", "src/b.py src/deep/c.py"),
        ("**/*.{txt,md}", ".", "src/deep/d.txt"),
        ("./a.p[xy]", ".", "a.py"),
        ("*", "src/deep", "c.py d.txt"),
        ("*", ".", "a.py out src/ src/b.py src/deep/ src/deep/c.py src/deep/d.txt"),
        ("dee?/", ".", "src/deep/"),
        ("nothing", ".", "[no file or folder matches]"),
    ],
)
async def test_files_are_listed_by_a_pattern(tree: Path, glob: str, path: str, found: str) -> None:
    text = await told(tree, "list_files", glob=glob, path=path)

    assert text == (found if found.startswith("[") else found.replace(" ", "\n"))


async def test_lines_are_found_by_a_regular_expression(tree: Path) -> None:
    assert await told(tree, "search_files", pattern=r"def [bc]\(") == (
        "src/b.py:1:def b(): pass\nsrc/deep/c.py:1:def c(): pass"
    )
    assert await told(tree, "search_files", pattern="DEF C", ignore_case=True) == "src/deep/c.py:1:def c(): pass"
    assert await told(tree, "search_files", pattern="def", glob="*.txt") == "src/deep/d.txt:1:def d(): pass"
    assert await told(tree, "search_files", pattern="absent", path="src") == "[no line in 'src' matches]"


async def test_a_search_does_not_follow_links_out(tree: Path) -> None:
    assert await told(tree, "search_files", pattern="outside") == "[no line matches]"


async def test_what_is_no_text_or_too_large_is_passed_over_with_a_word_about_it(root: Path) -> None:
    (root / "a").write_bytes(b"x\0")
    (root / "b").write_bytes(b"x" * 100)
    os.mkfifo(root / "c")
    (root / "d").write_text("x")

    result = await call(tool_of(root, "search_files", max_bytes=50), pattern="x")

    assert result.text == "d:1:x\n[that is all; 2 files were passed over: no text, or too large]"


async def test_more_than_there_is_room_for_is_left_out_with_a_word_about_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "MAX_MATCHES", 3)
    (root / "a").write_text("x\n" * 10)

    text = await told(root, "search_files", pattern="x")
    short = await call(tool_of(root, "search_files", max_chars=12), pattern="x")

    assert text == "a:1:x\na:2:x\na:3:x\n[there are more: narrow the search down]"
    assert short.text == "a:1:x\na:2:x\n[there are more: narrow the search down]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pattern": "("}, "the pattern is no regular expression of Python's"),
        ({"pattern": "x", "glob": "{a,b}" * 10}, "too many alternatives"),
        ({"pattern": "x" * 10001}, "too long"),
        ({"pattern": "x", "path": "missing"}, "'missing' does not exist"),
        ({"pattern": "x", "path": ".."}, "outside"),
        ({"pattern": "x", "path": "file"}, "'file' is a file, not a folder"),
    ],
)
async def test_a_search_that_cannot_be_made_says_why(root: Path, arguments: dict[str, str], words: str) -> None:
    (root / "file").touch()

    assert words in await refused(root, "search_files", **arguments)


async def test_a_regular_expression_that_takes_for_ever_is_stopped(root: Path) -> None:
    """In this process it would hold up the loop, and could not be stopped."""
    (root / "a").write_text("a" * 100)
    before = open_descriptors()
    agent = Agent(
        ScriptedModel(calls("search_files", pattern="(a+)+$b"), "Done."), tools=[tool_of(root, "search_files")]
    )

    with trio.fail_after(5):
        async with opened(agent) as stream:
            await first(stream, ToolCallStarted)
            await trio.sleep(0.2)

    assert stream.outcome.reason == "cancelled"
    assert open_descriptors() == before


async def test_a_search_program_that_breaks_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = root / "broken.py"
    broken.write_text("raise RuntimeError('broken')")
    monkeypatch.setattr(_files, "script_arguments", lambda *_: [str(broken)])

    result = await call(tool_of(root, "list_files"))

    assert result.text.startswith("the search failed: ")
    assert "broken" in result.text


# ------------------------------------------------------------ the program, in this process


def _query(folder: int, **changes: Any) -> _walk.Query:
    query: dict[str, Any] = {
        "folder": folder, "glob": "*", "regex": None, "ignore_case": False, "ignore": [".git"], "max_hits": 100,
        "max_bytes": 100,
    }  # fmt: skip
    return query | changes  # type: ignore[return-value]


def test_the_program_finds_what_the_tool_tells(tree: Path) -> None:
    folder = os.open(tree, os.O_RDONLY)
    try:
        listed = _walk.find(_query(folder, glob="src/**"))
        found = _walk.find(_query(folder, regex="end", max_hits=1))
        error = _walk.main("no JSON")["error"]
    finally:
        os.close(folder)

    assert listed["hits"] == ["src/", "src/b.py", "src/deep/", "src/deep/c.py", "src/deep/d.txt"]
    assert (found["hits"], found["more"]) == (["a.py:2:# the end"], True)
    assert error


@pytest.mark.parametrize(
    ("parts", "pattern", "does"),
    [
        ("a/b/c", "**", True),
        ("a/b/c", "a/**/c", True),
        ("a/c", "a/**/c", True),
        ("a/b/c", "**/b", False),
        ("a/b/c", "*/*/*", True),
        ("a/b", "*/*/*", False),
        ("a/b/c/d", "**/b/**/d", True),
        ("b", "a/**", False),
    ],
)
def test_two_stars_are_for_any_folders(parts: str, pattern: str, does: bool) -> None:
    assert _walk.matches(tuple(parts.split("/")), tuple(pattern.split("/"))) is does


def test_alternatives_are_spelled_out() -> None:
    assert sorted(_walk.expand("{a,b}.{c,}")) == ["a.", "a.c", "b.", "b.c"]


# --------------------------------------------------------- what must survive, and what must not be lost


async def test_a_file_that_was_never_read_is_not_written_over(root: Path) -> None:
    (root / "a.txt").write_text("work of a person")

    assert "read it first" in await refused(root, "write_file", path="a.txt", content="new")
    assert (root / "a.txt").read_text() == "work of a person"


async def test_a_file_that_has_changed_since_it_was_read_is_not_written_over(root: Path) -> None:
    tools = file_tools(root, write=True, requires_approval=False)
    (root / "a.txt").write_text("one")
    await call(named(tools, "read_file"), path="a.txt")
    (root / "a.txt").write_text("one, and what a person has added")

    refusal = await call(named(tools, "write_file"), path="a.txt", content="ONE")

    assert (refusal.status, "it has changed since" in refusal.text) == ("error", True)
    assert (root / "a.txt").read_text() == "one, and what a person has added"


async def test_a_file_that_the_model_has_written_or_edited_may_be_written_over(root: Path) -> None:
    tools = file_tools(root, write=True, requires_approval=False)
    for content in ("one", "two"):
        assert (await call(named(tools, "write_file"), path="a.txt", content=content)).status == "ok"
    await call(named(tools, "edit_file"), path="a.txt", old_text="two", new_text="three")

    assert (await call(named(tools, "write_file"), path="a.txt", content="four")).status == "ok"


async def test_an_empty_file_may_be_written_without_reading_it(root: Path) -> None:
    (root / "a.txt").touch()

    assert (await told(root, "write_file", path="a.txt", content="new")).startswith("Replaced")


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        (b"one\r\ntwo\r\nthree\nfour\r\n", "one\ntwo", "ONE\nTWO", b"ONE\r\nTWO\r\nthree\nfour\r\n"),
        (b"one\r\ntwo\nthree\n", "two\nthree", "2\n3\n4", b"one\r\n2\n3\n4\n"),
        (b"one\r\ntwo\nthree\n", "one\ntwo\nthree", "1\n2\n3", b"1\r\n2\n3\n"),
        (b"one\r\ntwo\r\n", "one", "0\n1", b"0\r\n1\r\ntwo\r\n"),
        (b"one\ntwo\n", "one", "0\n1", b"0\n1\ntwo\n"),
        (b"\xef\xbb\xbfone\r\ntwo", "one\ntwo", "1\n2", b"\xef\xbb\xbf1\r\n2"),
        (b"a\rb\r\nc\n", "b\nc", "B\nC", b"a\rB\r\nC\n"),
    ],
)
async def test_an_edit_leaves_every_line_end_and_the_byte_order_mark(
    root: Path, before: bytes, old: str, new: str, after: bytes
) -> None:
    (root / "a.txt").write_bytes(before)

    await told(root, "edit_file", path="a.txt", old_text=old, new_text=new)

    assert (root / "a.txt").read_bytes() == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"one\r\ntwo\r\n", b"a\r\nb\r\n"),
        (b"one\r\ntwo\r\nthree\n", b"a\r\nb\r\n"),
        (b"one\ntwo\nthree\r\n", b"a\nb\n"),
        (b"\xef\xbb\xbfone\r\n", b"\xef\xbb\xbfa\r\nb\r\n"),
        (b"one", b"a\nb\n"),
    ],
)
async def test_a_file_that_is_written_over_keeps_its_line_ends_and_its_byte_order_mark(
    root: Path, before: bytes, after: bytes
) -> None:
    (root / "a.txt").write_bytes(before)

    await rewritten(root, "a.txt", "a\nb\n")

    assert (root / "a.txt").read_bytes() == after


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
async def test_an_edited_file_keeps_its_owner_and_its_mode(root: Path) -> None:
    (root / "a.txt").write_text("a")
    os.chown(root / "a.txt", 1000, 1001)
    (root / "a.txt").chmod(0o4640)

    await told(root, "edit_file", path="a.txt", old_text="a", new_text="b")

    status = (root / "a.txt").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1000, 1001, 0o4640)


@pytest.mark.parametrize("obstacle", ["mounted", "owner"])
async def test_a_file_that_cannot_be_replaced_is_overwritten_in_place(
    root: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    """A file that is mounted by itself is busy; the owner of a file may be one that this user cannot name."""

    def is_busy(*args: Any, **options: Any) -> None:
        raise OSError(16, "Device or resource busy")

    if obstacle == "mounted":
        monkeypatch.setattr(os, "rename", is_busy)
    else:
        monkeypatch.setattr(_root, "_give_to_owner", lambda descriptor, before: False)
    (root / "a.txt").write_text("a long text")
    inode = (root / "a.txt").stat().st_ino

    await told(root, "edit_file", path="a.txt", old_text="a long text", new_text="short")

    assert ((root / "a.txt").read_text(), (root / "a.txt").stat().st_ino) == ("short", inode)
    assert names_in(root) == ["a.txt"]


@pytest.mark.parametrize("path", ["~", "~/notes.txt", "~root/notes.txt", "~nobody-here/x", "./~/x", "./~"])
async def test_a_path_from_a_home_folder_makes_no_folder_called_tilde(root: Path, path: str) -> None:
    assert "without '~'" in await refused(root, "write_file", path=path, content="x")
    assert names_in(root) == []


async def test_a_home_folder_that_is_the_root_or_in_it_may_be_named_by_tilde(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(root))

    await told(root, "write_file", path="~/notes.txt", content="x")

    assert names_in(root) == ["notes.txt"]


async def test_a_name_that_is_not_utf8_is_listed_searched_read_and_written(root: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    (root / name).write_text("needle")
    spelled = "caf\\xe9.txt"

    assert await told(root, "list_files") == spelled
    assert await told(root, "search_files", pattern="needle") == f"{spelled}:1:needle"
    assert await told(root, "read_file", path=spelled) == "1\tneedle"
    await rewritten(root, spelled, "new")
    assert (root / name).read_text() == "new"
    assert len(names_in(root)) == 1


async def test_a_name_with_a_line_end_is_one_line_of_a_listing_and_can_be_read(root: Path) -> None:
    (root / "a\n\x1bb.txt").write_text("needle")

    assert await told(root, "list_files") == "a\\x0a\\x1bb.txt"
    assert await told(root, "read_file", path="a\\x0a\\x1bb.txt") == "1\tneedle"


async def test_a_path_that_ends_like_that_of_a_folder_makes_no_folder(root: Path) -> None:
    assert "not of a file" in await refused(root, "write_file", path="new/", content="x")
    assert names_in(root) == []


async def test_a_long_line_can_be_read_on_and_a_search_shows_the_part_that_matches(root: Path) -> None:
    (root / "a.json").write_text("x" * 5000 + "PORT" + "y" * 5000)

    assert "PORT" in await told(root, "read_file", path="a.json", column=4001)
    found = await told(root, "search_files", pattern="PORT")

    assert "PORT" in found
    column = int(found.split("from column ")[1].split("]")[0])
    assert "PORT" in (await told(root, "read_file", path="a.json", column=column))[:400]
    assert len(found) < 400


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may not limit the memory of a process")
async def test_a_regular_expression_takes_no_more_memory_than_it_may(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a.txt").write_text("x" * 2_000_000)

    assert "too much memory" in await refused(root, "search_files", pattern="((x)|(y))*z")


async def test_an_edit_shows_no_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\nb\n")
    tools = {tool.name: tool for tool in file_tools(tmp_path, write=True)}

    told = await tools["edit_file"](path="a.txt", old_text="a", new_text="A")

    assert told.endswith("1\tA\n2\tb")
    assert (tmp_path / "a.txt").read_bytes() == b"\xef\xbb\xbfA\nb\n"
