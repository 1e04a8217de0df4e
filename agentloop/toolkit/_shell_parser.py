"""Take a command line apart into the programs that it runs, by tree-sitter's grammar of bash.

**Doubt is an error.** The grammar is lenient where a shell is not, and ``/bin/sh`` is not always bash. So only kinds of
nodes that are listed here are read, each word is read character by character once more, and no character may be left
over between two words. All else, functions and ``case`` among it, raises `NotKnownError`, and a person decides. What is
left means the same to dash, bash, ksh and BusyBox, or is an error of syntax to one of them, which then runs nothing.

**Words.** The value of a word is text, with two marks for what only the shell finds out: `ANYTHING` (the output of a
program, the value of a variable) and `NAME` (a wildcard: part of the name of a file). Both are control characters,
which no command line may have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any
from unicodedata import category

from attrs import evolve, frozen

from agentloop.errors import MissingExtraError

__all__ = ["ANYTHING", "NAME", "Command", "NotKnownError", "Redirect", "Script", "Word", "one_of", "parse", "unmarked"]

ANYTHING = "\x00"
"""Stands for any text, also for none."""
NAME = "\x01"
"""Stands for a part of the name of a file, without ``/``, and without a dot in front."""

LONGEST = 4_000
"""Bytes of a command line. Longer ones are seldom harmless, and parsing takes the time of the whole run."""
MOST_COMMANDS = 200
"""Commands of a line, each turn of a loop counted."""
DEEPEST = 40
"""Levels of nesting."""


class NotKnownError(Exception):
    """It is not known whether a command is harmless. The message says why, in words for a person."""


@frozen
class Word:
    """A word of a command, as the shell would give it to the program."""

    text: str
    """Its value, with the marks."""
    splits: bool = False
    """Whether it may become several words, or none."""

    @property
    def is_plain(self) -> bool:
        """Whether its value is known."""
        return not self.splits and ANYTHING not in self.text and NAME not in self.text

    @property
    def may_be_option(self) -> bool:
        """Whether a program may take it, or a part of it, for an option."""
        return self.splits or self.text[:1] in ("-", ANYTHING, NAME)


@frozen
class Command:
    """A program with its arguments."""

    words: tuple[Word, ...]
    """The program and its arguments; only the assignments, if it has no words."""
    assignments: tuple[tuple[str, Word], ...] = ()
    """Variables that are set in front of it, for it alone."""
    feeder: Command | None = None
    """The command whose output it reads through a pipe, if that is a single one."""

    def __str__(self) -> str:
        return unmarked(" ".join(word.text for word in self.words))


@frozen
class Redirect:
    """A redirection to or from a file."""

    operator: str
    target: Word


@frozen
class Script:
    """All that a command line runs."""

    commands: tuple[Command, ...]
    redirects: tuple[Redirect, ...]


def one_of(text: str) -> frozenset[str]:
    """The words of ``text``."""
    return frozenset(text.split())


def unmarked(text: str) -> str:
    """``text`` for a person, with an ellipsis and a star in the place of the marks."""
    return text.replace(ANYTHING, "...").replace(NAME, "*")


def parse(line: str) -> Script:
    """Take ``line`` apart.

    Raises:
      NotKnownError: something in it is not understood for certain.
      MissingExtraError: tree-sitter, or its grammar of bash, is not installed.
    """
    try:
        source = line.encode()
    except UnicodeEncodeError as error:
        raise NotKnownError("it has half a character") from error
    if len(source) > LONGEST:
        raise NotKnownError("it is too long to be taken apart")
    odd = next((character for character in line if _is_odd(character)), None)
    if odd is not None:
        raise NotKnownError(f"it has the character U+{ord(odd):04X}, which shells and people may take for another")
    parser, language = _import_parser()
    root = parser.Parser(language).parse(source).root_node
    if root.has_error:
        raise NotKnownError("it cannot be taken apart")
    reader = _Reader(source)
    reader.read_root(root)
    commands = reader.commands
    if reader.has_input:
        # It may take the place of a pipe: of which one, the grammar does not say as a shell does.
        commands = [evolve(command, feeder=None) for command in commands]
    return Script(tuple(commands), tuple(reader.redirects))


def _is_odd(character: str) -> bool:
    """Whether parsers, shells or eyes may disagree about ``character``: control characters, odd blanks, no character.

    To a shell, of all blanks only the space and the tab separate words; the grammar takes others for separators, too.
    """
    if character in "\n\t" or " " <= character <= "~":
        return False
    return category(character)[0] in "CZ"


@cache
def _import_parser() -> tuple[Any, Any]:
    try:
        parser, grammar = import_module("tree_sitter"), import_module("tree_sitter_bash")
    except ImportError as error:
        package = error.name or "tree_sitter"
        raise MissingExtraError(
            feature="taking command lines apart", package=package.replace("_", "-"), extra="shell"
        ) from error
    return parser, parser.Language(grammar.language())


# --------------------------------------------------------------------------------- the nodes

_TOKENS = one_of("; && || | ( ) { } ! if then elif else fi for in do done") | {"\n"}
"""Tokens that say how commands belong together. That changes nothing: each of the commands must be harmless."""
_STATEMENTS = frozenset(
    {"program", "list", "pipeline", "subshell", "compound_statement", "negated_command", "redirected_statement"}
    | {"if_statement", "elif_clause", "else_clause", "do_group", "variable_assignments"}
)
_LINES = _STATEMENTS | {"for_statement", "command_substitution", "process_substitution", "heredoc_redirect"}
"""Nodes whose parts may stand in several lines."""
_WORDS = frozenset(
    {"word", "number", "raw_string", "string", "concatenation", "simple_expansion", "expansion"}
    | {"command_substitution", "process_substitution", "arithmetic_expansion"}
)
_REDIRECTS = frozenset({"file_redirect", "heredoc_redirect", "herestring_redirect"})
_NAMES = {
    "&": "it leaves a process in the background",
    "function_definition": "it defines a function",
    "declaration_command": "it changes variables of the shell",
    "unset_command": "it changes variables of the shell",
    "case_statement": "it has a case statement",
    "while_statement": "it has a loop that may not end",
    "ansi_c_string": "shells read $'...' differently",
    "translated_string": 'shells read $"..." differently',
    "brace_expression": "shells read {...} differently",
}
_FILE_TESTS = one_of("-f -d -e -r -w -x -s -z -n -L -h")
_NUMBER_TESTS = one_of("-eq -ne -lt -le -gt -ge")
_OTHER_TESTS = one_of("-nt -ot -ef = != ==")
_JOINING = frozenset({"-a", "-o"})

_VARIABLE = re.compile(r"[a-z][a-z0-9_]*")
_SPECIAL = one_of(
    "path cdpath fpath manpath mailpath module_path fignore prompt psvar watch status signals options commands aliases"
    " functions histchars auto_resume"
)
"""Names in small letters that some shell gives a meaning of its own."""
_SHOWN_VARIABLES = one_of("PWD USER LOGNAME SHELL LANG TERM UID EUID PPID HOSTNAME OSTYPE RANDOM SECONDS")
"""Variables whose values are no secret. Others may be keys."""
_PLAIN_EXPANSION = re.compile(r"(\s*)\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*|[?#$!]))")
_STATUS = frozenset("?#$!")

_BLANK = re.compile(r"(?:[ \t\n]|\\\n)*")
_ARITHMETIC = re.compile(r"\$\(\([0-9 +\-*/%()<>=&|!^~?:]*\)\)")
_HEREDOC = re.compile(r"""(['"]?)([A-Za-z_][A-Za-z0-9_]*)\1""")
_HEREDOC_LINE = re.compile(rb"[^'\"\\`$()\n]*\n")
"""The rest of the line of a here-document. A quoted line break in it would not begin the document."""
_EXPANDS = re.compile(r"[$`]")
_DOLLAR = re.compile(r"\$[A-Za-z0-9_{(\[@*#?$!'-]")


class _Reader:
    """Reads the nodes of one line."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._depth = 0
        self._variables: dict[str, Word | None] = {}
        """The variables that are set so far; ``None`` for a value that is not known."""
        self._heredocs = 0
        self.commands: list[Command] = []
        self.redirects: list[Redirect] = []

    def read_root(self, root: Any) -> None:
        self._gap(0, root.start_byte)
        self._gap(root.end_byte, len(self._source))
        self._statement(root, None)

    @property
    def has_input(self) -> bool:
        """Whether there is a redirection from a file, or from the line itself."""
        return self._heredocs > 0 or any(redirect.operator.startswith("<") for redirect in self.redirects)

    # ------------------------------------------------------------------------- statements

    def _statement(self, node: Any, feeder: Command | None) -> Command | None:
        """Read a statement, or a token between statements. Returns the command, if it is a single one."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise NotKnownError("it is nested too deeply")
        try:
            return self._read_statement(node, feeder)
        finally:
            self._depth -= 1

    def _read_statement(self, node: Any, feeder: Command | None) -> Command | None:
        kind: str = node.type
        match kind:
            case "command":
                return self._command(node, feeder, ())
            case "redirected_statement":
                return self._redirected(node, feeder)
            case "test_command":
                return self._test(node)
            case "for_statement":
                self._loop(node)
            case "variable_assignment":
                self._set(*self._assignment(node))
            case "comment":
                self._comment(node)
            case "pipeline":
                previous: Command | None = None
                for child in self._children(node):
                    if child.is_named:
                        previous = self._statement(child, previous)
                    else:
                        self._token(child)
            case _ if kind in _STATEMENTS:
                for child in self._children(node):
                    # In a group, the first command reads what the group gets, and the others the rest of it.
                    self._statement(child, None)
            case _:
                self._token(node)
        return None

    def _token(self, node: Any) -> None:
        if node.is_named or self._text(node) not in _TOKENS:
            raise NotKnownError(_NAMES.get(node.type, f"it has a part that is not known ({node.type})"))

    def _command(self, node: Any, feeder: Command | None, more: tuple[Word, ...]) -> Command:
        words: list[Word] = []
        assignments: list[tuple[str, Word]] = []
        for child in self._children(node):
            if child.type == "variable_assignment" and not words:
                assignments.append(self._assignment(child))
            elif child.type == "command_name" and child.child_count == 1:
                words.append(self._word(child.children[0]))
            elif child.type in _WORDS:
                words.append(self._word(child))
            elif child.type in _REDIRECTS:
                words += self._redirect(child)
            else:
                self._token(child)
                raise NotKnownError("it has an operator in the middle of a command")
        return self._add(Command((*words, *more), tuple(assignments), feeder))

    def _redirected(self, node: Any, feeder: Command | None) -> Command | None:
        children = list(self._children(node))
        redirects = [child for child in children if child.type in _REDIRECTS]
        bodies = [child for child in children if child.type not in _REDIRECTS]
        more = tuple(word for redirect in redirects for word in self._redirect(redirect))
        if len(bodies) == 1 and bodies[0].type == "command":
            return self._command(bodies[0], feeder, more)
        if more:
            raise NotKnownError("it has words after a redirection")
        for body in bodies:
            self._statement(body, None)
        return None

    def _add(self, command: Command) -> Command:
        self.commands.append(command)
        if len(self.commands) > MOST_COMMANDS:
            raise NotKnownError("it runs too many commands")
        return command

    def _test(self, node: Any) -> Command:
        """Read ``[ ... ]``. Bash's ``[[ ... ]]`` may evaluate what is in it, and dash does not know it."""
        if self._text(node)[:2] == "[[":
            raise NotKnownError("shells read [[ ... ]] differently")
        first, *inside, last = self._children(node)
        if self._text(first) != "[" or self._text(last) != "]":
            raise NotKnownError("it has a test that is not known to be harmless")
        words = [word for child in inside for word in self._operands(child)]
        # With one operator, the shell knows by the number of arguments which of them it is.
        if sum(word.text in _JOINING for word in words) and not all(word.is_plain for word in words):
            raise NotKnownError("it has a test that is not known to be harmless")
        return self._add(Command((Word("["), *(word for word in words if word.text not in _JOINING))))

    def _operands(self, node: Any) -> Iterator[Word]:
        if node.type in _WORDS:
            yield self._word(node)
            return
        if not node.is_named and self._text(node) == "!":
            return
        children = list(self._children(node))
        kinds = [child.type for child in children]
        operators = [self._text(child) for child in children if child.type not in _WORDS]
        match node.type, kinds:
            case "unary_expression", ["!", _]:
                yield from self._operands(children[1])
            case "unary_expression", ["test_operator", _] if operators[0] in _FILE_TESTS:
                yield self._word(children[1])
            case "binary_expression", [_, "test_operator" | "=" | "!=" | "==", _]:
                operator = self._text(children[1])
                operands = [*self._operands(children[0]), *self._operands(children[2])]
                if operator in _JOINING:
                    yield Word(operator)
                elif operator in _NUMBER_TESTS and not all(
                    re.fullmatch("[0-9]+", word.text) or self._text(child) in ("$?", '"$?"')
                    for word, child in zip(operands, children[::2], strict=False)
                ):
                    # Some shells evaluate such an operand.
                    raise NotKnownError("it compares numbers that are not known")
                elif operator not in (*_NUMBER_TESTS, *_OTHER_TESTS):
                    raise NotKnownError(f"the test {operator} is not known to be harmless")
                yield from operands
            case _:
                raise NotKnownError("it has a test that is not known to be harmless")

    def _loop(self, node: Any) -> None:
        children = list(self._children(node))
        if self._text(children[0]) != "for" or children[1].type != "variable_name":
            raise NotKnownError("it has a loop that is not known")
        name = self._checked_name(self._text(children[1]))
        if name in self._variables:
            raise NotKnownError(f"it sets the variable {name} twice")
        values = [self._word(child) for child in children[2:] if child.type in _WORDS]
        for child in children[2:]:
            if child.type not in _WORDS and child.type != "do_group":
                self._token(child)
        [body] = [child for child in children if child.type == "do_group"]
        for value in dict.fromkeys(values):
            # A value that may be none, or several, is any.
            self._variables[name] = None if value.splits else value
            self._statement(body, None)
        self._variables[name] = None

    def _comment(self, node: Any) -> None:
        before = self._source[: node.start_byte]
        if (before and before[-1:] not in b" \t\n;|&()") or before[-2:] == b"\\\n":
            raise NotKnownError("it has a # in a word")

    # -------------------------------------------------------------------------- variables

    def _assignment(self, node: Any) -> tuple[str, Word]:
        children = list(self._children(node, ""))
        if len(children) > 3 or children[0].type != "variable_name" or self._text(children[1]) != "=":
            raise NotKnownError("it has an assignment that is not known")
        value = self._word(children[2]) if len(children) == 3 else Word("")
        return self._text(children[0]), value

    def _set(self, name: str, value: Word) -> None:
        """A variable that the rest of the line may use. Whether the assignment runs at all is not known."""
        self._checked_name(name)
        if name in self._variables:
            raise NotKnownError(f"it sets the variable {name} twice")
        self._variables[name] = None

    def _checked_name(self, name: str) -> str:
        # Others may change what a shell or a program does: PATH, IFS, LD_PRELOAD.
        if not _VARIABLE.fullmatch(name) or name in _SPECIAL or name.endswith("_proxy"):
            raise NotKnownError(f"the variable {name} may change what programs do")
        return name

    def _variable(self, name: str, *, is_quoted: bool) -> Word:
        if name in self._variables:
            value = self._variables[name]
            if value is None:
                return Word(ANYTHING, splits=not is_quoted)
            again = not value.is_plain or re.search(r"[\s*?\[\\]", value.text)
            return evolve(value, splits=not is_quoted and bool(again))
        if name == "HOME" and is_quoted:
            return Word("~")
        if name in _SHOWN_VARIABLES or name in _STATUS or name == "HOME":
            return Word(ANYTHING, splits=not is_quoted)
        raise NotKnownError(f"the variable {name} may be secret, and its value is not known")

    # -------------------------------------------------------------------------- redirections

    def _redirect(self, node: Any) -> Iterator[Word]:
        """Read a redirection. Yields the arguments of the command that stand behind it."""
        if node.type == "heredoc_redirect":
            yield from self._heredoc(node)
            return
        children = list(self._children(node))
        if children[0].type == "file_descriptor":
            descriptor = children.pop(0)
            if descriptor.end_byte != children[0].start_byte or self._source[: descriptor.start_byte][-1:] not in (
                b"", b" ", b"\t", b"\n", b";", b"|", b"(",
            ):  # fmt: skip
                raise NotKnownError("it has a redirection that is not known")
        operator, *words = children
        if not words or operator.is_named or any(word.type not in _WORDS for word in words):
            raise NotKnownError("it has a redirection that is not known")
        first, *more = [self._word(word) for word in words]
        self.redirects.append(Redirect(self._text(operator), first))
        yield from more

    def _heredoc(self, node: Any) -> Iterator[Word]:
        self._heredocs += 1
        children = list(self._children(node))
        operator, start, *rest = children
        match = _HEREDOC.fullmatch(self._text(start)) if start.type == "heredoc_start" else None
        bodies = [child for child in rest if child.type in ("heredoc_body", "heredoc_end")]
        if self._heredocs > 1 or match is None or self._text(operator) != "<<" or not bodies:
            raise NotKnownError("it has a here-document that is not known")
        self._check_end(match[2], start.end_byte, bodies)
        if not match[1] and any(_EXPANDS.search(self._text(body)) for body in bodies):
            raise NotKnownError("it has a here-document with expansions")
        end_of_line = self._source.index(b"\n", start.end_byte)
        for child in rest:
            if child not in bodies and child.end_byte > end_of_line:
                raise NotKnownError("it has a here-document that is not known")
            if child.type in _WORDS:
                yield self._word(child)
            elif child.type in _REDIRECTS:
                yield from self._redirect(child)
            elif child not in bodies:
                self._statement(child, None)

    def _check_end(self, mark: str, start: int, bodies: Sequence[Any]) -> None:
        """Check that the here-document ends where a shell ends it: at the first line that is its mark."""
        if not _HEREDOC_LINE.match(self._source, start):
            raise NotKnownError("it has a here-document that is not known")
        lines = self._source[self._source.index(b"\n", start) + 1 :].split(b"\n")
        if mark.encode() not in lines:
            raise NotKnownError("it has a here-document without an end")
        inside = b"\n".join(lines[: lines.index(mark.encode())])
        end = len(self._source) - len(b"\n".join(lines)) + len(inside) + (1 if inside else 0)
        if bodies[-1].type != "heredoc_end" or bodies[-1].start_byte != end:
            raise NotKnownError("it has a here-document that is not known")

    # ------------------------------------------------------------------------------- words

    def _word(self, node: Any, *, is_quoted: bool = False) -> Word:
        kind: str = node.type
        match kind:
            case "word" | "number":
                # A number may be more than a number, 16#ff for one.
                return self._bare(node)
            case "raw_string":
                return Word(self._raw(node))
            case "string":
                return self._string(node)
            case "concatenation":
                return self._concatenation(node)
            case "simple_expansion" | "expansion":
                return self._expansion(node, is_quoted=is_quoted)
            case "command_substitution":
                self._substitution(node)
                return Word(ANYTHING, splits=not is_quoted)
            case "process_substitution":
                if self._text(node)[:2] != "<(":
                    raise NotKnownError("it writes to the input of a command")
                self._inner(node, "<(", ")")
                return Word("/dev/fd/63")
            case "arithmetic_expansion":
                if not _ARITHMETIC.fullmatch(self._text(node)):
                    raise NotKnownError("it has arithmetic with more than numbers")
                return Word(ANYTHING, splits=not is_quoted)
            case _:
                raise NotKnownError(_NAMES.get(kind, f"it has a part that is not known ({kind})"))

    def _concatenation(self, node: Any) -> Word:
        text = self._text(node)
        brace = text.find("{")
        if brace >= 0 and ("," in text[brace:] or ".." in text[brace:]):
            raise NotKnownError(_NAMES["brace_expression"])
        words = [self._word(child) for child in self._children(node, "")]
        return Word("".join(word.text for word in words), splits=any(word.splits for word in words))

    def _bare(self, node: Any) -> Word:
        """Read text without quotes."""
        if node.child_count:
            raise NotKnownError("it has a word that is not known")
        text = self._text(node)
        value, index = "", 0
        while index < len(text):
            character = text[index]
            if character == "\\":
                index += 1
                if index == len(text):
                    raise NotKnownError("it has a backslash at the end of a word")
                value += "" if text[index] == "\n" else text[index]
            elif character in "'\"`$;&|<>() \t\n" or (character == "#" and not index):
                raise NotKnownError("it has a word that is not known")
            elif character in "*?":
                value += NAME
            elif character == "[":
                # All in the brackets is one character of a name. Without an end, shells may differ.
                end = text.find("]", index + 1)
                value += NAME if end > 0 else ANYTHING
                index = end if end > 0 else index
            elif character == "{" and ("," in text[index:] or ".." in text[index:]):
                raise NotKnownError(_NAMES["brace_expression"])
            else:
                value += character
            index += 1
        return Word(value)

    def _raw(self, node: Any) -> str:
        text = self._text(node)
        if len(text) < 2 or text[0] != "'" or text[-1] != "'" or "'" in text[1:-1] or node.child_count:
            raise NotKnownError("it has quotes that are not known")
        return text[1:-1]

    def _string(self, node: Any) -> Word:
        text = ""
        at = node.start_byte
        children = list(node.children)
        if len(children) < 2 or self._text(children[0]) != '"' or self._text(children[-1]).lstrip() != '"':
            raise NotKnownError("it has quotes that are not known")
        for child in children:
            # The grammar drops blanks in front of a part, or counts them as a part of it.
            text += self._blanks(at, child.start_byte)
            at = child.end_byte
            if child.is_named and child.type != "string_content":
                text += self._word(child, is_quoted=True).text
            elif child.type == "string_content":
                text += self._quoted(self._text(child))
            elif self._text(child).strip() in ('"', "$"):
                text += self._text(child).replace('"', "")
            else:
                raise NotKnownError("it has quotes that are not known")
        if at != node.end_byte:
            raise NotKnownError("it has quotes that are not known")
        return Word(text)

    def _quoted(self, text: str) -> str:
        """Read plain text inside of double quotes."""
        value, index = "", 0
        while index < len(text):
            character = text[index]
            if character == "\\" and index + 1 < len(text):
                index += 1
                escaped = text[index]
                value += "" if escaped == "\n" else escaped if escaped in '$`"\\' else f"\\{escaped}"
            elif character in '"`' or _DOLLAR.match(text, index):
                raise NotKnownError("it has quotes that are not known")
            else:
                value += character
            index += 1
        return value

    def _blanks(self, start: int, end: int) -> str:
        text = self._source[start:end].decode()
        if text.strip(" \t\n"):
            raise NotKnownError("it has quotes that are not known")
        return text

    def _expansion(self, node: Any, *, is_quoted: bool) -> Word:
        match = re.fullmatch(
            r"(\s*)\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*|[?#$!]))", self._text(node)
        )
        if match is None:
            raise NotKnownError("it has an expansion that is not known")
        blanks, braced, plain = match.groups()
        if blanks and not is_quoted:
            raise NotKnownError("it has an expansion that is not known")
        word = self._variable(braced or plain, is_quoted=is_quoted)
        return evolve(word, text=blanks + word.text)

    def _substitution(self, node: Any) -> None:
        text = self._text(node).lstrip()
        if text.startswith("`"):
            if re.search(r"[\\\"']", text):
                raise NotKnownError("it has quotes inside of backquotes")
            self._inner(node, "`", "`")
        else:
            self._inner(node, "$(", ")")

    def _inner(self, node: Any, opening: str, closing: str) -> None:
        """Read the commands of a substitution. What they set is gone after it."""
        first, *children, last = self._children(node)
        if self._text(first).lstrip() != opening or self._text(last) != closing:
            raise NotKnownError("it has a substitution that is not known")
        outside = dict(self._variables)
        for child in children:
            self._statement(child, None)
        self._variables = outside

    # ------------------------------------------------------------------- nothing is left over

    def _children(self, node: Any, between: str = " ") -> Iterator[Any]:
        """The parts of ``node``. Between two of them there are only blanks; and between two words, at least one."""
        at, is_word = node.start_byte, False
        for child in node.children:
            gap = self._gap(at, child.start_byte)
            if "\n" in gap and node.type not in _LINES:
                # The grammar goes on past the end of a line, if the next one is only a backslash.
                raise NotKnownError("it has words that run into each other")
            is_next_word = child.type in _WORDS or child.type in ("command_name", "variable_assignment")
            if (between and is_word and is_next_word and not gap) or (not between and gap):
                raise NotKnownError("it has words that run into each other")
            yield child
            at, is_word = child.end_byte, is_next_word
        self._gap(at, node.end_byte)

    def _gap(self, start: int, end: int) -> str:
        """The blanks from ``start`` to ``end``, without lines that are continued."""
        text = self._source[start:end].decode("utf-8", "replace")
        if not _BLANK.fullmatch(text):
            raise NotKnownError("it has a part that is not known")
        return text.replace("\\\n", "")

    def _text(self, node: Any) -> str:
        return self._source[node.start_byte : node.end_byte].decode("utf-8", "replace")
