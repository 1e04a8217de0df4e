"""The figures: what is measured, and what it may be at most."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import msgspec
import trio
from attrs import evolve, frozen

from agentloop import tool
from agentloop.providers.openai_chat import OpenAIChat
from tests.bench import bare, bare_http, ours
from tests.bench.measure import Samples, Work, alternate, alternate_here, in_fresh_process, median, ratio
from tests.bench.server import running_server
from tests.bench.work import NESTED, PARALLEL, SHORT, TALK, Plan, add, nap, turns

__all__ = ["FIGURES", "Figure", "Measured", "NotMeasuredError"]

SDK = "the bare openai SDK"

Unit: TypeAlias = Literal["us", "ms", "KB", "x"]


class NotMeasuredError(Exception):
    """The figure needs something that this machine lacks."""


@frozen(kw_only=True)
class Measured:
    """What was measured. ``ours`` and ``bare`` are of the figure's unit."""

    ours: float
    bare: float
    value: float
    """What is held against the target: mostly ``ours`` as a multiple of ``bare``."""
    note: str = ""


@frozen(kw_only=True)
class Figure:
    """Something to measure."""

    name: str
    """For the command line."""
    title: str
    unit: Unit
    target: float
    """At most."""
    target_unit: Unit = "x"
    peer: str
    """Where the best other Python runtime stands."""
    measure: Callable[[bool], Measured]
    """Measures it, or, if told to be quick, has a glance at it."""


def _compare(works: dict[str, Work], *, scale: float, rounds: int, repeat: int = 1) -> Measured:
    return _measured(alternate(works, rounds=rounds, repeat=repeat), scale=scale)


def _measured(samples: dict[str, Samples], *, scale: float) -> Measured:
    """``ours`` against ``bare``, and what else there is as notes, in ``scale`` parts of a second."""
    notes = [
        f"{name}: {ratio(samples[name], samples['bare']):.2f}x" for name in samples if name not in ("ours", "bare")
    ]
    return Measured(
        ours=median(samples["ours"]) * scale,
        bare=median(samples["bare"]) * scale,
        value=ratio(samples["ours"], samples["bare"]),
        note=", ".join(notes),
    )


def _all_of(read: Callable[[], Awaitable[int]], texts: int) -> Work:
    """``read``, which must find ``texts`` pieces of text: a side that loses work would look fast."""

    async def work() -> None:
        found = await read()
        assert found == texts, (found, texts)

    return work


def _works(plan: Plan, *tools: Callable[..., Awaitable[object]]) -> dict[str, Work]:
    agent, model = ours.agent_for(plan, *tools), bare.model_of(plan)
    named = {tool.__name__: tool for tool in tools}
    return {
        "ours": _all_of(partial(ours.read, agent), plan.texts),
        "bare": _all_of(partial(bare.read, model, named), plan.texts),
        "tuned by hand": _all_of(partial(bare.read, model, named, tuned=True), plan.texts),
    }


def _delta(quick: bool) -> Measured:
    return _compare(_works(TALK), scale=1e6 / TALK.texts, rounds=3 if quick else 41, repeat=3)


def _turn(quick: bool) -> Measured:
    return _compare(_works(turns(20), add), scale=1e6 / 20, rounds=5 if quick else 61, repeat=5)


def _parallel(quick: bool) -> Measured:
    return _compare(_works(PARALLEL, nap), scale=1e3, rounds=5 if quick else 61, repeat=2)


def _at_once(count: int, work: Work) -> Work:
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(work)

    return run


def _many(count: int) -> Callable[[bool], Measured]:
    def measure(quick: bool) -> Measured:
        works = {name: _at_once(count, work) for name, work in _works(SHORT, add).items()}
        return _compare(works, scale=1e6 / count, rounds=3 if quick else 15)

    return measure


def _nested(quick: bool) -> Measured:
    texts = sum(plan.texts for plan in NESTED)
    agent = ours.nested_agent()
    works = {"ours": _all_of(partial(ours.read, agent), texts), "bare": _all_of(bare.read_nested, texts)}
    works["tuned by hand"] = _all_of(partial(bare.read_nested, tuned=True), texts)
    return _compare(works, scale=1e6, rounds=5 if quick else 61, repeat=5)


