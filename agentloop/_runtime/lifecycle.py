"""The life of a run: how it is opened, what runs it, and every way out of it.

::

    open_stream, open_child          check the arguments, and return the block of a stream
      _block                         enters, in this order, and leaves in the opposite one:
        the session      claimed     one run at a time
        the log          open        of a root run; a child run uses its root's
        the run          built       with a new state, or with that of the run that it resumes
        the questions    scope       pushed on the tree, popped whatever happens in between
        the channel      both ends   around the nursery: a task that is cancelled can still emit
        the nursery      one task    `_run_and_finish`: the loop, then the ending
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    closing,
    nullcontext,
)
from contextvars import ContextVar
from importlib import import_module
from typing import Any, TypeAlias

import msgspec
import trio

from agentloop._core.catalogue import check_effort
from agentloop._core.first_guesses import refuse
from agentloop._core.foreign_errors import describe, error_text
from agentloop._core.handoffs import nearest
from agentloop._core.results import error_info
from agentloop._core.secrets import Redactor
from agentloop._core.state import ChildReused, StreamState
from agentloop._core.structured_output import problem_of
from agentloop._core.transcript import Transcript
from agentloop._runtime.blocks import PausableDeadline, refuse_bare_generator, require_trio
from agentloop._runtime.exception_groups import is_cancellation, raise_single, single, split_plain
from agentloop._runtime.handoffs import check_team
from agentloop._runtime.hook_runs import HookRuns
from agentloop._runtime.hooks import observe
from agentloop._runtime.log import Journal
from agentloop._runtime.logs import RUN, log
from agentloop._runtime.loop import Ending, run_loop
from agentloop._runtime.model_call import JudgesRequest
from agentloop._runtime.output_validation import validated
from agentloop._runtime.redaction import open_redactor, redactor_of
from agentloop._runtime.run import PARK, Answerer, Apart, CompactionTask, Root, Run, flush, flush_at_end, output_of
from agentloop._runtime.steps import Surrounded
from agentloop._runtime.stream import Stream
from agentloop.config import AgentConfig
from agentloop.context import AgentBase
from agentloop.errors import (
    AgentLoopError,
    ChildLimitError,
    InternalError,
    ModelNotFoundError,
    OutputError,
    Retry,
    RunError,
    UsageError,
)
from agentloop.events import (
    ChildStreamStarted,
    ChildStreamStopped,
    Source,
    StreamStarted,
    StreamStopped,
)
from agentloop.hooks import Hook, OnAgentSwitch, OnError, SessionEnd, SubagentStop
from agentloop.messages import AssistantMessage, Prompt, UserMessage, user_message
from agentloop.models import Model, ModelSettings, merged_settings
from agentloop.observers import RunStep
from agentloop.outcome import ChildStream, Outcome, QuestionHandler

__all__ = ["IN_ASYNCIO", "Override", "Substitute", "live_runs", "open_stream", "resolve_model"]

IN_ASYNCIO = (
    "`await agentloop.asyncio.run(agent, prompt)`, or `async with agentloop.asyncio.stream(agent, prompt) as "
    "stream:`, or give it a thread: `await asyncio.to_thread(run_sync, agent, prompt)`"
)
"""What to write where trio does not run, for a run and for a stream."""


_live: dict[Run, Run] = {}
"""The root runs whose blocks are open, in all threads of the process."""


def live_runs() -> list[Run]:
    """The root runs whose blocks are open now, in all threads of the process."""
    return list(_live)


# ----------------------------------------------------------------------------- opening


def open_stream(
    config: AgentConfig,
    prompt: UserMessage | None,
    *,
    transcript: Transcript,
    journal: Journal | None,
    deps: Any,
    answerer: Answerer | None,
    read: bool,
    task: CompactionTask | None = None,
    model: Model | str | None = None,
    settings: ModelSettings | None = None,
    continues: bool = False,
) -> AbstractAsyncContextManager[Stream]:
    """A root stream. Wrong arguments raise here, before anything has started.

    Args:
      prompt: ``None`` to resume the unfinished run of the session.
      task: what the run is for, if the prompt has no parts.
      model: the model of this run, in the place of the agent's.
      settings: settings of this run, over the agent's.
      continues: whether the run goes on from the end of the transcript; then the prompt has no parts.
    """
    choice = transcript.choice
    if choice is not None and model is None:
        model = choice.model
        chosen = ModelSettings(reasoning_effort=choice.reasoning_effort)
        settings = chosen if settings is None else merged_settings(chosen, settings)
    root = Root(
        deps=deps,
        session=transcript,
        journal=journal,
        open_child=_open_child,
        open_apart=_open_apart,
        open_hook_runs=HookRuns,
        resolve=resolve_models,
        asking=JudgesRequest,
    )
    team = config.members
    if config.hands_off and not team:
        check_team(config, team)
    # An agent of a team is known only when the session was read: its name is in the journal.
    models = () if team else resolve_models(config, model)
    if choice is not None and models:
        check_effort(models[0].name, choice.reasoning_effort)
    return _block(
        root,
        config,
        models,
        transcript,
        prompt,
        answerer=answerer,
        read=read,
        task=task,
        settings=settings,
        team=team,
        model=model,
        continues=continues,
    )


def _open_child(
    parent: Run,
    call_id: str,
    deadline: PausableDeadline,
    agent: AgentBase,
    prompt: Prompt,
    on_question: QuestionHandler | None,
    read: bool,
    background: str = "",
    previous: StreamState | None = None,
    hook: Hook | None = None,
) -> AbstractAsyncContextManager[ChildStream]:
    """A stream inside ``parent``, in a session of its own.

    It is inside a tool call; or a background run, which has an id; or the run of a hook, which has no call.
    """
    if not isinstance(agent, AgentConfig):
        raise UsageError(f"a child stream is opened on an Agent, not on {agent!r}")
    message, state, redactor = user_message(prompt), parent.state, parent.redactor
    if redactor is not None:
        # Before the previous child is looked for: the journal has its prompt with placeholders.
        message = redactor.value(message)
    if not background and hook is None:
        previous = state.calls[call_id].previous_child(agent.name, message)
    if previous is None:
        transcript = Transcript(f"{parent.source.stream}.{state.child_count + 1}")
        previous = StreamState(state, call_id)
        acting = ""
    else:
        transcript = Transcript(previous.session, previous.messages)
        transcript.handoffs, acting = previous.handoffs, previous.acting_agent
        transcript.streams = previous.openings
        for id, text in previous.long_results.items():
            transcript.long_results.store(id, text)
        if (view := previous.view) is not None:
            transcript.shown.restore(
                summary=view.summary,
                first_kept=view.first_kept,
                elided=view.elided,
                in_part=view.in_part,
                changed_at=view.changed_at,
                failures=view.failures,
                cut=view.cut,
            )
    team = agent.members
    if not team and (agent.hands_off or acting not in ("", agent.name)):
        team = parent.team
    config = _acting(agent, team, acting)
    _check_lineage(parent, config)
    if config.hands_off:
        check_team(config, team)
    block = _ended_block if previous.is_over else _block
    return block(
        parent.root,
        config,
        resolve_models(config),
        transcript,
        message,
        answerer=on_question,
        read=read,
        parent=parent,
        call_id=call_id,
        deadline=deadline,
        state=previous,
        team=team,
        background_id=background,
        hook=hook,
        redactor=redactor,
    )


def _open_apart(
    apart: Apart, call_id: str, agent: AgentConfig, prompt: UserMessage, answerer: QuestionHandler
) -> AbstractAsyncContextManager[ChildStream]:
    """A root stream that the call ``call_id`` of another run starts, and that may outlive that run.

    Its models are those that the agent has here, in the task of the call.
    """
    starter = apart.starter
    transcript = Transcript(f"{starter.root.session.id}.{apart.background_id}")
    # Rules that a person approves for good hold for the whole session, as those of a child run do.
    transcript.grants = starter.root.session.grants
    team = agent.members
    if not team and agent.hands_off:
        team = starter.team
    config = _acting(agent, team, "")
    _check_lineage(starter, config)
    if config.hands_off:
        check_team(config, team)
    root = Root(
        deps=starter.root.deps,
        session=transcript,
        journal=None,
        open_child=_open_child,
        open_apart=_open_apart,
        open_hook_runs=HookRuns,
        resolve=resolve_models,
        asking=JudgesRequest,
    )
    return _block(
        root,
        config,
        resolve_models(config),
        transcript,
        prompt,
        answerer=answerer,
        read=False,
        call_id=call_id,
        team=team,
        background_id=apart.background_id,
        redactor=starter.redactor,
        apart=apart,
    )


def _acting(agent: AgentConfig, team: Mapping[str, AgentConfig], name: str) -> AgentConfig:
    """The agent of ``team`` that has the conversation: ``name``, or the first one; ``agent`` itself without a team."""
    return team.get(name) or next(iter(agent.members.values()), agent)


def _check_lineage(parent: Run, agent: AgentConfig) -> None:
    """Raise `ChildLimitError` if ``agent`` may not run inside ``parent``."""
    ancestor: Run | None = parent
    depth = 1
    while ancestor is not None:
        problem = ""
        if ancestor.config is agent:
            problem = "it is running there already, and would go round in a circle"
        elif depth > ancestor.meter.limits.depth:
            levels = ancestor.meter.limits.depth
            problem = f"agent {ancestor.entry.name!r} allows {levels} levels below it (Limits.depth)"
        if problem:
            raise ChildLimitError(agent=agent.name, path=parent.source.agents, reason=problem)
        ancestor = ancestor.above
        depth += 1


# --------------------------------------------------------------------------- the block


@asynccontextmanager
async def _block(
    root: Root,
    config: AgentConfig,
    models: tuple[Model, ...],
    transcript: Transcript,
    prompt: UserMessage | None,
    *,
    answerer: Answerer | None,
    read: bool,
    parent: Run | None = None,
    call_id: str = "",
    deadline: PausableDeadline | None = None,
    state: StreamState | None = None,
    task: CompactionTask | None = None,
    settings: ModelSettings | None = None,
    team: Mapping[str, AgentConfig],
    model: Model | str | None = None,
    background_id: str = "",
    hook: Hook | None = None,
    continues: bool = False,
    redactor: Redactor | None = None,
    apart: Apart | None = None,
) -> AsyncGenerator[Stream]:
    """The block of a stream: when it is left, everything that the stream started has ended.

    Args:
      prompt: ``None`` to resume the unfinished run of the session.
      parent: the run around it, whose call ``call_id`` opens it.
      team: the agents that a handoff may go to, by their names.
      model: the model of a root run, in the place of the agent's.
      continues: as for `open_stream`.
      state: of a child run, or of the previous run that it resumes.
      redactor: of the run around it, if that has one.
      apart: binds a root run to the run that has started it.
    """
    require_trio("an agent runs", in_asyncio=IN_ASYNCIO)
    if read:
        # `run` leaves the block before it returns, so it cannot be left half-way.
        refuse_bare_generator("a stream is opened")
    stream_id = transcript.claim()
    try:
        if parent is None and root.journal is not None:
            # It continues the numbers of the session.
            root.log = await root.journal.open_log(resumes=prompt is None)
        if parent is None and prompt is not None:
            transcript.forget_values_of_children()
        if prompt is None:
            state = _take_up(root)
            prompt = state.prompt
        if parent is None:
            if team:
                config = _acting(config, team, transcript.agent if state is None else state.acting_agent)
                models = resolve_models(config, model)
            if state is None:
                transcript.agent = config.name
        if redactor is None and any(agent.redact is not None for agent in (config, *team.values())):
            redactor = await _open_redactor(root, config, team, state)
            prompt = redactor.value(prompt)
        run = Run(
            config=config,
            models=models,
            prompt=prompt,
            root=root,
            transcript=transcript,
            source=_source(transcript, stream_id, config, parent),
            state=state or StreamState(),
            read=read,
            parent=parent,
            call_id=call_id,
            deadline=deadline,
            task=task,
            settings=settings,
            team=team,
            background_id=background_id,
            hook=hook,
            redactor=redactor,
            apart=apart,
        )
        if apart is not None:
            apart.run = run
        run.is_model_chosen = model is not None
        _open_questions(run, answerer)
        if parent is None:
            transcript.live = _live[run] = run
            if transcript.waiting:
                # What people have said to the session before.
                run.mailbox.steering, transcript.waiting = transcript.waiting, ()
        try:
            async with trio.open_nursery() as nursery:
                run.nursery = nursery
                if run.own_observers:
                    events = run.writer.open_reader()
                    nursery.start_soon(observe, events, run.own_observers, run.source)
                # Before the state forgets which stream it resumes.
                step = _run_step(run) if run.around else None
                # Here, and not in the task: the call that opens a child run is not idle from now on.
                _emit_start(run, continues=continues)
                if step is None:
                    nursery.start_soon(_run_and_finish, run)
                else:
                    nursery.start_soon(_run_surrounded, run, step)
                yield Stream(run)
                # To cancel costs as much as emitting three events, and most runs have ended by now.
                if not run.writer.is_closed:
                    nursery.cancel_scope.cancel()
        finally:
            run.nursery = None
            run.close()
            _close_questions(run)
            if parent is None:
                transcript.live = None
                del _live[run]
    except BaseExceptionGroup as group:
        raise_single(group)
    finally:
        if parent is None:
            _close_log(root)
        transcript.release()


@asynccontextmanager
async def _ended_block(
    root: Root,
    config: AgentConfig,
    models: tuple[Model, ...],
    transcript: Transcript,
    prompt: UserMessage,
    *,
    answerer: Answerer | None,
    read: bool,
    parent: Run,
    call_id: str,
    deadline: PausableDeadline,
    state: StreamState,
    team: Mapping[str, AgentConfig],
    background_id: str,
    hook: Hook | None,
    redactor: Redactor | None,
) -> AsyncGenerator[Stream]:
    """The block of a child stream that ended in the previous run: it is neither run again nor emitted again."""
    if not background_id:
        parent.note(ChildReused(call_id, state.session))
    run = Run(
        config=config,
        models=models,
        prompt=prompt,
        root=root,
        transcript=transcript,
        source=_source(transcript, state.stream, config, parent),
        state=state,
        read=read,
        parent=parent,
        call_id=call_id,
        deadline=deadline,
        team=team,
        background_id=background_id,
        hook=hook,
        redactor=redactor,
    )
    run.outcome = await _outcome_of(run)
    run.mailbox.close()
    run.ended.set()
    with closing(run):
        run.writer.close()
        yield Stream(run)
    await trio.lowlevel.checkpoint()


async def _outcome_of(run: Run) -> Outcome:
    """The outcome of a child run that ended in the previous run."""
    state, reason, detail = run.state, run.state.reason, run.state.detail
    assert reason is not None
    output: Any = None
    error: AgentLoopError | None = None
    if reason == "completed":
        last = state.messages[-1]
        assert isinstance(last, AssistantMessage)
        output = output_of(run.config).decode(last.text)
        try:
            # The journal has the response, and not what the validators have made of it.
            output = await validated(run, last, output, attempt=state.output_retries + 1)
        except Retry as refusal:
            problem, attempts = problem_of(refusal), state.output_retries + 1
            error = OutputError(model=last.model, attempts=attempts, problem=problem, text=last.text)
        except UsageError as failure:
            error = failure
        if error is not None:
            reason, detail, output = "failed", error_text(error), None
    elif reason == "failed":
        error = RunError(detail)
    messages = tuple(state.messages)
    return Outcome(reason=reason, detail=detail, output=output, error=error, usage=state.usage, messages=messages)


async def _open_redactor(
    root: Root, config: AgentConfig, team: Mapping[str, AgentConfig], state: StreamState | None
) -> Redactor:
    """The redactor of a run that opens one: a root run, or a child run whose parent has none."""
    for agent in (config, *team.values()):
        await open_redactor(agent.redact)
    redactor = redactor_of(config, team, root.session, state)
    assert redactor is not None
    return redactor


def _close_log(root: Root) -> None:
    root.log.close()
    # The journal may be further already: it has been read again, and has ended what had no end there.
    root.session.seq = max(root.session.seq, root.log.seq)


def _take_up(root: Root) -> StreamState:
    """The state of the unfinished run of the session."""
    state = None if root.journal is None else root.journal.take_up()
    if state is None:
        raise UsageError(
            f"nothing is unfinished in session {root.session.id!r}: start a stream on it with a prompt, as stream() "
            "and run() do"
        )
    return state


def _source(transcript: Transcript, stream_id: str, config: AgentConfig, parent: Run | None) -> Source:
    if parent is None:
        return Source(transcript.id, stream_id, (config.name,))
    return Source(transcript.id, stream_id, (*parent.source.agents, config.name), parent.source.stream)


def _open_questions(run: Run, answerer: Answerer | None) -> None:
    """Open the scope of the run's questions. No await stands between this and the block that closes it."""
    questions = run.root.questions
    if answerer == PARK:
        questions.allow_parking(lambda: run.state.is_idle, run.cancel)
    questions.push(run.source.stream, parent=run.source.parent, answerer=answerer)


