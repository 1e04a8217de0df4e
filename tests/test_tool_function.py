"""A tool is its function: calling it, and looking at it, is calling and looking at the function."""

from __future__ import annotations

import copy
import functools
import inspect
import pydoc
from collections.abc import AsyncGenerator, Callable
from typing import Any, get_type_hints

import pytest

from agentloop import Agent, Tool, ToolContext, UsageError, run_sync, tool
from agentloop.errors import ToolDefinitionError
from agentloop.testing import ScriptedModel, calls
from agentloop.tools import ToolOptions


@tool
def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    Args:
      a: the first.
    """
    return a + b


@tool(name="look_up", timeout=3)
async def look(city: str) -> str:
    """Look something up."""
    return f"{city} is big"


@tool
async def count(to: int) -> AsyncGenerator[int]:
    """Count."""
    for number in range(to):
        yield number


async def test_calling_a_tool_is_calling_its_function() -> None:
    assert add(2, b=3) == 5
    assert await look("Porto") == "Porto is big"
    assert [number async for number in count(3)] == [0, 1, 2]
    with pytest.raises(TypeError, match="nothing"):
        add(2, nothing=3)  # type: ignore[call-arg]


def test_a_tool_has_the_name_the_docstring_and_the_signature_of_its_function() -> None:
    assert (add.__name__, look.__name__) == ("add", "look")
    assert look.name == "look_up"
    assert inspect.getdoc(add) == inspect.getdoc(add.function)
    assert str(inspect.signature(add)) == "(a: 'int', b: 'int' = 1) -> 'int'"
    assert inspect.signature(look) == inspect.signature(look.function)
    assert inspect.unwrap(add) is add.function
    assert "Add two numbers." in pydoc.render_doc(add, renderer=getattr(pydoc, "plaintext"))  # noqa: B009 - typeshed has no plaintext


def test_a_tool_without_a_docstring_has_none() -> None:
    @tool
    def bare(a: int) -> int:
        return a

    assert bare.__doc__ is None


def test_the_class_keeps_its_own_name_and_docstring() -> None:
    assert (str(Tool.__name__), Tool.__qualname__) == ("Tool", "Tool")
    assert "promises" in str(Tool.__doc__)
    assert "function" in inspect.signature(Tool).parameters


class Greeter:
    """Greets."""

    async def __call__(self, name: str) -> str:
        return f"Hello, {name}."

    def part(self, name: str) -> str:
        """Part."""
        return f"Bye, {name}."


@pytest.mark.parametrize(
    ("function", "name", "doc"),
    [
        (Greeter(), "Greeter", "Greets."),
        (Greeter().part, "part", "Part."),
        (functools.partial(Greeter().part, "Ann"), "part", "Part."),
    ],
)
def test_a_method_a_partial_and_a_callable_object_give_their_names_too(
    function: Callable[..., Any], name: str, doc: str
) -> None:
    made = tool(function)

    assert (made.__name__, made.name, made.__doc__) == (name, name, doc)
    assert inspect.signature(made) == inspect.signature(function)


def test_a_copy_of_a_tool_is_its_function_too() -> None:
    again = copy.copy(add)

    assert (again(1), again.__name__, again.__doc__) == (2, "add", add.__doc__)


def test_the_options_of_a_tool_are_parameters_and_those_of_its_class() -> None:
    options = set(inspect.signature(tool).parameters) - {"function"}

    assert options == {*get_type_hints(ToolOptions), "name", "description", "agents"}
    assert options < set(inspect.signature(Tool).parameters)


def test_an_unknown_option_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="timeuot"):
        tool(timeuot=3)  # type: ignore[call-overload]


def test_brackets_may_name_fewer_types_than_there_are() -> None:
    for named in (Agent[int], Agent[int, str], Tool[Callable[[int], str]], ToolContext[int]):
        assert named is not None
    with pytest.raises(TypeError, match="Too many"):
        Agent[int, str, str]  # type: ignore[misc]


class Database:
    """Deps."""

    rows = 3


@tool
async def rows(context: ToolContext[Database]) -> int:
    """Count the rows."""
    return context.deps.rows


def test_an_agent_whose_deps_have_a_type_gets_them() -> None:
    agent = Agent(ScriptedModel(calls("rows"), "3."), tools=[rows], deps_type=Database)

    assert run_sync(agent, "Go.", deps=Database()).output == "3."
    assert agent.deps_type is Database


def test_a_run_that_forgets_its_deps_is_refused() -> None:
    agent = Agent(ScriptedModel("never"), tools=[rows], deps_type=Database)

    with pytest.raises(UsageError, match="agent 'agent' has deps_type=Database, and this run has no deps: give it dep"):
        run_sync(agent, "Go.")


@pytest.mark.parametrize("deps_type", [None, type(None), object, int | None, Any])
def test_a_run_whose_deps_may_be_none_needs_none(deps_type: Any) -> None:
    assert run_sync(Agent(ScriptedModel("Hi."), deps_type=deps_type), "Go.").output == "Hi."


def test_deps_in_the_place_of_their_type_are_refused() -> None:
    with pytest.raises(UsageError, match=r"deps_type= takes the type of the deps, not <.*Database.*each run"):
        Agent(ScriptedModel("never"), deps_type=Database())  # type: ignore[arg-type]


def test_a_tool_of_a_tool_is_refused() -> None:
    with pytest.raises(ToolDefinitionError, match="'add' is a tool already"):
        tool(add)
