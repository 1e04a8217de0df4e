"""Make the agents of a file."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from attrs import frozen

from agentloop.agent import Agent
from agentloop.commands import Command, is_command_name
from agentloop.declarative._choosing import choosing_hooks
from agentloop.declarative._document import Node, read_document
from agentloop.declarative._forms import Report
from agentloop.declarative._harness import external_agent
from agentloop.declarative._hooks import date_hook, environment_hook, hooks_of, redacts
from agentloop.declarative._models import Choice, Models
from agentloop.declarative._output import output_of
from agentloop.declarative._problems import Place, TeamFileError, Unsupported, nearest
from agentloop.declarative._rules import permissions_of
from agentloop.declarative._section import Context, Section, check_no_secrets
from agentloop.declarative._table import LATEST, TABLE
from agentloop.declarative._toolsets import BACKGROUND, Group, Toolsets, prompt_files, skills_of
from agentloop.errors import UsageError
from agentloop.hooks import Hook
from agentloop.limits import Compaction, Limits, Price, Retries
from agentloop.models import Model
from agentloop.team import Team
from agentloop.toolkit import background, recent_messages, transfer_task
from agentloop.tools import Tool, Toolset

__all__ = ["LoadedTeam", "load_and_log", "load_team"]

TEXT = "<text>"
"""The name of a file that was given as text."""
ENTRY = "root"
"""The agent that gets the prompt, if the file has one of that name."""
CHARS_PER_TOKEN = 4
MIN_RESULT = 200
TRANSFER = "transfer_task"
"""The tool by which an agent gives a task to another one."""
MAX_LISTED = 20
"""Fields that an error of ``strict`` lists."""


@frozen(eq=False)
class _Extras:
    """What a file says besides its agents."""

    path: str
    unsupported: tuple[Unsupported, ...]
    welcome_message: str
    metadata: Mapping[str, Any]
    all_agents: Mapping[str, Agent[Any, Any]]


class LoadedTeam(Team[Any, Any]):
    """The team of a file. It runs as a `Team` does.

    Its first agent is the one called ``root``, or else the first of the file.
    """

    __slots__ = ("_extras",)

    _extras: _Extras

    @property
    def path(self) -> str:
        """The file, as it was given."""
        return self._extras.path

    @property
    def unsupported(self) -> tuple[Unsupported, ...]:
        """The fields of the file that have no effect, or a different one than in docker-agent. In order of lines."""
        return self._extras.unsupported

    @property
    def welcome_message(self) -> str:
        """The text to show before the first prompt; empty if there is none."""
        return self._extras.welcome_message

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The notes about the file."""
        return self._extras.metadata

    @property
    def all_agents(self) -> Mapping[str, Agent[Any, Any]]:
        """The agents of the file that a run can come to, by name: those of the team, and those that they call."""
        return self._extras.all_agents

    def replace(self, **changes: Any) -> LoadedTeam:
        """Make a copy whose first agent has some fields changed."""
        first, *others = self.agents
        return _loaded([first.replace(**changes), *others], self._extras)


def _loaded(agents: list[Agent[Any, Any]], extras: _Extras) -> LoadedTeam:
    team = LoadedTeam(*agents)
    object.__setattr__(team, "_extras", extras)
    return team


