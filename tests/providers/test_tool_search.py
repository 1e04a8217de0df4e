"""Deferred tools on each wire: what is asked, what is read, what it costs, and how much of it a cache has."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from agentloop import Agent, Deferred, Tool
from agentloop._core.call_tool import Lowering
from agentloop._core.deferred import result_text
from agentloop._core.tokens import tokens_of_text
from agentloop.deferred import CALL_TOOL, FIND_TOOLS
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, UserMessage
from agentloop.models import ModelRequest, Reply, Stop, ToolSpec
from agentloop.providers._tool_search import claude_has_tool_search, gpt_has_tool_search
from agentloop.providers._wire_model import EncodedRequest, WireModel
from agentloop.providers._writing import ResponseWriter
from agentloop.providers.anthropic import Anthropic
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.providers.openai_responses import OpenAIResponses
from agentloop.testing import Response, ScriptedModel, calls
from agentloop.tools import JsonArguments
from tests.providers.chat import ask
from tests.providers.responses import told, whole
from tests.providers.server import answering, serving

CLAUDE = Anthropic("claude-opus-5-5")
GPT = OpenAIResponses("gpt-5.5")
CHAT = OpenAIChat("some-model", base_url="http://localhost/v1")

ADD = ToolSpec("add", "Add.", {"type": "object", "properties": {"a": {"type": "integer"}}})
FIND = ToolSpec(FIND_TOOLS, "Find.", {"type": "object", "properties": {"query": {"type": "string"}}})
MAIL = ToolSpec("mail", "Send a mail.", {"type": "object", "properties": {"to": {"type": "string"}}}, deferred=True)
GONE = ToolSpec("gone", "Not there any more.", {"type": "object"})
TOOLS = (ADD, FIND, MAIL)
FOUND = ToolResult("c1", FIND_TOOLS, (Text(result_text([MAIL, GONE])),))
CONVERSATION: tuple[Message, ...] = (
    UserMessage((Text("Mail Ann."),)),
    AssistantMessage((ToolCall("c1", FIND_TOOLS, '{"query":"mail"}'),)),
    FOUND,
    AssistantMessage((ToolCall("c2", "mail", '{"to":"Ann"}'), ToolCall("c3", "add", '{"a":1}'))),
    ToolResult("c2", "mail", (Text("sent"),)),
    ToolResult("c3", "add", (Text("1"),)),
)
MARK = {"type": "ephemeral"}


def body(model: WireModel, *messages: Message, tools: tuple[ToolSpec, ...] = TOOLS, **fields: Any) -> Any:
    return msgspec.json.decode(model.body_of(ModelRequest(messages, tools=tools, **fields)))


# -------------------------------------------------------------------------------- Anthropic


def test_anthropic_gets_deferred_tools_marked_and_last_and_caches_those_before_them() -> None:
    wire = body(CLAUDE, *CONVERSATION)

    assert CLAUDE.has_tool_search
    assert wire["tools"] == [
        {"name": "add", "description": "Add.", "input_schema": ADD.parameters},
        {"name": FIND_TOOLS, "description": "Find.", "input_schema": FIND.parameters, "cache_control": MARK},
        {"name": "mail", "description": "Send a mail.", "input_schema": MAIL.parameters, "defer_loading": True},
    ]


def test_anthropic_gets_references_of_what_was_found_and_is_still_there() -> None:
    [_, asked, found, called, *_] = body(CLAUDE, *CONVERSATION)["messages"]

    assert asked["content"] == [{"type": "tool_use", "id": "c1", "name": FIND_TOOLS, "input": {"query": "mail"}}]
    [result] = found["content"]
    assert result["content"] == [{"type": "tool_reference", "tool_name": "mail"}]
    assert [block["name"] for block in called["content"]] == ["mail", "add"]


def test_anthropic_gets_the_words_of_a_search_that_loaded_nothing() -> None:
    for result in (
        ToolResult("c1", FIND_TOOLS, (Text(result_text([], "zebra")),)),
        ToolResult("c1", FIND_TOOLS, (Text(result_text([GONE])),)),
        ToolResult("c1", FIND_TOOLS, (Text("Denied."),), "denied"),
        ToolResult("c1", FIND_TOOLS, (Text("[left out]"),)),
    ):
        [block] = body(CLAUDE, *CONVERSATION[:2], result)["messages"][-1]["content"]
        assert [part["type"] for part in block["content"]] == ["text"]


async def test_a_result_is_encoded_again_when_the_tools_change() -> None:
    encoded = EncodedRequest()

    def messages(*tools: ToolSpec) -> Any:
        request = ModelRequest(CONVERSATION, tools=tools)
        writer = ResponseWriter(None, model="m")  # type: ignore[arg-type]
        return msgspec.json.decode(CLAUDE._format.exchange(request, encoded, name="m", writer=writer)[0])["messages"]

    gone = ToolSpec("gone", "", GONE.parameters, deferred=True)
    assert len(messages(ADD, FIND, MAIL)[2]["content"][0]["content"]) == 1
    assert len(messages(ADD, FIND, MAIL, gone)[2]["content"][0]["content"]) == 2


# ------------------------------------------------------------------------------- Responses


def test_openai_gets_the_search_in_front_and_the_tools_with_its_results() -> None:
    wire = body(GPT, *CONVERSATION)

    assert GPT.has_tool_search
    add = {"type": "function", "name": "add", "description": "Add.", "parameters": ADD.parameters, "strict": False}
    assert wire["tools"] == [
        add,
        {"type": "tool_search", "execution": "client", "description": "Find.", "parameters": FIND.parameters},
    ]
    found = [
        {
            "type": "function",
            "name": spec.name,
            "description": spec.description,
            "parameters": {"properties": {}, **spec.parameters},
            "strict": False,
            "defer_loading": True,
        }
        for spec in (MAIL, GONE)
    ]
    items = wire["input"]
    fields = {"call_id": "c1", "execution": "client", "status": "completed"}
    assert items[1] == {"type": "tool_search_call", **fields, "arguments": {"query": "mail"}}
    [namespace] = items[2].pop("tools")
    assert items[2] == {"type": "tool_search_output", **fields}
    assert namespace["type"] == "namespace"
    assert [tool["name"] for tool in namespace["tools"]] == ["mail", "gone"]
    assert namespace["tools"][0] == found[0]
    # A call of a tool in a namespace is refused without it.
    assert [item.get("namespace") for item in items[3:5]] == [namespace["name"], None]


def test_openai_reads_why_nothing_was_loaded() -> None:
    denied = ToolResult("c1", FIND_TOOLS, (Text("Denied."),), "denied")
    [*_, output, words] = body(GPT, *CONVERSATION[:2], denied)["input"]

    assert output["tools"] == []
    assert words == {"type": "message", "role": "user", "content": "[find_tools: Denied.]"}


def test_without_deferred_tools_a_tool_of_that_name_is_as_any() -> None:
    for model in (CLAUDE, GPT):
        wire = msgspec.json.encode(body(model, *CONVERSATION, tools=(ADD, FIND))).decode()
        assert "tool_search" not in wire
        assert "tool_reference" not in wire
        assert "defer_loading" not in wire


@pytest.mark.real_clock
@pytest.mark.parametrize("arguments", [{"query": "mail"}, '{"query":"mail"}'])
async def test_a_search_that_openai_asks_for_is_a_call_of_find_tools(arguments: Any) -> None:
    item = {"id": "tsc_1", "type": "tool_search_call", "call_id": "c1", "execution": "client", "status": "completed"}
    begun = told("response.output_item.added", output_index=0, item={**item, "arguments": {}, "status": "in_progress"})
    done = told("response.output_item.done", output_index=0, item={**item, "arguments": arguments})
    inner = {"id": "fc_1", "type": "function_call", "call_id": "c2", "name": "mail", "namespace": "loaded"}
    call = told("response.output_item.done", output_index=1, item={**inner, "arguments": "{}"})
    for events in ((begun, done, call), (done, call), ()):
        output = [{**item, "arguments": arguments}, {**inner, "arguments": "{}"}]
        async with serving(answering(whole(*events, output=output))) as server:
            model = OpenAIResponses("gpt-5.5", base_url=server.url, tool_search=True)
            heard = await ask(model, ModelRequest(CONVERSATION[:1], tools=TOOLS))
        assert [(part.id, part.name, part.arguments) for part in heard.calls] == [
            ("c1", FIND_TOOLS, '{"query":"mail"}'),
            ("c2", "mail", "{}"),
        ]


# -------------------------------------------------------------------------------- elsewhere


def test_other_models_get_call_tool() -> None:
    assert not CHAT.has_tool_search
    wire = msgspec.json.decode(CHAT.body_of(Lowering().lowered(ModelRequest(CONVERSATION, tools=TOOLS))))

    assert [tool["function"]["name"] for tool in wire["tools"]] == ["add", FIND_TOOLS, CALL_TOOL]
    functions = [call["function"] for message in wire["messages"] for call in message.get("tool_calls", ())]
    assert functions[1] == {"name": CALL_TOOL, "arguments": '{"name":"mail","arguments":{"to":"Ann"}}'}
    assert functions[2] == {"name": "add", "arguments": '{"a":1}'}
    assert wire["messages"][2]["content"] == FOUND.text


@pytest.mark.parametrize(
    ("model", "has"),
    [
        (OpenAIResponses("gpt-5.4"), True),
        (OpenAIResponses("gpt-5.4-mini"), True),
        (OpenAIResponses("gpt-6"), True),
        (OpenAIResponses("gpt-5.5", base_url="https://me.openai.azure.com/openai/v1"), True),
        (OpenAIResponses("gpt-5.5", base_url="http://localhost:8000/v1"), False),
        (OpenAIResponses("gpt-5.5", base_url="http://localhost:8000/v1", tool_search=True), True),
        (OpenAIResponses("gpt-5.5", tool_search=False), False),
        (OpenAIResponses("gpt-5"), False),
        (OpenAIResponses("gpt-4.1"), False),
        (OpenAIResponses("o3"), False),
        (Anthropic("claude-sonnet-4-5"), True),
        (Anthropic("claude-opus-5-5"), True),
        (Anthropic("claude-sonnet-4"), False),
        (Anthropic("claude-3-5-haiku-latest"), False),
        (Anthropic("claude-opus-5-5", base_url="https://gateway.example/anthropic.com"), False),
        (Anthropic("claude-opus-5-5", base_url="https://gateway.example", tool_search=True), True),
        (OpenAIChat("gpt-5.5"), False),
    ],
)
def test_the_host_and_the_name_say_whether_a_model_has_a_tool_search(model: WireModel, has: bool) -> None:
    assert model.has_tool_search is has


def test_odd_urls_have_none() -> None:
    for url in ("", "anthropic.com", "https://api.anthropic.com.evil.example/", "https://evil.example/@anthropic.com"):
        assert not claude_has_tool_search("claude-opus-5-5", url)
        assert not gpt_has_tool_search("gpt-5.5", url)
    assert claude_has_tool_search("anthropic/claude-opus-5-5", "https://api.anthropic.com/v1")


# ----------------------------------------------------------------- what it costs: 178 tools

WORDS = [
    "create",
    "list",
    "get",
    "update",
    "delete",
    "search",
    "archive",
    "assign",
    "close",
    "comment",
    "merge",
    "move",
    "rename",
    "share",
    "tag",
    "watch",
]
THINGS = [
    "issue",
    "page",
    "file",
    "calendar",
    "event",
    "mail",
    "contact",
    "branch",
    "release",
    "invoice",
    "ticket",
    "report",
]
WINDOW = 200_000
TURNS = 50


def many_tools(count: int = 178) -> list[Tool]:
    """Tools as servers have them: of about 300 tokens each."""

    async def run(**arguments: Any) -> str:
        return "done: " + "the result, in some words. " * 3

    tools: list[Tool] = []
    for number in range(count):
        word, thing = WORDS[number % len(WORDS)], THINGS[number // len(WORDS)]
        name = f"{thing}s_{word}_{thing}"
        about = f"{word.capitalize()} a {thing} of the workspace. "
        properties = {
            f"{field}": {"type": "string", "description": f"The {field} of the {thing}, as the {thing} page shows it."}
            for field in ("id", "title", "owner", "state", "labels", "since", "until", "project")
        }
        schema = {"type": "object", "properties": properties, "required": ["id"], "additionalProperties": False}
        text = about + f"Use it if the user asks to {word} a {thing}. It needs the id. " * 3
        tools.append(Tool(name=name, description=text, function=run, arguments=JsonArguments(schema)))
    return tools


class Wired:
    """A model that answers by a script, and keeps the bodies in which an adapter would have sent the requests."""

    def __init__(self, wire: WireModel, script: list[Response | str]) -> None:
        self.name = wire.name
        self.has_tool_search = wire.has_tool_search
        self._wire, self._script = wire, ScriptedModel(*script)
        self.bodies: list[Any] = []

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        self.bodies.append(msgspec.json.decode(self._wire.body_of(request)))
        return await self._script.respond(request, reply)


def as_read(body: Any) -> str:
    """The body in the order in which the model reads it, without marks for caches and tools that are not loaded."""
    tools = [tool for tool in body.get("tools", []) if not tool.get("defer_loading")]
    front = [tools, body.get("system"), body.get("instructions")]
    text = msgspec.json.encode([*front, *body.get("messages", body.get("input"))]).decode()
    return re.sub(r',"cache_control":\{"type":"ephemeral"\}', "", text)


def common(one: str, other: str) -> int:
    """The length of the longest common prefix."""
    length = min(len(one), len(other))
    return next((index for index in range(length) if one[index] != other[index]), length)


async def fifty_turns(wire: WireModel) -> Wired:
    tools = many_tools()
    script: list[Response | str] = []
    for turn in range(TURNS - 1):
        tool = tools[turn // 5 * 17]
        if turn % 5 == 0:
            script.append(calls(FIND_TOOLS, query=tool.name))
        elif wire.has_tool_search:
            script.append(calls(tool.name, id=f"turn_{turn}"))
        else:
            script.append(calls(CALL_TOOL, name=tool.name, arguments={"id": f"turn_{turn}"}))
    model = Wired(wire, [*script, "Done."])
    agent = Agent(model, tools=tools, deferred=Deferred(), instructions="You help people with their work. " * 20)
    outcome = await agent.run("Hello.")
    assert outcome.output == "Done."
    assert len(model.bodies) == TURNS
    return model


@pytest.mark.parametrize("wire", [CLAUDE, GPT, CHAT, OpenAIResponses("gpt-4.1"), Anthropic("claude-3-5-haiku-latest")])
async def test_with_178_tools_the_first_request_is_small_and_the_cache_has_nearly_all_of_fifty_turns(
    wire: WireModel,
) -> None:
    model = await fifty_turns(wire)
    texts = [as_read(body) for body in model.bodies]

    # The first request, for the one word "hello": under 5 % of the window.
    first = tokens_of_text(texts[0])
    assert first < 0.05 * WINDOW
    # Without deferral it is more than a fifth of the window.
    whole_ = Wired(wire, ["Hello."])
    await Agent(whole_, tools=many_tools()).run("Hello.")
    assert tokens_of_text(as_read(whole_.bodies[0])) > 0.2 * WINDOW
    # At least 95 % of all that the model reads in fifty turns is the beginning of the request before.
    cached = sum(common(one, other) for one, other in pairwise(texts))
    share = cached / sum(map(len, texts))
    assert share >= 0.95, share
    # Each request repeats the whole one before it, but for what closes its list.
    for one, other in pairwise(texts):
        assert common(one, other) >= len(one) - 1
