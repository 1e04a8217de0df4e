"""A person at a terminal: show a run as it happens, ask its questions, read the next prompt.

A chat program::

    import trio

    from agentloop import Agent, Limits, Session
    from agentloop.terminal import read_prompt, show

    agent = Agent("anthropic:claude-sonnet-4-5", limits=Limits(cost=1))


    async def main() -> None:
        session = Session()
        while prompt := await read_prompt(agent=agent, session=session):
            async with agent.stream(prompt, session=session) as stream:
                await show(stream)


    trio.run(main)

With the extra ``demo`` (rich, prompt_toolkit) there are colours, a live view of what runs, and lines with history and
the usual keys. Without it, on a dumb terminal, or where the output is a file or a pipe, the same is plain text.

`show` asks the questions of the run that it shows. `ask_in_terminal` is for runs that are not shown, as in
``agent.run(prompt, on_question=ask_in_terminal)``. What was typed before a question was shown does not count, an empty
line is *no* to an approval, and the arguments that an approval is about are shown character by character: nothing in
them drives the terminal. Ctrl-P pauses the run that `show` shows, and lets it go on. Ctrl-C raises
``KeyboardInterrupt`` at once, as everywhere in trio.

::

    _lines              events to lines, for a person to read
    _screen             shows them:
      _plain              on a pipe, in a file, on an old terminal
      _fancy              on a terminal that can do more (rich)
    _replies            what is typed, as an answer
    _characters         texts without what a terminal obeys or hides
    _keyboard _editing  reading what is typed, without blocking the loop; with the usual keys (prompt_toolkit)
    _single_keys        the key that pauses a run, while nobody types
    _person             who answers: somebody who types, or nobody
    _commands           slash commands that are typed: those of the agent, and those of the terminal
    _picking            what the terminal's own commands show: models, levels of thinking, usage
    _stage              the screen and the person, as the standard input and output make them
    _following          a stream from its first event to its last, on a stage
    _showing            the functions of this package
"""

from agentloop.terminal._showing import ask_in_terminal, read_prompt, show

__all__ = ["ask_in_terminal", "read_prompt", "show"]
