"""Talks: sessions of several runs, put together at random, and what people do to them before, during and between runs.

A mix is one agent, with a little of everything. A talk is about what lasts: what a person approved for good, chose or
said between two runs, what a process left behind that died twice, what the agent before a handoff was told. As of a
mix, it is recorded what each talk does, and it must do that again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import trio

from agentloop import hooks
from agentloop._runtime.exception_groups import raise_single
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.context_sources import ContextSource
from agentloop.errors import AgentLoopError, ModelConnectionError
from agentloop.events import (
    ApprovalRequested,
    ContinueRequested,
    ElicitationRequested,
    Question,
    StreamEvent,
    ToolCallStarted,
)
from agentloop.handoffs import Handoff
from agentloop.hooks import Ask, Hook, PreToolUse, ReplaceArguments
from agentloop.judges import judge
from agentloop.limits import Compaction, Deadlines, Limits, Retries
from agentloop.messages import AssistantMessage, Message, Text, Usage, UserMessage
from agentloop.models import ModelChoice, ModelRequest, ModelSettings, Reply, Stop
from agentloop.permissions import Permissions, Rule
from agentloop.questions import Accept, Answer, Approve, Deny
from agentloop.run_info import RunInfo
from agentloop.safety import Assessment
from agentloop.session import Session
from agentloop.stores import stored_session
from agentloop.team import Team
from agentloop.testing._journal import SeamJournal
from agentloop.testing._lab import AgentScenario, Lab, PlannedModel, Recorded
from agentloop.testing._recorded import Checksums, RecordAnew
from agentloop.testing._shown import shown
from agentloop.testing.harness.draw import Draw
from agentloop.testing.scripted import Response, calls, fails, hangs, says
from agentloop.toolkit._background import background
from agentloop.tools import Tool

__all__ = ["GROUP", "TALKS", "talk"]

TALKS = 240
"""Talks that are tried when they are recorded."""

GROUP = "talks"

_ID = "talk"
_PATIENCE = 5000.0
"""Seconds that a process may take: its models may say nothing for minutes, one after the other."""
_KEY = "AKIAIOSFODNN7EXAMPLE"
_OTHER_KEY = "AKIAZZZZZZZZZZEXAMPL"
_COMMANDS = ("look", "rm")
_PATHS = ("a", "/")


def talk(number: int, lines_of: Callable[[str, str], list[str]] | None) -> AgentScenario:
    """The talk with a number, to be played and watched."""
    scenario = AgentScenario(f"talk-{number}", partial(_play, Draw(f"talk {number}")))
    if lines_of is not None:
        scenario.recorded = Checksums(lines_of(GROUP, scenario.name)) or RecordAnew()
    return scenario


# ---------------------------------------------------------------------------------- the play


async def _play(draw: Draw, lab: Lab) -> None:
    people = draw.on("people")
    if draw.on("journal").chance(0.35):
        agent = _agents(draw.on("agents"), lab)
        session = Session(_ID)
        for number in range(2 + draw.on("runs").number(3)):
            own = draw.on(number)
            _before(own, session)
            await _run(own, people, lab, agent, session=session)
        return
    async with SeamJournal(lab.sim, lab.watch.note).open() as journal:
        lab.journal = journal
        agent, is_mortal = _agents(draw.on("agents"), lab), people.on("mortal").chance(0.4)
        for number in range(3 + draw.on("runs").number(4)):
            own = draw.on(number)
            async with (
                journal.process(f"P{number}", patience=_PATIENCE) as client,
                stored_session(client, _ID, if_busy="wait", lease_seconds=3) as session,
            ):
                for part in range(1 + own.on("parts").number(2)):
                    once = own.on(part)
                    _before(once, session)
                    kill = client.kill if once.on("kill").chance(0.7 if is_mortal else 0.3) else None
                    await _run(once, people, lab, agent, session=session, client=client, kill=kill)
                    _note(
                        lab, f"used {shown(await session.usage())}, {session.choice}, resumable: {session.is_resumable}"
                    )


def _before(draw: Draw, session: Session) -> None:
    """What a person does to the session before a run."""
    if draw.on("steers").chance(0.2):
        session.steer("by the way")
    if draw.on("chooses").chance(0.2):
        session.choice = draw.on("choice").one(
            (None, ModelChoice(reasoning_effort="low"), ModelChoice(model="other", reasoning_effort="high"))
        )
    if draw.on("permits").chance(0.15):
        session.permissions = draw.on("permissions").one((None, Permissions(ask=["look"]), Permissions(mode="safe")))


def _note(lab: Lab, text: str) -> None:
    if lab.trace is not None:
        lab.trace.add(text)


async def _run(
    draw: Draw,
    people: Draw,
    lab: Lab,
    agent: Any,
    *,
    session: Any,
    client: Any = None,
    kill: Callable[[], None] | None = None,
) -> None:
    modes = ("reader", "reader", "handler") + (("park", "park") if client is not None else ())
    mode = draw.on("mode").one(modes)
    options: dict[str, Any] = {"on_question": mode}
    if mode == "handler":
        options["on_question"] = lab.handler(partial(_reply, people))
    resumable = client is not None and session.is_resumable
    if resumable and draw.on("resumes").chance(0.9):
        options["resumes"] = {each.id: _reply(people, each) for each in session.questions}
    elif draw.on("sets").chance(0.2):
        options["settings"] = ModelSettings(reasoning_effort=draw.on("effort").one(("none", "medium")))
    try:
        opening = lab.stream(agent, "go", session=session, client=client, **options)
        async with opening as stream, trio.open_nursery() as nursery:
            person = _Person(draw.on("person"), people, stream, nursery, answers=mode == "reader", kill=kill)
            await person.reads()
            nursery.cancel_scope.cancel()
    except AgentLoopError as error:
        lab.errors.append(error)
    except BaseExceptionGroup as group:
        try:
            raise_single(group)
        except AgentLoopError as error:
            lab.errors.append(error)


class _Person:
    """Reads a stream, in bits of time, and does one thing to it at some event."""

    def __init__(
        self,
        draw: Draw,
        people: Draw,
        stream: Recorded,
        nursery: trio.Nursery,
        *,
        answers: bool,
        kill: Callable[[], None] | None,
    ) -> None:
        self._draw = draw
        self._people = people
        self._stream = stream
        self._nursery = nursery
        self._answers = answers
        self._kill = kill
        self._kill_at = draw.on("kill at").number(8 if people.on("mortal").chance(0.4) else 45)
        self._at = draw.on("at").number(30)
        self._deed = draw.on("deed").one(("", "steer", "steer", "steer", "pause", "pause", "park", "pause and park"))
        self._read = 0
        self._is_impatient = draw.on("impatient").chance(0.25)

    async def reads(self) -> None:
        """Read to the end."""
        while True:  # noqa: ASYNC913 - `_next` waits
            try:
                event = await self._next()
            except StopAsyncIteration:
                return
            read = self._read = self._read + 1
            if self._kill is not None and read > self._kill_at:
                self._kill()
            if read == self._at or (self._deed == "steer" and isinstance(event, ToolCallStarted)):
                self._does()
            if self._answers and isinstance(event, (ApprovalRequested, ElicitationRequested, ContinueRequested)):
                delay = self._draw.on(f"delay {read}").one((0.0, 0.0, 40.0))
                self._nursery.start_soon(self._answer, event, delay)

    async def _next(self) -> StreamEvent:
        while True:
            with trio.move_on_after(2 if self._is_impatient else 100_000):
                return await self._stream.__anext__()

    def _does(self) -> None:
        stream = self._stream.stream
        try:
            if self._deed == "steer":
                stream.steer(f"and be quick, {self._read} of {stream.id}")
            if self._deed.startswith("pause"):
                stream.pause()
                self._nursery.start_soon(self._goes_on)
            if self._deed.endswith("park"):
                stream.park()
        except AgentLoopError as error:
            self._stream._lab.errors.append(error)

    async def _goes_on(self) -> None:
        await trio.sleep(self._draw.on("pause").one((5, 90)))
        self._stream.stream.resume()

    async def _answer(self, question: Question, delay: float) -> None:
        await trio.sleep(delay)
        if not self._stream.answer(question.id, _reply(self._people, question)):
            self._stream.answer(question.id, Deny("as it was refused"))


def _reply(people: Draw, question: Question) -> Answer:
    """An answer that depends on the question and nothing else, so that one that is asked again gets the same."""
    own = people.on(question.id)
    match question:
        case ElicitationRequested():
            return Accept({"tag": question.message, "key": own.one(("none", f"use {_KEY}", f"use {_OTHER_KEY}"))})
        case ApprovalRequested():
            kinds: list[Answer] = [Approve(), Approve(), Approve(always="safe"), Approve(always="safer"), Deny("no")]
            return own.one([*kinds, Approve(always=True), Approve(always=Rule(question.name))])
        case _:
            decisions: list[Answer] = [Approve(), Deny("enough")]
            return own.one(decisions)


# -------------------------------------------------------------------------------- the agents


def _agents(draw: Draw, lab: Lab) -> Any:
    """An agent, or a team of two in which the first hands the conversation off."""
    if not draw.on("team").chance(0.3):
        return _agent(draw.on("alone"), lab, "agent")
    histories: tuple[Any, ...] = ("all", "last", "last", _angry, _angry)
    handoff = Handoff("second", history=draw.on("history").one(histories))
    return Team(
        _agent(draw.on("first"), lab, "first", handoffs=[handoff], front=[calls("handoff", agent="second")]),
        _agent(draw.on("second"), lab, "second"),
    )


def _angry(_messages: Sequence[Message]) -> list[Message]:
    return [UserMessage((Text("The customer is angry."),))]


def _agent(draw: Draw, lab: Lab, name: str, *, front: Sequence[Response] = (), **options: Any) -> Agent[Any, Any]:
    helpers = [_helper(draw.on(each), lab, each) for each in ("quick", "slow")]
    tools = _tools(draw, lab, helpers[draw.on("which").number(2)])
    names = [each.name for each in tools]
    if draw.on("background").chance(0.5):
        options["toolsets"] = [background(*helpers)]
        names += ["run_background_agent"] * 3
    script = [_turn(draw.on(f"turn {turn}"), names) for turn in range(2 + draw.on("turns").number(8))]
    if draw.on("is cut").chance(0.12):
        script[1:1] = [_cut(draw.on(f"cut {number}"), names) for number in range(4)]
    if draw.on("has a long word").chance(0.15):
        # Longer than what a judge reads.
        script.insert(1, says("word " * 12_000, piece=100_000))
    script[1:1] = front
    script += [says(draw.on(f"word {number}").one(("Done.", "word " * 120))) for number in range(5)]
    if draw.on("contexts").chance(0.4):
        options["context"] = [_source(draw.on("weather"), lab), _source(draw.on("news"), lab, "news")]
    if draw.on("small").chance(0.3):
        options["compaction"] = Compaction(window=draw.on("window").one((300, 500, 900)), keep_recent=0.1)
    if draw.on("fallback").chance(0.3):
        options["fallbacks"] = [lab.planned(*script, name=f"{name}-fallback")]
    if draw.on("permissions").chance(0.4):
        options["permissions"] = Permissions(mode=draw.on("safety").one(("strict", "safe", "safer", "accept_edits")))
    return Agent(
        _Model(lab, f"{name}-model", *script),
        name=name,
        tools=tools,
        models={"other": lab.planned(*script, name=f"{name}-other"), "big": _Model(lab, f"{name}-big", *script)},
        hooks=_hooks(draw.on("hooks"), lab),
        redact=draw.on("redact").chance(0.35),
        deferred=None,
        limits=Limits(turns=40, identical_turns=draw.on("identical").one((3, 10)), seconds=5_000),
        deadlines=Deadlines(tool=60, first_token=30, idle=30, hook=30),
        retries=Retries(attempts=1, cooldown=60),
        **options,
    )


def _helper(draw: Draw, lab: Lab, name: str) -> Agent[Any, Any]:
    """An agent for the background, and as a tool."""

    async def works(_context: ToolContext[Any]) -> str:
        await trio.sleep({"quick": 3, "slow": 50}[name])
        return "worked"

    tools = [lab.bare("works", works, read_only=True), lab.bare("asks", partial(_ask, lab))]
    script = [calls("works")] + ([calls("asks")] if draw.on("asks").chance(0.4) else [])
    last = says(f"Half of {name}", stop="length") if draw.on("cut").chance(0.3) else says(f"Found by {name}.")
    return Agent(lab.planned(*script, last, name=name), name=name, tools=tools)


class _Model(PlannedModel):
    """A model that fails once where its script says so, or only ever says that it lives."""

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Give the response that follows those which the request has."""
        place = sum(isinstance(message, AssistantMessage) for message in request.messages)
        response = self._script[place] if place < len(self._script) else None
        if response is not None and (response.hangs or response.error is not None):
            self._script[place] = says("Well. ")
            self.requests.append(request)
            while response.hangs:
                await trio.sleep(20)
                await reply.text("")
            raise ModelConnectionError("gone")
        return await super().respond(request, reply)