def _growth(quick: bool) -> Measured:
    """The late turns of a long run against its early ones. Timed in the model, which both sides call at once."""
    marks: list[float] = []
    works = _works(turns(500, marks=marks), add)
    grown: dict[str, Samples] = {"ours": [], "bare": []}
    for _ in range(3 if quick else 31):
        for name, found in grown.items():
            marks.clear()
            trio.run(works[name])
            costs = [after - before for before, after in pairwise(marks)]
            found.append(median(costs[485:495]) / median(costs[5:15]))
    return Measured(ours=median(grown["ours"]), bare=median(grown["bare"]), value=median(grown["ours"]))


def _http_measured(samples: dict[str, Samples], *, scale: float) -> Measured:
    measured = _measured(samples, scale=scale)
    return measured if SDK in samples else evolve(measured, note=f"{SDK}: not installed")


def _over_http(path: str, plan: Plan, *tools: Callable[..., Awaitable[object]], quick: bool) -> dict[str, Samples]:
    """The same with a server in a process of its own. Each side keeps its connection."""
    named = {each.__name__: each for each in tools}
    specs = [{"type": "function", "function": msgspec.to_builtins(tool(each).spec)} for each in tools]

    async def run(url: str) -> dict[str, Samples]:
        async with AsyncExitStack() as stack:
            our = await stack.enter_async_context(OpenAIChat("bench", base_url=url, api_key="key").open())
            works = {"ours": _all_of(partial(ours.read, ours.agent_on(our, *tools)), plan.texts)}
            for name, open_one in _by_hand().items():
                model = await stack.enter_async_context(open_one(url, specs))
                works[name] = _all_of(partial(bare.read, model, named), plan.texts)
            return await alternate_here(works, rounds=3 if quick else 41, repeat=3)

    with running_server() as server:
        return trio.run(run, f"{server}/{path}/v1")


def _by_hand() -> dict[str, Callable[..., AbstractAsyncContextManager[bare.Model]]]:
    """Clients without a runtime."""
    if find_spec("openai") is None:
        return {"bare": bare_http.open_model}
    return {"bare": bare_http.open_model, SDK: import_module("tests.bench.bare_sdk").open_model}


def _http_delta(quick: bool) -> Measured:
    return _http_measured(_over_http("talk", TALK, quick=quick), scale=1e6 / TALK.texts)


def _http_turn(quick: bool) -> Measured:
    return _http_measured(_over_http("turns", turns(20), add, quick=quick), scale=1e6 / 20)


def _http_many(quick: bool) -> Measured:
    """Runs at once. Each has a connection of its own, from its first turn to its last."""
    count = 200
    specs = [{"type": "function", "function": msgspec.to_builtins(tool(add).spec)}]

    async def run(url: str) -> dict[str, Samples]:
        async def read_bare() -> int:
            async with bare_http.open_model(url, specs) as model:
                return await bare.read(model, {"add": add})

        agent = ours.agent_on(OpenAIChat("bench", base_url=url, api_key="key"), add)
        async with AsyncExitStack() as stack:
            reads: dict[str, Callable[[], Awaitable[int]]] = {"ours": partial(ours.read, agent), "bare": read_bare}
            open_sdk = _by_hand().get(SDK)
            if open_sdk is not None:
                # One client for all: it keeps the connections itself, and takes long to make.
                reads[SDK] = partial(bare.read, await stack.enter_async_context(open_sdk(url, specs)), {"add": add})
            works = {name: _at_once(count, _all_of(read, SHORT.texts)) for name, read in reads.items()}
            return await alternate_here(works, rounds=3 if quick else 15, repeat=1)

    with running_server() as server:
        samples = trio.run(run, f"{server}/short/v1")
    return _http_measured(samples, scale=1e6 / count)


def _memory(quick: bool) -> Measured:
    count = 2_000 if quick else 10_000
    sides = [in_fresh_process("-m", "tests.bench.memory", "many", side, str(count)) for side in ("ours", "bare")]
    kb = [side["kb_per_run"] for side in sides]
    return Measured(ours=kb[0], bare=kb[1], value=kb[0], note=f"{count:,} runs")


