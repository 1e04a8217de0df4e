"""Text that may be shown: without keys, which are recognized, and with nothing that a terminal obeys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from agentloop._core.on_first_use import unquote_plus, urlsplit

__all__ = [
    "REDACTED",
    "SHAPES",
    "SHAPES_BY_KIND",
    "names_a_secret",
    "redacted",
    "redacted_arguments",
    "redacted_url",
    "secrets_of_arguments",
    "secrets_of_fields",
    "secrets_of_url",
    "visible",
]

REDACTED = "<redacted>"
"""Replaces a secret."""

SHAPES_BY_KIND = (
    # OpenAI, Anthropic, OpenRouter, DeepSeek
    ("api-key", r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}"),
    # an HTTP header
    ("token", r"(?i:(?<=bearer ))[A-Za-z0-9._~+/=-]{8,}"),
    ("password", r"(?i:(?<=basic ))(?=\S*[0-9=])[A-Za-z0-9+/]{8,}={0,2}"),
    # AWS, an access key's id
    ("aws-key", r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}"),
    # GitHub
    ("github-token", r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{16,}"),
    ("github-token", r"github_pat_[A-Za-z0-9_]{20,}"),
    # GitLab, Google, Hugging Face, Groq, xAI, Slack, npm; Stripe, PyPI, Docker, DigitalOcean, Shopify, Grafana
    (
        "token",
        r"(?<![A-Za-z0-9])(?:glpat-|AIza|ya29\.|hf_|gsk_|xai-|xox[abeprs]-|xapp-|npm_)[A-Za-z0-9_-]{16,}",
    ),
    ("token", r"(?<![A-Za-z0-9])(?:[prs]k_(?:live|test)_|whsec_|pypi-|dckr_pat_|do[oprt]_v1_)[\w-]{16,}"),
    ("token", r"(?<![A-Za-z0-9])(?:shp(?:at|ca|pa|ss)_|gls?a_)[\w-]{16,}"),
    # Perplexity, Cerebras, NVIDIA, Tavily, Replicate, Fireworks, Linear, Notion, Databricks, Vault, SendGrid, Telegram
    (
        "token",
        r"(?<![A-Za-z0-9])(?:pplx-|csk-|nvapi-|tvly-|r8_|fw_|lin_api_|ntn_|dapi|hv[bs]\.)(?=[\w-]*\d)[\w-]{20,}",
    ),
    ("token", r"(?<![A-Za-z0-9])SG\.[\w-]{16,}\.[\w-]{16,}"),
    ("token", r"(?<!\d)\d{8,10}:AA[\w-]{30,}"),
    # a JSON web token
    ("jwt", r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    # a user's password in a URL
    ("password", r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)"),
    # a user of a URL that is a key
    ("token", r"(?<=://)[A-Za-z0-9_.~-]{16,}(?=@)"),
    # Up to the end of a text that was cut. Not across the next beginning: the time would grow as the square of many.
    (
        "private-key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:(?!-----BEGIN).)*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    ),
)
"""Regular expressions of the keys of common services, each with the kind of secret that it finds."""

SHAPES = tuple([shape for _, shape in SHAPES_BY_KIND])
"""Regular expressions of the keys of common services."""

_NAMED = (
    # a header, as HTTP, JSON and `repr()` write it
    r"(?i:\b(?:proxy-)?authorization|\bx-(?:goog-)?api-key)\\?['\"]?\s*[:,]\s*b?\\?['\"]?(?:\w+ )?[^\s'\",\\]{4,}",
    # an argument or a field, whose value is a literal
    r"(?i:\bapi[-_]?key)\\?['\"]?\s*[:=]\s*b?\\?['\"][^\s'\"]{4,}",
    r"(?im:(?<![\w-])(?:set-)?cookie\s*:\s*)[^\r\n]{4,}",
)
"""Regular expressions of secrets of any shape, by their names."""

# The patterns here are texts, each of which `re` compiles at its first use, and caches: to compile all of them takes
# a tenth of the time to import agentloop.
_PATTERN = "(?s)" + "|".join(f"(?:{shape})" for shape in (*_NAMED, *SHAPES))


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Replace every ``secrets`` in ``text``, and all that looks like a key, with `REDACTED`."""
    # The longest first: a key may begin with another one.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    return re.sub(_PAIR_IN_TEXT, _without_secret, re.sub(_PATTERN, REDACTED, text))


