"""A response: put together from its pieces, checked at its end, and judged for the step that follows it.

`Assembler` gets the pieces, `checked_stop` the end, and `after_response` the whole message. The loop waits; this
decides.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Container, Sequence
from io import StringIO
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from agentloop._core.field_checks import FieldError, checked, plain_text, shown
from agentloop._core.json_text import is_object
from agentloop._core.partial_json import Change, PartialJson
from agentloop._core.results import error_result
from agentloop._core.structured_output import OutputType
from agentloop._core.transcript import close_turn
from agentloop.errors import ModelOutputLimitError, ModelProtocolError, ModelRefusalError, OutputError
from agentloop.messages import (
    AssistantMessage,
    AssistantPart,
    Message,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UserMessage,
)
from agentloop.models import Stop

__all__ = [
    "FLAWS",
    "MAX_CALLS",
    "MAX_CHARACTERS",
    "MAX_TOKENS",
    "Answered",
    "AskAgain",
    "Assembler",
    "CallTools",
    "Flaw",
    "Next",
    "PartialOutput",
    "Proceed",
    "after_refused_output",
    "after_response",
    "answer_at_the_end",
    "checked_delta",
    "checked_stop",
    "checked_usage",
    "flaw_of",
    "is_blank",
]

# ------------------------------------------------ put together from its pieces


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
      agent: name of the agent, for the message.

    Raises, whenever a piece is added:
      ModelOutputLimitError: the response has more than `MAX_CHARACTERS`, or more than `MAX_CALLS`.
    """

    __slots__ = ("_agent", "_blocks", "_calls", "_ids", "_model", "_prefix", "_room", "_taken")

    def __init__(self, *, prefix: str, taken: Container[str] = (), model: str = "", agent: str = "") -> None:
        self._model = model
        self._agent = agent
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
        self._room -= len(text)
        if self._room < 0:
            self._check_room()
        block.text.write(text)

    def reasoning(self, text: str, signature: str | None) -> None:
        """Add a piece of the reasoning; ``signature`` closes the block."""
        block = self._blocks[-1] if self._blocks else None
        if not isinstance(block, _Thought) or block.signature is not None:
            block = _Thought()
            self._begin(block)
        self._room -= len(text) + len(signature or "")
        self._check_room()
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
        self._room -= len(arguments)
        if self._room < 0:
            self._check_room()
        call.name = call.name or name
        call.arguments.write(arguments)
        return call.id, call.name

    def _begin(self, block: _Said | _Thought | _Call) -> None:
        self._room -= BLOCK_SIZE
        self._check_room()
        self._blocks.append(block)

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
        parts = tuple([_part(block) for block in self._blocks])
        stop = "tool_calls" if self._calls and stop == "end" else stop
        return AssistantMessage(parts, stop, model, usage, self._agent)

    def interrupted(self, model: str) -> AssistantMessage | None:
        """The visible part of a response that was cut off: its text; ``None`` if there was none.

        Reasoning and tool calls are left out: providers refuse an unsigned thought, and a half-written call.
        """
        parts = tuple([_part(block) for block in self._blocks if type(block) is _Said])
        return AssistantMessage(parts, "interrupted", model, agent=self._agent) if parts else None


