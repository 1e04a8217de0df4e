"""The loop: ask the model, run the tools it asks for, until it has answered."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

import msgspec
import trio

from agentloop._core.budget import Exceeded, RepeatDetector
from agentloop._core.output import OutputType, output_type
from agentloop._core.prices import priced
from agentloop._core.questions import AskedQuestion
from agentloop._core.state import StreamState
from agentloop._core.transcript import close_turn
from agentloop._core.turn import Answered, CallTools, Remind, after_response, truncated
from agentloop._runtime.commit import begin_turn, commit, raised
from agentloop._runtime.compacting import Compactor
from agentloop._runtime.foreign import ForeignError, call_foreign
from agentloop._runtime.hook_calls import HookFailedError
from agentloop._runtime.logs import RUN, log
from agentloop._runtime.long_results import with_reader
from agentloop._runtime.model_calls import open_models
from agentloop._runtime.questions import ask
from agentloop._runtime.responding import Responding
from agentloop._runtime.run import Run
from agentloop._runtime.tool_calls import Calls
from agentloop._runtime.toolsets import ListTools, open_toolsets
from agentloop.errors import UsageError
from agentloop.events import (
    ContinueRequested,
    StreamReason,
    TurnFinished,
    TurnReason,
    TurnStarted,
    UsageReported,
)
from agentloop.hooks import (
    AfterLLMCall,
    BeforeLLMCall,
    Block,
    Context,
    Continue,
    ReplaceMessages,
    SessionStart,
    StopRequested,
    TurnEnd,
    TurnStart,
    UserFollowupSubmit,
    UserPromptSubmit,
    UserSteeringMessagesSubmit,
)
from agentloop.messages import AssistantMessage, Text, ToolCall, Usage, UserMessage
from agentloop.models import ModelRequest, ToolSpec
from agentloop.questions import Approve
from agentloop.tools import Tool

__all__ = ["Ending", "play"]


class Ending(msgspec.Struct, frozen=True):
    """How the loop came to its end by itself."""

    reason: StreamReason
    detail: str = ""
    output: Any = None


class _Turn(msgspec.Struct):
    """The result of a turn: its reason, and the ending of the run, or ``None`` to continue."""

    reason: TurnReason
    ending: Ending | None = None


async def play(run: Run) -> Ending:
    """Run the stream from its prompt to its end.

    Raises:
      AgentLoopError: it failed.
    """
    # A stream that is stopped before it has begun has no effect at all.
    await trio.lowlevel.checkpoint_if_cancelled()
    loop = _Loop(run, await _instructions(run))
    if not run.config.toolsets and not any(hasattr(model, "open") for model in run.models):
        # As nearly always: there is nothing to open.
        return await loop.play(ListTools(run.config.tools, ()))
    async with open_models(run), open_toolsets(run) as tools:
        return await loop.play(tools)


async def _instructions(run: Run) -> str:
    given = run.config.instructions
    if isinstance(given, str):
        return given
    try:
        made = await call_foreign(trio.move_on_after(run.config.deadlines.hook), given, run.source)
    except ForeignError as error:
        problem = "stream %r: the instructions function failed"
        log(RUN, logging.ERROR, problem, run.source.stream, error=error.__cause__)
        raise UsageError(f"the instructions of agent {run.config.name!r} failed: {error}") from error.__cause__
    if not isinstance(made, str):
        raise UsageError(f"the instructions of agent {run.config.name!r} are to be text, not {made!r}")
    return made


class _Loop:
    __slots__ = (
        "_compactor",
        "_instructions",
        "_output",
        "_output_spec",
        "_overflowed",
        "_reminders",
        "_repeats",
        "_run",
        "_specs",
        "_unpriced",
    )

    def __init__(self, run: Run, instructions: str) -> None:
        self._run = run
        self._instructions = [instructions] if instructions else []
        self._output: OutputType = output_type(run.config.output_type)
        schema = self._output.schema
        self._output_spec = None if schema is None else ToolSpec(self._output.name, "The final answer.", dict(schema))
        self._repeats = RepeatDetector(run.config.limits.identical_turns)
        self._reminders = 0
        """How often the model was reminded of the output."""
        compaction = run.config.compaction
        self._compactor = None if compaction is None else Compactor(run, compaction, self._vetted_or_none)
        self._overflowed = False
        """Whether the last request was refused as too long, and room was made for it."""
        self._unpriced = False
        """Whether the warning about a model without a price was emitted."""
        self._specs: tuple[tuple[Tool, ...], tuple[ToolSpec, ...]] = ((), ())

    async def play(self, tools: ListTools) -> Ending:
        run = self._run
        for hook in run.hooks.at("session_start"):
            verdict = await run.hooks.ask(hook, SessionStart(run.source, run.prompt))
            if isinstance(verdict, Context):
                self._instructions.append(verdict.text)
        # Listed before the prompt is committed: where there are no tools, there is no run.
        await tools.list()
        self._instructions.extend(tools.instructions)
        first = await self._begin(tools)
        if first is not None:
            return first
        while True:
            refused = await self._steer()
            if refused is not None:
                return refused
            # A loop: a person may let the run go past one limit and not past the next.
            while reached := run.meter.before_request():
                if not await self._may_go_on(reached):
                    return _limit(reached)
            # At once, and not when the request goes out: while hooks wait, children side by side would all pass.
            run.meter.count_request()
            # No turn may begin once the run is cancelled, even if user code swallowed the cancellation.
            await trio.lowlevel.checkpoint_if_cancelled()
            ending = await self._turn(partial(self._respond, tools))
            if ending is not None:
                return ending

    async def _begin(self, tools: ListTools) -> Ending | None:
        """Submit the prompt, or continue the run that this one resumes."""
        run, past = self._run, self._run.unfinished
        if past is None or not past.is_prompted:
            return await self._submit("user_prompt_submit", (run.prompt,))
        run.turn = past.turn
        run.meter.restore(past.turn, past.usage, past.tool_calls, past.allowed)
        if past.message is None:
            last = run.transcript.messages[-1]
            if not isinstance(last, AssistantMessage) or last.calls or last.stop == "interrupted":
                return None
            # The previous run had its answer, and ended before it could emit the end.
            try:
                return Ending("completed", output=self._output.decode(last.text))
            except ValueError:
                return None
        run.turn -= 1
        return await self._turn(partial(self._call_again, past, past.message, tools))

    async def _call_again(self, past: StreamState, message: AssistantMessage, tools: ListTools) -> _Turn:
        """Go on with the calls of a turn that was parked, or cut off."""
        run = self._run
        listed = with_reader(run, await tools.list())
        await trio.lowlevel.checkpoint_if_cancelled()
        # From here on this run closes the open turn. A run that ends earlier leaves it resumable.
        past.message = None
        turn = await self._call_tools(message, message.calls, listed, past)
        run.unfinished = None
        return turn

    async def _steer(self) -> Ending | None:
        """Submit the steering messages. A hook's refusal ends the run; after an error they count as not read."""
        run = self._run
        messages = run.mailbox.take_steering()
        if not messages:
            return None
        try:
            return await self._submit("user_steering_messages_submit", messages)
        except BaseException:
            run.mailbox.put_back_steering(messages)
            raise

    async def _follow_up(self) -> _Turn | None:
        """Go on with the next follow-up, if there is one."""
        run = self._run
        messages = run.mailbox.take_follow_up()
        if not messages:
            return None
        try:
            refused = await self._submit("user_followup_submit", messages)
        except BaseException:
            run.mailbox.put_back_follow_up(messages)
            raise
        return _Turn("continued") if refused is None else _Turn("blocked", refused)

    async def _submit(
        self,
        point: Literal["user_prompt_submit", "user_steering_messages_submit", "user_followup_submit"],
        messages: tuple[UserMessage, ...],
    ) -> Ending | None:
        """Take in ``messages``, with what hooks add to the last of them; or give the end that they put to the run."""
        run = self._run
        for hook in run.hooks.at(point):
            value: UserPromptSubmit | UserFollowupSubmit | UserSteeringMessagesSubmit
            if point == "user_prompt_submit":
                value = UserPromptSubmit(run.source, messages[-1])
            elif point == "user_followup_submit":
                value = UserFollowupSubmit(run.source, messages[-1])
            else:
                value = UserSteeringMessagesSubmit(run.source, messages)
            try:
                verdict = await run.hooks.ask(hook, value)
            except HookFailedError as error:
                return Ending("blocked", str(error))
            if isinstance(verdict, Block):
                return Ending("blocked", verdict.reason)
            if isinstance(verdict, Context):
                *others, last = messages
                messages = (*others, UserMessage((*last.parts, Text(verdict.text))))
        commit(run, messages)
        return None

    async def _may_go_on(self, reached: Exceeded) -> bool:
        """Ask whether the run may go past a limit."""
        limit, used, allowed = reached.limit, reached.used, reached.allowed
        question = ContinueRequested(self._run.source, 0, id="", limit=limit, used=used, allowed=allowed)
        answer = await ask(self._run, AskedQuestion(question))
        if not isinstance(answer, Approve):
            return False
        reached.meter.extend(reached)
        raised(self._run, reached)
        return True

    # -------------------------------------------------------------------------- a turn

    async def _turn(self, deal: Callable[[], Awaitable[_Turn]]) -> Ending | None:
        """Run one turn, started and finished on every path."""
        run = self._run
        run.turn += 1
        run.emit(TurnStarted, turn=run.turn)
        turn = _Turn("cancelled")
        try:
            turn = await deal()
        except Exception:
            turn = _Turn("failed")
            raise
        finally:
            if run.root.questions.is_parked:
                turn = _Turn("needs_input")
            run.emit(TurnFinished, turn=run.turn, reason=turn.reason)
            await run.hooks.tell_at_the_end("turn_end", TurnEnd(run.source, run.turn, turn.reason))  # noqa: ASYNC102 - it shields itself
        if run.writer.readers_lag:
            await run.writer.wait_for_readers()
        return turn.ending

    async def _respond(self, tools: ListTools) -> _Turn:
        """Ask the model, and act on its response."""
        run = self._run
        listed = with_reader(run, await tools.list())
        request = await self._request(listed)
        if isinstance(request, Ending):
            return _Turn("blocked", request)
        message = await self._ask_model(request)
        try:
            following = after_response(
                message, self._output, attempt=self._reminders + 1, attempts=run.config.limits.output_attempts
            )
        except Exception:
            # The response is part of the transcript even if it is no answer. A refusal may come with calls.
            commit(run, close_turn(message, {}, ()))
            raise
        match following:
            case CallTools(calls=calls):
                return await self._call_tools(message, calls, listed)
            case Remind(text=text):
                self._reminders += 1
                commit(run, (message, UserMessage((Text(text),))))
                return _Turn("output_retry")
            case Answered(output=output):
                return await self._stop(message, output)

    async def _request(self, tools: dict[str, Tool]) -> ModelRequest | Ending:
        """Build the request to the model, or return the end that a hook requires."""
        run = self._run
        instructions = list(self._instructions)
        for hook in run.hooks.at("turn_start"):
            verdict = await run.hooks.ask(hook, TurnStart(run.source, run.turn))
            if isinstance(verdict, Context):
                instructions.append(verdict.text)
        if self._compactor is not None:
            await self._compactor.before_request()
        request = ModelRequest(
            run.transcript.view,
            "\n\n".join(instructions),
            self._tool_specs(tuple(tools.values())),
            self._output_spec,
            run.config.settings,
        )
        return await self._vetted(request)

    async def _vetted(self, request: ModelRequest) -> ModelRequest | Ending:
        """``request`` as hooks want it to go out, or the end that they put to the run."""
        run = self._run
        for hook in run.hooks.at("before_llm_call"):
            try:
                verdict = await run.hooks.ask(hook, BeforeLLMCall(run.source, run.turn, request))
            except HookFailedError as error:
                return Ending("blocked", str(error))
            if isinstance(verdict, Block):
                return Ending("blocked", verdict.reason)
            if isinstance(verdict, ReplaceMessages):
                request = msgspec.structs.replace(request, messages=tuple(verdict.messages))
        return request

    async def _vetted_or_none(self, request: ModelRequest) -> ModelRequest | None:
        vetted = await self._vetted(request)
        return None if isinstance(vetted, Ending) else vetted

    def _tool_specs(self, tools: tuple[Tool, ...]) -> tuple[ToolSpec, ...]:
        """The specs of ``tools``; built again only when the tools change."""
        if tools != self._specs[0]:
            self._specs = (tools, tuple(tool.spec for tool in tools))
        return self._specs[1]

    async def _ask_model(self, request: ModelRequest) -> AssistantMessage:
        """Ask the model for its response. Of a response that is cut off, the visible part is committed."""
        run = self._run
        call = Responding(run, partial(self._shortened, request))
        try:
            message = await call.respond(request)
            self._overflowed = False
            usage = self._priced(msgspec.structs.replace(message.usage, requests=1), call.model.name, message.model)
            run.meter.count_usage(usage)
            if self._compactor is not None:
                self._compactor.count(usage.total_tokens, len(run.transcript))
            run.emit(UsageReported, usage=usage, total=run.meter.usage)
            warning = truncated(message)
            if warning:
                run.warn(warning, _WARNINGS[warning])
            await run.hooks.tell("after_llm_call", AfterLLMCall(run.source, run.turn, message))
        except BaseException:
            cut_off = call.interrupted()
            if cut_off is not None:
                commit(run, (cut_off,))
            raise
        return message

    async def _shortened(self, request: ModelRequest) -> ModelRequest | None:
        """``request`` with less in it, after it was refused as too long; ``None`` if that was tried, or cannot be."""
        if self._compactor is None or self._overflowed:
            return None
        self._overflowed = True
        if not await self._compactor.after_overflow():
            return None
        return await self._vetted_or_none(msgspec.structs.replace(request, messages=self._run.transcript.view))

    def _priced(self, usage: Usage, *names: str) -> Usage:
        """``usage`` of the model that goes by ``names``, with its cost."""
        price = self._run.price_of(*names)
        if price is not None:
            return priced(usage, price)
        if self._run.meter.counts_cost and not self._unpriced:
            self._unpriced = True
            self._run.warn(
                "unpriced", f"Limits.cost cannot count what model {names[0]!r} costs: give its price in prices="
            )
        return usage

    # ------------------------------------------------------------------ after the response

    async def _call_tools(
        self,
        message: AssistantMessage,
        asked: tuple[ToolCall, ...],
        tools: dict[str, Tool],
        past: StreamState | None = None,
    ) -> _Turn:
        """Run the calls of ``message``. The turn is committed as a whole, however it ends; or it is parked.

        Args:
          past: the state of the calls in the run that this one resumes.
        """
        run = self._run
        calls = Calls(run, asked, tools, past)
        if past is None:
            begin_turn(run, message)
        try:
            # The calls of a resumed turn were counted when it began.
            counted = past is not None and bool(past.calls or past.results)
            while not counted and (reached := run.meter.before_tool_calls(len(asked))):
                if not await self._may_go_on(reached):
                    return _Turn("limit", _limit(reached))
            polling = all(call.name in tools and tools[call.name].polling for call in asked)
            if (
                past is None
                and not polling
                and self._repeats.is_stuck(tuple((call.name, call.arguments) for call in asked))
            ):
                times = run.config.limits.identical_turns
                return _Turn("limit", Ending("limit", f"the model asked for the same calls {times} times in a row"))
            if not counted:
                run.meter.count_tool_calls(len(asked))
            await calls.run_all()
        finally:
            if not run.root.questions.is_parked:
                commit(run, close_turn(message, calls.results, calls.started))
        if calls.blocked is not None:
            return _Turn("blocked", Ending("blocked", calls.blocked))
        return _Turn("tool_calls")

    async def _stop(self, message: AssistantMessage, output: Any) -> _Turn:
        """The end, unless a hook sends the agent on."""
        run = self._run
        commit(run, (message,))
        for hook in run.hooks.at("stop"):
            verdict = await run.hooks.ask(hook, StopRequested(run.source, message, run.continuations))
            if isinstance(verdict, Continue):
                run.continuations += 1
                self._reminders = 0
                commit(run, (UserMessage((Text(verdict.text),)),))
                return _Turn("continued")
        if run.mailbox.is_steered:
            # The loop submits the message before the next request.
            self._reminders = 0
            return _Turn("continued")
        followed = await self._follow_up()
        if followed is not None:
            self._reminders = 0
            return followed
        return _Turn("final", Ending("completed", output=output))


_WARNINGS: dict[Literal["truncated", "empty"], str] = {
    "truncated": "The response was cut off at the limit of tokens.",
    "empty": "The model said nothing.",
}


def _limit(reached: Exceeded) -> Ending:
    return Ending("limit", f"{reached.limit}: {reached.used:.10g} of {reached.allowed:.10g} used")
