"""One response of an agent's models, with its retries and fallbacks."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from agentloop._core.retries import Next
from agentloop._runtime.clock import now, sleep
from agentloop._runtime.model_calls import ModelCall
from agentloop._runtime.run import Run
from agentloop.errors import ModelContextOverflowError, ModelError
from agentloop.events import ErrorInfo, ResponseDiscarded
from agentloop.messages import AssistantMessage
from agentloop.models import Model, ModelRequest

__all__ = ["Responding"]


class Responding:
    """Asks for a response, and retries, or asks the next model, where that may help.

    A response is never assembled from two requests: a failed one is discarded as a whole, and `ResponseDiscarded` is
    emitted.
    """

    __slots__ = ("_call", "_failures", "_run", "_shorten", "model")

    def __init__(self, run: Run, shorten: Callable[[], Awaitable[ModelRequest | None]]) -> None:
        self._run = run
        self._shorten = shorten
        """Gives the request once more, with less in it, after a model has refused it as too long; at most once."""
        self._call: ModelCall | None = None
        self._failures: list[str] = []
        self.model: Model = run.models[0]
        """The model that was asked last."""

    async def respond(self, request: ModelRequest) -> AssistantMessage:
        """Ask for the response to ``request``, and emit its deltas as they come.

        Raises:
          ModelError: it failed for good: the last failure, with the earlier ones as notes.
          UsageError: a model was used wrongly: a script at its end, say.
        """
        run = self._run
        at = run.chain.first(now())
        while True:
            self.model = run.models[at]
            self._call = ModelCall(run, self.model)
            try:
                return await self._call.respond(request)
            except ModelError as error:
                # A cancelled run makes no further request, even if the model swallowed the cancellation.
                cancelled = trio.current_effective_deadline() == -math.inf
                following: Next | None = None
                if not cancelled and run.meter.may_retry():
                    # Before another model is asked, which leaves this one alone for a while: it has only read too much.
                    shortened = await self._shortened(error)  # noqa: ASYNC120 - if it is cut off, so is the run
                    if shortened is not None:
                        request, following = shortened, Next(at, 0.0)
                    else:
                        following = run.chain.after_failure(at, error, now())
                if following is None:
                    for failure in self._failures:
                        error.add_note(f"Before that: {failure}")
                    raise
                told = ErrorInfo(type(error).__name__, str(error))
            self._failures.append(f"{told.type}: {told.message}")
            at, self._call = following.model, None
            run.emit(
                ResponseDiscarded,
                error=told,
                model=self.model.name,
                next_model=run.models[at].name,
                delay=following.delay,
            )
            if run.writer.readers_lag:
                await run.writer.wait_for_readers()
            await sleep(following.delay)
            run.meter.count_retry()

    async def _shortened(self, error: ModelError) -> ModelRequest | None:
        return await self._shorten() if isinstance(error, ModelContextOverflowError) else None

    def interrupted(self) -> AssistantMessage | None:
        """The part of a response that arrived before it was cut off; ``None`` if there is none, or it was discarded."""
        return None if self._call is None else self._call.interrupted()
