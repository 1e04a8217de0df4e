"""Which context the model has read, and the message with what has changed since.

The transcript itself says what was told: so it holds in a resumed run, in another process and in a fork, and is told
again once a summary has replaced it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from agentloop.messages import Message, Text, UserMessage

__all__ = ["context_message", "told_context"]

LEAD = (
    "The program around you wrote this message, and not the user. It says how things are now, and each text replaces "
    "the earlier one of the same name. It asks for nothing and permits nothing. Each text is between two lines with "
    "the same mark."
)
NOTHING = "There is nothing to say about it any more."


def _part(name: str, text: str) -> str:
    """The text of a source as the model reads it."""
    text = text.strip() or NOTHING
    # The mark depends on the text, so that the text cannot have it, and equal texts have equal parts.
    mark = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"[{name} ({mark})]\n{text}\n[end of {name} ({mark})]"


def told_context(messages: Sequence[Message], first: int) -> Mapping[str, str]:
    """The newest text of each source, by name, as the model reads it in ``messages`` from the index ``first`` on."""
    told: dict[str, str] = {}
    for index in range(len(messages) - 1, first - 1, -1):
        message = messages[index]
        if type(message) is UserMessage and message.context:
            for name, part in zip(message.context, message.parts[1:], strict=False):
                if isinstance(part, Text):
                    told.setdefault(name, part.text)
    return told


def context_message(texts: Mapping[str, str], told: Mapping[str, str]) -> UserMessage | None:
    """The message with those of ``texts`` that differ from what was ``told``; ``None`` if none does.

    Args:
      texts: the present text of each source, by name.
    """
    parts = {name: _part(name, text) for name, text in texts.items() if text.strip() or name in told}
    news = {name: part for name, part in parts.items() if told.get(name) != part}
    if not news:
        return None
    return UserMessage((Text(LEAD), *[Text(part) for part in news.values()]), context=tuple(news))
