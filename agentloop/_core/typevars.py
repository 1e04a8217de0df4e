"""The type variables that agents, contexts, tools, streams and outcomes share, and their defaults.

A class that is named without brackets has the defaults: ``Agent`` is ``Agent[Any, str]``, ``ToolContext`` is
``ToolContext[Any]``, ``Outcome`` is ``Outcome[Any]``.

Type variables have defaults (PEP 696) from Python 3.13 on, and before that in ``typing_extensions``, which the core
does not install. Type checkers bring its stubs, so they see the defaults. At run time the variables have none, and
`Padded` makes up for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from typing_extensions import TypeForm, TypeVar
else:
    from typing import TypeVar as _TypeVar

    TypeForm = type
    """A type as a value: a class, and also ``int | str``, ``list[int]`` or ``Literal["a"]`` (PEP 747)."""

    def TypeVar(name, *, default=None, **options):  # noqa: N802 - the name of the class
        return _TypeVar(name, **options)


__all__ = [
    "AgentOutput_co",
    "Deps",
    "Deps_co",
    "Deps_contra",
    "Function_co",
    "Output",
    "Output_co",
    "Padded",
    "Params",
    "Result",
    "Takes_co",
    "TypeForm",
]

# For functions, which get each of them from an argument.
Deps = TypeVar("Deps")
"""The type of ``deps=``."""
Output = TypeVar("Output")
"""The type of ``outcome.output``."""
Result = TypeVar("Result")
"""The type that a user's function returns."""
Params = ParamSpec("Params")
"""The parameters of a user's function."""

# For classes.
Deps_co = TypeVar("Deps_co", covariant=True, default=Any)
"""The type of the deps that an object gives, such as a tool context; any by default."""
Deps_contra = TypeVar("Deps_contra", contravariant=True, default=Any)
"""The type of the deps that an object takes, such as an agent or a tool; any by default."""
Output_co = TypeVar("Output_co", covariant=True, default=Any)
"""The type of the output of an outcome or a stream; any by default."""
AgentOutput_co = TypeVar("AgentOutput_co", covariant=True, default=str)
"""The type of the output of an agent; text by default, as for an agent without ``output_type=``."""
Function_co = TypeVar("Function_co", covariant=True, default=Any)
"""The type of a tool's function; any function by default."""
Takes_co = TypeVar("Takes_co", covariant=True, default=Any)
"""The deps that a tool reads, as the function ``(ToolContext[Deps]) -> object``; any by default.

mypy joins the types of the tools in a list if all type variables are covariant, and falls back to `object` otherwise.
"""


class Padded:
    """A base of generic classes whose brackets may name fewer types than there are type variables: ``Agent[Deps]``.

    It stands before `typing.Generic` among the bases.
    """

    __slots__ = ()

    def __class_getitem__(cls, types: Any, /) -> Any:
        generic: Any = super()
        given: list[Any] = [*types] if isinstance(types, tuple) else [types]
        missing = len(getattr(cls, "__parameters__", ())) - len(given)
        return generic.__class_getitem__((*given, *[Any] * missing))
