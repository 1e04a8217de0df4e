"""End a run that would not end by itself."""

from __future__ import annotations

from attrs import define, field

from agentloop.testing.simulation.trio_private import Loop, end_task

__all__ = ["Abandoned", "Condemned"]


class Abandoned(BaseException):
    """Raised in each task of a run that is being ended from outside, under shields too. Not an `Exception`."""


@define(eq=False)
class Condemned:
    """Raises `Abandoned` in all tasks, and again in those that wait afterwards. The last resort stops the loop.

    A task may do what it likes while it unwinds, even wait, but not for long: what it waits for will not come.
    """

    loop: Loop
    _steps_left: int = field(init=False)
    _rounds_left: int = field(default=30, init=False)

    def __attrs_post_init__(self) -> None:
        self._steps_left = 1000 + 10 * len(self.loop.tasks())
        self._end_all()

    def on_step(self) -> None:
        """A task has run, so it has caught what it was sent, or is cleaning up."""
        self._steps_left -= 1
        if self._steps_left < 0:
            self.loop.stop()

    def on_idle(self) -> None:
        """Nothing can run: all tasks left have begun to wait once more, or cannot be interrupted."""
        self._rounds_left -= 1
        if self._rounds_left < 0:
            self.loop.stop()
        else:
            self._end_all()

    def _end_all(self) -> None:
        for task in self.loop.tasks():
            # One for each: an exception raised in many tasks would collect the tracebacks of all.
            end_task(task, Abandoned("the run is stuck, and is being ended"))
