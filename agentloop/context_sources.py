"""Context that is kept up to date: facts about the surroundings, which the model gets again whenever they change.

::

    def stock(info: RunInfo[Shop]) -> str:
        return f"{info.deps.boxes} boxes are left."

    agent = Agent(model, context=[context.date(), context.git("."), ContextSource("stock", stock)])

Before a request, each source is asked for its text. Texts that differ from those that the model has read are appended
to the transcript as one message; nothing is appended while nothing changes. Instructions and earlier messages stay as
they are, so the provider's cache knows all of the request but that message.

`agentloop.toolkit.context` has sources: the date, a folder, a git repository, files of a project.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast

from attrs import field, frozen

from agentloop._core.field_checks import shown
from agentloop.errors import UsageError
from agentloop.run_info import RunInfo, check_info_function, without_partial

__all__ = ["ContextSource", "context_sources_of"]

_NAME = re.compile(r"[A-Za-z][\w .-]{0,63}", re.ASCII)


def _check_name(instance: object, attribute: object, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"ContextSource({shown(name)}): a name is a letter and up to 63 letters, digits, spaces, '_', '.' and '-'"
        )


def _check_function(instance: Any, attribute: object, function: Any) -> None:
    check_info_function(f"ContextSource({instance.name!r})", function)


def _check_each(instance: object, attribute: object, each: object) -> None:
    if each not in ("turn", "run"):
        raise UsageError(f"each={shown(each)}: a context source is asked for each 'turn' or each 'run'")


@frozen(eq=False)
class ContextSource:
    """A source of context: a function that gives a text about the surroundings, as they are now.

    Raises:
      UsageError: an argument is wrong.
    """

    name: str = field(validator=_check_name)
    """The name that the model reads. A text replaces the earlier text of its name."""
    function: Callable[[RunInfo[Any]], Any] | Callable[[], Any] = field(validator=_check_function, repr=False)
    """A function of a `RunInfo`, or of nothing, that gives the text; an empty one if there is nothing to say. Async, or
    plain, which runs in a thread. It has ``Deadlines.hook`` seconds. If it fails, a `WarningIssued` event says so
    (``context_failed``), and the model keeps the text that it has."""
    each: Literal["turn", "run"] = field(default="turn", kw_only=True, validator=_check_each)
    """Whether the function is called before each turn, or once for each run."""


def context_sources_of(
    items: Iterable[ContextSource | Callable[[RunInfo[Any]], Any] | Callable[[], Any]],
) -> tuple[ContextSource, ...]:
    """The sources of ``Agent(context=...)``: each item, made a source if it is a function.

    Raises:
      UsageError: an item is neither, or two have one name.
    """
    given: Any = items
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise UsageError(f"context= takes a list of sources, not {shown(cast('Any', given))}")
    sources = tuple(_source_of(item) for item in cast("Iterable[object]", given))
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two context sources are called {name!r}: give one of them another name")
    return sources


def _source_of(item: Any) -> ContextSource:
    if isinstance(item, ContextSource):
        return item
    if not callable(item):
        raise UsageError(f"context= takes ContextSource(...), or functions of a RunInfo, not {shown(item)}")
    written = without_partial(item)
    return ContextSource(str(getattr(written, "__name__", type(written).__name__)), item)
