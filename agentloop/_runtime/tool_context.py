"""The `ToolContext` that a running tool gets."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any, Literal, Protocol, TypeVar, cast

import attrs
import msgspec
import trio

from agentloop._core.field_checks import FieldError, checked, shown
from agentloop._core.foreign_errors import describe
from agentloop._core.forms import check_form, form_of, read_form
from agentloop._core.json_text import decode_json, decode_own
from agentloop._core.pydantic_types import encode_json
from agentloop._core.questions import AskedQuestion
from agentloop._core.results import to_text
from agentloop._core.secrets import HeldText
from agentloop._core.state import ValueRemembered
from agentloop._core.type_hints import read_as, spelled_out
from agentloop._core.typevars import TypeForm
from agentloop._runtime.background import StartedRun, start_background, started_runs
from agentloop._runtime.blocks import NamedBlock, PausableDeadline
from agentloop._runtime.model_call import RequestRefusedError, ask as ask_model
from agentloop._runtime.questions import ask
from agentloop._runtime.run import Run, flush
from agentloop.config import AgentConfig
from agentloop.context import AgentBase, ToolContext
from agentloop.errors import (
    BlockedError,
    InvalidAnswerError,
    LimitReachedError,
    StreamStateError,
    UsageError,
)
from agentloop.events import ElicitationRequested, Source, StreamReason, ToolCallOutput, ToolCallProgress
from agentloop.messages import AssistantMessage, Prompt
from agentloop.models import Model, ModelRequest
from agentloop.outcome import BackgroundRun, ChildStream, Outcome, QuestionHandler
from agentloop.questions import Accept, Answer, Cancel, Decline

__all__ = ["OwnsRuns", "RunningContext", "calling_agent", "runs_of_block", "start_in_block"]

T = TypeVar("T")

_YES_OR_NO: Mapping[str, Any] = {"type": "object", "properties": {}}


def _argument(name: str, kind: Any, value: object) -> Any:
    """An argument of a method of the context, checked: an event of a wrong value could not be read from a journal."""
    try:
        return checked(kind, value, name)
    except FieldError as error:
        raise UsageError(str(error)) from error


def _encoded(what: str, value: object) -> bytes:
    """``value`` as JSON that can be read back. ``what`` names it in the error."""
    try:
        encoded = encode_json(value, by_alias=True)
        decode_json(encoded, msgspec.Raw)
    # The value is of the tool's own classes, whose encoding may raise anything.
    except Exception as error:
        raise UsageError(f"{what} has no JSON form: {describe(error)}") from error
    return encoded


def _read_saved(what: str, type: TypeForm[T], value: Any) -> T:
    """The JSON ``value`` as an instance of ``type``. ``what`` names it in the error."""
    try:
        return cast("T", read_as(spelled_out(type), value))
    except msgspec.DecodeError as error:
        raise UsageError(f"{what} is no {getattr(type, '__name__', type)}: {error}") from error


def _put_back(run: Run, value: Any) -> Any:
    """A saved JSON ``value`` with its secrets. Raises `ArgumentsError` if this process does not know one."""
    return value if run.redactor is None else run.redactor.put_back(value)


def _owner(run: Run, *, own: bool) -> str:
    """The owner of a session's value: the session itself, or the child run ``run``."""
    return run.transcript.id if own and run.parent is not None else ""


def calling_agent(context: ToolContext[Any]) -> AgentConfig[Any, Any]:
    """The agent whose model made the call, with the models and the settings of its run."""
    assert isinstance(context, RunningContext)
    run = context._live_run()
    model, *fallbacks = run.originals
    return attrs.evolve(run.config, model=model, fallbacks=fallbacks, settings=run.settings)


class OwnsRuns(Protocol):
    """A block that owns background runs: `agentloop._runtime.background_blocks.BackgroundBlock`."""

    def runs_for(self, run: Run) -> Sequence[StartedRun]:
        """The runs of the session of ``run`` whose end no stream has reported."""
        ...

    async def start(
        self, run: Run, call_id: str, agent: AgentBase[Any, Any], prompt: Prompt, on_question: QuestionHandler | None
    ) -> StartedRun:
        """Start a run for a call of ``run``."""
        ...


async def start_in_block(
    context: ToolContext[Any],
    block: OwnsRuns,
    agent: AgentBase,
    prompt: Prompt,
    /,
    *,
    on_question: QuestionHandler | None = None,
) -> BackgroundRun[Any]:
    """Start a background run that belongs to ``block``, as `ToolContext.start` starts one that belongs to the run.

    Raises as that does; `StreamStateError` also if the block has ended.
    """
    assert isinstance(context, RunningContext)
    with context._use() as run:
        return _Background(context, await block.start(run, context.call_id, agent, prompt, on_question))


