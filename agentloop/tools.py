"""Tools: typed functions that a model can call.

::

    @tool
    async def weather(city: str, days: int = 1) -> str:
        "Look up the weather."

The JSON Schema comes from the signature; the descriptions, also of parameters, come from the docstring.
"""

from __future__ import annotations

import functools
import inspect
import opcode
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import CodeType
from typing import Any, Concatenate, Generic, Literal, Protocol, TypeAlias, TypedDict, TypeGuard, cast, overload

import msgspec
from attrs import field, frozen

from agentloop._core.field_checks import FieldError, json_value, shown
from agentloop._core.first_guesses import explain_options
from agentloop._core.foreign_errors import describe
from agentloop._core.json_text import decode_json
from agentloop._core.json_types import with_declared_integers
from agentloop._core.on_first_use import get_close_matches
from agentloop._core.signature import context_parameter, parse_docstring, signature_of
from agentloop._core.typevars import Deps, Function_co, Padded, Params, Result, Takes_co
from agentloop.context import AgentBase, ToolContext
from agentloop.errors import AgentLoopError, ArgumentsError, ToolDefinitionError, UsageError
from agentloop.models import Model, ModelChoice, ToolSpec
from agentloop.run_info import Offered, check_info_function
from agentloop.safety import Assessment

__all__ = [
    "Arguments",
    "JsonArguments",
    "OpenToolset",
    "Tool",
    "ToolDecorator",
    "ToolFunction",
    "ToolOptions",
    "Toolset",
    "is_tool",
    "tool",
]

ToolKind: TypeAlias = Literal["async", "sync", "generator"]

IfInterrupted: TypeAlias = Literal["retry", "ask", "report"]
"""What to do about a call whose outcome is unknown, because its process died. See `Tool.if_interrupted`."""


class Arguments(Protocol):
    """The schema of a tool's arguments, and the way to decode them."""

    @property
    def schema(self) -> Mapping[str, Any]:
        """JSON Schema, an object at the top."""
        ...

    def decode(self, raw: str | bytes, /) -> dict[str, Any]:
        """Decode JSON text to keyword arguments. Raises `ArgumentsError`."""
        ...

    def convert(self, values: Mapping[str, Any], /) -> dict[str, Any]:
        """Convert JSON values to keyword arguments. Raises `ArgumentsError`."""
        ...


