"""The `ToolContext` of a tool whose body is asyncio code: its methods are awaited by asyncio."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar

import trio

from agentloop._core.typevars import Output, TypeForm
from agentloop.asyncio._blocks import Block
from agentloop.asyncio._calls import Call
from agentloop.asyncio._guest import guest_here
from agentloop.context import AgentBase, ToolContext
from agentloop.events import Source, StreamReason
from agentloop.messages import AssistantMessage, Prompt
from agentloop.models import Model, ModelRequest
from agentloop.outcome import BackgroundRun, ChildStream, Outcome, QuestionHandler
from agentloop.questions import Accept, Cancel, Decline

__all__ = ["AsyncioContext"]

P = ParamSpec("P")
T = TypeVar("T")


async def _call(function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    if trio.lowlevel.in_trio_task():
        # The asyncio code has handed the context on to trio code of its own.
        return await function(*args, **kwargs)
    return await Call(guest_here(), partial(function, *args, **kwargs)).wait()


class AsyncioContext(ToolContext[Any]):
    """The context of a call, for asyncio code. The methods that wait run in a task of trio each."""

    __slots__ = ("_context",)

    def __init__(self, context: ToolContext[Any]) -> None:
        self._context = context

    @property
    def source(self) -> Source:
        return self._context.source

    @property
    def call_id(self) -> str:
        return self._context.call_id

    @property
    def idempotency_key(self) -> str:
        return self._context.idempotency_key

    @property
    def deps(self) -> Any:
        return self._context.deps

    async def output(self, text: str, /) -> None:
        await _call(self._context.output, text)

    async def progress(self, progress: float, /, *, total: float | None = None, message: str = "") -> None:
        await _call(self._context.progress, progress, total=total, message=message)

    async def ask(self, message: str, form: Mapping[str, Any] | None = None, /) -> Accept | Decline | Cancel:
        return await _call(self._context.ask, message, form)

    async def ask_for(self, message: str, form: type[T], /) -> T | Decline | Cancel:
        return await _call(self._context.ask_for, message, form)

    async def ask_url(self, message: str, url: str, /) -> Accept | Decline | Cancel:
        return await _call(self._context.ask_url, message, url)

    def paused_deadline(self, *, parks: bool = True) -> AbstractContextManager[None]:
        return self._context.paused_deadline(parks=parks)

    async def record_start(self) -> None:
        await _call(self._context.record_start)

    def restart_deadline(self, *, at_most: float = math.inf) -> None:
        self._context.restart_deadline(at_most=at_most)

    def recall(self, name: str, type: TypeForm[T], /) -> T | None:
        return self._context.recall(name, type)

    async def remember(self, name: str, value: object, /) -> None:
        await _call(self._context.remember, name, value)

    def session_value(self, name: str, type: TypeForm[T], /, *, own: bool = False) -> T | None:
        return self._context.session_value(name, type, own=own)

    async def save_session_value(self, name: str, value: object, /, *, own: bool = False) -> None:
        await _call(self._context.save_session_value, name, value, own=own)

    async def ask_model(self, request: ModelRequest, /, *, model: Model | None = None) -> AssistantMessage:
        return await _call(self._context.ask_model, request, model=model)

    def warn(self, code: str, message: str, /) -> None:
        self._context.warn(code, message)

    def stream(
        self, agent: AgentBase[Any, Output], prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> AbstractAsyncContextManager[ChildStream[Output]]:
        opening = self._context.stream(agent, prompt, on_question=on_question)
        return opening if trio.lowlevel.in_trio_task() else Block(guest_here(), opening)

    async def run(
        self, agent: AgentBase[Any, Output], prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> Outcome[Output]:
        return await _call(self._context.run, agent, prompt, on_question=on_question)

    async def start(
        self, agent: AgentBase[Any, Output], prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> BackgroundRun[Output]:
        return _Background(await _call(self._context.start, agent, prompt, on_question=on_question))

    @property
    def background(self) -> tuple[BackgroundRun, ...]:
        return tuple([_Background(run) for run in self._context.background])


class _Background(BackgroundRun[Any]):
    """A background run, whose end asyncio code waits for."""

    __slots__ = ("_run",)

    def __init__(self, run: BackgroundRun[Any]) -> None:
        self._run = run

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def agent(self) -> str:
        return self._run.agent

    @property
    def call_id(self) -> str:
        return self._run.call_id

    @property
    def status(self) -> Literal["running"] | StreamReason:
        return self._run.status

    @property
    def text(self) -> str:
        return self._run.text

    @property
    def outcome(self) -> Outcome[Any]:
        return self._run.outcome

    def steer(self, message: Prompt, /) -> None:
        self._run.steer(message)

    def stop(self, detail: str = "") -> None:
        self._run.stop(detail)

    async def wait(self) -> Outcome[Any]:
        return await _call(self._run.wait)
