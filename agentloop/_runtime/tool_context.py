"""The `ToolContext` that a running tool gets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import msgspec

from agentloop._core.answers import check_elicitation
from agentloop._core.forms import check_form, form_of
from agentloop._runtime.asking import NOBODY, ask
from agentloop._runtime.patience import Patience
from agentloop._runtime.run import Run
from agentloop.context import AgentBase, ToolContext
from agentloop.errors import StreamStateError
from agentloop.events import ElicitationRequested, Source, ToolCallOutput, ToolCallProgress
from agentloop.messages import Prompt
from agentloop.outcome import ChildStream, Outcome, QuestionHandler
from agentloop.questions import Accept, Cancel, Decline

__all__ = ["RunningContext"]

T = TypeVar("T")


class RunningContext(ToolContext[Any]):
    """The context of one call, valid until the call has ended."""

    __slots__ = ("_call_id", "_ended", "_patience", "_run")

    def __init__(self, run: Run, call_id: str, patience: Patience) -> None:
        self._run = run
        self._call_id = call_id
        self._patience = patience
        self._ended = False

    def end(self) -> None:
        """The call has ended: whoever kept the context can do nothing with it any more."""
        self._ended = True

    def _live_run(self) -> Run:
        if self._ended:
            raise StreamStateError(f"call {self._call_id!r} has ended, and its context with it")
        return self._run

    @property
    def source(self) -> Source:
        return self._run.source

    @property
    def call_id(self) -> str:
        return self._call_id

    @property
    def idempotency_key(self) -> str:
        return f"{self._run.source.stream}#{self._call_id}"

    @property
    def deps(self) -> Any:
        return self._run.root.deps

    async def output(self, text: str, /) -> None:
        await self._live_run().emitter.emit(ToolCallOutput, call_id=self._call_id, text=text)

    async def progress(self, progress: float, /, *, total: float | None = None, message: str = "") -> None:
        await self._live_run().emitter.emit(
            ToolCallProgress, call_id=self._call_id, progress=progress, total=total, message=message
        )

    async def ask(self, message: str, form: Mapping[str, Any] | None = None, /) -> Accept | Decline | Cancel:
        schema: dict[str, Any] = {"type": "object", "properties": {}} if form is None else dict(form)
        check_form(schema)

        def build(source: Source, seq: int, id: str) -> ElicitationRequested:
            return ElicitationRequested(source, seq, id=id, call_id=self._call_id, message=message, form=schema)

        answer = await ask(self._live_run(), self._patience, build, check_elicitation)
        if answer is None:
            return Decline(NOBODY)
        assert isinstance(answer, (Accept, Decline, Cancel))
        return answer

    async def ask_for(self, message: str, form: type[T], /) -> T | Decline | Cancel:
        answer = await self.ask(message, form_of(form))
        return msgspec.convert(answer.content, form) if isinstance(answer, Accept) else answer

    def stream(
        self, agent: AgentBase, prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> AbstractAsyncContextManager[ChildStream]:
        return self._open(agent, prompt, on_question, read=True)

    async def run(self, agent: AgentBase, prompt: Prompt, /, *, on_question: QuestionHandler | None = None) -> Outcome:
        async with self._open(agent, prompt, on_question, read=False) as child:
            await child.wait()
            return child.result

    def _open(
        self, agent: AgentBase, prompt: Prompt, on_question: QuestionHandler | None, *, read: bool
    ) -> AbstractAsyncContextManager[ChildStream]:
        run = self._live_run()
        return run.root.open_child(run, self._call_id, self._patience, agent, prompt, on_question, read)
