"""Annotations that run late, or not at all, are read one at a time; the return type is never read."""

from __future__ import annotations

import functools
import sys
import textwrap
from typing import Any

import pytest

from agentloop import Agent, ToolContext, tool
from agentloop._core.forms import form_of
from agentloop._core.signature import signature_of
from agentloop.errors import ToolDefinitionError
from agentloop.messages import ToolResult
from agentloop.testing import ScriptedModel, calls

late = pytest.mark.skipif(sys.version_info < (3, 14), reason="Python evaluates annotations early up to 3.13")

AS_TEXT = "from __future__ import annotations\n"
FORMS = [pytest.param(AS_TEXT, id="text"), pytest.param("", id="late", marks=late)]
both_forms = pytest.mark.parametrize("future", FORMS)


def module(future: str, source: str, **given: object) -> dict[str, Any]:
    """The names of a module with that source."""
    names: dict[str, Any] = {"__name__": "late_annotations", **given}
    exec(compile(future + textwrap.dedent(source), "<late>", "exec", dont_inherit=True), names)
    return names


RETURNS = """
import functools

async def function(a: int) -> Missing: ...

class Box:
    async def method(self, a: int) -> Missing: ...
    @classmethod
    async def of_class(cls, a: int) -> Missing: ...
    @staticmethod
    async def static(a: int) -> Missing: ...
    async def __call__(self, a: int) -> Missing: ...

def decorated(inner):
    @functools.wraps(inner)
    async def outer(*args, **kwargs) -> AlsoMissing: ...
    return outer

def nested():
    async def inner(a: int) -> list[Missing] | None: ...
    return inner

async def with_fixed(secret: Secret, a: int) -> Missing.inner: ...

cases = {
    "function": function,
    "method": Box().method,
    "class method": Box.of_class,
    "static method": Box.static,
    "callable object": Box(),
    "wraps": decorated(function),
    "nested": nested(),
    "partial": functools.partial(with_fixed, secret=1),
    "partial of a method": functools.partial(Box().method),
}
"""


@both_forms
@pytest.mark.parametrize(
    "case",
    [
        "function", "method", "class method", "static method", "callable object", "wraps", "nested", "partial",
        "partial of a method",
    ],
)  # fmt: skip
def test_a_return_type_that_cannot_be_found_does_no_harm(future: str, case: str) -> None:
    function = module(future, RETURNS)["cases"][case]

    assert tool(name="t")(function).spec.parameters["properties"] == {"a": {"type": "integer"}}


@late
def test_a_return_type_that_is_defined_further_down_does_no_harm() -> None:
    names = module("", "def make(a: int) -> Later: ...\nread(make)\nclass Later: ...", read=signature_of)

    assert names["Later"]


@both_forms
def test_a_method_named_like_a_type_does_not_stand_for_it(future: str) -> None:
    box = module(
        future,
        """
        class Box:
            def find(self, one: list, many: list[str], some: dict[str, list] | None, other: str) -> list[int]: ...
            def list(self) -> list[int]: ...
            @property
            def str(self) -> str: ...
        """,
    )["Box"]()

    properties = signature_of(box.find).schema["properties"]

    assert (properties["one"], properties["many"]) == (
        {"type": "array", "items": {}},
        {"type": "array", "items": {"type": "string"}},
    )
    assert properties["other"] == {"type": "string"}


@both_forms
@pytest.mark.parametrize("annotation", ["Missing", "list[Missing]", "dict[str, Missing] | None"])
def test_a_parameter_whose_type_cannot_be_found_is_named_with_the_way_out(future: str, annotation: str) -> None:
    make = module(future, f"def make(a: int, x: {annotation}) -> AlsoMissing: ...")["make"]

    with pytest.raises(ToolDefinitionError) as caught:
        signature_of(make)

    text = str(caught.value)
    assert f"parameter `x` of `make`: `Missing`, in its annotation {annotation!r}, cannot be found" in text
    assert "outside of" in text
    assert "if TYPE_CHECKING" in text
    assert ("before the function is made a tool" in text) == (not future)
    assert ("from __future__" in text) == bool(future)


@both_forms
def test_an_annotation_that_raises_is_a_definition_error(future: str) -> None:
    make = module(future, "def make(x: 1 / 0) -> None: ...")["make"]

    with pytest.raises(ToolDefinitionError, match="division by zero"):
        signature_of(make)


@both_forms
def test_a_parameter_that_is_bound_needs_no_type_that_can_be_found(future: str) -> None:
    names = module(future, "def make(first: Missing, a: int): ...")

    assert list(signature_of(functools.partial(names["make"], 1)).schema["properties"]) == ["a"]


@late
def test_a_local_type_that_only_annotations_use_is_found() -> None:
    names = module(
        "",
        """
        import msgspec
        def outer():
            class Local(msgspec.Struct):
                x: int
            def make(local: Local, more: list["Local"], other: Local | None = None) -> Missing: ...
            return make
        make = outer()
        """,
    )

    assert signature_of(names["make"]).decode('{"local": {"x": 1}, "more": []}')["local"].x == 1


@both_forms
async def test_a_tool_with_types_for_the_type_checker_finds_its_context(future: str) -> None:
    names = module(
        future,
        """
        async def show(a: int, context: ToolContext) -> Missing:
            return f"{a} for {context.call_id}"
        """,
        ToolContext=ToolContext,
    )
    model = ScriptedModel(calls("show", a=4), "done")

    outcome = await Agent(model, tools=[tool(names["show"])]).run("go")

    [result] = (message for message in outcome.messages if isinstance(message, ToolResult))
    assert result.text == f"4 for {result.call_id}"


@late
def test_a_form_keeps_the_order_of_its_choices_beside_types_for_the_type_checker() -> None:
    names = module(
        "",
        """
        import attrs
        from typing import Literal
        @attrs.frozen
        class Form:
            size: Literal["small", "big"]
            def later(self) -> Missing: ...
        """,
    )

    assert form_of(names["Form"])["properties"]["size"]["enum"] == ["small", "big"]
