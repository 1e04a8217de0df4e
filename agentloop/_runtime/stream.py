"""The handle of a running stream: read it, answer its questions, steer, stop or park it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, NoReturn, cast

from agentloop._core.field_checks import FieldError, checked, shown
from agentloop._core.first_guesses import name_the_way, refuse
from agentloop._core.typevars import Output_co
from agentloop._runtime import pauses, questions
from agentloop._runtime.background import started_runs
from agentloop._runtime.blocks import require_trio
from agentloop._runtime.run import Run
from agentloop.errors import StreamStateError, UnknownQuestionError, UsageError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    Question,
    Source,
    StreamEvent,
    TextDelta,
    ToolsetStatus,
)
from agentloop.messages import Prompt, Usage, user_message
from agentloop.outcome import Outcome, error_of
from agentloop.questions import Answer

__all__ = ["Stream", "StreamedText", "TextBlock"]

READ_IN_ASYNCIO = "`async with agentloop.asyncio.stream(agent, prompt) as stream:`, whose stream asyncio reads"

READ_TEXT = "`async with agent.stream_text(prompt) as text:`, and in the block `async for piece in text:`"


class Stream(Generic[Output_co]):
    """A running stream: read it, answer its questions, stop it. Valid inside the block that opened it.

    Reading it (``async for event in stream``) gives every event up to `StreamStopped`, which always comes, once.
    After that the loop ends, or raises the error that made the run fail. Leaving the block, in whatever way,
    stops the run and returns when everything that it started has ended.
    """

    __slots__ = ("_error_raised", "_is_waiting", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._is_waiting = False
        """Whether a task waits for the next event."""
        self._error_raised = False

    @property
    def id(self) -> str:
        """The stream's id, unique."""
        return self._run.source.stream

    @property
    def source(self) -> Source:
        """The origin that its events carry."""
        return self._run.source

    @property
    def usage(self) -> Usage:
        """Usage of the stream and its children so far."""
        return self._run.meter.usage

    @property
    def pending(self) -> tuple[Question, ...]:
        """The questions that are open now, here and in child streams, oldest first."""
        return questions.pending(self._run)

    @property
    def outcome(self) -> Outcome[Output_co]:
        """How the run ended.

        Raises:
          StreamStateError: it has not.
        """
        if self._run.outcome is None:
            raise StreamStateError(f"stream {self.id!r} is still running: read it to its end, or await wait()")
        return self._run.outcome

    @property
    def result(self) -> Outcome[Output_co]:
        """The outcome of a run that has a result.

        Raises:
          StreamStateError: the run has not ended.
          AgentLoopError: it ended without a result: what made it fail, or `CancelledRunError`, `BlockedError`,
            `LimitReachedError`.
        """
        outcome = self.outcome
        error = error_of(outcome)
        if error is not None:
            raise error
        return outcome

    @property
    def partial(self) -> Any:
        """The structured output so far, as the model writes it: plain JSON data, not yet a value of ``output_type``.

        ``None`` before it begins, and always if ``output_type`` is ``str``, whose pieces `text` gives. Numbers and
        words are left out until they are whole; texts are there from their first character. The model may be ahead of
        the events that were read. Each value is one of its own, whose finished parts later values share: do not change
        it. Nothing is parsed unless this is read, and no text twice.
        """
        partial = self._run.open_partial()
        return None if partial is None else partial.value

    def answer(self, question: str | Question, answer: Answer, /) -> None:
        """Answer an open question of this stream, or of a stream inside it, exactly once.

        Any task may answer, in any order. It does not wait.

        Args:
          question: the question's event, or its id.
          answer: the answer: `Approve` or `Deny`, or `Accept`, `Decline` or `Cancel`.

        Raises:
          UnknownQuestionError: the question is not open.
          InvalidAnswerError: the answer is of the wrong class, or does not fit the form; the question stays open.
        """
        id = (
            question.id
            if isinstance(question, (ApprovalRequested, ElicitationRequested, ContinueRequested))
            else question
        )
        if not isinstance(cast("object", id), str):
            raise UnknownQuestionError(given=shown(id), open_ids=[pending.id for pending in self.pending])
        questions.answer(self._run, id, answer)

    def steer(self, message: Prompt, /) -> None:
        """Have the model read ``message`` with its next request: after the tool calls that run now, if any.

        A run that would stop continues with it. Any task may call this; it does not wait. Messages that the run ends
        without reading are in ``outcome.undelivered``.

        Raises:
          StreamStateError: the run has ended, or 20 such messages wait already.
          UsageError: the message is empty.
        """
        self._run.mailbox.steer(user_message(message))

    def follow_up(self, message: Prompt, /) -> None:
        """Continue with ``message`` when the run would stop. Each of several gets an answer of its own, in order.

        Raises as `steer` does.
        """
        self._run.mailbox.follow_up(user_message(message))

    def stop(self, detail: str = "") -> None:
        """End the run, with reason ``cancelled``. The reader still gets every event up to the last one.

        Args:
          detail: why; it becomes `StreamStopped.detail`.
        """
        try:
            detail = checked(str, detail, "stop(detail)")
        except FieldError as error:
            raise UsageError(str(error)) from error
        if not self._run.stopped:
            self._run.stopped = True
            self._run.stop_detail = detail
        self._run.cancel()

    def stop_background(self, id: str, detail: str = "") -> None:
        """End a background run of this stream, with reason ``cancelled``. The stream goes on; its model reads of it.

        Any task may call this; it does not wait.

        Args:
          id: the id of the background run: `ChildStreamStarted.background`.
          detail: why; it becomes `ChildStreamStopped.detail`.

        Raises:
          StreamStateError: no background run of that id is running; the message has those that are.
          UsageError: ``detail`` is no text.
        """
        try:
            detail = checked(str, detail, "stop_background(detail)")
        except FieldError as error:
            raise UsageError(str(error)) from error
        running = {run.id: run.stream for run in started_runs(self._run) if run.outcome is None}
        child = running.get(id)
        if child is None:
            there = ", ".join(running) or "none"
            raise StreamStateError(f"stream {self.id!r} has no background run {shown(id)} that runs; running: {there}")
        child.stop(detail)

    def pause(self) -> None:
        """Have the run hold at its next boundary, until `resume`: before a turn, a request to a model, or a tool.

        A response or a tool that runs already continues to its end. Child runs hold, too. While it holds, its time
        limit (`Limits.seconds`) and the deadlines of its calls stand still. Questions can be answered; steering is read
        when it goes on; `stop`, `park` and leaving the block end it as ever. Any task may call this, also before the
        first event; it does not wait. Nothing happens if the run is paused, or has ended.

        The pause belongs to this stream, and not to the journal: a run that is parked, or whose process dies, is
        resumed by `Agent.resume` and is not paused then.
        """
        pauses.pause(self._run)

    def resume(self) -> None:
        """End the pause: the run goes on. Nothing happens if it is not paused. It does not wait.

        A child stream whose parent is paused holds until that goes on, too. `Agent.resume` is for runs that have ended.
        """
        pauses.resume(self._run)

    @property
    def is_paused(self) -> bool:
        """Whether the run is paused, by `pause` on this stream or on one around it. It may not have held yet."""
        return self._run.outcome is None and pauses.is_paused(self._run)

    @property
    def toolsets(self) -> tuple[ToolsetStatus, ...]:
        """The toolsets of the agent that acts, as they are now, in their order; of shared ones, those inside.

        Any task may read it, also after the end. A `ToolsetChanged` event says when one of them changes; in the first
        turn, all that have had no such event are ready.
        """
        return () if self._run.toolsets is None else self._run.toolsets.statuses

    async def restart_toolset(self, name: str) -> None:
        """Stop a toolset of the agent that acts, and start it again: a server that hangs, or whose program is new.

        Calls of its tools that run end first, with an error that says so, and so does each later one of this turn;
        the next turn has the tools that it lists then. A shared toolset is started again for all who use it. A start
        that hangs is given up for a new one. If the caller is cancelled, the restart goes on. If it fails, it is tried
        once more before the next turn.

        Args:
          name: the name of the toolset; see `toolsets`.

        Raises:
          UsageError: there is no such toolset, or there are several.
          ToolsetError: it did not start, or its stream has ended.
        """
        require_trio("a toolset is restarted", in_asyncio="`await host.call(stream.restart_toolset, name)`")
        if self._run.toolsets is None:
            raise UsageError(f"no toolset is called {shown(name)}: agent {self._run.config.name!r} has none open")
        await self._run.toolsets.restart(name)

    def park(self) -> None:
        """Leave open and future questions to the process that resumes the run: see `Agent.resume`.

        Work that does not wait for an answer continues. When the run is idle, it ends, with reason ``needs_input``; it
        may also end for another reason before. Questions that go to a handler still do. A run that is paused is idle
        when it holds, also without a question: resuming it continues it.

        Raises:
          UsageError: the session has no journal; or this is a child stream, which is parked with the one around it.
        """
        run = self._run
        if run.parent is not None or run.root.journal is None:
            why = "it is a child stream" if run.parent is not None else "its session has no journal"
            raise UsageError(f"stream {self.id!r} cannot be parked: {why}")
        run.root.questions.allow_parking(lambda: run.state.is_idle, run.cancel)
        run.root.questions.leave_to_resume()

    async def wait(self) -> Outcome[Output_co]:
        """Wait for the end of the run without reading: unread and future events are dropped.

        Without a reader, questions that would go to it are declined. Raises nothing for a run that failed; see
        `result`.
        """
        require_trio("a stream is awaited", in_asyncio=READ_IN_ASYNCIO)
        self._drop_events()
        await self._run.ended.wait()
        return self.outcome

    def _drop_events(self) -> None:
        if self._run.events is not None:
            self._run.events.close()
        if self._run.parent is None:
            self._run.root.questions.lose_reader()

    def text(self) -> StreamedText[Output_co]:
        """The answer's text, piece by piece: ``async for text in stream.text()``.

        Only the text of this stream, without that of child streams, reasoning and tools. It reads the stream, so all
        other events are passed over, questions too, and it ends, or raises, as reading the stream does. If a response
        fails half-way and is requested again, its text begins again. `Agent.stream_text` opens a stream for its text
        alone.
        """
        return StreamedText(self)

    def __aiter__(self) -> Stream[Output_co]:
        return self

    async def __anext__(self) -> StreamEvent:
        # An event that is there already is returned without a switch between tasks, and without a call more.
        events = self._run.events
        if events is not None and (event := events.take()) is not None:
            return event
        while (event := self._take()) is None:
            require_trio("a stream is read", in_asyncio=READ_IN_ASYNCIO)
            assert self._run.events is not None
            self._begin_to_wait()
            try:
                await self._run.events.wait_until_ready()
            finally:
                self._is_waiting = False
        return event

    def _begin_to_wait(self) -> None:
        if self._is_waiting:
            raise StreamStateError(
                f"stream {self.id!r} is read by another task already, and each event goes to one reader: read it in "
                "one task, and hand the events on; or give the agent an observer, which sees all events"
            )
        self._is_waiting = True

    def _take(self) -> StreamEvent | None:
        """The event that is there already, if any. Raises what ends the reader's loop."""
        events = self._run.events
        if events is None or events.is_closed:
            # Another task has called wait(), or left the block, perhaps while this one was waiting.
            raise StreamStateError(f"stream {self.id!r} is not read: its block was left, or wait() was called")
        event = events.take()
        if event is None and events.is_at_end:
            raise self._end()
        return event

    def _end(self) -> BaseException:
        """The error that ends the reader's loop. A failed run raises its error once: it must not look finished."""
        error = self._run.outcome.error if self._run.outcome else None
        if error is None or self._error_raised:
            return StopAsyncIteration()
        self._error_raised = True
        return error

    def __repr__(self) -> str:
        state = "running" if self._run.outcome is None else self._run.outcome.reason
        return f"<Stream {self.id} of {' > '.join(self.source.agents)}: {state}>"


