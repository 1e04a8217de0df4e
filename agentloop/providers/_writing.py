"""The response that a reader of a wire format writes: what was said so far, and whether it is an answer."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any, cast

import msgspec

from agentloop._core.json_text import decode_json
from agentloop._core.response import is_blank
from agentloop.errors import ModelProtocolError
from agentloop.messages import Usage
from agentloop.models import Reply

__all__ = ["ResponseWriter", "is_json", "json_text", "missing_end"]

_encoder = msgspec.json.Encoder()


class ResponseWriter:
    """A `Reply` that remembers what it passed on, and cleans it.

    Halves of a surrogate pair, as servers send them that cut a text between two UTF-16 units, are joined to the
    character; half a character that stays alone becomes U+FFFD.

    Args:
      reply: receives the response.
      model: the model's name, for errors.
    """

    __slots__ = ("_arguments", "_halves", "_model", "_names", "_reply", "_text", "written")

    def __init__(self, reply: Reply, *, model: str) -> None:
        self._reply = reply
        self._model = model
        self._text = StringIO()
        self._names: dict[int, str] = {}
        """The name of each tool call, by index."""
        self._arguments: dict[int, list[str]] = {}
        """The deltas of each tool call's arguments, by index."""
        self._halves: dict[str | int, str] = {}
        """Half a character that waits for the other half, by the index of its call, or the kind of its text."""
        self.written = 0
        """The number of deltas that said something."""

    def pass_through(self, wrap: Callable[[Reply], Reply]) -> None:
        """Have the response go through ``wrap(reply)`` from here on."""
        self._reply = wrap(self._reply)

    # -------------------------------------------------------------------------- writing

    async def text(self, text: str, /) -> None:
        """See `Reply.text`."""
        if self._halves or not text.isascii():
            text = self._whole_characters("text", text)
        if text:
            self.written += 1
            self._text.write(text)
            await self._reply.text(text)

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        """See `Reply.reasoning`."""
        text = self._whole_characters("reasoning", text)
        self.written += bool(text)
        if text or signature is not None:
            await self._reply.reasoning(text, signature=signature)

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        """See `Reply.tool_call`."""
        arguments = self._whole_characters(index, arguments)
        self._names[index] = self._names.get(index) or name
        self._arguments.setdefault(index, []).append(arguments)
        self.written += 1
        await self._reply.tool_call(index, id=_encodable(id), name=_encodable(name), arguments=arguments)

    def report_usage(self, usage: Usage, /) -> None:
        """See `Reply.report_usage`."""
        self._reply.report_usage(usage)

    async def show_life(self) -> None:
        """Restart the deadline for silence: the server works, and has nothing to say yet."""
        await self._reply.text("")

    # ------------------------------------------------------------------------ completing

    async def complete_text(self, whole: str) -> None:
        """Add what is missing at the end of the text, of which ``whole`` is the whole."""
        missing = missing_end(self._text.getvalue(), whole)
        if missing:
            await self.text(missing)

    async def complete_call(self, index: int, *, id: str = "", name: str = "", arguments: str) -> None:
        """Add what is missing of the tool call ``index``, of which ``arguments`` are the whole arguments.

        Raises:
          ModelProtocolError: the deltas have brought other arguments, and only a part of them.
        """
        before = "".join(self._arguments.get(index, ()))
        missing = missing_end(before, arguments)
        if missing is None and not is_json(before):
            both = f"{before[:80]!r}, then {arguments[:80]!r}"
            raise ModelProtocolError(f"model {self._model!r} gave two versions of a tool call's arguments: {both}")
        if missing or not self._names.get(index):
            await self.tool_call(index, id=id, name=name, arguments=missing or "")

    # ------------------------------------------------------------------------- the answer

    @property
    def has_text(self) -> bool:
        """Whether there is text to see."""
        return not is_blank(self._text.getvalue())

    @property
    def call_count(self) -> int:
        """The number of tool calls."""
        return len(self._arguments)

    @property
    def is_answer(self) -> bool:
        """Whether the response could be complete: it has a text or tool calls, and the calls have whole arguments."""
        calls_are_whole = all(is_json("".join(pieces)) for pieces in self._arguments.values())
        return calls_are_whole and (self.has_text or bool(self._arguments))

    # ------------------------------------------------------------------------- characters

    def _whole_characters(self, kind: str | int, text: str) -> str:
        """``text``, after the half character that waits; half a character at its end waits for the next text."""
        if not self._halves and text.isascii():
            return text
        text = self._halves.pop(kind, "") + text
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._halves[kind] = text[-1]
            text = text[:-1]
        return _encodable(text)


def _encodable(text: str) -> str:
    """``text`` with whole characters in the place of surrogate pairs, and U+FFFD in the place of other surrogates."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def missing_end(before: str, whole: str) -> str | None:
    """The end of ``whole`` after ``before``; ``None`` if it does not begin with ``before``."""
    return whole[len(before) :] if whole.startswith(before) else None


def is_json(text: str) -> bool:
    """Whether ``text`` is a whole JSON text."""
    try:
        decode_json(text)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return True


def json_text(value: object) -> str:
    """``value`` as JSON text, with whole characters where its texts have surrogates."""
    try:
        return _encoder.encode(value).decode()
    except UnicodeEncodeError:
        return _encoder.encode(_clean(msgspec.to_builtins(value))).decode()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, dict):
        return {_encodable(key): _clean(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_clean(item) for item in cast("list[Any]", value)]  # type: ignore[redundant-cast]
    return value
