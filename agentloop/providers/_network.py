"""The rule whether models may use the network. Most tests forbid it.

An adapter obeys the rule with one line before it sends: ``check_network(model=self.name, url=...)``.
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
"""An environment variable: ``forbid`` forbids network models in this process and its children, and no code can allow
them."""


class NetworkForbiddenError(UsageError):
    """A model behind a network was about to be used where network models are forbidden.

    Override the agent's model, play recorded responses, or allow the network with `allow_network_models`.
    """

    def __init__(self, *, model: str, url: str, by: str, agent: str = "") -> None:
        who = f"agent {agent!r} may not use the model {model!r}" if agent else f"the model {model!r} may not be used"
        super().__init__(
            f"{who} here: it is at {url}, and models behind a network are forbidden by {by}. "
            "Give the agent another model (`with agent.override(model=ScriptedModel(...))`), play recorded responses "
            "(agentloop.testing.cassette), use a server on this machine (loopback is allowed), or lift it for a while "
            "(agentloop.testing.allow_network_models)"
        )
        self.model = model
        """The model's name."""
        self.url = url
        """Scheme, host and port of the model's server."""
        self.by = by
        """The rule that forbids it: a function, or the environment variable."""
        self.agent = agent
        """The agent's name; empty if no agent is known."""


@frozen(eq=False)
class _Rule:
    forbids: bool
    by: str
    """The rule's name in errors."""


_rules: list[_Rule] = []
"""The rules in force, in the order in which their blocks were entered. The last one decides."""

_recording: ContextVar[bool] = ContextVar("agentloop_recording", default=False)


def forbid_network_models(*, by: str = "forbid_network_models()") -> AbstractContextManager[None]:
    """While the block runs, no model of this process may use the network, in any task or thread.

    A ``"provider:model"`` name is refused when an agent is opened with it, an adapter when it is about to send a
    request. A server on this machine (``localhost``, ``127.0.0.1``, ``::1``) may be used.

    Args:
      by: the name of the rule, for the error.
    """
    return _in_force(_Rule(forbids=True, by=by))


def allow_network_models() -> AbstractContextManager[None]:
    """While the block runs, models may use the network although a block around this one forbids it.

    The environment variable ``AGENTLOOP_NETWORK_MODELS=forbid`` still forbids it.
    """
    return _in_force(_Rule(forbids=False, by=""))


@contextmanager
def _in_force(rule: _Rule) -> Generator[None]:
    _rules.append(rule)
    try:
        yield
    finally:
        # By identity: blocks of several threads, or of several tasks, end in any order.
        _rules.remove(rule)


@contextmanager
def for_recording() -> Generator[None]:
    """`allow_network_models` for this task, and for the tasks that it starts, while the block runs."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


def check_network(*, model: str, url: str, agent: str = "") -> None:
    """Return if ``model`` may be used now. An adapter calls it before it sends.

    Args:
      model: the model's name, for errors.
      url: the URL of the request.
      agent: the agent's name, if it is known.

    Raises:
      NetworkForbiddenError: models behind a network are forbidden, and ``url`` is not on this machine.
      UsageError: the environment variable has an unknown value.
    """
    by = _forbidden_by()
    if by and not _is_loopback(url):
        raise NetworkForbiddenError(model=model, url=_origin(url), by=by, agent=agent)


def _forbidden_by() -> str:
    value = os.environ.get(NETWORK_VARIABLE, "")
    if value == "forbid":
        return f"the environment variable {NETWORK_VARIABLE}"
    if value not in ("", "allow"):
        # An error, since the user who set it may believe that the network is forbidden.
        raise UsageError(f"the environment variable {NETWORK_VARIABLE} is `forbid` or `allow`, not {value!r}")
    if not _rules or not _rules[-1].forbids or _recording.get():
        return ""
    return _rules[-1].by


def _is_loopback(url: str) -> bool:
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _origin(url: str) -> str:
    """``url`` without what may be a secret: user, password, path and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
