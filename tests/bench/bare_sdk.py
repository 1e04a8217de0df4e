"""The same with the provider's own client in the place of the socket: what most programs are written with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import openai

from tests.bench.bare import Message, Model
from tests.bench.work import Call

__all__ = ["open_model"]


@asynccontextmanager
async def open_model(url: str, tools: Sequence[dict[str, Any]]) -> AsyncGenerator[Model]:
    """A model behind ``url``. Its connections are kept by the client, which is closed when the block ends."""
    async with openai.AsyncOpenAI(base_url=url, api_key="key", max_retries=0) as client:

        async def model(messages: list[Message]) -> AsyncGenerator[str | Call]:
            calls: dict[int, list[str]] = {}
            response = await client.chat.completions.create(
                model="bench",
                messages=cast("Any", messages),
                tools=cast("Any", tools),
                stream=True,
                stream_options={"include_usage": True},
            )
            # Read to its end, at which it closes itself: `loop` closes this generator on every other way out.
            async for chunk in response:
                for choice in chunk.choices:
                    if choice.delta.content:
                        yield choice.delta.content
                    for piece in choice.delta.tool_calls or ():
                        assert piece.function is not None
                        call = calls.setdefault(piece.index, [piece.id or "", piece.function.name or "", ""])
                        call[2] += piece.function.arguments or ""
            for id, name, arguments in calls.values():
                yield Call(id, name, arguments)

        yield model
