"""The table of the format: each field of docker-agent's files, its form, and whether it is obeyed here.

The check of a file, the JSON Schema and the page of the documentation are made of this table. It holds the fields of
all versions of the format, from 1 on: a field that a version has given up is still read.
"""

from __future__ import annotations

from agentloop.declarative._forms import (
    ByType,
    Duration,
    Field,
    Flag,
    Form,
    Json,
    ListOf,
    MapOf,
    Number,
    OneOf,
    Record,
    Ref,
    Text,
)
from agentloop.declarative._harness import HARNESSES

__all__ = ["HOOK_POINTS", "LATEST", "TABLE", "TOOLSETS", "TOOL_POINTS"]

LATEST = 16
"""The latest version of the format that the table has."""

TEXT, FLAG, TEXTS, JSON = Text(), Flag(), ListOf(Text()), Json()
COUNT, SIGNED = Number(0, is_whole=True), Number(-1, is_whole=True)
TEXT_OR_TEXTS = OneOf((TEXT, TEXTS))
FIELDS_OF_TEXT = MapOf(TEXT)
SKILLS = OneOf((FLAG, ListOf(OneOf((TEXT, Ref("inline skill"))))))
_COMMANDS = MapOf(OneOf((TEXT, Ref("command"))))
COMMANDS = OneOf((_COMMANDS, ListOf(_COMMANDS)))


def _obeyed(name: str, form: Form, says: str, *, required: bool = False) -> Field:
    return Field(name, form, "obeyed", says, is_required=required)


def _partly(name: str, form: Form, says: str, note: str, *, required: bool = False) -> Field:
    return Field(name, form, "partly", says, note, is_required=required)


def _named(name: str, form: Form, says: str, note: str, *, required: bool = False) -> Field:
    return Field(name, form, "named", says, note, is_required=required)


# ------------------------------------------------------------------------------------------ the top

_TOP = Record(
    "file",
    "the file",
    (
        _obeyed("version", TEXT, "The version of the format, 1 to 16. The fields of all versions are read in each."),
        _obeyed("agents", MapOf(Ref("agent"), is_never_empty=True), "The agents by name.", required=True),
        _obeyed("models", MapOf(Ref("model")), "Models by name."),
        _obeyed("providers", MapOf(Ref("provider")), "Providers by name, with defaults for their models."),
        _obeyed("permissions", Ref("permissions"), "Rules about tool calls, for all agents."),
        _obeyed("toolsets", MapOf(JSON), "Toolsets by name, for `use_toolsets`."),
        _obeyed("mcps", MapOf(Ref("mcp group")), "MCP servers by name, for `ref`."),
        _obeyed("rag", MapOf(Ref("rag group")), "Folders of documents by name, for `ref`."),
        _obeyed("commands", MapOf(COMMANDS), "Groups of commands by name, for `use_commands`."),
        _obeyed("skills", MapOf(SKILLS), "Groups of skills by name, for `use_skills`."),
        _obeyed("budget", Ref("budget"), "What one run may use, with all runs inside it."),
        _obeyed("budgets", MapOf(Ref("budget")), "Budgets by name."),
        _obeyed("runtime", Ref("runtime"), "Defaults for runs."),
        _obeyed("metadata", Ref("metadata"), "Notes about the file, kept as `team.metadata`."),
        _named(
            "flavors",
            MapOf(OneOf((JSON,))),
            "Named changes of the file.",
            "No flavor is applied: the file is read as it stands.",
        ),
        _named(
            "evaluators",
            MapOf(Ref("evaluator")),
            "Assessments of calls by a provider.",
            "No evaluator is asked: hooks that name one ask a person instead.",
        ),
        _named(
            "env",
            FIELDS_OF_TEXT,
            "Version 1: variables.",
            "These variables are not set: give them with env= of load_team, or in the environment.",
        ),
        _named(
            "workflow", ListOf(JSON), "Versions 1 and 2: steps.", "No workflow is run: the first agent gets the prompt."
        ),
    ),
)

_METADATA = Record(
    "metadata",
    "metadata",
    (
        _obeyed("author", TEXT, "The author."),
        _obeyed("license", TEXT, "The license."),
        _obeyed("readme", TEXT, "A text about it."),
        _obeyed("description", TEXT, "A short text about it."),
        _obeyed("version", TEXT, "The version of the file."),
        _obeyed("tags", TEXTS, "Words to find it by."),
    ),
)

_SAFETY = Text(("strict", "balanced", "restricted", "autonomous"))

_RUNTIME = Record(
    "runtime",
    "runtime",
    (
        _obeyed("safety", _SAFETY, "The mode of agents that have no `safety` of their own."),
        _named(
            "sandbox",
            FLAG,
            "Run in a Docker sandbox.",
            "No Docker sandbox is started, so `safety: autonomous` is not obeyed: each tool decides whether it asks.",
        ),
        _named(
            "network_allowlist",
            TEXTS,
            "Hosts that the sandbox may reach.",
            "There is no Docker sandbox whose network it could open.",
        ),
    ),
)

_BUDGET = Record(
    "budget",
    "a budget",
    (
        _obeyed("max_cost", Number(0), "US dollars; 0 for no limit."),
        _obeyed("max_tokens", COUNT, "Tokens in and out; 0 for no limit."),
        _obeyed("max_time", Duration(), "Time from start to end, without the time that people take to answer."),
    ),
)

_PERMISSIONS = Record(
    "permissions",
    "permissions",
    (
        _partly(
            "allow",
            TEXTS,
            "Calls that need no approval.",
            "A wildcard for an argument matches no character that a shell interprets, and `ask` comes before `allow`.",
        ),
        _partly("ask", TEXTS, "Calls that need an approval.", "These rules count in every mode."),
        _obeyed("deny", TEXTS, "Calls that never run."),
    ),
)

