"""The front door: an agent, and the ways to run it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import cache, partial
from types import NoneType
from typing import Any, Literal, Unpack, cast, overload

import attrs
import trio
from attrs import field, frozen

from agentloop._core.field_checks import shown
from agentloop._core.first_guesses import RUN_OPTIONS, explain_options, name_the_way
from agentloop._core.signature import Signature, signature_of
from agentloop._core.transcript import Transcript, flaw_of_history
from agentloop._core.typevars import AgentOutput_co, Deps, Deps_contra, Output, TypeForm
from agentloop._runtime.blocks import NamedBlock, asyncio_runs_here
from agentloop._runtime.lifecycle import IN_ASYNCIO, Override, open_stream
from agentloop._runtime.log import Journal
from agentloop._runtime.redaction import redacting_answers
from agentloop._runtime.run import PARK, READER
from agentloop._runtime.stream import Stream, StreamedText, TextBlock
from agentloop.commands import expanded
from agentloop.config import AgentConfig, check_model, tools_of
from agentloop.context import NO_DEPS, ToolContext
from agentloop.errors import AgentLoopError, SessionBusyError, ToolError, UsageError
from agentloop.messages import Prompt, UserMessage, user_message
from agentloop.models import Model, ModelSettings
from agentloop.outcome import Outcome, QuestionHandler
from agentloop.questions import Answer
from agentloop.session import Session
from agentloop.tools import Tool, ToolOptions

__all__ = ["Agent", "run_sync"]


_MAY_BE_NONE = (Any, object, NoneType)
"""The classes of deps of which ``None`` is one."""


@frozen(eq=False)
class Agent(AgentConfig[Deps_contra, AgentOutput_co]):
    """A model with instructions, tools, hooks and limits. Immutable; any number of runs can share it.

    ``Agent[Deps, Output]`` is the type of an agent whose runs take ``deps=`` of the type ``Deps``, and whose outcomes
    have an output of the type ``Output``. Both follow from ``deps_type=`` and ``output_type=``.

    Args:
      model: a `Model`, or its name, ``"provider:model"``.
      name: its name in events, and for other agents.
      instructions: the system prompt: text, or a function of a `RunInfo`: see `agentloop.run_info`.
      tools: tools, or typed functions, which become tools.
      toolsets: sources of tools, started and stopped with each stream, or functions of a `RunInfo` that give them.
      context: sources of facts that the model is kept up to date about; see `agentloop.context_sources`.
      hooks: functions at named points of a run; see `agentloop.hooks`.
      observers: objects that see the events of its runs; see `agentloop.observers`.
      permissions: rules about tool calls; see `agentloop.permissions`.
      fallbacks: models to ask, in order, if ``model`` fails; see `Retries`.
      models: models by names of the agent's own, for tools and rules: ``{"fast": "openai:gpt-5-mini"}``.
      choose_model: a function of a `RunInfo` that gives the model of each turn; see `agentloop.run_info.in_turn`.
      limits: how much a stream may use.
      deadlines: how long a stream waits for models, tools, hooks and servers.
      retries: how often a failed model request is retried.
      prices: prices by model name, which come before those of the catalogue.
      currency: the currency of ``prices``.
      settings: sampling and tool settings of every request.
      compaction: how to shorten a conversation that outgrows the model's window; ``False`` lets the run fail then.
      max_result: characters of a tool's result that the model reads at once, text files included.
      deps_type: type of the deps that the tools read; type checkers compare it with ``deps=`` and with the tools.
      output_type: type of ``result.output``: ``str`` for free text, another type for validated JSON.
      output_validators: functions that check each output, and may change it or have the model try again.
      output_deltas: whether streams emit the parts of a structured output while the model writes it.
      description: what the agent is for, in words for the models of other agents.
      commands: named prompts for the person who types; see `agentloop.commands`.
      handoffs: names of the agents that its model may hand the conversation to, in a `Team`; see `agentloop.handoffs`.
      handoff_when_done: name of the agent that gets the conversation whenever this one has answered.

    Raises:
      UsageError: an argument is wrong; the message names the value and the way out.
    """

    # As in `AgentConfig`: mypy finds the types in a converter's parameter only in the class of the field.
    tools: tuple[Tool[Any, Callable[[ToolContext[Deps_contra]], object]], ...] = field(
        default=(), kw_only=True, converter=tools_of
    )
    """Tools, or typed functions, which become tools. Their names are unique."""

    @explain_options("agent.stream", RUN_OPTIONS)
    def stream(
        self,
        prompt: Prompt | None,
        *,
        session: Session | None = None,
        on_question: QuestionHandler | Literal["reader", "decline", "park"] = READER,
        deps: Deps_contra = NO_DEPS,
        model: Model | str | None = None,
        settings: ModelSettings | None = None,
    ) -> AbstractAsyncContextManager[Stream[AgentOutput_co]]:
        """Open a stream: ``async with agent.stream("...") as stream: async for event in stream: ...``.

        When the block ends, everything that the stream started has ended.

        Args:
          prompt: text, or parts: `Text`, `Image`, `File`; or ``None`` to go on from the end of the transcript, as after
            a run that ended at a limit: see `Session.may_continue`.
          session: the session to continue; a new one if not given.
          on_question: where questions get their answers: ``"reader"``, from ``stream.answer``; a function, which is
            called with each question; ``"decline"``, nowhere: they are declined at once; or ``"park"``, when the run is
            resumed: see `resume`.
          deps: any value; tools read it as ``context.deps``, hooks and other functions as ``deps`` of their input.
          model: the model of this run, in the place of the agent's. Its fallbacks stay. Child streams keep their own,
            and a run that is resumed has it only if `resume` gets it, too.
          settings: settings of this run, over the agent's: the fields that are set replace those of the agent, and
            ``extra`` is merged. Child streams keep their own.

        Raises:
          UsageError: on entering, if the prompt is empty, the model is unknown, or the session is busy.
        """
        opening = self._open(prompt, session, on_question, deps, read=True, model=model, settings=settings)
        return NamedBlock(opening, "agent.stream(...)", "stream", "; `await agent.run(...)` gives the outcome alone")

    @explain_options("agent.stream_text", RUN_OPTIONS)
    def stream_text(
        self,
        prompt: Prompt | None,
        *,
        session: Session | None = None,
        on_question: QuestionHandler | Literal["decline", "park"] = "decline",
        deps: Deps_contra = NO_DEPS,
        model: Model | str | None = None,
        settings: ModelSettings | None = None,
    ) -> AbstractAsyncContextManager[StreamedText[AgentOutput_co]]:
        """Open a stream for its text alone, piece by piece.

        ::

            async with agent.stream_text("...") as text:
                async for piece in text:
                    print(piece, end="", flush=True)

        The text is that of `Stream.text`, and ``text.stream`` is its stream. A run without a result raises its error
        after the last piece, as `run` does, unless it was parked. Leaving the loop or the block ends the run.

        Args:
          prompt: as for `stream`.
          session: as for `stream`.
          on_question: as for `run`, since a reader of text gets no questions.
          deps: as for `stream`.
          model: as for `stream`.
          settings: as for `stream`.

        Raises:
          UsageError: as for `stream`.
        """
        if cast("object", on_question) == READER:
            raise UsageError("stream_text() gives text and no questions: give on_question= a function, or use stream()")
        return TextBlock(self._open(prompt, session, on_question, deps, read=True, model=model, settings=settings))

    @explain_options("agent.run", RUN_OPTIONS)
    async def run(
        self,
        prompt: Prompt | None,
        *,
        session: Session | None = None,
        on_question: QuestionHandler | Literal["decline", "park"] = "decline",
        deps: Deps_contra = NO_DEPS,
        model: Model | str | None = None,
        settings: ModelSettings | None = None,
    ) -> Outcome[AgentOutput_co]:
        """Run to the end and return the outcome, which has the result. The same loop as `stream`, without a reader.

        With ``on_question="park"``, the outcome's reason may also be ``needs_input``.

        Raises:
          AgentLoopError: the run ended without a result; `UsageError` as for `stream`.
        """
        opening = self._open(prompt, session, on_question, deps, read=False, model=model, settings=settings)
        return await _result(opening, on_question)

    @explain_options("agent.resume", RUN_OPTIONS)
    async def resume(
        self,
        session: Session,
        answers: Mapping[str, Answer] | None = None,
        *,
        on_question: QuestionHandler | Literal["decline", "park"] = PARK,
        deps: Deps_contra = NO_DEPS,
        model: Model | str | None = None,
        settings: ModelSettings | None = None,
    ) -> Outcome[AgentOutput_co]:
        """Resume the unfinished run of ``session``, in any process.

        That run was parked (``on_question="park"``), or its process died. Resuming repeats no finished work: it
        requests no complete response again, and makes no tool call again that has a result. A tool call that was parked
        while it waited for an answer is called again, and gets the recorded answers: see `ToolContext.recall`. If the
        process died while a call ran, its outcome is unknown, and `Tool.if_interrupted` decides about it. Child streams
        resume likewise.

        Args:
          session: a session from `agentloop.stores.stored_session`.
          answers: answers by question id, as in ``outcome.questions``. Answers that were recorded earlier, by any
            process, count as well. A question without an answer is asked again, under the same id.

        Raises:
          UnknownQuestionError: a question is not open, for instance because another process answered it.
          InvalidAnswerError: an answer is of the wrong class, or does not fit the form. Then none of them counts.
          UsageError: the session has no unfinished run.
          AgentLoopError: as for `run`.
        """
        opening = self._resume(
            session, answers, on_question=on_question, deps=deps, read=False, model=model, settings=settings
        )
        return await _result(opening, on_question)

    @explain_options("agent.resume_stream", RUN_OPTIONS)
    def resume_stream(
        self,
        session: Session,
        answers: Mapping[str, Answer] | None = None,
        *,
        on_question: QuestionHandler | Literal["reader", "decline", "park"] = READER,
        deps: Deps_contra = NO_DEPS,
        model: Model | str | None = None,
        settings: ModelSettings | None = None,
    ) -> AbstractAsyncContextManager[Stream[AgentOutput_co]]:
        """`resume`, as a stream to read. Its first event names, in ``resumes``, the stream that it resumes."""
        opening = self._resume(
            session, answers, on_question=on_question, deps=deps, read=True, model=model, settings=settings
        )
        hint = "; `await agent.resume(...)` gives the outcome alone"
        return NamedBlock(opening, "agent.resume_stream(...)", "stream", hint)

    @asynccontextmanager
    async def _resume(
        self,
        session: Session,
        answers: Mapping[str, Answer] | None,
        *,
        on_question: QuestionHandler | Literal["reader", "decline", "park"],
        deps: Deps_contra,
        read: bool,
        model: Model | str | None,
        settings: ModelSettings | None,
    ) -> AsyncGenerator[Stream[AgentOutput_co]]:
        if answers is not None and not isinstance(cast("object", answers), Mapping):
            raise UsageError(f"answers= maps ids of questions to answers, and is not {shown(answers)}")
        opening = self._open("", session, on_question, deps, read=read, model=model, settings=settings, resumes=True)
        assert session._journal is not None
        if session._transcript.holder is not None:
            raise SessionBusyError(session=session.id, stream=session._transcript.holder)
        await session._journal.accept(dict(answers or {}), await redacting_answers(self, session._transcript))
        async with opening as stream:
            yield stream

    def _open(
        self,
        prompt: Prompt | None,
        session: Session | None,
        on_question: QuestionHandler | Literal["reader", "decline", "park"],
        deps: Deps_contra,
        *,
        read: bool,
        model: Model | str | None,
        settings: ModelSettings | None,
        resumes: bool = False,
    ) -> AbstractAsyncContextManager[Stream[AgentOutput_co]]:
        if deps is None and isinstance(self.deps_type, type) and self.deps_type not in _MAY_BE_NONE:
            raise UsageError(
                f"agent {self.name!r} has deps_type={self.deps_type.__name__}, and this run has no deps: give it deps="
            )
        if on_question not in ("reader", "decline", "park") and not callable(on_question):
            raise UsageError(f"on_question is 'reader', 'decline', 'park' or a function, not {on_question!r}")
        if on_question == "reader" and not read:
            raise UsageError("run() has no reader who could answer: give on_question= a function, or use stream()")
        if model is not None:
            check_model(model)
        if settings is not None and not isinstance(cast("object", settings), ModelSettings):
            raise UsageError(f"settings= takes ModelSettings(...), not {shown(settings)}")
        if session is None:
            transcript, journal = Transcript(os.urandom(8).hex()), None
        elif isinstance(cast("object", session), Session):
            transcript, journal = session._transcript, session._journal
        else:
            raise UsageError(_no_session(session))
        if journal is None and (on_question == PARK or resumes):
            verb = "resumed" if resumes else "parked"
            raise UsageError(
                f"session {transcript.id!r} has no journal, so no run on it can be {verb}: take one from "
                "agentloop.stores.stored_session(store, id), where store may be MemoryStore()"
            )
        continues = prompt is None and not resumes
        if continues:
            _check_continues(transcript, journal)
        return open_stream(
            self,
            None if resumes else UserMessage(()) if prompt is None else user_message(prompt),
            transcript=transcript,
            journal=journal,
            deps=deps,
            answerer=None if on_question == "decline" else on_question,
            read=read,
            model=model,
            settings=settings,
            continues=continues,
        )

    def expand(self, typed: Prompt) -> UserMessage:
        """The prompt that a person means by what they typed: that of a command for ``/name arguments``.

        ::

            outcome = await agent.run(agent.expand("/fix 12"))

        `run` and `stream` take a prompt as it is, since programs write prompts, too. See `agentloop.commands`.

        Raises:
          UnknownCommandError: the agent has commands, and none of this name.
          UsageError: the prompt is empty.
        """
        return expanded(self.commands, user_message(typed))

    def as_tool(
        self, *, name: str | None = None, description: str | None = None, **options: Unpack[ToolOptions]
    ) -> Tool[Callable[[str, ToolContext[Any]], Awaitable[Any]], Callable[[ToolContext[Deps_contra]], object]]:
        """Make a tool of this agent, for another one: its argument is the prompt, its result is the answer.

        It runs as a child stream: its events appear in the outer stream, its questions go outwards, and it draws on the
        outer limits. If the run has no result, the outer model reads the error.

        Args:
          name: name of the tool; the agent's own by default.
          description: what the tool is for, in words for the outer model; by default the agent's description, or
            its instructions.
          options: options of `Tool`. There is no timeout by default, since everything inside has its own deadlines.
        """

        async def delegate(prompt: str, context: ToolContext[Any]) -> Any:
            try:
                outcome = await context.run(self, prompt)
            except AgentLoopError as error:
                raise ToolError(f"agent {self.name!r} gave no answer: {error}") from error
            if outcome.detail and isinstance(outcome.output, str):
                # An answer that is empty, or was cut off: the outer model must not take it for a whole one.
                return f"{outcome.output}\n\n[{outcome.detail}]".lstrip()
            return outcome.output

        if description is None:
            description = self.description or (self.instructions if isinstance(self.instructions, str) else "")
        options.setdefault("timeout", float("inf"))
        # A retry resumes the child; each call inside it decides about itself.
        options.setdefault("if_interrupted", "retry")
        return Tool(
            name=name or self.name,
            description=description or f"Ask the agent {self.name}.",
            function=delegate,
            arguments=_prompt_only(),
            context_name="context",
            agents=(self,),
            **options,
        )

    @overload
    def replace(
        self, *, deps_type: TypeForm[Deps], output_type: TypeForm[Output], **changes: Any
    ) -> Agent[Deps, Output]: ...
    @overload
    def replace(self, *, deps_type: TypeForm[Deps], **changes: Any) -> Agent[Deps, AgentOutput_co]: ...
    @overload
    def replace(self, *, output_type: TypeForm[Output], **changes: Any) -> Agent[Deps_contra, Output]: ...
    @overload
    def replace(self, **changes: Any) -> Agent[Deps_contra, AgentOutput_co]: ...
    def replace(self, **changes: Any) -> Agent[Any, Any]:
        """Make a copy with some fields changed: ``agent.replace(model=other)``."""
        return attrs.evolve(self, **changes)

    def override(self, *, model: Model | str) -> AbstractContextManager[None]:
        """While the block runs, this agent runs with ``model``: ``with agent.override(model=fake): ...``.

        The agent's fallbacks are not asked. This is for tests of code that holds an agent. The override applies to
        every stream of this agent that is opened, as a root or as a child, in this task and in tasks and threads
        started inside the block. A child stream inherits the overrides of the place where its root stream was opened,
        so an override that is entered while a stream is read does not reach that stream. A stream keeps the model that
        it was opened with.

        The agent itself does not change, so tasks with different overrides do not disturb each other. Blocks may be
        nested (the innermost counts) and left in any order. A copy made by `replace` is another agent, without the
        override; see `agentloop.testing.override_agents` for all agents at once.

        Raises:
          UsageError: ``model`` is not a model.
        """
        substitute = self.replace(model=model).model
        return Override(lambda agent, model_now: substitute if agent is self else model_now)


_RUN_SYNC = "write run_sync(agent, prompt)"
_STREAM = "write `async with agent.stream(prompt) as stream:`, and inside of it `async for event in stream:`"
_TOOL = "write @tool over the function, and give it to Agent(tools=[...])"

name_the_way(
    Agent,
    {
        "run_sync": _RUN_SYNC,
        "invoke": _RUN_SYNC,
        "ainvoke": "write `await agent.run(prompt)`",
        "run_stream": _STREAM,
        "run_stream_events": _STREAM,
        "run_streamed": _STREAM,
        "astream": _STREAM,
        "astream_events": _STREAM,
        "iter": _STREAM,
        "tool": _TOOL,
        "tool_plain": _TOOL,
        "output_validator": "write a function, and give it to Agent(output_validators=[...])",
        "toolset": "write a function of a RunInfo, and give it to Agent(toolsets=[...])",
        "system_prompt": "give Agent(instructions=...) a text, or a function of a RunInfo",
        "clone": "write agent.replace(model=...)",
        "with_config": "write agent.replace(...), or give agent.run(...) a model= or settings= of its own",
    },
)
_explain_options = explain_options(
    "Agent",
    {
        "system_prompt": "it is called instructions= here",
        "prompt": "what the agent is goes to instructions=, and what it is to do to agent.run(prompt)",
        "context_type": "it is called deps_type= here",
        "result_type": "it is called output_type= here",
        "response_format": "it is called output_type= here",
        "model_settings": "it is called settings= here, with ModelSettings(...)",
        "tool_search": "it is called deferred= here, with Deferred(...)",
        "mcp_servers": "it is called toolsets= here, with McpServer.stdio(...) or McpServer.http(...)",
        "sub_agents": "give tools=[other.as_tool()]",
        "input_guardrails": "give hooks=, with a function at hooks.user_prompt_submit",
        "output_guardrails": "give hooks=, with a function at hooks.stop",
        "middleware": "give hooks=: see agentloop.hooks",
        "checkpointer": "give agent.run(prompt, session=...) a session from agentloop.stores.stored_session",
        "max_turns": "give limits=Limits(turns=...)",
        "output_retries": "give limits=Limits(output_attempts=...), in which the first attempt counts",
        "usage_limits": "it is called limits= here, with Limits(...)",
        "result_validators": "it is called output_validators= here",
        "response_model": "it is called output_type= here",
        "context_schema": "it is called deps_type= here",
    },
)
Agent.__init__ = _explain_options(Agent.__init__)  # type: ignore[method-assign]


def _no_session(value: object) -> str:
    if isinstance(value, NamedBlock):
        return f"this session is not open yet: write `async with {value.call} as {value.value}:`"
    if callable(getattr(value, "acquire", None)) or callable(getattr(value, "open", None)):
        return "a stream runs on a session, not on a store: session=stored_session(store, id), opened with `async with`"
    ways = "session=Session(...) keeps it in memory, and stored_session(store, id) in a store"
    return f"a stream runs on a Session, not on {shown(value)}: {ways}"


async def _result(opening: AbstractAsyncContextManager[Stream[Output]], on_question: object) -> Outcome[Output]:
    async with opening as stream:
        outcome = await stream.wait()
        return outcome if outcome.reason == "needs_input" and on_question == PARK else stream.result


def _check_continues(transcript: Transcript, journal: Journal | None) -> None:
    """Raise `UsageError` if no run can go on from the end of ``transcript`` without a prompt."""
    flaw = flaw_of_history(transcript.messages)
    if journal is not None and journal.has_unfinished_run:
        raise UsageError(
            f"session {transcript.id!r} has an unfinished run: resume it, and do not go on without a prompt"
        )
    if flaw:
        raise UsageError(
            f"prompt=None goes on from the messages of session {transcript.id!r}, but {flaw}: give a prompt"
        )


@cache
def _prompt_only() -> Signature:
    """The arguments of every agent that is a tool; cached, because all are equal."""

    def delegate(prompt: str) -> None:
        """Delegate.

        Args:
          prompt: the task, with everything that the agent needs to know.
        """

    return signature_of(delegate)


@explain_options("run_sync", RUN_OPTIONS)
def run_sync(
    agent: Agent[Deps, Output],
    prompt: Prompt | None,
    *,
    session: Session | None = None,
    on_question: QuestionHandler | Literal["decline"] = "decline",
    deps: Deps = NO_DEPS,
    model: Model | str | None = None,
    settings: ModelSettings | None = None,
) -> Outcome[Output]:
    """`Agent.run` for scripts: start trio, run the agent and return its outcome.

    Args:
      agent: the agent to run.
      prompt: as for `Agent.stream`.
      session: as for `Agent.stream`.
      on_question: as for `Agent.stream`, without ``"reader"``: a script has none.
      deps: as for `Agent.stream`.
      model: as for `Agent.stream`.
      settings: as for `Agent.stream`.

    Raises:
      UsageError: trio is running already, where ``await agent.run(...)`` is right; or asyncio is, where
        ``await agentloop.asyncio.run(agent, ...)`` is.
      AgentLoopError: the run ended without a result, as for `Agent.run`.
    """
    if not isinstance(cast("object", agent), Agent):
        raise UsageError(f"run_sync() takes an agent, and then its prompt, not {shown(agent)}")
    if asyncio_runs_here():
        raise UsageError(f"run_sync() would block this asyncio loop until the run has ended: write {IN_ASYNCIO}")
    if trio.lowlevel.in_trio_run():
        raise UsageError("run_sync() starts trio, which is running here already: `await agent.run(...)` instead")
    options: dict[str, Any] = {"deps": deps, "model": model, "settings": settings}
    return trio.run(partial(agent.run, prompt, session=session, on_question=on_question, **options))
