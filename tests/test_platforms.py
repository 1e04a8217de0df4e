"""The package can be imported where a platform, or an extra, is missing; what cannot work there says so."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import agentloop

FOLDER = Path(agentloop.__file__).parent
MODULES = sorted(
    ".".join(("agentloop", *path.relative_to(FOLDER).with_suffix("").parts)).removesuffix(".__init__")
    for path in FOLDER.rglob("*.py")
    # Programs that run by their path, or on import, and the examples.
    if path.name != "__main__.py" and "examples" not in path.parts
)
PUBLIC = [
    name
    for name in MODULES
    if not any(part.startswith("_") for part in name.split(".")) and not name.startswith("agentloop.demo.")
]


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Standard modules and dependencies are imported before the names go: on Windows they do without.
DEPENDENCIES = """
import asyncio, multiprocessing.connection, multiprocessing.util, selectors, shutil, sqlite3, subprocess, tempfile
import httpcore2, httpx2, threading, trio
"""
EXTRAS = """
import anthropic, hypothesis.stateful, mcp.client.stdio, mcp.client.streamable_http, mcp_types, openai, psycopg, pytest
import trio.testing
"""
LIKE_WINDOWS = """
import os, signal, sys
for name in '''
    CLD_EXITED O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK P_PID WEXITED WNOHANG WNOWAIT chown fchmod fchown fork
    forkpty getegid geteuid getgid getpgid getpgrp getpriority getsid getuid killpg lchown mkfifo openpty
    pidfd_open posix_spawn setpgid setsid statvfs wait3 wait4 waitid
'''.split():
    if hasattr(os, name):
        delattr(os, name)
for name in '''
    SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH pidfd_send_signal
'''.split():
    if hasattr(signal, name):
        delattr(signal, name)
os.supports_dir_fd = set()
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
"""


def test_every_module_can_be_imported_where_windows_lacks_what_posix_has() -> None:
    # The terminal's reader, and the demo with it, looks at `sys.platform` before it imports `termios`.
    failed = run(
        DEPENDENCIES
        + EXTRAS
        + LIKE_WINDOWS
        + """
import importlib
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}")
""",
        *[name for name in MODULES if not name.startswith(("agentloop.demo", "agentloop.terminal"))],
    )
    assert failed == ""


def test_tools_for_files_say_that_windows_cannot_confine_them_and_other_tools_work() -> None:
    said = run(
        DEPENDENCIES
        + LIKE_WINDOWS
        + """
from agentloop import Agent, UsageError
from agentloop.testing import ScriptedModel
from agentloop.toolkit import SpoolDirectory, ask_user, file_tools
from agentloop.toolkit.web import fetch
try:
    file_tools(".")
except UsageError as error:
    print(error)
print(trio.run(Agent(ScriptedModel("done"), tools=[ask_user(), fetch()]).run, "go").reason)
"""
    )
    assert "file_tools() needs a system that" in said
    assert said.endswith("completed\n")


WITHOUT_EXTRAS = """
import sys
for name in '''
    _pytest anthropic dbos httpcore2 httpx2 hypothesis mcp mcp_types openai prompt_toolkit psycopg pytest
    restate rich xllamacpp
'''.split():
    sys.modules[name] = None
"""


def test_every_public_module_says_which_extra_it_needs() -> None:
    """Or can be imported without. It never ends in a bare ImportError."""
    told = run(
        WITHOUT_EXTRAS
        + """
import importlib
from agentloop.errors import MissingExtraError
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except MissingExtraError as error:
        print(name, error.extra)
    except Exception as error:
        print(name, f"{type(error).__name__}: {error}")
""",
        *PUBLIC,
    )
    missing = dict(line.split(" ", 1) for line in told.splitlines())
    extras = {"anthropic", "dbos", "demo", "http", "mcp", "openai", "postgres", "restate", "testing"}
    assert {name: extra for name, extra in missing.items() if extra not in extras} == {}
    assert missing["agentloop.testing.harness.machine"] == missing["agentloop.testing.pytest_plugin"] == "testing"
    assert not missing.keys() & {"agentloop", "agentloop.testing", "agentloop.toolkit", "agentloop.stores.sqlite"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            [],
            "agentloop: say a command; there are: acp (with the extra serve), mcp (with the extra serve), picture, run",
        ),
        (["--help"], "agentloop: say a command; there are: "),
        (["srve"], "agentloop: there is no command 'srve'; there are: "),
        (["serve", "my_module:agent"], "agentloop: agentloop.serving needs the package 'starlette"),
    ],
    ids=range(4),
)
def test_without_the_extra_serve_the_command_names_the_commands_that_there_are(arguments: list[str], told: str) -> None:
    said = run(
        """
import sys
sys.modules["starlette"] = None
from agentloop.__main__ import main
sys.stderr = sys.stdout
print(main())
""",
        *arguments,
    )
    assert said.startswith(told)
    assert said.endswith("\n2\n")


@pytest.mark.parametrize("arguments", [["--help"], ["corpus"]])
def test_the_command_of_the_harness_says_which_extra_it_needs(arguments: list[str]) -> None:
    said = run(
        WITHOUT_EXTRAS
        + """
import runpy
from agentloop.errors import MissingExtraError
try:
    runpy.run_module("agentloop.testing", run_name="__main__")
except MissingExtraError as error:
    print(error.extra)
""",
        *arguments,
    )
    assert said == "testing\n"
