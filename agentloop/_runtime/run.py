"""A run: its parts, and the messages and facts that it commits and records.

The acting agent is a field of its run, never of an object that runs share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeAlias
from weakref import WeakKeyDictionary

import msgspec
import trio

from agentloop._core.background import Ended
from agentloop._core.field_checks import plain_text
from agentloop._core.partial_json import Change
from agentloop._core.questions import Questions
from agentloop._core.response import Assembler, PartialOutput
from agentloop._core.retries import Chain
from agentloop._core.secrets import Redactor
from agentloop._core.state import LimitRaised, LongResultStored, Note, NoteTaken, StreamState, ToolStarted, TurnOpened
from agentloop._core.structured_output import OutputType, output_type
from agentloop._core.transcript import Mailbox, Transcript
from agentloop._core.usage import UNPRICED, Exceeded, Meter
from agentloop._runtime.blocks import PausableDeadline, after
from agentloop._runtime.call_order import Arrivals, CallOrder
from agentloop._runtime.deferred import DeferredTools
from agentloop._runtime.hooks import HookRuns, Hooks
from agentloop._runtime.log import EventLog, EventWriter, Journal, Reader, RedactingWriter
from agentloop._runtime.steps import step_observers
from agentloop._runtime.user_code import UserCodeError, call_user_code
from agentloop.config import AgentConfig
from agentloop.errors import StoreError
from agentloop.events import MessageCommitted, Source, StreamEvent, ToolsetStatus
from agentloop.hooks import Asking, Hook
from agentloop.limits import Price
from agentloop.messages import AssistantMessage, Message, ToolCall, UserMessage
from agentloop.models import Model, ModelSettings, merged_settings
from agentloop.observers import Observer, StepObserver, of_process
from agentloop.outcome import ChildStream, Outcome, QuestionHandler
from agentloop.permissions import Permissions
from agentloop.tools import Tool

__all__ = [
    "PARK",
    "READER",
    "Answerer",
    "Apart",
    "BackgroundRuns",
    "CompactionTask",
    "JoinedBlocks",
    "OpenApart",
    "OpenAsking",
    "OpenChild",
    "Resolve",
    "Root",
    "Run",
    "commit",
    "flush",
    "flush_at_end",
    "output_of",
    "record_long_result",
    "record_raised_limit",
    "record_tool_start",
    "record_turn",
]

P = ParamSpec("P")

READER: Literal["reader"] = "reader"
"""The answerer that reads a stream's events and calls its ``answer``."""

PARK: Literal["park"] = "park"
"""The answerer that resumes the run after it has ended."""

MAX_NOTE = 1000
"""Characters of the name of a note, and of its text, that the journal saves."""

Answerer: TypeAlias = QuestionHandler | Literal["reader", "park"]


class CompactionTask(msgspec.Struct, frozen=True):
    """The task of a run that only shortens the conversation."""

    instructions: str = ""
    """What the summary has to keep, above all; empty for nothing in particular."""
    models: tuple[Model, ...] | None = None
    """The models to ask for the summary; ``None`` for those of the agent."""


_outputs: WeakKeyDictionary[AgentConfig, OutputType] = WeakKeyDictionary()


def output_of(config: AgentConfig) -> OutputType:
    """The output of an agent. The schema and the decoders of a class take milliseconds, so they are made once."""
    output = _outputs.get(config)
    if output is None:
        output = _outputs[config] = output_type(config.output_type)
    return output


class Resolve(Protocol):
    """Gives the models that an agent runs with when it is opened here."""

    def __call__(self, agent: AgentConfig, model: Model | str | None = None, /) -> tuple[Model, ...]:
        """``model`` stands in the place of the agent's."""
        ...


class OpenChild(Protocol):
    """Opens a child stream."""

    def __call__(
        self,
        parent: Run,
        call_id: str,
        deadline: PausableDeadline,
        agent: Any,
        prompt: Any,
        on_question: QuestionHandler | None,
        read: bool,
        background: str = "",
        previous: StreamState | None = None,
        hook: Hook | None = None,
        /,
    ) -> AbstractAsyncContextManager[ChildStream]:
        """``deadline`` is the call's; ``read`` says whether the child stream has a reader.

        A ``background`` run has an id, and the run's own deadline around it; ``previous`` is the run that it resumes.
        The run of a ``hook`` has no call.
        """
        ...


