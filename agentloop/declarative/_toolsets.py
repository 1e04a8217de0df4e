"""The toolsets of a file: what stands for each type here."""

# Paths are texts here, and some are of folders that are not there:
# ruff: noqa: PTH110, PTH111, PTH112, PTH120

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import Any

from attrs import evolve, field, frozen

from agentloop.declarative._files import filesystem_tools
from agentloop.declarative._problems import nearest
from agentloop.declarative._programs import fetch_tool, script_tool, shell_tool, user_prompt_tool
from agentloop.declarative._section import Section
from agentloop.declarative._table import TOOLSETS
from agentloop.errors import UsageError
from agentloop.mcp import McpServer
from agentloop.toolkit import Sandbox, memory, plan, project_files, search_folder, skills, think, todo
from agentloop.tools import OpenToolset, Tool, Toolset

__all__ = ["BACKGROUND", "Adapted", "Group", "Toolsets", "prompt_files", "skills_of"]

_PRIVATE = ("0.0.0.0/0", "::/0")
"""All networks, for a file that allows private addresses."""
MEMORY = "memory.db"
BACKGROUND = "background_agents"
_ORIGINAL = "{ORIGINAL_INSTRUCTIONS}"
SKILL_FOLDERS = (".agents/skills", ".claude/skills", ".codex/skills")
"""Folders of skills, in the working folder, in those above it, and in the user's home."""


_NAMES = {
    "todo": frozenset({"create_todos", "update_todos", "list_todos"}),
    "plan": frozenset({"write_plan", "read_plan"}),
    "session_plan": frozenset({"write_plan", "read_plan"}),
    BACKGROUND: frozenset(
        {
            *("run_background_agent", "list_background_agents", "view_background_agent"),
            *("wait_for_background_agents", "steer_background_agent", "stop_background_agent"),
        }
    ),
    "memory": frozenset({"add_memory", "search_memories", "get_memories", "update_memory", "delete_memory"}),
}
"""The tools of toolsets that are opened with a run."""


@frozen
class Group:
    """What a toolset of the file gives an agent."""

    tools: tuple[Tool, ...] = ()
    toolsets: tuple[Toolset, ...] = ()
    instructions: str = ""
    """Text for the agent's instructions."""
    more_names: frozenset[str] | None = frozenset()
    """Names of the tools in ``toolsets``; ``None`` if they are not known before a run."""


