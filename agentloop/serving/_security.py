"""Who may ask the server for something: principals, hosts and origins. Decisions about one request, without I/O.

A principal is the name of a person or a program on whose behalf a request comes. A session belongs to the principal
that began it: its id begins with a digest of the principal's name, so that no request can name a session of another
principal.

- Without an authenticator, the server answers only requests from the machine itself, for one principal.
- The ``Host`` of a request is checked, since a page may give its own domain the address of this machine (DNS
  rebinding). An address of digits cannot be given away like this.
- The ``Origin`` of a request is checked, since a page may send requests in the name of the person who reads it. CORS is
  closed but for the origins that the program lists.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from attrs import field, frozen

from agentloop.errors import UsageError
from agentloop.serving._errors import Refusal

__all__ = [
    "LOCAL",
    "Authenticator",
    "BearerTokens",
    "ClientRequest",
    "Sites",
    "check_local",
    "check_site",
    "is_loopback",
    "is_session_of",
    "named_session",
    "new_session",
    "owner_prefix",
]

LOCAL = "local"
"""The principal of all requests, where there is no authenticator."""

LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})

FORWARDED = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "via",
    "cf-connecting-ip",
    "true-client-ip",
)
"""Headers of a proxy. A request with one of them comes from elsewhere, however near the proxy is."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+?)\.?(?::[0-9]{1,5})?", re.IGNORECASE)
"""The value of a ``Host`` header. A name may have the dot at its end that says that it is complete."""

_REST = re.compile(r"[A-Za-z0-9_.:-]{1,150}")
"""The part after the prefix, in ids that `new_session` and `named_session` make. Every store can save such an id."""


@frozen(kw_only=True)
class ClientRequest:
    """The head of a request, as an authenticator sees it."""

    method: str
    """The method, such as ``POST``."""
    path: str
    """The path, without the query."""
    headers: Mapping[str, str] = field(repr=False)
    """The headers, by name in lower case. Of a header that comes several times, the values are joined by commas."""
    client: str = ""
    """The address of the client, or of the proxy in front of the server; empty if it is not known."""


Authenticator: TypeAlias = Callable[[ClientRequest], "str | Awaitable[str | None] | None"]
"""A function that gives the principal of a request, or ``None`` to refuse the request."""


class BearerTokens:
    """An authenticator: each principal has a token, which its requests carry as ``Authorization: Bearer ...``.

    ::

        serving.app(agent, authenticate=BearerTokens({os.environ["ANN_TOKEN"]: "ann"}))

    Args:
      principals: the principal of each token. A token has 16 characters at least: ``secrets.token_urlsafe()`` makes
        one.

    Raises:
      UsageError: there is no token, or one is too short, or belongs to no principal.
    """

    def __init__(self, principals: Mapping[str, str]) -> None:
        if not principals:
            raise UsageError("BearerTokens needs a token at least: BearerTokens({token: 'ann'})")
        if any(len(token) < 16 for token in principals):
            raise UsageError("a bearer token has 16 characters at least: secrets.token_urlsafe() makes one")
        if not all(principals.values()):
            raise UsageError("each bearer token belongs to a principal, whose name is some text")
        # Digests have one length, so that comparing them takes the same time for every token.
        self._principals = {_digest(token): principal for token, principal in principals.items()}

    def __call__(self, request: ClientRequest) -> str | None:
        """The principal whose token the request carries."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        presented, principal = _digest(token.strip()), None
        for digest, owner in self._principals.items():
            if hmac.compare_digest(digest, presented):
                principal = owner
        return principal

    def __repr__(self) -> str:
        return f"<BearerTokens of {len(self._principals)} principals>"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


# ------------------------------------------------------------------------ hosts and origins


@frozen
class Sites:
    """The names under which the server is known, and the origins of other sites whose pages may use it."""

    hosts: frozenset[str]
    """Names of hosts, in lower case and without ports."""
    origins: frozenset[str]
    """Origins, such as ``https://chat.example.com``."""

    @classmethod
    def of(cls, hosts: Sequence[str], origins: Sequence[str]) -> Sites:
        """Check what the program lists.

        Raises:
          UsageError: a host is no name, or an origin is no origin. ``*`` is neither.
        """
        for host in hosts:
            if not re.fullmatch(r"[A-Za-z0-9.-]+", host):
                raise UsageError(f"hosts= lists names such as 'chat.example.com', without a port, and not {host!r}")
        for origin in origins:
            if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", origin):
                raise UsageError(f"origins= lists origins such as 'https://chat.example.com', and not {origin!r}")
        return cls(frozenset(map(str.lower, hosts)), frozenset(map(str.lower, origins)))


