"""Programs whose arguments are a small language: sed, awk, jq, find, tar, test and printf."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from agentloop.toolkit._harmless_options import Given, Places
from agentloop.toolkit._shell_parser import NAME, NotKnownError, Word, one_of, unmarked

__all__ = ["check_awk", "check_find", "check_jq", "check_printf", "check_sed", "check_tar", "check_test"]


# ------------------------------------------------------------------------------------------ sed

# What stands between two slashes. A bracket expression must not have the slash, whose meaning there is not the same for
# all; and of the escapes, those that stand for another character are left out.
_PART = r"(?:[^{d}\\\n\[]|\\[^\ncdox]|\[\^?\]?(?:[^{d}\\\n\]\[]|\[:[a-z]+:\])*\])*"


def _between(delimiter: str) -> str:
    return _PART.replace("{d}", delimiter)


_ADDRESS = rf"(?:[0-9]+|\$|/{_between('/')}/I?)"
_ADDRESSES = rf"(?:{_ADDRESS}(?:,\s*(?:{_ADDRESS}|\+[0-9]+))?)?\s*!?\s*"
# The flags e and w of a substitution run a program and write a file.
_SUBSTITUTIONS = "|".join(
    rf"s{re.escape(mark)}{_between(mark)}{re.escape(mark)}{_between(mark)}{re.escape(mark)}[gIip0-9]*"
    for mark in "/|#,@"
)
_TRANSLATION = rf"y/{_between('/')}/{_between('/')}/"
_SED = re.compile(rf"\s*{_ADDRESSES}(?:[pPdDgGhHxnN=]|[qQ][0-9]*|{_SUBSTITUTIONS}|{_TRANSLATION})[ \t]*")
_SED_END = re.compile(r"[;\n]|$")


def check_sed(given: Given) -> None:
    """Check that the script only prints, deletes and substitutes lines of its output."""
    scripts = [value for option, value in given.options if option in ("-e", "--expression")]
    for script in scripts or given.operands[:1]:
        if script is None or not script.is_plain or not _is_plain_sed(script.text):
            raise NotKnownError("the script of sed may do more than print, delete and substitute")


def _is_plain_sed(script: str) -> bool:
    at = 0
    while at < len(script):
        command = _SED.match(script, at)
        end = command and _SED_END.match(script, command.end())
        if end is None:
            return False
        at = end.end() if end.end() > at else len(script)
    return True


# ------------------------------------------------------------------------------------- awk, jq

_AWK = re.compile(r"[|>@`\\]|system|getline|close|fflush|ENVIRON|PROCINFO|SYMTAB|FUNCTAB|ARGV|ARGC|extension|include")


def check_awk(given: Given) -> None:
    """Check that the program has none of the operators and functions by which awk writes, or runs a program."""
    for text in given.operands[:1]:
        if not text.is_plain or _AWK.search(text.text.replace("\\n", "").replace("\\t", "")):
            raise NotKnownError("the program of awk may write, or run another program")


_JQ = re.compile(r"\benv\b|\$ENV|\$__|import|include|input_filename|modulemeta|get_search_list|\bdebug\b")


def check_jq(given: Given) -> None:
    """Check that the filter reads no environment and no modules."""
    for text in given.operands[:1]:
        if not text.is_plain or _JQ.search(text.text):
            raise NotKnownError("the filter of jq may read the environment or other files")


# ------------------------------------------------------------------------------- printf, test, tar


_CONVERSION = re.compile(r"%[-+ 0#]*[0-9]*(?:\.[0-9]+)?([sbqc%]|([diouxXeEfgG]))")


def check_printf(arguments: Sequence[Word], places: Places) -> None:
    """Check that printf only prints: in bash, ``-v`` and the conversion ``%n`` set a variable, such as ``PATH``."""
    if not arguments or arguments[0].may_be_option or not arguments[0].is_plain:
        raise NotKnownError("printf may set a variable")
    text = arguments[0].text
    conversions = list(_CONVERSION.finditer(text))
    if text.count("%") != sum(2 if match[1] == "%" else 1 for match in conversions):
        raise NotKnownError("the format of printf is not known to be harmless")
    # Some shells evaluate the number that they are to print.
    is_number = any(match[2] for match in conversions)
    if is_number and not all(re.fullmatch(r"-?[0-9.]+", word.text) for word in arguments[1:]):
        raise NotKnownError("printf prints numbers that are not known")


def check_test(arguments: Sequence[Word], places: Places) -> None:
    """Check that no argument of ``[`` is an operator that the parser has not seen: some evaluate what they get."""
    for word in arguments:
        if word.splits or NAME in word.text or word.text.startswith("-"):
            raise NotKnownError(f"an argument of [ may be an operator ({unmarked(word.text)})")


_TAR = re.compile(r"-?t[vzjJ]*f")


def check_tar(arguments: Sequence[Word], places: Places) -> None:
    """Check that tar lists one file. It has many options that run programs, and a colon in a name is another host."""
    if len(arguments) != 2 or not _TAR.fullmatch(arguments[0].text) or not arguments[1].is_plain:
        raise NotKnownError("tar is known to be harmless only as in `tar -tf FILE`")
    if ":" in arguments[1].text or arguments[1].text.startswith("-"):
        raise NotKnownError(f"tar may ask another computer for {arguments[1].text}")
    places.check(arguments[1])


# ----------------------------------------------------------------------------------------- find

_TESTS = one_of(
    "-depth -d -mount -xdev -noleaf -daystart -follow -empty -readable -writable -executable -nouser -nogroup -true"
    " -false -print -print0 -ls -prune -quit -not -a -and -o -or ( ) ! , -H -L -P -E -X -x"
)
_TEXT_TESTS = one_of(
    "-name -iname -path -ipath -wholename -iwholename -regex -iregex -regextype -lname -ilname -type -xtype -size -perm"
    " -user -group -uid -gid -mtime -atime -ctime -mmin -amin -cmin -maxdepth -mindepth -links -inum -fstype -used"
    " -printf"
)
_FILE_TESTS = frozenset({"-newer", "-anewer", "-cnewer", "-samefile"})


def check_find(arguments: Sequence[Word], places: Places) -> None:
    """Check that find only looks: ``-exec``, ``-delete``, ``-fprint`` and their like are not among its tests."""
    rest = iter(arguments)
    for word in rest:
        if word.splits or (word.may_be_option and not word.is_plain):
            raise NotKnownError(f"an argument of find may be an action ({unmarked(word.text)})")
        if word.text in _TEXT_TESTS:
            _value(word, rest)
        elif word.text in _FILE_TESTS:
            places.check(_value(word, rest))
        elif word.text.startswith(("-", "(", ")", "!", ",")):
            if word.text not in _TESTS:
                raise NotKnownError(f"find {unmarked(word.text)} is not known to be harmless")
        else:
            places.check(word)


def _value(test: Word, rest: Iterator[Word]) -> Word:
    value = next(rest, None)
    if value is None or value.splits or NAME in value.text:
        # A wildcard may become several words, of which one is an action.
        raise NotKnownError(f"the value of find {test.text} is not known: put it in quotes")
    return value
