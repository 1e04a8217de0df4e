"""A `ModelRequest` as the JSON of a request to Anthropic's Messages API. Plain functions: nothing here waits.

The API refuses a transcript whose roles do not alternate, that does not begin and end with the user, or that has the
thoughts of another conversation in it. Ours may have all of that, so it is mended here; what single messages hold is
mended in `_messages_blocks`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2s
from typing import Any, Literal, TypeAlias

import msgspec
from attrs import frozen

from agentloop.messages import AssistantMessage, Message, ToolResult
from agentloop.models import ModelRequest, ModelSettings, ToolSpec
from agentloop.providers._messages_blocks import (
    THOUGHTS,
    Block,
    assistant_blocks,
    result_blocks,
    text_block,
    thought_in,
    user_blocks,
)
from agentloop.providers._structured_output import anthropic_schema, request_in_words

__all__ = ["Asked", "Dialect", "Written", "messages_request"]


@frozen(kw_only=True)
class Dialect:
    """What each request to the same model has in common."""

    model: str
    """What the server calls the model."""
    max_tokens: int
    """Where the settings give none: the API insists on one."""
    cache: Literal["5m", "1h"] | None = "5m"
    """How long the server is to keep what it has read; ``None`` to not ask for it."""


class Written:
    """Messages as they were written last time: each request repeats the one before, and adds a few."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        # By identity: comparing a long message by value costs more than writing it. Each entry keeps its message
        # alive, so that no other one can have its id.
        self._last: dict[int, _Entry] = {}

    def write(self, messages: Iterable[Message], dialect: Dialect) -> list[_Entry]:
        """``messages`` as they go on the wire."""
        now: dict[int, _Entry] = {}
        entries: list[_Entry] = []
        for message in messages:
            entry = self._last.get(id(message)) or _written(message, dialect)
            now[id(message)] = entry
            entries.append(entry)
        # What is not in this request is forgotten: this holds one transcript, not all there were.
        self._last = now
        return entries


@frozen
class _Entry:
    message: Message
    role: str
    blocks: tuple[msgspec.Raw, ...]
    """Empty if there is nothing in it that may be sent."""
    after: tuple[msgspec.Raw, ...] = ()
    """What must follow the last result of the same turn."""
    bare: tuple[msgspec.Raw, ...] | None = None
    """The blocks without the thoughts; ``None`` if there are none."""
    prefix: str | None = None
    """What the thoughts are bound to."""


@frozen
class Asked:
    """A request."""

    body: bytes
    prefix: str | None
    """What thoughts of the response are bound to."""


_Turn: TypeAlias = tuple[str, list[msgspec.Raw]]

_encoder = msgspec.json.Encoder()


def messages_request(request: ModelRequest, dialect: Dialect, written: Written) -> Asked:
    """What asks for ``request``, as a stream."""
    settings = request.settings
    max_tokens = dialect.max_tokens if settings.max_tokens is None else settings.max_tokens
    system, form = request.instructions, None
    if request.output is not None:
        form = anthropic_schema(request.output.parameters)
        if form is None:
            system = "\n\n".join(filter(None, (system, request_in_words(request.output))))
    tools = [_raw(_tool(spec)) for spec in request.tools]
    blocks = [_raw(text_block(system))] if system.strip() else []
    story = _Story(_digest(tools, blocks) if _binds_thoughts(dialect.model) else None)
    for entry in written.write(request.messages, dialect):
        story.add(entry)
    turns = story.finish()
    if dialect.cache is not None:
        _mark(tools, blocks, turns, dialect.cache)
    body: dict[str, Any] = {"model": dialect.model, "max_tokens": max_tokens, "stream": True}
    if tools:
        body["tools"] = tools
    if blocks:
        body["system"] = blocks
    body["messages"] = [{"role": role, "content": content} for role, content in turns]
    body.update(_settings(settings, with_tools=bool(tools)))
    body.update(_thinking(settings, dialect.model, max_tokens))
    if form is not None:
        body["output_config"] = {**body.get("output_config", {}), "format": {"type": "json_schema", "schema": form}}
    body.update(settings.extra)
    return Asked(_encoder.encode(body), story.prefix)


def _raw(block: Block) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(block))


# ------------------------------------------------------------------------------- settings


def _settings(settings: ModelSettings, *, with_tools: bool) -> Iterator[tuple[str, Any]]:
    # There is no word for a seed.
    for field, value in (
        ("temperature", settings.temperature),
        ("top_p", settings.top_p),
        ("stop_sequences", settings.stop or None),
        ("tool_choice", _tool_choice(settings) if with_tools else None),
    ):
        if value is not None:
            yield field, value


def _tool_choice(settings: ModelSettings) -> dict[str, Any] | None:
    one_at_most = settings.parallel_tool_calls is False
    if settings.tool_choice is None and not one_at_most:
        return None
    choice: dict[str, Any] = {"type": "any" if settings.tool_choice == "required" else settings.tool_choice or "auto"}
    if one_at_most and settings.tool_choice != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")
_FIRST_ADAPTIVE = (4, 6)
_FIRST_BINDING = (5, 1)
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24_576}
_LEAST_BUDGET = 1024


