"""Programs: what several agents do, and what their readers do to them, as a value.

A program prints as JSON, so a failing one can be kept, mailed, and run again. `predict` says what must come of it,
worked out from the value alone, without a runtime: that is the model that the real thing is compared with.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
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
from agentloop.errors import AgentLoopError, ModelConnectionError, StreamStateError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    Question,
    QuestionDeclined,
    StreamReason,
)
from agentloop.hooks import Block
from agentloop.limits import Compaction, Deadlines, Limits
from agentloop.messages import Prompt, Usage
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.outcome import QuestionHandler
from agentloop.permissions import Permissions
from agentloop.questions import Accept, Answer, Approve, Decline, Deny
from agentloop.stores import StoredSession, stored_session
from agentloop.testing._journal import PATIENCE, JournalClient, SeamJournal
from agentloop.testing._lab import TAG_FORM, AgentScenario, Lab, Recorded, SeamModel, echo
from agentloop.testing.scripted import Response, calls, fails, play_response, says
from agentloop.testing.simulation import (
    Cancel,
    ClockRaise,
    Fault,
    InjectedFault,
    SeamRaise,
    Sim,
    fifo,
    seeded,
    simulate,
)
from agentloop.tools import OpenToolset, Tool, Toolset

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

    what: Literal[
        "work",
        "ask",
        "ask_two",
        "give_up",
        "guarded",
        "allowed",
        "denied",
        "asked",
        "raise",
        "slow",
        "time_out",
        "stream",
        "remember",
        "in_toolset",
    ] = "work"
    """``ask_two`` asks twice at once; rules allow, deny or ask about the call of ``allowed``, ``denied`` and ``asked``;
    ``remember`` asks after it has noted what it did; ``in_toolset`` is a tool of a toolset."""


class Child(msgspec.Struct, frozen=True, tag="child"):
    """A tool call that runs another agent."""

    stream: Streaming
    leave_after: int | None = None
    """The tool reads the child's events, and leaves after so many; ``None`` runs it to its end."""
    handler: Literal["", "answers", "passes"] = ""
    """Whether the child's questions are answered on the way out."""
    pause: int = 0
    """The tool reads the child's events, and sleeps for so many seconds after every eighth."""
    twins: int = 1
    """How many such children the call runs at once."""
    background: bool = False
    """Whether the call starts them in the background, and returns: then they are neither left nor read."""


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
    long: bool = False
    """Whether the first response is so long that the conversation is shortened afterwards."""


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
    journal: Literal["", "kept", "parked", "killed"] = ""
    """Whether its session has a journal; and whether it is parked and resumed with answers until it is over, or killed
    after ``reader.after`` events and resumed."""
    steer: int = 0
    """After how many events a person sends a message; 0 for no message."""


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
            # The hook blocks after a tool that has run.
            return "blocked" if any(map(_runs_a_tool, stream.turns)) else "completed"
        case "turn_limit":
            return "limit" if stream.turns else "completed"


def played_turns(stream: Streaming) -> tuple[tuple[Action, ...], ...]:
    """The turns that come to run their tools, if the stream is not interrupted."""
    if stream.end in ("prompt_blocked", "listing_fails"):
        return ()
    if stream.end != "hook_blocks":
        return stream.turns
    last = next((number for number, turn in enumerate(stream.turns, 1) if _runs_a_tool(turn)), len(stream.turns))
    return stream.turns[:last]


def _runs_a_tool(turn: tuple[Action, ...]) -> bool:
    return any(not (isinstance(action, Do) and action.what == "denied") for action in turn)


def _named(name: str, stream: Streaming, what: str) -> Iterator[str]:
    """The names of the tools of ``stream``, and of the streams inside, that do ``what``."""
    for number, turn in enumerate(stream.turns):
        for index, action in enumerate(turn):
            tool = f"{name}-{number}-{index}"
            if isinstance(action, Do):
                yield from [tool] * (action.what == what)
            else:
                for twin in _twins(tool, action):
                    yield from _named(twin, action.stream, what)


