"""An external agent made with the official SDK for Python."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import acp
from acp import schema


class Official:
    def on_connect(self, conn: Any) -> None:
        self._client = conn

    async def initialize(self, protocol_version: int, **_: Any) -> acp.InitializeResponse:
        return acp.InitializeResponse(protocol_version=acp.PROTOCOL_VERSION)

    async def new_session(self, cwd: str, **_: Any) -> acp.NewSessionResponse:
        self._cwd = cwd
        return acp.NewSessionResponse(session_id="official")

    async def prompt(self, prompt: list[Any], session_id: str, **_: Any) -> acp.PromptResponse:
        client, told = self._client, {"prompt": prompt[0].text}
        await client.session_update(session_id, acp.update_agent_message_text("Working. "))
        await client.session_update(session_id, acp.start_tool_call("c1", "Copy", kind="edit", status="pending"))
        options = [
            schema.PermissionOption(option_id="once", name="Allow", kind="allow_once"),
            schema.PermissionOption(option_id="no", name="Reject", kind="reject_once"),
        ]
        call = schema.ToolCallUpdate(tool_call_id="c1", title="Copy")
        answer = await client.request_permission(session_id=session_id, tool_call=call, options=options)
        told["permission"] = answer.outcome.option_id
        read = await client.read_text_file(session_id=session_id, path=f"{self._cwd}/notes")
        told["read"] = read.content
        await client.write_text_file(session_id=session_id, path=f"{self._cwd}/copy", content=read.content)
        await client.session_update(session_id, acp.update_tool_call("c1", status="completed"))
        terminal = await client.create_terminal(session_id=session_id, command="echo", args=["hello"])
        ids = {"session_id": session_id, "terminal_id": terminal.terminal_id}
        told["exit"] = (await client.wait_for_terminal_exit(**ids)).exit_code
        told["terminal"] = (await client.terminal_output(**ids)).output
        await client.release_terminal(**ids)
        await client.session_update(session_id, acp.update_agent_message_text(json.dumps(told)))
        return acp.PromptResponse(stop_reason="end_turn")


# Without the methods of `acp.Agent` that this one does not need.
agent: Any = Official()
asyncio.run(acp.run_agent(agent))
