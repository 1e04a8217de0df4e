"""The agents of ``python -m agentloop serve agentloop.demo:agents``, offline: functions play their models.

::

    guide       says what there is to try; writes at length, counts down
    secretary   asks for the guest of an invitation by a form, and for an approval before it saves one
    editor      has two other agents read a text at the same time
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from typing import Annotated, Literal

import trio
from attrs import field, frozen
from msgspec import Meta

from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.demo.cast import TEXT
from agentloop.messages import Text, ToolCall, ToolResult, Usage, UserMessage
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.testing import Response, calls, says
from agentloop.tools import tool

__all__ = ["agents"]

WORD_SECONDS = 0.025
"""The pause after each word of an answer, so that a person sees it being written."""


class Character:
    """A model that a function plays. It writes word by word, as a real one would.

    Args:
      function: from the request to the response.
    """

    name = "scripted"

    def __init__(self, function: Callable[[ModelRequest], Response | str]) -> None:
        self._function = function

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Give the response that the function makes."""
        made = self._function(request)
        response = says(made) if isinstance(made, str) else made
        written = called = 0
        for part in response.parts:
            if isinstance(part, Text):
                for word in re.findall(r"\s*\S+\s*$|\s*\S+", part.text):
                    await reply.text(word)
                    await trio.sleep(WORD_SECONDS)
                    written += 1
            elif isinstance(part, ToolCall):
                await reply.tool_call(called, id=part.id, name=part.name, arguments=part.arguments)
                written += len(part.arguments) // 4
                called += 1
        read = sum(len(str(message)) for message in request.messages) // 4
        return Stop("tool_calls" if called else "end", Usage(input_tokens=read, output_tokens=written))


# --------------------------------------------------------------------------------- guide

WELCOME = """\
Hello. I am a **scripted character**: a function plays my model, so nothing leaves this machine. Everything else is \
real: the runs, the tools, the questions, and the store that this conversation is saved in.

Things to try here:

- **count**: I count down for 20 seconds. Meanwhile send me another message, press *Stop*, reload the page, or open it \
in a second tab.
- **story**: I write at some length, with a table and some code.

And with the others, in a new conversation:

- the **secretary** asks you to fill in a form, and for your approval before a file is written;
- the **editor** has two other agents read a text, both at the same time.

Then kill the server with `kill -9`, start it again with the same `--store`, and come back: everything is as it was."""

STORY = """\
## How a run ends

Most programs cannot say what they have left running. A task waits somewhere, a socket stays open, and a question that \
was put to somebody will never be answered any more.

Here every run of an agent is a *block*. When the block ends, everything that it started has ended, whatever ended it:

```python
async with agent.stream("What is 2 + 3?") as stream:
    async for event in stream:
        print(event)
# Here nothing runs any more: no request, no tool, no question.
```

| what ends the block | the last event says |
| :--- | :--- |
| the answer is complete | `completed` |
| you press *Stop* | `cancelled` |
| a tool waits for you, and the server leaves | `needs_input` |
| the power fails | `interrupted`, and the next process continues |

1. The model request ends first.
2. Then the tools end, each at its next checkpoint.
3. At last the questions are withdrawn.

> When the `async with` ends, everything it started has ended.

That is all. The idea is [structured concurrency](https://trio.readthedocs.io), as trio has it."""


@tool
async def count_down(seconds: Annotated[int, Meta(ge=1, le=600)], context: ToolContext[None]) -> str:
    """Count down, once a second."""
    for gone in range(seconds):
        await context.progress(gone, total=seconds, message=f"{seconds - gone} to go")
        await context.output(f"{seconds - gone}\n")
        await trio.sleep(1)
    await context.progress(seconds, total=seconds)
    return "zero"


def guide(request: ModelRequest) -> Response | str:
    """The function that plays the guide's model."""
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        return "Zero. That was the countdown." if last.status == "ok" else f"The countdown has ended early: {last.text}"
    words = last.text.lower()
    if re.search(r"\bcount", words):
        return says("I count down from twenty. Write to me meanwhile, if you like.") + calls("count_down", seconds=20)
    if re.search(r"\b(story|long|table|code)\b", words):
        return STORY
    before = request.messages[-2] if len(request.messages) > 1 else None
    if isinstance(before, ToolResult) and before.name == "count_down":
        return f"I have read your message while I counted: “{last.text}”"
    return WELCOME


# ----------------------------------------------------------------------------- secretary


@frozen
class Invitation:
    """The form. Its fields are those of the class."""

    guest: Annotated[str, Meta(min_length=1, max_length=60, title="Guest", description="Whom do we invite?")]
    day: Annotated[date, Meta(title="Day")]
    occasion: Annotated[Literal["Dinner", "Garden party", "Concert"], Meta(title="Occasion")] = "Garden party"
    seats: Annotated[int, Meta(ge=1, le=8, title="Seats", description="The guest included")] = 2
    dishes: Annotated[
        list[Literal["Soup", "Salad", "Fish", "Cake", "Cheese"]],
        Meta(title="Dishes", description="As many as you like"),
    ] = field(factory=lambda: ["Salad", "Cake"])
    is_formal: Annotated[bool, Meta(title="In formal words")] = False


