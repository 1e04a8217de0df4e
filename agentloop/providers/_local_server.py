"""The program that a local model runs in: llama.cpp and its server, in a process that can be ended at any moment.

The parent runs this file by its path (see `agentloop.providers._local_process`); the program imports nothing of
agentloop. It reads its parameters, as JSON, from the environment variable `VARIABLE`. It writes one line of JSON,
``{"url": ...}`` or ``{"error": ...}``, and then serves until its standard input ends. The parent holds the other end of
the input, so the program does not outlive the parent, even if the parent is killed. (While the program loads the model
it does not notice, but ends right after.)
"""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib import import_module
from typing import Any

VARIABLE = "AGENTLOOP_LOCAL_SERVER"


def end_with_input() -> None:
    """End the process at once when the standard input ends."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def start(arguments: dict[str, Any]) -> Any:
    """Load the model, and return a server that listens."""
    engine: Any = import_module("xllamacpp")
    parameters = engine.CommonParams()
    parameters.model.path = arguments["weights"]
    parameters.n_ctx = arguments["context_tokens"]
    parameters.n_parallel = arguments["slots"]
    # One context for all slots, of which each response may use all: by default each slot has a fixed part of it.
    parameters.kv_unified = True
    parameters.cpuparams.n_threads = arguments["threads"]
    parameters.cpuparams_batch.n_threads = arguments["threads"]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    # Every user of this machine can connect, and so can a page in a browser.
    parameters.api_keys = [arguments["key"]]
    parameters.use_jinja = True
    parameters.verbosity = 0
    return engine.Server(parameters)


def main() -> None:
    """Serve until the standard input ends."""
    arguments = json.loads(os.environ.pop(VARIABLE))
    watch = threading.Thread(target=end_with_input, daemon=True)
    watch.start()
    # Output of the engine goes to standard error: only the one line goes to standard output.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # As in the parent, so that the engine is found in the same place.
    sys.path[:] = arguments["path"]
    try:
        server = start(arguments)
    except (ImportError, RuntimeError, OSError) as error:
        output.write(json.dumps({"error": str(error)}) + "\n")
        output.flush()
        os._exit(1)
    output.write(json.dumps({"url": server.listening_address}) + "\n")
    output.flush()
    watch.join()


if __name__ == "__main__":
    main()