class PartialOutput:
    """The structured output of a response that is still being written.

    Args:
      assembler: gets the response.
      is_wrapped: whether the output is wrapped as ``{"value": ...}``.
      on_change: called with each change of the output, without the wrapper, in order.
    """

    __slots__ = ("_block", "_held", "_is_wrapped", "_offset", "_on_change", "_parser", "assembler")

    def __init__(
        self, assembler: Assembler, *, is_wrapped: bool, on_change: Callable[[Change], None] | None = None
    ) -> None:
        self.assembler = assembler
        self._is_wrapped = is_wrapped
        self._on_change = on_change
        self._parser = PartialJson(None if on_change is None else self._report)
        self._block = self._offset = 0
        """The block, and the place in its text, up to which the parser has read."""
        self._held: Change | None = None
        """The beginning of an object that may be the wrapper."""

    def update(self) -> None:
        """Read the text that the response has got since the last time."""
        blocks = self.assembler._blocks
        while self._block < len(blocks):
            block = blocks[self._block]
            if isinstance(block, _Said):
                block.text.seek(self._offset)
                self._parser.feed(block.text.read())
                self._offset = block.text.tell()
            if self._block == len(blocks) - 1:
                return
            self._block += 1
            self._offset = 0

    @property
    def value(self) -> Any:
        """The output so far, as a JSON value; ``None`` before it begins."""
        self.update()
        value = self._parser.value
        if self._is_wrapped and is_object(value) and value.keys() <= {"value"}:
            return value.get("value")
        return value

    def _report(self, change: Change) -> None:
        assert self._on_change is not None
        if self._is_wrapped:
            if not change.path:
                self._held = change if change.value == {} else None
                if self._held is not None:
                    return
            elif self._held is not None and change.path[0] == "value":
                change = change._replace(path=change.path[1:])
            elif self._held is not None:
                # An object that is no wrapper: some models leave the wrapper out.
                held, self._held = self._held, None
                self._on_change(held)
        self._on_change(change)


def _part(block: _Said | _Thought | _Call) -> AssistantPart:
    if isinstance(block, _Said):
        return Text(block.text.getvalue())
    if isinstance(block, _Thought):
        return Reasoning(block.text.getvalue(), block.signature)
    return ToolCall(block.id, block.name, block.arguments.getvalue())


# ------------------------------------------------------------ its end, checked


MAX_TOKENS = 10**9
"""Tokens. A larger count is a mistake of the server, or an attack on limits and stores: no response has as many."""

_REASONS = frozenset(get_args(StopReason)) - {"interrupted"}
"""The reasons that a model may give. Only the run knows that it was interrupted."""


def checked_stop(stop: object, *, model: str) -> Stop:
    """``stop``, as the model ``model`` returned it, with a reason that exists and numbers that can be counted.

    Raises:
      ModelProtocolError: it is no `Stop`, or its reason is unknown.
    """
    if not isinstance(stop, Stop) or not _fits(stop.usage, Usage) or not _fits(stop.model, str):
        raise ModelProtocolError(f"model {model!r} returned {shown(stop)} where a Stop is due")
    if not _fits(stop.reason, str) or stop.reason not in _REASONS:
        raise ModelProtocolError(
            f"model {model!r} returned the unknown stop reason {shown(stop.reason)}; the reasons are {sorted(_REASONS)}"
        )
    usage = checked_usage(stop.usage)
    if usage is stop.usage and stop.model.isascii() and _is_str(stop.model) and _is_str(stop.reason):
        # As nearly always.
        return stop
    # The name may have lone surrogates, with which no message can be encoded.
    return Stop(checked(str, stop.reason), usage, plain_text(stop.model))


def checked_delta(model: str, name: str, text: object) -> str:
    """A text that the model ``model`` passed to its `Reply`, in whole characters.

    Raises:
      ModelProtocolError: it is no text.
    """
    if type(text) is str and text.isascii():
        return text
    try:
        return str(checked(str, text, f"reply.{name}"))
    except FieldError as error:
        raise ModelProtocolError(f"model {model!r} broke the protocol: {error}") from error


def checked_usage(usage: Usage) -> Usage:
    """``usage`` with 0 for each number that no response can have: a negative one, one above `MAX_TOKENS`, NaN.

    A negative count would raise the limits of the run, and a number that JSON has no form for would spoil its session.
    """
    if _is_plain(usage):
        return usage
    return Usage(
        _count(usage.input_tokens),
        _count(usage.output_tokens),
        _count(usage.cached_tokens),
        _count(usage.reasoning_tokens),
        _count(usage.requests),
        _count(usage.cache_written_tokens),
        _cost(usage.cost),
    )


