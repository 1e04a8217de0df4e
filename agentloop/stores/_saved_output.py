"""How much of a running tool's output the journal saves: as many characters as the model reads of its result.

Readers in the process get all of it. A command that prints without end would otherwise fill the disk with text that
is never shown again.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import msgspec

from agentloop.events import ToolCallOutput

__all__ = ["OMITTED", "saved_output"]

OMITTED = "\n[The journal does not have the rest of this output.]\n"
"""Ends the output of a call in the journal where the rest is left out."""


def saved_output(event: ToolCallOutput, left: MutableMapping[tuple[str, str], float]) -> ToolCallOutput:
    """The form of ``event`` that the journal saves.

    Past the limit its text is empty.

    Args:
      left: the number of characters that may still be saved, by stream and call; below 0 once `OMITTED` is saved.
    """
    call = event.stream, event.call_id
    most = left.get(call)
    if most is None:
        return event
    if len(event.text) <= most:
        left[call] = most - len(event.text)
        return event
    left[call] = -1
    return msgspec.structs.replace(event, text=event.text[: int(most)] + OMITTED if most >= 0 else "")
