"""The loop: ask the model, run the tools it asks for, until it has answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
import trio

from agentloop._core.handoffs import HandoffRecord
from agentloop._core.questions import AskedQuestion
from agentloop._core.response import (
    FLAWS,
    Answered,
    AskAgain,
    CallTools,
    Next,
    Proceed,
    after_refused_output,
    after_response,
    answer_at_the_end,
    flaw_of,
)
from agentloop._core.structured_output import TEXT, OutputType, problem_of
from agentloop._core.transcript import close_turn
from agentloop._core.usage import Exceeded, RepeatDetector, in_words
from agentloop._runtime.approval import warn_of_unmatched
from agentloop._runtime.background import report_others, resume_background
from agentloop._runtime.context_window import Compactor, with_reader
from agentloop._runtime.deferred import defer_tools
from agentloop._runtime.dynamic import choose_model, instructions_for, offered_tools, settings_of
from agentloop._runtime.handoffs import become, hand_off_when_done, open_stages, show_history, tell_switch
from agentloop._runtime.hooks import HookFailedError
from agentloop._runtime.model_call import RequestRefusedError, ask as ask_model, check_price, open_models
from agentloop._runtime.output_validation import validated
from agentloop._runtime.pauses import hold
from agentloop._runtime.questions import ask
from agentloop._runtime.run import CompactionTask, Run, commit, output_of, record_raised_limit, record_turn
from agentloop._runtime.told_context import ContextTeller
from agentloop._runtime.tool_calls import Calls
from agentloop._runtime.toolsets import ToolList, open_toolsets
from agentloop.errors import ModelContextOverflowError, Retry, UsageError
from agentloop.events import (
    ContinueRequested,
    StreamReason,
    TurnFinished,
    TurnReason,
    TurnStarted,
)
from agentloop.hooks import (
    Begins,
    Block,
    Context,
    Continue,
    OnMaxIterations,
    OnSessionResume,
    SessionStart,
    StopRequested,
    TurnEnd,
    TurnStart,
    UserFollowupSubmit,
    UserPromptSubmit,
    UserSteeringMessagesSubmit,
)
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, UserMessage
from agentloop.models import ModelChoice, ModelRequest, ToolSpec
from agentloop.questions import Approve
from agentloop.run_info import EachTurn, is_called_per_run
from agentloop.tools import Tool

__all__ = ["Ending", "run_loop"]


class Ending(msgspec.Struct, frozen=True):
    """How the loop came to its end by itself."""

    reason: StreamReason
    detail: str = ""
    output: Any = None


class _Turn:
    """A turn: it starts when the block is entered, and finishes on every way out of the block."""

    __slots__ = ("_run", "reason")

    def __init__(self, run: Run) -> None:
        self._run = run
        self.reason: TurnReason | None = None
        """Why it ends. The block sets it, unless it raises."""

    async def __aenter__(self) -> Self:  # noqa: ASYNC910 - nothing waits here
        run = self._run
        run.writer.append(TurnStarted(run.source, run.log.seq + 1, turn=run.state.next_turn))
        return self

    async def __aexit__(  # noqa: ASYNC910 - the hooks of most agents are none
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        run = self._run
        if run.root.questions.is_parked:
            reason: TurnReason = "needs_input"
        elif error is not None:
            reason = "failed" if isinstance(error, Exception) else "cancelled"
        else:
            assert self.reason is not None
            reason = self.reason
        number = run.state.turn
        run.writer.append(TurnFinished(run.source, run.log.seq + 1, turn=number, reason=reason))
        if run.hooks.at("turn_end"):
            await run.hooks.notify_shielded("turn_end", TurnEnd(run.source, number, reason))  # noqa: ASYNC102
        if error is None and run.writer.readers_lag:
            await run.writer.wait_for_readers()  # noqa: ASYNC102 - only where nothing was raised


async def run_loop(run: Run) -> Ending:
    """Run the stream from its prompt to its end.

    Raises:
      AgentLoopError: it failed.
    """
    # A stream that is stopped before it has begun has no effect at all.
    await trio.lowlevel.checkpoint_if_cancelled()
    if run.parent is not None and run.state.turn == 0 and not run.background_id:
        await tell_switch(run.parent, run.config.name, "transfer", run.source)
    if run.team:
        return await _run_team(run)
    loop = await _loop_of(run)
    for model in run.models:
        if run.config.toolsets or hasattr(model, "open"):
            async with open_models(run), open_toolsets(run) as tools:
                return _end_of(await loop.run(tools))
    # As nearly always: there is nothing to open.
    return _end_of(await loop.run(ToolList(run.config.tools, ())))


async def _loop_of(run: Run) -> _Loop:
    """The loop of the agent that acts."""
    given: Any = run.config.instructions
    instructions: str | EachTurn[Any] = (
        await instructions_for(run, given, turn=run.state.next_turn) if is_called_per_run(given) else given
    )
    return _Loop(run, instructions)


async def _run_team(run: Run) -> Ending:
    """Run the agents of a team, one after the other, each from the handoff that it got to the one that it makes."""
    if run.transcript.handoffs and run.state.pending_handoff is None:
        # The process may have died between the handoff and what follows it.
        await show_history(run)
    async with open_stages(run) as stages:
        loop = await _loop_of(run)
        ending = await loop.run(await stages.open(run))
        while isinstance(ending, HandoffRecord):
            await become(run, ending)
            loop = await _loop_of(run)
            ending = await loop.run(await stages.open(run), begins=False)
    return ending


def _end_of(ending: Ending | HandoffRecord) -> Ending:
    """The end of a run without a team."""
    if isinstance(ending, HandoffRecord):
        # The run that it resumes had one.
        raise UsageError(
            f"the conversation was handed to {ending.to!r}: resume the run of the team, Team(...).resume()"
        )
    return ending


class _Loop:
    __slots__ = (
        "_choice",
        "_chooses",
        "_compactor",
        "_context",
        "_deferred_of",
        "_each_turn",
        "_has_offers",
        "_instructions",
        "_is_done",
        "_listed",
        "_output",
        "_output_spec",
        "_reminders",
        "_repeats",
        "_run",
        "_specs",
        "_specs_of",
        "_tools",
    )

    def __init__(self, run: Run, instructions: str | EachTurn) -> None:
        self._run = run
        self._each_turn = instructions if isinstance(instructions, EachTurn) else None
        """Gives the rest of the instructions, for each turn anew."""
        self._instructions = [instructions] if isinstance(instructions, str) and instructions else []
        type_ = run.config.output_type
        self._output: OutputType = TEXT if type_ is str else output_of(run.config)
        self._output_spec: ToolSpec | None = None
        if self._output is not TEXT and (schema := self._output.schema) is not None:
            self._output_spec = ToolSpec(self._output.name, "The final answer.", dict(schema))
        self._repeats = RepeatDetector(run.meter.limits.identical_turns)
        self._reminders = run.state.output_retries
        """How often the model was asked again, since its answer was empty or no valid output."""
        self._compactor = Compactor(run)
        self._is_done = False
        """Whether the model has answered, and only background runs keep the run from its end."""
        self._context = ContextTeller(run) if run.config.context else None
        self._tools: dict[str, Tool] = {}
        """The tools that the model can call in this turn, by name. Not changed, since a toolset may own it."""
        self._listed: Mapping[str, Tool] = self._tools
        """The tools that there are, whether or not they are offered in this turn."""
        self._deferred_of: list[Tool] = []
        """The tools of which it is decided whether they are deferred."""
        self._has_offers = False
        """Whether one of them is offered only in some turns."""
        self._chooses = run.config.choose_model is not None
        """Whether the model of a turn may be another than the agent's."""
        self._choice: ModelChoice | None = None
        """The model of this turn, if it is chosen."""
        self._specs: tuple[ToolSpec, ...] = ()
        self._specs_of = self._tools
        """The tools that the specs are of."""

    async def run(self, tools: ToolList, *, begins: bool = True) -> Ending | HandoffRecord:
        """Take turns until the run ends, or the agent hands the conversation off.

        Args:
          begins: whether to submit the prompt, or to resume; an agent that got the conversation continues it.
        """
        await self._start_session(is_handoff=not begins)
        if self._run.task is not None:
            return await self._compact(tools, self._run.task)
        # Listed before the prompt is committed: where there are no tools, there is no run.
        listed = await tools.list()
        warn_of_unmatched(self._run, listed)
        self._instructions.extend(tools.instructions)
        if begins and self._run.state.background:
            await resume_background(self._run, listed)
        if not self._run.is_model_chosen:
            self._chooses = self._chooses or any(tool.model is not None for tool in listed.values())
        else:
            self._chooses = False
        ending = await self._begin(tools) if begins else None
        while ending is None:
            if self._run.background is not None and self._run.background.has_unreported:
                await self._run.background.report(wait=self._is_done)
                self._is_done = False
            if self._run.joined is not None or self._run.transcript.unreported:
                report_others(self._run)
            if self._run.root.pauses is not None:
                # Before the messages are read that people may send meanwhile.
                await hold(self._run)
            if self._run.mailbox.steering:
                ending = await self._submit_steering()
            if self._chooses and ending is None:
                self._choice = await choose_model(self._run, self._listed or listed, turn=self._run.state.next_turn)
            if self._run.meter.counts_cost:
                check_price(self._run, self._choice)
            if ending is None and (reached := self._run.meter.before_request()) is not None:
                ending = await self._check_limits(reached)
            ending = ending or await self._take_turn(tools)
        return ending

    async def _compact(self, tools: ToolList, task: CompactionTask) -> Ending:
        """Shorten the conversation, and do nothing else."""
        run = self._run
        await self._list(tools)
        self._instructions.extend(tools.instructions)
        async with _Turn(run) as turn:
            each_turn = self._each_turn
            parts = self._instructions if each_turn is None else await self._instructions_now(each_turn)
            instructions, specs = "\n\n".join(parts), self._tool_specs()
            request = ModelRequest(self._messages(), instructions, specs, None, run.settings)
            result = await self._compactor.on_request(request, task)
            turn.reason = "final"
        return Ending("completed", output=result)

    async def _list(self, tools: ToolList) -> None:
        """List the tools that the model can call in this turn."""
        run, listed = self._run, await tools.list()
        if listed is not self._listed:
            self._listed = listed
            special = [tool for tool in listed.values() if tool.offered is not None or tool.deferred]
            self._has_offers = any(tool.offered is not None for tool in special)
            if special or run.config.deferred is not None or run.deferred is not None:
                self._defer([*listed.values()])
        if self._has_offers:
            listed = await offered_tools(run, listed, turn=run.state.turn)
        if run.deferred is not None:
            listed = run.deferred.with_finder(listed)
        self._tools = with_reader(run, listed) if run.transcript.has_long_results else listed

    def _defer(self, listed: list[Tool]) -> None:
        """Decide which of the tools are deferred; again only when the tools change, since it counts their tokens."""
        if listed != self._deferred_of:
            self._deferred_of = listed
            self._run.deferred = defer_tools(self._run.config, self._listed, self._run.deferred)

    async def _instructions_now(self, each_turn: EachTurn) -> list[str]:
        """The instructions of this turn. Those that change come last, for the sake of caches."""
        text = await instructions_for(self._run, each_turn.function, turn=self._run.state.turn)
        return [*self._instructions, text] if text else list(self._instructions)

    def _tools_in_use(self) -> dict[str, Tool]:
        """The tools of the calls that had begun, or asked a person, before this run was resumed.

        They were offered then, and such a call is finished even if its tool is not offered any more.
        """
        used: dict[str, Tool] = {}
        for call in self._run.state.calls.values():
            if call.started or call.parked or call.questions.records:
                tool = self._listed.get(call.name)
                if tool is not None:
                    used[call.name] = tool
        return used

    # ---------------------------------------------------------------------- the beginning

    async def _start_session(self, *, is_handoff: bool) -> None:
        run = self._run
        for hook in run.hooks.at("session_start"):
            begins: Begins = "continue" if len(run.transcript) else "new"
            if is_handoff:
                begins = "handoff"
            elif run.state.is_prompted:
                begins = "resume"
            verdict = await run.hooks.ask(hook, SessionStart(run.source, run.prompt, begins))
            if isinstance(verdict, Context):
                self._instructions.append(verdict.text)

    async def _begin(self, tools: ToolList) -> Ending | HandoffRecord | None:
        """Submit the prompt, or continue the run that this one resumes."""
        run, state = self._run, self._run.state
        if not state.is_prompted:
            return await self._submit("user_prompt_submit", (run.prompt,))
        run.meter.restore(
            turns=state.turn,
            requests=state.requests,
            usage=state.usage,
            tool_calls=state.tool_calls,
            allowed=state.allowed,
        )
        if state.message is not None:
            return await self._resume_turn(state.message, tools)
        if state.blocked is not None:
            return Ending("blocked", state.blocked)
        # The previous run may have had its answer, and ended before it could emit the end.
        answer = answer_at_the_end(run.transcript.messages, self._output)
        if answer is None:
            return None
        if run.background is not None and run.background.has_unreported:
            self._is_done = True
            return None
        last = run.transcript.messages[-1]
        assert isinstance(last, AssistantMessage)
        ending = await self._checked(last, answer)
        return ending if ending is None else self._handed_off(ending)

    async def _resume_turn(self, message: AssistantMessage, tools: ToolList) -> Ending | HandoffRecord | None:
        """Continue the calls of a turn that was parked, or cut off."""
        async with _Turn(self._run) as turn:
            await self._list(tools)
            if self._has_offers:
                self._tools = {**self._tools, **self._tools_in_use()}
            # A run that ends before the calls begin leaves the turn as it was, to be resumed.
            await trio.lowlevel.checkpoint_if_cancelled()
            return await self._call_tools(turn, message, message.calls, is_resumed=True)

    # ----------------------------------------------------------------- messages of people

    async def _submit_steering(self) -> Ending | None:
        """Submit the steering messages. A hook's refusal ends the run; after an error they count as not read."""
        run = self._run
        messages = run.mailbox.take_steering()
        try:
            return await self._submit("user_steering_messages_submit", messages)
        except BaseException:
            run.mailbox.put_back_steering(messages)
            raise

    async def _submit_follow_up(self) -> Ending | None:
        """Submit the next follow-up. A hook's refusal ends the run; after an error the message counts as not read."""
        run = self._run
        messages = run.mailbox.take_follow_up()
        try:
            return await self._submit("user_followup_submit", messages)
        except BaseException:
            run.mailbox.put_back_follow_up(messages)
            raise

    async def _submit(
        self,
        point: Literal["user_prompt_submit", "user_steering_messages_submit", "user_followup_submit"],
        messages: tuple[UserMessage, ...],
    ) -> Ending | None:
        """Take in ``messages``, with what hooks add to the last of them; or give the end that they put to the run."""
        run = self._run
        if run.redactor is not None:
            messages = tuple([run.redactor.value(message) for message in messages])
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

    # -------------------------------------------------------------------------- a turn

    async def _check_limits(self, reached: Exceeded | None) -> Ending | None:
        """Another request goes past the limit ``reached``: a person may let it, or the run ends."""
        # A loop: a person may let the run go past one limit and not past the next.
        while reached is not None:
            if not await self._may_go_on(reached):
                return _limit(reached)
            reached = self._run.meter.before_request()
        return None

    async def _may_go_on(self, reached: Exceeded) -> bool:
        """Ask whether the run may go past a limit."""
        run, limit, used, allowed = self._run, reached.limit, reached.used, reached.allowed
        if run.hooks.at("on_max_iterations"):
            await run.hooks.notify("on_max_iterations", OnMaxIterations(run.source, limit, used, allowed))
        question = ContinueRequested(
            run.source, 0, id="", limit=limit, used=used, allowed=allowed, unpriced=reached.unpriced
        )
        answer = await ask(run, AskedQuestion(question))
        if not isinstance(answer, Approve):
            return False
        reached.meter.extend(reached)
        record_raised_limit(run, reached)
        if run.hooks.at("on_session_resume"):
            raised = reached.meter.allowed.get(limit, allowed)
            await run.hooks.notify("on_session_resume", OnSessionResume(run.source, limit, allowed, raised))
        return True

    async def _take_turn(self, tools: ToolList) -> Ending | HandoffRecord | None:
        """Ask the model, and act on its response."""
        run = self._run
        # No turn may begin once the run is cancelled, even if user code swallowed the cancellation.
        await trio.lowlevel.checkpoint_if_cancelled()
        # At once, and not when the request goes out: while hooks wait, children side by side would all pass. The state
        # counts it with `TurnStarted`.
        run.meter.count_request()
        async with _Turn(run) as turn:
            await self._list(tools)
            request = await self._request()
            try:
                message = await self._ask_model(request)
            except RequestRefusedError as error:
                turn.reason = "blocked"
                return Ending("blocked", str(error))
            match self._next_step(message):
                case CallTools(calls=calls):
                    return await self._call_tools(turn, message, calls)
                case AskAgain(messages=messages):
                    self._reminders += 1
                    commit(run, messages)
                    turn.reason = "output_retry"
                    return None
                case Proceed(messages=messages, reason=reason):
                    commit(run, messages)
                    turn.reason = reason
                    return None
                case Answered() as answer:
                    # Before the validators are called: whatever becomes of them, the response is not lost.
                    commit(run, (message,))
                    ending = await self._checked(message, answer)
                    if ending is None:
                        turn.reason = "output_retry"
                        return None
                    return await self._stop(turn, message, ending)

    async def _checked(self, message: AssistantMessage, answer: Answered) -> Ending | None:
        """The end of the run with an answer that is committed, or ``None`` if a validator has the model try again."""
        run, output = self._run, answer.output
        if run.config.output_validators:
            attempt = self._reminders + 1
            try:
                output = await validated(run, message, output, attempt=attempt)
            except Retry as refusal:
                attempts = run.meter.limits.output_attempts
                again = after_refused_output(
                    message, problem_of(refusal), self._output, attempt=attempt, attempts=attempts
                )
                self._reminders = attempt
                commit(run, again.messages)
                return None
        return Ending("completed", answer.detail, output)

    def _next_step(self, message: AssistantMessage) -> Next:
        run = self._run
        attempts = run.meter.limits.output_attempts
        try:
            return after_response(
                message,
                self._output,
                before=run.transcript.messages,
                attempt=self._reminders + 1,
                attempts=attempts,
            )
        except Exception:
            # The response is part of the transcript even if it is no answer. A refusal may come with calls.
            if message.parts:
                commit(run, close_turn(message, {}, ()))
            raise

    # ---------------------------------------------------------------------- the response

    async def _request(self) -> ModelRequest:
        """Build the request to the model."""
        run = self._run
        each_turn = self._each_turn
        instructions = list(self._instructions) if each_turn is None else await self._instructions_now(each_turn)
        for hook in run.hooks.at("turn_start"):
            verdict = await run.hooks.ask(hook, TurnStart(run.source, run.state.turn))
            if isinstance(verdict, Context):
                instructions.append(verdict.text)
        context = self._context
        if context is not None:
            # After the conversation so far, which the provider's cache knows.
            await context.ask()
            context.tell()
        request = ModelRequest(
            self._messages(),
            "\n\n".join(instructions),
            self._tool_specs(),
            self._output_spec,
            run.settings if self._choice is None else settings_of(run, self._choice),
        )
        run.transcript.front = (request.instructions, request.tools)
        self._compactor.begin_request()
        compaction = self._compactor.compaction
        if compaction is None:
            return request
        await self._compactor.before_request(request, compaction)
        if context is not None:
            # A summary may have taken the place of what was told.
            context.tell()
        return self._with_less(request)

    def _tool_specs(self) -> tuple[ToolSpec, ...]:
        """The specs of the tools; built again only when the tools change."""
        if self._tools is not self._specs_of:
            # Toolsets list theirs anew in each turn, and mostly the same.
            if [*self._tools.values()] != [*self._specs_of.values()]:
                deferred = self._run.deferred
                if deferred is None:
                    self._specs = tuple([tool.spec for tool in self._tools.values()])
                else:
                    self._specs = deferred.specs_of(self._tools)
            self._specs_of = self._tools
        return self._specs

    def _messages(self) -> Sequence[Message]:
        """The messages that the model reads."""
        run = self._run
        return run.transcript.view if run.deferred is None else run.deferred.messages(run.transcript)

    async def _ask_model(self, request: ModelRequest) -> AssistantMessage:
        """Ask the model for its response."""
        run = self._run
        try:
            chosen = None if self._choice is None else self._choice.model
            message = await ask_model(run, request, shorten=partial(self._shortened, request), chosen=chosen)
        except ModelContextOverflowError as error:
            refusal = self._compactor.refusal(request, error)
            if refusal is error:
                raise
            raise refusal from error
        flaw = flaw_of(message, run.transcript.messages)
        if flaw:
            run.warn(flaw, FLAWS[flaw])
        return message

    async def _shortened(self, request: ModelRequest) -> ModelRequest | None:
        """``request`` with less in it, after it was refused as too long; ``None`` if it cannot be shortened."""
        return self._with_less(request) if await self._compactor.after_overflow(request) else None

    def _with_less(self, request: ModelRequest) -> ModelRequest:
        """``request`` with the messages that are shown now, and with the tool that reads long results if need be."""
        if self._run.transcript.has_long_results:
            self._tools = with_reader(self._run, self._tools)
        return msgspec.structs.replace(request, messages=self._messages(), tools=self._tool_specs())

    async def _call_tools(
        self,
        turn: _Turn,
        message: AssistantMessage,
        asked: tuple[ToolCall, ...],
        *,
        is_resumed: bool = False,
    ) -> Ending | HandoffRecord | None:
        """Run the calls that were ``asked`` for. The turn is committed as a whole, however it ends; or it is parked."""
        run, state = self._run, self._run.state
        if not is_resumed:
            record_turn(run, message)
        # The calls of a resumed turn were counted when they began.
        is_counted = bool(state.calls or state.results)
        if run.offered is not None and not is_resumed:
            self._tools = {name: tool for name, tool in self._tools.items() if name in run.offered}
        if run.deferred is not None:
            run.deferred.tools = self._tools
        calls = Calls(run, asked, self._tools)
        try:
            ending = None
            if not is_counted and (reached := run.meter.before_tool_calls(len(asked))) is not None:
                ending = await self._check_call_limits(reached, len(asked))
            if ending is None and not is_resumed:
                ending = self._check_repeats(asked)
            if ending is not None:
                turn.reason = "limit"
                return ending
            if not is_counted:
                run.meter.count_tool_calls(len(asked))
            await calls.run_all()
        finally:
            if not run.root.questions.is_parked:
                commit(run, state.closing)
        if state.blocked is not None:
            turn.reason = "blocked"
            return Ending("blocked", state.blocked)
        turn.reason = "tool_calls"
        return state.pending_handoff

    async def _check_call_limits(self, reached: Exceeded | None, calls: int) -> Ending | None:
        """So many calls go past the limit ``reached``: a person may let them, or the run ends."""
        while reached is not None:
            if not await self._may_go_on(reached):
                return _limit(reached)
            reached = self._run.meter.before_tool_calls(calls)
        return None

    def _check_repeats(self, calls: tuple[ToolCall, ...]) -> Ending | None:
        """End the run if the model asks for the same calls again and again."""
        tools = self._tools
        for call in calls:
            if call.name not in tools or not tools[call.name].polling:
                break
        else:
            return None
        if not self._repeats.is_stuck(tuple([(call.name, call.arguments) for call in calls])):
            return None
        return Ending("limit", f"the model asked for the same calls {self._repeats.times} times in a row")

    async def _stop(self, turn: _Turn, message: AssistantMessage, ending: Ending) -> Ending | HandoffRecord | None:
        """End the run with its answer, which is committed, unless a hook or a message sends the agent on."""
        run = self._run
        turn.reason = "continued"
        if run.background is not None and run.background.has_unreported:
            # The model reads the reports of their ends before it can stop.
            self._is_done = True
            self._reminders = 0
            return None
        for hook in run.hooks.at("stop"):
            verdict = await run.hooks.ask(hook, StopRequested(run.source, message, run.continuations))
            if isinstance(verdict, Continue):
                run.continuations += 1
                self._reminders = 0
                commit(run, (UserMessage((Text(verdict.text),)),))
                return None
            if isinstance(verdict, Block):
                turn.reason = "blocked"
                return Ending("blocked", verdict.reason)
        if run.mailbox.steering:
            # The loop submits the message before the next request.
            self._reminders = 0
            return None
        if run.config.handoff_when_done is not None:
            return self._handed_off(ending)
        if run.mailbox.is_followed_up:
            self._reminders = 0
            refused = await self._submit_follow_up()
            if refused is not None:
                turn.reason = "blocked"
            return refused
        turn.reason = "final"
        return ending

    def _handed_off(self, ending: Ending) -> Ending | HandoffRecord:
        """``ending``, or the handoff that the agent makes when it has answered."""
        to = self._run.config.handoff_when_done
        return ending if to is None else hand_off_when_done(self._run, to)


def _limit(reached: Exceeded) -> Ending:
    return Ending("limit", in_words(reached))
