"""What models are asked, and what they use, compared with an account that is kept outside of the runtime.

The account knows the prompt of each run, what each fake model said, and what each fake tool returned. From these it
works out what the next request has to be. It shares no code with the runtime: neither the rules for a transcript, nor
the meters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
from attrs import define, field

from agentloop._core.context_window import Cut
from agentloop._core.json_text import decode_json
from agentloop._runtime.run import Run
from agentloop.messages import AssistantMessage, Message, ToolCall, ToolResult, Usage, UserMessage
from agentloop.models import ModelRequest
from agentloop.testing.scripted import Response

__all__ = ["Requests", "refusals"]


def refusals(messages: Sequence[Message]) -> list[str]:
    """Why a provider would refuse ``messages``, a sentence each. Written from the providers' rules."""
    if not messages:
        return ["it has no messages"]
    problems: list[str] = []
    if not isinstance(messages[0], UserMessage):
        problems.append("it does not begin with a message of the user")
    waiting: list[ToolCall] = []
    for number, message in enumerate(messages):
        if isinstance(message, ToolResult):
            if not waiting or message.call_id != waiting[0].id:
                problems.append(f"message {number} is a result of {message.call_id!r}, which is not the next call")
            waiting = waiting[1:]
            continue
        if waiting:
            problems.append(f"call {waiting[0].id!r} has no result before message {number}")
        waiting = []
        if isinstance(message, AssistantMessage):
            waiting = list(message.calls)
            if not message.parts:
                problems.append(f"message {number} of the model is empty")
            if len({call.id for call in waiting}) < len(waiting):
                problems.append(f"message {number} has two calls of one id")
    if waiting:
        problems.append(f"call {waiting[0].id!r} has no result at the end")
    return problems


_BEGINNING = 20
"""Characters of a message that are shown however little room there is."""
_LEFT_OUT = "characters are left out here"


@define
class _Conversation:
    """What is known of one transcript."""

    asked: tuple[Message, ...] | None = None
    """The messages of the last request of a turn."""
    answer: Response | None = None
    """What the model said to it, if its response was complete."""
    run: Run | None = None
    """The run that asked."""