def _is_plain(usage: Usage) -> bool:
    """Whether each number of ``usage`` is one that a response can have. A third of the time of checking each alone."""
    for count in (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.requests,
        usage.cache_written_tokens,
    ):
        if type(count) is not int or not 0 <= count <= MAX_TOKENS:
            return False
    cost = usage.cost
    return type(cost) is float and 0 <= cost <= MAX_TOKENS


def _is_str(value: object) -> bool:
    """Whether ``value`` is a text, and of no subclass."""
    return type(value) is str


def _fits(value: object, kind: type) -> bool:
    # A function, since type checkers take a model's word for the types of what it returns.
    return isinstance(value, kind)


def _count(value: object) -> int:
    return int(value) if isinstance(value, int) and 0 <= value <= MAX_TOKENS else 0


def _cost(value: object) -> float:
    is_cost = isinstance(value, (int, float)) and 0 <= value <= MAX_TOKENS and math.isfinite(value)
    return float(value) if is_cost and isinstance(value, (int, float)) else 0.0


# ----------------------------------------------------------- the step after it


MAX_CUT_OFF = 3
"""Responses in a row that are cut off at the token limit before the run fails."""
EMPTY_ATTEMPTS = 2
"""Requests for an answer that is not empty."""

NOT_RUN = (
    "Not run: your response was cut off at the limit of tokens, so this call may be incomplete. Ask for less at a "
    "time: split the work into several smaller calls, over several responses."
)
"""The result of each call of a response that was cut off."""

Flaw: TypeAlias = Literal["", "truncated", "empty"]
"""The warning code for a response that is no complete answer; empty for one that is."""

FLAWS: dict[Flaw, str] = {
    "": "",
    "truncated": "The response was cut off at the limit of tokens.",
    "empty": "The model said nothing.",
}
"""Each flaw as a sentence for a person."""


class CallTools(msgspec.Struct, frozen=True):
    """Run the calls that the response asks for, then ask the model again."""

    calls: tuple[ToolCall, ...]


class Answered(msgspec.Struct, frozen=True):
    """The response is the answer."""

    output: Any
    detail: str = ""
    """The flaw of the answer, for a person: it is empty, or was cut off."""


class Proceed(msgspec.Struct, frozen=True):
    """Commit ``messages``, and send the next request: the response was paused, or its calls must not run."""

    messages: tuple[Message, ...]
    reason: Literal["tool_calls", "continued"]
    """Why the turn finished."""


class AskAgain(msgspec.Struct, frozen=True):
    """The response is no valid output: commit ``messages``, and ask again.

    ``messages`` are the response and a reminder. An empty response commits nothing: the same request goes out again.
    """

    messages: tuple[Message, ...] = ()


Next: TypeAlias = CallTools | Answered | Proceed | AskAgain


def after_response(
    message: AssistantMessage, output: OutputType, *, before: Sequence[Message], attempt: int, attempts: float
) -> Next:
    """The step after the response ``message``.

    Args:
      message: the response.
      output: the type of the final answer.
      before: the transcript that the response follows.
      attempt: the number of answers so far that were no valid output, this one included.
      attempts: the most answers that may be no valid output.

    Raises:
      ModelRefusalError: the model refused.
      ModelOutputLimitError: response after response was cut off.
      OutputError: that was the last attempt, and it gave no valid output.
    """
    if message.stop == "refusal":
        raise ModelRefusalError(model=message.model, text=message.text)
    calls = message.calls
    if calls and message.stop != "length":
        return CallTools(calls)
    if calls:
        _check_cut_off(message, before)
        not_run = {call.id: error_result(call, NOT_RUN) for call in calls}
        return Proceed(close_turn(message, not_run, ()), "tool_calls")
    if message.stop == "paused":
        return Proceed((message,) if message.parts else (), "continued")
    flaw = flaw_of(message, before)
    if output.schema is None:
        return _after_text(message, flaw, attempt)
    try:
        return Answered(_decoded(message, flaw, output))
    except ValueError as error:
        if attempt >= attempts:
            raise OutputError(model=message.model, attempts=attempts, problem=str(error), text=message.text) from error
        return AskAgain((message, _reminder(str(error), output)))