refuse(
    Stream,
    iter="a stream is read with `async for event in stream:`, not with `for`",
    aenter="this stream is open already: read it with `async for event in stream:`",
    enter="this stream is open already: read it with `async for event in stream:`",
    **{"await": "a stream is not awaited: `await stream.wait()` gives its outcome"},
)
_READ = "write `async for event in stream:`"
_END = "leave the block, or call stream.stop()"
name_the_way(
    Stream,
    {
        "stream_events": _READ,
        "events": _READ,
        "stream_text": "write `async for text in stream.text():`",
        "get_output": "read the stream to its end, or `await stream.wait()`, and then take stream.result.output",
        "final_output": "read the stream to its end, or `await stream.wait()`, and then take stream.result.output",
        "output": "read the stream to its end, or `await stream.wait()`, and then take stream.result.output",
        "messages": "read the stream to its end, or `await stream.wait()`, and then take stream.outcome.messages",
        "stream_output": "read the stream, and take stream.partial; Agent(output_deltas=True) gives events, too",
        "close": _END,
        "aclose": _END,
        "cancel": _END,
    },
)


class StreamedText(Generic[Output_co]):
    """The text of a stream, piece by piece. A plain iterator: it may be left at any piece, and owns nothing."""

    __slots__ = ("_must_complete", "stream")

    def __init__(self, stream: Stream[Output_co], *, must_complete: bool = False) -> None:
        self.stream = stream
        """The stream that it reads, with the outcome."""
        self._must_complete = must_complete

    def of(self, stream: Stream[Output_co]) -> StreamedText[Output_co]:
        """The same text, read from another handle of its stream."""
        return StreamedText(stream, must_complete=self._must_complete)

    def __aiter__(self) -> StreamedText[Output_co]:
        return self

    async def __anext__(self) -> str:
        own = self.stream.id
        try:
            while True:
                event = await self.stream.__anext__()
                if isinstance(event, TextDelta) and event.stream == own:
                    return event.text
        except StopAsyncIteration:
            if self._must_complete and self.stream.outcome.reason != "needs_input":
                _ = self.stream.result
            raise


class TextBlock(AbstractAsyncContextManager[StreamedText[Output_co]]):
    """The block of a stream of which only the text is read."""

    def __init__(self, opening: AbstractAsyncContextManager[Stream[Output_co]]) -> None:
        self._opening = opening

    async def __aenter__(self) -> StreamedText[Output_co]:
        return StreamedText(await self._opening.__aenter__(), must_complete=True)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._opening.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - it shields what it has to

    def __aiter__(self) -> NoReturn:
        raise UsageError(f"the text is read inside of its block: {READ_TEXT}")

    def __await__(self) -> Generator[Any, Any, NoReturn]:
        raise UsageError(f"the text is not awaited: {READ_TEXT}")

    def __enter__(self) -> NoReturn:
        raise UsageError(f"the block of a text is entered with `async with`: {READ_TEXT}")

    def __exit__(self, *_: object) -> None:
        raise AssertionError("the block is never entered")
