"""``python -m agentloop``: see ``--help``."""

from __future__ import annotations

import sys

from agentloop.serving._command import main

if __name__ == "__main__":
    sys.exit(main())
