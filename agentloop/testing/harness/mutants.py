"""Bugs, planted in the real runtime one at a time: the test of the harness itself.

The first eight are those of the design's history (docker-agent's issue numbers are given). Each mutant is a context
manager that breaks the runtime while it is on. A harness that does not notice one is not worth its time, and a harness
that complains without one is worse: hence the control, which plants nothing.
"""

# pyright: basic
# The planted bugs break the types, too.

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import msgspec
import trio

from agentloop._core import questions as core_questions, state, transcript
from agentloop._runtime import blocks, hooks, lifecycle, log, questions, stream, tool_calls, user_code
from agentloop._runtime.log import EventLog, EventWriter
from agentloop._runtime.run import Root, Run
from agentloop.errors import ToolsetError
from agentloop.events import Source, StreamStopped
from agentloop.messages import AssistantMessage
from agentloop.outcome import Outcome
from agentloop.stores import _journal_writer, memory
from agentloop.testing._patched import patched
from agentloop.testing.simulation import InjectedFault

__all__ = ["MUTANTS", "control"]

Mutant = Callable[[], AbstractContextManager[None]]
MUTANTS: dict[str, Mutant] = {}


def mutant(plant: Callable[[], Generator[None]]) -> Mutant:
    """Add a mutant to the list, under its own name."""
    made = contextmanager(plant)
    MUTANTS[plant.__name__.replace("_", "-")] = made
    return made


@contextmanager
def control() -> Generator[None]:
    """Plant nothing."""
    yield


# ------------------------------------------------------------------- the design's history


@mutant
def early_return_when_listing_fails() -> Generator[None]:
    """#3073, first half: on this path the channel is not closed, and the reader waits for ever."""
    real_emit_end, real_release_readers = lifecycle._emit_end, lifecycle._release_readers

    def tell_outcome(run: Run, outcome: Outcome) -> None:
        run.outcome = outcome
        if not isinstance(outcome.error, ToolsetError):
            real_emit_end(run, outcome)

    def end(run: Run) -> None:
        if run.outcome is not None and isinstance(run.outcome.error, ToolsetError):
            run.ended.set()
        else:
            real_release_readers(run)

    with patched(lifecycle, "_emit_end", tell_outcome), patched(lifecycle, "_release_readers", end):
        yield


@mutant
def early_return_when_the_prompt_is_blocked() -> Generator[None]:
    """#3073, second half: on this way out the elicitation stack keeps the scope of a dead stream."""
    real = lifecycle._close_questions

    def close_questions(run: Run) -> None:
        if run.outcome is None or run.outcome.reason != "blocked":
            real(run)

    with patched(lifecycle, "_close_questions", close_questions):
        yield


@mutant
def close_races_a_send() -> Generator[None]:
    """#3069: stopping the stream closes the channel, while tasks may still post."""
    real = stream.Stream.stop

    def stop(self: stream.Stream, detail: str = "") -> None:
        real(self, detail)
        self._run.writer.close()

    with patched(stream.Stream, "stop", stop):
        yield


@mutant
def terminal_event_dropped_when_full() -> Generator[None]:
    """#4136: the last event is sent without waiting, and dropped if the buffer is full."""
    real = EventLog.append

    def append(self: EventLog, event: Any, writer: EventWriter) -> None:
        if not (isinstance(event, StreamStopped) and writer.readers_lag):
            real(self, event, writer)

    with patched(EventLog, "append", append):
        yield


@mutant
def one_elicitation_slot() -> Generator[None]:
    """#3584: streams save and restore one slot, which is right only if they end in reverse order."""
    tree = core_questions.Questions

    def push(self: Any, scope: str, *, parent: str | None, answerer: object) -> None:
        real_push(self, scope, parent=parent, answerer=answerer)
        slots.setdefault(id(self), []).append(scope)

    def pop(self: Any, scope: str) -> None:
        real_pop(self, scope)
        # The value from before this stream was opened, even if another stream has taken it since.
        slots[id(self)].pop()

    def answerers(self: Any, scope: str) -> Any:
        current = slots[id(self)][-1]
        return real_answerers(self, current if current in self._scopes else scope) if current in self._scopes else []

    real_push, real_pop, real_answerers = tree.push, tree.pop, tree.answerers
    slots: dict[int, list[str]] = {}
    with patched(tree, "push", push), patched(tree, "pop", pop), patched(tree, "answerers", answerers):
        yield


