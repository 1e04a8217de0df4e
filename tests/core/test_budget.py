"""What streams have used, against what they may use."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentloop._core.usage import Meter, RepeatDetector
from agentloop.limits import Limits
from agentloop.messages import Usage

ONE = Usage(input_tokens=3, output_tokens=2, requests=1)


def test_without_limits_there_is_no_end_but_that_of_turns() -> None:
    meter = Meter(Limits(turns=1000))
    for _ in range(999):
        meter.count_request()
        meter.count_usage(ONE)
        meter.count_tool_calls(10)
        assert meter.before_request() is None
        assert meter.before_tool_calls(1000) is None
    meter.count_request()
    reached = meter.before_request()
    assert reached is not None
    assert (reached.limit, reached.used, reached.allowed) == ("turns", 1000, 1000)


def test_turns_are_a_streams_own_and_requests_are_everybodys() -> None:
    parent = Meter(Limits(turns=2, requests=3))
    child = Meter(Limits(), parent)
    for _ in range(3):
        assert child.before_request() is None
        child.count_request()
    assert (parent.turns, parent.requests, child.turns, child.requests) == (0, 3, 3, 3)
    reached = child.before_request()
    assert reached is not None
    assert (reached.meter, reached.limit) == (parent, "requests")


def test_a_childs_use_counts_in_every_meter_above_it() -> None:
    root = Meter(Limits())
    inner = Meter(Limits(), Meter(Limits(), root))
    inner.count_usage(ONE)
    inner.count_tool_calls(2)
    assert (root.usage, root.tool_calls) == (ONE, 2)


def test_the_innermost_limit_is_reported() -> None:
    parent = Meter(Limits(tokens=5))
    child = Meter(Limits(tokens=4), parent)
    child.count_usage(ONE)
    reached = child.before_request()
    assert reached is not None
    assert (reached.meter, reached.used, reached.allowed) == (child, 5, 4)


def test_tool_calls_that_would_go_past_the_limit_are_noticed_before_they_run() -> None:
    meter = Meter(Limits(tool_calls=3))
    assert meter.before_tool_calls(3) is None
    assert meter.before_tool_calls(4) is not None
    meter.count_tool_calls(3)
    assert meter.before_tool_calls(1) is not None


def test_a_limit_that_a_person_raised_grows_by_the_same_amount_from_what_is_used_now() -> None:
    meter = Meter(Limits(tokens=4))
    meter.count_usage(ONE + ONE)
    reached = meter.before_request()
    assert reached is not None
    meter.extend(reached)
    assert meter.allowed == {"tokens": 14}
    assert meter.before_request() is None
    meter.count_usage(ONE)
    assert meter.before_request() is not None


@given(st.integers(1, 5), st.integers(1, 12))
def test_raising_the_limit_once_is_enough_for_the_calls_in_question(limit: int, calls: int) -> None:
    meter = Meter(Limits(tool_calls=limit))
    asked = 0
    while (reached := meter.before_tool_calls(calls)) is not None:
        meter.extend(reached)
        asked += 1
    assert asked <= 1


class Meters(RuleBasedStateMachine):
    """Meters in a tree, compared with sums over what was counted where."""

    def __init__(self) -> None:
        super().__init__()
        self.meters = [Meter(Limits(requests=20, tokens=100, tool_calls=30))]
        self.parents: list[int | None] = [None]
        self.counted: list[tuple[int, str, int]] = []

    @rule(data=st.data(), requests=st.sampled_from([None, 2, 5]), tokens=st.sampled_from([None, 20]))
    def open_child(self, data: st.DataObject, requests: int | None, tokens: int | None) -> None:
        parent = data.draw(st.integers(0, len(self.meters) - 1))
        self.meters.append(Meter(Limits(requests=requests, tokens=tokens), self.meters[parent]))
        self.parents.append(parent)

    @rule(data=st.data(), kind=st.sampled_from(["requests", "tokens", "tool_calls"]), amount=st.integers(1, 5))
    def count(self, data: st.DataObject, kind: str, amount: int) -> None:
        at = data.draw(st.integers(0, len(self.meters) - 1))
        if kind == "requests":
            self.meters[at].count_request()
            amount = 1
        elif kind == "tokens":
            self.meters[at].count_usage(Usage(input_tokens=amount))
        else:
            self.meters[at].count_tool_calls(amount)
        self.counted.append((at, kind, amount))

    def above(self, at: int | None) -> list[int]:
        found = []
        while at is not None:
            found.append(at)
            at = self.parents[at]
        return found

    def used(self, at: int, kind: str) -> int:
        return sum(amount for where, what, amount in self.counted if what == kind and at in self.above(where))

    @invariant()
    def each_meter_has_counted_its_own_and_all_below(self) -> None:
        for at, meter in enumerate(self.meters):
            assert meter.requests == self.used(at, "requests")
            assert meter.usage.total_tokens == self.used(at, "tokens")
            assert meter.tool_calls == self.used(at, "tool_calls")

    @invariant()
    def a_request_is_let_pass_if_no_meter_up_to_the_root_is_used_up(self) -> None:
        def is_used_up(at: int, kind: str) -> bool:
            allowed: Any = getattr(self.meters[at].limits, kind)
            return allowed is not None and self.used(at, kind) >= allowed

        for at, meter in enumerate(self.meters):
            expected = any(is_used_up(one, kind) for one in self.above(at) for kind in ("requests", "tokens"))
            assert (meter.before_request() is not None) == (expected or meter.turns >= meter.limits.turns)


TestMeters = Meters.TestCase
TestMeters.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


# -------------------------------------------------------------------------------- repetition

A = (("f", "{}"),)
B = (("f", '{"a": 1}'),)


def test_the_very_same_calls_so_many_times_in_a_row_are_noticed() -> None:
    detector = RepeatDetector(3)
    assert [detector.is_stuck(calls) for calls in (A, A, B, A, A, A)] == [False, False, False, False, False, True]


@given(st.lists(st.sampled_from([A, B, A + B, ()])), st.integers(1, 4))
def test_repetition_is_what_the_last_calls_have_in_common(
    history: list[tuple[tuple[str, str], ...]], limit: int
) -> None:
    detector = RepeatDetector(limit)
    for number, calls in enumerate(history, 1):
        last = history[max(0, number - limit) : number]
        assert detector.is_stuck(calls) == (len(last) == limit and all(one == calls for one in last))