def _stalled(quick: bool) -> Measured:
    sides = [in_fresh_process("-m", "tests.bench.memory", "stalled", side, "1000000") for side in ("ours", "bare")]
    kb = [side["peak_kb"] for side in sides]
    return Measured(ours=kb[0], bare=kb[1], value=kb[0], note=f"{sides[0]['taken']} of 1,000,000 deltas taken")


def _flood(quick: bool) -> Measured:
    """What a long response takes in memory while a slow reader reads it, beyond what its first tenth took."""
    count = 100_000 if quick else 1_000_000
    with running_server() as server:
        url = f"{server}/flood-{count}/v1"
        sides = [
            in_fresh_process("-m", "tests.bench.memory", "flood", side, str(count), url) for side in ("ours", "bare")
        ]
    kb = [side["grown_kb"] for side in sides]
    return Measured(
        ours=kb[0], bare=kb[1], value=kb[0], note=f"{count:,} deltas of one letter, which the message keeps"
    )


def _in(module: str, figure: str, *arguments: object) -> Callable[[bool], Measured]:
    """A figure of another module, which imports this one, or an SDK: with ``arguments``, a function that makes it."""

    def measure(quick: bool) -> Measured:
        function: Callable[..., Any] = getattr(import_module(f"tests.bench.{module}"), figure)
        measured: Measured = function(*arguments)(quick) if arguments else function(quick)
        return measured

    return measure


def _saving(place: str, runs: int, target: float) -> Figure:
    return Figure(
        name=f"events-{place}-{runs}",
        title=f"an event saved in {place}, {runs} run{'s' * (runs > 1)}",
        unit="us",
        target=target,
        peer="not measured",
        measure=_in("throughput", "on_sqlite" if place == "SQLite" else "on_postgres", runs),
    )


def _encoding(name: str) -> Figure:
    return Figure(
        name=f"encode-{name}",
        title=f"a request of 10,000 messages, {name}",
        unit="ms",
        target=0.5,
        peer="not measured",
        measure=_in("growth", "encoding", name),
    )


def _import(quick: bool) -> Measured:
    """Both in turn, each in a process of its own, without what it takes to start Python."""
    samples: dict[str, Samples] = {"agentloop": [], "trio, attrs, msgspec": []}
    for _ in range(4 if quick else 21):
        for modules, found in samples.items():
            program = f"import time; t = time.process_time(); import {modules}; print(time.process_time() - t)"
            found.append(in_fresh_process("-c", program))
    # Not the first ones, which may have compiled modules.
    one, other = (found[1:] for found in samples.values())
    return Measured(ours=median(one) * 1e3, bare=median(other) * 1e3, value=ratio(one, other))


