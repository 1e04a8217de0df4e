"""Hello: an agent answers, word by word.

Prints::

    You wrote 6 words, and the last one is "there?".
"""

from __future__ import annotations

import trio

from agentloop import Agent
from agentloop.events import TextDelta
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel

PROMPT = "Hello! Is there anybody in there?"


def offline(request: ModelRequest) -> str:
    """What stands in for a model here: it can count."""
    words = request.messages[-1].text.split()
    count = f"{len(words)} word{'' if len(words) == 1 else 's'}"
    return f'You wrote {count}, and the last one is "{words[-1]}".'


def make_agent(model: Model | str | None = None) -> Agent:
    return Agent(model or FunctionModel(offline), name="hello", instructions="Answer in one sentence.")


async def main() -> None:
    async with make_agent().stream(PROMPT) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
    print()


if __name__ == "__main__":
    trio.run(main)
