"""Background runs: child runs that outlive the call that starts them, and end with the run that the call belongs to.

Each has a task in the nursery of that run's block, and a cancel scope of its own there: the run may end by its time
limit, or by ``stop()``, whose scopes do not surround the task. The run waits for all of them before it emits its end.

The end of a background run is reported to the model by a message, with the next request. A run that would stop waits
for the next end instead. The message names the runs that it reports, so a report is neither lost nor repeated where a
process dies: see `agentloop._core.state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from agentloop._core.background import CUT_OFF, MOST_BACKGROUND, Ended, id_of, last_text, lost, report
from agentloop._core.foreign_errors import describe
from agentloop._core.state import ReportTaken, StreamState
from agentloop._runtime.run import Run, commit, record_long_result
from agentloop.config import AgentConfig
from agentloop.context import AgentBase
from agentloop.errors import ChildLimitError, StreamStateError, UsageError
from agentloop.events import StreamReason
from agentloop.messages import Prompt, UserMessage, user_message
from agentloop.outcome import ChildStream, Outcome, QuestionHandler
from agentloop.tools import Tool

__all__ = ["StartedRun", "live_apart", "report_others", "resume_background", "start_background", "started_runs"]


live_apart: dict[tuple[str, str], object] = {}
"""The background runs of blocks that a stream may still report, in all threads of the process: by the session that has
started each, and its id."""


class StartedRun:
    """A background run, as this opening of its run has it."""

    __slots__ = (
        "_agent",
        "_on_question",
        "_outcome",
        "_owner",
        "_previous",
        "call_id",
        "ended",
        "error",
        "id",
        "is_taken",
        "message",
        "opened",
        "scope",
        "state",
        "stream",
    )

    def __init__(
        self,
        owner: Run,
        call_id: str,
        agent: AgentConfig | None,
        message: UserMessage,
        on_question: QuestionHandler | None = None,
        *,
        id: str = "",
        previous: StreamState | None = None,
    ) -> None:
        self._owner = owner
        self._agent = agent
        self._on_question = on_question
        self._previous = previous
        self._outcome: Outcome | None = None
        self.call_id = call_id
        self.message = message
        self.id = id
        """Known when it is open."""
        self.state = previous
        """Known when it is open."""
        self.stream: ChildStream | None = None
        self.error: Exception | None = None
        """Why it could not be opened."""
        self.is_taken = previous is None
        """Whether the call that started it has it: one that is made again finds it."""
        self.scope = trio.CancelScope()
        self.opened = trio.Event()
        """Set when it is open, or has failed to."""
        self.ended = trio.Event()
        """Set when its block was left."""

    @property
    def agent_name(self) -> str:
        """The name of its agent."""
        if self._agent is not None:
            return self._agent.name
        return "" if self.state is None else self.state.agent

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; ``None`` while it runs."""
        if self._outcome is None and self.stream is not None and self.ended.is_set():
            self._outcome = self.stream.outcome
        return self._outcome

    async def wait_until_open(self, otherwise: str) -> None:
        """Wait until it is open, on behalf of the call that starts it.

        Args:
          otherwise: why it is not opened, if nothing else is wrong.

        Raises:
          StreamStateError: it is not opened any more.
        """
        try:
            await self.opened.wait()
        except BaseException:
            # The tool does not get it, so it must not go on.
            self.scope.cancel()
            raise
        if self.error is not None:
            raise self.error
        if self.stream is None:
            raise StreamStateError(otherwise)

    def text_for(self, reader: Run) -> str:
        """What its model wrote last, as ``reader`` may read it."""
        return "" if self.state is None else last_text(self.state.messages)

    def is_from(self, call_id: str, agent: str, message: UserMessage) -> bool:
        """Whether an earlier attempt at the call has started it, of that agent with that prompt."""
        is_same = self.agent_name == agent and self.message == message
        return is_same and self.call_id == call_id and not self.is_taken

    def lose(self, detail: str) -> None:
        """It ended in a previous opening, or cannot be resumed in this one."""
        state = self.state
        assert state is not None
        reason: StreamReason = "interrupted"
        if state.is_over and state.reason is not None:
            reason, detail = state.reason, state.detail
        self._outcome = Outcome(reason=reason, detail=detail, usage=state.usage, messages=tuple(state.messages))
        self.opened.set()
        self.ended.set()

    async def play(self) -> None:
        """Open it, and wait for its end. The one task of the run's block that it has."""
        owner, runs = self._owner, _runs_of(self._owner)
        try:
            # The time limit of the run around it ends it at the same moment as the loop of that run.
            with self.scope, owner.deadline.shared():
                await trio.lowlevel.checkpoint_if_cancelled()
                async with self._open() as child:
                    # Nothing has waited since the id was made.
                    self.stream, self.state = child, owner.state.background[self.id]
                    runs.add(self)
                    self.opened.set()
                    await child.wait()
        except Exception as error:
            if self.opened.is_set():
                raise
            self.error = error
        finally:
            self.opened.set()
            self.ended.set()
            runs.notice_end(self)

    def _open(self) -> AbstractAsyncContextManager[ChildStream]:
        owner = self._owner
        assert self._agent is not None
        if not self.id:
            name, transcript = self._agent.name, owner.transcript
            # The session's count, too: the ids of its earlier runs are in the transcript.
            counts = (owner.state.background_counts.get(name, 0), transcript.background_counts.get(name, 0))
            self.id = id_of(name, max(counts))
            transcript.count_background(name, max(counts) + 1)
        return owner.root.open_child(
            owner,
            self.call_id,
            owner.deadline,
            self._agent,
            self.message,
            self._on_question,
            False,
            self.id,
            self._previous,
        )


