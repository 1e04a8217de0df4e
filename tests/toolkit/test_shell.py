"""A command line: what it writes, how it ends, and that nothing of it is left."""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import agentloop
from agentloop import Agent, Tool, UsageError, _process_tree
from agentloop.events import ApprovalRequested, ToolCallOutput, ToolCallStarted
from agentloop.questions import Deny
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import shell
from agentloop.toolkit._overwritten import OverwrittenLines
from tests.runtime.builders import answering, asked
from tests.support import of, opened
from tests.toolkit.builders import call, gone, names_in, open_descriptors, pids_in, watch_call

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

FOREVER = "sleep 1000"
SOURCE = str(Path(agentloop.__file__).parents[1])


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    """Where commands write down the processes that they start."""
    return tmp_path / "pids"


def sh(folder: Path, **options: Any) -> Tool:
    return shell(**{"cwd": folder, "requires_approval": False, "grace": 0.2, **options})


async def until_written(path: Path, count: int) -> list[int]:
    while len(found := pids_in(path)) < count:  # noqa: ASYNC110  # it is not ours
        await trio.sleep(0.005)
    return found


# -------------------------------------------------------------------------------- results


async def test_the_result_is_what_it_wrote_on_both_outputs_in_order_and_its_exit_code(tmp_path: Path) -> None:
    result = await call(sh(tmp_path), command="echo one; echo two >&2; echo three; exit 3")

    assert result.text == "one\ntwo\nthree\n[exit code 3]"
    assert result.status == "ok"


async def test_it_runs_in_the_folder_and_reads_nothing(tmp_path: Path) -> None:
    result = await call(sh(tmp_path), command="pwd; cat; tty")

    assert result.text == f"{tmp_path}\nnot a tty\n[exit code 1]"


async def test_a_command_that_a_signal_kills_is_an_error_that_names_it(tmp_path: Path) -> None:
    result = await call(sh(tmp_path), command="echo dying; kill -SEGV $$")

    assert (result.status, result.text) == ("error", "dying\n[killed by SIGSEGV]")


async def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    tool = sh(folder)
    folder.rmdir()

    result = await call(tool, command="true")

    assert (result.status, result.text) == (
        "error",
        f"the command cannot be run in {folder}: No such file or directory",
    )


async def test_a_command_line_cannot_hold_nul(tmp_path: Path) -> None:
    assert "NUL" in (await call(sh(tmp_path), command="echo \0")).text


async def test_output_is_shown_as_it_comes(tmp_path: Path) -> None:
    """The second half is written only when the first has been seen."""

    def on_event(stream: object, event: object) -> None:
        if isinstance(event, ToolCallOutput) and "first" in event.text:
            (tmp_path / "seen").touch()

    command = "echo first; while [ ! -e seen ]; do sleep 0.01; done; echo second"
    watched = await watch_call(sh(tmp_path), {"command": command}, on_event=on_event)

    assert "".join(event.text for event in of(watched.events, ToolCallOutput)) == "first\nsecond\n"


async def test_characters_that_are_cut_between_two_reads_are_whole(tmp_path: Path) -> None:
    command = r"printf '\342'; sleep 0.02; printf '\202'; sleep 0.02; printf '\254\n\377\n'; printf '\342'"

    watched = await watch_call(sh(tmp_path), {"command": command})

    assert "".join(event.text for event in of(watched.events, ToolCallOutput)) == "€\n\ufffd\n\ufffd"


async def test_a_slow_reader_makes_the_command_wait_and_its_time_does_not_count(tmp_path: Path) -> None:
    """The pipe is full, so the command cannot go on: the memory that it takes here is bounded."""
    tool = sh(tmp_path, timeout=1)
    command = "head -c 3000000 /dev/zero | tr '\\0' x; echo; touch written; echo end"
    agent = Agent(ScriptedModel(calls("shell", command=command), "Done."), tools=[tool])
    async with opened(agent) as stream:
        async for event in stream:
            if isinstance(event, ToolCallStarted):
                break
        await trio.sleep(1.2)
        assert not (tmp_path / "written").exists()
        shown = ["".join(event.text for event in [e async for e in stream] if isinstance(event, ToolCallOutput))]

    assert len(shown[0]) == 3000005
    assert "[exit code 0]" in stream.outcome.messages[-2].text


