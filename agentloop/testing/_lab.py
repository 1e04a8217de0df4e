"""A laboratory for agents: recorded streams, fakes that fail on demand, and a record of their effects."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, cast

import msgspec
import trio

from agentloop._core.secrets import Redactor
from agentloop._runtime.log import CAPACITY
from agentloop._runtime.stream import Stream
from agentloop._runtime.tool_context import RunningContext
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import (
    AgentLoopError,
    AnswerError,
    ClockError,
    InternalError,
    ModelContextOverflowError,
    StreamStateError,
)
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    MessageCommitted,
    Question,
    QuestionAnswered,
    StreamEvent,
    StreamStopped,
)
from agentloop.hooks import Hook, Point
from agentloop.messages import AssistantMessage, Message, Prompt, ToolResult
from agentloop.models import ModelRequest, ModelSettings, Reply, Stop
from agentloop.outcome import QuestionHandler
from agentloop.questions import Accept, Answer, Approve
from agentloop.session import Session
from agentloop.testing._accounts import unsaved_ends, wrong_doors
from agentloop.testing._journal import JournalClient, SeamJournal
from agentloop.testing._recorded import compare_recorded, compare_under_fault
from agentloop.testing._shown import shown_error
from agentloop.testing._trace import Trace
from agentloop.testing._watch import Watch
from agentloop.testing.scripted import Response, play_response, says
from agentloop.testing.simulation import (
    Cancel,
    ClockRaise,
    Fault,
    InjectedFault,
    InjectedInterrupt,
    Interrupt,
    Outcome,
    SeamRaise,
    Sim,
)
from agentloop.testing.simulation.program import is_injected, takes, where_raised
from agentloop.testing.wellformed import event_problems
from agentloop.tools import JsonArguments, Tool

__all__ = ["AgentScenario", "Lab", "PlannedModel", "PlayScenario", "Recorded", "SeamModel", "echo"]


PROMPT = 15.0
"""Seconds that a stream may take to end once it is stopped: a few steps of a cleanup, each with its deadline."""
FEW = 30
EACH_CALL = 6
"""Events that may wait beyond `CAPACITY`: one for each task that posts at once and, when the stream is stopped, the end
of everything that is open, all of which is emitted at once."""


class Recorded:
    """A stream, and all that its reader saw of it.

    Attributes:
      events: as they were read.
      end: how reading ended; ``"left"`` also for a reader that was cancelled, or never began.
      client: the process that it runs in, where that can be killed.
    """

    def __init__(self, lab: Lab, name: str, stream: Stream, client: JournalClient | None = None) -> None:
        self._lab = lab
        self.name = name
        self.stream = stream
        self.client = client
        self.events: list[StreamEvent] = []
        self.end: Literal["left", "ended", "raised"] = "left"

    def __aiter__(self) -> Recorded:
        return self

    async def __anext__(self) -> StreamEvent:
        try:
            event = await self.stream.__anext__()
        except StopAsyncIteration:
            self.end = "ended"
            raise
        except AgentLoopError:
            self.end = "raised"
            raise
        except Exception as error:
            self._lab.watch.note(f"{self.name}: its reader got a bare {type(error).__name__}: {error}")
            raise
        self.events.append(event)
        self._check_memory()
        journal = self._lab.journal
        if journal is not None and self.stream._run.root.journal is not None:
            is_dead = self.client is not None and self.client.is_dead
            journal.check_delivered(self.name, self.stream._run.transcript.id, event, is_dead=is_dead)
        return event

    def _check_memory(self) -> None:
        run = self.stream._run
        if run.events is not None and run.events.unread > CAPACITY + FEW + EACH_CALL * run.meter.tool_calls:
            self._lab.watch.note(f"{self.name}: events pile up while its reader is slow")

    async def drain(self, *, answer: Callable[[Question], Answer | None] | None = None) -> None:
        """Read to the end, answering what ``answer`` has an answer for."""
        async for event in self:
            if answer is not None:
                self.reply(event, answer)

    def reply(self, event: StreamEvent, answer: Callable[[Question], Answer | None]) -> None:
        """Answer ``event``, if it is a question that ``answer`` has an answer for."""
        if isinstance(event, (ElicitationRequested, ApprovalRequested, ContinueRequested)):
            reply = answer(event)
            if reply is not None:
                for stream in wrong_doors(self._lab.watch.runs, event, reply):
                    self._lab.watch.note(f"{stream} takes an answer to {event.id}, a question of {event.stream}")
                self.answer(event.id, reply)

    def stop(self, detail: str = "") -> None:
        """Stop the stream. No tool may begin from now on."""
        self._lab.stops.append((self._lab.sim.steps, self.stream.id))
        self._lab.stopped_at.setdefault(f"stop:{self.name}", self._lab.sim.now)
        self.stream.stop(detail)

    def answer(self, id: str, answer: Answer) -> bool:
        """Answer a question; whether the answer was accepted. One that is not leaves the question as it was."""
        before = [question.id for question in self.stream.pending]
        try:
            self.stream.answer(id, answer)
        except AnswerError as error:
            if self._lab.trace is not None:
                self._lab.trace.add(f"the answer to {id} is refused: {shown_error(error)}")
            if before != [question.id for question in self.stream.pending]:
                self._lab.watch.note(f"an answer to {id} was refused, and closed questions: {error}")
            return False
        self._lab.accepted[id] = answer
        return True


class SeamModel:
    """A scripted model at whose every step the outside world may fail."""

    def __init__(self, lab: Lab, name: str, *script: Response | str) -> None:
        self._lab = lab
        self._script = [says(response) if isinstance(response, str) else response for response in script]
        self._next = 0
        self.name = name
        self.has_tool_search = False
        """Whether it loads deferred tools by itself, as the models of some providers do."""
        self.window: int | None = None
        """Characters of the messages that it takes at most; ``None`` if it takes any."""
        self.requests: list[ModelRequest] = []
        """The requests that it got, in order."""

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Give the next response; after the last one a plain one, or the last one again if it fails or hangs."""
        self.requests.append(request)
        if self._lab.trace is not None:
            self._lab.trace.asked(self.name, request)
        await self._lab.sim.seam(f"model:{self.name}")
        if self.window is not None and sum([len(msgspec.json.encode(each)) for each in request.messages]) > self.window:
            self._lab.watch.requests.overflowed()
            raise ModelContextOverflowError(model=self.name, status=400, body="too long")
        last = self._script[-1] if self._script else says("")
        after = last if last.error is not None or last.hangs else says("That is all.")
        response = self._script[self._next] if self._next < len(self._script) else after
        self._next += 1
        try:
            stop = await play_response(response, reply)
            await self._lab.sim.seam(f"model:{self.name}:stop")
        except BaseException as error:
            self._lab.watch.requests.broke_off()
            if isinstance(error, ModelContextOverflowError):
                self._lab.watch.requests.overflowed()
            raise
        self._lab.watch.requests.said(response)
        return stop


