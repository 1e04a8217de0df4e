"""The rounds of a tool call: the server answers a call with questions, and the next round carries the answers.

Protocol 2026-07-28 has rounds ("input required"). A round is data, so that a call can continue in another process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from agentloop.context import ToolContext
from agentloop.questions import Accept, Cancel, Decline

__all__ = ["PendingInput", "QuestionRecord", "QuestionReplay", "Round"]


class PendingInput(msgspec.Struct, frozen=True):
    """A tool call that an MCP server has answered with questions, as servers do from protocol 2026-07-28 on.

    The server holds no state for the call: this value can be saved as JSON and the call continued later, in another
    process, over another connection. The tools of an `McpServer` do that by themselves, in the journal of their
    session; see `OpenServer` for doing it elsewhere.
    """

    server: str
    """Name of the server, as in ``McpServer.name``."""
    tool: str
    """The server's name for the tool, without the prefix."""
    arguments: dict[str, Any]
    """The arguments of the call."""
    requests: dict[str, dict[str, Any]]
    """Questions by the server's key, each a ``method`` and its ``params``, as JSON."""
    state: str | None = None
    """The state of the call, opaque. The next round must return it unchanged."""


class QuestionRecord(msgspec.Struct, frozen=True):
    """A question, as the user saw it."""

    message: str
    """The text of the question."""
    form: dict[str, Any] | None = None
    """The JSON Schema of the form, for a question with a form."""
    url: str | None = None
    """The page to visit, for a question with a URL."""


class Round(msgspec.Struct):
    """The round that a call is in. Saved with the call, so that the next attempt at it continues here."""

    pending: PendingInput
    """The questions of this round."""
    number: int
    """How many rounds the server has answered with questions."""
    asked: list[QuestionRecord]
    """All questions of the call so far, in order. The journal has their answers by their position."""
    next_question: int
    """The position in ``asked`` after the last question of this round. Less than its length if the call began again."""
    answers: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict[str, dict[str, Any]])
    """Answers to ``pending`` that the journal does not have: those of the sampling model, and those before them."""

    def is_of(self, server: str, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Whether this round belongs to that call. A hook or a person may have changed the arguments since."""
        pending = self.pending
        return (pending.server, pending.tool, pending.arguments) == (server, tool, arguments)


class QuestionReplay:
    """Asks the user on behalf of a call, each question once, even if the server repeats it.

    Args:
      context: of the tool call.
    """

    def __init__(self, context: ToolContext[Any]) -> None:
        self.context = context
        self.asked: list[QuestionRecord] = []
        """All questions so far, in order."""
        self.next_question = 0
        """The position in ``asked`` that the server's next question has, if it repeats one."""
        self.count = 0
        """The questions that the server has asked so far, those that were declined unseen included."""
        self._answers: list[Accept | Decline | Cancel] = []

    async def ask(
        self, message: str, form: dict[str, Any] | None = None, *, url: str | None = None
    ) -> Accept | Decline | Cancel:
        """As `ToolContext.ask` and, with a ``url``, as `ToolContext.ask_url`. A repeated question is not shown."""
        question = QuestionRecord(message, form, url)
        if self.next_question < len(self.asked) and self.asked[self.next_question] == question:
            self.next_question += 1
            await trio.lowlevel.checkpoint()
            return self._answers[self.next_question - 1]
        return await self._ask(question)

    async def _ask(self, question: QuestionRecord) -> Accept | Decline | Cancel:
        context = self.context
        if question.url is None:
            answer = await context.ask(question.message, question.form)
        else:
            answer = await context.ask_url(question.message, question.url)
        self.asked.append(question)
        self._answers.append(answer)
        # Skip the rest of the recorded questions: the server asked another one, so it is on another path.
        self.next_question = len(self.asked)
        return answer

    async def replay(self, saved: Round) -> None:
        """Ask the questions of an earlier attempt at the call again. The journal answers them at once."""
        for question in saved.asked:
            await self._ask(question)
        self.next_question = saved.next_question

    def begin_again(self) -> None:
        """Begin the call again: questions that the server repeats get the same answers."""
        self.next_question = 0