def _close_questions(run: Run) -> None:
    run.root.questions.pop(run.source.stream)


# ------------------------------------------------------------------------ the one task


def _run_step(run: Run) -> RunStep:
    return RunStep(
        source=run.source,
        parent=run.parent.source if run.parent else None,
        call_id=run.call_id,
        background=run.background_id,
        model=run.models[0].name,
        message=run.prompt,
        resumes=run.state.stream,
        notes=run.state.notes,
        take_note=run.take_note,
    )


async def _run_surrounded(run: Run, step: RunStep) -> None:
    """`_run_and_finish`, as a step that observers surround."""
    with Surrounded(run.around, step):
        try:
            await _run_and_finish(run)
        finally:
            step.outcome = run.outcome


async def _run_and_finish(run: Run) -> None:
    """Run the loop, then end the stream: on every way out of it, and the same way on each."""
    ending: Ending | None = None
    error: BaseException | None = None
    try:
        try:
            # Entering a scope costs as much as emitting four events, so the time limit has one only if there is one.
            with run.scope, nullcontext() if run.meter.limits.seconds is None else run.deadline.scope:
                loops_ending = await run_loop(run)
                await flush(run)
                # Only now: the loop may have ended, and the time limit may have passed all the same.
                ending = loops_ending
        except BaseException as raised:  # noqa: ASYNC103, BLE001 - `_end` raises it when the stream has ended
            error = raised
        if run.background is not None:
            await run.background.end()
        if run.joined is not None:
            await run.joined.leave()
        await _end(run, ending, error)
    finally:
        # Also when an interrupt has torn the ending apart: observers, and `Stream.wait` in other tasks, wait for it.
        if not run.writer.is_closed:
            _release_readers(run)
        del error


