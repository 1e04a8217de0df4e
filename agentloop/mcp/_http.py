"""The transport to a server at a URL.

The SDK's transport reports little of an HTTP error, reads a body of any size, and counts the time of a sign-in. The
HTTP client here stands below that transport, and mends the three.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, cast

import httpx2
import mcp_types as types
import msgspec
import trio
from mcp import MCPError
from mcp.client.streamable_http import streamable_http_client

from agentloop._core.json_text import MAX_OWN_DEPTH, JsonDecoder
from agentloop._core.redaction import redacted, redacted_url
from agentloop.mcp._config import Http
from agentloop.mcp._lines import read_line, without_lone_surrogates
from agentloop.mcp._process import MAX_LINE
from agentloop.mcp._sign_in import SignInError

__all__ = ["connect", "is_session_expired"]

HTTP_CONNECT, HTTP_READ = 30.0, 3600.0
"""Timeouts in seconds. A response may be silent for long while a person thinks; calls have deadlines of their own."""

MAX_ERROR_BODY = 64 * 1024
"""Bytes of the body of an HTTP error."""

ERROR_BODY_SECONDS = 5.0
"""Seconds to wait for the body of an HTTP error."""

MAX_QUOTE = 300
"""Characters of the body of an HTTP error that the error repeats."""

INFLATE_STEP = 64 * 1024

_EXPIRED = {"agentloop": "the HTTP session has expired"}
"""The ``data`` of an error that stands for a session which the server no longer knows."""

_LOGGERS = ("httpx2", "mcp.client.streamable_http", "mcp.client.auth.oauth2")
"""The loggers of libraries that log URLs."""


@asynccontextmanager
async def connect(target: Http, person: Callable[[], AbstractContextManager[None]]) -> AsyncGenerator[Any]:
    """Open the streams that the SDK reads and writes.

    Args:
      target: the server.
      person: makes a context in which the current task may be waiting for a person who signs in.
    """
    headers = {"Accept-Encoding": "gzip", **(target.headers or {})}
    auth = _PatientAuth(target.auth, person) if isinstance(target.auth, httpx2.Auth) else target.auth
    timeout = httpx2.Timeout(HTTP_CONNECT, read=HTTP_READ)
    with _logs_without(target.secrets):
        async with _HttpClient(
            headers=headers, auth=auth, timeout=timeout, event_hooks={"response": [_bound]}
        ) as client:
            connection: AbstractAsyncContextManager[Any] = streamable_http_client(
                target.url, http_client=client, max_sse_event_size=MAX_LINE
            )
            async with connection as streams:
                yield streams


def is_session_expired(error: MCPError) -> bool:
    """Whether the server refused a request, without running it, because it does not know the session any more."""
    return error.data == _EXPIRED or _says_so(error.code, error.message)


_REFUSALS = (-32000, -32001, types.INVALID_REQUEST)
"""The codes that SDKs use for it. An error of another code may come from a tool that was run, and has sessions too."""

_MY_SESSION = r"(?:the |your |this )?(?:mcp[- ])?session(?:[- ]?id)?"
_SAYS_SO = re.compile(
    r"(?:[a-z ]{3,12}: )?(?:"
    rf"(?:no|invalid|missing|unknown|expired|stale|bad)(?: or \w+)? (?:valid )?{_MY_SESSION}\b.{{0,80}}|"
    rf"{_MY_SESSION} ?\S{{0,80}} (?:was |is |has |does )?(?:been )?"
    r"(?:not found|not exist|expired|terminated|unknown|invalid|not valid|timed out|header is required|required)\W?|"
    r"no transport found for session.{0,80}|server not initialized)\W?",
    re.IGNORECASE,
)
"""The words that SDKs use for it, from the first to the last."""


def _says_so(code: int, message: str) -> bool:
    return code in _REFUSALS and _SAYS_SO.fullmatch(message.strip()) is not None


# ------------------------------------------------------------------------- HTTP errors


class _HttpClient(httpx2.AsyncClient):
    """Answers a request whose HTTP response is an error with a JSON-RPC error that has the facts."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        id = _request_id(request)
        _continue_trace(request)
        try:
            response = await super().send(request, **options)
        except SignInError as refusal:
            # It fails the call that needs it. A handshake fails as a whole: its next message would ask once more.
            if id is None or _is_handshake(request):
                raise
            return _answer(request, id, types.ErrorData(code=types.INTERNAL_ERROR, message=str(refusal)))
        if id is None:
            return response
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_answer = kind in ("application/json", "text/event-stream") or response.status_code == 202
        if response.is_success and kind == "application/json":
            return await _checked(response, id)
        if response.is_redirect or (response.is_success and is_answer):
            return response
        body = await _read_error(response)
        error = _refusal(body) if kind == "application/json" else None
        described = _describe(response, kind, body, has_error=error is not None)
        if _is_expired(request, response, error, body):
            error = types.ErrorData(code=types.INVALID_REQUEST, message=described, data=_EXPIRED)
        elif error is None:
            code = types.METHOD_NOT_FOUND if response.status_code == 404 else types.INTERNAL_ERROR
            error = types.ErrorData(code=code, message=described)
        elif response.status_code not in (400, 404):
            # Both are, in some versions of the protocol, the usual status of a JSON-RPC error.
            error = types.ErrorData(code=error.code, message=f"{error.message} ({described})", data=error.data)
        return _answer(request, id, error, response.status_code)


