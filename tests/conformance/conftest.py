"""Programs from npm: the session `conformance` of nox installs them, and says where they are."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mcp.conftest import wait_for

PACKAGES = os.environ.get("CONFORMANCE_PACKAGES", "")
if not PACKAGES:
    raise pytest.UsageError("these tests need programs from npm: nox -s conformance")

PROCESSES = Path("/proc")
SUITE = str(Path(PACKAGES, "@modelcontextprotocol", "conformance", "dist", "index.js"))
EVERYTHING = str(Path(PACKAGES, "@modelcontextprotocol", "server-everything", "dist", "index.js"))
FILESYSTEM = str(Path(PACKAGES, "@modelcontextprotocol", "server-filesystem", "dist", "index.js"))


def _find_node() -> str:
    """The program itself: what is on the path may be a script that starts it, and that would be what we kill."""
    found = subprocess.run(["node", "-p", "process.execPath"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


NODE = _find_node()


def running(program: str) -> set[int]:
    """The ids of all processes that run ``program``, whoever their parents are, as far as the system tells."""
    found: set[int] = set()
    for path in PROCESSES.glob("[0-9]*/cmdline"):
        try:
            if program.encode() in path.read_bytes().split(b"\0"):
                found.add(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return found


def descriptors() -> list[str]:
    """What this process has open, sockets and pipes above all, as far as the system tells."""
    found: list[str] = []
    for path in PROCESSES.glob("self/fd/*"):
        try:
            found.append(str(path.readlink()))
        except FileNotFoundError:
            continue  # the listing itself
    return sorted(found)


@pytest.fixture(autouse=True)
def nothing_is_left(everything_url: str) -> Generator[None]:
    """Of whatever a test has started: no process, no socket, no warning about what was not closed."""
    gc.collect()
    processes, before = running(EVERYTHING) | running(FILESYSTEM), descriptors()
    yield
    # Now, so that its warnings are of this test.
    gc.collect()
    assert running(EVERYTHING) | running(FILESYSTEM) == processes
    assert descriptors() == before


@contextmanager
def everything_at(port: int) -> Generator[subprocess.Popen[bytes]]:
    """The server "everything" behind HTTP at ``port``."""
    null = subprocess.DEVNULL
    with subprocess.Popen(
        [NODE, EVERYTHING, "streamableHttp"], env={**os.environ, "PORT": str(port)}, stdout=null, stderr=null
    ) as process:
        try:
            wait_for(port)
            yield process
        finally:
            process.kill()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def everything_url() -> Generator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    with everything_at(port):
        yield f"http://127.0.0.1:{port}/mcp"
