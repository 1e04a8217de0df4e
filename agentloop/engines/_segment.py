"""A segment: what one worker does on one session, until its run ends or waits for people.

::

    acquire the lease      another worker that has it, or acquires it later, stops this one at its next write
    a stop                 ends the unfinished run, and drops the prompts before it in the mailbox
    answers                from the mailbox into the session
    an unfinished run      is resumed, unless it waits for answers that are not there
    otherwise a prompt     from the mailbox begins a run, and is taken in the transaction that saves the beginning
    while the run is live  answers from the mailbox go to its questions, and a stop stops it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, TypeVar, cast

import msgspec
import trio
from attrs import define, frozen

from agentloop._core.json_text import decode_own
from agentloop._runtime.blocks import now
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.logs import ENGINES
from agentloop._runtime.stream import Stream
from agentloop.agent import Agent
from agentloop.errors import InvalidAnswerError, StoreError, UnknownQuestionError, UsageError
from agentloop.events import Question, StreamReason
from agentloop.journal import READY, WAITING, Lease, OpenStore, Record
from agentloop.messages import UserMessage
from agentloop.outcome import Outcome
from agentloop.questions import Answer
from agentloop.stores import StoredSession, stored_session
from agentloop.stores._fence import Fence
from agentloop.stores._replay import UNREADABLE
from agentloop.stores.mailbox import Mail, Mailboxes, mailboxes_of

__all__ = ["LEASE_SECONDS", "MAX_TAKEOVERS", "POLL_SECONDS", "DepsOf", "Segment", "agents_by_name", "drive_segment"]

T = TypeVar("T")
DepsOf = Callable[[str], Any]
"""A function from a session's id to the ``deps`` of its runs."""

LEASE_SECONDS = 30.0
POLL_SECONDS = 0.5
STOP_SECONDS = 1.0
"""Between two looks for a stop, while the live run asks nothing: each look is a query for each live run."""
MAX_TAKEOVERS = 20


@frozen
class Segment:
    """How a segment ended."""

    session: str
    """The session's id."""
    state: Literal["ready", "waiting"]
    """``ready``: the run has ended, or there was none. ``waiting``: it waits for the answers to its questions."""
    reason: StreamReason | None = None
    """Why the run stopped; ``None`` if nothing was to be run."""
    output: Any = None
    """The output of a run that was completed: see `Outcome.output`."""
    detail: str = ""
    """More about the reason: see `Outcome.detail`."""
    questions: tuple[Question, ...] = ()
    """The questions that are open."""


def agents_by_name(agents: Agent | Mapping[str, Agent] | Sequence[Agent]) -> dict[str, Agent]:
    """The agents by the names that prompts and journals have for them.

    Raises:
      UsageError: there is none, two have one name, or something is no agent.
    """
    if isinstance(agents, Mapping):
        named = dict(agents)
    else:
        listed = [agents] if isinstance(agents, Agent) else list(agents)
        named = {getattr(agent, "name", ""): agent for agent in listed}
        if len(named) < len(listed):
            raise UsageError("two of the agents have the same name: give them others, as in {'name': agent}")
    if not named or not all(isinstance(cast("object", agent), Agent) for agent in named.values()):
        raise UsageError(f"a worker has an Agent, or several: not {agents!r}")
    for agent in list(named.values()):
        # The journal has the agent's own name.
        named.setdefault(agent.name, agent)
        for member in agent.members:
            # After a handoff, it has the name of the agent that got the conversation.
            named.setdefault(member, agent)
    return named


class SegmentStore(Fence):
    """The store of a segment: it takes the prompt's mail with the first record of the run."""

    def __init__(self, store: Mailboxes) -> None:
        super().__init__(store)
        self.mailboxes = store
        self.mail = ""
        """The mail whose prompt begins a run."""

    async def append(
        self, session: str, records: Sequence[Record], /, *, lease: Lease | None = None, parent: str = ""
    ) -> None:
        if self.is_closed or not self.mail or lease is None or not any(map(_is_start, records)):
            await super().append(session, records, lease=lease, parent=parent)
            return
        await self.mailboxes.append_and_take(session, records, lease, self.mail)
        self.mail = ""


def _is_start(record: Record) -> bool:
    return record.kind == "stream_started"


