"""The deltas of a response: recorded on their way to the reader, and replayed."""

from __future__ import annotations

from typing import TypeAlias

from attrs import define, field

from agentloop.messages import Usage
from agentloop.models import Reply
from agentloop.testing._redaction import Redaction
from agentloop.testing._tape import Pieces, ReasoningPieces, TextPieces, ToolCallPieces

__all__ = ["Recorder", "play"]

_Kind: TypeAlias = "type[Pieces]"


@define
class _Row:
    """Pieces of a kind that came one after the other."""

    kind: _Kind
    index: int = 0
    id: str = ""
    name: str = ""
    signature: str | None = None
    pieces: list[str] = field(factory=list[str])


class Recorder:
    """A `Reply` that records the deltas that it passes on."""

    __slots__ = ("_reply", "_rows", "reported")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._rows: list[_Row] = []
        self.reported = Usage()
        """The usage that was reported last, before the end of the response."""

    async def text(self, text: str, /) -> None:
        if text:
            self._row(TextPieces).pieces.append(text)
        await self._reply.text(text)

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        row = self._row(ReasoningPieces)
        row.pieces.append(text)
        row.signature = signature
        await self._reply.reasoning(text, signature=signature)

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        self._row(ToolCallPieces, index, id, name).pieces.append(arguments)
        await self._reply.tool_call(index, id=id, name=name, arguments=arguments)

    def report_usage(self, usage: Usage, /) -> None:
        self.reported = usage
        self._reply.report_usage(usage)

    def _row(self, kind: _Kind, index: int = 0, id: str = "", name: str = "") -> _Row:
        """The row that the next piece belongs to: the last one, or a new one."""
        last = self._rows[-1] if self._rows else None
        if (
            last is not None
            and last.kind is kind
            and last.index == index
            and last.signature is None
            and not id
            and not name
        ):
            return last
        row = _Row(kind, index, id, name)
        self._rows.append(row)
        return row

    def pieces(self, redaction: Redaction) -> tuple[Pieces, ...]:
        """The recorded deltas, in order and without secrets."""
        # All that is read as one text is looked at as one: a key seldom comes in one piece.
        rows_of: dict[tuple[_Kind, int], list[_Row]] = {}
        for row in self._rows:
            rows_of.setdefault((row.kind, row.index), []).append(row)
        for rows in rows_of.values():
            clean = iter(redaction.pieces([piece for row in rows for piece in row.pieces]))
            for row in rows:
                row.pieces = [next(clean) for _ in row.pieces]
        return tuple(_clean_pieces(row, redaction) for row in self._rows)


def _clean_pieces(row: _Row, redaction: Redaction) -> Pieces:
    pieces = tuple(row.pieces)
    if row.kind is TextPieces:
        return TextPieces(pieces)
    if row.kind is ReasoningPieces:
        return ReasoningPieces(pieces, None if row.signature is None else redaction.text(row.signature))
    return ToolCallPieces(row.index, pieces, redaction.text(row.id), redaction.text(row.name))


async def play(pieces: Pieces, reply: Reply) -> None:
    """Give ``pieces`` one by one."""
    last = len(pieces.pieces) - 1
    for index, piece in enumerate(pieces.pieces):
        if isinstance(pieces, TextPieces):
            await reply.text(piece)
        elif isinstance(pieces, ReasoningPieces):
            await reply.reasoning(piece, signature=pieces.signature if index == last else None)
        elif index == 0:
            await reply.tool_call(pieces.index, id=pieces.id, name=pieces.name, arguments=piece)
        else:
            await reply.tool_call(pieces.index, arguments=piece)
