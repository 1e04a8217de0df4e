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
        parts = [problem, f"injected: {injected}", f"to run it again: replay_token(make_scenario, {sim.token!r})"]
        super().__init__("\n".join(parts))
        self.problem = problem
        self.sim = sim
        self.token = sim.token
        """The token for ``replay``."""