FIGURES = (
    Figure(name="delta", title="a text delta", unit="us", target=0.4, peer="1.3x", measure=_delta),
    Figure(name="turn", title="a turn with one tool call, of 20", unit="us", target=1.3, peer="6.5x", measure=_turn),
    Figure(name="parallel", title="16 parallel tools", unit="ms", target=1.15, peer="2.2x", measure=_parallel),
    Figure(name="many-200", title="a run, 200 at once", unit="us", target=1.75, peer="6.6x", measure=_many(200)),
    Figure(name="many", title="a run, 1,000 at once", unit="us", target=1.65, peer="6.1x", measure=_many(1000)),
    Figure(name="nested", title="three agents deep", unit="us", target=2.0, peer="4.2x", measure=_nested),
    Figure(name="growth", title="turn 490 against turn 10", unit="x", target=1.1, peer="1.0x", measure=_growth),
    Figure(name="http-delta", title="a text delta over HTTP", unit="us", target=2.5, peer="9.6x", measure=_http_delta),
    Figure(name="http-turn", title="a turn over HTTP, of 20", unit="us", target=2.5, peer="28x", measure=_http_turn),
    Figure(
        name="traced-turn",
        title="a turn over HTTP, traced against untraced",
        unit="us",
        target=1.15,
        peer="not measured",
        measure=_in("traced", "turn"),
    ),
    Figure(
        name="http-many",
        title="a run over HTTP, 200 at once",
        unit="us",
        target=12.0,
        peer="SDK 42x",
        measure=_http_many,
    ),
    Figure(
        name="memory",
        title="memory of a run, all at once",
        unit="KB",
        target=24,
        target_unit="KB",
        peer="68 KB",
        measure=_memory,
    ),
    Figure(
        name="stalled",
        title="memory while the reader stalls",
        unit="KB",
        target=64,
        target_unit="KB",
        peer="bounded",
        measure=_stalled,
    ),
    Figure(
        name="http-flood",
        title="memory of a response over HTTP",
        unit="KB",
        target=4096,
        target_unit="KB",
        peer="not measured",
        measure=_flood,
    ),
    Figure(
        name="mcp-call",
        title="a call over MCP",
        unit="us",
        target=1.2,
        peer="not measured",
        measure=_in("mcp_figures", "call"),
    ),
    Figure(
        name="mcp-parallel",
        title="50 calls over MCP",
        unit="ms",
        target=1.2,
        peer="not measured",
        measure=_in("mcp_figures", "parallel"),
    ),
    Figure(
        name="mcp-servers",
        title="10 MCP servers against one",
        unit="ms",
        target=1.5,
        peer="not measured",
        measure=_in("mcp_figures", "ten_servers"),
    ),
    Figure(
        name="store-commits",
        title="a commit, 64 sessions against one",
        unit="us",
        target=0.05,
        peer="not measured",
        measure=_in("store_figures", "commits"),
    ),
    Figure(
        name="store-turns",
        title="20 turns with a journal in SQLite",
        unit="ms",
        target=3.0,
        peer="not measured",
        measure=_in("store_figures", "turns"),
    ),
    Figure(
        name="store-open",
        title="opening a session of 10,000 messages",
        unit="ms",
        target=35,
        target_unit="ms",
        peer="not measured",
        measure=_in("store_figures", "opening"),
    ),
    Figure(
        name="store-memory",
        title="memory of 100,000 saved events",
        unit="KB",
        # SQLite keeps up to 2 MB of each connection's pages.
        target=4096,
        target_unit="KB",
        peer="not measured",
        measure=_in("store_figures", "memory"),
    ),
    *(_saving("SQLite", runs, target) for runs, target in ((1, 3.0), (10, 2.5), (200, 2.0))),
    *(_saving("PostgreSQL", runs, target) for runs, target in ((1, 10.0), (10, 5.0), (200, 5.0))),
    Figure(
        name="asyncio-run",
        title="a run in asyncio",
        unit="us",
        target=2.0,
        peer="see the note",
        measure=_in("hosted", "runs", 200, False),
    ),
    Figure(
        name="asyncio-many",
        title="a run in asyncio, 1,000 at once",
        unit="us",
        target=1.2,
        peer="see the note",
        measure=_in("hosted", "runs", 1000, True),
    ),
    Figure(
        name="asyncio-tick",
        title="a timer of asyncio beside an idle host",
        unit="ms",
        target=0.2,
        target_unit="ms",
        peer="not measured",
        measure=_in("hosted", "tick"),
    ),
    Figure(
        name="serve-one",
        title="an event served to one client",
        unit="us",
        # Ours runs an agent, and saves its run.
        target=8.0,
        peer="not measured",
        measure=_in("served", "reading", 1),
    ),
    Figure(
        name="serve-many",
        title="an event served to 200 clients",
        unit="us",
        target=2.0,
        peer="not measured",
        measure=_in("served", "reading", 200),
    ),
    Figure(
        name="agent",
        title="to make an agent with one tool",
        unit="us",
        target=250,
        target_unit="us",
        peer="see docs",
        measure=_in("growth", "making"),
    ),
    Figure(
        name="tools",
        title="a turn with 2,000 tools offered",
        unit="us",
        target=1.5,
        peer="not measured",
        measure=_in("growth", "tools"),
    ),
    *map(_encoding, ("chat", "messages", "responses")),
    Figure(
        name="cancel",
        title="a call of 16,000 that are cancelled",
        unit="us",
        target=1.5,
        peer="not measured",
        measure=_in("growth", "cancelling"),
    ),
    Figure(name="import", title="import", unit="ms", target=1.25, peer="1.5x", measure=_import),
)
