"""Recognize keys, and remove them from text."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["REDACTED", "SHAPES", "redacted"]

REDACTED = "<redacted>"
"""Replaces a secret."""

SHAPES = (
    # OpenAI, Anthropic, OpenRouter, DeepSeek
    r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}",
    # an HTTP header
    r"(?i:(?<=bearer ))[A-Za-z0-9._~+/=-]{8,}",
    r"(?i:(?<=basic ))(?=\S*[0-9=])[A-Za-z0-9+/]{8,}={0,2}",
    # AWS, an access key's id
    r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}",
    # GitHub
    r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{16,}",
    r"github_pat_[A-Za-z0-9_]{20,}",
    # GitLab, Google, Hugging Face, Groq, xAI, Slack, npm
    r"(?<![A-Za-z0-9])(?:glpat-|AIza|hf_|gsk_|xai-|xox[abeprs]-|npm_)[A-Za-z0-9_-]{16,}",
    # a JSON web token
    r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    # a user's password in a URL
    r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----",
)
"""Regular expressions of the keys of common services."""

_NAMED = (
    # a header, as HTTP, JSON and `repr()` write it
    r"(?i:\b(?:proxy-)?authorization|\bx-(?:goog-)?api-key)\\?['\"]?\s*[:,]\s*b?\\?['\"]?(?:\w+ )?[^\s'\",\\]{4,}",
    # an argument or a field, whose value is a literal
    r"(?i:\bapi[-_]?key)\\?['\"]?\s*[:=]\s*b?\\?['\"][^\s'\"]{4,}",
)
"""Regular expressions of secrets of any shape, by their names."""

_PATTERN = re.compile("|".join(f"(?:{shape})" for shape in (*_NAMED, *SHAPES)), re.DOTALL)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Replace every ``secrets`` in ``text``, and all that looks like a key, with `REDACTED`."""
    # The longest first: a key may begin with another one.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    return _PATTERN.sub(REDACTED, text)
