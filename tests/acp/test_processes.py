"""Other agents as processes: how they fail, with the command and its last words, and that nothing of them is left."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import Approve, UsageError
from agentloop.acp import ExternalAgent, _peer
from agentloop.errors import ModelConnectionError, ModelError, ModelProtocolError
from agentloop.events import ApprovalRequested, TextDelta
from tests.mcp.support import until_gone
from tests.support import of, watch

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

PROGRAMS = Path(__file__).parent / "programs"


def raw(*habits: str, **options: Any) -> ExternalAgent:
    """The agent with bad habits, as a process that starts at once."""
    return ExternalAgent("raw", [sys.executable, "-I", "-S", str(PROGRAMS / "raw.py"), *habits], **options)


@pytest.mark.parametrize(
    ("habit", "kind", "words"),
    [
        ("dies-at-start", ModelConnectionError, "exited with code 3.*ended with: warming up / the disk is full"),
        ("hangs-at-start", ModelError, r"was not ready within 0\.5 s; its stderr ended with: waiting for a licence"),
        ("wrong-version", ModelProtocolError, "speaks version 7 of ACP, and agentloop version 1"),
        ("needs-sign-in", ModelError, r"needs a sign-in.*Log in with the browser \(run `raw login`\)"),
        ("dies", ModelConnectionError, "exited with code 4.*the disk is full"),
        ("breaks-off", ModelConnectionError, "wrote a message that is not JSON: {.jsonrpc.: .2.0., .id.: 3"),
    ],
)
async def test_a_process_that_fails_ends_the_run_with_its_command_and_its_last_words(
    habit: str, kind: type[ModelError], words: str
) -> None:
    with pytest.raises(kind, match=f"external agent 'raw' .the command `.*raw.py {habit}`. .*{words}"):
        await raw(habit, start_timeout=0.5 if habit == "hangs-at-start" else 60).run("go")


async def test_a_program_that_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(ModelConnectionError, match=r"`/no/such/program --acp`. cannot be started: No such file"):
        await ExternalAgent("x", ["/no/such/program", "--acp"]).run("go")


async def test_errors_show_no_secrets_of_the_command_and_nothing_that_drives_a_terminal() -> None:
    key = "sk-ant-abcdefghijklmnopqrstuvwxyz"
    with pytest.raises(ModelConnectionError) as caught:
        await raw("dies", "--api-key", key, f"--say={chr(27)}[2J", env={"KEY": key}).run("go")
    assert key not in str(caught.value)
    assert "raw.py dies --api-key" in str(caught.value)
    assert chr(27) not in str(caught.value)


async def test_a_line_without_an_end_is_not_gathered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_peer, "MAX_LINE", 1_000_000)
    with pytest.raises(ModelConnectionError, match="wrote a line of more than 1000000 bytes"):
        await raw("long-line").run("go")


async def test_what_is_no_message_is_passed_over_and_halves_of_characters_are_mended() -> None:
    assert (await raw("prints", "halves").run("go")).output == "?!"
    with pytest.raises(ModelConnectionError, match=r"its output began with .Welcome to raw 1\.0!., which is not"):
        await raw("prints", "dies").run("go")


async def test_a_run_that_is_cancelled_leaves_no_process_and_no_child_of_it() -> None:
    pids: list[int] = []
    with trio.CancelScope() as scope:
        async with raw("child", "hangs").stream("go") as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    pids = list(map(int, event.text.split()))
                    scope.cancel()
    assert len(pids) == 2
    for pid in pids:
        await until_gone(pid)


async def test_an_agent_of_the_official_sdk_talks_asks_reads_and_runs_commands(tmp_path: Path) -> None:
    pytest.importorskip("acp")
    tmp_path.joinpath("notes").write_text("remember", encoding="utf-8")
    agent = ExternalAgent("sdk", [sys.executable, str(PROGRAMS / "official.py")], folder=tmp_path)

    async def approve(question: Any) -> Approve:
        await trio.lowlevel.checkpoint()
        assert isinstance(question, ApprovalRequested)
        asked.append(question.name)
        return Approve()

    asked: list[str] = []
    watched = await watch(agent, "Please.", on_question=approve)

    assert watched.stream.outcome.reason == "completed", watched.stream.outcome.detail
    assert asked == ["external_tool", "write_file", "shell"]
    assert json.loads(watched.stream.result.output) == {
        "prompt": "Please.",
        "read": "remember",
        "permission": "once",
        "terminal": "hello\n",
        "exit": 0,
    }
    assert tmp_path.joinpath("copy").read_text(encoding="utf-8") == "remember"
    assert of(watched.events, TextDelta)[0].text == "Working. "


async def test_another_agentloop_is_an_external_agent_and_its_question_is_answered_through_both() -> None:
    command = [sys.executable, "-m", "agentloop", "acp", "tests.acp.programs.ours:agent"]
    agent = ExternalAgent("ours", command, folder=Path(__file__).parents[2])
    asked: list[Any] = []

    async def approve(question: Any) -> Approve:
        await trio.lowlevel.checkpoint()
        asked.append(question)
        return Approve()

    watched = await watch(agent, "Pay 5.", on_question=approve)
    assert watched.stream.outcome.reason == "completed", watched.stream.outcome.detail
    assert watched.stream.result.output == "I have paid 5."
    [question] = asked
    assert (question.name, question.arguments["input"]) == ("external_tool", {"amount": 5})


def test_arguments_that_cannot_be_are_refused_where_they_are_written() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"command": "npx x"}, "as a list of texts"),
        ({}, "give either a command, or connect="),
        ({"command": ["x", ""]}, "some text"),
        ({"command": ["x"], "start_timeout": 0}, "seconds above 0"),
        ({"command": ["x"], "tools": []}, "the program has its own"),
        ({"command": ["x"], "mcp_servers": [{"command": "y"}]}, "a dict with a name"),
        ({"command": ["x"], "mcp_servers": [{"name": "y"}]}, "a command or a url"),
        ({"command": ["x"], "folder": "/no/such/folder"}, "is no folder"),
    ]
    for options, words in wrong:
        with pytest.raises(UsageError, match=words):
            ExternalAgent("x", **options)


def test_a_copy_of_an_external_agent_is_one() -> None:
    agent = ExternalAgent("x", ["secret-program"], env={"KEY": "secret"})
    copy = agent.replace(name="y", instructions="Be brief.")
    assert (type(copy), copy.name, copy.model) == (ExternalAgent, "y", agent.model)
    assert "secret" not in repr(agent)


async def test_a_program_cannot_read_the_keys_of_the_process_that_has_started_it(tmp_path: Path) -> None:
    """Not even in the memory that has the environment with which that process was started."""
    script = tmp_path / "host.py"
    script.write_text(
        "import os, trio\n"
        "from agentloop.acp import ExternalAgent\n"
        "from agentloop.errors import ModelError\n"
        "line = 'cat /proc/%d/environ /proc/$PPID/environ > seen' % os.getpid()\n"
        "try:\n"
        "    trio.run(ExternalAgent('x', ['/bin/sh', '-c', line]).run, 'go')\n"
        "except ModelError:\n"
        "    pass\n"
    )
    environment = {**os.environ, "A_KEY": "xyzzy", "PYTHONPATH": str(Path(__file__).parents[2])}
    await trio.run_process([sys.executable, str(script)], cwd=tmp_path, env=environment)
    seen = (tmp_path / "seen").read_bytes()
    assert b"A_KEY=" in seen
    assert b"xyzzy" not in seen
