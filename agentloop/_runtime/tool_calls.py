"""The tool calls of one turn: a task each, one result each, whatever happens."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from inspect import isawaitable
from threading import Lock
from typing import Any

import trio

from agentloop._core.context_window import LongResults
from agentloop._core.foreign_errors import describe, error_text
from agentloop._core.results import error_info, error_result, result_of, to_text, unknown_tool, words_for_model
from agentloop._core.state import RunBlocked, ToolStarted
from agentloop._core.transcript import interrupted_result
from agentloop._runtime.approval import CheckedArguments, check_call, is_free, may_run_again, real_arguments
from agentloop._runtime.blocks import PausableDeadline, now, since
from agentloop._runtime.call_order import CallOrder
from agentloop._runtime.handoffs import HandoffOrder, refused_handoff
from agentloop._runtime.hooks import HookFailedError
from agentloop._runtime.logs import TOOLS, log
from agentloop._runtime.pauses import hold
from agentloop._runtime.run import Run, ServingToolset, record_long_result, record_tool_start
from agentloop._runtime.steps import Surrounded
from agentloop._runtime.tool_context import RunningContext
from agentloop._runtime.user_code import UserCodeError, call_in_thread, call_user_code, tool_threads
from agentloop.errors import ToolError
from agentloop.events import ErrorInfo, ToolCallFinished, ToolCallParked, ToolCallStarted
from agentloop.handoffs import HANDOFF
from agentloop.hooks import Block, PostToolUse, ReplaceResult
from agentloop.messages import ToolCall, ToolResult
from agentloop.observers import ToolStep
from agentloop.tools import Tool

__all__ = ["Calls"]

_NO_CALLS: frozenset[str] = frozenset()

ABANDONED = "runs in a thread, which cannot be stopped: it may still take effect"


class Calls:
    """The calls of one turn that have no result yet. Their results go into the run's state, whatever happens."""

    __slots__ = (
        "_calls",
        "_errors",
        "_had_begun",
        "_handoffs",
        "_has_begun",
        "_pausable",
        "_run",
        "_shared",
        "_tools",
    )

    def __init__(self, run: Run, calls: tuple[ToolCall, ...], tools: Mapping[str, Tool]) -> None:
        self._run = run
        self._tools = tools
        self._errors: dict[str, ErrorInfo] | None = None
        """The exceptions of tools, by call id, once there is one."""
        self._shared: trio.CancelScope | None = None
        """The cancel scope that has the deadline of all calls, if they share one."""
        self._pausable: PausableDeadline | None = None
        """That deadline, once the run was paused before a tool had begun."""
        results = run.state.results
        self._calls = tuple([call for call in calls if call.id not in results]) if results else calls
        self._had_begun: frozenset[str] = frozenset(run.state.started_calls) if run.state.calls else _NO_CALLS
        """Ids of the calls whose tools began to run before this run was resumed."""
        # A dict, since one with an entry takes half of the room of such a set.
        self._has_begun: dict[str, None] = dict.fromkeys(self._had_begun)
        """Ids of the calls whose tools began to run. The state has them a moment earlier: before that is saved."""
        self._handoffs: HandoffOrder | None = None
        """The order of the calls, if one of several is a handoff."""

    async def run_all(self) -> None:
        """Run all calls at once; return when every one has its result."""
        run = self._run
        if run.root.pauses is not None:
            await hold(run)
        began = now()
        seconds = self._shared_deadline() if len(self._calls) > 1 else None
        # Calls that share a deadline have no questions to ask.
        has_order = len(self._calls) > 1 and seconds is None
        run.call_order = CallOrder(call.id for call in self._calls) if has_order else None
        for call in self._calls:
            # Told here, in call order: trio starts tasks in any order.
            source, seq = run.source, run.log.seq + 1
            run.writer.append(ToolCallStarted(source, seq, call_id=call.id, name=call.name, arguments=call.arguments))
        if not self._calls:
            return
        if run.config.handoffs and len(self._calls) > 1:
            self._handoffs = HandoffOrder(run, self._calls)
        run_call = self._run_surrounded if run.around else self._run_call
        if len(self._calls) == 1:
            # The stream's task does nothing else meanwhile, so one call needs no task of its own.
            await run_call(self._calls[0], began)
            return
        async with trio.open_nursery() as nursery:
            if seconds is not None:
                self._shared = nursery.cancel_scope
                nursery.cancel_scope.deadline = began + seconds
            for call in self._calls:
                nursery.start_soon(run_call, call, began)

    def _shared_deadline(self) -> float | None:
        """The seconds that all calls have alike, if each does nothing but run a plain async function.

        Such calls share one cancel scope: entering one takes a fifth of a short call.
        """
        run = self._run
        seconds: float | None = None
        if run.root.journal is not None or run.hooks.at("post_tool_use"):
            return None
        for call in self._calls:
            tool = self._tools.get(call.name)
            if tool is None or tool.kind != "async" or tool.context_name is not None or tool.concurrency is not None:
                return None
            own = run.config.deadlines.tool if tool.timeout is None else tool.timeout
            if (seconds is not None and own != seconds) or not is_free(run, tool):
                return None
            seconds = own
        return seconds

    def _shared_deadline_as_pausable(self) -> PausableDeadline | None:
        """The deadline that all calls share, with the run's around it; ``None`` if they share none."""
        if self._shared is not None and self._pausable is None:
            self._pausable = PausableDeadline.of(self._shared, self._run.deadline)
        return self._pausable

    async def _run_surrounded(self, call: ToolCall, began: float) -> None:
        """`_run_call`, as a step that observers surround."""
        tool, source = self._tools.get(call.name), self._run.source
        description = None if tool is None else tool.description
        step = ToolStep(
            source=source, call_id=call.id, name=call.name, arguments=call.arguments, description=description
        )
        with Surrounded(self._run.around, step):
            await self._run_call(call, began, step)

    async def _run_call(self, call: ToolCall, began: float, step: ToolStep | None = None) -> None:
        """Run one call to its result. Raises only cancellation, so siblings continue."""
        run = self._run
        result: ToolResult | None = None
        try:
            result = await self._result(call, began)
            if run.redactor is not None:
                result = run.redactor.value(result)
            most = self._longest(call)
            if not LongResults.fits(result, most):
                result = run.transcript.long_results.shorten(result, most)
                record_long_result(run, call.id)
        finally:
            self._settle(call)
            if self._handoffs is not None:
                self._handoffs.end(call.id)
            if result is None and run.root.questions.is_parked:
                run.emit(ToolCallParked, call_id=call.id, name=call.name)
            else:
                if result is None:
                    result = interrupted_result(call, started=call.id in self._has_begun)
                error = None if self._errors is None else self._errors.get(call.id)
                elapsed = since(began)
                if error is not None and run.redactor is not None:
                    error = run.redactor.value(error)
                if step is not None:
                    step.result, step.error = result, error
                finished = ToolCallFinished(
                    run.source,
                    run.log.seq + 1,
                    call_id=call.id,
                    name=call.name,
                    result=result,
                    elapsed=elapsed,
                    error=error,
                )
                run.writer.append(finished)
        # The call may have been the last that kept the run from being idle.
        run.root.questions.notify()
        # No wait for readers that lag: the turn waits for them when all of its calls have ended.

    def _longest(self, call: ToolCall) -> float:
        """How many characters of the result the model gets to read at once."""
        tool = self._tools.get(call.name)
        return self._run.config.max_result if tool is None or tool.max_result is None else tool.max_result

    async def _result(self, call: ToolCall, began: float) -> ToolResult:
        tool, redactor = self._tools.get(call.name), self._run.redactor
        deferred = self._run.deferred
        if tool is None:
            known = list(self._tools)
            return unknown_tool(call, known) if deferred is None else deferred.unknown(call, self._tools)
        if call.name == HANDOFF and self._run.config.handoffs:
            if self._handoffs is not None:
                # It asks nothing before the calls that it waits for have ended.
                self._settle(call)
                await self._handoffs.wait(call.id)
            refusal = refused_handoff(self._run, call)
            if refusal is not None:
                return refusal
        if self._run.state.calls[call.id].outcome_unknown and not await may_run_again(self._run, tool, call):
            return interrupted_result(call, started=True)
        try:
            arguments = tool.arguments.decode(real_arguments(self._run, tool, call.arguments))
        except ToolError as error:
            text = error_text(error)
            return error_result(call, text if deferred is None else deferred.explained(tool, text))
        except Exception as error:  # noqa: BLE001 - `Arguments` may be a class of the user's own
            self._log(logging.ERROR, call, "failed: its arguments cannot be read", error)
            return error_result(call, f"The arguments cannot be read: {describe(error)}")
        if deferred is not None and (problem := deferred.problem_of(tool, arguments)):
            return error_result(call, deferred.explained(tool, problem))
        checked = CheckedArguments(arguments, call.arguments)
        is_unchecked = self._shared is not None or is_free(self._run, tool)
        if not is_unchecked:
            verdict = await check_call(self._run, tool, call, checked)
            if isinstance(verdict, ToolResult):
                return verdict
            checked = verdict
        self._settle(call)
        if tool.concurrency is None:
            result = await self._use(tool, call, checked, began if is_unchecked else None)
        else:
            result = await self._use_in_turn(tool, tool.concurrency, call, checked)
        if not self._run.hooks.at("post_tool_use"):
            return result
        return await self._after(call, checked, result if redactor is None else redactor.value(result))

    async def _use_in_turn(self, tool: Tool, concurrency: int, call: ToolCall, checked: CheckedArguments) -> ToolResult:
        """Call the tool when fewer than ``concurrency`` of its calls run."""
        run = self._run
        if run.turns_above(tool) >= concurrency:
            # The call would wait for its ancestors, which wait for it.
            return error_result(call, f"{tool.name} waits for this answer itself, and cannot run once more meanwhile.")
        semaphore = run.root.semaphore(tool, concurrency)
        # For a call that may itself wait for a person: then both can be parked.
        with run.state.waiting(call.id):
            await semaphore.acquire()
        run.begin_turn(call.id, tool)
        try:
            return await self._use(tool, call, checked)
        finally:
            run.end_turn(call.id)
            semaphore.release()

    def _settle(self, call: ToolCall) -> None:
        """Let later calls ask their questions."""
        if self._run.call_order is not None:
            self._run.call_order.settle(call.id)

    async def _use(
        self, tool: Tool, call: ToolCall, checked: CheckedArguments, began: float | None = None
    ) -> ToolResult:
        """Call the tool. Its exception, or a timeout, becomes the result.

        Args:
          began: the time that the tool's deadline counts from; now if left out.
        """
        run = self._run
        if run.root.pauses is not None and await hold(run, call.id, self._shared_deadline_as_pausable()):
            began = None
        seconds = run.config.deadlines.tool if tool.timeout is None else tool.timeout
        # No cancel scope where there is no deadline, as for an agent as a tool, and none where a deadline could end
        # nothing: it would take a tenth of a turn.
        has_deadline = self._shared is None and seconds < math.inf and tool.can_wait
        has_context = tool.context_name is not None or tool.kind != "async"
        deadline: PausableDeadline | None = None
        if has_deadline or has_context:
            deadline = PausableDeadline(seconds if has_deadline else None, run.deadline, began)
        scope = deadline.scope if has_deadline and deadline is not None else None
        serving = None if run.toolsets is None else run.toolsets.serving(tool.name)
        if serving is not None:
            if serving.is_over:
                return _restarted(call, serving, "before this call ran. Call the tool again")
            if scope is None:
                scope = trio.CancelScope()
        context: RunningContext | None = None
        arguments = checked.values
        if has_context and deadline is not None:
            context = RunningContext(run, call.id, deadline, partial(self._begin, tool, call))
            if not tool.records_start:
                context.is_start_recorded = True
            if run.log.is_journaled:
                run.log.output_left[run.source.stream, call.id] = self._longest(call)
            if tool.context_name is not None:
                arguments = {**arguments, tool.context_name: context}
        # No side effect may begin once the stream is cancelled, not even that of a tool that never waits.
        await trio.lowlevel.checkpoint_if_cancelled()
        if tool.records_start:
            pass  # It calls `_begin` itself.
        elif run.root.journal is not None:
            await self._begin(tool, call)
        else:
            # What `_begin` does without a journal, and without two coroutines.
            run.writer.note(ToolStarted(call.id))
            self._has_begun[call.id] = None
        if serving is not None and scope is not None:
            serving.calls.add(scope)
        try:
            if context is None or tool.kind == "async":
                value = await call_user_code(scope, tool.function, **arguments)
            else:
                indirect = self._call_in_thread if tool.kind == "sync" else _call_generator
                value = await call_user_code(scope, indirect, tool, context, arguments)
            return result_of(call, value)
        except UserCodeError as error:
            if error.timed_out and serving is not None and serving.is_over:
                self._log(logging.WARNING, call, "was cut off: its toolset was started again")
                return _restarted(call, serving, "while this call ran, which was cut off: its outcome is unknown")
            if error.timed_out and deadline is not None:
                self._log(logging.WARNING, call, f"timed out after {deadline.allowed:g} s")
                return self._timed_out(tool, call, deadline.allowed)
            cause = error.__cause__
            if cause is not None:
                self._errors = {} if self._errors is None else self._errors
                self._errors[call.id] = error_info(cause)
            if isinstance(cause, ToolError):
                self._log(logging.DEBUG, call, f"reported a {type(cause).__name__} to the model", cause)
            else:
                self._log(logging.ERROR, call, "failed", cause)
            # The words of a ToolError are chosen for the model; any other exception is shown with its type.
            return error_result(call, words_for_model(cause) if isinstance(cause, ToolError) else str(error))
        except trio.Cancelled:  # noqa: ASYNC103 - see below
            shared = self._shared
            if shared is None or not shared.cancel_called or since(shared.deadline) < 0:
                raise
            # No scope of this call swallows the cancellation, but its cause is the deadline of the calls.
            self._log(logging.WARNING, call, f"timed out after {seconds:g} s")
            return self._timed_out(tool, call, seconds)  # noqa: ASYNC104
        except TypeError as error:
            self._log(logging.ERROR, call, "returned a value that has no JSON form")
            return error_result(call, str(error))
        finally:
            if serving is not None and scope is not None:
                serving.end_call(scope)
            if context is not None and context.end():
                await context.wait_for_uses()  # noqa: ASYNC102 - it is shielded

    async def _begin(self, tool: Tool, call: ToolCall) -> None:
        """Record that the tool is about to have an effect."""
        run = self._run
        # No side effect may begin once the stream is cancelled, not even that of a tool that never waits.
        await trio.lowlevel.checkpoint_if_cancelled()
        await record_tool_start(run, tool, call)
        if run.log.is_journaled:
            await trio.lowlevel.checkpoint_if_cancelled()
        self._has_begun[call.id] = None

    def _log(self, level: int, call: ToolCall, problem: str, error: BaseException | None = None) -> None:
        stream = self._run.source.stream
        log(TOOLS, level, "stream %r: call %r of tool %r %s", stream, call.id, call.name, problem, error=error)

    async def _call_in_thread(self, tool: Tool, context: RunningContext, arguments: Mapping[str, Any]) -> Any:
        # Locked for good, either by the thread as it begins or by us as we give up, whichever is first. If all threads
        # are busy, the tool has not begun, and must not begin later.
        begun = Lock()

        def call() -> tuple[Any]:
            # In a tuple, since trio refuses a coroutine here, as a plain wrapper of an async function returns it.
            return (call_in_thread(tool.function, arguments) if begun.acquire(blocking=False) else None,)

        try:
            (value,) = await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=tool_threads())
        except trio.Cancelled:
            if begun.acquire(blocking=False):
                if context.call_id not in self._had_begun:
                    self._has_begun.pop(context.call_id, None)
            else:
                self._run.warn("thread_abandoned", f"tool {tool.name!r} {ABANDONED}")
            raise
        return await value if isawaitable(value) else value

    def _timed_out(self, tool: Tool, call: ToolCall, seconds: float) -> ToolResult:
        text = f"Timed out after {seconds:g} s"
        if call.id not in self._has_begun:
            text += " before it began"
        elif tool.kind == "sync":
            text += f". It {ABANDONED}"
        return error_result(call, f"{text}.", "timeout")

    async def _after(self, call: ToolCall, checked: CheckedArguments, result: ToolResult) -> ToolResult:
        """Let the post_tool_use hooks replace ``result``."""
        run = self._run
        for hook in run.hooks.at("post_tool_use"):
            if not hook.concerns(call.name):
                continue
            value = PostToolUse(run.source, call.id, call.name, checked.plain(), result)
            try:
                verdict = await run.hooks.ask(hook, value)
            except HookFailedError as error:
                # The hook may remove secrets: without its verdict the result is not shown.
                run.note(RunBlocked(call.id, str(error)))
                return error_result(call, f"The result is withheld: {error}.", "denied")
            if isinstance(verdict, ReplaceResult):
                result = ToolResult(call.id, call.name, verdict.result.parts, verdict.result.status)
            elif isinstance(verdict, Block):
                # Noted before the call ends: a call that has its result is not shown to the hook again.
                run.note(RunBlocked(call.id, verdict.reason))
        return result


def _restarted(call: ToolCall, serving: ServingToolset, what: str) -> ToolResult:
    return error_result(call, f"The toolset {serving.name!r} was started again {what}.")


async def _call_generator(tool: Tool, context: RunningContext, arguments: Mapping[str, Any]) -> str:
    """Show what the tool yields as it comes; all of it together is the result."""
    shown: list[str] = []
    # Closed here, in this task: a generator left to the garbage collector would run its cleanup anywhere.
    async with aclosing(tool.function(**arguments)) as pieces:
        async for piece in pieces:
            text = piece if isinstance(piece, str) else to_text(piece) + "\n"
            shown.append(text)
            await context.output(text)
    return "".join(shown)
