"""A file becomes a team: each field is obeyed, or named; a mistake has its line and the nearest right word."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from textwrap import dedent

import pytest

from agentloop import Session, Team
from agentloop.acp import ExternalAgent
from agentloop.declarative import JsonOutput, TeamFileError, load_team
from agentloop.limits import Price
from agentloop.testing import ScriptedModel, calls
from tests.declarative.builders import problem, reasons, root_of, team_of

# ------------------------------------------------------------------------------------- the whole


async def test_a_file_becomes_a_team_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "team.yaml"
    path.write_text("""\
version: "16"
agents:
  root:
    model: openai/gpt-5
    description: A helper
    instruction: You help.
""")
    model = ScriptedModel("Hello.")
    team = load_team(path, models=model)
    outcome = await team.run("Hi!")
    assert outcome.output == "Hello."
    assert model.requests[0].instructions == "You help."
    assert team.unsupported == ()
    assert isinstance(team, Team)


def test_the_agent_called_root_is_the_first_one_or_else_the_first_of_the_file() -> None:
    several = "agents:\n  b: {model: openai/x}\n  root: {model: openai/x}\n"
    assert load_team(several).name == "root"
    assert load_team(several.replace("root", "a")).name == "b"


@pytest.mark.parametrize("version", ["1", '"1"', "2", "8", '"16"', '""'])
def test_every_version_of_the_format_is_read(version: str) -> None:
    assert load_team(f"version: {version}\nagents: {{root: {{model: openai/x}}}}\n").unsupported == ()


@pytest.mark.parametrize("version", ["0", "-1", "two", "1.5", "[1]", "true"])
def test_what_is_no_version_is_refused(version: str) -> None:
    assert "version" in problem(f"version: {version}\nagents: {{root: {{model: openai/x}}}}\n")


def test_a_field_that_a_later_version_has_is_named_and_not_refused() -> None:
    team = load_team("version: 17\nagents: {root: {model: openai/x, telepathy: true}}\n")
    assert reasons(team)["agents.root.telepathy"] == "This field is not known here."
    assert "telepathy" in problem("version: 16\nagents: {root: {model: openai/x, telepathy: true}}\n")


def test_the_unsupported_fields_are_named_in_the_order_of_their_lines_each_with_a_sentence() -> None:
    team = load_team("""\
agents:
  root:
    model: openai/x
    code_mode_tools: true
    cache: {enabled: true}
