"""Tools: typed functions that a model may call.

::

    @tool
    async def weather(city: str, days: int = 1) -> str:
        "Look up the weather."

The JSON Schema comes from the signature, the descriptions, of its parameters too, from the docstring.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, TypeAlias, overload

import msgspec
from attrs import field, frozen

from agentloop._core.docstrings import parse
from agentloop._core.schema import context_parameter, signature_of
from agentloop.context import ToolContext
from agentloop.errors import ArgumentsError, ToolDefinitionError
from agentloop.models import ToolSpec

__all__ = ["Arguments", "JsonArguments", "OpenToolset", "Tool", "Toolset", "tool"]

ToolKind: TypeAlias = Literal["async", "sync", "generator"]

IfInterrupted: TypeAlias = Literal["retry", "ask", "report"]
"""What to do about a call of which nobody knows what came of it, since its process ended."""


class Arguments(Protocol):
    """What a tool's arguments must look like."""

    @property
    def schema(self) -> Mapping[str, Any]:
        """JSON Schema, an object at the top."""
        ...

    def decode(self, raw: str | bytes, /) -> dict[str, Any]:
        """JSON text as keyword arguments. Raises `ArgumentsError`."""
        ...

    def convert(self, values: Mapping[str, Any], /) -> dict[str, Any]:
        """JSON values as keyword arguments. Raises `ArgumentsError`."""
        ...


