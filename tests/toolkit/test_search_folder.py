"""The search of a folder: what it finds and leaves out, that it is up to date, and that it ends when it is to."""

from __future__ import annotations

import math
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import Agent, Tool, UsageError
from agentloop.events import ToolCallProgress, WarningIssued
from agentloop.messages import ToolResult
from agentloop.testing import Lab, ScriptedModel, calls, sweep
from agentloop.toolkit import _folder_index, search_folder
from agentloop.toolkit._folder_index import FolderIndex
from agentloop.toolkit._root import Root
from tests.support import of, watch
from tests.toolkit.builders import call, open_descriptors, watch_call

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(os.name != "posix", reason="files are read by POSIX calls"),
]


def write(folder: Path, path: str, text: str | bytes) -> Path:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


async def found(tool: Tool, query: str, **arguments: Any) -> list[str]:
    """The places of the passages that are found, the best first."""
    result = await call(tool, query=query, **arguments)
    assert result.status == "ok"
    return re.findall(r"^(\S+:\d+-\d+)$", result.text, re.MULTILINE)


def index_of(folder: Path, **options: Any) -> FolderIndex:
    limits: dict[str, Any] = {"max_bytes": 10_000, "max_files": 100, "max_total": 100_000}
    return FolderIndex(Root(folder), None, lambda parts: True, [], **{**limits, **options})


def go_on() -> None:
    """Nothing is cancelled."""


# ---------------------------------------------------------------------------- found


async def test_the_passages_with_most_of_the_rarest_words_come_first_with_their_lines(tmp_path: Path) -> None:
    paragraphs = [f"{'Common words. ' * 70}\n{word}\n" for word in ("alpha", "beta", "gamma")]
    write(tmp_path, "long.md", "\n".join(paragraphs))
    write(tmp_path, "docs/guide.md", "How searches are done: café, naïve.\n")
    tool = search_folder(tmp_path)

    assert await found(tool, "beta common") == ["long.md:4-5", "long.md:1-2", "long.md:7-8"]
    assert await found(tool, "search CAFE") == ["docs/guide.md:1-1"]
    assert await found(tool, "guide") == ["docs/guide.md:1-1"]
    assert await found(tool, '"searches are"') == ["docs/guide.md:1-1"]
    assert await found(tool, '"are searches"') == []
    assert await found(tool, "common", limit=2) == ["long.md:1-2", "long.md:4-5"]
    for query in ("xyz", "?!", '"', 'NEAR("a" b) AND *^:', "a\0b", "(" * 900):
        result = await call(tool, query=query)
        assert result.text == "[nothing in 2 files]"
    assert (await call(tool, query=" ")).status == "error"
    assert (await call(tool, query="x" * 1001)).text == "give a query of 1 to 1000 characters"


async def test_scripts_without_spaces_are_found_by_a_part(tmp_path: Path) -> None:
    write(tmp_path, "数据.md", "我们使用数据库保存会话。")
    write(tmp_path, "kana.md", "データベースを使います。")
    tool = search_folder(tmp_path)
    result = await call(tool, query="数据库")
    assert result.text == "数据.md:1-1\n我们使用数据库保存会话。\n\n[1 of the best passages, in 2 files]"
    assert await found(tool, "ベース") == ["kana.md:1-1"]


async def test_lines_without_end_are_cut_into_passages_and_a_result_has_a_bound(tmp_path: Path) -> None:
    write(tmp_path, "line.txt", "word " * 2000)
    assert {place.partition(":")[2] for place in await found(search_folder(tmp_path), "word", limit=50)} == {"1-1"}
    result = await call(search_folder(tmp_path, max_chars=3000), query="word", limit=50)
    assert 1500 < len(result.text) < 3200
    assert "[1 of the best passages, in 1 files]" in result.text


# --------------------------------------------------------------------------- up to date


