"""Several clients on one store, in every order: they open, run, park, answer, resume, fork, rewind, stall and die."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import trio
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from agentloop import Agent, Approve, tool
from agentloop._core.transcript import problems
from agentloop.errors import AgentLoopError, AnswerError, LeaseLostError, SessionLeasedError, StoreError, UsageError
from agentloop.events import ApprovalRequested, ElicitationRequested
from agentloop.journal import Lease
from agentloop.stores import MemoryStore, answer_question, fork_session, stored_session
from agentloop.stores._follow import follow_session
from agentloop.stores.stored import StoredSession
from agentloop.testing import ScriptedModel
from agentloop.testing._journal import JournalClient, SeamJournal
from agentloop.testing._lab import AgentScenario, Lab, echo
from agentloop.testing.scripted import calls
from agentloop.testing.simulation import Sim, simulate

CLIENTS = ("ann's laptop", "bob's server", "cleo's phone")

Order = tuple[str, Any]
"""What a client is to do, and with what."""


def agent_of(lab: Lab) -> Agent:
    """Works, asks twice, has somebody else ask, and works again."""
    inner = Agent(
        lab.planned(calls("one") + calls("ask"), "Inner.", name="inner"),
        name="inner",
        tools=[lab.tool("one"), lab.asker("ask")],
    )
    script = calls("one") + calls("guarded") + calls("inner", prompt="x")
    tools = [lab.tool("one"), lab.tool("guarded", requires_approval=True), lab.asker("ask"), inner.as_tool()]
    return Agent(lab.planned(script, calls("ask"), "Done.", script, "Done again."), tools=tools)


class Client:
    """A process: a task of its own, which does what it is told, one order after the other."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.lives = 0
        self.client: JournalClient | None = None
        self.session: StoredSession | None = None
        self.is_stalled = False
        self.is_over = False
        self._orders, self._ordered = trio.open_memory_channel[Order](0)
        self._done = trio.Event()

    async def order(self, what: str, value: Any = None) -> None:
        """Have it do something, and wait until it has."""
        self._done = trio.Event()
        await self._orders.send((what, value))
        await self._done.wait()

    async def live(self) -> None:
        """Be born again whenever it was killed, until it is told to end."""
        while True:
            self.lives += 1
            self.is_stalled = False
            async with self.world.journal.process(f"{self.number}-{self.lives}") as self.client:
                self.client.renew = partial(self._renew, self.client.renew)  # type: ignore[method-assign]
                await self._serve(self.client)
            if self.is_over:
                return
            self.session = None
            self._done.set()

    async def _renew(self, real: Callable[..., Awaitable[Lease]], lease: Lease, /, *, seconds: float) -> Lease:
        if self.is_stalled:
            raise StoreError("no connection")
        return await real(lease, seconds=seconds)

    async def _serve(self, client: JournalClient) -> None:
        while True:
            what, value = await self._ordered.receive()
            if what == "end":
                self.is_over = True
                return
            if what == "open":
                # What is ordered meanwhile is done inside of its block.
                with suppress(SessionLeasedError):
                    await self._use(client, value)
                self.session = None
                if self.is_over:
                    return
            else:
                await self._do(client, what, value)
            self._done.set()

    async def _use(self, client: JournalClient, id: str) -> None:
        async with stored_session(client, id) as session:
            for other in self.world.clients:
                if other.session is not None and other.session.id == id and not other.is_stalled:
                    self.world.note(f"{CLIENTS[self.number]} and {CLIENTS[other.number]} have {id} at once")
            self.session = session
            self._done.set()
            while True:
                what, value = await self._ordered.receive()
                if what in ("close", "end"):
                    self.is_over = what == "end"
                    return
                if what != "open":
                    await self._do(client, what, value)
                self._done.set()

    async def _do(self, client: JournalClient, what: str, value: Any) -> None:
        world = self.world
        # What is refused is refused; what may not be refused is seen from what is in the store afterwards.
        with suppress(StoreError, AnswerError, UsageError):
            if what == "kill":
                client.kill()
                await trio.sleep_forever()
            elif what == "stall":
                self.is_stalled = self.session is not None
            elif what == "answer":
                await self._answer(client, *value)
            elif what == "fork":
                await self._fork(client, *value)
            elif what == "follow":
                await self._follow(client, value)
            elif self.session is not None and what == "rewind":
                messages = self.session.messages
                counts = [count for count in range(len(messages)) if not problems(messages[:count])]
                await self.session.rewind(counts[value % len(counts)] if counts else 0)
                world.rewound.add(self.session.id)
            elif self.session is not None and what in ("run", "resume"):
                await self._run(client, self.session, what, value)

    async def _run(self, client: JournalClient, session: StoredSession, what: str, value: Any) -> None:
        world = self.world
        parks, answers, *dies_after = value
        given = None
        if what == "resume":
            if not session.is_resumable:
                return
            given = {question.id: echo(question) for question in session.questions[:answers]}
        world.streams += 1
        name = f"S{world.streams}"
        on_question: Literal["park", "reader"] = "park" if parks else "reader"
        try:
            async with world.lab.stream(
                world.agent, name=name, session=session, on_question=on_question, client=client, resumes=given
            ) as stream:
                async for event in stream:
                    if len(stream.events) in dies_after:
                        client.kill()
                    if not parks:
                        stream.reply(event, echo)
        finally:
            if self.is_stalled and isinstance(getattr(session._writer._log, "failure", None), LeaseLostError):
                world.fenced += 1
        world.reasons[stream.stream.outcome.reason] += 1

    async def _answer(self, client: JournalClient, id: str, number: int) -> None:
        """Answer a question that was asked in the session, the last ones first, whether it is open or not."""
        questions = [
            event
            for event in self.world.journal.saved(id).events.values()
            if isinstance(event, (ElicitationRequested, ApprovalRequested))
        ]
        if questions:
            question = questions[-1 - number % len(questions)]
            await answer_question(client, id, question.id, echo(question))
            self.world.answered[id, question.id] += 1

    async def _fork(self, client: JournalClient, id: str, number: int) -> None:
        world = self.world
        before = list(world.journal.records(id))
        new = f"fork{len(world.sessions)}"
        counts = [None, 0, len(before)]
        await fork_session(client, id, new, messages=counts[number % 2])
        world.sessions.append(new)
        there = world.journal.records(new)
        if there != before[: len(there)] or world.journal.records(id) != before:
            world.note(f"{new} does not begin as {id} does")

    async def _follow(self, client: JournalClient, id: str) -> None:
        """Read what there is, for a while."""
        read: list[Any] = []
        with trio.move_on_after(1):
            async for event in follow_session(client, id):
                read.append(event)  # noqa: PERF401 - what was read counts, also if the time is up
        numbers = [event.seq for event in read]
        if numbers != sorted(set(numbers)):
            self.world.note(f"a follower of {id} read the numbers {numbers}")