flavors: {big: {}}
""")
    assert [str(one) for one in team.unsupported] == [
        "<text>:4:5: agents.root.code_mode_tools: The model calls the tools one by one.",
        "<text>:5:5: agents.root.cache: No answer comes from a cache: the model is asked each time.",
        "<text>:6:1: flavors: No flavor is applied: the file is read as it stands.",
    ]


def test_a_harness_is_another_program_and_what_it_has_itself_is_named() -> None:
    text = """
        agents:
          root:
            model: openai/x
            sub_agents: [coder]
          coder:
            model: openai/y
            description: Writes code.
            instruction: Be brief.
            harness: {type: codex, model: big, effort: high}
            toolsets: [{type: think}]
    """
    team = load_team(dedent(text))
    coder = team.all_agents["coder"]
    assert isinstance(coder, ExternalAgent)
    assert (coder.description, coder.instructions) == ("Writes code.", "Be brief.")
    assert coder.limits.turns == math.inf
    assert {one.field for one in team.unsupported} == {
        "agents.coder.model",
        "agents.coder.harness.effort",
        "agents.coder.toolsets",
    }


def test_strict_refuses_a_file_with_fields_that_are_not_obeyed_and_names_them_all() -> None:
    text = "agents: {root: {model: openai/x, code_mode_tools: true, max_old_tool_call_tokens: 9}}\n"
    said = problem(text, strict=True)
    assert said.startswith("<text>:1:34: agents.root.code_mode_tools: The model calls the tools one by one.")
    assert "agents.root.max_old_tool_call_tokens" in said
    assert load_team("agents: {root: {model: openai/x}}\n", strict=True).name == "root"


def test_a_field_that_is_off_asks_for_nothing_and_is_not_named() -> None:
    assert team_of("code_mode_tools: false, add_prompt_files: [], num_history_items: 0, cache: ").unsupported == ()


# ------------------------------------------------------------------------------------- mistakes


MISTAKES = [
    (
        "agents:\n  root:\n    model: openai/x\n    instuction: y\n",
        "<text>:4:5: agents.root.instuction: an agent has no such field: did you mean 'instruction'?",
    ),
    (
        "agnets: {root: {model: openai/x}}\n",
        "<text>:1:1: agnets: the file has no such field: did you mean 'agents'?",
    ),
    ("agents: {root: {}}\n", "agents.root: `model` is missing"),
    ("models: {}\nx: &x y\n", "x: the file has no such field"),
    ("models: {}\n", "<text>:1:1: `agents` is missing: give a mapping from names to mappings"),
    ("agents: {root: {model: [a]}}\n", "agents.root.model: give a text, not a list"),
    (
        "agents: {root: {harness: {type: pi}}}\n",
        "harness.type: give one of claude-code, codex, opencode",
    ),
    ("agents: {root: {model: ','}}\n", "`model` is empty"),
    ("[agents]\n", "a team is a mapping with `agents:`, and not a list"),
    ("- a\n", "a team is a mapping"),
]

MISTAKES_OF_AN_AGENT = [
    ("qqqq: 1", "", "agents.root.qqqq: an agent has no such field: there are model,"),
    ("add_date: 3", "", "agents.root.add_date: give true or false, not the number 3"),
    ("max_iterations: -1", "", "give a whole number of 0 or more, not the number -1"),
    ("max_iterations: 1.5", "", "give a whole number"),
    ("safety: strickt", "", "there is no 'strickt': did you mean 'strict'?"),
    ("sub_agents: [rot]", "", "there is no agent 'rot': did you mean 'root'?"),
    ("sub_agents: [root]", "", "an agent does not call itself"),
    ("handoffs: [docker/agent]", "", "none is downloaded"),
    ("sub_agents: ['r:ns/image']", "", "none is downloaded"),
    ("fallback: {cooldown: soon}", "", "give a duration, such as 30s or 1m30s"),
    ("budgets: [tigt]}}\nbudgets: {tight: {", "", "did you mean 'tight'?"),
    ("toolsets: [{}]", "", "toolsets[0]: `type` is missing"),
    ("toolsets: [{type: shel}]", "", "did you mean 'shell'?"),
    (
        "toolsets: [{type: todo, path: x}]",
        "",
        "a toolset of type todo has no such field: it is one of memory, tasks",
    ),
    ("use_toolsets: [a]", "", "`toolsets` has no 'a'"),
    ("use_commands: [a]}}\ncommands: {b: {c: d", "", "`commands` has no 'a'"),
    ("use_skills: [a]", "", "`skills` has no 'a'"),
    ("instruction: a, instruction_file: b", "", "not both"),
    ("instruction_file: ../b", "", "leads out of the folder"),
    ("instruction_file: /etc/passwd", "", "leads out of the folder"),
    ("instruction_file: none.md", "", "cannot be read"),
    ("structured_output: {name: a, schema: {type: array}}", "", "give the schema of an object"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_has_its_place_and_the_way_out(text: str, message: str) -> None:
    assert message in problem(text)


@pytest.mark.parametrize(("agent", "rest", "message"), MISTAKES_OF_AN_AGENT)
def test_a_mistake_in_an_agent_has_its_place_and_the_way_out(agent: str, rest: str, message: str) -> None:
    assert message in problem(f"agents: {{root: {{model: openai/x, {agent}}}}}\n{rest}\n")


def test_an_error_has_its_facts_as_attributes_and_survives_pickle() -> None:
    with pytest.raises(TeamFileError) as caught:
        load_team("agents:\n  root:\n    modle: x\n")
    for error in (caught.value, copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert (error.field, error.place.line, error.place.column) == ("agents.root.modle", 3, 5)
        assert str(error) == f"<text>:3:5: agents.root.modle: {error.problem}"


# ------------------------------------------------------------------------------------- secrets and variables


@pytest.mark.parametrize(
    "field",
    [
        "instruction: 'use sk-abcdefghijklmnopqrstuvwx'",
        "toolsets: [{type: shell, env: {GITHUB_TOKEN: abcdef}}]",
        "toolsets: [{type: mcp, remote: {url: 'https://x.example', headers: {Authorization: 'Bearer abcdef'}}}]",
        "toolsets: [{type: mcp, remote: {url: 'https://x.example/mcp?api_key=abcdef'}}]",
        "toolsets: [{type: mcp, remote: {url: 'https://ada:secret@x.example/mcp'}}]",
        "toolsets: [{type: mcp, command: x, args: [--api-key, abcdef]}]",
        "toolsets: [{type: mcp, command: x, args: ['--token=abcdef']}]",
        "hooks: {stop: [{type: command, command: x, env: {MY_SECRET: abcdef}}]}",
        "toolsets: [{type: shell, env: {MY_PASSWORD: 'abcdef$x'}}]",
    ],
)
def test_a_secret_in_a_file_is_refused_with_the_way_out_and_not_repeated(field: str) -> None:
    said = problem(f"agents: {{root: {{model: openai/x, {field}}}}}\n")
    assert "${env.NAME}" in said
    assert "abcdef" not in said


def test_a_key_in_the_place_of_its_variable_is_refused() -> None:
    said = problem("agents: {root: {model: m}}\nmodels: {m: {provider: openai, model: x, token_key: abc-def.g}}\n")
    assert "the name of an environment variable, and not the key itself" in said


def test_an_instruction_that_only_speaks_of_secrets_is_none() -> None:
    assert root_of("instruction: 'Use bearer authentication, an api_key: or a password= of the user'").instructions


def test_a_variable_has_the_value_of_the_environment() -> None:
    agent = root_of("instruction: 'You help ${env.USER_NAME}. ${HOME} stays.'", env={"USER_NAME": "Ada"})
    assert agent.instructions == "You help Ada. ${HOME} stays."


def test_a_variable_that_is_not_set_is_an_error_with_its_place() -> None:
    said = problem("agents: {root: {model: openai/x, instruction: 'Hi ${env.NOBODY}'}}\n", env={})
    assert "agents.root.instruction: the environment has no variable NOBODY" in said


# ------------------------------------------------------------------------------------- agents


def test_instructions_come_from_a_text_a_list_or_files(tmp_path: Path) -> None:
    assert root_of("instruction: [One., Two.]").instructions == "One.\n\nTwo."
    tmp_path.joinpath("a.md").write_text("From a file.\n")
    tmp_path.joinpath("b.md").write_text("From another.\n")
    path = tmp_path / "team.yaml"
    path.write_text("agents: {root: {model: openai/x, instruction_file: [a.md, b.md]}}\n")
    assert load_team(path).agents[0].instructions == "From a file.\n\nFrom another."


async def test_sub_agents_get_tasks_by_one_tool() -> None:
    text = """\
