"""Show a run at the terminal, ask a question there, and read a prompt there."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TextIO, cast

import trio
from attrs import evolve

from agentloop._core.questions import check_answer
from agentloop._core.typevars import Output_co
from agentloop._runtime.blocks import require_trio
from agentloop._runtime.stream import Stream
from agentloop.config import AgentConfig
from agentloop.errors import InvalidAnswerError, StreamStateError
from agentloop.events import Question
from agentloop.outcome import Outcome
from agentloop.questions import Answer
from agentloop.session import Session
from agentloop.terminal._commands import meant_by
from agentloop.terminal._following import follow
from agentloop.terminal._person import Person
from agentloop.terminal._stage import Stage, open_stage

__all__ = ["ask_in_terminal", "read_prompt", "show"]

IN_ASYNCIO = "run the program with `trio.run(main)`: the terminal is read under trio"


class _Terminal:
    """What the functions of this module know of each other, in one run of trio."""

    def __init__(self) -> None:
        self.shown: list[tuple[Stream[Any], Stage]] = []
        """The streams that `show` shows now, and where."""
        self.turn = trio.Lock()
        """Held by the question that is asked, or the prompt that is read."""
        self.prompt = ""
        """The prompt that was typed last: it stands on the screen, and is not shown again."""


_terminal: trio.lowlevel.RunVar[_Terminal] = trio.lowlevel.RunVar("agentloop_terminal")


def _of_this_run(function: str) -> _Terminal:
    require_trio(f"`{function}` is awaited", in_asyncio=IN_ASYNCIO)
    try:
        return _terminal.get()
    except LookupError:
        made = _Terminal()
        _terminal.set(made)
        return made


class _InTurn:
    """A person who is asked one question at a time, also by several streams."""

    def __init__(self, person: Person, turn: trio.Lock) -> None:
        self._person = person
        self._turn = turn

    async def answer(self, question: Question, problem: str = "", *, may_wait: bool = False) -> Answer | None:
        """The person's answer."""
        async with self._turn:
            return await self._person.answer(question, problem, may_wait=may_wait)


@contextmanager
def _showing(terminal: _Terminal, stream: Stream[Any], stage: Stage) -> Generator[None]:
    shown = (stream, stage)
    terminal.shown.append(shown)
    try:
        yield
    finally:
        terminal.shown.remove(shown)


async def show(stream: Stream[Output_co], *, plain: bool = False) -> Outcome[Output_co]:
    """Read ``stream`` to its end, print what happens, and ask its questions at the terminal.

    Text is printed as it comes, with child runs indented, each tool call with its arguments, result and time, and at
    the end what was used, and what that has cost.

    Args:
      plain: print text without colours, and nothing that moves, also where the terminal could do more.

    Returns:
      The outcome of the run, also of one that has no result. Without a terminal to ask at, questions are declined.

    Raises:
      AgentLoopError: what made the run fail; its end is printed before.
    """
    if not isinstance(cast("object", stream), Stream):
        given = "the block of a stream" if hasattr(stream, "__aenter__") else repr(stream)
        raise StreamStateError(
            f"show() takes an open stream, `async with agent.stream(...) as stream: await show(stream)`, not {given}"
        )
    terminal = _of_this_run("show(stream)")
    async with open_stage(plain=plain, yes=False, paced=False) as stage:
        with _showing(terminal, stream, stage):
            if terminal.prompt:
                stage.screen.typed(terminal.prompt)
                terminal.prompt = ""
            await follow(stream, evolve(stage, person=_InTurn(stage.person, terminal.turn)))
    return stream.outcome


async def ask_in_terminal(question: Question, /) -> Answer:
    """Ask a person at the terminal for the answer to ``question``: ``on_question=ask_in_terminal``.

    Questions that are open at the same time are asked one after the other. Those of a stream that `show` shows are
    asked by it, among the lines of the stream. Without a terminal, the question is declined.
    """
    terminal = _of_this_run("ask_in_terminal(question)")
    if any(question.id == pending.id for stream, _ in terminal.shown for pending in stream.pending):
        # Cancelled when the question is answered.
        await trio.sleep_forever()
    async with terminal.turn, AsyncExitStack() as stack:
        if terminal.shown:
            # A tool of a stream that is shown has begun the run, say: two screens would write over each other.
            stage = terminal.shown[-1][1]
        else:
            stage = await stack.enter_async_context(open_stage(plain=False, yes=False, paced=False))
        stage.screen.show(question)
        return await _ask_until_right(stage, question)


async def _ask_until_right(stage: Stage, question: Question) -> Answer:
    problem = ""
    while True:
        answer = await stage.person.answer(question, problem)
        assert answer is not None, "only a question that can wait is left for another day"
        try:
            return check_answer(question, answer)
        except InvalidAnswerError as error:
            problem = error.problem


async def read_prompt(
    prompt: str = "> ", *, agent: AgentConfig[Any, Any] | None = None, session: Session | None = None
) -> str | None:
    """Read the next prompt that the person types; from a pipe or a file, its next line.

    Args:
      agent: the agent whose slash commands the person may type: see `agentloop.commands`. ``/help`` lists them, and a
        name that the agent does not have is answered with the nearest ones, and the prompt is read again.
      session: the session that the prompt is for. With it and ``agent``, the person may also type ``/model``,
        ``/thinking`` and ``/usage``: they choose the model of the session and how much it thinks, and show what the
        session has used. The prompt is read again after each.

    Returns:
      The line, or the prompt of the command in it; ``None`` at the end of the input (Ctrl-D) and for an empty line.
    """
    terminal = _of_this_run("read_prompt()")
    async with terminal.turn, open_stage(plain=False, yes=False, paced=False) as stage:
        if stage.read_line is None:
            while (line := await trio.to_thread.run_sync(_next_line, abandon_on_cancel=True)) is not None:
                meant = line.strip() if agent is None else await meant_by(agent, line, stage.screen, session)
                if meant is not None:
                    return meant.strip() or None
            return None
        while True:
            line = (await stage.say(prompt) or "").rstrip()
            meant = await meant_by(agent, line, stage.screen, session) if agent is not None and line.strip() else line
            if meant is not None:
                break
    typed = meant.strip()
    # The prompt of a command does not stand on the screen yet.
    terminal.prompt = typed if meant == line else ""
    return typed or None


def _next_line() -> str | None:
    source = cast("TextIO | None", sys.stdin)
    if source is None or source.closed:
        return None
    return source.readline().rstrip() or None