async def _end(run: Run, ending: Ending | None, error: BaseException | None) -> None:
    """End the stream. Raises what must propagate of ``error``: a cancellation, or an interrupt."""
    undelivered = run.mailbox.close()
    try:
        outcome = _conclude(run, ending, error)
    except Exception as bug:  # noqa: BLE001 - ours, and no reason to leave a reader without an end
        outcome = Outcome(reason="failed", detail=error_text(bug), error=_as_bug(bug))
    if undelivered:
        outcome = msgspec.structs.replace(outcome, undelivered=undelivered)
    if run.redactor is not None:
        # The last hooks and the caller read the words of the terminal event.
        outcome = msgspec.structs.replace(outcome, detail=run.redactor.text(outcome.detail))
    try:
        await _call_last_hooks(run, outcome)
    except BaseException as raised:  # noqa: ASYNC103, BLE001 - an interrupt: it is raised when the stream has ended
        error = raised if error is None else BaseExceptionGroup("while the run was ending", [error, raised])
    plain, rest = (None, None) if error is None else split_plain(error)
    if plain is not None and outcome.error is None:
        late = single(plain)
        problem = f"while the run was stopped: {describe(late)}"
        run.warn("error_while_stopping", problem, logged="an error while the run was stopped", error=late)
    _emit_end(run, outcome)
    await flush_at_end(run)
    if run.root.journal is not None:
        # Messages that could not be saved are not part of the session.
        last = len(run.transcript) - run.transcript.provisional
        run.outcome = msgspec.structs.replace(outcome, messages=run.transcript.messages[run.first_index : last])
    if run.parent is not None:
        if (call := run.parent.state.calls.get(run.call_id)) is not None:
            call.forget_child(run.state)
        # The child may have been the last that kept the run around it from being idle.
        run.root.questions.notify()
    _release_readers(run)
    if rest is not None:
        try:
            raise rest
        finally:
            del error, plain, rest, outcome


