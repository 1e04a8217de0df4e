"""An MCP server of the old era over HTTP, in a thread of the test: each test says how it differs from a good one."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

__all__ = ["Answer", "Request", "serve"]

Answer: TypeAlias = "tuple[int, Any, dict[str, str]]"
"""The status, the body (bytes, or a value to send as JSON), and headers."""


class Request:
    """A POST of the client."""

    def __init__(self, message: dict[str, Any], headers: Any) -> None:
        self.message = message
        self.method: str = message.get("method", "")
        self.id = message.get("id")
        self.session: str | None = headers.get("Mcp-Session-Id")
        self.headers = headers

    def result(self, **result: Any) -> Answer:
        return 200, {"jsonrpc": "2.0", "id": self.id, "result": result}, {}

    def error(self, status: int, code: int, message: str) -> Answer:
        return status, {"jsonrpc": "2.0", "id": self.id, "error": {"code": code, "message": message}}, {}

    def usual(self) -> Answer:
        """The answer of a good server."""
        match self.method:
            case _ if self.id is None or not self.method:
                return 202, b"", {}
            case "initialize":
                info = {"name": "web", "version": "1"}
                return self.result(protocolVersion="2025-06-18", capabilities={"tools": {}}, serverInfo=info)
            case "tools/list":
                return self.result(tools=[{"name": "t", "inputSchema": {"type": "object"}}])
            case "tools/call":
                return self.result(content=[{"type": "text", "text": "ok"}])
            case _:
                return self.error(400, -32601, "no such method")


@contextmanager
def serve(answer: Callable[[Request], Answer | None]) -> Generator[str]:
    """Serve until the end of the block, and yield the URL. Without an answer, the connection is closed."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *values: Any) -> None:
            pass

        def reply(self, status: int, body: Any, headers: dict[str, str]) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.reply(405, b"", {})

        def do_DELETE(self) -> None:
            self.reply(200, b"", {})

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answered = answer(Request(message, self.headers))
            if answered is None:
                self.close_connection = True
            else:
                self.reply(*answered)

        def handle(self) -> None:
            with suppress(ConnectionError):
                super().handle()

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/mcp"
        finally:
            server.shutdown()
            thread.join()