class Toolsets:
    """Makes the toolsets of a file."""

    def __init__(self, top: Section) -> None:
        self._context = top.context
        self._shared = top.named("toolsets")
        self._servers = top.named("mcps")
        self._documents = top.named("rag")
        self._makers: dict[str, Callable[[Section], Group]] = {
            "shell": self._shell,
            "filesystem": self._filesystem,
            "file": self._filesystem,
            "fetch": self._fetch,
            "mcp": self._mcp,
            "script": self._script,
            "think": lambda section: Group((think(),)),
            "todo": self._todo,
            "plan": lambda section: Group(toolsets=(plan(),)),
            "session_plan": lambda section: Group(toolsets=(plan(),)),
            "memory": self._memory,
            "user_prompt": lambda section: Group((user_prompt_tool(),)),
            "rag": self._rag,
            # Its agents are not made yet: the loader adds the toolset.
            BACKGROUND: lambda section: Group(),
        }

    def of_agent(self, agent: Section) -> list[Group]:
        """The toolsets of an agent, in order.

        Raises:
          TeamFileError: one of them cannot be made.
        """
        sections = agent.sections("toolsets")
        for name in agent.texts("use_toolsets"):
            sections.append(_find(self._shared, name, agent, "use_toolsets", "toolsets"))
        is_read_only = bool(agent.flag("readonly"))
        groups = [self._made(section, is_read_only=is_read_only) for section in sections]
        for name in agent.texts("rag"):
            section = _find(self._documents, name, agent, "rag", "rag")
            found = self._search(section, section.text("name") or name)
            groups.append(_adapted(found, section, is_read_only=is_read_only))
        return groups

    def _made(self, section: Section, *, is_read_only: bool) -> Group:
        kind = section.text("type")
        if TOOLSETS[kind]:
            return Group()
        try:
            made = evolve(
                self._makers[kind](section), more_names=None if kind == "mcp" else _NAMES.get(kind, frozenset())
            )
            return _adapted(made, section, is_read_only=is_read_only)
        except UsageError as error:
            if hasattr(error, "place"):
                raise
            raise section.error(str(error)) from error

    def _shell(self, section: Section) -> Group:
        return Group((shell_tool(self._context.folder, section.fields("env"), self._sandbox(section)),))

    def _sandbox(self, section: Section) -> Sandbox | None:
        sandbox = section.section("sandbox")
        if sandbox is None:
            return None
        write: list[str] = []
        read: list[str] = []
        for text in sandbox.texts("paths"):
            path = self._context.path(text.removesuffix(":ro").removesuffix(":rw"), sandbox.place, sandbox.at("paths"))
            (read if text.endswith(":ro") else write).append(path)
        return Sandbox(write=write, read=read)

    def _filesystem(self, section: Section) -> Group:
        folder = self._context.folder
        allowed = self._folders(section, "allow_list") or [folder]
        return Group(tuple(filesystem_tools(folder, allowed, self._folders(section, "deny_list"))))

    def _folders(self, section: Section, name: str) -> list[str]:
        return [self._context.path(text, section.place, section.at(name)) for text in section.texts(name)]

    def _fetch(self, section: Section) -> Group:
        web: Any = import_module("agentloop.toolkit.web")
        allowed, blocked = section.texts("allowed_domains"), section.texts("blocked_domains")
        if allowed and blocked:
            raise section.error("give `allowed_domains` or `blocked_domains`, not both", "blocked_domains")
        base: Tool = web.fetch(
            timeout=float(section.number("timeout") or 30.0),
            allow_networks=_PRIVATE if section.flag("allow_private_ips") else (),
            # A redirect could lead to a host that must not be reached: it is an error, which names the URL.
            max_redirects=0 if allowed or blocked else 5,
        )
        return Group((fetch_tool(base, allowed, blocked),))

    def _todo(self, section: Section) -> Group:
        return Group(toolsets=(todo(shared=bool(section.flag("shared"))),))

    def _memory(self, section: Section) -> Group:
        path = section.file("path", base=self._context.home) if "path" in section else f"{self._context.home}/{MEMORY}"
        return Group(toolsets=(memory(path),))

    def _script(self, section: Section) -> Group:
        made: list[Tool] = []
        outer = section.fields("env")
        for name, tool in section.named("shell").items():
            arguments: dict[str, Any] = tool.plain("args") or {}
            required = tool.texts("required") if "required" in tool else [*arguments]
            unknown = [one for one in required if one not in arguments]
            if unknown:
                raise tool.error(f"`args` has no {unknown[0]!r}", "required")
            env = outer | tool.fields("env")
            both = [one for one in arguments if one in env]
            if both:
                raise tool.error(f"{both[0]!r} is an argument, and a variable of `env`", "args")
            folder = (
                tool.file("working_dir", base=self._context.folder) if "working_dir" in tool else self._context.folder
            )
            try:
                made.append(
                    script_tool(name, tool.text("cmd"), tool.text("description"), arguments, required, folder, env)
                )
            except UsageError as error:
                raise tool.error(str(error)) from error
        return Group(tuple(made))

    def _mcp(self, section: Section) -> Group:
        return Group(toolsets=(self._server(section, section),))

    def _server(self, section: Section, named: Section) -> Toolset:
        given = [name for name in ("command", "remote", "ref") if name in section]
        if len(given) != 1:
            raise section.error(f"give one of `command`, `remote` and `ref`, not {' and '.join(given) or 'none'}")
        ref = section.text("ref")
        if ref and not ref.startswith("docker:"):
            # The fields beside a name are about this use of the server; the name's own say where it is.
            group = _find(self._servers, ref, section, "ref", "mcps")
            found = Group(toolsets=(self._server(group, section),))
            return _adapted(found, group, is_read_only=False).toolsets[0]
        options = _options_of(section, named)
        if "remote" in section:
            remote = section.section("remote")
            assert remote is not None
            options.setdefault("name", remote.text("url"))
            if remote.text("transport_type").lower() in ("sse", "websocket"):
                remote.unsupported("transport_type", "Only streamable HTTP is spoken.")
            return _guarded(McpServer.http(remote.url("url"), headers=remote.fields("headers"), **options))
        folder = section.file("working_dir", base=self._context.folder) if "working_dir" in section else None
        env = section.fields("env")
        if ref:
            server = ref.removeprefix("docker:").strip()
            if not server:
                raise section.error("`docker:` is followed by the name of a server", "ref")
            options.setdefault("name", server)
            command = "docker"
            arguments = ["mcp", "gateway", "run", "--servers", server]
        else:
            command = section.expanded("command")
            arguments = section.arguments("args")
        return _guarded(McpServer.stdio(command, *arguments, env=env, cwd=folder or self._context.folder, **options))

    def _rag(self, section: Section) -> Group:
        name = section.text("name")
        if "ref" in section:
            group = _find(self._documents, section.text("ref"), section, "ref", "rag")
            found = self._search(group, name or group.text("name") or section.text("ref"))
            return _adapted(found, group, is_read_only=False)
        source = section.section("rag_config") or section
        return self._search(source, name or source.text("name") or "rag")

    def _search(self, source: Section, name: str) -> Group:
        home = self._context.home
        strategies = source.sections("strategies")
        paths = [self._context.path(text, source.place, source.at("docs"), base=home) for text in source.texts("docs")]
        for strategy in strategies:
            paths += [
                self._context.path(text, strategy.place, strategy.at("docs"), base=home)
                for text in strategy.texts("docs")
            ]
            if strategy.text("type") != "bm25":
                strategy.unsupported("type", "Passages are found by their words (BM25), and not by their meaning.")
        if not paths:
            raise source.error("`docs` is missing: give the files and folders to search")
        missing = [path for path in paths if not os.path.exists(path)]
        if missing:
            raise source.error(f"there is no {missing[0]}", "docs")
        about = source.section("tool")
        folder, glob = _common(paths)
        index = next(
            (s.file("database", base=home) for s in strategies if s.text("type") == "bm25" and "database" in s), None
        )
        called = _tool_name((about.text("name") if about is not None else "") or name)
        made = search_folder(folder, glob=glob, index=index, name=called)
        if about is not None and about.text("description"):
            made = evolve(made, description=f"{about.text('description')} {made.description}")
        return Group((made,), instructions=about.text("instruction") if about is not None else "")


