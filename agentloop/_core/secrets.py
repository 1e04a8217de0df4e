"""Replace secrets in text by placeholders, such as ``[secret:1:aws-key]``, and put them back.

::

    secrets = Secrets()
    redactor = Redactor(secrets)
    redactor.text("the key is AKIAIOSFODNN7EXAMPLE")    # "the key is [secret:1:aws-key]"
    redactor.put_back("use [secret:1:aws-key]")         # "use AKIAIOSFODNN7EXAMPLE"

A `Secrets` is the table of one session: values by label. It is in memory and nowhere else. A `Redactor` finds secrets,
in text, in JSON and in Structs, by four means: the values that the table has already, the shapes of keys
(`_core.redaction`), values behind names such as ``password``, and rules of the user or of a library.

Redaction is idempotent: a placeholder is never a part of a secret.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar, cast

import msgspec

from agentloop._core.json_text import decode_json
from agentloop._core.redaction import SHAPES_BY_KIND, names_a_secret
from agentloop.errors import ArgumentsError
from agentloop.messages import File, Image, Reasoning

__all__ = ["HeldText", "Redactor", "Rules", "Secrets", "labels_in", "placeholder"]

T = TypeVar("T")

Rules: TypeAlias = Callable[[str], Iterable[tuple[str, str]]]
"""Finds the secrets in a text: pairs of a kind and a secret."""

SHORTEST = 4
"""Characters. A shorter value is no secret: it occurs in ordinary words."""
SHORTEST_ELSEWHERE = 8
"""Characters of a value, found by its name, that is a secret wherever else it occurs: ``password=open`` does not make
each "open" one."""
MOST_SECRETS = 2000
"""Secrets of one session that have a label. Later ones are replaced, too, and cannot be put back."""
MOST_PASSES = 4
"""How often a text with a secret is searched once more."""
NAMELESS = "[secret:withheld]"
"""Replaces a secret that has no label."""
UNSEARCHED = "[withheld: the search for secrets in this text failed]"
"""Replaces a text in which secrets cannot be looked for."""

_PLACEHOLDER = r"\[secret:([A-Za-z0-9][\w.:-]{0,79})\]"


def placeholder(label: str) -> str:
    """The text that stands for the secret ``label``."""
    return f"[secret:{label}]"


def labels_in(text: str) -> list[str]:
    """The labels of the placeholders in ``text``."""
    # Nearly no text has one, and the search for a word is fifty times as fast as that for a pattern.
    return re.findall(_PLACEHOLDER, text) if "[secret:" in text else []


class Secrets:
    """The secrets of a session, by label. In memory only: neither the journal nor an event has a value.

    Args:
      named: values that the user has named: the placeholder of each is the same in every process.
    """

    __slots__ = ("_by_value", "_highest", "_unmistakable", "values")

    def __init__(self, named: Mapping[str, str] = {}) -> None:
        self.values: dict[str, str] = {}
        """Values by label."""
        self._by_value: dict[str, str] = {}
        self._unmistakable: list[str] = []
        """The values that are secrets wherever they occur, longest first: a key may begin with another one."""
        self._highest = 0
        self.name(named)

    def name(self, named: Mapping[str, str]) -> None:
        """Add values under labels of the user's own."""
        self.skip(named)
        for label, value in named.items():
            if self.values.get(label) != value:
                self._add(label, value, is_unmistakable=True)

    def skip(self, labels: Iterable[str]) -> None:
        """Number the next secrets after ``labels``, which an earlier process has given."""
        for label in labels:
            number = label.partition(":")[0]
            if number.isdecimal():
                self._highest = max(self._highest, int(number[:9]))

    def _add(self, label: str, value: str, *, is_unmistakable: bool) -> None:
        self.values[label] = value
        self._by_value.setdefault(value, label)
        if is_unmistakable and value not in self._unmistakable:
            self._unmistakable.append(value)
            self._unmistakable.sort(key=len, reverse=True)

    def placeholder_of(self, value: str, kind: str, *, is_named: bool) -> str:
        """The placeholder of ``value``: a new one for a value that is not known yet.

        Args:
          is_named: whether only the name before the value says that it is a secret.
        """
        label = self._by_value.get(value)
        if label is None:
            if len(self.values) >= MOST_SECRETS:
                return NAMELESS
            self._highest += 1
            label = f"{self._highest}:{kind}"
            self._add(label, value, is_unmistakable=not is_named or len(value) >= SHORTEST_ELSEWHERE)
        return placeholder(label)

    def known_in(self, text: str) -> Iterator[_Found]:
        """The places in ``text`` of known values."""
        for value in self._unmistakable:
            start = text.find(value)
            while start >= 0:
                yield _Found(start, start + len(value), "", False)
                start = text.find(value, start + len(value))