async def drive_segment(
    store: OpenStore,
    session: str,
    agents: Agent | Mapping[str, Agent] | Sequence[Agent],
    *,
    deps: DepsOf | None = None,
    lease_seconds: float = LEASE_SECONDS,
    poll_seconds: float = POLL_SECONDS,
    max_takeovers: int = MAX_TAKEOVERS,
) -> Segment:
    """Drive a session until its run ends or waits for people. Any process may call this, any number of times.

    Args:
      store: an open store with mailboxes: see `agentloop.stores.mailbox.Mailboxes`.
      session: the session's id.
      agents: those that the session's prompts may name.
      deps: as for `Agent.stream`, by the session's id.
      lease_seconds: as for `stored_session`.
      poll_seconds: between two looks for the answers to questions of the live run.
      max_takeovers: how many times in a row a run may be cut off, before it is given up: its tool may be what ends the
        processes.

    Returns:
      How the segment ended. The store has it all, so nothing is lost with this value.

    Raises:
      SessionLeasedError: another process drives the session.
      UsageError: no agent has the name that the prompt or the journal has.
      StoreError: the store failed, or another process has acquired the session meanwhile: call again, anywhere.
    """
    return await drive_in(
        SegmentStore(mailboxes_of(store)),
        session,
        agents_by_name(agents),
        deps,
        lease_seconds,
        poll_seconds,
        max_takeovers,
    )


async def drive_in(
    store: SegmentStore,
    session: str,
    agents: Mapping[str, Agent],
    deps: DepsOf | None,
    lease_seconds: float,
    poll_seconds: float,
    max_takeovers: int,
) -> Segment:
    """`drive_segment`, on a store that the caller can close for writing."""
    async with stored_session(store, session, lease_seconds=lease_seconds) as opened:
        stop = await _accept_mail(store, opened)
        info = await store.info(session)
        state, name = ("", "") if info is None else (info.state, info.agent)
        kwargs: dict[str, Any] = {"on_question": "park", **({"deps": deps(session)} if deps else {})}
        opening: AbstractAsyncContextManager[Stream[Any]]
        if stop is not None and opened.is_resumable:
            detail = await _stop_unfinished(_agent(agents, name, session), store, opened, stop, kwargs)
            return Segment(session, READY, "cancelled", detail=detail)
        if stop is not None:
            await _take_stopped(store, opened, stop)
        if opened.is_resumable:
            # A session of an older version has no state: its questions say whether it waits.
            if state == WAITING or (not state and opened.questions):
                return Segment(session, WAITING, questions=opened.questions)
            if await _cut_offs(store, session) > max_takeovers:
                await opened._writer.ready(resumes=False)
                detail = f"the run was cut off more than {max_takeovers} times in a row, and is given up"
                ENGINES.error("session %r: %s", session, detail)
                return Segment(session, READY, "interrupted", detail=detail)
            opening = _agent(agents, name, session).resume_stream(opened, **kwargs)
        else:
            found = await _next_prompt(store, opened)
            if found is None:
                return Segment(session, READY)
            mail, message = found
            opening = _agent(agents, mail.agent or name, session).stream(message, session=opened, **kwargs)
            store.mail = mail.id
        outcome = await _run(opening, store, opened, poll_seconds)
    if isinstance(outcome.error, StoreError):
        # The journal has no end of this run.
        raise outcome.error
    return Segment(
        session,
        WAITING if outcome.reason == "needs_input" else READY,
        outcome.reason,
        outcome.output,
        outcome.detail,
        tuple(outcome.questions),
    )


async def _cut_offs(store: OpenStore, session: str) -> int:
    """How many times the run was cut off since it last stopped for another reason."""
    count = 0
    for record in reversed(await store.read(session, kinds=("stream_stopped",))):
        if b'"interrupted"' not in record.data:
            break
        count += 1
    return count


def _agent(agents: Mapping[str, Agent], name: str, session: str) -> Agent:
    if name in agents:
        return agents[name]
    if not name:
        return next(iter(agents.values()))
    raise UsageError(f"session {session!r} is of agent {name!r}, which this worker does not have: {', '.join(agents)}")


async def _run(
    opening: AbstractAsyncContextManager[Stream[Any]], store: SegmentStore, opened: StoredSession, poll_seconds: float
) -> Outcome[Any]:
    try:
        async with opening as stream, trio.open_nursery() as nursery:
            live = _LiveMail(stream, store, opened, poll_seconds)
            nursery.start_soon(live.deliver)
            outcome = await stream.wait()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise_single(group)
    if live.stop is not None and outcome.error is None:
        # Not before: were this process to die, the next one would resume the run, and find the stop again. A run that
        # parked at that moment, or was stopped before it took up its open turn, is left to the next segment.
        await opened._writer.ready(resumes=True)
        if not opened.is_resumable:
            await _take_stopped(store, opened, live.stop)
    return outcome