def _find(table: dict[str, Section], name: str, section: Section, field: str, where: str) -> Section:
    if name not in table:
        meant = nearest(name, table)
        hint = f"did you mean {meant!r}?" if meant else f"it has {', '.join(table) or 'nothing'}"
        raise section.error(f"`{where}` has no {name!r}: {hint}", field)
    return table[name]


def _tool_name(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)[:64] or "search"


def _common(paths: Sequence[str]) -> tuple[str, str]:
    """A folder, and a glob for the files and folders in it that are meant."""
    if len(paths) == 1 and os.path.isdir(paths[0]):
        return paths[0], "*"
    folder = os.path.commonpath([path if os.path.isdir(path) else os.path.dirname(path) for path in paths])
    globs: list[str] = []
    for path in dict.fromkeys(paths):
        inner = os.path.relpath(path, folder)
        if inner == ".":
            return folder, "*"
        globs.append(f"{inner}/**" if os.path.isdir(path) else inner)
    return folder, globs[0] if len(globs) == 1 else f"{{{','.join(globs)}}}"


# ---------------------------------------------------------------------------------------- MCP servers


def _options_of(section: Section, named: Section) -> dict[str, Any]:
    options: dict[str, Any] = {}
    name = named.text("name") or section.text("name")
    if name:
        options |= {"name": name, "prefix": f"{_tool_name(name)}_"}
    lifecycle = named.section("lifecycle") or section.section("lifecycle")
    if lifecycle is not None:
        if lifecycle.seconds("startup_timeout"):
            options["start_timeout"] = lifecycle.seconds("startup_timeout")
        if lifecycle.seconds("call_timeout"):
            options["timeout"] = lifecycle.seconds("call_timeout")
        restarts = lifecycle.whole("max_restarts")
        if restarts:
            options["max_restarts"] = 1_000_000 if restarts < 0 else restarts
        is_never = lifecycle.text("restart") == "never" or lifecycle.text("profile") == "best-effort"
        if is_never:
            options["max_restarts"] = 0
        required = lifecycle.flag("required")
        options["optional"] = lifecycle.text("profile") == "best-effort" if required is None else not required
    return options