async def test_long_output_is_told_with_its_beginning_and_its_end(tmp_path: Path) -> None:
    result = await call(sh(tmp_path, max_chars=100), command="echo begin; seq 10000; echo end")

    assert result.text.startswith("begin\n1\n2\n")
    assert result.text.endswith("9999\n10000\nend\n[exit code 0]")
    assert "\n[... 48804 characters left out ...]\n" in result.text
    assert len(result.text) < 200


async def test_the_frames_of_a_progress_bar_collapse_to_the_last_one(tmp_path: Path) -> None:
    command = (
        r"for n in 1 2 3; do printf '\r%d of 3' $n; sleep 0.01; done; printf '\r\nwindows\r\n\033[2Kx\033[1Gy\033[K'"
    )

    result = await call(sh(tmp_path), command=command)

    assert result.text == "3 of 3\r\nwindows\r\ny\n[exit code 0]"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a\rb\rc\nd", "c\nd"),
        ("a\r\nb\r\n", "a\r\nb\r\n"),
        ("10%\b\b\b20%\b\b\b30%\n", "30%\n"),
        ("ab\b\b\b\bc", "c"),
        ("x\x1b[2K\x1b[1Gy\x1b[0Gz\n", "z\n"),
        ("done\r", "done\r"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("a\n\n\rb", "a\n\nb"),
        ("a\x1b", "a\x1b"),
    ],
)
def test_lines_read_as_they_stand_in_the_end_however_they_are_cut(written: str, read: str, size: int) -> None:
    lines = OverwrittenLines()

    pieces = [lines.add(written[start : start + size]) for start in range(0, len(written), size)]

    assert "".join([*pieces, lines.end()]) == read


async def test_a_line_that_reports_a_problem_is_shown_although_it_is_in_the_part_left_out(tmp_path: Path) -> None:
    command = "seq 5000; echo 'warning: the checksum is wrong'; seq 5000"

    for max_chars in (400, 4000, 30000):
        result = await call(sh(tmp_path, max_chars=max_chars), command=command)

        assert "characters left out" in result.text
        assert "warning: the checksum is wrong" in result.text
        assert len(result.text) < 1.5 * max_chars