@pytest.mark.parametrize("in_file", [False, True])
async def test_the_index_has_each_change_of_the_folder(tmp_path: Path, in_file: bool) -> None:
    folder = tmp_path / "folder"
    write(folder, "a.txt", "apple")
    write(folder, "b.txt", "banana")
    tool = search_folder(folder, index=folder / "index.db" if in_file else None)
    assert await found(tool, "apple banana") == ["a.txt:1-1", "b.txt:1-1"]
    # Of the same size, in the same moment.
    write(folder, "a.txt", "grape")
    (folder / "b.txt").rename(folder / "c.txt")
    write(folder, "new/d.txt", "banana")
    assert await found(tool, "apple") == []
    assert await found(tool, "grape") == ["a.txt:1-1"]
    assert sorted(await found(tool, "banana")) == ["c.txt:1-1", "new/d.txt:1-1"]
    for path in ("a.txt", "c.txt", "new/d.txt"):
        (folder / path).unlink()
    assert (await call(tool, query="grape")).text == "[nothing in 0 files]"


async def test_files_that_have_not_changed_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_folder_index, "RACY_NS", 0)
    write(tmp_path, "a.txt", "apple")
    write(tmp_path, "b.bin", b"\0")
    read: list[str] = []
    text_of = _folder_index._text_of

    def counted(folder: int, name: str, max_bytes: int) -> str | None:
        read.append(name)
        return text_of(folder, name, max_bytes)

    monkeypatch.setattr(_folder_index, "_text_of", counted)
    tool = search_folder(tmp_path)
    for _ in range(3):
        result = await call(tool, query="apple")
        assert result.text.endswith(
            "[1 of the best passages, in 1 files; 1 files were left out: no text, or too large]"
        )
    assert read == ["a.txt", "b.bin"]


async def test_an_index_in_a_file_outlives_the_tool_and_belongs_to_its_owner_and_folder(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "index.db"
    write(folder, "a.txt", "apple")
    assert await found(search_folder(folder, index=file), "apple") == ["a.txt:1-1"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert await found(search_folder(folder, index=file), "apple") == ["a.txt:1-1"]
    (tmp_path / "other").mkdir()
    other = await call(search_folder(tmp_path / "other", index=file), query="apple")
    assert f"is that of {folder}" in other.text


async def test_a_file_that_cannot_be_an_index_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write(folder, "a.txt", "apple")
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    write(tmp_path, "text", "no database, but a text that is longer than a header of SQLite" * 10)
    (tmp_path / "link").symlink_to("text")
    os.mkfifo(tmp_path / "fifo")
    for name, words in (
        ("other.db", "is a database of another kind"),
        ("text", "cannot be used: file is not a database. If it is not in use elsewhere, remove it"),
        ("link", "cannot be used"),
        ("fifo", "cannot be used"),
        ("/dev/null", "is no ordinary file"),
        ("missing/index.db", "cannot be used: No such file"),
    ):
        before = (tmp_path / "text").read_bytes()
        result = await call(search_folder(folder, index=tmp_path / name), query="apple")
        assert result.status == "error"
        assert words in result.text
        assert (tmp_path / "text").read_bytes() == before


async def test_an_index_that_another_process_uses_is_waited_for_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "folder/a.txt", "apple")
    tool = search_folder(tmp_path / "folder", index=tmp_path / "index.db")
    assert await found(tool, "apple")
    other = sqlite3.connect(tmp_path / "index.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(_folder_index, "BUSY_SECONDS", 0.1)
    assert "database is locked" in (await call(tool, query="apple")).text
    monkeypatch.setattr(_folder_index, "BUSY_SECONDS", 60.0)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.1):
            await call(tool, query="apple")
        nursery.start_soon(lambda: found(tool, "apple"))
        await trio.sleep(0.05)
        other.close()


# ----------------------------------------------------------------------------- left out


async def test_no_link_leads_out_and_what_is_no_text_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "outside/secret.txt", "word")
    folder = tmp_path / "folder"
    write(folder, "a.txt", "word")
    write(folder, "huge.txt", "word " * 300_000)
    write(folder, "binary", b"word\0")
    write(folder, "latin.txt", "wörd word".encode("cp1252"))
    write(folder, "wide.txt", "word".encode("utf-16"))
    write(folder, "node_modules/a.js", "word")
    write(folder, "a\nb\u202e.txt", "word\u202e")
    (folder / "link.txt").symlink_to(tmp_path / "outside/secret.txt")
    (folder / "folder").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "fifo.txt")

    result = await call(search_folder(folder), query="word")

    assert sorted(re.findall(r"^(.*):1-1$", result.text, re.MULTILINE)) == [
        "a.txt",
        r"a\x0ab\u202e.txt",
        "latin.txt",
        "wide.txt",
    ]
    assert "\u202e" not in result.text
    assert result.text.endswith("[4 of the best passages, in 4 files; 2 files were left out: no text, or too large]")
    assert await found(search_folder(folder, glob="l*.txt"), "word") == ["latin.txt:1-1"]


