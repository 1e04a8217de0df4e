"""The chunks of an HTTP answer: decoded wherever the network cuts them, and refused where they break the protocol."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given, strategies as st

from agentloop.providers import _http11
from agentloop.providers._http11 import ChunkedBody, plain_head

PIECES = st.lists(st.binary(min_size=1, max_size=20), max_size=5)


def encoded(pieces: list[bytes], *, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    chunks = b"".join(b"%X%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    return chunks + b"0\r\n" + trailer + b"\r\n"


@given(
    pieces=PIECES,
    extension=st.sampled_from([b"", b" ", b";a=b", b' ; a="b c"']),
    trailer=st.sampled_from([b"", b"X: y\r\n"]),
    cuts=st.lists(st.integers(0, 150), max_size=6),
)
def test_a_body_is_decoded_wherever_the_network_cuts_it(
    pieces: list[bytes], extension: bytes, trailer: bytes, cuts: list[int]
) -> None:
    data = encoded(pieces, extension=extension, trailer=trailer)
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    body, decoded = ChunkedBody(), b""

    for start, end in pairwise(bounds):
        if start < end:
            assert not body.is_ended
            body.add(data[start:end])
            decoded += body.take()

    assert decoded == b"".join(pieces)
    assert body.is_ended
    assert not body.is_last


def test_a_part_of_a_chunk_is_given_before_the_rest_has_arrived() -> None:
    body = ChunkedBody(b"5\r\nHe")

    assert body.take() == b"He"
    body.add(b"llo\r")
    assert body.take() == b"llo"


def test_bytes_after_the_body_are_no_part_of_it() -> None:
    body = ChunkedBody(encoded([b"Hi"]) + b"HTTP/1.1")

    assert body.take() == b"Hi"
    assert body.is_ended
    assert body.is_last


@pytest.mark.parametrize(
    "data",
    [b"z\r\n", b"\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"1_0\r\n", b"1 1\r\n", b"1" * 17 + b"\r\n", b"1\r\nab\r\n"],
)
def test_chunks_that_break_the_protocol_are_refused(data: bytes) -> None:
    with pytest.raises(h11.RemoteProtocolError):
        ChunkedBody(data).take()


@pytest.mark.parametrize("data", [b"", b"5", b"5\r\n", b"5\r\nHello", b"5\r\nHello\r\n", b"0\r\n", b"0\r\nX: y\r\n"])
def test_a_body_that_ends_too_early_is_refused(data: bytes) -> None:
    body = ChunkedBody(data)
    body.take()
    body.add(b"")

    with pytest.raises(h11.RemoteProtocolError, match="incomplete chunked read"):
        body.take()


def test_a_line_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http11, "MAX_HEAD_BYTES", 10)

    with pytest.raises(h11.RemoteProtocolError, match="too long"):
        ChunkedBody(b"1;" + b"a" * 10).take()


def test_fields_without_end_after_a_body_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http11, "MAX_HEAD_BYTES", 10)
    body = ChunkedBody(b"0\r\n")
    body.take()

    with pytest.raises(h11.RemoteProtocolError, match="too long"):
        for _ in range(5):
            body.add(b"X: y\r\n")
            body.take()


LINES = st.sampled_from(
    [
        b"Transfer-Encoding: chunked",
        b"transfer-encoding:chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: Chunked",
        b"Content-Length: 3",
        b"Connection: keep-alive",
        b"Connection: close",
        b"Date: Sat, 28 Nov 2026 10:00:00 GMT",
        b"Content-Type: text/event-stream; charset=utf-8",
        b"X-Empty:",
        b"X-Space : a",
        b"X-Spaces:   a   b  ",
        b"X-Tab:\ta\tb",
        b"X-Umlaut: \xfc",
        b"X-Nul: a\0b",
        b" folded",
        b"nothing",
    ]
)


@given(
    status=st.sampled_from(
        [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK", b"HTTP/1.1 404 No", b"HTTP/2 200"]
    ),
    first=st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"Server: a"]),
    lines=st.lists(LINES, max_size=3),
    ending=st.sampled_from([b"\r\n", b"\n"]),
    end=st.sampled_from([b"", b"\r\n", b"\r\n3\r\n"]),
)
def test_a_plain_head_means_what_h11_reads_in_it(
    status: bytes, first: bytes, lines: list[bytes], ending: bytes, end: bytes
) -> None:
    data = ending.join([status, first, *lines, b""]) + end
    plain = plain_head(data)
    if plain is None:
        return

    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="POST", target="/", headers=[("Host", "localhost")]))
    parser.receive_data(data)
    head = parser.next_event()

    headers, begin = plain
    assert isinstance(head, h11.Response)
    assert (head.status_code, head.http_version) == (200, b"1.1")
    assert dict(head.headers) == headers
    assert headers[b"transfer-encoding"] == b"chunked"
    assert parser.their_state is h11.SEND_BODY
    assert parser.trailing_data[0] == data[begin:]


def test_the_head_of_a_common_server_is_plain() -> None:
    data = (
        b"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 10:00:00 GMT\r\nServer: uvicorn\r\n"
        b"Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n"
    )

    assert plain_head(data) == (
        {
            b"date": b"Sat, 28 Nov 2026 10:00:00 GMT",
            b"server": b"uvicorn",
            b"content-type": b"text/event-stream; charset=utf-8",
            b"transfer-encoding": b"chunked",
        },
        data.index(b"5\r\n"),
    )


@pytest.mark.parametrize(
    "line", [b"Content-Length: 3", b"Connection: close", b"Transfer-Encoding: chunked", b"X: a\tb", b"X:\r\n folded"]
)
def test_another_head_is_left_to_h11(line: bytes) -> None:
    assert plain_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + line + b"\r\n\r\n") is None