class PlannedModel(SeamModel):
    """A model that counts the responses in the transcript, and gives the next one, in any process."""

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Give the response that follows those which the request has."""
        self._next = sum(isinstance(message, AssistantMessage) for message in request.messages)
        return await super().respond(request, reply)


class Lab:
    """A simulated run of agents.

    Attributes:
      sim: the simulation, for scopes and seams.
      recorded: the root streams that were opened, in order.
      effects: what tools did to the world: the step, the stream, and a word.
      stops: the step, and the stream, of each call of ``Recorded.stop``.
      accepted: question id to the answer that was taken.
      received: the answer that each asker got, by the message that it asked with.
      errors: what got out of the streams' blocks.
      journal: where sessions are kept, if they are.
      given: question id to the answer with which a parked run was resumed.
      left: the step in which a root stream's block was left, by its id.
      stopped_at: the virtual time at which a stream was left, by its name, or stopped, by ``stop:`` and its name.
      counts: how often each tool call had an effect, by the root session and its key, and the tool's name.
      trace: what the run shows of itself, where that is recorded.
    """

    def __init__(self, sim: Sim, *, raises: bool = False) -> None:
        self.sim = sim
        self._raises = raises
        self._names: Counter[str] = Counter()
        # A child can be stopped by itself, by the name of its stream.
        self.watch = Watch(
            lambda child: sim.on_cancel(f"stop:{child.id}", child.stop), self._may_lose, self._saved, self._has_ended
        )
        self.watch.has_clock = not isinstance(sim.fault, ClockRaise)
        self.recorded: list[Recorded] = []
        self.effects: list[tuple[int, str, str]] = []
        self.stops: list[tuple[int, str]] = []
        self.accepted: dict[str, Answer] = {}
        self.received: dict[str, object] = {}
        self.errors: list[BaseException] = []
        self.journal: SeamJournal | None = None
        self.given: dict[str, Answer] = {}
        self.left: dict[str, int] = {}
        self.stopped_at: dict[str, float] = {}
        self._opened: dict[str, int] = {}
        """The step in which a stream was opened, by its name."""
        self.counts: Counter[tuple[str, str]] = Counter()
        self.trace: Trace | None = None

    def _may_lose(self) -> bool:
        journal = self.journal
        return journal is not None and (journal.has_failed or not journal.was_well)

    def _saved(self, root: str, session: str) -> list[Message]:
        """The messages of ``session`` that are saved in the journal of ``root``."""
        assert self.journal is not None
        events = self.journal.saved(root).events.values()
        return [event.message for event in events if isinstance(event, MessageCommitted) and event.session == session]

    def _has_ended(self, root: str, session: str, call_id: str) -> bool:
        """Whether the journal of ``root`` has the result of a call of ``session``."""
        return self.journal is not None and (session, call_id) in self.journal.saved(root).ended

    # --------------------------------------------------------------------------- streams

    @asynccontextmanager
    async def stream(
        self,
        agent: Agent[Any, Any],
        prompt: Prompt | None = "go",
        *,
        name: str = "A",
        session: Session | None = None,
        on_question: QuestionHandler | Literal["reader", "decline", "park"] = "reader",
        client: JournalClient | None = None,
        resumes: Mapping[str, Answer] | None = None,
        deps: Any = None,
        settings: ModelSettings | None = None,
    ) -> AsyncGenerator[Recorded]:
        """Open a recorded stream. A cancel may strike its consumer (``A``), or stop it (``stop:A``).

        Args:
          name: the stream's name in reports; ``A#2`` for the second stream that is named ``A``.
          session: the session to continue; a new one if not given.
          on_question, deps, settings: as for `Agent.stream`.
          client: the process that it runs in, where that can be killed.
          resumes: the answers with which to resume the session's unfinished run, instead of a prompt.
        """
        self._names[name] += 1
        if self._names[name] > 1:
            name = f"{name}#{self._names[name]}"
        session = Session(f"session-{name}") if session is None else session
        self._opened[name] = self.sim.steps
        with self.sim.scope(name):
            try:
                if resumes is None:
                    opening = agent.stream(
                        prompt, session=session, on_question=on_question, deps=deps, settings=settings
                    )
                else:
                    opening = agent.resume_stream(
                        session, resumes, on_question=on_question, deps=deps, settings=settings
                    )
                async with opening as stream:
                    self.given.update(resumes or {})
                    recorded = Recorded(self, name, stream, client)
                    self.recorded.append(recorded)
                    self.sim.on_cancel(f"stop:{name}", stream.stop)
                    try:
                        yield recorded
                    finally:
                        if recorded.end == "left":
                            self.stopped_at.setdefault(name, self.sim.now)
            except AgentLoopError as error:
                self.errors.append(error)
                if self.trace is not None:
                    self.trace.add(f"the block of {name} raises {shown_error(error)}")
                if isinstance(error, InternalError):
                    self.watch.note(f"{name}: a bug in the runtime: {error.__cause__!r}")
                if self._raises or name not in [reader.name for reader in self.recorded]:
                    raise
            finally:
                self._check_latency(name)
                for reader in self.recorded:
                    if reader.name == name:
                        self.left.setdefault(reader.stream.id, self.sim.steps)
        if name not in [reader.name for reader in self.recorded]:
            cancelled = InjectedFault(f"stream {name} was cancelled before it was open")
            raise StreamStateError(str(cancelled)) from cancelled

    def _check_latency(self, name: str) -> None:
        """A stream that is stopped, cancelled, interrupted or left ends in time."""
        fault = self.sim.fault
        if self.sim.fired_at is not None and isinstance(fault, (Cancel, Interrupt)):
            struck = name if isinstance(fault, Interrupt) else fault.scope
            if struck in (name, f"stop:{name}") and self._opened.get(name, math.inf) < fault.step:
                self.stopped_at.setdefault(struck, self.sim.fired_at)
        now = self.sim.now
        # A reader that is slow delays the end of its block, but not the end of a stream that is stopped.
        ended = [self.watch.ended_at.get(each.stream.id, now) for each in self.recorded if each.name == name]
        stopped = self.stopped_at.get(f"stop:{name}", now)
        late = max(now - self.stopped_at.get(name, now), max(ended, default=now) - stopped)
        if late > PROMPT:
            self.watch.note(f"{name} ended {late:g} s after it was stopped")

    # ----------------------------------------------------------------------------- fakes

    def model(self, *script: Response | str, name: str = "model") -> SeamModel:
        """A model with a script, and a seam before and after each response."""
        return SeamModel(self, name, *script)

    def planned(self, *script: Response | str, name: str = "model") -> PlannedModel:
        """A model that repeats a response that was lost."""
        return PlannedModel(self, name, *script)

    def effect(self, context: ToolContext[Any], effect: str, *, may_run_again: bool = False) -> None:
        """Note that a tool did something to the world just now."""
        self.effects.append((self.sim.steps, context.source.stream, effect))
        run = cast("RunningContext", context)._run
        root = run.root
        self.counts[f"{root.session.id}: {context.idempotency_key}", effect] += 1
        if self.journal is not None and root.journal is not None:
            stream, call = context.source.stream, context.call_id
            self.journal.check_effect(root.session.id, stream, call, may_run_again=may_run_again)
            for end in unsaved_ends(run, call):
                self.watch.note(f"{effect} of {stream} begins before the end of its question is saved: {end}")
            if any(each.stream._run.root is root and each.client and each.client.is_dead for each in self.recorded):
                self.watch.note(f"{effect} of {stream} begins, though its process is dead")

    def tool(
        self, name: str, body: Callable[[ToolContext[Any]], Awaitable[object]] | None = None, **options: Any
    ) -> Tool:
        """A tool that ignores its arguments: it has an effect, passes a seam, and does ``body``."""

        async def run(context: ToolContext[Any], **_arguments: object) -> object:
            self.effect(context, name, may_run_again=made.read_only and made.may_run_again)
            result: object = "cancelled by itself"
            with self.sim.scope(f"tool:{context.source.stream}:{context.call_id}"):
                await self.sim.seam(f"tool:{name}")
                result = "done" if body is None else await body(context)
            if isinstance(result, str):
                self.watch.requests.returned[context.source.stream, context.call_id] = result
            return result

        made = self._made(name, run, options)
        return made

    def bare(self, name: str, body: Callable[[ToolContext[Any]], Awaitable[object]], **options: Any) -> Tool:
        """A tool that ignores its arguments, and only does ``body``."""

        # By place: the runtime passes the context by name, and each body calls it as it likes.
        async def run(context: ToolContext[Any], **_arguments: object) -> object:
            return await body(context)

        return self._made(name, run, options)

    def asker(self, name: str, *, patience: float = float("inf"), **options: Any) -> Tool:
        """A tool that asks the user for its own name, and returns the answer.

        Args:
          patience: seconds after which the tool itself gives up, and continues without an answer.
        """

        async def run(context: ToolContext[Any], **_arguments: object) -> object:
            # Not the stream's id: a call that is made again, in another stream, asks the same.
            message = f"{name} of {context.source.session}"
            answer: object = "nothing, as it gave up"
            with trio.move_on_after(patience):
                answer = await context.ask(message, TAG_FORM)
            # No checkpoint in between: an accepted answer is noted also if this task is cancelled now.
            self.received[message] = answer
            root = cast("RunningContext", context)._run.root
            if self.journal is not None and root.journal is not None:
                self.journal.check_answered(root.session.id, message, answer)
            await trio.lowlevel.checkpoint()
            return repr(answer)

        return self._made(name, run, options)

    def _made(self, name: str, run: Callable[..., Awaitable[object]], options: dict[str, Any]) -> Tool:
        async def traced(context: ToolContext[Any], **arguments: object) -> object:
            call = context.source.stream, context.call_id
            self._check_begin(context, made)
            self.watch.working.append(call)
            if self.trace is not None:
                self.trace.call(name, context, arguments)
            try:
                result = await run(context, **arguments)
            except BaseException as error:
                if self.trace is not None:
                    self.trace.result(context, error)
                raise
            finally:
                self.watch.working.remove(call)
            if self.trace is not None:
                self.trace.result(context, result)
            return result

        # Without `@tool`: reading the signature would take longer than everything that the tool does.
        made = Tool(
            name=name, description=name, function=traced, arguments=NO_ARGUMENTS, context_name="context", **options
        )
        return made

    def _check_begin(self, context: ToolContext[Any], tool: Tool) -> None:
        """A tool begins: the journal knows it, no result of the call is saved, and its approval is."""
        root = cast("RunningContext", context)._run.root
        is_harmless = tool.read_only and tool.may_run_again
        if self.journal is not None and root.journal is not None and not (is_harmless or tool.records_start):
            stream, call = context.source.stream, context.call_id
            self.journal.check_effect(root.session.id, stream, call, may_run_again=False)

    def hook(self, point: Point[Any, Any], verdict: object = None, **options: Any) -> Hook:
        """A hook that passes a seam, and returns ``verdict``."""

        async def run(_value: object) -> Any:
            await self.sim.seam(f"hook:{point.name}")
            return verdict

        return point(**options)(run)

    def handler(self, answer: Callable[[Question], Answer | None]) -> QuestionHandler:
        """A handler that passes a seam, and gives ``answer`` of the question."""

        async def handle(question: Question) -> Answer | None:
            await self.sim.seam("handler")
            return answer(question)

        return handle

    # ---------------------------------------------------------------------------- checks

    def problems(self) -> list[str]:
        """Every broken promise that shows, a sentence each."""
        problems = list(self.watch.check())
        for recorded in self.recorded:
            problems.extend(self._reader_problems(recorded))
        problems.extend(self._answer_problems())
        problems.extend(self._given_problems())
        problems.extend(self._effect_problems())
        problems.extend(self._claim_problems())
        return problems

    def _claim_problems(self) -> list[str]:
        """No result says of a call that it did not run, though it had an effect."""
        effects = {key for key, _ in self.counts}
        problems: list[str] = []
        for run in self.watch.runs:
            if run.root.journal is not None:
                # Until it is resumed, a parked turn is closed as if its calls were never made.
                continue
            root, own = run.root.session.id, run.transcript.id
            for message in run.transcript.messages:
                if isinstance(message, ToolResult) and "did not run" in message.text:
                    key = f"{own}#{message.call_id}" if own == root else f"{root}:{own}#{message.call_id}"
                    if f"{root}: {key}" in effects:
                        problems.append(f"{run.source.stream} reads that {message.call_id} did not run, and it did")
        return problems

    def _reader_problems(self, recorded: Recorded) -> list[str]:
        complete = recorded.end != "left"
        problems = (
            [f"{recorded.name}: {problem}" for problem in event_problems(recorded.events, complete=complete)]
            if (recorded.events or complete)
            else []
        )
        outcome = recorded.stream._run.outcome
        last = recorded.events[-1] if recorded.events else None
        if outcome is None:
            return [*problems, f"{recorded.name}: no outcome"]
        if isinstance(last, StreamStopped) and last.reason != outcome.reason:
            problems.append(f"{recorded.name}: told {last.reason}, but the outcome is {outcome.reason}")
        if recorded.end == "ended" and outcome.reason == "failed":
            problems.append(f"{recorded.name}: it failed, but its reader's loop ended as if all were well")
        if recorded.end == "raised" and outcome.reason != "failed":
            problems.append(f"{recorded.name}: its reader's loop raised, but the outcome is {outcome.reason}")
        return problems

    def _answer_problems(self) -> list[str]:
        """An answer reaches exactly the question that it names."""
        problems: list[str] = []
        asked: dict[str, str] = {}
        answered: dict[str, Answer] = {}
        for recorded in self.recorded:
            for event in recorded.events:
                if isinstance(event, ElicitationRequested):
                    asked[event.id] = event.message
                elif isinstance(event, QuestionAnswered) and not (
                    # To approve what a rule has approved, with whichever words, is no error and changes nothing.
                    event.by == "rule" and isinstance(self.accepted.get(event.id), Approve)
                ):
                    answered[event.id] = _as_given(recorded, event.answer)
        for id, answer in self.accepted.items():
            if self._may_lose() and asked.get(id) not in self.received:
                # The store failed, so the answer may be lost.
                continue
            if id in asked and isinstance(answer, Accept) and self.received.get(asked[id]) != answer:
                got = self.received.get(asked[id])
                problems.append(f"the answer to {id} ({asked[id]}) was accepted, but its asker was told {got!r}")
        for id, answer_read in answered.items():
            if id in self.accepted and answer_read not in (self.accepted[id], self._given_anew(id)):
                problems.append(f"question {id} was answered with {self.accepted[id]!r}, but {answer_read!r} was told")
        return problems

    def _given_problems(self) -> list[str]:
        """The saved answer is the one that was given, and its asker got it, whenever it was given."""
        problems = [
            f"{message!r} was answered with what {answer.content['tag']!r} had been given"
            for message, answer in self.received.items()
            if isinstance(answer, Accept) and answer.content.get("tag", message) != message
        ]
        return problems + [
            f"question {event.id} was given {self.given[event.id]!r}, but got {event.answer!r}"
            for recorded in self.recorded
            for event in recorded.events
            if isinstance(event, QuestionAnswered)
            and _without_secrets(self.given.get(event.id, event.answer)) != _without_secrets(event.answer)
            and not (self._given_anew(event.id) is not None and self.accepted.get(event.id) == event.answer)
        ]

    def _given_anew(self, id: str) -> Answer | None:
        """The answer that a later process gave, where a fault has lost the first one before it was saved."""
        return None if self.sim.injection is None else self.given.get(id)

    def _effect_problems(self) -> list[str]:
        """No new side effect begins after a cancel."""
        fault = self.sim.fault
        stops = list(self.stops)
        if self.sim.fired and isinstance(fault, Cancel):
            name = fault.scope.removeprefix("stop:")
            # The cancel strikes at the end of its step: an effect that begins in the next step is too late.
            ids = [recorded.stream.id for recorded in self.recorded if recorded.name == name]
            stops += [(fault.step - 1, id) for id in ids or [name]]
        return [
            f"{effect} of {stream} began in step {step}, after {stopped} was stopped in step {stop}"
            for step, stream, effect in self.effects
            for stop, stopped in stops
            # A child's id begins with its parent's.
            # A stream of which nothing was saved may have left its id to a stream in another process; and a child of a
            # parked one is resumed under an id that begins so, too.
            if stop < step <= self._left(stopped) and (stream == stopped or stream.startswith(f"{stopped}."))
        ]

    def _left(self, stream: str) -> float:
        """The step in which the block of ``stream``, or of the root stream around it, was left."""
        return min((step for id, step in self.left.items() if f"{stream}.".startswith(f"{id}.")), default=math.inf)


NO_ARGUMENTS = JsonArguments({"type": "object", "properties": {}})
TAG_FORM = {"type": "object", "properties": {"tag": {"type": "string"}}, "required": ["tag"]}


def echo(question: Question) -> Answer:
    """Answer an `Lab.asker` with its own message, and approve everything else."""
    if isinstance(question, ElicitationRequested):
        return Accept({"tag": question.message} if question.url is None else {})
    return Approve()


class AgentScenario:
    """A scenario of agents. Subclass it, or give it a function.

    Args:
      name: one word, with which its tokens begin.
      play: does it, with a `Lab`.
      expect: what must hold where nothing was injected.
    """

    def __init__(
        self,
        name: str,
        play: Callable[[Lab], Awaitable[None]],
        expect: Callable[[Lab], None] | None = None,
    ) -> None:
        self.name = name
        self._play = play
        self._expect = expect
        self.lab: Lab | None = None
        self.recorded: Sequence[str] | None = None
        """The recorded trace, if there is one to compare with."""
        self.recorded_faults: Mapping[str, str] = {}
        """How the run came out with some faults, by the fault. A line that is empty is not compared."""

    async def run(self, sim: Sim, /) -> None:
        """Play it, watched."""
        self.lab = self._make_lab(sim)
        sim.watch_clock(_is_runtime)
        with self.lab.watch.on(), self._traced(self.lab):
            await self._play(self.lab)

    @contextmanager
    def _traced(self, lab: Lab) -> Generator[None]:
        """Record the run, if it has a recording to compare with, and the usual order of tasks."""
        fault = lab.sim.fault
        is_compared = self.recorded is not None if fault is None else str(fault) in self.recorded_faults
        if not is_compared or lab.sim.granularity != "batch":
            yield
            return
        lab.trace = Trace()
        with lab.trace.on():
            yield

    def check(self, sim: Sim, outcome: Outcome, /) -> None:
        """Check every guarantee that can be seen from outside; without a fault, also what the scenario is about."""
        lab = self.lab
        assert lab is not None
        problems = lab.problems()
        error = outcome.error
        if sim.fired and _is_interrupt(sim.fault) and not any(isinstance(e, InjectedInterrupt) for e in _leaves(error)):
            problems.append(f"Ctrl-C is lost: {error!r} got out of the scenario")
        if error is not None and not self._is_excused(error, sim):
            problems.append(f"{type(error).__name__} got out of the scenario: {error}{self._where(error)}")
        if problems:
            # No `assert`: pytest would add the list once more.
            raise AssertionError(_report(problems, lab))
        if not sim.fired and self._expect is not None:
            self._expect(lab)
        if lab.trace is None or sim.picks:
            return
        if sim.fault is None and self.recorded is not None:
            compare_recorded(self.name, self.recorded, lab.trace.close())
        elif line := self.recorded_faults.get(str(sim.fault)):
            compare_under_fault(self.name, str(sim.fault), line, lab.trace.brief())

    def _make_lab(self, sim: Sim) -> Lab:
        return Lab(sim)

    def _is_excused(self, error: BaseException, sim: Sim) -> bool:
        return _is_injected(error)

    def _where(self, error: BaseException) -> str:
        return ""


class PlayScenario(AgentScenario):
    """A play of somebody else: whatever it raises by itself is reported.

    Args:
      play: an async function of a `Lab`, or of nothing.
      replays_with: what to call to run a case again, with ``{token!r}`` in the place of its token.
    """

    def __init__(
        self, name: str, play: Callable[..., Awaitable[object]], expect: Callable[[Lab], None] | None, replays_with: str
    ) -> None:
        async def played(lab: Lab) -> None:
            # Around the play too: the streams that it opens by itself have no scope that a fault could name.
            with lab.sim.scope("main"):
                await (play(lab) if takes(play, "lab") else play())

        super().__init__(name, played, expect)
        self._replays_with = replays_with

    async def run(self, sim: Sim, /) -> None:
        """Play it, watched."""
        sim.replays_with = self._replays_with
        await super().run(sim)

    def _make_lab(self, sim: Sim) -> Lab:
        lab = Lab(sim, raises=True)
        # The models of a play may be any.
        lab.watch.requests.is_kept = False
        return lab

    def _is_excused(self, error: BaseException, sim: Sim) -> bool:
        if isinstance(error, BaseExceptionGroup):
            inner: tuple[BaseException, ...] = cast("BaseExceptionGroup[BaseException]", error).exceptions
            return all(self._is_excused(each, sim) for each in inner)
        # A run that a fault has stopped has no result, takes no answers, and so on: the play may find out by an error.
        is_told = sim.fired and sim.fault is not None and isinstance(error, AgentLoopError)
        return is_injected(error, (InjectedFault, InjectedInterrupt)) or (
            is_told and not isinstance(error, InternalError)
        )

    def _where(self, error: BaseException) -> str:
        return where_raised(error)


def _is_interrupt(fault: Fault | None) -> bool:
    return isinstance(fault, Interrupt) or (isinstance(fault, SeamRaise) and fault.exc is InjectedInterrupt)


def _leaves(error: BaseException | None) -> list[BaseException]:
    """The error, or the errors in it, if it is a group."""
    if isinstance(error, BaseExceptionGroup):
        inner: tuple[BaseException, ...] = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return [leaf for each in inner for leaf in _leaves(each)]
    return [] if error is None else [error]


def _is_injected(error: BaseException) -> bool:
    """Whether the error that left a scenario is the injected one. A stream does not open without the time."""
    if isinstance(error, BaseExceptionGroup):
        inner: tuple[BaseException, ...] = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return all(map(_is_injected, inner))
    return isinstance(error.__cause__ if isinstance(error, ClockError) else error, (InjectedFault, InjectedInterrupt))


def _is_runtime(module: str) -> bool:
    return module.startswith("agentloop.") and not module.startswith("agentloop.testing.")


def _report(problems: Sequence[str], lab: Lab) -> str:
    lines = ["these promises were broken:", *(f"  - {problem}" for problem in problems)]
    for recorded in lab.recorded:
        lines.append(f"the last events that {recorded.name} read ({recorded.end}):")
        lines.extend(f"    {event}" for event in recorded.events[-12:])
    return "\n".join(lines)


def _without_secrets(answer: Answer) -> str:
    """``answer`` in words. Events have placeholders where a person gave a secret."""
    return re.sub(r"\[secret:[^]]+\]|AKIA[A-Z0-9]{16}", "[secret]", repr(answer))


def _as_given(recorded: Recorded, answer: Answer) -> Answer:
    """``answer``, of an event, as it was given: a run that redacts shows placeholders."""
    secrets = recorded.stream._run.root.session.secrets
    if secrets is None or not isinstance(answer, Accept):
        return answer
    return Accept(Redactor(secrets).put_back(answer.content))