class _Found(msgspec.Struct, frozen=True, gc=False):
    """A secret in a text."""

    start: int
    end: int
    kind: str
    is_named: bool
    """Whether only its name says that it is a secret."""


# ------------------------------------------------------------------------ how secrets are found

# Patterns that begin anywhere take a microsecond for each four characters. So a pattern is tried only on a text that
# has one of the words without which it cannot match, and names are looked up from their signs: a sign is rarer than a
# word. A text of a megabyte then takes some 50 ms, and not two seconds.

_SIGNS_OF_SHAPES: tuple[tuple[str, ...], ...] = (
    ("sk-",),
    ("bearer ",),
    ("basic ",),
    ("akia", "asia"),
    ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    ("github_pat_",),
    ("glpat-", "aiza", "ya29.", "hf_", "gsk_", "xai-", "xox", "xapp-", "npm_"),
    ("k_live_", "k_test_", "whsec_", "pypi-", "dckr_pat_", "_v1_"),
    ("shpat_", "shpca_", "shppa_", "shpss_", "gla_", "glsa_"),
    ("pplx-", "csk-", "nvapi-", "tvly-", "r8_", "fw_", "lin_api_", "ntn_", "dapi", "hvb.", "hvs."),
    ("sg.",),
    (":aa",),
    ("eyj",),
    ("://",),
    ("://",),
    ("private key-----",),
)
"""For each shape the words, in small letters, one of which is in each text that has it."""
# Texts, which `re` compiles at their first use, and caches: an agent without redaction does not wait for it.
_BY_SHAPE = tuple(
    [(signs, kind, f"(?s){shape}") for signs, (kind, shape) in zip(_SIGNS_OF_SHAPES, SHAPES_BY_KIND, strict=True)]
)
_HEADER = (
    r"(?i:\b(?:(?:proxy-)?authorization|x-(?:goog-)?api-key))\\?['\"]?\s*[:,]\s*b?\\?['\"]?"
    r"(?:\w+ )?(?P<value>[^\s'\",;\\]{4,})"
)
_COOKIE = r"(?im:(?<![\w-])(?:set-)?cookie\s{0,9}:\s{0,9})(?P<value>[^\r\n]{4,})"
_BY_HEADER = ((("authorization", "api-key"), "token", _HEADER), (("cookie",), "cookie", _COOKIE))

_WORDS = (
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "auth",
    "bearer",
    "cookie",
    "credential",
    "jwt",
    "sig",
    "code",
    "pat",
)
"""The words, one of which is in each name of a secret."""
_SIGN = r"[=:](?!//)"
_VALUE = (
    r"\s{0,2}b?(?:\"(?P<double>[^\"\\\r\n]{1,4096}(?:\\.[^\"\\\r\n]{0,4096}){0,64})\""
    r"|'(?P<single>[^'\\\r\n]{1,4096}(?:\\.[^'\\\r\n]{0,4096}){0,64})'"
    r"|(?P<bare>(?:\\?['\"])?[^\s'\",;&\\<>]{4,256}))"
)
_OPEN_VALUE = r"\s{0,2}(?:\"[^\"\r\n]{0,200}|'[^'\r\n]{0,200})?\Z"
"""A value that has not come to its end."""
_NAME_BACKWARDS = r"\s{0,2}(?:['\"]\\?)?([\w.-]{0,60}[A-Za-z])(?![\w.-])"
_SIGNS_OF_CODE = frozenset("=:!<>+-*/|&^%)]}")
"""Characters before a sign that belong to it, or end no name."""
LONGEST_NAME = 66
"""Characters before a sign in which the name ends."""
_NO_VALUES = r"(?i:none|null|true|false|missing|required|empty|bearer|basic|digest|string|number)|[$/%*<{(].*"
"""Values that are no secrets: words that say why there is none, variables and paths."""