def _turn(draw: Draw, names: Sequence[str]) -> Response:
    kind = draw.on("kind").one(("calls",) * 12 + ("cut", "fails", "lives", "word", "word"))
    if kind == "fails":
        return fails(ModelConnectionError("gone"))
    if kind == "lives":
        return hangs()
    if kind == "word":
        return says("Well. ")
    if kind == "cut":
        return _cut(draw, names)
    return Response(_calls(draw, names).parts, usage=Usage(20 + draw.on("used").number(200), 5))


def _cut(draw: Draw, names: Sequence[str]) -> Response:
    return Response(_calls(draw, names).parts, stop="length", usage=Usage(30, 20))


def _calls(draw: Draw, names: Sequence[str]) -> Response:
    response = Response()
    for call in range(draw.on("calls").one((1, 1, 2, 3))):
        response += _call(draw.on(call), names)
    return response


def _call(draw: Draw, names: Sequence[str]) -> Response:
    name = draw.one(names)
    match name:
        case "run":
            return calls("run", command=draw.on("command").one(_COMMANDS))
        case "look" | "write":
            return calls(name, path=draw.on("path").one(_PATHS))
        case "run_background_agent":
            return calls(name, agent=draw.on("agent").one(("quick", "slow")), task="x")
        case "quick" | "slow":
            return calls(name, prompt="x")
        case "find_tools":
            return calls(name, query="hidden one pays")
        case _:
            return calls(name)