async def test_the_whole_of_a_long_output_is_kept_where_the_user_says(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()

    result = await call(sh(tmp_path, max_chars=100, keep_in=kept), command="seq 10000")

    [file] = kept.iterdir()
    assert f"; the whole is in {file} ...]" in result.text
    assert file.read_text() == "".join(f"{number}\n" for number in range(1, 10001))
    assert file.stat().st_mode & 0o777 == 0o600


async def test_output_that_fits_is_kept_nowhere(tmp_path: Path) -> None:
    await call(sh(tmp_path, max_chars=100, keep_in=tmp_path), command="seq 10")

    assert names_in(tmp_path) == []


async def test_output_that_cannot_be_kept_is_told_all_the_same(tmp_path: Path) -> None:
    result = await call(sh(tmp_path, max_chars=100, keep_in=tmp_path / "missing"), command="seq 10000")

    assert "could not be saved in a file: No such file or directory" in result.text
    assert result.text.endswith("10000\n[exit code 0]")


# ---------------------------------------------------------------------------- environment


async def test_a_command_sees_only_what_of_the_environment_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    monkeypatch.setenv("LC_ALL", "C")

    result = await call(sh(tmp_path, env={"GIVEN": "yes"}), command="env")

    names = {line.partition("=")[0] for line in result.text.splitlines()[:-1]}
    assert "secret" not in result.text
    assert {"PATH", "LC_ALL", "GIVEN"} <= names


async def test_variables_are_passed_on_by_name_or_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_ONE", "1")
    monkeypatch.setenv("MY_TWO", "2")
    monkeypatch.setenv("OTHER", "3")

    result = await call(sh(tmp_path, inherit_env=["PATH", "MY_*"]), command="echo $MY_ONE $MY_TWO [$OTHER]")

    assert result.text.startswith("1 2 []\n")


# ----------------------------------------------------------------------------------- ends


async def test_what_it_leaves_in_the_background_ends_with_it_and_does_not_hold_it_up(
    tmp_path: Path, pids: Path
) -> None:
    result = await call(sh(tmp_path), command=f"{FOREVER} & echo $! >> pids; echo done")

    assert result.text == "done\n[exit code 0; processes that it left in the background were ended: 1]"
    assert gone(*pids_in(pids))


async def test_the_process_group_is_nobodys_any_more(tmp_path: Path, pids: Path) -> None:
    await call(sh(tmp_path), command="echo $$ >> pids")

    [group] = pids_in(pids)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


async def test_what_ignores_the_polite_signal_is_killed(tmp_path: Path, pids: Path) -> None:
    result = await call(
        sh(tmp_path),
        command="sh -c 'trap \"\" TERM; echo $$ >> pids; while :; do sleep 1; done' & while [ ! -s pids ]; do :; done",
    )

    assert "were ended" in result.text
    assert gone(*pids_in(pids))


async def test_what_is_left_may_clean_up_before_it_ends(tmp_path: Path, pids: Path) -> None:
    command = "sh -c 'trap \"echo bye; touch cleaned; exit\" TERM; echo $$ >> pids; while :; do sleep 0.01; done' &"
    result = await call(sh(tmp_path, grace=5), command=f"{command} while [ ! -s pids ]; do sleep 0.01; done")

    assert "bye\n[exit code 0;" in result.text
    assert (tmp_path / "cleaned").exists()
    assert gone(*pids_in(pids))


@pytest.mark.skipif(shutil.which("setsid") is None, reason="there is no setsid")
@pytest.mark.parametrize(
    "command",
    [
        "setsid sleep 1000 & echo $! >> pids",
        "setsid sh -c 'echo $$ >> pids; sleep 1000 & echo $! >> pids; wait' & while [ ! -s pids ]; do :; done",
        "(setsid sh -c 'echo $$ >> pids; exec sleep 1000' > /dev/null 2>&1 &) ; while [ ! -s pids ]; do :; done",
    ],
    ids=["session", "tree", "daemon"],
)
async def test_a_daemon_that_has_left_the_group_is_found_and_ended(tmp_path: Path, pids: Path, command: str) -> None:
    result = await call(sh(tmp_path), command=command)

    assert "were ended" in result.text
    assert gone(*pids_in(pids))


async def test_what_a_command_starts_with_tools_like_these_is_found_too(tmp_path: Path, pids: Path) -> None:
    """An agent in a command has families of its own, which are part of ours: here it was killed, and left one."""
    (tmp_path / "inner.py").write_text(
        "import os, sys, trio\n"
        "from agentloop._process_tree import open_process_tree\n"
        "async def main():\n"
        "    async with open_process_tree(['sleep', '1000'], cwd='.', env={**os.environ}, grace=0) as tree:\n"
        "        print(tree._group, file=open('pids', 'a'))\n"
        "        os.kill(os.getpid(), 9)\n"
        "trio.run(main)\n"
    )
    tool = sh(tmp_path, env={"PYTHONPATH": str(Path(agentloop.__file__).parents[1])})

    result = await call(tool, command=f"{sys.executable} inner.py")

    assert "were ended: 1" in result.text
    assert gone(*pids_in(pids))


async def test_a_daemon_that_has_cleared_its_environment_ends_with_the_call(tmp_path: Path, pids: Path) -> None:
    result = await call(
        sh(tmp_path), command="setsid env -i sh -c 'echo $$ >> pids; exec sleep 1000' & while [ ! -s pids ]; do :; done"
    )

    assert "were ended: 1" in result.text
    assert gone(*pids_in(pids))


async def test_a_process_that_forks_and_leaves_its_session_again_and_again_ends_with_the_call(tmp_path: Path) -> None:
    program = (
        "import os, time\n"
        "end = time.monotonic() + 20\n"
        "while time.monotonic() < end:\n"
        "    if os.fork():\n"
        "        os._exit(0)\n"
        "    os.setsid()\n"
        "    os.utime('alive')\n"
    )
    (tmp_path / "comet.py").write_text(program)
    (tmp_path / "alive").touch()

    await call(sh(tmp_path, grace=0), command=f"{sys.executable} -S comet.py > /dev/null 2>&1 & sleep 0.2")
    last_sign_of_life = (tmp_path / "alive").stat().st_mtime_ns
    await trio.sleep(0.05)

    assert (tmp_path / "alive").stat().st_mtime_ns == last_sign_of_life


@pytest.mark.parametrize("number", ["KILL", "STOP"])
async def test_a_command_that_kills_or_stops_its_supervisor_leaves_nothing(
    tmp_path: Path, pids: Path, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process_tree, "KILL_SECONDS", 0.5)
    command = f"echo $$ >> pids; setsid sleep 1000 & echo $! >> pids; kill -{number} $PPID; sleep 1000"

    result = await call(sh(tmp_path, timeout=0.3, grace=0.1), command=command)

    assert result.status in ("error", "timeout")
    assert gone(*pids_in(pids))


async def test_polite_signals_that_a_command_sends_to_its_supervisor_change_nothing(tmp_path: Path) -> None:
    result = await call(sh(tmp_path), command="kill $PPID; kill -INT $PPID; echo done")

    assert result.text == "done\n[exit code 0]"


async def test_when_the_process_of_the_agent_is_killed_its_commands_end(tmp_path: Path, pids: Path) -> None:
    (tmp_path / "agent.py").write_text(
        "import trio\n"
        "from agentloop import Agent\n"
        "from agentloop.testing import ScriptedModel, calls\n"
        "from agentloop.toolkit import shell\n"
        "tool = shell(requires_approval=False)\n"
        "command = 'echo $$ >> pids; setsid sleep 1000 & echo $! >> pids; sleep 1000'\n"
        "trio.run(Agent(ScriptedModel(calls('shell', command=command), 'Done.'), tools=[tool]).run, 'go')\n"
    )
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, cwd=tmp_path, env={**os.environ, "PYTHONPATH": SOURCE}, check=False)
        process = await nursery.start(run, [sys.executable, "agent.py"])
        found = await until_written(pids, 2)
        process.kill()

    with trio.fail_after(10):
        while not gone(*found):  # noqa: ASYNC110  # it is not ours
            await trio.sleep(0.01)


