"""What a person says to a run that is under way, until the run gets round to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from agentloop.errors import StreamStateError
from agentloop.messages import UserMessage

__all__ = ["MOST_FOLLOW_UPS", "MOST_STEERING", "Mailbox"]

MOST_STEERING = 20
MOST_FOLLOW_UPS = 20
"""How many messages of a kind may wait. Somebody who sends more does not see that nobody reads them."""


class Mailbox:
    """The messages that wait for one stream. A child has its own, so none can take what is meant for another."""

    __slots__ = ("_follow_ups", "_steering", "_stream", "closed")

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._steering: deque[UserMessage] = deque()
        self._follow_ups: deque[UserMessage] = deque()
        self.closed = False
        """Whether the run has come to its end, and takes nothing any more."""

    def steer(self, message: UserMessage) -> None:
        """Leave a message for the next model request.

        Raises:
          StreamStateError: the run has come to its end, or too many messages wait.
        """
        self._put(self._steering, message, MOST_STEERING, "steering messages")

    def follow_up(self, message: UserMessage) -> None:
        """Leave a message for when the run would stop. Raises as `steer` does."""
        self._put(self._follow_ups, message, MOST_FOLLOW_UPS, "follow-ups")

    def _put(self, queue: deque[UserMessage], message: UserMessage, most: int, what: str) -> None:
        if self.closed:
            raise StreamStateError(f"stream {self._stream!r} has come to its end: start another one with this message")
        if len(queue) >= most:
            raise StreamStateError(f"stream {self._stream!r} has {most} {what} waiting: let it get round to them first")
        queue.append(message)

    @property
    def is_steered(self) -> bool:
        """Whether a steering message waits."""
        return bool(self._steering)

    def take_steering(self) -> tuple[UserMessage, ...]:
        """All steering messages, in order."""
        taken = tuple(self._steering)
        self._steering.clear()
        return taken

    def take_follow_up(self) -> tuple[UserMessage, ...]:
        """The first follow-up, if there is one: each gets an answer of its own."""
        return (self._follow_ups.popleft(),) if self._follow_ups else ()

    def put_back(self, messages: Sequence[UserMessage]) -> None:
        """Nothing came of messages that were taken: they wait again, before all others."""
        self._steering.extendleft(reversed(messages))

    def close(self) -> tuple[UserMessage, ...]:
        """Take nothing any more. Gives what was never got round to, steering messages first."""
        self.closed = True
        return (*self._steering, *self._follow_ups)
