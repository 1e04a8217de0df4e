"""The task of a run that hands its events to observers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from agentloop._runtime.log import Reader
from agentloop._runtime.logs import RUN, log
from agentloop.observers import Observer

__all__ = ["observe"]


async def observe(events: Reader, observers: Sequence[Observer], stream: str) -> None:
    """Hand ``events`` to ``observers`` until the run has ended."""
    watching = list(observers)
    # Shielded: the end of a run that is cancelled is an event, too. The run closes the channel on every way out, and
    # `observe` does not wait, so this ends soon after.
    with trio.CancelScope(shield=True), events:
        while watching:
            event = events.take()
            if event is None:
                try:
                    event = await events.wait()
                except trio.EndOfChannel:
                    return
            for observer in tuple(watching):
                try:
                    observer.observe(event)
                except Exception as error:  # noqa: BLE001 - it is the user's, and no reason to stop a run
                    watching.remove(observer)
                    name, kind = type(observer).__qualname__, type(event).__name__
                    text = "stream %r: observer %s failed at a %s, and sees no more of the run"
                    log(RUN, logging.ERROR, text, stream, name, kind, error=error)
