"""The commands of ``python -m agentloop``: how they end, and how they find the agents that their arguments name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from agentloop.agent import Agent
from agentloop.errors import AgentLoopError, UsageError

__all__ = ["are_agents", "exit_code", "find_by_name", "is_file", "prepare"]

MISUSED = 2
INTERRUPTED = 130


def exit_code(run: Callable[[], None]) -> int:
    """Run a command, and return its exit code. An error of agentloop is one line of the standard error."""
    try:
        run()
    except AgentLoopError as error:
        sys.stderr.write(f"agentloop: {error}\n")
        return MISUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def prepare(logger: str) -> None:
    """Log to the standard error, and look for modules where the command was started, as ``python module.py`` does."""
    sys.path.insert(0, str(Path.cwd()))
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger(logger).setLevel(logging.INFO)


def is_file(place: str) -> bool:
    """Whether ``place`` is a file of a team, and no ``module:name``."""
    return place.lower().endswith((".yaml", ".yml"))


def find_by_name(
    place: str, fits: Callable[[object], bool], *, wanted: str, from_file: Callable[[str], object] | None = None
) -> Any:
    """The object at ``module:name``, or the team of a file.

    Args:
      place: the module and the name in it, which may have dots; or the path of a YAML file.
      fits: whether the command can use an object.
      wanted: what it can use, in words for the error.
      from_file: makes a team of a file.

    Raises:
      UsageError: there is no such module, it has no such object of that name, or the file cannot be used.
    """
    if from_file is not None and is_file(place):
        return from_file(place)
    module_name, colon, name = place.partition(":")
    if not (module_name and colon and name):
        hint = "; a file of agents ends in .yaml or .yml" if from_file is not None else ""
        raise UsageError(f"say where the agent is, as in 'chat:agent' for `agent` in chat.py, and not {place!r}{hint}")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            # The module is there, and imports one that is not.
            raise
        raise UsageError(f"there is no module {module_name!r} in {Path.cwd()} or in the environment") from None
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            usable = ", ".join(sorted(key for key, value in vars(module).items() if fits(value)))
            raise UsageError(f"module {module_name!r} has no {name!r}; of use here are: {usable or 'none'}")
        found = getattr(found, part)
    if not fits(found):
        raise UsageError(f"{place} is no {wanted}: it is {type(found).__name__}")
    return found


def are_agents(value: object) -> bool:
    """Whether ``value`` is an agent, or a list, tuple or dict with agents alone."""
    if isinstance(value, Agent):
        return True
    if isinstance(value, Mapping):
        value = list(cast("Mapping[str, object]", value).values())
    if not isinstance(value, (list, tuple)):
        return False
    items = cast("list[object]", value)
    return bool(items) and all(isinstance(item, Agent) for item in items)
