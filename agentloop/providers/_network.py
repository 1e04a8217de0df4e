"""Whether models may use the network: in tests, mostly not.

An adapter takes part with one line before it sends: ``check_network(model=self.name, url=...)``.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from ipaddress import ip_address
from urllib.parse import urlsplit

from attrs import frozen

from agentloop.errors import UsageError

__all__ = [
    "NETWORK_VARIABLE",
    "NetworkForbiddenError",
    "allow_network_models",
    "check_network",
    "for_recording",
    "forbid_network_models",
]

NETWORK_VARIABLE = "AGENTLOOP_NETWORK_MODELS"
"""An environment variable: ``forbid`` forbids them in this process and in those it starts, whatever the code says."""


class NetworkForbiddenError(UsageError):
    """A model behind a network was about to be used where that is forbidden."""

    def __init__(self, *, model: str, url: str, by: str, agent: str = "") -> None:
        who = f"agent {agent!r} may not use the model {model!r}" if agent else f"the model {model!r} may not be used"
        super().__init__(
            f"{who} here: it is at {url}, and models behind a network are forbidden by {by}. "
            "Give the agent another model (`with agent.override(model=ScriptedModel(...))`), play recorded responses "
            "(agentloop.testing.cassette), use a server on this machine (loopback is allowed), or lift it for a while "
            "(agentloop.testing.allow_network_models)"
        )
        self.model = model
        self.url = url
        """Where it is: scheme, host and port."""
        self.by = by
        """What forbids it."""
        self.agent = agent
        """The agent's name; empty if the model was asked without one being known."""


@frozen(eq=False)
class _Rule:
    forbids: bool
    by: str


_rules: list[_Rule] = []
"""Those in force, in the order in which they were entered."""

_recording: ContextVar[bool] = ContextVar("agentloop_recording", default=False)


def forbid_network_models(*, by: str = "forbid_network_models()") -> AbstractContextManager[None]:
    """While the block runs, no model of this process uses the network, in whatever task or thread.

    A ``"provider:model"`` name is refused when an agent is opened with it, an adapter when it is about to send. A
    server on this machine (``localhost``, ``127.0.0.1``, ``::1``) may be used.

    Args:
      by: what the error says has forbidden it.
    """
    return _in_force(_Rule(forbids=True, by=by))


def allow_network_models() -> AbstractContextManager[None]:
    """While the block runs, models may use the network although a block around this one forbids it.

    What the environment variable ``AGENTLOOP_NETWORK_MODELS=forbid`` forbids stays forbidden.
    """
    return _in_force(_Rule(forbids=False, by=""))


@contextmanager
def _in_force(rule: _Rule) -> Generator[None]:
    _rules.append(rule)
    try:
        yield
    finally:
        # That very one: blocks of several threads, or of several tasks, end in any order.
        _rules.remove(rule)


@contextmanager
def for_recording() -> Generator[None]:
    """While the block runs, this task, and what it starts, may use the network, as `allow_network_models`."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


def check_network(*, model: str, url: str, agent: str = "") -> None:
    """Return if ``model`` may be used now. To be called by an adapter that is about to send.

    Args:
      model: what errors call it.
      url: where the request goes.
      agent: the agent's name, if it is known.

    Raises:
      NetworkForbiddenError: models behind a network are forbidden, and ``url`` is not on this machine.
      UsageError: the environment variable says something that it cannot.
    """
    by = _forbidden_by()
    if by and not _is_loopback(url):
        raise NetworkForbiddenError(model=model, url=_place(url), by=by, agent=agent)


def _forbidden_by() -> str:
    given = os.environ.get(NETWORK_VARIABLE, "")
    if given == "forbid":
        return f"the environment variable {NETWORK_VARIABLE}"
    if given not in ("", "allow"):
        # Whoever has set it believes that the network is forbidden.
        raise UsageError(f"the environment variable {NETWORK_VARIABLE} is `forbid` or `allow`, not {given!r}")
    if not _rules or not _rules[-1].forbids or _recording.get():
        return ""
    return _rules[-1].by


def _is_loopback(url: str) -> bool:
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _place(url: str) -> str:
    """``url`` without what may be a secret: user, password, path and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
