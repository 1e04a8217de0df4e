"""Whatever a test does with servers: when it is over, no process of it is left."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHILDREN = Path("/proc/self/task")


def children() -> set[str]:
    """The process ids of our children, as far as the system tells."""
    found: set[str] = set()
    for task in CHILDREN.iterdir() if CHILDREN.exists() else ():
        try:
            found.update((task / "children").read_text().split())
        except OSError:
            continue  # a thread that has just ended, or a system that does not tell
    return found


@pytest.fixture(autouse=True)
def no_process_is_left() -> Generator[None]:
    before = children()
    yield
    assert children() - before == set()


@pytest.fixture(scope="session")
def playground_url() -> Generator[str]:
    """The playground behind HTTP, in a process of its own, for both eras of the protocol."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    with start_playground(port):
        wait_for(port)
        yield f"http://127.0.0.1:{port}/mcp"


@contextmanager
def start_playground(port: int) -> Generator[subprocess.Popen[bytes]]:
    """Serve the playground at ``port``, until the block is left in whatever way, or until this process has died.

    The server reads its input, which ends with this process.
    """
    command = [sys.executable, "-m", "tests.mcp.servers.playground", str(port)]
    with subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            # Else leaving the block of `Popen` would wait for the server, which serves for ever.
            process.kill()


def wait_for(port: int, *, seconds: float = 30) -> None:
    """Wait until a server listens at ``port``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"no server listens at port {port}")
