"""``python -m agentloop``: see ``--help``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        # Alone: a worker needs none of the packages of a server.
        from agentloop.engines._command import main

        sys.exit(main(sys.argv[2:]))
    else:
        from agentloop.serving._command import main

        sys.exit(main())
