"""Server-sent events, taken apart."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from agentloop.providers import _events
from agentloop.providers._events import ErrorData, EventParser


def parse(*chunks: bytes) -> list[bytes]:
    parser = EventParser()
    events = [data for chunk in chunks for data in parser.feed(chunk)]
    last = parser.finish()
    return events if last is None else [*events, last]


def test_the_data_of_each_event_is_given() -> None:
    assert parse(b"data: one\n\ndata: two\n\n") == [b"one", b"two"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_lines_end_in_any_way(end: bytes) -> None:
    assert parse(b"data: one\n\n: ping\n\ndata: two\n\n".replace(b"\n", end)) == [b"one", b"two"]


def test_lines_of_data_are_joined() -> None:
    assert parse(b"data: {\ndata:  1\ndata\ndata:}\n\n") == [b"{\n 1\n\n}"]


def test_comments_and_other_fields_are_no_data() -> None:
    assert parse(b": keep-alive\n\nevent: x\nid: 1\nretry: 5\nnonsense\ndatax: y\n\ndata: z\n\n") == [b"z"]


def test_a_name_counts_that_says_more_than_the_data() -> None:
    events = parse(
        b"event: error\ndata: one\n\n"
        b"data: two\nevent:ERROR\n\n"
        b"event: exception\n\n"
        b"event: ping\ndata: {}\n\n"
        b"event: message\ndata: three\n\n"
    )

    assert events == [b"one", b"two", b"", b"", b"three"]
    assert [isinstance(data, ErrorData) for data in events] == [True, True, True, False, False]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert parse(b"\xef\xbb\xbfdata: one\n\n") == [b"one"]


def test_an_event_without_its_last_empty_line_is_given_at_the_end() -> None:
    assert parse(b"data: one\n\ndata: two") == [b"one", b"two"]


LINES = st.sampled_from(
    [b"data: a", b"data:b", "data: \N{SNOWMAN}".encode(), b"data", b"", b"", b": ping", b"event: x", b"data:  c"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=12), st.data())
@example([(b"data: a", b"\r\n"), (b"", b"\r\n"), (b"data:b", b"\n")], None)
def test_where_the_network_cuts_makes_no_difference(
    lines: list[tuple[bytes, bytes]], data: st.DataObject | None
) -> None:
    stream = b"".join(line + end for line, end in lines)
    if data is None:
        cuts = list(range(len(stream)))
    else:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert parse(*chunks) == parse(stream)


@given(st.lists(LINES, max_size=12))
def test_events_are_what_the_standard_says(lines: list[bytes]) -> None:
    """Compared with the standard's steps, done the plain way."""
    expected: list[bytes] = []
    data: list[bytes] = []
    for line in [*lines, b""]:
        if line == b"":
            expected += [b"\n".join(data)] if data else []
            data = []
        elif not line.startswith(b":"):
            field, _, value = line.partition(b":")
            data += [value.removeprefix(b" ")] if field == b"data" else []

    assert parse(b"".join(line + b"\n" for line in lines)) == expected


def test_an_event_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_events, "MAX_EVENT_BYTES", 100)
    parser = EventParser()

    with pytest.raises(ValueError, match="more than 100 bytes"):
        for _ in range(20):
            parser.feed(b"data: 1234")


def test_many_lines_of_data_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_events, "MAX_EVENT_BYTES", 100)
    parser = EventParser()

    with pytest.raises(ValueError, match="more than 100 bytes"):
        for _ in range(20):
            parser.feed(b"data: 1234\n")


@pytest.mark.parametrize("chunk", [b"data: 1\n\n", b"\ndata: 1\n", b": ping\n", b"\n"])
def test_only_what_is_held_counts(monkeypatch: pytest.MonkeyPatch, chunk: bytes) -> None:
    monkeypatch.setattr(_events, "MAX_EVENT_BYTES", 100)
    parser = EventParser()

    for _ in range(100):
        parser.feed(chunk)
