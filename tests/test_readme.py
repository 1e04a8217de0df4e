"""The README's test and its commands work; `tests.test_docs` runs its programs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
[TEST] = re.findall(r"```python\n((?:(?!```).)*?async def test_.*?)```", README, flags=re.DOTALL)


def test_the_test_of_the_readme_passes_without_any_configuration(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)

    pytester.runpytest_inprocess("--strict-markers").assert_outcomes(passed=1)


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    command = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]

    assert f"```sh\n{command}\n```" in README


def test_two_commands_set_up_everything_on_a_fresh_machine() -> None:
    assert README.count("```sh\npython3 -m venv .venv && ") == 2


def test_links_of_the_readme_lead_to_files_that_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not ROOT.joinpath(link).exists()] == []