class OpenApart(Protocol):
    """Opens a root stream that a run has started, and that may outlive it."""

    def __call__(
        self, apart: Apart, call_id: str, agent: AgentConfig, prompt: UserMessage, answerer: QuestionHandler, /
    ) -> AbstractAsyncContextManager[ChildStream]: ...


class Apart:
    """A root run that another run has started, and how it is bound to that run.

    The other run may have ended: its permissions and hooks hold all the same, as they were at the start. Those of its
    session hold as they are now.
    """

    __slots__ = ("background_id", "permissions", "run", "sessions", "starter")

    def __init__(self, starter: Run, background_id: str) -> None:
        self.starter = starter
        self.background_id = background_id
        permissions: list[Permissions] = []
        self.sessions: tuple[Transcript, ...] = (starter.root.session,)
        """The sessions whose permissions hold."""
        run: Run | None = starter
        while run is not None:
            permissions += [agent.permissions for agent in (run.config, run.opened_by) if agent and agent.permissions]
            if run.apart is not None:
                permissions += run.apart.permissions
                self.sessions += run.apart.sessions
            run = run.parent
        self.permissions: tuple[Permissions, ...] = tuple(permissions)
        """Of the agents of the other run, and of those around it."""
        self.run: Run | None = None
        """The run itself, once it is open."""

    def renew(self, session: Transcript) -> None:
        """``session`` was opened anew, perhaps: its permissions hold as they are there, and so do approved rules."""
        self.sessions = tuple([session if session.id == known.id else known for known in self.sessions])
        if self.run is not None and session.id == self.starter.root.session.id:
            self.run.root.session.grants = session.grants


class JoinedBlocks(Protocol):
    """The blocks of background runs that one run has joined: see ``agentloop/_runtime/background_blocks.py``."""

    def take_ended(self) -> Sequence[Ended]:
        """The ends that this run is to report. They count as reported."""
        ...

    async def leave(self) -> None:
        """The run ends: end the questions that were passed on to it, and stop counting for it."""
        ...


class BackgroundRuns(Protocol):
    """The background runs of one run."""

    @property
    def has_unreported(self) -> bool:
        """Whether there is one whose end was not reported."""
        ...

    async def report(self, *, wait: bool) -> None:
        """Commit a message that reports the ends since the last one, if there are any.

        Args:
          wait: whether the run has nothing else to do: then wait for the next end, or for a steering message.
        """
        ...

    def cancel(self) -> None:
        """Cancel those that run."""
        ...

    async def end(self) -> None:
        """Cancel those that run, and wait until all have ended."""
        ...


class ServingToolset(Protocol):
    """A toolset from one start to the stop after it."""

    @property
    def name(self) -> str: ...

    @property
    def is_over(self) -> bool:
        """Whether it was started again since then, or was stopped."""
        ...

    @property
    def calls(self) -> set[trio.CancelScope]:
        """The scopes of the calls that run now: cancelled if it is started again."""
        ...

    def end_call(self, scope: trio.CancelScope) -> None:
        """The call under ``scope`` has ended."""
        ...


class OpenToolsets(Protocol):
    """The toolsets of an agent that acts: see ``agentloop/_runtime/toolsets.py``."""

    @property
    def statuses(self) -> tuple[ToolsetStatus, ...]:
        """Their states now."""
        ...

    def serving(self, tool: str) -> ServingToolset | None:
        """The opening of the toolset that has listed ``tool``; ``None`` for a tool of the agent's own."""
        ...

    async def restart(self, name: str) -> None:
        """Start the toolset ``name`` again."""
        ...


class Pauses(Protocol):
    """Holds runs of a tree at their boundaries while they are paused: see ``agentloop/_runtime/pauses.py``."""

    def notify(self) -> None:
        """Something has changed."""
        ...

    async def hold(self, run: Run) -> None:
        """Return when ``run`` is not paused any more."""
        ...


class OpenAsking(Protocol):
    """Makes what a hook of a run gets, if it asks a model."""

    def __call__(self, run: Run, /) -> Asking: ...


