"""The toolsets of a file: docker-agent's tools, by the names and arguments that its rules and hooks know."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop.declarative import load_team
from agentloop.declarative._table import TOOLSETS
from agentloop.events import ApprovalRequested, ElicitationRequested
from agentloop.messages import ToolResult
from agentloop.questions import Accept, Deny
from agentloop.testing import ScriptedModel, calls
from tests.declarative.builders import call, problem, reasons, root_of, team_of
from tests.mcp.support import SPOKEN
from tests.providers.server import answer, answering, serving
from tests.support import watch

pytestmark = [pytest.mark.real_clock, pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")]


def decline(stream: Any, event: object) -> None:
    if isinstance(event, ApprovalRequested):
        stream.answer(event.id, Deny("not today"))


def names(agent: str, **options: Any) -> list[str]:
    return [tool.name for tool in root_of(agent, **options).tools]


# ----------------------------------------------------------------------------------------- shell


async def test_the_shell_takes_cmd_and_cwd_and_has_the_variables_of_the_file(tmp_path: Path) -> None:
    tmp_path.joinpath("inner").mkdir()
    agent = "toolsets: [{type: shell, env: {GREETING: 'Hello ${NAME}'}}]"
    given = {"cmd": "echo $GREETING in $PWD", "cwd": "inner"}
    result = await call(agent, "shell", given=given, folder=tmp_path, env={"NAME": "Ada"})
    assert f"Hello Ada in {tmp_path}/inner" in result.text


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
async def test_a_sandbox_has_the_folders_of_the_file_and_no_others(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    readable, other = tmp_path_factory.mktemp("readable"), tmp_path_factory.mktemp("other")
    agent = f"toolsets: [{{type: shell, sandbox: {{image: alpine, paths: [., '{readable}:ro']}}}}]"
    command = f"touch mine; touch {readable}/x || echo read-only; ls {other} || echo nothing there"
    result = await call(agent, "shell", given={"cmd": command}, folder=tmp_path)
    assert "read-only" in result.text
    assert "nothing there" in result.text
    assert tmp_path.joinpath("mine").exists()
    away = await call(agent, "shell", given={"cmd": "true", "cwd": "/"}, folder=tmp_path)
    assert away.status == "error"
    assert "Sandbox: '/nowhere' cannot be used" in problem(
        "agents: {root: {model: openai/x, toolsets: [{type: shell, sandbox: {paths: [/nowhere]}}]}}\n"
    )


async def test_a_command_needs_an_approval_unless_a_rule_allows_it(tmp_path: Path) -> None:
    asked: list[str] = []
    rest = "permissions: {allow: ['shell:cmd=ls*'], deny: ['shell:cmd=sudo*']}"
    for command in ("ls", "date", "sudo ls"):
        model = ScriptedModel(calls("shell", cmd=command), "Done.")
        team = team_of("toolsets: [{type: shell}]", rest, models=model, folder=tmp_path)
        watched = await watch(team, on_event=decline)
        asked += [command for event in watched.events if isinstance(event, ApprovalRequested)]
        if command == "sudo ls":
            assert "rule" in watched.messages[2].text
    assert asked == ["date"]


@pytest.mark.parametrize("cwd", ["/nowhere", "\0"])
async def test_a_folder_that_is_not_there_is_an_error_of_the_call(cwd: str) -> None:
    result = await call("toolsets: [{type: shell}]", "shell", given={"cmd": "true", "cwd": cwd})
    assert result.status == "error"


# ----------------------------------------------------------------------------------------- files


@pytest.fixture
def project(tmp_path: Path) -> Path:
    tmp_path.joinpath("a.txt").write_text("one\ntwo\n")
    tmp_path.joinpath("src").mkdir()
    tmp_path.joinpath("src/b.py").write_text("two = 2\n")
    tmp_path.joinpath("secret").mkdir()
    tmp_path.joinpath("secret/key").write_text("two secrets\n")
    return tmp_path


FILES = "toolsets: [{type: filesystem, deny_list: [secret]}]"


async def files(project: Path, tool: str, agent: str = FILES, **given: Any) -> ToolResult:
    return await call(agent, tool, given=given, folder=project)


async def test_files_are_read_listed_and_searched(project: Path) -> None:
    assert (await files(project, "read_file", path="a.txt")).text == "1\tone\n2\ttwo"
    assert (await files(project, "read_file", path=f"{project}/a.txt", offset=2)).text == "2\ttwo"
    several = await files(project, "read_multiple_files", paths=["a.txt", "none"])
    assert "=== a.txt ===\n1\tone" in several.text
    assert "=== none ===\n['" in several.text
    assert (await files(project, "list_directory")).text == "DIR src\nFILE a.txt"
    assert "src/b.py" in (await files(project, "directory_tree", path=".")).text
    found = await files(project, "search_files_content", path=".", query="two", exclude_patterns=["*.txt"])
    assert found.text == "src/b.py:1:two = 2"
    regex = await files(project, "search_files_content", path=".", query="^o.e$", is_regex=True)
    assert regex.text == "a.txt:1:one"


async def test_files_are_written_and_edited_all_edits_or_none(project: Path) -> None:
    await files(project, "write_file", path="new/c.txt", content="x\n")
    assert project.joinpath("new/c.txt").read_text() == "x\n"
    edits = [{"oldText": "one", "newText": "1"}, {"oldText": "1\n", "newText": "I\n"}]
    assert (await files(project, "edit_file", path="a.txt", edits=edits)).status == "ok"
    assert project.joinpath("a.txt").read_text() == "I\ntwo\n"
    edits = [{"oldText": "I", "newText": "1"}, {"oldText": "none", "newText": "x"}]
    result = await files(project, "edit_file", path="a.txt", edits=edits)
    assert "the old text of edit 2 is 0 times in the file" in result.text
    assert project.joinpath("a.txt").read_text() == "I\ntwo\n"


async def test_folders_are_made_and_removed_when_empty(project: Path) -> None:
    assert (await files(project, "create_directory", paths=["x/y", "src"])).status == "ok"
    assert project.joinpath("x/y").is_dir()
    assert (await files(project, "remove_directory", paths=["x/y"])).status == "ok"
    assert not project.joinpath("x/y").exists()
    assert (await files(project, "remove_directory", paths=["src"])).status == "error"
    assert (await files(project, "remove_directory", paths=["."])).status == "error"
    assert project.joinpath("src/b.py").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "secret/key", "src/../secret/key", "link/key", "~", "\0"])
@pytest.mark.parametrize("tool", ["read_file", "list_directory", "write_file", "create_directory"])
async def test_no_path_leads_out_or_into_a_denied_folder(project: Path, tool: str, path: str) -> None:
    project.joinpath("link").symlink_to(project / "secret")
    given: dict[str, Any] = {"paths": [path]} if tool == "create_directory" else {"path": path}
    if tool == "write_file":
        given["content"] = "x"
    result = await files(project, tool, **given)
    assert result.status == "error"
    assert project.joinpath("secret/key").read_text() == "two secrets\n"


async def test_searches_and_trees_show_nothing_of_a_denied_folder(project: Path) -> None:
    for tool, given in (("search_files_content", {"path": ".", "query": "two"}), ("directory_tree", {"path": "."})):
        assert "secret" not in (await files(project, tool, **given)).text
    listed = await files(project, "list_directory", path=".")
    assert "secret" not in listed.text


async def test_an_allow_list_opens_further_folders(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    other.joinpath("o.txt").write_text("other\n")
    agent = f"toolsets: [{{type: filesystem, allow_list: [., '{other}', '$MORE']}}]"
    options: dict[str, Any] = {"folder": project, "env": {"MORE": str(other)}}
    assert "other" in (await call(agent, "read_file", given={"path": f"{other}/o.txt"}, **options)).text
    assert "one" in (await call(agent, "read_file", given={"path": "a.txt"}, **options)).text


def test_a_folder_of_an_allow_list_that_is_not_there_is_an_error_with_its_place() -> None:
    assert "toolsets[0]: '/nowhere' is no folder" in problem(
        "agents: {root: {model: openai/x, toolsets: [{type: filesystem, allow_list: [/nowhere]}]}}\n"
    )


def test_read_only_leaves_the_tools_that_change_nothing() -> None:
    reads = ["read_file", "read_multiple_files", "list_directory", "directory_tree", "search_files_content"]
    assert names("toolsets: [{type: filesystem, readonly: true}, {type: shell}]") == [*reads, "shell"]
    assert names("readonly: true, toolsets: [{type: filesystem}, {type: shell}]") == reads


def test_a_list_of_tools_leaves_out_the_others() -> None:
    assert names("toolsets: [{type: filesystem, tools: [read_file, write_file]}]") == ["read_file", "write_file"]
    team = team_of("toolsets: [{type: shell, tools: [shel]}]")
    assert "There is no tool shel; there are shell." in reasons(team).values()


def test_a_tool_that_is_there_twice_counts_once_and_is_named() -> None:
    team = team_of("toolsets: [{type: shell}, {type: shell}, {type: todo}, {type: todo}]")
    assert [tool.name for tool in team.tools] == ["shell"]
    assert len(team.toolsets) == 1
    assert {one.reason for one in team.unsupported} == {
        "The tool 'shell' is there twice: the first one counts.",
        "The toolset 'todo' is there twice: the first one counts.",
    }


# ----------------------------------------------------------------------------------------- others


async def test_a_script_gets_its_arguments_as_variables(tmp_path: Path) -> None:
    agent = (
        "toolsets: [{type: script, env: {A: outer}, shell: {greet: {cmd: 'echo $A $name $times', description: Greet, "
        "args: {name: {type: string}, times: {type: integer}}, required: [name], working_dir: .}}}]"
    )
    result = await call(agent, "greet", given={"name": "$(id) 'x", "times": 3}, folder=tmp_path)
    assert "outer $(id) 'x 3" in result.text
    assert (await call(agent, "greet", given={})).text.endswith("the argument name is missing")
    assert "no argument PATH" in (await call(agent, "greet", given={"name": "a", "PATH": "/"})).text
    tool = root_of(agent).tools[0]
    assert (tool.description, tool.requires_approval) == ("Greet", True)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("'no name': {cmd: x}", "a tool's name is 1 to 64 letters"),
        ("x: {}", "`cmd` is missing"),
        ("x: {cmd: y, required: [z]}", "`args` has no 'z'"),
        ("x: {cmd: y, args: {A: {type: string}}, env: {A: b}}", "'A' is an argument, and a variable of `env`"),
    ],
)
def test_a_script_with_a_mistake_has_its_place(script: str, message: str) -> None:
    text = f"agents: {{root: {{model: openai/x, toolsets: [{{type: script, shell: {{{script}}}}}]}}}}\n"
    assert message in problem(text)


async def test_the_user_is_asked(tmp_path: Path) -> None:
    model = ScriptedModel(calls("user_prompt", message="Which one?", choices=["a", "b"]), "Done.")

    def on_event(stream: Any, event: object) -> None:
        if isinstance(event, ElicitationRequested):
            stream.answer(event.id, Accept({"answer": "b"}))

    watched = await watch(team_of("toolsets: [{type: user_prompt}]", models=model), on_event=on_event)
    assert "The user answered: b" in watched.messages[2].text


async def test_notes_are_kept_by_the_session_and_memories_in_a_file_beside_the_team(tmp_path: Path) -> None:
    path = tmp_path / "team.yaml"
    path.write_text(
        "agents: {root: {model: openai/x, toolsets: [{type: think}, {type: todo, shared: true}, {type: plan}, "
        "{type: memory, path: ./notes.db}]}}\n"
    )
    model = ScriptedModel(
        calls("think", thought="Hm.")
        + calls("create_todos", descriptions=["Cook"])
        + calls("write_plan", content="First")
        + calls("add_memory", memory="Ada likes tea"),
        "Done.",
    )

    watched = await watch(load_team(path, models=model))
    results = [message for message in watched.messages if isinstance(message, ToolResult)]
    assert [result.status for result in results] == ["ok"] * 4
    assert tmp_path.joinpath("notes.db").exists()


async def test_pages_are_fetched_from_the_hosts_that_may_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    page = answer(b"Hello")
    async with serving(answering(page)) as server:
        url = server.url.replace("localhost", "127.0.0.1")
        agent = "toolsets: [{type: fetch, allow_private_ips: true, allowed_domains: [127.0.0.0/8, example.org]}]"
        result = await call(agent, "fetch", given={"urls": [url, "https://example.com/"]})
    assert "Hello" in result.text
    assert "'example.com' is none of the hosts that may be reached" in result.text


@pytest.mark.parametrize(
    ("pattern", "host", "is_reached"),
    [
        ("example.org", "example.org", True),
        ("example.org", "a.example.org", True),
        ("example.org", "badexample.org", False),
        (".example.org", "example.org", False),
        ("*.example.org", "a.example.org", True),
        ("EXAMPLE.org", "Example.ORG.", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("::1/128", "[::1]", True),
    ],
)
async def test_a_host_is_blocked_by_name_domain_or_network(pattern: str, host: str, is_reached: bool) -> None:
    agent = f"toolsets: [{{type: fetch, blocked_domains: ['{pattern}'], timeout: 1}}]"
    result = await call(agent, "fetch", given={"urls": [f"http://{host}:1/"]})
    assert ("must not be reached" in result.text) is is_reached


def test_hosts_are_allowed_or_blocked_and_not_both() -> None:
    assert "not both" in problem(
        "agents: {root: {model: openai/x, toolsets: [{type: fetch, allowed_domains: [a], blocked_domains: [b]}]}}\n"
    )


async def test_documents_are_searched_by_their_words(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    docs.joinpath("tea.md").write_text("Tea is brewed for three minutes.\n")
    tmp_path.joinpath("note.txt").write_text("Coffee takes four.\n")
    tmp_path.joinpath("other.txt").write_text("Tea is not here.\n")
    path = tmp_path / "team.yaml"
    path.write_text("""\
