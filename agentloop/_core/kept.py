"""Long results of tools: shortened for the model, and stored whole, to be read on request."""

from __future__ import annotations

from collections.abc import Mapping

from agentloop.errors import ToolError
from agentloop.messages import Text, ToolResult

__all__ = ["READ_RESULT", "KeptResults"]

READ_RESULT = "read_result"
"""The name of the tool by which a model reads on."""

MOST_CHARACTERS = 20_000_000
"""Characters that a session stores: the oldest results make room."""


_NONE: Mapping[str, str] = {}


class KeptResults:
    """The results of a session that were too long to be shown whole, by call id."""

    __slots__ = ("_size", "_texts")

    def __init__(self) -> None:
        self._texts: Mapping[str, str] = _NONE
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._texts)

    def shorten(self, result: ToolResult, most: float) -> ToolResult:
        """``result`` with at most about ``most`` characters of text, and a word on how to read the rest.

        Its beginning and its end are shown, three parts to one: an error comes last as a rule. Images and files are
        left as they are.
        """
        length = 0
        for part in result.parts:
            if type(part) is Text:
                length += len(part.text)
        if length <= most:
            return result
        text = "".join(part.text for part in result.parts if isinstance(part, Text))
        self.keep(result.call_id, text)
        head, tail = int(most * 3 / 4), int(most / 4)
        note = (
            f"\n\n[{length - head - tail:,} of {length:,} characters are left out here. "
            f'To read them: {READ_RESULT}(call_id="{result.call_id}", offset={head})]\n\n'
        )
        shown = Text(text[:head] + note + text[length - tail :])
        others = (part for part in result.parts if not isinstance(part, Text))
        return ToolResult(result.call_id, result.name, (shown, *others), result.status)

    def read(self, call_id: str, offset: int, limit: int, find: str) -> str:
        """A piece of a result that was kept.

        Args:
          offset: the first character, from 0.
          limit: how many characters.
          find: begin where this stands next, at or after ``offset``; empty to begin at ``offset``.

        Raises:
          ToolError: it is not kept, or there is nothing at that place. The message is for the model.
        """
        text = self._texts.get(call_id)
        if text is None:
            kept = ", ".join(self._texts) or "none"
            raise ToolError(f"there is no long result of call {call_id!r} (any more); those that are kept: {kept}")
        if find:
            found = text.find(find, offset)
            if found < 0:
                raise ToolError(f"{find!r} does not stand at or after offset {offset}")
            offset = found
        if offset >= len(text):
            raise ToolError(f"the result has {len(text)} characters, so there is nothing at offset {offset}")
        end = min(offset + limit, len(text))
        return f"[characters {offset} to {end} of {len(text)}]\n{text[offset:end]}"

    def text_of(self, call_id: str) -> str | None:
        """The whole text of a long result, if it is stored."""
        return self._texts.get(call_id)

    def keep(self, call_id: str, text: str) -> None:
        """Keep the whole ``text`` of a result, to be read. Storing a result once more takes no more room."""
        texts = {**self._texts}
        # A session that is opened again from its journal stores results that are here already.
        self._size += len(text) - len(texts.pop(call_id, ""))
        texts[call_id] = text
        while self._size > MOST_CHARACTERS and len(texts) > 1:
            oldest = next(iter(texts))
            self._size -= len(texts.pop(oldest))
        self._texts = texts