class Root:
    """The parts that all runs of one tree share."""

    __slots__ = (
        "arrivals",
        "asking",
        "deps",
        "journal",
        "log",
        "open_apart",
        "open_child",
        "open_hook_runs",
        "pauses",
        "questions",
        "resolve",
        "semaphores",
        "session",
    )

    def __init__(
        self,
        *,
        deps: Any,
        session: Transcript,
        journal: Journal | None,
        open_child: OpenChild,
        open_apart: OpenApart,
        open_hook_runs: Callable[[Run, Hook, float], HookRuns],
        resolve: Resolve,
        asking: OpenAsking,
    ) -> None:
        self.asking = asking
        """Makes what a hook that asks a model gets."""
        self.questions: Questions[Answerer] = Questions()
        self.arrivals: Arrivals | None = None
        """The questions that are about to be opened, once there was one."""
        self.pauses: Pauses | None = None
        """Holds the runs that are paused, once there was one."""
        self.deps = deps
        self.session = session
        """The root's transcript: its permissions and grants hold for the whole tree."""
        self.journal = journal
        """The session's journal, if it has one."""
        self.log = EventLog(seq=session.seq)
        """The log of the whole tree. With a journal, it is replaced by the journal's before the root run is made."""
        self.open_child = open_child
        self.open_apart = open_apart
        self.open_hook_runs = open_hook_runs
        self.resolve = resolve
        """Gives the models of an agent, names resolved and overrides applied."""
        self.semaphores: dict[Tool, trio.Semaphore] | None = None
        """By tool: here, and not in the tool, since a tool is shared between runs and outlives them."""

    def semaphore(self, tool: Tool, concurrency: int) -> trio.Semaphore:
        """The semaphore that limits the concurrent calls of ``tool``."""
        if self.semaphores is None:
            self.semaphores = {}
        if tool not in self.semaphores:
            self.semaphores[tool] = trio.Semaphore(concurrency)
        return self.semaphores[tool]


