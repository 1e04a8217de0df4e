"""A server process, a wire to it that can be cut, and Chromium: the session `page` of nox installs what they need."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright import sync_api
from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).parents[2]
# A busy machine may take ten seconds to start a server.
sync_api.expect.set_options(timeout=25_000)

CHROMIUM = os.environ.get("PAGE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""


@pytest.fixture(scope="session")
def browser() -> Generator[Browser]:
    if not CHROMIUM:
        pytest.skip("the tests of the page need Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Server:
    """A server process on a store of its own, which may be killed and started again."""

    def __init__(self, folder: Path, token: str = "") -> None:
        self.environment = {**os.environ, "PAGE_STORE": str(folder / "chats.db"), "PAGE_TOKEN": token}
        self.process: subprocess.Popen[str] | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "agentloop", "serve", "tests.page.served:app", "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        match = re.search(r"serving at http://[^:]+:(\d+)", line)
        assert match, line + self.process.stderr.read()
        self.port = int(match[1])

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A server for the tests that leave it as it is."""
    server = Server(tmp_path_factory.mktemp("store"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Generator[Callable[..., Server]]:
    """Starts a server for this test alone."""
    started: list[Server] = []

    def start(token: str = "") -> Server:
        server = Server(tmp_path, token)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


class Wire:
    """A proxy that copies bytes to a server, until it is cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: set[socket.socket] = set()
        self._is_cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_cut:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open |= {client, server}
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        self._close(source)
        self._close(target)

    def _close(self, end: socket.socket) -> None:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
        self._open.discard(end)

    def cut(self) -> None:
        """Close the connections, and refuse new ones."""
        self._is_cut = True
        for end in list(self._open):
            self._close(end)

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()


@pytest.fixture
def wire(shared_server: Server) -> Generator[Wire]:
    wire = Wire(shared_server.port)
    yield wire
    wire.close()


@pytest.fixture
def context(browser: Browser) -> Generator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1100, "height": 800}, locale="en-GB", timezone_id="Europe/Berlin")
    context.set_default_timeout(25_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context
    context.close()


class Watched:
    """A tab of the browser, and all that went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self.runs = 0
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)

    def open(self, address: str) -> Watched:
        self.page.goto(address)
        self.page.wait_for_selector("#app:not([hidden])")
        return self

    def say(self, text: str) -> None:
        is_running = self.page.locator("#stop").is_visible()
        self.runs = self.page.locator(".run").count() + (not is_running)
        self.page.fill("#composer-text", text)
        self.page.press("#composer-text", "Enter")

    def until_done(self) -> str:
        """Wait for the end of the last run, and give what it says."""
        run = f".run:nth-child({max(self.runs, 1)})"
        self.page.wait_for_selector(f"{run}:last-child:not(.is-running) .usage", timeout=40_000)
        return self.page.locator(f"{run} .answer").inner_text()


@pytest.fixture
def tab(context: BrowserContext) -> Generator[Watched]:
    watched = Watched(context.new_page())
    yield watched
    assert [problem for problem in watched.problems if "Failed to load resource" not in problem] == []