agents:
  root: {model: a/lead, sub_agents: [coder]}
  coder: {model: a/coder, description: Writes code, instruction: You code.}
"""
    lead = ScriptedModel(calls("transfer_task", agent="coder", task="Fix it", expected_output="A patch"), "Done.")
    coder = ScriptedModel("Patched.")
    team = load_team(text, models={"a/lead": lead, "a/coder": coder})
    assert (await team.run("Go!")).output == "Done."
    assert coder.requests[0].instructions == "You code."
    assert "Expected output:\nA patch" in coder.requests[0].messages[0].text
    assert set(team.all_agents) == {"root", "coder"}


def test_an_agent_does_not_call_those_that_it_runs_inside_of() -> None:
    text = "agents:\n  root: {model: openai/x, sub_agents: [b]}\n  b: {model: openai/x, sub_agents: [root]}\n"
    team = load_team(text)
    assert reasons(team) == {"agents.b.sub_agents": "'b' does not call 'root', which it runs inside of."}


async def test_a_handoff_gives_the_conversation_to_another_agent_of_the_file_also_in_a_cycle() -> None:
    text = "agents:\n  root: {model: a/a, handoffs: [b]}\n  b: {model: a/b, handoffs: [root]}\n"
    first, second = ScriptedModel(calls("handoff", agent="b")), ScriptedModel("I am b.", "Still b.")
    team = load_team(text, models={"a/a": first, "a/b": second})
    assert [agent.name for agent in team.agents] == ["root", "b"]
    session = Session()
    assert (await team.run("Hi!", session=session)).output == "I am b."
    assert (await team.run("And?", session=session)).output == "Still b."


async def test_a_forced_handoff_needs_no_call() -> None:
    text = "agents:\n  root: {model: a/a, force_handoff: b}\n  b: {model: a/b}\n"
    team = load_team(text, models={"a/a": ScriptedModel("Raw."), "a/b": ScriptedModel("Refined.")})
    assert (await team.run("Hi!")).output == "Refined."


async def test_a_sub_agent_may_hand_its_task_off() -> None:
    text = """\
agents:
  root: {model: a/a, sub_agents: [b]}
  b: {model: a/b, handoffs: [c]}
  c: {model: a/c}