def _conclude(run: Run, ending: Ending | None, error: BaseException | None) -> Outcome:
    """The outcome, from how the scopes ended. Cancelled wins; nothing is carried over from earlier turns."""
    if run.state.complaints:
        raise _OrderError("; ".join(run.state.complaints)) from error
    usage, messages = run.meter.usage, run.transcript.messages[run.first_index :]
    if run.root.questions.is_parked:
        # Parking was decided when the run was idle; an error or a cancel that comes now is too late, as an answer would
        # be.
        parked = run.root.questions.parked if run.parent is None else ()
        return Outcome(reason="needs_input", questions=parked, usage=usage, messages=messages)
    cancelled = run.stopped or trio.current_effective_deadline() == -float("inf")
    if cancelled or (error is not None and is_cancellation(error)):
        return Outcome(reason="cancelled", detail=run.stop_detail, usage=usage, messages=messages)
    if run.deadline.expired:
        detail = f"seconds: the {run.meter.limits.seconds:g} s are over"
        return Outcome(reason="limit", detail=detail, usage=usage, messages=messages)
    if error is not None:
        failure = single(error)
        if isinstance(failure, Exception) and not isinstance(failure, AgentLoopError):
            failure = _as_bug(failure)
        return Outcome(reason="failed", detail=error_text(failure), error=failure, usage=usage, messages=messages)
    assert ending is not None
    return Outcome(reason=ending.reason, detail=ending.detail, output=ending.output, usage=usage, messages=messages)


