"""A hypothesis state machine: rules write a program of streams, and its end runs the program.

The rules only record, so that deleting one leaves the others as they were: such programs shrink best, and the shrunk
program can be printed and run again.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from agentloop.testing._hypothesis import stateful, strategies as st
from agentloop.testing.harness.programs import Action, Child, Do, Program, Reached, Reader, Root, Streaming, run_program
from agentloop.testing.simulation import Violation

__all__ = ["StreamMachine", "programs"]

_ENDS = (*["answer"] * 6, "model_fails", "prompt_blocked", "listing_fails", "hook_blocks", "turn_limit")
_READERS = st.builds(
    Reader,
    does=st.sampled_from(("drain", "drain", "drain", "drain", "wait", "leave", "stop", "raise", "time_out")),
    after=st.integers(0, 30),
    pause=st.sampled_from((0, 0, 1)),
    answers=st.sampled_from(("now", "now", "late", "youngest_first", "wrong_first", "twice", "handler", "nobody")),
)
_DOINGS = st.sampled_from(
    (
        *("ask", "ask", "ask", "ask_two", "give_up", "work", "guarded", "raise", "slow", "time_out", "stream"),
        *("allowed", "asked", "denied", "remember", "in_toolset"),
    )
)
_JOURNALS = st.sampled_from(("", "", "", "kept", "parked", "parked", "killed"))
_STEERS = st.sampled_from((0, 0, 0, 3, 9))
_WORDS = st.sampled_from((1, 1, 0, 5, 40))
_STUMBLES = st.sampled_from((0, 0, 0, 1, 2))
MAX_STREAMS = 12


class _Draft:
    """A stream that is still being written. Turns to a `Streaming` when the program is complete."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.turns: list[list[Action | _ChildDraft]] = []
        self.end: Any = "answer"
        self.words = 1
        self.stumbles = 0
        self.long = False

    def add(self, action: Action | _ChildDraft, *, at_once: bool) -> None:
        if self.turns and at_once:
            self.turns[-1].append(action)
        else:
            self.turns.append([action])

    def finished(self) -> Streaming:
        return Streaming(
            tuple(
                tuple(action.finished() if isinstance(action, _ChildDraft) else action for action in turn)
                for turn in self.turns
            ),
            self.end,
            self.words,
            self.stumbles,
            self.long,
        )


class _ChildDraft:
    def __init__(
        self,
        draft: _Draft,
        leave_after: int | None,
        handler: Literal["", "answers", "passes"],
        pause: int,
        twins: int,
        background: bool,
    ) -> None:
        self.background = background
        self.draft = draft
        self.pause = pause
        self.twins = twins
        self.leave_after = leave_after
        self.handler: Literal["", "answers", "passes"] = handler

    def finished(self) -> Child:
        return Child(self.draft.finished(), self.leave_after, self.handler, self.pause, self.twins, self.background)


