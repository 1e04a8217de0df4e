"""A model whose answers are kept in a folder, so that the same request is answered again without the provider.

::

    from agentloop.providers.cached import CachedModel

    agent = Agent(CachedModel("openai:gpt-5", "answers"))

It is for what is asked again and again in the same words: examples, evaluations, a page that many people open. In a
test, a cassette (``agentloop.testing.cassettes``) fails on a request that was not recorded, and a cache does not.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import msgspec
import trio

from agentloop._core.field_checks import shown
from agentloop._core.json_text import decode_own
from agentloop.config import check_model
from agentloop.errors import UsageError
from agentloop.messages import AssistantMessage, Message, ToolCall, ToolResult, Usage, UserMessage
from agentloop.models import Model, ModelRequest, Reply, Stop

__all__ = ["CachedModel"]

VERSION = 1
"""Part of each key: files of another version answer nothing."""
MAX_BYTES = 10_000_000
"""Bytes of a file that is read or written."""
PRICE_LIST = "cache"

_log = logging.getLogger("agentloop.providers")


class _Delta(msgspec.Struct, array_like=True):
    """A piece of a response: of the text, of the reasoning, or of the call number ``index``."""

    kind: str
    text: str = ""
    signature: str | None = None
    index: int = 0
    id: str = ""
    name: str = ""


class _Answer(msgspec.Struct):
    deltas: list[_Delta]
    stop: Stop


class CachedModel:
    """A model that answers a request as it has answered the same request before.

    A request is the same if all of it is: the name of the model, the messages, the instructions, the tools with their
    schemas, the output type and the settings. Ids of calls, usage and names of agents in earlier messages do not count.
    Only whole answers are kept: none that was cut off, refused, paused or empty.

    An answer from the folder has the tokens that the provider had counted, and costs nothing
    (``Usage.price_lists`` has ``"cache"``). Limits on tokens count it. The files have the answers in plain text, and of
    the requests only a hash; only this user may read them. Any number of processes can share the folder. A file that
    cannot be read or written is a warning in the log (``agentloop.providers``), and the model is asked.

    Args:
      model: the model, or its name.
      folder: the folder of the answers; it is made with the first one. Remove files to forget answers.
      max_age: seconds after which an answer counts no more; ``None`` for never.

    Raises:
      UsageError: ``model`` is none, or cannot be used here; or ``max_age`` is not above 0.
    """

    def __init__(self, model: Model | str, folder: str | os.PathLike[str], *, max_age: float | None = None) -> None:
        check_model(model)
        if max_age is not None and not max_age > 0:
            raise UsageError(f"CachedModel(max_age={shown(max_age)}): give seconds above 0, or None for no limit")
        self._model: Model = (
            import_module("agentloop.providers").model_for("cached", model) if isinstance(model, str) else model
        )
        self._folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay
        self._max_age = max_age

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._model.name

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Model]:
        """Open the model, if it holds something between responses."""
        opening: Any = getattr(self._model, "open", None)
        if opening is None:
            yield self
            return
        async with opening() as opened:
            yield CachedModel(cast("Model", opened), self._folder, max_age=self._max_age)

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Give the answer in the folder; or ask the model, and keep its answer."""
        file = self._folder / f"{_key(self._model.name, request)}.json"
        # Not abandoned when the run is cancelled: a small file takes no time, and no thread outlives the block.
        found = await trio.to_thread.run_sync(_read, file, self._max_age)
        if found is not None:
            await _play(found.deltas, reply)
            return found.stop
        recorder = _Recorder(reply)
        stop = await self._model.respond(request, recorder)
        if recorder.is_answer and stop.reason in ("end", "tool_calls"):
            usage = stop.usage if stop.usage.total_tokens else recorder.usage
            answer = _Answer(recorder.deltas, msgspec.structs.replace(stop, usage=_free(usage)))
            await trio.to_thread.run_sync(_write, file, answer)
        return stop

    def __repr__(self) -> str:
        return f"CachedModel({self._model!r}, {str(self._folder)!r})"