def _tools(draw: Draw, lab: Lab, helper: Agent[Any, Any]) -> list[Tool]:
    starts = draw.on("starts").number(3)

    async def pays(_context: ToolContext[Any]) -> str:
        await trio.sleep(10)
        return "paid"

    async def delegates(context: ToolContext[Any]) -> str:
        outcome = await context.run(helper, f"go with {_KEY}")
        return f"{outcome.output} {outcome.detail}"

    async def begins(context: ToolContext[Any]) -> str:
        """Start two runs alike, and ask before it waits for them."""
        runs = [await context.start(helper, "go, in the background") for _ in range(2)]
        if starts == 1:
            await _ask(lab, context)
        if starts == 2:
            return " ".join([(await run.wait()).reason for run in runs])
        return " ".join([run.id for run in runs])

    async def is_long(_context: ToolContext[Any]) -> str:
        await trio.lowlevel.checkpoint()
        return "a line of a result\n" * 60

    def late(info: RunInfo[Any]) -> bool:
        return info.turn % 3 == 0

    made = [
        lab.bare("look", _look, read_only=True),
        lab.tool("run", requires_approval=True, assess=_assess),
        lab.tool("write", requires_approval=_is_root),
        lab.tool("heavy", model="big"),
        lab.bare("hidden", _look, deferred=True, offered=late, read_only=True),
        lab.bare("shown", _look, deferred=True, read_only=True),
        lab.tool("pays", pays, if_interrupted="ask"),
        lab.bare("delegates", delegates, if_interrupted="retry", timeout=1000.0),
        lab.bare("begins", begins, if_interrupted="retry", timeout=1000.0, agents=[helper]),
        lab.bare("long", is_long, max_result=200),
        lab.bare("asks", partial(_ask, lab), requires_approval=draw.on("asks").chance(0.3)),
        helper.as_tool(),
    ]
    own = draw.on("has")
    chosen = [each for each in made if own.on(each.name).chance(0.5)]
    return chosen or made[:1]