# ------------------------------------------------------------------------------------------ agents

_AGENT = Record(
    "agent",
    "an agent",
    (
        _obeyed("model", TEXT, "A name of `models`, `provider/model`, several with commas between them, or `auto`."),
        _obeyed("description", TEXT, "What the agent is for, for the models of other agents."),
        _obeyed("instruction", TEXT_OR_TEXTS, "The system prompt."),
        _obeyed("instruction_file", TEXT_OR_TEXTS, "Files with the system prompt, in the folder of the file or below."),
        _obeyed("welcome_message", TEXT, "A text to show first, kept as `team.welcome_message`."),
        _obeyed("toolsets", ListOf(JSON), "The tools."),
        _obeyed("use_toolsets", TEXTS, "Names of `toolsets`."),
        _partly(
            "sub_agents",
            TEXTS,
            "Agents that it may give a task to, with `transfer_task`.",
            "An agent calls none of the agents that it runs inside of.",
        ),
        _obeyed("handoffs", TEXTS, "Agents that it may hand the conversation to."),
        _obeyed("force_handoff", TEXT, "The agent that gets the conversation when this one has answered."),
        _obeyed("rag", TEXTS, "Names of `rag`."),
        _obeyed("skills", SKILLS, "Skills: `true` for those of the usual folders, or a list of names."),
        _obeyed("use_skills", TEXTS, "Names of `skills`."),
        _obeyed("commands", COMMANDS, "Named prompts, see `agentloop.commands`."),
        _obeyed("use_commands", TEXTS, "Names of `commands`."),
        _obeyed("structured_output", Ref("structured output"), "The JSON that the agent answers with."),
        _obeyed("fallback", Ref("fallback"), "Models to ask if the agent's own fails."),
        _obeyed("hooks", Ref("hooks"), "Programs that are run at points of a run."),
        _obeyed("safety", _SAFETY, "How calls are decided that no rule is about."),
        _obeyed("readonly", FLAG, "Offer only the tools that change nothing."),
        _partly(
            "max_iterations",
            COUNT,
            "Turns of a run; 0 for no limit.",
            "Without it, a run has 50 turns and then asks whether to continue.",
        ),
        _obeyed(
            "max_consecutive_tool_calls",
            COUNT,
            "Turns in a row with the same calls, after which the run ends; 0 for 5.",
        ),
        _partly(
            "budgets",
            TEXTS,
            "Names of `budgets`.",
            "Each run of the agent has the whole budget, as several runs do not share one.",
        ),
        _partly(
            "max_tool_result_tokens",
            SIGNED,
            "Tokens of a tool's result; 0 or -1 for the default.",
            "The model gets a tool to read the rest.",
        ),
        _obeyed("session_compaction", FLAG, "Whether long conversations are shortened."),
        _obeyed(
            "compaction_threshold", Number(0, 1, is_open=True), "The part of the model's window at which they are."
        ),
        _obeyed("compaction_model", TEXT, "The model that sums them up."),
        _obeyed("add_date", FLAG, "Add the date to the instructions."),
        _obeyed("add_environment_info", FLAG, "Add the folder and the system to the instructions."),
        _obeyed("add_prompt_files", TEXTS, "Add files of these names, from the folder upwards, to the instructions."),
        _partly("name", TEXT, "Version 1: a name.", "The agent is called as its key says."),
        _named(
            "enable_bang_commands",
            FLAG,
            "Version 2: run what begins with `!`.",
            "A prompt that begins with `!` is a prompt as any other.",
        ),
        _named(
            "add_prompt_files_depth",
            COUNT,
            "List such files below the folder.",
            "No files below the working folder are listed.",
        ),
        _obeyed("num_history_items", COUNT, "How many messages the model reads at most, from 2 on."),
        _named(
            "max_old_tool_call_tokens",
            SIGNED,
            "Tokens of older tool calls.",
            "Old results are left out by compaction, when the window fills.",
        ),
        _obeyed("redact_secrets", FLAG, "Keep secrets from the model: `Agent(redact=True)`."),
        _named(
            "cache",
            Ref("cache"),
            "Answer a repeated question from a file.",
            "No answer comes from a cache: the model is asked each time.",
        ),
        _named(
            "code_mode_tools",
            FLAG,
            "Let the model write code that calls tools.",
            "The model calls the tools one by one.",
        ),
        _named(
            "add_description_parameter",
            FLAG,
            "Ask the model for the reason of each call.",
            "The tools get no further parameter.",
        ),
        _named(
            "routing",
            Ref("agent routing"),
            "Agents that hooks may route to.",
            "No hook routes the conversation: use handoffs.",
        ),
        _named("inject_memories", FLAG, "Add memories to each turn.", "The model searches its memories itself."),
        _named("max_inject_memories", COUNT, "How many memories.", "The model searches its memories itself."),
        _named("inject_memories_strategy", TEXT, "Which memories.", "The model searches its memories itself."),
        _partly(
            "harness",
            Ref("harness"),
            "The agent is another program.",
            "The program is started as one that speaks ACP (see [external agents](external-agents.md)). It has its own "
            "model and tools.",
        ),
    ),
)

_HARNESS = Record(
    "harness",
    "a harness",
    (
        _obeyed("type", Text(tuple(HARNESSES)), "The program.", required=True),
        _obeyed("model", TEXT, "Its model, by the program's name for it."),
        _obeyed("env", FIELDS_OF_TEXT, "Environment variables to set."),
        _obeyed("working_dir", TEXT, "The folder that it works in."),
        *(
            _named(name, Json(is_mapping=False), "An option of it.", "The program decides about it itself.")
            for name in ("effort", "agent", "thinking", "command", "args", "timeout", "config", "permission_policy")
        ),
    ),
)

