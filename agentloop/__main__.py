"""The commands: ``python -m agentloop serve module:agent``, and others."""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["main"]

ALONE = {"picture": "agentloop.picture._command", "worker": "agentloop.engines._command"}
"""The commands that need none of the packages of a server, with their modules."""


def main() -> int:
    """Run the command that the arguments name, and return its exit code."""
    command = "".join(sys.argv[1:2])
    # Imported here, since each command needs packages that the others do not.
    if command in ALONE:
        exit_code: int = import_module(ALONE[command]).main(sys.argv[2:])
    else:
        exit_code = import_module("agentloop.serving._command").main()
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
