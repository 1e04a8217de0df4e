"""The agent that the clients talk to: ``python -m agentloop serve tests.clients.served:agent``."""

from __future__ import annotations

import trio

from agentloop import Agent, tool
from agentloop.messages import ToolResult, Usage
from agentloop.models import ModelRequest, Reply, Stop

CANCELLED: list[str] = []


@tool
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@tool(requires_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@tool
async def slow() -> str:
    """Take half a minute."""
    try:
        await trio.sleep(30)
    except trio.Cancelled:
        CANCELLED.append("slow")
        raise
    return "done"


@tool
async def cancelled() -> str:
    """Count the calls of `slow` that were cancelled."""
    return f"{len(CANCELLED)} cancelled"


class Scripted:
    """Decides by the last message, so that any number of runs may go on at once. Writes slowly enough to be watched."""

    def __init__(self, name: str = "scripted") -> None:
        self.name = name

    async def respond(self, request: ModelRequest, reply: Reply) -> Stop:
        last = request.messages[-1]
        usage = Usage(input_tokens=10, output_tokens=5)
        if isinstance(last, ToolResult):
            await write(reply, "The ", "result ", "is ", last.text, ".")
            return Stop(usage=usage)
        if last.text == "Who are you?":
            await write(reply, f"I am {self.name}, thinking {request.settings.reasoning_effort}.")
            return Stop(usage=usage)
        words = last.text.split()
        name = words[-1] if words else ""
        arguments = {"add": '{"a":2,"b":3}', "pay": '{"amount":5}', "slow": "{}", "cancelled": "{}"}.get(name)
        if arguments is None:
            await reply.reasoning("Hm. ")
            await write(reply, "You ", "said: ", last.text)
            return Stop(usage=usage)
        await reply.tool_call(0, id="c1", name=name, arguments=arguments[:3])
        await reply.tool_call(0, arguments=arguments[3:])
        return Stop("tool_calls", usage=usage)


async def write(reply: Reply, *pieces: str) -> None:
    for piece in pieces:
        await reply.text(piece)
        await trio.sleep(0.01)


agent = Agent(
    Scripted(), name="assistant", tools=[add, pay, slow, cancelled], models={"deep": Scripted("openai:gpt-5")}
)
