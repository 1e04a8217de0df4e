"""The agents that the tests of the page talk to: ``python -m agentloop serve tests.page.served:app``."""

from __future__ import annotations

import os
from typing import Any

import trio

from agentloop import Agent, Limits, Team, ToolContext, serving, tool
from agentloop.commands import Command
from agentloop.messages import Text, ToolCall, ToolResult, Usage, UserMessage
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.stores import SQLiteStore
from agentloop.testing import Response, calls, says, thinks
from agentloop.toolkit import background

LONG_TURNS = 40
LONG_CALLS = 50

FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "title": "Name", "minLength": 2, "maxLength": 10},
        "mail": {"type": "string", "format": "email", "title": "Mail"},
        "site": {"type": "string", "format": "uri", "title": "Site"},
        "born": {"type": "string", "format": "date", "title": "Born"},
        "meets": {"type": "string", "format": "date-time", "title": "Meets"},
        "seats": {"type": "integer", "title": "Seats", "minimum": 1, "maximum": 8},
        "height": {"type": "number", "title": "Height"},
        "vegan": {"type": "boolean", "title": "Vegan", "default": True},
        "color": {"type": "string", "title": "Color", "enum": ["red", "green"], "default": "green"},
        "town": {
            "type": "string",
            "title": "Town",
            "oneOf": [{"const": f"t{number}", "title": f"Town {number}"} for number in range(9)],
        },
        "dishes": {
            "type": "array",
            "title": "Dishes",
            "items": {"enum": ["soup", "fish", "cake"]},
            "minItems": 1,
            "maxItems": 2,
        },
        "note": {"type": "string", "title": "Note"},
    },
    "required": ["name", "seats", "dishes"],
}

MARKUP = "<img src=x onerror=window.pwned=1>"

HOSTILE = """\
<script>window.pwned = 1</script><img src=x onerror="window.pwned = 2"><svg onload=window.pwned=3>

[click](javascript:window.pwned=4) [data](data:text/html,<script>window.pwned=5</script>)
[tabbed](java\tscript:window.pwned=6) <javascript:window.pwned=7> [vb](vbscript:x) [file](file:///etc/passwd)

![picture](https://tracker.example/pixel.png) [https://bank.example](https://evil.example/login)

<a href="https://evil.example" onclick="window.pwned=8">raw</a> <style>body{display:none}</style>

[fine](https://example.com/a?b=c) and \u202egnp.exe\u202c and a\u200bb

```html
</code></pre><script>window.pwned = 9</script>
```

| <b>cell</b> | [x](javascript:alert(1)) |
| --- | --- |
| <iframe src="https://evil.example"></iframe> | `<img src=x onerror=alert(1)>` |
"""


@tool(requires_approval=True)
async def pay(amount: int, to: str, note: str = "") -> str:
    """Pay."""
    return f"paid {amount} to {to}"


@tool
async def survey(context: ToolContext[Any]) -> str:
    """Ask."""
    return repr(await context.ask("Tell us about yourself", FORM))


@tool
async def visit(url: str, context: ToolContext[Any]) -> str:
    """Ask for a visit."""
    return repr(await context.ask_url("Please sign in", url))


@tool
async def work(number: int, context: ToolContext[Any]) -> str:
    """Work."""
    await context.output(f"step {number}: " + "x" * 40 + "\n")
    return f"done {number}"


@tool
async def log(lines: int, context: ToolContext[Any]) -> str:
    """Write lines."""
    for begin in range(0, lines, 100):
        await context.output("".join(f"line {number}\n" for number in range(begin, min(begin + 100, lines))))
    return "logged"


@tool
async def wait(seconds: float, context: ToolContext[Any]) -> str:
    """Wait."""
    await context.progress(1, total=4, message="waiting")
    await context.output("waits\n")
    await trio.sleep(seconds)
    return "waited"


class Scripted:
    """Decides by the last message, so that any number of runs may go on at once."""

    def __init__(self, name: str = "scripted") -> None:
        self.name = name

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        last = request.messages[-1]
        made = script(request)
        if isinstance(last, UserMessage) and last.text == "who":
            made = f"I am {self.name}, thinking {request.settings.reasoning_effort}."
        response = says(made) if isinstance(made, str) else made
        called = 0
        for part in response.parts:
            if isinstance(part, Text):
                is_slow = part.text.startswith("Slow")
                for word in part.text.split(" ") if is_slow else [part.text]:
                    await reply.text(word + " " * is_slow)
                    await trio.sleep(0.03 * is_slow)
            elif isinstance(part, ToolCall):
                await reply.tool_call(called, id=part.id, name=part.name, arguments=part.arguments)
                called += 1
            else:
                await reply.reasoning(part.text)
        return Stop("tool_calls" if called else "end", Usage(input_tokens=100, output_tokens=20))


def script(request: ModelRequest) -> Response | str:
    """The response to ``request``."""
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        turns = sum(isinstance(message, ToolResult) for message in request.messages) // LONG_CALLS
        if last.name == "work" and turns < LONG_TURNS:
            return long_turn(turns)
        return f"The result is {last.text}."
    word = last.text.split(" ")[0]
    rest = last.text.removeprefix(word).strip()
    match word:
        case "echo":
            return rest
        case "slow":
            return "Slow " + " ".join(f"word{number}" for number in range(100)) + " end."
        case "pay":
            return calls("pay", amount=12345678901234567890, to=f"bob{rest}", note="5")
        case "survey":
            return calls("survey")
        case "visit":
            return calls("visit", url=rest)
        case "log":
            return calls("log", lines=20_000)
        case "wait":
            return calls("wait", seconds=float(rest or 30))
        case "nest":
            return says("I ask a helper.") + calls("helper", prompt=rest)
        case "hand":
            return calls("handoff", agent=rest)
        case "background":
            return calls("run_background_agent", agent="helper", task="wait 60")
        case "think":
            return thinks("Let me see.") + says("I have thought.")
        case "hostile":
            return HOSTILE
        case "huge":
            return "x" * 1_000_000 + "\n\n" + "*a [b " * 20_000 + "\n\n" + "> " * 5_000 + "end"
        case "long":
            return long_turn(0)
        case _:
            return f"You said: {last.text}"


def long_turn(turn: int) -> Response:
    text = says(f"Turn **{turn}**: " + "some words " * 20)
    return sum((calls("work", number=turn * LONG_CALLS + number) for number in range(LONG_CALLS)), start=text)


helper = Agent(Scripted(), name="helper", tools=[pay, wait], instructions="Help.")
tools = [pay, survey, visit, work, wait, log, helper.as_tool()]
commands: dict[str, Command | str] = {
    "echo": Command("echo $ARGUMENTS", description="Say it again", hint="[words]"),
    "edit": "echo edited",
    "pay": Command("pay", description=MARKUP),
}
agents = [
    Agent(
        Scripted(),
        name=name,
        tools=tools,
        toolsets=[background(helper)],
        commands=commands if name == "assistant" else {},
        limits=Limits(turns=1000, tool_calls=100_000),
    )
    for name in ("assistant", "second")
]
team = Team(
    Agent(Scripted(), name="front", handoffs=["billing"]), Agent(Scripted(), name="billing", handoffs=["front"])
)
app = serving.app(
    [*agents, team],
    store=SQLiteStore(os.environ["PAGE_STORE"]),
    authenticate=serving.BearerTokens({token: "ann"}) if (token := os.environ.get("PAGE_TOKEN", "")) else None,
    lease_seconds=2,
    models={"fast": Scripted("openai:gpt-4o"), "deep": Scripted("openai:gpt-5"), MARKUP: Scripted("markup")},
)
