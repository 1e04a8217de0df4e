"""Sees every stream that is opened while it is on, children included, and compares them with a plain model.

The watch stands outside of the runtime: it replaces the two names through which every stream is opened. Nothing in the
runtime knows that it is watched, and a planted bug is seen like any other.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

from agentloop._core.transcript import Transcript, problems
from agentloop._runtime import lifecycle
from agentloop._runtime.run import Root, Run
from agentloop._runtime.stream import Stream
from agentloop.messages import Message
from agentloop.testing._patched import patched

__all__ = ["Watch"]


class Watch:
    """The streams that were opened, those that are open, and the broken promises.

    Args:
      on_child: called with each child stream, when it is opened.

    Attributes:
      runs: every stream that was opened, in order.
      problems: what broke a promise, a sentence each.
    """

    def __init__(self, on_child: Callable[[Stream], object] = lambda _stream: None) -> None:
        self._on_child = on_child
        self.runs: list[Run] = []
        self.problems: list[str] = []
        self._open: dict[Root, dict[str, str | None]] = {}
        """For each root, the streams whose blocks are open, with their parents: what the tree must look like."""

    def note(self, problem: str) -> None:
        """Note a broken promise."""
        if problem not in self.problems:
            self.problems.append(problem)

    @contextmanager
    def on(self) -> Generator[None]:
        """Watch the streams that are opened while the block runs."""
        real_block, real_extend = lifecycle._block, Transcript.extend

        def block(*args: Any, **options: Any) -> Any:
            return self._watched(real_block(*args, **options))

        def extend(transcript: Transcript, messages: Iterable[Message]) -> None:
            real_extend(transcript, messages)
            for problem in problems(transcript.messages):
                self.note(f"session {transcript.id}: a provider would refuse its transcript: {problem}")

        with patched(lifecycle, "_block", block), patched(Transcript, "extend", extend):
            yield

    @asynccontextmanager
    async def _watched(self, block: AbstractAsyncContextManager[Stream]) -> AsyncGenerator[Stream]:
        opened: Run | None = None
        try:
            async with block as stream:
                opened = stream._run
                self.runs.append(opened)
                self._model(opened)[opened.source.stream] = opened.source.parent
                self._compare(opened, "was opened")
                if opened.parent is not None:
                    self._on_child(stream)
                yield stream
        finally:
            if opened is not None:
                self._model(opened).pop(opened.source.stream)
                self._compare(opened, "was left")
                self._check_ended(opened)
                # Now: when the session is free, the next stream may add to it. Without the messages that close a parked
                # turn.
                last = len(opened.transcript) - opened.transcript.provisional
                if opened.outcome and opened.outcome.messages != opened.transcript.messages[opened.first_index : last]:
                    self.note(f"{opened.source.stream}: its outcome does not have the messages that it added")

    def _model(self, run: Run) -> dict[str, str | None]:
        return self._open.setdefault(run.root, {})

    def _compare(self, run: Run, when: str) -> None:
        """The elicitation tree is what the open blocks say, in every interleaving."""
        expected, scopes = self._model(run), run.root.questions.scopes
        if scopes != expected:
            self.note(
                f"when {run.source.stream} {when}, the elicitation tree was {scopes}, where it should be {expected}"
            )

    def _check_ended(self, run: Run) -> None:
        """Check a stream whose block was left, however it was left."""
        name = run.source.stream
        if run.outcome is None:
            self.note(f"{name}: its block was left, but it has no outcome")
        elif not run.ended.is_set():
            self.note(f"{name}: it has an outcome, but whoever waits for its end is not told")
        if not run.writer.is_closed or (run.events is not None and not run.events.is_closed):
            self.note(f"{name}: its channel is still open")
        if run.transcript.holder is not None:
            self.note(f"{name}: its session is still taken by {run.transcript.holder}")
        for other in self.runs:
            if other.parent is run and not other.ended.is_set():
                self.note(f"{name}: its block was left, but its child {other.source.stream} is still running")

    def check(self) -> list[str]:
        """The broken promises, after all blocks were left."""
        for run in self.runs:
            self._check_ended(run)
            if run.root.questions.scopes:
                self.note(f"{run.source.stream}: at the end question scopes are left: {run.root.questions.scopes}")
            for problem in problems(run.transcript.messages):
                self.note(f"session {run.transcript.id}: a provider would refuse its transcript: {problem}")
            self._check_outcome(run)
        return self.problems

    def _check_outcome(self, run: Run) -> None:
        """The reason is the true one, as far as it shows from outside."""
        outcome, name = run.outcome, run.source.stream
        if outcome is None:
            return
        expected = ("cancelled", "needs_input") if run.root.questions.is_parked else ("cancelled",)
        if run.scope.cancel_called and outcome.reason not in expected and run.scope.cancelled_caught:
            self.note(f"{name}: it was stopped, but its reason is {outcome.reason}")
        if (outcome.reason == "failed") != (outcome.error is not None):
            self.note(f"{name}: its reason is {outcome.reason}, and its error {outcome.error!r}")
        if isinstance(outcome.error, BaseExceptionGroup):
            self.note(f"{name}: it failed with a bare group")
