"""What permissions say of a call: the order of rules, what they match, and that doubt is on the stricter side."""

from __future__ import annotations

import fnmatch
import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from agentloop import hooks
from agentloop._core.permissions import (
    Call,
    Decision,
    Effect,
    combine,
    covers,
    decide,
    is_granted,
    strictest,
    without_allowing,
)
from agentloop.errors import UsageError
from agentloop.permissions import Condition, Exact, Glob, Grant, Mode, Permissions, Rule, Under

STRICTNESS: list[Effect] = ["allow", "tool", "ask", "deny"]


def shell(command: object, **more: Any) -> Call:
    return Call("shell", {"command": command, **more})


def matches(condition: Condition, value: object) -> tuple[bool, bool]:
    """Whether a rule with ``condition`` matches certainly, and whether possibly."""
    rule = Rule("shell", {"command": condition})
    return covers(rule, shell(value), certainly=True), covers(rule, shell(value), certainly=False)


# ---------------------------------------------------------------------------------- the order


GIT = Rule("shell", {"command": Glob("git *")})


@pytest.mark.parametrize(
    ("permissions", "effect", "because"),
    [
        (Permissions(), "tool", ""),
        (Permissions(allow=["shell"]), "allow", "the rule shell"),
        (Permissions(allow=["sh*"], ask=[GIT]), "ask", 'the rule shell(command like "git *")'),
        (Permissions(allow=["shell"], ask=["shell"], deny=["s?ell"]), "deny", "the rule s?ell"),
        (Permissions(allow=[GIT], mode="strict"), "allow", 'the rule shell(command like "git *")'),
        (Permissions(deny=["other"], ask=["other"], allow=["other"]), "tool", ""),
        (Permissions(ask=["shell"], mode="autonomous"), "ask", "the rule shell"),
        (Permissions(deny=["shell"], mode="autonomous"), "deny", "the rule shell"),
        (Permissions(deny=["other", "sh*", "shell"]), "deny", "the rule sh*"),
    ],
    ids=str,
)
def test_deny_comes_before_ask_and_ask_before_allow_and_rules_before_the_mode(
    permissions: Permissions, effect: Effect, because: str
) -> None:
    decision = decide(permissions, shell("git status"))
    assert (decision.effect, decision.because) == (effect, because)
    assert decision.by == ("rule" if "rule" in because else "mode" if "mode" in because else "tool")


READER: dict[str, Any] = {"read_only": True}
EDITOR: dict[str, Any] = {"destructive": False}
SHREDDER: dict[str, Any] = {"destructive": True}
UNKNOWN: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("mode", "reader", "editor", "shredder", "unknown"),
    [
        ("plan", "tool", "deny", "deny", "deny"),
        ("strict", "ask", "ask", "ask", "ask"),
        ("safe", "tool", "ask", "ask", "ask"),
        ("safer", "tool", "ask", "ask", "ask"),
        ("default", "tool", "tool", "tool", "tool"),
        ("accept_edits", "allow", "allow", "tool", "tool"),
        ("autonomous", "allow", "allow", "allow", "allow"),
    ],
)
def test_the_modes(mode: Mode, reader: Effect, editor: Effect, shredder: Effect, unknown: Effect) -> None:
    def says(annotations: dict[str, Any]) -> Effect:
        return decide(Permissions(mode=mode), Call("act", {}, {}, **annotations)).effect

    assert (says(READER), says(EDITOR), says(SHREDDER), says(UNKNOWN)) == (reader, editor, shredder, unknown)


ALLOW, TOOL, ASK, DENY = (Decision(effect) for effect in STRICTNESS)


@pytest.mark.parametrize(
    ("own", "around", "effect"),
    [
        ([], [], "tool"),
        ([ALLOW], [], "allow"),
        ([ALLOW, TOOL], [], "allow"),
        ([TOOL, TOOL], [], "tool"),
        ([ALLOW, ASK], [], "ask"),
        ([ASK, DENY], [], "deny"),
        ([], [ALLOW], "tool"),
        ([ALLOW], [ALLOW], "allow"),
        ([ALLOW], [TOOL], "tool"),
        ([ALLOW], [ASK], "ask"),
        ([ALLOW], [ALLOW, DENY], "deny"),
        ([DENY], [ALLOW], "deny"),
    ],
)
def test_the_stricter_of_the_streams_own_counts_and_those_around_it_only_make_it_stricter(
    own: list[Decision], around: list[Decision], effect: Effect
) -> None:
    assert combine(own, around).effect == effect