_names_a_secret = lru_cache(4096)(names_a_secret)


def _by_shape(text: str, small: str) -> Iterator[_Found]:
    for signs, kind, shape in _BY_SHAPE:
        if any(sign in small for sign in signs):
            for match in re.finditer(shape, text):
                yield _Found(match.start(), match.end(), kind, False)


def _by_name(text: str, small: str) -> Iterator[_Found]:
    for signs, kind, header in _BY_HEADER:
        if any(sign in small for sign in signs):
            for match in re.finditer(header, text):
                yield _Found(*match.span("value"), kind, True)
    if not any(word in small for word in _WORDS):
        return
    value_at = re.compile(_VALUE).match
    for sign in re.finditer(_SIGN, text):
        name, in_query = _name_before(text, sign.start())
        if name and _names_a_secret(name, bare_key=in_query):
            value = value_at(text, sign.end())
            if value is not None:
                group = value.lastgroup
                assert group is not None
                if _is_secret(name, value[group], is_bare=group == "bare", in_query=in_query):
                    yield _Found(*value.span(group), _kind_of(name), True)


def _name_before(text: str, end: int) -> tuple[str, bool]:
    """The name before ``end``, and whether it stands in the query of a URL; empty if there is none."""
    # Backwards, so that the search begins where the name ends.
    if not end or text[end - 1] in _SIGNS_OF_CODE:
        return "", False
    match = re.match(_NAME_BACKWARDS, text[max(0, end - LONGEST_NAME) : end][::-1])
    if match is None:
        return "", False
    start = end - match.end()
    return match[1][::-1], start > 0 and text[start - 1] in "?&"


def _is_secret(name: str, value: str, *, is_bare: bool, in_query: bool = False) -> bool:
    """Whether ``value``, behind ``name``, is a secret.

    Args:
      is_bare: whether it stands there without quotes: then it may be code or prose, such as ``token = read()``.
      in_query: whether it stands in the query of a URL, where ``key`` alone is the name of a secret.
    """
    if len(value) < SHORTEST or not _names_a_secret(name, bare_key=in_query) or re.fullmatch(_NO_VALUES, value):
        return False
    return not is_bare or (any(map(str.isdigit, value)) and not set("()[]{}") & set(value))


