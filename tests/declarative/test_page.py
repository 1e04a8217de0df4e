"""The page of the documentation has the table that the loader obeys."""

from __future__ import annotations

import re
import sys

import pytest

from agentloop.declarative import load_team
from tests.declarative.reference import PAGE, page_with, tables


def test_the_page_has_the_table_of_all_fields() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page_with(tables()), "write it anew: python -m tests.declarative.reference"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")
def test_the_file_on_the_page_is_obeyed_as_a_whole() -> None:
    [file] = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    team = load_team(file, strict=True)
    assert {*team.all_agents} == {"root", "coder"}
    assert team.all_agents["root"].limits.turns == 30
