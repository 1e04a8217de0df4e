"""Find skills: folders with a file ``SKILL.md``, at any depth in a folder that the user names."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import Any

from attrs import evolve, field, frozen

from agentloop._core.redaction import visible
from agentloop.errors import ToolError
from agentloop.toolkit._front_matter import FrontMatter, FrontMatterError, read_front_matter
from agentloop.toolkit._root import Root, identity
from agentloop.toolkit._text_files import decoded, is_binary, on_one_line, without_hidden
from agentloop.toolkit._walk import spelled

__all__ = ["Skill", "SkillFolders", "files_of"]

SKILL_FILE = "skill.md"
"""The name of the file, in lower case."""
MAX_SKILL_BYTES = 1_000_000
MAX_DEPTH = 8
MAX_FOLDERS = 20_000
MAX_SKILLS = 2000
MAX_ENTRIES = 10_000
"""Entries of one folder that are looked at."""
MAX_NAME = 100
MAX_DESCRIPTION = 1024
"""Characters of a description that the model always reads. Agent Skills have as many at most."""
MAX_FILES = 200
"""Files of a skill that are listed."""
MAX_PROBLEMS = 50

_PASSED_OVER = frozenset({"node_modules", "__pycache__"})
_ALLOWED = re.compile(r"[^\s,()]+(?:\([^()]*\))?")


@frozen
class Skill:
    """A skill, as its front matter has it."""

    name: str
    description: str
    folder: Root
    """The folder of the skill, which its files do not leave."""
    file: str
    """The name of its file in the folder."""
    place: str
    """The path of its file, for a person."""
    front_matter: FrontMatter = field(repr=False)

    @property
    def body(self) -> str:
        """The instructions of the skill."""
        return without_hidden(self.front_matter.body).strip()

    @property
    def is_listed(self) -> bool:
        """Whether the model may use the skill without being asked to."""
        return not _is_true(self.front_matter.fields.get("disable-model-invocation"))

    @property
    def forks(self) -> bool:
        """Whether the skill runs as a child stream."""
        return _text(self.front_matter.fields.get("context")).strip().lower() == "fork"

    @property
    def allowed_tools(self) -> tuple[str, ...] | None:
        """The tools that the skill is for, as it names them; ``None`` if it names none."""
        value = self.front_matter.fields.get("allowed-tools")
        if value is None or value == "":
            return None
        return tuple(_ALLOWED.findall(_text(value)))


class SkillFolders:
    """The folders of skills. A file is read again only if it has changed."""

    def __init__(self, roots: list[Root]) -> None:
        self.roots = roots
        self._seen: dict[tuple[str, str], tuple[tuple[int, ...], Skill]] = {}
        """The skills by root and path, each with the identity of its file."""

    def scan(self, go_on: Callable[[], object]) -> tuple[list[Skill], list[str]]:
        """Look for skills. Called in a thread.

        Args:
          go_on: called before each folder; raises to end the scan.

        Returns:
          The skills by name, in order; and what is wrong with others, in words.
        """
        problems: list[str] = []
        skills: dict[str, Skill] = {}
        seen: dict[tuple[str, str], tuple[tuple[int, ...], Skill]] = {}
        for root in self.roots:
            for path, file in _skill_files(root, problems, go_on):
                if len(skills) >= MAX_SKILLS:
                    problems.append(f"{root.path} has more than {MAX_SKILLS} skills: the others are left out")
                    break
                try:
                    skill = self._read(root, path, file, seen)
                except ToolError as error:
                    problems.append(f"{error}: the skill is left out")
                    continue
                problems += [f"{skill.place}:{error.line}: {error.problem}" for error in skill.front_matter.problems]
                _add(skill, path, skills, problems)
        self._seen = seen
        if len(problems) > MAX_PROBLEMS:
            problems[MAX_PROBLEMS:] = [f"{len(problems) - MAX_PROBLEMS} more problems with skills"]
        return [skills[name] for name in sorted(skills)], problems

    def _read(
        self, root: Root, path: str, file: str, seen: dict[tuple[str, str], tuple[tuple[int, ...], Skill]]
    ) -> Skill:
        inner = f"{path}/{file}"
        with root.place(inner) as (folder, name):
            now = identity(os.stat(name, dir_fd=folder, follow_symlinks=False))
        key = (root.path, inner)
        before = self._seen.get(key)
        if before is None or before[0] != now:
            skill, now = read_skill_file(root, path, file)
            before = now, skill
        seen[key] = before
        return before[1]


def read_skill_file(root: Root, path: str, file: str) -> tuple[Skill, tuple[int, ...]]:
    """The skill in a folder, and the identity of its file.

    Raises:
      ToolError: it cannot be read; the message has the file and, where there is one, the line.
    """
    inner = file if path in ("", ".") else f"{path}/{file}"
    place = visible(spelled(os.path.normpath(f"{root.path}/{inner}")))
    data, status = root.read(inner, MAX_SKILL_BYTES)
    if is_binary(data):
        raise ToolError(f"{place}: no text")
    try:
        matter = read_front_matter(without_hidden(decoded(data)))
        name = _name(matter, path, root)
    except FrontMatterError as error:
        raise ToolError(f"{place}:{error.line}: {error.problem}") from error
    texts = [on_one_line(_text(matter.fields.get(field))) for field in ("description", "when-to-use")]
    description = " ".join(filter(None, texts)) or _first_paragraph(matter.body)
    if len(description) > MAX_DESCRIPTION:
        description = f"{description[: MAX_DESCRIPTION - 1]}\u2026"
    return Skill(name, description, Root(path, inside=root), file, place, matter), identity(status)


def _name(matter: FrontMatter, path: str, root: Root) -> str:
    folder = os.path.normpath(f"{root.path}/{path}").rpartition("/")[2]
    name = on_one_line(_text(matter.fields.get("name"))) or on_one_line(spelled(folder))
    if len(name) > MAX_NAME:
        raise FrontMatterError(matter.lines.get("name", 1), f"the name is longer than {MAX_NAME} characters")
    return name


def _add(skill: Skill, path: str, skills: dict[str, Skill], problems: list[str]) -> None:
    """Add ``skill``; if there is one of its name, under its path."""
    other = skills.setdefault(skill.name, skill)
    if other is skill:
        return
    name = on_one_line(spelled(os.path.normpath(path)))[:MAX_NAME]
    problem = f"{skill.place}: the name {skill.name!r} is that of {other.place}"
    if name not in skills and name != ".":
        skills[name] = evolve(skill, name=name)
        problems.append(f"{problem}: the skill is called {name!r}")
    else:
        problems.append(f"{problem}: the skill is left out")


def _skill_files(root: Root, problems: list[str], go_on: Callable[[], object]) -> Iterator[tuple[str, str]]:
    """The folders with a skill, in order, relative to ``root``, each with the name of its file."""
    seen: set[tuple[int, int]] = set()
    todo = ["."]
    while todo:
        go_on()
        path = todo.pop()
        try:
            folder = root.open_folder(path)
        except ToolError as error:
            # A link to a file is nothing to look into.
            if path == "." or "is outside of" in str(error):
                problems.append(f"{error}: it is not looked into")
            continue
        try:
            status = os.fstat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            if len(seen) > MAX_FOLDERS:
                problems.append(f"{root.path} has more than {MAX_FOLDERS} folders: the others are not looked into")
                return
            names = _names(folder)
            folders = [name for name in reversed(names) if _may_be_folder(name, folder)]
        finally:
            os.close(folder)
        files = sorted(name for name in names if name.lower() == SKILL_FILE)
        # The files of a skill are its own; only a collection may have one at its top, and others below.
        if (not files or path == ".") and path.count("/") < MAX_DEPTH:
            todo += [f"{path}/{name}" for name in folders]
        if files:
            yield path, files[0]


def _names(folder: int) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False))
    except OSError:
        return []


def _may_be_folder(name: str, folder: int) -> bool:
    if name.startswith(".") or name in _PASSED_OVER:
        return False
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def files_of(skill: Skill) -> tuple[list[str], bool]:
    """The other files of a skill, and whether there are more than these. Links are not followed."""
    files: list[str] = []
    todo = ["."]
    looked_into = 0
    while todo and looked_into < MAX_FILES:
        path = todo.pop()
        looked_into += 1
        try:
            folder = skill.folder.open_folder(path)
        except ToolError:
            continue
        try:
            for name in _names(folder):
                inner = os.path.normpath(f"{path}/{name}")
                try:
                    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                except OSError:
                    continue
                if stat.S_ISDIR(mode) and path.count("/") < MAX_DEPTH and _may_be_folder(name, folder):
                    todo.append(f"{path}/{name}")
                elif stat.S_ISREG(mode) and inner != skill.file:
                    files.append(visible(spelled(inner)))
        finally:
            os.close(folder)
    files.sort()
    return files[:MAX_FILES], len(files) > MAX_FILES or bool(todo)


def _text(value: Any) -> str:
    """A value of the front matter as text: what should be a text may be a list."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(item for item in value if isinstance(item, str))  # pyright: ignore[reportUnknownVariableType]
    return ""


def _is_true(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in ("true", "yes", "on")


def _first_paragraph(body: str) -> str:
    """What stands for the description of a skill that has none."""
    paragraphs = (part.strip() for part in re.split(r"\n\s*\n", body))
    texts = [on_one_line(text) for text in paragraphs if text]
    return next((text for text in texts if not text.startswith("#")), texts[0].lstrip("# ") if texts else "")
