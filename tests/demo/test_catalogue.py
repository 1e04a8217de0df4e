"""Finding examples and loading them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentloop.demo import catalogue
from agentloop.demo.catalogue import UnknownExampleError, find_examples, load, lookup

PROGRAM = '''"""Short: what it shows.

More about it.

Prints::

    one
      two
"""

PROMPTS = ("first", "second")

def make_agent(model=None):
    return model

async def main():
    ...
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "short.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "about.md").write_text("no example", encoding="utf-8")
    return tmp_path


def test_an_example_says_what_it_shows_and_what_it_prints(folder: Path) -> None:
    example = find_examples(folder)["short"]

    assert (example.summary, example.promise) == ("Short: what it shows.", "one\n  two\n")


def test_only_python_files_are_examples(folder: Path) -> None:
    assert [*find_examples(folder)] == ["short"]


def test_looking_for_examples_runs_none_of_them(folder: Path) -> None:
    (folder / "broken.py").write_text('"""Broken."""\nraise SystemExit(3)', encoding="utf-8")

    assert find_examples(folder)["broken"].summary == "Broken."


def test_an_example_is_loaded_with_its_prompts(folder: Path) -> None:
    program = load(find_examples(folder)["short"])

    assert program.prompts == ("first", "second")
    assert program.make_agent is not None


def test_a_wheel_has_its_examples_beside_the_demo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where a checkout has them: there, in `site-packages`, may be a folder of somebody else."""
    (folder / "examples").mkdir()
    (folder / "examples" / "mine.py").write_text('"""Mine."""', encoding="utf-8")
    monkeypatch.setattr(catalogue, "_HERE", folder)

    assert [*find_examples()] == ["mine"]


def test_an_unknown_name_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UnknownExampleError, match=r"no example 'helo'; did you mean 'hello'\? there are: background"):
        lookup("helo")
