"""Cassettes: what models replied once, recorded, and played again without a network and without a key."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, TypeVar

import msgspec
import trio

from agentloop._runtime.exception_groups import single
from agentloop._runtime.lifecycle import Override
from agentloop._runtime.user_code import describe
from agentloop.config import AgentConfig
from agentloop.errors import AgentLoopError, CassetteError, ModelConnectionError, ModelError, UsageError
from agentloop.messages import Usage
from agentloop.models import Model, ModelRequest, OpenableModel, Reply, Stop
from agentloop.providers import model_for
from agentloop.providers._network import for_recording
from agentloop.testing._difference import difference, nearest
from agentloop.testing._pieces import Recorder, play
from agentloop.testing._redaction import Redaction
from agentloop.testing._tape import Exchange, Failure, canonical, key_of, read_tape, write_tape
from agentloop.testing.scripted import FunctionModel, ScriptedModel

__all__ = ["Cassette", "CassetteMode", "cassette"]

CassetteMode: TypeAlias = Literal["auto", "record", "replay"]
"""The mode of a cassette: ``auto`` replays if the file exists, and records otherwise."""

Clean = TypeVar("Clean", Stop, Failure)

HOW_TO_RECORD = (
    'If that is as it should be, record anew: pytest --cassettes=record, or cassette(..., mode="record"), or remove '
    "the file."
)


def cassette(
    path: str | Path,
    *,
    mode: CassetteMode = "auto",
    agents: Literal["task", "process", "none"] = "task",
    redact: Iterable[str | re.Pattern[str]] = (),
    ignore: Iterable[str | re.Pattern[str]] = (),
    unused: Literal["warn", "error", "ignore"] = "warn",
) -> Cassette:
    """Record what models reply, and replay it.

    ::

        with cassette("cassettes/weather.json"):
            outcome = await agent.run("What is the weather in Porto?")

    Every agent that is opened in the block goes through the cassette, whatever its model, those inside others too; but
    not an agent whose model is a `ScriptedModel` or a `FunctionModel`. In replay no network is needed, no key, and none
    of the extras that adapters need.

    A request gets the response that was recorded for the same request to a model of the same name; the same request for
    the second time gets the second such response. Irrelevant differences do not count: the order in dicts and of tools,
    ids of tool calls, usage, UUIDs. Text that changes from run to run is named with ``ignore``.

    A recording holds text, reasoning, tool calls, usage and errors of models, piece by piece. The file is read on
    entering and written on leaving, whole, however the block is left. A response that was cancelled is not recorded.
    Replay waits for nothing; but code that waits after a replayed error, such as a retry, still does.
    Keys are taken out before anything is written: those of the known providers in the environment, the values of other
    variables that are called ``..._API_KEY``, text that looks like a key, and text that matches one of ``redact``.

    Args:
      path: the file, JSON that is meant to be read and kept with the tests.
      mode: ``auto`` replays if the file is there, and else records; ``record`` records anew, also where models behind a
        network are forbidden; ``replay`` never asks a model.
      agents: which agents go through it: those opened in this task and in the tasks that it starts, all in the process,
        or none but those that are given `Cassette.model`.
      redact: regular expressions of further secrets.
      ignore: regular expressions of text in requests that may differ.
      unused: what to do about recordings that were not asked for, if the block ends without an error.

    Raises:
      UsageError: an argument is wrong.
      CassetteError: on entering: the file cannot be read. On leaving: recordings are unused. A request that was not
        recorded fails with it, too, and with the difference to the nearest one that was.
    """
    return Cassette(path, mode=mode, agents=agents, redact=redact, ignore=ignore, unused=unused)


class Cassette:
    """Made by `cassette`. The block may be entered again after it was left."""

    def __init__(
        self,
        path: str | Path,
        *,
        mode: CassetteMode,
        agents: Literal["task", "process", "none"],
        redact: Iterable[str | re.Pattern[str]],
        ignore: Iterable[str | re.Pattern[str]],
        unused: Literal["warn", "error", "ignore"],
    ) -> None:
        _one_of("mode", mode, ("auto", "record", "replay"))
        _one_of("agents", agents, ("task", "process", "none"))
        _one_of("unused", unused, ("warn", "error", "ignore"))
        for name, patterns in (("redact", redact), ("ignore", ignore)):
            if isinstance(patterns, (str, re.Pattern)):
                raise UsageError(f"{name}= takes a list of regular expressions, not {patterns!r}: put it in brackets")
        self.path = Path(path)
        """The file."""
        self.recording = False
        """Whether it records; known once the block is entered."""
        self._mode = mode
        self._unused = unused
        self._user_patterns = tuple(redact)
        self._redaction = Redaction(self._user_patterns)
        self._ignore = tuple(_compiled(pattern) for pattern in ignore)
        self._override = Override(self._taped, everywhere=agents == "process") if agents != "none" else nullcontext()
        self._is_open = False
        self._exchanges: list[Exchange | None] = []
        """In the order in which the responses began; ``None`` for one that has not come to its end, or never did."""
        self._left: defaultdict[str, deque[int]] = defaultdict(deque)
        """By key, the places of the recordings that were not replayed yet."""
        self._missed = ""

    def __enter__(self) -> Self:
        if self._is_open:
            raise UsageError(f"cassette {self.path} is open already")
        self.recording = self._mode == "record" or (self._mode == "auto" and not self.path.exists())
        # Anew: there may be other keys in the environment now.
        self._redaction = Redaction(self._user_patterns)
        self._exchanges = [] if self.recording else list(read_tape(self.path))
        self._left.clear()
        self._missed = ""
        for index, exchange in enumerate(self._exchanges):
            assert exchange is not None
            self._left[exchange.key].append(index)
        self._override.__enter__()
        self._is_open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._override.__exit__(None, None, None)
        self._is_open = False
        if self.recording:
            whole = [exchange for exchange in self._exchanges if exchange is not None]
            # An empty recording does not replace an existing one, which is worth more.
            if whole:
                write_tape(self.path, whole)
        elif kind is None and self.unused and self._unused != "ignore":
            places = ", ".join(str(index + 1) for index in self.unused)
            problem = f"{len(self.unused)} of {len(self._exchanges)} recordings were not asked for: number {places}. "
            if self._unused == "error":
                raise CassetteError(problem + HOW_TO_RECORD, path=str(self.path))
            warnings.warn(f"cassette {self.path}: {problem}{HOW_TO_RECORD}", stacklevel=2)

    def ignore_unused(self) -> None:
        """Say nothing, on leaving, of recordings that were not asked for until now."""
        self._left.clear()

    @property
    def unused(self) -> tuple[int, ...]:
        """The places, from 0, of the recordings that were not replayed (yet)."""
        return tuple(sorted(index for places in self._left.values() for index in places))

    def model(self, model: Model | str) -> Model:
        """A model that records the responses of ``model``, or replays them.

        Args:
          model: a model, or its name as ``"provider:model"``, which is looked up only to record.

        Raises:
          UsageError: the block was not entered, or was left. ``ModelNotFoundError`` and the like: there is no such
            model to record.
        """
        return self._tape(model, agent="")

    def _taped(self, agent: AgentConfig, model: Model | str) -> Model | str:
        if isinstance(model, (ScriptedModel, FunctionModel, _TapedModel)):
            return model
        return self._tape(model, agent=agent.name)

    def _tape(self, model: Model | str, *, agent: str) -> Model:
        self._check_open()
        name = AgentConfig(model).model if isinstance(model, str) else model.name
        assert isinstance(name, str)
        if not self.recording:
            return _TapedModel(self, name, None)
        with self._network():
            return _TapedModel(self, name, model_for(agent, model) if isinstance(model, str) else model)

    def _network(self) -> AbstractContextManager[None]:
        # Unless recording was requested, a switch that forbids the network counts.
        return for_recording() if self._mode == "record" else nullcontext()

    def _check_open(self) -> None:
        if not self._is_open:
            raise UsageError(f"cassette {self.path} is not open: use it inside of its `with` block")

    # ------------------------------------------------------------------------ recording

    async def _record(self, model: Model, name: str, request: ModelRequest, reply: Reply) -> Stop:
        self._check_open()
        # Now: once the response is over, the transcript that the request shows may change.
        asked = self._canonical(request)
        # The place, too: which of two responses that run at once is over first is a matter of luck.
        index = len(self._exchanges)
        self._exchanges.append(None)
        recorder = Recorder(reply)
        stop: Any = None
        failure: Failure | None = None
        try:
            with self._network():
                stop = await model.respond(request, recorder)
        except Exception as group:
            error = single(group)
            if isinstance(error, AgentLoopError) and not isinstance(error, ModelError):
                raise  # a rule that the caller broke: no reply
            if not isinstance(error, ModelError):
                # The error as the runtime raises it.
                unreachable = isinstance(error, (OSError, trio.BrokenResourceError))
                kind = ModelConnectionError if unreachable else ModelError
                error = kind(f"model {name!r} failed: {describe(error)}")
            failure = Failure.of(error)
            raise
        finally:
            if failure is not None or isinstance(stop, Stop):
                self._exchanges[index] = Exchange(
                    key=key_of(name, asked),
                    model=name,
                    request=asked,
                    reply=recorder.pieces(self._redaction),
                    stop=self._clean(stop) if isinstance(stop, Stop) else None,
                    error=None if failure is None else self._clean(failure),
                    reported=Usage() if failure is None else recorder.reported,
                )
        returned: Stop = stop
        return returned

    def _canonical(self, request: ModelRequest) -> dict[str, Any]:
        return canonical(request, redact=self._redaction.value, ignore=self._ignore)

    def _clean(self, value: Clean) -> Clean:
        return msgspec.convert(self._redaction.value(msgspec.to_builtins(value)), type=type(value))

    # ------------------------------------------------------------------------ replaying

    async def _replay(self, name: str, request: ModelRequest, reply: Reply) -> Stop:
        self._check_open()
        asked = self._canonical(request)
        left = self._left[key_of(name, asked)]
        if not left:
            raise self._missing(name, asked)
        exchange = self._exchanges[left.popleft()]
        assert exchange is not None
        await trio.lowlevel.checkpoint()
        for pieces in exchange.reply:
            await play(pieces, reply)
        if exchange.error is not None:
            if exchange.reported != Usage():
                reply.report_usage(exchange.reported)
            raise exchange.error.error()
        assert exchange.stop is not None
        return exchange.stop

    def _missing(self, name: str, asked: dict[str, Any]) -> CassetteError:
        """The error for a request that was not recorded, or not that often."""
        whole = [exchange for exchange in self._exchanges if exchange is not None]
        key = key_of(name, asked)
        times = sum(exchange.key == key for exchange in whole)
        # Unused recordings are more likely to be the intended ones.
        likely = [whole[index] for index in self.unused] or whole
        index = None if times else nearest(name, asked, likely)
        lines = ""
        if times:
            how_often = "once" if times == 1 else f"{times} times"
            problem = f"this request to {name!r} was recorded {how_often}, and is made once more. "
        elif index is None:
            problem = f"there is no recording of this request to {name!r}, or of one like it. "
        else:
            lines = difference(name, asked, likely[index])
            number = next(position for position, exchange in enumerate(whole, 1) if exchange is likely[index])
            problem = (
                f"there is no recording of this request to {name!r}. The nearest one is {number} of {len(whole)}; "
                f"- was recorded, + is asked now:\n{lines}\n"
            )
        # An inner agent's refused request is a tool's error in the outer run, and changes the requests that follow.
        earlier = f"\nIt is not the first such request. Of the first: {self._missed}" if self._missed else ""
        self._missed = self._missed or problem
        return CassetteError(f"{problem}{HOW_TO_RECORD}{earlier}", path=str(self.path), model=name, difference=lines)

    def __repr__(self) -> str:
        state = ("recording" if self.recording else "replaying") if self._is_open else "closed"
        return f"<Cassette {self.path}: {state}>"


class _TapedModel:
    """A model that goes through a cassette."""

    __slots__ = ("_cassette", "_model", "name")

    def __init__(self, cassette: Cassette, name: str, model: Model | None) -> None:
        self._cassette = cassette
        self._model = model
        """The model to record; ``None`` in replay."""
        self.name = name

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Model]:
        """Open the recorded model, if it can be opened."""
        if not isinstance(self._model, OpenableModel):
            yield self
            return
        async with self._model.open() as model:
            yield _TapedModel(self._cassette, self.name, model)

    async def respond(self, request: ModelRequest, reply: Reply, /) -> Stop:
        """Record what the model replies, or replay it."""
        if self._model is None:
            return await self._cassette._replay(self.name, request, reply)
        return await self._cassette._record(self._model, self.name, request, reply)

    def __repr__(self) -> str:
        return f"<{self.name} on {self._cassette!r}>"


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name}= is one of {', '.join(map(repr, allowed))}, not {value!r}")


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f"ignore= takes regular expressions, which {pattern!r} is not: {error}") from error
