"""The parts of one run. Wiring, no behaviour: the acting agent is an argument, never a field of a shared object."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, TypeAlias

import trio

from agentloop._core.budget import Meter
from agentloop._core.mailbox import Mailbox
from agentloop._core.questions import Questions
from agentloop._core.retries import Chain
from agentloop._core.state import StreamState
from agentloop._core.transcript import Transcript
from agentloop._runtime.call_order import Arrivals, CallOrder
from agentloop._runtime.hook_calls import HookCalls
from agentloop._runtime.log import EventLog, EventWriter, Journal, Reader
from agentloop._runtime.patience import Patience
from agentloop.config import AgentConfig
from agentloop.events import Source
from agentloop.limits import Price
from agentloop.messages import UserMessage
from agentloop.models import Model
from agentloop.observers import Observer, observers_of_process
from agentloop.outcome import ChildStream, Outcome, QuestionHandler
from agentloop.tools import Tool

__all__ = ["PARK", "READER", "Answerer", "OpenChild", "Root", "Run"]

READER: Literal["reader"] = "reader"
"""The answerer that reads a stream's events and calls its ``answer``."""

PARK: Literal["park"] = "park"
"""The answerer that resumes the run after it has ended."""

Answerer: TypeAlias = QuestionHandler | Literal["reader", "park"]


OpenChild: TypeAlias = (
    "Callable[[Run, str, Patience, Any, Any, QuestionHandler | None, bool], AbstractAsyncContextManager[ChildStream]]"
)
"""Opens a child stream: parent, call id, the call's patience, agent, prompt, handler, whether it is read."""


class Root:
    """The parts that all runs of one tree share."""

    __slots__ = (
        "arrivals",
        "cooling",
        "deps",
        "journal",
        "log",
        "open_child",
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
        resolve: Callable[[AgentConfig], tuple[Model, ...]],
    ) -> None:
        self.questions: Questions[Answerer] = Questions()
        self.arrivals = Arrivals()
        """The questions that are about to be opened."""
        self.deps = deps
        self.session = session
        """The root's transcript: its permissions and grants hold for the whole tree."""
        self.journal = journal
        """The session's journal, if it has one."""
        self.log: EventLog
        """The log of the whole tree. Opened before the root run is made, when the session is its own."""
        self.open_child = open_child
        self.resolve = resolve
        """The models that an agent runs with when it is opened here."""
        self.cooling: dict[str, float] = {}
        """Until when, by name, a model that has failed is left alone."""
        self.semaphores: dict[Tool, trio.Semaphore] = {}
        """By tool: here, and not in the tool, since a tool is shared between runs and outlives them."""

    def semaphore(self, tool: Tool, concurrency: int) -> trio.Semaphore:
        """The semaphore that limits the concurrent calls of ``tool``."""
        if tool not in self.semaphores:
            self.semaphores[tool] = trio.Semaphore(concurrency)
        return self.semaphores[tool]


class Run:
    """One run, from its opening to its end."""

    __slots__ = (
        "call_id",
        "call_order",
        "calls_in_turn",
        "chain",
        "config",
        "continuations",
        "emit",
        "ended",
        "events",
        "first_index",
        "hooks",
        "log",
        "mailbox",
        "meter",
        "models",
        "note",
        "observers",
        "outcome",
        "own_observers",
        "parent",
        "patience",
        "prompt",
        "reader",
        "root",
        "scope",
        "source",
        "state",
        "stop_detail",
        "stopped",
        "transcript",
        "warn",
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
        patience: Patience | None = None,
    ) -> None:
        self.config = config
        self.models = models
        """In the order in which they are asked."""
        self.prompt = prompt
        self.root = root
        self.transcript = transcript
        self.state = state
        """The account of the run so far: a new one, or that of the run that is resumed."""
        self.source = source
        self.parent = parent
        self.call_id = call_id
        """The call of the parent stream that opened this one; empty at the root."""
        self.log = root.log
        """The log of the root run, which this run's events go to."""
        around_writer = parent.writer if parent else None
        self.writer: EventWriter = EventWriter(root.log, source, state, around_writer)
        """This run's writing end of the log."""
        self.events: Reader | None = self.writer.open_reader(as_root=parent is not None) if read else None
        """The receive channel of the stream's own reader; ``None`` if only the streams around it are read."""
        # The writing end's own methods, not methods of the run: an event is emitted for each piece of text, and a call
        # less for it counts.
        self.emit = self.writer.emit
        """Make an event of this run and append it: ``run.emit(TurnStarted, turn=1)``. Does not wait, does not fail."""
        self.warn = self.writer.warn
        """Emit a warning of this run, and log it."""
        self.note = self.writer.note
        """Append a fact that no reader gets: ``run.note(ToolStarted(call.id))``. Does not wait, does not fail."""
        around = parent.observers if parent else observers_of_process()
        own = tuple(observer for observer in config.observers if all(observer is not other for other in around))
        self.observers: tuple[Observer, ...] = (*around, *own)
        """The observers that see its events, those of the runs around it included, each once."""
        self.own_observers: tuple[Observer, ...] = own if parent else self.observers
        """The observers that see the events of this run, and not of those around it."""
        self.hooks = HookCalls(config.hooks, config.deadlines, self.writer)
        self.meter: Meter = Meter(config.limits, parent.meter if parent else None)
        seconds = config.limits.seconds
        self.patience = Patience(float("inf") if seconds is None else seconds, patience)
        self.mailbox = Mailbox(source.stream)
        self.scope = trio.CancelScope()
        """Cancelled by ``stop()``."""
        self.stopped = False
        """Whether ``stop()`` was called. Kept here, since to ask a scope is to ask the clock, too."""
        self.stop_detail = ""
        self.first_index = len(transcript)
        """Index of this run's first message in the transcript."""
        self.calls_in_turn: dict[str, Tool] = {}
        """Call ids of the calls that have their tool's turn now, where only so many may run at once."""
        self.call_order: CallOrder | None = None
        """The order of the calls of this turn, if it has more than one."""
        self.reader: Tool | None = None
        """By which the model reads long results, once there is one."""
        self.continuations = 0
        """How often stop hooks have sent it on."""
        self.outcome: Outcome | None = None
        self.ended = trio.Event()
        """Set with the outcome, after the last event."""
        self.chain: Chain = self.new_chain()

    def new_chain(self) -> Chain:
        """Which of the models to ask, from the start."""
        names = tuple(model.name for model in self.models)
        return Chain(names, self.config.retries, cooling=self.root.cooling, seed=self.source.stream)

    def price_of(self, *names: str) -> Price | None:
        """The price of a model that has ``names``, in this agent's table or in those of the agents above it."""
        at: Run | None = self
        while at is not None:
            for name in names:
                if name in at.config.prices:
                    return at.config.prices[name]
            at = at.parent
        return None

    def close(self) -> None:
        """Close both ends of the run's channel."""
        self.writer.close()
        if self.events is not None:
            self.events.close()

    def turns_above(self, tool: Tool) -> int:
        """How many calls of ``tool`` somewhere above wait for this stream, and have the tool's turn meanwhile."""
        at: Run = self
        found = 0
        while at.parent is not None:
            found += at.parent.calls_in_turn.get(at.call_id) is tool
            at = at.parent
        return found
