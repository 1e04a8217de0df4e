"""The words of OpenAI's Responses API, as a server says them.

Events have a name beside their data, and the fields that the API's reference shows; of those that no client needs,
only a few.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tests.providers.server import chunked


def told(type: str, **fields: Any) -> bytes:
    """An event."""
    return f"event: {type}\n".encode() + b"data: " + msgspec.json.encode({"type": type, **fields}) + b"\n\n"


def response(status: str = "completed", **fields: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"error": None, "incomplete_details": None, "usage": None, "output": []}
    return {"id": "resp_1", "object": "response", "status": status, "model": "m-1", **common, **fields}


BEGUN = (
    told("response.created", sequence_number=0, response=response("in_progress"))
    + told("response.in_progress", sequence_number=1, response=response("in_progress"))
)  # fmt: skip


def ended(status: str = "completed", **fields: Any) -> bytes:
    return told(f"response.{status}", response=response(status, **fields))


def message(text: str = "", *, status: str = "completed", **fields: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}] if text else []
    return {"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": content, **fields}


def said(text: str, index: int = 0) -> bytes:
    return told(
        "response.output_text.delta", item_id="msg_1", output_index=index, content_index=0, delta=text, logprobs=[]
    )


def whole_message(*texts: str, index: int = 0, **fields: Any) -> bytes:
    """A message in pieces, from its beginning to its end."""
    text = "".join(texts)
    where = {"item_id": "msg_1", "output_index": index, "content_index": 0}
    part = {"type": "output_text", "text": text, "annotations": []}
    return b"".join(
        (
            told("response.output_item.added", output_index=index, item=message(status="in_progress", **fields)),
            told("response.content_part.added", **where, part={**part, "text": ""}),
            *(said(text, index) for text in texts),
            told("response.output_text.done", **where, text=text),
            told("response.content_part.done", **where, part=part),
            told("response.output_item.done", output_index=index, item=message(text, **fields)),
        )
    )


def call(id: str, name: str, arguments: str = "", **fields: Any) -> dict[str, Any]:
    return {"id": f"fc_{id}", "type": "function_call", "call_id": id, "name": name, "arguments": arguments, **fields}


def call_begun(index: int, id: str, name: str) -> bytes:
    return told("response.output_item.added", output_index=index, item=call(id, name, status="in_progress"))


def call_piece(index: int, arguments: str) -> bytes:
    return told("response.function_call_arguments.delta", item_id=f"fc_{index}", output_index=index, delta=arguments)


def call_ended(index: int, id: str, name: str, arguments: str) -> bytes:
    return told(
        "response.function_call_arguments.done", item_id=f"fc_{id}", output_index=index, arguments=arguments
    ) + told("response.output_item.done", output_index=index, item=call(id, name, arguments, status="completed"))


def whole_call(index: int, id: str, name: str, arguments: str) -> bytes:
    half = len(arguments) // 2
    return (
        call_begun(index, id, name)
        + call_piece(index, arguments[:half])
        + call_piece(index, arguments[half:])
        + call_ended(index, id, name, arguments)
    )


def thought(*summary: str, id: str = "rs_1", encrypted: str | None = "gAAA", **fields: Any) -> dict[str, Any]:
    parts = [{"type": "summary_text", "text": text} for text in summary]
    return {"id": id, "type": "reasoning", "summary": parts, "encrypted_content": encrypted, **fields}


def whole_thought(*summary: str, index: int = 0, **fields: Any) -> bytes:
    """A reasoning item, with a summary of several parts."""
    # What is encrypted may differ at first: only the item that is done can be sent back.
    events = [told("response.output_item.added", output_index=index, item=thought(encrypted="gA"))]
    for part, text in enumerate(summary):
        where = {"item_id": "rs_1", "output_index": index, "summary_index": part}
        events += [
            told("response.reasoning_summary_part.added", **where, part={"type": "summary_text", "text": ""}),
            *(told("response.reasoning_summary_text.delta", **where, delta=letter) for letter in text),
            told("response.reasoning_summary_text.done", **where, text=text),
            told("response.reasoning_summary_part.done", **where, part={"type": "summary_text", "text": text}),
        ]
    events.append(told("response.output_item.done", output_index=index, item=thought(*summary, **fields)))
    return b"".join(events)


def whole(*events: bytes, **fields: Any) -> bytes:
    """A whole answer: its beginning, the events, and its end."""
    return chunked(BEGUN, *events, ended(**fields))
