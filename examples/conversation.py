"""A conversation: several prompts on one session, which is then put away as JSON, and taken up again.

Prints::

    > My name is Ada.
    Good to know, Ada.
    > I like tea, and I like the sea.
    Noted.
    > What do you know about me?
    You are Ada, and you like tea and the sea.
    6 messages are 6 messages as ... bytes of JSON
    > And what is my name?
    You are Ada, and you like tea and the sea.
"""

from __future__ import annotations

import re

import trio

from agentloop import Agent, Session
from agentloop.messages import UserMessage
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel
from agentloop.wire import decode_messages, encode_messages

PROMPTS = ("My name is Ada.", "I like tea, and I like the sea.", "What do you know about me?")


def offline(request: ModelRequest) -> str:
    """What stands in for a model here: it remembers nothing, as models do; what it knows is in the transcript."""
    said = " ".join(message.text for message in request.messages if isinstance(message, UserMessage))
    names: list[str] = re.findall(r"(?:name is|I am) ([A-Z]\w*)", said)
    likes: list[str] = re.findall(r"I like ((?:the )?\w+)", said)
    name = names[-1] if names else "somebody"
    now = request.messages[-1].text
    if now.endswith("?"):
        return f"You are {name}, and you like {' and '.join(likes) or 'nothing that I know of'}."
    return f"Good to know, {name}." if "name" in now else "Noted."


def make_agent(model: Model | str | None = None) -> Agent:
    return Agent(model or FunctionModel(offline), name="friend", instructions="Answer in one short sentence.")


async def main() -> None:
    agent, session = make_agent(), Session()
    for prompt in PROMPTS:
        print(">", prompt)
        print((await agent.run(prompt, session=session)).output)

    kept = encode_messages(session.messages)
    resumed = Session(messages=decode_messages(kept))
    print(f"{len(session.messages)} messages are {len(resumed.messages)} messages as {len(kept)} bytes of JSON")

    print("> And what is my name?")
    print((await agent.run("And what is my name?", session=resumed)).output)


if __name__ == "__main__":
    trio.run(main)
