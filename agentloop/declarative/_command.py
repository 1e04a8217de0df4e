"""``python -m agentloop schema``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from agentloop.declarative._schema import json_schema

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m agentloop schema",
        description="Print the JSON Schema of the YAML files of teams, for editors.",
    )
    parser.parse_args(arguments)
    sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n")
    return 0
