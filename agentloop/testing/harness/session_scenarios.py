"""The part of the corpus in which sessions outlive their process: saved, killed, parked, resumed, followed, rewound.

A story runs on a store of journals that fails, hangs and is slow, and in processes that can be killed after every
step. However it ends, the session is opened once more in a quiet world, and resumed to its end.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import trio

from agentloop import hooks
from agentloop._core.transcript import problems
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.log import WORDS, words_of
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import (
    AgentLoopError,
    AnswerError,
    ModelAuthenticationError,
    ModelContextOverflowError,
    StoreError,
)
from agentloop.events import (
    ApprovalRequested,
    CompactionStarted,
    ContinueRequested,
    ElicitationRequested,
    HandedOff,
    MessageCommitted,
    Question,
    ReasoningDelta,
    StreamEvent,
    StreamStopped,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnStarted,
)
from agentloop.limits import Compaction, Limits
from agentloop.messages import ToolResult, Usage, UserMessage
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.permissions import Permissions
from agentloop.questions import Answer, Deny
from agentloop.stores import answer_question, fork_session, stored_session
from agentloop.stores._follow import Follower, follow_session
from agentloop.stores.stored import LEASE_SECONDS, StoredSession
from agentloop.testing._journal import JournalClient, SeamJournal, StoreIsSlow, parts_of
from agentloop.testing._lab import AgentScenario, Lab, PlannedModel, Recorded, echo
from agentloop.testing.scripted import Response, calls, fails, says
from agentloop.testing.simulation import InjectedFault, SeamRaise
from agentloop.testing.wellformed import event_problems
from agentloop.tools import OpenToolset, Tool
from agentloop.wire import event_type

__all__ = ["STORIES", "Story", "story"]

STORIES: dict[str, Callable[[], AgentScenario]] = {}

ID = "ann"
"""The session of every story."""

PAUSE = 0.06
"""Seconds between two words of a slow model."""

SHORT_LEASE = 9.0
"""Seconds of the lease of a session that is held longer: longer than a slow store takes."""

LONG_WORK = 20.0
"""Seconds that a call takes that outlasts such a lease."""

FOLLOWERS = 5
"""Places of each story from which its journal is followed at the end."""

MODEL_WORDS = (TextDelta, ReasoningDelta, ToolCallDelta)


class Story:
    """A session, the agent that runs on it, and the events that its followers read.

    Attributes:
      followed: what each follower read.
      rewinds: whether messages were taken back, so that some delivered ones are no part of the session any more.
    """

    def __init__(self, lab: Lab, journal: SeamJournal, make: Callable[[Lab], Agent[Any, Any]]) -> None:
        self.lab = lab
        self.journal = journal
        self.agent = make(lab)
        self.followed: dict[str, list[StreamEvent]] = {}
        self.rewinds = False

    def process(self, name: str) -> Any:
        """The work of one process; see `SeamJournal.process`."""
        return self.journal.process(name)

    def session(self, client: JournalClient, **options: Any) -> Any:
        """The session as ``client`` has it, as soon as it is free."""
        return stored_session(client, ID, if_busy="wait", **options)

    async def go_on(
        self,
        client: JournalClient,
        session: StoredSession,
        *,
        name: str,
        park: bool = False,
        answer: Callable[[Question], Answer | None] = echo,
        on_event: Callable[[Recorded, StreamEvent], object] = lambda _stream, _event: None,
    ) -> None:
        """Resume the unfinished run, with an answer to each question, or start with a prompt, and read to the end."""
        replies: dict[str, Answer] | None = None
        if session.is_resumable:
            answers = {question.id: answer(question) for question in session.questions}
            replies = {id: reply for id, reply in answers.items() if reply is not None}
        opening = self.lab.stream(
            self.agent,
            name=name,
            session=session,
            on_question="park" if park else "reader",
            client=client,
            resumes=replies,
        )
        async with opening as stream:
            async for event in stream:
                on_event(stream, event)
                if not park:
                    stream.reply(event, answer)

    async def follow(self, name: str, follower: Follower) -> None:
        """Read along, to the end or to an error."""
        read = self.followed.setdefault(name, [])
        try:
            async for event in follower:
                read.append(event)
        except (StoreError, InjectedFault) as error:
            # A store that cannot be read is the follower's own trouble. A slow one is no reason to give up.
            fault = self.lab.sim.fault
            was_well = fault is None or (isinstance(fault, SeamRaise) and fault.exc is StoreIsSlow)
            if was_well and read and not self.journal.has_failed:
                self.lab.watch.note(f"{name} gave up, though the store was well: {error}")
            return
        if not self.journal.has_failed and not isinstance(read[-1] if read else None, StreamStopped):
            self.lab.watch.note(f"{name} came to its end with {read[-1:]}, which is no end")

    async def afterwards(self) -> None:
        """Check that, whatever happened, the session is free, or soon will be, is valid, and can be resumed."""
        lab, journal = self.lab, self.journal
        if not (journal.has_failed or journal.is_free(ID)):
            lab.watch.note("the session was not given back")
        lab.sim.calm, journal.was_well, journal.has_failed = True, not journal.has_failed, False
        began = lab.sim.now
        async with stored_session(journal.plain, ID, if_busy="wait") as session:
            if lab.sim.now - began > LEASE_SECONDS + 1:
                lab.watch.note(f"the session was taken for {lab.sim.now - began:g} s by nobody")
            self._check_session(session)
            resumes = {question.id: echo(question) for question in session.questions} if session.is_resumable else None
            async with lab.stream(self.agent, name="last", session=session, resumes=resumes) as stream:
                await stream.drain(answer=echo)
            # A hook that ended the run after a call still ends it.
            is_over = stream.stream.outcome.reason == "blocked" and any(
                hook.point == "post_tool_use" for hook in self.agent.hooks
            )
            if stream.stream.outcome.reason != "completed" and not is_over:
                lab.watch.note(f"afterwards the session does not go on: {stream.stream.outcome}")
            self._check_session(session)
            if session.is_resumable:
                lab.watch.note("what was gone on with to its end is unfinished")
            due = self._agent_that_is_due()
            async with lab.stream(self.agent, "And?", name="very-last", session=session) as stream:
                await stream.drain(answer=echo)
            messages = session.messages
            if stream.events[0].agent != due:
                lab.watch.note(f"the last prompt went to {stream.events[0].agent}, and {due} has the conversation")
        journal.check_numbers(ID)
        self._check_effects(messages)
        self._check_followers()
        self._check_deltas()
        await self._check_from_the_middle()
        async with stored_session(journal.plain, ID) as session:
            if session.messages != messages:
                lab.watch.note("opened once more, the session is another")

    def _agent_that_is_due(self) -> str:
        """Name of the agent that has the conversation, by the last saved handoff."""
        saved = self.journal.saved(ID).events.values()
        handoffs = [event.to for event in saved if isinstance(event, HandedOff) and event.session == ID]
        return handoffs[-1] if handoffs else self.agent.name

    def _check_session(self, session: StoredSession) -> None:
        for problem in problems(session.messages):
            self.lab.watch.note(f"a provider would refuse the session: {problem}")
        if self.rewinds:
            return
        messages = list(session.messages)
        resumable = session._writer.unfinished
        for recorded in self.lab.recorded:
            for event in recorded.events:
                if event.session != ID:
                    continue
                if isinstance(event, MessageCommitted) and event.message not in messages:
                    self.lab.watch.note(f"{recorded.name} was told a message that is lost: {event}")
                if isinstance(event, ToolCallFinished) and event.result.status != "interrupted":
                    there = event.result in messages or (
                        resumable is not None and event.result in resumable.results.values()
                    )
                    if not there:
                        self.lab.watch.note(f"{recorded.name} was told a result that is lost: {event}")

    def _check_effects(self, messages: Any) -> None:
        """Check that no tool ran twice that may run once, and that the transcript's claims about effects are true."""
        again = {tool.name for tool in _tools_of(self.agent) if tool.may_run_again or tool.if_interrupted == "ask"}
        for (key, tool), count in self.lab.counts.items():
            if count > 1 and tool not in again:
                self.lab.watch.note(f"{tool} ran {count} times as {key}")
        done = {key: count for (key, _tool), count in self.lab.counts.items()}
        names = {tool.name for tool in _tools_of(self.agent)}
        for message in messages:
            if not isinstance(message, ToolResult) or message.name not in names - again:
                continue
            count = done.get(f"{ID}: {ID}#{message.call_id}", 0)
            if message.status == "ok" and message.text == "done" and not count:
                self.lab.watch.note(f"the transcript says that {message.call_id} was done, and it was not")
            if "did not run" in message.text and count:
                self.lab.watch.note(f"the transcript says that {message.call_id} did not run, and it did")

    def _check_followers(self) -> None:
        """Check that each follower has read the saved events, each once, in order; deltas may come before they are."""
        saved = self.journal.saved(ID).events
        for name, read in self.followed.items():
            numbers = [event.seq for event in read]
            if numbers != sorted(set(numbers)):
                self.lab.watch.note(f"{name} read the numbers {numbers}")
            for event in read:
                if not isinstance(event, WORDS) and saved.get(event.seq) != event:
                    self.lab.watch.note(f"{name} read {event}, which is not kept")
            for part in parts_of(read):
                # As its reader got them, but for pieces of text that were put together.
                complete = isinstance(part[-1], StreamStopped)
                numbered = [msgspec.structs.replace(event, seq=number) for number, event in enumerate(part)]
                for problem in event_problems(numbered, complete=complete):
                    self.lab.watch.note(f"{name}: {problem}")
            upto = max(numbers, default=0)
            missed = [
                event
                for seq, event in saved.items()
                if seq <= upto and not isinstance(event, WORDS) and event not in read
            ]
            if missed:
                self.lab.watch.note(f"{name} missed {missed[0]}")
            there = texts_of(event for seq, event in saved.items() if seq <= upto)
            for text, words in texts_of(read).items():
                # What was not saved yet when a process was killed, its followers may have read, and no other can.
                if not words.startswith(there.get(text, "")):
                    self.lab.watch.note(f"{name} read {words!r} of {text}, and {there[text]!r} is kept")
            for text in there.keys() - texts_of(read).keys():
                self.lab.watch.note(f"{name} missed {there[text]!r} of {text}")

    def _check_deltas(self) -> None:
        """Check that, where nothing was injected, the store has the pieces that the streams' own readers got."""
        if self.lab.sim.injection is not None:
            return
        saved = texts_of(self.journal.saved(ID).events.values())
        for recorded in self.lab.recorded:
            if recorded.end == "left" or recorded.stream.source.session != ID:
                continue
            for text, words in texts_of(recorded.events).items():
                if saved.get(text, "") != words:
                    self.lab.watch.note(f"{recorded.name} read {words!r} of {text}, and {saved.get(text)!r} is kept")

    async def _check_from_the_middle(self) -> None:
        """Check that a follower that goes on after a piece of text gets the later pieces, whatever was put together."""
        readers = [reader for reader in self.lab.recorded if reader.client is None or not reader.client.is_dead]
        whole = [reader for reader in readers if reader.end != "left" and reader.stream.source.session == ID]
        if self.lab.sim.injection is not None or len(whole) < len(self.lab.recorded):
            return
        pieces = [event for reader in whole for event in reader.events if isinstance(event, MODEL_WORDS)]
        for last in pieces[:: max(len(pieces) // FOLLOWERS, 1)]:
            expected, read = dict[tuple[str, str], str](), dict[tuple[str, str], str]()
            for piece in pieces:
                if piece.seq > last.seq:
                    key = event_type(piece), piece.stream
                    expected[key] = expected.get(key, "") + words_of(piece)
            async for event in follow_session(self.journal.plain, ID, after=last.seq):
                if isinstance(event, MODEL_WORDS):
                    key = event_type(event), event.stream
                    read[key] = read.get(key, "") + words_of(event)
            if read != expected:
                self.lab.watch.note(f"after {last.seq}, a follower reads {read}, where {expected} was said")
                return


def texts_of(events: Iterable[StreamEvent]) -> dict[tuple[str, ...], str]:
    """The texts that ``events`` are deltas of, as far as they go, by kind, stream, and turn or call."""
    texts: dict[tuple[str, ...], str] = {}
    turns: dict[str, int] = {}
    for event in events:
        if isinstance(event, TurnStarted):
            turns[event.stream] = event.turn
        if isinstance(event, WORDS):
            key = getattr(event, "call_id", "") or str(turns.get(event.stream, 0))
            text = (event_type(event), event.stream, key)
            texts[text] = texts.get(text, "") + words_of(event)
    return texts


def _tools_of(agent: Agent[Any, Any]) -> list[Tool]:
    """The tools of an agent, of its team, and of the agents that run in the background, whose toolsets name them."""
    agents: list[Any] = [*(agent.members.values() or (agent,))]
    for each in agents:
        agents += [
            inner for toolset in each.toolsets for inner in getattr(toolset, "agents", ()) if inner not in agents
        ]
    return [tool for each in agents for tool in each.tools]


Play = Callable[[Story], Awaitable[None]]


def story(
    make: Callable[[Lab], Agent[Any, Any]], *, reasons: tuple[str, ...], effects: Mapping[str, int]
) -> Callable[[Play], Play]:
    """Add a story to the corpus, under its function's name.

    Args:
      make: makes the agent.
      reasons: why its streams stop, one after another, where nothing is injected.
      effects: how often each tool has an effect then, by its name.
    """

    def add(play: Play) -> Play:
        name = play.__name__.replace("_", "-")
        played: list[Story] = []

        async def whole(lab: Lab) -> None:
            async with SeamJournal(lab.sim, lab.watch.note).open() as journal:
                lab.journal = journal
                scene = Story(lab, journal, make)
                played[:] = [scene]
                interrupt: KeyboardInterrupt | None = None
                try:
                    await _played(play, scene)
                except (AgentLoopError, InjectedFault) as error:
                    lab.errors.append(error)
                    if lab.sim.injection is None:
                        raise
                except KeyboardInterrupt as error:
                    # The process ends, and the session is opened in another one.
                    interrupt = error
                    journal.has_failed = True
                await scene.afterwards()
                if interrupt is not None:
                    raise interrupt

        def expect(lab: Lab) -> None:
            seen = tuple(
                stream.stream.outcome.reason for stream in lab.recorded if stream.name not in ("last", "very-last")
            )
            assert seen == reasons, seen
            counted: dict[str, int] = {}
            for (_, tool), count in lab.counts.items():
                counted[tool] = counted.get(tool, 0) + count
            assert counted == dict(effects), counted

        STORIES[name] = partial(AgentScenario, name, whole, expect)
        return play

    return add


async def _played(play: Play, story: Story) -> None:
    try:
        await play(story)
    except BaseExceptionGroup as group:
        # Only a story with several tasks raises a group.
        raise_single(group)


# ------------------------------------------------------------------------------ the agents


async def _slow(_context: ToolContext[Any]) -> str:
    await trio.sleep(1)
    return "done"


def _busy(lab: Lab) -> Agent:
    """Calls side by side: a slow one, one that needs approval, one that asks, and an agent that asks, too."""
    inner = Agent(
        lab.planned(calls("one", id="") + calls("ask"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.tool("one"), lab.asker("ask")],
    )
    script = says("Let me see. ") + calls("one") + calls("slow") + calls("guarded") + calls("inner", prompt="x")
    tools = [lab.tool("one"), lab.tool("slow", _slow), lab.tool("guarded", requires_approval=True), inner.as_tool()]
    return Agent(lab.planned(script, calls("one"), "Done."), tools=tools)


def _asks_twice(lab: Lab) -> Agent:
    """Two questions, one after the other, in one call, and one more in the next turn."""

    async def twice(context: ToolContext[Any]) -> str:
        for number in ("first", "second"):
            message = f"{number} of {context.source.session}"
            lab.received[message] = await context.ask(message, FORM)
            if context.recall(number, int) is None:
                await context.remember(number, 1)
        return "told"

    tools = [lab.bare("twice", twice), lab.tool("one"), lab.asker("ask")]
    return Agent(lab.planned(calls("twice") + calls("one"), calls("ask"), "Done."), tools=tools)


def _delegates(lab: Lab) -> Agent:
    """A call that asks after an agent inside it has done its work."""
    inner = Agent(lab.planned(calls("one"), "Inner.", name="inner"), name="inner", tools=[lab.tool("one")])

    async def delegate(context: ToolContext[Any]) -> str:
        done = await context.run(inner, "x")
        message = f"delegate of {context.source.session}"
        lab.received[message] = await context.ask(message, FORM)
        return str(done.output)

    return Agent(lab.planned(calls("delegate"), "Done."), tools=[lab.bare("delegate", delegate)])


def _several(lab: Lab) -> Agent:
    """A call that asks two people at once, and one that runs two agents at once, each of which works and then asks."""

    async def questions(context: ToolContext[Any]) -> str:
        async def ask(name: str) -> None:
            message = f"{name} of {context.source.session}"
            lab.received[message] = await context.ask(message, FORM)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first")
            nursery.start_soon(ask, "second")
        return "asked"

    def inner(name: str) -> Agent:
        pay = lab.tool(f"pay-{name}")
        script = (calls(pay.name), calls("ask"), f"{name} is done.")
        return Agent(lab.planned(*script, name=name), name=name, tools=[pay, lab.asker("ask")])

    agents = [inner("left"), inner("right")]

    async def children(context: ToolContext[Any]) -> str:
        async def run(agent: Agent) -> None:
            outcome = await context.run(agent, f"go, {agent.name}")
            if lab.journal is not None:
                root = context.source.stream.partition("/")[0]
                lab.journal.check_child(root, outcome_stream(lab, agent))
            outputs.append(str(outcome.output))

        outputs: list[str] = []
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(run, agent)
        return ", ".join(sorted(outputs))

    tools = [lab.bare("questions", questions), lab.bare("children", children), lab.tool("one")]
    return Agent(lab.planned(calls("questions") + calls("children"), calls("one"), "Done."), tools=tools)


def outcome_stream(lab: Lab, agent: Agent) -> str:
    """The stream in which ``agent`` last came to its end."""
    return [run.source.stream for run in lab.watch.runs if run.config.name == agent.name][-1]


def _two(lab: Lab) -> Agent:
    """A call that asks, and one that needs approval, side by side."""
    tools = [lab.asker("ask"), lab.tool("guarded", requires_approval=True)]
    return Agent(lab.planned(calls("ask") + calls("guarded"), "Done."), tools=tools)


def _long_work(lab: Lab) -> Agent:
    """A call that takes longer than a lease."""

    async def long(_context: ToolContext[Any]) -> str:
        await trio.sleep(LONG_WORK)
        return "done"

    tools = [lab.tool("long", long, timeout=1000)]
    return Agent(lab.planned(calls("long"), "Done.", calls("long"), "Done again."), tools=tools)


def _uses_context(lab: Lab) -> Agent:
    """A call that remembers, visits a page, gives a long result, and runs past a limit."""

    async def steps(context: ToolContext[Any]) -> str:
        if context.recall("step", int) is None:
            lab.effect(context, "steps", may_run_again=True)
            await context.remember("step", 1)
        await context.output("some output ")
        message = f"steps of {context.source.session}"
        lab.received[message] = await context.ask(message, FORM)
        message = f"page of {context.source.session}"
        lab.received[message] = await context.ask_url(message, "https://example.org/sign-in")
        return "line\n" * 200

    tools = [lab.bare("steps", steps, if_interrupted="retry"), lab.tool("one")]
    script = (calls("steps", id="c1"), calls("read_result", call_id="c1"), calls("one"), "Done.")
    limits = Limits(turns=2)
    return Agent(lab.planned(*script), tools=tools, max_result=200, limits=limits)


class _BrokenTools:
    """A toolset that does not start as long as ``is_broken``."""

    name = "broken"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.is_broken = False

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenToolset]:
        await self._lab.sim.seam("toolset:start")
        if self.is_broken and not self._lab.sim.calm:
            raise OSError("the server did not start")
        yield self

    async def list_tools(self) -> list[Tool]:
        await self._lab.sim.seam("toolset:list")
        return [self._lab.tool("listed")]


def _with_toolset(lab: Lab) -> Agent:
    """A call that asks, of an agent whose toolset may fail to start."""
    return Agent(
        lab.planned(calls("ask") + calls("listed"), "Done."), tools=[lab.asker("ask")], toolsets=[_BrokenTools(lab)]
    )


def _asks_and_works(lab: Lab) -> Agent:
    """A call that runs two agents at once: one asks at once, and the other one works for a while."""

    async def work(_context: ToolContext[Any]) -> str:
        await trio.sleep(5)
        return "done"

    asks = Agent(lab.planned(calls("ask"), "Asked.", name="asks"), name="asks", tools=[lab.asker("ask")])
    works = Agent(lab.planned(calls("work"), "Worked.", name="works"), name="works", tools=[lab.tool("work", work)])

    async def children(context: ToolContext[Any]) -> str:
        async with trio.open_nursery() as nursery:
            for agent in (asks, works):
                nursery.start_soon(context.run, agent, f"go, {agent.name}")
        return "both"

    return Agent(lab.planned(calls("children"), "Done."), tools=[lab.bare("children", children)])


def _reads_its_child(lab: Lab) -> Agent:
    """A call that reads the events of an agent that works and asks, and one that reports much progress."""
    inner = Agent(
        lab.planned(says("word " * 20) + calls("pay"), calls("ask"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.tool("pay"), lab.asker("ask")],
    )

    async def read(context: ToolContext[Any]) -> str:
        async with context.stream(inner, "go") as child:
            async for _event in child:
                await trio.lowlevel.checkpoint()
            return str(child.result.output)

    async def report(context: ToolContext[Any]) -> str:
        for number in range(120):
            await context.progress(number, total=120)
        return "done"

    tools = [lab.bare("read", read, timeout=1000), lab.tool("report", report, timeout=1000)]
    return Agent(lab.planned(calls("read") + calls("report"), "Done."), tools=tools)


FORM = {"type": "object", "properties": {"tag": {"type": "string"}}, "required": ["tag"]}


def _in_doubt(lab: Lab) -> Agent:
    """Calls whose outcome is unknown later."""

    async def long(_context: ToolContext[Any]) -> str:
        await trio.sleep(50)
        return "done"

    tools = [
        lab.tool("again", long, if_interrupted="retry", timeout=100),
        lab.tool("doubtful", long, if_interrupted="ask", timeout=100),
        lab.tool("once", long, timeout=100),
    ]
    return Agent(lab.planned(calls("again") + calls("doubtful") + calls("once"), "Done."), tools=tools)


def _plain(lab: Lab) -> Agent:
    return Agent(lab.planned(calls("one"), "First.", calls("one"), "Second."), tools=[lab.tool("one")])


# ----------------------------------------------------------------------------- the stories


@story(_busy, reasons=("completed",), effects={"one": 3, "slow": 1, "guarded": 1})
async def kept(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A")


@story(_busy, reasons=("needs_input", "completed"), effects={"one": 3, "slow": 1, "guarded": 1})
async def parked_and_resumed(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_asks_twice, reasons=("needs_input",) * 3 + ("completed",), effects={"one": 1})
async def parked_again_and_again(story: Story) -> None:
    for number in range(4):
        async with story.process(f"P{number}") as client, story.session(client) as session:
            await story.go_on(client, session, name=f"A{number}", park=True)


@story(_delegates, reasons=("needs_input", "completed"), effects={"one": 1})
async def parked_after_a_child(story: Story) -> None:
    for number in range(2):
        async with story.process(f"P{number}") as client, story.session(client) as session:
            await story.go_on(client, session, name=f"A{number}", park=True)


@story(_busy, reasons=("needs_input", "completed"), effects={"one": 3, "slow": 1, "guarded": 1})
async def parked_and_resumed_in_one_process(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
        await story.go_on(client, session, name="B")


@story(_busy, reasons=("needs_input", "needs_input", "completed"), effects={"one": 3, "slow": 1, "guarded": 1})
async def answered_one_by_one(story: Story) -> None:
    """By other processes, two of which give an answer to the same question."""
    questions: tuple[Question, ...] = ()
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
        questions = session.questions
    for number, question in enumerate(questions):

        async def give(name: str, question: Question, won: list[str]) -> None:
            async with story.process(name) as client:
                with suppress(AnswerError, StoreError):
                    await answer_question(client, ID, question.id, echo(question))
                    won.append(name)

        won: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give, f"Q{number}", question, won)
            nursery.start_soon(give, f"R{number}", question, won)
        if len(won) > 1:
            story.lab.watch.note(f"{question.id} was answered by {won}")
        async with story.process(f"S{number}") as client, story.session(client) as session:
            if session.is_resumable:
                await story.go_on(
                    client, session, name=f"B{number}", park=number + 1 < len(questions), answer=lambda question: None
                )


@story(_busy, reasons=("needs_input", "completed"), effects={"one": 3, "slow": 1})
async def parked_and_given_up(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        starting = story.lab.stream(story.agent, "Never mind.", name="B", session=session, client=client)
        async with starting as stream:
            await stream.drain(answer=echo)


@story(_busy, reasons=(), effects={"one": 3, "slow": 1, "guarded": 1})
async def run_and_parked(story: Story) -> None:
    """Without a reader; followers only look on."""
    async with story.process("P") as client, story.session(client) as session:
        await story.agent.run("go", session=session, on_question="park")
    async with story.process("Q") as client, story.session(client) as session:
        await story.agent.resume(session)
        # Also words that had no reader are in the journal.
        await story.follow("later", follow_session(client, ID))


@story(_reads_its_child, reasons=(), effects={"pay": 1, "report": 1})
async def run_in_a_slow_store(story: Story) -> None:
    """Without a reader, the run waits for the store all the same."""
    async with story.process("P") as client, story.session(client) as session:
        client.delay = 1.0
        await story.agent.run("go", session=session, on_question="park")
    async with story.process("Q") as client, story.session(client) as session:
        if session.is_resumable:
            replies = {question.id: echo(question) for question in session.questions}
            await story.agent.resume(session, replies)


@story(_in_doubt, reasons=("cancelled", "completed"), effects={"again": 2, "doubtful": 2, "once": 1})
async def killed_and_resumed(story: Story) -> None:
    async with story.process("P") as client, trio.open_nursery() as nursery, story.session(client) as session:

        async def kill() -> None:
            await trio.sleep(10)
            client.kill()

        nursery.start_soon(kill)
        await story.go_on(client, session, name="A")
        nursery.cancel_scope.cancel()
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


class _SlowReply:
    """A reply that takes its time between two words."""

    def __init__(self, reply: Reply, said: list[float]) -> None:
        self._reply = reply
        self._said = said

    async def text(self, text: str, /) -> None:
        self._said.append(trio.current_time())
        await self._reply.text(text)
        await trio.sleep(PAUSE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reply, name)


class _Slowly(PlannedModel):
    """Takes its time between words.

    Attributes:
      said: when each word was said.
    """

    def __init__(self, lab: Lab, name: str, *script: Response | str) -> None:
        super().__init__(lab, name, *script)
        self.said: list[float] = []

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Say something."""
        slow: Any = _SlowReply(reply, self.said)
        return await super().respond(request, slow)


def _speaks(lab: Lab) -> Agent:
    script = says("word " * 12) + calls("one")
    return Agent(_Slowly(lab, "model", script, "Done."), tools=[lab.tool("one")])


@story(_speaks, reasons=("cancelled", "completed"), effects={"one": 1})
async def killed_while_the_model_speaks(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:

        def kill(_stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, TextDelta) and event.seq > 11:
                client.kill()

        await story.go_on(client, session, name="A", on_event=kill)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_busy, reasons=("failed", "completed"), effects={"one": 3, "slow": 1, "guarded": 1})
async def kept_again_when_there_is_room(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:

        def fill(_stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, ElicitationRequested):
                client.fill()

        await story.go_on(client, session, name="A", on_event=fill)
        client.is_full = False
        await story.go_on(client, session, name="B")


@story(_busy, reasons=("needs_input", "cancelled"), effects={"one": 3, "slow": 1, "guarded": 1})
async def resumed_and_stopped_at_once(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
        resuming = story.lab.stream(story.agent, name="B", session=session, client=client, resumes={})
        async with resuming as stream:
            stream.stop()
            await stream.drain()


@story(_busy, reasons=("completed", "completed"), effects={"one": 3, "slow": 1, "guarded": 1})
async def followed(story: Story) -> None:
    """Followed from the same process, and from another one."""
    async with trio.open_nursery() as nursery:

        async def elsewhere() -> None:
            async with story.process("Q") as client:
                await trio.sleep(0.5)
                await story.follow("elsewhere", follow_session(client, ID))

        nursery.start_soon(elsewhere)
        async with story.process("P") as client, story.session(client) as session:
            async with trio.open_nursery() as inside:
                first = True

                def follow(_stream: Recorded, _event: StreamEvent) -> None:
                    nonlocal first
                    if first:
                        inside.start_soon(story.follow, "here", session.follow())
                    first = False

                await story.go_on(client, session, name="A", on_event=follow)
            async with story.lab.stream(story.agent, "And?", name="B", session=session, client=client) as stream:
                await stream.drain()


@story(_plain, reasons=("completed", "completed", "completed"), effects={"one": 3})
async def rewound(story: Story) -> None:
    async with story.process("P") as client:
        async with story.session(client) as session:
            await story.go_on(client, session, name="A")
            await story.go_on(client, session, name="B")
            if len(session.messages) > 4:
                story.rewinds = True
                await session.rewind(4)
        async with story.session(client) as session:
            await story.go_on(client, session, name="C")


@story(_plain, reasons=("completed", "completed"), effects={"one": 2})
async def waited_for(story: Story) -> None:
    """Two processes want the session at once."""
    inside: list[str] = []

    async def use(name: str) -> None:
        async with story.process(f"P{name}") as client, story.session(client) as session:
            inside.append(name)
            if len(inside) > 1:
                story.lab.watch.note(f"{inside} have the session at once")
            try:
                await story.go_on(client, session, name=name)
            finally:
                inside.remove(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, "A")
        await trio.sleep(0.001)
        nursery.start_soon(use, "B")


@story(_plain, reasons=("cancelled", "cancelled", "completed"), effects={"one": 1})
async def gone_on_without_a_prompt_and_killed(story: Story) -> None:
    """A run is stopped, another goes on without a prompt, its process dies, and it is resumed."""
    async with story.process("P") as client, story.session(client) as session:

        def stop(stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, ToolCallStarted):
                stream.stop("enough")

        await story.go_on(client, session, name="A", on_event=stop)
        if session.may_continue:
            opening = story.lab.stream(story.agent, None, name="B", session=session, client=client)
            async with opening as stream:
                async for event in stream:
                    if isinstance(event, TurnStarted):
                        client.kill()
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="C")


@story(_busy, reasons=("needs_input", "completed", "completed"), effects={"one": 4, "slow": 1, "guarded": 2})
async def forked(story: Story) -> None:
    """A parked run is resumed in a fork, and in the session itself."""
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client:
        await fork_session(client, ID, "fork")
        async with stored_session(client, "fork", if_busy="wait") as session:
            await story.go_on(client, session, name="B")
    async with story.process("R") as client, story.session(client) as session:
        await story.go_on(client, session, name="C")


@story(_two, reasons=("completed",), effects={"guarded": 1})
async def answered_together(story: Story) -> None:
    """Both questions are answered at the same moment."""
    async with story.process("P") as client, story.session(client) as session:
        asked: list[Question] = []

        def collect(stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, (ElicitationRequested, ApprovalRequested)):
                asked.append(event)
            if len(asked) == 2:
                for question in asked:
                    stream.answer(question.id, echo(question))
                asked.clear()

        await story.go_on(client, session, name="A", answer=lambda question: None, on_event=collect)


@story(_several, reasons=("completed",), effects={"one": 1, "pay-left": 1, "pay-right": 1})
async def several_at_once(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A")


@story(_several, reasons=("needs_input", "completed"), effects={"one": 1, "pay-left": 1, "pay-right": 1})
async def several_at_once_parked(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_several, reasons=("needs_input",) * 4 + ("completed",), effects={"one": 1, "pay-left": 1, "pay-right": 1})
async def several_at_once_answered_from_the_youngest(story: Story) -> None:
    """One answer a process, the youngest question first: what is answered stays answered."""
    asked: list[str] = []
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    for number in range(8):
        async with story.process(f"Q{number}") as client, story.session(client) as session:
            if not session.is_resumable:
                break
            question = session.questions[-1] if session.questions else None
            again = question is not None and getattr(question, "message", "") in asked
            if again and story.lab.sim.injection is None:
                story.lab.watch.note(f"{question} is asked again, though it was answered")
            if question is not None:
                asked.append(getattr(question, "message", ""))

            def answer(each: Question, youngest: Question | None = question) -> Answer | None:
                return echo(each) if youngest is not None and each.id == youngest.id else None

            await story.go_on(client, session, name=f"B{number}", park=True, answer=answer)


@story(_long_work, reasons=("completed", "completed"), effects={"long": 2})
async def held_longer_than_a_lease(story: Story) -> None:
    """Against another process that waits for the session all the while."""
    inside: list[str] = []

    async def use(name: str) -> None:
        opening = story.process(f"P{name}")
        async with opening as client, story.session(client, lease_seconds=SHORT_LEASE) as session:
            inside.append(name)
            if len(inside) > 1 and not story.journal.has_failed:
                story.lab.watch.note(f"{inside} have the session at once")
            try:
                if session.is_resumable:
                    await story.go_on(client, session, name=name)
                else:
                    opening = story.lab.stream(story.agent, "Go.", name=name, session=session, client=client)
                    async with opening as stream:
                        await stream.drain()
            finally:
                inside.remove(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, "A")
        await trio.sleep(0.001)
        nursery.start_soon(use, "B")


@story(_busy, reasons=("needs_input", "completed"), effects={"one": 3, "slow": 1, "guarded": 1})
async def a_start_on_a_full_disk_leaves_what_is_parked(story: Story) -> None:
    questions: list[str] = []
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
        questions += [question.id for question in session.questions]
        client.fill()
        with suppress(StoreError):
            async with story.lab.stream(story.agent, "Never mind.", name="B", session=session, client=client) as stream:
                await stream.drain()
        client.is_full = False
    async with story.process("Q") as client, story.session(client) as session:
        is_there = session.is_resumable and [question.id for question in session.questions] == questions
        if story.lab.sim.injection is None and not is_there:
            story.lab.watch.note("what was parked is gone after a start that failed")
        await story.go_on(client, session, name="C")


@story(_with_toolset, reasons=("needs_input", "failed", "completed"), effects={"listed": 1})
async def a_toolset_fails_where_a_run_is_resumed(story: Story) -> None:
    """The run stays parked, and is resumed when the toolset starts."""
    (toolset,) = story.agent.toolsets
    assert isinstance(toolset, _BrokenTools)
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    toolset.is_broken = True
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
    toolset.is_broken = False
    async with story.process("R") as client, story.session(client) as session:
        if story.lab.sim.injection is None and not session.is_resumable:
            story.lab.watch.note("a run whose toolset did not start cannot be resumed any more")
        await story.go_on(client, session, name="C")


@story(_in_doubt, reasons=("cancelled", "completed", "completed"), effects={"again": 3, "doubtful": 3, "once": 2})
async def killed_opened_and_forked(story: Story) -> None:
    """The original decides whether the calls of a run that was cut off run again. A fork asks the model anew."""
    async with story.process("P") as client, trio.open_nursery() as nursery, story.session(client) as session:

        async def kill() -> None:
            await trio.sleep(10)
            client.kill()

        nursery.start_soon(kill)
        await story.go_on(client, session, name="A")
        nursery.cancel_scope.cancel()
    async with story.process("Q") as client, story.session(client):
        # To open it is enough: it notes that the run was interrupted.
        pass
    async with story.process("R") as client:
        await fork_session(client, ID, "fork")
        before = {call for _, call in story.journal.saved(ID).began}
        async with stored_session(client, "fork", if_busy="wait") as session:
            await story.go_on(client, session, name="B")
        for key, tool in story.lab.counts:
            if key.startswith("fork: ") and key.partition("#")[2] in before:
                story.lab.watch.note(f"the fork runs {tool} as {key}, which the original may have run")
    async with story.process("S") as client, story.session(client) as session:
        await story.go_on(client, session, name="C")


@story(_uses_context, reasons=("needs_input",) * 3 + ("completed",), effects={"steps": 1, "one": 1})
async def remembered_asked_and_read_again(story: Story) -> None:
    """What a call remembers, its long result, and a limit that a person raised outlive the process."""
    for number in range(4):
        async with story.process(f"P{number}") as client, story.session(client) as session:
            await story.go_on(client, session, name=f"A{number}", park=True)


@story(_busy, reasons=("needs_input", "completed"), effects={"one": 3, "slow": 1, "guarded": 1})
async def parked_by_its_reader(story: Story) -> None:
    """By `Stream.park`, when the first question has come."""
    async with story.process("P") as client, story.session(client) as session:

        def park(stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, (ElicitationRequested, ApprovalRequested)) and not session.is_resumable:
                stream.stream.park()

        await story.go_on(client, session, name="A", answer=lambda question: None, on_event=park)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_plain, reasons=("completed",) * 3, effects={"one": 2})
async def followed_from_the_middle(story: Story) -> None:
    """After each number, from here and from elsewhere: the rest of the events, as every reader has them."""
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A")
        await story.go_on(client, session, name="B")
        saved = story.journal.saved(ID).events
        for after in [*saved][:: max(1, len(saved) // 6)]:
            for follower in (session.follow(after=after), follow_session(client, ID, after=after)):
                numbers: list[int] = []
                with suppress(StoreError, InjectedFault):
                    numbers.extend([event.seq async for event in follower])
                    expected = [seq for seq in saved if seq > after]
                    if numbers != expected:
                        story.lab.watch.note(f"after {after}, a follower read {numbers}, not {expected}")
        async with story.lab.stream(story.agent, "And?", name="C", session=session, client=client) as stream:
            await stream.drain()


@story(_plain, reasons=("completed", "completed"), effects={"one": 2})
async def steered_and_kept(story: Story) -> None:
    """What is said to a run under way is part of the session."""
    async with story.process("P") as client, story.session(client) as session:

        def steer(stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, ToolCallStarted):
                with suppress(AgentLoopError):
                    stream.stream.steer("Quick.")
                    stream.stream.follow_up("And then?")

        await story.go_on(client, session, name="A", on_event=steer)
        async with story.lab.stream(story.agent, "And?", name="B", session=session, client=client) as stream:
            await stream.drain()


def _compacted(lab: Lab) -> Agent:
    """A conversation that gets too long, and a call that asks after it was shortened."""
    long = says("bla " * 500, piece=2000) + calls("one")
    long = msgspec.structs.replace(long, usage=Usage(input_tokens=10, output_tokens=450))
    return Agent(
        lab.model(long, "They said bla.", calls("ask"), "Done."),
        tools=[lab.tool("one"), lab.asker("ask")],
        compaction=Compaction(window=500, keep_recent=0.01),
    )


@story(_compacted, reasons=("needs_input", "completed"), effects={"one": 1})
async def shortened_and_parked(story: Story) -> None:
    """The shortened view outlives the process."""
    for number in range(2):
        async with story.process(f"P{number}") as client, story.session(client) as session:
            await story.go_on(client, session, name=f"A{number}", park=True)


@story(_reads_its_child, reasons=("needs_input", "completed"), effects={"pay": 1, "report": 1})
async def parked_while_a_tool_reads_its_child(story: Story) -> None:
    for number in range(2):
        async with story.process(f"P{number}") as client, story.session(client) as session:
            await story.go_on(client, session, name=f"A{number}", park=True)


@story(_reads_its_child, reasons=("completed",), effects={"pay": 1, "report": 1})
async def kept_in_a_slow_store(story: Story) -> None:
    """The run waits for the store: few events wait in memory."""
    async with story.process("P") as client, story.session(client) as session:
        client.delay = 1.0
        await story.go_on(client, session, name="A")


@story(_speaks, reasons=("completed",), effects={"one": 1})
async def words_are_read_as_they_are_said(story: Story) -> None:
    """The journal delays no words of the model, but for those behind an event that is being saved."""
    async with story.process("P") as client, story.session(client) as session:
        client.delay = 3 * PAUSE
        times: list[float] = []

        def note_time(_stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, TextDelta) and event.text == "word ":
                times.append(story.lab.sim.now)

        await story.go_on(client, session, name="A", on_event=note_time)
        model = story.agent.model
        assert isinstance(model, _Slowly)
        # A fault, or an empty word, tears the two lists apart.
        delays = [read - said for said, read in zip(model.said, times, strict=False)]
        if story.lab.sim.injection is None and any(delay > PAUSE * 4.5 for delay in delays):
            story.lab.watch.note(f"words that were said every {PAUSE} s were read too late: {delays}")


@story(_long_work, reasons=("completed", "completed"), effects={"long": 2})
async def held_though_a_renewal_fails(story: Story) -> None:
    """A store that refuses one renewal, and is well again in time, loses nobody the session."""
    inside: list[str] = []

    async def use(name: str) -> None:
        opening = story.process(f"P{name}")
        async with opening as client, story.session(client, lease_seconds=SHORT_LEASE) as session:
            client.refused_renewals = 1
            inside.append(name)
            if len(inside) > 1 and not story.journal.has_failed:
                story.lab.watch.note(f"{inside} have the session at once")
            try:
                if session.is_resumable:
                    await story.go_on(client, session, name=name)
                else:
                    starting = story.lab.stream(story.agent, "Go.", name=name, session=session, client=client)
                    async with starting as stream:
                        await stream.drain()
            finally:
                inside.remove(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, "A")
        await trio.sleep(0.001)
        nursery.start_soon(use, "B")


@story(_compacted, reasons=("completed", "completed"), effects={"one": 1})
async def shortened_and_rewound(story: Story) -> None:
    """A summary does not outlive the messages that it stands for."""
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A")
        if len(session.messages) > 1:
            story.rewinds = True
            await session.rewind(1)
            view = session._transcript.view
            if view != session.messages and not story.journal.has_failed:
                story.lab.watch.note(f"after it was rewound, the model is shown {view}")
        async with story.lab.stream(story.agent, "And?", name="B", session=session, client=client) as stream:
            await stream.drain(answer=echo)


@story(_asks_and_works, reasons=("needs_input", "completed"), effects={"work": 1})
async def parked_when_all_children_wait(story: Story) -> None:
    """Work that does not wait for an answer is finished before the run is parked."""
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
        events = story.journal.saved(ID).events.values()
        results = [event.result.status for event in events if isinstance(event, ToolCallFinished)]
        if story.lab.sim.injection is None and results != ["ok"]:
            story.lab.watch.note(f"the run was parked when its calls had ended as {results}")
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_plain, reasons=(), effects={"one": 2})
async def run_without_a_reader(story: Story) -> None:
    """The journal has the words of the model all the same."""
    async with story.process("P") as client, story.session(client) as session:
        await story.agent.run("go", session=session)
        await story.follow("later", follow_session(client, ID))


def _retries_alone(lab: Lab) -> Agent:
    """A call that may run again, and changes something."""
    return Agent(lab.planned(calls("again"), "Done."), tools=[lab.tool("again", if_interrupted="retry")])


@story(_retries_alone, reasons=("completed",), effects={"again": 1})
async def a_call_that_may_run_again_is_saved_before_it_runs(story: Story) -> None:
    """Else, after a crash, the model may ask for another call, with another key."""
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A")


def _another_way(lab: Lab) -> Agent:
    """A call that runs two agents, and when it is called again only the second one."""
    first = Agent(lab.planned("First.", name="first"), name="first")
    second = Agent(lab.planned(calls("pay"), "Second.", name="second"), name="second", tools=[lab.tool("pay")])
    times: list[str] = []

    async def delegate(context: ToolContext[Any]) -> str:
        times.append(context.source.stream)
        if len(times) == 1:
            await context.run(first, "go")
        await context.run(second, "go")
        message = f"delegate of {context.source.session}"
        lab.received[message] = await context.ask(message, FORM)
        return "delegated"

    return Agent(lab.planned(calls("delegate"), "Done."), tools=[lab.bare("delegate", delegate)])


@story(_another_way, reasons=("needs_input", "completed"), effects={"pay": 2})
async def a_call_takes_another_way_when_it_is_called_again(story: Story) -> None:
    """The second agent had run after the first one: without that, its outcome does not count."""
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


def _waits_for_its_turn(lab: Lab) -> Agent:
    """Two calls of a tool that asks, and of which one may run at once."""

    async def ask(context: ToolContext[Any]) -> str:
        message = f"{context.call_id} of {context.source.session}"
        lab.received[message] = await context.ask(message, FORM)
        return "told"

    return Agent(lab.planned(calls("ask") + calls("ask"), "Done."), tools=[lab.bare("ask", ask, concurrency=1)])


@story(_waits_for_its_turn, reasons=("needs_input", "needs_input", "completed"), effects={})
async def parked_while_a_call_waits_for_its_turn(story: Story) -> None:
    for number in range(3):
        async with story.process(f"P{number}") as client, story.session(client) as session:
            await story.go_on(client, session, name=f"A{number}", park=True)


def _limits_its_child(lab: Lab) -> Agent:
    """The third call uses the last of the calls that are allowed, those of the child included."""
    inner = Agent(lab.planned(calls("one"), "Inner.", name="inner"), name="inner", tools=[lab.tool("one")])
    tools = [inner.as_tool(), lab.asker("ask"), lab.tool("two")]
    script = (calls("inner", prompt="x"), calls("ask"), calls("two"), "Done.")
    return Agent(lab.planned(*script), tools=tools, limits=Limits(tool_calls=3))


def _not_past_a_limit(question: Question) -> Answer | None:
    return Deny("enough") if isinstance(question, ContinueRequested) else echo(question)


@story(_limits_its_child, reasons=("needs_input", "limit"), effects={"one": 1})
async def calls_of_a_child_count_when_its_parent_is_resumed(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B", answer=_not_past_a_limit)


def _remembers_two(lab: Lab) -> Agent:
    """A call that remembers two values and the failure of a child, before it asks."""
    inner = Agent(lab.model(fails(ModelAuthenticationError(model="inner", status=401, body="no"))), name="inner")
    times: list[str] = []

    async def remembers(context: ToolContext[Any]) -> str:
        if times and lab.sim.injection is None:
            values = [context.recall(name, int) for name in ("left", "right")]
            if values != [1, 2]:
                lab.watch.note(f"a call remembered 1 and 2, and recalls {values}")
        times.append(context.source.stream)
        await context.remember("left", 1)
        await context.remember("right", 2)
        try:
            await context.run(inner, "go")
        except AgentLoopError:
            pass
        else:
            lab.watch.note("a child that failed has a result when its call is made again")
        message = f"remembers of {context.source.session}"
        lab.received[message] = await context.ask(message, FORM)
        return "told"

    return Agent(lab.planned(calls("remembers"), "Done."), tools=[lab.bare("remembers", remembers)])


@story(_remembers_two, reasons=("needs_input", "completed"), effects={})
async def what_a_call_remembers_is_whole(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


# --------------------------------------------------------- what another opening must not lose


def _reads_on(lab: Lab) -> Agent:
    """Two long results of one id, of the agent and of one inside it. Each reads on in its own, in every opening."""
    inner = Agent(
        lab.planned(calls("long", id="c1"), calls("ask"), _read_on("c1"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.bare("long", _long_text("c")), lab.asker("ask")],
        max_result=200,
    )
    turns = (calls("long", id="c1"), calls("inner", prompt="x"), _read_on("c1"), "Done.")
    script = (*turns, _read_on("c1"), "Again.", _read_on("c1"), "Once more.")
    tools = [lab.bare("long", _long_text("r")), inner.as_tool()]
    return Agent(lab.planned(*script), tools=tools, max_result=200)


def _read_on(call_id: str) -> Response:
    return calls("read_result", call_id=call_id, offset=1000, limit=9)


def _long_text(letter: str) -> Callable[[ToolContext[Any]], Awaitable[str]]:
    async def long(_context: ToolContext[Any]) -> str:
        await trio.lowlevel.checkpoint()
        return letter * 2000

    return long


@story(_reads_on, reasons=("needs_input",) + ("completed",) * 3, effects={})
async def long_results_are_read_on_in_every_opening(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    for name in ("B", "C", "D"):
        async with story.process(f"Q{name}") as client, story.session(client) as session:
            await story.go_on(client, session, name=name)
    if story.lab.sim.injection is None:
        for recorded in story.lab.recorded:
            for event in recorded.events:
                if isinstance(event, ToolCallFinished) and event.name == "read_result":
                    due = ("c" if len(event.path) > 1 else "r") * 9
                    if due not in event.result.text:
                        story.lab.watch.note(f"{event.stream} reads {event.result.text!r}, where {due} is due")


def _offered_at_first(lab: Lab) -> Agent:
    """A call that waits for approval, of a tool that is not offered to the model any more when the run is resumed."""
    held = lab.tool("held", requires_approval=True, offered=lambda: len(lab.recorded) < 2)
    return Agent(lab.planned(calls("held") + calls("one"), "Done."), tools=[held, lab.tool("one")])


@story(_offered_at_first, reasons=("needs_input", "completed"), effects={"one": 1, "held": 1})
async def a_parked_call_ends_though_its_tool_is_not_offered(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
        ended = [event for event in story.lab.recorded[-1].events if isinstance(event, ToolCallFinished)]
        if story.lab.sim.injection is None and [event.result.status for event in ended] != ["ok"]:
            story.lab.watch.note(f"a call that had asked before its tool was held back ends with {ended}")


@story(_plain, reasons=("completed",), effects={"one": 2})
async def what_a_session_forbids_outlives_its_block(story: Story) -> None:
    """Also a block that is cancelled."""
    strict = Permissions(deny=["pay"])
    async with story.process("P") as client:
        with trio.CancelScope() as scope:
            async with story.session(client) as session:
                await story.go_on(client, session, name="A")
                session.permissions = strict
                scope.cancel()
                await trio.lowlevel.checkpoint()
    async with story.process("Q") as client, story.session(client) as session:
        if story.lab.sim.injection is None and session.permissions != strict:
            story.lab.watch.note(f"a session that was left with {strict} has {session.permissions}")


def _compacted_inside(lab: Lab) -> Agent:
    """A child with a long prompt, which it sums up, and then it asks."""
    first = msgspec.structs.replace(calls("one"), usage=Usage(input_tokens=480, output_tokens=5))
    inner = Agent(
        lab.model(first, "They said word.", calls("ask"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.tool("one"), lab.asker("ask")],
        compaction=Compaction(window=500, keep_recent=0.01),
    )
    script = calls("inner", prompt="word " * 250), "Outer."
    return Agent(lab.planned(*script, name="outer"), name="outer", tools=[inner.as_tool()])


def _blocked_beside_a_question(lab: Lab) -> Agent:
    """A call after which a hook ends the run, beside one that asks."""
    enough = lab.hook(hooks.post_tool_use, hooks.Block("enough"), tools="one")
    tools = [lab.tool("one"), lab.asker("ask")]
    return Agent(lab.planned(calls("one") + calls("ask"), "Done."), tools=tools, hooks=[enough])


@story(_blocked_beside_a_question, reasons=("needs_input", "blocked"), effects={"one": 1})
async def blocked_after_a_call_and_parked_in_another(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


@story(_compacted_inside, reasons=("needs_input", "completed"), effects={"one": 1})
async def a_child_is_parked_after_it_has_made_room(story: Story) -> None:
    """Its model goes on from the summary."""
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", park=True)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")


def _compacted_slowly(lab: Lab) -> Agent:
    """A conversation that gets too long, and a model that takes its time over the summary."""
    long = says("bla " * 500, piece=2000) + calls("one")
    long = msgspec.structs.replace(long, usage=Usage(input_tokens=10, output_tokens=450))
    return Agent(
        _Slowly(lab, "model", long, "They said bla and nothing else."),
        tools=[lab.tool("one")],
        compaction=Compaction(window=500, keep_recent=0.01),
    )


@story(_compacted_slowly, reasons=("cancelled", "completed"), effects={"one": 3})
async def killed_while_it_makes_room(story: Story) -> None:
    """Whoever reads the journal afterwards finds an end of that, too."""
    async with story.process("P") as client, story.session(client) as session:

        def kill(_stream: Recorded, event: StreamEvent) -> None:
            if isinstance(event, CompactionStarted):
                client.kill()

        await story.go_on(client, session, name="A", on_event=kill)
    async with story.process("Q") as client, story.session(client) as session:
        await story.go_on(client, session, name="B")
        await story.follow("later", follow_session(client, ID))


def _numbers_anew(lab: Lab) -> Agent:
    """A model whose server gives one id to several calls."""
    script = (calls("one", id="a"), "First.", calls("one", id="b"), "Second.", calls("one", id="b"), "Third.")
    return Agent(lab.model(*script, calls("one", id="c"), "Fourth."), tools=[lab.tool("one")])


@story(_numbers_anew, reasons=("completed",) * 4, effects={"one": 4})
async def ids_of_calls_are_taken_once_after_a_rewind(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        for name in ("A", "B", "C", "D"):
            if name == "C" and len(session.messages) > 4:
                story.rewinds = True
                await session.rewind(4)
            await story.go_on(client, session, name=name)


class _SmallWindow(PlannedModel):
    """Refuses a request with a long message."""

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Refuse, or say what is planned."""
        if any(isinstance(message, UserMessage) and len(message.text) > 1000 for message in request.messages):
            raise ModelContextOverflowError(model="model", status=400, body="too long")
        return await super().respond(request, reply)


def _refused_as_too_long(lab: Lab) -> Agent:
    return Agent(_SmallWindow(lab, "model", calls("one"), "First.", "Second."), tools=[lab.tool("one")])


@story(_refused_as_too_long, reasons=("completed", "failed", "completed"), effects={"one": 1})
async def a_prompt_in_the_place_of_one_that_was_too_long_is_read(story: Story) -> None:
    """The long one was left out, and is taken back; then the session is opened again."""
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A")
        opening = story.lab.stream(story.agent, "bla " * 500, name="B", session=session, client=client)
        async with opening as stream:
            await stream.drain()
        if len(session.messages) > 4:
            story.rewinds = True
            await session.rewind(4)
    async with story.process("Q") as client, story.session(client) as session:
        opening = story.lab.stream(story.agent, "And?", name="C", session=session, client=client)
        async with opening as stream:
            await stream.drain()


def _gives_up_asking(lab: Lab) -> Agent:
    """A call that asks, gives up after a while, and works."""

    async def hurry(context: ToolContext[Any]) -> str:
        message = f"hurry of {context.source.session}"
        with trio.move_on_after(1):
            lab.received[message] = await context.ask(message, FORM)
        lab.effect(context, "hurry")
        return "done"

    return Agent(lab.planned(calls("hurry"), "Done."), tools=[lab.bare("hurry", hurry)])


@story(_gives_up_asking, reasons=("completed",), effects={"hurry": 1})
async def a_call_works_after_it_has_given_up_its_question(story: Story) -> None:
    async with story.process("P") as client, story.session(client) as session:
        await story.go_on(client, session, name="A", answer=lambda _question: None)


def _child_draws_on_a_limit(lab: Lab) -> Agent:
    """An agent inside another one goes past the requests of the outer one, is let to, and asks."""
    inner = Agent(
        lab.planned(calls("one"), calls("ask"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.tool("one"), lab.asker("ask")],
    )
    return Agent(lab.planned(calls("inner", prompt="x"), "Done."), tools=[inner.as_tool()], limits=Limits(requests=2))


@story(_child_draws_on_a_limit, reasons=("needs_input",) * 3 + ("completed",), effects={"one": 1})
async def a_limit_that_a_child_has_raised_stays_raised(story: Story) -> None:
    for number in range(4):
        async with story.process(f"P{number}") as client, story.session(client) as session:
            await story.go_on(client, session, name=f"A{number}", park=True)
