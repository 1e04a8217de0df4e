"""Measuring one side against the other: alternately, in one process, by CPU time."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import trio

__all__ = ["Samples", "Work", "alternate", "alternate_here", "in_fresh_process", "median", "process", "ratio", "rss_kb"]

Work: TypeAlias = Callable[[], Awaitable[object]]
Samples: TypeAlias = list[float]
"""CPU seconds of one repetition, in the order in which they were taken."""

ROOT = Path(__file__).parents[2]


def alternate(works: Mapping[str, Work], *, rounds: int, repeat: int = 1) -> dict[str, Samples]:
    """`alternate_here`, in an event loop of its own."""
    return trio.run(partial(alternate_here, works, rounds=rounds, repeat=repeat))


async def alternate_here(
    works: Mapping[str, Work], *, rounds: int, repeat: int, clock: Callable[[], float] = time.process_time
) -> dict[str, Samples]:
    """The CPU time of each of ``works``, run in turn, ``rounds`` times each.

    Args:
      repeat: how often in a row each runs per sample: more where it is short, as the clock is coarse.
      clock: another one, for what is mostly waiting.
    """
    samples: dict[str, Samples] = {name: [] for name in works}
    for work in works.values():
        await work()
    for _ in range(rounds):
        for name, work in works.items():
            # Else each would pay for the garbage of the one before it.
            gc.collect()
            began = clock()
            for _ in range(repeat):
                await work()
            samples[name].append((clock() - began) / repeat)
    return samples


def median(samples: Samples) -> float:
    """The median."""
    return statistics.median(samples)


def ratio(ours: Samples, bare: Samples) -> float:
    """The median of the ratios of neighbours, which a machine that slows down half-way does not disturb."""
    return statistics.median(one / other for one, other in zip(ours, bare, strict=True))


def process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start ``python *arguments``. The checkout comes first on its path."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "PYTHONPATH": path}
    # Where this is set, a checkout would be compiled anew by each process, and installed packages would not.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.Popen([sys.executable, *arguments], env=env, **options)


def in_fresh_process(*arguments: str) -> Any:
    """What ``python *arguments`` prints as JSON."""
    with process(*arguments, stdout=subprocess.PIPE) as started:
        printed, _ = started.communicate()
    assert started.returncode == 0, arguments
    return json.loads(printed)


def rss_kb() -> float:
    """How much of the machine's memory this process holds now, in KB. Linux only."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024