class JsonArguments:
    """Arguments with a JSON Schema from another program, such as an MCP server.

    Checks only that they are a JSON object; the other program checks the rest.
    """

    __slots__ = ("schema",)

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        """JSON Schema, an object at the top."""

    def decode(self, raw: str | bytes, /) -> dict[str, Any]:
        """Decode JSON text to keyword arguments. Raises `ArgumentsError`."""
        if not raw.strip():
            return {}
        try:
            arguments: dict[str, Any] = decode_json(raw, dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ArgumentsError(f"the arguments are not a JSON object: {error}") from error
        return self.convert(arguments)

    def convert(self, values: Mapping[str, Any], /) -> dict[str, Any]:
        """Convert JSON values to keyword arguments: 3.0 becomes 3 where the schema has an integer."""
        return cast("dict[str, Any]", with_declared_integers(dict(values), self.schema))


MIN_RESULT = 200
"""The smallest ``max_result``, in characters. A shorter result would consist mostly of the note about the rest."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _check_name(instance: Tool, attribute: object, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ToolDefinitionError(
            f"a tool's name is 1 to 64 letters, digits, '_' and '-' (providers' rule): {shown(name)}"
        )


def _check_description(instance: Tool, attribute: object, description: Any) -> None:
    if not isinstance(description, str):
        raise ToolDefinitionError(f"tool {instance.name!r}: description={shown(description)}: give text for the model")


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


def _check_offered(instance: Tool, attribute: object, value: Any) -> None:
    if value is not None:
        try:
            check_info_function(f"tool {instance.name!r}: offered=", value)
        except UsageError as error:
            raise ToolDefinitionError(str(error)) from None


def _check_if_interrupted(instance: Tool, attribute: object, value: object) -> None:
    if value not in (None, "retry", "ask", "report"):
        raise ToolDefinitionError(
            f"tool {instance.name!r}: if_interrupted={value!r}: say 'retry', 'ask' or 'report', or None for what "
            "idempotent= and read_only= make of it"
        )


def _check_model(instance: Tool, attribute: object, value: object) -> None:
    is_model = isinstance(value, (str, ModelChoice)) or callable(getattr(value, "respond", None))
    if value is not None and not is_model:
        raise ToolDefinitionError(
            f"tool {instance.name!r}: model={shown(value)}: give a model, its name, or ModelChoice(...)"
        )


def _check_assess(instance: Tool, attribute: object, value: Any) -> None:
    if value is not None and not callable(value):
        raise ToolDefinitionError(
            f"tool {instance.name!r}: assess={shown(value)}: give a function of the arguments that returns an "
            "Assessment, or None"
        )


def _metadata(value: Any) -> Any:
    """``value`` with JSON values that nobody else can write to; other values are left for `_check_metadata`."""
    try:
        return json_value(value, "metadata")
    except FieldError:
        return value


def _check_metadata(instance: Tool, attribute: object, value: Any) -> None:
    if not isinstance(value, dict):
        raise ToolDefinitionError(f"tool {instance.name!r}: metadata={shown(value)}: give a dict of JSON values")
    try:
        json_value(cast("dict[object, object]", value), "metadata")
    except FieldError as error:
        raise ToolDefinitionError(f"tool {instance.name!r}: {error}") from None


def _check_deferred(instance: Tool, attribute: object, value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise ToolDefinitionError(
            f"tool {instance.name!r}: deferred={value!r}: give True, False, or None to leave it to Agent(deferred=...)"
        )


def _check_destructive(instance: Tool, attribute: object, value: Any) -> None:
    if value and instance.read_only:
        raise ToolDefinitionError(f"tool {instance.name!r} says both read_only=True and destructive=True")


# Without slots, since a tool has the docstring of its function.
@frozen(kw_only=True, eq=False, slots=False)
class Tool(Padded, Generic[Function_co, Takes_co]):
    """A function that a model can call, with its promises. Usually made by `tool`.

    Calling it is calling the function: it has the function's signature, name and docstring. ``Tool`` without brackets
    is the type of all tools, ``Tool[Callable[[int, int], int]]`` that of a tool with this signature. The second type in
    the brackets, ``Callable[[ToolContext[Deps]], object]``, names the deps that the function reads from its context.
    """

    name: str = field(validator=_check_name)
    """Its name: 1 to 64 letters, digits, ``_`` and ``-``, which all providers accept."""
    description: str = field(validator=_check_description)
    """What it is for, in words for the model."""
    function: Function_co = field(repr=False)
    """Called with the arguments as keywords, and with the context under ``context_name``."""
    arguments: Arguments = field(repr=False)
    """The schema of the arguments, and the way to decode them."""
    kind: ToolKind = "async"
    """How to call it: ``async`` in the call's task, ``sync`` in a thread, ``generator`` with streamed output."""
    context_name: str | None = None
    """Name of the parameter that receives the `ToolContext`; ``None`` for none."""
    timeout: float | None = field(default=None, validator=_check_timeout)
    """Seconds; ``None`` for the agent's ``Deadlines.tool``, ``math.inf`` for none. A person's thinking time is free."""
    requires_approval: bool | Callable[[dict[str, Any]], bool] = field(default=False, validator=_check_approval)
    """Whether a person must approve a call; a predicate gets the arguments as the function gets them, and runs in a
    thread if it is plain."""
    offered: Offered | None = field(default=None, repr=False, validator=_check_offered)
    """Whether the tool is offered to the model: a function of a `RunInfo`, called for each turn; ``None`` for always.
    The model cannot call a tool that is not offered: such a call is answered as one of an unknown tool."""
    read_only: bool = False
    """Whether it changes nothing. Permissions rely on it; agentloop does not check it."""
    destructive: bool | None = field(default=None, validator=_check_destructive)
    """Whether it may destroy something, rather than only add to it; ``None`` if unknown."""
    assess: Callable[[dict[str, Any]], Assessment] | None = field(default=None, validator=_check_assess, repr=False)
    """What one call may do, where the arguments decide: a function of them, as the function gets them, that returns an
    `agentloop.safety.Assessment`. Called where a permission or a person wants to know; a plain one runs in a thread. If
    it fails, the call is not known to be harmless."""
    metadata: Mapping[str, Any] = field(
        factory=dict[str, Any], converter=_metadata, validator=_check_metadata, repr=False
    )
    """JSON values by name, for a person who is asked about a call: `ApprovalRequested.metadata`."""
    idempotent: bool = False
    """Whether two calls with the same arguments have the effect of one."""
    if_interrupted: IfInterrupted | None = field(default=None, validator=_check_if_interrupted)
    """If the process died while a call ran, its outcome is unknown, and resuming the run decides about it:

    - ``retry``: call the tool again, with the same `ToolContext.idempotency_key`;
    - ``ask``: call it again if a person approves;
    - ``report``: report to the model that it may have run;
    - ``None``: ``retry`` for tools that are ``idempotent`` or ``read_only``, ``report`` for others.
    """
    concurrency: int | None = field(default=None, validator=_check_concurrency)
    """Number of calls that may run at once in one root stream, child streams included; ``None`` for no limit."""
    max_result: int | float | None = field(default=None, validator=_check_max_result)
    """Characters of a result that the model reads at once; ``None`` for the agent's ``max_result``."""
    agents: tuple[AgentBase[Any, Any], ...] = field(default=(), repr=False)
    """The agents that the function may run in child streams, such as the one of `Agent.as_tool`. Rules and hooks may be
    about their tools, and a run that is resumed finds the agents of its background runs here."""
    polling: bool = False
    """Whether repeated calls with the same arguments are its purpose; `Limits.identical_turns` ignores them."""
    model: Model | str | ModelChoice | None = field(default=None, repr=False, validator=_check_model)
    """The model for the turn that reads its result, or its name, or a name in ``Agent(models={...})``; ``None`` for the
    agent's. Of several calls in one turn, the last one that names a model counts. A model that was chosen for the run
    or the session comes first."""
    records_start: bool = False
    """Whether the function calls `ToolContext.record_start` before it has an effect. Until then the call counts as not
    started, for instance while it queues for a server: cut off there, it is made again when the run is resumed."""
    deferred: bool | None = field(default=None, validator=_check_deferred)
    """Whether the model gets the tool's name and a line, and loads the rest when it needs it; ``None`` leaves that to
    ``Agent(deferred=...)``, which defers none by default."""

    @property
    def may_run_again(self) -> bool:
        """Whether a call whose outcome is unknown is retried without asking."""
        if self.if_interrupted is None:
            return self.idempotent or self.read_only
        return self.if_interrupted == "retry"

    @functools.cached_property
    def can_wait(self) -> bool:
        """Whether a call can wait, and so be cut off: an ``async`` function without an ``await`` cannot."""
        return self.kind != "async" or _can_wait(cast("Callable[..., Any]", self.function))

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it."""
        try:
            schema = dict(self.arguments.schema)
        except AgentLoopError:
            raise
        except Exception as error:
            # `Arguments` may be a class of the user's own.
            problem = f"tool {self.name!r}: the schema of its arguments cannot be read: {describe(error)}"
            raise ToolDefinitionError(problem) from error
        return ToolSpec(self.name, self.description, schema)

    def __attrs_post_init__(self) -> None:
        function = cast("Callable[..., Any]", self.function)
        written = _written(function)
        # In the instance, as `functools.update_wrapper` does: `inspect.signature(Tool)` is about the class.
        vars(self).update(
            __doc__=written.__doc__,
            __qualname__=getattr(written, "__qualname__", type(written).__qualname__),
            __wrapped__=function,
        )

    @property
    def __name__(self) -> str:
        """Name of the function."""
        return _name_of(_written(cast("Callable[..., Any]", self.function)))

    def __call__(self: Tool[Callable[Params, Result], Any], *args: Params.args, **kwargs: Params.kwargs) -> Result:
        """Call the function itself, without a run."""
        return self.function(*args, **kwargs)


def is_tool(value: object) -> TypeGuard[Tool]:
    """Whether ``value`` is a tool, of any signature."""
    return isinstance(value, Tool)


class ToolFunction(Protocol):
    """A function, a method or a lambda that can become a tool.

    A tool, which is callable too, is none, so that a type checker compares its deps with those of its agent. Other
    callable objects are made tools by `tool`.
    """

    @property
    def __code__(self) -> CodeType:
        """Its code."""
        ...

    @property
    def __call__(self) -> Callable[..., Any]:
        """Call it."""
        ...


_OPTIONS = {
    "retries": "the model may call a tool again as often as it likes, within Limits(tool_calls=...)",
    "needs_approval": "it is called requires_approval= here",
    "name_override": "it is called name= here",
    "description_override": "it is called description= here",
    "is_enabled": "it is called offered= here",
    "prepare": "offered= says in which turns the model sees the tool",
    "args_schema": "the annotations of the function are its schema",
    "defer_loading": "it is called deferred= here",
    "strict": "each provider's adapter decides about strict schemas",
}
"""What to write for the options that tools have in other libraries."""


class ToolOptions(TypedDict, total=False):
    """The options of `tool` besides name and description, as in `Tool`."""

    timeout: float | None
    """As in `Tool.timeout`."""
    requires_approval: bool | Callable[[dict[str, Any]], bool]
    """As in `Tool.requires_approval`."""
    offered: Offered | None
    """As in `Tool.offered`."""
    read_only: bool
    """As in `Tool.read_only`."""
    destructive: bool | None
    """As in `Tool.destructive`."""
    assess: Callable[[dict[str, Any]], Assessment] | None
    """As in `Tool.assess`."""
    metadata: Mapping[str, Any]
    """As in `Tool.metadata`."""
    idempotent: bool
    """As in `Tool.idempotent`."""
    if_interrupted: IfInterrupted | None
    """As in `Tool.if_interrupted`."""
    concurrency: int | None
    """As in `Tool.concurrency`."""
    max_result: int | float | None
    """As in `Tool.max_result`."""
    polling: bool
    """As in `Tool.polling`."""
    model: Model | str | ModelChoice | None
    """As in `Tool.model`."""
    records_start: bool
    """As in `Tool.records_start`."""
    deferred: bool | None
    """As in `Tool.deferred`."""


class ToolDecorator(Protocol):
    """The decorator that `tool` makes of its options."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[ToolContext[Deps], Params], Result], /
    ) -> Tool[Callable[Concatenate[ToolContext[Deps], Params], Result], Callable[[ToolContext[Deps]], object]]: ...
    @overload
    def __call__(self, function: Callable[Params, Result], /) -> Tool[Callable[Params, Result]]: ...
    def __call__(self, function: Callable[..., Any], /) -> Tool:
        """Make a tool of ``function``."""
        ...