def _twins(tool: str, child: Child) -> list[str]:
    """The names of the agents that a call runs."""
    return [f"{tool}{'cdef'[number]}" for number in range(child.twins)]


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


class _Tools:
    """A toolset that takes a second to start, and one to stop."""

    def __init__(self, lab: Lab, name: str, tools: list[Tool]) -> None:
        self.name = name
        self._lab = lab
        self._tools = tools

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenToolset]:
        await self._lab.sim.seam("toolset:start")
        await trio.sleep(1)
        yield self
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            if not isinstance(self._lab.sim.fault, ClockRaise):
                self._lab.watch.note(f"toolset {self.name} was cut off while it stopped in order")
            raise

    async def list_tools(self) -> list[Tool]:
        await self._lab.sim.seam("toolset:list")
        return self._tools


class _Model(SeamModel):
    """A model with a script for its turns, that sums up whatever it is asked to."""

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Give the next response of the script, or a summary."""
        if self._lab.watch.requests.is_turn():
            return await super().respond(request, reply)
        response = says("In short: bla.")
        stop = await play_response(response, reply)
        self._lab.watch.requests.said(response)
        return stop


ROUNDS = 40
"""How often a run may be parked and resumed."""


class _Play:
    """Plays one program in a lab, and compares the outcomes with the prediction."""

    def __init__(self, lab: Lab, program: Program) -> None:
        self.lab = lab
        self.program = program
        self.built: dict[str, Streaming] = {}
        """Agent name to its actions: names are unique."""
        self.cut: set[str] = set()
        """Agents whose streams may be interrupted."""
        self.killed: set[str] = set()
        """Agents whose process may die under them."""
        self.again: set[str] = set()
        """Tools that may run again."""
        self._rules: Permissions | None = None
        """The rules of the root at hand."""

    async def play(self) -> None:
        async with AsyncExitStack() as stack:
            if any(root.journal for root in self.program.roots):
                journal = SeamJournal(self.lab.sim, self.lab.watch.note)
                self.lab.journal = await stack.enter_async_context(journal.open())
            async with trio.open_nursery() as nursery:
                for number, root in enumerate(self.program.roots):
                    nursery.start_soon(self._root, f"R{number}", root)

    async def _root(self, name: str, root: Root) -> None:
        reader = root.reader
        parks, dies = root.journal == "parked", root.journal == "killed"
        cut = dies or (not parks and reader.does not in ("drain", "wait"))
        rules = {what: list(_named(name, root.stream, what)) for what in ("allowed", "asked", "denied")}
        is_ruled = any(rules.values())
        self._rules = (
            Permissions(allow=rules["allowed"], ask=rules["asked"], deny=rules["denied"]) if is_ruled else None
        )
        agent = self.agent(name, root.stream, cut=cut, is_kept=bool(root.journal))
        if dies:
            self.killed.update(built for built in self.built if built == name or built.startswith(f"{name}-"))
        await trio.sleep(root.begins)
        if not root.journal:
            await self._run(name, root, agent, None, None)
        elif self.lab.journal is not None:
            with suppress(*(() if self.lab.sim.fault is None else (AgentLoopError, InjectedFault))):
                await self._run_in_processes(name, root, agent, self.lab.journal)

    async def _run_in_processes(self, name: str, root: Root, agent: Agent, journal: SeamJournal) -> None:
        """Run the root in as many processes as it takes, one after another."""
        for number in range(ROUNDS):
            async with (
                journal.process(f"{name}p{number}", patience=PATIENCE + LATE * _actions_in(root.stream)) as client,
                stored_session(client, f"s-{name}", if_busy="wait") as session,
            ):
                if root.journal == "parked":
                    await self._park(name if number == 0 else f"{name}p{number}", root, agent, client, session)
                elif number == 0:
                    await self._run(name, root, agent, client, session)
                elif session.is_resumable:
                    answers = {question.id: _reply(question) for question in session.questions}
                    opening = self.lab.stream(
                        agent, name=f"{name}p{number}", session=session, client=client, resumes=answers
                    )
                    async with opening as stream:
                        await stream.drain(answer=_reply)
                    self._compare_resumed(name, root.stream, stream)
                if root.journal == "kept" or (
                    not (number == 0 and root.journal == "killed") and not session.is_resumable
                ):
                    return
        if self.lab.sim.fault is None:
            self.lab.watch.note(f"{name} does not come to its end in {ROUNDS} processes")

    async def _park(self, name: str, root: Root, agent: Agent, client: JournalClient, session: StoredSession) -> None:
        """Run until all that is left waits for answers; then, in the next process, with the answers."""
        answers: dict[str, Answer] | None = None
        if session.is_resumable:
            questions = session.questions[-1:] if root.reader.answers == "youngest_first" else session.questions
            answers = {question.id: _reply(question) for question in questions}
        opening = self.lab.stream(agent, name=name, session=session, on_question="park", client=client, resumes=answers)
        async with opening as stream:
            await self._read_steering(stream, root)

    async def _read_steering(self, stream: Recorded, root: Root) -> None:
        async for _event in stream:
            self._steer(stream, root)

    def _steer(self, stream: Recorded, root: Root) -> None:
        if root.steer and len(stream.events) == root.steer:
            with suppress(StreamStateError):
                stream.stream.steer("By the way.")
                stream.stream.follow_up("And then?")

    def _compare_resumed(self, name: str, stream: Streaming, resumed: Recorded) -> None:
        """A run whose process died comes to its own end in another one."""
        reason = resumed.stream.outcome.reason
        # The hook is not called for a call that the process died in, and which is not made again.
        expected = (predict(stream), "completed") if stream.end == "hook_blocks" else (predict(stream),)
        if self.lab.sim.fault is None and reason not in expected:
            self.lab.watch.note(f"{name} died, was resumed, and ended as {reason}, not {expected[0]}")

    async def _run(
        self, name: str, root: Root, agent: Agent, client: JournalClient | None, session: StoredSession | None
    ) -> None:
        reader = root.reader
        on_question: Any = "reader"
        if reader.does == "wait" or reader.answers in ("handler", "nobody"):
            on_question = "decline" if reader.answers == "nobody" else self.lab.handler(_reply)
        deadline = reader.after if reader.does == "time_out" else float("inf")
        try:
            with trio.move_on_after(deadline):
                # The nursery outside: inside, it would turn what the stream raises to its reader into a group.
                async with (
                    trio.open_nursery() as nursery,
                    self.lab.stream(
                        agent, name=name, on_question=on_question, session=session, client=client
                    ) as stream,
                ):
                    answering = trio.CancelScope()
                    nursery.start_soon(self._answer_late, stream, reader, answering)  # noqa: ASYNC111
                    try:
                        await self._read(stream, root, client)
                    finally:
                        answering.cancel()
        except* _LeftError:
            pass

    async def _read(self, stream: Recorded, root: Root, client: JournalClient | None) -> None:
        reader = root.reader
        if root.journal == "killed" and client is not None:
            await self._die_under(stream, reader, client)
            return
        if reader.does == "wait":
            await stream.stream.wait()
            return
        if reader.does == "leave" and reader.after == 0:
            return
        async for event in stream:
            if isinstance(event, QUESTIONS):
                self._answer(stream, event, reader)
            self._steer(stream, root)
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

    async def _die_under(self, stream: Recorded, reader: Reader, client: JournalClient) -> None:
        """Read, and kill the process after some events."""
        async for event in stream:
            stream.reply(event, _reply)
            if len(stream.events) > reader.after:
                client.kill()

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

    def agent(self, name: str, stream: Streaming, *, cut: bool, is_kept: bool) -> Agent:
        self.built[name] = stream
        if cut:
            self.cut.add(name)
        lab = self.lab
        dropped = says("no, ") + calls("nothing") + fails(ModelConnectionError("the connection dropped"))
        # In another process, a model goes on by what it has said before.
        script: list[Response] = [] if is_kept else [dropped] * stream.stumbles
        tools: list[Tool] = []
        of_toolset: list[Tool] = []
        for number, turn in enumerate(stream.turns):
            made = [
                self._tool(f"{name}-{number}-{index}", action, cut=cut or _may_be_cut(stream, action), is_kept=is_kept)
                for index, action in enumerate(turn)
            ]
            for action, tool in zip(turn, made, strict=True):
                is_own = not (isinstance(action, Do) and action.what == "in_toolset")
                (tools if is_own else of_toolset).append(tool)
            is_long = stream.long and not is_kept and number == 0
            response = says("bla " * 500, piece=2000) if is_long else says("w " * stream.words)
            if is_long:
                response = msgspec.structs.replace(response, usage=Usage(input_tokens=10, output_tokens=450))
            for tool in made:
                response += calls(tool.name)
            script.append(response)
        if stream.end == "model_fails":
            script.append(fails(OSError("down")))
        else:
            # Once more for each background run that it may be told of after it has said so.
            script += [says("The end.")] * (1 + _started(stream))
        block = lab.hook(hooks.user_prompt_submit, Block("not this"))
        # Its own calls only: each stream of the program says by itself whether it is blocked.
        enough = lab.hook(hooks.post_tool_use, Block("enough"), children=False)
        toolsets: list[Toolset] = [_Tools(lab, name, of_toolset)] if of_toolset else []
        return Agent(
            lab.planned(*script, name=name) if is_kept else _Model(lab, name, *script),
            name=name,
            tools=tools,
            toolsets=[*toolsets, _BrokenTools()] if stream.end == "listing_fails" else toolsets,
            permissions=self._rules,
            compaction=Compaction(window=500, keep_recent=0.01) if stream.long and not is_kept else None,
            hooks=[block] if stream.end == "prompt_blocked" else [enough] if stream.end == "hook_blocks" else [],
            limits=Limits(turns=len(stream.turns) or 1, identical_turns=1000)
            if stream.end == "turn_limit"
            else Limits(identical_turns=1000),
            deadlines=Deadlines(tool=50),
        )

    def _tool(self, name: str, action: Action, *, cut: bool, is_kept: bool) -> Tool:
        if isinstance(action, Child):
            cut = cut or (action.leave_after is not None and not action.background)
            inner = [self.agent(twin, action.stream, cut=cut, is_kept=is_kept) for twin in _twins(name, action)]
            handlers = [self._handler(agent.name, action.handler) for agent in inner]
            run = partial(_run_children, list(zip(inner, handlers, strict=True)), action)
            return self.lab.bare(name, run, timeout=float("inf"), agents=inner if action.background else ())
        match action.what:
            case "ask":
                return self.lab.asker(name)
            case "give_up":
                return self.lab.asker(name, patience=LATE / 2)
            case "ask_two":
                return self.lab.bare(name, partial(_ask_two, self.lab, name))
            case "remember":
                self.again.add(name)
                return self.lab.bare(name, partial(_remember, self.lab, name), if_interrupted="retry")
            case "guarded" | "allowed":
                return self.lab.tool(name, requires_approval=True)
            case "raise":
                return self.lab.tool(name, _raise)
            case "slow":
                return self.lab.tool(name, _slow)
            case "time_out":
                return self.lab.tool(name, _for_ever)
            case "stream":
                return self.lab.tool(name, _output)
            case "work" | "asked" | "denied" | "in_toolset":
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
            if stream.end == "hook_blocks" and self._denied(name) and all(map(_needs_approval, chain(*stream.turns))):
                # No tool has run that the hook could block after, unless a handler of a child run approved it.
                expected = "completed" if reason == "completed" else "blocked"
            if name in self.cut:
                others = ("cancelled", "failed", "interrupted") if name in self.killed else ("cancelled",)
                if name in self.killed and stream.end == "hook_blocks":
                    # The hook is not called for a call that the process died in, and which is not made again.
                    others = (*others, "completed")
                assert reason in (expected, *others), f"{name} ended as {reason}, not {expected}"
                continue
            if self._root_of(name).steer and name.startswith("R") and "-" not in name and expected == "completed":
                # One turn more than the program says may reach the limit.
                assert reason == expected or (reason, stream.end) == ("limit", "turn_limit"), f"{name}: {reason}"
                continue
            assert reason == expected, f"{name} ended as {reason}, not {expected}"
        for number, recorded in enumerate(self.lab.recorded):
            declined = [event for event in recorded.events if isinstance(event, QuestionDeclined)]
            somebody = not self._denied(recorded.name)
            assert not (declined and somebody), f"root {number}: {declined[0]}, though somebody would have answered"
        for name, stream in self.built.items():
            if name not in self.cut and name in runs and not self._denied(name):
                known = sum(1 for turn in played_turns(stream) for action in turn if not _has_no_effect(action))
                assert effects[name] == known, f"{name} had {effects[name]} effects, not {known}"
                self._compare_answers(name, stream)
        for (key, effect), count in self.lab.counts.items():
            assert count == 1 or effect in self.again, f"{effect} ran {count} times as {key}"

    def _compare_answers(self, name: str, stream: Streaming) -> None:
        """An asker that does not give up gets an answer."""
        answers = {message.split(" ", 1)[0]: answer for message, answer in self.lab.received.items()}
        for number, turn in enumerate(played_turns(stream)):
            for index, action in enumerate(turn):
                if isinstance(action, Do) and action.what == "ask":
                    answer = answers.get(f"{name}-{number}-{index}")
                    assert isinstance(answer, Accept), f"the question {index} of turn {number} of {name} got {answer!r}"
                if isinstance(action, Do) and action.what == "ask_two":
                    for half in ("a", "b"):
                        answer = answers.get(f"{name}-{number}-{index}{half}")
                        assert isinstance(answer, Accept), f"question {half} of {name}-{number}-{index} got {answer!r}"

    def _denied(self, name: str) -> bool:
        """Whether no answerer approves this agent's calls."""
        root = self._root_of(name)
        return root.reader.answers == "nobody" and root.journal != "parked"

    def _root_of(self, name: str) -> Root:
        """The root that an agent, or a stream, belongs to."""
        digits = re.match(r"R(\d+)", name)
        assert digits is not None
        return self.program.roots[int(digits[1])]

    def _may_be_missing(self, parent: str | None, name: str) -> bool:
        if parent is None:
            return name in self.cut
        stream = self.built[parent]
        turn = int(name.rsplit("-", 2)[1])
        return parent in self.cut or turn >= len(played_turns(stream)) or self._was_missing(parent)

    def _was_missing(self, name: str) -> bool:
        return all(run.config.name != name for run in self.lab.watch.runs)


