"""The pieces of one response, put together into the message that they spell out."""

from __future__ import annotations

from collections.abc import Container
from io import StringIO

from agentloop.errors import ModelProtocolError
from agentloop.messages import AssistantMessage, AssistantPart, Reasoning, StopReason, Text, ToolCall, Usage

__all__ = ["Assembler"]


# The pieces go into a StringIO each: a list would keep fifty bytes for every piece until the response is over.


class _Said:
    __slots__ = ("text",)

    def __init__(self) -> None:
        self.text = StringIO()


class _Call:
    __slots__ = ("arguments", "id", "name")

    def __init__(self, id: str) -> None:
        self.id = id
        self.name = ""
        self.arguments = StringIO()


class _Thought:
    __slots__ = ("signature", "text")

    def __init__(self) -> None:
        self.text = StringIO()
        self.signature: str | None = None


class Assembler:
    """Folds the pieces of one response into an `AssistantMessage`.

    Text joins in order of arrival, reasoning too; a block ends where one of another kind begins. Tool calls join
    by ``index`` and may interleave. How the response is cut into pieces makes no difference to the message.

    Args:
      prefix: what the ids begin with that are made up for calls without a usable one.
      taken: call ids that the session's transcript has already. Some servers number calls anew in each response.
    """

    __slots__ = ("_blocks", "_calls", "_ids", "_prefix", "_taken")

    def __init__(self, *, prefix: str, taken: Container[str] = ()) -> None:
        self._prefix = prefix
        self._taken = taken
        # In order of their first pieces.
        self._blocks: list[_Said | _Thought | _Call] = []
        self._calls: dict[int, _Call] = {}
        self._ids: set[str] = set()

    def text(self, text: str) -> None:
        """Add a piece of the answer."""
        block = self._blocks[-1] if self._blocks else None
        if type(block) is not _Said:
            if not text:
                return
            block = _Said()
            self._blocks.append(block)
        block.text.write(text)

    def reasoning(self, text: str, signature: str | None) -> None:
        """Add a piece of the reasoning; ``signature`` closes the block."""
        block = self._blocks[-1] if self._blocks else None
        if not isinstance(block, _Thought) or block.signature is not None:
            block = _Thought()
            self._blocks.append(block)
        block.text.write(text)
        block.signature = signature

    def tool_call(self, index: int, id: str, name: str, arguments: str) -> tuple[str, str]:
        """Add a piece of a call, and give the id and the name by which the call is known from here on."""
        call = self._calls.get(index)
        if call is None:
            call = _Call(self._unique(id, index))
            self._calls[index] = call
            self._blocks.append(call)
        call.name = call.name or name
        call.arguments.write(arguments)
        return call.id, call.name

    def _unique(self, id: str, index: int) -> str:
        if not id or id in self._ids or id in self._taken:
            id = f"{self._prefix}_{index}"
            while id in self._ids or id in self._taken:
                id += "_"
        self._ids.add(id)
        return id

    def finish(self, stop: StopReason, usage: Usage, model: str) -> AssistantMessage:
        """The whole message.

        Raises:
          ModelProtocolError: a tool call has no name.
        """
        for call in self._calls.values():
            if not call.name:
                raise ModelProtocolError(f"model {model!r} asked for a tool call ({call.id!r}) without a tool's name")
        parts = tuple(_part(block) for block in self._blocks)
        return AssistantMessage(parts, "tool_calls" if self._calls and stop == "end" else stop, model, usage)

    def interrupted(self, model: str) -> AssistantMessage | None:
        """The visible part of a response that was cut off: its text; ``None`` if there was none.

        Reasoning and tool calls are left out: providers refuse an unsigned thought, and a half-written call.
        """
        parts = tuple(_part(block) for block in self._blocks if type(block) is _Said)
        return AssistantMessage(parts, "interrupted", model) if parts else None


def _part(block: _Said | _Thought | _Call) -> AssistantPart:
    if isinstance(block, _Said):
        return Text(block.text.getvalue())
    if isinstance(block, _Thought):
        return Reasoning(block.text.getvalue(), block.signature)
    return ToolCall(block.id, block.name, block.arguments.getvalue())
