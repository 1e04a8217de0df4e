"""Servers say things twice, and offer what cannot be called: what the reference servers do, and ours may too."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp_types import (
    CallToolResult,
    ContentBlock,
    ImageContent,
    ListToolsResult,
    TextContent,
    Tool,
    ToolExecution,
)

from agentloop.mcp import McpServer
from agentloop.messages import Image, Text, UserPart
from agentloop.testing import ScriptedModel, calls
from tests.mcp.support import agent_with, results, watched

IMAGE = ImageContent(data="iVBORw==", mime_type="image/png")
PNG = Image(data=b"\x89PNG", media_type="image/png")


@pytest.mark.parametrize(
    ("content", "structured", "parts"),
    [
        ([TextContent(text="a\nb")], {"content": "a\nb"}, [Text("a\nb")]),
        (
            [IMAGE],
            {"content": [{"type": "image", "data": "iVBORw==", "mimeType": "image/png"}]},
            [PNG],
        ),
        # It says something else, or more.
        ([TextContent(text="a")], {"content": "b"}, [Text("a"), Text('{"content":"b"}')]),
        ([TextContent(text="a")], {"content": "a", "more": 1}, [Text("a"), Text('{"content":"a","more":1}')]),
        ([IMAGE], {"content": []}, [PNG, Text('{"content":[]}')]),
    ],
)
async def test_structured_content_that_only_wraps_what_is_said_anyway_is_left_out(
    content: list[ContentBlock], structured: dict[str, Any], parts: list[UserPart]
) -> None:
    server = MCPServer("wrapper", log_level="CRITICAL")

    @server.tool()
    async def read() -> CallToolResult:
        """Read."""
        return CallToolResult(content=content, structured_content=structured)

    seen = await watched(McpServer.in_process(server), calls("read"))
    assert list(results(seen)["read"].parts) == parts


async def test_a_tool_that_can_only_be_called_as_a_task_is_not_offered() -> None:
    def listed(name: str, support: Any) -> Tool:
        return Tool(name=name, input_schema={"type": "object"}, execution=ToolExecution(task_support=support))

    async def list_tools(context: object, params: object) -> ListToolsResult:
        return ListToolsResult(
            tools=[listed("never", "forbidden"), listed("may", "optional"), listed("must", "required")]
        )

    model = ScriptedModel("done")
    server = McpServer.in_process(Server("tasks", on_list_tools=list_tools), mode="legacy")
    await agent_with(server).replace(model=model).run("go")
    assert [spec.name for spec in model.requests[0].tools] == ["never", "may"]
