"""Everything that an agent is, without the ways to run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

import attrs
from attrs import field, frozen

from agentloop._core.output import output_type
from agentloop.context import AgentBase
from agentloop.errors import UsageError
from agentloop.events import Source
from agentloop.hooks import Hook, PointName
from agentloop.limits import Compaction, Deadlines, Limits, Price, Retries
from agentloop.models import Model, ModelSettings
from agentloop.permissions import Permissions
from agentloop.tools import MIN_RESULT, Tool, Toolset, tool

__all__ = ["AgentConfig", "Instructions"]

Instructions: TypeAlias = str | Callable[[Source], str]
"""What the model is told before anything else; a function is called once per stream."""


def _listed(what: str, given: object) -> tuple[Any, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(f"{what}= takes a list, not {given!r}: put it in brackets")
    return tuple(cast("Iterable[object]", given))


def _tools(given: Iterable[Tool | Callable[..., Any]]) -> tuple[Tool, ...]:
    listed = _listed("tools", given)
    for one in listed:
        if isinstance(one, AgentBase):
            raise UsageError(f"{one!r} is an agent, not a tool: give its as_tool()")
    made = tuple(one if isinstance(one, Tool) else tool(one) for one in listed)
    names = [one.name for one in made]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two tools are called {name!r}: give one of them another name with @tool(name=...)")
    return made


def _toolsets(given: Iterable[Toolset]) -> tuple[Toolset, ...]:
    return _listed("toolsets", given)


def _hooks(given: Iterable[Hook]) -> tuple[Hook, ...]:
    hooks = _listed("hooks", given)
    for hook in hooks:
        if not isinstance(hook, Hook):
            raise UsageError(f"{hook!r} is not a hook: decorate it with a point, such as @hooks.pre_tool_use")
    return hooks


def _check_name(instance: object, attribute: object, name: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"an agent's name is some text, not {name!r}")


def _check_instructions(instance: object, attribute: object, given: object) -> None:
    if not isinstance(given, str) and not callable(given):
        raise UsageError(f"instructions are text, or a function that gives it, not {given!r}")


def _check_kind(instance: object, attribute: attrs.Attribute[Any], given: object) -> None:
    default: object = attribute.default
    kind = type(default)
    if not isinstance(given, kind):
        raise UsageError(f"{attribute.name}= takes {kind.__name__}(...), not {given!r}")


def _check_permissions(instance: object, attribute: object, given: Any) -> None:
    if given is not None and not isinstance(given, Permissions):
        raise UsageError(f"permissions= takes Permissions(...), not {given!r}")


def _fallbacks(given: Iterable[Model | str]) -> tuple[Model | str, ...]:
    listed = _listed("fallbacks", given)
    for one in listed:
        _check_model(None, None, one)
    return listed


def _check_prices(instance: object, attribute: object, given: object) -> None:
    if not isinstance(given, Mapping):
        raise UsageError(f"prices= takes a table such as {{'openai:gpt-5': Price(1.25, 10)}}, not {given!r}")
    for name, price in cast("Mapping[object, object]", given).items():
        if not isinstance(name, str) or not isinstance(price, Price):
            raise UsageError(f"prices= maps names of models to Price(...), not {name!r} to {price!r}")


def _check_compaction(instance: object, attribute: object, given: Any) -> None:
    if given is not None and not isinstance(given, Compaction):
        raise UsageError(f"compaction= takes Compaction(window=...), not {given!r}")


def _check_max_result(instance: object, attribute: object, value: object) -> None:
    if not isinstance(value, (int, float)) or not value >= MIN_RESULT:
        raise UsageError(f"max_result={value!r}: give {MIN_RESULT} characters or more, or math.inf for no limit")


def _check_output_type(instance: object, attribute: object, given: object) -> None:
    output_type(given)


def _check_model(instance: object, attribute: object, model: Model | str) -> None:
    if isinstance(model, type):
        raise UsageError(f"{model.__name__} is a class: give an instance of it, {model.__name__}(...)")
    if not isinstance(model, str) and not callable(getattr(model, "respond", None)):
        raise UsageError(f"a model is a 'provider:model' name or an object with respond(), not {model!r}")


@frozen(eq=False)
class AgentConfig(AgentBase):
    """Everything that an agent is. Immutable, and shareable between any number of runs."""

    model: Model | str = field(validator=_check_model)
    """A model, or its name as ``"provider:model"``, which is looked up when a stream is opened."""
    name: str = field(default="agent", kw_only=True, validator=_check_name)
    instructions: Instructions = field(default="", kw_only=True, repr=False, validator=_check_instructions)
    tools: tuple[Tool, ...] = field(default=(), kw_only=True, converter=_tools)
    """Tools, or plain typed functions, which become tools."""
    toolsets: tuple[Toolset, ...] = field(default=(), kw_only=True, converter=_toolsets)
    """Started with each stream, and stopped with it."""
    hooks: tuple[Hook, ...] = field(default=(), kw_only=True, converter=_hooks, repr=False)
    permissions: Permissions | None = field(default=None, kw_only=True, repr=False, validator=_check_permissions)
    """Which calls run, are asked about, or are denied; without any, each tool says so itself."""
    fallbacks: tuple[Model | str, ...] = field(default=(), kw_only=True, converter=_fallbacks, repr=False)
    """Models that are asked in order where ``model`` fails in a way that another one may not."""
    limits: Limits = field(default=Limits(), kw_only=True, repr=False, validator=_check_kind)
    deadlines: Deadlines = field(default=Deadlines(), kw_only=True, repr=False, validator=_check_kind)
    retries: Retries = field(default=Retries(), kw_only=True, repr=False, validator=_check_kind)
    prices: Mapping[str, Price] = field(factory=dict[str, Price], kw_only=True, repr=False, validator=_check_prices)
    """By name, as the model is called or as it calls itself. A child without a price of its own uses its parents'."""
    settings: ModelSettings = field(default=ModelSettings(), kw_only=True, repr=False, validator=_check_kind)
    compaction: Compaction | None = field(default=None, kw_only=True, repr=False, validator=_check_compaction)
    """How to go on when the conversation gets too long for the model; ``None`` to fail then."""
    max_result: int | float = field(default=100_000, kw_only=True, repr=False, validator=_check_max_result)
    """Characters of a tool's result that the model gets to read at once. The rest is kept with the session, in memory,
    and the model gets a tool to read it. ``math.inf`` for all."""
    output_type: Any = field(default=str, kw_only=True, validator=_check_output_type)
    """The type of ``result.output``: ``str`` for free text, else what the model's JSON is validated against."""

    def hooks_at(self, point: PointName) -> tuple[Hook, ...]:
        """The agent's hooks at ``point``, in order."""
        return tuple(hook for hook in self.hooks if hook.point == point)
