"""The deferred tools of a run, while one agent acts: what a model reads of them, and how it calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from agentloop._core.call_tool import InnerCall, Lowering
from agentloop._core.deferred import (
    FINDER,
    deferred_names,
    finder_description,
    misfit,
    result_text,
    unknown_words,
    with_loaded,
)
from agentloop._core.results import error_result, to_text
from agentloop._core.tool_index import FOUND, search
from agentloop._core.transcript import Transcript
from agentloop.config import AgentConfig
from agentloop.deferred import CALL_TOOL, FIND_TOOLS
from agentloop.errors import ToolError, UsageError
from agentloop.messages import Message, ToolCall, ToolResult
from agentloop.models import Model, ModelRequest, Reply, Stop, ToolSpec
from agentloop.tools import JsonArguments, Tool

__all__ = ["DeferredTools", "defer_tools"]


def defer_tools(config: AgentConfig, listed: Mapping[str, Tool], before: DeferredTools | None) -> DeferredTools | None:
    """The deferred tools of a run, now that ``listed`` are its tools by name; ``None`` if none is deferred.

    Args:
      config: the agent that acts.
      listed: its tools.
      before: its deferred tools before the tools changed.

    Raises:
      UsageError: a tool has a name that is needed here.
    """
    specs = {name: tool.spec for name, tool in listed.items()}
    wishes = {name: tool.deferred for name, tool in listed.items()}
    is_over = before is not None and before.is_over
    names, is_over = deferred_names(specs, wishes, config.deferred, is_over=is_over)
    if before is None and not names:
        return None
    for name in (FIND_TOOLS, CALL_TOOL):
        # One that a server adds later is left out, as one whose name is taken: see `with_finder`.
        if name in listed and before is None:
            raise UsageError(
                f"agent {config.name!r} defers tools, and a toolset of it has a tool {name!r}: rename or filter it"
            )
    deferred = DeferredTools({name: specs[name] for name in names}) if before is None else before
    deferred.update(names, specs, is_over=is_over)
    return deferred


class DeferredTools:
    """The deferred tools of a run, and the tool that finds them.

    Args:
      specs: the deferred tools that there are at first. The list in the description of ``find_tools`` has these: it
        stays as it is, so that tools which come and go do not cost the provider's cache.
    """

    __slots__ = ("_lowering", "_specs", "finder", "is_over", "tools")

    def __init__(self, specs: Mapping[str, ToolSpec]) -> None:
        self._specs: Mapping[str, ToolSpec] = {}
        """The deferred tools that there are now, by name."""
        self.is_over = False
        """Whether the tools are, or were, above the agent's budget."""
        self.tools: Mapping[str, Tool] = {}
        """The tools that the model can call in this turn, by name."""
        self._lowering = Lowering()
        self.finder: Tool = Tool(
            name=FIND_TOOLS,
            description=finder_description(specs.values()),
            function=self._find,
            arguments=JsonArguments(FINDER),
            read_only=True,
            idempotent=True,
            # It bounds its result itself, and half a schema would be of no use.
            max_result=float("inf"),
            deferred=False,
        )

    def update(self, names: frozenset[str], specs: Mapping[str, ToolSpec], *, is_over: bool) -> None:
        """``names`` of the tools ``specs`` are deferred from now on."""
        self.is_over = is_over
        self._specs = {
            name: ToolSpec(spec.name, spec.description, spec.parameters, deferred=True)
            for name, spec in specs.items()
            if name in names
        }

    # ------------------------------------------------------------------------ the request

    def with_finder(self, tools: Mapping[str, Tool]) -> dict[str, Tool]:
        """``tools`` of a turn, with the tool that finds the deferred ones of them."""
        found = {**tools, FIND_TOOLS: self.finder}
        found.pop(CALL_TOOL, None)
        return found

    def specs_of(self, tools: Mapping[str, Tool]) -> tuple[ToolSpec, ...]:
        """The specs of the ``tools`` of a turn. The deferred ones come last: they may change without harm."""
        direct = [tool.spec for name, tool in tools.items() if name not in self._specs]
        return (*direct, *[spec for name, spec in self._specs.items() if name in tools])

    def messages(self, transcript: Transcript) -> Sequence[Message]:
        """The messages that the model reads, with the tools that were loaded before the conversation was shortened."""
        view, messages = transcript.view, transcript.messages
        if view is messages:
            return view
        handoffs = transcript.handoffs
        first = handoffs[-1].index if handoffs else 0
        return with_loaded(view, messages, self._specs, first=first, changed_at=transcript.shown.changed_at)

    async def respond(self, model: Model, request: ModelRequest, reply: Reply) -> Stop:
        """Ask ``model``, which may have no tool search of its own. Raises as `Model.respond` does."""
        ordered = tuple(sorted(request.tools, key=_is_deferred))
        if ordered != request.tools:
            # A hook has put a tool behind the deferred ones.
            request = msgspec.structs.replace(request, tools=ordered)
        has_deferred = bool(ordered) and ordered[-1].deferred
        if not has_deferred or getattr(model, "has_tool_search", False) is True:
            return await model.respond(request, reply)
        inner = _InnerCalls(reply)
        stop = await model.respond(self._lowering.lowered(request), inner)
        if inner.has_more:
            # First the usage, which counts whatever becomes of the rest: a reader that is slow, or a cancellation.
            if isinstance(cast("object", stop), Stop):
                reply.report_usage(stop.usage)
            await inner.finish()
        return stop

    # --------------------------------------------------------------------------- the calls

    async def _find(self, **given: Any) -> str:  # noqa: ASYNC124 - a plain function would run in a thread
        query, limit = given.get("query"), given.get("limit", FOUND)
        if not isinstance(query, str) or not query.strip():
            raise ToolError(
                f'{FIND_TOOLS} takes {{"query": "..."}}: words about what you want to do, or names of tools.'
            )
        specs = [spec for name, spec in self._specs.items() if name in self.tools]
        limit = limit if isinstance(limit, int) and not isinstance(limit, bool) else FOUND
        return to_text(result_text(search(query, specs, limit), query))  # noqa: ASYNC910

    def problem_of(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """Why a deferred tool of another program cannot be called with ``arguments``; empty if it can."""
        if tool.name not in self._specs or not isinstance(tool.arguments, JsonArguments):
            return ""
        problem = misfit(tool.arguments.schema, arguments)
        return f"The arguments do not fit {tool.name}: {problem}." if problem else ""

    def explained(self, tool: Tool, problem: str) -> str:
        """``problem`` of the arguments of a call, with the schema: the model may have called without loading it."""
        spec = self._specs.get(tool.name)
        return problem if spec is None else f"{problem}\nIts parameters:\n{result_text([spec])}"

    def unknown(self, call: ToolCall, tools: Mapping[str, Tool]) -> ToolResult:
        """The result of a call of a tool that is not there."""
        deferred = [name for name in tools if name in self._specs]
        return error_result(call, unknown_words(call.name, [name for name in tools if name not in deferred], deferred))


def _is_deferred(spec: ToolSpec) -> bool:
    return spec.deferred


class _InnerCalls:
    """A `Reply` that turns calls of ``call_tool`` into the calls of the tools that they name."""

    __slots__ = ("_calls", "_held", "_reply")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._calls: dict[int, InnerCall | None] = {}
        """By the number of the call in the response; ``None`` for a call of another tool."""
        self._held: dict[int, tuple[str, str]] = {}
        """The id, and the arguments so far, of calls whose names have not come yet."""

    async def text(self, text: str, /) -> None:
        await self._flush(but=-1)
        await self._reply.text(text)

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        await self._flush(but=-1)
        await self._reply.reasoning(text, signature=signature)

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        if index in self._held:
            held_id, held = self._held.pop(index)
            id, arguments = held_id or id, held + arguments
        if index not in self._calls:
            await self._flush(but=index)
            if name:
                self._calls[index] = InnerCall() if name == CALL_TOOL else None
        call = self._calls.get(index)
        if call is None and index in self._calls:
            await self._reply.tool_call(index, id=id, name=name, arguments=arguments)
            return
        if call is not None:
            arguments = call.add(arguments)
            if call.name and (id or arguments):
                await self._reply.tool_call(index, id=id, name=call.name, arguments=arguments)
                return
        if call is None or not call.name:
            self._held[index] = id, arguments
        # The call goes on, though there is nothing to give yet, or any more.
        await self._reply.text("")

    def report_usage(self, usage: Any, /) -> None:
        self._reply.report_usage(usage)

    async def _flush(self, *, but: int) -> None:
        """Give the calls whose arguments are whole, in their places: servers want what they wrote in its order."""
        for index, call in self._calls.items():
            if index != but and call is not None and call.is_complete:
                await self._finish(index, call)

    async def _finish(self, index: int, call: InnerCall) -> None:
        has_name = bool(call.name)
        name, arguments = call.finish()
        id, _ = self._held.pop(index, ("", ""))
        if not has_name or arguments:
            await self._reply.tool_call(index, id=id, name=name, arguments=arguments)

    @property
    def has_more(self) -> bool:
        """Whether there are calls that were not given whole."""
        return bool(self._held) or any(call is not None and not call.is_done for call in self._calls.values())

    async def finish(self) -> None:
        """The response has ended: give what is left."""
        for index, call in self._calls.items():
            if call is not None and not call.is_done:
                await self._finish(index, call)
        for index, (id, arguments) in self._held.items():
            await self._reply.tool_call(index, id=id, arguments=arguments)
