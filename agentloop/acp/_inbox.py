"""What an external agent sends during its turn, in order, until the run has taken it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, TypeAlias

import trio
from attrs import define, field, frozen

from agentloop.acp._calls import OwnCall, Permission
from agentloop.acp._peer import RequestId

__all__ = ["Asked", "Chunk", "Ended", "Inbox", "Item", "Plan", "Request", "Shown", "may_join"]

MAX_ITEMS = 1000
"""Items that may wait for the run. The agent is not read further then."""
MAX_CHARACTERS = 10_000_000
"""The same for the characters in them."""


@frozen
class Chunk:
    """A piece of text."""

    text: str
    is_thought: bool


@frozen
class Shown:
    """A call of the other agent that is to be shown."""

    call: OwnCall


@frozen
class Plan:
    """A plan of the other agent."""

    entries: list[Any]


@define(eq=False)
class Request:
    """A request of the other agent that needs the run."""

    id: RequestId
    method: str
    params: Mapping[str, Any]
    is_answered: bool = False

    @property
    def is_alone(self) -> bool:
        """Whether its call is the only one of its response: it waits, and others must not wait for it."""
        return self.method == "terminal/create"


@define(eq=False)
class Asked(Request):
    """A request for permission."""

    permission: Permission = field(kw_only=True)

    @property
    def is_alone(self) -> bool:
        return True


@frozen
class Ended:
    """The end of the turn: the result of ``session/prompt``, or the error in its place."""

    result: Any


Item: TypeAlias = Chunk | Shown | Plan | Request | Ended


def may_join(item: Item, first: Item) -> bool:
    """Whether the call for ``item`` may be in the response that has the call for ``first``.

    Results of files go back when all calls of the response have ended, so none of these may wait for the other agent.
    """
    if isinstance(first, (Shown, Plan)):
        return isinstance(item, (Shown, Plan))
    return isinstance(item, Request) and isinstance(first, Request) and not (item.is_alone or first.is_alone)


def _characters(item: Item) -> int:
    if isinstance(item, Chunk):
        return len(item.text)
    content = item.params.get("content") if isinstance(item, Request) else None
    return len(content) if isinstance(content, str) else 0


class Inbox:
    """The items that the run has not taken. What waits for one waits for `changed`, and looks again."""

    def __init__(self) -> None:
        self.items = deque[Item]()
        """The items, oldest first."""
        self._characters = 0
        self.is_closing = False
        """Whether the conversation ends, and nothing but the end of the turn is waited for."""
        self.changed = trio.Event()
        """Set, and replaced, when anything has changed that somebody may wait for."""

    def __bool__(self) -> bool:
        return bool(self.items)

    def put(self, item: Item) -> None:
        """Add an item."""
        if not self.is_closing or isinstance(item, Ended):
            self.items.append(item)
            self._characters += _characters(item)
        self.change()

    def take(self) -> Item:
        """Remove the oldest item, and return it."""
        item = self.items.popleft()
        self._characters -= _characters(item)
        self.change()
        return item

    def change(self) -> None:
        """Wake all that wait."""
        self.changed.set()
        self.changed = trio.Event()

    def close(self) -> None:
        """Forget all items but the end of the turn, and take no others."""
        self.is_closing = True
        ended: list[Item] = [item for item in self.items if isinstance(item, Ended)]
        self.items = deque(ended)
        self.change()

    async def has_room(self) -> None:
        """Wait until there is room for another item."""
        while (len(self.items) >= MAX_ITEMS or self._characters > MAX_CHARACTERS) and not self.is_closing:
            await self.changed.wait()
