"""The pieces of one response, put together into the message that they spell out."""

from __future__ import annotations

from collections.abc import Container
from io import StringIO

from agentloop.errors import ModelOutputLimitError, ModelProtocolError
from agentloop.messages import AssistantMessage, AssistantPart, Reasoning, StopReason, Text, ToolCall, Usage

__all__ = ["MAX_CALLS", "MAX_CHARACTERS", "Assembler"]

MAX_CHARACTERS = 16 * 2**20
"""Characters of one response: text, reasoning, signatures and arguments together. The longest outputs of models have a
quarter of it; without a bound, a server that never ends its response would fill the memory."""
MAX_CALLS = 256
"""Tool calls of one response. All of them run at once."""
BLOCK_SIZE = 128
"""Characters that each block counts for, besides its own: an empty block takes memory as well."""


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
      model: the model's name, for errors.

    Raises, whenever a piece is added:
      ModelOutputLimitError: the response has more than `MAX_CHARACTERS`, or more than `MAX_CALLS`.
    """

    __slots__ = ("_blocks", "_calls", "_ids", "_model", "_prefix", "_room", "_taken")

    def __init__(self, *, prefix: str, taken: Container[str] = (), model: str = "") -> None:
        self._model = model
        self._room = MAX_CHARACTERS
        """The number of characters that may still be added."""
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
            self._begin(block)
        self._take(len(text))
        block.text.write(text)

    def reasoning(self, text: str, signature: str | None) -> None:
        """Add a piece of the reasoning; ``signature`` closes the block."""
        block = self._blocks[-1] if self._blocks else None
        if not isinstance(block, _Thought) or block.signature is not None:
            block = _Thought()
            self._begin(block)
        self._take(len(text) + len(signature or ""))
        block.text.write(text)
        block.signature = signature

    def tool_call(self, index: int, id: str, name: str, arguments: str) -> tuple[str, str]:
        """Add a piece of a call, and give the id and the name by which the call is known from here on."""
        call = self._calls.get(index)
        if call is None:
            if len(self._calls) == MAX_CALLS:
                problem = f"asked for more than {MAX_CALLS} tool calls in one response: ask for less at a time"
                raise ModelOutputLimitError(model=self._model, problem=problem)
            call = _Call(self._unique(id, index))
            self._calls[index] = call
            self._begin(call)
        self._take(len(arguments))
        call.name = call.name or name
        call.arguments.write(arguments)
        return call.id, call.name

    def _begin(self, block: _Said | _Thought | _Call) -> None:
        self._take(BLOCK_SIZE)
        self._blocks.append(block)

    def _take(self, characters: int) -> None:
        self._room -= characters
        self._check_room()

    def _check_room(self) -> None:
        if self._room < 0:
            problem = f"sent a response of more than {MAX_CHARACTERS} characters: give it fewer max_tokens"
            raise ModelOutputLimitError(model=self._model, problem=problem)

    def _unique(self, id: str, index: int) -> str:
        # The id is a key in journals, and some databases take no NUL in a text.
        if not id or "\0" in id or id in self._ids or id in self._taken:
            id = f"{self._prefix}_{index}"
            while id in self._ids or id in self._taken:
                id += "_"
        self._ids.add(id)
        return id

    def finish(self, stop: StopReason, usage: Usage, model: str) -> AssistantMessage:
        """The whole message.

        Raises:
          ModelOutputLimitError: it is too long.
          ModelProtocolError: a tool call has no name, or the response ended for tool calls and has none.
        """
        # Once more, since a model may have caught the error.
        self._check_room()
        if stop == "tool_calls" and not self._calls:
            raise ModelProtocolError(f"model {model!r} ended its response with tool calls, and asked for none")
        if stop == "length":
            # The limit may lie before the name of the last call.
            self._blocks = [block for block in self._blocks if not isinstance(block, _Call) or block.name]
        for call in self._calls.values():
            if not call.name and stop != "length":
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
