"""The URL of an endpoint, made from the base URL that a user gives, and the credentials in it."""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import quote, unquote, urlsplit

from attrs import frozen

from agentloop.errors import UsageError

__all__ = ["Endpoint", "endpoint", "without_credentials"]

_PATH_CHARACTERS = "/%:@!$&'()*+,;=~-._"
"""The characters of a path that are sent as they are, besides letters and digits (RFC 3986, section 3.3)."""
_HOST = re.compile(r"[A-Za-z0-9._~%:\[\]-]+")
"""The characters of a host and a port."""
SHORTEST_PASSWORD = 4
"""Characters. A shorter password is not redacted."""
_QUERY_CHARACTERS = _PATH_CHARACTERS + "?[]"


@frozen
class Endpoint:
    """The place to which requests go."""

    url: str
    """The URL, without credentials."""
    headers: dict[str, str]
    """The header with the user and the password of the base URL; empty if it has none."""
    secrets: tuple[str, ...]
    """The password, and the user if there is no password: texts that an error must not show."""


def endpoint(base_url: str, path: str) -> Endpoint:
    """The endpoint ``path`` below ``base_url``.

    A query of the base URL comes after the path. A user and a password become basic authentication, as in curl. A base
    URL may end with the path, or with its beginning.

    Raises:
      UsageError: the base URL cannot be used. The message shows neither its credentials nor its query.
    """
    try:
        parts = urlsplit(base_url.strip())
        _ = parts.port  # raises a ValueError if it is no number
        host = parts.hostname if _HOST.fullmatch(parts.netloc.rpartition("@")[2]) else None
    except (ValueError, AttributeError):
        host = parts = None
    if parts is None or parts.scheme not in ("http", "https") or not host or not base_url.strip().isprintable():
        raise UsageError(
            f"{without_credentials(base_url)!r} is no URL of a model's server: give one such as "
            "http://localhost:8080/v1"
        )
    before = parts.path.rstrip("/")
    whole = _joined(before, path)
    query = f"?{quote(parts.query, safe=_QUERY_CHARACTERS)}" if parts.query else ""
    credentials, _, address = parts.netloc.rpartition("@")
    headers: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    if credentials:
        user, _, password = credentials.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}"
        encoded = b64encode(pair.encode()).decode("ascii")
        headers = {"Authorization": f"Basic {encoded}"}
        # A shorter password may occur in ordinary words.
        texts = (encoded, password or user, unquote(password or user))
        secrets = tuple(text for text in texts if len(text) >= SHORTEST_PASSWORD)
    return Endpoint(f"{parts.scheme}://{address}{quote(whole, safe=_PATH_CHARACTERS)}{query}", headers, secrets)


def _joined(before: str, path: str) -> str:
    """``before`` and ``path``, the part that the two have in common once.

    ``ANTHROPIC_BASE_URL`` is in use both with and without the version, and some users give the whole URL.
    """
    starts = [path[:index] for index, character in enumerate(path) if character == "/" and index] + [path]
    overlap = next((start for start in reversed(starts) if start and before.endswith(start)), "")
    return before.removesuffix(overlap) + path


def without_credentials(url: str) -> str:
    """``url`` without user, password, query and fragment, for a message. It need not be a valid URL."""
    scheme, separator, rest = url.rpartition("://") if url.count("://") == 1 else ("", "", url)
    # Up to the last @: a password that was not encoded may have any character.
    rest = rest.rpartition("@")[2]
    return scheme + separator + re.split(r"[?#]", rest, maxsplit=1)[0]
