"""Handoffs: an agent gives the conversation to another one, which has the next prompt of the session as well.

Prints::

    > I was charged twice.
    front hands the conversation to billing
    billing: The second charge was a mistake, and goes back to you.
    > Thank you. And when do you open?
    billing hands the conversation to front
    front: We open at nine.
"""

from __future__ import annotations

import trio

from agentloop import Agent, Session, Team
from agentloop.events import HandedOff
from agentloop.messages import ToolResult, UserMessage
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel, Response, calls

PROMPTS = ("I was charged twice.", "Thank you. And when do you open?")
MONEY = ("charge", "bill", "paid", "refund")


def is_about_money(request: ModelRequest) -> bool:
    prompts = [message.text for message in request.messages if isinstance(message, UserMessage)]
    return any(word in prompts[-1].lower() for word in MONEY)


def front_offline(request: ModelRequest) -> str | Response:
    """What stands in for a model here: it knows the opening hours, and hands off what is about money."""
    return calls("handoff", agent="billing") if is_about_money(request) else "We open at nine."


def billing_offline(request: ModelRequest) -> str | Response:
    """What stands in for a model here: it gives money back, and hands off all the rest."""
    is_done = isinstance(request.messages[-1], ToolResult)
    if is_about_money(request) or is_done:
        return "The second charge was a mistake, and goes back to you."
    return calls("handoff", agent="front")


def make_agent(model: Model | str | None = None) -> Agent:
    front = Agent(
        model or FunctionModel(front_offline),
        name="front",
        instructions="Answer questions about the shop in one sentence. Hand off what is about money.",
        description="Knows the shop: where it is, when it opens, what it has.",
        handoffs=["billing"],
    )
    billing = Agent(
        model or FunctionModel(billing_offline),
        name="billing",
        instructions="Answer questions about bills in one sentence. Hand off all the rest.",
        description="Knows bills, charges and refunds.",
        handoffs=["front"],
    )
    return Team(front, billing)


async def main() -> None:
    team, session = make_agent(), Session()
    for prompt in PROMPTS:
        print(">", prompt)
        name = team.name
        async with team.stream(prompt, session=session) as stream:
            async for event in stream:
                if isinstance(event, HandedOff):
                    print(f"{event.source.agents[-1]} hands the conversation to {event.to}")
                name = event.source.agents[-1]
        print(f"{name}: {stream.outcome.output}")


if __name__ == "__main__":
    trio.run(main)
