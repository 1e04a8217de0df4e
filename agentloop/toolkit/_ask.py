"""The tool with which the model asks the user."""

from __future__ import annotations

from typing import Any

from agentloop.context import ToolContext
from agentloop.errors import ToolError
from agentloop.questions import Accept, Decline
from agentloop.tools import Tool, tool

__all__ = ["ask_user"]


def ask_user(*, name: str = "ask_user") -> Tool:
    """A tool with which the model asks the user a question, for a text or with answers to choose from.

    The question takes the way of all questions (`ToolContext.ask`). The result tells the model whether the user
    answered, declined, or closed the question, or whether no answerer was there.

    Args:
      name: the tool's name for the model.
    """

    async def ask(context: ToolContext[Any], question: str, choices: list[str] | None = None) -> str:
        """Ask the user.

        Args:
          question: the text that the user reads.
          choices: the answers to choose from; without choices, the user writes one.
        """
        if not question.strip():
            raise ToolError("the question is empty")
        answer: dict[str, Any] = {"type": "string", "title": "Answer"}
        if choices:
            if len(set(choices)) < len(choices) or not all(choice.strip() for choice in choices):
                raise ToolError("the choices must differ, and none of them be empty")
            answer["enum"] = choices
        form = {"type": "object", "properties": {"answer": answer}, "required": ["answer"]}
        match await context.ask(question, form):
            case Accept(content={"answer": str(text)}):
                return f"The user answered: {text}" if text.strip() else "The user answered with an empty text."
            case Decline(note=note):
                return "The user declined to answer" + (f": {note}" if note else ".")
            case _:
                return "The user closed the question without an answer."

    return tool(
        name=name,
        description="Ask the user a question, and wait for the answer. Use it for what only the user knows or decides.",
        read_only=True,
    )(ask)