def after_refused_output(
    message: AssistantMessage, problem: str, output: OutputType, *, attempt: int, attempts: float
) -> AskAgain:
    """The step after an output validator refused the output of ``message``, which is part of the transcript already.

    Args:
      message: the response.
      problem: the words of the validator, for the model.
      output: the type of the final answer.
      attempt: the number of answers so far that were no valid output, this one included.
      attempts: the most answers that may be no valid output.

    Raises:
      OutputError: that was the last attempt.
    """
    if attempt >= attempts:
        raise OutputError(model=message.model, attempts=attempts, problem=problem, text=message.text)
    return AskAgain((_reminder(problem, output),))


def _reminder(problem: str, output: OutputType) -> UserMessage:
    """The message that asks for the output again."""
    how = "." if output.schema is None else ", with nothing but JSON that fits the schema."
    return UserMessage((Text(f"That is not the output that was asked for: {problem}\nAnswer again{how}"),))


def _after_text(message: AssistantMessage, flaw: Flaw, attempt: int) -> Next:
    """The step after an answer in plain text."""
    if flaw and is_blank(message.text):
        if attempt < EMPTY_ATTEMPTS:
            return AskAgain()
        if flaw == "truncated":
            problem = "before it said anything: give more max_tokens, or less reasoning_effort"
            raise ModelOutputLimitError(model=message.model, problem=f"reached its limit of tokens {problem}")
    return Answered(message.text, FLAWS[flaw])


def _decoded(message: AssistantMessage, flaw: Flaw, output: OutputType) -> Any:
    """The value in ``message``. Raises `ValueError` if the answer is cut off, or does not fit the type."""
    if flaw == "truncated":
        # The beginning of a JSON text may be valid JSON as well, such as 12 of 1234.
        raise ValueError("it was cut off at the limit of tokens; a shorter one is needed")
    return output.decode(message.text)


def _check_cut_off(message: AssistantMessage, before: Sequence[Message]) -> None:
    """Raise `ModelOutputLimitError` if ``message`` and the responses directly before it were all cut off."""
    cut_off = 1
    for earlier in reversed(before):
        if isinstance(earlier, AssistantMessage) and earlier.stop == "length":
            cut_off += 1
        elif not isinstance(earlier, ToolResult) and not _is_context(earlier):
            break
    if cut_off >= MAX_CUT_OFF:
        problem = f"reached its limit of tokens in the middle of a tool call, {cut_off} times in a row"
        raise ModelOutputLimitError(
            model=message.model, problem=f"{problem}: give more max_tokens, or ask for less at a time"
        )


def flaw_of(message: AssistantMessage, before: Sequence[Message]) -> Flaw:
    """The warning code for ``message``, which follows the transcript ``before``; empty if it has no flaw.

    White space and thoughts alone are empty. A model that ends without a word after its tools has done its work.
    """
    if message.stop == "length":
        return "truncated"
    if message.calls or message.stop == "paused" or not is_blank(message.text):
        return ""
    last = next((earlier for earlier in reversed(before) if not _is_context(earlier)), None)
    return "" if isinstance(last, ToolResult) else "empty"


def _is_context(message: Message) -> bool:
    """Whether the program has added the message to keep the model up to date."""
    return isinstance(message, UserMessage) and bool(message.context)


def is_blank(text: str) -> bool:
    """Whether ``text`` has nothing to see: white space and invisible characters, such as a zero-width space, alone."""
    return not text.strip() or (len(text) < 100 and all(map(_is_invisible, text)))


def _is_invisible(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def answer_at_the_end(messages: Sequence[Message], output: OutputType) -> Answered | None:
    """The final answer with which a transcript ends; ``None`` if the model has to go on."""
    last = messages[-1]
    if not isinstance(last, AssistantMessage) or last.calls or last.stop in ("interrupted", "paused"):
        return None
    flaw = flaw_of(last, messages[:-1])
    if output.schema is None:
        return Answered(last.text, FLAWS[flaw])
    try:
        return Answered(_decoded(last, flaw, output))
    except ValueError:
        return None
