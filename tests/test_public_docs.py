"""Public classes explain themselves: a line for every field, and for every hook point and warning code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

import agentloop
from agentloop import events, hooks
from agentloop.events import WarningCode

PACKAGE = Path(agentloop.__file__).parent
MODULES = (
    "commands",
    "config",
    "context_sources",
    "errors",
    "events",
    "hooks",
    "limits",
    "messages",
    "models",
    "outcome",
    "permissions",
    "questions",
    "run_info",
    "tools",
)


def undocumented_fields(source: str) -> Iterator[str]:
    """The fields of public classes, and the attributes that they set, that are not followed by a string."""
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        creators = [part.body for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        for body in (node.body, *creators):
            for statement, following in pairwise([*body, None]):
                name = field_name(statement)
                documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                if name and not name.startswith("_") and not documented:
                    yield f"{node.name}.{name}"


def field_name(statement: object) -> str:
    """The field that ``statement`` declares or sets: ``x: int``, or ``self.x = ...``; empty if it is neither."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
        return target.attr
    return ""


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
