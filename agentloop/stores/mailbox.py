"""The mailbox of a session: prompts, answers and stops that wait until a worker delivers them.

Any process puts mail into a session's mailbox, without its lease: `enqueue` a prompt, which starts a run when the runs
before it have ended; `answer` a question, of a parked run or of one that is live in another process; and `stop` a run,
with the prompts that wait for its end. The worker that drives the session delivers it (`agentloop.engines`). A prompt
is delivered in the transaction that saves the beginning of its run, so it starts one run, however many workers die.

The stores of agentloop have mailboxes. `Mailboxes` is what a store of your own needs in addition to
`agentloop.journal.OpenStore`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias, cast

import msgspec

from agentloop._core.field_checks import shown
from agentloop._runtime.blocks import check_open_store
from agentloop.errors import SequenceError, UsageError
from agentloop.journal import Lease, OpenStore, Record
from agentloop.messages import Prompt, user_message
from agentloop.questions import Answer
from agentloop.stores._checks import check_name, check_text, decode_json_text

__all__ = [
    "Mail",
    "MailKind",
    "Mailboxes",
    "WaitingWork",
    "answer",
    "delivered_before",
    "enqueue",
    "mail_values",
    "mailboxes_of",
    "stop",
]

MailKind: TypeAlias = Literal["prompt", "answer", "stop"]


class Mail(msgspec.Struct, frozen=True):
    """A prompt, an answer or a stop that waits for its delivery."""

    id: str
    """Unique in its session, for good: mail with an id that was delivered is not accepted again."""
    kind: MailKind
    """Whether it is a prompt, an answer or a stop."""
    data: bytes
    """The message, the answer or the reason for the stop, as JSON in UTF-8."""
    agent: str = ""
    """The name of the agent that the prompt is for; empty for the agent of the session's last run."""
    question: str = ""
    """The id of the question that it answers; empty for other mail."""
    due: float = 0.0
    """The earliest time of its delivery, in seconds since 1970 (UTC), by the store's clock."""


class WaitingWork(msgspec.Struct, frozen=True):
    """A session that a worker can drive now, as `Mailboxes.waiting_work` lists it."""

    session: str
    """The session's id."""
    agent: str
    """The name of the agent to run; empty if neither the mail nor the session names one."""
    token: int
    """The fencing token of the session's newest lease, which has ended; 0 if there was none. The next is greater."""
    is_unfinished: bool = False
    """Whether its run was cut off, or can continue with an answer that is saved. Those come first."""


class Mailboxes(OpenStore, Protocol):
    """An open store whose sessions have mailboxes. Each method is atomic, as those of `OpenStore` are."""

    async def post(self, session: str, mail: Mail, /, *, delay: float = 0.0) -> bool:
        """Put ``mail`` into the mailbox of a session, which need not exist yet.

        Args:
          session: the session's id.
          mail: the mail; ``due`` is set by the store.
          delay: seconds until it is due.

        Returns:
          Whether it is new. Mail whose id the session has had before is not saved.
        """
        ...

    async def mail(self, session: str, /) -> Sequence[Mail]:
        """The mail of a session that is due and was not delivered, in the order of `post`."""
        ...

    async def take(self, lease: Lease, mail: str, /) -> bool:
        """Mark the mail with this id as delivered.

        Returns:
          Whether it had not been delivered before.

        Raises:
          LeaseLostError: the caller no longer holds the session.
        """
        ...

    async def append_and_take(self, session: str, records: Sequence[Record], lease: Lease, mail: str, /) -> None:
        """Append as `OpenStore.append` does, and mark the mail as delivered with the first of ``records``.

        Both happen, or neither.

        Raises:
          SequenceError: the mail was delivered before, or as for `OpenStore.append`.
          LeaseLostError: as for `OpenStore.append`.
        """
        ...

    async def withdraw(self, session: str, mail: str, /) -> bool:
        """Mark the mail with this id as delivered, without a lease: it has no effect any more.

        Returns:
          Whether it had not been delivered before.
        """
        ...

    async def delivered(self, session: str, mail: str, /) -> int | None:
        """The number of the record that the mail with this id was delivered with.

        Returns:
          That of the first record of its run, for a prompt that has begun one; 0 for mail that was taken or withdrawn;
          ``None`` for mail that waits, or that the session never had.
        """
        ...

    async def waiting_work(self, *, limit: int = 100) -> Sequence[WaitingWork]:
        """Sessions that no process holds and that can be driven.

        Unfinished ones come first, and of them the one whose lease ended first; the others are in random order.

        Those are the unfinished ones, those with an answer or a stop that is due, and those with a prompt that is due
        and no run that waits for answers.
        """
        ...


