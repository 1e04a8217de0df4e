"""A session: the transcript that outlives its streams."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import cast

from agentloop._core.field_checks import FieldError, is_name, shown
from agentloop._core.transcript import Transcript, problems
from agentloop._runtime.log import Journal
from agentloop.errors import UsageError
from agentloop.messages import Message, checked_messages
from agentloop.permissions import Grant, Permissions

__all__ = ["Session"]


def _check_id(id: object) -> None:
    if id is not None and not is_name(id):
        raise UsageError(f"a session's id is some text, not {shown(id)}; a transcript goes in as messages=")


class Session:
    """What was said so far, and what a person has allowed for good. One stream runs on it at a time.

    Args:
      id: unique, for good; made up at random if not given.
      messages: a transcript to go on from.
      permissions: which tool calls run, are asked about, or are denied, in all streams on it; see
        `agentloop.permissions`.

    Raises:
      UsageError: a provider would refuse ``messages``.
    """

    __slots__ = ("_journal", "_transcript")

    def __init__(
        self,
        id: str | None = None,
        *,
        messages: Iterable[Message] = (),
        permissions: Permissions | None = None,
    ) -> None:
        _check_id(id)
        try:
            transcript = checked_messages(messages, "messages")
        except FieldError as error:
            raise UsageError(f"these messages are no valid transcript: {error}") from error
        broken_rules = problems(transcript)
        if broken_rules:
            raise UsageError(f"these messages are no valid transcript: {'; '.join(broken_rules)}")
        self._transcript = Transcript(os.urandom(8).hex() if id is None else id, transcript)
        self._journal: Journal | None = None
        """The session's journal, if it has one: see `agentloop.stores.stored_session`."""
        self.permissions = permissions

    @property
    def id(self) -> str:
        """The session's id."""
        return self._transcript.id

    @property
    def messages(self) -> tuple[Message, ...]:
        """The transcript so far. Valid for a provider at every moment."""
        return self._transcript.messages

    @property
    def permissions(self) -> Permissions | None:
        """Which tool calls run, are asked about, or are denied. A change holds from the next call on."""
        return self._transcript.permissions

    @permissions.setter
    def permissions(self, permissions: Permissions | None) -> None:
        if permissions is not None and not isinstance(cast("object", permissions), Permissions):
            raise UsageError(f"permissions= takes Permissions(...), not {permissions!r}")
        self._transcript.permissions = permissions

    @property
    def grants(self) -> tuple[Grant, ...]:
        """What a person has approved for good, by `Approve.always`, oldest first."""
        return tuple(self._transcript.grants)

    @property
    def is_busy(self) -> bool:
        """Whether a stream runs on it now."""
        return self._transcript.holder is not None

    def __repr__(self) -> str:
        return f"<Session {self.id}: {len(self._transcript)} messages{', busy' if self.is_busy else ''}>"
