"""First guesses of newcomers: what they write before they have read how it is done, and the sentence that says it.

Type checkers refuse most of these programs. The methods here are therefore set at run time, where no checker sees them:
``await stream`` stays an error for a checker, and a running program gets a sentence in the place of Python's words.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from agentloop.errors import UsageError

__all__ = ["RUN_OPTIONS", "explain_names", "explain_options", "is_refused", "name_the_way", "refuse"]

Function = TypeVar("Function", bound=Callable[..., Any])

_SESSION = "a conversation is session=Session(), or one from agentloop.stores.stored_session"
RUN_OPTIONS = {
    "message_history": _SESSION,
    "thread_id": _SESSION,
    "conversation_id": _SESSION,
    "config": _SESSION,
    "context": "it is called deps= here",
    "model_settings": "it is called settings= here, with ModelSettings(...)",
    "usage_limits": "limits belong to the agent: agent.replace(limits=Limits(...))",
    "limits": "limits belong to the agent: agent.replace(limits=Limits(...))",
    "max_turns": "limits belong to the agent: agent.replace(limits=Limits(turns=...))",
    "output_type": "it belongs to the agent: agent.replace(output_type=...)",
    "instructions": "they belong to the agent: agent.replace(instructions=...), or a function of a RunInfo",
    "tools": "they belong to the agent: agent.replace(tools=[...]), or @tool(offered=...)",
    "toolsets": "they belong to the agent: agent.replace(toolsets=[...]), or a function of a RunInfo",
    "hooks": "they belong to the agent: agent.replace(hooks=[...])",
    "deferred_tool_results": "write agent.resume(session, {question.id: Approve()})",
}
"""What to write for the options that runs have in other libraries."""


def refuse(cls: type, **sentences: str) -> None:
    """Have special methods of ``cls`` raise `UsageError`: ``refuse(Stream, iter="write `async for`...")``.

    Args:
      sentences: the sentences by the names of the methods, without underscores. Fields in braces are attributes of the
        object.
    """
    for name, sentence in sentences.items():
        setattr(cls, f"__{name}__", _refusal(sentence))
        if name in ("enter", "aenter"):
            # Python looks for both before it calls one.
            setattr(cls, f"__{name.replace('enter', 'exit')}__", _refusal(sentence))


def _refusal(sentence: str) -> Any:
    def refusal(self: Any, *args: object) -> NoReturn:
        raise UsageError(sentence.format(self=self))

    _REFUSALS.add(refusal)
    return refusal


_REFUSALS: set[object] = set()


def is_refused(value: object, name: str) -> bool:
    """Whether the special method ``name`` of ``value``, without underscores, is there only to refuse."""
    return getattr(type(value), f"__{name}__", None) in _REFUSALS


def name_the_way(cls: type, sentences: Mapping[str, str]) -> None:
    """Have an attribute that ``cls`` lacks raise an `AttributeError` that says what to write.

    Args:
      sentences: the sentences by the names of the attributes. All others raise Python's own words.
    """

    def __getattr__(self: object, name: str) -> NoReturn:  # noqa: N807 - it becomes that method
        words = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(f"{words}: {sentences[name]}" if name in sentences else words, name=name, obj=self)

    cls.__getattr__ = __getattr__  # type: ignore[attr-defined]


def explain_options(name: str, sentences: Mapping[str, str]) -> Callable[[Function], Function]:
    """Have keyword arguments that a function does not take raise `UsageError`, if ``sentences`` says what to write.

    Args:
      name: name of the function in the error.
      sentences: the sentences by the names of the arguments.
    """

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def explained(*args: Any, **options: Any) -> Any:
            for option in options:
                if option in sentences:
                    raise UsageError(f"{name}({option}=...): {sentences[option]}")
            return function(*args, **options)

        if inspect.iscoroutinefunction(function) and sys.version_info >= (3, 12):
            return inspect.markcoroutinefunction(explained)
        return explained

    return decorate


def explain_names(module: str, sentences: Mapping[str, str], elsewhere: Mapping[str, Iterable[str]]) -> None:
    """Have an import of a name that a module lacks raise an `ImportError` that says what to write.

    ``from module import name`` shows no words of an `AttributeError`, so this is an `ImportError`. All other names
    raise the `AttributeError` that Python raises.

    Args:
      module: name of the module.
      sentences: the sentences by the names.
      elsewhere: names that other modules have, by the names of those modules.
    """
    ways = {name: f"write `from {place} import {name}`" for place, names in elsewhere.items() for name in names}
    ways.update(sentences)

    def __getattr__(name: str) -> NoReturn:  # noqa: N807 - it becomes that function
        if name in ways:
            raise ImportError(f"cannot import name {name!r} from {module!r}: {ways[name]}", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=sys.modules[module])

    setattr(sys.modules[module], "__getattr__", __getattr__)  # noqa: B010 - checkers must not see it