async def test_a_folder_with_more_than_fits_is_searched_in_part_and_says_so(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, f"{number}.txt", "word " * 100)
    few = await call(search_folder(tmp_path, max_files=3), query="word")
    assert few.text.endswith("[3 of the best passages, in 3 files; there are more files than are searched]")
    assert index_of(tmp_path, max_total=1200).scan(go_on).files == 2
    # Once it is full, a file that changes still has its own room.
    index = index_of(tmp_path, max_total=2500)
    assert not index.scan(go_on).is_partial
    write(tmp_path, "0.txt", "other " * 80)
    assert not index.scan(go_on).is_partial


# ----------------------------------------------------------------------------- the end


def test_a_scan_that_is_cancelled_anywhere_is_continued_by_the_next(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path, f"{number}.txt", f"word number{number}")
    write(tmp_path, "4.txt", "word " * 1000)
    before = open_descriptors()
    steps = 0
    while True:
        left = steps

        def cancel() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        index = index_of(tmp_path)
        try:
            index.scan(cancel)
        except KeyboardInterrupt:
            assert open_descriptors() == before
            steps += 1
        else:
            break
        assert index.scan(go_on).files == 5
        assert {hit.path for hit in index.search("word", None, 50, go_on)} == {f"{number}.txt" for number in range(5)}
    assert steps > 5


def test_a_query_is_cancelled_in_the_midst_of_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_folder_index, "STEPS_PER_CHECK", 1)
    write(tmp_path, "a.txt", "word\n" * 1000)
    index = index_of(tmp_path)
    index.scan(go_on)
    calls_left = [20]

    def cancel() -> None:
        calls_left[0] -= 1
        if calls_left[0] < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.search("word", None, 50, cancel)
    assert index.search("word", None, 50, go_on)


def test_a_call_that_waits_for_another_is_cancelled(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "word")
    index = index_of(tmp_path)
    index._lock.acquire()

    def cancel() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.scan(cancel)
    index._lock.release()
    assert index.scan(go_on).files == 1


async def test_calls_at_once_share_the_index(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path, f"{number}.txt", f"word{number}")
    tool = search_folder(tmp_path)
    model = ScriptedModel(calls("search_folder", query="word7") + calls("search_folder", query="word8"), "Done.")
    watched = await watch(Agent(model, tools=[tool]))
    texts = [message.text for message in watched.messages if isinstance(message, ToolResult)]
    assert ["7.txt:1-1" in texts[0], "8.txt:1-1" in texts[1]] == [True, True]


# --------------------------------------------------------------------------- embeddings

MEANINGS = {"dog": (1.0, 0.0), "puppy": (0.9, 0.1), "car": (0.0, 1.0), "hound": (0.95, 0.0)}


