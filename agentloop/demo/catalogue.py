"""Finding the examples: beside this file in an installed wheel, at the top of a checkout else."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Awaitable, Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attrs import frozen

from agentloop.agent import Agent
from agentloop.errors import UsageError
from agentloop.models import Model

__all__ = ["Example", "Program", "UnknownExampleError", "find_examples", "load", "lookup"]

_HERE = Path(__file__).parent


class UnknownExampleError(UsageError):
    """There is no example of that name."""


@frozen
class Example:
    """A program of ``examples/``, not loaded yet."""

    name: str
    path: Path
    docstring: str

    @property
    def summary(self) -> str:
        """Summary in one line."""
        return self.docstring.partition("\n")[0]

    @property
    def promise(self) -> str:
        """The output of a run, with ``...`` for parts that differ each time; empty if the example does not show it."""
        _, _, block = self.docstring.partition("Prints::\n\n")
        return "".join(line[4:] + "\n" for line in block.rstrip().split("\n")) if block else ""


@frozen
class Program:
    """The parts of an example."""

    make_agent: Callable[[Model | str | None], Agent[Any, Any]] | None
    prompts: tuple[str, ...]
    main: Callable[..., Awaitable[None]]


_PROGRAMS = {"fastapi_chat", "fastapi_mount", "serve"}
"""Examples that are programs for a server, and not for this terminal."""


def find_examples(folder: Path | None = None) -> Mapping[str, Example]:
    """All examples by name, in alphabetical order. None of them is loaded."""
    if folder is None:
        # A checkout has no such folder beside this file. Look here first: in a wheel, two levels up is `site-packages`,
        # where a folder called "examples" belongs to another project.
        inside = _HERE / "examples"
        folder = inside if inside.is_dir() else _HERE.parents[1] / "examples"
    found = (_read(path) for path in sorted(folder.glob("*.py")) if path.stem not in _PROGRAMS)
    return {example.name: example for example in found}


def _read(path: Path) -> Example:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return Example(path.stem, path, ast.get_docstring(tree) or "")


def lookup(name: str) -> Example:
    """The example of that name.

    Raises:
      UnknownExampleError: there is none; the message says which there are.
    """
    examples = find_examples()
    if name not in examples:
        close = get_close_matches(name, examples, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UnknownExampleError(f"there is no example {name!r}; {hint}there are: {', '.join(examples)}")
    return examples[name]


def load(example: Example) -> Program:
    """Import ``example``."""
    name = f"agentloop_example_{example.name}"
    spec = importlib.util.spec_from_file_location(name, example.path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Classes look up the names in their annotations there.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    prompts = getattr(module, "PROMPTS", None) or (getattr(module, "PROMPT", ""),)
    return Program(getattr(module, "make_agent", None), tuple(prompts), module.main)