@define
class Requests:
    """The account of what the models of all runs are asked and say.

    Args:
      note: is called with each broken promise.
      loses: whether a store has failed by now, and messages may be lost.
    """

    _note: Callable[[str], None]
    _loses: Callable[[], bool] = lambda: False
    is_kept: bool = True
    """Whether the account is kept at all: not where models are no fakes of the lab, which report what they say."""
    returned: dict[tuple[str, str], str] = field(factory=dict[tuple[str, str], str])
    """What fake tools returned, by stream and call."""
    _conversations: dict[int, _Conversation] = field(factory=dict[int, _Conversation])
    """By the identity of the transcript."""
    _parked: dict[tuple[str, str], tuple[Run, tuple[Message, ...]]] = field(
        factory=dict[tuple[str, str], tuple[Run, tuple[Message, ...]]]
    )
    """By the session of the root and that of the run: the last run, and what its model was asked last."""
    _cuts: dict[int, Cut | None] = field(factory=dict[int, Cut | None])
    """What a handoff has left out, at the last request, by the identity of the transcript."""
    _asking: dict[trio.lowlevel.Task, tuple[Run, bool]] = field(factory=dict[trio.lowlevel.Task, tuple[Run, bool]])
    """The run that asks in a task, and whether it asks for a turn."""
    _reported: dict[trio.lowlevel.Task, Usage] = field(factory=dict[trio.lowlevel.Task, Usage])
    """The usage of the response at hand, as its model reports it."""
    _spent: dict[Run, int] = field(factory=dict[Run, int])
    _overflowed: set[Run] = field(factory=set[Run])
    _estimated: set[Run] = field(factory=set[Run])
    _requests: dict[Run, int] = field(factory=dict[Run, int])
    """How many requests of a run have gone out."""
    _calls: dict[Run, int] = field(factory=dict[Run, int])
    """How many tool calls the model of a run has asked for."""
    _prompted: set[Run] = field(factory=set[Run])
    """The runs whose model has been asked for a turn."""
    resumed: dict[Run, Run | None] = field(factory=dict[Run, Run | None])
    """The runs that continue an earlier one, and that one, if it was parked."""

    def asked(self, run: Run, request: ModelRequest, *, is_turn: bool) -> None:
        """A request goes out."""
        if not self.is_kept:
            return
        self._asking[trio.lowlevel.current_task()] = run, is_turn
        self._check_limits(run)
        self._reported.pop(trio.lowlevel.current_task(), None)
        if run.hooks.at("before_llm_call"):
            # A hook may have replaced the messages.
            self.forget(run)
            return
        where = f"{run.source.stream}: its model was asked"
        for problem in refusals(request.messages):
            self._note(f"{where} what a provider would refuse: {problem}")
        if not is_turn:
            return
        names = [tool.name for tool in request.tools]
        if missing := [tool.name for tool in run.config.tools if tool.offered is None and tool.name not in names]:
            self._note(f"{where} without its tool {missing[0]}")
        own = run.config.instructions
        if isinstance(own, str) and not request.instructions.startswith(own):
            self._note(f"{where} without its instructions")
        cut = run.transcript.shown.cut
        if cut != self._cuts.get(id(run.transcript)):
            # A handoff has left out messages, or has brought them back.
            self._cuts[id(run.transcript)] = cut
            self.forget(run)
        conversation = self._conversations.setdefault(id(run.transcript), _Conversation())
        messages = _without_loaded(request.messages)
        if run not in self._prompted and run not in self.resumed:
            self._prompted.add(run)
            parts = run.prompt.parts
            if not any(
                isinstance(message, UserMessage) and message.parts[: len(parts)] == parts for message in messages
            ):
                self._note(f"{where} without the prompt {run.prompt}")
        self._check_newest(where, run, messages)
        self._compare_openings(where, run, messages)
        self._compare(where, run, conversation, messages)
        conversation.asked, conversation.answer, conversation.run = messages, None, run

    def _compare_openings(self, where: str, run: Run, messages: tuple[Message, ...]) -> None:
        """A run that was parked asks its model after what it had asked before, in another process, too."""
        place = run.root.session.id, run.transcript.id
        before, asked = self._parked.get(place, (None, ()))
        self._parked[place] = run, messages
        if before is None or before is run or self._loses() or self.resumed.get(run) is not before:
            return
        if run.hooks.at("before_llm_call") or run.transcript.handoffs:
            return
        if not all(map(_is_shown, messages, asked)) or len(messages) < len(asked):
            self._note(f"{where} {messages[: len(asked)]}, where before it was parked it was asked {asked}")

    def _check_newest(self, where: str, run: Run, messages: tuple[Message, ...]) -> None:
        """The message that the model is to answer is shown, however little room there is: its beginning at least."""
        since: list[UserMessage] = []
        for message in reversed(run.transcript.messages):
            if not isinstance(message, UserMessage):
                break
            since.append(message)
        newest = next((message for message in since if not message.context and not message.reports), None)
        if newest is None or run.transcript.handoffs:
            return
        text = newest.text[:_BEGINNING]
        if not any(isinstance(message, UserMessage) and message.text.startswith(text) for message in messages):
            self._note(f"{where} without {newest}, which nobody has answered")

    def _compare(self, where: str, run: Run, before: _Conversation, messages: tuple[Message, ...]) -> None:
        if before.asked is None:
            if run.first_index == 0 and not self._starts_with_prompt(run, messages):
                self._note(f"{where} {messages}, which does not begin with the prompt {run.prompt}")
            return
        known = len(before.asked)
        if before.run is not run and (run.first_index < known or self._loses()):
            return
        elided = run.transcript.shown.elided
        if before.answer is None and elided and _is_without_prompts(messages, before.asked):
            # The request before was refused as too long: prompts that no model has read give way to the newest one.
            return
        if not all(map(_is_shown, messages, before.asked)) or len(messages) < known:
            self._note(f"{where} with another beginning than before: {messages[:known]}, not {before.asked}")
            return
        rest = messages[known:]
        if before.run is not run:
            # Whether the last response is in the session depends on how the last run ended.
            return
        if before.answer is None:
            if any(not isinstance(message, UserMessage) for message in rest):
                self._note(f"{where} {rest}, though no response was complete")
            return
        self._compare_answer(where, run, before.answer, rest)

    def _compare_answer(self, where: str, run: Run, answer: Response, rest: tuple[Message, ...]) -> None:
        said = [part for part in answer.parts if isinstance(part, ToolCall)]
        text = "".join(getattr(part, "text", "") for part in answer.parts if type(part).__name__ == "Text")
        if not text.strip() and not said:
            return
        first = rest[0] if rest else None
        if not isinstance(first, AssistantMessage) or first.text != text:
            self._note(f"{where} {rest}, which leaves out that the model had said {text!r}")
            return
        if [call.name for call in first.calls] != [_called(call) for call in said] and len(first.calls) != 0:
            self._note(f"{where} {first.calls}, where the model had called {said}")
        after = rest[1 + len(first.calls) :]
        for call, result in zip(first.calls, rest[1:], strict=False):
            expected = self.returned.get((run.source.stream, call.id))
            if (
                isinstance(result, ToolResult)
                and result.status == "ok"
                and expected is not None
                and result.text != expected
                and not run.hooks.at("post_tool_use")
                and len(expected) <= run.config.max_result
            ):
                self._note(f"{where} that {call.name} had returned {result.text!r}, where it had returned {expected!r}")
        if any(not isinstance(message, UserMessage) for message in after):
            self._note(f"{where} {after}, which neither a person nor a tool had said")

    @staticmethod
    def _starts_with_prompt(run: Run, messages: tuple[Message, ...]) -> bool:
        first = messages[0] if messages else None
        parts = run.prompt.parts
        # A hook may have added to it.
        return isinstance(first, UserMessage) and first.parts[: len(parts)] == parts

    def forget(self, run: Run) -> None:
        """The conversation was shortened, or its messages were replaced: the next request is the first one."""
        self._conversations[id(run.transcript)] = _Conversation(asked=())
        self._parked.pop((run.root.session.id, run.transcript.id), None)

    def _check_limits(self, run: Run) -> None:
        """No request goes past a limit on requests, of its run or of one around it, that a person has not raised."""
        self._requests[run] = self._requests.get(run, 0) + 1
        for around in _lineage(run):
            limit = around.meter.limits.requests
            if limit is None or around in self.resumed:
                continue
            asked = sum(count for other, count in self._requests.items() if around in _lineage(other))
            allowed = around.meter.allowed.get("requests", limit)
            if asked > allowed:
                self._note(f"{run.source.stream}: request {asked} went out, where {around.source.stream} has {allowed}")

    def is_turn(self) -> bool:
        """Whether the request that the current task answers is one of a turn."""
        _, is_turn = self._asking.get(trio.lowlevel.current_task(), (None, True))
        return is_turn

    # ---------------------------------------------------------------------------- usage

    def said(self, response: Response) -> None:
        """A fake model has given all of ``response`` to the runtime."""
        run, is_turn = self._asking.get(trio.lowlevel.current_task(), (None, False))
        if run is None:
            return
        conversation = self._conversations.get(id(run.transcript))
        if conversation is not None and is_turn:
            conversation.answer = response
        if is_turn:
            calls = sum(isinstance(part, ToolCall) for part in response.parts)
            self._calls[run] = self._calls.get(run, 0) + calls
        usage = response.usage if response.usage.total_tokens else response.reported
        self._count(run, usage)

    def reported(self, usage: Usage) -> None:
        """A model reports the usage of the response so far."""
        self._reported[trio.lowlevel.current_task()] = usage

    def broke_off(self) -> None:
        """A fake model has failed in the middle of a response: the usage that it had reported counts."""
        run, _ = self._asking.get(trio.lowlevel.current_task(), (None, False))
        if run is not None:
            self._count(run, self._reported.get(trio.lowlevel.current_task(), Usage()))

    def overflowed(self) -> None:
        """A fake model has refused a request as too long: the next one may have less in it, from the beginning on."""
        run, _ = self._asking.get(trio.lowlevel.current_task(), (None, False))
        if run is not None:
            self._overflowed.add(run)
            self.forget(run)

    def turn_began(self, run: Run) -> None:
        """A run takes a turn. After an overflow, a fallback may have been asked all of it once more in the last one."""
        if run in self._overflowed:
            self._overflowed.remove(run)
            self.forget(run)

    def _count(self, run: Run, usage: Usage) -> None:
        self._spent[run] = self._spent.get(run, 0) + usage.total_tokens
        if not usage.total_tokens:
            # A limit on tokens counts an estimate.
            self._estimated.add(run)

    def check_usage(self, runs: Sequence[Run]) -> None:
        """The usage of each outcome is the sum of what the models of its run, and of the runs inside, have used.

        A run that was parked and resumed has used what all of its openings have used. Children of it that are not run
        again have used what they had used.
        """
        if not self.is_kept:
            return
        for run in runs:
            if run.outcome is None:
                continue
            openings = self._openings(run)
            if run in self.resumed and not self._requests.get(run):
                # It ended before it came to what it resumes.
                continue
            inside = [other for other in runs if any(opening in _lineage(other) for opening in openings)]
            if not openings or any(other in self._estimated and other.meter.counts_tokens for other in inside):
                continue
            spent, counted = sum(self._spent.get(other, 0) for other in inside), run.outcome.usage.total_tokens
            if spent != counted:
                self._note(f"{run.source.stream}: its models used {spent} tokens, and its outcome says {counted}")
            asked = sum(self._calls.get(other, 0) for other in inside)
            if run.meter.tool_calls > asked:
                problem = f"its models asked for {asked} calls, and {run.meter.tool_calls} count for its limits"
                self._note(f"{run.source.stream}: {problem}")

    def _openings(self, run: Run) -> list[Run]:
        """The openings of a run, the latest first; none if one is unknown, or was cut off."""
        openings = [run]
        while openings[-1] in self.resumed:
            before = self.resumed[openings[-1]]
            if before is None or self._loses():
                return []
            openings.append(before)
        return openings


