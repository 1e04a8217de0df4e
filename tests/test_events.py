"""Events are values."""

from __future__ import annotations

import copy
import pickle
from typing import Any, get_args

import attrs
import msgspec
import pytest

import agentloop.events
from agentloop.events import (
    ElicitationRequested,
    Event,
    MessageCommitted,
    Source,
    StreamEvent,
    StreamStarted,
    StreamStopped,
    TextDelta,
    ToolCallFinished,
    UnknownEvent,
    WarningIssued,
)
from agentloop.limits import Deadlines, Limits
from agentloop.messages import Text, ToolResult, Usage, UserMessage
from agentloop.outcome import Outcome

EVENTS: tuple[type[StreamEvent], ...] = get_args(StreamEvent)
ROOT = Source("s", "s/1", ("outer",))
CHILD = Source("s/1.1", "s/1.1/1", ("outer", "inner"), "s/1")
DELTA = TextDelta(CHILD, 7, "Hi")


def some(cls: Any) -> Any:
    """An event with whatever values."""
    return cls(**{field.name: 1 for field in msgspec.structs.fields(cls) if field.required})


def test_the_union_has_every_event_there_is() -> None:
    """A `match` over it is exhaustive."""
    declared = {
        cls
        for cls in vars(agentloop.events).values()
        if isinstance(cls, type) and issubclass(cls, Event) and cls is not Event
    }
    assert set(EVENTS) == declared
    assert {cls.__name__ for cls in EVENTS} <= set(agentloop.events.__all__)


@pytest.mark.parametrize("cls", EVENTS)
def test_an_event_is_frozen_and_has_no_place_for_more(cls: type[StreamEvent]) -> None:
    event = some(cls)
    for name in ("seq", "more"):
        with pytest.raises(AttributeError):
            setattr(event, name, 1)
    assert not hasattr(event, "__dict__")


@pytest.mark.parametrize("cls", EVENTS)
def test_an_event_says_what_it_is_by_its_class_and_its_docstring(cls: type[StreamEvent]) -> None:
    assert cls.__doc__
    names = cls.__struct_fields__
    assert names[:2] == ("source", "seq")
    assert not {"kind", "type"} & set(names)


def test_an_event_says_where_it_comes_from() -> None:
    assert (DELTA.session, DELTA.stream, DELTA.parent) == ("s/1.1", "s/1.1/1", "s/1")
    assert (DELTA.agent, DELTA.path, DELTA.depth) == ("inner", ("outer", "inner"), 1)
    root = TextDelta(ROOT, 1, "Hi")
    assert (root.parent, root.agent, root.depth) == (None, "outer", 0)


def test_events_compare_by_value_and_by_class() -> None:
    assert TextDelta(CHILD, 7, "Hi") == DELTA
    assert TextDelta(CHILD, 8, "Hi") != DELTA
    other: object = agentloop.events.ReasoningDelta(CHILD, 7, "Hi")
    assert other != DELTA
    assert len({DELTA, TextDelta(CHILD, 7, "Hi")}) == 1


def test_how_long_a_call_took_does_not_count_when_two_runs_are_compared() -> None:
    def finished(elapsed: float) -> ToolCallFinished:
        return ToolCallFinished(ROOT, 1, call_id="c", name="f", result=ToolResult("c", "f", ()), elapsed=elapsed)

    assert finished(1.0) == finished(2.0)


def test_an_event_is_one_line_for_a_person() -> None:
    assert str(DELTA) == "   7 outer > inner: TextDelta(text='Hi')"
    stopped = StreamStopped(ROOT, 12, reason="limit", detail="turns")
    assert str(stopped).startswith("  12 outer: StreamStopped(reason='limit', detail='turns'")


def test_events_can_be_matched_on() -> None:
    def told(event: StreamEvent) -> str:
        match event:
            case TextDelta(text=text):
                return text
            case MessageCommitted(message=UserMessage(parts=(Text(text=text),)), index=0):
                return f"prompt {text}"
            case WarningIssued():
                return "warning"
            case _:
                return ""

    assert told(DELTA) == "Hi"
    assert told(MessageCommitted(ROOT, 1, message=UserMessage((Text("Go"),)), index=0)) == "prompt Go"
    assert told(StreamStarted(ROOT, 1, message=UserMessage(()), model="m")) == ""


@pytest.mark.parametrize(
    "event",
    [
        DELTA,
        ElicitationRequested(ROOT, 1, id="q", call_id="c", message="?", form={"type": "object"}),
        StreamStopped(ROOT, 2, reason="completed", usage=Usage(1, 2)),
    ],
    ids=lambda event: type(event).__name__,
)
def test_events_can_be_copied_changed_and_pickled(event: Any) -> None:
    assert copy.deepcopy(event) == event
    assert pickle.loads(pickle.dumps(event)) == event
    assert msgspec.structs.replace(event, seq=99).seq == 99


@pytest.mark.parametrize("cls", EVENTS)
def test_the_functions_of_attrs_take_events(cls: type[StreamEvent]) -> None:
    """Events were attrs classes once."""
    event = some(cls)
    fields: Any = attrs.fields(cls)
    assert attrs.has(cls)
    assert [field.name for field in fields] == list(some(cls).__struct_fields__)
    values = attrs.asdict(event, recurse=False)
    assert values == msgspec.structs.asdict(event)
    changed = attrs.evolve(event, seq=99)
    assert (type(changed), changed.seq) == (cls, 99)
    defaults = {field.name: field.default for field in fields if field.default is not attrs.NOTHING}
    assert defaults.items() <= values.items()


@pytest.mark.parametrize("value", [Limits(turns=7), Deadlines(tool=3), Outcome(reason="completed", output="Done.")])
def test_the_functions_of_attrs_take_limits_deadlines_and_outcomes(value: Any) -> None:
    values = attrs.asdict(value, recurse=False)
    assert values == msgspec.structs.asdict(value)
    assert attrs.evolve(value) == value == type(value)(**values)
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value


def test_the_source_is_one_value_shared_by_all_events_of_a_stream() -> None:
    assert isinstance(CHILD, msgspec.Struct)
    with pytest.raises(AttributeError):
        CHILD.session = "other"  # type: ignore[misc]
    assert UnknownEvent("x", b"{}") == UnknownEvent("x", b"{}")