_PAIR_IN_TEXT = (
    r"(?<![\w.-])(?P<name>[A-Za-z][\w.-]{0,60})(?P<end>\\?['\"])?(?P<sign>\s{0,2}[=:]\s{0,2}b?(?:\\?['\"])?)"
    r"(?P<value>(?!//)[^\s'\",;&\\<>]{4,})"
)
"""A name and its value, as headers, URLs, JSON, settings and command lines write them."""


def _without_secret(pair: re.Match[str]) -> str:
    name, value, sign = pair["name"], pair["value"], pair["sign"]
    # "key" alone has a secret in the query of a URL, and an ordinary word elsewhere.
    in_query = pair.start() > 0 and pair.string[pair.start() - 1] in "?&"
    # "Unexpected token: else" has none: behind a colon, the name is quoted too, or the value has a digit.
    is_value = "=" in sign or pair["end"] is not None or any(character.isdigit() for character in value)
    is_plain = value.lower() in _NO_SECRETS or value.startswith(("$", "/"))
    if not is_value or is_plain or not names_a_secret(name, bare_key=in_query):
        return pair[0]
    return f"{name}{pair['end'] or ''}{sign}{REDACTED}"


_NO_SECRETS = ("none", "null", "true", "false", "missing", "required", "empty")
"""Values that explain why a secret is not there."""


# ------------------------------------------------------------------ names of secrets

SHORTEST = 4
"""Characters. A shorter value of a secret's name occurs in ordinary words, and is not replaced in other texts."""

_SECRET_WORD = (
    "(api|access|auth|private|secret)(key|token)s?|authorization|bearer|cookie|credentials?|"  # noqa: S105  # a pattern
    "jwt|pass(code)?|[a-z]*pass(phrase|wd|words?)|pwd|secrets?|token"
)
_KEY_WORD = "access|account|api|app|auth|client|encryption|licen[cs]e|master|private|secret|subscription"
"""The words before ``key`` that make it a secret: the key of a map or of an issue is none."""
_HARMLESS_KEY = "cache|foreign|group|issue|partition|primary|public|row|sort"
"""The words before ``key`` that make it none, where ``key`` alone is a secret."""
_TRAILING_WORD = r"\d+|again|confirm(ation)?|field|here|input|please|repeat(ed)?|retype|string|text|value"
"""The words after the name of a secret that leave it one, as in ``password_confirmation``."""
_PREPOSITIONS = r"\b(?:at|by|for|from|in|of|on|that|to|used|which|with)\b.*"
_CAMEL = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"


def names_a_secret(name: str, *, bare_key: bool = False) -> bool:
    """Whether ``name``, of a field or an option, says that its value is a secret.

    The noun decides: ``access_token`` and ``Password for ada`` name secrets, ``max_tokens``, ``password_length`` and
    ``Name of the secret`` do not.

    Args:
      bare_key: whether ``key`` without another word is a secret, as in ``?key=`` of a URL.
    """
    text = re.sub(r"\(.*?\)", " ", re.sub(_CAMEL, " ", name[:200])).lower()
    words = re.findall(r"[^\W_]+", re.sub(_PREPOSITIONS, "", re.sub(r"[_-]", " ", text)))
    while len(words) > 1 and re.fullmatch(_TRAILING_WORD, words[-1]):
        words.pop()
    if not words:
        return False
    last = re.sub(r"\d+$", "", words[-1])
    if last in ("key", "keys"):
        before = words[-2] if len(words) > 1 else ""
        return re.fullmatch(_HARMLESS_KEY, before) is None if bare_key else re.fullmatch(_KEY_WORD, before) is not None
    return re.fullmatch(_SECRET_WORD, last) is not None or (
        bare_key and last in ("auth", "sig", "signature", "code", "pat")
    )


def secrets_of_fields(fields: Mapping[str, str]) -> set[str]:
    """The values of those ``fields``, such as headers or variables, whose names say that they are secrets."""
    values = [value.strip() for name, value in fields.items() if names_a_secret(name, bare_key=True)]
    # `Bearer abc`: a server may repeat the second word alone.
    return _of_some_length([*values, *(value.split()[-1] for value in values if value)])


def _of_some_length(values: Iterable[str]) -> set[str]:
    return {value for value in values if len(value) >= SHORTEST}


# ------------------------------------------------------------------------------- URLs

_LOOKS_RANDOM = r"(?=[^a-zA-Z]*[a-zA-Z])(?=\D*\d)[A-Za-z0-9_.~+=-]{16,}"
"""A key of no known shape, such as services put into the path of a URL."""