def _is_without_prompts(messages: Sequence[Message], asked: Sequence[Message]) -> bool:
    """Whether ``messages`` begin as ``asked`` but for messages of the user that are left out."""
    kept = [message for message in asked if message in messages]
    left_out = [message for message in asked if message not in messages]
    return bool(left_out) and list(messages[: len(kept)]) == kept and all(map(_is_of_user, left_out))


def _is_of_user(message: Message) -> bool:
    return isinstance(message, UserMessage)


def _is_shown(message: Message, before: Message) -> bool:
    """Whether ``message`` is ``before``, or a part of it: a long result is shown in part where there is little room."""
    if message == before:
        return True
    is_result = isinstance(message, ToolResult) and isinstance(before, ToolResult) and message.call_id == before.call_id
    return is_result and _LEFT_OUT in message.text


def _without_loaded(messages: Sequence[Message]) -> tuple[Message, ...]:
    """``messages`` without the deferred tools that are shown once more where the conversation was shortened."""
    return tuple(
        message
        for message in messages
        if not (isinstance(message, ToolResult) and message.call_id.startswith("loaded_"))
        and not (isinstance(message, AssistantMessage) and any(call.id.startswith("loaded_") for call in message.calls))
    )


def _called(call: ToolCall) -> str:
    """The tool that a model calls: where its tools are deferred, it names the tool in the arguments of another."""
    if call.name != "call_tool":
        return call.name
    name = decode_json(call.arguments).get("name")
    return name if isinstance(name, str) else call.name


def _lineage(run: Run) -> list[Run]:
    lineage = [run]
    while (parent := lineage[-1].parent) is not None:
        lineage.append(parent)
    return lineage
