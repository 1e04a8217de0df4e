"""The programs that are known to be harmless, with the options and operands for which that is known.

Harmless means: it writes no file, changes no setting, ends no process, talks to no other computer, and runs no other
program. For each program that is on every system, its options in GNU coreutils, in BSD, on macOS and in BusyBox were
looked at; an option that one of them gives another meaning is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from agentloop.toolkit._harmless_options import Given, Places, Program
from agentloop.toolkit._harmless_scripts import (
    check_awk,
    check_find,
    check_jq,
    check_printf,
    check_sed,
    check_tar,
    check_test,
)
from agentloop.toolkit._shell_parser import NotKnownError, Word

__all__ = ["CHECKS", "PROGRAMS", "VARIABLES"]

_ANY = Program(any_option=True)
_ANY_TEXT = Program(any_option=True, operands="text")


def _check_date(given: Given) -> None:
    for word in given.operands:
        # Anything else would set the clock.
        if not word.text.startswith("+"):
            raise NotKnownError(f"date {word.text} may set the clock")


def _check_unzip(given: Given) -> None:
    if not given.has("-l"):
        raise NotKnownError("unzip is known to be harmless only with -l")


def _check_version(given: Given) -> None:
    if len(given.options) != 1 or given.options[0][1] is not None:
        raise NotKnownError(f"{given.name} is known to be harmless only with --version")


_GREP = Program(
    flags="-E -F -G -P -i -y -v -w -x -c -l -L -n -H -h -o -q -s -r -R -a -I -z -Z -b -T -U"
    " --extended-regexp --fixed-strings --basic-regexp --perl-regexp --ignore-case --no-ignore-case --invert-match"
    " --word-regexp --line-regexp --count --files-with-matches --files-without-match --line-number --with-filename"
    " --no-filename --only-matching --quiet --silent --no-messages --recursive --dereference-recursive --text --null"
    " --null-data --byte-offset --initial-tab --color --colour --line-buffered",
    valued="-e -m -A -B -C -D -d --regexp --max-count --after-context --before-context --context --include --exclude"
    " --exclude-dir --binary-files --directories --devices --group-separator",
    files="-f --file --exclude-from",
    number=True,
    operands="pattern",
    pattern_options="-e --regexp -f --file",
)
_RIPGREP = Program(
    # Not --pre, which runs a program, nor -z, which runs others, nor --hostname-bin.
    flags="-i -S -s -v -w -x -c -l -n -N -H -I -o -q -a -F -P -U -L -u -p -0 --ignore-case --smart-case"
    " --case-sensitive --invert-match --word-regexp --line-regexp --count --count-matches --files-with-matches"
    " --files-without-match --line-number --no-line-number --with-filename --no-filename --only-matching --quiet --text"
    " --fixed-strings --pcre2 --multiline --files --hidden --no-ignore --no-ignore-vcs --null --column --heading"
    " --no-heading --json --stats --trim --vimgrep --no-messages --type-list --version --no-config --sort-files",
    valued="-e -g -t -T -m -A -B -C -j -M -r -E -d --regexp --glob --iglob --type --type-not --max-count"
    " --after-context --before-context --context --threads --max-columns --replace --encoding --max-depth"
    " --max-filesize --sort --sortr --color --colors",
    files="-f --file --ignore-file",
    operands="pattern",
    pattern_options="-e --regexp -f --file --files --type-list --version",
)


def _version(flags: str = "--version") -> Program:
    """A program that says which version it is. Without the option, or with another one, it may run what it reads."""
    return Program(flags=flags, operands="none", check=_check_version)


PROGRAMS: Mapping[str, Program] = {
    # Text, and the state of the system.
    "echo": _ANY_TEXT,
    "true": _ANY_TEXT,
    "false": _ANY_TEXT,
    ":": _ANY_TEXT,
    "pwd": _ANY_TEXT,
    "seq": Program(flags="-w", valued="-s", number=True, operands="text"),
    "expr": _ANY_TEXT,
    "basename": _ANY_TEXT,
    "dirname": _ANY_TEXT,
    "tr": _ANY_TEXT,
    "uname": _ANY_TEXT,
    "whoami": _ANY_TEXT,
    "id": _ANY_TEXT,
    "groups": _ANY_TEXT,
    "nproc": _ANY_TEXT,
    "arch": _ANY_TEXT,
    "uptime": _ANY_TEXT,
    "which": _ANY_TEXT,
    "type": _ANY_TEXT,
    "sleep": Program(operands="text"),
    "tty": Program(flags="-s", operands="none"),
    "hostname": Program(flags="-s", operands="none"),
    "free": Program(flags="-b -k -m -g -h -t -w", operands="none"),
    "locale": Program(flags="-a -m", operands="text"),
    "getconf": Program(flags="-a", operands="text"),
    "date": Program(
        flags="-u -R -I --utc --universal --rfc-email --iso-8601", valued="-d --date --rfc-3339",
        files="-r --reference", operands="text", check=_check_date,
    ),
    # Files.
    "ls": _ANY,
    "cat": _ANY,
    "head": _ANY,
    "tail": _ANY,
    "wc": _ANY,
    "nl": _ANY,
    "tac": _ANY,
    "rev": _ANY,
    "fold": _ANY,
    "fmt": _ANY,
    "expand": _ANY,
    "unexpand": _ANY,
    "paste": _ANY,
    "join": _ANY,
    "comm": _ANY,
    "cmp": _ANY,
    "stat": _ANY,
    "readlink": _ANY,
    "realpath": _ANY,
    "du": _ANY,
    "df": _ANY,
    "od": _ANY,
    "md5sum": _ANY,
    "sha1sum": _ANY,
    "sha224sum": _ANY,
    "sha256sum": _ANY,
    "sha384sum": _ANY,
    "sha512sum": _ANY,
    "b2sum": _ANY,
    "cksum": _ANY,
    "sum": _ANY,
    "hexdump": Program(flags="-b -c -C -d -o -x -v", valued="-n -s"),
    # A second operand is the output.
    "xxd": Program(flags="-a -b -e -i -p -u -E", valued="-c -g -l -s -o", most=1, may_join=False),
    "uniq": Program(
        flags="-c -d -D -i -u -z --count --repeated --ignore-case --unique --zero-terminated",
        valued="-f -s -w --skip-fields --skip-chars --check-chars", most=1,
    ),
    # Not -o, nor -T, nor --compress-program.
    "sort": Program(
        flags="-b -d -f -g -i -M -h -n -R -r -V -c -C -m -s -u -z --reverse --numeric-sort --human-numeric-sort"
        " --version-sort --general-numeric-sort --unique --ignore-case --ignore-leading-blanks --zero-terminated"
        " --stable --check --dictionary-order --month-sort",
        valued="-k -t --key --field-separator",
    ),
    "cut": Program(
        flags="-s -z -n --complement --only-delimited --zero-terminated",
        valued="-b -c -d -f --bytes --characters --delimiter --fields --output-delimiter",
    ),
    "column": Program(flags="-t -x -n -e", valued="-s -c -o"),
    "base64": Program(flags="-d --decode", valued="-w --wrap"),
    "file": Program(flags="-b -i -L -h --brief --mime --mime-type --mime-encoding"),
    "diff": Program(
        flags="-u -c -q -r -N -a -b -B -w -i -y -s -d -t -T -p --unified --brief --recursive --new-file --text"
        " --ignore-all-space --ignore-space-change --ignore-blank-lines --ignore-case --side-by-side"
        " --report-identical-files --color --suppress-common-lines --minimal --strip-trailing-cr --no-dereference",
        valued="-U -C -x -I -W --exclude --ignore-matching-lines --width --label", number=True,
    ),
    # Not -o, nor -R, which with other options writes a page into each folder.
    "tree": Program(
        flags="-a -d -f -i -s -h -D -F -n -C -A -S -p -u -g -r -t -x -l -J -X -Q -q --dirsfirst --noreport --prune --du"
        " --si --gitignore --filesfirst --inodes --device",
        valued="-L -P -I --filelimit --charset --sort --timefmt",
    ),
    "grep": _GREP,
    "egrep": _GREP,
    "fgrep": _GREP,
    "rg": _RIPGREP,
    "sed": Program(
        flags="-n -E -r -s -u -z --quiet --silent --regexp-extended --separate --unbuffered --null-data"
        " --posix --sandbox",
        valued="-e --expression", operands="pattern", pattern_options="-e --expression", check=check_sed,
    ),
    "awk": Program(valued="-F -v", operands="pattern", check=check_awk),
    "gawk": Program(valued="-F -v", operands="pattern", check=check_awk),
    "mawk": Program(valued="-F -v", operands="pattern", check=check_awk),
    "jq": Program(
        flags="-r -c -n -s -S -e -j -a -C -M --raw-output --compact-output --null-input --slurp --sort-keys"
        " --exit-status --join-output --ascii-output --color-output --monochrome-output --raw-input -R --tab",
        valued="--indent", operands="pattern", check=check_jq,
    ),
    "unzip": Program(flags="-l -v", most=1, check=_check_unzip),
    "test": Program(flags="-f -d -e -r -w -x -s -z -n -L -h"),
    # Programs that say which version they are. Others may run code of the folder first, or fetch another version.
    **dict.fromkeys(("gcc", "g++", "clang", "perl", "bash", "make", "cmake"), _version()),
    **dict.fromkeys(("python", "python3"), _version("--version -V")),
}  # fmt: skip
"""By name."""

CHECKS: Mapping[str, Callable[[Sequence[Word], Places], None]] = {
    "find": check_find,
    "printf": check_printf,
    "tar": check_tar,
    "[": check_test,
}
"""Programs whose arguments are no options and operands."""

_NAME = re.compile(r"[A-Za-z0-9_@-]{0,30}(?:\.[A-Za-z0-9_@-]{1,30})?")

VARIABLES: Mapping[str, re.Pattern[str]] = {
    "LANG": _NAME,
    "LC_ALL": _NAME,
    "LC_COLLATE": _NAME,
    "LC_CTYPE": _NAME,
    "LC_NUMERIC": _NAME,
    "TZ": re.compile(r"[A-Za-z0-9_+-]{0,30}(?:/[A-Za-z0-9_+-]{1,30}){0,2}"),
    "COLUMNS": re.compile(r"[0-9]{0,4}"),
    "LINES": re.compile(r"[0-9]{0,4}"),
    "NO_COLOR": re.compile(r"[0-9]?"),
    "TERM": re.compile(r"dumb|xterm(-256color)?"),
    "PAGER": re.compile(r"(cat)?"),
    "GIT_PAGER": re.compile(r"(cat)?"),
    "GIT_OPTIONAL_LOCKS": re.compile(r"0"),
    "GIT_TERMINAL_PROMPT": re.compile(r"0"),
}
"""The variables that a command may set for itself, with the values that change nothing but what it prints."""