class _Runs:
    """The background runs of one run: `agentloop._runtime.run.BackgroundRuns`."""

    __slots__ = ("_changed", "_live", "_run", "started")

    def __init__(self, run: Run) -> None:
        self._run = run
        self.started: dict[str, StartedRun] = {}
        """Those whose end was not reported, by id, in the order in which they began."""
        self._live: dict[StartedRun, None] = {}
        """Those that have a task."""
        self._changed: trio.Event | None = None
        """Set when the run has something to do again."""

    @property
    def has_unreported(self) -> bool:
        return bool(self.started)

    @property
    def running(self) -> int:
        """How many have not ended."""
        return len(self._live)

    def begin(self, started: StartedRun) -> None:
        """Give ``started`` its task."""
        nursery = self._run.nursery
        assert nursery is not None
        self._live[started] = None
        nursery.start_soon(started.play, name=f"background run of {started.agent_name}")

    def add(self, started: StartedRun) -> None:
        """``started`` is open."""
        self.started[started.id] = started

    def notice_end(self, started: StartedRun) -> None:
        """``started`` has ended, or could not be opened."""
        self._live.pop(started, None)
        self._wake()

    def _wake(self) -> None:
        self._run.state.waits_for_background = False
        if self._changed is not None:
            self._changed.set()

    async def report(self, *, wait: bool) -> None:
        if wait:
            await self._wait_for_work()
        ended = [
            Ended(started.id, outcome.reason, outcome.detail, last_text(outcome.messages))
            for started in self.started.values()
            if started.ended.is_set() and (outcome := started.outcome) is not None
        ]
        if not ended:
            return
        run = self._run
        message = report(ended, run.transcript.long_results)
        for id in message.reports:
            record_long_result(run, id)
        commit(run, (message,))
        for id in message.reports:
            del self.started[id]
        run.transcript.forget_unreported(message.reports)

    async def _wait_for_work(self) -> None:
        """Return when one has ended that was not reported, or when a steering message has come."""
        run = self._run
        run.mailbox.on_steering = self._wake
        try:
            while not (run.mailbox.steering or any(started.ended.is_set() for started in self.started.values())):
                self._changed = trio.Event()
                run.state.waits_for_background = True
                # The run may be idle from now on.
                run.root.questions.notify()
                await self._changed.wait()
        finally:
            run.state.waits_for_background = False
            run.mailbox.on_steering = None

    def cancel(self) -> None:
        for started in self._live:
            started.scope.cancel()

    async def end(self) -> None:
        self.cancel()
        running = list(self._live)
        # Shielded: a run does not end before the runs inside it.
        with trio.CancelScope(shield=True):
            for started in running:
                await started.ended.wait()
        if self.started and not self._run.root.questions.is_parked:
            # The next run of the session reports them: its model has read that they run.
            self._run.transcript.leave_unreported(self.started, CUT_OFF)


