"""Lines with history and the usual keys, by prompt_toolkit, which is in the extra ``demo``."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app_session
from prompt_toolkit.input.typeahead import clear_typeahead

from agentloop._runtime.exception_groups import raise_single
from agentloop.terminal._characters import printable
from agentloop.terminal._keyboard import discard_typed
from agentloop.terminal._single_keys import keyboard

__all__ = ["EditedLines"]


class _AbortedError(Exception):
    """The line is no longer awaited."""


class EditedLines:
    """Lines that are typed at this terminal."""

    def __init__(self) -> None:
        # The cursor's position does not matter here, and asking for it prints a warning on terminals that do not
        # answer.
        output: Any = get_app_session().output
        output.enable_cpr = False
        self._session: PromptSession[str] = PromptSession(output=output)

    async def __call__(self, prompt: str) -> str | None:
        """Show ``prompt``, and read a line; ``None`` at the end of the input."""
        keys = keyboard()
        try:
            with keys.typing():
                return await _typed_in_thread(self._session, printable(prompt), keys.take_line())
        except EOFError:
            await trio.lowlevel.checkpoint()
            return None
        except KeyboardInterrupt:
            # While a line is edited, Ctrl-C is a key and no signal. From here on it is as always.
            signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()
        raise AssertionError

    def forget(self) -> None:
        """Discard all that was typed and not read."""
        keyboard().forget()
        clear_typeahead(self._session.app.input)
        with suppress(OSError, ValueError, NotImplementedError):
            discard_typed(self._session.app.input.fileno())


async def _typed_in_thread(session: Any, prompt: str, ahead: str) -> str:
    """Read a line with editing, which begins with ``ahead``.

    The prompt runs in a thread, in a loop of its own: prompt_toolkit is made for asyncio. On cancellation, that loop
    ends the prompt, and this function waits for the thread, which restores the terminal.
    """
    app = session.app
    ended = trio.Event()
    line: list[str] = []

    async def type_line() -> None:  # noqa: ASYNC910 - a shielded one
        try:
            # Shielded: it is ended below, by name; an abandoned thread would keep reading keys.
            is_whole = ahead.endswith("\n")
            with trio.CancelScope(shield=True):
                prompt_in_thread = partial(
                    session.prompt, prompt, handle_sigint=False, default=ahead.rstrip("\n"), accept_default=is_whole
                )
                line.append(await trio.to_thread.run_sync(prompt_in_thread))
        except _AbortedError:
            pass
        finally:
            ended.set()

    def abort() -> None:
        # Told once: the second time would be an error, which prompt_toolkit shows, and waits for Enter.
        if app.is_running and not app.future.done():
            app.exit(exception=_AbortedError())

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(type_line)
            try:
                await ended.wait()
            finally:
                # Again and again: the loop may not have begun yet, or be about to end.
                while not ended.is_set():
                    _call_soon(app.loop, abort)
                    with trio.move_on_after(0.02, shield=True):
                        await ended.wait()
    except BaseExceptionGroup as group:
        raise_single(group)
    return line[0]  # noqa: ASYNC910 - `raise_single` does not come back


def _call_soon(loop: Any, function: Callable[[], None]) -> None:
    if loop is None:
        return
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        # Closed already: the prompt has just ended by itself.
        return