async def test_a_command_cannot_read_the_keys_of_the_agent_from_proc(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(
        "import os, subprocess, trio\n"
        "from agentloop import Agent\n"
        "from agentloop.testing import ScriptedModel, calls\n"
        "from agentloop.toolkit import shell\n"
        "tool = shell(requires_approval=False)\n"
        "command = 'cat /proc/%d/environ /proc/$PPID/environ; echo; echo $HOME' % os.getpid()\n"
        "outcome = trio.run(Agent(ScriptedModel(calls('shell', command=command), 'Done.'), tools=[tool]).run, 'go')\n"
        "print(outcome.messages[2].text)\n"
        "print('still', os.environ['A_KEY'], subprocess.check_output('echo $A_KEY', shell=True).decode())\n"
    )
    environment = {**os.environ, "A_KEY": "xyzzy", "HOME": "/home", "PYTHONPATH": SOURCE}

    ran = await trio.run_process(
        [sys.executable, "agent.py"], cwd=tmp_path, env=environment, capture_stdout=True, check=True
    )

    shown, _, after = ran.stdout.decode().partition("still ")
    assert "xyzzy" not in shown
    assert "/home\n[exit code 0]" in shown
    assert after.split() == ["xyzzy", "xyzzy"]


async def test_the_end_of_a_pipeline_that_outlives_the_command_is_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process_tree, "LINGER_SECONDS", 5.0)  # for a machine that is busy
    result = await call(sh(tmp_path), command="(sleep 0.01; echo late) & echo early")

    assert result.text == "early\nlate\n[exit code 0]"


async def test_when_its_time_is_up_all_of_it_ends_and_what_it_wrote_is_told(tmp_path: Path, pids: Path) -> None:
    result = await call(sh(tmp_path, timeout=0.1), command=f"echo $$ >> pids; echo before; {FOREVER}; echo after")

    assert result.status == "timeout"
    assert result.text == "before\n[ended after 0.1 s, the time it had, with all that it had started]"
    assert gone(*pids_in(pids))


