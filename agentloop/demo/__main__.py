"""``python -m agentloop.demo``: see ``--help``."""

from __future__ import annotations

import argparse
import errno
import io
import os
import select
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO, cast

import trio

from agentloop import Agent, AgentLoopError, Model, Session, UsageError
from agentloop._runtime.exception_groups import raise_single
from agentloop.demo.catalogue import find_examples, load, lookup
from agentloop.demo.sessions import (
    VARIABLE,
    WITHOUT,
    Place,
    example_of,
    find_place,
    find_session,
    last_run,
    list_sessions,
    new_id,
    open_store,
    recap,
    take,
)
from agentloop.demo.talking import Talk, telling_where
from agentloop.demo.tour import tour
from agentloop.errors import StoreError
from agentloop.terminal._characters import printable
from agentloop.terminal._stage import Door, Stage, open_stage

FAILED = 1
MISUSED = 2
PIPE_CLOSED = 128 + 13
"""As if SIGPIPE had ended the program, which Python ignores."""

PATIENCE = 1.0
"""Seconds to wait for the first byte of a standard input that is no terminal: it may be open without anybody behind."""

PARKING = 1.0
"""Seconds that an interrupted run has to end by itself, so that it can be resumed."""


class _Parser(argparse.ArgumentParser):
    """As `argparse` has it, but where the help cannot be written, that is an error."""

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file or sys.stdout, flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(
        prog="python -m agentloop.demo",
        description="Shows what agentloop does: a tour, or one of the examples.",
        epilog=f"""
            What an example's agent does is kept, in a file of your own: see --sessions. The tour is not: it is the same
            each time. {VARIABLE} names another file, as --store does. Exit status: 0, 1 if the run failed, 2 if it
            could not begin, 130 after Ctrl-C.""",
    )
    made.add_argument("name", nargs="?", help="the example to run; a tour if none is named")
    made.add_argument("--list", action="store_true", help="list the examples, and exit")
    made.add_argument("--model", metavar="PROVIDER:MODEL", help="a real model, such as openai:gpt-5-mini")
    made.add_argument("--base-url", metavar="URL", help="where that model is served, if not at its usual place")
    made.add_argument("--prompt", metavar="TEXT", help="your own text; '-' waits for it on the standard input")
    made.add_argument(
        "--chat",
        action="store_true",
        help="talk with the agent: each line that you type is a prompt, an empty one ends it",
    )
    made.add_argument("--continue", dest="goes_on", action="store_true", help="go on with the last session")
    made.add_argument("--session", metavar="ID", help="go on with this session; the beginning of its id will do")
    made.add_argument("--sessions", action="store_true", help="list the sessions, and exit")
    made.add_argument("--store", metavar="FILE", help="where sessions are kept")
    made.add_argument("--no-store", action="store_true", help="keep nothing")
    made.add_argument(
        "--yes", action="store_true", help="ask nothing: yes to everything, and forms as they are (by default: no)"
    )
    made.add_argument("--plain", action="store_true", help="no colours, and nothing that moves")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and give the exit status."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            # It was so while the modules were imported.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        given = parser().parse_args(arguments)
        _make_printable()
        if given.list:
            print("\n".join(f"{name:15} {example.summary}" for name, example in find_examples().items()), flush=True)
            return 0
        door = Door()
        status = trio.run(_until_interrupted, _choose(given, door), door)
        if status:
            _say_interrupted()
        return status
    except AgentLoopError as error:
        return _complain(error)
    except KeyboardInterrupt:
        _say_interrupted()
        return _interrupted_by(signal.SIGINT)
    except BrokenPipeError:
        return _leave_pipe()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
            raise
        print(f"The output cannot be written: {error.strerror}.", file=sys.stderr)
        _leave_pipe()
        return FAILED


def _make_printable() -> None:
    """Have the standard output take all that is printed, at once: where it is closed, letters that it does not have."""
    out = cast("io.TextIOWrapper | None", sys.stdout)
    if out is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open to the end, as ever
    elif hasattr(out, "reconfigure"):
        out.reconfigure(errors="replace", line_buffering=True)


def _prompt(given: argparse.Namespace) -> str | None:
    """The user's own text, if there is any."""
    if given.prompt not in (None, "-"):
        text: str = given.prompt
        return text
    source = sys.stdin
    if source is None or source.closed or (given.prompt is None and (source.isatty() or not _has_input(source))):
        return None
    return source.buffer.read().decode(errors="replace").strip() or None


def _has_input(source: TextIO) -> bool:
    """Whether a standard input that is no terminal has something to say."""
    try:
        return sys.platform == "win32" or bool(select.select([source], [], [], PATIENCE)[0])
    except (OSError, ValueError):
        # No real file.
        return False


def _model(given: argparse.Namespace) -> Model | str | None:
    if given.base_url is None:
        name: str | None = given.model
        return name
    if given.model is None:
        raise UsageError("--base-url says where a model is served: say which one with --model provider:model")
    found: Model = import_module("agentloop.providers").find_model(given.model, base_url=given.base_url)
    return found


# ------------------------------------------------------------------------------- running


def _choose(given: argparse.Namespace, door: Door) -> Callable[[], Awaitable[None]]:
    """Find the example and the model that the arguments name.

    Raises:
      UsageError: there is no such example, or no such model; or the arguments contradict each other.
    """
    if given.sessions:
        return partial(_list_sessions, given)
    if given.goes_on or given.session is not None:
        if given.no_store:
            raise UsageError("--no-store keeps nothing, so there is no session to go on with")
        return partial(_go_on, given, door, _model(given), _prompt(given))
    model, program = _model(given), None if given.name is None else load(lookup(given.name))
    if given.chat and (program is None or program.make_agent is None):
        raise UsageError("--chat needs an example with an agent to talk to, such as hello: --list names them")
    prompt = _prompt(given)
    if program is None:
        return partial(_play_tour, given, door, model, prompt)
    if program.make_agent is not None:
        return partial(_begin, given, door, program.make_agent(model), program.prompts if prompt is None else (prompt,))
    if prompt is not None:
        raise UsageError(f"example {given.name!r} tells a story of its own, and takes no prompt")
    return partial(program.main, model)


