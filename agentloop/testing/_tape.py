"""The content of a cassette's file: exchanges with models, in a form that people read and two of which compare."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgspec

from agentloop import errors
from agentloop._core.json_text import decode_own
from agentloop._core.signature import parameters_of
from agentloop.errors import CassetteError, ModelError
from agentloop.messages import Usage
from agentloop.models import ModelRequest, Stop

__all__ = [
    "Exchange",
    "Failure",
    "Pieces",
    "ReasoningPieces",
    "TextPieces",
    "ToolCallPieces",
    "canonical",
    "key_of",
    "read_tape",
    "write_tape",
]

FORMAT = 1
WIDTH = 110
"""Characters in a line of the file, if its content can be cut."""

_UUID = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE)


class TextPieces(msgspec.Struct, frozen=True, tag="text"):
    """Pieces of the answer that came one after the other."""

    pieces: tuple[str, ...]


class ReasoningPieces(msgspec.Struct, frozen=True, tag="reasoning", omit_defaults=True):
    """Pieces of the reasoning; the signature came with the last one."""

    pieces: tuple[str, ...]
    signature: str | None = None


class ToolCallPieces(msgspec.Struct, frozen=True, tag="tool_call", omit_defaults=True):
    """Pieces of one tool call's arguments; the id and the name came with the first one."""

    index: int
    pieces: tuple[str, ...]
    id: str = ""
    name: str = ""


Pieces: TypeAlias = TextPieces | ReasoningPieces | ToolCallPieces


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A `ModelError`: its class, and what that is made of."""

    type: str
    message: str
    facts: dict[str, Any] = {}

    @classmethod
    def of(cls, error: ModelError) -> Failure:
        """``error``, as the nearest of our own classes."""
        kind = next(base for base in type(error).__mro__ if getattr(errors, base.__name__, None) is base)
        facts = {name: str(error) if name == "message" else getattr(error, name, None) for name in _parameters(kind)}
        attributes: dict[str, Any] = msgspec.to_builtins(facts, enc_hook=_foreign)
        return cls(kind.__name__, str(error), attributes)

    def error(self) -> ModelError:
        """The error again.

        Raises:
          ValueError: there is no such error, or it is made of something else.
        """
        kind: Any = getattr(errors, self.type, None)
        if not (isinstance(kind, type) and issubclass(kind, ModelError)):
            raise ValueError(  # noqa: TRY004 - what is wrong is the name
                f"there is no ModelError {self.type!r}"
            )
        try:
            return kind(**self.facts) if _parameters(kind) else kind(self.message)
        except TypeError as error:
            raise ValueError(f"{self.type} is not made of {', '.join(self.facts) or 'nothing'}") from error


class Exchange(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A request and its response."""

    key: str
    """`key_of` it. For people and their diffs: a reader of the file computes it anew."""
    model: str
    request: dict[str, Any]
    """`canonical`."""
    reply: tuple[Pieces, ...] = ()
    stop: Stop | None = None
    """How the response ended, unless it failed."""
    error: Failure | None = None
    reported: Usage = Usage()
    """The usage that was reported before the response failed."""


class _Head(msgspec.Struct):
    format: int


class _Tape(msgspec.Struct):
    format: int
    exchanges: tuple[Exchange, ...]


# ------------------------------------------------------------------------------ requests


def canonical(
    request: ModelRequest, *, redact: Callable[[object], Any], ignore: Sequence[re.Pattern[str]] = ()
) -> dict[str, Any]:
    """``request`` without what does not matter to the response, as JSON values.

    Left out are usage, model and agent of earlier responses, and the names of context sources; ids of tool calls are
    numbered anew; tools are in the order of their names, dicts in the order of their keys; what `redact` takes out is
    gone, and UUIDs and what matches one of ``ignore`` are replaced.
    """
    built: dict[str, Any] = msgspec.to_builtins(
        request, order="deterministic", builtin_types=(bytes, bytearray, memoryview), enc_hook=_foreign
    )
    ids: dict[str, str] = {}
    for message in built["messages"]:
        message.pop("usage", None)
        message.pop("model", None)
        message.pop("agent", None)
        message.pop("context", None)
        if "call_id" in message:
            message["call_id"] = ids.setdefault(message["call_id"], f"call_{len(ids) + 1}")
        for part in message["parts"]:
            if part["type"] == "tool_call":
                part["id"] = ids.setdefault(part["id"], f"call_{len(ids) + 1}")
    built["tools"] = sorted(built["tools"], key=lambda tool: tool["name"])
    # Empty fields are left out, so that a field that is added to requests one day changes no key.
    fields = {
        name: _replaced(redact(value), ignore) for name, value in built.items() if value not in (None, "", [], {})
    }
    plain: dict[str, Any] = msgspec.to_builtins(fields)
    return plain


