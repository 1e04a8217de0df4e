"""The tool that searches the files of a folder by their words and, with an embedding, by their meaning."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any, TypeAlias, cast

import trio
from msgspec import Meta

from agentloop._core.foreign_errors import describe
from agentloop._core.redaction import visible
from agentloop.context import ToolContext
from agentloop.errors import ToolError, UsageError
from agentloop.toolkit import _walk
from agentloop.toolkit._files import IGNORED
from agentloop.toolkit._folder_index import FolderIndex, Hit, Scan, check_fts5
from agentloop.toolkit._root import Root
from agentloop.toolkit._truncated import MAX_CHARS
from agentloop.tools import Tool, tool

__all__ = ["Embed", "search_folder"]

Embed: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]
"""A function that gives a vector for each text."""

MAX_FILE_BYTES = 1_000_000
MAX_FILES = 20_000
MAX_TOTAL = 200_000_000
"""Characters of all files in an index."""
MAX_HITS = 50
MAX_QUERY = 1000
BATCH = 64
"""Passages that one call of ``embed`` gets at most."""


class _EmbeddingError(Exception):
    """``embed`` failed, or returned no vectors."""


def search_folder(
    folder: str | os.PathLike[str],
    *,
    embed: Embed | None = None,
    index: str | os.PathLike[str] | None = None,
    glob: str = "*",
    ignore: Sequence[str] = IGNORED,
    max_bytes: int = MAX_FILE_BYTES,
    max_files: int = MAX_FILES,
    max_chars: int = MAX_CHARS,
    timeout: float | None = None,
    name: str = "search_folder",
) -> Tool:
    """A tool that finds the passages in the text files of a folder that fit a query best, by their words (BM25).

    Each call brings the index up to date first: files that are new, changed or gone since. Only these are read. As
    with `file_tools`, no link is followed and no path leads out of the folder; files that are no text or too large are
    left out, and counted in the result. Words are found in other forms (*search*, *searching*), without their accents,
    and character by character in Chinese, Japanese and Korean.

    With ``embed``, passages are found by their meaning as well, and both rankings are merged. Each passage is embedded
    once, when it is new. If ``embed`` fails, the call warns (code ``embed_failed``) and finds by words alone.

    Args:
      folder: the folder.
      embed: an async function that gives a vector for each of some texts.
      index: a file for the index, an SQLite database that its owner alone can read, for one folder. Without it, the
        index is in memory, as long as the tool.
      glob: which files: such as ``*.md`` for names at any depth, or ``docs/**/*.{md,rst}`` for paths.
      ignore: names, or patterns of names, that are left out.
      max_bytes: the size of a file that is searched.
      max_files: how many files are searched at most.
      max_chars: characters of a result.
      timeout: seconds for a call; ``None`` for the agent's ``Deadlines.tool``. What was indexed stays.
      name: the tool's name for the model.

    Raises:
      UsageError: it is no folder, a number is below 1, the glob has too many alternatives, or this Python's SQLite has
        no full-text search (FTS5).
    """
    if min(max_bytes, max_files, max_chars) < 1:
        raise UsageError("search_folder(): give max_bytes, max_files and max_chars above 0")
    if embed is not None and not callable(cast("object", embed)):
        raise UsageError(f"search_folder(embed={embed!r}): give an async function of a list of texts")
    check_fts5()
    root = Root(folder)
    try:
        is_wanted = _walk.wanted(glob)
    except ValueError as error:
        raise UsageError(f"search_folder(glob={glob!r}): {error}") from error
    file = None if index is None else os.path.abspath(index)  # noqa: PTH100 - no file is looked at
    searcher = _Searcher(
        FolderIndex(root, file, is_wanted, ignore, max_bytes=max_bytes, max_files=max_files, max_total=MAX_TOTAL),
        embed,
        max_chars,
    )

    async def search(
        context: ToolContext[Any],
        query: str,
        limit: Annotated[int, Meta(ge=1, le=MAX_HITS)] = 8,
    ) -> str:
        """Search the files.

        Args:
          query: words, of which any may be in a passage; "words in quotes" stand together.
          limit: how many passages to return at most.
        """
        return await searcher.search(context, query, limit)

    return tool(
        name=name,
        description=f"Find the passages in the text files in {root.path} that fit a query best. Returns each with its "
        "path and lines.",
        read_only=True,
        idempotent=True,
        timeout=timeout,
    )(search)


class _Searcher:
    def __init__(self, index: FolderIndex, embed: Embed | None, max_chars: int) -> None:
        self._index = index
        self._embed = embed
        self._max_chars = max_chars

    async def search(self, context: ToolContext[Any], query: str, limit: int) -> str:
        if not query.strip() or len(query) > MAX_QUERY:
            raise ToolError(f"give a query of 1 to {MAX_QUERY} characters")
        scan: Scan = await _in_thread(self._index.scan)
        vector: Sequence[float] | None = None
        if self._embed is not None:
            try:
                vector = await self._vector_of(context, query, self._embed)
            except _EmbeddingError as error:
                context.warn("embed_failed", f"passages are found by their words alone: {error}")
        hits: list[Hit] = await _in_thread(partial(self._index.search, query, vector, limit))
        return _told(hits, scan, self._max_chars)

    async def _vector_of(self, context: ToolContext[Any], query: str, embed: Embed) -> Sequence[float]:
        """Embed the passages that are new, then the query."""
        name = f"{getattr(embed, '__module__', '')}.{getattr(embed, '__qualname__', type(embed).__qualname__)}"
        await _in_thread(partial(self._index.use_vectors_of, name))
        done = 0
        while True:
            passages, missing = await _in_thread(partial(self._index.without_vector, BATCH))
            if not passages:
                break
            vectors = await _embedded(embed, [text for _, text in passages])
            await _in_thread(partial(self._index.save_vectors, [digest for digest, _ in passages], vectors))
            done += len(passages)
            await context.progress(done, total=done + missing - len(passages), message="passages embedded")
        [vector] = await _embedded(embed, [query])
        return vector


async def _in_thread(function: Callable[[Callable[[], object]], Any]) -> Any:
    return await trio.to_thread.run_sync(function, trio.from_thread.check_cancelled)


async def _embedded(embed: Embed, texts: list[str]) -> Sequence[Sequence[float]]:
    try:
        vectors = [[float(value) for value in vector] for vector in await embed(texts)]
    except Exception as error:
        raise _EmbeddingError(describe(error)) from error
    sizes = {len(vector) for vector in vectors}
    if len(vectors) != len(texts) or len(sizes) > 1 or 0 in sizes:
        raise _EmbeddingError(f"{len(texts)} texts gave {len(vectors)} vectors, of lengths {sorted(sizes)}")
    if not all(math.isfinite(value) for vector in vectors for value in vector):
        raise _EmbeddingError("a vector has a value that is not finite")
    return vectors


def _told(hits: Sequence[Hit], scan: Scan, max_chars: int) -> str:
    """The hits for the model, as many as fit."""
    parts: list[str] = []
    room = max_chars
    for hit in hits:
        part = f"{visible(hit.path)}:{hit.first}-{hit.last}\n{hit.text}"
        if len(part) > room and parts:
            break
        parts.append(part[:room])
        room -= len(part)
    notes = [f"{len(parts)} of the best passages, in {scan.files} files" if parts else f"nothing in {scan.files} files"]
    if scan.passed_over:
        notes.append(f"{scan.passed_over} files were left out: no text, or too large")
    if scan.is_partial:
        notes.append("there are more files than are searched")
    return "\n\n".join([*parts, f"[{'; '.join(notes)}]"])
