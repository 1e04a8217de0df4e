"""The official conformance suite, on a client that is an agent (`tests.conformance.client`).

Not run, and why: ``auth/...``, since agentloop has no OAuth of its own, but takes any ``httpx2.Auth``, such as that of
the SDK; and the extensions, ``sep-2640-...``, since they are about the resources of a server, of which an agent sees
only those that are in results.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.conformance.conftest import NODE, SUITE

ROOT = Path(__file__).parents[2]

SCENARIOS = {
    "2025-06-18": ("initialize", "tools_call"),
    "2025-11-25": (
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "sse-retry",
        "json-schema-2020-12-preservation",
    ),
    "2026-07-28": (
        "tools_call",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ),
}


def suite(*arguments: str) -> subprocess.CompletedProcess[str]:
    # By default, warnings are not shown at the end of a process.
    env = {**os.environ, "PYTHONWARNINGS": "always::ResourceWarning", "NO_COLOR": "1"}
    return subprocess.run(
        [NODE, SUITE, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("revision", "scenario"), [(revision, name) for revision, names in SCENARIOS.items() for name in names]
)
def test_the_client_passes(revision: str, scenario: str, tmp_path: Path) -> None:
    command = shlex.join([sys.executable, "-m", "tests.conformance.client"])
    ran = suite(
        *("client", "--command", command, "--scenario", scenario, "--spec-version", revision),
        *("--timeout", "90000", "--output-dir", str(tmp_path)),
    )
    report = f"{ran.stdout}\n{ran.stderr}"
    assert ran.returncode == 0, report
    # The suite forgives a client that fails in some scenarios; we do not.
    assert "CLIENT EXITED WITH ERROR" not in report, report
    [checks] = tmp_path.glob("*/checks.json")
    found = Counter(check["status"] for check in msgspec.json.decode(checks.read_bytes()))
    assert found["SUCCESS"] > 0, report
    assert found["FAILURE"] == found["WARNING"] == 0, report
    assert "Traceback" not in report, report
    assert "Exception ignored" not in report, report


def test_no_scenario_is_left_out() -> None:
    """A newer suite may know more of them; what is not run is named at the top of this file."""
    listed = re.findall(r"^ +- (\S+) \[(.*)\]$", suite("list", "--client").stdout, re.MULTILINE)
    for revision, names in SCENARIOS.items():
        known = {name for name, revisions in listed if revision in revisions.split(",")}
        assert {name for name in known if not name.startswith("auth/")} == set(names)
        assert any(name.startswith("auth/") for name in known)
