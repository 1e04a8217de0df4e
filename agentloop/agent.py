"""The front door: an agent, and the ways to run it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import cache, partial
from importlib import import_module
from typing import Any, Literal

import attrs
import trio
from attrs import frozen

from agentloop._core.schema import Signature, signature_of
from agentloop._runtime.overrides import Override, models_of
from agentloop._runtime.run import PARK, READER
from agentloop._runtime.stream import Stream, open_stream
from agentloop.config import AgentConfig
from agentloop.context import ToolContext
from agentloop.errors import AgentLoopError, SessionBusyError, ToolError, UsageError
from agentloop.messages import Prompt, user_message
from agentloop.models import Model
from agentloop.outcome import Outcome, QuestionHandler
from agentloop.questions import Answer
from agentloop.session import Session
from agentloop.tools import Tool

__all__ = ["Agent", "run_sync"]


@frozen(eq=False)
class Agent(AgentConfig):
    """A model with instructions, tools, hooks and limits. Immutable, and shareable between any number of runs.

    Args:
      model: a `Model`, or its name as ``"provider:model"``.
      name: what events and other agents call it.
      instructions: what the model is told before anything else.
      tools: `Tool`s, or plain typed functions.
      toolsets: sources of tools that are started and stopped with each stream.
      hooks: see `agentloop.hooks`.
      permissions: which tool calls run, are asked about, or are denied; see `agentloop.permissions`.
      fallbacks: models to ask, in order, where ``model`` fails; see `Retries`.
      limits, deadlines, retries, settings: how far, how long, how often again, how to sample.
      prices: what models cost, by name; without them, costs are 0.
      output_type: the type of ``result.output``.

    Raises:
      UsageError: something is wrong with one of them; the message says what, and the way out.
    """

    def stream(
        self,
        prompt: Prompt,
        *,
        session: Session | None = None,
        on_question: QuestionHandler | Literal["reader", "decline", "park"] = READER,
        deps: Any = None,
    ) -> AbstractAsyncContextManager[Stream]:
        """Open a stream: ``async with agent.stream("...") as stream: async for event in stream: ...``.

        When the block ends, everything that the stream started has ended.

        Args:
          prompt: text, or parts: `Text`, `Image`, `File`.
          session: the transcript to go on from and to add to; a new one if not given.
          on_question: who answers: ``"reader"``, who reads the events and calls ``stream.answer``; a function that
            is called with each question; ``"decline"``, nobody; or ``"park"``, whoever resumes the run: see `resume`.
          deps: anything; tools find it as ``context.deps``.

        Raises:
          UsageError: on entering: the prompt is empty, the model is not to be found, or the session is busy.
        """
        return self._open(prompt, session, on_question, deps, read=True)

    async def run(
        self,
        prompt: Prompt,
        *,
        session: Session | None = None,
        on_question: QuestionHandler | Literal["decline", "park"] = "decline",
        deps: Any = None,
    ) -> Outcome:
        """Run to the end, and give the result. The same loop as `stream`, with nobody reading.

        With ``on_question="park"`` the outcome may also be that it ``needs_input``.

        Raises:
          AgentLoopError: the run ended without a result; ``UsageError`` as for `stream`.
        """
        return await _result(self._open(prompt, session, on_question, deps, read=False), on_question)

    async def resume(
        self,
        session: Session,
        answers: Mapping[str, Answer] | None = None,
        *,
        on_question: QuestionHandler | Literal["decline", "park"] = PARK,
        deps: Any = None,
    ) -> Outcome:
        """Go on with the run that is unfinished in ``session``, in whichever process it began.

        That is one that was parked, by ``on_question="park"``, or whose process has died. Nothing that was done is done
        again: no response that is complete is asked for, and no tool call that has a result is made. A call that was
        parked while it waited for an answer is made again, and finds the answers that were given: see
        `ToolContext.recall`. Of a call of which nobody knows what came of it, `Tool.if_interrupted` says what to do.
        Child streams go on likewise.

        Args:
          session: from `agentloop.stores.stored_session`.
          answers: by the questions' ids, as in ``outcome.questions``. Those that were given before, in whichever
            process, count as well. A question without an answer is asked again, under the same id.

        Raises:
          UnknownQuestionError: one of the questions is not open (any more): somebody else has answered it, say.
          InvalidAnswerError: an answer is of the wrong kind, or does not fit the form. Then none of them counts.
          UsageError: nothing is unfinished in the session.
          AgentLoopError: as for `run`.
        """
        return await _result(
            self._resume(session, answers, on_question=on_question, deps=deps, read=False), on_question
        )

    def resume_stream(
        self,
        session: Session,
        answers: Mapping[str, Answer] | None = None,
        *,
        on_question: QuestionHandler | Literal["reader", "decline", "park"] = READER,
        deps: Any = None,
    ) -> AbstractAsyncContextManager[Stream]:
        """`resume` as a stream, to be read. Its first event says, in ``resumes``, from which stream it goes on."""
        return self._resume(session, answers, on_question=on_question, deps=deps, read=True)

    @asynccontextmanager
    async def _resume(
        self,
        session: Session,
        answers: Mapping[str, Answer] | None,
        *,
        on_question: QuestionHandler | Literal["reader", "decline", "park"],
        deps: Any,
        read: bool,
    ) -> AsyncGenerator[Stream]:
        opening = self._open("", session, on_question, deps, read=read, resumes=True)
        assert session.ledger is not None
        if session.transcript.holder is not None:
            raise SessionBusyError(session=session.id, stream=session.transcript.holder)
        await session.ledger.accept(dict(answers or {}))
        async with opening as stream:
            yield stream

    def _open(
        self,
        prompt: Prompt,
        session: Session | None,
        on_question: QuestionHandler | Literal["reader", "decline", "park"],
        deps: Any,
        *,
        read: bool,
        resumes: bool = False,
    ) -> AbstractAsyncContextManager[Stream]:
        if on_question not in ("reader", "decline", "park") and not callable(on_question):
            raise UsageError(f"on_question is 'reader', 'decline', 'park' or a function, not {on_question!r}")
        if on_question == "reader" and not read:
            raise UsageError("run() has no reader who could answer: give on_question= a function, or use stream()")
        session = _session_of(session)
        if session.ledger is None and (on_question == PARK or resumes):
            what = "resumed" if resumes else "parked"
            raise UsageError(
                f"session {session.id!r} has no journal, so no run on it can be {what}: take one from "
                "agentloop.stores.stored_session(store, id), where store may be MemoryStore()"
            )
        return open_stream(
            self,
            None if resumes else user_message(prompt),
            transcript=session.transcript,
            store=session.store,
            ledger=session.ledger,
            deps=deps,
            answerer=None if on_question == "decline" else on_question,
            read=read,
            resolve=_resolve,
        )

    def as_tool(self, *, name: str | None = None, description: str | None = None, **options: Any) -> Tool:
        """This agent as a tool of another: its argument is the prompt, its result is the answer.

        It runs as a child stream: its events are seen in the outer stream, its questions go outwards, and it draws on
        the outer limits. A run without a result is an error that the outer model reads.

        Args:
          name: of the tool; the agent's by default.
          description: what the outer model is told it is for; the agent's instructions by default.
          options: those of `tool`. There is no timeout by default: everything inside has its own deadlines.
        """

        async def delegate(prompt: str, context: ToolContext[Any]) -> Any:
            try:
                return (await context.run(self, prompt)).output
            except AgentLoopError as error:
                raise ToolError(f"agent {self.name!r} gave no answer: {error}") from error

        if description is None:
            description = self.instructions if isinstance(self.instructions, str) else ""
        options.setdefault("timeout", float("inf"))
        # What is to be done about its own calls, they say themselves.
        options.setdefault("if_interrupted", "retry")
        return Tool(
            name=name or self.name,
            description=description or f"Ask the agent {self.name}.",
            function=delegate,
            arguments=_prompt_only(),
            context_name="context",
            **options,
        )

    def replace(self, **changes: Any) -> Agent:
        """A copy with some things changed: ``agent.replace(model=other)``."""
        return attrs.evolve(self, **changes)

    def override(self, *, model: Model | str) -> AbstractContextManager[None]:
        """While the block runs, this agent runs with ``model``: ``with agent.override(model=fake): ...``.

        And without its fallbacks. For tests of code that holds an agent. It counts where a stream of this agent is
        opened, by whatever method, as a root or as a child: in this task, and in the tasks and threads that are started
        inside the block. A child is opened by a tool, which has inherited what was in force where its root stream was
        opened; so an override that is entered while a stream is read does not reach into that stream. A stream keeps
        the model that it was opened with.

        Nothing is written on the agent: tasks with different overrides do not disturb each other. Blocks may be nested
        (the innermost counts) and left in any order. A copy made by `replace` is another agent, and not meant; see
        `agentloop.testing.override_agents` for all agents at once.

        Raises:
          UsageError: ``model`` is no model.
        """
        substitute = self.replace(model=model).model
        return Override(lambda agent, given: substitute if agent is self else given)


async def _result(opening: AbstractAsyncContextManager[Stream], on_question: object) -> Outcome:
    async with opening as stream:
        outcome = await stream.wait()
        return outcome if outcome.reason == "needs_input" and on_question == PARK else stream.result


@cache
def _prompt_only() -> Signature:
    """The arguments of every agent that is a tool: read from a signature once, and not for each agent."""

    def delegate(prompt: str) -> None:
        """Delegate.

        Args:
          prompt: what the agent is to do, with all that it needs to know.
        """

    return signature_of(delegate)


def _session_of(given: object) -> Session:
    if given is None:
        return Session()
    if not isinstance(given, Session):
        raise UsageError(f"a stream runs on a Session, not on {given!r}: session=Session(...)")
    return given


def _resolve(agent: AgentConfig) -> tuple[Model, ...]:
    """The models that ``agent`` runs with here; those that its ``"provider:model"`` names stand for, if it has such.

    Raises:
      ModelNotFoundError, MissingExtraError: a sentence that says what to install or to set.
      NetworkForbiddenError: one is behind a network, which is forbidden here.
    """
    return tuple(_found(agent, model) if isinstance(model, str) else model for model in models_of(agent))


def _found(agent: AgentConfig, name: str) -> Model:
    found: Model = import_module("agentloop.providers").model_for(agent.name, name)
    return found


def run_sync(
    agent: Agent,
    prompt: Prompt,
    *,
    session: Session | None = None,
    on_question: QuestionHandler | Literal["decline"] = "decline",
    deps: Any = None,
) -> Outcome:
    """`Agent.run` for scripts: starts trio, runs the agent, and gives the result.

    Raises:
      UsageError: called from inside an event loop; ``await agent.run()`` there.
      AgentLoopError: as for `Agent.run`.
    """
    if trio.lowlevel.in_trio_run():
        raise UsageError("run_sync() starts trio, which is running here already: `await agent.run(...)` instead")
    return trio.run(partial(agent.run, prompt, session=session, on_question=on_question, deps=deps))
