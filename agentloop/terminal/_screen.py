"""The protocol of the demo's screens."""

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
        """Note that the person has typed ``text``, so that the next stream's prompt is not shown again."""
        ...

    def cut(self) -> None:
        """Show incomplete text as it is: the rest will not come."""
        ...

    def paused(self) -> AbstractContextManager[None]:
        """Move nothing while the person types."""
        ...
