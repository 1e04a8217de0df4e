"""The tool that fetches a page. Needs the extra ``http``.

**Allowed addresses.** The tool connects only to public addresses, unless ``allow_networks`` names others: not to this
host, not to local networks, and not to the metadata services of clouds, whatever a prompt injection asks for. It looks
up the host name itself, checks each address, and connects to a checked address instead of the name, which could
resolve to another address a moment later. Each redirect is checked again. Proxies of the environment are ignored,
because a proxy would look up the name where this check cannot see it.
"""

from __future__ import annotations

import codecs
import os
import re
import socket
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import cast
from urllib.parse import quote, urljoin, urlsplit

import trio
from attrs import frozen

from agentloop.errors import ToolError, UsageError
from agentloop.toolkit._addresses import Network, address_of, is_allowed, networks
from agentloop.toolkit._html import html_to_text
from agentloop.toolkit._sockets import Stream, httpcore2, open_stream
from agentloop.toolkit._truncated import MAX_CHARS, open_truncated
from agentloop.tools import Tool, tool

__all__ = ["fetch"]

REDIRECTS = {301, 302, 303, 307, 308}
MAX_ADDRESSES = 4
"""Addresses of a host to try at most."""
ADDRESS_SECONDS = 5.0
"""Seconds to try each address but the last one."""
MAX_ERROR_CHARS = 1000
"""Characters of an error page that the model gets."""
TEXT = re.compile(r"text/.*|application/(.*\+)?(json|xml|yaml)|application/(x-)?(javascript|ndjson|toml|sql|sh)|")
HTML = {"text/html", "application/xhtml+xml"}
# Encodings of the web. Python has others, such as `punycode`, which takes quadratic time on long texts.
CHARSET = re.compile(
    r"ascii|utf_?(8|16|32)(_.*)?|iso8859_\d+|latin_?1|cp(437|8\d\d|9\d\d|125\d)|mac_.*|koi8_.|gb(k|2312|18030)|"
    r"big5(hkscs)?|euc_(jp|kr)|shift_jis(_2004)?|iso2022_jp(_.*)?|tis_620"
)
FAILURES = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    trio.ClosedResourceError,
)


def fetch(
    *,
    allow_networks: Sequence[str] = (),
    timeout: float = 30.0,
    max_redirects: int = 5,
    max_bytes: int = 5_000_000,
    max_chars: int = MAX_CHARS,
    keep_in: str | os.PathLike[str] | None = None,
    user_agent: str = "agentloop",
    requires_approval: bool = False,
    name: str = "fetch",
) -> Tool:
    """A tool that gets a page over HTTP or HTTPS, as text.

    HTML becomes text with headings, lists and links as in Markdown; other text stays as it is; binary content is
    refused. A URL can also carry data out, chosen by the model: if that matters, set ``requires_approval``.

    Args:
      allow_networks: networks to allow although they are not public, such as ``"127.0.0.0/8"``.
      timeout: seconds for the whole call.
      max_redirects: redirects to follow at most.
      max_bytes: bytes of a page after decompression; a larger page is an error.
      max_chars: characters that the model gets at most.
      keep_in: a folder for files with longer texts. Remove the files yourself, or see `SpoolDirectory`.
      user_agent: the value of the ``User-Agent`` header, in ASCII.
      requires_approval: whether the user must approve each call.
      name: the tool's name for the model.

    Raises:
      UsageError: a network is malformed, or a number is out of range.
      MissingExtraError: httpx2 is not installed. Raised by the import of this module.
    """
    try:
        allowed = networks(allow_networks)
    except ValueError as error:
        raise UsageError(f"fetch(allow_networks={list(allow_networks)!r}): {error}") from error
    if max_redirects < 0 or max_bytes < 1 or max_chars < 1 or not user_agent.isprintable() or not user_agent.isascii():
        raise UsageError("fetch(): give limits above 0, and a user_agent of ASCII characters")
    fetcher = _Fetcher(allowed, max_redirects, max_bytes, user_agent.encode("ascii"))
    spool = None if keep_in is None else Path(keep_in).absolute()

    async def get(url: str) -> str:
        """Get a page.

        Args:
          url: an http or https URL.
        """
        text = await fetcher.get(url)
        async with open_truncated(max_chars, keep_in=spool, name=name) as truncated:
            await truncated.add(text)
            return truncated.text()

    return tool(
        name=name,
        description="Get a page or a file from the web, with HTTP GET, as text. Only public hosts can be reached.",
        read_only=True,
        idempotent=True,
        timeout=timeout,
        requires_approval=requires_approval,
    )(get)


