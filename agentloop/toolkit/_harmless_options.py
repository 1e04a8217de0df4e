"""What a harmless program may be given: a program's options and operands as a value, and the check of a command by it.

Only listed options pass, each in full: GNU's programs and git take the beginning of a long option for the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from posixpath import normpath
from typing import Literal, TypeAlias

from attrs import field, frozen

from agentloop.toolkit._shell_parser import ANYTHING, NAME, Command, NotKnownError, Word, one_of, unmarked

__all__ = ["Given", "Operands", "Places", "Program", "check_program", "plain_name", "read_options"]

Operands: TypeAlias = Literal["paths", "text", "pattern", "none"]
"""What the arguments besides options are: paths; any text; a pattern, and then paths; or none are known."""


def _options(text: str | frozenset[str]) -> frozenset[str]:
    return one_of(text) if isinstance(text, str) else text


@frozen(kw_only=True)
class Program:
    """The options and operands with which a program is harmless."""

    flags: frozenset[str] = field(default=frozenset[str](), converter=_options)
    """Options without a value: ``-l --all``. Those of one letter may stand together."""
    valued: frozenset[str] = field(default=frozenset[str](), converter=_options)
    """Options with a value that is text."""
    files: frozenset[str] = field(default=frozenset[str](), converter=_options)
    """Options with a value that is the path of a file to read."""
    any_option: bool = False
    """Whether each option is harmless, of every implementation. Its values may be paths."""
    may_join: bool = True
    """Whether options of one letter may stand together."""
    number: bool = False
    """Whether a number is an option: ``-20``."""
    operands: Operands = "paths"
    most: int | None = None
    """Operands at most: some programs write to the second one."""
    pattern_options: frozenset[str] = field(default=frozenset[str](), converter=_options)
    """Options with which there is no pattern among the operands."""
    check: Callable[[Given], None] | None = None
    """Checks what options and operands do not say. Raises `NotKnownError`."""


@frozen
class Given:
    """The arguments of one command, taken apart."""

    name: str
    """The program; of git, with its command."""
    options: tuple[tuple[str, Word | None], ...]
    """Each option with its value."""
    operands: tuple[Word, ...]
    places: Places

    def has(self, *names: str) -> bool:
        """Whether one of these options is given."""
        return any(name in names for name, _ in self.options)


# ----------------------------------------------------------------------------------- the options


def check_program(name: str, program: Program, arguments: Sequence[Word], places: Places) -> None:
    """Check that ``program`` does no harm with these arguments.

    Raises:
      NotKnownError: it may.
    """
    if program.any_option:
        _check_freely(name, program, arguments, places)
        return
    given = read_options(name, program, arguments, places)
    for option, value in given.options:
        if option in program.files and value is not None:
            places.check(value)
    _check_operands(name, program, given)
    if program.check is not None:
        program.check(given)


def _check_freely(name: str, program: Program, arguments: Sequence[Word], places: Places) -> None:
    if program.operands == "text":
        return
    for word in arguments:
        if word.text.startswith("--libxo"):
            raise NotKnownError(f"{name} {unmarked(word.text)} may load code")
        for path in _paths_in(word):
            places.check(path)


def _paths_in(word: Word) -> Iterator[Word]:
    """The texts in ``word`` that may be paths, where any option is."""
    yield word
    if word.text.startswith("--"):
        yield Word(word.text.partition("=")[2])
    elif word.text.startswith("-"):
        # The value of which letter begins where is not known.
        slash = min((word.text.find(mark) for mark in "/~=" if mark in word.text), default=len(word.text))
        yield Word(word.text[2:])
        yield Word(word.text[slash:].removeprefix("="))


def read_options(name: str, program: Program, arguments: Sequence[Word], places: Places) -> Given:
    """Take ``arguments`` apart.

    Raises:
      NotKnownError: an option is not among those of ``program``, or an argument may be an option.
    """
    options: list[tuple[str, Word | None]] = []
    operands: list[Word] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word.text == "--" and word.is_plain:
            operands += rest
            break
        if word.text == "-" or not word.may_be_option:
            operands.append(word)
        elif not word.text.startswith("-") or word.splits:
            raise NotKnownError(f"an argument of {name} may be an option ({unmarked(word.text)})")
        elif program.number and re.fullmatch(r"-[0-9]+", word.text):
            options.append(("-number", None))
        else:
            options += _options_in(name, program, word.text, rest)
    return Given(name, tuple(options), tuple(operands), places)


def _options_in(name: str, program: Program, text: str, rest: list[Word]) -> Iterator[tuple[str, Word | None]]:
    """The options that one word spells out. Takes a value from ``rest``, where that is the next word."""
    takes_value = program.valued | program.files
    option, equals, value = text.partition("=")
    if text in program.flags:
        yield text, None
    elif option in takes_value and (equals or (rest and option.startswith("--")) or (rest and option == text)):
        yield option, Word(value) if equals and option.startswith("--") else _value(name, option, rest, equals, value)
    elif option in program.flags and equals and option.startswith("--"):
        # As --color=always: a value that may be left out.
        yield option, Word(value)
    elif text.startswith("--") or len(text) < 3:
        raise NotKnownError(f"{name} {unmarked(text)} is not known to be harmless")
    else:
        yield from _letters_in(name, program, text, rest)


def _value(name: str, option: str, rest: list[Word], equals: str, value: str) -> Word:
    if equals:
        # To a short option, the equals sign is a part of its value.
        return Word(f"={value}")
    word = rest.pop(0)
    if word.splits or NAME in word.text:
        # It may become several words: a value, and then options.
        raise NotKnownError(f"an argument of {name} may be several ({unmarked(word.text)})")
    return word


def _letters_in(name: str, program: Program, text: str, rest: list[Word]) -> Iterator[tuple[str, Word | None]]:
    for index, letter in enumerate(text[1:], 1):
        option = f"-{letter}"
        if option in program.flags and program.may_join:
            yield option, None
        elif option in program.valued | program.files:
            left = text[index + 1 :]
            if not left and not rest:
                raise NotKnownError(f"{name} {option} has no value")
            yield option, Word(left) if left else _value(name, option, rest, "", "")
            return
        else:
            raise NotKnownError(f"{name} {option} is not known to be harmless")


def _check_operands(name: str, program: Program, given: Given) -> None:
    operands = given.operands
    if program.operands == "none" and operands:
        raise NotKnownError(f"{name} {unmarked(operands[0].text)} is not known to be harmless")
    if program.most is not None and (
        len(operands) > program.most or any(word.splits or NAME in word.text for word in operands)
    ):
        raise NotKnownError(f"{name} may write to its argument {unmarked(operands[-1].text)}")
    if program.operands == "pattern" and not given.has(*program.pattern_options):
        if operands and operands[0].splits:
            raise NotKnownError(f"an argument of {name} may be several ({unmarked(operands[0].text)})")
        operands = operands[1:]
    if program.operands in ("paths", "pattern"):
        for word in operands:
            given.places.check(word)


# ------------------------------------------------------------------------------------ the places

_PUBLIC = (
    "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/include", "/usr/share", "/usr/src",
    "/usr/local/bin", "/usr/local/lib", "/usr/local/include", "/usr/local/share",
    "/bin", "/sbin", "/lib", "/lib64", "/dev/null", "/dev/stdin", "/dev/fd",
    "/etc/os-release", "/etc/lsb-release", "/etc/debian_version", "/etc/shells", "/etc/timezone",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/version", "/proc/loadavg", "/proc/uptime",
)  # fmt: skip
"""Folders and files of the system that are the same for all users, and hold no secrets."""

_SECRET = (
    ".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker", ".password-store", ".config", ".local", ".mozilla",
    ".netrc", "_netrc", ".npmrc", ".yarnrc*", ".pypirc", ".pgpass", ".my.cnf", ".git-credentials", ".htpasswd",
    ".vault-token", ".terraformrc", ".env", ".env.*", "*.env", ".envrc", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.tfvars", "*.tfstate",
    "credentials", "credentials.*", "secret", "secrets", "secret.*", "secrets.*", "*_history", "shadow", "environ",
)  # fmt: skip
"""Names of files and folders that often hold secrets."""
_TEMPLATES = frozenset({".env.example", ".env.sample", ".env.template", ".env.dist"})


@frozen
class Places:
    """The files that a harmless command may read."""

    folder: str = ""
    """The folder in which the command line runs, as an absolute path; empty if it is not known."""

    def check(self, word: Word) -> None:
        """Check that ``word``, if it is a path, leads to a file that the command may read.

        Paths are compared as text: no file is read, and no link is followed.

        Raises:
          NotKnownError: it may lead elsewhere, or its name is one that secrets often have.
        """
        text = word.text
        if ANYTHING in text:
            raise NotKnownError(f"where {unmarked(text)} leads is not known")
        shown = unmarked(text)
        if text.startswith("~"):
            raise NotKnownError(f"{shown} is outside of the folder")
        if "://" in text:
            raise NotKnownError(f"{shown} may be on another computer")
        for part in re.split(r"[/:]", text):
            self._check_part(part, shown)
        if text.startswith("/") and not self._is_open(text):
            raise NotKnownError(f"{shown} is outside of the folder")

    def _check_part(self, part: str, shown: str) -> None:
        # ".." may lead out of the folder, also through a link; and some shells let ".*" stand for it.
        if part == ".." or (part.startswith(".") and NAME in part):
            raise NotKnownError(f"{shown} may lead out of the folder")
        name = part.casefold()
        if name in _TEMPLATES:
            return
        if any(fnmatchcase(name, pattern) for pattern in _SECRET):
            raise NotKnownError(f"{shown} may hold secrets")
        literal = name.replace(NAME, "")
        # A wildcard alone is for the whole folder, which may be read; one with a part of such a name is not.
        if literal != name and len(literal.strip(".")) > 1:
            glob = name.replace(NAME, "*")
            if any(fnmatchcase(pattern.replace("*", ""), glob) for pattern in _SECRET):
                raise NotKnownError(f"{shown} may hold secrets")

    def _is_open(self, path: str) -> bool:
        # Two slashes in front may mean something else than one.
        path = normpath("/" + path.lstrip("/"))
        folder = normpath(self.folder) if self.folder else ""
        roots = (*_PUBLIC, folder) if folder not in ("", "/", "//") else _PUBLIC
        return any(path == root or path.startswith(f"{root}/") for root in roots)


def plain_name(command: Command) -> str:
    """The name of the program that ``command`` runs. Raises `NotKnownError` if that is not known."""
    word = command.words[0]
    if not word.is_plain or not word.text:
        raise NotKnownError("which program it runs is not known")
    return word.text
