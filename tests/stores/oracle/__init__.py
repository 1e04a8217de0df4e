"""The loader that `agentloop._core.state` replaced, kept to compare the two: the same journal leads to the same state.

`history`, `load` and `unfinished` are as they were, but for the matching of questions by their words.
`assert_same_state` compares what the two make of a journal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from agentloop._core.state import QuestionRecord, StreamState
from agentloop.journal import OpenStore, Record, SessionInfo
from agentloop.stores import _replay
from agentloop.stores._replay import StoredState
from tests.stores.oracle import load as oracle
from tests.stores.oracle.load import Loaded
from tests.stores.oracle.unfinished import Asked, Unfinished

__all__ = ["FixedJournal", "assert_same_state", "load_both"]


class FixedJournal:
    """A store with one journal that nothing is added to: as much of `OpenStore` as loading needs."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    async def read(
        self, _session: str, /, *, after: int = 0, limit: int | None = None, kinds: Collection[str] | None = None
    ) -> Sequence[Record]:
        assert limit is None
        return [record for record in self._records[after:] if kinds is None or record.kind in kinds]

    async def info(self, session: str, /) -> SessionInfo | None:
        return SessionInfo(session, "", 0, 0, len(self._records)) if self._records else None


async def load_both(store: OpenStore, session: str) -> StoredState:
    """Load the session, and compare its state with that of the old loader."""
    new, old = await _replay.load(store, session), await oracle.load(store, session)
    assert_same_state(new, old)
    return new


def assert_same_state(new: StoredState, old: Loaded) -> None:
    """Raise `AssertionError` if the two differ in anything that a session, a resumed run or a reader depends on."""
    expected, found = _old_session(old, new), _new_session(new)
    for name, value in expected.items():
        assert found[name] == value, f"{name} is {found[name]!r}, and was {value!r}"


def _old_session(loaded: Loaded, new: StoredState) -> dict[str, Any]:
    root = loaded.history.root
    return {
        "messages": loaded.messages,
        "removed": loaded.rewound,
        "settings": (loaded.state.grants, loaded.state.summary, loaded.state.first_kept, loaded.state.elided),
        "length": (loaded.length, loaded.streams),
        "seq": loaded.seq,
        "long results": loaded.long_results,
        "run": None if root is None else _old_run(root, new.state.run),
        "ends": list(loaded.history.ends()),
    }


def _new_session(loaded: StoredState) -> dict[str, Any]:
    state = loaded.state
    settings = state.settings
    return {
        "messages": state.messages,
        "removed": state.removed,
        "settings": (settings.grants, settings.summary, settings.first_kept, settings.elided),
        "length": (loaded.length, loaded.length),
        "seq": loaded.seq,
        "long results": state.long_results,
        "run": None if state.run is None else _new_run(state.run),
        "ends": list(state.ends()),
    }


def _old_run(run: Unfinished, new: StreamState | None) -> dict[str, Any]:
    """The old state. The new one also forgets child runs that a call has left behind: they are passed over."""
    children = {} if new is None else {child.session: child for call in new.calls.values() for child in call.children}
    return {
        **_common(run),
        "openings": run.streams,
        "questions": _questions(run.asked),
        "calls": {
            id: {
                "started": call.started,
                "parked": call.parked,
                "outcome unknown": call.is_in_doubt,
                "questions": _questions(call.asked),
                "retry questions": _questions(call.doubts),
                "children": [
                    _old_run(child, children[child.session]) for child in call.children if child.session in children
                ],
                "remembered": call.remembered,
            }
            for id, call in run.calls.items()
        },
    }


def _new_run(run: StreamState) -> dict[str, Any]:
    return {
        **_common(run),
        "openings": run.openings,
        "questions": _questions(run.questions.records),
        "calls": {
            id: {
                "started": call.started,
                "parked": call.parked,
                "outcome unknown": call.outcome_unknown,
                "questions": _questions(call.questions.records),
                "retry questions": _questions(call.retry_questions.records),
                "children": [_new_run(child) for child in call.children],
                "remembered": call.remembered,
            }
            for id, call in run.calls.items()
        },
    }


def _common(run: Unfinished | StreamState) -> dict[str, Any]:
    names = (
        "session stream agent prompt is_prompted messages turn message results long_results usage tool_calls allowed "
        "reason detail is_over open_questions"
    )
    return {name: getattr(run, name) for name in names.split()}


def _questions(asked: Iterable[Asked | QuestionRecord]) -> list[tuple[Any, ...]]:
    return [(each.question, each.answer, each.is_over, each.is_open) for each in asked]
