"""Servers that die, hang, babble, or do not end: one call fails, all else goes on, and nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from agentloop import Accept, Agent, Deadlines, Stream, tool
from agentloop.errors import ToolsetError, UnknownQuestionError
from agentloop.events import (
    ElicitationRequested,
    QuestionWithdrawn,
    StreamEvent,
    ToolCallFinished,
    ToolCallProgress,
    ToolCallStarted,
)
from agentloop.mcp import McpServer, Stdio
from agentloop.testing import Response, ScriptedModel, calls
from agentloop.toolsets import Toolsets
from tests.mcp.support import agent_with, alive, playground, raw, results, until_gone, watched
from tests.support import first, of, watch

pytestmark = pytest.mark.real_clock


async def pid_of(server: McpServer) -> int:
    seen = await watched(server, calls("pid"))
    return int(results(seen)["pid"].text)


# -------------------------------------------------------------------------------- it dies


async def test_a_server_that_dies_fails_the_calls_that_it_was_busy_with_and_is_started_again_by_the_next() -> None:
    first_turn = calls("hang") + calls("die") + calls("hang")
    seen = await watched(raw(), first_turn, calls("echo", tag="again"))
    [*died, again] = of(seen.events, ToolCallFinished)
    assert [event.result.status for event in died] == ["error"] * 3
    assert all("MCP server 'raw' was killed by signal 9" in event.result.text for event in died)
    assert again.result.text == "again"


STARTING = 15
"""Messages that the server sends before its first call: two of greeting, and its tools, one for each page."""


@pytest.mark.parametrize("part", [0, 0.5, 1])
@pytest.mark.parametrize("message", [1, 2, STARTING, STARTING + 1, STARTING + 2, STARTING + 3])
async def test_wherever_a_server_dies_the_run_ends_or_goes_on_with_another(
    message: int, part: float, tmp_path: Path
) -> None:
    server = raw(f"{message}/{part}", env={"DIED": str(tmp_path / "died")})
    # Two messages of the second call: it asks, and answers.
    script: list[Response | str] = [
        calls("echo", tag="one"),
        calls("ask", tag="two"),
        calls("echo", tag="three"),
        "done",
    ]
    agent = Agent(ScriptedModel(*script), toolsets=[server])

    def answer(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ElicitationRequested):
            with suppress(UnknownQuestionError):
                stream.answer(event.id, Accept({"name": "Ann"}))

    seen = await watch(agent, on_event=answer)

    told = [event.result for event in of(seen.events, ToolCallFinished)]
    if message <= STARTING:
        assert seen.outcome.reason == "completed" or isinstance(seen.error, ToolsetError)
    else:
        assert seen.outcome.reason == "completed"
        # What is whole counts; what is not is an error that the model reads; and the next call works.
        assert [result.status for result in told[:2]] in (["ok", "ok"], ["error", "ok"], ["ok", "error"])
        # That may go out before it shows that the server has died.
        assert told[2].text == "three" or (message, part) == (STARTING + 3, 1)
    assert (tmp_path / "died").exists()


async def test_the_death_of_a_server_leaves_its_siblings_alone() -> None:
    @tool
    async def wait() -> str:
        """Wait."""
        await trio.sleep(0.3)
        return "waited"

    servers = [raw(), raw(name="other", prefix="other_")]
    model = ScriptedModel(calls("die") + calls("wait") + calls("other_echo", tag="x"), "done")
    seen = await watch(Agent(model, toolsets=servers, tools=[wait]))
    assert {name: result.status for name, result in results(seen).items()} == {
        "die": "error",
        "wait": "ok",
        "other_echo": "ok",
    }


async def test_a_server_is_started_again_only_so_many_times() -> None:
    seen = await watched(raw(max_restarts=1), *[calls("die", tag=str(n)) for n in range(4)])
    told = [event.result.text for event in of(seen.events, ToolCallFinished)]
    assert all("was killed by signal 9" in text for text in told)
    assert ["will not be restarted for now" in text for text in told] == [False, False, True, True]
    assert "has crashed 2 times" in told[2]


async def test_several_calls_that_need_a_dead_server_start_it_once() -> None:
    seen = await watched(raw(), calls("die"), calls("pid") + calls("pid") + calls("pid"))
    pids = [event.result.text for event in of(seen.events, ToolCallFinished) if event.name == "pid"]
    assert len(pids) == 3
    assert len(set(pids)) == 1


async def test_streams_that_share_a_server_survive_its_death_both() -> None:
    async with Toolsets(raw(elicitation=False)) as shared:
        outcomes: list[str] = []

        async def run(*names: str) -> None:
            seen = await agent_with(shared, *[calls(name) for name in names]).run("go")
            outcomes.append(seen.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "hang", "echo")
            await trio.sleep(0.1)
            nursery.start_soon(run, "die", "echo")
        assert outcomes == ["completed", "completed"]
        assert shared.problems == ()


async def test_what_a_server_said_before_it_died_is_told() -> None:
    with pytest.raises(ToolsetError, match=r"exited with code 3; its stderr ended with: cannot find the configuration"):
        await agent_with(raw("exit")).run("go")


async def test_a_program_that_is_not_there_is_a_plain_error() -> None:
    with pytest.raises(ToolsetError, match=r"toolset 'no-such-program' failed to start.*FileNotFoundError"):
        await agent_with(McpServer.stdio("no-such-program")).run("go")


# ------------------------------------------------------------------------------- it hangs


async def test_a_server_that_never_answers_does_not_start_in_time() -> None:
    with pytest.raises(ToolsetError, match=r"MCP server 'raw' did not start within 0.2 s"):
        await agent_with(raw("mute", start_timeout=0.2)).run("go")


async def test_a_start_that_hangs_can_be_stopped_from_outside() -> None:
    began = trio.current_time()
    with trio.move_on_after(0.3) as scope:
        await agent_with(raw("mute", "stubborn")).run("go")
    assert scope.cancelled_caught
    # Less than for one that is stopped in order: nobody waits for what it has to say.
    assert trio.current_time() - began < 2.5


async def test_a_call_that_is_never_answered_runs_out_of_time_and_the_next_one_works() -> None:
    seen = await watched(raw(timeout=0.2), calls("hang"), calls("echo", tag="x"))
    assert results(seen)["hang"].status == "timeout"
    assert results(seen)["echo"].text == "x"


async def test_leaving_a_stream_does_not_wait_for_a_server_that_does_not_read() -> None:
    began = trio.current_time()
    async with agent_with(raw(), calls("deaf") + calls("echo", tag="x" * 10**6)).stream("go") as stream:
        await first(stream, ToolCallStarted)
        await trio.sleep(0.2)
    assert trio.current_time() - began < 4


# ------------------------------------------------------------------------------ it babbles


async def test_garbage_on_its_output_is_passed_over() -> None:
    seen = await watched(raw("banner"), calls("garbage"))
    assert results(seen)["garbage"].text == "after the garbage"


async def test_a_line_without_an_end_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentloop.mcp._process.MAX_LINE", 10**6)
    seen = await watched(raw(), calls("endless"), calls("echo", tag="x"))
    assert "wrote a line of more than 1000000 bytes" in results(seen)["endless"].text
    assert results(seen)["echo"].text == "x"


async def test_a_flood_of_progress_is_told_in_order_to_a_reader_that_is_slow() -> None:
    shown: list[float] = []
    async with agent_with(raw(), calls("flood", times=2000)).stream("go") as stream:
        async for event in stream:
            if isinstance(event, ToolCallProgress):
                shown.append(event.progress)
                if len(shown) == 1:
                    await trio.sleep(0.3)
            if isinstance(event, ToolCallFinished):
                assert event.result.text == "flooded"
    assert shown == sorted(set(shown))
    assert shown[-1] == 1999


# --------------------------------------------------------------------------- what it leaves


async def test_when_a_stream_ends_its_server_has_ended() -> None:
    assert not alive(await pid_of(raw()))


async def test_what_a_server_has_forked_ends_with_it() -> None:
    seen = await watched(raw(), calls("fork") + calls("pid"))
    for name in ("fork", "pid"):
        with trio.fail_after(2):
            await until_gone(int(results(seen)[name].text))


async def test_what_a_server_has_forked_ends_also_if_the_server_dies() -> None:
    seen = await watched(raw(), calls("fork"), calls("die"), calls("echo", tag="x"))
    assert results(seen)["die"].status == "error"
    with trio.fail_after(2):
        await until_gone(int(results(seen)["fork"].text))


async def test_what_a_server_leaves_behind_when_it_exits_by_itself_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "child"
    await pid_of(raw("nanny", env={"CHILD": str(path)}))
    with trio.fail_after(2):
        await until_gone(int(path.read_text()))


@pytest.mark.skipif(shutil.which("setsid") is None, reason="there is no setsid")
async def test_a_daemon_that_a_server_has_started_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "daemon"
    daemon = (
        f"setsid sh -c 'echo $$ > {path}; exec sleep 1000' <&- >&- 2>&- & while [ ! -s {path} ]; do sleep 0.01; done"
    )
    server = raw()
    assert isinstance(server.target, Stdio)
    wrapped = ["-c", f'{daemon}; exec "$@"', "sh", server.target.command, *server.target.args]

    await pid_of(McpServer.stdio("sh", *wrapped, name="raw"))

    assert not alive(int(path.read_text()))


@pytest.mark.skipif(shutil.which("setsid") is None, reason="there is no setsid")
async def test_a_daemon_that_has_cleared_its_environment_ends_with_its_server(tmp_path: Path) -> None:
    path = tmp_path / "daemon"
    daemon = f"setsid env -i sh -c 'echo $$ > {path}; exec sleep 1000' <&- >&- 2>&- &"
    wait = f"while [ ! -s {path} ]; do sleep 0.01; done"
    server = raw()
    assert isinstance(server.target, Stdio)
    wrapped = ["-c", f'{daemon} {wait}; exec "$@"', "sh", server.target.command, *server.target.args]

    await pid_of(McpServer.stdio("sh", *wrapped, name="raw"))

    assert not alive(int(path.read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="there is no supervisor elsewhere")
async def test_a_server_ends_when_the_process_of_its_client_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "server"
    # Its stdin stays open in another process, so only the supervisor can notice.
    server = f"sleep 1000 <&0 & echo $! $$ > {path}; exec sleep 1000"
    program = (
        "import trio\n"
        "from agentloop.mcp import McpServer\n"
        "async def main():\n"
        f"    async with McpServer.stdio('sh', '-c', {server!r}).open():\n"
        "        pass\n"
        "trio.run(main)\n"
    )
    async with trio.open_nursery() as nursery:
        client = await nursery.start(partial(trio.run_process, [sys.executable, "-c", program], check=False))
        with trio.fail_after(20):
            while not path.exists() or not path.read_text().endswith("\n"):
                await trio.sleep(0.01)
        client.kill()

    with trio.fail_after(5):
        for pid in path.read_text().split():
            await until_gone(int(pid))


async def test_a_server_that_will_not_go_is_killed() -> None:
    assert not alive(await pid_of(raw("stubborn")))


async def test_no_variable_of_ours_is_passed_on_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "secret")
    program = "import os, sys; sys.stderr.write(repr(sorted(os.environ))); sys.exit(1)"
    server = McpServer.stdio("python3", "-c", program, env={"GIVEN": "x"})
    with pytest.raises(ToolsetError, match="'GIVEN'") as caught:
        await agent_with(server).run("go")
    assert "MY_API_KEY" not in str(caught.value)


# --------------------------------------------------------------------------------- sharing


async def test_an_agent_whose_shared_server_is_gone_is_told_so() -> None:
    shared = Toolsets(raw())
    with pytest.raises(ToolsetError, match="is not open"):
        await agent_with(shared).run("go")


@pytest.mark.parametrize("make", [raw, playground, partial(playground, "legacy")])
async def test_closing_a_shared_server_ends_the_calls_on_the_way_at_once(make: Callable[[], McpServer]) -> None:
    told: list[str] = []

    async def run(shared: Toolsets) -> None:
        outcome = await agent_with(shared, calls("hang")).run("go")
        told.append(str(outcome.messages[2]))

    async with trio.open_nursery() as nursery, Toolsets(make()) as shared:
        nursery.start_soon(run, shared)  # noqa: ASYNC111 - that it outlives what it uses is the point
        await trio.sleep(0.3)
    assert "was stopped" in told[0]


async def test_a_question_of_a_server_that_dies_is_withdrawn() -> None:
    async with agent_with(raw(), calls("pid"), calls("ask", tag="x")).stream("go") as stream:
        finished = await first(stream, ToolCallFinished)
        question = await first(stream, ElicitationRequested)
        os.kill(int(finished.result.text), signal.SIGKILL)
        withdrawn = await first(stream, QuestionWithdrawn)
        finished = await first(stream, ToolCallFinished)
    assert withdrawn.id == question.id
    assert "was killed by signal 9" in finished.result.text


async def test_deadlines_of_the_agent_hold_for_a_server_too() -> None:
    with pytest.raises(ToolsetError, match=r"did not start within 0.2 s"):
        await agent_with(raw("mute"), deadlines=Deadlines(toolset=0.2)).run("go")


async def test_ten_servers_start_and_stop_at_once() -> None:
    servers = [playground("legacy", name=f"s{n}", prefix=f"s{n}_") for n in range(10)]
    async with Toolsets(*servers) as shared:
        seen = await watched(shared, calls("s3_add", a=1, b=1))
    assert results(seen)["s3_add"].text == "2"