_TEXT = {"type": "string"}
_FORM = {"type": "object", "properties": {"tag": _TEXT, "key": _TEXT}, "required": ["tag"]}


async def _ask(lab: Lab, context: ToolContext[Any]) -> str:
    message = f"a question of {context.call_id} of {context.source.session}"
    lab.received[message] = await context.ask(message, _FORM)
    return repr(lab.received[message])


async def _look(_context: ToolContext[Any]) -> str:
    await trio.lowlevel.checkpoint()
    return "looked"


def _assess(arguments: dict[str, Any]) -> Assessment:
    return Assessment(is_harmless=arguments.get("command") == "look", why="it looks")


def _is_root(arguments: dict[str, Any]) -> bool:
    return arguments.get("path") == "/"


def _source(draw: Draw, lab: Lab, name: str = "weather") -> ContextSource:
    async def say(info: RunInfo[Any]) -> str:
        await lab.sim.seam(f"context:{name}")
        return draw.on(info.turn).one(("rain", "sun", "", "fog"))

    return ContextSource(name, say, each=draw.on("each").one(("turn", "run")))


def _hooks(draw: Draw, lab: Lab) -> list[Hook]:
    async def asks(call: PreToolUse) -> Ask | None:
        await lab.sim.seam("hook:asks")
        return Ask("of the root") if call.arguments.get("path") == "/" else None

    async def replaces(call: PreToolUse) -> ReplaceArguments | None:
        await lab.sim.seam("hook:replaces")
        return ReplaceArguments({"path": draw.on("to").one(_PATHS)}) if call.arguments.get("path") == "a" else None

    made: list[Hook] = []
    if draw.on("asks").chance(0.4):
        made.append(hooks.pre_tool_use(tools="look")(asks))
    if draw.on("replaces").chance(0.4):
        made.append(hooks.pre_tool_use(tools="write")(replaces))
    if draw.on("judges").chance(0.3):
        verdicts = [says(f'{{"allow": {allow}, "reason": "so"}}') for allow in ("true", "true", "false") * 8]
        model = lab.model(*verdicts, name="judge")
        made.append(judge(model, "Rules.", at=hooks.pre_tool_use, tools=("look", "works"), conversation=True))
    return made
