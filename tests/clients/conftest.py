"""A server of the README's one line, and programs from npm: the session `clients` of nox installs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

PACKAGES = os.environ.get("CLIENT_PACKAGES", "")
if not PACKAGES:
    raise pytest.UsageError("these tests need programs from npm: nox -s clients")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The address of a server, which drains at the end and leaves without an error."""
    store = str(tmp_path_factory.mktemp("store") / "chats.db")
    command = [
        sys.executable,
        "-m",
        "agentloop",
        "serve",
        "tests.clients.served:agent",
        "--port",
        "0",
        "--store",
        store,
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            # The line before says where the sessions are.
            lines = [process.stderr.readline(), process.stderr.readline()]
            match = re.search(r"serving at (http://\S+)", lines[-1])
            assert match, lines
            yield match[1]
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 0
            assert "Traceback" not in errors
        finally:
            process.kill()


@pytest.fixture
def run_script(server: str) -> Callable[[str], Any]:
    """Runs a script beside this file in node, where the packages are, and gives the JSON that it prints."""

    def run(name: str) -> Any:
        script = Path(shutil.copy(HERE / name, Path(PACKAGES).parent))
        command = ["node", str(script), server]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