# ----------------------------------------------------------------------------- what is matched


@pytest.mark.parametrize(
    ("pattern", "name", "matched"),
    [
        ("shell", "shell", True),
        ("shell", "shells", False),
        ("shell", "Shell", False),
        ("*", "shell", True),
        ("*", "", True),
        ("sh*l", "shell", True),
        ("sh*l", "shl", True),
        ("sh*l", "sh", False),
        ("**l", "shell", True),
        ("s?ell", "shell", True),
        ("s?ell", "sell", False),
        ("read_*_file", "read_the_whole_file", True),
        ("read_*_file", "read_the_whole_files", False),
    ],
)
def test_a_glob_matches_a_name_as_a_whole(pattern: str, name: str, matched: bool) -> None:
    assert covers(Rule(pattern), Call(name, {}), certainly=False) is matched


@given(st.text("ab*?[]", max_size=8), st.text("ab[]*?", max_size=10))
def test_a_glob_matches_what_a_regular_expression_made_of_it_does(pattern: str, text: str) -> None:
    spelled = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern)
    matched = pattern != "" and re.fullmatch(spelled, text, re.DOTALL) is not None
    if pattern:
        assert matches(Glob(pattern), text)[1] is matched


def test_a_glob_with_many_stars_is_quick_on_a_long_text() -> None:
    """A model chooses the text; a regular expression would be at it for hours."""
    assert matches(Glob("*a*a*a*a*a*a*a*b"), "a" * 20_000) == (False, False)


@pytest.mark.parametrize(
    "command",
    [
        "git status; rm -rf /",
        "git status && rm -rf /",
        "git status & rm -rf /",
        "git status | sh",
        "git log $(rm -rf /)",
        "git log `rm -rf /`",
        "git log $HOME",
        "git log ${HOME}",
        "git log > /etc/passwd",
        "git log < /etc/passwd",
        "git status\nrm -rf /",
        "git status\r\nrm -rf /",
        "git status\x00rm",
        "git status\trm",
        "git status \x1b[2K",
        "git log {a,b}",
        "git log *",
        "git log [a]",
        "git log ?",
        "git log 'a'",
        'git log "a"',
        "git log \\; rm",
        "git log !!",
        "git log # rm",
        "git log ~/x",
        "git log %PATH%",
        "git log ^& del",
        "git log (rm)",
        "git log\u2028rm",
        "git log\u00a0rm",
        "git log \uff1b rm",
    ],
)
def test_a_wildcard_of_an_allow_rule_stands_for_nothing_that_a_shell_obeys(command: str) -> None:
    assert matches(Glob("git *"), command)[0] is False
    assert matches(Glob("*"), command) == (False, True)


@pytest.mark.parametrize("command", ["git status", "git log -3 --format=x", "git show HEAD:a/b.py,c@d+e", "git "])
def test_a_wildcard_stands_for_what_is_harmless(command: str) -> None:
    assert matches(Glob("git *"), command) == (True, True)


METACHARACTERS = ";&|<>()$`\\\"'{}[]*?!#~^%\n\r\t\x00\x0b\x1b\x7f\x85\u00a0\u2028"
COMMANDS = st.text(st.sampled_from("git status-x=/.:" + METACHARACTERS), max_size=30)


@given(st.text(st.sampled_from("git st*?-"), min_size=1, max_size=10), COMMANDS)
def test_no_metacharacter_widens_an_allow_rule(pattern: str, command: str) -> None:
    """Whatever the pattern: where it has no metacharacter itself, nothing that it allows has one."""
    if any(character in METACHARACTERS for character in command):
        assert matches(Glob(pattern), command)[0] is False


@given(st.text(min_size=1, max_size=8), st.text(max_size=12))
def test_what_an_allow_rule_matches_beyond_its_own_characters_is_harmless(pattern: str, text: str) -> None:
    if matches(Glob(pattern), text)[0]:
        assert all(character in pattern or character.isalnum() or character in " _-./,:=@+" for character in text)