def _version(model: str) -> tuple[int, int] | None:
    """Such as ``(4, 6)`` of ``claude-sonnet-4-6``; ``None`` if it is no such name."""
    found = _VERSION.search(model)
    return None if found is None else (int(found[1]), int(found[2] or 0))


def _thinking(settings: ModelSettings, model: str, max_tokens: int) -> dict[str, Any]:
    """How much the model shall think.

    From Claude 4.6 on it decides by itself, led by an effort; it refuses a budget from 4.7 on. The ones before it
    know a budget only, which must be smaller than ``max_tokens``, since it is a part of them.
    """
    if settings.reasoning_effort is None:
        return {}
    version = _version(model)
    if version is None or version >= _FIRST_ADAPTIVE:
        effort = "low" if settings.reasoning_effort == "minimal" else settings.reasoning_effort
        # Newer models keep their thoughts to themselves unless asked: a minute of silence, which looks like a stall.
        return {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": effort}}
    budget = max(_LEAST_BUDGET, min(_BUDGETS[settings.reasoning_effort], max_tokens // 2))
    return {"thinking": {"type": "enabled", "budget_tokens": budget}} if budget < max_tokens else {}


def _tool(spec: ToolSpec) -> Block:
    described = {"description": spec.description} if spec.description else {}
    return {"name": spec.name, **described, "input_schema": spec.parameters}


# -------------------------------------------------------------------------------- caching


def _mark(tools: list[msgspec.Raw], system: list[msgspec.Raw], turns: list[_Turn], keep: Literal["5m", "1h"]) -> None:
    """Say where the server is to cache: four places, which is all that there may be.

    The tools and the system prompt, which other sessions share; the end, where the next request goes on; and the
    end of the request before, since the server looks only twenty blocks back for it, and a turn may have more.
    """
    control = _encoder.encode({"type": "ephemeral"} if keep == "5m" else {"type": "ephemeral", "ttl": keep})
    users = [content for role, content in turns if role == "user"]
    for blocks in (tools, system, *users[-2:]):
        if blocks:
            # Into the JSON as it is: a picture need not be written again.
            blocks[-1] = msgspec.Raw(bytes(blocks[-1])[:-1] + b',"cache_control":' + control + b"}")


# ------------------------------------------------------------------------------- messages


_GO_ON = _raw(text_block("Go on."))


class _Story:
    """The messages, so that the roles alternate, and the user has the first word and the last."""

    __slots__ = ("_after", "_digest", "_turns")

    def __init__(self, digest: blake2s | None) -> None:
        self._turns: list[_Turn] = []
        self._after: tuple[msgspec.Raw, ...] = ()
        self._digest = digest
        """Of what was written so far."""

    @property
    def prefix(self) -> str | None:
        return None if self._digest is None else self._digest.hexdigest()

    def add(self, entry: _Entry) -> None:
        """Add a message."""
        if not isinstance(entry.message, ToolResult):
            self._end_results()
        if not self._turns and entry.role != "user":
            self._add("user", (_GO_ON,))
        self._add(entry.role, entry.blocks if entry.bare is None or entry.prefix == self.prefix else entry.bare)
        self._after += entry.after

    def finish(self) -> list[_Turn]:
        """All of it."""
        self._end_results()
        # Newer models refuse to continue a message of theirs.
        if not self._turns or self._turns[-1][0] != "user":
            self._add("user", (_GO_ON,))
        return self._turns

    def _end_results(self) -> None:
        # After the last result: results must stand first in their message.
        self._add("user", self._after)
        self._after = ()

    def _add(self, role: str, blocks: tuple[msgspec.Raw, ...]) -> None:
        if not blocks:
            return
        if self._turns and self._turns[-1][0] == role:
            self._turns[-1][1].extend(blocks)
        else:
            self._turns.append((role, list(blocks)))
        if self._digest is not None:
            for block in blocks:
                self._digest.update(role.encode())
                self._digest.update(block)


def _binds_thoughts(model: str) -> bool:
    """Whether the model refuses a thought that it had in another conversation.

    It is another one if but the instructions or the tools have changed, as they do where an agent hands over to
    another, or has the time of day in its instructions.
    """
    version = _version(model)
    return version is not None and version >= _FIRST_BINDING


def _digest(tools: Iterable[msgspec.Raw], system: Iterable[msgspec.Raw]) -> blake2s:
    digest = blake2s(digest_size=12)
    for block in (*tools, *system):
        digest.update(block)
    return digest


def _written(message: Message, dialect: Dialect) -> _Entry:
    if isinstance(message, AssistantMessage):
        said = assistant_blocks(message, dialect.model)
        bare = tuple(_raw(block) for block in said if block["type"] not in THOUGHTS)
        if len(bare) == len(said):
            return _Entry(message, "assistant", bare)
        prefix = next(echo.prefix for part in message.parts if (echo := thought_in(part, dialect.model)) is not None)
        return _Entry(message, "assistant", tuple(map(_raw, said)), bare=bare, prefix=prefix)
    if isinstance(message, ToolResult):
        result, after = result_blocks(message)
        return _Entry(message, "user", (_raw(result),), tuple(map(_raw, after)))
    return _Entry(message, "user", tuple(map(_raw, user_blocks(message.parts))))