class _OrderError(Exception):
    """The loop has emitted an event that may not follow: a bug."""


def _as_bug(error: Exception) -> InternalError:
    bug = InternalError(f"a bug in agentloop, please report it: {describe(error)}")
    bug.__cause__ = error
    return bug


async def _call_last_hooks(run: Run, outcome: Outcome) -> None:
    if isinstance(outcome.error, Exception):
        await run.hooks.notify_shielded("on_error", OnError(run.source, outcome.error))
    if run.hooks.at("session_end"):
        await run.hooks.notify_shielded("session_end", SessionEnd(run.source, outcome.reason))
    parent = run.parent
    if parent is None:
        return
    if parent.hooks.at("subagent_stop"):
        ended = SubagentStop(parent.source, run.source, outcome.reason)
        await parent.hooks.notify_shielded("subagent_stop", ended)
    if parent.hooks.at("on_agent_switch") and not run.background_id and outcome.reason != "needs_input":
        switch = OnAgentSwitch(parent.source, parent.config.name, "return", run.source)
        await parent.hooks.notify_shielded("on_agent_switch", switch)


def _emit_start(run: Run, *, continues: bool) -> None:
    message, model, resumes = run.prompt, run.models[0].name, run.state.stream
    if run.parent is None:
        source, seq = run.source, run.log.seq + 1
        run.writer.append(
            StreamStarted(source, seq, message=message, model=model, resumes=resumes, continues=continues)
        )
    else:
        call_id, background = run.call_id, run.background_id
        run.emit(
            ChildStreamStarted,
            call_id=call_id,
            message=message,
            model=model,
            resumes=resumes,
            background=background,
            hook="" if run.hook is None else run.hook.point,
        )


