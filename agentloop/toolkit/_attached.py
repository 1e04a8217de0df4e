"""Files that are attached to a prompt, or to a task for another agent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from agentloop._core.media_types import IMAGES, type_of
from agentloop._core.redaction import visible
from agentloop.errors import UsageError
from agentloop.messages import File, Image, Text, UserPart
from agentloop.toolkit._root import Root
from agentloop.toolkit._text_files import decoded, is_binary
from agentloop.toolkit._walk import spelled

__all__ = ["MAX_BYTES", "attached", "read_attached"]

MAX_BYTES = 5_000_000
"""Bytes of all files together."""


def attached(*paths: str, folder: str | os.PathLike[str] = ".", max_bytes: int = MAX_BYTES) -> list[UserPart]:
    """The parts of a prompt with the contents of files: ``agent.run(["What is in it?", *attached("report.pdf")])``.

    A picture is an `Image`, a text a part that says where the file begins and ends, and any other file an
    `File`, which the provider may or may not take. What a file is, its bytes say, and not its name.

    Args:
      *paths: paths in ``folder``. A link that leads out of it is refused, as is what is no ordinary file.
      folder: the folder of the files.
      max_bytes: bytes of all files together.

    Raises:
      ToolError: a file is not there, too large, or outside of the folder.
      UsageError: ``folder`` is none, or no path is given.
    """
    if not paths:
        raise UsageError("attached() has no files: write attached('report.pdf')")
    return read_attached(Root(folder), paths, max_bytes)


def read_attached(root: Root, paths: Iterable[str], max_bytes: int) -> list[UserPart]:
    """The parts for the files at ``paths`` in ``root``. Raises `ToolError`."""
    parts: list[UserPart] = []
    left = max_bytes
    for path in dict.fromkeys(paths):
        data, _ = root.read(path, left)
        left -= len(data)
        parts.extend(_parts(visible(spelled(path)), data))
    return parts


def _parts(name: str, data: bytes) -> Sequence[UserPart]:
    kind = type_of(data, "application/octet-stream")
    if kind in IMAGES:
        return (Text(f"The picture {name}:"), Image(data, media_type=kind))
    if not is_binary(data) and not data.startswith(b"%PDF-"):
        return (Text(f"--- {name}\n{decoded(data)}\n--- end of {name}"),)
    return (File(data, media_type=kind, name=os.path.basename(name)),)  # noqa: PTH119 - it is no path of here
