"""Continue a session: resume its run, then ask the agent again for as long as the person types."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from attrs import frozen

from agentloop import Agent, AgentLoopError, Session, UsageError
from agentloop.demo.sessions import entitle, last_run
from agentloop.errors import StoreError
from agentloop.journal import OpenStore
from agentloop.stores import StoredSession
from agentloop.terminal._commands import meant_by
from agentloop.terminal._following import play, play_stream
from agentloop.terminal._stage import Stage

__all__ = ["Talk", "telling_where"]

GO_ON = "Go on."
"""The prompt that continues a run which was stopped, or has failed."""


@frozen
class Talk:
    """An agent, its session, and who talks to it."""

    agent: Agent[Any, Any]
    session: Session
    stage: Stage
    store: OpenStore | None = None
    """The file of the session, if it has one."""

    async def say(self, *prompts: str) -> bool:
        """Ask the agent one prompt after another. Gives whether that was all, as `play` does."""
        return await play(
            self.agent, prompts, self.stage, self.session, begun=partial(self._entitle, " ".join(prompts[:1]))
        )

    async def resume(self) -> bool:
        """Resume the unfinished run. Returns whether it came to its end."""
        return await play_stream(self.agent.resume_stream(self.session), self.stage, may_wait=True)

    async def listen(self) -> None:
        """Ask the agent for each line that the person types, until the input ends."""
        self.stage.screen.note(
            f"(You talk with {self.agent.name}. /help lists what you can type. Ctrl-C ends an answer; an empty line or "
            "Ctrl-D ends the chat.)"
        )
        while not self.stage.door.is_leaving:
            goes_on = await self._can_go_on()
            typed = await self.stage.say("(Enter goes on with it) > " if goes_on else "> ")
            if typed is None or not (goes_on or typed.strip()):
                return
            meant = await meant_by(self.agent, typed.rstrip(), self.stage.screen, self.session)
            if meant is None:
                continue
            try:
                await self._do_until_stopped(meant.strip(), is_typed=meant == typed.rstrip())
            except (StoreError, UsageError):
                raise
            except AgentLoopError:
                # The reason of the stream's end has been shown already.
                continue

    async def _do_until_stopped(self, prompt: str, *, is_typed: bool) -> None:
        """Ask the agent, until Ctrl-C ends its answer. A second one, meanwhile, ends the program.

        Args:
          is_typed: whether the prompt stands on the screen, and not the command that stands for it.
        """
        door = self.stage.door

        def stop() -> None:
            door.stop = None
            scope.cancel()

        with trio.CancelScope() as scope:
            door.stop = stop
            try:
                await self._do(prompt, is_typed=is_typed)
            finally:
                door.stop = None
        if scope.cancelled_caught:
            self.stage.screen.cut()
            self.stage.screen.note("(stopped)")

    async def _do(self, prompt: str, *, is_typed: bool) -> None:
        if prompt:
            if is_typed:
                self.stage.screen.typed(prompt)
            await self.say(prompt)
        elif isinstance(self.session, StoredSession) and self.session.is_resumable:
            await self.resume()
        else:
            await self.say(GO_ON)

    async def _can_go_on(self) -> bool:
        """Whether the last run has not come to its end."""
        if self.store is None:
            return False
        run = await last_run(self.store, self.session.id)
        return run.reason not in ("", "completed")

    async def _entitle(self, prompt: str) -> None:
        if self.store is not None:
            await entitle(self.store, self.session.id, prompt)


@asynccontextmanager
async def telling_where(session: Session, stage: Stage, how: str) -> AsyncGenerator[None]:
    """At the end, on any path, show the arguments that continue the session."""
    try:
        yield
    finally:
        if stage.read_line is not None and session.messages:
            stage.screen.cut()
            stage.screen.note(f"(Kept as {session.id}: {how} goes on with it.)")