agents:
  root:
    model: openai/x
    toolsets: [{type: rag, ref: kitchen}]
rag:
  kitchen:
    tool: {description: About drinks., instruction: Search before you answer.}
    docs: [docs, note.txt]
    strategies: [{type: bm25, database: index.db}, {type: chunked-embeddings, embedding_model: openai/e}]
""")

    model = ScriptedModel(calls("kitchen", query="tea minutes"), "Done.")
    team = load_team(path, models=model)
    watched = await watch(team)
    assert "three minutes" in watched.messages[2].text
    assert "not here" not in watched.messages[2].text
    assert "Search before you answer." in str(team.instructions)
    assert "rag.kitchen.strategies[1].type" in reasons(team)
    assert tmp_path.joinpath("index.db").exists()


def test_documents_that_are_not_there_are_an_error() -> None:
    text = "agents: {root: {model: openai/x, rag: [a]}}\nrag: {a: {docs: [nowhere.md]}}\n"
    assert "there is no " in problem(text)
    assert "`docs` is missing" in problem("agents: {root: {model: openai/x, rag: [a]}}\nrag: {a: {tool: {name: b}}}\n")


async def test_skills_of_the_usual_folders_are_offered_by_name(tmp_path: Path) -> None:
    for name in ("cook", "sew"):
        tmp_path.joinpath(f".claude/skills/{name}").mkdir(parents=True)
        tmp_path.joinpath(f".claude/skills/{name}/SKILL.md").write_text(
            f"---\nname: {name}\ndescription: To {name}.\n---\nDo.\n"
        )
    for skills, offered in (("true", ["cook", "sew"]), ("[cook]", ["cook"]), ("[local, sew]", ["sew"]), ("false", [])):
        model = ScriptedModel("Hi.")
        await team_of(f"skills: {skills}", models=model, folder=tmp_path, env={}).run("Hello!")
        assert [name for name in ("cook", "sew") if f"To {name}." in model.requests[0].instructions] == offered


def test_skills_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    team = team_of("skills: ['https://skills.example']", folder=tmp_path)
    assert reasons(team)["agents.root.skills"] == "No skills are downloaded: put them into a folder."


# ----------------------------------------------------------------------------------- MCP servers


def server(extra: str = "", listed: str = "") -> str:
    tools = [
        {"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
        {"name": "change", "inputSchema": {"type": "object"}},
    ]

    said = json.dumps(json.dumps({"tools": tools, "lines": {}}))
    return f"toolsets: [{{type: mcp, command: '{sys.executable}', args: [-I, -S, '{SPOKEN}', {said}]{extra}}}]"


async def offered(agent: str, **options: Any) -> list[str]:
    model = ScriptedModel("Hi.")
    team = team_of(agent, models=model, **options)
    with trio.fail_after(30):
        await team.run("Hello!")
    return [tool.name for tool in model.requests[0].tools]


async def test_the_tools_of_a_server_are_offered_under_its_name_and_filtered() -> None:
    assert await offered(server()) == ["look", "change"]
    assert await offered(server(", name: git")) == ["git_look", "git_change"]
    assert await offered(server(", tools: [change]")) == ["change"]
    assert await offered(server(", name: git, tools: [look]")) == ["git_look"]
    assert await offered(server(", readonly: true")) == ["look"]


async def test_a_tool_of_a_server_needs_an_approval_unless_it_only_reads() -> None:
    for tool, asks in (("look", False), ("change", True)):
        model = ScriptedModel(calls(tool), "Done.")
        watched = await watch(team_of(server(), models=model), on_event=decline)
        assert any(isinstance(event, ApprovalRequested) for event in watched.events) is asks


async def test_an_instruction_replaces_that_of_a_toolset_or_adds_to_it() -> None:
    for instruction, are_there in (("Mine.", False), ("'{ORIGINAL_INSTRUCTIONS} Mine.'", True)):
        model = ScriptedModel("Hi.")
        await team_of(f"toolsets: [{{type: todo, instruction: {instruction}}}]", models=model).run("Hello!")
        assert "Mine." in model.requests[0].instructions
        assert ("Keep track of work" in model.requests[0].instructions) is are_there
    assert root_of("toolsets: [{type: shell, instruction: Be careful.}]").instructions == "Be careful."


def test_servers_are_found_by_reference_by_url_and_in_dockers_catalogue() -> None:
    rest = "mcps: {files: {command: npx, args: [-y, server], env: {A: b}}}"
    remote = "{url: 'https://x.example/mcp', headers: {Authorization: 'Bearer ${env.T}'}}"
    toolsets = f"[{{type: mcp, ref: files}}, {{type: mcp, ref: 'docker:duckduckgo'}}, {{type: mcp, remote: {remote}}}]"
    agent = root_of(f"toolsets: {toolsets}", rest, env={"T": "abc"})
    one, two, three = [toolset.inner for toolset in agent.toolsets]  # type: ignore[attr-defined]
    assert (one.target.command, one.target.args, one.target.env) == ("npx", ("-y", "server"), {"A": "b"})
    assert (two.target.command, *two.target.args) == ("docker", "mcp", "gateway", "run", "--servers", "duckduckgo")
    assert (three.target.url, three.target.headers) == ("https://x.example/mcp", {"Authorization": "Bearer abc"})


def test_the_lifecycle_of_a_server_is_obeyed() -> None:
    lifecycle = "{profile: best-effort, startup_timeout: 5s, call_timeout: 1m}"
    agent = root_of(f"toolsets: [{{type: mcp, command: x, lifecycle: {lifecycle}}}]")
    inner = agent.toolsets[0].inner  # type: ignore[attr-defined]
    assert (inner.optional, inner.start_timeout, inner.timeout, inner.max_restarts) == (True, 5, 60, 0)


def test_a_server_that_is_not_required_is_optional_for_the_runtime_too() -> None:
    servers = ("lifecycle: {required: false}", "instruction: x, lifecycle: {required: false}", "instruction: x")
    listed = ", ".join(f"{{type: mcp, command: x{place}, {fields}}}" for place, fields in enumerate(servers))
    agent = root_of(f"toolsets: [{listed}]")
    assert [toolset.optional for toolset in agent.toolsets] == [True, True, False]  # type: ignore[attr-defined]


async def test_tools_of_a_file_are_deferred_all_of_a_toolset_or_by_name() -> None:
    agent = root_of(
        "toolsets: [{type: think, defer: true}, {type: user_prompt, defer: false}, {type: todo, defer: [list_todos]}, "
        "{type: filesystem, defer: [read_file]}]"
    )
    model = ScriptedModel("done")
    await agent.replace(model=model).run("go")
    names = [spec.name for spec in model.requests[0].tools]
    assert {"user_prompt", "create_todos", "find_tools"} <= {*names}
    assert not {"think", "list_todos", "read_file"} & {*names}


@pytest.mark.parametrize(
    ("toolset", "message"),
    [
        ("{type: mcp}", "give one of `command`, `remote` and `ref`, not none"),
        ("{type: mcp, command: x, ref: 'docker:y'}", "not command and ref"),
        ("{type: mcp, ref: fles}", "`mcps` has no 'fles'"),
        ("{type: mcp, ref: 'docker:'}", "followed by the name of a server"),
        ("{type: mcp, remote: {url: 'ftp://x'}}", "takes an http or https URL"),
        ("{type: mcp, remote: {}}", "`url` is missing"),
    ],
)
def test_a_server_with_a_mistake_has_its_place(toolset: str, message: str) -> None:
    assert message in problem(f"agents: {{root: {{model: openai/x, toolsets: [{toolset}]}}}}\n")


# --------------------------------------------------------------------------------- what is not there

NEEDED = {
    "api": ", api_config: {name: a, endpoint: 'https://x.example', method: GET}",
    "openapi": ", url: 'https://x.example'",
    "a2a": ", url: 'https://x.example'",
    "lsp": ", command: gopls",
    "model_picker": ", models: [a]",
    "webhook": ", webhook_config: {url: 'https://x.example'}",
}


@pytest.mark.parametrize("kind", [kind for kind, note in TOOLSETS.items() if note])
def test_a_toolset_that_is_not_there_is_named_with_a_sentence(kind: str) -> None:
    team = team_of(f"toolsets: [{{type: {kind}{NEEDED.get(kind, '')}}}, {{type: think}}]")
    assert reasons(team) == {"agents.root.toolsets[0]": TOOLSETS[kind]}
    assert [tool.name for tool in team.tools] == ["think"]