def _kind_of(name: str) -> str:
    """The kind in the label of a secret that ``name`` names."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "-".join(words)[-40:].strip("-") or "secret"


WINDOW = 65_536
"""Characters in which one match of a user's pattern may begin. The time of a pattern that looks at each rest of a text
then grows with the length of the text, and not with its square."""
OVERLAP = 4096
"""Characters by which such a match may go beyond its window."""


def _by_pattern(kind: str, pattern: re.Pattern[str], text: str) -> Iterator[_Found]:
    group = "secret" if "secret" in pattern.groupindex else min(pattern.groups, 1)
    for window in range(0, len(text), WINDOW):
        for match in pattern.finditer(text, window, window + WINDOW + OVERLAP):
            if match.start() < window + WINDOW and match.end(group) > match.start(group):
                yield _Found(*match.span(group), kind, False)


# ---------------------------------------------------------------------------------- the redactor


_PLAIN_FIELDS = frozenset(
    {"call_id", "id", "model", "name", "next_model", "resumes", "seq", "source", "status", "tool"}
)
"""The fields of events and messages that have names and numbers of ours, which are no words of anyone."""


class Redactor:
    """Finds secrets, and replaces them by the placeholders of ``secrets``.

    Args:
      secrets: the table of the session.
      patterns: the user's, by kind.
      rules: those of a library.
      put_back: globs on the names of the tools that get the real values.
    """

    __slots__ = ("_clean", "_messages", "_patterns", "_put_back", "rules", "secrets")

    def __init__(
        self,
        secrets: Secrets,
        patterns: Sequence[tuple[str, re.Pattern[str]]] = (),
        *,
        rules: Rules | None = None,
        put_back: Sequence[str] = ("*",),
    ) -> None:
        self.secrets = secrets
        self.rules = rules
        """Those of a library, once they are loaded."""
        self._patterns = patterns
        self._put_back = put_back
        self._clean: deque[str] = deque(maxlen=8)
        """The last long texts that are clean: a result is in an event, in a message and in a request."""
        self._messages: dict[int, Any] = {}
        """The messages of the last request, by identity: each request has nearly the same ones."""

    def text(self, text: str) -> str:
        """``text`` with placeholders for its secrets; ``text`` itself if it has none."""
        if len(text) < SHORTEST or any(text is clean for clean in self._clean):
            return text
        clean = self.continued("", text)
        if len(clean) > 256:
            self._clean.append(clean)
        return clean

    def _find(self, text: str) -> list[_Found]:
        """The secrets in ``text``."""
        small = text.lower()
        found = [*self.secrets.known_in(text), *_by_shape(text, small), *_by_name(text, small)]
        for kind, pattern in self._patterns:
            found += _by_pattern(kind, pattern, text)
        if self.rules is not None:
            for kind, value in self.rules(text):
                if len(value) >= SHORTEST:
                    matches = re.finditer(re.escape(value), text)
                    found += [_Found(*match.span(), _kind_of(kind), False) for match in matches]
        return found

    def _replace(self, text: str, found: Iterable[_Found], *, since: int = 0) -> str:
        """``text`` from ``since`` on, with placeholders for ``found``."""
        # In place of a placeholder there is none, whatever its name says.
        taken = [match.span() for match in re.finditer(_PLACEHOLDER, text)] if "[secret:" in text else []
        pieces: list[str] = []
        for secret in _apart(found, taken):
            if secret.end <= since:
                continue
            start = max(secret.start, since)
            value = text[start : secret.end]
            pieces += [text[since:start], self.secrets.placeholder_of(value, secret.kind, is_named=secret.is_named)]
            since = secret.end
        return "".join([*pieces, text[since:]])

    def continued(self, context: str, text: str) -> str:
        """``text``, which follows ``context``, with placeholders: the words before a secret may say that it is one."""
        try:
            found = self._find(context + text)
            if not found:
                return text
            clean = self._replace(context + text, found, since=len(context))
            # Once more: a secret may stand in the text again without the words by which it was found, and behind one
            # that was replaced there may be another, which was a part of the same word.
            for _ in range(MOST_PASSES):
                before, clean = clean, self._replace(clean, self._find(clean))
                if clean == before:
                    break
        except TimeoutError:
            return UNSEARCHED
        return clean

    def named(self, name: str, value: str) -> str:
        """The text ``value`` of a field ``name``."""
        if _is_secret(name, value, is_bare=False) and not labels_in(value):
            return self.secrets.placeholder_of(value, _kind_of(name), is_named=True)
        return self.text(value)

    def json(self, text: str) -> str:
        """JSON ``text`` with placeholders in its strings. Text that is not JSON is redacted as text."""
        try:
            value = decode_json(text.encode(), Any) if text.strip() else None
        except (msgspec.DecodeError, ValueError):
            return self.text(text)
        clean = self.value(value)
        return text if clean is value else msgspec.json.encode(clean).decode()

    def value(self, value: T, name: str = "") -> T:
        """``value``, JSON or a Struct, with placeholders in its texts; ``value`` itself if it has no secret.

        Pictures and files stay as they are, and so do their addresses.
        """
        given: Any = value
        if isinstance(given, str):
            return cast(
                "T", self.json(given) if name == "arguments" else self.named(name, given) if name else self.text(given)
            )
        if isinstance(given, (list, tuple)):
            items = cast("Sequence[Any]", given)
            clean = [self.value(item, name if name != "arguments" else "") for item in items]
            return value if all(map(_is, clean, items)) else cast("T", cast("Any", type(value))(clean))
        if isinstance(given, dict):
            return cast("T", self._members(cast("dict[Any, Any]", value)))
        if isinstance(given, msgspec.Struct) and not isinstance(given, (Image, File)):
            return cast("T", self._struct(given))
        return value

    def _members(self, members: dict[Any, Any]) -> dict[Any, Any]:
        changed = {key: self.value(item, str(key)) for key, item in members.items()}
        return members if all(changed[key] is item for key, item in members.items()) else changed

    def _struct(self, value: Any) -> Any:
        if self._messages.get(id(value)) is value:
            return value
        changed: dict[str, Any] = {}
        for field in value.__struct_fields__:
            if field not in _PLAIN_FIELDS:
                part = getattr(value, field)
                clean = self.value(part, "arguments" if field == "arguments" else "")
                if clean is not part:
                    changed[field] = clean
        if not changed:
            return value
        if isinstance(value, Reasoning):
            # The provider's signature is about the other text.
            changed["signature"] = None
        return msgspec.structs.replace(value, **changed)

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The ``fields`` of an event."""
        return {
            name: value if name in _PLAIN_FIELDS else self.value(value, "arguments" if name == "arguments" else "")
            for name, value in fields.items()
        }

    def messages(self, messages: Sequence[T]) -> tuple[T, ...]:
        """The ``messages`` of a request, which the next one has again."""
        clean = tuple([self.value(message) for message in messages])
        self._messages = {id(message): message for message in clean}
        return clean

    # ------------------------------------------------------------------------------ and back

    def gives_back_to(self, tool: str) -> bool:
        """Whether the tool called ``tool`` gets the real values."""
        return any(fnmatchcase(tool, glob) for glob in self._put_back)

    def put_back(self, value: T) -> T:
        """``value``, JSON, with the secrets in the place of their placeholders.

        Raises:
          ArgumentsError: this process does not know the value of one.
        """
        given: Any = value
        if isinstance(given, str):
            return cast("T", self._put_back_text(given))
        if isinstance(given, list):
            return cast("T", [self.put_back(item) for item in cast("list[Any]", value)])
        if isinstance(given, dict):
            members = cast("dict[Any, Any]", value)
            return cast("T", {key: self.put_back(item) for key, item in members.items()})
        return value

    def _put_back_text(self, text: str) -> str:
        known = self.secrets.values
        unknown = [label for label in labels_in(text) if label not in known]
        if unknown:
            raise ArgumentsError(
                f"The value of {placeholder(unknown[0])} is not known any more: it is not saved, and this run was "
                "resumed in another process. Ask for the secret again, or go on without it."
            )
        return re.sub(_PLACEHOLDER, lambda match: known[match[1]], text) if "[secret:" in text else text

    def carry_over(self, text: str, other: Redactor) -> str:
        """``text``, which has placeholders of this table, with those that stand for the same secrets at ``other``."""
        if other.secrets is self.secrets or "[secret:" not in text:
            return text

        def placeholder_there(match: re.Match[str]) -> str:
            value, label = self.secrets.values.get(match[1]), match[1]
            if value is None:
                return match[0]
            return other.secrets.placeholder_of(value, label.partition(":")[2] or label, is_named=True)

        return re.sub(_PLACEHOLDER, placeholder_there, text)

    def put_back_json(self, text: str) -> str:
        """JSON ``text`` with the secrets in the place of their placeholders. Raises as `put_back` does."""
        if not labels_in(text):
            return text
        try:
            value = decode_json(text.encode(), Any)
        except (msgspec.DecodeError, ValueError):
            return text
        return msgspec.json.encode(self.put_back(value)).decode()


