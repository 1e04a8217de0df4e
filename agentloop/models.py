"""The model protocol: a model gets a request and replies delta by delta.

A model is *called*, not iterated::

    class Echo:
        name = "echo"

        async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
            await reply.text("You said: ")
            await reply.text(text_of(request.messages[-1].parts))
            return Stop()

So a response is a block like everything else here: when ``respond`` returns, raises or is cancelled, it holds no
connection, no task and no unfinished generator. No delta can follow `Stop`, because a function returns once. Awaiting
``reply`` is the back-pressure: a slow reader slows the model down. ``reply`` raises only `trio.Cancelled`, and
`ModelOutputLimitError` for a response without bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, TypeAlias, cast, get_args, runtime_checkable

import msgspec

from agentloop._core.field_checks import is_name, shown
from agentloop.errors import UsageError
from agentloop.messages import Message, StopReason, Usage

__all__ = [
    "Model",
    "ModelChoice",
    "ModelRequest",
    "ModelSettings",
    "OpenableModel",
    "ReasoningEffort",
    "Reply",
    "Stop",
    "ToolSpec",
    "check_model_name",
    "merged_settings",
]


class ToolSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool as the model sees it."""

    name: str
    """Name of the tool: 1 to 64 letters, digits, ``_`` and ``-``."""
    description: str
    """What the tool is for, in words for the model."""
    parameters: dict[str, Any]
    """JSON Schema of the arguments, an object at the top."""
    deferred: bool = False
    """Whether the model gets it only after ``find_tools`` has found it. Only a model with an attribute
    ``has_tool_search`` that is true gets such tools, and loads them as its provider does; for others, the runtime puts
    ``call_tool`` in their place."""


ToolChoice: TypeAlias = Literal["auto", "required", "none"]
ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ModelSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sampling and tool settings for a request. ``None`` leaves the choice to the provider.

    Raises:
      UsageError: a value that no provider takes. The message names it, and those that can be given.
    """

    temperature: float | None = None
    """Randomness: 0 to 2 for OpenAI-compatible providers, 0 to 1 for Anthropic. Reasoning models refuse it."""
    top_p: float | None = None
    """Nucleus sampling: the part of the probability mass to sample from, above 0 and up to 1."""
    max_tokens: int | None = None
    """Upper bound of one response, in tokens, reasoning included."""
    seed: int | None = None
    """Seed for providers that can repeat a response; others ignore it."""
    tool_choice: ToolChoice | None = None
    """``auto``: the model decides; ``required``: it must call a tool; ``none``: it must not."""
    parallel_tool_calls: bool | None = None
    """Whether one response may contain several tool calls."""
    reasoning_effort: ReasoningEffort | None = None
    """How much a reasoning model thinks before it answers. A model that does not take the value gets the nearest one
    that it takes, by the catalogue."""
    stop: tuple[str, ...] = ()
    """Texts before which the model stops writing."""
    extra: dict[str, Any] = {}
    """More fields for the provider's request body, sent as they are. They replace fields of the same name."""

    def __post_init__(self) -> None:
        stop: object = self.stop
        if isinstance(stop, list):
            msgspec.structs.force_setattr(self, "stop", tuple(cast("Iterable[Any]", stop)))
        for name, (is_possible, values) in _POSSIBLE.items():
            value: object = getattr(self, name)
            if value is not None and not is_possible(value):
                raise UsageError(f"ModelSettings({name}={value!r}): give {values}")


def merged_settings(base: ModelSettings, changes: ModelSettings) -> ModelSettings:
    """``base`` with the fields that are set in ``changes``, and with the ``extra`` fields of both."""
    fields = {name: getattr(changes, name) for name in changes.__struct_fields__}
    nothing = ModelSettings()
    parts = {name: value for name, value in fields.items() if value != getattr(nothing, name)}
    if changes.extra:
        parts["extra"] = {**base.extra, **changes.extra}
    return msgspec.structs.replace(base, **parts)


def _is_number(value: object, most: float) -> bool:
    # NaN is in no range.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _is_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(text, str) and text and _is_json(text) for text in cast("tuple[object, ...]", value)
    )


def _is_fields(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in cast("Iterable[object]", value))


def _is_json(value: object) -> bool:
    try:
        msgspec.json.encode(value)
        # The encoder above writes NaN as `null`, which a provider would pass over in silence.
        return _is_finite(msgspec.to_builtins(value))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return False


def _is_finite(value: object) -> bool:
    """Whether no number in ``value``, of JSON types, is NaN or infinite."""
    if isinstance(value, dict):
        return all(map(_is_finite, cast("dict[object, object]", value).values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, cast("Iterable[object]", value)))
    return not isinstance(value, float) or math.isfinite(value)


