"""The official conformance suite, on a server of `agentloop.serving` (`tests.conformance.server`).

Not run, and why: the extensions, ``sep-2640-...`` and ``tasks-...``, which the server does not advertise.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from tests.conformance.conftest import NODE, SUITE

ROOT = Path(__file__).parents[2]

Checks: TypeAlias = Mapping[str, Sequence[tuple[str, str]]]
"""The id of each check with its status and message, by scenario."""

REVISIONS = ("2025-06-18", "2025-11-25", "2026-07-28")

WARNINGS: Mapping[str, str] = {
    # A call whose client goes away is stopped, so that nobody pays for a result that nobody reads. The transport
    # therefore keeps no messages for a client that connects again; the session of the agent has the conversation.
    "server-sse-priming-event": "a response is not kept for a client that connects again",
    "server-sse-retry-field": "a response is not kept for a client that connects again",
}
"""The warnings of the suite that stay, each with its reason."""


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "tests.conformance.server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
            process.terminate()
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 0
            assert "agentloop" not in errors, errors
        finally:
            process.kill()


def suite(*arguments: str) -> str:
    env = {**os.environ, "NO_COLOR": "1"}
    ran = subprocess.run([NODE, SUITE, *arguments], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module", params=REVISIONS)
def checks(
    request: pytest.FixtureRequest, address: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Checks]:
    """The checks of one revision: the suite runs all of its scenarios at once."""
    folder = tmp_path_factory.mktemp("checks")
    suite("server", "--url", f"{address}/mcp", "--suite", "all", "--spec-version", request.param, "-o", str(folder))
    found: dict[str, list[tuple[str, str]]] = {}
    for path in folder.glob("server-*/checks.json"):
        [(scenario,)] = [match.groups() for match in re.finditer(r"^server-(.*?)-\d{4}-\d\d-\d\dT", path.parent.name)]
        listed: list[dict[str, Any]] = msgspec.json.decode(path.read_bytes())
        found[scenario] = [(check["id"], f"{check['status']} {check.get('errorMessage', '')}") for check in listed]
    return request.param, found


def test_every_scenario_of_the_revision_has_run(checks: tuple[str, Checks]) -> None:
    revision, found = checks
    listed = re.findall(r"^ +- (\S+) \[(.*)\]$", suite("list", "--server"), re.MULTILINE)
    assert found.keys() == {name for name, revisions in listed if revision in revisions.split(",")}
    assert len(found) > 20


def test_no_check_fails_and_each_warning_has_a_reason(checks: tuple[str, Checks]) -> None:
    _, found = checks
    statuses = [check for of_scenario in found.values() for check in of_scenario]
    assert not [check for check in statuses if check[1].startswith("FAILURE")]
    assert {id for id, status in statuses if status.startswith("WARNING")} <= WARNINGS.keys()
    assert sum(status.startswith("SUCCESS") for _, status in statuses) > 50
