"""Programs: what several agents do, and what their readers do to them, as a value.

A program prints as JSON, so a failing one can be kept, mailed, and run again. `predict` says what must come of it,
worked out from the value alone, without a runtime: that is the model that the real thing is compared with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain
from random import Random
from typing import Any, Literal, Self, TypeAlias, TypeVar, cast

import msgspec
import trio

from agentloop import hooks
from agentloop._core.json_text import decode_own
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import AgentLoopError, ModelConnectionError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    Question,
    QuestionDeclined,
    StreamReason,
)
from agentloop.hooks import Block
from agentloop.limits import Deadlines, Limits
from agentloop.messages import Prompt
from agentloop.outcome import QuestionHandler
from agentloop.questions import Accept, Answer, Approve, Decline, Deny
from agentloop.testing._lab import AgentScenario, Lab, Recorded, echo
from agentloop.testing.scripted import Response, calls, fails, says
from agentloop.testing.simulation import Cancel, ClockRaise, Fault, SeamRaise, Sim, fifo, seeded, simulate
from agentloop.tools import Tool

__all__ = [
    "Action",
    "Child",
    "Do",
    "Program",
    "Reached",
    "Reader",
    "Root",
    "Streaming",
    "pick_faults",
    "predict",
    "run_program",
    "simpler",
]


LATE = 70
"""Seconds that a late answer takes: longer than any deadline here."""


class Do(msgspec.Struct, frozen=True, tag="do"):
    """A tool call that does one thing."""

    what: Literal["work", "ask", "give_up", "guarded", "raise", "slow", "time_out", "stream"] = "work"


class Child(msgspec.Struct, frozen=True, tag="child"):
    """A tool call that runs another agent."""

    stream: Streaming
    leave_after: int | None = None
    """The tool reads the child's events, and leaves after so many; ``None`` runs it to its end."""
    handler: Literal["", "answers", "passes"] = ""
    """Whether the child's questions are answered on the way out."""


Action: TypeAlias = Do | Child


class Streaming(msgspec.Struct, frozen=True):
    """The actions of an agent in one stream."""

    turns: tuple[tuple[Action, ...], ...] = ()
    """For each turn, the calls that run at once."""
    end: Literal["answer", "model_fails", "prompt_blocked", "listing_fails", "hook_blocks", "turn_limit"] = "answer"
    words: int = 1
    """How much the model says in each turn."""
    stumbles: int = 0
    """How often the first response fails half-way, and is asked for again; at most twice."""


class Reader(msgspec.Struct, frozen=True):
    """The behaviour of the reader of a root stream."""

    does: Literal["drain", "leave", "stop", "raise", "time_out", "wait"] = "drain"
    after: int = 0
    """Events, or seconds for ``time_out``, before it does that."""
    pause: int = 0
    """Seconds between two events."""
    answers: Literal["now", "late", "youngest_first", "wrong_first", "twice", "handler", "nobody"] = "now"


class Root(msgspec.Struct, frozen=True):
    """A root stream and its reader."""

    stream: Streaming
    reader: Reader = Reader()
    begins: int = 0
    """Seconds before it is opened."""


class Program(msgspec.Struct, frozen=True):
    """Root streams, side by side, in some order of tasks."""

    roots: tuple[Root, ...] = ()
    seed: int = 0
    """0 for first come, first served; else the seed of the schedule."""
    granularity: Literal["batch", "step"] = "batch"

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def parse(cls, text: str) -> Program:
        """Read back what ``str`` wrote."""
        return decode_own(text, cls)


# ---------------------------------------------------------------------------- the model


def predict(stream: Streaming) -> StreamReason:
    """Why ``stream`` stops, if it is not interrupted."""
    match stream.end:
        case "answer":
            return "completed"
        case "listing_fails" | "model_fails":
            return "failed"
        case "prompt_blocked":
            return "blocked"
        case "hook_blocks":
            # The hook blocks after a tool.
            return "blocked" if stream.turns else "completed"
        case "turn_limit":
            return "limit" if stream.turns else "completed"