async def test_the_model_may_ask_for_more_time_but_not_for_more_than_there_is(tmp_path: Path) -> None:
    longer = await call(sh(tmp_path, timeout=0.05), command="sleep 0.1; echo slept", timeout=9)
    too_long = await call(sh(tmp_path, max_timeout=0.2), command=FOREVER, timeout=1e9)

    assert longer.text == "slept\n[exit code 0]"
    assert too_long.text.startswith("[ended after 0.2 s")


@pytest.mark.parametrize("how", ["leave", "cancel", "deadline"])
async def test_however_the_stream_is_left_the_processes_are_gone_when_its_block_ends(
    tmp_path: Path, pids: Path, how: str
) -> None:
    before = open_descriptors()
    command = f"echo $$ >> pids; {FOREVER} & echo $! >> pids; setsid {FOREVER} & echo $! >> pids; cat /dev/zero"
    agent = Agent(ScriptedModel(calls("shell", command=command), "Done."), tools=[sh(tmp_path, keep_in=tmp_path)])

    with trio.CancelScope() as scope:
        async with opened(agent) as stream:
            found = await until_written(pids, 3)
            if how == "cancel":
                scope.cancel()
            elif how == "deadline":
                scope.deadline = trio.current_time()
            if how != "leave":
                await trio.sleep_forever()

    assert stream.outcome.reason == "cancelled"
    assert gone(*found)
    assert open_descriptors() == before
    assert names_in(tmp_path) == ["pids"]


@pytest.mark.parametrize("after", [0.0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.04])
async def test_cancelled_at_any_moment_nothing_is_left(tmp_path: Path, pids: Path, after: float) -> None:
    before = open_descriptors()
    command = f"echo $$ >> pids; (setsid {FOREVER} & echo $! >> pids; echo x; {FOREVER})"
    agent = Agent(ScriptedModel(calls("shell", command=command), "Done."), tools=[sh(tmp_path)])

    with trio.move_on_after(after):
        async with opened(agent) as stream:
            async for _ in stream:
                pass

    started = pids_in(pids)
    assert not started or gone(*started)
    assert open_descriptors() == before


async def test_calls_of_one_turn_run_at_once_and_end_only_their_own(tmp_path: Path) -> None:
    """One that ends does not take the background of its sibling with it."""
    waiting = "sh -c 'while [ ! -e go ]; do sleep 0.01; done; echo went' & wait"
    agent = Agent(
        ScriptedModel(calls("shell", command=waiting) + calls("shell", command="sleep 0.1; touch go"), "Done."),
        tools=[sh(tmp_path)],
    )

    outcome = await agent.run("go")

    assert [message.text for message in outcome.messages[2:4]] == ["went\n[exit code 0]", "[exit code 0]"]


# -------------------------------------------------------------------------------- options


async def test_a_person_must_approve_unless_told_otherwise(tmp_path: Path) -> None:
    watched = await watch_call(shell(cwd=tmp_path), {"command": "touch x"}, on_event=answering(Deny("no")))

    [question] = asked(watched.events)
    assert isinstance(question, ApprovalRequested)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("options", [{"timeout": 0}, {"max_timeout": -1}, {"grace": -1}, {"max_chars": 0}])
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="above 0"):
        shell(**options)


def test_the_model_is_told_of_the_folder_and_the_time(tmp_path: Path) -> None:
    spec = shell(cwd=tmp_path, timeout=10, max_timeout=60).spec

    assert str(tmp_path) in spec.description
    assert "10 s" in spec.description
    assert set(spec.parameters["properties"]) == {"command", "timeout"}


async def test_where_there_is_no_proc_the_process_group_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process_tree, "has_proc", lambda: False)
    monkeypatch.setattr(_process_tree, "KILL_SECONDS", 0.2)  # Linux does not tell that only a zombie is left

    done = await call(sh(tmp_path), command="echo done; exit 3")
    ended = await call(sh(tmp_path, timeout=0.05, grace=0), command="trap '' TERM; echo $$ > pids; exec sleep 1000")

    assert done.text == "done\n[exit code 3]"
    assert ended.status == "timeout"
    assert gone(*pids_in(tmp_path / "pids"))


def test_a_current_folder_that_was_removed_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()

    with pytest.raises(UsageError, match="the current folder was removed"):
        shell()
    assert shell(cwd="/").name == "shell"