_CACHE = Record(
    "cache",
    "a cache",
    (
        _obeyed("enabled", FLAG, "Whether it is used."),
        _obeyed("case_sensitive", FLAG, "Whether capitals count."),
        _obeyed("trim_spaces", FLAG, "Whether white space counts."),
        _obeyed("path", TEXT, "Its file."),
    ),
)

_ROUTING_OF_AGENT = Record(
    "agent routing",
    "routing",
    (
        _obeyed("allowed_agents", TEXTS, "The agents.", required=True),
        _obeyed("default_agent", TEXT, "The agent in doubt."),
    ),
)

_FALLBACK = Record(
    "fallback",
    "a fallback",
    (
        _obeyed("models", TEXTS, "The models, in order."),
        _obeyed("retries", SIGNED, "Further requests to a model; 0 for 2, -1 for none."),
        _obeyed("cooldown", Duration(), "Time for which a model that has failed is left alone."),
        _named(
            "no_fallback_status_codes",
            ListOf(Number(400, 599, is_whole=True)),
            "Errors after which no other model is asked.",
            "The kind of the error decides whether another model is asked.",
        ),
    ),
)

_STRUCTURED_OUTPUT = Record(
    "structured output",
    "a structured output",
    (
        _obeyed("name", TEXT, "The name of the schema.", required=True),
        _obeyed("schema", JSON, "The JSON Schema, of an object.", required=True),
        _obeyed("description", TEXT, "What the answer is."),
        _partly(
            "strict",
            FLAG,
            "Use the provider's strict mode.",
            "The provider's adapter decides about strict schemas; the answer is checked in any case.",
        ),
        _partly(
            "mode",
            Text(("native", "tool")),
            "How the provider is asked.",
            "The provider's adapter decides; the answer is checked in any case.",
        ),
    ),
)

_COMMAND = Record(
    "command",
    "a command",
    (
        _obeyed("description", TEXT, "What it is for."),
        _obeyed("instruction", TEXT, "The prompt."),
        _named("agent", TEXT, "The agent that gets the prompt.", "The agent that has the conversation gets it."),
        _named("url", TEXT, "A page to open.", "No page is opened; a command without an instruction is left out."),
    ),
)

_SKILL = Record(
    "inline skill",
    "a skill",
    (
        _obeyed("name", TEXT, "Its name.", required=True),
        _obeyed("description", TEXT, "When to use it.", required=True),
        _obeyed("instructions", TEXT, "Its text.", required=True),
        _obeyed("context", Text(("fork",)), "Run it as an agent of its own."),
        _obeyed("model", TEXT, "The model of that agent."),
        _obeyed("allowed_tools", TEXTS, "Its tools."),
        _obeyed("toolsets", TEXTS, "More tools for it."),
    ),
    note="A skill that is written in the file is not offered: put it into a folder, with a SKILL.md.",
)

# ------------------------------------------------------------------------------------------ models

_SAMPLING = (
    _obeyed("temperature", Number(0, 2), "Randomness."),
    _obeyed("max_tokens", COUNT, "Tokens of one response."),
    _obeyed("top_p", Number(0, 1), "Nucleus sampling."),
    _obeyed("frequency_penalty", Number(-2, 2), "Sent as it is."),
    _obeyed("presence_penalty", Number(-2, 2), "Sent as it is."),
    _obeyed("parallel_tool_calls", FLAG, "Whether one response may have several calls."),
    _partly(
        "thinking_budget",
        OneOf((Number(-1, is_whole=True), TEXT)),
        "How much the model thinks: an effort, or tokens.",
        "Tokens become the nearest effort: up to 4096 low, up to 16384 medium, more high.",
    ),
    _partly(
        "provider_opts",
        JSON,
        "Options of the provider.",
        "`seed`, `top_k`, `min_p`, `repetition_penalty`, `service_tier`, `extra_body` and `http_headers` are sent; "
        "other options are named.",
    ),
    _obeyed("base_url", TEXT, "The URL of the API."),
    _obeyed("token_key", TEXT, "The environment variable with the key."),
    _obeyed("headers", FIELDS_OF_TEXT, "Headers of each request."),
    _obeyed("compaction_model", TEXT, "The model that sums up long conversations."),
    _partly("track_usage", FLAG, "Whether usage is counted.", "Usage is always counted."),
    _named(
        "task_budget",
        OneOf((COUNT, Ref("task budget"))),
        "Tokens of a task, for Anthropic.",
        "No task budget is sent: use a budget.",
    ),
    _named("auth", Ref("auth"), "Sign in without a key.", "There is no such sign-in: give a key by `token_key`."),
    _named("unload_api", TEXT, "A URL that unloads the model.", "No model is unloaded."),
)

_PROVIDER = Record(
    "provider",
    "a provider",
    (
        _obeyed("provider", TEXT, "The kind of provider; `openai` if it is not given."),
        _obeyed(
            "api_type",
            Text(("openai_chatcompletions", "openai_responses")),
            "The API of an OpenAI-compatible provider.",
        ),
        *_SAMPLING,
    ),
)

