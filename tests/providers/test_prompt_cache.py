"""What the adapters do for the caches of providers: a key per session, and marks where the last ones stood."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agentloop import Agent, Compaction, Deferred, tool
from agentloop.events import ToolCallStarted
from agentloop.messages import Text, Usage, UserMessage
from agentloop.models import ModelRequest, ModelSettings, Reply, Stop
from agentloop.providers._chat_format import ChatFormat
from agentloop.providers._http import HttpTransport
from agentloop.providers._wire_model import WireModel
from agentloop.providers.anthropic import Anthropic
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.providers.openai_responses import OpenAIResponses
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import Response, ScriptedModel, calls, says
from tests.providers import chat
from tests.providers.server import answering, serving
from tests.support import watch

HELLO = ModelRequest((UserMessage((Text("Hello."),)),))


def body(model: WireModel, request: ModelRequest = HELLO) -> Any:
    return msgspec.json.decode(model.body_of(request))


# ------------------------------------------------------------------------- a key per session


@pytest.mark.real_clock
async def test_openai_gets_the_same_key_in_every_run_of_a_session() -> None:
    answers = [chat.whole(chat.said("Hi.")) for _ in range(4)]
    async with serving(answering(*answers)) as server, MemoryStore().open() as store:
        transport = HttpTransport(url=server.url, path=ChatFormat.PATH, headers={})
        agent = Agent(WireModel(ChatFormat(model="m", has_cache_key=True), transport, name="m"))
        for id in ("ann", "ann", "bob"):
            async with stored_session(store, id) as session:
                await agent.run("Hello.", session=session)
        await Agent(OpenAIChat("m", base_url=server.url)).run("Hello.")

    first, second, other, elsewhere = [request.json.get("prompt_cache_key") for request in server.requests]
    assert first == second != other
    assert len(first) == 32
    assert "ann" not in first
    # Another server may refuse the field.
    assert elsewhere is None


def test_only_openai_gets_a_key_and_one_of_the_user_s_own_counts_more() -> None:
    for model in (OpenAIResponses("gpt-5.5"), OpenAIChat("gpt-5.5")):
        assert "prompt_cache_key" not in body(model)
        of_session = body(model.for_session("ann"))
        assert body(model.for_session("ann")) == of_session
        assert of_session["prompt_cache_key"] == body(OpenAIResponses("o3").for_session("ann"))["prompt_cache_key"]
        own = ModelRequest(HELLO.messages, settings=ModelSettings(extra={"prompt_cache_key": "mine"}))
        assert body(model.for_session("ann"), own)["prompt_cache_key"] == "mine"
    local = "http://localhost/v1"
    for other in (
        OpenAIResponses("gpt-5.5", base_url=local),
        OpenAIChat("gpt-5.5", base_url=local),
        OpenAIChat("gpt-5.5", base_url=local, dialect="openai"),
        OpenAIChat("gpt-5.5", base_url="https://me.openai.azure.com/openai/v1"),
        OpenAIChat("gemini-3", base_url="https://generativelanguage.googleapis.com/v1beta/openai"),
        Anthropic("claude-opus-5-5"),
    ):
        assert other.for_session("ann") is other
        assert "prompt_cache_key" not in body(other.for_session("ann"))
    assert body(OpenAIResponses("gpt-5.5").for_session("\ud800"))["prompt_cache_key"]


# ------------------------------------------------------------------------ marks at Anthropic

LOOKBACK = 20
"""Blocks that the server searches back from a mark for what it has."""


class Kept:
    """A model that answers by a script, and keeps the bodies in which an adapter would have sent the requests."""

    def __init__(self, wire: WireModel, *script: Response | str) -> None:
        self.name, self.has_tool_search = wire.name, wire.has_tool_search
        self._wire, self._script = wire, ScriptedModel(*script)
        self.bodies: list[Any] = []

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        self.bodies.append(body(self._wire, request))
        return await self._script.respond(request, reply)


def blocks_of(wire: Any) -> list[tuple[Any, bool]]:
    """The blocks of a request as the model reads them, each with whether the server is to cache up to it."""
    tools = [tool for tool in wire.get("tools", ()) if not tool.get("defer_loading")]
    roles = [(message["role"], block) for message in wire["messages"] for block in message["content"]]
    found: list[tuple[Any, bool]] = []
    for role, block in (*[("", block) for block in (*tools, *wire.get("system", ()))], *roles):
        plain = {key: value for key, value in block.items() if key != "cache_control"}
        found.append(((role, plain), "cache_control" in block))
    return found


def hits(before: Any, after: Any) -> bool:
    """Whether the server finds all that it has of the request ``before`` when it gets ``after``."""
    one, other = blocks_of(before), blocks_of(after)
    same = next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a[0] != b[0]), min(len(one), len(other))
    )
    written = [at for at, (_, is_marked) in enumerate(one) if is_marked and at < same]
    last = max(written)
    return any(last <= at < last + LOOKBACK for at, (_, is_marked) in enumerate(other) if is_marked)


@tool
async def look(at: str = "") -> str:
    """Look."""
    return f"seen {at}"


def uncounted(response: Response | str) -> Response:
    """A response of a provider that does not say what was used."""
    return msgspec.structs.replace(says(response) if isinstance(response, str) else response, usage=Usage())


@pytest.mark.parametrize("deferred", [None, Deferred(over=0)])
async def test_marks_stay_where_the_next_request_needs_them(deferred: Deferred | None) -> None:
    many = calls("look", at="0")
    for number in range(1, 30):
        many += calls("look", at=str(number))
    script: list[Response | str] = [
        calls("look"),
        many,
        calls("look") + calls("look"),
        "Well.",
        "A summary.",
        calls("look"),
        "Done.",
    ]
    model = Kept(Anthropic("claude-opus-5-5"), *map(uncounted, script))
    compaction = Compaction(window=2_800, threshold=0.8, keep_recent=0.05)
    agent = Agent(model, tools=[look], instructions="Be brief.", deferred=deferred, compaction=compaction)
    steered: list[str] = []

    def steer(stream: Any, event: Any) -> None:
        if isinstance(event, ToolCallStarted) and len(steered) < 3:
            steered.append(event.call_id)
            stream.steer(f"And {len(steered)}?")
        if len(steered) == 3 and not stream._run.mailbox.closed and isinstance(event, ToolCallStarted):
            steered.append("long")
            stream.follow_up("bla " * 2_000)

    watched = await watch(agent, on_event=steer)

    assert watched.outcome.output == "Done."
    assert len(model.bodies) == 7
    for wire in model.bodies:
        assert sum(is_marked for _, is_marked in blocks_of(wire)) <= 4
    for before, after in zip(model.bodies, model.bodies[1:], strict=False):
        assert hits(before, after)
    # What is in front stays cached when the conversation was shortened.
    front = [block for block, _ in blocks_of(model.bodies[-2])[:2]]
    assert front == [block for block, _ in blocks_of(model.bodies[0])[:2]]
    assert all(is_marked for _, is_marked in blocks_of(model.bodies[-2])[:2])
