"""Files made of the table: an example of each field, in a file that has nothing else that it does not need."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

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
from agentloop.declarative._table import TABLE, TOOLSETS

__all__ = ["DOCS", "every_field", "is_idle", "text_of"]

DOCS = "notes.md"
"""A file that is to be in the folder of the team."""

MODEL = "openai/gpt-5"

AGENT: dict[str, Any] = {"model": MODEL}
HOOK: dict[str, Any] = {"type": "command", "command": "true"}

VALUES: dict[tuple[str, str], Any] = {
    ("harness", "working_dir"): ".",
    ("file", "version"): "16",
    ("file", "agents"): {"root": AGENT, "other": AGENT},
    ("file", "toolsets"): {"t": {"type": "think"}},
    ("file", "mcps"): {"s": {"command": "server"}},
    ("file", "rag"): {"r": {"docs": [DOCS]}},
    ("file", "models"): {"m": {"provider": "openai", "model": "x"}},
    ("file", "providers"): {"p": {"base_url": "https://x.example/v1"}},
    ("agent", "model"): MODEL,
    ("agent", "instruction_file"): DOCS,
    ("agent", "toolsets"): [{"type": "think"}],
    ("agent", "use_toolsets"): ["t"],
    ("agent", "sub_agents"): ["other"],
    ("agent", "handoffs"): ["other"],
    ("agent", "force_handoff"): "other",
    ("agent", "rag"): ["r"],
    ("agent", "use_skills"): ["k"],
    ("agent", "use_commands"): ["c"],
    ("agent", "commands"): {"x": "X"},
    ("agent", "compaction_model"): MODEL,
    ("agent", "budgets"): ["b"],
    ("agent", "add_prompt_files"): ["AGENTS.md"],
    ("agent", "fallback"): {"models": [MODEL]},
    ("fallback", "models"): [MODEL],
    ("fallback", "no_fallback_status_codes"): [500],
    ("structured output", "schema"): {"type": "object", "properties": {}},
    ("model", "provider"): "openai",
    ("model", "first_available"): [MODEL],
    ("model", "routing"): [{"model": MODEL, "examples": ["Fix it"]}],
    ("model", "thinking_budget"): "low",
    ("provider", "thinking_budget"): "low",
    ("model", "base_url"): "https://x.example/v1",
    ("provider", "base_url"): "https://x.example/v1",
    ("provider", "provider"): "openai",
    ("model", "compaction_model"): MODEL,
    ("provider", "compaction_model"): MODEL,
    ("routing rule", "model"): MODEL,
    ("permissions", "allow"): ["shell:cmd=ls*"],
    ("permissions", "ask"): ["shell"],
    ("permissions", "deny"): ["shell"],
    ("model", "token_key"): "MY_KEY",
    ("provider", "token_key"): "MY_KEY",
    ("hook", "type"): "command",
    ("hook", "model"): MODEL,
    ("hook", "schema"): "pre_tool_use_decision",
    ("hook", "args"): ["AGENTS.md"],
    ("hook", "working_dir"): ".",
    ("hook group", "matcher"): "shell|edit_.*",
    ("toolset.mcp", "ref"): "docker:duckduckgo",
    ("toolset.mcp", "remote"): {"url": "https://x.example/mcp"},
    ("toolset.mcp", "working_dir"): ".",
    ("mcp group", "ref"): "docker:duckduckgo",
    ("mcp group", "remote"): {"url": "https://x.example/mcp"},
    ("mcp group", "working_dir"): ".",
    ("remote", "url"): "https://x.example/mcp",
    ("toolset.memory", "path"): "m.db",
    ("toolset.script", "shell"): {"go": {"cmd": "true"}},
    ("script tool", "args"): {"a": {"type": "string"}},
    ("script tool", "required"): ["a"],
    ("script tool", "working_dir"): ".",
    ("toolset.fetch", "allowed_domains"): ["x.example"],
    ("toolset.rag", "ref"): "r",
    ("toolset.rag", "rag_config"): {"docs": [DOCS]},
    ("toolset.rag", "strategies"): [{"type": "bm25"}],
    ("sandbox", "paths"): ["."],
    ("strategy", "type"): "bm25",
    ("strategy", "database"): "index.db",
}
"""The values that cannot be any value of their form."""
for _kind in ("toolset.filesystem", "toolset.file"):
    VALUES |= {(_kind, name): ["."] for name in ("allow_list", "deny_list")}
for _kind in ("toolset.rag", "rag group", "rag source", "strategy"):
    VALUES[_kind, "docs"] = [DOCS]

BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("hook", "args"): {"type": "builtin", "command": "add_prompt_files"},
    ("script tool", "required"): {"args": {"a": {"type": "string"}}},
}
"""What a field needs beside it."""
JUDGE = {"type": "model", "model": MODEL, "prompt": "Deny it.", "schema": "pre_tool_use_decision"}
for _name in ("model", "prompt", "schema", "system_prompt"):
    BESIDE["hook", _name] = JUDGE

INSTEAD: dict[tuple[str, str], tuple[str, ...]] = {
    ("toolset.mcp", "ref"): ("command",),
    ("toolset.mcp", "remote"): ("command",),
    ("mcp group", "ref"): ("command",),
    ("mcp group", "remote"): ("command",),
    ("model", "first_available"): ("provider", "model"),
}
"""What a field stands in the place of."""

REST: dict[str, Any] = {
    "toolsets": {"t": {"type": "think"}},
    "rag": {"r": {"docs": [DOCS]}},
    "skills": {"k": True},
    "commands": {"c": {"x": "X"}},
    "budgets": {"b": {"max_cost": 1}},
}
"""What other fields refer to."""

MINIMAL: dict[str, dict[str, Any]] = {
    "agent": AGENT,
    "model": {"provider": "openai", "model": "x"},
    "hook": HOOK,
    "toolset.mcp": {"type": "mcp", "command": "server"},
    "mcp group": {"command": "server"},
    "toolset.rag": {"type": "rag", "docs": [DOCS]},
    "rag group": {"docs": [DOCS]},
    "rag source": {"docs": [DOCS]},
    "evaluator": {"model": MODEL, "type": "boolean", "instructions": "Is it?"},
}
"""The least of a record."""


def value_of(form: Form, record: str = "", name: str = "") -> Any:
    """A value of a form."""
    if (record, name) in VALUES:
        return copy.deepcopy(VALUES[record, name])
    match form:
        case Text(choices=choices):
            return choices[0] if choices else "some text"
        case Number(least=least, most=most, is_whole=is_whole):
            value = min(max(least, 1), most)
            return int(value) if is_whole else value
        case Flag():
            return True
        case Duration():
            return "1m30s"
        case Json(is_mapping=True):
            return {"a": 1}
        case Json():
            return "anything"
        case ListOf(form=inner):
            return [value_of(inner)]
        case MapOf(form=inner):
            return {"a": value_of(inner)}
        case OneOf(forms=forms):
            return value_of(forms[0])
        case Ref(record=other):
            return minimal(other)
        case ByType(types=types):
            return {"type": next(kind for kind in types if not TOOLSETS[kind])}
        case _:
            raise AssertionError(form)


def minimal(record: str) -> dict[str, Any]:
    """The least of a record, with something in it that is not off."""
    made = copy.deepcopy(MINIMAL.get(record, {}))
    if not made:
        made = {
            field.name: value_of(field.form, record, field.name) for field in TABLE[record].fields if field.is_required
        }
    if record.startswith("toolset."):
        made["type"] = record.partition(".")[2]
    if not made and record != "file":
        first = TABLE[record].fields[0]
        made = {first.name: value_of(first.form, record, first.name)}
    return made


Wrap = Callable[[dict[str, Any]], dict[str, Any]]


def _in_agent(name: str) -> Wrap:
    return lambda value: {"agents": {"root": {**AGENT, name: value}, "other": AGENT}}


def _in_model(name: str) -> Wrap:
    return lambda value: {
        "agents": {"root": {"model": "m"}},
        "models": {"m": {"provider": "openai", "model": "x", name: value}},
    }


def _in_toolset(made: Callable[[Any], dict[str, Any]]) -> Wrap:
    return lambda value: {"agents": {"root": {**AGENT, "toolsets": [made(value)]}}}


PLACES: dict[str, tuple[str, Wrap]] = {
    "file": ("", lambda value: {"agents": {"root": AGENT, "other": AGENT}, **value}),
    "agent": ("agents.root", lambda value: {"agents": {"root": value, "other": AGENT}}),
    "model": ("models.m", lambda value: {"agents": {"root": {"model": "m"}}, "models": {"m": value}}),
    "provider": ("providers.p", lambda value: {"agents": {"root": {"model": "p/x"}}, "providers": {"p": value}}),
    "permissions": ("permissions", lambda value: {"agents": {"root": AGENT}, "permissions": value}),
    "budget": ("budget", lambda value: {"agents": {"root": AGENT}, "budget": value}),
    "runtime": ("runtime", lambda value: {"agents": {"root": AGENT}, "runtime": value}),
    "metadata": ("metadata", lambda value: {"agents": {"root": AGENT}, "metadata": value}),
    "fallback": ("agents.root.fallback", _in_agent("fallback")),
    "structured output": ("agents.root.structured_output", _in_agent("structured_output")),
    "command": ("agents.root.commands.x", lambda value: _in_agent("commands")({"x": value})),
    "inline skill": ("agents.root.skills[0]", lambda value: {"agents": {"root": {**AGENT, "skills": [value]}}}),
    "hooks": ("agents.root.hooks", _in_agent("hooks")),
    "hook group": ("agents.root.hooks.tool_guard[0]", lambda value: _in_agent("hooks")({"tool_guard": [value]})),
    "hook": ("agents.root.hooks.turn_start[0]", lambda value: _in_agent("hooks")({"turn_start": [value]})),
    "harness": ("agents.root.harness", lambda value: {"agents": {"root": {"harness": value}, "other": AGENT}}),
    "cost": ("models.m.cost", _in_model("cost")),
    "capabilities": ("models.m.capabilities", _in_model("capabilities")),
    "routing rule": ("models.m.routing[0]", lambda value: _in_model("routing")([value])),  # type: ignore[arg-type]
    "sandbox": (
        "agents.root.toolsets[0].sandbox",
        _in_toolset(lambda value: {"type": "shell", "sandbox": value}),
    ),
    "mcp group": (
        "mcps.s",
        lambda value: {"agents": {"root": {**AGENT, "toolsets": [{"type": "mcp", "ref": "s"}]}}, "mcps": {"s": value}},
    ),
    "rag group": (
        "rag.r",
        lambda value: {"agents": {"root": {**AGENT, "toolsets": [{"type": "rag", "ref": "r"}]}}, "rag": {"r": value}},
    ),
    "rag source": (
        "agents.root.toolsets[0].rag_config",
        _in_toolset(lambda value: {"type": "rag", "rag_config": value}),
    ),
    "remote": ("agents.root.toolsets[0].remote", _in_toolset(lambda value: {"type": "mcp", "remote": value})),
    "lifecycle": (
        "agents.root.toolsets[0].lifecycle",
        _in_toolset(lambda value: {"type": "mcp", "command": "server", "lifecycle": value}),
    ),
    "script tool": (
        "agents.root.toolsets[0].shell.go",
        _in_toolset(lambda value: {"type": "script", "shell": {"go": value}}),
    ),
    "rag tool": (
        "agents.root.toolsets[0].tool",
        _in_toolset(lambda value: {"type": "rag", "docs": [DOCS], "tool": value}),
    ),
    "strategy": (
        "agents.root.toolsets[0].strategies[0]",
        _in_toolset(lambda value: {"type": "rag", "docs": [DOCS], "strategies": [value]}),
    ),
    "results": (
        "agents.root.toolsets[0].results",
        _in_toolset(lambda value: {"type": "rag", "docs": [DOCS], "results": value}),
    ),
}
"""Where a record is in a file: its path, and a file with it."""
JUDGES: tuple[str, Wrap] = (
    "agents.root.hooks.tool_guard[0].hooks[0]",
    lambda value: _in_agent("hooks")({"tool_guard": [{"hooks": [value]}]}),
)
"""Where a hook is of which a model decides about a call."""
for _kind in TOOLSETS:
    PLACES[f"toolset.{_kind}"] = ("agents.root.toolsets[0]", _in_toolset(lambda value: value))


def is_idle(record: Record) -> bool:
    """Whether a record stands only in fields that have no effect, or has none itself."""
    return bool(record.note) or record.name not in PLACES


def every_field() -> Iterator[tuple[Record, Field, str, dict[str, Any]]]:
    """Each field of the records that have an effect: its path in a file, and that file."""
    for record in TABLE.values():
        if is_idle(record):
            continue
        for field in record.fields:
            key = (record.name, field.name)
            path, wrap = JUDGES if BESIDE.get(key) is JUDGE else PLACES[record.name]
            value = {**minimal(record.name), **copy.deepcopy(BESIDE.get(key, {}))}
            for other in INSTEAD.get(key, ()):
                value.pop(other)
            if not (record.name.startswith("toolset.") and field.name == "type"):
                value[field.name] = value_of(field.form, *key)
            made = wrap(value)
            rest = {name: copy.deepcopy(inner) for name, inner in REST.items() if name not in made}
            yield record, field, f"{path}.{field.name}".removeprefix("."), {**made, **rest}


def text_of(document: Any) -> str:
    """A file, as JSON, which is YAML too."""
    return json.dumps(document, indent=1)