@overload
def tool(
    function: Callable[Concatenate[ToolContext[Deps], Params], Result], /
) -> Tool[Callable[Concatenate[ToolContext[Deps], Params], Result], Callable[[ToolContext[Deps]], object]]: ...
@overload
def tool(function: Callable[Params, Result], /) -> Tool[Callable[Params, Result]]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    requires_approval: bool | Callable[[dict[str, Any]], bool] = False,
    offered: Offered | None = None,
    read_only: bool = False,
    destructive: bool | None = None,
    assess: Callable[[dict[str, Any]], Assessment] | None = None,
    metadata: Mapping[str, Any] | None = None,
    idempotent: bool = False,
    if_interrupted: IfInterrupted | None = None,
    concurrency: int | None = None,
    max_result: float | None = None,
    polling: bool = False,
    model: Model | str | ModelChoice | None = None,
    records_start: bool = False,
    agents: Sequence[AgentBase[Any, Any]] = (),
    deferred: bool | None = None,
) -> ToolDecorator: ...
@explain_options("tool", _OPTIONS)
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    requires_approval: bool | Callable[[dict[str, Any]], bool] = False,
    offered: Offered | None = None,
    read_only: bool = False,
    destructive: bool | None = None,
    assess: Callable[[dict[str, Any]], Assessment] | None = None,
    metadata: Mapping[str, Any] | None = None,
    idempotent: bool = False,
    if_interrupted: IfInterrupted | None = None,
    concurrency: int | None = None,
    max_result: float | None = None,
    polling: bool = False,
    model: Model | str | ModelChoice | None = None,
    records_start: bool = False,
    agents: Sequence[AgentBase[Any, Any]] = (),
    deferred: bool | None = None,
) -> Tool | ToolDecorator:
    """Make a tool of a typed function. Use it bare, or with options.

    An async function runs in a task of its stream. A plain one runs in a thread, which cannot be stopped: after a
    timeout it is reported as abandoned. The values of an async generator are emitted as `ToolCallOutput` while it runs,
    and all of them, joined, are the result. The model reads the return value as text: a string as it is, other values
    as JSON; `Text`, `Image` and `File`, alone or in a list, stay as they are.

    The tool has the function's signature, name and docstring: a test calls it as the function. If the function's first
    parameter is the context, ``context: ToolContext[Deps]``, type checkers compare ``Deps`` with the agent's deps.

    Args:
      function: the function, if `tool` is used without options.
      name: as in `Tool.name`; the function's own by default.
      description: as in `Tool.description`; the first paragraph of the docstring by default.
      timeout: as in `Tool.timeout`.
      requires_approval: as in `Tool.requires_approval`.
      offered: as in `Tool.offered`.
      read_only: as in `Tool.read_only`.
      destructive: as in `Tool.destructive`.
      assess: as in `Tool.assess`.
      metadata: as in `Tool.metadata`.
      idempotent: as in `Tool.idempotent`.
      if_interrupted: as in `Tool.if_interrupted`.
      concurrency: as in `Tool.concurrency`.
      max_result: as in `Tool.max_result`.
      polling: as in `Tool.polling`.
      model: as in `Tool.model`.
      records_start: as in `Tool.records_start`.
      agents: as in `Tool.agents`.
      deferred: as in `Tool.deferred`.

    Raises:
      ToolDefinitionError: a parameter has no annotation, or one that cannot be read from JSON.
    """

    def make(function: Callable[..., Any], /) -> Tool:
        if isinstance(function, Tool):
            raise ToolDefinitionError(f"{function.name!r} is a tool already")
        if isinstance(function, classmethod):
            raise ToolDefinitionError(
                "a class method has no class yet where it is decorated: make a tool of the bound one, tool(X.method)"
            )
        if isinstance(function, staticmethod):
            function = function.__func__
        if not callable(function):
            raise ToolDefinitionError(f"a tool is made of a function, not of {shown(function)}")
        context_name = context_parameter(function, (ToolContext,))
        written = _written(function)
        doc = parse_docstring(inspect.getdoc(written))
        _check_described(written, doc.parameters)
        return Tool(
            name=name or _name_of(written),
            description=doc.summary if description is None else description,
            function=function,
            arguments=signature_of(function, skip=() if context_name is None else (context_name,)),
            kind=_kind(function),
            context_name=context_name,
            timeout=timeout,
            requires_approval=requires_approval,
            offered=offered,
            read_only=read_only,
            destructive=destructive,
            assess=assess,
            metadata={} if metadata is None else metadata,
            idempotent=idempotent,
            if_interrupted=if_interrupted,
            concurrency=concurrency,
            max_result=max_result,
            polling=polling,
            model=model,
            records_start=records_start,
            agents=tuple(agents),
            deferred=deferred,
        )

    return cast("ToolDecorator", make) if function is None else make(function)


