"""The page at ``/``: its files, and the headers that keep text from outside from becoming markup. No browser here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import agentloop.__main__ as command
from agentloop import serving
from agentloop.errors import MissingExtraError
from agentloop.serving import BearerTokens, app
from agentloop.serving._app import ServedApp
from agentloop.serving._command import main
from tests.serving.support import Client, make_agent

FOLDER = Path(serving.__file__).parent / "page"
NAMES = sorted(file.name for file in FOLDER.iterdir())
TOKEN = "t" * 20
FROM_A_LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def test_each_file_of_the_page_is_served_with_its_type_and_a_strict_policy() -> None:
    client = Client(app(make_agent()))
    index = await client.get("/")
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    types = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
    for name in NAMES:
        reply = index if name == "index.html" else await client.get(f"/page/{name}")
        assert reply.status == 200
        assert reply.body == (FOLDER / name).read_bytes()
        if name != "index.html":
            assert reply.headers["content-type"] == types[name.rpartition(".")[2]]
        policy = dict(part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "/page",
        "/page/",
        "/page/index.html",
        "/page/../_app.py",
        "/page/%2e%2e/_app.py",
        "/page//etc/passwd",
        "/page/x.js",
    ],
)
async def test_no_path_leads_to_another_file(path: str) -> None:
    reply = await Client(app(make_agent())).get(path)
    assert reply.status == 404
    assert reply.json["error"]["message"]


def test_the_page_has_no_markup_in_scripts_no_inline_code_and_no_address_of_another_site() -> None:
    index = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\bon\w+=|style=|<style|<script(?! type=\"module\" src=\"page/)", index)
    for name in NAMES:
        text = (FOLDER / name).read_text(encoding="utf-8")
        forbidden = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\("
        )
        assert not re.search(forbidden, text), name
        assert not re.findall(r"(?:src|href|from|import|url)[ =(]+[\"']?https?://", text), name


async def test_the_page_needs_no_token_and_tells_nothing_while_the_endpoints_do() -> None:
    served = app(make_agent("secret-agent"), authenticate=BearerTokens({TOKEN: "ann"}))
    anyone = Client(served, address=("203.0.113.9", 1))
    pages = [await anyone.get("/"), await Client(served, token=TOKEN).get("/")]
    assert [page.status for page in pages] == [200, 200]
    assert pages[0].body == pages[1].body
    assert b"secret-agent" not in pages[0].body
    assert b"ann" not in pages[0].body.replace(b"announcer", b"")
    assert (await anyone.get("/agents")).status == 401
    assert (await anyone.get("/sessions")).status == 401
    assert (await anyone.post("/")).status == 401


async def test_without_an_authenticator_the_page_is_for_this_machine_alone() -> None:
    served = app(make_agent())
    assert (await Client(served, address=("203.0.113.9", 1)).get("/")).status == 403
    assert (await Client(served, headers={"x-forwarded-for": "203.0.113.9"}).get("/")).status == 403
    assert (await Client(served, headers={"host": "evil.example"}).get("/")).status == 421


async def test_a_link_on_another_site_leads_to_the_page_and_to_no_endpoint() -> None:
    client = Client(app(make_agent()))
    assert (await client.get("/", FROM_A_LINK)).status == 200
    assert (await client.get("/agents", FROM_A_LINK)).status == 403
    assert (
        await client.get("/page/main.js", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"})
    ).status == 403
    assert (await client.get("/", {**FROM_A_LINK, "sec-fetch-dest": "iframe"})).status == 403


@pytest.mark.parametrize("options", [{"page": False}, {"protocols": ["openai"]}])
async def test_an_app_may_have_no_page(options: dict[str, object]) -> None:
    assert (await Client(app(make_agent(), **options)).get("/")).status == 404  # type: ignore[arg-type]


async def test_a_mounted_app_serves_its_page_below_its_path() -> None:
    served = app(make_agent())
    outer = Starlette(routes=[Mount("/agents-here", served)])
    client = Client(outer)  # type: ignore[arg-type]
    assert (await client.get("/agents-here/")).status == 200
    assert (await client.get("/agents-here/page/main.js")).status == 200
    assert (await client.get("/agents-here/page/_app.py")).status == 404


def test_the_command_serves_the_page_unless_it_is_told_not_to(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    ran: list[ServedApp] = []

    async def run(served: ServedApp, **options: object) -> None:
        ran.append(served)

    monkeypatch.setattr("agentloop.serving._command.run", run)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    # Without a word about sessions, a server that is killed and started again has all of them.
    assert main(["serve", "agentloop.demo:agents"]) == 0
    assert f"sessions are in {tmp_path / 'data' / 'agentloop' / 'agentloop.demo-agents.db'}" in caplog.text
    assert main(["serve", "agentloop.demo:agents", "--store", "memory"]) == 0
    assert "sessions are in memory" in caplog.text
    assert main(["serve", "agentloop.demo:agents", "--no-page", "--store", str(tmp_path / "chats.db")]) == 0
    assert f"sessions are in {tmp_path / 'chats.db'}" in caplog.text
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert main(["serve", "agentloop.demo:agents"]) == 0
    assert "this user has no folder for data" in caplog.text
    paths = [{route.path for route in served.routes} for served in ran]
    assert ["/" in found for found in paths] == [True, True, False, True]


def test_a_command_whose_extra_is_missing_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str) -> None:
        raise MissingExtraError(feature="agentloop.serving", extra="serve", package="starlette")

    monkeypatch.setattr("agentloop.__main__.import_module", fail)
    monkeypatch.setattr("sys.argv", ["agentloop", "serve", "agentloop.demo:agents"])
    assert command.main() == 2
    errors = capsys.readouterr().err
    assert errors.startswith("agentloop: agentloop.serving needs the package 'starlette'")
    assert errors.count("\n") == 1
