"""Whatever a test of an adapter does: when it is over, it has left no socket open."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from agentloop._core.retries import Cooldowns
from agentloop._runtime import model_call

DESCRIPTORS = Path("/proc/self/fd")


def open_sockets() -> set[str]:
    sockets: set[str] = set()
    for entry in DESCRIPTORS.iterdir() if DESCRIPTORS.exists() else ():
        try:
            target = str(entry.readlink())
        except OSError:
            continue  # the descriptor with which the folder was read
        if target.startswith("socket:"):
            sockets.add(target)
    return sockets


@pytest.fixture(scope="package", autouse=True)
def what_is_there_already_is_no_garbage() -> Generator[None]:
    """Keep it out of the collections below, each of which would else take longer than most of the tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_socket_is_left() -> Generator[None]:
    before = open_sockets()
    yield
    # Before a garbage collection, which would close some of them, and hide that nobody else did.
    left = open_sockets() - before
    gc.collect()
    assert not left


@pytest.fixture(autouse=True)
def no_cooldown_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose port was used before is another one."""
    monkeypatch.setattr(model_call, "_COOLDOWNS", Cooldowns())


@pytest.fixture(autouse=True)
def no_proxy_and_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests have an environment of their own."""
    for variable in list(os.environ):
        if variable.upper().endswith(("_PROXY", "_API_KEY", "_BASE_URL")):
            monkeypatch.delenv(variable)
