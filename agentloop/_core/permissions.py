"""Decide about a tool call by permissions. In doubt, the stricter side wins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal, TypeAlias, cast
from unicodedata import normalize

import msgspec
from attrs import evolve

from agentloop._core.on_first_use import unquote
from agentloop.permissions import Condition, Exact, Glob, Grant, Mode, Permissions, Rule, Under
from agentloop.safety import SafetyLevel

__all__ = [
    "Call",
    "Decision",
    "Effect",
    "combine",
    "covers",
    "decide",
    "is_granted",
    "is_level_granted",
    "is_like",
    "strictest",
    "without_allowing",
]

Effect: TypeAlias = Literal["allow", "tool", "ask", "deny"]
"""``tool``: as the tool itself says."""

_STRICTNESS: tuple[Effect, ...] = ("allow", "tool", "ask", "deny")


class Decision(msgspec.Struct, frozen=True):
    """The decision about a call."""

    effect: Effect
    because: str = ""
    """The rule or the mode, in words; empty where the tool is to say."""
    by: Literal["rule", "mode", "hook", "tool"] = "tool"
    """The source of the decision."""
    detail: str = ""
    """Why the rule or the mode says so of this call, in words; empty where it says so of all that it is about."""


class Call(msgspec.Struct, frozen=True):
    """The call to decide about."""

    tool: str
    arguments: dict[str, Any]
    """JSON values, as they are shown to people."""
    defaults: dict[str, Any] = {}
    """The values of arguments that were left out."""
    read_only: bool = False
    destructive: bool | None = None
    is_harmless: bool = False
    """Whether the tool has assessed the call, and called it harmless."""
    assessment: str = ""
    """Why, or why it did not, in words."""


def decide(permissions: Permissions, call: Call) -> Decision:
    """Decide about ``call`` by one set of permissions: deny rules first, then ask, then allow, then the mode."""
    for effect, rules in (("deny", permissions.deny), ("ask", permissions.ask), ("allow", permissions.allow)):
        for rule in rules:
            if covers(rule, call, certainly=effect == "allow"):
                return Decision(cast("Effect", effect), f"the rule {rule}", "rule")
    mode = permissions.mode
    effect = _effect_of_mode(mode, call)
    if effect == "tool":
        return Decision(effect)
    why = ", in which only tools that read run" if effect == "deny" else ""
    return Decision(effect, f"the mode {mode!r}{why}", "mode", _detail(mode, call))


def _effect_of_mode(mode: str, call: Call) -> Effect:
    match mode:
        case "plan":
            return "tool" if call.read_only else "deny"
        case "strict":
            return "ask"
        case "safer" if call.is_harmless:
            return "allow"
        case "safe" | "safer":
            return "tool" if call.read_only else "ask"
        case "accept_edits":
            return "allow" if call.read_only or call.destructive is False else "tool"
        case "autonomous":
            return "allow"
        case _:
            return "tool"


def _detail(mode: str, call: Call) -> str:
    match mode:
        case "safe":
            return f"{call.tool} may do more than read"
        case "safer":
            return call.assessment or f"{call.tool} may do more than read"
        case _:
            return ""


def strictest(decisions: Iterable[Decision]) -> Decision:
    """The strictest of ``decisions``, the first of equals; ``tool`` if there are none."""
    return max(decisions, key=lambda decision: _STRICTNESS.index(decision.effect), default=Decision("tool"))


def combine(own: Sequence[Decision], around: Sequence[Decision]) -> Decision:
    """Combine the decisions of several sets of permissions.

    Args:
      own: those of the stream's agent and of the session. A set that leaves the decision to the tool leaves it to the
        others.
      around: those of the agents around it, which can only make the decision stricter.
    """
    return strictest((strictest(decision for decision in own if decision.effect != "tool"), *around))


def is_granted(grants: Iterable[Grant], agents: tuple[str, ...], fingerprint: str, call: Call) -> bool:
    """Whether a person has allowed ``call`` for good, for the agent at ``agents`` that has this ``fingerprint``."""
    return any(
        grant.agents == agents
        and grant.fingerprint == fingerprint
        and grant.level is None
        and covers(grant.rule, call, certainly=True)
        for grant in grants
    )


def is_level_granted(
    grants: Iterable[Grant], agents: tuple[str, ...], fingerprint: str, level: SafetyLevel | None
) -> bool:
    """Whether a person has allowed all calls of ``level`` for good; ``None`` for a call that no level covers."""
    enough = () if level is None else ("safer",) if level == "safer" else ("safe", "safer")
    return any(
        grant.agents == agents and grant.fingerprint == fingerprint and grant.level in enough for grant in grants
    )


def without_allowing(permissions: Permissions) -> Permissions:
    """``permissions`` without the rules, and the mode, that let calls run which would need approval otherwise."""
    mode: Mode = permissions.mode
    if mode in ("accept_edits", "autonomous"):
        mode = "default"
    elif mode == "safer":
        mode = "safe"
    return evolve(permissions, allow=(), mode=mode)


# ----------------------------------------------------------------------------------- matching


def covers(rule: Rule, call: Call, *, certainly: bool) -> bool:
    """Whether ``rule`` matches ``call``: certainly, as it must to allow something, or possibly."""
    if not _like(rule.tool, call.tool, certainly):
        return False
    if not rule.allow_other_arguments and not call.arguments.keys() <= rule.where.keys():
        return False
    for name, condition in rule.where.items():
        if name in call.arguments:
            value = call.arguments[name]
        elif name in call.defaults:
            value = call.defaults[name]
        elif certainly or condition != Exact(None):
            return False
        else:
            # Left out, and without a default that is known: to the tool, it may be null.
            continue
        if not (_holds(condition, value) if certainly else _may_hold(condition, value)):
            return False
    return True


def _holds(condition: Condition, value: Any) -> bool:
    """Whether ``condition`` certainly holds for ``value``."""
    if isinstance(condition, Exact):
        return _same(condition.value, value)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return bool(items) and all(_holds(condition, item) for item in items)
    if not isinstance(value, str):
        return False
    if isinstance(condition, Glob):
        return _like(condition.pattern, value, not condition.allow_shell_characters)
    return _is_surely_under(condition, value)


def _may_hold(condition: Condition, value: Any) -> bool:
    """Whether ``condition`` may hold for ``value``, or for something in it, as a tool may read it."""
    match condition:
        case Exact(value=wanted):
            return any(_may_be_same(wanted, part) for part in _parts_of(value))
        case Glob(pattern=pattern):
            composed = _composed(pattern)
            return any(_like(composed, _composed(text), False) for text in _texts(value))
        case Under():
            return any(_may_be_under(condition, part) for part in _parts_of(value) if isinstance(part, str))


def _parts_of(value: Any) -> Iterator[Any]:
    """``value``, and all that is in it: the items of lists, the names and the values of objects."""
    rest: list[Any] = [value]
    while rest:
        part = rest.pop()
        yield part
        if isinstance(part, Mapping):
            members = cast("Mapping[str, Any]", part)
            rest += members.keys()
            rest += members.values()
        elif isinstance(part, (list, tuple)):
            rest += cast("Sequence[Any]", part)


def _texts(value: Any) -> Iterator[str]:
    """The texts that a tool may take ``value`` for, or something in it."""
    if isinstance(value, (Mapping, list, tuple)):
        yield _json(value)
    for part in _parts_of(value):
        if isinstance(part, str):
            yield part
            # Most tools ignore blanks around it.
            yield part.strip()
        elif not isinstance(part, (Mapping, list, tuple)):
            yield _json(part)
            # As Python's own text has it; and 3.0 is 3 to a tool that takes integers.
            yield str(int(part) if isinstance(part, float) and part.is_integer() else part)


def _json(value: Any) -> str:
    # The default in a schema may be anything.
    return msgspec.json.encode(value, enc_hook=repr).decode()


_TRUE = frozenset({"true", "1", "yes", "y", "on", "t"})
_FALSE = frozenset({"false", "0", "no", "n", "off", "f"})


def _may_be_same(wanted: Any, value: Any) -> bool:
    """Whether ``value`` is ``wanted``, or text that a tool may take for it; or the other way around."""
    if _same(wanted, value):
        return True
    if isinstance(wanted, bool) or isinstance(value, bool):
        # To Python, and to lenient tools, 1 is true.
        truths = {_truth(wanted), _truth(value)}
        return len(truths) == 1 and None not in truths
    if isinstance(wanted, str) and isinstance(value, str):
        return _composed(wanted).strip() == _composed(value).strip()
    if isinstance(wanted, str) or isinstance(value, str):
        text, other = (wanted, value) if isinstance(wanted, str) else (value, wanted)
        if isinstance(other, (int, float)):
            number = _number(text)
            return number is not None and number == other
        return other is None and text.strip().casefold() in ("null", "none", "")
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        left = {_composed(name): part for name, part in cast("Mapping[str, Any]", wanted).items()}
        right = {_composed(name): part for name, part in cast("Mapping[str, Any]", value).items()}
        return left.keys() == right.keys() and all(_may_be_same(left[name], right[name]) for name in left)
    if isinstance(wanted, (list, tuple)) and isinstance(value, (list, tuple)):
        these, those = cast("Sequence[Any]", wanted), cast("Sequence[Any]", value)
        return len(these) == len(those) and all(map(_may_be_same, these, those))
    return False


def _truth(value: Any) -> bool | None:
    if isinstance(value, str):
        text = value.strip().casefold()
        return True if text in _TRUE else False if text in _FALSE else None
    return bool(value) if isinstance(value, (int, float)) and value in (0, 1) else None


def _number(text: str) -> int | float | None:
    """The number that ``text`` stands for; ``None`` if it stands for none."""
    for kind in (int, float):
        # An integer of thousands of digits is refused by Python, as no number at all.
        with suppress(ValueError, OverflowError):
            return kind(text)
    return None


def _composed(text: str) -> str:
    """``text`` in one of the two Unicode spellings that an accent has: many file systems do not tell them apart."""
    return text if text.isascii() else normalize("NFC", text)


def _same(value: Any, other: Any) -> bool:
    """Whether two JSON values are the same. To Python, ``True == 1``."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        left, right = cast("Mapping[str, Any]", value), cast("Mapping[str, Any]", other)
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        these, those = cast("Sequence[Any]", value), cast("Sequence[Any]", other)
        return len(these) == len(those) and all(map(_same, these, those))
    return bool(value == other)