_OF_THE_BODY = ("content-length", "content-encoding", "transfer-encoding")


async def _checked(response: httpx2.Response, id: str | int) -> httpx2.Response:
    """``response``, whose body is to be the answer to the request ``id``, with a body that is one."""
    try:
        body = b"".join([piece async for piece in response.aiter_bytes()])
    except httpx2.StreamError as error:
        return _answer(response.request, id, types.ErrorData(code=types.PARSE_ERROR, message=str(error)))
    finally:
        await response.aclose()
    messages = [message for message in read_line(body, [id]) if not isinstance(message, types.JSONRPCNotification)]
    for message in messages:
        if message.id == id or message.id is None:
            try:
                content = message.model_dump_json(by_alias=True, exclude_unset=True).encode()
            except (ValueError, RecursionError):
                problem = "the server answered with a value that is nested too deeply"
                return _answer(response.request, id, types.ErrorData(code=types.PARSE_ERROR, message=problem))
            # With its headers: one of them names the session.
            headers = [field for field in response.headers.multi_items() if field[0] not in _OF_THE_BODY]
            return httpx2.Response(200, headers=headers, content=content, request=response.request)
    described = _describe(response, "application/json", body[:MAX_ERROR_BODY], has_error=False)
    return _answer(response.request, id, types.ErrorData(code=types.PARSE_ERROR, message=described))


def _answer(request: httpx2.Request, id: str | int, error: types.ErrorData, status: int = 400) -> httpx2.Response:
    """A response with ``error``. Its status is that of an error in any case: the SDK then reads the body."""
    answer = types.JSONRPCError(jsonrpc="2.0", id=id, error=error)
    return httpx2.Response(
        max(status, 400),
        headers={"content-type": "application/json"},
        content=answer.model_dump_json(by_alias=True, exclude_unset=True).encode(),
        request=request,
    )


def _posted(request: httpx2.Request) -> _Posted:
    if request.method != "POST":
        return _Posted()
    try:
        return _POSTED.decode(request.content)
    except (msgspec.DecodeError, UnicodeError, httpx2.RequestNotRead):
        return _Posted()


def _request_id(request: httpx2.Request) -> str | int | None:
    """The id of a JSON-RPC request; ``None`` for a notification or an answer, which has no answer itself."""
    message = _posted(request)
    return message.id if message.method else None


def _is_handshake(request: httpx2.Request) -> bool:
    return _posted(request).method in ("initialize", "server/discover")


class _Posted(msgspec.Struct):
    id: str | int | None = None
    method: str = ""