def _needs_approval(action: Action) -> bool:
    return isinstance(action, Do) and action.what in ("guarded", "asked", "denied")


def _has_no_effect(action: Action) -> bool:
    # An asker does nothing to the world but ask.
    return isinstance(action, Child) or action.what in ("ask", "ask_two", "give_up", "denied")


QUESTIONS = (ElicitationRequested, ApprovalRequested, ContinueRequested)


def _may_be_cut(stream: Streaming, action: Action) -> bool:
    """Whether ``action`` starts background runs that ``stream`` may end: it waits for them only where it answers."""
    return isinstance(action, Child) and action.background and stream.end != "answer"


def _actions_in(stream: Streaming) -> int:
    """How many actions ``stream`` and the streams inside have. Each may wait for an answer that is late."""
    inside = [child for turn in stream.turns for child in turn if isinstance(child, Child)]
    return sum(map(len, stream.turns)) + sum(child.twins * _actions_in(child.stream) for child in inside)


def _started(stream: Streaming) -> int:
    """How many background runs ``stream`` starts."""
    children = [action for turn in stream.turns for action in turn if isinstance(action, Child)]
    return sum(child.twins for child in children if child.background)


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


async def _ask_two(lab: Lab, name: str, context: ToolContext[Any]) -> object:
    async def ask(half: str) -> None:
        message = f"{name}{half} of {context.source.session}"
        lab.received[message] = await context.ask(message, TAG_FORM)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "a")
        nursery.start_soon(ask, "b")
    return "asked twice"


