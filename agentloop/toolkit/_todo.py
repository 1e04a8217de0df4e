"""The tools with which the model keeps a list of todos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from agentloop._core.field_checks import plain_text
from agentloop.context import ToolContext
from agentloop.errors import ToolError, UsageError
from agentloop.toolkit._shared_state import Place, StateToolset, check_revision
from agentloop.tools import Tool, Toolset, tool

__all__ = ["todo"]

MAX_CHARS = 500
"""Characters of a todo's description."""

Status: TypeAlias = Literal["pending", "in_progress", "completed", "cancelled"]

INSTRUCTIONS = """\
Keep track of work with several steps in the list of todos: create the todos before you begin, set one to in_progress \
when you start with it, and to completed as soon as it is done. Cancel what is not needed any more. Each change names \
the revision of the list that you have read; if the list has changed meanwhile, read it and try again."""


class Todo(msgspec.Struct, frozen=True):
    """One entry of the list."""

    id: int
    description: str
    status: Status = "pending"

    @property
    def is_open(self) -> bool:
        """Whether there is work left."""
        return self.status in ("pending", "in_progress")


class TodoUpdate(msgspec.Struct, frozen=True):
    """A new status of a todo."""

    id: int
    status: Status


class TodoList(msgspec.Struct, frozen=True):
    """A list of todos."""

    revision: int = 0
    created: int = 0
    """How many todos were created so far: the last id."""
    todos: tuple[Todo, ...] = ()

    def with_new(self, descriptions: Sequence[str], max_todos: int) -> TodoList:
        """The next revision, with new todos at the end. Those that are done leave, oldest first, where room is short.

        Raises:
          ToolError: a description is empty or too long, or there are too many open todos.
        """
        lines = [" ".join(plain_text(description).split()) for description in descriptions]
        if not lines or not all(lines):
            raise ToolError("Nothing was changed: give each todo a description")
        if any(len(line) > MAX_CHARS for line in lines):
            raise ToolError(f"Nothing was changed: a description has at most {MAX_CHARS} characters")
        created = self.created + len(lines)
        todos = [*self.todos, *(Todo(id, line) for id, line in enumerate(lines, start=self.created + 1))]
        for entry in self.todos:
            if len(todos) > max_todos and not entry.is_open:
                todos.remove(entry)
        if len(todos) > max_todos:
            raise ToolError(
                f"Nothing was changed: the list would have {len(todos)} open todos, and at most {max_todos} fit. "
                "Complete or cancel some, or describe larger steps"
            )
        return TodoList(self.revision + 1, created, tuple(todos))

    def updated(self, updates: Sequence[TodoUpdate]) -> TodoList:
        """The next revision, with the new statuses.

        Raises:
          ToolError: there are no updates, or a todo is not in the list.
        """
        statuses = {update.id: update.status for update in updates}
        unknown = statuses.keys() - {entry.id for entry in self.todos}
        if unknown or not statuses:
            which = ", ".join(map(str, sorted(unknown)))
            problem = f"there is no todo {which}" if unknown else "there are no updates"
            raise ToolError(f"Nothing was changed: {problem}\n{self}")
        todos = [msgspec.structs.replace(entry, status=statuses.get(entry.id, entry.status)) for entry in self.todos]
        return TodoList(self.revision + 1, self.created, tuple(todos))

    def __str__(self) -> str:
        """The list for the model, a line for each todo."""
        if not self.todos:
            return f"The list is empty (revision {self.revision})."
        count = sum(entry.is_open for entry in self.todos)
        lines = [f"{entry.id} [{entry.status}] {entry.description}" for entry in self.todos]
        return "\n".join([f"Revision {self.revision}, {count} of {len(lines)} open:", *lines])


def todo(*, shared: bool = False, name: str = "todo", max_todos: int = 100) -> Toolset:
    """A toolset for a list of todos: ``create_todos``, ``update_todos``, ``list_todos``.

    ::

        lead = Agent(model, tools=[worker.as_tool()], toolsets=[todo(shared=True)])

    Each stream has its own list, which its session keeps for the next prompt. A list that is ``shared`` belongs to the
    session: the agent and all agents inside its calls have it, if they have this toolset. ``Toolsets(todo())`` is one
    list for all runs of its block. If the session has a journal, its lists survive parking and ``kill -9``.

    A change names the revision of the list that the model has read. If another agent has changed the list meanwhile,
    the change is refused, and the model reads the present list.

    Args:
      shared: all streams of a session with a shared list of this name have the same list.
      name: the name of the list.
      max_todos: todos in the list. Those that are done leave the list first; more open ones are refused.

    Raises:
      UsageError: ``max_todos`` is below 1.
    """
    if max_todos < 1:
        raise UsageError(f"todo(max_todos={max_todos}): give a number above 0")

    def make(place: Place[TodoList]) -> tuple[Tool, ...]:
        async def change(context: ToolContext[Any], revision: int, changed: Callable[[TodoList], TodoList]) -> str:
            todos = place.read(context)
            if not place.has_saved(context):
                check_revision(todos.revision, revision, str(todos))
                todos = changed(todos)
                await place.save(context, todos)
            return str(todos)

        async def create_todos(context: ToolContext[Any], descriptions: list[str], revision: int = 0) -> str:
            """Add todos to the list. Returns the list.

            Args:
              descriptions: what is to be done, one line for each todo.
              revision: the revision of the list that you have read; 0 if you have read none.
            """
            return await change(context, revision, lambda todos: todos.with_new(descriptions, max_todos))

        async def update_todos(context: ToolContext[Any], updates: list[TodoUpdate], revision: int) -> str:
            """Change the status of todos, all or none. Returns the list.

            Args:
              updates: the todos, each with its new status.
              revision: the revision of the list that you have read.
            """
            return await change(context, revision, lambda todos: todos.updated(updates))

        async def list_todos(context: ToolContext[Any]) -> str:  # noqa: ASYNC124 - a plain function gets a thread
            """Read the list of todos, with its revision."""
            return str(place.read(context))

        # Read-only, although they change the list: it is a note of the agent's own, and an agent that may change
        # nothing (``Permissions(mode="plan")``) has to be able to plan.
        note = tool(read_only=True, idempotent=True)
        return note(create_todos), note(update_todos), note(list_todos)

    return StateToolset(name, TodoList, make, shared=shared, instructions=INSTRUCTIONS)
