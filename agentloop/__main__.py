"""The commands: ``python -m agentloop serve module:agent``, and others."""

from __future__ import annotations

import sys
from importlib import import_module

from agentloop.errors import MissingExtraError

__all__ = ["main"]

MISUSED = 2
"""The exit code of a command that could not begin."""

ALONE = {
    "picture": "agentloop.picture._command",
    "run": "agentloop.terminal._command",
    "schema": "agentloop.declarative._command",
    "snapshots": "agentloop.toolkit._snapshots_command",
    "worker": "agentloop.engines._command",
}
"""The commands that need none of the packages of a server, with their modules."""


SERVED = ("acp", "mcp", "serve")
"""The commands that need the extra ``serve``."""


def main() -> int:
    """Run the command that the arguments name, and return its exit code."""
    command = "".join(sys.argv[1:2])
    try:
        # Imported here, since each command needs packages that the others do not.
        module = import_module(ALONE.get(command, "agentloop.serving._command"))
    except MissingExtraError as error:
        # Without the package that a command needs; or without any command, where the parser that lists them needs it.
        known = command in SERVED or command in ALONE
        sys.stderr.write(f"agentloop: {error if known else _no_command(command)}\n")
        return MISUSED
    exit_code: int = module.main(sys.argv[2:] if command in ALONE else None)
    return exit_code


def _no_command(command: str) -> str:
    names = sorted([*ALONE, *(f"{name} (with the extra serve)" for name in SERVED)])
    asked = "say a command" if not command or command.startswith("-") else f"there is no command {command!r}"
    return f"{asked}; there are: {', '.join(names)}"


if __name__ == "__main__":
    sys.exit(main())