async def _remember(lab: Lab, name: str, context: ToolContext[Any]) -> object:
    if context.recall("done", int) is None:
        lab.effect(context, name, may_run_again=True)
        await context.remember("done", 1)
    message = f"{name} of {context.source.session}"
    lab.received[message] = await context.ask(message, TAG_FORM)
    return "remembered"


async def _run_children(
    agents: list[tuple[Agent[Any, Any], QuestionHandler | None]], does: Child, context: ToolContext[Any]
) -> object:
    if does.background:
        return ", ".join([(await context.start(agent, "go on", on_question=handler)).id for agent, handler in agents])
    if len(agents) == 1:
        return await _run_child(*agents[0], does, context)
    results: list[str] = []

    async def run(agent: Agent, handler: QuestionHandler | None) -> None:
        try:
            results.append(str(await _run_child(agent, handler, does, context)))
        except AgentLoopError as error:
            results.append(type(error).__name__)

    async with trio.open_nursery() as nursery:
        for agent, handler in agents:
            nursery.start_soon(run, agent, handler)
    return ", ".join(sorted(results))


async def _run_child(agent: Agent, handler: QuestionHandler | None, does: Child, context: ToolContext[Any]) -> object:
    prompt: Prompt = "go on"
    if does.leave_after is None and not does.pause:
        return (await context.run(agent, prompt, on_question=handler)).output
    seen = 0
    try:
        async with context.stream(agent, prompt, on_question=handler) as child:
            async for _event in child:
                seen += 1
                if seen == does.leave_after:
                    break
                if seen % 8 == 0:
                    await trio.sleep(does.pause)
    except AgentLoopError:
        return "it failed"
    return "left it"