@frozen
class _Target:
    """A parsed URL."""

    url: str
    scheme: str
    host: str
    """In ASCII; an IPv6 address without brackets."""
    port: int
    authority: bytes
    """The ``Host`` header."""
    path: bytes
    """With the query, percent-encoded."""


def _target(url: str, base: str = "") -> _Target:
    """Parse a URL, which may be relative to ``base``. Raises `ToolError`."""
    url = url.strip()
    try:
        url = urljoin(base, url)
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        ascii_host = host if host.isascii() else host.encode("idna").decode("ascii")
    except ValueError as error:  # also UnicodeError
        raise ToolError(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not ascii_host or re.search(r"[\s\x00-\x1f\x7f%]", ascii_host):
        raise ToolError(f"{url!r} cannot be fetched: give a URL such as https://example.org/page")
    if parts.username is not None:
        raise ToolError("the URL has a user name, which this tool never sends: leave it out")
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    shown = f"[{ascii_host}]" if ":" in ascii_host else ascii_host
    default = port == (443 if parts.scheme == "https" else 80)
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
    return _Target(
        url.partition("#")[0],
        parts.scheme,
        ascii_host,
        port,
        (shown if default else f"{shown}:{port}").encode("ascii"),
        (path + (f"?{query}" if query else "")).encode("ascii"),
    )


@frozen
class _Page:
    status: int
    type: str
    """The media type in lower case, without parameters; empty without a ``Content-Type`` header."""
    charset: str
    """The ``charset`` parameter of the content type, or empty."""
    location: str | None
    """The target of a redirect; ``None`` for a page."""
    body: bytes


@frozen
class _Fetcher:
    allowed: Sequence[Network]
    max_redirects: int
    max_bytes: int
    user_agent: bytes

    async def get(self, url: str) -> str:
        """The text of the page, after a line with its final URL and media type."""
        target = _target(url)
        for _ in range(self.max_redirects + 1):
            page = await self._request(target)
            if page.location is None:
                break
            target = _target(page.location, target.url)
        else:
            raise ToolError(f"{url} redirects more than {self.max_redirects} times, at last to {target.url}")
        text = await _text_of(page, target.url)
        if not 200 <= page.status < 300:
            raise ToolError(f"{target.url} answers with HTTP status {page.status}: {text[:MAX_ERROR_CHARS].strip()}")
        return f"{target.url} ({page.type or 'no type'})\n\n{text}"

    async def _request(self, target: _Target) -> _Page:
        headers = [
            (b"Host", target.authority),
            (b"User-Agent", self.user_agent),
            (b"Accept", b"text/html, text/*;q=0.9, application/json;q=0.9, */*;q=0.5"),
            (b"Accept-Encoding", b"gzip, deflate"),
            (b"Connection", b"close"),
        ]
        host = target.host.encode("ascii")
        location = httpcore2.URL(scheme=target.scheme.encode(), host=host, port=target.port, target=target.path)
        request = httpcore2.Request("GET", location, headers=headers)
        try:
            async with self._connection(target, location) as connection:
                response = await connection.handle_async_request(request)
                try:
                    return await self._read(response, target)
                finally:
                    with trio.CancelScope(shield=True):
                        await response.aclose()
        except FAILURES as error:
            raise ToolError(f"{target.url} cannot be fetched: {str(error) or type(error).__name__}") from error

    @asynccontextmanager
    async def _connection(
        self, target: _Target, location: httpcore2.URL
    ) -> AsyncGenerator[httpcore2.AsyncHTTP11Connection]:
        stream = await self._connect(target)
        if target.scheme == "https":
            # By name: the certificate is for the name, not the address. On failure it closes the socket.
            stream = await stream.secured(target.host)
        connection = httpcore2.AsyncHTTP11Connection(location.origin, stream)
        try:
            yield connection
        finally:
            with trio.CancelScope(shield=True):
                await connection.aclose()

    async def _connect(self, target: _Target) -> Stream:
        """Connect to one of the target's allowed addresses."""
        *others, last = await self._addresses(target)
        for address in others:
            with suppress(httpcore2.ConnectError), trio.move_on_after(ADDRESS_SECONDS):
                return await open_stream(address, target.port)
        return await open_stream(last, target.port)

    async def _addresses(self, target: _Target) -> Sequence[str]:
        try:
            resolved = await trio.socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ToolError(f"the host {target.host!r} cannot be found") from error
        # Normalised by the system: `2130706433` and `0x7f.1` have become 127.0.0.1.
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in resolved))
        allowed = [address for address in addresses if is_allowed(address_of(address), self.allowed)]
        if not allowed:
            raise ToolError(
                f"{target.host!r} is not on the public internet, and this tool connects to public hosts only: "
                "use another host, or another tool"
            )
        return allowed[:MAX_ADDRESSES]

    async def _read(self, response: httpcore2.Response, target: _Target) -> _Page:
        headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        kind, _, parameters = headers.get(b"content-type", "").partition(";")
        kind = kind.strip().lower()
        match = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", parameters, re.IGNORECASE)
        charset = match[1] if match else ""
        if response.status in REDIRECTS and b"location" in headers:
            return _Page(response.status, kind, charset, headers[b"location"], b"")
        if 200 <= response.status < 300 and not TEXT.fullmatch(kind):
            raise ToolError(f"{target.url} is {kind}, and only text can be fetched")
        body = bytearray()
        decoder = _decompressor(headers.get(b"content-encoding", ""), target)
        async with aclosing(
            cast("AsyncGenerator[bytes]", aiter(cast("AsyncIterable[bytes]", response.stream)))
        ) as chunks:
            async for chunk in chunks:
                if decoder is None:
                    body += chunk
                else:
                    try:
                        # With a limit: some kilobytes may decompress to gigabytes.
                        body += decoder.decompress(chunk, self.max_bytes + 1 - len(body))
                    except zlib.error as error:
                        raise ToolError(f"{target.url} cannot be read: {error}") from error
                if len(body) > self.max_bytes:
                    raise ToolError(f"{target.url} is too large: more than {self.max_bytes} bytes")
        return _Page(response.status, kind, charset, None, bytes(body))


