"""A served agent as a part of a FastAPI app, on asyncio.

Start it, and talk to it::

    pip install "agentloop-trio[http,serve,testing]" fastapi uvicorn
    uvicorn examples.fastapi_mount:app

    curl localhost:8000/agents/v1/chat/completions --json '{"model": "assistant", "messages": [{"role": "user", "content": "Hello"}]}'
"""  # noqa: E501 - one command

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from agentloop import serving
from examples.serve import agent

served = serving.app(agent)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with served.hosted():
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/agents", served)


@app.get("/")
async def home() -> dict[str, str]:
    return {"agents": "/agents"}