_MODEL = Record(
    "model",
    "a model",
    (
        _obeyed("provider", TEXT, "The provider."),
        _obeyed("model", TEXT, "The provider's name for the model."),
        _obeyed("description", TEXT, "What the model is good for."),
        *_SAMPLING,
        _obeyed("cost", Ref("cost"), "Prices of a million tokens, in US dollars."),
        _obeyed("first_available", ListOf(TEXT, is_never_empty=True), "The first of these models whose key is set."),
        _obeyed("routing", ListOf(Ref("routing rule")), "Other models for prompts that resemble their examples."),
        _obeyed("compaction_threshold", Number(0, 1, is_open=True), "As for an agent, and before it."),
        _partly("bypass_models_gateway", FLAG, "Use no gateway.", "No gateway is used in any case."),
        _obeyed("capabilities", Ref("capabilities"), "What the model can read."),
        _named(
            "output_capabilities",
            Ref("output capabilities"),
            "What the model can make.",
            "Only text is asked of a model.",
        ),
        _named("title_model", TEXT, "The model that gives sessions a title.", "Sessions get no titles."),
    ),
)

_COST = Record(
    "cost",
    "a cost",
    tuple(
        _obeyed(name, Number(0, 1e12), says)
        for name, says in (
            ("input", "Input tokens."),
            ("output", "Output tokens."),
            ("cache_read", "Input tokens from the cache."),
            ("cache_write", "Input tokens into the cache."),
        )
    ),
)

_CAPABILITIES = Record(
    "capabilities",
    "capabilities",
    (
        _partly("image", FLAG, "Whether it reads images.", "A model that reads one of images and documents gets both."),
        _partly(
            "pdf", FLAG, "Whether it reads documents.", "A model that reads one of images and documents gets both."
        ),
        _named("audio", FLAG, "Whether it hears.", "No sound is sent to a model."),
        _named("video", FLAG, "Whether it sees films.", "No film is sent to a model."),
    ),
)

_OUTPUT_CAPABILITIES = Record(
    "output capabilities", "output capabilities", (_obeyed("image", FLAG, "Whether it makes images."),)
)

_ROUTING_RULE = Record(
    "routing rule",
    "a rule",
    (
        _obeyed("model", TEXT, "The model.", required=True),
        _partly(
            "examples",
            TEXTS,
            "Prompts that it is for.",
            "The prompt goes to the rule with which it has most words in common.",
            required=True,
        ),
    ),
)

_TASK_BUDGET = Record(
    "task budget",
    "a task budget",
    (_obeyed("type", Text(("tokens",)), "The unit."), _obeyed("total", COUNT, "How many.", required=True)),
)

_AUTH = Record(
    "auth",
    "a sign-in",
    (_obeyed("type", TEXT, "The kind.", required=True), _obeyed("workload_identity_federation", JSON, "Its options.")),
)

_EVALUATOR = Record(
    "evaluator",
    "an evaluator",
    (
        _obeyed("model", TEXT, "The model.", required=True),
        _obeyed("type", Text(("boolean", "choice", "score")), "The kind of answer.", required=True),
        _obeyed("instructions", TEXT, "The question.", required=True),
        *(
            _obeyed(name, Json(is_mapping=False), "An option.")
            for name in (
                "provider",
                "base_url",
                "endpoint",
                "token_key",
                "bypass_models_gateway",
                "choices",
                "levels",
                "timeout",
                "cost",
            )
        ),
    ),
)

# ------------------------------------------------------------------------------------------ hooks

TOOL_POINTS = (
    "pre_tool_use",
    "post_tool_use",
    "permission_request",
    "tool_response_transform",
    "tool_input_transform",
    "tool_guard",
)
"""The points around a tool call, whose hooks stand in groups with a matcher."""

_OWN = "The point of the same name."
_NO_POINT = "There is no such point: its hooks are not run."

HOOK_POINTS: dict[str, tuple[str, str, str]] = {
    # The name in the file: the point here, or "", what it is, and what is different.
    "session_start": ("session_start", _OWN, ""),
    "session_end": ("session_end", _OWN, ""),
    "user_prompt_submit": ("user_prompt_submit", _OWN, ""),
    "user_steering_messages_submit": ("user_steering_messages_submit", _OWN, ""),
    "user_followup_submit": ("user_followup_submit", _OWN, ""),
    "turn_start": ("turn_start", _OWN, ""),
    "turn_end": ("turn_end", _OWN, ""),
    "before_llm_call": ("before_llm_call", _OWN, ""),
    "after_llm_call": ("after_llm_call", _OWN, ""),
    "pre_tool_use": (
        "pre_tool_use",
        "Before a tool is called.",
        "They are called before the permissions decide; in docker-agent, after.",
    ),
    "tool_input_transform": ("pre_tool_use", "Before a tool is called, to change its arguments.", ""),
    "tool_guard": ("pre_tool_use", "Before a tool is called, to refuse.", ""),
    "post_tool_use": ("post_tool_use", "After a tool call.", ""),
    "tool_response_transform": ("post_tool_use", "After a tool call, to change its result.", ""),
    "permission_request": ("", "Before a person is asked.", "There is no such point: a person is asked."),
    "on_tool_approval_decision": ("on_tool_approval_decision", _OWN, ""),
    "pre_compact": ("pre_compact", _OWN, ""),
    "before_compaction": ("pre_compact", "Before a conversation is shortened.", ""),
    "after_compaction": ("post_compact", "After a conversation was shortened.", ""),
    "subagent_stop": ("subagent_stop", _OWN, ""),
    "stop": ("stop", _OWN, ""),
    "on_user_input": ("notification", "A person is asked.", ""),
    "notification": (
        "notification",
        "A person is asked.",
        "They are called when a person is asked; errors and warnings are for `on_error`.",
    ),
    "on_error": ("on_error", _OWN, ""),
    "on_max_iterations": ("on_max_iterations", "A limit is reached.", ""),
    "on_agent_switch": ("on_agent_switch", _OWN, ""),
    "on_session_resume": ("on_session_resume", "A person lets the run go on.", ""),
    "before_agent_run": ("", "An agent begins.", _NO_POINT),
    "after_agent_complete": ("", "An agent is done.", _NO_POINT),
    "worktree_create": ("", "A worktree was made.", "No worktree is made: its hooks are not run."),
    "prompt_file_guard": ("", "A prompt file is read.", "There is no such point: prompt files are read without it."),
    "skill_content_guard": ("", "A skill is read.", "There is no such point: skills are read without it."),
}
"""The points of docker-agent's hooks."""


