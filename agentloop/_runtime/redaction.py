"""The redactor of a run: made of the agent's `Redaction` and of the session's table, with the rules of the library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import isawaitable
from threading import Lock
from typing import Any

import msgspec

from agentloop._core.secrets import Redactor, Rules, Secrets, labels_in
from agentloop._core.state import StreamState
from agentloop._core.transcript import Transcript
from agentloop._runtime.log import Redact
from agentloop._runtime.user_code import in_thread_if_plain
from agentloop.config import AgentConfig
from agentloop.errors import MissingExtraError
from agentloop.questions import Answer
from agentloop.redaction import Redaction

__all__ = ["open_redactor", "redacting_answers", "redactor_of"]

SECONDS = 5.0
"""Seconds that the library may search one text. It takes some milliseconds for a megabyte."""


def redactor_of(
    config: AgentConfig, team: Mapping[str, AgentConfig], session: Transcript, state: StreamState | None = None
) -> Redactor | None:
    """The redactor of a root run on ``session``; ``None`` if neither the agent nor one of its team redacts.

    Args:
      state: the run that is resumed, if there is one.
    """
    redaction = config.redact
    for member in team.values():
        redaction = redaction or member.redact
    if redaction is None:
        return None
    # An earlier process may have given labels: the same one must not stand for another secret.
    earlier: tuple[object, ...] = ()
    if session.secrets is None:
        session.secrets = Secrets()
        earlier = (session.messages, session.values)
    for part in (*earlier, *_parts_of(state)):
        session.secrets.skip(labels_in(msgspec.json.encode(part).decode()))
    session.secrets.name(redaction.secrets)
    redactor = Redactor(session.secrets, redaction.patterns, put_back=redaction.put_back)
    redactor.rules = _loaded if redaction.library else None
    return redactor


def _parts_of(state: StreamState | None) -> Iterator[object]:
    """The parts of a resumable run that may have placeholders."""
    if state is None:
        return
    yield from (state.prompt, state.messages, state.message, [*state.results.values()])
    for call in state.calls.values():
        yield [value.decode() for value in call.remembered.values()]
        yield [(record.question, record.answer) for record in call.all_questions]
        for child in call.children:
            yield from _parts_of(child)
    for child in state.background.values():
        yield from _parts_of(child)


async def redacting_answers(config: AgentConfig, session: Transcript) -> Redact | None:
    """What redacts the answers to a run that is about to be resumed, which the journal saves before that."""
    team = config.members
    if config.redact is None and all(agent.redact is None for agent in team.values()):
        return None
    for agent in (config, *team.values()):
        await open_redactor(agent.redact)

    def redact(past: StreamState, answer: Answer) -> Answer:
        redactor = redactor_of(config, team, session, past)
        return answer if redactor is None else redactor.value(answer)

    return redact


async def open_redactor(redaction: Redaction | None) -> None:
    """Load the rules of the library, if ``redaction`` asks for them, and if this process has not done so.

    Raises:
      MissingExtraError: the library is not installed.
    """
    global _loaded  # noqa: PLW0603 - the rules take a second to load, and a process needs them once
    if redaction is not None and redaction.library and _loaded is None:
        # On the clock of a test, it is called here.
        loading: Any = in_thread_if_plain(_load)()
        _loaded = await loading if isawaitable(loading) else loading


_loaded: Rules | None = None
_loading = Lock()


def _load() -> Rules:
    try:
        library: Any = import_module("kingfisher_sdk")
    except ImportError as error:
        package = "kingfisher-secret-scanner"
        raise MissingExtraError(feature="Redaction(library=True)", extra="redaction", package=package) from error
    with _loading:
        # Without base64: the place of a secret inside of other data cannot be replaced.
        scanner = library.Scanner(base64=False)

    def search(text: str) -> Iterator[tuple[str, str]]:
        for found in scanner.scan(text, timeout=SECONDS):
            if found.visible:
                # `betterleaks.github-pat`
                yield found.rule_id.rpartition(".")[2], found.secret

    return search
