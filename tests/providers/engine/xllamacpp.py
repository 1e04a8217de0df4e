"""An engine that does what its weights say: a file of JSON, ``Weights`` in ``tests/providers/test_local.py``.

It runs in the process of the model, where it is found under the name of the real one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any


class CommonParams(SimpleNamespace):
    def __init__(self) -> None:
        super().__init__(model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace())


class Server:
    def __init__(self, parameters: CommonParams) -> None:
        path = Path(parameters.model.path)
        weights = json.loads(path.read_text())
        heard = path.with_suffix(".heard")
        loads = {"pid": os.getpid(), "threads": parameters.cpuparams.n_threads, "slots": parameters.n_parallel}
        write(heard, {**loads, "context": parameters.n_ctx})
        print("loading", flush=True)
        if weights["crash"]:
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(3)
        if weights["error"]:
            print("magic is wrong", file=sys.stderr, flush=True)
            raise RuntimeError(weights["error"])
        while weights["waits_for"] and not Path(weights["waits_for"]).exists():
            time.sleep(0.005)
        answers: list[Any] = weights["answers"]

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                write(heard, body)
                if self.headers["Authorization"] != f"Bearer {parameters.api_keys[0]}":
                    self.answer(401, {"message": "Invalid API Key", "type": "authentication_error"})
                    return
                answer = answers.pop(0)
                if isinstance(answer, dict):
                    self.answer(400, answer)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                for piece in answer:
                    if piece is None:
                        time.sleep(600)
                    self.say({"delta": {"content": piece}, "finish_reason": None})
                self.say({"delta": {}, "finish_reason": "stop"})

            def say(self, choice: dict[str, Any]) -> None:
                self.wfile.write(b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n")

            def answer(self, status: int, error: dict[str, Any]) -> None:
                data = json.dumps({"error": error}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer((parameters.hostnames[0], parameters.port), Handler)
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        self.listening_address = f"http://127.0.0.1:{server.server_address[1]}"


def write(path: Path, value: object) -> None:
    with path.open("a") as file:
        file.write(json.dumps(value) + "\n")