def runs_of_block(context: ToolContext[Any], block: OwnsRuns, /) -> tuple[BackgroundRun[Any], ...]:
    """The background runs of ``block`` whose end no stream has reported: those of the session of the call."""
    assert isinstance(context, RunningContext)
    return tuple([_Background(context, started) for started in block.runs_for(context._live_run())])


class _AskedForm(AskedQuestion):
    """A question whose answer must make an instance of a class: the validators of the class refuse other answers."""

    __slots__ = ("_form",)

    def __init__(self, event: ElicitationRequested, form: type[Any]) -> None:
        super().__init__(event)
        self._form = form

    def check(self, answer: Answer) -> Answer:
        answer = super().check(answer)
        if isinstance(answer, Accept):
            try:
                read_form(self._form, answer.content)
            except ValueError as error:
                raise InvalidAnswerError(question=self.id, problem=str(error)) from error
        return answer


class RunningContext(ToolContext[Any]):
    """The context of one call, valid until the call has ended."""

    __slots__ = (
        "_call_id",
        "_deadline",
        "_ended",
        "_held",
        "_record_start",
        "_run",
        "_uses",
        "_waiting_for_uses",
        "is_start_recorded",
    )

    def __init__(
        self, run: Run, call_id: str, deadline: PausableDeadline, record_start: Callable[[], Awaitable[None]]
    ) -> None:
        self._run = run
        self._record_start = record_start
        self.is_start_recorded = False
        """Whether the journal has the start of the call in this opening of the run."""
        self._call_id = call_id
        self._deadline = deadline
        self._ended = False
        self._uses: set[trio.CancelScope] = set()
        """The cancel scopes of the uses that wait inside the context."""
        self._waiting_for_uses: trio.Event | None = None
        self._held: HeldText | None = None
        """The end of the output, held back for a secret in it; ``None`` if the run does not redact."""

    def end(self) -> bool:
        """End the context, because the call has ended: later uses raise.

        Returns:
          Whether a use still waits inside it; then await `wait_for_uses`.
        """
        self._ended = True
        if self._held is not None and (rest := self._held.flush()):
            self._run.emit(ToolCallOutput, call_id=self._call_id, text=rest)
        return bool(self._uses)

    async def wait_for_uses(self) -> None:
        """Cancel what still waits inside the context, and wait for its end."""
        self._waiting_for_uses = trio.Event()
        # Not the tool's own tasks, which have ended. But what a thread that was abandoned asked for runs in a system
        # task of trio's, and the context may have been handed to a task elsewhere: both would outlive the stream.
        for scope in self._uses:
            scope.cancel()
        with trio.CancelScope(shield=True):
            await self._waiting_for_uses.wait()

    @contextmanager
    def _use(self) -> Generator[Run]:
        """A use that waits in here ends with the call, in whichever task it is."""
        run = self._live_run()
        scope = trio.CancelScope()
        self._uses.add(scope)
        try:
            with scope:
                yield run
        finally:
            self._uses.discard(scope)
            if self._waiting_for_uses is not None and not self._uses:
                self._waiting_for_uses.set()
        if scope.cancelled_caught:
            self._live_run()

    def _live_run(self) -> Run:
        if self._ended:
            raise StreamStateError(f"call {self._call_id!r} has ended, and its context with it")
        return self._run

    @property
    def source(self) -> Source:
        return self._run.source

    @property
    def call_id(self) -> str:
        return self._call_id

    @property
    def idempotency_key(self) -> str:
        # Not the stream's id, since a resumed call has another stream. With the root's session, because a child
        # stream's session has the same name in a fork.
        root, own = self._run.root.session.id, self._run.transcript.id
        return f"{own}#{self._call_id}" if own == root else f"{root}:{own}#{self._call_id}"

    @property
    def deps(self) -> Any:
        return self._run.root.deps

    async def output(self, text: str, /) -> None:
        run, text = self._live_run(), to_text(text)
        if run.redactor is not None:
            if self._held is None:
                self._held = HeldText(run.redactor, by_line=True)
            text = self._held.feed(text)
        if text or run.redactor is None:
            run.emit(ToolCallOutput, call_id=self._call_id, text=text)
        await self._room()

    async def progress(self, progress: float, /, *, total: float | None = None, message: str = "") -> None:
        progress, message = _argument("progress()", float, progress), _argument("progress(message=)", str, message)
        total = _argument("progress(total=)", float | None, total)
        self._live_run().emit(ToolCallProgress, call_id=self._call_id, progress=progress, total=total, message=message)
        await self._room()

    async def _room(self) -> None:
        # Also if no reader lags: a tool that works without a pause, and reports progress, must notice a cancel or its
        # deadline.
        await trio.lowlevel.checkpoint()
        if self._run.writer.readers_lag:
            # A reader that is slow is not the tool's fault.
            with self._use() as run, self._deadline.paused():
                await run.writer.wait_for_readers()

    async def ask(self, message: str, form: Mapping[str, Any] | None = None, /) -> Accept | Decline | Cancel:
        if form is not None and not isinstance(cast("object", form), Mapping):
            raise UsageError(
                f"ask(form) is a JSON Schema of an object, as a dict, not {shown(form)}: for a choice give ask_for() a "
                "class with a field of type Literal[...]"
            )
        schema = _argument("ask(form)", dict[str, Any], dict(_YES_OR_NO if form is None else form))
        check_form(schema)
        return await self._ask(_argument("ask(message)", str, message), schema)

    async def ask_url(self, message: str, url: str, /) -> Accept | Decline | Cancel:
        url = _argument("ask_url(url)", str, url)
        if not url.lower().startswith(("http://", "https://")):
            raise UsageError(f"ask_url() takes the address of a web page, not {url!r}")
        return await self._ask(_argument("ask_url(message)", str, message), dict(_YES_OR_NO), url)

    async def _ask(
        self, message: str, schema: dict[str, Any], url: str | None = None, *, form: type[Any] | None = None
    ) -> Accept | Decline | Cancel:
        answer: Answer | None = None
        with self._use() as run:
            event = ElicitationRequested(
                run.source, 0, id="", call_id=self._call_id, message=message, form=schema, url=url
            )
            question = AskedQuestion(event) if form is None else _AskedForm(event, form)
            try:
                answer = await ask(run, question, self._deadline)
            except BaseException:
                # The tool's own deadline may have passed, and the tool may continue: not where the store has failed.
                await self._keep_end_of_question(run)  # noqa: ASYNC102 - it shields itself
                raise
            await self._keep_end_of_question(run)
        if answer is None:
            return Decline(question.refusal)
        assert isinstance(answer, (Accept, Decline, Cancel))
        return answer

    async def _keep_end_of_question(self, run: Run) -> None:
        """The tool is about to act on it: were it lost, the call would be taken for one that still waits."""
        if not run.root.questions.is_parked:
            await flush(run)

    @contextmanager
    def paused_deadline(self, *, parks: bool = True) -> Generator[None]:
        run = self._live_run()
        waits = run.state.waiting(self._call_id) if parks else nullcontext()
        with waits, self._deadline.paused():
            run.root.questions.notify()
            yield

    async def record_start(self) -> None:
        self._live_run()
        if self.is_start_recorded:
            await trio.lowlevel.checkpoint()
            return
        await self._record_start()
        self.is_start_recorded = True

    def restart_deadline(self, *, at_most: float = math.inf) -> None:
        self._live_run()
        self._deadline.restart(at_most)

    def recall(self, name: str, type: TypeForm[T], /) -> T | None:
        run = self._live_run()
        value = run.state.calls[self._call_id].remembered.get(name)
        if value is None:
            return None
        return _read_saved(f"what is remembered as {name!r}", type, _put_back(run, decode_own(value)))

    async def remember(self, name: str, value: object, /) -> None:
        run, name = self._live_run(), _argument("remember(name)", str, name)
        encoded = _encoded(f"the value to remember as {name!r}", value)
        if run.redactor is not None:
            encoded = run.redactor.json(encoded.decode()).encode()
        run.note(ValueRemembered(self._call_id, name, encoded))
        await flush(run)
        await trio.lowlevel.checkpoint()

    def session_value(self, name: str, type: TypeForm[T], /, *, own: bool = False) -> T | None:
        run = self._live_run()
        value = run.root.session.values.get(_owner(run, own=own), {}).get(name)
        return None if value is None else _read_saved(f"the session's value {name!r}", type, _put_back(run, value))

    async def save_session_value(self, name: str, value: object, /, *, own: bool = False) -> None:
        run, name = self._live_run(), _argument("save_session_value(name)", str, name)
        encoded = _encoded(f"the value to save as {name!r}", value)
        # Decoded, since the tool may change its own object later.
        decoded = decode_json(encoded)
        if run.redactor is not None:
            decoded = run.redactor.value(decoded)
        run.root.session.save_value(_owner(run, own=own), name, decoded)
        # The journal writer saves the session's values with the next entry of the log: this one, in one transaction.
        run.note(ValueRemembered(self._call_id, name, b"true"))
        await flush(run)
        await trio.lowlevel.checkpoint()

    async def ask_model(self, request: ModelRequest, /, *, model: Model | None = None) -> AssistantMessage:
        with self._use() as run:
            models = None if model is None else (model,)
            try:
                message = await ask_model(
                    run, request, purpose="tool", call_id=self._call_id, models=models, deadline=self._deadline
                )
            except RequestRefusedError as refusal:
                error = BlockedError if refusal.reached is None else LimitReachedError
                raise error(str(refusal)) from None
        return message

    def warn(self, code: str, message: str, /) -> None:
        code, message = _argument("warn(code)", str, code), _argument("warn(message)", str, message)
        self._live_run().warn(code, message, logged=f"a warning of call {self._call_id!r}")

    async def ask_for(self, message: str, form: type[T], /) -> T | Decline | Cancel:
        answer = await self._ask(_argument("ask_for(message)", str, message), form_of(form), form=form)
        return read_form(form, answer.content) if isinstance(answer, Accept) else answer

    def stream(
        self, agent: AgentBase, prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> AbstractAsyncContextManager[ChildStream]:
        hint = "; `await context.run(...)` gives the outcome alone"
        return NamedBlock(self._open(agent, prompt, on_question, read=True), "context.stream(...)", "child", hint)

    async def run(self, agent: AgentBase, prompt: Prompt, /, *, on_question: QuestionHandler | None = None) -> Outcome:
        async with self._open(agent, prompt, on_question, read=False) as child:
            await child.wait()
            return child.result

    @asynccontextmanager
    async def _open(
        self, agent: AgentBase, prompt: Prompt, on_question: QuestionHandler | None, *, read: bool
    ) -> AsyncGenerator[ChildStream]:
        with self._use() as run:
            opening = run.root.open_child(run, self._call_id, self._deadline, agent, prompt, on_question, read)
            async with opening as child:
                yield child

    async def start(
        self, agent: AgentBase, prompt: Prompt, /, *, on_question: QuestionHandler | None = None
    ) -> BackgroundRun:
        with self._use() as run:
            return _Background(self, await start_background(run, self._call_id, agent, prompt, on_question))

    @property
    def background(self) -> tuple[BackgroundRun, ...]:
        return tuple([_Background(self, started) for started in started_runs(self._live_run())])

    async def wait_for(self, started: StartedRun) -> None:
        """Wait for the end of a background run.

        Raises:
          StreamStateError: the call is inside that run, which would wait for the call.
        """
        # A person may be what it waits for: then the call waits for a person, too.
        with self._use() as run, run.state.waiting(self._call_id):
            run.root.questions.notify()
            if _is_inside(run, started):
                await trio.lowlevel.checkpoint()
                raise StreamStateError(f"background run {started.id!r} cannot wait for its own end")
            await started.ended.wait()


def _is_inside(run: Run, started: StartedRun) -> bool:
    """Whether ``run`` is ``started``, or one of its children, which list it where they use the block that it is of."""
    around: Run | None = run
    while around is not None and around.state is not started.state:
        around = around.parent
    return around is not None


class _Background(BackgroundRun[Any]):
    """A background run, for one call."""

    __slots__ = ("_context", "_started")

    def __init__(self, context: RunningContext, started: StartedRun) -> None:
        self._context = context
        self._started = started

    @property
    def id(self) -> str:
        return self._started.id

    @property
    def agent(self) -> str:
        return self._started.agent_name

    @property
    def call_id(self) -> str:
        return self._started.call_id

    @property
    def status(self) -> Literal["running"] | StreamReason:
        outcome = self._started.outcome
        return "running" if outcome is None else outcome.reason

    @property
    def text(self) -> str:
        return self._started.text_for(self._context._run)

    @property
    def outcome(self) -> Outcome[Any]:
        outcome = self._started.outcome
        if outcome is None:
            raise StreamStateError(f"background run {self.id!r} is still running: await wait()")
        return outcome

    def steer(self, message: Prompt, /) -> None:
        if self._started.outcome is not None or self._started.stream is None:
            raise StreamStateError(f"background run {self.id!r} has ended: start another one with this message")
        self._started.stream.steer(message)

    def stop(self, detail: str = "") -> None:
        if self._started.stream is not None:
            self._started.stream.stop(detail)

    async def wait(self) -> Outcome[Any]:
        await self._context.wait_for(self._started)
        return self.outcome

    def __repr__(self) -> str:
        return f"<background run {self.id}: {self.status}>"
