"""What a call to a server asks the person meanwhile, over all of its rounds, and where the call is by then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from agentloop.context import ToolContext
from agentloop.mcp.pending import PendingInput
from agentloop.questions import Accept, Cancel, Decline

__all__ = ["Asked", "Asking", "Round"]


class Asked(msgspec.Struct, frozen=True):
    """A question, as it was put to the person."""

    message: str
    form: dict[str, Any] | None = None
    url: str | None = None


class Round(msgspec.Struct):
    """Where a call is that came back with questions. Remembered, so that the next attempt at it goes on from there."""

    pending: PendingInput
    number: int
    """How often it has come back with questions."""
    asked: list[Asked]
    """All that the person was asked on account of the call so far, in order: answers are on record by their place."""
    at: int
    """How many of ``asked`` the server knows the answers to, or is about to; less if it has begun again since."""
    answers: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict[str, dict[str, Any]])
    """Those to ``pending`` that are not to be had again for nothing: what the model has answered."""

    def is_of(self, server: str, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Whether this is a round of that call. Its arguments may be others by now: somebody has revised them."""
        pending = self.pending
        return (pending.server, pending.tool, pending.arguments) == (server, tool, arguments)


class Asking:
    """Asks the person on account of a call, each question once, however often the server asks it."""

    def __init__(self, context: ToolContext[Any]) -> None:
        self.context = context
        self.asked: list[Asked] = []
        self.at = 0
        self._answers: list[Accept | Decline | Cancel] = []

    async def ask(
        self, message: str, form: dict[str, Any] | None = None, *, url: str | None = None
    ) -> Accept | Decline | Cancel:
        """As `ToolContext.ask` and, with a ``url``, as `ToolContext.ask_url`."""
        question = Asked(message, form, url)
        if self.at < len(self.asked) and self.asked[self.at] == question:
            self.at += 1
            await trio.lowlevel.checkpoint()
            return self._answers[self.at - 1]
        return await self._ask(question)

    async def _ask(self, question: Asked) -> Accept | Decline | Cancel:
        context = self.context
        if question.url is None:
            answer = await context.ask(question.message, question.form)
        else:
            answer = await context.ask_url(question.message, question.url)
        self.asked.append(question)
        self._answers.append(answer)
        # If there are others that were to come first, the server has gone another way.
        self.at = len(self.asked)
        return answer

    async def go_on_from(self, past: Round) -> None:
        """Be where an earlier attempt at the call was. What it has asked has its answers on record."""
        for question in past.asked:
            await self._ask(question)
        self.at = past.at

    def begin_again(self) -> None:
        """The server is called from the beginning: what it asks again is answered as it was."""
        self.at = 0