class JsonArguments:
    """Arguments described by a JSON Schema from elsewhere. Only their being an object is checked here."""

    __slots__ = ("schema",)

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema

    def decode(self, raw: str | bytes, /) -> dict[str, Any]:
        """JSON text as keyword arguments. Raises `ArgumentsError`."""
        if not raw.strip():
            return {}
        try:
            return msgspec.json.decode(raw, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ArgumentsError(f"the arguments are not a JSON object: {error}") from error

    def convert(self, values: Mapping[str, Any], /) -> dict[str, Any]:
        """JSON values as keyword arguments."""
        return dict(values)


MIN_RESULT = 200
"""Characters below which a shortened result would be mostly the note that it was shortened."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _check_name(instance: Tool, attribute: object, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ToolDefinitionError(f"a tool's name is 1 to 64 letters, digits, '_' and '-' (providers' rule): {name!r}")


def _check_concurrency(instance: Tool, attribute: object, value: Any) -> None:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise ToolDefinitionError(
            f"tool {instance.name!r}: concurrency={value!r}: give a whole number above 0, or None for no limit"
        )


def _check_max_result(instance: Tool, attribute: object, value: Any) -> None:
    if value is not None and not (isinstance(value, (int, float)) and value >= MIN_RESULT):
        raise ToolDefinitionError(
            f"tool {instance.name!r}: max_result={value!r}: give {MIN_RESULT} characters or more, math.inf for no "
            "limit, or None for the agent's"
        )


def _check_timeout(instance: Tool, attribute: object, value: Any) -> None:
    if value is not None and not (isinstance(value, (int, float)) and value > 0):
        raise ToolDefinitionError(
            f"tool {instance.name!r}: timeout={value!r}: give seconds above 0, math.inf for no limit, "
            "or None for the agent's"
        )


def _check_approval(instance: Tool, attribute: object, value: Any) -> None:
    if not isinstance(value, bool) and not callable(value):
        raise ToolDefinitionError(
            f"tool {instance.name!r}: requires_approval={value!r}: give True, False, or a function of the arguments"
        )


def _check_if_interrupted(instance: Tool, attribute: object, value: object) -> None:
    if value not in (None, "retry", "ask", "report"):
        raise ToolDefinitionError(
            f"tool {instance.name!r}: if_interrupted={value!r}: say 'retry', 'ask' or 'report', or None for what "
            "idempotent= and read_only= make of it"
        )


def _check_destructive(instance: Tool, attribute: object, value: Any) -> None:
    if value and instance.read_only:
        raise ToolDefinitionError(f"tool {instance.name!r} says both read_only=True and destructive=True")


@frozen(kw_only=True, eq=False)
class Tool:
    """A function that a model may call, with what is promised of it. Usually made by `tool`."""

    name: str = field(validator=_check_name)
    description: str
    function: Callable[..., Any] = field(repr=False)
    """Called with the arguments as keywords, and with the context where ``context_name`` says so."""
    arguments: Arguments = field(repr=False)
    kind: ToolKind = "async"
    """How to call it: as an async function, in a thread, or as an async generator whose output streams."""
    context_name: str | None = None
    timeout: float | None = field(default=None, validator=_check_timeout)
    """Seconds; ``None`` for the agent's ``Deadlines.tool``, ``math.inf`` for none. A person's thinking time is free."""
    requires_approval: bool | Callable[[dict[str, Any]], bool] = field(default=False, validator=_check_approval)
    """Whether a person must approve a call; a predicate gets the arguments as the function will."""
    read_only: bool = False
    """Whether it changes nothing. Permissions go by it; nothing checks it."""
    destructive: bool | None = field(default=None, validator=_check_destructive)
    """Whether it may destroy something, rather than only add to it; ``None`` if that is not known."""
    idempotent: bool = False
    """Whether calling it twice with the same arguments does no more than calling it once."""
    if_interrupted: IfInterrupted | None = field(default=None, validator=_check_if_interrupted)
    """What to do, when a stream is resumed, about a call whose process ended while it ran: call the tool again, with
    the same `ToolContext.idempotency_key` (``"retry"``); have a person approve that (``"ask"``); or tell the model that
    it may have run (``"report"``). ``None``: those that are ``idempotent`` or ``read_only`` again, others reported."""
    concurrency: int | None = field(default=None, validator=_check_concurrency)
    """How many calls may run at once in one root stream; ``None`` for any number."""
    max_result: int | float | None = field(default=None, validator=_check_max_result)
    """Characters of a result that the model gets to read at once; ``None`` for the agent's ``max_result``."""
    polling: bool = False
    """Whether calling it again and again with the same arguments is its purpose; such calls are no endless loop."""

    @property
    def may_run_again(self) -> bool:
        """Whether a call of which nobody knows what came of it is made again."""
        if self.if_interrupted is None:
            return self.idempotent or self.read_only
        return self.if_interrupted == "retry"

    @property
    def spec(self) -> ToolSpec:
        """What the model is told."""
        return ToolSpec(self.name, self.description, dict(self.arguments.schema))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as if it were not decorated."""
        return self.function(*args, **kwargs)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    requires_approval: bool | Callable[[dict[str, Any]], bool] = False,
    read_only: bool = False,
    destructive: bool | None = None,
    idempotent: bool = False,
    if_interrupted: IfInterrupted | None = None,
    concurrency: int | None = None,
    max_result: float | None = None,
    polling: bool = False,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    **options: Any,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a typed function a tool. Use it bare, or with the options of `Tool`.

    An async function runs in a task of its stream, a plain one in a thread, which cannot be stopped: after a
    timeout it is reported as abandoned. An async generator's values are shown as they come, and joined they are
    the result. What the function returns reaches the model as text: a string as it is, everything else as JSON;
    `Text`, `Image` and `File`, alone or in a list, as themselves.

    Raises:
      ToolDefinitionError: a parameter has no annotation, or one that cannot be read from JSON.
    """

    def make(function: Callable[..., Any]) -> Tool:
        if isinstance(function, Tool):
            raise ToolDefinitionError(f"{function.name!r} is a tool already")
        if not callable(function):
            raise ToolDefinitionError(f"a tool is made of a function, not of {function!r}")
        context_name = context_parameter(function, (ToolContext,))
        written = _written(function)
        return Tool(
            name=name or _name_of(written),
            description=parse(inspect.getdoc(written)).summary if description is None else description,
            function=function,
            arguments=signature_of(function, skip=() if context_name is None else (context_name,)),
            kind=_kind(function),
            context_name=context_name,
            **options,
        )

    return make if function is None else make(function)


def _written(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` itself, without what `functools.partial` makes of it, which has another name and docstring."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _name_of(written: Callable[..., Any]) -> str:
    return str(getattr(written, "__name__", type(written).__name__))


def _kind(function: Callable[..., Any]) -> ToolKind:
    written = _written(function)
    # An object with an async `__call__` is as good as an async function.
    called = written if inspect.isroutine(written) else getattr(written, "__call__", written)  # noqa: B004
    if inspect.isasyncgenfunction(called):
        return "generator"
    if inspect.isgeneratorfunction(called):
        raise ToolDefinitionError(f"{_name_of(written)!r} is a plain generator: make it an async one, or return a list")
    return "async" if inspect.iscoroutinefunction(called) else "sync"


class OpenToolset(Protocol):
    """A toolset that has been started.

    One that also has ``instructions``, some text, has the model told them for as long as the stream runs.
    """

    async def list_tools(self) -> Sequence[Tool]:
        """The tools there are now. Asked before each turn, so it should be quick where nothing has changed."""
        ...


class Toolset(Protocol):
    """A source of tools that has to be started and stopped, such as a server."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    def open(self) -> AbstractAsyncContextManager[OpenToolset]:
        """Start it, and stop it when the block ends.

        Entered and left by one task of its own, which does nothing in between, so the block may hold a nursery.
        """
        ...
