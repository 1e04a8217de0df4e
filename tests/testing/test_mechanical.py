"""The mechanical changes: what is changed, and who notices."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.testing.mechanical.__main__ import main
from tests.testing.mechanical.mutations import mutants_of

needs_monitoring = pytest.mark.skipif(sys.version_info < (3, 12), reason="lines are watched by sys.monitoring")


def changed(source: str) -> dict[str, str]:
    return {mutant.change: ast.unparse(mutant.tree) for mutant in mutants_of(source)}


def test_conditions_are_turned_round_and_parts_of_them_left_out() -> None:
    changes = changed("def f(a, b):\n    if a and b > 1:\n        return 1\n")

    assert "if not (a and b > 1):" in changes["`a and b > 1` the other way round"]
    assert "if a or b > 1:" in changes["and/or in `a and b > 1`"]
    assert "if b > 1:" in changes["no `a` in `a and b > 1`"]
    assert "if a and b >= 1:" in changes["`b >= 1` for `b > 1`"]


def test_statements_are_left_out_but_for_those_that_no_user_sees() -> None:
    changes = changed("def f(a):\n    a.append(0)\n    log.debug(a)\n    a.b = c\n    return a\n")

    assert [name for name in changes if name.startswith("leaves out")] == [
        "leaves out `a.append(0)`",
        "leaves out `a.b = c`",
    ]
    assert "a.append" not in changes["leaves out `a.append(0)`"]


def test_an_error_is_not_caught_and_a_cleanup_not_done() -> None:
    source = (
        "async def f():\n    try:\n        g()\n    except ValueError:\n        h()\n    finally:\n        await k()\n"
    )
    changes = changed(source)

    assert "except ValueError:\n        raise" in changes["no `except` of `ValueError`"]
    assert "finally" not in changes["no `finally`"]


def test_what_runs_when_a_module_is_imported_stays_as_it_is() -> None:
    assert changed("LIMIT = 3\nif LIMIT > 2:\n    LIMIT = 4\n") == {}


def test_a_file_is_changed_and_stays_what_it_was() -> None:
    source = "def f(a):\n    if a:\n        return [1]\n"
    trees = [mutant.tree for mutant in mutants_of(source)]

    assert len({ast.unparse(tree) for tree in trees}) == len(trees) == 2


@needs_monitoring
@pytest.mark.nightly
def test_changes_that_nobody_notices_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--file", "agentloop/_runtime/loop.py", "--sample", "3"]) == 0

    assert " of 3 changes survive" in capsys.readouterr().out