@mutant
def abandoned_by_its_consumer() -> Generator[None]:
    """The producer runs on after its reader has left, as detached tasks do (openai-agents-python#574)."""

    class _Opening:
        """A nursery whose cancelling does nothing."""

        def __init__(self) -> None:
            self._real = trio.open_nursery()
            self.cancel_scope = trio.CancelScope()

        async def __aenter__(self) -> Self:
            self.start_soon = (await self._real.__aenter__()).start_soon
            return self

        async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> Any:  # noqa: PYI036
            return await self._real.__aexit__(kind, error, traceback)  # noqa: ASYNC102

    with patched(lifecycle, "trio", _Instead(trio, open_nursery=_Opening)):
        yield


class _Instead:
    """A module with some names replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@mutant
def shared_current_agent() -> Generator[None]:
    """#4156: who acts is a field that parallel streams overwrite, and not an argument."""
    current: dict[int, Source] = {}
    roots: dict[EventWriter, Root] = {}
    real, real_append = Run.__init__, EventWriter.append

    def init(self: Run, **options: Any) -> None:
        real(self, **options)
        current[id(self.root)] = self.source
        roots[self.writer] = self.root

    def append(self: EventWriter, event: Any) -> None:
        real_append(self, msgspec.structs.replace(event, source=current[id(roots[self])]))

    with patched(Run, "__init__", init), patched(EventWriter, "append", append):
        yield


@mutant
def stale_reason() -> Generator[None]:
    """The reason of an earlier turn survives into a later way out that has nothing to do with it."""
    real = lifecycle._conclude

    def conclude(run: Run, ending: Any, error: Any) -> Outcome:
        outcome = real(run, ending, error)
        if outcome.reason == "cancelled" and run.state.turn > 1:
            return Outcome(reason="completed", usage=outcome.usage, messages=outcome.messages)
        return outcome

    with patched(lifecycle, "_conclude", conclude):
        yield


# --------------------------------------------------------------------------------- events


@mutant
def terminal_event_twice() -> Generator[None]:
    """A cancelled stream emits its end, and then the canceller emits it again."""
    real = lifecycle._emit_end

    def tell_outcome(run: Run, outcome: Outcome) -> None:
        if run.parent is None and outcome.reason == "cancelled":
            run.emit(StreamStopped, reason="cancelled")
        real(run, outcome)

    with patched(lifecycle, "_emit_end", tell_outcome):
        yield


@mutant
def ends_lost_when_cancelled() -> Generator[None]:
    """A cancelled task cannot emit the end of what it began."""
    real = EventWriter.append

    def append(self: EventWriter, event: Any) -> None:
        if trio.current_effective_deadline() == -float("inf") and type(event).__name__ == "ToolCallFinished":
            return
        real(self, event)

    with patched(EventWriter, "append", append):
        yield


@mutant
def failure_looks_like_an_end() -> Generator[None]:
    """A failed run's reader sees its loop end as if all were well."""
    real = stream.Stream.__anext__

    async def anext_(self: stream.Stream) -> Any:
        self._error_raised = True
        return await real(self)

    with patched(stream.Stream, "__anext__", anext_):
        yield


@mutant
def no_back_pressure() -> Generator[None]:
    """The model is not slowed down when its reader stalls."""

    async def room(self: Any) -> None:
        await trio.lowlevel.checkpoint()

    with patched(EventWriter, "wait_for_readers", room):
        yield


@mutant
def number_skipped_when_full() -> Generator[None]:
    """Events are numbered before they are let through."""
    real = EventLog.append

    def append(self: EventLog, event: Any, writer: EventWriter) -> None:
        if writer.readers_lag:
            self.seq += 1
        real(self, event, writer)

    with patched(EventLog, "append", append):
        yield


# ------------------------------------------------------------------------------ questions