@given(st.text("ab;*?", min_size=1, max_size=6), st.text("ab; ", max_size=10))
def test_a_glob_that_certainly_matches_may_match_and_fnmatch_agrees(pattern: str, text: str) -> None:
    certainly, possibly = matches(Glob(pattern), text)
    assert possibly is (fnmatch.fnmatchcase(text, pattern) or fnmatch.fnmatchcase(text.strip(), pattern))
    assert possibly or not certainly


def test_metacharacters_of_the_pattern_itself_match_themselves() -> None:
    assert matches(Glob("ls * | wc -l"), "ls src | wc -l") == (True, True)
    assert matches(Glob("ls * | wc -l"), "ls src | sh | wc -l") == (False, True)


def test_a_glob_may_stand_for_everything() -> None:
    url = "https://example.com/?a=1&b=2"
    assert matches(Glob("https://example.com/*", allow_shell_characters=True), url) == (True, True)
    assert matches(Glob("https://example.com/*"), url) == (False, True)


COMPOSED, DECOMPOSED = "s\u00e9cret", "se\u0301cret"
"""One name in both Unicode spellings."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab*;", max_size=4),
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inside, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize(
    ("wanted", "given_", "matched"),
    [
        ("a", "a", True),
        ("a*", "ab", False),
        ("a*", "a*", True),
        (1, 1, True),
        (1, 1.0, True),
        (2, True, False),
        (False, False, True),
        (None, None, True),
        (None, False, False),
        ([1, "a"], [1, "a"], True),
        ([1, "a"], ["a", 1], False),
        ([2], [True], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 2}, {"a": True}, False),
        ("a", "A", False),
        ("1", 2, False),
        ([], {}, False),
    ],
)
def test_exact_is_exact(wanted: Any, given_: Any, matched: bool) -> None:
    assert matches(Exact(wanted), given_) == (matched, matched)


@pytest.mark.parametrize(
    ("wanted", "given_"),
    [
        ("4711", 4711),
        (4711, "4711"),
        (4711, " 4711 "),
        (4711, "4711.0"),
        (0.5, "5e-1"),
        (True, "true"),
        (True, "True"),
        ("true", True),
        (True, "yes"),
        (False, "0"),
        (True, 1),
        (1, True),
        (0, False),
        ([1], [True]),
        ({"a": 1}, {"a": "1"}),
        (None, "null"),
        (None, ""),
        ("rm", " rm\n"),
        ("rm", ["ls", "rm"]),
        ("rm", {"command": ["rm"]}),
        ("rm", {"rm": True}),
        (COMPOSED, DECOMPOSED),
        (DECOMPOSED, COMPOSED),
        ([COMPOSED], [DECOMPOSED]),
        ({COMPOSED: 1}, {DECOMPOSED: 1}),
    ],
    ids=repr,
)
def test_exact_may_match_what_a_tool_may_take_for_the_value(wanted: Any, given_: Any) -> None:
    assert matches(Exact(wanted), given_) == (False, True)


@pytest.mark.parametrize(
    ("folder", "path", "certainly", "possibly"),
    [
        ("src", "src/a.py", True, True),
        ("src", "src", True, True),
        ("src", "src/", True, True),
        ("src", "./src//a.py", True, True),
        ("src/", "src/a.py", True, True),
        ("src", "srcs/a.py", False, False),
        ("src", "a/src/b", False, False),
        ("src", "/src/a.py", False, True),
        ("src", "/elsewhere/src/a.py", False, True),
        ("src", "src/../etc", False, True),
        ("src", "../src", False, True),
        ("src", "~/src", False, True),
        ("src", "SRC/a.py", False, True),
        ("src", "src\\a.py", False, True),
        ("src", "src/a\nb", False, True),
        ("src", "", False, False),
        (".", "a/b", True, True),
        (".", "../a", False, True),
        (".", "/a", False, True),
        (".", "C:/Windows", False, True),
        ("/etc", "/etc/passwd", True, True),
        ("/etc", "//etc/passwd", False, True),
        ("/etc", "/etc/../home", False, True),
        ("/etc", "/home/../etc", False, True),
        ("/etc", "etc/passwd", False, True),
        ("/etc", "passwd", False, False),
        ("/srv/secret", "secret/key", False, True),
        ("/srv/secret", "srv/secret/key", False, True),
        ("/srv/secret", "srv/other", False, False),
        ("/", "a", False, True),
        ("/etc", "/ETC/passwd", False, True),
        ("/etc", " /etc/passwd", False, True),
        ("/etc", "file:///etc/passwd", False, True),
        ("/etc", "FILE:///%65tc/passwd", False, True),
        ("/etc", "$HOME/a", False, True),
        ("/etc", "%SystemRoot%/a", False, True),
        ("/etc", "C:\\etc\\passwd", False, True),
        ("/etc", "/etc./passwd", False, True),
        ("/etc", "/etc /passwd", False, True),
        ("/etc", "/etc::$DATA", False, True),
        ("/etc", "/e\u200ctc/passwd", False, True),
        (".git", "/repo/.g\u200cit/config", False, True),
        (f"/srv/{COMPOSED}", f"/srv/{DECOMPOSED}/key", False, True),
        (f"/srv/{DECOMPOSED}", f"/srv/{COMPOSED}/key", False, True),
        (f"/srv/{COMPOSED}", f"/srv/{DECOMPOSED.upper()}/key", False, True),
        (f"/srv/{COMPOSED}", "/srv/secret/key", False, False),
        ("/etc", "/etcetera", False, False),
        ("/", "/anything", True, True),
    ],
)
def test_under_compares_paths_as_they_are_written(folder: str, path: str, certainly: bool, possibly: bool) -> None:
    assert matches(Under(folder), path) == (certainly, possibly)


@given(st.text("ab/.\\~:", max_size=12), st.sampled_from(["a", ".", "/a", "a/b", "/"]))
def test_a_path_that_is_certainly_under_a_folder_may_be_under_it(path: str, folder: str) -> None:
    certainly, possibly = matches(Under(folder), path)
    assert possibly or not certainly
    assert not certainly or ".." not in path.split("/")


@pytest.mark.parametrize("condition", [Glob("a*"), Under("a")], ids=str)
def test_of_a_list_an_allow_rule_matches_all_and_the_others_any(condition: Condition) -> None:
    assert matches(condition, ["a", "a/b"]) == (True, True)
    assert matches(condition, ["a", "b"]) == (False, True)
    assert matches(condition, ["b"]) == (False, False)
    assert matches(condition, []) == (False, False)
    assert matches(condition, [["a"], 1]) == (False, True)


@pytest.mark.parametrize("value", [1, None, True, {"a": "git x"}, [{"a": "git x"}]])
def test_a_pattern_of_an_allow_rule_matches_text_only(value: object) -> None:
    assert matches(Glob("*"), value) == (False, True)
    assert matches(Under("."), value)[0] is False


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("47*", 4711),
        ("-?.5", -1.5),
        ("3", 3.0),
        ("3.0", 3.0),
        ("true", True),
        ("True", True),
        ("null", None),
        ("rm *", " rm -rf /"),
        ("rm *", ["cd /", "\n rm -rf /"]),
        ("*secret*", {"path": "/secret"}),
        ("/secret*", {"a": {"b": ["/secret/key"]}}),
        ("/secret", {"/secret": "text"}),
        ('{"path":*', {"path": "/secret"}),
        ("[1,2]", [1, 2]),
        ("47*", {"account": 4711}),
        (f"*{COMPOSED}*", f"/srv/{DECOMPOSED}/key"),
        (f"*{DECOMPOSED}*", [f"/srv/{COMPOSED}/key"]),
    ],
    ids=repr,
)
def test_a_pattern_of_a_deny_rule_matches_the_text_that_stands_for_a_value(pattern: str, value: object) -> None:
    assert matches(Glob(pattern), value) == (False, True)


def test_a_folder_of_a_deny_rule_is_looked_for_everywhere_in_a_value() -> None:
    for value in ([{"path": "/srv/a"}], {"/srv/a": "text"}, {"files": [["/srv"]]}):
        assert matches(Under("/srv"), value) == (False, True)
    assert matches(Under("/srv"), {"path": "/home/a", "count": 4}) == (False, False)


def test_an_argument_that_is_left_out_may_be_null() -> None:
    rule = Rule("delete", {"force": Exact(None)})
    assert covers(rule, Call("delete", {}), certainly=False)
    assert not covers(rule, Call("delete", {}), certainly=True)
    assert not covers(rule, Call("delete", {}, {"force": True}), certainly=False)


@given(json_values, json_values)
def test_what_certainly_matches_may_match(wanted: Any, value: Any) -> None:
    for condition in (Exact(wanted), Glob("a*"), Under("a")):
        certainly, possibly = matches(condition, value)
        assert possibly or not certainly


def test_all_conditions_must_hold() -> None:
    rule = Rule("shell", {"command": Glob("git *"), "timeout": Exact(5)})
    assert covers(rule, shell("git x", timeout=5), certainly=True)
    assert not covers(rule, shell("git x", timeout=6), certainly=False)
    assert not covers(rule, shell("ls", timeout=5), certainly=False)


def test_an_argument_that_is_left_out_counts_as_its_default() -> None:
    """Else a rule against ``force=True`` would be got round by leaving it out."""
    rule = Rule("delete", {"force": Exact(True)})
    assert covers(rule, Call("delete", {}, {"force": True}), certainly=False)
    assert not covers(rule, Call("delete", {"force": False}, {"force": True}), certainly=False)
    assert not covers(rule, Call("delete", {}), certainly=False)


def test_an_exact_rule_matches_no_call_with_more_arguments() -> None:
    rule = Rule.exactly("shell", {"command": "ls"})
    assert covers(rule, shell("ls"), certainly=True)
    assert not covers(rule, shell("ls", timeout=5), certainly=True)
    assert not covers(rule, Call("shell", {}, {"command": "cat"}), certainly=True)
    assert covers(Rule("shell", {"command": Exact("ls")}), shell("ls", timeout=5), certainly=True)


arguments = st.dictionaries(st.sampled_from(["a", "b", "c"]), json_values, max_size=3)


@given(arguments, arguments)
def test_an_exact_rule_matches_the_same_arguments_and_no_others(one: dict[str, Any], other: dict[str, Any]) -> None:
    rule = Rule.exactly("act", one)
    assert covers(rule, Call("act", one), certainly=True)
    # JSON tells True from 1; there are no floats here.
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert covers(rule, Call("act", other), certainly=True) is same


# ------------------------------------------------------------------------ what never happens


conditions = (
    st.builds(Exact, st.sampled_from(["ls", "git x", "src/a"]))
    | st.builds(Glob, st.sampled_from(["*", "git *", "l?", "src/*"]), st.booleans())
    | st.builds(Under, st.sampled_from(["src", ".", "/"]))
)
rules = st.builds(
    Rule, st.sampled_from(["*", "shell", "read*"]), st.dictionaries(st.just("command"), conditions, max_size=1)
)
some_rules = st.lists(rules, max_size=2)
modes: st.SearchStrategy[Mode] = st.sampled_from(
    ["plan", "strict", "safe", "safer", "default", "accept_edits", "autonomous"]
)
permissions = st.builds(Permissions, allow=some_rules, ask=some_rules, deny=some_rules, mode=modes)
some_calls = st.builds(
    Call,
    st.sampled_from(["shell", "read"]),
    st.fixed_dictionaries({}, optional={"command": st.sampled_from(["ls", "git x", "git x;ls", "src/a", "/a", 7])}),
    st.just({}),
    st.booleans(),
    st.sampled_from([None, True, False]),
    st.booleans(),
)


def at_least_as_strict(one: Decision, other: Decision) -> bool:
    return STRICTNESS.index(one.effect) >= STRICTNESS.index(other.effect)


@given(permissions, rules, some_calls)
def test_a_deny_rule_more_never_permits_more(given_: Permissions, rule: Rule, call: Call) -> None:
    more = Permissions(allow=given_.allow, ask=given_.ask, deny=[*given_.deny, rule], mode=given_.mode)
    assert at_least_as_strict(decide(more, call), decide(given_, call))


@given(permissions, rules, some_calls)
def test_an_allow_rule_more_never_lifts_a_deny_or_an_ask_rule(given_: Permissions, rule: Rule, call: Call) -> None:
    before = decide(given_, call)
    more = Permissions(allow=[rule, *given_.allow], ask=given_.ask, deny=given_.deny, mode=given_.mode)
    if before.because.startswith("the rule") and before.effect in ("deny", "ask"):
        assert decide(more, call) == before


@given(permissions, some_calls)
def test_where_a_deny_rule_may_match_the_call_is_denied(given_: Permissions, call: Call) -> None:
    if any(covers(rule, call, certainly=False) for rule in given_.deny):
        assert decide(given_, call).effect == "deny"


@given(st.lists(permissions, max_size=2), st.lists(permissions, max_size=3), permissions, some_calls)
def test_permissions_around_never_permit_more(
    own: list[Permissions], around: list[Permissions], more: Permissions, call: Call
) -> None:
    mine, theirs = [decide(one, call) for one in own], [decide(one, call) for one in around]
    decision = combine(mine, [*theirs, decide(more, call)])
    assert at_least_as_strict(decision, combine(mine, theirs))
    assert all(at_least_as_strict(decision, decide(one, call)) for one in (*around, more))


@given(st.lists(permissions, min_size=1, max_size=3), some_calls)
def test_together_they_deny_and_ask_what_each_alone_does(own: list[Permissions], call: Call) -> None:
    decision = combine([decide(one, call) for one in own], [])
    for one in own:
        alone = decide(one, call)
        if alone.effect != "tool":
            assert at_least_as_strict(decision, alone)


@given(some_calls)
def test_the_modes_go_from_strict_to_autonomous(call: Call) -> None:
    said = [
        decide(Permissions(mode=mode), call) for mode in ("strict", "safe", "default", "accept_edits", "autonomous")
    ]  # "plan" denies where "strict" asks, and lets read what "strict" asks about
    assert all(at_least_as_strict(one, other) for one, other in pairwise(said))
    # "default" leaves a harmless call to its tool, which may require approval.
    levels = [decide(Permissions(mode=mode), call) for mode in ("strict", "safe", "safer", "autonomous")]
    assert all(at_least_as_strict(one, other) for one, other in pairwise(levels))


def test_the_mode_safer_runs_what_its_tool_calls_harmless_and_says_why_it_asks_about_the_rest() -> None:
    harmless = Call("shell", {}, is_harmless=True, assessment="it only reads")
    other = Call("shell", {}, assessment="rm is not known")
    safe, safer = Permissions(mode="safe"), Permissions(mode="safer")

    assert [decide(safer, harmless).effect, decide(safer, other).effect] == ["allow", "ask"]
    assert [decide(safe, harmless).effect, decide(safe, other).effect] == ["ask", "ask"]
    assert decide(safer, other).detail == "rm is not known"
    assert decide(safe, other).detail == "shell may do more than read"


def test_permissions_of_an_imported_session_call_no_command_harmless() -> None:
    assert without_allowing(Permissions(mode="safer")).mode == "safe"
    assert without_allowing(Permissions(mode="safe")).mode == "safe"


def test_the_strictest_of_nothing_is_left_to_the_tool() -> None:
    assert strictest([]) == Decision("tool")


# -------------------------------------------------------------------------------------- grants


def test_a_grant_is_for_one_agent_and_for_what_certainly_matches() -> None:
    grants = [Grant(("agent",), GIT, "f")]
    assert is_granted(grants, ("agent",), "f", shell("git x"))
    assert not is_granted(grants, ("agent", "agent"), "f", shell("git x"))
    assert not is_granted(grants, ("agent",), "other", shell("git x"))
    assert not is_granted(grants, ("agent",), "f", shell("git x; rm"))
    assert not is_granted([], ("agent",), "f", shell("git x"))


# ------------------------------------------------------------------------- how it is written


def endless() -> list[Any]:
    """A list that holds itself."""
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule("shell"), "shell"),
        (Rule("shell", {"command": Glob("git *")}), 'shell(command like "git *")'),
        (Rule("write", {"path": Under("src"), "mode": Exact(None)}), 'write(path under "src", mode = null)'),
        (Rule.exactly("act", {"a": 1}), "act(a = 1, nothing else)"),
        (Rule("act", {"a": Exact("x" * 200)}), f'act(a = "{"x" * 75} ...)'),
    ],
)
def test_a_rule_in_words(rule: Rule, words: str) -> None:
    assert str(rule) == words


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Permissions(allow="shell"), "Permissions.allow is a list of rules, not 'shell'"),
        (lambda: Permissions(deny=Rule("shell")), "Permissions.deny is a list of rules, not Rule("),  # type: ignore[arg-type]
        (lambda: Permissions(deny=7), "Permissions.deny is a list of rules, not 7"),  # type: ignore[arg-type]
        (lambda: Permissions(deny={"shell": Glob("rm*")}), "Permissions.deny is a list of rules, not {"),
        (lambda: Permissions(deny=b"shell"), "Permissions.deny is a list of rules, not b'"),  # type: ignore[arg-type]
        (lambda: Permissions(ask=[7]), "Permissions.ask: 7 is no rule"),  # type: ignore[list-item]
        (lambda: Permissions(ask=[""]), "Rule.tool is some text, not ''"),
        (lambda: Permissions(mode="yolo"), "Permissions.mode='yolo': there are 'plan', 'strict'"),  # type: ignore[arg-type]
        (lambda: Rule(7), "Rule.tool is some text, not 7"),  # type: ignore[arg-type]
        (lambda: Rule("a", ["b"]), "Rule.where is a dict of conditions"),  # type: ignore[arg-type]
        (lambda: Rule("a", {"b": "c"}), "'b': 'c' is no condition: give an Exact"),  # type: ignore[dict-item]
        (lambda: Glob(""), "Glob.pattern is some text, not ''"),
        (lambda: Glob("\ud800"), "which has half a character"),
        (lambda: Under(""), "Under.folder is some text, not ''"),
        (lambda: Under(".git/**"), "covers all inside; for a pattern give a Glob"),
        (lambda: Exact(float("nan")), "Exact.value is a JSON value, and nan is none"),
        (lambda: Exact([{"a": {1}}]), "Exact.value is a JSON value, and {1} is none"),
        (lambda: Exact(endless()), "Exact.value is nested too deeply"),
        (lambda: Exact({1: "a"}), "Exact.value is a JSON value, and 1 is none"),
        (lambda: Grant(("a",), "shell"), "Grant.rule is a Rule, not 'shell'"),  # type: ignore[arg-type]
        (lambda: Grant("a", Rule("shell")), "Grant.agents is a tuple of names"),  # type: ignore[arg-type]
        (lambda: Grant((None,), Rule("shell")), "a name in Grant.agents is some text"),  # type: ignore[arg-type]
        (lambda: Under("../a"), "spell the folder out"),
        (lambda: Under("~/a"), "Under('~/a'): spell the folder out"),
        (lambda: Under("a\\b"), ": spell the folder out"),
    ],
)
def test_what_is_no_rule_is_refused(make: Any, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("glob", "advice"),
    [
        ("shell:cmd=rm*", "give Rule('shell', {'cmd': Glob('rm*')})"),
        ("Bash(rm *)", "give Rule('Bash', {'argument': Glob('rm *')})"),
        ("shell:rm*", "give Rule('shell', {'argument': Glob('rm*')})"),
        ("mcp__x__*(a)", "give Rule('mcp__x__*', {'argument': Glob('a')})"),
        ("a|b", "give one for each: 'a', 'b'"),
        ("shell, write_file", "give one for each: 'shell', 'write_file'"),
        ("^shell$", "did you mean 'shell'?"),
        ("mcp__.*", "did you mean 'mcp__*'?"),
        ("shell ", "did you mean 'shell'?"),
        ("s[a-h]ell", "names are letters, digits, '_' and '-'"),
        ("{a,b}", "names are letters, digits, '_' and '-'"),
        ("shell.run", "names are letters, digits, '_' and '-'"),
        ("sh\u00e9ll", "names are letters, digits, '_' and '-'"),
        ("shell\n", "did you mean 'shell'?"),
        ("a" * 65, "names have 64 characters at most"),
        ("?" * 65, "names have 64 characters at most"),
    ],
)
def test_a_rule_and_a_hook_whose_tool_can_have_no_such_name_are_refused_with_the_way_out(
    glob: str, advice: str
) -> None:
    for make in (lambda: Rule(glob), lambda: Permissions(deny=[glob]), lambda: hooks.pre_tool_use(tools=glob)(print)):
        with pytest.raises(UsageError, match="matches no tool") as caught:
            make()
        assert advice in str(caught.value)


def test_a_hook_for_no_tools_is_refused() -> None:
    with pytest.raises(UsageError, match="matches no tool"):
        hooks.pre_tool_use(tools=[])(print)


names = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)


@given(names)
def test_the_name_of_every_tool_is_a_rule_about_it(name: str) -> None:
    assert covers(Rule(name), Call(name, {}), certainly=True)
