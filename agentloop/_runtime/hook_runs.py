"""The runs that a hook opens: child runs of its stream, which end with the hook.

A hook that names agents (``@hooks.stop(agents=[critic])``) gets an input whose `run` opens one. The child is inside the
stream, and inside no call: it is not resumed with the stream, whose hook is called anew. The hook itself, and each one
with its function, is not called in the child and below it: a guard that has each call judged by an agent would have
the calls of that agent judged by it as well, without an end.
"""

from __future__ import annotations

from typing import Any

import trio

from agentloop._runtime.blocks import PausableDeadline
from agentloop._runtime.run import Run
from agentloop.context import AgentBase
from agentloop.errors import StreamStateError, UsageError
from agentloop.hooks import Hook
from agentloop.messages import Prompt
from agentloop.outcome import Outcome, QuestionHandler

__all__ = ["HookRuns"]


class HookRuns:
    """Opens the runs of one call of a hook: `agentloop.hooks.RunsAgents`."""

    __slots__ = ("_ended", "_hook", "_idle", "_run", "_uses", "deadline")

    def __init__(self, run: Run, hook: Hook, seconds: float, /) -> None:
        self._run = run
        self._hook = hook
        self._ended = False
        self._uses: set[trio.CancelScope] = set()
        """The scopes of the runs that are open."""
        self._idle: trio.Event | None = None
        self.deadline = PausableDeadline(seconds, run.deadline)
        """The hook's. The time in which a person thinks does not count."""

    async def run(
        self, agent: AgentBase[Any, Any], prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> Outcome[Any]:
        run, hook = self._run, self._hook
        if not any(agent is known for known in hook.agents):
            name = getattr(agent, "name", agent)
            known = ", ".join(repr(getattr(known, "name", known)) for known in hook.agents)
            raise UsageError(
                f"the {hook.point} hook {hook.name!r} does not name agent {name!r}: it may run {known}; add the agent "
                f"to @hooks.{hook.point}(agents=[...])"
            )
        if self._ended:
            raise StreamStateError(f"the {hook.point} hook {hook.name!r} has returned: it runs no agent any more")
        scope = trio.CancelScope()
        self._uses.add(scope)
        try:
            with scope:
                opening = run.root.open_child(run, "", self.deadline, agent, prompt, on_question, False, "", None, hook)
                async with opening as child:
                    await child.wait()
                    return child.result
        finally:
            self._uses.discard(scope)
            if self._idle is not None and not self._uses:
                self._idle.set()
        raise StreamStateError(f"the {hook.point} hook {hook.name!r} has returned, and its run has ended with it")

    async def end(self) -> None:
        """The hook has returned: end the runs that it has left open in other tasks."""
        self._ended = True
        if self._uses:
            self._idle = trio.Event()
            for scope in self._uses:
                scope.cancel()
            with trio.CancelScope(shield=True):
                await self._idle.wait()
