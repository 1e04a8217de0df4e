"""How cost grows: with the tools that are offered, the length of the transcript, the calls that are cancelled."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import trio
from attrs import evolve

from agentloop import Agent, ToolContext, tool
from agentloop.events import ToolCallStarted
from agentloop.messages import AssistantMessage, Message, Text, UserMessage
from agentloop.models import ModelRequest, Reply, Stop, ToolSpec
from agentloop.providers._chat_format import ChatFormat
from agentloop.providers._messages_format import MessagesFormat
from agentloop.providers._responses_format import ResponsesFormat
from agentloop.providers._wire_model import EncodedRequest, WireFormat
from agentloop.providers._writing import ResponseWriter
from tests.bench import ours
from tests.bench.figures import Measured
from tests.bench.measure import Samples, alternate, median, ratio
from tests.bench.work import add, turns

__all__ = ["cancelling", "encoding", "making", "tools"]

FORMATS: dict[str, Callable[[], WireFormat]] = {
    "chat": lambda: ChatFormat(model="bench"),
    "messages": lambda: MessagesFormat(model="bench", max_tokens=1000),
    "responses": lambda: ResponsesFormat(model="bench"),
}


_NO_REPLY: Reply = None  # type: ignore[assignment]  # no response is read


def making(quick: bool) -> Measured:
    """An agent with one tool, made of a function, against one whose tool is there already."""
    model, ready = _Asking(1), tool(add)
    ours_: Samples = []
    bare: Samples = []
    count = 100 if quick else 1000
    for _ in range(5 if quick else 21):
        for made, samples in ((add, ours_), (ready, bare)):
            gc.collect()
            began = time.process_time()
            for _ in range(count):
                Agent(model, tools=[made])
            samples.append((time.process_time() - began) / count)
    return Measured(ours=median(ours_) * 1e6, bare=median(bare) * 1e6, value=median(ours_) * 1e6)


def tools(quick: bool) -> Measured:
    """A turn of an agent with 2,000 tools, against one of an agent with one."""

    def copy(number: int) -> object:
        return evolve(tool(add), name=f"add_{number}")

    plan = turns(20)
    few, many = ours.agent_for(plan, add), ours.agent_for(plan, add, *map(copy, range(1999)))  # type: ignore[arg-type]
    samples = alternate(
        {"ours": lambda: ours.read(many), "bare": lambda: ours.read(few)}, rounds=5 if quick else 41, repeat=3
    )
    return Measured(
        ours=median(samples["ours"]) * 1e6 / 20,
        bare=median(samples["bare"]) * 1e6 / 20,
        value=ratio(samples["ours"], samples["bare"]),
    )


def encoding(name: str) -> Callable[[bool], Measured]:
    """A request with a transcript of 10,000 messages of which two are new, against one of which all are new."""

    def measure(quick: bool) -> Measured:
        rounds = 3 if quick else 15
        grown, anew = _seconds_per_request(FORMATS[name](), 10_000, rounds)
        return Measured(ours=median(grown) * 1e3, bare=median(anew) * 1e3, value=ratio(grown, anew))

    return measure


def _seconds_per_request(format: WireFormat, length: int, rounds: int) -> tuple[Samples, Samples]:
    messages: list[Message] = []
    spec = tool(add).spec

    def say(number: int) -> None:
        answer = AssistantMessage((Text(f"Answer {number}. " * 10),))
        messages.extend([UserMessage((Text(f"Question {number}?"),)), answer])

    def seconds(encoded: EncodedRequest) -> float:
        request = _request(messages, spec)
        began = time.process_time()
        format.exchange(request, encoded, name="bench", writer=ResponseWriter(_NO_REPLY, model="bench"))
        return time.process_time() - began

    for number in range(length // 2):
        say(number)
    encoded = EncodedRequest()
    grown: Samples = []
    anew: Samples = []
    seconds(encoded)
    for number in range(rounds):
        say(length + number)
        gc.collect()
        grown.append(seconds(encoded))
        anew.append(seconds(EncodedRequest()))
    return grown, anew


def _request(messages: list[Message], spec: ToolSpec) -> ModelRequest:
    return ModelRequest((*messages, UserMessage((Text("And now?"),))), "Be brief.", (spec,))


class _Asking:
    """A model that asks for so many calls of a tool at once."""

    name = "asking"

    def __init__(self, calls: int, tool: str = "wait") -> None:
        self._calls = calls
        self._tool = tool

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        for index in range(self._calls):
            await reply.tool_call(index, id=f"call_{index}", name=self._tool, arguments="{}")
        return Stop()


CALLS_OF_A_RESPONSE = 250
"""A response may have 256, so more calls than that run only in several child runs."""


async def _seconds_to_cancel(calls: int) -> float:
    """The time from the cancellation of a run with so many running calls to the end of its block, for each call.

    The calls are those of child runs: `CALLS_OF_A_RESPONSE` of each.
    """

    @tool
    async def wait() -> str:
        """Wait."""
        await trio.sleep_forever()
        raise AssertionError

    child = Agent(_Asking(CALLS_OF_A_RESPONSE), name="child", tools=[wait])

    @tool
    async def delegate(context: ToolContext[None]) -> str:
        """Run the child agent."""
        await context.run(child, "go")
        raise AssertionError

    began, started = 0.0, 0
    with trio.CancelScope() as scope:
        agent = Agent(_Asking(calls // CALLS_OF_A_RESPONSE, "delegate"), tools=[delegate])
        async with agent.stream("go") as stream:
            async for event in stream:
                started += isinstance(event, ToolCallStarted) and event.name == "wait"
                if started == calls and not scope.cancel_called:
                    began = time.process_time()
                    scope.cancel()
    return (time.process_time() - began) / calls


def cancelling(quick: bool) -> Measured:
    """A call of a cancelled run whose child runs have many of them, against a call of one that has few."""
    many, few = (4_000, 500) if quick else (16_000, 1_000)
    pairs = [(trio.run(_seconds_to_cancel, many), trio.run(_seconds_to_cancel, few)) for _ in range(1 if quick else 5)]
    ours_, bare = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Measured(
        ours=median(ours_) * 1e6,
        bare=median(bare) * 1e6,
        value=ratio(ours_, bare),
        note=f"{many:,} calls against {few:,}; {many:,} end in {many * median(ours_):.1f} s",
    )
