"""The pieces of a response, put together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import frozen
from hypothesis import given, strategies as st

from agentloop._core.response import MAX_CALLS, MAX_CHARACTERS, Assembler
from agentloop.errors import ModelOutputLimitError, ModelProtocolError
from agentloop.messages import AssistantMessage, Reasoning, Text, ToolCall, Usage


@frozen
class Piece:
    """A piece of a response; of a call, if ``index`` is given."""

    text: str
    thought: bool = False
    signature: str | None = None
    index: int | None = None
    id: str = ""
    name: str = ""


def feed(pieces: Sequence[Piece], *, taken: frozenset[str] = frozenset()) -> Assembler:
    assembler = Assembler(prefix="call_1_1", taken=taken)
    for piece in pieces:
        if piece.index is not None:
            assembler.tool_call(piece.index, piece.id, piece.name, piece.text)
        elif piece.thought:
            assembler.reasoning(piece.text, piece.signature)
        else:
            assembler.text(piece.text)
    return assembler


def assemble(pieces: Sequence[Piece], *, taken: frozenset[str] = frozenset()) -> AssistantMessage:
    return feed(pieces, taken=taken).finish("end", Usage(), "m")


def test_text_joins() -> None:
    assert assemble([Piece("Hel"), Piece(""), Piece("lo")]).parts == (Text("Hello"),)


def test_a_block_ends_where_one_of_another_kind_begins() -> None:
    pieces = [Piece("a"), Piece("b", thought=True), Piece("c"), Piece("{}", index=0, id="x", name="f"), Piece("d")]
    assert assemble(pieces).parts == (Text("a"), Reasoning("b"), Text("c"), ToolCall("x", "f", "{}"), Text("d"))


def test_a_signature_closes_its_thought() -> None:
    pieces = [
        Piece("on", thought=True),
        Piece("e", thought=True),
        Piece("", thought=True, signature="s1"),
        Piece("two", thought=True, signature="s2"),
    ]
    assert assemble(pieces).parts == (Reasoning("one", "s1"), Reasoning("two", "s2"))


def test_calls_may_interleave() -> None:
    pieces = [
        Piece('{"a"', index=0, id="x", name="f"),
        Piece('{"b"', index=1, id="y", name="g"),
        Piece(": 1}", index=0),
        Piece(": 2}", index=1),
    ]
    assert assemble(pieces).calls == (ToolCall("x", "f", '{"a": 1}'), ToolCall("y", "g", '{"b": 2}'))


def test_calls_stand_in_the_order_in_which_they_began_whatever_their_index() -> None:
    pieces = [Piece("{}", index=7, id="x", name="f"), Piece("{}", index=2, id="y", name="g")]
    assert [call.id for call in assemble(pieces).calls] == ["x", "y"]


def test_an_id_and_a_name_count_where_they_are_first_given() -> None:
    assembler = Assembler(prefix="p")
    assert assembler.tool_call(0, "x", "", "{") == ("x", "")
    assert assembler.tool_call(0, "", "f", "}") == ("x", "f")
    assert assembler.tool_call(0, "y", "g", "") == ("x", "f")
    assert assembler.finish("end", Usage(), "m").calls == (ToolCall("x", "f", "{}"),)


def test_a_call_without_an_id_gets_one() -> None:
    pieces = [Piece("", index=0, name="f"), Piece("", index=1, name="f")]
    assert [call.id for call in assemble(pieces).calls] == ["call_1_1_0", "call_1_1_1"]


def test_a_call_without_a_name_breaks_the_protocol() -> None:
    with pytest.raises(ModelProtocolError, match=r"'x'.*without a tool's name"):
        assemble([Piece("{}", index=0, id="x")])


def test_a_response_with_calls_has_stopped_for_them_whatever_it_says() -> None:
    """Some servers say "stop" all the same."""
    call = Piece("{}", index=0, id="x", name="f")
    assert assemble([call]).stop == "tool_calls"
    assert feed([call]).finish("length", Usage(), "m").stop == "length"
    assert assemble([Piece("Hi")]).stop == "end"


def test_a_response_that_stopped_for_calls_and_has_none_breaks_the_protocol() -> None:
    with pytest.raises(ModelProtocolError, match="asked for none"):
        feed([Piece("Let me see.")]).finish("tool_calls", Usage(), "m")


def test_a_call_that_was_cut_off_before_its_name_is_left_out() -> None:
    pieces = [Piece("Well."), Piece("{}", index=0, id="x", name="f"), Piece("", index=1, id="y")]
    assert feed(pieces).finish("length", Usage(), "m").parts == (Text("Well."), ToolCall("x", "f", "{}"))


MEGABYTE = "x" * 2**20


@pytest.mark.parametrize(
    "piece",
    [
        Piece(MEGABYTE),
        Piece(MEGABYTE, thought=True),
        Piece("", thought=True, signature=MEGABYTE),
        Piece(MEGABYTE, index=0, id="x", name="f"),
    ],
    ids=["text", "reasoning", "signature", "arguments"],
)
def test_a_response_without_an_end_is_an_error(piece: Piece) -> None:
    count = MAX_CHARACTERS // len(MEGABYTE)
    feed([piece] * (count - 1))
    with pytest.raises(ModelOutputLimitError, match=f"more than {MAX_CHARACTERS} characters"):
        feed([piece] * (count + 1))


def test_a_response_that_is_too_long_stays_an_error_for_a_model_that_catches_it() -> None:
    assembler = feed([Piece("Hi.")])
    for _ in range(3):
        with pytest.raises(ModelOutputLimitError):
            assembler.text("x" * MAX_CHARACTERS)
    with pytest.raises(ModelOutputLimitError):
        assembler.finish("end", Usage(), "m")


def test_blocks_without_an_end_are_an_error() -> None:
    assembler = Assembler(prefix="p")
    with pytest.raises(ModelOutputLimitError):
        for _ in range(MAX_CHARACTERS):
            assembler.reasoning("", "s")


def test_a_response_has_a_bound_on_its_calls() -> None:
    pieces = [Piece("{}", index=index, name="f") for index in range(MAX_CALLS + 1)]
    assert len(assemble(pieces[:-1]).calls) == MAX_CALLS
    with pytest.raises(ModelOutputLimitError, match=f"more than {MAX_CALLS} tool calls"):
        feed(pieces)


def test_nothing_said_is_a_message_without_parts() -> None:
    message = feed([]).finish("end", Usage(output_tokens=3), "m")
    assert message == AssistantMessage((), "end", "m", Usage(output_tokens=3))


def test_of_a_response_that_is_cut_off_only_the_text_is_kept() -> None:
    pieces = [Piece("hm", thought=True), Piece("Let me "), Piece('{"a', index=0, id="x", name="f"), Piece("see")]
    assert feed(pieces).interrupted("m") == AssistantMessage((Text("Let me "), Text("see")), "interrupted", "m")
    assert feed(pieces[:1]).interrupted("m") is None
    assert feed([]).interrupted("m") is None


# ------------------------------------------------------------------------------ properties

texts = st.text(max_size=5)
ids = st.sampled_from(["", "x", "y", "call_1_1_0", "call_1_1_1", "call_1_1_0_"])
pieces = st.lists(
    st.one_of(
        st.builds(Piece, texts),
        st.builds(Piece, texts, thought=st.just(value=True), signature=st.sampled_from([None, None, "sig"])),
        st.builds(Piece, texts, index=st.integers(0, 3), id=ids, name=st.sampled_from(["", "f", "g"])),
    ),
    max_size=20,
)


def named(given_pieces: Sequence[Piece]) -> list[Piece]:
    """The same, with a name for each call."""
    calls = {piece.index for piece in given_pieces if piece.index is not None}
    return [*given_pieces, *(Piece("", index=index, name="late") for index in sorted(calls))]


@given(pieces, st.frozensets(ids))
def test_ids_are_unique_in_the_response_and_new_to_the_transcript(
    given_pieces: list[Piece], taken: frozenset[str]
) -> None:
    made = [call.id for call in assemble(named(given_pieces), taken=taken).calls]
    assert len(made) == len(set(made))
    assert not taken.intersection(made)
    assert all(made)


@given(pieces)
def test_not_a_letter_is_lost(given_pieces: list[Piece]) -> None:
    message = assemble(named(given_pieces))
    assert message.text == "".join(piece.text for piece in given_pieces if piece.index is None and not piece.thought)
    thoughts = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
    assert thoughts == "".join(piece.text for piece in given_pieces if piece.thought)
    indexes = list(dict.fromkeys(piece.index for piece in given_pieces if piece.index is not None))
    for index, call in zip(indexes, message.calls, strict=True):
        assert call.arguments == "".join(piece.text for piece in given_pieces if piece.index == index)


@given(pieces, st.data())
def test_how_a_response_is_cut_into_pieces_makes_no_difference(given_pieces: list[Piece], data: st.DataObject) -> None:
    cut: list[Piece] = []
    for piece in named(given_pieces):
        at = data.draw(st.integers(0, len(piece.text)))
        head = Piece(piece.text[:at], piece.thought, None, piece.index, piece.id, piece.name)
        tail = Piece(piece.text[at:], piece.thought, piece.signature, piece.index)
        cut += [head, tail]
    assert assemble(cut) == assemble(named(given_pieces))


@given(pieces)
def test_the_call_is_known_by_one_id_from_its_first_piece_on(given_pieces: list[Piece]) -> None:
    assembler = Assembler(prefix="p")
    known: dict[int, str] = {}
    for piece in given_pieces:
        if piece.index is not None:
            id, _ = assembler.tool_call(piece.index, piece.id, piece.name, piece.text)
            assert known.setdefault(piece.index, id) == id
