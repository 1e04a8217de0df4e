"""A PostgreSQL server for tests, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["running_postgres"]


@contextmanager
def running_postgres(programs: Path) -> Generator[str]:
    """Start a server, and give its URL. When the block ends, it is gone, with all that it kept.

    Args:
      programs: the folder in which ``initdb`` and ``pg_ctl`` are.
    """
    folder = Path(tempfile.mkdtemp(prefix="agentloop-postgres-"))
    user = None
    if os.geteuid() == 0:
        # The server refuses to run as root, and another user may not look into the folder where its programs are.
        user = "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"
        shutil.chown(folder, user)
        if programs.resolve().is_relative_to("/usr"):
            programs = programs.resolve()
        else:
            programs = shutil.copytree(programs.parent, folder / "programs", symlinks=True) / programs.name
    port = _free_port()

    def run(*command: str) -> None:
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    data, log = str(folder / "data"), str(folder / "log")
    try:
        run(
            str(programs / "initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"
        )
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='{folder}' -c max_connections=50"
        )
        run(str(programs / "pg_ctl"), "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            yield f"postgresql://tester:a-secret@127.0.0.1:{port}/postgres"
        finally:
            run(str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
