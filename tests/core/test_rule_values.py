"""Wrong values in the fields of rules: an error that names the field, and rules that can be saved and read again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from agentloop._core.permissions import Call, decide
from agentloop.errors import UsageError
from agentloop.permissions import Exact, Glob, Grant, Permissions, Rule, Under


class Odd:
    """An object of another program, which cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(categories=None), max_size=8)
    | st.binary(max_size=4)
    | st.sampled_from([object, print, {1, 2}, Exact(1), Glob("a"), Under("a"), Rule("a"), Permissions()])
    | st.sampled_from(["shell", "*", "a|b", "Bash(rm *)", "../a", "a/*", "", " ", "\ud800", "plan"]),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.tuples(inside)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inside, max_size=3)
    ),
    max_leaves=5,
)

FIELDS: list[tuple[type, str, Callable[[Any], Any]]] = [
    (Exact, "value", Exact),
    (Glob, "pattern", Glob),
    (Glob, "allow_shell_characters", lambda value: Glob("a", allow_shell_characters=value)),
    (Under, "folder", Under),
    (Rule, "tool", Rule),
    (Rule, "where", lambda value: Rule("a", value)),
    (Rule, "where", lambda value: Rule("a", {"b": value})),
    (Rule, "where", lambda value: Rule("a", {value: Exact(1)}) if _is_hashable(value) else Rule("a", value)),
    (Rule, "allow_other_arguments", lambda value: Rule("a", allow_other_arguments=value)),
    (Grant, "agents", lambda value: Grant(value, Rule("a"))),
    (Grant, "agents", lambda value: Grant((value,), Rule("a"))),
    (Grant, "rule", lambda value: Grant(("a",), value)),
    (Permissions, "allow", lambda value: Permissions(allow=value)),
    (Permissions, "ask", lambda value: Permissions(ask=[value])),
    (Permissions, "deny", lambda value: Permissions(deny=(value,))),
    (Permissions, "mode", lambda value: Permissions(mode=value)),
]


def _is_hashable(value: object) -> bool:
    with contextlib.suppress(TypeError):
        hash(value)
        return True
    return False


@pytest.mark.parametrize(
    ("kind", "field", "make"), FIELDS, ids=[f"{number} {one[1]}" for number, one in enumerate(FIELDS)]
)
@settings(max_examples=30)
@given(value=anything)
def test_a_wrong_value_in_a_rule_is_an_error_that_names_the_field_and_a_right_one_can_be_saved(
    kind: type, field: str, make: Callable[[Any], Any], value: Any
) -> None:
    problem, made = "", None
    try:
        made = make(value)
    except UsageError as error:
        problem = str(error)
    if made is None:
        # A rule in a list of permissions, or in a grant, names its own field.
        names = (f"{kind.__name__}.{field}", f"{kind.__name__}({value!r})" if kind is Under else "Rule.tool")
        assert any(name in problem for name in names), problem
    else:
        assert msgspec.json.decode(msgspec.json.encode(made), type=kind) == made


@pytest.mark.parametrize(
    ("kind", "field", "make"), FIELDS, ids=[f"{number} {one[1]}" for number, one in enumerate(FIELDS)]
)
def test_a_value_that_cannot_be_shown_is_named_by_its_type(kind: type, field: str, make: Callable[[Any], Any]) -> None:
    with pytest.raises(UsageError) as caught:
        make(Odd())
    assert f"{kind.__name__}.{field}" in str(caught.value)
    assert "Odd" in str(caught.value)


def _is_json(value: object) -> bool:
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value)) == value)
    except (TypeError, ValueError, RuntimeError, msgspec.DecodeError):
        return False


@given(
    st.lists(
        st.builds(
            lambda tool, value: Rule(tool, {"x": Exact(value)}),
            st.sampled_from(["a", "*"]),
            st.none() | st.integers() | st.text(max_size=3),
        )
    ),
    st.dictionaries(st.sampled_from("xy"), anything.filter(_is_json)),
)
def test_a_rule_decides_about_every_call(rules: list[Rule], arguments: dict[str, Any]) -> None:
    more = [Rule("a", {"x": Glob("*s*")}), Rule("a", {"x": Under("/srv")})]
    for permissions in (Permissions(allow=[*rules, *more]), Permissions(ask=[*rules, *more])):
        assert decide(permissions, Call("a", arguments)).effect in ("allow", "ask", "tool")
