"""The clients of ACP in Python and JavaScript talk to ``python -m agentloop acp``, as editors do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
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


async def pick(store: Path) -> None:
    editor = Editor()
    async with acp.spawn_agent_process(editor, sys.executable, *command(store), cwd=ROOT) as (agent, _):
        await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
        begun = await agent.new_session(cwd="/", mcp_servers=[])
        session = begun.session_id
        assert begun.modes.current_mode_id == "default"
        assert [option.id for option in begun.config_options] == ["mode", "model"]
        chosen = await agent.set_config_option(session_id=session, config_id="model", value="deep")
        assert [option.id for option in chosen.config_options] == ["mode", "model", "thinking"]
        await agent.set_config_option(session_id=session, config_id="thinking", value="high")
        await agent.prompt(session_id=session, prompt=[acp.text_block("Who are you?")])
        assert editor.text("agent_message_chunk") == "I am openai:gpt-5, thinking high."
        [usage] = [update for update in editor.updates if update.session_update == "usage_update"]
        assert (usage.used, usage.size) == (15, 272_000)
        await agent.set_session_mode(session_id=session, mode_id="autonomous")
        await agent.set_config_option(session_id=session, config_id="model", value="default")
        await agent.prompt(session_id=session, prompt=[acp.text_block("pay")])
        assert editor.permissions == []
        assert "config_option_update" in editor.kinds()
        with pytest.raises(acp.RequestError, match="did you mean deep"):
            await agent.set_config_option(session_id=session, config_id="model", value="depe")
        loaded = await agent.load_session(cwd="/", mcp_servers=[], session_id=session)
        assert loaded.modes.current_mode_id == "autonomous"


def test_the_python_client_of_acp_picks_a_model_its_thinking_and_a_mode(tmp_path: Path) -> None:
    asyncio.run(asyncio.wait_for(pick(tmp_path / "chats.db"), 60))


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


def test_the_javascript_client_of_acp_talks_approves_and_cancels(tmp_path: Path) -> None:
    script = Path(shutil.copy(Path(__file__).with_name("acp.mjs"), Path(os.environ["CLIENT_PACKAGES"]).parent))
    arguments = ["node", str(script), sys.executable, *command(tmp_path / "chats.db")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["permissions"] == [["pay", {"amount": 5}]]
    assert (seen["paid"], seen["cancelled"]) == ({"stopReason": "end_turn"}, {"stopReason": "cancelled"})
    assert (seen["version"], seen["refused"], seen["code"]) == (1, -32002, 0)
    first = [[kind, text] for kind, text in seen["updates"][:3]]
    assert first == [["tool_call", "pending"], ["tool_call_update", "in_progress"], ["tool_call_update", "completed"]]
    assert "".join(text for kind, text in seen["updates"] if kind == "agent_message_chunk") == "The result is paid 5."


NOISY = """
import subprocess
from agentloop import Agent
from agentloop.testing import ScriptedModel, calls
from agentloop import tool

@tool
def noisy() -> str:
    "Print, and start a program that reads and prints."
    print("printed by the tool")
    return subprocess.run(["sh", "-c", "cat; echo printed by a program"], check=True).args[0]

agent = Agent(ScriptedModel(calls("noisy"), "done"), tools=[noisy])
"""


def test_only_messages_are_on_the_standard_streams_whatever_tools_print_and_read(tmp_path: Path) -> None:
    (tmp_path / "noisy_agent.py").write_text(NOISY, encoding="utf-8")
    pipe = subprocess.PIPE
    arguments = [sys.executable, "-m", "agentloop", "acp", "noisy_agent:agent"]
    with subprocess.Popen(arguments, cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            messages: list[Any] = []

            def call(method: str, **params: Any) -> Any:
                request = {"jsonrpc": "2.0", "id": method, "method": method, "params": params}
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                while not messages or messages[-1].get("id") != method:
                    messages.append(json.loads(process.stdout.readline()))
                assert "result" in messages[-1], messages[-1]
                return messages[-1]["result"]

            session = call("session/new")["sessionId"]
            prompt = [{"type": "text", "text": "hello"}]
            assert call("session/prompt", sessionId=session, prompt=prompt) == {"stopReason": "end_turn"}
            rest, errors = process.communicate(timeout=20)
            assert (process.returncode, rest) == (0, b"")
            assert b"printed by a program" in errors
            assert b"printed by the tool" in errors
        finally:
            process.kill()