def _point(name: str, point: str, says: str, note: str) -> Field:
    form = ListOf(Ref("hook group" if name in TOOL_POINTS else "hook"))
    if not point:
        return _named(name, form, says, note)
    return _partly(name, form, says, note) if note else _obeyed(name, form, says)


_HOOKS = Record("hooks", "hooks", tuple(_point(name, *row) for name, row in HOOK_POINTS.items()))

_HOOK_GROUP = Record(
    "hook group",
    "a group of hooks",
    (
        _partly(
            "matcher",
            TEXT,
            "Names of tools, with `|` between them.",
            "`.*` stands for any name; other signs of regular expressions are refused.",
        ),
        _obeyed("hooks", ListOf(Ref("hook")), "The hooks.", required=True),
        _partly("preempt_yolo", FLAG, "Call it before rules decide.", "Hooks are always called before rules decide."),
    ),
)

_HOOK = Record(
    "hook",
    "a hook",
    (
        _partly(
            "type",
            Text(("command", "builtin", "model", "evaluator")),
            "The kind.",
            "Commands, models that decide about a call, and most of the built-in hooks are run; a guard of another "
            "kind asks a person instead.",
            required=True,
        ),
        _obeyed("command", TEXT, "The command line, or the name of a built-in hook."),
        _obeyed("name", TEXT, "Its name in warnings."),
        _obeyed("args", TEXTS, "Arguments of a built-in hook."),
        _obeyed("timeout", Number(0, is_open=True), "Seconds."),
        _obeyed("env", FIELDS_OF_TEXT, "Variables."),
        _obeyed("working_dir", TEXT, "The folder that it runs in."),
        _partly(
            "on_error",
            Text(("warn", "ignore", "block")),
            "What a failure does.",
            "A failure of a guard refuses, and one of another hook is a warning, whatever is given.",
        ),
        _partly(
            "strict_output",
            FLAG,
            "Refuse an output that is not JSON.",
            "An output with an unknown verdict is refused in any case.",
        ),
        _obeyed("model", TEXT, "Of a hook of type model: the model that judges, or its name."),
        _partly(
            "prompt",
            TEXT,
            "Of a hook of type model: its rules.",
            "The model reads the call as JSON in a message of its own; no template is filled in.",
        ),
        _partly(
            "schema",
            TEXT,
            "Of a hook of type model: what its answer is.",
            "`pre_tool_use_decision` is obeyed at `pre_tool_use` and `tool_guard`; no other hook of type model is run.",
        ),
        _obeyed("system_prompt", TEXT, "Of a hook of type model: more rules, before the prompt."),
        *(
            _named(name, form, "Of a hook of type evaluator.", "No hook asks an evaluator.")
            for name, form in (
                ("evaluator", TEXT),
                ("evaluator_policy", JSON),
                ("routing_policy", JSON),
            )
        ),
    ),
)

# ------------------------------------------------------------------------------------------ toolsets

_TYPE = _obeyed("type", TEXT, "The type.", required=True)
_COMMON = (
    _obeyed(
        "instruction",
        TEXT,
        "Instructions for its tools, in place of their own; `{ORIGINAL_INSTRUCTIONS}` stands for those.",
    ),
    _obeyed("tools", TEXTS, "The names of the tools to offer."),
    _obeyed("readonly", FLAG, "Offer only the tools that change nothing."),
    _named("model", TEXT, "The model that reads its results.", "The agent's model reads the results."),
    _obeyed("defer", OneOf((FLAG, TEXTS)), "Show its tools, or those of these names, only when they are searched."),
    _named("toon", TEXT, "Write results in a shorter notation.", "Results stay as they are."),
)

_NAME = _obeyed("name", TEXT, "Its name.")
_NO_PRIVATE = _named(
    "allow_private_ips", FLAG, "Reach addresses that are not public.", "An MCP server may have any address."
)
_ENV = _obeyed("env", FIELDS_OF_TEXT, "Variables of its programs.")
_ENV_FILE = _named(
    "env_file", TEXT_OR_TEXTS, "Version 1: files with variables.", "No file of variables is read: use `env`."
)

_MCP_FIELDS = (
    _obeyed("command", TEXT, "The program to start."),
    _obeyed("args", TEXTS, "Its arguments."),
    _ENV,
    _ENV_FILE,
    _obeyed("working_dir", TEXT, "The folder to start it in."),
    _obeyed("remote", Ref("remote"), "The server's URL."),
    _obeyed(
        "ref",
        TEXT,
        "A name of `mcps`; or `docker:name`, a server of Docker's catalogue, which `docker mcp gateway` runs.",
    ),
    _named(
        "config",
        Json(is_mapping=False),
        "Settings of a server of the catalogue.",
        "The gateway has settings of its own: `docker mcp config`.",
    ),
    _named("version", TEXT, "The program to install.", "Nothing is installed: the program has to be there."),
    _obeyed("lifecycle", Ref("lifecycle"), "Time limits and restarts."),
    _NO_PRIVATE,
    _NAME,
)

