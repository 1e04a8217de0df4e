"""An MCP server of the old era whose answers are written down: ``python spoken.py JSON``.

The JSON is an object. ``tools``: the tools to list. With ``listings`` it is what to answer to each listing: a list of
tools, or the fields of an answer. With ``changes``, each call announces other tools. ``lines``: by a tool's name, the
lines to write when it is called, each a text in which ``$ID`` stands for the id of the call, or a result to send.
``first``: ``exit`` at a first message that is not ``initialize``, or be ``silent``. ``says``: texts to write to stdout
and stderr at the start, without an end of line. ``seconds``: how long a call takes. ``asks``: by a tool's name, the
requests to send before its answer. ``progress``: how often a call reports progress, every ``seconds``.
``pings``: how many requests a call sends without reading the answers.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

SAID: dict[str, Any] = json.loads(sys.argv[1])


def write(line: str) -> None:
    sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.buffer.flush()


def send(**message: Any) -> None:
    write(json.dumps({"jsonrpc": "2.0", **message}))


def ask(requests: list[dict[str, Any]]) -> list[Any]:
    """Send ``requests`` all at once, and return the answers."""
    for number, request in enumerate(requests):
        send(id=f"q{number}", **request)
    answers: dict[str, Any] = {}
    while len(answers) < len(requests):
        message = json.loads(sys.stdin.readline())
        if str(message.get("id", "")).startswith("q"):
            answers[message["id"]] = message.get("result") or message.get("error")
    return [answers[f"q{number}"] for number in range(len(requests))]


def handle(message: dict[str, Any], listings: list[Any]) -> None:
    id, params = message.get("id"), message.get("params") or {}
    match message.get("method"):
        case "initialize":
            info = {"name": "spoken", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            if SAID.get("changes"):
                result["capabilities"] = {"tools": {"listChanged": True}}
            send(id=id, result=result)
        case "tools/list":
            listed = listings.pop(0) if len(listings) > 1 else listings[0]
            send(id=id, **(listed if isinstance(listed, dict) else {"result": {"tools": listed}}))
        case "tools/call":
            name = params["name"]
            if SAID.get("changes"):
                send(method="notifications/tools/list_changed")
            time.sleep(SAID.get("seconds", 0))
            for number in range(SAID.get("progress", 0)):
                token = params["_meta"]["progressToken"]
                send(method="notifications/progress", params={"progressToken": token, "progress": number})
                time.sleep(SAID["seconds"])
            for number in range(SAID.get("pings", 0)):
                send(id=f"p{number}", method="ping")
            if name in SAID.get("asks", {}):
                answers = ask(SAID["asks"][name])
                send(id=id, result={"content": [{"type": "text", "text": json.dumps(answers)}]})
                return
            for line in SAID.get("lines", {}).get(name, [{"content": [{"type": "text", "text": "ok"}]}]):
                if isinstance(line, str):
                    write(line.replace("$ID", json.dumps(id)))
                else:
                    send(id=id, result=line)
        case method if method is not None and id is not None:
            send(id=id, error={"code": -32601, "message": f"no {method}"})
        case _:
            pass


def main() -> None:
    for text, stream in zip(SAID.get("says", []), (sys.stdout, sys.stderr), strict=False):
        stream.write(text)
        stream.flush()
    tools = SAID.get("tools", [{"name": "t", "inputSchema": {"type": "object"}}])
    listings = tools if SAID.get("listings") else [tools]
    for number, line in enumerate(sys.stdin):
        message = json.loads(line)
        if number == 0 and message["method"] != "initialize" and SAID.get("first") == "exit":
            sys.exit(f"expected initialize, got {message['method']}")
        if SAID.get("first") == "silent":
            time.sleep(1000)
        handle(message, listings)


if __name__ == "__main__":
    main()
