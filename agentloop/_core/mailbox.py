"""Steering and follow-up messages that wait for the run to read them."""

from __future__ import annotations

from agentloop.errors import StreamStateError
from agentloop.messages import UserMessage

__all__ = ["MOST_FOLLOW_UPS", "MOST_STEERING", "Mailbox"]

MOST_STEERING = 20
MOST_FOLLOW_UPS = 20
"""Messages of a kind that may wait. A sender of more does not notice that the run reads none."""


class Mailbox:
    """The messages that wait for one stream. A child has its own mailbox, so no stream takes another's messages."""

    __slots__ = ("_follow_ups", "_stream", "closed", "steering")

    def __init__(self, stream: str) -> None:
        self._stream = stream
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