class Run:
    """A run, from its opening to its end."""

    __slots__ = (
        "_calls_in_turn",
        "_ended",
        "apart",
        "around",
        "background",
        "background_id",
        "call_id",
        "call_order",
        "chain",
        "config",
        "continuations",
        "deadline",
        "deferred",
        "entry",
        "events",
        "first_index",
        "hook",
        "hooks",
        "is_model_chosen",
        "joined",
        "log",
        "mailbox",
        "meter",
        "models",
        "nursery",
        "observers",
        "offered",
        "opened_by",
        "originals",
        "outcome",
        "own_observers",
        "parent",
        "partial",
        "prompt",
        "reader",
        "redactor",
        "response",
        "root",
        "scope",
        "settings",
        "source",
        "state",
        "stop_detail",
        "stopped",
        "task",
        "team",
        "toolsets",
        "transcript",
        "warned",
        "writer",
    )

    def __init__(
        self,
        *,
        config: AgentConfig,
        models: tuple[Model, ...],
        prompt: UserMessage,
        root: Root,
        transcript: Transcript,
        source: Source,
        state: StreamState,
        read: bool,
        parent: Run | None = None,
        call_id: str = "",
        deadline: PausableDeadline | None = None,
        task: CompactionTask | None = None,
        settings: ModelSettings | None = None,
        team: Mapping[str, AgentConfig],
        background_id: str = "",
        hook: Hook | None = None,
        redactor: Redactor | None = None,
        apart: Apart | None = None,
    ) -> None:
        self.task = task
        """What the run is for, if it has no prompt."""
        self.config = config
        """The agent that acts: another one after a handoff."""
        self.entry = config
        """The agent that acted when the stream was opened: its limits are those of the stream."""
        self.opened_by: AgentConfig | None = None
        if parent is not None:
            self.opened_by = parent.team.get(state.opened_by, parent.config)
        """The agent that acted in the run around this one when this one was opened. If that run hands off while a
        background run goes on, the permissions of this agent hold all the same, as its hooks do."""
        self.team: Mapping[str, AgentConfig] = team
        """The agents that a handoff may go to, by their names."""
        self.models = models
        """In the order in which they are asked."""
        self.settings = config.settings if settings is None else merged_settings(config.settings, settings)
        """The settings of its requests."""
        self.is_model_chosen = False
        """Whether its model was chosen for the run, or for its session, and is not the agent's."""
        self.originals = models
        """The models before they were opened."""
        self.offered: frozenset[str] | None = None
        """Names of the tools in the request of this turn, if a hook has left out some."""
        self.prompt = prompt
        self.root = root
        self.transcript = transcript
        self.state = state
        """The account of the run so far: a new one, or that of the run that is resumed."""
        self.source = source
        self.parent: Run | None = parent
        self.call_id = call_id
        """The call of the parent stream that opened this one; empty at the root."""
        self.log = root.log
        """The log of the root run, which this run's events go to."""
        around_writer = parent.writer if parent else None
        self.redactor = redactor
        """Replaces secrets by placeholders; ``None`` for most runs."""
        self.writer: EventWriter = (
            EventWriter(root.log, source, state, around_writer)
            if redactor is None
            else RedactingWriter(root.log, source, state, around_writer, redactor)
        )
        """This run's writing end of the log."""
        self.events: Reader | None = self.writer.open_reader(as_root=parent is not None) if read else None
        """The receive channel of the stream's own reader; ``None`` if only the streams around it are read."""
        self.apart = apart
        """How it is bound to the run that has started it, if it is a root run of a block of background runs."""
        above = parent if apart is None else apart.starter
        around = above.observers if above else tuple(of_process)
        own: tuple[Observer, ...] = ()
        if config.observers:
            own = tuple(observer for observer in config.observers if all(observer is not other for other in around))
        self.observers: tuple[Observer, ...] = (*around, *own)
        """The observers that see its events, those of the runs around it included, each once."""
        self.own_observers: tuple[Observer, ...] = own if parent else self.observers
        """The observers that see the events of this run, and not of those around it."""
        self.around: tuple[StepObserver, ...] = step_observers(self.observers) if self.observers else ()
        """The observers that surround its steps."""
        self.hook = hook
        """The hook of ``parent`` that has opened it, if one has."""
        self.hooks: Hooks = self.open_hooks()
        meter = above.meter if above else None
        if meter is not None and apart is not None:
            meter = meter.for_guests()
        self.meter: Meter = Meter(config.limits, meter)
        self.deadline = PausableDeadline(config.limits.seconds, deadline)
        self.mailbox = Mailbox(source.stream)
        self.scope = trio.CancelScope()
        """Cancelled by ``stop()``."""
        self.stopped = False
        """Whether ``stop()`` was called. Kept here, since to ask a scope is to ask the clock, too."""
        self.stop_detail = ""
        self.first_index = len(transcript)
        """Index of this run's first message in the transcript."""
        self._calls_in_turn: dict[str, Tool] | None = None
        """Call ids of the calls that have their tool's turn now, where only so many may run at once."""
        self.call_order: CallOrder | None = None
        """The order of the calls of this turn, if it has more than one."""
        self.reader: Tool | None = None
        """By which the model reads long results, once there is one."""
        self.deferred: DeferredTools | None = None
        """The deferred tools of the agent that acts, if it has some."""
        self.continuations = 0
        """How often stop hooks have sent it on."""
        self.outcome: Outcome | None = None
        self.response: Assembler | None = None
        """The response that is being received, or the last one, if the output is structured."""
        self.partial: PartialOutput | None = None
        """The structured output in it, once it was read."""
        self._ended: trio.Event | None = None
        self.chain: Chain | None = None
        """Which of its models to ask; made with the first request."""
        self.background_id = background_id
        """Its id, if it is a background run of ``parent``."""
        self.background: BackgroundRuns | None = None
        """Its background runs, once there was one."""
        self.joined: JoinedBlocks | None = None
        """The blocks of background runs that it has joined, once there was one."""
        self.toolsets: OpenToolsets | None = None
        """The toolsets of the agent that acts, if it has some."""
        self.nursery: trio.Nursery | None = None
        """The nursery of its block, while that is open."""
        self.warned: tuple[str, ...] = ()
        """Codes of the warnings that are emitted once, and were."""

    def emit(
        self, kind: Callable[Concatenate[Source, int, P], StreamEvent], /, *args: P.args, **fields: P.kwargs
    ) -> None:
        """Make an event of this run and append it: ``run.emit(Paused)``. Does not wait, does not fail.

        For events of each turn, ``run.writer.append`` is cheaper.
        """
        self.writer.emit(kind, *args, **fields)

    def warn(self, code: str, message: str, /, *, logged: str = "", error: BaseException | None = None) -> None:
        """Emit a warning of this run, and log it: see `EventWriter.warn`."""
        self.writer.warn(code, message, logged=logged, error=error)

    def note(self, note: Note) -> None:
        """Append a fact that no reader gets: ``run.note(ToolStarted(call.id))``. Does not wait, does not fail."""
        self.writer.note(note)

    def open_hooks(self) -> Hooks:
        """The hooks of the agent that acts, and of those around it."""
        config, above = self.config, self.above
        around = above.hooks if above else None
        asking = None
        if any(hook.asks for hook in config.hooks) or (around is not None and around.asks):
            asking = partial(self.root.asking, self)
        runs_agents = any(hook.agents for hook in config.hooks) or (around is not None and around.runs_agents)
        return Hooks(
            config.hooks,
            config.deadlines,
            self.writer,
            around,
            deps=self.root.deps,
            asking=asking,
            runs=partial(self.root.open_hook_runs, self) if runs_agents else None,
            opener=self.hook,
        )

    @property
    def above(self) -> Run | None:
        """The run around it, or the one that has started it and may have ended."""
        return self.parent if self.apart is None else self.apart.starter

    @property
    def is_of_hook(self) -> bool:
        """Whether a hook has opened it, or a run around it: a later run does not come to it again."""
        run: Run | None = self
        while run is not None and run.hook is None:
            run = run.parent
        return run is not None

    @property
    def ended(self) -> trio.Event:
        """Set with the outcome, after the last event."""
        # Made only here: nothing waits for the end of a run whose events are read.
        if self._ended is None:
            self._ended = trio.Event()
        return self._ended

    def open_partial(self, on_change: Callable[[Change], None] | None = None) -> PartialOutput | None:
        """The structured output of the response that is being received; ``None`` before the first response."""
        if self.partial is None and self.response is not None:
            is_wrapped = output_of(self.config).is_wrapped
            self.partial = PartialOutput(self.response, is_wrapped=is_wrapped, on_change=on_change)
        return self.partial

    def price_of(self, *names: str) -> Price | None:
        """The price of a model that has ``names``, in this agent's table or in those of the agents above it."""
        ancestor: Run | None = self
        while ancestor is not None:
            for config in (ancestor.config, ancestor.entry):
                if config.prices:
                    for name in names:
                        if name in config.prices:
                            return config.prices[name]
            ancestor = ancestor.above
        return None

    @property
    def has_prices(self) -> bool:
        """Whether this agent, or one of those above it, has a table of prices."""
        ancestor: Run | None = self
        while ancestor is not None and not (ancestor.config.prices or ancestor.entry.prices):
            ancestor = ancestor.above
        return ancestor is not None

    def warn_once(self, code: str, message: str) -> None:
        """Emit a warning of this run, and log it, unless one with the same code was emitted so."""
        if code not in self.warned:
            self.warned += (code,)
            self.warn(code, message)

    def take_note(self, name: str, text: str) -> None:
        """Note a short text of an observer, for the run that resumes this one."""
        if self.log.is_journaled:
            self.note(NoteTaken(plain_text(name)[:MAX_NOTE], plain_text(text)[:MAX_NOTE]))

    def cancel(self) -> None:
        """Cancel the run, and what runs in its background: nothing of it begins any more from now on."""
        self.scope.cancel()
        if self.background is not None:
            self.background.cancel()

    def close(self) -> None:
        """Close both ends of the run's channel."""
        self.writer.close()
        if self.events is not None:
            self.events.close()

    def turns_above(self, tool: Tool) -> int:
        """How many calls of ``tool`` somewhere above wait for this stream, and have the tool's turn meanwhile."""
        run: Run = self
        count = 0
        while run.parent is not None:
            in_turn = run.parent._calls_in_turn
            count += in_turn is not None and in_turn.get(run.call_id) is tool
            run = run.parent
        return count

    def begin_turn(self, call_id: str, tool: Tool) -> None:
        """The call has its tool's turn."""
        if self._calls_in_turn is None:
            self._calls_in_turn = {}
        self._calls_in_turn[call_id] = tool

    def end_turn(self, call_id: str) -> None:
        """The call gives its tool's turn back."""
        assert self._calls_in_turn is not None
        del self._calls_in_turn[call_id]