def _open_stage(given: argparse.Namespace, door: Door) -> AbstractAsyncContextManager[Stage]:
    return open_stage(plain=given.plain, yes=given.yes, paced=given.model is None, door=door)


async def _play_tour(given: argparse.Namespace, door: Door, model: Model | str | None, prompt: str | None) -> None:
    async with _open_stage(given, door) as stage:
        await tour(stage, model, prompt)


async def _begin(given: argparse.Namespace, door: Door, agent: Agent[Any, Any], prompts: Sequence[str]) -> None:
    """A new session with ``agent``."""
    if given.no_store:
        async with _open_stage(given, door) as stage:
            await _talk(given, Talk(agent, Session(), stage), prompts)
        return
    async with (
        open_store(find_place(given.store)) as store,
        _open_stage(given, door) as stage,
        take(store, new_id(given.name), stage.screen.note) as session,
        telling_where(session, stage, _how_to_go_on(given, session.id)),
    ):
        await _talk(given, Talk(agent, session, stage, store), prompts)


def _how_to_go_on(given: argparse.Namespace, id: str) -> str:
    """The arguments that continue the session, which does not record where its model is served."""
    options = {"--session": id, "--model": given.model, "--base-url": given.base_url, "--store": given.store}
    words = ["--continue", *(word for name, value in options.items() if value is not None for word in (name, value))]
    return shlex.join(words)


async def _talk(given: argparse.Namespace, talk: Talk, prompts: Sequence[str]) -> None:
    # A chat begins with the person's own words, not with the example's prompt.
    is_done = (given.chat and given.prompt is None and talk.stage.read_line is not None) or await talk.say(*prompts)
    if given.chat and is_done and talk.stage.read_line is not None:
        await talk.listen()


async def _go_on(given: argparse.Namespace, door: Door, model: Model | str | None, prompt: str | None) -> None:
    """The last session, or the one that was asked for."""
    async with open_store(_existing(given)) as store:
        info = await find_session(store, given.name, given.session)
        name = example_of(info.id) or given.name
        if name is None:
            raise UsageError(f"session {info.id!r} is of no example that there is: say with which one to go on")
        if given.name not in (None, name):
            raise UsageError(f"session {info.id!r} is one of the example {name!r}, and not of {given.name!r}")
        make_agent = load(lookup(name)).make_agent
        if make_agent is None:
            raise UsageError(f"example {name!r} has no agent to go on with")
        async with _open_stage(given, door) as stage, take(store, info.id, stage.screen.note) as session:
            run = await last_run(store, session.id)
            # Not silently: the session's model needs an address, which the session does not record.
            if given.model is None and ":" in run.model:
                raise UsageError(f"session {info.id!r} is one with {run.model}: say --model {run.model} to go on")
            for line in recap(session, run, info):
                stage.screen.note(line)
            async with telling_where(session, stage, _how_to_go_on(given, session.id)):
                talk = Talk(make_agent(model), session, stage, store)
                if prompt is not None:
                    await _talk(given, talk, (prompt,))
                elif stage.read_line is not None:
                    await talk.listen()
                elif session.is_resumable:
                    await talk.resume()
                else:
                    raise UsageError("nothing is unfinished there: say what is next with --prompt")


def _existing(given: argparse.Namespace) -> Place:
    place = find_place(given.store)
    if not os.path.lexists(place.path):
        raise UsageError(f"there is no session yet: {place.path} is made when an example runs")
    return place


async def _list_sessions(given: argparse.Namespace) -> None:
    async with open_store(_existing(given)) as store:
        for line in await list_sessions(store):
            print(printable(line))


async def _until_interrupted(perform: Callable[[], Awaitable[None]], door: Door) -> int:
    """Run ``perform`` and return the exit status: its own, or that of the signal that ends it.

    A signal parks an open question that can be answered later. Everything else has a moment to end.
    """
    status = 0

    async def cancel_when_interrupted() -> None:
        nonlocal status
        async for interrupt in interrupts:
            if interrupt == signal.SIGINT and door.stop is not None:
                # In a chat: the answer ends, or the question is left for later, and the person goes on.
                (door.park or door.stop)()
                continue
            status = _interrupted_by(interrupt)
            if door.park is not None:
                door.is_leaving = True
                door.park()
                await trio.sleep(PARKING)
            nursery.cancel_scope.cancel()

    try:
        # No KeyboardInterrupt, which trio raises wherever the program happens to be: here all ends in order.
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as interrupts:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_interrupted)
                await perform()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise_single(group)
    return status  # noqa: ASYNC910 - `raise_single` does not come back


# ------------------------------------------------------------------------------- leaving


def _complain(error: AgentLoopError) -> int:
    """Tell ``error`` in one line."""
    misused = isinstance(error, UsageError)
    told = " ".join(printable(str(error)).split())
    if type(error) is StoreError:
        told = f"{told}; {WITHOUT}"
    elif not misused:
        told = f"{type(error).__name__}: {told}"
    print(told, file=sys.stderr)
    return MISUSED if misused else FAILED


def _interrupted_by(number: int) -> int:
    """The exit status, as shells count it."""
    return 128 + number


def _say_interrupted() -> None:
    print("\nInterrupted.", file=sys.stderr)


def _leave_pipe() -> int:
    # Python flushes the standard output once more at the end, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED


if __name__ == "__main__":
    sys.exit(main())
