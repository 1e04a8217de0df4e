"""Call the hooks of a point, and the observers of a run.

Hooks are called one after another, each with its deadline. A guard that fails refuses; any other hook that fails is a
warning. Observers see events, in a task of their own, and cannot hold up the run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

import msgspec
import trio

from agentloop._core.field_checks import FieldError, checked, shown
from agentloop._core.foreign_errors import describe, error_text
from agentloop._core.transcript import problems
from agentloop._core.typevars import Output
from agentloop._runtime.blocks import PausableDeadline
from agentloop._runtime.exception_groups import failure_of
from agentloop._runtime.log import EventWriter, Reader
from agentloop._runtime.logs import HOOKS, RUN, log
from agentloop._runtime.user_code import UserCodeError, call_user_code, in_thread_if_plain
from agentloop.context import AgentBase
from agentloop.errors import UsageError
from agentloop.events import Source
from agentloop.hooks import (
    TOOL_POINTS,
    Asking,
    BeforeLLMCall,
    Hook,
    HookInput,
    HookWarning,
    PointName,
    ReplaceMessages,
    ReplaceRequest,
)
from agentloop.limits import Deadlines
from agentloop.messages import Message, Prompt
from agentloop.models import ModelRequest, ModelSettings, ToolSpec, check_model_name
from agentloop.observers import Observer, StepObserver
from agentloop.outcome import Outcome, QuestionHandler

__all__ = ["HookFailedError", "HookRuns", "Hooks", "OpenHookRuns", "observe"]


class HookRuns(Protocol):
    """Runs the agents of one call of a hook: see ``agentloop/_runtime/hook_runs.py``."""

    deadline: PausableDeadline
    """The hook's."""

    async def run(
        self, agent: AgentBase[Any, Output], prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> Outcome[Output]:
        """Run one."""
        ...

    async def end(self) -> None:
        """The hook has returned."""
        ...


OpenHookRuns: TypeAlias = Callable[[Hook, float], HookRuns]
"""Makes what a hook that runs agents gets, with the seconds that it may take."""


class HookFailedError(Exception):
    """A guard failed, which counts as a refusal. The message says so."""


_NO_HOOKS: Mapping[PointName, Sequence[Hook]] = {}


def _by_point(hooks: Sequence[Hook]) -> Mapping[PointName, Sequence[Hook]]:
    by_point: dict[PointName, list[Hook]] = {}
    for hook in hooks:
        by_point.setdefault(hook.point, []).append(hook)
    return by_point


class Hooks:
    """The hooks of one stream's agent, and those of the agents around it that are called for its tool calls.

    Args:
      around: the hooks of the stream around it.
      deps: the root stream's; each input of a hook has them.
      asking: makes what a hook that asks a model gets.
      runs: makes what a hook that runs agents gets.
      opener: the hook that has opened the run, which is not called in it.
    """

    __slots__ = ("_asking", "_deadlines", "_deps", "_hooks", "_inherited", "_runs", "_writer", "asks", "runs_agents")

    def __init__(
        self,
        hooks: Sequence[Hook],
        deadlines: Deadlines,
        writer: EventWriter,
        around: Hooks | None = None,
        *,
        deps: Any = None,
        asking: Callable[[], Asking] | None = None,
        runs: OpenHookRuns | None = None,
        opener: Hook | None = None,
    ) -> None:
        self._asking = asking
        self._runs = runs
        self.runs_agents = runs is not None
        """Whether one of them may run agents."""
        self.asks = asking is not None
        """Whether one of them may ask a model."""
        if opener is not None:
            hooks = [hook for hook in hooks if hook.function is not opener.function]
        self._hooks = _by_point(hooks) if hooks else _NO_HOOKS
        self._deadlines = deadlines
        self._writer = writer
        self._deps = deps
        self._inherited: Sequence[Hook] = ()
        if around is not None and any(around.at(point) for point in TOOL_POINTS):
            self._inherit(around, opener)

    def _inherit(self, around: Hooks, opener: Hook | None) -> None:
        hooks = {point: list(own) for point, own in self._hooks.items()}
        inherited: list[Hook] = []
        for point in TOOL_POINTS:
            own = hooks.setdefault(point, [])
            for hook in around.at(point):
                if opener is not None and hook.function is opener.function:
                    continue
                # Agents of a team often share their hooks: each is called once.
                if hook.children and not any(_are_alike(hook, other) for other in own):
                    seconds = around._deadlines.hook if hook.timeout is None else hook.timeout
                    own.append(msgspec.structs.replace(hook, timeout=seconds))
                    inherited.append(own[-1])
        self._hooks, self._inherited = hooks, inherited

    def is_inherited(self, hook: Hook) -> bool:
        """Whether ``hook`` is of an agent around this one, and can only make it stricter."""
        return any(hook is other for other in self._inherited)

    def at(self, point: PointName) -> Sequence[Hook]:
        """The hooks at ``point``, in order; empty for most points of most agents."""
        return self._hooks.get(point, ())

    async def ask(self, hook: Hook, value: HookInput) -> Any:
        """The verdict of ``hook`` on ``value``; ``None`` lets pass.

        Raises:
          HookFailedError: the hook is a guard, and it failed. An observer that fails is a warning.
        """
        if self._deps is not None:
            value = msgspec.structs.replace(value, deps=self._deps)
        if hook.asks and self._asking is not None:
            value = msgspec.structs.replace(value, asking=self._asking())
        seconds = self._deadlines.hook if hook.timeout is None else hook.timeout
        if hook.agents and self._runs is not None:
            runs = self._runs(hook, seconds)
            try:
                return await self._call(hook, msgspec.structs.replace(value, runs=runs), seconds, runs.deadline.scope)
            finally:
                await runs.end()  # noqa: ASYNC102 - it shields itself
        return await self._call(hook, value, seconds, trio.move_on_after(seconds))

    async def _call(self, hook: Hook, value: HookInput, seconds: float, scope: trio.CancelScope) -> Any:
        stream, name = self._writer.source.stream, f"the {hook.point} hook {hook.name!r}"
        error: BaseException | None = None
        began = time.perf_counter()
        try:
            verdict = await call_user_code(scope, in_thread_if_plain(hook.function), value)
        except UserCodeError as failure:
            error = failure.__cause__
            if isinstance(error, HookWarning):
                self._writer.warn("hook_warning", f"{name}: {error_text(error)}", logged=f"{name} warns")
                return None
            short = f"failed: took longer than {seconds:g} s" if failure.timed_out else "failed"
            problem = short if failure.timed_out else f"failed: {failure}"
        else:
            verdict, flaw = checked_verdict(hook, verdict, value)
            if not flaw:
                if HOOKS.isEnabledFor(logging.DEBUG):
                    took, kind = time.perf_counter() - began, type(verdict).__name__
                    log(HOOKS, logging.DEBUG, "stream %r: %s returned %s, %.3f s", stream, name, kind, took)
                return verdict
            problem, short = flaw
        message = f"{name} {problem}"
        if hook.guard:
            log(HOOKS, logging.ERROR, "stream %r: %s %s", stream, name, short, error=error)
            raise HookFailedError(message)
        self._writer.warn("hook_failed", message, logged=f"{name} {short}", error=error)
        return None

    async def notify(self, point: PointName, value: HookInput) -> None:
        """Show ``value`` to the observers at ``point``."""
        for hook in self.at(point):
            await self.ask(hook, value)

    async def notify_shielded(self, point: PointName, value: HookInput) -> None:
        """Like `notify`, during cleanup: shielded, within ``Deadlines.cleanup`` for each hook."""
        for hook in self.at(point):
            # A scope each: a hook that hangs must not keep the next one from running.
            scope = trio.move_on_after(self._deadlines.cleanup, shield=True)
            problem = ""
            failure: Exception | None = None
            try:
                with scope:
                    await self.ask(hook, value)
                if scope.cancelled_caught:
                    problem = f"took longer than {self._deadlines.cleanup:g} s at the end of the run"
            # A nursery of the hook's may raise in the middle of that cancellation, and the clock before it: the last
            # event is emitted even so.
            except Exception as error:  # noqa: BLE001
                failure, problem = error, describe(error)
            if problem:
                name = f"the {hook.point} hook {hook.name!r} failed"
                logged = name if failure else f"{name}: {problem}"
                self._writer.warn("hook_failed", f"{name}: {problem}", logged=logged, error=failure)


def _are_alike(hook: Hook, other: Hook) -> bool:
    return hook.function is other.function and hook.tools == other.tools


def checked_verdict(hook: Hook, verdict: Any, value: HookInput) -> tuple[Any, tuple[str, str] | None]:
    """The verdict that ``hook`` returned on ``value``, with plain values only.

    The second item is the reason why it is none, for a person and for the log.
    """
    if verdict is None:
        return None, None
    if not isinstance(verdict, hook.verdicts):
        allowed = ", ".join(kind.__name__ for kind in hook.verdicts) or "nothing"
        due = f"where it may return {allowed} or None"
        return None, (f"returned {shown(verdict)}, {due}", f"returned a {type(verdict).__name__}, {due}")
    short = f"returned a {type(verdict).__name__} with a wrong value"
    try:
        if isinstance(verdict, ReplaceRequest):
            plain: Any = _checked_request(verdict, cast("BeforeLLMCall", value).request)
        else:
            plain = checked(type(verdict), verdict) if isinstance(verdict, msgspec.Struct) else verdict
    except (FieldError, UsageError) as error:
        return None, (f"{short}: {error}", short)
    # A provider answers such a request with an error that names no hook.
    torn = problems(plain.messages or ()) if isinstance(plain, (ReplaceMessages, ReplaceRequest)) else ()
    if torn:
        return None, (f"returned messages that no provider takes: {'; '.join(torn)}", short)
    return plain, None


def _checked_request(verdict: ReplaceRequest, request: ModelRequest) -> ReplaceRequest:
    """``verdict`` with plain values only, and with the tools as specs of ``request``.

    Raises:
      FieldError: a field is of another type, or names a tool that the request does not have.
      UsageError: the model has no name.
    """
    name = "ReplaceRequest"
    tools = checked(Sequence[str | ToolSpec] | None, verdict.tools, f"{name}.tools")
    model: object = verdict.model
    if model is not None and not isinstance(model, str):
        if not callable(getattr(model, "respond", None)) or isinstance(model, type):
            raise FieldError(f"`{name}.model` is {shown(model)}, where a model or its name is due")
        check_model_name(model)
    return ReplaceRequest(
        messages=checked(Sequence[Message] | None, verdict.messages, f"{name}.messages"),
        instructions=checked(str | None, verdict.instructions, f"{name}.instructions"),
        tools=None if tools is None else _of_request(tools, request),
        settings=checked(ModelSettings | None, verdict.settings, f"{name}.settings"),
        model=verdict.model,
    )


def _of_request(tools: Sequence[str | ToolSpec], request: ModelRequest) -> tuple[ToolSpec, ...]:
    """``tools`` as specs of ``request``, in their order, each once."""
    known = {spec.name: spec for spec in request.tools}
    chosen: dict[str, ToolSpec] = {}
    for tool in tools:
        name = tool if isinstance(tool, str) else tool.name
        spec = known.get(name)
        if spec is None:
            has = f"has {', '.join(known)}" if known else "has none"
            raise FieldError(f"`ReplaceRequest.tools` cannot add {name!r}: the request {has}")
        if not isinstance(tool, str) and tool != spec:
            raise FieldError(f"`ReplaceRequest.tools` cannot change {name!r}: give the name, or the spec as it is")
        chosen[name] = spec
    return tuple(chosen.values())


# ------------------------------------------------------------------------- observers


async def observe(events: Reader, observers: Sequence[Observer], source: Source) -> None:
    """Hand ``events`` of the run of ``source`` to ``observers`` until the run has ended."""
    watching = list(observers)
    try:
        await _observe(events, watching, source)
    finally:
        for observer in watching:
            _leave(observer, source)


async def _observe(events: Reader, watching: list[Observer], source: Source) -> None:
    # Shielded: the end of a run that is cancelled is an event, too. The run closes the channel on every way out, and
    # `observe` does not wait, so this ends soon after.
    wanted: list[Collection[type] | None] = [getattr(observer, "wakes_for", None) for observer in watching]
    kinds = {kind for some in wanted if some is not None for kind in some}
    is_patient = None not in wanted
    with trio.CancelScope(shield=True), events:
        while watching:
            while (event := events.take()) is None:
                if events.is_at_end:
                    return
                await (events.wait_for(kinds) if is_patient else events.wait_until_ready())
            for observer in tuple(watching):
                try:
                    observer.observe(event)
                except BaseException as raised:  # noqa: ASYNC103, BLE001 - `observe` is plain, and never cancelled
                    error = failure_of(raised)
                    watching.remove(observer)
                    name, kind = type(observer).__qualname__, type(event).__name__
                    text = "stream %r: observer %s failed at a %s, and sees no more of the run"
                    log(RUN, logging.ERROR, text, source.stream, name, kind, error=error)
                    _leave(observer, source)


def _leave(observer: Observer, source: Source) -> None:
    if isinstance(observer, StepObserver):
        try:
            observer.leave(source)
        except BaseException as raised:  # noqa: ASYNC103, BLE001 - `failure_of` raises an interrupt again
            error, name = failure_of(raised), type(observer).__qualname__
            log(RUN, logging.ERROR, "stream %r: observer %s failed at the end", source.stream, name, error=error)