def redacted_url(url: str) -> str:
    """``url`` without the user, the values of the query, and the parts of the path that look like keys."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    match = re.match(r"([^/?#]*)([^?#]*)(.*)", rest, re.DOTALL)
    assert match is not None
    authority, path, query = match.groups()
    if "@" in authority:
        authority = f"{REDACTED}@{authority.rpartition('@')[2]}"
    path = re.sub(r";([^=;/]+)(=[^;/]*)?", lambda part: f";{_without_value(part[1], part[2])}", path)
    path = "/".join(REDACTED if re.fullmatch(_LOOKS_RANDOM, part) else part for part in path.split("/"))
    # A part of the query without a name may be the key itself.
    query = re.sub(r"(?<=[?&#;])([^=&#;]+)(=[^&#;]*)?", lambda part: _without_value(part[1], part[2]), query)
    return redacted(scheme + separator + authority + path + query)


def _without_value(name: str, value: str | None) -> str:
    if value is None:
        return REDACTED
    return f"{name}={REDACTED}" if value[1:] else f"{name}="


def secrets_of_url(url: str) -> set[str]:
    """The texts that `redacted_url` takes out of ``url``, except for short values of ordinary options."""
    try:
        _, location, path, query, _ = urlsplit(url)
    except ValueError:
        # A URL that cannot be read is shown in no other way than by `redacted_url`.
        return set()
    user, colon, password = location.rpartition("@")[0].partition(":")
    # A user without a password may be a key; another one is an ordinary word.
    found = {password if colon else user}
    found.update(part for part in path.split("/") if re.fullmatch(_LOOKS_RANDOM, part))
    for option in re.split("[&;]", query):
        name, equals, value = option.partition("=")
        value = value if equals else name
        if (equals and names_a_secret(name, bare_key=True)) or len(value) >= 2 * SHORTEST:
            found.add(value)
    return _of_some_length({form for text in found for form in (text, unquote_plus(text))})


# --------------------------------------------------------------------------- programs

_OPTION = r"(?s)-{0,2}([A-Za-z][\w.-]*)\s*[=:]\s*(.+)"
_PAIR = r"(?=(?<![\w.-])([A-Za-z][\w.-]*)=([^;&\s'\"]+))"
"""Pairs inside of an argument, such as ``Server=h;Password=x`` or ``--env=TOKEN=x``."""
_JSON_FIELD = r"['\"]([\w.-]+)['\"]\s*:\s*['\"]([^'\"]+)['\"]"


def redacted_arguments(arguments: Sequence[str]) -> tuple[str, ...]:
    """``arguments`` of a program without the secrets among them."""
    secrets = secrets_of_arguments(arguments)
    return tuple(
        redacted(redacted_url(argument) if "://" in argument else argument, secrets | {*_values(arguments, index)})
        for index, argument in enumerate(arguments)
    )


def secrets_of_arguments(arguments: Sequence[str]) -> set[str]:
    """The secrets among the ``arguments`` of a program: by the names of options, and in URLs."""
    found = {value for index in range(len(arguments)) for value in _values(arguments, index)}
    for argument in arguments:
        if "://" in argument:
            found.update(secret for url in re.findall(r"\w+://\S+", argument) for secret in secrets_of_url(url))
    return _of_some_length(found)


def _values(arguments: Sequence[str], index: int) -> Iterator[str]:
    """The secrets in the argument at ``index``."""
    argument = arguments[index]
    before = arguments[index - 1] if index else ""
    is_value = before.startswith("-") and "=" not in before and not argument.startswith("-")
    if is_value and names_a_secret(before, bare_key=True):
        yield argument
    for name, value in re.findall(_JSON_FIELD, argument):
        if names_a_secret(name, bare_key=True):
            yield value
    for name, value in re.findall(_PAIR, argument):
        if names_a_secret(name, bare_key=True):
            yield value
    option = re.fullmatch(_OPTION, argument)
    if option is not None and names_a_secret(option[1], bare_key=True):
        yield option[2]
        yield from option[2].split()[-1:]
    elif re.fullmatch(_LOOKS_RANDOM, argument) and not argument.startswith("-") and not {*".="} & {*argument}:
        yield argument


# ------------------------------------------------------------ what a terminal obeys

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, overrides of the direction, and halves of a character."""


def visible(text: str) -> str:
    r"""``text`` from outside, with escapes such as ``\x1b`` in the place of those characters, for errors and logs."""
    return _OBEYED.sub(lambda character: ascii(character[0])[1:-1], text)
