"""The page of the documentation has the table that the loader obeys."""

from __future__ import annotations

from tests.declarative.reference import PAGE, page_with, tables


def test_the_page_has_the_table_of_all_fields() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page_with(tables()), "write it anew: python -m tests.declarative.reference"
