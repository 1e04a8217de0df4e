"""Pausing a run: it holds at its next boundary until it is resumed, stopped or parked.

The boundaries are the places at which something new would begin: a turn, a request to a model, the calls of a turn, the
tool of a call. Each looks at ``run.root.pauses``, which is ``None`` until somebody pauses a run of the tree. What runs
already, runs to its end. A run holds while it, or a run around it, is paused.
"""

from __future__ import annotations

import trio

from agentloop._core.questions import Questions
from agentloop._runtime.blocks import PausableDeadline
from agentloop._runtime.run import Answerer, Run
from agentloop.events import Paused, Resumed

__all__ = ["hold", "is_paused", "pause", "resume"]


class Pauses:
    """Wakes the tasks that hold, in one tree of runs."""

    __slots__ = ("_changed",)

    def __init__(self, questions: Questions[Answerer]) -> None:
        self._changed = trio.Event()
        # A run that holds can be parked, so it is woken by whatever may make the tree idle.
        questions.wake_held = self.notify

    def notify(self) -> None:
        """Something has changed: each task that holds looks whether it still has to."""
        self._changed.set()
        self._changed = trio.Event()

    async def hold(self, run: Run) -> None:
        """Return when neither ``run`` nor a run around it is paused."""
        questions = run.root.questions
        while is_paused(run):
            changed = self._changed
            # A task that waited for the change, for its turn say, counts as waiting until it runs.
            for _ in range(2):
                await trio.lowlevel.checkpoint()
            if not changed.is_set():
                questions.park_if_idle()
                await changed.wait()


def is_paused(run: Run) -> bool:
    """Whether ``run``, or a run around it, is paused."""
    return any(state.is_paused for state in run.state.around)


async def hold(run: Run, call_id: str = "", deadline: PausableDeadline | None = None) -> bool:
    """Wait at a boundary while ``run`` is paused. The caller has looked whether ``run.root.pauses`` is there.

    Args:
      run: the run that is at a boundary.
      call_id: its tool call that is, if it is not the run itself.
      deadline: stands still meanwhile, with those around it; that of the run if left out.

    Returns:
      Whether it has waited.

    Raises:
      ClockError: trio's clock failed.
    """
    pauses, questions = run.root.pauses, run.root.questions
    if pauses is None or not is_paused(run):
        return False
    # A paused run waits for a person, as one that has asked a question does.
    with (run.deadline if deadline is None else deadline).paused(), run.state.waiting(call_id), questions.holding():
        questions.notify()
        await pauses.hold(run)
    return True


def pause(run: Run) -> None:
    """Pause ``run``, unless it is paused or has ended. Does not wait."""
    if run.state.is_paused or _has_ended(run):
        return
    if run.root.pauses is None:
        run.root.pauses = Pauses(run.root.questions)
    run.emit(Paused)


def resume(run: Run) -> None:
    """End the pause of ``run``, if it is paused and has not ended. Does not wait."""
    if not run.state.is_paused or _has_ended(run):
        return
    run.emit(Resumed)
    assert run.root.pauses is not None
    run.root.pauses.notify()


def _has_ended(run: Run) -> bool:
    return run.outcome is not None or run.writer.is_closed
