"""The task that owns a toolset: it starts it, holds it open, starts it again, and stops it.

::

    starting --> ready --> stopped          as most do
        |  ^       |
        |  |       +--> failed              it has died
        |  +-- restart, or the next turn of a run that can do without it
        +--> failed, or waiting             it did not start; nobody could sign in

Starts, restarts and stops are requests to this one task. Whoever makes them may be cancelled: the task goes on.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from copy import copy
from typing import Any, Protocol, cast

import trio

from agentloop._core.field_checks import plain_text, shown
from agentloop._core.redaction import visible
from agentloop._runtime.blocks import PausableDeadline, after, since
from agentloop._runtime.exception_groups import failure_of
from agentloop._runtime.logs import TOOLSETS, log
from agentloop._runtime.run import Run
from agentloop._runtime.toolset_start import DEADLINE, IS_SHARED, RUN, STARTED, persons_time, put_question
from agentloop._runtime.user_code import UserCodeError, call_user_code, describe
from agentloop.errors import ToolsetError
from agentloop.events import ToolsetState, ToolsetStatus
from agentloop.limits import Deadlines
from agentloop.questions import Accept, Cancel, Decline
from agentloop.tools import OpenToolset, Tool, Toolset, is_tool

__all__ = ["Serving", "ToolsetTask", "Warn"]

GRACE = 1.0
"""Seconds for which a turn waits for a toolset that is tried once more. Then the run goes on, and so does the start."""

SIGN_IN = "a person who signs in"
"""What a toolset waits for that needs a sign-in."""

LONGEST_PAUSE = 60.0
"""Seconds between two tries at most. The pause doubles with each failure in a row; the first try has none."""


class Warn(Protocol):
    """Reports that a toolset failed after it had started."""

    def __call__(self, code: str, message: str, /, *, logged: str = "", error: BaseException | None = None) -> None:
        """``logged`` is for the log, where ``message`` has the words of ``error``, or of a server."""
        ...


class Serving:
    """A toolset from one start to the stop after it. The tools that it lists meanwhile are of no use later.

    Args:
      name: of the toolset.
    """

    __slots__ = ("_idle", "calls", "is_over", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_over = False
        """Whether the toolset was started again since then, or was stopped."""
        self.calls: set[trio.CancelScope] = set()
        """The scopes of the calls that run now."""
        self._idle: trio.Event | None = None

    def end_call(self, scope: trio.CancelScope) -> None:
        """The call under ``scope`` has ended."""
        self.calls.discard(scope)
        if self._idle is not None and not self.calls:
            self._idle.set()

    async def cut_calls(self) -> None:
        """Cancel the calls that run, and wait until they have ended."""
        self.is_over = True
        for scope in self.calls:
            scope.cancel()
        if self.calls:
            self._idle = trio.Event()
            await self._idle.wait()


class _Attempt:
    """A start that is requested, or under way."""

    __slots__ = ("_answers", "asking", "changed", "done", "error", "question", "visitor", "wants_person")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: ToolsetError | None = None
        """Why it failed, once it is done; ``None`` if it did not."""
        self.visitor: Run | None = None
        """The run that waits for it, and whose user signs in."""
        self.wants_person = False
        """Whether it wanted a sign-in, or was given up by the run that waited for it."""
        self.question: tuple[str, str] | None = None
        """The message and the page of the sign-in that waits for the visitor."""
        self._answers: list[Accept | Decline | Cancel] = []
        self.asking = trio.CancelScope()
        """Around the question to the visitor's user."""
        self.changed = trio.Event()
        """Set with each question, each answer, and the end."""

    async def ask(self, message: str, url: str) -> Accept | Decline | Cancel:
        """Have the visitor ask its user, and return the answer."""
        self._answers.clear()
        self.question = message, url
        self.change()
        while not self._answers:
            await self.changed.wait()
        return self._answers[0]

    @property
    def is_answered(self) -> bool:
        """Whether the visitor's user has answered the last question."""
        return bool(self._answers)

    def answer(self, answer: Accept | Decline | Cancel) -> None:
        """The visitor's user has answered."""
        self._answers.append(answer)

    def change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def end(self, error: ToolsetError | None) -> None:
        self.error = error
        self.done.set()
        # The answer to a question that is still open would come too late.
        self.asking.cancel()
        self.change()


