"""How mixes are played: a session of several runs, with people, readers, stops, kills and pauses at random."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import attrs
import trio

from agentloop._runtime.exception_groups import raise_single
from agentloop.errors import AgentLoopError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    Question,
    StreamEvent,
    ToolCallStarted,
    TurnFinished,
)
from agentloop.limits import Limits
from agentloop.messages import UserMessage
from agentloop.models import ModelChoice
from agentloop.permissions import Exact, Permissions, Rule
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny
from agentloop.session import Session
from agentloop.stores import fork_session, stored_session
from agentloop.team import Team
from agentloop.testing._journal import SeamJournal
from agentloop.testing._lab import AgentScenario, Lab, Recorded
from agentloop.testing._recorded import Checksums, RecordAnew, Recordings, checksums_of
from agentloop.testing._shown import shown, shown_error
from agentloop.testing.harness.draw import Draw
from agentloop.testing.harness.mix_features import CROWDED, KEY
from agentloop.testing.harness.mixes import make_team
from agentloop.testing.harness.talks import GROUP as TALK_GROUP, TALKS, talk
from agentloop.testing.simulation import Violation, simulate

__all__ = ["MIXES", "MIX_RECORDINGS", "mix", "mixes", "record_mixes", "talks"]

MIXES = 620
"""Mixes that are tried when they are recorded. One that breaks a promise is not recorded, and is printed."""

_LEFT_OUT = (188, 260, 376, 569)
"""Mixes whose estimate of tokens differs by one between Pythons: from 3.12 on, `sum` adds floats in another way."""

MIX_RECORDINGS = Recordings(inner="mixes")
_GROUP = "mixes"

_ID = "mixed"

_PATIENCE = 5000.0
"""Seconds that a run may take: some tools take minutes, and people may let each of them do it several times."""


def mix(number: int) -> AgentScenario:
    """The mix with a number, to be played and watched."""
    scenario = AgentScenario(f"mix-{number}", partial(_play, Draw(f"mix {number}"), number >= CROWDED))
    if MIX_RECORDINGS.folder is not None:
        scenario.recorded = Checksums(MIX_RECORDINGS.lines_of(_GROUP, scenario.name)) or RecordAnew()
    return scenario


def mixes() -> dict[str, Callable[[], AgentScenario]]:
    """The mixes and talks that are recorded, by name."""
    if MIX_RECORDINGS.folder is None:
        return {}
    made = {name: partial(mix, int(name.removeprefix("mix-"))) for name in MIX_RECORDINGS.names_of(_GROUP)}
    return {**made, **talks()}


def talks() -> dict[str, Callable[[], AgentScenario]]:
    """The talks that are recorded, by name."""
    names = [] if MIX_RECORDINGS.folder is None else MIX_RECORDINGS.names_of(TALK_GROUP)
    return {name: partial(talk, int(name.removeprefix("talk-")), MIX_RECORDINGS.lines_of) for name in names}


def record_mixes() -> tuple[list[str], list[Violation]]:
    """Play each mix and talk, and write down what it shows. Return the names that differ, and the broken promises."""
    changed: list[str] = []
    broken: list[Violation] = []
    rows: dict[str, list[str]] = {}
    rows_of_talks: dict[str, list[str]] = {}
    scenarios = [(mix(number), rows) for number in range(MIXES) if number not in _LEFT_OUT]
    scenarios += [(talk(number, MIX_RECORDINGS.lines_of), rows_of_talks) for number in range(TALKS)]
    for scenario, recorded in scenarios:
        before, scenario.recorded = scenario.recorded, RecordAnew()
        try:
            simulate(scenario)
        except Violation as violation:
            broken.append(violation)
            continue
        assert scenario.lab is not None
        assert scenario.lab.trace is not None
        recorded[scenario.name] = checksums_of(scenario.lab.trace.lines)
        if recorded[scenario.name] != before:
            changed.append(scenario.name)
    MIX_RECORDINGS.write({_GROUP: rows, TALK_GROUP: rows_of_talks})
    return changed, broken


async def _play(draw: Draw, crowded: bool, lab: Lab) -> None:
    if crowded:
        lab.watch.secrets.add(KEY)
    if draw.on("journal").chance(0.5):
        await _in_journal(draw, crowded, lab)
        return
    agent = make_team(draw.on("agent"), lab, crowded=crowded)
    session = Session(_ID, permissions=_permissions(draw))
    for number in range(1 + draw.on("runs").number(3)):
        await _between(draw.on(number), lab, agent, session, crowded=crowded)
        await _one_run(draw.on(number), draw.on("answers"), lab, agent, session=session, crowded=crowded)


def _permissions(draw: Draw) -> Permissions | None:
    own = draw.on("of the session")
    return Permissions(ask=["one"], deny=[Rule("poll", {"number": Exact(2)})]) if own.chance(0.15) else None


async def _in_journal(draw: Draw, crowded: bool, lab: Lab) -> None:
    """Each run in a process of its own, and an unfinished one is resumed, three times at most."""
    async with SeamJournal(lab.sim, lab.watch.note).open() as journal:
        lab.journal = journal
        agent = make_team(draw.on("agent"), lab, crowded=crowded)
        for number in range(2 + draw.on("runs").number(4)):
            own = draw.on(number)
            async with journal.process(f"P{number}", patience=_PATIENCE) as client:
                client.delay = own.on("slow").one((0.0, 0.0, 0.5))
                async with stored_session(
                    client, _ID, if_busy="wait", permissions=_permissions(draw), lease_seconds=3
                ) as session:
                    if own.on("rewind").chance(0.15) and len(session.messages) > 2:
                        await _tried(lab, session.rewind, own.on("to").number(len(session.messages)))
                    await _between(own, lab, agent, session, crowded=crowded)
                    if own.on("deployed").chance(0.15) and not isinstance(agent, Team):
                        agent = attrs.evolve(agent, limits=Limits(turns=own.number(9) + 1))
                    if crowded and own.on("choice").chance(0.15):
                        session.choice = own.on("chosen").one((None, ModelChoice(reasoning_effort="high")))
                    kills = client.kill if own.on("kill").chance(0.3) else None
                    await _one_run(
                        own,
                        draw.on("answers"),
                        lab,
                        agent,
                        session=session,
                        client=client,
                        kills=kills,
                        crowded=crowded,
                    )
                if own.on("fork").chance(0.15):
                    await _in_fork(draw, own, lab, agent, client)


async def _in_fork(draw: Draw, own: Draw, lab: Lab, agent: Any, client: Any) -> None:
    """What was parked goes on in a fork, too."""
    name = f"{_ID}-fork-{client.name}"
    await _tried(lab, partial(fork_session, client, _ID, name, messages=own.on("messages").one((None, None, 1, 3))))
    if await client.info(name) is not None:
        async with stored_session(client, name) as session:
            await _one_run(own.on("fork"), draw.on("answers"), lab, agent, session=session, client=client)


async def _between(draw: Draw, lab: Lab, agent: Any, session: Any, *, crowded: bool) -> None:
    """What people do to a session between two runs."""
    if draw.on("compact").chance(0.1):
        await _tried(lab, session.compact, agent)
    if crowded and hasattr(session, "rewind") and draw.on("takes back").chance(0.3):
        prompts = [n for n, each in enumerate(session.messages) if isinstance(each, UserMessage) and each.is_prompt]
        if prompts:
            await _tried(lab, session.rewind, prompts[-1])
    if draw.on("permissions").chance(0.1):
        session.permissions = Permissions(ask=["remembers"], deny=[Rule("pay", {"color": Exact("blue")})])


async def _tried(lab: Lab, deed: Callable[..., Awaitable[object]], *args: object) -> None:
    """Do what may be refused, and note how that came out."""
    try:
        said: object = await deed(*args)
    except AgentLoopError as error:
        said = shown_error(error)
    if lab.trace is not None:
        lab.trace.add(f"tried: {shown(said)}")


async def _one_run(
    draw: Draw,
    answers: Draw,
    lab: Lab,
    agent: Any,
    *,
    session: Any,
    client: Any = None,
    kills: Callable[[], None] | None = None,
    crowded: bool = False,
) -> None:
    modes = ("reader", "reader", "decline", "handler") + (("park", "park") if client is not None else ())
    mode = draw.on("mode").one(modes)
    options: dict[str, Any] = {"on_question": mode}
    if mode == "handler":
        options["on_question"] = lab.handler(partial(_answer, answers))
    if client is not None and session.is_resumable and draw.on("wrong").chance(0.2):
        # None of several answers counts, where one of them is wrong.
        wrong: dict[str, Answer] = {each.id: Approve() for each in session.questions}
        await _tried(lab, partial(agent.resume, session, wrong | {"no such question": Deny()}))
    if client is not None and session.is_resumable and draw.on("resumes").chance(0.85):
        replies = {each.id: _answer(answers, each) for each in session.questions}
        options["resumes"] = {id: answer for id, answer in replies.items() if answer is not None}
    try:
        prompts = ("go", "go " * 60, *((f"go with {KEY}", "a long word " * 1000) if crowded else ()))
        opening = lab.stream(agent, draw.on("prompt").one(prompts), session=session, client=client, **options)
        async with opening as stream, trio.open_nursery() as nursery:
            person = _Person(
                draw.on("person"),
                stream,
                nursery,
                answers=answers if mode == "reader" else None,
                kills=kills,
                crowded=crowded,
            )
            async for event in stream:
                if not await person.reads(event):
                    break
            if person.waits:
                await stream.stream.wait()
            nursery.cancel_scope.cancel()
    except AgentLoopError as error:
        lab.errors.append(error)
    except BaseExceptionGroup as group:
        try:
            raise_single(group)
        except AgentLoopError as error:
            lab.errors.append(error)


class _Person:
    """Reads a stream, answers, and interferes."""

    def __init__(
        self,
        draw: Draw,
        stream: Recorded,
        nursery: trio.Nursery,
        *,
        answers: Draw | None,
        kills: Callable[[], None] | None,
        crowded: bool,
    ) -> None:
        self._draw = draw
        self._stream = stream
        self._nursery = nursery
        self._answers = answers
        self._kills = kills
        self._read = 0
        self._deed = draw.on("deed").one(
            ("", "", "steer", "steer", "follow up", "stop", "rest", "park", "steer", "leaves", "waits")
        )
        if crowded and draw.on("newer").chance(0.45):
            self._deed = draw.on("newer deed").one(("pause", "pause", "pause and park", "pause and stop", "secret"))
        self._at = draw.on("at").number(30)
        self._kill_at = draw.on("kill at").number(40)

    async def reads(self, event: StreamEvent) -> bool:
        """Do what is due. Return whether to go on reading."""
        self._read += 1
        if self._kills is not None and self._read > self._kill_at:
            self._kills()
        if self._read == self._at or (self._deed == "steer" and isinstance(event, TurnFinished)):
            await self._interfere(event)
        question = event if isinstance(event, (ElicitationRequested, ApprovalRequested, ContinueRequested)) else None
        if question is not None and self._draw.on("scribbles").chance(0.3):
            for pending in self._stream.stream.pending:
                _scribble(pending)
        if self._answers is not None and question is not None:
            answer = _answer(self._answers, question)
            delay = self._draw.on(f"delay {self._read}").one((0.0, 0.0, 3.0, 90.0))
            if answer is None:
                self._nursery.start_soon(self._stop_later)
            elif delay:
                self._nursery.start_soon(self._answer_later, question.id, answer, delay)
            else:
                self._reply(question.id, answer)
        return not (self._read > self._at and self._deed in ("leaves", "waits"))

    @property
    def waits(self) -> bool:
        """Whether to wait for the end without reading on."""
        return self._deed == "waits" and self._read > self._at

    async def _interfere(self, event: StreamEvent) -> None:
        stream = self._stream.stream
        try:
            match self._deed:
                case "steer":
                    stream.steer(f"by the way, {self._read} of {stream.id}")
                case "follow up":
                    stream.follow_up(f"and then, {stream.id}?")
                case "stop":
                    self._stream.stop("enough")
                case "rest":
                    await trio.sleep(20)
                case "park":
                    stream.park()
                case "pause" | "pause and park" | "pause and stop":
                    stream.pause()
                    self._nursery.start_soon(self._go_on_later)
                case "secret":
                    stream.steer(f"by the way, with {KEY}")
                case _:
                    if isinstance(event, ToolCallStarted):
                        await trio.sleep(1)
        except AgentLoopError as error:
            self._stream._lab.errors.append(error)

    async def _go_on_later(self) -> None:
        """End a pause, one way or another."""
        await trio.sleep(self._draw.on("pause").one((1, 20, 300)))
        try:
            match self._deed:
                case "pause and park":
                    self._stream.stream.park()
                    await trio.sleep(50)
                case "pause and stop":
                    self._stream.stop("paused for too long")
                case _:
                    pass
        except AgentLoopError as error:
            self._stream._lab.errors.append(error)
        finally:
            self._stream.stream.resume()

    async def _answer_later(self, id: str, answer: Answer, delay: float) -> None:
        await trio.sleep(delay)
        self._reply(id, answer)

    def _reply(self, id: str, answer: Answer) -> None:
        if not self._stream.answer(id, answer):
            # Permissions may forbid what the person wants.
            self._stream.answer(id, Deny("as it was refused"))

    async def _stop_later(self) -> None:
        await trio.sleep(50)
        self._stream.stop("no answer")


def _scribble(question: Question) -> None:
    """Change a question that was given away: the run must not see it."""
    if isinstance(question, ApprovalRequested):
        question.arguments["color"] = "green"
    if isinstance(question, ElicitationRequested):
        question.form.clear()


def _answer(draw: Draw, question: Question) -> Answer | None:
    """An answer that depends on the question and nothing else, so that one that is asked again gets the same."""
    own = draw.on(question.id)
    match question:
        case ElicitationRequested():
            tag = {"tag": question.message} if question.url is None else {}
            if own.on("nothing").chance(0.08):
                return None
            replies: list[Answer] = [Accept(tag), Accept(tag), Accept(tag), Decline("no"), Cancel()]
            return own.one(replies)
        case ApprovalRequested():
            if own.on("nothing").chance(0.08):
                return None
            choices: list[Answer] = [Approve(), Approve(), Approve(always=True), Deny("not now")]
            if question.name == "pay":
                choices += [
                    Approve(arguments={"color": "green", "amount": 1}),
                    Approve(arguments={"color": "blue"}, always=True),
                    Approve(always=Rule("pay")),
                ]
            return own.one(choices)
        case _:
            decisions: list[Answer] = [Approve(), Approve(), Deny("enough")]
            return own.one(decisions)