_RAG_FIELDS = (
    _NAME,
    _obeyed("docs", TEXTS, "Files and folders."),
    _obeyed("tool", Ref("rag tool"), "The tool's name and description."),
    _partly(
        "strategies",
        ListOf(Ref("strategy")),
        "How to search.",
        "Passages are found by their words (BM25), whatever the strategy.",
    ),
    _obeyed("results", Ref("results"), "What to return."),
    _named(
        "respect_vcs",
        FLAG,
        "Leave out what git ignores.",
        "What is usually ignored is left out, and `.gitignore` is not read.",
    ),
    _named("indexing_timeout", Duration(), "Time to index.", "The time limit of a call counts."),
)

_SCRIPT = Record(
    "script tool",
    "a tool",
    (
        _obeyed("cmd", TEXT, "The command line; arguments are environment variables in it.", required=True),
        _obeyed("description", TEXT, "What it is for."),
        _obeyed("args", MapOf(JSON), "The arguments, as JSON Schema."),
        _obeyed("required", TEXTS, "The arguments that must be given; all if it is not there."),
        _obeyed("env", FIELDS_OF_TEXT, "Variables."),
        _obeyed("working_dir", TEXT, "The folder that it runs in."),
    ),
)

_SANDBOX = Record(
    "sandbox",
    "a sandbox",
    (
        _obeyed(
            "paths",
            TEXTS,
            "Folders that a command may change; with `:ro` behind it, one that it may read.",
            required=True,
        ),
        _named(
            "image", TEXT, "The image of its container.", "A command sees the programs of this machine, by bubblewrap."
        ),
    ),
)

_POST_EDIT = Record(
    "post edit",
    "a command after edits",
    (_obeyed("path", TEXT, "Names of files.", required=True), _obeyed("cmd", TEXT, "The command line.", required=True)),
)

_DOMAINS = (
    _obeyed("allowed_domains", TEXTS, "The hosts that may be reached."),
    _obeyed("blocked_domains", TEXTS, "The hosts that may not."),
)

_FILESYSTEM = (
    _partly("allow_list", TEXTS, "The folders that may be reached.", "Without it, only the working folder may be."),
    _obeyed("deny_list", TEXTS, "The folders in them that may not."),
    _named(
        "ignore_vcs",
        FLAG,
        "Leave out what git ignores.",
        "What is usually ignored is left out, and `.gitignore` is not read.",
    ),
    _named(
        "post_edit",
        ListOf(Ref("post edit")),
        "Commands to run after an edit.",
        "No command is run after an edit: use a post_tool_use hook.",
    ),
)

_OPTIONS: dict[str, tuple[str, str, tuple[Field, ...]]] = {
    # The type: what it is, why it is not there (or ""), and its own fields.
    "shell": (
        "`shell`: run a command line.",
        "",
        (
            _ENV,
            _partly(
                "sandbox",
                Ref("sandbox"),
                "Versions 4 to 6: run commands in a sandbox.",
                "The sandbox has no network, and needs Linux with bubblewrap; without it, the file is refused.",
            ),
            _named("sudo_askpass", FLAG, "Ask for the password of sudo.", "No password is asked: sudo fails."),
            _partly(
                "safer",
                FLAG,
                "Ask before commands that destroy.",
                "Each command needs an approval unless a rule or the mode says otherwise.",
            ),
            _named("safer_judge_model", TEXT, "A model that judges commands.", "No model judges commands."),
        ),
    ),
    "filesystem": ("`read_file`, `write_file` and others.", "", _FILESYSTEM),
    "file": ("As `filesystem`.", "", _FILESYSTEM),
    "fetch": (
        "`fetch`: get pages.",
        "",
        (
            _obeyed("timeout", Number(0, is_open=True), "Seconds."),
            *_DOMAINS,
            _obeyed("allow_private_ips", FLAG, "Reach addresses that are not public."),
            _named("headers", FIELDS_OF_TEXT, "Headers of each request.", "No further headers are sent."),
            _named("escape_html", FLAG, "Escape HTML in results.", "Results are plain text."),
        ),
    ),
    "mcp": ("The tools of an MCP server.", "", _MCP_FIELDS),
    "script": (
        "Tools that are command lines.",
        "",
        (_obeyed("shell", MapOf(Ref("script tool")), "The tools by name.", required=True), _ENV),
    ),
    "commands": ("The commands of the agent, as tools.", "The model cannot call the commands of the file.", ()),
    "think": (
        "`think`: write a thought down.",
        "",
        (_partly("shared", FLAG, "Share it.", "A thought is in the transcript, and nowhere else."),),
    ),
    "todo": (
        "`create_todos`, `update_todos`, `list_todos`.",
        "",
        (_obeyed("shared", FLAG, "One list for all agents."),),
    ),
    "plan": ("`write_plan`, `read_plan`.", "", ()),
    "session_plan": ("As `plan`.", "", ()),
    "memory": (
        "`add_memory`, `search_memories` and others.",
        "",
        (_obeyed("path", TEXT, "The file, an SQLite database."),),
    ),
    "user_prompt": ("`user_prompt`: ask the user.", "", ()),
    "rag": (
        "A tool that searches documents.",
        "",
        (
            _obeyed("ref", TEXT, "A name of `rag`."),
            _obeyed("rag_config", Ref("rag source"), "What to search."),
            *_RAG_FIELDS,
        ),
    ),
    "background_jobs": (
        "Commands in the background.",
        "Commands do not run in the background: a call of `shell` ends with all it started.",
        (
            _ENV,
            _obeyed("recall", FLAG, "Tell the model when one ends."),
            _obeyed("sudo_askpass", FLAG, "Ask for a password."),
        ),
    ),
    "background_agents": (
        "`run_background_agent` and others, for the `sub_agents`.",
        "",
        (),
    ),
    "tasks": ("Tasks in a file.", "There are no tasks in a file: use `todo`.", (_obeyed("path", TEXT, "The file."),)),
    "session_context": ("Parts of the session.", "The model cannot look into other sessions.", ()),
    "mcp_catalog": (
        "Servers of a catalogue.",
        "No catalogue is searched: name each server with `type: mcp`.",
        (_obeyed("allowed_servers", TEXTS, "The servers."), _obeyed("blocked_servers", TEXTS, "Other servers.")),
    ),
    "api": (
        "A request to an API.",
        "No tool is made of a request: use `script` with curl, or an MCP server.",
        (
            _obeyed("api_config", Ref("api"), "The request.", required=True),
            _obeyed("timeout", COUNT, "Seconds."),
            _obeyed("allow_private_ips", FLAG, "Any address."),
            _obeyed("headers", FIELDS_OF_TEXT, "Headers."),
        ),
    ),
    "openapi": (
        "The operations of an API.",
        "No tools are made of an OpenAPI document: use an MCP server.",
        (
            _obeyed("url", TEXT, "The document.", required=True),
            _obeyed("headers", FIELDS_OF_TEXT, "Headers."),
            _obeyed("timeout", COUNT, "Seconds."),
            _obeyed("max_output_bytes", COUNT, "Bytes."),
            _obeyed("allow_private_ips", FLAG, "Any address."),
        ),
    ),
    "a2a": (
        "An agent of another server.",
        "No agent of another server is called.",
        (
            _obeyed("url", TEXT, "The server.", required=True),
            _obeyed("headers", FIELDS_OF_TEXT, "Headers."),
            _obeyed("allow_private_ips", FLAG, "Any address."),
            _obeyed("remote", JSON, "Headers."),
            _NAME,
        ),
    ),
    "lsp": (
        "A language server.",
        "No language server is started.",
        (
            _obeyed("command", TEXT, "The program.", required=True),
            _obeyed("args", TEXTS, "Its arguments."),
            _ENV,
            _obeyed("file_types", TEXTS, "Endings of files."),
            _obeyed("version", TEXT, "The program to install."),
            _obeyed("working_dir", TEXT, "The folder."),
            _obeyed("lifecycle", JSON, "Restarts."),
        ),
    ),
    "open_url": ("Open a page for the user.", "No page is opened.", (_obeyed("url", TEXT, "The page."),)),
    "model_picker": (
        "Let the model choose a model.",
        "The model cannot choose another model.",
        (_obeyed("models", TEXTS, "The models.", required=True),),
    ),
    "scheduler": ("Run later.", "Nothing is scheduled.", ()),
    "git": ("Tools for git.", "There are no tools for git: use `shell`, or an MCP server.", ()),
    "webhook": (
        "Send a message.",
        "No message is sent.",
        (_obeyed("webhook_config", JSON, "Where to.", required=True), _obeyed("timeout", COUNT, "Seconds.")),
    ),
    "environment": ("The environment.", "The model cannot read the environment.", ()),
}

