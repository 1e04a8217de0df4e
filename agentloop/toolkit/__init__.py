"""Tools that most agents need: a shell, files, a question to the user, and a page from the web.

Each function makes tools, with limits as arguments. ``fetch``, which needs the extra ``http``, is in
`agentloop.toolkit.web`::

    from agentloop.toolkit import ask_user, file_tools, shell
    from agentloop.toolkit.web import fetch

    agent = Agent("openai:gpt-5", tools=[shell(cwd="."), *file_tools(".", write=True), fetch(), ask_user()])
"""

from agentloop.toolkit._ask import ask_user
from agentloop.toolkit._files import file_tools
from agentloop.toolkit._shell import shell
from agentloop.toolkit._spool import SpoolDirectory

__all__ = ["SpoolDirectory", "ask_user", "file_tools", "shell"]
