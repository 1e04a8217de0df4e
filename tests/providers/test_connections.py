"""Connections: who opens and closes them, and what comes of those that fail."""

from __future__ import annotations

import gc
import socket
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from agentloop.errors import ModelConnectionError, ModelError, ModelProtocolError, ModelStatusError, UsageError
from agentloop.providers import _connections, _events
from agentloop.providers.openai_chat import OpenAIChat
from tests.providers.chat import ASK, Heard, ask, called, finished, said, whole
from tests.providers.conftest import open_sockets
from tests.providers.server import (
    CERTIFICATE,
    HEAD,
    Peer,
    answer,
    answering,
    chunk,
    serving,
)

pytestmark = pytest.mark.real_clock

# ------------------------------------------------------------------------------- cut off


async def test_a_server_that_hangs_up_is_a_connection_error() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()

    async with serving(handler) as server:
        with pytest.raises(ModelConnectionError, match="without sending a response"):
            await ask(OpenAIChat("m", base_url=server.url))


async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_events, "MAX_EVENT_BYTES", 1000)

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, chunk(b"{"))
        while True:
            await peer.send(chunk(b" " * 100))

    async with serving(handler) as server:
        with pytest.raises(ModelProtocolError, match="an answer of more than 1000 bytes"):
            await ask(OpenAIChat("m", base_url=server.url))


async def test_a_server_may_refuse_a_request_before_it_has_read_it() -> None:
    async def handler(peer: Peer) -> None:
        await peer.send(answer(b"too large", status="413 Content Too Large", extra="Connection: close\r\n"))
        await wait_all_tasks_blocked()

    async with serving(handler) as server:
        with pytest.raises(ModelError) as caught:
            await ask(OpenAIChat("m" * 5_000_000, base_url=server.url, name="m"))

    # The answer may be lost when a connection is closed with data unread; but it fails, and at once.
    assert isinstance(caught.value, (ModelStatusError, ModelConnectionError))


