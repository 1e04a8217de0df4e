"""The configuration of an agent: its fields and their checks. `Agent` adds the methods that run it.

Three classes for one idea, so that imports run one way: `AgentBase` (context.py) is the type that a tool context names,
`AgentConfig` the data that the runtime reads, `Agent` (agent.py) the front door, which imports the runtime.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn, TypeAlias, cast

import attrs
from attrs import field, frozen

from agentloop._core.field_checks import is_name, shown
from agentloop._core.structured_output import check_validator, output_type
from agentloop._core.typevars import Deps, Deps_contra, Output_co, TypeForm
from agentloop.commands import Command, commands_of
from agentloop.context import AgentBase, ToolContext
from agentloop.context_sources import ContextSource, context_sources_of
from agentloop.deferred import CALL_TOOL, FIND_TOOLS, Deferred
from agentloop.errors import ToolDefinitionError, UsageError
from agentloop.handoffs import HANDOFF, Handoff, handoffs_of
from agentloop.hooks import Hook
from agentloop.limits import Compaction, Deadlines, Limits, Price, Retries
from agentloop.models import Model, ModelChoice, ModelSettings, check_model_name
from agentloop.observers import Observer, check_observer
from agentloop.permissions import Permissions
from agentloop.redaction import Redaction, redaction_of
from agentloop.run_info import ChooseModel, EachTurn, Instructions, RunInfo, check_info_function, without_partial
from agentloop.tools import MIN_RESULT, Tool, ToolFunction, Toolset, is_tool, tool

__all__ = ["AgentConfig", "Instructions", "OutputValidator", "ToolsetFunction", "check_model", "tools_of"]


@frozen(eq=False)
class ToolsetFunction:
    """A function of a `RunInfo` that gives the toolset of a run, or ``None`` for none. Called when the run starts."""

    function: Callable[[RunInfo[Any]], Any]
    """The function, async or plain."""

    @property
    def name(self) -> str:
        """Name of the function."""
        written = without_partial(self.function)
        return str(getattr(written, "__name__", type(written).__name__))

    @property
    def identity(self) -> str:
        """Module and name of the function: what an approval for good goes by."""
        written = without_partial(self.function)
        return f"{getattr(written, '__module__', '')}.{getattr(written, '__qualname__', self.name)}"

    def open(self) -> NoReturn:
        """Raises `UsageError`: only a run has the `RunInfo` to call the function with."""
        raise UsageError(f"{self.name}() gives the toolset of a run: put it into Agent(toolsets=[...])")


OutputValidator: TypeAlias = Callable[..., Any]
"""A function of the output, and of an `OutputInfo` if it takes two arguments. Returns the output, or raises `Retry`."""


def _listed(name: str, values: object) -> tuple[Any, ...]:
    if values is None:
        raise UsageError(f"{name}= takes a list, not None: leave it out for none")
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"{name}= takes a list, not {shown(values)}: put it in brackets")
    if isinstance(values, Mapping):
        raise UsageError(f"{name}= takes a list, not a dict: give [*its.values()]")
    return tuple(cast("Iterable[object]", values))


def tools_of(
    items: Iterable[Tool[Any, Callable[[ToolContext[Deps]], object]] | ToolFunction | partial[Any]],
) -> tuple[Tool[Any, Callable[[ToolContext[Deps]], object]], ...]:
    """The tools of an agent: each item, made a tool if it is a function."""
    listed: list[Any] = []
    for item in _listed("tools", items):
        # `file_tools(".")` in the list, say: what it gives is a group of tools.
        listed += cast("Iterable[object]", item) if isinstance(item, (list, tuple)) else [item]
    for item in listed:
        problem = "" if is_tool(item) else _why_no_tool(item)
        if problem:
            raise ToolDefinitionError(problem)
    tools = tuple([item if is_tool(item) else tool(item) for item in listed])
    names = [item.name for item in tools]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two tools are called {name!r}: give one of them another name with @tool(name=...)")
    return tools


def _why_no_tool(item: Any) -> str:
    """Why ``item`` is no tool, and no function that can be one, with the way out; empty if it may be one."""
    kind = type(item).__name__
    if isinstance(item, AgentBase):
        return f"{cast('Any', item).name!r} is an agent, not a tool: give its as_tool()"
    if isinstance(item, type):
        return f"{item.__name__} is a class, not a tool: give a function, or an instance that can be called"
    if isinstance(item, Hook):
        return f"{item.name!r} is a hook, not a tool: give it to hooks="
    if callable(getattr(item, "open", None)):
        return f"a {kind} is a toolset, not a tool: give it to toolsets="
    if inspect.iscoroutine(item):
        item.close()
        return f"tools= takes functions, and {item.__name__}() was called here: give {item.__name__} itself"
    if isinstance(item, str):
        return f"tools= takes functions, not their names: give the function {item} itself, without quotes"
    if isinstance(item, dict):
        return (
            "tools= takes functions, not schemas: Tool(..., arguments=JsonArguments(schema)) makes a tool of a schema"
        )
    if not callable(item):
        return f"a tool is made of a function, not of {shown(item)}"
    if getattr(item, "__module__", "") == tool.__module__ and item.__qualname__.startswith("tool."):
        return "tool(...) with options is a decorator: write it over the function, or tool(...)(function)"
    made = str(getattr(item, "__annotations__", {}).get("return", ""))
    name = getattr(item, "__name__", kind)
    if re.fullmatch(r"(tuple|list|Sequence)\[Tool\b.*", made):
        return f"{name}() makes tools, and was not called: give *{name}(...)"
    if re.fullmatch(r"(<class '[\w.]*\.)?Tool\b.*", made):
        return f"{name}() makes a tool, and was not called: give {name}(...)"
    owner = getattr(item, "__self__", None)
    if isinstance(owner, type) and callable(getattr(owner, "open", None)):
        return f"{owner.__name__}.{name}() makes a toolset, and was not called: toolsets=[{owner.__name__}.{name}(...)]"
    return ""


def _toolsets(items: Iterable[Toolset | Callable[[RunInfo[Any]], Any]]) -> tuple[Toolset, ...]:
    return tuple(_toolset(item) for item in _listed("toolsets", items))


def _toolset(item: Any) -> Toolset:
    if isinstance(item, type):
        raise UsageError(f"toolsets=: {item.__name__} is a class: give an instance of it, {item.__name__}(...)")
    if isinstance(item, Tool):
        raise UsageError(f"toolsets=: {item.name!r} is a tool: give it to tools=")
    if isinstance(item, (list, tuple)):
        raise UsageError("toolsets= takes toolsets, not a list in the list: tools go to tools=, as tools=[*these]")
    if callable(getattr(item, "open", None)):
        toolset: Toolset = item
        return toolset
    if not callable(item):
        raise UsageError(f"toolsets= takes toolsets, which have open(), or functions of a RunInfo, not {shown(item)}")
    check_info_function("toolsets=", item)
    return ToolsetFunction(item)


def _hooks(items: Iterable[Hook]) -> tuple[Hook, ...]:
    hooks = _listed("hooks", items)
    for hook in hooks:
        if not isinstance(hook, Hook):
            raise UsageError(f"{hook!r} is not a hook: decorate it with a point, such as @hooks.pre_tool_use")
    return hooks


def _output_validators(items: Iterable[OutputValidator]) -> tuple[OutputValidator, ...]:
    validators = _listed("output_validators", items)
    for validator in validators:
        check_validator(validator)
    return validators


def _observers(items: Iterable[Observer]) -> tuple[Observer, ...]:
    return tuple(check_observer(observer) for observer in _listed("observers", items))


def _check_name(instance: object, attribute: object, name: object) -> None:
    if not is_name(name) or not str(name).strip():
        raise UsageError(f"an agent's name is some text, not {shown(name)}")


def _check_instructions(instance: object, attribute: object, value: object) -> None:
    if isinstance(value, (list, tuple)):
        value = cast("object", value)
        raise UsageError(f"instructions are one text, not {shown(value)}: join them with '\\n\\n'.join(...)")
    if not isinstance(value, str) and not callable(value):
        raise UsageError(f"instructions are text, or a function that gives it, not {value!r}")
    if not isinstance(value, (str, EachTurn)):
        check_info_function("instructions=", value)


def _check_kind(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    default: object = attribute.default
    kind = type(default)
    if not isinstance(value, kind):
        raise UsageError(f"{attribute.name}= takes {kind.__name__}(...), not {value!r}")


def _check_permissions(instance: object, attribute: object, value: Any) -> None:
    if value is not None and not isinstance(value, Permissions):
        raise UsageError(f"permissions= takes Permissions(...), not {value!r}")


def _fallbacks(items: Iterable[Model | str]) -> tuple[Model | str, ...]:
    listed = _listed("fallbacks", items)
    for model in listed:
        _check_model(None, None, model)
    return listed


def _check_models(instance: object, attribute: object, value: object) -> None:
    if not isinstance(value, Mapping):
        raise UsageError(f"models= takes a table such as {{'fast': 'openai:gpt-5-mini'}}, not {value!r}")
    for name, model in cast("Mapping[object, object]", value).items():
        if not is_name(name) or ":" in str(name):
            raise UsageError(f"models= maps names without a colon to models, not {shown(name)}")
        check_model(model)


def _check_choose_model(instance: object, attribute: object, value: Any) -> None:
    if value is not None:
        check_info_function("choose_model=", value)


def _check_prices(instance: object, attribute: object, value: object) -> None:
    if not isinstance(value, Mapping):
        raise UsageError(f"prices= takes a table such as {{'openai:gpt-5': Price(1.25, 10)}}, not {value!r}")
    for name, price in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str) or not isinstance(price, Price):
            raise UsageError(f"prices= maps names of models to Price(...), not {name!r} to {price!r}")


def _check_currency(instance: object, attribute: object, value: object) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z]{3}", value):
        raise UsageError(f"currency= takes three letters, such as 'USD' or 'EUR', not {value!r}")


def _check_compaction(instance: object, attribute: object, value: Any) -> None:
    if value is not None and not isinstance(value, (bool, Compaction)):
        raise UsageError(f"compaction= takes True, False or Compaction(...), not {value!r}")


def _check_deferred(instance: Any, attribute: object, value: object) -> None:
    if value is not None and not isinstance(value, Deferred):
        raise UsageError(f"deferred= takes Deferred(...), not {value!r}: Deferred(over=0) defers all tools")
    if value is not None or any(tool.deferred for tool in instance.tools):
        for tool in instance.tools:
            if tool.name in (FIND_TOOLS, CALL_TOOL):
                raise UsageError(
                    f"agent {instance.name!r} defers tools and has a tool {tool.name!r}: give it another name"
                )


def _check_max_result(instance: object, attribute: object, value: object) -> None:
    if not isinstance(value, (int, float)) or not value >= MIN_RESULT:
        raise UsageError(f"max_result={value!r}: give {MIN_RESULT} characters or more, or math.inf for no limit")


def _check_output_type(instance: object, attribute: object, value: object) -> None:
    if value is None:
        raise UsageError("output_type=None: leave it out for text, or give the type of the output")
    if isinstance(value, (list, tuple)):
        raise UsageError(f"output_type={shown(cast('object', value))}: for one of several types, write int | str")
    if isinstance(value, str):
        raise UsageError(f"output_type={value!r}: give the type itself, not its name")
    output_type(value)


def _check_deps_type(instance: object, attribute: object, value: object) -> None:
    if value is not None and not isinstance(value, type) and type(value).__module__ not in _MODULES_OF_TYPES:
        raise UsageError(f"deps_type= takes the type of the deps, not {value!r}: the deps themselves go to each run")


_MODULES_OF_TYPES = frozenset({"types", "typing", "typing_extensions"})
"""Where the classes of types that are no classes come from: of ``int | str``, ``list[int]``, ``Literal["a"]``."""


def _check_description(instance: object, attribute: object, value: object) -> None:
    if not isinstance(value, str):
        raise UsageError(f"description= takes some text, not {shown(value)}")


def _check_handoffs(instance: Any, attribute: object, handoffs: tuple[Handoff, ...]) -> None:
    for handoff in handoffs:
        _check_target(instance, "handoffs=", handoff.agent)
    if handoffs and any(tool.name == HANDOFF for tool in instance.tools):
        raise UsageError(f"agent {instance.name!r} has handoffs and a tool {HANDOFF!r}: give the tool another name")


def _check_forced(instance: Any, attribute: object, name: object) -> None:
    if name is not None:
        if not is_name(name):
            raise UsageError(f"handoff_when_done= takes the name of an agent, not {shown(name)}")
        _check_target(instance, "handoff_when_done=", str(name))


def _check_target(instance: Any, option: str, name: str) -> None:
    if name == instance.name:
        raise UsageError(f"{option} agent {name!r} would hand off to itself")


def _check_model(instance: object, attribute: object, model: Model | str) -> None:
    check_model(model)


def check_model(model: object) -> None:
    """Check a model, or the name of one.

    Raises:
      UsageError: it is neither, or it has no name.
    """
    if isinstance(model, type):
        raise UsageError(f"{model.__name__} is a class: give an instance of it, {model.__name__}(...)")
    if not isinstance(model, str) and not callable(getattr(model, "respond", None)):
        raise UsageError(f"a model is a 'provider:model' name or an object with respond(), not {model!r}")
    if not isinstance(model, str):
        check_model_name(model)
        if inspect.isasyncgenfunction(getattr(model, "respond")):  # noqa: B009 - only some objects have it
            raise UsageError(
                f"{type(model).__name__}.respond() is a generator: write each delta with `await reply.text(...)`, and "
                "return a Stop"
            )


@frozen(eq=False)
class AgentConfig(AgentBase[Deps_contra, Output_co]):
    """The configuration of an agent. Immutable; any number of runs can share it."""

    members: ClassVar[Mapping[str, AgentConfig[Any, Any]]] = MappingProxyType({})
    """The agents of a team by their names, the first one first; none if this is a single agent."""

    model: Model | str = field(validator=_check_model)
    """A model, or its name, ``"provider:model"``, which is resolved when a stream is opened."""
    name: str = field(default="agent", kw_only=True, validator=_check_name)
    """Its name in events, and for other agents."""
    instructions: Instructions[Deps_contra] = field(default="", kw_only=True, repr=False, validator=_check_instructions)
    """The system prompt: text, or a function of a `RunInfo`, called once per run, or for each turn if it is an
    `each_turn`."""
    tools: tuple[Tool[Any, Callable[[ToolContext[Deps_contra]], object]], ...] = field(
        default=(), kw_only=True, converter=tools_of
    )
    """Tools, or typed functions, which become tools. Their names are unique."""
    toolsets: tuple[Toolset, ...] = field(default=(), kw_only=True, converter=_toolsets)
    """Sources of tools, started and stopped with each stream; or functions of a `RunInfo`, each of which gives one."""
    context: tuple[ContextSource, ...] = field(default=(), kw_only=True, converter=context_sources_of, repr=False)
    """Sources of context, or functions that become such. The model gets a message whenever one of their texts has
    changed. See `agentloop.context_sources`."""
    hooks: tuple[Hook, ...] = field(default=(), kw_only=True, converter=_hooks, repr=False)
    """Hooks, called in this order. See `agentloop.hooks`."""
    observers: tuple[Observer, ...] = field(default=(), kw_only=True, converter=_observers, repr=False)
    """Observers, which see the events of its runs and of the runs inside those. See `agentloop.observers`."""
    permissions: Permissions | None = field(default=None, kw_only=True, repr=False, validator=_check_permissions)
    """Rules about tool calls; ``None`` leaves the decision to each tool. See `agentloop.permissions`."""
    redact: Redaction | None = field(default=None, kw_only=True, converter=redaction_of, repr=False)
    """How to keep secrets from models, journals, events and traces: ``True``, a list of patterns of further secrets, or
    a `Redaction`; ``None`` for not at all. Child runs inherit it. See `agentloop.redaction`."""
    fallbacks: tuple[Model | str, ...] = field(default=(), kw_only=True, converter=_fallbacks, repr=False)
    """Models to ask, in order, if ``model`` fails with an error that another model may not have."""
    models: Mapping[str, Model | str] = field(
        factory=dict[str, Model | str], kw_only=True, repr=False, validator=_check_models
    )
    """Models by names of the agent's own, such as ``{"fast": "openai:gpt-5-mini"}``: for ``choose_model``, for tools,
    and for the ``model`` of a run or a session."""
    choose_model: ChooseModel[Deps_contra] | None = field(
        default=None, kw_only=True, repr=False, validator=_check_choose_model
    )
    """A function of a `RunInfo`, async or plain, called before each turn: it gives the model of the turn, its name, or
    a `ModelChoice`; ``None`` for ``model``. The fallbacks stay. A model that a tool names for its result comes before,
    and so does one that was chosen for the run or the session: then the function is not called."""
    limits: Limits = field(default=Limits(), kw_only=True, repr=False, validator=_check_kind)
    """How much a stream may use."""
    deadlines: Deadlines = field(default=Deadlines(), kw_only=True, repr=False, validator=_check_kind)
    """How long a stream waits for models, tools, hooks and servers."""
    retries: Retries = field(default=Retries(), kw_only=True, repr=False, validator=_check_kind)
    """How often a failed model request is retried."""
    prices: Mapping[str, Price] = field(factory=dict[str, Price], kw_only=True, repr=False, validator=_check_prices)
    """Prices by model name: `Model.name`, or the name that the provider reports. A child stream also uses the prices of
    the agents around it. They come before those of the catalogue, which are in US dollars."""
    currency: str = field(default="USD", kw_only=True, repr=False, validator=_check_currency)
    """The currency of ``prices`` and of ``Limits.cost``; the same for all agents of a run. The catalogue's prices count
    only if it is ``"USD"``."""
    settings: ModelSettings = field(default=ModelSettings(), kw_only=True, repr=False, validator=_check_kind)
    """Sampling and tool settings of every request."""
    compaction: Compaction | bool | None = field(default=None, kw_only=True, repr=False, validator=_check_compaction)
    """How to shorten a conversation that outgrows the model's window. ``None``: as `Compaction` does by default, if the
    catalogue knows the windows of all its models; ``True``: also where it does not, after a model has refused a request
    as too long; ``False``: never, so that the run fails then."""
    max_result: int | float = field(default=100_000, kw_only=True, repr=False, validator=_check_max_result)
    """Characters of a tool's result that the model reads at once; ``math.inf`` for all. The session keeps the rest, and
    the model gets a tool to read it."""
    deferred: Deferred | None = field(default=None, kw_only=True, repr=False, validator=_check_deferred)
    """When to defer tools: the model gets their names with a line each, and finds the rest of them with ``find_tools``.
    ``None`` defers those alone that say ``deferred=True``. See `agentloop.deferred`."""
    deps_type: TypeForm[Deps_contra] = field(
        default=cast("TypeForm[Deps_contra]", None), kw_only=True, repr=False, validator=_check_deps_type
    )
    """Type of the deps that its tools read; ``None`` if it is not given. Type checkers compare it with ``deps=`` and
    with the contexts of the tools. If it is a class, a run without ``deps=`` is refused."""
    output_type: TypeForm[Output_co] = field(
        default=cast("TypeForm[Output_co]", str), kw_only=True, validator=_check_output_type
    )
    """Type of ``result.output``: ``str`` for free text, another type for JSON that is validated against it."""
    output_validators: tuple[OutputValidator, ...] = field(
        default=(), kw_only=True, converter=_output_validators, repr=False
    )
    """Functions that check each output, in this order, and may change it. Each is plain (then it runs in a thread) or
    async, and gets the output, and an `OutputInfo` if it takes two arguments. It returns the output, or raises `Retry`
    to have the model try again, within ``Limits.output_attempts``. It is called again for an output that a resumed run
    finds in its transcript."""
    output_deltas: bool = field(default=False, kw_only=True, repr=False, validator=_check_kind)
    """Whether streams emit an `OutputDelta` for each part of a structured output while the model writes it.
    `Stream.partial` needs no such events."""
    description: str = field(default="", kw_only=True, repr=False, validator=_check_description)
    """What the agent is for, in words for the models of other agents."""
    commands: Mapping[str, Command] = field(
        default=MappingProxyType({}), kw_only=True, converter=commands_of, repr=False
    )
    """Named prompts for the person who types, by name. See `agentloop.commands`."""
    handoffs: tuple[Handoff, ...] = field(
        default=(), kw_only=True, converter=handoffs_of, repr=False, validator=_check_handoffs
    )
    """The agents, by name, to which its model may hand the conversation off. It runs in a `Team` then."""
    handoff_when_done: str | None = field(default=None, kw_only=True, repr=False, validator=_check_forced)
    """Name of the agent that gets the conversation whenever this one has answered; ``None`` to end the run then."""

    def __attrs_post_init__(self) -> None:
        for item in self.tools:
            named = item.model.model if isinstance(item.model, ModelChoice) else item.model
            if isinstance(named, str) and ":" not in named and named not in self.models:
                known = ", ".join(map(repr, self.models)) or "none"
                raise UsageError(
                    f"tool {item.name!r} has the model {named!r}, which is no name in Agent(models={{...}}): there "
                    f"{'is' if known == 'none' else 'are'} {known}"
                )

    def answers_to(self, name: str) -> bool:
        """Whether it is the agent called ``name``, or a team with that agent."""
        return name == self.name or name in self.members

    @property
    def hands_off(self) -> bool:
        """Whether it may give the conversation to another agent."""
        return bool(self.handoffs) or self.handoff_when_done is not None

    def handoff_to(self, name: str) -> Handoff | None:
        """Its handoff to the agent ``name``, if it has one."""
        return next((handoff for handoff in self.handoffs if handoff.agent == name), None)