def _free(usage: Usage) -> Usage:
    """``usage`` of an answer that costs nothing any more."""
    return msgspec.structs.replace(usage, cost=0.0, priced_requests=1, price_lists=(PRICE_LIST,))


# --------------------------------------------------------------------------------- the key


def _key(model: str, request: ModelRequest) -> str:
    ids: dict[str, str] = {}
    messages = [_plain(message, ids) for message in request.messages]
    plain = msgspec.structs.replace(request, messages=messages)
    encoded = msgspec.json.encode([VERSION, model, plain], order="deterministic", enc_hook=repr)
    return hashlib.sha256(encoded).hexdigest()


def _plain(message: Message, ids: dict[str, str]) -> Message:
    """``message`` with what the provider gets of it. Ids of calls are numbered anew, as they may be made up."""
    if isinstance(message, UserMessage):
        return UserMessage(message.parts)
    if isinstance(message, ToolResult):
        return msgspec.structs.replace(message, call_id=ids.setdefault(message.call_id, f"call_{len(ids) + 1}"))
    parts = tuple(
        msgspec.structs.replace(part, id=ids.setdefault(part.id, f"call_{len(ids) + 1}"))
        if isinstance(part, ToolCall)
        else part
        for part in message.parts
    )
    return AssistantMessage(parts, message.stop)


# ------------------------------------------------------------------------------- the answer


class _Recorder:
    """A reply that notes what is written to another one."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.deltas: list[_Delta] = []
        self.usage = Usage()

    @property
    def is_answer(self) -> bool:
        """Whether there is something in it besides thoughts and white space."""
        return any(delta.kind == "call" or (delta.kind == "text" and delta.text.strip()) for delta in self.deltas)

    async def text(self, text: str, /) -> None:
        await self._reply.text(text)
        self._join(_Delta("text", text))

    async def reasoning(self, text: str, /, *, signature: str | None = None) -> None:
        await self._reply.reasoning(text, signature=signature)
        self._join(_Delta("reasoning", text, signature))

    async def tool_call(self, index: int, /, *, id: str = "", name: str = "", arguments: str = "") -> None:
        await self._reply.tool_call(index, id=id, name=name, arguments=arguments)
        self.deltas.append(_Delta("call", arguments, None, index, id, name))

    def report_usage(self, usage: Usage, /) -> None:
        self._reply.report_usage(usage)
        self.usage = usage

    def _join(self, delta: _Delta) -> None:
        last = self.deltas[-1] if self.deltas else None
        if last is not None and last.kind == delta.kind and last.signature is None:
            self.deltas[-1] = _Delta(delta.kind, last.text + delta.text, delta.signature)
        elif delta.text or delta.signature is not None:
            self.deltas.append(delta)


async def _play(deltas: list[_Delta], reply: Reply) -> None:
    for delta in deltas:
        match delta.kind:
            case "text":
                await reply.text(delta.text)
            case "reasoning":
                await reply.reasoning(delta.text, signature=delta.signature)
            case _:
                await reply.tool_call(delta.index, id=delta.id, name=delta.name, arguments=delta.text)


# --------------------------------------------------------------------------------- the files


def _read(file: Path, max_age: float | None) -> _Answer | None:
    try:
        with file.open("rb") as opened:
            if max_age is not None and time.time() - os.fstat(opened.fileno()).st_mtime > max_age:
                return None
            data = opened.read(MAX_BYTES + 1)
        return decode_own(data, _Answer)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        _log.warning("the answer in %s cannot be read, and the model is asked: %s", file, error)
        return None


def _write(file: Path, answer: _Answer) -> None:
    temporary = file.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        data = msgspec.json.encode(answer)
        if len(data) > MAX_BYTES:
            return
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as opened:  # noqa: PTH123 - it is a descriptor
                opened.write(data)
            # At once, so that nobody reads half an answer.
            temporary.replace(file)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        _log.warning("the answer cannot be kept in %s: %s", file, error)