_HARMLESS = frozenset(" _-./,:=@+")


def _is_harmless(character: str) -> bool:
    """Whether no shell gives ``character`` a meaning. A list of the harmless ones: that of the others has gaps."""
    return character in _HARMLESS or character.isalnum()


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> tuple[int, int, dict[str, int], int]:
    """``pattern`` as bits, one for each place: stars, question marks, each other character; and the last place."""
    stars = single = index = 0
    literal: dict[str, int] = {}
    before = ""
    for character in pattern:
        if character == before == "*":
            continue
        bit = 1 << index
        if character == "*":
            stars |= bit
        elif character == "?":
            single |= bit
        else:
            literal[character] = literal.get(character, 0) | bit
        index += 1
        before = character
    return stars, single, literal, 1 << index


def _like(pattern: str, text: str, carefully: bool) -> bool:
    """Whether ``text`` is like the glob ``pattern``.

    Args:
      carefully: wildcards stand for harmless characters only.
    """
    # All places at once, a character at a time: a regular expression with several stars can take for ever on a text
    # that a model has chosen.
    if "*" not in pattern and "?" not in pattern:
        return text == pattern
    stars, single, literal, last = _compiled(pattern)
    states = 1
    for character in text:
        states |= (states & stars) << 1
        moved = (states & literal.get(character, 0)) << 1
        if not carefully or _is_harmless(character):
            moved |= ((states & single) << 1) | (states & stars)
        if not moved:
            return False
        states = moved
    states |= (states & stars) << 1
    return bool(states & last)