class World:
    """The clients, the store, and the sessions in it."""

    def __init__(self, lab: Lab, journal: SeamJournal) -> None:
        self.lab = lab
        self.journal = journal
        self.note = lab.watch.note
        self.agent = agent_of(lab)
        self.sessions = ["s", "t"]
        self.rewound: set[str] = set()
        self.answered: Counter[tuple[str, str]] = Counter()
        self.reasons: Counter[str] = Counter()
        self.streams = 0
        self.fenced = 0
        self.clients = [Client(self, number) for number in range(len(CLIENTS))]

    async def play(self, program: list[tuple[int, str, Any]]) -> None:
        async with trio.open_nursery() as nursery:
            for client in self.clients:
                nursery.start_soon(client.live)
            for number, what, value in program:
                if what == "sleep":
                    await trio.sleep(value)
                    continue
                if what in ("open", "answer", "fork", "follow"):
                    first, *rest = value if isinstance(value, tuple) else (value,)
                    id = self.sessions[first % len(self.sessions)]
                    value = (id, *rest) if rest else id  # noqa: PLW2901
                await self.clients[number].order(what, value)
            for client in self.clients:
                await client._orders.send(("end", None))
        await self.afterwards()

    async def afterwards(self) -> None:
        """Each session is valid, and goes on to its end, by itself."""
        self.lab.sim.calm = True
        self.journal.was_well = self.journal.has_failed = False
        for id in self.sessions:
            others = {other: list(self.journal.records(other)) for other in self.sessions if other != id}
            async with stored_session(self.journal.plain, id, if_busy="wait") as session:
                for problem in problems(session.messages):
                    self.note(f"a provider would refuse {id}: {problem}")
                resumes = {question.id: echo(question) for question in session.questions}
                resumes_or_not = resumes if session.is_resumable else None
                async with self.lab.stream(
                    self.agent, name=f"end-{id}", session=session, resumes=resumes_or_not
                ) as stream:
                    await stream.drain(answer=echo)
                if stream.stream.outcome.reason != "completed":
                    self.note(f"{id} does not go on: {stream.stream.outcome}")
                messages = session.messages
            async with stored_session(self.journal.plain, id) as session:
                if session.messages != messages or session.is_resumable:
                    self.note(f"{id} is another when it is opened once more")
            if any(self.journal.records(other) != before for other, before in others.items()):
                self.note(f"what was done in {id} shows in another session")
        for (id, question), count in self.answered.items():
            if count > 1 and not id.startswith("fork") and id not in self.rewound:
                self.note(f"question {question} of {id} took {count} answers")
        for (key, name), count in self.lab.counts.items():
            if count > 1:
                self.note(f"{name} ran {count} times as {key}")


REACHED: Counter[str] = Counter()