@mutant
def answer_goes_to_the_oldest() -> Generator[None]:
    """An answer goes to the asker that has waited longest, not to the question that it names."""
    tree = core_questions.Questions
    real = tree.answer

    def answer(self: Any, id: str, answer_given: Any, *, by: Any) -> None:
        real(self, next(iter(self._open)) if id in self._open else id, answer_given, by=by)

    with patched(tree, "answer", answer):
        yield


@mutant
def answer_lost_to_a_cancel() -> Generator[None]:
    """An answer is taken, but its asker is cancelled at that moment and never gets it."""
    with patched(questions, "is_cancellation", lambda _error: False):
        yield


@mutant
def question_outlives_its_asker() -> Generator[None]:
    """A cancelled asker leaves its question open."""
    tree = core_questions.Questions

    def withdraw(self: Any, id: str) -> None:
        pass

    with patched(tree, "withdraw", withdraw):
        yield


@mutant
def thinking_counts() -> Generator[None]:
    """A person's thinking time counts towards the tool's deadline."""

    @contextmanager
    def paused(self: blocks.PausableDeadline) -> Generator[None]:
        yield

    with patched(blocks.PausableDeadline, "paused", paused):
        yield


# ------------------------------------------------------------------------------ transcript


@mutant
def dangling_tool_calls() -> Generator[None]:
    """An interrupted turn is kept with the results that there are."""

    def close_turn(message: AssistantMessage, results: Any, started: Iterable[str]) -> Any:
        return (message, *(results[call.id] for call in message.calls if call.id in results))

    real = tool_calls.Calls._run_call

    async def run_call(self: tool_calls.Calls, call: Any, began: float) -> None:
        try:
            await real(self, call, began)
        except trio.Cancelled:
            del self._run.state.results[call.id]
            raise

    with patched(state, "close_turn", close_turn), patched(tool_calls.Calls, "_run_call", run_call):
        yield


@mutant
def results_in_order_of_completion() -> Generator[None]:
    """Results are recorded as they come in."""

    def close_turn(message: AssistantMessage, results: Any, started: Iterable[str]) -> Any:
        done = [results[id] for id in results]
        missing = [call for call in message.calls if call.id not in results]
        begun = frozenset(started)
        return (
            message,
            *done,
            *(transcript.interrupted_result(call, started=call.id in begun) for call in missing),
        )

    with patched(state, "close_turn", close_turn):
        yield


@mutant
def session_kept_after_a_failure() -> Generator[None]:
    """A run that fails does not give its session back."""
    real = transcript.Transcript.release

    def release(self: transcript.Transcript) -> None:
        if self.messages and isinstance(self.messages[-1], AssistantMessage):
            real(self)

    with patched(transcript.Transcript, "release", release):
        yield


# ----------------------------------------------------------------------- tools and cancels


@mutant
def side_effect_after_a_cancel() -> Generator[None]:
    """A tool begins although its stream was cancelled already."""

    async def nothing() -> None:
        pass

    lowlevel = _Instead(trio.lowlevel, checkpoint_if_cancelled=nothing)
    with patched(tool_calls, "trio", _Instead(trio, lowlevel=lowlevel)):
        yield


