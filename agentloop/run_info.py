"""`RunInfo`: what functions know about the run that they are called for. Instructions, tools and toolsets may be such.

Output validators get an `OutputInfo`, a `RunInfo` that also has the attempt and the response.

::

    def instructions(info: RunInfo[User]) -> str:
        return f"You help {info.deps.name}."

    agent = Agent(model, instructions=instructions)

A function is async or plain. A plain one runs in a thread, as a plain hook does. It may also leave out the parameter.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeAlias

from attrs import field, frozen

from agentloop._core.field_checks import shown
from agentloop._core.typevars import Deps, Deps_co, Deps_contra
from agentloop.errors import UsageError
from agentloop.events import Source
from agentloop.messages import AssistantMessage, Message, Usage
from agentloop.models import Model, ModelChoice

__all__ = [
    "ChooseModel",
    "EachTurn",
    "Instructions",
    "Offered",
    "OutputInfo",
    "RunInfo",
    "check_info_function",
    "each_turn",
    "in_turn",
    "is_called_per_run",
    "takes_info",
    "without_partial",
]


@frozen(kw_only=True)
class RunInfo(Generic[Deps_co]):
    """A run, as the functions see it that decide about its instructions, tools and toolsets."""

    source: Source
    """The stream."""
    deps: Deps_co = field(repr=False, eq=False)
    """The ``deps=`` argument of the root stream. Outside of equality and of ``repr``, since it may hold secrets."""
    turn: int
    """Number of the turn that the function is called for, from 1; for a function that is called once per run, of the
    turn that starts next."""
    model: str
    """Name of the model that is asked first. A `before_llm_call` hook may choose another one for a request."""
    usage: Usage
    """Usage of the stream and its children so far."""
    messages: tuple[Message, ...] = field(default=(), repr=False, eq=False)
    """The session's transcript so far."""


@frozen(kw_only=True)
class OutputInfo(RunInfo[Deps_co]):
    """A run that has an output, as an output validator with two arguments sees it.

    ``turn`` is the one whose response is the output, and ``usage`` includes that response.
    """

    attempt: int
    """Number of this attempt at an output, from 1."""
    attempts: int | float
    """Attempts that the model has: ``Limits.output_attempts``."""
    message: AssistantMessage
    """The response that the output was read from."""


ChooseModel: TypeAlias = Callable[
    [RunInfo[Deps_contra]], Model | str | ModelChoice | Awaitable[Model | str | ModelChoice | None] | None
]
"""A function that chooses the model of a turn; ``None`` for the agent's. See `Agent`, ``choose_model=``."""


def in_turn(*models: Model | str | ModelChoice) -> ChooseModel[Any]:
    """A rule for ``Agent(choose_model=...)``: several models in turn, each for one response of the conversation.

    ::

        agent = Agent("openai:gpt-5", choose_model=in_turn("openai:gpt-5", "anthropic:claude-sonnet-4-5"))

    The responses in the session's transcript are counted, so a conversation of many short runs alternates as well, and
    a run that is resumed continues with the model that is due.

    Raises:
      UsageError: no model is given.
    """
    if not models:
        raise UsageError("in_turn() takes the models: in_turn('openai:gpt-5', 'anthropic:claude-sonnet-4-5')")

    async def choose(info: RunInfo[Any]) -> Model | str | ModelChoice:  # noqa: ASYNC124, ASYNC910 - or a thread
        responses = sum(isinstance(message, AssistantMessage) for message in info.messages)
        return models[responses % len(models)]

    return choose


InstructionsFunction: TypeAlias = Callable[[RunInfo[Deps]], str | Awaitable[str]]
"""A function that gives instructions."""


class EachTurn(Generic[Deps_contra]):
    """An instructions function that is called for each turn. Made by `each_turn`."""

    def __init__(self, function: InstructionsFunction[Deps_contra]) -> None:
        check_info_function("@each_turn", function)
        self.function = function
        """The function, async or plain."""
        # An approval for good belongs to an agent with this function: its module and name identify it.
        functools.update_wrapper(self, without_partial(function), updated=())

    def __call__(self, info: RunInfo[Deps_contra], /) -> str | Awaitable[str]:
        """Call the function itself."""
        function: Callable[..., str | Awaitable[str]] = self.function
        return function(info) if takes_info(function) else function()

    def __repr__(self) -> str:
        return f"each_turn({self.function!r})"


def each_turn(function: InstructionsFunction[Deps], /) -> EachTurn[Deps]:
    """Have an instructions function called for each turn of a run, and not once, when the run starts.

    ::

        @each_turn
        def instructions(info: RunInfo[Budget]) -> str:
            return f"You have {info.deps.turns - info.turn} turns left."

    A provider's prompt cache ends where a request differs from the one before, and instructions come first: a text that
    changes from turn to turn makes the model read the whole conversation anew. Use it only for texts that change
    rarely. A ``turn_start`` hook adds to the instructions of a turn as well, with the same price.

    Raises:
      UsageError: ``function`` is none, or needs more than a `RunInfo`.
    """
    return EachTurn(function)


Instructions: TypeAlias = str | EachTurn[Deps_contra] | Callable[[RunInfo[Deps_contra]], str | Awaitable[str]]
"""The system prompt: text; or a function of a `RunInfo`, called once per run, or for each turn if it is an
`each_turn`."""


def is_called_per_run(instructions: object) -> bool:
    """Whether ``instructions`` are a function that is called once, when the run starts."""
    return not isinstance(instructions, (str, EachTurn))


Offered: TypeAlias = Callable[[RunInfo[Any]], bool | Awaitable[bool]]
"""Whether a tool is offered to the model in a turn. See `Tool.offered`."""


def check_info_function(name: str, function: object) -> None:
    """Check that ``function`` can be called with a `RunInfo`, or with nothing.

    Args:
      name: what the function is, in the error.

    Raises:
      UsageError: it cannot.
    """
    if not callable(function):
        raise UsageError(f"{name} takes a function of a RunInfo, not {shown(function)}")
    required = [
        parameter
        for parameter in _parameters(function)
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
    ]
    by_name = [parameter.name for parameter in required if parameter.kind is parameter.KEYWORD_ONLY]
    if by_name or len(required) > 1:
        names = ", ".join(parameter.name for parameter in required)
        raise UsageError(
            f"{name} takes a function of one RunInfo, not of ({names}): what else it needs is in info.deps, or bound "
            "with functools.partial"
        )


def takes_info(function: Callable[..., Any]) -> bool:
    """Whether ``function`` has a parameter for the `RunInfo`. A function without parameters is called with nothing."""
    return any(parameter.kind is not parameter.KEYWORD_ONLY for parameter in _parameters(function))


def without_partial(function: Any) -> Any:
    """The function inside of `functools.partial`, which has the name and the docstring."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # A function of C may have no signature.
        return [inspect.Parameter("info", inspect.Parameter.POSITIONAL_ONLY)]
    return [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