def is_like(glob: str, name: str) -> bool:
    """Whether the name of a tool is like ``glob``."""
    return _like(glob, name, False)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _is_surely_under(condition: Under, path: str) -> bool:
    parts, folder = _parts(path), _parts(condition.folder)
    odd = ".." in parts or path.startswith(("~", "//")) or path[1:2] == ":" or "\\" in path or not path.isprintable()
    same_kind = path.startswith("/") == condition.folder.startswith("/")
    return not odd and same_kind and parts[: len(folder)] == folder


def _may_be_under(condition: Under, path: str) -> bool:
    path, absolute = _loosely(path)
    parts, (folder, folder_is_absolute) = _parts(path), _loosely(condition.folder)
    if ".." in parts or path.startswith(("~", "$", "%")):
        return True
    wanted = [_name(part) for part in _parts(folder)]
    names = [_name(part) for part in parts]
    if absolute and not folder_is_absolute:
        return any(names[start : start + len(wanted)] == wanted for start in range(len(names) + 1))
    if folder_is_absolute and not absolute:
        # The tool may run in a folder around it: then the path begins as the folder ends.
        tails = [wanted[start:] for start in range(len(wanted))]
        return not wanted or any(names[: len(tail)] == tail for tail in tails)
    return names[: len(wanted)] == wanted


_IGNORED = dict.fromkeys(
    (0x200C, 0x200D, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF),
)
"""Characters in names that some file systems (HFS+) take for nothing."""


def _loosely(path: str) -> tuple[str, bool]:
    """``path`` without all that some file system does not tell apart, and whether it is absolute."""
    path = path.translate(_IGNORED).strip().replace("\\", "/")
    if path[:5].casefold() == "file:":
        path = unquote(path[5:])
    # Decomposed before the capitals go, since some of them have accents of their own.
    path = normalize("NFC", normalize("NFD", path).casefold())
    if path[1:3] == ":/":
        path = path[2:]
    return path, path.startswith("/")


def _name(part: str) -> str:
    # Windows drops dots and spaces at the end of a name, and reads what comes after a colon as a stream of the file.
    return part.split(":", 1)[0].rstrip(" .") or part