# --------------------------- what a run commits, and must not begin, or end, without saving


def commit(run: Run, messages: Sequence[Message]) -> None:
    """Add ``messages`` to the session, all or none.

    With a journal, their events become visible as soon as they are saved, and the run continues meanwhile: its next
    events follow them in the journal.

    Raises:
      StoreError: the journal failed. Then the messages are not added.
    """
    run.log.check()
    if run.redactor is not None:
        messages = [run.redactor.value(message) for message in messages]
    index = len(run.transcript)
    run.transcript.extend(messages)
    for message in messages:
        run.writer.append(MessageCommitted(run.source, run.log.seq + 1, message=message, index=index))
        index += 1


def record_turn(run: Run, message: AssistantMessage) -> None:
    """Note that the calls of ``message`` are about to begin."""
    run.writer.note(TurnOpened(message))


def record_raised_limit(run: Run, reached: Exceeded) -> None:
    """Note that a person raised a limit of the run, or of a run around it: it stays raised when the run is resumed."""
    owner = run
    while owner.meter is not reached.meter:
        above = owner.above
        assert above is not None
        owner = above
    limit = UNPRICED if reached.unpriced else reached.limit
    allowed = reached.meter.allowed[limit]
    # In the journal of the run whose limit it is.
    noting = run if owner.root is run.root else owner
    noting.note(LimitRaised(owner.source.stream, limit, allowed))