_POSTED = JsonDecoder(_Posted, max_depth=MAX_OWN_DEPTH)


class _TraceContext(msgspec.Struct):
    traceparent: str = ""
    tracestate: str = ""


class _Params(msgspec.Struct):
    meta: _TraceContext = msgspec.field(name="_meta")


class _Traced(msgspec.Struct):
    params: _Params


_TRACED = JsonDecoder(_Traced, max_depth=MAX_OWN_DEPTH)


def _continue_trace(request: httpx2.Request) -> None:
    """Repeat the trace context of a message as headers, for a server that looks only there, and for gateways.

    The SDK puts it into the message, in the task of the tool call; it sends the message in another task.
    """
    if request.method != "POST" or "traceparent" in request.headers:
        return
    try:
        if b'"traceparent"' not in request.content:
            return
        context = _TRACED.decode(request.content).params.meta
    except (msgspec.DecodeError, UnicodeError, httpx2.RequestNotRead):
        return
    if re.fullmatch("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", context.traceparent):
        request.headers["traceparent"] = context.traceparent
        if re.fullmatch("[!-~]([ -~]{0,510}[!-~])?", context.tracestate):
            request.headers["tracestate"] = context.tracestate


async def _read_error(response: httpx2.Response) -> bytes:
    body = b""
    try:
        with trio.move_on_after(ERROR_BODY_SECONDS):
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_ERROR_BODY:
                    break
    except (httpx2.HTTPError, httpx2.StreamError):
        # The status is enough.
        pass
    finally:
        await response.aclose()
    return body[:MAX_ERROR_BODY]


def _refusal(body: bytes) -> types.ErrorData | None:
    """The JSON-RPC error in ``body``, if there is one."""
    try:
        message = types.jsonrpc_message_adapter.validate_json(body, by_name=False)
    except ValueError:
        return None
    return message.error if isinstance(message, types.JSONRPCError) else None


def _is_expired(request: httpx2.Request, response: httpx2.Response, error: types.ErrorData | None, body: bytes) -> bool:
    if "mcp-session-id" not in request.headers:
        return False
    status = response.status_code
    if status in (404, 410):
        # The protocol's status for a session that the server does not know. Without the method there is no session.
        return error is None or error.code != types.METHOD_NOT_FOUND
    if error is not None:
        # An error of a tool that has run has the status of a success.
        is_early = status in (400, 403, 409) and error.code in _REFUSALS
        return is_early and re.search("session|not initialized", error.message, re.IGNORECASE) is not None
    # No JSON-RPC: the request came no farther than to the check of its headers.
    return status == 400 and re.search(rb"session", body, re.IGNORECASE) is not None


def _describe(response: httpx2.Response, kind: str, body: bytes, *, has_error: bool) -> str:
    """What an operator needs to know about an HTTP error: the status, the URL, what to do, what the server wrote."""
    status = response.status_code
    text = f"HTTP {status} {response.reason_phrase}".rstrip() + f" from {redacted_url(str(response.request.url))}"
    if response.is_success:
        in_place = "a body that is no answer" if kind == "application/json" else kind or "no content type"
        text += f", with {in_place} in the place of a message: is that the URL of an MCP endpoint?"
    elif hint := _hint(response):
        text += f": {hint}"
    quote = "" if has_error or kind == "text/html" else " ".join(body.decode(errors="replace").split())
    if len(quote) > MAX_QUOTE:
        quote = quote[:MAX_QUOTE] + "..."
    return f"{text}; the body says: {quote}" if quote else text


def _hint(response: httpx2.Response) -> str:
    match response.status_code:
        case 401:
            return "the server wants to know who asks: give auth= or headers= to McpServer.http()"
        case 403:
            return "the server does not allow it: check auth= and headers= of McpServer.http()"
        case 407:
            return "a proxy wants to know who asks"
        case 404 | 405 | 406 | 415:
            return (
                "no MCP endpoint is at this URL, or one that speaks only the legacy HTTP+SSE transport, which is not "
                "supported: look for the server's streamable HTTP endpoint, often /mcp"
            )
        case 429:
            after = response.headers.get("retry-after", "")
            return "too many requests" + (f": try again after {after[:40]}" if after else "")
        case _:
            return ""


