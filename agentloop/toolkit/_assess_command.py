"""Say of a command line whether it is harmless, and what it may touch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentloop._core.blast_radius import LONGEST, MOST, host_of
from agentloop.errors import MissingExtraError
from agentloop.safety import Assessment, BlastRadius
from agentloop.toolkit._harmless_git import check_git
from agentloop.toolkit._harmless_options import Places, check_program, plain_name
from agentloop.toolkit._harmless_programs import CHECKS, PROGRAMS, VARIABLES
from agentloop.toolkit._shell_parser import (
    ANYTHING,
    NAME,
    Command,
    NotKnownError,
    Redirect,
    Script,
    Word,
    parse,
    unmarked,
)

__all__ = ["assess_command", "command_assessor"]

DEEPEST_SHELL = 3
"""Shells in shells."""

HARMLESS = "it only reads"


def command_assessor(
    *, argument: str = "command", folder: str | os.PathLike[str] | None = None
) -> Callable[[dict[str, Any]], Assessment]:
    """A function for ``@tool(assess=...)`` of a tool that runs the command line in one of its arguments.

    ::

        @tool(requires_approval=True, assess=command_assessor(folder="/srv/project"))
        async def bash(command: str) -> str: ...

    `agentloop.toolkit.shell` has one already.

    Args:
      argument: name of the argument with the command line.
      folder: the folder in which the tool runs it; see `assess_command`.

    Returns:
      A plain function of the arguments. A command line that is no text is not known to be harmless.
    """

    def assess(arguments: dict[str, Any]) -> Assessment:
        line = arguments.get(argument)
        if not isinstance(line, str):
            return Assessment(why="it has no command line")
        return assess_command(line, folder=folder)

    return assess


def assess_command(line: str, *, folder: str | os.PathLike[str] | None = None) -> Assessment:
    """Say of a command line for ``/bin/sh``, or for bash, whether it is harmless, and what it may touch.

    Harmless means: each program that it runs is known, and with these options and operands it writes no file, changes
    no setting, talks to no other computer and runs no other program; and no path in it leads out of the folder or has a
    name that secrets often have. Doubt is not harmless. No file is read for it, and no link is followed.

    ::

        assess_command("git log --oneline | head -5").is_harmless               # True
        assess_command("git log --output=notes").why     # 'git log --output=notes is not known to be harmless'

    Args:
      line: the command line.
      folder: the folder in which it runs. Absolute paths inside of it count as paths in it; without one, absolute
        paths are harmless only in folders of the system, such as ``/usr/share``.

    Returns:
      The assessment. Without the extra ``shell``, none is harmless, and ``why`` says what to install.
    """
    places = Places("" if folder is None else str(Path(folder).absolute()))
    script: Script | None = None
    try:
        script = parse(line)
        _check(script, places, is_at_home=True, depth=0)
    except (NotKnownError, MissingExtraError) as error:
        return Assessment(why=_short(str(error)), blast_radius=_radius(line, script, is_complete=False))
    return Assessment(is_harmless=True, why=HARMLESS, blast_radius=_radius(line, script, is_complete=True))


def _check(script: Script, places: Places, *, is_at_home: bool, depth: int) -> None:
    """Check each part of ``script``. Raises `NotKnownError` if one may do harm."""
    for redirect in script.redirects:
        _check_redirect(redirect, places)
    # Also as an argument: `command cd elsewhere`.
    stays = not any(word.text == "cd" for command in script.commands for word in command.words)
    checker = _Checker(places, is_at_home=is_at_home and stays, depth=depth)
    for command in script.commands:
        checker.check(command)


def _check_redirect(redirect: Redirect, places: Places) -> None:
    operator, target = redirect.operator, redirect.target
    if operator == "<<<":
        return
    if not target.is_plain:
        raise NotKnownError(f"where {operator} {unmarked(target.text)} leads is not known")
    if operator == "<":
        places.check(target)
    elif operator in (">&", "<&") and re.fullmatch(r"[0-9]|-", target.text):
        return
    elif operator not in (">", ">>", ">|", "&>", "&>>") or target.text != "/dev/null":
        raise NotKnownError(f"{operator} writes to {target.text}")


class _Checker:
    """Checks the commands of one script."""

    def __init__(self, places: Places, *, is_at_home: bool, depth: int) -> None:
        self._places = places
        self._is_at_home = is_at_home
        self._depth = depth
        self._wrappers: Mapping[str, Callable[[Command, Sequence[Word]], None]] = {
            "cd": self._cd,
            "git": self._git,
            "env": self._env,
            "command": self._command,
            "timeout": self._timeout,
            "nice": self._nice,
            "time": self._time,
            "xargs": self._xargs,
            "sh": self._shell,
            "bash": self._shell,
            "dash": self._shell,
        }

    def check(self, command: Command) -> None:
        for name, value in command.assignments:
            self._check_variable(name, value)
        if command.words:
            self._run(command, command.words)

    def _run(self, command: Command, words: Sequence[Word]) -> None:
        """Check that running ``words`` is harmless."""
        name, arguments = _program_of(words), words[1:]
        if name in PROGRAMS and [word.text for word in arguments] in (["--version"], ["--help"]):
            return
        if name in self._wrappers:
            self._wrappers[name](command, arguments)
        elif name in CHECKS:
            CHECKS[name](arguments, self._places)
        elif name in PROGRAMS:
            check_program(name, PROGRAMS[name], arguments, self._places)
        else:
            raise NotKnownError(f"{name} is not known to be harmless")

    def _check_variable(self, name: str, value: Word) -> None:
        pattern = VARIABLES.get(name)
        if pattern is None or not value.is_plain or not pattern.fullmatch(value.text):
            raise NotKnownError(f"the variable {name} may change what programs do")

    # ------------------------------------------------------------- programs that run others

    def _cd(self, command: Command, arguments: Sequence[Word]) -> None:
        if len(arguments) != 1 or not arguments[0].is_plain or arguments[0].may_be_option or not arguments[0].text:
            raise NotKnownError("where cd leads is not known")
        self._places.check(arguments[0])

    def _git(self, command: Command, arguments: Sequence[Word]) -> None:
        check_git(arguments, self._places, is_at_home=self._is_at_home)

    def _env(self, command: Command, arguments: Sequence[Word]) -> None:
        rest = list(arguments)
        while rest and rest[0].is_plain and re.match(r"[A-Za-z_][A-Za-z0-9_]*=", rest[0].text):
            name, _, value = rest.pop(0).text.partition("=")
            self._check_variable(name, Word(value))
        if not rest:
            raise NotKnownError("env shows all variables, and some may be secret")
        self._run(command, rest)

    def _command(self, command: Command, arguments: Sequence[Word]) -> None:
        if arguments and arguments[0].text in ("-v", "-V"):
            return
        self._run_rest("command", command, arguments)

    def _timeout(self, command: Command, arguments: Sequence[Word]) -> None:
        if not arguments or not re.fullmatch(r"[0-9.]+[smh]?", arguments[0].text):
            raise NotKnownError("timeout is known to be harmless only as in `timeout 5s PROGRAM`")
        self._run_rest("timeout", command, arguments[1:])

    def _nice(self, command: Command, arguments: Sequence[Word]) -> None:
        if len(arguments) > 1 and arguments[0].text == "-n" and re.fullmatch("[0-9]+", arguments[1].text):
            arguments = arguments[2:]
        self._run_rest("nice", command, arguments)

    def _time(self, command: Command, arguments: Sequence[Word]) -> None:
        self._run_rest("time", command, arguments[1:] if arguments and arguments[0].text == "-p" else arguments)

    def _run_rest(self, wrapper: str, command: Command, words: Sequence[Word]) -> None:
        if not words or words[0].may_be_option:
            raise NotKnownError(f"which program {wrapper} runs is not known")
        self._run(command, words)

    def _shell(self, command: Command, arguments: Sequence[Word]) -> None:
        """Check a script in an argument like any other. The parser refuses its parameters, such as ``$1``."""
        texts = [word.text for word in arguments]
        if len(texts) < 2 or texts[0] != "-c" or not arguments[1].is_plain:
            raise NotKnownError(f"{command.words[0].text} runs a script that is not known")
        if self._depth >= DEEPEST_SHELL:
            raise NotKnownError("it has too many shells in shells")
        _check(parse(texts[1]), self._places, is_at_home=self._is_at_home, depth=self._depth + 1)

    def _xargs(self, command: Command, arguments: Sequence[Word]) -> None:
        """The input of xargs becomes arguments: the names that another command has found, or texts that may be any."""
        rest = list(arguments)
        mark, is_zero = "", False
        while rest and rest[0].text.startswith("-"):
            option = rest.pop(0)
            if option.text in ("-0", "--null"):
                is_zero = True
            elif option.text in ("-r", "-t", "--no-run-if-empty"):
                continue
            elif option.text in ("-n", "-P", "-L") and rest and re.fullmatch("[0-9]+", rest[0].text):
                rest.pop(0)
            elif option.text == "-I" and rest and rest[0].text in ("{}", "%", "@"):
                mark = rest.pop(0).text
            elif not re.fullmatch(r"-[nPL][0-9]+", option.text):
                if option.text != "-I{}":
                    raise NotKnownError(f"xargs {unmarked(option.text)} is not known to be harmless")
                mark = "{}"
        if not rest:
            rest = [Word("echo")]
        found = _names_from(command.feeder) if is_zero else None
        given = Word(ANYTHING, splits=True) if found is None else found
        if mark:
            # An input replaces the mark inside of a word, and stays one word.
            replaced = [Word(word.text.replace(mark, given.text), word.splits) for word in rest[1:]]
            self._run_found(command, [rest[0], *replaced], found)
        else:
            self._run_found(command, [*rest, given], found)

    def _run_found(self, command: Command, words: Sequence[Word], found: Word | None) -> None:
        try:
            self._run(command, words)
        except NotKnownError as error:
            if found is None and any(ANYTHING in word.text for word in words):
                hint = "; names from `find ... -print0` to `xargs -0` are"
                raise NotKnownError(f"what xargs gives to {unmarked(words[0].text)} is not known{hint}") from error
            raise


def _program_of(words: Sequence[Word]) -> str:
    """The name of the program, without the folder of the system that it is in."""
    name = plain_name(Command(tuple(words)))
    for folder in ("/bin/", "/usr/bin/"):
        if name.startswith(folder) and "/" not in name[len(folder) :]:
            return name[len(folder) :]
    return name


def _names_from(feeder: Command | None) -> Word | None:
    """The names of files that ``feeder`` writes, each with a NUL behind it; ``None`` if it may write anything else."""
    words = [] if feeder is None else [word.text for word in feeder.words]
    match words:
        case ["find", *arguments]:
            roots = [argument for argument in arguments if not argument.startswith(("-", "(", "!"))][:1]
            root = arguments[0] if arguments and roots == arguments[:1] else "."
            others = [argument for argument in arguments[1:] if argument.startswith("/")]
            if "-print0" in arguments and not {"-printf", "-print", "-ls"} & {*arguments} and not others:
                return Word(f"{root}/{NAME}")
        case ["git", "ls-files", *arguments] if "-z" in arguments:
            return Word(NAME)
        case ["grep", *arguments] if any(
            re.fullmatch("-[rniwEF]*(l[rniwEF]*Z|Z[rniwEF]*l)[rniwEF]*", a) for a in arguments
        ):
            return Word(NAME)
        case ["rg", *arguments] if "-0" in arguments and {"-l", "--files", "--files-with-matches"} & {*arguments}:
            return Word(NAME)
        case _:
            pass
    return None


# ------------------------------------------------------------------------------- the blast radius


def _radius(line: str, script: Script | None, *, is_complete: bool) -> BlastRadius:
    if script is None:
        return BlastRadius(commands=(_short(line),))
    words = [word for command in script.commands for word in command.words[1:]]
    texts = [word.text for word in words] + [redirect.target.text for redirect in script.redirects]
    paths = [unmarked(text) for text in texts if _looks_like_path(text)]
    hosts = [host_of(text) for text in texts if "://" in text]
    commands = [str(command) for command in script.commands if command.words]
    return BlastRadius(_first(paths), _first(hosts), _first(commands), is_complete)


def _looks_like_path(text: str) -> bool:
    if text.startswith("-") or "://" in text or any(character in text for character in "\n{}()$"):
        return False
    return "/" in text or text.startswith("~") or bool(re.fullmatch(r"[\w\x01-]*\.[\w\x01-]+", text))


def _first(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(_short(text) for text in list(dict.fromkeys(text for text in texts if text))[:MOST])


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."
