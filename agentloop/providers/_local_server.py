"""The program that a local model runs in: llama.cpp and its server, in a process that can be ended at any moment.

Not imported, but run by its path (see `agentloop.providers._local_process`). It imports nothing of agentloop. What it
is to do stands in the environment variable `VARIABLE`, as JSON. It writes one line of JSON, ``{"url": ...}`` or
``{"error": ...}``, and then serves until its standard input ends: whoever started it holds the other end, so that it
does not outlive them even if they are killed. (While it loads the model it does not notice, but ends right after.)
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
    """End the process, as it is, once the standard input has ended."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def start(given: dict[str, Any]) -> Any:
    """The server. It listens, with the model loaded."""
    engine: Any = import_module("xllamacpp")
    parameters = engine.CommonParams()
    parameters.model.path = given["weights"]
    parameters.n_ctx = given["context_tokens"]
    parameters.n_parallel = given["slots"]
    # One context for all that run at once, of which each may have all: else each had its part of it.
    parameters.kv_unified = True
    parameters.cpuparams.n_threads = given["threads"]
    parameters.cpuparams_batch.n_threads = given["threads"]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    # Anybody on this machine can connect, and so can a page in a browser.
    parameters.api_keys = [given["key"]]
    parameters.use_jinja = True
    parameters.verbosity = 0
    return engine.Server(parameters)


def main() -> None:
    """Serve until the standard input ends."""
    given = json.loads(os.environ.pop(VARIABLE))
    watch = threading.Thread(target=end_with_input, daemon=True)
    watch.start()
    # Whatever the engine prints: the one line is ours.
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # As in the program that started this one: what it has found is found here too.
    sys.path[:] = given["path"]
    try:
        server = start(given)
    except (ImportError, RuntimeError, OSError) as error:
        told.write(json.dumps({"error": str(error)}) + "\n")
        told.flush()
        os._exit(1)
    told.write(json.dumps({"url": server.listening_address}) + "\n")
    told.flush()
    watch.join()


if __name__ == "__main__":
    main()
