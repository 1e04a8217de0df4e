"""Sessions whose runs took known times: scripted models and tools that wait on the virtual clock."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import pytest
import trio

from agentloop import Agent, Approve, ToolContext, tool
from agentloop.errors import ModelConnectionError
from agentloop.events import ApprovalRequested
from agentloop.journal import OpenStore, Record
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.picture import Span, Timeline, timeline
from agentloop.stores import stored_session
from agentloop.testing import Response, ScriptedModel, calls, fails

EPOCH = 1_800_000_000.0


def use_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the journal's times from trio's clock, which jumps."""
    monkeypatch.setattr(time, "time", lambda: EPOCH + trio.current_time())


@attrs.define
class Slow:
    """A model whose first delta comes after ``first`` seconds, and the end of its response after ``rest`` more."""

    inner: ScriptedModel
    first: float = 1.0
    rest: float = 0.5

    @property
    def name(self) -> str:
        return self.inner.name

    async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
        await trio.sleep(self.first)
        stop = await self.inner.respond(request, reply)
        await trio.sleep(self.rest)
        return stop


def slow(*script: Response | str, name: str = "large", first: float = 1.0, rest: float = 0.5) -> Slow:
    return Slow(ScriptedModel(*script, name=name), first, rest)


@tool
async def search(query: str, seconds: float) -> str:
    """Search."""
    await trio.sleep(seconds)
    return f"about {query}"


@tool(timeout=4.0)
async def crawl(site: str) -> str:
    """Read a site, for longer than it may take."""
    await trio.sleep(60)
    return site


@tool(requires_approval=True)
async def book(flight: str) -> str:
    """Book a flight."""
    await trio.sleep(2)
    return f"booked {flight}"


def team() -> Agent:
    """A clerk whose first request fails, who asks a researcher, and who books with approval."""
    researcher = Agent(
        slow(
            calls("search", query="fares", seconds=3.0) + calls("crawl", site="example.org"),
            "LH 400 is the cheapest.",
            name="small",
            first=0.5,
        ),
        name="researcher",
        tools=[search, crawl],
    )
    clerk = slow(
        fails(ModelConnectionError("the connection was reset")),
        calls("search", query="weather", seconds=1.0)
        + calls("search", query="hotels", seconds=2.5)
        + calls("researcher", prompt="Find the cheapest flight"),
        calls("book", flight="LH 400"),
        "Booked: LH 400, a hotel near the river, and take a coat.",
    )
    return Agent(clerk, name="clerk", tools=[search, book, researcher.as_tool()])


PROMPT = "Book me the cheapest flight to Boston, and a hotel"


async def run_parked(store: OpenStore, session: str = "trip") -> None:
    """Run the team until it parks, and resume it after a minute with an approval."""
    agent = team()
    async with stored_session(store, session) as opened:
        await agent.run(PROMPT, session=opened, on_question="park")
    await trio.sleep(60)
    async with stored_session(store, session) as opened:
        await agent.resume(opened, {question.id: Approve() for question in opened.questions})


async def run_answered(store: OpenStore, session: str = "trip", seconds: float = 7.0) -> None:
    """Run the team with a person who approves after ``seconds``."""
    async with (
        stored_session(store, session) as opened,
        team().stream(PROMPT, session=opened) as stream,
    ):
        async for event in stream:
            if isinstance(event, ApprovalRequested):
                await trio.sleep(seconds)
                stream.answer(event.id, Approve())


@tool
async def dig(context: ToolContext[None]) -> str:
    """Never end, as far as the run waits for it."""
    await context.progress(1)
    await trio.sleep(10_000)
    return "done"


async def run_stopped(store: OpenStore, session: str = "stopped") -> None:
    """Run a child whose tool never ends, and stop the run after five seconds."""
    digger = Agent(slow(calls("dig"), name="small"), name="digger", tools=[dig])
    agent = Agent(slow(calls("digger", prompt="dig"), name="large"), name="boss", tools=[digger.as_tool()])
    async with (
        stored_session(store, session) as opened,
        agent.stream("dig", session=opened) as stream,
        trio.open_nursery() as nursery,
    ):

        async def stop() -> None:
            await trio.sleep(5)
            stream.stop("the user pressed stop")

        nursery.start_soon(stop)
        async for _ in stream:
            pass


async def drawn(store: OpenStore, session: str) -> Timeline:
    return timeline(await store.read(session), info=await store.info(session))


def outline(drawn: Timeline) -> list[tuple[str, str, float, float, str]]:
    """Kind, name, begin and duration in seconds, and status of each span."""
    return [
        (span.kind, span.name, round(span.begin - drawn.begin, 2), round(span.seconds, 2), span.status)
        for span in drawn.spans
    ]


def only(drawn: Timeline, kind: str, name: str = "") -> Span:
    """The only span of the kind, and of the name."""
    found = [span for span in drawn.spans if span.kind == kind and name in ("", span.name)]
    assert len(found) == 1, [span.name for span in drawn.spans if span.kind == kind]
    return found[0]


def shifted(records: Sequence[Record], at: float) -> list[Record]:
    """The records as if each had been written at ``at``."""
    return [Record(record.seq, record.kind, record.data, record.stream, record.key, at) for record in records]
