"""Playing a stream: what happens is shown, and what is asked is answered, until it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from agentloop import Agent, Session, Stream
from agentloop.demo.person import Person
from agentloop.demo.stage import Door, Stage
from agentloop.errors import InvalidAnswerError, UnknownQuestionError
from agentloop.events import Question, StreamEvent, TextDelta

__all__ = ["answer_question", "follow", "play", "play_stream"]

GLANCE = 0.1
"""Seconds between two looks at whether a question is still open."""

PARKING = 1.0
"""Seconds for a run to come to its end that is to be gone on with, if nobody is there any more."""


async def _nothing() -> None:
    await trio.lowlevel.checkpoint()


async def play(
    agent: Agent,
    prompts: Sequence[str],
    stage: Stage,
    session: Session | None = None,
    *,
    begun: Callable[[], Awaitable[None]] = _nothing,
) -> bool:
    """Ask ``agent`` one prompt after another, on one session.

    Args:
      session: a new one if not given.
      begun: called when a stream has begun.

    Returns:
      Whether that was all; not if somebody wants to answer a question another day.

    Raises:
      AgentLoopError: a run ended without a result.
    """
    if session is None:
        session = Session()
    await trio.lowlevel.checkpoint()
    for prompt in prompts:
        opening = agent.stream(prompt, session=session)
        if not await play_stream(opening, stage, may_wait=session.ledger is not None, begun=begun):
            return False
    return True


async def play_stream(
    opening: AbstractAsyncContextManager[Stream],
    stage: Stage,
    *,
    may_wait: bool = False,
    begun: Callable[[], Awaitable[None]] = _nothing,
) -> bool:
    """Play one stream; as `play` and `follow` otherwise."""
    async with opening as stream:
        await follow(stream, stage, may_wait=may_wait, begun=begun)
    if stream.outcome.reason == "needs_input":
        return False
    output = stream.result.output
    if not isinstance(output, str):
        stage.screen.note(f"The result: {output!r}")
    return True


async def follow(
    stream: Stream,
    stage: Stage,
    *,
    may_wait: bool = False,
    before: Callable[[StreamEvent], None] = lambda event: None,
    begun: Callable[[], Awaitable[None]] = _nothing,
) -> None:
    """Read ``stream`` to its end.

    Args:
      may_wait: whether what is asked may be answered another day: its session has a journal.
      before: called with each event, before it is shown.
      begun: called when the first event was read.
    """
    has_begun = is_parked = False
    async for event in stream:
        if not has_begun:
            has_begun = True
            await begun()
        before(event)
        stage.screen.show(event)
        if isinstance(event, Question) and not is_parked:
            is_parked = not await answer_question(stream, event, stage.person, door=stage.door if may_wait else None)
        elif isinstance(event, TextDelta):
            await trio.sleep(stage.pace)


async def answer_question(stream: Stream, question: Question, person: Person, *, door: Door | None = None) -> bool:
    """Have ``person`` answer ``question``, as often as it takes; or return, if it is not open any more.

    Args:
      door: the way out that keeps the question, if it may be answered another day.

    Returns:
      Whether the run goes on. Else it ends as soon as it can, and somebody answers another day.
    """
    goes_on = True

    def park() -> None:
        nonlocal goes_on
        goes_on = False
        stream.park()
        nursery.cancel_scope.cancel()

    # Nothing is read meanwhile. So the models wait, and nothing is printed while somebody types.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_leave_when_closed, stream, question.id, nursery.cancel_scope)
        if door is not None:
            door.park = park
        try:
            if not await _ask_until_right(stream, question, person, may_wait=door is not None):
                park()
        except OSError:
            # The terminal is gone, so that there is nobody to answer, or to show anything to.
            if door is not None:
                stream.park()
                with trio.move_on_after(PARKING):
                    # Who is cancelled here has no more use for the error.
                    await stream.wait()  # noqa: ASYNC120
            raise
        finally:
            if door is not None:
                door.park = None
        nursery.cancel_scope.cancel()
    return goes_on  # noqa: ASYNC910 - the nursery is a checkpoint


async def _ask_until_right(stream: Stream, question: Question, person: Person, *, may_wait: bool) -> bool:
    """Whether the question is settled; not if it is to be answered another day."""
    problem = ""
    await trio.lowlevel.checkpoint()
    while question.id in [each.id for each in stream.pending]:
        try:
            answer = await person.answer(question, problem, may_wait=may_wait)
            if answer is None:
                return False
            stream.answer(question.id, answer)
        except InvalidAnswerError as error:
            problem = error.problem
        except UnknownQuestionError:
            break
    return True


async def _leave_when_closed(stream: Stream, question_id: str, scope: trio.CancelScope) -> None:
    """Cancel ``scope`` when the question is closed, be it that whoever asked has ended."""
    while question_id in [each.id for each in stream.pending]:  # noqa: ASYNC110 - there is nothing to wait for
        await trio.sleep(GLANCE)
    await trio.lowlevel.checkpoint()
    scope.cancel()