def played_turns(stream: Streaming) -> tuple[tuple[Action, ...], ...]:
    """The turns that come to run their tools, if the stream is not interrupted."""
    if stream.end in ("prompt_blocked", "listing_fails"):
        return ()
    return stream.turns[:1] if stream.end == "hook_blocks" else stream.turns


# ---------------------------------------------------------------------- the real thing


class _BrokenTools:
    name = "broken"

    def open(self) -> Any:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def list_tools(self) -> list[Tool]:
        raise OSError("the server does not answer")


class _Play:
    """Plays one program in a lab, and compares the outcomes with the prediction."""

    def __init__(self, lab: Lab, program: Program) -> None:
        self.lab = lab
        self.program = program
        self.built: dict[str, Streaming] = {}
        """Agent name to its actions: names are unique."""
        self.cut: set[str] = set()
        """Agents whose streams may be interrupted."""

    async def play(self) -> None:
        async with trio.open_nursery() as nursery:
            for number, root in enumerate(self.program.roots):
                nursery.start_soon(self._root, f"R{number}", root)

    async def _root(self, name: str, root: Root) -> None:
        reader = root.reader
        agent = self.agent(name, root.stream, cut=reader.does not in ("drain", "wait"))
        await trio.sleep(root.begins)
        on_question: Any = "reader"
        if reader.does == "wait" or reader.answers in ("handler", "nobody"):
            on_question = "decline" if reader.answers == "nobody" else self.lab.handler(_reply)
        deadline = reader.after if reader.does == "time_out" else float("inf")
        try:
            with trio.move_on_after(deadline):
                # The nursery outside: inside, it would turn what the stream raises to its reader into a group.
                async with (
                    trio.open_nursery() as nursery,
                    self.lab.stream(agent, name=name, on_question=on_question) as stream,
                ):
                    answering = trio.CancelScope()
                    nursery.start_soon(self._answer_late, stream, reader, answering)  # noqa: ASYNC111 - it ends before the stream
                    try:
                        await self._read(stream, reader)
                    finally:
                        answering.cancel()
        except* _LeftError:
            pass

    async def _read(self, stream: Recorded, reader: Reader) -> None:
        if reader.does == "wait":
            await stream.stream.wait()
            return
        if reader.does == "leave" and reader.after == 0:
            return
        async for event in stream:
            if isinstance(event, QUESTIONS):
                self._answer(stream, event, reader)
            if len(stream.events) == reader.after:
                match reader.does:
                    case "leave":
                        return
                    case "stop":
                        stream.stop("the reader has had enough")
                    case "raise":
                        raise _LeftError
                    case _:
                        pass
            if reader.pause:
                await trio.sleep(reader.pause)

    def _answer(self, stream: Recorded, question: Question, reader: Reader) -> None:
        if isinstance(question, ContinueRequested):
            stream.answer(question.id, _reply(question))
            return
        match reader.answers:
            case "now":
                stream.answer(question.id, _reply(question))
            case "wrong_first":
                if stream.answer(question.id, _wrong(question)) or stream.answer("no such question", Approve()):
                    self.lab.watch.note(f"a wrong answer to {question.id} was accepted")
                stream.answer(question.id, echo(question))
            case "twice":
                stream.answer(question.id, echo(question))
                if stream.answer(question.id, Decline("again")):
                    self.lab.watch.note(f"a second answer to {question.id} was accepted")
            case _:
                pass

    async def _answer_late(self, stream: Recorded, reader: Reader, scope: trio.CancelScope) -> None:
        with scope:
            while reader.answers in ("late", "youngest_first"):
                await trio.sleep(LATE)
                pending = stream.stream.pending
                for question in pending if reader.answers == "late" else reversed(pending):
                    stream.answer(question.id, _reply(question))

    # ---------------------------------------------------------------------------- agents

    def agent(self, name: str, stream: Streaming, *, cut: bool) -> Agent:
        self.built[name] = stream
        if cut:
            self.cut.add(name)
        lab = self.lab
        dropped = says("no, ") + calls("nothing") + fails(ModelConnectionError("the connection dropped"))
        script: list[Response] = [dropped] * stream.stumbles
        tools: list[Tool] = []
        for number, turn in enumerate(stream.turns):
            made = [self._tool(f"{name}-{number}-{index}", action, cut=cut) for index, action in enumerate(turn)]
            tools.extend(made)
            response = says("w " * stream.words)
            for tool in made:
                response += calls(tool.name)
            script.append(response)
        script.append(fails(OSError("down")) if stream.end == "model_fails" else says("The end."))
        block = lab.hook(hooks.user_prompt_submit, Block("not this"))
        # Its own calls only: each stream of the program says by itself whether it is blocked.
        enough = lab.hook(hooks.post_tool_use, Block("enough"), children=False)
        return Agent(
            lab.model(*script, name=name),
            name=name,
            tools=tools,
            toolsets=[_BrokenTools()] if stream.end == "listing_fails" else [],
            hooks=[block] if stream.end == "prompt_blocked" else [enough] if stream.end == "hook_blocks" else [],
            limits=Limits(turns=len(stream.turns) or 1, identical_turns=1000)
            if stream.end == "turn_limit"
            else Limits(identical_turns=1000),
            deadlines=Deadlines(tool=50),
        )

    def _tool(self, name: str, action: Action, *, cut: bool) -> Tool:
        if isinstance(action, Child):
            inner = self.agent(f"{name}c", action.stream, cut=cut or action.leave_after is not None)
            handler = self._handler(inner.name, action.handler)
            return self.lab.tool(name, partial(_run_child, inner, action.leave_after, handler), timeout=float("inf"))
        match action.what:
            case "ask":
                return self.lab.asker(name)
            case "give_up":
                return self.lab.asker(name, patience=LATE / 2)
            case "guarded":
                return self.lab.tool(name, requires_approval=True)
            case "raise":
                return self.lab.tool(name, _raise)
            case "slow":
                return self.lab.tool(name, _slow)
            case "time_out":
                return self.lab.tool(name, _for_ever)
            case "stream":
                return self.lab.tool(name, _output)
            case "work":
                return self.lab.tool(name)

    def _handler(self, agent: str, does: Literal["", "answers", "passes"]) -> QuestionHandler | None:
        """The handler of one child stream. A question from another stream is misrouted."""

        async def handle(question: Question) -> Answer | None:
            await trio.lowlevel.checkpoint()
            if agent not in question.path:
                self.lab.watch.note(f"a question of {' > '.join(question.path)} reached the handler of {agent}")
            return _reply(question) if does == "answers" else None

        return handle if does else None

    # ---------------------------------------------------------------------------- checks

    def compare(self) -> None:
        """Raise `AssertionError` unless each stream ended as predicted."""
        runs = {run.config.name: run for run in self.lab.watch.runs}
        effects = Counter(effect.rsplit("-", 2)[0] for _, _, effect in self.lab.effects)
        for name, stream in self.built.items():
            run, expected = runs.get(name), predict(stream)
            if run is None:
                parent = name.rsplit("-", 2)[0] if "-" in name else None
                assert self._may_be_missing(parent, name), f"{name} was never opened"
                continue
            assert run.outcome is not None
            reason = run.outcome.reason
            if name in self.cut:
                assert reason in (expected, "cancelled"), f"{name} ended as {reason}, not {expected}"
                continue
            if stream.end == "hook_blocks" and self._denied(name) and all(map(_needs_approval, chain(*stream.turns))):
                # No tool has run that the hook could block after, unless a handler of a child run approved it.
                assert reason in ("blocked", "completed"), f"{name} ended as {reason}"
                continue
            assert reason == expected, f"{name} ended as {reason}, not {expected}"
        for number, recorded in enumerate(self.lab.recorded):
            declined = [event for event in recorded.events if isinstance(event, QuestionDeclined)]
            somebody = self.program.roots[int(recorded.name.removeprefix("R"))].reader.answers != "nobody"
            assert not (declined and somebody), f"root {number}: {declined[0]}, though somebody would have answered"
        for name, stream in self.built.items():
            if name not in self.cut and name in runs and not self._denied(name):
                known = sum(1 for turn in played_turns(stream) for action in turn if not _has_no_effect(action))
                assert effects[name] == known, f"{name} had {effects[name]} effects, not {known}"
                self._compare_answers(name, stream)

    def _compare_answers(self, name: str, stream: Streaming) -> None:
        """An asker that does not give up gets an answer."""
        answers = {message.split(" ", 1)[0]: answer for message, answer in self.lab.received.items()}
        for number, turn in enumerate(played_turns(stream)):
            for index, action in enumerate(turn):
                if isinstance(action, Do) and action.what == "ask":
                    answer = answers.get(f"{name}-{number}-{index}")
                    assert isinstance(answer, Accept), f"the question {index} of turn {number} of {name} got {answer!r}"

    def _denied(self, name: str) -> bool:
        """Whether no answerer approves this agent's calls."""
        number = int(name.split("-", 1)[0].removeprefix("R").rstrip("c"))
        return self.program.roots[number].reader.answers == "nobody"

    def _may_be_missing(self, parent: str | None, name: str) -> bool:
        if parent is None:
            return name in self.cut
        stream = self.built[parent]
        turn = int(name.rsplit("-", 2)[1])
        return parent in self.cut or turn >= len(played_turns(stream)) or self._was_missing(parent)

    def _was_missing(self, name: str) -> bool:
        return all(run.config.name != name for run in self.lab.watch.runs)


