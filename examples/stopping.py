"""StopRequested: three tools at once, stopped half-way. Nothing is left behind, and the session can go on.

Prints::

    count_primes {"below":1000}
    count_primes {"below":10000}
    count_primes {"below":1000000000}
      ok: 168
      ok: 1229
      interrupted: Interrupted before it finished. ...
    the run was cancelled: two of three will do
    tasks of the run that are left: 0
    The smaller two are 168 and 1229.
"""

from __future__ import annotations

import trio

from agentloop import Agent, Session, ToolContext, tool
from agentloop.events import StreamStopped, ToolCallFinished, ToolCallStarted
from agentloop.messages import ToolResult
from agentloop.models import Model, ModelRequest
from agentloop.testing import FunctionModel, Response, calls

PROMPT = "How many primes are there below a thousand, ten thousand, and a thousand million?"


@tool
async def count_primes(below: int, context: ToolContext[None]) -> int:
    """Count the primes below a number, in no hurry."""
    found: list[int] = []
    count = 0
    for number in range(2, below):
        if all(number % prime for prime in found if prime * prime <= number):
            count += 1
            if number * number < below:
                found.append(number)
        if number % 100 == 0:
            # Every await is a place where a tool can be stopped.
            await context.progress(number, total=below)
    return count


def offline(request: ModelRequest) -> Response | str:
    """What stands in for a model here."""
    done = [message.text for message in request.messages if isinstance(message, ToolResult) and message.status == "ok"]
    if done:
        return f"The smaller two are {' and '.join(done)}."
    return sum((calls("count_primes", below=10**exponent) for exponent in (3, 4, 9)), start=Response())


async def main(model: Model | str | None = None) -> None:
    agent = Agent(model or FunctionModel(offline), name="mathematician", tools=[count_primes])
    session = Session()
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    done = 0
    async with agent.stream(PROMPT, session=session) as stream:
        async for event in stream:
            match event:
                case ToolCallStarted():
                    print(event.name, event.arguments)
                case ToolCallFinished(result=result):
                    print(f"  {result.status}: {result.text}")
                    done += 1
                    if done == 2:
                        # Not the end of the loop: all that was started is told to have ended, in order.
                        stream.stop("two of three will do")
                case StreamStopped():
                    print(f"the run was {event.reason}: {event.detail}")
                case _:
                    pass
    print("tasks of the run that are left:", trio.lowlevel.current_statistics().tasks_living - tasks_before)

    # Every call in the transcript has a result, the interrupted one too, so a provider takes it as it is.
    outcome = await agent.run("Which numbers do you have so far?", session=session)
    print(outcome.output)


if __name__ == "__main__":
    trio.run(main)
