"""The Python client of ACP talks to ``python -m agentloop acp``, as an editor does."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real_clock

# Only this session of nox has the package.
acp: Any = import_module("acp")

ROOT = Path(__file__).parents[2]


class Editor:
    """Shows nothing, and allows what it is asked."""

    def __init__(self) -> None:
        self.updates: list[Any] = []
        self.permissions: list[Any] = []
        self.asked = asyncio.Event()

    async def request_permission(self, **request: Any) -> Any:
        self.permissions.append(request["tool_call"])
        return acp.RequestPermissionResponse(outcome=acp.schema.AllowedOutcome(outcome="selected", option_id="yes"))

    async def session_update(self, session_id: str, update: Any, **kwargs: Any) -> None:
        self.updates.append(update)
        if update.session_update == "tool_call_update":
            self.asked.set()

    def text(self, kind: str) -> str:
        return "".join(update.content.text for update in self.updates if update.session_update == kind)

    def kinds(self) -> list[str]:
        return [update.session_update for update in self.updates]


def command(store: Path) -> list[str]:
    return ["-m", "agentloop", "acp", "tests.clients.served:agent", "--store", str(store)]


async def talk(store: Path) -> None:
    editor = Editor()
    async with acp.spawn_agent_process(editor, sys.executable, *command(store), cwd=ROOT) as (agent, process):
        started = await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
        assert started.agent_capabilities is not None
        assert started.agent_capabilities.load_session
        session = (await agent.new_session(cwd="/", mcp_servers=[])).session_id
        answer = await agent.prompt(session_id=session, prompt=[acp.text_block("hello")])
        assert answer.stop_reason == "end_turn"
        assert editor.text("agent_message_chunk") == "You said: hello"
        assert editor.text("agent_thought_chunk") == "Hm. "
        editor.updates.clear()
        await agent.prompt(session_id=session, prompt=[acp.text_block("pay")])
        [asked] = editor.permissions
        assert (asked.title, asked.raw_input) == ("pay", {"amount": 5})
        assert editor.text("agent_message_chunk") == "The result is paid 5."
        tool = [update for update in editor.updates if update.session_update.startswith("tool_call")]
        assert [update.status for update in tool] == ["pending", "in_progress", "completed"]
        assert tool[-1].content[0].content.text == "paid 5"
        editor.asked.clear()
        prompt = asyncio.create_task(agent.prompt(session_id=session, prompt=[acp.text_block("slow")]))
        await editor.asked.wait()
        await agent.cancel(session_id=session)
        assert (await prompt).stop_reason == "cancelled"
        with pytest.raises(acp.RequestError, match="no such session"):
            await agent.prompt(session_id="another", prompt=[acp.text_block("hello")])
    assert process.returncode == 0

    editor = Editor()
    async with acp.spawn_agent_process(editor, sys.executable, *command(store), cwd=ROOT) as (agent, process):
        await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
        await agent.load_session(cwd="/", mcp_servers=[], session_id=session)
        assert editor.text("user_message_chunk") == "hellopayslow"
        assert editor.text("agent_message_chunk") == "You said: helloThe result is paid 5."
        assert editor.kinds().count("tool_call") == 2
    assert process.returncode == 0


def test_the_python_client_of_acp_talks_approves_cancels_and_loads(tmp_path: Path) -> None:
    asyncio.run(asyncio.wait_for(talk(tmp_path / "chats.db"), 60))


def test_ctrl_c_ends_the_command_while_the_editor_is_silent(tmp_path: Path) -> None:
    request = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}\n'
    pipe = subprocess.PIPE
    arguments = [sys.executable, *command(tmp_path / "chats.db")]
    with subprocess.Popen(arguments, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(request)
            process.stdin.flush()
            assert b"protocolVersion" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
            assert (process.returncode, errors) == (130, b"")
        finally:
            process.kill()
