"""End a run that would not end by itself."""

from __future__ import annotations

from attrs import define, field

from agentloop.testing.simulation.errors import Abandoned
from agentloop.testing.simulation.trio_private import Loop, end_task

__all__ = ["Condemned"]


@define(eq=False)
class Condemned:
    """Ends all tasks of a stuck run by raising `Abandoned` in them; as the last resort, stops the loop.

    A task may unwind as it likes, even wait, but not for long: the thing that it waits for will not come.
    """

    loop: Loop
    _steps_left: int = field(init=False)
    _rounds_left: int = field(default=30, init=False)

    def __attrs_post_init__(self) -> None:
        self._steps_left = 1000 + 10 * len(self.loop.tasks())
        self._end_all()

    def on_step(self) -> None:
        """A task has run: it caught the exception, or is cleaning up."""
        self._steps_left -= 1
        if self._steps_left < 0:
            self.loop.stop()

    def on_idle(self) -> None:
        """No task can run: all that are left wait again, or cannot be interrupted."""
        self._rounds_left -= 1
        if self._rounds_left < 0:
            self.loop.stop()
        else:
            self._end_all()

    def _end_all(self) -> None:
        for task in self.loop.tasks():
            # An exception per task: a shared one would collect the tracebacks of all.
            end_task(task, Abandoned("the run is stuck, and is being ended"))