# ------------------------------------------------------------------------ size of bodies


class BodyTooLongError(httpx2.StreamError):
    """A body has more bytes than may be read. The SDK reports a `httpx2.StreamError` to the request alone."""


async def _bound(response: httpx2.Response) -> None:  # noqa: ASYNC124 - the client awaits it
    """Limit the body of ``response`` after decompression. A hook of the client: sign-ins are covered as well."""
    encodings = [
        name for name in response.headers.get_list("content-encoding", split_commas=True) if name != "identity"
    ]
    # The SDK limits each event of a stream, which may go on for long.
    is_stream = response.headers.get("content-type", "").lower().startswith("text/event-stream")
    response.stream = _BoundedStream(cast("httpx2.AsyncByteStream", response.stream), encodings, is_stream)
    if encodings:
        # Else the client would decompress a second time.
        del response.headers["content-encoding"]


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, encodings: list[str], is_endless: bool) -> None:
        self._stream = stream
        self._encodings = encodings
        self._is_endless = is_endless

    async def __aiter__(self) -> AsyncIterator[bytes]:  # noqa: ASYNC900, ASYNC911 - the interface
        size, line = 0, b""
        async for packed in self._stream:
            for piece in self._inflated(packed):  # noqa: ASYNC911 - between two pieces of one packet
                if self._is_endless:
                    # Whole lines: one of them may have to be mended.
                    lines, end, line = (line + piece).rpartition(b"\n")
                    size = len(line)
                    if lines or end:
                        yield without_lone_surrogates(lines + end)  # noqa: ASYNC911
                else:
                    size += len(piece)
                    yield piece  # noqa: ASYNC911
                if size > MAX_LINE:
                    raise BodyTooLongError(f"the body has more than {MAX_LINE} bytes")
        if line:
            yield line

    def _inflated(self, packed: bytes) -> Iterator[bytes]:
        if not self._encodings:
            yield packed
            return
        if self._encodings != ["gzip"]:
            raise httpx2.DecodingError(f"the body is encoded as {', '.join(self._encodings)}, which was not asked for")
        if not hasattr(self, "_inflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            while piece := self._inflate.decompress(packed, INFLATE_STEP):
                yield piece
                packed = self._inflate.unconsumed_tail
        except zlib.error as error:
            raise httpx2.DecodingError(f"the body is not gzip: {error}") from error

    async def aclose(self) -> None:
        await self._stream.aclose()


# ---------------------------------------------------------------------------- sign-ins


class _PatientAuth(httpx2.Auth):
    """Runs the steps of an ``httpx2.Auth`` as time of a person: it may wait in its own code for a sign-in.

    The requests that it makes, for tokens say, are yielded to the client, and their time counts.
    """

    def __init__(self, auth: httpx2.Auth, person: Callable[[], AbstractContextManager[None]]) -> None:
        self._auth = auth
        self._person = person
        self.requires_request_body = auth.requires_request_body
        self.requires_response_body = auth.requires_response_body

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:  # noqa: ASYNC900
        flow = self._auth.async_auth_flow(request)
        try:
            with self._person():
                outgoing = await anext(flow)
            while True:
                response = yield outgoing
                with self._person():
                    outgoing = await flow.asend(response)
        except StopAsyncIteration:
            return  # noqa: ASYNC911
        finally:
            await flow.aclose()


# -------------------------------------------------------------------------------- logs


@contextmanager
def _logs_without(secrets: frozenset[str]) -> Generator[None]:
    """Remove ``secrets``, and all that looks like a key, from what the libraries log meanwhile."""

    def clean(record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a record that cannot be formatted is the handler's to report
            return True
        shown = redacted(text, secrets)
        if shown != text:
            record.msg, record.args = shown, None
        return True

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(clean)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(clean)
