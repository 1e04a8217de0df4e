"""The last state of lines that a program writes again and again."""

from __future__ import annotations

import time

import pytest

from agentloop.toolkit._overwritten import OverwrittenLines


def shown(text: str, size: int = 1 << 20) -> str:
    lines = OverwrittenLines()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    return "".join(map(lines.add, pieces)) + lines.end()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\b\bb\n", "b\n"),
        ("ab\b\b\bcd\n", "cd\n"),
        ("|\b/\b-\bdone\n", "done\n"),
        ("abc\b\bx\n", "ax\n"),
        ("\b\bx\n", "x\n"),
        ("a 1%\ra 50%\ra 100%\n", "a 100%\n"),
        ("dos\r\nline\r\n", "dos\r\nline\r\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_a_line_is_shown_in_its_last_state(text: str, expected: str, size: int) -> None:
    assert shown(text, size) == expected


@pytest.mark.parametrize(
    "piece", ["x" * 30_000 + "\b" * 30_000, "x\b" * 30_000, "\x1b[" * 30_000, "\x1b[1G" * 15_000, "\r" * 60_000]
)
def test_a_command_cannot_block_the_run_with_what_it_overwrites(piece: str) -> None:
    lines = OverwrittenLines()
    began = time.perf_counter()
    for _ in range(3):
        lines.add(piece)
    assert time.perf_counter() - began < 3
