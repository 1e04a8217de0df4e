"""Forks whose titles have numbers."""

from __future__ import annotations

from agentloop import Agent
from agentloop.journal import OpenStore
from agentloop.stores import MemoryStore, fork_session, stored_session
from agentloop.testing import ScriptedModel


async def title(store: OpenStore, id: str) -> str:
    info = await store.info(id)
    assert info is not None
    return info.title


async def test_a_fork_may_have_the_title_of_its_original_with_the_next_number() -> None:
    async with MemoryStore().open() as store:
        async with stored_session(store, "trip") as session:
            await Agent(ScriptedModel("Hi.")).run("go", session=session)
        untitled = await fork_session(store, "trip", number_title=True)
        await store.rename("trip", "Trip (2026)")
        same = await fork_session(store, "trip")
        forks = [await fork_session(store, "trip", number_title=True) for _ in range(2)]
        of_fork = await fork_session(store, forks[0], number_title=True)

        titles = [await title(store, id) for id in (untitled, same, *forks, of_fork)]

    assert titles == ["", "Trip (2026)", "Trip (2026) (fork 1)", "Trip (2026) (fork 2)", "Trip (2026) (fork 3)"]