async def test_a_server_that_refuses_the_connection_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        with pytest.raises(ModelConnectionError, match=r"no answer from http://127\.0\.0\.1:\d+: .*refused"):
            await ask(OpenAIChat("m", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1"))


async def test_a_redirect_is_told_not_followed() -> None:
    """Followed, it would carry the key to another place."""
    moved = answer(b"", status="308 Permanent Redirect", extra="Location: https://elsewhere\r\n")
    async with serving(answering(moved)) as server:
        with pytest.raises(ModelStatusError, match="redirects to https://elsewhere") as caught:
            await ask(OpenAIChat("m", base_url=server.url))

    assert caught.value.status == 308


async def test_a_compressed_answer_is_refused() -> None:
    async with serving(answering(answer(b"\x1f\x8b", extra="Content-Encoding: gzip\r\n"))) as server:
        with pytest.raises(ModelProtocolError, match="compressed"):
            await ask(OpenAIChat("m", base_url=server.url))


# --------------------------------------------------------------------------------- cancel


async def test_a_response_that_is_cancelled_while_its_reader_is_slow_is_closed_too() -> None:
    """Then it is not the network that is waited for, and httpx2's generators are left half-way."""
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, chunk(said("Hi")), chunk(said("Ho")))
        await peer.until_closed()
        closed.set()

    class Slow(Heard):
        async def text(self, text: str, /) -> None:
            await super().text(text)
            await trio.sleep_forever()

    async with serving(handler) as server:
        heard = Slow()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(OpenAIChat("m", base_url=server.url).respond, ASK, heard)
            await heard.told.wait()
            nursery.cancel_scope.cancel()
        await closed.wait()
    gc.collect()


async def test_a_response_is_not_read_faster_than_its_reader_reads() -> None:
    """So memory is bounded: the server has to wait."""
    sent = 0

    async def handler(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(HEAD)
        while True:
            await peer.send(chunk(said("x" * 10_000)))
            sent += 1

    class Stalled(Heard):
        async def text(self, text: str, /) -> None:
            await super().text(text)
            await trio.sleep_forever()

    async with serving(handler) as server, trio.open_nursery() as nursery:
        nursery.start_soon(OpenAIChat("m", base_url=server.url).respond, ASK, Stalled())
        last = -1
        while sent != last:
            last = sent
            await wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
    assert 0 < sent < 2000


class Cancelling(trio.abc.Instrument):
    """Cancels a scope when its task is about to take its n-th step."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope = scope
        self.left = steps
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


@pytest.mark.seconds(60)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("kept", [False, True], ids=["alone", "open"])
async def test_cancelled_at_any_checkpoint_it_leaves_nothing(
    tls: bool, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(monkeypatch)
    steps = 0
    finished = False
    while not finished:
        steps += 1
        async with serving(answering(whole(said("Hi"), called(0, "a", "add", "{}"))), tls=tls) as server:
            model = OpenAIChat("m", base_url=server.url)
            before = open_sockets()
            with trio.CancelScope() as scope:
                instrument = Cancelling(scope, steps)
                trio.lowlevel.add_instrument(instrument)
                try:
                    if kept:
                        async with model.open() as opened:
                            await ask(opened)
                    else:
                        await ask(model)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            finished = not scope.cancel_called
            # The server's end is closed by its own task, a moment later.
            with trio.fail_after(5):
                while open_sockets() - before:  # noqa: ASYNC110  # there is no event for this
                    await trio.lowlevel.checkpoint()
        gc.collect()
    assert steps > 8


def trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the tests' own certificate trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    _connections._ssl_context.cache_clear()


async def test_a_handshake_that_is_cancelled_leaves_no_socket() -> None:
    """httpx2 leaves it to the garbage collector."""
    mute = trio.Event()

    async def handler(peer: Peer) -> None:
        mute.set()
        await trio.sleep_forever()

    async with serving(handler) as server:
        before = open_sockets()
        model = OpenAIChat("m", base_url=server.url.replace("http:", "https:"))
        async with model.open() as opened, trio.open_nursery() as nursery:
            nursery.start_soon(ask, opened)
            await mute.wait()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert len(open_sockets() - before) == 1  # the server's


async def test_a_certificate_that_is_not_trusted_is_a_connection_error() -> None:
    _connections._ssl_context.cache_clear()
    async with serving(answering(), tls=True) as server:
        with pytest.raises(ModelConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(OpenAIChat("m", base_url=server.url))


async def test_a_trusted_server_is_talked_to_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch)
    async with serving(answering(whole(said("Hi"))), tls=True) as server:
        assert (await ask(OpenAIChat("m", base_url=server.url))).text == "Hi"


# -------------------------------------------------------------------- whose connection it is


async def test_a_response_of_its_own_opens_and_closes_a_connection() -> None:
    async with serving(answering(whole(said("1")), whole(said("2")))) as server:
        model = OpenAIChat("m", base_url=server.url)

        assert [(await ask(model)).text, (await ask(model)).text] == ["1", "2"]
        assert server.connections == 2


async def test_an_open_model_uses_its_connection_again_and_closes_it_at_the_end() -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(whole(said("Hi")))
        closed.set()

    async with serving(handler) as server:
        async with OpenAIChat("m", base_url=server.url).open() as model:
            for _ in range(3):
                await ask(model)
            assert not closed.is_set()
        await closed.wait()

        assert server.connections == 1


async def test_an_open_model_that_is_opened_again_is_closed_by_whoever_opened_it_first() -> None:
    async with serving(answering(whole(said("1")), whole(said("2")))) as server:
        async with OpenAIChat("m", base_url=server.url).open() as model:
            async with model.open() as same:
                await ask(same)
            await ask(model)

        assert server.connections == 1


async def test_responses_at_once_have_a_connection_each() -> None:
    together = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        if len(server.requests) == 3:
            together.set()
        await together.wait()
        await peer.send(whole(said("Hi")))
        await peer.until_closed()

    async with serving(handler) as server:
        async with OpenAIChat("m", base_url=server.url).open() as model, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, model)

        assert server.connections == 3


async def test_a_connection_with_an_answer_left_unread_is_not_used_again() -> None:
    unended = HEAD + chunk(b"data: {nonsense\n\n")
    async with serving(answering(unended, whole(said("Hi")))) as server:
        async with OpenAIChat("m", base_url=server.url).open() as model:
            with pytest.raises(ModelProtocolError):
                await ask(model)

            assert (await ask(model)).text == "Hi"
        assert server.connections == 2


@pytest.mark.parametrize(
    "first",
    [
        whole(said("1")).replace(b"\r\n\r\n", b"\r\nConnection: Keep-Alive, close\r\n\r\n", 1),
        whole(said("1")).replace(b"HTTP/1.1", b"HTTP/1.0"),
        whole(said("1")) + b"HTTP/1.1 200 OK\r\n",
        answer(said("1") + finished(), type="text/event-stream") + b"HTTP/1.1 200 OK\r\n",
    ],
    ids=["close", "HTTP/1.0", "more after chunks", "more after a length"],
)
async def test_a_connection_that_can_carry_no_further_answer_is_not_used_again(first: bytes) -> None:
    async with serving(answering(first, whole(said("2")))) as server:
        async with OpenAIChat("m", base_url=server.url).open() as model:
            assert [(await ask(model)).text, (await ask(model)).text] == ["1", "2"]

        assert server.connections == 2


async def test_an_interim_answer_is_no_answer() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
    async with serving(answering([interim, whole(said("Hi"))])) as server:
        assert (await ask(OpenAIChat("m", base_url=server.url))).text == "Hi"


async def test_an_answer_that_breaks_off_in_its_head_is_not_asked_for_again() -> None:
    async def handler(peer: Peer) -> None:
        if await peer.request() is not None:
            await peer.send(whole(said("Hi")) if len(server.requests) == 1 else b"HTTP/1.1 200 OK\r\nConte")
        if len(server.requests) == 1:
            await handler(peer)

    async with serving(handler) as server, OpenAIChat("m", base_url=server.url).open() as model:
        await ask(model)
        with pytest.raises(ModelConnectionError, match="no answer from"):
            await ask(model)
        assert len(server.requests) == 2


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(whole(said("Hi")))
        await peer.close()
        closed.set()

    async with serving(handler) as server, OpenAIChat("m", base_url=server.url).open() as model:
        await ask(model)
        await closed.wait()
        await wait_all_tasks_blocked()

        assert (await ask(model)).text == "Hi"


async def test_a_request_goes_out_again_where_the_server_closes_a_kept_connection_just_then() -> None:
    requests: list[int] = []

    async def handler(peer: Peer) -> None:
        number = len(requests)
        requests.append(number)
        await peer.request()
        await peer.send(whole(said("Hi")))
        # It has read the next one when it hangs up: until then, nobody can know.
        await peer.request()
        requests.append(number)

    async with serving(handler) as server, OpenAIChat("m", base_url=server.url).open() as model:
        assert [(await ask(model)).text for _ in range(3)] == ["Hi"] * 3
        assert requests == [0, 0, 2, 2, 4]


async def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connections, "KEEPALIVE_SECONDS", 0.0)
    async with serving(answering(whole(said("1")), whole(said("2")))) as server:
        async with OpenAIChat("m", base_url=server.url).open() as model:
            await ask(model)
            await ask(model)

        assert server.connections == 2


async def test_an_open_model_cannot_be_used_after_its_block() -> None:
    async with OpenAIChat("m", base_url="http://localhost:1/v1").open() as model:
        pass

    with pytest.raises(UsageError, match="a block that has ended"):
        await ask(model)


async def test_a_response_that_outlasts_the_block_is_closed_at_its_own_end() -> None:
    go_on = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD, chunk(said("Hi")))
        await go_on.wait()
        await peer.send(chunk(finished()), chunk(b""))
        await peer.until_closed()

    async with serving(handler) as server, trio.open_nursery() as nursery:
        heard = Heard()
        async with OpenAIChat("m", base_url=server.url).open() as model:
            nursery.start_soon(model.respond, ASK, heard)  # noqa: ASYNC111  # that is the point
            await heard.told.wait()
        go_on.set()


# --------------------------------------------------------------------------------- proxies


async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(whole(said("1")), whole(said("2")))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", "http://me:se%40cret@").removesuffix("/v1"))
        async with OpenAIChat("m", base_url="http://model.invalid/v1").open() as model:
            await ask(model)
            await ask(model)

        assert [request.line for request in proxy.requests] == [
            "POST http://model.invalid/v1/chat/completions HTTP/1.1"
        ] * 2
        assert proxy.requests[0].headers["proxy-authorization"] == "Basic bWU6c2VAY3JldA=="
        assert proxy.connections == 1


async def test_a_proxy_is_asked_for_a_tunnel_where_the_server_speaks_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    async with serving(handler) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.removeprefix("http://").removesuffix("/v1"))
        with pytest.raises(ModelConnectionError, match="403"):
            await ask(OpenAIChat("m", base_url="https://model.invalid/v1"))

        assert proxy.requests[0].line == "CONNECT model.invalid:443 HTTP/1.1"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_this_machine_is_not_looked_for_by_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    async with serving(answering(whole(said("Hi")))) as server:
        assert (await ask(OpenAIChat("m", base_url=server.url.replace("localhost", host)))).text == "Hi"


async def test_no_proxy_is_used_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("NO_PROXY", "model.invalid")

    with pytest.raises(ModelConnectionError, match=r"no answer from http://model\.invalid"):
        await ask(OpenAIChat("m", base_url="http://model.invalid/v1"))


async def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.invalid:1")

    with pytest.raises(UsageError, match="a proxy of 'socks5'"):
        await ask(OpenAIChat("m", base_url="http://model.invalid/v1"))


async def test_a_network_without_a_proxy_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("NO_PROXY", "192.0.2.0/24")
    model = OpenAIChat("m", base_url="http://192.0.2.7:1/v1")
    monkeypatch.setattr(_connections, "CONNECT_SECONDS", 0.01)

    with pytest.raises(ModelConnectionError, match=r"no answer from http://192\.0\.2\.7:1: (?!.*proxy)"):
        await ask(model)


async def test_a_proxy_whose_url_is_none_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:hun/ter2@proxy.invalid:1")

    with pytest.raises(UsageError, match=r"a proxy at 'http://proxy\.invalid:1', which is no URL") as caught:
        await ask(OpenAIChat("m", base_url="http://model.invalid/v1"))

    assert "hun" not in repr(caught.value.__cause__)


@pytest.mark.parametrize("encoding", ["none", "", "utf-8", "Identity"])
async def test_an_encoding_that_is_none_is_no_compression(encoding: str) -> None:
    body = b"".join((said("Hi"), finished("stop")))
    plain = answer(body, type="text/event-stream", extra=f"Content-Encoding: {encoding}\r\n")
    async with serving(answering(plain)) as server:
        assert (await ask(OpenAIChat("m", base_url=server.url))).text == "Hi"


# ------------------------------------------------------------------------- what can be sent


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://host/v1", "http://", "http://host:port/v1", "http://h\xf6st/"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no URL of a model's server"):
        OpenAIChat("m", base_url=url)


@pytest.mark.parametrize(
    "headers", [{"X": "a\nb"}, {"X\r\nY": "a"}, {"": "a"}, {"X": "\N{SNOWMAN}"}, {"Content-Length": "1"}]
)
def test_a_header_that_cannot_be_sent_is_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        OpenAIChat("m", headers=headers)


def test_a_key_is_in_no_error_and_no_repr() -> None:
    with pytest.raises(UsageError) as caught:
        OpenAIChat("m", api_key="se\ncret")

    assert "cret" not in str(caught.value)
    model = OpenAIChat("m", api_key="secret")
    assert "secret" not in repr(model) + repr(model._transport)


async def test_a_key_is_sent_without_the_line_break_at_its_end() -> None:
    async with serving(answering(whole(said("Hi")))) as server:
        await ask(
            OpenAIChat("m", base_url=server.url + "/", api_key="key\n", headers={"X-Title": "t", "user-agent": "me"})
        )

    (request,) = server.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.headers["host"] == server.url.split("/")[2]
    assert request.headers["authorization"] == "Bearer key"
    assert request.headers["x-title"] == "t"
    assert request.headers["user-agent"] == "me"


async def test_no_key_is_sent_where_there_is_none() -> None:
    async with serving(answering(whole(said("Hi")))) as server:
        await ask(OpenAIChat("m", base_url=server.url))

    assert "authorization" not in server.requests[0].headers