def _needs_approval(action: Action) -> bool:
    return isinstance(action, Do) and action.what == "guarded"


def _has_no_effect(action: Action) -> bool:
    # An asker does nothing to the world but ask.
    return isinstance(action, Do) and action.what in ("ask", "give_up")


QUESTIONS = (ElicitationRequested, ApprovalRequested, ContinueRequested)


class _LeftError(Exception):
    """The reader's own error."""


def _wrong(question: Question) -> Answer:
    return Accept({"tag": 1}) if isinstance(question, ElicitationRequested) else Accept({})


def _reply(question: Question) -> Answer:
    """The answer of every answerer to a limit: no run goes past its limits."""
    return Deny("no further") if isinstance(question, ContinueRequested) else echo(question)


async def _raise(_context: ToolContext[Any]) -> object:  # noqa: ASYNC124 - a tool is async
    raise ValueError("no such thing")


async def _slow(_context: ToolContext[Any]) -> object:
    await trio.sleep(5)
    return "slow"


async def _for_ever(_context: ToolContext[Any]) -> object:
    await trio.sleep_forever()


async def _output(context: ToolContext[Any]) -> object:
    for piece in ("a", "b"):
        await context.output(piece)
    return "streamed"


async def _run_child(
    agent: Agent, leave_after: int | None, handler: QuestionHandler | None, context: ToolContext[Any]
) -> object:
    prompt: Prompt = "go on"
    if leave_after is None:
        return (await context.run(agent, prompt, on_question=handler)).output
    seen = 0
    try:
        async with context.stream(agent, prompt, on_question=handler) as child:
            async for _event in child:
                seen += 1
                if seen >= leave_after:
                    break
    except AgentLoopError:
        return "it failed"
    return "left it"


