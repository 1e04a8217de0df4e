"""Where the demo keeps its sessions, which of them is meant, and what it says where it cannot."""

from __future__ import annotations

import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio

from agentloop.demo import sessions
from agentloop.demo.__main__ import main
from agentloop.demo.sessions import (
    VARIABLE,
    Place,
    entitle,
    example_of,
    find_place,
    find_session,
    list_sessions,
    new_id,
    open_store,
    shorten_title,
    take,
)
from agentloop.errors import UsageError
from agentloop.journal import OpenStore, Record
from agentloop.stores import MemoryStore, stored_session
from tests.demo.terminals import POSIX

Captured = pytest.CaptureFixture[str]

# --------------------------------------------------------------------------------- places


@POSIX
@pytest.mark.parametrize(
    ("environment", "platform", "place"),
    [
        ({}, "linux", "~/.local/share/agentloop/demo.sqlite"),
        ({"XDG_DATA_HOME": "/data"}, "linux", "/data/agentloop/demo.sqlite"),
        ({"XDG_DATA_HOME": "data"}, "linux", "~/.local/share/agentloop/demo.sqlite"),
        ({"XDG_DATA_HOME": "/data"}, "darwin", "~/Library/Application Support/agentloop/demo.sqlite"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/agentloop/demo.sqlite"),
        ({}, "win32", "~/AppData/Local/agentloop/demo.sqlite"),
    ],
)
def test_the_file_is_where_the_platform_has_such_files(
    environment: dict[str, str], platform: str, place: str, home: Path
) -> None:
    expected = Path(place.replace("~", str(home)))

    assert find_place(None, environment, platform) == Place(expected, is_ours=True)


def test_an_option_names_another_file_and_a_variable_does_where_there_is_none() -> None:
    assert find_place("a.db", {VARIABLE: "b.db"}) == Place(Path("a.db"), is_ours=False)
    assert find_place(None, {VARIABLE: "b.db"}) == Place(Path("b.db"), is_ours=False)


@POSIX
def test_what_is_kept_is_for_this_user_only(home: Path) -> None:
    assert main(["hello"]) == 0

    file = home / ".local/share/agentloop/demo.sqlite"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(
    "arguments", [["--list"], ["--sessions"], ["--continue"], ["stopping"], ["hello", "--no-store"]]
)
def test_what_keeps_nothing_makes_no_file(arguments: list[str], home: Path) -> None:
    main(arguments)

    assert list(home.iterdir()) == []


def test_the_tour_keeps_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert main(["--yes"]) == 0
    assert list(home.iterdir()) == []


# ------------------------------------------------------------------------------ bad places


def damaged(file: Path) -> None:
    assert main(["hello", "--store", str(file)]) == 0
    content = file.read_bytes()
    file.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def of_another_program(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE theirs (it)")


def newer(file: Path) -> None:
    assert main(["hello", "--store", str(file)]) == 0
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA user_version=99")


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (damaged, "the file is damaged: restore a backup"),
        (
            lambda file: file.write_text("no database, but a text " * 99, encoding="utf-8"),
            "the file is not an SQLite database",
        ),
        (of_another_program, "is the database of another program"),
        (newer, "was written by a newer agentloop"),
        (lambda file: file.mkdir(), "this is a folder: give the path of a file"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line_with_the_way_out(
    break_it: object, sentence: str, tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "sessions"
    assert callable(break_it)
    break_it(file)
    capsys.readouterr()

    for arguments in (["hello"], ["--continue"], ["--sessions"]):
        assert main([*arguments, "--store", str(file)]) in (1, 2)
        told = capsys.readouterr()
        [line] = told.err.splitlines()
        assert line.startswith(str(file))
        assert sentence in line
        assert line.endswith("; --no-store keeps nothing, --store FILE keeps it elsewhere")
        assert told.out == ""
    assert main(["hello", "--store", str(file), "--no-store"]) == 0


def test_a_file_that_another_program_has_locked_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(sessions, "BUSY", 0.05)
    file = tmp_path / "sessions"
    main(["hello", "--store", str(file)])
    capsys.readouterr()
    with closing(sqlite3.connect(file)) as db:
        db.execute("BEGIN IMMEDIATE")
        assert main(["hello", "--store", str(file)]) == 2

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{file}: another program has locked it for too long: end that program, or wait for it")


def test_a_folder_that_is_not_there_is_told_in_one_line(tmp_path: Path, capsys: Captured) -> None:
    assert main(["hello", "--store", str(tmp_path / "none" / "sessions")]) == 2

    assert f"there is no folder {tmp_path / 'none'}: create it" in capsys.readouterr().err


@POSIX
def test_a_folder_that_cannot_be_made_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME" if sys.platform != "darwin" else "HOME", str(tmp_path / "file"))

    assert main(["hello"]) == 2
    assert "cannot be created (Not a directory): --no-store keeps nothing" in capsys.readouterr().err


# ---------------------------------------------------------------------------------- which


async def add(store: OpenStore, id: str, title: str = "") -> None:
    await store.append(id, [Record(1, "message_committed", b'{"message":{"type":"user","parts":[]}}')])
    if title:
        await store.rename(id, title)


async def meant(store: OpenStore, example: str | None, id: str | None) -> str:
    return (await find_session(store, example, id)).id


async def test_a_session_is_found_by_its_id_the_beginning_of_it_or_as_the_last_one() -> None:
    async with MemoryStore().open() as store:
        for id in ("hello-1a", "tools-2a", "hello-1b", "mine"):
            await add(store, id)
            await trio.sleep(1)

        assert await meant(store, None, "hello-1a") == "hello-1a"
        assert await meant(store, None, "t") == "tools-2a"
        assert await meant(store, "tools", None) == "tools-2a"
        # The last one is of no example, and so none that can be gone on with without saying more.
        assert await meant(store, None, None) == "hello-1b"
        for example, given, sentence in (
            (None, "hello-1", "may be any of hello-1b, hello-1a"),
            (None, "x", "there is no session 'x'"),
            ("hooks", None, "there is no session of example 'hooks' to go on with"),
        ):
            with pytest.raises(UsageError, match=sentence):
                await meant(store, example, given)


def test_an_id_says_which_example_it_is_of() -> None:
    assert re.fullmatch("early_returns-[0-9a-f]{8}", new_id("early_returns"))
    assert example_of(new_id("early_returns")) == "early_returns"
    assert example_of("mine") == example_of("theirs-1") == ""


async def test_a_session_gets_its_title_once() -> None:
    async with MemoryStore().open() as store:
        await add(store, "hello-1")
        await entitle(store, "hello-1", "First\nwords")
        await entitle(store, "hello-1", "Second words")

        info = await store.info("hello-1")
        assert info is not None
        assert info.title == "First words"
    assert len(shorten_title("word " * 50)) <= 60


async def test_a_list_of_many_says_how_many_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LISTED", 2)
    async with MemoryStore().open() as store:
        assert await list_sessions(store) == ["There are no sessions yet."]
        for number in range(5):
            await add(store, f"hello-{number}", f"Number {number}")
            await trio.sleep(1)

        head, *lines, rest = await list_sessions(store)
    assert head.split() == ["session", "last", "used", "messages", "title"]
    assert [line.split()[0] for line in lines] == ["hello-4", "hello-3"]
    assert lines[0].endswith("1  Number 4")
    assert rest == "... and 3 older ones"


async def test_a_session_that_cannot_be_read_is_listed_all_the_same() -> None:
    async with MemoryStore().open() as store:
        await store.append("hello-1", [Record(1, "stream_started", b'{"resumes":1}', stream="hello-1/1")])

        assert (await list_sessions(store))[1].endswith("?  (cannot be read)")


async def test_a_session_that_somebody_has_is_waited_for_until_it_is_known_that_they_are_there() -> None:
    notes: list[str] = []
    async with MemoryStore().open() as store:
        await add(store, "hello-1")
        async with stored_session(store, "hello-1"):
            with pytest.raises(UsageError, match=r"session hello-1 is in use by process .*: end that one first"):
                async with take(store, "hello-1", notes.append):
                    raise AssertionError
            assert (await list_sessions(store))[1].partition("(")[2].startswith("in use by process ")
        assert len(notes) == 1
        async with take(store, "hello-1", notes.append):
            assert len(notes) == 1


async def test_a_session_whose_process_has_died_is_free_after_a_moment() -> None:
    async with MemoryStore().open() as store:
        await add(store, "hello-1")
        await store.acquire("hello-1", "process 1 on nowhere", seconds=sessions.LEASE)
        async with take(store, "hello-1", lambda text: None) as session:
            assert session.id == "hello-1"


# ------------------------------------------------------------------------ in this process


def test_each_start_is_a_session_of_its_own_and_continue_goes_on_with_the_last(capsys: Captured) -> None:
    assert main(["conversation", "--prompt", "My name is Ada."]) == 0
    assert main(["conversation", "--prompt", "My name is Bo."]) == 0
    capsys.readouterr()

    assert main(["--continue", "--prompt", "What is my name?"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"--- conversation-[0-9a-f]{8}: 2 messages, last used on [0-9-]{10} [0-9:]{5}", lines[0])
    assert lines[1].startswith("you: My name is Bo.")
    assert "You are Bo" in lines[5]

    assert main(["--sessions"]) == 0
    _, last, first = capsys.readouterr().out.splitlines()
    assert last.endswith("4  My name is Bo.")
    assert first.endswith("2  My name is Ada.")

    assert main(["--session", first.split()[0], "--prompt", "What is my name?"]) == 0
    assert "You are Ada" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--continue"], "nothing is unfinished there: say what is next with --prompt"),
        (["tools", "--session", "hello"], "is one of the example 'hello', and not of 'tools'"),
        (["--session", "mine"], "session 'mine' is of no example that there is: say with which one to go on"),
        (["--session", "none"], "there is no session 'none': --sessions lists those that there are"),
        (["--continue", "--no-store"], "--no-store keeps nothing, so there is no session to go on with"),
        (["--chat"], "--chat needs an example with an agent to talk to, such as hello"),
        (["stopping", "--chat"], "--chat needs an example with an agent to talk to, such as hello"),
    ],
)
def test_what_cannot_be_gone_on_with_is_told_in_one_line(arguments: list[str], sentence: str, capsys: Captured) -> None:
    main(["hello"])

    async def add_mine() -> None:
        async with open_store(find_place(None)) as store:
            await add(store, "mine")
            await add(store, "hello-z")

    if "mine" in arguments:
        trio.run(add_mine)
    capsys.readouterr()

    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert sentence in line
