"""A run of a file's team is parked, and goes on with the team that another process has made of the same file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from agentloop.declarative import LoadedTeam, load_team
from agentloop.events import ApprovalRequested
from agentloop.questions import Approve
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel, calls

pytestmark = [pytest.mark.real_clock, pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")]

TEAM = """\
agents:
  root:
    model: a/front
    handoffs: [lead]
  lead:
    model: a/lead
    sub_agents: [worker]
    toolsets: [{type: todo, shared: true}]
  worker:
    model: a/worker
    description: Works
    toolsets: [{type: shell}, {type: todo, shared: true}]
    structured_output: {name: report, schema: {type: object, properties: {done: {type: boolean}}, required: [done]}}
"""


def team_of(folder: Path, front: list[Any], lead: list[Any], worker: list[Any]) -> LoadedTeam:
    models = {"a/front": ScriptedModel(*front), "a/lead": ScriptedModel(*lead), "a/worker": ScriptedModel(*worker)}
    return load_team(TEAM, models=models, folder=folder)


async def test_an_approval_of_a_sub_agent_after_a_handoff_is_given_in_another_process(tmp_path: Path) -> None:
    before = team_of(
        tmp_path,
        [calls("handoff", agent="lead")],
        [calls("create_todos", descriptions=["Work"]), calls("transfer_task", agent="worker", task="Work!")],
        [calls("shell", cmd="echo worked >> log")],
    )
    after = team_of(
        tmp_path,
        [],
        ["All is done.", "Nothing else."],
        [calls("list_todos"), '{"done": true}'],
    )
    async with MemoryStore().open() as store:
        async with stored_session(store, "ann") as session, before.stream("Go!", session=session) as stream:
            async for event in stream:
                if isinstance(event, ApprovalRequested):
                    stream.park()
        assert not tmp_path.joinpath("log").exists()
        async with stored_session(store, "ann") as session:
            [question] = session.questions
            outcome = await after.resume(session, {question.id: Approve()})
            assert outcome.output == "All is done."
            assert (await after.run("And now?", session=session)).output == "Nothing else."
    assert tmp_path.joinpath("log").read_text() == "worked\n"
    worker = after.all_agents["worker"].model
    assert isinstance(worker, ScriptedModel)
    assert "1 [pending] Work" in worker.requests[-1].messages[-1].text
