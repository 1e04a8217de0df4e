"""kill -9 after every write of a run with parallel tools, a question and a nested agent."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from agentloop import Agent
from agentloop._core.transcript import problems
from agentloop.messages import AssistantMessage, ToolResult
from agentloop.stores import SQLiteStore, stored_session
from agentloop.testing import ScriptedModel

ROOT = Path(__file__).parents[2]
WRITES = 17
"""In the whole run. More than there are would kill nothing, which the test notices."""


@pytest.mark.real_clock
@pytest.mark.seconds(60)
@pytest.mark.parametrize("write", range(1, WRITES + 1))
async def test_killed_after_any_write_the_session_is_valid_and_nothing_ran_twice(write: int, tmp_path: Path) -> None:
    database, effects = tmp_path / "chats.db", tmp_path / "effects"
    effects.write_text("")  # noqa: ASYNC240
    command = [sys.executable, "-m", "tests.stores.crashing", str(database), str(effects), str(write)]
    died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: ASYNC221
    assert died.returncode == -9, died.stderr
    told = [line.split() for line in died.stdout.splitlines()]

    async with SQLiteStore(database).open() as store:
        async with stored_session(store, "ann") as session:
            messages = session.messages
            assert problems(messages) == []
            results = {one.call_id: one for one in messages if isinstance(one, ToolResult)}
            # What a reader was told is there.
            for kind, what in told:
                assert (what in results) if kind == "result" else (int(what) < len(messages))
            # Each side effect once; and of a call that says it did not run, none.
            ran = Counter(effects.read_text().split())  # noqa: ASYNC240
            assert set(ran.values()) <= {1}
            asked = [call for one in messages if isinstance(one, AssistantMessage) for call in one.calls]
            for call in asked:
                keys = [key for key in ran if key.endswith(f"#{call.id}") and key.count(".") == 0]
                if results[call.id].status == "ok" and call.name in ("act", "ask"):
                    assert len(keys) == 1
                if "It did not run" in results[call.id].text:
                    assert keys == []
            # It goes on.
            outcome = await Agent(ScriptedModel("Here again.")).run("Where were we?", session=session)
            assert outcome.output == "Here again."
        async with stored_session(store, "ann") as session:
            assert session.messages[: len(messages)] == messages