def _guarded(server: Toolset) -> Toolset:
    """A server whose tools need an approval unless they only read, as docker-agent has it."""
    return Adapted(server, approve=True)


# ---------------------------------------------------------------------------------- names and instructions


def _adapted(group: Group, section: Section, *, is_read_only: bool) -> Group:
    wanted = tuple(section.texts("tools"))
    is_read_only = is_read_only or bool(section.flag("readonly"))
    instruction = section.node("instruction")
    text = None if instruction is None else section.expanded("instruction", bare=False)
    tools = [tool for tool in group.tools if not is_read_only or tool.read_only]
    if wanted and group.tools:
        known = {tool.name for tool in group.tools}
        unknown = [name for name in wanted if name not in known]
        if unknown:
            section.unsupported(
                "tools", f"There is no tool {', '.join(unknown)}; there are {', '.join(sorted(known))}."
            )
        tools = [tool for tool in tools if tool.name in wanted]
    deferred = _deferred(section)
    tools = [_defer(tool, deferred) for tool in tools]
    toolsets = group.toolsets
    if wanted or is_read_only or deferred or text is not None:
        toolsets = tuple(
            Adapted(toolset, wanted=wanted, is_read_only=is_read_only, deferred=deferred, instruction=text)
            for toolset in toolsets
        )
    added = group.instructions
    if group.tools and text is not None:
        added = text.replace(_ORIGINAL, group.instructions).strip()
    return Group(tuple(tools), toolsets, added, group.more_names)


def _deferred(section: Section) -> tuple[str, ...]:
    """The names of the tools to defer, ``*`` for all."""
    flag = section.flag("defer")
    if flag is None:
        return tuple(section.texts("defer"))
    return ("*",) if flag else ()


def _defer(tool: Tool, deferred: tuple[str, ...]) -> Tool:
    """``tool``, deferred if it is among those, with or without the prefix of the server."""
    if any(name == "*" or _is_called(tool.name, name) for name in deferred):
        return evolve(tool, deferred=True)
    return tool


@frozen
class Adapted:
    """A toolset with some of its tools, or with other instructions."""

    inner: Any
    """The toolset."""
    wanted: tuple[str, ...] = field(default=(), kw_only=True)
    """The names of the tools to offer, with or without the prefix of the server; none for all."""
    is_read_only: bool = field(default=False, kw_only=True)
    """Whether only tools are offered that change nothing."""
    deferred: tuple[str, ...] = field(default=(), kw_only=True)
    """The names of the tools that are deferred, ``*`` for all."""
    instruction: str | None = field(default=None, kw_only=True)
    """The instructions in place of the toolset's own."""
    approve: bool = field(default=False, kw_only=True)
    """Whether the tools that may change something need an approval."""

    @property
    def name(self) -> str:
        """The toolset's name in errors."""
        return str(self.inner.name)

    @property
    def optional(self) -> bool:
        """Whether a run goes on without it."""
        return getattr(self.inner, "optional", False) is True

    @property
    def identity(self) -> str:
        """The toolset, as the same text in every process."""
        more = [*self.wanted, "read-only"] if self.is_read_only else [*self.wanted]
        return f"{getattr(self.inner, 'identity', self.name)} {' '.join(more)}".strip()

    def open(self) -> AbstractAsyncContextManager[OpenToolset]:
        """Open the toolset."""
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[OpenToolset]:
        async with self.inner.open() as opened:
            yield _OpenAdapted(self, opened)