def _emit_end(run: Run, outcome: Outcome) -> None:
    """Set the outcome, and emit the last event. Waits for nothing, so nothing can get in between."""
    run.outcome = outcome
    error = None if outcome.error is None else error_info(outcome.error)
    reason, detail, usage = outcome.reason, outcome.detail, outcome.usage
    if isinstance(outcome.error, InternalError):
        log(RUN, logging.ERROR, "stream %r: a bug in agentloop", run.source.stream, error=outcome.error)
    elif outcome.error is not None:
        log(RUN, logging.WARNING, "stream %r: the run failed: %s", run.source.stream, type(outcome.error).__name__)
    if run.parent is None:
        transcript = run.root.session
        transcript.used, transcript.live = transcript.used + usage, None
        source, seq = run.source, run.log.seq + 1
        run.writer.append(StreamStopped(source, seq, reason=reason, detail=detail, error=error, usage=usage))
    else:
        run.emit(ChildStreamStopped, call_id=run.call_id, reason=reason, detail=detail, error=error, usage=usage)


def _release_readers(run: Run) -> None:
    """End the loops of the stream's readers, and `Stream.wait`."""
    run.writer.close()
    run.ended.set()


# -------------------------------------------------- the models that an agent is opened with


def resolve_models(agent: AgentConfig, model: Model | str | None = None, /) -> tuple[Model, ...]:
    """The models that ``agent`` runs with when it is opened here: of overrides, the innermost block has the last word.

    Its fallbacks are replaced, too; a model that takes the place of several counts once.

    Args:
      model: the model of this run, or of a request, in the place of the agent's.

    Raises:
      ModelNotFoundError: a name is unknown, or its key is missing; the message says what to set.
      MissingExtraError: a model needs an extra; the message says what to install.
      NetworkForbiddenError: a model is behind a network, and the network is forbidden.
    """
    models: dict[int, Model | str] = {}
    for original in (agent.model if model is None else model, *agent.fallbacks):
        substitute = agent.models.get(original, original) if isinstance(original, str) else original
        for override in (*_everywhere, *_here.get()):
            substitute = override(agent, substitute)
        models[id(substitute)] = substitute
    return tuple([resolve_model(agent, model) for model in models.values()])


