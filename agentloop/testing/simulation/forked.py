"""Spread independent pieces of work over forked processes."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from agentloop.testing.simulation.errors import HarnessError

__all__ = ["run_forked"]

T = TypeVar("T")


def run_forked(jobs: int, total: int, work: Callable[[int], T]) -> list[T]:
    """Return ``[work(0), ..., work(total - 1)]``, worked out in ``jobs`` processes where the system can fork.

    Raises:
      HarnessError: ``work`` raised, or a process died.
    """
    if jobs <= 1 or total < jobs or "fork" not in multiprocessing.get_all_start_methods():
        return [work(index) for index in range(total)]
    context = multiprocessing.get_context("fork")
    results: dict[int, T] = {}
    children: list[tuple[BaseProcess, Connection]] = []
    try:
        for job in range(jobs):
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(send, range(job, total, jobs), work), daemon=True)
            with warnings.catch_warnings():
                # The warning about other threads: they do not matter to a child that neither starts nor joins any.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            send.close()
            children.append((process, receive))
        for child, receive in children:
            results |= _result(child, receive)
    finally:
        for child, receive in children:
            receive.close()
            child.terminate()
            child.join()
    return [results[index] for index in range(total)]


def _child(send: Connection, indices: range, work: Callable[[int], T]) -> None:
    try:
        send.send({index: work(index) for index in indices})
    except Exception as error:  # noqa: BLE001
        # As text: it may hold anything, and must get through the pipe.
        send.send(f"{type(error).__name__}: {error}")


def _result(child: BaseProcess, receive: Connection) -> dict[int, Any]:
    try:
        answer: dict[int, Any] | str = receive.recv()
    except EOFError:
        child.join()
        raise HarnessError(f"a process that ran a part of the sweep died: exit code {child.exitcode}") from None
    if isinstance(answer, str):
        raise HarnessError(f"a process that ran a part of the sweep failed: {answer}")
    return answer
