"""Structured output: the answer is a value of your class. A model that gives something else is reminded.

Prints::

    the model said: Certainly! I found some contacts.
    reminded: That is not the output that was asked for: ...
    Contacts(people=['Ada Lovelace'], emails=['ada@example.org'], phones=['020 7946 0018'])
"""

from __future__ import annotations

import re

import msgspec
import trio
from attrs import field, frozen

from agentloop import Agent
from agentloop.events import MessageCommitted
from agentloop.messages import AssistantMessage, UserMessage
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel

PROMPT = "Please ask Ada Lovelace: her number is 020 7946 0018, and letters go to ada@example.org."


@frozen
class Contacts:
    """Who is named in a text, and how to reach them."""

    people: list[str] = field(factory=list)
    emails: list[str] = field(factory=list)
    phones: list[str] = field(factory=list)


def offline(request: ModelRequest) -> str:
    """What stands in for a model here. As some do, it first says something nice instead of JSON."""
    if len(request.messages) == 1:
        return "Certainly! I found some contacts."
    text = request.messages[0].text
    found = Contacts(
        people=re.findall(r"[A-Z]\w+ [A-Z]\w+", text)[:1],
        emails=re.findall(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", text),
        phones=re.findall(r"\+?\d[\d ]{5,}\d", text),
    )
    return msgspec.json.encode(found).decode()


def make_agent(model: Model | str | None = None) -> Agent[None, Contacts]:
    return Agent(
        model or FunctionModel(offline),
        name="clerk",
        instructions="List the people, e-mail addresses and telephone numbers in the text.",
        output_type=Contacts,
    )


async def main() -> None:
    async with make_agent().stream(PROMPT) as stream:
        async for event in stream:
            match event:
                case MessageCommitted(message=AssistantMessage(text=text), index=1):
                    print("the model said:", text)
                case MessageCommitted(message=UserMessage(text=text), index=2):
                    print("reminded:", text)
                case _:
                    pass
    print(stream.result.output)


if __name__ == "__main__":
    trio.run(main)
