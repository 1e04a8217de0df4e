"""What the README says is what happens."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, flags=re.DOTALL)
[TEST] = re.findall(r"```python\n((?:(?!```).)*?async def test_.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize(("program", "output"), PROGRAMS)
def test_a_program_prints_what_the_readme_says(program: str, output: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "README.md", "exec"), {"__name__": "readme"})

    shown = re.sub(r"[0-9a-f]{16}", "…", printed.getvalue())
    assert shown == output


def test_every_program_of_the_readme_is_run() -> None:
    assert len(PROGRAMS) + len([TEST]) == README.count("```python") == 6


def test_the_test_of_the_readme_passes_without_any_configuration(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)

    pytester.runpytest_inprocess("--strict-markers").assert_outcomes(passed=1)


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    command = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]

    assert f"```sh\n{command}\n```" in README


def test_there_are_two_commands() -> None:
    assert README.count("```sh") == 2