async def _stop_unfinished(
    agent: Agent, store: SegmentStore, opened: StoredSession, stop: Mail, kwargs: dict[str, Any]
) -> str:
    """Give an unfinished run the end that a live one would have: its readers see why it ended. Returns the detail."""
    detail = _detail(stop)
    async with agent.resume_stream(opened, **kwargs) as stream:
        stream.stop(detail)
        await stream.wait()
    # It was stopped before it took up its open turn, which is closed here for good.
    await opened._writer.ready(resumes=False)
    await _take_stopped(store, opened, stop)
    return detail


# ----------------------------------------------------------------------------------------- mail


async def _next_prompt(store: SegmentStore, opened: StoredSession) -> tuple[Mail, UserMessage] | None:
    """The prompt that is due and was posted first, if there is one."""
    for mail in await store.mailboxes.mail(opened.id):
        if mail.kind == "prompt":
            message = await _decoded(mail, UserMessage, store, opened)
            if message is not None:
                return mail, message
    return None


async def _accept_mail(store: SegmentStore, opened: StoredSession) -> Mail | None:
    """Save the answers in the mailbox that fit open questions, and take them all. Returns the last stop."""
    stop: Mail | None = None
    for mail in await store.mailboxes.mail(opened.id):
        if mail.kind == "stop":
            stop = mail
        if mail.kind != "answer":
            continue
        answer = cast("Answer | None", await _decoded(mail, Answer, store, opened))
        if answer is None:
            continue
        try:
            await opened._writer.accept({mail.question: answer})
        except (UnknownQuestionError, InvalidAnswerError) as error:
            _log_refused(opened, mail, error)
        await store.mailboxes.take(opened._writer.lease, mail.id)
    return stop


async def _take_stopped(store: SegmentStore, opened: StoredSession, stop: Mail) -> None:
    """Take a stop, and before it the prompts that it stops: those that were enqueued before it."""
    for mail in await store.mailboxes.mail(opened.id):
        if mail.kind in ("prompt", "stop"):
            await store.mailboxes.take(opened._writer.lease, mail.id)
        if mail.id == stop.id:
            return


def _detail(stop: Mail) -> str:
    try:
        return decode_own(stop.data, str)
    except (*UNREADABLE, msgspec.ValidationError):
        return ""


@define
class _LiveMail:
    """Delivers mail to a live run."""

    stream: Stream[Any]
    store: SegmentStore
    opened: StoredSession
    poll_seconds: float
    stop: Mail | None = None
    """The stop that it has delivered."""

    async def deliver(self) -> None:
        """Look for mail until this is cancelled, or the run is stopped."""
        looked = now()
        while self.stop is None:
            await trio.sleep(self.poll_seconds)
            # A question waits for mail, and is looked after more often than a stop, which is rare.
            if not self.stream.pending and now() - looked < STOP_SECONDS:
                continue
            looked = now()
            try:
                for mail in await self.store.mailboxes.mail(self.opened.id):
                    await self._deliver(mail)
            except StoreError as error:
                ENGINES.warning("session %r: the mailbox cannot be read: %s", self.opened.id, type(error).__name__)

    async def _deliver(self, mail: Mail) -> None:
        if mail.kind == "stop":
            self.stop = mail
            self.stream.stop(_detail(mail))
        if mail.kind != "answer" or mail.question not in {question.id for question in self.stream.pending}:
            # An answer to a question that is not open here is refused when the session is next driven.
            return
        answer = cast("Answer | None", await _decoded(mail, Answer, self.store, self.opened))
        if answer is None:
            return
        try:
            self.stream.answer(mail.question, answer)
        except (UnknownQuestionError, InvalidAnswerError) as error:
            _log_refused(self.opened, mail, error)
            await self.store.mailboxes.take(self.opened._writer.lease, mail.id)
        # Otherwise not taken here: the answer may not be saved yet. The next segment takes it.


async def _decoded(mail: Mail, kind: Any, store: SegmentStore, opened: StoredSession) -> Any:
    """The content of ``mail``; ``None`` if it cannot be read, and is taken out of the way."""
    try:
        return decode_own(mail.data, kind)
    except (*UNREADABLE, msgspec.ValidationError):
        ENGINES.warning("session %r: mail %r cannot be read, and is dropped", opened.id, mail.id)
        await store.mailboxes.take(opened._writer.lease, mail.id)
        return None


def _log_refused(opened: StoredSession, mail: Mail, error: Exception) -> None:
    ENGINES.info(
        "session %r: the answer to question %r has no effect: %s", opened.id, mail.question, type(error).__name__
    )