"""
    models = {
        "a/a": ScriptedModel(calls("transfer_task", agent="b", task="x"), "Done."),
        "a/b": ScriptedModel(calls("handoff", agent="c")),
        "a/c": ScriptedModel("From c."),
    }
    assert (await load_team(text, models=models).run("Go!")).output == "Done."
    assert models["a/a"].requests[1].messages[-1].text == "From c."


async def test_structured_output_is_a_dict_that_fits_the_schema() -> None:
    schema = "{type: object, properties: {n: {type: integer}, of: {enum: [a, b]}}, required: [n]}"
    model = ScriptedModel('{"of": "c"}', '{"n": 3, "of": "a"}')
    team = team_of(f"structured_output: {{name: count, description: A count, schema: {schema}}}", models=model)
    output = (await team.run("Count!")).output
    assert output == {"n": 3, "of": "a"}
    assert isinstance(output, JsonOutput)
    assert model.requests[0].output is not None
    assert model.requests[0].output.name == "count"
    assert "`n`: it is missing" in model.requests[1].messages[-1].text


def test_limits_come_from_iterations_budgets_and_repetitions() -> None:
    rest = "budget: {max_cost: 5, max_tokens: 1000, max_time: 1m30s}\nbudgets: {tight: {max_cost: 1}}"
    limits = root_of("max_iterations: 7, max_consecutive_tool_calls: 3, budgets: [tight]", rest).limits
    assert (limits.turns, limits.identical_turns, limits.cost) == (7, 3, 1)
    assert (limits.tokens, limits.seconds) == (1000, 90)
    assert root_of("max_iterations: 0").limits.turns == math.inf
    assert root_of("description: x").limits.turns == 50


def test_compaction_results_and_retries_are_those_of_the_file() -> None:
    agent = root_of(
        "compaction_threshold: 0.1, max_tool_result_tokens: 500, "
        "fallback: {models: [openai/b], retries: 4, cooldown: 30s}"
    )
    assert agent.compaction is not None
    assert agent.compaction.threshold == 0.1  # type: ignore[union-attr]
    assert agent.max_result == 2000
    assert agent.fallbacks == ("openai:b",)
    assert (agent.retries.attempts, agent.retries.cooldown) == (5, 30)
    assert root_of("fallback: {retries: -1}").retries.attempts == 1
    assert root_of("session_compaction: false").compaction is False


def test_commands_and_the_welcome_are_kept_for_the_program() -> None:
    rest = "commands: {shared: {a: Old, b: Shared}}"
    team = team_of(
        "use_commands: [shared], welcome_message: Hello!, "
        "commands: {a: 'Do $1', c: {description: d, instruction: i, agent: root}}",
        rest,
    )
    assert team.welcome_message == "Hello!"
    assert {name: one.prompt for name, one in team.commands.items()} == {"a": "Do $1", "b": "Shared", "c": "i"}
    assert team.commands["c"].description == "d"
    assert [one.field for one in team.unsupported] == ["agents.root.commands.c.agent"]
    assert [*team_of("commands: [{x: X}, {y: Y}]").commands] == ["x", "y"]


def test_metadata_is_kept() -> None:
    assert dict(team_of("description: d", "metadata: {author: Ada, tags: [a]}").metadata) == {
        "author": "Ada",
        "tags": ["a"],
    }


@pytest.mark.real_clock
async def test_the_date_and_the_environment_are_in_the_instructions(tmp_path: Path) -> None:
    model = ScriptedModel("Hi.")
    await team_of("add_date: true, add_environment_info: true", models=model, folder=tmp_path).run("Hello!")
    assert "Today is 20" in model.requests[0].instructions
    assert f"Working folder: {tmp_path}" in model.requests[0].instructions
    assert "Git repository: no" in model.requests[0].instructions


@pytest.mark.real_clock
async def test_prompt_files_are_in_the_instructions(tmp_path: Path) -> None:
    tmp_path.joinpath("AGENTS.md").write_text("Write short lines.")
    model = ScriptedModel("Hi.")
    await team_of("add_prompt_files: [AGENTS.md]", models=model, folder=tmp_path).run("Hello!")
    assert "Write short lines." in model.requests[0].instructions


def test_a_copy_of_a_team_keeps_what_the_file_says() -> None:
    team = team_of("welcome_message: Hello!").replace(description="new")
    assert (team.welcome_message, team.description) == ("Hello!", "new")


def test_prices_of_the_file_count_by_the_name_of_the_model() -> None:
    cost = "{input: 1, output: 2, cache_read: 0.5}"
    text = f"agents: {{root: {{model: m}}}}\nmodels: {{m: {{provider: openai, model: x, cost: {cost}}}}}\n"
    assert dict(load_team(text).agents[0].prices) == {"openai:x": Price(1, 2, 0.5)}


def test_the_sub_agents_of_an_agent_may_run_in_the_background() -> None:
    text = """
        agents:
          root: {model: openai/x, sub_agents: [helper], toolsets: [{type: background_agents}]}
          helper: {model: openai/x, description: Helps., toolsets: [{type: background_agents}]}
    """
    team = load_team(dedent(text))
    root, helper = team.all_agents["root"], team.all_agents["helper"]
    assert [toolset.name for toolset in root.toolsets] == ["background"]
    assert [agent.name for agent in root.toolsets[0].agents] == ["helper"]  # type: ignore[attr-defined]
    assert not helper.toolsets
    assert [one.reason for one in team.unsupported] == ["There are no `sub_agents` that `background_agents` could run."]


def test_an_agent_may_keep_secrets_from_its_model_and_read_few_messages() -> None:
    team = team_of("redact_secrets: true, num_history_items: 5")
    assert team.redact is not None
    assert [hook.name for hook in team.hooks] == ["recent_messages"]
    assert team.unsupported == ()
    assert team_of("redact_secrets: false").redact is None
