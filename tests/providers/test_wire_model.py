"""A model is a wire format and a transport: any format works over any transport."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from agentloop import Agent
from agentloop.messages import Message, Text, UserMessage
from agentloop.models import ModelRequest, OpenableModel, ToolSpec
from agentloop.providers._chat_format import ChatFormat
from agentloop.providers._events import WireEvents
from agentloop.providers._messages_format import MessagesFormat
from agentloop.providers._responses_format import ResponsesFormat
from agentloop.providers._wire_model import EncodedRequest, WireFormat, WireModel
from agentloop.providers._writing import ResponseWriter
from agentloop.providers.openai_chat import OpenAIChat
from tests.providers.chat import Heard, ask
from tests.providers.conformance import ChatWire, MessagesWire, ResponsesWire, Said, Wire

FORMATS: list[tuple[WireFormat, Wire]] = [
    (ChatFormat(model="m"), ChatWire()),
    (ResponsesFormat(model="m"), ResponsesWire()),
    (MessagesFormat(model="m", max_tokens=100), MessagesWire()),
]


class Recorded:
    """A transport that answers each request with the same bytes, and remembers the bodies."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.bodies: list[bytes] = []
        self.opened = 0

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Recorded]:
        self.opened += 1
        yield self

    @asynccontextmanager
    async def post(self, body: bytes, *, model: str) -> AsyncGenerator[WireEvents]:
        self.bodies.append(body)

        async def chunks() -> AsyncIterator[bytes]:
            yield self.answer

        yield WireEvents(model, chunks(), "text/event-stream", ())


@pytest.mark.parametrize(("format", "wire"), FORMATS, ids=lambda value: type(value).__name__)
async def test_a_transport_of_ones_own_carries_every_format(format: WireFormat, wire: Wire) -> None:
    transport = Recorded(b"".join(wire.whole(Said("Hi"))))
    model = WireModel(format, transport, name="m")

    assert (await ask(model)).text == "Hi"
    assert b"Hello?" in transport.bodies[0]


async def test_a_stream_opens_the_transport_of_its_model() -> None:
    transport = Recorded(b"".join(ChatWire().whole(Said("Hi"))))
    model = WireModel(ChatFormat(model="m"), transport, name="m")

    assert isinstance(model, OpenableModel)
    assert (await Agent(model).run("Hello?")).output == "Hi"
    assert transport.opened == 1


def test_a_message_is_encoded_once_while_requests_repeat_it() -> None:
    encoded, calls = EncodedRequest(), list[Message]()
    first, second, third = (UserMessage((Text(text),)) for text in "123")

    def encode(message: Message) -> int:
        calls.append(message)
        return len(calls)

    assert encoded.messages([first, second], encode) == [1, 2]
    assert encoded.messages([first, second, third], encode) == [1, 2, 3]
    assert encoded.messages([third, third], encode) == [3, 3]
    assert len(calls) == 3


def test_a_message_is_not_encoded_again_where_another_one_before_it_has_changed() -> None:
    encoded, calls = EncodedRequest(), list[Message]()
    first, second, third = (UserMessage((Text(text),)) for text in "123")

    def encode(message: Message) -> int:
        calls.append(message)
        return len(calls)

    encoded.messages([first, second], encode)

    assert encoded.messages([third, second], encode) == [3, 2]
    assert encoded.messages([second], encode) == [2]


def test_tools_are_encoded_once_while_requests_repeat_them() -> None:
    encoded, calls = EncodedRequest(), list[tuple[ToolSpec, ...]]()
    tools, others = ((ToolSpec(name, "", {"type": "object"}),) for name in "ab")

    def encode(specs: tuple[ToolSpec, ...]) -> int:
        calls.append(specs)
        return len(calls)

    assert [encoded.tools(specs, encode) for specs in (tools, tools, others, others)] == [1, 1, 2, 2]


def test_messages_that_are_no_longer_sent_are_forgotten() -> None:
    encoded = EncodedRequest()
    first, second = UserMessage((Text("1"),)), UserMessage((Text("2"),))

    encoded.messages([first, second], str)
    encoded.messages([second], str)

    assert len(encoded) == 1


@pytest.mark.parametrize(("format", "wire"), FORMATS, ids=lambda value: type(value).__name__)
def test_a_format_encodes_a_request_the_same_way_each_time(format: WireFormat, wire: Wire) -> None:
    request, encoded = ModelRequest((UserMessage((Text("Hello?"),)),)), EncodedRequest()

    bodies = {
        format.exchange(request, encoded, name="m", writer=ResponseWriter(Heard(), model="m"))[0] for _ in range(3)
    }

    assert len(bodies) == 1
    assert msgspec.json.decode(bodies.pop())["model"] == "m"


def test_models_with_the_same_name_address_and_key_have_one_identity() -> None:
    def model(url: str = "http://h/v1", key: str = "secret-key") -> OpenAIChat:
        return OpenAIChat("m", base_url=url, api_key=key)

    assert model().identity == model().identity
    assert model().identity != model(url="http://other/v1").identity
    assert model().identity != model(url="http://h/v1?region=2").identity
    assert model().identity != model(key="another-key").identity
    assert model().identity != model(url="http://ada:x@h/v1").identity
    assert "secret" not in repr(model().identity)
