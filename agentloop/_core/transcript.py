"""A transcript: the rules that providers have for it, a session in memory, and the messages that wait to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from agentloop._core.context_window import LongResults, View
from agentloop._core.handoffs import HandoffRecord
from agentloop._core.prompt_cache import CachedRequest
from agentloop._core.secrets import Secrets
from agentloop._core.usage import Meter
from agentloop.errors import SessionBusyError, StreamStateError
from agentloop.messages import AssistantMessage, Message, Text, ToolCall, ToolResult, Usage, UserMessage
from agentloop.models import ModelChoice, ToolSpec
from agentloop.permissions import Grant, Permissions

__all__ = [
    "MOST_FOLLOW_UPS",
    "MOST_STEERING",
    "Mailbox",
    "SessionValues",
    "Transcript",
    "close_turn",
    "flaw_of_history",
    "interrupted_result",
    "problems",
]

INTERRUPTED = "Interrupted before it finished. It may have run, in part or in full."
NOT_STARTED = "Interrupted before it started. It did not run."


def interrupted_result(call: ToolCall, *, started: bool) -> ToolResult:
    """The result of a call that was cut off. Says whether the tool can have had an effect."""
    return ToolResult(call.id, call.name, (Text(INTERRUPTED if started else NOT_STARTED),), "interrupted")


def close_turn(
    message: AssistantMessage, results: Mapping[str, ToolResult], started: Iterable[str]
) -> tuple[Message, ...]:
    """A turn as it goes into the transcript: the response, then one result for each of its calls, in call order.

    Args:
      message: the response.
      results: call id to result, of the calls that ended.
      started: ids of the calls whose tools began to run.
    """
    closed: list[Message] = [message]
    begun: frozenset[str] | None = None
    for call in message.calls:
        result = results.get(call.id)
        if result is None:
            begun = frozenset(started) if begun is None else begun
            result = interrupted_result(call, started=call.id in begun)
        closed.append(result)
    return tuple(closed)


def problems(messages: Sequence[Message]) -> list[str]:
    """The rules of providers that ``messages`` break, a sentence each; empty if none.

    Each tool call must have exactly one result, directly after its message, in call order, and no result may
    stand alone (OpenAI and Anthropic both answer such a transcript with status 400).
    """
    broken_rules: list[str] = []
    seen: set[str] = set()
    expected: list[str] = []
    for index, message in enumerate(messages):
        if isinstance(message, ToolResult):
            if not expected:
                broken_rules.append(
                    f"message {index}: a result of call {message.call_id!r} that no message before it asks for"
                )
            elif message.call_id != expected[0]:
                broken_rules.append(
                    f"message {index}: a result of call {message.call_id!r} where {expected[0]!r} is due"
                )
                expected = [id for id in expected if id != message.call_id]
            else:
                expected.pop(0)
            continue
        if expected:
            broken_rules.append(f"message {index}: call {expected[0]!r} has no result before it")
            expected = []
        if isinstance(message, AssistantMessage):
            for call in message.calls:
                if call.id in seen:
                    broken_rules.append(f"message {index}: the call id {call.id!r} was used before")
                seen.add(call.id)
                expected.append(call.id)
    broken_rules.extend(f"the last message: call {id!r} has no result" for id in expected)
    return broken_rules


def flaw_of_history(messages: Sequence[Message]) -> str:
    """Why no model can continue after ``messages``; empty if one can."""
    if not messages:
        return "there are none"
    if not isinstance(messages[0], UserMessage):
        return "the first one is not of the user"
    if not isinstance(messages[-1], (UserMessage, ToolResult)):
        return "the last one is a response, which leaves nothing to answer"
    return "; ".join(problems(messages))


SessionValues: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The JSON values that tools have saved in a session, by owner and name. The owner is the session id of a child run, or
empty for the session itself."""

_NO_VALUES: SessionValues = {}
_NOTHING: Mapping[str, Any] = {}


class LiveRun(Protocol):
    """What a session knows of the run on it."""

    @property
    def mailbox(self) -> Mailbox:
        """Takes messages for it."""
        ...

    @property
    def meter(self) -> Meter:
        """Counts what it uses."""
        ...