def _decompressor(encoding: str, target: _Target) -> zlib._Decompress | None:
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return zlib.decompressobj(wbits=47)  # both, detected by the header
        case other:
            raise ToolError(f"{target.url} is compressed as {other!r}, which this tool cannot read")


async def _text_of(page: _Page, url: str) -> str:
    def convert() -> str:
        head = page.body[:2048].decode("ascii", "replace")
        is_html = page.type in HTML or (not page.type and re.match(r"\s*<(!doctype html|html)", head, re.IGNORECASE))
        charset = page.charset
        if is_html and not charset:
            match = re.search(r"<meta[^>]+charset\s*=\s*[\"']?([\w.:-]+)", head, re.IGNORECASE)
            charset = match[1] if match else ""
        text = _decoded(page.body, charset)
        return html_to_text(text, url, check=trio.from_thread.check_cancelled) if is_html else text

    return await trio.to_thread.run_sync(convert)


def _decoded(body: bytes, charset: str) -> str:
    for mark, name in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if body.startswith(mark):
            return body.decode(name, "replace").removeprefix("\ufeff")
    try:
        name = codecs.lookup(charset or "utf-8").name.replace("-", "_")
    except (LookupError, ValueError):
        name = "utf_8"
    return body.decode(name if CHARSET.fullmatch(name) else "utf_8", "replace")