class StreamMachine(stateful.RuleBasedStateMachine):
    """Writes a program rule by rule; its teardown runs it and checks every guarantee.

    Class attributes:
      reached: what all programs so far have reached.
    """

    reached = Reached()
    streams: stateful.Bundle[_Draft] = stateful.Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self._roots: list[tuple[_Draft, Reader, str, int, int]] = []
        self._count = 0
        self._seed = 0
        self._granularity: Literal["batch", "step"] = "batch"

    @stateful.initialize(seed=st.integers(0, 1 << 16), granularity=st.sampled_from(("batch", "step")))
    def order(self, seed: int, granularity: Literal["batch", "step"]) -> None:
        """Choose the order of tasks."""
        self._seed, self._granularity = seed, granularity

    @stateful.initialize(target=streams, reader=_READERS, journal=_JOURNALS, steer=_STEERS)
    def first(self, reader: Reader, journal: str, steer: int) -> _Draft:
        """There is one root at least."""
        return self._root(reader, journal, steer, 0)

    @stateful.rule(target=streams, reader=_READERS, journal=_JOURNALS, steer=_STEERS, begins=st.integers(0, 8))
    def open_root(self, reader: Reader, journal: str, steer: int, begins: int) -> _Draft:
        """Open a root stream beside the others: it may overlap with them without being nested."""
        return self._root(reader, journal, steer, begins)

    def _root(self, reader: Reader, journal: str, steer: int, begins: int) -> _Draft:
        draft = _Draft(0)
        if self._count < MAX_STREAMS:
            self._count += 1
            self._roots.append((draft, reader, journal, steer, begins))
        return draft

    @stateful.rule(
        target=streams,
        parent=streams,
        at_once=st.booleans(),
        leave_after=st.none() | st.integers(1, 12),
        handler=st.sampled_from(("", "", "answers", "passes")),
        pause=st.sampled_from((0, 0, 0, 1)),
        twins=st.sampled_from((1, 1, 1, 2)),
        background=st.sampled_from((False, False, True)),
    )
    def open_child(
        self,
        parent: _Draft,
        at_once: bool,
        leave_after: int | None,
        handler: Literal["", "answers", "passes"],
        pause: int,
        twins: int,
        background: bool,
    ) -> _Draft:
        """Open a stream inside another, alone, beside its siblings or in the background, perhaps to leave it early."""
        draft = _Draft(parent.depth + 1)
        if self._count < MAX_STREAMS and draft.depth <= 4:
            self._count += 1
            parent.add(_ChildDraft(draft, leave_after, handler, pause, twins, background), at_once=at_once)
        return draft

    @stateful.rule(stream=streams, what=st.lists(_DOINGS, min_size=1, max_size=3), at_once=st.booleans())
    def act(self, stream: _Draft, what: list[Any], at_once: bool) -> None:
        """Have a stream call some tools at once: work, ask, fail, take long..."""
        for number, doing in enumerate(what):
            stream.add(Do(doing), at_once=at_once or number > 0)

    @stateful.rule(stream=streams, end=st.sampled_from(_ENDS))
    def end(self, stream: _Draft, end: Any) -> None:
        """Choose how a stream ends."""
        stream.end = end

    @stateful.rule(stream=streams, words=_WORDS)
    def talk(self, stream: _Draft, words: int) -> None:
        """Choose how much a stream says."""
        stream.words = words

    @stateful.rule(stream=streams, times=st.integers(1, 2))
    def stumble(self, stream: _Draft, times: int) -> None:
        """Have a stream's model fail at first."""
        stream.stumbles = times

    @stateful.rule(stream=streams)
    def lengthen(self, stream: _Draft) -> None:
        """Have the conversation of a stream grow too long."""
        stream.long = True

    def program(self) -> Program:
        """The program that the rules wrote."""
        roots = tuple(
            Root(draft.finished(), reader, begins, cast("Any", journal), steer)
            for draft, reader, journal, steer, begins in self._roots
        )
        return Program(roots, self._seed, self._granularity)

    def teardown(self) -> None:
        """Run it."""
        self.run(self.program())

    @staticmethod
    def run(program: Program) -> None:
        """Run a program and check every guarantee. Raises `Violation`."""
        try:
            run_program(program, reached=StreamMachine.reached)
        except Violation as violation:
            violation.add_note(f"to run it again: python -m agentloop.testing replay '{program}'")
            raise


def programs() -> st.SearchStrategy[Program]:
    """Whole programs, drawn at once: quicker than the machine, but they shrink worse."""
    do = st.builds(Do, what=_DOINGS)
    leaf = st.builds(
        Streaming,
        turns=st.lists(st.lists(do, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple),
        end=st.sampled_from(_ENDS),
        words=_WORDS,
        long=st.booleans(),
        stumbles=_STUMBLES,
    )

    def around(inner: st.SearchStrategy[Streaming]) -> st.SearchStrategy[Streaming]:
        child = st.builds(
            Child,
            stream=inner,
            leave_after=st.none() | st.integers(1, 12),
            handler=st.sampled_from(("", "", "answers", "passes")),
            pause=st.sampled_from((0, 0, 0, 1)),
            twins=st.sampled_from((1, 1, 1, 2)),
            background=st.sampled_from((False, False, True)),
        )
        turn = st.lists(do | child, min_size=1, max_size=3).map(tuple)
        return st.builds(
            Streaming,
            turns=st.lists(turn, max_size=3).map(tuple),
            end=st.sampled_from(_ENDS),
            words=_WORDS,
            long=st.booleans(),
            stumbles=_STUMBLES,
        )

    root = st.builds(
        Root,
        stream=st.recursive(leaf, around, max_leaves=4),
        reader=_READERS,
        journal=_JOURNALS,
        steer=_STEERS,
        begins=st.integers(0, 8),
    )
    return st.builds(
        Program,
        roots=st.lists(root, min_size=1, max_size=3).map(tuple),
        seed=st.integers(0, 1 << 16),
        granularity=st.sampled_from(("batch", "step")),
    )
