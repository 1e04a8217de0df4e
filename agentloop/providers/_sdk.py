"""Requests over a client of a provider's own SDK: the SDK signs, addresses and sends, what comes back is ours to read.

What our writers wrote goes through the client's ``post``, the documented way to a path of one's choice, on which the
clients for Azure, Bedrock, Vertex and gateways do their part. Of the stream that it gives we take the bytes, and not
the SDK's objects, for these reasons, each of which was seen to matter (openai 3.54, anthropic 2.12):

- The SDK's stream stops at ``[DONE]`` or at an error in mid-stream, and leaves its generators and httpx2's to the
  garbage collector, for which trio warns. Our readers read on to the end.
- It drops pings: of a model that thinks in silence they are the only sign.
- It raises at an error in mid-stream what says less than the error did.
- An event that it does not know, or an answer that is no stream, is not an error for our readers.

The connections are the client's. What httpx2 (2.16) does not do for it cannot be done here: of a request that is
cancelled during the TLS handshake, it leaves the socket to the garbage collector.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from inspect import iscoroutinefunction
from typing import Any, Protocol, cast

import httpx2
import trio
from attrs import frozen

from agentloop._core.json_text import decode_own
from agentloop.errors import ModelConnectionError, ModelError, ModelProtocolError, UsageError
from agentloop.providers._connections import _cause
from agentloop.providers._events import WireEvents
from agentloop.providers._failures import codes_of, failure
from agentloop.providers._frames import FRAMES_TYPE, FrameParser
from agentloop.providers._network import check_network

__all__ = ["Sdk", "SdkStream", "async_client", "posting"]

UNWINDING_STEPS = 10_000
"""How many pieces that are there already are thrown away on the way to the network. httpx2 reads 64 KiB at once, and
a piece is not often empty: more come only of a transport that makes them up."""
CLOSING_SECONDS = 5.0


class SdkStream(Protocol):
    """What an SDK gives for a request that asks for a stream."""

    response: httpx2.Response
    """Its status is a success, and nothing of it was read."""


class _Refusal(Protocol):
    """An SDK's error for an answer that is no success."""

    status_code: int
    body: object
    response: httpx2.Response


class _Failure(Protocol):
    """An SDK's error for a server that could not be reached."""

    request: httpx2.Request


@frozen
class Sdk:
    """The errors of an SDK."""

    api_error: type[Exception]
    """What all have in common that tell what the server said."""
    status_error: type[Exception]
    connection_error: type[Exception]
    timeout_error: type[Exception]

    @asynccontextmanager
    async def events(
        self, model: str, url: str, post: Callable[[], Awaitable[SdkStream]]
    ) -> AsyncGenerator[WireEvents]:
        """Send a request, and give the events of its answer as they come.

        When the block ends, no more is read, and no generator is left half-way. The connection goes back to the
        client if the answer was read to its end, else it is closed.

        Args:
          model: what errors call the model.
          url: where the client's requests go.
          post: sends the request.

        Raises:
          NetworkForbiddenError: models behind a network are forbidden here.
          ModelStatusError: the answer is no success.
          ModelConnectionError: there was no answer.
          ModelProtocolError: the SDK can make nothing of it.
        """
        check_network(model=model, url=url)
        failures = _connection_failures()
        response = (await self._sent(model, post, failures)).response
        chunks = response.aiter_bytes()
        content_type = response.headers.get("content-type", "")
        told = _Framed(model, chunks) if content_type.startswith(FRAMES_TYPE) else chunks
        try:
            yield WireEvents(model, told, content_type, failures)
        finally:
            with trio.move_on_after(CLOSING_SECONDS, shield=True):
                await _unwind(chunks)
                # There is nothing left to close but what a transport of the user's own may hold.
                await response.aclose()

    async def _sent(
        self, model: str, post: Callable[[], Awaitable[SdkStream]], failures: tuple[type[Exception], ...]
    ) -> SdkStream:
        try:
            return await post()
        except self.status_error as error:
            raise _refused(model, cast("_Refusal", error), str(error)) from error
        except self.connection_error as error:
            url = cast("_Failure", error).request.url
            late = "the client's own timeout is over" if isinstance(error, self.timeout_error) else ""
            raise ModelConnectionError(
                f"model {model!r}: no answer from {url.scheme}://{url.netloc.decode('ascii')}: {late or _cause(error)}"
            ) from error
        except self.api_error as error:
            raise ModelProtocolError(f"model {model!r}: {error}") from error
        except failures as error:
            # Of an answer that breaks off while the SDK reads what the server has against the request.
            raise ModelConnectionError(f"model {model!r}: the connection dropped: {_cause(error)}") from error


class _Framed:
    """The events of an answer in frames, as if they had come as server-sent events."""

    __slots__ = ("_chunks", "_model", "_parser")

    def __init__(self, model: str, chunks: AsyncIterator[bytes]) -> None:
        self._model = model
        self._chunks = chunks
        self._parser = FrameParser()

    def __aiter__(self) -> _Framed:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        try:
            return b"".join(b"data: %s\n\n" % event for event in self._parser.feed(chunk))
        except ValueError as error:
            raise ModelProtocolError(f"model {self._model!r} sent {error}") from error


async def _unwind(chunks: AsyncIterator[bytes]) -> None:
    """Stop reading, so that nothing is left half-way.

    An SDK's stream is half a dozen generators, one inside the other, none of which closes the next. Left where it
    stands, each would be for the garbage collector, and the connection open until then. What ends them all is an
    error that comes from the innermost: so the network is asked for more by a task that is cancelled already.
    """
    with trio.CancelScope() as scope:
        scope.cancel()
        # Whatever is wrong with the rest of an answer: it is not wanted any more.
        with suppress(StopAsyncIteration, Exception):
            for _ in range(UNWINDING_STEPS):
                await anext(chunks)


def async_client(client: object, example: str) -> None:
    """Check that ``client`` can be waited for.

    Raises:
      UsageError: it cannot: a synchronous client would hold up everything else.
    """
    if not iscoroutinefunction(getattr(client, "post", None)):
        raise UsageError(f"{type(client).__name__} is no asynchronous client of the SDK: give one such as {example}")


def posting(body: bytes) -> dict[str, Any]:
    """``body`` as an SDK takes it: its clients for other clouds move parts of it to the URL."""
    asked: dict[str, Any] = decode_own(body)
    return asked


def _refused(model: str, error: _Refusal, message: str) -> ModelError:
    response, body = error.response, error.body
    told = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    # One SDK gives what is in the field `error`, the other all of it.
    inner = told.get("error")
    return failure(
        model=model,
        status=error.status_code,
        body=(response.text if response.is_stream_consumed else message).strip(),
        codes=codes_of(inner if isinstance(inner, dict) else told),
        headers={name.lower(): value for name, value in response.headers.items()},
    )


def _connection_failures() -> tuple[type[Exception], ...]:
    """What reading an answer can fail with."""
    failures = (httpx2.RequestError, httpx2.StreamError, ssl.SSLError, trio.BrokenResourceError)
    # openai also takes a client of the old httpx, which is no dependency of anything here.
    old = sys.modules.get("httpx")
    return failures if old is None else (*failures, old.RequestError, old.StreamError)