def simpler(program: Program) -> Iterator[Program]:
    """Programs that are one step simpler than ``program``: a part is left out, or replaced by a plain one."""
    for value in _simpler(program):
        if value.roots:
            yield value


_T = TypeVar("_T")


def _simpler(value: _T) -> Iterator[_T]:
    """Values that are one step simpler, the greatest steps first."""
    whole: Any = value
    if isinstance(value, tuple):
        items = cast("tuple[Any, ...]", value)
        for index in range(len(items)):
            yield cast("_T", items[:index] + items[index + 1 :])
        for index, item in enumerate(items):
            for other in _simpler(item):
                yield cast("_T", (*items[:index], other, *items[index + 1 :]))
    elif isinstance(value, msgspec.Struct):
        if isinstance(value, Child):
            yield cast("_T", Do())
        fields = msgspec.structs.fields(type(value))
        for field in fields:
            own = getattr(value, field.name)
            if field.default is not msgspec.NODEFAULT and own != field.default and not isinstance(own, tuple):
                yield msgspec.structs.replace(whole, **{field.name: field.default})
        for field in fields:
            own = getattr(value, field.name)
            if isinstance(own, (tuple, msgspec.Struct)):
                for other in _simpler(own):
                    yield msgspec.structs.replace(whole, **{field.name: other})
    elif isinstance(whole, int) and whole > 1:
        yield cast("_T", whole // 2)


class Reached(msgspec.Struct):
    """The coverage of programs, added up: a machine that reaches nothing proves nothing."""

    programs: int = 0
    streams: int = 0
    deepest: int = 0
    asked: int = 0
    early_returns: int = 0
    overlaps: int = 0
    faults: int = 0
    steps: int = 0

    def add(self, lab: Lab, program: Program) -> None:
        """Count what ``program`` did in ``lab``."""
        self.programs += lab.sim.injection is None
        self.faults += lab.sim.injection is not None
        self.streams += len(lab.watch.runs)
        self.deepest = max([self.deepest, *(len(run.source.agents) - 1 for run in lab.watch.runs)])
        self.asked += sum(run.state.question_count for run in lab.watch.runs)
        self.early_returns += sum(
            run.outcome is not None and run.outcome.reason in ("cancelled", "blocked", "failed", "limit")
            for run in lab.watch.runs
        )
        self.overlaps += len(program.roots) > 1
        self.steps += lab.sim.steps

    def __add__(self, other: Reached) -> Reached:
        both = {name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        return Reached(**{**both, "deepest": max(self.deepest, other.deepest)})

    def __str__(self) -> str:
        return (
            f"{self.programs} programs, {self.streams} streams (deepest {self.deepest}), {self.asked} questions, "
            f"{self.early_returns} early returns, {self.overlaps} with several roots, {self.faults} faults injected, "
            f"{self.steps} task steps"
        )


def run_program(program: Program, *, fault: Fault | None = None, reached: Reached | None = None) -> Sim:
    """Run ``program`` once, check every guarantee, and, unless a fault struck, compare it with its prediction.

    Raises:
      Violation: a promise was broken. ``str(program)``, and the fault, run it again.
    """
    played: list[_Play] = []

    async def play(lab: Lab) -> None:
        played.append(_Play(lab, program))
        await played[0].play()

    def compare(sim: Sim, _outcome: object) -> None:
        if sim.injection is None:
            played[0].compare()

    schedule = seeded(program.seed, program.granularity) if program.seed else fifo(program.granularity)
    sim = simulate(AgentScenario("program", play), fault=fault, schedule=schedule, invariants=compare)
    if reached is not None:
        reached.add(played[0].lab, program)
    return sim


def pick_faults(sim: Sim, random: Random, count: int) -> list[Fault]:
    """Some faults that a program which ran as ``sim``, without any, has a place for."""
    faults: list[Fault] = []
    for _ in range(count):
        kind = random.random()
        if sim.seams and kind < 0.3:
            faults.append(SeamRaise(random.randint(1, sim.seams), after=random.random() < 0.5))
        elif sim.clock_reads and kind < 0.4:
            faults.append(ClockRaise(random.randint(1, sim.clock_reads)))
        elif sim.targets:
            target = random.choice(sim.targets)
            last = sim.steps if target.last is None else target.last
            faults.append(Cancel(random.randint(target.first, max(target.first, last)), target.name))
    return faults