@mutant
def failure_cancels_siblings() -> Generator[None]:
    """A tool's exception is not its result, but the end of the run."""
    real = user_code.call_user_code

    async def call_user_code(scope: trio.CancelScope, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return await real(scope, function, *args, **kwargs)
        except user_code.UserCodeError as error:
            if isinstance(error.__cause__, (ValueError, InjectedFault)):
                raise error.__cause__ from None
            raise

    with patched(tool_calls, "call_user_code", call_user_code):
        yield


@mutant
def guard_fails_open() -> Generator[None]:
    """A guard that fails lets pass."""
    real = hooks.Hooks.ask

    async def ask(self: hooks.Hooks, hook: Any, value: Any) -> Any:
        try:
            return await real(self, hook, value)
        except hooks.HookFailedError:
            return None

    with patched(hooks.Hooks, "ask", ask):
        yield


@mutant
def no_deadline_for_tools() -> Generator[None]:
    """A tool that hangs hangs the run."""

    def for_ever(_seconds: float, parent: Any) -> blocks.PausableDeadline:
        return blocks.PausableDeadline(float("inf"), parent)

    with patched(tool_calls, "PausableDeadline", for_ever):
        yield


# ------------------------------------------------------------------------------- journals


@mutant
def told_before_it_is_kept() -> Generator[None]:
    """A reader gets an event at once, and the store later."""

    def hide(self: EventLog, writer: EventWriter) -> None:
        event: Any = self._unsaved[-1][0]
        writer.deliver(event)

    with patched(EventLog, "_hide", hide):
        yield


@mutant
def fact_told_in_spite() -> Generator[None]:
    """An event that could not be saved is delivered as if it were."""
    with patched(log, "substitute_if_unsaved", lambda event: event):
        yield


@mutant
def end_not_kept() -> Generator[None]:
    """The last event is visible, and never saved."""
    real = EventLog.append

    def append(self: EventLog, event: Any, writer: EventWriter) -> None:
        if isinstance(event, StreamStopped):
            self.seq += 1
            writer.deliver(event)
        else:
            real(self, event, writer)

    with patched(EventLog, "append", append):
        yield


@mutant
def intent_not_awaited() -> Generator[None]:
    """A tool runs while the note that it does is on its way."""

    async def record_tool_start(run: Run, _tool: Any, call: Any) -> None:  # noqa: ASYNC124 - what it stands for is async
        run.note(state.ToolStarted(call.id))

    with patched(tool_calls, "record_tool_start", record_tool_start):
        yield


@mutant
def answer_replayed_to_another_question() -> Generator[None]:
    """A call that is made again gets the answer to its first question for each question."""
    real = state.QuestionList.previous

    def previous(self: state.QuestionList, question: Any) -> Any:
        own_record = real(self, question)
        before = self.records
        return next((asked for asked in before if asked.answer is not None), own_record)

    with patched(state.QuestionList, "previous", previous):
        yield


@mutant
def completed_call_made_again() -> Generator[None]:
    """A resumed turn begins anew."""
    real = tool_calls.Calls.__init__

    def init(self: Any, run: Run, calls: Any, tools: Any) -> None:
        run.state.results.clear()
        real(self, run, calls, tools)

    with patched(tool_calls.Calls, "__init__", init):
        yield


@mutant
def completed_child_run_again() -> Generator[None]:
    """A child stream that came to its end is opened anew."""
    real = state.CallState.previous_child

    def previous_child(*args: Any) -> Any:
        child = real(*args)
        return None if child is not None and child.is_over else child

    with patched(state.CallState, "previous_child", previous_child):
        yield


@mutant
def doubtful_call_made_again() -> Generator[None]:
    """A call that may have run is made again, whatever its tool says."""

    async def may_run_again(*_args: Any) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    with patched(tool_calls, "may_run_again", may_run_again):
        yield


@mutant
def parked_results_lost_to_a_stop() -> Generator[None]:
    """A stream that is resumed, and stopped before it comes to its open turn, forgets that."""
    is_over = property(lambda run: run.reason not in (None, "needs_input", "interrupted"))
    with patched(state.StreamState, "is_over", is_over):
        yield


@mutant
def given_up_in_memory_only() -> Generator[None]:
    """An abandoned turn is closed in memory, and not in the store."""

    async def give_up(self: _journal_writer.JournalWriter) -> None:
        await trio.lowlevel.checkpoint()
        self._transcript.provisional = 0
        self.unfinished = None

    with patched(_journal_writer.JournalWriter, "_give_up", give_up):
        yield


@mutant
def numbers_given_twice() -> Generator[None]:
    """After a crash, numbers begin again where the store ends, though later events were delivered."""
    with patched(_journal_writer, "LOST_NUMBERS", 0):
        yield


@mutant
def lease_not_given_back() -> Generator[None]:
    """A process that has held a session keeps others from it."""

    async def release(_self: Any, _lease: Any) -> None:
        await trio.lowlevel.checkpoint()

    with patched(memory._OpenMemory, "release", release):
        yield
