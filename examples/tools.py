"""Tools: typed functions that a model may call. The calls of one turn run at the same time.

Prints::

    calculate {"expression":"17 * 23"}
    calculate {"expression":"(2 + 3) / 4"}
    days_until {"day":"2100-01-01"}
      391
      1.25
      ...
    I worked out 391, 1.25 and ... for you.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from datetime import date, datetime

import trio

from agentloop import Agent, ToolError, tool
from agentloop.events import MessageCommitted, ToolCallStarted
from agentloop.messages import AssistantMessage, ToolResult
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel, Response, calls

PROMPT = "What is 17 * 23, what is (2 + 3) / 4, and how many days are left until 2100-01-01?"

OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


# A plain function runs in a thread, an async one in a task.
@tool
def calculate(expression: str) -> float:
    """Work out an arithmetic expression.

    Args:
      expression: numbers, + - * / and brackets, such as "(2 + 3) * 4".
    """

    def value(node: ast.AST) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(operand))
            case _:
                # The model reads this as the result, and can do better.
                raise ToolError("only numbers, + - * / and brackets, please")

    try:
        return value(ast.parse(expression, mode="eval").body)
    except SyntaxError as error:
        raise ToolError(f"{expression!r} is no arithmetic: {error.msg}") from error


@tool
def days_until(day: date) -> int:
    """Count the days from today to a date.

    Args:
      day: such as 2030-12-31.
    """
    return (day - datetime.now().astimezone().date()).days


def offline(request: ModelRequest) -> Response | str:
    """What stands in for a model here: it finds sums and dates in the text, and leaves them to the tools."""
    results = [message.text for message in request.messages if isinstance(message, ToolResult)]
    if results:
        *most, last = results
        return f"I worked out {', '.join(most)}{' and ' if most else ''}{last} for you."
    text = request.messages[-1].text
    days = re.findall(r"\d{4}-\d\d-\d\d", text)
    sums = re.findall(r"[(\d][-+*/(). \d]*[-+*/][-+*/(). \d]*[\d)]", re.sub(r"\d{4}-\d\d-\d\d", "", text))
    wanted = [calls("calculate", expression=each) for each in sums] + [calls("days_until", day=each) for each in days]
    return sum(wanted, start=Response()) if wanted else "Ask me for a sum such as 17 * 23, or for a date."


def make_agent(model: Model | str | None = None) -> Agent:
    return Agent(
        model or FunctionModel(offline),
        name="calculator",
        instructions="Use the tools for all that is to be worked out, at once where you can.",
        tools=[calculate, days_until],
    )


async def main() -> None:
    async with make_agent().stream(PROMPT) as stream:
        async for event in stream:
            match event:
                case ToolCallStarted():
                    print(event.name, event.arguments)
                case MessageCommitted(message=ToolResult() as result):
                    # In call order, whichever tool was first.
                    print(f"  {result.text}")
                case MessageCommitted(message=AssistantMessage(text=text)) if text:
                    print(text)
                case _:
                    pass


if __name__ == "__main__":
    trio.run(main)
