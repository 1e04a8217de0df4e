"""The server that the conformance suite looks at: ``python -m tests.conformance.server``, which prints its address.

It is `agentloop.serving.app` with the protocol ``mcp``. Its agents are the tools of the suite wherever the suite wants
what an agent does: answer, fail, report progress, ask. What else the suite wants to see of a server (pictures, logging,
sampling, prompts, resources) are tools and handlers that this file adds to the same server.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import mcp_types as types
import trio
from mcp.server.caching import CacheHint
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata

from agentloop import Agent, ToolContext, serving, tool
from agentloop.messages import ToolResult, user_message
from agentloop.models import ModelRequest
from agentloop.serving._mcp_routes import McpEndpoint
from agentloop.serving._mcp_server import AgentTool, Context
from agentloop.serving.protocols.mcp import ToolCall
from agentloop.testing import FunctionModel, Response, calls, fails

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = base64.b64encode(b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0\x80>\0\0\2\0\x10\0data\0\0\0\0").decode()

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


def form(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


TEXT = {"type": "string"}

# ------------------------------------------------------------------------- tools that are agents


class FixtureTool(AgentTool):
    """An agent as a tool, with arguments of the suite's choice. Their JSON is the prompt."""

    schema: Mapping[str, Any] = NO_ARGUMENTS

    @property
    def description(self) -> Mapping[str, Any]:
        return {"name": self.agent.name, "description": "A fixture.", "inputSchema": self.schema}

    def read(self, arguments: Mapping[str, Any]) -> ToolCall:
        return ToolCall(user_message(json.dumps(arguments)), "")


def saying(name: str, text: str) -> Agent:
    return Agent(FunctionModel(lambda request: text), name=name)


def failing(name: str, text: str) -> Agent:
    return Agent(FunctionModel(lambda request: fails(RuntimeError(text))), name=name)


def working(name: str) -> Agent:
    @tool
    async def step(number: int) -> str:
        """Take a step."""
        await trio.sleep(0.05)
        return f"step {number} is done"

    def respond(request: ModelRequest) -> Response | str:
        done = sum(isinstance(message, ToolResult) for message in request.messages)
        return calls("step", number=done + 1) if done < 2 else "All steps are done."

    return Agent(FunctionModel(respond), name=name, tools=[step])


def asking(name: str, *questions: tuple[str, Mapping[str, Any]]) -> Agent:
    """An agent whose tool asks some questions, one after the other. The message may be that of the call."""

    @tool
    async def ask(message: str, context: ToolContext[Any]) -> str:
        """Ask the user."""
        answers = [await context.ask(text or message, fields) for text, fields in questions]
        return f"completed: {answers}"

    def respond(request: ModelRequest) -> Response | str:
        last = request.messages[-1]
        if isinstance(last, ToolResult):
            return f"Elicitation {last.text}; state-ok"
        return calls("ask", message=json.loads(last.text).get("message", "?"))

    return Agent(FunctionModel(respond), name=name, tools=[ask])


DEFAULTS = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
TITLED = [{"const": f"value{number}", "title": f"Option {number}"} for number in (1, 2, 3)]
PLAIN = ["option1", "option2", "option3"]
CHOICES = {
    "untitledSingle": {"type": "string", "enum": PLAIN},
    "titledSingle": {"type": "string", "oneOf": TITLED},
    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": PLAIN}},
    "titledMulti": {"type": "array", "items": {"anyOf": TITLED}},
}

AGENTS = [
    saying("test_simple_text", "This is a simple text response for testing."),
    saying("test_logging_tool", "No log is sent."),
    saying("test_reconnection", "Done."),
    failing("test_error_handling", "This tool intentionally returns an error for testing"),
    working("test_tool_with_progress"),
    asking("test_elicitation", ("", form(username=TEXT, email=TEXT))),
    asking("test_elicitation_sep1034_defaults", ("Please look", {"type": "object", "properties": DEFAULTS})),
    asking("test_elicitation_sep1330_enums", ("Please choose", {"type": "object", "properties": CHOICES})),
    asking("test_streaming_elicitation", ("Which?", form(name=TEXT))),
    asking("test_input_required_result_request_state", ("Please confirm", form(ok={"type": "boolean"}))),
    asking("test_input_required_result_tampered_state", ("Please confirm", form(ok={"type": "boolean"}))),
    asking(
        "test_input_required_result_multi_round",
        ("Step 1: What is your name?", form(name=TEXT)),
        ("Step 2: What is your favorite color?", form(color=TEXT)),
    ),
]

# ---------------------------------------------------------------------------------- other tools

Answer: TypeAlias = Callable[[Context, types.CallToolRequestParams], Awaitable[Mapping[str, Any]]]


class PlainTool:
    """A tool that is no agent."""

    def __init__(self, name: str, answer: Answer, schema: Mapping[str, Any] = NO_ARGUMENTS) -> None:
        self.description: Mapping[str, Any] = {"name": name, "description": "A fixture.", "inputSchema": schema}
        self._answer = answer

    async def call(self, context: Context, params: types.CallToolRequestParams) -> Mapping[str, Any]:
        return await self._answer(context, params)