def check_site(sites: Sites, headers: Mapping[str, str]) -> str:
    """Check the ``Host`` and the ``Origin`` of a request.

    Returns:
      The origin, if it is one that `Sites.origins` lists, for the headers of CORS; else an empty text.

    Raises:
      Refusal: the request comes for another host, or from a page of another site.
    """
    authority = headers.get("host", "").lower()
    host = _name_of(authority)
    if not (is_loopback(host) or _is_address(host) or host in sites.hosts):
        raise Refusal(421, f"this server is not known as {authority[:100]!r}: list the name in hosts=")
    origin = headers.get("origin", "").lower()
    if origin and origin in sites.origins:
        return origin
    # A page of the server itself. The scheme may differ, behind a proxy that ends TLS.
    if origin and origin not in (f"http://{authority}", f"https://{authority}"):
        raise Refusal(403, f"pages of {origin[:100]!r} may not use this server: list the origin in origins=")
    if not origin and headers.get("sec-fetch-site", "") in ("cross-site", "same-site"):
        raise Refusal(403, "pages of other sites may not use this server: list their origin in origins=")
    return ""


def check_local(client: str, headers: Mapping[str, str]) -> None:
    """Check that a request comes from this machine, where there is no authenticator.

    A proxy on this machine that sets none of these headers passes for the machine itself, unless it passes the ``Host``
    of its clients on, which names another machine.

    Raises:
      Refusal: it comes from elsewhere, or through a proxy.
    """
    host = _name_of(headers.get("host", "").lower())
    if not (is_loopback(client) and is_loopback(host)) or any(name in headers for name in FORWARDED):
        raise Refusal(403, "this server has no authenticator, so it answers only requests of its own machine")


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, is this machine's own and cannot be reached from another one."""
    host = host.lower().strip("[]")
    if host in LOOPBACK_NAMES or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _name_of(authority: str) -> str:
    """The host of ``host:port``; empty if ``authority`` has another form, so that no part of it counts as a host."""
    match = _AUTHORITY.fullmatch(authority)
    return match[1] if match else ""


# -------------------------------------------------------------------------------- sessions


def owner_prefix(principal: str) -> str:
    """The beginning of the ids of all sessions of ``principal``: 100 bits of a digest of its name."""
    return base64.b32encode(_digest(principal)).decode().lower()[:20] + "-"


def is_session_of(principal: str, id: str) -> bool:
    """Whether ``id`` is the id of a session of ``principal``, which need not exist."""
    prefix = owner_prefix(principal)
    return id.startswith(prefix) and _REST.fullmatch(id, len(prefix)) is not None


def new_session(principal: str) -> str:
    """An id for a new session of ``principal``, which cannot be guessed."""
    return owner_prefix(principal) + secrets.token_urlsafe(16)


def named_session(principal: str, name: str) -> str:
    """The id of the session of ``principal`` that the client calls ``name``, as an AG-UI client names its threads."""
    if not _PLAIN.fullmatch(name):
        name = "n:" + base64.b32encode(_digest(name)).decode().lower().rstrip("=")
    return f"{owner_prefix(principal)}{name}"