async def record_tool_start(run: Run, tool: Tool, call: ToolCall) -> None:
    """Note that the tool of ``call`` is about to run. Raises `StoreError`; then it must not."""
    run.note(ToolStarted(call.id))
    if not (tool.read_only and tool.may_run_again):
        # Flushed also for a tool that may run again: if the response that asked for the call were lost, the next
        # response would be another one, with another idempotency key. A call that changes nothing leaves no trace.
        await flush(run)


def record_long_result(run: Run, id: str) -> None:
    """Note the rest of a long result, of a call or of a background run, before the event that has the result."""
    text = run.transcript.long_results.get(id)
    if text is not None:
        run.note(LongResultStored(id, text))


async def flush(run: Run) -> None:
    """Wait until everything appended so far is saved, within ``Deadlines.cleanup``. Does not wait without a journal.

    Raises:
      StoreError: the journal failed, or the time is up, which counts as a failure of the journal.
    """
    if run.log.saved == run.log.end:
        run.log.check()
        return
    seconds = run.config.deadlines.cleanup
    # Shielded: events that have happened are saved, even if the run is cancelled at that moment. The deadline holds all
    # the same: an end that waits for ever would be worse than one that is not saved.
    with trio.CancelScope(deadline=after(seconds), shield=True):
        await run.log.flush()
        return
    error = StoreError(f"the store of session {run.root.session.id!r} failed: it took longer than {seconds:g} s")
    run.log.fail(error)
    raise error


async def flush_at_end(run: Run) -> None:
    """Wait until everything that a run which ends has emitted is saved, and so visible.

    If it cannot be saved, it becomes visible without that, and messages that are lost leave the session.
    """
    with suppress(StoreError):
        await flush(run)
    lost = run.log.lost.get(run.transcript.id)
    if lost is not None:
        run.transcript.truncate(min(len(run.transcript), lost))
    if run.parent is not None:
        return
    run.transcript.seq = run.log.seq
    journal = run.root.journal
    # After a failure the session is read again in any case, when it is used next.
    leaves_turn_open = run.state.message is not None and run.log.failure is None
    if journal is not None and (run.root.questions.is_parked or leaves_turn_open):
        # The journal has an open turn, to be resumed, which is not part of the transcript.
        seconds = run.config.deadlines.cleanup
        # If the store, or the clock, fails here, it is read again when the session is used next.
        journal.invalidate()
        with suppress(UserCodeError):
            # Not `move_on_after`, which raises what a clock raises that fails.
            await call_user_code(trio.CancelScope(deadline=after(seconds), shield=True), journal.reload)
