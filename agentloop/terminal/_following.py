"""Play a stream: show its events and answer its questions until it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import trio

from agentloop import Agent, Session, Stream
from agentloop._runtime.exception_groups import raise_single
from agentloop.errors import InvalidAnswerError, UnknownQuestionError
from agentloop.events import Paused, Question, StreamEvent, TextDelta
from agentloop.terminal._person import Person
from agentloop.terminal._single_keys import PAUSE_KEY, watched_key
from agentloop.terminal._stage import Door, Stage

__all__ = ["answer_question", "follow", "play", "play_stream"]

GLANCE = 0.1
"""Seconds between two looks at whether a question is still open."""

PARKING = 1.0
"""Seconds that a resumable run has to end by itself when the terminal has closed."""


async def _nothing() -> None:
    await trio.lowlevel.checkpoint()


async def play(
    agent: Agent[Any, Any],
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
      Whether all prompts were asked; not if the person leaves a question for another day.

    Raises:
      AgentLoopError: a run ended without a result.
    """
    if session is None:
        session = Session()
    await trio.lowlevel.checkpoint()
    for prompt in prompts:
        opening = agent.stream(prompt, session=session)
        if not await play_stream(opening, stage, may_wait=session._journal is not None, begun=begun):
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
    """Read ``stream`` to its end. At a terminal, a key pauses it, and lets it go on.

    Args:
      may_wait: whether its questions can be left for another day: its session has a journal.
      before: called with each event, before it is shown.
      begun: called when the first event was read.
    """
    has_begun = is_parked = False
    async with watched_key(stage.keyboard, partial(_pause_or_resume, stream)) as has_key:
        async for event in stream:
            if not has_begun:
                has_begun = True
                await begun()
            before(event)
            stage.screen.show(event)
            if isinstance(event, Question) and not is_parked:
                is_parked = not await answer_question(
                    stream, event, stage.person, door=stage.door if may_wait else None
                )
            elif isinstance(event, TextDelta):
                await trio.sleep(stage.pace)
            elif isinstance(event, Paused) and has_key and not event.depth:
                stage.screen.note(f"({PAUSE_KEY} goes on.)")


def _pause_or_resume(stream: Stream) -> None:
    if stream.is_paused:
        stream.resume()
    else:
        stream.pause()


async def answer_question(stream: Stream, question: Question, person: Person, *, door: Door | None = None) -> bool:
    """Have ``person`` answer ``question``, again after a mistake; or return, if it is no longer open.

    Args:
      door: the way out that parks the question, if it can be left for another day.

    Returns:
      Whether the run continues. Otherwise it parks, with the question open.
    """
    goes_on = True

    def park() -> None:
        nonlocal goes_on
        goes_on = False
        stream.park()
        nursery.cancel_scope.cancel()

    # The stream is not read meanwhile. So the models wait, and no line is printed while the person types.
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_leave_when_closed, stream, question.id, nursery.cancel_scope)
            if door is not None:
                door.park = park
            try:
                if not await _ask_until_right(stream, question, person, may_wait=door is not None):
                    park()
            except OSError:
                # The terminal has closed: there is no person to ask, and no screen to write to.
                if door is not None:
                    stream.park()
                    with trio.move_on_after(PARKING):
                        # A cancelled reader has no use for the error.
                        await stream.wait()  # noqa: ASYNC120
                raise
            finally:
                if door is not None:
                    door.park = None
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # An interrupt at the question stays one.
        raise_single(group)
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
    """Cancel ``scope`` when the question closes, for instance because the call that asked has ended."""
    while question_id in [each.id for each in stream.pending]:  # noqa: ASYNC110 - there is nothing to wait for
        await trio.sleep(GLANCE)
    await trio.lowlevel.checkpoint()
    scope.cancel()
