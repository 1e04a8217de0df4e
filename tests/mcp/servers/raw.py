"""An MCP server of the old era in plain Python, which starts at once, and misbehaves as it is told.

``python raw.py [HABIT...]``. Habits: ``mute`` never says a word, ``banner`` prints one first, ``exit`` exits instead,
``stubborn`` ignores the end of its input and SIGTERM, ``nanny`` leaves a child behind when it exits. ``5/0.5`` dies
once, in the middle of the fifth message that it sends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HABITS = sys.argv[1:]
FATAL = next(((int(n), float(part)) for n, part in (habit.split("/") for habit in HABITS if "/" in habit)), None)
NULL = subprocess.DEVNULL
GUEST = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
TOOLS = [
    *("echo", "pid", "die", "hang", "garbage", "flood", "ask", "ask_when_cancelled"),
    *("fork", "deaf", "endless", "memory", "secret"),
]


SENT: list[str] = []


def send(**message: Any) -> None:
    line = json.dumps({"jsonrpc": "2.0", **message}) + "\n"
    if FATAL is not None:
        die_at_the(line, *FATAL)
    sys.stdout.write(line)
    sys.stdout.flush()


def die_at_the(line: str, message: int, part: float) -> None:
    """Die at that message of the first process that is started, after a part of it."""
    SENT.append(line)
    died = Path(os.environ["DIED"])
    if message == len(SENT) and not died.exists():
        died.touch()
        sys.stdout.write(line[: int(len(line) * part)])
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def say(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}


def start_child() -> int:
    # Holds on to our output: its end is not to be seen from there.
    return subprocess.Popen(["sleep", "1000"], stdin=NULL, stderr=NULL).pid


class Server:
    def __init__(self) -> None:
        self.asked: dict[int, tuple[Any, str]] = {}
        """Id of a question: the call that it belongs to, and its tag."""
        self.waiting: dict[Any, str] = {}
        """Calls that ask after they were cancelled: their tags."""
        self.ghosts: list[str] = []
        """Those that were, and that ask with the next call."""
        self.memory: list[str] = []

    def handle(self, message: dict[str, Any]) -> None:
        id, params = message.get("id"), message.get("params", {})
        match message.get("method"):
            case "initialize":
                info = {"name": "raw", "version": "1"}
                capabilities = {"tools": {"listChanged": True}}
                result = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}
                send(id=id, result=result)
            case "tools/list":
                tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
                # One per page.
                at = int(params.get("cursor", 0))
                more = {"nextCursor": str(at + 1)} if at + 1 < len(tools) else {}
                send(id=id, result={"tools": [tools[at]], **more})
            case "tools/call":
                self.call(id, params["name"], params.get("arguments", {}), params.get("_meta", {}))
            case "notifications/cancelled":
                tag = self.waiting.pop(params["requestId"], None)
                if tag is not None:
                    self.ghosts.append(tag)
            case None:
                self.answered(id, message)
            case method if id is not None:
                send(id=id, error={"code": -32601, "message": f"no {method}"})
            case _:
                pass

    def call(self, id: Any, name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> None:
        tag = str(arguments.get("tag", ""))
        while self.ghosts:
            self.ask(None, self.ghosts.pop())
        match name:
            case "echo":
                send(id=id, result=say(tag))
            case "pid":
                send(id=id, result=say(str(os.getpid())))
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                pass
            case "garbage":
                sys.stdout.write("Traceback: {not json}\n\n\x00\n[1, 2]\n")
                send(id=id, result=say("after the garbage"))
            case "flood":
                for n in range(int(arguments["times"])):
                    progress = {"progressToken": meta.get("progressToken"), "progress": n, "message": f"at {n}"}
                    send(method="notifications/progress", params=progress)
                # One that goes back, and one that is for nobody.
                send(method="notifications/progress", params={"progressToken": meta["progressToken"], "progress": 0})
                send(method="notifications/progress", params={"progressToken": "nobody", "progress": 1})
                send(id=id, result=say("flooded"))
            case "ask":
                self.ask(id, tag)
            case "secret":
                form = {"type": "object", "properties": {"api_key": {"type": "string"}}}
                self.ask(id, tag, form)
            case "ask_when_cancelled":
                self.waiting[id] = tag
                send(method="notifications/message", params={"level": "info", "data": "waiting"})
            case "fork":
                send(id=id, result=say(str(start_child())))
            case "deaf":
                time.sleep(1000)
            case "endless":
                while True:
                    sys.stdout.write("x" * 65536)
            case "memory":
                send(id=id, result=say("; ".join(self.memory)))
            case _:
                raise AssertionError(name)

    def ask(self, call: Any, tag: str, form: dict[str, Any] = GUEST) -> None:
        id = 1000 + len(self.asked)
        self.asked[id] = (call, tag)
        params = {"message": f"Who is {tag}?", "requestedSchema": form}
        send(id=id, method="elicitation/create", params=params)

    def answered(self, id: Any, message: dict[str, Any]) -> None:
        call, tag = self.asked[id]
        given = message.get("result") or message.get("error") or {}
        text = f"{tag}: {given.get('action')} {(given.get('content') or {}).get('name')}"
        if call is None:
            self.memory.append(text)
        else:
            send(id=call, result=say(text))


def main() -> None:
    if "exit" in HABITS:
        sys.stderr.write("cannot find the configuration\n")
        sys.exit(3)
    if "stubborn" in HABITS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "banner" in HABITS:
        sys.stdout.write("Welcome to the server!\n")
        sys.stdout.flush()
    if "nanny" in HABITS:
        Path(os.environ["CHILD"]).write_text(str(start_child()))
    server = Server()
    for line in sys.stdin:
        if "mute" not in HABITS:
            server.handle(json.loads(line))
    if "stubborn" in HABITS:
        time.sleep(1000)


if __name__ == "__main__":
    main()