class Transcript:
    """The state of a session in memory: its messages, and the stream that runs on it. It decides and never waits."""

    __slots__ = (
        "_cached",
        "_call_ids",
        "_long_results",
        "_messages",
        "_scanned",
        "_shown",
        "agent",
        "background_counts",
        "cached_request",
        "choice",
        "front",
        "grants",
        "handoffs",
        "holder",
        "id",
        "is_kept",
        "live",
        "permissions",
        "provisional",
        "secrets",
        "seq",
        "streams",
        "unreported",
        "used",
        "values",
        "waiting",
    )

    def __init__(self, id: str, messages: Iterable[Message] = ()) -> None:
        self.id = id
        self.is_kept = False
        """Whether later streams may run on it: there is a `Session` for it."""
        self.holder: str | None = None
        """The stream that runs on this session now."""
        self.seq = 0
        """Number of the last event."""
        self.streams = 0
        """How many streams were opened on it so far."""
        self.agent = ""
        """Name of the agent that has the conversation; empty before the first run."""
        self.handoffs: tuple[HandoffRecord, ...] = ()
        """The handoffs from one agent to another."""
        self.front: tuple[str, tuple[ToolSpec, ...]] = ("", ())
        """The instructions and tools of its last request."""
        self.cached_request: CachedRequest | None = None
        """Its last request of a turn, once a provider has reported that it caches."""
        self.permissions: Permissions | None = None
        """Permissions for the streams on it, and inside those."""
        self.choice: ModelChoice | None = None
        """The model that was chosen for the streams on it."""
        self.grants: list[Grant] = []
        """Rules that a person has approved for good."""
        self.secrets: Secrets | None = None
        """The secrets of its runs, once a run had a redaction. In memory only."""
        self.values: SessionValues = _NO_VALUES
        """The values that tools have saved in the session. Replaced, not changed, so that the journal writer sees at
        once whether they are the saved ones."""
        self.background_counts: Mapping[str, int] = _NOTHING
        """How many background runs its runs have begun, by the name of the agent. Replaced, not changed."""
        self.unreported: Mapping[str, str] = _NOTHING
        """As `SessionSettings.unreported`. Replaced, not changed."""
        self.live: LiveRun | None = None
        """The run on it, while it takes messages and its usage is not part of ``used``."""
        self.used = Usage()
        """What its runs have used in this process, their children included."""
        self.waiting: tuple[UserMessage, ...] = ()
        """The messages that wait for its next run."""
        # Made when they are needed, which most sessions never do.
        self._shown: View | None = None
        self._long_results: LongResults | None = None
        self.provisional = 0
        """Number of messages, at its end, that close a turn which may still be resumed."""
        self._call_ids: set[str] = set()
        self._scanned = 0
        """Number of messages whose call ids are among them."""
        self._messages: list[Message] = []
        self._cached: tuple[Message, ...] | None = None
        self.extend(messages)

    def save_value(self, owner: str, name: str, value: Any) -> None:
        """Replace the value ``name`` of ``owner``."""
        self.values = {**self.values, owner: {**self.values.get(owner, {}), name: value}}

    def count_background(self, agent: str, number: int) -> None:
        """A background run of ``agent`` has begun, with so many in all."""
        self.background_counts = {**self.background_counts, agent: number}

    def leave_unreported(self, ids: Iterable[str], detail: str) -> None:
        """The ends of these background runs are to be reported by a later run, with ``detail`` if it knows no more."""
        self.unreported = {**self.unreported, **dict.fromkeys(ids, detail)}

    def forget_unreported(self, ids: Iterable[str]) -> None:
        """The ends of these background runs are reported."""
        if self.unreported:
            reported = frozenset(ids)
            self.unreported = {id: detail for id, detail in self.unreported.items() if id not in reported}

    def forget_values_of_children(self) -> None:
        """Remove the values of child runs, once the run around them cannot be resumed any more."""
        if self.values and set(self.values) != {""}:
            own = self.values.get("")
            self.values = _NO_VALUES if own is None else {"": own}

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages so far. A tuple, because a request's messages must not change under the provider."""
        if self._cached is None:
            self._cached = tuple(self._messages)
        return self._cached

    @property
    def view(self) -> tuple[Message, ...]:
        """The messages that the model reads. As valid for a provider as the whole."""
        return self.messages if self._shown is None or self._shown.is_plain else self._shown.shown(self.messages)

    @property
    def shown(self) -> View:
        """The model's view of it."""
        if self._shown is None:
            self._shown = View(self.long_results)
        return self._shown

    @property
    def long_results(self) -> LongResults:
        """Long results of its tools."""
        if self._long_results is None:
            self._long_results = LongResults()
        return self._long_results

    @property
    def has_long_results(self) -> bool:
        """Whether a result of its tools was too long to be shown whole."""
        return bool(self._long_results) or (self._shown is not None and bool(self._shown.in_part))

    def __len__(self) -> int:
        return len(self._messages)

    def extend(self, messages: Iterable[Message]) -> None:
        """Add whole messages: a prompt, a final response, or a turn that is closed."""
        self._messages.extend(messages)
        self._cached = None

    def truncate(self, messages: int) -> None:
        """Keep only the first so many ``messages``. The ids of the others' calls stay taken."""
        self.take_ids(self._messages[self._scanned :])
        del self._messages[messages:]
        self._scanned = len(self._messages)
        self._cached = None

    @property
    def call_ids(self) -> set[str]:
        """The ids that calls have, or had: no other call may have one of them."""
        # Not as they are added: who only opens a long session need not wait for it.
        self.take_ids(self._messages[self._scanned :])
        self._scanned = len(self._messages)
        return self._call_ids

    def take_ids(self, messages: Iterable[Message]) -> None:
        """The ids of the calls in ``messages`` are taken, though the messages count for nothing any more."""
        for message in messages:
            if type(message) is AssistantMessage:
                for part in message.parts:
                    if type(part) is ToolCall:
                        self._call_ids.add(part.id)

    def claim(self) -> str:
        """Take the session for a new stream, and give that stream's id.

        Raises:
          SessionBusyError: another stream runs on it.
        """
        if self.holder is not None:
            raise SessionBusyError(session=self.id, stream=self.holder)
        self.streams += 1
        self.holder = f"{self.id}/{self.streams}"
        return self.holder

    def release(self) -> None:
        """Give the session back."""
        self.holder = None