_POSSIBLE: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "temperature": (lambda value: _is_number(value, 2), "a number from 0 to 2"),
    "top_p": (lambda value: _is_number(value, 1) and value != 0, "a number above 0 and up to 1"),
    "max_tokens": (lambda value: _is_integer(value, 1), "an integer of 1 or more"),
    "seed": (lambda value: _is_integer(value, -(2**63)), "an integer of 64 bits"),
    "tool_choice": (lambda value: value in get_args(ToolChoice), f"one of {', '.join(get_args(ToolChoice))}"),
    "parallel_tool_calls": (lambda value: isinstance(value, bool), "True or False"),
    "reasoning_effort": (
        lambda value: value in get_args(ReasoningEffort),
        f"one of {', '.join(get_args(ReasoningEffort))}",
    ),
    "stop": (_is_texts, "a tuple of texts that are not empty"),
    "extra": (lambda value: _is_fields(value) and _is_json(value), "a dict of JSON values"),
}
"""For each setting, whether a value of it is possible, and the possible values in words."""


class ModelRequest(msgspec.Struct, frozen=True):
    """One request to a model."""

    messages: Sequence[Message]
    """The transcript so far. Every tool call in it has its result. It does not change while the model reads it."""
    instructions: str = ""
    """System prompt; empty for none."""
    tools: tuple[ToolSpec, ...] = ()
    """The tools that the model may call."""
    output: ToolSpec | None = None
    """JSON Schema of the final answer; ``None`` for free text."""
    settings: ModelSettings = ModelSettings()
    """Sampling and tool settings."""


class Stop(msgspec.Struct, frozen=True, omit_defaults=True):
    """The end of a response."""

    reason: StopReason = "end"
    """Why it ended."""
    usage: Usage = Usage()
    """Usage of this response, as the provider counted it; if it is empty, the last `Reply.report_usage` counts."""
    model: str = ""
    """Name of the model that answered, as the provider reports it; empty if it does not."""


class Reply(Protocol):
    """The response that a model is writing. Use it from one task at a time, in the order of the deltas."""

    async def text(self, text: str, /) -> None:
        """Add a delta of text. Deltas join.

        An empty delta is a sign of life: the deadline for silence starts again.
        """

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        """Add a delta of reasoning. A ``signature`` closes the block that it signs."""

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        """Add a delta of the response's tool call number ``index``, from 0.

        The first ``id`` and ``name`` that are not empty count; ``arguments`` join. Calls may interleave.
        """

    def report_usage(self, usage: Usage, /) -> None:
        """Report the usage of the response so far, as soon as the provider does; it replaces an earlier report.

        It counts if the response breaks off or is cancelled. `Stop.usage` replaces it at the end.
        """


class Model(Protocol):
    """Anything that can respond to a request.

    A model that fails, and has a fallback, is left alone for a while (`Retries.cooldown`). The cooldown belongs to the
    object; or, if the model has an attribute ``identity`` that can be hashed, to its name and identity, in whichever
    objects.

    A model with an attribute ``has_tool_search`` that is true gets deferred tools as they are: see `ToolSpec.deferred`.
    """

    @property
    def name(self) -> str:
        """Its name in events and errors, such as ``openai:gpt-5``."""
        ...

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Reply to ``request`` and return how the response ended.

        Called in the stream's own task, under its deadlines; many streams may call it at once.

        Raises:
          ModelError: the response failed. Any other exception counts as a failure of the model, too.
        """
        ...


@runtime_checkable
class OpenableModel(Model, Protocol):
    """A model that holds resources between responses: connections, a process.

    If an opened model has a method ``for_session(id: str)``, a stream asks the model which that returns: one whose
    provider keeps the requests of a session together, say, where its cache has them.

    Each stream opens its model and closes it at its end, so no resource of a model outlives the stream. Entering must
    be quick, and may raise a `ModelError`. Slow work belongs into the first response, which has a deadline.
    """

    def open(self) -> AbstractAsyncContextManager[Model]:
        """Open the model: it holds its resources until the block ends.

        Opening a model that is open already shares its resources, so a caller can open one around several streams.
        """
        ...


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A model, and how much it thinks: what a person, a rule or a tool chooses.

    ::

        session.choice = ModelChoice(model="openai:gpt-5", reasoning_effort="high")

    Raises:
      UsageError: a value that no provider takes.
    """

    model: Model | str | None = None
    """The model, its name, or a name in ``Agent(models={...})``; ``None`` for the model that there is."""
    reasoning_effort: ReasoningEffort | None = None
    """How much it thinks; ``None`` for what the settings say."""

    def __post_init__(self) -> None:
        model: object = self.model
        if model is not None and not isinstance(model, str):
            check_model_name(model)
        ModelSettings(reasoning_effort=self.reasoning_effort)


def check_model_name(model: object) -> None:
    """Check the name of ``model``, which events and messages repeat.

    Raises:
      UsageError: it has none, or one that is no text.
    """
    name: object = getattr(model, "name", None)
    if not is_name(name):
        raise UsageError(f"a model has a name, some text, not {shown(name)}: {type(model).__name__}.name")