def content(*blocks: Mapping[str, Any]) -> dict[str, Any]:
    return {"resultType": "complete", "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def resource(uri: str, kind: str, words: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": words}}


IMAGE = {"type": "image", "data": PNG, "mimeType": "image/png"}


def showing(name: str, *blocks: Mapping[str, Any]) -> PlainTool:
    async def answer(context: Context, params: types.CallToolRequestParams) -> Mapping[str, Any]:
        await trio.lowlevel.checkpoint()
        return content(*blocks)

    return PlainTool(name, answer)


async def log(context: Context, params: types.CallToolRequestParams) -> Mapping[str, Any]:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        sent = types.LoggingMessageNotificationParams(level="info", data=words)
        await context.session.send_notification(
            types.LoggingMessageNotification(params=sent), related_request_id=context.request_id
        )
    return content(text("logged"))


def sampling(words: str, tokens: int = 100) -> dict[str, Any]:
    message = {"role": "user", "content": text(words)}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": tokens}}


async def sample(context: Context, params: types.CallToolRequestParams) -> Mapping[str, Any]:
    request = types.CreateMessageRequest.model_validate(sampling((params.arguments or {})["prompt"]))
    related = ServerMessageMetadata(related_request_id=context.request_id)
    result = await context.session.send_request(request, types.CreateMessageResult, metadata=related)
    return content(text(f"LLM response: {result.content}"))


async def need_sampling(context: Context, params: types.CallToolRequestParams) -> Mapping[str, Any]:
    await trio.lowlevel.checkpoint()
    capabilities = context.session.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        needed: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "the client has no sampling", data=needed)
    return content(text("sampling"))


