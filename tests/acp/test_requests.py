"""What another agent asks of its client is decided by the run: permissions, files, commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import Approve, Permissions, Rule, Session
from agentloop.acp import ExternalAgent
from agentloop.errors import ModelError
from agentloop.events import ApprovalRequested, Question, QuestionWithdrawn, ToolCallFinished, ToolCallStarted
from agentloop.outcome import QuestionHandler
from agentloop.permissions import Exact, Glob
from agentloop.questions import Answer, Deny
from tests.acp.support import Fake, Turn
from tests.support import of, watch


def external(fake: Fake, folder: Path | str = "/", **options: Any) -> ExternalAgent:
    return ExternalAgent("other", connect=fake.connect, folder=folder, **options)


def answering(answer: Answer, asked: list[Question] | None = None) -> QuestionHandler:
    async def handle(question: Question) -> Answer:
        await trio.lowlevel.checkpoint()
        if asked is not None:
            asked.append(question)
        return answer

    return handle


async def ask_to_delete(turn: Turn) -> str:
    """Ask for permission, and act on the answer."""
    await turn.begin("c", "Delete it", "pending", rawInput={"path": "x"})
    answer = await turn.may("c", "Delete it", kind="delete")
    await turn.tell("c", "completed" if answer in ("once", "always") else "failed", f"was told {answer}")
    await turn.say(f"Answer: {answer}.")
    return "end_turn"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Approve(), "once"),
        (Approve(always=True), "once"),
        (Deny("no"), "no"),
    ],
)
async def test_a_request_for_permission_is_an_approval_of_our_reader(answer: Answer, told: str) -> None:
    asked: list[Question] = []
    outcome = await external(Fake(ask_to_delete)).run("go", on_question=answering(answer, asked))

    [question] = asked
    assert isinstance(question, ApprovalRequested)
    assert question.name == "external_tool"
    assert question.metadata == {"external": True}
    assert question.arguments["title"] == "Delete it"
    assert question.arguments["input"] == {"path": "x"}
    assert question.arguments["option"] == "once"
    assert [option["kind"] for option in question.arguments["options"]] == ["allow_always", "allow_once", "reject_once"]
    assert outcome.output == f"Answer: {told}."


async def test_a_person_may_choose_another_option_and_change_nothing_else() -> None:
    async def always(question: Question) -> Answer:
        await trio.lowlevel.checkpoint()
        assert isinstance(question, ApprovalRequested)
        return Approve({**question.arguments, "option": "always"})

    async def other(question: Question) -> Answer:
        await trio.lowlevel.checkpoint()
        assert isinstance(question, ApprovalRequested)
        return Approve({**question.arguments, "input": {"path": "y"}})

    assert (await external(Fake(ask_to_delete)).run("go", on_question=always)).output == "Answer: always."
    assert (await external(Fake(ask_to_delete)).run("go", on_question=other)).output == "Answer: no."


async def test_rules_decide_before_a_person_is_asked() -> None:
    asked: list[Question] = []
    for permissions, told in (
        (Permissions(deny=[Rule("external_tool", {"kind": Exact("delete")})]), "no"),
        (Permissions(allow=[Rule("external_tool")]), "once"),
    ):
        agent = external(Fake(ask_to_delete), permissions=permissions)
        outcome = await agent.run("go", on_question=answering(Approve(), asked))
        assert outcome.output == f"Answer: {told}."
    assert asked == []


async def test_nobody_to_ask_means_no() -> None:
    assert (await external(Fake(ask_to_delete)).run("go")).output == "Answer: no."


async def test_a_call_that_the_rules_deny_and_that_is_done_without_asking_ends_the_turn() -> None:
    async def do(turn: Turn) -> str:
        await turn.begin("c", "Delete it", kind="delete")
        await turn.cancelled.wait()
        return "cancelled"

    fake = Fake(do)
    with pytest.raises(ModelError, match="deny 'Delete it', which external agent 'other' does without asking"):
        await external(fake, permissions=Permissions(deny=[Rule("external_tool", {"kind": Exact("delete")})])).run("go")
    assert "session/cancel" in fake.methods()


@pytest.mark.real_clock
async def test_files_are_read_and_written_in_the_folder_alone_and_writing_is_approved(tmp_path: Path) -> None:
    tmp_path.joinpath("in").mkdir()
    tmp_path.joinpath("in", "notes").write_text("one\ntwo\nthree\n", encoding="utf-8")
    tmp_path.joinpath("secret").write_text("no", encoding="utf-8")
    responses: list[dict[str, Any]] = []

    async def work(turn: Turn) -> str:
        folder = tmp_path / "in"
        responses.append(await turn.request("fs/read_text_file", path=str(folder / "notes")))
        responses.append(await turn.request("fs/read_text_file", path=str(folder / "notes"), line=2, limit=1))
        responses.append(await turn.request("fs/write_text_file", path=str(folder / "new"), content="new\n"))
        for path in (tmp_path / "secret", folder / ".." / "secret"):
            responses.append(await turn.request("fs/read_text_file", path=str(path)))
            responses.append(await turn.request("fs/write_text_file", path=str(path), content="hacked"))
        return "end_turn"

    asked: list[Question] = []
    agent = external(Fake(work), tmp_path / "in")
    await agent.run("go", on_question=answering(Approve(), asked))

    assert [response["result"] for response in responses[:3]] == [
        {"content": "one\ntwo\nthree\n"},
        {"content": "two\n"},
        {},
    ]
    assert tmp_path.joinpath("in", "new").read_text(encoding="utf-8") == "new\n"
    assert all("outside of" in response["error"]["message"] for response in responses[3:])
    assert tmp_path.joinpath("secret").read_text(encoding="utf-8") == "no"
    assert [question.name for question in asked if isinstance(question, ApprovalRequested)] == ["write_file"] * 3


@pytest.mark.real_clock
async def test_requests_at_once_are_calls_of_one_turn_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    for name in "abc":
        tmp_path.joinpath(name).write_text(name.replace("c", ""), encoding="utf-8")
    told: dict[str, str] = {}

    async def work(turn: Turn) -> str:
        async def read(name: str) -> None:
            response = await turn.request("fs/read_text_file", path=str(tmp_path / name))
            told[name] = response["result"]["content"]

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(read, name)
        return "end_turn"

    await external(Fake(work), tmp_path).run("go")
    assert told == {"a": "a", "b": "b", "c": ""}


async def test_questions_at_once_are_asked_one_by_one_and_each_gets_its_own_answer() -> None:
    told: dict[str, str] = {}

    async def work(turn: Turn) -> str:
        titles = ("Build", "Push", "Test")
        answers = await turn.may_all(*({"toolCallId": title, "title": title} for title in titles))
        told.update(zip(titles, answers, strict=True))
        # Only now: no answer may wait for the end of a call.
        for title, answer in told.items():
            await turn.tell(title, "completed" if answer == "once" else "failed")
        return "end_turn"

    async def decide(question: Question) -> Answer:
        await trio.lowlevel.checkpoint()
        assert isinstance(question, ApprovalRequested)
        return Deny() if question.arguments["title"] == "Push" else Approve()

    with trio.fail_after(20):
        await external(Fake(work)).run("go", on_question=decide)
    assert told == {"Build": "once", "Push": "no", "Test": "once"}


async def test_what_is_not_offered_or_not_known_gets_an_error_and_no_silence(tmp_path: Path) -> None:
    codes: list[int] = []

    async def work(turn: Turn) -> str:
        requests: list[tuple[str, dict[str, Any]]] = [
            ("fs/read_text_file", {"path": "notes"}),
            ("terminal/create", {"command": "true"}),
            ("elicitation/create", {"mode": "form", "message": "?", "requestedSchema": {}}),
            ("no/such/method", {}),
            ("session/request_permission", {"toolCall": {"toolCallId": "c"}, "options": []}),
            ("session/request_permission", {"toolCall": {}, "options": "x"}),
        ]
        for method, params in requests:
            codes.append((await turn.request(method, **params))["error"]["code"])
        turn.session = "another"
        codes.append((await turn.request("fs/read_text_file", path="notes"))["error"]["code"])
        return "end_turn"

    fake = Fake(work)
    await external(fake, tmp_path, files=False, terminal=False).run("go")
    assert codes == [-32601] * 4 + [-32602] * 3
    assert fake.params("initialize")["clientCapabilities"] == {
        "fs": {"readTextFile": False, "writeTextFile": False},
        "terminal": False,
    }


async def test_a_call_that_runs_gives_way_to_a_question_and_its_end_is_shown_later() -> None:
    async def work(turn: Turn) -> str:
        await turn.begin("long", "Build")
        await trio.sleep(1)
        answer = await turn.may("other", "Push")
        await turn.tell("other", "completed", answer)
        await turn.tell("long", "completed", "built")
        return "end_turn"

    watched = await watch(external(Fake(work), permissions=Permissions(allow=[Rule("external_tool")])), "go")

    titles = [json.loads(event.arguments)["title"] for event in of(watched.events, ToolCallStarted)]
    assert titles == ["Build", "Push", "Build"]
    texts = [event.result.text for event in of(watched.events, ToolCallFinished)]
    assert texts == ["It goes on.", "once", "built"]


async def test_a_call_that_was_only_announced_is_shown_after_a_while() -> None:
    async def work(turn: Turn) -> str:
        await turn.begin("c", "Think", "pending")
        await trio.sleep(3)
        await turn.tell("c", "completed", "thought")
        return "end_turn"

    watched = await watch(external(Fake(work)), "go")
    [finished] = of(watched.events, ToolCallFinished)
    assert finished.elapsed > 2
    assert finished.result.text == "thought"


async def test_the_question_of_a_process_that_dies_is_withdrawn_and_the_run_fails() -> None:
    async def work(turn: Turn) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turn.may, "c", "Delete it")
            await trio.sleep(1)
            await turn.die()
        return "end_turn"

    watched = await watch(external(Fake(work)), "go")
    assert len(of(watched.events, QuestionWithdrawn)) == 1
    assert watched.stream.outcome.reason == "failed"
    assert "external agent 'other' closed its output" in watched.stream.outcome.detail


async def test_a_cancelled_run_cancels_the_turn_answers_what_is_open_and_ends_in_time() -> None:
    ended: list[str] = []

    async def work(turn: Turn) -> str:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                ended.append(await turn.may("c", "Delete it"))

            nursery.start_soon(ask)
            await turn.cancelled.wait()
        ended.append("cancelled")
        return "cancelled"

    async def stubborn(turn: Turn) -> str:
        await trio.sleep_forever()
        raise AssertionError

    for play, answers in ((work, ["cancelled", "cancelled"]), (stubborn, [])):
        ended.clear()
        fake = Fake(play)
        with trio.move_on_after(2):
            async with external(fake).stream("go") as stream:
                async for _ in stream:
                    pass
        assert "session/cancel" in fake.methods()
        assert ended == answers
        assert trio.current_time() < 10


@pytest.mark.real_clock
@pytest.mark.skipif(sys.platform != "linux", reason="commands need /bin/sh, and are ended by a supervisor")
async def test_commands_run_in_the_folder_by_the_rules_of_the_shell_and_end_with_the_run(tmp_path: Path) -> None:
    tmp_path.joinpath("here").write_text("", encoding="utf-8")
    responses: list[dict[str, Any]] = []

    async def work(turn: Turn) -> str:
        created = await turn.request("terminal/create", command="ls", args=["-a", "here"])
        name = created["result"]["terminalId"]
        responses.append((await turn.request("terminal/wait_for_exit", terminalId=name))["result"])
        responses.append((await turn.request("terminal/output", terminalId=name))["result"])
        await turn.request("terminal/release", terminalId=name)
        responses.append((await turn.request("terminal/create", command="rm here"))["error"])
        responses.append((await turn.request("terminal/create", command="ls", cwd="/etc"))["error"])
        slow = await turn.request("terminal/create", command="echo begun; sleep 1000")
        await turn.request("terminal/kill", terminalId=slow["result"]["terminalId"])
        ended = await turn.request("terminal/wait_for_exit", terminalId=slow["result"]["terminalId"])
        responses.append(ended["result"])
        left = await turn.request("terminal/create", command="sleep 1000")
        assert "result" in left
        return "end_turn"

    permissions = Permissions(allow=[Rule("shell")], deny=[Rule("shell", {"command": Glob("rm *")})])
    session = Session()
    watched = await watch(external(Fake(work), tmp_path, permissions=permissions), "go", session=session)

    assert watched.stream.outcome.reason == "completed", watched.stream.outcome
    assert responses[0] == {"exitCode": 0, "signal": None}
    assert responses[1] == {"output": "here\n", "truncated": False, "exitStatus": {"exitCode": 0, "signal": None}}
    assert "Denied by" in responses[2]["message"]
    assert "outside of" in responses[3]["message"]
    assert responses[4]["exitCode"] is None or responses[4]["signal"] is not None
    texts = [event.result.text for event in of(watched.events, ToolCallFinished)]
    assert texts[0] == "here\n[exit code 0]"
    assert texts[-1] == "It goes on."
