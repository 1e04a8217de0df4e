"""What the demo needs of a screen, whatever it can do."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from agentloop.events import StreamEvent

__all__ = ["Screen"]


class Screen(Protocol):
    """Shows what happens."""

    def show(self, event: StreamEvent) -> None:
        """Tell ``event``."""
        ...

    def note(self, text: str = "") -> None:
        """Tell something that is no event, on lines of its own."""
        ...

    def typed(self, text: str) -> None:
        """Somebody has typed ``text`` here: it is not told once more, as the prompt of the next stream."""
        ...

    def cut(self) -> None:
        """Tell what somebody is saying as it is: nothing more of it will come."""
        ...

    def paused(self) -> AbstractContextManager[None]:
        """Move nothing while somebody types."""
        ...
