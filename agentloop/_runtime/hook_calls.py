"""Calling the hooks of a point: one after another, each within its time, failures told apart by kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from agentloop._runtime.emitter import Emitter
from agentloop._runtime.foreign import ForeignError, call_foreign, describe
from agentloop.hooks import Hook, HookWarning, PointName
from agentloop.limits import Deadlines

__all__ = ["HookCalls", "HookFailedError"]


class HookFailedError(Exception):
    """A guard failed, which counts as a refusal. The message says so."""


class HookCalls:
    """The hooks of one stream's agent."""

    __slots__ = ("_deadlines", "_emitter", "_hooks")

    def __init__(self, hooks: Sequence[Hook], deadlines: Deadlines, emitter: Emitter) -> None:
        self._hooks: dict[PointName, list[Hook]] = {}
        for hook in hooks:
            self._hooks.setdefault(hook.point, []).append(hook)
        self._deadlines = deadlines
        self._emitter = emitter

    def at(self, point: PointName) -> Sequence[Hook]:
        """The hooks at ``point``, in order; empty for most points of most agents."""
        return self._hooks.get(point, ())

    async def ask(self, hook: Hook, value: object) -> Any:
        """The verdict of ``hook`` on ``value``; ``None`` lets pass.

        Raises:
          HookFailedError: the hook is a guard, and it failed. An observer that fails is a warning.
        """
        seconds = self._deadlines.hook if hook.timeout is None else hook.timeout
        try:
            verdict = await call_foreign(trio.move_on_after(seconds), hook.function, value)
        except ForeignError as error:
            if isinstance(error.__cause__, HookWarning):
                self._emitter.warn("hook_warning", f"the {hook.point} hook {hook.name!r}: {error.__cause__}")
                return None
            problem = f"failed: took longer than {seconds:g} s" if error.timed_out else f"failed: {error}"
        else:
            if verdict is None or isinstance(verdict, hook.verdicts):
                return verdict
            allowed = ", ".join(kind.__name__ for kind in hook.verdicts) or "nothing"
            problem = f"returned {verdict!r}, where it may return {allowed} or None"
        message = f"the {hook.point} hook {hook.name!r} {problem}"
        if hook.guard:
            raise HookFailedError(message)
        self._emitter.warn("hook_failed", message)
        return None

    async def tell(self, point: PointName, value: object) -> None:
        """Show ``value`` to the observers at ``point``."""
        for hook in self.at(point):
            await self.ask(hook, value)

    async def tell_at_the_end(self, point: PointName, value: object) -> None:
        """Like `tell`, on the way out: cancelled or not, within ``Deadlines.cleanup`` for each hook."""
        for hook in self.at(point):
            # A scope each: a hook that hangs must not keep the next one from running.
            scope = trio.move_on_after(self._deadlines.cleanup, shield=True)
            problem = ""
            try:
                with scope:
                    await self.ask(hook, value)
                if scope.cancelled_caught:
                    problem = f"took longer than {self._deadlines.cleanup:g} s at the end of the run"
            # A nursery of the hook's may raise in the middle of that cancellation, and the clock before it: the last
            # event is told even so.
            except Exception as error:  # noqa: BLE001
                problem = describe(error)
            if problem:
                self._emitter.warn("hook_failed", f"the {hook.point} hook {hook.name!r} failed: {problem}")