def _check_described(written: Callable[..., Any], described: Mapping[str, str]) -> None:
    """Check that the docstring describes parameters that there are: the model would not read the others."""
    # The docstring of a class may describe how its objects are made. A word with a capital, "Note:" say, is no name.
    if not described or not inspect.isroutine(written):
        return
    names = [*inspect.signature(written).parameters]
    for name in described:
        if name not in names and name.isidentifier() and name.islower():
            close = get_close_matches(name, names, 1, 0.6)
            hint = f"did you mean `{close[0]}`?" if close else f"it has {', '.join(names) or 'none'}"
            raise ToolDefinitionError(
                f"the docstring of `{_name_of(written)}` describes `{name}`, which is no parameter: {hint}"
            )


def _written(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside of `functools.partial`, which has the name and the docstring."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _name_of(written: Callable[..., Any]) -> str:
    return str(getattr(written, "__name__", type(written).__name__))


def _kind(function: Callable[..., Any]) -> ToolKind:
    written = _written(function)
    # An object with an async `__call__` counts as an async function.
    called = written if inspect.isroutine(written) else getattr(written, "__call__", written)  # noqa: B004
    if inspect.isasyncgenfunction(called):
        return "generator"
    if inspect.isgeneratorfunction(called):
        raise ToolDefinitionError(f"{_name_of(written)!r} is a plain generator: make it an async one, or return a list")
    return "async" if inspect.iscoroutinefunction(called) else "sync"


_WAITS = frozenset({opcode.opmap["SEND"], opcode.opmap["YIELD_VALUE"]})
"""The instructions of which each ``await``, ``async for`` and ``async with`` has one."""


def _can_wait(function: Callable[..., Any]) -> bool:
    """Whether an async ``function`` has an ``await`` in it; true if that cannot be seen."""
    code = getattr(_written(function), "__code__", None)
    if not isinstance(code, CodeType) or not code.co_flags & inspect.CO_COROUTINE:
        return True
    return not _WAITS.isdisjoint(code.co_code[::2])


class OpenToolset(Protocol):
    """A toolset that has been started.

    If it has an attribute ``instructions`` (`str`), that text is added to the model's instructions of the stream. If it
    has an attribute ``problems`` (a list or tuple of `str`), the stream emits each of them once, as a `WarningIssued`
    with the code ``toolset_problem``: a tool that cannot be offered, say. It is read after each listing.
    """

    async def list_tools(self) -> Sequence[Tool]:
        """The current tools. Called before each turn, so it should be quick if nothing has changed."""
        ...


class Toolset(Protocol):
    """A source of tools that is started and stopped, such as a server.

    It may have an ``identity``, a text that says which source it is, the same in every process. An approval for good
    belongs to an agent with the same tools and toolsets; without an ``identity``, the class and the name count.
    """

    @property
    def name(self) -> str:
        """Its name in errors."""
        ...

    def open(self) -> AbstractAsyncContextManager[OpenToolset]:
        """Start it, and stop it when the block ends.

        One task of its own enters and leaves the block, and does nothing in between, so the block may hold a nursery.
        """
        ...
