"""A session: the transcript that outlives its streams."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec
import trio

from agentloop._core.catalogue import check_effort
from agentloop._core.context_window import context_use
from agentloop._core.field_checks import FieldError, is_name, shown
from agentloop._core.secrets import placeholder
from agentloop._core.transcript import MOST_STEERING, Transcript, flaw_of_history, problems
from agentloop._core.typevars import Deps
from agentloop._runtime.blocks import require_trio
from agentloop._runtime.context_window import window_for
from agentloop._runtime.lifecycle import live_runs, open_stream, resolve_model
from agentloop._runtime.log import Journal
from agentloop._runtime.run import CompactionTask
from agentloop.config import AgentConfig
from agentloop.context import NO_DEPS
from agentloop.errors import SessionBusyError, StreamStateError, UsageError
from agentloop.messages import Message, Prompt, Usage, UserMessage, checked_messages, user_message
from agentloop.models import Model, ModelChoice
from agentloop.outcome import CompactionResult, ContextUse
from agentloop.permissions import Grant, Permissions

__all__ = ["LiveSession", "Session", "live_sessions"]


def _check_id(id: object) -> None:
    if id is not None and not is_name(id):
        raise UsageError(f"a session's id is some text, not {shown(id)}; a transcript goes in as messages=")


class Session:
    """What was said so far, and what a person has allowed for good. One stream runs on it at a time.

    Args:
      id: unique, for good; made up at random if not given.
      messages: a transcript to go on from.
      permissions: which tool calls run, are asked about, or are denied, in all streams on it; see
        `agentloop.permissions`.

    Raises:
      UsageError: a provider would refuse ``messages``.
    """

    __slots__ = ("_journal", "_transcript")

    def __init__(
        self,
        id: str | None = None,
        *,
        messages: Iterable[Message] = (),
        permissions: Permissions | None = None,
    ) -> None:
        _check_id(id)
        try:
            transcript = checked_messages(messages, "messages")
        except FieldError as error:
            raise UsageError(f"these messages are no valid transcript: {error}") from error
        broken_rules = problems(transcript)
        if broken_rules:
            raise UsageError(f"these messages are no valid transcript: {'; '.join(broken_rules)}")
        self._transcript = Transcript(os.urandom(8).hex() if id is None else id, transcript)
        self._transcript.is_kept = True
        self._journal: Journal | None = None
        """The session's journal, if it has one: see `agentloop.stores.stored_session`."""
        self.permissions = permissions

    @property
    def id(self) -> str:
        """The session's id."""
        return self._transcript.id

    @property
    def messages(self) -> tuple[Message, ...]:
        """The transcript so far. Valid for a provider at every moment."""
        return self._transcript.messages

    @property
    def permissions(self) -> Permissions | None:
        """Which tool calls run, are asked about, or are denied. A change holds from the next call on."""
        return self._transcript.permissions

    @permissions.setter
    def permissions(self, permissions: Permissions | None) -> None:
        if permissions is not None and not isinstance(cast("object", permissions), Permissions):
            raise UsageError(f"permissions= takes Permissions(...), not {permissions!r}")
        self._transcript.permissions = permissions

    @property
    def choice(self) -> ModelChoice | None:
        """The model, and how much it thinks, for all runs on the session from the next one on, in place of the agent's.

        ``None`` for the agent's own. A run's own ``model=`` and ``settings=`` come first; child runs keep their own. A
        stored session keeps the choice, if the model is a name.

        Raises (when it is set):
          UsageError: the model does not think so much, or not at all, by the catalogue.
        """
        return self._transcript.choice

    @choice.setter
    def choice(self, choice: ModelChoice | None) -> None:
        if choice is not None:
            if not isinstance(cast("object", choice), ModelChoice):
                raise UsageError(f"session.choice takes ModelChoice(model=..., reasoning_effort=...), not {choice!r}")
            if isinstance(choice.model, str):
                check_effort(choice.model, choice.reasoning_effort)
        self._transcript.choice = choice

    @property
    def grants(self) -> tuple[Grant, ...]:
        """What a person has approved for good, by `Approve.always`, oldest first."""
        return tuple(self._transcript.grants)

    @property
    def secrets(self) -> Mapping[str, str]:
        """The secrets that its runs have redacted, by placeholder. They are in this process only, and in no store.

        ``Redaction(secrets=...)`` takes them, so that a run which is resumed in another process can put them back.
        """
        known = self._transcript.secrets
        return {} if known is None else {placeholder(label): value for label, value in known.values.items()}

    @property
    def is_busy(self) -> bool:
        """Whether a stream runs on it now."""
        return self._transcript.holder is not None

    @property
    def may_continue(self) -> bool:
        """Whether a run may go on without a new prompt: ``agent.run(None, session=...)``.

        It goes on from the end of the transcript. It may if the last message is one that the model has not answered:
        the results of tools, as after a run that ended at a limit or was stopped, or a prompt, as after a failed
        request. It must not if a stream runs on the session, or if it has an unfinished run, which `Agent.resume`
        continues.
        """
        has_unfinished_run = self._journal is not None and self._journal.has_unfinished_run
        return not (self.is_busy or has_unfinished_run or flaw_of_history(self.messages))

    def steer(self, message: Prompt, /) -> None:
        """Have the model read ``message`` with its next request: of the stream on the session, or of the next one.

        Between two runs the messages wait in this process, and the next run submits them after its prompt.

        Raises:
          StreamStateError: 20 such messages wait already.
          UsageError: the message is empty.
        """
        transcript, text = self._transcript, user_message(message)
        live = transcript.live
        if live is not None and not live.mailbox.closed:
            live.mailbox.steer(text)
        elif len(transcript.waiting) >= MOST_STEERING:
            raise StreamStateError(
                f"session {self.id!r} has {MOST_STEERING} steering messages waiting: let a run read them first"
            )
        else:
            transcript.waiting += (text,)

    async def usage(self) -> Usage:
        """What all runs on the session have used so far, with their children, and the one that runs now.

        ``Cost.of(await session.usage())`` is what they have cost. A session in memory counts the runs of this object, a
        stored session all runs in its journal, those of the sessions that it was forked from included.

        Raises:
          StoreError: the store cannot be read.
        """
        await trio.lowlevel.checkpoint()
        transcript = self._transcript
        return transcript.used if transcript.live is None else transcript.used + transcript.live.meter.usage

    async def compact(
        self,
        agent: AgentConfig[Deps, Any],
        *,
        instructions: str = "",
        model: Model | str | None = None,
        deps: Deps = NO_DEPS,
    ) -> CompactionResult:
        """Replace all but the latest messages by a summary, for the model. The session keeps all messages.

        It runs as a stream of ``agent`` without a prompt: with its hooks, limits and prices, and with its events in the
        journal.

        Args:
          agent: the agent whose model is asked. Its instructions and tools stand in front of the request, so that the
            provider's cache knows the conversation.
          instructions: what the summary has to keep, above all, in addition to ``Compaction.instructions``.
          model: the model to ask; the agent's own, with its fallbacks, if not given.
          deps: as for `Agent.stream`.

        Raises:
          CompactionError: a hook refused it, there was nothing to sum up, or no whole summary that is shorter.
          UsageError: a stream runs on the session, or it has an unfinished run, which a compaction would give up.
          AgentLoopError: as for `Agent.run`.
        """
        require_trio("a session is compacted", in_asyncio="`await agentloop.asyncio.call(session.compact, agent)`")
        if not isinstance(cast("object", agent), AgentConfig):
            raise UsageError(f"compact() takes the agent whose model writes the summary, not {agent!r}")
        transcript = self._transcript
        if transcript.holder is not None:
            raise SessionBusyError(session=self.id, stream=transcript.holder)
        if self._journal is not None and self._journal.has_unfinished_run:
            raise UsageError(
                f"session {self.id!r} has an unfinished run: resume it, or start a new one, and then compact"
            )
        models = None if model is None else (resolve_model(agent, model),)
        opening = open_stream(
            agent,
            UserMessage(()),
            transcript=transcript,
            journal=self._journal,
            deps=deps,
            answerer=None,
            read=False,
            task=CompactionTask(instructions, models),
        )
        async with opening as stream:
            await stream.wait()
            result: CompactionResult = stream.result.output
        await trio.lowlevel.checkpoint()
        return result

    def context(self, agent: AgentConfig | None = None) -> ContextUse:
        """Where the tokens of the next request are, by part: estimates, but for what the provider has counted.

        Args:
          agent: the agent of the next request: its instructions and tools count, as far as they are known before a
            stream is opened, and the window is that of its models, or of the model that was chosen for the session. If
            not given, the instructions and tools of the session's last request in this process count.
        """
        transcript = self._transcript
        instructions, tools = transcript.front
        if agent is not None:
            given = agent.instructions
            # A function gives its instructions when a stream is opened.
            instructions = given if isinstance(given, str) else instructions
            tools = tuple([tool.spec for tool in agent.tools]) if not agent.toolsets else tools
        use = context_use(transcript.messages, transcript.shown, instructions, tools)
        return use if agent is None else msgspec.structs.replace(use, window=window_for(agent, transcript.choice))

    def __repr__(self) -> str:
        return f"<Session {self.id}: {len(self._transcript)} messages{', busy' if self.is_busy else ''}>"


class LiveSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session on which a run is open in this process, as `live_sessions` finds it."""

    id: str
    """The session's id."""
    stream: str
    """Id of the stream."""
    agent: str
    """Name of the agent that acts."""
    turn: int
    """Number of the turn that it is in, or was in last; 0 before the first one."""
    usage: Usage
    """What the run has used so far, with its children."""
    questions: int
    """How many questions are open, its children's included."""
    is_paused: bool
    """Whether it was paused, and not resumed."""


def live_sessions() -> tuple[LiveSession, ...]:
    """The sessions on which a run is open in this process now, in any of its threads, oldest first.

    ::

        for session in live_sessions():
            print(session.id, session.agent, session.usage)

    A snapshot, for lists and logs; a run is held by the block that opened it. Child runs are part of their root's.
    """
    return tuple(
        [
            LiveSession(
                id=run.root.session.id,
                stream=run.source.stream,
                agent=run.config.name,
                turn=run.state.turn,
                usage=run.meter.usage,
                questions=run.root.questions.open_count,
                is_paused=run.state.is_paused,
            )
            for run in live_runs()
        ]
    )
