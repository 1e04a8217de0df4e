"""The part of the corpus in which sessions outlive their process: saved, killed, parked, resumed, followed, rewound.

A story runs on a store of journals that fails, hangs and is slow, and in processes that can be killed after every
step. However it ends, the session is opened once more in a quiet world, and resumed to its end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from attrs import evolve

from agentloop._core.transcript import problems
from agentloop._runtime.exception_groups import raise_single
from agentloop._runtime.log import WORDS, words_of
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import AgentLoopError, AnswerError, StoreError
from agentloop.events import (
    ElicitationRequested,
    MessageCommitted,
    Question,
    StreamEvent,
    StreamStopped,
    TextDelta,
    ToolCallFinished,
    TurnStarted,
)
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.questions import Answer
from agentloop.stores import answer_question, fork_session, stored_session
from agentloop.stores._follow import Follower, follow_session
from agentloop.stores.stored import LEASE_SECONDS, StoredSession
from agentloop.testing._journal import JournalClient, SeamJournal, parts_of
from agentloop.testing._lab import AgentScenario, Lab, PlannedModel, Recorded, echo
from agentloop.testing.scripted import calls, says
from agentloop.testing.simulation import InjectedFault
from agentloop.testing.wellformed import event_problems
from agentloop.tools import Tool
from agentloop.wire import event_type

__all__ = ["STORIES"]

STORIES: dict[str, Callable[[], AgentScenario]] = {}

ID = "ann"
"""The session of every story."""


class Story:
    """A session, the agent that runs on it, and the events that its followers read.

    Attributes:
      followed: what each follower read.
      rewinds: whether messages were taken back, so that some delivered ones are no part of the session any more.
    """

    def __init__(self, lab: Lab, journal: SeamJournal, make: Callable[[Lab], Agent]) -> None:
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
        # A store that cannot be read is the follower's own trouble, and no one else's.
        with suppress(StoreError, InjectedFault):
            async for event in follower:
                read.append(event)

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
            if stream.stream.outcome.reason != "completed":
                lab.watch.note(f"afterwards the session does not go on: {stream.stream.outcome}")
            self._check_session(session)
            if session.is_resumable:
                lab.watch.note("what was gone on with to its end is unfinished")
            async with lab.stream(self.agent, "And?", name="very-last", session=session) as stream:
                await stream.drain(answer=echo)
            messages = session.messages
        journal.check_numbers(ID)
        self._check_effects(messages)
        self._check_followers()
        async with stored_session(journal.plain, ID) as session:
            if session.messages != messages:
                lab.watch.note("opened once more, the session is another")

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
                numbered = [evolve(event, seq=number) for number, event in enumerate(part)]
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


def _tools_of(agent: Agent) -> list[Tool]:
    return list(agent.tools)


Play = Callable[[Story], Awaitable[None]]


def story(
    make: Callable[[Lab], Agent], *, reasons: tuple[str, ...], effects: Mapping[str, int]
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

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def text(self, text: str, /) -> None:
        await self._reply.text(text)
        await trio.sleep(0.06)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reply, name)


class _Slowly(PlannedModel):
    """Takes its time between words."""

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Say something."""
        slow: Any = _SlowReply(reply)
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
