"""Public classes explain themselves: a line for every field, and for every hook point and warning code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import agentloop
from agentloop import events, hooks
from agentloop.events import WarningCode

PACKAGE = Path(agentloop.__file__).parent
MODULES = ("events", "hooks")


def undocumented_fields(source: str) -> Iterator[str]:
    """The fields of public classes that are not followed by a string."""
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        for index, statement in enumerate(node.body):
            if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
                continue
            name = statement.target.id
            following = node.body[index + 1] if index + 1 < len(node.body) else None
            documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if not name.startswith("_") and not documented:
                yield f"{node.name}.{name}"


@pytest.mark.parametrize("module", MODULES)
def test_every_field_of_a_public_class_has_its_line(module: str) -> None:
    source = PACKAGE.joinpath(f"{module}.py").read_text(encoding="utf-8")
    assert list(undocumented_fields(source)) == []


def test_help_on_a_hook_point_explains_that_point() -> None:
    points = [value for value in vars(hooks).values() if isinstance(value, hooks.Point)]
    assert len(points) == len(get_args(hooks.PointName))
    texts = {point.__doc__ for point in points}
    assert len(texts) == len(points)
    assert hooks.Point.__doc__ not in texts


def test_every_warning_that_the_package_emits_has_a_code_that_is_listed() -> None:
    emitted: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("warn", "_warn") and node.args:
                code = node.args[0]
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    emitted.add(code.value)
    assert emitted <= set(get_args(WarningCode))
    assert len(emitted) > 8


def test_every_warning_code_is_explained() -> None:
    source = Path(events.__file__).read_text(encoding="utf-8")
    explained = set(re.findall(r"^- ``(\w+)``", source, re.MULTILINE))
    assert set(get_args(WarningCode)) <= explained
