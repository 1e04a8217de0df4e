"""Compaction: shorten the model's view of the transcript. A failure loses nothing: the transcript stays complete.

Also the tool with which a model reads the rest of a long result; a run offers the tool once it has such a result.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import trio
from msgspec import Meta

from agentloop._core.context_window import (
    CHARACTERS_PER_TOKEN,
    NO_SHORTER,
    READ_RESULT,
    Plan,
    estimate,
    fitted,
    flaw_of_summary,
    is_shorter,
    plan,
    result_cap,
)
from agentloop._runtime.hooks import HookFailedError
from agentloop._runtime.model_call import RequestRefusedError, ask
from agentloop._runtime.run import Run
from agentloop.errors import ModelError
from agentloop.events import CompactionFinished, CompactionStarted
from agentloop.hooks import Block, PostCompact, PreCompact
from agentloop.limits import Compaction
from agentloop.messages import AssistantMessage, Text, ToolResult, UserMessage
from agentloop.models import ModelRequest, ToolChoice
from agentloop.tools import Tool, tool

__all__ = ["Compactor", "with_reader"]

SUMMARY = "This conversation was cut short to make room. What came before, summed up by yourself:\n\n"


MOST_HALVES = 3
"""How often the request for a summary is halved after it was refused as too long."""
WORD_ON_THE_REST = 200
"""Characters of the note on how to read the rest of a result."""
MOST_SHOWN_AT_LEAST = 40
"""Characters of a result that are shown however little room there is."""


class Compactor:
    """Makes room for one stream."""

    __slots__ = ("_compaction", "_counted", "_counted_at", "_run")

    def __init__(self, run: Run, compaction: Compaction) -> None:
        self._run = run
        self._compaction = compaction
        self._counted = 0
        """Tokens of the last request and its response, as the provider counted them."""
        self._counted_at = 0
        """How many messages of the transcript that was."""

    def count(self, tokens: int, messages: int) -> None:
        """The provider has counted ``tokens`` for the first ``messages`` of the transcript and the response."""
        self._counted, self._counted_at = tokens, messages + 1

    async def before_request(self, request: ModelRequest) -> None:
        """Compact if the window is nearly full. A failure is a warning, and ``request`` is sent as it is."""
        await self._make_room("threshold", request)
        if self._used() > self._compaction.window:
            self._show_results_in_part(request, self._compaction.window)

    async def after_overflow(self, request: ModelRequest) -> bool:
        """Make room after the model has refused ``request`` as too long. Gives whether there is some."""
        has_room = await self._make_room("overflow", request)
        shown = sum(map(estimate, self._run.transcript.view))
        if has_room and shown <= self._compaction.window:
            return True
        # A refusal does not say how large the window is, only that it is smaller than this request.
        return self._show_results_in_part(request, min(self._compaction.window, shown // 2)) or has_room

    def _show_results_in_part(self, request: ModelRequest, tokens: int) -> bool:
        """Cut the longest results so that a request takes at most ``tokens``; the model can read the rest of each."""
        transcript = self._run.transcript
        messages, shown = transcript.messages, transcript.shown
        room = int(tokens * self._compaction.threshold) - _tokens_in_front(request)
        cap = result_cap(transcript.view, room)
        found = False
        for index in range(shown.first_kept, len(messages)):
            result = messages[index]
            if not isinstance(result, ToolResult) or shown.is_elided(index):
                continue
            if estimate(shown.in_part.get(index, result)) <= cap:
                continue
            # A result that was too long before is cut from its whole text, which its offsets count in.
            whole = transcript.long_results.get(result.call_id)
            if whole is not None:
                others = (part for part in result.parts if not isinstance(part, Text))
                result = ToolResult(result.call_id, result.name, (Text(whole), *others), result.status)
            most = max(cap * CHARACTERS_PER_TOKEN - WORD_ON_THE_REST, MOST_SHOWN_AT_LEAST)
            shown.in_part[index] = transcript.long_results.shorten(result, most)
            found = True
        if found:
            self._counted = 0
        return found

    def _used(self) -> int:
        transcript = self._run.transcript
        if self._counted:
            return self._counted + sum(map(estimate, transcript.messages[self._counted_at :]))
        return sum(map(estimate, transcript.view))

    async def _make_room(self, reason: Literal["threshold", "overflow"], request: ModelRequest) -> bool:
        run, transcript = self._run, self._run.transcript
        used = self._used()
        planned = plan(transcript.messages, transcript.shown, used, self._compaction, overflow=reason == "overflow")
        if planned is None or (
            reason == "threshold" and planned.first_kept is not None and transcript.shown.is_resting
        ):
            return False
        if not await self._may(reason, used):
            return False
        run.emit(CompactionStarted, reason=reason, tokens=used)
        problem = "it was cut off"
        try:
            problem = await self._carry_out(planned, request)
        finally:
            left = sum(map(estimate, transcript.view))
            run.emit(
                CompactionFinished,
                tokens=left,
                first_kept=transcript.shown.first_kept,
                summary="" if problem else transcript.shown.summary,
                problem=problem,
            )
        if problem:
            run.warn("compaction_failed", f"no room could be made: {problem}", logged="no room could be made")
            return False
        self._counted = 0
        await run.hooks.notify("post_compact", PostCompact(run.source, reason, transcript.shown.summary))
        return True

    async def _may(self, reason: Literal["threshold", "overflow"], used: int) -> bool:
        """Whether the hooks let room be made."""
        run = self._run
        for hook in run.hooks.at("pre_compact"):
            try:
                verdict = await run.hooks.ask(hook, PreCompact(run.source, reason, used))
            except HookFailedError as error:
                verdict = Block(str(error))
            if isinstance(verdict, Block):
                run.warn("compaction_failed", f"no room is made: {verdict.reason}", logged="a hook refused")
                return False
        return True

    async def _carry_out(self, planned: Plan, request: ModelRequest) -> str:
        """Make room as planned. Gives what went wrong; then nothing has changed."""
        transcript = self._run.transcript
        if planned.first_kept is None:
            transcript.show_less(elided=planned.elided)
            return ""
        try:
            message = await self._summary(planned.first_kept, request)
        except RequestRefusedError as error:
            # A limit may be raised, and is no reason to let compaction rest.
            transcript.shown.failures += error.reached is None
            return str(error)
        except ModelError as error:
            transcript.shown.failures += 1
            return str(error)
        replaced = transcript.shown.shown(transcript.messages[: planned.first_kept])
        summary = UserMessage((Text(SUMMARY + message.text.strip()),))
        problem = flaw_of_summary(message) or ("" if is_shorter(summary, replaced) else NO_SHORTER)
        if not problem:
            transcript.show_less(summary=summary.text, first_kept=planned.first_kept)
        else:
            transcript.shown.failures += 1
        return problem

    async def _summary(self, first_kept: int, turn: ModelRequest) -> AssistantMessage:
        """Ask for a summary as for every other response: with the same retries, fallbacks, limits and hooks.

        Args:
          turn: the request of the turn. Its instructions and tools are in front of the same messages, so that the
            provider's cache knows them; some servers refuse calls where no tool is offered.
        """
        run = self._run
        before = run.transcript.shown.shown(run.transcript.messages[:first_kept])
        ask_for_it = UserMessage((Text(self._compaction.instructions),))
        choice: ToolChoice | None = "none" if turn.tools else None
        settings = msgspec.structs.replace(turn.settings, tool_choice=choice, max_tokens=None, stop=())
        room = int(self._compaction.window * self._compaction.threshold) - _tokens_in_front(turn) - estimate(ask_for_it)
        # An eighth of the window is left for the summary itself.
        most = max(room - self._compaction.window // 8, 1)
        sent = fitted(before, most)
        attempts = 0

        def summary_request() -> ModelRequest:
            return msgspec.structs.replace(turn, messages=(*sent, ask_for_it), output=None, settings=settings)

        async def shorter() -> ModelRequest | None:
            """Give the request with half as much to sum up, after it was refused as too long."""
            nonlocal attempts, sent
            attempts += 1
            tokens = sum(map(estimate, sent))
            sent = fitted(before, tokens // 2)
            await trio.lowlevel.checkpoint()
            if attempts > MOST_HALVES or sum(map(estimate, sent)) >= tokens:
                return None
            return summary_request()

        return await ask(run, summary_request(), purpose="summary", shorten=shorter)


def _tokens_in_front(request: ModelRequest) -> int:
    """About how many tokens the instructions and tools of ``request`` take."""
    return (len(request.instructions) + len(msgspec.json.encode(request.tools))) // CHARACTERS_PER_TOKEN


# ---------------------------------------- the tool that reads the rest of a long result


def with_reader(run: Run, tools: dict[str, Tool]) -> dict[str, Tool]:
    """``tools`` and `READ_RESULT`, once a result of the session was too long. A tool of that name stays as it is."""
    if READ_RESULT in tools:
        return tools
    if run.reader is None:
        run.reader = _reader(run)
    return {**tools, READ_RESULT: run.reader}


def _reader(run: Run) -> Tool:
    # A page, with its heading, is not to be too long itself.
    page = max(int(min(run.config.max_result, 100_000) * 0.9) - 100, 100)

    @tool(name=READ_RESULT, read_only=True, idempotent=True)
    async def read_result(  # noqa: ASYNC124 - it is in memory, and a plain function would run in a thread
        call_id: str,
        offset: Annotated[int, Meta(ge=0)] = 0,
        limit: Annotated[int, Meta(ge=1)] = 100_000,
        find: str = "",
    ) -> str:
        """Read a part of a tool result that was too long to be shown whole.

        Args:
          call_id: of the tool call, as the result says.
          offset: the first character to read.
          limit: how many characters to read at most.
          find: begin where this text stands next, at or after offset.
        """
        return run.transcript.long_results.read(call_id, offset, min(limit, page), find)  # noqa: ASYNC910

    return read_result
