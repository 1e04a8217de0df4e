"""The same random numbers in each run: those of ``random``, ``secrets``, ``uuid`` and ``os.urandom``."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Generator
from contextlib import contextmanager

from agentloop.testing.simulation.threads import current_worker

__all__ = ["same_randomness"]


@contextmanager
def same_randomness() -> Generator[None]:
    """Seed the sources of randomness for the code of this thread, and of the simulated threads, until the block ends.

    The state of ``random`` is then as before. A generator that the program makes, ``random.Random()``, is seeded by
    ``os.urandom``, and so repeats itself as well; those that were made before are left as they are.
    """
    thread = threading.get_ident()
    state = random.getstate()
    real = os.urandom
    source = random.Random(0)  # noqa: S311 - the same numbers are the point

    def urandom(size: int, /) -> bytes:
        return source.randbytes(size) if threading.get_ident() == thread or current_worker() else real(size)

    random.seed(0)
    os.urandom = urandom
    # `secrets` and `random.SystemRandom` took it from there when they were imported.
    random._urandom = urandom  # type: ignore[attr-defined]
    try:
        yield
    finally:
        os.urandom = real
        random._urandom = real  # type: ignore[attr-defined]
        random.setstate(state)
