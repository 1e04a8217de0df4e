"""Playing a stream: what happens is shown, and what is asked is answered, until it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from agentloop.agent import Agent
from agentloop.demo.person import Person
from agentloop.demo.stage import Stage
from agentloop.errors import InvalidAnswerError, UnknownQuestionError
from agentloop.events import Question, StreamEvent, TextDelta
from agentloop.outcome import ChildStream
from agentloop.session import Session

__all__ = ["answer_question", "follow", "play"]

GLANCE = 0.1
"""Seconds between two looks at whether a question is still open."""


async def play(agent: Agent, prompts: Sequence[str], stage: Stage) -> None:
    """Ask ``agent`` one prompt after another, on one session.

    Raises:
      AgentLoopError: a run ended without a result.
    """
    session = Session()
    await trio.lowlevel.checkpoint()
    for prompt in prompts:
        async with agent.stream(prompt, session=session) as stream:
            await follow(stream, stage)
        output = stream.result.output
        if not isinstance(output, str):
            stage.screen.note(f"The result: {output!r}")


async def follow(
    stream: ChildStream, stage: Stage, *, before: Callable[[StreamEvent], None] = lambda event: None
) -> None:
    """Read ``stream`` to its end.

    Args:
      before: called with each event, before it is shown.
    """
    async for event in stream:
        before(event)
        stage.screen.show(event)
        if isinstance(event, Question):
            await answer_question(stream, event, stage.person)
        elif isinstance(event, TextDelta):
            await trio.sleep(stage.pace)


async def answer_question(stream: ChildStream, question: Question, person: Person) -> None:
    """Have ``person`` answer ``question``, as often as it takes; or return, if it is not open any more."""
    # Nothing is read meanwhile. So the models wait, and nothing is printed while somebody types.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_leave_when_closed, stream, question.id, nursery.cancel_scope)
        problem = ""
        while question.id in [each.id for each in stream.pending]:
            try:
                stream.answer(question.id, await person.answer(question, problem))
            except InvalidAnswerError as error:
                problem = error.problem
            except UnknownQuestionError:
                break
        nursery.cancel_scope.cancel()


async def _leave_when_closed(stream: ChildStream, question_id: str, scope: trio.CancelScope) -> None:
    """Cancel ``scope`` when the question is closed, be it that whoever asked has ended."""
    while question_id in [each.id for each in stream.pending]:  # noqa: ASYNC110 - there is nothing to wait for
        await trio.sleep(GLANCE)
    await trio.lowlevel.checkpoint()
    scope.cancel()