class ToolsetTask:
    """The task that starts a toolset, holds it open, and stops it.

    Args:
      warn: is called when something goes wrong after the start.
      outer: the deadline of the run that the toolset is started for. A person's time does not count in it either.
    """

    __slots__ = (
        "_attempt",
        "_deadlines",
        "_error",
        "_failed_at",
        "_failures",
        "_is_announced",
        "_is_restarting",
        "_is_stopping",
        "_outer",
        "_problem",
        "_scope",
        "_tried_in",
        "_warn",
        "_wish",
        "ended",
        "listeners",
        "opened",
        "ready",
        "serving",
        "status",
        "stops_first",
        "toolset",
    )

    def __init__(
        self, toolset: Toolset, deadlines: Deadlines, warn: Warn, outer: PausableDeadline | None = None
    ) -> None:
        self._deadlines = deadlines
        self._outer = outer
        self._warn = warn
        self._wish = trio.Event()
        """Set when the toolset shall stop, or start (again)."""
        self._is_stopping = False
        self._is_restarting = False
        """Whether a restart was requested, and has not ended."""
        self._attempt = _Attempt()
        """The start that is under way, or the last one."""
        self._scope: trio.CancelScope | None = None
        """The scope of the start, while that is under way."""
        self._failures = 0
        """Starts that failed in a row."""
        self._failed_at = 0.0
        self._tried_in: object = None
        """The turn of the run for which the last start was tried."""
        self._problem = ""
        """The first failure of those in a row, for a run that goes on without the toolset."""
        self._is_announced = False
        """Whether a listener knows of a state that is none of a toolset which simply starts."""
        self.listeners: list[Callable[[ToolsetStatus], object]] = []
        """Called with each change of the status."""
        self.ready = trio.Event()
        """Set when a run can begin: the toolset has started, or the run goes on without it."""
        self.ended = trio.Event()
        """Set when the toolset has stopped, or has failed."""
        self.stops_first = outer is None and getattr(toolset, "stops_first", False) is True
        """Whether the others of its block go on until it has stopped: the runs of a block may use them."""
        self.toolset = toolset
        self.opened: OpenToolset | None = None
        self.serving = Serving(toolset.name)
        self.status = ToolsetStatus(toolset.name, "starting")
        self._error: ToolsetError | None = None
        """Why a restart failed, which the next listing tries to mend."""

    # ------------------------------------------------------------------------- the status

    @property
    def is_optional(self) -> bool:
        """Whether a run goes on without the toolset, if it does not start or has died."""
        return getattr(self.toolset, "optional", False) is True

    def announce(self) -> None:
        """Have the listeners know the status, and each change of it from now on."""
        self._is_announced = True
        for listener in tuple(self.listeners):
            listener(self.status)

    def say(self, detail: str) -> None:
        """Note what the start waits for. The status has one line of it."""
        if self.status.state == "starting":
            self._set("starting", detail=" ".join(visible(plain_text(detail)).split())[:200], error=self.status.error)

    @contextmanager
    def waiting(self) -> Generator[None]:
        """While the block runs, the start waits for a person."""
        before = self.status
        if before.state != "starting":
            # It lists its tools, or a call does something.
            yield
            return
        self._is_announced = True
        self._set("waiting", detail=SIGN_IN, error=before.error)
        try:
            yield
        finally:
            self._set("starting", detail=before.detail, error=before.error)

    def _set(self, state: ToolsetState, *, detail: str = "", error: str = "", tools: int | None = None) -> None:
        tools = self.status.tools if tools is None else tools
        status = ToolsetStatus(self.toolset.name, state, detail, error, tools)
        if status != self.status:
            self.status = status
            if self._is_announced:
                self.announce()

    # --------------------------------------------------------------------------- the task

    async def run(self) -> None:
        """Own the toolset until it is stopped.

        Raises:
          ToolsetError: it did not start at first, and is not optional.
        """
        try:
            while not self._is_stopping:
                self._wish = trio.Event()
                await self._serve()
                if not self._is_stopping:
                    await self._wish.wait()
        finally:
            self._is_stopping = True
            self._set_stopped()
            self.ended.set()

    def _set_stopped(self) -> None:
        # The end of the stream says it, or the end of the block: no event does.
        self._is_announced = False
        if self.status.state != "failed":
            self._set("stopped", error=self.status.error)
        if not self._attempt.done.is_set():
            self._attempt.end(self._stopped())

    async def _serve(self) -> None:
        """Start the toolset, and hold it open until something else is wished."""
        deadlines = self._deadlines
        started = False
        deadline = PausableDeadline(deadlines.toolset, self._outer)
        self._scope = scope = deadline.scope
        token = DEADLINE.set(deadline)
        IS_SHARED.set(self._outer is None)
        STARTED.set(self)
        if self.status.state != "starting":
            self._set("starting", error=self.status.error)
        try:
            with scope:
                async with _block_of(self.toolset) as opened:
                    if not callable(getattr(cast("object", opened), "list_tools", None)):
                        raise TypeError(f"open() yielded {shown(opened)}, which has no list_tools()")
                    self.opened = opened
                    # From here on it is stopped in order, also when the stream is cancelled: by `stop`, in time.
                    scope.deadline = float("inf")
                    scope.shield = True
                    started = True
                    DEADLINE.reset(token)
                    log(TOOLSETS, logging.DEBUG, "toolset %r started", self.toolset.name)
                    self._has_started()
                    await self._wish.wait()
                    scope.deadline = after(deadlines.cleanup)
                    if not self._is_stopping:
                        # A restart: no listing gets the old tools, and the calls of those end first.
                        self.opened = None
                        await self.serving.cut_calls()
        except BaseException as group:  # noqa: ASYNC103, BLE001 - `failure_of` raises a cancellation again
            error = failure_of(group)
            if not started:
                problem = f"failed to start: {error if isinstance(error, UserCodeError) else describe(error)}"
                self._has_not_started(problem, error)  # noqa: ASYNC104 - as above
            else:
                short = f"toolset {self.toolset.name!r} failed"
                self._warn("toolset_failed", f"{short}: {describe(error)}", logged=short, error=error)
                if not self._is_wished():
                    self._is_announced = True
                    self._set("failed", error=describe(error))
        else:
            if scope.cancelled_caught:
                if not started:
                    self._has_not_started(f"did not start within {deadlines.toolset:g} s")
                else:
                    problem = f"toolset {self.toolset.name!r} did not stop within {deadlines.cleanup:g} s"
                    self._warn("toolset_failed", problem)
            else:
                log(TOOLSETS, logging.DEBUG, "toolset %r stopped", self.toolset.name)
        finally:
            self.opened = self._scope = None
            self.serving.is_over = True

    def _is_wished(self) -> bool:
        return self._wish.is_set()

    def _has_started(self) -> None:
        self._scope = None
        self._failures, self._problem, self._error = 0, "", None
        self._is_restarting = False
        self.serving = Serving(self.toolset.name)
        self._set("ready")
        self._attempt.end(None)
        self.ready.set()

    def _has_not_started(self, problem: str, cause: BaseException | None = None) -> None:
        """A start has failed, or was given up.

        Raises:
          ToolsetError: there is no run that could go on without it.
        """
        if self._is_stopping:
            return
        if self._is_wished():
            # A restart has cut this start off: the next one is for the same requests.
            return
        attempt = self._attempt
        failure = ToolsetError(toolset=self.toolset.name, problem=problem)
        failure.__cause__ = cause
        is_first = not self.ready.is_set()
        waits = attempt.wants_person
        if not waits:
            self._failures += 1
            self._failed_at = since(0.0)
        if is_first and (run := RUN.get()) is not None:
            # The first turn is the one that this start was for.
            self._tried_in = _turn_of(run)
        if is_first and not waits and not self.is_optional:
            self._set("failed", error=problem)
            raise failure from cause
        self._error = failure
        self._is_restarting = False
        self._problem = self._problem or f"{failure}; the run goes on without it, which is optional"
        self._is_announced = True
        if waits:
            log(TOOLSETS, logging.DEBUG, "toolset %r waits for a sign-in", self.toolset.name)
            self._set("waiting", detail=SIGN_IN, error=problem if attempt.is_answered else "")
        else:
            log(TOOLSETS, logging.WARNING, "toolset %r did not start", self.toolset.name, error=cause)
            self._set("failed", error=problem)
        attempt.end(failure)
        self.ready.set()

    # ----------------------------------------------------------------------- the requests

    def stop(self) -> None:
        """Stop it, or give its start up."""
        self._is_stopping = True
        self._wish.set()
        if self._scope is not None and self.ready.is_set():
            self._scope.cancel()

    def _stopped(self) -> ToolsetError:
        problem = "is stopped: its stream, or the block of its Toolsets, has ended"
        return ToolsetError(toolset=self.toolset.name, problem=problem)

    def _request(self) -> _Attempt:
        """Request a start, unless one is under way."""
        if self._attempt.done.is_set():
            self._attempt = _Attempt()
            self._wish.set()
        return self._attempt

    async def restart(self) -> None:
        """Stop it, and start it again. A cancelled caller changes nothing about that.

        Raises:
          ToolsetError: it did not start, or is being stopped.
        """
        if self._is_stopping:
            raise self._stopped()
        if not self._is_restarting:
            self._is_restarting = True
            if self._attempt.done.is_set():
                self._attempt = _Attempt()
            self._is_announced = True
            self._set("starting", error=self.status.error)
            self._wish.set()
            if self._scope is not None:
                # A start that hangs is given up for a new one.
                self._scope.cancel()
        attempt = self._attempt
        await attempt.done.wait()
        if attempt.error is not None:
            raise copy(attempt.error)

    async def visit(self, message: str, url: str) -> Accept | Decline | Cancel | None:
        """See `agentloop._runtime.toolset_start.Started`."""
        attempt = self._attempt
        if attempt.visitor is None or attempt.done.is_set():
            if not attempt.done.is_set():
                attempt.wants_person = True
            await trio.lowlevel.checkpoint()
            return None
        attempt.wants_person = True
        with self.waiting():
            # If the run ends meanwhile, it cancels this start.
            return await attempt.ask(message, url)

    async def _start_for(self, run: Run, attempt: _Attempt) -> None:
        """Wait for a start on behalf of ``run``, whose user signs in if need be."""
        attempt.visitor = run
        try:
            while not attempt.done.is_set():
                if attempt.question is None:
                    await attempt.changed.wait()
                    continue
                message, url = attempt.question
                attempt.question = None
                with persons_time(), attempt.asking:
                    attempt.answer(await put_question(run, message, url))
                attempt.asking = trio.CancelScope()
                attempt.change()
        finally:
            attempt.visitor = None
            if not attempt.done.is_set() and not attempt.is_answered:
                # Cancelled: the next run that needs the tools has its user sign in. After an answer, the start goes on.
                attempt.wants_person = True
                if self._scope is not None:
                    self._scope.cancel()

    async def _serve_listing(self) -> bool:
        """Whether the toolset can list its tools: it serves, or serves again. ``False`` to go on without it.

        Raises:
          ToolsetError: it does not serve, and the run cannot go on without it.
        """
        run = RUN.get()
        if not self._attempt.done.is_set() and (self._is_restarting or not self.is_optional):
            await self._attempt.done.wait()
        while self.opened is None and not self._is_stopping and run is not None and self._may_try(run):
            is_under_way = not self._attempt.done.is_set()
            attempt = self._request()
            if attempt.visitor is not None:
                # Another run's user signs in.
                await attempt.done.wait()
                continue
            if self.status.state == "waiting":
                await self._start_for(run, attempt)
            elif self.is_optional:
                with trio.CancelScope(deadline=-math.inf if is_under_way else after(GRACE)):
                    await attempt.done.wait()
            else:
                await attempt.done.wait()
            break
        if self.opened is not None:
            return True
        if self.is_optional:
            return False
        if self._error is not None and not self._is_stopping:
            raise copy(self._error)
        raise ToolsetError(toolset=self.toolset.name, problem="has died, so it cannot list its tools")

    def _may_try(self, run: Run) -> bool:
        """Whether to start the toolset once more for this turn of ``run``."""
        turn = _turn_of(run)
        if self.status.state == "waiting":
            # Each run has its own user.
            self._tried_in = turn
            return True
        is_due = self._error is not None or self.is_optional
        if not is_due or turn == self._tried_in:
            return False
        self._tried_in = turn
        pause = min(2.0 ** (self._failures - 2), LONGEST_PAUSE) if self._failures > 1 else 0.0
        return since(self._failed_at) >= pause

    # -------------------------------------------------------------------------- the tools

    async def list_tools(self) -> Sequence[Tool]:
        """The tools that it has now; none if a run goes on without it.

        Raises:
          ToolsetError: it has died, or cannot list its tools.
        """
        if self.opened is None and not await self._serve_listing():
            return ()
        opened = self.opened
        assert opened is not None
        seconds = self._deadlines.toolset
        deadline = PausableDeadline(seconds, DEADLINE.get() or self._outer)
        token = DEADLINE.set(deadline)
        try:
            listed = await call_user_code(deadline.scope, opened.list_tools)
        except UserCodeError as error:
            problem = (
                f"could not list its tools within {seconds:g} s" if error.timed_out else "could not list its tools"
            )
            detail = "" if error.timed_out else f": {error}"
            raise ToolsetError(toolset=self.toolset.name, problem=problem + detail) from error.__cause__
        finally:
            DEADLINE.reset(token)
        if not isinstance(listed, Iterable):
            raise ToolsetError(toolset=self.toolset.name, problem=f"listed {shown(listed)}, which is no list of tools")
        tools: list[Tool] = []
        for item in cast("Iterable[object]", listed):
            if not is_tool(item):
                raise ToolsetError(toolset=self.toolset.name, problem=f"listed {shown(item)}, which is no Tool")
            tools.append(item)
        log(TOOLSETS, logging.DEBUG, "toolset %r listed %d tools", self.toolset.name, len(tools))
        if self.status.tools != len(tools) and self.opened is opened:
            self._set(self.status.state, detail=self.status.detail, error=self.status.error, tools=len(tools))
        return tools

    @property
    def instructions(self) -> str:
        """The toolset's instructions for the model; empty if it has none, or has died."""
        text = getattr(self.opened, "instructions", "")
        return text if isinstance(text, str) else ""

    @property
    def problems(self) -> Sequence[str]:
        """The problems that the toolset works around, such as a tool that cannot be offered."""
        if self.opened is None:
            return [self._problem] if self._problem and self.is_optional else ()
        problems: object = getattr(self.opened, "problems", ())
        if not isinstance(problems, (list, tuple)):
            return ()
        return [problem for problem in cast("Sequence[object]", problems) if isinstance(problem, str)]


def _block_of(toolset: Toolset) -> AbstractAsyncContextManager[OpenToolset]:
    """The block of ``open()``.

    Raises:
      TypeError: ``open()`` gave none, most likely for the lack of a decorator.
    """
    opening: Any = toolset.open()
    if isinstance(opening, AbstractAsyncContextManager):
        return cast("AbstractAsyncContextManager[OpenToolset]", opening)
    if inspect.iscoroutine(opening):
        opening.close()
    raise TypeError("open() gives no block: write @asynccontextmanager above `async def open`, and `yield` in it")


def _turn_of(run: Run) -> tuple[str, int]:
    """The turn of ``run``, or the one that it is about to take first."""
    return run.source.stream, max(run.state.turn, 1)
