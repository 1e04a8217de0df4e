"""The part of the corpus in which toolsets come and go: restarts, starts that fail, sign-ins, tools that change."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from agentloop._runtime.toolset_start import ask_to_visit
from agentloop.agent import Agent
from agentloop.context import ToolContext
from agentloop.errors import ToolsetError
from agentloop.events import ElicitationRequested, ToolCallStarted, TurnFinished
from agentloop.questions import Accept
from agentloop.testing._lab import Lab, Recorded, echo
from agentloop.testing.harness.registry import ends, on_depths, scenario
from agentloop.testing.scripted import calls
from agentloop.tools import OpenToolset, Tool
from agentloop.toolsets import Toolsets, optional

__all__: list[str] = []


class _Coming:
    """A toolset that takes a second to start and to stop, and notes when it is used while it is not open.

    Args:
      fails: the numbers of the starts that fail, from 1.
      signs_in: whether a person has to sign in before the first start.
    """

    def __init__(self, lab: Lab, name: str = "a", *, fails: tuple[int, ...] = (), signs_in: bool = False) -> None:
        self.name = name
        self.tools: tuple[str, ...] = (f"{name}_long", f"{name}_short")
        self._lab = lab
        self._fails = fails
        self._signs_in = signs_in
        self._starts = 0
        self._is_open = False

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[OpenToolset]:
        """Start it, with the trouble that it has."""
        self._starts += 1
        number = self._starts
        await self._lab.sim.seam(f"toolset:{self.name}")
        if self._signs_in:
            self._lab.received["Sign in."] = answer = await ask_to_visit("Sign in.", "https://h.example/")
            if not isinstance(answer, Accept):
                raise PermissionError("nobody has signed in")
            self._signs_in = False
        await trio.sleep(1)
        if number in self._fails:
            raise OSError("the server did not start")
        if self._is_open:
            self._lab.watch.note(f"toolset {self.name} is started while it is open")
        self._is_open = True
        try:
            yield self
        finally:
            self._is_open = False
            with trio.CancelScope(shield=True):
                await trio.sleep(1)

    async def list_tools(self) -> list[Tool]:
        """List the tools that there are now."""
        if not self._is_open:
            self._lab.watch.note(f"toolset {self.name} lists its tools, and is not open")
        await self._lab.sim.seam(f"toolset:{self.name}:list")
        bodies = {f"{self.name}_long": self._long, f"{self.name}_short": self._short}
        return [self._lab.tool(name, bodies.get(name)) for name in self.tools]

    async def _long(self, _context: ToolContext[Any]) -> str:
        await self._short(_context)
        await trio.sleep(10)
        return "long"

    async def _short(self, _context: ToolContext[Any]) -> str:
        if not self._is_open:
            self._lab.watch.note(f"a tool of toolset {self.name} runs, and the toolset is not open")
        await trio.lowlevel.checkpoint()
        return "short"


async def _restart(lab: Lab, stream: Recorded, name: str = "a") -> None:
    """Restart a toolset, in a scope that a sweep cancels."""
    with lab.sim.scope("restart"), suppress(ToolsetError):
        await stream.stream.restart_toolset(name)


_MAY_NOT_START = suppress(ToolsetError)
"""Around shared toolsets: a fault may keep them from starting, and then there is nothing to try."""


def _batch(lab: Lab, *toolsets: Any) -> Agent[Any, Any]:
    """Calls tools of a toolset beside one of its own, then one more, and answers."""
    script = calls("a_long") + calls("own") + calls("a_short")
    return Agent(lab.model(script, calls("a_short"), "Done."), tools=[lab.tool("own")], toolsets=[*toolsets])


# ------------------------------------------------------------------------------ restarts


async def _restart_under_a_call(lab: Lab, stream: Recorded) -> None:
    async for event in stream:
        if isinstance(event, ToolCallStarted) and event.name == "a_long":
            await _restart(lab, stream)


@scenario(ends("completed"))
async def a_toolset_is_restarted_while_its_call_runs(lab: Lab) -> None:
    async with lab.stream(_batch(lab, _Coming(lab))) as stream:
        await _restart_under_a_call(lab, stream)


@scenario(ends("completed"))
async def a_restart_fails_and_the_next_turn_mends_it(lab: Lab) -> None:
    async with lab.stream(_batch(lab, _Coming(lab, fails=(2,)))) as stream:
        await _restart_under_a_call(lab, stream)


@scenario(ends("failed"))
async def a_restart_fails_for_good(lab: Lab) -> None:
    async with lab.stream(_batch(lab, _Coming(lab, fails=(2, 3)))) as stream:
        await _restart_under_a_call(lab, stream)


@scenario(ends("cancelled"))
async def a_stream_is_left_in_the_middle_of_a_restart(lab: Lab) -> None:
    async with lab.stream(_batch(lab, _Coming(lab))) as stream:
        async for event in stream:
            if isinstance(event, ToolCallStarted):
                with trio.move_on_after(1.5):
                    await _restart(lab, stream)
                break


@scenario(ends("completed"))
async def a_shared_toolset_is_restarted_under_two_streams(lab: Lab) -> None:
    with _MAY_NOT_START:
        async with Toolsets(_Coming(lab)) as shared, trio.open_nursery() as nursery:

            async def read() -> None:
                async with lab.stream(_batch(lab, shared), name="B") as other:
                    await other.drain()

            nursery.start_soon(read)
            async with lab.stream(_batch(lab, shared)) as stream:
                await _restart_under_a_call(lab, stream)


@scenario(ends("completed"))
async def restarted_between_two_turns_by_two_at_once(lab: Lab) -> None:
    async with lab.stream(_batch(lab, _Coming(lab))) as stream:
        async for event in stream:
            if isinstance(event, TurnFinished) and event.turn == 1:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_restart, lab, stream)
                    nursery.start_soon(_restart, lab, stream)


# ------------------------------------------------------------ without, and with a sign-in


@on_depths("completed")
def a_toolset_that_a_run_can_do_without_comes_later(lab: Lab) -> Agent[Any, Any]:
    model = lab.model(calls("own"), calls("a_short"), "Done.")
    return Agent(model, tools=[lab.tool("own")], toolsets=[optional(_Coming(lab, fails=(1,)))])


@scenario(ends("completed"))
async def the_sign_in_of_a_shared_toolset_is_put_off(lab: Lab) -> None:
    with _MAY_NOT_START:
        async with Toolsets(_Coming(lab, signs_in=True)) as shared:
            agent = Agent(lab.model(calls("a_short"), "Done."), toolsets=[shared])
            async with lab.stream(agent) as stream:
                await stream.drain(answer=echo)


@scenario(ends("cancelled"))
async def a_run_is_left_while_its_user_signs_in_and_the_next_one_asks_again(lab: Lab) -> None:
    with _MAY_NOT_START:
        async with Toolsets(_Coming(lab, signs_in=True)) as shared:
            agent = Agent(lab.model("Done.", "Done."), toolsets=[shared])
            async with lab.stream(agent) as stream:
                async for event in stream:
                    if isinstance(event, ElicitationRequested):
                        break
            async with lab.stream(agent, name="B") as other:
                await other.drain(answer=echo)


# ------------------------------------------------------------------- tools that change


@on_depths("completed")
def tools_change_in_the_middle_of_a_batch(lab: Lab) -> Agent[Any, Any]:
    toolset = _Coming(lab)

    async def change(_context: ToolContext[Any]) -> str:
        await trio.lowlevel.checkpoint()
        toolset.tools = ("a_short", "a_new")
        return "changed"

    script = calls("a_long") + calls("change")
    model = lab.model(script, calls("a_long") + calls("a_new"), "Done.")
    return Agent(model, tools=[lab.tool("change", change)], toolsets=[toolset])
