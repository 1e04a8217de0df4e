"""State that the calls of several agents read and change, and toolsets that have some.

A state has a revision, which counts its changes. A call that changes the state names the revision that its model has
read. If another call has changed the state meanwhile, the call is refused, and its model reads the present state.
Reading, comparing and replacing happen without a checkpoint in between, so no change is lost.

The state is a value of the session, so that it is in the journal. A toolset that is shared among runs
(`agentloop.Toolsets`) has no session of its own: its state is in memory, and ends with the block.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

import trio
from attrs import frozen

from agentloop._runtime.toolset_start import is_shared
from agentloop.context import ToolContext
from agentloop.errors import ToolError
from agentloop.tools import OpenToolset, Tool

__all__ = ["NotesToolset", "OpenNotes", "Place", "StateOfBlock", "StateOfSession", "StateToolset", "check_revision"]

S = TypeVar("S")


def check_revision(present: int, named: int, shown: str) -> None:
    """Raise `ToolError`, with the present state, unless the call names the present revision."""
    if named != present:
        raise ToolError(
            f"Nothing was changed: the call names revision {named}, and the present one is {present}. Read the present "
            f"state, and make the change again if it still fits, with revision {present}.\n{shown}"
        )


class Place(Protocol[S]):
    """A place that has a state."""

    def read(self, context: ToolContext[Any]) -> S:
        """The present state; an empty one before the first change."""
        ...

    async def save(self, context: ToolContext[Any], state: S) -> None:
        """Replace the state at once, then wait until it is saved."""
        ...

    def has_saved(self, context: ToolContext[Any]) -> bool:
        """Whether an earlier attempt at this call has replaced the state already."""
        ...


class StateOfSession(Generic[S]):
    """A state that is a value of the session.

    Args:
      own: the state is of one stream, and not of all streams of the session.
    """

    def __init__(self, name: str, type: type[S], *, own: bool) -> None:
        # A stream's own state and a shared one may have the same name.
        self._name = f"own {name}" if own else name
        self._type = type
        self._own = own

    def read(self, context: ToolContext[Any]) -> S:
        state = context.session_value(self._name, self._type, own=self._own)
        return self._type() if state is None else state

    async def save(self, context: ToolContext[Any], state: S) -> None:
        await context.save_session_value(self._name, state, own=self._own)

    def has_saved(self, context: ToolContext[Any]) -> bool:
        return context.recall(self._name, bool) is True


class StateOfBlock(Generic[S]):
    """A state in memory, of a toolset that is shared among runs."""

    def __init__(self, state: S) -> None:
        self._state = state

    def read(self, context: ToolContext[Any]) -> S:
        return self._state

    async def save(self, context: ToolContext[Any], state: S) -> None:
        self._state = state
        await trio.lowlevel.checkpoint()

    def has_saved(self, context: ToolContext[Any]) -> bool:
        return False


@frozen
class OpenNotes:
    """An open toolset with a fixed list of tools."""

    tools: tuple[Tool, ...]
    instructions: str

    async def list_tools(self) -> Sequence[Tool]:  # noqa: ASYNC124 - as toolsets have it
        return self.tools


class NotesToolset:
    """A toolset with a name, an identity, and a way to open it."""

    def __init__(self, name: str, identity: str, open: Callable[[], AbstractAsyncContextManager[OpenToolset]]) -> None:
        self._name = name
        self._identity = identity
        self._open = open

    @property
    def name(self) -> str:
        """The toolset's name in errors."""
        return self._name

    @property
    def identity(self) -> str:
        """The toolset, as the same text in every process."""
        return self._identity

    def open(self) -> AbstractAsyncContextManager[OpenToolset]:
        """Open the toolset, for one stream or for several."""
        return self._open()

    def __repr__(self) -> str:
        return f"<{self._identity}>"


class StateToolset(NotesToolset, Generic[S]):
    """A toolset whose tools share a state.

    Args:
      name: its name, and that of its state in the session.
      state: the class of the state. Without arguments, it makes the empty state.
      make: makes the tools for the place that has the state.
      shared: all streams of a session share the state, and not each stream has its own.
    """

    def __init__(
        self,
        name: str,
        state: type[S],
        make: Callable[[Place[S]], tuple[Tool, ...]],
        *,
        shared: bool,
        instructions: str,
    ) -> None:
        super().__init__(name, f"{name} {'shared' if shared else 'own'}", self._opened)
        self._state = state
        self._make = make
        self._instructions = instructions
        # The tools hold no state then, so that all streams can have the same ones.
        self._tools = make(StateOfSession(name, state, own=not shared))

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[OpenToolset]:
        tools = self._make(StateOfBlock(self._state())) if is_shared() else self._tools
        yield OpenNotes(tools, self._instructions)
