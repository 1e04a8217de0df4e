"""``python -m agentloop.demo``: a tour, and the programs of ``examples/``, with a person in front of them.

An example is a program that can be read, and run, by itself. The demo needs this of it:

- Its docstring says in the first line what it shows, and under ``Prints::`` what running it prints.
- ``make_agent(model=None)`` gives the agent. If no model is given, it brings its own, which needs no network.
- ``PROMPT`` is what the agent is asked; or ``PROMPTS``, one after another on one session.

The demo opens the stream, shows what happens, and has the person answer the questions. An example without
``make_agent`` is a story that ``main(model=None)`` tells by itself. What is shown and
typed is for `agentloop.terminal`.

::

    catalogue           finds and loads examples
    sessions            where sessions are kept, which one is meant, what was said in it
    talking             a session from where it is, for as long as somebody types
    tour  cast          what is run if no example is named, and who plays in it
    served              `agents`, for ``python -m agentloop serve agentloop.demo:agents``
    __main__            arguments, interrupts, exit statuses
"""

from __future__ import annotations

from agentloop.demo.served import agents

__all__ = ["agents"]
