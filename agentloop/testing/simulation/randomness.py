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

    The state of ``random`` is then as before. A generator that the program makes without a seed, ``random.Random()``,
    asks the system by itself, and stays as random as it was.
    """
    thread = threading.get_ident()
    state = random.getstate()
    real = os.urandom
    source = random.Random(0)

    def urandom(size: int, /) -> bytes:
        return source.randbytes(size) if threading.get_ident() == thread or current_worker() else real(size)

    random.seed(0)
    os.urandom = urandom
    # `secrets` and `random.SystemRandom` took it from there when they were imported.
    setattr(random, "_urandom", urandom)  # noqa: B010 - the type checkers do not know the name
    try:
        yield
    finally:
        os.urandom = real
        setattr(random, "_urandom", real)  # noqa: B010
        random.setstate(state)