@frozen
class _OpenAdapted:
    adapted: Adapted
    opened: Any

    @property
    def instructions(self) -> str:
        own = getattr(self.opened, "instructions", "")
        own = own if isinstance(own, str) else ""
        return own if self.adapted.instruction is None else self.adapted.instruction.replace(_ORIGINAL, own)

    @property
    def problems(self) -> Any:
        return getattr(self.opened, "problems", ())

    async def list_tools(self) -> Sequence[Tool]:
        tools: list[Tool] = []
        for tool in await self.opened.list_tools():
            if self.adapted.is_read_only and not tool.read_only:
                continue
            if self.adapted.wanted and not any(_is_called(tool.name, name) for name in self.adapted.wanted):
                continue
            if self.adapted.approve and not tool.read_only and tool.requires_approval is False:
                tool = evolve(tool, requires_approval=True)  # noqa: PLW2901
            tools.append(_defer(tool, self.adapted.deferred))
        return tools


def _is_called(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f"_{wanted}")


# ------------------------------------------------------------------------------------------- skills


def skills_of(agent: Section, top: Section) -> Toolset | None:
    """The skills of an agent; ``None`` if it has none.

    Raises:
      TeamFileError: a group of skills is not there.
      MissingExtraError: PyYAML is not installed.
    """
    values = [(agent, "skills")] if "skills" in agent else []
    shared = top.section("skills")
    for name in agent.texts("use_skills"):
        if shared is None or name not in shared:
            known = shared.names if shared is not None else ()
            meant = nearest(name, known)
            hint = f"did you mean {meant!r}?" if meant else f"it has {', '.join(known) or 'nothing'}"
            raise agent.error(f"`skills` has no {name!r}: {hint}", "use_skills")
        values.append((shared, name))
    wanted: list[str] = []
    is_on = is_all = False
    for section, field_name in values:
        node = section.node(field_name)
        assert node is not None
        if node.scalar is not None:
            is_on = is_all = is_all or node.scalar is True
            is_on = is_on or is_all
            continue
        for item in node.items or ():
            if item.scalar is None:
                # Named by the check of the file.
                continue
            if item.raw.startswith(("http://", "https://")):
                section.unsupported(field_name, "No skills are downloaded: put them into a folder.")
            elif item.raw == "local":
                is_on = is_all = True
            else:
                is_on = True
                wanted.append(item.raw)
    if not is_on:
        return None
    folders = _skill_folders(top.context.folder)
    if not folders:
        agent.unsupported(
            "skills" if "skills" in agent else "use_skills", "There is no folder of skills, so there are none to offer."
        )
        return None
    return skills(*folders, only=("*",) if not wanted else tuple(wanted))


def _skill_folders(folder: str) -> list[str]:
    """The folders of skills that are there: those of the nearest folders first."""
    found: list[str] = []
    here = os.path.realpath(folder)
    above = [here]
    while not os.path.exists(f"{above[-1]}/.git") and os.path.dirname(above[-1]) != above[-1]:
        above.append(os.path.dirname(above[-1]))
    places = above if os.path.exists(f"{above[-1]}/.git") else [here]
    for place in (*places, os.path.expanduser("~")):
        found += [path for inner in SKILL_FOLDERS if os.path.isdir(path := f"{place}/{inner}")]
    return list(dict.fromkeys(found))


def prompt_files(agent: Section) -> Toolset | None:
    """The files of ``add_prompt_files``, as a toolset; ``None`` if there are none."""
    names = agent.texts("add_prompt_files")
    if not names:
        return None
    try:
        return project_files(*names, folder=agent.context.folder)
    except UsageError as error:
        raise agent.error(str(error), "add_prompt_files") from error