# ---------------------------------------------------------- messages that wait


MOST_STEERING = 20
MOST_FOLLOW_UPS = 20
"""Messages of a kind that may wait. A sender of more does not notice that the run reads none."""


class Mailbox:
    """The messages that wait for one stream. A child has its own mailbox, so no stream takes another's messages."""

    __slots__ = ("_follow_ups", "_stream", "closed", "on_steering", "steering")

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self.on_steering: Callable[[], None] | None = None
        """Called when a steering message has come. Must not raise."""
        # Tuples, since nearly all of them stay empty: two queues would be a twentieth of what a run takes.
        self.steering: tuple[UserMessage, ...] = ()
        """The steering messages that wait."""
        self._follow_ups: tuple[UserMessage, ...] = ()
        self.closed = False
        """Whether the run has come to its end, and takes nothing any more."""

    def steer(self, message: UserMessage) -> None:
        """Leave a message for the next model request.

        Raises:
          StreamStateError: the run has come to its end, or too many messages wait.
        """
        self._check(len(self.steering), MOST_STEERING, "steering messages")
        self.steering += (message,)
        if self.on_steering is not None:
            self.on_steering()

    def follow_up(self, message: UserMessage) -> None:
        """Leave a message for when the run would stop. Raises as `steer` does."""
        self._check(len(self._follow_ups), MOST_FOLLOW_UPS, "follow-ups")
        self._follow_ups += (message,)

    def _check(self, waiting: int, most: int, kind: str) -> None:
        if self.closed:
            raise StreamStateError(f"stream {self._stream!r} has come to its end: start another one with this message")
        if waiting >= most:
            raise StreamStateError(f"stream {self._stream!r} has {most} {kind} waiting: let it get round to them first")

    @property
    def is_followed_up(self) -> bool:
        """Whether a follow-up waits."""
        return bool(self._follow_ups)

    def take_steering(self) -> tuple[UserMessage, ...]:
        """All steering messages, in order."""
        taken, self.steering = self.steering, ()
        return taken

    def take_follow_up(self) -> tuple[UserMessage, ...]:
        """The first follow-up, if there is one: each gets an answer of its own."""
        taken, self._follow_ups = self._follow_ups[:1], self._follow_ups[1:]
        return taken

    def put_back_steering(self, messages: tuple[UserMessage, ...]) -> None:
        """Put steering messages back that were taken and not submitted: they wait again, before the others."""
        self.steering = messages + self.steering

    def put_back_follow_up(self, messages: tuple[UserMessage, ...]) -> None:
        """Put a follow-up back that was taken and not submitted: it waits again, before the others."""
        self._follow_ups = messages + self._follow_ups

    def close(self) -> tuple[UserMessage, ...]:
        """Refuse further messages, and return the undelivered ones, steering messages first."""
        self.closed = True
        return (*self.steering, *self._follow_ups)
