"""The table of all fields, as the documentation has it.

``python -m tests.declarative.reference`` writes it into the page anew.
"""

from __future__ import annotations

from pathlib import Path

from agentloop.declarative._forms import Field, Record
from agentloop.declarative._table import TABLE, TOOLSETS
from tests.declarative.examples import is_idle

__all__ = ["PAGE", "page_with", "tables"]

PAGE = Path(__file__).parents[2] / "docs" / "do" / "agents-from-a-file.md"
BEGIN, END = "<!-- the table: begin -->\n", "<!-- the table: end -->\n"

TITLES = {
    "file": "The file",
    "agent": "`agents`",
    "model": "`models`",
    "provider": "`providers`",
    "cost": "`cost` of a model",
    "capabilities": "`capabilities` of a model",
    "routing rule": "`routing` of a model",
    "permissions": "`permissions`",
    "budget": "`budget`, `budgets`",
    "runtime": "`runtime`",
    "metadata": "`metadata`",
    "fallback": "`fallback` of an agent",
    "harness": "`harness` of an agent",
    "structured output": "`structured_output` of an agent",
    "command": "`commands`",
    "hooks": "`hooks` of an agent",
    "hook group": "A group of hooks around a tool call",
    "hook": "A hook",
    "mcp group": "`mcps`",
    "rag group": "`rag`",
    "rag source": "`rag_config`",
    "remote": "`remote` of an MCP server",
    "lifecycle": "`lifecycle` of an MCP server",
    "sandbox": "`sandbox` of `shell`",
    "script tool": "`shell` of `script`",
    "rag tool": "`tool` of `rag`",
    "strategy": "`strategies` of `rag`",
    "results": "`results` of `rag`",
}


def tables() -> str:
    """A table for each mapping of the format, and a list of the toolsets that are not there."""
    parts = [
        _section(TITLES.get(name) or f"A toolset `{name.partition('.')[2]}`", record)
        for name, record in TABLE.items()
        if not is_idle(record)
    ]
    missing = "\n".join(f"| `{kind}` | {note} |" for kind, note in TOOLSETS.items() if note)
    parts.append(f"### Toolsets that are not there\n\n| type | instead |\n| --- | --- |\n{missing}\n")
    return "\n".join(parts)


def _section(title: str, record: Record) -> str:
    rows = "\n".join(f"| `{field.name}` | {_cell(field.says)} | {_cell(_here(field))} |" for field in record.fields)
    return f"### {title}\n\n| field | what it is | here |\n| --- | --- | --- |\n{rows}\n"


def _here(field: Field) -> str:
    return {"obeyed": "obeyed", "partly": f"obeyed. {field.note}", "named": f"**named**: {field.note}"}[field.does]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page_with(table: str) -> str:
    """The page, with this table."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with(tables()), encoding="utf-8")