def _replaced(value: object, ignore: Sequence[re.Pattern[str]]) -> Any:
    if isinstance(value, str):
        text = _UUID.sub("<uuid>", value)
        for pattern in ignore:
            text = pattern.sub("<ignored>", text)
        # JSON cannot carry half a surrogate pair.
        return text.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {name: _replaced(inner, ignore) for name, inner in items}
    if isinstance(value, list):
        return [_replaced(inner, ignore) for inner in cast("list[object]", value)]
    return value


def _foreign(value: object) -> str:
    # Not its repr, in which there may be an address.
    return f"<{type(value).__qualname__}>"


def key_of(model: str, request: dict[str, Any]) -> str:
    """The key of a request to a model, the same for equal requests: 32 hexadecimal digits."""
    text = json.dumps([model, request], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _parameters(kind: type[Exception]) -> list[str]:
    """The parameters of ``kind``; none if it takes its message alone."""
    if kind.__init__ is Exception.__init__:
        return []
    wanted = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = parameters_of(kind.__init__).items()
    return [name for name, parameter in parameters if parameter.kind in wanted and name != "self"]


# --------------------------------------------------------------------------------- files


def read_tape(path: Path) -> tuple[Exchange, ...]:
    """The exchanges in a cassette's file, with their keys worked out anew.

    Raises:
      CassetteError: there is no such file, it is of a newer format, or it is no cassette.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CassetteError(f"cannot be read: {error.strerror or error}", path=str(path)) from error
    try:
        version = decode_own(raw, _Head).format
        if version > FORMAT:
            raise CassetteError(
                f"is of format {version}, and this version of agentloop reads up to {FORMAT}: update agentloop, "
                "or record anew",
                path=str(path),
            )
        tape = decode_own(raw, _Tape)
        for exchange in tape.exchanges:
            if exchange.error is not None:
                exchange.error.error()
            elif exchange.stop is None:
                raise ValueError(f"exchange {exchange.key} has neither a stop nor an error")
    except (msgspec.DecodeError, UnicodeError, ValueError) as error:
        raise CassetteError(f"is no cassette: {error}; record anew, or remove the file", path=str(path)) from error
    return tuple(
        msgspec.structs.replace(exchange, key=key_of(exchange.model, exchange.request)) for exchange in tape.exchanges
    )


def write_tape(path: Path, exchanges: Sequence[Exchange]) -> None:
    """Put ``exchanges`` into ``path``: all of them or, if that fails, none, and the old content stays."""
    text = _pretty(msgspec.to_builtins(_Tape(FORMAT, tuple(exchanges)), enc_hook=_foreign)) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
        # A temporary file is for its owner alone; a cassette is a file like others.
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _pretty(value: object, indent: int = 0) -> str:
    """JSON in which what fits is on one line, and short strings share lines."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list, tuple)) or len(flat) + indent <= WIDTH:
        return flat
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        parts = [f"{json.dumps(name, ensure_ascii=False)}: {_pretty(item, indent + 2)}" for name, item in items]
        return "{\n" + ",\n".join(inner + part for part in parts) + "\n" + " " * indent + "}"
    parts = [_pretty(item, indent + 2) for item in cast("Sequence[object]", value)]
    lines: list[str] = []
    for part in parts:
        if part.startswith('"') and lines and lines[-1].startswith('"') and len(lines[-1]) + len(part) < WIDTH - indent:
            lines[-1] += ", " + part
        else:
            lines.append(part)
    return "[\n" + ",\n".join(inner + line for line in lines) + "\n" + " " * indent + "]"
