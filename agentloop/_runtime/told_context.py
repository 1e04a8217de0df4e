"""Ask the context sources of an agent, and append what has changed to the transcript.

An agent without sources comes by here never.
"""

from __future__ import annotations

import logging

import trio

from agentloop._core.field_checks import plain_text, shown
from agentloop._core.told_context import context_message, told_context
from agentloop._runtime.dynamic import call_for_run
from agentloop._runtime.logs import RUN, log
from agentloop._runtime.run import Run, commit
from agentloop._runtime.user_code import UserCodeError
from agentloop.context_sources import ContextSource

__all__ = ["ContextTeller"]


class ContextTeller:
    """Keeps the model of a run up to date about its surroundings."""

    __slots__ = ("_failed", "_run", "_texts")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._texts: dict[str, str] = {}
        """The present text of each source that was asked, by name, in the order of the sources."""
        self._failed: set[str] = set()
        """The sources whose failure was reported. One warning for each is enough."""

    async def ask(self) -> None:
        """Ask the sources that are due for their present texts."""
        for source in self._run.config.context:
            if source.each == "turn" or source.name not in self._texts:
                await self._ask(source)

    async def _ask(self, source: ContextSource) -> None:
        run, name = self._run, source.name
        scope = trio.move_on_after(run.config.deadlines.hook)
        problem, cause = "", None
        try:
            text = await call_for_run(run, source.function, scope, turn=run.state.turn)
        except UserCodeError as error:
            problem, cause = str(error), error.__cause__
        else:
            if isinstance(text, str):
                text = plain_text(text)
                # As it will stand in the transcript: else it would differ from what was told in every turn.
                self._texts[name] = text if run.redactor is None else run.redactor.text(text)
                return
            problem = f"it gave {shown(text)}, where a text is due"
        if name not in self._failed:
            self._failed.add(name)
            short = f"the context source {name!r} failed"
            log(RUN, logging.ERROR, "stream %r: %s", run.source.stream, short, error=cause)
            run.warn("context_failed", f"{short}: {problem}", logged=short)

    def tell(self) -> None:
        """Append a message with the texts that the model does not have, if there are any.

        Raises:
          StoreError: the journal failed.
        """
        transcript = self._run.transcript
        # A message that is left out or shown in part, since it was too long, counts as told: it would be again.
        message = context_message(self._texts, told_context(transcript.messages, transcript.shown.first_kept))
        if message is not None:
            commit(self._run, (message,))
