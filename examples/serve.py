"""An agent behind HTTP: people approve what it does, from any front end, and nothing is lost when they go away.

Start it, and talk to it::

    pip install "agentloop-trio[http,serve,testing]"
    python -m agentloop serve examples.serve:agent --store chats.db

    curl -s localhost:8000/sessions --json '{}'
    curl -N localhost:8000/sessions/$ID/prompts -H 'accept: text/event-stream' --json '{"text": "Send Bob the report."}'
    curl -s localhost:8000/sessions/$ID/answers --json '{"answers": {"QUESTION": {"type": "approve"}}}'
    curl -N localhost:8000/sessions/$ID/events

or run this program, which serves the same agent to two people, each with a token.
"""

from __future__ import annotations

import os
import secrets

import trio

from agentloop import Agent, serving, tool
from agentloop.messages import ToolResult
from agentloop.models import ModelRequest
from agentloop.stores import SQLiteStore
from agentloop.testing import FunctionModel, Response, calls


@tool(requires_approval=True, if_interrupted="retry")
async def send_mail(to: str, text: str) -> str:
    """Send a mail."""
    await trio.sleep(1)
    return f"The mail to {to} is on its way: {text}"


def offline(request: ModelRequest) -> Response | str:
    """What stands in for a model, unless the variable MODEL names one."""
    last = request.messages[-1]
    if isinstance(last, ToolResult):
        return last.text
    if "send" in last.text.lower():
        return calls("send_mail", to="Bob", text=last.text)
    return f"You said: {last.text}"


agent = Agent(os.environ.get("MODEL") or FunctionModel(offline), name="assistant", tools=[send_mail])


async def main() -> None:
    tokens = {secrets.token_urlsafe(): name for name in ("ann", "bob")}
    for token, name in tokens.items():
        print(f"{name}: Authorization: Bearer {token}")
    app = serving.app(agent, store=SQLiteStore("chats.db"), authenticate=serving.BearerTokens(tokens))
    await serving.run(app, port=8000)


if __name__ == "__main__":
    trio.run(main)
