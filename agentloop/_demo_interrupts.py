"""Ctrl-C while the modules of ``python -m agentloop.demo`` are imported ends it without a traceback.

`agentloop` itself imports this first: Python imports the package before anything of the demo, and that takes longest.
The demo restores the handler. In any other program, the handling of signals is not ours to change.
"""

import signal
import sys

__all__: list[str] = []

if sys.argv[:1] == ["-m"] and "agentloop.demo" in sys.orig_argv:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