def elicitation(message: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": fields}}


NAME = elicitation("What is your name?", form(name=TEXT))
ROOTS: dict[str, Any] = {"method": "roots/list", "params": {}}


def needing(name: str, state: str | None, **requests: Mapping[str, Any]) -> PlainTool:
    """A tool that needs answers to ``requests``, or to those that the client can answer."""

    async def answer(context: Context, params: types.CallToolRequestParams) -> Mapping[str, Any]:
        await trio.lowlevel.checkpoint()
        return required(context, params, state, requests) or content(text(f"Thanks for {sorted(requests)}."))

    return PlainTool(name, answer)


def required(
    context: Context,
    params: types.CallToolRequestParams | types.GetPromptRequestParams,
    state: str | None,
    requests: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any] | None:
    """The result that asks for what is missing; nothing if nothing is."""
    capabilities = context.session.client_capabilities
    known = {} if capabilities is None else capabilities.model_dump(exclude_none=True)
    usable = {key: request for key, request in requests.items() if request["method"].partition("/")[0] in known}
    if usable.keys() <= (params.input_responses or {}).keys():
        return None
    result: dict[str, Any] = {"resultType": "input_required", "inputRequests": usable}
    return result if state is None else {**result, "requestState": state}


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": TEXT, "city": TEXT}}},
    "properties": {"name": TEXT, "address": {"$ref": "#/$defs/address"}, "phone": TEXT, "email": TEXT},
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"required": ["name"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def with_schema(name: str, schema: Mapping[str, Any]) -> PlainTool:
    return PlainTool(name, showing(name, text("done")).call, schema)


TOOLS = [
    showing("test_image_content", IMAGE),
    showing("test_audio_content", {"type": "audio", "data": WAV, "mimeType": "audio/wav"}),
    showing(
        "test_embedded_resource",
        resource("test://embedded-resource", "text/plain", "This is an embedded resource content."),
    ),
    showing(
        "test_multiple_content_types",
        text("Multiple content types test:"),
        IMAGE,
        resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ),
    PlainTool("test_tool_with_logging", log),
    PlainTool("test_sampling", sample, form(prompt=TEXT)),
    PlainTool("test_missing_capability", need_sampling),
    with_schema("json_schema_2020_12_tool", SCHEMA),
    with_schema("test_headers", form(region={"type": "string", "x-mcp-header": "Region"})),
    needing("test_input_required_result_elicitation", None, user_name=NAME),
    needing("test_input_required_result_sampling", None, capital_question=sampling("What is the capital of France?")),
    needing("test_input_required_result_list_roots", None, client_roots=ROOTS),
    needing(
        "test_input_required_result_multiple_inputs",
        "state",
        user_name=NAME,
        greeting=sampling("Generate a greeting", 50),
        client_roots=ROOTS,
    ),
    needing("test_input_required_result_capabilities", None, user_name=NAME, greeting=sampling("Generate a greeting")),
]

# ------------------------------------------------------------------------ prompts and resources


def said(*blocks: Mapping[str, Any]) -> dict[str, Any]:
    messages = [{"role": "user", "content": block} for block in blocks]
    return {"resultType": "complete", "messages": messages}


CONTEXT = elicitation("What context should the prompt use?", form(context=TEXT))
PROMPTS: dict[str, list[str]] = {
    "test_simple_prompt": [],
    "test_prompt_with_arguments": ["arg1", "arg2"],
    "test_prompt_with_embedded_resource": ["resourceUri"],
    "test_prompt_with_image": [],
    "test_input_required_result_prompt": [],
}


async def list_prompts(context: Context, params: types.PaginatedRequestParams) -> types.ListPromptsResult:
    await trio.lowlevel.checkpoint()
    arguments = {
        name: [types.PromptArgument(name=argument, required=True) for argument in names]
        for name, names in PROMPTS.items()
    }
    prompts = [
        types.Prompt(name=name, description="A fixture.", arguments=listed) for name, listed in arguments.items()
    ]
    return types.ListPromptsResult(prompts=prompts)


async def get_prompt(context: Context, params: types.GetPromptRequestParams) -> dict[str, Any]:
    await trio.lowlevel.checkpoint()
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            return said(text("This is a simple prompt for testing."))
        case "test_prompt_with_arguments":
            return said(text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"))
        case "test_prompt_with_embedded_resource":
            embedded = resource(given["resourceUri"], "text/plain", "Embedded resource content for testing.")
            return said(embedded, text("Please process the embedded resource above."))
        case "test_prompt_with_image":
            return said(IMAGE, text("Please analyze the image above."))
        case "test_input_required_result_prompt":
            return required(context, params, None, {"user_context": CONTEXT}) or said(text("A prompt with a context."))
        case _:
            raise MCPError(types.INVALID_PARAMS, f"there is no prompt {params.name!r}")


RESOURCES: dict[str, dict[str, str]] = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    "test://watched-resource": {"mimeType": "text/plain", "text": "It never changes."},
}
TEMPLATE = "test://template/{id}/data"


async def list_resources(context: Context, params: types.PaginatedRequestParams) -> types.ListResourcesResult:
    await trio.lowlevel.checkpoint()
    resources = [
        types.Resource(
            uri=uri, name=uri.removeprefix("test://"), description="A fixture.", mime_type=fields["mimeType"]
        )
        for uri, fields in RESOURCES.items()
    ]
    return types.ListResourcesResult(resources=resources)


async def list_templates(context: Context, params: types.PaginatedRequestParams) -> types.ListResourceTemplatesResult:
    await trio.lowlevel.checkpoint()
    template = types.ResourceTemplate(name="template", uri_template=TEMPLATE, description="A fixture.")
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(context: Context, params: types.ReadResourceRequestParams) -> dict[str, Any]:
    await trio.lowlevel.checkpoint()
    head, _, tail = TEMPLATE.partition("{id}")
    if params.uri.startswith(head) and params.uri.endswith(tail):
        id = params.uri.removeprefix(head).removesuffix(tail)
        data = {"id": id, "templateTest": True, "data": f"Data for ID: {id}"}
        fields = {"mimeType": "application/json", "text": json.dumps(data)}
    elif params.uri in RESOURCES:
        fields = RESOURCES[params.uri]
    else:
        raise MCPError(types.INVALID_PARAMS, "Resource not found", data={"uri": params.uri})
    return {"resultType": "complete", "contents": [{"uri": params.uri, **fields}]}


async def complete(context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    await trio.lowlevel.checkpoint()
    values = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


async def nothing(context: Context, params: types.RequestParams) -> types.EmptyResult:
    await trio.lowlevel.checkpoint()
    return types.EmptyResult()


HANDLERS: list[tuple[str, type[types.RequestParams], Any]] = [
    ("prompts/list", types.PaginatedRequestParams, list_prompts),
    ("prompts/get", types.GetPromptRequestParams, get_prompt),
    ("resources/list", types.PaginatedRequestParams, list_resources),
    ("resources/templates/list", types.PaginatedRequestParams, list_templates),
    ("resources/read", types.ReadResourceRequestParams, read_resource),
    ("resources/subscribe", types.SubscribeRequestParams, nothing),
    ("resources/unsubscribe", types.UnsubscribeRequestParams, nothing),
    ("logging/setLevel", types.SetLevelRequestParams, nothing),
    ("completion/complete", types.CompleteRequestParams, complete),
]


def make_app() -> serving.ServedApp:
    app = serving.app(AGENTS, protocols=["mcp"])
    endpoint = app._mcp
    assert isinstance(endpoint, McpEndpoint)
    offered = endpoint.tools
    for agent in AGENTS:
        fixture = FixtureTool(app._service, agent.name, agent.name, agent, is_answered_elsewhere=False)
        if agent.name == "test_elicitation":
            fixture.schema = form(message=TEXT)
        offered.tools[agent.name] = fixture
    offered.tools.update({str(plain.description["name"]): plain for plain in TOOLS})
    for method, kind, handler in HANDLERS:
        offered.server.add_request_handler(method, kind, handler)
        if method.endswith(("list", "read")):
            offered.server.cache_hints[method] = CacheHint(ttl_ms=1000, scope="public")
    return app


async def main() -> None:
    app = make_app()
    async with trio.open_nursery() as nursery:
        address = await nursery.start(partial(serving.run, app, port=0))
        print(address, flush=True)


if __name__ == "__main__":
    trio.run(main)
