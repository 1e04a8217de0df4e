"""The words of Anthropic's Messages API, as a server says them."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.providers.server import chunked


def sent(type: str, **fields: Any) -> bytes:
    """An event, with its name, as the API sends it."""
    return b"event: %s\ndata: %s\n\n" % (type.encode(), msgspec.json.encode({"type": type, **fields}))


def began(**usage: Any) -> bytes:
    usage = {"input_tokens": 10, "output_tokens": 1, **usage}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": [], "usage": usage}
    return sent("message_start", message={**message, "stop_reason": None, "stop_sequence": None})


def started(index: int, type: str, **fields: Any) -> bytes:
    return sent("content_block_start", index=index, content_block={"type": type, **fields})


def delta(index: int, type: str, **fields: Any) -> bytes:
    return sent("content_block_delta", index=index, delta={"type": type, **fields})


def stopped(index: int) -> bytes:
    return sent("content_block_stop", index=index)


PING = sent("ping")


def said(*texts: str, index: int = 0) -> bytes:
    pieces = [delta(index, "text_delta", text=text) for text in texts]
    return b"".join([started(index, "text", text=""), *pieces, stopped(index)])


def thought(*texts: str, signature: str | None = "sig", index: int = 0) -> bytes:
    pieces = [delta(index, "thinking_delta", thinking=text) for text in texts]
    if signature is not None:
        pieces.append(delta(index, "signature_delta", signature=signature))
    return b"".join([started(index, "thinking", thinking="", signature=""), *pieces, stopped(index)])


def called(index: int, id: str, name: str, *pieces: str) -> bytes:
    deltas = [delta(index, "input_json_delta", partial_json=piece) for piece in ("", *pieces)]
    return b"".join([started(index, "tool_use", id=id, name=name, input={}), *deltas, stopped(index)])


def finished(reason: str = "end_turn", details: Any = None, **usage: Any) -> bytes:
    ending = {"stop_reason": reason, "stop_sequence": None, "stop_details": details}
    return sent("message_delta", delta=ending, usage={"output_tokens": 5, **usage})


END = sent("message_stop")


def events(*pieces: bytes, finish: str = "end_turn") -> list[bytes]:
    """The events of a whole answer."""
    return [began(), PING, *pieces, finished(finish), END]


def whole(*pieces: bytes, finish: str = "end_turn") -> bytes:
    """A whole answer."""
    return chunked(*events(*pieces, finish=finish))


def failed(type: str, message: str) -> bytes:
    return sent("error", error={"type": type, "message": message}, request_id="req_1")