def _runs_of(run: Run) -> _Runs:
    if run.background is None:
        run.background = _Runs(run)
    assert isinstance(run.background, _Runs)
    return run.background


def started_runs(run: Run) -> tuple[StartedRun, ...]:
    """The background runs of ``run`` whose end was not reported, in the order in which they began."""
    return () if run.background is None else tuple(_runs_of(run).started.values())


def report_others(run: Run) -> None:
    """Commit a message that reports the ends of background runs that ``run`` has not started, if there are any.

    Those are runs of the blocks that it has joined, and runs of which earlier runs of its session have not told.
    """
    run.log.check()
    transcript = run.transcript
    ended = [] if run.joined is None else list(run.joined.take_ended())
    if run.parent is None:
        taken = {one.id for one in ended}
        gone = {
            id: detail
            for id, detail in transcript.unreported.items()
            if not (id in taken or id in run.state.background or (transcript.id, id) in live_apart)
        }
        ended = [*lost(gone), *ended]
    if not ended:
        return
    message = report(ended, transcript.long_results)
    run.note(ReportTaken(message.reports))
    for id in message.reports:
        record_long_result(run, id)
    transcript.forget_unreported(message.reports)
    commit(run, (message,))


async def start_background(
    run: Run, call_id: str, agent: AgentBase[Any, Any], prompt: Prompt, on_question: QuestionHandler | None
) -> StartedRun:
    """Start a background run, for the call ``call_id``; or find the one that an earlier attempt at it has started.

    Raises:
      UsageError: ``agent`` is no agent, or the prompt is empty.
      ChildLimitError: so many run already, it would be nested too deep, or the agent would run inside itself.
    """
    if not isinstance(agent, AgentConfig):
        raise UsageError(f"a background run is started on an Agent, not on {agent!r}")
    runs, message = _runs_of(run), user_message(prompt)
    if run.redactor is not None:
        # Before a previous run is looked for: the journal has its prompt with placeholders.
        message = run.redactor.value(message)
    for started in runs.started.values():
        if started.is_from(call_id, agent.name, message):
            started.is_taken = True
            await trio.lowlevel.checkpoint()
            return started
    if runs.running >= MOST_BACKGROUND:
        reason = f"{MOST_BACKGROUND} background runs are running already"
        raise ChildLimitError(agent=agent.name, path=run.source.agents, reason=reason)
    started = StartedRun(run, call_id, agent, message, on_question)
    runs.begin(started)
    await started.wait_until_open("the run has ended: it starts no background run")
    return started


async def resume_background(run: Run, tools: Mapping[str, Tool]) -> None:
    """Resume the background runs of the run that ``run`` resumes. Their agents are those of its tools.

    A run whose agent is not found is reported as interrupted.
    """
    runs, agents = _runs_of(run), _agents_of(run, tools.values())
    resumed: list[StartedRun] = []
    for id, state in run.state.background.items():
        agent = agents.get(state.agent)
        started = StartedRun(run, state.call_id, agent, state.prompt, id=id, previous=state)
        runs.add(started)
        if agent is None:
            problem = f"no tool of {run.config.name!r} has an agent {state.agent!r} with which it could be resumed"
            started.lose(problem)
        else:
            runs.begin(started)
            resumed.append(started)
    for started in resumed:
        await started.opened.wait()
        if started.error is not None:
            problem = f"background run {started.id!r} cannot be resumed: {describe(started.error)}"
            run.warn("background_run_lost", problem)
            started.lose(problem)


def _agents_of(run: Run, tools: Iterable[Tool]) -> dict[str, AgentConfig]:
    """The agents that the tools of ``run`` may start, by their names."""
    agents: dict[str, AgentConfig] = {}
    everything = [*tools, *[tool for member in run.team.values() for tool in member.tools]]
    for tool in everything:
        for agent in tool.agents:
            if isinstance(agent, AgentConfig):
                agents.setdefault(agent.name, agent)
    return agents
