"""Docstrings in three styles: what the function does, and what its parameters mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from hypothesis import example, given, strategies as st

from agentloop._core.signature import parse_docstring

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
WORDS = st.lists(st.from_regex(r"[A-Za-z0-9.,()]{1,8}", fullmatch=True), min_size=1, max_size=30)
PARAMETERS = st.dictionaries(NAMES, WORDS, min_size=1, max_size=5)


def wrapped(words: list[str], indent: str) -> str:
    """The words, a few to a line, as an author would break them."""
    lines = [" ".join(words[start : start + 5]) for start in range(0, len(words), 5)]
    return f"\n{indent}".join(lines)


def google(parameters: dict[str, list[str]]) -> str:
    entries = "".join(f"    {name}: {wrapped(words, ' ' * 8)}\n" for name, words in parameters.items())
    return f"Do it.\n\nArgs:\n{entries}\nReturns:\n    Something.\n"


def numpy(parameters: dict[str, list[str]]) -> str:
    entries = "".join(f"{name} : int\n    {wrapped(words, '    ')}\n" for name, words in parameters.items())
    return f"Do it.\n\nParameters\n----------\n{entries}\nReturns\n-------\nint\n    Something.\n"


def sphinx(parameters: dict[str, list[str]]) -> str:
    entries = "".join(f":param {name}: {wrapped(words, '    ')}\n" for name, words in parameters.items())
    return f"Do it.\n\n{entries}:returns: Something.\n"


@given(PARAMETERS, st.sampled_from([google, numpy, sphinx]), st.booleans())
def test_what_is_written_in_any_style_is_read_back(
    parameters: dict[str, list[str]], style: Callable[[dict[str, list[str]]], str], indented: bool
) -> None:
    text = style(parameters)
    if indented:
        text = text.replace("\n", "\n        ")

    doc = parse_docstring(text)

    assert doc.summary == "Do it."
    assert doc.parameters == {name: " ".join(words) for name, words in parameters.items()}


LINES = st.sampled_from(
    ["Args:", "Parameters", "---", "  x: y", ":param x: y", ":param", ": :", "", "  ", "x : y", "===", "Raises:"]
)


@given(st.text() | st.lists(LINES | st.text(max_size=9)).map("\n".join))
@example(":param:\n:param : x")
@example("Parameters\n----------")
def test_no_text_is_too_odd(text: str) -> None:
    parse_docstring(text)


def test_without_a_docstring_there_is_nothing() -> None:
    doc = parse_docstring(None)

    assert doc.summary == ""
    assert doc.parameters == {}


def test_the_summary_is_all_that_stands_before_the_first_section() -> None:
    doc = parse_docstring(
        """Delete a file.

        Ask first:
          - always
          - really

        Returns:
          Nothing.

        More of no use.
        """
    )

    assert doc.summary == "Delete a file.\n\nAsk first:\n  - always\n  - really"


def test_a_warning_is_for_the_model_too() -> None:
    doc = parse_docstring("Delete a file.\n\nWarning:\n    It is gone for good.\n\nArgs:\n    path: which.")

    assert doc.summary == "Delete a file.\n\nWarning:\n    It is gone for good."
    assert doc.parameters == {"path": "which."}


@pytest.mark.parametrize("text", ["Examples:\nthere are none.", "Give the arguments.\nArgs:", "Do it.\n---"])
def test_a_title_without_a_section_is_only_text(text: str) -> None:
    assert parse_docstring(text).summary == text


@pytest.mark.parametrize("role", [":func:`open` a file.", "See :ref:`there`.", ":note that:this is text"])
def test_a_role_in_the_text_is_no_field(role: str) -> None:
    assert parse_docstring(role).summary == role


def test_google_types_stars_and_late_descriptions_are_understood() -> None:
    doc = parse_docstring(
        """Do it.

        Args:
            count (int, optional): how many.
            match (Callable[[str], bool]): which.
            *names: of whom.
            **rest: and more.
            late:
                on the next line.
        """
    )

    assert doc.parameters == {
        "count": "how many.",
        "match": "which.",
        "names": "of whom.",
        "rest": "and more.",
        "late": "on the next line.",
    }


def test_google_text_below_a_section_is_not_part_of_it() -> None:
    assert parse_docstring("Do it.\n\nArgs:\n    x: the x.\n\nThus: done.").parameters == {"x": "the x."}


def test_numpy_names_may_share_a_description() -> None:
    doc = parse_docstring("Do it.\n\nParameters\n----------\nx, y : int\n    Where.\n\n    Both.\n*rest\n    More.")

    assert doc.parameters == {"x": "Where. Both.", "y": "Where. Both.", "rest": "More."}


def test_numpy_may_underline_with_equals_signs() -> None:
    assert parse_docstring("Do it.\n\nParameters\n==========\nx\n    Where.").parameters == {"x": "Where."}


def test_sphinx_types_are_left_out() -> None:
    doc = parse_docstring(
        """Do it.

        :param int count: how many.
        :param dict[str, int] table: which.
        :type count: int
        :param \\*rest: more.
        :raises ValueError: never.
        """
    )

    assert doc.summary == "Do it."
    assert doc.parameters == {"count": "how many.", "table": "which.", "rest": "more."}


def test_other_sections_describe_no_parameters() -> None:
    assert parse_docstring("Do it.\n\nRaises:\n    ValueError: never.\n\nAttributes:\n    x: no.").parameters == {}


def test_our_own_docstrings_are_understood() -> None:
    class Own:
        def method(self, raw: str) -> None:
            """Read it.

            Args:
              raw: a text; or
                nothing.

            Raises:
              ValueError: never.
            """

    assert parse_docstring(inspect.getdoc(Own.method)).parameters == {"raw": "a text; or nothing."}
    assert parse_docstring(Own.method.__doc__) == parse_docstring(inspect.getdoc(Own.method))
