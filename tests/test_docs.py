"""The programs in the README and in the documentation do what the text says."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

from agentloop.testing import ScriptedModel, calls, override_agents

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.joinpath("docs").rglob("*.md"))]
PROGRAM = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def programs() -> list[tuple[str, str, str]]:
    """Each program of each page: its place, its text, and the output that the page shows, empty for none."""
    return [
        (f"{page.relative_to(ROOT)}:{text[: match.start()].count(chr(10)) + 1}", match[1], match[2] or "")
        for page in PAGES
        for text in [page.read_text(encoding="utf-8")]
        for match in PROGRAM.finditer(text)
    ]


SHOWN = [program for program in programs() if program[2]]
SILENT = [program for program in programs() if not program[2]]


@pytest.mark.parametrize(("place", "program", "output"), SHOWN, ids=[place for place, *_ in SHOWN])
def test_a_program_prints_the_output_that_the_page_shows(place: str, program: str, output: str) -> None:
    printed = io.StringIO()
    with contextlib.ExitStack() as stack:
        if '"openai:' in program and "ScriptedModel" not in program:
            # A page's first program names a real model; here a script answers for it.
            stack.enter_context(override_agents(ScriptedModel(calls("add", a=2, b=3), "It is 5.")))
        stack.enter_context(contextlib.redirect_stdout(printed))
        # Without the `__future__` of this file, as in a user's.
        exec(compile(program, place, "exec", dont_inherit=True), {"__name__": "page"})

    assert re.sub(r"[0-9a-f]{16}", "…", printed.getvalue()) == output


@pytest.mark.parametrize(("place", "program", "output"), SILENT, ids=[place for place, *_ in SILENT])
def test_a_fragment_without_output_is_python(place: str, program: str, output: str) -> None:
    compile(program, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize(("place", "program", "output"), SILENT, ids=[place for place, *_ in SILENT])
def test_a_fragment_imports_only_names_that_exist(place: str, program: str, output: str) -> None:
    tree = ast.parse(program)
    tree.body = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    exec(compile(tree, place, "exec"), {"__name__": "page"})


MOVES = sorted(ROOT.joinpath("docs", "do").glob("migrate-from-*.md"))
THEIRS = re.compile(r"^```py\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", MOVES, ids=lambda page: page.stem)
def test_a_page_for_movers_has_five_programs_of_the_other_library_and_the_release_they_ran_on(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    theirs = THEIRS.findall(text)

    assert len(theirs) == 5
    assert re.search(r"ran on [\w-]+ \d+\.\d+", text)
    for program in theirs:
        compile(program, page.name, "exec")
        assert "agentloop" not in program


def test_the_pages_for_movers_have_the_same_five_programs_of_ours() -> None:
    ours = [PROGRAM.findall(page.read_text(encoding="utf-8")) for page in MOVES]

    assert [len(programs) for programs in ours] == [5, 5, 5]
    assert ours[0] == ours[1] == ours[2]


PLACES = [
    (path, name)
    for line in (ROOT / "docs" / "contribute" / "log-and-state.md").read_text("utf-8").splitlines()
    if line.startswith("| ")
    for path, names in re.findall(r"`(agentloop/[\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", line)
    for name in re.findall(r"`([\w.]+)`", names)
]


@pytest.mark.parametrize(("path", "name"), PLACES, ids=lambda value: value)
def test_each_step_from_the_call_to_the_row_is_where_the_page_says(path: str, name: str) -> None:
    body = ast.parse((ROOT / path).read_text("utf-8")).body
    for part in name.split("."):
        [found] = [
            node
            for node in body
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == part
        ]
        body = found.body


def test_the_walk_from_the_call_to_the_row_has_its_steps() -> None:
    assert len(PLACES) >= 13
