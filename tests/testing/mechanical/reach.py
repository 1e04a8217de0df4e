"""Which scenarios of the corpus, and which mixes, run which lines of a file, without a fault."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import CodeType
from typing import Any

from attrs import frozen

from agentloop.testing._lab import AgentScenario
from agentloop.testing.simulation import Violation, simulate

__all__ = ["Reach", "reach_of"]


@frozen
class Reach:
    """What each scenario runs.

    Attributes:
      lines: the names of the scenarios that run a line, by file and line.
      seconds: how long each scenario takes.
    """

    lines: dict[tuple[str, int], set[str]]
    seconds: dict[str, float]

    def scenarios(self, file: str, lines: Iterable[int]) -> list[str]:
        """The scenarios that run one of ``lines``, the quick ones first."""
        names = set[str]().union(*(self.lines.get((file, line), ()) for line in lines))
        return sorted(names, key=lambda name: (self.seconds[name], name))


def reach_of(files: set[str], makers: Mapping[str, Callable[[], AgentScenario]]) -> Reach:
    """Run each scenario once, and note the lines of ``files``. Python 3.12 or later is needed."""
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
    tool, reach = monitoring.PROFILER_ID, Reach({}, {})
    name = ""

    def line(code: CodeType, number: int) -> object:
        if code.co_filename in files:
            reach.lines.setdefault((code.co_filename, number), set()).add(name)
        return monitoring.DISABLE

    monitoring.use_tool_id(tool, "agentloop.mechanical")
    try:
        monitoring.register_callback(tool, monitoring.events.LINE, line)
        monitoring.set_events(tool, monitoring.events.LINE)
        for name, make in makers.items():
            # A line that one scenario has run is to be seen in the next one again.
            monitoring.restart_events()
            began = time.monotonic()
            with suppress(Violation):
                simulate(make())
            reach.seconds[name] = time.monotonic() - began
    finally:
        monitoring.set_events(tool, 0)
        monitoring.register_callback(tool, monitoring.events.LINE, None)
        monitoring.free_tool_id(tool)
    return reach
