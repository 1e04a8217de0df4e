"""A reply that turns tool calls in the text of a response into tool calls.

Some servers have no parser for the template of their model, so that its calls arrive as text. A call in the text
counts only under these conditions: it begins a line, outside of code; nothing but calls follows up to the end of the
response; it names a tool that is offered; and no tool's result has the same text, which the model may just repeat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from agentloop.messages import StopReason, Text, ToolResult, Usage
from agentloop.models import ModelRequest, Reply
from agentloop.providers._call_markup import (
    CALL_STARTS,
    NoMarkupError,
    OpenMarkupError,
    cut_off_call,
    read_calls,
)

__all__ = ["TextCalls", "calls_from_text"]

_LINE_START = re.compile(r"\n\s*(?=[<\[])|</think>\s*(?=[<\[{])")
_MARKUP = re.compile(r"\s*(?=[<\[{])")
_KEPT_OF_LINE = 200
"""Characters of the current line that are kept at most."""


def calls_from_text(reply: Reply, request: ModelRequest) -> TextCalls | None:
    """A reply for the response to ``request``; ``None`` if the response can have no calls."""
    if not request.tools or request.settings.tool_choice == "none":
        return None
    return TextCalls(reply, request)


class TextCalls:
    """A `Reply` that holds text back while it may be a tool call, and passes on everything else."""

    __slots__ = ("_has_calls", "_held", "_is_code", "_is_start", "_line", "_reply", "_request", "_tools")

    def __init__(self, reply: Reply, request: ModelRequest) -> None:
        self._reply = reply
        self._request = request
        self._tools: dict[str, Mapping[str, Any]] = {}
        """See `_offered`, which fills it: most responses have no text that looks like a call."""
        self._held = ""
        self._line = ""
        """The current line, as far as it was passed on; without its middle, if it is long."""
        self._is_start = True
        """Whether only white space, or thoughts, were passed on."""
        self._is_code = False
        """Whether a code block is open."""
        self._has_calls = False
        """Whether the server has found calls itself. Then calls in the text are text."""

    # ------------------------------------------------------------------------------ Reply

    async def text(self, text: str, /) -> None:
        """See `Reply.text`."""
        if self._has_calls or not text:
            await self._reply.text(text)
            return
        text, self._held = self._held + text, ""
        first = 0
        while (start := self._markup_in(text, first)) is not None:
            await self._pass_on(text[:start])
            text, first = text[start:], 1
            if self._may_be_calls(text):
                self._held = text
                # The model is at work, although nothing can be shown.
                await self._reply.text("")
                return
        await self._pass_on(text)

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        """See `Reply.reasoning`."""
        if text:
            await self._release()
        await self._reply.reasoning(text, signature=signature)

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        """See `Reply.tool_call`."""
        await self._release()
        self._has_calls = True
        await self._reply.tool_call(index, id=id, name=name, arguments=arguments)

    def report_usage(self, usage: Usage, /) -> None:
        """See `Reply.report_usage`."""
        self._reply.report_usage(usage)

    async def finish(self, reason: StopReason) -> None:
        """The response is complete: pass on the text that was held back, as calls or as text."""
        text = self._held
        if not text or reason not in ("end", "tool_calls", "length") or self._is_repeated(text):
            await self._release()
            return
        try:
            calls = read_calls(text, self._offered(), is_start=self._is_start, has_ended=True)
        except (NoMarkupError, OpenMarkupError):
            cut_off = cut_off_call(text, self._offered()) if reason == "length" else None
            calls = [] if cut_off is None else [cut_off]
        if not calls:
            await self._release()
            return
        self._held = ""
        for index, call in enumerate(calls):
            await self._reply.tool_call(index, name=call.name, arguments=call.arguments)

    # ------------------------------------------------------------------------- the text

    def _markup_in(self, text: str, first: int) -> int | None:
        """The first place in ``text``, from ``first`` on, at which markup may start; ``None`` if there is none."""
        if first == 0 and (not self._line.strip() or self._line.rstrip().endswith("</think>")):
            match = _MARKUP.match(text)
            if match is not None:
                # The white space before a call at the start is held as well, as part of nothing.
                return 0 if self._is_start and not self._line else match.end()
        # With the end of the line before: the tag may have arrived in parts.
        before = "" if first else self._line[-len("</think>") :]
        for match in _LINE_START.finditer(before + text):
            if match.end() - len(before) >= first:
                return match.end() - len(before)
        return None

    def _may_be_calls(self, text: str) -> bool:
        if self._is_code:
            return False
        start = text.lstrip()
        if not start.startswith("{") and not any(opening.startswith(start[: len(opening)]) for opening in CALL_STARTS):
            return False
        try:
            read_calls(text, self._offered(), is_start=self._is_start, has_ended=False)
        except OpenMarkupError:
            return True
        except NoMarkupError:
            return False
        return True

    def _offered(self) -> Mapping[str, Mapping[str, Any]]:
        """The properties of the arguments of each tool that is offered, by the tool's name."""
        if not self._tools:
            for tool in self._request.tools:
                self._tools[tool.name] = cast("Mapping[str, Any]", tool.parameters.get("properties") or {})
        return self._tools

    def _is_repeated(self, text: str) -> bool:
        """Whether a tool's result has the same text, apart from white space."""
        bare = "".join(text.split())
        return any(
            bare in "".join(part.text.split())
            for message in self._request.messages
            if isinstance(message, ToolResult)
            for part in message.parts
            if isinstance(part, Text)
        )

    async def _release(self) -> None:
        text, self._held = self._held, ""
        await self._pass_on(text)

    async def _pass_on(self, text: str) -> None:  # noqa: ASYNC910  # nothing to pass on
        if not text:
            return
        lines = (self._line + text).split("\n")
        for line in lines[:-1]:
            self._is_code ^= line.lstrip().startswith(("```", "~~~"))
        last = lines[-1]
        half = _KEPT_OF_LINE // 2
        self._line = last if len(last) <= _KEPT_OF_LINE else last[:half] + last[-half:]
        self._is_start = (self._is_start and not text.strip()) or last.rstrip().endswith("</think>")
        await self._reply.text(text)
