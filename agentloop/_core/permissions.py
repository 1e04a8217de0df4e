"""Decide about a tool call by permissions. In doubt, the stricter side wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias, cast

import msgspec

from agentloop.permissions import Condition, Exact, Glob, Grant, Permissions, Rule, Under

__all__ = ["Call", "Decision", "Effect", "combine", "covers", "decide", "is_granted", "strictest"]

Effect: TypeAlias = Literal["allow", "tool", "ask", "deny"]
"""``tool``: as the tool itself says."""

_STRICTNESS: tuple[Effect, ...] = ("allow", "tool", "ask", "deny")


class Decision(msgspec.Struct, frozen=True):
    """The decision about a call."""

    effect: Effect
    because: str = ""
    """The rule or the mode, in words; empty where the tool is to say."""


class Call(msgspec.Struct, frozen=True):
    """The call to decide about."""

    tool: str
    arguments: dict[str, Any]
    """JSON values, as they are shown to people."""
    defaults: dict[str, Any] = {}
    """The values of arguments that were left out."""
    read_only: bool = False
    destructive: bool | None = None


def decide(permissions: Permissions, call: Call) -> Decision:
    """Decide about ``call`` by one set of permissions: deny rules first, then ask, then allow, then the mode."""
    for effect, rules in (("deny", permissions.deny), ("ask", permissions.ask), ("allow", permissions.allow)):
        for rule in rules:
            if covers(rule, call, certainly=effect == "allow"):
                return Decision(cast("Effect", effect), f"the rule {rule}")
    mode = permissions.mode
    effect = _effect_of_mode(mode, call)
    if effect == "tool":
        return Decision(effect)
    return Decision(effect, f"the mode {mode!r}{', in which only tools that read run' if effect == 'deny' else ''}")


def _effect_of_mode(mode: str, call: Call) -> Effect:
    match mode:
        case "plan":
            return "tool" if call.read_only else "deny"
        case "strict":
            return "ask"
        case "accept_edits":
            return "allow" if call.read_only or call.destructive is False else "tool"
        case "autonomous":
            return "allow"
        case _:
            return "tool"


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
        grant.agents == agents and grant.fingerprint == fingerprint and covers(grant.rule, call, certainly=True)
        for grant in grants
    )


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
        else:
            return False
        if not _holds(condition, value, certainly):
            return False
    return True


def _holds(condition: Condition, value: Any, certainly: bool) -> bool:
    if isinstance(condition, Exact):
        return _same(condition.value, value)
    if isinstance(value, list):
        held = [_holds(condition, item, certainly) for item in cast("list[object]", value)]
        return (bool(held) and all(held)) if certainly else any(held)
    if not isinstance(value, str):
        return False
    if isinstance(condition, Glob):
        return _like(condition.pattern, value, certainly and not condition.allow_shell_characters)
    return _is_surely_under(condition, value) if certainly else _may_be_under(condition, value)


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


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _is_surely_under(condition: Under, path: str) -> bool:
    parts, folder = _parts(path), _parts(condition.folder)
    odd = ".." in parts or path.startswith(("~", "//")) or path[1:2] == ":" or "\\" in path or not path.isprintable()
    same_kind = path.startswith("/") == condition.folder.startswith("/")
    return not odd and same_kind and parts[: len(folder)] == folder


def _may_be_under(condition: Under, path: str) -> bool:
    # Some file systems ignore case, and some treat both slashes alike.
    path = path.replace("\\", "/").casefold()
    parts, folder = _parts(path), _parts(condition.folder.casefold())
    if ".." in parts or path.startswith("~"):
        return True
    absolute = path.startswith("/")
    if absolute and not condition.folder.startswith("/"):
        return any(parts[start : start + len(folder)] == folder for start in range(len(parts) + 1))
    return absolute == condition.folder.startswith("/") and parts[: len(folder)] == folder
