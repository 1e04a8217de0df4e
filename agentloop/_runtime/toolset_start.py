"""What a toolset that starts, or lists its tools, may ask of the runtime: time, a person, words for a reader."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol

import trio

from agentloop._core.questions import AskedQuestion
from agentloop._runtime.blocks import PausableDeadline
from agentloop._runtime.questions import ask
from agentloop._runtime.run import Run
from agentloop.events import ElicitationRequested
from agentloop.questions import Accept, Cancel, Decline

__all__ = [
    "DEADLINE",
    "IS_SHARED",
    "RUN",
    "STARTED",
    "Started",
    "ask_to_visit",
    "is_shared",
    "persons_time",
    "put_question",
    "run_in_charge",
    "say_what_it_waits_for",
    "time_left",
    "working_for",
]

DEADLINE: ContextVar[PausableDeadline | None] = ContextVar("agentloop.toolset_deadline", default=None)
"""The deadline for the start, or for the listing of tools, on whose behalf the current task works."""


RUN: ContextVar[Run | None] = ContextVar("agentloop.toolset_run", default=None)
"""The run whose toolsets start, or list their tools. ``None`` for toolsets that are shared among runs."""


IS_SHARED: ContextVar[bool] = ContextVar("agentloop.toolset_is_shared", default=False)
"""Whether the toolset that the current task holds open is shared among runs. Not the same as no run in `RUN`: a tool
may start toolsets to share, and then there is a run around them."""


class Started(Protocol):
    """The toolset that the current task starts, or has started."""

    async def visit(self, message: str, url: str) -> Accept | Decline | Cancel | None:
        """Have the user of the run that waits for the toolset visit ``url``; ``None`` if no run waits for it."""
        ...

    def say(self, detail: str) -> None:
        """Note what the start waits for."""
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """While the block runs, the start waits for a person."""
        ...


STARTED: ContextVar[Started | None] = ContextVar("agentloop.toolset_started", default=None)
"""The toolset that the current task, or the one that started it, holds open."""


def run_in_charge() -> Run | None:
    """The run whose toolsets start, or list their tools, in the current task; ``None`` for shared ones that start."""
    return RUN.get()


def is_shared() -> bool:
    """Whether the toolset that the current task starts is shared among runs, and not started for one stream."""
    return IS_SHARED.get()


async def ask_to_visit(message: str, url: str) -> Accept | Decline | Cancel:
    """Ask the user of the run that a toolset starts for to visit a page, to sign in say.

    As `ToolContext.ask_url`, which has a tool call. Declined at once if the toolset starts for no run in particular: a
    shared toolset then waits for the first run that needs its tools, and is started again for that one.
    """
    run, toolset = RUN.get(), STARTED.get()
    if run is None:
        with persons_time():
            answer = None if toolset is None else await toolset.visit(message, url)
        if answer is not None:
            return answer  # noqa: ASYNC910 - the visit has waited
        await trio.lowlevel.checkpoint()
        return Decline("The toolset is shared, and is started before there is a run with a user to ask.")
    with persons_time(), nullcontext() if toolset is None else toolset.waiting():
        return await put_question(run, message, url)


async def put_question(run: Run, message: str, url: str) -> Accept | Decline | Cancel:
    """Ask the user of ``run``, in a task of that run, to visit ``url``."""
    form: dict[str, Any] = {"type": "object", "properties": {}}
    event = ElicitationRequested(run.source, 0, id="", call_id="", message=message, form=form, url=url)
    question = AskedQuestion(event)
    answer = await ask(run, question)
    return answer if isinstance(answer, (Accept, Decline, Cancel)) else Decline(question.refusal)


@contextmanager
def persons_time() -> Generator[None]:
    """Pause the deadline of the toolset that starts, or lists its tools: a person signs in, say.

    Without effect in a task that does not work for a start or a listing.
    """
    deadline = DEADLINE.get()
    if deadline is None:
        yield
        return
    with deadline.paused():
        yield


def time_left() -> float:
    """Seconds until the runtime gives up the start, or the listing, that the current task works for."""
    deadline = DEADLINE.get()
    return math.inf if deadline is None else deadline.scope.deadline - trio.current_time()


def say_what_it_waits_for(detail: str) -> None:
    """Have `ToolsetStatus.detail` say what the toolset that starts waits for: a program, a server, a download.

    Without effect in a task that does not start a toolset.
    """
    toolset = STARTED.get()
    if toolset is not None:
        toolset.say(detail)


@contextmanager
def working_for(run: Run) -> Generator[None]:
    """While the block runs, toolsets that this task starts, or asks for their tools, work for ``run``."""
    token = RUN.set(run)
    try:
        yield
    finally:
        RUN.reset(token)