@tool
async def ask_for_invitation(context: ToolContext[None]) -> str:
    """Ask the user whom the invitation is for."""
    answer = await context.ask_for("Whom do we invite, and to what?", Invitation)
    if not isinstance(answer, Invitation):
        return "The user did not say."
    dishes = f" There will be {' and '.join(answer.dishes).lower()}." if answer.dishes else ""
    day = f"{answer.day:%A}, {answer.day.day} {answer.day:%B}"
    if answer.is_formal:
        opening, ending = f"Dear {answer.guest},\n\nwe request the pleasure of your company", "Yours sincerely"
    else:
        opening, ending = f"Hello {answer.guest},\n\nplease come", "See you soon"
    seats = "It is for you alone." if answer.seats == 1 else f"There are {answer.seats} seats for you."
    return f"{opening} to our {answer.occasion.lower()} on {day}.{dishes} {seats}\n\n{ending}\n"


@tool(requires_approval=True)
async def save_invitation(file_name: str, text: str) -> str:
    """Save the invitation in a file, in the folder for temporary files."""
    safe_name = re.sub(r"[^a-z0-9]+", "-", file_name.lower().removesuffix(".txt")).strip("-") or "invitation"
    descriptor, path = tempfile.mkstemp(prefix=f"{safe_name[:40]}-", suffix=".txt")
    async with await trio.open_file(descriptor, "w", encoding="utf-8") as file:
        await file.write(text)
    return f"saved as {path}"


def secretary(request: ModelRequest) -> Response | str:
    """The function that plays the secretary's model."""
    last = request.messages[-1]
    if not isinstance(last, ToolResult):
        return says("With pleasure. I need to know a few things first.") + calls("ask_for_invitation")
    if last.name == "ask_for_invitation":
        if not last.text.startswith(("Dear", "Hello")):
            return "Then I write no invitation. Say a word if you change your mind."
        quoted = "\n".join(f"> {line}" for line in last.text.strip().split("\n"))
        guest = re.split(r"[ ,]", last.text)[1]
        return says(f"This is what I would write:\n\n{quoted}\n\nShall I save it?") + calls(
            "save_invitation", file_name=f"Invitation for {guest}.txt", text=last.text
        )
    if last.status == "ok":
        return f"Done: the invitation is {last.text.replace('saved as ', 'saved as `')}`."
    return f"As you wish, I have saved nothing. ({last.text})"


# -------------------------------------------------------------------------------- editor


@tool
async def count_words(text: str, context: ToolContext[None]) -> str:
    """Count the words of a text."""
    sentences = _sentences(text)
    for number, sentence in enumerate(sentences, 1):
        await context.output(f"sentence {number}: {len(sentence.split())} words\n")
        await trio.sleep(0.3)
    return f"{len(text.split())} words in {len(sentences)} sentences"


@tool
async def longest_sentence(text: str) -> str:
    """Find the longest sentence of a text."""
    await trio.sleep(0.6)
    return max(_sentences(text), key=len, default="")


def _sentences(text: str) -> Sequence[str]:
    return [sentence.strip() for sentence in re.findall(r"[^.!?]*\w[^.!?]*[.!?]*", text)]


def counter(request: ModelRequest) -> Response | str:
    """The function that plays the counter's model."""
    last = request.messages[-1]
    return f"The text has **{last.text}**." if isinstance(last, ToolResult) else calls("count_words", text=last.text)


def critic(request: ModelRequest) -> Response | str:
    """The function that plays the critic's model."""
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        return f"This sentence is too long:\n\n> {last.text}\n\nCut it in two."
    return says("Let me look for the longest one.") + calls("longest_sentence", text=last.text)


def editor(request: ModelRequest) -> Response | str:
    """The function that plays the editor's model."""
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        since = [message for message in request.messages[_last_prompt(request) :] if isinstance(message, ToolResult)]
        return "Both have read it.\n\n" + "\n\n".join(f"**{result.name.title()}.** {result.text}" for result in since)
    text = last.text if len(last.text.split()) > 8 else TEXT
    whose = "your text" if text == last.text else "a text of my own, since you gave me none"
    return says(f"I have two colleagues read {whose}, at the same time.") + (
        calls("counter", prompt=text) + calls("critic", prompt=text)
    )


def _last_prompt(request: ModelRequest) -> int:
    return max(index for index, message in enumerate(request.messages) if isinstance(message, UserMessage))


def _make_agents() -> dict[str, Agent]:
    helpers = [
        Agent(Character(counter), name="counter", instructions="Count the words of the text.", tools=[count_words]),
        Agent(
            Character(critic),
            name="critic",
            instructions="Find the sentence that is too long.",
            tools=[longest_sentence],
        ),
    ]
    made = [
        Agent(Character(guide), name="guide", instructions="Say what there is to try.", tools=[count_down]),
        Agent(
            Character(secretary),
            name="secretary",
            instructions="Ask for the guest first. Then write an invitation, and save it.",
            tools=[ask_for_invitation, save_invitation],
        ),
        Agent(
            Character(editor),
            name="editor",
            instructions="Give the text to both helpers at once. Then sum up what they say.",
            tools=[helper.as_tool() for helper in helpers],
        ),
    ]
    return {agent.name: agent for agent in made}


agents = _make_agents()
"""The agents by name."""
