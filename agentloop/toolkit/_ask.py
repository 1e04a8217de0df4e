"""The tool that asks the user."""

from __future__ import annotations

from typing import Any

from agentloop.context import ToolContext
from agentloop.errors import ToolError
from agentloop.questions import Accept, Decline
from agentloop.tools import Tool, tool

__all__ = ["ask_user"]


def ask_user(*, name: str = "ask_user") -> Tool:
    """A tool with which the model asks the user a question, for a text or with answers to choose from.

    The question goes where all questions go (`ToolContext.ask`). The model is told apart what the user answered, that
    they declined, that they closed the question, and that there was nobody to ask.

    Args:
      name: what the model calls it.
    """

    async def ask(context: ToolContext[Any], question: str, choices: list[str] | None = None) -> str:
        """Ask the user.

        Args:
          question: what they read.
          choices: the answers to choose from; without any, they write one.
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
        description="Ask the user a question, and wait for the answer. Use it for what only they can know or decide.",
        read_only=True,
    )(ask)
