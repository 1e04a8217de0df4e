"""The error of a simulation whose code under test is wrong."""

from __future__ import annotations

from agentloop._core.portable_errors import PortableError
from agentloop.testing.simulation.sim import Sim

__all__ = ["Violation"]


class Violation(PortableError, AssertionError):  # noqa: N818 - as hypothesis and pytest name theirs
    """A run broke a guarantee. The message names it, the fault that was injected, and a token to repeat this run."""

    _local = frozenset({"sim"})

    def __init__(self, problem: str, *, sim: Sim) -> None:
        injected = str(sim.injection) if sim.injection is not None else "nothing"
        parts = [problem, f"injected: {injected}"]
        if sim.fault is not None or sim.picks or sim.granularity == "step":
            if sim.picks:
                parts.append(
                    f"order of tasks: {sim.token.split()[-1]} (choice: place in the queue of the task that ran)"
                )
            parts.append(f"to run it again: {sim.replays_with.format(token=sim.token)}")
        super().__init__("\n".join(parts))
        self.problem = problem
        self.sim = sim
        self.token = sim.token
        """The token for ``replay``."""