TOOLSETS = {name: note for name, (_, note, _) in _OPTIONS.items()}
"""The types of toolsets, each with the reason why it is not there, or an empty text."""


def _toolset(name: str, note: str, own: tuple[Field, ...]) -> Record:
    taken = {field.name for field in own}
    common = tuple(field for field in _COMMON if field.name not in taken)
    return Record(f"toolset.{name}", f"a toolset of type {name}", (_TYPE, *own, *common), note)


def _without_type(name: str, title: str, own: tuple[Field, ...]) -> Record:
    taken = {field.name for field in own}
    more = (_obeyed("type", TEXT, "The type, which may be left out."), *_COMMON)
    return Record(name, title, (*own, *(field for field in more if field.name not in taken)))


_REMOTE = Record(
    "remote",
    "a remote server",
    (
        _obeyed("url", TEXT, "Its URL.", required=True),
        _partly(
            "transport_type",
            TEXT,
            "How it speaks.",
            "Only streamable HTTP is spoken; a server with SSE alone does not answer.",
        ),
        _obeyed("headers", FIELDS_OF_TEXT, "Headers of each request."),
        _named(
            "oauth",
            Ref("oauth"),
            "How to sign in.",
            "The server's own way to sign in is used, without these settings: make the server in Python to give any.",
        ),
    ),
)

_OAUTH = Record(
    "oauth",
    "a sign-in",
    tuple(
        _obeyed(name, form, "A setting.")
        for name, form in (
            ("clientId", TEXT),
            ("clientSecret", TEXT),
            ("callbackPort", COUNT),
            ("scopes", TEXTS),
            ("callbackRedirectURL", TEXT),
        )
    ),
)

_LIFECYCLE = Record(
    "lifecycle",
    "a lifecycle",
    (
        _obeyed(
            "profile",
            Text(("resilient", "strict", "best-effort")),
            "How strict it is: `best-effort` lets the run go on without the server.",
        ),
        _obeyed("required", FLAG, "Whether the run fails without it."),
        _obeyed("startup_timeout", Duration(), "Time to start."),
        _obeyed("call_timeout", Duration(), "Time of a call."),
        _partly(
            "restart",
            Text(("never", "on_failure", "always")),
            "When to restart it.",
            "It is restarted by the next call after it has ended.",
        ),
        _obeyed("max_restarts", SIGNED, "Restarts within five minutes; 0 for the default, -1 for no limit."),
        _named(
            "backoff",
            Ref("backoff"),
            "Pauses between restarts.",
            "The pause before a restart doubles each time, from 0.25 to 10 seconds.",
        ),
    ),
)

