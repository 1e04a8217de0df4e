"""Getting a page, and from nowhere that is not allowed."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from agentloop import Agent, Tool, UsageError
from agentloop.events import ToolCallStarted
from agentloop.messages import ToolResult
from agentloop.testing import ScriptedModel, calls
from agentloop.toolkit import _sockets
from agentloop.toolkit.web import fetch
from tests.providers.server import CERTIFICATE, Handler, Server, answer, answering, chunked, serving
from tests.support import first
from tests.toolkit.builders import names_in, open_descriptors

pytestmark = pytest.mark.real_clock

PAGE = b"<html><head><title>Hi</title></head><body><h1>Hello</h1><a href='/x'>there</a></body></html>"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(variable)


def local(**options: Any) -> Tool:
    """May connect to this one address, on which the server listens."""
    return fetch(**{"allow_networks": ["127.0.0.1"], **options})


class Names(trio.abc.HostnameResolver):
    """A resolver that gives each name its addresses, those of the n-th lookup by the n-th list."""

    def __init__(self, **names: Sequence[Sequence[str]]) -> None:
        self._names = {f"{name}.test": list(lists) for name, lists in names.items()}
        self.asked: list[str] = []

    async def getaddrinfo(
        self, host: bytes | None, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        assert host is not None
        name = host.decode()
        self.asked.append(name)
        if name not in self._names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        lists = self._names[name]
        addresses = lists.pop(0) if len(lists) > 1 else lists[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in addresses]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@asynccontextmanager
async def site(handler: Handler, **names: Sequence[Sequence[str]]) -> AsyncGenerator[tuple[Server, str, Names]]:
    """A server, its port as a suffix for hosts, and the resolver in use."""
    resolver = Names(**{"site": [["127.0.0.1"]], **names})
    async with serving(handler) as server:
        trio.socket.set_custom_hostname_resolver(resolver)
        yield server, ":" + server.url.rpartition(":")[2].partition("/")[0], resolver


async def call(tool: Tool, **arguments: Any) -> ToolResult:
    """The result of one call. The server has tasks of its own, so that they cannot be counted here."""
    outcome = await Agent(ScriptedModel(calls(tool.name, **arguments), "Done."), tools=[tool]).run("go")
    assert outcome.reason == "completed"
    result = outcome.messages[-2]
    assert isinstance(result, ToolResult)
    return result


async def got(body: bytes, tool: Tool | None = None, **options: Any) -> ToolResult:
    """What comes of a page that has ``body``."""
    async with site(answering(answer(body, **options))) as (_, port, _):
        return await call(local() if tool is None else tool, url=f"http://site.test{port}/page")


def redirect(to: str, status: str = "302 Found") -> bytes:
    return answer(b"", status=status, extra=f"Location: {to}\r\n")


# ------------------------------------------------------------------------------ what comes


async def test_a_page_is_told_as_text_under_its_address() -> None:
    async with site(answering(answer(PAGE, type="text/html; charset=utf-8"))) as (server, port, _):
        result = await call(local(), url=f" http://Site.test{port}/dir/page?q=a b&r=%20ü#part ")

    text = f"Hi\n\n# Hello\n\n[there](http://Site.test{port}/x)"
    assert result.text == f"http://Site.test{port}/dir/page?q=a b&r=%20ü (text/html)\n\n{text}"
    [request] = server.requests
    assert request.line == "GET /dir/page?q=a%20b&r=%20%C3%BC HTTP/1.1"
    assert request.headers["host"] == f"site.test{port}"
    assert request.headers["user-agent"] == "agentloop"
    assert "cookie" not in request.headers


@pytest.mark.parametrize("type", ["text/plain", "application/json", "application/ld+json", "text/csv"])
async def test_other_texts_stay_as_they_are(type: str) -> None:
    assert (await got(b'{"a": "<b>"}', type=type)).text.endswith(f'({type})\n\n{{"a": "<b>"}}')


@pytest.mark.parametrize("type", ["image/png", "application/pdf", "application/octet-stream", "video/mp4"])
async def test_what_is_no_text_is_refused(type: str) -> None:
    result = await got(b"\x89PNG", type=type)

    assert (result.status, result.text.partition(" is ")[2]) == ("error", f"{type}, and only text can be fetched")


@pytest.mark.parametrize(
    ("body", "type", "text"),
    [
        ("é".encode("latin-1"), "text/plain; charset=ISO-8859-1", "é"),
        ("é".encode(), "text/plain", "é"),
        ("é".encode("utf-16"), "text/plain", "é"),
        ("\ufeffé".encode(), "text/plain; charset=latin-1", "é"),
        ("é".encode(), "text/plain; charset=nonsense", "é"),
        (b"abc-", "text/plain; charset=punycode", "abc-"),
        (b"\xff", "text/plain", "\ufffd"),
        (b'<meta charset="windows-1252"><p>\x80', "text/html", "€"),
        ("<!DOCTYPE html><p>é".encode(), "", "é"),
        ("日本".encode("shift_jis"), "text/plain; charset=Shift_JIS", "日本"),
    ],
)
async def test_a_text_is_read_in_its_encoding(body: bytes, type: str, text: str) -> None:
    assert (await got(body, type=type)).text.partition("\n\n")[2] == text


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_page_is_read(encoding: str) -> None:
    packed = gzip.compress(b"hello") if encoding == "gzip" else zlib.compress(b"hello")

    result = await got(packed, type="text/plain", extra=f"Content-Encoding: {encoding}\r\n")

    assert result.text.endswith("\n\nhello")


@pytest.mark.parametrize(("encoding", "words"), [("br", "is compressed as 'br'"), ("gzip", "cannot be read")])
async def test_what_cannot_be_unpacked_is_an_error(encoding: str, words: str) -> None:
    result = await got(b"hello", type="text/plain", extra=f"Content-Encoding: {encoding}\r\n")

    assert (result.status, words in result.text) == ("error", True)


@pytest.mark.parametrize("packed", [False, True])
async def test_a_page_that_is_too_large_is_refused_before_all_of_it_is_there(packed: bool) -> None:
    """A few kilobytes can be gigabytes when unpacked."""
    body = gzip.compress(bytes(10_000_000)) if packed else bytes(2000)
    extra = "Content-Encoding: gzip\r\n" if packed else ""

    tracemalloc.start()
    try:
        result = await got(body, local(max_bytes=1000), type="text/plain", extra=extra)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 5_000_000
    assert (result.status, result.text.partition(" is ")[2]) == ("error", "too large: more than 1000 bytes")


async def test_a_long_page_is_told_in_part_and_kept_where_the_user_says(tmp_path: Path) -> None:
    body = b"begin" + b"x" * 5000 + b"end"

    result = await got(body, local(max_chars=100, keep_in=tmp_path), type="text/plain")

    [name] = names_in(tmp_path)
    assert f"the whole is in {tmp_path / name}" in result.text
    assert (tmp_path / name).read_text().endswith("xend")


async def test_a_status_that_is_no_success_is_an_error_with_what_the_page_says() -> None:
    result = await got(b"<p>no such page</p>", status="404 Not Found", type="text/html")

    assert result.status == "error"
    assert result.text.endswith("/page answers with HTTP status 404: no such page")


# ------------------------------------------------------------------------------ redirects


async def test_a_redirect_is_followed_relative_to_where_it_is() -> None:
    async with site(answering(redirect("../other?x=1"), answer(b"here", type="text/plain"))) as (server, port, _):
        result = await call(local(), url=f"http://site.test{port}/a/b/c")

    assert result.text == f"http://site.test{port}/a/other?x=1 (text/plain)\n\nhere"
    assert server.connections == 2


async def test_there_is_an_end_to_redirects() -> None:
    async with site(answering(*[redirect("/again")] * 10)) as (server, port, _):
        result = await call(local(max_redirects=3), url=f"http://site.test{port}/")

    assert "redirects more than 3 times" in result.text
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("http://127.0.0.2{port}/", "is not on the public internet"),
        ("http://inner.test{port}/", "is not on the public internet"),
        ("//169.254.169.254/latest/meta-data", "is not on the public internet"),
        ("http://[::ffff:127.0.0.2]{port}/", "is not on the public internet"),
        ("file:///etc/passwd", "cannot be fetched: give a URL"),
        ("gopher://site.test/", "cannot be fetched: give a URL"),
        ("http://user:word@site.test{port}/", "has a user name"),
        ("http://[", "is not a URL"),
    ],
)
async def test_a_redirect_is_judged_as_the_first_url_is(to: str, words: str) -> None:
    async with site(answering(redirect("/x")), inner=[["127.0.0.2"]]) as (_, port, _):
        pass
    async with site(answering(redirect(to.replace("{port}", port))), inner=[["127.0.0.2"]]) as (server, port2, _):
        result = await call(local(), url=f"http://site.test{port2}/")

    assert result.status == "error"
    assert words in result.text
    assert len(server.requests) == 1


# --------------------------------------------------------------------- where it may connect


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST", "ⓛocalhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1",
        "0177.0.0.1", "0x7f000001", "0", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.100.100.200",
        "168.63.129.16", "[fd00:ec2::254]", "[fe80::1]", "224.0.0.1", "255.255.255.255", "127。0。0。1",
    ],
)  # fmt: skip
async def test_an_address_that_is_not_public_is_never_connected_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("it connects")

    monkeypatch.setattr(trio, "open_tcp_stream", refuse)

    result = await call(fetch(), url=f"http://{host}/")

    assert result.status == "error"
    assert "is not on the public internet" in result.text


async def test_a_name_that_leads_inside_is_refused() -> None:
    async with site(answering(), inner=[["10.0.0.1", "127.0.0.2", "169.254.169.254"]]) as (server, port, _):
        result = await call(local(), url=f"http://inner.test{port}/")

    assert "'inner.test' is not on the public internet" in result.text
    assert server.connections == 0


async def test_a_name_is_looked_up_once_and_what_was_judged_is_connected_to() -> None:
    """Else a name server could tell the judge one address, and the connection another."""
    names = [["127.0.0.1"], ["127.0.0.2"]]
    async with site(answering(answer(b"here", type="text/plain")), rebinding=names) as (server, port, resolver):
        result = await call(local(), url=f"http://rebinding.test{port}/")

    assert result.text.endswith("here")
    assert resolver.asked == ["rebinding.test"]
    assert server.connections == 1


async def test_of_several_addresses_only_those_are_tried_that_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    real, tried = trio.open_tcp_stream, []

    async def connect(host: str, port: int, **options: Any) -> trio.SocketStream:
        tried.append(host)
        if host == "93.184.216.34":
            raise OSError("unreachable")
        return await real(host, port, **options)

    monkeypatch.setattr(trio, "open_tcp_stream", connect)
    addresses = ["10.0.0.1", "93.184.216.34", "127.0.0.1"]
    async with site(answering(answer(b"here", type="text/plain")), both=[addresses]) as (_, port, _):
        result = await call(local(), url=f"http://both.test{port}/")

    assert result.text.endswith("here")
    assert tried == ["93.184.216.34", "127.0.0.1"]


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look the name up itself, where nobody judges."""
    async with site(answering(answer(b"here", type="text/plain"))) as (_, port, _):
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(variable, "http://127.0.0.1:1")
        assert (await call(local(), url=f"http://site.test{port}/")).text.endswith("here")