def _is(clean: object, value: object) -> bool:
    return clean is value


def _apart(found: Iterable[_Found], taken: Sequence[tuple[int, int]]) -> list[_Found]:
    """``found`` in order, without those that overlap a longer one before them, or one of ``taken``."""
    apart: list[_Found] = []
    places = iter(sorted(taken))
    place = next(places, None)
    for secret in sorted(found, key=lambda secret: (secret.start, -secret.end, secret.is_named)):
        while place is not None and place[1] <= secret.start:
            place = next(places, None)
        if place is not None and place[0] < secret.end:
            continue
        if apart and secret.start < apart[-1].end:
            if secret.end <= apart[-1].end:
                continue
            # Two that overlap: together they are one.
            first = apart.pop()
            is_named = first.is_named and secret.is_named
            apart.append(_Found(first.start, secret.end, first.kind or secret.kind or "secret", is_named))
        else:
            apart.append(secret)
    return apart


# ----------------------------------------------------------------------- text that comes in pieces

MOST_HELD = 16_384
"""Characters that are held back for the end of a secret, at most."""
_OPEN_KEY = r"(?s)-----BEGIN (?:[A-Z ]*-{0,4}\Z|[A-Z ]*PRIVATE KEY-----(?!.*-----END [A-Z ]*PRIVATE KEY-----))"
"""A private key that has not come to its end, or may be one."""
CONTEXT = 256
"""Characters before a piece that may say that it is a secret."""