def play(program: list[tuple[int, str, Any]]) -> Sim:
    """Do what the program says, and check every promise."""

    async def whole(lab: Lab) -> None:
        async with SeamJournal(lab.sim, lab.watch.note).open() as lab.journal:
            # Clients die here at any moment, so that what is no fact may be told and not kept.
            lab.journal.has_failed = True
            world = World(lab, lab.journal)
            with suppress(AgentLoopError):
                await world.play(program)
            REACHED.update(world.reasons)
            REACHED["answered"] += sum(world.answered.values())
            REACHED["forks"] += len(world.sessions) - 2
            REACHED["fenced"] += world.fenced
            REACHED["rewound"] += len(world.rewound)

    return simulate(AgentScenario("clients", whole), max_steps=60_000)


class Clients(RuleBasedStateMachine):
    """Rules only write the program, so that leaving one out leaves the others as they were."""

    def __init__(self) -> None:
        super().__init__()
        self.program: list[tuple[int, str, Any]] = []

    who = st.integers(0, len(CLIENTS) - 1)
    which = st.integers(0, 3)

    def teardown(self) -> None:
        if self.program:
            play(self.program)

    @rule(who=who, which=which)
    def open(self, who: int, which: int) -> None:
        self.program.append((who, "open", which))

    @rule(who=who, which=which, parks=st.booleans())
    def open_and_run(self, who: int, which: int, parks: bool) -> None:
        self.program += [(who, "open", which), (who, "run", (parks, 0))]

    @rule(who=who, which=which)
    def park(self, who: int, which: int) -> None:
        self.program += [(who, "close", None), (who, "open", which), (who, "run", (True, 0)), (who, "close", None)]

    @rule(who=who, which=which, parks=st.booleans())
    def lose(self, who: int, which: int, parks: bool) -> None:
        """Somebody takes the session over while this one, which cannot reach the store, believes that it has it."""
        other = (who + 1) % len(CLIENTS)
        self.program += [(one, "close", None) for one in range(len(CLIENTS))]
        self.program += [(who, "open", which), (who, "stall", None), (0, "sleep", 40)]
        self.program += [(other, "open", which), (who, "run", (parks, 0)), (other, "run", (parks, 0))]

    @rule(who=who)
    def close(self, who: int) -> None:
        self.program.append((who, "close", None))

    @rule(who=who, parks=st.booleans())
    def run(self, who: int, parks: bool) -> None:
        self.program.append((who, "run", (parks, 0)))

    @rule(who=who, what=st.sampled_from(["run", "resume"]), parks=st.booleans(), after=st.integers(1, 40))
    def run_and_die(self, who: int, what: str, parks: bool, after: int) -> None:
        self.program.append((who, what, (parks, 1, after)))

    @rule(who=who, parks=st.booleans(), answers=st.integers(0, 3))
    def resume(self, who: int, parks: bool, answers: int) -> None:
        self.program.append((who, "resume", (parks, answers)))

    @rule(who=who, which=which, number=st.integers(0, 5))
    def answer(self, who: int, which: int, number: int) -> None:
        self.program.append((who, "answer", (which, number)))

    @rule(who=who, which=which, number=st.integers(0, 1))
    def fork(self, who: int, which: int, number: int) -> None:
        self.program.append((who, "fork", (which, number)))

    @rule(who=who, number=st.integers(0, 9))
    def rewind(self, who: int, number: int) -> None:
        self.program.append((who, "rewind", number))

    @rule(who=who, which=which)
    def follow(self, who: int, which: int) -> None:
        self.program.append((who, "follow", which))

    @rule(who=who)
    def kill(self, who: int) -> None:
        self.program.append((who, "kill", None))

    @rule(who=who)
    def stall(self, who: int) -> None:
        self.program.append((who, "stall", None))

    @rule(seconds=st.sampled_from([1, 20, 40]))
    def sleep(self, seconds: int) -> None:
        self.program.append((0, "sleep", seconds))


SETTINGS = settings(
    max_examples=80,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def test_clients_do_each_other_no_harm() -> None:
    run_state_machine_as_test(Clients, settings=SETTINGS)


def test_the_machine_reaches_what_it_is_about() -> None:
    if not REACHED:
        run_state_machine_as_test(Clients, settings=SETTINGS)
    for what in ("completed", "needs_input", "answered", "forks", "fenced", "rewound"):
        assert REACHED[what] >= 5, REACHED


async def test_what_one_client_has_answered_is_no_question_for_the_next() -> None:
    @tool(requires_approval=True)
    async def pay() -> str:
        """Pay."""
        return "paid"

    agent = Agent(ScriptedModel(calls("pay") + calls("pay"), "Done."), tools=[pay])
    async with MemoryStore().open() as store:
        async with stored_session(store, "ann") as session:
            outcome = await agent.run("go", session=session, on_question="park")
        first, second = outcome.questions
        await answer_question(store, "ann", first.id, Approve())
        async with stored_session(store, "ann") as session:
            assert [question.id for question in session.questions] == [second.id]
            # So that whoever answers all that is open is not told that somebody else has.
            answers = {question.id: Approve() for question in session.questions}
            assert (await agent.resume(session, answers)).output == "Done."