@pytest.mark.parametrize(
    "url",
    ["", "site.test", "ftp://site.test/", "file:///etc/passwd", "http://", "http:///x", "http://a b/", "http://a%00b/",
     "http://x:99999/", "http://[::1", "http://xn--\u0300/", "javascript:alert(1)", "http://" + "a" * 70 + "é/"],
)  # fmt: skip
async def test_what_is_no_url_is_refused(url: str) -> None:
    result = await call(local(), url=url)

    assert (result.status, "a URL" in result.text) == ("error", True)


@pytest.mark.parametrize(
    "options", [{"max_redirects": -1}, {"max_bytes": 0}, {"user_agent": "a\r\nb"}, {"allow_networks": ["nonsense"]}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"fetch\("):
        fetch(**options)


def test_getting_a_page_needs_no_approval_unless_told_otherwise() -> None:
    assert fetch().read_only
    assert not fetch().requires_approval
    assert fetch(requires_approval=True).requires_approval


def test_without_the_extra_there_is_one_sentence_and_the_other_tools() -> None:
    code = (
        "import sys; sys.modules['httpcore2'] = None; import agentloop.toolkit\n"
        "try: import agentloop.toolkit.web\nexcept agentloop.errors.MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    problem = "fetch() needs the package 'httpx2', which is not installed: pip install 'agentloop-trio[http]'"
    assert problem in done.stdout


# ------------------------------------------------------------------------------- failures


async def test_a_host_that_is_not_there_is_named() -> None:
    async with site(answering()) as (_, port, _):
        result = await call(local(), url=f"http://missing.test{port}/")

    assert (result.status, result.text) == ("error", "the host 'missing.test' cannot be found")


async def test_a_server_that_does_not_listen_is_an_error_that_says_so() -> None:
    async with site(answering()) as (_, port, _):
        pass
    result = await call(local(), url=f"http://127.0.0.1{port}/")

    assert result.text.startswith(f"http://127.0.0.1{port}/ cannot be fetched: ConnectionRefusedError")


@pytest.mark.parametrize("sent", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"])
async def test_a_server_that_breaks_off_is_an_error_that_says_so(sent: bytes) -> None:
    async def handler(peer: Any) -> None:
        await peer.request()
        await peer.send(sent) if sent else None

    async with site(handler) as (_, port, _):
        result = await call(local(), url=f"http://site.test{port}/")

    assert result.status == "error"
    assert "cannot be fetched: " in result.text


async def test_a_server_that_takes_too_long_is_left_alone() -> None:
    before = open_descriptors()
    async with site(answering(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")) as (_, port, _):
        result = await call(local(timeout=0.1), url=f"http://site.test{port}/")

        assert (result.status, result.text) == ("timeout", "Timed out after 0.1 s.")
    assert open_descriptors() == before


@pytest.mark.parametrize("after", [0.0, 0.001, 0.003, 0.006, 0.02])
async def test_cancelled_at_any_moment_no_socket_is_left(after: float) -> None:
    before = open_descriptors()
    async with site(answering(redirect("/"), chunked(b"x", type="text/plain")[:-5])) as (_, port, _):
        agent = Agent(ScriptedModel(calls("fetch", url=f"http://site.test{port}/"), "Done."), tools=[local()])
        async with agent.stream("go") as stream:
            await first(stream, ToolCallStarted)
            await trio.sleep(after)
    assert stream.outcome.reason == "cancelled"
    assert open_descriptors() == before


# ------------------------------------------------------------------------------------ TLS


@pytest.fixture
def certificates() -> Any:
    _sockets.ssl_context.cache_clear()
    yield
    _sockets.ssl_context.cache_clear()


async def test_a_certificate_that_is_not_trusted_is_an_error(certificates: None) -> None:
    async with serving(answering(answer(b"secret", type="text/plain")), tls=True) as server:
        result = await call(local(allow_networks=["127.0.0.0/8"]), url=server.url)

    assert (result.status, "CERTIFICATE_VERIFY_FAILED" in result.text) == ("error", True)
    assert server.requests == []


async def test_a_certificate_is_judged_by_the_name_although_an_address_is_connected_to(
    certificates: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    async with serving(answering(answer(b"trusted", type="text/plain")), tls=True) as server:
        trio.socket.set_custom_hostname_resolver(Names(site=[["127.0.0.1"]]))
        wrong = await call(local(), url=server.url.replace("localhost", "site.test"))
        trio.socket.set_custom_hostname_resolver(None)
        right = await call(local(), url=server.url)

    assert "CERTIFICATE_VERIFY_FAILED" in wrong.text
    assert right.text.endswith("trusted")
