"""The demo's sessions: their file, the one that the arguments mean, and a recap of its last run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import trio
from attrs import frozen

from agentloop._core.state import StreamState
from agentloop._data_folder import data_folder
from agentloop.demo.catalogue import find_examples
from agentloop.errors import SessionLeasedError, StoreError, UsageError
from agentloop.journal import OpenStore, SessionInfo
from agentloop.messages import AssistantMessage, Message, UserMessage
from agentloop.stores import SQLiteStore, StoredSession, stored_session
from agentloop.stores._replay import load
from agentloop.terminal._characters import printable
from agentloop.terminal._lines import shorten

__all__ = [
    "VARIABLE",
    "WITHOUT",
    "LastRun",
    "Place",
    "entitle",
    "example_of",
    "find_place",
    "find_session",
    "last_run",
    "list_sessions",
    "new_id",
    "open_store",
    "recap",
    "take",
]

VARIABLE = "AGENTLOOP_DEMO_STORE"

LEASE = 5.0
"""Seconds for which a demo that was killed keeps others from its session."""

GLANCE = 0.1
BUSY = 3.0
"""Seconds to wait for another program that writes."""

LISTED = 50
TITLE = 60
SAID = 300
"""Characters of each message of a recap."""

RECALLED = 6
"""Messages of a recap, at most."""

WITHOUT = "--no-store keeps nothing, --store FILE keeps it elsewhere"


class NoStoreError(UsageError):
    """There is no place to keep sessions."""


# -------------------------------------------------------------------------------- places


@frozen
class Place:
    """The file of the sessions."""

    path: Path
    is_ours: bool
    """Whether its folder is one that the demo makes."""


def find_place(given: str | None, environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Place:
    """The file that the arguments name, or the environment, or else this user's own.

    Raises:
      NoStoreError: this user's data folder is unknown.
    """
    named = given or environment.get(VARIABLE)
    if named:
        return Place(Path(named), is_ours=False)
    folder = data_folder(environment, platform)
    if folder is None:
        raise NoStoreError(f"there is no home folder to keep sessions in: {WITHOUT}")
    return Place(folder / "demo.sqlite", is_ours=True)


@asynccontextmanager
async def open_store(place: Place) -> AsyncGenerator[OpenStore]:
    """The store at ``place``, which is made if need be, for this user only.

    Raises:
      NoStoreError: it cannot be used; the message names the file, and the ways out.
    """
    path = place.path
    async with AsyncExitStack() as stack:
        try:
            if place.is_ours:
                await trio.to_thread.run_sync(_make_folder, path.parent)
            with suppress(OSError):
                # Before SQLite does, which would let others read it. If it cannot be, SQLite's error says more.
                await trio.to_thread.run_sync(lambda: path.touch(0o600))
            store = await stack.enter_async_context(SQLiteStore(path, busy_seconds=BUSY).open())
        except StoreError as error:
            raise NoStoreError(f"{error}; {WITHOUT}") from error
        yield store


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise NoStoreError(f"{folder} cannot be created ({error.strerror}): {WITHOUT}") from error


# ------------------------------------------------------------------------------ sessions


def new_id(example: str) -> str:
    """An id that says which example the session is of."""
    return f"{example}-{os.urandom(4).hex()}"


def example_of(id: str) -> str:
    """The example that a session is of; empty if its id does not say."""
    name, _, _ = id.rpartition("-")
    return name if name in find_examples() else ""


async def find_session(store: OpenStore, example: str | None, id: str | None) -> SessionInfo:
    """The session that is meant: the one of that id, or that alone begins so; or the one that was used last.

    Args:
      example: only those of this one, if no id is given.

    Raises:
      UsageError: there is none, or more than one.
    """
    if id is not None:
        exact = await store.info(id)
        if exact is not None:
            return exact
    found = [
        info for info in await _all(store) if (info.id.startswith(id) if id is not None else _is_of(info.id, example))
    ]
    if id is None and found:
        return found[0]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"session {id!r} may be any of {', '.join(info.id for info in found)}")
    whose = "" if example is None else f" of example {example!r}"
    which = f"no session {id!r}" if id is not None else f"no session{whose} to go on with"
    raise UsageError(f"there is {which}: --sessions lists those that there are")


def _is_of(id: str, example: str | None) -> bool:
    return example_of(id) == example if example is not None else example_of(id) != ""


async def _all(store: OpenStore) -> Sequence[SessionInfo]:
    found: list[SessionInfo] = []
    page = await store.sessions(limit=LISTED)
    while page:
        found += page
        page = await store.sessions(limit=LISTED, before=page[-1])
    return found


async def list_sessions(store: OpenStore) -> Sequence[str]:
    """A line for each session, the one used last first."""
    infos = await _all(store)
    lines: list[str] = []
    for info in infos[:LISTED]:
        try:
            loaded = await load(store, info.id)
        except StoreError:
            lines.append(f"{info.id:24} {_when(info.updated)}        ?  (cannot be read)")
            continue
        title = info.title or next((shorten_title(each.text) for each in _prompts(loaded.state.messages)), "")
        state = _state(loaded.state.resumable) if not info.holder else f"in use by {info.holder}"
        lines.append(
            f"{info.id:24} {_when(info.updated)} {len(loaded.state.messages):8}  {printable(title)}"
            f"{f' ({state})' if state else ''}"
        )
    if not infos:
        return ["There are no sessions yet."]
    more = [f"... and {len(infos) - LISTED} older ones"] if len(infos) > LISTED else []
    return [f"{'session':24} {'last used':16} {'messages':>8}  title", *lines, *more]


def _state(run: StreamState | None) -> str:
    if run is None:
        return ""
    return "waits for an answer" if run.open_questions else "interrupted"


def _prompts(messages: Sequence[Message]) -> Sequence[UserMessage]:
    return [message for message in messages if isinstance(message, UserMessage) and message.is_prompt]


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def shorten_title(prompt: str) -> str:
    """The title of a session that begins with ``prompt``."""
    return shorten(" ".join(prompt.split()), TITLE)


async def entitle(store: OpenStore, id: str, prompt: str) -> None:
    """Give the session a title, if it has none."""
    info = await store.info(id)
    if info is not None and not info.title:
        await store.rename(id, shorten_title(prompt))


@asynccontextmanager
async def take(store: OpenStore, id: str, note: Callable[[str], None]) -> AsyncGenerator[StoredSession]:
    """Open session ``id`` for this process alone.

    If another process holds it, wait long enough to know whether that process still renews its lease.

    Raises:
      UsageError: it does.
    """
    info = await store.info(id)
    if info is not None and info.holder:
        note(f"Session {id} is held by {info.holder}: waiting, in case that is gone ...")
        with trio.move_on_after(LEASE + 1):
            while info is not None and info.holder:
                await trio.sleep(GLANCE)
                info = await store.info(id)
    async with AsyncExitStack() as stack:
        try:
            session = await stack.enter_async_context(stored_session(store, id, lease_seconds=LEASE))
        except SessionLeasedError as error:
            raise UsageError(
                f"session {id} is in use by {error.holder}: end that one first, or begin a new session"
            ) from error
        yield session


# --------------------------------------------------------------------------------- recap


@frozen
class LastRun:
    """The last run of a session."""

    agent: str
    model: str
    reason: str
    """Why it ended; empty if there was none."""
    detail: str


async def last_run(store: OpenStore, id: str) -> LastRun:
    """How the last run of the session, which must be taken, has ended."""
    run = (await load(store, id)).state.run
    return LastRun("", "", "", "") if run is None else LastRun(run.agent, run.model, run.reason or "", run.detail)


def recap(session: StoredSession, run: LastRun, info: SessionInfo) -> Sequence[str]:
    """The last words of the session, and its state."""
    messages = session.messages
    plural = "" if len(messages) == 1 else "s"
    lines = [f"--- {session.id}: {len(messages)} message{plural}, last used on {_when(info.updated)}"]
    said = [
        message
        for message in messages
        if isinstance(message, (UserMessage, AssistantMessage))
        and message.text
        and not (isinstance(message, UserMessage) and not message.is_prompt)
    ]
    if len(said) > RECALLED:
        lines.append("...")
    for message in said[-RECALLED:]:
        who = "you" if isinstance(message, UserMessage) else printable(run.agent)
        lines.append(f"{who}: {shorten(message.text, SAID)}".replace("\n", "\n    "))
    return [*lines, "---", *how_it_stands(session, run)]


def how_it_stands(session: StoredSession, run: LastRun) -> Sequence[str]:
    """The state of an unfinished run; empty if the last run came to its end."""
    waiting = len(session.questions)
    if waiting:
        return [f"It waits for your answer to {f'{waiting} questions' if waiting > 1 else 'a question'}."]
    if session.is_resumable:
        return ["Its last run was interrupted before it came to its end."]
    match run.reason:
        case "" | "completed":
            return []
        case "cancelled":
            return ["Its last run was stopped."]
        case reason:
            return [f"Its last run ended early ({reason}{f': {printable(run.detail)}' if run.detail else ''})."]
