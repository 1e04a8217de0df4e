"""``python -m agentloop``: see ``--help``."""

from __future__ import annotations

import sys
from importlib import import_module

from agentloop.picture import _command as picture

__all__ = ["main"]


def main() -> int:
    """Run the command that the arguments name, and return its exit code."""
    if sys.argv[1:2] == ["picture"]:
        return picture.main(sys.argv[2:])
    # Imported here, since the commands that serve need the extra `serve`, and `picture` does not.
    exit_code: int = import_module("agentloop.serving._command").main()
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
