"""Tools that most agents need: a shell, files, a question to the user, a page from the web, todos, a plan and memories.

Each function makes tools, with limits as arguments. ``fetch``, which needs the extra ``http``, is in
`agentloop.toolkit.web`::

    from agentloop.toolkit import ask_user, file_tools, shell
    from agentloop.toolkit.web import fetch

    agent = Agent("openai:gpt-5", tools=[shell(cwd="."), *file_tools(".", write=True), fetch(), ask_user()])

Lists of todos, plans and memories are toolsets, since they have a state: see `todo`, `plan` and `memory`::

    from agentloop.toolkit import memory, plan, think, todo

    agent = Agent("openai:gpt-5", tools=[think()], toolsets=[todo(), plan(), memory("memory.db")])

`assess_command` says of a command line whether it is harmless (extra ``shell``); the shell has it already.

`Snapshots` are hooks that keep the files of a folder as they were before each turn, so that a turn can be undone.
"""

from agentloop._sandbox import Sandbox
from agentloop.toolkit._ask import ask_user
from agentloop.toolkit._assess_command import assess_command, command_assessor
from agentloop.toolkit._attached import attached
from agentloop.toolkit._background import background
from agentloop.toolkit._command_files import command_files
from agentloop.toolkit._files import file_tools
from agentloop.toolkit._memory import memory
from agentloop.toolkit._plan import plan
from agentloop.toolkit._project_files import project_files
from agentloop.toolkit._recent import recent_messages
from agentloop.toolkit._search_folder import search_folder
from agentloop.toolkit._shell import shell
from agentloop.toolkit._skills import skills
from agentloop.toolkit._snapshots import FileChange, Snapshots, TurnChanges
from agentloop.toolkit._spool import SpoolDirectory
from agentloop.toolkit._think import think
from agentloop.toolkit._titles import title_of
from agentloop.toolkit._todo import todo
from agentloop.toolkit._transfer_task import transfer_task

__all__ = [
    "FileChange",
    "Sandbox",
    "Snapshots",
    "SpoolDirectory",
    "TurnChanges",
    "ask_user",
    "assess_command",
    "attached",
    "background",
    "command_assessor",
    "command_files",
    "file_tools",
    "memory",
    "plan",
    "project_files",
    "recent_messages",
    "search_folder",
    "shell",
    "skills",
    "think",
    "title_of",
    "todo",
    "transfer_task",
]