def delivered_before(session: str, mail: str) -> SequenceError:
    """The error for mail that another worker has delivered."""
    return SequenceError(f"session {session!r}: its mail {mail!r} was delivered before: load the session again")


def mail_values(session: str, mail: Mail) -> dict[str, object]:
    """The mail as text, for a database. Raises `UsageError` if there is text that some databases refuse."""
    check_name("session's id", session)
    check_name("mail's id", mail.id)
    check_text("the agent's name", mail.agent)
    check_text("the question's id", mail.question)
    data = decode_json_text(f"mail {mail.id!r}", mail.data)
    return {
        "session": session,
        "id": mail.id,
        "kind": mail.kind,
        "agent": mail.agent,
        "question": mail.question,
        "data": data,
    }


def mailboxes_of(store: OpenStore) -> Mailboxes:
    """``store``, which has mailboxes.

    Raises:
      UsageError: it has none, or is not open.
    """
    check_open_store(store)
    if not hasattr(store, "waiting_work"):
        raise UsageError(f"{type(store).__name__} has no mailboxes: see agentloop.stores.mailbox.Mailboxes")
    return cast("Mailboxes", store)


async def enqueue(
    store: OpenStore, session: str, prompt: Prompt, *, agent: str = "", after: float = 0.0, id: str | None = None
) -> str:
    """Put a prompt into the mailbox of a session. A worker runs it when the runs before it have ended.

    It waits for the answers of a parked run, and never gives up an unfinished run, as a prompt of `Agent.run` does.

    Args:
      store: an open store, that of the workers.
      session: the session's id; a new one begins a session.
      prompt: as for `Agent.run`.
      agent: the name under which the workers know the agent; that of the session's last run if not given.
      after: seconds until the prompt is due.
      id: names the prompt, so that calling again after an error that leaves the outcome open adds no second one;
        random if not given.

    Returns:
      The prompt's id.

    Raises:
      UsageError: an argument is wrong.
      StoreError: the prompt may be saved or not; call again with the same ``id``.
    """
    mailboxes = mailboxes_of(store)
    if isinstance(after, bool) or not isinstance(cast("object", after), int | float) or not 0 <= after < float("inf"):
        raise UsageError(f"after={shown(after)}: give seconds, 0 or more")
    name = os.urandom(8).hex() if id is None else id
    await mailboxes.post(session, Mail(name, "prompt", msgspec.json.encode(user_message(prompt)), agent), delay=after)
    return name


async def answer(store: OpenStore, session: str, question: str, answer: Answer, *, id: str | None = None) -> str:
    """Put the answer to a question into the mailbox of its session, from any process.

    The worker that has the run live gives it the answer; a parked run is resumed with it. The first answer that fits
    the question counts. One for a question that is not open has no effect.

    Args:
      id: as for `enqueue`.

    Returns:
      The id of the mail.

    Raises:
      UsageError: an argument is wrong.
      StoreError: the answer may be saved or not; call again.
    """
    mailboxes = mailboxes_of(store)
    if not isinstance(cast("object", answer), Answer):
        raise UsageError(f"an answer is Approve(), Deny(), Accept(), Decline() or Cancel(), not {shown(answer)}")
    name = os.urandom(8).hex() if id is None else id
    await mailboxes.post(session, Mail(name, "answer", msgspec.json.encode(answer), question=question))
    return name


async def stop(store: OpenStore, session: str, detail: str = "", *, id: str | None = None) -> str:
    """Stop the run of a session, from any process, with the prompts that were enqueued before and wait.

    The worker that has the run live stops it within about a second. A run that is parked, or that was cut off, is
    resumed only to be stopped: no model and no tool is called for it. What was enqueued after the stop is run.

    Args:
      detail: more about the reason, for people: `Outcome.detail`. Halves of surrogate pairs are replaced.
      id: as for `enqueue`.

    Returns:
      The id of the mail.

    Raises:
      UsageError: an argument is wrong.
      StoreError: the stop may be saved or not; call again.
    """
    mailboxes = mailboxes_of(store)
    if not isinstance(cast("object", detail), str):
        raise UsageError(f"detail={shown(detail)}: give a text")
    name = os.urandom(8).hex() if id is None else id
    data = msgspec.json.encode(detail.encode("utf-8", "replace").decode())
    await mailboxes.post(session, Mail(name, "stop", data))
    return name