def load_team(
    source: str | os.PathLike[str],
    *,
    strict: bool = False,
    models: Mapping[str, Model | str] | Model | str | None = None,
    env: Mapping[str, str] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> LoadedTeam:
    """Make a team of a YAML file in docker-agent's format.

    ::

        team = load_team("team.yaml")
        outcome = await team.run("Why does the build fail?")
        for field in team.unsupported:
            print(field)

    Each field is obeyed, or named in ``team.unsupported`` with a sentence. A field that the format does not have is an
    error, with its line and the field that was probably meant. Nothing is downloaded, no program is started and no
    key is looked for before a run.

    A file has no secrets: one that has a key, or a variable or header with the name of one and its value, is refused.
    ``${env.NAME}`` stands for the variable ``NAME`` of the environment.

    Args:
      source: the file's path; or its text, which has a line break, or a colon and a space.
      strict: refuse a file with fields that are not obeyed.
      models: a model in the place of all models of the file; or models by the names that the file has for them.
      env: the variables for ``${env.NAME}`` and the models' keys; those of this process by default.
      folder: the folder in which tools and hooks work; the current one by default. Files that the team's own file
        names, such as that of a memory, are relative to the folder of that file.

    Raises:
      TeamFileError: the file cannot be read, or something in it is wrong. The message has file, line and column.
      MissingExtraError: a package is not installed: PyYAML, or one that a toolset of the file needs.
      UsageError: ``models`` has a name that the file does not have.
    """
    team, _ = load_and_report(source, models=models, env=env, folder=folder)
    if strict and team.unsupported:
        raise _refusal(team.unsupported)
    return team


def load_and_report(
    source: str | os.PathLike[str],
    *,
    models: Mapping[str, Model | str] | Model | str | None,
    env: Mapping[str, str] | None,
    folder: str | os.PathLike[str] | None,
) -> tuple[LoadedTeam, Report]:
    """`load_team`, with the account of which fields were looked at."""
    name, text, home = _read(source)
    root = read_document(text, name)
    if root.entries is None:
        raise TeamFileError(f"a team is a mapping with `agents:`, and not {root.kind}", root.place)
    version = _version(root)
    report = Report(TABLE, is_newer=version > LATEST)
    work = os.path.abspath(folder or os.curdir)  # noqa: PTH100
    context = Context(name, home, work, os.environ if env is None else env, report)
    check_no_secrets(root)
    TABLE["file"].check(root, "", report)
    report.read.add("version")
    if version > LATEST:
        report.name("version", root.place, f"The latest version that is known here is {LATEST}.")
    return _Loader(Section(root, "", context), models).load(), report


def load_and_log(path: str, logger: logging.Logger) -> LoadedTeam:
    """`load_team`, for a server: each field without effect is a warning in its log."""
    team = load_team(path)
    for one in team.unsupported:
        logger.warning("%s", one)
    return team


def _read(source: str | os.PathLike[str]) -> tuple[str, str, str]:
    """The name of a file, its text, and its folder."""
    if isinstance(source, str) and ("\n" in source or ": " in source):
        return TEXT, source, os.path.abspath(os.curdir)  # noqa: PTH100
    if not isinstance(cast("object", source), (str, os.PathLike)):
        raise UsageError(f"load_team() takes the path of a file, or its text, not {source!r}")
    name = os.fspath(source)
    try:
        text = Path(name).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TeamFileError(f"the file is not UTF-8: {error.reason} at byte {error.start}", Place(name)) from None
    except (OSError, ValueError) as error:
        raise TeamFileError(
            f"the file cannot be read: {getattr(error, 'strerror', None) or error}", Place(name)
        ) from None
    return name, text, os.path.dirname(os.path.abspath(name))  # noqa: PTH100, PTH120


def _version(root: Node) -> int:
    node = root.get("version")
    if node is None or node.raw == "":
        return LATEST
    if not node.raw.isascii() or not node.raw.isdigit() or len(node.raw) > 6 or int(node.raw) < 1:
        raise TeamFileError(f"the versions of the format are 1 to {LATEST}, not {node.raw!r}", node.place, "version")
    return int(node.raw)


def _refusal(unsupported: tuple[Unsupported, ...]) -> TeamFileError:
    first = unsupported[0]
    more = [f"\n{one}" for one in unsupported[1:MAX_LISTED]]
    if len(unsupported) > MAX_LISTED:
        more.append(f"\n... and {len(unsupported) - MAX_LISTED} more")
    return TeamFileError(f"{first.reason}{''.join(more)}", first.place, first.field)


class _Loader:
    """Makes the agents of one file."""

    def __init__(self, top: Section, models: Mapping[str, Model | str] | Model | str | None) -> None:
        self._top = top
        self._context = top.context
        self._models = Models(top, models)
        self._toolsets = Toolsets(top)
        self._agents = top.named("agents")
        self._budgets = top.named("budgets")
        self._made: dict[str, Agent[Any, Any]] = {}
        self._groups: dict[str, list[Group]] = {}

    def load(self) -> LoadedTeam:
        for name, section in self._agents.items():
            self._check_references(name, section)
            self._groups[name] = self._toolsets.of_agent(section)
        entry = ENTRY if ENTRY in self._agents else next(iter(self._agents))
        members = [self._agent(name, ()) for name in self._reachable(entry)]
        for name in self._agents:
            # An agent that no run comes to is made as well, so that what is wrong in it is found.
            self._agent(name, ())
        self._models.check_override()
        first = self._agents[entry]
        report = self._context.report
        unsupported = sorted(report.unsupported, key=lambda one: (one.place.line, one.place.column, one.field))
        metadata: dict[str, Any] = self._top.plain("metadata") or {}
        extras = _Extras(
            path=self._context.file,
            unsupported=tuple(unsupported),
            welcome_message=first.expanded("welcome_message", bare=False),
            metadata=MappingProxyType(metadata),
            all_agents=MappingProxyType({**self._made}),
        )
        try:
            return _loaded(members, extras)
        except UsageError as error:
            raise first.error(str(error)) from error

    # ------------------------------------------------------------------------------- references

    def _check_references(self, name: str, section: Section) -> None:
        for fieldname in ("sub_agents", "handoffs", "force_handoff"):
            for other in section.texts(fieldname):
                if other not in self._agents:
                    raise section.error(self._no_agent(other), fieldname)
                if other == name:
                    raise section.error("an agent does not call itself", fieldname)
        for budget in section.texts("budgets"):
            if budget not in self._budgets:
                meant = nearest(budget, self._budgets)
                hint = f"did you mean {meant!r}?" if meant else f"`budgets` has {', '.join(self._budgets) or 'none'}"
                raise section.error(f"there is no budget {budget!r}: {hint}", "budgets")

    def _no_agent(self, name: str) -> str:
        if "/" in name or ":" in name:
            return f"{name!r} is an agent elsewhere, and none is downloaded: put the agents of its file into this one"
        meant = nearest(name, self._agents)
        hint = f"did you mean {meant!r}?" if meant else f"there are {', '.join(self._agents)}"
        return f"there is no agent {name!r}: {hint}"

    def _reachable(self, entry: str) -> list[str]:
        """The agents that a conversation which begins with ``entry`` may be handed to, it included."""
        found = [entry]
        for name in found:
            section = self._agents[name]
            for other in (*section.texts("handoffs"), *section.texts("force_handoff")):
                if other not in found:
                    found.append(other)
        return found

    # ----------------------------------------------------------------------------------- agents

    def _agent(self, name: str, path: tuple[str, ...]) -> Agent[Any, Any]:
        if name in self._made:
            return self._made[name]
        section = self._agents[name]
        try:
            made = self._new_agent(name, section, (*path, name))
        except UsageError as error:
            if isinstance(error, TeamFileError) or type(error) is not UsageError:
                raise
            raise section.error(str(error)) from error
        self._made[name] = made
        return made

    def _new_agent(self, name: str, section: Section, path: tuple[str, ...]) -> Agent[Any, Any]:
        harness = section.section("harness")
        if harness is not None:
            return self._new_external_agent(name, section, harness)
        choices = self._choices(section)
        fallback = section.section("fallback")
        fallbacks = (
            [self._models.choice(one, fallback, "models") for one in fallback.texts("models")] if fallback else []
        )
        named = self._models.named()
        groups = self._groups[name]
        called = self._called(section, path)
        own_hooks, more_toolsets = hooks_of(section, self._model)
        extra: dict[str, Any] = {}
        if "structured_output" in section:
            output = section.section("structured_output")
            assert output is not None
            extra["output_type"] = output_of(output)
        if section.flag("session_compaction") is False:
            extra["compaction"] = False
        elif (threshold := _threshold(section, choices)) is not None:
            extra["compaction"] = Compaction(threshold=threshold, keep_recent=min(0.2, threshold / 2))
        if (result := section.whole("max_tool_result_tokens")) is not None and result > 0:
            extra["max_result"] = max(MIN_RESULT, result * CHARS_PER_TOKEN)
        return Agent(
            choices[0].model,
            name=name,
            description=section.expanded("description", bare=False),
            instructions=self._instructions(section, groups),
            tools=self._tools(section, groups, called),
            toolsets=self._own_toolsets(section, groups, called, more_toolsets),
            hooks=self._own_hooks(section, choices, own_hooks),
            permissions=permissions_of(self._top, section, self._elsewhere(section, groups)),
            fallbacks=[choice.model for choice in fallbacks],
            models={reference: choice.model for reference, choice in named.items()},
            limits=self._limits(section),
            retries=_retries(fallback),
            prices=_prices([*named.values(), *choices, *fallbacks]),
            handoffs=section.texts("handoffs"),
            handoff_when_done=section.text("force_handoff") or None,
            commands=dict(self._commands(section)),
            redact=True if redacts(section) else None,
            **extra,
        )

    def _model(self, reference: str, section: Section, field: str) -> Model | str:
        return self._models.choice(reference, section, field).model

    def _new_external_agent(self, name: str, section: Section, harness: Section) -> Agent[Any, Any]:
        options: dict[str, Any] = {}
        if description := section.expanded("description", bare=False):
            options["description"] = description
        own_hooks, _ = hooks_of(section, self._model)
        return external_agent(
            name,
            section,
            harness,
            instructions=self._instructions(section, []),
            hooks=own_hooks,
            permissions=permissions_of(self._top, section, self._elsewhere(section, [])),
            limits=self._limits(section, turns=math.inf, identical_turns=math.inf),
            handoff_when_done=section.text("force_handoff") or None,
            commands=dict(self._commands(section)),
            redact=True if redacts(section) else None,
            **options,
        )

    def _choices(self, section: Section) -> list[Choice]:
        """The models of an agent: one, or several that take turns."""
        if "model" not in section:
            raise section.error("`model` is missing: give provider/model, or a name of `models`")
        references = [part.strip() for part in section.text("model").split(",") if part.strip()]
        if not references:
            raise section.error("`model` is empty: give provider/model, or a name of `models`", "model")
        return [self._models.choice(reference, section, "model") for reference in references]

    def _instructions(self, section: Section, groups: list[Group]) -> str:
        if "instruction" in section and "instruction_file" in section:
            raise section.error("give `instruction` or `instruction_file`, not both", "instruction_file")
        parts = [
            self._context.expand(text, section.place, section.at("instruction"))
            for text in section.texts("instruction")
        ]
        parts += [self._instruction_file(text, section) for text in section.texts("instruction_file")]
        parts += [group.instructions for group in groups]
        return "\n\n".join(part.strip() for part in parts if part.strip())

    def _instruction_file(self, name: str, section: Section) -> str:
        if Path(name).is_absolute() or ".." in name.replace("\\", "/").split("/"):
            raise section.error(f"{name!r} leads out of the folder of the file", "instruction_file")
        try:
            home = Path(self._context.home).resolve()
            path = home.joinpath(name).resolve()
            if not path.is_relative_to(home):
                raise section.error(f"{name!r} leads out of the folder of the file", "instruction_file")
            return path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or error
            raise section.error(f"{name!r} cannot be read: {problem}", "instruction_file") from None

    def _tools(self, section: Section, groups: list[Group], called: list[Agent[Any, Any]]) -> list[Tool]:
        made: dict[str, Tool] = {}
        for tool in self._all_tools(groups, called):
            if tool.name in made:
                section.unsupported("toolsets", f"The tool {tool.name!r} is there twice: the first one counts.")
            made.setdefault(tool.name, tool)
        return [*made.values()]

    @staticmethod
    def _all_tools(groups: list[Group], called: list[Agent[Any, Any]]) -> Iterator[Tool]:
        for group in groups:
            yield from group.tools
        if called:
            yield transfer_task(*called)

    def _called(self, section: Section, path: tuple[str, ...]) -> list[Agent[Any, Any]]:
        """The agents that the agent may give tasks to."""
        called: list[Agent[Any, Any]] = []
        for name in dict.fromkeys(section.texts("sub_agents")):
            if name in path:
                section.unsupported("sub_agents", f"{path[-1]!r} does not call {name!r}, which it runs inside of.")
                continue
            called.append(self._as_child(name, path))
        return called

    def _as_child(self, name: str, path: tuple[str, ...]) -> Agent[Any, Any]:
        """An agent that runs inside of another: with those that it hands off to, if there are any."""
        names = self._reachable(name)
        if len(names) == 1:
            return self._agent(name, path)
        return Team(*[self._agent(one, path) for one in names])

    def _elsewhere(self, section: Section, groups: list[Group]) -> set[str]:
        """The tools that other agents of the file have, and this one has not, as far as that is known."""
        if any(group.more_names is None for group in groups):
            return set()
        others = [group for several in self._groups.values() for group in several]
        own = _names(groups) | {TRANSFER} if "sub_agents" in section else _names(groups)
        return (_names(others) | {TRANSFER}) - own

    def _own_toolsets(
        self, section: Section, groups: list[Group], called: list[Agent[Any, Any]], more: list[Toolset]
    ) -> list[Toolset]:
        toolsets = [toolset for group in groups for toolset in group.toolsets]
        if any(one.text("type") == BACKGROUND for one in section.sections("toolsets")):
            if called:
                toolsets.append(background(*called))
            else:
                section.unsupported("toolsets", f"There are no `sub_agents` that `{BACKGROUND}` could run.")
        found = [prompt_files(section), skills_of(section, self._top)]
        return _once([*toolsets, *more, *(toolset for toolset in found if toolset is not None)], section)

    def _own_hooks(self, section: Section, choices: list[Choice], own: list[Hook]) -> list[Hook]:
        made: list[Hook] = []
        if section.flag("add_date"):
            made.append(date_hook())
        if section.flag("add_environment_info"):
            made.append(environment_hook(self._context))
        summary = section.text("compaction_model") or choices[0].compaction_model
        summarizer = self._models.choice(summary, section, "compaction_model").model if summary else None
        if messages := section.whole("num_history_items"):
            made.append(recent_messages(max(2, messages)))
        return [*made, *own, *choosing_hooks(choices, summarizer)]

    # ----------------------------------------------------------------------------------- limits

    def _limits(self, section: Section, **options: Any) -> Limits:
        turns = section.whole("max_iterations")
        if turns is not None:
            options["turns"] = turns or math.inf
        identical = section.whole("max_consecutive_tool_calls")
        if identical:
            # With one turn, the first call would already be a repetition.
            options["identical_turns"] = max(2, identical)
        budgets = [self._budgets[name] for name in section.texts("budgets")]
        whole = self._top.section("budget")
        for budget in [*budgets, *([whole] if whole is not None else [])]:
            for name, value in (
                ("cost", budget.number("max_cost")),
                ("tokens", budget.whole("max_tokens")),
                ("seconds", budget.seconds("max_time")),
            ):
                if value:
                    options[name] = min(value, options.get(name, value))
        return Limits(**options)

    def _commands(self, section: Section) -> Iterator[tuple[str, Command]]:
        groups = self._top.section("commands")
        for name in section.texts("use_commands"):
            if groups is None or name not in groups:
                known = groups.names if groups is not None else ()
                meant = nearest(name, known)
                hint = f"did you mean {meant!r}?" if meant else f"it has {', '.join(known) or 'nothing'}"
                raise section.error(f"`commands` has no {name!r}: {hint}", "use_commands")
            yield from self._commands_of(groups, name)
        yield from self._commands_of(section, "commands")

    def _commands_of(self, section: Section, name: str) -> Iterator[tuple[str, Command]]:
        node = section.node(name)
        for mapping in node.items if node is not None and node.items is not None else (node,):
            for entry in (mapping.entries if mapping is not None else None) or ():
                inner = Section(entry.value, f"{section.at(name)}.{entry.key}", self._context)
                if entry.value.entries is None:
                    text = self._context.expand(entry.value.raw, entry.value.place, inner.path)
                    yield entry.key, self._command(inner, entry.key, text)
                    continue
                for named in ("agent", "url"):
                    inner.text(named)
                text = inner.expanded("instruction", bare=False)
                if text.strip():
                    yield entry.key, self._command(inner, entry.key, text, inner.text("description"))

    @staticmethod
    def _command(section: Section, name: str, text: str, description: str = "") -> Command:
        if not is_command_name(name):
            raise section.error(f"{name!r} is no name of a command: letters, digits, `_`, `:`, `.` and `-`, at most 64")
        try:
            return Command(text, description=description)
        except UsageError as error:
            raise section.error(str(error)) from error


def _names(groups: list[Group]) -> set[str]:
    """The tools of groups, as far as they are known."""
    more = [name for group in groups for name in group.more_names or ()]
    return {tool.name for group in groups for tool in group.tools} | {*more}


def _once(toolsets: list[Toolset], section: Section) -> list[Toolset]:
    """The toolsets, each identity once."""
    made: dict[str, Toolset] = {}
    for toolset in toolsets:
        identity = str(getattr(toolset, "identity", id(toolset)))
        if identity in made:
            section.unsupported("toolsets", f"The toolset {toolset.name!r} is there twice: the first one counts.")
        made.setdefault(identity, toolset)
    return [*made.values()]


def _threshold(section: Section, choices: list[Choice]) -> float | None:
    own = [choice.threshold for choice in choices if choice.threshold is not None]
    return min(own) if own else section.number("compaction_threshold")


def _retries(fallback: Section | None) -> Retries:
    options: dict[str, Any] = {}
    if fallback is not None:
        retries = fallback.whole("retries") or 2
        options["attempts"] = 1 if retries < 0 else retries + 1
        if (cooldown := fallback.seconds("cooldown")) is not None:
            options["cooldown"] = cooldown
    return Retries(**options)


def _prices(choices: list[Choice]) -> dict[str, Price]:
    prices: dict[str, Price] = {}
    for choice in choices:
        prices |= choice.prices
    return prices