class HeldText:
    """Text that arrives in pieces. It passes on, clean, as far as no secret can have begun and not ended.

    Args:
      by_line: whether to pass on whole lines only, as for the output of a tool; otherwise whole words, as for the words
        of a model, which a reader wants to see at once.
    """

    __slots__ = ("_boundary", "_context", "_held", "_redactor", "was_changed")

    def __init__(self, redactor: Redactor, *, by_line: bool = False) -> None:
        self._redactor = redactor
        self._boundary = r"(?s).*[\r\n]" if by_line else r"(?s).*[\s\u0080-\U0010ffff]"
        self._held = ""
        self._context = ""
        """The end of the text that was passed on, as it arrived."""
        self.was_changed = False
        """Whether there was a secret in it."""

    def feed(self, piece: str) -> str:
        """Take the next piece. Returns the clean text that can be passed on; often empty."""
        self._held += piece
        match = re.match(self._boundary, piece)
        if match is None and len(self._held) < MOST_HELD:
            # The boundary of earlier pieces was used up, unless a longer secret may have begun there.
            return ""
        end = len(self._held) - len(piece) + (match.end() if match else len(piece))
        return self._pass_on(end if len(self._held) >= MOST_HELD else self._safe_end(end))

    def _safe_end(self, end: int) -> int:
        """How much of the held text can be passed on, up to ``end``."""
        begin = self._held.rfind("-----BEGIN ", 0, end)
        if begin >= 0 and re.match(_OPEN_KEY, self._held[begin:]):
            end = begin
        whole = self._context + self._held[:end]
        tail = whole[-CONTEXT:]
        for sign in re.finditer(_SIGN, tail):
            name, _ = _name_before(tail, sign.start())
            if name and _names_a_secret(name) and re.compile(_OPEN_VALUE).match(tail, sign.end()):
                # From the sign on: the name itself can be passed on.
                return max(0, min(end, len(whole) - len(tail) + sign.start() - len(self._context)))
        return end

    def _pass_on(self, end: int) -> str:
        if not end:
            return ""
        text, self._held = self._held[:end], self._held[end:]
        clean = self._redactor.continued(self._context, text)
        self.was_changed = self.was_changed or clean != text
        whole = self._context + text
        self._context = whole[max(len(whole) - CONTEXT, whole.rfind("\n") + 1) :]
        return clean

    def flush(self) -> str:
        """The rest, clean: no more text follows."""
        return self._pass_on(len(self._held))