class Embedder:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.make: Callable[[str], Sequence[float]] = lambda text: MEANINGS.get(text.strip(), (0.5, 0.5))

    async def __call__(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        self.texts += texts
        await trio.lowlevel.checkpoint()
        return [self.make(text) for text in texts]


async def test_an_embedding_finds_by_meaning_too_and_gets_each_passage_once(tmp_path: Path) -> None:
    for word in ("dog", "puppy", "car"):
        write(tmp_path, f"{word}.txt", word)
    write(tmp_path, "copy.txt", "car")
    embed = Embedder()
    tool = search_folder(tmp_path, embed=embed, index=tmp_path / ".index.db")

    assert await found(tool, "hound", limit=2) == ["dog.txt:1-1", "puppy.txt:1-1"]
    assert sorted((await found(tool, "car"))[:2]) == ["car.txt:1-1", "copy.txt:1-1"]
    assert sorted(embed.texts) == ["car", "car", "dog", "hound", "puppy"]
    watched = await watch_call(tool, {"query": "dog"})
    assert not of(watched.events, ToolCallProgress)


async def test_the_passages_are_embedded_in_batches_with_progress_and_another_function_starts_anew(
    tmp_path: Path,
) -> None:
    for number in range(70):
        write(tmp_path, f"{number}.txt", f"text {number}")
    embed = Embedder()
    watched = await watch_call(search_folder(tmp_path, embed=embed, index=tmp_path / ".db"), {"query": "text"})
    progress = [(event.progress, event.total) for event in of(watched.events, ToolCallProgress)]
    assert progress == [(64.0, 70.0), (70.0, 70.0)]

    async def other(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        embed.texts = [*texts]
        return [[1.0, 2.0, 3.0] for _ in texts]

    assert await found(search_folder(tmp_path, embed=other, index=tmp_path / ".db"), "text", limit=1)
    assert embed.texts == ["text"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda text: (1.0, math.nan), "a value that is not finite"),
        (lambda text: (), "2 texts gave 2 vectors, of lengths [0]"),
        (lambda text: [1.0] * len(text), "of lengths [3, 5]"),
        (lambda text: ["x"], "could not convert string to float"),
    ],
)
async def test_a_failed_embedding_warns_and_words_are_searched_alone(
    tmp_path: Path, make: Callable[[str], Any], words: str
) -> None:
    write(tmp_path, "a.txt", "dog")
    write(tmp_path, "b.txt", "puppy")
    embed = Embedder()
    embed.make = make
    watched = await watch_call(search_folder(tmp_path, embed=embed), {"query": "puppy"})
    [warning] = of(watched.events, WarningIssued)
    assert warning.code == "embed_failed"
    assert words in warning.message
    assert any("b.txt:1-1" in message.text for message in watched.messages)


def test_no_fault_and_no_cancel_leaves_the_search_in_a_bad_state(tmp_path: Path) -> None:
    for word in ("dog", "puppy", "car"):
        write(tmp_path, f"{word}.txt", word)

    async def play(lab: Lab) -> None:
        tool = search_folder(tmp_path, embed=Embedder())
        model = lab.model(calls("search_folder", query="dog") + calls("search_folder", query="car"), "Done.")
        async with lab.stream(Agent(model, tools=[tool])) as stream:
            await stream.drain()

    assert sweep(play, limit=4).violations == []


# ---------------------------------------------------------------------------- arguments


def test_wrong_arguments_and_a_python_without_fts5_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, options in (
        ("above 0", {"max_files": 0}),
        ("too many alternatives", {"glob": "{a,b}" * 10}),
        ("async function", {"embed": "x"}),
    ):
        with pytest.raises(UsageError, match=words):
            search_folder(tmp_path, **options)
    with pytest.raises(UsageError, match="no folder"):
        search_folder(tmp_path / "missing")

    class Connection(sqlite3.Connection):
        def execute(self, *arguments: Any) -> Any:
            if "fts5" in arguments[0]:
                raise sqlite3.OperationalError("no such module: fts5")
            return super().execute(*arguments)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=Connection))
    with pytest.raises(UsageError, match=r"full-text search, FTS5, .* no such module"):
        search_folder(tmp_path)


async def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    tool = search_folder(folder)
    folder.rmdir()
    result = await call(tool, query="x")
    assert (result.status, "does not exist" in result.text) == ("error", True)