_BACKOFF = Record(
    "backoff",
    "pauses",
    (
        _obeyed("initial", Duration(), "The first."),
        _obeyed("max", Duration(), "The longest."),
        _obeyed("multiplier", Number(0), "How it grows."),
        _obeyed("jitter", Number(0, 1), "A random part."),
    ),
)

_RAG_TOOL = Record(
    "rag tool",
    "a tool",
    (
        _obeyed("name", TEXT, "Its name."),
        _obeyed("description", TEXT, "What it is for."),
        _obeyed("instruction", TEXT, "How to use it."),
    ),
)

_WORDS_ALONE = "Passages are found by their words alone."
_OWN_PASSAGES = "Passages are cut in one way."

_STRATEGY = Record(
    "strategy",
    "a strategy",
    (
        _partly(
            "type",
            Text(("bm25", "chunked-embeddings", "semantic-embeddings")),
            "The strategy.",
            _WORDS_ALONE,
            required=True,
        ),
        _obeyed("docs", TEXTS, "More files and folders."),
        _partly(
            "database",
            TEXT,
            "The file of the index.",
            "The file of a bm25 strategy is used; without one, the index is in memory.",
        ),
        *(
            _named(name, Json(is_mapping=False), "Of embeddings.", _WORDS_ALONE)
            for name in (
                "embedding_model",
                "similarity_metric",
                "vector_dimensions",
                "embedding_batch_size",
                "max_embedding_concurrency",
                "chat_model",
                "semantic_prompt",
                "ast_context",
            )
        ),
        *(
            _named(name, Number(0), "Of BM25.", "BM25 has its usual constants, and returns the best passages.")
            for name in ("k1", "b", "threshold")
        ),
        _named("limit", COUNT, "Passages.", "The model says how many passages it wants."),
        _named("chunking", JSON, "How passages are cut.", _OWN_PASSAGES),
        _named("max_indexing_concurrency", COUNT, "Files at once.", "Files are indexed one after the other."),
        _named(
            "respect_vcs",
            FLAG,
            "Leave out what git ignores.",
            "What is usually ignored is left out, and `.gitignore` is not read.",
        ),
    ),
)

_RESULTS = Record(
    "results",
    "results",
    (
        _named("limit", COUNT, "Passages.", "The model says how many passages it wants."),
        _named("fusion", JSON, "How rankings are merged.", "There is one ranking."),
        _named("reranking", JSON, "A model that ranks again.", "No model ranks the passages again."),
        _named("deduplicate", FLAG, "Leave out repetitions.", "There is one ranking, without repetitions."),
        _named("include_score", FLAG, "Show scores.", "Passages come without scores."),
        _named(
            "return_full_content",
            FLAG,
            "Return whole files.",
            "Passages are returned; the model reads a file with `read_file`.",
        ),
        _named("prefetch", JSON, "Search ahead.", "Nothing is searched ahead."),
        _named("query_cache", JSON, "Keep results.", "Each query is searched anew."),
    ),
)

_API = Record(
    "api",
    "a request",
    (
        _obeyed("name", TEXT, "The tool's name.", required=True),
        _obeyed("endpoint", TEXT, "The URL.", required=True),
        _obeyed("method", Text(("GET", "POST", "PUT", "PATCH", "DELETE")), "The method.", required=True),
        _obeyed("instruction", TEXT, "How to use it."),
        _obeyed("headers", FIELDS_OF_TEXT, "Headers."),
        _obeyed("args", JSON, "Arguments."),
        _obeyed("required", TEXTS, "Arguments that must be given."),
        _obeyed("output_schema", JSON, "The answer."),
    ),
)

_TYPES = tuple(_OPTIONS)
_ANY_TOOLSET = ByType("toolset", _TYPES)


def _with_toolsets(record: Record) -> Record:
    """The agent's record, once the types of toolsets are known."""
    fields = tuple(
        Field(field.name, ListOf(_ANY_TOOLSET), field.does, field.says) if field.name == "toolsets" else field
        for field in record.fields
    )
    return Record(record.name, record.title, fields)


def _with_groups(record: Record) -> Record:
    fields = tuple(
        Field(field.name, MapOf(_ANY_TOOLSET), field.does, field.says) if field.name == "toolsets" else field
        for field in record.fields
    )
    return Record(record.name, record.title, fields)


TABLE: dict[str, Record] = {
    record.name: record
    for record in (
        _with_groups(_TOP),
        _with_toolsets(_AGENT),
        _MODEL,
        _PROVIDER,
        _PERMISSIONS,
        _BUDGET,
        _RUNTIME,
        _METADATA,
        _FALLBACK,
        _STRUCTURED_OUTPUT,
        _COMMAND,
        _SKILL,
        _HOOKS,
        _HOOK_GROUP,
        _HOOK,
        *(_toolset(name, note, own) for name, (_, note, own) in _OPTIONS.items()),
        _without_type("mcp group", "an MCP server", _MCP_FIELDS),
        _without_type("rag group", "a source of documents", _RAG_FIELDS),
        Record("rag source", "a source of documents", _RAG_FIELDS),
        _REMOTE,
        _OAUTH,
        _LIFECYCLE,
        _BACKOFF,
        _SCRIPT,
        _POST_EDIT,
        _RAG_TOOL,
        _STRATEGY,
        _RESULTS,
        _SANDBOX,
        _API,
        _COST,
        _CAPABILITIES,
        _OUTPUT_CAPABILITIES,
        _ROUTING_RULE,
        _TASK_BUDGET,
        _AUTH,
        _CACHE,
        _HARNESS,
        _ROUTING_OF_AGENT,
        _EVALUATOR,
    )
}
"""The records by name; ``file`` is the whole file."""