def simpler(program: Program) -> Iterator[Program]:
    """Programs that are one step simpler than ``program``: a part is left out, or replaced by a plain one."""
    for value in _simpler(program):
        if value.roots and all(_is_possible(root.stream) for root in value.roots):
            yield value


def _is_possible(stream: Streaming) -> bool:
    """Whether each turn has a call: a response without one would be the last."""
    inside = [action.stream for turn in stream.turns for action in turn if isinstance(action, Child)]
    return all(stream.turns) and all(map(_is_possible, inside))


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
            inner: Any = getattr(value, field.name)
            if type(inner) is tuple or isinstance(inner, msgspec.Struct):
                for other in _simpler(cast("Any", inner)):
                    yield msgspec.structs.replace(whole, **{field.name: other})
    elif isinstance(whole, int) and whole > 1:
        yield cast("_T", whole // 2)


class Reached(msgspec.Struct):
    """The coverage of programs, added up: a machine that reaches nothing proves nothing."""

    programs: int = 0
    streams: int = 0
    deepest: int = 0
    asked: int = 0
    journaled: int = 0
    resumed: int = 0
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
        self.journaled += any(root.journal for root in program.roots)
        self.resumed += sum(run.parent is None for run in lab.watch.resumed)
        self.overlaps += len(program.roots) > 1
        self.steps += lab.sim.steps

    def __add__(self, other: Reached) -> Reached:
        both = {name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        return Reached(**{**both, "deepest": max(self.deepest, other.deepest)})

    def __str__(self) -> str:
        return (
            f"{self.programs} programs, {self.streams} streams (deepest {self.deepest}), {self.asked} questions, "
            f"{self.journaled} with journals, {self.resumed} runs resumed, {self.early_returns} early returns, "
            f"{self.overlaps} with several roots, {self.faults} faults injected, "
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
