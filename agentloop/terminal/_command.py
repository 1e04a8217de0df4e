"""``python -m agentloop run team.yaml``: talk to an agent in the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any, cast

import trio

from agentloop._command_line import exit_code, find_by_name, is_file, prepare
from agentloop.agent import Agent
from agentloop.errors import AgentLoopError
from agentloop.messages import Prompt
from agentloop.session import Session
from agentloop.terminal._characters import printable
from agentloop.terminal._showing import read_prompt, show

__all__ = ["main"]

FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code: 1 for a run that failed, 2 for what cannot be run."""
    options = _parser().parse_args(arguments)
    prepare("agentloop.terminal")
    made: list[Any] = []
    code = exit_code(lambda: made.append(_find(options)))
    if code:
        return code
    try:
        trio.run(partial(_talk, made[0], options.prompt))
    except AgentLoopError as error:
        # `show` has printed the end of a run that failed; this is what made it fail.
        sys.stderr.write(f"agentloop: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m agentloop run", description="Talk to an agent in the terminal.")
    parser.add_argument("agent", metavar="FILE", help="the YAML file of a team, or module:name of an Agent")
    parser.add_argument("--model", metavar="NAME", help="a model in the place of all others, such as local:smollm2")
    parser.add_argument("--prompt", metavar="TEXT", help="run once with this prompt, instead of reading prompts")
    parser.add_argument("--strict", action="store_true", help="refuse a file with fields that are not obeyed")
    return parser


def _find(options: argparse.Namespace) -> Agent[Any, Any]:
    def from_file(path: str) -> Agent[Any, Any]:
        # Only here: it needs an extra.
        declarative: Any = import_module("agentloop.declarative")
        team = declarative.load_team(path, models=options.model, strict=options.strict)
        for one in team.unsupported:
            sys.stderr.write(f"{printable(str(one))}\n")
        return cast("Agent[Any, Any]", team)

    found: Agent[Any, Any] = find_by_name(
        options.agent, lambda value: isinstance(value, Agent), wanted="Agent", from_file=from_file
    )
    return found.replace(model=options.model) if options.model and not is_file(options.agent) else found


async def _talk(agent: Agent[Any, Any], prompt: str | None) -> None:
    session = Session()
    if prompt is not None:
        await _show(agent, agent.expand(prompt), session)
        return
    welcome = str(getattr(agent, "welcome_message", ""))
    if welcome.strip():
        sys.stdout.write(f"{printable(welcome.strip())}\n")
    while typed := await read_prompt(agent=agent, session=session):
        try:
            await _show(agent, typed, session)
        except AgentLoopError as error:
            # The model that the person has chosen has no key, say, or its provider does not know it: they choose again.
            if session.choice is None:
                raise
            sys.stderr.write(f"{printable(str(error))}\n")


async def _show(agent: Agent[Any, Any], prompt: Prompt, session: Session) -> None:
    async with agent.stream(prompt, session=session) as stream:
        await show(stream)