def resolve_model(agent: AgentConfig, model: Model | str) -> Model:
    """``model``, made of its name if it is one. Raises as `resolve_models` does."""
    if not isinstance(model, str):
        return model
    if agent.models and ":" not in model:
        raise ModelNotFoundError(
            f"{model!r} is neither a name in Agent(models=...) nor 'provider:model': {nearest(model, agent.models)}"
        )
    resolved: Model = import_module("agentloop.providers").model_for(agent.name, model)
    return resolved


Substitute: TypeAlias = Callable[[AgentConfig, Model | str], Model | str]
"""The model for an agent, given the one that it would have otherwise."""


class Override(AbstractContextManager[None]):
    """While the block runs, agents run with what ``substitute`` gives.

    Nothing is written on an agent, which is shared. What is in force is a property of where the agent is opened: of the
    task (a context variable, which tasks and threads inherit when they are started), or of the whole process.

    Blocks may be nested, and left in any order: leaving one takes away what it added, and nothing else.

    Args:
      substitute: called whenever a stream is opened.
      everywhere: whether it holds for the whole process, and not just for this task and what it starts.
    """

    # A class, and not `@contextmanager`: its blocks would be decorators too, which do nothing for an async function.
    __slots__ = ("_everywhere", "_substitute")

    def __init__(self, substitute: Substitute, *, everywhere: bool = False) -> None:
        self._substitute = substitute
        self._everywhere = everywhere

    def __enter__(self) -> None:
        if self._everywhere:
            _everywhere.append(self)
        else:
            _here.set((*_here.get(), self))

    def __exit__(self, *exc_info: object) -> None:
        if self._everywhere:
            _everywhere.remove(self)
        else:
            # Not `ContextVar.reset`: it would restore overrides that have ended since.
            left = list(_here.get())
            # The override is missing if the block is left in another context than it was entered in.
            if self in left:
                left.remove(self)
                _here.set(tuple(left))

    def __call__(self, agent: AgentConfig, model: Model | str) -> Model | str:
        return self._substitute(agent, model)


refuse(Override, aenter="this block is entered with `with`, not with `async with`")

_here: ContextVar[tuple[Override, ...]] = ContextVar("agentloop_overrides", default=())
_everywhere: list[Override] = []
