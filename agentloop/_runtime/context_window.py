"""Compaction: shorten the model's view of the transcript. A failure loses nothing: the transcript stays complete.

Also the tool with which a model reads the rest of a long result; a run offers the tool once it has such a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from agentloop._core.catalogue import known_model
from agentloop._core.context_window import (
    FLAWS,
    READ_RESULT,
    Measure,
    Plan,
    as_text,
    estimate,
    fair_cap,
    fitted,
    flaw_of_length,
    flaw_of_summary,
    measure,
    newest_prompt,
    plan,
    without_summary,
)
from agentloop._core.state import ViewChanged
from agentloop._core.tokens import tokens_in_front
from agentloop._runtime.hooks import HookFailedError
from agentloop._runtime.model_call import RequestRefusedError, ask
from agentloop._runtime.run import CompactionTask, Run
from agentloop.config import AgentConfig
from agentloop.errors import CompactionError, ModelContextOverflowError, ModelError, PromptTooLongError
from agentloop.events import CompactionFinished, CompactionReason, CompactionStarted
from agentloop.hooks import Block, PostCompact, PreCompact, Summary
from agentloop.limits import Compaction
from agentloop.messages import AssistantMessage, Message, Text, ToolResult, UserMessage
from agentloop.models import Model, ModelChoice, ModelRequest, ToolChoice
from agentloop.outcome import CompactionResult
from agentloop.tools import Tool, tool

__all__ = ["Compactor", "with_reader"]

SUMMARY = "This conversation was cut short to make room. What came before, summed up by yourself:\n\n"

MOST_OVERFLOWS = 4
"""How often a request is shortened after it was refused as too long: the window may be far smaller than said."""
MOST_CUTS = 4
"""How often the request for a summary is cut to a quarter after it was refused as too long."""
PROGRESS = 0.9
"""The part of a refused request that the next one may take: the same request would be refused once more."""
LEAST_WINDOW = 8_000
"""The window to sum up for where none is known."""
LEAST_REFUSED = 100
"""The least window that a compaction can have."""


def _compaction_of(run: Run) -> tuple[Compaction | None, Compaction | None]:
    """The compaction of the run, and the same with its window, if that is known; ``None`` for none."""
    given = run.config.compaction
    if given is False:
        return None, None
    wanted = given if isinstance(given, Compaction) else Compaction()
    if wanted.window is not None:
        return wanted, wanted
    window = _window_of(run.models)
    if window is not None:
        wanted = msgspec.structs.replace(wanted, window=max(window, LEAST_REFUSED))
        return wanted, wanted
    # Unless it was asked for: summing up a conversation costs a request, and what the model reads changes.
    return (None, None) if given is None else (wanted, None)


def window_for(agent: AgentConfig, choice: ModelChoice | None) -> int | None:
    """The window of the next request of ``agent`` in a session, tokens; ``None`` if it is not known.

    Args:
      choice: the model that was chosen for the session.
    """
    if isinstance(agent.compaction, Compaction) and agent.compaction.window is not None:
        return agent.compaction.window
    chosen = None if choice is None else choice.model
    named = (agent.model if chosen is None else chosen, *agent.fallbacks)
    return _window_of([agent.models.get(model, model) if isinstance(model, str) else model for model in named])


def _window_of(models: Sequence[Model | str]) -> int | None:
    """The smallest window of ``models``; ``None`` if one of them is not known."""
    windows: list[int] = []
    for model in models:
        known = known_model(model if isinstance(model, str) else model.name)
        if known is None or known.window is None:
            return None
        windows.append(known.window)
    return min(windows, default=None)


class Compactor:
    """Makes room for one stream.

    Where no window is known, it does so only after a request was refused as too long. Without a `Compaction` it then
    shows long results in part, and leaves out a prompt that was refused: the conversation is never summed up.
    """

    __slots__ = ("_compaction", "_front", "_has_failed", "_measured_front", "_overflows", "_run", "_wanted")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._wanted, self._compaction = _compaction_of(run)
        self._overflows = 0
        """How often the request at hand was refused as too long."""
        self._has_failed = False
        """Whether a summary for the request at hand has failed: the next one would, too."""
        self._measured_front: tuple[str, tuple[object, ...]] = ("", ())
        """The instructions and tools that were measured last."""
        self._front = 0
        """The tokens that they take."""

    @property
    def compaction(self) -> Compaction | None:
        """The compaction, if the window is known."""
        return self._compaction

    # ------------------------------------------------------------------- the ways to make room

    def begin_request(self) -> None:
        """Begin with another request: the last one was refused or answered."""
        self._overflows, self._has_failed = 0, False

    async def before_request(self, request: ModelRequest, compaction: Compaction) -> None:
        """Compact if the window is nearly full. A failure is a warning, and ``request`` is sent as it is."""
        await self._make_room("threshold", request, compaction)
        if self._measure(request).tokens > compaction.size:
            self._show_in_part(request, compaction.size, (ToolResult,))

    async def after_overflow(self, request: ModelRequest) -> bool:
        """Make room after the model has refused ``request`` as too long. Gives whether there is some."""
        self._overflows += 1
        if self._overflows > MOST_OVERFLOWS or (self._wanted is None and len(self._run.models) > 1):
            # Without a compaction, a fallback may have a larger window.
            await trio.lowlevel.checkpoint()
            return False
        refused = self._measure(request).estimated
        compaction = self._compaction
        if compaction is None and self._wanted is not None:
            # The window is smaller than the request, and that is all that is known of it.
            compaction = msgspec.structs.replace(self._wanted, window=max(refused, LEAST_REFUSED))
        view = self._run.transcript.shown
        failures = view.failures
        if compaction is None or self._has_failed:
            await trio.lowlevel.checkpoint()
        else:
            await self._make_room("overflow", request, compaction)
        self._has_failed = self._has_failed or view.failures > failures
        if compaction is None:
            self._leave_out_older_prompt(refused)
        # A refusal does not say how large the window is, only that it is smaller than this request.
        if self._measure(request).estimated > refused // 2 and view.cut_summary(refused // 4):
            view.change(self._run.transcript.messages, view.first_kept)
            self._note_view()
        if self._measure(request).estimated > refused // 2:
            # With a compaction, the responses are those that are left where there was nothing to sum up.
            kinds = (ToolResult,) if compaction is None or self._has_failed else (ToolResult, AssistantMessage)
            self._show_in_part(request, refused // 2, kinds)
        return self._measure(request).estimated <= refused * PROGRESS

    def _leave_out_older_prompt(self, refused: int) -> None:
        """Leave out a prompt of an earlier run that takes most of the request: no model has ever answered it."""
        transcript = self._run.transcript
        sizes = transcript.shown.sizes(transcript.messages)
        older = newest_prompt(transcript.messages, transcript.shown)[1:]
        too_long = frozenset([index for index in older if sizes[index].all * 2 >= refused])
        state = self._run.state
        # A run that is resumed began before this opening of it.
        first = state.first_index if state.messages else self._run.first_index
        if too_long and max(too_long) < first:
            transcript.shown.elide(too_long)
            self._note_view()

    async def on_request(self, request: ModelRequest, task: CompactionTask) -> CompactionResult:
        """Sum up all but the latest messages, since the program wants it.

        Raises:
          CompactionError: a hook refuses it, or there is no whole summary that is shorter. Nothing has changed.
        """
        run = self._run
        before = self._measure(request)
        unknown = msgspec.structs.replace(self._wanted or Compaction(), window=max(before.tokens * 2, LEAST_WINDOW))
        compaction = self._compaction or unknown
        problem = await self._make_room("request", request, compaction, task)
        if problem:
            raise CompactionError(f"the conversation could not be shortened: {problem}")
        left = self._left(before, request)
        return CompactionResult(run.transcript.shown.summary, before.tokens, left, run.meter.usage)

    def refusal(self, request: ModelRequest, error: ModelContextOverflowError) -> ModelContextOverflowError:
        """The error for ``request``, which was refused as too long for good.

        A prompt that is the reason is left out from then on: it would make every later request fail. Results that are
        the reason are shown in part.
        """
        transcript = self._run.transcript
        messages, view = transcript.messages, transcript.shown
        prompt = newest_prompt(messages, view)
        if not prompt:
            self._show_in_part(request, self._measure(request).estimated // 2, (ToolResult,))
            return error
        sizes = view.sizes(messages)
        tokens = sum([sizes[index].all for index in prompt])
        is_alone = tokens * 2 >= self._measure(request).estimated
        previous = messages[prompt[-1] - 1] if prompt[-1] else None
        # The model has answered before, so what it has read until then fits. With compaction, all of that makes room.
        has_answered = isinstance(previous, AssistantMessage) and previous.stop != "interrupted"
        if not is_alone and (self._wanted is not None or not has_answered):
            return error
        view.elide(frozenset(prompt))
        self._note_view()
        if not is_alone:
            return error
        return PromptTooLongError(
            model=error.model, status=error.status, body=error.body, code=error.code, advice="send less at once"
        )

    # ------------------------------------------------------------------------------ what fits

    def _measure(self, request: ModelRequest) -> Measure:
        front = (request.instructions, request.tools)
        if front != self._measured_front:
            self._measured_front, self._front = front, tokens_in_front(*front)
        transcript = self._run.transcript
        return measure(transcript.messages, transcript.shown, self._front)

    def _left(self, before: Measure, request: ModelRequest) -> int:
        """The tokens of ``request`` now, on the scale of the count ``before``: no provider has counted the view yet."""
        return round(self._measure(request).estimated * before.tokens / max(before.estimated, 1))

    def _show_in_part(self, request: ModelRequest, tokens: int, kinds: tuple[type[Message], ...]) -> None:
        """Cut the longest messages of ``kinds``, one kind after the other, so that a request takes at most ``tokens``.

        The model can read the rest of a result that was cut.
        """
        transcript = self._run.transcript
        messages, view = transcript.messages, transcript.shown
        threshold = self._wanted.threshold if self._wanted is not None else 1.0
        sizes = view.sizes(messages)
        estimated = self._measure(request).estimated
        left = int(tokens * threshold / view.scale) - estimated
        changed = False
        for kind in kinds:
            if left >= 0:
                break
            cut = {
                index: sizes[index].all
                for index in range(view.first_kept, len(messages))
                if isinstance(messages[index], kind) and not view.is_elided(index)
            }
            before = sum(cut.values())
            cap = fair_cap(list(cut.values()), before + left)
            for index, size in cut.items():
                if size > cap:
                    view.change(messages, index)
                    view.show_part(index, cap)
                    changed = True
            left += before - sum([min(size, cap) for size in cut.values()])
        if changed:
            self._note_view()

    def _note_view(self) -> None:
        """Record the view of a child run. That of a root run is a setting of its session."""
        if self._run.parent is not None:
            self._run.note(ViewChanged.of(self._run.transcript.shown))

    # ------------------------------------------------------------------------------ compaction

    async def _make_room(
        self,
        reason: CompactionReason,
        request: ModelRequest,
        compaction: Compaction,
        task: CompactionTask | None = None,
    ) -> str:
        """Shorten the conversation, if it has to be and can be. Gives why it could not be; empty if it was."""
        run, transcript = self._run, self._run.transcript
        messages, shown = transcript.messages, transcript.shown
        before = self._measure(request)
        used = before.tokens
        planned = plan(messages, shown, used, compaction, overflow=reason != "threshold")
        if planned is None:
            return "there is nothing to sum up"
        if reason == "threshold" and planned.first_kept is not None and shown.is_resting:
            return "the last summaries have failed"
        replaced = () if planned.first_kept is None else shown.shown(messages[: planned.first_kept])
        verdict = await self._verdict(PreCompact(run.source, reason, used, replaced))
        if isinstance(verdict, Block):
            if reason != "request":
                run.warn("compaction_failed", f"no room is made: {verdict.reason}", logged="a hook refused")
            return verdict.reason
        run.emit(CompactionStarted, reason=reason, tokens=used)
        problem = "it was cut off"
        try:
            problem = await self._carry_out(planned, replaced, verdict, request, compaction, task)
            is_hopeless = shown.is_resting or problem in FLAWS
            if problem and reason == "overflow" and planned.first_kept is not None and is_hopeless:
                # Without that, every later request would be refused as well.
                self._leave_out(planned.first_kept, compaction)
                run.warn("messages_left_out", f"the oldest messages are left out without a summary: {problem}")
                problem = ""
        finally:
            left = self._left(before, request)
            run.emit(
                CompactionFinished,
                tokens=left,
                first_kept=shown.first_kept,
                summary="" if problem else shown.summary,
                problem=problem,
            )
        if problem:
            # For a child run that is resumed: the number of failures.
            self._note_view()
            if reason != "request":
                run.warn("compaction_failed", f"no room could be made: {problem}", logged="no room could be made")
            return problem
        await run.hooks.notify("post_compact", PostCompact(run.source, reason, shown.summary, used, left))
        return ""

    def _leave_out(self, first_kept: int, compaction: Compaction) -> None:
        """Leave out the messages before ``first_kept``, but for the last summary."""
        view = self._run.transcript.shown
        failures = view.failures
        view.change(self._run.transcript.messages, view.first_kept)
        view.summarize(without_summary(view.summary, compaction.size // 4), first_kept)
        view.failures = failures
        self._note_view()

    async def _verdict(self, value: PreCompact) -> Block | Summary | None:
        """The hooks' verdict on a compaction: the first refusal, or else the last summary."""
        run = self._run
        summary: Summary | None = None
        for hook in run.hooks.at("pre_compact"):
            try:
                verdict = await run.hooks.ask(hook, value)
            except HookFailedError as error:
                return Block(str(error))
            if isinstance(verdict, Block):
                return verdict
            if isinstance(verdict, Summary):
                summary = verdict
        return summary

    async def _carry_out(
        self,
        planned: Plan,
        replaced: tuple[Message, ...],
        given: Summary | None,
        request: ModelRequest,
        compaction: Compaction,
        task: CompactionTask | None,
    ) -> str:
        """Make room as planned. Gives what went wrong; then nothing has changed.

        Args:
          replaced: the messages to sum up; none if only results are left out.
          given: the summary of a hook.
        """
        view, messages = self._run.transcript.shown, self._run.transcript.messages
        if planned.first_kept is None:
            view.change(messages, min(planned.elided))
            view.elide(planned.elided)
            self._note_view()
            return ""
        if given is not None:
            text, problem = given.text, "" if given.text.strip() else "the summary of the hook is empty"
        else:
            try:
                message = await self._summary(replaced, request, compaction, task)
            except RequestRefusedError as error:
                # A limit may be raised, and is no reason to let compaction rest.
                view.failures += error.reached is None
                return str(error)
            except ModelError as error:
                view.failures += 1
                return str(error)
            text, problem = message.text, flaw_of_summary(message)
        summary = UserMessage((Text(SUMMARY + text.strip()),))
        problem = problem or flaw_of_length(summary, replaced, int(compaction.size / view.scale))
        if problem:
            view.failures += 1
            return problem
        view.change(messages, view.first_kept)
        view.summarize(summary.text, planned.first_kept)
        self._note_view()
        return ""

    async def _summary(
        self, replaced: tuple[Message, ...], turn: ModelRequest, compaction: Compaction, task: CompactionTask | None
    ) -> AssistantMessage:
        """Ask for a summary as for every other response: with the same retries, fallbacks, limits and hooks.

        Args:
          turn: the request of the turn. Its instructions and tools are in front of the same messages, so that the
            provider's cache knows them; some servers refuse calls where no tool is offered.
        """
        front = tokens_in_front(turn.instructions, turn.tools)
        # Instructions and tools that leave no room for the conversation are left out.
        if front <= compaction.size // 2:
            message = await self._ask_for_summary(replaced, turn, front, compaction, task)
            if not (message.calls and turn.tools):
                return message
            # Some models call tools although they must not. They cannot where the calls are text, and no tool is there.
        told = msgspec.structs.replace(turn, tools=(), instructions="")
        return await self._ask_for_summary((as_text(replaced),), told, 0, compaction, task)

    async def _ask_for_summary(
        self,
        replaced: tuple[Message, ...],
        turn: ModelRequest,
        front: int,
        compaction: Compaction,
        task: CompactionTask | None,
    ) -> AssistantMessage:
        text = compaction.instructions
        if task is not None and task.instructions:
            text = f"{text}\n\nAbove all: {task.instructions}"
        wish = UserMessage((Text(text),))
        choice: ToolChoice | None = "none" if turn.tools else None
        settings = msgspec.structs.replace(turn.settings, tool_choice=choice, max_tokens=None, stop=())
        room = int(compaction.size * compaction.threshold / self._run.transcript.shown.scale)
        # An eighth of the window is left for the summary itself.
        sent = fitted(replaced, max(room - front - estimate(wish) - compaction.size // 8, 1))
        cuts = 0

        def request() -> ModelRequest:
            return msgspec.structs.replace(turn, messages=(*sent, wish), output=None, settings=settings)

        async def shorter() -> ModelRequest | None:
            """Give the request with a quarter to sum up, after it was refused as too long."""
            nonlocal cuts, sent
            cuts += 1
            tokens = sum(map(estimate, sent))
            sent = fitted(replaced, tokens // 4)
            await trio.lowlevel.checkpoint()
            return None if cuts > MOST_CUTS or sum(map(estimate, sent)) >= tokens else request()

        models = None if task is None else task.models
        return await ask(self._run, request(), purpose="summary", shorten=shorter, models=models)


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

    @tool(name=READ_RESULT, read_only=True, idempotent=True, deferred=False)
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
        # In a session that was opened again, the view stores the texts of the results that it shows in part.
        _ = run.transcript.view
        return run.transcript.long_results.read(call_id, offset, min(limit, page), find)  # noqa: ASYNC910

    return read_result
