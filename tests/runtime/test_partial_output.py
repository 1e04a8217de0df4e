"""Structured output while the model writes it: `Stream.partial` and `OutputDelta`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from agentloop import Agent, Limits, ToolContext, tool
from agentloop._core.json_text import is_array
from agentloop._core.partial_json import PartialJson
from agentloop.errors import ModelConnectionError
from agentloop.events import OutputDelta, ResponseDiscarded, StreamEvent, TextDelta
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.stores import MemoryStore, follow_session, stored_session
from agentloop.testing import ScriptedModel, assert_well_formed, calls
from agentloop.wire import decode_event, encode_event
from tests.support import of


@frozen
class City:
    name: str
    tags: list[str]


@frozen
class Other:
    code: int


PIECES = ('{"na', 'me": "Por', 'to", "tags', '": ["se', 'a", "win', 'e"]}')
VALUES = [
    {},
    {"name": "Por"},
    {"name": "Porto"},
    {"name": "Porto", "tags": ["se"]},
    {"name": "Porto", "tags": ["sea", "win"]},
    {"name": "Porto", "tags": ["sea", "wine"]},
]


class InPieces:
    """A model that gives each of its texts in pieces; an error among them breaks the response off."""

    name = "in pieces"

    def __init__(self, *texts: Sequence[str | Exception]) -> None:
        self.texts = list(texts)

    async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
        for piece in self.texts.pop(0):
            if isinstance(piece, Exception):
                raise piece
            await reply.text(piece)
        return Stop("end")


def agent_of(*texts: Sequence[str | Exception], **options: Any) -> Agent:
    settings: dict[str, Any] = {"output_type": City, **options}
    return Agent(InPieces(*texts), **settings)


async def events_of(agent: Agent) -> list[StreamEvent]:
    async with agent.stream("go") as stream:
        return [event async for event in stream]


def built(events: Sequence[StreamEvent]) -> list[Any]:
    """The output after each change, as a reader of the events builds it."""
    top: dict[Any, Any] = {}
    values: list[Any] = []
    for event in of(events, OutputDelta):
        *steps, last = ("output", *event.location)
        part: Any = top
        for step in steps:
            part = part[step]
        value = json.loads(json.dumps(event.value))
        if event.is_piece:
            part[last] += value
        elif is_array(part):
            part.append(value)
        else:
            part[last] = value
        values.append(json.loads(json.dumps(top["output"])))
    return values


async def test_the_partial_output_grows_with_the_text() -> None:
    values: list[Any] = []

    class Watched(InPieces):
        async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
            assert stream.partial is None
            for piece in self.texts.pop(0):
                assert isinstance(piece, str)
                await reply.text(piece)
                values.append(stream.partial)
            return Stop("end")

    async with Agent(Watched(PIECES), output_type=City).stream("go") as stream:
        await stream.wait()

    assert values == VALUES
    assert stream.partial == VALUES[-1]
    assert stream.result.output == City("Porto", ["sea", "wine"])


async def test_each_part_is_an_event_after_the_text_that_has_it() -> None:
    events = await events_of(agent_of(PIECES, output_deltas=True))

    assert_well_formed(events)
    assert built(events)[-1] == VALUES[-1]
    first = next(index for index, event in enumerate(events) if isinstance(event, OutputDelta))
    assert isinstance(events[first - 1], TextDelta)
    assert all(decode_event(encode_event(event)) == event for event in of(events, OutputDelta))


async def test_without_the_option_nothing_is_parsed(monkeypatch: Any) -> None:
    def refuse(self: object, text: str) -> None:
        raise AssertionError("a text was parsed that nothing had asked for")

    monkeypatch.setattr(PartialJson, "feed", refuse)

    events = await events_of(agent_of(PIECES))

    assert of(events, OutputDelta) == []


async def test_an_output_is_shown_without_its_wrapper_however_it_comes() -> None:
    for pieces in (('{"value": ["a', 'b"]}'), ('["a', 'b"]')):
        agent = agent_of(pieces, output_type=list[str], output_deltas=True)
        async with agent.stream("go") as stream:
            events = [event async for event in stream]
            assert stream.partial == ["ab"]
        assert built(events) == [[], [""], ["a"], ["ab"]]


async def test_an_alternative_of_a_union_is_shown_without_its_wrapper() -> None:
    for pieces in (('{"value": {"code": 7}}',), ('{"code"', ": 7}")):
        agent = agent_of(pieces, output_type=City | Other, output_deltas=True)
        async with agent.stream("go") as stream:
            events = [event async for event in stream]
            assert stream.partial == {"code": 7}
        assert built(events)[-1] == {"code": 7}
        assert stream.result.output == Other(7)  # type: ignore[comparison-overlap]


async def test_a_response_that_is_requested_again_begins_anew() -> None:
    broken = (PIECES[0], PIECES[1], ModelConnectionError("gone"))

    events = await events_of(agent_of(broken, PIECES, output_deltas=True))

    discarded = next(index for index, event in enumerate(events) if isinstance(event, ResponseDiscarded))
    assert built(events[:discarded])[-1] == {"name": "Por"}
    assert built(events)[-1] == built(events[discarded:])[-1] == VALUES[-1]


async def test_an_output_that_is_asked_for_again_begins_anew() -> None:
    events = await events_of(agent_of(('{"name": "A"}',), PIECES, output_deltas=True))

    assert built(events)[-1] == VALUES[-1]


async def test_a_plain_text_has_no_parts() -> None:
    async with agent_of(PIECES, output_type=str, output_deltas=True).stream("go") as stream:
        events = [event async for event in stream]
        assert stream.partial is None

    assert of(events, OutputDelta) == []


async def test_the_output_of_a_child_has_parts_of_its_own() -> None:
    inner = agent_of(PIECES, name="inner", output_deltas=True)
    partial: list[Any] = []

    @tool
    async def delegate(context: ToolContext[None]) -> str:
        async with context.stream(inner, "go") as child:
            await child.wait()
            partial.append(child.partial)
        return "done"

    outer = Agent(ScriptedModel(calls("delegate"), "done"), tools=[delegate], limits=Limits(depth=2))
    events = await events_of(outer)

    assert partial == [VALUES[-1]]
    assert {event.agent for event in of(events, OutputDelta)} == {"inner"}


async def test_the_journal_has_the_text_and_the_numbers_without_gaps() -> None:
    agent = agent_of(PIECES, output_deltas=True)
    async with MemoryStore().open() as store:
        async with stored_session(store, "s") as session, agent.stream("go", session=session) as stream:
            events = [event async for event in stream]
        saved = [event async for event in follow_session(store, "s")]
        halves = [event async for event in follow_session(store, "s", after=events[5].seq)]

    assert_well_formed(events)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert of(saved, OutputDelta) == []
    assert saved[-1].seq == events[-1].seq
    text = "".join(PIECES)
    assert "".join(event.text for event in of(saved, TextDelta)) == text
    read = "".join(event.text for event in of(events[:6], TextDelta))
    assert read + "".join(event.text for event in of(halves, TextDelta)) == text
