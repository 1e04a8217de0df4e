"""An external agent with bad habits, which its arguments name. It imports little, and starts at once."""

import json
import os
import subprocess
import sys
import time
from typing import Any

HABITS = sys.argv[1:]


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def update(text: str) -> None:
    block = {"type": "text", "text": text}
    update = {"sessionUpdate": "agent_message_chunk", "content": block}
    send({"method": "session/update", "params": {"sessionId": "s", "update": update}})


def fail(code: int) -> None:
    sys.stderr.write("warming up\nthe disk is full\n")
    sys.stderr.flush()
    os._exit(code)


def answer(id: object, method: str) -> None:
    if method == "initialize":
        if "dies-at-start" in HABITS:
            fail(3)
        if "hangs-at-start" in HABITS:
            sys.stderr.write("waiting for a licence\n")
            sys.stderr.flush()
            time.sleep(1000)
        version = 7 if "wrong-version" in HABITS else 1
        methods = [{"id": "login", "name": "Log in with the browser", "description": "run `raw login`"}]
        send({"id": id, "result": {"protocolVersion": version, "authMethods": methods}})
    elif method == "session/new":
        if "needs-sign-in" in HABITS:
            send({"id": id, "error": {"code": -32000, "message": "Authentication required"}})
        else:
            send({"id": id, "result": {"sessionId": "s"}})
    elif method == "session/prompt":
        if "child" in HABITS:
            child = subprocess.Popen(["sleep", "1000"])
            update(f"{os.getpid()} {child.pid}")
        if "halves" in HABITS:
            sys.stdout.write('{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":')
            sys.stdout.write('{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"\\ud83d!"}}}}\n')
        if "breaks-off" in HABITS:
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": id, "result": {}})[:-3] + "\n")
            sys.stdout.flush()
            time.sleep(1000)
        if "dies" in HABITS:
            update("I begin")
            fail(4)
        if "long-line" in HABITS:
            for _ in range(2000):
                sys.stdout.write("x" * 100_000)
            sys.stdout.flush()
        if "hangs" in HABITS:
            time.sleep(1000)
        send({"id": id, "result": {"stopReason": "end_turn"}})


if "prints" in HABITS:
    print("Welcome to raw 1.0!")
    print("{not json")
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        answer(message["id"], message["method"])
