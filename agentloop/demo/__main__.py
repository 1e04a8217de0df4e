"""``python -m agentloop.demo``: see ``--help``."""

from __future__ import annotations

import argparse
import io
import os
import select
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TextIO, cast

import trio

from agentloop._runtime.groups import raise_single
from agentloop.demo.catalogue import find_examples, load, lookup
from agentloop.demo.playing import play
from agentloop.demo.stage import Stage, open_stage
from agentloop.demo.tour import tour
from agentloop.errors import AgentLoopError, UsageError
from agentloop.models import Model

FAILED = 1
MISUSED = 2
PIPE_CLOSED = 128 + 13
"""As if SIGPIPE had ended the program, which Python ignores."""

PATIENCE = 1.0
"""Seconds to wait for the first byte of a standard input that is no terminal: it may be open without anybody behind."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m agentloop.demo",
        description="Shows what agentloop does: a tour, or one of the examples.",
        epilog="exit status: 0, 1 if the run failed, 2 if it could not begin, 130 after Ctrl-C",
    )
    made.add_argument("name", nargs="?", help="the example to run; a tour if none is named")
    made.add_argument("--list", action="store_true", help="list the examples, and exit")
    made.add_argument("--model", metavar="PROVIDER:MODEL", help="a real model, such as openai:gpt-5-mini")
    made.add_argument("--base-url", metavar="URL", help="where that model is served, if not at its usual place")
    made.add_argument("--prompt", metavar="TEXT", help="your own text; '-' waits for it on the standard input")
    made.add_argument("--yes", action="store_true", help="ask nobody: yes to everything, and forms as they are")
    made.add_argument("--plain", action="store_true", help="no colours, and nothing that moves")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and give the exit status."""
    try:
        given = parser().parse_args(arguments)
        _make_printable()
        if given.list:
            print("\n".join(f"{name:15} {example.summary}" for name, example in find_examples().items()), flush=True)
            return 0
        status = trio.run(_until_interrupted, _choose(given))
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


def _choose(given: argparse.Namespace) -> Callable[[], Awaitable[None]]:
    """What is to be run.

    Raises:
      UsageError: there is no such example, or no such model.
    """
    model, program = _model(given), None if given.name is None else load(lookup(given.name))
    prompt = _prompt(given)
    if program is None:
        return partial(_on_stage, given, lambda stage: tour(stage, model, prompt))
    make_agent = program.make_agent
    if make_agent is not None:
        prompts = program.prompts if prompt is None else (prompt,)
        return partial(_on_stage, given, lambda stage: play(make_agent(model), prompts, stage))
    if prompt is not None:
        raise UsageError(f"example {given.name!r} tells a story of its own, and takes no prompt")
    return partial(program.main, model)


async def _on_stage(given: argparse.Namespace, perform: Callable[[Stage], Awaitable[None]]) -> None:
    async with open_stage(plain=given.plain, yes=given.yes, paced=given.model is None) as stage:
        await perform(stage)


async def _until_interrupted(perform: Callable[[], Awaitable[None]]) -> int:
    """The exit status of ``perform``, if it ends by itself, or of the signal that ends it."""
    status = 0

    async def cancel_when_interrupted() -> None:
        nonlocal status
        async for interrupt in interrupts:
            status = _interrupted_by(interrupt)
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
    told = " ".join(str(error).split())
    print(told if misused else f"{type(error).__name__}: {told}", file=sys.stderr)
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
