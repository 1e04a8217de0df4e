"""The key that pauses a run, read while nobody types a line.

A terminal gives whole lines. So while nobody types one, `watched_key` has it give single keys, and show none. All but
the one that pauses are the beginning of the next line, as they are for a terminal that nobody reads.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import trio

from agentloop._runtime.exception_groups import raise_single

if sys.platform != "win32":
    import termios

__all__ = ["PAUSE_KEY", "has_pause_key", "keyboard", "watched_key"]

PAUSE_KEY = "Ctrl-P"
_PAUSE = 0x10
_ERASE, _KILL = (0x08, 0x7F), 0x15
"""Backspace, as terminals send it, and Ctrl-U."""

MOST_AHEAD = 4096
"""Bytes that are typed ahead, as a terminal itself keeps."""

GLANCE = 0.5
"""Seconds between two looks at whether the program is in the foreground again."""


def has_pause_key() -> bool:
    """Whether single keys can be read here."""
    return sys.platform != "win32"


class Keyboard:
    """What the readers of this run of trio know of each other: there is one terminal."""

    def __init__(self) -> None:
        self._watcher: _Watcher | None = None
        self._typing = 0
        """How many lines are read now."""
        self._ahead = bytearray()
        """What was typed while nobody read a line, and no person has been asked since."""

    def forget(self) -> None:
        """Discard what was typed ahead."""
        self._ahead.clear()

    def take_line(self) -> str:
        """What was typed ahead, to the end of its first line."""
        end = self._ahead.find(b"\n") + 1 or len(self._ahead)
        line = bytes(self._ahead[:end])
        del self._ahead[:end]
        return _without_keys(line.decode(errors="replace"))

    def add(self, key: int) -> None:
        """Keep a key for the next line."""
        if key in _ERASE:
            # The last character: the bytes that follow its first one begin with the bits 10.
            while self._ahead and self._ahead[-1] != 0x0A and self._ahead.pop() & 0xC0 == 0x80:
                pass
        elif key == _KILL:
            del self._ahead[self._ahead.rfind(b"\n") + 1 :]
        elif len(self._ahead) < MOST_AHEAD:
            self._ahead.append(key)

    @contextmanager
    def typing(self) -> Generator[None]:
        """The terminal gives lines while the block runs: a person types one."""
        self._typing += 1
        if self._watcher is not None and self._typing == 1:
            self._watcher.release()
        try:
            yield
        finally:
            self._typing -= 1
            if self._watcher is not None and not self._typing:
                self._watcher.take()

    @asynccontextmanager
    async def watching(self, watcher: _Watcher) -> AsyncGenerator[None]:
        """Read single keys while the block runs, and no line is typed."""
        if self._watcher is not None:
            # Two runs are shown at once: the key is the one's that began first.
            yield
            return
        self._watcher = watcher
        if not self._typing:
            watcher.take()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watcher.read, self)
                yield
                nursery.cancel_scope.cancel()
        finally:
            self._watcher = None
            watcher.release()


_keyboard: trio.lowlevel.RunVar[Keyboard] = trio.lowlevel.RunVar("agentloop_keyboard")


def keyboard() -> Keyboard:
    """The keyboard of this run of trio."""
    try:
        return _keyboard.get()
    except LookupError:
        made = Keyboard()
        _keyboard.set(made)
        return made


def _without_keys(line: str) -> str:
    """``line`` without the sequences that other keys send, and without control characters."""
    line = re.sub(r"\x1b(\[[0-9;]*[A-Za-z~]|O[A-Za-z]|.)?", "", line)
    return "".join(character for character in line if character == "\n" or character.isprintable())


@asynccontextmanager
async def watched_key(descriptor: int | None, pressed: Callable[[], None]) -> AsyncGenerator[bool]:
    """Call ``pressed`` whenever the person presses the pause key at the terminal, while the block runs.

    Gives whether the key is read: not without a terminal, or where another program has it now.
    """
    watcher = None if descriptor is None else _Watcher.at(descriptor, pressed)
    if watcher is None:
        yield False
        return
    try:
        async with keyboard().watching(watcher):
            yield True
    except BaseExceptionGroup as group:
        raise_single(group)
    finally:
        watcher.close()


class _Watcher:
    """Reads the single keys of a terminal."""

    def __init__(self, descriptor: int, pressed: Callable[[], None]) -> None:
        # A descriptor of its own: trio has one task wait for each, and lines are read from the other.
        self._descriptor = os.dup(descriptor)
        self._pressed = pressed
        self._saved: list[Any] | None = None
        """How the terminal was, while it gives single keys."""
        self._taken = trio.Event()

    @classmethod
    def at(cls, descriptor: int, pressed: Callable[[], None]) -> _Watcher | None:
        """A watcher of the terminal; ``None`` if it is none, or another program's."""
        return cls(descriptor, pressed) if sys.platform != "win32" and _is_ours(descriptor) else None

    def take(self) -> None:
        """Have the terminal give each key at once, and show none."""
        self._taken.set()
        if sys.platform != "win32" and self._saved is None and _is_ours(self._descriptor):
            with suppress(termios.error):
                saved = termios.tcgetattr(self._descriptor)
                flags, characters = saved[3] & ~(termios.ICANON | termios.ECHO), [*saved[6]]
                # A read that finds nothing returns: another one may have been there before.
                characters[termios.VMIN], characters[termios.VTIME] = 0, 0
                mode = [*saved[:3], flags, *saved[4:6], characters]
                termios.tcsetattr(self._descriptor, termios.TCSANOW, mode)
                self._saved = saved

    def release(self) -> None:
        """Have the terminal give lines again."""
        self._taken = trio.Event()
        if sys.platform != "win32" and self._saved is not None:
            saved, self._saved = self._saved, None
            # A program that was put into the background would be stopped for it.
            if _is_ours(self._descriptor):
                with suppress(termios.error):
                    termios.tcsetattr(self._descriptor, termios.TCSANOW, saved)

    def close(self) -> None:
        os.close(self._descriptor)

    async def read(self, keys: Keyboard) -> None:
        """Read keys until cancelled, or until the terminal has closed."""
        while True:
            await self._taken.wait()
            await trio.lowlevel.wait_readable(self._descriptor)
            if self._saved is None:
                # A line is typed, or the terminal gives whole lines still.
                if self._taken.is_set():
                    return
                continue
            if not _is_ours(self._descriptor):
                # In the background, a program that reads would be stopped.
                if not _is_open(self._descriptor):
                    return
                await trio.sleep(GLANCE)
                continue
            try:
                typed = os.read(self._descriptor, 1024)
            except OSError:
                return
            for key in typed:
                if key == _PAUSE:
                    self._pressed()
                else:
                    keys.add(key)


def _is_ours(descriptor: int) -> bool:
    """Whether the terminal is open, and this program is the one that it is for."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False


def _is_open(descriptor: int) -> bool:
    try:
        os.tcgetpgrp(descriptor)
    except OSError:
        return False
    return True
