"""The server behind HTTP that the tests start ends with the tests, whatever ends them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mcp.conftest import start_playground, wait_for
from tests.mcp.support import alive

UNUSED_PORT = 9


def test_a_server_that_starts_late_is_killed() -> None:
    with pytest.raises(TimeoutError), start_playground(UNUSED_PORT) as process:
        wait_for(UNUSED_PORT, seconds=0)

    assert process.returncode is not None


def test_the_server_exits_when_the_process_that_started_it_is_killed() -> None:
    program = """
import os, signal, socket
from tests.mcp.conftest import start_playground, wait_for
with socket.create_server(("127.0.0.1", 0)) as listener:
    port = listener.getsockname()[1]
with start_playground(port) as process:
    wait_for(port)
    print(process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    server = int(done.stdout)

    deadline = time.monotonic() + 30
    while alive(server) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(server)
